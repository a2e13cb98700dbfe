"""Every method on every family, held to what the method declares; one function per check.

The models are random and compute in float64, so that 1e-9 is rounding and anything larger a mistake. Besides the
registered methods, every kind of DecompX is checked on three unlike families.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pellucid
from pellucid import AUDITS, METHODS, Access, Attribution, Batch, Target
from pellucid.audits import catalog as audits_catalog
from pellucid.audits.audit import Audit
from pellucid.encoder import forward
from pellucid.errors import AccessError, InputError
from pellucid.methods import Attention, DecompX, Gradient, IntegratedGradients, LeaveOneOut, Method, Rollout
from pellucid.methods.catalog import explained_at_length
from pellucid.methods.decompx import LINEAR
from pellucid.methods.vectors import SHARES, push

NAMES = METHODS.names()
UNLIKE = ["bert", "deberta_v3", "modernbert_mean"]
LENGTHS = (6, 3, 1)
FINE = 1e-9


@dataclass(frozen=True)
class Pieces:
    """The least that a tokenizer must have for methods that put a special token in a token's place."""

    pad_token_id: int
    mask_token_id: int = 3
    cls_token_id: int = 4
    unk_token_id: int | None = None
    all_special_ids: tuple[int, ...] = (0, 1, 3, 4)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"t{i}" for i in ids]


@cache
def opened(
    family: str, dtype: torch.dtype = torch.float64, access: str | None = None, limit: int = 40, use: str = ""
) -> pellucid.Model:
    """A tiny model with a tokenizer and `limit` positions, opened once per `use`."""
    hf = tiny.build(family, dtype, max_position_embeddings=limit)
    return pellucid.load(hf, tokenizer=Pieces(hf.config.pad_token_id or 0), access=access)


def texts(model: pellucid.Model, lengths: Sequence[int] = LENGTHS, extra: int = 0) -> Batch:
    """Random ids after a special first token, padded, with `extra` more columns of padding, and two token types."""
    batch = tiny.batch(model, tuple(lengths))
    ids, keep = F.pad(batch.input_ids, (0, extra), value=model.tokenizer.pad_token_id), F.pad(batch.keep, (0, extra))
    ids[:, 0] = model.tokenizer.cls_token_id
    two = getattr(model.hf.config, "type_vocab_size", 0) > 1 and "token_type_ids" in model.takes
    return Batch(ids, keep, (torch.arange(ids.shape[1]).expand(ids.shape) % 2) if two else None)


def run(
    model: pellucid.Model, method: str | Method, target: Any = "all", batch: Batch | None = None
) -> list[Attribution]:
    """Explain the standard batch, or another."""
    asked = tiny.method(method, model) if method in NAMES else method
    return pellucid.explain(model, texts(model) if batch is None else batch, asked, target)


@cache
def every(name: str, family: str) -> list[Attribution]:
    """The scores for all classes, which most checks compare with."""
    return run(opened(family), name)


def parts(a: Attribution) -> list[Any]:
    """All numbers of an attribution, None left out."""
    return [v for v in (a.scores, a.unallocated, a.explained) if v is not None]


