"""The audit "words": which words push each class most over all texts."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from pellucid.audits.audit import ENOUGH, TOO_FEW, Audit, Tick, register
from pellucid.audits.contributions import Contributions, Units, contributions, method_for, told_of, without_punctuation
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.finding import Finding, Findings, Picture
from pellucid.methods import METHODS
from pellucid.methods.method import one_of
from pellucid.stats import RESAMPLES, benjamini_hochberg
from pellucid.types import Batch

LEVEL = 0.05
"""Words count as found where the share of false alarms among them is at most this."""
DRAWN = 4
"""Classes that get a picture."""
STAND_OUT, NONE = "WORDS STAND OUT", "NO WORD STANDS OUT"
_CHUNK = 250  # resamples at a time


@dataclass(frozen=True, eq=False)
class Held:
    """One word in the n texts that hold it: its mean contribution in each, the text's mean word, and occurrences."""

    word: str
    mean: Float[np.ndarray, "n c"]
    control: Float[np.ndarray, "n c"]
    times: np.ndarray

    @property
    def n(self) -> int:
        """Texts."""
        return len(self.mean)


@dataclass(frozen=True, eq=False)
class Ranked:
    """Words by classes: means, 95 % intervals and the same of the control [w, c]; p and q of their difference."""

    held: tuple[Held, ...]
    mean: Float[np.ndarray, "w c"]
    low: Float[np.ndarray, "w c"]
    high: Float[np.ndarray, "w c"]
    null: Float[np.ndarray, "w c"]
    null_low: Float[np.ndarray, "w c"]
    null_high: Float[np.ndarray, "w c"]
    p: Float[np.ndarray, "w c"]
    q: Float[np.ndarray, "w c"]


@dataclass(frozen=True)
class Side:
    """What words can push: the logit of class `index`, up (sign 1) or, for one-logit heads, also down (-1)."""

    index: int
    sign: int
    where: str

    def nearest(self, found: Ranked) -> np.ndarray:
        """Of each word, the end of its interval nearest to zero [w], more being a stronger push."""
        return found.low[:, self.index] if self.sign > 0 else -found.high[:, self.index]

    def stands_out(self, found: Ranked) -> np.ndarray:
        """Which words [w] push more than a random word of their texts, beyond chance, and surely this way."""
        more = self.sign * (found.mean - found.null)[:, self.index] > 0
        return np.asarray(more & (self.nearest(found) > 0) & (found.q[:, self.index] <= LEVEL))

    def order(self, found: Ranked) -> np.ndarray:
        """Words [w], first those that stand out, each group by the end nearest to zero."""
        return np.lexsort((-self.nearest(found), ~self.stands_out(found)))


def held_by(texts: Sequence[Contributions]) -> list[Held]:
    """Every word, in alphabetical order, with what it and its texts contribute."""
    seen: dict[str, list[tuple[np.ndarray, np.ndarray, int]]] = {}
    for text in texts:
        if not text.words:
            continue
        names, at, times = np.unique(np.array(text.words, dtype=object), return_inverse=True, return_counts=True)
        sums = np.zeros((len(names), text.scores.shape[1]))
        np.add.at(sums, at, text.scores)
        random = text.scores.mean(0)
        for word, total, count in zip(names, sums, times, strict=True):
            seen.setdefault(word, []).append((total / count, random, int(count)))
    return [
        Held(word, *(np.array(column) for column in zip(*rows, strict=True))) for word, rows in sorted(seen.items())
    ]


def ranked(held: Sequence[Held], seed: int) -> Ranked:
    """Means, intervals and tests of words that at least two texts hold.

    The interval is a bootstrap over the texts that hold the word. p: two-sided one-sample t test over these
    texts of the word's mean minus the mean of the text's words; q: p after Benjamini & Hochberg over the words, class
    by class.
    """
    from scipy.stats import t as student

    size = np.array([h.n for h in held], dtype=float)[:, None]
    mean, null = np.stack([h.mean.mean(0) for h in held]), np.stack([h.control.mean(0) for h in held])
    spread = np.stack([(h.mean - h.control).std(0, ddof=1) for h in held])
    apart = mean - null
    # texts that agree to rounding: no chance to speak of, unless there is no difference either
    agreed = spread <= 1e-12 * np.maximum(np.abs(mean), np.abs(null))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * student.sf(np.abs(apart) / (spread / np.sqrt(size)), size - 1)
    p = np.where(agreed, np.where(np.abs(apart) <= 1e-12, 1.0, 0.0), p)
    q = np.stack([benjamini_hochberg(column) for column in p.T], 1)
    ends = np.stack([_resampled(h, seed) for h in held], 1)
    return Ranked(tuple(held), mean, ends[0], ends[1], null, ends[2], ends[3], p, q)


