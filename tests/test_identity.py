"""Token identity: nearest neighbours by hand and by scipy, planted encoders, maps that never see their own texts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import tiny
import torch
from scipy.spatial.distance import cdist

import pellucid
from pellucid import Batch
from pellucid.audits import TokenIdentity, identity
from pellucid.audits.audit import TOO_FEW
from pellucid.audits.identity import RIDGES, Moments, folds_of, identity_rate, linear_map, mapped
from pellucid.errors import InputError, MissingExtra

RNG = np.random.default_rng


def test_identity_rate_by_hand() -> None:
    x = np.array([[1.0, 0], [0, 1], [3, 3], [0, 1]])
    h = np.array([[5.0, 0.1], [0.1, 0.9], [1, 1.1], [0, 7], [2, 0]])
    own = np.array([0, 1, 2, 0, 1])
    np.testing.assert_array_equal(identity_rate(h, x, own, "cosine"), [1, 0.5, 1, 0, 0])
    np.testing.assert_array_equal(identity_rate(h, x, own, "l2"), [0, 0.5, 0, 0, 0])


def test_identity_rate_edges() -> None:
    x = RNG(0).normal(size=(3, 4))
    zero = np.zeros((3, 4))
    np.testing.assert_allclose(identity_rate(zero, x, np.arange(3), "cosine"), 1 / 3)  # no angle: all tie
    np.testing.assert_allclose(identity_rate(x, np.zeros((3, 4)), np.arange(3), "l2"), 1 / 3)
    assert identity_rate(x[:1], x[:1], np.array([0]), "l2").tolist() == [1.0]
    assert identity_rate(np.empty((0, 4)), x, np.empty(0, int), "cosine").shape == (0,)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("n", [1, 7, 400])
def test_identity_rate_is_scipys_nearest(distance: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = RNG(n)
    x, own = rng.normal(size=(n, 5)), rng.permutation(n)
    h = x[own] + 0.7 * rng.normal(size=(n, 5))
    far = cdist(h, x, {"l2": "euclidean", "cosine": "cosine"}[distance])
    nearest = (far.argmin(1) == own).astype(float)
    for block in (1, 1000, 2**24):
        monkeypatch.setattr(identity, "_BLOCK", block)
        np.testing.assert_array_equal(identity_rate(h, x, own, distance), nearest)


def test_equal_inputs_share_the_hit_also_with_rounding() -> None:
    rng = RNG(0)
    x = rng.normal(size=(6, 16)).astype(np.float32)
    x[3] = x[1] * np.float32(1 + 1e-7)
    for distance in ("cosine", "l2"):
        np.testing.assert_allclose(identity_rate(x, x, np.arange(6), distance), [1, 0.5, 1, 0.5, 1, 1])


def test_shuffled_states_are_at_chance() -> None:
    rng = RNG(1)
    x = rng.normal(size=(50, 8))
    hits = [identity_rate(x, x, rng.permutation(50), "cosine").mean() for _ in range(200)]
    assert np.mean(hits) == pytest.approx(1 / 50, abs=0.005)


# Maps


def rotated(texts: int = 30, n: int = 12, d: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hidden states that are a rotation of the inputs, moved; the text of each token."""
    rng = RNG(3)
    x = rng.normal(size=(texts * n, d))
    return x @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 2.0, x, np.repeat(np.arange(texts), n)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_map_brings_a_rotation_back(kind: str) -> None:
    h, x, text = rotated(60)
    fold = folds_of([[i] for i in range(60)], 5, 0)
    back = mapped(h, x, text, fold, kind, 0)
    rate = {"none": [], kind: []}
    for t in range(60):
        at = text == t
        rate["none"].append(identity_rate(h[at], x[at], np.arange(12), "cosine").mean())
        rate[kind].append(identity_rate(back[at], x[at], np.arange(12), "cosine").mean())
    assert np.mean(rate["none"]) < 0.25
    assert np.mean(rate[kind]) == 1.0 if kind == "linear" else np.mean(rate[kind]) > 0.8


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_map_never_sees_the_texts_it_is_used_on(kind: str) -> None:
    """Other inputs for the tokens of one fold leave that fold's own predictions as they were, and move the others."""
    h, x, text = rotated()
    fold = folds_of([[i] for i in range(30)], 5, 0)
    mine = fold[text] == 2
    other = x.copy()
    other[mine] = RNG(9).normal(size=other[mine].shape)
    a, b = mapped(h, x, text, fold, kind, 0), mapped(h, other, text, fold, kind, 0)
    np.testing.assert_array_equal(a[mine], b[mine])
    assert np.abs(a[~mine] - b[~mine]).min(1).max() > 0
    assert not np.isclose(a[~mine], b[~mine]).all(1).any()


