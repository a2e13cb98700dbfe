"""The command line. It alone reads environment variables and changes settings of the whole process.

Exit status: 0 done; 2 the call or its input is wrong, said in one sentence on standard error; 1 anything else. What is
slow to import (torch, transformers) is imported by the commands that need it, never for `--help`.
"""

import contextlib
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid._version import __version__
from pellucid.errors import InputError, PellucidError
from pellucid.outputs import RECORDS, check_place, deliver, kind_of, print_table, print_texts, print_utf8, run_record
from pellucid.registry import choose

if TYPE_CHECKING:
    from pellucid.attribution import Attribution
    from pellucid.encoder.model import Model
    from pellucid.inputs import Columns, Item
    from pellucid.methods import Method
    from pellucid.types import TargetSpec

SHOWN = (4, 5, 7)  # the sentences that `demo` prints: two that differ in one word, and a negation
CHUNK = 256  # texts that are tokenised and explained together
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_UsageError: type[Any] = typer.BadParameter.__mro__[2]  # click's ClickException, which newer typers carry themselves

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command of this process and end it with its exit status."""
    sys.exit(status(sys.argv[1:]))


def status(arguments: Sequence[str]) -> int:
    """Run one command; its exit status. Refusals, errors and interruptions become one line on standard error."""
    args, trace = _without_traceback_flag(arguments)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # our own code never warns; a person can do nothing about other packages'
    try:
        code = int(app(args=args, prog_name="pellucid", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code if code != 130 else _failed("interrupted.", 1)
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as e:  # typer or rich found that nobody reads standard output any more
        return e.code if isinstance(e.code, int) else _reader_left()
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted.", 1)
    except Exception as e:
        if trace:
            traceback.print_exc()
        if isinstance(e, PellucidError):
            return _failed(str(e), 2)
        if isinstance(e, _UsageError):
            command = getattr(getattr(e, "ctx", None), "command_path", "pellucid")
            message = e.format_message()
            return _failed(f"{message}{'' if message.endswith(('.', '?')) else '.'} See `{command} --help`.", 2)
        where = "" if trace else " Repeat with --traceback to see where."
        return _failed(f"unexpected {type(e).__name__}: {(str(e).splitlines() or [''])[0]}.{where}", 1)


def _without_traceback_flag(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without --traceback, which may stand anywhere before "--", and whether it was there."""
    args = list(arguments)
    end = args.index("--") if "--" in args else len(args)
    left = [a for a in args[:end] if a != "--traceback"]
    return left + args[end:], len(left) < end


def _failed(message: str, code: int) -> int:
    line = re.sub(r"\s*\n\s*", " ", message)
    with contextlib.suppress(BrokenPipeError):
        print(f"pellucid: {line}", file=sys.stderr)
    return code


