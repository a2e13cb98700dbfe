"""Hidden token attribution: how strongly a hidden token, or what the head reads, answers to each input token.

The measure is the Frobenius norm of a Jacobian, the root of the sum over all directions of the output. It is computed
exactly, with one backward pass per direction, or by Hutchinson's estimate, which needs few random directions:
E ||J^T g||^2 = ||J||_F^2 for Gaussian g. Public code often differentiates the sum of the hidden vector instead; the sum
of a LayerNorm's output hardly moves, so that is another, much smaller quantity.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.encoder.forward import Net, encode, even, read_rows
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops
from pellucid.errors import InputError
from pellucid.methods.method import Guarantees, Method, Scores, register, target_free
from pellucid.types import Batch, Target

_AT_ONCE = 2**22  # numbers in the largest intermediate of one batch of backward passes


class Kept(Ops):
    """The exact network, keeping what passes the window at the sites asked for: `seen` by site."""

    def __init__(self, sites: Sequence[str]) -> None:
        self.sites = frozenset(sites)
        self.seen: dict[str, Tensor] = {}

    def stream(self, at: str, x: Tensor) -> Tensor:
        if at in self.sites:
            self.seen[at] = x
        return x


@dataclass(frozen=True, eq=False)
class JacobianNorms:
    """||d h_j / d x_i||_F for hidden tokens j and input tokens i of one text.

    norms [l, r, n]: of the layers in `layers` (counted from 0) and the hidden tokens in `rows`. error [l, r, n]: the
    standard error of each norm, 0 where it is exact.
    """

    norms: Float[Tensor, "l r n"]
    error: Float[Tensor, "l r n"]
    layers: tuple[int, ...]
    rows: tuple[int, ...]


def jacobian_norms(
    model: Model,
    batch: Batch,
    layers: Sequence[int] | None = None,
    probes: int | None = 16,
    seed: int = 0,
    chunk: int | None = None,
    rows: Sequence[int] | None = None,
) -> JacobianNorms:
    """How strongly each hidden token of one text answers to each input token.

    The hidden token is the block's output ("<l>.out": behind the norm in post-norm models), the input token the first
    block's input. layers, rows: which, counted from 0 (default all). probes: random directions per hidden token, drawn
    from `seed`; None takes all d directions, which is exact. chunk: backward passes run together; default by memory.

    Unit: output per input, no normalisation. The estimate is unbiased in the square; `error` is the delta method's
    standard error of its root, from the spread of the probes. A row's probes are the same for all input tokens, so
    that errors partly cancel in shares of a row.
    Cost: one forward pass, and per layer r * probes (or r * d) backward passes down to the input.
    Raises: InputError unless the batch is one text without padding; AccessError below ENCODER.
    Source: Brunner et al. 2020, arXiv 1908.04211; Hutchinson 1990.
    """
    check_probes("jacobian_norms", probes)
    if len(batch) != 1 or not bool(batch.keep.all()):
        raise InputError(
            f"jacobian_norms takes one text without padding; this batch has {len(batch)} rows and "
            f"{int((~batch.keep).sum())} padded places: pass batch.rows([i]) for one i at a time."
        )
    net, n = model.require_net(), batch.input_ids.shape[1]
    wanted = _indices("layer", layers, len(net.layers))
    hidden = _indices("row", rows, n)
    x = model.embed(batch).detach().requires_grad_()
    ops = Kept([f"{i}.out" for i in wanted])
    with torch.enable_grad():
        encode(ops, net, x, batch.keep, full=True)
    g = directions(x, len(hidden), probes, seed)
    step = chunk or at_once(net, x)
    found = [_rows_norms(ops.seen[f"{i}.out"], x, hidden, g, probes is None, step) for i in wanted]
    norms, error = (torch.stack(part) for part in zip(*found, strict=True))
    return JacobianNorms(norms, error, wanted, hidden)


def check_probes(who: str, probes: object) -> None:
    """InputError unless `probes` is None or a whole number of at least 2 (one probe has no spread)."""
    if probes is not None and (isinstance(probes, bool) or not isinstance(probes, int) or probes < 2):
        raise InputError(f"{who} needs probes=None (exact) or a whole number from 2 on; seen probes={probes!r}.")


def _indices(what: str, asked: Sequence[int] | None, count: int) -> tuple[int, ...]:
    found = tuple(range(count)) if asked is None else tuple(asked)
    bad = [i for i in found if not 0 <= i < count]
    if bad or not found:
        raise InputError(f"jacobian_norms: there is no {what} {bad or found}; choose from 0 to {count - 1}.")
    return found


def directions(x: Tensor, count: int, probes: int | None, seed: int) -> Float[Tensor, "r k d"]:
    """For each of `count` hidden tokens k Gaussian directions, or all d unit vectors; the width and dtype are x's.

    Drawn on the CPU in float64, so that each device and dtype has the same.
    """
    d = x.shape[-1]
    if probes is None:
        return torch.eye(d, dtype=x.dtype, device=x.device).expand(count, d, d)
    made = torch.Generator().manual_seed(seed)
    return torch.randn(count, probes, d, generator=made, dtype=torch.float64).to(x)


def at_once(net: Net, x: Tensor) -> int:
    """How many backward passes to run together: by the largest intermediate of a block."""
    b, n, _ = x.shape
    layer = net.layers[0]
    return max(1, _AT_ONCE // (b * n * max(layer.up.w.shape[0], layer.heads * n)))


def pulled(y: Tensor, x: Tensor, cotangents: Iterator[Tensor]) -> Iterator[Tensor]:
    """||J^T g||^2 per input token, [k, b, n], for each chunk g [k, *y.shape] of directions; J = d y / d x [b, n, d]."""
    for g in cotangents:
        (back,) = torch.autograd.grad(y, x, g, retain_graph=True, is_grads_batched=True)
        yield back.square().sum(-1)


def _rows_norms(
    y: Tensor, x: Tensor, rows: tuple[int, ...], g: Tensor, exact: bool, chunk: int
) -> tuple[Tensor, Tensor]:
    """Norms and their standard errors [r, n] of hidden tokens `rows` of y [1, n, d], for directions g [r, k, d]."""
    count, k = g.shape[:2]
    at = torch.tensor(rows, device=y.device)

    def cotangents() -> Iterator[Tensor]:
        for some in torch.split(torch.arange(count * k, device=y.device), chunk):
            part = y.new_zeros(len(some), *y.shape)
            part[torch.arange(len(some), device=y.device), 0, at[some // k]] = g[some // k, some % k]
            yield part

    squares = torch.cat([s[:, 0] for s in pulled(y, x, cotangents())]).view(count, k, -1)
    if exact:
        norms = squares.sum(1).sqrt()
        return norms, torch.zeros_like(norms)
    norms = squares.mean(1).sqrt()
    spread = squares.std(1) / k**0.5
    # d sqrt(s) = d s / (2 sqrt(s)); a token without influence has neither
    return norms, spread / (2 * norms).clamp(min=torch.finfo(norms.dtype).tiny)


@dataclass(frozen=True)
class HTA(Method):
    """Hidden token attribution: how strongly what the head reads answers to each input token, as shares.

    The Frobenius norm of the derivative of what the head reads ([CLS] of the last block, or the mean of rows, behind a
    final norm where there is one) by the token's vector at the first block's input, over the sum of these norms.
    probes: random directions, the same for every text; None takes all d, which is exact.

    Unit: share of sensitivity; unsigned, sums to 1, the same for every target. Norms of tokens do not add up to the
    norm of a word. It is a sensitivity, not a decomposition of the logit. Estimated shares are off by a few percent of
    themselves at 16 probes.
    Cost: one forward pass and `probes` backward passes.
    Source: Brunner et al. 2020, arXiv 1908.04211; differs from it in the estimate, and in what is differentiated: what
    the head reads instead of one hidden token.
    """

    probes: int | None = 16
    seed: int = 0

    source: ClassVar[str] = "Brunner et al. 2020, arXiv 1908.04211"
    needs: ClassVar[Access] = Access.ENCODER
    unit: ClassVar[str] = "share of sensitivity"
    caution: ClassVar[str] = (
        "The sensitivity of the vector that the head reads, for no class: a token may move it in directions that "
        "the head ignores. Shares are estimated from random directions, so small differences are noise."
    )

    def __post_init__(self) -> None:
        check_probes("HTA", self.probes)

    @property
    def name(self) -> str:
        return "hta"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(signed=False, target_free=True)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        x = model.embed(batch).detach().requires_grad_()
        net, ops = model.require_net(), Kept(["head.in"])
        with torch.enable_grad():
            logits = encode(ops, net, x, batch.keep)
            y = ops.seen["head.in"]
            read = y[:, 0] if read_rows(net, batch.keep) is not None else (y * even(batch.keep, y)[..., None]).sum(1)
        logits = logits.detach()
        g = directions(x, 1, self.probes, self.seed)[0]
        # texts do not meet in the network, so that one direction serves all of them in the same backward pass
        parts = (part[:, None].expand(-1, *read.shape) for part in torch.split(g, at_once(net, x)))
        norms = torch.cat(list(pulled(read, x, parts))).sum(0).sqrt() * batch.keep
        shares = norms / norms.sum(-1, keepdim=True).clamp(min=torch.finfo(norms.dtype).tiny)
        w = target.weights(logits)
        explained = torch.einsum("bc,bct->bt", logits, w)
        return Scores(target_free(shares, w), torch.zeros_like(explained), explained, logits, 1.0, float(len(g)))


register(HTA())
