"""Ways to take tokens out of a text, and the logits without them: what methods and metrics spend, they spend here."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder import forward
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops
from pellucid.errors import InputError
from pellucid.registry import choose
from pellucid.types import Batch

Operator = Literal["mask", "delete", "pad", "attention_mask", "mean_embedding"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
"""mask, pad: that token's id stands in a token's place. In models that number positions over ids other than padding
  (RoBERTa and its kin), "pad" also moves what follows one position to the left, as it does in their own forward.
delete: the token is taken away and the gap closed.
attention_mask: no token attends to it and no pooling reads it, but all others keep their positions. Models of the zoo
  read a text without what is masked, so that for them this is "delete".
mean_embedding: the mean of the model's table of word embeddings stands in for its own; position and segment stay."""
TAKING: tuple[Operator, ...] = ("delete", "attention_mask")
"""Operators after which an erased token is not there at all: of a text they erase whole, nothing is left to read."""
TOKENS = 4096
"""Copies of a text run together up to about this many tokens."""
CHUNK = 16_384
"""Rows of a table of word embeddings that are read together."""


def special_mask(model: Model, batch: Batch) -> Tensor:
    """bool [b, n]: special tokens, from the tokens where known, else from the tokenizer's special ids."""
    ids = batch.input_ids
    mask = torch.zeros_like(ids, dtype=torch.bool)
    if batch.tokens is not None:
        for i, row in enumerate(batch.tokens):
            at = batch.keep[i].nonzero()[:, 0]
            mask[i, at] = torch.tensor([t.special for t in row], device=ids.device)
    else:
        for special in model.special_ids():
            mask |= ids == special
    return mask


def replacement(model: Model, kind: Literal["mask", "pad"], who: str) -> int:
    """The id of the mask or padding token; InputError where the tokenizer has none."""
    token = getattr(model.tokenizer, f"{kind}_token_id", None)
    if token is None and kind == "pad":
        token = getattr(model.hf.config, "pad_token_id", None)
    if token is None:
        have = "no tokenizer" if model.tokenizer is None else f"a tokenizer without a {kind} token"
        raise InputError(
            f'{who} puts the {kind} token in a token\'s place, but {model.id!r} has {have}. Use operator="delete", or '
            'for integrated gradients the baseline "zero".'
        )
    return int(token)


def check_operator(model: Model, operator: str) -> None:
    """InputError for an unknown operator or one whose token the tokenizer lacks, AccessError where vectors are needed
    and the model reads only ids. Spends nothing."""
    choose("operator", operator, list(OPERATORS))
    if operator == "mask":
        replacement(model, "mask", f"The operator {operator!r}")
    if operator == "pad":
        replacement(model, "pad", f"The operator {operator!r}")
    if operator == "mean_embedding":
        model.require(Access.GRADIENTS, f"The operator {operator!r}")


def erased_logits(
    model: Model, text: Batch, gone: Bool[Tensor, "k n"], operator: Operator, tokens: int = TOKENS
) -> Float[Tensor, "k c"]:
    """Logits of k copies of one text, each without the tokens at which its row of `gone` is True.

    text: one row without padding. A row of `gone` that erases nothing gives the text's own logits. Special tokens are
    erased like any other where `gone` says so; callers leave them out.

    Unit: logit. Cost: one forward pass per distinct row of `gone`, in batches of up to `tokens` tokens (at least one
    copy); copies of about one length run together, and results do not depend on `tokens` but for rounding.
    Raises: InputError for several texts, padding, a mask of another shape, or a row after which nothing is left to
    read; and see `check_operator`.
    """
    check_operator(model, operator)
    b, n = text.input_ids.shape
    if b != 1 or not bool(text.keep.all()):
        masked = int((~text.keep).sum())
        raise InputError(
            f"Tokens are erased from one text without padding; seen {b} texts with {masked} masked places. Take "
            "batch.rows([i])."
        )
    if gone.dtype != torch.bool or gone.dim() != 2 or gone.shape[1] != n:
        raise InputError(
            f"What to erase is a bool [copies, {n}], one column per token; seen {gone.dtype} {list(gone.shape)}."
        )
    rows, back = torch.unique(gone.to(text.keep.device), dim=0, return_inverse=True)
    if operator in TAKING and bool(rows.all(1).any()):
        raise InputError(
            f"The operator {operator!r} would take all {n} tokens of a text away, so that nothing is left to read: "
            'keep one of them, or use "mask", "pad" or "mean_embedding".'
        )
    mean = mean_word(model) if operator == "mean_embedding" else None
    lengths = (~rows).sum(1) if operator == "delete" else back.new_full((len(rows),), n)
    order = lengths.argsort(descending=True, stable=True)
    parts = [_logits(model, text, rows[at], operator, mean) for at in _packed(order, lengths, tokens)]
    if not parts:
        return model.logits(text)[:0]
    logits: Tensor = torch.cat(parts)[order.argsort()]
    return logits[back]


