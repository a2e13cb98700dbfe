"""The audit "token_identity": is a hidden token still nearest to its own input token, layer by layer."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from operator import add
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from pellucid.audits.audit import Audit, Tick, register
from pellucid.audits.layers import Rule, by_layer, graded, place
from pellucid.encoder.forward import encode
from pellucid.encoder.model import Model
from pellucid.errors import InputError, MissingExtra
from pellucid.finding import Finding, Findings, Picture
from pellucid.methods.hta import Kept
from pellucid.methods.method import one_of, slabs
from pellucid.stats import over_texts
from pellucid.types import Batch

Distance = Literal["cosine", "l2"]
Map = Literal["none", "linear", "mlp"]
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the linear map, relative to the mean eigenvalue of the hidden states' covariance; one is chosen per fit."""
SAME = 1e-6  # distances closer than this, relative to the vectors' size, are ties: float32 tells no more
_HELD = 2**27  # numbers of hidden states held at once, 0.5 GB
_BLOCK = 2**24  # distances computed at once


GRADES = (
    Rule("IDENTIFIABLE", least=0.9, above_control=True),
    Rule("MOSTLY IDENTIFIABLE", least=0.5, above_control=True),
    Rule("PARTLY IDENTIFIABLE", above_control=True),
    Rule("NOT IDENTIFIABLE"),
)
"""The first that fits is the grade."""
MAPS = {"none": "as they are", "linear": "brought back by a linear map", "mlp": "brought back by a perceptron"}
DISTANCES = {"cosine": "cosine", "l2": "L2 distance"}


