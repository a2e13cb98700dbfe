"""What comes out: an Attribution, frozen, that prints, sums to words, and survives JSON and Parquet."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pellucid.errors import InputError, MissingExtra
from pellucid.types import Text, Token

Scalar = float | np.ndarray | None
_SPAN = ("id", "start", "end", "special", "word", "sequence")


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each token contributed to one model output.

    `scores` is float64 [n], or [n, classes] for target "all", over the real tokens, special ones included, in `unit`.
    For a complete method explained = unallocated + scores.sum(0); `gap` is what is missing from that. `target` is a
    class index, a pair, or "all"; `label` names it; `prediction` is the predicted label and `probability` the model's
    probability of it (None for regression). `origin` tells how it was made: model, weights hash, parity, versions,
    forward and backward passes, seconds.
    """

    tokens: tuple[Token, ...]
    scores: np.ndarray
    unallocated: Scalar
    explained: Scalar
    target: int | tuple[int, int] | Literal["all"]
    label: str
    prediction: str
    probability: float | None
    method: str
    params: Mapping[str, Any]
    unit: str = "logit"
    complete: bool = False
    signed: bool = True
    additive: bool = False
    text: Text | None = None
    labels: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gap(self) -> Scalar:
        """explained - unallocated - sum of scores: about 0 for a complete method; None where nothing is explained."""
        if self.explained is None or self.unallocated is None:
            return None
        gap = self.explained - self.unallocated - self.scores.sum(0)
        return gap if isinstance(gap, np.ndarray) and gap.ndim else float(gap)

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        shown = "" if self.gap is None else f", gap={np.abs(self.gap).max():.1e}"
        return f"Attribution({self.method}, {len(self)} tokens, target={self.label!r}{shown})"

    def surface(self, token: Token) -> str:
        """The token as it stands in the source text, or its vocabulary piece where that is unknown."""
        if self.text is None or token.start is None or token.special:
            return token.text
        text = self.text if isinstance(self.text, str) else self.text[token.sequence or 0]
        return text[token.start : token.end]

    def words(self) -> "Attribution":
        """The same over words: the scores of a word's tokens summed; special tokens stay as they are.

        Raises: InputError where the method's scores may not be summed, or where words are unknown.
        """
        if not self.additive:
            raise InputError(
                f"The scores of {self.method!r} with these parameters cannot be summed over the tokens of a word: "
                "a word taken as one would get another score. Use a method that adds up, such as "
                'DecompX(bias="token"), or read them per token.'
            )
        if all(t.word is None for t in self.tokens):
            raise InputError("Words are unknown for these tokens: the input had no tokenizer that tells them.")
        tokens: list[Token] = []
        scores: list[np.ndarray] = []

        def word_of(i: int) -> tuple[int | None, int | None, int]:
            t = self.tokens[i]
            return (t.sequence, t.word, -1) if t.word is not None else (t.sequence, None, i)

        for _, run in groupby(range(len(self.tokens)), key=word_of):
            at = list(run)
            first, last = self.tokens[at[0]], self.tokens[at[-1]]
            merged = replace(first, end=last.end, text="".join(_bare(self.tokens[i]) for i in at))
            tokens.append(replace(merged, text=self.surface(merged).strip() or merged.text))
            scores.append(self.scores[at].sum(0))
        return replace(self, tokens=tuple(tokens), scores=np.stack(scores))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record; `Attribution.from_dict` reads it back without loss."""
        target = list(self.target) if isinstance(self.target, tuple) else self.target
        return {
            "text": list(self.text) if isinstance(self.text, tuple) else self.text,
            "tokens": [t.text for t in self.tokens],
            "scores": self.scores.tolist(),
            "unallocated": _plain(self.unallocated),
            "explained": _plain(self.explained),
            "gap": _plain(self.gap),
            "target": target,
            "label": self.label,
            "prediction": self.prediction,
            "probability": self.probability,
            "method": self.method,
            "params": dict(self.params),
            "unit": self.unit,
            "complete": self.complete,
            "signed": self.signed,
            "additive": self.additive,
            "labels": list(self.labels),
            "spans": [[getattr(t, name) for name in _SPAN] for t in self.tokens],
            "origin": dict(self.origin),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Attribution":
        """Read what `to_dict` wrote; InputError if fields are missing."""
        try:
            fields = {k: record[k] for k in ("label", "prediction", "probability", "method", "unit")}
            text, target = record["text"], record["target"]
            pieces = zip(record["tokens"], record["spans"], strict=True)
            made = cls(
                tokens=tuple(Token(piece, *span) for piece, span in pieces if len(span) == len(_SPAN)),
                scores=np.asarray(record["scores"], dtype=np.float64),
                unallocated=_scalar(record["unallocated"]),
                explained=_scalar(record["explained"]),
                target=tuple(target) if isinstance(target, list) else target,
                text=tuple(text) if isinstance(text, list) else text,
                params=dict(record["params"]),
                labels=tuple(record["labels"]),
                origin=dict(record["origin"]),
                complete=bool(record["complete"]),
                signed=bool(record["signed"]),
                additive=bool(record["additive"]),
                **fields,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise InputError(f"This is not a saved attribution: {type(e).__name__} {e}.") from e
        made._check(len(record["tokens"]))
        return made

    def _check(self, tokens: int) -> None:
        """InputError unless the parts fit together."""
        shape = self.scores.shape[1:]
        fits = self.scores.ndim in (1, 2) and len(self.scores) == len(self.tokens) == tokens
        fits &= all(x is None or np.shape(x) == shape for x in (self.unallocated, self.explained))
        fits &= self.text is None or isinstance(self.text, (str, tuple))
        if not fits:
            raise InputError(
                f"This is not a saved attribution: {tokens} tokens with {len(self.tokens)} spans, scores of shape "
                f"{list(self.scores.shape)} and explained {self.explained!r} do not fit together."
            )

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row per token; MissingExtra without pandas."""
        try:
            import pandas as pd
        except ImportError as e:
            raise MissingExtra("to_dataframe needs pandas: pip install pandas") from e
        frame = pd.DataFrame(
            {
                "token": [t.text for t in self.tokens],
                "special": [t.special for t in self.tokens],
                **{
                    name: pd.array([getattr(t, name) for t in self.tokens], dtype="Int64")
                    for name in ("start", "end", "word", "sequence")
                },
            }
        )
        if self.scores.ndim == 1:
            return frame.assign(score=self.scores)
        names = self.labels or tuple(str(c) for c in range(self.scores.shape[1]))
        columns = [f"score:{name}" for name in names]
        return pd.concat([frame, pd.DataFrame(self.scores, columns=columns)], axis=1)  # names may repeat

    def show(self) -> None:
        """Print the coloured text, the strongest tokens and the sum to the terminal; in a notebook, display it."""
        from pellucid.render import show

        show(self)

    def _repr_html_(self) -> str:
        from pellucid.render import html_fragment

        return html_fragment(self)

    def to_html(self, path: str | Path | None = None) -> str:
        """One self-contained HTML page; written to `path` if given, and returned."""
        from pellucid.render import html_page

        return _written(html_page([self]), path)

    def to_svg(self, path: str | Path | None = None) -> str:
        """The coloured text as an SVG picture; written to `path` if given, and returned."""
        from pellucid.render import svg

        return _written(svg(self), path)

    def save(self, path: str | Path) -> None:
        """Write to `path`: Parquet if it ends so, otherwise JSON. The file appears whole or not at all."""
        from pellucid.records import write_records

        write_records([self], path)

    @staticmethod
    def load(path: str | Path) -> "Attribution":
        """Read one attribution that `save` or `pellucid explain --out` wrote; InputError if there are several."""
        from pellucid.records import read_records

        found = read_records(path)
        if len(found) != 1:
            raise InputError(f"{path} holds {len(found)} attributions; read them with pellucid.read_records(path).")
        return found[0]


def _written(page: str, path: str | Path | None) -> str:
    if path is not None:
        from pellucid.records import write_whole

        write_whole(path, page.encode("utf-8"))
    return page


def _plain(x: Scalar) -> Any:
    """A JSON value; a number that is not finite becomes None, which JSON can hold."""
    if x is None:
        return None
    if isinstance(x, np.ndarray) and x.ndim:
        return [float(v) for v in x]
    return float(x) if math.isfinite(float(x)) else None


def _scalar(x: Any) -> Scalar:
    return np.asarray(x, dtype=np.float64) if isinstance(x, list) else None if x is None else float(x)


def _bare(token: Token) -> str:
    """A vocabulary piece without the mark that it begins or continues a word."""
    return token.text.removeprefix("##").lstrip("\u2581\u0120") or token.text
