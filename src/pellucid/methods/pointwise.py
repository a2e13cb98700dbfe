"""What a token's state tells of the model's output, read by a probe that was fitted before."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder.forward import encode, read_rows
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops
from pellucid.encoder.ops import Scores as AttentionScores
from pellucid.encoder.pooled import Pooling
from pellucid.errors import InputError
from pellucid.methods.attention import layer_of, reading
from pellucid.methods.method import Guarantees, Method, Scores, register
from pellucid.methods.operators import special_mask
from pellucid.records import write_whole
from pellucid.types import Batch, Target

DOUBT = 0.003


@dataclass(frozen=True, eq=False)
class Probe:
    """A small classifier of states, fitted to a model's output probabilities.

    center, spread [d]: states are standardised by these. layers: pairs (w [o, i], b [o]) with ReLU in between, none
    where nothing told more than the prior. Logits are divided by `temperature`. log_prior [c]: of the mean output; a
    share DOUBT of it is mixed in, so that no state can be wrong without bound.
    about: what it was fitted on (layer, the model's weights, texts, information in nats).
    """

    center: Tensor
    spread: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]
    temperature: float
    log_prior: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    def log_probabilities(self, h: Tensor) -> Tensor:
        """States [..., d] to log probabilities [..., c], in float64."""
        x = (h.double() - self.center) / self.spread
        if not self.layers:
            return self.log_prior.expand(*x.shape[:-1], -1)
        for i, (w, b) in enumerate(self.layers):
            x = (x if i == 0 else x.relu()) @ w.T + b
        told = (x / self.temperature).log_softmax(-1)
        return torch.logaddexp(told + math.log1p(-DOUBT), self.log_prior + math.log(DOUBT))

    def to(self, device: torch.device | str) -> "Probe":
        """The same on another device."""
        layers = tuple((w.to(device), b.to(device)) for w, b in self.layers)
        center, spread, prior = (x.to(device) for x in (self.center, self.spread, self.log_prior))
        return Probe(center, spread, layers, self.temperature, prior, self.about)

    def to_bytes(self) -> bytes:
        """It as a safetensors file."""
        from safetensors.torch import save

        tensors = {"center": self.center, "spread": self.spread, "log_prior": self.log_prior}
        for i, (w, b) in enumerate(self.layers):
            tensors |= {f"layers.{i}.w": w, f"layers.{i}.b": b}
        about = {"temperature": self.temperature, "layers": len(self.layers), "about": self.about}
        given = {k: v.cpu().contiguous() for k, v in tensors.items()}
        return bytes(save(given, {"pellucid.probe": json.dumps(about)}))

    def save(self, path: str | Path) -> None:
        """Write it as one safetensors file."""
        write_whole(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> "Probe":
        """Read what `save` wrote; InputError if it is something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                told = json.loads(file.metadata()["pellucid.probe"])
                t = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            layers = tuple((t[f"layers.{i}.w"], t[f"layers.{i}.b"]) for i in range(told["layers"]))
            return cls(t["center"], t["spread"], layers, told["temperature"], t["log_prior"], told["about"])
        except FileNotFoundError:
            raise InputError(f"There is no file {path}.") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as e:
            raise InputError(f"{path} is not a saved probe: {type(e).__name__} {e}.") from e


@dataclass(frozen=True, eq=False)
class States:
    """What one attention reads: s states h [b, s, d], with which weights alpha [b, s] (mean of heads and, under mean
    pooling, of rows); special: those of special tokens. pooling: of a READOUT model, whose states may be of sentences.
    layers: what the attention of every layer reads; of a READOUT model word embeddings and states, or sentences alone.
    """

    h: Float[Tensor, "b s d"]
    alpha: Float[Tensor, "b s"]
    keep: Bool[Tensor, "b s"]
    special: Bool[Tensor, "b s"]
    logits: Float[Tensor, "b c"]
    pooling: Pooling | None = None
    layers: tuple[Tensor, ...] = ()


def states(model: Model, batch: Batch, layer: int, every: bool = False) -> States:
    """The states that the attention of a layer (from 0) reads: the block's input. Cost: one forward pass.

    every: with those of all layers.
    """
    special = special_mask(model, batch)
    if model.net is None:
        p = model.pooling(batch)
        if p.of_sentences:
            special = _special_sentences(p, special)
        below = () if p.of_sentences else (model.word_embeddings(batch.input_ids),)
        layers = (*below, p.states) if every else ()
        return States(p.states, p.alpha, p.keep, special & p.keep, p.logits, p, layers)
    if not bool(special.any()) and read_rows(model.net, batch.keep) is not None:
        special[:, 0] = True  # without a tokenizer: at least the row that the classifier reads is no ordinary token
    ops = _Inputs(range(len(model.net.layers)) if every else [layer], layer)
    with torch.no_grad():
        logits = encode(ops, model.net, model.embed(batch), batch.keep)
    alpha = torch.einsum("br,brn->bn", reading(model, batch, ops.rows.shape[1]), ops.rows) * batch.keep
    inputs = tuple(ops.seen[f"{i}.in"] for i in range(len(model.net.layers) if every else 0))
    return States(ops.seen[f"{layer}.in"], alpha, batch.keep, special & batch.keep, logits, None, inputs)


class _Inputs(Ops):
    """The model itself, keeping the inputs of some layers and one layer's attention, the mean of heads [b, n, m]."""

    def __init__(self, layers: Iterable[int], layer: int) -> None:
        self.wanted, self.at = {f"{i}.in" for i in layers}, f"{layer}.attn.probs"
        self.seen: dict[str, Tensor] = {}
        self.rows = torch.empty(0)

    def probs(self, at: str, scores: AttentionScores) -> Tensor:
        found = super().probs(at, scores)
        if at == self.at:
            self.rows = found.mean(1)
        return found

    def stream(self, at: str, x: Tensor) -> Tensor:
        if at in self.wanted:
            self.seen[at] = x
        return x


def _special_sentences(p: Pooling, special: Tensor) -> Tensor:
    """[b, s]: sentences of special tokens alone."""
    ordinary = (p.sources >= 0) & ~special
    count = torch.zeros_like(p.keep, dtype=torch.long).scatter_add(1, p.sources.clamp(min=0), ordinary.long())
    return p.keep & (count == 0)


@dataclass(frozen=True)
class PointwiseInformation(Method):
    """What each token's state tells of the output, read off by a probe: log q(class | state) - log prior(class).

    probe: a `Probe`, or the file of one; `pellucid.audits.information.fit_probe` fits it, and the audit "information"
      writes one. It knows its layer. Texts that it was fitted on look better than others.

    It tells where the decision can be read ("decodable at"), not which tokens it needs. Special tokens, which the probe
    has not seen, get 0; a sentence's information goes to its tokens by their attention in it. Of a head with one logit
    it is about the class that this logit speaks for.

    Unit: nats; negative where the state speaks against the class. Not complete. Cost: one forward pass.
    Source: pointwise V-information, Ethayarajh et al. 2022, arXiv 2110.08420; after Wen et al. 2022, arXiv 2211.07714.
    """

    probe: str | Probe | None = None

    source: ClassVar[str] = "Ethayarajh et al. 2022, arXiv 2110.08420; after Wen et al. 2022, arXiv 2211.07714"
    needs: ClassVar[Access] = Access.READOUT
    unit: ClassVar[str] = "nat"
    caution: ClassVar[str] = (
        "That a class can be read from a state does not mean that the model reads it there: on 500 SST-2 "
        "sentences it had nothing to do with what deleting the word changes (tau .00). Texts on which the probe "
        "was fitted look better than others."
    )

    @property
    def name(self) -> str:
        return "pointwise_information"

    def guarantees(self, model: Model | None) -> Guarantees:
        return Guarantees()

    def params(self, model: Model) -> dict[str, Any]:
        told = self.probe if isinstance(self.probe, str) else "given"
        return {"probe": told, **self._of(model).about}

    def _of(self, model: Model) -> Probe:
        if self.probe is None:
            raise InputError(
                "pointwise_information reads states with a fitted probe, and none was given: fit one with "
                "pellucid.audits.information.fit_probe(model, texts), or run `pellucid audit --only information --out "
                "DIR`, and pass it as probe=DIR/information_probe.safetensors."
            )
        probe = self.probe if isinstance(self.probe, Probe) else Probe.load(self.probe)
        if probe.about.get("weights") != model.fingerprint.sha256:
            raise InputError(f"The probe was fitted to another model than {model.id!r}; fit one to this.")
        return probe.to(model.device)

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        probe = self._of(model)
        seen = states(model, batch, layer_of(model, self.name, int(probe.about["layer"]), None))
        w = target.weights(seen.logits)
        found = probe.log_probabilities(seen.h) - probe.log_prior
        if seen.logits.shape[1] == 1:  # one logit: what is told of its class, not of the other
            found = found[..., 1:]
        scores = torch.einsum("bsc,bct->bst", found.to(w), w) * (seen.keep & ~seen.special)[..., None]
        if seen.pooling is not None:
            scores = seen.pooling.on_tokens(scores, seen.pooling.shares)
        return Scores(scores, None, None, seen.logits, 1.0, 0.0)


register(PointwiseInformation())
