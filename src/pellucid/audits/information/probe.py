"""Probe information: how much better a classifier on the states foretells the output than the prior does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.audits.information.estimate import Information, Sample, folds_of, log_prior
from pellucid.audits.information.networks import Layers, Part, networks
from pellucid.errors import InputError, MissingExtra
from pellucid.methods.pointwise import Probe

Family = Literal["linear", "mlp"]
FAMILIES: tuple[Family, ...] = ("linear", "mlp")
STRENGTHS = (3e-3, 0.1, 3.0)
LEAST = 1e-3
ENOUGH = {"linear": 20, "mlp": 40}
"""Texts per dimension below which a family is known to miss much of what is there."""
HELD_OUT = 5
"""One in so many texts is held out to choose by."""
FEWEST = 4
CHOSEN_ON = 4000, 20
"""The strength and temperature of a linear probe are chosen on at most so many rows, or so many times their width."""
AT_ONCE = 3e8
"""Bytes of states whose networks are trained together."""


def probe_information(
    h: object,
    p: object,
    groups: object = None,
    families: Sequence[str] = FAMILIES,
    folds: int = 5,
    seed: int = 0,
    weights: object = None,
    null: bool = True,
) -> Information:
    """Cross-fitted probe information: E sum_y p(y) [log q(y | h) - log prior(y)], q fitted on other texts.

    h [n, d]: states; p [n, c]: the model's output probabilities (soft targets: less noise than drawn labels); groups
    [n]: the text of each row, kept in one fold; weights [n]: of rows in the mean. In each fold the family ("linear",
    "mlp"), its strength and its temperature are chosen on a fifth of the training texts; the prior itself is a
    candidate, so that nothing found costs nothing. null: also on outputs permuted over texts, at the same cost.

    It is a lower bound in expectation for the information that is there, up to the error of the prior: what no probe of
    these families finds, is not found. Pointwise values tell what a row's state says of its own output; negative ones
    speak for another class. Unit: nats, at most log c.
    Cost: per fold four linear fits (scikit-learn) and one small network.
    Raises: InputError for states that are not finite, an output that is no distribution, or one class throughout, and
    for too few texts; MissingExtra without scikit-learn.
    Source: V-information, Xu et al. 2020, arXiv 2002.10689; pointwise: Ethayarajh et al. 2022, arXiv 2110.08420; after
    the question of Wen et al. 2022, arXiv 2211.07714.
    """
    sample = Sample.of(h, p, groups, weights)
    both = [sample, sample.permuted(np.random.default_rng([seed, 1]))] if null else [sample]
    found = crossfitted(both, families, folds, seed)
    return information(sample, found[0], families, both[1].summed(found[1].pointwise)[0] if null else None)


@dataclass(frozen=True, eq=False)
class Crossfit:
    """What probes of other texts say of each row: log q and log prior [n, c], pointwise [n] the mean gain; fold [n],
    and the family chosen in each."""

    log_q: np.ndarray
    log_prior: np.ndarray
    pointwise: np.ndarray
    fold: np.ndarray
    chosen: tuple[str, ...]


def information(
    sample: Sample, found: Crossfit, families: Sequence[str] = FAMILIES, null: float | None = None
) -> Information:
    """A cross-fit as an estimate. Its standard error is that over texts, or that over folds if this is larger: each
    fold has a fit of its own, whose noise the texts do not show."""
    value, se = sample.summed(found.pointwise)
    weight = np.bincount(found.fold, sample.weights)
    folds = np.bincount(found.fold, sample.weights * found.pointwise) / weight
    se = max(se or 0.0, float(folds.std(ddof=1) / np.sqrt(len(folds))))
    told = ", ".join(f"{name} in {found.chosen.count(name)}" for name in dict.fromkeys(found.chosen))
    method = f"probe ({told} of {len(found.chosen)} folds)"
    return Information(value, se, sample.texts, null, small(sample, families), found.pointwise, method)


def small(sample: Sample, families: Sequence[str] = FAMILIES) -> str | None:
    """A warning where the texts are too few for the width."""
    n, d = sample.texts, sample.h.shape[1]
    short = [f for f in families if n < ENOUGH[f] * d]
    if not short:
        return None
    wanted = " and ".join(f"{ENOUGH[f] * d:,} for {f}" for f in short)
    return f"{n:,} texts are few for states {d} wide (better {wanted}): much of what is there may not be found."


def crossfitted(
    samples: Sequence[Sample], families: Sequence[str] = FAMILIES, folds: int = 5, seed: int = 0
) -> list[Crossfit]:
    """What probes fitted on other texts say of each row of each sample; samples of the same texts share their folds."""
    for family in families:
        if family not in FAMILIES:
            raise InputError(f"There is no probe family {family!r}; choose from {', '.join(FAMILIES)}.")
    made: list[Crossfit] = []
    for some in _slabs(samples, folds):
        fold = [folds_of(s, folds, seed) for s in some]
        jobs = [(s, f != k) for s, f in zip(some, fold, strict=True) for k in range(folds)]
        probes = fitted(jobs, families, seed)
        for i, (s, f) in enumerate(zip(some, fold, strict=True)):
            made.append(_read(s, f, probes[i * folds : (i + 1) * folds]))
    return made


def _slabs(samples: Sequence[Sample], folds: int) -> list[list[Sample]]:
    """Samples whose networks are trained together: of one shape, and no more than fit the memory."""
    made: list[list[Sample]] = []
    for s in samples:
        last = made[-1] if made else []
        alike = last and (last[0].h.shape[1], last[0].p.shape[1]) == (s.h.shape[1], s.p.shape[1])
        if alike and 4 * folds * sum(x.h.size for x in [*last, s]) <= AT_ONCE:
            last.append(s)
        else:
            made.append([s])
    return made


def _read(sample: Sample, fold: np.ndarray, probes: "Sequence[Probe]") -> Crossfit:
    log_q, prior = np.zeros(sample.p.shape), np.zeros(sample.p.shape)
    for k, probe in enumerate(probes):
        log_q[fold == k] = probe.log_probabilities(torch.from_numpy(sample.h[fold == k])).numpy()
        prior[fold == k] = probe.log_prior.numpy()
    chosen = tuple(probe.about["family"] for probe in probes)
    return Crossfit(log_q, prior, (sample.p * (log_q - prior)).sum(1), fold, chosen)


def fitted(jobs: Sequence[tuple[Sample, np.ndarray]], families: Sequence[str] = FAMILIES, seed: int = 0) -> list[Probe]:
    """The best probe for some rows (a mask [n]) of each sample: of a family, or the prior where no family beats it, or
    there are fewer than FEWEST texts."""
    # the caller's inference mode or autocast must not reach the fits
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        split = [_Split.of(sample, rows, seed) for sample, rows in jobs]
        able = [i for i, one in enumerate(split) if one.texts >= FEWEST]
        layers: dict[int, Layers] = {}
        if "mlp" in families:
            made = networks([split[i].part for i in able], [split[i].check for i in able], seed)
            layers = dict(zip(able, made, strict=True))
        found = []
        for i, one in enumerate(split):
            candidates = [one.scaled("mlp", layers[i])] if i in layers else []
            if "linear" in families and i in able:
                candidates += one.best_linear()
            found.append(one.chosen(candidates))
        return found


@dataclass(frozen=True, eq=False)
class _Split:
    """The rows of a fit, a fifth of their texts held out to choose by."""

    sample: Sample
    rows: np.ndarray
    held: np.ndarray
    texts: int
    center: np.ndarray
    spread: np.ndarray
    part: Part
    check: Part

    @classmethod
    def of(cls, sample: Sample, rows: np.ndarray, seed: int) -> "_Split":
        texts = np.unique(sample.groups[rows])
        rng = np.random.default_rng([seed, 2, len(texts), int(texts.sum())])
        held = np.isin(sample.groups, texts[sample.dealt(texts, HELD_OUT, rng) == 0]) & rows
        used = rows & ~held
        center, spread = sample.h[used].mean(0), sample.h[used].std(0)
        # what does not vary says nothing
        spread = np.where(spread > 1e-9 * np.maximum(1.0, np.abs(center)), spread, np.inf)
        parts = [Part.of((sample.h[at] - center) / spread, sample.p[at], sample.weights[at]) for at in (used, held)]
        return cls(sample, rows, held, len(texts), center, spread, *parts)

    def scaled(self, family: str, layers: Layers) -> tuple[float, Probe]:
        """The loss on held-out texts at the temperature that is best there, and the probe. The temperature is at least
        1: a few texts that happen to be easy would call for certainty."""
        from scipy.optimize import minimize_scalar

        z = _run(layers, self.check.h.double())
        best = minimize_scalar(
            lambda t: self.check.loss((z / np.exp(t)).log_softmax(-1)), bounds=(0.0, 4.0), method="bounded"
        )
        return float(best.fun), self._probe(family, layers, float(np.exp(best.x)))

    def best_linear(self) -> list[tuple[float, Probe]]:
        """Logistic regression of the best strength, fitted again on all rows with the temperature found before; none
        where only one class is to be seen."""
        part, most = self.part, max(CHOSEN_ON[0], CHOSEN_ON[1] * self.part.h.shape[1])
        if len(part.h) > most:
            some = torch.from_numpy(np.random.default_rng(0).permutation(len(part.h))[:most])
            part = Part(part.h[some], part.p[some], part.w[some])
        if len((part.p > LEAST).any(0).nonzero()) < 2:
            return []
        tried = [self.scaled("linear", linear(part, c)) for c in STRENGTHS]
        at = int(np.argmin([loss for loss, _ in tried]))
        loss, probe = tried[at]
        s = self.sample
        whole = Part.of((s.h[self.rows] - self.center) / self.spread, s.p[self.rows], s.weights[self.rows])
        return [(loss, self._probe("linear", linear(whole, STRENGTHS[at]), probe.temperature))]

    def chosen(self, candidates: Sequence[tuple[float, Probe]]) -> Probe:
        """The candidate of the least loss, or the prior unless the gain is more than half its own standard error:
        otherwise small samples would pay for chance."""
        nothing = self._probe("prior", (), 1.0)
        if not candidates:
            return nothing
        best = min(candidates, key=lambda c: c[0])[1]
        s, used = self.sample, self.rows & ~self.held
        prior = log_prior(s.p[used], s.weights[used], len(np.unique(s.groups[used])))
        log_q = best.log_probabilities(torch.from_numpy(s.h[self.held])).numpy()
        gain, w = (s.p[self.held] * (log_q - prior)).sum(1), s.weights[self.held] / s.weights[self.held].sum()
        mean = float(gain @ w)
        noise = float(np.sqrt((np.bincount(s.groups[self.held], (gain - mean) * w) ** 2).sum()))
        return best if mean > 0.5 * noise else nothing

    def _probe(self, family: str, layers: Layers, temperature: float) -> Probe:
        s, rows = self.sample, self.rows
        prior = torch.from_numpy(log_prior(s.p[rows], s.weights[rows], self.texts))
        center, spread = torch.from_numpy(self.center), torch.from_numpy(self.spread)
        return Probe(center, spread, layers, temperature, prior, {"family": family})


def _run(layers: Layers, x: Tensor) -> Tensor:
    for i, (w, b) in enumerate(layers):
        x = (x if i == 0 else x.relu()) @ w.T + b
    return x


def linear(part: Part, strength: float) -> Layers:
    """Logistic regression on soft targets: each row once for each class of more than LEAST probability, weighted so."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as e:
        raise MissingExtra("The linear probe needs scikit-learn: pip install 'pellucid[info]'.") from e

    rows, classes = (part.p > LEAST).nonzero(as_tuple=True)
    counts = part.p[rows, classes] * part.w[rows]
    model = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
    model.fit(part.h[rows].numpy(), classes.numpy(), sample_weight=counts.numpy())
    w, b = torch.from_numpy(model.coef_).double(), torch.from_numpy(model.intercept_).double()
    if len(model.classes_) == 2:
        w, b = torch.cat([-w / 2, w / 2]), torch.cat([-b / 2, b / 2])
    every = torch.zeros(part.p.shape[1], w.shape[1], dtype=w.dtype), torch.full((part.p.shape[1],), -30.0).double()
    every[0][model.classes_], every[1][model.classes_] = w, b
    return (every,)
