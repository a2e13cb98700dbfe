"""What a method is: a frozen dataclass whose fields are its parameters, with declared guarantees; a call computes."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.registry import Registry
from pellucid.types import Batch, Target


@dataclass(frozen=True)
class Guarantees:
    """What the scores of a method may be trusted for; the contract tests hold it to each of these.

    complete: unallocated + the sum of scores is the explained logit, up to rounding.
    signed: scores tell for from against; of a target_free method only that they may fall below zero.
    additive: a word's score is the sum of its tokens' scores.
    linear_in_target: the scores of a - b are those of a minus those of b, and one backward pass gives them.
    target_free: the scores do not depend on the target at all (attention); of a contrast they are 0.
    deterministic: the same call gives the same numbers.
    padding_invariant: padding and batch mates change nothing.
    """

    complete: bool = False
    signed: bool = True
    additive: bool = False
    linear_in_target: bool = True
    target_free: bool = False
    deterministic: bool = True
    padding_invariant: bool = True


@dataclass(frozen=True, eq=False)
class Scores:
    """What a method computes for one padded batch, t being 1 or, for all classes, c.

    scores [b, n, t]; unallocated and explained [b, t], or None where the method explains no logit; logits [b, c].
    `forwards` and `backwards` count passes per text.
    """

    scores: Tensor
    unallocated: Tensor | None
    explained: Tensor | None
    logits: Tensor
    forwards: float
    backwards: float


def target_free(scores: Tensor, weights: Tensor) -> Tensor:
    """Scores [b, n] that no target changes, for weights [b, c, t]: the same for each class, so 0 for a contrast."""
    return scores[..., None] * weights.sum(1)[:, None]


class Method(ABC):
    """One way to give each token a number. Subclasses are frozen dataclasses and final.

    caution: when not to trust it, in one or two sentences; the command line and the documentation show it.
    """

    source: ClassVar[str]
    needs: ClassVar[Access]
    unit: ClassVar[str] = "logit"
    caution: ClassVar[str] = ""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name under which these parameters are registered, or the class of parameters that come nearest."""

    @abstractmethod
    def guarantees(self, model: Model | None) -> Guarantees:
        """What holds for these parameters on this model; None: on any model."""

    @abstractmethod
    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        """Scores of the real tokens of `batch`; those of padding are 0."""

    def params(self, model: Model) -> dict[str, Any]:
        """The parameters, with those that depend on the model resolved."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


SLAB = 2048
"""Perturbed or interpolated copies of a text run together in slabs of about this many tokens."""


def slabs(rows: int, n: int) -> list[slice]:
    """Slices over `rows` copies of n tokens each, about SLAB tokens in a slice."""
    step = max(1, SLAB // max(1, n))
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]


def one_of(who: str, **options: tuple[object, tuple[object, ...]]) -> None:
    """InputError, listing the choices, for the first option whose value is not among them."""
    for field, (value, values) in options.items():
        if value not in values:
            listed = ", ".join(repr(v) for v in values)
            raise InputError(f"{who} has no {field}={value!r}; choose one of {listed}.")


METHODS: Registry[Method] = Registry("method")


def register(method: Method) -> None:
    """Make a method available by name: to `explain`, the command line, the contract tests and the docs."""
    METHODS.add(method.name, method)
