"""The settings of what is registered (fields of a frozen dataclass), told in words and read from text.

Methods call them parameters; audits, settings. The types that can be read are whole numbers, numbers, true or false,
texts, none, a choice (Literal), any of these (|), and tuples of one of these.
"""

import inspect
import math
import re
from ast import literal_eval
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pellucid.errors import InputError
from pellucid.registry import choose

T = TypeVar("T")
_NOTHING = object()
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "none", str: "a text"}


@dataclass(frozen=True)
class Wording:
    """What a message calls a registered thing ("method"), one of its fields ("parameter"), and the option for it."""

    kind: str
    field: str
    option: str


def with_settings(thing: T, name: str, given: Sequence[str], wording: Wording) -> T:
    """`thing`, registered as `name`, with settings like "bias=absdot"; InputError lists the valid names or values."""
    hints = hints_of(thing)
    values: dict[str, object] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"{wording.option} takes name=value; seen {text!r}.")
        if not hints:
            raise InputError(f"The {wording.kind} {name!r} has no {wording.field}s; leave out {wording.option} {text}.")
        choose(f"{wording.field} of {name}", key, list(hints))
        found = _parsed(hints[key], value)
        if found is _NOTHING:
            raise InputError(
                f"{wording.option} {text} does not fit {name}: {key} is {describe(hints[key])}, by default "
                f"{shown(getattr(thing, key))!r}."
            )
        values[key] = found
    return replace(thing, **values) if values else thing  # type: ignore[type-var]


def hints_of(thing: object) -> dict[str, Any]:
    """The types of the settings, by name."""
    named = fields(thing)  # type: ignore[arg-type]
    if any(isinstance(f.type, str) for f in named):  # a module that postpones its annotations
        hints = get_type_hints(type(thing))
        return {f.name: hints[f.name] for f in named}
    return {f.name: f.type for f in named}


def defaults_of(thing: object) -> dict[str, Any]:
    """The settings as they are, by name."""
    return {key: getattr(thing, key) for key in hints_of(thing)}


def choices_of(thing: object) -> dict[str, str]:
    """What each setting may be, in words."""
    return {key: describe(hint) for key, hint in hints_of(thing).items()}


def summary_of(thing: object) -> str:
    """The first line of the class's documentation."""
    return (type(thing).__doc__ or "").strip().partition("\n")[0].strip()


def at_length(thing: object, name: str, wording: Wording, facts: Sequence[str]) -> str:
    """The documentation of a registered thing, what else is known of it, and its settings as one would give them."""
    values, choices = defaults_of(thing), choices_of(thing)
    lines = [f"{name}: {inspect.cleandoc(type(thing).__doc__ or '')}", "", *facts]
    given = [f"  {wording.option} {key}={shown(value)}: {choices[key]}" for key, value in values.items()]
    return "\n".join(lines + ([] if not given else [f"{wording.field.capitalize()}s:", *given]))


def shown(value: object) -> object:
    """A setting as one would type it: a tuple (or list, as read from JSON) between commas, all else as it is."""
    return ",".join(map(str, value)) or "()" if isinstance(value, (tuple, list)) else value


def describe(hint: Any) -> str:
    """What a setting of that type may be, in words."""
    words = []
    for kind in _kinds(hint):
        if get_origin(kind) is Literal:
            words += [str(v) for v in get_args(kind)]
        elif get_origin(kind) is tuple:
            inner = [describe(k) for k in get_args(kind) if k is not Ellipsis]
            several = "several" if Ellipsis in get_args(kind) else f"all {len(inner)}"
            words.append(f"{', then '.join(inner)} ({several} between commas)")
        else:
            words.append(_WORDS.get(kind, str(kind)))
    return " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def fits(hint: Any, value: object) -> bool:
    """Whether a value given in Python is of the setting's type."""
    return any(_of_kind(kind, value, "") is not _NOTHING for kind in _kinds(hint))


def _parsed(hint: Any, text: str) -> object:
    """A setting's text as a value of its type; _NOTHING if it is none."""
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = _named(text)
    kinds = _kinds(hint)
    for kind in kinds:
        found = _of_kind(kind, value, text)
        if found is not _NOTHING:
            return found
    return text if str in kinds else _NOTHING


def _named(text: str) -> object:
    words: Mapping[str, object] = {"true": True, "false": False, "none": None}
    return words.get(text.lower(), text)


def _of_kind(kind: Any, value: object, text: str) -> object:
    if get_origin(kind) is Literal:
        return next((v for v in get_args(kind) if (type(v) is type(value) and v == value) or str(v) == text), _NOTHING)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, text)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value) if math.isfinite(value) else _NOTHING
        return _NOTHING
    return value if isinstance(kind, type) and type(value) is kind else _NOTHING


def _tuple(kinds: tuple[Any, ...], value: object, text: str) -> object:
    """Elements between commas, or a tuple as Python writes it ("()" is the empty one)."""
    parts = [str(v) for v in value] if isinstance(value, (tuple, list)) else [p.strip() for p in text.split(",")]
    inner = [kinds[0]] * len(parts) if Ellipsis in kinds else list(kinds)
    if len(parts) != len(inner):
        return _NOTHING
    found = [_parsed(kind, part) for kind, part in zip(inner, parts, strict=True)]
    return _NOTHING if any(f is _NOTHING for f in found) else tuple(found)


def seconds_of(budget: str | float | None) -> float | None:
    """A time such as "90s", "5m", "1.5h", or a number of seconds; None stays None."""
    if budget is None:
        return None
    if isinstance(budget, int | float) and not isinstance(budget, bool) and 0 < budget < math.inf:
        return float(budget)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(budget))
    if match is None or float(match[1]) <= 0:
        raise InputError(f"The budget (--budget) is a time such as 90s, 5m or 1h; seen {budget!r}.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
