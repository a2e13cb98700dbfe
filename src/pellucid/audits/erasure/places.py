"""Where attention is erased: the same few questions to the last row, a layer's columns, a token, or all reading rows.

A place ranks tokens by its own attention and erases exactly that: keys' weights are set to zero and, by default, the
rest is scaled to sum to one, which is the same as a score of minus infinity. Positions stay where they are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder.forward import encode, read_rows
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops, Overridden, Recorded
from pellucid.encoder.readout import Readout, erased, left_of, readout
from pellucid.errors import InputError
from pellucid.methods.method import slabs
from pellucid.types import Batch

Level = Literal["cls_last", "layer", "token", "cls_all"]
LEVELS: tuple[Level, ...] = ("cls_last", "layer", "token", "cls_all")
Goal = Callable[[Tensor], Tensor]
"""Logits [1, c] to the scalar that is differentiated."""


class Place(ABC):
    """One text at one place of a model. n counts its tokens, special ones included."""

    @property
    @abstractmethod
    def alpha(self) -> Float[Tensor, "n"]:
        """The attention that is ranked: the mean over the heads, rows and layers that the place erases."""

    @property
    @abstractmethod
    def logits(self) -> Float[Tensor, "c"]:
        """Of the model as it is."""

    @abstractmethod
    def without(self, kept: Bool[Tensor, "k n"]) -> Float[Tensor, "k c"]:
        """Logits with the keys erased where `kept` is False, for k variants of the text."""

    @abstractmethod
    def replaced(self, change: Callable[[Tensor], Tensor]) -> Float[Tensor, "c"]:
        """Logits with each row of attention [..., n] of the place replaced by change(row)."""

    @abstractmethod
    def slopes(self, goal: Goal) -> tuple[Float[Tensor, "s n"], Float[Tensor, "s n"]]:
        """Each of the place's s rows of attention, and the derivative of goal(logits) by its weights."""


