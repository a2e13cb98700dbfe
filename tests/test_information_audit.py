"""The audit "information" on models whose answer is known, piece by piece by hand, and the method with its probe."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

import pellucid
from pellucid import Batch, Model, zoo
from pellucid.audits.information import InformationAudit, fit_probe, skew
from pellucid.audits.information.reading import of_texts
from pellucid.audits.information.slots import (
    Slots,
    by_difference,
    concordance,
    preservation_ratio,
    preserved,
    ranked,
    tau,
)
from pellucid.audits.information.tokens import read_pooled, resolved, seen, without_each
from pellucid.errors import AccessError, InputError
from pellucid.finding import Findings
from pellucid.methods import METHODS, PointwiseInformation, Probe
from pellucid.methods.pointwise import states
from pellucid.stats import kendall, kendalls

GOOD, BAD, FILLERS = 3, 4, range(5, 15)
LOUD = 40.0
"""Of the classifier: it decides for sure even where little attention is on the word that tells."""


def planted(slope: float, **fields: Any) -> Model:
    """A reader of single words: one of them tells the class, and its score is `slope`, that of fillers 0."""
    settings = {"vocab_size": 15, "encoder": "identity", "scorer": "linear", "embedding_size": 4, "num_labels": 2}
    hf = zoo.AttentionClassifierForSequenceClassification(zoo.AttentionClassifierConfig(**settings | fields)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        table = hf.get_input_embeddings().weight
        table.copy_(torch.randn(table.shape, generator=generator))
        table[:, :2] = 0
        table[GOOD, 0], table[BAD, 0] = 1.0, -1.0
        table[[GOOD, BAD], 1] = 1.0
        hf.word_pool.scorer.query.weight.copy_(torch.tensor([[0.0, slope, 0.0, 0.0]]))
        hf.classifier.weight.copy_(torch.tensor([[-LOUD, 0, 0, 0], [LOUD, 0, 0, 0]]))
        hf.classifier.bias.zero_()
    return pellucid.load(hf)


def texts(n: int, lengths: tuple[int, int] = (6, 14), seed: int = 0) -> Batch:
    """Fillers with one word that tells, half of them "good"."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        row = rng.choice(FILLERS, rng.integers(*lengths))
        row[rng.integers(len(row))] = (GOOD, BAD)[i % 2]
        rows.append(torch.tensor(row))
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Batch(ids, ids > 0)


def audited(model: Model, batch: Batch, **settings: Any) -> Findings:
    return pellucid.audit(model, batch, "information", **settings)


@pytest.fixture(scope="module")
def to_it() -> tuple[Findings, Batch]:
    """What is found where attention goes to the word that tells."""
    batch = texts(120)
    return audited(planted(2.0), batch, ranks=5), batch


def test_attention_that_goes_to_the_word_that_tells(to_it: tuple[Findings, Batch]) -> None:
    """log 2 nats at one word of each text and none at the others: all of it by hand."""
    found, batch = to_it
    lengths = batch.keep.sum(-1).double()
    shares = np.exp(2) / (np.exp(2) + lengths - 1)
    assert found.named("information", "states").value == pytest.approx(float((np.log(2) / lengths).mean()), abs=0.01)
    assert found.named("information", "states").grade == "DECODABLE"
    assert abs(found.named("information", "states").null) < 0.01
    lift = found.named("lift")
    assert lift.value == pytest.approx(float((np.log(2) * (shares - 1 / lengths)).mean()), abs=0.02)
    assert (lift.grade, lift.n) == ("GOES WHERE DECODABLE", 120)
    assert lift.null_interval[0] <= 0 <= lift.null_interval[1]
    assert found.named("largest_weight").value == pytest.approx(float(shares.mean()), rel=1e-6)
    assert found.named("tau_leave_one_out").value > found.named("tau_leave_one_out").null
    assert found.named("information_needed").value > 0.2
    units = [u for u in found.tables["units"] if u["name"] in ("[3]", "[4]")]
    assert len(units) == 120
    assert all(u["deleted"] == pytest.approx(0.5, abs=1e-6) for u in units if u["deleted"] is not None)
    assert np.mean([u["of_prediction"] for u in units]) == pytest.approx(np.log(2), abs=0.05)
    slots = found.tables["slots"]
    assert slots[0]["information"] == pytest.approx(np.log(2), abs=0.03)
    assert max(abs(s["information"]) for s in slots[1:]) < 0.1
    assert found.named("concordance").value >= 0.9  # pairs of fillers have equal attention and count half
    assert found.named("context_information").value == pytest.approx(np.log(2), abs=0.05)
    assert set(found.pictures) == {"slots", "concordance"}
    assert all(figure is not None for figure in found.figures().values())


