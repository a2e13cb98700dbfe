"""`compare`: what is asked is checked before anything is spent, then measured, and goes on where it was broken off."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from pellucid.bench.asked import Asked, Given, is_control, methods_of, metrics_of
from pellucid.bench.comparison import Comparison, Row
from pellucid.bench.store import read_rows, save, write_rows
from pellucid.bench.work import Work
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods.method import Method
from pellucid.metrics import Span, gold_of, marked
from pellucid.run.auditing import audited
from pellucid.run.origin import provenance
from pellucid.run.plan import Progress
from pellucid.types import Batch, Text

Spans = Sequence[Sequence[Span | tuple[int, ...]]]


def compare(
    model: Model,
    x: Text | Sequence[Text] | Batch,
    methods: str | Given | None = None,
    metrics: str | Sequence[str] | None = None,
    operators: str | Sequence[str] = ("mask",),
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
      over what `out` holds of these texts and methods, and measure the rest; rows of other methods stay in its file.

    Signed methods explain the predicted class's logit minus that of its strongest rival, for this is what a decision
    between classes hangs on; unsigned ones, whose sizes do not subtract, the predicted class. One-logit and multi-label
    heads: the predicted logit. `greedy` erases as each metric does.

    Raises: InputError, AccessError or ModelChanged for what is asked, and where `out` holds rows of another model, seed
    or version, or of other texts; what a method raises on a text is told in
    `Comparison.failures`. The model is left as found.
    Cost: each method's, and per text and operator at most 1 + 20 forward passes per method + 1 per token.
    """
    if not isinstance(model, Model):
        raise InputError(f"compare takes a model opened with pellucid.load, not a {type(model).__name__}.")
    model.check_unchanged()
    start = time.perf_counter()
    chosen, left = methods_of(model, methods, seed)
    planned = audited(model, x, max_tokens)
    whole = _labelled(planned.whole, labels)
    if planned.truncated:
        kept = planned.whole.lengths[next(iter(planned.truncated))]
        left.append(f"{len(planned.truncated)} of {len(whole)} texts were cut to {kept} tokens.")
    asked = metrics_of(model, metrics, operators, rationales is not None, whole.labels is not None)
    _check(model, whole, asked, rationales)
    work = Work(model, chosen, asked, rationales, seed, batch_tokens)
    told = settings_of(model, {label: chosen.get(label) for label in work.labels}, asked, seed)
    digests = [digest(whole, i, rationales) for i in range(len(whole))]
    folder = None if out is None else Path(out)
    known = read_rows(folder, told, digests) if resume and folder is not None else None
    have, extra = ([], []) if known is None else known.split(work.labels, [a.key for a in asked])
    if have:
        left.append(f"{len({row['text'] for row in have})} texts, or some methods on them, were taken over from {out}.")
    file = told if known is None else told | {"methods": {**known.methods, **told["methods"]}}

    def keep(rows: Sequence[Row]) -> None:
        if folder is not None:
            write_rows(folder, [*rows, *extra], file)

    bar = tqdm(total=len(whole), unit="text", desc="bench", disable=None, leave=False) if progress is True else None
    with torch.inference_mode(False), torch.autocast(model.device.type, enabled=False), bar or nullcontext():
        work.rows = list(have)
        out_of_time = work.run(whole, digests, start, seconds, _tick(bar, progress), keep)
    spent = {"seconds": time.perf_counter() - start, "forwards": work.forwards, "out_of_time": out_of_time}
    spent["taken_over"] = len({row["text"] for row in have})
    about = {label: _about(label, chosen.get(label)) for label in work.labels}
    made = Comparison(tuple(work.rows), tuple(asked), about, len(whole), told, tuple(left), spent)
    if folder is not None:
        save(made, folder, extra, file)
    return made


def settings_of(model: Model, methods: dict[str, Method | None], asked: Sequence[Asked], seed: int) -> dict[str, Any]:
    """All besides the texts that decides the numbers of a comparison, JSON-ready."""
    told = {
        label: {"name": label} if m is None else {"name": m.name, **m.params(model)} for label, m in methods.items()
    }
    return {"methods": told, "metrics": [a.key for a in asked], "seed": seed, **provenance(model)}


def digest(whole: Batch, i: int, rationales: Spans | None) -> str:
    """Of all that is known of text i: its ids and token types, its characters, its label, what people marked."""
    one = whole.rows([i])
    kinds = None if one.token_type_ids is None else one.token_type_ids.tolist()
    marks = None if rationales is None else [list(span) for span in rationales[i]]
    told = [one.input_ids.tolist(), kinds, one.texts, None if one.labels is None else str(one.labels[0]), marks]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _labelled(whole: Batch, labels: Sequence[int | str] | None) -> Batch:
    if labels is None:
        return whole
    if len(labels) != len(whole):
        raise InputError(f"{len(labels)} labels were given for {len(whole)} texts.")
    return replace(whole, labels=tuple(labels))


def _check(model: Model, whole: Batch, asked: Sequence[Asked], rationales: Spans | None) -> None:
    """InputError, before anything is spent, for what would fail on every text, or a label or rationale of one."""
    kinds = {a.metric.kind for a in asked}
    if model.problem == "regression" and kinds - {"plausibility"}:
        raise InputError(
            f"Faithfulness and stability are measured on probabilities of classes; {model.id!r} is a regression model."
        )
    if rationales is not None and len(rationales) != len(whole):
        raise InputError(f"{len(rationales)} rationales were given for {len(whole)} texts.")
    for i in range(len(whole)):
        try:
            if whole.labels is not None and any(a.metric.name.startswith("accuracy") for a in asked):
                gold_of(model, whole.rows([i]))
            if rationales is not None and "plausibility" in kinds:
                marked(whole.rows([i]), rationales[i])
        except InputError as e:
            raise InputError(f"Text {i + 1}: {e}") from e


def _about(label: str, method: Method | None) -> dict[str, Any]:
    guarantees = None if method is None else method.guarantees(None)
    return {
        "name": label if method is None else method.name,
        "control": is_control(label, method),
        "signed": None if guarantees is None else guarantees.signed,
        "source": "control" if method is None else method.source,
    }


def _tick(bar: Any, progress: Progress) -> Callable[[int, int], None]:
    def tick(done: int, total: int) -> None:
        if bar is not None:
            bar.update(done - bar.n)
        elif callable(progress):
            progress(done, total)

    return tick
