"""One attribution as an SVG picture."""

import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len, chop_cells

from pellucid.attribution import Attribution
from pellucid.render.marks import (
    DIM,
    INK,
    LIGHT,
    PAPER,
    Mark,
    Piece,
    cleaned,
    colour_of,
    column_of,
    drawn_of,
    escaped,
    from_right,
    header_of,
    note_of,
    number_text,
    pieces_of,
    ramp_of,
    scale_of,
    sum_line,
)

# SVG: monospace, 14 px, so that the width of text is the number of its cells

_WIDTH, _PAD, _CELL, _ROW = 720, 16, 8.4, 24
_COLUMNS = int((_WIDTH - 2 * _PAD) / _CELL)


def svg(a: Attribution) -> str:
    """The coloured text as a self-contained SVG picture on white, wrapped at 720 pixels; valid XML for any text."""
    scale = scale_of(a)
    out: list[str] = []
    y = _lines(out, " | ".join(f"{name} {value}" for name, value in header_of(a)), _PAD)
    y = _lines(out, note_of(a), y)
    if a.scores.ndim == 2:
        at, note = drawn_of(a)
        for one in (column_of(a, c) for c in at):
            y = _draw(out, one, scale, _lines(out, one.label, y + 10, "bold"))
            y = _lines(out, sum_line(one), y)
        y = _lines(out, note, y)
    else:
        y = _draw(out, a, scale, y + 6)
    y = _legend(out, a, scale, y + 8)
    y = _lines(out, sum_line(a), y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + _PAD}" '
        f'viewBox="0 0 {_WIDTH} {y + _PAD}" role="img"><title>{escaped(f"{a.method}: {a.label}")}</title>'
        f'<rect width="100%" height="100%" fill="{PAPER}"/><g fill="{INK}" font-family="DejaVu Sans Mono,Menlo,'
        f'Consolas,monospace" font-size="14" xml:space="preserve">\n{"".join(out)}</g></svg>\n'
    )


def _lines(out: list[str], text: str, y: int, weight: str = "normal") -> int:
    """Write small wrapped lines from y down; the y below them."""
    for line in textwrap.wrap(cleaned(text), 104):
        y += 18
        out.append(f'<text x="{_PAD}" y="{y - 5}" font-size="11" font-weight="{weight}">{html.escape(line)}</text>\n')
    return y


def _legend(out: list[str], a: Attribution, scale: float, y: int) -> int:
    if scale == 0:
        return _lines(out, "All scores are 0.", y)
    low = number_text(-scale, scale) if a.signed else "0"
    x = _PAD + 6.6 * len(low) + 8
    shares = [k / 12 for k in range(-12, 13)] if a.signed else [k / 24 for k in range(25)]
    for k, share in enumerate(shares):
        fill = colour_of(share, LIGHT[ramp_of(share, a.signed)])
        out.append(f'<rect x="{x + 6 * k:.1f}" y="{y + 4}" width="6.5" height="12" fill="{fill}"/>')
    zero = f'<text x="{x + 75:.1f}" y="{y + 14}" text-anchor="middle">0</text>' if a.signed else ""
    high = escaped(f"{number_text(scale, scale, a.signed)} {a.unit}")
    out.append(
        f'<rect x="{x:.1f}" y="{y + 4}" width="150" height="12" fill="none" stroke="#888"/><g font-size="11">'
        f'<text x="{_PAD}" y="{y + 14}">{low}</text>{zero}<text x="{x + 158:.1f}" y="{y + 14}">{high}</text></g>\n'
    )
    return y + 20


def _draw(out: list[str], a: Attribution, scale: float, y: int) -> int:
    """Draw the text from y down, from the right where it is written so; the y below it."""
    mirrored, row = from_right(a), -1
    for row, column, text, mark in _layout(pieces_of(a, scale)):
        width, top = max(1, cell_len(text)) * _CELL, y + row * _ROW
        x = _WIDTH - _PAD - column * _CELL - width if mirrored else _PAD + column * _CELL
        said, look = "", f' fill="{DIM}" font-style="italic"'
        if mark is not None:
            look = f' fill="{DIM}"' if mark.faint else ""
            said = (
                f"<title>{escaped(mark.word)}  {mark.number}</title>"
                f'<rect x="{x:.1f}" y="{top + 2}" width="{width:.1f}" height="20" rx="2" fill="{mark.colour}"/>'
            )
        middle = f'x="{x + width / 2:.1f}" y="{top + 17}" text-anchor="middle"'
        out.append(f"<g>{said}<text {middle}{look}>{html.escape(text)}</text></g>\n")
    return y + (row + 1) * _ROW


def _layout(pieces: Sequence[Piece]) -> Iterator[tuple[int, int, str, Mark | None]]:
    """(row, column, text, mark) of what is drawn; lines break at spaces, and inside a word only if it is too long."""
    atoms = [
        (part, mark)
        for text, mark in pieces
        for part in (re.findall(r"\n|[^\S\n]+|\S+", text) if mark is None else chop_cells(text, _COLUMNS))
    ]
    row = column = 0
    for space, run in groupby(atoms, key=lambda atom: atom[1] is None and atom[0].isspace()):
        word = [(text, mark, max(1, cell_len(text))) for text, mark in run]
        if space:
            for text, _, width in word:
                row, column = (row + 1, 0) if text == "\n" else (row, column + width if column else 0)
            continue
        if column and column + sum(width for *_, width in word) > _COLUMNS:
            row, column = row + 1, 0
        for text, mark, width in word:
            if column and column + width > _COLUMNS:
                row, column = row + 1, 0
            yield row, column, text, mark
            column += width
