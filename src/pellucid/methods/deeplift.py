"""DeepLIFT on the whole network: differences from a baseline, divided at every operation so that nothing is lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder.activations import Activation
from pellucid.encoder.forward import Net, encode
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops, Rows, join_heads
from pellucid.encoder.ops import Scores as Thunk
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register
from pellucid.methods.sampling import BASELINES, Baseline, baseline_states
from pellucid.types import Batch, Target


def change(u: Tensor) -> Tensor:
    """0 [b, ...] for u [2b, ...], whose gradient goes to both halves of u, half to each."""
    a, b = u.chunk(2)
    middle = a / 2 + b / 2  # masked scores are the least finite number: their sum would be infinite
    return middle - middle.detach()


def carried(y: Tensor, rise: Tensor) -> Tensor:
    """The values y [2b, ...] with the gradient of rise [b, ...], from the sum of both halves."""
    return y.detach() + rise.repeat(2, *[1] * (y.dim() - 1))


def evened(y: Tensor) -> Tensor:
    """y [2b, ...], its gradient shared evenly by both halves.

    Behind a product this makes the gradients of the factors, summed over the halves, those at their midpoints; and
    these are exact: a b - a0 b0 = (a - a0)(b + b0)/2 + (b - b0)(a + a0)/2, the Shapley values of the two factors.
    """
    return carried(y, change(y))


def secant(y: Tensor, u: Tensor, tangent: Callable[[Tensor], Tensor]) -> Tensor:
    """(y1 - y0) / (u1 - u0) for the halves of y = f(u); the tangent between them where rounding would decide."""
    (u1, u0), (y1, y0) = u.chunk(2), y.chunk(2)
    way, rise = u1 - u0, y1 - y0
    middle, eps = tangent((u1 + u0) / 2), torch.finfo(u.dtype).eps
    near = way.abs() < eps ** (1 / 3)
    smooth = (rise - middle * way).abs() <= 8 * eps * (1 + y1.abs() + y0.abs())  # there is no kink between them
    return torch.where((way == 0) | (near & smooth), middle, rise / torch.where(way == 0, 1.0, way))


def logarithmic_mean(log_alpha: Tensor) -> Tensor:
    """(p - q) / (log p - log q) for the halves of log_alpha [2b, ...]: the secant of exp, between p and q."""
    p, q = log_alpha.chunk(2)
    way = (p - q).abs()
    return torch.maximum(p, q).exp() * torch.where(way == 0, 1.0, -torch.expm1(-way) / torch.where(way == 0, 1.0, way))


class Multipliers(Ops):
    """The network for a batch [2b, ...] of inputs and their baselines, whose gradients are DeepLIFT's multipliers.

    A multiplier is the sum of the gradients at both halves. Activations: the Rescale rule. Products (of attention with
    values, queries with keys, the halves of a gate): evenly between the factors; of a norm's input with its 1/std: see
    `_normed`. Softmax: the Rescale rule for exp, whose secants also say what the sum below does: see `probs`.
    """

    inverse_std: Tensor
    """Of the norm at hand, with its gradient, from `scale` to the `bias` that ends the norm; `scale` returns values."""

    def probs(self, at: str, scores: Thunk) -> Tensor:
        """With m the logarithmic means of alpha and alpha0, alpha - alpha0 = m (s - s0 - c), c that of log sum exp; and
        as both sum to 1, c = sum m (s - s0) / sum m. It is softmax's own Jacobian with other weights."""
        s = scores()
        log_alpha = s.detach().log_softmax(-1)
        m, way = logarithmic_mean(log_alpha), change(s)
        return carried(log_alpha.exp(), m * (way - (m * way).sum(-1, keepdim=True) / m.sum(-1, keepdim=True)))

    def mix(self, at: str, alpha: Tensor, v: Tensor, rows: Rows) -> Tensor:
        return evened(join_heads(alpha[..., rows, :] @ v))

    def gate(self, at: str, act: Activation, u: Tensor) -> Tensor:
        seen = u.detach()
        y = act.f(seen)
        return carried(y, secant(y, seen, act.tangent) * change(u))

    def product(self, at: str, g: Tensor, s: Tensor) -> Tensor:
        return evened(g * s)

    def scale(self, at: str, x: Tensor, eps: float) -> Tensor:
        v = x.var(-1, unbiased=False, keepdim=True) + eps
        y = v.detach().rsqrt()
        y1, y0 = y.chunk(2)
        self.inverse_std = carried(y, -((y1 * y0) ** 2) / (y1 + y0) * change(v))
        return y

    def bias(self, at: str, y: Tensor, b: Tensor | None) -> Tensor:
        if at.endswith(".bias"):
            y = self._normed(y, self.inverse_std)
        return super().bias(at, y, b)

    @staticmethod
    def _normed(y: Tensor, s: Tensor) -> Tensor:
        """y = a s of a norm: a s - a0 s0 = (a - a0) s + a0 (s - s0).

        Not evenly: where the baseline has vanished, s0 = 1/sqrt(eps) and a s0 is as large as it means nothing.
        """
        (y1, y0), (s1, s0) = y.chunk(2), s.chunk(2)
        return carried(y, y1 - y1.detach() + (y0 / s0).detach() * (s1 - s1.detach()))


