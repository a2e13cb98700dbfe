"""What erasing does at a place: the effect of every unit, and how soon each ordering of units flips the decision.

A unit is a word, its sub-words erased together. The decision is the class with the largest logit, or for multi-label
heads the set of labels above one half. Effects are Jensen-Shannon divergences in nats, in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.audits.erasure.places import Place
from pellucid.stats import js_divergence, kendall
from pellucid.types import Token

Units = list[list[int]]
NOISE = 1e-7
"""Divergences nearer to zero than this are rounding of float32 networks."""
ORDERINGS = ("random", "attention", "gradient", "attention_x_gradient", "centred", "effect", "greedy")
"""`effect` and `greedy` know the answer: they are ceilings, no competitors."""
RIVALS = ("gradient", "attention_x_gradient", "centred")


def units_of(tokens: Sequence[Token], words: bool = True, specials: Literal["keep", "erase"] = "keep") -> Units:
    """Positions erased together: a word's sub-words, or single tokens; special tokens alone, or not at all."""
    found: dict[object, list[int]] = {}
    for i, t in enumerate(tokens):
        if t.special and specials == "keep":
            continue
        key = (t.sequence, t.word) if words and not t.special and t.word is not None else i
        found.setdefault(key, []).append(i)
    return list(found.values())


def outcomes(logits: Tensor, problem: str) -> tuple[np.ndarray, np.ndarray]:
    """Distributions [k, l, c] (l labels; 1 for single-label heads) and decisions [k, l] of logits [k, c]."""
    z = logits.double()
    if problem == "multi_label":
        p = torch.stack([z.sigmoid(), (-z).sigmoid()], -1)
        return p.cpu().numpy(), (z > 0).long().cpu().numpy()
    return z.softmax(-1)[:, None].cpu().numpy(), z.argmax(-1, keepdim=True).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Effects:
    """One text: u units.

    alpha [u]: attention of the units. effect [u]: JS divergence of the output with the unit erased, averaged over
    labels. support [u]: fall of the predicted class's probability (of the decided side, for labels). flips [u]: whether
    the decision changes. everything, everything_flips: the same for all units at once. probability: of the prediction.
    """

    alpha: np.ndarray
    effect: np.ndarray
    support: np.ndarray
    flips: np.ndarray
    everything: float
    everything_flips: bool
    prediction: np.ndarray
    probability: float

    @property
    def top(self) -> np.ndarray:
        """Weights [u] of the most attended unit, shared among ties."""
        return share_of_best(self.alpha)


def share_of_best(x: np.ndarray) -> np.ndarray:
    """1 on the largest, shared among those as large."""
    best = np.isclose(x, x.max(), rtol=1e-6, atol=0)
    return np.asarray(best / best.sum())


def masks(units: Units, sets: Sequence[Sequence[int]], n: int) -> Tensor:
    """[k, n], False at the positions of the units in each set."""
    kept = torch.ones(len(sets), n, dtype=torch.bool)
    for row, some in zip(kept, sets, strict=True):
        row[[i for u in some for i in units[u]]] = False
    return kept


class Judge:
    """Compares logits with the model's own, for one text."""

    def __init__(self, logits: Tensor, problem: str) -> None:
        self.problem = problem
        p, d = outcomes(logits[None], problem)
        self.p, self.decision = p[0], d[0]
        # the side each label was decided for: the class, or one half's side
        at = self.decision if problem != "multi_label" else 1 - self.decision
        self.at = at[:, None]

    def effect(self, logits: Tensor) -> np.ndarray:
        """JS divergence [k], the mean over labels."""
        return np.asarray(js_divergence(outcomes(logits, self.problem)[0], self.p).mean(-1))

    def held(self, logits: Tensor) -> np.ndarray:
        """Probability [k] of what the model decided, the mean over labels."""
        p = outcomes(logits, self.problem)[0]
        return np.asarray(
            np.take_along_axis(p, np.broadcast_to(self.at, (len(p), *self.at.shape)), -1)[..., 0].mean(-1)
        )

    def flips(self, logits: Tensor) -> np.ndarray:
        """Whether [k] the decision changed."""
        return np.asarray((outcomes(logits, self.problem)[1] != self.decision).any(-1))

    def goal(self, logits: Tensor) -> Tensor:
        """What gradients are of: log probability of the decision, which orders as the probability does and does not
        vanish when that is near 1."""
        z = logits.double()[0]
        if self.problem == "multi_label":
            signs = torch.as_tensor(2 * self.decision - 1, device=z.device)
            return torch.nn.functional.logsigmoid(signs * z).mean()
        return z.log_softmax(-1)[int(self.decision[0])]


def effects(place: Place, units: Units, judge: Judge) -> Effects:
    """The exact effect of each unit, and of all. Cost: u + 1 variants."""
    alpha = place.alpha.double().cpu().numpy()
    n, u = len(alpha), len(units)
    y = place.without(masks(units, [[i] for i in range(u)] + [list(range(u))], n).to(place.alpha.device))
    e, held, flips = judge.effect(y), judge.held(y), judge.flips(y)
    p = float(judge.held(place.logits[None])[0])
    sums = np.array([alpha[g].sum() for g in units])
    return Effects(sums, e[:u], p - held[:u], flips[:u], float(e[u]), bool(flips[u]), judge.decision, p)


