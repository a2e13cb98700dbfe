"""The texts of a report: each with its prediction and its tokens coloured by the first method, as HTML that needs no
script; the other methods as data for one."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.attribution import Attribution
from pellucid.render.marks import (
    by_strength,
    column_of,
    escaped,
    from_right,
    names_of,
    note_of,
    number_text,
    pieces_of,
    scale_of,
    sum_line,
    word_of,
)
from pellucid.report.attention import attention_data, attention_html
from pellucid.report.terms import MAPS, METHODS, SAME_OUTPUT, WRITTEN
from pellucid.verdict.verdict import Case, Verdict

STRONGEST = 6


@dataclass(frozen=True)
class Shown:
    """One text in the page: its HTML, and what the script needs to show another method, a JSON-ready list with an entry
    for each model."""

    html: str
    data: list[Any]


def shown_of(verdicts: Sequence[Verdict], names: Sequence[str]) -> list[Shown]:
    """The texts in the order of the page: as given; of two models, those first whose predictions differ."""
    by_index = [{c.index: c for c in v.cases} for v in verdicts]
    order = sorted(set().union(*by_index))
    groups = [[found.get(i) for found in by_index] for i in order]
    groups.sort(key=lambda cases: not differ(cases))  # stable
    return [_shown(cases, names) for cases in groups]


def differ(cases: Sequence[Case | None]) -> bool:
    """Whether the models predict differently."""
    return len({c.first.prediction for c in cases if c is not None}) > 1


def methods_of(verdicts: Sequence[Verdict]) -> list[str]:
    """Every method of any text, those of the first texts first."""
    return list(dict.fromkeys(m for v in verdicts for c in v.cases for m in c.attributions))


def single(a: Attribution) -> Attribution:
    """The attribution, or of one of all classes the predicted class's."""
    if a.scores.ndim == 1:
        return a
    names = names_of(a)
    return column_of(a, names.index(a.prediction) if a.prediction in names else 0)


def _shown(cases: Sequence[Case | None], names: Sequence[str]) -> Shown:
    there = [(c, name) for c, name in zip(cases, names, strict=True) if c is not None]
    index = there[0][0].index
    kinds = [kind for kind, holds in (("wrong", any(c.wrong for c, _ in there)), ("differ", differ(cases))) if holds]
    panels = "".join(_panel(c, name if len(cases) > 1 else "") for c, name in there)
    sure = min((c.first.probability for c, _ in there if c.first.probability is not None), default=None)
    order = "" if sure is None else f' data-sure="{sure:.4f}"'
    said = "; the models disagree" if differ(cases) else ""
    page = (
        f'<article class="case" data-kinds="{" ".join(kinds)}"{order} data-n="{index + 1}">'
        f'<h3>Text {index + 1}{said}</h3><div class="panels">{panels}</div></article>\n'
    )
    return Shown(page, [_data(c) for c, _ in there])


def _panel(c: Case, name: str) -> str:
    a = single(c.first)
    scale = scale_of(a)
    model = f'<p class="model">Model <b><bdi>{escaped(name)}</bdi></b></p>' if name else ""
    note = f"<p>{escaped(note_of(a))}</p>" if note_of(a) else ""
    return (
        f'<div class="panel">{model}<p class="head">{_head(c)}</p>{note}{_text(a, scale)}'
        f'<p class="key">{_key(a, scale)}</p><p class="top"><small>Strongest:</small> '
        f'<span class="strong">{escaped(_strongest(a, scale))}</span></p>'
        f'<p class="sum">{escaped(sum_line(a))}</p>{attention_html(c.attention)}</div>'
    )


def probability_text(p: float | None) -> str:
    """A probability that is not rounded to certainty."""
    if p is None:
        return "unknown"
    return "> 0.999" if p > 0.9995 else "< 0.001" if p < 0.0005 else f"{p:.3f}"


def _head(c: Case) -> str:
    a = c.first
    said = [f"Prediction <b><bdi>{escaped(a.prediction)}</bdi></b>"]
    if a.probability is not None:
        said.append(f"confidence <b>{escaped(probability_text(a.probability))}</b>")
    if c.calibrated is not None:
        said.append(f"calibrated <b>{escaped(probability_text(c.calibrated))}</b>")
    if c.gold is not None:
        sign = '<span class="badge bad"><span aria-hidden="true">✕</span> WRONG</span>' if c.wrong else "✓ right"
        said.append(f"true label <b><bdi>{escaped(c.gold)}</bdi></b> {sign}")
    return " · ".join(said)


def _text(a: Attribution, scale: float) -> str:
    out = []
    for text, mark in pieces_of(a, scale):
        shown = html.escape(text)
        if mark is None:
            out.append(f'<i class="x" title="not read by the model">{shown}</i>' if text.strip() else shown)
            continue
        names = " ".join(n for n in (mark.level, "s" if mark.special else "") if n)
        look = "" if not names else f" class={names}" if " " not in names else f' class="{names}"'
        out.append(f"<span{look} title={mark.number}>{shown}</span>")
    return f'<p class="text"{" dir=rtl" if from_right(a) else " dir=ltr"}>{"".join(out).strip()}</p>'


