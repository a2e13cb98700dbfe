"""Audits for people: what can be told of one without a model, and its settings read from text."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from pellucid.audits.audit import AUDITS, Audit
from pellucid.settings import Wording, at_length, choices_of, defaults_of, summary_of, with_settings

WORDING = Wording("audit", "setting", "--setting")


def audit_with(name: str, given: Sequence[str]) -> Audit:
    """The registered audit with settings like "seed=1"; InputError lists the valid names or values."""
    return with_settings(AUDITS.get(name), name, given, WORDING)


def about(audit: Audit) -> dict[str, Any]:
    """What can be told of an audit without a model, JSON-ready."""
    return {
        "name": audit.name,
        "summary": summary_of(audit),
        "needs": audit.needs.name,
        "source": audit.source,
        "caution": audit.caution,
        "settings": defaults_of(audit),
        "choices": choices_of(audit),
    }


def explained_at_length(audit: Audit) -> str:
    """An audit's documentation, then what it needs, its source and its settings."""
    facts = [f"Needs {audit.needs.name} access.", f"Source: {audit.source}."]
    facts += [fill(f"When not to trust it: {audit.caution}", 112, break_on_hyphens=False)] if audit.caution else []
    return at_length(audit, audit.name, WORDING, facts)
