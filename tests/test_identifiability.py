"""Identifiability: closed forms against numpy's pseudo-inverse, programs against a mixed-integer one, models put back.

The oracles share no code with the package: np.linalg.pinv, scipy's null_space, minimize and milp, and polytopes with
one free direction, whose ends are read off by hand.
"""

from typing import Any

import jaxtyping
import numpy as np
import pytest
import scipy.linalg as sl
import scipy.optimize as so
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pellucid
from pellucid import Batch
from pellucid.audits.identifiability import (
    effective_attention,
    free_dimension,
    joint,
    key_constrained,
    max_entropy_attention,
    null_space_dimension,
    rank,
    weight_interval,
    weight_intervals,
    witness,
)
from pellucid.audits.identifiability.alternatives import Seen, alternatives, at_distance, shift, slope_in_query
from pellucid.audits.identifiability.polytope import Polytope, distance, top_can_change
from pellucid.audits.identifiability.reading import bins
from pellucid.encoder.forward import attended, queries_keys
from pellucid.encoder.ops import Ops
from pellucid.errors import InputError
from pellucid.finding import Findings

FINE = 1e-10


def made(seed: int, m: int, e: int, rows: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Attention [rows, m] and values [m, e], random."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(m), rows), rng.normal(size=(m, e))


def batched(a: np.ndarray, v: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """As one text with one head: alpha [1, 1, r, m], v [1, 1, m, e], keep [1, m]."""
    return torch.tensor(a)[None, None], torch.tensor(v)[None, None], torch.ones(1, len(v), dtype=torch.bool)


def projected(a: np.ndarray, v: np.ndarray, ones: bool = True) -> np.ndarray:
    """The oracle: the shortest rows with the same products with [V, 1] or V."""
    x = np.c_[v, np.ones(len(v))] if ones else v
    return a @ x @ np.linalg.pinv(x)


# --- closed forms ---


@pytest.mark.parametrize(("m", "e"), [(1, 3), (3, 5), (6, 5), (7, 5), (20, 5), (40, 8)])
def test_effective_attention_is_the_shortest_row_with_the_same_output(m: int, e: int) -> None:
    a, v = made(m, m, e, 4)
    for constraint, ones in (("rows", True), ("none", False)):
        got = effective_attention(*batched(a, v), constraint=constraint)[0, 0].numpy()
        np.testing.assert_allclose(got, projected(a, v, ones), atol=FINE)
        np.testing.assert_allclose(got @ v, a @ v, atol=FINE)
    np.testing.assert_allclose(effective_attention(*batched(a, v))[0, 0].sum(-1), np.ones(4), atol=FINE)
    if m <= e + 1:
        np.testing.assert_allclose(effective_attention(*batched(a, v))[0, 0], a, atol=FINE)


@pytest.mark.parametrize(("m", "e"), [(1, 3), (4, 5), (6, 5), (7, 5), (12, 3), (30, 4)])
def test_rank_and_null_space(m: int, e: int) -> None:
    _, v = made(m, m, e)
    for constraint, x in (("rows", np.c_[v, np.ones(m)]), ("none", v)):
        found = rank(torch.tensor(v)[None, None], constraint=constraint)
        assert found.rank.item() == np.linalg.matrix_rank(x)
        dimension = null_space_dimension(torch.tensor(v)[None, None], constraint=constraint).item()
        assert dimension == sl.null_space(x.T).shape[1] == max(0, m - x.shape[1])


def test_the_loose_rank_and_the_ratio_tell_of_bad_conditioning() -> None:
    u, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 3)))
    found = rank(torch.tensor(u * [1.0, 0.1, 1e-5])[None, None], constraint="none")
    assert (found.rank.item(), found.loose.item()) == (3, 2)
    assert found.ratio.item() == pytest.approx(1e5)


def test_equal_values_count_once_and_a_constant_value_leaves_everything_free() -> None:
    _, v = made(3, 6, 8)
    v[4] = v[1]
    assert null_space_dimension(torch.tensor(v)[None, None]).item() == 1
    assert null_space_dimension(torch.full((1, 1, 6, 8), 0.3, dtype=torch.float64)).item() == 5


