"""The findings of one audit in the terminal: every number beside its control, then what they mean and do not mean."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pellucid.finding import Finding, Findings, with_interval
from pellucid.render.terminal import plain
from pellucid.settings import shown

PIPED = 200  # columns, where there is no terminal to say how many
LABEL = 14  # the least width of the first column, whose words wrap
GRADE = 8  # about the width of a grade of several words where columns are narrow
GAP = 2
Rows = list[list[str]]


def show(found: Findings, file: TextIO | None = None, width: int | None = None) -> None:
    """Print findings as a table; then, for each name, what its finding on all texts means; then each limit once.

    The table is the first of these that fits the width and needs no more lines than there are findings: names by parts
    of the data, parts by names; otherwise a line for each finding. Where that does not fit either, there is no table.
    """
    console = Console(file=file, width=width, highlight=False, emoji=False, markup=False)
    if width is None and not (console.is_terminal or console.is_jupyter):
        console.width = PIPED
    _Page(found, console).print()


class _Page:
    """Findings by name and part of the data, on the way to a console."""

    def __init__(self, found: Findings, console: Console) -> None:
        self.found, self.console = found, console
        self.names = list(dict.fromkeys(f.name for f in found))
        self.parts = list(dict.fromkeys(f.where for f in found))
        self.at = {(f.name, f.where): f for f in reversed(found)}

    def print(self) -> None:
        """The header, the table, the readings, the limits."""
        self.line(self.header())
        if not self.found:
            self.line("There are no findings.")
            return
        self.line()
        self.body()
        self.line()
        controls = list(dict.fromkeys(f.control for f in self.found))
        for f in self.told():
            self.reading(f, control=len(controls) > 1)
        if len(controls) == 1 and controls[0]:
            self.line(f"Control: {controls[0]}")
        limits = dict.fromkeys(limit for f in self.found for limit in f.limits)
        if limits:
            self.line("What this does not say:", "bold")
        for limit in limits:
            self.line(limit, indent=2)

    def line(self, words: str = "", style: str = "", indent: int = 0) -> None:
        """A paragraph; nothing stands behind the end of its lines."""
        width = max(self.console.width - indent, 1)
        for text in Text(self.text(words), style).wrap(self.console, width, overflow="fold"):
            text.rstrip()
            text.pad_left(indent)
            self.console.print(text, soft_wrap=True)

    def text(self, words: str) -> str:
        return " ".join(plain(words, self.console).split())

    def name(self, name: str) -> str:
        """A name with its unit."""
        units = dict.fromkeys(f.unit for f in self.found if f.name == name and f.unit)
        return self.text(f"{name} ({', '.join(units)})" if units else name)

    def part(self, where: str) -> str:
        return self.text(where) or "all texts"

    def header(self) -> str:
        origin = self.found.origin
        told = [self.found.audit] + ([f"model {origin['model']}"] if "model" in origin else [])
        told += [_count(origin[key], key) for key in ("texts", "tokens") if key in origin]
        return " | ".join([*told, " ".join(f"{key}={shown(value)}" for key, value in self.found.params.items())])

    def body(self) -> None:
        """The table, in the layout that `show` describes."""
        if len(self.names) > 1 and len(self.parts) > 1 and len(self.at) == len(self.found):
            cells = {key: "\n".join([*_numbers(f), f"n={f.n}, {self.text(f.grade)}"]) for key, f in self.at.items()}
            by_name = [[self.name(n), *(cells.get((n, p), "-") for p in self.parts)] for n in self.names]
            by_part = [[self.part(p), *(cells.get((n, p), "-") for n in self.names)] for p in self.parts]
            for heads, rows in ((map(self.part, self.parts), by_name), (map(self.name, self.names), by_part)):
                header = ["", *heads]
                short = 3 * len(rows) <= len(self.found) + len(self.names)
                if short and self.fits(header, rows):
                    self.line("In each cell: value (95 % interval); its control; n texts and the grade.")
                    self.table(header, {"": rows})
                    return
        for narrow in (False, True):
            header, groups = self.details(narrow)
            if self.fits(header, [row for rows in groups.values() for row in rows]):
                self.table(header, groups)
                return
        for f in self.found:
            self.line(self.name(f.name) + (f", {self.part(f.where)}" if len(self.parts) > 1 else ""))
            self.line("; ".join([*_numbers(f), f"n={f.n}; {f.grade}"]), indent=2)

    def details(self, narrow: bool) -> tuple[list[str], dict[str, Rows]]:
        """A row for each finding, in groups by name if that is not the label; `narrow`: cells of several lines."""
        header = ["", "value", "95 % interval", "control", "texts", "grade"]
        groups: dict[str, Rows] = {}
        for name in self.names:
            label = self.name(name)
            for f in self.found:
                if f.name == name:
                    group, first = ("", label) if len(self.parts) == 1 else (label, self.part(f.where))
                    cells = [*_columns(f), self.text(f.grade)]
                    if narrow:
                        grade = textwrap.wrap(cells[-1], GRADE, break_long_words=False)
                        cells[2], cells[-1] = cells[2].replace(" (", "\n("), "\n".join(grade)
                    groups.setdefault(group, []).append([first, *cells])
        return header, groups

    def widths(self, header: Sequence[str], rows: Rows) -> list[int]:
        """Of each column: the first, whose words wrap, has what the others leave; words of the header wrap too."""
        least = []
        for k in range(len(header)):
            lines = [line for row in rows for line in row[k].split("\n")]
            least.append(max(map(cell_len, lines + header[k].split()), default=0))
        left = self.console.width - sum(least[1:]) - GAP * len(least[1:])
        return [min(least[0] + GAP, left), *least[1:]]

    def fits(self, header: Sequence[str], rows: Rows) -> bool:
        """Whether the first column has what it needs, or enough to wrap its words."""
        return self.widths(header, rows)[0] >= min(LABEL, max(cell_len(row[0]) for row in rows) + GAP)

    def table(self, header: Sequence[str], groups: dict[str, Rows]) -> None:
        """Groups of rows under one header, each after its name if it has one."""
        widths = self.widths(header, [row for rows in groups.values() for row in rows])

        def print_rows(rows: Rows, headed: bool) -> None:
            table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=headed)
            for head, width in zip(header, widths, strict=True):
                table.add_column(Text(head), width=width, overflow="fold")
            for label, *cells in rows:
                indent = 0 if headed else GAP
                name = Text(_folded(label, widths[0] - indent))
                table.add_row(Padding(name, (0, 0, 0, indent)), *map(Text, cells))
            self.console.print(table)

        if "" not in groups:
            print_rows([], headed=True)
        for group, rows in groups.items():
            if group:
                self.line(group, "bold")
            print_rows(rows, headed=not group)

    def told(self) -> Iterator[Finding]:
        """Of each name, the finding on all texts; where there is none on all, the first and the last (layers, say)."""
        for name in self.names:
            own = [f for f in self.found if f.name == name]
            whole = [f for f in own if not f.where]
            yield from whole[:1] or own[:1] + own[1:][-1:]

    def reading(self, f: Finding, control: bool) -> None:
        """What a finding means, its control, and what was counted."""
        place = f" ({self.part(f.where)})" if f.where else ""
        counted = [_count(f.n, "texts"), *(f"{count} {what}" for what, count in f.counts.items())]
        beside = f" Control: {f.control.rstrip('.')}." if control and f.control else ""
        self.line(f"{f.name}{place}: {f.grade}", "bold")
        self.line(f"{f.reading}{beside} Counted: {', '.join(counted)}.", indent=2)


def _count(n: int, things: str) -> str:
    return f"{n} {things if n != 1 else things.removesuffix('s')}"


def _numbers(f: Finding) -> list[str]:
    """The value, and its control, each with its interval."""
    return [with_interval(f.value, f.interval), f"control {_control(f)}"]


def _control(f: Finding) -> str:
    return "none" if f.null is None and not f.control else with_interval(f.null, f.null_interval)


def _columns(f: Finding) -> list[str]:
    value, _, interval = with_interval(f.value, f.interval).partition(" (")
    return [value, interval.rstrip(")") or "-", _control(f), str(f.n)]


def _folded(label: str, width: int) -> str:
    """A label whose long words may also be broken after an underscore."""
    lines: list[str] = []
    for word in label.split():
        while cell_len(word) > width and "_" in word[1:width]:
            at = word.rindex("_", 1, width) + 1
            lines, word = [*lines, word[:at]], word[at:]
        lines.append(word)
    return " ".join(lines)
