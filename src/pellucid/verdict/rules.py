"""The rules of the verdict, as data: questions, grades, what each says, what would change it, and the sentence.

A rule is a grade and what must hold of the findings; of a question's rules the first that fits gives the grade. Numbers
are compared by their value or by an end of their 95 % interval; a bound that is met exactly counts as met.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from pellucid.finding import Finding

TOO_FEW, NOT_MEASURED, NO_ACCESS = "TOO FEW TEXTS", "NOT MEASURED", "NO ACCESS"
UNMEASURED = (TOO_FEW, NOT_MEASURED, NO_ACCESS)
MARGIN = 0.05
"""AOPC, in probability, within which a method is as good as the best."""
TOLD, NOT_TOLD = "TOLD APART", "NOT TOLD APART"
"""Grades of a difference between methods: by Holm's p over all methods, for the best was picked on the same texts."""
WIDE, OFTEN = 0.05, 0.25
"""From these on, attention is not unique in a way that matters: the width, in attention weight, of the interval in
which a row's largest weight could lie (median of the rows), and the share of rows in which another token could lead."""


@dataclass(frozen=True)
class Clause:
    """What must hold of one finding: an end of it between two bounds, or a grade out of some."""

    finding: str
    least: float = -inf
    most: float = inf
    end: Literal["value", "low", "high"] = "value"
    grades: tuple[str, ...] = ()

    def holds(self, found: Mapping[str, Finding]) -> bool:
        """False where the finding is not there or has no number."""
        f = found.get(self.finding)
        if f is None:
            return False
        if self.grades:
            return f.grade in self.grades
        ends = f.interval or (f.value, f.value)
        x = {"value": f.value, "low": ends[0], "high": ends[1]}[self.end]
        return x is not None and self.least <= x <= self.most


@dataclass(frozen=True)
class Rule:
    """A grade, given where one of `any_of` groups of clauses holds entirely; what it says, and what would change it.

    bounds: where the interval of the first deciding finding would have to lie for a grade on one of its sides: below or
    above a number, or, for None, its control. {needed} in `change` is then how many texts that would take.
    """

    grade: str
    reading: str
    change: str
    any_of: tuple[tuple[Clause, ...], ...] = ((),)
    bounds: tuple[tuple[float | None, Literal["below", "above"]], ...] = ()

    def fits(self, found: Mapping[str, Finding]) -> bool:
        """Whether a group of clauses holds."""
        return any(all(c.holds(found) for c in group) for group in self.any_of)


@dataclass(frozen=True)
class Question:
    """What is asked of which audit. deciding, beside: names of findings, "name (where)" for a part of the data, where
    {layer} is the layer whose output the attention reads. order: the grades, the best first.
    meaning: what the answer is good for, for who hears of it for the first time."""

    key: str
    asked: str
    audit: str
    deciding: tuple[str, ...]
    beside: tuple[str, ...]
    order: tuple[str, ...]
    rules: tuple[Rule, ...]
    meaning: str = ""


def _graded(finding: str, *rules: Rule) -> tuple[Rule, ...]:
    """Rules that take over the grade of one finding."""
    return tuple(replace(r, any_of=((Clause(finding, grades=(r.grade,)),),)) for r in rules)


