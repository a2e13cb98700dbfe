"""The rules of the verdict, as data: questions, grades, what each says, what would change it, and the sentence.

A rule is a grade and what must hold of the findings; of a question's rules the first that fits gives the grade. Numbers
are compared by their value or by an end of their 95 % interval; a bound that is met exactly counts as met.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from pellucid.finding import Finding

TOO_FEW, NOT_MEASURED = "TOO FEW TEXTS", "NOT MEASURED"
UNMEASURED = (TOO_FEW, NOT_MEASURED)
MARGIN = 0.05
"""AOPC, in probability, within which a method is as good as the best."""
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

    bounds: what the interval of the first deciding finding would have to leave behind for another grade; None is its
    control. below, above: on which side of a bound it would have to lie. {needed} in `change` is then how many texts
    that would take.
    """

    grade: str
    reading: str
    change: str
    any_of: tuple[tuple[Clause, ...], ...] = ((),)
    bounds: tuple[float | None, ...] = ()
    below: bool = True
    above: bool = True

    def fits(self, found: Mapping[str, Finding]) -> bool:
        """Whether a group of clauses holds."""
        return any(all(c.holds(found) for c in group) for group in self.any_of)


@dataclass(frozen=True)
class Question:
    """What is asked of which audit. deciding, beside: names of findings, "name (where)" for a part of the data, where
    {layer} is the layer whose output the attention reads. order: the grades, the best first. unable: why it may have no
    answer, for a person."""

    key: str
    asked: str
    audit: str
    deciding: tuple[str, ...]
    beside: tuple[str, ...]
    order: tuple[str, ...]
    rules: tuple[Rule, ...]


def _graded(finding: str, *rules: Rule) -> tuple[Rule, ...]:
    """Rules that take over the grade of one finding."""
    return tuple(replace(r, any_of=((Clause(finding, grades=(r.grade,)),),)) for r in rules)


