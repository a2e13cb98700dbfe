"""Slots: the states that hold the largest, second largest, ... weight of their text, and the information in each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from pellucid.stats import Estimate, kendalls

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
RESAMPLES = 2000
HALVES = 400
CERTAIN = 2.0
"""A pair of slots is resolved if their information differs by more than so many standard errors of the difference."""
BINS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Ends of the bins of the concordance curve: differences of attention."""


@dataclass(frozen=True, eq=False)
class Slots:
    """Slots of n texts, r to a text: attention [n, r], and what each slot's state adds to its slot's information [n, r]
    (its mean over texts is the information, in nats)."""

    attention: Float[np.ndarray, "n r"]
    pointwise: Float[np.ndarray, "n r"]

    @cached_property
    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Means over resampled texts, [RESAMPLES, r]: of attention and of information. Probes are not fitted again."""
        n = len(self.attention)
        times = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
        return times @ self.attention, times @ self.pointwise

    def over(self, statistic: Statistic) -> Estimate:
        """A statistic of mean attention [..., r] and information [..., r], with its bootstrap interval over texts."""
        n = len(self.attention)
        value = float(statistic(self.attention.mean(0), self.pointwise.mean(0)))
        found = statistic(*self.drawn)
        found = found[np.isfinite(found)]
        if n < 2 or not len(found) or not np.isfinite(value):
            return Estimate(value if np.isfinite(value) else None, None, n)
        low, high = np.quantile(found, [0.025, 0.975])
        return Estimate(value, (float(low), float(high)), n)

    def ceiling(self) -> Estimate:
        """How well the slots' order of information in one half of the texts is that in the other half: tau-b, the mean
        over random halves, with the range of the middle 95 % of them. Halves are half as many texts, so that all texts
        could agree a little better."""
        n, rng, found = len(self.pointwise), np.random.default_rng(0), []
        for _ in range(HALVES):
            order = rng.permutation(n)
            found.append([self.pointwise[some].mean(0) for some in (order[: n // 2], order[n // 2 :])])
        one, other = np.array(found).transpose(1, 0, 2)
        taus = kendalls(one, other)
        taus = taus[np.isfinite(taus)]
        if not len(taus):
            return Estimate(None, None, n)
        low, high = np.quantile(taus, [0.025, 0.975])
        return Estimate(float(taus.mean()), (float(low), float(high)), n)

    @cached_property
    def pairs(self) -> "Pairs":
        """Every two slots."""
        return Pairs.of(self)


def tau(attention: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of mean attention and information."""
    return kendalls(attention, information)


def preserved(attention: np.ndarray, information: np.ndarray) -> np.ndarray:
    """The slots' information weighted by their attention, which is scaled to sum to one over them; nats."""
    return np.asarray((attention * information).sum(-1) / attention.sum(-1))


def preservation_ratio(attention: np.ndarray, information: np.ndarray) -> np.ndarray:
    """`preserved` as a share of the largest slot's information; nan where no slot has any."""
    most = information.max(-1)
    return np.where(most > 0, preserved(attention, information) / np.where(most > 0, most, 1.0), np.nan)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of slots [k]: i below j, the differences of attention and of information (i less j), the latter's paired
    standard error, whether it is resolved."""

    i: np.ndarray
    j: np.ndarray
    attention: np.ndarray
    information: np.ndarray
    se: np.ndarray
    resolved: Bool[np.ndarray, " k"]

    @classmethod
    def of(cls, slots: Slots) -> "Pairs":
        """All pairs."""
        n, r = slots.pointwise.shape
        i, j = np.triu_indices(r, 1)
        apart = slots.pointwise[:, i] - slots.pointwise[:, j]
        se = apart.std(0, ddof=1) / np.sqrt(n)
        mean = slots.attention.mean(0)
        return cls(i, j, mean[i] - mean[j], apart.mean(0), se, np.abs(apart.mean(0)) > CERTAIN * se)

    @property
    def agree(self) -> np.ndarray:
        """[k]: 1 where the slot with more attention has more information, 0 where less, 0.5 for equal attention."""
        return _agree(self.attention, self.information)


def _agree(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((1 + np.sign(a) * np.sign(b)) / 2)


def concordance(slots: Slots) -> Estimate:
    """The share of resolved pairs whose order by information is that by attention; which pairs are resolved is kept as
    it is found while texts are resampled. No value where no pair is resolved."""
    pairs = slots.pairs
    at = np.flatnonzero(pairs.resolved)
    if not len(at):
        return Estimate(None, None, len(slots.attention))
    i, j = pairs.i[at], pairs.j[at]

    def share(attention: np.ndarray, information: np.ndarray) -> np.ndarray:
        agree = _agree(attention[..., i] - attention[..., j], information[..., i] - information[..., j])
        return np.asarray(agree.mean(-1))

    return slots.over(share)


def by_difference(pairs: Pairs) -> list[dict[str, float | int | None]]:
    """The concordance curve: for each bin of attention's difference, how many pairs, how many of these resolved, and
    the share of the resolved ones that agree."""
    rows: list[dict[str, float | int | None]] = []
    size = np.abs(pairs.attention)
    for low, high in pairwise(BINS):
        inside = (size >= low) & ((size < high) | (high == BINS[-1]))
        known = inside & pairs.resolved
        agree = float(pairs.agree[known].mean()) if known.any() else None
        rows.append({"from": low, "to": high, "pairs": int(inside.sum()), "resolved": int(known.sum()), "agree": agree})
    return rows


def ranked(alpha: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Which units of a text hold its `most` largest weights [u], largest first; ties in random order."""
    order = rng.permutation(len(alpha))
    return np.asarray(order[np.argsort(-alpha[order], kind="stable")][:most])
