"""The audit "erasure": does attention at this place drive the decision, and does it point to what does?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from pellucid.audits.audit import Audit, Tick, generator_of, register
from pellucid.audits.erasure.adversary import adversarial, averaged, between_models, evened, permuted
from pellucid.audits.erasure.effects import (
    Effects,
    Judge,
    Path,
    Units,
    effects,
    greedy,
    orderings,
    paths,
    predicted_drops,
    single,
    units_of,
)
from pellucid.audits.erasure.places import LEVELS, LastRow, Level, Place, place
from pellucid.audits.erasure.reading import findings, pictures
from pellucid.encoder.load import load
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError, Unanswerable
from pellucid.finding import Findings
from pellucid.methods.gradient import Gradient
from pellucid.methods.method import one_of
from pellucid.methods.perturb import LeaveOneOut
from pellucid.stats import js_divergence, kendall
from pellucid.types import Batch, Target

Record = dict[str, Any]
WITHIN = (0.01, 0.05)


@dataclass(frozen=True)
class Erasure(Audit):
    """Does attention at this place drive the decision, and do its largest weights matter most?

    level: "cls_last", the last layer from the row that the head reads; "layer", one layer's columns (give `layer`);
      "token", a token in all layers; "cls_all", the reading row in all layers. head: one head; None: all.
    renormalise: scale what is left to sum to one. specials: "keep" never erases special tokens. words: erase a word's
      sub-words together. draws: random orderings. minimum: texts of fewer units are left out of the orderings.
    greedy: the near-best ordering as well; None: only at "cls_last", where it is cheap. permutations, adversaries: at
      "cls_last" alone, how many random orders per text, and for how many texts a far attention with the same output is
      sought. checkpoints: other seeds of the same model (names or folders), for how far attention moves by itself.
    margin: how much larger a share of units attention may need than the best gradient ordering and still be trusted.
    paper_mode: add the numbers as Serrano & Smith define them.

    Cost: at "cls_last" about two forward passes per text beside gradients and leave-one-out; at the other levels up to
    units * (draws + 6) passes of the layers behind.
    Source: Serrano & Smith 2019, arXiv 1906.03731; Jain & Wallace 2019, arXiv 1902.10186; Wiegreffe & Pinter 2019,
    arXiv 1908.04626.
    Differs from the sources: all other units instead of one at random, never flipped texts count as censored, ties are
    shared, the gradient ordering with scaling beside the plain ones.
    """

    level: Level = "cls_last"
    layer: int | None = None
    head: int | None = None
    renormalise: bool = True
    specials: Literal["keep", "erase"] = "keep"
    words: bool = True
    draws: int = 20
    minimum: int = 5
    greedy: bool | None = None
    permutations: int = 100
    adversaries: int = 20
    checkpoints: tuple[str, ...] = ()
    margin: float = 0.05
    paper_mode: bool = False

    source: ClassVar[str] = "Serrano & Smith 2019, arXiv 1906.03731; Jain & Wallace 2019, arXiv 1902.10186"
    needs: ClassVar[Access] = Access.READOUT
    caution: ClassVar[str] = (
        "The model was never trained with weights erased, and all else is held: in a Transformer the row that is "
        "read also reads through its residual, so little leverage at one place says nothing about another. A "
        "grade is of this checkpoint, place and set of texts."
    )

    def __post_init__(self) -> None:
        one_of("Erasure", level=(self.level, LEVELS), specials=(self.specials, ("keep", "erase")))
        if self.draws < 1 or self.minimum < 2 or self.permutations < 0 or self.adversaries < 0 or self.margin < 0:
            raise InputError(
                "Erasure needs draws of at least 1, minimum of at least 2, and permutations, adversaries and margin of "
                f"at least 0; seen draws={self.draws}, minimum={self.minimum}, permutations={self.permutations}, "
                f"adversaries={self.adversaries}, margin={self.margin}."
            )

    @property
    def name(self) -> str:
        return "erasure"

    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        if model.problem == "regression":
            raise Unanswerable(f"{model.id!r} is a regression: it decides nothing, so no erasure can flip it.")
        others = [load(name, device=model.device) for name in self.checkpoints]
        texts: list[Record] = []
        steps: list[Record] = []
        units: list[Record] = []
        rows: list[np.ndarray] = []
        for i in range(len(batch)):
            text = Text.of(self, model, batch.rows([i]), i)
            if text is None:
                texts.append({"text": i, "units": 0})
            else:
                record, walked = text.measured(others)
                texts.append(record)
                steps += walked
                units += text.unit_rows()
                if isinstance(text.place, LastRow):
                    rows.append(text.place.read.alpha.double().cpu().numpy())
            tick(i + 1, len(batch) + 1)
        if rows:
            self._corpus_mean(model, batch, texts, rows)
        tick(len(batch) + 1, len(batch) + 1)
        found = findings(self, texts, steps, model)
        tables = {"texts": [t for t in texts if t["units"]], "paths": steps, "units": units}
        drawn = pictures(found, texts, steps, units) if units else {}
        return Findings(found, self.name, tables, drawn)

    def _corpus_mean(self, model: Model, batch: Batch, texts: list[Record], rows: Sequence[np.ndarray]) -> None:
        """Adds what replacing the row by the mean over all texts (by position) does, text by text."""
        longest = max(r.shape[-1] for r in rows)
        total, count = np.zeros((rows[0].shape[0], longest)), np.zeros(longest)
        for r in rows:
            total[:, : r.shape[-1]] += r
            count[: r.shape[-1]] += 1
        for t in texts:
            if t["units"]:
                at = place(model, batch.rows([t["text"]]), self.level, self.layer, self.head, self.renormalise)
                assert isinstance(at, LastRow)
                judge = Judge(at.logits, model.problem)
                t["mean_js"] = float(judge.effect(averaged(at, total / count)[None])[0])


@dataclass(frozen=True, eq=False)
class Text:
    """One text at the audit's place. units: positions in its attention, tokens: the same as tokens of the text, which
    differ where a sentence has one weight."""

    audit: Erasure
    model: Model
    batch: Batch
    index: int
    place: Place
    units: Units
    tokens: Units
    judge: Judge
    found: Effects
    rng: np.random.Generator

    @classmethod
    def of(cls, audit: Erasure, model: Model, batch: Batch, index: int) -> "Text | None":
        """None for a text without two units."""
        assert batch.tokens is not None
        tokens = units = units_of(batch.tokens[0], audit.words, audit.specials)
        if len(tokens) < 2:
            return None
        at = place(model, batch, audit.level, audit.layer, audit.head, audit.renormalise)
        if isinstance(at, LastRow) and at.read.sources is not None:
            content = {i for unit in tokens for i in unit}
            kept = [(s, mine) for s, some in enumerate(at.read.sources) if (mine := [i for i in some if i in content])]
            units, tokens = [[s] for s, _ in kept], [mine for _, mine in kept]
            if len(units) < 2:
                return None
        judge = Judge(at.logits, model.problem)
        rng = generator_of(audit.seed, batch)
        return cls(audit, model, batch, index, at, units, tokens, judge, effects(at, units, judge), rng)

    def measured(self, others: Sequence[Model]) -> tuple[Record, list[Record]]:
        """One row about the text, and one per ordering."""
        e, content = self.found, [i for u in self.units for i in u]
        record: Record = {
            "text": self.index, "units": len(self.units), "n": len(self.place.alpha), "probability": e.probability,
            "prediction": self._predicted(),
            "everything_js": e.everything, "everything_flips": float(e.everything_flips),
            "even_js": float(self.judge.effect(evened(self.place, content)[None])[0]),
            "largest": float(e.alpha.max()), **self._deleted(),
        }  # fmt: skip
        record |= single(e, self.rng) | self._agreement()
        if isinstance(self.place, LastRow):
            record |= self._replaced(self.place, content, others)
        return record, self._walked() if len(self.units) >= self.audit.minimum else []

    def _predicted(self) -> str:
        """The predicted label's name; "" where it is no single one of several."""
        one = len(self.found.prediction) == 1 and len(self.model.labels) > 1
        return self.model.labels[int(self.found.prediction[0])] if one else ""

    def _deleted(self) -> Record:
        """What leverage is held against: all units gone from all layers, or from the text of a READOUT model."""
        if self.model.net is None:
            return self._left_out()
        whole = place(self.model, self.batch, "token")
        kept = torch.ones(1, len(self.place.alpha), dtype=torch.bool, device=self.batch.keep.device)
        kept[:, [i for u in self.units for i in u]] = False
        if not bool(kept.any()):
            return {"deleted_js": np.nan, "deleted_flips": np.nan}
        y = whole.without(kept)
        return {"deleted_js": float(self.judge.effect(y)[0]), "deleted_flips": float(self.judge.flips(y)[0])}

    def _left_out(self) -> Record:
        """The text without its units; if nothing else is in it, the unknown token alone."""
        gone = {i for u in self.tokens for i in u}
        real = self.batch.keep[0].nonzero()[:, 0].tolist()
        left = [at for i, at in enumerate(real) if i not in gone]
        unknown = getattr(self.model.tokenizer, "unk_token_id", None)
        if not left and unknown is None:
            return {"deleted_js": np.nan, "deleted_flips": np.nan}
        columns, mark = left or real[:1], 0 if unknown is None else int(unknown)
        types = self.batch.token_type_ids
        rest = Batch(
            self.batch.input_ids[:, columns] if left else torch.full_like(self.batch.input_ids[:, columns], mark),
            self.batch.keep[:, columns],
            None if types is None else types[:, columns],
        )
        y = self.model.logits(rest)
        return {"deleted_js": float(self.judge.effect(y)[0]), "deleted_flips": float(self.judge.flips(y)[0])}

    def _agreement(self) -> Record:
        """Kendall's tau-b of attention with gradient x input and leave-one-out (absolute values, summed over a unit),
        and of these two with each other, which is as much agreement as can be hoped for (Jain & Wallace)."""
        target = Target((None,), self.model.labels)
        with torch.no_grad():
            scores = [m(self.model, self.batch, target).scores[0, :, 0] for m in (Gradient(), LeaveOneOut("delete"))]
        gradient, erased = (np.array([abs(s.double().cpu().numpy()[u].sum()) for u in self.tokens]) for s in scores)
        a = self.found.alpha
        return {
            "tau_gradient": kendall(a, gradient),
            "tau_leave_one_out": kendall(a, erased),
            "tau_ceiling": kendall(gradient, erased),
            "random_tau_gradient": kendall(self.rng.permutation(a), gradient),
            "random_tau_leave_one_out": kendall(self.rng.permutation(a), erased),
        }

    def _replaced(self, at: LastRow, content: list[int], others: Sequence[Model]) -> Record:
        order = np.arange(len(at.alpha))
        order[content] = self.rng.permutation(content)
        own = at.read.alpha[slice(None) if at.head is None else slice(at.head, at.head + 1)].double().cpu().numpy()
        made: Record = {"mean_js": np.nan, "random_apart": float(js_divergence(own, own[:, order]).mean())}
        if self.audit.permutations:
            made["permuted_js"] = float(np.median(permuted(at, content, self.judge, self.audit.permutations, self.rng)))
        if self.index < self.audit.adversaries:
            seed = int(self.rng.integers(2**31))
            found = adversarial(at, content, self.judge, WITHIN, 5, 300, seed)
            made |= {f"adversary_{eps}": js for eps, js in zip(WITHIN, found, strict=True)}
        if others:
            places = [place(m, self.batch, "cls_last", None, at.head) for m in others]
            for m, other in zip(others, places, strict=True):
                if getattr(other, "read", at.read).sources != at.read.sources or len(other.alpha) != len(at.alpha):
                    raise InputError(
                        f"The checkpoint {m.id!r} attends to other states than {self.model.id!r}; leave it out."
                    )
            alphas = [self.place.alpha, *(p.alpha for p in places)]
            made["seeds_js"] = between_models([a.double().cpu().numpy() for a in alphas])
        return made

    def _walked(self) -> list[Record]:
        drops = predicted_drops(self.place, self.units, self.judge)
        named = orderings(self.found, drops, self.audit.draws, self.rng)
        walked = paths(self.place, self.units, [o for _, o in named], self.judge)
        rows = [self._path(name, p) for (name, _), p in zip(named, walked, strict=True)]
        wanted = self.audit.greedy if self.audit.greedy is not None else isinstance(self.place, LastRow)
        return rows + ([self._path("greedy", greedy(self.place, self.units, self.judge))] if wanted else [])

    def _path(self, name: str, p: Path) -> Record:
        alpha = self.found.alpha / max(self.found.alpha.sum(), 1e-300)
        gone = p.order if p.first is None else p.order[: p.first]
        return {
            "text": self.index, "ordering": name, "units": len(self.units), "first": p.first, "fraction": p.fraction,
            "flipped": p.first is not None, "reverts": p.reverts, "area": p.area, "mass": float(alpha[gone].sum()),
        }  # fmt: skip

    def unit_rows(self) -> list[Record]:
        """One row per unit: its text, attention, and effect."""
        assert self.batch.tokens is not None
        tokens, e = self.batch.tokens[0], self.found
        between = "" if self.tokens == self.units else " "

        def named(u: list[int]) -> str:
            return between.join(tokens[j].text.removeprefix("##") for j in u)

        return [
            {
                "text": self.index, "unit": i, "word": named(u),
                "attention": float(e.alpha[i]), "effect": float(e.effect[i]), "support": float(e.support[i]),
                "flips": bool(e.flips[i]),
            }
            for i, u in enumerate(self.tokens)
        ]  # fmt: skip


register(Erasure())
