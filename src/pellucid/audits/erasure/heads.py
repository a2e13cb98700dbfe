"""The audit "erasure_heads": in which heads of which layers does the most attended unit matter most?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pellucid.audits.audit import ENOUGH, TOO_FEW, Audit, Tick, register
from pellucid.audits.erasure.effects import Judge, Units, masks, share_of_best, units_of
from pellucid.encoder.forward import encode, finish, settle
from pellucid.encoder.model import Model
from pellucid.encoder.ops import Ops, Recorded
from pellucid.encoder.readout import left_of
from pellucid.errors import Unanswerable
from pellucid.finding import Finding, Findings, Picture
from pellucid.methods.method import slabs
from pellucid.stats import benjamini_hochberg, hits_by_chance, kendall, over_texts
from pellucid.types import Batch

Record = dict[str, Any]
LEVEL = 0.05


@dataclass(frozen=True)
class ErasureHeads(Audit):
    """In which heads is the most attended unit the one whose erasure moves the output most?

    Head by head and layer by layer: a unit's key is erased from every query of that head (level "layer" of the audit
    "erasure"), and the rest scaled. Hits are counted against chance (one-sided, Poisson binomial) and the heads marked
    after Benjamini & Hochberg at 5 %. words: erase a word's sub-words together.

    Cost: per text, heads * layers * units passes of half the layers.
    Source: Serrano & Smith 2019, arXiv 1906.03731, carried to every head.
    """

    words: bool = True

    source: ClassVar[str] = "Serrano & Smith 2019, arXiv 1906.03731"
    caution: ClassVar[str] = (
        "A hit says that a head's favourite is the one that moves most through that head, not that the head "
        "matters: look at the size of the effects. Heads are erased one by one, so heads that stand in for each "
        "other all look weak."
    )

    @property
    def name(self) -> str:
        return "erasure_heads"

    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        if model.problem == "regression":
            raise Unanswerable(f"{model.id!r} is a regression: it decides nothing, so no erasure can flip it.")
        layers = model.require_net().layers
        places = [(i, h) for i, layer in enumerate(layers) for h in range(layer.heads)]
        rows: list[Record] = []
        for i in range(len(batch)):
            text = batch.rows([i])
            assert text.tokens is not None
            units = units_of(text.tokens[0], self.words)
            if len(units) > 1:
                rows += _measured(model, text, i, units)
            tick(i + 1, len(batch))
        table = _by_head(rows, places)
        shape = (len(layers), max(layer.heads for layer in layers))
        return Findings(
            _findings(table), self.name, {"effects": rows, "heads": table}, _pictures(table, shape) if rows else {}
        )


def _measured(model: Model, text: Batch, index: int, units: Units) -> list[Record]:
    """One record per layer and head of one text."""
    ops, net = Recorded(streams=True, values=True), model.require_net()
    with torch.no_grad():
        logits = encode(ops, net, model.embed(text), text.keep)[0]
        n, u, judge = text.input_ids.shape[1], len(units), Judge(logits, model.problem)
        kept = masks(units, [*([i] for i in range(u)), range(u)], n).to(logits.device)
        out: list[Record] = []
        for layer, table in enumerate(net.layers):
            alpha, v = ops.tape[f"{layer}.attn.probs"][0], ops.seen[f"{layer}.attn.mix"][0]
            y = erased_by_head(model, text, layer, alpha, v, ops.seen[f"{layer}.in"], kept)
            for head in range(table.heads):
                e, weight = judge.effect(y[head]), alpha[head].mean(0).double().cpu().numpy()
                a = np.array([weight[g].sum() for g in units])
                best = share_of_best(e[:u]) > 0
                out.append(
                    {
                        "text": index,
                        "layer": layer,
                        "head": head,
                        "units": u,
                        "hit": float(share_of_best(a) @ best),
                        "chance": float(best.mean()),
                        "largest_effect": float(e[:u].max()),
                        "everything_js": float(e[u]),
                        "tau": kendall(a, e[:u]),
                    }
                )
    return out


def erased_by_head(model: Model, text: Batch, layer: int, alpha: Tensor, v: Tensor, x: Tensor, kept: Tensor) -> Tensor:
    """Logits [h, k, c] of one text with the keys erased in one head of one layer at a time, for k masks [k, n].

    alpha [h, r, n], v [h, n, e] and the block's input x [1, n, d] are the model's own, so that the layer's queries,
    keys and other heads are not computed again. The same as the audit's level "layer" with a head.
    """
    net, (h, r, n) = model.require_net(), alpha.shape
    base = (alpha @ v).transpose(0, 1).flatten(1)
    parts = []
    for head in range(h):
        changed = left_of(alpha[head] * kept[:, None, :], True) @ v[head]
        mixed = base.expand(len(kept), -1, -1).clone().view(len(kept), r, h, -1)
        mixed[:, :, head] = changed
        parts.append(mixed.flatten(2))
    every, out = torch.cat(parts), []
    for some in slabs(len(every), n):
        part = every[some]
        keep = text.keep.expand(len(part), -1)
        y = settle(Ops(), str(layer), net.layers[layer], part, x[:, :r].expand(len(part), -1, -1))
        if layer == len(net.layers) - 1:
            out.append(finish(Ops(), net, y, keep))
        else:
            out.append(encode(Ops(), net, y, keep, layer + 1))
    return torch.cat(out).view(h, len(kept), -1)


def _by_head(rows: list[Record], places: list[tuple[int, int]]) -> list[Record]:
    """Per head: hit rate, chance, p, and p after Benjamini & Hochberg."""
    table: list[Record] = []
    for layer, head in places:
        mine = [r for r in rows if (r["layer"], r["head"]) == (layer, head)]
        hits, chances, leverage = ([r[c] for r in mine] for c in ("hit", "chance", "everything_js"))
        found = over_texts([[h] for h in hits], share=True)
        low, high = found.interval or (np.nan, np.nan)
        table.append(
            {
                "layer": layer,
                "head": head,
                "texts": len(mine),
                "hit_rate": found.value,
                "low": low,
                "high": high,
                "chance": float(np.mean(chances)) if mine else None,
                "leverage": float(np.mean(leverage)) if mine else None,
                "p": hits_by_chance(sum(hits), chances) if mine else np.nan,
            }
        )
    for row, q in zip(table, benjamini_hochberg([r["p"] for r in table]), strict=True):
        row["q"] = float(q)
    return table


def _findings(table: list[Record]) -> list[Finding]:
    limits = (
        "A head alone is erased; heads that stand in for each other look idle.",
        "This checkpoint alone: another seed of the same model may come out otherwise.",
    )
    known = [r for r in table if r["texts"]]
    n = max((r["texts"] for r in known), default=0)
    good = [r for r in known if r["q"] <= LEVEL]
    share = len(good) / len(known) if known else None
    best = max(known, key=lambda r: r["hit_rate"] - r["chance"], default=None)
    word = TOO_FEW if n < ENOUGH else "NONE" if not good else "SOME HEADS" if len(good) < len(known) else "ALL HEADS"
    reading = "No text has two units."
    if best is not None:
        reading = (
            f"In {len(good)} of {len(known)} heads the most attended unit has the largest effect more often than by "
            f"chance, most clearly in layer {best['layer'] + 1}, head {best['head'] + 1}: {best['hit_rate']:.0%} "
            f"against {best['chance']:.0%}."
        )
    return [
        Finding(
            "erasure_heads", "heads_better_than_chance", share, None, LEVEL, n, word, reading, limits, "share of heads",
            "", "at most this share of the heads marked are marked by chance (Benjamini & Hochberg)", None,
            {"heads": len(known)},
        )
    ]  # fmt: skip


def _pictures(table: list[Record], shape: tuple[int, int]) -> dict[str, Picture]:
    from pellucid.render.charts import maps

    gain, marked = np.full(shape, np.nan), np.full(shape, np.nan)
    for r in table:
        if r["hit_rate"] is not None:
            gain[r["layer"], r["head"]] = r["hit_rate"] - r["chance"]
            marked[r["layer"], r["head"]] = gain[r["layer"], r["head"]] if r["q"] <= LEVEL else np.nan
    names = [f"layer {i + 1}" for i in range(shape[0])], [str(h + 1) for h in range(shape[1])]
    panels = {"hit rate minus chance": gain, "the same, where it is beyond chance": marked}
    return {"heads": Picture(maps, panels, *names, "Does the most attended unit matter most? By layer and head")}


register(ErasureHeads())