def test_the_linear_map_is_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    rng = RNG(5)
    h, x = rng.normal(size=(80, 6)) + 1, rng.normal(size=(80, 4))
    for relative in RIDGES:
        made = Moments.of(h, x)
        w, b = made.ridge(relative)
        alpha = relative * ((h - h.mean(0)) ** 2).sum() / 6
        known = Ridge(alpha=alpha).fit(h, x)
        np.testing.assert_allclose(w, known.coef_.T, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(b, known.intercept_, rtol=1e-9)
        assert made.error(w, b) == pytest.approx(((h @ w + b - x) ** 2).sum())


def test_the_ridge_is_chosen_on_other_texts_than_it_is_tried_with() -> None:
    rng = RNG(6)
    for noise in (0.0, 30.0):
        h = rng.normal(size=(60, 20))
        x = h[:, :3] + noise * rng.normal(size=(60, 3))
        parts = [Moments.of(h[i::3], x[i::3]) for i in range(3)]
        errors = []
        for r in RIDGES:
            w, b = (parts[1] + parts[2]).ridge(r)
            errors.append(((h[0::3] @ w + b - x[0::3]) ** 2).sum())
        best = RIDGES[int(np.argmin(errors))]
        assert (best == RIDGES[0]) == (noise == 0.0)
        w, b = linear_map(parts)
        known = Moments.of(h, x).ridge(best)
        np.testing.assert_allclose(w, known[0], rtol=1e-9)
        np.testing.assert_allclose(b, known[1], rtol=1e-9, atol=1e-12)


def test_hidden_states_that_are_all_alike_have_a_map() -> None:
    w, b = Moments.of(np.ones((9, 4)), RNG(0).normal(size=(9, 4))).ridge(0.1)
    assert np.isfinite(w).all()
    assert np.isfinite(b).all()


def test_folds_keep_equal_texts_together() -> None:
    texts = [[1, 2], [3], [1, 2], [4], [5], [6, 7], [1, 2], [3]]
    fold = folds_of(texts, 3, 0)
    assert fold[0] == fold[2] == fold[6]
    assert fold[1] == fold[7]
    assert set(fold.tolist()) == {0, 1, 2}
    assert folds_of(texts, 5, 1) is not None
    assert folds_of(texts, 6, 0) is None
    many = [[i] for i in range(50)]
    assert not np.array_equal(folds_of(many, 5, 0), folds_of(many, 5, 1))
    assert np.bincount(folds_of(many, 5, 0)).tolist() == [10] * 5


# The audit


def planted(turn: bool = False) -> pellucid.Model:
    """Blocks that hand each token on; with `turn` the first one swaps the two halves of the width."""
    hf = tiny.build("bert")
    with torch.no_grad():
        for norm in [m for m in hf.modules() if isinstance(m, torch.nn.LayerNorm)]:
            norm.weight.fill_(1.0)
            norm.bias.zero_()
        for layer in hf.bert.encoder.layer:
            for p in (*layer.attention.output.dense.parameters(), *layer.output.dense.parameters()):
                p.zero_()
        if turn:
            first = hf.bert.encoder.layer[0]
            first.output.LayerNorm.weight.copy_(torch.tensor([1.0, -1.0]).repeat(16))
    return pellucid.load(hf)


def many(model: pellucid.Model, texts: int = 20, extra: int = 0) -> Batch:
    return tiny.batch(model, (*[5 + i % 4 for i in range(texts)], *[1] * extra))


def test_an_encoder_that_hands_tokens_on() -> None:
    model = planted()
    found = pellucid.audit(model, many(model, 40, extra=2), "token_identity")
    assert len(found) == 3 * 2 * 2
    for f in found:
        assert (f.value, f.n, f.grade) == (1.0, 40, "IDENTIFIABLE")
        assert f.interval[0] > 0.9
        assert 0.05 < f.null < 0.35
        assert "chance is 0.154" in f.control, "40 texts, 260 tokens"
        assert (f.counts["tokens"], f.counts["texts left out"]) == (260, 2)
        assert "Texts of one token are left out: 2." in f.limits


def test_a_linear_map_finds_what_no_map_cannot() -> None:
    model = planted(turn=True)
    found = pellucid.audit(model, many(model, 60), "token_identity")
    plain, linear = (found.named(f"identity_{k}_cosine", "layer 2") for k in ("none", "linear"))
    assert linear.value == 1.0
    assert plain.value < 0.5
    assert plain.grade in ("PARTLY IDENTIFIABLE", "NOT IDENTIFIABLE")


@pytest.mark.parametrize("candidates", ["text", "batch"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_hits_are_those_of_the_hugging_face_models_states(family: str, candidates: str) -> None:
    """Nearest by scipy among Hugging Face's own hidden states, text by text, without padding."""
    model = tiny.opened(family)
    batch = tiny.batch(model, (9, 6, 1, 7), seed=6)
    audit = TokenIdentity(maps=("none",), candidates=candidates)
    rows = pellucid.audit(model, batch, audit).tables["hits"]
    states: list[list[np.ndarray]] = []
    for i in (0, 1, 3):
        one = batch.rows([i])
        with torch.no_grad():
            seen = model.hf(input_ids=one.input_ids, output_hidden_states=True).hidden_states
        states.append([s[0].numpy() for s in seen])
    everything = np.concatenate([s[0] for s in states])
    assert len(np.unique(everything, axis=0)) == 22, "no ties"
    starts = np.cumsum([0, *[len(s[0]) for s in states]])
    for k, (text, seen) in enumerate(zip((0, 1, 3), states, strict=True)):
        x, at = (everything, starts[k]) if candidates == "batch" else (seen[0], 0)
        for layer in (1, 2, 3):
            for distance, metric in (("cosine", "cosine"), ("l2", "euclidean")):
                nearest = cdist(seen[layer], x, metric).argmin(1)
                (row,) = (r for r in rows if (r["text"], r["layer"], r["distance"]) == (text, layer, distance))
                assert row["hits"] == (nearest == at + np.arange(len(nearest))).sum()
                assert (row["n"], row["map"]) == (len(seen[0]), "none")


def test_equal_inputs_among_all_texts() -> None:
    """Every text begins with the same token at the same place: its hits are shared, and counted."""
    model = planted()
    batch = many(model, 10)
    ids = batch.input_ids.clone()
    ids[:, 0] = 57
    batch = Batch(ids, batch.keep)
    alone = pellucid.audit(model, batch, "token_identity", maps=("none",)).named("identity_none_cosine", "layer 1")
    among = pellucid.audit(model, batch, "token_identity", maps=("none",), candidates="batch")
    found = among.named("identity_none_cosine", "layer 1")
    assert (alone.value, alone.counts["tokens whose input is not unique"]) == (1.0, 0)
    assert found.counts["tokens whose input is not unique"] >= 10
    assert found.value < 1.0
    assert found.null < alone.null
    assert any("Equal inputs" in said for said in found.limits)


def test_layers_in_groups_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.opened("deberta_v3")
    batch = many(model)
    whole = pellucid.audit(model, batch, "token_identity")
    monkeypatch.setattr(identity, "_HELD", 1)
    steps: list[tuple[int, int]] = []
    parts = pellucid.audit(model, batch, "token_identity", progress=lambda a, b: steps.append((a, b)))
    assert [f.to_dict() for f in whole] == [f.to_dict() for f in parts]
    assert whole.tables == parts.tables
    assert steps == [(i + 1, 9) for i in range(9)]


def test_batches_and_order_change_nothing() -> None:
    model = tiny.opened("modernbert")
    batch = many(model, 12)
    a = pellucid.audit(model, batch, "token_identity", maps=("none",)).tables["hits"]
    b = pellucid.audit(model, batch.rows(range(11, -1, -1)), "token_identity", maps=("none",)).tables["hits"]
    key: Callable[[Any], Any] = lambda r: (r["layer"], r["distance"], r["text"])  # noqa: E731
    flipped = [{**r, "text": 11 - r["text"]} for r in b]
    for x, y in zip(sorted(a, key=key), sorted(flipped, key=key), strict=True):
        assert (x["hits"], x["n"]) == (y["hits"], y["n"])


def test_too_few_texts() -> None:
    model = tiny.opened("bert")
    found = pellucid.audit(model, tiny.batch(model, (6, 5, 4)), "token_identity")
    plain, linear = (found.named(f"identity_{k}_l2", "layer 1") for k in ("none", "linear"))
    assert (plain.grade, plain.n, plain.value is None) == (TOO_FEW, 3, False)
    assert (linear.grade, linear.n, linear.value, linear.null) == (TOO_FEW, 0, None, None)
    assert "fewer unlike texts than folds" in linear.reading
    assert {r["map"] for r in found.tables["hits"]} == {"none"}
    same = Batch(torch.tensor([[7, 8, 9]]).repeat(12, 1))
    assert pellucid.audit(model, same, "token_identity").named("identity_linear_l2", "layer 1").value is None
    none = pellucid.audit(model, tiny.batch(model, (1, 1)), "token_identity")
    assert {(f.value, f.grade, f.n, f.counts["texts left out"]) for f in none} == {(None, TOO_FEW, 0, 2)}
    assert found.figures()
    assert not none.figures()


def test_twice_the_same_and_the_model_as_it_was(tmp_path) -> None:
    hf = tiny.build("bert").train()
    model = pellucid.load(hf)
    before = {k: v.clone() for k, v in hf.state_dict().items()}
    first, again = (pellucid.audit(model, many(model), "token_identity") for _ in range(2))
    assert [f.to_dict() for f in first] == [f.to_dict() for f in again]
    assert first.tables == again.tables
    assert hf.training
    assert all(p.grad is None and p.requires_grad for p in hf.parameters())
    assert all(torch.equal(v, before[k]) for k, v in hf.state_dict().items())
    names = {p.name for p in first.save(tmp_path)}
    assert names == {"token_identity.json", "token_identity_hits.parquet", "token_identity_layers.svg"}
    assert first.params == {
        "seed": 0, "maps": ("none", "linear"), "distances": ("cosine", "l2"), "candidates": "text", "folds": 5,
    }  # fmt: skip


def test_a_perceptron_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    model = planted()
    batch = many(model, 12)
    audit = TokenIdentity(maps=("mlp",), distances=("cosine",), folds=3)
    found = pellucid.audit(model, batch, audit)
    assert found.named("identity_mlp_cosine", "layer 3").value > 0.5
    monkeypatch.setattr(identity, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install \"pellucid\[info\]\""):
        pellucid.audit(model, batch, audit)
    pellucid.audit(model, batch, replace(audit, maps=("none",)))


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "map": (lambda: TokenIdentity(maps=("rotation",)), "maps.*'mlp'.*rotation"),
    "no map": (lambda: TokenIdentity(maps=()), r"maps.*seen \(\)"),
    "twice": (lambda: TokenIdentity(distances=("l2", "l2")), "distances.*at most once"),
    "candidates": (lambda: TokenIdentity(candidates="all"), "candidates='all'.*'batch'"),
    "folds": (lambda: TokenIdentity(folds=2), "folds.*from 3.*folds=2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would refuse first, in tests only
    call, words = REFUSED[case]
    with pytest.raises(InputError, match=words):
        call()


def test_a_real_model_forgets_with_depth(minilm: pellucid.Model, shared) -> None:
    """Reported by Brunner et al.: identity fades, is kept longer in the angle, and a linear map finds more of it."""
    from pyarrow.parquet import read_table

    texts = read_table(shared / "data" / "sst2" / "dev.parquet").column("text").to_pylist()[:120]
    found = pellucid.audit(minilm, texts, "token_identity")
    rate = {k: [found.named(f"identity_{k}", f"layer {i}").value for i in (1, 4, 6)] for k in
            ("none_cosine", "none_l2", "linear_cosine")}  # fmt: skip
    assert rate["none_cosine"][0] > 0.99
    assert rate["none_cosine"][0] > rate["none_cosine"][1] > rate["none_cosine"][2]
    assert rate["none_cosine"][2] > rate["none_l2"][2] + 0.1
    assert rate["linear_cosine"][2] > rate["none_cosine"][2]
