"""The audit "identifiability": how far attention could have been another with the same output, by text length."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.audits.audit import Audit, Tick, generator_of, register
from pellucid.audits.identifiability.alternatives import Alternatives, Seen, alternatives, at_distance, shift
from pellucid.audits.identifiability.joint import equations, output_is_invertible
from pellucid.audits.identifiability.keys import key_constrained
from pellucid.audits.identifiability.polytope import TIGHT, Polytope, array, distance, farthest, top_can_change
from pellucid.audits.identifiability.reading import LIMITS, findings, pictures
from pellucid.encoder.forward import read_rows
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.finding import Findings, Picture
from pellucid.methods.effective import column_space, effective_attention, max_entropy_attention, parts
from pellucid.methods.method import one_of
from pellucid.types import Batch

Record = dict[str, Any]
Rows = dict[tuple[int, int, int], np.ndarray]
SHOWN = 24  # rows of the head in the picture


@dataclass(frozen=True)
class Identifiability(Audit):
    """Could this attention have been another with the same output, and how far away?

    level: "cls" looks at the first row, which the classifier reads in the end, in every layer and head; "full" at all
      rows. Under mean pooling the classifier reads all rows, and "cls" still takes the first. rows: rows per text
      (drawn over layers, heads and, at "full", positions) for what needs linear programs: intervals, far witnesses,
      whether the top token can change; their control is the same row with its weights in a random order. starts: of
      the search for a far witness.
    seconds: a time budget for the linear programs; when it is spent the rest is left out, and every finding says how
      many rows it rests on. None: no limit, and the same result on every machine.

    In float64 on a copy of the network. Cost: six forward passes per text, an SVD per head, 20 to 60 linear programs
    per sampled row. Source: Brunner et al. 2020, arXiv 1908.04211; Bhardwaj et al. 2021, arXiv 2106.01269; intervals,
    witnesses and the joint statement are ours.
    """

    level: Literal["cls", "full"] = "cls"
    rows: int = 6
    starts: int = 3
    seconds: float | None = None

    source: ClassVar[str] = "Brunner et al. 2020, arXiv 1908.04211; Bhardwaj et al. 2021, arXiv 2106.01269"
    needs: ClassVar[Access] = Access.READOUT
    caution: ClassVar[str] = (
        "That other weights give the same output does not make the model's own wrong, and weights that are unique "
        "need not matter: `erasure` asks that. Each layer is asked by itself, with all else held."
    )

    def __post_init__(self) -> None:
        one_of("Identifiability", level=(self.level, ("cls", "full")))
        if self.rows < 0 or self.starts < 1 or (self.seconds is not None and self.seconds < 0):
            raise InputError(
                "Identifiability needs rows of at least 0, starts of at least 1 and seconds of at least 0 or None; "
                f"seen rows={self.rows}, starts={self.starts}, seconds={self.seconds}."
            )

    @property
    def name(self) -> str:
        return "identifiability"

    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        double = model.in_float64()
        # what pools the states of a READOUT model is read as it is: no projection stands behind it
        invertible = [True] if double.net is None else [output_is_invertible(p.o.w) for p in double.net.layers]
        heads: list[Record] = []
        jobs: list[list[Job]] = []
        moved: list[Record] = []
        total = len(batch) * (1 + self.rows)
        for i in range(len(batch)):
            seen, rng = Seen.of(double, batch.rows([i])), generator_of(self.seed, batch.rows([i]))
            heads += _closed_forms(seen, i, self.level, invertible, rng)
            moved.append(_put_back(seen, i, rng))
            jobs.append(_sampled(seen, i, self.level, self.rows, rng))
            tick(i + 1, total)
        rows: list[Record] = []
        start = time.perf_counter()
        turns = [j[turn] for turn in range(self.rows) for j in jobs if turn < len(j)]
        for done, job in enumerate(turns, 1):
            if self._spent(start):
                break
            rows.append(job.solved(self.starts))
            tick(len(batch) + done * (total - len(batch)) // len(turns), total)
        tick(total, total)
        width, said = width_of(double), [LIMITS[self.level]]
        if double.net is None:
            said = [LIMITS["readout"]]
        elif self.level == "cls" and read_rows(double.net, batch.keep) is None:
            said.append(LIMITS["pooled"])
        found = findings(heads, rows, moved, width, said, left=len(turns) - len(rows))
        drawn = pictures(heads, rows, width)
        shown = None if self._spent(start) else _example(model, batch, rows)
        if shown is not None:
            drawn |= {"example": Picture(shown.figure), "example_intervals": Picture(shown.interval_figure)}
        spent = {"forwards": 6 * len(batch) + (0 if shown is None else 5)}
        return Findings(found, self.name, {"heads": heads, "rows": rows, "put_back": moved}, drawn, origin=spent)

    def _spent(self, start: float) -> bool:
        return self.seconds is not None and time.perf_counter() - start > self.seconds


@dataclass(frozen=True, eq=False)
class Job:
    """One attention row to be measured by linear programs: weights a [m], values [m, e], key slope [m, d_k] or None."""

    record: Record
    a: np.ndarray
    values: np.ndarray
    keys: np.ndarray | None
    shuffled: np.ndarray
    seed: int

    def solved(self, starts: int) -> Record:
        """Interval of the top weight, a far witness, whether the top can change; the same for the shuffled row."""
        made: Record = dict(self.record)
        for prefix, a in (("", self.a), ("shuffled_", self.shuffled)):
            shape, top = Polytope.of(a, self.values), int(a.argmax())
            low, high = shape.interval(top)
            far = farthest(shape, starts, self.seed)
            made |= {
                prefix + "top": float(a[top]),
                prefix + "low": min(low, float(a[top])),
                prefix + "high": max(high, float(a[top])),
                prefix + "width": max(0.0, high - low),
                prefix + "distance": distance(far, shape.row),
                prefix + "top_can_change": float(top_can_change(shape)),
                prefix + "residual": shape.residual(far),
                prefix + "programs": shape.programs,
            }
        if self.keys is None:
            names = ("key_unique", "key_condition", "key_unique_control", "key_condition_control")
            return made | dict.fromkeys(names, np.nan)
        rng = np.random.default_rng(self.seed)
        noise = rng.normal(size=self.keys.shape), rng.normal(size=self.values.shape)
        for suffix, (k, v) in (("", (self.keys, self.values)), ("_control", noise)):
            key = key_constrained(self.a, k, v)
            known = np.nan if key.unique_nearby is None else float(key.unique_nearby)
            made |= {f"key_unique{suffix}": known, f"key_condition{suffix}": key.condition}
        return made


def _example(model: Model, batch: Batch, rows: Sequence[Record]) -> Alternatives | None:
    """The freest sampled head of the shortest text in which anything is free, to look at; None if nothing is."""
    free = [r for r in rows if r["distance"] > TIGHT]
    if not free:
        return None
    r = min(free, key=lambda r: (r["n"], -r["distance"]))
    chosen = (0,) if model.net is None else tuple(range(min(SHOWN, r["n"])))
    return alternatives(model, batch.rows([r["text"]]), r["layer"], r["head"], chosen)


def width_of(model: Model) -> int:
    """How wide the values of a head are, or the states that a READOUT model pools."""
    if model.pooled is not None:
        return model.pooled.out.w.shape[1]
    first = model.require_net().layers[0]
    return first.v.w.shape[0] // first.heads


def _positions(seen: Seen, level: str) -> Tensor:
    return torch.arange(seen.alpha[0].shape[-2] if level == "full" else 1)


def _closed_forms(
    seen: Seen, text: int, level: str, invertible: Sequence[bool], rng: np.random.Generator
) -> list[Record]:
    """One record per layer and head: what ranks and projections tell, averaged over the rows of `level`."""
    out: list[Record] = []
    at = _positions(seen, level)
    marks = torch.tensor([j for j in seen.special if j], dtype=torch.long)
    for layer, (whole, v) in enumerate(zip(seen.alpha, seen.v, strict=True)):
        alpha, v = whole[None, :, at].double(), v[None].double()
        keep = torch.ones(1, whole.shape[-1], dtype=torch.bool)
        whole_mask = seen.mask[layer]
        mask = None if whole_mask is None else whole_mask[None, None, at]
        free = _null_dimensions(v, len(at), keep, mask)
        noise = torch.from_numpy(rng.normal(size=v.shape))
        shuffled = _shuffled(alpha, keep, mask, rng)
        effective = effective_attention(alpha, v, keep, allowed=mask)
        projected = effective_attention(shuffled, v, keep, allowed=mask)
        columns = {
            "unique": (free == 0).double(),
            "unique_control": (_null_dimensions(noise, len(at), keep, mask) == 0).double(),
            "dimension": free.double(),
            "correlation": _correlation(alpha, effective, keep, mask),
            "correlation_control": _correlation(shuffled, projected, keep, mask),
            "correlation_unconstrained": _correlation(
                alpha, effective_attention(alpha, v, keep, "none", mask), keep, mask
            ),
            "correlation_unconstrained_control": _correlation(
                shuffled, effective_attention(shuffled, v, keep, "none", mask), keep, mask
            ),
            **_even(alpha, shuffled, effective, projected, v, keep, mask, marks),
        }
        share = whole.shape[0] // v.shape[1]
        for name, values, own in (("", v, "unique"), ("_control", noise, "unique_control")):
            columns[own] = columns[own].repeat_interleave(share, 1)
            columns[f"unique_layer{name}"] = columns[own]
            if not invertible[layer]:
                w = array(seen.model.require_net().layers[layer].o.w)
                columns[f"unique_layer{name}"] = _unique_in_layer(array(values[0]), w, seen.keys_of(layer, int(at[0])))
        columns["dimension"] = columns["dimension"].repeat_interleave(share, 1)
        if seen.pool is not None:  # there is no other head, and a first sentence is no first token
            blank = ["unique_layer", "unique_layer_control"] + [k for k in columns if k.endswith("first")]
            some = blank if seen.pool.sources is not None else blank[:2]
            columns |= {k: torch.full_like(columns[k], torch.nan) for k in some}
        for head in range(whole.shape[0]):
            record = {k: float(c[0, head].mean()) for k, c in columns.items()}
            where = {"text": text, "n": whole.shape[-1], "layer": layer, "head": head, "rows": len(at)}
            out.append(where | record)
    return out


def _even(
    alpha: Tensor, shuffled: Tensor, effective: Tensor, projected: Tensor, v: Tensor, keep: Tensor, mask: Tensor | None,
    marks: Tensor
) -> dict[str, Tensor]:  # fmt: skip
    """Distance to the most even attention, and the weight on the first token and on the other special tokens, in
    raw, effective and most even attention."""
    even = max_entropy_attention(alpha, v, keep, mask)
    control = max_entropy_attention(shuffled, v, keep, mask)
    columns = {
        "even_distance": (even - alpha).abs().sum(-1) / 2,
        "even_distance_control": (control - shuffled).abs().sum(-1) / 2,
    }
    named = {"": alpha, "effective_": effective, "even_": even, "shuffled_": shuffled, "shuffled_effective_": projected}
    for name, x in named.items():
        columns[f"{name}first"] = x[..., 0]
        columns[f"{name}marks"] = x[..., marks].sum(-1) if len(marks) else torch.full_like(x[..., 0], torch.nan)
    return columns


def _null_dimensions(v: Tensor, r: int, keep: Tensor, mask: Tensor | None) -> Tensor:
    """Dimension of the null space of [V, 1] for every row, [b, g, r]."""
    out = torch.zeros(*v.shape[:2], r, dtype=torch.long)
    for texts, rows, keys in parts(r, keep, mask):
        free = len(keys) - column_space(v[texts][:, :, keys])[2]
        out[texts[:, None, None], torch.arange(v.shape[1])[:, None], rows] = free[..., None]
    return out


def _unique_in_layer(values: np.ndarray, w: np.ndarray, keys: np.ndarray) -> Tensor:
    """Which heads' rows are unique given the layer's output alone, [1, h, 1], where the output projection w [d, h e]
    does not tell every head's output: those that no solution of the joint equations moves. values [g, n, e].

    For the keys of the first row; without a window these are the same for all rows.
    """
    heads = w.shape[1] // values.shape[2]
    known = equations(values[:, keys].repeat(heads // len(values), 0), w)
    moved = len(keys) - np.square(known).sum(1).reshape(heads, -1).sum(1)
    return torch.from_numpy(moved < 1e-6).double()[None, :, None]


def _correlation(a: Tensor, b: Tensor, keep: Tensor, mask: Tensor | None) -> Tensor:
    """Pearson's r of two rows over the keys that the row may attend, [b, h, r]; 1 where they are equal."""
    on = keep[:, None, None, :].expand_as(a) if mask is None else (mask & keep[:, None, None, :]).expand_as(a)
    count = on.sum(-1, keepdim=True)
    x, y = ((z - (z * on).sum(-1, keepdim=True) / count) * on for z in (a, b))
    r = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    same = ((a - b) * on).abs().amax(-1) < 1e-9
    return torch.where(same, torch.ones_like(r), r)


