"""The card of a trained model: what it was told, what it learned from, how well it does, what it cost."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from pellucid._version import __version__
from pellucid.errors import InputError
from pellucid.records import dumps, write_whole
from pellucid.train.scores import Score

CARD = "card.json"


@dataclass(frozen=True)
class Card:
    """What card.json of a model's folder says.

    config: all settings. data: source, hash, labels, sizes, class counts. tokens: vocabulary, texts cut, share of
    unknown tokens by split. scores: on dev and test. epochs: one record per epoch. best_epoch: the one that was kept,
    counted from 1. parameters: all, and those trained. seconds: of all epochs, interruptions apart. taken_over: weights
    of training.init_from.
    """

    config: Mapping[str, Any]
    data: Mapping[str, Any]
    tokens: Mapping[str, Any]
    scores: tuple[Score, ...]
    epochs: Sequence[Mapping[str, float]]
    best_epoch: int
    parameters: Mapping[str, int]
    seconds: float
    versions: Mapping[str, str]
    device: str
    taken_over: Mapping[str, Any] | None = None

    def score(self, name: str, split: str = "dev") -> Score:
        """One of the scores; InputError if there is none on that split."""
        for one in self.scores:
            if (one.name, one.split) == (name, split):
                return one
        there = ", ".join(f"{s.name} on {s.split}" for s in self.scores)
        raise InputError(f"There is no {name} on {split}; there are {there}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def save(self, folder: Path) -> None:
        """Write card.json, whole."""
        write_whole(folder / CARD, (dumps(self.to_dict()) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> "Card":
        """Read the card of a folder; InputError if there is none, or something else."""
        path = Path(folder) / CARD
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            made = {f.name: told[f.name] for f in fields(cls)}
            read = [Score(**one | {"interval": tuple(one["interval"])}) for one in made["scores"]]
            return cls(**made | {"scores": tuple(read)})
        except FileNotFoundError:
            raise InputError(f"There is no file {path}.") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise InputError(f"{path} is not the card of a model trained here: {type(e).__name__} {e}.") from e


def versions() -> dict[str, str]:
    """Of what has a say in the numbers."""
    import accelerate
    import tokenizers
    import transformers

    return {
        "pellucid": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "accelerate": accelerate.__version__,
        "python": platform.python_version(),
    }
