"""`compare`: its numbers against plain loops over the Hugging Face model, its tests, its resuming, its refusals."""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import pellucid
from pellucid import Access, Comparison, Target, compare
from pellucid.bench import PANEL
from pellucid.bench.comparison import Cell
from pellucid.bench.page import _mark
from pellucid.errors import AccessError, InputError
from pellucid.methods import DecompX, Greedy, Guarantees, Method, Random, Scores
from pellucid.stats import holm, paired_p

FILMS = [
    "A warm and funny film that never bores.",
    "Dull from start to end, and far too long for its thin plot.",
    "It is not bad at all.",
    "Great acting, but the plot is thin and the jokes are old.",
    "One of the best films of the year!",
    "Nothing here is worth your time or money.",
]
pytestmark = pytest.mark.skipif(not (pellucid.DEMO / "config.json").exists(), reason="the demo model is not there")


@cache
def model() -> pellucid.Model:
    return pellucid.load(pellucid.DEMO)


@cache
def table() -> Comparison:
    """A small comparison that several tests read."""
    return compare(model(), FILMS, ["decompx", "attention", "greedy"], ["aopc", "aopc_least"], ["mask", "delete"])


@dataclass(frozen=True)
class Fails(Method):
    """Raises on texts that hold the word "dull"; else the scores of the random control."""

    source: ClassVar[str] = "test"
    needs: ClassVar[Access] = Access.OUTPUTS
    calls: ClassVar[list[int]] = []
    name = "fails"  # type: ignore[assignment]

    def guarantees(self, model: Any) -> Guarantees:
        return Guarantees()

    def __call__(self, model: Any, batch: Any, target: Target) -> Scores:
        self.calls.append(len(batch))
        if any(t.text.lower() == "dull" for row in batch.tokens for t in row):
            raise RuntimeError("no dull texts\nplease")
        return Random()(model, batch, target)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    Fails.calls.clear()


