"""Texts that a person can look at: errors first, then a sample; each by several methods, with its attention."""

from collections.abc import Callable, Sequence

import numpy as np

from pellucid.attribution import Attribution
from pellucid.audits.identifiability.alternatives import alternatives, freest
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.metrics import gold_of
from pellucid.run.explaining import explain
from pellucid.run.plan import batches
from pellucid.types import Batch
from pellucid.verdict.verdict import Case

BUDGET = 1024  # tokens of one forward pass


def cases(
    model: Model,
    whole: Batch,
    among: Sequence[int],
    count: int,
    methods: Sequence[str],
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Case, ...]:
    """`count` of the texts `among`, in the order given; up to half of them are errors, where labels tell.

    methods: what is shown, the first one first. tick: hears (done, total).
    """
    gold = _gold(model, whole)
    chosen = _chosen(model, whole, among, count, gold)
    batch = whole.rows(chosen)
    made: dict[str, list[Attribution]] = {}
    steps = len(methods) + len(chosen)
    for k, name in enumerate(methods):
        tick(k, steps)
        try:
            made[name] = explain(model, batch, name)
        except InputError:  # a method that cannot take these texts is missing here, and told by the comparison
            continue
    out = []
    for j, i in enumerate(chosen):
        tick(len(methods) + j, steps)
        seen = None
        if model.access >= Access.READOUT:
            one = whole.rows([i])
            seen = alternatives(model, one, -1, freest(model, one), (0,))
        out.append(Case(i, {name: found[j] for name, found in made.items()}, None, gold[i], seen))
    return tuple(out)


def _gold(model: Model, whole: Batch) -> list[str | None]:
    """The true label's name of each text, where a text has one class out of several; None elsewhere."""
    if whole.labels is None or model.problem != "single_label" or len(model.labels) < 2:
        return [None] * len(whole)
    numbers = [gold_of(model, whole.rows([i])) for i in range(len(whole))]
    return [None if x is None else model.labels[x] for x in numbers]


def _chosen(model: Model, whole: Batch, among: Sequence[int], count: int, gold: Sequence[str | None]) -> list[int]:
    rng = np.random.default_rng(0)
    mixed = [among[j] for j in rng.permutation(len(among))]
    if not any(gold[i] for i in mixed) or len(model.labels) < 2:
        return sorted(mixed[:count])
    predicted: dict[int, str] = {}
    lengths = whole.lengths
    for group in batches([lengths[i] for i in mixed], BUDGET):
        rows = [mixed[j] for j in group]
        best = model.logits(whole.rows(rows)).argmax(-1).tolist()
        predicted |= {i: model.labels[b] for i, b in zip(rows, best, strict=True)}
    wrong = [i for i in mixed if gold[i] is not None and gold[i] != predicted[i]]
    first = wrong[: max(1, count // 2)]
    return sorted([*first, *[i for i in mixed if i not in first][: count - len(first)]])