def same(some: list[Attribution], others: list[Attribution], within: float = FINE) -> None:
    """Scores, unallocated and explained agree text by text, relative to their size or 1."""
    for a, b in zip(some, others, strict=True):
        for x, y in zip(parts(a), parts(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=within, atol=within)


def columns(all_classes: list[Attribution], targets: Sequence[int | tuple[int, int]]) -> list[Attribution]:
    """What single targets must give: a column of "all", or exactly column a minus column b."""

    def pick(v: Any, t: int | tuple[int, int]) -> Any:
        return None if v is None else v[..., t[0]] - v[..., t[1]] if isinstance(t, tuple) else v[..., t]

    return [
        replace(a, scores=pick(a.scores, t), unallocated=pick(a.unallocated, t), explained=pick(a.explained, t))
        for a, t in zip(all_classes, targets, strict=True)
    ]


@pytest.fixture(autouse=True)
def _annotations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first check of each method executes the shape annotations, and none those of functions made inside a
    call, which would be decorated anew at every call: the tests then take a quarter of the time."""
    monkeypatch.setattr(jaxtyping, "jaxtyped", lambda **_: lambda f: f)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", request.function is not test_shapes_and_guarantees)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Every registered method, one after the other."""
    return str(request.param)


@pytest.mark.parametrize("thing", [*METHODS, *AUDITS], ids=lambda thing: thing.name)
def test_it_says_when_not_to_trust_it(thing: Method | Audit) -> None:
    """In a sentence or two, ending as one; its page and `pellucid methods NAME` show it."""
    caution = thing.caution
    assert 40 < len(caution) < 400
    assert caution.endswith(".")
    assert caution == " ".join(caution.split())
    told = audits_catalog.explained_at_length(thing) if isinstance(thing, Audit) else explained_at_length(thing)
    assert f"When not to trust it: {caution}" in " ".join(told.split())


def test_shapes_and_guarantees(name: str, family: str) -> None:
    model = opened(family)
    holds = METHODS.get(name).guarantees(model)
    for a, n, logits in zip(every(name, family), LENGTHS, model.logits(texts(model)).numpy(), strict=True):
        assert a.scores.shape == (n, 3)
        assert a.scores.dtype == np.float64
        assert all(np.isfinite(v).all() for v in parts(a))
        assert (a.target, a.label, a.method) == ("all", "all", name)
        assert (a.prediction, a.params) == (model.labels[logits.argmax()], tiny.method(name, model).params(model))
        assert a.probability == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum())
        assert (a.complete, a.signed, a.additive) == (holds.complete, holds.signed, holds.additive)
        if a.explained is not None:
            np.testing.assert_allclose(a.explained, logits, rtol=FINE)
            np.testing.assert_allclose(a.gap, a.explained - a.unallocated - a.scores.sum(0), atol=1e-12)
        assert not holds.complete or np.abs(a.gap).max() < FINE
        assert holds.signed or (a.scores >= 0).all()
        assert not holds.target_free or (a.scores == a.scores[:, :1]).all()


def test_complete_in_float32(name: str, family: str) -> None:
    for a in run(opened(family, torch.float32), name):
        assert all(np.isfinite(v).all() for v in parts(a))
        assert not a.complete or np.abs(a.gap).max() < 1e-5 * max(1.0, np.abs(a.explained).max())


def test_same_again_whatever_mode_the_caller_is_in(name: str, family: str) -> None:
    expected = every(name, family)
    if METHODS.get(name).guarantees(opened(family)).deterministic:
        with torch.no_grad():
            same(run(opened(family), name), expected, within=0)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            same(run(opened(family), name), expected, within=0)


def test_alone_in_another_order_and_with_more_padding(name: str, family: str) -> None:
    model, expected, method = opened(family), every(name, family), tiny.method(name, opened(family))
    if not method.guarantees(model).padding_invariant:
        return
    same([run(model, name, batch=texts(model).rows([i]))[0] for i in (1, 2)], expected[1:])
    same(run(model, name, batch=texts(model).rows([2, 0, 1])), [expected[i] for i in (2, 0, 1)])
    batch = model.named(texts(model, extra=3))
    with torch.no_grad():  # the method itself: explain would cut the extra columns off
        scores = method(model, batch, Target.parse("all", model.labels, batch)).scores
    assert not scores[~batch.keep].any(), "padding has scores"
    for i, a in enumerate(expected):
        np.testing.assert_allclose(scores[i, batch.keep[i]], a.scores, rtol=FINE, atol=FINE)


def test_targets(name: str, family: str) -> None:
    """A class, a label's name, a pair and the prediction are all read off the columns of "all"."""
    model, expected = opened(family), every(name, family)
    predicted = model.labels.index(expected[0].prediction)
    same(run(model, name, [None, (0, 1), (2, 1)]), columns(expected, [predicted, (0, 1), (2, 1)]))
    flipped = run(model, name, ["LABEL_2", ("LABEL_1", "LABEL_0"), (1, 2)])
    same(flipped, columns(expected, [2, (1, 0), (1, 2)]))
    assert [a.label for a in flipped] == ["LABEL_2", "LABEL_1 - LABEL_0", "LABEL_1 - LABEL_2"]
    assert [a.target for a in flipped] == [2, (1, 0), (1, 2)]


