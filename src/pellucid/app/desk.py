"""What the page computes: a Desk holds the opened models, takes one question per model at a time, and bounds both.

Nothing here knows of gradio: questions are plain values, answers are frozen results. Every refusal is a sentence.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

from pellucid.attribution import Attribution
from pellucid.audits.identifiability.alternatives import Alternatives, Seen, alternatives
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError, PellucidError
from pellucid.methods import METHODS
from pellucid.methods.attention import layer_of
from pellucid.methods.operators import OPERATORS, check_operator, erased_logits
from pellucid.registry import choose
from pellucid.run import explain
from pellucid.types import Batch, TargetSpec, Token

PREDICTED = "the predicted class"
LEFT_OUT = {
    "pointwise_information": "it needs a probe that was fitted before",
    "greedy": "its cost grows with the square of the text's length",
}
"""Methods that the page does not offer, with the reason."""
PER_WORD = {"value_zeroing", "globenc_ffn", "hta", "sequential_decompx", "sequential_decompx_delete"}
"""Methods that read a text about once per word, as all do that see a model's outputs alone, but for `random`."""
SHORT = 64  # tokens of a text for these methods
PROGRAMS = 128  # tokens of a text whose other attention is sought, by linear programs
KEPT = 64  # explanations per model that are remembered
PER_TOKEN = 40  # characters, before a text is refused without being tokenised
T = TypeVar("T")


class Busy(PellucidError):
    """As many questions wait as the page lets wait."""


@dataclass(frozen=True)
class Limits:
    """tokens: of one text, special ones included. queue: questions that are answered or wait at the same time."""

    tokens: int = 256
    queue: int = 32

    def __post_init__(self) -> None:
        for name, value in (("tokens", self.tokens), ("queue", self.queue)):
            if type(value) is not int or value < 1:
                raise InputError(f"Limits need a whole number of {name}, at least 1; seen {value!r}.")


@dataclass(frozen=True, eq=False)
class Erased:
    """Logits [c] with and without the tokens at `gone`; the attribution is that of the whole text."""

    attribution: Attribution
    gone: tuple[int, ...]
    operator: str
    before: np.ndarray
    after: np.ndarray
    chances: tuple[np.ndarray, np.ndarray] | None

    def moved(self) -> float:
        """By how much the explained quantity rose when the tokens went."""
        return quantity(self.attribution, self.after) - quantity(self.attribution, self.before)


@dataclass(frozen=True, eq=False)
class Compared:
    """Two texts, explained for one target, and their logits [c]."""

    attributions: tuple[Attribution, Attribution]
    logits: tuple[np.ndarray, np.ndarray]
    chances: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True, eq=False)
class Attended:
    """Attention weights [r, n] of one layer, of one head or the mean of all (head None), over `tokens`."""

    tokens: tuple[Token, ...]
    text: str | None
    weights: np.ndarray
    layer: int
    head: int | None

    def row(self, asked: int) -> int:
        """The row asked for, or the first where the text has no such row."""
        return asked if 0 <= asked < len(self.weights) else 0


def quantity(a: Attribution, logits: np.ndarray) -> float:
    """What the attribution explains, read off other logits."""
    if isinstance(a.target, tuple):
        return float(logits[a.target[0]] - logits[a.target[1]])
    assert isinstance(a.target, int)
    return float(logits[a.target])


@dataclass(eq=False)
class _Place:
    """One opened model, whose questions are answered one after the other, and what was answered lately."""

    model: Model
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: OrderedDict[Any, Any] = field(default_factory=OrderedDict)
    double: Model | None = None

    def recall(self, key: Any, make: Callable[[], T]) -> T:
        """What was answered to the same question, or the answer made now; for the holder of the lock."""
        if key not in self.known:
            self.known[key] = make()
            if len(self.known) > KEPT:
                self.known.popitem(last=False)
        self.known.move_to_end(key)
        found: T = self.known[key]
        return found

    def in_float64(self) -> Model:
        """The model in float64, copied once."""
        self.double = self.double or self.model.in_float64()
        return self.double


