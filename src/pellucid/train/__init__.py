"""Training a classifier on labelled texts, and what a simple rival reaches on them."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from pellucid.data import INSTALL, Corpus
from pellucid.errors import InputError, MissingExtra
from pellucid.records import write_whole
from pellucid.train.card import CARD, Card, versions
from pellucid.train.scores import Score, control, scores, usual_class
from pellucid.train.settings import Config, config_of, difference, read_config

if TYPE_CHECKING:
    from pellucid.train.tokens import Encoded

WORK = "checkpoints"
UNKNOWN = 0.1  # a share of unknown tokens that is worth a word
SETTINGS = "settings.json"

__all__ = ["Card", "Config", "Score", "config_of", "control", "read_config", "speaks", "train", "versions"]


def train(
    config: Config,
    out: str | Path,
    progress: Callable[[str], None] | None = None,
    bar: bool = False,
    begin: str | Path | None = None,
) -> Card:
    """Train a classifier; afterwards `out` holds the model, its tokenizer and its card.

    begin: the folder that training.init_from stands for, if it is no folder itself (a study's "cell:MODEL").
    progress: hears a line per epoch. bar: show one, with the remaining time, where standard error is a terminal.
    A run that was broken off goes on from its last whole epoch when called again, and ends with the same weights as one
    that was not (to the last bit on a CPU with as many threads; elsewhere if the device's kernels repeat themselves);
    one that is done is not repeated. Under `accelerate launch` all processes call this, and one writes.

    Raises: InputError for settings, data or a folder that cannot be used, before anything is written; MissingExtra.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtra(f"Training needs accelerate: {INSTALL}.")
    out, say = Path(out), progress or (lambda line: None)
    if (card := _done(config, out)) is not None:
        say(f"{out} holds this model, trained before{_of_these_texts(card, config, out)}.")
        return card
    with _threads(config.training.threads):
        return _trained(config, out, say, bar, begin)


def speaks() -> bool:
    """Whether this process is the one that writes and talks; under `accelerate launch` the others train along."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _trained(config: Config, out: Path, say: Callable[[str], None], bar: bool, begin: str | Path | None) -> Card:
    from pellucid.train.fit import Loop, arguments, fit, undisturbed

    corpus = config.data.read()
    if speaks():
        say(str(corpus))
    with undisturbed():
        tokenizer, model, rows, taken = _prepared(config, corpus, begin)
        args = arguments(config.training, out / WORK, len(corpus.train))
        _check_place(config, corpus, out)
        if args.should_save:
            _begin(config, corpus, out)
            for line in _said(rows, config, corpus, taken):
                say(line)
        loop = Loop(model, args, rows, tokenizer.pad_token_id, config.training)
        epochs, best = fit(loop, say, bar)
        found: list[Score] = []
        for name in [name for name in rows if name != "train"]:
            told, gold = loop.classes(rows[name])
            found += scores(name, gold, told, len(corpus.labels), usual_class(corpus))
        card = Card(
            config=config.to_dict(),
            data=corpus.facts(),
            tokens=_facts(rows, len(tokenizer)),
            scores=tuple(found),
            epochs=epochs,
            best_epoch=best,
            parameters={
                "all": sum(p.numel() for p in model.parameters()),
                "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            },
            seconds=sum(one["seconds"] for one in epochs),
            versions=versions(),
            device=loop.place,
            taken_over=taken,
        )
        if args.should_save:
            _finish(out, loop.model, tokenizer, card)
        loop.accelerator.wait_for_everyone()
    return card


def _prepared(
    config: Config, corpus: Corpus, begin: str | Path | None
) -> "tuple[Any, Any, dict[str, Encoded], dict[str, Any] | None]":
    """The tokenizer, the model before its first step, the rows of each split, and what was taken over."""
    from pellucid.encoder.load import limit_of
    from pellucid.train.build import freeze, model_for, take_over
    from pellucid.train.tokens import encode, reads_types, tokenizer_for

    tokenizer = tokenizer_for(config, corpus)
    model = model_for(config, tokenizer, corpus.labels)
    limit, types = limit_of(model, tokenizer), reads_types(model, tokenizer)
    rows = {n: encode(tokenizer, s, n, config.data.max_tokens, limit, types) for n, s in corpus.splits.items()}
    source = config.training.init_from
    taken = None if source is None else take_over(model, str(begin or source), tokenizer) | {"folder": source}
    freeze(model, config.training.freeze)
    return tokenizer, model, rows, taken


def _facts(rows: "dict[str, Encoded]", vocabulary: int) -> dict[str, Any]:
    return {
        "vocabulary": vocabulary,
        "longest": {name: max(one.lengths) for name, one in rows.items()},
        "cut": {name: one.cut for name, one in rows.items()},
        "unknown": {name: one.unknown for name, one in rows.items()},
    }


def _said(rows: "dict[str, Encoded]", config: Config, corpus: Corpus, taken: dict[str, Any] | None) -> Iterator[str]:
    """What a person may not expect: texts seen in training, cut or unknown, weights that are taken over, or not."""
    for name, count in corpus.facts()["also_in_train"].items():
        if count:
            yield f"{count} of {len(rows[name].rows)} {name} texts are in train too, so its scores flatter."
    for name, one in rows.items():
        if one.cut:
            yield f"{one.cut} of {len(one.rows)} {name} texts are cut to {config.data.max_tokens} tokens."
        if one.unknown > UNKNOWN:
            yield f"{one.unknown:.0%} of the {name} tokens are unknown; see tokenizer.vocab_size and min_count."
    lengths = rows["train"].lengths
    middle = sorted(lengths)[len(lengths) // 2]
    if max(lengths) > max(1000, 20 * middle):
        yield (
            f"The longest train text has {max(lengths):,} tokens, half at most {middle}: a batch is as wide as its "
            "longest text, so set data.max_tokens if memory is short."
        )
    if taken is not None:
        for verb in ("taken", "left"):
            names = ", ".join(f"{name} {shape}" for name, shape in taken[verb].items()) or "none"
            yield f"Weights {'taken over from' if verb == 'taken' else 'not in'} {taken['folder']}: {names}."


def _of_these_texts(card: Card, config: Config, out: Path) -> str:
    """InputError if the data has changed since; what to add where it cannot be read any more."""
    try:
        now = config.data.read().sha256
    except InputError as e:
        return f"; its data was not looked at again ({str(e).rstrip('.')})"
    if now != card.data["sha256"]:
        raise InputError(
            f"{out} holds a model that was trained on other texts; choose another folder, or remove this one."
        )
    return ""


def _done(config: Config, out: Path) -> Card | None:
    """The card of the folder if all was done before; InputError if that was with other settings."""
    if not (out / CARD).exists():
        return None
    card = Card.load(out)
    if (other := difference(card.config, config.to_dict())) is not None:
        raise InputError(f"{out} holds a model that was trained with {other}; choose another folder.")
    shutil.rmtree(out / WORK, ignore_errors=True)  # where the last run was ended between its last two steps
    return card


def _check_place(config: Config, corpus: Corpus, out: Path) -> None:
    """InputError if the folder holds something else than the beginning of this very run."""
    path = out / WORK / SETTINGS
    if path.exists():
        begun = json.loads(path.read_text(encoding="utf-8"))
        other = difference(begun["config"], config.to_dict())
        if other is None and begun["data"] != corpus.sha256:
            other = "other texts"
        if other is not None:
            raise InputError(
                f"{out} holds a run that was begun with {other}; choose another folder, or remove this one."
            )
    elif (out / "config.json").exists():
        raise InputError(f"{out} holds a model that was not trained here; choose another folder.")


def _begin(config: Config, corpus: Corpus, out: Path) -> None:
    told = {"config": config.to_dict(), "data": corpus.sha256}
    write_whole(out / WORK / SETTINGS, (json.dumps(told, indent=2) + "\n").encode())


def _finish(out: Path, model: Any, tokenizer: Any, card: Card) -> None:
    """Model and tokenizer under temporary names, then in their places, then the card; then the checkpoints go."""
    from pellucid.train.fit import not_written

    beside = out / WORK / "final"
    try:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        for file in beside.glob("*.safetensors"):  # which is written for its owner alone
            shutil.copymode(beside / "config.json", file)
        for file in sorted(beside.iterdir()):
            os.replace(file, out / file.name)
    except (OSError, RuntimeError, SafetensorError) as e:
        shutil.rmtree(beside, ignore_errors=True)
        raise InputError(not_written(out, e)) from e
    card.save(out)
    shutil.rmtree(out / WORK, ignore_errors=True)


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """PyTorch's threads for this run alone."""
    before = torch.get_num_threads()
    try:
        if n is not None:
            torch.set_num_threads(n)
        yield
    finally:
        torch.set_num_threads(before)
