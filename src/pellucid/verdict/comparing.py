"""The short comparison of methods as findings: is attention as faithful as the best method here?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.audits.audit import ENOUGH, TOO_FEW
from pellucid.bench import Comparison
from pellucid.encoder.model import Model
from pellucid.errors import InputError, Unanswerable
from pellucid.finding import Finding, Findings, Picture, number
from pellucid.methods import METHODS
from pellucid.stats import Estimate, holm, over_texts, paired_difference, paired_p
from pellucid.verdict.rules import NOT_TOLD, TOLD

PANEL = ("decompx", "deeplift_mask", "integrated_decompx", "gradient_x_input", "leave_one_out", "attention", "rollout")
"""What is compared, as far as the model allows; of those as good as the best, the first is what to show instead."""
SHORT = ("decompx", "deeplift_mask", "gradient_x_input", "leave_one_out", "attention")
"""The same where time is too short for PANEL."""
MASKED = {"deeplift_mask": "gradient_x_input", "leave_one_out": "leave_one_out_delete"}
"""What stands in for a method whose mask token the tokenizer does not have."""
ATTENTION, RANDOM = "attention", "random"
LEVEL = 0.05
UNIT = "AOPC, in probability"
_WHAT = "the probability of the decision lost when the highest ranked tokens are erased, averaged over shares erased"


def panel(model: Model, methods: Sequence[str] | None = None, usual: Sequence[str] = PANEL) -> list[str]:
    """The methods that were named, or those of `usual` that the model's access and tokenizer allow.

    Raises: InputError for unknown names, or for attention alone; AccessError for what asks more than the model shows.
    """
    if methods is not None:
        if not set(methods) - {ATTENTION, RANDOM}:
            raise InputError(
                f"Attention is compared with other methods; name at least one beside {', '.join(methods)}."
            )
        for name in methods:
            model.require(METHODS.get(name).needs, f"The method {name!r}")
        return list(methods)
    mask = getattr(model.tokenizer, "mask_token_id", None) is not None
    names = dict.fromkeys(name if mask else MASKED.get(name, name) for name in usual)
    return [name for name in names if model.access >= METHODS.get(name).needs]


def operator(model: Model) -> str:
    """How tokens are erased: by the mask token where there is one, else they are deleted."""
    return "delete" if getattr(model.tokenizer, "mask_token_id", None) is None else "mask"


@dataclass(frozen=True)
class Compared:
    """The short comparison as findings; the method with the best mean, attention left out; the method to show, and why
    this one, as a sentence; both are "" where none is told apart from random."""

    findings: Findings
    best: str
    show: str
    why: str


def compared(made: Comparison) -> Compared:
    """The comparison read for the verdict. Unanswerable where no method gave a number."""
    key, seed = made.asked[0].key, made.seed
    values = {label: made.values[label, key] for label in made.about}
    means = {label: over_texts(x[:, None].tolist(), seed=seed) for label, x in values.items()}
    others = {m: e.value for m, e in means.items() if m not in (RANDOM, ATTENTION) and e.value is not None}
    if not others or means[RANDOM].value is None:
        why = next((why for texts in made.failures.values() for why in texts.values()), "nothing was measured")
        raise Unanswerable(f"No method could be compared on these texts: {why}")
    best = max(others, key=lambda m: others[m])
    limits = (
        f"AOPC ({made.asked[0].operator}) over {made.measured} texts: {_WHAT}.",
        "The best method was picked on these texts; Holm's p over all methods allows for that, its interval does not.",
        "Signed methods rank for before against the decision; attention has no sign, which is part of what it lacks.",
        "Erased texts are unlike those the model was trained on; another way of erasing may rank methods otherwise.",
    )
    told = Told(values, seed, limits)
    found = [_mean(label, means[label], means[RANDOM], limits) for label in made.labels]
    found.append(told.apart("best_over_random", best, RANDOM, list(others)))
    if ATTENTION in values:
        found.append(told.apart("attention_over_random", ATTENTION, RANDOM, [ATTENTION]))
        found.append(told.apart("attention_behind", best, ATTENTION, list(others), values[best] - values[RANDOM]))
    show, why = _shown(values, best, list(others), seed)
    out = Findings(
        found, "comparison", {"values": [_row(row) for row in made.rows]}, {"methods": Picture(_drawn, found)}
    )
    out.origin = {"forwards": made.spent["forwards"]}
    out.params = {"seed": seed, "methods": list(made.about), "operator": made.asked[0].operator}
    lost = next(f for f in found if f.name == "best_over_random").grade == NOT_TOLD
    return Compared(out, best, "" if lost else show, "" if lost else why)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what differs from run to run."""
    return {k: v for k, v in row.items() if k != "seconds"}


