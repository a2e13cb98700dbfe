"""What came of a comparison: rows, and the table that is made of them, each number with its interval and its tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from pellucid.bench.asked import BOUND, RANDOM, Asked
from pellucid.metrics import normalised
from pellucid.stats import Estimate, holm, over_texts, paired_p

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
"""text, tokens, method, metric, value or None, error; forwards, backwards and seconds of the method per text, a mean
over the texts that were explained together; digest of the text."""
LEVEL = 0.05
NORMALISED = "normalised_aopc"


@dataclass(frozen=True)
class Cell:
    """Mean of one metric for one method, its 95 % interval over texts, and tests on the same texts.

    p_random, p_best: two-sided, adjusted by Holm over the methods of the column; None where there is nothing to test.
    best: the best mean of the column, controls left out.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    p_random: float | None = None
    p_best: float | None = None
    best: bool = False

    @property
    def like_random(self) -> bool:
        """Not told apart from the random control."""
        return self.p_random is not None and self.p_random > LEVEL

    @property
    def like_best(self) -> bool:
        """Not the best, and not told apart from it."""
        return not self.best and self.p_best is not None and self.p_best > LEVEL


@dataclass(frozen=True)
class Cost:
    """Means per text of a method alone: passes and seconds."""

    forwards: float
    backwards: float
    seconds: float

    @property
    def passes(self) -> float:
        """In forward passes, a backward pass counted as two."""
        return self.forwards + 2 * self.backwards


@dataclass(frozen=True, eq=False)
class Comparison:
    """A table of methods by metrics, and the rows behind it.

    about: per label the method's name, whether it is a control, whether it is signed, its source. texts: how many were
    given; `measured` tells how many were measured. settings: all besides the texts that decides the numbers. left_out:
    sentences about methods that could not be asked, and texts that were cut. spent: seconds, forward passes in all,
    texts taken over, whether time ran out.
    """

    rows: tuple[Row, ...] = field(repr=False)
    asked: tuple[Asked, ...]
    about: Mapping[str, Mapping[str, Any]]
    texts: int
    settings: Mapping[str, Any] = field(repr=False)
    left_out: tuple[str, ...] = ()
    spent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of everything random, the intervals included."""
        return int(self.settings["seed"])

    @property
    def labels(self) -> list[str]:
        """The methods, the best by the first metric on top, controls below."""
        first = self.asked[0]

        def rank(label: str) -> tuple[bool, bool, float]:
            mean = self.cells[first.key][label].mean
            return self.about[label]["control"], mean is None, -first.metric.arrow * (mean or 0.0)

        return sorted(self.about, key=rank)

    @property
    def measured(self) -> int:
        """Texts of which there are rows."""
        return len({row["text"] for row in self.rows})

    @cached_property
    def values(self) -> dict[tuple[str, str], np.ndarray]:
        """For each label and metric its values over texts, in the same order; nan where there is none."""
        texts = sorted({row["text"] for row in self.rows})
        at = {text: i for i, text in enumerate(texts)}
        found = {(label, a.key): np.full(len(texts), np.nan) for label in self.about for a in self.asked}
        for row in self.rows:
            if row["value"] is not None:
                found[row["method"], row["metric"]][at[row["text"]]] = row["value"]
        return found

    @cached_property
    def cells(self) -> dict[str, dict[str, Cell]]:
        """Metric -> label -> cell."""
        return {a.key: self._column(a) for a in self.asked}

    def _column(self, asked: Asked) -> dict[str, Cell]:
        seen = {label: self.values[label, asked.key] for label in self.about}
        means = {label: over_texts(x[:, None].tolist(), seed=self.seed) for label, x in seen.items()}
        ranked = [label for label, m in means.items() if m.value is not None and not self.about[label]["control"]]
        best = max(ranked, key=lambda label: asked.metric.arrow * (means[label].value or 0.0), default=None)
        against_random = self._tests(seen, RANDOM)
        against_best = self._tests(seen, best)
        return {
            label: Cell(
                m.value,
                m.interval[0] if m.interval else None,
                m.interval[1] if m.interval else None,
                m.n,
                against_random.get(label),
                against_best.get(label),
                label == best,
            )
            for label, m in means.items()
        }

    def _tests(self, seen: Mapping[str, np.ndarray], reference: str | None) -> dict[str, float]:
        """Adjusted p of each method against the reference, on the texts that both have."""
        others = [label for label in seen if label != reference and not self.about[label]["control"]]
        if reference is None or reference not in seen or not others:
            return {}
        raw = [paired_p(seen[label].tolist(), seen[reference].tolist(), self.seed) for label in others]
        return {label: float(p) for label, p in zip(others, holm(raw), strict=True) if np.isfinite(p)}

    @cached_property
    def bounded(self) -> dict[str, dict[str, Estimate]]:
        """Operator -> label -> AOPC between random (0) and the greedy bound (1); empty without the bound, and where it
        is not above random."""
        found: dict[str, dict[str, Estimate]] = {}
        bound = next((label for label, told in self.about.items() if told["name"] == BOUND), None)
        for a in self.asked:
            if a.metric.name != "aopc" or bound is None:
                continue
            of = {label: self.values[label, a.key].tolist() for label in self.about}
            if np.nanmean(self.values[bound, a.key] - self.values[RANDOM, a.key]) > 0:
                found[str(a.operator)] = {
                    label: normalised(value, of[RANDOM], of[bound], self.seed) for label, value in of.items()
                }
        return found

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Per label, means over the texts on which it did not fail."""
        key, found = self.asked[0].key, {}
        for label in self.about:
            mine = [r for r in self.rows if r["method"] == label and r["metric"] == key and not r["error"]]
            told = [[r["forwards"], r["backwards"], r["seconds"]] for r in mine]
            found[label] = Cost(*(float(x) for x in (np.mean(told, axis=0) if told else np.full(3, np.nan))))
        return found

    @cached_property
    def failures(self) -> dict[str, dict[int, str]]:
        """Label -> text -> what the method raised there."""
        found: dict[str, dict[int, str]] = {}
        for row in self.rows:
            if row["error"]:
                found.setdefault(row["method"], {})[row["text"]] = row["error"]
        return found

    def to_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """{method: {metric: {"mean", "low", "high", "n", "p_random", "p_best"}}}, None where there is no number."""
        table = {
            label: {
                key: {name: getattr(column[label], name) for name in ("mean", "low", "high", "n", "p_random", "p_best")}
                for key, column in self.cells.items()
            }
            for label in self.labels
        }
        for operator, of in self.bounded.items():
            for label, e in of.items():
                low, high = e.interval or (None, None)
                table[label][f"{NORMALISED}:{operator}"] = {"mean": e.value, "low": low, "high": high, "n": e.n}
        return table

    def show(self, file: TextIO | None = None, width: int | None = None) -> None:
        """Print the table, what its marks mean, costs, and what failed."""
        from pellucid.bench.page import show

        show(self, file, width)

    def to_markdown(self) -> str:
        """The same as Markdown."""
        from pellucid.bench.page import markdown

        return markdown(self)

    def to_html(self) -> str:
        """The same, with the figure, as one self-contained page."""
        from pellucid.bench.page import html_page

        return html_page(self)

    def figure(self, metric: str | None = None) -> "Figure":
        """A metric over the cost in forward passes; the first metric by default. InputError for one not measured."""
        from pellucid.bench.page import figure

        return figure(self, metric)

    def save(self, folder: str | Path) -> list[Path]:
        """Write table.json, table.md, table.html, results.parquet and the figure as SVG; each whole or not at all."""
        from pellucid.bench.store import save

        return save(self, Path(folder))