def test_attention_that_goes_elsewhere() -> None:
    batch = texts(120)
    found = audited(planted(-2.0), batch, ranks=5, leave_one_out=0)
    assert found.named("lift").grade == "GOES ELSEWHERE"
    assert found.named("tau_information").value < 0
    assert found.named("tau_information").grade == "DOES NOT FOLLOW"
    assert "tau_leave_one_out" not in {f.name for f in found}


def test_even_attention_has_no_order() -> None:
    """Uniform weights: no lift, no tau, and the slots' order is that of the text."""
    found = audited(planted(0.0), texts(100), ranks=5, leave_one_out=0)
    assert found.named("lift").value == pytest.approx(0, abs=1e-9)
    assert found.named("entropy").value == pytest.approx(1)
    assert found.named("gini").value == pytest.approx(0, abs=1e-12)
    assert {f.name for f in found if f.grade == "NOT RESOLVABLE"} >= {"tau_information"}


def first(n: int, seed: int = 0, rare: int = 2) -> Batch:
    """Texts whose first word tells, one in `rare` of them "bad"."""
    rng = np.random.default_rng(seed)
    rows = [torch.tensor([BAD if i % rare == 0 else GOOD, *rng.choice(FILLERS, 7)]) for i in range(n)]
    return Batch(torch.stack(rows))


def test_even_attention_goes_nowhere_wherever_the_word_stands() -> None:
    """Neither the grade of the lift nor the slots, real or random, may follow the order of the text."""
    found = audited(planted(0.0), first(120), ranks=5, leave_one_out=0, families=("linear",))
    assert found.named("lift").grade == "NO DIFFERENCE"
    slots = found.tables["slots"]
    assert max(s["information"] for s in slots) < 0.3
    assert max(s["random"] for s in slots) < 0.3


def test_the_random_order_is_no_copy_of_the_real_one(to_it: tuple[Findings, Batch]) -> None:
    slots = to_it[0].tables["slots"]
    assert slots[0]["information"] - slots[0]["random"] > 0.4


def test_nothing_decodable_is_nothing_to_go_to(to_it: tuple[Findings, Batch]) -> None:
    """Whatever a lift or an order is, it is graded only where there is information."""
    rows = to_it[0].tables["texts"]
    for decodable, lift, order in (
        (True, "GOES WHERE DECODABLE", "FOLLOWS INFORMATION"),
        (False, "NOTHING FOUND", "NOT RESOLVABLE"),
    ):
        found = {f.name: f for f in of_texts(rows, decodable, ())}
        assert (found["lift"].grade, found["tau_information"].grade) == (lift, order)
    assert found["tau_information"].value is None


@pytest.mark.parametrize("rare", [4, 11])
def test_rare_classes_neither_crash_nor_explode(rare: int) -> None:
    """One in 4 or in 11 texts of a class: no probe is certain of what it has hardly seen."""
    for seed in range(3):
        found = audited(planted(2.0), first(110, seed, rare), ranks=3, leave_one_out=0, families=("linear",), seed=seed)
        told = found.named("information", "states")
        share = 1 / rare
        truth = -(share * np.log(share) + (1 - share) * np.log(1 - share)) / 8
        assert -0.05 < told.value < truth + 0.05
        assert abs(told.null) < 0.05


@pytest.mark.parametrize("folds", [2, 5])
def test_ten_texts_are_few_but_do(folds: int) -> None:
    for seed in range(4):
        found = audited(planted(2.0), texts(10, seed=seed), folds=folds, leave_one_out=0)
        assert found.named("information", "states").n == 10


def test_halves_of_texts_are_fitted_apart() -> None:
    """The two probes that set the ceiling have seen no text in common, and not the one that they read."""
    batch = planted(2.0).named(texts(40))
    read = seen(planted(2.0), batch, 0, None, 0, lambda done: None)
    told, _ = read_pooled(read, ("linear",), 5, 0)
    assert all(np.abs(a - b).max() > 0 for a, b in told.twice)
    assert [len(t) for t in told.told] == [len(t.alpha) for t in read]
    q, prior = np.exp(told.found.log_q), told.found.log_prior
    expected = (q * (told.found.log_q - prior)).sum(1)
    np.testing.assert_allclose(np.concatenate(told.told), expected)
    assert (np.concatenate(told.told) >= -1e-12).all()


