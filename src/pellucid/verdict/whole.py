"""`audit_all`: every audit and a short comparison of methods within a time budget, and the verdict on them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.audits.audit import AUDITS, ENOUGH, Audit
from pellucid.audits.identifiability.audit import width_of
from pellucid.audits.layers import place
from pellucid.bench import Comparison, compare
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError, MissingExtra
from pellucid.finding import Findings
from pellucid.metrics import gold_of
from pellucid.run.auditing import audit, audited, data_hash
from pellucid.run.origin import provenance
from pellucid.run.plan import Plan, Progress
from pellucid.settings import seconds_of
from pellucid.types import Batch, Text
from pellucid.verdict.budget import PARTS, START, Part, Planned, Size, pace, planned, size_of
from pellucid.verdict.cases import cases
from pellucid.verdict.comparing import ATTENTION, SHORT, Compared, compared, operator, panel
from pellucid.verdict.judging import answers, overall
from pellucid.verdict.place import place_of
from pellucid.verdict.progress import bar_of
from pellucid.verdict.rules import MARGIN, QUESTIONS, TOO_FEW
from pellucid.verdict.store import Kept
from pellucid.verdict.verdict import Case, Sampled, Verdict

SETTINGS: Mapping[str, Mapping[str, Any]] = {"erasure": {"adversaries": 0}, "mixing": {"texts": None, "probes": 8}}
"""Of audits, where they are not the audit's own: the budget chooses the texts; adversaries and probes are slow."""


def audit_all(
    model: Model,
    x: Text | Sequence[Text] | Batch,
    budget: str | float | None = "5m",
    labels: Sequence[int | str] | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    methods: Sequence[str] | None = None,
    progress: Progress = None,
    out: str | Path | None = None,
    resume: bool = False,
    begun: float | None = None,
    say: Callable[[str], None] | None = None,
) -> Verdict:
    """May this model's attention be shown as the explanation of its decisions on these texts, and what else if not?

    x: texts, pairs, or a Batch. budget: wall time such as "5m" or seconds; it decides how many of the texts each audit
      looks at, as counted for a slow machine, so that the same call looks at the same texts everywhere; where even
      that takes too long the clock cuts, and `sample` says so. None: all texts.
    labels: the true class of each text, for calibration and errors. max_tokens: cut longer texts there. seed: of
      samples, controls and intervals. methods: what is compared; None: a panel of seven, or of
      five where the budget has no room for these.
    progress: True for a bar with the time left on standard error, or a function (done, total).
    out: a folder that keeps each part as it is done. resume: take over what it holds of the same model and texts.
    begun: time.perf_counter() when the budget began, if that was before this call. say: hears what was taken over.

    Returns a `Verdict`: `show()`, `save(folder)`, `to_html(path)`.
    Raises: InputError, AccessError or ModelChanged, each with one sentence to act on. The model is left as found.
    Cost: about the budget at most; a part that cannot be asked of this model or these texts is told, with the reason.
    """
    if not isinstance(model, Model):
        raise InputError(f"audit_all takes a model opened with pellucid.load, not a {type(model).__name__}.")
    model.check_unchanged()
    start, seconds = time.perf_counter() if begun is None else begun, seconds_of(budget)
    rows = audited(model, x, max_tokens, labels)
    _check_labels(model, rows.whole)
    names = panel(model, None if methods is None else tuple(methods))
    kept = Kept.of(out, resume, say)
    work = _Work(model, rows, max_tokens, seed, names, seconds, start, _size(model, rows, names, seconds), kept)
    parts = work.planned()
    if methods is None and seconds is not None and any(p.part.name == "comparison" and not p.texts for p in parts):
        work = _Work(model, rows, max_tokens, seed, panel(model, None, SHORT), seconds, start, work.size, kept)
        work.size = replace(work.size, methods=len(work.names))
        parts = work.planned()
    with bar_of(progress, parts) as tick:
        for i, part in enumerate(parts):
            work.do(part, parts[i + 1 :], tick)
    return work.verdict(budget)


SLOWER = "this machine, or what else runs on it, is slower than planned for"