def _key(a: Attribution, scale: float) -> str:
    """The ends of the colour scale, in words that the script can replace."""
    if scale == 0:
        return "All scores are 0."
    low, kind = (number_text(-scale, scale), "signed") if a.signed else ("0", "single")
    explained = f"explains {escaped(a.label)}"
    return (
        f'<span class="low">{low}</span><span class="ramp {kind}" aria-hidden="true"></span>'
        f'<span class="high">{number_text(scale, scale, a.signed)}</span> <span class="unit">{escaped(a.unit)}; '
        f"{explained}</span>"
    )


def _strongest(a: Attribution, scale: float) -> str:
    best = [i for i in by_strength(a.scores) if not a.tokens[i].special][:STRONGEST]
    return ", ".join(f"{word_of(a, i)} {number_text(float(a.scores[i]), scale, a.signed)}" for i in best)


# The data


def whole_numbers(values: np.ndarray, scale: float) -> tuple[list[int | None], int]:
    """Values as whole numbers of the last digit that `number_text` prints, and how many digits that are; None for what
    is no finite number."""
    digits = 3 if 0.1 <= scale < 1e5 or scale == 0 else 5 if 1e-3 <= scale < 0.1 else 2 - math.floor(math.log10(scale))
    digits = max(digits, 0)
    return [round(x * 10**digits) if math.isfinite(x) else None for x in values.tolist()], digits


def _data(c: Case) -> dict[str, Any]:
    """Per method: the scores, their digits, whether signed, unit, what is explained, the sum, the scale."""
    first = single(c.first)
    made: dict[str, Any] = {"m": {}}
    for name, given in c.attributions.items():
        a = single(given)
        if len(a) != len(first):
            raise ValueError(f"text {c.index}: {name} has {len(a)} tokens, {first.method} {len(first)}")
        scale = scale_of(a)
        scores, digits = whole_numbers(a.scores, scale)
        made["m"][name] = [scores, digits, int(a.signed), a.unit, a.label, sum_line(a), float(f"{scale:.5g}")]
    if c.attention is not None:
        made["a"] = attention_data(c.attention, len(first))
    return made


def controls(verdicts: Sequence[Verdict], shown: Sequence[Case | None]) -> str:
    """What the script listens to: the text, which texts, the method. Hidden until there is a script."""
    cases = [c for c in shown if c is not None]
    filters = '<option value="">all texts</option>'
    if any(c.wrong for c in cases):
        filters += '<option value="wrong">wrong predictions</option>'
    if len(verdicts) > 1:
        filters += '<option value="differ">the models disagree</option>'
    methods = "".join(
        f'<label title="{escaped(METHODS.get(m, ""))}"><input type="radio" name="method" value="{escaped(m)}"'
        f"{' checked' if k == 0 else ''}>{escaped(m)}</label>"
        for k, m in enumerate(methods_of(verdicts))
    )
    return (
        '<div id="browse" hidden><div class="row"><button type="button" id="back" aria-label="previous text">'
        '<span aria-hidden="true">←</span></button><select id="which" aria-label="text"></select>'
        '<button type="button" id="next" aria-label="next text"><span aria-hidden="true">→</span></button>'
        '<span id="count" role="status"></span></div><div class="row">'
        f'<label>show <select id="filter">{filters}</select></label><label>order <select id="order">'
        '<option value="">as given</option><option value="least">least sure first</option><option value="most">'
        f"most sure first</option></select></label></div><fieldset><legend>tokens coloured by</legend>{methods}"
        "</fieldset></div>"
    )


def guide(verdicts: Sequence[Verdict]) -> str:
    """How to read the colours, and what each method does."""
    methods = methods_of(verdicts)
    if not methods:
        return "<p>No text is shown.</p>"
    said = "".join(
        f"<dt>{escaped(m)}</dt><dd>{escaped(METHODS.get(m, 'a method of explanation'))}.</dd>" for m in methods
    )
    kinds = [(name, what) for name, what in MAPS.values() if name not in methods]
    maps = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(what)}.</dd>" for name, what in kinds)
    return (
        "<p>Each token is coloured by its score. Orange-red speaks for what is explained, blue against it; green is a "
        "score without a sign; no colour is zero. The strongest colour is the largest score of that text, so compare "
        f"numbers, not colours, between texts. {escaped(WRITTEN)}</p>"
        '<p class="script" hidden>Point at a token, tap it, or reach it with Tab and the arrow keys: its number stands '
        "at the foot of the window. ← and → go to the previous and the next text.</p>"
        f"<details><summary>What the methods do, and what kinds of attention are shown</summary><dl>{said}{maps}</dl>"
        f"<p>{escaped(SAME_OUTPUT)}</p></details>"
    )