def test_most_even_attention_against_a_general_solver() -> None:
    a, v = made(5, 8, 3)

    def minus_entropy(x: np.ndarray) -> float:
        return float((x * np.log(np.maximum(x, 1e-300))).sum())

    equal = {"type": "eq", "fun": lambda x: (x - a[0]) @ np.c_[v, np.ones(8)]}
    oracle = so.minimize(
        minus_entropy, a[0], bounds=[(1e-12, 1)] * 8, constraints=equal, options={"ftol": 1e-14, "maxiter": 500}
    )
    got = max_entropy_attention(*batched(a, v))[0, 0, 0].numpy()
    np.testing.assert_allclose(got, oracle.x, atol=1e-5)
    np.testing.assert_allclose(got @ v, a[0] @ v, atol=FINE)
    form = np.linalg.lstsq(np.c_[v, np.ones(8)], np.log(got), rcond=None)
    assert form[1] < 1e-12, "it is not softmax(V theta)"


@pytest.mark.parametrize("m", [1, 2, 5, 6])
def test_most_even_attention_is_attention_where_that_is_unique(m: int) -> None:
    a, v = made(m, m, 5, 3)
    torch.testing.assert_close(max_entropy_attention(*batched(a, v))[0, 0], torch.tensor(a), rtol=0, atol=FINE)


@pytest.mark.parametrize("weight", [1 - 1e-3, 1 - 1e-6, 1 - 1e-12, 1.0])
def test_peaked_rows_keep_their_output(weight: float) -> None:
    a, v = made(7, 20, 4)
    a[0] *= 1 - weight
    a[0, 3] += weight
    got = max_entropy_attention(*batched(a, v))[0, 0, 0].numpy()
    np.testing.assert_allclose(got @ v, a[0] @ v, atol=1e-9)
    assert (got >= 0).all()
    assert got.sum() == pytest.approx(1)


ALTERED = pytest.mark.parametrize("f", [effective_attention, max_entropy_attention])


@ALTERED
def test_padding_is_removed_first(f: Any) -> None:
    a, v = made(1, 9, 3, 5)
    alpha, values, keep = batched(a, v)
    wide = torch.nn.functional.pad(alpha, (0, 4))
    junk = torch.cat([values, torch.full((1, 1, 4, 3), 1e6, dtype=values.dtype)], 2)
    padded = torch.nn.functional.pad(keep, (0, 4))
    got = f(wide, junk, padded)
    assert not got[..., 9:].any()
    torch.testing.assert_close(got[..., :9], f(alpha, values, keep), rtol=0, atol=FINE)


@ALTERED
def test_a_text_is_alone_in_its_batch(f: Any) -> None:
    rng = np.random.default_rng(0)
    keep = torch.arange(9) < torch.tensor([9, 7, 9, 2])[:, None]
    alpha = torch.tensor(rng.dirichlet(np.ones(9), (4, 2, 3))) * keep[:, None, None]
    alpha = alpha / alpha.sum(-1, keepdim=True)
    v = torch.tensor(rng.normal(size=(4, 2, 9, 3)))
    together = f(alpha, v, keep)
    for i in range(4):
        torch.testing.assert_close(
            together[i : i + 1], f(alpha[i : i + 1], v[i : i + 1], keep[i : i + 1]), atol=FINE, rtol=0
        )


@ALTERED
def test_a_bias_of_the_values_changes_nothing(f: Any) -> None:
    a, v = made(2, 12, 4, 3)
    bias = 5 * np.random.default_rng(9).normal(size=4)
    torch.testing.assert_close(f(*batched(a, v + bias)), f(*batched(a, v)), rtol=0, atol=FINE)
    assert not np.allclose(projected(a, v + bias, False), projected(a, v, False), atol=1e-3), "without sums it does"


@ALTERED
def test_heads_that_share_values(f: Any) -> None:
    rng = np.random.default_rng(4)
    alpha, v = torch.tensor(rng.dirichlet(np.ones(10), (2, 4, 3))), torch.tensor(rng.normal(size=(2, 2, 10, 3)))
    keep = torch.ones(2, 10, dtype=torch.bool)
    torch.testing.assert_close(f(alpha, v, keep), f(alpha, v.repeat_interleave(2, 1), keep), rtol=0, atol=FINE)


