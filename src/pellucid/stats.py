"""Statistics over texts: pure functions on numbers. Estimators are scipy's; what is drawn, and when, is ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], float]
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number over `n` texts with its 95 % interval; the interval is None for fewer than two texts."""

    value: float | None
    interval: tuple[float, float] | None
    n: int
    samples: int = 0


def over_texts(
    samples: Sequence[Sequence[float]],
    statistic: Statistic = np.mean,
    share: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """`statistic` of all samples together, with a percentile bootstrap interval over texts.

    samples: for each text, its measurements; those that are not finite, and texts without any, are left out. Texts are
    drawn whole, so that rows of one text, which are not independent, do not pass for evidence of their own. share: the
    samples are 0 or 1; where all texts agree entirely, which no resampling can widen, the interval is the exact
    binomial one for n texts.

    Cost: `resamples` evaluations of the statistic. Source: the cluster bootstrap (Davison & Hinkley 1997, section 3.8),
    by scipy.stats.bootstrap over the texts' indices.
    """
    kept = [np.asarray(s, dtype=float) for s in samples if len(s)]
    kept = [s[np.isfinite(s)] for s in kept]
    kept = [s for s in kept if len(s)]
    count = sum(map(len, kept))
    if not kept:
        return Estimate(None, None, 0)
    pooled = np.concatenate(kept)
    value = float(statistic(pooled))
    if len(kept) < 2:
        return Estimate(value, None, len(kept), count)
    if (pooled == pooled[0]).all():
        agreed = _binomial(value, len(kept)) if share and value in (0.0, 1.0) else (value, value)
        return Estimate(value, agreed, len(kept), count)
    low, high = _resampled(kept, statistic, seed, resamples)
    return Estimate(value, (float(low), float(high)), len(kept), count)


def _resampled(kept: list[np.ndarray], statistic: Statistic, seed: int, resamples: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    rng = np.random.default_rng(seed)
    if statistic is np.mean:  # sums and counts of texts say it all, and all resamples are one product
        data: tuple[np.ndarray, ...] = (np.array([s.sum() for s in kept]), np.array([float(len(s)) for s in kept]))
        found = bootstrap(
            data,
            lambda total, count, axis: total.sum(axis) / count.sum(axis),
            paired=True,
            n_resamples=resamples,
            method="percentile",
            rng=rng,
        )
    else:
        found = bootstrap(
            (np.arange(len(kept)),),
            lambda index: float(statistic(np.concatenate([kept[i] for i in index]))),
            vectorized=False,
            n_resamples=resamples,
            method="percentile",
            rng=rng,
        )
    low, high = found.confidence_interval
    return float(low), float(high)


def _binomial(share: float, n: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval where all or none of n agree."""
    from scipy.stats import binomtest

    found = binomtest(round(share * n), n).proportion_ci(method="exact")
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class McNemar:
    """Paired yes/no outcomes: exact two-sided p, and the odds ratio of the discordant pairs with its 95 % interval."""

    p: float
    odds_ratio: float
    interval: tuple[float, float]


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """The exact McNemar test on the pairs in which one of two outcomes is a yes and the other a no.

    Without such pairs p is 1, the odds ratio nan and the interval (0, inf). Source: McNemar 1947, by
    scipy.stats.binomtest on the discordant pairs, whose share p gives the odds ratio p / (1 - p).
    """
    from scipy.stats import binomtest

    n = only_first + only_second
    if n == 0:
        return McNemar(1.0, float("nan"), (0.0, float("inf")))
    found = binomtest(only_first, n)
    ends = found.proportion_ci(method="exact")
    return McNemar(float(found.pvalue), _odds(only_first / n), (_odds(float(ends.low)), _odds(float(ends.high))))


def _odds(share: float) -> float:
    return float("inf") if share >= 1 else share / (1 - share)


@dataclass(frozen=True, eq=False)
class Survival:
    """A Kaplan-Meier curve on [0, 1]: `share` [k] not yet flipped at fractions `x` [k], with 95 % ends low and high.

    restricted_mean: the area below it, the mean fraction with 1 for the never flipped; nan without data. never: their
    share. n: how many.
    """

    x: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    restricted_mean: float
    never: float
    n: int


def survival(fraction: Sequence[float], flipped: Sequence[bool]) -> Survival:
    """How many decisions hold after a fraction of the units is gone; those that never flip are censored at 1.

    Source: Kaplan & Meier 1958, by scipy.stats.ecdf of censored data, with its log-log interval.
    """
    from scipy.stats import CensoredData, ecdf

    at, seen = np.asarray(fraction, dtype=float), np.asarray(flipped, dtype=bool)
    at = np.where(seen, at, 1.0)
    if not len(at):
        nan = float("nan")
        empty = np.array([])
        return Survival(empty, empty, empty, empty, nan, nan, 0)
    mean, never = float(at.mean()), float((~seen).mean())
    if not seen.any():
        ends = np.array([0.0, 1.0])
        low = _binomial(1.0, len(at))[0]
        return Survival(ends, np.ones(2), np.full(2, low), np.ones(2), mean, never, len(at))
    curve = ecdf(CensoredData.right_censored(at, ~seen)).sf
    with np.errstate(all="ignore"):
        band = curve.confidence_interval(method="log-log")
    # the interval is not a number where all or none are left: there the curve itself stands
    low = np.where(np.isfinite(band.low.probabilities), band.low.probabilities, curve.probabilities)
    high = np.where(np.isfinite(band.high.probabilities), band.high.probabilities, curve.probabilities)
    x = np.concatenate([[0.0], curve.quantiles])
    held, least, most = (np.concatenate([[1.0], part]) for part in (curve.probabilities, low, high))
    return Survival(x, held, least, most, mean, never, len(at))


@dataclass(frozen=True)
class Fewer:
    """Pairs (a, b): the share with a below b, ties counting half, its 95 % interval, and an exact sign test's p."""

    share: float
    interval: tuple[float, float] | None
    p: float
    wins: int
    ties: int
    losses: int
    n: int


def fewer(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Fewer:
    """How often a needs fewer than b: P(a < b) + P(a = b) / 2, a paired Vargha-Delaney A.

    Values nearer than 1e-12 are tied; pairs with a nan are left out. p: two-sided, on the untied pairs.
    """
    from scipy.stats import binomtest

    apart = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    apart = apart[np.isfinite(apart)]
    wins, losses = int((apart < -1e-12).sum()), int((apart > 1e-12).sum())
    ties = len(apart) - wins - losses
    points = np.where(apart < -1e-12, 1.0, np.where(apart > 1e-12, 0.0, 0.5))
    found = over_texts([[x] for x in points], seed=seed)
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    share = float("nan") if found.value is None else found.value
    return Fewer(share, found.interval, p, wins, ties, losses, len(apart))


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Estimate:
    """Mean of a - b over pairs, with a bootstrap interval; pairs with a nan are left out."""
    return over_texts([[x] for x in np.asarray(a, dtype=float) - np.asarray(b, dtype=float)], seed=seed)


def non_inferior(difference: Estimate, margin: float) -> bool:
    """Whether the whole interval lies at or below `margin`; False without an interval."""
    return difference.interval is not None and difference.interval[1] <= margin


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values adjusted for all of them being looked at, step down (Holm 1979); nan stays nan and does not count."""
    given = np.asarray(p, dtype=float)
    out = np.full(given.shape, np.nan)
    known = np.isfinite(given)
    ordered = np.argsort(given[known], kind="stable")
    factors = np.arange(len(ordered), 0, -1)
    adjusted = np.empty(len(ordered))
    adjusted[ordered] = np.minimum(1.0, np.maximum.accumulate(given[known][ordered] * factors))
    out[known] = adjusted
    return out


def benjamini_hochberg(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted to the false discovery rate, any shape; nan stays nan and does not count.

    Source: Benjamini & Hochberg 1995, by scipy.stats.false_discovery_control.
    """
    from scipy.stats import false_discovery_control

    given = np.asarray(p, dtype=float)
    out = np.full(given.shape, np.nan)
    known = np.isfinite(given)
    if known.any():
        out[known] = false_discovery_control(given[known])
    return out


def hits_by_chance(hits: float, chances: Sequence[float]) -> float:
    """One-sided p of at least `hits` successes where trial i succeeds with probability chances[i].

    Fractional hits, from ties that are shared, are rounded down, which makes p larger. Source: the Poisson binomial
    distribution, by scipy.stats.poisson_binom.
    """
    from scipy.stats import poisson_binom

    least = int(np.floor(hits + 1e-9))
    if least <= 0 or not len(chances):
        return 1.0
    return float(np.clip(poisson_binom(np.asarray(chances, dtype=float)).sf(least - 1), 0.0, 1.0))


def kendall(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b; nan where one side is constant or there are fewer than two pairs."""
    from scipy.stats import kendalltau

    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    return float(kendalltau(x, y).statistic)


def js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats over the last axis, float64: 0 for equal rows, at most ln 2.

    Source: Lin 1991. In float64 it does not fall below zero as the code of Serrano & Smith 2019 reports.
    """
    from scipy.special import rel_entr

    a, b = np.broadcast_arrays(np.asarray(p, dtype=float), np.asarray(q, dtype=float))
    m = (a + b) / 2
    found = (rel_entr(a, m) + rel_entr(b, m)).sum(-1) / 2
    return np.asarray(np.clip(found, 0.0, np.log(2)))
