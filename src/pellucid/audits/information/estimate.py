"""What every estimator gives, and what all of them refuse."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pellucid.errors import InputError, Unanswerable


@dataclass(frozen=True, eq=False)
class Information:
    """An estimate of I(H; Y) in nats, Y a class drawn from each row's probabilities.

    value: may be slightly negative where there is nothing; it is never clipped. se: standard error over groups (texts),
    of a cross-fit over folds if that is larger, or None where the estimator has none. n: groups. null: the same
    estimator on labels permuted over groups. warning: where the number is not to be trusted, or None. pointwise
    [rows]: what each row adds, whose mean is the value, or None. method: the estimator, and what it chose.
    """

    value: float
    se: float | None
    n: int
    null: float | None
    warning: str | None
    pointwise: np.ndarray | None
    method: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % normal interval for the estimator's mean over such samples; not for the truth where it is biased."""
        return None if self.se is None else (self.value - 1.96 * self.se, self.value + 1.96 * self.se)


@dataclass(frozen=True, eq=False)
class Sample:
    """States h [n, d], probabilities p [n, c], group numbers [n] from 0, and the weight of each row, summing to one."""

    h: np.ndarray
    p: np.ndarray
    groups: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, h: object, p: object, groups: object = None, weights: object = None) -> "Sample":
        """Checked: finite states, rows of p on the simplex, at least two classes in use, one group per row."""
        states, probs = np.asarray(h, dtype=float), np.asarray(p, dtype=float)
        if states.ndim != 2 or probs.ndim != 2 or len(states) != len(probs) or not states.size:
            raise InputError(
                f"States are [rows, width] and probabilities [rows, classes]; seen {list(states.shape)} and "
                f"{list(probs.shape)}."
            )
        if not np.isfinite(states).all():
            bad = int((~np.isfinite(states)).any(1).sum())
            raise InputError(f"{bad} of {len(states)} states hold NaN or an infinity; leave these rows out.")
        simplex = np.isfinite(probs).all() and (probs >= -1e-9).all() and np.abs(probs.sum(1) - 1).max() < 1e-4
        if probs.shape[1] < 2 or not simplex:
            raise InputError(
                "The output must be probabilities of at least two classes, each row summing to 1: the information on "
                "a continuous output is infinite wherever a state determines it, so it is not offered."
            )
        probs = np.clip(probs, 0, None) / np.clip(probs, 0, None).sum(1, keepdims=True)
        if (probs.mean(0) > 1 - 1e-6).any() or len(np.unique(probs.argmax(1))) < 2:
            raise Unanswerable("One class is predicted throughout, so there is no information to be had about it.")
        g = np.arange(len(states)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        w = np.ones(len(states)) if weights is None else np.asarray(weights, dtype=float)
        if g.shape != (len(states),) or w.shape != (len(states),) or not (np.isfinite(w).all() and (w > 0).all()):
            raise InputError("Each state has one group and one positive weight; other numbers of them were given.")
        return cls(states, probs, g, w / w.sum())

    @cached_property
    def classes(self) -> np.ndarray:
        """The class of each text that is likeliest in the mean of its rows, [texts]."""
        mean = np.zeros((self.texts, self.p.shape[1]))
        np.add.at(mean, self.groups, self.p * self.weights[:, None])
        return np.asarray(mean.argmax(1))

    def dealt(self, texts: np.ndarray, hands: int, rng: np.random.Generator) -> np.ndarray:
        """The hand, 0 to hands - 1, of each of these texts: at random, each class spread evenly over the hands."""
        order = rng.permutation(len(texts))
        order = order[np.argsort(self.classes[texts][order], kind="stable")]
        dealt = np.empty(len(texts), dtype=int)
        dealt[order] = np.arange(len(texts)) % hands
        return dealt

    @property
    def texts(self) -> int:
        """How many groups there are."""
        return int(self.groups.max()) + 1

    def permuted(self, rng: np.random.Generator) -> "Sample":
        """The groups' mean probabilities dealt to other groups: no state knows its output any more."""
        mean = np.zeros((self.texts, self.p.shape[1]))
        np.add.at(mean, self.groups, self.p * self.weights[:, None])
        mean /= np.bincount(self.groups, self.weights)[:, None]
        return Sample(self.h, mean[rng.permutation(self.texts)][self.groups], self.groups, self.weights)

    def summed(self, pointwise: np.ndarray) -> tuple[float, float | None]:
        """The weighted mean of what rows add, and its standard error over groups."""
        value = float(self.weights @ pointwise)
        if self.texts < 2:
            return value, None
        apart = np.bincount(self.groups, self.weights * (pointwise - value))
        n = len(apart)
        return value, float(np.sqrt((apart**2).sum() * n / (n - 1)))


def folds_of(sample: Sample, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, [n]: groups are dealt out at random, class by class, none is split."""
    if type(folds) is not int or folds < 2:
        raise InputError(f"Cross-fitting needs a whole number of at least 2 folds; seen {folds!r}.")
    if sample.texts < 2 * folds:
        raise Unanswerable(
            f"{folds} folds need at least {2 * folds} texts; seen {sample.texts}. Give more, or fewer folds."
        )
    dealt = sample.dealt(np.arange(sample.texts), folds, np.random.default_rng([seed, 0]))
    return np.asarray(dealt[sample.groups])


def log_prior(p: np.ndarray, weights: np.ndarray, texts: int) -> np.ndarray:
    """log of the weighted mean of p over so many texts and half a text more for each class: none is impossible."""
    total = weights @ p / weights.sum() * texts + 0.5
    return np.asarray(np.log(total / total.sum()))
