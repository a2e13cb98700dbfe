"""What erasing at the last row costs beyond the gradient, in forward passes."""

from typing import Any

import numpy as np
import torch

from benchmarks.measure import in_turns, random_model, ratio
from pellucid import Batch, Model
from pellucid.audits.erasure.effects import Judge, effects, orderings, paths, predicted_drops
from pellucid.audits.erasure.places import place
from pellucid.types import Token

Row = dict[str, Any]


def run(quick: bool, device: str) -> list[Row]:
    """Bound: 2.5 forward passes for all single effects and the prefixes of 25 orderings, BERT-base, n = 128."""
    model = random_model("bert-base", device=device)
    rows = []
    for n in (128,) if quick else (64, 128, 256):
        ids = torch.randint(1000, 30_000, (1, n), generator=torch.Generator().manual_seed(n)).to(device)
        words = [Token(f"w{i}", 1, word=i) for i in range(n - 2)]
        tokens = (Token("[CLS]", 101, special=True), *words, Token("[SEP]", 102, special=True))
        batch = Batch(ids, tokens=(tokens,))
        units = [[i] for i in range(1, n - 1)]
        at = place(model, batch, "cls_last")
        judge = Judge(at.logits, model.problem)
        drops = predicted_drops(at, units, judge)

        def erase(at: Any = at, units: Any = units, judge: Judge = judge, drops: Any = drops) -> None:
            found = effects(at, units, judge)
            named = orderings(found, drops, 20, np.random.default_rng(0))
            assert len(named) == 25
            paths(at, units, [o for _, o in named], judge)

        def forward(model: Model = model, batch: Batch = batch) -> None:
            model.hf_logits(batch)

        seconds = in_turns({"erase": erase, "forward": forward}, 3 if quick else 7)
        rows.append(
            {
                "benchmark": "erasure",
                "shape": "bert-base",
                "n": n,
                "what": f"{len(units)} effects, prefixes of 25 orderings",
                "against": "one forward pass",
                **ratio(seconds, "erase", "forward"),
            }
        )
    return rows
