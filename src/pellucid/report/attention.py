"""One head's attention on a text beside others with the same output: a sentence and a small table; data for strips."""

from typing import Any

import numpy as np

from pellucid.audits.identifiability.alternatives import Alternatives
from pellucid.finding import number
from pellucid.render.marks import cleaned, escaped
from pellucid.report.bars import bar, boxed
from pellucid.report.terms import MAPS, SAME_OUTPUT

ROWS = 5
ALIKE = 1e-6
"""Attention weights that differ by less are the same."""


def first_rows(a: Alternatives) -> dict[str, np.ndarray]:
    """The maps that we have words for, each as the row that is looked at."""
    return {name: np.asarray(a.maps[name])[0] for name in MAPS if name in a.maps}


def unique(a: Alternatives) -> bool:
    """Whether no other attention gives this output."""
    rows = first_rows(a)
    return all(bool(np.abs(row - rows["raw"]).max(initial=0.0) < ALIKE) for row in rows.values())


def attention_html(a: Alternatives | None) -> str:
    """What could have been attended instead, as one reads it without a script."""
    if a is None:
        return ""
    source = "the text" if a.key is None else f"“{cleaned(a.tokens[a.rows[0]])}”"
    where = f"layer {a.layer + 1}, head {a.head + 1}, seen from {source}"
    return (
        f'<section class="attention"><h4>Attention: {escaped(where)}</h4><p>{escaped(_said(a))}</p>'
        f'<div class="strips" hidden></div>{_table(a)}</section>'
    )


def _said(a: Alternatives) -> str:
    if unique(a):
        return "No other attention gives this output: here the weights are unique."
    rows = first_rows(a)
    moved = max(a.moved.values(), default=0.0)
    said = ""
    if "witness" in rows:
        far = 50 * float(np.abs(rows["witness"] - rows["raw"]).sum())
        share = f"{far:.0f}" if far >= 1 else number(far)
        said = (
            f"The model could have attended otherwise: the witness moves {share} % of the attention to other tokens "
            "and gives the same output. "
        )
    return (
        f"{said}Put back into the model, the other maps move no logit by more than {number(moved)}; random attention "
        f"as far away moves one by {number(a.random_moved)}. {SAME_OUTPUT}"
    )


def _table(a: Alternatives) -> str:
    """The most attended tokens with their weight in every map, and in which interval it could lie."""
    rows = first_rows(a)
    at = [int(i) for i in np.argsort(-rows["raw"], kind="stable")[:ROWS]]
    names = [f"<bdi>{escaped(a.tokens[i]) or '·'}</bdi>" for i in at]
    if unique(a):
        said = ", ".join(f"{name} {rows['raw'][i]:.3f}" for name, i in zip(names, at, strict=True))
        return f'<p class="top"><small>Most attended:</small> {said}</p>'
    columns = ["token", *(MAPS[name][0] for name in rows), "could lie in"]
    body = []
    span = (0.0, max(float(a.high[at].max(initial=0.0)), float(rows["raw"].max(initial=0.0)), 1e-9))
    for name, i in zip(names, at, strict=True):
        ends = (float(a.low[i]), float(a.high[i]))
        body.append(
            f"<tr><th scope=row>{name}</th>{''.join(f'<td>{row[i]:.3f}</td>' for row in rows.values())}"
            f"<td><span class=nowrap>{ends[0]:.3f} to {ends[1]:.3f}</span><br>"
            f"{bar(float(rows['raw'][i]), ends, None, None, span)}</td></tr>"
        )
    return boxed(f"the {len(at)} most attended of {len(rows['raw'])} tokens", columns, "".join(body))


def attention_data(a: Alternatives, tokens: int) -> dict[str, Any]:
    """The maps for the script, in ten thousandths; only what is not the same as the first one. tokens: how many the
    text has; where the attention is over something else, its own names are told."""
    rows = first_rows(a)
    made: dict[str, Any] = {"r": {"raw": _short(rows["raw"])}}
    if len(a.tokens) != tokens:
        made["w"] = [cleaned(t) or "·" for t in a.tokens]
    if not unique(a):
        made["r"] |= {name: _short(row) for name, row in rows.items() if name != "raw"}
        made["lo"], made["hi"] = _short(a.low), _short(a.high)
    return made


def _short(row: np.ndarray) -> list[int]:
    return [round(1e4 * x) for x in np.asarray(row, dtype=np.float64).tolist()]
