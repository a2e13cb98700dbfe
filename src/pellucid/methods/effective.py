"""The part of attention that can influence the head's output, and the most even attention with the same output.

Everywhere: alpha [b, h, n, m] attention, v [b, g, m, e] values of g heads or groups of heads (h a multiple of g),
keep [b, m] True at real keys, allowed [b or 1, 1, n, m] True where a query may attend a key (None: everywhere). Keys
that are padding or forbidden are removed before anything is computed; all is computed in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.methods.attention import layer_of, mixed, row_scores
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register
from pellucid.types import Batch, Target

Constraint = Literal["rows", "none"]
_AT_ONCE = 2**24  # numbers in the largest intermediate of the Newton steps, 128 MB
_STEPS, _FLAT = 60, 1e-12


class Part(NamedTuple):
    """Texts whose rows `rows` see the same keys `keys`: what can be computed in one go."""

    texts: Tensor
    rows: Tensor
    keys: Tensor


def parts(n: int, keep: Tensor, allowed: Tensor | None) -> Iterator[Part]:
    """All rows of all texts, grouped by the keys that they see. Rows that see no key are left out."""
    everything = torch.arange(n, device=keep.device)
    if allowed is None:
        patterns, owner = torch.unique(keep, dim=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            if not pattern.any():
                continue
            yield Part((owner == i).nonzero()[:, 0], everything, pattern.nonzero()[:, 0])
        return
    for b, mine in enumerate(keep):
        seen = allowed[b if len(allowed) > 1 else 0, 0] & mine
        patterns, owner = torch.unique(seen, dim=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            if pattern.any():
                yield Part(torch.tensor([b], device=keep.device), everything[owner == i], pattern.nonzero()[:, 0])


def column_space(v: Tensor, constraint: Constraint = "rows") -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal basis of the column space of [V, 1], or of V for "none", of values v [..., m, e].

    Returns the basis [..., m, r] (columns beyond a head's own rank are 0), the singular values that decide the rank,
    and the rank [...]. With rows that sum to one, col([V, 1]) is the constant plus col(V - mean): so it does not depend
    on the value bias. Cost: one thin SVD of [m, e] per head.
    """
    m, e = v.shape[-2:]
    x = v - v.mean(-2, keepdim=True) if constraint == "rows" else v
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    # centring leaves rounding of the size of the values: below it nothing is a direction
    size = torch.linalg.matrix_norm(v).clamp(min=torch.finfo(v.dtype).tiny)
    real = s > max(m, e) * torch.finfo(v.dtype).eps * size[..., None]
    u, rank = u * real[..., None, :], real.sum(-1)
    if constraint == "rows":
        ones = torch.full_like(v[..., :1], m**-0.5)
        return torch.cat([ones, u], -1), s, rank + 1
    return u, s, rank


def _checked(alpha: Tensor, v: Tensor, keep: Tensor, allowed: Tensor | None) -> Tensor:
    """`keep` as bool; InputError for shapes that do not fit, or numbers that are none."""
    fits = alpha.dim() == v.dim() == 4 and keep.dim() == 2 and alpha.shape[-1] == v.shape[-2] == keep.shape[-1]
    if not fits or alpha.shape[1] % v.shape[1] or not alpha.shape[0] == v.shape[0] == keep.shape[0]:
        raise InputError(
            f"alpha [b, h, n, m] {list(alpha.shape)}, v [b, g, m, e] {list(v.shape)} and keep [b, m] "
            f"{list(keep.shape)} do not fit together: b and m must agree, and h be a multiple of g."
        )
    shape = (1, *alpha.shape[2:])
    if allowed is not None and (allowed.shape[1:] != shape or len(allowed) not in (1, len(alpha))):
        raise InputError(f"allowed {list(allowed.shape)} must be [b or 1, {', '.join(map(str, shape))}].")
    if not bool(torch.isfinite(alpha).all()) or not bool(torch.isfinite(v).all()):
        raise InputError("alpha and v must hold finite numbers; seen NaN or infinity.")
    return keep.bool()


