"""Each answer of the desk as a panel of HTML, with a sentence that says what it means and what it does not."""

from collections.abc import Sequence

import numpy as np

from pellucid.app.desk import Attended, Compared, Erased
from pellucid.app.strips import HINT, bars, buttons, chance, escaped, heat_map, key, logits, strip, weights_of
from pellucid.attribution import Attribution
from pellucid.audits.identifiability.alternatives import Alternatives
from pellucid.audits.identifiability.polytope import distance
from pellucid.render.marks import note_of, number_text, scale_of, small_text, sum_line, word_of

MAPPED = 40  # tokens, beyond which the squares of a map would be too small to point at
SAME = 1e-6  # total variation below which two rows of attention are one
TITLES = {
    "raw": "Attention, as it is",
    "effective": "Effective: without the part that cannot matter (may fall below zero)",
    "max_entropy": "Most even",
    "witness": "As different as possible",
}


def _page(body: str) -> str:
    return f'<div class="pell">{body}</div>'


def refusal(sentence: str) -> str:
    """What went wrong, in place of an answer."""
    return _page(f'<p class="refusal" role="alert">{escaped(sentence)}</p>')


def note(*sentences: str) -> str:
    """What to look at."""
    return _page(f'<p class="note">{" ".join(escaped(s) for s in sentences)}</p>')


def _bold(text: str) -> str:
    return f"<b><bdi>{escaped(text)}</bdi></b>"


def _answer(a: Attribution) -> str:
    p = "" if a.probability is None else f", with a probability of {chance(a.probability)}"
    return f"The model says {_bold(a.prediction)}{p}."


def tokens(found: Sequence[Attribution]) -> str:
    """The decision, taken apart by one or several methods."""
    return _page(f'<p class="lead">{_answer(found[0])}</p>{"".join(_card(a) for a in found)}')


def _card(a: Attribution, title: str = "", scale: float | None = None, lead: str = "") -> str:
    size = scale_of(a) if scale is None else scale
    cut = f"<p>{escaped(note_of(a))}</p>" if note_of(a) else ""
    return (
        f"<section><h3>{escaped(title or a.method)}</h3>{lead}<p>{_meaning(a)}</p>{cut}{strip(a, size)}"
        f'{key(size, a.signed, a.unit)}<p class="sum">{escaped(sum_line(a))}</p>{bars(a, size)}</section>'
    )


def _meaning(a: Attribution) -> str:
    if not a.signed:
        return f"Darker green means more {escaped(a.unit)}. It does not tell for from against."
    if isinstance(a.target, tuple):
        plus, minus = (a.labels[c] for c in a.target)
        return f"Orange words speak for {_bold(plus)}, blue words for {_bold(minus)}."
    return f"Orange words speak for {_bold(a.label)}, blue words against it."


def attention(seen: Attended, row: int) -> str:
    """One row of attention as a strip whose words choose the row, and all rows as a map."""
    row = seen.row(row)
    a = weights_of(seen.tokens, seen.text, seen.weights[row], False)
    scale = scale_of(a)
    many = len(seen.weights) > 1
    hint = "Choose a word to see its attention." if many else HINT
    shown = buttons(a, {row}, scale, hint, special=True) if many else strip(a, scale, hint)
    who = f"{_bold(word_of(a, row))} attends to these words" if many else "The text is read with these weights"
    body = f"<section><h3>{_where(seen)}</h3><p>{who}; the weights add up to 1.</p>{shown}{key(scale, False, a.unit)}"
    if many and len(seen.tokens) <= MAPPED:
        body += heat_map(seen.tokens, seen.weights)
    elif many:
        body += f"<p>The map of all words is drawn for texts of up to {MAPPED} tokens; this one has {len(a)}.</p>"
    limit = "Attention tells where a head reads from. It is not yet a reason: see what it could have been."
    return _page(f"{body}<p>{limit}</p></section>")


def _where(seen: Attended) -> str:
    return f"Layer {seen.layer + 1}, {'mean of all heads' if seen.head is None else f'head {seen.head + 1}'}"


def others(found: Alternatives, seen: Attended) -> str:
    """What one row of attention could have been, and what each of these does to the logits."""
    maps = {name: rows[0] for name, rows in found.maps.items()}
    apart = {name: distance(maps["raw"], row) for name, row in maps.items()}
    row, many = found.rows[0], len(seen.weights) > 1
    scale = max(float(np.abs(m).max()) for m in maps.values())
    out, below = [], {name: bool((m < -SAME).any()) for name, m in maps.items()}
    shown_maps = {k: m for k, m in maps.items() if k == "raw" or apart["witness"] >= SAME}  # one, where it is unique
    for name, weights in shown_maps.items():
        signed = below[name]
        a = weights_of(seen.tokens, seen.text, weights if signed else np.abs(weights), signed)
        chooses = name == "raw" and many
        hint = "Choose a word to see its attention." if chooses else HINT
        shown = buttons(a, {row}, scale, hint, special=True) if chooses else strip(a, scale, hint)
        out.append(f"<h4>{TITLES[name]}</h4><p>{_effect(found, name, apart[name])}</p>{shown}")
    from_word = f", from {_bold(word_of(a, row))}" if many else ""
    head = f'<h3>{_where(seen)}{from_word}</h3><p class="lead">{_verdict(found, apart["witness"])}</p>'
    keys = "".join(key(scale, signed, "attention weight") for signed in sorted({below[name] for name in shown_maps}))
    return _page(f"<section>{head}{''.join(out)}{keys}{_intervals(found, seen)}</section>")


