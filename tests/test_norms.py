"""Vector norms, GlobEnc, ALTI and value zeroing: the official outputs, and plain loops over Hugging Face's own modules.

The loops take one head, row and token at a time and share no code with ours; that they redo the model is checked by
their sum, which must be the block's own output. Value zeroing runs the whole Hugging Face model once per token.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jaxtyping
import numpy as np
import pytest
import test_decompx_official as official
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

import pellucid
from pellucid import Batch, Target
from pellucid.errors import InputError
from pellucid.methods import ALTI, AttentionNorm, GlobEnc, Method, ValueZeroing, norms
from pellucid.methods.vectors import Parts
from pellucid.methods.zeroing import cosine_distance

IDS = torch.tensor([[7, 31, 8, 52, 19, 8, 44, 23, 11, 36, 5], [9, 14, 40, 6, 33, 12, 0, 0, 0, 0, 0]])
KEEP = torch.arange(11) < torch.tensor([[11], [6]])
METHODS = [AttentionNorm(), GlobEnc(), GlobEnc(ffn=True), ALTI(), ValueZeroing()]


def close(ours: Any, theirs: Any, within: float = 1e-9) -> None:
    """To `within` of the largest number."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=within * max(1.0, np.abs(theirs).max()))


# --- the official DecompX configurations ---


@pytest.mark.parametrize("ffn", [False, True])
@pytest.mark.parametrize("file", official.FILES)
def test_globenc_is_the_official_configuration(shared: Any, file: str, ffn: bool) -> None:
    """The rollout up to every block, all real rows of it, and the scores."""
    tensors, model = official.opened(shared / "refs" / "decompx" / f"{file}.safetensors")
    batch, net, method = official.inputs(tensors), model.require_net(), GlobEnc(ffn=ffn)
    for b, a in enumerate(pellucid.explain(model, batch, method)):
        one = batch.rows([b])
        n = len(a.scores)
        rolled = torch.eye(n, dtype=torch.float64)
        for i, m in enumerate(method.maps(net, model.embed(one), one.keep)[1]):
            rolled = m @ rolled
            theirs = tensors[f"out/{method.name}/aggregated.{i}"][b, : len(m), :n]
            assert len(m) == (1 if i == len(net.layers) - 1 else n)
            close(rolled, theirs)
        close(a.scores, theirs[0])


# --- plain loops ---


@dataclass(frozen=True)
class Names:
    """Modules of one block of a Hugging Face model; "{}" is its number. A fused value is the last third of its own."""

    block: str
    value: str
    out: str
    norm1: str
    up: str
    down: str
    norm2: str
    act: str = "gelu"
    pre: bool = False


