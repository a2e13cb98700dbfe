"""A study: every model on every data set from every seed, trained, measured, audited; all rows in one file."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Thread

import torch

from pellucid.errors import InputError
from pellucid.records import parquet, write_whole
from pellucid.study.cell import DONE, ROWS, measure, said
from pellucid.study.plan import CONTROL, AuditOf, Cell, Study, read_study
from pellucid.train.settings import difference

Say = Callable[[str], None]

__all__ = ["CONTROL", "AuditOf", "Cell", "Outcome", "Study", "read_study", "study"]


@dataclass(frozen=True)
class Outcome:
    """What came of a study: cells measured now and taken over, and the sentences of what failed, by cell."""

    measured: int
    taken_over: int
    failures: Mapping[str, list[str]]
    seconds: float


def study(asked: Study, out: str | Path, jobs: int = 1, progress: Say | None = None, bar: bool = False) -> Outcome:
    """Measure every cell that `out` does not hold yet.

    jobs: processes, which share the cores. progress: hears a line per epoch (jobs = 1) and per cell. bar: one for each
    training, where standard error is a terminal. `out`/cells/NAME holds each cell's model, card and rows;
    results.parquet the rows of all that is asked, rewritten after each cell; failures.json what failed, which does not
    stop the others. A study that was broken off goes on when called again, and one that asks for more cells or audits
    measures these alone. Cells that begin from others come last.

    Raises: InputError if `out` holds a cell of other settings or texts, or data cannot be read; nothing is measured
    then.
    """
    out, say, start = Path(out), progress or (lambda line: None), time.perf_counter()
    hashes = {cell.config.data: "" for cell in asked.cells}
    hashes = {data: data.read().sha256 for data in hashes}
    left = [cell for cell in asked.cells if not _held(cell, out, hashes[cell.config.data])]
    known = len(asked.cells) - len(left)
    if known:
        say(f"{known} of {len(asked.cells)} cells are in {out} already.")
    failures: dict[str, list[str]] = {}
    spent: list[float] = []
    first, then = [c for c in left if c.after is None], [c for c in left if c.after is not None]
    measured = chain(*(_measured(some, out, jobs, say, bar) for some in (first, then) if some))
    for done, (cell, failed, seconds) in enumerate(measured, 1):
        if not failed:
            spent.append(seconds)
        if failed:
            failures[cell.name] = failed
        _write(asked, out, failures)
        rest = sum(spent) / max(1, len(spent)) * (len(left) - done) / min(jobs, max(1, len(left) - done))
        told = f"failed: {failed[0]}" if failed else "done"
        say(f"[{known + done}/{len(asked.cells)}] {cell.name} {told} ({seconds:.0f} s); {_time(rest)} left.")
    _write(asked, out, failures)
    return Outcome(len(left) - len(failures), known, failures, time.perf_counter() - start)


def _measured(
    left: Sequence[Cell], out: Path, jobs: int, say: Say, bar: bool
) -> Iterator[tuple[Cell, list[str], float]]:
    """Each cell with what failed in it and its seconds, as they end."""
    if jobs == 1:
        for cell in left:
            yield cell, *_safely(cell, _folder(cell, out), partial(_tell, say, cell.name), bar)
        return
    waiting = list(left)
    while waiting:  # once, unless a process dies: then each cell that was in work is tried again by itself
        lost: list[Cell] = []
        yield from _pooled(waiting, out, jobs, lost)
        for cell in lost[:jobs]:
            dead: list[Cell] = []
            yield from _pooled([cell], out, 1, dead)
            if dead:
                yield cell, ["Its process was ended from outside, twice; is the memory enough for --jobs?"], 0.0
        waiting = lost[jobs:]


def _pooled(left: Sequence[Cell], out: Path, jobs: int, lost: list[Cell]) -> Iterator[tuple[Cell, list[str], float]]:
    """The cells in `jobs` processes; those that no process ended with go to `lost`, in their order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), _begin_worker, (max(1, cores // jobs), os.getpid())
    ) as pool:
        begun = {pool.submit(_safely, cell, _folder(cell, out)): cell for cell in left}
        ended: set[str] = set()
        try:
            for future in as_completed(begun):
                with suppress(BrokenProcessPool):
                    result = future.result()
                    ended.add(begun[future].name)
                    yield begun[future], *result
        except BaseException:  # an interruption is not to wait for the cells in work, which go on another time
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise
    lost += [cell for cell in left if cell.name not in ended]


def _begin_worker(threads: int, parent: int) -> None:
    """Threads of a process; and its end where the one that began it is no more, as after a kill."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    torch.set_num_threads(threads)
    Thread(target=watch, daemon=True).start()


def _safely(cell: Cell, folder: Path, say: Say | None = None, bar: bool = False) -> tuple[list[str], float]:
    """Measure a cell; whatever fails in it is a sentence, and stops no other cell."""
    start = time.perf_counter()
    try:
        failed = measure(cell, folder, say or (lambda line: None), bar)
    except Exception as e:
        failed = [said(e, folder)]
    return failed, time.perf_counter() - start


def _tell(say: Say, name: str, line: str) -> None:
    say(f"{name}: {line}")


def _folder(cell: Cell, out: Path) -> Path:
    return out / "cells" / cell.name


def _held(cell: Cell, out: Path, data: str) -> bool:
    """Whether `out` holds all that is asked of a cell; InputError if it holds the cell from other settings or texts."""
    path = _folder(cell, out) / DONE
    if not path.exists():
        return False
    told = json.loads(path.read_text(encoding="utf-8"))
    other = difference(told["config"], cell.config.to_dict()) or ("other texts" if told["data"] != data else None)
    if other is not None:
        raise InputError(
            f"The cell {cell.name!r} in {out} was begun with {other}; choose another folder, or remove {path.parent}."
        )
    done = told["audits"]
    return done is not None and all(one.to_dict() in done for one in cell.audits)


def _write(asked: Study, out: Path, failures: Mapping[str, list[str]]) -> None:
    """results.parquet and failures.json as they stand."""
    import pyarrow.parquet as pq

    files = [path for cell in asked.cells if (path := _folder(cell, out) / ROWS).exists()]
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    if rows:
        write_whole(out / "results.parquet", parquet(rows))
    path = out / "failures.json"
    if failures:
        write_whole(path, (json.dumps(dict(failures), indent=2, ensure_ascii=False) + "\n").encode())
    else:
        path.unlink(missing_ok=True)


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"about {seconds / size:.1f} {unit}"
    return f"about {seconds:.0f} s"
