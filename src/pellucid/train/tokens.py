"""Texts as tokens: a tokenizer trained on the training texts, or taken over; and rows that the model reads."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pellucid.data import Corpus, Split
from pellucid.errors import InputError
from pellucid.train.settings import Config, TokenizerSettings

SENTENCE_ENDS = (".", "!", "?")
Row = dict[str, Tensor]


@dataclass(frozen=True)
class Encoded:
    """A split's rows, longest first. cut: texts longer than max_tokens. unknown: the share of unknown tokens."""

    rows: list[Row]
    cut: int
    unknown: float

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row["input_ids"]) for row in self.rows]


def tokenizer_for(config: Config, corpus: Corpus) -> Any:
    """The tokenizer of a run. The same texts and settings give the same one."""
    asked = config.tokenizer
    kind = asked.kind or ("from" if config.model.base is not None else "words")
    if kind == "from":
        found, base = _taken_over(asked.name or str(config.model.base)), config.model.base
        if base is not None and asked.name is not None and found.get_vocab() != _taken_over(base).get_vocab():
            raise InputError(
                f"The tokenizer of {asked.name} has other tokens than {base} has learned; leave the name out."
            )
        return found
    return _trained(asked, kind, corpus, asked.cls if asked.cls is not None else config.model.type != "attention")


def model_path(name: str) -> str:
    """A model's name or folder, "~" resolved; InputError for a path that leads nowhere."""
    path = Path(name).expanduser()
    if not path.is_dir() and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise InputError(f"There is no folder {name}.")
    if path.is_dir() and not (path / "config.json").exists():
        raise InputError(f"The folder {name} has no config.json, so it holds no Hugging Face model.")
    return str(path) if path.is_dir() else name


def _taken_over(name: str) -> Any:
    from transformers import AutoTokenizer

    name = model_path(name)
    try:
        found = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"No tokenizer could be read from {name!r}: {(str(e).strip().splitlines() or [''])[0]}") from e
    if found.pad_token is None:
        found.pad_token = found.eos_token or found.unk_token
    return found


