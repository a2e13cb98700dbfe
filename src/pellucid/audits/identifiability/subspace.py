"""How many attention rows give the same head output: ranks and null spaces of the values."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.errors import InputError
from pellucid.methods.effective import Constraint, column_space


class Rank(NamedTuple):
    """rank [b, g]: of [V, 1], or of V; loose: the same at a relative 1e-3; ratio: largest over least kept singular
    value, of the centred values for [V, 1]."""

    rank: Int[Tensor, "b g"]
    loose: Int[Tensor, "b g"]
    ratio: Float[Tensor, "b g"]


def rank(v: Float[Tensor, "b g m e"], keep: Bool[Tensor, "b m"] | None = None, constraint: Constraint = "rows") -> Rank:
    """The rank of the values of each head, of [V, 1] ("rows") or V ("none"), over the keys in `keep`.

    In float64; a singular value counts if it is larger than max(m, e) eps times the values' size. `ratio` tells how
    far the count may be trusted: it peaks where m is about e + 1.
    Cost: one SVD of [m, e] per head. Raises: InputError if the shapes do not fit.
    """
    keep = torch.ones(v.shape[0], v.shape[2], dtype=torch.bool) if keep is None else keep.bool()
    if v.dim() != 4 or keep.shape != (v.shape[0], v.shape[2]):
        raise InputError(f"v [b, g, m, e] {list(v.shape)} and keep [b, m] {list(keep.shape)} must agree in b and m.")
    if not bool(keep.any(-1).all()) or not bool(torch.isfinite(v).all()):
        raise InputError("rank needs a key in every row of keep, and finite values.")
    found = [_of(x[:, k].double(), constraint) for x, k in zip(v, keep.to(v.device), strict=True)]
    return Rank(*(torch.stack(part) for part in zip(*found, strict=True)))


def _of(v: Tensor, constraint: Constraint) -> tuple[Tensor, Tensor, Tensor]:
    """Of the values [g, m, e] of one text."""
    _, s, full = column_space(v, constraint)
    ones = int(constraint == "rows")
    loose = (s > 1e-3 * s[..., :1].clamp(min=torch.finfo(s.dtype).tiny)).sum(-1).minimum(full - ones) + ones
    last = s.gather(-1, (full[..., None] - ones - 1).clamp(min=0))[..., 0]
    ratio = torch.where(full > ones, s[..., 0] / last, torch.ones_like(last))
    return full, loose, ratio


def null_space_dimension(
    v: Float[Tensor, "b g m e"], keep: Bool[Tensor, "b m"] | None = None, constraint: Constraint = "rows"
) -> Int[Tensor, "b g"]:
    """Dimension of the left null space of [V, 1], or of V: 0 means that attention over these keys is unique.

    max(0, m - e - 1) for [V, 1] and max(0, m - e) for V, unless values repeat. Cost and errors: as `rank`.
    Source: Brunner et al. 2020, arXiv 1908.04211, for V; with rows that sum to one it is [V, 1] that decides.
    """
    keep = torch.ones(v.shape[0], v.shape[2], dtype=torch.bool) if keep is None else keep.bool()
    return keep.to(v.device).sum(-1, keepdim=True) - rank(v, keep, constraint).rank
