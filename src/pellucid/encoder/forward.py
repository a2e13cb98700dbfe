"""The network, written once: weights as plain tables, and `encode` over the operations of `ops.py`."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.encoder.activations import Activation
from pellucid.encoder.ops import Ops, Rows, split_heads
from pellucid.encoder.scores import Score, positions


@dataclass(frozen=True, eq=False)
class Linear:
    """y = x w^T + b; w [out, in], b [out] or None."""

    w: Tensor
    b: Tensor | None


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm with gain w [d] and offset b [d] or None."""

    w: Tensor
    b: Tensor | None
    eps: float


@dataclass(frozen=True, eq=False)
class Layer:
    """One Transformer block. `pre`: the norms stand before the sub-layers (a missing norm1 is the identity).

    `gated` is the second input projection of a gated feed-forward; `window` the largest |i - j| that is attended.
    """

    heads: int
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    norm1: Norm | None
    up: Linear
    gated: Linear | None
    down: Linear
    act: Activation
    norm2: Norm
    score: Score
    pre: bool = False
    window: int | None = None


@dataclass(frozen=True, eq=False)
class Embedding:
    """Token ids to the first block's input. `positions`: "absolute" (0, 1, ...), "offset" (from `padding` + 1,
    counted over the ids that are not `padding`, as RoBERTa does), or "none"."""

    word: Tensor
    position: Tensor | None
    types: Tensor | None
    constant: Tensor | None
    norm: Norm
    positions: Literal["absolute", "offset", "none"] = "absolute"
    padding: int = 0
    before: Linear | None = None
    after: Linear | None = None


@dataclass(frozen=True, eq=False)
class Head:
    """Reads the first row or the mean of the real rows; then dense, activation, norm (each optional) and `out`."""

    pool: Literal["first", "mean"]
    dense: Linear | None
    act: Activation | None
    norm: Norm | None
    out: Linear


@dataclass(frozen=True, eq=False)
class Net:
    """A whole classifier as tables of weights, which are shared with the Hugging Face model where dtypes allow."""

    embedding: Embedding
    layers: tuple[Layer, ...]
    final: Norm | None
    head: Head


def linear(ops: Ops, at: str, p: Linear, x: Tensor) -> Tensor:
    """x w^T, then the bias by the operations' rule.

    A chunk of rows is made contiguous first: torch runs a strided [k, b, r, d] as k small products, at a fifth of the
    speed of one large one.
    """
    return ops.bias(at, F.linear(x.contiguous(), p.w), p.b)


def norm(ops: Ops, at: str, p: Norm, x: Tensor) -> Tensor:
    """LayerNorm: centring and gain are linear, 1/std and the offset are operations."""
    y = (x - x.mean(-1, keepdim=True)) * ops.scale(at + ".scale", x, p.eps) * p.w
    return ops.bias(at + ".bias", y, p.b)


def take(x: Tensor, rows: Tensor | None) -> Tensor:
    """Rows [b, r] of x [*p, b, n, d]; all of them for None."""
    if rows is None:
        return x
    return x.gather(-2, rows[..., None].expand(*x.shape[:-2], rows.shape[-1], x.shape[-1]))


def allowed(layer: Layer, keep: Tensor, rows: Tensor | None) -> Tensor | None:
    """Which keys each query may attend, bool [b, 1, r or 1, n]; None where all are."""
    mask = None if bool(keep.all()) else keep[:, None, None, :]
    if layer.window is not None:
        n = keep.shape[-1]
        near = (positions(rows, n, keep.device)[..., None] - torch.arange(n, device=keep.device)).abs() <= layer.window
        mask = near[:, None] if mask is None else mask & near[:, None]
    return mask


def attended(ops: Ops, at: str, layer: Layer, x: Tensor) -> Tensor:
    """What queries, keys and values are made from: x itself, or its norm where norms stand before the sub-layers."""
    if not layer.pre or layer.norm1 is None:
        return x
    first = layer.norm1
    return ops.rowwise(lambda i: norm(ops, f"{at}.attn.norm", first, x[..., i, :]), x.shape[-2])


