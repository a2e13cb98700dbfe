"""What the keys add: attention must come from softmax(K q), which allows far fewer rows than the values do."""

from dataclasses import dataclass

import numpy as np

from pellucid.audits.identifiability.polytope import TIGHT, array, distance, distribution
from pellucid.errors import InputError


@dataclass(frozen=True, eq=False)
class Alternative:
    """Another row that the same keys give: alpha [m], its total variation to the given row, |q'| / |q|, residual."""

    alpha: np.ndarray
    distance: float
    query_ratio: float
    residual: float


@dataclass(frozen=True, eq=False)
class KeyConstrained:
    """Whether a row is unique among those that its keys can produce.

    rank, needed: of J = V^T (diag a - a a^T) K in float64, and the number of directions in which a query moves
    attention. unique_nearby: rank == needed, no small change of the query keeps the output; False where the values have
    too few directions for that; None where rounding hides it (rows near one-hot, whose J is all but 0). condition:
    largest over least of those singular values of J, at most 1 / eps; a row with 1e8 is unique on paper alone.
    free_dimension: dimension of the alternatives where queries and keys may both change, all rows together; 0 means
    unique nearby. alternative: the one with the smallest query that the search found within the budget, or None.
    """

    rank: int
    needed: int
    condition: float
    unique_nearby: bool | None
    free_dimension: int
    alternative: Alternative | None


def free_dimension(m: int, d_k: int, d_v: int) -> int:
    """max(0, d (2 m - 1 - d) - m min(d_v, m - 1)) with d = min(d_k, m - 1): for generic values and free W_Q, W_K.

    Attention matrices of m rows whose logarithm, centred by row, has rank at most d_k form a manifold of dimension
    d (2 m - 1 - d); the head output takes m min(d_v, m - 1) equations from it.
    """
    d = min(d_k, m - 1)
    return max(0, d * (2 * m - 1 - d) - m * min(d_v, m - 1))


def key_constrained(
    alpha_row: object,
    k_head: object,
    v_head: object,
    query: object = None,
    budget: float = 10.0,
    starts: int = 8,
    seed: int = 0,
) -> KeyConstrained:
    """How unique a row alpha = softmax(K q + c) is, given its keys: nearby, with free keys, and within a query's reach.

    alpha_row [m], k_head [m, d_k] (the derivative of the row's scores in its query: scale and rotation included),
    v_head [m, e]. Additive terms c (masks, position biases) need not be known: another query q' gives
    alpha exp(K (q' - q)), normalised. query [d_k]: if given, other queries with |q'| <= budget |q| are searched for by
    Levenberg-Marquardt from `starts` random points; without a budget one would report queries out of any reach.

    Cost: an SVD of [e, d_k]; with a query 10 to 50 ms per start. The search may miss alternatives: None is no proof.
    Raises: InputError if shapes do not fit.
    Source: after Bhardwaj et al. 2021, arXiv 2106.01269 (keys make weights more identifiable); the statements are ours.
    """
    a, k, v = distribution(alpha_row), array(k_head), array(v_head)
    fits = k.ndim == v.ndim == 2 and len(a) == len(k) == len(v) and k.size and v.size
    q = None if query is None else array(query)
    fits = fits and (q is None or (q.shape == k.shape[1:] and np.isfinite(q).all()))
    if not fits or not np.isfinite(k).all() or not np.isfinite(v).all() or budget <= 0:
        raise InputError(
            f"alpha_row [m] {list(a.shape)}, k_head [m, d_k] {list(k.shape)}, v_head [m, e] {list(v.shape)} and query "
            "[d_k] must fit together and be finite, and budget be above 0."
        )
    k, v = k - k.mean(0), v - v.mean(0)
    needed = int(np.linalg.matrix_rank(k)) if len(a) > 1 else 0
    spread = a[:, None] * k - np.outer(a, a @ k)
    s = np.linalg.svd(v.T @ spread, compute_uv=False)
    floor = max(v.shape[1], k.shape[1]) * np.finfo(float).eps
    rank = int((s > floor * s[0]).sum()) if len(s) and s[0] > 0 else 0
    unique = None if needed <= np.linalg.matrix_rank(v) else False
    unique = True if rank >= needed else unique
    largest = 1 / np.finfo(float).eps
    return KeyConstrained(
        rank=rank,
        needed=needed,
        condition=min(largest, float(s[0] / s[needed - 1])) if unique and needed else largest if needed else 1.0,
        unique_nearby=unique,
        free_dimension=free_dimension(len(a), k.shape[1], v.shape[1]),
        alternative=None if q is None or not needed else _search(a, k, v, q, budget, starts, seed),
    )


def _search(
    a: np.ndarray, k: np.ndarray, v: np.ndarray, q: np.ndarray, budget: float, starts: int, seed: int
) -> Alternative | None:
    """The alternative with the smallest query among the roots that are found."""
    from scipy.optimize import least_squares

    _, s, turn = np.linalg.svd(k, full_matrices=False)
    turn = turn[s > len(a) * np.finfo(float).eps * s[0]]  # directions of the query that move attention
    keys, log_a = k @ turn.T, np.log(np.maximum(a, 1e-300))
    scale = np.abs(v).max() or 1.0
    goal, values = a @ v / scale, v / scale
    missing = max(0, len(turn) - v.shape[1])  # the solver wants as many equations as unknowns

    def row(step: np.ndarray) -> np.ndarray:
        z = log_a + keys @ step
        p = np.exp(z - z.max())
        return np.asarray(p / p.sum())

    def error(step: np.ndarray) -> np.ndarray:
        return np.concatenate([row(step) @ values - goal, np.zeros(missing)])

    def slope(step: np.ndarray) -> np.ndarray:
        p = row(step)
        j = values.T @ (p[:, None] * keys - np.outer(p, p @ keys))
        return np.concatenate([j, np.zeros((missing, len(turn)))])

    rng, size = np.random.default_rng(seed), float(np.linalg.norm(q)) or 1.0
    found: list[Alternative] = []
    for _ in range(starts):
        start = rng.normal(size=len(turn))
        start *= size * rng.uniform(0.2, budget) / np.linalg.norm(start)
        step = least_squares(error, start, slope, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15).x
        p, ratio = row(step), float(np.linalg.norm(q + turn.T @ step)) / size
        residual = float(np.abs(p @ values - goal).max())
        if residual <= TIGHT and ratio <= budget and distance(p, a) > 1e-4:
            found.append(Alternative(p, distance(p, a), ratio, residual))
    return min(found, key=lambda x: x.query_ratio, default=None)
