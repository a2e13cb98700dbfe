"""Tables as a data set: texts and classes by split, checked, split where the source does not, cut to limits."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.data.files import SPLIT_OF, hub, is_path, tables
from pellucid.errors import InputError
from pellucid.types import Text

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Split:
    """Texts (or pairs of texts), and for each the number of its class."""

    texts: tuple[Text, ...] = ()
    classes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> "Split":
        """Some of the texts, in the order of the file."""
        kept = sorted(rows)
        return Split(tuple(self.texts[i] for i in kept), tuple(self.classes[i] for i in kept))


@dataclass(frozen=True)
class Corpus:
    """A data set: its splits (`test` may be empty), the names of its classes, and the hash of all of that.

    dropped: rows without text, which were left out because this was asked for.
    """

    source: str
    train: Split
    dev: Split
    test: Split
    labels: tuple[str, ...]
    sha256: str
    dropped: int = 0

    def __str__(self) -> str:
        """What was read, in a line."""
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        return f"{self.source}: {sizes} texts; {len(self.labels)} classes: {_shown(self.labels)}."

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that hold texts, by name."""
        return {name: split for name in SPLITS if len(split := getattr(self, name))}

    def facts(self) -> dict[str, Any]:
        """Sizes, class counts and texts seen in training too, JSON-ready."""
        seen = set(self.train.texts)
        return {
            "source": self.source,
            "sha256": self.sha256,
            "labels": list(self.labels),
            "texts": {name: len(split) for name, split in self.splits.items()},
            "classes": {
                name: {self.labels[c]: count for c, count in sorted(Counter(split.classes).items())}
                for name, split in self.splits.items()
            },
            "dropped": self.dropped,
            "also_in_train": {n: sum(t in seen for t in s.texts) for n, s in self.splits.items() if n != "train"},
        }


@dataclass(frozen=True)
class _Columns:
    text: str | None
    pair: str | None
    label: str | None
    split: str | None
    skip: tuple[str, ...]
    drop_empty: bool


@dataclass(frozen=True)
class _Rows:
    """Texts of one split with their labels as they stand in the file. names: of classes 0, 1, .., if the file says."""

    split: str
    texts: list[Text]
    labels: list[Any]
    names: tuple[str, ...]
    dropped: int


def read(
    source: str | Path,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    split: str | None = None,
    names: Sequence[str] = (),
    skip: Sequence[str] = (),
    drop_empty: bool = False,
    dev: float = 0.1,
    test: float = 0.0,
    limit: int | None = None,
    dev_limit: int | None = None,
    test_limit: int | None = None,
    seed: int = 0,
) -> Corpus:
    """Read a data set, whole or not at all.

    source: a .csv, .jsonl or .parquet file; a folder of such files, called train, dev (or validation, valid, val) and
      test; or a data set of the Hugging Face hub, "name" or "name:configuration".
    text, pair, label: columns; default "text" or "sentence", none, and "label". split: the column that says train, dev
      or test, by default "split" if there is one, "" for none; it takes precedence over names of files.
    names: what classes 0, 1, .. are called. skip: splits to leave out. drop_empty: leave rows without text out, and
      count them, where they are refused otherwise. dev, test: the share of the training texts split
      off where the source has no such split; 0 for no test split. limit: at most so many training texts.
    seed: of splits and limits, in which every class keeps its share.

    Raises: InputError for what cannot be used: nothing is truncated or dropped unasked.
    """
    columns = _Columns(text, pair, label, split, tuple(skip), drop_empty)
    words = {text or "text", text or "sentence", pair or "text"}
    found_tables = tables(Path(source), words) if is_path(str(source)) else hub(str(source))
    parts = [rows for where, table, own in found_tables for rows in _parted(where, table, own, columns)]
    found = {name: [p for p in parts if p.split == name] for name in SPLITS}
    if not found["train"]:
        seen = ", ".join(sorted({p.split for p in parts})) or "nothing else"
        raise InputError(f"{source} has no train split to learn from; it holds {seen}. Name another source.")
    named = tuple(names) or next((p.names for p in parts if p.names), ())
    labels, number = _classes(str(source), [p for group in found.values() for p in group], named)
    whole = {
        name: Split(tuple(t for p in group for t in p.texts), tuple(number[_plain(x)] for p in group for x in p.labels))
        for name, group in found.items()
    }
    made = _completed(str(source), whole, {"dev": dev, "test": test}, seed)
    most = {"train": limit, "dev": dev_limit, "test": test_limit}
    made = {name: _at_most(part, most[name], name, seed) for name, part in made.items()}
    _check(str(source), made, labels)
    digest = hashlib.sha256(json.dumps([labels, *([s.texts, s.classes] for s in made.values())]).encode()).hexdigest()
    return Corpus(str(source), **made, labels=labels, sha256=digest, dropped=sum(p.dropped for p in parts))


