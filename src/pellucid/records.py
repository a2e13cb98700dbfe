"""Files of attributions and findings: JSON, JSON lines and Parquet, each written whole or not at all."""

import io
import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.attribution import Attribution
from pellucid.errors import InputError
from pellucid.finding import Findings, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NESTED = ("text", "scores", "unallocated", "explained", "gap", "target", "params", "spans", "origin")


def write_whole(path: str | Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, then rename; parents are made, an error leaves nothing behind."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as e:
        raise InputError(f"{path} cannot be written: {e.strerror}. Choose another place.") from e
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except OSError as e:
        Path(name).unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {e.strerror}. Choose another place.") from e
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def dumps(document: object) -> str:
    """JSON with every number exact; InputError for a NaN or an infinity, which JSON cannot hold."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a character: written as an escape
        return json.dumps(document, allow_nan=False)
    except ValueError as e:
        raise InputError("The result holds a NaN or an infinite number, so it is not written.") from e
    return text


def write_records(items: Sequence[Attribution], path: str | Path) -> None:
    """Write attributions by suffix: .parquet (one row per text), .jsonl (one line per text), otherwise JSON.

    JSON holds the record itself for a single attribution and a list otherwise.
    """
    path, records = Path(path), [a.to_dict() for a in items]
    if path.suffix == ".parquet":
        write_whole(path, _parquet(records))
    elif path.suffix == ".jsonl":
        write_whole(path, "".join(dumps(r) + "\n" for r in records).encode())
    else:
        write_whole(path, (dumps(records[0] if len(records) == 1 else records) + "\n").encode())


def read_records(path: str | Path) -> list[Attribution]:
    """Read any file that `write_records` wrote; InputError if it is something else."""
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = pq.read_table(path).to_pylist()
            records = [{k: json.loads(v) if k in _NESTED else v for k, v in row.items()} for row in rows]
        elif path.suffix == ".jsonl":
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        else:
            document = json.loads(path.read_text(encoding="utf-8"))
            records = document if isinstance(document, list) else [document]
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (ValueError, OSError, TypeError) as e:
        raise InputError(f"{path} does not hold saved attributions: {str(e).splitlines()[0]}") from e
    return [Attribution.from_dict(r) for r in records]


def _parquet(records: list[dict[str, Any]]) -> bytes:
    """Columns as in `to_dict`; what has no fixed shape over texts (scores of one class or all) is JSON text.

    `token_scores` repeats the scores of single-target rows as a list column, for engines that read no JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {k: [] for k in records[0]} if records else {}
    for r in records:
        for k, v in r.items():
            columns[k].append(dumps(v) if k in _NESTED else v)
    if records:
        flat = [r["scores"] if r["scores"] and not isinstance(r["scores"][0], list) else None for r in records]
        columns["token_scores"] = flat
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Tidy rows as a Parquet file; a row without one of the columns holds null there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = list(dict.fromkeys(key for row in rows for key in row))  # pyarrow would take those of the first row alone
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in columns}), sink)
    return bytes(sink.getvalue())


def figure_svg(figure: "Figure") -> bytes:
    """A figure as SVG: the same bytes for the same figure; text stays text, so that any script can be shown."""
    import matplotlib as mpl

    from pellucid.render.charts import SAVED

    page = io.BytesIO()
    with mpl.rc_context(SAVED), warnings.catch_warnings():
        # it is the reader's fonts that draw the text, not matplotlib's
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue()


def write_findings(found: Findings, folder: Path) -> list[Path]:
    """Findings as <audit>.json, their tables as <audit>_<table>.parquet, their pictures as <audit>_<picture>.svg, their
    files as <audit>_<file>.

    The JSON names the others and is written last, so that where it is, everything is.
    """
    files = {f"{found.audit}_{name}": data for name, data in found.files.items()}
    files |= {f"{found.audit}_{name}.parquet": parquet(rows) for name, rows in found.tables.items()}
    files |= {f"{found.audit}_{name}.svg": found.svg(name) for name in found.pictures}
    files[f"{found.audit}.json"] = (dumps(found.to_dict()) + "\n").encode()
    (folder / f"{found.audit}.json").unlink(missing_ok=True)
    for name, data in files.items():
        write_whole(folder / name, data)
    return [folder / name for name in files]


def _beside(folder: Path, record: Mapping[str, Any], audit: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables and pictures that a record of findings names; those that are no longer there are left out."""
    import pyarrow.parquet as pq

    tables = {name: folder / f"{audit}_{name}.parquet" for name in record.get("tables", ())}
    pictures = {name: folder / f"{audit}_{name}.svg" for name in record.get("pictures", ())}
    return (
        {name: pq.read_table(path).to_pylist() for name, path in tables.items() if path.is_file()},
        {name: Picture.of(path.read_bytes()) for name, path in pictures.items() if path.is_file()},
    )


def read_findings(path: str | Path) -> Findings:
    """Read what `write_findings` wrote: the JSON, and the tables and pictures that it names and that are still there.
    InputError if it is something else."""
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = Findings.from_dict(record)
        beside = _beside(path.parent, record, found.audit)
        return Findings(found, found.audit, *beside, params=found.params, origin=found.origin)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except InputError as e:
        raise InputError(f"{path} cannot be read. {e}") from e
    except (ValueError, OSError, RecursionError) as e:
        raise InputError(f"{path} does not hold saved findings: {(str(e).splitlines() or [''])[0]}") from e
