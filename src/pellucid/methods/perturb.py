"""Methods that change the input and watch the output, and the random control."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register
from pellucid.methods.operators import OPERATORS, TAKING, Operator, erased_logits, special_mask
from pellucid.types import Batch, Target


@dataclass(frozen=True)
class LeaveOneOut(Method):
    """The logit's drop when one token is masked, deleted, or taken away otherwise (Li et al. 2016, arXiv 1612.08220).

    operator: "mask" and "pad" put that token's id in its place, "delete" removes it and closes the gap,
    "attention_mask" hides it where it is, "mean_embedding" puts the mean word in its place. Special tokens are left
    alone and score 0.

    Unit: logit. Signed. Not complete: effects of single removals need not add up, and the gap says by how much.
    Cost: one forward pass per ordinary token.
    """

    operator: Operator = "mask"

    source: ClassVar[str] = "Li, Monroe & Jurafsky 2016, arXiv 1612.08220"
    needs: ClassVar[Access] = Access.OUTPUTS
    caution: ClassVar[str] = (
        "One token at a time: of evidence that stands twice neither part seems to matter, and words that only "
        "work together each get all of it. A text with a hole is one that nobody wrote, so compare two operators."
    )

    def __post_init__(self) -> None:
        one_of("LeaveOneOut", operator=(self.operator, OPERATORS))

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
            if self.operator in TAKING and int(batch.keep[i].sum()) < 2:
                continue  # nothing would be left to read
            gone = at[:, None] == batch.keep[i].nonzero()[:, 0]
            left = erased_logits(model, batch.rows([i]), gone, self.operator)
            scores[i, at] = (logits[i] - left) @ w[i]
            forwards += len(at)
        explained = torch.einsum("bc,bct->bt", logits, w)
        return Scores(scores, torch.zeros_like(explained), explained, logits, 1 + forwards / len(batch), 0.0)


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
    caution: ClassVar[str] = (
        "Always: it is the control. A method that is not clearly ahead of it tells nothing about the text."
    )

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
