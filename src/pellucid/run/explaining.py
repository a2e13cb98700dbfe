"""`explain`: from texts to attributions, batched and stitched."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import torch
from tqdm.auto import tqdm

from pellucid.attribution import Attribution
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods.method import METHODS, Method, one_of
from pellucid.run.origin import provenance
from pellucid.run.plan import Long, Plan, Progress, batches, plan
from pellucid.types import Batch, Target, TargetSpec, Text


@overload
def explain(  # type: ignore[overload-overlap]  # a str is a Sequence too; the first signature wins
    model: Model,
    x: Text,
    method: str | Method = "decompx",
    target: TargetSpec = None,
    long: Long = "refuse",
    batch_tokens: int | None = None,
    progress: Progress = None,
) -> Attribution: ...


@overload
def explain(
    model: Model,
    x: Sequence[Text] | Batch,
    method: str | Method = "decompx",
    target: TargetSpec | Sequence[TargetSpec] = None,
    long: Long = "refuse",
    batch_tokens: int | None = None,
    progress: Progress = None,
) -> list[Attribution]: ...


def explain(
    model: Model,
    x: Text | Sequence[Text] | Batch,
    method: str | Method = "decompx",
    target: TargetSpec | Sequence[TargetSpec] = None,
    long: Long = "refuse",
    batch_tokens: int | None = None,
    progress: Progress = None,
) -> Attribution | list[Attribution]:
    """What each token contributed to the model's output.

    x: a text, a pair (premise, hypothesis), a list of either, or a Batch. A single text gives one Attribution,
      anything else a list in the order of the input.
    method: a registered name (`pellucid.METHODS.names()`) or an instance with parameters.
    target: None explains the predicted class; or a class index, a label name, "all", "gold", a contrast (a, b), or a
      list with one of these per text. One-logit heads have the single target 0.
    long: what happens to a text over the model's limit: "refuse" it, "truncate" it, or explain overlapping "window"s
      and average them (the explained logit is then the mean over windows, and None means the class of that mean).
    batch_tokens: tokens per forward pass, padding included; None picks it by device.
    progress: True for a bar on standard error, or a function (done, total).

    Raises: InputError, AccessError or ModelChanged, each with one sentence to act on. The model is left as found.
    Cost: that of the method; texts are sorted by length and batched, results are in input order.
    """
    if not isinstance(model, Model):
        raise InputError(f"explain takes a model opened with pellucid.load, not a {type(model).__name__}.")
    method = METHODS.get(method) if isinstance(method, str) else method
    if not isinstance(method, Method):
        raise InputError(f"A method is a name or an instance such as pellucid.methods.DecompX(); seen {method!r}.")
    one_of("explain", long=(long, ("refuse", "truncate", "window")))
    if batch_tokens is not None and (not isinstance(batch_tokens, int) or batch_tokens < 1):
        raise InputError(f"batch_tokens must be a whole number, at least 1; seen {batch_tokens!r}.")
    model.require(method.needs, f"The method {method.name!r}")
    model.check_unchanged()
    single = isinstance(x, (str, tuple))
    planned = plan(model, x, long)
    aim = Target.parse(target, model.labels, planned.whole)
    budget = batch_tokens or (1024 if model.device.type == "cpu" else 32768)
    # the caller's inference mode or autocast must not reach the numbers; methods turn gradients on where they need them
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        aim = _fix_windowed(model, planned, aim, budget)
        results = _run(model, method, planned, aim, budget, progress)
    out = [_attribution(model, method, planned, aim, i, results) for i in range(len(planned.whole))]
    return out[0] if single else out


def _fix_windowed(model: Model, plan: Plan, aim: Target, budget: int) -> Target:
    """For texts in windows, "predicted" is the class of the mean logits, the same in every window."""
    texts = [i for i, rows in enumerate(plan.rows_of) if len(rows) > 1 and aim.choices[i] is None]
    if aim.all_classes or not texts:
        return aim
    choices, every = list(aim.choices), plan.rows.lengths
    for i in texts:
        rows = plan.rows_of[i]
        lengths = [every[r] for r in rows]
        parts = [model.logits(plan.rows.rows([rows[j] for j in group])) for group in batches(lengths, budget)]
        choices[i] = int(torch.cat(parts).mean(0).argmax())
    return replace(aim, choices=tuple(choices))


@dataclass(frozen=True, eq=False)
class Row:
    """Results of one row: scores [n, t] over its real tokens, the rest [t] or None, logits [c], and what it cost."""

    scores: np.ndarray
    unallocated: np.ndarray | None
    explained: np.ndarray | None
    logits: torch.Tensor
    forwards: float
    backwards: float
    seconds: float


def _run(model: Model, method: Method, plan: Plan, aim: Target, budget: int, progress: Progress) -> list[Row]:
    lengths, total = plan.rows.lengths, len(plan.rows)
    rows: list[Row | None] = [None] * total
    bar = tqdm(total=total, unit="text", disable=None) if progress is True else None
    done = 0
    try:
        for group in batches(lengths, budget):
            start = time.perf_counter()
            batch = plan.rows.rows(group)
            result = method(model, batch, aim.rows([plan.owner[r] for r in group]))
            seconds = (time.perf_counter() - start) / len(group)
            for j, r in enumerate(group):
                rows[r] = Row(
                    result.scores[j, batch.keep[j]].double().cpu().numpy(),
                    None if result.unallocated is None else result.unallocated[j].double().cpu().numpy(),
                    None if result.explained is None else result.explained[j].double().cpu().numpy(),
                    result.logits[j].cpu(),
                    result.forwards,
                    result.backwards,
                    seconds,
                )
            done += len(group)
            if bar is not None:
                bar.update(len(group))
            elif callable(progress):
                progress(done, total)
    finally:
        if bar is not None:
            bar.close()
    return [row for row in rows if row is not None]


def _mean(values: list[np.ndarray | None]) -> np.ndarray | None:
    found = [v for v in values if v is not None]
    return np.mean(found, axis=0) if found else None


def _attribution(model: Model, method: Method, plan: Plan, aim: Target, i: int, rows: list[Row]) -> Attribution:
    """Stitch the rows of text i: a token's score is the sum over its windows divided by the number of all windows."""
    mine = plan.rows_of[i]
    assert plan.whole.tokens is not None
    tokens = plan.whole.tokens[i]
    real = plan.whole.keep[i].cumsum(0) - 1  # column to index among the real tokens
    scores = np.zeros((len(tokens), rows[mine[0]].scores.shape[1]))
    for r in mine:
        columns = plan.columns[r].to(real.device)
        columns = columns[plan.whole.keep[i, columns]]
        scores[real[columns].cpu().numpy()] += rows[r].scores / len(mine)
    logits = torch.stack([rows[r].logits for r in mine]).mean(0)
    best = int(logits.argmax())
    probabilities = model.probabilities(logits[None])
    final = aim.rows([i]).resolve(logits[None])
    guarantees = method.guarantees(model)

    def shaped(value: np.ndarray | None) -> Any:
        return None if value is None else value if aim.all_classes else float(value[0])

    choice = final.choices[0]
    assert choice is not None
    return Attribution(
        tokens=tokens,
        scores=scores if aim.all_classes else scores[:, 0],
        unallocated=shaped(_mean([rows[r].unallocated for r in mine])),
        explained=shaped(_mean([rows[r].explained for r in mine])),
        target="all" if aim.all_classes else choice,
        label=final.name(0),
        prediction=model.labels[best],
        probability=None if probabilities is None else float(probabilities[0, best]),
        method=method.name,
        params=method.params(model),
        unit=method.unit,
        complete=guarantees.complete,
        signed=guarantees.signed,
        additive=guarantees.additive,
        text=None if plan.whole.texts is None else plan.whole.texts[i],
        labels=model.labels,
        origin=_origin(model, plan, i, [rows[r] for r in mine]),
    )


def _origin(model: Model, plan: Plan, i: int, rows: list[Row]) -> dict[str, Any]:
    origin = provenance(model) | {
        "forwards": sum(r.forwards for r in rows),
        "backwards": sum(r.backwards for r in rows),
        "seconds": sum(r.seconds for r in rows),
    }
    if len(rows) > 1:
        origin["windows"] = len(rows)
    if i in plan.truncated:
        origin["truncated"] = {"kept": len(plan.whole.tokens[i]) if plan.whole.tokens else 0, "of": plan.truncated[i]}
    return origin