class _Late(Exception):
    """The clock has run out in the middle of a part, of which `share` was done."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.share = share


@dataclass
class _Work:
    """One call: what is asked, and what is there so far. order: of texts, of which each part takes the first ones."""

    model: Model
    rows: Plan
    max_tokens: int | None
    seed: int
    names: Sequence[str]
    budget: float | None
    start: float
    size: Size
    kept: Kept
    findings: dict[str, Findings] = field(default_factory=dict)
    shown: tuple[Case, ...] = ()
    compared: Compared | None = None
    sample: list[Sampled] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    expected: dict[str, float] = field(default_factory=dict)

    def planned(self) -> list[Planned]:
        """How many texts each part looks at."""
        return planned(self.parts(), self.size, len(self.rows.whole), self.budget)

    def parts(self) -> list[Part]:
        """What can be asked of this model; the reasons for the rest."""
        able = []
        for part in (p for p in PARTS if p.name in AUDITS or p.name in ("comparison", "texts")):
            if self.model.access < part.needs:
                self.why[part.name] = (
                    f"It needs {part.needs.name} access, and {self.model.id} gives {self.model.access.name}. "
                    f"{self.model.lost}".strip()
                )
            elif part.name == "calibration" and self.rows.whole.labels is None:
                self.why[part.name] = "The true labels are not known; give them (--label-column) to learn this."
            elif part.name == "comparison" and self.model.problem == "regression":
                self.why[part.name] = "A regression has no probability of a decision that erasing could lower."
            elif part.name == "comparison" and not set(self.names) - {ATTENTION}:
                self.why[part.name] = "There is no method that this model allows to compare."
            else:
                able.append(part)
        self.sample += [Sampled(n, 0, len(self.rows.whole), w) for n, w in self.why.items()]
        return able

    def chosen(self, count: int) -> list[int]:
        """The first texts of a random order, in the order given: a part that takes fewer takes some of the others'."""
        order = np.random.default_rng(self.seed).permutation(len(self.rows.whole))
        return sorted(order[:count].tolist())

    def do(self, p: Planned, later: Sequence[Planned], tick: Callable[[str, float], None]) -> None:
        """One part, with as many texts as the plan and the clock allow; what it raises about these texts is told."""
        name, of, begun = p.part.name, len(self.rows.whole), time.perf_counter()
        texts, why = self._allowed(p, later)
        for again in (True, False):
            if not texts:
                break
            try:
                if self._run(name, self.chosen(texts), self._until(p, later, tick)):
                    self.seconds[name] = time.perf_counter() - begun
                    self.expected[name] = p.part.cost(texts, self.size)
                break
            except _Late as late:
                texts, why = self._fewer(p, texts, late.share if again else 0.0, begun), SLOWER
                self.expected[name] = p.part.cost(texts, self.size) + 0.5 * p.seconds
            except (InputError, MissingExtra) as e:
                texts, why = 0, str(e)
        self.seconds.setdefault(name, time.perf_counter() - begun)
        if not texts:
            why = "Too few texts would have been done in time; give more time (--budget)." if why == SLOWER else why
            self.why[name] = why
        elif texts >= of:
            why = ""
        elif not why:
            why = "as many as the time budget allows" if texts < p.part.most else "more would tell little"
        self.sample.append(Sampled(name, texts, of, why))
        tick(name, 1.0)

    def _allowed(self, p: Planned, later: Sequence[Planned]) -> tuple[int, str]:
        """The planned texts; fewer where the machine is too slow for them and the least of what is still to come."""
        if self.budget is None or not p.texts:
            return p.texts, p.why
        least = min(p.texts, p.part.least)
        room = self._left() - self._slower() * self._least(later)
        if self._slower() * p.seconds <= room:
            return p.texts, SLOWER if self.size.slow > 1 and p.texts < p.part.most else ""
        texts = p.part.room(room / self._slower(), self.size)
        if texts < least and self._slower() * p.part.cost(least, self.size) <= self._left():
            texts = least  # what comes first matters most: later parts may be left out for it
        return (texts if texts >= least else 0), SLOWER

    def _least(self, parts: Sequence[Planned]) -> float:
        """Seconds of the least that parts are worth."""
        return sum(x.part.cost(min(x.texts, x.part.least), self.size) for x in parts if x.texts)

    def _slower(self) -> float:
        """How many times slower than counted the parts have been so far; 1 at least."""
        known = [name for name in self.expected if name in self.seconds]
        counted = sum(self.expected[name] for name in known)
        return max(1.0, sum(self.seconds[name] for name in known) / counted) if counted else 1.0

    def _fewer(self, p: Planned, texts: int, share: float, begun: float) -> int:
        """How many texts to try again with, after `share` of the work took all the time there was; 0: none."""
        left = self._left()
        each = (time.perf_counter() - begun) / max(share * texts, 1e-9)
        fewer, least = int(share * texts / 2), min(p.texts, p.part.least)
        return max(fewer, least) if share and max(fewer, least) * each < left / 2 else 0

    def _left(self) -> float:
        """Seconds until the parts must be done."""
        assert self.budget is not None
        return self.budget * (1 - START / 2) - (time.perf_counter() - self.start)

    def _share(self, p: Planned, later: Sequence[Planned]) -> float:
        """Seconds that are this part's, of those that are left: by the plan, or what it seems to need."""
        planned = self._left() * p.seconds / max(sum(x.seconds for x in (p, *later)), 1e-9)
        return max(planned, self._slower() * p.seconds)

    def _until(
        self, p: Planned, later: Sequence[Planned], tick: Callable[[str, float], None]
    ) -> Callable[[int, int], None]:
        """A tick that raises when a part has had twice its share of the time that was left, or when the next two parts
        would no longer have time for their least."""
        end = None
        if self.budget is not None:
            spare = min(0.6 * self._left(), self._least(later[:2]))
            end = time.perf_counter() + min(self._left() - spare, 2 * self._share(p, later) + 2)

        def told(done: int, total: int) -> None:
            tick(p.part.name, done / max(total, 1))
            if end is not None and done < total and time.perf_counter() > end:
                raise _Late(done / max(total, 1))

        return told

    def _run(self, name: str, texts: list[int], told: Callable[[int, int], None]) -> bool:
        """One part on these texts; whether it was measured now, and not taken over."""
        batch = self.rows.whole.rows(texts)
        if name == "texts":
            among, methods = self.chosen(200), self._methods()
            self.shown = cases(self.model, self.rows.whole, among, len(texts), methods, told)
            return True
        if name == "comparison":
            self.compared = compared(self._comparison(batch, texts, told))
            found = self.compared.findings
        else:
            one: Audit = AUDITS.get(name).with_fields(seed=self.seed, **SETTINGS.get(name, {}))
            known = self.kept.findings(one, self.model, batch)
            if known is not None:
                self.findings[name] = known
                return False
            found = audit(self.model, batch, one, progress=told)
        self.findings[name] = placed(found, texts)
        self.kept.keep(self.findings[name])
        return True

    def _comparison(self, batch: Batch, texts: list[int], told: Callable[[int, int], None]) -> Comparison:
        folder, same = self.kept.comparison(self.model, batch, texts, self.names, self.seed)

        def made(resume: bool) -> Comparison:
            return compare(
                self.model, batch, self.names, ["aopc"], operator(self.model), seed=self.seed, progress=told,
                out=folder, resume=resume,
            )  # fmt: skip

        try:
            return made(same)
        except InputError as e:
            if not same:
                raise
            self.kept.say(f"{e} So the comparison is made again.")
            return made(False)

    def _methods(self) -> list[str]:
        """Those of the comparison, what is to be shown first."""
        first = [self.compared.show] if self.compared is not None and self.compared.show else []
        return [*first, *(n for n in self.names if n not in first)]

    def verdict(self, budget: str | float | None) -> Verdict:
        """All of it, judged."""
        whole, n = self.rows.whole, len(self.rows.whole)
        where, rows = place_of(self.model, whole)
        layers = 0 if self.model.net is None else len(self.model.net.layers)
        if layers == 1:
            self.why["mixing"] = "The one layer's attention reads the input itself, so each position is its own word."
        show = "" if self.compared is None else self.compared.show
        best = self.names[0] if self.compared is None else self.compared.best
        readable = self.model.access >= Access.READOUT
        words: dict[str, Any] = {
            "place": where, "n": self._used(n), "n_texts": n, "best": best,
            "shown": "" if self.compared is None else self.compared.why,
            "show": f"; show {show} instead" if show else "", "safer": f"; {show} is safer" if show else "",
            "of_methods": f"; of the methods compared {show} is the most faithful" if show else "",
            "wide": width_of(self.model) + 2 if readable else "", "layer": place(layers - 2), "near": MARGIN,
            "units": "tokens" if layers else "states", "margin": self._margin(),
        }  # fmt: skip
        hidden = [] if readable else [q.audit for q in QUESTIONS if q.audit != "comparison"]
        found = answers(self.findings, self.why, words, hidden)
        few = f": at least {ENOUGH} texts are needed" if any(a.grade == TOO_FEW for a in found) else ""
        grade, sentence = overall(found, words | {"why": few})
        about = {
            **provenance(self.model), "place": rows, "labels": list(self.model.labels), "texts": n,
            "tokens": sum(whole.lengths), "data": data_hash(whole), "gold": whole.labels is not None,
            "max_tokens": self.max_tokens, "methods": list(self.names), "seed": self.seed, "budget": seconds_of(budget),
        }  # fmt: skip
        return Verdict(
            grade, sentence, show if grade in ("WITH CARE", "NOT AN EXPLANATION") else "", found, self.findings,
            self._with_calibrated(), self._limits(words["n"]), tuple(self.sample), about, self._spent(),
        )  # fmt: skip

    def _used(self, n: int) -> str:
        """The texts that decide, in words: those of the parts that the verdict rests on."""
        parts = {s.part: s.texts for s in self.sample if s.part in ("erasure", "comparison") and s.texts}
        least = min(parts.values(), default=n)
        if n == 1:
            return "this one text"
        return f"these {n} texts" if least == n else f"{least} of these {n} texts"

    def _with_calibrated(self) -> tuple[Case, ...]:
        """The texts to look at, with the probability after the temperature, if there were errors enough to fit one."""
        found = self.findings.get("calibration")
        rows = [] if found is None else found.tables.get("predictions", [])
        if sum(not row["correct"] for row in rows) < ENOUGH:
            return self.shown
        sure = {row["text"]: row["probability_scaled"] for row in rows}
        return tuple(replace(case, calibrated=sure.get(case.index)) for case in self.shown)

    def _margin(self) -> float:
        """Of the audit of erasure, which its sentence names."""
        found = self.findings.get("erasure")
        return float(found.params["margin"]) if found is not None else 0.0

    def _spent(self) -> dict[str, Any]:
        counted = {name: f.origin["forwards"] for name, f in self.findings.items() if "forwards" in f.origin}
        spent = {"forwards": round(sum(counted.values())), "forwards_counted_in": list(counted)}
        return {"parts": self.seconds, "seconds": time.perf_counter() - self.start, **spent}

    def _limits(self, texts: str) -> tuple[str, ...]:
        said = [
            f"This holds for this checkpoint on {texts}; another seed of the same model may come out otherwise.",
            "It is about the place named: other layers and heads may differ.",
            "Erased inputs are unlike those the model was trained on; another way of erasing may come out otherwise.",
            "A faithful explanation tells what the model computed, not whether it is right.",
        ]
        unlike = len({tuple(t.id for t in row) for row in self.rows.whole.tokens or ()})
        if unlike < len(self.rows.whole):
            said.append(
                f"{len(self.rows.whole)} texts were given, of which {unlike} are unlike: intervals are too narrow."
            )
        if self.rows.truncated:
            kept = self.rows.whole.lengths[next(iter(self.rows.truncated))]
            said.append(f"{len(self.rows.truncated)} of {len(self.rows.whole)} texts were cut to {kept} tokens.")
        return tuple(said)


def _check_labels(model: Model, whole: Batch) -> None:
    """InputError, before any time is spent, for a label that is no class of the model."""
    for i in range(len(whole) if whole.labels is not None and model.problem != "regression" else 0):
        try:
            if whole.labels is not None and whole.labels[i] is None:
                raise InputError("Leave the text out, or all labels.")
            gold_of(model, whole.rows([i]))
        except InputError as e:
            raise InputError(f"Text {i + 1} has the label {whole.labels[i]!r}. {e}") from e  # type: ignore[index]


def _size(model: Model, rows: Plan, names: Sequence[str], seconds: float | None) -> Size:
    size = size_of(model, rows.whole.lengths, len(names))
    return size if seconds is None else replace(size, slow=pace(model, rows.whole, size))


def placed(found: Findings, texts: Sequence[int]) -> Findings:
    """The findings with their tables' texts counted as they were given, not as they were sampled."""
    found.tables = {
        name: [row if type(row.get("text")) is not int else {**row, "text": texts[row["text"]]} for row in rows]
        for name, rows in found.tables.items()
    }
    return found
