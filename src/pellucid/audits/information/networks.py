"""Many small networks trained at once: some for each fold and each set of states, as one batched product."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Layers = tuple[tuple[Tensor, Tensor], ...]
WIDTH, MEMBERS = 32, 3
BATCH = 256
RATE, FALL, DECAY = 5e-3, 0.05, 1e-3
EPOCHS, PATIENCE = 15, 4
STEPS = 600
"""At most; large samples stop before all epochs are through."""
JUDGED, JUDGED_EVERY = 4000, 50
"""Held-out rows after which to stop are at most so many, and are looked at after an epoch or so many steps."""


@dataclass(frozen=True, eq=False)
class Part:
    """Standardised states h [m, d], probabilities p [m, c] and weights w [m] of some rows, in float32."""

    h: Tensor
    p: Tensor
    w: Tensor

    @classmethod
    def of(cls, h: np.ndarray, p: np.ndarray, w: np.ndarray) -> "Part":
        """From arrays; weights are scaled to a mean of one."""
        return cls(*(torch.from_numpy(np.ascontiguousarray(x)).float() for x in (h, p, w / w.mean())))

    def loss(self, log_q: Tensor) -> float:
        """Weighted cross-entropy of log probabilities [m, c], nats."""
        return float(-((self.p * log_q).sum(-1) * self.w).sum() / self.w.sum())


def networks(parts: Sequence[Part], checks: Sequence[Part], seed: int) -> list[Layers]:
    """For each of `parts` (all of one width and one number of classes) the mean of MEMBERS networks with two hidden
    layers, as one network; trained by Adam and stopped where the loss on its part of `checks` is least."""
    if not parts:
        return []
    members = _trained(parts, checks, torch.Generator().manual_seed(seed))
    return [_mean(members[i : i + MEMBERS]) for i in range(0, len(members), MEMBERS)]


def _mean(members: Sequence[Layers]) -> Layers:
    """One network whose logits are the mean of theirs."""
    first, second, third = ([m[i] for m in members] for i in range(3))
    return (
        (torch.cat([w for w, _ in first]), torch.cat([b for _, b in first])),
        (
            torch.block_diag(*[w for w, _ in second]),  # type: ignore[no-untyped-call]
            torch.cat([b for _, b in second]),
        ),
        (torch.cat([w for w, _ in third], 1) / len(members), torch.stack([b for _, b in third]).mean(0)),
    )


def _trained(parts: Sequence[Part], checks: Sequence[Part], generator: torch.Generator) -> list[Layers]:
    """The members of the first part, then of the second, ...; those of a part see the same rows at each step."""
    k, (d, c) = len(parts) * MEMBERS, (parts[0].h.shape[1], parts[0].p.shape[1])
    values = _begin(k, d, c, generator)
    least = min(len(p.h) for p in parts)
    size = min(BATCH, max(16, least // 16), least)
    every = -(-least // size)  # steps of an epoch of the smallest
    steps = min(EPOCHS * every, STEPS)
    adam = torch.optim.Adam([v.requires_grad_() for v in values], lr=RATE, weight_decay=DECAY)
    fall = torch.optim.lr_scheduler.LinearLR(adam, 1.0, FALL, steps)
    held = _held(checks)
    best, late = torch.full((k,), float("inf")), torch.zeros(k)
    kept = [v.detach().clone() for v in values]
    order = [torch.randperm(len(p.h), generator=generator) for p in parts]
    for step in range(steps):
        at = (step % every) * size
        if at == 0 and step:
            order = [torch.randperm(len(p.h), generator=generator) for p in parts]
        some = [o[min(at, len(o) - size) :][:size] for o in order]
        h, p, w = (_several([getattr(one, key)[i] for one, i in zip(parts, some, strict=True)]) for key in "hpw")
        loss = -(w * (p * _logits(values, h).log_softmax(-1)).sum(-1)).mean(-1).sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        fall.step()
        if (step + 1) % min(every, JUDGED_EVERY) == 0 or step == steps - 1:
            now = _losses(values, held)
            late = torch.where(now < best - 1e-4, torch.zeros_like(late), late + 1)
            for mine, v in zip(kept, values, strict=True):
                mine[now < best] = v.detach()[now < best]
            best = torch.minimum(now, best)
            if bool((late >= PATIENCE).all()):
                break
    return [tuple((kept[i][j].mT.double(), kept[i + 1][j, 0].double()) for i in (0, 2, 4)) for j in range(k)]


def _several(rows: Sequence[Tensor]) -> Tensor:
    """Rows of each part, once for each of its members."""
    return torch.stack(list(rows)).repeat_interleave(MEMBERS, 0)


def _begin(k: int, d: int, c: int, generator: torch.Generator) -> list[Tensor]:
    """Weights [k, i, o] and biases [k, 1, o], as torch.nn.Linear begins them."""
    values = []
    for i, o in ((d, WIDTH), (WIDTH, WIDTH), (WIDTH, c)):
        values += [(2 * torch.rand(k, *shape, o, generator=generator) - 1) / i**0.5 for shape in ((i,), (1,))]
    return values


def _logits(values: Sequence[Tensor], h: Tensor) -> Tensor:
    """[k, m, c] of h [k, m, d]."""
    x = torch.baddbmm(values[1], h, values[0]).relu()
    x = torch.baddbmm(values[3], x, values[2]).relu()
    return torch.baddbmm(values[5], x, values[4])


def _held(checks: Sequence[Part]) -> Part:
    """Held-out rows of all, [k, m, ...], padded with rows of weight 0; at most JUDGED of each."""
    most = min(JUDGED, max(len(c.h) for c in checks))

    def padded(x: Tensor) -> Tensor:
        x = x[:most]
        return torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])])

    return Part(*(_several([padded(getattr(c, key)) for c in checks]) for key in "hpw"))


def _losses(values: Sequence[Tensor], held: Part) -> Tensor:
    """Of each network on its held-out rows, [k]."""
    with torch.no_grad():
        log_q = _logits(values, held.h).log_softmax(-1)
        return -((held.p * log_q).sum(-1) * held.w).sum(-1) / held.w.sum(-1)
