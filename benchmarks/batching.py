"""Many texts at once against one at a time: time per text, and the largest difference of scores."""

from typing import Any

import numpy as np
import torch

import pellucid
from benchmarks.measure import in_turns, random_model, ratio
from pellucid import Attribution, Batch, Model

Row = dict[str, Any]


def run(quick: bool, device: str) -> list[Row]:
    """Bounds of the foundation: 1.0 for 32 texts of equal length, 1.15 for mixed lengths, differences below 1e-6."""
    rows = []
    generator = torch.Generator().manual_seed(0)
    for shape in ("minilm",) if quick else ("bert-base", "minilm"):
        model = random_model(shape, device=device)
        for kind, lengths in {
            "equal, n = 40": [40] * 32,
            "equal, n = 128": [128] * 32,
            "mixed, 8 to 128": torch.randint(8, 129, (32,), generator=generator).tolist(),
        }.items():
            ids = torch.randint(1000, 30_000, (32, max(lengths)), generator=generator)
            keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
            many = Batch(ids.masked_fill(~keep, 0), keep)
            alone = [many.rows([i]) for i in range(32)]

            def together(model: Model = model, many: Batch = many) -> list[Attribution]:
                return pellucid.explain(model, many, target=0)

            def apart(model: Model = model, alone: list[Batch] = alone) -> list[Attribution]:
                return [pellucid.explain(model, one, target=0)[0] for one in alone]

            seconds = in_turns({"together": together, "apart": apart}, 2 if quick else 5)
            pairs = zip(together(), apart(), strict=True)
            worst = max(float(np.abs(a.scores - b.scores).max()) for a, b in pairs)
            rows.append(
                {
                    "benchmark": "batching",
                    "shape": shape,
                    "batch": 32,
                    "n": max(lengths),
                    "what": kind,
                    "against": "one text at a time",
                    **ratio(seconds, "together", "apart"),
                    "largest_difference": worst,
                }
            )
    return rows
