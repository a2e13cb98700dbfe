"""The top of the report: the verdict, and a card for each question."""

from pellucid.render.marks import cleaned, escaped, value_text
from pellucid.report.bars import BAR_KEY, table
from pellucid.report.terms import METHODS
from pellucid.report.tones import badge, tone_of, tone_of_answer
from pellucid.verdict.verdict import Answer, Verdict


def names_of(verdicts: list[Verdict]) -> list[str]:
    """What the models are called: the end of their ids, as much of it as tells them apart."""
    ids = [cleaned(str(v.about.get("model", "the model"))).rstrip("/\\") or "the model" for v in verdicts]
    parts = [i.replace("\\", "/").split("/") for i in ids]
    for k in range(1, max(map(len, parts)) + 1):
        short = ["/".join(p[-k:]) for p in parts]
        if len(set(short)) == len(short):
            return short
    return [f"{i} ({n})" for i, n in zip(ids, ("first", "second"), strict=False)]


def opening(v: Verdict, name: str) -> str:
    """The grade, the sentence, what to show instead, and of which model and texts this is said."""
    texts = v.about.get("texts")
    said = f"{texts:,} texts" if isinstance(texts, int) else f"{len(v.cases):,} texts shown"
    facts = [f"Model <b><bdi>{escaped(name)}</bdi></b>", said]
    facts += [f"attention at {escaped(value_text(v.about['place']))}"] if v.about.get("place") else []
    does = METHODS.get(v.instead, "")
    told = f" <small>It {escaped(does)}.</small>" if does else ""
    instead = f'<p class="instead">Show instead: <b>{escaped(v.instead)}</b>.{told}</p>' if v.instead else ""
    return (
        f'<p class="grade">{badge(v.grade, tone_of(v.grade))}</p><p class="sentence">{escaped(v.sentence)}</p>'
        f'{instead}<p class="facts">{" · ".join(facts)}</p>'
    )


def questions(v: Verdict, level: int) -> str:
    """A card for each question, under headings of that level."""
    if not v.answers:
        return "<p>No question was asked.</p>"
    return "".join(_card(a, level) for a in v.answers) + f'<p class="dim note">{BAR_KEY}</p>'


def scale(a: Answer) -> str:
    """The possible grades, best first, the given one marked; a grade that is none of them stands alone."""
    if not a.measured:
        return f'<p class="scale">{badge(a.grade, "open")}</p>'
    steps = "".join(
        f'<li aria-current="true">{badge(g, tone_of_answer(a))}</li>' if g == a.grade else f"<li>{escaped(g)}</li>"
        for g in a.grades
    )
    return f'<ol class="scale" aria-label="possible grades, the best first">{steps}</ol>'


def _card(a: Answer, level: int) -> str:
    change = f'<p class="change"><b>What would change it:</b> {escaped(a.change)}</p>' if a.change else ""
    decided = table(a.deciding, "The numbers that decide", readings=False) if a.deciding else ""
    beside = ""
    if a.beside:
        inner = table(a.beside, "Further numbers")
        beside = f"<details><summary>{_further(len(a.beside))}</summary>{inner}</details>"
    return (
        f'<section class="card"><h{level}>{escaped(a.asked)}</h{level}>{_meaning(a)}{scale(a)}'
        f"<p>{escaped(a.reading)}</p>{decided}{change}{beside}</section>"
    )


def _meaning(a: Answer) -> str:
    return f'<p class="dim">{escaped(a.meaning)}</p>' if a.meaning else ""


def _further(n: int) -> str:
    return "1 further number" if n == 1 else f"{n} further numbers"