def test_a_sorted_file_is_sampled_not_cut() -> None:
    batch = texts(100).rows([*range(0, 100, 2), *range(1, 100, 2)])
    found = audited(planted(2.0), batch, tokens=500, ranks=3, leave_one_out=10, families=("linear",))
    assert {r["prediction"] for r in found.tables["texts"]} == {"LABEL_0", "LABEL_1"}
    assert 40 < len(found.tables["texts"]) < 80
    deleted = [r for r in found.tables["texts"] if r.get("tau_erased") is not None]
    assert len({r["prediction"] for r in deleted}) == 2


def test_slots_say_whose_they_are() -> None:
    found = audited(planted(2.0), texts(150, (3, 9)), ranks=7, leave_one_out=0, families=("linear",))
    n = found.named("tau_slots").n
    assert 50 <= n < 150
    assert f"Slots are of the {n} of 150 texts that have at least" in " ".join(found.named("tau_slots").limits)


def test_slots_by_position() -> None:
    """Each slot is a place in the text, and holds the telling word in one of eight texts."""
    batch = texts(600, (8, 9))
    found = audited(planted(2.0), batch, slots="position", ranks=8, leave_one_out=0, families=("linear",))
    slots = found.tables["slots"]
    assert [s["position"] for s in slots] == list(range(1, 9))
    assert all(0 < s["information"] < 0.3 for s in slots)
    few = audited(planted(2.0), texts(100, (8, 9)), slots="position", leave_one_out=0, families=("linear",))
    assert "slots" not in few.tables
    assert any("There are no slots: these need 500 texts" in limit for limit in few[0].limits)


def test_sentences_are_units_where_they_have_the_weights() -> None:
    model = planted(1.0, hierarchical=True, sentence_end_ids=[14])
    rng = np.random.default_rng(0)
    rows = [
        torch.tensor([*rng.choice(FILLERS[:-1], 4), 14, *rng.choice(FILLERS[:-1], 3), 14, 3 + i % 2]) for i in range(40)
    ]
    batch = model.named(Batch(torch.stack(rows)))
    read = seen(model, batch, 0, None, 0, lambda done: None)
    assert [len(t.alpha) for t in read] == [3] * 40
    assert read[0].tokens == ((0, 1, 2, 3, 4), (5, 6, 7, 8), (9,))
    assert read[0].first is None
    np.testing.assert_allclose(read[0].alpha.sum(), 1)
    gone = without_each(model, batch.rows([0]), read[0].tokens)
    p = model.logits(batch.rows([0])).softmax(-1)[0]
    left = model.logits(Batch(batch.input_ids[:1, :9])).softmax(-1)[0]
    assert gone[2] == pytest.approx(float((p - left).abs().sum() / 2))
    found = audited(model, batch, ranks=3, families=("linear",))
    assert any("A unit is a sentence." in f.limits for f in found)
    scores = pellucid.explain(model, batch.rows([0]), PointwiseInformation(fit_probe(model, batch)), target=0)[0].scores
    assert scores.shape == (10,)


# --- an encoder ---


