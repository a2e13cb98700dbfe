"""Methods for people: what can be told of one without a model, and its parameters read from text."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from textwrap import fill
from typing import Any

from pellucid.methods.method import METHODS, Guarantees, Method
from pellucid.settings import Wording, at_length, choices_of, defaults_of, summary_of, with_settings

WORDING = Wording("method", "parameter", "--param")


def method_with(name: str, params: Sequence[str]) -> Method:
    """The registered method with parameters like "bias=absdot"; InputError lists the valid names or values."""
    return with_settings(METHODS.get(name), name, params, WORDING)


def about(method: Method) -> dict[str, Any]:
    """What can be told of a method without a model, JSON-ready; guarantees are those that hold on any model."""
    return {
        "name": method.name,
        "summary": summary_of(method),
        "needs": method.needs.name,
        "unit": method.unit,
        **asdict(method.guarantees(None)),
        "source": method.source,
        "caution": method.caution,
        "params": defaults_of(method),
        "choices": choices_of(method),
    }


def explained_at_length(method: Method) -> str:
    """A method's documentation, then its guarantees and parameters."""
    entry = about(method)
    holds = ", ".join(f.name for f in fields(Guarantees) if entry[f.name]) or "nothing"
    facts = [f"Needs {entry['needs']} access.", f"Holds with these parameters on any model: {holds}."]
    facts += [fill(f"When not to trust it: {method.caution}", 112, break_on_hyphens=False)] if method.caution else []
    return at_length(method, method.name, WORDING, facts)
