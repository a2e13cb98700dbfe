"""DecompX by one backward pass against the model's own forward: time and memory, float32 and bfloat16."""

from collections.abc import Callable
from typing import Any, cast

import torch

import pellucid
from benchmarks.measure import Peak, in_turns, random_batch, random_model, ratio
from pellucid.methods import DecompX

Row = dict[str, Any]


def run(quick: bool, device: str) -> list[Row]:
    """Batch 8; bounds of the foundation: 2.6 (n = 128) and 3.6 (n = 512) for one class, 4.2 for both at n = 128."""
    rows = []
    lengths = (128, 512) if quick else (32, 64, 128, 256, 512)
    for shape in ("bert-base", "minilm"):
        model = random_model(shape, device=device)
        for n in lengths:
            rows += _one(model, shape, n, 2 if quick else 5)
    return rows


def _one(model: pellucid.Model, shape: str, n: int, repeats: int) -> list[Row]:
    batch = random_batch(model, 8, n)
    ids, mask = batch.input_ids, batch.keep.long()
    hf = cast(Callable[..., object], model.hf)

    def forward() -> object:
        with torch.no_grad():
            return hf(input_ids=ids, attention_mask=mask)

    calls: dict[str, Callable[[], object]] = {
        "Hugging Face forward": forward,
        "one class": lambda: pellucid.explain(model, batch, target=0),
        "both classes": lambda: pellucid.explain(model, batch, target="all"),
        "one class, bfloat16": lambda: pellucid.explain(model, batch, DecompX(precision="bfloat16"), target=0),
    }
    seconds = in_turns(calls, repeats)
    peaks = {}
    for name, call in calls.items():
        with Peak() as peak:
            call()
        peaks[name] = peak.growth
    return [
        {
            "benchmark": "one_backward",
            "shape": shape,
            "batch": 8,
            "n": n,
            "what": name,
            "against": "Hugging Face forward, SDPA, no grad, batch 8",
            **ratio(seconds, name, "Hugging Face forward"),
            "peak_mb": peaks[name] / 2**20,
        }
        for name in calls
    ]