@pytest.mark.parametrize("family", ["bert", "modernbert_mean", "identifiable"])
def test_states_are_those_that_attention_reads(family: str) -> None:
    """Against Hugging Face's hidden states, whose rotary angles are in float32, and attentions."""
    model = pellucid.load(tiny.build(family))
    model.hf.set_attn_implementation("eager")
    batch = model.named(tiny.batch(model, (7, 5)))
    layer = len(model.require_net().layers) - 1
    read = states(model, batch, layer, every=True)
    out = model.hf(
        batch.input_ids, batch.keep.long(), output_hidden_states=True, output_attentions=True, return_dict=True
    )
    real = batch.keep
    assert len(read.layers) == layer + 1
    torch.testing.assert_close(read.h[real], out.hidden_states[layer][real], rtol=1e-5, atol=1e-6)
    if family == "modernbert_mean":
        rows = out.attentions[-1].mean(1) * real[..., None]
        torch.testing.assert_close(read.alpha, rows.sum(1) / real.sum(1, keepdim=True) * real, rtol=1e-5, atol=1e-6)
    if family == "bert":
        torch.testing.assert_close(read.alpha, out.attentions[-1].mean(1)[:, 0] * real, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(read.layers[0][real], out.hidden_states[0][real], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(read.alpha.sum(-1), torch.ones(2, dtype=read.alpha.dtype))


def test_an_encoder_layer_by_layer() -> None:
    model = pellucid.load(tiny.build("bert"))
    batch = tiny.batch(model, tuple(range(4, 12)) * 8, seed=3)
    before = {k: v.clone() for k, v in model.hf.state_dict().items()}
    seen_at: list[tuple[int, int]] = []
    found = audited(
        model, batch, families=("linear",), folds=3, leave_one_out=4, progress=lambda a, b: seen_at.append((a, b))
    )
    layers = [f.where for f in found if f.name == "information"]
    assert layers == ["layer 1", "layer 2", "layer 3"]
    assert all(f.null is not None for f in found if f.name in ("information", "lift", "tau_slots"))
    assert {"layers"} <= set(found.figures())
    assert seen_at == sorted(seen_at)
    assert seen_at[-1][0] == seen_at[-1][1]
    assert all(torch.equal(v, before[k]) for k, v in model.hf.state_dict().items())
    again = audited(model, batch, families=("linear",), folds=3, leave_one_out=4)
    assert [f.to_dict() for f in again] == [f.to_dict() for f in found]
    rows = found.tables["texts"]
    assert len(rows) == 64
    assert sum(r.get("tau_erased") is not None for r in rows) <= 4
    small = audited(model, batch, families=("linear",), folds=3, leave_one_out=0, tokens=300)
    assert small[0].n < 64
    assert any("beyond a sample of 300 tokens" in limit for limit in small[0].limits)


def test_deleting_each_unit_is_the_model_on_what_is_left() -> None:
    model = pellucid.load(tiny.build("bert"))
    text = tiny.batch(model, (6,))
    got = without_each(model, text, [(1,), (2, 3), (5,)])
    p = model.logits(text).softmax(-1)[0]
    for value, left in zip(got, ([0, 2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3, 4]), strict=True):
        q = model.logits(Batch(text.input_ids[:, left])).softmax(-1)[0]
        assert value == pytest.approx(float((p - q).abs().sum() / 2), abs=1e-9)


# --- slots and skew by hand ---


def test_slots_by_hand() -> None:
    attention = np.array([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1]])
    pointwise = np.array([[0.6, 0.2, 0.1], [0.4, 0.0, 0.3]])
    slots = Slots(attention, pointwise)
    assert slots.over(tau).value == pytest.approx(kendall([0.6, 0.25, 0.15], [0.5, 0.1, 0.2]))
    assert slots.over(preserved).value == pytest.approx(0.6 * 0.5 + 0.25 * 0.1 + 0.15 * 0.2)
    assert slots.over(preservation_ratio).value == pytest.approx((0.6 * 0.5 + 0.25 * 0.1 + 0.15 * 0.2) / 0.5)
    pairs = slots.pairs
    assert pairs.information.tolist() == pytest.approx([0.4, 0.3, -0.1])
    assert pairs.se.tolist() == pytest.approx([0.0, 0.2, 0.2])
    assert pairs.resolved.tolist() == [True, False, False]
    assert concordance(slots).value == 1.0
    rows = by_difference(pairs)
    assert sum(r["pairs"] for r in rows) == 3
    assert [r["agree"] for r in rows if r["resolved"]] == [1.0]
    orders = {tuple(ranked(np.array([0.2, 0.5, 0.3, 0.3]), 3, np.random.default_rng(i)).tolist()) for i in range(20)}
    assert orders == {(1, 2, 3), (1, 3, 2)}, "ties have no order of their own"


def test_an_order_that_is_there_is_found_and_one_that_is_not_is_not() -> None:
    rng = np.random.default_rng(0)
    attention = np.sort(rng.dirichlet(np.ones(6), 300), 1)[:, ::-1]
    clear = Slots(attention, np.linspace(0.5, 0, 6) + rng.normal(size=(300, 6)) * 0.1)
    none = Slots(attention, rng.normal(size=(300, 6)) * 0.1)
    assert clear.over(tau).value == 1.0
    assert clear.ceiling().value > 0.95
    assert none.ceiling().interval[0] < 0 < none.ceiling().interval[1]
    assert none.pairs.resolved.mean() < 0.3 < 0.9 < clear.pairs.resolved.mean()
    against = Slots(attention, np.linspace(0, 0.5, 6) + rng.normal(size=(300, 6)) * 0.1)
    assert concordance(against).value == 0.0
    assert concordance(Slots(attention, np.zeros((300, 6)))).value is None


@given(st.integers(0, 2**31), st.integers(2, 8), st.booleans())
def test_taus_of_many_rows_are_those_of_each(seed: int, k: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 3, (4, k)).astype(float) if ties else rng.normal(size=(4, k)) for _ in range(2))
    np.testing.assert_allclose(kendalls(a, b), [kendall(x, y) for x, y in zip(a, b, strict=True)], atol=1e-12)


