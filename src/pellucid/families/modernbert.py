"""ModernBERT: pre-norm, gated feed-forward, rotary positions, local windows, first-row or mean pooling."""

from pellucid.encoder.forward import Embedding, Head, Layer, Linear, Net
from pellucid.encoder.scores import Rotary
from pellucid.errors import UnsupportedModel
from pellucid.families.table import FAMILIES, Config, Family, Weights, activation


def _split(p: Linear, parts: int) -> list[Linear]:
    """A fused projection as its parts; views, not copies."""
    biases = [None] * parts if p.b is None else p.b.chunk(parts)
    return [Linear(w, b) for w, b in zip(p.w.chunk(parts), biases, strict=True)]


def _is_global(config: Config, i: int) -> bool:
    types = getattr(config, "layer_types", None)
    if types is not None:
        return str(types[i]) == "full_attention"
    return i % int(config.global_attn_every_n_layers) == 0  # transformers 4


def _rotary_base(config: Config, is_global: bool) -> float:
    rope = getattr(config, "rope_parameters", None)
    if rope is None:  # transformers 4
        local = config.local_rope_theta
        return float(config.global_rope_theta if is_global or local is None else local)
    rule = rope["full_attention" if is_global else "sliding_attention"]
    if rule.get("rope_type", "default") != "default":
        raise UnsupportedModel(
            f"The configuration says rope_parameters rope_type={rule['rope_type']!r}; Pellucid implements 'default'. "
            'Load it with access="gradients" for the methods that need only gradients or outputs.'
        )
    return float(rule["rope_theta"])


def _layer(w: Weights, config: Config, i: int) -> Layer:
    at = f"model.layers.{i}"
    q, k, v = _split(w.linear(f"{at}.attn.Wqkv"), 3)
    up, gated = _split(w.linear(f"{at}.mlp.Wi"), 2)
    is_global = _is_global(config, i)
    first = f"{at}.attn_norm"
    return Layer(
        heads=config.num_attention_heads,
        q=q,
        k=k,
        v=v,
        o=w.linear(f"{at}.attn.Wo"),
        norm1=None if w.get(f"{first}.weight") is None else w.norm(first, config.norm_eps),
        up=up,
        gated=gated,
        down=w.linear(f"{at}.mlp.Wo"),
        act=activation(config, "hidden_activation"),
        norm2=w.norm(f"{at}.mlp_norm", config.norm_eps),
        score=Rotary(_rotary_base(config, is_global)),
        pre=True,
        window=None if is_global else int(config.local_attention) // 2,
    )


def build(w: Weights, config: Config) -> Net:
    """The network of a ModernBertForSequenceClassification."""
    at = "model.embeddings"
    return Net(
        embedding=Embedding(
            word=w[f"{at}.tok_embeddings.weight"],
            position=None,
            types=None,
            constant=None,
            norm=w.norm(f"{at}.norm", config.norm_eps),
            positions="none",
        ),
        layers=tuple(_layer(w, config, i) for i in range(config.num_hidden_layers)),
        final=w.norm("model.final_norm", config.norm_eps),
        head=Head(
            pool="mean" if config.classifier_pooling == "mean" else "first",
            dense=w.linear("head.dense"),
            act=activation(config, "classifier_activation"),
            norm=w.norm("head.norm", config.norm_eps),
            out=w.linear("classifier"),
        ),
    )


FAMILIES.add(
    "modernbert",
    Family(
        "modernbert",
        build,
        closed={"classifier_pooling": ("cls", "mean")},
        reach=lambda config: int(config.local_attention) + 24,
    ),
)
