"""The answer: every audit within a time budget, judged by rules that are data, with limits and what would change it."""

from pellucid.verdict.verdict import Answer, Case, Sampled, Verdict
from pellucid.verdict.whole import audit_all

__all__ = ["Answer", "Case", "Sampled", "Verdict", "audit_all"]
