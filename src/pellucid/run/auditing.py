"""`audit`: one question about a model on a set of texts, with progress; what all audits share is done here."""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from tqdm.auto import tqdm

from pellucid.audits.audit import AUDITS, Audit, Tick
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.finding import Findings
from pellucid.run.origin import provenance
from pellucid.run.plan import Plan, Progress, plan
from pellucid.types import Batch, Text


def audit(
    model: Model,
    x: Text | Sequence[Text] | Batch,
    name: str | Audit,
    max_tokens: int | None = None,
    progress: Progress = None,
    labels: Sequence[int | str] | None = None,
    **settings: Any,
) -> Findings:
    """Ask one question of a model on a set of texts.

    x: texts, pairs, or a Batch. name: one of `pellucid.AUDITS.names()`, or an instance with settings.
    max_tokens: cut longer texts there (the findings say how many were cut); None refuses texts over the model's limit.
    progress: True for a bar with the remaining time on standard error, or a function (done, total).
    labels: the true class of each text, by number or name, for audits that ask about errors; a Batch may hold them.
    settings: fields of that audit, such as `seed=1`.

    Returns `Findings`: a list of `Finding`, with the tidy rows behind them and the pictures.
    Raises: InputError, AccessError or ModelChanged, each with one sentence to act on. The model is left as found.
    """
    if not isinstance(model, Model):
        raise InputError(f"audit takes a model opened with pellucid.load, not a {type(model).__name__}.")
    asked = AUDITS.get(name) if isinstance(name, str) else name
    if not isinstance(asked, Audit):
        raise InputError(f"An audit is a name or an instance from pellucid.audits; seen {name!r}.")
    asked = asked.with_fields(**settings)
    model.require(asked.needs, f"The audit {asked.name!r}")
    model.check_unchanged()
    planned = audited(model, x, max_tokens, labels)
    start = time.perf_counter()
    bar = tqdm(total=1, unit=" steps", desc=asked.name, disable=None, leave=False) if progress is True else None
    # the caller's inference mode or autocast must not reach the numbers
    with torch.inference_mode(False), torch.autocast(model.device.type, enabled=False), bar or nullcontext():
        found = asked(model, planned.whole, _tick(bar, progress))
    found.params = asked.params()
    found.origin = (
        provenance(model)
        | found.origin
        | {
            "texts": len(planned.whole),
            "tokens": sum(planned.whole.lengths),
            "data": data_hash(planned.whole),
            "seconds": time.perf_counter() - start,
        }
    )
    if planned.truncated:
        kept = planned.whole.lengths[next(iter(planned.truncated))]  # max_tokens, or the model's own limit below it
        found.origin["truncated"] = {"texts": len(planned.truncated), "max_tokens": kept}
        said = f"{len(planned.truncated)} of {len(planned.whole)} texts were cut to {kept} tokens."
        found[:] = [replace(f, limits=(*f.limits, said)) for f in found]
    return found


def audited(
    model: Model,
    x: Text | Sequence[Text] | Batch,
    max_tokens: int | None,
    labels: Sequence[int | str] | None = None,
) -> Plan:
    """The rows that an audit sees; InputError for texts over the model's limit, unless max_tokens cuts them."""
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise InputError(f"max_tokens must be a whole number, at least 1; seen {max_tokens!r}.")
    hint = "pass max_tokens=N to cut texts off there"
    planned = plan(model, x, "refuse" if max_tokens is None else "truncate", max_tokens, hint)
    planned.whole.check_whole()
    return planned if labels is None else replace(planned, whole=replace(planned.whole, labels=tuple(labels)))


def _tick(bar: Any, progress: Progress) -> Tick:
    def tick(done: int, total: int) -> None:
        if bar is not None:
            bar.total = total
            bar.update(done - bar.n)
        elif callable(progress):
            progress(done, total)

    return tick


def data_hash(batch: Batch) -> str:
    """Of the token ids as audited, and the labels if there are any: the same for the same texts, cut the same way."""
    types = torch.zeros_like(batch.input_ids) if batch.token_type_ids is None else batch.token_type_ids
    parts = zip(batch.input_ids, types, batch.keep, strict=True)
    rows = [[ids[keep].tolist(), kinds[keep].tolist()] for ids, kinds, keep in parts]
    labels = [] if batch.labels is None else [[str(label) for label in batch.labels]]
    return hashlib.sha256(json.dumps(rows + labels).encode()).hexdigest()
