"""What this attention could have been: every function on plain arrays, and the audit of a model.

One head, one row: `weight_interval`, `weight_intervals`, `witness`, `key_constrained`. All heads of a batch: `rank`,
`null_space_dimension`, `effective_attention`, `max_entropy_attention`. All heads of a layer together: `joint`.
"""

from pellucid.audits.identifiability.joint import Joint, joint
from pellucid.audits.identifiability.keys import KeyConstrained, free_dimension, key_constrained
from pellucid.audits.identifiability.polytope import Witness, weight_interval, weight_intervals, witness
from pellucid.audits.identifiability.subspace import Rank, null_space_dimension, rank
from pellucid.methods.effective import effective_attention, max_entropy_attention

__all__ = [
    "Joint",
    "KeyConstrained",
    "Rank",
    "Witness",
    "effective_attention",
    "free_dimension",
    "joint",
    "key_constrained",
    "max_entropy_attention",
    "null_space_dimension",
    "rank",
    "weight_interval",
    "weight_intervals",
    "witness",
]