def _shown(values: Mapping[str, np.ndarray], best: str, others: Sequence[str], seed: int) -> tuple[str, str]:
    """The method to show, and why: of those that these texts do not tell apart from the best, the first of the panel
    that adds up to the logit; if none does, the best."""
    raw = [1.0 if m == best else paired_p(values[best].tolist(), values[m].tolist(), seed) for m in others]
    alike = [m for m, p in zip(others, holm(raw), strict=True) if p > LEVEL]
    order = {m: i for i, m in enumerate(PANEL)}
    whole = [m for m in alike if m in METHODS and METHODS.get(m).guarantees(None).complete]
    if not whole:
        return best, f" Of the methods that add up to the logit none is as good; {best} ranks the words."
    show = min(whole, key=lambda m: order.get(m, len(order)))
    if show == best:
        return show, f" {show} also adds up to the logit."
    return show, f" To show: {show}, which adds up to the logit, and which these texts do not tell apart from {best}."


def _mean(label: str, e: Estimate, random: Estimate, limits: tuple[str, ...]) -> Finding:
    grade = TOO_FEW if e.n < ENOUGH else "CONTROL" if label == RANDOM else "MEASURED"
    said = "not measured" if e.value is None or random.value is None else number(e.value)
    return Finding(
        "comparison", "aopc", e.value, e.interval, random.value, e.n, grade,
        f"{label}: {said} of the probability is lost (random order: {number(random.value or 0.0)}).", limits, UNIT,
        label, "random scores", random.interval,
    )  # fmt: skip


@dataclass(frozen=True)
class Told:
    """Paired differences between methods: AOPC of each over the same texts."""

    values: Mapping[str, np.ndarray]
    seed: int
    limits: tuple[str, ...]

    def apart(
        self, name: str, a: str, b: str, picked_from: Sequence[str], control: np.ndarray | None = None
    ) -> Finding:
        """The difference a - b, graded by a's p after Holm over all that it was picked from. control: differences that
        it is held against; None: zero, which chance gives."""
        e = paired_difference(self.values[a].tolist(), self.values[b].tolist(), self.seed)
        raw = [paired_p(self.values[m].tolist(), self.values[b].tolist(), self.seed) for m in picked_from]
        p = float(holm(raw)[list(picked_from).index(a)])
        null = Estimate(0.0, None, e.n) if control is None else over_texts(control[:, None].tolist(), seed=self.seed)
        grade = TOO_FEW if e.n < ENOUGH else TOLD if p <= LEVEL else NOT_TOLD
        said = "not measured" if e.value is None else number(e.value)
        return Finding(
            "comparison", name, e.value, e.interval, null.value, e.n, grade,
            f"{a} above {b}: {said} on the same texts; Holm's p = {number(p)}.", self.limits, UNIT, "",
            "no difference" if control is None else "the same method above random", null.interval,
        )  # fmt: skip


def _drawn(found: list[Finding]) -> object:
    """Every method's AOPC with its interval."""
    from pellucid.render.charts import intervals

    mine = [f for f in found if f.name == "aopc"]
    ends = [f.interval or (f.value, f.value) for f in mine]
    return intervals(
        [f.where for f in mine], [f.value for f in mine], [a for a, _ in ends], [b for _, b in ends],
        "How much of the probability is lost when a method's first tokens are erased", UNIT,
    )  # fmt: skip
