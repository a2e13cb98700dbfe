"""The identifiable encoder: a Transformer whose keys and values have free widths, as an ordinary Hugging Face model."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from pellucid.encoder.activations import ACTIVATIONS
from pellucid.errors import InputError
from pellucid.families.zoo import sinusoids
from pellucid.zoo.classifier import asked, begin
from pellucid.zoo.configs import IdentifiableEncoderConfig


class Block(nn.Module):
    """Attention with heads of their own widths, then a feed-forward network; norms behind each sum."""

    def __init__(self, config: IdentifiableEncoderConfig) -> None:
        super().__init__()
        d, h = config.hidden_size, config.num_attention_heads
        self.config = config
        self.query = nn.Linear(d, h * config.key_size)
        self.key = nn.Linear(d, h * config.key_size)
        self.value = nn.Linear(d, h * config.value_size)
        self.output = nn.Linear(config.value_size * (1 if config.combine == "add" else h), d)
        self.attention_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.up, self.down = nn.Linear(d, config.intermediate_size), nn.Linear(config.intermediate_size, d)
        self.output_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def _heads(self, y: Tensor) -> Tensor:
        return y.reshape(*y.shape[:-1], self.config.num_attention_heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (self._heads(f(x)) for f in (self.query, self.key, self.value))
        scores = q @ k.mT * self.config.key_size**-0.5
        alpha = F.softmax(scores.masked_fill(~keep[:, None, None, :], torch.finfo(scores.dtype).min), dim=-1)
        z = self.dropout(alpha) @ v
        joined = z.sum(1) if self.config.combine == "add" else z.transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.dropout(self.output(joined)))
        y = self.down(ACTIVATIONS[self.config.hidden_act].f(self.up(x)))
        return self.output_norm(x + self.dropout(y)), alpha


class IdentifiableEncoderForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """A Transformer classifier with decoupled key and value widths; see `IdentifiableEncoderConfig`.

    Padding may stand behind a text, not before it, as positions are counted from the first column.
    """

    config_class = IdentifiableEncoderConfig
    base_model_prefix = "identifiable"
    main_input_name = "input_ids"

    def __init__(self, config: IdentifiableEncoderConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        d, longest = config.hidden_size, config.max_position_embeddings
        self.embeddings = nn.Embedding(config.vocab_size, d, padding_idx=config.pad_token_id)
        if config.positions == "learnt":
            self.positions = nn.Embedding(longest, d)
        self.embedding_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(d, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        begin(module)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Logits of token ids [b, n] or word embeddings [b, n, d]; attentions [b, h, n, n] of each layer.

        token_type_ids are not read.
        """
        if input_ids is None and inputs_embeds is None:
            raise InputError(f"{type(self).__name__} needs input_ids or inputs_embeds; none were given.")
        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        n = x.shape[1]
        keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        keep = keep if attention_mask is None else attention_mask.bool()
        self._check(n, keep)
        if self.config.positions == "learnt":
            x = x + self.positions.weight[:n]
        elif self.config.positions == "sinusoidal":
            x = x + sinusoids(n, x.shape[-1]).to(x)
        x = self.dropout(self.embedding_norm(x))
        streams, alphas = [x], []
        for block in self.blocks:
            x, alpha = block(x, keep)
            streams.append(x)
            alphas.append(alpha)
        if self.config.pool == "first":
            read = x[:, 0]
        else:
            read = torch.einsum("bnd,bn->bd", x, keep / keep.sum(-1, keepdim=True).to(x.dtype))
        logits = self.classifier(self.dropout(read))
        loss = None if labels is None else self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        told = asked(self.config, output_attentions, output_hidden_states, return_dict)
        made = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=tuple(streams) if told.states else None,
            attentions=tuple(alphas) if told.weights else None,
        )
        return made if told.named else made.to_tuple()

    def _check(self, n: int, keep: Tensor) -> None:
        longest = self.config.max_position_embeddings
        if self.config.positions != "none" and n > longest:
            raise InputError(f"This model has {longest} positions; a text of {n} tokens was given: cut it.")
        if not bool(keep.any(-1).all()):
            raise InputError("A text of this batch has no token that is not masked; leave it out.")
        placed = self.config.positions != "none" or self.config.pool == "first"
        if placed and not bool((keep[:, 1:] <= keep[:, :-1]).all()):
            raise InputError("Padding must stand behind the texts (padding_side='right'), not before or within them.")