MORE_TEXTS = "More texts, drawn as these were."
QUESTIONS = (
    Question(
        "unique", "May the weights be unique?", "identifiability",
        ("unique_given_head_output", "interval_width", "top_token_can_change"),
        ("witness_distance", "logits_moved", "raw_effective_correlation", "unique_given_layer_output"),
        ("UNIQUE", "NEARLY UNIQUE", "NOT UNIQUE"),
        (
            Rule("UNIQUE",
                 "Given each head's output, {unique_given_head_output:%} of the attention rows looked at are the only "
                 "ones possible.",
                 "Longer texts: from {wide} {units} on, the same output leaves room for other weights.",
                 ((Clause("unique_given_head_output", least=0.99),),)),
            Rule("NOT UNIQUE",
                 "With the same output the largest weight of a row could lie anywhere in an interval "
                 "{interval_width} wide (median), and in {top_token_can_change:%} of the rows another token could be "
                 "the largest.",
                 "Texts of fewer than {wide} {units}, or a model whose heads are wider than its texts are long.",
                 ((Clause("interval_width", least=WIDE),), (Clause("top_token_can_change", least=OFTEN),))),
            Rule("NEARLY UNIQUE",
                 "{unique_given_head_output:%} of the attention rows looked at are the only ones possible given the "
                 "head's output, and weights can hardly move: the largest could lie anywhere in an interval "
                 "{interval_width} wide (median); in {top_token_can_change:%} of the rows another token could lead.",
                 "Longer texts: from {wide} {units} on, the same output leaves room for other weights.",
                 ((Clause("interval_width", most=WIDE), Clause("top_token_can_change", most=OFTEN)),)),
        ),
        "Where other weights would give the same output, the map that one sees is "
        "one of many. That they are unique does not make them an explanation.",
    ),
    Question(
        "drives", "Does attention drive the decision?", "erasure", ("trust", "leverage_flips", "leverage"),
        ("hit_rate", "top_flips", "delta_js", "tau_gradient", "tau_leave_one_out", "against"),
        ("TRUST", "NOISY", "NOT TOLD FROM RANDOM", "NOT BETTER THAN RANDOM", "NO LEVERAGE"),
        # where the audit's interval reaches zero, it may be as wide as to hold a real lead too
        (Rule("NOT TOLD FROM RANDOM",
              "Erasing all words there flips {leverage_flips:%} of the decisions; whether erasing the most attended "
              "first does more than a random order, these texts do not tell ({trust}; {trust_unit}).",
              "An interval below zero; {needed}",
              ((Clause("trust", grades=("NOT BETTER THAN RANDOM",)), Clause("trust", most=-MARGIN, end="low")),),
              ((0.0, "below"),)),
         *_graded(
            "trust",
            Rule("TRUST",
             "Erasing all words there flips {leverage_flips:%} of the decisions, and erasing the most attended first "
             "is nearly as good as the best order by gradients.",
             "An order by gradients that is ahead by more than the audit's margin, on other or on more texts."),
            Rule("NOISY",
             "Erasing all words there flips {leverage_flips:%} of the decisions. To erase the most attended first does "
             "more than a random order ({trust}; {trust_unit}), but less than the best order by gradients.",
             "TRUST asks that attention's order stays within {margin} of the best order by gradients; the difference "
             "is {trust_null}."),
            Rule("NOT BETTER THAN RANDOM",
             "Erasing all words there flips {leverage_flips:%} of the decisions, but to erase the most attended first "
             "does hardly more than a random order ({trust}; {trust_unit}).",
             "An interval that reaches further than {margin} below zero."),
            Rule("NO LEVERAGE",
             "Erasing all words there flips {leverage_flips:%} of the decisions and moves the output by {leverage} "
             "nats: whatever the weights are, the decision hardly hangs on them.",
             "Another place: ask with --only erasure --setting level=token, or level=layer with layer=N."),
        ),
        ),
        "The attended words are erased in that layer: does the decision change, "
        "and by the words with the largest weights first?",
    ),
    Question(
        "points", "Does attention point where the decision can be read?", "information", ("lift",),
        ("tau_information", "tau_leave_one_out", "information_needed", "special_mass"),
        ("GOES WHERE DECODABLE", "NO DIFFERENCE", "GOES ELSEWHERE", "NOTHING FOUND"),
        _graded(
            "lift",
            Rule("GOES WHERE DECODABLE",
             "Attention favours states that tell {lift} nats more of the output than the average state of the text "
             "(random order: {lift_null}).", MORE_TEXTS),
            Rule("NO DIFFERENCE",
             "The states that attention favours tell {lift} nats more of the output than the average state: no more "
             "than a random order does ({lift_null}).", "An interval apart from that of the random order; {needed}",
             bounds=((None, "below"), (None, "above"))),
            Rule("GOES ELSEWHERE",
             "The states that attention favours tell less of the output than the average state of the text "
             "({lift} nats; random order: {lift_null}).", MORE_TEXTS),
            Rule("NOTHING FOUND",
             "In the states that this attention reads, probes find nothing of the output.",
             "More texts to fit probes on, or a layer further up."),
        ),
        "A probe reads the decision off the state at each word: does attention go "
        "to states that tell much of it?",
    ),
    Question(
        "stands", "Does a position still stand for its own word?", "mixing", ("not_own_main ({layer})",),
        ("own_share ({layer})", "identity_linear_cosine ({layer})", "identity_none_cosine ({layer})"),
        ("OWN TOKEN LEADS", "MIXED", "OWN TOKEN LOST"),
        _graded(
            "not_own_main ({layer})",
            Rule("OWN TOKEN LEADS",
             "In {not_own_main:%} of the positions that this attention reads, another token than its own weighs most.",
             MORE_TEXTS),
            Rule("MIXED",
             "In {not_own_main:%} of the positions that this attention reads, another token than its own weighs most.",
             "An interval up to .1 (its own leads) or from .5 on (its own is lost); {needed}",
             bounds=((0.1, "below"), (0.5, "above"))),
            Rule("OWN TOKEN LOST",
             "In {not_own_main:%} of the positions that this attention reads, another token than its own weighs most: "
             "a weight on a position is no weight on its word.",
             "Attention of a lower layer, where less is mixed."),
        ),
        "Attention weighs positions. After some layers a position may hold more "
        "of other words than of its own.",
    ),
    Question(
        "method", "Which method is most faithful here?", "comparison",
        ("attention_behind", "attention_over_random", "best_over_random"), ("aopc",),
        ("AMONG THE BEST", "NOT SETTLED", "BEHIND THE BEST", "LIKE RANDOM", "NOTHING BEATS RANDOM"),
        (
            Rule("NOTHING BEATS RANDOM",
                 "That any method finds tokens whose erasure lowers the probability more than random ones do is not "
                 "shown; the largest lead is {best}'s ({best_over_random}).",
                 "More texts, or another way of erasing (pellucid bench --operators delete).",
                 ((Clause("best_over_random", most=0.0, end="low"),),
                  (Clause("best_over_random", grades=(NOT_TOLD,)),))),
            Rule("AMONG THE BEST",
                 "By AOPC {best} is at most {near} ahead of attention ({attention_behind}).",
                 "A method that is ahead by more, on other texts.",
                 ((Clause("attention_behind", most=MARGIN, end="high"),
                   Clause("attention_over_random", least=0.0, end="low")),)),
            Rule("LIKE RANDOM",
                 "Attention finds the tokens that matter hardly better than a random order does (AOPC "
                 "{attention_over_random} above it); {best} is {best_over_random} above.",
                 "An interval that reaches further than .05 above random.",
                 ((Clause("attention_over_random", most=MARGIN, end="high"),),)),
            Rule("BEHIND THE BEST",
                 "{best} finds the tokens that matter better than attention does: erased, they lower the probability "
                 "by {attention_behind} more (AOPC).{shown}", "An interval that ends within .05 of the best method.",
                 ((Clause("attention_behind", least=MARGIN), Clause("attention_behind", grades=(TOLD,)),
                   Clause("attention_behind", least=0.0, end="low")),)),
            Rule("NOT SETTLED", "{best} is ahead of attention by {attention_behind} (AOPC), and attention of a random "
                 "order by {attention_over_random}, which settles nothing.", "Narrower intervals; {needed}",
                 ((Clause("attention_behind"),),), ((MARGIN, "below"), (0.0, "above"))),
        ),
        "Each method's first words are erased from the text; the more probability "
        "the decision loses, the better it found them.",
    ),
)  # fmt: skip
"""In the order of the report."""


