"""What turns words into states: x [b, n, d_in], right-padded, and keep [b, n] to h [b, n, width], zero at padding.

Every encoder gives a text the same states whatever its padding and its batch mates.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import InputError
from pellucid.zoo.configs import AttentionClassifierConfig


class Encoder(nn.Module):
    """The identity: states are the word embeddings themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        return x * keep[..., None]


class Embed(Encoder):
    """tanh(W e + b), word by word (Jain & Wallace's "average" encoder)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width)
        self.dense = nn.Linear(width_in, width)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        return torch.tanh(self.dense(x)) * keep[..., None]


class Convolutions(Encoder):
    """Convolutions of several odd widths over words, ReLU, concatenated; zeros outside the text."""

    def __init__(self, width_in: int, width: int, kernels: list[int]) -> None:
        super().__init__(width)
        share = width // len(kernels)
        self.convolutions = nn.ModuleList(nn.Conv1d(width_in, share, k, padding=k // 2) for k in kernels)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        x = (x * keep[..., None]).mT
        h = torch.cat([conv(x) for conv in self.convolutions], 1).mT
        return h.relu() * keep[..., None]


class Recurrent(Encoder):
    """A bidirectional LSTM or GRU of width / 2 each way.

    The way back runs forward over each text turned around, so that no padding is read and none need be packed away.
    """

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], width_in: int, width: int) -> None:
        super().__init__(width)
        self.there = kind(width_in, width // 2, batch_first=True)
        self.back = kind(width_in, width // 2, batch_first=True)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        n = x.shape[1]
        at = torch.arange(n, device=x.device)
        turned = torch.where(keep, keep.sum(-1, keepdim=True) - 1 - at, at)
        back = self.back(_rows(x, turned))[0]
        return torch.cat([self.there(x)[0], _rows(back, turned)], -1) * keep[..., None]


def _rows(x: Tensor, at: Tensor) -> Tensor:
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))


class Blocks(Encoder):
    """Transformer blocks with learnt positions (post-norm, feed-forward of twice the width)."""

    def __init__(self, width_in: int, config: AttentionClassifierConfig) -> None:
        super().__init__(config.hidden_size)
        self.dense = nn.Linear(width_in, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.hidden_size, config.transformer_heads, 2 * config.hidden_size, config.dropout, batch_first=True
            )
            for _ in range(config.transformer_layers)
        )

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        longest = self.positions.num_embeddings
        if x.shape[1] > longest:
            raise InputError(f"This encoder has {longest} positions; a text of {x.shape[1]} was given: cut it.")
        h = self.dense(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h, src_key_padding_mask=~keep)
        return torch.where(keep[..., None], h, torch.zeros_like(h))


class Pretrained(Encoder):
    """A Hugging Face encoder, read at one layer; `x` are its word embeddings."""

    def __init__(self, config: AttentionClassifierConfig) -> None:
        from transformers import AutoConfig, AutoModel

        fields: dict[str, Any] = {
            k: v for k, v in (config.pretrained or {}).items() if k not in ("dtype", "torch_dtype")
        }
        inner = AutoConfig.for_model(fields.pop("model_type"), **fields)
        super().__init__(int(inner.hidden_size))
        self.model, self.layer = AutoModel.from_config(inner), config.pretrained_layer
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # nothing here reads it
        self.typed = "token_type_ids" in inspect.signature(self.model.forward).parameters
        self.typed = self.typed and getattr(inner, "type_vocab_size", 0) > 1

    def forward(self, x: Tensor, keep: Tensor, token_types: Tensor | None = None) -> Tensor:
        given = {"token_type_ids": token_types} if token_types is not None and self.typed else {}
        out = self.model(inputs_embeds=x, attention_mask=keep.long(), output_hidden_states=True, **given)
        h: Tensor = out.hidden_states[self.layer]
        return torch.where(keep[..., None], h, torch.zeros_like(h))


def encoder_of(kind: str, width_in: int, config: AttentionClassifierConfig) -> Encoder:
    """The encoder of that name over inputs `width_in` wide."""
    if kind == "identity":
        return Encoder(width_in)
    if kind == "embed":
        return Embed(width_in, config.hidden_size)
    if kind == "cnn":
        return Convolutions(width_in, config.hidden_size, config.kernels)
    if kind == "transformer":
        return Blocks(width_in, config)
    if kind == "pretrained":
        return Pretrained(config)
    return Recurrent(nn.LSTM if kind == "bilstm" else nn.GRU, width_in, config.hidden_size)
