"""The models of `pellucid.zoo`: the identifiable encoder whole, attention classifiers from their attention on."""

from types import SimpleNamespace

import torch
from torch import Tensor

from pellucid.encoder.activations import ACTIVATIONS
from pellucid.encoder.forward import Embedding, Head, Layer, Linear, Net
from pellucid.encoder.pooled import Pooled
from pellucid.encoder.scores import ScaledDot
from pellucid.families.table import FAMILIES, Config, Family, Weights


def sinusoids(n: int, d: int) -> Tensor:
    """Positions [n, d]: sine and cosine of geometrically falling speeds (Vaswani et al. 2017, arXiv 1706.03762)."""
    speed = 10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = torch.arange(n, dtype=torch.float64)[:, None] * speed
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def _block(w: Weights, config: Config, at: str) -> Layer:
    eps = config.layer_norm_eps
    output = w.linear(f"{at}.output")
    if config.combine == "add":  # W (z_1 + .. + z_H) = [W .. W] [z_1; ..; z_H]
        output = Linear(output.w.repeat(1, config.num_attention_heads), output.b)
    return Layer(
        heads=config.num_attention_heads,
        q=w.linear(f"{at}.query"),
        k=w.linear(f"{at}.key"),
        v=w.linear(f"{at}.value"),
        o=output,
        norm1=w.norm(f"{at}.attention_norm", eps),
        up=w.linear(f"{at}.up"),
        gated=None,
        down=w.linear(f"{at}.down"),
        act=ACTIVATIONS[config.hidden_act],
        norm2=w.norm(f"{at}.output_norm", eps),
        score=ScaledDot(),  # by the width of a query, which is d_k
    )


def identifiable(w: Weights, config: Config) -> Net:
    """The network of an IdentifiableEncoderForSequenceClassification."""
    position = w.get("positions.weight")
    if config.positions == "sinusoidal":  # in no checkpoint, as a model in half precision would round them
        like = w["embeddings.weight"]
        position = sinusoids(config.max_position_embeddings, config.hidden_size).to(like)
    return Net(
        embedding=Embedding(
            word=w["embeddings.weight"],
            position=position,
            types=None,
            constant=None,
            norm=w.norm("embedding_norm", config.layer_norm_eps),
            positions="none" if position is None else "absolute",
        ),
        layers=tuple(_block(w, config, f"blocks.{i}") for i in range(config.num_hidden_layers)),
        final=None,
        head=Head(pool=config.pool, dense=None, act=None, norm=None, out=w.linear("classifier")),
    )


def attention(w: Weights, config: Config) -> Pooled:
    """What follows the last attention of an AttentionClassifierForSequenceClassification."""
    silent = config.normaliser == "gumbel" and config.gumbel_eval == "mean"
    softmax = silent or config.normaliser == "softmax"
    return Pooled(w.linear("classifier"), softmax, float(config.tau) if silent else None)


def _longest(config: Config) -> int | None:
    """Only position tables limit a text's length, and in a hierarchical model they hold sentences."""
    if config.hierarchical:
        return None
    if config.encoder == "pretrained":
        inner = SimpleNamespace(**config.pretrained)
        if inner.model_type in FAMILIES:
            return FAMILIES.get(inner.model_type).limit(inner)
        return getattr(inner, "max_position_embeddings", None) or getattr(inner, "n_positions", None)
    return int(config.max_position_embeddings) if config.encoder == "transformer" else None


FAMILIES.add(
    "pellucid_identifiable",
    Family(
        "pellucid_identifiable",
        identifiable,
        limit=lambda config: None if config.positions == "none" else int(config.max_position_embeddings),
        module="pellucid.zoo",
    ),
)
FAMILIES.add(
    "pellucid_attention",
    Family(
        "pellucid_attention",
        attention,
        closed={"gumbel_eval": ("mean", "expect")},  # "sample" decides anew at every call
        limit=_longest,
        module="pellucid.zoo",
    ),
)
