"""How a result was made: the model, its weights, its parity, the versions."""

import platform
from typing import Any

import torch

from pellucid._version import __version__
from pellucid.encoder.model import Model


def versions() -> dict[str, str]:
    """Of the programs that make a result."""
    import transformers

    return {
        "pellucid": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def provenance(model: Model) -> dict[str, Any]:
    """What every result tells of its model and of the programs that made it, JSON-ready."""
    return {
        "model": model.id,
        "family": model.family,
        "access": model.access.name,
        "weights": model.fingerprint.sha256,
        "parity": model.parity,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": versions(),
    }
