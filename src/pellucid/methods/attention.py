"""Attention read as if it were an explanation: raw, and rolled out over the layers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.encoder.forward import encode, even, read_rows
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Recorded
from pellucid.errors import InputError
from pellucid.methods.method import Guarantees, Method, Scores, register, target_free
from pellucid.types import Batch, Target

_FREE = Guarantees(signed=False, additive=True, linear_in_target=True, target_free=True)


def recorded(model: Model, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Logits [b, c] and each layer's attention [b, h, n, n]; the last layer's only for the rows the head reads."""
    ops, net = Recorded(), model.require_net()
    with torch.no_grad():
        logits = encode(ops, net, model.embed(batch), batch.keep)
    return logits, [ops.tape[f"{i}.attn.probs"] for i in range(len(net.layers))]


def reading(model: Model, batch: Batch, rows: int) -> Tensor:
    """How the head weighs `rows` rows, [b, rows]: one on the first, or evenly on the real ones."""
    net = model.require_net()
    like = torch.zeros(1, dtype=model.dtype, device=batch.keep.device)
    if read_rows(net, batch.keep) is None:
        return even(batch.keep, like)
    return torch.eye(1, rows, dtype=model.dtype, device=batch.keep.device).expand(len(batch), rows)


def layer_of(model: Model, who: str, layer: int, head: int | None) -> int:
    """The layer counted from 0; InputError for a layer or head that the model does not have."""
    layers = model.require_net().layers
    if not -len(layers) <= layer < len(layers):
        raise InputError(f"{who} has no layer={layer}; {model.id!r} has layers 0 to {len(layers) - 1}.")
    heads = layers[layer].heads
    if head is not None and not 0 <= head < heads:
        raise InputError(f"{who} has no head={head}; layer {layer} has heads 0 to {heads - 1}.")
    return layer % len(layers)


def row_scores(model: Model, batch: Batch, alpha: Tensor, head: int | None, logits: Tensor, target: Target) -> Scores:
    """The row that the head reads of alpha [b, h, r, n], as scores that no target changes."""
    one = alpha.mean(1) if head is None else alpha[:, head]
    row = torch.einsum("br,brn->bn", reading(model, batch, one.shape[1]), one)
    return _scores(row * batch.keep, logits, target)


def _scores(scores: Tensor, logits: Tensor, target: Target) -> Scores:
    w = target.weights(logits)
    explained = torch.einsum("bc,bct->bt", logits, w)
    return Scores(target_free(scores, w), torch.zeros_like(explained), explained, logits, 1.0, 0.0)


@dataclass(frozen=True)
class Attention(Method):
    """Attention weights of the row that the head reads ([CLS], or the mean of rows under mean pooling).

    layer: block, negative from the end (default the last). head: one head, or None for the mean over heads.

    Unit: attention weight; unsigned, sums to 1, the same for every target. It is not a decomposition of the logit.
    Cost: one forward pass.
    Source: the usual practice that Jain & Wallace 2019 and Serrano & Smith 2019 examine.
    """

    layer: int = -1
    head: int | None = None

    source: ClassVar[str] = "practice; examined by Jain & Wallace 2019, arXiv 1902.10186"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "attention weight"

    @property
    def name(self) -> str:
        return "attention"

    def guarantees(self, model: Model | None) -> Guarantees:
        return _FREE

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "layer": layer_of(model, self.name, self.layer, self.head)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        layer = layer_of(model, self.name, self.layer, self.head)
        logits, alphas = recorded(model, batch)
        return row_scores(model, batch, alphas[layer], self.head, logits, target)


@dataclass(frozen=True)
class Rollout(Method):
    """Attention multiplied through the layers, half of each step staying in place (Abnar & Zuidema, ACL 2020).

    residual: the share of the identity in each layer (0.5 in the paper).

    Unit: attention weight; unsigned, sums to 1, the same for every target. Cost: one forward pass.
    Source: arXiv 2005.00928.
    """

    residual: float = 0.5

    source: ClassVar[str] = "Abnar & Zuidema 2020, arXiv 2005.00928"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "attention weight"

    def __post_init__(self) -> None:
        if not isinstance(self.residual, (int, float)) or not 0.0 <= self.residual <= 1.0:
            raise InputError(f"Rollout needs a residual share from 0 to 1; seen residual={self.residual}.")

    @property
    def name(self) -> str:
        return "rollout"

    def guarantees(self, model: Model | None) -> Guarantees:
        return _FREE

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        logits, alphas = recorded(model, batch)
        last = alphas[-1].mean(1)
        read = reading(model, batch, last.shape[1])
        row = self.residual * _padded(read, batch) + (1 - self.residual) * torch.einsum("br,brn->bn", read, last)
        for alpha in reversed(alphas[:-1]):
            row = self.residual * row + (1 - self.residual) * torch.einsum("bn,bnm->bm", row, alpha.mean(1))
        return _scores(row * batch.keep, logits, target)


def _padded(read: Tensor, batch: Batch) -> Tensor:
    """Row weights [b, r] as weights over all n positions; the rows read are the first r."""
    return torch.nn.functional.pad(read, (0, batch.keep.shape[1] - read.shape[1]))


register(Attention())
register(Rollout())
