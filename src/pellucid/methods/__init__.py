"""Every method, by name and by class; importing this registers them, in the order in which they are listed."""

from pellucid.methods.decompx import DecompX
from pellucid.methods.attention import Attention, Rollout
from pellucid.methods.gradient import Gradient, IntegratedGradients
from pellucid.methods.method import METHODS, Guarantees, Method, Scores, register
from pellucid.methods.perturb import LeaveOneOut, Random

__all__ = [
    "METHODS",
    "Attention",
    "DecompX",
    "Gradient",
    "Guarantees",
    "IntegratedGradients",
    "LeaveOneOut",
    "Method",
    "Random",
    "Rollout",
    "Scores",
    "register",
]
