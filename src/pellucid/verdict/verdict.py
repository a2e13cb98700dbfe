"""The nouns of the answer: what is asked, what was found, texts to look at, and the verdict that holds them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from pellucid.attribution import Attribution
from pellucid.audits.identifiability.alternatives import Alternatives
from pellucid.finding import Finding, Findings


@dataclass(frozen=True)
class Answer:
    """One question, its grade, and the numbers that decide it.

    question: its key, such as "drives"; asked: in words. grades: all that the rules know, the best first. reading: one
    sentence. deciding: the findings that the rules look at, the first of them first. beside: further findings that a
    person would look at next. change: what would change the grade; "" where nothing is known that would. meaning: what
    the answer is good for, for who hears of it for the first time.
    """

    question: str
    asked: str
    grade: str
    grades: tuple[str, ...]
    reading: str
    deciding: tuple[Finding, ...] = ()
    beside: tuple[Finding, ...] = ()
    change: str = ""
    meaning: str = ""

    @property
    def measured(self) -> bool:
        """Whether the grade is one of the rules', and not that there was too little to measure."""
        return self.grade in self.grades

    def at_most(self, grade: str) -> bool:
        """Whether this grade is `grade` or a worse one; False for what was not measured."""
        return self.measured and self.grades.index(self.grade) >= self.grades.index(grade)


@dataclass(frozen=True)
class Sampled:
    """What one part of the work looked at: `texts` of `of`; why these are not all, or none; "" where they are all."""

    part: str
    texts: int
    of: int
    why: str = ""


@dataclass(frozen=True, eq=False)
class Case:
    """One text that a person can look at.

    index: its place among the texts given, from 0. attributions: by method, all over the same tokens, the one to show
    first. calibrated: the probability of the prediction after the temperature that the other texts call for, None
    without labels or with too few errors to fit one. gold: the true label's name, None where unknown. attention: of the
    head in which this text's attention at the audited place is freest, and others with the same output; None where the
    access does not allow it.
    """

    index: int
    attributions: Mapping[str, Attribution]
    calibrated: float | None = None
    gold: str | None = None
    attention: Alternatives | None = None

    @property
    def first(self) -> Attribution:
        """The attribution that is shown first."""
        return next(iter(self.attributions.values()))

    @property
    def wrong(self) -> bool:
        """Whether the prediction is known to be wrong."""
        return self.gold is not None and self.gold != self.first.prediction


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether attention may be shown as the explanation of this model on these texts, and what to show instead.

    grade: MAY BE SHOWN, WITH CARE, NOT AN EXPLANATION or UNDECIDED, by the rules of `verdict.rules`. sentence: the
    verdict in one sentence. instead: the method to show, "" where none is recommended. answers: one per question.
    findings: of every audit, and of the short comparison of methods under "comparison". cases: texts to look at.
    limits: what the verdict does not say. sample: which part looked at how many texts. about: model, place, texts,
    seed, versions; JSON-ready, the same for the same input. spent: seconds of each part, which are not.
    """

    grade: str
    sentence: str
    instead: str
    answers: tuple[Answer, ...]
    findings: Mapping[str, Findings] = field(repr=False)
    cases: tuple[Case, ...] = field(default=(), repr=False)
    limits: tuple[str, ...] = ()
    sample: tuple[Sampled, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    spent: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def grades(self) -> dict[str, str]:
        """Question -> grade."""
        return {a.question: a.grade for a in self.answers}

    def answer(self, question: str) -> Answer:
        """The answer to one question; InputError that lists them."""
        from pellucid.registry import choose

        asked = choose("question", question, [a.question for a in self.answers])
        return next(a for a in self.answers if a.question == asked)

    def __str__(self) -> str:
        return f"{self.grade}: {self.sentence}"

    def show(self, file: TextIO | None = None, width: int | None = None) -> None:
        """Print the sentence, the answers with their deciding numbers, and the limits."""
        from pellucid.report import show

        show(self, file, width)

    def to_dict(self) -> dict[str, Any]:
        """What verdict.json holds: the same for the same input."""
        return {
            "grade": self.grade,
            "sentence": self.sentence,
            "show_instead": self.instead,
            "grades": self.grades,
            "answers": [
                {"question": a.question, "asked": a.asked, "grade": a.grade, "grades": list(a.grades)}
                | {"reading": a.reading, "change": a.change}
                | {"deciding": [f"{f.audit}.{f.name}" + f" ({f.where})" * bool(f.where) for f in a.deciding]}
                for a in self.answers
            ],
            "findings": [f.to_dict() for found in self.findings.values() for f in found],
            "limits": list(self.limits),
            "sample": [vars(s) for s in self.sample],
            "about": dict(self.about),
        }

    def to_html(self, path: str | Path | None = None, call: Sequence[str] | None = None) -> str:
        """The report as one self-contained page; written to `path` if given, and returned. call: the command to print
        under "how to reproduce"."""
        from pellucid.records import write_whole
        from pellucid.report import html_page

        page = html_page([self], call)
        if path is not None:
            write_whole(path, page.encode("utf-8"))
        return page

    def save(self, folder: str | Path, call: Sequence[str] | None = None) -> list[Path]:
        """Write report.html, verdict.json, verdict.svg (a picture of it), findings.parquet, and the JSON, tables and
        pictures of every audit; their paths.

        Each file appears whole or not at all; verdict.json is the last.
        """
        from pellucid.verdict.store import save

        return save(self, Path(folder), call)
