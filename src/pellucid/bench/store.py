"""The folder of a comparison: results.parquet knows the settings that made it, so that a broken-off run can go on."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.bench.comparison import Comparison, Row
from pellucid.errors import InputError
from pellucid.records import dumps, write_whole

RESULTS = "results.parquet"
_COLUMNS = {
    "text": "int64",
    "tokens": "int64",
    "method": "string",
    "metric": "string",
    "value": "float64",
    "forwards": "float64",
    "backwards": "float64",
    "seconds": "float64",
    "error": "string",
}
_KEY = b"pellucid"
PASSING = ("device", "parity", "model", "metrics")
"""Settings that may differ between a run and the one that goes on: where the same weights lie, and what is asked."""


def save(made: Comparison, folder: Path) -> list[Path]:
    """Write the table in all its forms, the rows and the figures; each file whole or not at all."""
    from pellucid.bench.page import svg

    write_rows(folder, made.rows, made.settings)
    files = {
        "table.md": made.to_markdown().encode(),
        "table.html": made.to_html().encode(),
        "faithfulness_over_cost.svg": svg(made.figure()),
        "table.json": (dumps(made.to_dict()) + "\n").encode(),
    }
    for name, data in files.items():
        write_whole(folder / name, data)
    return [folder / name for name in (RESULTS, *files)]


def write_rows(folder: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """results.parquet, one row per text x method x metric, with the settings in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in _COLUMNS.items()])
    table = pa.table({name: [row[name] for row in rows] for name in _COLUMNS}, schema=schema)
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_KEY: json.dumps(settings).encode()}), sink)
    write_whole(folder / RESULTS, sink.getvalue())


def read_rows(folder: Path, settings: Mapping[str, Any]) -> tuple[list[Row], str | None]:
    """The rows of an earlier run with the same settings; or none, and what is different, in words.

    Raises: InputError if the folder's results.parquet is no file of ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / RESULTS
    if not path.exists():
        return [], None
    try:
        table = pq.read_table(path)
        told = json.loads((table.schema.metadata or {})[_KEY])
        rows = table.select(list(_COLUMNS)).to_pylist()
    except (OSError, pa.ArrowException, KeyError, ValueError) as e:
        raise InputError(f"{path} is no result of `pellucid bench` ({e}); move it away, or leave --resume out.") from e
    want = json.loads(json.dumps(settings))
    other = [name for name in want if name not in PASSING and want[name] != told.get(name)]
    return (rows, None) if not other else ([], " and ".join(other))
