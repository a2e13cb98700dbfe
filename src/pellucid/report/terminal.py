"""A verdict in the terminal: the sentence, a line for each question, what the answers mean, and the limits."""

from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pellucid.finding import Finding, with_interval
from pellucid.render.terminal import plain
from pellucid.report.bars import control_text, plain_name
from pellucid.report.tones import tone_of, tone_of_answer
from pellucid.verdict.verdict import Answer, Verdict

PIPED = 200  # columns, where there is no terminal to say how many
STYLES = {"good": "bold green", "care": "bold yellow", "bad": "bold red", "open": "bold"}


def show(verdict: Verdict, file: TextIO | None = None, width: int | None = None) -> None:
    """Print the sentence, the answers with their deciding numbers and controls, what would change them, the limits."""
    console = Console(file=file, width=width, highlight=False, emoji=False, markup=False)
    if width is None and not (console.is_terminal or console.is_jupyter):
        console.width = PIPED
    _line(console, verdict.grade, STYLES[tone_of(verdict.grade)])
    _line(console, verdict.sentence)
    if verdict.instead and verdict.instead not in verdict.sentence:
        _line(console, f"Show instead: {verdict.instead}")
    if verdict.answers:
        _line(console, "")
        _table(console, verdict.answers)
    for a in verdict.answers:
        _line(console, "")
        _line(console, a.asked, "bold")
        _line(console, a.reading, indent=2)
        if a.change:
            _line(console, f"What would change it: {a.change}", indent=2)
    _list(console, "What this does not say:", list(dict.fromkeys(verdict.limits)))
    _list(console, "What was looked at:", [sampled(s.part, s.texts, s.of, s.why) for s in verdict.sample])


def sampled(part: str, texts: int, of: int, why: str) -> str:
    """ "erasure: 40 of 200 texts (the time was up)"."""
    size = f"all {of:,} texts" if texts == of else f"{texts:,} of {of:,} texts"
    return f"{plain_name(part)}: {size}{f' ({why})' if why else ''}"


def _table(console: Console, answers: tuple[Answer, ...]) -> None:
    """One row per question; narrow windows break a cell's words, and the control goes below the number."""
    wide = console.width >= 120
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("question", overflow="fold", ratio=3)
    table.add_column("grade", overflow="fold", ratio=2)
    for name in ("deciding number (95 % interval)", "control") if wide else ("number (95 %), control",):
        table.add_column(name, overflow="fold", ratio=3)
    table.add_column("n", justify="right", no_wrap=True)
    for a in answers:
        f = a.deciding[0] if a.deciding else None
        cells = _numbers(f) if wide else ["; control ".join(_numbers(f)) if f else "-"]
        grade = Text(plain(a.grade, console), STYLES[tone_of_answer(a)])
        table.add_row(_clean(a.asked, console), grade, *(_clean(c, console) for c in cells), str(f.n) if f else "-")
    console.print(table)


def _numbers(f: Finding | None) -> list[str]:
    if f is None:
        return ["-", "-"]
    return [f"{plain_name(f.name)} {with_interval(f.value, f.interval)}", control_text(f)]


def _list(console: Console, head: str, lines: list[str]) -> None:
    if lines:
        _line(console, "")
        _line(console, head, "bold")
    for line in lines:
        _line(console, line, indent=2)


def _clean(words: str, console: Console) -> Text:
    return Text(" ".join(plain(words, console).split()))


def _line(console: Console, words: str, style: str = "", indent: int = 0) -> None:
    """A paragraph; nothing stands behind the end of its lines."""
    text = _clean(words, console)
    text.stylize(style)
    for line in text.wrap(console, max(console.width - indent, 1), overflow="fold"):
        line.rstrip()
        line.pad_left(indent)
        console.print(line, soft_wrap=True)
