"""Activations with their two slopes in closed form.

`ratio(u) = f(u) / u` is the zero-origin slope of DecompX (Modarressi et al. 2023, section 3.3), `tangent(u) = f'(u)`.
Closed forms need no division, so the limit at u = 0 is right (1/2 for GELU, 1 for tanh) where the official code's
`f(u) / (u + 1e-12)` gives 0, or an infinity at u = -1e-12.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_C = math.sqrt(2.0 / math.pi)


@dataclass(frozen=True)
class Activation:
    """An element-wise function f with f(0) = 0, and its slopes."""

    name: str
    f: Callable[[Tensor], Tensor]
    ratio: Callable[[Tensor], Tensor]
    tangent: Callable[[Tensor], Tensor]


def _normal_cdf(u: Tensor) -> Tensor:
    return torch.erfc(u * -math.sqrt(0.5)) * 0.5


def _gelu_tangent(u: Tensor) -> Tensor:
    return _normal_cdf(u) + u * torch.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)


def _tanh_gelu_ratio(u: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.tanh(_C * (u + 0.044715 * u**3)))


def _tanh_gelu_tangent(u: Tensor) -> Tensor:
    t = torch.tanh(_C * (u + 0.044715 * u**3))
    return 0.5 * (1.0 + t) + 0.5 * u * (1.0 - t * t) * _C * (1.0 + 3.0 * 0.044715 * u * u)


def _sigmoid_unit(scale: float) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Slopes of u * sigmoid(scale * u): SiLU at 1, quick GELU at 1.702."""

    def ratio(u: Tensor) -> Tensor:
        return torch.sigmoid(scale * u)

    def tangent(u: Tensor) -> Tensor:
        s = torch.sigmoid(scale * u)
        return s + scale * u * s * (1.0 - s)

    return ratio, tangent


def _tanh_ratio(u: Tensor) -> Tensor:
    small = u.abs() < 1e-4  # tanh(u)/u = 1 - u^2/3 + O(u^4): the series is exact to rounding there
    return torch.where(small, 1.0 - u * u / 3.0, torch.tanh(u) / torch.where(small, torch.ones_like(u), u))


def _tanh_tangent(u: Tensor) -> Tensor:
    return 1.0 - torch.tanh(u) ** 2


def relu_step(u: Tensor) -> Tensor:
    """1 where u > 0, else 0: the slope of ReLU, and what `slope="relu"` uses for every activation."""
    return (u > 0).to(u.dtype)


def _gelu(u: Tensor) -> Tensor:
    return F.gelu(u)


def _tanh_gelu(u: Tensor) -> Tensor:
    return F.gelu(u, approximate="tanh")


def _quick_gelu(u: Tensor) -> Tensor:
    return u * torch.sigmoid(1.702 * u)


_GELU = Activation("gelu", _gelu, _normal_cdf, _gelu_tangent)
_TANH_GELU = Activation("gelu_new", _tanh_gelu, _tanh_gelu_ratio, _tanh_gelu_tangent)
_SILU = Activation("silu", F.silu, *_sigmoid_unit(1.0))

ACTIVATIONS: dict[str, Activation] = {
    "gelu": _GELU,
    "gelu_python": _GELU,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "gelu_python_tanh": _TANH_GELU,
    "gelu_fast": _TANH_GELU,
    "gelu_accurate": _TANH_GELU,
    "quick_gelu": Activation("quick_gelu", _quick_gelu, *_sigmoid_unit(1.702)),
    "silu": _SILU,
    "swish": _SILU,
    "relu": Activation("relu", torch.relu, relu_step, relu_step),
    "tanh": Activation("tanh", torch.tanh, _tanh_ratio, _tanh_tangent),
}
"""The activations that Hugging Face configurations name and that are implemented here, under their names there."""
