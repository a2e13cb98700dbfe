"""Decomposed vectors: every hidden state as a sum of parts, one per source token, with any bias rule.

The network is the same `encode`, replayed with the recorded coefficients of an exact run and a leading parts axis:
x [k, b, n, d], where x[k] is what source token k has contributed. DecompX (Modarressi et al. 2023, section 3).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pellucid.encoder.activations import Activation, relu_step
from pellucid.encoder.forward import Net, encode, even
from pellucid.encoder.ops import ALL, Ops, Recorded, Rows

BiasRule = Literal["token", "drop", "absdot", "abssim", "norm", "equal", "cls", "dot"]
Slope = Literal["zero_origin", "tangent", "relu"]
Share = Callable[[Tensor, Tensor, Tensor], Tensor]


def _normalised(s: Tensor, keep: Tensor) -> Tensor:
    """s [k, b, r] scaled to sum 1 over the real parts; equal shares where all of s is 0, so that no bias is lost."""
    total = s.sum(0, keepdim=True)
    if bool((total > 0).all()):
        return s / total
    return torch.where(total > 0, s / total, _equal(s, s, keep).expand_as(s))


def _absdot(y: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    return _normalised(_dots(y, b).abs(), keep)


def _abssim(y: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    size = y.norm(dim=-1)
    return _normalised(torch.where(size > 0, _dots(y, b).abs() / size, 0.0), keep)  # |b| cancels in the shares


def _norm(y: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    return _normalised(y.norm(dim=-1), keep)


def _equal(y: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    return even(keep, y).T[..., None]


def _cls(y: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    first = keep & (keep.cumsum(-1) == 1)
    return first.to(y.dtype).T[..., None]


def _dot(y: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    # the official epsilon: with shares of either sign the denominator may be anything
    s = _dots(y, b)
    return s / (s.sum(0, keepdim=True) + 1e-12)


def _dots(y: Tensor, b: Tensor) -> Tensor:
    """<y, b> over the last axis, [k, b, r]; b is [f], or [b, r, f] for the intercept of a tangent."""
    return y @ b if b.dim() == 1 else (y * b).sum(-1)


SHARES: dict[str, Share] = {
    "absdot": _absdot,
    "abssim": _abssim,
    "norm": _norm,
    "equal": _equal,
    "cls": _cls,
    "dot": _dot,
}
"""(parts y [k, b, r, f], constant b, keep [b, k]) -> weights [k, b, r] or broadcastable, summing to 1 over k."""


class Parts(Ops):
    """Frozen coefficients, a parts axis, and a rule for who gets each bias.

    The value bias of block 0 travels with its token; from block 1 on it is shared after the residual together with the
    output bias (its attention weights sum to one), and the second feed-forward bias before the residual, as the
    official code does. Rows are computed in chunks that overwrite their input, so beside the chunk two tensors of
    [k, n, d] are alive: the parts and their values.
    """

    def __init__(
        self,
        net: Net,
        tape: dict[str, Tensor],
        keep: Tensor,
        rule: BiasRule,
        slope: Slope,
        ffn: bool,
        chunk_floats: int = 1 << 21,
    ) -> None:
        self.net, self.tape, self.keep = net, tape, keep
        self.share = SHARES.get(rule)  # "token" and "drop" give a bias to no part
        self.slope, self.ffn, self.chunk_floats = slope, ffn, chunk_floats
        self.rows: Rows = ALL
        self.out: Tensor | None = None
        self.mixed: Tensor | None = None  # [b, h, rows, k, e]: rows of the current block that are mixed already
        self.mixed_from, self.block = 0, 1
        self.width = max(layer.up.w.shape[0] for layer in net.layers)

    def _coefficient(self, at: str) -> Tensor:
        return self.tape[at][..., self.rows, :]

    def probs(self, at: str, scores: Callable[[], Tensor]) -> Tensor:
        return self.tape[at]

    def mix(self, at: str, alpha: Tensor, v: Tensor, rows: Rows) -> Tensor:
        """As everywhere, but for a block of several chunks at a time: each product reads all values from memory."""
        k, b, h, m, e = v.shape
        if self.mixed is None:
            self.mixed_from = rows.start
            block = alpha[..., rows.start : rows.start + self.block, :]
            flat = v.permute(1, 2, 3, 0, 4).reshape(b, h, m, k * e)  # no copy: see `_room`
            self.mixed = (block @ flat).reshape(b, h, -1, k, e)
        here = slice(rows.start - self.mixed_from, rows.stop - self.mixed_from)
        z = self.mixed[:, :, here].permute(3, 0, 2, 1, 4).reshape(k, b, -1, h * e)
        if here.stop >= self.mixed.shape[2]:
            self.mixed = None
        return z

    def gate(self, at: str, act: Activation, u: Tensor) -> Tensor:
        full = self._coefficient(at)
        if self.slope == "tangent":
            m = act.tangent(full)
            return self._shared(u.mul_(m), act.f(full) - m * full)
        relu = self.slope == "relu" and not at.startswith("head")
        return u.mul_(relu_step(full) if relu else act.ratio(full))

    def product(self, at: str, g: Tensor, s: Tensor) -> Tensor:
        return g.mul_(0.5 * self._coefficient(at + ".s")).addcmul_(s, 0.5 * self._coefficient(at + ".g"))

    def scale(self, at: str, x: Tensor, eps: float) -> Tensor:
        return self._coefficient(at)

    def bias(self, at: str, y: Tensor, b: Tensor | None) -> Tensor:
        layer, _, site = at.partition(".")
        if site == "attn.value":
            return self._travelling(y, b) if layer == "0" and b is not None else y
        if site == "attn.out" and layer != "0":
            table = self.net.layers[int(layer)]
            moved = None if table.v.b is None else table.o.w @ table.v.b
            b = moved if b is None else b if moved is None else b + moved
        return y if b is None else self._shared(y, b)

    def _travelling(self, y: Tensor, b: Tensor) -> Tensor:
        """Block 0: source k stands at row k alone, and takes the bias of its own value along."""
        at = torch.arange(y.shape[0], device=y.device)[self.rows]
        y[at, :, torch.arange(len(at), device=y.device)] += b
        return y

    def _shared(self, y: Tensor, b: Tensor) -> Tensor:
        if self.share is None:
            return y
        return y.addcmul_(self.share(y, b, self.keep)[..., None], b)

    def stream(self, at: str, x: Tensor) -> Tensor:
        if at == "head.in":  # all its rows at once; those of the blocks come in chunks
            self.out = x
        if at.endswith(".ffn") and not self.ffn:
            return torch.zeros_like(x)
        return x

    def rowwise(self, f: Callable[[Rows], Tensor], n: int, spent: Tensor | None = None) -> Tensor:
        out = spent
        # the widest vectors of a sixteenth of the rows take a quarter of a tensor of [k, n, d]
        step = max(4, n // 16, self.chunk_floats // (self.keep.shape[1] * self.width))
        self.block = step * max(1, n // 8 // step)
        for i in range(0, n, step):
            self.rows = slice(i, min(i + step, n))
            y = f(self.rows)
            if out is None:
                out = self._room(y, n)
            out[..., self.rows, :] = y
        self.rows = ALL
        assert out is not None
        return out

    @staticmethod
    def _room(y: Tensor, n: int) -> Tensor:
        """An empty tensor like y with n rows; values [k,b,h,n,e] lie as [b,h,n,k,e], so that mixing is one product."""
        if y.dim() == 4:
            return y.new_empty(*y.shape[:-2], n, y.shape[-1])
        k, b, h, _, e = y.shape
        return y.new_empty(b, h, n, k, e).movedim(-2, 0)


def record(net: Net, x: Tensor, keep: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits [b, c] and the coefficients of an exact run."""
    ops = Recorded()
    return encode(ops, net, x, keep), ops.tape


def sources(x: Tensor) -> Tensor:
    """x [1, n, d] as parts [n, 1, n, d]: token k is the only source of row k."""
    n = x.shape[1]
    parts = x.new_zeros(n, 1, n, x.shape[-1])
    parts[torch.arange(n), 0, torch.arange(n)] = x[0]
    return parts


@torch.no_grad()
def push(
    net: Net, x: Tensor, keep: Tensor, rule: BiasRule, slope: Slope = "zero_origin", ffn: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose one text x [1, n, d] by carrying vectors.

    Returns logits [1, c], each token's part of them [n, c], and the norm of its part of what the head reads [n].
    Cost: about n forward passes; peak memory about three tensors of [n, n, d] and the attention of the exact run.
    """
    logits, tape = record(net, x, keep)
    ops = Parts(net, tape, keep, rule, slope, ffn)
    parts = encode(ops, net, sources(x), keep)
    assert ops.out is not None
    read = ops.out[:, 0]
    pooled = read[:, 0] if net.head.pool == "first" else (read * even(keep, read)[0, :, None]).sum(1)
    return logits, parts[:, 0], pooled.norm(dim=-1)