def effective_attention(
    alpha: Float[Tensor, "b h n m"],
    v: Float[Tensor, "b g m e"],
    keep: Bool[Tensor, "b m"],
    constraint: Constraint = "rows",
    allowed: Bool[Tensor, "_ 1 n m"] | None = None,
) -> Float[Tensor, "b h n m"]:
    """The part of attention that can influence the head's output: alpha without its part in the null space of [V, 1].

    Unit: dimensionless, float64; rows still sum to one, entries may be negative. It is the least-squares shortest row
    with the same output and sum. constraint="none" takes the null space of V alone: the published definition, whose
    rows need not sum to one, and which differs from alpha even where alpha is unique.
    Edge: equals alpha where the null space is empty (n at most e + 1, generically). Masked keys get 0.
    Cost: one thin SVD of [m, e] per group of heads, or per row where each row sees other keys.
    Raises: InputError if the shapes do not fit (all are named).
    Source: Brunner et al. 2020, arXiv 1908.04211, section 3.
    Differs from the source: keeps row sums; and from public code: masked keys are removed before the decomposition.
    """
    one_of("effective_attention", constraint=(constraint, ("rows", "none")))
    keep = _checked(alpha, v, keep, allowed)
    out = torch.zeros_like(alpha, dtype=torch.float64)
    share = alpha.shape[1] // v.shape[1]
    for texts, rows, keys in parts(alpha.shape[2], keep, allowed):
        basis, _, _ = column_space(v[texts][:, :, keys].double(), constraint)
        basis = basis.repeat_interleave(share, 1)
        mine = _at(alpha.double(), texts, rows, keys)
        _put(out, texts, rows, keys, (mine @ basis) @ basis.mT)
    return out


