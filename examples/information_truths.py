"""How right are the estimators of information? Cases whose truth is known, means over draws, coverage of intervals.

    python examples/information_truths.py            # all of it: some minutes
    python examples/information_truths.py --quick

Truths in nats, by quadrature: a shift between two Gaussians, a spread that no line can see, four corners; padded with
nuisance of other sizes and turned, which changes nothing.
"""

import resource
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.integrate import quad
from scipy.stats import chi2, norm

from pellucid.audits.information import (
    Information,
    binning_information,
    kernel_information,
    mine_information,
    probe_information,
    projected_information,
    ross_information,
)

Drawn = tuple[np.ndarray, np.ndarray]
SHIFT, SPREAD, CORNER = 1.8385, 2.7908, 2.0


def turned(h: np.ndarray, d: int, rng: np.random.Generator) -> np.ndarray:
    """With nuisance dimensions of sizes from 0.3 to 3, in a random rotation."""
    more = d - h.shape[1]
    h = np.concatenate([h, rng.normal(size=(len(h), more)) * np.geomspace(0.3, 3, max(1, more))[:more]], 1)
    return np.asarray(h @ np.linalg.qr(rng.normal(size=(d, d)))[0])


def shifted(n: int, d: int, rng: np.random.Generator) -> Drawn:
    """Two Gaussians SHIFT apart."""
    y = rng.integers(2, size=n)
    h = rng.normal(size=(n, min(d, 2)))
    h[:, 0] += (y - 0.5) * SHIFT
    return turned(h, d, rng), np.eye(2)[y]


def spread(n: int, d: int, rng: np.random.Generator) -> Drawn:
    """Two Gaussians with one center, one SPREAD times as wide in two dimensions."""
    y = rng.integers(2, size=n)
    return turned(rng.normal(size=(n, 2)) * np.where(y, SPREAD, 1)[:, None], d, rng), np.eye(2)[y]


def corners(n: int, d: int, rng: np.random.Generator) -> Drawn:
    """Four Gaussians at CORNER times the unit vectors; at least four dimensions."""
    y = rng.integers(4, size=n)
    return turned(rng.normal(size=(n, 4)) + CORNER * np.eye(4)[y], max(d, 4), rng), np.eye(4)[y]


def independent(n: int, d: int, rng: np.random.Generator) -> Drawn:
    """Nothing to be found."""
    return rng.normal(size=(n, d)), np.eye(2)[rng.integers(2, size=n)]


def truth_of_shift(delta: float) -> float:
    """log 2 - E log(1 + exp(-L)), L ~ N(delta^2 / 2, delta^2)."""

    def part(x: float) -> float:
        return float(np.logaddexp(0, -(delta**2 / 2 + delta * x)) * norm.pdf(x))

    return float(np.log(2) - quad(part, -12, 12)[0])


def truth_of_spread(s: float) -> float:
    """From the squared radius r: chi2(2), or s^2 times it."""

    def part(r: float) -> float:
        a, b = chi2.pdf(r, 2), chi2.pdf(r / s**2, 2) / s**2
        return float(0.5 * sum(q * np.log(2 * q / (a + b)) for q in (a, b) if q > 0))

    return float(quad(part, 0, 60, limit=200)[0] + quad(part, 60, 400, limit=200)[0])


CASES: dict[str, tuple[Callable[[int, int, np.random.Generator], Drawn], float]] = {
    "shifted": (shifted, 0.3),
    "spread": (spread, 0.3),
    "corners": (corners, 0.9196),
}
ESTIMATORS: dict[str, Callable[[np.ndarray, np.ndarray], Information]] = {
    "probe (default)": lambda h, p: probe_information(h, p, null=False),
    "probe, linear": lambda h, p: probe_information(h, p, families=("linear",), null=False),
    "projected Ross": projected_information,
    "Ross": ross_information,
    "in-sample MINE": mine_information,
    "kernel": kernel_information,
    "binning": binning_information,
}


def main(quick: bool) -> None:
    """Print everything."""
    seeds, cases = (2, 10) if quick else (5, 100)
    rng = np.random.default_rng
    print(f"Mean over {seeds} draws of 5,000 rows")
    for name, (draw, truth) in CASES.items():
        for d in (2, 32):
            found = [probe_information(*draw(5000, d, rng(s)), null=False).value for s in range(seeds)]
            print(f"  {name:8} d = {d:3}: {np.mean(found):.4f} (sd {np.std(found, ddof=1):.4f}), truth {truth}")
    print("Independent, d = 128, 1,000 rows: within 3 standard errors or .01")
    none = [probe_information(*independent(1000, 128, rng(s)), null=False) for s in range(4 * seeds)]
    good = sum(abs(f.value) <= max(3 * (f.se or 0), 0.01) for f in none)
    print(f"  {good} of {len(none)}; the largest is {max(abs(f.value) for f in none):.4f}")
    print("Independent, d = 128, 1,000 rows, one draw: the truth is 0, the most there can be 0.693")
    for name, estimate in ESTIMATORS.items():
        if name != "Ross":
            print(f"  {name:16} {estimate(*independent(1000, 128, rng(0))).value:7.4f}")
    print(f"Intervals of {cases} draws that hold ...")
    for name, d, n in (("shifted", 2, 2000), ("spread", 2, 2000), ("shifted", 32, 1000), ("spread", 32, 1000)):
        draw, truth = CASES[name]
        made = [probe_information(*draw(n, d, rng(1000 + s)), null=False) for s in range(cases)]
        mean = float(np.mean([f.value for f in made]))
        held = [sum(f.interval[0] <= x <= f.interval[1] for f in made if f.interval) for x in (truth, mean)]
        print(f"  {name:8} d = {d:2}, n = {n}: the truth {held[0]}, the mean over draws ({mean:.4f}) {held[1]}")
    for n, d in ((5000, 128),) if quick else ((5000, 768), (20_000, 768)):
        start = time.perf_counter()
        one = probe_information(*shifted(n, d, rng(0)))
        seconds, memory = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"{n} rows, {d} wide: {one.value:.3f} (null {one.null:.4f}), {seconds:.1f} s, peak {memory:.0f} MB")


if __name__ == "__main__":
    main("--quick" in sys.argv)
