"""Attention read as if it were an explanation: raw, and rolled out over the layers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.encoder.forward import allowed, encode, even, read_rows
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Recorded
from pellucid.encoder.pooled import Pooling
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
    like = torch.zeros(1, dtype=model.dtype, device=batch.keep.device)
    if model.net is not None and read_rows(model.net, batch.keep) is None:
        return even(batch.keep, like)
    return torch.eye(1, rows, dtype=model.dtype, device=batch.keep.device).expand(len(batch), rows)


def layer_of(model: Model, who: str, layer: int, head: int | None) -> int:
    """The layer counted from 0; InputError for a layer or head that the model does not have.

    The attention that a READOUT model ends with is its one layer, of one head.
    """
    heads = [1] if model.net is None else [table.heads for table in model.net.layers]
    if not -len(heads) <= layer < len(heads):
        raise InputError(f"{who} has no layer={layer}; {model.id!r} has layers 0 to {len(heads) - 1}.")
    if head is not None and not 0 <= head < heads[layer]:
        raise InputError(f"{who} has no head={head}; layer {layer} has heads 0 to {heads[layer] - 1}.")
    return layer % len(heads)


@dataclass(frozen=True, eq=False)
class Mixed:
    """One layer's attention alpha [b, h, r, m] over values v [b, g, m, e], for the r rows that the network computes.

    keep [b, m]: real keys; allowed: the layer's mask if it has a window. pooling: of a READOUT model, whose keys are
    the states it pools.
    """

    logits: Tensor
    alpha: Tensor
    v: Tensor
    keep: Tensor
    allowed: Tensor | None = None
    pooling: Pooling | None = None


def mixed(model: Model, batch: Batch, layer: int) -> Mixed:
    """What one layer mixes, and with which weights: one forward pass."""
    if model.net is None:
        p = model.pooling(batch)
        return Mixed(p.logits, p.alpha[:, None, None], p.states[:, None], p.keep, None, p)
    ops, net, table = Recorded(values=True), model.net, model.net.layers[layer]
    with torch.no_grad():
        logits = encode(ops, net, model.embed(batch), batch.keep)
    rows = read_rows(net, batch.keep) if layer == len(net.layers) - 1 else None
    mask = None if table.window is None else allowed(table, batch.keep, rows)
    return Mixed(logits, ops.tape[f"{layer}.attn.probs"], ops.seen[f"{layer}.attn.mix"], batch.keep, mask)


def row_scores(model: Model, batch: Batch, seen: Mixed, alpha: Tensor, head: int | None, target: Target) -> Scores:
    """The row that the head reads of alpha [b, h, r, m], as scores that no target changes.

    A sentence's weight goes to its words by their own attention in it.
    """
    one = alpha.mean(1) if head is None else alpha[:, head]
    row = torch.einsum("br,brn->bn", reading(model, batch, one.shape[1]), one) * seen.keep
    if seen.pooling is not None:
        row = seen.pooling.on_tokens(row[..., None], seen.pooling.shares)[..., 0]
    return _scores(row, seen.logits, target)


def _scores(scores: Tensor, logits: Tensor, target: Target) -> Scores:
    w = target.weights(logits)
    explained = torch.einsum("bc,bct->bt", logits, w)
    return Scores(target_free(scores, w), torch.zeros_like(explained), explained, logits, 1.0, 0.0)


@dataclass(frozen=True)
class Attention(Method):
    """Attention weights of the row that the head reads ([CLS], or the mean of rows under mean pooling).

    layer: block, negative from the end (default the last). head: one head, or None for the mean over heads.
    Of a model of the zoo: the attention that pools; in a hierarchical one, a sentence's weight times the word's in it.

    Unit: attention weight; unsigned, sums to 1, the same for every target. It is not a decomposition of the logit.
    Cost: one forward pass.
    Source: the usual practice that Jain & Wallace 2019 and Serrano & Smith 2019 examine.
    """

    layer: int = -1
    head: int | None = None

    source: ClassVar[str] = "practice; examined by Jain & Wallace 2019, arXiv 1902.10186"
    needs: ClassVar[Access] = Access.READOUT
    unit: ClassVar[str] = "attention weight"
    caution: ClassVar[str] = (
        "Weights tell where a head looks, not what it takes from there nor for which class; values, residuals and "
        "all other layers are left out, and on a text longer than a head is wide other weights give the same "
        "output. Ask the audits `identifiability` and `erasure` before you show a map of them."
    )

    @property
    def name(self) -> str:
        return "attention"

    def guarantees(self, model: Model | None) -> Guarantees:
        return _FREE

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "layer": layer_of(model, self.name, self.layer, self.head)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        layer = layer_of(model, self.name, self.layer, self.head)
        seen = mixed(model, batch, layer)
        return row_scores(model, batch, seen, seen.alpha, self.head, target)


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
    caution: ClassVar[str] = (
        "It assumes that every block is a fixed part residual, that heads can be averaged and that values, "
        "feed-forwards and the head change nothing. None of this is measured on your model, and no class comes into it."
    )

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
