"""Sanity: does an explanation change when the model does? With random weights, and against another model.

An explanation that stays the same when what it explains is destroyed explains something else: the text alone, or the
architecture (Adebayo et al. 2018, arXiv 1810.03292).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from pellucid.audits.audit import ENOUGH, TOO_FEW
from pellucid.bench.asked import Given
from pellucid.bench.cascade import cascade, stage_names
from pellucid.bench.each import Seen, attributions
from pellucid.bench.truth import chosen, spearman
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.finding import Finding, Findings, with_interval
from pellucid.methods import Method
from pellucid.metrics import LEAST, near_duplicates
from pellucid.run.auditing import audited, data_hash
from pellucid.run.origin import provenance
from pellucid.stats import TIED, Estimate, over_texts
from pellucid.types import Batch, Text

MARGIN = 0.2
"""A mean rank correlation nearer to 0 than this is none to speak of: 4 % of the ranks' variance."""
SEEDS = 5
Progress = Callable[[int, int], None] | None


def crossed(values: Float[np.ndarray, "s t"]) -> Estimate:
    """Mean over seeds and texts, with a 95 % interval for other seeds and other texts; nan is left out.

    All texts of a seed share one random model, so that texts alone would make the interval too short, and a bootstrap
    of few seeds does too. Seeds and texts are crossed random effects: the variance of the mean is that of the seeds'
    means plus that of the texts' means, less what is in both, with Student's t and Satterthwaite's degrees of freedom
    (1946). Of one seed, a bootstrap over texts. None for fewer than two texts. n: texts.
    """
    known = np.isfinite(values)
    v = values[:, known.any(0)][known.any(1)]
    s, t = v.shape
    if s < 2 or t < 2:
        return over_texts(v.T.tolist())
    of_seeds, of_texts, mean = np.nanmean(v, 1), np.nanmean(v, 0), float(np.nanmean(v))
    rest = np.nanmean((v - of_seeds[:, None] - of_texts + mean) ** 2) / ((s - 1) * (t - 1))
    parts = np.array([of_seeds.var(ddof=1) / s, of_texts.var(ddof=1) / t])
    error = float(np.sqrt(max(parts.sum() - rest, parts.max())))
    if error < TIED:
        return Estimate(mean, (mean, mean), t, int(known.sum()))
    freedom = parts.sum() ** 2 / (parts**2 / np.array([s - 1, t - 1])).sum()
    wide = float(student.ppf(0.975, freedom)) * error
    return Estimate(mean, (max(-1.0, mean - wide), min(1.0, mean + wide)), t, int(known.sum()))


@dataclass(frozen=True, eq=False)
class Original:
    """What is compared with: a model, its texts, the class it decides for on each, and the explanations of that class.

    upper: of each method the rank correlation with itself on near-duplicates [copies, t]; repeat: with its own other
    seed [1, t], where it has one. left_out: methods without any explanation, and why.
    """

    model: Model
    batch: Batch
    targets: list[int]
    methods: Mapping[str, Method]
    seen: Mapping[str, Seen]
    upper: Mapping[str, np.ndarray]
    repeat: Mapping[str, np.ndarray]
    left_out: dict[str, str]

    def lower(self, seeds: int) -> Estimate:
        """The rank correlation of two random orders of each text's ordinary tokens, as many as there are seeds."""
        rng = np.random.default_rng(0)
        sizes = [sum(not t.special for t in row) for row in self.batch.tokens or ()]
        return over_texts([[_chance(rng, m) for _ in range(seeds)] for m in sizes])


def _chance(rng: np.random.Generator, m: int) -> float:
    return spearman(rng.normal(size=m), rng.normal(size=m)) if m >= LEAST else float("nan")


