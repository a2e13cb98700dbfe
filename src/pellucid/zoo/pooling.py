"""Attention that pools states: a scorer gives each state one number, a normaliser makes weights of these.

There is one learnt task query and no other, so what Bahdanau et al. add for the query is a constant, part of the bias.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from pellucid.zoo.configs import AttentionClassifierConfig


class Scorer(nn.Module):
    """s_t = w E(h_t): `layers` maps of width `width` with an activation each (none: linear), times `scale`."""

    def __init__(self, layers: nn.Module, width: int, scale: float = 1.0) -> None:
        super().__init__()
        self.layers, self.query, self.scale = layers, nn.Linear(width, 1, bias=False), scale

    def forward(self, h: Tensor) -> Tensor:
        s: Tensor = self.query(self.layers(h))[..., 0] * self.scale
        return s


def scorer_of(config: AttentionClassifierConfig, width: int) -> Scorer:
    """The scorer of a configuration over states `width` wide.

    "additive": one layer, tanh, width / 2 (Jain & Wallace). "deep": `deep_layers` - 1 layers of the full width. The
    scaled dot product without a key projection is Jain & Wallace's; a projection gives the same functions, as
    q (K h) is linear in h either way.
    """
    if config.scorer == "additive":
        size = config.scorer_size or max(1, width // 2)
        return Scorer(nn.Sequential(nn.Linear(width, size), nn.Tanh()), size)
    if config.scorer == "deep":
        size = config.scorer_size or width
        act = nn.Tanh if config.deep_activation == "tanh" else nn.ReLU
        sizes = [width] + [size] * (config.deep_layers - 1)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), act())]
        return Scorer(nn.Sequential(*layers), size)
    if config.scorer == "scaled_dot":
        size = config.scorer_size or width
        keys = nn.Linear(width, size, bias=False) if config.key_projection else nn.Identity()
        size = size if config.key_projection else width
        return Scorer(keys, size, 1 / math.sqrt(size))
    return Scorer(nn.Identity(), width)


def masked(scores: Tensor, keep: Tensor) -> Tensor:
    """The least finite score at padding, whose weight is then exactly 0."""
    return scores.masked_fill(~keep, torch.finfo(scores.dtype).min)


def sparsemax(scores: Tensor, keep: Tensor) -> Tensor:
    """The Euclidean projection of scores [b, n] on the simplex; padding gets 0.

    Source: Martins & Astudillo 2016, arXiv 1602.02068. Cost: one sort per row.
    """
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    best = masked(wide, keep).amax(-1, keepdim=True)
    z = (wide - best).masked_fill(~keep, -2.0)  # further than 1 below the largest: never in the support
    ordered = z.sort(-1, descending=True).values
    above = ordered.cumsum(-1) - 1.0
    k = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    size = (k * ordered > above).sum(-1, keepdim=True)
    return ((z - above.gather(-1, size - 1) / size).clamp(min=0.0) * keep).to(scores.dtype)


def gumbel_noise(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """-log(-log u), u uniform and kept away from 0 and 1, so that it is finite in every dtype."""
    at = like.device if generator is None else generator.device
    u = torch.rand(shape, generator=generator, device=at, dtype=torch.float32)
    u = u.clamp(torch.finfo(torch.float32).tiny, 1 - torch.finfo(torch.float32).eps / 2)
    return -torch.log(-torch.log(u)).to(like)


class Normaliser(nn.Module):
    """Scores [b, n] to weights [b, n] that sum to one over the real tokens and are exactly 0 at padding.

    `generator` is where noise comes from (None: torch's own). "expect", the mean over noise, is softmax(s) exactly for
    hard weights. For soft ones it is the mean of `gumbel_draws` draws, with a standard error of at most
    0.5 / sqrt(draws): weights nearer to each other than that are in no order. The noise is the same at every call,
    position by position, so that the weights depend on nothing but the text.
    """

    def __init__(self, config: AttentionClassifierConfig) -> None:
        super().__init__()
        self.kind, self.tau, self.hard = config.normaliser, float(config.tau), config.gumbel_hard
        self.at_rest, self.draws = config.gumbel_eval, config.gumbel_draws
        self.generator: torch.Generator | None = None

    def forward(self, scores: Tensor, keep: Tensor) -> Tensor:
        if self.kind == "uniform":
            return keep / keep.sum(-1, keepdim=True).to(scores.dtype)
        if self.kind == "sparsemax":
            return sparsemax(scores / self.tau, keep)
        if self.kind == "softmax" or (self.at_rest == "mean" and not self.training):
            return masked(scores / self.tau, keep).softmax(-1)
        if self.training or self.at_rest == "sample":
            return self._noisy(scores, keep, gumbel_noise(tuple(scores.shape), scores, self.generator))
        return self._expected(scores, keep)

    def _expected(self, scores: Tensor, keep: Tensor) -> Tensor:
        if self.hard:
            return masked(scores, keep).softmax(-1)
        noise = gumbel_noise((scores.shape[-1], self.draws), scores, torch.Generator().manual_seed(0)).mT
        return self._noisy(scores[:, None], keep[:, None], noise).mean(1)

    def _noisy(self, scores: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        alpha = masked((scores + noise) / self.tau, keep).softmax(-1)
        if not self.hard:
            return alpha
        return _one_hot(alpha) + alpha - alpha.detach()  # the gradient of the soft weights


def _one_hot(x: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0)


class Pool(nn.Module):
    """States h [b, n, d] to a context [b, d] and the weights [b, n] that made it."""

    def __init__(self, config: AttentionClassifierConfig, width: int) -> None:
        super().__init__()
        self.normaliser = Normaliser(config)
        self.scorer = None if config.normaliser == "uniform" else scorer_of(config, width)

    def forward(self, h: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        scores = h.new_zeros(h.shape[:2]) if self.scorer is None else self.scorer(h)
        alpha = self.normaliser(scores, keep)
        return torch.einsum("bn,bnd->bd", alpha, h), alpha
