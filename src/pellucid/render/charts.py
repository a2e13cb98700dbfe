"""Charts of measurements: curves over layers, heat maps over tokens, intervals per token.

All functions return a matplotlib Figure that no global state knows of, so nothing has to be closed. Labels are the
user's own texts: none of them is read as mathematics, and characters that XML forbids are replaced. Colours are Okabe
and Ito's for lines and ColorBrewer's RdBu and Greens for maps, which colour-blind people can tell apart; zero is white.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pellucid.render.marks import DIM, INK, PAPER, cleaned

Numbers = Sequence[float] | Sequence[float | None] | np.ndarray
Curve = tuple[Numbers, Numbers, Numbers | None, Numbers | None]
"""x, y, and the lower and upper ends of the intervals of y, or None; numbers that are not finite leave a gap."""

LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_BLUES = ("#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0")
_REDS = ("#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f")
_GREENS = ("#c7e9c0", "#74c476", "#41ab5d", "#006d2c", "#00441b")
DIVERGING: Colormap = LinearSegmentedColormap.from_list("pellucid_signed", [*_BLUES, PAPER, *_REDS], 257)
SEQUENTIAL: Colormap = LinearSegmentedColormap.from_list("pellucid_unsigned", [PAPER, *_GREENS])
MISSING = "#d9d9d9"  # grey is on neither scale

MOST_LABELS = 48  # on one axis; beyond, every second, third, ... is written
LONGEST_LABEL = 18
STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "figure.titlesize": 11,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.usetex": False,
    "text.color": INK,
}
SAVED: Any = {"svg.hashsalt": "pellucid", "svg.fonttype": "none", "text.usetex": False}
"""Settings for saving: the same figure gives the same file, and text stays text."""

P = ParamSpec("P")


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """The same look whatever the caller's own matplotlib settings are; these are put back."""

    @wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **options)

    return drawn


