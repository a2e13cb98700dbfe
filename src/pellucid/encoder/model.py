"""A classifier that `load` has opened: what it can show, its tokenizer, its labels, its network."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.encoder import forward
from pellucid.encoder.forward import Net
from pellucid.encoder.ops import Ops
from pellucid.encoder.pooled import Pooled, Pooling, pooling
from pellucid.encoder.weights import Fingerprint, in_dtype
from pellucid.errors import AccessError, InputError, ModelChanged
from pellucid.types import Batch, Text, Token


class Access(IntEnum):
    """How much of a model can be seen; each level includes those below it."""

    OUTPUTS = 0
    GRADIENTS = 1
    READOUT = 2
    ENCODER = 3


@contextmanager
def at_rest(hf: nn.Module) -> Iterator[nn.Module]:
    """The Hugging Face model in evaluation mode; every module's own mode is put back, also after an error."""
    modes = [(m, m.training) for m in hf.modules() if m.training]
    try:
        hf.eval()
        yield hf
    finally:
        for m, mode in modes:
            m.training = mode


def hf_logits(hf: nn.Module, **inputs: Tensor | None) -> Tensor:
    """Logits [b, c] of the Hugging Face model; arguments that are None are left out. A model that was compiled in place
    runs uncompiled, which is the same function."""
    call: Any = hf._call_impl if getattr(hf, "_compiled_call_impl", None) is not None else hf
    logits: Tensor = call(**{k: v for k, v in inputs.items() if v is not None}, return_dict=True).logits
    return logits