def _resampled(h: Held, seed: int) -> np.ndarray:
    """Ends [4, c] of the 95 % intervals of a word's mean and of its control; each word has random numbers of its own.

    The percentiles of few texts lie too near to each other; they are moved out as far as makes an interval of normal
    means right. Source: Hesterberg 2015, arXiv 1411.5279, the expanded percentile interval.
    """
    from scipy.stats import norm
    from scipy.stats import t as student

    rng = np.random.default_rng([seed, zlib.crc32(h.word.encode("utf-8", "surrogatepass"))])
    both = np.concatenate([h.mean, h.control], 1)
    even = np.full(h.n, 1 / h.n)
    means = [rng.multinomial(h.n, even, _CHUNK) @ both / h.n for _ in range(RESAMPLES // _CHUNK)]
    tail = 100 * norm.cdf(np.sqrt(h.n / (h.n - 1)) * student.ppf(0.025, h.n - 1))
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail], axis=0)
    c = h.mean.shape[1]
    return np.stack([low[:c], high[:c], low[c:], high[c:]])


@dataclass(frozen=True)
class Words(Audit):
    """Which words push each class most, over all texts?

    A word's contribution is to the class's logit minus the mean of all logits (one-logit, multi-label and regression
    heads: the logit itself). Words are compared without case; in a text that holds a word several times its mean
    counts, so that texts count alike; both texts of a pair count as one. Control: a random word of the same texts, that
    is the mean of their words. Words are ordered by the end of their 95 % interval that is nearest to zero, for the
    extremes of many noisy means are noise; those are named that differ from their control at a false discovery rate of
    5 % (t test over texts, Benjamini & Hochberg over the words of a class).

    method: a registered method; "decompx" needs READOUT access, "integrated_gradients" GRADIENTS. minimum: texts that
      must hold a word. top: words named for each class. punctuation: whether words without letter and digit count.
    units: "tokens" counts tokens, with methods whose scores may not be summed over a word.

    Unit: logit. Cost: the method for all classes: DecompX takes a forward pass per text and a backward pass per class.
    Source: the method's, by default Modarressi et al. 2023, arXiv 2306.02873; intervals, control and order are ours.
    """

    method: str = "decompx"
    minimum: int = 3
    top: int = 10
    punctuation: bool = True
    units: Units = "words"

    source: ClassVar[str] = "mean contributions by word, ours; DecompX: Modarressi et al. 2023, arXiv 2306.02873"
    caution: ClassVar[str] = (
        "A mean over texts hides words that change sides with their context, such as negations; and a word that the "
        "model uses need not be one that it should use. Look at single texts before removing or trusting a word."
    )

    def __post_init__(self) -> None:
        METHODS.get(self.method)
        one_of("Words", units=(self.units, ("words", "tokens")))
        if self.minimum < 2 or self.top < 1:
            raise InputError(
                f"Words needs minimum of at least 2 and top of at least 1; seen minimum={self.minimum}, top={self.top}."
            )

    @property
    def name(self) -> str:
        return "words"

    @property
    def needs(self) -> Access:  # type: ignore[override]
        """What the method needs."""
        return METHODS.get(self.method).needs

    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        method = method_for(self.method, self.units, model, "The audit 'words'")
        texts = contributions(model, batch, method, self.units, tick)
        limits = told_of(texts, batch, method, model, self.units)
        if not self.punctuation:
            texts = [without_punctuation(text) for text in texts]
        every = held_by(texts)
        held = [h for h in every if h.n >= self.minimum]
        if len(held) < len(every):
            limits.append(f"{len(every) - len(held)} of {len(every)} words are left out: fewer than {self.minimum} "
                          "texts hold them.")  # fmt: skip
        limits.append("That a word is found says that its mean differs from a random word's, not by how much.")
        sides = _sides(model)
        if not held:
            return Findings([_nothing(side, len(batch), tuple(limits)) for side in sides], self.name, {"words": []})
        found = ranked(held, self.seed)
        counts = {"texts": len(batch), "words": len(held), "words left out": len(every) - len(held)}
        out = [self._finding(side, found, counts, tuple(limits)) for side in sides]
        table = [row for i, label in enumerate(model.labels) for row in _rows(found, i, label, len(batch))]
        pictures = {f"class_{k + 1}": Picture(_drawn, found, side, self.top) for k, side in enumerate(sides[:DRAWN])}
        passes = sum(text.passes for text in texts)
        return Findings(out, self.name, {"words": table}, pictures, origin={"forwards": passes})

    def _finding(self, side: Side, found: Ranked, counts: dict[str, int], limits: tuple[str, ...]) -> Finding:
        """The words of one class: the first one's numbers, and the names of the others."""
        c, order, out = side.index, side.order(found), side.stands_out(found)
        named = [w for w in order[: self.top] if out[w]]
        best = int(order[0])
        listed = ", ".join(
            f'"{found.held[w].word}" {found.mean[w, c]:+.2f} (n={found.held[w].n})' for w in named or [best]
        )
        grade = TOO_FEW if counts["texts"] < ENOUGH else STAND_OUT if named else NONE
        reading = (
            f"The words that push {side.where} most, in logits, with the texts that hold them: {listed}. A random word "
            f"of the first one's texts has {found.null[best, c]:+.2f}."
            if named
            else f"No word pushes {side.where} more than a random word of its texts, beyond chance; the nearest "
            f"to it is {listed}, a random word {found.null[best, c]:+.2f}."
        )
        return Finding(
            "words", "top_word", float(found.mean[best, c]), (float(found.low[best, c]), float(found.high[best, c])),
            float(found.null[best, c]), found.held[best].n, grade, reading, limits, "logit", side.where, CONTROL,
            (float(found.null_low[best, c]), float(found.null_high[best, c])),
            counts | {"words that stand out": int(out.sum())},
        )  # fmt: skip


