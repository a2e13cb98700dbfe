"""Methods for people: what can be told of one without a model, and its parameters read from text."""

import inspect
from ast import literal_eval
from collections.abc import Sequence
from dataclasses import Field, asdict, fields, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pellucid.errors import InputError
from pellucid.methods.method import METHODS, Guarantees, Method
from pellucid.registry import choose


def method_with(name: str, params: Sequence[str]) -> Method:
    """The registered method with parameters like "bias=absdot"; InputError lists the valid names or values."""
    method = METHODS.get(name)
    known = {f.name: f for f in fields(method)}  # type: ignore[arg-type]
    values: dict[str, object] = {}
    for param in params:
        key, equals, text = param.partition("=")
        if not equals:
            raise InputError(f"--param takes name=value; seen {param!r}.")
        if not known:
            raise InputError(f"The method {name!r} has no parameters; leave out --param {param}.")
        values[key] = _parsed(name, known[choose(f"parameter of {name}", key, list(known))], text)
    return replace(method, **values) if values else method  # type: ignore[type-var]


def _parsed(method: str, field: "Field[Any]", text: str) -> object:
    """A parameter's text as a value of the field's type."""
    try:
        value = literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    for kind in _kinds(field.type):
        if get_origin(kind) is Literal:
            found = [v for v in get_args(kind) if v == value or str(v) == text]
            if found:
                return found[0]
        elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        elif isinstance(kind, type) and type(value) is kind:
            return value
    raise InputError(
        f"--param {field.name}={text} does not fit {method}: {field.name} is {describe(field)}, by default "
        f"{field.default!r}."
    )


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if hint is not None and get_origin(hint) not in (None, Literal) else (hint,)


def describe(field: "Field[Any]") -> str:
    """What a method's parameter may be, in words."""
    names = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "none", str: "a text"}
    words = []
    for kind in _kinds(field.type):
        words += [str(v) for v in get_args(kind)] if get_origin(kind) is Literal else [names.get(kind, str(kind))]
    return " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"


def about(method: Method) -> dict[str, Any]:
    """What can be told of a method without a model, JSON-ready; guarantees are those that hold on any model."""
    holds = asdict(method.guarantees(None))
    params = fields(method)  # type: ignore[arg-type]
    return {
        "name": method.name,
        "summary": (method.__doc__ or "").strip().splitlines()[0],
        "needs": method.needs.name,
        "unit": method.unit,
        **holds,
        "source": method.source,
        "params": {f.name: getattr(method, f.name) for f in params},
        "choices": {f.name: describe(f) for f in params},
    }


def explained_at_length(method: Method) -> str:
    """A method's documentation, then its guarantees and parameters."""
    entry = about(method)
    holds = [f.name for f in fields(Guarantees) if entry[f.name]]
    lines = [f"{entry['name']}: {inspect.cleandoc(method.__doc__ or '')}", "", f"Needs {entry['needs']} access."]
    lines.append(f"Holds with these parameters on any model: {', '.join(holds) or 'nothing'}.")
    params = [f"  --param {k}={v}: {entry['choices'][k]}" for k, v in entry["params"].items()]
    return "\n".join(lines + ([] if not params else ["Parameters:", *params]))
