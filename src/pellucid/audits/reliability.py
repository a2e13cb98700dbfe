"""How far probabilities may be believed: calibration errors, their controls, and temperatures; functions on numbers.

Logits z [n, c] with c at least 2 and true classes y [n]; everything float64. A sigmoid head's logit z is the pair
(0, z), of which the softmax is its probability.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from pellucid.audits.audit import ENOUGH
from pellucid.stats import RESAMPLES, Estimate

WIDEST = 4.0
"""Temperatures are sought from exp(-4) to exp(4): 1/55 to 55."""
_STEPS = 801  # of log T for intervals: 1 % apart
_HELD = 2**22  # numbers drawn at once


def pairs(z: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n k"]:
    """Logits of at least two classes: one logit becomes (0, z)."""
    return np.concatenate([np.zeros_like(z), z], 1) if z.shape[1] == 1 else z


def log_probabilities(z: Float[np.ndarray, "n c"], temperature: float | np.ndarray = 1.0) -> Float[np.ndarray, "n c"]:
    """log softmax(z / T), T one number or one per text."""
    from scipy.special import log_softmax

    return np.asarray(log_softmax(z / np.reshape(temperature, (-1, 1)), axis=1))


def losses(z: Float[np.ndarray, "n c"], y: Int[np.ndarray, "n"], temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """Negative log likelihood of each text's true class, in nats."""
    return np.asarray(-log_probabilities(z, temperature)[np.arange(len(y)), y])


def brier(p: Float[np.ndarray, "n c"], y: Int[np.ndarray, "n"]) -> np.ndarray:
    """Squared distance of the probabilities from the true class, summed over classes: 0 to 2. Source: Brier 1950."""
    return np.asarray(((p - np.eye(p.shape[1])[y]) ** 2).sum(1))


