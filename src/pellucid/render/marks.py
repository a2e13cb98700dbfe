"""What all renderings share: words, numbers, colours, and the text as coloured pieces.

Colours are ColorBrewer's RdBu (colour-blind-safe; blue below zero, orange-red above), cut before its darkest steps so
that dark text keeps a contrast of 4.5 (WCAG AA), and its single-hue Greens for scores without a sign. Zero is white,
and the scale is symmetric: its ends are plus and minus the largest absolute score of the attribution.
"""

import html
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pellucid.attribution import Attribution
from pellucid.types import Token

INK, DIM, PAPER = "#111111", "#595959", "#ffffff"
LIGHT = {
    "n": (PAPER, "#d1e5f0", "#92c5de", "#4393c3"),
    "p": (PAPER, "#fddbc7", "#f4a582", "#d6604d"),
    "u": (PAPER, "#c7e9c0", "#74c476", "#41ab5d"),
}
NIGHT = "#16181d"  # the paper of dark mode; the same scheme's dark ends carry light text
DARK = {"n": (NIGHT, "#2166ac"), "p": (NIGHT, "#b2182b"), "u": (NIGHT, "#006d2c")}
LEVELS = 12  # steps on each side of zero in a page, where colours are classes and not written into each token
TOP = 8  # tokens in the terminal's table
DRAWN = 8  # classes drawn in HTML and SVG; a line says so where there are more
UNALLOCATED = "unallocated (owned by no token)"
PER_TEXT = ("seconds", "forwards", "backwards", "truncated", "windows")  # of origin: what differs between texts


def names_of(a: Attribution) -> tuple[str, ...]:
    """The names of the classes, or their numbers."""
    return a.labels or tuple(str(c) for c in range(a.scores.shape[1]))


def column_of(a: Attribution, c: int) -> Attribution:
    """One class of an attribution of all classes, as if it had been the target."""

    def pick(x: Any) -> float | None:
        return None if x is None else float(x if np.ndim(x) == 0 else x[c])

    return replace(
        a, scores=a.scores[:, c], unallocated=pick(a.unallocated), explained=pick(a.explained), target=c,
        label=names_of(a)[c],
    )  # fmt: skip


def scale_of(a: Attribution) -> float:
    """The largest absolute score that is a finite number; 0 if there is none."""
    finite = np.abs(a.scores[np.isfinite(a.scores)])
    return float(finite.max()) if finite.size else 0.0


def number_text(x: float, scale: float, signed: bool = True) -> str:
    """x with as many digits as numbers of size `scale` need; what rounds to zero has no sign."""
    if not math.isfinite(x):
        return str(x)
    form = ".3f" if 0.1 <= scale < 1e5 or scale == 0 else ".5f" if 1e-3 <= scale < 0.1 else ".2e"
    shown = format(x, f"+{form}" if signed else form)
    return format(0.0, form) if float(shown) == 0 else shown


