"""Tiny random models of every family, made from configurations: three classes, float64 unless told otherwise."""

from functools import cache
from types import ModuleType
from typing import Any

import torch
import transformers as tf

import pellucid
from pellucid import Batch, zoo
from pellucid.methods import METHODS, Method, PointwiseInformation, Probe
from pellucid.methods.pointwise import states

_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 60,
    "num_labels": 3,
    "pad_token_id": 0,
}
_ROBERTA = {**_BERT, "pad_token_id": 1}
_DEBERTA = {
    **_BERT,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "max_relative_positions": -1,
    "position_buckets": 8,
    "type_vocab_size": 0,
}
_DEBERTA_V2 = {
    **_DEBERTA,
    "share_att_key": False,
    "position_buckets": -1,
    "position_biased_input": True,
    "type_vocab_size": 2,
    "norm_rel_ebd": "none",
    "embedding_size": 16,
}
_MODERN = {
    **_BERT,
    "num_hidden_layers": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "local_attention": 6,
}
_MODERN_MEAN = {
    **_MODERN,
    "classifier_pooling": "mean",
    "attention_bias": True,
    "mlp_bias": True,
    "norm_bias": True,
    "classifier_bias": True,
}
_IDENTIFIABLE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "key_size": 5,
    "intermediate_size": 48,
    "vocab_size": 60,
    "num_labels": 3,
}
_DISTIL = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "vocab_size": 60, "num_labels": 3}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _BERT),
    "bert_relu": ("Bert", {**_BERT, "hidden_act": "relu"}),
    "bert_gelu_new": ("Bert", {**_BERT, "hidden_act": "gelu_new"}),
    "roberta": ("Roberta", _ROBERTA),
    "xlm_roberta": ("XLMRoberta", _ROBERTA),
    "camembert": ("Camembert", _ROBERTA),
    "ernie": ("Ernie", {**_BERT, "use_task_id": True}),
    "electra": ("Electra", {**_BERT, "embedding_size": 16}),
    "distilbert": ("DistilBert", _DISTIL),
    "albert": ("Albert", {**_BERT, "embedding_size": 16, "num_hidden_layers": 4, "num_hidden_groups": 2}),
    "albert_inner": ("Albert", {**_BERT, "embedding_size": 16, "num_hidden_layers": 2, "inner_group_num": 2}),
    "deberta_v3": ("DebertaV2", _DEBERTA),
    "deberta_v2": ("DebertaV2", _DEBERTA_V2),
    "mpnet": ("MPNet", _ROBERTA),
    "modernbert": ("ModernBert", _MODERN),
    "modernbert_mean": ("ModernBert", _MODERN_MEAN),
    "identifiable": ("IdentifiableEncoder", {**_IDENTIFIABLE, "value_size": 12, "positions": "learnt", "pool": "mean"}),
    "identifiable_add": (
        "IdentifiableEncoder",
        {**_IDENTIFIABLE, "combine": "add", "value_size": 8, "hidden_act": "gelu"},
    ),
}
"""Name -> (Hugging Face class prefix, configuration)."""


def home(prefix: str) -> ModuleType:
    """Where the classes of that prefix are defined: in our zoo or in transformers."""
    return zoo if hasattr(zoo, f"{prefix}Config") else tf


def build(family: str, dtype: torch.dtype = torch.float64, attention: str | None = None, seed: int = 0, **over: Any):
    """A Hugging Face classifier with random weights far from their initial values, in evaluation mode."""
    prefix, fields = FAMILIES[family]
    config = getattr(home(prefix), f"{prefix}Config")(**{**fields, **over})
    kind = getattr(home(prefix), f"{prefix}ForSequenceClassification")
    if attention is None:
        attention = "sdpa" if kind._supports_sdpa else "eager"
    torch.manual_seed(seed)
    hf = kind._from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for p in hf.parameters():
            p.add_(0.15 * torch.randn_like(p))
    return hf.to(dtype).eval()


@cache
def opened(family: str, dtype: torch.dtype = torch.float64) -> pellucid.Model:
    """The tiny model of a family, opened once per test run."""
    return pellucid.load(build(family, dtype))


def batch(model: pellucid.Model, lengths: tuple[int, ...] = (14, 9, 1), seed: int = 1) -> Batch:
    """Random ids, padded on the right with the model's own padding id; rows of the given lengths."""
    n = max(lengths)
    ids = torch.randint(5, 55, (len(lengths), n), generator=torch.Generator().manual_seed(seed))
    keep = torch.arange(n) < torch.tensor(lengths)[:, None]
    ids[~keep] = model.hf.config.pad_token_id or 0
    return Batch(ids, keep)


@cache
def probe(model: pellucid.Model) -> Probe:
    """A random probe of the states that the last attention of a model reads."""
    layer = 0 if model.net is None else len(model.net.layers) - 1
    generator = torch.Generator().manual_seed(0)
    seen = states(model, model.named(Batch(torch.ones(1, 2, dtype=torch.long))), layer)
    d, c = seen.h.shape[-1], seen.logits.shape[-1]

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layers = ((drawn(5, d), drawn(5)), (drawn(c, 5), drawn(c)))
    about = {"layer": layer, "weights": model.fingerprint.sha256}
    return Probe(drawn(d), 1 + drawn(d) ** 2, layers, 2.0, drawn(c).log_softmax(-1), about)


def method(name: str, model: pellucid.Model) -> Method:
    """The registered method, with what it must be given for this model."""
    found = METHODS.get(name)
    fitted = isinstance(found, PointwiseInformation) and model.access >= found.needs
    return PointwiseInformation(probe(model)) if fitted else found
