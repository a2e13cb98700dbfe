"""What the measurements of the audit "information" say: quantities, rules of grades, sentences and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.audits.audit import ENOUGH, TOO_FEW
from pellucid.audits.information.slots import (
    Slots,
    by_difference,
    concordance,
    preservation_ratio,
    preserved,
    tau,
)
from pellucid.audits.layers import Rule, graded
from pellucid.finding import Finding, Picture, number
from pellucid.stats import Estimate, over_texts

Record = Mapping[str, Any]
MEASURED = "MEASURED"
RESOLVABLE = 0.5
"""No tau within texts is told unless at least this share of them is resolved; no order of slots is, unless halves of
the texts agree on it by at least this tau."""
ENOUGH_PAIRS = 0.1
"""Of the pairs of slots, below which no concordance is graded: one in twenty passes for resolved by chance."""
NATS, TAU, SHARE = "nats", "Kendall's tau-b", "share of texts"
_ORDER = "the same weights in a random order over the units"
_FOLLOWS = (
    Rule("FOLLOWS INFORMATION", least=0.3, above_control=True),
    Rule("PARTLY FOLLOWS", above_control=True),
    Rule("DOES NOT FOLLOW"),
)


TINY = 1e-9
"""Nats within which a lift is none."""


@dataclass(frozen=True)
class Quantity:
    """One number over texts: a column, its control's column, what these are, a sentence, and the rules of its grade."""

    name: str
    column: str
    null: str
    unit: str
    control: str
    reading: str
    grades: tuple[Rule, ...] = (Rule(MEASURED),)
    where: str = ""
    share: bool = False


LIFT = (Rule("GOES WHERE DECODABLE", least=TINY, above_control=True), Rule("GOES ELSEWHERE", most=-TINY))
QUANTITIES = (
    Quantity("lift", "lift", "random_lift", NATS, _ORDER,
             "Attention weighs states that tell {value} nats more of the output than a state of the text does on "
             "average (random order: {null}).", LIFT),
    Quantity("tau_leave_one_out", "tau_erased", "random_tau_erased", TAU, _ORDER,
             "Attention and the effect of deleting a unit agree within texts with tau {value} (random order: {null}): "
             "this one is about what the output needs.", _FOLLOWS),
    Quantity("information_needed", "tau_told_erased", "random_tau_told_erased", TAU,
             "the same information in a random order over the units",
             "What is decodable at a unit and the effect of deleting it agree within texts with tau {value} (random "
             "order: {null}): how far the two questions are one.", _FOLLOWS),
    Quantity("special_mass", "special", "even_special", "attention weight", "the same attention spread evenly",
             "Special tokens, which no probe reads, have {value} of the attention; spread evenly it would be {null}."),
)  # fmt: skip
SKEW = {
    "entropy": ("share of the largest possible entropy", "The entropy of attention is {value} of an even one's"),
    "largest_weight": ("attention weight", "The largest weight of a text is {value} on average"),
    "gini": ("Gini coefficient", "Attention over a text has a Gini coefficient of {value}"),
    "top_mass": ("attention weight", "The three largest weights of a text hold {value} together"),
}
VARIANTS = {
    "": ("even", "even attention", ""),
    "scores at half the temperature": ("", "the attention itself", ", at half the temperature"),
    "with the noise of training": ("noise", "noise alone, on equal scores", ", with the noise of training"),
}
LIMITS = (
    "Information is what a probe can decode at a place, after all mixing below it; only leave-one-out says what the "
    "output needs.",
    "A probe finds at least what its family can see: what it does not find may be there.",
    "This checkpoint alone: another seed of the same model may come out otherwise.",
)
SLOTS_LIMIT = "Intervals, halves and resolved pairs of slots are over texts; the probes' own noise is not in them."


def _said(x: float | None) -> str:
    return "not measured" if x is None else number(x)


def finding(
    name: str, found: Estimate, null: Estimate, unit: str, control: str, reading: str,
    grade: str = MEASURED, where: str = "", limits: Sequence[str] = LIMITS, counts: Mapping[str, int] | None = None,
) -> Finding:  # fmt: skip
    """One finding; the sentence's {value} and {null} are filled in; TOO FEW TEXTS where that is so."""
    grade = TOO_FEW if found.n < ENOUGH else grade
    sentence = reading.format(value=_said(found.value), null=_said(null.value))
    return Finding(
        "information", name, found.value, found.interval, null.value, found.n, grade, sentence, tuple(limits), unit,
        where, control, null.interval, dict(counts or {}),
    )  # fmt: skip


def column(texts: Sequence[Record], name: str, share: bool = False) -> Estimate:
    """A column over texts; texts without it are left out."""
    return over_texts([[t[name]] for t in texts if t.get(name) is not None], share=share)