@dataclass(frozen=True)
class Overall:
    """The verdict's grade where every question named in `when` has one of these grades, and its sentence."""

    grade: str
    when: Mapping[str, Sequence[str]]
    sentence: str

    def fits(self, grades: Mapping[str, str]) -> bool:
        """Whether all questions have grades that it asks for."""
        return all(grades[q] in allowed for q, allowed in self.when.items())


ORDER = ("MAY BE SHOWN", "WITH CARE", "NOT AN EXPLANATION")
"""Grades of the verdict, the best first."""
UNDECIDED = "UNDECIDED"
_OPEN = (*UNMEASURED, "NOT TOLD FROM RANDOM")
_TOLD_NOTHING = (*UNMEASURED, "NOTHING BEATS RANDOM", "NOT SETTLED")
OVERALL = (
    Overall(UNDECIDED, {"drives": (NO_ACCESS,)},
            "This model does not show its attention, so that nothing can be told of it{of_methods}."),
    Overall(UNDECIDED, {"drives": _OPEN, "method": _TOLD_NOTHING},
            "Whether attention of {place} explains this model cannot be told from {n}{why}."),
    Overall("NOT AN EXPLANATION", {"drives": ("NO LEVERAGE",)},
            "Attention of {place} is no explanation of this model on {n}: its decisions hardly hang on it{show}."),
    Overall("NOT AN EXPLANATION", {"drives": ("NOT BETTER THAN RANDOM",)},
            "Attention of {place} is not a faithful explanation of this model on {n}: erased at that layer, its "
            "largest weights matter hardly more than random ones{show}."),
    Overall("NOT AN EXPLANATION", {"method": ("LIKE RANDOM",)},
            "Attention of {place} is not a faithful explanation of this model on {n}: it finds the tokens that matter "
            "hardly better than chance{show}."),
    Overall("NOT AN EXPLANATION", {"method": ("BEHIND THE BEST",), "drives": ("NOISY", *_OPEN)},
            "Attention of {place} is not a faithful explanation of this model on {n}: it tells something, but other "
            "methods tell more{show}."),
    Overall("NOT AN EXPLANATION", {"unique": ("NOT UNIQUE",), "method": ("BEHIND THE BEST", "NOT SETTLED")},
            "Attention of {place} is not a faithful explanation of this model on {n}: other weights would give the "
            "same output{show}."),
    Overall("MAY BE SHOWN",
            {"drives": ("TRUST",), "unique": ("UNIQUE", "NEARLY UNIQUE"), "method": ("AMONG THE BEST",),
             "stands": ("OWN TOKEN LEADS", "MIXED", *UNMEASURED)},
            "Attention of {place} may be shown as an explanation of this model on texts like these {n_texts}: it "
            "drives the decision, and no method looked at is clearly more faithful."),
    Overall("WITH CARE", {"unique": ("NOT UNIQUE",)},
            "Attention of {place} may be shown with care on texts like these {n_texts}: other weights would give the "
            "same output{safer}."),
    Overall("WITH CARE", {"stands": ("OWN TOKEN LOST",)},
            "Attention of {place} may be shown with care on texts like these {n_texts}: its positions no longer stand "
            "for their words{safer}."),
    Overall("WITH CARE", {},
            "Attention of {place} may be shown with care on texts like these {n_texts}: it tells something of the "
            "decision, which is not shown to be all{safer}."),
)  # fmt: skip
"""The first that fits is the verdict."""
