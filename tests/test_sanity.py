"""`pellucid.bench.sanity` and `cascade`: what becomes random where, what is compared, and which methods must fail."""

import copy
import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import jaxtyping
import numpy as np
import pytest
import tiny
import torch
from scipy.stats import spearmanr
from scipy.stats import t as student
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification

import pellucid
from pellucid import Access, Batch, zoo
from pellucid.bench import sanity
from pellucid.bench.cascade import cascade, drawn_like, stage_names, stages_of
from pellucid.bench.planted_models import CASES, FILLERS, VOCABULARY, WEIGHTS, weights
from pellucid.bench.sanity import MARGIN, crossed, grade_of, randomised_labels, randomised_weights
from pellucid.errors import InputError
from pellucid.finding import Findings
from pellucid.methods import DecompX, Guarantees, KernelShap, Lime, Method, PointwiseInformation, Random, Scores
from pellucid.metrics import near_duplicates
from pellucid.stats import Estimate, over_texts

STAGES = {
    "bert": ["head", *(f"bert.encoder.layer.{i}" for i in (2, 1, 0)), "embeddings"],
    "distilbert": ["head", *(f"distilbert.transformer.layer.{i}" for i in (2, 1, 0)), "embeddings"],
    "modernbert": ["head", *(f"model.layers.{i}" for i in (3, 2, 1, 0)), "embeddings"],
    "albert": ["head", "albert.encoder.albert_layer_groups.1", "albert.encoder.albert_layer_groups.0", "embeddings"],
    "identifiable": ["head", "blocks.1", "blocks.0", "embeddings"],
}


def state(hf: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: p.detach().clone() for k, p in hf.named_parameters()}


def text(model: pellucid.Model) -> Batch:
    return tiny.batch(model, (9,))


# ---- cascade ---------------------------------------------------------------------------------------------------------


def test_every_weight_becomes_random_in_one_stage(family: str, model: pellucid.Model) -> None:
    """From the head down, and what is random stays as it is; the model itself is left alone."""
    before = state(model.hf)
    names = {id(p): k for k, p in model.hf.named_parameters()}
    planned = [(stage, {names[id(p)] for p in own}) for stage, own in stages_of(model.hf, text(model), model.takes)]
    assert [stage for stage, _ in planned] == STAGES.get(family, [stage for stage, _ in planned])
    assert sorted(k for _, own in planned for k in own) == sorted(before)
    assert any("classifier" in k for k in planned[0][1])
    assert any("embedding" in k for k in planned[-1][1])
    last, changed = before, set()
    for (stage, copied), (expected, own) in zip(cascade(model, text(model), seed=3), planned, strict=True):
        now = state(copied.hf)
        assert {k for k in now if not torch.equal(now[k], last[k])} == own, f"{family}: {stage}"
        assert (stage, copied.access, copied.dtype) == (expected, model.access, model.dtype)
        assert copied.hf is not model.hf
        last, changed = now, changed | own
    assert changed == set(before)
    assert all(torch.equal(p, before[k]) for k, p in model.hf.named_parameters())
    model.check_unchanged()


def test_what_stands_where() -> None:
    """Tables of relative positions lie with the embeddings, the last norm with the head, wherever they are defined."""

    def members(family: str, stage: int) -> set[str]:
        model = tiny.opened(family)
        names = {id(p): k for k, p in model.hf.named_parameters()}
        return {names[id(p)] for p in stages_of(model.hf, text(model), model.takes)[stage][1]}

    assert {"deberta.encoder.rel_embeddings.weight", "deberta.encoder.LayerNorm.weight"} <= members("deberta_v3", -1)
    assert "mpnet.encoder.relative_attention_bias.weight" in members("mpnet", -1)
    assert "electra.embeddings_project.weight" in members("electra", -1)
    assert {"model.final_norm.weight", "head.dense.weight"} <= members("modernbert", 0)
    assert members("bert", 0) == {f"{m}.{p}" for m in ("bert.pooler.dense", "classifier") for p in ("weight", "bias")}


