"""Every audit, by name and by class; importing this registers them, in the order in which they are listed."""

from pellucid.audits.audit import AUDITS, Audit, register
from pellucid.audits.calibration import Calibration
from pellucid.audits.erasure.audit import Erasure
from pellucid.audits.erasure.heads import ErasureHeads
from pellucid.audits.identifiability.audit import Identifiability
from pellucid.audits.identity import TokenIdentity
from pellucid.audits.information import InformationAudit
from pellucid.audits.mixing import Mixing
from pellucid.audits.words import Words

__all__ = [
    "AUDITS",
    "Audit",
    "Calibration",
    "Erasure",
    "ErasureHeads",
    "Identifiability",
    "InformationAudit",
    "Mixing",
    "TokenIdentity",
    "Words",
    "register",
]