def queries_keys(layer: Layer, h: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries [b, h, r, e] of those rows and keys [b, h, n, e] from what `attended` gives."""
    exact = Ops()
    q = split_heads(linear(exact, "", layer.q, take(h, rows)), layer.heads)
    return q, split_heads(linear(exact, "", layer.k, h), layer.heads)


def attend(ops: Ops, at: str, layer: Layer, x: Tensor, keep: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention probabilities [b, h, r, n] and values [*p, b, h, n, e] of one block.

    Masked keys get the least finite score, so their probability is exactly 0 in a row that has a real key; the rows of
    padding, which nothing reads, stay finite.
    """
    n = keep.shape[-1]
    h = attended(ops, at, layer, x)

    def scores() -> Tensor:
        s = layer.score(*queries_keys(layer, h, rows), rows)
        mask = allowed(layer, keep, rows)
        return s if mask is None else s.masked_fill(~mask, torch.finfo(s.dtype).min)

    def values(i: Rows) -> Tensor:
        return split_heads(linear(ops, f"{at}.attn.value", layer.v, h[..., i, :]), layer.heads)

    alpha = ops.probs(f"{at}.attn.probs", scores)
    return alpha, ops.rowwise(values, n)


def feed_forward(ops: Ops, at: str, layer: Layer, x: Tensor) -> Tensor:
    """down(act(up x)), or down(act(up x) * (gated x))."""
    u = ops.gate(f"{at}.ffn.gate", layer.act, linear(ops, f"{at}.ffn.up", layer.up, x))
    if layer.gated is not None:
        u = ops.product(f"{at}.ffn.product", u, linear(ops, f"{at}.ffn.gated", layer.gated, x))
    return ops.stream(f"{at}.ffn", linear(ops, f"{at}.ffn.down", layer.down, u))


def settle(ops: Ops, at: str, layer: Layer, mixed: Tensor, x: Tensor) -> Tensor:
    """The rest of a block behind the mixing of values: mixed [..., h*e] and the block's input x [..., d], row by row.

    The attention bias joins after the residual: the same sum for the model, and the place where DecompX shares it
    (official code, modeling_bert.py 789-793).
    """
    r = ops.stream(f"{at}.attn", F.linear(mixed, layer.o.w)) + x
    r = ops.stream(f"{at}.attn.res", ops.bias(f"{at}.attn.out", r, layer.o.b))
    if layer.pre:
        y = ops.stream(f"{at}.ffn.norm", norm(ops, f"{at}.ffn.norm", layer.norm2, r))
        return ops.stream(f"{at}.out", feed_forward(ops, at, layer, y) + r)
    if layer.norm1 is not None:
        r = ops.stream(f"{at}.attn.norm", norm(ops, f"{at}.attn.norm", layer.norm1, r))
    y = ops.stream(f"{at}.ffn.res", feed_forward(ops, at, layer, r) + r)
    return ops.stream(f"{at}.out", norm(ops, f"{at}.ffn.norm", layer.norm2, y))


def block(ops: Ops, at: str, layer: Layer, x: Tensor, keep: Tensor, rows: Tensor | None) -> Tensor:
    """One Transformer block; with `rows` only those rows of its output."""
    x = ops.stream(f"{at}.in", x)
    alpha, v = attend(ops, at, layer, x, keep, rows)
    x = take(x, rows)

    def rest(i: Rows) -> Tensor:
        return settle(ops, at, layer, ops.mix(f"{at}.attn.mix", alpha, v, i), x[..., i, :])

    return ops.rowwise(rest, x.shape[-2], spent=x)


def read_rows(net: Net, keep: Tensor) -> Tensor | None:
    """The rows that the head reads, [b, r]; None for all."""
    if net.head.pool == "mean":
        return None
    return torch.zeros(keep.shape[0], 1, dtype=torch.long, device=keep.device)


def even(keep: Tensor, like: Tensor) -> Tensor:
    """Equal weights over the real rows, [b, n], in `like`'s dtype (an integer quotient would be float32)."""
    real = keep.to(like.dtype)
    return real / real.sum(-1, keepdim=True)


def finish(ops: Ops, net: Net, x: Tensor, keep: Tensor) -> Tensor:
    """Final norm and head on the rows that are read: x [*p, b, r, d] -> logits [*p, b, c].

    After pooling a row axis of length 1 stays, so that every site has the same axes.
    """
    if net.final is not None:
        x = norm(ops, "head.final", net.final, x)
    x = ops.stream("head.in", x)
    if net.head.pool == "mean":
        x = (x * even(keep, x)[..., None]).sum(-2, keepdim=True)
    if net.head.dense is not None:
        x = linear(ops, "head.dense", net.head.dense, x)
    if net.head.act is not None:
        x = ops.gate("head.gate", net.head.act, x)
    x = ops.stream("head.pooled", x)
    if net.head.norm is not None:
        x = norm(ops, "head.norm", net.head.norm, x)
    return linear(ops, "head.out", net.head.out, x)[..., 0, :]


def encode(
    ops: Ops,
    net: Net,
    x: Float[Tensor, "*p b n d"],
    keep: Bool[Tensor, "b n"],
    start: int = 0,
    full: bool = False,
) -> Float[Tensor, "*p b c"]:
    """Logits from the input x of block `start`.

    `keep` is True at real tokens. The last block computes only the rows that the head reads, or all of them if `full`.
    Cost: one forward pass for the exact operations.
    """
    last = len(net.layers) - 1
    read = read_rows(net, keep)
    for i in range(start, last + 1):
        rows = read if i == last and not full else None
        x = block(ops, str(i), net.layers[i], x, keep, rows)
    return finish(ops, net, take(x, read) if full or start > last else x, keep)


def embed(
    net: Net, input_ids: Int[Tensor, "b n"], token_types: Int[Tensor, "b n"] | None, words: Tensor | None = None
) -> Float[Tensor, "b n d"]:
    """The first block's input (Hugging Face's `hidden_states[0]`, after the projection of ELECTRA and ALBERT).

    `words` [b, n, w] replaces the looked-up word embeddings. Always in the dtype of the tables.
    """
    e = net.embedding
    ids = input_ids.long()
    x = e.word[ids] if words is None else words
    if e.position is not None:
        if e.positions == "offset":
            real = (ids != e.padding).long()
            x = x + e.position[real.cumsum(1) * real + e.padding]
        else:
            x = x + e.position[: ids.shape[1]]
    if e.types is not None:
        x = x + (e.types[0] if token_types is None else e.types[token_types.long()])
    if e.constant is not None:
        x = x + e.constant
    exact = Ops()
    if e.before is not None:
        x = linear(exact, "", e.before, x)
    x = norm(exact, "", e.norm, x)
    return x if e.after is None else linear(exact, "", e.after, x)
