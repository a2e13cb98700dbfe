"""Attention with what the layers let through of it, or with what the logit's gradient says of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from pellucid.encoder.forward import encode
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Overridden, Recorded
from pellucid.encoder.pooled import Pooling
from pellucid.errors import InputError
from pellucid.methods.attention import reading, recorded
from pellucid.methods.gradient import contrast_columns
from pellucid.methods.method import Guarantees, Method, Scores, register, target_free
from pellucid.types import Batch, Target

RESOLUTION = 2**30
"""Units of capacity in a weight of 1: the flow algorithm counts in whole numbers of 32 bits."""


def max_flows(layers: Sequence[np.ndarray], read: np.ndarray) -> np.ndarray:
    """For each of n input tokens, the largest flow that reaches it alone, [n].

    layers: capacities, the lowest layer first: [n, n] from a row's output to its inputs, the last [r, n]. read [r]:
    capacities from the source to the last layer's rows. Resolution: each capacity is rounded to 2^-30.
    Cost: n maximum flows over n^2 edges per layer.
    """
    n = layers[0].shape[1]
    source = len(layers) * n + len(read)
    tails, heads, sizes = [np.full(len(read), source)], [len(layers) * n + np.arange(len(read))], [read]
    for i, capacity in enumerate(layers):
        rows, columns = np.indices(capacity.shape).reshape(2, -1)
        tails.append((i + 1) * n + rows)
        heads.append(i * n + columns)
        sizes.append(capacity.ravel())
    units = np.rint(np.concatenate(sizes) * RESOLUTION).astype(np.int32)
    edges = (units[units > 0], (np.concatenate(tails)[units > 0], np.concatenate(heads)[units > 0]))
    graph = csr_array(edges, shape=(source + 1, source + 1))
    return np.array([maximum_flow(graph, source, token).flow_value for token in range(n)]) / RESOLUTION


@dataclass(frozen=True)
class Flow(Method):
    """Attention flow: how much can reach a token from what the head reads, with attention weights as capacities.

    residual: the share of the identity in each layer (0.5 in the paper). Heads are averaged. Under mean pooling the
    flow starts at all rows evenly.

    Each token's flow is the largest for it alone, so flows do not add up to 1 and tokens' flows not to a word's. In a
    trained six-layer BERT nearly all tokens of a text had the same flow, to a few percent.
    Unit: attention weight; unsigned, at most 1, the same for every target. Resolution: 2^-30 per weight.
    Cost: one forward pass and n maximum flows; with 6 layers, 0.02 s at 40 tokens, 0.4 s at 128, 13 s at 384.
    Source: Abnar & Zuidema 2020, arXiv 2005.00928.
    Differs from its code: flows are not divided by their sum.
    """

    residual: float = 0.5

    source: ClassVar[str] = "Abnar & Zuidema 2020, arXiv 2005.00928"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "attention weight"
    caution: ClassVar[str] = (
        "It measures capacity, not content: values, signs and classes play no part, and in a trained six-layer "
        "BERT nearly all tokens of a text had the same flow. An even map tells you nothing about the text."
    )

    def __post_init__(self) -> None:
        if not isinstance(self.residual, (int, float)) or not 0.0 <= self.residual <= 1.0:
            raise InputError(f"Flow needs a residual share from 0 to 1; seen residual={self.residual}.")

    @property
    def name(self) -> str:
        return "flow"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(signed=False, target_free=True)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        logits, alphas = recorded(model, batch)
        read = reading(model, batch, alphas[-1].shape[2])
        flows = torch.zeros(batch.keep.shape).to(logits)
        for i, keep in enumerate(batch.keep):
            rows = keep[: read.shape[1]]  # the first row, or every real one
            ways = [self._capacities(a[i].mean(0), keep[: a.shape[2]], keep) for a in alphas]
            flows[i, keep] = torch.as_tensor(max_flows(ways, read[i, rows].cpu().double().numpy())).to(flows)
        w = target.weights(logits)
        explained = torch.einsum("bc,bct->bt", logits, w)
        return Scores(target_free(flows, w), torch.zeros_like(explained), explained, logits, 1.0, 0.0)

    def _capacities(self, alpha: Tensor, rows: Tensor, keys: Tensor) -> np.ndarray:
        seen = alpha[rows][:, keys].cpu().double().numpy()
        return np.asarray(self.residual * np.eye(*seen.shape) + (1 - self.residual) * seen)


def by_column(y: Tensor, xs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients [*x.shape, t] of the columns of y [b, t] by each x."""
    with torch.enable_grad():
        columns = y.sum(0).unbind()
    last = len(columns) - 1
    grads = [torch.autograd.grad(c, list(xs), retain_graph=t < last) for t, c in enumerate(columns)]
    return [torch.stack(of_x, -1) for of_x in zip(*grads, strict=True)]


