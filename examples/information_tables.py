"""Tables and the figure of docs/studies/information.md: `information_tables.py FOLDER ABLATIONS FIGURES`.

The folders are what `pellucid study` wrote for information.toml and information_ablations.toml. Prints Markdown.
Intervals are Student's over seeds: each seed's value is first averaged over the cells that a row speaks of.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from pellucid.audits.information.slots import BINS
from pellucid.render.charts import curves

ENCODERS, SCORERS = ("embed", "bilstm", "transformer"), ("additive", "deep", "scaled_dot")
NORMALISERS = ("softmax", "softmax_5", "gumbel_5", "sparsemax")
NAMED = {"softmax": "softmax", "softmax_5": "softmax, tau .5", "gumbel_5": "Gumbel, tau .5", "sparsemax": "sparsemax"}
HALF, NOISY = "scores at half the temperature", "with the noise of training"
VARIANTS = {
    "a_random_encoder": "A: random encoder, frozen; attention trained",
    "b_uniform_encoder": "B: encoder of D, frozen; attention trained",
    "c_random_attention": "C: random attention, frozen; encoder trained",
    "full": "all trained",
}


def main(folder: str, ablations: str, figures: str) -> None:
    """Everything, claim by claim."""
    rows = read(folder)
    parts = rows.model.str.extract(rf"^({'|'.join(ENCODERS)})_({'|'.join(SCORERS)})_({'|'.join(NORMALISERS)})$")
    rows = rows.assign(encoder=parts[0], scorer=parts[1], normaliser=parts[2])
    overview(rows)
    preservation(rows)
    ablation(rows, read(ablations))
    near_equal(Path(folder), rows, Path(figures))
    skewness(rows)
    order(rows)
    within(rows)


def read(folder: str) -> pd.DataFrame:
    """All rows of a study."""
    return pd.read_parquet(Path(folder) / "results.parquet")


def of(rows: pd.DataFrame, quantity: str, where: str = "", column: str = "value", **cells: str) -> pd.Series:
    """A quantity's mean by seed over the cells chosen."""
    some = rows[rows.quantity == quantity]
    some = some[some["split"] == "test"] if quantity == "accuracy" else some[some["where"] == where]
    for key, value in cells.items():
        some = some[some[key] == value]
    return some.groupby("seed")[column].mean()


