"""Every attention row with the same head output: a polytope, measured by linear programs (scipy, HiGHS).

For one row `alpha_row` [m] over the keys that it may attend and the head's values `v_head` [m, e], the rows a with
a V = alpha V, a 1 = 1 and a >= 0. All in float64; a row from a float32 model is scaled to sum to one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from pellucid.errors import InputError
from pellucid.methods.effective import column_space

Row = Float[np.ndarray, "m"]
TIGHT = 1e-9
"""Two weights nearer than this are the same: the programs' own tolerance is 1e-10."""


def array(x: object) -> np.ndarray:
    """A numpy array or torch tensor as float64 numpy."""
    return np.asarray(x.detach().cpu().double().numpy() if isinstance(x, torch.Tensor) else x, dtype=np.float64)


def distribution(alpha_row: object) -> np.ndarray:
    """One attention row [m], scaled to sum to one exactly; InputError if it is none."""
    a = array(alpha_row)
    if a.ndim != 1 or not len(a) or not np.isfinite(a).all() or (a < 0).any() or abs(a.sum() - 1) > 1e-3:
        seen = f"a least weight of {a.min():.3g} and a sum of {a.sum():.6g}" if a.size else "nothing"
        raise InputError(
            f"alpha_row must be one row [m] of weights of at least 0 that sum to 1; seen {list(a.shape)}, {seen}."
        )
    return np.asarray(a / a.sum())


@dataclass(eq=False)
class Polytope:
    """{a >= 0 : a basis = row basis}; `basis` [m, r] is orthonormal, so the equations are scaled alike.

    `programs` counts the linear programs solved.
    """

    row: np.ndarray
    basis: np.ndarray
    programs: int = field(default=0, init=False)

    @classmethod
    def of(cls, alpha_row: object, v_head: object) -> "Polytope":
        """Of one row of one head; InputError if the shapes do not fit or the row is no distribution."""
        a, v = distribution(alpha_row), array(v_head)
        if v.ndim != 2 or len(a) != len(v) or not v.size or not np.isfinite(v).all():
            raise InputError(
                f"alpha_row [m] {list(a.shape)} and v_head [m, e] {list(v.shape)} must agree in m and be finite."
            )
        basis, _, rank = column_space(torch.from_numpy(v))
        return cls(a, basis[:, : int(rank)].numpy())

    @property
    def dimension(self) -> int:
        """Of the null space of [V, 1]; 0: the row is unique."""
        return int(self.basis.shape[0] - self.basis.shape[1])

    @cached_property
    def _program(self) -> Callable[[np.ndarray], np.ndarray | None]:
        from scipy.optimize import linprog

        options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        equations, goal = np.ascontiguousarray(self.basis.T), self.row @ self.basis

        def solve(direction: np.ndarray) -> np.ndarray | None:
            found = linprog(-direction, A_eq=equations, b_eq=goal, method="highs-ds", options=options)
            return None if found.status != 0 else np.asarray(found.x)

        return solve

    def farthest_along(self, direction: np.ndarray) -> np.ndarray:
        """The row of the polytope with the largest direction . a; the given row where the solver finds none.

        The vertex is put exactly onto the equations, so that its output is that of the given row up to rounding.
        """
        if self.dimension == 0:
            return self.row
        self.programs += 1
        vertex = self._program(direction)
        if vertex is None:
            return self.row
        step = vertex - self.row
        step -= self.basis @ (self.basis.T @ step)
        made = self.row + step
        low = made < 0  # by the solver's tolerance: go back a little, or round what is nothing
        if (made[low] < -1e-9).any():
            made = self.row + step * float(np.min(self.row[low] / -step[low], initial=1.0))
        made = np.clip(made, 0.0, None)
        return made if self.residual(made) <= TIGHT else self.row

    def residual(self, a: np.ndarray) -> float:
        """How far a's output is from the row's, as the largest of the scaled equations."""
        return float(np.abs((a - self.row) @ self.basis).max())

    def interval(self, j: int) -> tuple[float, float]:
        """The least and the largest value that weight j takes. Cost: two programs."""
        unit = np.zeros(len(self.row))
        unit[j] = 1.0
        return float(self.farthest_along(-unit)[j]), float(self.farthest_along(unit)[j])


