"""What a comparison is asked for: methods under their labels, metrics with their operators."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from pellucid.encoder.model import Model
from pellucid.errors import InputError, MissingExtra
from pellucid.methods.catalog import method_with
from pellucid.methods.method import Method
from pellucid.methods.operators import OPERATORS, Operator, check_operator
from pellucid.metrics import CONTROLS, METRICS, Metric
from pellucid.registry import choose

PANEL = (
    "decompx",
    "integrated_decompx",
    "deeplift_mask",
    "gradient_x_input",
    "integrated_gradients",
    "integrated_gradients_mask",
    "attention",
    "rollout",
    "globenc",
    "leave_one_out",
)
"""What is compared where nothing is asked for: of each family what is used most; `random` comes with it."""
USUAL = ("aopc", "aopc_least", "comprehensiveness", "sufficiency", "leave_one_out_tau")
LIKENESS = ("token_f1", "iou_f1", "auprc")
"""Added where people marked rationales."""
RANDOM, BOUND = "random", "greedy"


@dataclass(frozen=True)
class Asked:
    """One metric of a comparison, by one operator if it is one of faithfulness."""

    metric: Metric[Any]
    operator: Operator | None

    @property
    def key(self) -> str:
        """The name in tables and files, such as "aopc:mask"."""
        return self.metric.name if self.operator is None else f"{self.metric.name}:{self.operator}"

    @property
    def label(self) -> str:
        """The same with the arrow."""
        return f"{self.key} {'↑' if self.metric.arrow > 0 else '↓'}"


Given = Sequence[str | Method] | Mapping[str, str | Method]
"""Methods by name, "name(field=value, ...)" or as instances; a mapping labels them itself."""


def named(given: str | Given, seed: int) -> dict[str, Method]:
    """Methods by label; those given by name take `seed` where they have one.

    Raises: InputError for an unknown name or setting, something that is no method, or two under one label.
    """
    given = [given] if isinstance(given, str) else given
    asked = list(given.items()) if isinstance(given, Mapping) else [(_label(one), one) for one in given]
    if not asked:
        raise InputError("No method was named; leave the methods out for a panel of the field.")
    labels = [label for label, _ in asked]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f"The method {label!r} was given twice; name them in a mapping: {{'a': first, 'b': second}}."
            )
    return {label: one if isinstance(one, Method) else _parsed(one, seed) for label, one in asked}


def _label(one: object) -> str:
    return one.name if isinstance(one, Method) else str(one).strip()


def methods_of(model: Model, given: str | Given | None, seed: int) -> tuple[dict[str, Method], list[str]]:
    """Methods by label, and the sentences about what was left out. `random` is always among them.

    given: see `named`; None: those of PANEL that the model's access and tokenizer allow.
    Raises: as `named`; AccessError for a method that was asked for and needs more of the model than it gives.
    """
    found, left = named(PANEL if given is None else given, seed), []
    for label in (RANDOM, *CONTROLS):
        if label in found and found[label].name != label:
            raise InputError(f"The label {label!r} is that of a control; call {found[label].name!r} something else.")
    found.setdefault(RANDOM, _parsed(RANDOM, seed))
    for label, method in list(found.items()):
        if given is not None:
            model.require(method.needs, f"The method {label!r}")
        elif why := _out_of_reach(model, method):
            left.append(f"{label} is left out: {why}")
            del found[label]
    return found, left


def _parsed(text: object, seed: int) -> Method:
    """A method from its name, or its name with parameters between brackets."""
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f"A method is a name, name(field=value, ...), or an instance; seen {text!r}.")
    pairs = [pair.strip() for pair in (match[2] or "").split(",") if pair.strip()]
    method = method_with(match[1], pairs)
    seeded = hasattr(method, "seed") and not any(pair.startswith("seed=") for pair in pairs)
    return replace(method, seed=seed) if seeded else method  # type: ignore[type-var]


def _out_of_reach(model: Model, method: Method) -> str | None:
    """Why a method of the panel cannot run on this model; None if it can."""
    if model.access < method.needs:
        return f"it needs {method.needs.name} access, and {model.id} gives {model.access.name}."
    stands_in = getattr(method, "operator", getattr(method, "baseline", None))
    if stands_in in ("mask", "pad"):
        try:
            check_operator(model, str(stands_in))
        except InputError as e:
            return str(e)
    return None


def metrics_of(
    model: Model, given: str | Sequence[str] | None, operators: str | Sequence[str], rationales: bool, labels: bool
) -> list[Asked]:
    """The metrics, each with its operator: "aopc:delete" has its own, "aopc" takes all of `operators`.

    Raises: InputError for an unknown metric or operator, one that the model's tokenizer cannot do, a metric of
    plausibility without rationales, or of accuracy without labels.
    """
    given, operators = ([x] if isinstance(x, str) else x for x in (given, operators))  # type: ignore[assignment]
    names = given if given is not None else [*USUAL, *(LIKENESS if rationales else ())]
    if not names or not operators:
        raise InputError("A comparison needs at least one metric and one operator.")
    found: dict[str, Asked] = {}
    for name in (n.strip() for n in names):
        base, colon, operator = name.partition(":")
        metric = METRICS.get(base)
        if metric.kind != "faithfulness" and colon:
            raise InputError(
                f"The metric {base!r} erases nothing, so it has no operator; ask for it without {operator!r}."
            )
        if metric.kind == "plausibility" and not rationales:
            raise InputError(
                f"The metric {base!r} compares with what people marked: give rationales (--rationale-column NAME)."
            )
        if base == "auprc" and find_spec("sklearn") is None:
            raise MissingExtra("The metric 'auprc' needs scikit-learn: pip install 'pellucid[info]'.")
        if base.startswith("accuracy") and not labels:
            raise InputError(f"The metric {base!r} compares with the true class: give labels (--label-column NAME).")
        for op in ([operator] if colon else operators) if metric.kind == "faithfulness" else [None]:
            if op is not None:
                check_operator(model, choose("operator", op, list(OPERATORS)))
            asked = Asked(metric, op)  # type: ignore[arg-type]
            found[asked.key] = asked
    return list(found.values())


def for_operator(method: Method, operator: Operator | None) -> Method:
    """The method as it ranks for an operator: the bound takes tokens away as the metric does; others do not care."""
    bound = operator is not None and method.name == BOUND
    return replace(method, operator=operator) if bound else method  # type: ignore[type-var]


def is_control(label: str, method: Method | None) -> bool:
    """Whether a row is there to be compared with: random, the greedy bound, rankings that look at no model."""
    return label in CONTROLS or (method is not None and method.source == "control")