def told(by_seed: pd.Series) -> str:
    """Mean over seeds and its 95 % interval."""
    x = by_seed.dropna().to_numpy()
    if len(x) < 2 or np.ptp(x) == 0:
        return "-" if not len(x) else f"{x.mean():.3f}"
    ends = ttest_1samp(x, 0).confidence_interval()
    return f"{x.mean():.3f} ({ends.low:.3f} to {ends.high:.3f})"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A titled Markdown table."""
    print(f"\n{title}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def overview(rows: pd.DataFrame) -> None:
    """Accuracy and information by data and encoder, all scorers and normalisers together."""
    out = []
    for data in rows.data.unique():
        control = of(rows, "accuracy", data=data, model="tfidf").mean()
        for e in ENCODERS:
            some = rows[(rows.data == data) & (rows.encoder == e)]
            out.append([
                data, e, told(of(some, "accuracy")), f"{control:.3f}", told(of(some, "information", "states")),
                told(of(some, "information", "states", "null")), told(of(some, "context_information")),
            ])  # fmt: skip
    head = ["data", "encoder", "test accuracy", "TF-IDF", "one state, nats", "control", "context, nats"]
    table("Accuracy and information", head, out)


def preservation(rows: pd.DataFrame) -> None:
    """Claim (i): additive and deep against scaled dot, cell by cell."""
    out = []
    for data in rows.data.unique():
        for e in (*ENCODERS, "all"):
            some = rows[(rows.data == data) & (rows.encoder.notna() if e == "all" else rows.encoder == e)]
            row: list[object] = [data, e]
            for quantity in ("preserved", "preservation_ratio", "context_information", "accuracy"):
                base = of(some, quantity, scorer="scaled_dot")
                row.append(f"{base.mean():.3f}")
                row += [told(of(some, quantity, scorer=s) - base) for s in ("additive", "deep")]
            out.append(row)
    head = ["data", "encoder"]
    for what in ("preserved, nats", "ratio", "context, nats", "accuracy"):
        head += [f"{what}: scaled dot", "additive minus", "deep minus"]
    table("Claim (i): information preserved", head, out)


def ablation(rows: pd.DataFrame, ablated: pd.DataFrame) -> None:
    """Claim (ii): the order of slots where only attention, or only the encoder, could learn."""
    out = []
    for data in ablated.data.unique():
        for e in ENCODERS:
            found = {}
            for key, name in VARIANTS.items():
                some, model = (rows, f"{e}_additive_softmax") if key == "full" else (ablated, f"{e}_{key}")
                some = some[(some.data == data) & (some.model == model)]
                found[key], null = of(some, "tau_slots"), of(some, "tau_slots", "", "null")
                out.append([
                    data, e, name, told(of(some, "accuracy")), told(found[key]), told(null),
                    told(of(some, "tau_slots_ceiling")), told(of(some, "lift")),
                    "" if key != "c_random_attention" else "; ".join(
                        f"{v[0].upper()} - C {told(found[v] - found[key])}" for v in list(VARIANTS)[:2]
                    ),
                ])  # fmt: skip
            some = ablated[(ablated.data == data) & (ablated.model == f"{e}_d_uniform")]
            out.append([data, e, "D: uniform attention", told(of(some, "accuracy")), *[""] * 5])
    head = [
        "data",
        "encoder",
        "trained",
        "accuracy",
        "tau of slots",
        "random order",
        "ceiling",
        "lift, nats",
        "difference",
    ]
    table("Claim (ii): who adapts to whom", head, out)


def near_equal(folder: Path, rows: pd.DataFrame, figures: Path) -> None:
    """Claim (iii): agreement of resolved pairs by how far their attention is apart; the figure."""
    pairs = []
    for name, cell in rows[rows.encoder.notna()].groupby(["data", "model", "seed"]):
        file = next(
            (folder / "cells" / "-".join(map(str, name))).glob("audits/information-*/information_pairs.parquet")
        )
        pairs.append(pd.read_parquet(file).assign(data=name[0], seed=name[2], encoder=cell.encoder.iloc[0]))
    every = pd.concat(pairs)
    every = every.assign(size=pd.cut(every.attention.abs(), BINS, include_lowest=True))
    out, series = [], {}
    for data, some in every.groupby("data", sort=False):
        line = []
        for size, here in some.groupby("size", observed=True):
            clear = here[here.resolved]
            agree = clear.groupby("seed").agree.mean()
            unequal = here.groupby("seed").apply(lambda x: (((x.information > 0) == (x.attention > 0)) * 1.0).mean())
            ends = f"{max(size.left, 0):g} to {size.right:g}"
            out.append([data, ends, len(here), f"{len(clear) / len(here):.1%}", told(agree), told(unequal)])
            line.append(((max(size.left, 0) + size.right) / 2, agree.mean()))
        series[str(data)] = ([x for x, _ in line], [y for _, y in line], None, None)
    head = ["data", "difference of attention", "pairs", "resolved", "agree, of the resolved", "agree, of all"]
    table("Claim (iii): near-equal attention", head, out)
    x = next(iter(series.values()))[0]
    figure = curves(
        series, "difference of attention between two slots", "resolved pairs in the order of attention",
        "Does more attention mean more information?", {"chance": (x, [0.5] * len(x), None, None)}, (0.0, 1.02),
    )  # fmt: skip
    figure.savefig(figures / "information_concordance.svg", metadata={"Date": None})


def skewness(rows: pd.DataFrame) -> None:
    """Claim (iv): temperature, noise and learning told apart."""
    out = []
    for data in rows.data.unique():
        some = rows[rows.data == data]
        lines = [
            ("softmax", "", "softmax"),
            ("softmax", HALF, "softmax, read at tau .5"),
            ("softmax_5", "", "softmax, tau .5"),
            ("gumbel_5", "", "Gumbel, tau .5, read without noise"),
            ("gumbel_5", NOISY, "Gumbel, tau .5, with noise"),
            ("sparsemax", "", "sparsemax"),
        ]
        for n, where, name in lines:
            mine = some[some.normaliser == n]
            row = [data, name, *(told(of(mine, q, where)) for q in ("entropy", "largest_weight", "gini", "top_mass"))]
            noise = told(of(mine, "entropy", where, "null")) if where == NOISY else ""
            row += [noise, told(of(mine, "accuracy")), told(of(mine, "tau_slots")), told(of(mine, "tau_information"))]
            out.append(row if not where else [*row[:7], "", "", ""])
    head = ["data", "weights", "entropy", "largest", "Gini", "top 3", "entropy of noise alone", "accuracy",
            "tau of slots", "tau within texts"]  # fmt: skip
    table("Claim (iv): skew", head, out)


def order(rows: pd.DataFrame) -> None:
    """Claim (v): the order of slots by building blocks, under softmax, with what could be hoped for."""
    out = []
    for data in rows.data.unique():
        for e in ENCODERS:
            for s in SCORERS:
                some = rows[(rows.data == data) & (rows.encoder == e) & (rows.scorer == s)]
                soft = some[some.normaliser == "softmax"]
                found = of(soft, "tau_slots")
                out.append([
                    data, e, s, told(found), f"{found.min():.2f} to {found.max():.2f}",
                    told(of(soft, "tau_slots", "", "null")), told(of(soft, "tau_slots_ceiling")),
                    told(of(soft, "resolved_pairs")), told(of(some, "tau_slots")),
                ])  # fmt: skip
    head = ["data", "encoder", "scorer", "tau of slots", "seeds", "random order", "ceiling", "pairs resolved",
            "all four normalisers"]  # fmt: skip
    table("Claim (v): orders by building block", head, out)


def within(rows: pd.DataFrame) -> None:
    """Within texts: attention against information and against leave-one-out, and these with each other."""
    out = []
    for data in rows.data.unique():
        for e in ENCODERS:
            some = rows[(rows.data == data) & (rows.encoder == e)]
            row = [data, e, told(of(some, "lift")), told(of(some, "resolved_texts"))]
            row += [told(of(some, q)) for q in ("tau_information", "tau_ceiling", "tau_leave_one_out")]
            out.append([*row, told(of(some, "information_needed")), told(of(some, "information_needed", "", "null"))])
    head = ["data", "encoder", "lift, nats", "texts resolved", "attention, information", "ceiling",
            "attention, leave-one-out", "information, leave-one-out", "random order"]  # fmt: skip
    table("Within texts", head, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
