"""A number with its interval and its control: as a small picture, as table cells, as a table of findings."""

import math
from collections.abc import Iterable, Sequence

from pellucid.finding import Finding, Interval, with_interval
from pellucid.render.marks import escaped

WIDTH, HEIGHT, PAD = 150, 22, 5
Span = tuple[float, float]

BAR_KEY = (
    "Dot and thick line: what was measured and its 95 % interval over texts. Diamond and thin line: what it is "
    "held against, as named in the column of controls. Upright line: zero."
)


def ends_of(value: float | None, interval: Interval | None) -> list[float]:
    """The finite numbers of a value and its interval."""
    return [x for x in (value, *(interval or ())) if x is not None and math.isfinite(x)]


def span_of(found: Iterable[Finding]) -> Span:
    """The axis for findings of one unit: from 0 to 1 for shares between them, else zero and all ends with room."""
    found = list(found)
    seen = [x for f in found for x in ends_of(f.value, f.interval) + ends_of(f.null, f.null_interval)]
    low, high = min([0.0, *seen]), max([0.0, *seen])
    if found and low == 0 and high <= 1 and all(f.unit.startswith("share") for f in found):
        return 0.0, 1.0
    return (low, high) if high > low else (low - 1, low + 1)


def bar(value: float | None, interval: Interval | None, null: float | None, null_interval: Interval | None,
        span: Span) -> str:  # fmt: skip
    """The picture; its numbers stand beside it in words, so it is hidden from a screen reader. "" without a number."""
    if not ends_of(value, None):
        return ""

    def x(v: float) -> float:
        share = (min(max(v, span[0]), span[1]) - span[0]) / (span[1] - span[0])
        return round(PAD + share * (WIDTH - 2 * PAD), 1)

    def line(ends: Interval | None, y: int, name: str) -> str:
        if ends is None or any(math.isnan(e) for e in ends):
            return ""
        return f'<path class={name} d="M{x(ends[0]):g} {y}H{x(ends[1]):g}"/>'

    zero = f'<path class=z d="M{x(0.0):g} 0V{HEIGHT}"/>' if span[0] <= 0 <= span[1] else ""
    control = ""
    if null is not None and math.isfinite(null):
        at = x(null)
        control = f'{line(null_interval, 17, "k")}<path class=c d="M{at:g} 13l4 4-4 4-4-4z"/>'
    return (
        f'<svg class=bar viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden=true>{zero}{control}{line(interval, 6, "i")}'
        f'<circle class=v cx="{x(float(value or 0)):g}" cy="6" r="3.5"/></svg>'
    )


def bar_of(f: Finding, span: Span | None = None) -> str:
    """The picture of one finding, on its own axis unless one is given."""
    return bar(f.value, f.interval, f.null, f.null_interval, span or span_of([f]))


def value_cell(f: Finding, span: Span | None = None) -> str:
    """The value with its interval, and the picture of them below."""
    return f"<span class=nowrap>{escaped(with_interval(f.value, f.interval))}</span><br>{bar_of(f, span)}"


def shortened(text: str, most: int = 80) -> str:
    """A user's text for a table: long ones end in an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plain_name(name: str) -> str:
    """raw_effective_correlation -> "raw effective correlation"."""
    return name.replace("_", " ")


def control_text(f: Finding) -> str:
    """The control with its interval; "none" where the finding has no use for one."""
    return "none" if f.null is None and not f.control else with_interval(f.null, f.null_interval)


def table(found: Sequence[Finding], head: str, readings: bool = True, first: str = "what") -> str:
    """Findings as a table that scrolls in its own box. readings: with the sentence of each. head: a caption."""
    rows = []
    for f in found:
        where = f" <small>{escaped(f.where)}</small>" if f.where else ""
        unit = f"<br><small>{escaped(f.unit)}</small>" if f.unit else ""
        counts = "".join(f"<br>{count:,} {escaped(what)}" for what, count in f.counts.items())
        rows.append(
            f"<tr><th scope=row>{escaped(plain_name(f.name))}{where}{unit}</th>"
            f"<td>{value_cell(f)}</td>"
            f"<td>{escaped(control_text(f))}{_small(f.control)}</td>"
            f"<td>{f.n:,}<small>{counts}</small></td><td class=graded>{escaped(f.grade)}</td>"
            + (f'<td class="say">{escaped(f.reading)}</td>' if readings else "")
            + "</tr>"
        )
    columns = (first, "value (95 % interval)", "control", "texts", "grade", *(("in words",) if readings else ()))
    return boxed(head, columns, "".join(rows), "found")


def boxed(head: str, columns: Sequence[str], rows: str, look: str = "") -> str:
    """A table under a caption, in a box that scrolls sideways by itself. rows: HTML."""
    names = "".join(f'<th scope="col">{escaped(name)}</th>' for name in columns)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(head)}">'
        f"<table{f' class={chr(34)}{look}{chr(34)}' if look else ''}><caption>{escaped(head)}</caption>"
        f"<thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _small(text: str) -> str:
    return f"<br><small>{escaped(text)}</small>" if text else ""
