"""Pellucid: which tokens made this decision, and may the model's attention be read as that explanation?

Names are imported when they are first used, so that `pellucid --help` does not wait for torch.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid._version import __version__

if TYPE_CHECKING:
    from pellucid import audits, bench, errors, methods, metrics, zoo
    from pellucid.attribution import Attribution
    from pellucid.audits import AUDITS
    from pellucid.bench import Comparison, compare
    from pellucid.encoder.load import load
    from pellucid.encoder.model import Access, Model
    from pellucid.families import FAMILIES
    from pellucid.finding import Finding, Findings
    from pellucid.methods import METHODS
    from pellucid.metrics import METRICS
    from pellucid.records import read_records, write_records
    from pellucid.run import audit, explain
    from pellucid.types import Batch, Target, Token
    from pellucid.verdict import Verdict, audit_all

DEMO = Path(__file__).parent / "demo"
"""The folder of the bundled demo model: a two-layer BERT for film-review sentences (see its README.md)."""

_HOME = {
    "load": "encoder.load",
    "Access": "encoder.model",
    "Model": "encoder.model",
    "FAMILIES": "families",
    "METHODS": "methods",
    "METRICS": "metrics",
    "read_records": "records",
    "write_records": "records",
    "audit": "run",
    "audit_all": "verdict",
    "Verdict": "verdict",
    "explain": "run",
    "AUDITS": "audits",
    "Finding": "finding",
    "Findings": "finding",
    "Attribution": "attribution",
    "Comparison": "bench",
    "compare": "bench",
    "Batch": "types",
    "Target": "types",
    "Token": "types",
}

__all__ = [
    "AUDITS",
    "DEMO",
    "FAMILIES",
    "METHODS",
    "METRICS",
    "Access",
    "Attribution",
    "Batch",
    "Comparison",
    "Finding",
    "Findings",
    "Model",
    "Target",
    "Token",
    "Verdict",
    "__version__",
    "audit",
    "audit_all",
    "audits",
    "bench",
    "compare",
    "errors",
    "explain",
    "load",
    "methods",
    "metrics",
    "read_records",
    "write_records",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in ("audits", "bench", "errors", "methods", "metrics", "zoo"):
        return import_module(f"pellucid.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"pellucid.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
