"""How many texts each part of the work looks at, from a time budget: the same on every machine, then held to the clock.

Costs are counted for a reference machine, so that the same call takes the same texts wherever it runs. The clock only
cuts where a machine is slower than that, and the verdict then says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.audits.audit import ENOUGH
from pellucid.encoder.model import Access, Model

START = 0.12
"""Of the budget, for opening the model, the figures and the report."""
SLOW = 30e9
"""Floating-point operations per second of the reference machine, two cores of 2020, as such small models use them."""


@dataclass(frozen=True)
class Size:
    """What costs depend on: layers, heads, width of the model; mean tokens of a text; seconds of one forward pass."""

    layers: int
    heads: int
    width: int
    tokens: float
    methods: int

    @property
    def forward(self) -> float:
        """One text, one pass."""
        n, d = self.tokens, self.width
        return 0.002 + 0.0008 * self.layers + self.layers * (24 * d * d * n + 4 * n * n * d) / SLOW


def size_of(model: Model, lengths: Sequence[int], methods: int) -> Size:
    """Of a model and the lengths of texts, in tokens."""
    layers = [] if model.net is None else model.net.layers
    width = layers[0].o.w.shape[0] if layers else 256
    heads = layers[0].heads if layers else 1
    return Size(max(1, len(layers)), heads, width, float(np.mean(lengths)), methods)


@dataclass(frozen=True)
class Part:
    """One part of the work. share: of the budget, if all parts want more than they get. most: texts beyond which more
    would tell little. fixed, each: seconds in all and per text, of a size. needs: access; least: texts below which it
    is not worth its start."""

    name: str
    share: float
    most: int
    needs: Access
    each: Callable[[Size], float]
    fixed: Callable[[Size], float] = lambda s: 0.5
    least: int = ENOUGH


PARTS = (
    Part("erasure", 0.2, 400, Access.READOUT, lambda s: 0.05 + 12 * s.forward + 0.001 * s.tokens),
    Part("comparison", 0.2, 200, Access.OUTPUTS,
         lambda s: 0.02 + (20 * s.methods + 2 * s.tokens) * s.forward * 0.15, lambda s: 2.0),
    Part("identifiability", 0.2, 200, Access.READOUT,
         lambda s: 8 * s.forward + 0.002 * s.layers * s.heads + 0.016 * s.tokens),
    Part("mixing", 0.1, 40, Access.ENCODER,
         lambda s: 0.03 * s.layers + min(s.tokens, 64) * s.forward * (s.layers + 1) / 14),
    Part("token_identity", 0.05, 400, Access.ENCODER, lambda s: s.forward + 0.004 * s.layers,
         lambda s: 0.5 + s.layers * (s.width / 384) ** 3),
    Part("information", 0.1, 500, Access.READOUT, lambda s: 0.06 + (2 + 0.25 * s.tokens) * s.forward,
         lambda s: 4.0 + 0.5 * s.layers),
    Part("words", 0.05, 2000, Access.READOUT, lambda s: 4 * s.forward, lambda s: 1.0),
    Part("calibration", 0.03, 5000, Access.OUTPUTS, lambda s: 4 * s.forward, lambda s: 1.0),
    Part("texts", 0.07, 24, Access.OUTPUTS, lambda s: 30 * s.forward + 0.012 * s.tokens, least=1),
    Part("erasure_heads", 0.1, 60, Access.ENCODER,
         lambda s: s.layers * s.heads * (0.002 + 0.05 * s.tokens * s.forward)),
)  # fmt: skip
"""In the order in which they are done."""


@dataclass(frozen=True)
class Planned:
    """Texts for one part, and the seconds that they should take; why there are none."""

    part: Part
    texts: int
    seconds: float
    why: str = ""


def planned(parts: Sequence[Part], size: Size, texts: int, budget: float | None) -> list[Planned]:
    """How many of `texts` each part looks at within `budget` seconds (None: all).

    Each part gets its share of what is left; what it does not need goes to the others. A part that could not look at
    its least number of texts is left out, the dearest first.
    """
    if budget is None:
        return [Planned(p, texts if p.name != "texts" else min(texts, p.most), 0.0) for p in parts]
    want = {p.name: min(texts, p.most) for p in parts}
    least = {p.name: min(texts, p.least) for p in parts}
    usable = budget * (1 - START)
    able, out = list(parts), dict[str, str]()
    while able and sum(_cost(p, least[p.name], size) for p in able) > usable:
        dear = max(able, key=lambda p: _cost(p, least[p.name], size) / p.share)
        able.remove(dear)
        need = _cost(dear, least[dear.name], size)
        out[dear.name] = (
            f"{least[dear.name]} texts would take about {need:.0f} s, for which a budget of {budget:.0f} s has no room."
        )
    chosen = _shared(able, size, usable, want, least)
    return [
        Planned(p, chosen[p.name], _cost(p, chosen[p.name], size)) if p in able else Planned(p, 0, 0.0, out[p.name])
        for p in parts
    ]


def _cost(part: Part, texts: int, size: Size) -> float:
    return part.fixed(size) + texts * part.each(size)


def _shared(
    parts: Sequence[Part], size: Size, usable: float, want: Mapping[str, int], least: Mapping[str, int]
) -> dict[str, int]:
    """Texts per part: parts that need less than their share free the rest for the others."""
    open_, left, chosen = list(parts), usable, dict[str, int]()
    while open_:
        total = sum(p.share for p in open_)
        full = [p for p in open_ if _cost(p, want[p.name], size) <= left * p.share / total]
        for p in full or open_:
            room = (left * p.share / total - p.fixed(size)) / p.each(size)
            chosen[p.name] = want[p.name] if full else max(least[p.name], min(want[p.name], int(room)))
        left -= sum(_cost(p, chosen[p.name], size) for p in full)
        open_ = [p for p in open_ if p not in full] if full else []
    return chosen