def _interval(found: Alternatives) -> str:
    i = int(found.maps["raw"][0].argmax())
    return f"the largest weight may lie anywhere from {found.low[i]:.3f} to {found.high[i]:.3f}."


def _verdict(found: Alternatives, far: float) -> str:
    if far < SAME:
        return (
            "<b>This attention is unique:</b> no other weights give this output. On longer texts, with more words than "
            "the head is wide, there are others."
        )
    return (
        f"<b>This attention is not unique.</b> Other weights, up to {far:.2f} away in total variation, give the same "
        f"output: put back into the model, they {_moves(found.moved['witness'])}. Random attention as far away moves "
        f"one by {_size(found.random_moved)}."
    )


def _size(x: float) -> str:
    return small_text(x).lstrip("+")


def _moves(x: float) -> str:
    return "move no logit" if x == 0 else f"move no logit by more than {_size(x)}"


def _effect(found: Alternatives, name: str, apart: float) -> str:
    if name == "raw":
        return f"The weights the model used; {_interval(found)}"
    if apart < SAME:
        return "The same as the attention."
    return f"{apart:.2f} away in total variation. Put back into the model, these weights {_moves(found.moved[name])}."


def _intervals(found: Alternatives, seen: Attended) -> str:
    raw = found.maps["raw"][0]
    a = weights_of(seen.tokens, None, raw, False)
    rows = "".join(
        f"<tr><td><bdi>{escaped(word_of(a, i))}</bdi><td>{raw[i]:.3f}<td>{found.low[i]:.3f} to {found.high[i]:.3f}"
        for i in range(len(a))
    )
    head = '<tr><th scope="col">token<th scope="col">weight<th scope="col">could be'
    return (
        f'<details><summary>how far each weight could move</summary><table class="nums">{head}{rows}</table></details>'
    )


def erase(e: Erased) -> str:
    """Words to erase, and the logits with and without them."""
    a = e.attribution
    words = buttons(a, set(e.gone), None, "Choose words to erase or to put back.")
    table = logits(a.labels, ("whole text", "without"), e.before, e.after, e.chances)
    body = f'<p class="lead" role="status">{_erased(e)}</p>{words}{key(scale_of(a), a.signed, a.unit)}{table}'
    return _page(f"<section><h3>Erase words</h3>{body}<p>{_promise(e)}</p></section>")


def _erased(e: Erased) -> str:
    a = e.attribution
    if not e.gone:
        return f"{_answer(a)} Which words can you take away without changing that?"
    words = ", ".join(f"“{_bold(word_of(a, i))}”" for i in e.gone)
    best = a.labels[int(e.after.argmax())]
    if len(a.labels) > 1 and best != a.prediction:
        return f"Without {words} the model changes its mind: from {_bold(a.prediction)} to {_bold(best)}."
    kept = "" if len(a.labels) < 2 else f" the model still says {_bold(best)}, and"
    return f"Without {words}{kept} the logit of {_bold(a.label)} moves by {number_text(e.moved(), 1.0)}."


def _promise(e: Erased) -> str:
    a = e.attribution
    if not e.gone:
        return ""
    how = f"Erased by the operator “{escaped(e.operator)}”."
    if a.unit != "logit":
        return how
    share = number_text(float(a.scores[list(e.gone)].sum()), 1.0)
    return (
        f"{how} {escaped(a.method)} gave {'it' if len(e.gone) == 1 else 'them'} {share} of the logit of "
        f"{_bold(a.label)}; without, it moved by {number_text(e.moved(), 1.0)}. The two need not be opposite: the "
        "first says what the model computed with this text, the second what it computes with another one."
    )


def compare(c: Compared) -> str:
    """Two texts on one colour scale, and the difference of their logits."""
    a, b = c.attributions
    scale = max(scale_of(a), scale_of(b))
    cards = "".join(
        _card(one, name, scale, f"<p>{_answer(one)}</p>") for one, name in ((a, "First text"), (b, "Second text"))
    )
    table = logits(a.labels, ("first", "second"), *c.logits, c.chances)
    lead = f"Both are explained by {escaped(a.method)} for {_bold(a.label)}, and one colour scale holds for both."
    return _page(f'<p class="lead">{lead}</p><section>{table}</section><div class="two">{cards}</div>')
