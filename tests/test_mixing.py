"""Norms of Jacobians, the method "hta" and the audit "mixing", against derivatives of the Hugging Face model itself."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import pellucid
from pellucid import Batch
from pellucid.audits import Mixing
from pellucid.audits.audit import TOO_FEW
from pellucid.audits.mixing import QUANTITIES, shares_of
from pellucid.errors import InputError
from pellucid.methods import HTA
from pellucid.methods.hta import JacobianNorms, jacobian_norms

BLOCKS: dict[str, Callable[[Any], nn.ModuleList]] = {
    "bert": lambda hf: hf.bert.encoder.layer,
    "roberta": lambda hf: hf.roberta.encoder.layer,
    "distilbert": lambda hf: hf.distilbert.transformer.layer,
    "deberta_v3": lambda hf: hf.deberta.encoder.layer,
    "modernbert": lambda hf: hf.model.layers,
    "modernbert_mean": lambda hf: hf.model.layers,
}
"""Where the Hugging Face model has its blocks."""
ROUNDING = {"deberta_v3": 1e-5, "modernbert": 1e-5, "modernbert_mean": 1e-5}
"""Hugging Face computes some steps of these in float32."""
SIX = Batch(torch.tensor([[4, 17, 23, 17, 41, 8]]))


def streams(family: str, batch: Batch) -> tuple[Tensor, Callable[[Tensor], tuple[list[Tensor], Tensor]]]:
    """The first block's input, and a function of it: outputs of all blocks and what the head is given, [1, n, d]."""
    hf = tiny.build(family)
    blocks = BLOCKS[family](hf)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.keep.long()}
    caught: list[Tensor] = []

    def run(x: Tensor | None) -> tuple[list[Tensor], Tensor]:
        outs: list[Tensor] = []

        def enter(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
            if args:
                caught.append(args[0])
                return ((args[0] if x is None else x, *args[1:]), named)
            caught.append(named["hidden_states"])
            return args, (named if x is None else {**named, "hidden_states": x})

        def leave(_: nn.Module, args: object, y: Any) -> None:
            outs.append(y if isinstance(y, Tensor) else y[0])

        hooks = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True)]
        hooks += [b.register_forward_hook(leave) for b in blocks]
        last = getattr(hf, hf.base_model_prefix)(**inputs).last_hidden_state
        for hook in hooks:
            hook.remove()
        return outs, last

    with torch.no_grad():
        run(None)
    return caught[0], run


@cache
def true_norms(family: str) -> np.ndarray:
    """||d h_j / d x_i|| of all blocks [l, n, n], by torch's Jacobian of the Hugging Face model."""
    x, run = streams(family, SIX)
    made = torch.autograd.functional.jacobian(lambda v: torch.stack(run(v)[0]), x)  # [l, 1, n, d, 1, n, d]
    return made[:, 0, :, :, 0].square().sum((2, 4)).sqrt().numpy()


def norms(family: str, **options: Any) -> JacobianNorms:
    return jacobian_norms(tiny.opened(family), SIX, **options)


@pytest.mark.parametrize("family", BLOCKS)
def test_exact_norms_are_those_of_the_hugging_face_model(family: str) -> None:
    made = norms(family, probes=None)
    np.testing.assert_allclose(made.norms, true_norms(family), rtol=ROUNDING.get(family, 1e-9))
    assert not made.error.any()
    assert made.layers == tuple(range(len(made.norms)))
    assert made.rows == tuple(range(6))


def test_layers_rows_and_chunks_are_parts_of_the_whole() -> None:
    whole = norms("bert", probes=None).norms
    part = norms("bert", probes=None, layers=(2, 0), rows=(4, 1, 0), chunk=7)
    torch.testing.assert_close(part.norms, whole[[2, 0]][:, [4, 1, 0]], rtol=1e-12, atol=0)
    assert (part.layers, part.rows) == ((2, 0), (4, 1, 0))
    few, again = norms("bert", chunk=5), norms("bert", chunk=1000)
    torch.testing.assert_close(few.norms, again.norms, rtol=1e-12, atol=0)
    torch.testing.assert_close(few.error, again.error, rtol=1e-10, atol=0)


def test_many_probes_come_near_the_truth() -> None:
    """Unbiased in the square: 3000 probes leave about 0.5 %."""
    made, true = norms("bert", probes=3000, rows=(0, 4)), true_norms("bert")[:, [0, 4]]
    found, error = made.norms.numpy(), made.error.numpy()
    assert (np.abs(found - true) < 4 * error).all()
    assert (error < 0.02 * true).all()
    assert abs((found / true - 1).mean()) < 0.003