@dataclass(frozen=True, eq=False)
class LastRow(Place):
    """The attention that the classifier reads: nothing but `finish` is computed again, one row per variant."""

    read: Readout
    head: int | None = None
    renormalise: bool = True

    @property
    def alpha(self) -> Tensor:
        return self.read.alpha.mean(0) if self.head is None else self.read.alpha[self.head]

    @property
    def logits(self) -> Tensor:
        return self.read.logits

    def without(self, kept: Tensor) -> Tensor:
        with torch.no_grad():
            return self.from_weights(erased(self.read.alpha, kept, self.renormalise, self.head))

    def from_weights(self, weights: Tensor) -> Tensor:
        """Logits [k, c] for attention [k, h, n], in slabs."""
        return torch.cat([self.read.from_weights(weights[some]) for some in slabs(len(weights), 1)])

    def replaced(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        weights = change(self.read.alpha)
        if self.head is not None:
            own = torch.arange(len(weights), device=weights.device) == self.head
            weights = torch.where(own[:, None], weights, self.read.alpha)
        with torch.no_grad():
            return self.from_weights(weights[None])[0]

    def slopes(self, goal: Goal) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            a = self.read.alpha.detach().requires_grad_()
            (g,) = torch.autograd.grad(goal(self.read.from_weights(a[None])), a)
        some = slice(None) if self.head is None else slice(self.head, self.head + 1)
        return self.read.alpha[some], g[some]


@dataclass(frozen=True, eq=False)
class Edges(Place):
    """Keys erased in some layers, from every query or from the row that the head reads; the network runs again from
    the first of these layers."""

    model: Model
    batch: Batch
    layers: tuple[int, ...]
    rows: Literal["all", "read"]
    head: int | None = None
    renormalise: bool = True

    @cached_property
    def _run(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits [c], the input of the first changed block [1, n, d], and attention [h, r, n] of the layers."""
        ops, net = Recorded(streams=True), self.model.require_net()
        with torch.no_grad():
            y = encode(ops, net, self.model.embed(self.batch), self.batch.keep)[0]
        alphas = [ops.tape[f"{i}.attn.probs"][0] for i in self.layers]
        return y, ops.seen[f"{self.layers[0]}.in"], alphas

    @property
    def logits(self) -> Tensor:
        return self._run[0]

    def _own(self, alpha: Tensor) -> Tensor:
        """The heads and rows of alpha [h, r, n] that this place is about, [s, n]."""
        some = alpha if self.head is None else alpha[self.head : self.head + 1]
        return (some[:, :1] if self.rows == "read" else some).flatten(0, 1)

    @property
    def alpha(self) -> Tensor:
        return torch.cat([self._own(a) for a in self._run[2]]).mean(0)

    @property
    def _is_deletion(self) -> bool:
        """Erasing a key everywhere is the token's deletion with positions kept: a mask does it."""
        return (
            self.rows == "all"
            and self.renormalise
            and self.head is None
            and len(self.layers) == len(self.model.require_net().layers)
        )

    def without(self, kept: Tensor) -> Tensor:
        net, x, n = self.model.require_net(), self._run[1], kept.shape[1]
        out = []
        with torch.no_grad():
            for some in slabs(len(kept), n):
                part = kept[some]
                states = x.expand(len(part), -1, -1)
                if self._is_deletion:
                    out.append(encode(Ops(), net, states, part, self.layers[0]))
                else:
                    ops = Overridden({f"{i}.attn.probs": self._eraser(part) for i in self.layers})
                    out.append(encode(ops, net, states, self.batch.keep.expand(len(part), -1), self.layers[0]))
        return torch.cat(out)

    def _eraser(self, kept: Tensor) -> Callable[[Tensor], Tensor]:
        def change(alpha: Tensor) -> Tensor:
            return self._where(alpha, left_of(alpha * kept[:, None, None], self.renormalise))

        return change

    def _where(self, alpha: Tensor, other: Tensor) -> Tensor:
        """`other` in this place's heads and rows, alpha [k, h, r, n] elsewhere."""
        mine = torch.ones(alpha.shape[1:3], dtype=torch.bool, device=alpha.device)
        if self.head is not None:
            mine &= (torch.arange(alpha.shape[1], device=alpha.device) == self.head)[:, None]
        if self.rows == "read":
            mine &= torch.arange(alpha.shape[2], device=alpha.device) == 0
        return torch.where(mine[..., None], other, alpha)

    def replaced(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        net, (_, x, _) = self.model.require_net(), self._run
        ops = Overridden({f"{i}.attn.probs": lambda a: self._where(a, change(a)) for i in self.layers})
        with torch.no_grad():
            return encode(ops, net, x, self.batch.keep, self.layers[0])[0]

    def slopes(self, goal: Goal) -> tuple[Tensor, Tensor]:
        net, (_, x, alphas) = self.model.require_net(), self._run
        with torch.enable_grad():  # zeros added to attention: the whole derivative, later layers' attention included
            sites = [f"{i}.attn.probs" for i in self.layers]
            zeros = {at: torch.zeros_like(a)[None].requires_grad_() for at, a in zip(sites, alphas, strict=True)}
            added = {at: _plus(z) for at, z in zeros.items()}
            y = encode(Overridden(added), net, x, self.batch.keep, self.layers[0])
            grads = torch.autograd.grad(goal(y), list(zeros.values()))
        return torch.cat([self._own(a) for a in alphas]), torch.cat([self._own(g[0]) for g in grads])


def _plus(zero: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda alpha: alpha + zero


def place(
    model: Model,
    batch: Batch,
    level: Level,
    layer: int | None = None,
    head: int | None = None,
    renormalise: bool = True,
) -> Place:
    """One text at a place: "cls_last", the last layer from the row that the head reads; "layer", a key in one layer
    from every query; "token", a key in all layers from every query, which is deletion with positions kept; "cls_all",
    the row that the head reads in all layers.

    Under mean pooling "cls_last" is "layer" at the last layer, as all rows are read.
    Raises: InputError for a layer or head that is not there, a layer where the level has none, or several texts.
    """
    if len(batch) != 1:
        raise InputError(f"A place is of one text; this batch has {len(batch)} rows: pass batch.rows([i]).")
    if model.net is None:
        if level != "cls_last":
            model.require(Access.ENCODER, f"Erasing at level={level!r}")
        if layer is not None or head not in (None, 0):
            raise InputError(
                f"{model.id!r} pools its states by one head, in no layer; seen layer={layer}, head={head}."
            )
        return LastRow(readout(model, batch), None, renormalise)
    net = model.require_net()
    count = len(net.layers)
    if (layer is not None) != (level == "layer"):
        raise InputError(f"level={level!r} {'needs' if level == 'layer' else 'takes no'} layer; seen layer={layer}.")
    if layer is not None and not -count <= layer < count:
        raise InputError(f"There is no layer={layer}; {model.id!r} has layers 0 to {count - 1}.")
    if head is not None and not 0 <= head < net.layers[-1].heads:
        raise InputError(f"There is no head={head}; {model.id!r} has heads 0 to {net.layers[-1].heads - 1}.")
    pooled = read_rows(net, batch.keep) is None
    if level == "cls_last" and not pooled:
        return LastRow(readout(model, batch), head, renormalise)
    layers: Sequence[int] = range(count)
    if level in ("cls_last", "layer"):
        layers = [count - 1 if layer is None else layer % count]
    return Edges(model, batch, tuple(layers), "read" if level == "cls_all" and not pooled else "all", head, renormalise)
