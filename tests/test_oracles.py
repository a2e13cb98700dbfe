"""Methods against implementations that share no code with ours: a frozen Hugging Face model, Captum, plain loops.

A slow plain version of the rules "absdot", "abssim" and "norm" would repeat what test_decompx_official.py holds against
the authors' code; here their vectors only have to add up, at every site of every family.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import captum.attr as ca
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
import transformers.activations as tfa
from torch import Tensor, nn
from transformers.models.modernbert.modeling_modernbert import ModernBertMLP

import pellucid
from pellucid import Batch
from pellucid.encoder.activations import ACTIVATIONS
from pellucid.encoder.forward import Head, Linear, encode
from pellucid.encoder.model import Model
from pellucid.encoder.ops import Recorded
from pellucid.methods import Attention, DecompX, Gradient, IntegratedGradients, LeaveOneOut, Rollout, vectors
from pellucid.methods.decompx import pull
from pellucid.methods.vectors import Parts, push, record, sources

IDS = torch.tensor([[7, 31, 8, 52, 19, 8, 44, 23, 11, 36, 5]])
CLASSES = range(3)


def close(ours: Any, theirs: Any, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=atol)


# --- the frozen Hugging Face model ---

FIRST_VALUE = {
    "bert": "bert.encoder.layer.0.attention.self.value",
    "bert_gelu_new": "bert.encoder.layer.0.attention.self.value",
    "bert_relu": "bert.encoder.layer.0.attention.self.value",
    "roberta": "roberta.encoder.layer.0.attention.self.value",
    "electra": "electra.encoder.layer.0.attention.self.value",
    "distilbert": "distilbert.transformer.layer.0.attention.v_lin",
    "deberta_v3": "deberta.encoder.layer.0.attention.self.value_proj",
    "modernbert": "model.layers.0.attn.Wqkv",
    "modernbert_mean": "model.layers.0.attn.Wqkv",
}
"""Tiny family -> the module of its Hugging Face model that makes the values of the first block."""


class Tape:
    """Numbers in the order in which they were first computed; later passes get the recorded ones, as constants."""

    def __init__(self) -> None:
        self.items: list[Tensor] = []
        self.at: int | None = None

    def __call__(self, compute: Callable[[], Tensor]) -> Tensor:
        if self.at is None:
            self.items.append(compute().detach())
            return self.items[-1]
        self.at += 1
        return self.items[self.at - 1]


@contextmanager
def frozen(tape: Tape, tangent: bool) -> Iterator[None]:
    """Inside, Hugging Face's forwards take attention, 1/std and slopes from the tape: they are affine in the input."""
    gelu, tanh, relu = F.gelu, torch.tanh, F.relu

    def softmax(x: Tensor, dim: int = -1, dtype: Any = None) -> Tensor:
        return tape(lambda: torch.softmax(x, dim))  # ModernBERT's detour over float32 is left out

    def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
        rstd = tape(lambda: (x.var(-1, unbiased=False, keepdim=True) + self.eps) ** -0.5)
        y = (x - x.mean(-1, keepdim=True)) * rstd * self.weight
        return y if self.bias is None else y + self.bias

    def line(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def slope(u: Tensor) -> Tensor:
            if not tangent:
                return f(u) / u
            with torch.enable_grad():
                v = u.detach().requires_grad_()
                return torch.autograd.grad(f(v).sum(), v)[0]

        def apply(u: Tensor, inplace: bool = False) -> Tensor:
            m = tape(lambda: slope(u))
            return m * u + tape(lambda: f(u) - m * u)

        return apply

    def gated(self: ModernBertMLP, x: Tensor) -> Tensor:
        g, s = self.Wi(x).chunk(2, dim=-1)
        g = self.act(g)
        return self.Wo(0.5 * (g * tape(lambda: s) + tape(lambda: g) * s))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "softmax", softmax)
        patch.setattr(nn.LayerNorm, "forward", layer_norm)
        patch.setattr(tfa.GELUActivation, "forward", lambda _, u: line(gelu)(u))
        patch.setattr(tfa.NewGELUActivation, "forward", lambda _, u: line(lambda v: gelu(v, approximate="tanh"))(u))
        patch.setattr(F, "gelu", line(gelu))
        patch.setattr(F, "relu", line(relu))
        patch.setattr(torch, "tanh", line(tanh))
        patch.setattr(ModernBertMLP, "forward", gated)
        yield


