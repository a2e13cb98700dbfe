"""What of a report fits into one page: texts, numbers and figures, and the sentences that tell what is left out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pellucid.report.figures import MOST, Figure
from pellucid.report.texts import Shown

LIMIT = 400_000
"""Bytes of a page; texts, numbers and figures that do not fit are left out from the end, and the page says so."""
FIGURES_FIRST = 3  # figures of each model that go before numbers
TEXTS_FIRST = 0.5  # share of the room that texts may take before numbers and figures
_SMALL = f"so that this page stays below {LIMIT // 1000} kB"


@dataclass
class Parts:
    """What a page shows if there is room, an entry of `numbers`, `figures` and `lost` for each model.

    lost_texts, lost: what is left out, in a sentence; "" where nothing is.
    """

    texts: list[Shown]
    numbers: list[dict[str, str]]
    figures: list[list[Figure]]
    lost_texts: str = ""
    lost: list[str] = field(default_factory=list)


def size_of(text: str) -> int:
    """In bytes."""
    return len(text.encode("utf-8"))


def json_of(data: object) -> str:
    """JSON that no markup can be in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def fitted(every: Parts, room: int) -> Parts:
    """As much of the parts as fits into `room` bytes: texts into their share, the first figures, numbers, further
    figures, further texts; of each, whatever fits is taken in order, from two models in turn."""
    space = _Space(room)
    sizes = [size_of(s.html) + size_of(json_of(s.data)) + 1 for s in every.texts]
    texts = space.take(sizes, most=int(room * TEXTS_FIRST))
    drawn = [(i, k) for k in range(MOST) for i, own in enumerate(every.figures) if k < len(own)]
    audits = [list(own.items()) for own in every.numbers]
    listed = [(i, k) for k in range(max(map(len, audits))) for i, own in enumerate(audits) if k < len(own)]
    first = sum(k < FIGURES_FIRST for _, k in drawn)
    drawn_sizes = [size_of(every.figures[i][k].html) for i, k in drawn]
    shown = {drawn[j] for j in space.take(drawn_sizes[:first])}
    told = {listed[j] for j in space.take([size_of(audits[i][k][1]) for i, k in listed])}
    shown |= {drawn[first + j] for j in space.take(drawn_sizes[first:])}
    texts |= {j for j in range(len(sizes)) if j not in texts and space.take([sizes[j]])}
    few = f"{len(sizes) - len(texts)} of {len(sizes)} texts are left out here, {_SMALL}."
    return Parts(
        [s for j, s in enumerate(every.texts) if j in texts],
        [{name: page for k, (name, page) in enumerate(own) if (i, k) in told} for i, own in enumerate(audits)],
        [[f for k, f in enumerate(own) if (i, k) in shown] for i, own in enumerate(every.figures)],
        few if len(texts) < len(sizes) else "",
        [
            _lost(
                [name for k, (name, _) in enumerate(own) if (i, k) not in told],
                [f.label for k, f in enumerate(every.figures[i]) if (i, k) not in shown],
            )
            for i, own in enumerate(audits)
        ],
    )


def _lost(numbers: Sequence[str], figures: Sequence[str]) -> str:
    """What of one model is not on the page."""
    out = [f"the numbers of {', '.join(numbers)}"] if numbers else []
    out += [f"the figures {', '.join(figures)}"] if figures else []
    where = "verdict.json and the folder that `save` writes hold them all."
    return f"Left out here, {_SMALL}: {'; '.join(out)}. {where}" if out else ""


@dataclass
class _Space:
    """What is left of the page."""

    left: int

    def take(self, sizes: Sequence[int], most: int | None = None) -> set[int]:
        """Which of these fit, the first ones first, into `most` or what is left."""
        room = self.left if most is None else min(most, self.left)
        taken = set()
        for k, size in enumerate(sizes):
            if size <= room:
                taken.add(k)
                room -= size
                self.left -= size
        return taken
