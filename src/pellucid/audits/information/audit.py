"""The audit "information": where can the output be read from the states, and does attention go there?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pellucid.audits.audit import Audit, Tick, generator_of, register
from pellucid.audits.information import reading, skew
from pellucid.audits.information.estimate import Information, Sample
from pellucid.audits.information.probe import FAMILIES, Family, crossfitted, fitted, information, small
from pellucid.audits.information.slots import Slots, ranked
from pellucid.audits.information.tokens import (
    ReadPooled,
    Seen,
    divergence,
    pooled,
    read_pooled,
    resolved,
    seen,
    without_each,
)
from pellucid.audits.layers import Rule, graded, place
from pellucid.encoder.model import Access, Model
from pellucid.encoder.pooled import Pooled
from pellucid.errors import InputError, Unanswerable
from pellucid.finding import Finding, Findings, Picture
from pellucid.methods.attention import layer_of
from pellucid.methods.method import one_of
from pellucid.methods.pointwise import Probe
from pellucid.stats import Estimate, kendall, over_texts
from pellucid.types import Batch, Text

Record = dict[str, Any]
FEWEST = {"rank": 50, "position": 500}
"""Texts that a slot needs."""
FOUND = (Rule("DECODABLE", least=0.0, above_control=True), Rule("NOTHING FOUND"))
HALF = 0.5


@dataclass(frozen=True)
class InformationAudit(Audit):
    """Where can the output be read from the states, and does attention go there?

    Y is the class drawn from the model's probabilities; information is in nats, by cross-fitted probes (see
    `probe_information`). Units are ordinary tokens, or the sentences of a hierarchical model; special tokens are left
    out and attention is scaled to one over the units.

    layer: whose attention (mean of heads, from the rows that the head reads) and whose input states. slots: the states
      of a text by "rank" of attention, or by "position"; ranks: how many. families: of probes; folds: of texts.
    leave_one_out: for how many texts, a sample, units are deleted; None: all. tokens: of texts that hold more, a
      sample that holds so many is taken; None: all.

    Cost: one forward pass per text and one per unit of the texts of leave_one_out; seconds to minutes of probes,
    growing with tokens * width * layers.
    Source: after Wen et al. 2022, arXiv 2211.07714, of which only the abstract was at hand: the measures are ours.
    """

    layer: int = -1
    slots: Literal["rank", "position"] = "rank"
    ranks: int = 10
    families: tuple[Family, ...] = FAMILIES
    folds: int = 5
    leave_one_out: int | None = 100
    tokens: int | None = 30_000

    source: ClassVar[str] = "after Wen et al. 2022, arXiv 2211.07714; Xu et al. 2020, arXiv 2002.10689"
    needs: ClassVar[Access] = Access.READOUT
    caution: ClassVar[str] = (
        "Decodable is not used: probes tell where the output can be read, not where the model reads it. With few "
        "texts or wide states the estimate is low, and what is not resolvable is no proof of nothing."
    )

    def __post_init__(self) -> None:
        one_of("InformationAudit", slots=(self.slots, ("rank", "position")))
        least = {"ranks": 3, "folds": 2}
        low = [f"{key} of at least {bound}" for key, bound in least.items() if getattr(self, key) < bound]
        for key in ("leave_one_out", "tokens"):
            given = getattr(self, key)
            low += (
                [f"{key} of at least {int(key == 'tokens')}"] if given is not None and given < (key == "tokens") else []
            )
        if low or not self.families:
            raise InputError(
                f"InformationAudit needs {' and '.join(low or ['at least one of families'])}; seen {self}."
            )

    @property
    def name(self) -> str:
        return "information"

    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        return _Run(self, model, batch, layer_of(model, "InformationAudit", self.layer, None), tick).findings()


def fit_probe(
    model: Model,
    x: Text | Sequence[Text] | Batch,
    layer: int = -1,
    families: Sequence[str] = FAMILIES,
    seed: int = 0,
) -> Probe:
    """A probe of the states that the attention of a layer reads, fitted on all units of these texts; for the method
    "pointwise_information".

    Its `about` tells the information in nats (cross-fitted, so that no text is judged by a probe that saw it), its
    standard error, and how many texts. Raises: as the audit. Cost: a forward pass per text, and six fits.
    """
    model.require(Access.READOUT, "A probe")
    batch = model.named(x if isinstance(x, Batch) else model.batch(x))
    model.check_unchanged()
    batch.check_whole()
    if model.limit is not None and max(batch.lengths) > model.limit:
        raise InputError(
            f"A text has {max(batch.lengths)} tokens, but {model.id!r} reads at most {model.limit}; leave it out."
        )
    at = layer_of(model, "fit_probe", layer, None)
    texts = seen(model, batch.to(model.device), at, None, seed, lambda done: None)
    sample = _enough(texts, 5)
    found = information(sample, crossfitted([sample], families, 5, seed)[0], families)
    return _whole(model, sample, families, seed, at, found)


def _whole(model: Model, sample: Sample, families: Sequence[str], seed: int, layer: int, found: Information) -> Probe:
    """The probe of all rows, with what a cross-fit found."""
    probe = fitted([(sample, np.ones(len(sample.h), dtype=bool))], families, seed)[0]
    probe.about.update(
        layer=layer,
        weights=model.fingerprint.sha256,
        texts=sample.texts,
        information=found.value,
        standard_error=found.se,
    )
    return probe


def _enough(texts: Sequence[Seen], folds: int) -> Sample:
    """The units as a sample; InputError for too few texts."""
    if len(texts) < 2 * folds:
        raise Unanswerable(
            f"Probes with {folds} folds need at least {2 * folds} texts of two or more tokens; seen {len(texts)}."
        )
    return pooled(texts, lambda t: t.h)


class _Run:
    """One call of the audit."""

    def __init__(self, audit: InformationAudit, model: Model, batch: Batch, layer: int, tick: Tick) -> None:
        self.audit, self.model, self.batch, self.layer = audit, model, batch, layer
        self.layers = 1 if model.net is None else len(model.net.layers)
        n = len(batch)
        self.deleted = n if audit.leave_one_out is None else min(n, audit.leave_one_out)
        self.total, self.done = n * (6 + 2 * self.layers) + self.deleted, 0
        self.tick = tick

    def step(self, count: int) -> None:
        self.done = min(self.done + count, self.total)
        self.tick(self.done, self.total)

    def findings(self) -> Findings:
        a, n = self.audit, len(self.batch)
        start = self.done
        texts = seen(
            self.model, self.batch, self.layer, a.tokens, a.seed, lambda done: self.step(start + done - self.done)
        )
        sample = _enough(texts, a.folds)
        limits = self._limits(texts, sample)
        told, nothing = read_pooled(texts, a.families, a.folds, a.seed)
        self.step(3 * n)
        profile, first = self._profile(texts, told, nothing, limits)
        decodable = profile[self.main].grade == FOUND[0].grade
        records, units = self._texts(texts, told, first)
        found = [*profile, *reading.of_texts(records, decodable, limits)]
        tables: dict[str, Sequence[Record]] = {"texts": records, "units": units}
        pictures: dict[str, Picture] = {}
        if self.model.net is not None and len(profile) > 1:
            pictures["layers"] = reading.drawn_layers(profile)
        slots = self._slots(texts)
        self.step(2 * n)
        if slots is not None:
            one, random, context = slots
            found += reading.of_slots(one, random, context, decodable, [*limits, *self._slot_limits(texts, one)])
            rows = reading.slot_rows(one, random, a.slots)
            tables |= {"slots": rows, "pairs": reading.pair_rows(one)}
            pictures["slots"] = reading.drawn_slots(rows, a.slots)
            if one.pairs.resolved.any():
                pictures["concordance"] = reading.drawn_concordance(one)
        found[:] = [f for f in found if f.value is not None or f.grade == "NOT RESOLVABLE"]
        whole = information(sample, told.found, a.families)
        probe = _whole(self.model, sample, a.families, a.seed, self.layer, whole)
        self.step(self.total - self.done)
        return Findings(found, a.name, tables, pictures, files={"probe.safetensors": probe.to_bytes()})

    def _limits(self, texts: Sequence[Seen], sample: Sample) -> list[str]:
        said, n = list(reading.LIMITS), len(self.batch)
        few = small(sample, self.audit.families)
        if few is not None:
            said.append(few)
        if len(texts) < n:
            most = f", or are beyond a sample of {self.audit.tokens:,} tokens" if self.audit.tokens else ""
            said.append(f"{n - len(texts)} of {n} texts are left out: they have fewer than two units{most}.")
        if self.model.tokenizer is None and self.model.net is not None:
            said.append("Without a tokenizer no token is known to be special but the one that the classifier reads.")
        if any(len(u) > 1 for t in texts for u in t.tokens):
            said.append("A unit is a sentence.")
        if not self._ranks(texts):
            said.append(
                f"There are no slots: these need {FEWEST[self.audit.slots]} texts of at least three units, not all of "
                "which are predicted to be of one class."
            )
        return said

    def _profile(
        self, texts: Sequence[Seen], told: ReadPooled, nothing: float, limits: Sequence[str]
    ) -> tuple[list[Finding], list[np.ndarray] | None]:
        """Information at the states that each layer reads, and each unit's in the first layer's."""
        a, found, first = self.audit, [], None
        count = len(texts[0].layers)
        names = (
            [place(i) for i in range(count)] if self.model.net is not None else ["word embeddings", "states"][-count:]
        )
        main = self.main = self.layer if self.model.net is not None else count - 1
        most = told.sample.weights @ told.sample.p
        most = float(-(most[most > 0] * np.log(most[most > 0])).sum())
        for i, name in enumerate(names):
            if i == main:
                values, null = told.gain, nothing
            else:
                sample = pooled(texts, _states(i))
                one, other = crossfitted([sample, sample.permuted(np.random.default_rng([a.seed, 1]))], a.families,
                                         a.folds, a.seed)  # fmt: skip
                ends = np.cumsum(np.bincount(sample.groups))[:-1]
                values, null = np.split(one.pointwise, ends), float(sample.weights @ other.pointwise)
                if i == 0:
                    first = list(np.split(divergence(one.log_q, one.log_prior), ends))
            value = over_texts([[float(v.mean())] for v in values])
            control = Estimate(null, None, value.n)
            found.append(reading.finding(
                "information", value, control, reading.NATS, "outputs dealt to other texts",
                (f"A state that {name} reads" if self.model.net is not None else f"One of the {name}")
                + f" tells {{value}} nats of the output, of at most {most:.3f} (outputs of other texts: {{null}}).",
                graded(FOUND, value, control), name, limits,
            ))  # fmt: skip
            self.step(2 * len(self.batch))
        return found, first

    def _texts(
        self, texts: Sequence[Seen], told: ReadPooled, first: list[np.ndarray] | None
    ) -> tuple[list[Record], list[Record]]:
        """A row per text and a row per unit."""
        records, units = [], []
        deleted = set(np.random.default_rng([self.audit.seed, 5]).permutation(len(texts))[: self.deleted].tolist())
        for k, t in enumerate(texts):
            text = self.batch.rows([t.index])
            rng = generator_of(self.audit.seed, text)
            erased = None
            if k in deleted:
                erased = without_each(self.model, text, t.tokens)
                self.step(1)
            gain, s = told.gain[k], told.told[k]
            records.append({
                "text": t.index, "units": len(t.alpha), "prediction": self.model.labels[int(t.p.argmax())]
                if len(self.model.labels) > 1 else int(t.p.argmax()), "probability": float(t.p.max()),
                "special": t.special if self._has_specials(text) else None,
                "even_special": None if t.special is None else 1 - len(t.alpha) / int(text.keep.sum()),
                **_lift(t.alpha, gain, rng), **_agreement(t.alpha, s, told.twice[k], erased, rng),
                **_skew(t.alpha, self.model.pooled, rng),
            })  # fmt: skip
            units += _unit_rows(t, told, k, first, erased)
        return records, units

    def _has_specials(self, text: Batch) -> bool:
        return text.tokens is not None and any(token.special for token in text.tokens[0])

    def _ranks(self, texts: Sequence[Seen]) -> int:
        """The most slots, up to those asked for, that enough texts of two predictions have; 0 if not even three."""
        lengths, best = np.array([len(t.alpha) for t in texts]), np.array([int(t.p.argmax()) for t in texts])
        least = max(FEWEST[self.audit.slots], 2 * self.audit.folds)
        for ranks in range(self.audit.ranks, 2, -1):
            long = lengths >= ranks
            if long.sum() >= least and len(np.unique(best[long])) > 1:
                return ranks
        return 0

    def _slot_limits(self, texts: Sequence[Seen], slots: Slots) -> list[str]:
        """Which texts have slots, if not all."""
        n, ranks = slots.pointwise.shape
        if n == len(texts):
            return []
        return [f"Slots are of the {n} of {len(texts)} texts that have at least {ranks} units."]

    def _slots(self, texts: Sequence[Seen]) -> tuple[Slots, Slots, list[float]] | None:
        """Slots by attention or position, others in a random order, and what the context of each text adds."""
        a, ranks = self.audit, self._ranks(texts)
        used = [t for t in texts if len(t.alpha) >= ranks]
        if not ranks:
            return None
        alpha, p = [t.alpha for t in used], np.stack([t.p for t in used])
        rngs = [generator_of(a.seed + 1, self.batch.rows([t.index])) for t in used]
        others = [rng.permutation(len(w))[:ranks] for w, rng in zip(alpha, rngs, strict=True)]
        chosen = [np.arange(ranks)] * len(used)
        if a.slots == "rank":
            chosen = [ranked(w, ranks, rng) for w, rng in zip(alpha, rngs, strict=True)]
        samples = [
            Sample.of(np.stack([t.h[order[r]] for t, order in zip(used, some, strict=True)]), p)
            for some in (chosen, others)
            for r in range(ranks)
        ]
        samples.append(Sample.of(np.stack([t.alpha @ t.h for t in used]), p))
        gains = [c.pointwise for c in crossfitted(samples, a.families, a.folds, a.seed)]
        weights = np.stack([w[order] for w, order in zip(alpha, chosen, strict=True)])
        one, other = (Slots(weights, np.stack(g, 1)) for g in (gains[:ranks], gains[ranks:-1]))
        return one, other, gains[-1].tolist()


def _states(i: int) -> Callable[[Seen], np.ndarray]:
    """States that layer i reads: of all units in the first, of a sample in the others."""
    return lambda t: t.first if i == 0 and t.first is not None else t.layers[i]


def _lift(alpha: np.ndarray, gain: np.ndarray, rng: np.random.Generator) -> Record:
    mean = float(gain.mean())
    attended, random = float(alpha @ gain), float(rng.permutation(alpha) @ gain)
    return {"information": mean, "attended": attended, "lift": attended - mean, "random_lift": random - mean}


def _agreement(
    alpha: np.ndarray,
    told: np.ndarray,
    twice: tuple[np.ndarray, np.ndarray],
    erased: np.ndarray | None,
    rng: np.random.Generator,
) -> Record:
    """Kendall's tau-b of attention, information and, where units were deleted, what deleting does."""
    shuffled = rng.permutation(len(alpha))
    record: Record = {
        "resolved": resolved(told, twice),
        "tau": kendall(alpha, told),
        "random_tau": kendall(alpha[shuffled], told),
        "tau_ceiling": kendall(*twice),
    }
    if erased is not None:
        record |= {
            "tau_erased": kendall(alpha, erased),
            "random_tau_erased": kendall(alpha[shuffled], erased),
            "tau_told_erased": kendall(told, erased),
            "random_tau_told_erased": kendall(told[shuffled], erased),
        }
    return record


