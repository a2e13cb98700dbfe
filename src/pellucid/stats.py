"""Statistics over texts: pure functions on numbers. Estimators are scipy's; what is drawn, and when, is ours."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

Statistic = Callable[[np.ndarray], float]
RESAMPLES = 2000
SHUFFLES = 9999
TIED = 1e-12
"""Numbers nearer than this are tied."""


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

    only_first, only_second: numbers of such pairs. The odds ratio is only_first / only_second, inf if the latter is 0;
    its interval is the exact (Clopper-Pearson) one of only_first's share s, turned into odds s / (1 - s). Without such
    pairs p is 1, the odds ratio nan and the interval (0, inf).

    Raises: ValueError for a number below zero. Cost: none to speak of. Source: McNemar 1947, in its exact form; by
    scipy.stats.binomtest.
    """
    from scipy.stats import binomtest

    if min(only_first, only_second) < 0:
        raise ValueError(f"numbers of pairs are at least 0, not {only_first} and {only_second}")
    n = only_first + only_second
    if n == 0:
        return McNemar(1.0, float("nan"), (0.0, float("inf")))
    found = binomtest(only_first, n)
    ends = found.proportion_ci(method="exact")
    ratio = only_first / only_second if only_second else float("inf")
    return McNemar(float(found.pvalue), ratio, (_odds(float(ends.low)), _odds(float(ends.high))))


def _odds(share: float) -> float:
    return float("inf") if share >= 1 else share / (1 - share)


@dataclass(frozen=True, eq=False)
class Survival:
    """A Kaplan-Meier curve on [0, 1]: `share` [k] not yet flipped at fractions `x` [k], with 95 % ends low and high.

    It is a step function: share[i] holds from x[i], included, up to x[i + 1]; x starts at 0 and ends at 1.
    restricted_mean: the area below it, the mean fraction with 1 for the never flipped. never: their share.
    n: how many. Without data the arrays are empty, restricted_mean and never nan.
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

    fraction: share of units, 0 to 1, after which each decision flips; not read where flipped is false. The interval is
    for independent decisions, pointwise: log-log, and where that is undefined, at a share of 0 or 1 past the start,
    the exact binomial one, since nothing is censored before 1.

    Raises: ValueError if the lengths differ or a fraction lies outside [0, 1]. Cost: one sort. Source: Kaplan & Meier
    1958, by scipy.stats.ecdf of censored data. Differs from Serrano & Smith 2019, who leave out what never flips.
    """
    from scipy.stats import CensoredData, ecdf

    at, seen = np.asarray(fraction, dtype=float), np.asarray(flipped, dtype=bool)
    if at.shape != seen.shape:
        raise ValueError(f"{at.size} fractions, but {seen.size} marks of what flipped")
    at = np.where(seen, at, 1.0)
    if not ((at >= 0) & (at <= 1)).all():
        raise ValueError("a fraction of units lies between 0 and 1")
    n = len(at)
    if not n:
        none = np.array([])
        return Survival(none, none, none, none, float("nan"), float("nan"), 0)
    curve = ecdf(CensoredData.right_censored(at, ~seen)).sf
    with warnings.catch_warnings():  # that it is undefined at shares of 0 and 1 is dealt with below
        warnings.filterwarnings("ignore", "The confidence interval is undefined", RuntimeWarning)
        band = curve.confidence_interval(method="log-log")
    x, held = np.asarray(curve.quantiles), np.asarray(curve.probabilities)
    exact = np.array([_binomial(s, n) if s in (0, 1) else (np.nan, np.nan) for s in held]).T
    low, high = (
        np.where((held == 0) | (held == 1), e, end.probabilities)
        for e, end in zip(exact, (band.low, band.high), strict=True)
    )
    first, last = [] if x[0] == 0 else [0], [] if x[-1] == 1 else [-1]
    x = np.concatenate([[0.0] * len(first), x, [1.0] * len(last)])
    held, low, high = (np.concatenate([[1.0] * len(first), part, part[last]]) for part in (held, low, high))
    return Survival(x, held, low, high, float(at.mean()), float((~seen).mean()), n)


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
    """How often a needs fewer than b: P(a < b) + P(a = b) / 2, from 0 to 1, 0.5 where neither does.

    Values nearer than 1e-12 are tied; pairs with a number that is not finite are left out. The interval is a percentile
    bootstrap over pairs; where all pairs agree, the exact binomial one; None for fewer than two pairs. p: two-sided
    sign test on the untied pairs, 1 without any. share: nan without pairs.

    Raises: ValueError if the lengths differ. Cost: RESAMPLES means. Source: Vargha & Delaney 2000, its A; differs in
    that values are compared within pairs only. The sign test is scipy.stats.binomtest.
    """
    from scipy.stats import binomtest

    apart = _apart(a, b)
    apart = apart[np.isfinite(apart)]
    points = np.select([apart < -TIED, apart > TIED], [1.0, 0.0], 0.5)
    wins, losses = int((points == 1).sum()), int((points == 0).sum())
    found = over_texts(points[:, None].tolist(), share=True, seed=seed)
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    share = float("nan") if found.value is None else found.value
    return Fewer(share, found.interval, p, wins, len(apart) - wins - losses, losses, len(apart))


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Estimate:
    """Mean of a - b over pairs, in their unit, with a bootstrap interval over pairs.

    Pairs with a number that is not finite are left out. Raises: ValueError if the lengths differ. Cost, source: see
    over_texts.
    """
    return over_texts(_apart(a, b)[:, None].tolist(), seed=seed)