def small_text(x: float) -> str:
    """A remainder, to one digit: 1e-7, not 1.1920929e-07."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    if abs(x) >= 1e-3:
        return number_text(x, 1.0)
    digit, power = f"{x:.0e}".split("e")
    return f"{digit}e{int(power)}"


def value_text(x: Any) -> str:
    """A value of `params` or `origin` in words."""
    if isinstance(x, Mapping):
        return ", ".join(f"{k} {value_text(v)}" for k, v in x.items())
    if isinstance(x, list | tuple):
        return ", ".join(value_text(v) for v in x)
    if isinstance(x, bool) or x is None:
        return {True: "yes", False: "no", None: "none"}[x]
    return f"{x:.3g}" if isinstance(x, float) else str(x)


def header_of(a: Attribution) -> list[tuple[str, str]]:
    """The header line as (name, value) pairs."""
    p = a.probability
    sure = "" if p is None else "> 0.999" if p > 0.9995 else "< 0.001" if p < 0.0005 else f"{p:.3f}"
    prediction = f"{a.prediction} (probability {sure})" if sure else a.prediction
    target = "all classes" if a.scores.ndim == 2 else a.label
    parts = [("of", str(a.params["sources"]))] if "sources" in a.params else []  # what was split, where not tokens
    return [("prediction", prediction), ("target", target), ("method", a.method), *parts, ("unit", a.unit)]


def note_of(a: Attribution) -> str:
    """That the text was cut or read in windows, if it was."""
    said = "; ".join(f"{k}: {value_text(a.origin[k])}" for k in ("truncated", "windows") if a.origin.get(k))
    return f"{said[0].upper()}{said[1:]}." if said else ""


def sum_line(a: Attribution) -> str:
    """What the scores add up to, or that they do not."""
    many = a.scores.ndim == 2
    gap = None if a.gap is None else float(np.abs(a.gap).max()) if many else float(a.gap)
    if a.complete and many:
        most = "" if gap is None else f", largest gap {small_text(gap)}"
        return f"explained = tokens + {UNALLOCATED} for every class{most}"
    what = "logits" if many else "difference of the two logits" if isinstance(a.target, tuple) else "logit"
    if not a.complete and a.unit != "logit":
        return f"The scores ({a.unit}) do not add up to the {what}."
    if not a.complete and (many or gap is None):
        most = "" if gap is None else f": up to {abs(gap):.3g} of one is in no score"
        return f"The scores do not add up to the {what}{most}."
    total = float(a.scores.sum())
    known = [float(x) for x in (total, a.explained, a.unallocated) if x is not None]
    size = max((abs(x) for x in known if math.isfinite(x)), default=0.0)
    tokens = f"tokens {number_text(total, size)}"
    if a.unallocated is not None:
        tokens += f" + {UNALLOCATED} {number_text(float(a.unallocated), size)}"
    whole = "" if a.explained is None else f"explained {number_text(float(a.explained), size)}"
    if a.complete:
        return (f"{whole} = " if whole else "") + tokens + ("" if gap is None else f", gap {small_text(gap)}")
    return f"The scores do not add up to the {what}: {whole}, {tokens}; {small_text(gap or 0.0)} is in no score."


def by_strength(scores: np.ndarray) -> list[int]:
    """Indices of scores [n], the largest absolute one first."""
    return [int(i) for i in np.argsort(-np.nan_to_num(np.abs(scores)), kind="stable")]


# The text in reading order, each token with its number and colour


@dataclass(frozen=True)
class Mark:
    """How one token looks. `level` names its colour in a style sheet; `faint`: written in grey, as special tokens are,
    except on colours too strong for grey to be read."""

    word: str
    number: str
    colour: str
    level: str
    special: bool
    faint: bool


Piece = tuple[str, Mark | None]


def mark_of(a: Attribution, i: int, scale: float) -> Mark:
    """How token i looks on a scale from -scale to scale."""
    x, special = float(a.scores[i]), a.tokens[i].special
    share = share_of(x, scale)
    ramp, step = ramp_of(share, a.signed), round(abs(share) * LEVELS)
    level = f"{ramp}{step}" if step else ""
    colour = colour_of(share, LIGHT[ramp])
    return Mark(word_of(a, i), number_text(x, scale, a.signed), colour, level, special, special and abs(share) < 0.4)


def pieces_of(a: Attribution, scale: float) -> list[Piece]:
    """The text with its own spacing; tokens without a place in it (special ones, or no offsets) between spaces.

    A token over characters that another token has shown already (the bytes of an emoji) is shown as a middle dot.
    """
    texts = () if a.text is None else (a.text,) if isinstance(a.text, str) else a.text
    places = [place_of(t, texts) for t in a.tokens]
    last = {place[0]: i for i, place in enumerate(places) if place}
    done = [0] * len(texts)
    out: list[Piece] = []
    for i, place in enumerate(places):
        mark = mark_of(a, i, scale)
        if place is None:
            space = [] if not out or out[-1][0][-1:].isspace() else [(" ", None)]
            out += [*space, (cleaned(a.tokens[i].text) or "·", mark), (" ", None)]
            continue
        s, start, end = place
        if s and not done[s] and out:
            out.append(("\n", None))
        shown = cleaned(texts[s][max(start, done[s]) : end]) or "·"
        bare = shown.lstrip() or shown
        out += [(unread(texts[s][done[s] : start]), None), (shown[: len(shown) - len(bare)], None)]
        out.append((bare.replace("\n", "↵"), mark))
        done[s] = max(done[s], end)
        if last[s] == i:
            out.append((unread(texts[s][end:].rstrip()), None))
    return [(text, mark) for text, mark in out if text]


def place_of(t: Token, texts: Sequence[str]) -> tuple[int, int, int] | None:
    """Text number, start and end of a token; None where it stands in no text."""
    s = t.sequence or 0
    if t.special or t.start is None or t.end is None or s >= len(texts) or not texts[s][t.start : t.end]:
        return None
    return s, t.start, t.end


def from_right(a: Attribution) -> bool:
    """Whether the text is written from the right: by its first letter that has a direction."""
    text = "".join(t.text for t in a.tokens if not t.special) if a.text is None else "".join(a.text)
    return next((k != "L" for k in map(unicodedata.bidirectional, text) if k in ("L", "R", "AL")), False)


def unread(text: str) -> str:
    """Text between or after the tokens: mostly spaces, or what truncation left out, of which the beginning is shown."""
    return cleaned(text if len(text) <= 200 else f"{text[:100]} … ({len(text) - 100} more characters) ")


def cleaned(text: str) -> str:
    """Without what XML forbids, a terminal obeys or reverses neighbouring text: each such character becomes U+FFFD."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    allowed = "\t\n\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff"
    return re.sub(f"[^{allowed}]", "\ufffd", text)