def _shuffled(alpha: Tensor, keep: Tensor, mask: Tensor | None, rng: np.random.Generator) -> Tensor:
    """Every row's weights in a random order over the keys that it may attend: the control."""
    out = alpha.clone()
    for texts, rows, keys in parts(alpha.shape[2], keep, mask):
        order = torch.from_numpy(rng.random((len(texts), alpha.shape[1], len(rows), len(keys)))).argsort(-1)
        part = alpha[texts][:, :, rows][..., keys].gather(-1, order)
        h = torch.arange(alpha.shape[1])
        out[texts[:, None, None, None], h[:, None, None], rows[:, None], keys] = part
    return out


def _sampled(seen: Seen, text: int, level: str, count: int, rng: np.random.Generator) -> list[Job]:
    """Rows of one text drawn over layers, heads and positions, without repetition."""
    at, heads = len(_positions(seen, level)), seen.alpha[0].shape[0]
    places = rng.permutation(len(seen.alpha) * heads * at)[:count]
    jobs = []
    for place in places.tolist():
        layer, head, row = place // (heads * at), place // at % heads, place % at
        a, values = seen.row(layer, head, row)
        of_query = seen.query_keys(layer, head, row)
        keys = None if of_query is None else of_query[1]
        n = seen.alpha[layer].shape[-1]
        record = {"text": text, "n": n, "layer": layer, "head": head, "row": row, "keys": len(a)}
        jobs.append(Job(record, a, values, keys, rng.permutation(a), int(rng.integers(2**31))))
    return jobs