def _reader_left() -> int:
    """Nobody reads standard output (`| head`): point it at nothing, so that the end of the process stays silent."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"pellucid {__version__}")
        raise typer.Exit(0)


Input = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="FILE", help="Texts: .txt (a line each), .csv .tsv .jsonl .parquet, or -."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", metavar="M", help="Folder or hub name; default: the bundled demo model.")
]
TextColumn = Annotated[str | None, typer.Option(metavar="NAME", help='Default "text", or "sentence".')]
PairColumn = Annotated[str | None, typer.Option(metavar="NAME", help="The second text of pairs.")]
LabelColumn = Annotated[str | None, typer.Option(metavar="NAME", help="The true class, for --target gold.")]
Params = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of the method; may be repeated.")
]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        help='What to explain: predicted (default), a class number or label, all, gold, or "A,B": logit A minus B.',
    ),
]
Format = Annotated[
    str | None, typer.Option("--format", metavar="F", help="text, json or html; default: by --out, else text.")
]
OutFile = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write here; .parquet and .jsonl hold records.")
]
Long = Annotated[
    str, typer.Option(metavar="HOW", help="Texts over the model's limit: refuse, truncate, or window (overlapping).")
]
Count = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N texts of --input.")]
BatchTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="Tokens per forward pass.")]
Device = Annotated[str | None, typer.Option(metavar="D", help="cpu (default), cuda, cuda:1, mps.")]


@app.callback(invoke_without_command=True)
def pellucid(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="On an error, show where it happened.")] = False,
) -> None:
    """Which tokens made a text classifier's decision, as a decomposition that adds up to the model's own logit.

    Start with `pellucid demo`.
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command()
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

    items = from_file(str(_demo_folder() / "sentences.txt"), Columns(), None, _say)
    model = _opened(None, None)
    found = _explained(model, items, METHODS.get("decompx"), None, "refuse", None)
    lead = f"{len(found)} sentences, explained with decompx on the bundled demo model."
    write_whole(out / "demo.html", html_page(found, title="Pellucid demo", lead=lead).encode())
    seconds = time.perf_counter() - start
    write_whole(out / "run.json", run_record(model, items, found, seconds).encode())
    shown = [i for i in SHOWN if i < len(found)]
    print_texts([f"Sentence {i + 1} of {len(found)}" for i in shown], [found[i] for i in shown])
    print(
        f"\nWrote {out / 'demo.html'} (all {len(found)} sentences) and {out / 'run.json'} in {seconds:.1f} s.\n"
        f"Next: open {out / 'demo.html'} in a browser, or try\n"
        '  pellucid explain "The plot is thin, but the acting is superb."\n'
        "  pellucid explain --model FOLDER_OR_HUB_NAME --input reviews.csv --out explained.html\n"
        "  pellucid methods"
    )


@app.command()
def explain(
    text: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="One or several texts, in quotes.")] = None,
    input: Input = None,
    model: ModelName = None,
    method: Annotated[str, typer.Option(metavar="NAME", help="See `pellucid methods`.")] = "decompx",
    param: Params = None,
    target: TargetName = None,
    format: Format = None,
    out: OutFile = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    limit: Count = None,
    long: Long = "refuse",
    words: Annotated[bool, typer.Option("--words", help="Sum the scores of each word's tokens.")] = False,
    batch_tokens: BatchTokens = None,
    device: Device = None,
) -> None:
    """Show what each token contributed to the model's decision.

    Examples:

        pellucid explain "Dull, but not bad."

        pellucid explain -m my-model -i reviews.csv --target positive,negative -o explained.parquet
    """
    start = time.perf_counter()
    kind = kind_of(format, out)
    choose("--long", long, ["refuse", "truncate", "window"])
    _check_call(text or [], input, target, label_column)
    from pellucid.inputs import Columns, check_tokens, from_file, target_of
    from pellucid.methods.catalog import method_with

    chosen, columns = method_with(method, param or []), Columns(text_column, pair_column, label_column)
    notes = [] if model else ["No --model was given, so this is the bundled demo model, a judge of film reviews."]
    if input:
        items = from_file(input, columns, limit, notes.append)
    else:
        items = _given(text or [], columns, limit, notes.append)
    opened = _opened(model, device)
    aim = target_of(target, opened.labels, items)
    check_tokens(opened, items, long)
    for note in notes:  # only now, so that a refusal stands alone
        _say(note)
    found = _explained(opened, items, chosen, aim, long, batch_tokens, words)
    deliver(items, found, kind, out, method, single=not input and len(items) == 1)
    if out is not None:
        count = f"{len(found)} explanation{'s' * (len(found) > 1)}"
        _say(f"Wrote {count} to {out} in {time.perf_counter() - start:.1f} s.")


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Tell all about this one.")] = None,
    format: Annotated[str, typer.Option("--format", metavar="F", help="text or json.")] = "text",
) -> None:
    """List the methods and what each one promises.

    needs: how much of the model it must see, from OUTPUTS over GRADIENTS and READOUT to ENCODER.
    """
    choose("format", format, ["text", "json"])
    from pellucid.methods import METHODS
    from pellucid.methods.catalog import about, explained_at_length
    from pellucid.records import dumps

    asked = [METHODS.get(name)] if name else list(METHODS)
    if format == "json":
        print_utf8(dumps(about(asked[0]) if name else [about(m) for m in asked]) + "\n")
    elif name:
        print(explained_at_length(asked[0]))
    else:
        keys = ("name", "needs", "unit", "complete", "signed", "additive")
        yes_no = {True: "yes", False: "no", None: "depends"}
        entries = [about(m) for m in asked]
        print_table(keys, [[e[k] if isinstance(e[k], str) else yes_no[e[k]] for k in keys] for e in entries])
        print(
            "complete: the scores and the unallocated share add up to the logit, up to rounding\n"
            "signed: scores tell for from against\n"
            "additive: a word's score is the sum of its tokens' scores\n"
            "All of it with the parameters as they are by default. More about one: pellucid methods NAME"
        )