def by_autograd(hf: Any, first_value: str, tangent: bool) -> tuple[Tensor, Tensor]:
    """Tokens' parts [n, c] by gradient x input of the frozen copy, and its logits [c] at an input of zeros."""
    hf, tape = deepcopy(hf), Tape()
    base = hf.base_model
    embeddings = base.embeddings_project if hasattr(base, "embeddings_project") else base.embeddings
    value = hf.get_submodule(first_value)
    bias = torch.zeros(value.out_features).double() if value.bias is None else value.bias.detach().clone()
    if first_value.endswith("Wqkv"):
        bias[: 2 * len(bias) // 3] = 0.0  # of queries and keys
    start: dict[str, Tensor] = {}

    def swap(_: Any, __: Any, y: Tensor) -> Tensor:
        return start.setdefault("x", y.detach())

    def own_bias(_: Any, __: Any, y: Tensor) -> Tensor:
        return y - bias + start["v"]

    embeddings.register_forward_hook(swap)
    value.register_forward_hook(own_bias)
    start["v"] = bias.expand(*IDS.shape, -1).clone()
    with frozen(tape, tangent):
        with torch.no_grad():
            exact = hf(IDS).logits
        x, v = (start[k].clone().requires_grad_() for k in "xv")
        tape.at, start["x"], start["v"] = 0, x, v
        y = hf(IDS).logits[0]
        parts = []
        for c in CLASSES:
            gx, gv = torch.autograd.grad(y[c], (x, v), retain_graph=True)
            parts.append((gx * x).sum(-1)[0] + (gv * v).sum(-1)[0])
        tape.at, start["x"], start["v"] = 0, torch.zeros_like(x), torch.zeros_like(v)
        with torch.no_grad():
            left = hf(IDS).logits[0]
    tokens = torch.stack(parts, -1).detach()
    close(tokens.sum(0) + left, exact[0], 1e-12)  # the copy is affine, so nothing escaped the tape
    return tokens, left


@pytest.mark.parametrize("slope", ["zero_origin", "tangent"])
@pytest.mark.parametrize("family", FIRST_VALUE)
def test_decompx_is_gradient_times_input_of_the_frozen_model(family: str, slope: Any) -> None:
    """Scores and `unallocated` of every linear rule, for every class."""
    hf = tiny.build(family, attention="eager")
    tokens, left = by_autograd(hf, FIRST_VALUE[family], slope == "tangent")
    n, zeros = len(tokens), torch.zeros(len(tokens)).double()
    shares = {"token": zeros, "drop": zeros, "equal": zeros + 1 / n, "cls": torch.eye(n)[0].double()}
    model = pellucid.load(hf)
    atol = 1e-7 if "modern" in family else 1e-9  # its rotary step is float32 in Hugging Face
    for rule, share in shares.items():
        a = pellucid.explain(model, Batch(IDS), DecompX(bias=rule, slope=slope), target="all")[0]
        close(a.scores, tokens + share[:, None] * left, atol)
        close(a.unallocated, left if rule == "token" else np.zeros(3), atol)


@pytest.mark.parametrize("name", sorted({a.name for a in ACTIVATIONS.values()}))
def test_slopes(name: str) -> None:
    """ratio(u) u = f(u) to rounding, however small u is; at 0 it is the derivative; the tangent is autograd's."""
    act = ACTIVATIONS[name]
    near = torch.tensor([10.0**-k for k in range(1, 16)]).double()
    near = torch.cat([near, -near])
    torch.testing.assert_close(act.ratio(near) * near, act.f(near), rtol=1e-13, atol=0)
    wide = torch.linspace(-30, 30, 122).double().requires_grad_()
    y = act.f(wide)
    close((act.ratio(wide) * wide).detach(), y.detach(), 1e-14)
    close(act.tangent(wide).detach(), torch.autograd.grad(y.sum(), wide)[0], 1e-14)
    zero = torch.zeros(1).double()
    assert act.f(zero) == 0
    close(act.ratio(zero), act.tangent(zero), 1e-15)


# --- the two ways of our own ---


KINDS = ["bert_gelu_new", "distilbert", "albert", "deberta_v3", "modernbert", "modernbert_mean"]
"""One family for each way in which the arithmetic of parts differs."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("slope", "ffn"), [("zero_origin", True), ("tangent", True), ("relu", True), ("zero_origin", False)]
)
def test_carried_vectors_and_one_backward_agree(kind: str, slope: Any, ffn: bool) -> None:
    """Every linear rule, computed both ways."""
    model = tiny.opened(kind)
    x = model.embed(Batch(IDS))
    keep = torch.ones_like(IDS).bool()
    net = model.require_net()

    def every(y: Tensor) -> Tensor:
        return torch.eye(3).to(y).expand(1, 3, 3)

    for rule in ("token", "drop", *(["dot"] if ffn and slope != "relu" else [])):
        _, parts, _ = push(net, x, keep, rule, slope, ffn)
        pulled = pull(net, x, keep, every, rule, slope, ffn)[1][0]
        close(parts, pulled, 1e-9 if rule != "dot" else 1e-7 * max(1.0, float(parts.abs().max())))
    for rule in ("equal", "cls"):
        _, parts, _ = push(net, x, keep, rule, slope, ffn)
        a = DecompX(bias=rule, slope=slope, ffn=ffn)
        close(parts, pellucid.explain(model, Batch(IDS), a, target="all")[0].scores)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["absdot", "abssim", "norm", "equal", "cls"])
def test_parts_add_up_at_every_site(kind: str, rule: Any) -> None:
    """The carried vectors sum to the hidden state wherever the window looks."""
    model = tiny.opened(kind)
    batch = tiny.batch(model, (9,))
    net, x = model.require_net(), model.embed(batch)
    exact = Recorded(streams=True)

    class Summed(Parts):
        def stream(self, at: str, x: Tensor) -> Tensor:
            x = super().stream(at, x)
            if not at.endswith(".attn"):  # there the value bias is still on its way to the output bias
                close(x.sum(0), exact.seen[at], 1e-10)
            return x

    with torch.no_grad():
        encode(exact, net, x, batch.keep)
        y = encode(
            Summed(net, record(net, x, batch.keep)[1], batch.keep, rule, "zero_origin", True),
            net,
            sources(x),
            batch.keep,
        )
    close(y.sum(0), model.logits(batch), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text is carried in chunks of rows, the last of one row here: the same numbers as in one piece."""
    model = tiny.opened(kind)
    batch = tiny.batch(model, (17,))
    net, x = model.require_net(), model.embed(batch)
    whole = push(net, x, batch.keep, "absdot")
    monkeypatch.setattr(vectors, "Parts", partial(Parts, chunk_floats=1))
    for ours, theirs in zip(push(net, x, batch.keep, "absdot"), whole, strict=True):
        close(ours, theirs, 1e-12)


@pytest.mark.parametrize("kind", ["deberta_v3", "modernbert", "modernbert_mean"])
def test_long_texts(kind: str) -> None:
    """The default chunks too: 190 tokens of width 64 take two."""
    model = tiny.opened(kind)
    a = pellucid.explain(model, tiny.batch(model, (190,)), DecompX(bias="norm"))[0]
    assert abs(a.gap) < 1e-9


@pytest.mark.parametrize("rule", ["token", "equal"])
@pytest.mark.parametrize("kind", ["bert", *KINDS])
def test_without_the_head(kind: str, rule: Any) -> None:
    """head=False is the norm of a token's part of what the head reads: after the final norm and the pooling.

    By one backward pass per coordinate of it, through a head that hands them out as logits.
    """
    model = tiny.opened(kind)
    batch = tiny.batch(model, (9, 6))
    net, x = model.require_net(), model.embed(batch)
    eye = torch.eye(x.shape[-1]).to(x)
    bare = replace(net, head=Head(net.head.pool, None, None, None, Linear(eye, None)))
    _, parts, left, _ = pull(bare, x, batch.keep, lambda y: eye.expand(len(y), -1, -1), rule)
    found = pellucid.explain(model, batch, DecompX(bias=rule, head=False))
    for a, p, bias, n in zip(found, parts, left, batch.lengths, strict=True):
        close(a.scores, (p[:n] + (bias / n if rule == "equal" else 0.0)).norm(dim=-1))


# --- Captum ---

PADDED = torch.tensor([[1] * 8 + [0] * 3])
MASK = 4


@pytest.fixture(scope="module", params=["bert", "roberta"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Model]:
    """A Hugging Face model and ours, with just enough of a tokenizer to have a mask token."""
    hf = tiny.build(request.param)
    tokenizer = SimpleNamespace(
        mask_token_id=MASK, all_special_ids=[], convert_ids_to_tokens=lambda ids: [f"[{i}]" for i in ids]
    )
    return hf, pellucid.load(hf, tokenizer)


def ids_of(hf: Any) -> Tensor:
    return IDS.masked_fill(PADDED == 0, hf.config.pad_token_id)


@contextmanager
def from_block_input(hf: Any) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """The first hidden state of the padded text, and the Hugging Face model as a function of it."""
    held: list[Tensor] = []
    ids = ids_of(hf)
    handle = hf.base_model.embeddings.register_forward_hook(lambda _, __, y: held[0] if held else y)
    try:
        x = hf(ids, PADDED, output_hidden_states=True).hidden_states[0].detach()

        def f(x: Tensor) -> Tensor:
            held[:] = [x]
            return hf(ids.expand(len(x), -1), PADDED.expand(len(x), -1)).logits

        yield x, f
    finally:
        handle.remove()


@contextmanager
def from_words(hf: Any) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """The word embeddings of the padded text, and the Hugging Face model as a function of them."""
    if hf.config.model_type == "roberta":  # from inputs_embeds it cannot see padding; ours reads the ids
        positions = torch.cumsum(PADDED, 1) * PADDED + hf.config.pad_token_id
    else:
        positions = torch.arange(IDS.shape[1])[None]

    def f(x: Tensor) -> Tensor:
        return hf(
            inputs_embeds=x, attention_mask=PADDED.expand(len(x), -1), position_ids=positions.expand(len(x), -1)
        ).logits

    yield hf.get_input_embeddings()(ids_of(hf)).detach(), f


PLACES = {"block_input": from_block_input, "word": from_words}


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("baseline", ["zero", "mask"])
@pytest.mark.parametrize(("steps", "atol"), [(2, 1e-9), (7, 1e-7)])
def test_integrated_gradients_are_captums(
    pair: tuple[Any, Model], at: Any, baseline: Any, steps: int, atol: float
) -> None:
    """Gauss-Legendre with the same points: scores, norms, and the logit at the baseline.

    Captum rounds the quadrature weights to float32; those of two points are 1/2 and exact.
    """
    hf, model = pair
    with PLACES[at](hf) as (x, f):
        zero = torch.zeros_like(x)
        if baseline == "mask":
            masked = Batch(ids_of(hf).masked_fill(PADDED == 1, MASK), PADDED)
            zero = model.word_embeddings(masked.input_ids) if at == "word" else model.embed(masked)
        ig = ca.IntegratedGradients(f)
        theirs = [ig.attribute(x, zero, target=c, n_steps=steps, method="gausslegendre")[0, :8] for c in CLASSES]
        start = f(zero)[0].detach()
    for reduce, how in (("signed", Tensor.sum), ("norm", Tensor.norm)):
        method = IntegratedGradients(baseline=baseline, steps=steps, at=at, reduce=reduce)
        a = pellucid.explain(model, Batch(ids_of(hf), PADDED), method, target="all")[0]
        close(a.scores, torch.stack([how(t, dim=-1) for t in theirs], -1), atol)
        close(a.unallocated, start)


@pytest.mark.parametrize("at", PLACES)
def test_gradients_are_captums(pair: tuple[Any, Model], at: Any) -> None:
    """Input x gradient and saliency, summed and as norms."""
    hf, model = pair
    with PLACES[at](hf) as (x, f):
        times = [ca.InputXGradient(f).attribute(x.requires_grad_(), target=c)[0, :8].detach() for c in CLASSES]
        plain = [ca.Saliency(f).attribute(x, target=c, abs=False)[0, :8].detach() for c in CLASSES]
    for times_input, theirs in ((True, times), (False, plain)):
        for reduce, how in (("signed", Tensor.sum), ("norm", Tensor.norm)):
            method = Gradient(times_input=times_input, reduce=reduce, at=at)
            a = pellucid.explain(model, Batch(ids_of(hf), PADDED), method, target="all")[0]
            close(a.scores, torch.stack([how(t, dim=-1) for t in theirs], -1))


def test_leave_one_out_is_captums_feature_ablation(pair: tuple[Any, Model]) -> None:
    """One token after the other replaced by the mask token."""
    hf, model = pair

    def f(ids: Tensor) -> Tensor:
        return hf(ids, PADDED.expand(len(ids), -1)).logits

    with torch.no_grad():
        theirs = [ca.FeatureAblation(f).attribute(ids_of(hf), MASK, target=c)[0, :8] for c in CLASSES]
    a = pellucid.explain(model, Batch(ids_of(hf), PADDED), LeaveOneOut(), target="all")[0]
    close(a.scores, torch.stack(theirs, -1))


@pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients", "saliency", "leave_one_out"])
def test_without_our_network(pair: tuple[Any, Model], method: str) -> None:
    """A model of lower access runs on Hugging Face's forward alone, with the same numbers at the word embeddings."""
    hf, model = pair
    lower = pellucid.load(hf, model.tokenizer, access="gradients")
    batch = Batch(ids_of(hf), PADDED)
    exact = {
        "gradient_x_input": Gradient(at="word"),
        "integrated_gradients": IntegratedGradients(at="word"),
        "saliency": Gradient(times_input=False, reduce="norm", at="word"),
        "leave_one_out": LeaveOneOut(),
    }[method]
    theirs, ours = (pellucid.explain(m, batch, how, "all")[0] for m, how in ((lower, method), (model, exact)))
    assert lower.net is None
    close(theirs.scores, ours.scores)
    close(theirs.explained, ours.explained)
    assert theirs.params.get("at", "word") == "word"


@pytest.mark.parametrize("method", ["integrated_gradients", "integrated_gradients_mask", "leave_one_out"])
def test_slabs(pair: tuple[Any, Model], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a text that run one by one give what they give together."""
    batch = Batch(ids_of(pair[0]), PADDED)
    together = pellucid.explain(pair[1], batch, method, "all")[0]
    monkeypatch.setattr("pellucid.methods.method.SLAB", 1)
    close(pellucid.explain(pair[1], batch, method, "all")[0].scores, together.scores, 1e-12)


# --- attention ---


@pytest.mark.parametrize("family", ["bert", "deberta_v3", "modernbert_mean"])
def test_attention_and_rollout(family: str) -> None:
    """Five plain lines on Hugging Face's own attentions."""
    hf = tiny.build(family, attention="eager")
    model = pellucid.load(hf)
    with torch.no_grad():
        maps = [a[0] for a in hf(IDS, output_attentions=True).attentions]
    mean = family.endswith("mean")
    eye = torch.eye(IDS.shape[1]).double()
    total = eye
    for alpha in maps:
        total = (0.3 * eye + 0.7 * alpha.mean(0)) @ total
    atol = 1e-7 if mean else 1e-9  # ModernBERT's eager softmax runs in float32
    expected = {
        Rollout(residual=0.3): total,
        Attention(): maps[-1].mean(0),
        Attention(layer=1, head=2): maps[1][2],
        Attention(layer=-2): maps[-2].mean(0),
    }
    for method, rows in expected.items():
        row = rows.mean(0) if mean else rows[0]
        close(pellucid.explain(model, Batch(IDS), method)[0].scores, row, atol)
