"""How unevenly attention is spread over the units of a text, and what makes it so: temperature, noise, or learning."""

from collections.abc import Callable

import numpy as np

TOP = 3
DRAWS = 64


def entropy(alpha: np.ndarray) -> np.ndarray:
    """Of weights [..., u], as a share of the largest possible, log u: 1 is even. 1 for a single unit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        h = -np.where(alpha > 0, alpha * np.log(alpha), 0.0).sum(-1)
    return np.asarray(h / np.log(alpha.shape[-1])) if alpha.shape[-1] > 1 else np.ones(alpha.shape[:-1])


def largest(alpha: np.ndarray) -> np.ndarray:
    """The largest weight."""
    return np.asarray(alpha.max(-1))


def gini(alpha: np.ndarray) -> np.ndarray:
    """Gini's coefficient: 0 is even, 1 - 1/u is all on one unit."""
    ordered, u = np.sort(alpha, -1), alpha.shape[-1]
    balance = 2 * np.arange(1, u + 1) - u - 1
    return np.asarray(np.round((balance * ordered).sum(-1) / (u * ordered.sum(-1)), 12))  # even is 0, not 1e-17


def top_mass(alpha: np.ndarray) -> np.ndarray:
    """The TOP largest weights together."""
    return np.asarray(np.sort(alpha, -1)[..., -TOP:].sum(-1))


MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "entropy": entropy,
    "largest_weight": largest,
    "gini": gini,
    "top_mass": top_mass,
}


def tempered(alpha: np.ndarray, tau: float) -> np.ndarray:
    """softmax(s / tau) from alpha [u] = softmax(s): the same scores at another temperature."""
    with np.errstate(divide="ignore"):
        log = np.log(alpha) / tau
    raised = np.exp(log - log.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def noisy(alpha: np.ndarray, tau: float, rng: np.random.Generator) -> np.ndarray:
    """Draws [DRAWS, u] of softmax((s + g) / tau), g Gumbel noise, from alpha [u] = softmax(s / tau)."""
    with np.errstate(divide="ignore"):
        log = np.log(alpha) + rng.gumbel(size=(DRAWS, len(alpha))) / tau
    raised = np.exp(log - log.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))
