"""One attribution for a person to read: terminal text, an HTML fragment, a whole page, an SVG picture.

Colours are ColorBrewer's RdBu (colour-blind-safe; blue below zero, orange-red above), cut before its darkest steps so
that dark text keeps a contrast of 4.5 (WCAG AA), and its single-hue Greens for scores without a sign. Zero is white,
and the scale is symmetric: its ends are plus and minus the largest absolute score of the attribution.
"""

import html
import math
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import groupby
from typing import Any, TextIO

import numpy as np
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from pellucid.types import Attribution, Token

_INK, _DIM, _PAPER = "#111111", "#595959", "#ffffff"
_LIGHT = {
    "n": (_PAPER, "#d1e5f0", "#92c5de", "#4393c3"),
    "p": (_PAPER, "#fddbc7", "#f4a582", "#d6604d"),
    "u": (_PAPER, "#c7e9c0", "#74c476", "#41ab5d"),
}
_NIGHT = "#16181d"  # the paper of dark mode; the same scheme's dark ends carry light text
_DARK = {"n": (_NIGHT, "#2166ac"), "p": (_NIGHT, "#b2182b"), "u": (_NIGHT, "#006d2c")}
_LEVELS = 12  # steps on each side of zero in a page, where colours are classes and not written into each token
_TOP = 8  # tokens in the terminal's table
_DRAWN = 8  # classes drawn in HTML and SVG; a line says so where there are more
_UNALLOCATED = "unallocated (biases, positions no token owns)"
_PER_TEXT = ("seconds", "forwards", "backwards", "truncated", "windows")  # of origin: what differs between texts


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
        console.print(Text(_plain(text, console)))

    line(" | ".join(f"{name} {value}" for name, value in _header(a)))
    if _note(a):
        line(_note(a))
    if a.scores.ndim == 2:
        _print_classes(a, console, colour)
    else:
        console.print(_terminal_text(a, console, colour))
        console.print(_strongest(a, console, colour))
    line(_sums(a))


def html_fragment(a: Attribution) -> str:
    """The attribution as one `<div>` for a notebook: every style inline, own colours, no script, no style sheet."""
    return f"<div{_attr(True, 'pellucid')}>{_body(a, inline=True)}</div>"


def html_page(attributions: Sequence[Attribution], title: str = "Pellucid", lead: str = "") -> str:
    """A self-contained page that lists attributions; it loads nothing and runs nothing. Same input, same bytes."""
    made: dict[str, int] = {}
    articles = []
    for i, a in enumerate(attributions, 1):
        origin = _origin(a, i, made)
        number = f"<h2>Text {i}</h2>" if len(attributions) > 1 else ""
        articles.append(f'<article class="pellucid">{number}{_body(a, inline=False)}{origin}</article>\n')
    signed = any(a.signed for a in attributions)
    guide = _guide(signed, any(not a.signed for a in attributions)) if articles else "There is nothing to show."
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_esc(title)}</title>\n<style>{_css()}</style></head>\n<body><h1>{_esc(title)}</h1>"
        + (f"<p>{_esc(lead)}</p>" if lead else "")
        + f'<p class="guide">{guide}</p>\n{"".join(articles)}</body></html>\n'
    )


# Words and numbers that all renderings share


def _names(a: Attribution) -> tuple[str, ...]:
    return a.labels or tuple(str(c) for c in range(a.scores.shape[1]))


def _column(a: Attribution, c: int) -> Attribution:
    """One class of an attribution of all classes, as if it had been the target."""

    def pick(x: Any) -> float | None:
        return None if x is None else float(x if np.ndim(x) == 0 else x[c])

    return replace(
        a, scores=a.scores[:, c], unallocated=pick(a.unallocated), explained=pick(a.explained), target=c,
        label=_names(a)[c],
    )  # fmt: skip


def _scale(a: Attribution) -> float:
    """The largest absolute score that is a finite number; 0 if there is none."""
    finite = np.abs(a.scores[np.isfinite(a.scores)])
    return float(finite.max()) if finite.size else 0.0