def bins_of(confidence: Float[np.ndarray, "n"], most: int) -> Int[np.ndarray, "n"]:
    """Bins of about equally many texts, by confidence, from 0; as many as leave `ENOUGH` texts in each, at most `most`.

    Equal confidences share a bin, so that the order of the texts does not matter; a bin may then be empty.
    """
    from scipy.stats import rankdata

    n = len(confidence)
    count = max(1, min(most, n // ENOUGH))
    return np.asarray(np.floor((rankdata(confidence) - 0.5) / n * count).astype(int))


def calibration_error(
    confidence: Float[np.ndarray, "n"], correct: Bool[np.ndarray, "n"], bins: Int[np.ndarray, "n"]
) -> float:
    """Expected calibration error: |accuracy - mean confidence| of the bins, averaged by their texts; 0 to 1.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3. Differs from it in the bins that the caller gives.
    """
    return float(np.abs(np.bincount(bins, correct.astype(float) - confidence)).sum() / len(bins))


def error_over_texts(
    confidence: Float[np.ndarray, "n"], correct: Bool[np.ndarray, "n"], bins: Int[np.ndarray, "n"], seed: int
) -> Estimate:
    """The error with a 95 % interval over texts, that keep their bins.

    An error has no sign, so the noise of resampling adds to it: the resamples are moved back until their mean is the
    measured value, and cut at 0. What noise the value itself holds the control tells.
    """
    n, value = len(bins), calibration_error(confidence, correct, bins)
    if n < 2:
        return Estimate(value, None, n, n)
    apart = np.eye(bins.max() + 1)[bins] * (correct.astype(float) - confidence)[:, None]
    found = np.concatenate([np.abs(w @ apart).sum(1) / n for w in _drawn(n, seed)])
    low, high = np.percentile(found, [2.5, 97.5]) - (found.mean() - value)
    return Estimate(value, (max(0.0, min(value, float(low))), max(value, float(high))), n, n)


def error_if_calibrated(confidence: Float[np.ndarray, "n"], bins: Int[np.ndarray, "n"], seed: int) -> Estimate:
    """The error of a perfectly calibrated model with these confidences, on as many texts: mean and 95 % of simulations.

    Each text's prediction is right with the probability that is its confidence.
    """
    n, found = len(bins), []
    one = np.eye(bins.max() + 1)[bins]
    for hits in _promised(confidence, seed):
        found.append(np.abs((hits - confidence) @ one).sum(1) / n)
    return _simulated(np.concatenate(found), n)


def rate_if_calibrated(confidence: Float[np.ndarray, "n"], seed: int) -> Estimate:
    """The share of wrong predictions if each is right with its confidence: mean and 95 % of simulations."""
    if not len(confidence):
        return Estimate(None, None, 0)
    found = _simulated(np.concatenate([1 - hits.mean(1) for hits in _promised(confidence, seed)]), len(confidence))
    return Estimate(float((1 - confidence).mean()), found.interval, found.n, found.samples)


def _simulated(found: np.ndarray, n: int) -> Estimate:
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(float(found.mean()), (float(low), float(high)), n, n)


def _promised(confidence: Float[np.ndarray, "n"], seed: int) -> Iterator[np.ndarray]:
    """RESAMPLES rows of what is right [k, n], some at a time."""
    rng = np.random.default_rng([seed, 1])
    for k in _parts(len(confidence)):
        yield (rng.random((k, len(confidence))) < confidence).astype(float)


def _drawn(n: int, seed: int) -> Iterator[np.ndarray]:
    """RESAMPLES rows of how often each of n texts is drawn [k, n], some at a time."""
    rng = np.random.default_rng([seed, 2])
    for k in _parts(n):
        yield rng.multinomial(n, np.full(n, 1 / n), k).astype(float)


def _parts(n: int) -> Iterator[int]:
    step = max(1, min(RESAMPLES, _HELD // n))
    for start in range(0, RESAMPLES, step):
        yield min(step, RESAMPLES - start)


def temperature_of(z: Float[np.ndarray, "n c"], y: Int[np.ndarray, "n"]) -> float:
    """The T that makes the true classes likeliest under softmax(z / T), from exp(-WIDEST) to exp(WIDEST).

    The likelihood has one maximum in T. Source: Guo et al. 2017, arXiv 1706.04599, section 4.2; by
    scipy.optimize.minimize_scalar on log T.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: float(losses(z, y, np.exp(log_t)).mean()),
        bounds=(-WIDEST, WIDEST),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def bounded(z: Float[np.ndarray, "n c"], y: Int[np.ndarray, "n"]) -> bool:
    """Whether some temperature is the best: not where all predictions are right, which any lower one makes likelier, or
    where the search ends at its limit."""
    right = bool((z[np.arange(len(y)), y] >= z.max(1)).all())
    return not right and bool(abs(np.log(temperature_of(z, y))) < WIDEST - 0.01)


def temperature_over_texts(z: Float[np.ndarray, "n c"], y: Int[np.ndarray, "n"], seed: int) -> Estimate:
    """The temperature of all texts with its 95 % interval: a bootstrap, each resample's maximum to within 1 %.

    No value where no temperature is the best.
    """
    if not bounded(z, y):
        return Estimate(None, None, len(y))
    n, value = len(y), temperature_of(z, y)
    if n < 2:
        return Estimate(value, None, n, n)
    grid = np.linspace(-WIDEST, WIDEST, _STEPS)
    loss = np.stack([losses(z, y, float(np.exp(x))) for x in grid], 1)
    found = np.concatenate([grid[(w @ loss).argmin(1)] for w in _drawn(n, seed)])
    low, high = np.exp(np.percentile(found, [2.5, 97.5]))
    return Estimate(value, (min(value, float(low)), max(value, float(high))), n, n)


def crossfitted(z: Float[np.ndarray, "n c"], y: Int[np.ndarray, "n"], folds: int, seed: int) -> Float[np.ndarray, "n"]:
    """For each text, the temperature of the texts in the other folds; 1 where these are all predicted rightly."""
    n = len(y)
    fold = np.random.default_rng([seed, 3]).permutation(n) % min(folds, n)
    fitted = np.ones(n)
    for k in range(fold.max() + 1):
        others = fold != k
        if bounded(z[others], y[others]):
            fitted[~others] = temperature_of(z[others], y[others])
    return fitted
