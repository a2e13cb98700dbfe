"""Every audit, by name and by class; importing this registers them, in the order in which they are listed."""

from pellucid.audits.audit import AUDITS, Audit, register
from pellucid.audits.identifiability.audit import Identifiability
from pellucid.audits.identity import TokenIdentity
from pellucid.audits.mixing import Mixing

__all__ = ["AUDITS", "Audit", "Identifiability", "Mixing", "TokenIdentity", "register"]
