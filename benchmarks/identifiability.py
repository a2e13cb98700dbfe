"""Effective attention of a whole model against its forward pass; weight intervals against the bare linear programs."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog

from benchmarks.measure import in_turns, random_model, ratio
from pellucid import Batch
from pellucid.audits.identifiability import effective_attention, weight_interval
from pellucid.audits.identifiability.alternatives import Seen

Row = dict[str, Any]


def run(quick: bool, device: str) -> list[Row]:
    """Bounds: 5 forward passes for all 144 heads at n = 512; 5 times the bare programs for all [CLS]-row intervals."""
    rows: list[Row] = []
    model = random_model("bert-base", device=device)
    generator = torch.Generator().manual_seed(0)
    for n in (512,) if quick else (128, 512):
        batch = model.named(Batch(torch.randint(1000, 30_000, (1, n), generator=generator)).to(device))
        seen = Seen.of(model, batch)
        alpha, v = torch.stack(seen.alpha), torch.stack(seen.v)
        keep = batch.keep.expand(len(alpha), n)
        seconds = in_turns(
            {
                "effective": lambda alpha=alpha, v=v, keep=keep: effective_attention(alpha, v, keep),  # type: ignore[misc]
                "forward": lambda batch=batch: model.hf_logits(batch),  # type: ignore[misc]
            },
            3 if quick else 7,
        )
        heads = alpha.shape[0] * alpha.shape[1]
        rows.append(
            _row(n, f"effective attention, {heads} heads", "one forward pass", ratio(seconds, "effective", "forward"))
        )
        seconds = in_turns({"ours": lambda s=seen: _ours(s), "bare": lambda s=seen: _bare(s)}, 1 if quick else 3)  # type: ignore[misc]
        rows.append(
            _row(n, f"top weight's interval, {heads} [CLS] rows", "the bare programs", ratio(seconds, "ours", "bare"))
        )
    return rows


def _row(n: int, what: str, against: str, measured: dict[str, Any]) -> Row:
    return {"benchmark": "identifiability", "shape": "bert-base", "n": n, "what": what, "against": against, **measured}


def _cls_rows(seen: Seen) -> list[tuple[np.ndarray, np.ndarray]]:
    return [seen.row(layer, head, 0) for layer in range(len(seen.alpha)) for head in range(len(seen.alpha[0]))]


def _ours(seen: Seen) -> None:
    for a, v in _cls_rows(seen):
        weight_interval(a, v, int(a.argmax()))


def _bare(seen: Seen) -> None:
    """What anyone would write: minimise and maximise one weight under V^T a = V^T alpha and a sum of one."""
    for a, v in _cls_rows(seen):
        equations = np.c_[v, np.ones(len(a))].T
        goal = equations @ a
        unit = np.zeros(len(a))
        unit[a.argmax()] = 1.0
        for direction in (unit, -unit):
            linprog(direction, A_eq=equations, b_eq=goal)