def test_skew_by_hand() -> None:
    alpha = np.array([0.7, 0.2, 0.1, 0.0])
    assert skew.entropy(alpha) == pytest.approx(
        -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1)) / np.log(4)
    )
    assert skew.gini(alpha) == pytest.approx(np.abs(alpha[:, None] - alpha).sum() / (2 * 4))
    assert skew.largest(alpha) == 0.7
    assert skew.top_mass(alpha) == pytest.approx(1.0)
    s = np.array([1.0, -0.5, 0.2])
    at = [np.exp(s / t) / np.exp(s / t).sum() for t in (1.0, 0.5)]
    np.testing.assert_allclose(skew.tempered(at[0], 0.5), at[1])
    draws = skew.noisy(at[1], 0.5, np.random.default_rng(0))
    noise = np.random.default_rng(0).gumbel(size=(skew.DRAWS, 3))
    whole = np.exp((s + noise) / 0.5)
    np.testing.assert_allclose(draws, whole / whole.sum(1, keepdims=True))


def test_noise_alone_is_skewed() -> None:
    """The notes' figures for even scores over 20 units: largest weight .41 and .67 at tau 1 and .5."""
    even = np.full(20, 0.05)
    rng = np.random.default_rng(0)
    for temperature, largest, entropy in ((1.0, 0.41, 0.67), (0.5, 0.67, 0.34)):
        draws = np.concatenate([skew.noisy(even, temperature, rng) for _ in range(30)])
        assert skew.largest(draws).mean() == pytest.approx(largest, abs=0.02)
        assert skew.entropy(draws).mean() == pytest.approx(entropy, abs=0.02)


def test_gumbel_models_are_told_with_and_without_their_noise() -> None:
    batch = texts(60)
    where = {f.where for f in audited(planted(2.0, normaliser="gumbel", tau=0.5), batch, ranks=3, leave_one_out=0)}
    assert {"with the noise of training", "scores at half the temperature"} <= where
    plain = {f.where for f in audited(planted(2.0, normaliser="sparsemax"), batch, ranks=3, leave_one_out=0)}
    assert not {"with the noise of training", "scores at half the temperature"} & plain


def test_a_text_is_resolved_if_its_states_differ_more_than_probes_do() -> None:
    told = np.array([0.0, 0.5, 0.1])
    assert resolved(told, (told + 0.01, told - 0.01))
    assert not resolved(told, (told + 0.5, told - 0.5))
    assert not resolved(told, (np.zeros(3), np.zeros(3))), "two priors agree about nothing"


# --- the method ---


def test_scores_are_what_the_probe_says() -> None:
    model = planted(2.0)
    batch = model.named(texts(80))
    probe = fit_probe(model, batch)
    assert probe.about["texts"] == 80
    a = pellucid.explain(model, batch.rows([0]), PointwiseInformation(probe), target="all")[0]
    h = model.word_embeddings(batch.input_ids[:1])[0, batch.keep[0]]
    np.testing.assert_allclose(a.scores, (probe.log_probabilities(h) - probe.log_prior).numpy())
    told = {GOOD: [], BAD: []}
    for a, ids in zip(
        pellucid.explain(model, batch, PointwiseInformation(probe), target=1), batch.input_ids, strict=True
    ):
        for token, score in zip(ids.tolist(), a.scores, strict=False):
            if token in told:
                told[token].append(score)
    assert np.mean(told[GOOD]) == pytest.approx(np.log(2), abs=0.05)
    assert np.mean(told[BAD]) < -1
    assert a.explained is None
    assert a.unit == "nat"


def test_special_tokens_get_nothing() -> None:
    model = pellucid.load(pellucid.DEMO)
    words = ["A warm, funny film.", "A dull, empty plot.", "It is a joy.", "It is a mess.", "Nothing works here."] * 4
    probe = fit_probe(model, words, families=("linear",))
    a = pellucid.explain(model, "A warm, funny film.", PointwiseInformation(probe))
    assert [s == 0 for s in a.scores] == [t.special for t in a.tokens]


