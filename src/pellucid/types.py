"""What goes in and what comes out: Batch, Token, Target, Attribution. Frozen; attributions survive JSON and Parquet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import InputError, MissingExtra
from pellucid.registry import choose

Text = str | tuple[str, str]
TargetSpec = None | int | str | tuple[int | str, int | str]


@dataclass(frozen=True)
class Token:
    """One input token. `start` and `end` are character offsets into text number `sequence` (0, or 1 in a pair)."""

    text: str
    id: int
    start: int | None = None
    end: int | None = None
    special: bool = False
    word: int | None = None
    sequence: int | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Tokenised input, padded to one length.

    `input_ids` and `attention_mask` are [b, n]; `token_type_ids` is [b, n] or None; `labels` are gold class indices,
    used by `target="gold"`. `tokens` and `texts` are filled in by `Model.batch`; without them tokens print as "[id]".
    """

    input_ids: Tensor
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    labels: tuple[int | str, ...] | None = None
    tokens: tuple[tuple[Token, ...], ...] | None = field(default=None, repr=False)
    texts: tuple[Text, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        ids = torch.as_tensor(self.input_ids)
        if ids.dim() != 2 or ids.numel() == 0 or ids.is_floating_point() or ids.is_complex():
            raise InputError(
                f"Batch: input_ids must be integers of shape [batch, length], not empty; seen {ids.dtype} "
                f"{list(ids.shape)}. For one text use input_ids[None]."
            )
        mask = torch.ones_like(ids) if self.attention_mask is None else torch.as_tensor(self.attention_mask)
        given = {"attention_mask": mask}
        if self.token_type_ids is not None:
            given["token_type_ids"] = torch.as_tensor(self.token_type_ids)
        for name, tensor in given.items():
            if tensor.shape != ids.shape:
                raise InputError(
                    f"Batch: {name} has shape {list(tensor.shape)}, input_ids {list(ids.shape)}; they must agree."
                )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise InputError("Batch: attention_mask may hold only 0 (padding) and 1 (real token).")
        if not bool(mask.bool().any(-1).all()):
            row = int((~mask.bool().any(-1)).nonzero()[0])
            raise InputError(f"Batch: row {row} of attention_mask has no real token; drop that row.")
        for name, items in {"labels": self.labels, "tokens": self.tokens, "texts": self.texts}.items():
            if items is not None and len(items) != len(ids):
                raise InputError(f"Batch: {len(items)} {name} for {len(ids)} rows; they must agree.")
        object.__setattr__(self, "input_ids", ids.long())
        object.__setattr__(self, "attention_mask", mask.bool())
        object.__setattr__(self, "token_type_ids", given.get("token_type_ids"))
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    @property
    def keep(self) -> Tensor:
        """bool [b, n]: True at real tokens."""
        assert self.attention_mask is not None
        return self.attention_mask

    @property
    def lengths(self) -> list[int]:
        """Position after the last real token, per row: what a trimmed row must hold."""
        place = torch.arange(1, self.input_ids.shape[1] + 1, device=self.keep.device)
        return [int(n) for n in (self.keep * place).amax(1).tolist()]

    def rows(self, index: Sequence[int]) -> "Batch":
        """Some rows, without the columns that only padding fills."""
        at, lengths = torch.as_tensor(index), self.lengths
        n = max(lengths[i] for i in index)

        def pick(items: Sequence[Any] | None) -> tuple[Any, ...] | None:
            return None if items is None else tuple(items[i] for i in index)

        types = self.token_type_ids
        return Batch(
            self.input_ids[at, :n],
            self.keep[at, :n],
            None if types is None else types[at, :n],
            pick(self.labels),
            pick(self.tokens),
            pick(self.texts),
        )

    def rows_repeated(self, times: int) -> "Batch":
        """The whole batch `times` times over, without tokens and texts."""
        types = self.token_type_ids
        return Batch(
            self.input_ids.repeat(times, 1),
            self.keep.repeat(times, 1),
            None if types is None else types.repeat(times, 1),
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        types = self.token_type_ids
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.keep.to(device),
            token_type_ids=None if types is None else types.to(device),
        )


def _class_index(asked: object, labels: Sequence[str]) -> int:
    if isinstance(asked, str):
        return list(labels).index(choose("label", asked, list(labels)))
    if isinstance(asked, bool) or not hasattr(asked, "__index__"):
        raise InputError(
            f'A target is None, a class index, a label name, "all", "gold" or a pair (a, b); seen {asked!r}.'
        )
    index = int(asked.__index__())
    if not 0 <= index < len(labels):
        raise InputError(
            f"Class {index} was asked for, but the model has {len(labels)} classes, 0 to {len(labels) - 1}: "
            f"{', '.join(labels)}."
        )
    return index


@dataclass(frozen=True)
class Target:
    """Which function of the logits is explained, for each text of a batch.

    `choices` holds, per text, None (the class with the largest logit; the only logit of a one-logit head), a class
    index, or a pair (a, b) for logit a minus logit b; `all_classes` asks for every logit in one go instead.
    """

    choices: tuple[int | tuple[int, int] | None, ...]
    labels: tuple[str, ...]
    all_classes: bool = False

    @classmethod
    def parse(cls, spec: TargetSpec | Sequence[TargetSpec], labels: Sequence[str], batch: Batch) -> "Target":
        """Read the `target` of `explain`; InputError if a class or label does not exist."""
        n, names = len(batch), tuple(labels)
        if isinstance(spec, str) and spec == "all" and "all" not in names:
            return cls((None,) * n, names, all_classes=True)
        if isinstance(spec, str) and spec == "gold" and "gold" not in names:
            if batch.labels is None:
                raise InputError(
                    'target="gold" explains the true class, but the input has no labels; give them with '
                    "model.batch(texts, labels=[...]), Batch(labels=...) or --label-column."
                )
            spec = list(batch.labels)
        if not isinstance(spec, list):
            return cls((cls._one(spec, names),) * n, names)
        if len(spec) != n:
            raise InputError(f"{len(spec)} targets were given for {n} texts; give one per text, or a single one.")
        return cls(tuple(cls._one(s, names) for s in spec), names)

    @staticmethod
    def _one(spec: object, labels: tuple[str, ...]) -> int | tuple[int, int] | None:
        if spec is None:
            return None
        if isinstance(spec, tuple):
            if len(spec) != 2:
                raise InputError(f"A contrast is a pair (a, b), logit a minus logit b; seen {spec!r}.")
            return _class_index(spec[0], labels), _class_index(spec[1], labels)
        return _class_index(spec, labels)

    def rows(self, index: Sequence[int]) -> "Target":
        """The targets of some texts."""
        return replace(self, choices=tuple(self.choices[i] for i in index))

    def resolve(self, logits: Tensor) -> "Target":
        """The same with every None replaced by the predicted class; logits [b, c]."""
        best = logits.argmax(-1).tolist()
        return replace(self, choices=tuple(best[i] if c is None else c for i, c in enumerate(self.choices)))

    def weights(self, logits: Tensor) -> Tensor:
        """[b, c, t] such that what is explained is logits @ weights; t is 1, or c for all classes."""
        b, c = logits.shape
        if self.all_classes:
            return torch.eye(c, dtype=logits.dtype, device=logits.device).expand(b, c, c)
        w = logits.new_zeros(b, c, 1)
        for i, choice in enumerate(self.resolve(logits).choices):
            plus, minus = choice if isinstance(choice, tuple) else (choice, None)
            w[i, plus] += 1.0
            if minus is not None:
                w[i, minus] -= 1.0
        return w

    def name(self, i: int) -> str:
        """The target of text i in words: a label, "a - b", or "all"."""
        choice = self.choices[i]
        if self.all_classes or choice is None:
            return "all" if self.all_classes else "predicted"
        if isinstance(choice, tuple):
            return f"{self.labels[choice[0]]} - {self.labels[choice[1]]}"
        return self.labels[choice]


Scalar = float | np.ndarray | None


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
                f"{self.method!r} scores cannot be summed over the tokens of a word: they are norms or effects of "
                'single tokens. Use a method that adds up, such as "decompx", or read them per token.'
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
            merged = replace(first, end=last.end)
            tokens.append(replace(merged, text=self.surface(merged)))
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
            "spans": [[t.id, t.start, t.end, t.special, t.word, t.sequence] for t in self.tokens],
            "origin": dict(self.origin),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Attribution":
        """Read what `to_dict` wrote; InputError if fields are missing."""
        try:
            fields = {k: record[k] for k in ("label", "prediction", "probability", "method", "params")}
            text, target = record["text"], record["target"]
            return cls(
                tokens=tuple(
                    Token(piece, *span) for piece, span in zip(record["tokens"], record["spans"], strict=True)
                ),
                scores=np.asarray(record["scores"], dtype=np.float64),
                unallocated=_scalar(record["unallocated"]),
                explained=_scalar(record["explained"]),
                target=tuple(target) if isinstance(target, list) else target,
                text=tuple(text) if isinstance(text, list) else text,
                unit=record["unit"],
                complete=record["complete"],
                signed=record["signed"],
                additive=record["additive"],
                labels=tuple(record["labels"]),
                origin=record["origin"],
                **fields,
            )
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(f"This is not a saved attribution: {type(e).__name__} {e}.") from e

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row per token; MissingExtra without pandas."""
        try:
            import pandas as pd
        except ImportError as e:
            raise MissingExtra("to_dataframe needs pandas: pip install pandas") from e
        frame = pd.DataFrame(
            {
                "token": [t.text for t in self.tokens],
                "start": [t.start for t in self.tokens],
                "end": [t.end for t in self.tokens],
                "special": [t.special for t in self.tokens],
                "word": [t.word for t in self.tokens],
                "sequence": [t.sequence for t in self.tokens],
            }
        )
        if self.scores.ndim == 1:
            return frame.assign(score=self.scores)
        names = self.labels or tuple(str(c) for c in range(self.scores.shape[1]))
        return frame.assign(**{f"score:{name}": self.scores[:, c] for c, name in enumerate(names)})

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
    return np.asarray(x, dtype=np.float64) if isinstance(x, list) else x
