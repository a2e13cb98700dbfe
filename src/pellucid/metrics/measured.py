"""What is measured on one text for a ranking of its tokens: the forward passes that all faithfulness metrics share."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods.operators import TAKING, TOKENS, Operator, check_operator, erased_logits, special_mask
from pellucid.types import Batch, Target

STEPS = 11
SHARES = np.arange(STEPS) / (STEPS - 1)
"""Shares of the ordinary tokens that are erased: 0, 0.1, ..., 1."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What one ranking of a text's tokens does to the model, by one operator.

    scores [n] rank the tokens, highest first; ordinary [n] tells which are no special tokens: only these are erased.
    removed [11]: how many are gone at each of SHARES, floor(share * ordinary). most, least [11, c]: probabilities of
    all classes with the most, the least important tokens gone; nan where nothing would be left to read, and where it
    was not measured. predicted: the
    class whose probability is followed, that with the largest logit (the only one of a one-logit head). loo [n]: the
    drop of its log-odds without that token alone, in nats; nan at special tokens and where it was not measured. Its
    signs and ranks are those of the drop in probability, but do not drown in rounding where that is close to 1.
    signed: whether scores below zero speak against the class. gold: the true class, if known.
    """

    operator: Operator
    scores: Float[np.ndarray, "n"]
    ordinary: Bool[np.ndarray, "n"]
    removed: Int[np.ndarray, "11"]
    predicted: int
    most: Float[np.ndarray, "11 c"]
    least: Float[np.ndarray, "11 c"]
    loo: Float[np.ndarray, "n"]
    signed: bool = True
    gold: int | None = None

    @property
    def x(self) -> np.ndarray:
        """The share of ordinary tokens that is really gone [11]: exactly removed / ordinary."""
        return np.asarray(self.removed / self.ordinary.sum())

    @property
    def p(self) -> np.ndarray:
        """The predicted class's probability [11], the most important gone first; p[0] is the whole text's."""
        return np.asarray(self.most[:, self.predicted])

    @property
    def q(self) -> np.ndarray:
        """The predicted class's probability [11], the least important gone first."""
        return np.asarray(self.least[:, self.predicted])


def decided(probabilities: Float[np.ndarray, "k c"]) -> Int[np.ndarray, "k"]:
    """The decision: the class with the largest probability; of a one-logit head, whether it reaches one half."""
    if probabilities.shape[1] == 1:
        return np.asarray((probabilities[:, 0] >= 0.5).astype(int))
    return np.asarray(probabilities.argmax(1))