@ALTERED
def test_causal_attention_row_by_row(f: Any) -> None:
    """Row i sees i + 1 keys: unique up to e + 1 of them, and never any weight on the future."""
    n, e = 12, 4
    a, v = made(3, n, e, n)
    a = np.tril(a)
    a /= a.sum(-1, keepdims=True)
    alpha, values, keep = batched(a, v)
    got = f(alpha, values, keep, allowed=torch.ones(n, n).tril().bool()[None, None])[0, 0].numpy()
    assert not np.triu(got, 1).any()
    np.testing.assert_allclose(got @ v, a @ v, atol=FINE)
    np.testing.assert_allclose(got[: e + 1], a[: e + 1], atol=FINE)
    if f is effective_attention:
        for i in range(n):
            np.testing.assert_allclose(got[i, : i + 1], projected(a[i : i + 1, : i + 1], v[: i + 1])[0], atol=FINE)
    assert np.abs(got[e + 2] - a[e + 2]).max() > 1e-3


def test_shapes_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha, v, keep = batched(*made(0, 6, 3))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as for a user, who has no annotations executed
    with pytest.raises(InputError, match=r"\[1, 1, 1, 6\].*\[1, 1, 5, 3\].*\[1, 6\]"):
        effective_attention(alpha, v[:, :, :5], keep)
    with pytest.raises(InputError, match="constraint='row'"):
        effective_attention(alpha, v, keep, constraint="row")
    with pytest.raises(InputError, match="must agree in m"):
        weight_interval(np.ones(3) / 3, np.ones((4, 2)), 0)
    with pytest.raises(InputError, match=r"least weight of -0\.5"):
        weight_interval(np.array([1.5, -0.5]), np.ones((2, 2)), 0)
    with pytest.raises(InputError, match=r"sum of 0\.5"):
        weight_interval(np.array([0.25, 0.25]), np.ones((2, 2)), 0)
    with pytest.raises(InputError, match=r"no weight 2.*0 to 1"):
        weight_interval(np.array([0.5, 0.5]), np.ones((2, 2)), 2)


