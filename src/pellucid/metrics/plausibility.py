"""Plausibility: whether the tokens that score high are those that people marked. It says nothing of the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from pellucid.errors import InputError, MissingExtra
from pellucid.metrics.measured import ranked
from pellucid.metrics.metric import register
from pellucid.types import Batch, Token

OVERLAP = 0.5
"""Intersection over union from which a span counts as found."""
_ERASER = "DeYoung et al. 2020, arXiv 1911.03429"


class Span(NamedTuple):
    """Characters start to end (excluded) of a text, or of text `sequence` (0 or 1) of a pair."""

    start: int
    end: int
    sequence: int = 0


@dataclass(frozen=True, eq=False)
class Annotated:
    """Scores of a text's tokens and what people marked.

    ordinary [n]: no special tokens; only these count. rationale [n]: the token overlaps a marked span. order [m]:
    places of the ordinary tokens from the highest score to the lowest.
    """

    scores: Float[np.ndarray, "n"]
    ordinary: Bool[np.ndarray, "n"]
    rationale: Bool[np.ndarray, "n"]
    order: Int[np.ndarray, "m"]

    @property
    def silent(self) -> bool:
        """Whether none or all of the ordinary tokens are marked, so that every ranking is as good."""
        marked = self.rationale[self.ordinary]
        return bool(marked.all() or not marked.any())

    @property
    def selected(self) -> np.ndarray:
        """bool [n]: the highest scoring ordinary tokens, as many as are marked."""
        chosen = np.zeros(len(self.scores), dtype=bool)
        chosen[self.order[: int(self.rationale.sum())]] = True
        return chosen


def annotate(text: Batch, scores: Float[np.ndarray, "n"], spans: Sequence[Span | tuple[int, ...]]) -> Annotated:
    """One text's scores against the spans that people marked in it.

    text: one row with tokens and its text, from `model.batch`. Ties fall at random, see `ranked`.
    Raises: InputError for scores of another length or not finite; and see `marked`.
    """
    rationale = marked(text, spans)
    tokens = _tokens(text)
    ordinary = np.array([not t.special for t in tokens])
    given = np.asarray(scores, dtype=float)
    if given.shape != ordinary.shape or not np.isfinite(given).all():
        raise InputError(
            f"Scores are {len(tokens)} finite numbers, one per token; seen shape {list(given.shape)} with "
            f"{int((~np.isfinite(given)).sum())} that are not finite."
        )
    at = ordinary.nonzero()[0]
    return Annotated(given, ordinary, rationale, at[ranked(given[at], _ids(text))])


def marked(text: Batch, spans: Sequence[Span | tuple[int, ...]]) -> Bool[np.ndarray, "n"]:
    """Which tokens of one text overlap a span in at least one character that is not white space.

    By character offsets, so that it does not matter whether a tokenizer counts the space before a word to the word, or
    where it cuts. Special tokens are never marked; a span beyond the last token (of a text that was cut) marks none.

    Raises: InputError for a span outside its text, and for tokens without offsets.
    """
    tokens = _tokens(text)
    assert text.texts is not None
    pieces = (text.texts[0],) if isinstance(text.texts[0], str) else text.texts[0]
    inside = [np.zeros(len(piece), dtype=bool) for piece in pieces]
    for span in (Span(*s) for s in spans):
        known = 0 <= span.sequence < len(pieces)
        if not known or not 0 <= span.start < span.end <= len(pieces[span.sequence]):
            raise InputError(
                f"The span {tuple(span)} (start, end, number of the text) lies outside its text; there are "
                f"{len(pieces)} texts, of {', '.join(str(len(p)) for p in pieces)} characters."
            )
        inside[span.sequence][span.start : span.end] = True
    for at, piece in zip(inside, pieces, strict=True):
        at &= np.array([not c.isspace() for c in piece], dtype=bool)
    found = np.zeros(len(tokens), dtype=bool)
    for i, t in enumerate(tokens):
        if not t.special:
            found[i] = inside[t.sequence or 0][t.start : t.end].any()
    return found


def _tokens(text: Batch) -> tuple[Token, ...]:
    """The tokens of one text with offsets; InputError otherwise."""
    if len(text) != 1:
        raise InputError(f"Rationales are compared text by text; seen {len(text)}. Take batch.rows([i]).")
    tokens = None if text.tokens is None else text.tokens[0]
    if tokens is None or text.texts is None or any(t.start is None for t in tokens if not t.special):
        raise InputError(
            "Rationales are found by character offsets, which this text's tokens lack: make it with model.batch and a "
            "fast tokenizer."
        )
    return tokens


def _ids(text: Batch) -> np.ndarray:
    return np.asarray(text.input_ids[0][text.keep[0]].cpu().numpy())


def random_scores(text: Batch) -> Float[np.ndarray, "n"]:
    """Standard normal scores, drawn by a seed made of the text's ids: what a ranking that knows nothing reaches."""
    ids = _ids(text)
    return np.random.default_rng([1, *ids.tolist()]).normal(size=len(ids))


