"""HTML from numbers: the coloured text, its colour key, bars, tables. Everything a person typed is escaped here.

Looks are classes (style.py), so that light and dark, wide and narrow are decided in one place.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from pellucid.attribution import Attribution
from pellucid.render.marks import (
    TOP,
    Mark,
    by_strength,
    from_right,
    mark_of,
    number_text,
    pieces_of,
    ramp_of,
    scale_of,
    share_of,
    word_of,
)
from pellucid.render.marks import escaped as _escaped
from pellucid.types import Token

HINT = "Point at a word for its number."
_INERT = {ord(c): f"&#{ord(c)};" for c in "{}$`"}


def escaped(text: str) -> str:
    """Text that is no markup, and no template either: a page's framework may read braces, dollars and backticks."""
    return _escaped(text).translate(_INERT)


def weights_of(
    tokens: Sequence[Token], text: str | None, weights: np.ndarray, signed: bool, unit: str = "attention weight"
) -> Attribution:
    """Weights over tokens [n], as something that a strip can show."""
    scores = np.asarray(weights, dtype=np.float64)
    return Attribution(
        tuple(tokens), scores, None, None, 0, "", "", None, "attention", {}, unit, False, signed, text=text
    )


def strip(a: Attribution, scale: float | None = None, hint: str = HINT) -> str:
    """The text with coloured tokens; below it, a line for the number of the one that is pointed at."""
    scale = scale_of(a) if scale is None else scale

    def token(i: int, shown: str, mark: Mark) -> str:
        return f'<span class="{_looks(mark)}" tabindex="-1" data-n="{_said(a, mark)}">{shown}</span>'

    return _strip(a, scale, token, hint)


def buttons(
    a: Attribution, pressed: Collection[int], scale: float | None = None, hint: str = HINT, special: bool = False
) -> str:
    """The text with a button for each token (special ones if asked for), which says its place when it is pressed."""
    scale = scale_of(a) if scale is None else scale

    def token(i: int, shown: str, mark: Mark) -> str:
        if mark.special and not special:
            return f'<span class="{_looks(mark)}" tabindex="-1" data-n="{_said(a, mark)}">{shown}</span>'
        on = str(i in pressed).lower()
        said = f'data-at="{i}" aria-pressed="{on}" data-n="{_said(a, mark)}"'
        return f'<button type="button" class="{_looks(mark)}" {said}>{shown}</button>'

    return _strip(a, scale, token, hint)


def _strip(a: Attribution, scale: float, token: Callable[[int, str, Mark], str], hint: str) -> str:
    out, i = [], 0
    for text, mark in pieces_of(a, scale):
        if mark is None:
            out.append(f'<i title="not read by the model">{escaped(text)}</i>' if text.strip() else escaped(text))
        else:
            out.append(token(i, escaped(text), mark))
            i += 1
    way = ' dir="rtl"' if from_right(a) else ""
    return f'<div class="strip"><p{way}>{"".join(out).strip()}</p><small>{escaped(hint)}</small></div>'


def _looks(mark: Mark) -> str:
    """Classes of one token."""
    return " ".join(name for name in ("t", mark.level, "s" if mark.special else "", "d" if mark.faint else "") if name)


def _said(a: Attribution, mark: Mark) -> str:
    return escaped(f"{mark.word}  {mark.number} {a.unit}")


def key(scale: float, signed: bool, unit: str) -> str:
    """The colour key of strips that share a scale."""
    if scale == 0:
        return '<div class="key">All numbers are 0.</div>'
    low, middle, paint = (number_text(-scale, scale), "0", "signed") if signed else ("0", "", "single")
    high = number_text(scale, scale, signed)
    return f'<div class="key">{low}<span class="{paint}">{middle}</span>{high} {escaped(unit)}</div>'


