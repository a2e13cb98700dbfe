"""Where tokens stand: texts without their padding, and tokens in sentences. Index arithmetic alone, no weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Compact:
    """Columns [b, n] in an order in which each text's real tokens come first, or None where they do already."""

    order: Tensor | None

    @classmethod
    def of(cls, keep: Tensor) -> "Compact":
        """For a mask [b, n] with padding anywhere."""
        if bool((keep[:, 1:] <= keep[:, :-1]).all()):
            return cls(None)
        return cls((~keep).to(torch.uint8).argsort(dim=-1, stable=True))

    def there(self, x: Tensor) -> Tensor:
        """Columns of x [b, n, ...] with the padding at the end."""
        return x if self.order is None else _columns(x, self.order)

    def back(self, x: Tensor) -> Tensor:
        """The columns where they were."""
        return x if self.order is None else _columns(x, self.order.argsort(-1))


def _columns(x: Tensor, order: Tensor) -> Tensor:
    if x.dim() == 2:
        return x.gather(1, order)
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))


@dataclass(frozen=True, eq=False)
class Sentences:
    """Tokens [b, n] as a grid [b, s, w]: `index` the sentence of each token, `place` its number there."""

    index: Tensor
    place: Tensor
    keep: Tensor

    @classmethod
    def of(cls, ids: Tensor, keep: Tensor, ends: Sequence[int], longest: int) -> "Sentences":
        """A sentence starts behind the last of a run of `ends`, or when the one before has `longest` tokens.

        keep [b, n] is right-padded.
        """
        closing = torch.isin(ids, torch.tensor(list(ends), device=ids.device, dtype=ids.dtype)) & keep
        at = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        starts = torch.zeros_like(keep)
        starts[:, 1:] = closing[:, :-1] & ~closing[:, 1:]
        begun = torch.where(starts, at, 0).cummax(-1).values
        starts |= (at > begun) & ((at - begun) % longest == 0)
        begun = torch.where(starts, at, 0).cummax(-1).values
        return cls(torch.where(keep, starts.cumsum(-1), 0), torch.where(keep, at - begun, 0), keep)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Texts, the most sentences of one, the most tokens of a sentence."""
        return len(self.keep), int(self.index.max()) + 1, int(self.place.max()) + 1

    def grid(self, x: Tensor) -> Tensor:
        """Tokens x [b, n, d] (or a mask [b, n]) as [b, s, w, d]; zero where there is no token."""
        b, s, w = self.shape
        rows = torch.arange(b, device=x.device)[:, None].expand(self.keep.shape)
        out = x.new_zeros((b, s, w, *x.shape[2:]))
        return out.index_put((rows[self.keep], self.index[self.keep], self.place[self.keep]), x[self.keep])

    def flat(self, x: Tensor) -> Tensor:
        """The grid x [b, s, w] or [b, s, w, d] as tokens [b, n] or [b, n, d]; zero at padding."""
        rows = torch.arange(len(x), device=x.device)[:, None]
        found = x[rows, self.index, self.place]
        return found * (self.keep if x.dim() == 3 else self.keep[..., None])