MORE_TEXTS = "More texts, drawn as these were."
QUESTIONS = (
    Question(
        "unique", "May the weights be unique?", "identifiability",
        ("unique_given_head_output", "interval_width", "top_token_can_change"),
        ("witness_distance", "logits_moved", "raw_effective_correlation", "unique_given_layer_output"),
        ("UNIQUE", "PARTLY UNIQUE", "NOT UNIQUE"),
        (
            Rule("UNIQUE",
                 "Given each head's output, {unique_given_head_output:%} of the attention rows looked at are the only "
                 "ones possible.",
                 "Longer texts: from {wide} tokens on, the same output leaves room for other weights.",
                 ((Clause("unique_given_head_output", least=0.99),),)),
            Rule("NOT UNIQUE",
                 "With the same output the largest weight of a row could lie anywhere in an interval "
                 "{interval_width} wide (median), and in {top_token_can_change:%} of the rows another token could be "
                 "the largest.",
                 "Texts of fewer than {wide} tokens, or a model whose heads are wider than its texts are long.",
                 ((Clause("interval_width", least=WIDE),), (Clause("top_token_can_change", least=OFTEN),))),
            Rule("PARTLY UNIQUE",
                 "{unique_given_head_output:%} of the attention rows looked at are the only ones possible given the "
                 "head's output; in the others weights can move, but the largest one seldom does "
                 "({interval_width} in the median row).",
                 "Longer texts: from {wide} tokens on, the same output leaves room for other weights.",
                 ((Clause("unique_given_head_output", most=0.99),),)),
        ),
    ),
    Question(
        "drives", "Does attention drive the decision?", "erasure", ("trust", "leverage_flips", "leverage"),
        ("hit_rate", "top_flips", "delta_js", "tau_gradient", "tau_leave_one_out", "against"),
        ("TRUST", "NOISY", "NOT BETTER THAN RANDOM", "NO LEVERAGE"),
        _graded(
            "trust",
            Rule("TRUST",
             "Erasing all words there flips {leverage_flips:%} of the decisions, and erasing the most attended first "
             "is nearly as good as the best order by gradients.",
             "An order by gradients that is ahead by more than the audit's margin, on other or on more texts."),
            Rule("NOISY",
             "Erasing all words there flips {leverage_flips:%} of the decisions; erasing the most attended first does "
             "it sooner than a random order (by {trust}; below zero is sooner), but later than gradients' order.",
             "TRUST asks that attention's order stays within {margin} of the best order by gradients; the difference "
             "is {trust_null}."),
            Rule("NOT BETTER THAN RANDOM",
             "Erasing all words there flips {leverage_flips:%} of the decisions, but erasing the most attended first "
             "does no better than a random order ({trust}).",
             "An interval below zero; {needed}", bounds=(0.0,), above=False),
            Rule("NO LEVERAGE",
             "Erasing all words there flips {leverage_flips:%} of the decisions and moves the output by {leverage} "
             "nats: whatever the weights are, the decision hardly hangs on them.",
             "Another place: ask with --only erasure --setting level=token, or level=layer with layer=N."),
        ),
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
             bounds=(None,)),
            Rule("GOES ELSEWHERE",
             "The states that attention favours tell less of the output than the average state of the text "
             "({lift} nats; random order: {lift_null}).", MORE_TEXTS),
            Rule("NOTHING FOUND",
             "In the states that this attention reads, probes find nothing of the output.",
             "More texts to fit probes on, or a layer further up."),
        ),
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
             "An interval up to .1 (its own leads) or from .5 on (its own is lost); {needed}", bounds=(0.1, 0.5)),
            Rule("OWN TOKEN LOST",
             "In {not_own_main:%} of the positions that this attention reads, another token than its own weighs most: "
             "a weight on a position is no weight on its word.",
             "Attention of a lower layer, where less is mixed."),
        ),
    ),
    Question(
        "method", "Which method is most faithful here?", "comparison",
        ("attention_behind", "attention_over_random", "best_over_random"), ("aopc",),
        ("AMONG THE BEST", "NOT SETTLED", "BEHIND THE BEST", "LIKE RANDOM", "NOTHING BEATS RANDOM"),
        (
            Rule("NOTHING BEATS RANDOM",
                 "Not even {best} finds tokens whose erasure lowers the probability more than random ones do "
                 "({best_over_random}).", "More texts, or another way of erasing (pellucid bench --operators delete).",
                 ((Clause("best_over_random", most=0.0, end="low"),),)),
            Rule("LIKE RANDOM",
                 "Attention finds the tokens that matter no better than a random order (AOPC {attention_over_random} "
                 "above it); {best} is {best_over_random} above.", "An interval above zero; {needed}",
                 ((Clause("attention_over_random", most=0.0, end="low"),),), (0.0,), below=False),
            Rule("AMONG THE BEST",
                 "By AOPC {best} is at most .05 ahead of attention ({attention_behind}).",
                 "A method that is ahead by more, on other texts.",
                 ((Clause("attention_behind", most=MARGIN, end="high"),),)),
            Rule("BEHIND THE BEST",
                 "{best} finds the tokens that matter better than attention does: erased, they lower the probability "
                 "by {attention_behind} more (AOPC).", "Attention within .05 of the best method.",
                 ((Clause("attention_behind", least=0.0, end="low"),),)),
            Rule("NOT SETTLED", "{best} is ahead of attention by {attention_behind} (AOPC), which these texts do not "
                 "settle.", "A narrower interval; {needed}", ((Clause("attention_behind"),),), (0.0, MARGIN)),
        ),
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
_SHOW = "; show {instead} instead."
OVERALL = (
    Overall(UNDECIDED, {"drives": UNMEASURED, "method": UNMEASURED},
            "Whether attention of {place} explains this model cannot be told from {n}{why}."),
    Overall("NOT AN EXPLANATION", {"drives": ("NO LEVERAGE",)},
            "Attention of {place} is no explanation of this model on {n}: its decisions hardly hang on it" + _SHOW),
    Overall("NOT AN EXPLANATION", {"drives": ("NOT BETTER THAN RANDOM",)},
            "Attention of {place} is not a faithful explanation of this model on {n}: its largest weights matter no "
            "more than random ones" + _SHOW),
    Overall("NOT AN EXPLANATION", {"method": ("LIKE RANDOM",)},
            "Attention of {place} is not a faithful explanation of this model on {n}: it finds the tokens that matter "
            "no better than chance" + _SHOW),
    Overall("NOT AN EXPLANATION", {"method": ("BEHIND THE BEST",), "drives": ("NOISY", *UNMEASURED)},
            "Attention of {place} is not a faithful explanation of this model on {n}: it tells more than chance, but "
            "other methods tell more" + _SHOW),
    Overall("NOT AN EXPLANATION", {"unique": ("NOT UNIQUE",), "method": ("BEHIND THE BEST", "NOT SETTLED")},
            "Attention of {place} is not a faithful explanation of this model on {n}: other weights would give the "
            "same output" + _SHOW),
    Overall("MAY BE SHOWN",
            {"drives": ("TRUST",), "unique": ("UNIQUE", "PARTLY UNIQUE"), "method": ("AMONG THE BEST",),
             "stands": ("OWN TOKEN LEADS", "MIXED", *UNMEASURED)},
            "Attention of {place} may be shown as an explanation of this model on texts like these {n_texts}: it "
            "drives the decision, and no method looked at is clearly more faithful."),
    Overall("WITH CARE", {"unique": ("NOT UNIQUE",)},
            "Attention of {place} may be shown with care on texts like these {n_texts}: other weights would give the "
            "same output; {instead} is safer."),
    Overall("WITH CARE", {"stands": ("OWN TOKEN LOST",)},
            "Attention of {place} may be shown with care on texts like these {n_texts}: its positions no longer stand "
            "for their words; {instead} is safer."),
    Overall("WITH CARE", {},
            "Attention of {place} may be shown with care on texts like these {n_texts}: it tells something of the "
            "decision, which is not shown to be all; {instead} is safer."),
)  # fmt: skip
"""The first that fits is the verdict."""
