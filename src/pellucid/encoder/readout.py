"""The model from one attention on: weights, values, and what follows, as small as that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder.forward import encode, finish, read_rows, settle
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops, Recorded
from pellucid.errors import InputError
from pellucid.types import Batch, Token


@dataclass(frozen=True, eq=False)
class Readout:
    """One text, from the attention that the classifier reads on.

    alpha [h, n]: each head's weights, summing to 1. values [h, n, e]. finish: contexts [k, h * e], a head's after the
    other, to logits [k, c]: each row is an independent "what if". logits [c]: of the model itself. sources: the tokens
    behind each weight where these are not one token each (sentences of a hierarchical model), else None.
    """

    alpha: Float[Tensor, "h n"]
    values: Float[Tensor, "h n e"]
    finish: Callable[[Tensor], Tensor]
    logits: Float[Tensor, "c"]
    sources: tuple[tuple[int, ...], ...] | None = None

    def from_weights(self, weights: Float[Tensor, "k h n"]) -> Float[Tensor, "k c"]:
        """Logits for other attention weights; rows need not sum to one. Cost: no forward pass, only `finish`."""
        mixed = torch.einsum("khn,hne->khe", weights, self.values)
        return self.finish(mixed.flatten(1))

    def without(self, kept: Bool[Tensor, "k n"], renormalise: bool = True, head: int | None = None) -> Tensor:
        """Logits [k, c] with the weights where `kept` is False erased, in all heads or one, and the rest scaled to sum
        to one; a head that keeps nothing gives the zero vector, as in Serrano & Smith's code."""
        return self.from_weights(erased(self.alpha, kept, renormalise, head))


def erased(alpha: Tensor, kept: Tensor, renormalise: bool, head: int | None) -> Tensor:
    """Weights [k, h, n] from alpha [h, n] with those where kept [k, n] is False set to zero."""
    left = left_of(alpha * kept[:, None, :], renormalise)
    if head is None:
        return left
    own = torch.arange(len(alpha), device=alpha.device) == head
    return torch.where(own[:, None], left, alpha)


def left_of(left: Tensor, renormalise: bool) -> Tensor:
    """What erasing left of attention rows, scaled to sum to one again if asked for; nothing stays nothing."""
    if not renormalise:
        return left
    total = left.sum(-1, keepdim=True)
    return torch.where(total > 0, left / total.clamp(min=torch.finfo(left.dtype).tiny), left)


def readout(model: Model, batch: Batch) -> Readout:
    """The readout of one text: the last layer's attention from the row that the head reads, or the attention that pools
    states in a model of the zoo.

    Raises: AccessError below READOUT; InputError for several texts, or a head that reads the mean of all rows.
    Cost: one forward pass.
    """
    model.require(Access.READOUT, "A readout")
    if len(batch) != 1:
        raise InputError(f"A readout is of one text, but {len(batch)} texts were given.")
    if model.net is None:
        return _pooled(model, batch)
    if read_rows(model.net, batch.keep) is None:
        raise InputError(
            f"A readout is of one row that the classifier reads, but {model.id!r} reads the mean of all rows."
        )
    ops, net, last = Recorded(streams=True, values=True), model.net, len(model.net.layers) - 1
    with torch.no_grad():
        logits = encode(ops, net, model.embed(batch), batch.keep)[0]
    layer, x = net.layers[last], ops.seen[f"{last}.in"][:, :1]

    def rest(mixed: Tensor) -> Tensor:
        k = mixed.shape[0]
        y = settle(Ops(), str(last), layer, mixed[:, None], x.expand(k, 1, -1))
        return finish(Ops(), net, y, batch.keep.expand(k, -1))

    return Readout(ops.tape[f"{last}.attn.probs"][0, :, 0], ops.seen[f"{last}.attn.mix"][0], rest, logits)


def _pooled(model: Model, batch: Batch) -> Readout:
    p, pooled = model.pooling(batch), model.pooled
    assert pooled is not None
    out, real = pooled.out, p.keep[0]
    sources = None
    if p.of_sentences:
        tokens = p.sources[0].tolist()
        sources = tuple(tuple(i for i, t in enumerate(tokens) if t == s) for s in range(int(real.sum())))
    return Readout(
        p.alpha[:1, real], p.states[:1, real], lambda context: F.linear(context, out.w, out.b), p.logits[0], sources
    )


def named_sources(tokens: Sequence[Token], sources: Sequence[Sequence[int]] | None) -> list[str]:
    """What each weight of a readout stands for, for people: tokens, or the words of sentences."""
    pieces = [t.text for t in tokens]
    if sources is None:
        return pieces
    return [" ".join(pieces[i] for i in some).replace(" ##", "") for some in sources]