def identity_rate(
    h: Float[np.ndarray, "n d"], x: Float[np.ndarray, "m d"], own: Int[np.ndarray, " n"], distance: Distance
) -> Float[np.ndarray, " n"]:
    """1 where row j of h is nearer to x[own[j]] than to every other row of x; 1/c where c rows tie for nearest; else 0.

    Distances: one minus the cosine, or Euclidean; closer together than `SAME` they tie, so that equal inputs share the
    hit. Cost: the product of h and x, in blocks.
    """
    h, x = np.asarray(h, float), np.asarray(x, float)
    if distance == "cosine":
        h, x = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), np.finfo(float).tiny) for v in (h, x))
    half = 0.0 if distance == "cosine" else (x**2).sum(1) / 2  # of |h - x|^2 / 2 only this differs within a row
    longest = np.linalg.norm(x, axis=1).max(initial=0.0)
    hits = np.zeros(len(h))
    for start in range(0, len(h), max(1, _BLOCK // max(1, len(x)))):
        at = slice(start, start + max(1, _BLOCK // max(1, len(x))))
        far = half - h[at] @ x.T
        mine = far[np.arange(len(far)), own[at]][:, None]
        tie = SAME * longest * (np.linalg.norm(h[at], axis=1, keepdims=True) + (distance == "l2") * longest)
        best = ~(far < mine - tie).any(1)
        hits[at] = best / (np.abs(far - mine) <= tie).sum(1)
    return hits


@dataclass(frozen=True)
class Moments:
    """Sums over tokens that a linear map needs: count, sums, and products of h and x."""

    n: int
    h: np.ndarray
    x: np.ndarray
    hh: np.ndarray
    hx: np.ndarray
    xx: float

    @classmethod
    def of(cls, h: np.ndarray, x: np.ndarray) -> "Moments":
        """Of hidden states [n, d] and inputs [n, w]."""
        h, x = h.astype(float), x.astype(float)
        return cls(len(h), h.sum(0), x.sum(0), h.T @ h, h.T @ x, float((x**2).sum()))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))

    def ridge(self, relative: float) -> tuple[np.ndarray, np.ndarray]:
        """w [d, w] and b [w] of the map h w + b with the least squared error plus the ridge on w."""
        from scipy.linalg import solve

        hm, xm = self.h / self.n, self.x / self.n
        cov = self.hh - self.n * np.outer(hm, hm)
        size = float(np.trace(cov)) / len(cov) or 1.0  # states that are all alike have no scale
        w = solve(cov + relative * size * np.eye(len(cov)), self.hx - self.n * np.outer(hm, xm), assume_a="pos")
        return w, xm - hm @ w

    def error(self, w: np.ndarray, b: np.ndarray) -> float:
        """The squared error of a map, summed over these tokens."""
        fit = np.einsum("iw,ij,jw->", w, self.hh, w, optimize=True) + self.n * (b @ b) + 2 * (self.h @ w) @ b
        return float(fit - 2 * (np.sum(w * self.hx) + b @ self.x) + self.xx)


def linear_map(parts: Sequence[Moments]) -> tuple[np.ndarray, np.ndarray]:
    """w, b of the ridge map fitted on all parts, of which there are at least two.

    The ridge is the one of `RIDGES` that has the least error on the first part when fitted on the others.
    """
    rest = reduce(add, parts[1:])
    best = min(RIDGES, key=lambda r: parts[0].error(*rest.ridge(r)))
    return (rest + parts[0]).ridge(best)


def mlp_map(h: np.ndarray, x: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A perceptron with one hidden layer of the width of h, on standardised tokens; a function of h.

    About 1000 steps of Adam, at least 20 passes: a fixed number, because stopping early would look at single tokens.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    hm, hs, xm, xs = h.mean(0), h.std(0) + 1e-12, x.mean(0), x.std(0) + 1e-12
    passes = max(20, -(-1000 // -(-len(h) // 200)))
    net = MLPRegressor(
        hidden_layer_sizes=(h.shape[1],), batch_size=min(200, len(h)), max_iter=passes, n_iter_no_change=passes,
        random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit((h - hm) / hs, (x - xm) / xs)
    return lambda z: net.predict((z - hm) / hs).reshape(len(z), -1) * xs + xm


def folds_of(texts: Sequence[Sequence[int]], folds: int, seed: int) -> Int[np.ndarray, " b"] | None:
    """A fold for each text, the same for texts of equal token ids; None if there are fewer unlike texts than folds."""
    unlike: dict[tuple[int, ...], int] = {}
    group = np.array([unlike.setdefault(tuple(t), len(unlike)) for t in texts], dtype=int)
    if len(unlike) < folds:
        return None
    of_group = np.random.default_rng(seed).permutation(np.arange(len(unlike)) % folds)
    return np.asarray(of_group[group])


def mapped(
    h: np.ndarray, x: np.ndarray, text: np.ndarray, fold: np.ndarray, kind: Map, seed: int
) -> Float[np.ndarray, "n w"]:
    """Every token's hidden state brought to the inputs by a map fitted on the other folds' texts.

    h [n, d], x [n, w], text [n] the text of each token, fold [b] of each text.
    """
    where, out = fold[text], np.empty(x.shape)
    count = int(fold.max()) + 1
    parts = [Moments.of(h[where == f], x[where == f]) for f in range(count)] if kind == "linear" else []
    for f in range(count):
        mine = where == f
        if kind == "linear":
            w, b = linear_map([parts[(f + s) % count] for s in range(1, count)])
            out[mine] = h[mine] @ w + b
        else:
            out[mine] = mlp_map(h[~mine].astype(float), x[~mine].astype(float), seed)(h[mine].astype(float))
    return out


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of all texts in one list: inputs x [n, d], the text of each [n], and where each text's stand."""

    x: np.ndarray
    text: np.ndarray
    spans: list[slice]

    @classmethod
    def of(cls, model: Model, batch: Batch) -> "Tokens":
        """What enters the first block."""
        with torch.no_grad():
            x = [model.embed(batch.rows([i]))[0, batch.rows([i]).keep[0]].cpu().numpy() for i in range(len(batch))]
        ends = np.cumsum([len(v) for v in x])
        spans = [slice(int(end) - len(v), int(end)) for v, end in zip(x, ends, strict=True)]
        return cls(np.concatenate(x), np.repeat(np.arange(len(x)), [len(v) for v in x]), spans)


def outputs(model: Model, batch: Batch, layers: Sequence[int]) -> dict[int, Float[np.ndarray, "n d"]]:
    """Block outputs of all tokens, in the order of `Tokens`: one forward pass over all texts."""
    net, lengths, sites = model.require_net(), batch.lengths, [f"{i}.out" for i in layers]
    order = sorted(range(len(batch)), key=lambda i: lengths[i])
    found: dict[int, list[np.ndarray]] = {i: [np.empty(0)] * len(batch) for i in layers}
    for slab in slabs(len(batch), max(lengths)):
        ops, rows = Kept(sites), batch.rows(order[slab])
        with torch.no_grad():
            encode(ops, net, model.embed(rows), rows.keep, full=True)
        for i, site in zip(layers, sites, strict=True):
            for r, text in enumerate(order[slab]):
                found[i][text] = ops.seen[site][r, rows.keep[r]].cpu().numpy()
    return {i: np.concatenate(found.pop(i)) for i in layers}


@dataclass(frozen=True)
class Hits:
    """What was measured for one layer, map and distance: hits per token [n], and the same with shuffled tokens."""

    layer: int
    kind: Map
    distance: Distance
    own: np.ndarray | None
    shuffled: np.ndarray | None

    @property
    def name(self) -> str:
        """Of the finding."""
        return f"identity_{self.kind}_{self.distance}"


@dataclass(frozen=True)
class TokenIdentity(Audit):
    """Is a hidden token, layer by layer, still nearest to the input token it began as?

    maps: what brings a hidden token to the inputs first: "none"; "linear", a ridge regression; "mlp", a perceptron
      (extra [info]). Maps are fitted on other texts: folds of whole texts, equal texts in the same one.
    distances: "cosine", "l2". candidates: the input tokens of the same "text", or of all texts ("batch").
    folds: at least 3; with fewer unlike texts, maps that must be fitted are not measured.

    Hidden tokens are block outputs, inputs what enters the first block; layers are counted from 1, the first block's
    output. Texts of one token are left out. States in the model's own precision; maps and distances in float64.
    Cost: one forward pass per text, and per layer, fold and ridge one solve in the model's width.
    Source: Brunner et al. 2020, arXiv 1908.04211; closed form and cross-fitting are ours.
    """

    maps: tuple[Map, ...] = ("none", "linear")
    distances: tuple[Distance, ...] = ("cosine", "l2")
    candidates: Literal["text", "batch"] = "text"
    folds: int = 5

    source: ClassVar[str] = "Brunner et al. 2020, arXiv 1908.04211"
    caution: ClassVar[str] = (
        "Nearest is not unchanged: a state can be nearest to its own token and still hold much of others, which "
        "`mixing` measures. A map that is fitted finds identity that no later layer of the model may use."
    )

    def __post_init__(self) -> None:
        for field, choices in (("maps", ("none", "linear", "mlp")), ("distances", ("cosine", "l2"))):
            given = getattr(self, field)
            values = (given,) if isinstance(given, str) else tuple(given)
            if not values or len(set(values)) < len(values) or not set(values) <= set(choices):
                listed = ", ".join(map(repr, choices))
                raise InputError(f"TokenIdentity needs {field} out of {listed}, each at most once; seen {given!r}.")
            object.__setattr__(self, field, values)
        one_of("TokenIdentity", candidates=(self.candidates, ("text", "batch")))
        if isinstance(self.folds, bool) or not isinstance(self.folds, int) or self.folds < 3:
            raise InputError(f"TokenIdentity needs folds to be a whole number from 3 on; seen folds={self.folds!r}.")

    @property
    def name(self) -> str:
        return "token_identity"

    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        if "mlp" in self.maps and find_spec("sklearn") is None:
            raise MissingExtra('maps=("mlp",) needs scikit-learn: pip install "pellucid[info]"')
        used = [i for i, n in enumerate(batch.keep.sum(-1).tolist()) if n > 1]
        layers, left = len(model.require_net().layers), len(batch) - len(used)
        every = [(i, k, d) for i in range(layers) for k in self.maps for d in self.distances]
        if not used:
            tick(1, 1)
            none = [Hits(*key, None, None) for key in every]
            return Findings([_finding(h, None, self.candidates, left) for h in none], self.name)
        some = batch.rows(used)
        tokens = Tokens.of(model, some)
        hits = self._measured(model, some, tokens, layers, tick)
        found = [_finding(h, tokens, self.candidates, left) for h in hits]
        rows = [row for h in hits if h.own is not None for row in _rows(h, tokens, used)]
        return Findings(found, self.name, {"hits": rows}, {"layers": _picture(found, hits)})

    def _measured(self, model: Model, batch: Batch, tokens: Tokens, layers: int, tick: Tick) -> list[Hits]:
        """Layers in groups that fit in memory; a forward pass for each group."""
        ids = [row[keep].tolist() for row, keep in zip(batch.input_ids, batch.keep, strict=True)]
        fold = folds_of(ids, self.folds, self.seed)
        size = max(1, _HELD // tokens.x.size)
        groups = [range(i, min(i + size, layers)) for i in range(0, layers, size)]
        total, done, out = len(groups) + layers * len(self.maps), 0, list[Hits]()
        for group in groups:
            states = outputs(model, batch, group)
            tick(done := done + 1, total)
            for layer in group:
                for kind in self.maps:
                    out += self._one(layer, kind, states[layer], tokens, fold)
                    tick(done := done + 1, total)
        return out

    def _one(self, layer: int, kind: Map, h: np.ndarray, tokens: Tokens, fold: np.ndarray | None) -> list[Hits]:
        if kind != "none":
            if fold is None:
                return [Hits(layer, kind, d, None, None) for d in self.distances]
            h = mapped(h, tokens.x, tokens.text, fold, kind, self.seed)
        rng = np.random.default_rng([self.seed, layer])
        shuffled = np.concatenate([rng.permutation(np.arange(s.start, s.stop)) for s in tokens.spans])
        own = np.arange(len(h))
        return [
            Hits(layer, kind, d, self._hits(h, tokens, own, d), self._hits(h, tokens, shuffled, d))
            for d in self.distances
        ]

    def _hits(self, h: np.ndarray, tokens: Tokens, own: np.ndarray, distance: Distance) -> np.ndarray:
        if self.candidates == "batch":
            return identity_rate(h, tokens.x, own, distance)
        return np.concatenate([identity_rate(h[s], tokens.x[s], own[s] - s.start, distance) for s in tokens.spans])


def _finding(hits: Hits, tokens: Tokens | None, candidates: str, left: int) -> Finding:
    spans = [] if tokens is None else tokens.spans
    own, shuffled = (
        over_texts([] if v is None else [v[s].tolist() for s in spans], share=True) for v in (hits.own, hits.shuffled)
    )
    chance, counts = 1.0, {"tokens": own.samples, "texts left out": left}
    if tokens is not None:
        chance, counts["tokens whose input is not unique"] = _chance(tokens, candidates), _shared(tokens, candidates)
    limits = ["Special tokens count like others."]
    limits += [f"Texts of one token are left out: {left}."] if left else []
    if candidates == "batch":
        limits.append("Equal inputs, such as one word at the same place of two texts, share the hit.")
    if hits.kind != "none":
        limits.append(
            f"The map is fitted on other texts ({len(tokens.x) if tokens else 0} tokens in all), but on the same "
            "words, which it may know; with more texts it may find more."
        )
    if own.value is None or shuffled.value is None:
        reading = "Not measured: there are fewer unlike texts than folds." if spans else "No text has two tokens."
    else:
        reading = (
            f"In {place(hits.layer)} {own.value:.1%} of the hidden tokens, {MAPS[hits.kind]}, are nearest to their "
            f"own input by {DISTANCES[hits.distance]}; {shuffled.value:.1%} if they are shuffled."
        )
    return Finding(
        "token_identity", hits.name, own.value, own.interval, shuffled.value, own.n, graded(GRADES, own, shuffled),
        reading, tuple(limits), "share of tokens", place(hits.layer),
        f"hidden tokens shuffled within their text; chance is {chance:.3f}", shuffled.interval, counts,
    )  # fmt: skip


def _chance(tokens: Tokens, candidates: str) -> float:
    """The mean over tokens of one in the number of candidates."""
    return (1 if candidates == "batch" else len(tokens.spans)) / len(tokens.x)


def _shared(tokens: Tokens, candidates: str) -> int:
    """Tokens with an equal input among their candidates."""
    spans = [slice(0, len(tokens.x))] if candidates == "batch" else tokens.spans
    counts = [Counter(row.tobytes() for row in tokens.x[s]) for s in spans]
    return sum(c for count in counts for c in count.values() if c > 1)


def _rows(hits: Hits, tokens: Tokens, texts: Sequence[int]) -> list[dict[str, Any]]:
    """One row per text, numbered as they were given from 0."""
    assert hits.own is not None
    assert hits.shuffled is not None
    key = {"layer": hits.layer + 1, "map": hits.kind, "distance": hits.distance}
    return [
        {"text": text, **key, "n": s.stop - s.start, "hits": float(hits.own[s].sum()),
         "shuffled_hits": float(hits.shuffled[s].sum())}
        for text, s in zip(texts, tokens.spans, strict=True)
    ]  # fmt: skip


def _picture(found: Sequence[Finding], hits: Sequence[Hits]) -> Picture:
    maps = {"none": "no map", "linear": "linear map", "mlp": "perceptron"}
    labels = {h.name: f"{maps[h.kind]}, {DISTANCES[h.distance]}" for h in hits if h.own is not None}
    return Picture(by_layer, found, labels, "share of hidden tokens", "Nearest to their own input token")


register(TokenIdentity())
