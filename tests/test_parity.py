"""Our network against Hugging Face: logits, states, attention and gradients of every family, and planted defects.

Float64 agrees to 1e-9, ModernBERT to 1e-7 because Hugging Face takes its rotary angles in float32. Where a result is
relative, it is to the largest value, and never to less than 1.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pellucid
from pellucid import Batch
from pellucid.encoder import forward
from pellucid.encoder.forward import embed, encode
from pellucid.encoder.load import TOLERANCE
from pellucid.encoder.ops import Ops, Overridden, Recorded
from pellucid.errors import ParityError

SHORT = 40
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def tolerance(family: str) -> float:
    """What float64 has to reach."""
    return 1e-7 if family.startswith("modernbert") else 1e-9


def attentions(family: str) -> list[str]:
    """The attention implementations that this release offers for a family."""
    prefix = tiny.FAMILIES[family][0]
    kind = getattr(tiny.home(prefix), f"{prefix}ForSequenceClassification")
    return ["eager", "sdpa"] if getattr(kind, "_supports_sdpa", False) else ["eager"]


@cache
def opened(family: str, attention: str, limit: int = SHORT) -> pellucid.Model:
    """A float64 model with `limit` positions; `model.hf` is Hugging Face's."""
    return pellucid.load(tiny.build(family, attention=attention, max_position_embeddings=limit))


def sample(model: pellucid.Model, lengths: tuple[int, ...], seed: int = 1) -> Batch:
    """Padded random ids, with random token types where the family has any."""
    batch = tiny.batch(model, lengths, seed)
    types = model.net.embedding.types
    if types is None or len(types) < 2:
        return batch
    chosen = torch.randint(2, batch.input_ids.shape, generator=torch.Generator().manual_seed(seed))
    return Batch(batch.input_ids, batch.keep, chosen * batch.keep)


def theirs(model: pellucid.Model, batch: Batch, words: Tensor | None = None, **options: bool):
    """Hugging Face's own output, called without any of our code."""
    given = {"input_ids": batch.input_ids} if words is None else {"inputs_embeds": words}
    if batch.token_type_ids is not None:
        given["token_type_ids"] = batch.token_type_ids
    return model.hf(**given, attention_mask=batch.keep.long(), **options)


def alone(batch: Batch) -> Iterator[Batch]:
    """Each text by itself, without padding."""
    yield from (batch.rows([i]) for i in range(len(batch)))