CONTROL = "a random word of the texts that hold the word: the mean of their words"


def _sides(model: Model) -> list[Side]:
    if len(model.labels) == 1:
        return [Side(0, 1, f"{model.labels[0]} up"), Side(0, -1, f"{model.labels[0]} down")]
    return [Side(i, 1, label) for i, label in enumerate(model.labels)]


def _nothing(side: Side, texts: int, limits: tuple[str, ...]) -> Finding:
    reading = f"No word stands in enough texts to say what pushes {side.where}."
    return Finding("words", "top_word", None, None, None, 0, TOO_FEW, reading, limits, "logit", side.where, CONTROL,
                   counts={"texts": texts, "words": 0})  # fmt: skip


def _rows(found: Ranked, c: int, label: str, texts: int) -> list[dict[str, Any]]:
    """One row per word of a class, the strongest push first; per_text: the word's sum over all texts, by text."""
    order = np.argsort(-found.low[:, c], kind="stable")
    return [
        {"word": h.word, "class": label, "mean": float(found.mean[w, c]), "low": float(found.low[w, c]),
         "high": float(found.high[w, c]), "null": float(found.null[w, c]), "null_low": float(found.null_low[w, c]),
         "null_high": float(found.null_high[w, c]), "n": h.n, "count": int(h.times.sum()), "p": float(found.p[w, c]),
         "q": float(found.q[w, c]), "per_text": float((h.mean[:, c] * h.times).sum() / texts)}
        for w in order for h in [found.held[w]]
    ]  # fmt: skip


def _drawn(found: Ranked, side: Side, top: int) -> Any:
    from pellucid.render.charts import intervals

    c, some = side.index, side.order(found)[:top]
    some = some[side.stands_out(found)[some]] if side.stands_out(found).any() else some
    low, high = found.null_low[some, c].min(), found.null_high[some, c].max()
    return intervals(
        [f"{found.held[w].word[:12]} ({found.held[w].n})" for w in some],
        found.mean[some, c],
        found.low[some, c],
        found.high[some, c],
        f"Words that push {side.where} most (texts that hold them)",
        f"contribution, logits; random words of these texts: {low:.2f} to {high:.2f}",
    )


register(Words())
