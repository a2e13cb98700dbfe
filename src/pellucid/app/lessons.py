"""Texts that teach: each with what to look at, and with what the bundled demo model does there."""

from dataclasses import dataclass
from typing import Literal

Tab = Literal["tokens", "attention", "others", "erase", "compare"]


@dataclass(frozen=True)
class Lesson:
    """A text to begin with, a second one where two are compared, where to look, and what the demo model does.

    head: whose attention is seen, where the text is about that.
    """

    title: str
    text: str
    look: str
    demo: str
    tab: Tab = "tokens"
    second: str = ""
    methods: tuple[str, ...] = ("decompx",)
    head: int = 0


LESSONS = (
    Lesson(
        "Negation",
        "The ending is not funny.",
        "Which word decides, “not” or “funny”? Then go to “Erase a word” and take “not” away.",
        "The demo model gives “not” nearly everything; without it the answer is positive.",
    ),
    Lesson(
        "Contrast",
        "The opening is dull, but the last act is thrilling and deeply moving.",
        "Both sides of the “but” leave their colour. Which side is heavier?",
        "In the demo model “dull” alone weighs nearly as much as “thrilling”, “deeply” and “moving” together.",
    ),
    Lesson(
        "One word apart",
        "A gripping drama with a clever ending.",
        "Only one word differs, and one colour scale holds for both. Does “clever” keep its colour?",
        "In the demo model “tedious” outweighs all the rest, and “clever” counts for less beside it.",
        tab="compare",
        second="A tedious drama with a clever ending.",
    ),
    Lesson(
        "A mistake",
        "The film is not bad at all.",
        "Is the answer right? The colours tell what the model computed, not what is true. Erase “not”, then “bad”.",
        "The demo model is wrong here. It does read “not”: without it the answer is even more negative. Its score is "
        "small because it acts through “bad”.",
        tab="erase",
    ),
    Lesson(
        "Two methods",
        "It is not perfect, but it is warm, honest and very funny.",
        "The decomposition tells for from against; attention tells only where a head looks. Do they agree?",
        "The demo model attends most to “but”, which moves its decision little.",
        methods=("decompx", "attention"),
    ),
    Lesson(
        "A long text",
        "The story is slow to begin, the music is loud and most of the jokes are old, but the two leads are so warm "
        "and so quick with each other that by the end of this long and rather silly evening nobody in the room seems "
        "to mind.",
        "With more words than a head is wide, other attention weights give the same output. Compare the strips.",
        "A head of the demo model is 32 wide, and this text has 53 tokens.",
        tab="others",
        head=1,
    ),
)
