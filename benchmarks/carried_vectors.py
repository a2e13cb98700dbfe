"""DecompX with the absdot rule by carried vectors: time over the floating-point bound, memory in [n, n, d] tensors."""

import time
from typing import Any

import torch

from benchmarks.measure import SHAPES, Peak, random_batch, random_model
from pellucid.methods.vectors import push

Row = dict[str, Any]


def flops(d: int, layers: int, n: int) -> float:
    """Multiplications and additions that the algorithm cannot do without.

    Per block values and output 4 n^2 d^2, feed-forward 16 n^2 d^2, mixing 2 n^3 d; one row of the last block; in the
    first block the values of n vectors only, because there each row has a single part.
    """
    block = 20.0 * n * n * d * d + 2.0 * n**3 * d
    last = 2.0 * n * n * d * d + 2.0 * n * n * d + 18.0 * n * d * d
    return (layers - 1) * block - 2.0 * (n * n - n) * d * d + last


def _rate(d: int, device: str) -> float:
    """Floating-point operations per second of a plain float32 product [4096, d] x [d, 4d], best of 5."""
    a, b = torch.randn(4096, d, device=device), torch.randn(d, 4 * d, device=device)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(4):
            a @ b
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, 4 * 2.0 * 4096 * d * 4 * d / (time.perf_counter() - start))
    return best


def run(quick: bool, device: str) -> list[Row]:
    """Wanted: 1.6 times the bound at n = 128 and 256, 3.5 tensors; BERT-base with 12 layers at n = 512 within 6 GB."""
    cases = (
        [("bert-base", 3, 128), ("bert-base", 3, 256)]
        if quick
        else [
            ("bert-base", 3, 128),
            ("bert-base", 3, 256),
            ("minilm", 6, 128),
            ("minilm", 6, 256),
            ("bert-base", 2, 512),
            ("bert-base", 12, 512),
        ]
    )
    rows = []
    for shape, layers, n in cases:
        model = random_model(shape, layers, device)
        net, d = model.require_net(), SHAPES[shape]["hidden_size"]
        batch = random_batch(model, 1, n)
        x = model.embed(batch)
        push(net, x[:, :16], batch.keep[:, :16], "absdot")
        rates, times, growth = [_rate(d, device)], [], 0
        for _ in range(1 if n == 512 else 3):
            with Peak() as peak:
                start = time.perf_counter()
                push(net, x, batch.keep, "absdot")
                times.append(time.perf_counter() - start)
            growth = max(growth, peak.growth)
            rates.append(_rate(d, device))
        bound = flops(d, layers, n) / max(rates)
        rows.append(
            {
                "benchmark": "carried_vectors",
                "shape": shape,
                "layers": layers,
                "n": n,
                "what": "absdot",
                "against": "floating-point bound from a plain matrix product in this run",
                "ratio": min(times) / bound,
                "high": max(times) / bound,
                "rounds": len(times),
                "seconds": min(times),
                "base_seconds": bound,
                "gflops": max(rates) / 1e9,
                "peak_mb": growth / 2**20,
                "peak_tensors": growth / (4.0 * n * n * d),
            }
        )
    return rows
