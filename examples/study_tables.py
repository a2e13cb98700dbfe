"""Tables and figures of the studies in docs/studies: `study_tables.py FOLDER FIGURES STUDY.toml [STUDY.toml]`.

FOLDER is what `pellucid study STUDY.toml --out FOLDER` wrote; studies that share it are told together. Prints Markdown;
saves figures. Intervals over seeds are Student's, those over texts bootstrapped.
"""

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

import pellucid
from pellucid.audits.identifiability.alternatives import Seen
from pellucid.audits.identifiability.keys import free_dimension, key_constrained
from pellucid.render.charts import maps
from pellucid.stats import Estimate, js_divergence, over_texts, survival
from pellucid.study import CONTROL, Study, read_study

BINS = ((1, 9), (10, 17), (18, 32), (33, 65), (66, 128), (129, 200))


def main(folder: str, figures: str, *files: str) -> None:
    """The accuracies of every study, then what it is about."""
    studies, cells = [read_study(file) for file in files], Path(folder) / "cells"
    study = Study(studies[0].name, tuple(cell for one in studies for cell in one.cells))
    accuracies(pd.concat([pd.read_parquet(cells / cell.name / "rows.parquet") for cell in study.cells]))
    about = {"identifiable": identifiable, "serrano_smith": serrano_smith, "uniform": uniform}
    if study.name in about:
        about[study.name](study, cells, Path(figures))


def over_seeds(x: Sequence[float]) -> str:
    """Mean and 95 % interval of as many seeds."""
    mean = float(np.mean(x))
    if len(x) < 2 or np.ptp(x) == 0:
        return f"{mean:.3f}"
    ends = ttest_1samp(x, 0).confidence_interval()
    return f"{mean:.3f} ({ends.low:.3f} to {ends.high:.3f})"


def said(e: Estimate, share: bool = True) -> str:
    """A value with its interval, in percent if it is a share."""
    if e.value is None:
        return "none"
    ends = e.interval or (e.value, e.value)
    if share:
        return f"{e.value:.1%} ({ends[0]:.1%} to {ends[1]:.1%})"
    return f"{e.value:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def accuracies(rows: pd.DataFrame) -> None:
    """Test accuracy by data and model over the seeds, beside TF-IDF with logistic regression and the usual class."""
    scores = rows[(rows.quantity == "accuracy") & (rows.split == "test")]
    sizes = rows[rows.quantity == "parameters"]
    first = next(m for m in scores.model if m != CONTROL)
    out = []
    for data, of_data in scores.groupby("data", sort=False):
        rival = of_data[of_data.model == CONTROL].value.item()
        base = of_data[of_data.model == first].set_index("seed").value
        for model, mine in of_data[of_data.model != CONTROL].groupby("model", sort=False):
            apart = mine.set_index("seed").value - base
            size = sizes[(sizes.data == data) & (sizes.model == model)].value.iloc[0]
            out.append([
                data, model, f"{size:,.0f}", over_seeds(mine.value), f"{rival:.3f}", f"{mine['null'].iloc[0]:.3f}",
                over_seeds(mine.value - rival), over_seeds(apart) if model != first else "", len(mine),
                int(mine.n.iloc[0]),
            ])  # fmt: skip
    head = ["data", "model", "parameters", "test accuracy", "TF-IDF", "usual class", "minus TF-IDF", f"minus {first}"]
    table([*head, "seeds", "texts"], out)


def heads_of(cells: Path, data: str, model: str, seeds: Sequence[int]) -> pd.DataFrame:
    """The rows of the audit of identifiability, all seeds together."""
    found = []
    for seed in seeds:
        (file,) = (cells / f"{data}-{model}-{seed}").glob("audits/*/identifiability_heads.parquet")
        found.append(pd.read_parquet(file).assign(seed=seed, data=data))
    return pd.concat(found)


def by_text(heads: pd.DataFrame, column: str) -> Estimate:
    """Mean over heads and seeds, text by text: the same texts were read by all seeds."""
    means = heads.groupby(["data", "text"])[column].mean()
    return over_texts([[x] for x in means], share=bool(means.isin([0, 1]).all()))


