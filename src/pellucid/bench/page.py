"""A comparison for people: terminal, Markdown, one HTML page, and faithfulness drawn over cost."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table

from pellucid.bench.asked import BOUND, Asked
from pellucid.bench.comparison import Cell, Comparison
from pellucid.bench.planted_models import CASES
from pellucid.bench.truth import MEASURES, Planted
from pellucid.registry import choose
from pellucid.render.marks import cleaned, escaped
from pellucid.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST, AS_GOOD, NO_BETTER = "★", "=", "~"
FEW = 20
"""Texts, below which a warning stands in the notes."""
WIDE = 160  # columns, where there is no terminal to say how many


def notes(c: Comparison) -> list[str]:
    """What the numbers are and are not, a sentence or two each."""
    more = f" of {c.texts}, as the time ran out; they are a random sample" if c.measured < c.texts else ""
    said = [
        f"{c.measured} texts{more}. Each cell: the mean over texts and its 95 % bootstrap interval over texts, and n "
        "where it is of fewer. Arrows say where better lies; rows are sorted by the first column, controls below.",
        f"{BEST} best of its column; {AS_GOOD} not told apart from the best; {NO_BETTER} not told apart from random "
        f"(paired permutation tests on the same texts, Holm over the methods of a column, 5 %). The best is chosen by "
        "the same texts, which favours it a little.",
        "Signed methods explain the predicted class against its strongest rival, unsigned ones the predicted class. "
        "passes: forward passes per text of the method alone, a backward pass counted as two.",
    ]
    if any(a.metric.kind == "faithfulness" for a in c.asked):
        said.append(
            "Faithfulness is what the model does when tokens are erased by the operator named beside the metric; texts "
            "that no one wrote come about, and another operator may order the methods otherwise."
        )
    if any(a.metric.kind == "plausibility" for a in c.asked):
        said.append("Plausibility is agreement with what people marked; it says nothing of the model's own reasons.")
    if c.measured < FEW:
        said.insert(
            1, f"{c.measured} texts are few: the intervals are rough, and tests can hardly tell anything apart."
        )
    aopcs = [a for a in c.asked if a.metric.name == "aopc" and any(t["name"] == BOUND for t in c.about.values())]
    for a in aopcs:
        if str(a.operator) not in c.bounded:
            said.append(f"{a.key} is not told as a share of greedy removal, which is not above random on these texts.")
    for operator, of in c.bounded.items():
        told = ", ".join(f"{label} {_estimate(of[label])}" for label in c.labels if not c.about[label]["control"])
        said.append(f"AOPC by {operator} between random (0) and greedy removal (1, no strict bound): {told}.")
    for label, texts in c.failures.items():
        first = min(texts)
        said.append(f"{label} failed on {len(texts)} of {c.measured} texts; on text {first + 1}: {texts[first]}")
    return said + list(c.left_out)


def _number(x: float | None) -> str:
    return "-" if x is None or math.isnan(x) else f"{x:.3f}"


def _estimate(e: Estimate) -> str:
    ends = "" if e.interval is None else f" [{e.interval[0]:.2f}, {e.interval[1]:.2f}]"
    return "-" if e.value is None else f"{e.value:.2f}{ends}"


def _mark(cell: Cell) -> str:
    return (BEST if cell.best else AS_GOOD if cell.like_best else "") + NO_BETTER * cell.like_random


def _interval(c: Comparison, cell: Cell) -> str:
    ends = "" if cell.low is None or cell.high is None else f"[{cell.low:.3f}, {cell.high:.3f}]"
    return ends if cell.n == c.measured else f"{ends} n = {cell.n}".strip()


def _small(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.2g}" if x < 10 else f"{x:.0f}"


def _name(c: Comparison, label: str) -> str:
    return f"({label})" if c.about[label]["control"] else label


def _header(c: Comparison) -> list[str]:
    return ["method", *(a.label for a in c.asked), "passes", "s / text"]


def _rows(c: Comparison) -> list[tuple[str, list[Cell], str, str]]:
    return [
        (label, [c.cells[a.key][label] for a in c.asked], _small(c.costs[label].passes), _small(c.costs[label].seconds))
        for label in c.labels
    ]


def show(c: Comparison, file: TextIO | None = None, width: int | None = None) -> None:
    """Print the table, intervals below their means; tables of more columns than fit are cut into several."""
    console = Console(file=file, width=width, highlight=False, emoji=False, markup=False)
    if width is None and not (console.is_terminal or console.is_jupyter):
        console.width = WIDE
    first = max(len("method"), *(len(label) + 2 for label in c.labels))
    room = max(1, (console.width - first - 20) // 18)
    for at in range(0, len(c.asked), room):
        some = c.asked[at : at + room]
        console.print(_table(c, some))
    for line in notes(c):
        console.print(cleaned(line))


def _table(c: Comparison, some: Sequence[Asked]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("method")
    for a in some:
        table.add_column(f"{a.metric.name} {'↑' if a.metric.arrow > 0 else '↓'}\n{a.operator or ''}", justify="right")
    table.add_column("passes", justify="right")
    table.add_column("s / text", justify="right")
    for label in c.labels:
        cells = [c.cells[a.key][label] for a in some]
        cost = c.costs[label]
        name = _name(c, label)
        numbers = [f"{_number(cell.mean)} {_mark(cell) or ' '}\n{_interval(c, cell)}" for cell in cells]
        table.add_row(name, *numbers, _small(cost.passes), _small(cost.seconds))
    return table


def markdown(c: Comparison) -> str:
    """A table in Markdown and the notes below it."""
    lines = [
        "| " + " | ".join(_header(c)) + " |",
        "|---" * len(_header(c)) + "|",
    ]
    for label, cells, passes, seconds in _rows(c):
        told = [" ".join(filter(None, (_number(x.mean), _interval(c, x), _mark(x)))) for x in cells]
        name = _name(c, label).replace("|", "\\|")
        lines.append(f"| {name} | {' | '.join(told)} | {passes} | {seconds} |")
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {cleaned(line)}" for line in notes(c)) + "\n"


def html_page(c: Comparison) -> str:
    """One self-contained page: figures of each first faithfulness metric, the table, the notes."""
    head = "".join(f"<th>{escaped(name).replace(':', '<br>')}</th>" for name in _header(c))
    body = []
    for label, cells, passes, seconds in _rows(c):
        told = "".join(
            f"<td{_look(x)}>{_number(x.mean)} {_mark(x)}<br><small>{_interval(c, x)}</small></td>" for x in cells
        )
        kind = ' class="control"' if c.about[label]["control"] else ""
        body.append(f"<tr{kind}><th>{escaped(label)}</th>{told}<td>{passes}</td><td>{seconds}</td></tr>\n")
    said = "".join(f"<li>{escaped(line)}</li>" for line in notes(c))
    name = str(c.settings["model"]).rstrip("/").rpartition("/")[2]
    title = f"Methods compared on {escaped(name)}, {c.measured} texts"
    drawn = svg(c.figure()).decode()
    picture = drawn[drawn.index("<svg") :]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title>\n<style>{_CSS}</style></head>\n<body><h1>{title}</h1>"
        f'<figure>{picture}</figure><div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>'
        f"{''.join(body)}</tbody></table></div>\n<ul>{said}</ul></body></html>\n"
    )


def _look(cell: Cell) -> str:
    kind = "best" if cell.best else "asgood" if cell.like_best else "random" if cell.like_random else ""
    return f' class="{kind}"' if kind else ""


_CSS = (
    "body{margin:0 auto;padding:1rem;max-width:72rem;color:#111;background:#fff;font:16px/1.5 system-ui,sans-serif}"
    "h1{font-size:1.4rem}figure{margin:0}svg{max-width:100%;height:auto}.wide{overflow-x:auto}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.25em .8em;text-align:right;"
    "white-space:nowrap;border-bottom:1px solid #ddd}th:first-child{text-align:left}small{color:#555}"
    ".best{font-weight:bold;background:#cfe8f7}.asgood{background:#e9f4fb}.random{color:#8a4b00}"
    ".control th,.control td{color:#555;font-style:italic}li{margin:.3em 0;max-width:50rem}"
)


def figure(c: Comparison, metric: str | None = None) -> "Figure":
    """A metric, with its intervals, over the passes that each method takes per text; random and the bound as lines."""
    from pellucid.render.charts import scatter

    key = choose("metric", metric or c.asked[0].key, [a.key for a in c.asked])
    asked = next(a for a in c.asked if a.key == key)
    column = c.cells[key]
    points = {
        label: (c.costs[label].passes, column[label].mean, column[label].low, column[label].high)
        for label in c.labels
        if not c.about[label]["control"] and column[label].mean is not None
    }
    lines = {
        f"{label}, a control": (cell.mean, cell.low, cell.high)
        for label, cell in column.items()
        if c.about[label]["control"] and cell.mean is not None
    }
    return scatter(
        points,
        lines,
        xlabel="forward passes per text, a backward pass counted as two",
        ylabel=f"{asked.label} ({asked.metric.unit})",
        title=f"{asked.label} over cost, n = {max((x.n for x in column.values()), default=0)}, 95 % intervals",
    )


def svg(drawn: "Figure") -> bytes:
    """A figure as SVG whose text stays text."""
    from pellucid.records import figure_svg

    return figure_svg(drawn)


def _planted(p: Planted, measure: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the least error over all cases first."""
    arrow = MEASURES[choose("measure", measure, list(MEASURES))]
    cells = {(c.method, c.case): c for c in p.cells()}
    cases = list(dict.fromkeys(case for _, case in cells))

    def rank(method: str) -> tuple[bool, float]:
        value = cells[method, cases[-1]].measures[measure].value
        return value is None, -arrow * (value or 0.0)

    rows = []
    for method in sorted(dict.fromkeys(m for m, _ in cells), key=rank):
        last = cells[method, cases[-1]]
        told = []
        for case in cases:
            e = cells[method, case].measures[measure]
            told.append(_estimate(e))
        name = f"({method})" if last.control else method
        passes = "-" if last.passes is None else _small(last.passes)
        rows.append([name if last.signed else f"{name} *", *told, passes])
    return ["method", *cases, "passes"], rows