_BERT = Names(
    "bert.encoder.layer.{}",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_MODERN = Names("model.layers.{}", "attn.Wqkv", "attn.Wo", "attn_norm", "mlp.Wi", "mlp.Wo", "mlp_norm", pre=True)
_ALBERT = Names(
    "albert.encoder.albert_layer_groups.{}.albert_layers.0",
    "attention.value",
    "attention.dense",
    "attention.LayerNorm",
    "ffn",
    "ffn_output",
    "full_layer_layer_norm",
    act="gelu_new",
)
NAMES = {
    "bert": _BERT,
    "roberta": replace(_BERT, block="roberta.encoder.layer.{}"),
    "distilbert": Names(
        "distilbert.transformer.layer.{}",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    ),
    "albert": _ALBERT,
    "deberta_v3": replace(_BERT, block="deberta.encoder.layer.{}", value="attention.self.value_proj"),
    "mpnet": replace(
        _BERT,
        block="mpnet.encoder.layer.{}",
        value="attention.attn.v",
        out="attention.attn.o",
        norm1="attention.LayerNorm",
    ),
    "modernbert": _MODERN,
    "modernbert_mean": _MODERN,
}


@dataclass(frozen=True)
class Maps:
    """What plain loops find in one block, [n, n]: norms of what is sent, by each head and by all, and the methods'."""

    heads: Tensor
    whole: Tensor
    globenc: Tensor
    globenc_ffn: Tensor
    alti: Tensor


def normed(ln: nn.Module, part: Tensor, full: Tensor) -> Tensor:
    """A part's share of a norm whose 1/std is that of the full state; its offset is nobody's."""
    if isinstance(ln, nn.Identity):
        return part
    return (part - part.mean()) / (full.var(unbiased=False) + ln.eps) ** 0.5 * ln.weight


def through_ffn(get: Callable[[str], Any], names: Names, part: Tensor, full: Tensor) -> Tensor:
    """A part's share of the feed-forward: act(u) / u is constant, and of a product each factor takes half."""
    up, act = get(names.up), ACT2FN[names.act]
    u, of_part = up(full), up.weight @ part
    if names.pre:
        (u, s), (of_part, s_part) = u.chunk(2), of_part.chunk(2)
        return get(names.down).weight @ (0.5 * (act(u) / u * of_part * s + act(u) * s_part))
    return get(names.down).weight @ (act(u) / u * of_part)


def one_block(get: Callable[[str], Any], names: Names, x: Tensor, alpha: Tensor, after: Tensor | None) -> Maps:
    """One block by loops over heads, rows and tokens: x [n, d], alpha [h, n, n], its output `after` [n, d]."""
    (n, d), h = x.shape, len(alpha)
    e = d // h
    out, norm1, norm2 = get(names.out), get(names.norm1), get(names.norm2)
    v = get(names.value)(norm1(x) if names.pre else x)[:, -d:]
    found = {k: torch.zeros(n, n).double() for k in ("whole", "globenc", "globenc_ffn", "alti")}
    heads = torch.zeros(h, n, n).double()
    for i in range(n):
        sent = torch.zeros(h, n, d).double()
        for k in range(h):
            for j in range(n):
                sent[k, j] = alpha[k, i, j] * (out.weight[:, k * e : (k + 1) * e] @ v[j, k * e : (k + 1) * e])
        heads[:, i] = sent.norm(dim=-1)
        parts = sent.sum(0)
        found["whole"][i] = parts.norm(dim=-1)
        parts[i] += x[i]
        full = parts.sum(0) + (0 if out.bias is None else out.bias)
        y = full if names.pre else norm1(full)
        ffn = get(names.down.partition(".")[0])(norm2(y)) if names.pre else None
        if ffn is None:
            ffn = get(names.down)(ACT2FN[names.act](get(names.up)(y)))
        block = y + ffn if names.pre else norm2(y + ffn)
        if after is not None:
            close(block, after[i], 1e-12)  # the loops redo the model
        nearness = []
        for j in range(n):
            p = parts[j] if names.pre else normed(norm1, parts[j], full)
            inner = normed(norm2, p, y) if names.pre else p
            q = p + through_ffn(get, names, inner, norm2(y) if names.pre else y)
            for name, z in (("globenc", p), ("globenc_ffn", q)):
                found[name][i, j] = (z if names.pre else normed(norm2, z, y + ffn)).norm()
            nearness.append(max(0.0, float(y.abs().sum() - (y - p).abs().sum())))
        found["alti"][i] = torch.tensor(nearness, dtype=torch.float64) / sum(nearness)
    return Maps(heads, **found)


@contextmanager
def softmax_in_float64() -> Iterator[None]:
    """ModernBERT's eager attention takes its softmax in float32 otherwise."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "softmax", lambda x, dim=-1, dtype=None: torch.softmax(x, dim))
        yield


@cache
def loops(family: str, text: int) -> list[Maps]:
    """The maps of all blocks of one text, alone and without padding."""
    hf, names = tiny.build(family, attention="eager"), NAMES[family]
    ids = IDS[text, KEEP[text]][None]
    with softmax_in_float64():
        seen = hf(ids, output_hidden_states=True, output_attentions=True)
        last, depth, found = not names.pre, len(seen.attentions), []
        for i in range(depth):
            number = i // 2 if family.startswith("albert") else i  # four blocks in two groups
            at = names.block.format(number)
            after = seen.hidden_states[i + 1][0] if last or i + 1 < depth else None  # the last is normed already
            get = partial(lambda at, name: hf.get_submodule(f"{at}.{name}"), at)
            found.append(one_block(get, names, seen.hidden_states[i][0], seen.attentions[i][0], after))
    return found


def explained(family: str, method: Method) -> list[np.ndarray]:
    """Our scores of both texts, in one padded batch."""
    hf = tiny.build(family)
    ids = IDS.masked_fill(~KEEP, hf.config.pad_token_id or 0)
    return [a.scores for a in pellucid.explain(pellucid.load(hf), Batch(ids, KEEP), method)]


def within(family: str) -> float:
    """Hugging Face turns ModernBERT's queries and keys in float32."""
    return 1e-7 if family.startswith("modern") else 1e-9


def read(family: str, maps: list[Tensor]) -> Tensor:
    """The product of the maps, at the row that is read or as the mean over rows."""
    total = torch.linalg.multi_dot(maps[::-1]) if len(maps) > 1 else maps[0]
    return total.mean(0) if family in ("modernbert_mean", "identifiable") else total[0]


@pytest.mark.parametrize("family", NAMES)
def test_by_plain_loops(family: str) -> None:
    cases: dict[Method, Callable[[list[Maps]], list[Tensor]]] = {
        GlobEnc(): lambda m: [x.globenc for x in m],
        GlobEnc(ffn=True): lambda m: [x.globenc_ffn for x in m],
        ALTI(): lambda m: [x.alti for x in m],
        AttentionNorm(): lambda m: [m[-1].whole],
        AttentionNorm(layer=1): lambda m: [m[1].whole],
        AttentionNorm(layer=-2, head=2): lambda m: [m[-2].heads[2]],
    }
    for method, pick in cases.items():
        for text, ours in enumerate(explained(family, method)):
            close(ours, read(family, pick(loops(family, text))), within(family))


# --- value zeroing by the whole Hugging Face model ---

VALUES = {family: (n.block, n.value, n.pre) for family, n in NAMES.items()} | {
    "albert_inner": ("albert.encoder.albert_layer_groups.0.albert_layers.{}", _ALBERT.value, False),
    "identifiable": ("blocks.{}", "value", False),
    "identifiable_add": ("blocks.{}", "value", False),
}
"""Family -> blocks, the module of their values, and whether that makes queries and keys too."""


def outputs(hf: Any, family: str, ids: Tensor, zeroed: tuple[int, int] | None) -> list[Tensor]:
    """Every block's output [n, d] in order, with the value of (block, token) zero."""
    block, value, fused = VALUES[family]
    seen: list[Tensor] = []

    def zero(_: Any, __: Any, y: Tensor) -> Tensor:
        if zeroed is not None and len(seen) == zeroed[0]:
            y = y.clone()
            y[:, zeroed[1], -y.shape[-1] // 3 if fused else 0 :] = 0
        return y

    def keep(_: Any, __: Any, y: Any) -> None:
        seen.append((y if isinstance(y, Tensor) else y[0])[0])

    modules = dict(hf.named_modules())
    blocks = [at for i in range(9) if (at := block.format(i)) in modules]
    handles = [modules[at].register_forward_hook(keep) for at in blocks]
    handles += [modules[f"{at}.{value}"].register_forward_hook(zero) for at in blocks]
    try:
        with softmax_in_float64():
            hf(ids)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@cache
def zeroings(family: str, text: int) -> list[Tensor]:
    """Shares [n, n] of every block."""
    hf, ids = tiny.build(family), IDS[text, KEEP[text]][None]
    exact, n = outputs(hf, family, ids, None), ids.shape[1]
    found = []
    for i, y in enumerate(exact):
        turned = [1 - F.cosine_similarity(outputs(hf, family, ids, (i, j))[i], y, dim=-1) for j in range(n)]
        far = torch.stack(turned, 1)
        found.append(far / far.sum(1, keepdim=True))
    return found


@pytest.mark.parametrize("family", VALUES)
def test_value_zeroing_is_hugging_faces_model_without_a_value(family: str) -> None:
    for method in (
        ValueZeroing(),
        ValueZeroing(layer=1),
        ValueZeroing(rollout=False),
        ValueZeroing(rollout=False, layer=0),
    ):
        for text, ours in enumerate(explained(family, method)):
            maps = zeroings(family, text)
            last = method.layer % len(maps)
            close(ours, read(family, maps[0 if method.rollout else last : last + 1]), within(family))
            assert abs(ours.sum() - 1) < 1e-12


def test_cosine_distance_keeps_what_a_difference_from_one_loses() -> None:
    """Two vectors at an angle of 1e-6, in float32: 1 - cos is 5e-13 there."""
    a, b = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 1e-6]]])
    assert float(cosine_distance(a, b)) == pytest.approx(5e-13, rel=1e-5, abs=0)
    assert float(1 - F.cosine_similarity(a, b, dim=-1)) != pytest.approx(5e-13, rel=0.5, abs=0)
    assert float(cosine_distance(a, 3 * a)) == 0
    assert float(cosine_distance(a, -a)) == pytest.approx(2)