@app.command()
def families(
    format: Annotated[str, typer.Option("--format", metavar="F", help="text or json.")] = "text",
) -> None:
    """List the architectures that Pellucid rebuilds."""
    choose("format", format, ["text", "json"])
    from pellucid.families import FAMILIES
    from pellucid.records import dumps

    if format == "json":
        closed = [{"name": f.model_type, "implements": {k: list(v) for k, v in f.closed.items()}} for f in FAMILIES]
        print_utf8(dumps(closed) + "\n")
        return
    rows = [[f.model_type, ", ".join(f"{k}={' or '.join(map(str, v))}" for k, v in f.closed.items())] for f in FAMILIES]
    print_table(("family", "only where the configuration says"), rows)
    print("Models of other architectures open too, for the methods that need GRADIENTS or OUTPUTS.")


def _check_call(texts: Sequence[str], source: str | None, target: str | None, label_column: str | None) -> None:
    """InputError for options that contradict each other."""
    if texts and source:
        raise InputError("Both TEXT and --input were given; give the texts to explain in one of these ways.")
    if not texts and not source:
        raise InputError('There is nothing to explain: give TEXT, in quotes, or --input FILE ("-" is standard input).')
    if target == "gold" and label_column is None:
        raise InputError("--target gold explains the true class: name its column in --input with --label-column.")
    if target != "gold" and label_column is not None:
        raise InputError("--label-column is read for --target gold alone; add that, or leave the column out.")


def _given(texts: Sequence[str], columns: "Columns", limit: int | None, say: Callable[[str], None]) -> "list[Item]":
    from pellucid.inputs import from_arguments

    if columns.text or columns.pair or columns.label or limit is not None:
        raise InputError("The column options and --limit are about the file of --input; leave them out with TEXT.")
    for text in texts:
        if text.endswith((".txt", ".csv", ".tsv", *RECORDS)) and Path(text).is_file():
            say(f"Explaining the words {text!r} themselves; to read that file, use --input {text}.")
    return from_arguments(texts)


def _demo_folder() -> Path:
    folder = Path(str(files("pellucid") / "demo"))
    if not (folder / "config.json").is_file():
        raise InputError(f"The bundled demo model is missing ({folder}); reinstall pellucid, or give --model.")
    return folder


def _opened(name: str | None, device: str | None) -> "Model":
    """The model, without a look at the network if it lies in a local folder."""
    source = name or str(_demo_folder())
    if Path(source).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    elif sys.stderr.isatty():
        _say(f"Opening {name}; if it is not on this machine yet, it is downloaded first.")
    import torch

    from pellucid.encoder.load import load

    if device is not None:
        try:
            asked = torch.device(device)
        except RuntimeError:
            raise InputError(f"There is no device {device!r}; choose cpu, cuda, cuda:1 or mps.") from None
        here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
        count = here.get(asked.type, 0)
        if (asked.index or 0) >= count:
            raise InputError(f"--device {device} was asked for, but torch sees {count} of {asked.type!r} here.")
    return load(source, device=device)


def _located(message: str, part: "Sequence[Item]") -> str:
    """A refusal about text number N of a chunk, about the line that the text came from."""
    return re.sub(r"^Text (\d+)( of \d+)?", lambda m: part[int(m[1]) - 1].where, message)


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
                raise InputError(_located(str(e), part)) from e
    return found
