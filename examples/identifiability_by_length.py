"""How unique attention is by text length: `identifiability_by_length.py MODEL TEXTS.parquet FIGURE.svg`.

Cuts the first texts that are long enough to 10, 20, ... tokens and prints, for all heads and rows, ranks, null
dimensions, the correlation of attention with effective attention, and the weight on the first token; draws the curve.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

import pellucid
from pellucid import Batch
from pellucid.audits.identifiability import effective_attention, max_entropy_attention, null_space_dimension, rank
from pellucid.audits.identifiability.alternatives import Seen
from pellucid.render.charts import curves
from pellucid.stats import over_texts

LENGTHS = (10, 20, 32, 33, 34, 36, 40, 48, 64, 96, 128, 200)
TEXTS = 20


def main(source: str, data: str, figure: str) -> None:
    """Print the table, save the figure."""
    model = pellucid.load(source)
    double = model.in_float64()
    every = [t for t in pq.read_table(data).to_pydict()["text"] if len(t.split()) > max(LENGTHS)][:TEXTS]
    drawn: dict[str, list[tuple[float, float, float]]] = {"rows sum to one": [], "unconstrained": []}
    control: dict[str, list[tuple[float, float, float]]] = {name: [] for name in drawn}
    rng = np.random.default_rng(0)
    print(
        "n | rank V | null dim [V,1] | r, sum of one (control) | r, unconstrained (control) | first token -> effective"
    )
    for n in LENGTHS:
        numbers: dict[str, list[list[float]]] = {}
        for text in every:
            seen = Seen.of(double, model.named(Batch(model.batch(text).input_ids[:, :n])))
            alpha, v = torch.stack(seen.alpha), torch.stack(seen.v)
            keep = torch.ones(len(alpha), n, dtype=torch.bool)
            order = torch.from_numpy(rng.random(alpha.shape)).argsort(-1)
            found = {
                "rank": rank(v, keep, "none").rank.double(),
                "null": null_space_dimension(v, keep).double(),
                "first": alpha[..., 0],
                "first_effective": effective_attention(alpha, v, keep)[..., 0],
            }
            for prefix, a in (("", alpha), ("control_", alpha.gather(-1, order))):
                found[f"{prefix}rows sum to one"] = correlation(a, effective_attention(a, v, keep))
                found[f"{prefix}unconstrained"] = correlation(a, effective_attention(a, v, keep, "none"))
            if n <= 64 and text in every[:3]:  # the slow one, on three texts
                even = max_entropy_attention(alpha, v, keep)
                found["even_distance"] = (even - alpha).abs().sum(-1) / 2
                found["even_argmax"] = (even.argmax(-1) == alpha.argmax(-1)).double()
            for name, x in found.items():
                numbers.setdefault(name, []).append([float(x.mean())])
        said = {name: over_texts(x) for name, x in numbers.items()}
        for into, prefix in ((drawn, ""), (control, "control_")):
            for name, points in into.items():
                e = said[prefix + name]
                assert e.value is not None
                low, high = e.interval or (e.value, e.value)
                points.append((e.value, low, high))
        print(n, *(f"{name} {e.value:.3f} {e.interval}" for name, e in said.items()), f"texts {len(every)}", sep=" | ")
    series = {k: (LENGTHS, *map(list, zip(*p, strict=True))) for k, p in drawn.items()}
    nulls = {k: (LENGTHS, *map(list, zip(*p, strict=True))) for k, p in control.items()}
    title = f"{Path(source).name}, {len(every)} texts, all heads and rows; dashed: weights in a random order"
    drawing = curves(series, "tokens", "Pearson's r, attention and effective attention", title, nulls)  # type: ignore[arg-type]
    drawing.savefig(figure, metadata={"Date": None})


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's r row by row; 1 for equal rows."""
    x, y = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    r = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    return torch.where((a - b).abs().amax(-1) < 1e-9, torch.ones_like(r), r)


if __name__ == "__main__":
    main(*sys.argv[1:])
