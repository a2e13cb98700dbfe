"""The audit "calibration": errors by hand, temperatures that were planted, controls by other simulations, refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import tiny
import torch
from sklearn.metrics import brier_score_loss, log_loss

import pellucid
from pellucid import Access, Batch
from pellucid.audits import reliability as rely
from pellucid.audits.audit import TOO_FEW
from pellucid.audits.calibration import QUANTITIES, Calibration, Predicted
from pellucid.audits.mistakes import OF_EVIDENCE, PLAIN, against, compared, difference, words_for_half
from pellucid.errors import InputError, Unanswerable

CLASSES = 3


def promised(n: int, seed: int, sharper: float = 1.0, c: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax; then the logits are multiplied by `sharper`."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, c))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = (rng.random((n, 1)) > p.cumsum(1)).sum(1)
    return sharper * z, np.minimum(y, c - 1)


# --- by hand ---


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.6, 0.6, 0.9, 0.9, 0.9, 0.9])
    correct = np.array([True, False, True, True, True, False])
    bins = np.array([0, 0, 1, 1, 1, 1])
    assert rely.calibration_error(confidence, correct, bins) == pytest.approx((2 * 0.1 + 4 * 0.15) / 6)
    assert rely.calibration_error(confidence, correct, bins * 0) == pytest.approx(abs(4 / 6 - confidence.mean()))
    exact = np.repeat([True, False], [8, 2])
    assert rely.calibration_error(np.full(10, 0.8), exact, np.zeros(10, int)) == pytest.approx(0, abs=1e-15)


def test_bins_hold_about_equally_many() -> None:
    rng = np.random.default_rng(0)
    c = rng.random(103)
    order = np.argsort(c)
    bins = rely.bins_of(c, 10)
    assert (np.diff(bins[order]) >= 0).all()
    assert set(np.bincount(bins)) <= {10, 11}
    assert rely.bins_of(c[:45], 10).max() == 3, "ten texts in each"
    assert rely.bins_of(c[:9], 10).max() == 0
    assert rely.bins_of(c, 3).max() == 2
    tied = rely.bins_of(np.repeat([0.5, 0.7, 0.9], [30, 5, 5]), 4)
    assert [len(set(tied[a:b])) for a, b in ((0, 30), (30, 35), (35, 40))] == [1, 1, 1]
    shuffled = rng.permutation(103)
    np.testing.assert_array_equal(rely.bins_of(c[shuffled], 10), bins[shuffled])


def test_losses_are_those_of_scikit_learn() -> None:
    z, y = promised(50, 1)
    p = np.exp(rely.log_probabilities(z))
    assert rely.losses(z, y).mean() == pytest.approx(log_loss(y, p, labels=range(CLASSES)))
    scaled = z / 3
    q = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
    assert rely.losses(z, y, np.full(50, 3.0)).mean() == pytest.approx(log_loss(y, q, labels=range(CLASSES)))
    two = rely.pairs(z[:, :1])
    binary = (y == 0).astype(int)
    assert rely.brier(np.exp(rely.log_probabilities(two)), binary).mean() == pytest.approx(
        2 * brier_score_loss(binary, 1 / (1 + np.exp(-z[:, 0])))
    )


def test_evidence_by_hand() -> None:
    assert against([3.0, -1.0, 0.0, -2.0]) == pytest.approx(0.5)
    assert against([1.0, 2.0]) == 0
    assert np.isnan(against([0.0]))
    assert np.isnan(words_for_half([]))
    assert words_for_half([1.0, -3.0, 1.0, 1.0]) == 1
    assert words_for_half([1.0, -1.0, 1.0, 1.0]) == 2
    assert words_for_half([0.1] * 10) == 5


# --- temperatures ---


@pytest.mark.parametrize("sharper", [2.0, 1.0, 0.5])
def test_a_planted_temperature_is_found(sharper: float) -> None:
    z, y = promised(20_000, 2, sharper)
    t = rely.temperature_of(z, y)
    assert t == pytest.approx(sharper, rel=0.03)
    grid = [rely.losses(z, y, t * f).mean() for f in (0.99, 1.0, 1.01)]
    assert grid[1] == min(grid)
    assert rely.crossfitted(z[:2000], y[:2000], 5, 0) == pytest.approx(sharper, rel=0.12)


def test_intervals_hold_the_planted_temperature() -> None:
    hits = 0
    for seed in range(20):
        found = rely.temperature_over_texts(*promised(150, 100 + seed, 2.0), seed)
        assert found.interval[0] <= found.value <= found.interval[1]
        hits += found.interval[0] <= 2.0 <= found.interval[1]
    assert hits >= 16


def test_no_text_judges_itself() -> None:
    z, y = promised(60, 3, 2.0)
    before = rely.crossfitted(z, y, 5, 0)
    other = y.copy()
    other[7] = (y[7] + 1) % CLASSES
    after = rely.crossfitted(z, other, 5, 0)
    same = before == after
    assert same[7]
    assert same.sum() == 12, "the fold of text 7 alone is judged by what does not hold it"
    assert len(set(before)) == 5


def test_where_all_is_right_there_is_no_temperature() -> None:
    z, _ = promised(30, 4)
    assert not rely.bounded(z, z.argmax(1))
    assert not rely.bounded(z, z.argmin(1)), "flat probabilities are better"
    assert rely.bounded(*promised(300, 4))
    assert rely.temperature_over_texts(z, z.argmax(1), 0).value is None
    np.testing.assert_array_equal(rely.crossfitted(z, z.argmax(1), 5, 0), 1.0)


def test_thirty_right_ones_say_little() -> None:
    """.99 on average and no error among 30 is what calibration would show too; .5 is not."""
    z = np.tile([[0.0, 4.6]], (30, 1)) + np.linspace(0, 0.1, 30)[:, None] * [0, 1]
    y = np.ones(30, int)
    sure = graded(z, y)
    assert (sure["mean_confidence"], sure["temperature"]) == ("NO BIAS SHOWN", TOO_FEW)
    assert graded(z / 20, y)["mean_confidence"] == "UNDERCONFIDENT"


# --- controls ---


def test_the_control_is_what_labels_drawn_from_the_probabilities_show() -> None:
    z, _ = promised(90, 5)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    c, best, rng = p.max(1), p.argmax(1), np.random.default_rng(11)
    bins = rely.bins_of(c, 10)
    found = []
    for _ in range(3000):
        right = np.array([rng.choice(CLASSES, p=row) for row in p]) == best if len(found) < 300 else rng.random(90) < c
        found.append(sum(abs(right[bins == b].sum() - c[bins == b].sum()) for b in set(bins)) / 90)
    null = rely.error_if_calibrated(c, bins, 0)
    assert null.value == pytest.approx(np.mean(found[:300]), rel=0.08)
    assert null.value == pytest.approx(np.mean(found), rel=0.03)
    assert null.interval == pytest.approx(np.percentile(found, [2.5, 97.5]), rel=0.07)


def test_chance_is_not_called_miscalibrated() -> None:
    alarms = 0
    for seed in range(60):
        p = Predicted.of(*promised(200, 200 + seed), 10, 2, 0)
        found = rely.calibration_error(p.confidence, p.correct, p.bins)
        alarms += found > rely.error_if_calibrated(p.confidence, p.bins, seed).interval[1]
    assert alarms <= 5, "2.5 % are expected"
    assert graded(*promised(400, 6, 2.5))["calibration_error"] == "MISCALIBRATED"


def graded(z: np.ndarray, y: np.ndarray) -> dict[str, str]:
    found = Calibration()._findings(Predicted.of(z, y, 10, 5, 0), ())
    return {f.name: f.grade for f in found}


def test_an_overconfident_model_is_told_so() -> None:
    found = graded(*promised(500, 7, 2.5))
    assert found["mean_confidence"] == found["temperature"] == "OVERCONFIDENT"
    assert found["confident_errors"] == "MORE THAN PROMISED"
    assert found["log_loss_scaled"] == "LESS THAN BEFORE"
    assert found["calibration_error_scaled"] == "WITHIN CHANCE"
    assert found["accuracy"] == "BETTER THAN THE LARGEST CLASS"
    modest = graded(*promised(500, 8, 0.3))
    assert modest["mean_confidence"] == modest["temperature"] == "UNDERCONFIDENT"
    z, _ = promised(500, 9)
    idle = graded(z, np.random.default_rng(0).integers(CLASSES, size=500))
    assert idle["accuracy"] == idle["log_loss"] == idle["brier_score"] == "NO BETTER SHOWN"


def test_the_error_keeps_its_value_in_its_interval() -> None:
    for seed in range(10):
        p = Predicted.of(*promised(120, 300 + seed), 10, 5, 0)
        found = rely.error_over_texts(p.confidence, p.correct, p.bins, 0)
        assert 0 <= found.interval[0] <= found.value <= found.interval[1]


def test_confident_errors_against_a_count() -> None:
    z, y = promised(300, 10, 2.0)
    p = np.exp(rely.log_probabilities(z))
    sure = p.max(1) > 0.9
    found = {f.name: f for f in Calibration()._findings(Predicted.of(z, y, 10, 5, 0), ())}["confident_errors"]
    assert found.value == pytest.approx((p.argmax(1) != y)[sure].mean())
    assert found.null == pytest.approx((1 - p.max(1))[sure].mean())
    assert found.n == sure.sum()


# --- errors against correct predictions ---


def test_a_planted_difference_is_graded() -> None:
    rng = np.random.default_rng(0)
    correct = np.arange(80) >= 30
    for shift, grade in ((2.0, "HIGHER IN ERRORS"), (-2.0, "LOWER IN ERRORS"), (0.0, "NO DIFFERENCE SHOWN")):
        values = rng.normal(size=80) + shift * ~correct
        f = compared(PLAIN[0], values, correct, (), 0)
        assert f.grade == grade
        assert f.value == pytest.approx(values[:30].mean())
        assert f.null == pytest.approx(values[30:].mean())
        assert f.counts == {"errors": 30, "correct predictions": 50}
    few = compared(PLAIN[0], values, np.arange(80) >= 9, (), 0)
    assert (few.grade, few.n) == (TOO_FEW, 9)
    none = compared(PLAIN[0], values, np.arange(80) >= 0, (), 0)
    assert (none.grade, none.value, none.reading) == (TOO_FEW, None, "There are no errors to compare.")


def test_a_difference_has_the_interval_of_two_samples() -> None:
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 2, 60), rng.normal(0, 1, 90)
    found, welch = difference(a, b, 0), ttest_ind(a, b, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.interval == pytest.approx((welch.low, welch.high), abs=0.1)


# --- the audit ---


def labelled(wrong: int = 12, texts: int = 40) -> tuple[pellucid.Model, Batch, list[int]]:
    """Texts with the model's own decisions for labels, but for the first ones."""
    model, batch = planted.trustworthy(3, texts)
    best = model.logits(batch).argmax(-1).tolist()
    return model, batch, [1 - b if i < wrong else b for i, b in enumerate(best)]


