"""`pellucid explain`: what each token contributed."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.given import NO_MODEL, check_source, located, opened, say, texts_of
from pellucid.errors import InputError
from pellucid.outputs import deliver, kind_of
from pellucid.registry import choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pellucid.attribution import Attribution
    from pellucid.encoder.model import Model
    from pellucid.inputs import Item
    from pellucid.methods import Method
    from pellucid.types import TargetSpec

LONG = "Add --long truncate to cut it off there, or --long window to explain overlapping windows."


def explain(
    text: options.Texts = None,
    input: options.Input = None,
    model: options.ModelName = None,
    method: Annotated[str, typer.Option(metavar="NAME", help="See `pellucid methods`.")] = "decompx",
    param: options.Params = None,
    target: options.TargetName = None,
    format: options.Format = None,
    out: options.OutFile = None,
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    label_column: options.LabelColumn = None,
    limit: options.Count = None,
    long: options.Long = "refuse",
    words: Annotated[bool, typer.Option("--words", help="Sum the scores of each word's tokens.")] = False,
    batch_tokens: options.BatchTokens = None,
    device: options.Device = None,
) -> None:
    """Show what each token contributed to the model's decision.

    Examples:

        pellucid explain "Dull, but not bad."

        pellucid explain -m my-model -i reviews.csv --target positive,negative -o explained.parquet
    """
    start = time.perf_counter()
    kind = kind_of(format, out)
    choose("--long", long, ["refuse", "truncate", "window"])
    check_source(text or [], input, "explain")
    _check_gold(target, label_column)
    from pellucid.inputs import Columns, check_tokens, target_of
    from pellucid.methods.catalog import method_with

    chosen, columns = method_with(method, param or []), Columns(text_column, pair_column, label_column)
    notes = [] if model else [NO_MODEL]
    items = texts_of(text or [], input, columns, limit, "Explaining", notes.append)
    classifier = opened(model, device)
    aim = target_of(target, classifier.labels, items)
    check_tokens(classifier, items, LONG if long == "refuse" else None)
    for note in notes:  # only now, so that a refusal stands alone
        say(note)
    found = explained(classifier, items, chosen, aim, long, batch_tokens, words)
    deliver(items, found, kind, out, method, single=not input and len(items) == 1)
    if out is not None:
        count = f"{len(found)} explanation{'s' * (len(found) > 1)}"
        say(f"Wrote {count} to {out} in {time.perf_counter() - start:.1f} s.")


def _check_gold(target: str | None, label_column: str | None) -> None:
    """InputError for a target and a column that contradict each other."""
    if target == "gold" and label_column is None:
        raise InputError("--target gold explains the true class: name its column in --input with --label-column.")
    if target != "gold" and label_column is not None:
        raise InputError("--label-column is read for --target gold alone; add that, or leave the column out.")


def explained(
    model: "Model",
    items: "Sequence[Item]",
    method: "Method",
    aim: "TargetSpec | list[TargetSpec]",
    long: Any = "refuse",
    batch_tokens: int | None = None,
    words: bool = False,
) -> "list[Attribution]":
    """Chunk by chunk, with a bar on a terminal once it takes longer than a second; refusals name the line."""
    from tqdm import tqdm

    from pellucid.cli import CHUNK
    from pellucid.run import explain

    found: list[Attribution] = []
    with tqdm(total=len(items), unit="text", disable=None, leave=False, delay=1) as bar:
        for i in range(0, len(items), CHUNK):
            part = items[i : i + CHUNK]
            aims = aim[i : i + CHUNK] if isinstance(aim, list) else aim

            def advance(done: int, total: int, before: int = i, size: int = len(part)) -> None:
                bar.update(before + size * done // total - bar.n)

            try:
                made = explain(model, [item.text for item in part], method, aims, long, batch_tokens, advance)
                found += [a.words() for a in made] if words else made
            except InputError as e:
                raise InputError(located(str(e), part)) from e
    return found