# --- linear programs ---


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Five tokens, eight dimensions; the first value is the mean of the next two, so weight can move between them."""
    _, v = made(11, 5, 8)
    v[0] = (v[1] + v[2]) / 2
    return np.array([0.6, 0.1, 0.1, 0.15, 0.05]), v


def test_a_planted_second_attention_is_found() -> None:
    """a + t (-1, .5, .5, 0, 0) with t from -.2 to .6."""
    a, v = planted()
    low, high = weight_intervals(a, v)
    np.testing.assert_allclose(low, [0, 0, 0, 0.15, 0.05], atol=1e-9)
    np.testing.assert_allclose(high, [0.8, 0.4, 0.4, 0.15, 0.05], atol=1e-9)
    far = witness(a, v, bound=True)
    np.testing.assert_allclose(far.alpha, [0, 0.4, 0.4, 0.15, 0.05], atol=1e-9)
    assert far.distance == pytest.approx(0.6)
    assert far.bound == pytest.approx(0.8), "what each weight alone may gain, or lose"
    assert far.residual < 1e-12
    assert top_can_change(Polytope.of(a, v))
    assert not top_can_change(Polytope.of(np.array([0.1, 0.1, 0.05, 0.7, 0.05]), v))


@pytest.mark.parametrize("seed", range(6))
def test_intervals_where_one_direction_is_free(seed: int) -> None:
    """m = e + 2: the ends are where the first weight becomes 0 along the only null vector."""
    a, v = made(seed, 6, 4)
    d = sl.null_space(np.c_[v, np.ones(6)].T)[:, 0]
    steps = -a[0] / d
    ends = a[0] + d * np.array([steps[steps < 0].max(), steps[steps > 0].min()])[:, None]
    for j in range(6):
        assert weight_interval(a[0], v, j) == pytest.approx((ends[:, j].min(), ends[:, j].max()), abs=1e-8)
    assert weight_interval(torch.tensor(a[0]), torch.tensor(v), 2) == weight_interval(a[0], v, 2)
    assert witness(a[0], v).distance == pytest.approx(max(np.abs(x - a[0]).sum() / 2 for x in ends), abs=1e-8)


@pytest.mark.parametrize(("m", "e"), [(1, 3), (4, 5), (6, 5)])
def test_unique_rows_have_no_room(m: int, e: int) -> None:
    a, v = made(m, m, e)
    low, high = weight_intervals(a[0], v)
    np.testing.assert_allclose(high - low, 0, atol=1e-12)
    far = witness(a[0], v, bound=True)
    assert (far.distance, far.bound, far.programs) == pytest.approx((0, 0, 0))
    assert not top_can_change(Polytope.of(a[0], v))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 4))
def test_unique_exactly_where_all_intervals_are_points(seed: int, m: int, e: int) -> None:
    a, v = made(seed, m, e)
    low, high = weight_intervals(a[0], v)
    unique = null_space_dimension(torch.tensor(v)[None, None]).item() == 0
    assert unique == bool((high - low < 1e-9).all())
    assert (low >= 0).all()
    assert (low <= a[0] + 1e-12).all()
    assert (a[0] <= high + 1e-12).all()
    far = witness(a[0], v, starts=2, seed=seed, bound=True)
    assert far.residual <= 1e-9
    assert (far.alpha >= 0).all()
    assert far.alpha.sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(far.alpha @ v, a[0] @ v, atol=1e-8)
    assert far.distance <= far.bound + 1e-9


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("e", "starts", "share"), [(8, 8, 0.98), (3, 40, 0.95)])
def test_the_far_witness_against_the_mixed_integer_optimum(seed: int, e: int, starts: int, share: float) -> None:
    """n = 12: maximise sum |a' - a| by branch and bound: a' - a = p - q, one of p, q zero by a binary each."""
    m = 12
    a, v = made(seed, m, e)
    x = np.c_[v, np.ones(m)].T
    eye, zero = np.eye(m), np.zeros((m, m))
    rules = [
        so.LinearConstraint(np.c_[x, -x, np.zeros((e + 1, m))], 0, 0),
        so.LinearConstraint(np.c_[eye, zero, -eye], -np.inf, 0),
        so.LinearConstraint(np.c_[zero, eye, eye], -np.inf, 1),
    ]
    bounds = so.Bounds(np.zeros(3 * m), np.r_[np.ones(m), a[0], np.ones(m)])
    whole = np.r_[np.zeros(2 * m), np.ones(m)]
    best = -so.milp(-np.r_[np.ones(2 * m), np.zeros(m)], constraints=rules, bounds=bounds, integrality=whole).fun / 2
    found = witness(a[0], v, starts=starts, bound=True)
    assert best * share <= found.distance <= best + 1e-6
    assert best <= found.bound + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_whether_the_top_can_change_by_all_programs(seed: int) -> None:
    a, v = made(seed, 9, 3)
    x, top = np.c_[v, np.ones(9)].T, int(a[0].argmax())
    gains = []
    for k in range(9):
        if k != top:
            c = np.zeros(9)
            c[top], c[k] = 1, -1
            gains.append(-so.linprog(c, A_eq=x, b_eq=x @ a[0]).fun)
    assert top_can_change(Polytope.of(a[0], v)) == (max(gains) > 1e-9)


def test_a_row_of_a_float32_model_and_a_weight_of_zero() -> None:
    a, v = made(3, 10, 3)
    a[0, 4] = 0
    a32 = (a[0] / a[0].sum()).astype(np.float32)
    low, high = weight_intervals(a32, v.astype(np.float32))
    assert low[4] == 0
    assert (high - low > 1e-3).all()
    assert witness(a32, v.astype(np.float32)).residual <= 1e-9


# --- keys, and all heads together ---


@pytest.mark.parametrize(
    ("m", "d_k", "d_v"), [(5, 2, 2), (5, 2, 3), (6, 1, 3), (6, 3, 2), (7, 2, 6), (4, 5, 2), (8, 2, 4)]
)
def test_dimension_with_free_queries_and_keys(m: int, d_k: int, d_v: int) -> None:
    """Rank of the map (Q, K) -> attention, less that of (Q, K) -> attention V, counted from derivatives."""
    g = torch.Generator().manual_seed(m + 10 * d_k + 100 * d_v)
    q, k, v = (torch.randn(m, d, generator=g, dtype=torch.float64) for d in (d_k, d_k, d_v))

    def attention(x: Tensor) -> Tensor:
        return (x[: m * d_k].reshape(m, d_k) @ x[m * d_k :].reshape(m, d_k).T).softmax(-1)

    at = torch.cat([q.flatten(), k.flatten()])
    whole = torch.autograd.functional.jacobian(lambda x: attention(x).flatten(), at)
    out = torch.autograd.functional.jacobian(lambda x: (attention(x) @ v).flatten(), at)
    counted = torch.linalg.matrix_rank(whole, rtol=1e-9) - torch.linalg.matrix_rank(out, rtol=1e-9)
    assert free_dimension(m, d_k, d_v) == counted.item()


@pytest.mark.parametrize(
    ("m", "d_k", "d_v", "unique"), [(30, 3, 5, True), (30, 5, 5, True), (30, 6, 4, False), (4, 6, 3, True)]
)
def test_given_the_keys_uniqueness_does_not_depend_on_length(m: int, d_k: int, d_v: int, unique: bool) -> None:
    rng = np.random.default_rng(m)
    k, v, q = rng.normal(size=(m, d_k)), rng.normal(size=(m, d_v)), rng.normal(size=d_k)
    a = np.exp(k @ q) / np.exp(k @ q).sum()
    found = key_constrained(a, k, v, q, budget=20.0, starts=20)
    assert found.unique_nearby == unique
    assert found.needed == min(d_k, m - 1)
    assert found.rank == min(found.needed, d_v)
    assert (found.condition < 1e12) == unique
    if not unique:
        other = found.alternative
        assert other is not None, "a curve of alternatives leads through the row itself"
        np.testing.assert_allclose(other.alpha @ v, a @ v, atol=1e-8)
        assert other.query_ratio <= 20
        bend = np.log(other.alpha) - np.log(a)
        assert np.linalg.lstsq(np.c_[k, np.ones(m)], bend, rcond=None)[1] < 1e-12, "no query gives it"


def test_keys_that_are_the_values_leave_nothing_open() -> None:
    """Mixture and exponential family meet once: no other query gives the same output."""
    rng = np.random.default_rng(1)
    k, q = rng.normal(size=(12, 3)), rng.normal(size=3)
    a = np.exp(k @ q) / np.exp(k @ q).sum()
    assert key_constrained(a, k, k, q, budget=50.0, starts=20).alternative is None


def test_heads_that_are_added_are_unique_alone_but_not_together() -> None:
    """Four heads of width 32 added into 32: each unique at 16 tokens, and all four have a second attention at once."""
    rng = np.random.default_rng(0)
    h, d, m = 4, 32, 16
    a, v, w = rng.dirichlet(np.ones(m), h), rng.normal(size=(h, m, d)), rng.normal(size=(d, h * d)) / d**0.5
    found = joint(a, v, w, starts=2)
    assert found.heads_null_dimension == 0
    assert found.null_dimension == h * m - d - h
    assert not found.unique
    for i in range(h):
        assert witness(a[i], v[i]).distance == 0

    def out(rows: np.ndarray) -> np.ndarray:
        return sum(rows[i] @ v[i] @ w[:, i * d : (i + 1) * d].T for i in range(h))

    np.testing.assert_allclose(out(found.alpha), out(a), atol=1e-9)
    np.testing.assert_allclose(found.alpha.sum(-1), 1, atol=1e-9)
    assert (found.alpha >= 0).all()
    assert found.distances.min() > 0.1


@pytest.mark.parametrize("m", [5, 9, 10, 14])
def test_heads_that_are_concatenated_add_their_dimensions(m: int) -> None:
    rng = np.random.default_rng(m)
    a, v, w = rng.dirichlet(np.ones(m), 4), rng.normal(size=(4, m, 8)), rng.normal(size=(32, 32))
    found = joint(a, v, w)
    assert found.null_dimension == found.heads_null_dimension == 4 * max(0, m - 9)
    assert joint(a, v[:2], w).null_dimension == 4 * max(0, m - 9), "two groups of two heads"
    with pytest.raises(InputError, match=r"\[4, \d+\].*\[32, 31\]"):
        joint(a, v, w[:, :31])


# --- in models ---


def long_text(model: pellucid.Model, n: int = 14, seed: int = 3) -> Batch:
    return tiny.batch(model, (n,), seed)


def test_other_attention_leaves_the_logits_and_random_attention_moves_them(family: str) -> None:
    """Heads of width 8 and texts of 14 tokens; a window of 3 on either side leaves ModernBERT's local layers unique."""
    model = tiny.opened(family)
    layer = 0 if family.startswith("modernbert") else 1  # its first layer is global
    found = alternatives(model, long_text(model), layer, 1)
    assert max(found.moved.values()) <= 1e-9
    assert found.random_moved > 1e-5
    assert distance(found.maps["witness"][0], found.maps["raw"][0]) > 1e-3
    for name, x in found.maps.items():
        np.testing.assert_allclose(x.sum(-1), 1, atol=FINE, err_msg=name)
    assert (found.low <= found.maps["raw"][0] + 1e-12).all()
    assert (found.high >= found.maps["raw"][0] - 1e-12).all()


