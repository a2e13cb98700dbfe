"""How many texts each part of the work looks at, from a time budget: the same on every machine, then held to the clock.

Costs are counted for a reference machine, so that the same call takes the same texts wherever it runs. The clock only
cuts where a machine is slower than that, and the verdict then says so.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pellucid.audits.audit import ENOUGH
from pellucid.encoder.model import Access, Model
from pellucid.types import Batch

START = 0.12
"""Of the budget, for opening the model, the figures and the report."""
SLOW = 30e9
"""Floating-point operations per second of the reference machine, two cores of 2020, as such small models use them."""


@dataclass(frozen=True)
class Size:
    """What costs depend on: layers, heads, width of the model; tokens of a text (the root of their mean square);
    methods that are compared; and how many times slower than the reference machine this one is."""

    layers: int
    heads: int
    width: int
    tokens: float
    methods: int
    slow: float = 1.0

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
    tokens = float(np.sqrt(np.mean(np.square(lengths))))  # one long text among short ones costs more than its share
    return Size(max(1, len(layers)), heads, width, tokens, methods)


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

    def cost(self, texts: int, size: Size) -> float:
        """Counted seconds."""
        return size.slow * (self.fixed(size) + texts * self.each(size))

    def room(self, seconds: float, size: Size) -> int:
        """How many texts `seconds` are enough for."""
        return max(0, int((seconds / size.slow - self.fixed(size)) / self.each(size)))


PARTS = (
    Part("erasure", 0.2, 400, Access.READOUT, lambda s: 0.05 + 12 * s.forward + 0.001 * s.tokens),
    Part("comparison", 0.2, 200, Access.OUTPUTS,
         lambda s: 0.02 + (20 * s.methods + 2 * s.tokens) * s.forward * 0.15, lambda s: 2.0),
    Part("texts", 0.07, 24, Access.OUTPUTS, lambda s: 30 * s.forward + 0.012 * s.tokens, least=8),
    Part("identifiability", 0.2, 200, Access.READOUT,
         lambda s: 8 * s.forward + 0.002 * s.layers * s.heads + 0.016 * s.tokens),
    Part("calibration", 0.08, 5000, Access.OUTPUTS, lambda s: 2 * s.forward, lambda s: 1.0),
    Part("words", 0.1, 2000, Access.READOUT, lambda s: 2 * s.forward, lambda s: 1.0),
    Part("information", 0.1, 500, Access.READOUT,
         lambda s: 0.06 + (2 + 0.25 * s.tokens) * s.forward + 0.2 * s.layers * s.width / 384,
         lambda s: 4.0 + 0.5 * s.layers),
    Part("mixing", 0.1, 40, Access.ENCODER,
         lambda s: 0.03 * s.layers + 1.2 * min(s.tokens, 64) * s.forward * (s.layers + 1)),
    Part("token_identity", 0.05, 400, Access.ENCODER, lambda s: s.forward + 0.004 * s.layers,
         lambda s: 0.5 + s.layers * (s.width / 384) ** 3),
    Part("erasure_heads", 0.1, 60, Access.ENCODER,
         lambda s: s.layers * s.heads * (0.002 + 0.05 * s.tokens * s.forward)),
)  # fmt: skip
"""In the order in which they are done, which is that of their weight: where time is short, the later ones suffer."""


@dataclass(frozen=True)
class Planned:
    """Texts for one part, and the seconds that they should take; why there are none."""

    part: Part
    texts: int
    seconds: float
    why: str = ""


TOLERATED = 1.6
"""Times the counted seconds of a forward pass up to which a machine passes for the reference machine."""


def pace(model: Model, batch: Batch, size: Size) -> float:
    """How many times slower than the reference machine this one is, from a few forward passes; 1 up to TOLERATED."""
    some = [batch.rows([i]) for i in range(min(6, len(batch)))]
    model.logits(some[0])
    counted = measured = 0.0
    for one in some:
        start = time.perf_counter()
        model.logits(one)
        measured += time.perf_counter() - start
        counted += replace(size, tokens=float(one.lengths[0])).forward
    return measured / counted if measured > TOLERATED * counted else 1.0


def planned(parts: Sequence[Part], size: Size, texts: int, budget: float | None) -> list[Planned]:
    """How many of `texts` each part looks at within `budget` seconds (None: all).

    Each part gets its share of what is left; what it does not need goes to the others. Where not all parts could look
    at their least number of texts, the last ones are left out.
    """
    if budget is None:
        return [Planned(p, texts if p.name != "texts" else min(texts, p.most), 0.0) for p in parts]
    want = {p.name: min(texts, p.most) for p in parts}
    least = {p.name: min(texts, p.least) for p in parts}
    usable = budget * (1 - START)
    able, out = list(parts), dict[str, str]()
    while able and sum(p.cost(least[p.name], size) for p in able) > usable:
        last = able.pop()
        need = last.cost(least[last.name], size)
        out[last.name] = (
            f"{least[last.name]} texts would take about {need:.0f} s, for which a budget of {budget:.0f} s has no room "
            "beside what comes first."
        )
    chosen = _shared(able, size, usable, want, least)
    return [
        Planned(p, chosen[p.name], p.cost(chosen[p.name], size)) if p in able else Planned(p, 0, 0.0, out[p.name])
        for p in parts
    ]


def _shared(
    parts: Sequence[Part], size: Size, usable: float, want: Mapping[str, int], least: Mapping[str, int]
) -> dict[str, int]:
    """Texts per part: what a part leaves of its share, as it needs less, goes to the others; a part whose least number
    of texts takes more than its share gets that, from the others."""
    open_, left, chosen = list(parts), usable, dict[str, int]()
    while open_:
        total = sum(p.share for p in open_)
        share = {p.name: left * p.share / total for p in open_}
        fixed = {p.name: want[p.name] for p in open_ if p.cost(want[p.name], size) <= share[p.name]}
        fixed = fixed or {p.name: least[p.name] for p in open_ if p.cost(least[p.name], size) >= share[p.name]}
        if not fixed:
            return chosen | {p.name: min(want[p.name], p.room(share[p.name], size)) for p in open_}
        chosen |= fixed
        left -= sum(p.cost(fixed[p.name], size) for p in open_ if p.name in fixed)
        open_ = [p for p in open_ if p.name not in fixed]
    return chosen
