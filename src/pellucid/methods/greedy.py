"""The control from above: tokens in the order in which a search of the model itself takes them away."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pellucid.encoder.model import Access, Model
from pellucid.methods.gradient import contrast_columns
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register
from pellucid.methods.operators import OPERATORS, Operator
from pellucid.methods.surrogate import Game, games, whole
from pellucid.types import Batch, Target


@dataclass(frozen=True)
class Greedy(Method):
    """Ranks from removing, step by step, the token without which the class loses most: a near-upper bound.

    The first token to go has the highest rank, m of m ordinary tokens, the last one 1. single: texts of up to so many
    ordinary tokens lose one per step; longer ones a tenth of their tokens per step, the strongest alone. operator: as
    in LeaveOneOut. The class is the explained one, by default the predicted one.

    It asks the model what a deletion metric asks it, so it comes near the best order for that operator and class, but
    it is no strict bound. Equal drops, up to rounding, go in the order of the text.

    Unit: rank; unsigned. A contrast is the difference of its two classes' ranks. Not complete.
    Cost: m^2 / 2 forward passes, beyond `single` tokens about 5.5 m; for each class that is asked for.
    Source: control.
    """

    single: int = 48
    operator: Operator = "mask"

    source: ClassVar[str] = "control"
    needs: ClassVar[Access] = Access.OUTPUTS
    unit: ClassVar[str] = "rank"
    caution: ClassVar[str] = (
        "It searches for what a deletion metric measures, by the same operator: read it as a bound for others, "
        "not as an explanation. Ranks tell no amounts, and what breaks the model first need not be what it "
        "reasoned from."
    )

    def __post_init__(self) -> None:
        one_of("Greedy", operator=(self.operator, OPERATORS))
        whole("Greedy", "single", self.single, 0)

    @property
    def name(self) -> str:
        return "greedy"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(signed=False, linear_in_target=False)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        def ranks(game: Game, logits: Tensor, column: int) -> tuple[np.ndarray, int]:
            return self._ranks(model, game, column), 0

        return contrast_columns(target, lambda aim: searched(model, batch, aim, self.operator, ranks))

    def _ranks(self, model: Model, game: Game, column: int) -> np.ndarray:
        """m for the first player to go down to 1 for the last, [m]."""
        step = 1 if game.m <= self.single else ceil(game.m / 10)
        digits = 9 if model.dtype == torch.float64 else 4
        ranks, left = np.zeros(game.m), np.arange(game.m)
        while len(left):
            without = np.zeros(len(left))
            if len(left) > 1:
                present = np.isin(np.arange(game.m), left) & (np.arange(game.m) != left[:, None])
                without = confidence(model, torch.as_tensor(game(present)), column).numpy()
            order = np.argsort(np.round(without, digits), kind="stable")[:step]
            ranks[left[order]] = len(left) - np.arange(len(order))
            left = np.delete(left, order)
        return ranks


Search = Callable[[Game, Tensor, int], tuple[np.ndarray, int]]
"""(the game of a text, its logits [c], a class) -> the players' ranks [m], and how many decompositions they took."""


def searched(model: Model, batch: Batch, target: Target, operator: Operator, ranks: Search) -> Scores:
    """Scores from a search through each text, for the class with the largest weight of each column of the target."""
    logits = model.logits(batch)
    w = target.weights(logits)
    scores = torch.zeros(*batch.input_ids.shape, w.shape[-1]).to(logits)
    played, decomposed = games(model, batch, operator), 0
    for i, (game, columns) in enumerate(zip(played, w.argmax(1).tolist(), strict=True)):
        for t, column in enumerate(columns):
            found, passes = ranks(game, logits[i], column)
            scores[i, game.players, t] = torch.as_tensor(found).to(scores)
            decomposed += passes
    explained = torch.einsum("bc,bct->bt", logits, w)
    tried, pulled = sum(g.forwards for g in played) / len(batch), decomposed / len(batch)
    return Scores(scores, torch.zeros_like(explained), explained, logits, 1 + tried + pulled, pulled)


def confidence(model: Model, logits: Tensor, column: int) -> Tensor:
    """[k]: what rises with the probability of a class, but does not come to rest at 1: its log odds.

    The logit itself where a class is on its own (several labels, regression).
    """
    if model.problem in ("regression", "multi_label"):
        return logits[:, column]
    others = torch.arange(logits.shape[1]) != column
    return logits[:, column] - logits[:, others].logsumexp(1)


register(Greedy())