def unpadded_logits(hf: nn.Module, batch: Batch, words: Tensor | None, takes: frozenset[str]) -> Tensor:
    """Logits [b, c] of a model whose treatment of padding is unknown: texts of one length at a time, none padded.

    Some architectures mix padding into their texts, read the last column, or refuse batches without a padding token.
    """
    lengths = batch.lengths
    alone = getattr(hf.config, "pad_token_id", None) is None
    both = getattr(hf, "structure_from_ids", False)  # a hierarchical model: ids tell where sentences end
    groups: dict[int, list[int]] = {}
    for i, n in enumerate(lengths):
        groups.setdefault(i if alone else -n, []).append(i)
    parts = []
    for rows in groups.values():
        n, types = lengths[rows[0]], batch.token_type_ids
        inputs = {
            "input_ids": batch.input_ids[rows, :n] if words is None or both else None,
            "inputs_embeds": None if words is None else words[rows, :n],
            "attention_mask": batch.keep[rows, :n].long(),
            "token_type_ids": types[rows, :n] if types is not None and "token_type_ids" in takes else None,
        }
        parts.append(hf_logits(hf, **inputs))
    order = torch.tensor([i for rows in groups.values() for i in rows], device=parts[0].device)
    return torch.cat(parts)[order.argsort()]


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier opened by `pellucid.load`.

    `net` is the network in our operations (None below ENCODER access), computing in `dtype` (at least float32);
    `pooled`, where the access is READOUT, what follows the attention over the model's own states.
    `parity` is the largest difference of our logits and Hugging Face's on a probe batch, relative to the largest logit.
    `problem` tells how logits become probabilities; `limit` is the longest input in tokens, None if there is none.
    """

    hf: nn.Module
    tokenizer: Any
    family: str
    access: Access
    labels: tuple[str, ...]
    problem: str
    limit: int | None
    net: Net | None
    parity: float | None
    fingerprint: Fingerprint
    id: str
    dtype: torch.dtype
    device: torch.device
    takes: frozenset[str]
    lost: str = ""
    pooled: Pooled | None = None

    def __repr__(self) -> str:
        parity = "no parity" if self.parity is None else f"parity {self.parity:.1e}"
        return f"Model({self.id!r}, {self.family}, {self.access.name}, {len(self.labels)} labels, {parity})"

    def require(self, needs: Access, who: str) -> None:
        """AccessError unless the model shows at least `needs`."""
        if self.access < needs:
            raise AccessError(
                f"{who} needs {needs.name} access, but {self.id!r} gives {self.access.name}. {self.lost} Methods that "
                "need less: see `pellucid methods`."
            )

    def require_net(self) -> Net:
        """The network, or AccessError."""
        if self.net is None:
            self.require(Access.ENCODER, "This")
        assert self.net is not None
        return self.net

    def in_float64(self) -> "Model":
        """The same with its network copied to float64, for audits whose statements are exact; READOUT access.

        The embedding tables stay as they are, and so does what a READOUT model computes below its last attention: what
        enters our network is the same number in both.
        """
        if self.dtype == torch.float64:
            return self
        f64 = torch.float64
        if self.pooled is not None:
            return replace(self, pooled=in_dtype(self.pooled, f64), dtype=f64)
        net = self.require_net()
        double = Net(net.embedding, in_dtype(net.layers, f64), in_dtype(net.final, f64), in_dtype(net.head, f64))
        return replace(self, net=double, dtype=f64)

    def check_unchanged(self) -> None:
        """ModelChanged if the weights are no longer those that `load` checked."""
        changed = self.fingerprint.difference(self.hf)
        if changed:
            raise ModelChanged(
                f"The weights of {self.id!r} have changed since pellucid.load ({changed}), so its parity no longer "
                "holds; load the model again."
            )

    def embed(self, batch: Batch, words: Tensor | None = None) -> Tensor:
        """The first block's input [b, n, d] in `dtype`; ENCODER access."""
        return forward.embed(self.require_net(), batch.input_ids, batch.token_type_ids, words).to(self.dtype)

    def logits(self, batch: Batch) -> Tensor:
        """Logits [b, c] without gradient: one forward pass, our network's where there is one."""
        with torch.no_grad():
            if self.net is not None:
                return forward.encode(Ops(), self.net, self.embed(batch), batch.keep)
            return self.hf_logits(batch)

    def pooling(self, batch: Batch) -> Pooling:
        """What the last attention of a READOUT model reads: one forward pass of the Hugging Face model."""
        assert self.pooled is not None
        with at_rest(self.hf) as hf:
            return pooling(hf, self.pooled, batch, self.takes)

    def hf_logits(self, batch: Batch, words: Tensor | None = None) -> Tensor:
        """The Hugging Face model's own logits, from ids or from word embeddings `words`, in at least float32."""
        with at_rest(self.hf) as hf:
            y = unpadded_logits(hf, batch, words, self.takes)
        return y.to(self.dtype)

    @property
    def vocabulary(self) -> int | None:
        """How many token ids the model has; None where it has no table of words."""
        try:
            table: Any = self.hf.get_input_embeddings()  # type: ignore[operator]
            return int(table.weight.shape[0])
        except (NotImplementedError, AttributeError):
            return None

    def word_embeddings(self, input_ids: Tensor) -> Tensor:
        """The Hugging Face model's word embeddings [b, n, w]."""
        table: nn.Module = self.hf.get_input_embeddings()  # type: ignore[operator]
        words: Tensor = table(input_ids).detach()
        return words

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """[b, c]: softmax, or sigmoid per label for multi-label heads; None for regression."""
        if self.problem == "regression":
            return None
        return logits.sigmoid() if self.problem == "multi_label" else logits.softmax(-1)

    def batch(self, texts: Text | Sequence[Text], labels: Sequence[int | str] | None = None) -> Batch:
        """Tokenise texts, or (premise, hypothesis) pairs, whole: nothing is cut off here.

        Raises: InputError for empty or non-string texts, or without a tokenizer.
        """
        items = as_texts(texts)
        tokenizer = self.require_tokenizer()
        pads = getattr(tokenizer, "pad_token", None) is not None
        encoded = tokenizer(
            *columns(items), padding=pads, padding_side="right", return_special_tokens_mask=True, verbose=False
        )
        if not pads:  # such models (GPT-2) read each text alone; what fills the rows is never read
            longest = max(map(len, encoded["input_ids"]))
            for name, rows in list(encoded.items()):
                encoded[name] = [[*row, *[0] * (longest - len(row))] for row in rows]
        return self.batch_of(encoded, items, labels)

    def require_tokenizer(self) -> Any:
        """The tokenizer, or InputError."""
        if self.tokenizer is None:
            raise InputError(
                f"{self.id!r} has no tokenizer; give one with pellucid.load(model, tokenizer=...) or pass a "
                "pellucid.Batch of input ids."
            )
        return self.tokenizer

    def special_ids(self) -> list[int]:
        """The tokenizer's special ids but for the unknown token, which stands for a piece of text; [] without one."""
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        return [i for i in getattr(self.tokenizer, "all_special_ids", []) if i != unknown]

    def named(self, batch: Batch) -> Batch:
        """The batch with tokens: the tokenizer's pieces, or "[id]" without one."""
        if batch.tokens is not None:
            return batch
        special, rows = set(self.special_ids()), []
        for ids, keep in zip(batch.input_ids, batch.keep, strict=True):
            real = ids[keep].tolist()
            pieces = [f"[{i}]" for i in real] if self.tokenizer is None else self.tokenizer.convert_ids_to_tokens(real)
            rows.append(tuple(Token(p, i, special=i in special) for p, i in zip(pieces, real, strict=True)))
        return replace(batch, tokens=tuple(rows))

    def batch_of(self, encoded: Any, texts: Sequence[Text], labels: Sequence[int | str] | None = None) -> Batch:
        """A Batch from what the tokenizer returned for `texts`; InputError for a text without content."""
        ids = torch.tensor(encoded["input_ids"])
        mask = torch.tensor(encoded["attention_mask"])
        special = torch.tensor(encoded["special_tokens_mask"]).bool() | (mask == 0)
        for id_ in self.special_ids():
            special |= ids == id_
        tokens = tuple(self._tokens(encoded, i, ids[i], mask[i], special[i]) for i in range(len(texts)))
        for i, text in enumerate(texts):
            if all(t.special for t in tokens[i]):
                raise InputError(
                    f"Text {i + 1} of {len(texts)} holds no tokens of its own, only special ones ({text!r}): there is "
                    "nothing to explain. Leave it out."
                )
        types = encoded.get("token_type_ids")
        return Batch(
            ids,
            mask,
            None if types is None else torch.tensor(types),
            None if labels is None else tuple(labels),
            tokens,
            tuple(texts),
        ).to(self.device)

    def _tokens(self, encoded: Any, i: int, ids: Tensor, mask: Tensor, special: Tensor) -> tuple[Token, ...]:
        pieces = self.tokenizer.convert_ids_to_tokens(ids.tolist())
        fast = encoded.encodings[i] if getattr(encoded, "encodings", None) else None
        out = []
        for j in mask.nonzero()[:, 0].tolist():
            if fast is None or special[j]:
                out.append(Token(pieces[j], int(ids[j]), special=bool(special[j])))
            else:
                start, end = fast.offsets[j]
                out.append(
                    Token(pieces[j], int(ids[j]), start, end, False, fast.word_ids[j], fast.sequence_ids[j] or 0)
                )
        return tuple(out)


