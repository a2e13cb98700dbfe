"""The rules of the verdict, at their edges: which grade, which sentence, what would change it."""

import itertools
import math
from string import Formatter
from typing import Any

import pytest

from pellucid.finding import Finding, Findings
from pellucid.verdict.budget import PARTS, START, Size, planned
from pellucid.verdict.judging import answers, every_grade, failing, overall
from pellucid.verdict.rules import (
    MARGIN,
    NO_ACCESS,
    NOT_MEASURED,
    NOT_TOLD,
    OFTEN,
    ORDER,
    OVERALL,
    QUESTIONS,
    TOLD,
    TOO_FEW,
    UNDECIDED,
    WIDE,
)
from pellucid.verdict.verdict import Answer

WORDS: dict[str, Any] = {
    "place": "layer 6", "n": "these 40 texts", "n_texts": 40, "show": "; show decompx instead", "best": "decompx",
    "safer": "; decompx is safer", "of_methods": "", "wide": 34, "units": "tokens", "layer": "layer 5", "margin": 0.05,
    "near": MARGIN, "why": "", "shown": "",
}  # fmt: skip
TINY = 1e-9


def finding(name: str, value: float | None, low: float = math.nan, high: float = math.nan, **more: Any) -> Finding:
    interval = None if math.isnan(low) else (low, high)
    made = {"audit": "x", "null": 0.0, "n": 40, "grade": "MEASURED", "reading": ""} | more
    return Finding(name=name, value=value, interval=interval, **made)


def graded(question: str, *found: Finding) -> Answer:
    q = next(q for q in QUESTIONS if q.key == question)
    return next(a for a in answers({q.audit: Findings(found, q.audit)}, {}, WORDS) if a.question == question)


@pytest.mark.parametrize(
    ("share", "width", "top", "grade"),
    [
        (1.0, 0.0, 0.0, "UNIQUE"),
        (0.99, 1.0, 1.0, "UNIQUE"),
        (0.99 - TINY, 0.0, 0.0, "NEARLY UNIQUE"),
        (0.99 - TINY, WIDE - TINY, OFTEN - TINY, "NEARLY UNIQUE"),
        (0.99 - TINY, WIDE, 0.0, "NOT UNIQUE"),
        (0.99 - TINY, 0.0, OFTEN, "NOT UNIQUE"),
        (0.99 - TINY, None, 0.0, NOT_MEASURED),
        (0.0, 0.0, 0.0, "NEARLY UNIQUE"),
    ],
)
def test_may_the_weights_be_unique(share: float, width: float | None, top: float, grade: str) -> None:
    found = [
        finding("unique_given_head_output", share),
        finding("interval_width", width),
        finding("top_token_can_change", top),
    ]
    assert graded("unique", *found).grade == grade


@pytest.mark.parametrize(
    ("over_random", "attention_random", "behind", "grade"),
    [
        ((0.2, 0.0, 0.4), (0.1, 0.06, 0.2), (0.1, 0.05, 0.2), "NOTHING BEATS RANDOM"),
        ((0.2, TINY, 0.4), (0.02, -0.01, MARGIN), (0.1, 0.05, 0.2), "LIKE RANDOM"),
        ((0.2, TINY, 0.4), (0.02, -0.01, MARGIN + TINY), (0.1, 0.05, 0.2), "BEHIND THE BEST"),
        ((0.2, TINY, 0.4), (0.1, 0.06, 0.2), (MARGIN, 0.0, 0.2), "BEHIND THE BEST"),
        ((0.2, TINY, 0.4), (0.1, 0.06, 0.2), (MARGIN - TINY, 0.01, 0.2), "NOT SETTLED"),
        ((0.2, TINY, 0.4), (0.1, 0.06, 0.2), (0.1, -TINY, 0.2), "NOT SETTLED"),
        ((0.2, TINY, 0.4), (0.1, 0.06, 0.2), (0.02, 0.01, MARGIN), "AMONG THE BEST"),
        ((0.2, TINY, 0.4), (0.1, 0.0, 0.2), (-0.3, -0.4, -0.2), "AMONG THE BEST"),
        ((0.2, TINY, 0.4), (0.1, -TINY, 0.2), (-0.3, -0.4, -0.2), "NOT SETTLED"),
    ],
)
def test_which_method_is_most_faithful(
    over_random: tuple[float, ...], attention_random: tuple[float, ...], behind: tuple[float, ...], grade: str
) -> None:
    def asked(best: str, rival: str) -> str:
        found = [
            finding("best_over_random", *over_random, grade=best),
            finding("attention_over_random", *attention_random),
            finding("attention_behind", *behind, grade=rival),
        ]
        return graded("method", *found).grade

    assert asked(TOLD, TOLD) == grade
    assert asked(NOT_TOLD, TOLD) == "NOTHING BEATS RANDOM"
    if grade == "BEHIND THE BEST":
        assert asked(TOLD, NOT_TOLD) == "NOT SETTLED"


