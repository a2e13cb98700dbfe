"""From texts to results over a whole data set: `explain` and `audit`."""

from pellucid.run.auditing import audit
from pellucid.run.explaining import explain

__all__ = ["audit", "explain"]
