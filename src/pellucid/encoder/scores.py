"""Attention scores before the softmax, one class per kind; the queries may be a subset of the rows.

Everywhere: q [b, h, r, e] are the queries at positions `rows` ([b, r], or None for all n), k [b, h, n, e].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(q, k, rows) -> scores [b, h, r, n]."""


def positions(rows: Tensor | None, n: int, device: torch.device) -> Tensor:
    """The query positions, [b or 1, r]."""
    return torch.arange(n, device=device)[None] if rows is None else rows


@dataclass(frozen=True, eq=False)
class ScaledDot:
    """q k^T / sqrt(e)."""

    def __call__(self, q: Tensor, k: Tensor, rows: Tensor | None) -> Tensor:
        return torch.matmul(q * float(q.shape[-1]) ** -0.5, k.transpose(-1, -2))


@dataclass(frozen=True, eq=False)
class RelativeBias:
    """MPNet: q k^T / sqrt(e) + w[bucket(j - i)], w [buckets, h], buckets logarithmic up to 128 (as in T5)."""

    w: Tensor
    max_distance: int = 128

    def __call__(self, q: Tensor, k: Tensor, rows: Tensor | None) -> Tensor:
        n = k.shape[-2]
        i = positions(rows, n, k.device)[:, :, None]
        bias = self.w[self._bucket(torch.arange(n, device=k.device) - i)].permute(0, 3, 1, 2)
        return ScaledDot()(q, k, rows) + bias

    def _bucket(self, offset: Tensor) -> Tensor:
        half = self.w.shape[0] // 2
        exact = half // 2
        distance = offset.abs()
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
        return (offset > 0).long() * half + torch.where(distance < exact, distance, far)


@dataclass(frozen=True, eq=False)
class Disentangled:
    """DeBERTa-v2 and -v3: content-to-content plus content-to-position plus position-to-content.

    `rel_k`, `rel_q` [h, 2 * span, e] are the projected relative embeddings (None: that term is off). Their share of
    the scale is part of the model even where relative attention itself is off.
    """

    terms: int
    span: int
    buckets: int
    max_distance: int
    rel_k: Tensor | None
    rel_q: Tensor | None

    def __call__(self, q: Tensor, k: Tensor, rows: Tensor | None) -> Tensor:
        n = k.shape[-2]
        # Hugging Face takes this square root in float32 whatever the dtype
        scale = torch.sqrt(torch.tensor(q.shape[-1], dtype=torch.float) * self.terms).to(q)
        s = q @ (k.transpose(-1, -2) / scale)
        if self.rel_k is None and self.rel_q is None:
            return s
        place = self._offset(positions(rows, n, k.device), n)[:, None] + self.span
        place = place.clamp(0, 2 * self.span - 1).expand(*s.shape)
        if self.rel_k is not None:
            s = s + (q @ self.rel_k.transpose(-1, -2)).gather(-1, place) / scale
        if self.rel_q is not None:  # gathered over the keys' side, then turned
            s = s + (k @ self.rel_q.transpose(-1, -2)).gather(-1, place.mT).mT / scale
        return s

    def _offset(self, i: Tensor, n: int) -> Tensor:
        """i - j, in logarithmic buckets beyond half of `buckets`; [b or 1, r, n]."""
        offset = i[:, :, None] - torch.arange(n, device=i.device)
        if self.buckets <= 0:
            return offset
        mid = self.buckets // 2
        near = (offset < mid) & (offset > -mid)
        size = torch.where(near, torch.full_like(offset, mid - 1), offset.abs())
        ceiling = torch.log(torch.tensor((self.max_distance - 1) / mid))
        far = torch.ceil(torch.log(size / mid) / ceiling * (mid - 1)) + mid
        return torch.where(size <= mid, offset.to(far.dtype), far * offset.sign()).long()


@dataclass(frozen=True, eq=False)
class Rotary:
    """ModernBERT: queries and keys are rotated by their positions; angles in float32 as Hugging Face computes them."""

    base: float

    def __call__(self, q: Tensor, k: Tensor, rows: Tensor | None) -> Tensor:
        n = k.shape[-2]
        q = self._turn(q, positions(rows, n, k.device))
        return ScaledDot()(q, self._turn(k, positions(None, n, k.device)), rows)

    def _turn(self, x: Tensor, at: Tensor) -> Tensor:
        e = x.shape[-1]
        speed = 1.0 / (self.base ** (torch.arange(0, e, 2, dtype=torch.float, device=x.device) / e))
        angle = (at[..., None].float() * speed).repeat(1, 1, 2)[:, None]
        left, right = x.chunk(2, dim=-1)
        turned = torch.cat((-right, left), dim=-1)
        return x * angle.cos().to(x.dtype) + turned * angle.sin().to(x.dtype)