@pytest.mark.parametrize(
    ("question", "name", "where"),
    [("drives", "trust", ""), ("points", "lift", ""), ("stands", "not_own_main", "layer 5")],
)
def test_grades_of_an_audit_are_taken_over(question: str, name: str, where: str) -> None:
    """Each grade that the audit's own rules give, and no other; those of another layer are not looked at."""
    order = next(q.order for q in QUESTIONS if q.key == question)
    for grade in (g for g in order if g != "NOT TOLD FROM RANDOM"):
        assert graded(question, finding(name, 0.2, 0.1, 0.3, grade=grade, where=where)).grade == grade
    elsewhere = graded(question, finding(name, 0.2, grade=order[0], where="layer 2"))
    assert elsewhere.grade == NOT_MEASURED
    assert not elsewhere.deciding


@pytest.mark.parametrize(
    ("low", "grade"), [(-MARGIN, "NOT TOLD FROM RANDOM"), (-MARGIN + TINY, "NOT BETTER THAN RANDOM")]
)
def test_a_wide_interval_is_no_proof_of_nothing(low: float, grade: str) -> None:
    """Where a real lead is as possible as none, attention is not called as bad as random."""
    found = finding("trust", -0.02, low, 0.01, grade="NOT BETTER THAN RANDOM")
    assert graded("drives", found).grade == grade


@pytest.mark.parametrize("q", QUESTIONS, ids=lambda q: q.key)
def test_no_grade_without_enough_texts(q: Any) -> None:
    """Nine texts are too few, ten are enough, whatever the numbers are."""
    names = [n.partition(" (")[0] for n in q.deciding]
    where = "layer 5" if "(" in q.deciding[0] else ""
    for n, measured in ((9, False), (10, True)):
        value = 1.0 if q.key != "unique" else 0.99  # of all three numbers, that fits a rule
        found = [finding(x, value, value, value, n=n, where=where, grade=q.order[0]) for x in names]
        a = graded(q.key, *found)
        assert a.measured is measured
        assert (a.grade == TOO_FEW) is not measured
    none = next(a for a in answers({}, {q.audit: "It was too late."}, WORDS) if a.question == q.key)
    assert (none.grade, none.reading) == (NOT_MEASURED, "It was too late.")


def test_every_combination_of_grades_has_a_verdict_and_a_whole_sentence() -> None:
    for grades in itertools.product(*((*q.order, TOO_FEW, NO_ACCESS) for q in QUESTIONS)):
        found = [Answer(q.key, q.asked, g, q.order, "") for q, g in zip(QUESTIONS, grades, strict=True)]
        grade, sentence = overall(found, WORDS)
        assert grade in (*ORDER, UNDECIDED)
        assert sentence.endswith(".")
        assert "{" not in sentence
        by = dict(zip((q.key for q in QUESTIONS), grades, strict=True))
        if grade == "MAY BE SHOWN":
            assert by["drives"] == "TRUST"
            assert by["method"] == "AMONG THE BEST"
            assert by["unique"] in ("UNIQUE", "NEARLY UNIQUE")
            assert by["stands"] != "OWN TOKEN LOST"
        if by["drives"] == NO_ACCESS:
            assert grade == UNDECIDED
        elif by["drives"] in ("NO LEVERAGE", "NOT BETTER THAN RANDOM") or by["method"] == "LIKE RANDOM":
            assert grade == "NOT AN EXPLANATION"
        if by["drives"] in (TOO_FEW, NO_ACCESS) and by["method"] in (TOO_FEW, NO_ACCESS, "NOTHING BEATS RANDOM"):
            assert grade == UNDECIDED
        if grade == "WITH CARE":
            assert by["drives"] in ("TRUST", "NOISY") or by["method"] in ("AMONG THE BEST", "NOT SETTLED"), by
        if grade in ("MAY BE SHOWN", UNDECIDED):
            assert "decompx" not in sentence, "nothing is recommended instead"


def test_every_rule_of_the_verdict_is_reached() -> None:
    """A rule that another always comes before would be dead."""
    used = set()
    for grades in itertools.product(*((*q.order, NOT_MEASURED, NO_ACCESS) for q in QUESTIONS)):
        by = dict(zip((q.key for q in QUESTIONS), grades, strict=True))
        used.add(next(i for i, o in enumerate(OVERALL) if o.fits(by)))
    assert used == set(range(len(OVERALL)))