def test_the_tables_are_what_the_model_says(tmp_path: Path) -> None:
    model, batch, y = labelled()
    found = pellucid.audit(model, batch, "calibration", labels=y)
    assert found.named("accuracy").value == pytest.approx(28 / 40)
    assert found.named("probability_in_errors").counts == {"errors": 12, "correct predictions": 28}
    p = model.probabilities(model.logits(batch)).numpy()
    a = pellucid.explain(model, batch)
    for i, row in enumerate(found.tables["predictions"]):
        assert row["probability"] == pytest.approx(p[i].max(), rel=1e-9)
        assert row["prediction"] == model.labels[p[i].argmax()]
        assert row["gold"] == model.labels[y[i]]
        assert row["correct"] is bool(i >= 12)
        assert row["logits"] == pytest.approx(model.logits(batch.rows([i]))[0].tolist())
        sharp = np.exp(np.array(row["logits"]) / row["temperature"])
        assert row["probability_scaled"] == pytest.approx(sharp.max() / sharp.sum())
        z = a[i].words()
        other = pellucid.explain(model, batch.rows([i]), target=1 - int(p[i].argmax()))[0].words()
        s = (z.scores - other.scores)[1:] / 2
        assert row["against"] == pytest.approx(-s[s < 0].sum() / np.abs(s).sum(), abs=1e-9)
        assert row["half"] == words_for_half(s)
        assert row["tokens"] == 11
    bins = [r for r in found.tables["bins"] if not r["scaled"]]
    assert sum(r["n"] for r in bins) == 40
    assert sum(r["n"] * abs(r["accuracy"] - r["confidence"]) for r in bins) / 40 == pytest.approx(
        found.named("calibration_error").value
    )
    assert {q.name for q in (*PLAIN, *OF_EVIDENCE)} | set(QUANTITIES) == {f.name for f in found}
    assert {p.name for p in found.save(tmp_path)} >= {"calibration_errors.svg", "calibration_reliability.svg"}


