"""How much of what one token sends reaches another: in one layer, and rolled out over blocks decomposed one by one.

In a block, token k sends row i the vector sum_h alpha^h_ik W_O^h v^h_k, and its own row its state besides, over the
residual. The frozen coefficients of the block carry these parts on. The map [r, n] of a block tells how much each of
its n inputs counts in each of the r rows that it computes; the product of all maps leads from the rows that the head
reads to the first block's input. Maps look at blocks only: a final norm and the head are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.encoder.forward import Layer, Net, encode, feed_forward, norm
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops, Recorded, Rows
from pellucid.methods.attention import layer_of, mixed, reading
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register, slabs, target_free
from pellucid.methods.vectors import Parts
from pellucid.types import Batch, Target

UNSIGNED = Guarantees(signed=False, target_free=True)
"""Of sizes: they do not depend on the target, and the size of a sum is not the sum of sizes."""

Maps = Callable[[Net, Tensor, Tensor], tuple[Tensor, list[Tensor]]]
"""(net, x [1, n, d], keep [1, n]) -> logits [1, c] and the maps [r, n] to multiply, from the first block's on."""

Size = Callable[[Parts, Recorded, str, Layer, Tensor], Tensor]
"""(frozen coefficients, exact run, block, its layer, parts [n, 1, rows, d] behind the attention's residual) -> numbers
[n, 1, rows, 1], of the rows `ops.rows`."""


def projected(layer: Layer, v: Float[Tensor, "b h m e"]) -> Float[Tensor, "b h m d"]:
    """f(x): each head's values, their bias included, through its part of the output projection."""
    return torch.einsum("bhme,dhe->bhmd", v, layer.o.w.reshape(-1, v.shape[1], v.shape[3]))


def sent(alpha: Float[Tensor, "b h r m"], f: Float[Tensor, "b h m d"]) -> Float[Tensor, "m b r d"]:
    """What each of m tokens sends to each of r rows: alpha f(x), summed over heads."""
    return alpha.permute(3, 0, 2, 1) @ f.permute(2, 0, 1, 3)


def behind_attention(ops: Ops, at: str, layer: Layer, r: Tensor) -> Tensor:
    """r behind the attention's residual, through the norm that follows it in post-norm blocks."""
    return r if layer.pre or layer.norm1 is None else norm(ops, f"{at}.attn.norm", layer.norm1, r)


def behind_block(ops: Ops, at: str, layer: Layer, r: Tensor, ffn: bool) -> Tensor:
    """r behind the attention's residual, through the rest of the block, with its feed-forward or without."""
    r = behind_attention(ops, at, layer, r)
    if layer.pre:
        return r + feed_forward(ops, at, layer, norm(ops, f"{at}.ffn.norm", layer.norm2, r)) if ffn else r
    return norm(ops, f"{at}.ffn.norm", layer.norm2, r + feed_forward(ops, at, layer, r) if ffn else r)


@torch.no_grad()
def block_maps(net: Net, x: Tensor, keep: Tensor, size: Size) -> tuple[Tensor, list[Tensor]]:
    """Logits [1, c] of one text x [1, n, d], and the map of each block; of the last one only the rows that are read.

    Biases are no token's and stay out, but for that of the values. Cost: one forward pass, then per block h n^2 d
    products and `size`; rows are taken in chunks, so that no [n, n, d] is alive.
    """
    exact = Recorded(streams=True, values=True)
    logits = encode(exact, net, x, keep)
    ops = Parts(net, exact.tape, keep, "drop", "zero_origin", ffn=True)
    return logits, [_block_map(ops, exact, str(i), layer, size) for i, layer in enumerate(net.layers)]


def _block_map(ops: Parts, exact: Recorded, at: str, layer: Layer, size: Size) -> Tensor:
    alpha, x = exact.tape[f"{at}.attn.probs"], exact.seen[f"{at}.in"]
    f = projected(layer, exact.seen[f"{at}.attn.mix"])
    places = torch.arange(alpha.shape[2], device=x.device)  # the row that alone is read is the first

    def of(rows: Rows) -> Tensor:
        r, own = sent(alpha[..., rows, :], f), places[rows]
        r[own, 0, own - own[0]] += x[0, own]
        return size(ops, exact, at, layer, r)

    return ops.rowwise(of, len(places))[:, 0, :, 0].T


