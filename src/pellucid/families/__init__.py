"""The architectures whose network Pellucid rebuilds from weight names; importing this registers them."""

from pellucid.families import bert_like, modernbert, zoo
from pellucid.families.table import FAMILIES, Family

__all__ = ["FAMILIES", "Family", "bert_like", "modernbert", "zoo"]
