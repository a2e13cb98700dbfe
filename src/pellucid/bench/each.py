"""Explanations of many texts, of which one that fails is told and stops nothing."""

from collections.abc import Sequence

import numpy as np

from pellucid.attribution import Attribution
from pellucid.encoder.model import Model
from pellucid.errors import PellucidError
from pellucid.methods import Method
from pellucid.run import explain
from pellucid.types import Batch, TargetSpec, Text

Seen = list[Attribution | str]
"""One attribution per text, or why there is none."""


def attributions(
    model: Model,
    x: Sequence[Text] | Batch,
    method: Method,
    targets: Sequence[TargetSpec],
    batch_tokens: int | None = None,
) -> Seen:
    """One attribution per text, or why there is none: the method raised there, or gave scores that are not finite.

    All texts at once; only if that raises, one by one, so that the failure is that of a text.
    """
    try:
        found: Seen = list(explain(model, x, method, list(targets), batch_tokens=batch_tokens))
    except Exception as e:
        if len(x) == 1:
            return [said(e)]
        alone = (x.rows([i]) if isinstance(x, Batch) else [x[i]] for i in range(len(x)))
        return [attributions(model, one, method, [t], batch_tokens)[0] for one, t in zip(alone, targets, strict=True)]
    return [a if isinstance(a, str) else _finite(a) for a in found]


def _finite(a: Attribution) -> Attribution | str:
    bad = int((~np.isfinite(a.scores)).sum())
    return f"{bad} of {len(a.scores)} scores are not finite." if bad else a


def said(e: Exception) -> str:
    """An exception as one line: our own sentences as they are, others' with their kind."""
    line = (str(e).strip().splitlines() or [""])[0]
    return line if isinstance(e, PellucidError) else f"{type(e).__name__}: {line}"
