"""`pellucid train` and `pellucid study`: models of one's own, one or many."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.given import say
from pellucid.errors import InputError
from pellucid.outputs import check_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.study import Study


def train(
    out: options.ModelFolder,
    config: options.ConfigFile = None,
    set: options.SetKeys = None,
    seed: options.TrainingSeed = None,
) -> None:
    """Train a classifier on labelled texts.

    Repeat a call that was broken off to go on from its last epoch. Settings come from the tables data, tokenizer, model
    and training of a TOML file, from --set, or from both.

    Examples:

        pellucid train --config reviews.toml --out my-model

        pellucid train --set data.source=reviews.csv --set model.type=attention --out my-model
    """
    start = time.perf_counter()
    check_place(out / "run.json")
    if config is None and not set:
        raise InputError("There is nothing to train: give --config FILE, or --set data.source=.. --set model.type=..")
    from pellucid.train.settings import read_config

    asked = read_config(config, set or [], seed)
    from pellucid.train import speaks, train

    known = (out / "card.json").exists()
    say(f"Reading {asked.data.source}.")
    card = train(asked, out, say, bar=True)
    if not speaks():
        return
    for score in card.scores:
        print(score)
    told = {"config": card.config, "data": card.data["sha256"], "seed": asked.training.seed}
    if not known:
        _record(out, told, dict(card.versions), start)
        say(f"Wrote {out}. Try: pellucid explain -m {out} -i FILE")


def study(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A study in TOML.")],
    out: options.StudyFolder,
    jobs: options.Jobs = 1,
    dry_run: options.DryRun = False,
) -> None:
    """Train and audit every model on every data set from every seed.

    Repeat a call that was broken off to go on; what --out holds is not measured again.

    Examples:

        pellucid study zoo.toml --out zoo --jobs 4
    """
    start = time.perf_counter()
    check_place(out / "run.json")
    from pellucid.study import read_study, study

    asked = read_study(file)
    if dry_run:
        _list(asked)
        return
    outcome = study(asked, out, jobs, say, bar=jobs == 1)
    told = {
        "study": asked.name,
        "file": file.read_text(encoding="utf-8"),
        "cells": [cell.name for cell in asked.cells],
        "measured": outcome.measured,
        "taken_over": outcome.taken_over,
        "failures": dict(outcome.failures),
        "jobs": jobs,
    }
    from pellucid.train import versions

    _record(out, told, versions(), start)
    if (out / "results.parquet").exists():
        say(f"Wrote {out / 'results.parquet'} in {outcome.seconds:.0f} s.")
    if outcome.failures:
        count = len(outcome.failures)
        say(f"pellucid: {count} of {len(asked.cells)} cells failed; {out / 'failures.json'} says why.")
        raise typer.Exit(1)


def _list(asked: "Study") -> None:
    """The cells of a study, one in a line."""
    for cell in asked.cells:
        audits = f" ({', '.join(one.label for one in cell.audits)})" if cell.audits else ""
        print(f"{cell.name}{audits}")
    say(f"{len(asked.cells)} cells.")


def _record(out: Path, told: "Mapping[str, Any]", versions: dict[str, str], start: float) -> None:
    """run.json: the call, versions, what the command tells, seconds."""
    from pellucid.records import write_whole

    record = {"call": sys.argv, "versions": versions, **told, "seconds": round(time.perf_counter() - start, 3)}
    write_whole(out / "run.json", (json.dumps(record, indent=2) + "\n").encode())