def plain_aopc(scores: np.ndarray, text: str, delete: bool = False, least: bool = False) -> float:
    """AOPC by one call of the Hugging Face model for each share, written down anew."""
    hf, tokenizer = model().hf, model().tokenizer
    ids = tokenizer(text)["input_ids"]
    middle = list(range(1, len(ids) - 1))
    order = sorted(middle, key=lambda i: scores[i] if least else -scores[i])

    def probabilities(gone: set[int]) -> torch.Tensor:
        changed = [tokenizer.mask_token_id if i in gone else t for i, t in enumerate(ids)]
        left = [t for i, t in enumerate(ids) if i not in gone] if delete else changed
        with torch.no_grad():
            return hf(torch.tensor([left])).logits[0].double().softmax(0)

    whole = probabilities(set())
    c = int(whole.argmax())
    drops = [whole[c] - probabilities(set(order[: k * len(middle) // 10]))[c] for k in range(1, 10)]
    return float(sum(drops) / 9)


@pytest.mark.parametrize(("name", "signed"), [("decompx", True), ("attention", False)])
def test_values_are_those_of_a_plain_loop(name: str, signed: bool) -> None:
    """Signed methods are ranked by the predicted class against its rival, unsigned ones by the predicted class."""
    for i, text in enumerate(FILMS):
        predicted = model().labels.index(pellucid.explain(model(), text).prediction)
        target: Any = (predicted, 1 - predicted) if signed else predicted
        scores = pellucid.explain(model(), text, name, target).scores
        for key, delete, least in (
            ("aopc:mask", False, False),
            ("aopc_least:mask", False, True),
            ("aopc:delete", True, False),
        ):
            expected = plain_aopc(scores, text, delete, least)
            assert table().values[name, key][i] == pytest.approx(expected, abs=2e-5)


def test_cells_hold_mean_interval_and_adjusted_tests() -> None:
    made = table()
    for a in made.asked:
        raw = []
        for label in ("decompx", "attention"):
            cell, seen = made.cells[a.key][label], made.values[label, a.key]
            assert cell.mean == pytest.approx(seen.mean())
            assert cell.low is not None and cell.high is not None and cell.low <= cell.mean <= cell.high  # noqa: PT018
            assert cell.n == len(FILMS)
            raw.append(paired_p(seen.tolist(), made.values["random", a.key].tolist()))
        column = made.cells[a.key]
        assert [column[label].p_random for label in ("decompx", "attention")] == pytest.approx(holm(raw).tolist())
        best = max(("decompx", "attention"), key=lambda label: a.metric.arrow * (column[label].mean or 0))
        assert [label for label in column if column[label].best] == [best]
        assert column["random"].p_random is column["greedy"].p_best is None
    assert made.labels[-2:] == sorted(made.labels[-2:], key=lambda x: -(made.cells["aopc:mask"][x].mean or 0))
    assert {"random", "greedy"} == set(made.labels[-2:])


def test_the_bound_removes_as_the_metric_does() -> None:
    """Greedy by each operator; AOPC between random and greedy is 0 and 1 there."""
    made = table()
    for operator in ("mask", "delete"):
        for i, text in enumerate(FILMS[:2]):
            scores = pellucid.explain(model(), text, Greedy(operator=operator)).scores  # type: ignore[arg-type]
            expected = plain_aopc(scores, text, operator == "delete")
            assert made.values["greedy", f"aopc:{operator}"][i] == pytest.approx(expected, abs=2e-5)
        of = made.bounded[operator]
        assert (of["random"].value, of["greedy"].value) == (0.0, 1.0)
        means = {label: made.cells[f"aopc:{operator}"][label].mean or 0 for label in made.about}
        share = (means["decompx"] - means["random"]) / (means["greedy"] - means["random"])
        assert of["decompx"].value == pytest.approx(share)
    assert "normalised_aopc:delete" in made.to_dict()["decompx"]


def test_the_same_for_any_batch_size_and_again() -> None:
    names = ["decompx", "leave_one_out", "lime", "attention"]
    found = [compare(model(), FILMS, names, batch_tokens=size) for size in (1, 32 * 40, None)]
    for made in found[1:]:
        for key, seen in found[0].values.items():
            np.testing.assert_allclose(made.values[key], seen, atol=2e-5)
    seeds = [compare(model(), FILMS[:2], ["lime"], ["aopc"], seed=s).values["random", "aopc:mask"] for s in (0, 1)]
    assert not np.allclose(*seeds)


def test_a_method_that_raises_is_told_and_stops_nothing() -> None:
    made = compare(model(), FILMS, {"mine": Fails(), "decompx": "decompx"}, ["aopc", "leave_one_out_tau"])
    assert made.failures == {"mine": {1: "RuntimeError: no dull texts"}}
    cells = made.cells["aopc:mask"]
    assert (cells["mine"].n, cells["decompx"].n, cells["random"].n) == (5, 6, 6)
    assert math.isnan(made.values["mine", "aopc:mask"][1])
    same = compare(model(), FILMS, ["decompx"], ["aopc"])
    np.testing.assert_allclose(made.values["decompx", "aopc:mask"], same.values["decompx", "aopc:mask"], atol=1e-9)
    page = io.StringIO()
    made.show(page, 120)
    assert "mine failed on 1 of 6 texts; on text 2: RuntimeError: no dull texts" in page.getvalue()


def test_a_broken_off_run_goes_on(tmp_path: Path) -> None:
    """Out of time after the first texts; then the rest alone is explained, and all is as in one go."""
    asked: dict[str, Any] = {"methods": {"mine": Fails()}, "metrics": ["aopc"], "out": tmp_path}
    part = compare(model(), FILMS, **asked, seconds=1e-9)
    assert part.spent["out_of_time"]
    assert 0 < part.measured < len(FILMS)
    assert f"{part.measured} texts of 6, as the time ran out; they are a random sample" in part.to_markdown()
    before = {row["text"] for row in part.rows if not row["error"]}
    Fails.calls.clear()
    whole = compare(model(), FILMS, **asked, resume=True)
    assert whole.spent["taken_over"] == len(before)
    assert sum(Fails.calls) <= 2 * (len(FILMS) - len(before))  # once together, once alone for the dull one
    once = compare(model(), FILMS, {"mine": Fails()}, ["aopc"])
    for key, seen in once.values.items():
        np.testing.assert_allclose(whole.values[key], seen, atol=1e-6)
    before_bytes = (tmp_path / "results.parquet").read_bytes()
    for other, what in (({"seed": 1}, "seed"), ({"x": ["Another text."]}, "texts")):
        with pytest.raises(InputError, match=f"was made with other {what}"):
            compare(model(), **({"x": FILMS} | asked | other), resume=True)
    assert (tmp_path / "results.parquet").read_bytes() == before_bytes
    (tmp_path / "results.parquet").write_bytes(b"else")
    with pytest.raises(InputError, match="no result of `pellucid bench`"):
        compare(model(), FILMS, **asked, resume=True)


def test_methods_metrics_and_texts_can_be_added(tmp_path: Path) -> None:
    """What is there is taken over, what is new is measured; the file keeps rows that were not asked for."""
    asked: dict[str, Any] = {"metrics": ["aopc"], "out": tmp_path}
    compare(model(), FILMS[:3], {"mine": Fails()}, **asked)
    Fails.calls.clear()
    more = compare(model(), FILMS, {"mine": Fails(), "attention": "attention"}, **asked, resume=True)
    assert more.measured == 6
    assert sum(Fails.calls) < 3 + 2 + 6  # the three new texts, and the dull one again
    whole = compare(model(), FILMS, {"mine": Fails(), "attention": "attention"}, ["aopc"])
    for key, seen in whole.values.items():
        np.testing.assert_allclose(more.values[key], seen, atol=1e-6)
    fewer = compare(model(), FILMS[:2], ["attention"], **asked, resume=True)
    assert set(fewer.about) == {"attention", "random"}
    assert fewer.spent["taken_over"] == 2
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert {row["method"] for row in rows} == {"mine", "attention", "random"}


def test_other_rationales_and_labels_are_measured_anew(tmp_path: Path) -> None:
    spans = [[(0, 1)], [(0, 4)]]
    asked: dict[str, Any] = {"methods": ["attention"], "metrics": ["token_f1", "aopc"], "out": tmp_path}
    compare(model(), FILMS[:2], **asked, rationales=spans)
    changed = compare(model(), FILMS[:2], **asked, rationales=[[(2, 6)], [(0, 4)]], resume=True)
    assert changed.spent["taken_over"] == 1
    fresh = compare(model(), FILMS[:2], ["attention"], ["token_f1"], rationales=[[(2, 6)], [(0, 4)]])
    np.testing.assert_allclose(changed.values["attention", "token_f1"], fresh.values["attention", "token_f1"])


def test_what_no_target_changes_explains_the_predicted_class() -> None:
    """effective_attention may fall below 0, but its sign says nothing for or against: no contrast, no polarity."""
    made = compare(model(), FILMS[:3], ["effective_attention"], ["aopc", "polarity_violations"])
    scores = pellucid.explain(model(), FILMS[0], "effective_attention").scores
    assert made.values["effective_attention", "aopc:mask"][0] == pytest.approx(plain_aopc(scores, FILMS[0]), abs=2e-5)
    assert made.cells["polarity_violations:mask"]["effective_attention"].n == 0


def test_cut_texts_are_told() -> None:
    made = compare(model(), FILMS, ["attention"], ["aopc"], max_tokens=10)
    assert any("texts were cut to 10 tokens" in line for line in made.left_out)
    assert "were cut to 10 tokens" in made.to_markdown()


def test_all_passes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of methods by each operator, of metrics, of near-duplicates, of the look at the prediction."""
    asked: dict[str, Any] = {"methods": ["greedy"], "metrics": ["aopc"], "operators": ["mask", "delete"]}
    both = compare(model(), FILMS[:2], **asked).spent["forwards"]
    alone = [compare(model(), FILMS[:2], **(asked | {"operators": [o]})).spent["forwards"] for o in asked["operators"]]
    assert both == sum(alone) - 2 * 2  # the prediction and the random control, once
    twins = compare(model(), FILMS[:2], ["leave_one_out"], ["near_duplicate_tau"]).spent["forwards"]
    assert (
        twins
        > 2 * compare(model(), FILMS[:2], ["leave_one_out"], ["near_duplicate_tau"]).costs["leave_one_out"].forwards
    )


def test_files_say_what_the_table_says(tmp_path: Path) -> None:
    made = table()
    paths = made.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)
    told = json.loads((tmp_path / "table.json").read_text())
    assert set(told) == {"decompx", "attention", "greedy", "random"}
    assert told["decompx"]["aopc:mask"]["mean"] == made.cells["aopc:mask"]["decompx"].mean
    assert {"mean", "low", "high", "n"} <= set(told["decompx"]["aopc:delete"])
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(rows) == len(FILMS) * 4 * 4  # texts x methods x (two metrics by two operators)
    assert {"text", "method", "metric", "value", "forwards", "seconds"} <= set(rows[0])
    page = (tmp_path / "table.html").read_text()
    assert page.count("<svg") == 1
    assert not any(word in page for word in ("<script", "src=", 'href="http', "url(http", "@import"))


def test_saving_into_a_folder_of_another_comparison_replaces_its_rows(tmp_path: Path) -> None:
    compare(model(), FILMS[:2], ["attention"], ["aopc"], out=tmp_path)
    table().save(tmp_path)
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(rows) == len(table().rows)
    assert {row["method"] for row in rows} == set(table().about)


def test_costs_are_those_of_explain() -> None:
    cost = table().costs
    assert (cost["decompx"].forwards, cost["decompx"].backwards, cost["decompx"].passes) == (1, 1, 3)
    assert cost["attention"].passes == 1
    assert cost["greedy"].forwards > 20


def test_plausibility_and_its_controls() -> None:
    """Words by characters; the control that looks at no model stands in a row of its own."""
    spans = [[(2, 6), (11, 16)], [(0, 4)], [(10, 13)], [], [(11, 15)], [(0, 7)]]
    made = compare(model(), FILMS, ["decompx"], rationales=spans)
    assert [a.key for a in made.asked][-3:] == ["token_f1", "iou_f1", "auprc"]
    assert made.cells["token_f1"]["longest_words"].n == made.cells["token_f1"]["decompx"].n == 5  # one marks nothing
    assert made.about["longest_words"]["control"]
    assert made.cells["aopc:mask"]["longest_words"].n == 6
    predicted = model().labels.index(pellucid.explain(model(), FILMS[0]).prediction)
    a = pellucid.explain(model(), FILMS[0], target=(predicted, 1 - predicted))
    top = sorted((i for i, t in enumerate(a.tokens) if not t.special), key=lambda i: -a.scores[i])[:2]
    hits = sum(a.tokens[i].text.lower() in ("warm", "funny") for i in top)
    assert made.values["decompx", "token_f1"][0] == hits / 2


def test_stability_explains_near_duplicates_for_the_same_class() -> None:
    made = compare(model(), FILMS[:3], ["decompx"], ["near_duplicate_tau"])
    seen = made.values["decompx", "near_duplicate_tau"]
    assert np.nanmean(seen) > 0.3  # the random control draws anew for other ids
    assert abs(np.nanmean(made.values["random", "near_duplicate_tau"])) < np.nanmean(seen)


def test_accuracy_needs_labels() -> None:
    made = compare(model(), FILMS, ["decompx"], ["accuracy_masked"], labels=["positive", 0, "positive", 0, 1, 0])
    assert made.cells["accuracy_masked:mask"]["decompx"].n == 6


def test_the_panel_takes_what_the_model_gives() -> None:
    made = compare(model(), FILMS[:1], metrics=["aopc"])
    assert set(made.about) == {*PANEL, "random"}
    outputs = pellucid.load(pellucid.DEMO, access="outputs")
    less = compare(outputs, FILMS[:1], metrics=["aopc"])
    assert set(less.about) == {"leave_one_out", "random"}
    assert any("decompx is left out: it needs READOUT access" in line for line in less.left_out)
    with pytest.raises(AccessError, match="'decompx' needs READOUT"):
        compare(outputs, FILMS[:1], ["decompx"])


def test_parameters_between_brackets() -> None:
    made = compare(model(), FILMS[:1], ["decompx(bias=drop, head=true)", "decompx"], ["aopc"])
    assert made.settings["methods"]["decompx(bias=drop, head=true)"]["bias"] == "drop"
    assert compare(model(), FILMS[:1], {"a": DecompX(bias="drop")}, ["aopc"]).settings["methods"]["a"]["bias"] == "drop"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"methods": ["decompy"]}, "decompx"),
        ({"methods": ["decompx", "decompx"]}, "given twice"),
        ({"methods": ["decompx(bias=dorp)"]}, "does not fit decompx"),
        ({"methods": ["(decompx"]}, "A method is a name"),
        ({"metrics": ["aopcs"]}, "aopc"),
        ({"metrics": ["aopc:erase"]}, "operator"),
        ({"metrics": ["token_f1:mask"]}, "erases nothing"),
        ({"metrics": ["token_f1"]}, "give rationales .--rationale-column NAME."),
        ({"metrics": ["accuracy_masked"]}, "give labels"),
        ({"metrics": []}, "at least one metric"),
        ({"methods": []}, "No method was named"),
        ({"methods": "decompy"}, "There is no method 'decompy'"),
        ({"methods": {"random": "decompx"}}, "The label 'random' is that of a control"),
        ({"metrics": "aocp"}, "There is no metric 'aocp'"),
        ({"metrics": ["accuracy_masked"], "labels": [7] * 6}, "Text 1: "),
        ({"rationales": [[(0, 999)]] * 6}, "Text 1: The span"),
        ({"labels": [1]}, "1 labels were given for 6 texts"),
        ({"rationales": [[]]}, "1 rationales were given for 6 texts"),
    ],
)
def test_refusals(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(model(), FILMS, **asked)


def test_the_model_is_left_as_it_was_found() -> None:
    hf = model().hf
    before = {k: v.clone() for k, v in hf.state_dict().items()}
    compare(model(), FILMS[:2], {"mine": Fails(), "greedy": "greedy", "generic_attention": "generic_attention"})
    assert all(torch.equal(v, before[k]) for k, v in hf.state_dict().items())
    assert not hf.training
    assert all(p.grad is None for p in hf.parameters())


def test_marks_of_cells() -> None:
    assert Cell(0.1, 0.0, 0.2, 9, p_random=0.2).like_random
    assert not Cell(0.1, 0.0, 0.2, 9).like_random
    assert Cell(0.1, 0.0, 0.2, 9, p_best=0.06).like_best
    assert not Cell(0.1, 0.0, 0.2, 9, p_best=0.06, best=True).like_best
    assert _mark(Cell(0.1, 0.0, 0.2, 9, p_random=0.2, best=True)) == "★~"
    assert _mark(Cell(0.1, 0.0, 0.2, 9, p_random=0.2, p_best=0.3)) == "=~"


def test_names_from_outside_are_escaped() -> None:
    made = compare(model(), FILMS[:2], {"<b>&": "decompx"}, ["aopc"])
    assert "<b>&" not in made.to_html()
    assert "&lt;b&gt;&amp;" in made.to_html()
