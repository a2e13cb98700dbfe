"""Methods that run a text with some of its tokens away: occlusion, LIME, KernelSHAP, sampled Shapley values.

Ordinary tokens are the players of a game whose value is the logits of the text with only some of them present; special
tokens always stay and score 0. Everything is linear in the logits, so all classes cost what one costs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from math import comb, factorial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register
from pellucid.methods.operators import OPERATORS, Operator, erased_logits, special_mask
from pellucid.types import Batch, Target


class Game:
    """The logits of one text as a function of which of its tokens at `players` are present; counts its forwards."""

    def __init__(self, model: Model, text: Batch, players: Tensor, operator: Operator) -> None:
        self.model, self.text, self.players, self.operator = model, text, players, operator
        self.forwards = 0

    @property
    def m(self) -> int:
        """How many players there are."""
        return len(self.players)

    def __call__(self, present: np.ndarray) -> np.ndarray:
        """Logits [k, c] in float64 for the rows of present, bool [k, m]; equal rows are run once."""
        rows, back = np.unique(present, axis=0, return_inverse=True)
        self.forwards += len(rows)
        gone = torch.zeros(len(rows), self.text.input_ids.shape[1], dtype=torch.bool, device=self.players.device)
        gone[:, self.players] = torch.as_tensor(~rows, device=self.players.device)
        logits = erased_logits(self.model, self.text, gone, self.operator)
        return np.asarray(logits.cpu().double().numpy()[back.reshape(-1)])


def drawn(ids: Tensor, seed: int) -> np.random.Generator:
    """Draws that the seed and a text's ids fix, so that neither batch mates nor padding change them."""
    return np.random.default_rng([seed, *ids.tolist()])


def whole(who: str, field: str, value: object, least: int) -> None:
    """InputError unless `value` is a whole number, at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{who} needs a whole number from {least} on as {field}; seen {field}={value!r}.")


def games(model: Model, batch: Batch, operator: Operator) -> list[Game]:
    """The game of each text."""
    ordinary = batch.keep & ~special_mask(model, batch)
    return [Game(model, batch.rows([i]), ordinary[i].nonzero()[:, 0], operator) for i in range(len(batch))]


Split = Callable[[Game, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Deals out a game: each player's part [m, c] of the logits, and what is left over [c]; there is a player."""


def dealt(model: Model, batch: Batch, target: Target, operator: Operator, seed: int, split: Split) -> Scores:
    """Scores from a rule for one text; a text without ordinary tokens leaves its logit unallocated."""
    logits = model.logits(batch)
    w = target.weights(logits)
    explained = torch.einsum("bc,bct->bt", logits, w)
    scores, left = torch.zeros(*batch.input_ids.shape, w.shape[-1]).to(logits), explained.clone()
    played = games(model, batch, operator)
    for i, game in enumerate(played):
        if game.m:
            parts, rest = split(game, drawn(batch.input_ids[i, batch.keep[i]], seed))
            columns = w[i].cpu().double().numpy()
            scores[i, game.players] = torch.as_tensor(parts @ columns).to(scores)
            left[i] = torch.as_tensor(rest @ columns).to(left)
    return Scores(scores, left, explained, logits, 1 + sum(g.forwards for g in played) / len(batch), 0.0)


