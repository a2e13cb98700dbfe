"""What the measurements of the audit "erasure" say: quantities, rules of grades, sentences and pictures, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pellucid.audits.audit import ENOUGH, TOO_FEW
from pellucid.audits.erasure.effects import NOISE, ORDERINGS, RIVALS
from pellucid.encoder.model import Model
from pellucid.finding import Finding, Picture, number
from pellucid.stats import (
    Estimate,
    Statistic,
    Survival,
    fewer,
    hits_by_chance,
    holm,
    mcnemar,
    non_inferior,
    over_texts,
    paired_difference,
    survival,
)

Record = Mapping[str, Any]
Walked = Mapping[str, Mapping[int, Record]]
"""Ordering -> text -> its means over draws."""

LEVERAGE_JS, LEVERAGE_FLIPS = 1e-3, 0.02
"""NO LEVERAGE: with all units erased the output moves by less than this (mean, nats) and fewer decisions flip."""
FLIPS_ENOUGH = 0.2
"""Orderings are compared by the share of units until the decision flips if at least so many texts can flip at all;
otherwise by the mean probability of the decision along the way."""


@runtime_checkable
class Settings(Protocol):
    """What reading needs to know of the audit's settings."""

    @property
    def level(self) -> Any: ...
    @property
    def margin(self) -> float: ...
    @property
    def minimum(self) -> int: ...
    @property
    def paper_mode(self) -> bool: ...


@dataclass(frozen=True)
class Quantity:
    """One number over texts: a column, its control's column, what these are, and a sentence with {value} and {null}."""

    name: str
    column: str
    null: str
    unit: str
    control: str
    reading: str
    better: str = ""  # "above" or "below" the control is what attention as explanation would predict
    statistic: Statistic = np.mean
    share: bool = False


_RANDOM = "a unit drawn at random in place of the most attended one"
_ORDER = "the same weights in a random order over the units"
_GONE = "all units erased in all layers (in a model of the zoo: a text without its units)"
QUANTITIES = (
    Quantity("leverage", "everything_js", "deleted_js", "JS divergence, nats", _GONE,
             "Erasing all units here moves the output by {value} nats; without them in the text it moves by {null}."),
    Quantity("leverage_flips", "everything_flips", "deleted_flips", "share of texts", _GONE,
             "Erasing all units here flips {value} of the decisions; a text without them {null}.", share=True),
    Quantity("even_attention", "even_js", "everything_js", "JS divergence, nats", "all units erased at this place",
             "Spreading the units' attention evenly moves the output by {value} nats; erasing them all by {null}."),
    Quantity("mean_attention", "mean_js", "everything_js", "JS divergence, nats", "all units erased at this place",
             "Attention averaged over the texts, by position, moves the output by {value} nats."),
    Quantity("delta_js", "delta_js", "random_delta_js", "JS divergence, nats", _RANDOM,
             "Erasing the most attended unit moves the output by {value} nats more than erasing another (a random "
             "unit: {null}).", "above"),
    Quantity("negative_share", "negative", "random_negative", "share of texts", _RANDOM,
             "In {value} of the texts the most attended unit matters less than the others do on average (a random "
             "unit: {null}).", "below", share=True),
    Quantity("hit_rate", "hit", "chance_hit", "share of texts", "chance: the average unit",
             "The most attended unit is the one with the largest effect in {value} of the texts; chance {null}.",
             "above", share=True),
    Quantity("top_rank", "rank", "random_rank", "rank from 0 (first) to 1 (last)", _RANDOM,
             "By effect the most attended unit has rank {value} on a scale from 0, first, to 1, last (random: {null}).",
             "below"),
    Quantity("regret", "regret", "random_regret", "JS divergence, nats", _RANDOM,
             "The most attended unit's effect is {value} nats below the largest (a random unit's: {null}).", "below"),
    Quantity("tau_effect", "tau", "random_tau", "Kendall's tau-b", _ORDER,
             "Attention and effects agree with tau {value} within texts (random order: {null}).", "above"),
    Quantity("against", "against", "random_against", "share of texts", _RANDOM,
             "In {value} of the texts the most attended unit speaks against the decision (a random unit: {null}): "
             "attention has no sign.", share=True),
    Quantity("top_flips", "top_flips", "other_flips", "share of texts", "another unit, the mean over all others",
             "Erasing the most attended unit flips {value} of the decisions; another unit {null}.", "above",
             share=True),
    Quantity("tau_gradient", "tau_gradient", "random_tau_gradient", "Kendall's tau-b", _ORDER,
             "Attention and gradient x input agree with tau {value} (random order: {null}); see tau_ceiling.", "above"),
    Quantity("tau_leave_one_out", "tau_leave_one_out", "random_tau_leave_one_out", "Kendall's tau-b", _ORDER,
             "Attention and leave-one-out agree with tau {value} (random order: {null}); see tau_ceiling.", "above"),
    Quantity("tau_ceiling", "tau_ceiling", "random_tau_gradient", "Kendall's tau-b", _ORDER,
             "Gradient x input and leave-one-out agree with each other with tau {value}: more cannot be hoped for."),
    Quantity("permuted_attention", "permuted_js", "everything_js", "JS divergence, nats, median of the orders",
             "all units erased at this place",
             "Attention in random orders moves the output by {value} nats; erasing all units by {null}."),
    Quantity("adversary_1%", "adversary_0.01", "random_apart", "JS divergence of attention, nats", _ORDER,
             "Attention {value} nats away (at most 0.69) moves no probability by more than 0.01; the same weights in a "
             "random order are {null} away. See leverage."),
    Quantity("adversary_5%", "adversary_0.05", "random_apart", "JS divergence of attention, nats", _ORDER,
             "Attention {value} nats away (at most 0.69) moves no probability by more than 0.05; the same weights in a "
             "random order are {null} away. See leverage."),
    Quantity("other_checkpoints", "seeds_js", "random_apart", "JS divergence of attention, nats", _ORDER,
             "Other checkpoints' attention is {value} nats away, the same weights in a random order {null}: an "
             "adversary no further than that proves nothing."),
)  # fmt: skip

