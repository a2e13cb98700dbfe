"""Files, folders and data sets of the hub as tables, each with the split that it is called."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import InputError, MissingExtra

if TYPE_CHECKING:
    import pyarrow as pa

SPLIT_OF = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
INSTALL = "pip install 'pellucid[train]'"

Named = tuple[str, "pa.Table", str]  # where; the rows; the split as the file is called


def is_path(source: str) -> bool:
    """Whether a source is meant as a file or folder, not as a data set of the hub."""
    return Path(source).exists() or source.endswith(ENDINGS) or source.startswith(("/", ".", "~"))


def tables(path: Path, words: Collection[str]) -> list[Named]:
    """The tables of a file or a folder; columns called `words` are texts, also where they hold "12"."""
    path = path.expanduser()
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.")
    if not path.is_dir():
        if path.suffix not in ENDINGS:
            raise InputError(f"{path} is none of {', '.join(ENDINGS)}; save the texts as one of these.")
        return [(str(path), _table(path, words), "train")]
    files = sorted(p for p in path.iterdir() if p.suffix in ENDINGS)
    if not files:
        raise InputError(f"The folder {path} holds no {', '.join(ENDINGS)} files; name one that does.")
    stems = Counter(SPLIT_OF.get(p.stem, p.stem) for p in files)
    for stem, count in stems.items():
        if count > 1:
            raise InputError(f"The folder {path} holds {count} files for {stem}; leave one, so that none counts twice.")
    return [(str(p), _table(p, words), p.stem) for p in files]


def _table(path: Path, words: Collection[str]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            return pa.parquet.read_table(path)
        if not path.stat().st_size:
            raise InputError(f"{path} is empty: there is nothing to read.")
        if path.suffix == ".jsonl":
            return pa.json.read_json(path, pa.json.ReadOptions(block_size=path.stat().st_size + 1))
        as_texts = pa.csv.ConvertOptions(column_types={name: pa.string() for name in words})
        parsed = pa.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True)
        return pa.csv.read_csv(path, parse_options=parsed, convert_options=as_texts)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path} cannot be read: {(str(e).splitlines() or [''])[0][:200]}.{_hint(path)}") from e


def _hint(path: Path) -> str:
    """What is the matter with a file that no parser takes, as far as its beginning tells."""
    if path.suffix == ".parquet":
        return ""
    start = path.read_bytes()[:100_000]
    if b"\0" in start:
        return " It holds zero bytes: it is binary, or text in UTF-16; save it as UTF-8 text."
    try:
        start[: start.rfind(b"\n") + 1].decode("utf-8-sig")
    except UnicodeDecodeError:
        return " It is not UTF-8 text; save it as UTF-8."
    head = start.split(b"\n", 1)[0]
    if path.suffix == ".csv" and b"," not in head and (b";" in head or b"\t" in head):
        return " Its columns seem to be parted by ';' or tabs; part them by commas, or call it .tsv if they are tabs."
    return " Quote cells that hold commas or quotes, and give every row as many cells as the header."


def hub(source: str) -> list[Named]:
    """The splits of a data set of the Hugging Face hub."""
    try:
        import datasets
    except ImportError as e:
        raise MissingExtra(f"{source} is no file here, and reading from the hub needs `datasets`: {INSTALL}.") from e
    name, _, configuration = source.partition(":")
    try:
        found = datasets.load_dataset(name, configuration or None)
    except Exception as e:  # the hub, the network and the data set's own files fail in ways of their own
        said = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{source} is no file here and could not be read from the Hugging Face hub: {said}") from e
    return [(f"{source} ({split})", part.with_format("arrow")[:], split) for split, part in found.items()]
