"""Every method, by name and by class; importing this registers them, in the order in which they are listed."""

from pellucid.methods.decompx import DecompX
from pellucid.methods.attention import Attention, Rollout
from pellucid.methods.effective import EffectiveAttention, MaxEntropyAttention
from pellucid.methods.hta import HTA
from pellucid.methods.gradient import Gradient, IntegratedGradients
from pellucid.methods.method import METHODS, Guarantees, Method, Scores, register
from pellucid.methods.perturb import LeaveOneOut, Random
from pellucid.methods.pointwise import PointwiseInformation, Probe

__all__ = [
    "HTA",
    "METHODS",
    "Attention",
    "DecompX",
    "EffectiveAttention",
    "Gradient",
    "Guarantees",
    "IntegratedGradients",
    "LeaveOneOut",
    "MaxEntropyAttention",
    "Method",
    "PointwiseInformation",
    "Probe",
    "Random",
    "Rollout",
    "Scores",
    "register",
]
