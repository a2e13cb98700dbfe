"""Faithfulness: pure functions over what `measure` saw. Each is the number of one text; a table averages over texts.

p is the probability of the predicted class, and a drop is one of p. nan: this text does not say.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pellucid.metrics.measured import Measured, decided
from pellucid.metrics.metric import register
from pellucid.stats import TIED, Estimate, kendall, over_texts

TENTHS = slice(1, 10)
"""10 to 90 %, DecompX's K."""
BINS = np.array([1, 2, 5])
"""10, 20 and 50 %."""
_DECOMPX = "Modarressi et al. 2023, arXiv 2306.02873"
_ERASER = "DeYoung et al. 2020, arXiv 1911.03429"
_RISE = "Petsiuk et al. 2018, arXiv 1806.07421"


@register("faithfulness", 1, "probability", _DECOMPX)
def aopc(m: Measured) -> float:
    """Mean drop of the predicted class's probability with the most important 10, 20, .., 90 % of the tokens gone.

    Edge: floor(share * tokens) are gone, so in a text of fewer than ten tokens some of the nine drops are 0.
    """
    return float(m.p[0] - m.p[TENTHS].mean())


@register("faithfulness", -1, "probability", _DECOMPX, least=True)
def aopc_least(m: Measured) -> float:
    """Mean drop of the predicted class's probability with the least important 10, 20, .., 90 % of the tokens gone."""
    return float(m.q[0] - m.q[TENTHS].mean())


@register("faithfulness", 1, "probability", _ERASER)
def comprehensiveness(m: Measured) -> float:
    """Mean drop of the predicted class's probability with the most important 10, 20 and 50 % of the tokens gone.

    Differs from the source, whose bins are 1, 5, 10, 20 and 50 %: of a sentence, 1 and 5 % are no token.
    """
    return float(m.p[0] - m.p[BINS].mean())


@register("faithfulness", -1, "probability", _ERASER, least=True)
def sufficiency(m: Measured) -> float:
    """Mean drop of the predicted class's probability with only the most important 10, 20 and 50 % of the tokens left.

    Left are ceil(share * tokens). Differs from the source, whose bins are 1, 5, 10, 20 and 50 %.
    """
    return float(m.q[0] - m.q[10 - BINS].mean())


@register("faithfulness", -1, "share of decisions", _DECOMPX)
def accuracy_masked(m: Measured) -> float:
    """Accuracy against the gold label, mean over the most important 10, 20, .., 90 % of the tokens gone."""
    return _right(m.most, m.gold)


@register("faithfulness", 1, "share of decisions", _DECOMPX, least=True)
def accuracy_masked_least(m: Measured) -> float:
    """Accuracy against the gold label, mean over the least important 10, 20, .., 90 % of the tokens gone."""
    return _right(m.least, m.gold)


@register("faithfulness", -1, "share of tokens", "Serrano & Smith 2019, arXiv 1906.03731")
def decision_flip(m: Measured) -> float:
    """Share of tokens gone, most important first, when the decision first changes; 1 if it never does.

    Differs from the source, which erases attention weights one by one and leaves out what never flips: here tokens, in
    steps of a tenth of the text.
    """
    if not np.isfinite(m.most[TENTHS]).all():
        return math.nan
    changed = (decided(m.most) != decided(m.most[:1])) & np.isfinite(m.most).all(1)
    return float(m.x[changed.argmax()]) if changed.any() else 1.0


@register("faithfulness", 1, "Kendall's tau-b", "Jain & Wallace 2019, arXiv 1902.10186", leave_one_out=True)
def leave_one_out_tau(m: Measured) -> float:
    """Rank correlation of the scores with the drops when single tokens are gone.

    Scores and drops are taken with their signs, those of unsigned methods too: one that cannot tell for from against
    cannot rank as the drops do. nan for a single token or where all scores are equal.
    """
    at = _both(m)
    return kendall(m.scores[at], m.loo[at])


@register("faithfulness", -1, "probability", _RISE)
def deletion_area(m: Measured) -> float:
    """Area under the predicted class's probability as tokens go, the most important first, over the share gone.

    By trapezoids, from none to all.
    """
    return float(np.trapezoid(m.p, m.x))


