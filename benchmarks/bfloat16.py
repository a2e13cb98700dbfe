"""What bfloat16 costs in accuracy: differences and rank correlation of scores against float32, both directions."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import pellucid
from benchmarks.measure import in_turns, ratio
from pellucid.methods import DecompX
from pellucid.types import TargetSpec

Row = dict[str, Any]


def run(quick: bool, device: str) -> list[Row]:
    """The bundled model on its 20 sentences; one backward pass, and carried vectors with the absdot rule."""
    folder = Path(pellucid.__file__).parent / "demo"
    model = pellucid.load(folder, device=device)
    texts = [t for t in (folder / "sentences.txt").read_text(encoding="utf-8").splitlines() if t.strip()]
    rows = []
    for bias in ("token", "absdot"):
        full, half = DecompX(bias=bias), DecompX(bias=bias, precision="bfloat16")
        exact = pellucid.explain(model, texts, full)
        same: list[TargetSpec] = [a.target for a in exact]  # the class that float32 predicts
        rough = pellucid.explain(model, texts, half, same)
        ranks = [spearmanr(a.scores, b.scores).statistic for a, b in zip(exact, rough, strict=True)]
        errors = [np.abs(a.scores - b.scores).max() / np.abs(a.scores).max() for a, b in zip(exact, rough, strict=True)]
        gaps = [abs(float(b.gap)) for b in rough if b.gap is not None]
        seconds = in_turns(
            {
                "float32": lambda full=full: pellucid.explain(model, texts, full),  # type: ignore[misc]
                "bfloat16": lambda half=half: pellucid.explain(model, texts, half),  # type: ignore[misc]
            },
            2 if quick else 5,
        )
        rows.append(
            {
                "benchmark": "bfloat16",
                "shape": "demo",
                "what": f"bias={bias!r}",
                "against": "float32",
                **ratio(seconds, "bfloat16", "float32"),
                "texts": len(texts),
                "rank_correlation_mean": float(np.mean(ranks)),
                "rank_correlation_least": float(np.min(ranks)),
                "largest_relative_error": float(np.max(errors)),
                "largest_gap": float(np.max(gaps)),
            }
        )
    return rows
