"""Stability: whether an explanation stays when the text hardly changes and the model's answer does not."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods.operators import CHUNK, special_mask
from pellucid.metrics.measured import decided
from pellucid.metrics.metric import register
from pellucid.stats import kendall
from pellucid.types import Batch

LEAST = 3
"""Fewer shared ordinary tokens than this have no rank correlation worth a number."""
TRIED = 4
"""Candidates that are tried for each near-duplicate asked for."""


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Near-duplicates of one text: rows of `batch` (None if none was found), each with another token at its place.

    same [m, n]: the ordinary tokens that each shares with the text. forwards: passes spent on finding them.
    """

    batch: Batch | None
    places: tuple[int, ...]
    same: Bool[np.ndarray, "m n"]
    forwards: int


@dataclass(frozen=True, eq=False)
class Pair:
    """Scores of a text [n] and of its near-duplicate [n]; same [n]: ordinary tokens that both share."""

    scores: Float[np.ndarray, "n"]
    twin: Float[np.ndarray, "n"]
    same: Bool[np.ndarray, "n"]


def near_duplicates(model: Model, text: Batch, count: int = 3, change: float = 0.05, seed: int = 0) -> Duplicates:
    """Copies of one text in which one ordinary token gave way to the nearest in the model's table of word embeddings.

    Places are drawn by `seed` and the text's ids; nearest is by cosine, special tokens and the token itself left out.
    Kept are the first `count` of at most TRIED * count copies with the same decision and a probability of the
    predicted class within `change`: the explanation of a decision that moved may move. Length, positions and all other
    tokens are the same.

    Cost: one forward pass per copy tried and one for the text; reading the table once.
    Raises: InputError for several texts, padding, a regression model, or a model without a table of words.
    Source: after Alvarez-Melis & Jaakkola 2018, arXiv 1806.08049, and, for text, Sinha et al. 2021, arXiv 2108.04990;
    differs from both in that copies are not sought for the worst case.
    """
    if len(text) != 1 or not bool(text.keep.all()):
        raise InputError(
            f"Near-duplicates are made of one text without padding; seen {len(text)}. Take batch.rows([i])."
        )
    if model.problem == "regression" or model.vocabulary is None:
        why = "gives no probabilities" if model.problem == "regression" else "has no table of word embeddings"
        raise InputError(f"Near-duplicates are judged by probabilities and made of neighbours, but {model.id!r} {why}.")
    ids = text.input_ids[0]
    ordinary = ~special_mask(model, text)[0].cpu().numpy()
    rng = np.random.default_rng([seed, *ids.tolist()])
    tried = rng.permutation(ordinary.nonzero()[0])[: TRIED * count]
    if not len(tried):
        return Duplicates(None, (), np.zeros((0, len(ordinary)), dtype=bool), 0)
    many, at = text.rows_repeated(1 + len(tried)), torch.as_tensor(tried, device=ids.device)
    changed = many.input_ids.clone()
    changed[torch.arange(1, 1 + len(tried), device=ids.device), at] = _nearest(model, ids[at])
    logits = model.logits(Batch(changed, many.keep, many.token_type_ids)).double().cpu()
    seen = model.probabilities(logits)
    assert seen is not None
    kept = _unmoved(seen.numpy(), int(logits[0].argmax()), change)[:count]
    places = tried[kept]
    same = ordinary & (np.arange(len(ordinary)) != places[:, None])
    copies = _rows(model, text, changed[torch.as_tensor(1 + kept, device=ids.device)], places)
    return Duplicates(copies, tuple(places.tolist()), same, 1 + len(tried))


def _unmoved(p: np.ndarray, predicted: int, change: float) -> np.ndarray:
    """Which rows of p [1 + m, c] behind the first decide as it does, with about the same probability."""
    near = np.abs(p[1:, predicted] - p[0, predicted]) <= change
    return np.flatnonzero(near & (decided(p[1:]) == decided(p[:1])))


def _nearest(model: Model, ids: Tensor) -> Tensor:
    """For each id [m] the nearest other that is no special token, by cosine of word embeddings."""
    own = torch.nn.functional.normalize(model.word_embeddings(ids[None])[0].float(), dim=-1)
    best, found = torch.full_like(own[:, 0], -2.0), ids.clone()
    special = torch.tensor(model.special_ids(), dtype=torch.long, device=ids.device)
    count = model.vocabulary or 0
    for start in range(0, count, CHUNK):
        chunk = torch.arange(start, min(start + CHUNK, count), device=ids.device)
        words = torch.nn.functional.normalize(model.word_embeddings(chunk[None])[0].float(), dim=-1)
        near = own @ words.T
        near[(chunk[None] == ids[:, None]) | torch.isin(chunk, special)] = -2.0
        top, where = near.max(1)
        found = torch.where(top > best, chunk[where], found)
        best = torch.maximum(best, top)
    return found


def _rows(model: Model, text: Batch, ids: Tensor, places: np.ndarray) -> Batch | None:
    """The text with ids [m, n] that differ at one place each; the token there is named anew and keeps its offsets."""
    if not len(places):
        return None
    many, tokens = text.rows_repeated(len(places)), None
    if text.tokens is not None:
        named = []
        for row, at in zip(ids, places.tolist(), strict=True):
            new = int(row[at])
            piece = f"[{new}]" if model.tokenizer is None else model.tokenizer.convert_ids_to_tokens([new])[0]
            own = text.tokens[0]
            named.append((*own[:at], replace(own[at], id=new, text=piece), *own[at + 1 :]))
        tokens = tuple(named)
    return Batch(ids, many.keep, many.token_type_ids, tokens=tokens)


@register("stability", 1, "Kendall's tau-b", "after Alvarez-Melis & Jaakkola 2018, arXiv 1806.08049")
def near_duplicate_tau(pair: Pair) -> float:
    """Rank correlation of the scores of a text and its near-duplicate over the tokens that both share.

    nan for fewer than LEAST of these.
    """
    return math.nan if pair.same.sum() < LEAST else kendall(pair.scores[pair.same], pair.twin[pair.same])