def rolled(read: Float[Tensor, "r"], maps: Sequence[Tensor]) -> Float[Tensor, "n"]:
    """The product of the maps, from the rows as the head weighs them to the first map's inputs.

    In float64: products of norms over many blocks outgrow float32.
    """
    row = read.double()
    for m in reversed(maps):
        row = row @ m.double()
    return row


def rolled_out(model: Model, batch: Batch, target: Target, maps: Maps, cost: Callable[[list[Tensor]], float]) -> Scores:
    """Scores of a batch from the maps of each text; `cost` counts forward passes from a text's maps."""
    rows, logits, spent = [], [], 0.0
    for i in range(len(batch)):
        text = batch.rows([i])
        y, found = maps(model.require_net(), model.embed(text), text.keep)
        row = rolled(reading(model, text, len(found[-1]))[0], found)
        rows.append(torch.nn.functional.pad(row, (0, batch.keep.shape[1] - len(row))))
        logits.append(y)
        spent += cost(found)
    y = torch.cat(logits)
    scores = target_free(torch.stack(rows) * batch.keep, target.weights(y))
    return Scores(scores, None, None, y, spent / len(batch), 0.0)


def passes(maps: Sequence[Tensor], net: Net) -> float:
    """Forward passes' worth of work that a block does for each row and token of its map."""
    return sum(len(m) for m in maps) / len(net.layers)


@dataclass(frozen=True)
class AttentionNorm(Method):
    """Norm of what each token sends, through one layer's attention, to the row that the head reads: ||alpha f(x)||.

    f(x) is the value through the output projection; the vectors of all heads are summed before the norm is taken.
    layer: block, negative from the end (default the last). head: one head's vectors instead of the sum. Where the head
    reads the mean of the rows: the mean of the rows' norms.

    Unit: norm; unsigned, the same for every target. It is no decomposition of the logit.
    Cost: one forward pass.
    Source: arXiv 2004.10102. The residual, which it leaves out, is what `globenc` and `alti` add.
    """

    layer: int = -1
    head: int | None = None

    source: ClassVar[str] = "Kobayashi et al. 2020, arXiv 2004.10102"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "norm"
    caution: ClassVar[str] = (
        "One layer alone, without sign and for no class: it tells how much arrives, not for what. The residual is "
        "left out, and in a late layer a position holds more than its own word."
    )

    @property
    def name(self) -> str:
        return "attention_norm"

    def guarantees(self, model: Model | None) -> Guarantees:
        return UNSIGNED

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "layer": layer_of(model, self.name, self.layer, self.head)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        at = layer_of(model, self.name, self.layer, self.head)
        net, seen = model.require_net(), mixed(model, batch, at)
        f, alpha = projected(net.layers[at], seen.v), seen.alpha
        if self.head is not None:
            f, alpha = f[:, self.head, None], alpha[:, self.head, None]
        if net.head.pool == "first":
            alpha = alpha[:, :, :1]
        n = batch.keep.numel()
        sizes = torch.cat([sent(alpha[:, :, i], f).norm(dim=-1) for i in slabs(alpha.shape[2], n)], -1)
        row = torch.einsum("br,mbr->bm", reading(model, batch, alpha.shape[2]), sizes)
        return Scores(target_free(row * batch.keep, target.weights(seen.logits)), None, None, seen.logits, 1.0, 0.0)