def as_texts(x: object) -> list[Any]:
    """One text or pair, or several, as a list of texts or of pairs; InputError, by number, for anything else."""
    unordered = isinstance(x, (bytes, dict, set, frozenset)) or hasattr(x, "columns")  # a data frame gives its header
    if unordered or not isinstance(x, Iterable):
        raise InputError(
            f"Texts are a string, a pair of strings, a list of either, or a Batch; seen {type(x).__name__}."
        )
    items: list[Any] = [x] if isinstance(x, (str, tuple)) else list(x)
    if not items:
        raise InputError("There are no texts to explain: an empty list was given.")
    for i, text in enumerate(items):
        where = f"Text {i + 1} of {len(items)}"
        parts = text if isinstance(text, tuple) else (text,)
        if len(parts) not in (1, 2) or not all(isinstance(p, str) for p in parts):
            raise InputError(f"{where} is {type(text).__name__} {text!r}; give a string or a pair of strings.")
        if not any(p.strip() for p in parts):
            raise InputError(f"{where} is empty: there is nothing to explain. Leave it out.")
        if any("\ud800" <= c <= "\udfff" for p in parts for c in p):
            raise InputError(f"{where} holds half a character (a lone surrogate, {text!r}): read it as UTF-8 again.")
    pairs = sum(isinstance(t, tuple) and len(t) == 2 for t in items)
    if pairs not in (0, len(items)):
        raise InputError(f"{pairs} of {len(items)} inputs are pairs of texts; give only texts or only pairs.")
    return items if pairs else [t if isinstance(t, str) else t[0] for t in items]


def columns(items: Sequence[Text]) -> list[list[str]]:
    """Texts as the tokenizer wants them: one list, or two for pairs."""
    if isinstance(items[0], tuple):
        return [[t[0] for t in items], [t[1] for t in items]]
    return [[str(t) for t in items]]
