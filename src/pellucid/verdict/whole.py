"""`audit_all`: every audit and a short comparison of methods within a time budget, and the verdict on them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from pellucid.audits.audit import AUDITS, Audit
from pellucid.audits.identifiability.audit import width_of
from pellucid.audits.layers import place
from pellucid.bench import compare
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError, MissingExtra, Unanswerable
from pellucid.finding import Findings
from pellucid.run.auditing import audit, audited, data_hash
from pellucid.run.origin import provenance
from pellucid.run.plan import Plan, Progress
from pellucid.settings import seconds_of
from pellucid.types import Batch, Text
from pellucid.verdict.budget import PARTS, START, Part, Planned, planned, size_of
from pellucid.verdict.cases import cases
from pellucid.verdict.comparing import compared, operator, panel
from pellucid.verdict.judging import answers, overall
from pellucid.verdict.rules import TOO_FEW
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
      samples, controls and intervals. methods: what is compared; None: a panel of seven.
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
    names = panel(model, None if methods is None else tuple(methods))
    work = _Work(model, rows, seed, names, seconds, start, Kept.of(out, resume, say))
    parts = planned(work.parts(), size_of(model, rows.whole.lengths, len(names)), len(rows.whole), seconds)
    with _bar(progress, parts) as tick:
        for i, part in enumerate(parts):
            work.do(part, parts[i + 1 :], tick)
    return work.verdict(budget)


class _Late(Exception):
    """The clock has run out in the middle of a part."""


@dataclass
class _Work:
    """One call: what is asked, and what is there so far. order: of texts, of which each part takes the first ones."""

    model: Model
    rows: Plan
    seed: int
    names: Sequence[str]
    budget: float | None
    start: float
    kept: Kept
    findings: dict[str, Findings] = field(default_factory=dict)
    shown: tuple[Case, ...] = ()
    instead: str = ""
    sample: list[Sampled] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    expected: float = 0.0

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
        name, of = p.part.name, len(self.rows.whole)
        texts, why = self._allowed(p, later)
        if texts:
            begun = time.perf_counter()
            try:
                self._run(name, self.chosen(texts), self._until(p, later, tick))
            except _Late:
                texts, why = 0, "Time ran out before it was done; give more time (--budget), or fewer or shorter texts."
            except (Unanswerable, MissingExtra) as e:
                texts, why = 0, str(e)
            self.seconds[name] = time.perf_counter() - begun
            self.expected += p.seconds
        if not texts:
            self.why[name] = why
        elif not why and texts < of:
            why = (
                "as many as the time budget allows" if name != "texts" and texts < p.part.most else "a sample is enough"
            )
        self.sample.append(Sampled(name, texts, of, why))
        tick(name, 1.0)

    def _allowed(self, p: Planned, later: Sequence[Planned]) -> tuple[int, str]:
        """The planned texts; fewer where the machine has shown itself too slow for what is still to come."""
        if self.budget is None or not p.texts:
            return p.texts, p.why
        left = self.budget * (1 - START / 2) - (time.perf_counter() - self.start)
        slower = max(1.0, sum(self.seconds.values()) / self.expected) if self.expected else 1.0
        need = slower * sum(x.seconds for x in (p, *later))
        if need <= left:
            return p.texts, ""
        texts = int(p.texts * max(0.0, left) / need)
        late = f"this machine was slower than planned for, so that {p.texts} texts would not have been done in time"
        if texts < min(p.texts, p.part.least):
            return 0, f"Left out: {late}; give more time (--budget)."
        return texts, late

    def _until(
        self, p: Planned, later: Sequence[Planned], tick: Callable[[str, float], None]
    ) -> Callable[[int, int], None]:
        """A tick that raises when the time of this part, and what the later parts can spare, is over."""
        spare = 0.5 * sum(x.seconds for x in later)

        def told(done: int, total: int) -> None:
            tick(p.part.name, done / max(total, 1))
            if self.budget is not None and done < total:
                over = time.perf_counter() - self.start + min(spare, 0.3 * self.budget)
                if over > self.budget * (1 - START / 2):
                    raise _Late

        return told

    def _run(self, name: str, texts: list[int], told: Callable[[int, int], None]) -> None:
        batch = self.rows.whole.rows(texts)
        if name == "texts":
            self.shown = cases(
                self.model, self.rows.whole, self.chosen(200), len(texts), self._methods(), self.findings
            )
            return
        if name == "comparison":
            at_hand = self.kept.comparison(batch, texts, self.seed)
            how = {"seed": self.seed, "progress": told, **at_hand}
            made = compare(self.model, batch, self.names, ["aopc"], operator(self.model), **how)
            found, self.instead = compared(made)
        else:
            one: Audit = AUDITS.get(name).with_fields(seed=self.seed, **SETTINGS.get(name, {}))
            known = self.kept.findings(one, self.model, batch)
            if known is not None:
                self.findings[name] = known
                return
            found = audit(self.model, batch, one, progress=told)
        self.findings[name] = placed(found, texts)
        self.kept.keep(self.findings[name])

    def _methods(self) -> list[str]:
        """Those of the comparison, what is to be shown first."""
        first = [self.instead] if self.instead else []
        return [*first, *(n for n in self.names if n not in first)]

    def verdict(self, budget: str | float | None) -> Verdict:
        """All of it, judged."""
        whole, n = self.rows.whole, len(self.rows.whole)
        layers = 0 if self.model.net is None else len(self.model.net.layers)
        where = f"layer {layers}" if layers else "the pooling layer"
        if layers == 1:
            self.why["mixing"] = "The one layer's attention reads the input itself, so each position is its own word."
        texts = f"these {n} texts" if n > 1 else "this one text"
        words: dict[str, Any] = {
            "place": where,
            "n": texts,
            "n_texts": n,
            "instead": self.instead or self.names[0],
            "best": self._best(),
            "wide": width_of(self.model) + 2 if self.model.access >= Access.READOUT else "",
            "layer": place(layers - 2),
            "margin": 0.05,
            "why": "",
        }
        found = answers(self.findings, self.why, words)
        words["why"] = _undecided(found)
        grade, sentence = overall(found, words)
        about = {
            **provenance(self.model),
            "place": f"{where} of {layers}, from the row that the classifier reads" if layers else where,
            "labels": list(self.model.labels),
            "texts": n,
            "tokens": sum(whole.lengths),
            "data": data_hash(whole),
            "seed": self.seed,
            "budget": seconds_of(budget),
            "show": words["instead"],
        }
        return Verdict(
            grade, sentence, words["instead"], found, self.findings, self.shown, self._limits(texts),
            tuple(self.sample), about, self._spent(),
        )  # fmt: skip

    def _spent(self) -> dict[str, Any]:
        known = [f.origin["forwards"] for f in self.findings.values() if "forwards" in f.origin]
        seconds = time.perf_counter() - self.start
        return {"parts": self.seconds, "seconds": seconds, "forwards": round(sum(known)) if known else None}

    def _best(self) -> str:
        """The method with the best mean, attention left out."""
        mine = [f for f in self.findings.get("comparison", ()) if f.name == "aopc" and f.grade != "CONTROL"]
        mine = [f for f in mine if f.where != "attention"]
        return max(mine, key=lambda f: f.value or 0.0).where if mine else self.names[0]

    def _limits(self, texts: str) -> tuple[str, ...]:
        said = [
            f"This holds for this checkpoint on {texts}; another seed of the same model may come out otherwise.",
            "It is about the place named: other layers and heads may differ.",
            "Erased inputs are unlike those the model was trained on; another way of erasing may come out otherwise.",
            "A faithful explanation tells what the model computed, not whether it is right.",
        ]
        if self.rows.truncated:
            kept = self.rows.whole.lengths[next(iter(self.rows.truncated))]
            said.append(f"{len(self.rows.truncated)} of {len(self.rows.whole)} texts were cut to {kept} tokens.")
        return tuple(said)


def placed(found: Findings, texts: Sequence[int]) -> Findings:
    """The findings with their tables' texts counted as they were given, not as they were sampled."""
    found.tables = {
        name: [row if type(row.get("text")) is not int else {**row, "text": texts[row["text"]]} for row in rows]
        for name, rows in found.tables.items()
    }
    return found


def _undecided(found: Sequence[Any]) -> str:
    """Why nothing could be told, as the end of a sentence."""
    if any(a.grade == TOO_FEW for a in found):
        return ", which are too few"
    return ", as neither erasure nor a comparison of methods could be made"


@contextmanager
def _bar(progress: Progress, parts: Sequence[Planned]) -> Iterator[Callable[[str, float], None]]:
    """Hears the part and how much of it is done; the whole is counted in planned seconds."""
    whole = sum(p.seconds for p in parts) or float(len(parts))
    size = {p.part.name: (p.seconds or (0.0 if any(q.seconds for q in parts) else 1.0)) / whole for p in parts}
    before = {p.part.name: sum(size[q.part.name] for q in parts[:i]) for i, p in enumerate(parts)}
    bar = tqdm(total=1000, disable=None, leave=False, bar_format=_BAR) if progress is True else None

    def tick(name: str, share: float) -> None:
        at = round(1000 * (before[name] + size[name] * share))
        if bar is not None:
            bar.set_description_str(name)
            bar.update(at - bar.n)
        elif callable(progress):
            progress(at, 1000)

    try:
        yield tick
    finally:
        if bar is not None:
            bar.close()


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