def test_a_window_is_kept() -> None:
    model = tiny.opened("modernbert")
    seen = Seen.of(model, model.named(long_text(model)))
    layer = next(i for i, m in enumerate(seen.mask) if m is not None)
    found = alternatives(model, long_text(model), layer, 0)
    outside = ~seen.mask[layer].numpy()
    assert outside.any()
    assert not any(x[outside].any() for x in found.maps.values())


def test_scores_are_affine_in_the_query(family: str) -> None:
    """What the key-constrained test rests on, for every kind of attention: rotary and relative positions included."""
    model = tiny.opened(family)
    batch = long_text(model, 9)
    seen, g = Seen.of(model, model.named(batch)), torch.Generator().manual_seed(0)
    for at, layer in enumerate(model.net.layers):
        h = attended(Ops(), str(at), layer, seen.x[at][None])
        q, k = queries_keys(layer, h, None)
        row = torch.full((1, 1), 5)
        step = torch.randn(1, q.shape[1], 1, q.shape[-1], generator=g, dtype=q.dtype)
        moved = layer.score(q[:, :, 5:6] + step, k, row) - layer.score(q[:, :, 5:6], k, row)
        slope = slope_in_query(layer, k, 5)
        torch.testing.assert_close(torch.einsum("hne,hre->hrn", slope, step[0])[None], moved, atol=1e-10, rtol=0)
        a, _ = seen.row(at, 0, 5)
        query, keys = seen.query_keys(at, 0, 5)
        new = layer.score(q[:, :, 5:6] + step, k, row)[0, 0, 0].detach().numpy()[seen.keys_of(at, 5)]
        other = a * np.exp(keys @ step[0, 0, 0].numpy())
        np.testing.assert_allclose(
            other / other.sum(), np.exp(new - new.max()) / np.exp(new - new.max()).sum(), atol=1e-9
        )
        assert query.shape == (q.shape[-1],)


