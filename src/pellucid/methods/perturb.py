"""Methods that change the input and watch the output, and the random control."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register, slabs
from pellucid.types import Batch, Target

Operator = Literal["mask", "delete", "pad"]


def special_mask(model: Model, batch: Batch) -> Tensor:
    """bool [b, n]: special tokens, from the tokens where known, else from the tokenizer's special ids."""
    ids = batch.input_ids
    mask = torch.zeros_like(ids, dtype=torch.bool)
    if batch.tokens is not None:
        for i, row in enumerate(batch.tokens):
            at = batch.keep[i].nonzero()[:, 0]
            mask[i, at] = torch.tensor([t.special for t in row], device=ids.device)
    else:
        for special in model.special_ids():
            mask |= ids == special
    return mask


def replacement(model: Model, kind: Literal["mask", "pad"], who: str) -> int:
    """The id of the mask or padding token; InputError where the tokenizer has none."""
    token = getattr(model.tokenizer, f"{kind}_token_id", None)
    if token is None and kind == "pad":
        token = getattr(model.hf.config, "pad_token_id", None)
    if token is None:
        have = "no tokenizer" if model.tokenizer is None else f"a tokenizer without a {kind} token"
        raise InputError(
            f'{who} puts the {kind} token in a token\'s place, but {model.id!r} has {have}. Use operator="delete", or '
            'for integrated gradients the baseline "zero".'
        )
    return int(token)


@dataclass(frozen=True)
class LeaveOneOut(Method):
    """The logit's drop when one token is masked, deleted, or replaced by padding (Li et al. 2016, arXiv 1612.08220).

    operator: "mask" and "pad" put that token's id in its place, "delete" removes it and closes the gap. Special tokens
    are left alone and score 0.

    Unit: logit. Signed. Not complete: effects of single removals need not add up, and the gap says by how much.
    Cost: one forward pass per ordinary token.
    """

    operator: Operator = "mask"

    source: ClassVar[str] = "Li, Monroe & Jurafsky 2016, arXiv 1612.08220"
    needs: ClassVar[Access] = Access.OUTPUTS

    def __post_init__(self) -> None:
        one_of("LeaveOneOut", operator=(self.operator, ("mask", "delete", "pad")))

    @property
    def name(self) -> str:
        return "leave_one_out" + ("" if self.operator == "mask" else f"_{self.operator}")

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees()

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        logits = model.logits(batch)
        w = target.weights(logits)
        special = special_mask(model, batch)
        scores = torch.zeros(*batch.input_ids.shape, w.shape[-1], dtype=logits.dtype, device=logits.device)
        forwards = 0
        for i in range(len(batch)):
            at = (batch.keep[i] & ~special[i]).nonzero()[:, 0]
            if self.operator == "delete" and int(batch.keep[i].sum()) < 2:
                continue  # nothing would be left to read
            text = batch.rows([i])
            for part in slabs(len(at), text.input_ids.shape[1]):
                left = model.logits(without(model, text, at[part], self.operator, self.name))
                scores[i, at[part]] = (logits[i] - left) @ w[i]
            forwards += len(at)
        explained = torch.einsum("bc,bct->bt", logits, w)
        return Scores(scores, torch.zeros_like(explained), explained, logits, 1 + forwards / len(batch), 0.0)


def without(model: Model, text: Batch, at: Tensor, operator: Operator, who: str) -> Batch:
    """One text as len(at) rows, each without one of the tokens `at`."""
    many = text.rows_repeated(len(at))
    rows = torch.arange(len(at), device=at.device)
    if operator != "delete":
        ids = many.input_ids.clone()
        ids[rows, at] = replacement(model, operator, who)
        return Batch(ids, many.keep, many.token_type_ids)
    n = many.input_ids.shape[1]
    left = torch.arange(n - 1, device=at.device).expand(len(at), -1)
    left = left + (left >= at[:, None]).long()
    types = many.token_type_ids
    return Batch(
        many.input_ids.gather(1, left), many.keep.gather(1, left), None if types is None else types.gather(1, left)
    )


@dataclass(frozen=True)
class Random(Method):
    """Standard normal scores: the control that every method must beat.

    seed: together with the token ids it fixes the draws, so a text has the same scores alone and in any batch; each
    class has draws of its own. Unit: none. Cost: one forward pass, for the prediction.
    """

    seed: int = 0

    source: ClassVar[str] = "control"
    needs: ClassVar[Access] = Access.OUTPUTS
    unit: ClassVar[str] = "none (random)"

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"Random needs a whole number from 0 as seed; seen seed={self.seed!r}.")

    @property
    def name(self) -> str:
        return "random"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees()

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        logits = model.logits(batch)
        w = target.weights(logits)
        draws = torch.zeros(*batch.input_ids.shape, logits.shape[1], dtype=logits.dtype, device=logits.device)
        for i, row in enumerate(batch.input_ids):
            ids = row[batch.keep[i]].tolist()
            normal = np.random.default_rng([self.seed, *ids]).normal(size=(len(ids), logits.shape[1]))
            draws[i, batch.keep[i]] = torch.as_tensor(normal).to(draws)
        explained = torch.einsum("bc,bct->bt", logits, w)
        return Scores(draws @ w, torch.zeros_like(explained), explained, logits, 1.0, 0.0)


register(LeaveOneOut())
register(LeaveOneOut(operator="delete"))
register(LeaveOneOut(operator="pad"))
register(Random())
