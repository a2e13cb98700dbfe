"""`compare`: every method on every text, measured by the same forward passes; what fails is told and stops nothing."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from pellucid.attribution import Attribution
from pellucid.bench.asked import BOUND, Asked, Given, for_operator, is_control, methods_of, metrics_of
from pellucid.bench.comparison import Comparison, Row
from pellucid.bench.each import attributions, said
from pellucid.bench.store import read_rows, write_rows
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods.method import Method
from pellucid.metrics import CONTROLS, Pair, Span, annotate, measure, near_duplicates
from pellucid.run.auditing import audited, data_hash
from pellucid.run.origin import provenance
from pellucid.run.plan import Progress, batches
from pellucid.types import Batch, TargetSpec, Text

CHUNK = 16
"""Texts that are explained together and written down together."""
Keep = Callable[[Sequence[Row]], None]
Spans = Sequence[Sequence[Span | tuple[int, ...]]]


def compare(
    model: Model,
    x: Text | Sequence[Text] | Batch,
    methods: Given | None = None,
    metrics: Sequence[str] | None = None,
    operators: Sequence[str] = ("mask",),
    labels: Sequence[int | str] | None = None,
    rationales: Spans | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    seconds: float | None = None,
    batch_tokens: int | None = None,
    progress: Progress = None,
    out: str | Path | None = None,
    resume: bool = False,
) -> Comparison:
    """Explain texts with several methods and measure all of them by the same metrics on the same forward passes.

    x: texts, pairs, or a Batch. methods: names, "name(field=value)", instances, or labels to these; default a panel of
      the field. `random` is always added. metrics: names, "name:operator"; default USUAL, and LIKENESS with rationales.
    operators: how tokens are erased, for metrics that name none. labels: the true class of each text.
    rationales: for each text the spans that people marked, (start, end) in characters, or (start, end, sequence).
    max_tokens: cut longer texts there. seed: of random controls, sampling methods, the order of texts, intervals.
    seconds: stop taking up texts when the next ones would end later; texts come in random order, so what is measured
      then is a random sample. batch_tokens: tokens per forward pass of `explain`; results do not depend on it.
    progress: True for a bar with the time left on standard error, or a function (done, total).
    out: a folder for the table in all its forms, the rows and the figure; rows are written as they come. resume: take
      over the texts that `out` holds of the same settings; of others the answer's `left_out` tells.

    Signed methods explain the predicted class's logit minus that of its strongest rival, for this is what a decision
    between classes hangs on; unsigned ones, whose sizes do not subtract, the predicted class. One-logit and multi-label
    heads: the predicted logit. `greedy` erases as each metric does.

    Raises: InputError, AccessError or ModelChanged for what is asked; what a method raises on a text is told in
    `Comparison.failures`. The model is left as found.
    Cost: each method's, and per text and operator at most 1 + 20 forward passes per method + 1 per token.
    """
    if not isinstance(model, Model):
        raise InputError(f"compare takes a model opened with pellucid.load, not a {type(model).__name__}.")
    model.check_unchanged()
    start = time.perf_counter()
    chosen, left = methods_of(model, methods, seed)
    whole = _labelled(audited(model, x, max_tokens), labels)
    if rationales is not None and len(rationales) != len(whole):
        raise InputError(f"{len(rationales)} rationales were given for {len(whole)} texts.")
    asked = metrics_of(model, metrics, operators, rationales is not None, whole.labels is not None)
    bench = _Bench(model, chosen, asked, rationales, seed, batch_tokens)
    told = settings_of(model, chosen, asked, whole, seed)
    known, other = read_rows(Path(out), told) if resume and out is not None else ([], None)
    if other is not None:
        left.append(f"{out} was made with other {other}, so all texts are measured again.")
    have = _whole_texts(known, bench, len(whole))
    bar = tqdm(total=len(whole), unit="text", desc="bench", disable=None, leave=False) if progress is True else None
    with torch.inference_mode(False), torch.autocast(model.device.type, enabled=False), bar or nullcontext():
        keep = None if out is None else partial(write_rows, Path(out), settings=told)
        out_of_time = bench.run(whole, have, start, seconds, _tick(bar, progress), keep)
    about = {label: _about(label, chosen.get(label)) for label in bench.labels}
    spent = {"seconds": time.perf_counter() - start, "forwards": bench.forwards, "taken_over": len(have)}
    made = Comparison(
        tuple(bench.rows), tuple(asked), about, len(whole), told, tuple(left), spent | {"out_of_time": out_of_time}
    )
    if out is not None:
        made.save(out)
    return made


def settings_of(
    model: Model, methods: Mapping[str, Method], asked: Sequence[Asked], whole: Batch, seed: int
) -> dict[str, Any]:
    """All that decides the numbers of a comparison, JSON-ready; rows of equal settings may be taken over."""
    return {
        "methods": {label: {"name": m.name, **m.params(model)} for label, m in methods.items()},
        "metrics": [a.key for a in asked],
        "data": data_hash(whole),
        "labels": None if whole.labels is None else [str(label) for label in whole.labels],
        "seed": seed,
        **provenance(model),
    }


def _labelled(planned: Any, labels: Sequence[int | str] | None) -> Batch:
    whole: Batch = planned.whole
    if labels is None:
        return whole
    if len(labels) != len(whole):
        raise InputError(f"{len(labels)} labels were given for {len(whole)} texts.")
    return Batch(whole.input_ids, whole.keep, whole.token_type_ids, tuple(labels), whole.tokens, whole.texts)


def _about(label: str, method: Method | None) -> dict[str, Any]:
    guarantees = None if method is None else method.guarantees(None)
    return {
        "control": is_control(label, method),
        "signed": None if guarantees is None else guarantees.signed,
        "source": "control" if method is None else method.source,
    }


def _whole_texts(known: Sequence[Row], bench: "_Bench", texts: int) -> dict[int, list[Row]]:
    """The rows of earlier texts that hold all that is asked, without failures, which are tried again."""
    by_text: dict[int, list[Row]] = {}
    for row in known:
        by_text.setdefault(row["text"], []).append(row)
    wanted = {(label, a.key) for label in bench.labels for a in bench.asked}
    return {
        i: rows
        for i, rows in by_text.items()
        if i < texts and wanted == {(r["method"], r["metric"]) for r in rows} and not any(r["error"] for r in rows)
    }


def _tick(bar: Any, progress: Progress) -> Callable[[int, int], None]:
    def tick(done: int, total: int) -> None:
        if bar is not None:
            bar.update(done - bar.n)
        elif callable(progress):
            progress(done, total)

    return tick


@dataclass(frozen=True)
class Ranking:
    """One method's scores of one text's tokens, with what they cost; or why there are none."""

    scores: np.ndarray | None
    forwards: float = 0.0
    backwards: float = 0.0
    seconds: float = 0.0
    error: str | None = None


@dataclass
class _Bench:
    """The work of one comparison, and the rows it has so far."""

    model: Model
    methods: Mapping[str, Method]
    asked: Sequence[Asked]
    rationales: Spans | None
    seed: int
    batch_tokens: int | None
    rows: list[Row] = field(default_factory=list)
    forwards: int = 0

    @property
    def labels(self) -> list[str]:
        """The rows of the table: methods, and where there are rationales the control that needs no model."""
        return [*self.methods, *([c for c in CONTROLS if c not in self.methods] if self.rationales else [])]

    @property
    def operators(self) -> list[str]:
        """All operators asked for, in order; one is needed to rank by, also where nothing is erased."""
        return list(dict.fromkeys(a.operator for a in self.asked if a.operator)) or ["mask"]

    def run(
        self,
        whole: Batch,
        have: Mapping[int, list[Row]],
        start: float,
        seconds: float | None,
        tick: Callable[[int, int], None],
        keep: Keep | None,
    ) -> bool:
        """Measure the texts that `have` lacks, chunk by chunk; whether time ran out before the last."""
        self.rows = [row for rows in have.values() for row in rows]
        todo = [i for i in np.random.default_rng(self.seed).permutation(len(whole)).tolist() if i not in have]
        tick(len(have), len(whole))
        size = CHUNK if seconds is None else 4
        begun, done = time.perf_counter(), 0
        for at in range(0, len(todo), size):
            part = todo[at : at + size]
            now = time.perf_counter()
            if seconds is not None and done and now - start + (now - begun) / done * len(part) > seconds:
                return True
            for i, found in zip(part, self._measured(whole, part), strict=True):
                self.rows += found
                done += 1
                tick(len(have) + at + 1 + part.index(i), len(whole))
            self.rows.sort(key=lambda row: row["text"])
            if keep is not None:
                keep(self.rows)
        return False

    def _measured(self, whole: Batch, part: Sequence[int]) -> Iterator[list[Row]]:
        chunk = whole.rows(part)
        rivals = self._rivals(chunk)
        ranked: dict[tuple[str, str], list[Ranking]] = {}
        for label, method in self.methods.items():
            for operator in self.operators if method.name == BOUND else self.operators[:1]:
                aims = (
                    rivals
                    if method.guarantees(self.model).signed
                    else [c[0] if isinstance(c, tuple) else c for c in rivals]
                )
                ranked[label, operator] = self._ranked(for_operator(method, operator), chunk, aims)
        for row in range(len(part)):
            rankings = {key: found[row] for key, found in ranked.items()}
            yield self._rows_of(part[row], chunk.rows([row]), rankings, rivals[row])

    def _aim(self, method: Method, rival: TargetSpec) -> TargetSpec:
        """The contrast for signed methods; the predicted class for the sizes of the others, which do not subtract."""
        return rival[0] if isinstance(rival, tuple) and not method.guarantees(self.model).signed else rival

    def _rivals(self, chunk: Batch) -> list[TargetSpec]:
        """For each text the predicted class and its strongest rival; the former alone where logits do not compete."""
        budget = self.batch_tokens or 1024
        found: list[TargetSpec] = [None] * len(chunk)
        for group in batches(chunk.lengths, budget):
            logits = self.model.logits(chunk.rows(group))
            single = logits.shape[1] == 1 or self.model.problem == "multi_label"
            top = logits.topk(1 if single else 2, dim=1).indices.tolist()
            for i, best in zip(group, top, strict=True):
                found[i] = best[0] if single else (best[0], best[1])
        return found

    def _ranked(self, method: Method, chunk: Batch, aims: Sequence[TargetSpec]) -> list[Ranking]:
        return [_ranking(a) for a in attributions(self.model, chunk, method, aims, self.batch_tokens)]

    def _rows_of(
        self, text: int, one: Batch, rankings: Mapping[tuple[str, str], Ranking], rival: TargetSpec
    ) -> list[Row]:
        """The rows of one text: every label by every metric."""
        values: dict[tuple[str, str], float] = {}
        failed: dict[str, str] = {}
        for operator in self.operators:
            mine = self._of_operator(rankings, operator, one, failed)
            scores = {label: r.scores for label, r in mine.items() if r.scores is not None}
            try:
                self._faithful(one, scores, operator, values)
                if operator == self.operators[0]:
                    self._plausible(text, one, scores, values)
                    self._stable(one, scores, rival, values)
            except Exception as e:  # the text itself cannot be measured
                failed |= {label: said(e) for label in self.labels}
        first = self._of_operator(rankings, self.operators[0], one, {})
        return [
            {
                "text": text,
                "tokens": one.lengths[0],
                "method": label,
                "metric": a.key,
                "value": _finite(values.get((label, a.key))),
                "forwards": first[label].forwards,
                "backwards": first[label].backwards,
                "seconds": first[label].seconds,
                "error": failed.get(label),
            }
            for label in self.labels
            for a in self.asked
        ]

    def _of_operator(
        self, rankings: Mapping[tuple[str, str], Ranking], operator: str, one: Batch, failed: dict[str, str]
    ) -> dict[str, Ranking]:
        """Rankings by label for an operator; what failed goes to `failed`."""
        mine = {label: rankings.get((label, operator)) or rankings[label, self.operators[0]] for label in self.methods}
        for label in self.labels:
            if label not in mine:
                mine[label] = Ranking(CONTROLS[label](one))
        failed |= {label: r.error for label, r in mine.items() if r.error is not None}
        return mine

    def _faithful(
        self, one: Batch, scores: Mapping[str, np.ndarray], operator: str, values: dict[tuple[str, str], float]
    ) -> None:
        asked = [a for a in self.asked if a.operator == operator]
        if not asked:
            return
        unsigned = [
            label
            for label in scores
            if label not in self.methods or not self.methods[label].guarantees(self.model).signed
        ]
        alone, least = (any(getattr(a.metric, what) for a in asked) for what in ("leave_one_out", "least"))
        found, forwards = measure(self.model, one, scores, operator, unsigned, alone, least)  # type: ignore[arg-type]
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
