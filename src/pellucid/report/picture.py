"""The verdict as an SVG picture for a README: the sentence, the questions with their grades and deciding numbers."""

import textwrap

from pellucid.finding import Finding, number
from pellucid.render.marks import DIM, INK, PAPER, cleaned, escaped
from pellucid.report.answers import names_of
from pellucid.report.bars import Span, span_of
from pellucid.report.tones import SIGNS, tone_of, tone_of_answer
from pellucid.verdict.verdict import Answer, Verdict

WIDTH, PAD, ROW = 760, 24, 46
FILLS = {"good": ("#d7efdb", "#0b4a1d"), "care": ("#fdebc8", "#5c3a00"), "bad": ("#fbdcd6", "#7a1506"),
         "open": ("#e4e6ea", "#333333")}  # fmt: skip
"""Background and text of a badge, as in style.css."""
CELL = 7.4  # about the width of a letter of a badge


def picture(verdict: Verdict) -> str:
    """A self-contained SVG on white with a border, so that it can stand on a dark page too; valid XML for any text."""
    out: list[str] = []
    y = PAD + _badge(out, verdict.grade, tone_of(verdict.grade), PAD, PAD) + 14
    for line in textwrap.wrap(cleaned(verdict.sentence), 84):
        y += 22
        out.append(f'<text x="{PAD}" y="{y}" font-size="16">{escaped(line)}</text>\n')
    y += 18
    for a in verdict.answers:
        out.append(f'<path d="M{PAD} {y}H{WIDTH - PAD}" stroke="#d0d0d0"/>\n')
        y = _answer(out, a, y)
    y = _notes(out, verdict, y)
    title = escaped(f"{verdict.grade}: {verdict.sentence}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" viewBox="0 0 {WIDTH} {y + 10}" '
        f'role="img" aria-label="{title}"><title>{title}</title><rect x=".5" y=".5" width="{WIDTH - 1}" '
        f'height="{y + 9}" rx="10" fill="{PAPER}" stroke="#d0d0d0"/><g fill="{INK}" '
        f'font-family="system-ui,-apple-system,Segoe UI,DejaVu Sans,sans-serif">\n{"".join(out)}</g></svg>\n'
    )


def _notes(out: list[str], verdict: Verdict, y: int) -> int:
    """Of which model this is said, and what is drawn; the y below."""
    texts = verdict.about.get("texts")
    name = names_of([verdict])[0]
    said = [f"Model {name[:60]}{f', {texts} texts' if isinstance(texts, int) else ''}."]
    said += (
        ["Dot and line: measured, with its 95 % interval over texts. Diamond: the control."] if verdict.answers else []
    )
    out.append(f'<path d="M{PAD} {y}H{WIDTH - PAD}" stroke="#d0d0d0"/>\n')
    for line in textwrap.wrap(cleaned(" ".join(said)), 110):
        y += 20
        out.append(f'<text x="{PAD}" y="{y}" font-size="12" fill="{DIM}">{escaped(line)}</text>\n')
    return y + 8


def _badge(out: list[str], word: str, tone: str, x: float, y: float, size: int = 13) -> int:
    """A grade with its sign; the height it takes."""
    text = f"{SIGNS[tone]} {cleaned(word)}"
    fill, ink = FILLS[tone]
    width = CELL * size / 11 * len(text) + 14
    out.append(
        f'<rect x="{x:g}" y="{y:g}" width="{width:.0f}" height="{size + 11}" rx="5" fill="{fill}"/>'
        f'<text x="{x + width / 2:.1f}" y="{y + size + 3.5:g}" font-size="{size}" font-weight="bold" fill="{ink}" '
        f'text-anchor="middle">{escaped(text)}</text>\n'
    )
    return size + 11


def _answer(out: list[str], a: Answer, y: int) -> int:
    """A question on the left with its grade below, its number on the right; the y below it."""
    lines = textwrap.wrap(cleaned(a.asked), 44)
    for k, line in enumerate(lines):
        out.append(f'<text x="{PAD}" y="{y + 22 + 18 * k}" font-size="14">{escaped(line)}</text>\n')
    below = y + 22 + 18 * (len(lines) - 1)
    _badge(out, a.grade, tone_of_answer(a), PAD, below + 8, 11)
    if a.deciding:
        _number(out, a.deciding[0], y)
    return max(below + 42, y + ROW + 18)


def _number(out: list[str], f: Finding, y: int) -> None:
    left = 400
    told = "not measured" if f.value is None else number(f.value)
    name = f"{f.name.replace('_', ' ')}{f' ({f.unit})' if f.unit else ''}"
    name = name if len(name) < 50 else f"{name[:48]}…"
    control = "" if f.null is None else f"control {number(f.null)}"
    out.append(
        f'<text x="{left}" y="{y + 20}" font-size="12" fill="{DIM}">{escaped(cleaned(name))}</text>'
        f'<text x="{left}" y="{y + 42}" font-size="15" font-weight="bold">{told}</text>'
        f'<text x="{WIDTH - PAD}" y="{y + 58}" font-size="11" fill="{DIM}" text-anchor="end">{control}</text>\n'
    )
    if f.value is not None:
        _bar(out, f, span_of([f]), 500, y + 37)


def _bar(out: list[str], f: Finding, span: Span, left: int, y: int) -> None:
    width = WIDTH - PAD - left

    def x(v: float) -> float:
        return round(left + (min(max(v, span[0]), span[1]) - span[0]) / (span[1] - span[0]) * width, 1)

    out.append(f'<path d="M{left} {y}h{width}" stroke="#d0d0d0"/><path d="M{x(0)} {y - 7}v14" stroke="#888"/>')
    if f.interval is not None:
        low, high = map(x, f.interval)
        out.append(f'<path d="M{low} {y}H{high}" stroke="#0b5fa5" stroke-width="5" stroke-linecap="round"/>')
    if f.null is not None:
        out.append(f'<path d="M{x(f.null)} {y - 6}l6 6-6 6-6-6z" fill="{PAPER}" stroke="{DIM}" stroke-width="1.5"/>')
    out.append(f'<circle cx="{x(f.value or 0)}" cy="{y}" r="5" fill="#0b5fa5"/>\n')
