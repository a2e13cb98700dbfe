"""The verdict of `pellucid audit`: one model or two on the same texts, printed, written, and held to --fail-on."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pellucid.cli.given import located, opened, say
from pellucid.errors import InputError
from pellucid.outputs import print_utf8, run_record
from pellucid.registry import choose

if TYPE_CHECKING:
    from pellucid.encoder.model import Model
    from pellucid.inputs import Item
    from pellucid.verdict import Verdict

BUDGET = "5m"


@dataclass(frozen=True)
class Ask:
    """What the command was asked, but for the texts."""

    models: Sequence[str]
    budget: str | None
    fail_on: Sequence[str]
    seed: int
    max_tokens: int | None
    format: str
    out: Path | None
    resume: bool
    device: str | None
    start: float

    def check(self, setting: Sequence[str]) -> None:
        """InputError, before anything is opened, for what cannot be asked of a verdict."""
        from pellucid.settings import seconds_of
        from pellucid.verdict.judging import every_grade

        seconds_of(self.budget)
        if setting:
            raise InputError("--setting is about one audit: name it, and it alone, with --only.")
        if len(self.models) > 2:
            raise InputError(f"One model, or two to set side by side; seen {len(self.models)} times --model.")
        for grade in self.fail_on:
            choose("grade", grade, every_grade())

    def refuse_with_only(self) -> None:
        """InputError for options that are about the verdict, which --only does without."""
        given = {"--budget": self.budget, "--fail-on": self.fail_on, "a second --model": self.models[1:]}
        for name, value in given.items():
            if value:
                raise InputError(f"--only asks for single audits, without a verdict; leave out {name}, or --only.")

    def ready(self, model: "Model", items: "Sequence[Item]", notes: Sequence[str]) -> None:
        """Refuse texts that the model cannot read; then say the notes, so that a refusal stands alone."""
        from pellucid.inputs import check_tokens

        short = self.max_tokens is None
        check_tokens(model, items, f"Add --max-tokens {model.limit} to cut longer texts off there." if short else None)
        for note in notes:
            say(note)

    def run(self, items: "Sequence[Item]", labelled: bool, notes: Sequence[str]) -> None:
        """The verdict or verdicts."""
        from pellucid.records import dumps

        names: Sequence[str | None] = self.models or [None]
        opened_ = [opened(name, self.device) for name in names]
        for model in opened_:
            self.ready(model, items, notes if model is opened_[-1] else [])
        found = []
        for i, model in enumerate(opened_):
            folder = self.out if self.out is None or len(opened_) == 1 else self.out / f"model-{i + 1}"
            made = self._one(model, items, labelled, i, len(opened_), folder)
            found.append(made)
            if self.format == "text":
                print("\n" * (i > 0), end="")
                made.show()
                sys.stdout.flush()
        if self.format == "json":
            print_utf8(dumps(found[0].to_dict() if len(found) == 1 else _pair(found)) + "\n")
        if self.out is not None:
            self._write(found, opened_, items)
        self._judge(found)

    def _one(
        self, model: "Model", items: "Sequence[Item]", labelled: bool, i: int, of: int, folder: Path | None
    ) -> "Verdict":
        from pellucid.inputs import gold_of
        from pellucid.settings import seconds_of
        from pellucid.verdict import audit_all

        labels = [gold_of(item, model.labels) for item in items] if labelled else None
        seconds = (seconds_of(self.budget or BUDGET) or 0.0) / of
        begun = self.start if i == 0 else time.perf_counter()
        try:
            return audit_all(
                model, [item.text for item in items], seconds, labels, self.max_tokens, self.seed, progress=True,
                out=folder, resume=self.resume, begun=begun, say=say,
            )  # fmt: skip
        except InputError as e:
            raise type(e)(located(str(e), items)) from e
        except KeyboardInterrupt:
            if folder is not None and folder.is_dir():
                say(f"What was done so far is in {folder}; the same command with --resume goes on.")
            raise

    def _write(self, found: "Sequence[Verdict]", models: "Sequence[Model]", items: "Sequence[Item]") -> None:
        """All files of each verdict; of two, a report and a verdict.json about both beside their folders."""
        from pellucid.records import dumps, write_whole
        from pellucid.report import html_page

        assert self.out is not None
        call = ["pellucid", *sys.argv[1:]]
        for i, (made, model) in enumerate(zip(found, models, strict=True)):
            folder = self.out if len(found) == 1 else self.out / f"model-{i + 1}"
            made.save(folder, call)
            self._record(folder, made, model, items)
        if len(found) > 1:
            write_whole(self.out / "report.html", html_page(found, call).encode())
            write_whole(self.out / "verdict.json", (dumps(_pair(found)) + "\n").encode())
            self._record(self.out, found[0], models[0], items)
        took = time.perf_counter() - self.start
        say(f"Wrote {self.out} in {took:.1f} s; open {self.out / 'report.html'} in a browser.")

    def _record(self, folder: Path, made: "Verdict", model: "Model", items: "Sequence[Item]") -> None:
        from pellucid.records import write_whole

        spent = {
            "budget": self.budget or BUDGET,
            "grade": made.grade,
            "parts": {k: round(v, 3) for k, v in made.spent["parts"].items()},
            "sample": [vars(s) for s in made.sample],
            "forwards": made.spent["forwards"],
            "forwards_counted_in": made.spent["forwards_counted_in"],
        }
        record = run_record(model, items, time.perf_counter() - self.start, self.seed, spent)
        write_whole(folder / "run.json", record.encode())

    def _judge(self, found: "Sequence[Verdict]") -> None:
        """Status 1 where a grade of --fail-on is reached, or could not be told."""
        from pellucid.verdict.judging import failing

        failed = False
        for made in found:
            for grade in self.fail_on:
                why = failing(grade, made.answers, made.grade)
                if why is not None:
                    say(f"pellucid: failed on {grade!r}: {made.about['model']}: {why}.")
                    failed = True
        if failed:
            raise typer.Exit(1)


def _pair(found: "Sequence[Verdict]") -> dict[str, object]:
    """Two verdicts as one document: each whole under "models", and question by question what both say."""
    return {
        "sentence": " ".join(f"{v.about['model']}: {v.sentence}" for v in found),
        "grades": {q: [v.grades[q] for v in found] for q in found[0].grades},
        "findings": [{"model": v.about["model"], **f.to_dict()} for v in found for x in v.findings.values() for f in x],
        "limits": list(dict.fromkeys(limit for v in found for limit in v.limits)),
        "models": [v.to_dict() for v in found],
    }