def _original(
    model: Model, x: Any, methods: Given | None, duplicates: int, seed: int, max_tokens: int | None
) -> Original:
    model.check_unchanged()
    batch = audited(model, x, max_tokens).whole
    targets = [int(i) for i in model.logits(batch).argmax(-1)]
    asked = chosen(methods)
    seen = {name: attributions(model, batch, method, targets) for name, method in asked.items()}
    left_out = {n: str(found[0]) for n, found in seen.items() if all(isinstance(a, str) for a in found)}
    asked = {n: m for n, m in asked.items() if n not in left_out}
    twins = _twins(model, batch, duplicates, seed)
    upper = {n: _on_twins(model, targets, m, seen[n], twins, duplicates) for n, m in asked.items()}
    repeat = {}
    for n, m in asked.items():
        if "seed" in {f.name for f in fields(m)}:  # type: ignore[arg-type]
            again = replace(m, seed=m.seed + 1)  # type: ignore[type-var, attr-defined]
            repeat[n] = _agreement(seen[n], attributions(model, batch, again, targets))[:1]
    return Original(model, batch, targets, asked, seen, upper, repeat, left_out)


def _twins(model: Model, batch: Batch, duplicates: int, seed: int) -> list[tuple[Batch, np.ndarray] | None]:
    """Near-duplicates of each text, and which tokens they share with it; None where there is none."""
    found: list[tuple[Batch, np.ndarray] | None] = []
    for i in range(len(batch)):
        try:
            d = near_duplicates(model, batch.rows([i]), duplicates, seed=seed) if duplicates else None
        except InputError:  # no probabilities, or no table of words: no such control
            d = None
        found.append(None if d is None or d.batch is None else (d.batch, d.same))
    return found


def _on_twins(
    model: Model, targets: list[int], method: Method, seen: Seen, twins: list[Any], duplicates: int
) -> np.ndarray:
    """Rank correlation of a text's scores with each near-duplicate's, over the tokens they share, [copies, t]."""
    out = np.full((max(1, duplicates), len(seen)), np.nan)
    for i, (a, twin) in enumerate(zip(seen, twins, strict=True)):
        if twin is None or isinstance(a, str):
            continue
        batch, same = twin
        for j, b in enumerate(attributions(model, batch, method, [targets[i]] * len(batch))):
            if not isinstance(b, str) and same[j].sum() >= LEAST:
                out[j, i] = spearman(a.scores[same[j]], b.scores[same[j]])
    return out


def _agreement(some: Seen, others: Seen) -> np.ndarray:
    """[2, t]: rank correlation of two explanations of each text over ordinary tokens, and of their sizes |score|."""
    out = np.full((2, len(some)), np.nan)
    for i, (a, b) in enumerate(zip(some, others, strict=True)):
        if isinstance(a, str) or isinstance(b, str):
            continue
        ordinary = [not t.special for t in a.tokens]
        x, y = a.scores[ordinary], b.scores[ordinary]
        if len(x) >= LEAST:
            out[:, i] = spearman(x, y), spearman(np.abs(x), np.abs(y))
    return out


def grade_of(found: Estimate, upper: Estimate) -> str:
    """The rule. FAILS: the interval lies beyond MARGIN, whatever the sign. PASSES: it lies within +-MARGIN, and below
    what the method has in common with itself on near-duplicates, where that was measured. NOTHING TO LOSE: within, but
    not below: it changes as much where nothing changed. UNCLEAR: anything else. TOO FEW TEXTS: under ENOUGH."""
    if found.interval is None or found.n < ENOUGH:
        return TOO_FEW
    low, high = found.interval
    if low > MARGIN or high < -MARGIN:
        return "FAILS"
    if low < -MARGIN or high > MARGIN:
        return "UNCLEAR"
    known = upper.interval is not None
    return "NOTHING TO LOSE" if known and upper.interval[0] <= high else "PASSES"  # type: ignore[index]


