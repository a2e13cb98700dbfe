"""Sequential DecompX: a removal search that is led by decompositions, not by trying every token."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pellucid.encoder.model import Access, Model
from pellucid.methods.gradient import contrast_columns
from pellucid.methods.greedy import confidence, searched
from pellucid.methods.integrated import frozen_parts
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register
from pellucid.methods.operators import OPERATORS, Operator, erased
from pellucid.methods.surrogate import Game, whole
from pellucid.types import Batch, Target


def sizes(m: int, steps: int) -> list[int]:
    """How many of m tokens go at each step, at most `steps` of them; what has gone grows geometrically from 1 to m.

    >>> sizes(18, 5)
    [1, 1, 2, 5, 9]
    """
    if m == 0:
        return []
    if steps == 1:
        return [m]
    ends: list[int] = []
    for j in range(steps):
        ends.append(min(m, max(ends[-1] + 1 if ends else 1, round(m ** (j / (steps - 1))))))
    return [int(k) for k in np.diff([0, *ends]) if k]


@dataclass(frozen=True)
class SequentialDecompX(Method):
    """Ranks from removing tokens step by step, as `greedy` does, with a decomposition at each step to say which.

    At each step the text that is left is decomposed against the same with the mask token in the place of every ordinary
    token, through the network frozen half-way (IntegratedDecompX with one point), and the strongest tokens go. So a
    token is judged in the text in which it would be removed next, and evidence that repeats other evidence comes up
    when that has gone. The first token to go has the highest rank, m of m ordinary tokens, the last one 1.

    steps: decompositions; what has gone grows geometrically from one token to all, for most of the drop comes early.
    spare: at steps of at most so many tokens, so many candidates more than are to go are removed one by one, and those
      without which the class loses most go; 0: no such trials.
    operator: how tokens are removed, as in LeaveOneOut; with "pad" the baseline is padding as well. The search serves
      the operator it removes by: choose that of the metric. On three BERT-like classifiers it ranks better than one
      decomposition; on a ModernBERT and on topics of news it does not, and is worse by an operator that is not its own
      (docs/studies/comparison.md).

    What is followed is a class's log odds: its logit minus the others', weighted as by softmax at the whole text.

    Unit: rank; unsigned. A contrast is the difference of its two classes' ranks. Not complete.
    Cost, for each class that is asked for: up to `steps` forward and backward passes, and size + spare forward ones at
    each step with trials (of 18 tokens by default 3 + 3 + 4); one forward pass for the logits.
    Source: Pellucid, from arXiv 2306.02873 (DecompX).
    """

    steps: int = 5
    spare: int = 2
    operator: Operator = "mask"

    source: ClassVar[str] = "Pellucid; from arXiv 2306.02873 (DecompX)"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "rank"
    caution: ClassVar[str] = (
        "Ranks without amounts or signs, searched for the operator it removes by: judged by another one, on "
        "topics of news and on a ModernBERT, it was no better than `decompx` or worse."
    )

    def __post_init__(self) -> None:
        one_of("SequentialDecompX", operator=(self.operator, OPERATORS))
        whole("SequentialDecompX", "steps", self.steps, 1)
        whole("SequentialDecompX", "spare", self.spare, 0)

    @property
    def name(self) -> str:
        return "sequential_decompx" + ("" if self.operator == "mask" else f"_{self.operator}")

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(signed=False, linear_in_target=False)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        def ranks(game: Game, logits: Tensor, column: int) -> tuple[np.ndarray, int]:
            return self._ranks(model, game, column, log_odds(model, logits, column))

        return contrast_columns(target, lambda aim: searched(model, batch, aim, self.operator, ranks))

    def _ranks(self, model: Model, game: Game, column: int, weights: Tensor) -> tuple[np.ndarray, int]:
        """m for the first player to go down to 1 for the last, [m]; and how many decompositions that took."""
        digits = 9 if model.dtype == torch.float64 else 4
        ranks, left, passes = np.zeros(game.m), np.arange(game.m), 0
        for size in sizes(game.m, self.steps):
            order = np.arange(len(left))
            if len(left) > 1:
                parts = self._parts(model, game, left, weights)
                order, passes = np.argsort(-np.round(parts, digits), kind="stable"), passes + 1
            if size <= self.spare and len(left) > size:
                tried = order[: size + self.spare]
                present = np.isin(np.arange(game.m), left) & (np.arange(game.m) != left[tried, None])
                without = confidence(model, torch.as_tensor(game(present)), column).numpy()
                order = tried[np.argsort(np.round(without, digits), kind="stable")]
            ranks[left[order[:size]]] = len(left) - np.arange(size)
            left = np.delete(left, order[:size])
        return ranks, passes

    def _parts(self, model: Model, game: Game, left: np.ndarray, weights: Tensor) -> np.ndarray:
        """What each of the players that are left adds to a text without any, half-way, [len(left)]."""
        gone = torch.zeros_like(game.text.keep)
        gone[0, np.delete(game.players.cpu().numpy(), left)] = True
        text, words = erased(model, game.text, gone, self.operator)
        ordinary = torch.zeros_like(gone)
        ordinary[0, game.players] = True
        there = ordinary & ~gone
        if self.operator == "delete":  # the text has closed up
            ordinary = there = there[:, ~gone[0]]
        fill = self.operator if self.operator in ("pad", "mean_embedding") else "mask"
        base, base_words = erased(model, text, ordinary, fill)
        x, start = model.embed(text, words), model.embed(base, base_words)
        parts = frozen_parts(model.require_net(), x, start, text.keep, weights[None, :, None])
        return np.asarray(parts[0, there[0], 0].cpu().double().numpy())


def log_odds(model: Model, logits: Tensor, column: int) -> Tensor:
    """Weights [c] of a class's log odds, linear around logits [c]; of the class's logit where it is on its own."""
    w = torch.zeros_like(logits)
    w[column] = 1.0
    if len(logits) == 1 or model.problem in ("regression", "multi_label"):
        return w
    others = torch.arange(len(logits), device=logits.device) != column
    w[others] = -logits[others].softmax(0)
    return w


register(SequentialDecompX())
register(SequentialDecompX(operator="delete"))