def _number(x: float, scale: float, signed: bool = True) -> str:
    """x with as many digits as numbers of size `scale` need; what rounds to zero has no sign."""
    if not math.isfinite(x):
        return str(x)
    form = ".3f" if 0.1 <= scale < 1e5 or scale == 0 else ".5f" if 1e-3 <= scale < 0.1 else ".2e"
    shown = format(x, f"+{form}" if signed else form)
    return format(0.0, form) if float(shown) == 0 else shown


def _small(x: float) -> str:
    """A remainder, to one digit: 1e-7, not 1.1920929e-07."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    if abs(x) >= 1e-3:
        return _number(x, 1.0)
    digit, power = f"{x:.0e}".split("e")
    return f"{digit}e{int(power)}"


def _value(x: Any) -> str:
    """A value of `params` or `origin` in words."""
    if isinstance(x, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in x.items())
    if isinstance(x, list | tuple):
        return ", ".join(_value(v) for v in x)
    if isinstance(x, bool) or x is None:
        return {True: "yes", False: "no", None: "none"}[x]
    return f"{x:.3g}" if isinstance(x, float) else str(x)


def _header(a: Attribution) -> list[tuple[str, str]]:
    p = a.probability
    sure = "" if p is None else "> 0.999" if p > 0.9995 else "< 0.001" if p < 0.0005 else f"{p:.3f}"
    prediction = f"{a.prediction} (probability {sure})" if sure else a.prediction
    target = "all classes" if a.scores.ndim == 2 else a.label
    return [("prediction", prediction), ("target", target), ("method", a.method), ("unit", a.unit)]


def _note(a: Attribution) -> str:
    """That the text was cut or read in windows, if it was."""
    said = "; ".join(f"{k}: {_value(a.origin[k])}" for k in ("truncated", "windows") if a.origin.get(k))
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _sums(a: Attribution) -> str:
    """What the scores add up to, or that they do not."""
    many = a.scores.ndim == 2
    gap = None if a.gap is None else float(np.abs(a.gap).max()) if many else float(a.gap)
    if a.complete and many:
        most = "" if gap is None else f", largest gap {_small(gap)}"
        return f"explained = tokens + {_UNALLOCATED} for every class{most}"
    what = "logits" if many else "difference of the two logits" if isinstance(a.target, tuple) else "logit"
    if not a.complete and a.unit != "logit":
        return f"The scores ({a.unit}) do not add up to the {what}."
    if not a.complete and (many or gap is None):
        most = "" if gap is None else f": up to {abs(gap):.3g} of one is in no score"
        return f"The scores do not add up to the {what}{most}."
    total = float(a.scores.sum())
    known = [float(x) for x in (total, a.explained, a.unallocated) if x is not None]
    size = max((abs(x) for x in known if math.isfinite(x)), default=0.0)
    tokens = f"tokens {_number(total, size)}"
    if a.unallocated is not None:
        tokens += f" + {_UNALLOCATED} {_number(float(a.unallocated), size)}"
    whole = "" if a.explained is None else f"explained {_number(float(a.explained), size)}"
    if a.complete:
        return (f"{whole} = " if whole else "") + tokens + ("" if gap is None else f", gap {_small(gap)}")
    return f"The scores do not add up to the {what}: {whole}, {tokens}; {_small(gap or 0.0)} is in no score."


def _by_strength(scores: np.ndarray) -> list[int]:
    return [int(i) for i in np.argsort(-np.nan_to_num(np.abs(scores)), kind="stable")]


# The text in reading order, each token with its number and colour


@dataclass(frozen=True)
class _Mark:
    """How one token looks. `level` names its colour in a style sheet; `faint`: written in grey, as special tokens are,
    except on colours too strong for grey to be read."""

    word: str
    number: str
    colour: str
    level: str
    special: bool
    faint: bool


_Piece = tuple[str, _Mark | None]


def _mark(a: Attribution, i: int, scale: float) -> _Mark:
    x, special = float(a.scores[i]), a.tokens[i].special
    share = _share(x, scale)
    ramp, step = _ramp(share, a.signed), round(abs(share) * _LEVELS)
    level = f"{ramp}{step}" if step else ""
    colour = _colour(share, _LIGHT[ramp])
    return _Mark(_word(a, i), _number(x, scale, a.signed), colour, level, special, special and abs(share) < 0.4)


def _pieces(a: Attribution, scale: float) -> list[_Piece]:
    """The text with its own spacing; tokens without a place in it (special ones, or no offsets) between spaces.

    A token over characters that another token has shown already (the bytes of an emoji) is shown as a middle dot.
    """
    texts = () if a.text is None else (a.text,) if isinstance(a.text, str) else a.text
    places = [_place(t, texts) for t in a.tokens]
    last = {place[0]: i for i, place in enumerate(places) if place}
    done = [0] * len(texts)
    out: list[_Piece] = []
    for i, place in enumerate(places):
        mark = _mark(a, i, scale)
        if place is None:
            space = [] if not out or out[-1][0][-1:].isspace() else [(" ", None)]
            out += [*space, (_clean(a.tokens[i].text) or "·", mark), (" ", None)]
            continue
        s, start, end = place
        if s and not done[s] and out:
            out.append(("\n", None))
        shown = _clean(texts[s][max(start, done[s]) : end]) or "·"
        bare = shown.lstrip() or shown
        out += [(_unread(texts[s][done[s] : start]), None), (shown[: len(shown) - len(bare)], None)]
        out.append((bare.replace("\n", "↵"), mark))
        done[s] = max(done[s], end)
        if last[s] == i:
            out.append((_unread(texts[s][end:].rstrip()), None))
    return [(text, mark) for text, mark in out if text]


def _place(t: Token, texts: Sequence[str]) -> tuple[int, int, int] | None:
    """Text number, start and end of a token; None where it stands in no text."""
    s = t.sequence or 0
    if t.special or t.start is None or t.end is None or s >= len(texts) or not texts[s][t.start : t.end]:
        return None
    return s, t.start, t.end


def _from_right(a: Attribution) -> bool:
    """Whether the text is written from the right: by its first letter that has a direction."""
    text = "".join(t.text for t in a.tokens if not t.special) if a.text is None else "".join(a.text)
    return next((k != "L" for k in map(unicodedata.bidirectional, text) if k in ("L", "R", "AL")), False)


def _unread(text: str) -> str:
    """Text between or after the tokens: mostly spaces, or what truncation left out, of which the beginning is shown."""
    return _clean(text if len(text) <= 200 else f"{text[:100]} … ({len(text) - 100} more characters) ")


def _clean(text: str) -> str:
    """Without what XML forbids, a terminal obeys or reverses neighbouring text: each such character becomes U+FFFD."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    allowed = "\t\n\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff"
    return re.sub(f"[^{allowed}]", "\ufffd", text)


