"""Where the command line's results go: standard output or a file, as text, JSON, HTML or records."""

import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import InputError
from pellucid.registry import choose

if TYPE_CHECKING:
    from pellucid.attribution import Attribution
    from pellucid.encoder.model import Model
    from pellucid.inputs import Item

FORMATS = {"": "text", ".txt": "text", ".html": "html", ".htm": "html", ".json": "json"}
RECORDS = (".parquet", ".jsonl")


def kind_of(format: str | None, out: Path | None) -> str:
    """What is asked for, "records", "text", "json" or "html"; InputError if it is unclear or cannot be written."""
    if format is not None:
        choose("format", format, ["text", "json", "html"])
    if out is None:
        return format or "text"
    check_place(out)
    if out.suffix in RECORDS:
        return "records"
    if format is None and out.suffix not in FORMATS:
        raise InputError(
            f"The ending {out.suffix!r} of --out {out} does not tell what to write: use .html, .json, .jsonl, .parquet "
            "or .txt, or add --format."
        )
    return format or FORMATS[out.suffix]


def check_place(out: Path) -> None:
    """InputError, before any time is spent, for a file that could not be written."""
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; give the name of a file in it.")
    near = next(p for p in out.absolute().parents if p.exists())
    if not near.is_dir():
        raise InputError(f"{out} cannot be written: {near} is a file, not a folder.")
    if not os.access(near, os.W_OK | os.X_OK):
        raise InputError(f"{out} cannot be written: no permission in {near}. Choose another place.")


def deliver(
    items: "Sequence[Item]", found: "Sequence[Attribution]", kind: str, out: Path | None, method: str, single: bool
) -> None:
    """Print the explanations, or write them to `out`, whole or not at all."""
    from pellucid.records import dumps, write_records, write_whole
    from pellucid.render import html_page

    if kind == "records" and out is not None:
        write_records(found, out)
        return
    if kind == "text":
        page = io.StringIO()
        print_texts([item.where for item in items], found, None if out is None else page)
        document = page.getvalue()
    elif kind == "json":
        document = dumps(found[0].to_dict() if single else [a.to_dict() for a in found]) + "\n"
    else:
        lead = f"{len(found)} text{'s' * (len(found) > 1)}, explained with {method}."
        document = html_page(found, lead=lead)
    if out is not None:
        write_whole(out, document.encode())
    else:
        print_utf8(document)


def print_utf8(document: str) -> None:
    """JSON and HTML are UTF-8 whatever the terminal's encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(document)


def print_texts(names: Sequence[str], found: "Sequence[Attribution]", file: io.StringIO | None = None) -> None:
    """Each attribution under the name of its text, if there are several; to standard output by default."""
    from pellucid.render import show

    for i, (name, a) in enumerate(zip(names, found, strict=True)):
        if len(found) > 1:
            print(f"{chr(10) * (i > 0)}{name}", file=file)
        show(a, file=file)


def run_record(
    model: "Model | None", items: "Sequence[Item]", seconds: float, seed: int | None, spent: Mapping[str, Any]
) -> str:
    """run.json: the call, versions, hashes of model and texts, the seed (None: nothing is random), seconds, and
    what the command tells of its own work in `spent`. model: None where a command brings its own."""
    from pellucid.run.origin import provenance, versions

    origin = None if model is None else provenance(model)
    texts = json.dumps([item.text for item in items], ensure_ascii=False)
    record = {
        "call": sys.argv,
        "versions": versions(),
        "model": origin
        and {"id": origin["model"]} | {k: origin[k] for k in ("family", "weights", "parity", "dtype", "device")},
        "data": {"texts": len(items), "sha256": hashlib.sha256(texts.encode()).hexdigest()},
        "seed": seed,
        "seconds": round(seconds, 3),
        **spent,
    }
    return json.dumps(record, indent=2) + "\n"


def print_table(keys: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table with a header; whole cells where the output is no terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*keys, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False, emoji=False).print(table)
