"""A classifier that is linear behind one attention over states: what READOUT access to a model of the zoo gives.

States and weights are the Hugging Face model's own; what follows them, logits = out(sum_s alpha_s h_s), is ours.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pellucid.encoder.forward import Linear
from pellucid.types import Batch


@dataclass(frozen=True, eq=False)
class Pooled:
    """The linear layer behind the attention that pools states.

    softmax: whether its weights are softmax(s / tau) of scores s; noise: that tau, if it was trained with Gumbel noise
    on the scores and is read without.
    """

    out: Linear
    softmax: bool = False
    noise: float | None = None


@dataclass(frozen=True, eq=False)
class Pooling:
    """What the attention of a batch reads: s states (of words, or of sentences).

    sources: the state that each token went into, -1 at padding. shares: a token's weight within its state, which sums
    to one in each (1 where a state is a word's). words: the states of tokens, where a sentence's is the sum of its
    words' by these weights and nothing else.
    """

    alpha: Float[Tensor, "b s"]
    states: Float[Tensor, "b s d"]
    keep: Bool[Tensor, "b s"]
    sources: Int[Tensor, "b n"]
    shares: Float[Tensor, "b n"]
    logits: Float[Tensor, "b c"]
    words: Float[Tensor, "b n d"] | None = None

    @property
    def of_sentences(self) -> bool:
        """Whether a state stands for several tokens."""
        real = self.sources >= 0
        return self.keep.shape[1] < real.shape[1] or not torch.equal(self.keep, real)

    def even(self) -> Float[Tensor, "b n"]:
        """Shares that are the same for all tokens of a state."""
        real = self.sources >= 0
        count = torch.zeros_like(self.alpha).scatter_add(1, self.sources.clamp(min=0), real.to(self.alpha))
        return real / count.gather(1, self.sources.clamp(min=0)).clamp(min=1)

    def on_tokens(self, scores: Float[Tensor, "b s t"], shares: Float[Tensor, "b n"]) -> Float[Tensor, "b n t"]:
        """Scores of states dealt out to their tokens."""
        at = self.sources.clamp(min=0)[..., None].expand(-1, -1, scores.shape[-1])
        return scores.gather(1, at) * shares[..., None]


def pooling(hf: nn.Module, pooled: Pooled, batch: Batch, takes: frozenset[str]) -> Pooling:
    """One forward pass of the model, and our logits from its states and weights."""
    call: Any = hf
    types = batch.token_type_ids if "token_type_ids" in takes else None
    given = {} if types is None else {"token_type_ids": types}
    mask = batch.keep.long()
    with torch.no_grad():
        seen = call(batch.input_ids, mask, output_attentions=True, output_hidden_states=True, **given)
        dtype = pooled.out.w.dtype
        alpha, states = seen.attentions[-1][:, 0, 0].to(dtype), seen.hidden_states[-1].to(dtype)
        alpha = alpha / alpha.sum(-1, keepdim=True)  # to one in our dtype, which may be wider than the model's
        logits = F.linear(torch.einsum("bs,bsd->bd", alpha, states), pooled.out.w, pooled.out.b)
    count = seen.sources.amax(-1, keepdim=True) + 1
    sentences = len(seen.attentions) > 1
    at = torch.arange(alpha.shape[1], device=alpha.device)
    keep = (at < count) if sentences else seen.sources >= 0
    if not sentences:
        return Pooling(alpha, states, keep, seen.sources, keep.to(dtype), logits)
    shares, words = seen.attentions[0][:, 0, 0].to(dtype), seen.hidden_states[-2].to(dtype)
    if words.shape[-1] != states.shape[-1] or not torch.allclose(
        _sums(shares, words, seen.sources, states), states, atol=1e-5
    ):
        words = None
    return Pooling(alpha, states, keep, seen.sources, shares, logits, words)


def _sums(shares: Tensor, words: Tensor, sources: Tensor, states: Tensor) -> Tensor:
    """Words [b, n, d] summed by their weights into the states [b, s, d] that they belong to."""
    at = sources.clamp(min=0)[..., None].expand_as(words)
    return torch.zeros_like(states).scatter_add(1, at, shares[..., None] * words)
