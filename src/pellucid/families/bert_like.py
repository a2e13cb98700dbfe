"""Post-norm encoders that differ from BERT in names, scores, embeddings and head: one row of a table each."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pellucid.encoder.activations import ACTIVATIONS
from pellucid.encoder.forward import Embedding, Head, Layer, Linear, Net, norm
from pellucid.encoder.ops import Ops, split_heads
from pellucid.encoder.scores import Disentangled, RelativeBias, ScaledDot, Score
from pellucid.families.table import FAMILIES, Config, Family, Weights, activation


@dataclass(frozen=True)
class Names:
    """Weight names within one block and around it; "{}" is the block's number."""

    base: str
    block: str = "encoder.layer.{}"
    q: str = "attention.self.query"
    k: str = "attention.self.key"
    v: str = "attention.self.value"
    o: str = "attention.output.dense"
    norm1: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm2: str = "output.LayerNorm"
    act: str = "hidden_act"
    heads: str = "num_attention_heads"
    depth: str = "num_hidden_layers"


@dataclass(frozen=True)
class HeadNames:
    """Weight names of the classification head and its activation: a name, or "@field" of the configuration."""

    dense: str
    out: str
    act: str


POOLED = HeadNames("{base}.pooler.dense", "classifier", "tanh")
OWN = HeadNames("classifier.dense", "classifier.out_proj", "tanh")
BERT = Names("bert")

Blocks = Callable[[Config, Names], list[str]]
Scoring = Callable[[Weights, Config, Names, str], Score]


def _one_by_one(config: Config, names: Names) -> list[str]:
    return [f"{names.base}.{names.block.format(i)}" for i in range(getattr(config, names.depth))]


def _shared(config: Config, names: Names) -> list[str]:
    """ALBERT: layers share weights by group, and a group may hold several blocks."""
    per_group = config.num_hidden_layers / config.num_hidden_groups
    return [
        f"{names.base}.encoder.albert_layer_groups.{int(i / per_group)}.albert_layers.{j}"
        for i in range(config.num_hidden_layers)
        for j in range(config.inner_group_num)
    ]


def _scaled_dot(w: Weights, config: Config, names: Names, block: str) -> Score:
    return ScaledDot()


def _relative_bias(w: Weights, config: Config, names: Names, block: str) -> Score:
    return RelativeBias(w[f"{names.base}.encoder.relative_attention_bias.weight"])


def _disentangled(w: Weights, config: Config, names: Names, block: str) -> Score:
    types = config.pos_att_type or []
    reach = config.max_relative_positions
    reach = config.max_position_embeddings if reach < 1 else reach
    span = config.position_buckets if config.position_buckets > 0 else reach
    rel: dict[str, Tensor | None] = {"c2p": None, "p2c": None}
    if config.relative_attention:
        table = w[f"{names.base}.encoder.rel_embeddings.weight"]
        if "layer_norm" in config.norm_rel_ebd:
            table = norm(Ops(), "", w.norm(f"{names.base}.encoder.LayerNorm", config.layer_norm_eps), table)
        shared = {"c2p": names.k, "p2c": names.q}
        own = {"c2p": "attention.self.pos_key_proj", "p2c": "attention.self.pos_query_proj"}
        for term in set(types) & set(rel):
            p = w.linear(f"{block}.{(shared if config.share_att_key else own)[term]}")
            y = torch.nn.functional.linear(table[: 2 * span], p.w, p.b)
            rel[term] = split_heads(y, config.num_attention_heads)
    terms = 1 + ("c2p" in types) + ("p2c" in types)
    return Disentangled(terms, span, config.position_buckets, reach, rel["c2p"], rel["p2c"])


def _embedding(w: Weights, config: Config, names: Names) -> Embedding:
    at = f"{names.base}.embeddings"
    position = w.get(f"{at}.position_embeddings.weight")
    task = w.get(f"{at}.task_type_embeddings.weight")
    return Embedding(
        word=w[f"{at}.word_embeddings.weight"],
        position=position,
        types=w.get(f"{at}.token_type_embeddings.weight"),
        constant=None if task is None else task[0],
        norm=w.norm(f"{at}.LayerNorm", getattr(config, "layer_norm_eps", 1e-12)),
        positions="none" if position is None else "absolute",
    )


def _offset(e: Embedding, w: Weights, config: Config) -> Embedding:
    return replace(e, positions="offset", padding=config.pad_token_id)


def _offset_from_one(e: Embedding, w: Weights, config: Config) -> Embedding:
    return replace(e, positions="offset", padding=1)  # MPNet fixes its padding id, whatever the configuration says


def _projection(name: str, after: bool) -> Callable[[Embedding, Weights, Config], Embedding]:
    def add(e: Embedding, w: Weights, config: Config) -> Embedding:
        if w.get(f"{name}.weight") is None:
            return e
        return replace(e, after=w.linear(name)) if after else replace(e, before=w.linear(name))

    return add