def test_repeated_tokens_without_positions_are_interchangeable() -> None:
    hf = tiny.build("bert")
    with torch.no_grad():
        hf.bert.embeddings.position_embeddings.weight.zero_()
    model = pellucid.load(hf)
    ids = torch.tensor([[5, 6, 7, 6, 8]])
    seen = Seen.of(model, model.named(Batch(ids)))
    for v in seen.v:
        assert null_space_dimension(v[None]).tolist() == [[1] * 4]
    a, v = seen.row(0, 0, 2)
    low, high = weight_interval(a, v, 1)
    assert (low, high) == pytest.approx((0, a[1] + a[3]), abs=1e-9)
    other = a.copy()
    other[[1, 3]] = other[[3, 1]] = [0, a[1] + a[3]]
    assert shift(seen, {(0, 0, 2): other}) < 1e-10
    assert shift(seen, {(0, 0, 2): at_distance(a, 0.3, np.random.default_rng(0))}) > 1e-4


def texts_of(model: pellucid.Model, lengths: tuple[int, ...]) -> Batch:
    """No token twice in a text: where the values know no positions, repeated ones are interchangeable."""
    batch = tiny.batch(model, lengths)
    g = torch.Generator().manual_seed(5)
    ids = torch.stack([5 + torch.randperm(50, generator=g)[: max(lengths)] for _ in lengths])
    return Batch(torch.where(batch.keep, ids, batch.input_ids), batch.keep)


def ask(model: pellucid.Model, lengths: tuple[int, ...], **settings: Any) -> Findings:
    return pellucid.audit(model, texts_of(model, lengths), "identifiability", **settings)


@pytest.mark.parametrize("family", ["bert", "albert", "deberta_v3", "modernbert", "modernbert_mean"])
@pytest.mark.parametrize("level", ["cls", "full"])
def test_the_audit_on_short_and_long_texts(family: str, level: str) -> None:
    model = tiny.opened(family)
    steps: list[tuple[int, int]] = []
    found = ask(
        model, (6, 7, 8, 9, 6) * 2 + (14, 15, 16, 13, 12) * 2, level=level, rows=2, progress=lambda *x: steps.append(x)
    )
    assert steps[-1][0] == steps[-1][1]
    short, late = "up to 9 tokens", "10 to 16 tokens"
    assert found.named("unique_given_head_output", short).grade == "UNIQUE"
    assert found.named("interval_width", short).value == pytest.approx(0, abs=1e-12)
    assert found.named("witness_distance", short).value == 0
    assert found.named("raw_effective_correlation", short).value == 1
    proof = found.named("logits_moved", late)
    assert proof.value <= 1e-9
    assert proof.null > 1e-6
    assert proof.grade == "SAME LOGITS"
    if "modern" not in family:
        assert found.named("unique_given_head_output", late).grade == "NOT UNIQUE"
        assert found.named("unique_given_layer_output", late).value == 0
        assert found.named("witness_distance", late).value > 0.01
    for f in found:
        assert str(f).startswith(f.grade)
        if f.name.startswith("separator"):  # these texts have none
            assert (f.n, f.grade) == (0, "NOT MEASURED")
            continue
        if f.name == "logits_moved" and f.n == 0:
            assert f.grade == "NOTHING TO MOVE"
            continue
        assert f.n in (10, 20)
        assert f.null is not None, f.name
        assert f.control
        assert f.limits
    assert len(found.tables["heads"]) == 20 * len(model.net.layers) * 4
    assert len(found.tables["rows"]) == 40
    assert {r["programs"] for r in found.tables["rows"] if r["n"] < 10} == {0}


