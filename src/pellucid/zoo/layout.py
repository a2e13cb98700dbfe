"""Where tokens stand: texts without their padding, and tokens in sentences. Index arithmetic alone, no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
    """Tokens [b, n] as sentences: `index` the sentence of each token in its text, `place` its number there."""

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

    @cached_property
    def counts(self) -> Tensor:
        """Sentences of each text, [b]."""
        return self.index.amax(-1) + 1

    @cached_property
    def rows(self) -> Tensor:
        """The number of each token's sentence among those of all texts, [b, n]."""
        return self.index + (self.counts.cumsum(0) - self.counts)[:, None]

    @property
    def real(self) -> Tensor:
        """Which sentences of the longest text's number each text has, [b, s]."""
        return torch.arange(int(self.counts.max()), device=self.keep.device) < self.counts[:, None]

    def split(self, x: Tensor) -> Tensor:
        """Tokens x [b, n, ...] as sentences [all of them, w, ...], zero behind their ends."""
        out = x.new_zeros((int(self.counts.sum()), int(self.place.max()) + 1, *x.shape[2:]))
        return out.index_put((self.rows[self.keep], self.place[self.keep]), x[self.keep])

    def joined(self, x: Tensor) -> Tensor:
        """Sentences x [all of them, w, ...] as tokens [b, n, ...]; zero at padding."""
        found = x[self.rows, self.place]
        return found * self.keep.reshape(*self.keep.shape, *(1,) * (x.dim() - 2))

    def by_text(self, x: Tensor) -> Tensor:
        """One vector per sentence, x [all of them, d], as [b, s, d]; zero where a text has no more."""
        return x.new_zeros((*self.real.shape, x.shape[-1])).index_put((self.real,), x)