def multipliers(
    net: Net,
    x: Float[Tensor, "b n d"],
    base: Float[Tensor, "b n d"],
    keep: Bool[Tensor, "b n"],
    weights_of: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, "b n d t"], Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """Multipliers of the logits' columns, whose sum times x - base is their difference; logits at x and at base.

    weights_of: logits [b, c] -> [b, c, t]. Cost: two forward passes, and two backward ones per column.
    """
    pair = torch.cat([x, base]).detach().requires_grad_()
    with torch.enable_grad():
        logits, start = encode(Multipliers(), net, pair, keep.repeat(2, 1)).chunk(2)
        columns = torch.einsum("bc,bct->bt", logits, weights_of(logits.detach())).sum(0).unbind()
    last = len(columns) - 1
    grads = [torch.autograd.grad(c, pair, retain_graph=t < last)[0] for t, c in enumerate(columns)]
    at_x, at_base = torch.stack(grads, -1).chunk(2)
    return at_x + at_base, logits.detach(), start.detach()


@dataclass(frozen=True)
class DeepLift(Method):
    """DeepLIFT: the logit's difference from a baseline, by the multipliers of every operation (the Rescale rule).

    baseline: as in IntegratedGradients, at the first block's input.

    `unallocated` is the logit at the baseline. Complete. Unit: logit. Signed.
    Cost: two forward passes, and two backward ones per target.
    Source: Shrikumar, Greenside & Kundaje 2017, arXiv 1704.02685.
    Differs from it, and from Captum's: attention, norms and gates multiply factors that all depend on the input. There
    is no rule for that there, and with plain gradients the sum is lost. Here it holds at each of them; see
    `Multipliers`. On networks of linear layers and activations all three agree.
    """

    baseline: Baseline = "zero"

    source: ClassVar[str] = "Shrikumar, Greenside & Kundaje 2017, arXiv 1704.02685"
    needs: ClassVar[Access] = Access.ENCODER
    caution: ClassVar[str] = (
        "All numbers are relative to the baseline. The rules for products, norms and softmax are one choice among "
        "several, and as they always add up no gap warns you: of a planted negation that flips the sum it is "
        "complete and wrong."
    )

    def __post_init__(self) -> None:
        one_of("DeepLift", baseline=(self.baseline, BASELINES))

    @property
    def name(self) -> str:
        return "deeplift" + ("" if self.baseline == "zero" else f"_{self.baseline}")

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(complete=True, additive=True)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        x = model.embed(batch)
        base = baseline_states(model, batch, x, "block_input", self.baseline, self.name)
        m, logits, start = multipliers(model.require_net(), x, base, batch.keep, target.weights)
        w = target.weights(logits)
        scores = torch.einsum("bndt,bnd->bnt", m, x - base) * batch.keep[..., None]
        explained, left = torch.einsum("bc,bct->bt", logits, w), torch.einsum("bc,bct->bt", start, w)
        return Scores(scores, left, explained, logits, 2.0, 2.0 * w.shape[-1])


register(DeepLift())
register(DeepLift(baseline="mask"))
