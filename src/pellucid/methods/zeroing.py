"""Value zeroing: how far a block's output turns when one token's value is taken out of the block's attention."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pellucid.encoder.forward import Layer, Net, encode, settle
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops, Recorded, join_heads
from pellucid.methods.attention import layer_of
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register, slabs
from pellucid.methods.norms import UNSIGNED, passes, rolled_out, shares
from pellucid.types import Batch, Target


def cosine_distance(a: Float[Tensor, "k r d"], b: Float[Tensor, "1 r d"]) -> Float[Tensor, "k r"]:
    """1 - cos, as half the squared distance of the unit vectors: never below 0, and exact where they nearly agree."""
    return (F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).square().sum(-1) / 2


def zeroing_map(layer: Layer, alpha: Tensor, v: Tensor, x: Tensor) -> Float[Tensor, "r n"]:
    """Cosine distances of r rows of a block's output from themselves without the value of each of n tokens.

    alpha [1, h, r, n] attention, v [1, h, n, e] values, x [1, r, d] the block's input at those rows. Only what follows
    the mixing of values runs anew. Cost: n times that, in slabs of copies.
    """
    exact = Ops()
    mixed = join_heads(alpha @ v)
    whole = settle(exact, "", layer, mixed, x)
    found = []
    for some in slabs(alpha.shape[3], alpha.shape[2]):
        # what a token adds to the mixed values is alpha_ij v_j, head by head; without it is with a value of zero
        added = alpha[..., some].permute(3, 0, 1, 2)[..., None] * v[:, :, some].permute(2, 0, 1, 3)[..., None, :]
        left = settle(exact, "", layer, (mixed - join_heads(added)).flatten(0, 1), x.expand(len(added), -1, -1))
        found.append(cosine_distance(left, whole))
    return torch.cat(found).T


@dataclass(frozen=True)
class ValueZeroing(Method):
    """How far the output of a block turns when one token's value is zero in its attention, as shares of a row.

    c_ij is the cosine distance of row i of the block's output from what it is where the value vector of token j, its
    bias included, is zero in all heads; rows are scaled to sum to 1. rollout: multiply the shares of all blocks up to
    `layer` (the residual is part of the block, so no identity is added); False: of block `layer` alone. layer: negative
    from the end, default the last. Read at the row that the head reads, or as the mean over rows.

    Unit: share of change; unsigned, sums to 1, the same for every target. It is no decomposition of the logit. A row
    that no value changes has shares of 0.
    Cost: one forward pass, and for each token the blocks without their queries, keys and values: about n passes, or
    n / L for a single block.
    Source: arXiv 2301.12971. Pre-norm blocks are ours: the output is that of the block, before any further norm.
    """

    rollout: bool = True
    layer: int = -1

    source: ClassVar[str] = "Mohebbi et al. 2023, arXiv 2301.12971"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "share of change"
    caution: ClassVar[str] = (
        "It tells how far a state turns, without sign and for no class. On the demo model it failed a sanity "
        "check: with the embeddings kept and all else random its scores still agreed with the trained model's "
        "(.28 on 30 texts)."
    )

    def __post_init__(self) -> None:
        one_of("ValueZeroing", rollout=(self.rollout, (True, False)))

    @property
    def name(self) -> str:
        return "value_zeroing"

    def guarantees(self, model: Model | None) -> Guarantees:
        return UNSIGNED

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "layer": layer_of(model, self.name, self.layer, None)}

    @torch.no_grad()
    def maps(self, net: Net, x: Tensor, keep: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [1, c] of one text x [1, n, d] and the shares [r, n] of each block asked for."""
        exact = Recorded(streams=True, values=True)
        logits = encode(exact, net, x, keep)
        last = self.layer % len(net.layers)
        found = []
        for i in range(0 if self.rollout else last, last + 1):
            alpha, v = exact.tape[f"{i}.attn.probs"], exact.seen[f"{i}.attn.mix"]
            if i == last and net.head.pool == "first":
                alpha = alpha[:, :, :1]
            rows = exact.seen[f"{i}.in"][:, : alpha.shape[2]]
            found.append(shares(zeroing_map(net.layers[i], alpha, v, rows)))
        return logits, found

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        layer_of(model, self.name, self.layer, None)
        net = model.require_net()
        return rolled_out(model, batch, target, self.maps, lambda m: 1.0 + passes(m, net))


register(ValueZeroing())