def longest_words(text: Batch) -> Float[np.ndarray, "n"]:
    """The length in characters of the word that a token belongs to, 0 for special tokens: content without a model.

    Where the tokenizer does not tell words, the token's own length.
    """
    tokens = _tokens(text)
    total: dict[tuple[int | None, int | None], int] = {}
    keys = [(t.sequence, t.word) if t.word is not None else (None, i) for i, t in enumerate(tokens)]
    for key, t in zip(keys, tokens, strict=True):
        total[key] = total.get(key, 0) + (0 if t.special else (t.end or 0) - (t.start or 0))
    return np.array([0.0 if t.special else float(total[key]) for key, t in zip(keys, tokens, strict=True)])


CONTROLS: Mapping[str, Callable[[Batch], np.ndarray]] = {"random": random_scores, "longest_words": longest_words}
"""Scores of one text that look at no model: what a method must beat before its agreement with people means anything."""


@register("plausibility", 1, "F1", _ERASER)
def token_f1(a: Annotated) -> float:
    """F1 of the top tokens against the marked ones, as many top tokens as are marked.

    With as many chosen as marked, precision, recall and F1 are the same number. nan where none or all tokens are
    marked. Differs from the source, whose models choose by themselves how many.
    """
    return float("nan") if a.silent else float(a.rationale[a.selected].mean())


@register("plausibility", 1, "F1", _ERASER)
def iou_f1(a: Annotated) -> float:
    """F1 of the runs of top tokens that overlap a marked run by at least half of their union.

    As many top tokens as are marked; runs are of neighbouring tokens, so that marked spans next to each other are one.
    nan where none or all tokens are marked. Differs from the source in that F1 is taken text by text, which a paired
    comparison needs, not from mean precision and recall.
    """
    if a.silent:
        return float("nan")
    people, chosen = _runs(a.rationale), _runs(a.selected)
    hits = sum(max(_iou(run, other) for other in people) >= OVERLAP for run in chosen)
    return 2 * hits / (len(people) + len(chosen))


@register("plausibility", 1, "average precision", _ERASER)
def auprc(a: Annotated) -> float:
    """Area under precision over recall as ever more top tokens are chosen (average precision).

    nan where none or all tokens are marked. Ties are chosen together. By sklearn.metrics.average_precision_score, the
    sum without interpolation; the source also reports trapezoids, which are too kind where few tokens are marked.
    Raises: MissingExtra without scikit-learn.
    """
    try:
        from sklearn.metrics import average_precision_score
    except ImportError as e:
        raise MissingExtra("The metric 'auprc' needs scikit-learn: pip install 'pellucid[info]'.") from e
    if a.silent:
        return float("nan")
    return float(average_precision_score(a.rationale[a.ordinary], a.scores[a.ordinary]))


def _runs(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Neighbouring places that are True, as (start, end excluded)."""
    edges = np.diff(np.concatenate([[0], chosen.astype(int), [0]])).nonzero()[0]
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _iou(a: tuple[int, int], b: tuple[int, int]) -> float:
    both = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return both / (a[1] - a[0] + b[1] - b[0] - both)
