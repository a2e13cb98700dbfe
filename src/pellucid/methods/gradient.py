"""Gradient methods on the exact network: saliency, gradient x input, integrated gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.encoder import forward
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops
from pellucid.errors import InputError
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register, slabs
from pellucid.methods.operators import replacement, special_mask
from pellucid.types import Batch, Target

At = Literal["auto", "block_input", "word"]
Reduce = Literal["signed", "norm"]
_ATS = ("auto", "block_input", "word")


def place(model: Model, at: At) -> Literal["block_input", "word"]:
    """Where gradients are taken: "auto" is the first block's input if the network is ours, else the word embeddings."""
    if at == "auto":
        return "block_input" if model.net is not None else "word"
    if at == "block_input":
        model.require(Access.ENCODER, 'at="block_input"')
    return at


def states(model: Model, batch: Batch, at: str) -> Tensor:
    """The vectors [b, n, d] that gradients are taken at."""
    if at == "block_input":
        return model.embed(batch)
    words = model.word_embeddings(batch.input_ids)
    return words if model.net is None else words.to(model.dtype)


def logits_from(model: Model, batch: Batch, x: Tensor, at: str) -> Tensor:
    """Logits of the exact model from vectors at `at`."""
    if model.net is None:
        return model.hf_logits(batch, x)
    if at == "word":
        x = model.embed(batch, x.to(model.dtype))
    return forward.encode(Ops(), model.net, x, batch.keep)


