"""Every metric, by name; importing this registers them, in the order in which they are listed."""

from pellucid.methods.operators import OPERATORS, Operator, check_operator, erased_logits
from pellucid.metrics.faithfulness import normalised
from pellucid.metrics.measured import SHARES, Measured, decided, gold_of, measure, ranked
from pellucid.metrics.metric import METRICS, Metric, register
from pellucid.metrics.plausibility import CONTROLS, Annotated, Span, annotate, longest_words, marked, random_scores
from pellucid.metrics.stability import LEAST, Duplicates, Pair, near_duplicates

__all__ = [
    "CONTROLS",
    "LEAST",
    "METRICS",
    "OPERATORS",
    "SHARES",
    "Annotated",
    "Duplicates",
    "Measured",
    "Metric",
    "Operator",
    "Pair",
    "Span",
    "annotate",
    "check_operator",
    "decided",
    "erased_logits",
    "gold_of",
    "longest_words",
    "marked",
    "measure",
    "near_duplicates",
    "normalised",
    "random_scores",
    "ranked",
    "register",
]