LIMITS = (
    "This checkpoint alone: another seed of the same model may come out otherwise.",
    "Erased attention is off what the model was trained on; another way of erasing may order units otherwise.",
)
PLACES = {
    "pool": "in the attention that pools the states; a unit is a word, or a sentence of a hierarchical model",
    "cls_last": "in the last layer, from the row that the head reads",
    "layer": "in one layer, from every row",
    "token": "in all layers, from every row (the token is gone)",
    "cls_all": "in all layers, from the row that the head reads",
}


def _said(x: float | None, share: bool) -> str:
    return "not measured" if x is None else f"{x:.1%}" if share else number(x)


def _estimate(rows: Sequence[Record], column: str, q: Quantity) -> Estimate:
    return over_texts([[r[column]] for r in rows if r.get(column) is not None], q.statistic, q.share)


def findings(audit: Settings, texts: Sequence[Record], steps: Sequence[Record], model: Model) -> list[Finding]:
    """Every quantity, every ordering, and the grade of the place."""
    used = [
        {**t, "negative": float(t["delta_js"] < -NOISE), "random_negative": float(t["random_delta_js"] < -NOISE)}
        for t in texts
        if t["units"]
    ]
    limits = [*LIMITS, f"Erased {PLACES['pool' if model.net is None else audit.level]}."]
    short = sum(t["units"] < 2 for t in texts)
    if short:
        limits.append(f"{short} of {len(texts)} texts have fewer than two units and are left out.")
    out = [_quantity(q, used, tuple(limits)) for q in QUANTITIES if any(q.column in t for t in used)]
    few = sum(2 <= t["units"] < audit.minimum for t in texts)
    if few:
        limits.append(f"Orderings leave out {few} texts of fewer than {audit.minimum} units.")
    walked = by_ordering(steps)
    out += _orderings(walked, tuple(limits))
    if audit.paper_mode:
        out += _paper(used, walked, tuple(limits))
    return [*out, grade(audit, used, walked, tuple(limits))]


