"""One cell of a study: trained, audited, and told as tidy rows."""

import hashlib
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pellucid.data import Corpus, spread
from pellucid.encoder.load import load
from pellucid.encoder.model import Model
from pellucid.errors import PellucidError
from pellucid.finding import Finding, Findings
from pellucid.records import parquet, read_findings, write_whole
from pellucid.run import audit
from pellucid.study.plan import CONTROL, AuditOf, Cell
from pellucid.train import Card, Score, control, train
from pellucid.train.fit import undisturbed

Say = Callable[[str], None]
Row = dict[str, Any]
ROWS, DONE = "rows.parquet", "cell.json"


def measure(cell: Cell, folder: Path, say: Say, bar: bool = False) -> list[str]:
    """Train and audit one cell into its folder; the sentences of audits that failed.

    cell.json holds the settings from the start and, in the end, the audits that are done; rows.parquet the numbers.
    """
    corpus = cell.config.data.read()
    begun = {"config": cell.config.to_dict(), "data": corpus.sha256, "audits": None}
    if not (folder / DONE).exists():
        write_whole(folder / DONE, (json.dumps(begun, indent=2) + "\n").encode())
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    if cell.model == CONTROL:
        rows = [of_score(one) for one in control(corpus, cell.seed)]
    else:
        rows = of_card(train(cell.config, folder, say, bar, begin=cell.after and folder.parent / cell.after))
        found, done, failed = _audited(cell, corpus, folder, say)
        rows += found
    head = {"study": cell.study, "data": cell.data, "model": cell.model, "seed": cell.seed}
    write_whole(folder / ROWS, parquet([head | row for row in rows]))
    write_whole(folder / DONE, (json.dumps(begun | {"audits": done}, indent=2) + "\n").encode())
    return failed


def _audited(cell: Cell, corpus: Corpus, folder: Path, say: Say) -> tuple[list[Row], list[dict[str, Any]], list[str]]:
    """Rows, what was done, what failed. An audit that cannot be asked of this model leaves the others alone."""
    rows: list[Row] = []
    done: list[dict[str, Any]] = []
    failed: list[str] = []
    if not cell.audits:
        return rows, done, failed
    with undisturbed():
        model = load(folder)
    for asked in cell.audits:
        try:
            split, found = _findings(model, asked, corpus, cell.config.data.max_tokens, folder)
        except Exception as e:
            failed.append(f"The audit {asked.label!r} failed: {said(e, folder)}")
            continue
        rows += [of_finding(asked.label, split, one) for one in found]
        done.append(asked.to_dict())
        say(f"Audit {asked.label}: {len(found)} findings, {found.origin['seconds']:.1f} s.")
    return rows, done, failed


def _findings(
    model: Model, asked: AuditOf, corpus: Corpus, max_tokens: int | None, folder: Path
) -> tuple[str, Findings]:
    """The findings and the split that they are on; taken over if the folder holds them of these weights."""
    name, split = ("test", corpus.test) if len(corpus.test) else ("dev", corpus.dev)
    texts = split.take(spread(split.classes, asked.texts, seed=0)).texts
    print_of = hashlib.sha256(json.dumps(asked.to_dict(), sort_keys=True).encode()).hexdigest()[:8]
    place = folder / "audits" / f"{asked.audit.name}-{print_of}"
    kept = place / f"{asked.audit.name}.json"
    if kept.exists() and (saved := read_findings(kept)).origin.get("weights") == model.fingerprint.sha256:
        return name, saved
    found = audit(model, list(texts), asked.audit, max_tokens)
    found.save(place)
    return name, found


def said(e: Exception, folder: Path) -> str:
    """An error as one sentence; what is unexpected leaves its traceback in the folder."""
    if isinstance(e, PellucidError):
        return str(e)
    path = folder / "traceback.txt"
    write_whole(path, "".join(traceback.format_exception(e)).encode())
    return f"Unexpected {type(e).__name__}: {(str(e).splitlines() or [''])[0]} (see {path})."


def of_card(card: Card) -> list[Row]:
    """Scores and costs of a trained model."""
    costs = {
        "seconds": card.seconds,
        "epochs": len(card.epochs),
        "best_epoch": card.best_epoch,
        "parameters": card.parameters["all"],
    }
    return [of_score(one) for one in card.scores] + [_row(name, value) for name, value in costs.items()]


def of_score(one: Score) -> Row:
    """Its control is the most frequent class."""
    low, high = one.interval
    return _row(one.name, one.value, split=one.split, low=low, high=high, null=one.null, n=one.n)


def of_finding(label: str, split: str, one: Finding) -> Row:
    """Its control is the audit's own."""
    low, high = one.interval or (None, None)
    return _row(
        one.name,
        one.value,
        audit=label,
        split=split,
        where=one.where,
        low=low,
        high=high,
        null=one.null,
        n=one.n,
        grade=one.grade,
        unit=one.unit,
    )


def _row(quantity: str, value: float | None, **rest: Any) -> Row:
    """One tidy row; every row has every column."""
    blank: Row = dict.fromkeys(("audit", "split", "where", "low", "high", "null", "n", "grade", "unit"))
    number = None if value is None else float(value)
    return {"quantity": quantity, "value": number} | blank | rest