def ranked(scores: Float[np.ndarray, "m"], ids: Int[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
    """Places from the highest score to the lowest; read backwards, least important first.

    Ties fall at random, by a seed made of the text's ids: breaking them by position would give a method that cannot
    tell tokens apart a ranking after all. All rankings of a text share the draw.
    """
    draw = np.random.default_rng([0, *ids.tolist()]).random(len(scores))
    return np.lexsort((draw, -scores))


def measure(
    model: Model,
    text: Batch,
    rankings: Mapping[str, np.ndarray],
    operator: Operator = "mask",
    unsigned: Collection[str] = (),
    leave_one_out: bool = True,
    least: bool = True,
    tokens: int = TOKENS,
) -> tuple[dict[str, Measured], int]:
    """Curves of all rankings of one text by one operator, and the number of forward passes spent on them together.

    text: one row without padding; its `labels`, if any, are the gold class. rankings: method -> scores [n] over all its
    tokens, of the predicted class. unsigned: the methods among them whose sign says nothing. leave_one_out: measure
    each ordinary token's drop. least: measure with the least important gone too. tokens: see `erased_logits`.

    Cost: a forward pass per distinct set of erased tokens: at most 1 + 20 per ranking + one per ordinary token. Sets
    that several rankings ask for, and the whole and the empty text, are run once.
    Raises: InputError for a regression model, a text without ordinary tokens, scores of another length or not finite.
    Source: the protocol of DecompX (Modarressi et al. 2023, arXiv 2306.02873, section 5).
    """
    check_operator(model, operator)
    ids = _whole(text).input_ids[0].cpu().numpy()
    ordinary = ~special_mask(model, text)[0].cpu().numpy()
    _check(model, ordinary, rankings, unsigned)
    at = ordinary.nonzero()[0]
    removed = np.arange(STEPS) * len(at) // (STEPS - 1)  # in whole numbers: 0.7 * 10 is not 7
    gone = [np.zeros((1, len(ids)), dtype=bool), _single(at if leave_one_out else at[:0], len(ids))]
    for scores in rankings.values():
        order = at[ranked(np.asarray(scores, dtype=float)[at], ids)]
        gone += [_first(o, removed, len(ids)) for o in ((order, order[::-1]) if least else (order,))]
    logits, forwards = _spent(model, text, np.concatenate(gone), operator, tokens)
    probabilities = model.probabilities(torch.as_tensor(logits))
    assert probabilities is not None
    p, predicted = probabilities.numpy(), int(logits[0].argmax())
    odds = _odds(logits, predicted, model.problem)
    singles = len(gone[1])
    loo = np.full(len(ids), np.nan)
    if leave_one_out:
        loo[at] = odds[0] - odds[1 : 1 + singles]
    curves = p[1 + singles :].reshape(len(rankings), 2 if least else 1, STEPS, p.shape[1])
    gold = gold_of(model, text)
    found = {
        name: Measured(
            operator,
            np.asarray(scores, dtype=float),
            ordinary,
            removed,
            predicted,
            curve[0],
            curve[1] if least else np.full_like(curve[0], np.nan),
            loo,
            name not in unsigned,
            gold,
        )
        for (name, scores), curve in zip(rankings.items(), curves, strict=True)
    }
    return found, forwards


def _whole(text: Batch) -> Batch:
    if len(text) != 1 or not bool(text.keep.all()):
        raise InputError(
            f"Rankings are measured on one text without padding; seen {len(text)} texts with "
            f"{int((~text.keep).sum())} masked places. Take batch.rows([i])."
        )
    return text


def _check(model: Model, ordinary: np.ndarray, rankings: Mapping[str, np.ndarray], unsigned: Collection[str]) -> None:
    if model.problem == "regression":
        raise InputError(
            f"Faithfulness is measured on probabilities of classes, but {model.id!r} is a regression model, whose "
            "output is none."
        )
    if not ordinary.any():
        raise InputError(
            f"The text has {len(ordinary)} tokens, all of them special: there is nothing to erase. Leave it out."
        )
    for name, scores in rankings.items():
        given = np.asarray(scores, dtype=float)
        if given.shape != ordinary.shape:
            raise InputError(
                f"{name!r} ranks a text of {len(ordinary)} tokens with scores of shape {list(given.shape)}; give one "
                "score per token, of one class."
            )
        if not np.isfinite(given).all():
            raise InputError(
                f"{name!r} has {int((~np.isfinite(given)).sum())} scores that are not finite among {len(given)}; they "
                "cannot be ranked."
            )
    unknown = [name for name in unsigned if name not in rankings]
    if unknown:
        raise InputError(f"Unsigned are {unknown}, but rankings were given for {list(rankings)}.")


def _single(at: np.ndarray, n: int) -> np.ndarray:
    """Each of these places erased alone, bool [len(at), n]."""
    return np.asarray(at[:, None] == np.arange(n))


def _first(order: np.ndarray, removed: np.ndarray, n: int) -> np.ndarray:
    """The first of `order` erased, as many as `removed` says, bool [11, n]."""
    gone = np.zeros((len(removed), n), dtype=bool)
    for row, k in zip(gone, removed, strict=True):
        row[order[:k]] = True
    return gone


def _spent(model: Model, text: Batch, gone: np.ndarray, operator: Operator, tokens: int) -> tuple[np.ndarray, int]:
    """Logits [k, c] in float64, and how many forward passes they took; nan where nothing would be left to read."""
    rows, back = np.unique(gone, axis=0, return_inverse=True)
    left = ~rows.all(1) if operator in TAKING else np.ones(len(rows), dtype=bool)
    seen = erased_logits(model, text, torch.as_tensor(rows[left]), operator, tokens).double().cpu().numpy()
    logits = np.full((len(rows), seen.shape[1]), np.nan)
    logits[left] = seen
    return logits[back.reshape(-1)], int(left.sum())


def _odds(logits: np.ndarray, predicted: int, problem: str) -> np.ndarray:
    """Log-odds of the predicted class [k], in nats: its logit minus the soft maximum of the others."""
    if logits.shape[1] == 1 or problem == "multi_label":
        return np.asarray(logits[:, predicted])
    with np.errstate(invalid="ignore"):  # rows of nan, where nothing was left to read, stay nan
        return np.asarray(logits[:, predicted] - np.logaddexp.reduce(np.delete(logits, predicted, axis=1), axis=1))


def gold_of(model: Model, text: Batch) -> int | None:
    """The decision that the text's label asks for; 0 or 1 for a one-logit head; None without a label.

    Raises: InputError for a label that is no class of the model.
    """
    if text.labels is None:
        return None
    label = text.labels[0]
    if len(model.labels) == 1 and label in (0, 1):
        return int(label)
    choice = Target.parse([label], model.labels, text).choices[0]
    assert isinstance(choice, int)
    return choice
