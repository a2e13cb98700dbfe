"""Attention classifiers as ordinary Hugging Face models: words, states, attention, one linear layer."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from pellucid.errors import InputError
from pellucid.zoo.configs import AttentionClassifierConfig
from pellucid.zoo.encoders import Pretrained, encoder_of
from pellucid.zoo.layout import Compact, Sentences
from pellucid.zoo.pooling import Pool


@dataclass
class AttentionClassifierOutput(ModelOutput):  # type: ignore[misc]
    """Logits [b, c] and, if asked for, what they were read from.

    hidden_states: word embeddings [b, n, e], then what each attention reads: word states [b, n, d] and, if
    hierarchical, sentence states [b, s, d]. attentions: each attention's weights, [b, 1, 1, n] (in a hierarchical model
    they sum to one in each sentence) and [b, 1, 1, s]. sources [b, n]: which of the last states each token went into,
    -1 at padding.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    sources: Tensor | None = None


class Asked(NamedTuple):
    """What a call wants back; the configuration says what it leaves open."""

    weights: bool
    states: bool
    named: bool


def asked(config: Any, attentions: bool | None, states: bool | None, named: bool | None) -> Asked:
    """The arguments of a call, with the configuration's values for None."""
    return Asked(
        config.output_attentions if attentions is None else attentions,
        config.output_hidden_states if states is None else states,
        config.return_dict if named is None else named,
    )


def begin(module: nn.Module) -> None:
    """First weights: embeddings N(0, 0.1), Glorot for matrices, orthogonal for recurrent ones, zero biases."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.1)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.Linear, nn.Conv1d, nn.LSTM, nn.GRU, nn.MultiheadAttention)):
        for name, p in module.named_parameters(recurse=False):
            if p.dim() < 2:
                nn.init.zeros_(p)
            elif "weight_hh" in name:
                for gate in p.detach().chunk(p.shape[0] // p.shape[1]):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.xavier_uniform_(p)


class AttentionClassifierForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """encoder x scorer x normaliser, flat or hierarchical; see `AttentionClassifierConfig`.

    Padding may stand anywhere: a text is read without it. `structure_from_ids`: where sentences end is told by ids, so
    these are given beside `inputs_embeds`.
    """

    config_class = AttentionClassifierConfig
    base_model_prefix = "attention_classifier"
    main_input_name = "input_ids"

    def __init__(self, config: AttentionClassifierConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.structure_from_ids = config.hierarchical
        width = config.embedding_size
        if config.encoder == "pretrained":
            self.embeddings = None
        else:
            self.embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.words = encoder_of(config.encoder, width, config)
        self.word_pool = Pool(config, self.words.width)
        width = self.words.width
        if config.hierarchical:
            self.sentences = encoder_of(config.sentence_encoder, width, config)
            width = self.sentences.width
            self.sentence_pool = Pool(config, width)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(width, config.num_labels)
        self.post_init()

    @classmethod
    def from_encoder(cls, name: str, **fields: Any) -> "AttentionClassifierForSequenceClassification":
        """A new classifier over the weights of a Hugging Face encoder, by hub name or folder; `fields` are those of
        `AttentionClassifierConfig`."""
        try:
            inner, trained = AutoConfig.from_pretrained(name), AutoModel.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as e:
            raise InputError(
                f"No encoder could be read from {name!r}: {(str(e).strip().splitlines() or [''])[0]}"
            ) from e
        told = {**inner.to_dict(), "model_type": inner.model_type}
        ids = {"pad_token_id": inner.pad_token_id}
        made = cls(AttentionClassifierConfig(encoder="pretrained", pretrained=told, **{**ids, **fields}))
        own = made._inner().state_dict()
        made._inner().load_state_dict({k: v for k, v in trained.state_dict().items() if k in own})
        return made

    def _init_weights(self, module: nn.Module) -> None:
        begin(module)

    def _inner(self) -> Any:
        return self.words.model

    def get_input_embeddings(self) -> nn.Module:
        table: nn.Module = self._inner().get_input_embeddings() if self.embeddings is None else self.embeddings
        return table

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        if self.embeddings is None:
            self._inner().set_input_embeddings(value)
            self.config.pretrained["vocab_size"] = value.num_embeddings
        else:
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
    ) -> AttentionClassifierOutput | tuple[Any, ...]:
        """Logits of token ids [b, n], or of word embeddings [b, n, e] (a hierarchical model needs the ids as well).

        token_type_ids are read by a pretrained encoder alone. Raises: InputError without ids where they are needed.
        """
        keep = self._keep(input_ids, inputs_embeds, attention_mask)
        order = Compact.of(keep)
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        x, keep = order.there(inputs_embeds), order.there(keep)
        types = None if token_type_ids is None else order.there(token_type_ids)
        read: tuple[Tensor, ...]
        alphas: tuple[Tensor, ...]
        if self.config.hierarchical and input_ids is not None:
            ends, longest = self.config.sentence_end_ids, self.config.max_sentence_tokens
            sentences = Sentences.of(order.there(input_ids), keep, ends, longest)
            context, read, alphas = self._by_sentence(self.dropout(x), sentences, types)
            index = sentences.index
        else:
            words = self._words(self.dropout(x), keep, types)
            context, alpha = self.word_pool(words, keep)
            read, alphas = (words,), (alpha,)
            index = torch.arange(keep.shape[1], device=keep.device).expand(keep.shape)
        logits = self.classifier(self.dropout(context))
        loss = None if labels is None else self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        told = asked(self.config, output_attentions, output_hidden_states, return_dict)
        made = AttentionClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=(order.back(x), order.back(read[0]), *read[1:]) if told.states else None,
            attentions=tuple(a[:, None, None] for a in (order.back(alphas[0]), *alphas[1:])) if told.weights else None,
            sources=order.back(torch.where(keep, index, -1)) if told.weights else None,
        )
        return made if told.named else made.to_tuple()

    def _keep(self, ids: Tensor | None, embeds: Tensor | None, mask: Tensor | None) -> Tensor:
        given = embeds if ids is None else ids
        if given is None or (ids is None and self.config.hierarchical):
            what = (
                "input_ids, which tell where sentences end"
                if self.config.hierarchical
                else "input_ids or inputs_embeds"
            )
            raise InputError(f"{type(self).__name__} needs {what}; none were given.")
        if mask is None:
            return torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
        if not bool(mask.bool().any(-1).all()):
            raise InputError(
                f"{type(self).__name__}: a text of this batch has no token that is not masked; leave it out."
            )
        return mask.bool()

    def _words(self, x: Tensor, keep: Tensor, types: Tensor | None) -> Tensor:
        states: Tensor = self.words(x, keep, types) if isinstance(self.words, Pretrained) else self.words(x, keep)
        return states

    def _by_sentence(
        self, x: Tensor, sentences: Sentences, types: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Context [b, d], the states of words [b, n, d] and of sentences [b, s, d], and the weights of both.

        Words are encoded sentence by sentence, so that a sentence's vector depends on nothing outside it.
        """
        keep = sentences.split(sentences.keep)
        words = self._words(sentences.split(x), keep, None if types is None else sentences.split(types))
        vectors, alpha = self.word_pool(words, keep)
        states = self.sentences(sentences.by_text(vectors), sentences.real)
        context, beta = self.sentence_pool(states, sentences.real)
        return context, (sentences.joined(words), states), (sentences.joined(alpha), beta)
