"""Tables of several comparisons: what `pellucid bench --out` left in folders, side by side, with paired differences.

python examples/comparison_tables.py FOLDER... [--metric aopc:mask] [--pair decompx integrated_decompx]...
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pellucid.stats import holm, over_texts, paired_difference, paired_p

Values = dict[tuple[str, str], dict[int, float]]


def read(folder: Path) -> Values:
    """(method, metric) -> text -> value, of the rows that have one."""
    found: Values = {}
    for row in pq.read_table(folder / "results.parquet").to_pylist():
        if row["value"] is not None:
            found.setdefault((row["method"], row["metric"]), {})[row["text"]] = row["value"]
    return found


def both(values: Values, metric: str, some: str, other: str) -> tuple[list[float], list[float]]:
    """The values of two methods on the texts that both have."""
    a, b = values.get((some, metric), {}), values.get((other, metric), {})
    texts = sorted(a.keys() & b.keys())
    return [a[t] for t in texts], [b[t] for t in texts]


def cell(values: Values, metric: str, method: str) -> str:
    """Mean and interval."""
    e = over_texts([[x] for x in values.get((method, metric), {}).values()])
    low, high = e.interval or (float("nan"), float("nan"))
    return "-" if e.value is None else f"{e.value:.3f} [{low:.3f}, {high:.3f}]"


def between(values: Values, metric: str, method: str) -> str:
    """Where the mean lies between random (0) and greedy (1)."""
    texts = set.intersection(*(set(values.get((m, metric), {})) for m in (method, "random", "greedy")))
    if not texts:
        return "-"
    v, r, g = (np.mean([values[m, metric][t] for t in texts]) for m in (method, "random", "greedy"))
    return f"{(v - r) / (g - r):.2f}"


def main() -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--metric", action="append", dest="metrics")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar=("A", "B"))
    asked = parser.parse_args()
    seen = {folder.name: read(folder) for folder in asked.folders}
    for metric in asked.metrics or ["aopc:mask"]:
        counts = {name: len({t for (_, m), of in v.items() if m == metric for t in of}) for name, v in seen.items()}
        methods = dict.fromkeys(label for v in seen.values() for label, m in v if m == metric)
        first = next(iter(seen.values()))
        order = sorted(methods, key=lambda m: -float(np.mean(list(first.get((m, metric), {0: -9.0}).values()))))
        print(f"\n{metric}\n\n| method | " + " | ".join(f"{n} (n = {c})" for n, c in counts.items()) + " |")
        print("|---" * (1 + len(seen)) + "|")
        for label in order:
            told = [f"{cell(v, metric, label)} ({between(v, metric, label)})" for v in seen.values()]
            print(f"| {label} | " + " | ".join(told) + " |")
        for a, b in asked.pair:
            pairs = {name: both(v, metric, a, b) for name, v in seen.items()}
            raw = [paired_p(x, y) if x else float("nan") for x, y in pairs.values()]
            for (name, (x, y)), p in zip(pairs.items(), holm(raw), strict=True):
                if x:
                    d = paired_difference(x, y)
                    low, high = d.interval or (float("nan"), float("nan"))
                    print(f"- {name}, {a} - {b}: {d.value:+.3f} [{low:+.3f}, {high:+.3f}], n = {d.n}, Holm p = {p:.4f}")


if __name__ == "__main__":
    main()