def test_modules_without_blocks_are_stages_of_their_own() -> None:
    """A model of the zoo around an LSTM; it stays a READOUT, and a lowered model stays lowered."""
    config = zoo.AttentionClassifierConfig(encoder="bilstm", vocab_size=30, embedding_size=6, hidden_size=8)
    torch.manual_seed(0)
    model = pellucid.load(zoo.AttentionClassifierForSequenceClassification(config).double().eval())
    batch = Batch(torch.arange(4, 10)[None])
    names = stage_names(model, batch)
    assert names == [
        "classifier", "word_pool.scorer.query", "word_pool.scorer.layers.0", "words.there", "words.back", "embeddings",
    ]  # fmt: skip
    assert [m.access for _, m in cascade(model, batch)] == [Access.READOUT] * len(names)
    for level in ("gradients", "outputs"):
        low = pellucid.load(tiny.build("bert"), access=level)
        assert {m.access for _, m in cascade(low, text(low))} == {low.access}


def test_the_seed_fixes_the_draws() -> None:
    model = tiny.opened("bert")

    def at_end(seed: int) -> torch.Tensor:
        *_, (_, last) = cascade(model, text(model), seed)
        return last.logits(tiny.batch(model))

    assert torch.equal(at_end(0), at_end(0))
    assert not torch.allclose(at_end(0), at_end(1))


def test_draws_keep_the_scale_of_a_tensor() -> None:
    g = torch.Generator().manual_seed(0)
    p = 3 + 0.5 * torch.rand(200, 300, dtype=torch.float64)
    new = drawn_like(p, g)
    assert new.dtype == p.dtype
    assert new.mean().item() == pytest.approx(p.mean().item(), abs=0.01)
    assert new.std().item() == pytest.approx(p.std().item(), rel=0.02)
    assert abs(np.corrcoef(new.flatten(), p.flatten())[0, 1]) < 0.02
    assert torch.equal(drawn_like(torch.full((5,), 2.0), g), torch.full((5,), 2.0))


def test_a_copy_that_runs_the_original_is_refused() -> None:
    model = pellucid.load(tiny.build("bert"))
    forward = model.hf.forward
    wrapped = replace(model, hf=copy.deepcopy(model.hf))
    wrapped.hf.forward = lambda *args, **given: forward(*args, **given)
    with pytest.raises(InputError, match="BertForSequenceClassification cannot be randomised"):
        stage_names(wrapped, text(model))


# ---- the numbers -----------------------------------------------------------------------------------------------------


