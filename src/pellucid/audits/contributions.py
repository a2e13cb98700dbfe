"""What the words of each text contribute to each logit, by one method whose scores add up; for views of a corpus."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from pellucid.attribution import Attribution
from pellucid.audits.audit import Tick
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods import METHODS, Method
from pellucid.methods.method import Scores, slabs
from pellucid.types import Batch, Target, Token

Units = Literal["words", "tokens"]


@dataclass(frozen=True, eq=False)
class Contributions:
    """One text of w words and c classes: `words` case-folded, in order, special tokens left out.

    scores [w, c]: to each class's logit minus the mean of all logits; to the logit itself for one-logit, multi-label
    and regression heads. special: the share of special tokens in the sum of absolute scores (nan where that is 0).
    gap: what is missing from the sum, the largest over classes, in logits; nan where nothing is explained.
    passes: forward and backward passes.
    """

    words: tuple[str, ...]
    scores: Float[np.ndarray, "w c"]
    special: float
    gap: float
    passes: float


def per_class(values: np.ndarray, model: Model) -> np.ndarray:
    """Numbers [..., c] for logits as numbers for logits minus the mean logit, where classes compete: a softmax does not
    see the mean. Of two classes [..., 1] is enough: that of logit 1 minus logit 0."""
    if model.problem != "single_label" or len(model.labels) == 1:
        return values
    if values.shape[-1] == 1:
        return np.concatenate([-values, values], -1) / 2
    return np.asarray(values - values.mean(-1, keepdims=True))


def method_for(name: str, units: Units, model: Model, who: str) -> Method:
    """The registered method, if its scores can be averaged over texts; InputError with the reason otherwise."""
    method = METHODS.get(name)
    has = method.guarantees(model)
    if not has.signed or has.target_free:
        raise InputError(
            f"{who} asks what speaks for and against a class, which the scores of {name!r} do not tell; take a method "
            'that does, such as "decompx", or "integrated_gradients" where the model gives GRADIENTS.'
        )
    if units == "words" and not has.additive:
        raise InputError(
            f"{who} sums scores over the tokens of a word, which those of {name!r} do not allow; take a method that "
            'adds up, such as "decompx" or "integrated_gradients", or count tokens with units="tokens".'
        )
    return method


def contributions(model: Model, batch: Batch, method: Method, units: Units, tick: Tick) -> list[Contributions]:
    """Of every text, in order. Tokens stand for words where no tokenizer tells words. Cost: that of the method, for all
    classes; two classes cost as one where the method is linear in its target."""
    out: list[Contributions | None] = [None] * len(batch)
    done, competing = 0, model.problem == "single_label" and len(model.labels) == 2
    one = competing and method.guarantees(model).linear_in_target  # one backward pass instead of two
    choice = (1, 0) if one else None
    for rows in by_length(batch):
        some = batch.rows(rows)
        with torch.no_grad():
            made = method(model, some, Target((choice,) * len(some), model.labels, all_classes=not one))
        for j, i in enumerate(rows):
            out[i] = _one(model, some.rows([j]), made, j, units)
        done += len(rows)
        tick(done, len(batch))
    return [c for c in out if c is not None]


def by_length(batch: Batch) -> Iterator[list[int]]:
    """Row numbers in groups that run together, the shortest texts first."""
    order = np.argsort(batch.lengths, kind="stable").tolist()
    for some in slabs(len(order), max(batch.lengths)):
        yield order[some]


def words_known(tokens: tuple[Token, ...]) -> bool:
    """Whether a tokenizer told which tokens make up a word."""
    return any(t.word is not None for t in tokens)


def _one(model: Model, text: Batch, made: Scores, j: int, units: Units) -> Contributions:
    """Row j of what a method found, over the words of `text`, a batch of that row alone."""
    assert text.tokens is not None
    tokens = text.tokens[0]
    kept = text.keep[0].nonzero()[:, 0].to(made.scores.device)
    scores = per_class(made.scores[j, kept].double().cpu().numpy(), model)
    size = np.abs(scores)
    special = np.array([t.special for t in tokens])
    gap = np.nan
    if made.explained is not None and made.unallocated is not None:
        told = (made.explained[j] - made.unallocated[j]).double().cpu().numpy()
        gap = float(np.abs(per_class(told, model) - scores.sum(0)).max())
    whole = Attribution(tokens, scores, None, None, "all", "all", "", None, "", {}, additive=True,
                        text=None if text.texts is None else text.texts[0])  # fmt: skip
    if units == "words" and words_known(tokens):
        whole = whole.words()
    own = [k for k, t in enumerate(whole.tokens) if not t.special]
    return Contributions(
        tuple(whole.tokens[k].text.casefold() for k in own),
        whole.scores[own],
        float(size[special].sum() / size.sum()) if size.any() else np.nan,
        gap,
        made.forwards + made.backwards,
    )


def without_punctuation(text: Contributions) -> Contributions:
    """The same without words that have no letter and no digit."""
    own = [k for k, word in enumerate(text.words) if any(ch.isalnum() for ch in word)]
    return replace(text, words=tuple(text.words[k] for k in own), scores=text.scores[own])


def told_of(texts: list[Contributions], batch: Batch, method: Method, model: Model, units: Units) -> list[str]:
    """What a reader must know of these scores."""
    assert batch.tokens is not None
    said = [
        f"A contribution is the share of a logit that {method.name!r} gives to a word where it stands; it does not say "
        "what would happen without the word."
    ]
    special = np.array([t.special for t in texts])
    if np.isfinite(special).any():
        said.append(
            f"Special tokens, left out here, carry {np.nanmedian(special):.0%} of the absolute scores (median)."
        )
    if not method.guarantees(model).complete:
        gaps = np.array([t.gap for t in texts])
        known = f"{np.nanmedian(gaps):.2g} logits (median)" if np.isfinite(gaps).any() else "an unknown part"
        said.append(f"The scores of {method.name!r} do not add up to the logits: {known} are missing.")
    if units == "words" and not all(map(words_known, batch.tokens)):
        said.append("No tokenizer tells the words of these texts, so tokens were counted.")
    return said