def _lift(value: Estimate, null: Estimate) -> str:
    """The grade of a lift: beyond that of a random order, on the one side or the other."""
    grade = graded((*LIFT, Rule("NO DIFFERENCE")), value, null)
    below = null.interval is None or value.interval is None or value.interval[1] < null.interval[0]
    return "NO DIFFERENCE" if grade == LIFT[1].grade and not below else grade


def of_texts(texts: Sequence[Record], decodable: bool, limits: Sequence[str]) -> list[Finding]:
    """The quantities of texts, the within-text agreement with its gate, and the skew of attention.

    decodable: whether there is any information that attention could go to.
    """
    found = []
    for q in QUANTITIES:
        value, null = column(texts, q.column, q.share), column(texts, q.null, q.share)
        if value.n:
            grade = _lift(value, null) if q.name == "lift" else graded(q.grades, value, null)
            grade = "NOTHING FOUND" if q.name == "lift" and not decodable else grade
            found.append(finding(q.name, value, null, q.unit, q.control, q.reading, grade, q.where, limits))
    return [*found[:1], *_within(texts, decodable, limits), *found[1:], *_skew(texts, limits)]


def _within(texts: Sequence[Record], decodable: bool, limits: Sequence[str]) -> list[Finding]:
    """Attention against information within texts, if enough texts are resolved; and how much could be hoped for."""
    share = column(texts, "resolved", share=True)
    clear = [t for t in texts if t["resolved"]]
    found, null, most = (column(clear, name) for name in ("tau", "random_tau", "tau_ceiling"))
    counts = {"texts resolved": len(clear), "texts not resolved": len(texts) - len(clear)}
    able = decodable and share.value is not None and share.value >= RESOLVABLE and found.n >= min(ENOUGH, share.n)
    if able:
        grade = graded(_FOLLOWS, found, null)
        reading = (
            "Attention and the information of states agree within texts with tau {value} (random order: {null}); two "
            f"probes, each from half of the texts, agree with each other with tau {_said(most.value)}."
        )
    else:
        grade, found = "NOT RESOLVABLE", Estimate(None, None, share.n)
        reading = (
            f"In {_said(share.value)} of the texts states differ by more than twice what two probes of them do"
            + (": too few to tell an order by information." if decodable else ", but nothing is decodable at all.")
        )
    return [
        finding("tau_information", found, null, TAU, _ORDER, reading, grade, "", limits, counts),
        finding("tau_ceiling", most, null, TAU, _ORDER,
                "Two probes, each from half of the texts, agree within texts with tau {value}; attention in a random "
                "order with {null}.", limits=limits, counts=counts),
        finding("resolved_texts", share, Estimate(None, None, 0), SHARE, "",
                "In {value} of the texts the states differ in information by twice what two probes differ by.",
                limits=limits),
    ]  # fmt: skip


def _skew(texts: Sequence[Record], limits: Sequence[str]) -> list[Finding]:
    found = []
    for where, (against, control, more) in VARIANTS.items():
        prefix = {"": "", "scores at half the temperature": "half_", "with the noise of training": "noisy_"}[where]
        for name, (unit, reading) in SKEW.items():
            value = column(texts, prefix + name)
            null = column(texts, f"{against}_{name}" if against else name)
            if value.n:
                sentence = f"{reading}{more} ({control}: {{null}})."
                found.append(finding(name, value, null, unit, control, sentence, where=where, limits=limits))
    return found


