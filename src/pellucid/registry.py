"""Names for things: one small mapping that suggests near misses."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from pellucid.errors import InputError

T = TypeVar("T")


def choose(what: str, asked: str, names: list[str]) -> str:
    """`asked` if it is one of `names`; otherwise an InputError that lists them, the nearest first."""
    if asked in names:
        return asked
    near = get_close_matches(asked, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"There is no {what} {asked!r}.{hint} Choose one of: {', '.join(names)}.")


class Registry(Generic[T]):
    """Things by name, in the order in which they were added.

    >>> fruits = Registry[int]("fruit"); fruits.add("apple", 1); fruits.get("apple")
    1
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._things: dict[str, T] = {}

    def add(self, name: str, thing: T) -> None:
        """Register `thing`; a name can be taken once."""
        if name in self._things:
            raise ValueError(f"The {self.what} {name!r} is registered already.")
        self._things[name] = thing

    def get(self, name: str) -> T:
        """The thing called `name`; an InputError that names the nearest one otherwise."""
        return self._things[choose(self.what, name, self.names())]

    def names(self) -> list[str]:
        """All names, in order of registration."""
        return list(self._things)

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[T]:
        return iter(self._things.values())