def test_the_audit_is_the_same_twice_and_leaves_the_model(tmp_path: Any) -> None:
    model = tiny.opened("bert")
    before = {k: v.clone() for k, v in model.hf.state_dict().items()}
    a, b = (ask(model, (14, 12, 9), rows=2) for _ in range(2))
    assert [f.to_dict() for f in a] == [f.to_dict() for f in b]
    assert str(a.tables) == str(b.tables)
    assert all(torch.equal(before[k], v) for k, v in model.hf.state_dict().items())
    assert {f.grade for f in a} == {"TOO FEW TEXTS", "NOT MEASURED", "NOTHING TO MOVE"}
    names = {p.name for p in a.save(tmp_path)}
    assert {"identifiability.json", "identifiability_rows.parquet", "identifiability_example.svg"} <= names
    assert str(ask(model, (14, 12, 9), rows=2, seed=1).tables["rows"]) != str(a.tables["rows"])


def test_a_spent_budget_is_told() -> None:
    found = ask(tiny.opened("bert"), (14, 12), rows=3, seconds=0.0)
    assert found.named("interval_width").grade == "NOT MEASURED"
    assert found.named("interval_width").value is None
    assert any("left out 6 of 6" in limit for limit in found.named("interval_width").limits)
    assert found.named("raw_effective_correlation").value is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": "row"}, "level is cls or full; seen 'row'"),
        ({"rows": -1}, "rows=-1"),
        ({"budget": 3}, "no setting.*'budget'"),
        ({"max_tokens": 0}, "max_tokens.*seen 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=message):
        ask(tiny.opened("bert"), (5,), **settings)


def test_length_bins() -> None:
    assert bins([5, 40, 200], 32) == [
        ("", 0, 10**9),
        ("up to 33 tokens", 0, 33),
        ("34 to 64 tokens", 33, 64),
        ("over 128 tokens", 128, 10**9),
    ]
    assert bins([5, 6], 32) == [("", 0, 10**9)]


def test_a_real_model(minilm: pellucid.Model) -> None:
    """Heads of width 32: rank min(n, 32), null dimension max(0, n - 33), for the product's own tokenizer."""
    double = minilm.in_float64()
    text = " ".join(f"word {i} is not like the other one" for i in range(30))
    for n in (10, 32, 33, 34, 40, 64, 128, 200):
        seen = Seen.of(double, minilm.named(Batch(minilm.batch(text).input_ids[:, :n])))
        for v in seen.v:
            assert rank(v[None], constraint="none").rank.tolist() == [[min(n, 32)] * 12]
            assert null_space_dimension(v[None]).tolist() == [[max(0, n - 33)] * 12]


# --- what a reviewer found ---


def test_masks_of_whole_numbers_are_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's attention masks are int64."""
    v = torch.randn(1, 1, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]])
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for f in (rank, null_space_dimension):
        assert str(f(v, mask)) == str(f(v, mask.bool()))


def test_a_row_scaled_by_any_factor_keeps_its_output() -> None:
    """Rows of float32 models sum to one only up to rounding; some kernels drop weights."""
    a, v = made(4, 20, 4, 2)
    for factor in (3.0, 0.5, 1 + 1e-7):
        got = max_entropy_attention(*batched(a * factor, v + 5))[0, 0].numpy()
        np.testing.assert_allclose(got @ (v + 5), factor * a @ (v + 5), atol=1e-9)