def label_of(text: str, longest: int = LONGEST_LABEL) -> str:
    """A user's text as one line that matplotlib prints as it stands: `$` starts no mathematics."""
    line = " ".join(cleaned(str(text)).split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return line.replace("$", r"\$")


def _floats(values: Numbers) -> np.ndarray:
    """Numbers as floats, None and infinities as NaN."""
    found = np.array([math.nan if v is None else v for v in values], dtype=float)
    return np.where(np.isfinite(found), found, np.nan)


def _said(ax: Axes, xlabel: str, ylabel: str, title: str) -> None:
    ax.set_xlabel(label_of(xlabel, 200))
    ax.set_ylabel(label_of(ylabel, 200))
    ax.set_title(label_of(title, 200), loc="left")


@_styled
def curves(
    series: Mapping[str, Curve],
    xlabel: str,
    ylabel: str,
    title: str,
    control: Mapping[str, Curve] | None = None,
    ylim: tuple[float, float] | None = None,
    width: float = 7.0,
) -> Figure:
    """Lines with a band for the interval; `control` has dashed lines, in the colour of the series of the same name.

    A control of another name is grey, and named in the legend. x axes of whole numbers have ticks at whole numbers
    only. width: inches.
    """
    figure = Figure(figsize=(width, 0.6 * width), layout="constrained")
    ax = figure.add_subplot()
    colours = {name: LINES[i % len(LINES)] for i, name in enumerate(series)}
    for i, (name, curve) in enumerate(series.items()):
        _curve(ax, curve, label_of(name, 60), colours[name], "-", "os^Dv<>"[(i // len(LINES) + i) % 7])
    for name, curve in (control or {}).items():
        _curve(ax, curve, "" if name in series else label_of(name, 60), colours.get(name, DIM), "--", "")
    if any(name in series for name in control or {}):
        ax.plot([], [], "--", color=DIM, linewidth=1.4, label="dashed: its control")
    every = [_floats(c[0]) for c in (*series.values(), *(control or {}).values())]
    if every and all((x[np.isfinite(x)] % 1 == 0).all() for x in every):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if ylim is not None:
        ax.set_ylim(*ylim)
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    ax.set_axisbelow(True)
    _said(ax, xlabel, ylabel, title)
    names = [name for line in ax.lines if (name := str(line.get_label())) and not name.startswith("_")]
    if len(names) > 1:
        room = 0.7 + 0.085 * max(map(len, names))  # inches of one entry at 10 points
        columns = max(1, min(3, int(width / room)))
        figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _curve(ax: Axes, curve: Curve, label: str, colour: str, style: str, marker: str) -> None:
    x, y = _floats(curve[0]), _floats(curve[1])
    label = f" {label}" if label.startswith("_") else label  # which matplotlib would leave out
    ax.plot(x, y, style, color=colour, label=label, marker=marker, markersize=5, linewidth=1.8 if marker else 1.4)
    if curve[2] is not None and curve[3] is not None:
        ax.fill_between(x, _floats(curve[2]), _floats(curve[3]), color=colour, alpha=0.18, linewidth=0)


@_styled
def maps(
    panels: Mapping[str, np.ndarray],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    xlabel: str = "",
    ylabel: str = "",
    unit: str = "",
    signed: bool | None = None,
    width: float = 8.0,
) -> Figure:
    """Heat maps [rows, columns] side by side, at most three in a line, on one colour scale with zero in white.

    signed: diverging colours from minus to plus the largest absolute value; False: one hue from zero up; None: signed
    if any value is below zero. Numbers that are not finite are grey. A label is 10 points where there is room, at
    least 6, and every second or third one is left out where even that would overlap. width: inches.
    """
    data = {name: np.asarray(values, dtype=float) for name, values in panels.items()}
    largest = max((float(np.abs(v[np.isfinite(v)]).max(initial=0.0)) for v in data.values()), default=0.0) or 1.0
    if signed is None:
        signed = any(bool((v < 0).any()) for v in data.values())
    lines, across = -(-len(data) // 3), min(len(data), 3)
    side = (width - 1.6) / max(across, 1)
    tall = side * min(2.0, max(0.5, len(rows) / max(len(columns), 1)))
    figure = Figure(figsize=(width, lines * (tall + 1.2) + 0.4), layout="constrained")
    axes = figure.subplots(lines, across, squeeze=False).ravel()
    colours = (DIVERGING if signed else SEQUENTIAL).with_extremes(bad=MISSING)
    for i, (ax, (name, values)) in enumerate(zip(axes, data.items(), strict=False)):
        image = ax.imshow(
            np.ma.masked_invalid(values),
            cmap=colours,
            vmin=-largest if signed else 0.0,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
        )
        first = i % across == 0
        _said(ax, xlabel, ylabel if first else "", name)
        _ticks(ax, "x", columns, 0.85 * side)
        _ticks(ax, "y", rows if first else (), tall)
    for ax in axes[len(data) :]:
        ax.set_visible(False)
    bar = figure.colorbar(image, ax=axes.tolist(), fraction=0.04, pad=0.02)
    bar.set_label(label_of(unit, 100))
    figure.suptitle(label_of(title, 200), x=0.01, ha="left")
    return figure


def _ticks(ax: Axes, axis: Literal["x", "y"], labels: Sequence[str], inches: float) -> None:
    """Labels along an axis of that length: smaller type, then fewer labels, where they would not fit."""
    points = 72 * inches / max(len(labels), 1) / 1.25
    size = min(10.0, max(6.0, points))
    step = max(-(-len(labels) // MOST_LABELS), math.ceil(size / points - 1e-9))
    at = range(0, len(labels), step)
    shown = [label_of(labels[i]) for i in at]
    if axis == "x":
        ax.set_xticks(list(at), shown, rotation=90, fontsize=size)
    else:
        ax.set_yticks(list(at), shown, fontsize=size)
    ax.tick_params(axis=axis, length=2)


Point = tuple[float, float | None, float | None, float | None]
"""x, y, and the ends of the interval of y."""
Level = tuple[float | None, float | None, float | None]
"""y and the ends of its interval."""


@_styled
def scatter(
    points: Mapping[str, Point],
    levels: Mapping[str, Level],
    xlabel: str,
    ylabel: str,
    title: str,
    width: float = 7.0,
) -> Figure:
    """Named points with intervals over x, on a scale of powers of ten; `levels` are dashed lines across, with bands.

    Names stand beside their points and are moved apart up and down where they would meet, with a thin line back.
    """
    figure = Figure(figsize=(width, 0.7 * width), layout="constrained")
    ax = figure.add_subplot()
    ax.set_xscale("log")
    xs = [x for x, *_ in points.values() if math.isfinite(x) and x > 0] or [1.0]
    ax.set_xlim(min(xs) / 1.5, max(xs) * 8)
    points = {k: (max(x, min(xs) / 1.4), y, low, high) for k, (x, y, low, high) in points.items() if math.isfinite(x)}
    for name, (y, low, high) in levels.items():
        if y is None:
            continue
        ax.axhline(y, linestyle="--", color=DIM, linewidth=1.4)
        if low is not None and high is not None:
            ax.axhspan(low, high, color=DIM, alpha=0.12, linewidth=0)
        ax.annotate(label_of(name, 40), (1, y), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=DIM)
    for i, (x, y, low, high) in enumerate(points.values()):
        if y is not None:
            ends = None if low is None or high is None else [[max(0.0, y - low)], [max(0.0, high - y)]]
            ax.errorbar([x], [y], ends, fmt="o", color=LINES[i % len(LINES)], capsize=3, markersize=5)
    _named(figure, ax, points)
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    ax.set_axisbelow(True)
    _said(ax, xlabel, ylabel, title)
    return figure


def _named(figure: Figure, ax: Axes, points: Mapping[str, Point]) -> None:
    """Names right of their points; among points of about one x, each at least a line above the one before."""
    seen = sorted((y, x, i, name) for i, (name, (x, y, *_)) in enumerate(points.items()) if y is not None)
    low, high = ax.get_ylim()
    line = (high - low) / 22
    placed: list[tuple[float, float]] = []  # log x, y of a name
    for y, x, i, name in seen:
        at = y
        while any(abs(math.log10(x) - other) < 0.75 and abs(at - where) < line for other, where in placed):
            at += line / 4
        placed.append((math.log10(x), at))
        ax.annotate(
            label_of(name, 30),
            (x, y),
            (x * 1.12, at),
            va="center",
            color=LINES[i % len(LINES)],
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6} if abs(at - y) > line / 8 else None,
        )


@_styled
def intervals(
    labels: Sequence[str],
    values: Numbers,
    low: Numbers,
    high: Numbers,
    title: str,
    xlabel: str,
    ylabel: str = "",
    width: float = 7.0,
) -> Figure:
    """One horizontal bar from low to high per label, the first on top, with a dot at the value.

    Nothing is drawn where a number is missing. The height grows with the labels, up to 20 inches. width: inches.
    """
    n = len(labels)
    tall = min(20.0, max(1.0, 0.2 * n))
    figure = Figure(figsize=(width, tall + 1.0), layout="constrained")
    ax = figure.add_subplot()
    at, v, a, z = np.arange(n), _floats(values), _floats(low), _floats(high)
    ax.hlines(at, a, z, color="#92c5de", linewidth=min(6.0, 40 * tall / max(n, 1)), zorder=2)
    for ends in (a, z):
        ax.plot(ends, at, "|", color=LINES[0], markersize=min(8.0, 50 * tall / max(n, 1)), zorder=3)
    ax.plot(v, at, "o", color=LINES[1], markersize=min(5.0, 30 * tall / max(n, 1)), zorder=4)
    ax.set_ylim(n - 0.5, -0.5)
    ax.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    _said(ax, xlabel, ylabel, title)
    _ticks(ax, "y", labels, tall)
    return figure
