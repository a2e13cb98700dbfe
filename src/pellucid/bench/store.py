"""The folder of a comparison: results.parquet knows the settings that made it, so that a broken-off run can go on."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    "digest": "string",
}
_KEY = b"pellucid"
SAME = ("weights", "dtype", "access", "seed")
"""Settings that a run must share with one that goes on from its rows; methods are compared one by one."""


@dataclass(frozen=True)
class Stored:
    """Rows of an earlier run that still hold, and the settings of the methods that made them."""

    rows: list[Row]
    methods: dict[str, Any]

    def split(self, labels: Sequence[str], metrics: Sequence[str]) -> tuple[list[Row], list[Row]]:
        """The rows that are asked for, of texts and methods that have all metrics and did not fail; and those of other
        methods and metrics, which are to stay in the file."""
        asked = [r for r in self.rows if r["method"] in labels and r["metric"] in metrics]
        per: dict[tuple[int, str], set[str]] = {}
        for r in asked:
            if not r["error"]:
                per.setdefault((r["text"], r["method"]), set()).add(r["metric"])
        whole = {key for key, found in per.items() if found == set(metrics)}
        other = [r for r in self.rows if r["method"] not in labels or r["metric"] not in metrics]
        return [r for r in asked if (r["text"], r["method"]) in whole], other


def save(
    made: Comparison, folder: Path, more: Sequence[Row] = (), settings: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write the table in all its forms, the rows and the figure; each file whole or not at all.

    more: rows of other methods that are to stay in the file; settings: of these too, by default the comparison's own.
    """
    from pellucid.bench.page import svg

    write_rows(folder, [*made.rows, *more], made.settings if settings is None else settings)
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


def read_rows(folder: Path, settings: Mapping[str, Any], digests: Sequence[str]) -> Stored:
    """What the folder holds of these texts, by methods of the same settings.

    Raises: InputError, so that nothing is overwritten, if results.parquet is no file of ours, or was made of another
    model, seed or version, or of other texts altogether.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / RESULTS
    if not path.exists():
        return Stored([], {})
    try:
        table = pq.read_table(path)
        told = json.loads((table.schema.metadata or {})[_KEY])
        rows = table.select(list(_COLUMNS)).to_pylist()
    except (OSError, pa.ArrowException, KeyError, ValueError) as e:
        raise InputError(f"{path} is no result of `pellucid bench` ({e}); move it away, or leave --resume out.") from e
    want = json.loads(json.dumps(settings))
    other = [name for name in SAME if want[name] != told.get(name)]
    if want["versions"]["pellucid"] != told.get("versions", {}).get("pellucid"):
        other.append("version of pellucid")
    mine = [r for r in rows if r["text"] < len(digests) and r["digest"] == digests[r["text"]]]
    if rows and not mine:
        other.append("texts")
    if other:
        raise InputError(
            f"{path} was made with other {' and '.join(other)}; choose another folder, or leave --resume out to begin "
            "anew."
        )
    methods = {label: m for label, m in told["methods"].items() if want["methods"].get(label, m) == m}
    return Stored([r for r in mine if r["method"] in methods], methods)