@register("faithfulness", 1, "probability", _RISE, least=True)
def insertion_area(m: Measured) -> float:
    """Area under the predicted class's probability as tokens come, the most important first, over the share present.

    By trapezoids, from none to all. The text in which the most important k have come is the one from which the least
    important rest is gone.
    """
    return float(np.trapezoid(m.q, m.x))


@register("faithfulness", -1, "share of tokens", "Liu et al. 2022, arXiv 2201.12114", leave_one_out=True)
def polarity_violations(m: Measured) -> float:
    """Share of tokens whose score has the opposite sign of their drop; nan for unsigned methods.

    Differs from the source, which looks at the tokens with the largest scores only. A score or drop of 0 contradicts
    nothing.
    """
    at = _both(m)
    if not m.signed or not at.any():
        return float("nan")
    return float((np.sign(m.scores[at]) * np.sign(m.loo[at]) < 0).mean())


@register("faithfulness", 1, "share of steps", "Arya et al. 2019, arXiv 1909.03012")
def monotonicity(m: Measured) -> float:
    """Share of steps at which the predicted class's probability does not rise as the most important tokens go.

    Steps of a tenth at which no token goes are left out. Read it beside the random control: a good ranking takes p to
    its floor in a step or two and is then judged by the ripples there, while a poor one comes down slowly. Differs from
    the source, which adds single features, the least important first, and asks for all steps at once.
    """
    before, after = m.p[:-1], m.p[1:]
    step = (np.diff(m.removed) > 0) & np.isfinite(after)
    return float((after[step] <= before[step] + TIED).mean()) if step.any() else float("nan")


def _right(curve: np.ndarray, gold: int | None) -> float:
    """Share of right decisions at 10 to 90 %; nan without a label, or where one of them is not known."""
    known = gold is not None and np.isfinite(curve[TENTHS]).all()
    return float((decided(curve[TENTHS]) == gold).mean()) if known else math.nan


def _both(m: Measured) -> np.ndarray:
    """Ordinary tokens whose drop was measured."""
    return np.asarray(m.ordinary & np.isfinite(m.loo))


def normalised(value: Sequence[float], random: Sequence[float], greedy: Sequence[float], seed: int = 0) -> Estimate:
    """Where a method stands between the random control (0) and the greedy bound (1), over the corpus.

    value, random, greedy: one metric of the same texts in the same order. The answer is (V - R) / (G - R) of their
    means, not the mean of ratios, which a text with G near R would dominate; the 95 % interval is a percentile
    bootstrap over texts, the three of a text drawn together. It may exceed 1, as greedy removal is no true bound. Texts
    with a number that is not finite are left out; no value where G and R agree, and no interval where they do, or
    change places, in a resample: the texts are then too few.

    Raises: ValueError if the lengths differ. Cost: 2000 means. Source: Edin et al. 2025, "Normalized AOPC", arXiv
    2408.08137; differs in that they normalise each text by its own limits, which a beam search finds.
    """
    given = [np.asarray(x, dtype=float) for x in (value, random, greedy)]
    if len({x.shape for x in given}) != 1:
        raise ValueError(f"three numbers per text are needed, not {', '.join(str(x.size) for x in given)}")
    rows = np.stack(given, -1)
    rows = rows[np.isfinite(rows).all(1)]

    ahead = float(np.sign(rows[:, 2].mean() - rows[:, 1].mean())) if len(rows) else 0.0

    def ratio(index: np.ndarray) -> float:
        v, r, g = rows[index.astype(int)].mean(0)
        return float((v - r) / (g - r)) if (g - r) * ahead > TIED else math.nan

    if not ahead or math.isnan(ratio(np.arange(len(rows)))):
        return Estimate(None, None, len(rows))
    found = over_texts([[i] for i in range(len(rows))], ratio, seed=seed)
    sound = found.interval is not None and bool(np.isfinite(found.interval).all())
    return found if sound else replace(found, interval=None)