def _plain(e: Embedding, w: Weights, config: Config) -> Embedding:
    return e


@dataclass(frozen=True)
class Builder:
    """One row: how a BERT-like family differs."""

    names: Names
    head: HeadNames
    blocks: Blocks = _one_by_one
    score: Scoring = _scaled_dot
    embedding: Callable[[Embedding, Weights, Config], Embedding] = _plain

    def __call__(self, w: Weights, config: Config) -> Net:
        n = self.names
        e = self.embedding(_embedding(w, config, n), w, config)
        blocks: dict[str, Layer] = {}  # ALBERT repeats blocks: build each once
        layers = []
        for at in self.blocks(config, n):
            blocks[at] = blocks.get(at) or self._layer(w, config, at)
            layers.append(blocks[at])
        act = self.head.act
        head = Head(
            pool="first",
            dense=w.linear(self.head.dense.format(base=n.base)),
            act=activation(config, act[1:]) if act.startswith("@") else ACTIVATIONS[act],
            norm=None,
            out=w.linear(self.head.out),
        )
        return Net(e, tuple(layers), None, head)

    def _layer(self, w: Weights, config: Config, at: str) -> Layer:
        n = self.names
        eps = getattr(config, "layer_norm_eps", 1e-12)

        def part(name: str) -> Linear:
            return w.linear(f"{at}.{name}")

        return Layer(
            heads=getattr(config, n.heads),
            q=part(n.q),
            k=part(n.k),
            v=part(n.v),
            o=part(n.o),
            norm1=w.norm(f"{at}.{n.norm1}", eps),
            up=part(n.up),
            gated=None,
            down=part(n.down),
            act=activation(config, n.act),
            norm2=w.norm(f"{at}.{n.norm2}", eps),
            score=self.score(w, config, n, at),
        )


_CLOSED: dict[str, tuple[object, ...]] = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "position_embedding_type": ("absolute",),
}


def _offset_limit(config: Config) -> int:
    return int(config.max_position_embeddings - config.pad_token_id - 1)


def _add(model_type: str, builder: Builder, **options: object) -> None:
    closed = {**_CLOSED, **options.pop("closed", {})}  # type: ignore[dict-item]
    FAMILIES.add(model_type, Family(model_type, builder, closed, **options))  # type: ignore[arg-type]


_ROBERTA = Builder(replace(BERT, base="roberta"), OWN, embedding=_offset)

_add("bert", Builder(BERT, POOLED))
_add("roberta", _ROBERTA, limit=_offset_limit)
_add("xlm-roberta", _ROBERTA, limit=_offset_limit)
_add("camembert", _ROBERTA, limit=_offset_limit)
_add("ernie", Builder(replace(BERT, base="ernie"), POOLED))
_add(
    "electra",
    Builder(
        replace(BERT, base="electra"),
        replace(OWN, act="gelu"),
        embedding=_projection("electra.embeddings_project", after=True),
    ),
)
_add(
    "distilbert",
    Builder(
        Names(
            "distilbert",
            block="transformer.layer.{}",
            q="attention.q_lin",
            k="attention.k_lin",
            v="attention.v_lin",
            o="attention.out_lin",
            norm1="sa_layer_norm",
            up="ffn.lin1",
            down="ffn.lin2",
            norm2="output_layer_norm",
            act="activation",
            heads="n_heads",
            depth="n_layers",
        ),
        HeadNames("pre_classifier", "classifier", "relu"),
    ),
)
_add(
    "albert",
    Builder(
        Names(
            "albert",
            q="attention.query",
            k="attention.key",
            v="attention.value",
            o="attention.dense",
            norm1="attention.LayerNorm",
            up="ffn",
            down="ffn_output",
            norm2="full_layer_layer_norm",
        ),
        HeadNames("albert.pooler", "classifier", "tanh"),
        blocks=_shared,
        embedding=_projection("albert.encoder.embedding_hidden_mapping_in", after=True),
    ),
)
_add(
    "mpnet",
    Builder(
        replace(
            BERT,
            base="mpnet",
            q="attention.attn.q",
            k="attention.attn.k",
            v="attention.attn.v",
            o="attention.attn.o",
            norm1="attention.LayerNorm",
        ),
        OWN,
        score=_relative_bias,
        embedding=_offset_from_one,
    ),
    reach=lambda config: 160,
    limit=lambda config: int(config.max_position_embeddings - 2),
)
_add(
    "deberta-v2",
    Builder(
        replace(
            BERT,
            base="deberta",
            q="attention.self.query_proj",
            k="attention.self.key_proj",
            v="attention.self.value_proj",
        ),
        HeadNames("pooler.dense", "classifier", "@pooler_hidden_act"),
        score=_disentangled,
        embedding=_projection("deberta.embeddings.embed_proj", after=False),
    ),
    closed={"conv_kernel_size": (0,)},
    reach=lambda config: max(24, getattr(config, "position_buckets", 0) + 24),
)
