"""How good a grade is, for its colour and its sign; the word itself always stands beside them."""

from pellucid.render.marks import escaped
from pellucid.verdict.verdict import Answer

TONES = {"MAY BE SHOWN": "good", "WITH CARE": "care", "NOT AN EXPLANATION": "bad"}
SIGNS = {"good": "✓", "care": "!", "bad": "✕", "open": "?"}


def tone_of(grade: str) -> str:
    """Of the verdict's grade: good, care, bad or open, as the badge shows it."""
    return TONES.get(grade, "open")


def tone_of_answer(a: Answer) -> str:
    """The first grade is good, the last one bad, what lies between is care; open where it was not measured."""
    if not a.measured:
        return "open"
    at = a.grades.index(a.grade)
    return "good" if at == 0 else "bad" if at == len(a.grades) - 1 else "care"


def badge(word: str, tone: str) -> str:
    """A grade as a label in HTML."""
    return f'<span class="badge {tone}"><span aria-hidden="true">{SIGNS[tone]}</span> {escaped(word)}</span>'