def test_a_text_without_keys_is_left_at_zero_and_no_numbers_are_refused() -> None:
    alpha, v, keep = batched(*made(0, 6, 3))
    two = torch.cat([keep, ~keep])
    for f in (effective_attention, max_entropy_attention):
        out = f(alpha.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1), two)
        torch.testing.assert_close(out[:1], f(alpha, v, keep))
        assert not out[1].any()
        with pytest.raises(InputError, match="finite"):
            f(alpha, v * torch.nan, keep)


def test_holes_in_a_mask_are_refused() -> None:
    model = tiny.opened("bert")
    batch = texts_of(model, (14,))
    keep = batch.keep.clone()
    keep[0, 3:6] = False
    for name in ("identifiability", "token_identity", "mixing"):
        with pytest.raises(InputError, match=r"Row 0 .* 3 masked places"):
            pellucid.audit(model, Batch(batch.input_ids, keep), name)
    with pytest.raises(InputError, match="masked places"):
        alternatives(model, Batch(batch.input_ids, keep), 0, 0)


def test_a_dead_head_leaves_the_others_unique_at_the_layer_output() -> None:
    hf = tiny.build("bert")
    with torch.no_grad():
        for layer in hf.bert.encoder.layer:
            layer.attention.self.value.weight[:8].zero_()
    found = ask(pellucid.load(hf), (8,) * 12, rows=0)
    for name in ("unique_given_head_output", "unique_given_layer_output"):
        assert found.named(name).value == pytest.approx(0.75)
        assert found.named(name).null == 1.0


def test_peaked_rows_are_undecided_not_ambiguous() -> None:
    rng = np.random.default_rng(0)
    k, v = rng.normal(size=(20, 6)), rng.normal(size=(20, 6))
    z = 40 * k @ rng.normal(size=6)
    a = np.exp(z - z.max())
    assert key_constrained(a / a.sum(), k, v).unique_nearby is None
    assert key_constrained(np.full(20, 0.05), k, v).unique_nearby is True
    assert key_constrained(np.full(20, 0.05), k, v[:, :3]).unique_nearby is False


def test_the_proof_is_about_texts_with_something_to_move() -> None:
    found = ask(tiny.opened("bert"), (6,) * 11 + (14,) * 10, rows=0)
    proof = found.named("logits_moved")
    assert (proof.grade, proof.n) == ("SAME LOGITS", 10)
    assert found.named("logits_moved", "up to 9 tokens").grade == "NOTHING TO MOVE"
    assert "11 of 21 texts have nothing to put back" in " ".join(proof.limits)


@pytest.mark.parametrize("far", [0.05, 0.5, 0.8])
def test_random_attention_is_as_far_as_asked(far: float) -> None:
    rng = np.random.default_rng(0)
    for a in (np.full(30, 1 / 30), np.r_[0.9, np.full(9, 0.1 / 9)], rng.dirichlet(np.ones(12))):
        b = at_distance(a, far, rng)
        assert distance(a, b) == pytest.approx(far)
        assert (b >= 0).all()
        assert b.sum() == pytest.approx(1)


def test_a_sample_does_not_depend_on_the_place_of_a_text() -> None:
    model = tiny.opened("bert")
    batch = texts_of(model, (14, 12, 13))
    one = pellucid.audit(model, batch, "identifiability", rows=2)
    two = pellucid.audit(model, batch.rows([2, 0, 1]), "identifiability", rows=2)
    assert [f.value for f in one] == pytest.approx([f.value for f in two], nan_ok=True)


@pytest.mark.parametrize(
    "given_",
    [
        {"rows": "3"},
        {"rows": 2.5},
        {"seconds": "x"},
        {"seconds": float("nan")},
        {"seed": -1},
        {"seed": None},
        {"rows": True},
    ],
)
def test_settings_of_another_type_are_refused(given_: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(given_))} is a"):
        ask(tiny.opened("bert"), (5,), **given_)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"rows": (99,)}, "rows must be positions from 0 to 13"),
        ({"rows": ()}, "at least one"),
        ({"rows": (-1,)}, "positions from 0"),
        ({"head": 9}, "no head=9"),
        ({"layer": 9}, "no layer=9"),
    ],
)
def test_alternatives_refuse_what_is_not_there(given_: dict[str, Any], message: str) -> None:
    model = tiny.opened("bert")
    with pytest.raises(InputError, match=message):
        alternatives(model, texts_of(model, (14,)), **given_)
    with pytest.raises(InputError, match="one text; 2 were given"):
        alternatives(model, texts_of(model, (5, 6)))