def _trained(asked: TokenizerSettings, kind: str, corpus: Corpus, cls: bool) -> Any:
    """A tokenizer of the training texts alone: [PAD], [UNK], then [CLS] and [SEP] where needed, then by frequency."""
    from tokenizers import Tokenizer, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    pairs = isinstance(corpus.train.texts[0], tuple)
    special = ["[PAD]", "[UNK]", *["[CLS]"] * cls, *["[SEP]"] * pairs]
    sizes: dict[str, Any] = {"min_frequency": asked.min_count, "show_progress": False}
    steps: normalizers.Normalizer
    trainer: trainers.Trainer
    if kind == "words":
        steps = normalizers.Sequence([normalizers.NFC(), *[normalizers.Lowercase()] * asked.lowercase])
        trainer = trainers.WordLevelTrainer(vocab_size=asked.vocab_size, special_tokens=special, **sizes)
        made = Tokenizer(models.WordLevel(_vocabulary(models.WordLevel(), steps, trainer, corpus), unk_token="[UNK]"))
    else:
        steps = normalizers.BertNormalizer(lowercase=asked.lowercase)
        # letters inside words are numbered by chance, and ties between pairs of pieces go by number; so they come first
        letters = trainers.WordPieceTrainer(vocab_size=1, special_tokens=special, **sizes)
        found = _vocabulary(models.WordPiece(), steps, letters, corpus)
        first = special + sorted(piece for piece in found if piece.startswith("##"))
        trainer = trainers.WordPieceTrainer(vocab_size=asked.vocab_size, special_tokens=first, **sizes)
        made = Tokenizer(models.WordPiece(_vocabulary(models.WordPiece(), steps, trainer, corpus), unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = steps, _between()
    _frame(made, cls, pairs)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    names |= {"cls_token": "[CLS]"} if cls else {}
    names |= {"sep_token": "[SEP]"} if pairs else {}
    inputs = ["input_ids", *["token_type_ids"] * pairs, "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=inputs, **names)


def _between() -> Any:
    """Words end at spaces, and every mark of punctuation is one by itself."""
    from tokenizers.pre_tokenizers import BertPreTokenizer

    return BertPreTokenizer()


def _vocabulary(model: Any, normaliser: Any, trainer: Any, corpus: Corpus) -> dict[str, int]:
    """What a trainer makes of the training texts."""
    from tokenizers import Tokenizer

    scratch = Tokenizer(model)
    scratch.normalizer, scratch.pre_tokenizer = normaliser, _between()
    parts = (part for text in corpus.train.texts for part in ((text,) if isinstance(text, str) else text))
    scratch.train_from_iterator(parts, trainer, length=len(corpus.train))
    found: dict[str, int] = scratch.get_vocab()
    return found


def _frame(made: Any, cls: bool, pairs: bool) -> None:
    """[CLS] in front and [SEP] between the texts of a pair."""
    from tokenizers.processors import TemplateProcessing

    front = "[CLS] " * cls
    ids = [(name, made.token_to_id(name)) for name in (["[CLS]"] * cls + ["[SEP]"] * pairs)]
    if ids:
        both = f"{front}$A [SEP] $B:1" if pairs else f"{front}$A $B:1"
        made.post_processor = TemplateProcessing(single=f"{front}$A", pair=both, special_tokens=ids)


def sentence_ends(tokenizer: Any) -> list[int]:
    """The ids of the tokens that end a sentence, as far as the vocabulary has them: marks, and what parts texts."""
    vocabulary = tokenizer.get_vocab()
    marks = (*SENTENCE_ENDS, tokenizer.sep_token, tokenizer.eos_token)
    return sorted({vocabulary[mark] for mark in marks if mark in vocabulary})


def reads_types(model: Any, tokenizer: Any) -> bool:
    """Whether token types are told and read."""
    takes = inspect.signature(model.forward).parameters
    return "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in takes


def encode(tokenizer: Any, split: Split, name: str, max_tokens: int | None, limit: int | None, types: bool) -> Encoded:
    """A split as rows, longest first. `limit` is what the model reads; types: whether it reads token types.

    Raises: InputError for texts over the limit, unless max_tokens cuts them, and for texts without tokens.
    """
    if max_tokens is not None and limit is not None and max_tokens > limit:
        raise InputError(f"data.max_tokens is {max_tokens}, but the model reads at most {limit} tokens; lower it.")
    kinds = {"return_attention_mask": False, "return_token_type_ids": types, "verbose": False}
    made = tokenizer(*_columns(split.texts), return_special_tokens_mask=True, **kinds)
    bare = [i for i, special in enumerate(made["special_tokens_mask"]) if all(special)]
    if bare:
        raise InputError(
            f"{len(bare)} {name} texts hold no tokens, the first is {split.texts[bare[0]]!r}; remove them."
        )
    ids, kept = made["input_ids"], made.get("token_type_ids")
    over = [i for i, row in enumerate(ids) if len(row) > (max_tokens or limit or len(row))]
    if over and max_tokens is None:
        longest = max(len(ids[i]) for i in over)
        raise InputError(
            f"{len(over)} of {len(ids)} {name} texts are longer than the {limit} tokens that the model reads (up to "
            f"{longest}); set data.max_tokens={limit} to cut them there."
        )
    if over:
        _check_room(tokenizer, max_tokens)
        short = tokenizer(
            *_columns([split.texts[i] for i in over]), truncation="longest_first", max_length=max_tokens, **kinds
        )
        for j, i in enumerate(over):
            ids[i] = short["input_ids"][j]
            if kept is not None:
                kept[i] = short["token_type_ids"][j]
    rows: list[Row] = []
    for i in sorted(range(len(ids)), key=lambda i: -len(ids[i])):
        row = {"input_ids": torch.tensor(ids[i]), "labels": torch.tensor(split.classes[i])}
        rows.append(row if kept is None else row | {"token_type_ids": torch.tensor(kept[i])})
    tokens = sum(map(len, ids))
    unknown = sum(row.count(tokenizer.unk_token_id) for row in ids) / tokens
    return Encoded(rows, len(over), unknown)


def _check_room(tokenizer: Any, max_tokens: int | None) -> None:
    """InputError if the cut leaves nothing but special tokens."""
    marks = tokenizer.num_special_tokens_to_add()
    if max_tokens is not None and max_tokens <= marks:
        raise InputError(
            f"data.max_tokens = {max_tokens} leaves no token of a text beside {marks} special ones; raise it."
        )


def _columns(texts: Sequence[Any]) -> list[list[str]]:
    """One list of texts, or two of the parts of pairs."""
    return [list(texts)] if isinstance(texts[0], str) else [list(column) for column in zip(*texts, strict=True)]


@dataclass(frozen=True)
class Padded:
    """Rows as one batch, padded behind to the longest."""

    pad: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """input_ids and attention_mask [b, n], labels [b], and token_type_ids [b, n] if the rows have them."""
        ids = [row["input_ids"] for row in rows]
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad),
            "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
            "labels": torch.stack([row["labels"] for row in rows]),
        }
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = pad_sequence([row["token_type_ids"] for row in rows], batch_first=True)
        return batch