@dataclass(frozen=True)
class GlobEnc(Method):
    """Norms of each block's parts, attention, residuals and norms included, multiplied through the blocks.

    ffn: the feed-forward too, its activation as a line through the origin (GlobEnc+FFN of the DecompX paper).

    Unit: norm, of a product over blocks: comparable within a text only; unsigned, the same for every target. It is no
    decomposition of the logit. Where the head reads the mean of the rows: the mean of their sizes.
    Cost: one forward pass, and per block h n^2 d products and some steps over n^2 vectors: counted as one pass more,
    which holds up to 40 tokens (5 at 128, 40 at 512 on a CPU). With ffn about n passes.
    Source: arXiv 2205.03286. Equals the configurations `globenc` and `globenc_ffn` of the official DecompX code.
    Pre-norm blocks are ours: both norms stand before what they feed, the second has no part without ffn, and of a gated
    feed-forward each factor takes half.
    """

    ffn: bool = False

    source: ClassVar[str] = "Modarressi et al. 2022, arXiv 2205.03286"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "norm, rolled out"
    caution: ClassVar[str] = (
        "Norms have no sign and no class, parts that cancel in the sum still count, and to multiply them through "
        "the blocks is a heuristic. The classification head, which makes the decision, is left out."
    )

    def __post_init__(self) -> None:
        one_of("GlobEnc", ffn=(self.ffn, (True, False)))

    @property
    def name(self) -> str:
        return "globenc_ffn" if self.ffn else "globenc"

    def guarantees(self, model: Model | None) -> Guarantees:
        return UNSIGNED

    def maps(self, net: Net, x: Tensor, keep: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [1, c] of one text x [1, n, d] and the norms [r, n] of each block's parts."""

        def size(ops: Parts, _: Recorded, at: str, layer: Layer, r: Tensor) -> Tensor:
            sizes: Tensor = behind_block(ops, at, layer, r, self.ffn).norm(dim=-1, keepdim=True)
            return sizes

        return block_maps(net, x, keep, size)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        net = model.require_net()
        return rolled_out(model, batch, target, self.maps, lambda m: 1.0 + (passes(m, net) if self.ffn else 1.0))


@dataclass(frozen=True)
class ALTI(Method):
    """How near each token's part of the attention's output comes to the whole, multiplied through the blocks.

    c_ik = max(0, ||y_i||_1 - ||y_i - T_i(x_k)||_1), scaled to sum to 1 over k, where y_i is row i behind the
    attention's residual and norm, and T_i(x_k) token k's part of it. Of pre-norm blocks, which are ours, y_i is the row
    behind the residual. A row in which no part is nearer to the whole than the zero vector has contributions of 0.

    Unit: share of contribution; unsigned, sums to 1 (but for such rows), the same for every target. It is no
    decomposition of the logit. Where the head reads the mean of the rows: the mean of their shares.
    Cost: that of `globenc` without ffn.
    Source: arXiv 2203.04212.
    Differs from its code: 1/std is the model's (theirs has n - 1 for n in the variance, and eps inside the mean), and
    no 1e-6 is added to the distances.
    """

    source: ClassVar[str] = "Ferrando et al. 2022, arXiv 2203.04212"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "share of contribution"
    caution: ClassVar[str] = (
        "It tells what a state is made of, without sign and for no class, not what the decision needs. In our "
        "comparison it agreed best with what people marked and was in the lower half by faithfulness."
    )

    @property
    def name(self) -> str:
        return "alti"

    def guarantees(self, model: Model | None) -> Guarantees:
        return UNSIGNED

    def maps(self, net: Net, x: Tensor, keep: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [1, c] of one text x [1, n, d] and the contributions [r, n] in each block, whose rows sum to 1."""

        def size(ops: Parts, exact: Recorded, at: str, layer: Layer, r: Tensor) -> Tensor:
            y = exact.seen[f"{at}.attn.res" if layer.pre or layer.norm1 is None else f"{at}.attn.norm"][:, ops.rows]
            far = (y - behind_attention(ops, at, layer, r)).abs().sum(-1, keepdim=True)
            return (y.abs().sum(-1, keepdim=True) - far).clamp(min=0)

        logits, near = block_maps(net, x, keep, size)
        return logits, [shares(m) for m in near]

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        return rolled_out(model, batch, target, self.maps, lambda m: 2.0)


def shares(sizes: Float[Tensor, "r n"]) -> Float[Tensor, "r n"]:
    """Each row scaled to sum to 1; a row of zeros stays one."""
    return sizes / sizes.sum(-1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)


register(AttentionNorm())
register(GlobEnc())
register(GlobEnc(ffn=True))
register(ALTI())
