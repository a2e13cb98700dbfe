"""DecompX: the decomposition of a logit into one part per token, by one backward pass or by carried vectors.

With the coefficients of this input held constant (attention, 1/std of each norm, slope of each activation), the network
is affine in its first hidden states. Every bias rule that is linear therefore needs no n x n vectors: the part of token
k is the inner product of its vector with the gradient of the frozen network.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pellucid.encoder.activations import Activation, relu_step
from pellucid.encoder.forward import Net, encode
from pellucid.encoder.model import Access, Model
from pellucid.encoder.ops import Ops
from pellucid.encoder.ops import Scores as ScoreThunk
from pellucid.errors import InputError
from pellucid.methods.method import Guarantees, Method, Scores, one_of, register, target_free
from pellucid.methods.vectors import SHARES, BiasRule, Slope, push
from pellucid.types import Batch, Target

LINEAR = ("token", "drop", "equal", "cls", "dot")


class Linearised(Ops):
    """The model with exact values whose coefficients carry no gradient: its backward pass is the decomposition.

    `constants` collects a leaf for every bias, expanded per text, so that the share of the biases is measured by its
    own gradient and not as a remainder; the completeness gap is then a real check. `travelling` is the value bias of
    block 0, one copy per token. With `homogeneous`, each bias is scaled by <b, y> / <b, y>.detach() (rule "dot").
    """

    def __init__(self, net: Net, slope: Slope, ffn: bool, homogeneous: bool, constant: bool) -> None:
        self.net, self.slope, self.ffn = net, slope, ffn
        self.homogeneous, self.constant = homogeneous, constant
        self.constants: list[Tensor] = []
        self.travelling: Tensor | None = None

    def probs(self, at: str, scores: ScoreThunk) -> Tensor:
        with torch.no_grad():
            return super().probs(at, scores)

    def scale(self, at: str, x: Tensor, eps: float) -> Tensor:
        with torch.no_grad():  # the fused kernel's 1/std: several times faster on a CPU than a variance
            return torch.native_layer_norm(x, x.shape[-1:], None, None, eps)[2]

    def gate(self, at: str, act: Activation, u: Tensor) -> Tensor:
        step = self.slope == "relu" and not at.startswith("head")
        with torch.no_grad():
            if self.slope != "tangent" and not step:
                slope, rest = act.ratio(u), None
            else:
                slope = relu_step(u) if step else act.tangent(u)
                rest = act.f(u) - slope * u
        y = u * slope
        if rest is None:
            return y
        # what a step omits is no token's and no bias's: it shows as the gap
        return y + rest if step else self._joined(y, rest, rest)

    def product(self, at: str, g: Tensor, s: Tensor) -> Tensor:
        return 0.5 * (g * s.detach() + g.detach() * s)

    def bias(self, at: str, y: Tensor, b: Tensor | None) -> Tensor:
        layer, _, site = at.partition(".")
        if b is not None and at == "0.attn.value":
            self.travelling = b.expand(y.shape).contiguous().requires_grad_()
            return y + self.travelling
        if self.homogeneous and site == "attn.value":
            return y  # joins after the residual, below: sum_j a_ij = 1
        if self.homogeneous and site == "attn.out" and layer != "0":
            table = self.net.layers[int(layer)]
            moved = None if table.v.b is None else table.o.w @ table.v.b
            b = moved if b is None else b if moved is None else b + moved
        return y if b is None else self._joined(y, b, b.expand(y.shape[0], *(1,) * (y.dim() - 2), -1))

    def stream(self, at: str, x: Tensor) -> Tensor:
        return x.detach() if at.endswith(".ffn") and not self.ffn else x

    def _joined(self, y: Tensor, c: Tensor, leaf: Tensor) -> Tensor:
        """y + c by the rule: a multiple of y, a leaf whose gradient is wanted, or a plain constant."""
        if self.homogeneous:
            s = (y * c).sum(-1, keepdim=True)
            return y + c * (s / (s.detach() + 1e-12))
        if self.constant:
            leaf = leaf.detach().requires_grad_()
            self.constants.append(leaf)
            return y + leaf
        return y + c


def pull(
    net: Net, x: Tensor, keep: Tensor, weights_of: Any, rule: BiasRule, slope: Slope = "zero_origin", ffn: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decompose a batch x [b, n, d] by one backward pass per target column.

    `weights_of(logits)` gives [b, c, t]. Returns logits [b, c], token parts [b, n, t], bias parts [b, t] (zero for
    "drop" and "dot", which leave none over), and explained [b, t].
    Cost: one forward pass and t backward passes to the activations; memory as for training without dropout.
    """
    x = x.detach().requires_grad_()
    ops = Linearised(net, slope, ffn, homogeneous=rule == "dot", constant=rule not in ("dot", "drop"))
    with torch.enable_grad():
        logits = encode(ops, net, x, keep)
        weights = weights_of(logits.detach())
        explained = torch.einsum("bc,bct->bt", logits, weights)
        columns = [c.sum() for c in explained.unbind(1)]
    leaves = [x, *([] if ops.travelling is None else [ops.travelling]), *ops.constants]
    owned = len(leaves) - len(ops.constants)
    tokens, biases = [], []
    for t, column in enumerate(columns):
        grads = torch.autograd.grad(column, leaves, retain_graph=t + 1 < len(columns), allow_unused=True)
        parts = [None if g is None else (g * leaf).detach() for g, leaf in zip(grads, leaves, strict=True)]
        tokens.append(torch.stack([p.sum(-1) for p in parts[:owned] if p is not None]).sum(0))
        biases.append(sum((p.flatten(1).sum(-1) for p in parts[owned:] if p is not None), logits.new_zeros(len(x))))
    return logits.detach(), torch.stack(tokens, -1) * keep[..., None], torch.stack(biases, -1), explained.detach()