def _quantity(q: Quantity, used: Sequence[Record], limits: tuple[str, ...]) -> Finding:
    found, null = _estimate(used, q.column, q), _estimate(used, q.null, q)
    word = "MEASURED"
    if q.better and found.value is not None and null.value is not None and found.n >= ENOUGH:
        apart = paired_difference([r[q.column] for r in used], [r[q.null] for r in used])
        low, high = apart.interval or (0.0, 0.0)
        word = "AS CLAIMED" if (low > 0 if q.better == "above" else high < 0) else "NOT SHOWN"
        if high < 0 if q.better == "above" else low > 0:
            word = "REVERSED"
    reading = q.reading.format(value=_said(found.value, q.share), null=_said(null.value, q.share))
    if q.name == "hit_rate" and found.value is not None:
        p = hits_by_chance(sum(r["hit"] for r in used), [r["chance_hit"] for r in used])
        reading += f" p = {number(p)} (one-sided)."
    if q.name == "top_flips":
        both = mcnemar(*(int(sum(r[a] > r[b] for r in used)) for a, b in (_ONE, _ONE[::-1])))
        ends = " to ".join(map(number, both.interval))
        odds = f"the odds are {number(both.odds_ratio)} ({ends})" if np.isfinite(both.odds_ratio) else "no pair differs"
        reading += f" Against one random other unit per text {odds}; exact McNemar p = {number(both.p)}."
    return Finding(
        "erasure", q.name, found.value, found.interval, null.value, found.n,
        TOO_FEW if found.n < ENOUGH else word, reading, limits, q.unit, "", q.control, null.interval,
    )  # fmt: skip


_ONE = ("one_top_flips", "one_other_flips")


def by_ordering(steps: Sequence[Record]) -> dict[str, dict[int, dict[str, float]]]:
    """ordering -> text -> means over draws of fraction, area, flipped, reverts and mass."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name in ORDERINGS:
        mine = [s for s in steps if s["ordering"] == name]
        texts: dict[int, list[Record]] = {}
        for s in mine:
            texts.setdefault(s["text"], []).append(s)
        columns = ("fraction", "area", "flipped", "reverts", "mass")
        if mine:
            found[name] = {i: {c: float(np.mean([r[c] for r in rows])) for c in columns} for i, rows in texts.items()}
    return found


def _orderings(walked: Walked, limits: tuple[str, ...]) -> list[Finding]:
    what = {
        "fraction": ("fraction_to_flip", "share of units, 1 if never", "{name}: the decision flips after {value} of "
                     "the units are gone, never counted as all (random order: {null})."),
        "area": ("decision_probability", "mean probability along the way", "{name}: the decision keeps a probability "
                 "of {value} on the way (random order: {null})."),
        "flipped": ("ever_flips", "share of texts", "{name}: {value} of the decisions flip at some point (random "
                    "order: {null})."),
        "reverts": ("reverts", "share of texts", "{name}: in {value} of the texts a flipped decision comes back "
                    "(random order: {null})."),
    }  # fmt: skip
    out = []
    for column, (name, unit, sentence) in what.items():
        null = over_texts([[r[column]] for r in walked.get("random", {}).values()])
        for ordering, texts in walked.items():
            found = over_texts([[r[column]] for r in texts.values()])
            reading = sentence.format(
                name=ordering.replace("_", " "), value=_said(found.value, True), null=_said(null.value, True)
            )
            out.append(Finding(
                "erasure", name, found.value, found.interval, null.value, found.n,
                TOO_FEW if found.n < ENOUGH else "CEILING" if ordering in ("effect", "greedy") else "MEASURED",
                reading, limits, unit, ordering, "random orders of the same units", null.interval,
            ))  # fmt: skip
    return out


def comparisons(walked: Walked, column: str) -> Mapping[str, Record]:
    """Attention against random and each gradient ordering: paired differences, P(attention needs fewer), Holm's p."""
    rows: dict[str, dict[str, Any]] = {}
    for other in ("random", *RIVALS):
        if "attention" in walked and other in walked:
            both = sorted(set(walked["attention"]) & set(walked[other]))
            a, b = ([walked[k][i][column] for i in both] for k in ("attention", other))
            apart, less = paired_difference(a, b), fewer(a, b)
            rows[other] = {
                "difference": apart,
                "fewer": less.share,
                "p": less.p,
                "mean": float(np.mean(b)) if b else 1.0,
            }
    for row, p in zip(rows.values(), holm([r["p"] for r in rows.values()]), strict=True):
        row["holm"] = float(p)
    return rows


