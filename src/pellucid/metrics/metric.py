"""What a metric is: a pure function over what was measured on one text, with what a reader must know of its number."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pellucid.registry import Registry

T = TypeVar("T")
Kind = Literal["faithfulness", "plausibility", "stability"]


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One number per text and method.

    kind tells what `compute` reads: "faithfulness" a Measured, "plausibility" an Annotated, "stability" a Pair. arrow:
    +1 where up is better, -1 where down is. compute returns nan where a text does not say (no gold label, no
    rationale, an unsigned method): such texts count for nothing, and a table's n tells how many were left.
    leave_one_out: reads the drops of single tokens, which cost one forward pass per token to measure. least: reads the
    curve of the least important tokens, which costs up to nine.
    """

    name: str
    kind: Kind
    arrow: Literal[1, -1]
    unit: str
    source: str
    compute: Callable[[T], float]
    leave_one_out: bool = False
    least: bool = False

    def __call__(self, seen: T) -> float:
        """The number for one text."""
        return float(self.compute(seen))

    @property
    def meaning(self) -> str:
        """One line: the first of the function's documentation."""
        return (inspect.getdoc(self.compute) or self.name).splitlines()[0]

    @property
    def label(self) -> str:
        """The name with its arrow, for tables."""
        return f"{self.name} {'↑' if self.arrow > 0 else '↓'}"

    def about(self) -> dict[str, Any]:
        """What can be told of it, JSON-ready."""
        told = ("name", "kind", "arrow", "unit", "source", "meaning", "leave_one_out", "least")
        return {key: getattr(self, key) for key in told}


METRICS: Registry[Metric[Any]] = Registry("metric")


def register(
    kind: Kind,
    arrow: Literal[1, -1],
    unit: str,
    source: str,
    leave_one_out: bool = False,
    least: bool = False,
) -> Callable[[Callable[[T], float]], Callable[[T], float]]:
    """Make the function below available as a metric under its own name; its first line of documentation says what it
    means."""

    def add(compute: Callable[[T], float]) -> Callable[[T], float]:
        name: str = compute.__name__
        METRICS.add(name, Metric(name, kind, arrow, unit, source, compute, leave_one_out, least))
        return compute

    return add
