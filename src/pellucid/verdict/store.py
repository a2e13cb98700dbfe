"""A verdict's files: its own, and those of each part, which are kept as they are made."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid._version import __version__
from pellucid.audits.audit import AUDITS, Audit
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.finding import Findings
from pellucid.records import dumps, parquet, read_findings, write_findings, write_whole
from pellucid.run.auditing import data_hash
from pellucid.types import Batch
from pellucid.verdict.verdict import Verdict

COMPARISON = "comparison"  # the folder of the short comparison's own rows


def save(verdict: Verdict, folder: Path, call: Sequence[str] | None = None) -> list[Path]:
    """What `Verdict.save` promises."""
    from pellucid.report import html_page, picture

    _clear(folder, [name for name in (*AUDITS.names(), COMPARISON) if name not in verdict.findings])
    paths = [path for found in verdict.findings.values() for path in write_findings(found, folder)]
    files = {
        "findings.parquet": parquet(tidy(verdict)),
        "report.html": html_page([verdict], call).encode(),
        "verdict.svg": picture(verdict).encode(),
        "verdict.json": (dumps(verdict.to_dict()) + "\n").encode(),
    }
    for name, data in files.items():
        write_whole(folder / name, data)
    return [*paths, *(folder / name for name in files)]


def _clear(folder: Path, names: Sequence[str]) -> None:
    """Remove what an earlier call left of parts that this verdict does not hold: files that their JSON names."""
    for name in names:
        record = folder / f"{name}.json"
        try:
            told = json.loads(record.read_text(encoding="utf-8"))
            beside = [f"{name}_{t}.parquet" for t in told["tables"]] + [f"{name}_{p}.svg" for p in told["pictures"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for path in (record, *(folder / one for one in beside)):
            path.unlink(missing_ok=True)


def tidy(verdict: Verdict) -> list[dict[str, Any]]:
    """One row per finding, with the question that it decides, if any."""
    decides = {(f.audit, f.name, f.where): a.question for a in verdict.answers for f in a.deciding}
    rows = []
    for found in verdict.findings.values():
        for f in found:
            low, high = f.interval or (None, None)
            null_low, null_high = f.null_interval or (None, None)
            rows.append({
                "audit": f.audit, "finding": f.name, "where": f.where, "value": f.value, "low": low, "high": high,
                "unit": f.unit, "null": f.null, "null_low": null_low, "null_high": null_high, "control": f.control,
                "n": f.n, "grade": f.grade, "reading": f.reading,
                "decides": decides.get((f.audit, f.name, f.where), ""),
            })  # fmt: skip
    return rows


@dataclass
class Kept:
    """Parts that are written to a folder as they are done, and read back when a call goes on after it was stopped.

    folder None keeps nothing. say: hears, for a person, what was taken over and what was not, and why.
    """

    folder: Path | None
    resume: bool
    say: Callable[[str], None]

    @classmethod
    def of(cls, out: str | Path | None, resume: bool, say: Callable[[str], None] | None) -> "Kept":
        """For `out` and `resume` of `audit_all`."""
        if resume and out is None:
            raise InputError("resume takes over what `out` holds; give out=FOLDER, or leave resume out.")
        return cls(None if out is None else Path(out), resume, say or (lambda message: None))

    def keep(self, found: Findings) -> None:
        """Write one part."""
        if self.folder is not None:
            write_findings(found, self.folder)

    def findings(self, asked: Audit, model: Model, batch: Batch) -> Findings | None:
        """The findings of this audit on these texts, if the folder holds them; what it holds of others is told."""
        path = None if self.folder is None else self.folder / f"{asked.name}.json"
        if not self.resume or path is None or not path.exists():
            return None
        try:
            saved = read_findings(path)
        except InputError as e:
            self.say(f"{e} So {asked.name} is measured again.")
            return None
        other = differs(saved, asked, model, data_hash(batch))
        if other:
            self.say(f"{path} was made with other {other}, so {asked.name} is measured again.")
            return None
        if sorted(saved.tables) != sorted(json.loads(path.read_text(encoding="utf-8"))["tables"]):
            self.say(f"Tables of {asked.name} are missing in {self.folder}, so it is measured again.")
            return None
        self.say(f"Took {asked.name} over from {path}.")
        return saved

    def comparison(
        self, model: Model, batch: Batch, texts: Sequence[int], names: Sequence[str], seed: int
    ) -> tuple[Path | None, bool]:
        """The folder where `compare` keeps its rows, and whether it holds those of the same call, to be taken over."""
        if self.folder is None:
            return None, False
        own = self.folder / COMPARISON
        mark, rows = own / "asked.json", own / "results.parquet"
        asked = {"data": data_hash(batch), "texts": list(texts), "seed": seed, "pellucid": __version__}
        told = json.dumps(asked | {"weights": model.fingerprint.sha256, "methods": list(names)}).encode()
        if self.resume and mark.is_file() and rows.is_file() and mark.read_bytes() == told:
            self.say(f"Took the rows of the comparison over from {rows}.")
            return own, True
        rows.unlink(missing_ok=True)  # before the mark, so that no mark stands beside another call's rows
        write_whole(mark, told)
        return own, False


def differs(saved: Findings, asked: Audit, model: Model, data: str) -> str:
    """In what saved findings are of something else than what is asked, in words; "" if in nothing."""
    origin: Mapping[str, Any] = {"versions": {}} | saved.origin
    same = {
        "settings": saved.params == json.loads(json.dumps(asked.params())),
        "weights": origin.get("weights") == model.fingerprint.sha256,
        "texts": origin.get("data") == data,
        "version of pellucid": origin["versions"].get("pellucid") == __version__,
    }
    return " and ".join(what for what, equal in same.items() if not equal)
