"""Other attention at the same place, found on purpose: permuted, even, and as far away as the output allows.

Only where the states behind the attention are fixed, at the row that the classifier reads (Jain & Wallace 2019;
Wiegreffe & Pinter 2019). An adversary that succeeds proves nothing where attention has no leverage, or where other
training seeds differ as much: both stand beside it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pellucid.audits.erasure.effects import Judge
from pellucid.audits.erasure.places import LastRow, Place
from pellucid.stats import js_divergence

LEARNING_RATE, WEIGHT = 0.05, 500.0
"""Of Adam, and of the penalty on an output further away than allowed (Jain & Wallace's code has 0.01 and 500)."""


def evened(place: Place, content: Sequence[int]) -> Tensor:
    """Logits [c] with each row's weight on the positions `content` spread evenly over them."""
    at = torch.tensor(content)

    def change(alpha: Tensor) -> Tensor:
        out = alpha.clone()
        out[..., at] = alpha[..., at].mean(-1, keepdim=True).expand_as(out[..., at])
        return out

    return place.replaced(change)


def averaged(place: LastRow, mean: np.ndarray) -> Tensor:
    """Logits [c] with every head's row replaced by a corpus mean [h, positions], cut to this text and scaled."""
    n = place.read.alpha.shape[-1]
    row = torch.as_tensor(mean[:, :n]).to(place.read.alpha)
    return place.replaced(lambda alpha: row / row.sum(-1, keepdim=True))


def permuted(place: LastRow, content: Sequence[int], judge: Judge, count: int, rng: np.random.Generator) -> np.ndarray:
    """JS divergence [count] of the output with the weights on `content` in random orders, the same in all heads."""
    alpha, at = place.read.alpha, np.array(content)
    many = alpha.repeat(count, 1, 1)
    for row in many:
        row[:, at] = alpha[:, rng.permutation(at)]
    if place.head is not None:
        many[:, [h for h in range(len(alpha)) if h != place.head]] = alpha[
            [h for h in range(len(alpha)) if h != place.head]
        ]
    with torch.no_grad():
        return judge.effect(place.from_weights(many))


def adversarial(
    place: LastRow,
    content: Sequence[int],
    judge: Judge,
    within: Sequence[float],
    restarts: int,
    steps: int,
    seed: int,
) -> list[float]:
    """For each limit on the output's change (total variation), the largest JS divergence from the model's attention
    that is found, the mean over heads; 0 where nothing is.

    Weights on `content` are moved by offsets to their logarithms, those of other positions only by the scaling. Adam
    from `restarts` random points for all limits at once. Cost: `steps` forward and backward passes of `finish` on
    restarts * limits rows.
    """
    alpha = place.read.alpha.double()
    h, n = alpha.shape
    heads = range(h) if place.head is None else [place.head]
    free = torch.zeros(h, n, dtype=torch.bool)
    free[np.ix_(list(heads), list(content))] = True
    made = torch.Generator().manual_seed(seed)
    limits = torch.tensor(within, dtype=torch.float64).repeat_interleave(restarts)
    offsets = 3 * torch.randn(len(limits), h, n, generator=made, dtype=torch.float64)
    offsets, log_a = offsets.to(alpha.device).requires_grad_(), alpha.clamp(min=1e-30).log()
    p = torch.as_tensor(judge.p, device=alpha.device)
    optimiser = torch.optim.Adam([offsets], lr=LEARNING_RATE)
    best = np.zeros(len(limits))
    with torch.enable_grad():
        for step in range(steps + 1):
            other = (log_a + offsets * free.to(offsets.device)).softmax(-1)
            apart = _js(other, alpha)[:, list(heads)].mean(-1)
            q = _distribution(place.read.from_weights(other.to(place.read.alpha.dtype)).double(), judge.problem)
            change = (q - p).abs().sum(-1).mean(-1) / 2
            fits = (change <= limits.to(change.device)).cpu().numpy()
            best = np.maximum(best, np.where(fits, apart.detach().cpu().numpy(), 0.0))
            if step < steps:
                loss = (-apart + WEIGHT * torch.relu(change - 0.9 * limits.to(change.device))).sum()
                (offsets.grad,) = torch.autograd.grad(loss, offsets)
                optimiser.step()
    return [float(x) for x in best.reshape(len(within), restarts).max(1)]


def _distribution(z: Tensor, problem: str) -> Tensor:
    if problem == "multi_label":
        return torch.stack([z.sigmoid(), (-z).sigmoid()], -1)
    return z.softmax(-1)[:, None]


def _js(a: Tensor, b: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats over the last axis, differentiable."""
    m = (a + b) / 2
    return (torch.xlogy(a, a / m.clamp(min=1e-300)) + torch.xlogy(b, b / m.clamp(min=1e-300))).sum(-1) / 2


def between_models(alphas: Sequence[np.ndarray]) -> float:
    """Mean JS divergence of the first model's attention [n] from the others', on the same text."""
    first, *others = (a / a.sum() for a in alphas)
    return float(np.mean([js_divergence(first, x) for x in others]))
