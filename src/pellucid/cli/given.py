"""What a call gives to a command: texts, each with its place, and a model; and what is said about them."""

import os
import re
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import InputError
from pellucid.outputs import RECORDS

if TYPE_CHECKING:
    from pellucid.encoder.model import Model
    from pellucid.inputs import Columns, Item, Say

SMALL = 5_000_000
"""Parameters of a model below which more than one thread only costs; its numbers then hang on no count of cores."""
NO_MODEL = "No --model was given, so this is the bundled demo model, a judge of film reviews."


def say(message: str) -> None:
    """A note for the person who waits, on standard error."""
    print(message, file=sys.stderr)


def check_source(texts: Sequence[str], source: str | None, verb: str) -> None:
    """InputError unless the texts to `verb` come from the call itself or from --input."""
    if texts and source:
        raise InputError(f"Both TEXT and --input were given; give the texts to {verb} in one of these ways.")
    if not texts and not source:
        raise InputError(f'There is nothing to {verb}: give TEXT, in quotes, or --input FILE ("-" is standard input).')


def texts_of(
    texts: Sequence[str], source: str | None, columns: "Columns", limit: int | None, doing: str, note: "Say"
) -> "list[Item]":
    """The texts of the call, or of its --input; `note` hears of what a person may have meant otherwise."""
    from pellucid.inputs import from_arguments, from_file

    if source:
        return from_file(source, columns, limit, note)
    if columns.text or columns.pair or columns.label or limit is not None:
        raise InputError("The column options and --limit are about the file of --input; leave them out with TEXT.")
    for text in texts:
        if text.endswith((".txt", ".csv", ".tsv", *RECORDS)) and Path(text).is_file():
            note(f"{doing} the words {text!r} themselves; to read that file, use --input {text}.")
    return from_arguments(texts)


def demo_folder() -> Path:
    """The folder of the bundled model."""
    folder = Path(str(files("pellucid") / "demo"))
    if not (folder / "config.json").is_file():
        raise InputError(f"The bundled demo model is missing ({folder}); reinstall pellucid, or give --model.")
    return folder


def opened(name: str | None, device: str | None) -> "Model":
    """The model, without a look at the network if it lies in a local folder."""
    source = name or str(demo_folder())
    if Path(source).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    elif sys.stderr.isatty():
        say(f"Opening {name}; if it is not on this machine yet, it is downloaded first.")
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
    model = load(source, device=device)
    if model.device.type == "cpu" and sum(p.numel() for p in model.hf.parameters()) < SMALL:
        torch.set_num_threads(1)
    return model


def located(message: str, part: "Sequence[Item]") -> str:
    """A refusal about text number N of some items, about the line that the text came from."""
    return re.sub(r"^Text (\d+)( of \d+)?", lambda m: part[int(m[1]) - 1].where, message)