def _packed(order: Tensor, lengths: Tensor, tokens: int) -> Iterator[Tensor]:
    """`order`, longest first, in parts of up to `tokens` tokens counting the padding to the longest of a part."""
    i = 0
    while i < len(order):
        longest = max(1, int(lengths[order[i]]))
        step = max(1, tokens // longest)
        yield order[i : i + step]
        i += step


def _logits(model: Model, text: Batch, gone: Tensor, operator: Operator, mean: Tensor | None) -> Tensor:
    """One forward pass of copies that run together."""
    left, words = erased(model, text.rows_repeated(len(gone)), gone, operator, mean)
    if words is None:
        return model.logits(left)
    with torch.no_grad():
        if model.net is None:
            return model.hf_logits(left, words)
        return forward.encode(Ops(), model.net, model.embed(left, words), left.keep)


def erased(
    model: Model, many: Batch, gone: Bool[Tensor, "b n"], operator: Operator, mean: Tensor | None = None
) -> tuple[Batch, Tensor | None]:
    """Rows without the tokens at which `gone` is True; for "mean_embedding", and only there, with words [b, n, w].

    mean: that of the table, where the caller has it already. The rows have lost their tokens' names.
    """
    if operator == "mask" or operator == "pad":
        ids = many.input_ids.masked_fill(gone, replacement(model, operator, f"The operator {operator!r}"))
        return Batch(ids, many.keep, many.token_type_ids), None
    if operator == "attention_mask":
        return Batch(many.input_ids, many.keep & ~gone, many.token_type_ids), None
    if operator == "delete":
        return _closed(many, gone), None
    words = model.word_embeddings(many.input_ids)
    stand_in = mean_word(model) if mean is None else mean
    return many, torch.where(gone[..., None], stand_in.to(words.dtype), words)


def _closed(many: Batch, gone: Tensor) -> Batch:
    """Rows without their erased tokens, in order, padded on the right to the longest of them."""
    left = (~gone).sum(1, keepdim=True)
    longest = int(left.max())
    at = gone.to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
    types = many.token_type_ids
    keep = torch.arange(longest, device=gone.device) < left
    return Batch(many.input_ids.gather(1, at), keep, None if types is None else types.gather(1, at))


def mean_word(model: Model) -> Float[Tensor, "w"]:
    """The mean over the model's whole table of word embeddings, special and unused ones included, in float64.

    Cost: reading the table once. Raises: InputError for a model without such a table.
    """
    count = model.vocabulary
    if count is None:
        raise InputError(
            f"{model.id!r} has no table of word embeddings, whose mean could stand in for a token's: use another "
            "operator."
        )
    ids = torch.arange(count, device=model.device)
    parts = (ids[i : i + CHUNK] for i in range(0, count, CHUNK))
    sums = [model.word_embeddings(part[None])[0].sum(0, dtype=torch.float64) for part in parts]
    return torch.stack(sums).sum(0) / count
