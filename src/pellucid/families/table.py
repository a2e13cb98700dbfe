"""What a family is: how its weights are called, and which configuration values our network implements."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pellucid.encoder.activations import ACTIVATIONS, Activation
from pellucid.encoder.forward import Linear, Net, Norm
from pellucid.encoder.pooled import Pooled
from pellucid.errors import UnsupportedModel
from pellucid.registry import Registry

Config = Any  # a transformers configuration; floor 1 knows only its fields


@dataclass(frozen=True)
class Weights:
    """A state dict that hands out tables."""

    tensors: Mapping[str, Tensor]

    def get(self, name: str) -> Tensor | None:
        """The tensor called `name`, or None."""
        return self.tensors.get(name)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise UnsupportedModel(
                f"The weights have no {name!r}, which this family needs; the first of {len(self.tensors)} names are "
                f"{', '.join(list(self.tensors)[:3])}. Is this a sequence-classification model of that family?"
            )
        return self.tensors[name]

    def linear(self, name: str) -> Linear:
        """`name.weight` and, if there is one, `name.bias`."""
        return Linear(self[f"{name}.weight"], self.get(f"{name}.bias"))

    def norm(self, name: str, eps: float) -> Norm:
        """A LayerNorm called `name`."""
        return Norm(self[f"{name}.weight"], self.get(f"{name}.bias"), eps)


@dataclass(frozen=True)
class Family:
    """A kind of architecture.

    `closed` maps each configuration field whose other values we do not implement to the values that we do.
    `reach` tells from the configuration how long a probe text must be to exercise every rule (windows, buckets);
    `limit` how long a text may be, None without a limit. `build` gives the whole network, or what follows the last
    attention. `module` is what must be imported for transformers to know the architecture.
    """

    model_type: str
    build: Callable[[Weights, Config], Net | Pooled]
    closed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    reach: Callable[[Config], int] = lambda config: 24
    limit: Callable[[Config], int | None] = lambda config: int(config.max_position_embeddings)
    module: str | None = None

    def check(self, config: Config) -> None:
        """Refuse, by field name, a configuration value that is not implemented."""
        for name, values in self.closed.items():
            seen = getattr(config, name, values[0])
            if seen not in values:
                raise UnsupportedModel(
                    f"The configuration says {name}={seen!r}; for {self.model_type!r} models Pellucid implements "
                    f'{name} in {list(values)}. Load it with access="gradients" for the methods that need only '
                    "gradients or outputs."
                )


FAMILIES: Registry[Family] = Registry("family")


def activation(config: Config, name: str) -> Activation:
    """The activation that configuration field `name` asks for; refused by field name if it is not implemented."""
    asked = getattr(config, name)
    if asked not in ACTIVATIONS:
        raise UnsupportedModel(
            f"The configuration says {name}={asked!r}; Pellucid implements {', '.join(ACTIVATIONS)}. "
            'Load it with access="gradients" for the methods that need only gradients or outputs.'
        )
    return ACTIVATIONS[asked]