def test_a_probe_is_saved_and_read(tmp_path: Any) -> None:
    model = planted(2.0)
    batch = model.named(texts(60))
    probe = fit_probe(model, batch)
    probe.save(tmp_path / "probe.safetensors")
    read = Probe.load(tmp_path / "probe.safetensors")
    h = torch.randn(5, 4, dtype=torch.float64)
    assert torch.equal(read.log_probabilities(h), probe.log_probabilities(h))
    assert read.about == probe.about
    one, other = (
        pellucid.explain(model, batch.rows([0]), PointwiseInformation(p))[0]
        for p in (probe, str(tmp_path / "probe.safetensors"))
    )
    np.testing.assert_array_equal(one.scores, other.scores)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"no\.safetensors is not a saved probe"):
        Probe.load(tmp_path / "no.safetensors")
    with pytest.raises(InputError, match=r"There is no file .*none\.safetensors"):
        Probe.load(tmp_path / "none.safetensors")


def test_the_audit_saves_its_probe(to_it: tuple[Findings, Batch], tmp_path: Any) -> None:
    found, _ = to_it
    files = {p.name for p in found.save(tmp_path)}
    assert {"information.json", "information_units.parquet"} <= files
    assert {"information_slots.svg", "information_probe.safetensors"} <= files
    assert Probe.load(tmp_path / "information_probe.safetensors").about["texts"] == 120


# --- what is refused ---


def of(problem: str, labels: int) -> Model:
    hf = tiny.build("bert", num_labels=labels, problem_type=problem)
    return pellucid.load(hf)


REFUSED: Mapping[str, tuple[Any, str]] = {
    "few texts": (
        lambda: audited(planted(1.0), texts(8)), "5 folds need at least 10 texts of two or more tokens; seen 8"),
    "one class": (
        lambda: audited(planted(1.0), texts(40).rows(range(0, 40, 2))), "One class is predicted throughout"),
    "regression": (lambda: audited(of("regression", 1), texts(20)), r"regression.*continuous function is infinite"),
    "labels": (
        lambda: audited(of("multi_label_classification", 3), texts(20)), "3 labels of which several may hold"),
    "ranks": (lambda: InformationAudit(ranks=2), "ranks of at least 3"),
    "slots": (lambda: audited(planted(1.0), texts(20), slots="word"), "slots is rank or position; seen 'word'"),
    "no family": (lambda: InformationAudit(families=()), "at least one of families"),
    "layer": (lambda: audited(planted(1.0), texts(20), layer=3), "no layer=3"),
    "no probe": (lambda: pellucid.explain(planted(1.0), texts(2), "pointwise_information"), "none was given: fit one"),
    "another model": (
        lambda: pellucid.explain(planted(1.0), texts(2), PointwiseInformation(fit_probe(planted(2.0), texts(40)))),
        "fitted to another model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_use_is_refused_in_a_sentence(name: str) -> None:
    call, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        call()


def test_less_access_is_refused() -> None:
    model = pellucid.load(tiny.build("bert"), access="gradients")
    for call in (lambda: audited(model, texts(20)), lambda: fit_probe(model, texts(20))):
        with pytest.raises(AccessError, match="needs READOUT access"):
            call()
    assert "pointwise_information" in METHODS.names()


def test_a_head_with_one_logit_is_told_of_its_class() -> None:
    hf = tiny.build("bert", num_labels=1, problem_type="multi_label_classification")
    model = pellucid.load(hf)
    batch = model.named(tiny.batch(model, (5, 4)))
    probe = tiny.probe(model)
    two = Probe(probe.center, probe.spread, (probe.layers[0], (torch.ones(2, 5).double(), torch.tensor([0.0, 1.0]))),
                1.0, torch.tensor([0.3, 0.7]).double().log(), probe.about)  # fmt: skip
    a = pellucid.explain(model, batch, PointwiseInformation(two), target=0)[0]
    h = states(model, batch, 2).h[0, : len(a.tokens)]
    expected = (two.log_probabilities(h) - two.log_prior)[:, 1].numpy()
    np.testing.assert_allclose(a.scores[1:], expected[1:])


def test_fitting_works_in_whatever_mode_the_caller_is_in() -> None:
    model, batch = planted(2.0), texts(40)
    plain = fit_probe(model, batch)
    with torch.no_grad():
        assert fit_probe(model, batch).about == plain.about
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert fit_probe(model, batch).about["information"] == pytest.approx(plain.about["information"], abs=0.02)
    long = pellucid.load(tiny.build("bert", max_position_embeddings=12))
    with pytest.raises(InputError, match=r"A text has 14 tokens.*reads at most 12"):
        fit_probe(long, tiny.batch(long, (14,) * 20))
