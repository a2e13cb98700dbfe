"""The operations in which an explanation may differ from the model.

The network in `forward.py` is written once, over these. Sites are readable keys such as "3.attn.probs".
`Ops` is the exact network; each subclass changes some operations, says which, and is final.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from pellucid.encoder.activations import Activation

Scores = Callable[[], Tensor]
Rows = slice
ALL: Rows = slice(None)


def inverse_std(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(var + eps) over the last axis, [..., n, 1]; biased variance as in LayerNorm."""
    return (x.var(-1, unbiased=False, keepdim=True) + eps).rsqrt()


def split_heads(y: Tensor, heads: int) -> Tensor:
    """[*p, b, n, h*e] -> [*p, b, h, n, e]."""
    return y.reshape(*y.shape[:-1], heads, -1).transpose(-2, -3)


def join_heads(z: Tensor) -> Tensor:
    """[*p, b, h, n, e] -> [*p, b, n, h*e]."""
    return z.transpose(-2, -3).flatten(-2)


class Ops:
    """Six operations, one window and one loop, exact as they stand here."""

    def probs(self, at: str, scores: Scores) -> Tensor:
        """Attention probabilities [b, h, n, m]. `scores` is a thunk: a frozen network never computes them."""
        return scores().softmax(-1)

    def mix(self, at: str, alpha: Tensor, v: Tensor, rows: Rows) -> Tensor:
        """Rows of the attention-weighted sum of values: alpha [b,h,n,m], v [*p,b,h,m,e] -> [*p,b,rows,h*e]."""
        return join_heads(alpha[..., rows, :] @ v)

    def gate(self, at: str, act: Activation, u: Tensor) -> Tensor:
        """The activation act(u)."""
        return act.f(u)

    def product(self, at: str, g: Tensor, s: Tensor) -> Tensor:
        """The two factors of a gated feed-forward."""
        return g * s

    def scale(self, at: str, x: Tensor, eps: float) -> Tensor:
        """1/std of a LayerNorm, [..., n, 1]."""
        return inverse_std(x, eps)

    def bias(self, at: str, y: Tensor, b: Tensor | None) -> Tensor:
        """A constant b [width] joins y: added here; elsewhere left out, or shared over parts."""
        return y if b is None else y + b

    def stream(self, at: str, x: Tensor) -> Tensor:
        """The window: every block input, sub-layer output, and both sides of each norm pass through here."""
        return x

    def rowwise(self, f: Callable[[Rows], Tensor], n: int, spent: Tensor | None = None) -> Tensor:
        """Apply a position-wise f to rows 0..n-1; a set of operations may do so chunk by chunk to save memory.

        `spent` has the shape of the result and is read only by f, row by row: its rows may be overwritten.
        """
        return f(ALL)


class Recorded(Ops):
    """The model itself, keeping what a frozen copy needs.

    `tape` holds, under their sites, attention [b,h,n,m], 1/std [b,n,1], pre-activations u [b,n,f] and, for a
    gated product, its factors under "<site>.g" and "<site>.s". `seen` holds what passed the window if `streams`, and if
    `values` the values [b,h,m,e] that attention mixes, under "<l>.attn.mix".
    """

    def __init__(self, streams: bool = False, values: bool = False) -> None:
        self.tape: dict[str, Tensor] = {}
        self.seen: dict[str, Tensor] = {}
        self.streams, self.values = streams, values

    def probs(self, at: str, scores: Scores) -> Tensor:
        self.tape[at] = super().probs(at, scores)
        return self.tape[at]

    def mix(self, at: str, alpha: Tensor, v: Tensor, rows: Rows) -> Tensor:
        if self.values:
            self.seen[at] = v
        return super().mix(at, alpha, v, rows)

    def gate(self, at: str, act: Activation, u: Tensor) -> Tensor:
        self.tape[at] = u
        return super().gate(at, act, u)

    def product(self, at: str, g: Tensor, s: Tensor) -> Tensor:
        self.tape[at + ".g"], self.tape[at + ".s"] = g, s
        return super().product(at, g, s)

    def scale(self, at: str, x: Tensor, eps: float) -> Tensor:
        self.tape[at] = super().scale(at, x, eps)
        return self.tape[at]

    def stream(self, at: str, x: Tensor) -> Tensor:
        if self.streams:
            self.seen[at] = x
        return x


class Overridden(Ops):
    """The model with attention probabilities replaced at chosen sites ("3.attn.probs").

    Each is given as a tensor [b,h,n,m], or as a function of the exact ones. The value bias is added before mixing, so
    rows that do not sum to one are honoured.
    """

    def __init__(self, probs: Mapping[str, Tensor | Callable[[Tensor], Tensor]]) -> None:
        self.given = probs

    def probs(self, at: str, scores: Scores) -> Tensor:
        given = self.given.get(at)
        if isinstance(given, Tensor):
            return given
        exact = super().probs(at, scores)
        return exact if given is None else given(exact)
