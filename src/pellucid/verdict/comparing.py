"""The short comparison of methods as findings: is attention as faithful as the best method here?"""

import numpy as np

from pellucid.audits.audit import ENOUGH, TOO_FEW
from pellucid.bench import Comparison
from pellucid.encoder.model import Model
from pellucid.errors import InputError, Unanswerable
from pellucid.finding import Finding, Findings, Picture, number
from pellucid.stats import Estimate, over_texts, paired_difference
from pellucid.verdict.rules import MARGIN

PANEL = ("decompx", "deeplift_mask", "integrated_decompx", "gradient_x_input", "leave_one_out", "attention", "rollout")
"""What is compared, as far as the model allows; of those as good as the best, the first is what to show instead."""
ATTENTION, RANDOM = "attention", "random"
UNIT = "AOPC, in probability"
_WHAT = "the probability of the decision lost when the highest ranked tokens are erased, averaged over shares erased"


def panel(model: Model, methods: tuple[str, ...] | None = None) -> list[str]:
    """The methods of PANEL that the model's access and tokenizer allow."""
    from pellucid.methods import METHODS

    mask = getattr(model.tokenizer, "mask_token_id", None) is not None
    names = PANEL if methods is None else methods
    if not set(names) - {ATTENTION, RANDOM}:
        raise InputError(f"Attention is compared with other methods; name at least one beside {', '.join(names)}.")
    able = [name for name in names if model.access >= METHODS.get(name).needs]
    return [n for n in able if methods is not None or mask or n not in ("deeplift_mask", "leave_one_out")]


def operator(model: Model) -> str:
    """How tokens are erased: by the mask token where there is one, else they are deleted."""
    return "delete" if getattr(model.tokenizer, "mask_token_id", None) is None else "mask"


def compared(made: Comparison) -> tuple[Findings, str]:
    """Findings, and the method to show: the first of the panel that is at most the margin behind the best."""
    key = made.asked[0].key
    values = {label: made.values[label, key] for label in made.about}
    means = {label: over_texts(x[:, None].tolist(), seed=made.seed) for label, x in values.items()}
    others = [m for m in means if m not in (RANDOM, ATTENTION) and means[m].value is not None]
    if not others or means[RANDOM].value is None:
        why = next((why for texts in made.failures.values() for why in texts.values()), "nothing was measured")
        raise Unanswerable(f"No method could be compared on these texts: {why}")
    best = max(others, key=lambda m: means[m].value or 0.0)
    limits = (
        f"AOPC ({made.asked[0].operator}) over {made.measured} texts: {_WHAT}.",
        "The best method was chosen on these texts, which favours it a little.",
        "Signed methods rank for before against the decision; attention has no sign, which is part of what it lacks.",
        "Erased texts are unlike those the model was trained on; another way of erasing may rank methods otherwise.",
    )
    found = [_mean(label, means[label], means[RANDOM], limits) for label in made.labels]
    found += [
        _apart("best_over_random", f"{best} above random", values[best], values[RANDOM], None, limits, made.seed),
    ]
    if ATTENTION in values:
        a, r = values[ATTENTION], values[RANDOM]
        found += [
            _apart("attention_over_random", "attention above random", a, r, None, limits, made.seed),
            _apart("attention_behind", f"{best} above attention", values[best], a, values[best] - r, limits, made.seed),
        ]
    near = [m for m in others if _within(values[best], values[m], made.seed)]
    order = {m: i for i, m in enumerate(PANEL)}
    tables = {"values": [dict(row) for row in made.rows]}
    tables["values"] = [{k: v for k, v in row.items() if k != "seconds"} for row in tables["values"]]
    out = Findings(found, "comparison", tables, {"methods": Picture(_drawn, found)})
    out.origin = {"forwards": made.spent["forwards"]}
    out.params = {"seed": made.seed, "methods": list(made.about), "operator": made.asked[0].operator}
    return out, min(near, key=lambda m: order.get(m, len(order)))


def _within(best: np.ndarray, other: np.ndarray, seed: int) -> bool:
    """Whether a method is as good as the best: the interval of what it is behind ends within the margin."""
    e = paired_difference(best.tolist(), other.tolist(), seed)
    return e.value is not None and (e.value == 0 or (e.interval is not None and e.interval[1] <= MARGIN))


def _mean(label: str, e: Estimate, random: Estimate, limits: tuple[str, ...]) -> Finding:
    grade = TOO_FEW if e.n < ENOUGH else "CONTROL" if label == RANDOM else "MEASURED"
    said = "not measured" if e.value is None or random.value is None else number(e.value)
    return Finding(
        "comparison", "aopc", e.value, e.interval, random.value, e.n, grade,
        f"{label}: {said} of the probability is lost (random order: {number(random.value or 0.0)}).", limits, UNIT,
        label, "random scores", random.interval,
    )  # fmt: skip


def _apart(
    name: str,
    what: str,
    a: np.ndarray,
    b: np.ndarray,
    control: np.ndarray | None,
    limits: tuple[str, ...],
    seed: int,
) -> Finding:
    """The paired difference a - b. control: differences that it is held against; None: zero, which chance gives."""
    e = paired_difference(a.tolist(), b.tolist(), seed)
    null = Estimate(0.0, None, e.n) if control is None else over_texts(control[:, None].tolist(), seed=seed)
    said = "not measured" if e.value is None else number(e.value)
    return Finding(
        "comparison", name, e.value, e.interval, null.value, e.n, TOO_FEW if e.n < ENOUGH else "MEASURED",
        f"{what}: {said} on the same texts.", limits, UNIT, "",
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