@pytest.mark.parametrize("q", QUESTIONS, ids=lambda q: q.key)
def test_sentences_name_only_what_the_question_looks_at(q: Any) -> None:
    """So that no sentence fails for a missing number; and grades are told apart by name alone, for --fail-on."""
    names = {n.partition(" (")[0] for n in (*q.deciding, *q.beside)}
    known = names | {f"{n}_{x}" for n in names for x in ("null", "unit")} | set(WORDS) | {"needed"}
    for rule in q.rules:
        fields = {f for text in (rule.reading, rule.change) for _, f, _, _ in Formatter().parse(text) if f}
        assert fields <= known
        assert ("needed" in fields) == bool(rule.bounds)
    assert {r.grade for r in q.rules} == set(q.order)
    assert len(every_grade()) == len(set(every_grade()))


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (-0.03, -0.09, 0.03, "about 160 texts"),  # half as wide as it is far: four times the texts
        (-0.001, -0.06, 0.06, "more than 20 times"),
        (0.03, -0.06, 0.12, "would not bring that"),
    ],
)
def test_how_many_texts_would_settle_it(value: float, low: float, high: float, words: str) -> None:
    found = finding("trust", value, low, high, grade="NOT BETTER THAN RANDOM")
    others = [finding("leverage_flips", 0.5), finding("leverage", 0.5)]
    assert words in graded("drives", found, *others).change


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.3, 0.25, 0.35, "would not bring that"),  # neither below .1 nor above .5
        (0.08, 0.04, 0.12, "about 160 texts"),
        (0.6, 0.4, 0.8, "about 160 texts"),
    ],
)
def test_how_many_texts_where_there_are_two_bounds(value: float, low: float, high: float, words: str) -> None:
    found = finding("not_own_main", value, low, high, grade="MIXED", where="layer 5")
    assert words in graded("stands", found).change


def test_a_control_has_an_interval_too() -> None:
    """.04 above a control that is as uncertain: twice as wide in all as one of the two."""
    more: dict[str, Any] = {"grade": "NO DIFFERENCE", "null": 0.0, "null_interval": (-0.04, 0.04)}
    assert "about 160 texts" in graded("points", finding("lift", 0.04, 0.0, 0.08, **more)).change


def test_failing_on_a_grade() -> None:
    drives = graded("drives", finding("trust", -0.1, -0.2, -0.05, grade="NOISY"), finding("leverage_flips", 0.5))
    missing = next(a for a in answers({}, {}, WORDS) if a.question == "points")
    found = [drives, missing]
    assert failing("NOISY", found, "WITH CARE") == "Does attention drive the decision? NOISY"
    assert failing("TRUST", found, "WITH CARE") is not None
    assert failing("NOT BETTER THAN RANDOM", found, "WITH CARE") is None
    assert "cannot pass" in str(failing("GOES ELSEWHERE", found, "WITH CARE"))
    assert failing("WITH CARE", found, "WITH CARE") == "the verdict is WITH CARE"
    assert failing("WITH CARE", found, "NOT AN EXPLANATION") is not None
    assert failing("WITH CARE", found, "MAY BE SHOWN") is None
    assert failing("NOT AN EXPLANATION", found, "WITH CARE") is None
    assert failing("NOT AN EXPLANATION", found, UNDECIDED) is not None
    assert failing(UNDECIDED, found, "NOT AN EXPLANATION") is None


# The time budget

SIZES = [Size(2, 4, 128, 14.0, 7), Size(6, 12, 384, 25.0, 7), Size(12, 12, 768, 128.0, 7)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("budget", [20.0, 60.0, 300.0, 3600.0])
@pytest.mark.parametrize("texts", [1, 9, 10, 200, 5000])
def test_the_plan_keeps_to_the_budget(size: Size, budget: float, texts: int) -> None:
    made = planned(PARTS, size, texts, budget)
    assert [p.part.name for p in made] == [p.name for p in PARTS]
    assert sum(p.seconds for p in made) <= budget * (1 - START) * (1 + 1e-9)
    for p in made:
        assert p.texts <= min(texts, p.part.most)
        assert p.texts >= min(texts, p.part.least) or (p.texts == 0 and "has no room" in p.why)
    assert made == planned(PARTS, size, texts, budget)


def test_where_time_is_short_the_last_parts_are_left_out() -> None:
    """Never one that decides while a later one stays; more time never means fewer parts."""
    for size in SIZES:
        for budget in (5.0, 20.0, 60.0, 300.0, 1000.0):
            some = [p.texts > 0 for p in planned(PARTS, size, 5000, budget)]
            assert some == sorted(some, reverse=True)
    for size in SIZES:
        before = {p.name: 0 for p in PARTS}
        for budget in (30.0, 60.0, 120.0, 300.0, 900.0, 3600.0):
            now = {p.part.name: p.texts for p in planned(PARTS, size, 5000, budget)}
            assert sum(n > 0 for n in now.values()) >= sum(n > 0 for n in before.values())
            before = now
    every = planned(PARTS, SIZES[1], 5000, None)
    assert all(p.texts == (24 if p.part.name == "texts" else 5000) for p in every)
