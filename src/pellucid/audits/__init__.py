"""Every audit, by name and by class; importing this registers them, in the order in which they are listed."""

from pellucid.audits.audit import AUDITS, Audit, register

__all__ = ["AUDITS", "Audit", "register"]