def max_entropy_attention(
    alpha: Float[Tensor, "b h n m"],
    v: Float[Tensor, "b g m e"],
    keep: Bool[Tensor, "b m"],
    allowed: Bool[Tensor, "_ 1 n m"] | None = None,
) -> Float[Tensor, "b h n m"]:
    """The most even attention that gives the same head output: argmax of entropy under a V = alpha V, a 1 = 1, a >= 0.

    It has the form softmax(V theta), so it is unique, a true distribution, and equals alpha where alpha is unique.
    Unit: attention weight, float64. Largest difference of outputs: 1e-10 of the values' size; a row that the Newton
    steps cannot bring there (a weight that has underflown to 0) is returned as it is, which has the same output.
    Cost: 10 to 100 Newton steps in e unknowns per row. Raises: InputError if the shapes do not fit.
    Source: ours, for want of an effective attention that is still a distribution.
    """
    keep = _checked(alpha, v, keep, allowed)
    out = torch.zeros_like(alpha, dtype=torch.float64)
    share = alpha.shape[1] // v.shape[1]
    for texts, rows, keys in parts(alpha.shape[2], keep, allowed):
        mine = _at(alpha.double(), texts, rows, keys)
        basis, _, rank = column_space(v[texts][:, :, keys].double())
        total = mine.sum(-1, keepdim=True)  # what softmax holds is even only up to rounding, and [V, 1] keeps the sum
        whole = torch.where(total > 0, mine / total.clamp(min=1e-300), mine)
        a, u = whole.flatten(0, 1), basis[..., 1:].repeat_interleave(share, 1).flatten(0, 1)
        loose = (rank.repeat_interleave(share, 1).flatten() < len(keys)).nonzero()[:, 0]
        size = max(1, _AT_ONCE // max(1, len(keys) * u.shape[-1] ** 2 + len(rows) * u.shape[-1] ** 2))
        for some in torch.split(loose, size) if len(loose) else ():
            a[some] = _flattest(a[some], u[some] * len(keys) ** 0.5)
        _put(out, texts, rows, keys, a.reshape(mine.shape) * torch.where(total > 0, total, torch.ones_like(total)))
    return out


def _at(x: Tensor, texts: Tensor, rows: Tensor, keys: Tensor) -> Tensor:
    return x[texts][:, :, rows][..., keys]


def _put(out: Tensor, texts: Tensor, rows: Tensor, keys: Tensor, values: Tensor) -> None:
    h = torch.arange(out.shape[1], device=out.device)
    out[texts[:, None, None, None], h[:, None, None], rows[:, None], keys] = values


def _flattest(a: Tensor, u: Tensor) -> Tensor:
    """Rows a [k, r, m] made as even as u [k, m, e], a scaled basis of the centred values, allows.

    All rows take a few Newton steps together; those that need more, peaked ones, go on alone.
    """
    goal = a @ u
    theta, late = _newton((a.clamp(min=1e-30).log() @ u) / a.shape[-1], goal, u, 8)
    if bool(late.any()):
        k, r = late.nonzero(as_tuple=True)
        for some in torch.split(torch.arange(len(k)), max(1, _AT_ONCE // (u.shape[-2] * u.shape[-1] ** 2))):
            i, j = k[some], r[some]
            theta[i, j] = _newton(theta[i, j][:, None], goal[i, j][:, None], u[i], _STEPS)[0][:, 0]
    p = (theta @ u.mT).softmax(-1)
    good = ((p @ u) - goal).abs().amax(-1, keepdim=True) < 1e-10
    return torch.where(good, p, a)


def _newton(theta: Tensor, goal: Tensor, u: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """theta [k, r, e] after Newton steps on the convex logsumexp(u theta) - theta . goal, and which rows are not done.

    A step moves no logit by more than 10, and is halved until the objective falls.
    """
    k, r, e = theta.shape
    pairs = (u[..., :, None] * u[..., None, :]).reshape(k, -1, e * e)
    ridge = torch.eye(e, dtype=u.dtype, device=u.device)

    def objective(th: Tensor) -> Tensor:
        return (th @ u.mT).logsumexp(-1) - (th * goal).sum(-1)

    late = torch.ones(k, r, dtype=torch.bool, device=u.device)
    for _ in range(steps):
        p = (theta @ u.mT).softmax(-1)
        mean = p @ u
        slope = mean - goal
        late = slope.abs().amax(-1) > _FLAT
        if not bool(late.any()):
            break
        bend = (p @ pairs).reshape(k, r, e, e) - mean[..., :, None] * mean[..., None, :]
        trace = bend.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        factor, _ = torch.linalg.cholesky_ex(bend + ridge * (1e-12 * trace + 1e-300))
        step = -torch.cholesky_solve(slope[..., None], factor)[..., 0]
        step = torch.where(step.isfinite().all(-1, keepdim=True), step, -slope)
        step = step / ((step @ u.mT).abs().amax(-1, keepdim=True) / 10).clamp(min=1.0)
        now, fall, size = objective(theta), (slope * step).sum(-1), torch.ones_like(theta[..., 0])
        for _ in range(40):
            short = objective(theta + size[..., None] * step) > now + 1e-4 * size * fall + 1e-15 * now.abs()
            if not bool(short.any()):
                break
            size = torch.where(short, size / 2, size)
        theta = theta + (size * late)[..., None] * step
    return theta, late


@dataclass(frozen=True)
class EffectiveAttention(Method):
    """Attention without the part that cannot influence the head's output, of the row that the head reads.

    layer, head: as in `Attention`. constraint: "rows" keeps the sum of one, "none" is the published definition.

    Unit: attention weight; may be negative, which is not evidence against; the same for every target.
    Cost: one forward pass and a thin SVD per head.
    Source: Brunner et al. 2020, arXiv 1908.04211; see `effective_attention` for where we differ.
    """

    layer: int = -1
    head: int | None = None
    constraint: Constraint = "rows"

    source: ClassVar[str] = "Brunner et al. 2020, arXiv 1908.04211"
    needs: ClassVar[Access] = Access.READOUT
    unit: ClassVar[str] = "attention weight"
    caution: ClassVar[str] = (
        "Only what cannot influence this one layer's output is taken away; what is left still knows no class and "
        "no other layer, and a negative weight is not evidence against. On texts no longer than a head is wide it "
        "is attention itself."
    )

    def __post_init__(self) -> None:
        one_of("EffectiveAttention", constraint=(self.constraint, ("rows", "none")))

    @property
    def name(self) -> str:
        return "effective_attention"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(additive=True, target_free=True)

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "layer": layer_of(model, self.name, self.layer, self.head)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        seen = mixed(model, batch, layer_of(model, self.name, self.layer, self.head))
        alpha = effective_attention(seen.alpha, seen.v, seen.keep, self.constraint, seen.allowed)
        return row_scores(model, batch, seen, alpha.to(seen.alpha.dtype), self.head, target)


@dataclass(frozen=True)
class MaxEntropyAttention(Method):
    """The most even attention that gives the same head output, of the row that the head reads.

    layer, head: as in `Attention`.

    Unit: attention weight; unsigned, sums to 1, the same for every target.
    Cost: one forward pass and some Newton steps per head and row.
    Source: ours; see `max_entropy_attention`.
    """

    layer: int = -1
    head: int | None = None

    source: ClassVar[str] = "Pellucid; after Brunner et al. 2020, arXiv 1908.04211"
    needs: ClassVar[Access] = Access.READOUT
    unit: ClassVar[str] = "attention weight"
    caution: ClassVar[str] = (
        "One of many attentions with the same output, chosen for being even and not for being what the model did. "
        "It shows how far attention could have been otherwise; it explains no decision."
    )

    @property
    def name(self) -> str:
        return "max_entropy_attention"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(signed=False, additive=True, target_free=True)

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "layer": layer_of(model, self.name, self.layer, self.head)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        seen = mixed(model, batch, layer_of(model, self.name, self.layer, self.head))
        alpha = max_entropy_attention(seen.alpha, seen.v, seen.keep, seen.allowed)
        return row_scores(model, batch, seen, alpha.to(seen.alpha.dtype), self.head, target)


register(EffectiveAttention())
register(MaxEntropyAttention())
