"""Gradients averaged over random copies of the input vectors: SmoothGrad and GradientSHAP."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.methods.gradient import At, Reduce, contrast_columns, gradients, logits_from, place, reduced, states
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register, slabs
from pellucid.methods.operators import replacement, special_mask
from pellucid.methods.surrogate import drawn, whole
from pellucid.types import Batch, Target

Baseline = Literal["zero", "mask", "pad"]
BASELINES = ("zero", "mask", "pad")


def baseline_states(model: Model, batch: Batch, x: Tensor, at: str, baseline: Baseline, who: str) -> Tensor:
    """What a path to x [b, n, d] starts at: zeros, or the text with mask or padding in place of ordinary tokens."""
    if baseline == "zero":
        return torch.zeros_like(x)
    ids = batch.input_ids.masked_fill(batch.keep & ~special_mask(model, batch), replacement(model, baseline, who))
    return states(model, Batch(ids, batch.keep, batch.token_type_ids), at)


class Noise:
    """Gaussian noise for the vectors x [b, n, d] of a batch, by the seed and each text's ids; 0 at padding.

    size: in standard deviations of the numbers in a text's own vectors.
    """

    def __init__(self, batch: Batch, x: Tensor, size: float, seed: int) -> None:
        self.keep, self.x, self.size = batch.keep, x, size
        self.draws = [drawn(ids[keep], seed) for ids, keep in zip(batch.input_ids, batch.keep, strict=True)]

    def uniform(self, samples: int) -> Tensor:
        """[samples, b] between 0 and 1; to be drawn first, and at once."""
        return torch.as_tensor(np.stack([d.uniform(size=samples) for d in self.draws], 1)).to(self.x)

    def normal(self, samples: int) -> Tensor:
        """[samples, b, n, d]; the same however many are drawn at a time."""
        out = self.x.new_zeros(samples, *self.x.shape)
        for i, (draw, keep) in enumerate(zip(self.draws, self.keep, strict=True)):
            real = self.x[i, keep]
            out[:, i, keep] = torch.as_tensor(draw.normal(size=(samples, *real.shape))).to(real) * (
                self.size * real.std(correction=0)
            )
        return out


Copies = Callable[[int], tuple[Tensor, Tensor]]
"""The next k copies: where gradients are taken, and what they are multiplied by, both [k, b, n, d]."""


def mean_product(model: Model, batch: Batch, at: str, w: Tensor, samples: int, copies: Copies) -> Tensor:
    """The mean over copies of gradient times factor, [b, n, d, t], for logit weights w [b, c, t]."""
    total: Tensor | None = None
    for part in slabs(samples, batch.input_ids.numel()):
        points, factors = copies(part.stop - part.start)
        k = len(points)
        g, _, _ = gradients(model, batch.rows_repeated(k), points.flatten(0, 1), at, partial(_given, w.repeat(k, 1, 1)))
        add = (
            torch.einsum("sbndt,sbnd->bndt", g.reshape(k, *batch.input_ids.shape, *g.shape[2:]), factors.to(g))
            / samples
        )
        total = add if total is None else total + add
    assert total is not None
    return total


def _given(weights: Tensor, logits: Tensor) -> Tensor:
    return weights


def _check(who: str, samples: object, noise: object, seed: object) -> None:
    whole(who, "samples", samples, 1)
    whole(who, "seed", seed, 0)
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < float("inf"):
        raise InputError(f"{who} needs a number from 0 on as noise; seen noise={noise!r}.")


@dataclass(frozen=True)
class SmoothGrad(Method):
    """The gradient of the logit averaged over noisy copies of the input vectors, times the input.

    samples: copies. noise: its standard deviation, in standard deviations of the numbers in the text's vectors. reduce,
    at: see Gradient. seed: with the token ids it fixes the draws.

    Unit: logit. Not complete. Cost: one forward pass, and per sample one forward and, per target, one backward.
    Source: Smilkov et al. 2017, arXiv 1706.03825.
    Differs from it: the noise is not a share of max - min, which in language models is that of a few outlying
    coordinates: on a BERT, 15 % of it is 2.6 standard deviations and takes the prediction away.
    """

    samples: int = 20
    noise: float = 0.5
    reduce: Reduce = "signed"
    at: At = "auto"
    seed: int = 0

    source: ClassVar[str] = "Smilkov et al. 2017, arXiv 1706.03825"
    needs: ClassVar[Access] = Access.GRADIENTS
    caution: ClassVar[str] = (
        "The noise decides: much of it takes the prediction away, little of it leaves the plain gradient with its "
        "saturation. The draws are fixed by a seed, so look at a second one."
    )

    def __post_init__(self) -> None:
        one_of(
            "SmoothGrad",
            reduce=(self.reduce, ("signed", "norm")),
            at=(self.at, ("auto", "block_input", "word")),
        )
        _check("SmoothGrad", self.samples, self.noise, self.seed)

    @property
    def name(self) -> str:
        return "smoothgrad" if self.reduce == "signed" else "smoothgrad_norm"

    def guarantees(self, model: Model | None) -> Guarantees:
        signed = self.reduce == "signed"
        return Guarantees(signed=signed, additive=signed, linear_in_target=signed)

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "at": place(model, self.at)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        if self.reduce == "signed":
            return self._smooth(model, batch, target)
        return contrast_columns(target, lambda aim: self._smooth(model, batch, aim))

    def _smooth(self, model: Model, batch: Batch, target: Target) -> Scores:
        at = place(model, self.at)
        x = states(model, batch, at)
        with torch.no_grad():
            logits = logits_from(model, batch, x, at)
        w = target.weights(logits)
        noise = Noise(batch, x, self.noise, self.seed)

        def copies(k: int) -> tuple[Tensor, Tensor]:
            return x + noise.normal(k), x.expand(k, -1, -1, -1)

        parts = mean_product(model, batch, at, w, self.samples, copies)
        explained = torch.einsum("bc,bct->bt", logits, w)
        scores = reduced(parts, self.reduce) * batch.keep[..., None]
        passes = float(self.samples)
        return Scores(scores, torch.zeros_like(explained), explained, logits, 1 + passes, passes * w.shape[-1])


@dataclass(frozen=True)
class GradientShap(Method):
    """Gradients at random points between a baseline and noisy copies of the input vectors, times the way.

    baseline: as in IntegratedGradients. samples: points, each with its own copy. noise: as in SmoothGrad; without any
    these are integrated gradients with random points. at: see Gradient. seed: with the token ids it fixes the draws.

    `unallocated` is the logit at the baseline; the gap is the error of sampling and what the noise changes.
    Unit: logit. Signed. Not complete.
    Cost: two forward passes, and per sample one forward and, per target, one backward.
    Source: Lundberg & Lee 2017, arXiv 1705.07874, and Erion et al. 2021, arXiv 1906.10670, as in Captum.
    Differs from them: one baseline in place of a data set of them.
    """

    baseline: Baseline = "zero"
    samples: int = 20
    noise: float = 0.5
    at: At = "auto"
    seed: int = 0

    source: ClassVar[str] = "Lundberg & Lee 2017, arXiv 1705.07874; Erion et al. 2021, arXiv 1906.10670"
    needs: ClassVar[Access] = Access.GRADIENTS
    caution: ClassVar[str] = (
        "Twenty random points and noise at once: compare two seeds, and look at the gap. Like every path from a "
        "baseline it passes through mixtures that are no text, and another baseline gives other numbers."
    )

    def __post_init__(self) -> None:
        one_of(
            "GradientShap",
            baseline=(self.baseline, BASELINES),
            at=(self.at, ("auto", "block_input", "word")),
        )
        _check("GradientShap", self.samples, self.noise, self.seed)

    @property
    def name(self) -> str:
        return "gradient_shap" + ("" if self.baseline == "zero" else f"_{self.baseline}")

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees(additive=True)

    def params(self, model: Model) -> dict[str, Any]:
        return {**super().params(model), "at": place(model, self.at)}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        at = place(model, self.at)
        x = states(model, batch, at)
        base = baseline_states(model, batch, x, at, self.baseline, self.name)
        with torch.no_grad():
            logits, start = logits_from(model, batch, x, at), logits_from(model, batch, base, at)
        w = target.weights(logits)
        noise = Noise(batch, x, self.noise, self.seed)
        shares = iter(noise.uniform(self.samples)[..., None, None])

        def copies(k: int) -> tuple[Tensor, Tensor]:
            ways = x + noise.normal(k) - base
            return base + torch.stack([next(shares) for _ in range(k)]) * ways, ways

        parts = mean_product(model, batch, at, w, self.samples, copies)
        explained, left = torch.einsum("bc,bct->bt", logits, w), torch.einsum("bc,bct->bt", start, w)
        scores = reduced(parts, "signed") * batch.keep[..., None]
        passes = float(self.samples)
        return Scores(scores, left, explained, logits, 2 + passes, passes * w.shape[-1])


register(SmoothGrad())
register(SmoothGrad(reduce="norm"))
register(GradientShap())
register(GradientShap(baseline="mask"))