def spread(classes: Sequence[int], n: int, seed: int) -> list[int]:
    """n rows drawn at random, each class in its share to within one; more rows include those of fewer.

    scikit-learn's stratified split refuses classes of one text and sizes near the whole, which are sound here.
    """
    rng = np.random.default_rng(seed)
    given, tie = np.asarray(classes), rng.random(len(classes))
    place = np.empty(len(given))
    for c in np.unique(given):
        rows = np.flatnonzero(given == c)
        place[rows[np.argsort(tie[rows])]] = (np.arange(len(rows)) + 0.5) / len(rows)
    return [int(i) for i in np.lexsort((tie, place))[:n]]


def _shown(labels: Iterable[Any], most: int = 6) -> str:
    """Some labels, each cut to a few words, and how many more there are."""
    given = [" ".join(str(label).split()) for label in labels]
    short = [x if len(x) <= 30 else x[:29] + "…" for x in given[:most]]
    return ", ".join(short) + (f" and {len(given) - most} more" if len(given) > most else "")


def _completed(source: str, given: dict[str, Split], shares: dict[str, float], seed: int) -> dict[str, Split]:
    """All three splits; those that the source lacks are taken from train, test first, never the other way round."""
    made = {name: given.get(name, Split()) for name in SPLITS}
    for name in ("test", "dev"):
        share = shares[name]
        if not 0 <= share < 1:
            raise InputError(f"The share {name}={share} of texts to split off must lie between 0 and 1.")
        train = made["train"]
        if len(made[name]) or not share:
            continue
        rows = set(spread(train.classes, max(1, round(share * len(train))), seed))
        if len(rows) >= len(train):
            raise InputError(f"{source} has {len(train)} training texts, too few to split off {name}; give more.")
        made[name] = train.take(list(rows))
        made["train"] = train.take([i for i in range(len(train)) if i not in rows])
    return made


def _at_most(split: Split, n: int | None, name: str, seed: int) -> Split:
    if n is not None and n < 1:
        raise InputError(f"The limit of {name} texts must be at least 1; seen {n}.")
    return split if n is None or n >= len(split) else split.take(spread(split.classes, n, seed))


def _check(source: str, made: dict[str, Split], labels: tuple[str, ...]) -> None:
    """InputError unless there is something to learn and to select by, and train has every class."""
    if not len(made["dev"]):
        raise InputError(f"{source} has no dev texts to choose the best epoch by; add some, or set dev=0.1.")
    there = {labels[c] for c in made["train"].classes}
    if len(there) < 2:
        raise InputError(
            f"The training texts of {source} all have the label {next(iter(there))!r}; a classifier needs two classes."
        )
    for name in ("dev", "test"):
        if lost := sorted({labels[c] for c in made[name].classes} - there):
            raise InputError(
                f"The label {_shown(lost[:1])!r} is in {name} of {source}, but not in train ({_shown(sorted(there))}); "
                f"add such texts to train, raise limit, leave the split out with skip, or, if another column holds the "
                f"labels, name it with data.label."
            )
    if lost := sorted(set(labels) - there):
        raise InputError(f"No training text of {source} has the label {lost[0]!r}; its labels are {_shown(labels)}.")


def _classes(source: str, parts: Iterable[_Rows], names: tuple[str, ...]) -> tuple[tuple[str, ...], dict[Any, int]]:
    """The names of the classes, and the number of each label: whole numbers in their order, texts by the alphabet."""
    seen = {_plain(x) for p in parts for x in p.labels}
    numeric = all(isinstance(x, int) for x in seen)
    if not numeric and any(isinstance(x, int) for x in seen):
        raise InputError(f"The labels of {source} are numbers in one file and texts in another; write them one way.")
    order = sorted(seen)
    bare = Counter(str(x).strip() for x in order)
    if twice := [x for x, count in bare.items() if count > 1]:
        raise InputError(f"{source} has labels that differ in spaces alone, such as {twice[0]!r}; write them one way.")
    if names:
        if len(set(names)) < len(names):
            raise InputError(f"names holds the same name twice: {', '.join(names)}.")
        if not numeric or any(not 0 <= x < len(names) for x in order):
            shown = ", ".join(map(repr, order[:5]))
            raise InputError(
                f"{len(names)} names were given for classes 0 to {len(names) - 1}, but the labels of {source} are "
                f"{shown}; leave names out, or number the labels from 0."
            )
        return names, {x: x for x in order}
    return tuple(map(str, order)), {x: i for i, x in enumerate(order)}