def bars(a: Attribution, scale: float | None = None) -> str:
    """The strongest tokens as bars, and behind a summary all of them in reading order."""
    scale = scale_of(a) if scale is None else scale
    rows = "".join(_bar(a, i, scale) for i in by_strength(a.scores)[:TOP])
    every = "".join(f"<tr><td>{i + 1}<td>{_word(a, i)}<td>{mark_of(a, i, scale).number}" for i in range(len(a)))
    head = f'<tr><th scope="col">place<th scope="col">token<th scope="col">{escaped(a.unit)}'
    return (
        f'<table class="bars"><caption>strongest tokens</caption><tbody>{rows}</tbody></table>'
        f'<details><summary>all {len(a)} numbers</summary><table class="nums">{head}{every}</table></details>'
    )


def _word(a: Attribution, i: int) -> str:
    return f"<bdi>{escaped(word_of(a, i))}</bdi>"


def _bar(a: Attribution, i: int, scale: float) -> str:
    mark = mark_of(a, i, scale)
    return f"<tr><td>{_word(a, i)}<td>{_share(float(a.scores[i]), scale, a.signed)}<td>{mark.number}"


def _share(x: float, scale: float, signed: bool) -> str:
    """One bar; of signed numbers, zero is in the middle."""
    share = share_of(x, scale)
    wide = abs(share) * (50 if signed else 100)
    left = 0 if not signed else 50 - wide if share < 0 else 50
    fill = f'<span class="{ramp_of(share, signed)}" style="left:{left:.1f}%;width:{wide:.1f}%"></span>'
    return f'<span class="bar{" zero" if signed else ""}">{fill}</span>'


def logits(
    labels: Sequence[str],
    names: tuple[str, str],
    first: np.ndarray,
    second: np.ndarray,
    chances: tuple[np.ndarray, np.ndarray] | None,
) -> str:
    """Logits [c] of two readings, class by class, their probabilities, and the difference as a bar."""
    move = second - first
    size = float(np.abs(move).max())
    shown = np.argsort(-np.maximum(first, second), kind="stable")[:TOP] if len(labels) > TOP else range(len(labels))
    rows = "".join(
        f'<tr><th scope="row"><bdi>{escaped(labels[c])}</bdi>'
        f"{_cell(first, 0, c, chances)}{_cell(second, 1, c, chances)}"
        f"<td>{_share(float(move[c]), size, True)}<td><b>{number_text(float(move[c]), 1.0)}</b>"
        for c in map(int, shown)
    )
    head = "".join(f'<th scope="col">{escaped(name)}' for name in ("logit of", *names))
    note = f"<p>The {TOP} classes with the largest logits, of {len(labels)}.</p>" if len(labels) > TOP else ""
    return f'<table class="logits"><tr>{head}<th scope="col" colspan="2">difference{rows}</table>{note}'


def _cell(values: np.ndarray, which: int, c: int, chances: tuple[np.ndarray, np.ndarray] | None) -> str:
    p = "" if chances is None else f"<small>{chance(float(chances[which][c]))}</small>"
    return f"<td>{number_text(float(values[c]), 1.0)} {p}"


def chance(p: float) -> str:
    """A probability in per cent, never rounded to 0 or 100."""
    return "under 0.1\u00a0%" if p < 0.001 else "over 99.9\u00a0%" if p > 0.999 else f"{100 * p:.1f}\u00a0%"


def heat_map(tokens: Sequence[Token], weights: np.ndarray) -> str:
    """Attention [n, n] as squares, a row for each token that attends."""
    rows = [weights_of(tokens, None, row, False) for row in weights]
    words, scale = [word_of(rows[0], i) for i in range(len(tokens))], float(weights.max())
    top = "".join(f"<span><bdi>{escaped(w)}</bdi></span>" for w in words)
    out = []
    for i, row in enumerate(rows):
        out.append(f"<b><bdi>{escaped(words[i])}</bdi></b>")
        for j, word in enumerate(words):
            said = escaped(f"{words[i]} → {word}  {row.scores[j]:.3f}")
            out.append(f'<span class="{mark_of(row, j, scale).level}" tabindex="-1" data-n="{said}"></span>')
    return (
        f'<div class="map"><div style="grid-template-columns:5.5em repeat({len(tokens)},minmax(.8em,1.7em))">'
        f"<b></b>{top}"
        f"{''.join(out)}</div><small>Rows attend to columns.</small></div>"
    )