def predicted_drops(place: Place, units: Units, judge: Judge) -> dict[str, np.ndarray]:
    """What gradients of attention say of each unit [u]: the gradient, its product with attention, and the first-order
    drop when the unit is erased and the rest scaled, (S - m mean) / (1 - m) with m the unit's weight, S its sum of
    weight times slope and mean that of the row; summed over the place's rows.

    The usual product leaves the scaling out. Cost: a backward pass.
    """
    a, g = (x.double().cpu().numpy() for x in place.slopes(judge.goal))
    product, mean = a * g, (a * g).sum(-1)
    slope, times, centred = [], [], []
    for some in units:
        m, s = a[:, some].sum(-1), product[:, some].sum(-1)
        slope.append(g[:, some].sum())
        times.append(s.sum())
        centred.append(((s - m * mean) / np.maximum(1 - m, 1e-12)).sum())
    return {"gradient": np.array(slope), "attention_x_gradient": np.array(times), "centred": np.array(centred)}


@dataclass(frozen=True, eq=False)
class Path:
    """Units erased one after the other: `held` [u] probability of the decision after 1, 2, ..., and `flipped` [u]."""

    order: np.ndarray
    held: np.ndarray
    flipped: np.ndarray

    @property
    def first(self) -> int | None:
        """How many units are gone when the decision first flips; None if it never does."""
        return int(self.flipped.argmax()) + 1 if self.flipped.any() else None

    @property
    def fraction(self) -> float:
        """The same as a share of all units; 1 where it never flips."""
        return 1.0 if self.first is None else self.first / len(self.order)

    @property
    def reverts(self) -> bool:
        """Whether a flipped decision came back later."""
        return self.first is not None and not bool(self.flipped[self.first - 1 :].all())

    @property
    def area(self) -> float:
        """Mean probability of the decision along the path; lower is sooner."""
        return float(self.held.mean())


def orderings(
    found: Effects, drops: dict[str, np.ndarray], draws: int, rng: np.random.Generator
) -> list[tuple[str, np.ndarray]]:
    """Name and order [u] of every ordering but the greedy one; ties in a random order."""
    u = len(found.alpha)
    named = {"attention": found.alpha, **drops, "effect": found.support}
    random = [("random", rng.permutation(u)) for _ in range(draws)]
    return random + [(k, np.lexsort((rng.random(u), -x))) for k, x in named.items()]


def paths(place: Place, units: Units, orders: Sequence[np.ndarray], judge: Judge) -> list[Path]:
    """Every prefix of every order erased. Cost: u variants per order."""
    n, u = len(place.alpha), len(units)
    sets = [order[: t + 1].tolist() for order in orders for t in range(u)]
    y = place.without(masks(units, sets, n).to(place.alpha.device))
    held, flipped = judge.held(y).reshape(-1, u), judge.flips(y).reshape(-1, u)
    return [Path(o, h, f) for o, h, f in zip(orders, held, flipped, strict=True)]


def greedy(place: Place, units: Units, judge: Judge) -> Path:
    """At each step the unit whose loss costs the decision most: nearly the shortest way. Cost: u (u + 1) / 2
    variants."""
    left, gone = list(range(len(units))), list[int]()
    held, flipped = [], []
    while left:
        y = place.without(masks(units, [[*gone, i] for i in left], len(place.alpha)).to(place.alpha.device))
        h, f = judge.held(y), judge.flips(y)
        best = int(np.lexsort((h, ~f))[0])  # a flip first, then the lowest probability
        held.append(h[best])
        flipped.append(f[best])
        gone.append(left.pop(best))
    return Path(np.array(gone), np.array(held), np.array(flipped))


def single(found: Effects, rng: np.random.Generator) -> dict[str, float]:
    """The single-weight test of one text (Serrano & Smith 2019, section 4), against all other units, not one at random.

    delta_js = e[top] - mean of the others, delta_alpha alike; random_*: the same for a unit drawn at random in place of
    the most attended, the control. one_*: against one random other unit, as the paper does (its code draws a position,
    which may be the top one). Ties for the top are averaged.
    """
    u, e, a, w = len(found.effect), found.effect, found.alpha, found.top
    flips = found.flips.astype(float)
    other = (1 - w) / max(u - 1, 1)
    pick = int(rng.integers(u))
    draw = np.eye(u)[pick]
    rest = (1 - draw) / max(u - 1, 1)
    best = int(w.argmax())
    one = int(rng.choice([i for i in range(u) if i != best])) if u > 1 else best
    rank = np.array([(e > x + NOISE).sum() for x in e])
    hits = share_of_best(e) if e.max() > NOISE else np.full(u, 1 / u)
    hit = (hits > 0).astype(float)
    return {
        "delta_js": float(w @ e - other @ e),
        "delta_alpha": float(w @ a - other @ a),
        "random_delta_js": float(draw @ e - rest @ e),
        "one_delta_js": float(e[best] - e[one]),
        "one_delta_alpha": float(a[best] - a[one]),
        "top_flips": float(w @ flips),
        "one_top_flips": float(flips[best]),
        "one_other_flips": float(flips[one]),
        "other_flips": float(other @ flips),
        "hit": float(w @ hit),
        "chance_hit": float(hit.mean()),
        "rank": float(w @ rank) / max(u - 1, 1),
        "random_rank": float(rank.mean()) / max(u - 1, 1),
        "regret": float(e.max() - w @ e),
        "random_regret": float(e.max() - e.mean()),
        "against": float(w @ (found.support < -NOISE)),
        "random_against": float((found.support < -NOISE).mean()),
        "tau": kendall(a, e),
        "random_tau": kendall(rng.permutation(a), e),
    }