def weight_interval(
    alpha_row: Float[np.ndarray | torch.Tensor, "m"], v_head: Float[np.ndarray | torch.Tensor, "m e"], j: int
) -> tuple[float, float]:
    """The values that weight j may take while the head's output stays the same: (low, high).

    alpha_row [m], v_head [m, e]: one row over the keys that it may attend, and the head's values of these keys (numpy
    or torch). Cost: two linear programs; none where the row is unique, which gives (alpha_j, alpha_j).
    Raises: InputError if shapes do not fit or alpha_row is no distribution.
    Source: ours, on the null space of Brunner et al. 2020, arXiv 1908.04211, with weights that stay at least 0.
    """
    shape = Polytope.of(alpha_row, v_head)
    if not 0 <= j < len(shape.row):
        raise InputError(f"There is no weight {j}; the row has weights 0 to {len(shape.row) - 1}.")
    low, high = shape.interval(j)
    return min(low, float(shape.row[j])), max(high, float(shape.row[j]))


def weight_intervals(alpha_row: object, v_head: object) -> tuple[np.ndarray, np.ndarray]:
    """`weight_interval` of every weight: low [m], high [m]. Cost: 2 m programs."""
    return _intervals(Polytope.of(alpha_row, v_head))


def _intervals(shape: Polytope) -> tuple[np.ndarray, np.ndarray]:
    ends = np.array([shape.interval(j) for j in range(len(shape.row))])
    return np.minimum(ends[:, 0], shape.row), np.maximum(ends[:, 1], shape.row)


@dataclass(frozen=True, eq=False)
class Witness:
    """A row far from the given one with the same output.

    alpha [m]; distance: total variation to the given row; bound: an upper bound on that of any valid row, None if it
    was not asked for; residual: largest difference of the scaled equations; programs: linear programs solved.
    """

    alpha: np.ndarray
    distance: float
    bound: float | None
    residual: float
    programs: int


def witness(alpha_row: object, v_head: object, starts: int = 4, seed: int = 0, bound: bool = False) -> Witness:
    """The farthest attention row with the same output that is found, in total variation.

    The largest distance is the maximum of a convex function, so it is sought: for signs s of a random direction that
    keeps the output, maximise s . a, replace s by the signs of a - alpha, until nothing is gained; from several starts.
    What is found is a lower bound (99 % of the optimum on average over small cases, docs/LOG.md). `bound` adds the
    upper bound min(sum of possible gains, sum of possible losses) from all weights' intervals.

    It is "same output", not "this model could produce it": see `key_constrained`.
    Cost: 3 to 6 programs per start, and 2 m for the bound. Raises: InputError as `weight_interval`.
    Source: ours; held against the mixed-integer optimum in the tests.
    """
    if starts < 1:
        raise InputError(f"witness needs starts of at least 1; seen starts={starts}.")
    shape = Polytope.of(alpha_row, v_head)
    found = farthest(shape, starts, seed)
    top = None
    if bound:
        low, high = _intervals(shape)
        top = max(float(min((high - shape.row).sum(), (shape.row - low).sum())), distance(found, shape.row))
    return Witness(found, distance(found, shape.row), top, shape.residual(found), shape.programs)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation: half the sum of absolute differences."""
    return float(np.abs(a - b).sum() / 2)


def farthest(shape: Polytope, starts: int, seed: int = 0) -> np.ndarray:
    """The best row of the sign iteration; the given row where it is unique.

    Starts: from the large weights to the small ones, then random directions that keep the output, each both ways.
    """
    if shape.dimension == 0:
        return shape.row
    rng = np.random.default_rng(seed)
    best, way = shape.row, np.where(shape.row > np.median(shape.row), -1.0, 1.0)
    for start in range(starts):
        if start % 2:
            free = rng.normal(size=len(shape.row))
            way = np.where(free - shape.basis @ (shape.basis.T @ free) > 0, 1.0, -1.0)
        elif start:
            way = -way
        sign, now = way, shape.row
        while True:
            a = shape.farthest_along(sign)
            if distance(a, shape.row) <= distance(now, shape.row) + TIGHT:
                break
            now, sign = a, np.where(a >= shape.row, 1.0, -1.0)
        if distance(now, shape.row) > distance(best, shape.row):
            best = now
    return best


def top_can_change(shape: Polytope) -> bool:
    """Whether some valid row has another largest weight. Exact; cost: 1 to m programs, the likeliest tokens first."""
    row = shape.row
    top = int(row.argmax())
    if shape.dimension == 0 or len(row) < 2:
        return False
    unit = np.zeros(len(row))
    unit[top] = -1.0
    lowest = shape.farthest_along(unit)
    if lowest.max() > lowest[top] + TIGHT:
        return True
    if lowest[top] >= 0.5:  # nothing can be larger than what is left
        return False
    for k in np.argsort(-row)[1:]:
        direction = unit.copy()
        direction[k] = 1.0
        a = shape.farthest_along(direction)
        if a[k] > a[top] + TIGHT:
            return True
    return False
