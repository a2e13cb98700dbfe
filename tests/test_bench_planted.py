"""`pellucid.bench.planted`: the planted models compute their closed forms, the truth is their Shapley value, and the
measures are what they say. What methods must give on these models is known, so some of it is checked by hand."""

from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from math import comb
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import pearsonr, spearmanr

import pellucid
from pellucid import METHODS, Access
from pellucid.bench import truth as bench
from pellucid.bench.planted_models import CASES, EVIDENCE, WEIGHTS, WORDS, Case, weights
from pellucid.bench.truth import Planted, Trial, against, chosen, found_of, pearson, planted, rest_of, spearman
from pellucid.errors import InputError
from pellucid.methods import DecompX, Gradient, Guarantees, IntegratedGradients, LeaveOneOut, Method, Scores
from pellucid.methods.surrogate import Game
from pellucid.stats import over_texts

NAMES = CASES.names()
COALITIONS = np.array(list(product((False, True), repeat=WORDS)))
EXACT = 1e-7


@cache
def opened(name: str) -> pellucid.Model:
    """A case's model, opened once."""
    return CASES.get(name).model()


def scores(name: str, words: tuple[str, ...], method: str | Method) -> np.ndarray:
    """A method's scores of the words of one text, of the class "yes"."""
    a = pellucid.explain(opened(name), " ".join(words), method, target="yes")
    assert [t.text for t in a.tokens if not t.special] == list(words)
    return a.scores[[not t.special for t in a.tokens]]