@dataclass(frozen=True)
class Occlusion(Method):
    """The logit's drop when neighbouring tokens are masked together, averaged over the windows that hold a token.

    window: how many ordinary tokens, in their order, go at once (all of a shorter text); windows slide by one.
    operator: as in LeaveOneOut, which is the same with a window of 1.

    Unit: logit. Signed. Not complete. Cost: one forward pass per window, at most one per ordinary token.
    Source: Zeiler & Fergus 2014, arXiv 1311.2901; the average as in Captum.
    """

    window: int = 3
    operator: Operator = "mask"

    source: ClassVar[str] = "Zeiler & Fergus 2014, arXiv 1311.2901"
    needs: ClassVar[Access] = Access.OUTPUTS
    caution: ClassVar[str] = (
        "A token gets the drop of its neighbours as well, and scores add up to far more than the logit. Texts "
        "with holes are texts that nobody wrote, and of evidence that stands twice either part looks unimportant."
    )

    def __post_init__(self) -> None:
        one_of("Occlusion", operator=(self.operator, OPERATORS))
        whole("Occlusion", "window", self.window, 1)

    @property
    def name(self) -> str:
        return "occlusion"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees()

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        return dealt(model, batch, target, self.operator, 0, self._split)

    def _split(self, game: Game, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        start, at = np.arange(max(1, game.m - self.window + 1))[:, None], np.arange(game.m)
        hidden = (start <= at) & (at < start + self.window)
        values = game(np.concatenate([np.ones((1, game.m), bool), ~hidden]))
        drops = values[0] - values[1:]
        return hidden.T @ drops / hidden.sum(0)[:, None], np.zeros(values.shape[1])


def lime_samples(m: int, samples: int, draw: np.random.Generator) -> np.ndarray:
    """bool [samples, m]: the text itself, then texts from which 1 to m tokens are away, every number equally likely."""
    away = draw.integers(1, m + 1, size=samples - 1)
    order = draw.permuted(np.tile(np.arange(m), (samples - 1, 1)), axis=1)
    return np.concatenate([np.ones((1, m), bool), order >= away[:, None]])


def ridge(z: np.ndarray, y: np.ndarray, weights: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [m, c] and intercepts [c] of weighted ridge regression of y [k, c] on z [k, m]; the intercept is
    free of the penalty."""
    share = weights / weights.sum()
    z_mean, y_mean = share @ z, share @ y
    x = z - z_mean
    beta = np.linalg.solve((x.T * weights) @ x + alpha * np.eye(z.shape[1]), (x.T * weights) @ (y - y_mean))
    return beta, y_mean - z_mean @ beta


@dataclass(frozen=True)
class Lime(Method):
    """A linear model of the logit around the text, fitted to copies with random tokens away (Ribeiro et al. 2016).

    samples: copies, the text itself among them. width: of the kernel exp(-D^2 / (2 width^2)) over the cosine distance D
    of a copy's presences from the text's. alpha: of the ridge penalty. operator: as in LeaveOneOut. seed: with the
    token ids it fixes the draws.

    `unallocated` is the linear model's intercept, so the gap is its error at the text itself. Unit: logit per presence.
    Signed. Not complete. Cost: at most `samples` forward passes.
    Source: arXiv 1602.04938; samples, kernel and penalty as in its authors' code for text.
    Differs from it: tokens instead of distinct words, the logit instead of the probability, and no choice of features.
    """

    samples: int = 100
    width: float = 0.25
    alpha: float = 1.0
    operator: Operator = "mask"
    seed: int = 0

    source: ClassVar[str] = "Ribeiro, Singh & Guestrin 2016, arXiv 1602.04938"
    needs: ClassVar[Access] = Access.OUTPUTS
    caution: ClassVar[str] = (
        "Sampling noise: another seed, width or number of samples gives another ranking, most of all on long "
        "texts, and a linear model cannot hold words that work together. Run two seeds before you believe a "
        "difference, and look at the gap."
    )

    def __post_init__(self) -> None:
        one_of("Lime", operator=(self.operator, OPERATORS))
        whole("Lime", "samples", self.samples, 2)
        whole("Lime", "seed", self.seed, 0)
        for field, value in (("width", self.width), ("alpha", self.alpha)):
            if not isinstance(value, (int, float)) or not value > 0:
                raise InputError(f"Lime needs a number above 0 as {field}; seen {field}={value!r}.")

    @property
    def name(self) -> str:
        return "lime"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees()

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        return dealt(model, batch, target, self.operator, self.seed, self._split)

    def _split(self, game: Game, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        present = lime_samples(game.m, self.samples, draw)
        distance = 1 - np.sqrt(present.mean(1))
        weights = np.exp(-(distance**2) / (2 * self.width**2))
        return ridge(present.astype(float), game(present), weights, self.alpha)


def shapley_samples(m: int, samples: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coalitions, bool [k, m], neither empty nor whole, and their weights [k].

    All of them with the Shapley kernel's weights where these are at most `samples`; else drawn by the kernel, each
    together with its complement (Covert & Lee 2021, arXiv 2012.01536), with equal weights.
    """
    if 2**m - 2 <= samples:
        every = np.array(list(product((False, True), repeat=m)))[1:-1].reshape(-1, m)
        sizes = every.sum(1)
        return every, np.array([(m - 1) / (comb(m, s) * s * (m - s)) for s in sizes.tolist()])
    sizes = np.arange(1, m)
    chance = 1 / (sizes * (m - sizes))
    taken = draw.choice(sizes, size=(samples + 1) // 2, p=chance / chance.sum())
    half = draw.permuted(np.tile(np.arange(m), (len(taken), 1)), axis=1) < taken[:, None]
    return np.stack([half, ~half], 1).reshape(-1, m)[:samples], np.ones(samples)


def constrained(z: np.ndarray, y: np.ndarray, weights: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Weighted least squares of y [k, c] on z [k, m] without intercept, the coefficients [m, c] summing to total [c].

    Where z leaves directions open, the solution nearest to even shares.
    """
    m = z.shape[1]
    root = np.sqrt(weights)[:, None]
    even = np.broadcast_to(total / m, (m, len(total)))
    # off their row means the coalitions see only differences between players: the sum stays as it is
    x = z - z.mean(1, keepdims=True)
    return np.asarray(even + np.linalg.lstsq(root * x, root * (y - z @ even), rcond=1e-10)[0])


@dataclass(frozen=True)
class KernelShap(Method):
    """Shapley values of the tokens by weighted least squares over random coalitions (Lundberg & Lee 2017).

    samples: coalitions besides the whole and the empty one; where these are all there are, the values are exact.
    operator: as in LeaveOneOut. seed: with the token ids it fixes the draws.

    `unallocated` is the logit with every ordinary token away. Complete: the sum is a constraint of the fit, whatever
    its error. With fewer coalitions than tokens the fit is open in places, and shares are even there.
    Unit: logit. Signed. Cost: at most `samples` + 2 forward passes.
    Source: arXiv 1705.07874; drawn with complements as in Covert & Lee 2021, arXiv 2012.01536.
    """

    samples: int = 100
    operator: Operator = "mask"
    seed: int = 0

    source: ClassVar[str] = "Lundberg & Lee 2017, arXiv 1705.07874"
    needs: ClassVar[Access] = Access.OUTPUTS
    caution: ClassVar[str] = (
        "It adds up by construction, so the sum is no sign of accuracy: with few samples for many tokens the "
        "shares are noise, or simply even. What absence means ([MASK], by default) is part of every number."
    )

    def __post_init__(self) -> None:
        one_of("KernelShap", operator=(self.operator, OPERATORS))
        whole("KernelShap", "samples", self.samples, 1)
        whole("KernelShap", "seed", self.seed, 0)

    @property
    def name(self) -> str:
        return "kernel_shap"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(complete=True)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        return dealt(model, batch, target, self.operator, self.seed, self._split)

    def _split(self, game: Game, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        present, weights = shapley_samples(game.m, self.samples, draw)
        ends = np.repeat([[True], [False]], game.m, 1)
        full, empty, *values = game(np.concatenate([ends, present]))
        y = np.reshape(values, (-1, len(full))) - empty
        return constrained(present.astype(float), y, weights, full - empty), empty


def orders(m: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """Permutations [p, m] of m players: all where these are at most `count`, else `count` drawn ones, every second the
    last one reversed."""
    if m < 10 and factorial(m) <= count:
        return np.array(list(permutations(range(m))))
    half = draw.permuted(np.tile(np.arange(m), ((count + 1) // 2, 1)), axis=1)
    return np.stack([half, half[:, ::-1]], 1).reshape(-1, m)[:count]


@dataclass(frozen=True)
class SampledShapley(Method):
    """Shapley values of the tokens: the mean change of the logit as a token joins, over random orders of joining.

    permutations: orders, half of them the others reversed; where these are all there are, the values are exact.
    operator: as in LeaveOneOut. seed: with the token ids it fixes the draws.

    `unallocated` is the logit with every ordinary token away. Complete: the changes of one order add up to the way from
    there to the text. Unit: logit. Signed. Cost: at most `permutations` forward passes per ordinary token.
    Source: Castro, Gomez & Tejada 2009, doi 10.1016/j.cor.2008.04.004; reversed orders as in Mitchell et al. 2022,
    arXiv 2104.12199.
    """

    permutations: int = 10
    operator: Operator = "mask"
    seed: int = 0

    source: ClassVar[str] = "Castro, Gomez & Tejada 2009, doi 10.1016/j.cor.2008.04.004"
    needs: ClassVar[Access] = Access.OUTPUTS
    caution: ClassVar[str] = (
        "The noise falls with the root of the number of orders, and ten are few for a long text: run two seeds. "
        "Most of the texts it asks about have many words away and are foreign to the model."
    )

    def __post_init__(self) -> None:
        one_of("SampledShapley", operator=(self.operator, OPERATORS))
        whole("SampledShapley", "permutations", self.permutations, 1)
        whole("SampledShapley", "seed", self.seed, 0)

    @property
    def name(self) -> str:
        return "sampled_shapley"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(complete=True)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        return dealt(model, batch, target, self.operator, self.seed, self._split)

    def _split(self, game: Game, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        place = orders(game.m, self.permutations, draw).argsort(1)  # [p, m]: when each player joins
        present = place[:, None] < np.arange(game.m + 1)[:, None]
        values = game(present.reshape(-1, game.m)).reshape(*present.shape[:2], -1)
        changes = np.take_along_axis(np.diff(values, axis=1), place[..., None], 1)
        return changes.mean(0), values[0, 0]


register(Occlusion())
register(Lime())
register(KernelShap())
register(SampledShapley())