def word_of(a: Attribution, i: int) -> str:
    """Token i on its own, for tables and tooltips."""
    t = a.tokens[i]
    inside = isinstance(a.text, str) or (a.text is not None and (t.sequence or 0) < len(a.text))
    word = (a.surface(t) if inside else "") or t.text
    visible = any(ch.isprintable() and not ch.isspace() for ch in word)
    return " ".join(cleaned(word).split()) if visible else repr(word)


# Colours


def share_of(x: float, scale: float) -> float:
    """x on the colour scale, -1 to 1; 0 where there is no number or no scale."""
    return 0.0 if math.isnan(x) or scale == 0 else max(-1.0, min(1.0, x / scale))


def ramp_of(share: float, signed: bool) -> str:
    """The colour ramp of a share: "n" below zero, "p" above, "u" for scores without a sign."""
    return "u" if not signed else "n" if share < 0 else "p"


def colour_of(share: float, stops: Sequence[str]) -> str:
    """The colour at |share| along evenly spaced stops; the first stop, exactly, at 0."""
    at = abs(share) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    low, high = ([int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in stops[i : i + 2])
    return "#" + "".join(f"{round(x + (y - x) * (at - i)):02x}" for x, y in zip(low, high, strict=True))


def escaped(text: str) -> str:
    """Text for HTML and XML: nothing in it is markup, and nothing is a character they forbid."""
    return html.escape(cleaned(text))


def drawn_of(a: Attribution) -> tuple[list[int], str]:
    """The classes to draw, in their own order, and a sentence if they are not all."""
    count = a.scores.shape[1]
    if count <= DRAWN:
        return list(range(count)), ""
    size = a.scores.sum(0) if a.explained is None else np.asarray(a.explained)
    chosen = sorted(np.argsort(-np.nan_to_num(size), kind="stable")[:DRAWN].tolist())
    return chosen, f"{DRAWN} of {count} classes are drawn, those with the largest outputs; to_dataframe() holds all."