@dataclass(frozen=True)
class AttentionXGradient(Method):
    """The last attention times the gradient of the logit by it, over the rows that the head reads.

    Heads are averaged; under mean pooling the rows, whose gradients are shares already, are summed. Of a model of the
    zoo: the attention that pools, where the scores are the decomposition of the logit without the classifier's bias; a
    sentence's score goes to its words by their own attention in it.

    Unit: logit. Signed. Not complete: the last layer's attention alone, and its mean over heads.
    Cost: one forward pass, and a backward pass through the last layer per target.
    Source: practice; Serrano & Smith 2019, arXiv 1906.03731, order weights by it.
    """

    source: ClassVar[str] = "practice; Serrano & Smith 2019, arXiv 1906.03731"
    needs: ClassVar[Access] = Access.READOUT
    caution: ClassVar[str] = (
        "It sees the last attention alone: by then a position holds more than its own word, and what comes "
        "through the residual is left out. As a slope it misses weights whose effect is saturated."
    )

    @property
    def name(self) -> str:
        return "attention_x_gradient"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(additive=True)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        p = model.pooling(batch) if model.net is None else None
        with torch.enable_grad():
            logits, alpha = self._last(model, batch) if p is None else self._pooled(model, p)
            explained = torch.einsum("bc,bct->bt", logits, target.weights(logits.detach()))
        (gradient,) = by_column(explained, [alpha])
        scores = torch.einsum("bhrm,bhrmt->bmt", alpha.detach(), gradient) / alpha.shape[1]
        if p is not None:
            scores = p.on_tokens(scores, p.shares)
        explained, logits = explained.detach(), logits.detach()
        return Scores(scores, torch.zeros_like(explained), explained, logits, 1.0, float(explained.shape[1]))

    @staticmethod
    def _last(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and the last layer's attention [b, h, r, n], from which alone they have a gradient."""
        net = model.require_net()
        leaves: list[Tensor] = []

        def leaf(exact: Tensor) -> Tensor:
            leaves.append(exact.detach().requires_grad_())
            return leaves[0]

        ops = Overridden({f"{len(net.layers) - 1}.attn.probs": leaf})
        return encode(ops, net, model.embed(batch), batch.keep), leaves[0]

    @staticmethod
    def _pooled(model: Model, p: Pooling) -> tuple[Tensor, Tensor]:
        """The same of the attention that pools states: one head, one row."""
        assert model.pooled is not None
        alpha = p.alpha[:, None, None].detach().requires_grad_()
        context = torch.einsum("bhrs,bsd->bd", alpha, p.states)
        return F.linear(context, model.pooled.out.w, model.pooled.out.b), alpha


@dataclass(frozen=True)
class GenericAttention(Method):
    """Attention rolled out with only what raises the logit: R + mean over heads of (gradient x attention)+ times R.

    From the identity, layer by layer upwards: the rule of Chefer, Gur & Wolf 2021 for self-attention alone. Read off at
    the rows that the head reads, evenly under mean pooling. The identity stays in: a row that is read keeps its 1.

    Unit: relevance; unsigned. A contrast is the difference of its two classes. Not complete.
    Cost: one forward and one backward pass per target.
    Source: arXiv 2103.15679.
    """

    source: ClassVar[str] = "Chefer, Gur & Wolf 2021, arXiv 2103.15679"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "relevance"
    caution: ClassVar[str] = (
        "Only what raises the class is kept, so evidence against it is invisible, and the row that is read keeps "
        "its 1 whatever stands there. Values come in through gradients alone, at this text."
    )

    @property
    def name(self) -> str:
        return "generic_attention"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(signed=False, additive=True, linear_in_target=False)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        return contrast_columns(target, lambda aim: self._relevance(model, batch, aim))

    def _relevance(self, model: Model, batch: Batch, target: Target) -> Scores:
        ops, net = Recorded(), model.require_net()
        with torch.enable_grad():
            logits = encode(ops, net, model.embed(batch).detach().requires_grad_(), batch.keep)
            explained = torch.einsum("bc,bct->bt", logits, target.weights(logits.detach()))
        alphas = [ops.tape[f"{i}.attn.probs"] for i in range(len(net.layers))]
        gradients = by_column(explained, alphas)
        read = reading(model, batch, alphas[-1].shape[2])
        row = F.pad(read, (0, batch.keep.shape[1] - read.shape[1]))[..., None].expand(-1, -1, explained.shape[1])
        for alpha, gradient in zip(reversed(alphas), reversed(gradients), strict=True):
            raised = (alpha.detach()[..., None] * gradient).clamp(min=0).mean(1)
            row = row + torch.einsum("brt,brmt->bmt", row[:, : raised.shape[1]], raised)
        explained, logits = explained.detach(), logits.detach()
        scores = row * batch.keep[..., None]
        return Scores(scores, torch.zeros_like(explained), explained, logits, 1.0, float(explained.shape[1]))


register(Flow())
register(AttentionXGradient())
register(GenericAttention())
