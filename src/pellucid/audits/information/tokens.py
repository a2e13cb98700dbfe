"""The units of all texts read by one probe: what is decodable at each, and whether attention goes there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pellucid.audits.information.estimate import Sample, folds_of
from pellucid.audits.information.probe import Crossfit, crossfitted, fitted
from pellucid.encoder.model import Model
from pellucid.encoder.readout import named_sources
from pellucid.errors import Unanswerable
from pellucid.methods.pointwise import States, states
from pellucid.types import Batch

TOGETHER = 4096
"""Tokens, padding included, that run through the model at once."""
CLEAR = 2.0
"""A text is resolved if scores differ over its units by so many times the difference between two probes."""
PROFILE = 4e8
"""Bytes of states that the layer profile may hold."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One text at the audited attention. Its u units are its ordinary tokens, or the sentences of a hierarchical model.

    h [u, d]: states that attention reads; first [u, e]: the first layer's, or word embeddings; layers: of some units,
    `some`, the states that each layer's attention reads. alpha [u]: attention, scaled to one over the units; special:
    what special tokens have, None where units are sentences. p [c]: probabilities; tokens: a unit's, by number.
    """

    index: int
    h: np.ndarray
    first: np.ndarray | None
    layers: tuple[np.ndarray, ...]
    some: np.ndarray
    alpha: np.ndarray
    special: float | None
    p: np.ndarray
    tokens: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]


def probabilities(model: Model, logits: torch.Tensor) -> np.ndarray:
    """[b, c] of one output with several classes; InputError for other outputs, with the reason."""
    p = model.probabilities(logits)
    if p is None:
        raise Unanswerable(
            f"{model.id!r} is a regression: its output is a function of the text, and the information that a state has "
            "about a continuous function is infinite wherever the state determines it. Only classes can be asked for."
        )
    if model.problem == "multi_label" and p.shape[-1] > 1:
        raise Unanswerable(f"{model.id!r} has {p.shape[-1]} labels of which several may hold; this audit asks for one.")
    found = p.double().cpu().numpy()
    return np.concatenate([1 - found, found], 1) if found.shape[1] == 1 else found


def seen(
    model: Model, batch: Batch, layer: int, most: int | None, seed: int, tick: Callable[[int], None]
) -> list[Seen]:
    """Every text of at least two units that get attention; of more than `most` tokens a sample of the texts."""
    taken = np.arange(len(batch)) if most is None else _within(batch, most, seed)
    texts, lengths = len(taken), batch.lengths
    quota, done = 0, 0
    found: list[Seen] = []
    for places in _chunks([lengths[i] for i in taken]):
        rows = taken[places].tolist()
        part = batch.rows(rows)
        read = states(model, part, layer, every=True)
        quota = quota or max(2, int(PROFILE / (4 * sum(h.shape[-1] for h in read.layers)) / texts))
        p = probabilities(model, read.logits)
        for i, row in enumerate(rows):
            one = _one(part, read, p[i], i, row, quota, seed)
            found += [] if one is None else [one]
        done += len(rows)
        tick(done)
    return sorted(found, key=lambda s: s.index)


def _within(batch: Batch, most: int, seed: int) -> np.ndarray:
    """Texts that hold `most` tokens together, drawn at random, in their order; all of them if they do."""
    order = np.random.default_rng([seed, 4]).permutation(len(batch))
    count = batch.keep.sum(-1).cpu().numpy()[order].cumsum()
    return np.sort(order[: max(1, int((count <= most).sum()))])


def _chunks(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of like length together, as many as hold TOGETHER tokens."""
    rows: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if rows and (len(rows) + 1) * lengths[rows[0]] > TOGETHER:
            yield rows
            rows = []
        rows.append(i)
    if rows:
        yield rows


def _one(batch: Batch, read: States, p: np.ndarray, i: int, index: int, quota: int, seed: int) -> Seen | None:
    assert batch.tokens is not None
    at = (read.keep[i] & ~read.special[i]).nonzero()[:, 0]
    if len(at) < 2:
        return None
    tokens, names = _units(batch, read, i, at.tolist())
    alpha = read.alpha[i, at].double().cpu().numpy()
    mass = float(alpha.sum())
    if mass <= 0:
        return None
    some = np.arange(len(at))
    if len(at) > quota:
        some = np.sort(np.random.default_rng([seed, index]).choice(len(at), quota, replace=False))

    def states_of(h: torch.Tensor, rows: np.ndarray) -> np.ndarray:
        return h[i, at[torch.as_tensor(rows, device=at.device)]].float().cpu().numpy()

    every = np.arange(len(at))
    return Seen(
        index,
        states_of(read.h, every),
        states_of(read.layers[0], every) if len(read.layers) > 1 else None,
        tuple(states_of(h, some) for h in read.layers),
        some,
        alpha / mass,
        None if read.pooling is not None and read.pooling.of_sentences else 1 - mass,
        p,
        tokens,
        names,
    )


