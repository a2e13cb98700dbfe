"""Other attention maps for one head of a model on one text, and the proof: put back, the logits do not move."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pellucid.audits.identifiability.keys import KeyConstrained, key_constrained
from pellucid.audits.identifiability.polytope import TIGHT, Polytope, distance, farthest, weight_intervals
from pellucid.encoder.forward import Layer, allowed, attended, encode, queries_keys
from pellucid.encoder.model import Model
from pellucid.encoder.ops import Ops, Overridden, Recorded
from pellucid.encoder.readout import Readout, named_sources, readout
from pellucid.errors import InputError
from pellucid.methods.attention import layer_of
from pellucid.methods.effective import effective_attention, max_entropy_attention
from pellucid.types import Batch, Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN = 24  # weights in the picture of intervals


@dataclass(frozen=True, eq=False)
class Seen:
    """What one text (a batch of one row) does in a model: logits [c], and per layer attention [h, r, n], values
    [g, n, e] and, where a layer has a window, the mask [n, n], all on the CPU; block inputs x [n, d] on the device.

    names [n] of what is attended, special: which of it are special tokens. All n rows are there; a model of the zoo has
    one layer with one row, the one that pools its n states, and `pool` instead of block inputs.
    """

    model: Model
    batch: Batch
    logits: Tensor
    alpha: list[Tensor]
    v: list[Tensor]
    x: list[Tensor]
    mask: list[Tensor | None]
    names: tuple[str, ...]
    special: tuple[int, ...]
    pool: Readout | None = None

    @classmethod
    def of(cls, model: Model, batch: Batch) -> "Seen":
        """One forward pass, all rows of the last layer included."""
        batch.check_whole()
        tokens = () if batch.tokens is None else batch.tokens[0]
        special = tuple(i for i, t in enumerate(tokens) if t.special)
        if model.net is None:
            pool = readout(model, batch)
            alpha, v = pool.alpha[:, None].cpu(), pool.values.cpu()
            names = tuple(named_sources(tokens, pool.sources))
            special = special if pool.sources is None else ()
            return cls(model, batch, pool.logits, [alpha], [v], [], [None], names, special, pool)
        ops, net = Recorded(streams=True, values=True), model.net
        with torch.no_grad():
            logits = encode(ops, net, model.embed(batch), batch.keep, full=True)[0]
        at = range(len(net.layers))
        masks = [None if p.window is None else allowed(p, batch.keep, None) for p in net.layers]
        return cls(
            model,
            batch,
            logits,
            [ops.tape[f"{i}.attn.probs"][0].cpu() for i in at],
            [ops.seen[f"{i}.attn.mix"][0].cpu() for i in at],
            [ops.seen[f"{i}.in"][0] for i in at],
            [None if m is None else m[0, 0].cpu() for m in masks],
            tuple(t.text for t in tokens),
            special,
        )

    def keys_of(self, layer: int, row: int) -> np.ndarray:
        """Indices of the keys that the row may attend."""
        mask, n = self.mask[layer], self.alpha[layer].shape[-1]
        return np.arange(n) if mask is None else mask[row].nonzero()[:, 0].cpu().numpy()

    def row(self, layer: int, head: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Attention [m] and values [m, e] over the keys that the row may attend."""
        keys, heads = self.keys_of(layer, row), self.alpha[layer].shape[0]
        group = head // (heads // self.v[layer].shape[0])
        a = self.alpha[layer][head, row].double().cpu().numpy()[keys]
        return a / a.sum(), self.v[layer][group].double().cpu().numpy()[keys]

    def query_keys(self, layer: int, head: int, row: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The row's query [d_k], and the derivative [m, d_k] of its scores in the query; None where the query is learnt
        and the same for all texts."""
        if self.pool is not None:
            return None
        table = self.model.require_net().layers[layer]
        with torch.no_grad():
            h = attended(Ops(), str(layer), table, self.x[layer][None])
            q, k = queries_keys(table, h, None)
            one, bend = q[:, :, row : row + 1], slope_in_query(table, k, row)
        return one[0, head, 0].double().cpu().numpy(), bend[head].double().cpu().numpy()[self.keys_of(layer, row)]


def slope_in_query(layer: Layer, k: Tensor, row: int) -> Tensor:
    """d scores / d query at one position, [h, n, e]: scores are affine in the query for every kind of attention here
    (rotary and relative positions included), so their differences on unit queries are it. k [1, h, n, e]."""
    e = k.shape[-1]
    unit = torch.eye(e, dtype=k.dtype, device=k.device).expand(1, k.shape[1], e, e)
    zero = torch.zeros_like(unit[:, :, :1])
    rows = torch.full((1, e + 1), row, device=k.device)
    s = layer.score(torch.cat([unit, zero], 2), k, rows)[0]
    return (s[:, :e] - s[:, e:]).mT


def logits_with(seen: Seen, rows: Mapping[tuple[int, int, int], np.ndarray]) -> Tensor:
    """Logits [c] with some rows of attention replaced, (layer, head, row) -> weights [m] over the row's keys."""
    if seen.pool is not None:
        (given,) = rows.values()
        with torch.no_grad():
            return seen.pool.from_weights(torch.from_numpy(given).to(seen.pool.alpha)[None, None])[0]
    sites: dict[str, Tensor] = {}
    for (layer, head, row), a in rows.items():
        at = f"{layer}.attn.probs"
        if at not in sites:
            sites[at] = seen.alpha[layer].clone()[None]
        keys = torch.from_numpy(seen.keys_of(layer, row))
        sites[at][0, head, row, keys] = torch.from_numpy(a).to(sites[at])
    with torch.no_grad():
        x = seen.model.embed(seen.batch)
        sites = {at: a.to(x.device) for at, a in sites.items()}
        return encode(Overridden(sites), seen.model.require_net(), x, seen.batch.keep, full=True)[0]


def at_distance(a: np.ndarray, far: float, rng: np.random.Generator) -> np.ndarray:
    """A random valid row at total variation `far` from a: towards a random row, or where none is as far, towards a
    random single token."""
    other = rng.dirichlet(np.ones(len(a)))
    if distance(a, other) < far:
        other = np.eye(len(a))[rng.choice(np.flatnonzero(1 - a >= min(far, 1 - a.min())))]
    whole = distance(a, other)
    return a if whole == 0 else np.asarray(a + min(1.0, far / whole) * (other - a))


@dataclass(frozen=True, eq=False)
class Alternatives:
    """One head's attention on one text, and others with the same output.

    maps: "raw", "effective", "max_entropy", "witness", each [r, n] for the rows `rows`; moved: for each but "raw", the
    largest change of a logit when it is put back into the model; random_moved: the same for random attention at the
    witness's distance. low, high [n]: the interval of each weight of the first of the rows. key: the key-constrained
    statement on that row, None for a model of the zoo, whose one query is no text's own.
    """

    tokens: tuple[str, ...]
    layer: int
    head: int
    rows: tuple[int, ...]
    maps: Mapping[str, np.ndarray]
    moved: Mapping[str, float]
    random_moved: float
    low: np.ndarray
    high: np.ndarray
    key: KeyConstrained | None

    def figure(self) -> "Figure":
        """The maps side by side."""
        from pellucid.render.charts import maps

        names = {"raw": "attention", "effective": "effective", "max_entropy": "most even", "witness": "far witness"}
        return maps(
            {names[k]: m for k, m in self.maps.items()},
            ["the text"] if self.key is None else [self.tokens[i] for i in self.rows],
            list(self.tokens),
            f"Layer {self.layer + 1}, head {self.head + 1}: four maps with the same output",
        )

    def _from(self) -> str:
        return "the text" if self.key is None else self.tokens[self.rows[0]]

    def interval_figure(self) -> "Figure":
        """The first row's largest weights, in text order, and how far each may move."""
        from pellucid.render.charts import intervals

        row = self.maps["raw"][0]
        at = np.sort(np.argsort(-row, kind="stable")[:SHOWN])
        which = "" if len(at) == len(row) else f", the {len(at)} largest of {len(row)}"
        title = f"Layer {self.layer + 1}, head {self.head + 1}: weights from {self._from()}{which}"
        names = [self.tokens[i] for i in at]
        return intervals(names, row[at], self.low[at], self.high[at], title, "attention weight with the same output")


def alternatives(
    model: Model, text: Text | Batch, layer: int = -1, head: int = 0, rows: tuple[int, ...] | None = None, seed: int = 0
) -> Alternatives:
    """What one head's attention on one text could have been, row by row, and what each does to the logits.

    rows: query positions; None takes all (of the last layer, the head reads only the first). In float64.
    Cost: five forward passes, 5 to 20 linear programs per row, and two per token for the first row.
    Raises: InputError for a layer, head or row that is not there.
    """
    at = layer_of(model, "alternatives", *_whole(layer, head))
    seen = Seen.of(model.in_float64(), _one(model, text))
    r, n = seen.alpha[at].shape[-2:]
    chosen = tuple(range(r)) if rows is None else tuple(rows)
    if not chosen or any(type(i) is not int or not 0 <= i < r for i in chosen):
        raise InputError(f"rows must be positions from 0 to {r - 1}, at least one; seen {rows!r}.")
    alpha, v, mask = seen.alpha[at][None, head : head + 1].double(), seen.v[at][None], seen.mask[at]
    share = seen.alpha[at].shape[0] // v.shape[1]
    v, allow = v[:, head // share][:, None], None if mask is None else mask[None, None]
    keep = torch.ones(1, n, dtype=torch.bool)
    maps = {
        "raw": alpha[0, 0].numpy(force=True),
        "effective": effective_attention(alpha, v, keep, allowed=allow)[0, 0].numpy(force=True),
        "max_entropy": max_entropy_attention(alpha, v, keep, allow)[0, 0].numpy(force=True),
    }
    far, rng, random = np.zeros((r, n)), np.random.default_rng(seed), {}
    for i in chosen:
        a, values = seen.row(at, head, i)
        keys = seen.keys_of(at, i)
        far[i, keys] = farthest(Polytope.of(a, values), 2, seed)
        random[at, head, i] = at_distance(a, distance(far[i, keys], a), rng)
    maps["witness"] = far
    moved = {
        name: shift(seen, {(at, head, i): m[i, seen.keys_of(at, i)] for i in chosen})
        for name, m in maps.items()
        if name != "raw"
    }
    first = chosen[0]
    a, values = seen.row(at, head, first)
    low, high = np.zeros(n), np.zeros(n)
    low[seen.keys_of(at, first)], high[seen.keys_of(at, first)] = weight_intervals(a, values)
    query = seen.query_keys(at, head, first)
    return Alternatives(
        seen.names,
        at,
        head,
        chosen,
        {name: m[list(chosen)] for name, m in maps.items()},
        moved,
        shift(seen, random),
        low,
        high,
        None if query is None else key_constrained(a, query[1], values, query[0], seed=seed),
    )


def freest(model: Model, text: Text | Batch, layer: int = -1) -> int:
    """The head of a layer whose first row has the most even attention with the same output farthest away; where no head
    has another, the one with the largest weight. Cost: a forward pass in float64, and an SVD per head."""
    at = layer_of(model, "freest", *_whole(layer, 0))
    seen = Seen.of(model.in_float64(), _one(model, text))
    keys = seen.keys_of(at, 0)
    own, v = seen.alpha[at][None, :, :1][..., keys].double(), seen.v[at][None][:, :, keys].double()
    even = max_entropy_attention(own, v, torch.ones(1, len(keys), dtype=torch.bool))
    apart = (even - own).abs().sum(-1)[0, :, 0] / 2
    chosen = apart if float(apart.max()) > TIGHT else own[0, :, 0].amax(-1)
    return int(chosen.argmax())


def _whole(layer: object, head: object) -> tuple[int, int]:
    if type(layer) is not int or type(head) is not int:
        raise InputError(f"alternatives takes whole numbers as layer and head; seen layer={layer!r}, head={head!r}.")
    return layer, head


def _one(model: Model, text: Text | Batch) -> Batch:
    """The one text, with tokens, on the model's device; InputError for several or a text over the model's limit."""
    batch = text if isinstance(text, Batch) else model.batch(text)
    n = batch.input_ids.shape[1]
    if len(batch) != 1:
        raise InputError(f"alternatives takes one text; {len(batch)} were given.")
    if model.limit is not None and n > model.limit:
        raise InputError(f"The text has {n} tokens; {model.id!r} reads at most {model.limit}.")
    return model.named(batch.to(model.device))


def shift(seen: Seen, rows: Mapping[tuple[int, int, int], np.ndarray]) -> float:
    """The largest change of a logit when these rows are put back."""
    return float((logits_with(seen, rows) - seen.logits).abs().max())
