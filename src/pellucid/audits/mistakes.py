"""Errors against correct predictions: how sure, on what evidence, on what texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.audits.audit import ENOUGH, TOO_FEW
from pellucid.audits.contributions import Contributions
from pellucid.audits.layers import Rule, graded
from pellucid.finding import Finding
from pellucid.stats import RESAMPLES, Estimate, over_texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = Estimate(0.0, (0.0, 0.0), 0)
"""No difference: what differences are graded against."""
GRADES = (
    Rule("HIGHER IN ERRORS", above_control=True),
    Rule("LOWER IN ERRORS", most=-1e-12),
    Rule("NO DIFFERENCE SHOWN"),
)


@dataclass(frozen=True)
class Quantity:
    """What is told of every text, and compared: a column of the table "predictions"."""

    column: str
    name: str
    unit: str
    what: str
    short: str


PLAIN = (
    Quantity("probability", "probability_in_errors", "probability", "the probability of the prediction", "probability"),
    Quantity("tokens", "length_in_errors", "tokens", "the number of ordinary tokens", "length"),
)
OF_EVIDENCE = (
    Quantity("against", "against_in_errors", "share of evidence", "the share of the evidence that speaks against the "
             "prediction", "evidence against"),
    Quantity("half", "half_in_errors", "words", "the number of words that carry half of the evidence",
             "words for half"),
)  # fmt: skip
"""Of words by their contributions to the predicted class; evidence is the sum of their absolute values."""


def against(scores: Sequence[float] | np.ndarray) -> float:
    """The share of the absolute scores that is negative, 0 to 1; nan without any score."""
    s = np.asarray(scores, dtype=float)
    total = np.abs(s).sum()
    return float(np.abs(s[s < 0]).sum() / total) if total > 0 else float("nan")


def words_for_half(scores: Sequence[float] | np.ndarray) -> float:
    """The least number of words whose absolute scores are half of the sum; nan without any score."""
    size = np.sort(np.abs(np.asarray(scores, dtype=float)))[::-1]
    if not size.sum() > 0:
        return float("nan")
    return float(np.searchsorted(np.cumsum(size), size.sum() / 2 * (1 - 1e-12)) + 1)


def toward(text: Contributions, predicted: int) -> np.ndarray:
    """Contributions of words [w] to the predicted class; of a sigmoid head, against its logit where it says no."""
    if text.scores.shape[1] == 1:
        return np.asarray(text.scores[:, 0] * (1 if predicted else -1))
    return np.asarray(text.scores[:, predicted])


def compared(
    quantity: Quantity, values: np.ndarray, correct: np.ndarray, limits: tuple[str, ...], seed: int
) -> Finding:
    """The quantity in errors beside that in correct predictions; the grade is that of their difference."""
    known = np.isfinite(values)
    wrong, right = values[known & ~correct], values[known & correct]
    found, null = (over_texts(x[:, None].tolist(), seed=seed) for x in (wrong, right))
    apart = difference(wrong, right, seed)
    counts = {"errors": len(wrong), "correct predictions": len(right)}
    if found.value is None or null.value is None:
        which = "errors" if null.value is not None else "correct predictions"
        reading = f"There are no {which} to compare."
    else:
        low, high = apart.interval or (float("nan"), float("nan"))
        reading = (
            f"In errors {quantity.what} is {found.value:.3g}, in correct predictions {null.value:.3g}: a difference of "
            f"{apart.value:+.3g}" + (f" ({low:+.3g} to {high:+.3g})." if apart.interval else ".")
        )
    grade = TOO_FEW if min(len(wrong), len(right)) < ENOUGH else graded(GRADES, apart, NONE)
    return Finding(
        "calibration", quantity.name, found.value, found.interval, null.value, found.n, grade, reading, limits,
        quantity.unit, "", "the same in correct predictions", null.interval, counts,
    )  # fmt: skip


def difference(a: np.ndarray, b: np.ndarray, seed: int) -> Estimate:
    """Mean of a minus mean of b, of two sets of texts, with a 95 % percentile bootstrap; n: the smaller set."""
    from scipy.stats import bootstrap

    n = min(len(a), len(b))
    if n < 1:
        return Estimate(None, None, 0)
    value = float(a.mean() - b.mean())
    if n < 2:
        return Estimate(value, None, n)
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Estimate(value, (value, value), n)
    ends = bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), n_resamples=RESAMPLES, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Estimate(value, (float(ends.low), float(ends.high)), n)


def differences(columns: Mapping[str, np.ndarray], correct: np.ndarray, seed: int) -> "Figure":
    """Errors minus correct predictions by quantity, with intervals, in standard deviations of all texts."""
    from pellucid.render.charts import intervals

    labels, found = [], []
    for quantity in (*PLAIN, *OF_EVIDENCE):
        values = columns.get(quantity.column, np.array([]))
        known = np.isfinite(values)
        if known.any() and np.std(values[known]) > 0:
            size = float(np.std(values[known]))
            apart = difference(values[known & ~correct] / size, values[known & correct] / size, seed)
            low, high = apart.interval or (None, None)
            labels.append(quantity.short)
            found.append((apart.value, low, high))
    n = f"{int((~correct).sum())} errors, {int(correct.sum())} correct predictions"
    value, low_, high_ = ([row[k] for row in found] for k in range(3))
    unit = "errors minus correct predictions, in standard deviations of all texts"
    return intervals(labels, value, low_, high_, f"How errors differ: {n}", unit)
