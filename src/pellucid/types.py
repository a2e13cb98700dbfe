"""What goes in: texts as a Batch of Tokens, and the Target to explain."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import InputError
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
        try:
            ids = torch.as_tensor(self.input_ids)
        except (ValueError, TypeError, RuntimeError) as e:
            raise InputError(f"Batch: input_ids must be integers of shape [batch, length]; {e}.") from e
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

    def check_whole(self) -> None:
        """InputError for a row with padding between its tokens."""
        for row, (n, real) in enumerate(zip(self.lengths, self.keep.sum(-1).tolist(), strict=True)):
            if n != real:
                raise InputError(
                    f"Row {row} of the Batch has {n - real} masked places between its tokens (attention_mask 0); an "
                    "audit reads whole texts: leave these tokens out."
                )

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
        found = [i for i, name in enumerate(labels) if name == choose("label", asked, list(labels))]
        if len(found) > 1:
            raise InputError(f"{len(found)} classes are called {asked!r}; choose by number: {found}.")
        return found[0]
    try:
        index = None if isinstance(asked, bool) else operator.index(asked)  # type: ignore[arg-type]
    except TypeError:
        index = None
    if index is None:
        raise InputError(
            f'A target is None, a class index, a label name, "all", "gold" or a pair (a, b); seen {asked!r}.'
        )
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
