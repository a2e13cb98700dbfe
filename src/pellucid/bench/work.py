"""The work of a comparison: every method on every text, measured by the same forward passes."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from pellucid.attribution import Attribution
from pellucid.bench.asked import BOUND, Asked, for_operator
from pellucid.bench.comparison import Row
from pellucid.bench.each import attributions, said
from pellucid.encoder.model import Model
from pellucid.methods.method import Method
from pellucid.methods.operators import Operator
from pellucid.metrics import CONTROLS, Pair, Span, annotate, measure, near_duplicates
from pellucid.run.plan import batches
from pellucid.types import Batch, TargetSpec

CHUNK = 8
"""Texts that are explained together."""
OFTEN = 5.0
"""Seconds after which what is there is written down."""


@dataclass(frozen=True)
class Ranking:
    """One method's scores of one text's tokens, with what they cost; or why there are none."""

    scores: np.ndarray | None
    forwards: float = 0.0
    backwards: float = 0.0
    seconds: float = 0.0
    error: str | None = None

    @property
    def cost(self) -> dict[str, float]:
        """As columns of a row."""
        return {"forwards": self.forwards, "backwards": self.backwards, "seconds": self.seconds}


@dataclass
class Work:
    """The work of one comparison, and the rows it has so far; `forwards` counts all passes, those of methods too."""

    model: Model
    methods: Mapping[str, Method]
    asked: Sequence[Asked]
    rationales: Sequence[Sequence[Span | tuple[int, ...]]] | None
    seed: int
    batch_tokens: int | None
    rows: list[Row] = field(default_factory=list)
    forwards: float = 0.0

    @property
    def labels(self) -> list[str]:
        """The rows of the table: methods, and where there are rationales the control that needs no model."""
        return [*self.methods, *([c for c in CONTROLS if c not in self.methods] if self.rationales else [])]

    @property
    def operators(self) -> list[Operator | None]:
        """All operators asked for, in order; None where nothing is erased."""
        return list(dict.fromkeys(a.operator for a in self.asked if a.operator)) or [None]

    def run(
        self,
        whole: Batch,
        digests: Sequence[str],
        start: float,
        seconds: float | None,
        tick: Callable[[int, int], None],
        keep: Callable[[Sequence[Row]], None],
    ) -> bool:
        """Measure what `rows` lack, chunk by chunk; whether time ran out before the last."""
        have = {(row["text"], row["method"]) for row in self.rows}
        todo: dict[tuple[str, ...], list[int]] = {}  # what is missing of a text -> these texts, in random order
        for i in np.random.default_rng(self.seed).permutation(len(whole)).tolist():
            lacking = tuple(label for label in self.labels if (i, label) not in have)
            if lacking:
                todo.setdefault(lacking, []).append(i)
        total = sum(map(len, todo.values()))
        tick(len(whole) - total, len(whole))
        size = CHUNK if seconds is None else 4
        begun = kept = time.perf_counter()
        done = 0
        for labels, texts in todo.items():
            for at in range(0, len(texts), size):
                part = texts[at : at + size]
                now = time.perf_counter()
                if seconds is not None and done and now - start + (now - begun) / done * len(part) > seconds:
                    return True
                for i, found in zip(part, self._measured(whole, part, labels), strict=True):
                    self.rows += [row | {"digest": digests[i]} for row in found]
                    done += 1
                    tick(len(whole) - total + done, len(whole))
                    if time.perf_counter() - kept > OFTEN:
                        keep(self.rows)
                        kept = time.perf_counter()
                self.rows.sort(key=lambda row: row["text"])
                keep(self.rows)
        return False

    def _measured(self, whole: Batch, part: Sequence[int], labels: Sequence[str]) -> Iterator[list[Row]]:
        chunk = whole.rows(part)
        rivals = self._rivals(chunk)
        ranked: dict[tuple[str, Operator | None], list[Ranking]] = {}
        for label, method in ((label, self.methods[label]) for label in labels if label in self.methods):
            aims = [self._aim(method, rival) for rival in rivals]
            for operator in self.operators if method.name == BOUND else self.operators[:1]:
                ranked[label, operator] = self._ranked(for_operator(method, operator), chunk, aims)
        for row in range(len(part)):
            rankings = {key: found[row] for key, found in ranked.items()}
            yield self._rows_of(part[row], chunk.rows([row]), labels, rankings, rivals[row])

    def _aim(self, method: Method, rival: TargetSpec) -> TargetSpec:
        """The contrast for signed methods; the predicted class for the sizes of the others, which do not subtract."""
        return rival[0] if isinstance(rival, tuple) and not self._tells_sign(method) else rival

    def _tells_sign(self, method: Method | None) -> bool:
        """Whether its scores tell for from against: what no target changes cannot, whatever its own signs mean."""
        holds = None if method is None else method.guarantees(self.model)
        return holds is not None and holds.signed and not holds.target_free

    def _rivals(self, chunk: Batch) -> list[TargetSpec]:
        """For each text the predicted class and its strongest rival; the former alone where logits do not compete."""
        budget = self.batch_tokens or 1024
        found: list[TargetSpec] = [None] * len(chunk)
        self.forwards += len(chunk)
        for group in batches(chunk.lengths, budget):
            logits = self.model.logits(chunk.rows(group))
            single = logits.shape[1] == 1 or self.model.problem == "multi_label"
            top = logits.topk(1 if single else 2, dim=1).indices.tolist()
            for i, best in zip(group, top, strict=True):
                found[i] = best[0] if single else (best[0], best[1])
        return found

    def _ranked(self, method: Method, chunk: Batch, aims: Sequence[TargetSpec]) -> list[Ranking]:
        found = [_ranking(a) for a in attributions(self.model, chunk, method, aims, self.batch_tokens)]
        self.forwards += sum(r.forwards for r in found)
        return found

    def _rows_of(
        self,
        text: int,
        one: Batch,
        labels: Sequence[str],
        rankings: Mapping[tuple[str, Operator | None], Ranking],
        rival: TargetSpec,
    ) -> list[Row]:
        """The rows of one text: every label by every metric."""
        values: dict[tuple[str, str], float] = {}
        failed: dict[str, str] = {}
        used: dict[Operator | None, dict[str, Ranking]] = {}
        for operator in self.operators:
            mine = used[operator] = self._of_operator(labels, rankings, operator, one)
            failed |= {label: r.error for label, r in mine.items() if r.error is not None}
            scores = {label: r.scores for label, r in mine.items() if r.scores is not None}
            try:
                self._faithful(one, scores, operator, values)
                if operator == self.operators[0]:
                    self._plausible(text, one, scores, values)
                    self._stable(one, scores, rival, values)
            except Exception as e:  # the text itself cannot be measured
                failed |= {label: said(e) for label in labels}
        return [
            {
                "text": text,
                "tokens": one.lengths[0],
                "method": label,
                "metric": a.key,
                "value": _finite(values.get((label, a.key))),
                **used.get(a.operator, used[self.operators[0]])[label].cost,
                "error": failed.get(label),
            }
            for label in labels
            for a in self.asked
        ]

    def _of_operator(
        self,
        labels: Sequence[str],
        rankings: Mapping[tuple[str, Operator | None], Ranking],
        operator: Operator | None,
        one: Batch,
    ) -> dict[str, Ranking]:
        """Rankings by label for an operator."""
        return {
            label: rankings.get((label, operator)) or rankings[label, self.operators[0]]
            if label in self.methods
            else Ranking(CONTROLS[label](one))
            for label in labels
        }

    def _faithful(
        self,
        one: Batch,
        scores: Mapping[str, np.ndarray],
        operator: Operator | None,
        values: dict[tuple[str, str], float],
    ) -> None:
        asked = [a for a in self.asked if a.operator == operator and a.metric.kind == "faithfulness"]
        if not asked or operator is None:
            return
        unsigned = [label for label in scores if not self._tells_sign(self.methods.get(label))]
        alone, least = (any(getattr(a.metric, what) for a in asked) for what in ("leave_one_out", "least"))
        found, forwards = measure(self.model, one, scores, operator, unsigned, alone, least)
        self.forwards += forwards
        for a in asked:
            values |= {(label, a.key): a.metric(m) for label, m in found.items()}

    def _plausible(
        self, text: int, one: Batch, scores: Mapping[str, np.ndarray], values: dict[tuple[str, str], float]
    ) -> None:
        asked = [a for a in self.asked if a.metric.kind == "plausibility"]
        if not asked or self.rationales is None:
            return
        for label, found in scores.items():
            seen = annotate(one, found, self.rationales[text])
            values |= {(label, a.key): a.metric(seen) for a in asked}

    def _stable(
        self, one: Batch, scores: Mapping[str, np.ndarray], rival: TargetSpec, values: dict[tuple[str, str], float]
    ) -> None:
        """Means over near-duplicates, which are explained for the same classes."""
        asked = [a for a in self.asked if a.metric.kind == "stability"]
        if not asked:
            return
        twins = near_duplicates(self.model, one, seed=self.seed)
        self.forwards += twins.forwards
        if twins.batch is None:
            return
        for label, own in scores.items():
            if label not in self.methods:
                continue
            method = for_operator(self.methods[label], self.operators[0])
            others = self._ranked(method, twins.batch, [self._aim(method, rival)] * len(twins.batch))
            pairs = [
                Pair(own, r.scores, same) for r, same in zip(others, twins.same, strict=True) if r.scores is not None
            ]
            for a in asked:
                taus = [t for t in map(a.metric, pairs) if isfinite(t)]
                values[label, a.key] = float(np.mean(taus)) if taus else float("nan")


def _ranking(a: Attribution | str) -> Ranking:
    if isinstance(a, str):
        return Ranking(None, error=a)
    return Ranking(a.scores, a.origin["forwards"], a.origin["backwards"], a.origin["seconds"])


def _finite(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else value