def _units(batch: Batch, read: States, i: int, at: list[int]) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """The units' tokens, by number among the text's own, and what to call them."""
    assert batch.tokens is not None
    row = batch.tokens[i]
    place = {int(j): k for k, j in enumerate(batch.keep[i].nonzero()[:, 0].tolist())}
    if read.pooling is not None and read.pooling.of_sentences:
        to = read.pooling.sources[i][batch.keep[i]].tolist()
        tokens = tuple(tuple(k for k, s in enumerate(to) if s == unit) for unit in at)
        return tokens, tuple(named_sources(row, tokens))
    tokens = tuple((place[j],) for j in at)
    return tokens, tuple(row[k].text for (k,) in tokens)


def pooled(texts: Sequence[Seen], states_of: Callable[[Seen], np.ndarray]) -> Sample:
    """The units of all texts as one sample, each text of the same weight in all."""
    h = [states_of(t) for t in texts]
    count = [len(x) for x in h]
    groups = np.repeat(np.arange(len(texts)), count)
    p = np.stack([t.p for t in texts])[groups]
    return Sample.of(np.concatenate(h), p, groups, np.repeat(1 / np.array(count, dtype=float), count))


@dataclass(frozen=True, eq=False)
class ReadPooled:
    """What one probe for all positions says of each unit, text by text.

    gain [u]: sum_y p(y) [log q(y | h) - log prior(y)], in nats, whose mean is the information. signed [u]: the same of
    the predicted class alone. told [u]: KL(q || prior), how much the state says of anything. twice: `told` by two
    probes, each from half of the training texts.
    """

    sample: Sample
    found: Crossfit
    gain: list[np.ndarray]
    signed: list[np.ndarray]
    told: list[np.ndarray]
    twice: list[tuple[np.ndarray, np.ndarray]]


def read_pooled(texts: Sequence[Seen], families: Sequence[str], folds: int, seed: int) -> tuple[ReadPooled, float]:
    """The pooled probe at the audited attention; and the information on outputs dealt to other texts."""
    sample = pooled(texts, lambda t: t.h)
    found, nothing = crossfitted([sample, sample.permuted(np.random.default_rng([seed, 1]))], families, folds, seed)
    ends = np.cumsum([len(t.h) for t in texts])[:-1]
    apart = found.log_q - found.log_prior
    best = apart[np.arange(len(apart)), sample.p.argmax(1)]
    a, b = _twice(sample, families, folds, seed)
    made = ReadPooled(
        sample,
        found,
        np.split(found.pointwise, ends),
        np.split(best, ends),
        np.split(divergence(found.log_q, found.log_prior), ends),
        list(zip(np.split(a, ends), np.split(b, ends), strict=True)),
    )
    return made, float(sample.weights @ nothing.pointwise)


def divergence(log_q: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """KL(q || prior) of each row, [n]: how much a probe says, of whatever class."""
    return np.asarray((np.exp(log_q) * (log_q - log_prior)).sum(1))


def _twice(sample: Sample, families: Sequence[str], folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`told` [n] by two probes for each fold, from disjoint halves of the other folds' texts."""
    fold, half, rng = folds_of(sample, folds, seed), np.zeros(sample.texts, dtype=int), np.random.default_rng([seed, 3])
    for k in range(folds):
        texts = np.unique(sample.groups[fold == k])
        half[texts] = (sample.dealt(texts, 2, rng) + k) % 2  # an odd one goes to either side in turn
    found = []
    for side in (half[sample.groups] == 0, half[sample.groups] == 1):
        told = np.zeros(len(fold))
        for k, probe in enumerate(fitted([(sample, side & (fold != k)) for k in range(folds)], families, seed)):
            log_q = probe.log_probabilities(torch.from_numpy(sample.h[fold == k])).numpy()
            told[fold == k] = divergence(log_q, probe.log_prior.numpy())
        found.append(told)
    return found[0], found[1]


def resolved(told: np.ndarray, twice: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether a text's scores differ over its units by CLEAR times what two probes differ by."""
    if any(np.ptp(one) == 0 for one in twice):  # a probe that tells nothing cannot tell units apart
        return False
    between = float(np.sqrt(((twice[0] - twice[1]) ** 2).mean() / 2))
    return bool(told.std(ddof=1) > CLEAR * between)


def without_each(model: Model, text: Batch, units: Sequence[Sequence[int]]) -> np.ndarray:
    """How far the probabilities move, in total variation [u], when each of several units of one text is deleted."""
    real = text.keep[0].nonzero()[:, 0]
    longest, rows = len(real), len(units)
    ids, keep = text.input_ids.new_zeros(rows + 1, longest), torch.zeros(rows + 1, longest, dtype=torch.bool)
    types = None if text.token_type_ids is None else torch.zeros_like(ids)
    for i, gone in enumerate([(), *units]):
        left = real[[k for k in range(longest) if k not in set(gone)]]
        ids[i, : len(left)], keep[i, : len(left)] = text.input_ids[0, left], True
        if types is not None and text.token_type_ids is not None:
            types[i, : len(left)] = text.token_type_ids[0, left]
    parts = []
    for at in range(0, rows + 1, step := max(1, TOGETHER // longest)):
        part = slice(at, at + step)
        given = Batch(ids[part], keep[part].to(ids.device), None if types is None else types[part])
        parts.append(probabilities(model, model.logits(given)))
    p = np.concatenate(parts)
    return np.asarray(np.abs(p[1:] - p[0]).sum(1) / 2)