def randomised_weights(
    model: Model,
    x: Text | Sequence[Text] | Batch,
    methods: Given | None = None,
    seeds: int = SEEDS,
    stages: int | None = None,
    duplicates: int = 2,
    max_tokens: int | None = None,
    progress: Progress = None,
) -> Findings:
    """Whether explanations notice that the model's weights are gone, stage by stage from the head down.

    The class that the model decides for is explained in every copy (see `cascade`), whatever that decides for. What is
    compared: the ranks of scores of ordinary tokens, signed as they are (special ones would agree in methods that give
    them 0); in the tables also of their sizes. methods: see `named`, by default all that are registered; those that
    cannot run are left out, and origin["left_out"] says why. seeds: random models; draws 0, 1, ... stages: measure at
    most so many, the last among them. duplicates: near-duplicates per text, for the upper control. max_tokens: cut
    longer texts there. progress: hears (done, total) models.

    Returns a finding per method, of the wholly random model: mean rank correlation, with the control of two random
    orders, graded by `grade_of`; and one of the stage before, which is the harder test of a language model: all but the
    embeddings is random there, and what is read off them alone stays. Tables "stages" (per method and stage),
    "controls", and "texts" (every number).
    Cost: each method on each text, once for every stage of every seed, and 1 + duplicates times for the model itself.
    Source: Adebayo et al. 2018, arXiv 1810.03292, sections 3 and 4. Differs from it: weights are drawn anew with the
    moments of the old ones; intervals over texts and seeds; a margin instead of a look.
    """
    if seeds < 1 or (stages is not None and stages < 1):
        raise InputError(f"There must be at least one seed and one stage; seen seeds={seeds}, stages={stages}.")
    base = _original(model, x, methods, duplicates, 0, max_tokens)
    names = stage_names(model, base.batch.rows([0]))
    last, wanted = len(names) - 1, stages or len(names)
    picked = {round(i) for i in np.linspace(0, last, wanted)} if wanted > 1 else {last}
    values = {n: np.full((len(names), seeds, 2, len(base.targets)), np.nan) for n in base.methods}
    reasons: dict[str, str] = {}
    for s in range(seeds):
        for depth, (_, other) in enumerate(cascade(model, base.batch.rows([0]), s)):
            if depth in picked:
                for name, found in _explained(base, other, reasons).items():
                    values[name][depth, s] = _agreement(base.seen[name], found)
            if progress is not None:
                progress(s * len(names) + depth + 1, seeds * len(names))
    model.check_unchanged()
    measured = [name if depth in picked else "" for depth, name in enumerate(names)]
    return _told("sanity_weights", base, values, measured, reasons, "random weights")


def randomised_labels(
    model: Model,
    other: Model,
    x: Text | Sequence[Text] | Batch,
    methods: Given | None = None,
    duplicates: int = 2,
    max_tokens: int | None = None,
) -> Findings:
    """Whether explanations tell two models of the same inputs apart, such as one trained on shuffled labels.

    As `randomised_weights`, with the other model in place of random ones; there is one, so the intervals are over texts
    alone, and say nothing of another training. Two models that learnt the same may well be explained alike: a rank
    correlation far from 0 is only against a method if the other model has learnt nothing of the sort.

    Raises: InputError unless both give the same ids to the texts and have as many classes.
    Source: Adebayo et al. 2018, arXiv 1810.03292, section 5 (data randomisation test).
    """
    if len(model.labels) != len(other.labels):
        raise InputError(
            f"Two models are compared on the same classes, but {model.id!r} has {len(model.labels)} and {other.id!r} "
            f"{len(other.labels)}."
        )
    base = _original(model, x, methods, duplicates, 0, max_tokens)
    if base.batch.texts is not None and other.tokenizer is not None:
        theirs = audited(other, list(base.batch.texts), max_tokens).whole
        if theirs.input_ids.tolist() != base.batch.input_ids.tolist():
            raise InputError(f"{model.id!r} and {other.id!r} give these texts different ids: their tokenizers differ.")
    reasons: dict[str, str] = {}
    found = _explained(base, other, reasons)
    values = {n: _agreement(base.seen[n], seen)[None, None] for n, seen in found.items()}
    return _told("sanity_labels", base, values, [other.id], reasons, "the other model")


