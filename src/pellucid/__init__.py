"""Pellucid: which tokens made this decision, and may the model's attention be read as that explanation?"""

from pellucid import errors, methods
from pellucid._version import __version__
from pellucid.encoder.load import load
from pellucid.encoder.model import Access, Model
from pellucid.families import FAMILIES
from pellucid.methods import METHODS
from pellucid.records import read_records, write_records
from pellucid.run import explain
from pellucid.types import Attribution, Batch, Target, Token

__all__ = [
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
