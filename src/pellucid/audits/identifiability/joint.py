"""All heads together: what the layer's output leaves open is more than what each head's output does."""

from dataclasses import dataclass

import numpy as np
import torch

from pellucid.audits.identifiability.polytope import Polytope, array, distance, distribution, farthest
from pellucid.errors import InputError
from pellucid.methods.effective import column_space


@dataclass(frozen=True, eq=False)
class Joint:
    """Attention of all heads at one query position, given the layer's output alone.

    rank: of the equations (the output and each head's sum); null_dimension: h m - rank, 0 means unique;
    heads_null_dimension: the same given every head's own output. alpha [h, m], distances [h], residual: a far witness
    if one was asked for, else None. programs: linear programs solved.
    """

    rank: int
    null_dimension: int
    heads_null_dimension: int
    alpha: np.ndarray | None = None
    distances: np.ndarray | None = None
    residual: float | None = None
    programs: int = 0

    @property
    def unique(self) -> bool:
        """Whether the layer's output fixes the attention of all heads."""
        return self.null_dimension == 0


def joint(alpha_rows: object, v: object, w_o: object, starts: int = 0, seed: int = 0) -> Joint:
    """How unique the rows of all heads are together, where only the layer's output sum_h alpha_h V_h W_h counts.

    alpha_rows [h, m], v [g, m, e] (h a multiple of g), w_o [d, h e]: the output projection as torch stores it. starts:
    above 0, a witness for all heads at once is sought as `witness` does.
    With h e <= d and w_o of full rank (every standard model) the layer's output tells every head's output, so the
    dimension is the sum over heads. Heads that are added into one width (h e > d) leave more open.

    Cost: an SVD of [h m, d + h] (rank), 3 to 6 linear programs in h m unknowns per start.
    Raises: InputError if shapes do not fit. Source: ours; compare Bhardwaj et al. 2021, arXiv 2106.01269, whose remedy
    adds heads and holds per head.
    """
    a, values, w = np.array([distribution(row) for row in array(alpha_rows)]), array(v), array(w_o)
    fits = a.ndim == 2 and values.ndim == 3 and w.ndim == 2 and a.shape[1] == values.shape[1]
    finite = np.isfinite(values).all() and np.isfinite(w).all()
    if not fits or not finite or not values.size or len(a) % len(values) or w.shape[1] != len(a) * values.shape[2]:
        raise InputError(
            f"alpha_rows [h, m] {list(a.shape)}, v [g, m, e] {list(values.shape)} and w_o [d, h e] {list(w.shape)} do "
            "not fit together."
        )
    values = values.repeat(len(a) // len(values), 0)
    heads, m, _ = values.shape
    basis = equations(values, w)
    own = heads * m - int(column_space(torch.from_numpy(values))[2].sum())
    found = Joint(basis.shape[1], heads * m - basis.shape[1], own)
    if not starts:
        return found
    shape = Polytope((a / a.sum(1, keepdims=True)).ravel(), basis)
    far = farthest(shape, starts, seed).reshape(heads, m)
    apart = np.array([distance(x, y) for x, y in zip(far, shape.row.reshape(heads, m), strict=True)])
    residual = shape.residual(far.ravel())
    return Joint(found.rank, found.null_dimension, own, far, apart, residual, shape.programs)


def equations(values: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Orthonormal basis [h m, r] of what the layer's output and the heads' sums of one fix; values [h, m, e]."""
    heads, m, e = values.shape
    centred = values - values.mean(1, keepdims=True)
    out = np.concatenate([x @ w[:, i * e : (i + 1) * e].T for i, x in enumerate(centred)])
    ones = np.kron(np.eye(heads), np.full((m, 1), m**-0.5))
    u, s, _ = np.linalg.svd(out, full_matrices=False)
    size = np.linalg.norm(values) * np.linalg.norm(w, 2)
    real = s > max(out.shape) * np.finfo(float).eps * max(size, np.finfo(float).tiny)
    return np.concatenate([ones, u[:, real]], 1)


def output_is_invertible(w_o: torch.Tensor) -> bool:
    """Whether the layer's output tells every head's output: w_o [d, h e] has full column rank."""
    s = torch.linalg.svdvals(w_o.double())
    return bool(w_o.shape[1] <= w_o.shape[0] and s[-1] > max(w_o.shape) * torch.finfo(torch.float64).eps * s[0])