def test_the_crossed_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 400 draws with effects of seeds, of texts and of both; texts alone would miss it more often."""
    rng, hits, alone = np.random.default_rng(0), [], []
    for _ in range(400):
        v = 0.1 * rng.normal(size=(5, 1)) + 0.1 * rng.normal(size=(1, 20)) + 0.2 * rng.normal(size=(5, 20))
        low, high = crossed(v).interval
        hits.append(low < 0 < high)
        low, high = crossed(v[:1]).interval
        alone.append(low < 0 < high)
    assert 0.92 < np.mean(hits) < 0.99
    assert np.mean(alone) < 0.8


def test_the_crossed_interval_by_hand() -> None:
    """Seeds' means 0.2 and 0.4, texts' means 0.1, 0.3, 0.5, nothing else: variances 0.02 / 2 and 0.04 / 3."""
    v = np.array([[0.0, 0.2, 0.4], [0.2, 0.4, 0.6]])
    freedom = (0.01 + 0.04 / 3) ** 2 / (0.01**2 / 1 + (0.04 / 3) ** 2 / 2)
    wide = student.ppf(0.975, freedom) * np.sqrt(0.01 + 0.04 / 3)
    assert crossed(v).interval == pytest.approx((0.3 - wide, 0.3 + wide))
    noisy = v + np.array([[0.1, 0, -0.1], [-0.1, 0, 0.1]])  # 0.04 in six cells, which both variances hold
    of_texts = np.var(noisy.mean(0), ddof=1) / 3
    freedom = (0.01 + of_texts) ** 2 / (0.01**2 / 1 + of_texts**2 / 2)
    wide = student.ppf(0.975, freedom) * np.sqrt(0.01 + of_texts - 0.04 / 6 / 2)
    assert crossed(noisy).interval == pytest.approx((0.3 - wide, 0.3 + wide))
    holes = np.full((4, 5), np.nan)
    holes[np.ix_([0, 2], [1, 2, 4])] = v
    assert crossed(holes) == crossed(v)
    assert (crossed(holes).n, crossed(holes).samples) == (3, 6)


def test_the_crossed_interval_without_enough_to_tell() -> None:
    assert crossed(np.full((2, 3), np.nan)) == Estimate(None, None, 0)
    assert crossed(np.full((3, 1), 0.5)) == Estimate(0.5, None, 1, 3)
    assert crossed(np.ones((3, 4))) == Estimate(1.0, (1.0, 1.0), 4, 12)
    one = np.random.default_rng(0).normal(size=(1, 9))
    assert crossed(one) == over_texts(one.T.tolist())


def estimate(low: float, high: float, n: int = 30) -> Estimate:
    return Estimate((low + high) / 2, (low, high), n)


@pytest.mark.parametrize(
    ("found", "upper", "grade"),
    [
        (estimate(-0.1, 0.1), estimate(0.8, 0.9), "PASSES"),
        (estimate(-0.1, 0.1), Estimate(None, None, 0), "PASSES"),
        (estimate(-0.1, 0.1), estimate(0.05, 0.9), "NOTHING TO LOSE"),
        (estimate(0.21, 0.9), estimate(0.8, 0.9), "FAILS"),
        (estimate(-0.9, -0.21), estimate(0.8, 0.9), "FAILS"),
        (estimate(0.1, 0.3), estimate(0.8, 0.9), "UNCLEAR"),
        (estimate(-0.3, 0.1), estimate(0.8, 0.9), "UNCLEAR"),
        (estimate(-0.1, 0.1, n=9), estimate(0.8, 0.9), "TOO FEW TEXTS"),
        (Estimate(0.0, None, 30), estimate(0.8, 0.9), "TOO FEW TEXTS"),
    ],
)
def test_grades(found: Estimate, upper: Estimate, grade: str) -> None:
    assert MARGIN == 0.2
    assert grade_of(found, upper) == grade


# ---- randomised weights ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fixed(Method):
    """Scores that no model changes: the ids, all the same, or noise that is another at each call."""

    source: ClassVar[str] = "test"
    needs: ClassVar[Access] = Access.OUTPUTS
    noise: bool = False
    even: bool = False

    @property
    def name(self) -> str:
        return "noise" if self.noise else "ids"

    def guarantees(self, model: Any) -> Guarantees:
        return Guarantees()

    def __call__(self, model: Any, batch: Any, target: Any) -> Scores:
        logits = model.logits(batch)
        CALLS.append((target.choices, logits.argmax(-1).tolist()))
        drawn = np.random.default_rng(len(CALLS)).normal(size=batch.input_ids.shape)
        scores = torch.as_tensor(drawn) if self.noise else batch.input_ids.double()
        scores = torch.ones_like(scores) if self.even else scores
        return Scores(scores[..., None].to(logits), None, None, logits, 1.0, 0.0)


CALLS: list[Any] = []
ASKED: dict[str, Method] = {
    "ids": Fixed(),
    "noise": Fixed(noise=True),
    "loo": pellucid.METHODS.get("leave_one_out"),
}
ASKED |= {"decompx": DecompX(), "random": Random(), "probe": pellucid.METHODS.get("pointwise_information")}


@pytest.fixture(autouse=True)
def _annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods' shapes are checked elsewhere."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@cache
def reader() -> tuple[pellucid.Model, Batch]:
    """A tiny BERT with the words of the planted models, and texts of random ones. [CLS], which the head reads, would be
    outstanding in every model."""
    tokenizer = CASES.get("additive").model().tokenizer
    model = pellucid.load(tiny.build("bert", vocab_size=len(tokenizer), seed=5), tokenizer)
    rng = np.random.default_rng(0)
    words = [w for w in VOCABULARY if not w.startswith("[")]
    return model, model.batch([" ".join(rng.choice(words, rng.integers(9, 14))) for _ in range(30)])


@cache
def randomised_once() -> Findings:
    model, batch = reader()
    CALLS.clear()
    return randomised_weights(model, batch, ASKED, seeds=12, stages=1, duplicates=2)


def test_what_does_not_read_the_model_fails_and_what_does_passes() -> None:
    found = {f.name: f for f in randomised_once()}
    assert {n: f.grade for n, f in found.items()} == {
        "ids": "FAILS",
        "noise": "NOTHING TO LOSE",
        "loo": "PASSES",
        "decompx": "PASSES",
        "random": "FAILS",
    }
    assert found["ids"].value == found["random"].value == pytest.approx(1)
    assert all(f.n == 30 and f.counts["seeds"] == 12 for f in found.values())
    assert all(f.null_interval[0] < 0 < f.null_interval[1] and abs(f.null) < 0.1 for f in found.values())
    assert "no number" not in str(found["loo"])
    left = randomised_once().origin["left_out"]
    assert list(left) == ["probe"]
    assert "fitted probe" in left["probe"]


def test_the_class_that_is_explained_stays_the_models_own() -> None:
    model, batch = reader()
    CALLS.clear()
    randomised_weights(model, batch, [Fixed()], seeds=2, stages=1, duplicates=0)
    own = model.logits(batch).argmax(-1).tolist()
    assert len(set(own)) > 1
    assert sorted(c for asked, _ in CALLS for c in asked) == sorted(own * 3)
    assert any(list(asked) != told for asked, told in CALLS), "the random models decide otherwise"


def test_stages_and_controls_are_told() -> None:
    """The numbers of a stage are those of calling the method on the copy; the controls, of calling it on twins."""
    model, batch = reader()[0], reader()[1].rows(range(10))
    found = randomised_weights(model, batch, ["decompx"], seeds=3)
    tables = found.tables
    names = [r["stage"] for r in tables["stages"] if (r["method"], r["of"]) == ("decompx", "scores")]
    assert names == STAGES["bert"]
    own = model.logits(batch).argmax(-1).tolist()
    before = pellucid.explain(model, batch, "decompx", own)
    for depth, (stage, other) in enumerate(cascade(model, batch.rows([0]), seed=2)):
        after = pellucid.explain(other, batch, "decompx", own)
        for i in (0, 9):
            rows = [r for r in tables["texts"] if (r["method"], r["stage"]) == ("decompx", stage)]
            (row,) = (r for r in rows if (r["seed"], r["text"], r["depth"]) == (2, i, depth))
            a, b = before[i].scores[1:-1], after[i].scores[1:-1]  # without [CLS] and [SEP]
            assert row["scores"] == pytest.approx(spearmanr(a, b).statistic)
            assert row["sizes"] == pytest.approx(spearmanr(abs(a), abs(b)).statistic)
    mean = np.mean([r["scores"] for r in tables["texts"] if (r["method"], r["stage"]) == ("decompx", "head")])
    assert next(r["rho"] for r in tables["stages"] if r["method"] == "decompx") == pytest.approx(mean)
    for stage, where in (("embeddings", ""), ("bert.encoder.layer.0", "embeddings kept")):
        mean = np.mean([r["scores"] for r in tables["texts"] if r["stage"] == stage])
        assert found.named("decompx", where).value == pytest.approx(mean)
    twins = []
    for i in range(len(batch)):
        d = near_duplicates(model, model.named(batch).rows([i]), 2)
        for j, b in enumerate([] if d.batch is None else pellucid.explain(model, d.batch, "decompx", own[i])):
            twins.append(spearmanr(before[i].scores[d.same[j]], b.scores[d.same[j]]).statistic)
    (control,) = (r for r in tables["controls"] if (r["method"], r["control"]) == ("decompx", "near-duplicates"))
    assert (control["rho"], control["samples"]) == (pytest.approx(np.mean(twins)), len(twins))
    few = randomised_weights(model, batch.rows(range(8)), [Lime(), Random()], seeds=1, stages=1, duplicates=0)
    seeded = {r["method"]: r["rho"] for r in few.tables["controls"] if r["control"] == "another seed"}
    assert list(seeded) == ["lime", "random"]
    assert seeded["lime"] > 0.6 > 0.3 > abs(seeded["random"])


def test_some_stages_and_progress() -> None:
    model, batch = reader()
    told: list[tuple[int, int]] = []
    some = randomised_weights(
        model, batch.rows([0, 1]), ["leave_one_out"], seeds=1, stages=2, duplicates=0,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [r["stage"] for r in some.tables["stages"] if r["of"] == "scores"] == ["head", "embeddings"]
    assert told == [(i, 5) for i in range(1, 6)]
    last = randomised_weights(model, batch.rows([0, 1]), ["leave_one_out"], seeds=1, stages=1, duplicates=0)
    assert [r["stage"] for r in last.tables["stages"] if r["of"] == "scores"] == ["embeddings"]
    assert last[0].value == some[0].value
    CALLS.clear()
    randomised_weights(model, batch.rows([0, 1]), [Fixed()], seeds=2, stages=2, duplicates=0)
    assert sum(len(asked) for asked, _ in CALLS) == (1 + 2 * 2) * 2, "what is not told is not measured"
    assert last[0].grade == "TOO FEW TEXTS"
    with pytest.raises(InputError, match="seen seeds=0, stages=None"):
        randomised_weights(model, batch, ["random"], seeds=0)
    with pytest.raises(InputError, match="seen seeds=5, stages=0"):
        randomised_weights(model, batch, ["random"], stages=0)


def test_methods_that_the_model_cannot_show_are_left_out() -> None:
    """Below ENCODER access; texts with too few tokens count for nothing."""
    model = pellucid.load(tiny.build("bert"), access="outputs")
    batch = tiny.batch(model, (12, 11, 2))
    found = randomised_weights(
        model, batch, ["rollout", "leave_one_out_pad", "gradient_x_input"], seeds=1, stages=1, duplicates=0
    )
    assert [f.name for f in found] == ["leave_one_out_pad"]
    assert found[0].n == 2
    assert "'rollout' needs ENCODER access" in found.origin["left_out"]["rollout"]
    assert "'gradient_x_input' needs GRADIENTS access" in found.origin["left_out"]["gradient_x_input"]


def test_methods_without_a_number_are_left_out_with_the_reason() -> None:
    """One that raises for every other model, and one whose scores are all the same."""
    model, batch = reader()
    asked: dict[str, Method] = {"fitted": PointwiseInformation(tiny.probe(model)), "even": Fixed(even=True)}
    found = randomised_weights(model, batch.rows(range(3)), asked, seeds=1, stages=1, duplicates=0)
    assert not len(found)
    assert "fitted to another model" in found.origin["left_out"]["fitted"]
    assert found.origin["left_out"]["even"] == "its scores are the same everywhere, or the texts too short"


def test_special_tokens_are_not_compared() -> None:
    """They score 0 in both, which would be agreement."""
    model = CASES.get("additive").model()
    words = [" ".join(w) for w in CASES.get("additive").texts(3)]
    found = randomised_weights(model, words, ["leave_one_out"], seeds=2, stages=1, duplicates=0)
    row = found.tables["texts"][0]
    *_, (_, other) = cascade(model, model.batch(words[:1]), 0)
    own = int(model.logits(model.batch(words[:1])).argmax())
    a, b = (pellucid.explain(m, words[0], "leave_one_out", own).scores[1:-1] for m in (model, other))
    assert row["scores"] == pytest.approx(spearmanr(a, b).statistic)


def test_saved_and_read_again(tmp_path: Any) -> None:
    found = randomised_once()
    paths = found.save(tmp_path)
    assert {p.name for p in paths} == {
        "sanity_weights.json", *(f"sanity_weights_{t}.parquet" for t in ("stages", "controls", "texts")),
    }  # fmt: skip
    again = pellucid.Findings.from_dict(found.to_dict())
    assert [f.to_dict() for f in again] == [f.to_dict() for f in found]


# ---- shuffled labels -------------------------------------------------------------------------------------------------


def labelled(n: int, seed: int) -> tuple[list[str], torch.Tensor]:
    """Texts of six words with weights and two fillers; class 1 where the weights add up to more than 0."""
    rng, told = np.random.default_rng(seed), []
    while len(told) < n:
        words = [*rng.choice(tuple(WEIGHTS), 6, replace=False), *rng.choice(FILLERS, 2, replace=False)]
        if abs(weights(words).sum()) > 0.2:
            told.append([str(w) for w in rng.permutation(words)])
    return [" ".join(t) for t in told], torch.tensor([int(weights(t).sum() > 0) for t in told])


@cache
def trained(shuffled: bool, seed: int = 0) -> pellucid.Model:
    """A one-layer BERT trained for some seconds on the labels, or on the same labels dealt out at random."""
    tokenizer = CASES.get("additive").model().tokenizer
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    hf = BertForSequenceClassification(config)
    texts, labels = labelled(300, seed=1)
    if shuffled:
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    rows = tokenizer(texts, return_tensors="pt")
    steps = torch.optim.AdamW(hf.parameters(), lr=4e-3)
    for _ in range(100):
        steps.zero_grad()
        hf(**rows, labels=labels).loss.backward()
        steps.step()
    return pellucid.load(hf.double().eval(), tokenizer)


def accuracy(model: pellucid.Model) -> float:
    """On texts that it has not seen, of the true labels."""
    texts, labels = labelled(100, seed=3)
    return float((model.logits(model.batch(texts)).argmax(-1) == labels).double().mean())


METHODS = ["leave_one_out", "decompx", "integrated_gradients_mask", KernelShap()]


def test_explanations_tell_shuffled_labels_from_true_ones() -> None:
    """Two trainings on the true labels are explained alike, one on shuffled labels otherwise; the random control is the
    same in both."""
    assert min(accuracy(trained(False)), accuracy(trained(False, seed=1))) > 0.95 > 0.75 > accuracy(trained(True))
    texts = labelled(30, seed=2)[0]
    alike = randomised_labels(trained(False), trained(False, seed=1), texts, [*METHODS, "random"])
    other = randomised_labels(trained(False), trained(True), texts, [*METHODS, "random"])
    for a, b in zip(alike[:4], other[:4], strict=True):
        assert a.value > 0.7 > 0.35 > b.value, (a.name, a.value, b.value)
        assert a.interval[0] > b.interval[1]
        assert (a.grade, a.audit, a.n) == ("FAILS", "sanity_labels", 30)
        assert "learnt nothing of the sort" in a.limits[1]
    assert alike[4].value == other[4].value == 1


def test_a_model_compared_with_itself_is_the_same() -> None:
    model, batch = reader()
    found = randomised_labels(model, model, batch, ["decompx", "saliency", "attention"], duplicates=0)
    assert [f.value for f in found] == [pytest.approx(1)] * 3
    assert {r["stage"] for r in found.tables["stages"]} == {model.id}


def test_models_that_cannot_be_compared() -> None:
    model, batch = reader()
    two = pellucid.load(tiny.build("bert", num_labels=2))
    with pytest.raises(InputError, match="has 3 and 'BertForSequenceClassification' 2"):
        randomised_labels(model, two, batch, ["random"])
    planted = CASES.get("additive").model()
    tokenizer = copy.deepcopy(planted.tokenizer)
    tokens = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tokens["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(tokens))
    other = pellucid.load(planted.hf, tokenizer)
    assert randomised_labels(planted, other, ["the fine film"] * 2, ["leave_one_out"], duplicates=0)[
        0
    ].value == pytest.approx(1)
    with pytest.raises(InputError, match="different ids"):
        randomised_labels(planted, other, ["the film was good"], ["random"])


def test_chance_is_that_of_two_random_orders() -> None:
    """About 0, with the spread of rank correlations over m tokens, 1 / sqrt(m - 1)."""
    rng = np.random.default_rng(0)
    draws = [sanity._chance(rng, 11) for _ in range(2000)]
    assert np.mean(draws) == pytest.approx(0, abs=0.03)
    assert np.std(draws) == pytest.approx(10**-0.5, rel=0.06)
    assert np.isnan(sanity._chance(rng, 2))
