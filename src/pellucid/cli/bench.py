"""`pellucid bench`: methods compared on a set of texts by the same forward passes."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli import options
from pellucid.cli.given import NO_MODEL, check_source, located, opened, say, texts_of
from pellucid.errors import InputError
from pellucid.outputs import check_place, print_utf8, run_record
from pellucid.registry import choose
from pellucid.settings import seconds_of

if TYPE_CHECKING:
    from pellucid.bench import Comparison
    from pellucid.encoder.model import Model
    from pellucid.inputs import Item


def bench(
    text: options.Texts = None,
    input: options.Input = None,
    model: options.ModelName = None,
    methods: options.MethodNames = None,
    metrics: options.MetricNames = None,
    operators: options.OperatorNames = "mask",
    limit: options.Count = None,
    seed: options.BenchSeed = 0,
    budget: options.Budget = None,
    max_tokens: options.MaxTokens = None,
    format: options.TableFormat = "text",
    out: options.TableFolder = None,
    resume: options.Resume = False,
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    label_column: options.LabelColumn = None,
    rationale_column: options.RationaleColumn = None,
    batch_tokens: options.BatchTokens = None,
    planted: options.PlantedFlag = False,
    sanity: options.SanityFlag = False,
    against: options.OtherModel = None,
    device: options.Device = None,
) -> None:
    """Compare methods: which one names the tokens that the model's decision really hangs on?

    All methods are measured on the same texts by the same forward passes, beside a random control. Every number has its
    95 % interval over texts, and tests against random and against the best. See `pellucid methods`, `pellucid metrics`.

    Examples:

        pellucid bench -m my-model -i reviews.csv --limit 100 --out table

        pellucid bench -m my-model -i reviews.csv --methods decompx,lime,greedy --metrics aopc:mask,aopc:delete

        pellucid bench --planted
    """
    start = time.perf_counter()
    choose("format", format, ["text", "markdown", "json"])
    own: dict[str, object] = {"metrics": metrics, "budget": budget, "resume": resume, "label-column": label_column}
    if planted:
        own |= {"TEXT": text, "input": input, "model": model, "sanity": sanity, "against": against}
        _refuse("--planted brings its own models and texts", own)
        return _planted(listed(methods), seed, limit, format, out, start)
    check_source(text or [], input, "compare methods on")
    if resume and out is None:
        raise InputError("--resume takes over what --out DIR holds; add --out, or leave --resume out.")
    seconds = seconds_of(budget)
    if out is not None:
        check_place(out / "run.json")
    from pellucid.inputs import Columns

    notes = [] if model else [NO_MODEL]
    columns = Columns(text_column, pair_column, label_column, rationale_column)
    items = texts_of(text or [], input, columns, limit, "Reading", notes.append)
    classifier = opened(model, device)
    if sanity or against is not None:
        _refuse("--sanity compares explanations, by its own draws", own | {"seed": seed > 0})
        other = None if against is None else opened(against, device)
        return _sane(classifier, other, items, listed(methods), max_tokens, format, out, notes, start)
    asked = listed(methods), listed(metrics), listed(operators) or []
    made = _compared(
        classifier,
        items,
        *asked,
        (label_column is not None, rationale_column is not None),
        {
            "max_tokens": max_tokens,
            "seed": seed,
            "seconds": None if seconds is None else max(0.0, seconds - (time.perf_counter() - start)),
            "batch_tokens": batch_tokens,
            "out": out,
            "resume": resume,
        },
        notes,
    )
    _deliver(made, format, out, classifier, items, start)


def _deliver(
    made: "Comparison", format: str, out: Path | None, model: "Model", items: "list[Item]", start: float
) -> None:
    """Print the table, and write run.json beside it."""
    from pellucid.records import dumps

    if out is not None:
        _record(out, made, model, items, time.perf_counter() - start)
    if format == "text":
        made.show()
    else:
        print_utf8(made.to_markdown() if format == "markdown" else dumps(made.to_dict()) + "\n")
    if out is not None:
        say(f"Wrote {out} in {time.perf_counter() - start:.1f} s.")


def _refuse(why: str, given: Mapping[str, object]) -> None:
    """InputError for the first of some options that was given."""
    for name, value in given.items():
        if value:
            raise InputError(f"{why}; leave out {name if name.isupper() else '--' + name}.")


def _planted(
    methods: list[str] | None, seed: int, count: int | None, format: str, out: Path | None, start: float
) -> None:
    """`bench --planted`: its table, and its files."""
    from pellucid.bench import planted
    from pellucid.records import dumps, write_whole

    with shown("planted") as tick:
        made = planted(methods, count=count or 20, seed=seed, progress=tick)
    if out is not None:
        made.save(out)
        write_whole(
            out / "run.json", run_record(None, [], time.perf_counter() - start, seed, {"methods": methods}).encode()
        )
    if format == "text":
        made.show()
    else:
        print_utf8(made.to_markdown() if format == "markdown" else dumps(made.to_dict()) + "\n")


def _sane(
    model: "Model",
    other: "Model | None",
    items: "list[Item]",
    methods: list[str] | None,
    max_tokens: int | None,
    format: str,
    out: Path | None,
    notes: list[str],
    start: float,
) -> None:
    """`bench --sanity`: findings, one per method."""
    from pellucid.bench import PANEL, randomised_labels, randomised_weights
    from pellucid.inputs import check_tokens
    from pellucid.records import dumps, write_whole

    check_tokens(model, items, None if max_tokens else f"Add --max-tokens {model.limit} to cut longer texts off there.")
    for note in notes:
        say(note)
    texts, asked = [item.text for item in items], methods or [*PANEL, "random"]
    with shown("sanity") as tick:
        if other is None:
            found = randomised_weights(model, texts, asked, max_tokens=max_tokens, progress=tick)
        else:
            found = randomised_labels(model, other, texts, asked, max_tokens=max_tokens)
    if out is not None:
        found.save(out)
        told = {"left_out": found.origin["left_out"], "against": None if other is None else other.id}
        write_whole(out / "run.json", run_record(model, items, time.perf_counter() - start, 0, told).encode())
    if format == "text":
        found.show()
        for name, why in found.origin["left_out"].items():
            say(f"{name} is left out: {why}")
    else:
        print_utf8(dumps(found.to_dict()) + "\n")


@contextmanager
def shown(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left, on a terminal; hears (done, total)."""
    from tqdm.auto import tqdm

    with tqdm(total=1, unit=" steps", desc=what, disable=None, leave=False) as bar:

        def tick(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tick


def listed(names: str | None) -> list[str] | None:
    """Names between commas, where those within brackets belong to one name."""
    if names is None:
        return None
    return [name.strip() for name in re.split(r",(?![^(]*\))", names) if name.strip()]


def _compared(
    model: "Model",
    items: "list[Item]",
    methods: list[str] | None,
    metrics: list[str] | None,
    operators: list[str],
    given: tuple[bool, bool],
    options: dict[str, Any],
    notes: list[str],
) -> "Comparison":
    """The comparison, with a bar on a terminal; refusals name the line."""
    from pellucid.bench import compare
    from pellucid.bench.asked import methods_of, metrics_of
    from pellucid.inputs import check_tokens, gold_of, spans_of

    fix = f"Add --max-tokens {model.limit} to cut longer texts off there." if options["max_tokens"] is None else None
    check_tokens(model, items, fix)
    labels = [gold_of(item, model.labels) for item in items] if given[0] else None
    spans = [spans_of(item) for item in items] if given[1] else None
    methods_of(model, methods, options["seed"])
    metrics_of(model, metrics, operators, rationales=given[1], labels=given[0])
    for note in notes:  # only now, so that a refusal stands alone
        say(note)
    try:
        return compare(
            model,
            [item.text for item in items],
            methods,
            metrics,
            operators,
            labels,
            spans,
            progress=True,
            **options,
        )
    except InputError as e:
        raise type(e)(located(str(e), items)) from e
    except KeyboardInterrupt:
        if options["out"] is not None and (options["out"] / "results.parquet").exists():
            say(f"What was measured so far is in {options['out']}; the same command with --resume goes on.")
        raise


def _record(folder: Path, made: "Comparison", model: "Model", items: "list[Item]", seconds: float) -> None:
    """run.json beside the table."""
    from pellucid.records import write_whole

    told = {
        "methods": made.settings["methods"],
        "metrics": made.settings["metrics"],
        "texts_measured": made.measured,
        "costs": {
            label: {"forwards": c.forwards, "backwards": c.backwards, "seconds": c.seconds}
            for label, c in made.costs.items()
            if c.seconds == c.seconds
        },
        "forwards": round(made.spent["forwards"]),
        "notes": list(made.left_out),
        "out_of_time": made.spent["out_of_time"],
        "taken_over": made.spent["taken_over"],
        "failures": {label: {str(i + 1): why for i, why in texts.items()} for label, texts in made.failures.items()},
    }
    write_whole(folder / "run.json", run_record(model, items, seconds, made.seed, told).encode())