def test_labels_by_name_by_batch_and_again() -> None:
    model, batch, y = labelled()
    found = pellucid.audit(model, batch, "calibration", labels=y)
    named = pellucid.audit(model, batch, "calibration", labels=[model.labels[k] for k in y])
    held = pellucid.audit(model, replace(batch, labels=tuple(y)), "calibration")
    for other in (named, held):
        assert [f.to_dict() for f in other] == [f.to_dict() for f in found]
        assert other.tables == found.tables
    assert found.origin["data"] == held.origin["data"]
    assert found.origin["data"] != pellucid.audit(model, batch, "words").origin["data"]


def test_without_errors_and_with_few_texts() -> None:
    model, batch, y = labelled(wrong=0)
    found = pellucid.audit(model, batch, "calibration", labels=y)
    assert found.named("accuracy").value == 1
    assert found.named("against_in_errors").value is None
    assert found.named("temperature").value is None
    assert any(said.startswith("No temperature is the best") for said in found[0].limits)
    few = pellucid.audit(model, batch.rows(range(6)), "calibration", labels=[*y[:5], 1 - y[5]])
    assert {f.grade for f in few} == {TOO_FEW}
    one = pellucid.audit(model, batch.rows([0]), "calibration", labels=y[:1])
    assert {f.grade for f in one} == {TOO_FEW}