@dataclass(frozen=True)
class Mixture(Target):
    """Any one combination of the logits."""

    def weights(self, logits: Tensor) -> Tensor:
        return torch.tensor([2.0, -0.5, 1.0]).to(logits)[None, :, None].expand(len(logits), 3, 1)


def test_linear_in_the_target(name: str, family: str) -> None:
    model, method = opened(family), tiny.method(name, opened(family))
    if method.guarantees(model).linear_in_target:
        batch = model.named(texts(model))
        with torch.no_grad():
            got = method(model, batch, Mixture((0, 0, 0), model.labels)).scores[..., 0]
        for i, a in enumerate(every(name, family)):
            np.testing.assert_allclose(got[i, batch.keep[i]], a.scores @ [2.0, -0.5, 1.0], rtol=FINE, atol=FINE)


def test_one_token_and_the_longest_input(name: str, family: str) -> None:
    model = opened(family, limit=12)
    assert model.limit in (10, 12)
    longest, one = run(model, name, batch=texts(model, (model.limit, 1)))
    assert longest.scores.shape == (model.limit, 3)
    assert one.scores.shape == (1, 3)
    assert all(np.isfinite(v).all() for a in (longest, one) for v in parts(a))
    assert not longest.complete or np.abs([longest.gap, one.gap]).max() < FINE


def test_lower_access_explains_the_same_logits(name: str, family: str) -> None:
    """Hugging Face's own forward, in a batch and alone."""
    if METHODS.get(name).needs <= Access.GRADIENTS:
        model = opened(family, access="gradients")
        got = run(model, name)
        same(run(model, name, batch=texts(model).rows([1])), got[1:2], within=1e-7)
        for a, b in zip(got, every(name, family), strict=True):
            np.testing.assert_allclose(a.explained, b.explained, rtol=1e-7, atol=1e-7)


def state(hf: nn.Module) -> dict[str, Any]:
    """Everything about a model that a call must not change."""
    seen: dict[str, Any] = {k: v.tolist() for k, v in hf.state_dict().items()}
    seen |= {f"{k}!": (p._version, p.data_ptr(), p.requires_grad, p.grad is None) for k, p in hf.named_parameters()}
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    seen |= {f"{k}?": (m.training, *(len(getattr(m, h)) for h in hooks)) for k, m in hf.named_modules()}
    return seen | {"config": hf.config.to_dict()}