class Desk:
    """Answers questions about texts with models that were opened once, from any number of threads.

    models: by the name under which people choose them, which replaces the model's own, a path perhaps, in all that is
    said. At most `limits.queue` questions are inside; one more is refused at once (Busy).
    """

    def __init__(self, models: Mapping[str, Model], limits: Limits | None = None) -> None:
        if not models:
            raise InputError("The page needs at least one model.")
        self.limits = limits or Limits()
        self._places = {name: _Place(replace(m, id=name)) for name, m in models.items()}
        self._free = threading.BoundedSemaphore(self.limits.queue)

    @property
    def names(self) -> list[str]:
        """The models, in their order."""
        return list(self._places)

    def model(self, name: str) -> Model:
        """An opened model; InputError for another name."""
        return self._places[choose("model", name, self.names)].model

    def methods(self, name: str) -> list[str]:
        """The methods that this model and this page can do."""
        access = self.model(name).access
        return [m for m in METHODS.names() if METHODS.get(m).needs <= access and m not in LEFT_OUT]

    def targets(self, name: str) -> dict[str, TargetSpec]:
        """What can be explained, by the words it is chosen with."""
        labels = self.model(name).labels
        twice = len(set(labels)) < len(labels) or PREDICTED in labels
        named = [f"{label} ({i})" if twice else label for i, label in enumerate(labels)]
        found: dict[str, TargetSpec] = {PREDICTED: None, **{label: i for i, label in enumerate(named)}}
        if len(labels) == 2:
            found[f"{named[1]} minus {named[0]}"] = (1, 0)
        return found

    def operators(self, name: str) -> list[str]:
        """The ways of erasing tokens that this model's tokenizer allows; deleting first."""
        return [o for o in sorted(OPERATORS, key=lambda o: o != "delete") if _allows(self.model(name), o)]

    def heads(self, name: str) -> list[int]:
        """Heads per layer whose attention can be seen; empty where none can."""
        model = self.model(name)
        if model.access < Access.READOUT:
            return []
        return [1] if model.net is None else [layer.heads for layer in model.net.layers]

    def explain(self, name: str, text: str, method: str = "decompx", target: str = PREDICTED) -> Attribution:
        """Which tokens made the decision, by one method."""
        with self._turn(name) as place:
            return self._explained(place, text, method, target)

    def attention(self, name: str, text: str, layer: int, head: int | None) -> Attended:
        """The attention of one layer, counted from 0, all rows."""
        with self._turn(name) as place:
            self._sees_attention(place)
            at = layer_of(place.model, "The model", layer, head)
            batch = self._batch(place, text)
            alpha = Seen.of(place.model, batch).alpha[at].double().numpy()
            weights = alpha.mean(0) if head is None else alpha[head]
            tokens = self._named(place.model, batch, weights.shape[1])
            return Attended(tokens, text if tokens[0].id >= 0 else None, weights, at, head)

    def others(self, name: str, text: str, layer: int, head: int, row: int = 0) -> tuple[Alternatives, Attended]:
        """What one row of one head's attention could have been with the same output; and the attention itself."""
        seen = self.attention(name, text, layer, head)
        row = seen.row(row)
        with self._turn(name) as place:

            def look() -> Alternatives:
                batch = self._batch(place, text, PROGRAMS, "to seek other attention")
                return alternatives(place.in_float64(), batch, seen.layer, head, (row,))

            return place.recall(("others", text, seen.layer, head, row), look), seen

    def erase(
        self,
        name: str,
        text: str,
        gone: Sequence[int],
        operator: str,
        method: str = "decompx",
        target: str = PREDICTED,
    ) -> Erased:
        """The logits without the tokens at `gone`, beside those of the whole text and its attribution."""
        with self._turn(name) as place:
            a = self._explained(place, text, method, target)
            away = tuple(sorted(set(gone)))
            if any(type(i) is not int or not 0 <= i < len(a) or a.tokens[i].special for i in away):
                raise InputError(f"Only words of this text can be erased, not the tokens number {list(away)}.")
            batch, mask = self._batch(place, text), torch.zeros(2, len(a), dtype=torch.bool)
            mask[1, list(away)] = True
            kind: Any = choose("way of erasing", operator, self.operators(name))
            logits = erased_logits(place.model, batch, mask.to(place.model.device), kind)
            before, after = logits.double().cpu().numpy()
            return Erased(a, away, operator, before, after, _chances(place.model, logits))

    def compare(self, name: str, first: str, second: str, method: str = "decompx", target: str = PREDICTED) -> Compared:
        """Two texts, both explained for the class that is predicted for the first, unless another target is chosen."""
        with self._turn(name) as place:
            a = self._explained(place, first, method, target)
            same = next((k for k, v in self.targets(name).items() if v is not None and v == a.target), target)
            b = self._explained(place, second, method, same)
            logits = torch.cat([place.model.logits(self._batch(place, t)) for t in (first, second)])
            x, y = logits.double().cpu().numpy()
            return Compared((a, b), (x, y), _chances(place.model, logits))

    @contextmanager
    def _turn(self, name: str) -> Iterator[_Place]:
        """The model for one question; what is wrong with the question becomes a sentence about "the text"."""
        place = self._places[choose("model", name, self.names)]
        if not self._free.acquire(blocking=False):
            raise Busy(f"{self.limits.queue} questions are waiting already; please ask again in a moment.")
        try:
            with place.lock:
                yield place
        except InputError as e:
            raise InputError(re.sub(r"^Text 1 of 1\b", "The text", str(e))) from e
        finally:
            self._free.release()

    def _explained(self, place: _Place, text: str, method: str, target: str) -> Attribution:
        name = place.model.id
        if method in LEFT_OUT:
            raise InputError(f"This page leaves out the method {method!r}: {LEFT_OUT[method]}.")
        choose("method", method, self.methods(name))
        aims = self.targets(name)
        slow = method in PER_WORD or (METHODS.get(method).needs == Access.OUTPUTS and method != "random")
        self._batch(place, text, SHORT if slow else None, f"by {method!r}, which reads the text again for every word")
        aim = aims[choose("target", target, list(aims))]
        return place.recall((text, method, target), lambda: explain(place.model, text, method, aim))

    def _batch(self, place: _Place, text: str, most_for: int | None = None, what_for: str = "") -> Batch:
        """The text as tokens, within the page's bounds and that of what it is for."""
        if not isinstance(text, str) or not text.strip():
            raise InputError("There is no text yet: type one, or choose an example.")
        most = self.limits.tokens if place.model.limit is None else min(self.limits.tokens, place.model.limit)
        if len(text) > PER_TOKEN * most:
            raise InputError(
                f"The text has {len(text):,} characters; this page reads at most {most} tokens: shorten it."
            )
        batch = place.model.batch(text)
        n = batch.input_ids.shape[1]
        if n > most:
            raise InputError(f"The text has {n} tokens; this page reads at most {most}: shorten it.")
        if most_for is not None and n > most_for:
            raise InputError(f"The text has {n} tokens; this page takes at most {most_for} {what_for}: shorten it.")
        return batch

    def _sees_attention(self, place: _Place) -> None:
        if not self.heads(place.model.id):
            raise InputError(f"The attention of {place.model.id!r} cannot be seen. {place.model.lost}".rstrip())

    @staticmethod
    def _named(model: Model, batch: Batch, n: int) -> tuple[Token, ...]:
        """The tokens that are attended; of a model that pools sentences, their numbers, with the id -1."""
        tokens = model.named(batch).tokens
        assert tokens is not None
        return tokens[0] if len(tokens[0]) == n else tuple(Token(f"sentence {i + 1}", -1) for i in range(n))


def _allows(model: Model, operator: str) -> bool:
    try:
        check_operator(model, operator)
    except PellucidError:
        return False
    return True


def _chances(model: Model, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Probabilities of two rows of logits; None for regression."""
    p = model.probabilities(logits)
    return None if p is None else (p[0].double().cpu().numpy(), p[1].double().cpu().numpy())
