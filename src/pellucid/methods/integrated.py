"""Integrated DecompX: what a text has that a masked one lacks, through networks frozen on the way between them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder.forward import Net, encode
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops
from pellucid.methods.decompx import Linearised
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register
from pellucid.methods.sampling import BASELINES, Baseline, baseline_states
from pellucid.methods.surrogate import whole
from pellucid.types import Batch, Target


def frozen_parts(
    net: Net,
    x: Float[Tensor, "b n d"],
    base: Float[Tensor, "b n d"],
    keep: Bool[Tensor, "b n"],
    weights: Float[Tensor, "b c t"],
    points: int = 1,
) -> Float[Tensor, "b n t"]:
    """Parts of x - base: its inner product with the gradient of the network frozen at points of the path, averaged.

    The points are the middles of `points` equal pieces of the straight path from base to x. Frozen are attention
    probabilities, 1/std of norms and f(u)/u of activations, as in DecompX.

    Unit: logit. Cost: `points` forward passes, and as many backward ones per column t; memory of one.
    """
    way = x - base
    total = way.new_zeros(*way.shape[:2], weights.shape[-1])
    for i in range(points):
        at = (base + (i + 0.5) / points * way).detach().requires_grad_()
        with torch.enable_grad():
            ops = Linearised(net, "zero_origin", ffn=True, homogeneous=False, constant=False)
            columns = torch.einsum("bc,bct->t", encode(ops, net, at, keep), weights).unbind()
        for t, column in enumerate(columns):
            (g,) = torch.autograd.grad(column, at, retain_graph=t + 1 < len(columns))
            total[..., t] += (g * way).sum(-1) / points
    return total * keep[..., None]


@dataclass(frozen=True)
class IntegratedDecompX(Method):
    """DecompX of the text's difference from a baseline, averaged over networks frozen on the path between the two.

    baseline: as in IntegratedGradients, at the first block's input. points: where on the path the network is frozen, at
    the middles of so many equal pieces; one point is one DecompX, half-way.

    Write the network as F(z, a) of its input z and of its coefficients a(z): attention, 1/std of norms, f(u)/u of
    activations. F is affine in z, and f(z) = F(z, a(z)). On the path z from the baseline to x,
        f(x) - f(baseline) = integral of dF/dz dz + integral of dF/da da.
    The first is what this divides among the tokens, exactly linear in x - baseline at each point. The second, what the
    change of the coefficients does, belongs to no single token: it is the gap, together with the error of the middles.
    Integrated gradients divide both. On a 6-layer BERT for SST-2 leaving out the second ranks better, and better than
    DecompX, which freezes at x and asks what a token adds to nothing, where half-way the question is what a token adds
    to a masked text; on HateXplain and on a ModernBERT it gains next to nothing (docs/studies/comparison.md). The gap
    is large, .6 to 1 of the logit's change: the scores rank, they do not add up.

    `unallocated` is the logit at the baseline. Unit: logit. Signed. Not complete.
    Cost: `points` forward passes and, per target, backward ones; and two forward passes for both ends.
    Source: Pellucid, from arXiv 2306.02873 (DecompX) and arXiv 1703.01365 (integrated gradients).
    """

    baseline: Baseline = "mask"
    points: int = 3

    source: ClassVar[str] = "Pellucid; from arXiv 2306.02873 (DecompX) and 1703.01365 (integrated gradients)"
    needs: ClassVar[Access] = Access.ENCODER
    caution: ClassVar[str] = (
        "The scores rank and do not add up: the gap was .6 to 1 of the logit's change on 50 sentences. It is "
        "built on [MASK], which flatters it where a metric masks, and on HateXplain and a ModernBERT it gained "
        "next to nothing over `decompx`."
    )

    def __post_init__(self) -> None:
        one_of("IntegratedDecompX", baseline=(self.baseline, BASELINES))
        whole("IntegratedDecompX", "points", self.points, 1)

    @property
    def name(self) -> str:
        return "integrated_decompx" + ("" if self.baseline == "mask" else f"_{self.baseline}")

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(additive=True)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        net, x = model.require_net(), model.embed(batch)
        base = baseline_states(model, batch, x, "block_input", self.baseline, self.name)
        with torch.no_grad():
            logits, start = model.logits(batch), encode(Ops(), net, base, batch.keep)
        w = target.weights(logits)
        scores = frozen_parts(net, x, base, batch.keep, w, self.points)
        explained, left = torch.einsum("bc,bct->bt", logits, w), torch.einsum("bc,bct->bt", start, w)
        passes = float(self.points)
        return Scores(scores, left, explained, logits, passes + 2, passes * w.shape[-1])


register(IntegratedDecompX())