def gradients(
    model: Model, batch: Batch, x: Tensor, at: str, weights_of: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients [b, n, d, t] of what is explained, explained [b, t], and logits [b, c]."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = logits_from(model, batch, x, at)
        explained = torch.einsum("bc,bct->bt", logits, weights_of(logits.detach()))
        columns = [c.sum() for c in explained.unbind(1)]
    last = len(columns) - 1
    grads = [torch.autograd.grad(c, x, retain_graph=t < last)[0] for t, c in enumerate(columns)]
    return torch.stack(grads, -1).to(model.dtype), explained.detach(), logits.detach()


def reduced(parts: Tensor, how: Reduce) -> Tensor:
    """[b, n, d, t] to [b, n, t]: the signed sum over d, or the L2 norm."""
    return parts.sum(2) if how == "signed" else parts.norm(dim=2)


def contrast_columns(target: Target, scores_of: Callable[[Target], Scores]) -> Scores:
    """Norms of a contrast are the difference of its two columns, by definition; other targets pass through."""
    if not any(isinstance(c, tuple) for c in target.choices):
        return scores_of(target)
    every = scores_of(Target((None,) * len(target.choices), target.labels, all_classes=True))
    w = target.weights(every.logits)
    explained = None if every.explained is None else torch.einsum("bc,bct->bt", every.explained, w)
    left = None if every.unallocated is None else torch.einsum("bc,bct->bt", every.unallocated, w)
    return Scores(every.scores @ w, left, explained, every.logits, every.forwards, every.backwards)


@dataclass(frozen=True)
class Gradient(Method):
    """The gradient of the logit at the input vectors, alone (saliency) or times the input.

    times_input: multiply by the input vector. reduce: "signed" sums over the width, "norm" takes the L2 norm, which
    cannot tell for from against. at: see `place`.

    Unit: logit (times_input) or logit per unit of input. Not complete: the gap is curvature and biases.
    Cost: one forward and one backward pass per target.
    Source: Simonyan et al. 2014, arXiv 1312.6034; Shrikumar et al. 2016, arXiv 1605.01713.
    """

    times_input: bool = True
    reduce: Reduce = "signed"
    at: At = "auto"

    source: ClassVar[str] = "Simonyan et al. 2014, arXiv 1312.6034; Shrikumar et al. 2016, arXiv 1605.01713"
    needs: ClassVar[Access] = Access.GRADIENTS
    caution: ClassVar[str] = (
        "A local slope: where the decision is saturated an important token can have a gradient near zero. The "
        "signs of gradient x input were worse than no signs on all three classifiers of our comparison."
    )

    def __post_init__(self) -> None:
        one_of(
            "Gradient",
            times_input=(self.times_input, (True, False)),
            reduce=(self.reduce, ("signed", "norm")),
            at=(self.at, _ATS),
        )

    @property
    def name(self) -> str:
        if self.times_input:
            return "gradient_x_input" if self.reduce == "signed" else "gradient_x_input_norm"
        return "saliency" if self.reduce == "norm" else "saliency_signed"

    @property
    def unit(self) -> str:  # type: ignore[override]
        return "logit" if self.times_input else "logit per unit of input"

    def guarantees(self, model: Model | None) -> Guarantees:
        signed = self.reduce == "signed"
        return Guarantees(signed=signed, additive=signed and self.times_input, linear_in_target=signed)

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "at": place(model, self.at)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        at = place(model, self.at)
        x = states(model, batch, at)

        def scores_of(aim: Target) -> Scores:
            g, explained, logits = gradients(model, batch, x, at, aim.weights)
            parts = g * x[..., None] if self.times_input else g
            scores = reduced(parts, self.reduce) * batch.keep[..., None]
            return Scores(scores, torch.zeros_like(explained), explained, logits, 1.0, float(explained.shape[1]))

        return scores_of(target) if self.reduce == "signed" else contrast_columns(target, scores_of)


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Gradients averaged on the straight path from a baseline, times the way (Sundararajan et al., ICML 2017).

    baseline: "zero" vectors, or the vectors of the same text with every ordinary token replaced by the mask or padding
      token (special tokens stay, positions too). steps: points of Gauss-Legendre quadrature. reduce, at: see Gradient.

    `unallocated` is the logit at the baseline, so the gap is the quadrature error: complete in the limit of many steps,
    and the gap tells how far from it. Unit: logit.
    Cost: `steps` forward and backward passes per target, and one forward for the baseline.
    Source: arXiv 1703.01365.
    """

    baseline: Literal["zero", "mask", "pad"] = "zero"
    steps: int = 20
    reduce: Reduce = "signed"
    at: At = "auto"

    source: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"
    needs: ClassVar[Access] = Access.GRADIENTS
    caution: ClassVar[str] = (
        "All numbers are relative to the baseline, and zeros, [MASK] and padding give different ones; on the way "
        "the model sees mixtures that are no text. Look at the gap and take more steps where it is large; reduced "
        "by norms the scores add up to nothing."
    )

    def __post_init__(self) -> None:
        one_of(
            "IntegratedGradients",
            baseline=(self.baseline, ("zero", "mask", "pad")),
            reduce=(self.reduce, ("signed", "norm")),
            at=(self.at, _ATS),
        )
        if not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(
                f"IntegratedGradients needs a whole number of steps, at least 1; seen steps={self.steps!r}."
            )

    @property
    def name(self) -> str:
        base = "integrated_gradients" + ("" if self.baseline == "zero" else f"_{self.baseline}")
        return base + ("" if self.reduce == "signed" else "_norm")

    def guarantees(self, model: Model | None) -> Guarantees:
        signed = self.reduce == "signed"
        return Guarantees(signed=signed, additive=signed, linear_in_target=signed)

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "at": place(model, self.at)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        if self.reduce == "signed":
            return self._integrate(model, batch, target)
        return contrast_columns(target, lambda aim: self._integrate(model, batch, aim))

    def _integrate(self, model: Model, batch: Batch, target: Target) -> Scores:
        at = place(model, self.at)
        x = states(model, batch, at)
        base = self._baseline(model, batch, x, at)
        with torch.no_grad():
            logits = logits_from(model, batch, x, at)
            w = target.weights(logits)
            start = torch.einsum("bc,bct->bt", logits_from(model, batch, base, at), w)
            explained = torch.einsum("bc,bct->bt", logits, w)
        total = self._mean_gradient(model, batch, x, base, at, w)
        scores = reduced(total * (x - base).to(total.dtype)[..., None], self.reduce) * batch.keep[..., None]
        columns = float(w.shape[-1])
        return Scores(scores, start, explained, logits, self.steps + 2.0, self.steps * columns)

    def _baseline(self, model: Model, batch: Batch, x: Tensor, at: str) -> Tensor:
        if self.baseline == "zero":
            return torch.zeros_like(x)
        ids = batch.input_ids.clone()
        ids[batch.keep & ~special_mask(model, batch)] = replacement(model, self.baseline, self.name)
        return states(model, _with_ids(batch, ids), at)

    def _mean_gradient(self, model: Model, batch: Batch, x: Tensor, base: Tensor, at: str, w: Tensor) -> Tensor:
        points, shares = np.polynomial.legendre.leggauss(self.steps)
        alphas = torch.tensor((points + 1) / 2, dtype=x.dtype, device=x.device)
        total: Tensor | None = None
        b, n = batch.input_ids.shape
        for part in slabs(self.steps, b * n):
            times = len(alphas[part])
            a = alphas[part].repeat_interleave(b)[:, None, None]
            path = base.repeat(times, 1, 1) + a * (x - base).repeat(times, 1, 1)
            weights = w.repeat(times, 1, 1)
            g, _, _ = gradients(model, batch.rows_repeated(times), path, at, partial(_given, weights))
            share = torch.tensor(shares[part] / 2, dtype=g.dtype, device=g.device)
            add = torch.einsum("s,sbndt->bndt", share, g.reshape(times, b, *g.shape[1:]))
            total = add if total is None else total + add
        assert total is not None
        return total


def _given(weights: Tensor, logits: Tensor) -> Tensor:
    return weights


def _with_ids(batch: Batch, ids: Tensor) -> Batch:
    return Batch(ids, batch.keep, batch.token_type_ids)


register(Gradient())
register(Gradient(reduce="norm"))
register(Gradient(times_input=False, reduce="norm"))
register(Gradient(times_input=False))
register(IntegratedGradients())
register(IntegratedGradients(reduce="norm"))
register(IntegratedGradients(baseline="mask"))
register(IntegratedGradients(baseline="mask", reduce="norm"))
register(IntegratedGradients(baseline="pad"))
