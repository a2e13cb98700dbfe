"""Planted truth: how far each method is from contributions that are known in closed form (see `planted_models`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Bool, Float

from pellucid.bench.asked import Given, named
from pellucid.bench.each import attributions
from pellucid.bench.planted_models import CASES, WORDS, Case
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods import METHODS, KernelShap, Method, Random
from pellucid.stats import Estimate, over_texts

MEASURES = {"pearson": 1, "spearman": 1, "l1": -1, "precision": 1, "spearman_signed": 1}
"""What is told of a method's scores, and whether up (1) or down (-1) is better; see `against`."""
CONTROLS: dict[str, Method] = {"random": Random(), "exact_shapley": KernelShap(samples=2**WORDS)}
"""Below and above: random scores, and Shapley values from all 2^10 texts with words masked, which is the truth."""
EVERY = "all cases"
RESOLUTION = 1e-6
"""Scores nearer than this share of the largest are tied: the models are as exact as that, and zeros are rounding."""
YES = 1


def pearson(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Pearson's correlation; nan where one side is constant, or for fewer than two pairs."""
    x, y = a - a.mean() if len(a) else a, b - b.mean() if len(b) else b
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / norm, -1.0, 1.0)) if norm > 0 else float("nan")


def spearman(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Spearman's correlation: that of ranks, ties sharing theirs; nan where one side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(a), rankdata(b))


def settled(numbers: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The same, where neighbours in order that are nearer than RESOLUTION of the largest size share their mean."""
    order = np.argsort(numbers, kind="stable")
    steps = np.diff(numbers[order]) > RESOLUTION * np.abs(numbers).max(initial=0.0)
    group = np.concatenate([[0], np.cumsum(steps)]).astype(int)[: len(numbers)]
    means = np.bincount(group, numbers[order]) / np.bincount(group) if len(numbers) else numbers
    out = np.empty(len(numbers))
    out[order] = means[group]
    return out


def rest_of(scores: Float[np.ndarray, "n"], truth: Float[np.ndarray, "n"]) -> float:
    """min over c >= 0 of sum |c scores - truth| / sum |truth|: 0 is exact but for the unit, 1 is no better than zeros.

    c may not be negative: a method that has all signs wrong is wrong. The minimum of this convex function, whose slope
    changes only there, is where one of the terms is 0, or at c = 0.
    """
    used = scores != 0
    candidates = np.maximum(0.0, np.append(truth[used] / scores[used], 0.0))
    return float(np.abs(candidates[:, None] * scores - truth).sum(1).min() / np.abs(truth).sum())


def found_of(size: Float[np.ndarray, "n"], relevant: Bool[np.ndarray, "n"]) -> float:
    """How many of the largest, as many as are relevant, are relevant: a share; expected, where ties leave it open."""
    k = int(relevant.sum())
    last = np.sort(size)[::-1][k - 1]
    above, tied = size > last, size == last
    hits = relevant[above].sum() + (k - above.sum()) * relevant[tied].mean()
    return float(hits / k)


def against(scores: Float[np.ndarray, "n"], truth: Float[np.ndarray, "n"], signed: bool) -> dict[str, float]:
    """How near scores of a text's words come to the truth, by each of MEASURES.

    pearson, spearman: correlation with the truth. l1: see `rest_of`. precision: see `found_of`, by |score|; a word is
    relevant if its truth is not 0. An unsigned method is compared with |truth|; spearman_signed is with the truth
    itself for all (the ranks of `greedy` are unsigned, but tell for from against). Scores that are all the same have
    correlation 0: they say nothing. What is nearer than RESOLUTION is tied, in both.
    """
    aim = truth if signed else np.abs(truth)
    s, sizes = settled(np.asarray(scores, dtype=float)), settled(np.abs(scores))
    told = {
        "pearson": pearson(s, aim),
        "spearman": spearman(s, settled(aim)),
        "l1": rest_of(np.asarray(scores, dtype=float), aim),
        "precision": found_of(sizes, np.abs(truth) > RESOLUTION * np.abs(truth).max()),
        "spearman_signed": spearman(s, settled(truth)),
    }
    return {name: 0.0 if np.isnan(x) else x for name, x in told.items()}


@dataclass(frozen=True)
class Trial:
    """One method on one text of one case; its measures are None where it gave no scores, and `reason` says why."""

    method: str
    case: str
    text: str
    signed: bool
    pearson: float | None = None
    spearman: float | None = None
    l1: float | None = None
    precision: float | None = None
    spearman_signed: float | None = None
    forwards: float | None = None
    backwards: float | None = None
    seconds: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A tidy row."""
        return asdict(self)


@dataclass(frozen=True)
class Cell:
    """One method in one case: means over `texts` of each measure, with 95 % bootstrap intervals over texts.

    case: EVERY for the mean over all texts of all cases. failed: texts without scores, of which `reason` tells the
    first. passes: forward passes per text, a backward pass counted as two; seconds: per text.
    """

    method: str
    case: str
    signed: bool
    control: bool
    measures: Mapping[str, Estimate]
    texts: int
    failed: int
    reason: str
    passes: float | None
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """A tidy row: of each measure its value, and the ends of its interval as <measure>_low and <measure>_high."""
        row: dict[str, Any] = {k: v for k, v in vars(self).items() if k != "measures"}
        for name, found in self.measures.items():
            low, high = found.interval or (None, None)
            row |= {name: found.value, f"{name}_low": low, f"{name}_high": high}
        return row


@dataclass(frozen=True)
class Planted:
    """Every trial, in the order of methods within cases; `cells()` sums them up."""

    trials: tuple[Trial, ...]

    def cells(self) -> list[Cell]:
        """One per method and case, then one per method over all cases."""
        methods, places = self._names()
        return [self._cell(m, c) for c in places for m in methods]

    def to_dict(self) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
        """{method: {case: {measure: {"mean", "low", "high", "n"}}}}, EVERY among the cases."""
        table: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        for cell in self.cells():
            table.setdefault(cell.method, {})[cell.case] = {
                name: dict(
                    zip(("mean", "low", "high", "n"), (e.value, *(e.interval or (None, None)), e.n), strict=True)
                )
                for name, e in cell.measures.items()
            }
        return table

    def to_markdown(self, measure: str = "l1") -> str:
        """Methods by cases: one measure, its interval, costs, and what the cases ask."""
        from pellucid.bench.page import planted_markdown

        return planted_markdown(self, measure)

    def show(self, file: TextIO | None = None) -> None:
        """Print the same as a table."""
        from pellucid.bench.page import planted_show

        planted_show(self, file)

    def save(self, folder: str | Path) -> list[Path]:
        """Write planted.json, planted.md and planted.parquet, a row per trial."""
        from pellucid.records import dumps, parquet, write_whole

        files = {
            "planted.parquet": parquet([t.to_dict() for t in self.trials]),
            "planted.md": self.to_markdown().encode(),
            "planted.json": (dumps(self.to_dict()) + "\n").encode(),
        }
        for name, data in files.items():
            write_whole(Path(folder) / name, data)
        return [Path(folder) / name for name in files]

    def _names(self) -> tuple[list[str], list[str]]:
        methods, cases = (list(dict.fromkeys(getattr(t, k) for t in self.trials)) for k in ("method", "case"))
        return methods, [*cases, *([EVERY] if len(cases) > 1 else [])]

    def cell(self, method: str, case: str = EVERY) -> Cell:
        """One of them; InputError that lists what there is."""
        methods, places = self._names()
        if method not in methods or case not in places:
            there = ", ".join([*methods, *places])
            raise InputError(f"Nothing was measured of {method!r} in {case!r}; there are: {there}.")
        return self._cell(method, case)

    def _cell(self, method: str, case: str) -> Cell:
        mine = [t for t in self.trials if t.method == method and case in (t.case, EVERY)]
        done = [t for t in mine if not t.reason]
        reasons = [t.reason for t in mine if t.reason]
        return Cell(
            method,
            case,
            mine[0].signed,
            method in CONTROLS,
            {name: over_texts([[getattr(t, name)] for t in done]) for name in MEASURES},
            len(done),
            len(reasons),
            reasons[0] if reasons else "",
            _mean([(t.forwards or 0.0) + 2 * (t.backwards or 0.0) for t in done]),
            _mean([t.seconds or 0.0 for t in done]),
        )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def chosen(methods: Given | None, seed: int = 0, controls: Mapping[str, Method] | None = None) -> dict[str, Method]:
    """The methods by label, all that are registered for None; then the controls that are not among them."""
    asked = named(METHODS.names() if methods is None else methods, seed)
    return {**asked, **{name: m for name, m in (controls or {}).items() if name not in asked}}


def planted(
    methods: Given | None = None,
    cases: Sequence[str] | None = None,
    count: int = 20,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Planted:
    """The distance of methods from the truth on planted models, where it is known.

    methods: see `named`, by default all; the CONTROLS always run too. cases: names of CASES, by default all. count:
    texts per case, drawn by `seed`; more texts begin with the same ones. progress: hears (done, total).

    The logit of the class "yes" is explained, whatever is predicted, and ordinary words are compared. A method that
    raises on a text is reported for that text and stops nothing. The truth is a Shapley value with [MASK] as absence:
    a method that answers another question (what if a word were deleted, what does the model do at just this input)
    is told apart from it here, which is no error of its own. What no text shows, such as where between [MASK] and a
    word a gate closes, is a choice of these models, and path methods depend on it.

    Cost: that of the methods on texts of 12 tokens; with all registered ones about a second a text.
    """
    asked = chosen(methods, seed, CONTROLS)
    picked = [CASES.get(name) for name in (CASES.names() if cases is None else cases)]
    if count < 1 or not picked:
        raise InputError(f"Planted truth needs at least one case and one text of it; seen {len(picked)} and {count}.")
    trials: list[Trial] = []
    for i, case in enumerate(picked):
        model, texts = case.model(), case.texts(count, seed)
        for j, (name, method) in enumerate(asked.items()):
            trials += _tried(model, case, [" ".join(t) for t in texts], name, method)
            if progress is not None:
                progress(i * len(asked) + j + 1, len(picked) * len(asked))
    return Planted(tuple(trials))


def _tried(model: Model, case: Case, texts: list[str], name: str, method: Method) -> list[Trial]:
    holds = method.guarantees(model)
    signed = holds.signed and not holds.target_free  # what no target changes cannot tell for from against
    found = []
    for text, seen in zip(texts, attributions(model, texts, method, [YES] * len(texts)), strict=True):
        if isinstance(seen, str):
            found.append(Trial(name, case.name, text, signed, reason=seen))
            continue
        scores = seen.scores[[not t.special for t in seen.tokens]]
        told: dict[str, Any] = {k: float(seen.origin[k]) for k in ("forwards", "backwards", "seconds")}
        told |= against(scores, case.truth(tuple(text.split())), signed)
        found.append(Trial(name, case.name, text, signed, **told))
    return found