def planted_notes(p: Planted, measure: str) -> list[str]:
    """What the numbers are, what is planted, and what failed."""
    what = {
        "l1": "the least sum of |c score - truth| over c >= 0, as a share of the sum of |truth|: 0 is exact but for "
        "the unit, 1 no better than zeros",
        "precision": "share of the truly relevant words among as many top words",
    }.get(measure, f"correlation ({measure.replace('_', ', ')}) with the truth")
    texts = len({(t.case, t.text) for t in p.trials})
    said = [
        f"{measure} {'↑' if MEASURES[measure] > 0 else '↓'}: {what}. Mean over texts and its 95 % interval; {texts} "
        "texts in all. The truth is the Shapley value of a closed form, [MASK] standing for absence.",
        "* unsigned: compared with the sizes of the truth; greedy and sequential_decompx, which rank from the "
        "strongest for to the strongest against, are not made for that. (in brackets): controls; exact_shapley asks "
        "all 1024 texts.",
        *(f"{name}: {CASES.get(name).asks}." for name in dict.fromkeys(t.case for t in p.trials)),
    ]
    for cell in p.cells():
        if cell.failed and cell.case == p.cells()[-1].case:
            said.append(f"{cell.method} failed on {cell.failed} texts: {cell.reason}")
    return said


def planted_markdown(p: Planted, measure: str) -> str:
    """A table in Markdown and the notes below it."""
    header, rows = _planted(p, measure)
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {cleaned(x)}" for x in planted_notes(p, measure)) + "\n"


def planted_show(p: Planted, file: TextIO | None = None) -> None:
    """Print the table and the notes."""
    console = Console(file=file, highlight=False, emoji=False, markup=False)
    if not (console.is_terminal or console.is_jupyter):
        console.width = WIDE
    header, rows = _planted(p, "l1")
    table = Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in planted_notes(p, "l1"):
        console.print(line)