def identifiable(study: Study, cells: Path, figures: Path) -> None:
    """The share of rows that are the only ones possible, by text length, given a head's or the layer's output."""
    seeds = sorted({c.seed for c in study.cells if c.model != CONTROL})
    names = list(dict.fromkeys(c.data for c in study.cells))
    models = [m for m in dict.fromkeys(c.model for c in study.cells) if m != CONTROL]
    out, shares = [], dict[str, list[float]]()
    for model in models:
        heads = pd.concat([heads_of(cells, data, model, seeds) for data in names])
        for low, high in BINS:
            some = heads[(heads.n >= low) & (heads.n <= high)]
            if some.empty:
                continue
            columns = ("unique", "unique_control", "unique_layer", "unique_layer_control")
            found = [by_text(some, c) for c in columns]
            out.append([model, f"{low} to {high}", *map(said, found), some.groupby(["data", "text"]).ngroups])
            for place, one in (("head", found[0]), ("layer", found[2])):
                shares.setdefault(f"{model}, {place}", []).append(one.value or 0.0)
    head = ["model", "tokens", "unique given the head's output", "Gaussian values", "given the layer's output"]
    table([*head, "Gaussian values", "texts"], out)
    lengths = [str(row[1]) for row in out[: len(out) // len(models)]]
    figure = maps(
        {"share of rows": np.array(list(shares.values()))}, list(shares), lengths,
        "Attention rows that are the only ones possible, given the head's or the layer's output",
        "text length in tokens", signed=False, width=5.0,
    )  # fmt: skip
    figure.savefig(figures / "identifiable.svg", metadata={"Date": None})
    keys(study, cells, names, models)


def keys(study: Study, cells: Path, names: Sequence[str], models: Sequence[str]) -> None:
    """What the keys add, on the first rows of 40 texts per data set, of the models of seed 0: whether another query
    nearby gives the same output, and how many dimensions are left where queries and keys may both be others."""
    out = []
    for model in models:
        unique, conditions, free = [], [], []
        for data in names:
            cell = next(c for c in study.cells if (c.data, c.model, c.seed) == (data, model, 0))
            opened = pellucid.load(cells / cell.name).in_float64()
            config: Any = opened.hf.config
            most = cell.config.data.max_tokens or 10**6
            for text in cell.config.data.read().test.texts[:40]:
                ids = opened.batch([text]).input_ids[:, :most]
                seen = Seen.of(opened, pellucid.Batch(ids, ids > -1))
                for h in range(config.num_attention_heads):
                    a, v = seen.row(0, h, 0)
                    slope = seen.query_keys(0, h, 0)
                    found = key_constrained(a, slope[1], v) if slope else None
                    if found is not None and found.unique_nearby is not None:
                        unique.append([float(found.unique_nearby)])
                        conditions.append(found.condition)
                free.append(free_dimension(ids.shape[1], config.key_size, config.value_size) == 0)
        share = over_texts(unique, share=True)
        out.append([
            model, config.key_size, config.value_size, said(share), f"{np.median(conditions):.1e}",
            f"{np.quantile(conditions, 0.9):.1e}", f"{np.mean(free):.0%}", len(unique),
        ])  # fmt: skip
    head = ["model", "d_k", "d_v", "rows unique nearby given the keys", "condition, median", "90 %"]
    table([*head, "texts whose rows are unique nearby even if the keys may change (count)", "rows"], out)


def units_of(cells: Path, data: str, model: str, seeds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Units and orderings of the audit of erasure, all seeds together; a text of each seed is one of its own."""
    units, paths = [], []
    for seed in seeds:
        (folder,) = (cells / f"{data}-{model}-{seed}").glob("audits/erasure-*")
        units.append(pd.read_parquet(folder / "erasure_units.parquet").assign(seed=seed))
        paths.append(pd.read_parquet(folder / "erasure_paths.parquet").assign(seed=seed))
    return pd.concat(units), pd.concat(paths)


def single(units: pd.DataFrame) -> list[list[float]]:
    """Per text, in expectation over the random other unit: both flip, only the top, only the other, neither, the share
    of others that matter more than the top; then the same with the position that Serrano & Smith's code draws, which is
    never the first and may be the top itself."""
    found = []
    for _, text in units.groupby(["seed", "text"]):
        top, flips, effect = int(text.attention.argmax()), text.flips.to_numpy(float), text.effect.to_numpy()
        row: list[float] = []
        for drawn in (np.delete(np.arange(len(text)), top), np.arange(1, len(text))):
            other = float(flips[drawn].mean())
            row += [flips[top] * other, flips[top] * (1 - other), (1 - flips[top]) * other]
            row += [(1 - flips[top]) * (1 - other), float((effect[drawn] > effect[top] + 1e-7).mean())]
        found.append([*row, float(top in np.arange(1, len(text))) / (len(text) - 1), float(len(text))])
    return found


def serrano_smith(study: Study, cells: Path, figures: Path) -> None:
    """The two-by-two of flips and the share of units until the decision flips, as defined and as published."""
    seeds = sorted({c.seed for c in study.cells if c.model != CONTROL})
    pairs = list(dict.fromkeys((c.data, c.model) for c in study.cells if c.model != CONTROL))
    flips, bent, fractions = [], [], []
    for data, model in pairs:
        units, paths = units_of(cells, data, model, seeds)
        cut = np.array(single(units))
        exact = [said(over_texts(cut[:, [i]].tolist())) for i in range(5)]
        code = [f"{x:.1%}" for x in cut[:, 5:10].mean(0)]
        flips.append([data, model, *exact, f"{cut[:, 11].mean():.1f}", len(cut)])
        only = [cut[:, i].sum() / max(cut[:, [i, i + 1]].sum(), 1e-12) for i in (1, 6)]
        bent.append([data, model, *code, f"{cut[:, 10].mean():.1%}", *(f"{x:.2f}" for x in only)])
        for ordering in ("random", "attention", "gradient", "attention_x_gradient", "greedy"):
            mine = paths[paths.ordering == ordering]
            means = mine.groupby(["seed", "text"]).agg({"fraction": "mean", "flipped": "mean"})
            one = mine.groupby(["seed", "text"]).first()
            never = survival(one.fraction.to_numpy(), one.flipped.to_numpy(bool)).never
            exact_mode = over_texts([[x] for x in means.fraction])
            paper = over_texts([[x] for x in one[one.flipped.astype(bool)].fraction], np.median)
            fractions.append([data, model, ordering, said(exact_mode), f"{never:.1%}", said(paper), paper.n, len(one)])
    cells_of = ["both flip", "only the top", "only another", "neither", "another matters more"]
    table(["data", "model", *cells_of, "units", "texts x seeds"], flips)
    print("\nWith the position that the published code draws:")
    ratio = ["only top / discordant, as defined", "as the code draws"]
    table(["data", "model", *cells_of, "the draw is the top itself", *ratio], bent)
    head = ["data", "model", "ordering", "mean share until the flip, never = 1", "never"]
    table([*head, "median, never left out (published)", "of texts", "texts x seeds"], fractions)


def uniform(study: Study, cells: Path, figures: Path) -> None:
    """How far trained attention moves from seed to seed: JS divergence, beside the same weights in a random order."""
    seeds = sorted({c.seed for c in study.cells if c.model != CONTROL})
    rng, out = np.random.default_rng(0), []
    for data in dict.fromkeys(c.data for c in study.cells):
        cell = next(c for c in study.cells if c.data == data and c.model == "trained")
        corpus = cell.config.data.read()
        models = [pellucid.load(cells / f"{data}-trained-{seed}") for seed in seeds]
        apart, shuffled, even = [], [], []
        for text in corpus.test.texts[:200]:
            batch = models[0].batch([text])
            ids = batch.input_ids[:, : cell.config.data.max_tokens or None]
            if ids.shape[1] < 2:
                continue
            rows = [pellucid.explain(m, pellucid.Batch(ids), "attention")[0].scores for m in models]
            some = list(combinations(rows, 2))
            apart.append([float(np.mean([js_divergence(a, b) for a, b in some]))])
            shuffled.append([float(np.mean([js_divergence(a, rng.permutation(b)) for a, b in some]))])
            even.append([float(np.mean([js_divergence(a, np.full(len(a), 1 / len(a))) for a in rows]))])
        found = [said(over_texts(x), share=False) for x in (apart, shuffled, even)]
        out.append([data, *found, len(seeds), len(apart)])
    head = [
        "data",
        "between two seeds, JS in nats (at most 0.693)",
        "one of them in a random order",
        "from even weights",
    ]
    table([*head, "seeds", "texts"], out)


if __name__ == "__main__":
    main(*sys.argv[1:])
