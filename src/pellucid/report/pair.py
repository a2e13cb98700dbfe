"""Two verdicts side by side, question by question."""

from collections.abc import Sequence

from pellucid.finding import Finding, with_interval
from pellucid.render.marks import escaped
from pellucid.report.bars import BAR_KEY, bar_of, control_text, plain_name, span_of
from pellucid.report.tones import badge, tone_of_answer
from pellucid.verdict.verdict import Answer, Verdict


def apart(a: Finding, b: Finding) -> bool | None:
    """Whether the two intervals have no point in common; None where one has no interval."""
    if a.interval is None or b.interval is None:
        return None
    return a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]


def questions(verdicts: Sequence[Verdict], names: Sequence[str]) -> str:
    """A table: question by model, with grade, deciding number, control, and whether the numbers differ."""
    asked = dict.fromkeys(a.question for v in verdicts for a in v.answers)
    rows = "".join(_row([_find(v, q) for v in verdicts]) for q in asked)
    head = "".join(f'<th scope="col"><bdi>{escaped(n)}</bdi></th>' for n in names)
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="questions by model"><table class="pair"><thead><tr>'
        f'<th scope="col">question</th>{head}<th scope="col">do they differ?</th></tr></thead><tbody>{rows}</tbody>'
        f'</table></div><p class="dim note">{BAR_KEY} Numbers differ for sure where their intervals do not overlap; '
        "intervals that overlap leave it open.</p>"
    )


def _find(v: Verdict, question: str) -> Answer | None:
    return next((a for a in v.answers if a.question == question), None)


def _row(answers: Sequence[Answer | None]) -> str:
    first = next(a for a in answers if a is not None)
    deciding = [a.deciding[0] if a is not None and a.deciding else None for a in answers]
    span = span_of([f for f in deciding if f is not None])
    cells = "".join(f"<td>{_cell(a, f, span)}</td>" for a, f in zip(answers, deciding, strict=True))
    return f"<tr><th scope=row>{escaped(first.asked)}</th>{cells}<td>{_differ(answers, deciding)}</td></tr>"


def _cell(a: Answer | None, f: Finding | None, span: tuple[float, float]) -> str:
    if a is None:
        return "not asked"
    told = badge(a.grade, tone_of_answer(a))
    if f is None:
        return told
    return (
        f"{told}<br><small>{escaped(plain_name(f.name))}</small><br>"
        f"{escaped(with_interval(f.value, f.interval))}<br>{bar_of(f, span)}<br>"
        f"<small>control {escaped(control_text(f))}; n = {f.n:,}</small>"
    )


def _differ(answers: Sequence[Answer | None], deciding: Sequence[Finding | None]) -> str:
    a, b = deciding
    if any(x is None or not x.measured for x in answers):
        return "cannot be told"
    grades = [x.grade for x in answers if x is not None]
    said = "another grade" if len(set(grades)) > 1 else "the same grade"
    if a is None or b is None or a.name != b.name or a.value is None or b.value is None:
        return said
    parted = apart(a, b)
    told = {True: "the intervals do not overlap", False: "the intervals overlap", None: "without intervals"}[parted]
    return f"{said}; <b>{told}</b>" if parted else f"{said}; {told}"
