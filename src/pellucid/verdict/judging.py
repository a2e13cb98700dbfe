"""From findings to answers and on to the verdict: the rules of `rules.py` applied, numbers put into words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.audits.audit import ENOUGH
from pellucid.finding import Finding, Findings, with_interval
from pellucid.verdict.rules import (
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


def answers(findings: Mapping[str, Findings], why: Mapping[str, str], words: Mapping[str, Any]) -> tuple[Answer, ...]:
    """One answer per question. findings: by audit; why: for an audit that is not there, the reason, for a person.
    words: what the sentences may name besides numbers, such as {best}, {wide} and {layer}."""
    return tuple(_answer(q, findings.get(q.audit), why.get(q.audit, ""), words) for q in QUESTIONS)


def _answer(q: Question, found: Findings | None, why: str, words: Mapping[str, Any]) -> Answer:
    at, order = {f"{f.name} ({f.where})" if f.where else f.name: f for f in found or ()}, q.order
    named = {name: at[full] for name in (*q.deciding, *q.beside) if (full := name.format_map(words)) in at}
    deciding = tuple(named[n] for n in q.deciding if n in named)
    beside = tuple(named[n] for n in q.beside if n in named) + tuple(
        f for f in found or () if f.where and f.name in q.beside
    )
    grade, reading, change = NOT_MEASURED, why or "This was not measured.", ""
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
        reading = deciding[0].reading or reading
    return Answer(q.key, q.asked, grade, order, reading, deciding, beside, change[:1].upper() + change[1:])


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
    """What a sentence may name: each finding, and its control as NAME_null; "not measured" where there is none."""
    none = _Number(None, None)
    numbers = {name: none if f is None else _Number(f.value, f.interval) for name, f in named.items()}
    controls = {f"{name}_null": none if f is None else _Number(f.null, f.null_interval) for name, f in named.items()}
    return {**words, **numbers, **controls}


def _needed(rule: Rule, f: Finding) -> str:
    """How many texts would put the interval on one side of a bound, if the value stays as it is.

    An interval narrows as one over the square root of the number of texts.
    """
    bounds = [f.null if b is None else b for b in rule.bounds]
    if f.value is None or f.interval is None or any(b is None for b in bounds):
        return "more texts would tell."
    value, wide = f.value, (f.interval[1] - f.interval[0]) / 2
    apart = [
        abs(value - b) for b in bounds if b is not None and ((rule.above and value > b) or (rule.below and value < b))
    ]
    if not apart:
        return "as measured it lies on the other side, and more texts alone would not change that."
    times = (wide / max(*apart, 1e-300)) ** 2
    if times > FAR:
        return f"with the value as measured, more than {FAR} times these texts would be needed."
    return f"with the value as measured, about {math.ceil(max(times, 1.0) * f.n)} texts would do."


def overall(found: Sequence[Answer], words: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict's grade and its sentence. words: place, n, n_texts, instead, why."""
    grades = {a.question: a.grade for a in found}
    rule: Overall = next(o for o in OVERALL if o.fits(grades))
    return rule.grade, rule.sentence.format_map(words)


def grades_of(question: str | None = None) -> tuple[str, ...]:
    """The grades of a question, the best first; of the verdict itself for None."""
    return ORDER if question is None else next(q.order for q in QUESTIONS if q.key == question)


def failing(grade: str, answers: Sequence[Answer], verdict: str) -> str | None:
    """What `--fail-on GRADE` says where the verdict, or the question that knows the grade, has it or a worse one, or
    could not be told; None where it is better."""
    if grade in (*ORDER, UNDECIDED):
        worse = verdict == UNDECIDED or ORDER.index(verdict) >= ORDER.index(grade if grade in ORDER else ORDER[-1])
        worse = verdict == UNDECIDED if grade == UNDECIDED else worse
        return f"the verdict is {verdict}" if worse else None
    a = next(a for a in answers if grade in a.grades)
    if a.at_most(grade):
        return f"{a.asked} {a.grade}"
    return None if a.measured else f"{a.asked} {a.grade}, so that it cannot pass"


def every_grade() -> list[str]:
    """All that `--fail-on` may be given."""
    return [*ORDER, UNDECIDED, *(g for q in QUESTIONS for g in q.order)]