def _word(a: Attribution, i: int) -> str:
    """Token i on its own, for tables and tooltips."""
    t = a.tokens[i]
    inside = isinstance(a.text, str) or (a.text is not None and (t.sequence or 0) < len(a.text))
    word = (a.surface(t) if inside else "") or t.text
    visible = any(ch.isprintable() and not ch.isspace() for ch in word)
    return " ".join(_clean(word).split()) if visible else repr(word)


# Colours


def _share(x: float, scale: float) -> float:
    """x on the colour scale, -1 to 1; 0 where there is no number or no scale."""
    return 0.0 if math.isnan(x) or scale == 0 else max(-1.0, min(1.0, x / scale))


def _ramp(share: float, signed: bool) -> str:
    return "u" if not signed else "n" if share < 0 else "p"


def _colour(share: float, stops: Sequence[str]) -> str:
    """The colour at |share| along evenly spaced stops; the first stop, exactly, at 0."""
    at = abs(share) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    low, high = ([int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in stops[i : i + 2])
    return "#" + "".join(f"{round(x + (y - x) * (at - i)):02x}" for x, y in zip(low, high, strict=True))


# Terminal


def _plain(text: str, console: Console) -> str:
    return _clean(text).encode(console.encoding, "replace").decode(console.encoding)


def _on(colour: str, ink: str = _INK) -> Style:
    return Style(color=ink, bgcolor=colour)


def _terminal_text(a: Attribution, console: Console, colour: bool) -> Text | Padding:
    text = Text(style=_on(_PAPER) if colour else "", overflow="fold")
    for piece, mark in _pieces(a, _scale(a)):
        shown = _plain(piece, console)
        if mark is None:
            text.append(shown, Style(color=_DIM, italic=True) if colour and shown.strip() else None)
        elif colour:
            text.append(shown, _on(mark.colour, _DIM if mark.faint else _INK))
        else:
            text.append(f"{shown}({mark.number})")
    text.rstrip()
    return Padding(text, (0, 1), style=_on(_PAPER)) if colour else text


def _strongest(a: Attribution, console: Console, colour: bool) -> Table:
    scale, block = _scale(a), "█" if console.encoding.startswith("utf") else "#"
    table = Table("strongest tokens", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(Text(_plain(a.unit, console)), justify="right")
    table.add_column("")
    for i in _by_strength(a.scores)[:_TOP]:
        mark, share = _mark(a, i, scale), _share(float(a.scores[i]), scale)
        bar = block * round(abs(share) * 12)
        if a.signed:  # zero in the middle: to the left below it, to the right above it
            bar = f"{bar:>12}|" if share < 0 else f"{'':12}|{bar}"
        style = Style(color=_LIGHT[_ramp(share, a.signed)][-1]) if colour else ""
        word = Text(_plain(mark.word, console), "dim" if mark.special else "", overflow="fold")
        table.add_row(word, mark.number, Text(bar, style))
    return table


def _print_classes(a: Attribution, console: Console, colour: bool) -> None:
    """Tokens by classes; as many tables as the width makes necessary."""
    names, scale = _names(a), _scale(a)
    rows = (("sum", a.scores.sum(0)), ("unallocated", a.unallocated), ("explained", a.explained))
    foot = [(k, np.broadcast_to(np.asarray(x, dtype=np.float64), len(names))) for k, x in rows if x is not None]
    size = max([scale, *(float(np.nan_to_num(np.abs(x)).max(initial=0)) for _, x in foot)])
    fit = max(1, (console.width - 18) // 12)
    for first in range(0, len(names), fit):
        at = range(first, min(first + fit, len(names)))
        columns = [_column(a, c) for c in at]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("token", overflow="fold", max_width=max(16, console.width - 12 * len(at)))
        for c in at:
            table.add_column(Text(_plain(names[c], console)), justify="right", overflow="fold")
        for i, token in enumerate(a.tokens):
            marks = [_mark(one, i, scale) for one in columns]
            cells = [Text(m.number, _on(m.colour) if colour else "") for m in marks]
            table.add_row(Text(_plain(marks[0].word, console), "dim" if token.special else ""), *cells)
        table.add_section()
        for name, row in foot:
            table.add_row(name, *(_number(float(row[c]), size) for c in at))
        console.print(table)


# HTML: one table of looks, written into each element of a fragment and once into the style sheet of a page

_LOOKS = {
    "pellucid": f"color:{_INK};background:{_PAPER};border:1px solid #d0d0d0;border-radius:6px;padding:.8em 1em;"
    "margin:.4em 0;max-width:46em;font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere",
    "head": "margin:0 0 .5em;font-size:.87em",
    "text": "margin:.4em 0;white-space:pre-wrap;line-height:1.85",
    "sum": "margin:.4em 0;font-size:.87em;font-variant-numeric:tabular-nums",
    "key": "margin:.4em 0;font-size:.8em;font-variant-numeric:tabular-nums",
    "bar": "display:inline-block;width:10em;margin:0 .5em;text-align:center;border:1px solid #d0d0d0",
    "nums": "font-size:1em;border-collapse:collapse;font-variant-numeric:tabular-nums;text-align:right",
    "s": "font-size:.8em",
    "d": f"color:{_DIM}",
    "x": f"color:{_DIM};font-style:italic",
}


def _esc(text: str) -> str:
    return html.escape(_clean(text))


def _attr(inline: bool, *names: str, background: str = "") -> str:
    """The looks as a style attribute (fragment) or as classes (page; there a background is the name of a level)."""
    if not inline:
        said = " ".join(n for n in (*names, background) if n)
        return f' class="{said}"' if said else ""
    styles = [_LOOKS[n] for n in names] + ([f"background:{background}"] if background else [])
    return f' style="{";".join(styles)}"' if styles else ""


def _body(a: Attribution, inline: bool) -> str:
    scale, small = _scale(a), _attr(inline, "sum")
    params = _esc(", ".join(f"{k}={_value(v)}" for k, v in a.params.items()))
    items = [f"{k} <b><bdi>{_esc(v)}</bdi></b>" for k, v in _header(a)]
    items[2] = f'<span title="{params}">{items[2]}</span>' if params else items[2]
    out = [f"<p{_attr(inline, 'head')}>{' · '.join(items)}</p>"]
    out += [f"<p{small}>{_esc(_note(a))}</p>"] if _note(a) else []
    if a.scores.ndim == 1:
        return "\n".join([*out, _text_html(a, scale, inline), _key(a, scale, inline), _numbers_html(a, scale, inline)])
    at, note = _drawn(a)
    for one in (_column(a, c) for c in at):
        is_open = " open" if len(at) <= 4 or one.label == a.prediction else ""
        name = f"<summary{_attr(inline, 'head')}><b><bdi>{_esc(one.label)}</bdi></b></summary>"
        text, numbers = _text_html(one, scale, inline), _numbers_html(one, scale, inline)
        out.append(f"<details{is_open}>{name}{text}{numbers}</details>")
    out += [_key(a, scale, inline), *(f"<p{small}>{_esc(line)}</p>" for line in (_sums(a), note) if line)]
    return "\n".join(out)


def _drawn(a: Attribution) -> tuple[list[int], str]:
    """The classes to draw, in their own order, and a sentence if they are not all."""
    count = a.scores.shape[1]
    if count <= _DRAWN:
        return list(range(count)), ""
    size = a.scores.sum(0) if a.explained is None else np.asarray(a.explained)
    chosen = sorted(np.argsort(-np.nan_to_num(size), kind="stable")[:_DRAWN].tolist())
    return chosen, f"{_DRAWN} of {count} classes are drawn, those with the largest outputs; to_dataframe() holds all."


def _text_html(a: Attribution, scale: float, inline: bool) -> str:
    out = []
    for text, mark in _pieces(a, scale):
        shown = html.escape(text)
        if mark is None:
            look = _attr(inline, "x")
            out.append(f'<span{look} title="not read by the model">{shown}</span>' if text.strip() else shown)
            continue
        looks = [name for name, on in (("s", mark.special), ("d", mark.faint)) if on]
        look = _attr(inline, *looks, background=mark.colour if inline else mark.level)
        # in a page, a tap or click shows the number at the foot of the window; the keyboard has the table of numbers
        focus = "" if inline else " tabindex=-1"
        out.append(f'<span{look}{focus} title="{_esc(f"{mark.word}  {mark.number} ({a.unit})")}">{shown}</span>')
    return f"<p{_attr(inline, 'text')}{' dir=rtl' if _from_right(a) else ''}>{''.join(out).strip()}</p>"


def _gradient(signed: bool, ramps: Mapping[str, Sequence[str]]) -> str:
    stops = [*reversed(ramps["n"]), *ramps["p"][1:]] if signed else ramps["u"]
    return f"linear-gradient(to right,{','.join(stops)})"


def _key(a: Attribution, scale: float, inline: bool) -> str:
    if scale == 0:
        return f"<div{_attr(inline, 'key')}>All scores are 0.</div>"
    paint = _gradient(a.signed, _LIGHT) if inline else "signed" if a.signed else "single"
    low, middle = (_number(-scale, scale), "0") if a.signed else ("0", "&nbsp;")
    bar = f"<span{_attr(inline, 'bar', background=paint)}>{middle}</span>"
    return f"<div{_attr(inline, 'key')}>{low}{bar}{_number(scale, scale, a.signed)} {_esc(a.unit)}</div>"


def _numbers_html(a: Attribution, scale: float, inline: bool) -> str:
    """The sum, and behind a summary all numbers, the strongest first."""
    marks = ((i, _mark(a, i, scale)) for i in _by_strength(a.scores))
    rows = "".join(f"<tr><td>{_esc(mark.word)}<td>{mark.number}<td>{i + 1}" for i, mark in marks)
    return (
        f"<p{_attr(inline, 'sum')}>{_esc(_sums(a))}</p><details{_attr(inline, 'key')}><summary>all numbers</summary>"
        f"<table{_attr(inline, 'nums')}><tr><th>token<th>{_esc(a.unit)}<th>place{rows}</table></details>"
    )


def _origin(a: Attribution, i: int, made: dict[str, int]) -> str:
    """How attribution i was made; where an earlier one says the same, only its number and what differs."""
    facts = {"method": a.method, **{f"{k}": v for k, v in a.params.items()}}
    facts |= {k: v for k, v in a.origin.items() if k not in _PER_TEXT}
    rows = "".join(f"<tr><td>{_esc(str(k))}<td>{_esc(_value(v))}" for k, v in facts.items())
    own = "; ".join(f"{k} {_value(a.origin[k])}" for k in _PER_TEXT[:3] if k in a.origin)
    first = made.setdefault(rows, i)
    if first != i:
        return f'<p class="key">made as text {first}{f"; {_esc(own)}" if own else ""}</p>'
    own = f"<tr><td>spent<td>{_esc(own)}" if own else ""
    table = f'<table class="nums how">{rows}{own}</table>'
    return f'<details class="key"><summary>how this was made</summary>{table}</details>'


def _guide(signed: bool, unsigned: bool) -> str:
    return (
        "<b>How to read this.</b> Each token is coloured by its score; no colour is zero. "
        + ("Orange-red raises the explained output, blue lowers it. " if signed else "")
        + ("Green marks scores without a sign. " if unsigned else "")
        + "The strongest colour is the largest score of that text: to compare texts, compare numbers. Point at a "
        "token, or tap it, for its number. Scores tell what this model computed, not whether it is right."
    )


def _css() -> str:
    rules = "".join(f".{name}{{{look}}}" for name, look in _LOOKS.items())

    def levels(ramps: Mapping[str, Sequence[str]]) -> str:
        steps = ((r, k, _colour(k / _LEVELS, stops)) for r, stops in ramps.items() for k in range(1, _LEVELS + 1))
        rule = "".join(f".{r}{k}{{background:{colour}}}" for r, k, colour in steps)
        return f"{rule}.signed{{background:{_gradient(True, ramps)}}}.single{{background:{_gradient(False, ramps)}}}"

    return (
        ":root{color-scheme:light dark}body{margin:0 auto;padding:1rem;max-width:46rem;color:#111;background:#f6f6f6;"
        "font:16px/1.5 system-ui,sans-serif;-webkit-text-size-adjust:100%}h1{font-size:1.4rem;margin:.2rem 0}"
        "h2{font-size:1rem;margin:0 0 .3rem}article.pellucid{margin:1rem 0}.guide{font-size:.9rem}"
        f"{rules}.nums td,.nums th{{padding:0 1.2em 0 0}}.nums :is(td,th):first-child{{text-align:left}}"
        "summary{cursor:pointer}.how td{text-align:left;vertical-align:top}"
        ".text span{border-radius:.2em;padding:.12em 0}.text span:hover,.text span:focus{outline:2px solid}"
        ".text span:focus::after{content:attr(title);position:fixed;inset:auto 0 0;padding:.6em;text-align:center;"
        f"font-size:1rem;font-style:normal;color:#fff;background:#333;white-space:pre-wrap}}{levels(_LIGHT)}"
        "@media screen and (prefers-color-scheme:dark){body{color:#eee;background:#0c0d10}"
        f".pellucid{{color:#eee;background:{_NIGHT};border-color:#3a3d44}}.d,.x{{color:#b0b0b0}}{levels(_DARK)}}}"
        "@media print{body{background:#fff;max-width:none}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}"
        "article{break-inside:avoid}details.key{display:none}}"
    )


# SVG: monospace, 14 px, so that the width of text is the number of its cells

_WIDTH, _PAD, _CELL, _ROW = 720, 16, 8.4, 24
_COLUMNS = int((_WIDTH - 2 * _PAD) / _CELL)


def svg(a: Attribution) -> str:
    """The coloured text as a self-contained SVG picture on white, wrapped at 720 pixels; valid XML for any text."""
    scale = _scale(a)
    out: list[str] = []
    y = _lines(out, " | ".join(f"{name} {value}" for name, value in _header(a)), _PAD)
    y = _lines(out, _note(a), y)
    if a.scores.ndim == 2:
        at, note = _drawn(a)
        for one in (_column(a, c) for c in at):
            y = _draw(out, one, scale, _lines(out, one.label, y + 10, "bold"))
            y = _lines(out, _sums(one), y)
        y = _lines(out, note, y)
    else:
        y = _draw(out, a, scale, y + 6)
    y = _legend(out, a, scale, y + 8)
    y = _lines(out, _sums(a), y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + _PAD}" '
        f'viewBox="0 0 {_WIDTH} {y + _PAD}" role="img"><title>{_esc(f"{a.method}: {a.label}")}</title>'
        f'<rect width="100%" height="100%" fill="{_PAPER}"/><g fill="{_INK}" font-family="DejaVu Sans Mono,Menlo,'
        f'Consolas,monospace" font-size="14" xml:space="preserve">\n{"".join(out)}</g></svg>\n'
    )


def _lines(out: list[str], text: str, y: int, weight: str = "normal") -> int:
    """Write small wrapped lines from y down; the y below them."""
    for line in textwrap.wrap(_clean(text), 104):
        y += 18
        out.append(f'<text x="{_PAD}" y="{y - 5}" font-size="11" font-weight="{weight}">{html.escape(line)}</text>\n')
    return y


def _legend(out: list[str], a: Attribution, scale: float, y: int) -> int:
    if scale == 0:
        return _lines(out, "All scores are 0.", y)
    low = _number(-scale, scale) if a.signed else "0"
    x = _PAD + 6.6 * len(low) + 8
    shares = [k / 12 for k in range(-12, 13)] if a.signed else [k / 24 for k in range(25)]
    for k, share in enumerate(shares):
        fill = _colour(share, _LIGHT[_ramp(share, a.signed)])
        out.append(f'<rect x="{x + 6 * k:.1f}" y="{y + 4}" width="6.5" height="12" fill="{fill}"/>')
    zero = f'<text x="{x + 75:.1f}" y="{y + 14}" text-anchor="middle">0</text>' if a.signed else ""
    high = _esc(f"{_number(scale, scale, a.signed)} {a.unit}")
    out.append(
        f'<rect x="{x:.1f}" y="{y + 4}" width="150" height="12" fill="none" stroke="#888"/><g font-size="11">'
        f'<text x="{_PAD}" y="{y + 14}">{low}</text>{zero}<text x="{x + 158:.1f}" y="{y + 14}">{high}</text></g>\n'
    )
    return y + 20


def _draw(out: list[str], a: Attribution, scale: float, y: int) -> int:
    """Draw the text from y down, from the right where it is written so; the y below it."""
    from_right, row = _from_right(a), -1
    for row, column, text, mark in _layout(_pieces(a, scale)):
        width, top = max(1, cell_len(text)) * _CELL, y + row * _ROW
        x = _WIDTH - _PAD - column * _CELL - width if from_right else _PAD + column * _CELL
        said, look = "", f' fill="{_DIM}" font-style="italic"'
        if mark is not None:
            look = f' fill="{_DIM}"' if mark.faint else ""
            said = (
                f"<title>{_esc(mark.word)}  {mark.number}</title>"
                f'<rect x="{x:.1f}" y="{top + 2}" width="{width:.1f}" height="20" rx="2" fill="{mark.colour}"/>'
            )
        middle = f'x="{x + width / 2:.1f}" y="{top + 17}" text-anchor="middle"'
        out.append(f"<g>{said}<text {middle}{look}>{html.escape(text)}</text></g>\n")
    return y + (row + 1) * _ROW


def _layout(pieces: Sequence[_Piece]) -> Iterator[tuple[int, int, str, _Mark | None]]:
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