def grade(audit: Settings, used: Sequence[Record], walked: Walked, limits: tuple[str, ...]) -> Finding:
    """The grade of the place, leverage first: TRUST, NOISY, NOT BETTER THAN RANDOM or NO LEVERAGE.

    Attention is better than random if the 95 % interval of the paired difference lies below zero, and as good as the
    best gradient ordering if its upper end is within the margin: then TRUST, else NOISY.
    """
    js = over_texts([[t["everything_js"]] for t in used])
    flips = over_texts([[t["everything_flips"]] for t in used], share=True)
    column = "fraction" if (flips.value or 0.0) >= FLIPS_ENOUGH else "area"
    unit = "share of units until the flip" if column == "fraction" else "mean probability of the decision"
    rows = comparisons(walked, column)
    random = rows["random"]["difference"] if rows else Estimate(None, None, 0)
    rivals = {k: r for k, r in rows.items() if k != "random"}
    best = min(rivals, key=lambda k: rivals[k]["mean"]) if rivals else ""
    near = rivals[best]["difference"] if best else Estimate(None, None, 0)
    weak = (js.value or 0.0) < LEVERAGE_JS and (flips.value or 0.0) < LEVERAGE_FLIPS
    if js.n < ENOUGH or (not weak and random.n < ENOUGH):
        word = TOO_FEW
    elif weak:
        word = "NO LEVERAGE"
    elif random.interval is None or random.interval[1] >= 0:
        word = "NOT BETTER THAN RANDOM"
    else:
        word = "TRUST" if non_inferior(near, audit.margin) else "NOISY"
    moved = f"erasing all units moves the output by {_said(js.value, False)} nats and flips {_said(flips.value, True)}"
    reading = f"Here {moved} of the decisions"
    if rows and word not in ("NO LEVERAGE", TOO_FEW):
        p = ", ".join(f"{k.replace('_', ' ')} {number(r['holm'])}" for k, r in rows.items())
        reading += (
            f"; by the {unit}, erasing the most attended first differs from a random order by "
            f"{_said(random.value, False)} and from the best gradient ordering ({best.replace('_', ' ')}) by "
            f"{_said(near.value, False)} (upper end {_said(near.interval[1] if near.interval else None, False)}, "
            f"margin {audit.margin:g}). Holm's p: {p}"
        )
    return Finding(
        "erasure", "trust", random.value, random.interval, near.value, random.n or js.n, word, reading + ".", limits,
        f"{unit}, attention minus random order", "", f"attention minus the best gradient ordering ({best})",
        near.interval,
    )  # fmt: skip


def _paper(used: Sequence[Record], walked: Walked, limits: tuple[str, ...]) -> list[Finding]:
    """Serrano & Smith's own definitions: one random other unit, strict signs, the never flipped left out."""
    negative = over_texts([[float(t["one_delta_js"] < 0)] for t in used], share=True)
    null = over_texts([[t["random_negative"]] for t in used], share=True)
    out = [Finding(
        "erasure", "paper_negative_share", negative.value, negative.interval, null.value, negative.n, "MEASURED",
        f"As published: in {_said(negative.value, True)} of the texts the top unit moves the output less than one "
        "random other unit.", limits, "share of texts", "", _RANDOM, null.interval,
    )]  # fmt: skip
    median = {
        k: over_texts([[r["fraction"]] for r in t.values() if r["flipped"]], np.median) for k, t in walked.items()
    }
    for ordering, found in median.items():
        out.append(Finding(
            "erasure", "paper_fraction_to_flip", found.value, found.interval, median["random"].value, found.n,
            "MEASURED", f"As published, the never flipped left out: {ordering.replace('_', ' ')} flips after "
            f"{_said(found.value, True)} of the units (median).", limits, "share of units, median", ordering,
            "random orders of the same units", median["random"].interval,
        ))  # fmt: skip
    return out