def _explained(base: Original, other: Model, reasons: dict[str, str]) -> dict[str, Seen]:
    """Each method's explanations by another model of the same texts and classes; reasons collects what went wrong."""
    found = {n: attributions(other, base.batch, m, base.targets) for n, m in base.methods.items()}
    for name, seen in found.items():
        said = [a for a in seen if isinstance(a, str)]
        if said:
            reasons.setdefault(name, said[0])
    return found


def _told(
    audit: str, base: Original, values: Mapping[str, np.ndarray], names: list[str], reasons: dict[str, str], what: str
) -> Findings:
    """Findings from values [stage, seed, 2, text] of each method; stages without a name were not measured."""
    seeds = next((v.shape[1] for v in values.values()), 1)
    lower = base.lower(seeds)
    left_out, found = dict(base.left_out), []
    tables: dict[str, list[dict[str, Any]]] = {"stages": [], "controls": [], "texts": []}
    for name, v in values.items():
        at_end = crossed(v[-1, :, 0])
        if not at_end.n:
            left_out[name] = reasons.get(name, "its scores are the same everywhere, or the texts too short")
            continue
        upper = over_texts(base.upper[name].T.tolist())
        for depth, where in ends_of(names):
            ends = crossed(v[depth, :, 0]), crossed(v[depth, :, 1])
            found.append(_finding(audit, name, where, ends, lower, upper, seeds, what))
        tables["controls"].append(_row(upper, method=name, control="near-duplicates"))
        if name in base.repeat:
            again = over_texts(base.repeat[name].T.tolist())
            tables["controls"].append(_row(again, method=name, control="another seed"))
        for depth, stage in enumerate(names):
            if stage:
                for k, kind in enumerate(("scores", "sizes")):
                    told = _row(crossed(v[depth, :, k]), method=name, stage=stage, depth=depth, of=kind)
                    tables["stages"].append(told)
                tables["texts"] += _texts(name, stage, depth, v[depth])
    tables["controls"].append(_row(lower, method="random", control="two random orders"))
    told = {"left_out": left_out, "texts": len(base.targets), "data": data_hash(base.batch)}
    return Findings(found, audit, tables, params={"margin": MARGIN}, origin=provenance(base.model) | told)


def ends_of(names: Sequence[str]) -> list[tuple[int, str]]:
    """The last stage, and the one before it if it was measured, with what is not random there."""
    return [(-1, ""), *([(-2, f"{names[-1]} kept")] if len(names) > 1 and names[-2] else [])]


def _finding(
    audit: str,
    name: str,
    where: str,
    ends: tuple[Estimate, Estimate],
    lower: Estimate,
    upper: Estimate,
    seeds: int,
    what: str,
) -> Finding:
    end, sizes = ends
    reading = (
        f"The ranks of its scores for {what} correlate {with_interval(end.value, end.interval)} with those for the "
        f"model, and on near-duplicates {with_interval(upper.value, upper.interval)}; of the sizes of scores "
        f"{with_interval(sizes.value, sizes.interval)}."
    )
    limits: tuple[str, ...] = ("It says that an explanation depends on the model, not that it is right.",)
    if audit == "sanity_labels":
        limits += ("Likeness is against a method only if the other model has learnt nothing of the sort.",)
    return Finding(
        audit,
        name,
        end.value,
        end.interval,
        lower.value,
        end.n,
        grade_of(end, upper),
        reading,
        limits,
        unit="Spearman's rho",
        where=where,
        control="two random orders",
        null_interval=lower.interval,
        counts={"seeds": seeds},
    )


def _row(found: Estimate, **told: Any) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {**told, "rho": found.value, "low": low, "high": high, "n": found.n, "samples": found.samples}


def _texts(method: str, stage: str, depth: int, v: np.ndarray) -> Iterator[dict[str, Any]]:
    """A row per seed and text with a number; v [seed, 2, text]."""
    for s, (scores, sizes) in enumerate(v):
        for t in np.flatnonzero(np.isfinite(scores)):
            row = {"method": method, "stage": stage, "depth": depth, "seed": s, "text": int(t)}
            yield {**row, "scores": float(scores[t]), "sizes": float(sizes[t]) if np.isfinite(sizes[t]) else None}