@dataclass(frozen=True)
class DecompX(Method):
    """Decompose the logit into token contributions through every component (Modarressi et al., ACL 2023).

    bias: who gets the biases' share. "token" (default): nobody, it is reported as `unallocated`; "drop": left out;
      "equal", "cls", "dot": linear rules; "absdot" (the paper's), "abssim", "norm": by carried vectors. Its own
      ablation finds the paper's rule no better than dropping biases, and the linear rules cost one backward pass.
    at: share biases where they arise ("sites"), or pooled over the network, in class space ("logits").
    slope: activation as a line through the origin ("zero_origin"), as its tangent, or as ReLU's step.
    ffn, head: False leaves the feed-forwards, or the classification head, out. Without the head the score is the norm
      of the token's part of what the head reads; nothing is explained then.
    precision: "bfloat16" runs the matrix products in bfloat16 (opt-in; see docs/LOG.md for gain and error).

    Shapes: scores [n] or [n, classes]. Unit: logit. Complete unless bias="drop", ffn=False, head=False, or slope="relu"
    on a model whose activation is not ReLU; the gap is then the part left out.
    Cost: one forward and one backward pass per target for linear rules; about n forwards and 3 [n, n, d] otherwise.
    Source: arXiv 2306.02873; official code mohsenfayyaz/DecompX.
    Differs from the source: slopes in closed form; the tangent is that of the model's own activation (theirs is
    GELU's); rules that would lose a bias, because all shares are 0, share it equally; bias="drop" drops the intercept
    of the tangent too; gated feed-forwards and mean pooling are ours: half of a product to each factor.
    """

    bias: BiasRule = "token"
    at: Literal["sites", "logits"] = "sites"
    slope: Slope = "zero_origin"
    ffn: bool = True
    head: bool = True
    precision: Literal["full", "bfloat16"] = "full"

    source: ClassVar[str] = "Modarressi et al. 2023, arXiv 2306.02873"
    needs: ClassVar[Access] = Access.READOUT
    caution: ClassVar[str] = (
        "Attention, norms and slopes are held at this text's values, so what a token does by steering attention "
        "counts for nothing. It tells what a token adds, not what would happen without it: for repeated evidence, "
        "or a word that turns the others round, remove tokens too."
    )

    def __post_init__(self) -> None:
        one_of(
            "DecompX",
            bias=(self.bias, ("token", "drop", *SHARES)),
            at=(self.at, ("sites", "logits")),
            slope=(self.slope, ("zero_origin", "tangent", "relu")),
            ffn=(self.ffn, (True, False)),
            head=(self.head, (True, False)),
            precision=(self.precision, ("full", "bfloat16")),
        )

    @property
    def name(self) -> str:
        return "decompx"

    @property
    def one_backward(self) -> bool:
        """Whether these parameters need no carried vectors.

        "dot" is linear only where the parts add up to the whole, which its denominators are taken from.
        """
        whole = self.ffn and self.slope != "relu"
        return self.head and (self.at == "logits" or (self.bias in LINEAR and (self.bias != "dot" or whole)))

    def guarantees(self, model: Model | None) -> Guarantees:
        acts = {layer.act.name for layer in model.net.layers} if model is not None and model.net else set()
        relu_is_exact = self.slope != "relu" or acts == {"relu"}
        complete = self.bias != "drop" and self.ffn and self.head and relu_is_exact
        return Guarantees(
            complete=complete,
            signed=self.head,
            additive=self.head and self.bias in LINEAR and self.at == "sites",
            linear_in_target=self.head,
            target_free=not self.head,
        )

    def params(self, model: Model) -> dict[str, Any]:
        told = super().params(model)
        if model.net is not None:
            return told
        config: Any = model.hf.config
        spread = getattr(config, "hierarchical", False) and config.sentence_encoder != "identity"
        sources = "states of sentences, spread evenly over their tokens" if spread else "states of words"
        return {"bias": self.bias, "sources": sources}

    def __call__(self, model: Model, batch: Batch, target: Target) -> Scores:
        if model.net is None:
            return self._read(model, batch, target)
        x = model.embed(batch)
        with self._precision(x):
            if not self.one_backward:
                return self._carried(model.require_net(), x, batch.keep, target)
            return self._pulled(model.require_net(), x, batch.keep, target)

    def _read(self, model: Model, batch: Batch, target: Target) -> Scores:
        """Of a model of the zoo: alpha_s (w h_s) for each state s that the attention pools, exact as what follows is
        linear; the only bias is the last layer's. Where a sentence's state is the weighted sum of its words' states,
        these have parts of their own; otherwise its part is spread evenly over its tokens."""
        if not self.head or self.bias not in ("token", "drop"):
            asked = "head=False" if not self.head else f"bias={self.bias!r}"
            raise InputError(
                f"DecompX({asked}) needs ENCODER access; {model.id!r} gives READOUT, whose one bias, the last layer's, "
                'can be told (bias="token") or left out ("drop").'
            )
        p, out = model.pooling(batch), model.pooled.out  # type: ignore[union-attr]
        w = target.weights(p.logits)
        parts = torch.einsum("bs,bsd,cd,bct->bst", p.alpha, p.states, out.w, w)
        told = self.bias == "token" and out.b is not None
        left = torch.einsum("c,bct->bt", out.b, w) if told else torch.zeros_like(parts[:, 0])
        explained = torch.einsum("bc,bct->bt", p.logits, w)
        if p.words is None:
            return Scores(p.on_tokens(parts, p.even()), left, explained, p.logits, 1.0, 0.0)
        of_words = torch.einsum("bnd,cd,bct->bnt", p.words, out.w, w)
        weights = p.on_tokens(p.alpha[..., None], p.shares)
        return Scores(weights * of_words, left, explained, p.logits, 1.0, 0.0)

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        if self.precision == "full":
            return nullcontext()
        return torch.autocast(x.device.type, dtype=torch.bfloat16)

    def _pulled(self, net: Net, x: Tensor, keep: Tensor, target: Target) -> Scores:
        if self.at == "logits" and self.bias in SHARES:
            return self._pooled(net, x, keep, target)
        logits, tokens, biases, explained = pull(net, x, keep, target.weights, self.bias, self.slope, self.ffn)
        if self.bias in ("equal", "cls"):
            share = SHARES[self.bias](x, x, keep)[..., 0].T
            tokens = tokens + share[..., None] * biases[:, None]
            biases = torch.zeros_like(biases)
        return Scores(tokens, biases, explained, logits, 1.0, float(explained.shape[-1]))

    def _pooled(self, net: Net, x: Tensor, keep: Tensor, target: Target) -> Scores:
        """The biases' whole share beta [b, c], dealt out in class space by the rule (the code's bias-token mode)."""

        def every(logits: Tensor) -> Tensor:
            return torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device).expand(len(logits), -1, -1)

        logits, tokens, biases, _ = pull(net, x, keep, every, "token", self.slope, self.ffn)
        share = SHARES[self.bias](tokens.transpose(0, 1)[:, :, None], biases[:, None], keep)[..., 0]
        tokens = tokens + share.T[..., None] * biases[:, None]
        w = target.weights(logits)
        explained = torch.einsum("bc,bct->bt", logits, w)
        return Scores(tokens @ w, torch.zeros_like(explained), explained, logits, 1.0, float(logits.shape[-1]))

    def _carried(self, net: Net, x: Tensor, keep: Tensor, target: Target) -> Scores:
        rows, norms, logits = [], [], []
        n = x.shape[1]
        for i in range(len(x)):
            real = int(keep[i].nonzero()[-1]) + 1
            y, parts, norm = push(net, x[i : i + 1, :real], keep[i : i + 1, :real], self.bias, self.slope, self.ffn)
            logits.append(y)
            rows.append(torch.nn.functional.pad(parts, (0, 0, 0, n - real)))
            norms.append(torch.nn.functional.pad(norm, (0, n - real)))
        y = torch.cat(logits)
        w = target.weights(y)
        if not self.head:
            return Scores(target_free(torch.stack(norms), w), None, None, y, float(n), 0.0)
        explained = torch.einsum("bc,bct->bt", y, w)
        return Scores(torch.stack(rows) @ w, torch.zeros_like(explained), explained, y, float(n), 0.0)


register(DecompX())
