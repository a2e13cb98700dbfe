"""The command line. It alone reads environment variables and changes settings of the whole process.

Exit status: 0 done; 2 the call or its input is wrong, said in one sentence on standard error; 1 anything else. What is
slow to import (torch, transformers) is imported by the commands that need it, never for `--help`.
"""

import contextlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pellucid._version import __version__
from pellucid.cli import audit, bench, catalog, demo, explain, serve, train
from pellucid.errors import PellucidError

CHUNK = 256  # texts that `explain` tokenises and explains together
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_CALM = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait give their core away: on a busy machine, those that spin cost ten times the work (docs/LOG.md)."""
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
    for name, value in (_QUIET | _CALM).items():
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


def _show_version(asked: bool) -> None:
    if asked:
        print(f"pellucid {__version__}")
        raise typer.Exit(0)


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


for command in (
    demo.demo,
    explain.explain,
    audit.audit,
    bench.bench,
    train.train,
    train.study,
    serve.serve,
    catalog.methods,
    catalog.audits,
    catalog.metrics,
    catalog.families,
):
    app.command()(command)