def worst(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value or 1; infinite if shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return ((a - b).abs().max() / b.abs().max().clamp(min=1.0)).item()


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_at_every_length_up_to_the_position_limit(family: str, attention: str) -> None:
    if attention not in attentions(family):
        attention = "eager"
    model = opened(family, attention)
    batch = sample(model, tuple(range(model.limit, 0, -1)))
    ours = model.logits(batch)
    each = torch.cat([theirs(model, text).logits for text in alone(batch)])
    assert worst(ours, each) < tolerance(family)
    if (attention, family[:6]) != ("eager", "modern"):  # its padded rows are NaN there in float64
        assert worst(ours, theirs(model, batch).logits) < tolerance(family)


@torch.no_grad()
def test_logits_of_a_long_text(family: str) -> None:
    model = opened(family, attentions(family)[-1], limit=520)
    batch = sample(model, (300, 170))
    assert worst(model.logits(batch), theirs(model, batch).logits) < tolerance(family)


@torch.no_grad()
def test_logits_in_float32(family: str) -> None:
    model = pellucid.load(tiny.build(family, torch.float32, attentions(family)[-1]))
    batch = sample(model, (24, 9, 1))
    expected = theirs(model, batch).logits
    assert (model.logits(batch) - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_first_hidden_state(family: str) -> None:
    model = opened(family, "eager")
    batch = sample(model, (14, 9, 1))
    ours = model.embed(batch)
    for i, text in enumerate(alone(batch)):
        state = theirs(model, text, output_hidden_states=True).hidden_states[0]
        if state.shape[-1] != ours.shape[-1]:  # ALBERT's before its projection, in some releases
            state = model.hf.albert.encoder.embedding_hidden_mapping_in(state)
        assert worst(ours[i : i + 1, : state.shape[1]], state) < tolerance(family)


@torch.no_grad()
def test_attention_of_every_layer(family: str) -> None:
    model = opened(family, "eager")
    batch = sample(model, (14, 9, 1))
    ops = Recorded()
    encode(ops, model.net, model.embed(batch), batch.keep, full=True)
    for i, text in enumerate(alone(batch)):
        n = text.input_ids.shape[1]
        expected = theirs(model, text, output_attentions=True).attentions
        assert len(expected) == len(model.net.layers)
        for layer, alpha in enumerate(expected):
            ours = ops.tape[f"{layer}.attn.probs"][i : i + 1]
            assert worst(ours[:, :, :n, :n], alpha) < tolerance(family), f"layer {layer}"
            assert not ours[:, :, :n, n:].any(), f"layer {layer} attends to padding"


def test_gradient_of_a_logit(family: str) -> None:
    model = opened(family, attentions(family)[-1])
    batch = sample(model, (14, 9, 1))
    words = model.word_embeddings(batch.input_ids).requires_grad_()
    x = embed(model.net, batch.input_ids, batch.token_type_ids, words=words)
    ours = torch.autograd.grad(encode(Ops(), model.net, x, batch.keep)[:, 1].sum(), words)[0]
    expected = torch.autograd.grad(theirs(model, batch, words).logits[:, 1].sum(), words)[0]
    assert worst(ours[batch.keep], expected[batch.keep]) < tolerance(family)


@torch.no_grad()
def test_texts_and_pairs_through_the_tokenizer(demo: pellucid.Model) -> None:
    for texts in (
        ["a fine film", "no", "it is not a bad film at all"],
        [("a fine film", "no"), ("dull", "is it dull?")],
    ):
        batch = demo.batch(texts)
        columns = [list(c) for c in zip(*texts, strict=True)] if isinstance(texts[0], tuple) else [texts]
        expected = demo.hf(**demo.tokenizer(*columns, padding=True, return_tensors="pt")).logits
        assert (demo.logits(batch) - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_restarting_computing_all_rows_and_giving_attention_back_change_nothing(family: str) -> None:
    model = opened(family, "eager")
    net, batch = model.net, sample(model, (14, 9, 1))
    x, logits = model.embed(batch), model.logits(batch)
    ops = Recorded(streams=True)
    assert worst(encode(ops, net, x, batch.keep, full=True), logits) < 1e-12
    for layer in range(len(net.layers)):
        again = encode(Ops(), net, ops.seen[f"{layer}.in"], batch.keep, start=layer)
        assert worst(again, logits) < 1e-12, f"from layer {layer}"
    last = Recorded()
    encode(last, net, x, batch.keep)
    assert worst(encode(Overridden(last.tape), net, x, batch.keep), logits) < 1e-12
    assert worst(encode(Overridden(ops.tape), net, x, batch.keep, full=True), logits) < 1e-12


class Halved(Recorded):
    """Half of every attention weight."""

    def probs(self, at: str, scores: Callable[[], Tensor]) -> Tensor:
        self.tape[at] = Ops.probs(self, at, scores) / 2
        return self.tape[at]


@torch.no_grad()
def test_attention_rows_that_sum_to_one_half(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value bias is inside the sum, in both networks: half the attention gives half of it."""
    model = opened(family, "eager")
    batch = sample(model, (14,))
    x, halved = model.embed(batch), Halved()
    encode(halved, model.net, x, batch.keep)
    softmax = F.softmax
    monkeypatch.setattr(F, "softmax", lambda *args, **options: softmax(*args, **options) / 2)
    expected = theirs(model, batch).logits
    monkeypatch.undo()
    assert worst(expected, theirs(model, batch).logits) > 1e-3, "the patch did not reach this model"
    assert worst(encode(Overridden(halved.tape), model.net, x, batch.keep), expected) < tolerance(family)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parity_of_every_attention_implementation_and_dtype(family: str, dtype: torch.dtype) -> None:
    for attention in attentions(family):
        parity = pellucid.load(tiny.build(family, dtype, attention)).parity
        assert parity <= (tolerance(family) if dtype == torch.float64 else TOLERANCE[dtype]), attention


def test_rotary_frequencies_that_were_rounded_with_the_weights() -> None:
    """`.to(torch.bfloat16)` rounds them in the object; ours are exact, and an object that keeps them rounded in float32
    is another network, which is refused with the number."""
    half = pellucid.load(tiny.build("modernbert", torch.bfloat16, local_attention=128))
    assert half.parity is not None
    assert half.parity < TOLERANCE[torch.bfloat16]
    with pytest.raises(ParityError, match="relative"):
        pellucid.load(tiny.build("modernbert", torch.bfloat16, local_attention=128).float())


def _without_residual(hf: nn.Module) -> None:
    part = hf.get_submodule("bert.encoder.layer.1.attention.output")
    part.forward = lambda states, residual: part.LayerNorm(part.dense(states))


def _without_centring(hf: nn.Module) -> None:
    norm = [m for m in hf.modules() if isinstance(m, nn.LayerNorm)][-2]
    offset = 0 if norm.bias is None else norm.bias
    norm.forward = lambda x: x * (x.pow(2).mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight + offset


def _heads_swapped(hf: nn.Module) -> None:
    value = next(m for name, m in hf.named_modules() if name.endswith((".value", ".v_lin", ".value_proj", ".attn.v")))
    value.forward = lambda x: F.linear(x, value.weight, value.bias).roll(8, -1)


def _types_swapped(hf: nn.Module) -> None:
    table = next(m for name, m in hf.named_modules() if name.endswith("token_type_embeddings"))
    table.forward = lambda ids: table.weight[1 - ids]


def _positions_shifted(hf: nn.Module) -> None:
    table = next(m for name, m in hf.named_modules() if name.endswith("position_embeddings"))
    table.forward = lambda ids: table.weight[ids + 1]


def _without_pre_norm(hf: nn.Module) -> None:
    hf.model.layers[2].attn_norm.forward = lambda x: x


def _mask_ignored(hf: nn.Module) -> None:
    forward_of = hf.forward
    hf.forward = lambda input_ids=None, attention_mask=None, **rest: forward_of(input_ids, **rest)


DEFECTS: dict[Callable[[nn.Module], None], str] = {
    _without_residual: "bert",
    _without_centring: "bert roberta electra albert deberta_v3 mpnet modernbert",
    _heads_swapped: "bert electra albert distilbert deberta_v2 mpnet",
    _types_swapped: "bert electra albert ernie",
    _positions_shifted: "bert roberta xlm_roberta camembert distilbert mpnet",
    _without_pre_norm: "modernbert modernbert_mean",
    _mask_ignored: "bert roberta distilbert deberta_v3 modernbert_mean",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "plant"), [pytest.param(n, p, id=n + p.__name__) for p, names in DEFECTS.items() for n in names.split()]
)
def test_a_defect_in_their_network_is_refused_with_a_number(
    name: str, plant: Callable[[nn.Module], None], dtype: torch.dtype
) -> None:
    hf = tiny.build(name, dtype, "eager")
    plant(hf)
    with pytest.raises(ParityError, match=r"differ by \d\.\de[+-]\d\d .* .relative \d\.\de[+-]\d\d"):
        pellucid.load(hf)


@contextmanager
def _ours(**changed: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changed.items():
            patch.setattr(forward, name, value)
        yield


def _norm_uncentred(ops: Ops, at: str, p: forward.Norm, x: Tensor) -> Tensor:
    return ops.bias(at, x * ops.scale(at, x, p.eps) * p.w, p.b)


def _no_window(layer: forward.Layer, keep: Tensor, rows: Tensor | None) -> Tensor:
    return keep[:, None, None, :]


def _first_type(net: forward.Net, ids: Tensor, types: Tensor | None, words: Tensor | None = None) -> Tensor:
    return embed(net, ids, None, words)


OURS = {
    "uncentred norm": ("bert", {"norm": _norm_uncentred}),
    "swapped heads": ("bert", {"split_heads": lambda y, h: y.unflatten(-1, (h, -1)).transpose(-2, -3).flip(-3)}),
    "no local window": ("modernbert", {"allowed": _no_window}),
    "token types ignored": ("bert", {"embed": _first_type}),
    "padding averaged": ("modernbert_mean", {"even": lambda keep, like: torch.full(keep.shape, 1 / keep.shape[1])}),
}


@pytest.mark.parametrize("defect", OURS)
def test_a_defect_in_our_network_is_refused_with_a_number(defect: str) -> None:
    name, changed = OURS[defect]
    hf = tiny.build(name, torch.float32, "eager")
    pellucid.load(hf)
    with _ours(**changed), pytest.raises(ParityError, match=r"differ by \d\.\de[+-]\d\d"):
        pellucid.load(hf)
    assert re.search(r"parity \d\.\de", repr(pellucid.load(hf)))
