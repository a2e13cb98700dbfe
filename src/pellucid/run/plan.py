"""Which rows to run for the texts that were asked for: tokenising, long texts, windows, batches by token budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from pellucid.encoder.model import Model, as_texts
from pellucid.errors import InputError
from pellucid.types import Batch, Text

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


LONG = 'pass long="truncate" to cut it off there, or long="window" to explain overlapping windows'


def plan(
    model: Model, x: Text | Sequence[Text] | Batch, long: Long, max_tokens: int | None = None, hint: str = LONG
) -> Plan:
    """The rows to run. `max_tokens` lowers the model's limit; `hint` says how to pass a text that is over it."""
    if isinstance(x, Batch):
        _check_batch(model, x)
        whole = model.named(x.to(model.device))
    else:
        whole = model.batch(as_texts(x))
        _check_batch(model, whole)
    limits = [n for n in (model.limit, max_tokens) if n is not None]
    limit = min(limits) if limits else None
    lengths = whole.lengths
    over = [] if limit is None else [i for i, n in enumerate(lengths) if n > limit]
    raw = isinstance(x, Batch) and x.tokens is None
    if over and (long == "refuse" or raw):
        fix = "cut the rows of this Batch, or pass texts" if raw else hint
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
        cut = f"to {limit} tokens" if long == "truncate" else "into windows"
        fix = "allow more tokens, or shorten it" if long == "truncate" else "shorten it"
        raise InputError(
            f"Text {i + 1} cannot be cut {cut}: {what} {max(size, 0)} of {limit} tokens for the rest, where 8 are the "
            f"least; {fix}."
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


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers, the shortest first, in batches of at most `budget` tokens with padding (at least one row)."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[i] <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