@pytest.mark.parametrize("access", [None, "gradients"])
@pytest.mark.parametrize("family", UNLIKE)
def test_the_model_is_left_as_it_was_found_also_after_an_error(
    name: str, family: str, access: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if access and METHODS.get(name).needs > Access.GRADIENTS:
        return
    model = opened(family, access=access, use="left in mixed modes")
    model.hf.train()
    next(model.hf.children()).eval()
    next(model.hf.parameters()).requires_grad_(False)
    before = state(model.hf)
    calm = every(name, family) if access is None else run(opened(family, access=access), name)
    same(run(model, name), calm, within=0)
    assert state(model.hf) == before

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(*((forward, "finish") if access is None else (model.hf.classifier, "forward")), fail)
    with pytest.raises(RuntimeError, match="planted"):
        run(model, name)
    monkeypatch.undo()
    assert state(model.hf) == before


@pytest.mark.parametrize("suffix", ["json", "parquet", "jsonl"])
def test_saved_and_loaded_is_the_same(name: str, suffix: str, tmp_path: Path) -> None:
    found = [every(name, "bert")[0], *run(opened("bert"), name, [None, 1, (2, 0)])]
    for i, a in enumerate(found):
        a.save(tmp_path / f"{i}.{suffix}")
        b = Attribution.load(tmp_path / f"{i}.{suffix}")
        assert b.to_dict() == a.to_dict()
        assert (b.tokens, b.target, b.scores.shape, b.scores.dtype) == (
            a.tokens,
            a.target,
            a.scores.shape,
            a.scores.dtype,
        )
        same([b], [a], within=0)
    pellucid.write_records(found, tmp_path / f"all.{suffix}")
    assert [a.to_dict() for a in pellucid.read_records(tmp_path / f"all.{suffix}")] == [a.to_dict() for a in found]


def test_too_little_access_is_refused_with_method_and_level(name: str) -> None:
    needs = METHODS.get(name).needs
    for access in ("gradients", "outputs"):
        model = opened("bert", access=access)
        if needs > model.access:
            with pytest.raises(AccessError, match=f"'{name}' needs {needs.name} access.*gives {model.access.name}"):
                run(model, name)


def test_scores_that_may_not_be_summed_have_no_words(name: str) -> None:
    a = every(name, "bert")[0]
    known = replace(a, tokens=tuple(replace(t, word=i // 2, sequence=0) for i, t in enumerate(a.tokens)))
    if a.additive:
        words = known.words()
        np.testing.assert_allclose(words.scores.sum(0), a.scores.sum(0))
        assert len(words) == 3
    else:
        with pytest.raises(InputError, match=f"'{name}' .*cannot be summed"):
            known.words()


IDS = torch.arange(5, 11)[None]
REFUSALS: dict[str, tuple[Callable[[pellucid.Model], object], str]] = {
    "class": (lambda m: run(m, "random", 7), r"Class 7 .* 3 classes, 0 to 2"),
    "negative class": (lambda m: run(m, "random", -1), "Class -1"),
    "label": (lambda m: run(m, "random", "LABEL_9"), "no label 'LABEL_9'. Did you mean"),
    "number": (lambda m: run(m, "random", 1.5), "class index.*seen 1.5"),
    "yes": (lambda m: run(m, "random", True), "class index.*seen True"),
    "triple": (lambda m: run(m, "random", (0, 1, 2)), r"pair \(a, b\).*\(0, 1, 2\)"),
    "targets": (lambda m: run(m, "random", [0, 1]), "2 targets were given for 3 texts"),
    "gold": (lambda m: run(m, "random", "gold"), "no labels"),
    "method": (lambda m: run(m, "decomp"), "no method 'decomp'. Did you mean 'decompx'"),
    "long": (lambda m: pellucid.explain(m, texts(m), long="cut"), "long='cut'.*'refuse', 'truncate', 'window'"),
    "batch_tokens": (lambda m: pellucid.explain(m, texts(m), batch_tokens=0), "batch_tokens.*seen 0"),
    "ids": (lambda m: Batch(torch.zeros(2, 3)), "input_ids must be integers.*float32"),
    "ids of one text": (lambda m: Batch(torch.arange(3)), r"input_ids.*\[batch, length\].*\[3\]"),
    "vocabulary": (lambda m: run(m, "random", batch=Batch(IDS + 90)), "token id 100; .* ids 0 to 59"),
    "negative id": (lambda m: run(m, "random", batch=Batch(IDS - 6)), "token id -1"),
    "mask shape": (lambda m: Batch(IDS, torch.ones(1, 5)), r"attention_mask has shape \[1, 5\], input_ids \[1, 6\]"),
    "mask value": (lambda m: Batch(IDS, IDS), "attention_mask may hold only 0"),
    "mask empty": (lambda m: Batch(IDS, IDS * 0), "row 0 of attention_mask has no real token"),
    "first token masked": (lambda m: run(m, "decompx", batch=Batch(IDS, IDS > 5)), "attention_mask"),
    "types": (lambda m: Batch(IDS, None, torch.zeros(2, 6)), "token_type_ids has shape"),
    "type": (lambda m: run(m, "random", batch=Batch(IDS, None, IDS * 0 + 2)), "token_type_ids.*2.* 0 to 1"),
    "labels": (lambda m: Batch(IDS, labels=(0, 1)), "2 labels for 1 rows"),
    "limit": (lambda m: run(m, "random", batch=Batch(IDS.repeat(1, 9))), "54 tokens.*at most 40"),
    "bias": (lambda m: DecompX(bias="abs"), "bias='abs'.*'absdot'"),
    "at": (lambda m: DecompX(at="end"), "at='end'.*'logits'"),
    "slope": (lambda m: DecompX(slope="gelu"), "slope='gelu'.*'tangent'"),
    "ffn": (lambda m: DecompX(ffn="no"), "ffn='no'"),
    "precision": (lambda m: DecompX(precision="half"), "precision='half'"),
    "steps": (lambda m: IntegratedGradients(steps=0), "steps=0"),
    "baseline": (lambda m: IntegratedGradients(baseline="mean"), "baseline='mean'.*'zero'"),
    "reduce": (lambda m: Gradient(reduce="max"), "reduce='max'.*'norm'"),
    "place": (lambda m: Gradient(at="layer"), "at='layer'.*'block_input'"),
    "operator": (lambda m: LeaveOneOut(operator="cut"), "operator='cut'.*'delete'"),
    "layer": (lambda m: run(m, Attention(layer=3)), "layer=3; .* 0 to 2"),
    "head": (lambda m: run(m, Attention(head=4)), "head=4; .* 0 to 3"),
    "residual": (lambda m: Rollout(residual=2.0), "residual=2.0"),
    "nothing": (lambda m: pellucid.explain(m, []), "no texts"),
    "no text": (lambda m: pellucid.explain(m, 5), "int"),
    "empty text": (lambda m: pellucid.explain(m, " "), "empty"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_names_the_field_and_what_was_seen(case: str) -> None:
    call, words = REFUSALS[case]
    with pytest.raises(InputError, match=words):
        call(opened("bert"))


@pytest.mark.parametrize("family", UNLIKE)
@pytest.mark.parametrize("slope", ["zero_origin", "tangent", "relu"])
@pytest.mark.parametrize("at", ["sites", "logits"])
@pytest.mark.parametrize("bias", ["token", "drop", *SHARES])
def test_every_kind_of_decompx(family: str, bias: str, at: str, slope: str) -> None:
    model = opened(family)
    batch = texts(model, (4, 2))
    logits = model.logits(batch).numpy()
    for ffn, head in product((True, False), (True, False)):
        method = DecompX(bias=bias, at=at, slope=slope, ffn=ffn, head=head)
        complete = method.guarantees(model).complete
        assert complete == (bias != "drop" and ffn and head and slope != "relu"), method
        got = run(model, method, batch=batch)
        if not head:
            assert all(a.explained is None and a.gap is None and (a.scores >= 0).all() for a in got)
            continue
        np.testing.assert_allclose([a.explained for a in got], logits, rtol=FINE, err_msg=str(method))
        gap = np.abs([a.gap for a in got]).max()
        assert gap < FINE if complete else gap > 1e-6, method
        assert bias not in SHARES or not np.any([a.unallocated for a in got]), method
        same(run(model, method, batch=batch.rows([1])), got[1:])


@pytest.mark.parametrize("bias", SHARES)
def test_the_step_of_relu_is_complete_on_a_relu_model(bias: str) -> None:
    method = DecompX(bias=bias, slope="relu")
    assert method.guarantees(opened("bert_relu")).complete
    assert (
        np.abs([a.gap for a in run(opened("bert_relu"), method, batch=texts(opened("bert_relu"), (4, 2)))]).max() < FINE
    )


@pytest.mark.parametrize("family", UNLIKE)
@pytest.mark.parametrize("ffn", [True, False])
@pytest.mark.parametrize("slope", ["zero_origin", "tangent", "relu"])
@pytest.mark.parametrize("bias", LINEAR)
def test_one_backward_pass_gives_what_carried_vectors_give(family: str, bias: str, slope: str, ffn: bool) -> None:
    model = opened(family)
    batch = texts(model, (6,))
    method = DecompX(bias=bias, slope=slope, ffn=ffn)
    if method.one_backward:
        _, carried, _ = push(model.net, model.embed(batch), batch.keep, bias, slope, ffn)
        within = 1e-7 if bias == "dot" else FINE  # the rule's denominators may be anything
        np.testing.assert_allclose(run(model, method, batch=batch)[0].scores, carried, rtol=within, atol=within)
