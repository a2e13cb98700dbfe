"""The comparison of methods: on a user's texts, on planted truth, and whether they see the model at all."""

from pellucid.bench.asked import PANEL, USUAL
from pellucid.bench.comparison import Cell, Comparison, Cost
from pellucid.bench.running import compare
from pellucid.bench.sanity import randomised_labels, randomised_weights
from pellucid.bench.truth import Planted, planted

__all__ = [
    "PANEL",
    "USUAL",
    "Cell",
    "Comparison",
    "Cost",
    "Planted",
    "compare",
    "planted",
    "randomised_labels",
    "randomised_weights",
]
