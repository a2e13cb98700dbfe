"""`pellucid demo` and `pellucid explain`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.given import NO_MODEL, check_source, demo_folder, located, opened, say, texts_of
from pellucid.errors import InputError
from pellucid.outputs import check_place, deliver, kind_of, print_texts, run_record
from pellucid.registry import choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pellucid.attribution import Attribution
    from pellucid.encoder.model import Model
    from pellucid.inputs import Item
    from pellucid.methods import Method
    from pellucid.types import TargetSpec

SHOWN = (4, 5, 7)  # the sentences that `demo` prints: two that differ in one word, and a negation
LONG = "Add --long truncate to cut it off there, or --long window to explain overlapping windows."


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")] = Path(
        "pellucid-demo"
    ),
) -> None:
    """Explain 20 sentences offline and write a page.

    The model is the bundled one, a small judge of film-review sentences.
    """
    start = time.perf_counter()
    check_place(out / "demo.html")
    from pellucid.inputs import Columns, from_file
    from pellucid.methods import METHODS
    from pellucid.records import write_whole
    from pellucid.render import html_page

    items = from_file(str(demo_folder() / "sentences.txt"), Columns(), None, say)
    model = opened(None, None)
    found = _explained(model, items, METHODS.get("decompx"), None, "refuse", None)
    lead = f"{len(found)} sentences, explained with decompx on the bundled demo model."
    write_whole(out / "demo.html", html_page(found, title="Pellucid demo", lead=lead).encode())
    seconds = time.perf_counter() - start
    write_whole(out / "run.json", run_record(model, items, seconds, None, _spent(found)).encode())
    shown = [i for i in SHOWN if i < len(found)]
    print_texts([f"Sentence {i + 1} of {len(found)}" for i in shown], [found[i] for i in shown])
    print(
        f"\nWrote {out / 'demo.html'} (all {len(found)} sentences) and {out / 'run.json'} in {seconds:.1f} s.\n"
        f"Next: open {out / 'demo.html'} in a browser, or try\n"
        '  pellucid explain "The plot is thin, but the acting is superb."\n'
        "  pellucid explain --model FOLDER_OR_HUB_NAME --input reviews.csv --out explained.html\n"
        "  pellucid methods"
    )


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
    found = _explained(classifier, items, chosen, aim, long, batch_tokens, words)
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


def _explained(
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


def _spent(found: "Sequence[Attribution]") -> dict[str, Any]:
    """What run.json tells of explanations: the method and its passes."""
    return {
        "method": {"name": found[0].method, "params": dict(found[0].params)},
        "forwards": sum(a.origin["forwards"] for a in found),
        "backwards": sum(a.origin["backwards"] for a in found),
    }