def _plain(label: object) -> Any:
    """A label as a whole number or a text: 1.0 is 1, true is "true"."""
    if isinstance(label, bool):
        return str(label).lower()
    return int(label) if isinstance(label, float) else label


def _parted(where: str, table: "pa.Table", own: str, columns: _Columns) -> Iterable[_Rows]:
    """A file's rows, by split; `own` is the file's own name, which counts where no column tells."""
    there = table.column_names
    if SPLIT_OF.get(own, own) in columns.skip and (columns.split == "" or "split" not in there):
        return []
    text = columns.text or ("sentence" if "sentence" in there and "text" not in there else "text")
    label = columns.label or "label"
    split = columns.split
    if split is None and "split" in there and "split" not in (text, columns.pair, label):
        split = "split"
    split = split or None
    for option, name in {"text": text, "pair": columns.pair, "label": label, "split": split}.items():
        if name is not None and there.count(name) != 1:
            count = f"{there.count(name)} columns" if name in there else "no column"
            raise InputError(
                f"{where} has {count} {name!r}; its columns are {', '.join(map(repr, there))}. Name one of them with "
                f"data.{option}."
            )
    if not len(table):
        raise InputError(f"{where} holds no rows, so there is nothing in it to read.")
    rows = {own: list(range(len(table)))} if split is None else _by_split(table, split)
    texts, names = _texts(where, table, text, columns.pair), _names(table, label)
    found = []
    for name, at in rows.items():
        if name in columns.skip or SPLIT_OF.get(name) in columns.skip:
            continue
        if name not in SPLIT_OF:
            seen = f"has no column 'split' and is called {name!r}" if split is None else f"has {name!r} as a {split!r}"
            raise InputError(
                f'{where} {seen}, but splits are {", ".join(SPLIT_OF)}; name the column with data.split ("" if '
                f"there is none), or leave these texts out with data.skip."
            )
        kept = [i for i in at if texts[i] is not None]
        if len(kept) < len(at) and not columns.drop_empty:
            empty = [i + 1 for i in at if texts[i] is None]
            rows_have = f"{len(empty)} rows of {where} have" if len(empty) > 1 else f"A row of {where} has"
            raise InputError(f"{rows_have} no {text!r} (row {empty[0]} first); remove them, or set data.drop_empty.")
        words = [t for i in kept if (t := texts[i]) is not None]
        found.append(_Rows(SPLIT_OF[name], words, _labels(where, table, kept, label), names, len(at) - len(kept)))
    return found


def _by_split(table: "pa.Table", split: str) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for i, value in enumerate(table[split].to_pylist()):
        rows.setdefault(str(value), []).append(i)
    return rows


def _texts(where: str, table: "pa.Table", text: str, pair: str | None) -> list[Text | None]:
    """The text, or pair of texts, of each row; None where there is none."""
    import pyarrow as pa

    for name in filter(None, (text, pair)):
        kind = table.schema.field(name).type
        if pa.types.is_dictionary(kind):  # categories
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise InputError(f"The column {name!r} of {where} holds {kind}, not texts; name another with data.text.")
    first = table[text].to_pylist()
    if pair is None:
        return [t if t is not None and t.strip() else None for t in first]
    both = zip(first, table[pair].to_pylist(), strict=True)
    return [(a, b) if a is not None and b is not None and (a.strip() or b.strip()) else None for a, b in both]


def _labels(where: str, table: "pa.Table", rows: list[int], label: str) -> list[Any]:
    column = table[label].to_pylist()
    for i in rows:
        value = column[i]
        if value is None or value == "":
            raise InputError(f"Row {i + 1} of {where} has no label (column {label!r}); add it or remove the row.")
        if not isinstance(value, (int, str)) and not (isinstance(value, float) and value.is_integer()):
            raise InputError(
                f"Row {i + 1} of {where} has {value!r} as its {label!r}; a class is a whole number or a text."
            )
    return [column[i] for i in rows]


def _names(table: "pa.Table", label: str) -> tuple[str, ...]:
    """Class names that a data set of the hub stores beside its numbers."""
    told = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    return tuple(told.get("info", {}).get("features", {}).get(label, {}).get("names") or ())
