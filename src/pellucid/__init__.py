"""Pellucid: which tokens made this decision, and may the model's attention be read as that explanation?"""

from pathlib import Path

from pellucid import errors, methods
from pellucid._version import __version__
from pellucid.encoder.load import load
from pellucid.encoder.model import Access, Model
from pellucid.families import FAMILIES
from pellucid.methods import METHODS
from pellucid.records import read_records, write_records
from pellucid.run import explain
from pellucid.types import Attribution, Batch, Target, Token

DEMO = Path(__file__).parent / "demo"
"""The folder of the bundled demo model: a two-layer BERT for film-review sentences (see its README.md)."""

__all__ = [
    "DEMO",
    "FAMILIES",
    "METHODS",
    "Access",
    "Attribution",
    "Batch",
    "Model",
    "Target",
    "Token",
    "__version__",
    "errors",
    "explain",
    "load",
    "methods",
    "read_records",
    "write_records",
]
