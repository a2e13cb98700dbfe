"""`explain`: from texts to attributions. Tokenising, windows over long texts, batching by token budget, stitching."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
import torch
from tqdm.auto import tqdm

from pellucid._version import __version__
from pellucid.attribution import Attribution
from pellucid.encoder.model import Model, as_texts
from pellucid.errors import InputError
from pellucid.methods.method import METHODS, Method, one_of
from pellucid.types import Batch, Target, TargetSpec, Text

Long = Literal["refuse", "truncate", "window"]
Progress = bool | Callable[[int, int], None] | None


@dataclass(frozen=True, eq=False)
class Plan:
    """Rows to run for the texts that were asked for.

    `whole` holds one row per text as it will be reported; `rows` what is run, windows included; row r of `rows` covers
    the columns `columns[r]` of text `owner[r]`. `truncated` gives the full length of each text that was cut.
    """

    whole: Batch
    rows: Batch
    owner: tuple[int, ...]
    columns: tuple[torch.Tensor, ...]
    truncated: dict[int, int]

    @cached_property
    def rows_of(self) -> list[list[int]]:
        """For each text, its rows."""
        found: list[list[int]] = [[] for _ in range(len(self.whole))]
        for r, i in enumerate(self.owner):
            found[i].append(r)
        return found


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
    plan = _plan(model, x, long)
    aim = Target.parse(target, model.labels, plan.whole)
    budget = batch_tokens or (1024 if model.device.type == "cpu" else 32768)
    # the caller's inference mode or autocast must not reach the numbers; methods turn gradients on where they need them
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        aim = _fix_windowed(model, plan, aim, budget)
        results = _run(model, method, plan, aim, budget, progress)
    out = [_attribution(model, method, plan, aim, i, results) for i in range(len(plan.whole))]
    return out[0] if single else out


def _plan(model: Model, x: Text | Sequence[Text] | Batch, long: Long) -> Plan:
    if isinstance(x, Batch):
        _check_batch(model, x)
        whole = model.named(x.to(model.device))
    else:
        whole = model.batch(as_texts(x))
        _check_batch(model, whole)
    limit = model.limit
    lengths = whole.lengths
    over = [] if limit is None else [i for i, n in enumerate(lengths) if n > limit]
    raw = isinstance(x, Batch) and x.tokens is None
    if over and (long == "refuse" or raw):
        fix = (
            "cut the rows of this Batch, or pass texts"
            if raw
            else 'pass long="truncate" to cut it off there, or long="window" to explain overlapping windows'
        )
        more = "" if len(over) == 1 else f" ({len(over)} of {len(lengths)} texts are too long)"
        raise InputError(
            f"Text {over[0] + 1} has {lengths[over[0]]} tokens; {model.id!r} reads at most {limit}{more}: {fix}."
        )
    if not over:
        rows = tuple(torch.arange(n) for n in lengths)
        return Plan(whole, whole, tuple(range(len(whole))), rows, {})
    assert limit is not None
    cut = [_windows(whole, i, limit, long) if n > limit else [torch.arange(n)] for i, n in enumerate(lengths)]
    if long == "truncate":
        whole = _gather(whole, [(i, c[0]) for i, c in enumerate(cut)])
        short = tuple(torch.arange(n) for n in whole.lengths)
        return Plan(whole, whole, tuple(range(len(whole))), short, {i: lengths[i] for i in over})
    jobs = [(i, c) for i, pieces in enumerate(cut) for c in pieces]
    return Plan(whole, _gather(whole, jobs), tuple(i for i, _ in jobs), tuple(c for _, c in jobs), {})


def _check_batch(model: Model, batch: Batch) -> None:
    """InputError for ids or token types that the model has no embedding for, and for padding where the head reads."""
    vocabulary = model.vocabulary
    kinds = None if model.net is None or model.net.embedding.types is None else model.net.embedding.types.shape[0]
    for name, ids, size in (("token id", batch.input_ids, vocabulary), ("token_type_ids", batch.token_type_ids, kinds)):
        if ids is None or size is None:
            continue
        largest, least = int(ids.max()), int(ids.min())
        if largest >= size or least < 0:
            bad = largest if largest >= size else least
            who = "The Batch holds" if batch.texts is None else "The tokenizer, which may be another model's, gives"
            raise InputError(f"{who} {name} {bad}; {model.id!r} has ids 0 to {size - 1}.")
    for row, real in enumerate(batch.keep.sum(-1).tolist() if batch.tokens is not None else []):
        assert batch.tokens is not None
        if len(batch.tokens[row]) != real:
            raise InputError(
                f"Batch: row {row} has {len(batch.tokens[row])} tokens, but its attention_mask has {real} real ones; "
                "they must agree."
            )
    if model.net is not None and not bool(batch.keep[:, 0].all()):
        row = int((~batch.keep[:, 0]).nonzero()[0])
        raise InputError(
            f"Row {row} of the Batch begins with padding (attention_mask 0), but {model.id!r} counts positions from "
            "there: pad on the right."
        )


def _windows(whole: Batch, i: int, limit: int, long: Long) -> list[torch.Tensor]:
    """The columns of text i for each window: the special tokens (and the shorter text of a pair) stay in all of them.

    Windows overlap by at least a quarter, start at even distances, and all have the full length. "truncate" gives the
    first of them.
    """
    assert whole.tokens is not None
    tokens = whole.tokens[i]
    sizes = {s: sum(1 for t in tokens if not t.special and t.sequence == s) for s in (0, 1)}
    longer = 1 if sizes[1] > sizes[0] else 0
    if sizes[longer] == 0:
        longer_at = [j for j, t in enumerate(tokens) if not t.special]  # a tokenizer that knows no offsets
    else:
        longer_at = [j for j, t in enumerate(tokens) if not t.special and t.sequence == longer]
    first, last = longer_at[0], longer_at[-1] + 1
    span, size = last - first, limit - (len(tokens) - (last - first))
    if size < 8:
        what = "the shorter text of the pair leaves" if min(sizes.values()) else "its special tokens leave"
        raise InputError(
            f"Text {i + 1} cannot be cut into windows: {what} {max(size, 0)} of {limit} tokens for the "
            "rest; shorten it."
        )
    if long == "truncate":
        starts = [0]
    else:
        step = size - size // 4
        count = -(-(span - size) // step) + 1
        starts = np.linspace(0, span - size, count).round().astype(int).tolist()
    head, tail = torch.arange(first), torch.arange(last, len(tokens))
    return [torch.cat([head, torch.arange(first + s, first + s + size), tail]) for s in starts]


def _gather(whole: Batch, jobs: Sequence[tuple[int, torch.Tensor]]) -> Batch:
    """A batch whose rows are chosen columns of rows of `whole`, padded on the right."""
    n = max(len(c) for _, c in jobs)

    def pick(source: torch.Tensor) -> torch.Tensor:
        out = source.new_zeros(len(jobs), n)
        for r, (i, c) in enumerate(jobs):
            out[r, : len(c)] = source[i, c.to(source.device)]
        return out

    def each(items: Sequence[Any] | None) -> tuple[Any, ...] | None:
        return None if items is None else tuple(items[i] for i, _ in jobs)

    ids = pick(whole.input_ids)
    mask = pick(whole.keep)
    pads = whole.input_ids[~whole.keep]
    ids[~mask] = pads[0] if len(pads) else 0
    types = whole.token_type_ids
    assert whole.tokens is not None
    tokens = tuple(tuple(whole.tokens[i][j] for j in c.tolist()) for i, c in jobs)
    return Batch(ids, mask, None if types is None else pick(types), each(whole.labels), tokens, each(whole.texts))


def _batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers, the shortest first, in batches of at most `budget` tokens with padding (at least one row)."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[i] <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _fix_windowed(model: Model, plan: Plan, aim: Target, budget: int) -> Target:
    """For texts in windows, "predicted" is the class of the mean logits, the same in every window."""
    texts = [i for i, rows in enumerate(plan.rows_of) if len(rows) > 1 and aim.choices[i] is None]
    if aim.all_classes or not texts:
        return aim
    choices, every = list(aim.choices), plan.rows.lengths
    for i in texts:
        rows = plan.rows_of[i]
        lengths = [every[r] for r in rows]
        parts = [model.logits(plan.rows.rows([rows[j] for j in group])) for group in _batches(lengths, budget)]
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
        for group in _batches(lengths, budget):
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
    import transformers

    origin: dict[str, Any] = {
        "model": model.id,
        "family": model.family,
        "access": model.access.name,
        "weights": model.fingerprint.sha256,
        "parity": model.parity,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": {
            "pellucid": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "forwards": sum(r.forwards for r in rows),
        "backwards": sum(r.backwards for r in rows),
        "seconds": sum(r.seconds for r in rows),
    }
    if len(rows) > 1:
        origin["windows"] = len(rows)
    if i in plan.truncated:
        origin["truncated"] = {"kept": len(plan.whole.tokens[i]) if plan.whole.tokens else 0, "of": plan.truncated[i]}
    return origin
