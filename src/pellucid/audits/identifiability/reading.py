"""What the measurements of the audit "identifiability" say: its quantities, rules, sentences and pictures, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pellucid.audits.audit import ENOUGH, TOO_FEW
from pellucid.audits.identifiability.polytope import TIGHT
from pellucid.finding import Finding, Picture, number
from pellucid.stats import Estimate, Statistic, over_texts

Record = Mapping[str, Any]
SHUFFLED = "the same weights in a random order over the same tokens"
GAUSSIAN = "Gaussian values of the same shape"
SAME = 1e-9  # logits further apart than this have moved (float64)


@dataclass(frozen=True)
class Quantity:
    """One number per text length: which table and column, its control, what it means, and how it is graded.

    grades: (limit, word) in rising order; the first whose limit is at least the value. reading: with {value} and
    {null} in words.
    """

    name: str
    table: str
    column: str
    null: str
    unit: str
    grades: tuple[tuple[float, str], ...]
    reading: str
    control: str
    statistic: Statistic = np.mean
    share: bool = False


_UNIQUE = ((0.01, "NOT UNIQUE"), (0.99, "PARTLY UNIQUE"), (1.0, "UNIQUE"))
_ALIKE = ((0.7, "DIFFERENT"), (0.95, "CHANGED"), (np.inf, "ALIKE"))
_NEAR = ((0.05, "NEAR"), (0.2, "APART"), (np.inf, "FAR"))
_MASS = ((np.inf, "MEASURED"),)

QUANTITIES = (
    Quantity(
        "unique_given_head_output", "heads", "unique", "unique_control", "share of rows", _UNIQUE,
        "Given the head's output, {value} of the attention rows are the only ones possible.", GAUSSIAN, share=True,
    ),
    Quantity(
        "unique_given_layer_output", "heads", "unique_layer", "unique_layer_control", "share of rows", _UNIQUE,
        "Given only the layer's output, to which all heads add, {value} of the rows are the only ones possible.",
        f"{GAUSSIAN}, the same output projection", share=True,
    ),
    Quantity(
        "raw_effective_correlation", "heads", "correlation", "correlation_control", "Pearson's r", _ALIKE,
        "Attention and the part of it that can influence the head's output (sum of one kept) correlate at {value}; "
        "the same weights on random tokens at {null}.", SHUFFLED,
    ),
    Quantity(
        "raw_effective_correlation_unconstrained", "heads", "correlation_unconstrained",
        "correlation_unconstrained_control", "Pearson's r", _ALIKE,
        "Without the condition that rows sum to one, as published, they correlate at {value}.", SHUFFLED,
    ),
    Quantity(
        "most_even_distance", "heads", "even_distance", "even_distance_control", "total variation", _NEAR,
        "The most even attention with the same output is {value} away in total variation (random order: "
        "{null}).", SHUFFLED,
    ),
    Quantity(
        "interval_width", "rows", "width", "shuffled_width", "attention weight, median", _NEAR,
        "The largest weight of a row could lie anywhere in an interval {value} wide with the same output (random "
        "order: {null}).", SHUFFLED, np.median,
    ),
    Quantity(
        "top_token_can_change", "rows", "top_can_change", "shuffled_top_can_change", "share of rows",
        ((0.05, "STABLE"), (0.25, "SOMETIMES"), (1.0, "OFTEN")),
        "In {value} of the rows another token could have the largest weight with the same output (random order: "
        "{null}).", SHUFFLED, share=True,
    ),
    Quantity(
        "witness_distance", "rows", "distance", "shuffled_distance", "total variation", _NEAR,
        "A valid attention row {value} away in total variation gives the same output (random order: {null}); "
        "the farthest may be farther.", SHUFFLED,
    ),
    Quantity(
        "first_token_mass", "heads", "first", "shuffled_first", "attention weight", _MASS,
        "The first token gets {value} of the attention (random order: {null}).", SHUFFLED,
    ),
    Quantity(
        "first_token_mass_effective", "heads", "effective_first", "shuffled_effective_first", "attention weight", _MASS,
        "In effective attention the first token gets {value} (random order: {null}).", SHUFFLED,
    ),
    Quantity(
        "separator_mass", "heads", "marks", "shuffled_marks", "attention weight", _MASS,
        "Separators get {value} of the attention (random order: {null}).", SHUFFLED,
    ),
    Quantity(
        "separator_mass_effective", "heads", "effective_marks", "shuffled_effective_marks", "attention weight", _MASS,
        "In effective attention separators get {value} (random order: {null}).", SHUFFLED,
    ),
    Quantity(
        "unique_given_keys", "rows", "key_unique", "key_unique_control", "share of rows", _UNIQUE,
        "With the keys as they are, no nearby query gives the same output in {value} of the rows (see key_condition).",
        f"{GAUSSIAN}, and Gaussian keys", share=True,
    ),
    Quantity(
        "key_condition", "rows", "key_condition", "key_condition_control", "condition number, median",
        ((1e4, "FIRM"), (1e8, "WEAK"), (np.inf, "ON PAPER ALONE")),
        "From the output back to the query errors grow by up to {value} (Gaussian keys and values: {null}): the "
        "larger, the less uniqueness given the keys means in practice.", f"{GAUSSIAN}, and Gaussian keys", np.median,
    ),
)  # fmt: skip

LIMITS = {
    "heads": "What the layers behind make of an output is left out: the logits alone leave more open.",
    "rows": "Same output does not mean that these queries and keys could produce it: see unique_given_keys.",
    "full": "All rows of each text, padding apart.",
    "cls": "The first row, in every layer; level='full' looks at all rows.",
    "readout": "The one attention that pools states, of words or of sentences, to be classified; lengths count these.",
    "pooled": "This classifier reads all rows (mean pooling); level='cls' looks at the first, level='full' at all.",
}


def bins(lengths: Sequence[int], width: int) -> list[tuple[str, int, int]]:
    """Text lengths cut where uniqueness is decided: e + 1, then 2 e and 4 e; those that occur, after "" for all."""
    edges = [0, width + 1, 2 * width, 4 * width, 10**9]
    found = [("", 0, 10**9)]
    for low, high in pairwise(edges):
        if any(low < n <= high for n in lengths):
            name = f"up to {high} tokens" if not low else f"{low + 1} to {high} tokens"
            found.append((name if high < 10**9 else f"over {low} tokens", low, high))
    return found if len(found) > 2 else [("", 0, 10**9)]


def _by_text(records: Sequence[Record], column: str) -> list[list[float]]:
    texts: dict[int, list[float]] = {}
    for r in records:
        texts.setdefault(r["text"], []).append(float(r[column]))
    return list(texts.values())


def findings(
    heads: Sequence[Record],
    rows: Sequence[Record],
    moved: Sequence[Record],
    width: int,
    common: Sequence[str],
    left: int,
) -> list[Finding]:
    """Every quantity for all texts and by text length; `common` are limits that all of them have."""
    tables = {"heads": heads, "rows": rows}
    out: list[Finding] = []
    cut = bins([r["n"] for r in moved], width)
    late = [f"The time budget left out {left} of {left + len(rows)} sampled rows."] if left else []
    for q in QUANTITIES:
        for where, low, high in cut:
            mine = [r for r in tables[q.table] if low < r["n"] <= high]
            found = over_texts(_by_text(mine, q.column), q.statistic, q.share)
            null = over_texts(_by_text(mine, q.null), q.statistic, q.share)
            limits = (LIMITS[q.table], *common, *(late if q.table == "rows" else []))
            counts = {"rows": sum(int(r.get("rows", 1)) for r in mine if np.isfinite(r[q.column]))}
            out.append(_finding(q, where, found, null, limits, counts))
    return out + [_put_back(moved, where, low, high) for where, low, high in cut]


def _finding(
    q: Quantity, where: str, found: Estimate, null: Estimate, limits: tuple[str, ...], counts: dict[str, int]
) -> Finding:
    if found.value is None:
        grade, reading = "NOT MEASURED", "No row has what this is about, or none was measured."
    else:
        grade = next(word for limit, word in q.grades if found.value <= limit + 1e-12)
        reading = q.reading.format(value=_said(found.value, q.share), null=_said(null.value, q.share))
    if 0 < found.n < ENOUGH:
        grade = TOO_FEW
    return Finding(
        "identifiability", q.name, found.value, found.interval, null.value, found.n, grade, reading, limits,
        q.unit, where, q.control, null.interval, counts,
    )  # fmt: skip


def _said(x: float | None, share: bool) -> str:
    """A number in a sentence: shares in percent, with a decimal where a whole one would read as none or all."""
    if x is None:
        return "not measured"
    if not share:
        return number(x)
    return f"{x:.1%}" if 0 < x < 0.1 or 0.9 < x < 1 else f"{x:.0%}"


def _put_back(moved: Sequence[Record], where: str, low: int, high: int) -> Finding:
    """The proof in the model: alternatives do not move the logits, random attention as far away does."""
    among = [r for r in moved if low < r["n"] <= high]
    mine = [r for r in among if r["mean_distance"] > TIGHT]
    ours = ("effective_moved", "even_moved", "witness_moved")
    found = over_texts([[max(float(r[k]) for k in ours)] for r in mine], np.max)
    control = over_texts([[max(r["random_moved"], r["witness_random_moved"])] for r in mine], np.max)
    grade, reading = "NOTHING TO MOVE", "Every row looked at is unique, so there is no other attention to put back."
    if found.value is not None and control.value is not None:
        grade = "MOVED" if found.value > SAME else "SAME LOGITS" if control.value > 1e3 * found.value else "NO LEVERAGE"
        median = float(np.median([max(r["random_moved"], r["witness_random_moved"]) for r in mine]))
        reading = (
            f"Put back into the model, other attention with the same head output moves no logit by more than "
            f"{found.value:.0e}; random attention as far away moves one by up to {control.value:.2g} ({median:.2g} in "
            "the median text)."
        )
    if 0 < len(mine) < ENOUGH:
        grade = TOO_FEW
    return Finding(
        "identifiability", "logits_moved", found.value, found.interval, control.value, len(mine), grade, reading,
        ("Put back: the first row of every head at once, effective and most even; a far witness in one head per text.",
         f"{len(among) - len(mine)} of {len(among)} texts have nothing to put back, as their rows are unique."),
        "logit, the largest of all texts", where, "random attention as far away as the most even one, or the witness",
        control.interval, {"forwards": 5 * len(mine)},
    )  # fmt: skip


def pictures(heads: Sequence[Record], rows: Sequence[Record], width: int) -> dict[str, Picture]:
    """Curves over text length."""
    from pellucid.render.charts import curves

    drawn: dict[str, Picture] = {}
    named: dict[str, tuple[Sequence[Record], str, dict[str, tuple[str, str | None]]]] = {
        "correlation": (
            heads, "Pearson's r, attention and effective attention",
            {"rows sum to one": ("correlation", "correlation_control"),
             "unconstrained": ("correlation_unconstrained", "correlation_unconstrained_control")},
        ),
        "freedom": (
            rows, "freedom of a row with the same output",
            {"witness distance": ("distance", "shuffled_distance"),
             "interval of the top weight": ("width", "shuffled_width"),
             "top token can change": ("top_can_change", "shuffled_top_can_change")},
        ),
        "mass": (
            heads, "attention weight on the first token",
            {"attention": ("first", "shuffled_first"), "effective": ("effective_first", "shuffled_effective_first"),
             "most even": ("even_first", None)},
        ),
    }  # fmt: skip
    for name, (table, label, columns) in named.items():
        if table:
            series = {k: curve(table, c) for k, (c, _) in columns.items()}
            control = {k: curve(table, c) for k, (_, c) in columns.items() if c}
            drawn[name] = Picture(
                curves, series, "text length in tokens", label, f"By text length (head width {width})", control
            )
    return drawn


def curve(table: Sequence[Record], column: str) -> tuple[list[float], list[float], list[float], list[float]]:
    """Mean lengths, means and intervals of a column in up to eight groups of texts of about one length."""
    lengths = sorted({(r["text"], r["n"]) for r in table}, key=lambda t: t[1])
    groups: list[np.ndarray] = np.array_split(np.array(lengths), min(8, max(1, len(lengths) // 5)))
    x, y, low, high = [], [], [], []
    for group in groups:
        ids = set(group[:, 0].tolist())
        found = over_texts(_by_text([r for r in table if r["text"] in ids], column), resamples=500)
        if found.value is not None:
            ends = found.interval or (found.value, found.value)
            x.append(float(group[:, 1].mean()))
            y.append(found.value)
            low.append(ends[0])
            high.append(ends[1])
    return x, y, low, high