def test_a_sigmoid_head_decides_between_two() -> None:
    model = pellucid.load(tiny.build("bert", num_labels=1, problem_type="multi_label_classification"))
    batch = tiny.batch(model, tuple(4 + i % 6 for i in range(30)))
    z = model.logits(batch)[:, 0].numpy()
    y = [int(v > 0) if i % 5 else int(v <= 0) for i, v in enumerate(z)]
    found = pellucid.audit(model, batch, "calibration", labels=y)
    assert found.named("accuracy").value == pytest.approx(24 / 30)
    p = 1 / (1 + np.exp(-z))
    for i, row in enumerate(found.tables["predictions"]):
        assert row["probability"] == pytest.approx(max(p[i], 1 - p[i]))
        assert (row["prediction"], row["gold"]) == (int(z[i] > 0), y[i])
    assert found.named("log_loss").value == pytest.approx(log_loss(y, p))
    a = pellucid.explain(model, batch)[0]
    s = a.scores * (1 if z[0] > 0 else -1)
    assert found.tables["predictions"][0]["against"] == pytest.approx(-s[s < 0].sum() / np.abs(s).sum())


def test_a_model_that_shows_less_has_no_evidence() -> None:
    model, batch, y = labelled()
    blind = replace(model, access=Access.OUTPUTS, net=None, family="unknown")
    found = pellucid.audit(blind, batch, "calibration", labels=y)
    whole = pellucid.audit(model, batch, "calibration", labels=y)
    assert {f.name for f in whole} - {f.name for f in found} == {q.name for q in OF_EVIDENCE}
    assert any("needs more access than OUTPUTS" in said for said in found[0].limits)
    assert found.named("calibration_error").value == pytest.approx(whole.named("calibration_error").value, rel=1e-6)


def headed(labels: int, problem: str | None) -> Callable[[], Any]:
    def call() -> Any:
        model = pellucid.load(tiny.build("bert", num_labels=labels, problem_type=problem))
        return pellucid.audit(model, tiny.batch(model, (5, 4)), "calibration", labels=[0, 0])

    return call


def given(labels: Any, **settings: Any) -> Callable[[], Any]:
    def call() -> Any:
        model, batch, _ = labelled(texts=3)
        return pellucid.audit(model, batch, "calibration", labels=labels, **settings)

    return call


REFUSED: dict[str, tuple[Callable[[], Any], type[InputError], str]] = {
    "no labels": (given(None), Unanswerable, "needs the true classes"),
    "regression": (headed(1, None), Unanswerable, "is a regression"),
    "several labels": (headed(3, "multi_label_classification"), Unanswerable, "each of 3 labels at once"),
    "no class": (given([0, 1, 7]), InputError, "^Text 3 has the label 7: .*0 to 1"),
    "no name": (given([0, "LABEL_2", 1]), InputError, "^Text 2 has the label 'LABEL_2'.*LABEL_1"),
    "one label too few": (given([0, 1]), InputError, "2 labels for 3 rows"),
    "a method that does not add up": (given([0, 1, 1], method="occlusion"), InputError, "'calibration' sums scores"),
    "no method": (given([0, 1, 1], method="decompy"), InputError, "decompx"),
    "folds": (given([0, 1, 1], folds=1), InputError, "folds=1"),
    "bins": (given([0, 1, 1], bins=0), InputError, "bins=0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    call, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        call()


def test_the_model_is_left_as_found() -> None:
    model, batch, y = labelled()
    before = {k: v.clone() for k, v in model.hf.state_dict().items()}
    pellucid.audit(model, batch, "calibration", labels=y)
    assert all(torch.equal(before[k], v) for k, v in model.hf.state_dict().items())
    assert not any(p.grad is not None for p in model.hf.parameters())
    model.check_unchanged()