def _put_back(seen: Seen, text: int, rng: np.random.Generator) -> Record:
    """The first row of every head of every layer replaced by its effective, its most even and a random attention at the
    latter's distance; and one head's first row by a far witness and a random row as far: the largest change of a logit.
    """
    maps: dict[str, Rows] = {"effective": {}, "even": {}, "random": {}}
    apart = []
    for layer, (alpha, v) in enumerate(zip(seen.alpha, seen.v, strict=True)):
        keys = seen.keys_of(layer, 0)
        a, values = alpha[None, :, :1][..., keys].double(), v[None][:, :, keys].double()
        keep = torch.ones(1, len(keys), dtype=torch.bool)
        short = effective_attention(a, values, keep)[0, :, 0].numpy()
        even = max_entropy_attention(a, values, keep)[0, :, 0].numpy()
        for head, own in enumerate(a[0, :, 0].numpy()):
            far = distance(even[head], own)
            apart.append(far)
            maps["effective"][layer, head, 0], maps["even"][layer, head, 0] = short[head], even[head]
            maps["random"][layer, head, 0] = at_distance(own, far, rng)
    layer, head = int(rng.integers(len(seen.alpha))), int(rng.integers(len(seen.alpha[0])))
    row, of_row = seen.row(layer, head, 0)
    witness = farthest(Polytope.of(row, of_row), 1, int(rng.integers(2**31)))
    maps["witness"] = {(layer, head, 0): witness}
    maps["witness_random"] = {(layer, head, 0): at_distance(row, distance(witness, row), rng)}
    moved = {f"{name}_moved": shift(seen, rows) for name, rows in maps.items()}
    apart_by = {"mean_distance": float(np.mean(apart)), "witness_distance": distance(witness, row)}
    return {"text": text, "n": seen.alpha[0].shape[-1], **apart_by, **moved}


register(Identifiability())