def of_slots(
    slots: Slots, random: Slots, context: Sequence[float], decodable: bool, limits: Sequence[str]
) -> list[Finding]:
    """Order, preservation and concordance of slots, beside slots in a random order of the same weights."""
    ranks = slots.pointwise.shape[1]
    limits = [*limits, SLOTS_LIMIT]
    most, order, null = slots.ceiling(), slots.over(tau), random.over(tau)
    resolvable = decodable and most.value is not None and most.value >= RESOLVABLE
    grade = graded(_FOLLOWS, order, null) if resolvable else "NOT RESOLVABLE"
    told = (
        f"Over {ranks} slots mean attention and information agree with tau {{value}} (random order: {{null}}); halves "
        f"of the texts agree on the order by information with tau {_said(most.value)}"
    )
    pairs, off = slots.pairs, random.pairs
    counts = {"pairs of slots": len(pairs.i), "resolved": int(pairs.resolved.sum())}
    n, chance = len(slots.attention), Estimate(0.5, None, len(slots.attention))
    share = Estimate(float(pairs.resolved.mean()), None, n), Estimate(float(off.resolved.mean()), None, n)
    agree = concordance(slots)
    return [
        finding("tau_slots", order, null, TAU, _ORDER, told + ("." if resolvable else ": too little to tell."), grade,
                "", limits, counts),
        finding("tau_slots_ceiling", most, random.ceiling(), TAU, _ORDER,
                "Halves of the texts agree on the slots' order by information with tau {value} (slots in a random "
                "order: {null}).", limits=limits),
        finding("concordance", agree, chance, "share of resolved pairs", "chance",
                "Of the pairs of slots whose information differs beyond its error, {value} are in the order of their "
                "attention (chance: {null}).",
                MEASURED if pairs.resolved.mean() >= ENOUGH_PAIRS else "NOT RESOLVABLE", "", limits, counts),
        finding("resolved_pairs", share[0], share[1], "share of pairs", _ORDER,
                "{value} of the pairs of slots are resolved (random order: {null}).", limits=limits, counts=counts),
        finding("preserved", slots.over(preserved), random.over(preserved), NATS, _ORDER,
                "Weighted by attention the slots tell {value} nats of the output (random order: {null}).",
                limits=limits),
        finding("preservation_ratio", slots.over(preservation_ratio), random.over(preservation_ratio),
                "share of the largest slot's information", _ORDER,
                "That is {value} of what the slot with the most tells (random order: {null}).", limits=limits),
        finding("context_information", over_texts([[c] for c in context]), slots.over(_largest), NATS,
                "the slot with the most", "The sum of states by attention tells {value} nats of the output (the best "
                "single slot: {null}).", limits=limits),
    ]  # fmt: skip


def _largest(attention: np.ndarray, information: np.ndarray) -> np.ndarray:
    return np.asarray(information.max(-1))


def slot_rows(slots: Slots, random: Slots, kind: str) -> list[dict[str, Any]]:
    """A row per slot: attention, information with its interval, and the information in a random order."""
    rows = []
    for r in range(slots.pointwise.shape[1]):
        ends = [over_texts([[x] for x in s.pointwise[:, r]]) for s in (slots, random)]
        low, high = ends[0].interval or (None, None)
        rows.append({
            kind: r + 1, "attention": float(slots.attention[:, r].mean()), "information": ends[0].value,
            "low": low, "high": high, "random": ends[1].value, "n": ends[0].n,
        })  # fmt: skip
    return rows


def pair_rows(slots: Slots) -> list[dict[str, Any]]:
    """A row per pair of slots."""
    p = slots.pairs
    return [
        {"slot": int(i) + 1, "other": int(j) + 1, "attention": float(a), "information": float(x), "se": float(se),
         "resolved": bool(r), "agree": float(g)}
        for i, j, a, x, se, r, g in zip(p.i, p.j, p.attention, p.information, p.se, p.resolved, p.agree, strict=True)
    ]  # fmt: skip


def drawn_slots(rows: Sequence[Record], kind: str) -> Picture:
    """Information of slots against their attention."""
    from pellucid.render.charts import curves

    x = [r["attention"] for r in rows]
    series = {"by attention" if kind == "rank" else "by position":
              (x, [r["information"] for r in rows], [r["low"] for r in rows], [r["high"] for r in rows])}  # fmt: skip
    control = {"random order": (x, [r["random"] for r in rows], None, None)}
    return Picture(
        curves, series, "mean attention of the slot", "information (nats)",
        f"What the state at each {kind} tells of the output", control,
    )  # fmt: skip


def drawn_layers(found: Sequence[Finding]) -> Picture:
    """Information at the states that each layer reads."""
    from pellucid.render.charts import curves

    x = list(range(1, len(found) + 1))
    ends = [f.interval or (f.value, f.value) for f in found]
    series = {"information": (x, [f.value for f in found], [a for a, _ in ends], [b for _, b in ends])}
    null = [f.null for f in found]
    control = {"outputs of other texts": (x, null, None, None)} if any(v is not None for v in null) else None
    return Picture(curves, series, "layer that reads the states", "information (nats)",
                   "What a state of a text tells of the output, layer by layer", control)  # fmt: skip


def drawn_concordance(slots: Slots) -> Picture:
    """The share of resolved pairs in attention's order, over the difference of attention."""
    from pellucid.render.charts import curves

    rows = [r for r in by_difference(slots.pairs) if r["agree"] is not None]
    middle: Callable[[Mapping[str, Any]], float] = lambda r: (r["from"] + r["to"]) / 2  # noqa: E731
    x = [middle(r) for r in rows]
    series = {"resolved pairs": (x, [r["agree"] for r in rows], None, None)}
    control = {"chance": (x, [0.5] * len(x), None, None)}
    return Picture(curves, series, "difference of attention between two slots",
                   "share in the order of attention", "Does more attention mean more information?", control,
                   (0.0, 1.02))  # fmt: skip
