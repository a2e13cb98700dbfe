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
