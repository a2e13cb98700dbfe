"""From findings to answers and on to the verdict: the rules of `rules.py` applied, numbers put into words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.audits.audit import ENOUGH
from pellucid.finding import Finding, Findings, with_interval
from pellucid.verdict.rules import (
    NO_ACCESS,
    NOT_MEASURED,
    ORDER,
    OVERALL,
    QUESTIONS,
    TOO_FEW,
    UNDECIDED,
    Overall,
    Question,
    Rule,
)
from pellucid.verdict.verdict import Answer

FAR = 20
"""Times the texts at hand above which nobody is told that more texts would settle a question."""


def answers(
    findings: Mapping[str, Findings], why: Mapping[str, str], words: Mapping[str, Any], hidden: Sequence[str] = ()
) -> tuple[Answer, ...]:
    """One answer per question. findings: by audit; why: for an audit that is not there, the reason, for a person.
    words: what the sentences may name besides numbers, such as {best}, {wide} and {layer}. hidden: audits that need to
    see more of the model than it shows."""
    missing = {q.audit: NO_ACCESS if q.audit in hidden else NOT_MEASURED for q in QUESTIONS}
    return tuple(_answer(q, findings.get(q.audit), missing[q.audit], why.get(q.audit, ""), words) for q in QUESTIONS)


def _answer(q: Question, found: Findings | None, missing: str, why: str, words: Mapping[str, Any]) -> Answer:
    at, order = {f"{f.name} ({f.where})" if f.where else f.name: f for f in found or ()}, q.order
    named = {name: at[full] for name in (*q.deciding, *q.beside) if (full := name.format_map(words)) in at}
    deciding = tuple(named[n] for n in q.deciding if n in named)
    beside = tuple(named[n] for n in q.beside if n in named) + tuple(
        f for f in found or () if f.where and f.name in q.beside
    )
    grade, reading, change = missing, why or "This was not measured.", ""
    rule = next((r for r in q.rules if r.fits(named)), None)
    if deciding and deciding[0].n < ENOUGH:
        n = deciding[0].n
        grade, reading = TOO_FEW, f"{n} text{'s' * (n != 1)} can be asked this; from {ENOUGH} on there is a grade."
        change = f"At least {ENOUGH} texts."
    elif rule is not None:
        spoken = _spoken({n.partition(" (")[0]: named.get(n) for n in (*q.deciding, *q.beside)}, words)
        spoken["needed"] = _needed(rule, deciding[0])
        grade, reading, change = rule.grade, rule.reading.format_map(spoken), rule.change.format_map(spoken)
    elif deciding:
        reading = why or deciding[0].reading or reading
    change = change[:1].upper() + change[1:]
    return Answer(q.key, q.asked, grade, order, reading, deciding, beside, change, q.meaning)


class _Number:
    """A number in a sentence: "0.12 (0.05 to 0.20)", or as "%" in percent."""

    def __init__(self, value: float | None, interval: tuple[float, float] | None) -> None:
        self.value, self.interval = value, interval

    def __format__(self, spec: str) -> str:
        if spec != "%":
            return with_interval(self.value, self.interval)
        if self.value is None:
            return "not measured"
        ends = "" if self.interval is None else f" ({percent(self.interval[0])} to {percent(self.interval[1])})"
        return f"{percent(self.value)} %{ends}"


def percent(x: float) -> str:
    """A share in percent, with a decimal where a whole one would read as none or all."""
    return f"{100 * x:.1f}" if 0 < x < 0.01 or 0.99 < x < 1 else f"{100 * x:.0f}"


def _spoken(named: Mapping[str, Finding | None], words: Mapping[str, Any]) -> dict[str, Any]:
    """What a sentence may name: each finding, its control as NAME_null, its unit as NAME_unit."""
    none = _Number(None, None)
    numbers = {name: none if f is None else _Number(f.value, f.interval) for name, f in named.items()}
    controls = {f"{name}_null": none if f is None else _Number(f.null, f.null_interval) for name, f in named.items()}
    units = {f"{name}_unit": "" if f is None else f.unit for name, f in named.items()}
    return {**words, **numbers, **controls, **units}


def _needed(rule: Rule, f: Finding) -> str:
    """How many texts would put the interval on one side of a bound, if the value stays as it is.

    An interval narrows as one over the square root of the number of texts; so does that of a control.
    """
    if f.value is None or f.interval is None:
        return "more texts would tell."
    times = []
    for bound, side in rule.bounds:
        at, wide = (f.null if bound is None else bound), (f.interval[1] - f.interval[0]) / 2
        if bound is None and f.null_interval is not None:
            wide += (f.null_interval[1] - f.null_interval[0]) / 2
        if at is not None and (f.value < at if side == "below" else f.value > at):
            times.append((wide / max(abs(f.value - at), 1e-300)) ** 2)
    if not times:
        return "with the value as measured, more texts alone would not bring that."
    if min(times) > FAR:
        return f"with the value as measured, more than {FAR} times these texts would be needed."
    return f"with the value as measured, about {math.ceil(round(max(min(times), 1.0) * f.n, 6))} texts would do."


def overall(found: Sequence[Answer], words: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict's grade and its sentence. words: place, n, n_texts, why, show, safer, of_methods."""
    grades = {a.question: a.grade for a in found}
    rule: Overall = next(o for o in OVERALL if o.fits(grades))
    return rule.grade, rule.sentence.format_map(words)


def failing(grade: str, answers: Sequence[Answer], verdict: str) -> str | None:
    """What `--fail-on GRADE` says where the verdict, or the question that knows the grade, has it or a worse one, or
    could not be told; None where it is better."""
    if grade in (*ORDER, UNDECIDED):
        reached = verdict == UNDECIDED or (grade != UNDECIDED and ORDER.index(verdict) >= ORDER.index(grade))
        return f"the verdict is {verdict}" if reached else None
    a = next(a for a in answers if grade in a.grades)
    if a.at_most(grade):
        return f"{a.asked} {a.grade}"
    return None if a.measured else f"{a.asked} {a.grade}, so that it cannot pass"


def every_grade() -> list[str]:
    """All that `--fail-on` may be given."""
    return [*ORDER, UNDECIDED, *(g for q in QUESTIONS for g in q.order)]
