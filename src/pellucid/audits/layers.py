"""What the audits that go layer by layer share: grades by rules, and curves over the layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pellucid.audits.audit import ENOUGH, TOO_FEW
from pellucid.finding import Finding
from pellucid.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Rule:
    """A grade and when it is given: the whole interval at `least`, at `most`, and above that of the control."""

    grade: str
    least: float = -np.inf
    most: float = np.inf
    above_control: bool = False

    def fits(self, found: Estimate, null: Estimate) -> bool:
        """Whether a measured value and its control keep to this rule."""
        if found.value is None or null.value is None:
            return False
        low, high = found.interval or (found.value, found.value)
        control = null.interval[1] if null.interval else null.value
        return low >= self.least and high <= self.most and (not self.above_control or low > control)


def graded(rules: Sequence[Rule], found: Estimate, null: Estimate) -> str:
    """The grade of the first rule that fits; TOO FEW TEXTS without a value or under `ENOUGH` texts."""
    if found.value is None or found.n < ENOUGH:
        return TOO_FEW
    return next(r.grade for r in rules if r.fits(found, null))


def place(layer: int) -> str:
    """The `where` of a finding about a layer counted from 0: layers are told to people counted from 1."""
    return f"layer {layer + 1}"


def by_layer(found: Sequence[Finding], labels: Mapping[str, str], ylabel: str, title: str) -> "Figure":
    """One curve per name of finding in `labels`, with its interval and, dashed, its control; shares from 0 to 1."""
    from pellucid.render.charts import Curve, curves

    series: dict[str, Curve] = {}
    control: dict[str, Curve] = {}
    for name, label in labels.items():
        mine = [f for f in found if f.name == name]
        x = [float(f.where.removeprefix("layer ")) for f in mine]
        ends = [f.interval or (f.value, f.value) for f in mine]
        series[label] = (x, [f.value for f in mine], [a for a, _ in ends], [b for _, b in ends])
        control[label] = (x, [f.null for f in mine], None, None)
    return curves(series, "layer", ylabel, title, control, (0.0, 1.02))