def test_the_error_is_the_error() -> None:
    """Over 60 seeds, what is off is as large as is said: by standard deviation, and how often within two of them."""
    true = true_norms("bert")[1]
    runs = [norms("bert", layers=(1,), seed=s) for s in range(60)]
    off = np.stack([(r.norms[0].numpy() - true) / true for r in runs])
    said = np.stack([r.error[0].numpy() / true for r in runs])
    ratio = np.sqrt((off**2).mean(0)) / np.sqrt((said**2).mean(0))
    assert 0.8 < ratio.mean() < 1.2
    assert 0.85 < (np.abs(off) < 2 * said).mean() < 0.99
    assert 0.02 < said.mean() < 0.15


@pytest.mark.parametrize("family", ["bert", "modernbert_mean"])
def test_sixteen_probes_order_the_shares(family: str) -> None:
    made, true = norms(family).norms.numpy(), true_norms(family)
    for a, b in zip(made, true, strict=True):
        a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
        assert spearmanr(a.ravel(), b.ravel()).statistic > 0.9
        assert np.abs(a - b).max() < 0.1


def test_seeds() -> None:
    a, b, other = (norms("bert", seed=s).norms for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


def test_the_sum_of_a_norms_output_is_another_thing() -> None:
    """What public code differentiates: in a post-norm model it hardly depends on anything."""
    model = tiny.build("bert")
    for p in (model.bert.encoder.layer[2].output.LayerNorm,):
        nn.init.ones_(p.weight)
    opened = pellucid.load(model)
    x = opened.embed(SIX).detach().requires_grad_()
    from pellucid.encoder.forward import encode
    from pellucid.methods.hta import Kept

    ops = Kept(["2.out"])
    with torch.enable_grad():
        encode(ops, opened.require_net(), x, SIX.keep, full=True)
    (back,) = torch.autograd.grad(ops.seen["2.out"].sum(), x)
    assert float(back.abs().max()) < 1e-9
    assert float(jacobian_norms(opened, SIX, (2,), None).norms.min()) > 1e-3


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "two texts": (lambda: jacobian_norms(tiny.opened("bert"), Batch(torch.ones(2, 3).long())), "one text.*2 rows"),
    "padding": (
        lambda: jacobian_norms(tiny.opened("bert"), Batch(SIX.input_ids, torch.arange(6)[None] < 4)),
        "2 padded places",
    ),
    "layer": (lambda: norms("bert", layers=(3,)), "no layer.*3.*0 to 2"),
    "no layer": (lambda: norms("bert", layers=()), "no layer"),
    "row": (lambda: norms("bert", rows=(-1,)), "no row.*-1.*0 to 5"),
    "one probe": (lambda: norms("bert", probes=1), "probes=1"),
    "probes": (lambda: HTA(probes=True), "HTA.*probes=True"),
    "probes of the audit": (lambda: Mixing(probes=0), "Mixing.*probes=0"),
    "texts": (lambda: Mixing(texts=0), "texts.*seen 0"),
    "tokens": (lambda: Mixing(tokens=-1), "tokens.*seen -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    call, words = REFUSED[case]
    with pytest.raises(InputError, match=words):
        call()


# The method


@pytest.mark.parametrize("family", BLOCKS)
def test_exact_hta_is_the_derivative_of_what_the_head_reads(family: str) -> None:
    model = tiny.opened(family)
    batch = tiny.batch(model, (6, 3))
    for a, n, i in zip(pellucid.explain(model, batch, HTA(probes=None)), (6, 3), (0, 1), strict=True):
        one = Batch(batch.input_ids[[i], :n])
        x, run = streams(family, one)

        def read(v: Tensor, run: Any = run) -> Tensor:
            last = run(v)[1][0]
            return last.mean(0) if family == "modernbert_mean" else last[0]

        true = torch.autograd.functional.jacobian(read, x)[:, 0].square().sum((0, 2)).sqrt()
        np.testing.assert_allclose(a.scores, true / true.sum(), rtol=ROUNDING.get(family, 1e-9))
        assert a.origin["backwards"] == 32


def test_estimated_hta_is_near() -> None:
    model = tiny.opened("bert")
    exact = pellucid.explain(model, SIX, HTA(probes=None))[0].scores
    near = [pellucid.explain(model, SIX, HTA(seed=s))[0].scores for s in range(20)]
    np.testing.assert_allclose(np.mean(near, 0), exact, rtol=0.05)
    assert 0 < np.std(near, 0).max() < 0.1
    assert near[0].sum() == pytest.approx(1)


# The audit


def by_hand() -> tuple[np.ndarray, np.ndarray]:
    norm = np.array([[4.0, 2, 1, 1, 0, 0], [1, 2, 1, 1, 3, 2], [0, 0, 0, 0, 0, 0], [1, 1, 1, 4, 1, 2]])
    return norm, np.array([0, 1, 5, 3])


def test_shares_by_hand() -> None:
    norm, rows = by_hand()
    error = np.zeros_like(norm)
    error[1, 1], error[1, 4] = 0.3, 0.45
    s = shares_of(norm, error, rows)
    np.testing.assert_allclose(s.value["own_share"], [0.5, 0.2, np.nan, 0.4])
    np.testing.assert_allclose(s.null["own_share"], [0.1, 0.16, np.nan, 0.12])
    np.testing.assert_allclose(s.value["not_own_main"], [0, 1, np.nan, 0])
    np.testing.assert_allclose(s.null["not_own_main"], [5 / 6, 5 / 6, np.nan, 5 / 6])
    np.testing.assert_allclose(s.value["local_mass"], [0.875, 0.5, np.nan, 0.9])
    np.testing.assert_allclose(s.null["local_mass"], [0.5 + 0.2, 0.2 + 0.16 * 3, np.nan, 0.4 + 0.12 * 4])
    assert s.main[[0, 1, 3]].tolist() == [0, 4, 3]
    np.testing.assert_allclose(s.main_share[[0, 1, 3]], [0.5, 0.3, 0.4])
    assert s.close == 1, "3 - 2 is less than twice the hypotenuse of 0.3 and 0.45"
    assert shares_of(norm, error / 2, rows).close == 0


def test_local_mass_needs_a_token_that_is_far() -> None:
    s = shares_of(np.ones((4, 4)), np.zeros((4, 4)), np.arange(4))
    np.testing.assert_array_equal(s.value["local_mass"], [0.75, np.nan, np.nan, 0.75])
    np.testing.assert_array_equal(s.null["local_mass"], [0.75, np.nan, np.nan, 0.75])


def planted(kind: str) -> pellucid.Model:
    """ "own": every block hands each token on; "even": attention is even and drowns the token itself."""
    hf = tiny.build("bert")
    with torch.no_grad():
        for layer in hf.bert.encoder.layer:
            layer.output.dense.weight.zero_()
            attention = layer.attention
            if kind == "own":
                attention.output.dense.weight.zero_()
            else:
                attention.self.query.weight.zero_()
                attention.self.query.bias.zero_()
                attention.output.dense.weight.mul_(1000)
    return pellucid.load(hf)


def many(model: pellucid.Model, texts: int = 12) -> Batch:
    return tiny.batch(model, (1, *[5 + i % 4 for i in range(texts)], 1))


def test_a_model_that_hands_tokens_on() -> None:
    found = pellucid.audit(planted("own"), many(planted("own")), Mixing(probes=4))
    for layer in (1, 2, 3):
        own, other, local = (found.named(q.name, f"layer {layer}") for q in QUANTITIES)
        assert (own.value, own.interval, own.null, own.grade) == (1.0, (1.0, 1.0), 0.0, "OWN TOKEN DOMINATES")
        assert (other.value, other.null > 0.7) == (0.0, True)
        assert (local.value, local.null) == (1.0, 1.0)
        assert own.n == 12
        assert own.counts == {"tokens": sum(5 + i % 4 for i in range(12)), "texts left out": 2}
        assert "Texts of one token are left out: 2." in own.limits
    assert found.named("local_mass", "layer 1").grade == "REST SPREAD EVENLY", "no more local than its control"


def test_a_model_that_mixes_evenly() -> None:
    model = planted("even")
    found = pellucid.audit(model, many(model), Mixing(probes=None))
    own, other, local = (found.named(q.name, "layer 3") for q in QUANTITIES)
    assert own.value == pytest.approx(own.null, rel=0.05)
    assert own.grade in ("OWN TOKEN LOST", "MIXED")
    assert local.value == pytest.approx(local.null, rel=0.05)
    assert other.grade == "OWN TOKEN LOST"
    assert other.counts["tokens too close to call"] == 0
    assert not any("probes" in said for said in own.limits)


def test_the_table_is_what_the_norms_say() -> None:
    model = tiny.opened("bert")
    batch = model.named(tiny.batch(model, (9, 1, 6)))
    rows = pellucid.audit(model, batch, Mixing(probes=None)).tables["tokens"]
    assert len(rows) == 3 * (9 + 6)
    for text, n in ((0, 9), (2, 6)):
        c = jacobian_norms(model, batch.rows([text]), None, None).norms.numpy()
        c = c / c.sum(-1, keepdims=True)
        for row in (r for r in rows if r["text"] == text):
            share, j = c[row["layer"] - 1, row["position"]], row["position"]
            assert row["n"] == n
            assert row["own_share"] == pytest.approx(share[j])
            assert (row["largest"], row["largest_share"]) == (share.argmax(), pytest.approx(share.max()))
            assert row["token"] == f"[{batch.input_ids[text, j]}]"
            assert row["largest_token"] == f"[{batch.input_ids[text, share.argmax()]}]"
            near = share[max(0, j - 2) : j + 3].sum()
            assert np.isnan(row["local_mass"]) if abs(near - 1) < 1e-9 else row["local_mass"] == pytest.approx(near)


def test_samples_are_seeded_and_said() -> None:
    model = tiny.opened("bert")
    batch = many(model)
    steps: list[tuple[int, int]] = []
    options: dict[str, Any] = {"texts": 10, "tokens": 3, "probes": 2}
    first = pellucid.audit(model, batch, "mixing", progress=lambda a, b: steps.append((a, b)), **options)
    again = pellucid.audit(model, batch, "mixing", **options)
    other = pellucid.audit(model, batch, "mixing", seed=1, **options)
    assert [f.to_dict() for f in first] == [f.to_dict() for f in again]
    assert first.tables == again.tables or str(first.tables) == str(again.tables)
    assert [f.value for f in first] != [f.value for f in other]
    assert {r["text"] for r in first.tables["tokens"]} != {r["text"] for r in other.tables["tokens"]}
    assert steps[-1] == (30, 30)
    assert [a for a, _ in steps] == sorted(a for a, _ in steps)
    own = first.named("own_share", "layer 2")
    assert (own.n, own.counts["tokens"]) == (10, 30)
    assert "10 of 12 texts were sampled; texts=None takes all." in own.limits
    assert any(said.startswith("In 10 texts 3 hidden tokens were sampled") for said in own.limits)
    assert any("estimated from 2 probes" in said for said in own.limits)
    assert first.params == {"seed": 0, "probes": 2, "texts": 10, "tokens": 3}


def test_few_texts_and_no_texts() -> None:
    model = tiny.opened("bert")
    few = pellucid.audit(model, tiny.batch(model, (6, 5)), Mixing(probes=2))
    assert {f.grade for f in few} == {TOO_FEW}
    assert all(f.value is not None and f.interval is not None and f.null is not None for f in few)
    none = pellucid.audit(model, tiny.batch(model, (1, 1)), Mixing(probes=2))
    assert {(f.value, f.grade, f.n) for f in none} == {(None, TOO_FEW, 0)}
    assert not none.figures()
    short = pellucid.audit(model, tiny.batch(model, (3,) * 10), Mixing(probes=2))
    assert short.named("own_share", "layer 1").n == 10
    assert short.named("local_mass", "layer 1").value is None


def test_the_model_is_left_as_it_was_and_files_are_written(tmp_path) -> None:
    hf = tiny.build("modernbert_mean").train()
    model = pellucid.load(hf)
    before = {k: v.clone() for k, v in hf.state_dict().items()}
    found = pellucid.audit(model, tiny.batch(model, (5, 4)), "mixing", probes=2)
    assert hf.training
    assert all(p.grad is None and p.requires_grad for p in hf.parameters())
    assert all(torch.equal(v, before[k]) for k, v in hf.state_dict().items())
    names = {p.name for p in found.save(tmp_path)}
    assert names == {"mixing.json", "mixing_tokens.parquet", "mixing_layers.svg"}
    (ax,) = found.figures()["layers"].axes
    shown = [line.get_ydata() for line in ax.lines[:3]]
    expected = [[found.named(q.name, f"layer {i}").value for i in range(1, 5)] for q in QUANTITIES]
    np.testing.assert_allclose(shown, expected)


def test_each_text_counts_alone() -> None:
    """Batch mates and padding change nothing: the same text, alone and padded, has the same exact numbers."""
    model = tiny.opened("bert")
    batch = tiny.batch(model, (7, 5))
    both = pellucid.audit(model, batch, Mixing(probes=None)).tables["tokens"]
    alone = pellucid.audit(model, batch.rows([1]), Mixing(probes=None)).tables["tokens"]
    for a, b in zip([r for r in both if r["text"] == 1], alone, strict=True):
        assert a["own_share"] == pytest.approx(b["own_share"], rel=1e-12)
    assert replace(Mixing(), probes=None).params()["probes"] is None


def test_the_bundled_model(demo: pellucid.Model) -> None:
    """A trained model: sixteen probes order the shares of a real sentence as all directions do."""
    text = demo.batch("A warm, funny and clever film that never quite finds its ending.")
    exact, near = (jacobian_norms(demo, text, None, k).norms.numpy() for k in (None, 16))
    for a, b in zip(exact, near, strict=True):
        a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
        assert spearmanr(a.ravel(), b.ravel()).statistic > 0.97
