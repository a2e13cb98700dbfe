"""What hidden states tell of a model's output: estimators of information in nats, right where the truth is known."""

from pellucid.audits.information.audit import InformationAudit, fit_probe
from pellucid.audits.information.baselines import binning_information, kernel_information, mine_information
from pellucid.audits.information.estimate import Information
from pellucid.audits.information.neighbours import projected_information, ross_information
from pellucid.audits.information.probe import probe_information

__all__ = [
    "Information",
    "InformationAudit",
    "binning_information",
    "fit_probe",
    "kernel_information",
    "mine_information",
    "probe_information",
    "projected_information",
    "ross_information",
]
