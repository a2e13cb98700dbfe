"""The two configurations: attention classifiers (encoder x scorer x normaliser) and the identifiable encoder."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from transformers import PretrainedConfig

from pellucid.errors import InputError

EncoderName = Literal["identity", "embed", "cnn", "bilstm", "bigru", "transformer", "pretrained"]
ScorerName = Literal["additive", "deep", "scaled_dot", "linear"]
NormaliserName = Literal["softmax", "gumbel", "sparsemax", "uniform"]
GumbelEval = Literal["mean", "sample", "expect"]


def _one_of(config: str, field: str, value: object, choices: object) -> None:
    listed = get_args(choices)
    if value not in listed:
        raise InputError(f"{config} has no {field}={value!r}; choose one of {', '.join(map(repr, listed))}.")


def _whole(config: str, least: int, **fields: object) -> None:
    """InputError for a value that is not a whole number of at least `least`."""
    for field, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{config} needs a whole number of at least {least} as {field}; seen {value!r}.")


def _number(config: str, low: float, high: float, **fields: object) -> None:
    """InputError for a value that is not a number from `low` to `high`."""
    for field, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise InputError(f"{config} needs a number from {low:g} to {high:g} as {field}; seen {value!r}.")


def _padding(config: str, pad: object, vocabulary: int) -> None:
    if pad is not None and (type(pad) is not int or not 0 <= pad < vocabulary):
        raise InputError(f"{config} has ids 0 to {vocabulary - 1}; pad_token_id={pad!r} is none of them.")


_SIZES = (
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "gumbel_draws",
    "max_sentence_tokens",
    "transformer_layers",
    "transformer_heads",
    "max_position_embeddings",
)


class AttentionClassifierConfig(PretrainedConfig):  # type: ignore[misc]
    """A classifier that reads its text through one attention (flat) or two (words, then sentences).

    encoder: "identity" (word embeddings), "embed" tanh(W e + b), "cnn", "bilstm", "bigru", "transformer" (learnt
      positions), or "pretrained": any Hugging Face encoder, configured by `pretrained`, read at `pretrained_layer`.
    scorer: "additive" v tanh(W h + b), "deep" (a network of `deep_layers` layers), "scaled_dot" q h / sqrt(d) (with
      `key_projection`, q (K h) / sqrt(d_k)), "linear" q h.
    normaliser: "softmax" of s / tau, "gumbel" (noise in training; in evaluation by `gumbel_eval`: "mean", no
      noise, "expect", the mean of `gumbel_draws` draws, or "sample"), "sparsemax", "uniform".
    embedding_size: of words, unless the encoder is pretrained. hidden_size: of states, unless these are the word
      embeddings or a pretrained encoder's; both directions, kernels or heads share it. dropout: on word embeddings and
      on the context. scorer_size: width of a scorer's layers; None: half the states' for "additive", else all of it.
    hierarchical: words are read into sentences and these into the text. A sentence ends behind the tokens of
      `sentence_end_ids` (of full stops, question marks, separators; without any, texts are cut into pieces), and after
      `max_sentence_tokens` in any case. sentence_encoder: default the same as `encoder`,
      or "identity" where that is "pretrained" or "embed".

    Sources: Jain & Wallace 2019, arXiv 1902.10186 (cnn, embed, additive, scaled_dot); Serrano & Smith 2019, arXiv
    1906.03731 (hierarchical); Pavlopoulos et al. 2017 (deep); Wen et al. 2022, arXiv 2211.07714 (the combinations).
    """

    model_type = "pellucid_attention"
    keys_to_ignore_at_inference = ["hidden_states", "attentions", "sources"]  # noqa: RUF012 (Trainer adds to a list)

    def __init__(
        self,
        vocab_size: int = 1000,
        encoder: EncoderName = "bilstm",
        scorer: ScorerName = "additive",
        normaliser: NormaliserName = "softmax",
        embedding_size: int = 128,
        hidden_size: int = 128,
        dropout: float = 0.2,
        tau: float = 1.0,
        gumbel_hard: bool = False,
        gumbel_eval: GumbelEval = "mean",
        gumbel_draws: int = 512,
        scorer_size: int | None = None,
        deep_layers: int = 3,
        deep_activation: Literal["relu", "tanh"] = "relu",
        key_projection: bool = False,
        kernels: Sequence[int] = (1, 3, 5, 7),
        transformer_layers: int = 1,
        transformer_heads: int = 4,
        max_position_embeddings: int = 512,
        pretrained: Mapping[str, Any] | None = None,
        pretrained_layer: int = -1,
        hierarchical: bool = False,
        sentence_encoder: EncoderName | None = None,
        sentence_end_ids: Sequence[int] = (),
        max_sentence_tokens: int = 50,
        pad_token_id: int | None = 0,
        **kwargs: Any,  # what every Hugging Face configuration takes, num_labels among them
    ) -> None:
        self.vocab_size, self.encoder, self.scorer, self.normaliser = vocab_size, encoder, scorer, normaliser
        self.embedding_size, self.hidden_size, self.dropout = embedding_size, hidden_size, dropout
        self.tau, self.gumbel_hard = tau, gumbel_hard
        self.gumbel_eval, self.gumbel_draws = gumbel_eval, gumbel_draws
        self.scorer_size, self.deep_layers, self.deep_activation = scorer_size, deep_layers, deep_activation
        self.key_projection, self.kernels = key_projection, list(kernels)
        self.transformer_layers, self.transformer_heads = transformer_layers, transformer_heads
        self.max_position_embeddings = max_position_embeddings
        self.pretrained = None if pretrained is None else dict(pretrained)
        self.pretrained_layer = pretrained_layer
        plain = "identity" if encoder in ("pretrained", "embed") else encoder
        self.hierarchical, self.sentence_encoder = hierarchical, sentence_encoder or plain
        self.sentence_end_ids, self.max_sentence_tokens = list(sentence_end_ids), max_sentence_tokens
        if self.pretrained is not None:
            self.vocab_size = self.pretrained.get("vocab_size", vocab_size)
        self._check()
        _padding(type(self).__name__, pad_token_id, self.vocab_size)
        super().__init__(pad_token_id=pad_token_id, **kwargs)

    def _check(self) -> None:
        me = type(self).__name__
        _one_of(me, "encoder", self.encoder, EncoderName)
        _one_of(me, "sentence_encoder", self.sentence_encoder, EncoderName)
        _one_of(me, "scorer", self.scorer, ScorerName)
        _one_of(me, "normaliser", self.normaliser, NormaliserName)
        _one_of(me, "gumbel_eval", self.gumbel_eval, GumbelEval)
        _one_of(me, "deep_activation", self.deep_activation, Literal["relu", "tanh"])
        _one_of(me, "gumbel_hard", self.gumbel_hard, Literal[True, False])
        _whole(me, 1, **{name: getattr(self, name) for name in _SIZES})
        _whole(me, 2, deep_layers=self.deep_layers)
        if self.scorer_size is not None:
            _whole(me, 1, scorer_size=self.scorer_size)
        _number(me, 1e-3, 1e3, tau=self.tau)
        _number(me, 0, 0.99, dropout=self.dropout)
        for id_ in self.sentence_end_ids:
            _whole(me, 0, sentence_end_ids=id_)
        used = {self.encoder, self.sentence_encoder if self.hierarchical else self.encoder}
        if self.sentence_encoder == "pretrained" and self.hierarchical:
            raise InputError(f"{me}: the sentence_encoder cannot be 'pretrained', which reads tokens.")
        if "pretrained" in used and (self.pretrained is None or "model_type" not in self.pretrained):
            raise InputError(
                f"{me} with encoder='pretrained' needs the encoder's configuration, with its model_type, in "
                "`pretrained`; AttentionClassifierForSequenceClassification.from_encoder(name) fills it in."
            )
        parts = {"bilstm": 2, "bigru": 2, "cnn": len(self.kernels), "transformer": self.transformer_heads}
        for kind in used & set(parts):
            if parts[kind] < 1 or self.hidden_size % parts[kind]:
                raise InputError(
                    f"{me}: hidden_size={self.hidden_size} cannot be shared by the {parts[kind]} parts of a {kind!r}."
                )
        if any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise InputError(f"{me}: kernels are odd widths, so that states stay at their words; seen {self.kernels}.")


class IdentifiableEncoderConfig(PretrainedConfig):  # type: ignore[misc]
    """A Transformer whose heads have keys and values of free, separate widths, concatenated or truly added.

    key_size: d_k of each head; scores are scaled by d_k^-0.5. value_size: d_v of each head; None: hidden_size / heads
      if concatenated, hidden_size if added. combine: "concat" projects [z_1; ..; z_H] (H d_v wide) to the hidden size,
      "add" projects z_1 + .. + z_H (d_v wide).
    positions: "none", "learnt" or "sinusoidal". pool: the "first" token ([CLS]) or the "mean" of all real ones.

    Source: Bhardwaj et al. 2021, arXiv 2106.01269. Differs from their code, which pools inside heads where it says that
    it adds them, attends to padding, and scales by d_v^-0.5.
    """

    model_type = "pellucid_identifiable"
    keys_to_ignore_at_inference = ["hidden_states", "attentions"]  # noqa: RUF012 (Trainer adds to a list)

    def __init__(
        self,
        vocab_size: int = 1000,
        hidden_size: int = 64,
        num_hidden_layers: int = 1,
        num_attention_heads: int = 4,
        key_size: int = 16,
        value_size: int | None = None,
        combine: Literal["concat", "add"] = "concat",
        intermediate_size: int = 256,
        hidden_act: Literal["relu", "gelu"] = "relu",
        positions: Literal["none", "learnt", "sinusoidal"] = "sinusoidal",
        max_position_embeddings: int = 512,
        pool: Literal["first", "mean"] = "first",
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-5,
        pad_token_id: int | None = 0,
        **kwargs: Any,  # what every Hugging Face configuration takes, num_labels among them
    ) -> None:
        me = type(self).__name__
        _one_of(me, "combine", combine, Literal["concat", "add"])
        _one_of(me, "hidden_act", hidden_act, Literal["relu", "gelu"])
        _one_of(me, "positions", positions, Literal["none", "learnt", "sinusoidal"])
        _one_of(me, "pool", pool, Literal["first", "mean"])
        _whole(me, 1, vocab_size=vocab_size, hidden_size=hidden_size, num_hidden_layers=num_hidden_layers)
        _whole(me, 1, num_attention_heads=num_attention_heads, key_size=key_size, intermediate_size=intermediate_size)
        _whole(me, 1, max_position_embeddings=max_position_embeddings)
        _number(me, 0, 0.99, dropout=dropout)
        _padding(me, pad_token_id, vocab_size)
        if value_size is None:
            value_size = hidden_size if combine == "add" else hidden_size // num_attention_heads
        _whole(me, 1, value_size=value_size)
        if positions == "sinusoidal" and hidden_size % 2:
            raise InputError(f"{me}: sinusoidal positions need an even hidden_size; seen {hidden_size}.")
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.key_size, self.value_size = num_attention_heads, key_size, value_size
        self.combine, self.intermediate_size, self.hidden_act = combine, intermediate_size, hidden_act
        self.positions, self.max_position_embeddings, self.pool = positions, max_position_embeddings, pool
        self.dropout, self.layer_norm_eps = dropout, layer_norm_eps
        super().__init__(pad_token_id=pad_token_id, **kwargs)