# --- what holds for all ---


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("family", ["bert", "modernbert_mean"])
def test_in_chunks_and_in_float32(family: str, method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and copies that run one by one give what they give together; float32 is near float64."""
    model = tiny.opened(family)
    batch = tiny.batch(model, (17, 5))
    monkeypatch.setattr(jaxtyping, "jaxtyped", lambda **_: lambda f: f)  # annotations name the class that is replaced
    whole = [a.scores for a in pellucid.explain(model, batch, method)]
    for a, b in zip(pellucid.explain(tiny.opened(family, torch.float32), batch, method), whole, strict=True):
        close(a.scores, b, 1e-4)
    monkeypatch.setattr(norms, "Parts", partial(Parts, chunk_floats=1))
    monkeypatch.setattr("pellucid.methods.method.SLAB", 1)
    for a, b in zip(pellucid.explain(model, batch, method), whole, strict=True):
        close(a.scores, b, 1e-12)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_token_that_is_masked_has_no_share_and_gives_none(method: Method) -> None:
    """As if it were not there, in a model that knows no positions."""
    model = pellucid.load(tiny.build("identifiable", positions="none", pool="first"))
    keep = torch.ones(1, 9, dtype=torch.bool)
    keep[0, 4] = False
    with_hole, without = Batch(IDS[:1, :9], keep), Batch(IDS[:1, :9][keep][None])
    with torch.no_grad():
        scores = method(model, with_hole, Target.parse(0, model.labels, with_hole)).scores
    assert scores[0, 4] == 0
    close(scores[0, keep[0], 0], pellucid.explain(model, without, method)[0].scores)


@pytest.mark.parametrize("method", [GlobEnc(), GlobEnc(ffn=True), ALTI(), ValueZeroing()], ids=lambda m: m.name)
def test_maps_of_local_blocks_stay_in_their_windows(method: Any) -> None:
    """Shares are 0 outside the window, rows of shares sum to one, and only rows that are read are computed last."""
    model = tiny.opened("modernbert")
    batch, net = tiny.batch(model, (14,)), model.require_net()
    with torch.no_grad():
        _, maps = method.maps(net, model.embed(batch), batch.keep)
    assert [len(m) for m in maps] == [14, 14, 14, 1]
    far = (torch.arange(14)[:, None] - torch.arange(14)).abs()
    for layer, m in zip(net.layers, maps, strict=True):
        if layer.window is not None and len(m) > 1:
            assert m[far > layer.window].max() < 1e-20
            assert m[far <= layer.window].min() > (0 if isinstance(method, ALTI) else 1e-9) - 1e-300
        if not isinstance(method, GlobEnc):
            close(m.sum(1), np.ones(len(m)), 1e-12)
    assert any(layer.window is not None for layer in net.layers[:-1])


def test_cost_is_told() -> None:
    """Forward passes of a text of 9 tokens in a model of three blocks that reads one row."""
    model = tiny.opened("bert")
    expected = {
        AttentionNorm(): 1.0,
        GlobEnc(): 2.0,
        GlobEnc(ffn=True): 1 + 9 * (9 + 9 + 1) / (3 * 9),
        ALTI(): 2.0,
        ValueZeroing(): 1 + 9 * (9 + 9 + 1) / (3 * 9),
        ValueZeroing(layer=1): 1 + 9 * (9 + 1) / (3 * 9),
        ValueZeroing(rollout=False): 1 + 9 * 1 / (3 * 9),
    }
    for method, forwards in expected.items():
        a = pellucid.explain(model, tiny.batch(model, (9,)), method)[0]
        assert (a.origin["forwards"], a.origin["backwards"]) == (pytest.approx(forwards), 0)
        assert (a.explained, a.unallocated, a.gap, a.signed, a.additive) == (None, None, None, False, False)


REFUSALS: dict[str, tuple[Callable[[], Method], str]] = {
    "layer": (lambda: AttentionNorm(layer=3), "attention_norm has no layer=3; .* 0 to 2"),
    "head": (lambda: AttentionNorm(head=4), "attention_norm has no head=4; .* 0 to 3"),
    "block": (lambda: ValueZeroing(layer=-4), "value_zeroing has no layer=-4; .* 0 to 2"),
    "ffn": (lambda: GlobEnc(ffn="no"), "GlobEnc has no ffn='no'; choose one of True, False"),  # type: ignore[arg-type]
    "rollout": (lambda: ValueZeroing(rollout="all"), "ValueZeroing has no rollout='all'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, words = REFUSALS[case]
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = tiny.opened("bert")
    with pytest.raises(InputError, match=words):
        pellucid.explain(model, tiny.batch(model, (4,)), make())
