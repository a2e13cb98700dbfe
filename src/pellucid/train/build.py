"""The model of a run: from a configuration or a pretrained one, with weights taken over and frozen as asked."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pellucid.errors import InputError
from pellucid.registry import choose
from pellucid.train.settings import Config, ModelSettings
from pellucid.train.tokens import model_path, sentence_ends
from pellucid.zoo import ZOO, AttentionClassifierForSequenceClassification

_OURS = {
    "vocab_size",
    "num_labels",
    "id2label",
    "label2id",
    "problem_type",
    "pad_token_id",
    "model_type",
    "architectures",
}
"""What the data and the tokenizer tell a configuration."""


def model_for(config: Config, tokenizer: Any, labels: Sequence[str]) -> Any:
    """The model before its first step; the same for the same seed. PyTorch's random numbers are set.

    Raises: InputError for an unknown type or field, with the nearest, and for what transformers refuses.
    """
    told: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "single_label_classification",
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(config.training.seed)
    try:
        return _made(config.model, told, tokenizer).float()
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, OSError, RuntimeError, SafetensorError) as e:
        name = config.model.type or config.model.base
        raise InputError(f"The model {name!r} cannot be made: {(str(e).strip().splitlines() or [''])[0]}") from e


def _made(asked: ModelSettings, told: Mapping[str, Any], tokenizer: Any) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    fields = dict(asked.fields)
    if asked.type is None:
        base = model_path(str(asked.base))
        _check_fields(asked, AutoConfig.from_pretrained(base))
        return AutoModelForSequenceClassification.from_pretrained(
            base, **told, **fields, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    default = _default(asked.type)
    _check_fields(asked, default)
    if "sentence_end_ids" in default.to_dict() and "sentence_end_ids" not in fields:
        fields["sentence_end_ids"] = sentence_ends(tokenizer)
    if asked.base is None:
        made = type(default)(**told, **fields, vocab_size=len(tokenizer))
        return AutoModelForSequenceClassification.from_config(made)
    del fields["encoder"]  # "pretrained", which is what `base` is for
    return AttentionClassifierForSequenceClassification.from_encoder(model_path(asked.base), **told, **fields)


def _default(kind: str) -> Any:
    """The configuration of a type as it is when nothing is told."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    if kind in ZOO:
        return ZOO[kind]()
    if kind not in KNOWN:
        near = get_close_matches(kind, [*ZOO, *KNOWN], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"There is no model type {kind!r}.{hint} Choose {', '.join(ZOO)} or a Hugging Face type that classifies "
            "sequences, such as bert."
        )
    return AutoConfig.for_model(kind)


def _check_fields(asked: ModelSettings, default: Any) -> None:
    known = {*default.to_dict(), *(default.attribute_map or {})} - _OURS
    for name in asked.fields:
        if name in _OURS:
            raise InputError(f"model.{name} follows from the data and the tokenizer; leave it out.")
        choose(f"field of the model {asked.type or asked.base!r}", name, sorted(known))


def take_over(model: nn.Module, folder: str, tokenizer: Any) -> dict[str, Any]:
    """Weights of another model's folder into parameters of the same name and shape; what was taken and what was not.

    Raises: InputError if there is no such model, if its tokens are others, or if nothing fits.
    """
    from transformers import AutoTokenizer

    try:
        place = Path(folder).expanduser()
        given = load_file(place / "model.safetensors")
        vocabulary = AutoTokenizer.from_pretrained(str(place)).get_vocab()
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        raise InputError(f"training.init_from = {folder!r} is no folder of a trained model: {e}.") from e
    if vocabulary != tokenizer.get_vocab():
        raise InputError(
            f"{folder} was trained with other tokens ({len(vocabulary)}, here {len(tokenizer)}), so its weights would "
            f'mean something else here; set tokenizer.kind="from" and tokenizer.name={folder!r}.'
        )
    own = model.state_dict()
    taken = [name for name, w in own.items() if name in given and given[name].shape == w.shape]
    if not taken:
        raise InputError(f"No weight of {folder} has the name and shape of one of this model; leave init_from out.")
    model.load_state_dict({name: given[name] for name in taken}, strict=False)
    left = {name: list(w.shape) for name, w in own.items() if name not in taken}
    return {"folder": folder, "taken": {name: list(own[name].shape) for name in taken}, "left": left}


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Parameters whose names begin so are not trained; InputError for a beginning that none has."""
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            choose("parameter to freeze that begins with", prefix, names)
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith(tuple(prefixes)) if prefixes else p.requires_grad)
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("training.freeze leaves no parameter to train; freeze fewer.")