def shapley(values: np.ndarray) -> np.ndarray:
    """From values [2^n] of all sets, in the order of COALITIONS: the mean over the others of what a word adds."""
    found, n = np.zeros(WORDS), WORDS
    for k in range(n):
        without = np.flatnonzero(~COALITIONS[:, k])
        size = COALITIONS[without].sum(1)
        chance = 1 / (n * np.array([comb(n - 1, s) for s in size]))
        found[k] = chance @ (values[without + 2 ** (n - 1 - k)] - values[without])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_its_closed_form_and_the_truth_its_shapley_value(name: str) -> None:
    """Over all 1,024 sets of present words; logit 0 stays 0, so the margin and the probability say the same."""
    case, model = CASES.get(name), opened(name)
    assert model.access == Access.ENCODER
    assert model.dtype == torch.float64
    for words in case.texts(3, seed=1):
        text = model.batch([" ".join(words)])
        logits = Game(model, text, torch.arange(1, WORDS + 1), "mask")(COALITIONS)
        f = case.worth(words, COALITIONS)
        assert np.abs(logits[:, 1] - f).max() < 1e-8 * np.ptp(f)
        assert (logits[:, 0] == 0).all()
        assert f[0] == 0
        np.testing.assert_allclose(shapley(f), case.truth(words), atol=1e-12)
        np.testing.assert_allclose(shapley(logits[:, 1]), case.truth(words), atol=EXACT)
        np.testing.assert_allclose(model.hf_logits(text).detach(), logits[-1:], atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_fixed_by_the_seed_and_have_what_the_case_is_about(name: str) -> None:
    case = CASES.get(name)
    texts = case.texts(30, seed=2)
    assert texts == case.texts(40, seed=2)[:30]
    assert texts != case.texts(30, seed=3)
    assert len(set(texts)) == 30
    for words in texts:
        assert len(words) == WORDS
        assert 0 < (case.truth(words) != 0).sum() < WORDS, "all or none of the words are relevant"
        assert sum(w in case.key for w in words) in (
            (0,) if not case.key else (2, 3, 4) if case.key == EVIDENCE else (1,)
        )
        assert len({w for w in words if w in WEIGHTS}) == sum(w in WEIGHTS for w in words)
    if name == "order":
        assert all(0 < np.count_nonzero(case.truth(w)) - 1 < np.count_nonzero(weights(w)) for w in texts)


def test_the_order_of_words_decides() -> None:
    """The same words in another order: what stands before the marker is nothing."""
    case, words = CASES.get("order"), ("good", "but", "bad", "the", "a", "film", "plot", "was", "and", "great")
    swapped = ("bad", "but", "good", *words[3:])
    for text, value in ((words, -0.6 + 0.8), (swapped, 0.5 + 0.8)):
        assert float(opened("order").logits(opened("order").batch([" ".join(text)]))[0, 1]) == pytest.approx(value)
        assert case.worth(text, np.ones((1, WORDS), bool)) == pytest.approx(value)
    assert case.truth(words).tolist() == pytest.approx([0, 0.1, -0.3, *[0] * 6, 0.4])


def test_an_ordinary_model(tmp_path: Path) -> None:
    """Saved by Hugging Face and opened from the folder it is the same, so the command line reads it too."""
    model = opened("gated")
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    again = pellucid.load(tmp_path, dtype=torch.float64)
    text = "the film was not good"
    np.testing.assert_allclose(again.logits(again.batch([text])), model.logits(model.batch([text])), atol=1e-12)
    assert [t.text for t in again.batch([text]).tokens[0]] == ["[CLS]", *text.split(), "[SEP]"]


# ---- what methods must give here -----------------------------------------------------------------------------------


def test_what_the_local_coefficients_of_a_negated_text_say() -> None:
    """In a text with "not" the gate is shut: the logit is -s / 2, each word's coefficient -1/2, the negation's 0. It is
    complete, and so is integrated gradients, whose path the gate shuts from its start; the truth is w / 4."""
    case = CASES.get("gated")
    for words in case.texts(3):
        for method in (DecompX(), Gradient(), IntegratedGradients(baseline="mask")):
            np.testing.assert_allclose(scores("gated", words, method), -weights(words) / 2, atol=EXACT)
        single = -weights(words) / 2 - 1.5 * np.array([w == "not" for w in words]) * weights(words).sum()
        np.testing.assert_allclose(scores("gated", words, LeaveOneOut()), single, atol=EXACT)


def test_redundant_evidence_is_nothing_to_single_removals_and_to_gradients() -> None:
    """With two or more of them none is missed; integrated gradients from [MASK] shares the rise to 1 out evenly."""
    case = CASES.get("redundant")
    for words in case.texts(3):
        for method in (DecompX(), Gradient(), LeaveOneOut(), "attention_x_gradient"):
            found = scores("redundant", words, method)
            scale = found @ weights(words) / (weights(words) @ weights(words))
            np.testing.assert_allclose(found, scale * weights(words), atol=EXACT)
        exact = scores("redundant", words, IntegratedGradients(baseline="mask", steps=400))
        np.testing.assert_allclose(exact, case.truth(words), atol=0.01)


def test_attention_looks_at_the_distractor() -> None:
    """One of two heads looks at it alone: half the weight and more, where the truth is 0."""
    case = CASES.get("distractor")
    words = case.texts(1)[0]
    expected = np.where(np.array(words) == "look", 0.5, 0.0) + 0.5 / (WORDS + 2)
    np.testing.assert_allclose(scores("distractor", words, "attention"), expected, atol=EXACT)
    for method in (DecompX(), "leave_one_out", "integrated_gradients"):
        np.testing.assert_allclose(scores("distractor", words, method), weights(words), atol=EXACT)


@cache
def measured() -> Planted:
    """All registered methods on a few texts of every case."""
    return planted(count=3)


def test_every_method_runs_on_every_case_between_its_controls() -> None:
    """The exact values have error 0; what needs a probe is reported, and nothing else fails."""
    result = measured()
    assert {t.method for t in result.trials} == {*METHODS.names(), "exact_shapley"}
    assert len(result.trials) == 3 * len(NAMES) * (len(METHODS.names()) + 1)
    assert {t.method for t in result.trials if t.reason} == {"pointwise_information"}
    for name in NAMES:
        best = result.cell("exact_shapley", name)
        assert best.control
        told = {m: e.value for m, e in best.measures.items()}
        assert told == pytest.approx(
            {"pearson": 1, "spearman": 1, "l1": 0, "precision": 1, "spearman_signed": 1}, abs=1e-6
        )
        random = result.cell("random", name).measures
        assert random["l1"].value > 0.8
        assert abs(random["spearman"].value) < 0.6


def test_where_methods_fail() -> None:
    """Signs of the failures that the cases are made for; numbers are in the study."""

    def error(method: str, case: str, measure: str = "l1") -> float:
        return measured().cell(method, case).measures[measure].value

    for method in ("decompx", "gradient_x_input", "integrated_gradients", "leave_one_out", "attention_norm"):
        assert error(method, "additive") < 1e-6
        assert error(method, "distractor") < 1e-6
    assert error("attention", "additive", "spearman") == 0, "even attention says nothing"
    assert error("attention", "distractor", "spearman") < -0.2
    assert error("decompx", "gated", "spearman") < -0.5
    assert error("integrated_gradients_mask", "gated", "spearman") < -0.5
    assert error("leave_one_out", "redundant") > 0.2
    assert error("integrated_gradients_mask", "redundant") < 0.06 < 0.2 < error("integrated_gradients", "redundant")
    assert error("leave_one_out", "order") < 1e-6 < 0.1 < error("decompx", "order")
    for case in ("additive", "gated", "order", "distractor"):
        assert error("kernel_shap", case) < 1e-6, "pairs of complements are exact for games of pairs"
    assert error("greedy", "additive", "spearman_signed") > 0.9 > 0.5 > error("greedy", "additive", "spearman")


# ---- the measures --------------------------------------------------------------------------------------------------


def test_correlations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(size=8), rng.integers(0, 3, 8).astype(float)
        if np.ptp(b):
            assert pearson(a, b) == pytest.approx(pearsonr(a, b).statistic)
            assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(pearson(np.ones(4), a[:4]))
    assert np.isnan(spearman(a[:1], b[:1]))
    assert np.isnan(pearson(a[:0], b[:0]))


def test_the_error_after_the_best_scale_is_the_least_there_is() -> None:
    """Against a numerical search; 1 where no scale helps, which a negative one may not do."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        s, t = rng.normal(size=6), rng.normal(size=6)
        s[rng.random(6) < 0.3] = 0.0

        def error(c: float, s: np.ndarray = s, t: np.ndarray = t) -> float:
            return float(np.abs(c * s - t).sum() / np.abs(t).sum())

        searched = min(minimize_scalar(error, bounds=(0, top), method="bounded").fun for top in (0.1, 1, 10, 100))
        assert rest_of(s, t) == pytest.approx(min(searched, 1.0), abs=1e-4)
        assert rest_of(s, t) <= min(searched, 1.0) + 1e-12
    assert rest_of(7 * t, t) == pytest.approx(0)
    assert rest_of(-t, t) == 1
    assert rest_of(0 * t, t) == 1
    assert rest_of(np.array([1.0, 1, 1]), np.array([3.0, 1, 0])) == pytest.approx(3 / 4)  # c = 1, the median


def test_precision_is_expected_over_ties() -> None:
    """Against the mean over all orders that the scores allow."""
    s, relevant = np.array([0.5, 2.0, 0.5, 0.0, 0.5, 0.0]), np.array([True, False, True, True, False, False])
    hits = []
    for order in permutations(range(6)):
        if (np.diff(s[list(order)]) <= 0).all():
            hits.append(relevant[list(order)][:3].mean())
    assert found_of(s, relevant) == pytest.approx(np.mean(hits)) == pytest.approx((2 * 2 / 3) / 3)
    assert found_of(np.zeros(6), relevant) == pytest.approx(0.5)
    assert found_of(relevant * 1.0, relevant) == 1
    against_all = against(-1.0 * relevant, relevant * 1.0, signed=True)
    assert against_all["precision"] == 1, "the sign is no matter of relevance"


def test_unsigned_scores_are_compared_with_sizes() -> None:
    truth = np.array([3.0, -2.0, 0.0, 1.0])
    assert against(np.abs(truth), truth, signed=False)["l1"] == pytest.approx(0)
    assert against(np.abs(truth), truth, signed=False)["spearman"] == pytest.approx(1)
    assert against(np.abs(truth), truth, signed=False)["spearman_signed"] == pytest.approx(0.4)
    assert against(np.abs(truth), truth, signed=True)["l1"] == pytest.approx(4 / 6)
    assert against(-truth, truth, signed=True) == pytest.approx(
        {"pearson": -1, "spearman": -1, "l1": 1, "precision": 1, "spearman_signed": -1}
    )


def test_rounding_is_no_order_and_even_scores_are_none() -> None:
    """Zeros that are not quite are tied; what is the same everywhere has correlation 0."""
    truth = np.array([1.0, 0.5, 0.0, 0.0, 0.0])
    noisy = truth * 3e-9 + np.array([0, 0, 1, -2, 3]) * 1e-16
    assert against(noisy, truth, signed=True)["spearman"] == pytest.approx(1)
    even = against(np.full(5, 0.2) + np.arange(5) * 1e-12, truth, signed=False)
    assert (even["pearson"], even["spearman"]) == (0, 0)
    assert even["precision"] == pytest.approx(0.4)
    assert against(np.zeros(5), truth, signed=True)["l1"] == 1


@pytest.mark.parametrize("name", ["effective_attention", "decompx", "attention", "greedy"])
def test_what_no_target_changes_counts_as_unsigned(name: str) -> None:
    """Effective attention may fall below zero, but cannot tell for from against."""
    assert {t.signed for t in measured().trials if t.method == name} == {name == "decompx"}


# ---- the runner ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choosy(Method):
    """Raises, or gives scores that are not finite, for texts with certain words; else one for each token."""

    source: ClassVar[str] = "test"
    needs: ClassVar[Access] = Access.OUTPUTS
    raises: str = "bad"
    unknown: str = "good"

    @property
    def name(self) -> str:
        return "choosy"

    def guarantees(self, model: Any) -> Guarantees:
        return Guarantees()

    def __call__(self, model: Any, batch: Any, target: Any) -> Scores:
        logits = model.logits(batch)
        out = torch.zeros(*batch.input_ids.shape, 1).to(logits)
        for i, row in enumerate(batch.tokens):
            words = [t.text for t in row]
            if self.raises in words:
                raise ZeroDivisionError("not that word")
            out[i] = float("nan") if self.unknown in words else 1.0
        return Scores(out, None, None, logits, 1.0, 0.0)


def test_a_method_that_raises_is_reported_for_that_text_alone() -> None:
    result = planted([Choosy(), "leave_one_out"], ["redundant"], count=12)
    mine = [t for t in result.trials if t.method == "choosy"]
    for t in mine:
        words = t.text.split()
        expected = "ZeroDivisionError: not that word" if "bad" in words else ""
        expected = expected or ("12 of 12 scores are not finite." if "good" in words else "")
        assert t.reason == expected
        assert (t.l1 is None) == (t.seconds is None) == bool(expected)
    cell, other = result.cell("choosy", "redundant"), result.cell("leave_one_out", "redundant")
    assert 0 < cell.texts < 12
    assert (cell.texts + cell.failed, cell.reason) == (12, next(t.reason for t in mine if t.reason))
    assert cell.measures["l1"].n == cell.texts
    assert (other.texts, other.failed, other.reason, other.passes) == (12, 0, "", 1 + WORDS)


def test_cells_are_means_over_texts_with_bootstrap_intervals() -> None:
    result = planted(["decompx"], ["gated", "order"], count=6)
    values = {c: [t.l1 for t in result.trials if (t.method, t.case) == ("decompx", c)] for c in ("gated", "order")}
    for case, v in (*values.items(), (bench.EVERY, [*values["gated"], *values["order"]])):
        cell = result.cell("decompx", case)
        assert cell.measures["l1"] == over_texts([[x] for x in v])
        row = cell.to_dict()
        assert (row["l1"], row["l1_low"], row["l1_high"]) == (np.mean(v), *cell.measures["l1"].interval)
    assert [(c.method, c.case) for c in result.cells()][:4] == [
        ("decompx", "gated"), ("random", "gated"), ("exact_shapley", "gated"), ("decompx", "order"),
    ]  # fmt: skip
    assert result.trials[0].to_dict()["case"] == "gated"
    assert isinstance(result.trials[0], Trial)


def test_what_is_asked_for() -> None:
    """Methods by name, as instances, or named; the controls always; the seed fixes the texts."""
    few = {"five": IntegratedGradients(steps=5), "one": IntegratedGradients(steps=1)}
    told: list[tuple[int, int]] = []
    result = planted(few, ["additive"], count=1, seed=5, progress=lambda done, total: told.append((done, total)))
    assert [t.method for t in result.trials] == ["five", "one", "random", "exact_shapley"]
    assert told == [(i, 4) for i in range(1, 5)]
    assert result.trials[0].text == " ".join(CASES.get("additive").texts(1, seed=5)[0])
    assert list(chosen(["random", Choosy()])) == ["random", "choosy"]
    assert list(chosen(None)) == METHODS.names()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda: planted(["decomp"]), "no method 'decomp'. Did you mean 'decompx'"),
        (lambda: planted(["decompx"], ["additiv"]), "no planted case 'additiv'. Did you mean 'additive'"),
        (lambda: planted(["decompx"], []), "at least one case and one text of it; seen 0 and 20"),
        (lambda: planted(["decompx"], count=0), "seen 5 and 0"),
        (lambda: chosen([DecompX(), "decompx"]), "The method 'decompx' was given twice"),
        (lambda: chosen([7]), "A method is a name.*seen 7"),
        (
            lambda: planted(["decompx"], ["additive"], 1).cell("decompx", "nowhere"),
            "Nothing was measured of 'decompx' in 'nowhere'",
        ),
    ],
)
def test_refusals(asked: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        asked()


def test_a_case_of_ones_own() -> None:
    """What is registered is a plain record: f and truth of a case are functions of words."""
    case = CASES.get("redundant")
    assert isinstance(case, Case)
    words = ("proven", "certain", "good", *["the"] * 7)
    alone = np.eye(WORDS, dtype=bool)
    assert case.worth(words, alone).tolist() == [1, 1, 0.5, *[0] * 7]
    assert case.worth(words, np.ones((1, WORDS), bool)).tolist() == [1.5]
    assert case.truth(words).tolist() == [0.5, 0.5, 0.5, *[0] * 7]