def _skew(alpha: np.ndarray, pooled: Pooled | None, rng: np.random.Generator) -> Record:
    """How uneven attention is: as it is; where it is a softmax, at half the temperature; with its training's noise."""
    even = np.full(len(alpha), 1 / len(alpha))
    versions = {"": alpha[None], "even_": even[None]}
    if pooled is not None and pooled.softmax:
        versions["half_"] = skew.tempered(alpha, HALF)[None]
    if pooled is not None and pooled.noise is not None:
        versions |= {"noisy_": skew.noisy(alpha, pooled.noise, rng), "noise_": skew.noisy(even, pooled.noise, rng)}
    return {p + name: float(f(a).mean()) for p, a in versions.items() for name, f in skew.MEASURES.items()}


def _unit_rows(
    t: Seen, told: ReadPooled, k: int, first: list[np.ndarray] | None, erased: np.ndarray | None
) -> list[Record]:
    return [
        {
            "text": t.index, "unit": u, "name": t.names[u], "attention": float(t.alpha[u]),
            "information": float(told.gain[k][u]), "of_prediction": float(told.signed[k][u]),
            "told": float(told.told[k][u]), "told_first": None if first is None else float(first[k][u]),
            "deleted": None if erased is None else float(erased[u]),
        }
        for u in range(len(t.alpha))
    ]  # fmt: skip


register(InformationAudit())
