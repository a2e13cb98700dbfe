"""What the command line is given: texts with the place each came from, a method's parameters, a target."""

import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO, Literal

from pellucid.encoder.model import Model
from pellucid.encoder.model import columns as tokenizer_columns
from pellucid.errors import InputError
from pellucid.registry import choose
from pellucid.types import TargetSpec, Text


@dataclass(frozen=True)
class Item:
    """One text. `where` begins a sentence about it ("Line 3 of reviews.csv"); `label` and `rationale` are the cells of
    --label-column and --rationale-column."""

    text: Text
    where: str
    label: object = None
    rationale: object = None


@dataclass(frozen=True)
class Columns:
    """Which columns hold the text, the second text of a pair, the true class, and what people marked; None where not
    asked for."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    rationale: str | None = None


OPTIONAL = tuple(f.name for f in fields(Columns))
Row = tuple[str, Mapping[str, object]]  # where, and the cells by column
Table = tuple[list[str], Callable[[list[str]], Iterable[Row]]]  # all columns, and the rows with some of them
Say = Callable[[str], None]


def from_arguments(texts: Sequence[str]) -> list[Item]:
    """The texts of the call itself."""
    named = [("The text" if len(texts) == 1 else f"Text {i}", text) for i, text in enumerate(texts, 1)]
    return [_item(where, {"text": text}, Columns("text")) for where, text in named]


def from_file(source: str, columns: Columns, limit: int | None, say: Say) -> list[Item]:
    """The first `limit` texts of a file, or of standard input for "-"; `say` hears of what was passed over.

    Raises: InputError, with the line or row, for a file or text that cannot be used.
    """
    path = Path(source)
    lines = source == "-" or path.suffix == ".txt"
    if lines:
        given = [f"--{n}-column" for n in OPTIONAL if getattr(columns, n) is not None]
        if given:
            raise InputError(f"{given[0]} needs a file with columns (.csv .tsv .jsonl .parquet); {source!r} is lines.")
        return _lines(source, limit, say)
    if path.suffix not in TABLES:
        _open(path).close()
        raise InputError(
            f"The ending {path.suffix!r} of {source} does not tell how to read it: use .txt, {', '.join(TABLES)}, or "
            "pipe lines of text to --input -."
        )
    names, read = TABLES[path.suffix](path, say)
    chosen = _chosen(columns, names, source)
    used = [c for c in map(chosen.__getattribute__, OPTIONAL) if c is not None]
    items: list[Item] = []
    for where, cells in read(used):
        if limit is not None and len(items) >= limit:
            break
        items.append(_item(where, cells, chosen))
    if not items:
        raise InputError(f"{source} holds no rows: there is nothing to read.")
    return items


def _item(where: str, cells: Mapping[str, object], columns: Columns) -> Item:
    parts = [_cell(where, cells, c) for c in (columns.text, columns.pair) if c is not None]
    if not any(part.strip() for part in parts):
        raise InputError(f"{where} holds nothing to read: its text is empty. Leave it out.")
    for part in parts:
        try:
            part.encode()
        except UnicodeEncodeError as e:
            raise InputError(f"{where} is not valid Unicode (at character {e.start + 1}); correct it.") from None
    others = [None if c is None else cells.get(c) for c in (columns.label, columns.rationale)]
    return Item(parts[0] if len(parts) == 1 else (parts[0], parts[1]), where, *others)


def _cell(where: str, cells: Mapping[str, object], column: str) -> str:
    value = cells.get(column)
    if isinstance(value, str):
        return value
    if column not in cells:
        raise InputError(f"{where} has no {column!r}; it has {_listed(list(cells))}. Add it or leave the row out.")
    if value is None:
        raise InputError(f"{where} has no text: {column!r} is missing. Leave the row out.")
    raise InputError(f"{where} has {value!r} ({type(value).__name__}) as {column!r}, which is not a text.")


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _chosen(columns: Columns, names: list[str], source: str) -> Columns:
    """The columns to read, the text column found by its usual names; InputError for one that is not there."""
    text = columns.text
    if text is None:
        text = "sentence" if "sentence" in names and "text" not in names else "text"
    chosen = replace(columns, text=text)
    for option in OPTIONAL:
        name = getattr(chosen, option)
        if name is None:
            continue
        if name not in names:
            asked = f"--{option}-column {name}" if getattr(columns, option) else f"no --{option}-column, so {name!r}"
            raise InputError(
                f"{source} has no column {name!r} ({asked} was asked for); its columns are {_listed(names)}. Name one "
                f"of them with --{option}-column."
            )
        if names.count(name) > 1:
            raise InputError(f"{source} has {names.count(name)} columns called {name!r}; rename all but one.")
    return chosen


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give a file.") from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}.") from e


def _text_of(source: str) -> str:
    """A whole file, or standard input for "-", as text."""
    if source == "-":
        data = sys.stdin.buffer.read()
    else:
        with _open(Path(source)) as f:
            data = f.read()
    name = _name(source)
    if not data.strip():
        raise InputError(f"{name} is empty: there is nothing to read.")
    if b"\0" in data:
        raise InputError(f"{name} holds zero bytes: it is binary, or text in UTF-16. Save it as UTF-8 text.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        raise InputError(
            f"{name} is not UTF-8 text (byte 0x{data[e.start]:02x} in line {line}); save it as UTF-8."
        ) from None


def _name(source: str) -> str:
    return "Standard input" if source == "-" else source


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """Lines as an editor counts them, without their ends."""
    return ((i, line.rstrip("\n")) for i, line in enumerate(io.StringIO(text, newline=None), 1))


def _lines(source: str, limit: int | None, say: Say) -> list[Item]:
    of = "standard input" if source == "-" else source
    items: list[Item] = []
    blank = 0
    for i, line in _numbered(_text_of(source)):
        if limit is not None and len(items) >= limit:
            break
        if line.strip():
            items.append(_item(f"Line {i} of {of}", {"text": line}, Columns("text")))
        else:
            blank += 1
    if blank:
        say(f"Passed over {blank} blank line{'s' * (blank > 1)} of {of}.")
    return items


def _csv(path: Path, say: Say) -> Table:
    return _cells(_text_of(str(path)), path, ",", csv.QUOTE_MINIMAL)


def _tsv(path: Path, say: Say) -> Table:
    """With quoted cells if the file is sound that way; otherwise quotes are ordinary characters, as in GLUE."""
    text = _text_of(str(path))
    try:
        return _cells(text, path, "\t", csv.QUOTE_MINIMAL)
    except InputError:
        table = _cells(text, path, "\t", csv.QUOTE_NONE)
        say(f"{path} has quotes that do not wrap whole cells, so all of its quotes are read as part of the texts.")
        return table


def _cells(text: str, path: Path, delimiter: str, quoting: Literal[0, 3]) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] = []
    rows: list[Row] = []
    line = 1
    try:
        for cells in reader:
            where, line = f"Line {line} of {path}", reader.line_num + 1
            if not header:
                header = cells
            elif cells and len(cells) != len(header):
                raise InputError(
                    f"{where} has {len(cells)} cells, but the first line names {len(header)} columns "
                    f"({_listed(header)}). A text that holds {delimiter!r} or a line break must stand in double quotes."
                )
            elif cells:
                rows.append((where, dict(zip(header, cells, strict=True))))
    except csv.Error as e:
        raise InputError(
            f"The row that begins in line {line} of {path} cannot be read ({e}): is a quote open, or not doubled?"
        ) from None
    return header, lambda used: rows


def _jsonl(path: Path, say: Say) -> Table:
    rows: list[Row] = []
    for i, line in _numbered(_text_of(str(path))):
        if not line.strip():
            continue
        where = f"Line {i} of {path}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise InputError(f"{where} is not JSON ({e}); each line must hold one object.") from None
        if not isinstance(value, dict):
            raise InputError(f"{where} is a JSON {type(value).__name__}; each line must hold one object, like {{...}}.")
        rows.append((where, value))
    return list(rows[0][1]), lambda used: rows


def _parquet(path: Path, say: Say) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def broken(e: Exception) -> InputError:
        return InputError(f"{path} is not a Parquet file that can be read: {(str(e).splitlines() or [''])[0]}")

    try:
        file = pq.ParquetFile(_open(path))
        names = list(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as e:
        raise broken(e) from e

    def rows(used: list[str]) -> Iterator[Row]:
        i = 0
        try:
            for batch in file.iter_batches(batch_size=1024, columns=used):
                for cells in batch.to_pylist():
                    i += 1
                    yield f"Row {i} of {path}", cells
        except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
            raise broken(e) from e

    return names, rows


TABLES: dict[str, Callable[[Path, Say], Table]] = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}


def check_tokens(model: Model, items: Sequence[Item], fix: str | None) -> None:
    """Refuse, by line, a text that the tokenizer leaves empty or that is too long, before anything is computed.

    fix: a sentence on what to do about texts over the model's limit; None where they are dealt with later.
    """
    tokenize = model.require_tokenizer()
    over: list[tuple[Item, int]] = []
    for i in range(0, len(items), 512):
        part = items[i : i + 512]
        texts = tokenizer_columns([item.text for item in part])
        encoded = tokenize(*texts, return_special_tokens_mask=True, verbose=False)
        for item, special in zip(part, encoded["special_tokens_mask"], strict=True):
            if all(special):
                raise InputError(
                    f"{item.where} ({item.text!r}) holds no tokens: the model has nothing to read. Leave it out."
                )
            if model.limit is not None and len(special) > model.limit:
                over.append((item, len(special)))
    if over and fix is not None:
        more = "" if len(over) == 1 else f" ({len(over)} of {len(items)} texts are too long)"
        raise InputError(
            f"{over[0][0].where} has {over[0][1]} tokens; {model.id!r} reads at most {model.limit}{more}. {fix}"
        )


def target_of(asked: str | None, labels: Sequence[str], items: Sequence[Item]) -> TargetSpec | list[TargetSpec]:
    """The target for `explain`: for "gold" one class per text, otherwise the same for all.

    A label's own name comes before the words predicted, all and gold, and before the comma of a contrast.
    """
    if asked is None or asked in labels:
        return asked
    if asked in ("predicted", "all"):
        return None if asked == "predicted" else asked
    if asked == "gold":
        return [gold_of(item, labels) for item in items]
    splits = [(asked[:i].strip(), asked[i + 1 :].strip()) for i, c in enumerate(asked) if c == ","]
    known = [s for s in splits if all(part in labels or _whole(part) is not None for part in s)]
    if known or splits:
        a, b = (known or splits)[0]
        return _class(a, labels), _class(b, labels)
    return _class(asked, labels)


def _whole(x: object) -> int | None:
    """x as a whole number, if it is one: 1, 1.0, "1"."""
    if isinstance(x, str):
        try:
            return int(x)
        except ValueError:
            return None
    return int(x) if isinstance(x, (int, float)) and not isinstance(x, bool) and x == x // 1 else None


def _class(name: str, labels: Sequence[str]) -> int | str:
    number = _whole(name)
    if number is None or name in labels:
        return choose("label", name, list(labels))
    if not 0 <= number < len(labels):
        raise InputError(f"There is no class {number}; the model has 0 to {len(labels) - 1}: {', '.join(labels)}.")
    return number


def gold_of(item: Item, labels: Sequence[str]) -> int | str:
    """The true class of an item; InputError, with the place, for one that is none of the model's."""
    if isinstance(item.label, str) and item.label in labels:
        return item.label
    number = _whole(item.label)
    if number is not None and 0 <= number < max(2, len(labels)):  # a one-logit head decides between 0 and 1
        return number
    names = ", ".join(f"{i} {name}" for i, name in enumerate(labels))
    raise InputError(f"{item.where} has the label {item.label!r}, which is no class of this model ({names}).")


def spans_of(item: Item) -> list[tuple[int, ...]]:
    """What people marked in an item: spans (start, end) or (start, end, sequence) in characters.

    The cell holds such spans, or as many 0 and 1 as its text has words between spaces; in files without lists, as JSON.
    Raises: InputError, with the place, for anything else.
    """
    given = item.rationale
    if isinstance(given, str):
        with contextlib.suppress(ValueError):
            given = json.loads(given)
    text = item.text if isinstance(item.text, str) else item.text[0]
    words = [match.span() for match in re.finditer(r"\S+", text)]
    if isinstance(given, list):
        if given and all(isinstance(x, (int, bool)) and x in (0, 1) for x in given) and len(given) == len(words):
            return [word for word, marked in zip(words, given, strict=True) if marked]
        if all(isinstance(x, list) and len(x) in (2, 3) and all(type(i) is int for i in x) for x in given):
            return [tuple(x) for x in given]
    raise InputError(
        f"{item.where} has the rationale {str(given)[:80]!r}, which is neither [[start, end], ...] in characters nor "
        f"{len(words)} times 0 or 1, one for each word between spaces."
    )