def paired_p(a: Sequence[float], b: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of the mean of a - b over pairs being 0, by flipping the signs of the differences at random.

    The share of flips whose mean is as far from 0: all 2^n flips where these are at most SHUFFLES, else SHUFFLES drawn
    ones and the data themselves, so that p is never 0. Pairs with a number that is not finite are left out; nan without
    pairs. Raises: ValueError if the lengths differ. Cost: SHUFFLES means, as products of matrices of signs.
    Source: the paired permutation test (Fisher 1935); as scipy.stats.permutation_test, several times as fast.
    """
    apart = _apart(a, b)
    apart = apart[np.isfinite(apart)]
    n = len(apart)
    if not n:
        return float("nan")
    if 2**n <= SHUFFLES:
        signs = np.array(list(product((-1.0, 1.0), repeat=n)))
        return float((np.abs(signs @ apart) >= abs(apart.sum()) - TIED * n).mean())
    rng, far = np.random.default_rng(seed), 1
    for start in range(0, SHUFFLES, 1_000):  # so that no more than 1,000 rows of signs are alive
        signs = rng.integers(0, 2, (min(1_000, SHUFFLES - start), n), dtype=np.int8) * 2.0 - 1.0
        far += int((np.abs(signs @ apart) >= abs(apart.sum()) - TIED * n).sum())
    return far / (SHUFFLES + 1)


def _apart(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    """a - b [n], not finite where one of them is not, without a warning for inf - inf."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"pairs need as many of one as of the other, not {x.size} and {y.size}")
    return np.asarray(np.where(np.isfinite(x), x, np.nan) - y)


def non_inferior(difference: Estimate, margin: float) -> bool:
    """Whether the 95 % interval's upper end is at most `margin`, in the difference's unit; False without an interval.

    Less is better. This is a one-sided test at 2.5 %.
    """
    return difference.interval is not None and difference.interval[1] <= margin


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted for all of them being looked at, any shape; nan stays nan and does not count.

    An adjusted p at or below 0.05 is significant with a chance of at most 5 % for any false alarm among them.

    Raises: ValueError for a p outside [0, 1]. Cost: one sort. Source: Holm 1979, step down.
    """
    given = np.asarray(p, dtype=float)
    known = ~np.isnan(given)
    some = given[known]
    if ((some < 0) | (some > 1)).any():
        raise ValueError("p-values lie between 0 and 1")
    order = np.argsort(some, kind="stable")
    adjusted = np.empty(len(some))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(some[order] * np.arange(len(some), 0, -1)))
    out = np.full(given.shape, np.nan)
    out[known] = adjusted
    return out


def benjamini_hochberg(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted to the false discovery rate, any shape; nan stays nan and does not count.

    Of those at or below 0.05, at most 5 % are expected to be false alarms, if the tests are independent or depend
    positively on each other.

    Raises: ValueError for a p outside [0, 1]. Cost: one sort. Source: Benjamini & Hochberg 1995, by
    scipy.stats.false_discovery_control.
    """
    from scipy.stats import false_discovery_control

    given = np.asarray(p, dtype=float)
    known = ~np.isnan(given)
    out = np.full(given.shape, np.nan)
    out[known] = false_discovery_control(given[known])
    return out


def hits_by_chance(hits: float, chances: Sequence[float]) -> float:
    """One-sided p of at least `hits` successes where text i succeeds with probability chances[i].

    Fractional hits, from ties that are averaged, are rounded down, which makes p larger. Small p are exact: the upper
    tail is summed as the lower tail of the failures, not as one minus the rest.

    Raises: ValueError for hits below 0 or above the number of texts, and for chances outside [0, 1]. Cost: n^2 steps
    (0.05 s for 10,000 texts). Source: the Poisson binomial distribution, by scipy.stats.poisson_binom.
    """
    from scipy.stats import poisson_binom

    given, close = np.asarray(chances, dtype=float), 1e-9  # sums of shared ties miss whole numbers by rounding
    if not ((given >= -close) & (given <= 1 + close)).all():
        raise ValueError("chances lie between 0 and 1")
    if not -close <= hits <= len(given) + close:
        raise ValueError(f"{hits:g} hits in {len(given)} texts")
    least = int(np.floor(hits + close))
    if least <= 0:
        return 1.0
    failures = poisson_binom(1 - np.clip(given, 0.0, 1.0))
    return min(1.0, float(failures.cdf(len(given) - least)))


def kendall(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b, from -1 to 1; nan where one side is constant or has a nan, or for fewer than two pairs.

    Raises: ValueError if the lengths differ. Cost: one sort. Source: Kendall 1945, by scipy.stats.kendalltau. No p:
    that of the published code takes the units of a text for independent.
    """
    from scipy.stats import kendalltau

    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"tau compares as many of one as of the other, not {x.size} and {y.size}")
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    return float(kendalltau(x, y).statistic)


def kendalls(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's tau-b over the last axis of a [..., k] and b [..., k], which broadcast; nan where a side is constant.

    For many short rows at once, as in a bootstrap; `kendall` gives the same for one. Cost: k^2 comparisons per row.
    """
    i, j = np.triu_indices(a.shape[-1], 1)
    x, y = np.sign(a[..., i] - a[..., j]), np.sign(b[..., i] - b[..., j])
    norm = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.asarray(np.where(norm > 0, (x * y).sum(-1) / np.where(norm > 0, norm, 1.0), np.nan))


def js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats over the last axis, float64: exactly 0 for equal rows, at most ln 2.

    p [..., c] and q [..., c] hold probabilities, zeros among them, and broadcast: the answer [...] has their common
    shape less the last axis; nan in, nan out. Differences are resolved to about 1e-16 nats.

    Raises: ValueError if the shapes do not broadcast. Cost: two logarithms per number. Source: Lin 1991. Differs from
    the code of Serrano & Smith 2019, which shifts logits by constants and so meets negative divergences.
    """
    from scipy.special import rel_entr

    a, b = np.broadcast_arrays(np.asarray(p, dtype=float), np.asarray(q, dtype=float))
    both = a + b  # twice the mean, as half of the smallest number is 0
    found = (rel_entr(2 * a, both) + rel_entr(2 * b, both)).sum(-1) / 4
    return np.asarray(np.clip(found, 0.0, np.log(2)))
