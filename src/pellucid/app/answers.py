"""From what a person has chosen to the panel that is shown; whatever goes wrong becomes a sentence in its place."""

import traceback
from dataclasses import dataclass
from typing import Any

from pellucid.app import panels
from pellucid.app.desk import PREDICTED, Desk
from pellucid.app.lessons import Tab
from pellucid.errors import InputError, PellucidError

MOST_METHODS = 4


@dataclass(frozen=True)
class Asked:
    """What the open panel shows: of which texts, what is erased there (token places), and whose attention is seen."""

    tab: Tab = "tokens"
    text: str = ""
    second: str = ""
    gone: tuple[int, ...] = ()
    row: int = 0

    def about(self, text: str, second: str, model_changed: bool = False) -> "Asked":
        """The same for texts that may have changed: then nothing is erased yet, and the first row is seen."""
        text, second = str(text or ""), str(second or "")
        same = text == self.text and not model_changed
        return Asked(self.tab, text, second, self.gone if same else (), self.row if same else 0)


@dataclass(frozen=True)
class Chosen:
    """What stands in the page's fields. head: -1 is the mean of all; other_*: of what could have been."""

    model: str
    methods: tuple[str, ...] = ("decompx",)
    target: str = PREDICTED
    operator: str = "delete"
    layer: int = 0
    head: int = -1
    other_layer: int = 0
    other_head: int = 0

    @classmethod
    def of(cls, model: Any, methods: Any, target: Any, operator: Any, *places: Any) -> "Chosen":
        """From a page's values, of which lists may be none and numbers missing."""
        numbers = [-1 if p is None else int(p) for p in places]
        return cls(str(model), tuple(methods or ()), str(target), str(operator), *numbers)


def answer(desk: Desk, asked: Asked, chosen: Chosen) -> str:
    """The panel for the open tab, or a sentence about what is wrong."""
    try:
        return _answer(desk, asked, chosen)
    except PellucidError as e:
        return panels.refusal(str(e))
    except Exception as e:
        traceback.print_exc()
        return panels.refusal(
            f"Something went wrong here ({type(e).__name__}); the server's log says where. Another text or method may "
            "work."
        )


def _answer(desk: Desk, asked: Asked, chosen: Chosen) -> str:
    name, text = chosen.model, asked.text
    if asked.tab == "attention":
        head = None if chosen.head < 0 else chosen.head
        return panels.attention(desk.attention(name, text, chosen.layer, head), asked.row)
    if asked.tab == "others":
        return panels.others(*desk.others(name, text, chosen.other_layer, max(0, chosen.other_head), asked.row))
    if not 1 <= len(chosen.methods) <= MOST_METHODS:
        raise InputError(f"Choose from one to {MOST_METHODS} methods; {len(chosen.methods)} are chosen.")
    if asked.tab == "erase":
        return panels.erase(desk.erase(name, text, asked.gone, chosen.operator, chosen.methods[0], chosen.target))
    if asked.tab == "compare":
        if not asked.second.strip():
            raise InputError("There is no second text yet: type one in the field above.")
        return panels.compare(desk.compare(name, text, asked.second, chosen.methods[0], chosen.target))
    return panels.tokens([desk.explain(name, text, m, chosen.target) for m in chosen.methods])
