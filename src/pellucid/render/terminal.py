"""One attribution in the terminal."""

from importlib import import_module
from typing import TextIO

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from pellucid.attribution import Attribution
from pellucid.render.marks import (
    DIM,
    INK,
    LIGHT,
    PAPER,
    TOP,
    by_strength,
    cleaned,
    column_of,
    header_of,
    mark_of,
    names_of,
    note_of,
    number_text,
    pieces_of,
    ramp_of,
    scale_of,
    share_of,
    sum_line,
)


def show(a: Attribution, file: TextIO | None = None, width: int | None = None) -> None:
    """Print one attribution: header, coloured text, strongest tokens, and the sum. In a notebook, display it.

    Where colour is off (NO_COLOR, or no terminal), each token of the text is followed by its number instead.
    """
    console = Console(file=file, width=width, highlight=False, emoji=False, markup=False)
    if file is None and console.is_jupyter:
        import_module("IPython.display").display(a)
        return
    colour = console.color_system is not None and not console.no_color

    def line(text: str) -> None:
        console.print(Text(plain(text, console)))

    line(" | ".join(f"{name} {value}" for name, value in header_of(a)))
    if note_of(a):
        line(note_of(a))
    if a.scores.ndim == 2:
        _print_classes(a, console, colour)
    else:
        console.print(_terminal_text(a, console, colour))
        console.print(_strongest(a, console, colour))
    line(sum_line(a))


def plain(text: str, console: Console) -> str:
    """Text without what a terminal obeys, in characters that it can show."""
    return cleaned(text).encode(console.encoding, "replace").decode(console.encoding)


def _on(colour: str, ink: str = INK) -> Style:
    return Style(color=ink, bgcolor=colour)


def _terminal_text(a: Attribution, console: Console, colour: bool) -> Text | Padding:
    text = Text(style=_on(PAPER) if colour else "", overflow="fold")
    for piece, mark in pieces_of(a, scale_of(a)):
        shown = plain(piece, console)
        if mark is None:
            text.append(shown, Style(color=DIM, italic=True) if colour and shown.strip() else None)
        elif colour:
            text.append(shown, _on(mark.colour, DIM if mark.faint else INK))
        else:
            text.append(f"{shown}({mark.number})")
    text.rstrip()
    return Padding(text, (0, 1), style=_on(PAPER)) if colour else text


def _strongest(a: Attribution, console: Console, colour: bool) -> Table:
    scale, block = scale_of(a), "█" if console.encoding.startswith("utf") else "#"
    table = Table("strongest tokens", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(Text(plain(a.unit, console)), justify="right")
    table.add_column("")
    for i in by_strength(a.scores)[:TOP]:
        mark, share = mark_of(a, i, scale), share_of(float(a.scores[i]), scale)
        bar = block * round(abs(share) * 12)
        if a.signed:  # zero in the middle: to the left below it, to the right above it
            bar = f"{bar:>12}|" if share < 0 else f"{'':12}|{bar}"
        style = Style(color=LIGHT[ramp_of(share, a.signed)][-1]) if colour else ""
        word = Text(plain(mark.word, console), "dim" if mark.special else "", overflow="fold")
        table.add_row(word, mark.number, Text(bar, style))
    return table


def _print_classes(a: Attribution, console: Console, colour: bool) -> None:
    """Tokens by classes; as many tables as the width makes necessary."""
    names, scale = names_of(a), scale_of(a)
    rows = (("sum", a.scores.sum(0)), ("unallocated", a.unallocated), ("explained", a.explained))
    foot = [(k, np.broadcast_to(np.asarray(x, dtype=np.float64), len(names))) for k, x in rows if x is not None]
    size = max([scale, *(float(np.nan_to_num(np.abs(x)).max(initial=0)) for _, x in foot)])
    fit = max(1, (console.width - 18) // 12)
    for first in range(0, len(names), fit):
        at = range(first, min(first + fit, len(names)))
        columns = [column_of(a, c) for c in at]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("token", overflow="fold", max_width=max(16, console.width - 12 * len(at)))
        for c in at:
            table.add_column(Text(plain(names[c], console)), justify="right", overflow="fold")
        for i, token in enumerate(a.tokens):
            marks = [mark_of(one, i, scale) for one in columns]
            cells = [Text(m.number, _on(m.colour) if colour else "") for m in marks]
            table.add_row(Text(plain(marks[0].word, console), "dim" if token.special else ""), *cells)
        table.add_section()
        for name, row in foot:
            table.add_row(name, *(number_text(float(row[c]), size) for c in at))
        console.print(table)