def pictures(
    found: Sequence[Finding], texts: Sequence[Record], steps: Sequence[Record], units: Sequence[Record]
) -> dict[str, Picture]:
    """Effect over attention, flip curves, the two-by-two of flips, and one sentence."""
    from pellucid.render.charts import curves, maps

    used = [t for t in texts if t["units"]]
    made = {"delta": Picture(curves, *_delta(used))}
    drawn, where = {}, {"random": {}, "": {}}  # type: ignore[var-annotated]
    for name in ORDERINGS:
        once = {r["text"]: r for r in steps if r["ordering"] == name}  # one draw per text: texts are what is counted
        if once:
            s = survival([r["fraction"] for r in once.values()], [r["flipped"] for r in once.values()])
            where["random" if name == "random" else ""][name.replace("_", " ")] = _stairs(s)
    drawn = where[""]
    if drawn:
        made["flips"] = Picture(
            curves, drawn, "share of units erased", "share of decisions not flipped", "Flip curves", where["random"]
        )
    top, other = (np.array([t[c] for t in used]) for c in _ONE)
    cells = np.array([[(top * other).mean(), (top * (1 - other)).mean()],
                      [((1 - top) * other).mean(), ((1 - top) * (1 - other)).mean()]])  # fmt: skip
    sides = ["flips", "holds"]
    made["two_by_two"] = Picture(
        maps, {"share of texts": cells}, [f"top {s}" for s in sides], [f"another {s}" for s in sides],
        "Most attended unit against one random other",
    )  # fmt: skip
    one = max(used, key=lambda t: t["regret"])["text"]
    mine = [u for u in units if u["text"] == one]
    strip = np.array([[u["attention"] for u in mine], [u["effect"] for u in mine]])
    strip = strip / np.maximum(np.abs(strip).max(1, keepdims=True), 1e-300)
    made["sentence"] = Picture(
        maps, {"each row over its largest": strip}, ["attention", "effect"], [u["word"] for u in mine],
        f"Text {one + 1}: where attention and effect part most",
    )  # fmt: skip
    return made


def _stairs(s: Survival) -> tuple[Any, ...]:
    """A survival curve as steps: each share holds until the next fraction."""
    x = np.repeat(s.x, 2)[1:]
    return (x, *(np.repeat(y, 2)[:-1] for y in (s.share, s.low, s.high)))


def _delta(used: Sequence[Record]) -> tuple[Any, ...]:
    """Mean difference of effects over the difference of attention, in up to eight groups of texts, and the share below
    zero."""
    rows = sorted(used, key=lambda t: t["delta_alpha"])
    groups: list[Any] = np.array_split(np.arange(len(rows)), min(8, max(1, len(rows) // 5)))
    series: dict[str, tuple[list[float], ...]] = {"effect": ([], [], [], []), "share below zero": ([], [], [], [])}
    for g in groups:
        mine = [rows[i] for i in g]
        x = float(np.mean([t["delta_alpha"] for t in mine]))
        for name, values in (
            ("effect", [[t["delta_js"]] for t in mine]),
            ("share below zero", [[float(t["delta_js"] < -NOISE)] for t in mine]),
        ):
            e = over_texts(values, resamples=500)
            low, high = e.interval or (e.value, e.value)
            for column, v in zip(series[name], (x, e.value, low, high), strict=True):
                column.append(v)  # type: ignore[arg-type]
    title = "Most attended unit minus the others: effect (nats) and share of texts below zero"
    return series, "difference of attention", "difference of effect; share", title
