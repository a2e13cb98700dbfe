"""Every method, by name and by class; importing this registers them, in the order in which they are listed."""

from pellucid.methods.decompx import DecompX
from pellucid.methods.attention import Attention, Rollout
from pellucid.methods.relevance import AttentionXGradient, Flow, GenericAttention
from pellucid.methods.effective import EffectiveAttention, MaxEntropyAttention
from pellucid.methods.hta import HTA
from pellucid.methods.gradient import Gradient, IntegratedGradients
from pellucid.methods.sampling import GradientShap, SmoothGrad
from pellucid.methods.deeplift import DeepLift
from pellucid.methods.integrated import IntegratedDecompX
from pellucid.methods.method import METHODS, Guarantees, Method, Scores, register
from pellucid.methods.norms import ALTI, AttentionNorm, GlobEnc
from pellucid.methods.perturb import LeaveOneOut, Random
from pellucid.methods.surrogate import KernelShap, Lime, Occlusion, SampledShapley
from pellucid.methods.greedy import Greedy
from pellucid.methods.sequential import SequentialDecompX
from pellucid.methods.pointwise import PointwiseInformation, Probe
from pellucid.methods.zeroing import ValueZeroing

__all__ = [
    "ALTI",
    "HTA",
    "METHODS",
    "Attention",
    "AttentionNorm",
    "AttentionXGradient",
    "DecompX",
    "DeepLift",
    "EffectiveAttention",
    "Flow",
    "GenericAttention",
    "GlobEnc",
    "Gradient",
    "GradientShap",
    "Greedy",
    "Guarantees",
    "IntegratedDecompX",
    "IntegratedGradients",
    "KernelShap",
    "LeaveOneOut",
    "Lime",
    "MaxEntropyAttention",
    "Method",
    "Occlusion",
    "PointwiseInformation",
    "Probe",
    "Random",
    "Rollout",
    "SampledShapley",
    "Scores",
    "SequentialDecompX",
    "SmoothGrad",
    "ValueZeroing",
    "register",
]
