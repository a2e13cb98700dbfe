"""Metrics: hand-computed values, and curves against plain loops over the Hugging Face model that share no code."""

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

import pellucid
from pellucid import Batch, Token
from pellucid.encoder import forward
from pellucid.errors import AccessError, InputError, MissingExtra
from pellucid.metrics import (
    CONTROLS,
    METRICS,
    OPERATORS,
    SHARES,
    Annotated,
    Measured,
    Pair,
    annotate,
    check_operator,
    erased_logits,
    longest_words,
    marked,
    measure,
    near_duplicates,
    normalised,
    random_scores,
    ranked,
)
from pellucid.metrics.stability import TRIED

CLS, SEP, MASK = 2, 4, 3
TOKENS = (7, 31, 8, 52, 19, 8, 44, 23, 11, 36, 5, 27)
FAMILIES = ("bert", "roberta", "modernbert_mean")


@cache
def hugging_face(family: str, **over: Any) -> Any:
    return tiny.build(family, **over)


@cache
def opened(family: str, access: Any = None, **over: Any) -> pellucid.Model:
    """A tiny model in float64 with the least of a tokenizer."""
    hf = hugging_face(family, **over)
    pad = hf.config.pad_token_id
    pieces = SimpleNamespace(
        mask_token_id=MASK,
        pad_token_id=0 if pad is None else pad,
        unk_token_id=None,
        all_special_ids=[0, 1, CLS, SEP],
        convert_ids_to_tokens=lambda ids: [f"t{i}" for i in ids],
    )
    return pellucid.load(hf, tokenizer=pieces, access=access)


def text(ids: tuple[int, ...] = TOKENS, special: bool = True, **more: Any) -> Batch:
    """One text between [CLS] and [SEP]."""
    return Batch(torch.tensor([[CLS, *ids, SEP] if special else [*ids]]), **more)


def drawn(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def some(k: int, n: int, seed: int = 0) -> Tensor:
    """What to erase at random from all but the first and last place, and the row that erases nothing."""
    gone = torch.rand(k, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    gone[:, [0, -1]] = False
    gone[0] = False
    return gone


def close(a: Any, b: Any, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=atol)


def plain(hf: Any, ids: list[int], gone: list[bool], operator: str) -> list[float]:
    """Logits of one text without some tokens, by one call of the Hugging Face model as its authors mean it."""
    pad, inputs = hf.config.pad_token_id, torch.tensor([ids])
    with torch.no_grad():
        if operator == "delete":
            inputs = torch.tensor([[i for i, g in zip(ids, gone, strict=True) if not g]])
        elif operator in ("mask", "pad"):
            stand_in = MASK if operator == "mask" else 0 if pad is None else pad
            inputs = torch.tensor([[stand_in if g else i for i, g in zip(ids, gone, strict=True)]])
        if operator == "attention_mask":
            first = pad + 1 if hf.config.model_type == "roberta" else 0
            places = first + torch.arange(len(ids))[None]
            return hf(inputs, attention_mask=torch.tensor([[int(not g) for g in gone]]), position_ids=places).logits[0]
        if operator == "mean_embedding":
            table = hf.get_input_embeddings().weight
            words = [table.mean(0) if g else table[i] for i, g in zip(ids, gone, strict=True)]
            return hf(inputs_embeds=torch.stack(words)[None]).logits[0]
        return hf(inputs).logits[0]


# --- operators ---


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_erased_logits_are_those_of_plain_calls(family: str, operator: Any) -> None:
    """For RoBERTa with positions given, so that none may move under the attention mask."""
    model, whole = opened(family), text()
    gone = some(9, whole.input_ids.shape[1])
    gone[1, 1:-1] = True  # nothing but the special tokens is left
    found = erased_logits(model, whole, gone, operator)
    ids = whole.input_ids[0].tolist()
    expected = torch.stack([plain(hugging_face(family), ids, row.tolist(), operator) for row in gone])
    close(found, expected, 1e-9 if family != "modernbert_mean" else 1e-6)
    close(found[0], model.logits(whole)[0])
    assert (found[1] - found[0]).abs().max() > 1e-3


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("access", [None, "gradients"])
def test_the_budget_of_a_batch_changes_nothing(access: Any, operator: Any) -> None:
    """One copy at a time, a few, or all."""
    model, whole = opened("roberta", access), text()
    gone = some(12, whole.input_ids.shape[1])
    one, few, all_ = (erased_logits(model, whole, gone, operator, tokens) for tokens in (1, 40, 4096))
    close(one, few, 1e-12)
    close(one, all_, 1e-12)
    close(one, erased_logits(opened("roberta"), whole, gone, operator))


@pytest.mark.parametrize("operator", OPERATORS)
def test_token_types_stay_with_their_tokens(operator: Any) -> None:
    model, whole = opened("bert"), text()
    types = (torch.arange(whole.input_ids.shape[1]) > 6).long()[None]
    gone = some(4, types.shape[1])
    found = erased_logits(model, replace(whole, token_type_ids=types), gone, operator)
    ids, last = whole.input_ids, gone[-1]
    assert (found[0] - erased_logits(model, whole, gone, operator)[0]).abs().max() > 1e-3
    if operator == "delete":
        with torch.no_grad():
            expected = hugging_face("bert")(ids[:, ~last], token_type_ids=types[:, ~last]).logits[0]
        close(found[-1], expected)


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Shapes (copies, tokens) of what our network was run on."""
    seen: list[tuple[int, int]] = []
    run = forward.encode

    def counted(ops: Any, net: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append((x.shape[0], x.shape[1]))
        return run(ops, net, x, *args, **kwargs)

    monkeypatch.setattr(forward, "encode", counted)
    return seen


@pytest.mark.parametrize("operator", OPERATORS)
def test_equal_rows_run_once_and_batches_keep_to_the_budget(operator: Any, spent: list[tuple[int, int]]) -> None:
    model, whole = opened("bert"), text()
    gone = some(8, whole.input_ids.shape[1])
    twice = torch.cat([gone, gone.flip(0)])
    found = erased_logits(model, whole, twice, operator, tokens=50)
    assert sum(copies for copies, _ in spent) == len({tuple(row.tolist()) for row in gone})
    assert all(copies * n <= 50 for copies, n in spent)
    assert torch.equal(found[:8], found[8:].flip(0))


def test_nothing_to_erase_and_no_copies() -> None:
    model, whole = opened("bert"), text()
    n = whole.input_ids.shape[1]
    assert erased_logits(model, whole, torch.zeros(0, n, dtype=torch.bool), "mask").shape == (0, 3)
    same = erased_logits(model, whole, torch.zeros(2, n, dtype=torch.bool), "delete")
    close(same, model.logits(whole).expand(2, -1))


def test_refusals_of_operators() -> None:
    model, whole = opened("bert"), text()
    n = whole.input_ids.shape[1]
    none = torch.zeros(1, n, dtype=torch.bool)
    with pytest.raises(InputError, match=r"no operator 'masks'\. Did you mean 'mask'\?"):
        check_operator(model, "masks")
    with pytest.raises(InputError, match=r"one text without padding; seen 2 texts.*batch\.rows"):
        erased_logits(model, tiny.batch(model, (9, 5)), none, "mask")
    with pytest.raises(InputError, match=rf"bool \[copies, {n}\].*\[1, {n + 1}\]"):
        erased_logits(model, whole, torch.zeros(1, n + 1, dtype=torch.bool), "mask")
    for operator in ("delete", "attention_mask"):
        with pytest.raises(InputError, match=f"would take all {n} tokens"):
            erased_logits(model, whole, ~none, operator)
    assert erased_logits(model, whole, ~none, "mask").isfinite().all()
    with pytest.raises(InputError, match="puts the mask token"):
        check_operator(pellucid.load(hugging_face("bert")), "mask")
    with pytest.raises(AccessError, match="'mean_embedding' needs GRADIENTS"):
        check_operator(opened("bert", "outputs"), "mean_embedding")


# --- measuring ---


def loop_aopc(hf: Any, ids: list[int], scores: list[float], operator: str, least: bool) -> float:
    """DecompX's protocol, token by token and share by share; the last and first token are special."""
    whole = torch.softmax(plain(hf, ids, [False] * len(ids), "mask"), 0)
    predicted = int(whole.argmax())
    places = sorted(range(1, len(ids) - 1), key=lambda i: scores[i], reverse=not least)
    drops = []
    for percent in (10, 20, 30, 40, 50, 60, 70, 80, 90):
        out = places[: math.floor(percent * len(places) / 100)]
        left = torch.softmax(plain(hf, ids, [i in out for i in range(len(ids))], operator), 0)
        drops.append(float(whole[predicted] - left[predicted]))
    return sum(drops) / 9


@pytest.mark.parametrize("operator", ["mask", "delete"])
@pytest.mark.parametrize("length", [3, 10, 12])
def test_aopc_is_that_of_a_plain_loop(operator: Any, length: int) -> None:
    model, whole = opened("bert"), text(TOKENS[:length])
    ids, scores = whole.input_ids[0].tolist(), drawn(length + 2)
    found, _ = measure(model, whole, {"x": scores}, operator)
    for name, least in (("aopc", False), ("aopc_least", True)):
        expected = loop_aopc(hugging_face("bert"), ids, scores.tolist(), operator, least)
        close(METRICS.get(name)(found["x"]), expected)
    assert METRICS.get("aopc")(found["x"]) != pytest.approx(METRICS.get("aopc_least")(found["x"]), abs=1e-4)


@pytest.mark.parametrize("operator", OPERATORS)
def test_measured_curves_and_drops(operator: Any) -> None:
    """Each point of both curves and each drop against a plain call."""
    model, whole = opened("roberta"), text()
    ids, scores = whole.input_ids[0].tolist(), drawn(14, 3)
    scores[0] = 99.0  # special tokens are not ranked
    m = measure(model, whole, {"x": scores}, operator)[0]["x"]
    best = sorted(range(1, 13), key=lambda i: -scores[i])
    assert m.removed.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 12]

    def p(out: list[int]) -> Tensor:
        return plain(hugging_face("roberta"), ids, [i in out for i in range(14)], operator).softmax(-1)

    first = p([])
    assert m.predicted == int(first.argmax())
    for k, most, least in zip(m.removed, m.most, m.least, strict=True):
        close(most, p(best[:k]))
        close(least, p(best[::-1][:k]))
    assert np.isnan(m.loo[[0, -1]]).all()
    c = m.predicted
    for i in range(1, 13):
        left = p([i])
        close(m.loo[i], (first[c] / (1 - first[c])).log() - (left[c] / (1 - left[c])).log(), 1e-8)
        assert (m.loo[i] > 0) == (left[c] < first[c])


def test_forwards_are_shared_and_counted(spent: list[tuple[int, int]]) -> None:
    """Rankings that agree cost nothing more; the whole text, the empty one and single tokens are run once."""
    model, whole, n = opened("bert"), text(TOKENS[:10]), 12
    scores = drawn(n)
    spent.clear()  # opening it took passes too
    found, forwards = measure(model, whole, {"a": scores}, "mask")
    assert forwards == sum(copies for copies, _ in spent)
    # whole, empty, ten singles; a curve asks for one single, and eight sets more from each end
    assert forwards == 2 + 10 + 2 * 8
    again, more = measure(model, whole, {"a": scores, "b": scores * 2, "c": scores}, "mask")
    assert more == forwards
    for name in "abc":
        close(again[name].most, found["a"].most, 1e-12)
        close(again[name].least, found["a"].least, 1e-12)
    _, reverse = measure(model, whole, {"a": scores, "b": -scores}, "mask")
    assert reverse == forwards
    _, without = measure(model, whole, {"a": scores}, "mask", leave_one_out=False)
    assert without == 2 + 2 * 9
    _, two = measure(model, whole, {"a": scores, "b": drawn(n, 7)}, "mask", tokens=1)
    assert forwards < two <= 2 + 10 + 4 * 8
    assert measure(model, whole, {}, "mask") == ({}, 11)
    half, ten = measure(model, whole, {"a": scores}, "mask", leave_one_out=False, least=False)
    assert ten == 11
    close(half["a"].most, found["a"].most, 1e-12)
    assert np.isnan(half["a"].least).all()


def test_metrics_that_read_the_other_curves_say_so() -> None:
    """What a metric does not ask to have measured, it does not read."""
    scores = drawn(14)
    for metric in (m for m in METRICS if m.kind == "faithfulness"):
        full, few = (
            measure(opened("bert"), text(labels=(1,)), {"a": scores}, "mask", (), *asked)[0]["a"]
            for asked in ((True, True), (metric.leave_one_out, metric.least))
        )
        assert math.isfinite(metric(full))
        assert metric(few) == pytest.approx(metric(full), abs=1e-12)


def test_batches_of_one_and_of_many_measure_the_same() -> None:
    model, whole = opened("bert"), text()
    rankings = {"a": drawn(14), "b": drawn(14, 1)}
    for operator in OPERATORS:
        one, few = (measure(model, whole, rankings, operator, tokens=t) for t in (1, 4096))
        assert one[1] == few[1]
        for name in rankings:
            for field in ("most", "least", "loo"):
                close(getattr(one[0][name], field), getattr(few[0][name], field), 1e-10)
            for metric in METRICS:
                if metric.kind == "faithfulness":
                    np.testing.assert_allclose(metric(one[0][name]), metric(few[0][name]), atol=1e-10)


def test_without_special_tokens_nothing_is_left_at_the_end() -> None:
    """The last point is unknown, not made up; metrics that do not need it still answer."""
    model, whole = opened("bert"), text(TOKENS[:10], special=False)
    for operator in ("delete", "attention_mask"):
        m = measure(model, whole, {"x": drawn(10)}, operator)[0]["x"]
        assert m.ordinary.all()
        assert np.isnan(m.most[-1]).all()
        assert np.isfinite(m.most[:-1]).all()
        assert np.isfinite(m.loo).all()
        values = {metric.name: metric(m) for metric in METRICS if metric.kind == "faithfulness"}
        unknown = {name for name, v in values.items() if math.isnan(v)}
        assert unknown == {"deletion_area", "insertion_area", "accuracy_masked", "accuracy_masked_least"}
    alone = measure(model, text((7,), special=False), {"x": drawn(1)}, "delete")[0]["x"]
    assert np.isnan(alone.loo).all()
    assert math.isnan(METRICS.get("polarity_violations")(alone))
    assert math.isnan(METRICS.get("monotonicity")(alone))
    assert METRICS.get("decision_flip")(alone) == 1.0
    assert np.isfinite(measure(model, whole, {"x": drawn(10)}, "mask")[0]["x"].most).all()


def test_ties_fall_at_random_by_the_text() -> None:
    flat, ids = np.zeros(12), np.array(TOKENS)
    order = ranked(flat, ids)
    assert sorted(order) == list(range(12))
    assert order.tolist() == ranked(flat, ids).tolist()
    assert order.tolist() not in (list(range(12)), list(range(11, -1, -1)))
    assert order.tolist() != ranked(flat, ids + 1).tolist()
    tied = np.array([0.0, 2.0, 0.0, 2.0, 1.0, *[-1.0] * 7])
    assert set(ranked(tied, ids)[:2]) == {1, 3}
    assert ranked(tied, ids)[2] == 4
    firsts = {int(ranked(flat, np.array([seed]))[0]) for seed in range(200)}
    assert firsts == set(range(12))


def test_gold_labels() -> None:
    model = opened("bert")
    for label in (2, "LABEL_2"):
        m = measure(model, text(labels=(label,)), {"x": drawn(14)}, "mask")[0]["x"]
        assert m.gold == 2
        expected = np.mean([m.most[i].argmax() == 2 for i in range(1, 10)])
        close(METRICS.get("accuracy_masked")(m), expected)
    with pytest.raises(InputError, match="Class 7"):
        measure(model, text(labels=(7,)), {"x": drawn(14)}, "mask")
    assert measure(model, text(), {"x": drawn(14)}, "mask")[0]["x"].gold is None


def test_heads_of_one_logit_and_of_many_labels() -> None:
    """A sigmoid per label: the log-odds are the logits, and the decision of a single one is whether it is above 1/2."""
    for labels in (1, 3):
        model = opened("bert", num_labels=labels, problem_type="multi_label_classification")
        whole = text(labels=(1,))
        m = measure(model, whole, {"x": drawn(14)}, "mask")[0]["x"]
        logits = model.logits(whole)[0]
        assert m.predicted == int(logits.argmax())
        close(m.most[0], logits.sigmoid())
        gone = torch.zeros(1, 14, dtype=torch.bool)
        gone[0, 3] = True
        close(m.loo[3], (logits - erased_logits(model, whole, gone, "mask")[0])[m.predicted])
        assert m.gold == 1
        if labels == 1:
            close(METRICS.get("accuracy_masked")(m), np.mean(m.most[1:10, 0] >= 0.5))


def test_refusals_of_measuring() -> None:
    model, whole = opened("bert"), text()
    good = {"x": drawn(14)}
    with pytest.raises(InputError, match=r"'x' ranks a text of 14 tokens with scores of shape \[13\]"):
        measure(model, whole, {"x": drawn(13)}, "mask")
    with pytest.raises(InputError, match="'x' has 1 scores that are not finite among 14"):
        measure(model, whole, {"x": np.where(np.arange(14) == 3, np.nan, 1.0)}, "mask")
    with pytest.raises(InputError, match=r"Unsigned are \['y'\]"):
        measure(model, whole, good, "mask", unsigned=["y"])
    with pytest.raises(InputError, match=r"one text without padding; seen 2 texts"):
        measure(model, tiny.batch(model, (9, 5)), good, "mask")
    with pytest.raises(InputError, match="2 tokens, all of them special"):
        measure(model, text(()), {"x": drawn(2)}, "mask")
    with pytest.raises(InputError, match="regression model"):
        measure(opened("bert", num_labels=1), whole, good, "mask")


# --- faithfulness, by hand ---

P = [0.9, 0.8, 0.6, 0.7, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.05]
Q = [0.9, 0.9, 0.92, 0.88, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.05]


def by_hand(p: list[float] = P, q: list[float] = Q, n: int = 10, **more: Any) -> Measured:
    """Curves of class 1 of two, for n ordinary tokens between two special ones."""
    ordinary = np.array([False, *[True] * n, False])
    fields = {
        "operator": "mask",
        "scores": np.arange(n + 2, dtype=float)[::-1].copy(),
        "ordinary": ordinary,
        "removed": np.array([n * k // 10 for k in range(11)]),
        "predicted": 1,
        "most": np.stack([1 - np.array(p), p], -1),
        "least": np.stack([1 - np.array(q), q], -1),
        "loo": np.where(ordinary, 1.0, np.nan),
    }
    return Measured(**{**fields, **more})


HAND = {
    "aopc": 0.9 - (0.8 + 0.6 + 0.7 + 0.4 + 0.3 + 0.3 + 0.2 + 0.2 + 0.1) / 9,
    "aopc_least": 0.9 - (0.9 + 0.92 + 0.88 + 0.9 + 0.8 + 0.7 + 0.6 + 0.5 + 0.3) / 9,
    "comprehensiveness": 0.9 - (0.8 + 0.6 + 0.3) / 3,
    "sufficiency": 0.9 - (0.3 + 0.5 + 0.8) / 3,  # 10, 20 and 50 % left: 90, 80 and 50 % gone
    "accuracy_masked": 3 / 9,
    "accuracy_masked_least": 7 / 9,  # at exactly one half the first of two equal classes, not the gold one, is chosen
    "decision_flip": 0.4,
    "deletion_area": 0.1 * (0.9 / 2 + 0.8 + 0.6 + 0.7 + 0.4 + 0.3 + 0.3 + 0.2 + 0.2 + 0.1 + 0.05 / 2),
    "insertion_area": 0.1 * (0.05 / 2 + 0.3 + 0.5 + 0.6 + 0.7 + 0.8 + 0.9 + 0.88 + 0.92 + 0.9 + 0.9 / 2),
    "monotonicity": 9 / 10,
}


@pytest.mark.parametrize("name", HAND)
def test_faithfulness_by_hand(name: str) -> None:
    close(METRICS.get(name)(by_hand(gold=1)), HAND[name], 1e-12)


def test_a_text_of_three_tokens() -> None:
    """Floors: 0 0 0 0 1 1 1 2 2 2 3 are gone; areas run over what is gone, flips tell it exactly."""
    curve = [0.9] * 4 + [0.6] * 3 + [0.3] * 3 + [0.1]
    m = by_hand(curve, curve, 3)
    assert m.removed.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    close(METRICS.get("deletion_area")(m), (0.9 / 2 + 0.6 + 0.3 + 0.1 / 2) / 3, 1e-12)
    close(METRICS.get("decision_flip")(m), 2 / 3, 1e-12)
    assert METRICS.get("monotonicity")(m) == 1.0
    up = by_hand([0.9] * 4 + [0.95] * 3 + [0.3] * 3 + [0.1], curve, 3)
    close(METRICS.get("monotonicity")(up), 2 / 3, 1e-12)
    assert METRICS.get("decision_flip")(by_hand([0.9] * 11)) == 1.0


def test_drops_of_single_tokens_by_hand() -> None:
    scores = np.array([9.0, 3.0, 1.0, -2.0, 0.0, 9.0])
    loo = np.array([np.nan, 2.0, -1.0, -3.0, 1.0, np.nan])
    m = by_hand(n=4, scores=scores, loo=loo)
    # pairs of (3, 1, -2, 0) and (2, -1, -3, 1): all agree but (1, 0) against (-1, 1)
    close(METRICS.get("leave_one_out_tau")(m), (5 - 1) / 6, 1e-12)
    close(METRICS.get("polarity_violations")(m), 1 / 4, 1e-12)
    assert math.isnan(METRICS.get("polarity_violations")(replace(m, signed=False)))
    assert METRICS.get("leave_one_out_tau")(replace(m, signed=False)) == METRICS.get("leave_one_out_tau")(m)
    unmeasured = replace(m, loo=np.full(6, np.nan))
    for name in ("leave_one_out_tau", "polarity_violations"):
        assert METRICS.get(name).leave_one_out
        assert math.isnan(METRICS.get(name)(unmeasured))
    assert math.isnan(METRICS.get("leave_one_out_tau")(replace(m, scores=np.ones(6))))
    assert math.isnan(METRICS.get("accuracy_masked")(m))


def test_unsigned_methods_are_told_by_name() -> None:
    rankings = {"a": drawn(14), "b": abs(drawn(14))}
    found = measure(opened("bert"), text(), rankings, "mask", unsigned=["b"])[0]
    assert (found["a"].signed, found["b"].signed) == (True, False)


def test_normalised() -> None:
    value, random, greedy = [0.5, 0.7, 0.3], [0.1, 0.2, 0.0], [0.9, 0.8, 0.7]
    found = normalised(value, random, greedy)
    close(found.value, (0.5 - 0.1) / (0.8 - 0.1), 1e-12)
    assert found.n == 3
    low, high = found.interval or (1.0, 0.0)
    assert low < 4 / 7 < high
    assert normalised(random, random, greedy).value == 0.0
    assert normalised(greedy, random, greedy).interval == (1.0, 1.0)
    # drawn together: V is half way in every text, so that it is in every resample
    half = [(r + g) / 2 for r, g in zip(random, greedy, strict=True)]
    close(normalised(half, random, greedy).interval, (0.5, 0.5), 1e-12)
    left_out = normalised([*value, math.nan], [*random, 0.1], [*greedy, 0.2])
    assert left_out == found
    for nothing in (normalised(value, random, random), normalised([], [], [])):
        assert (nothing.value, nothing.interval) == (None, None)
    with pytest.raises(ValueError, match="3, 2, 3"):
        normalised(value, random[:2], greedy)


# --- plausibility ---


def named(*tokens: Token, source: Any) -> Batch:
    return Batch(torch.tensor([[t.id for t in tokens]]), tokens=(tokens,), texts=(source,))


SOURCE = "not  a very good film"
FILM = named(
    Token("[CLS]", CLS, special=True),
    Token("not", 10, 0, 3, False, 0, 0),
    Token(" a", 11, 4, 6, False, 1, 0),  # with the space before it, as some tokenizers count
    Token(" very", 12, 6, 11, False, 2, 0),
    Token(" go", 13, 11, 14, False, 3, 0),
    Token("od", 14, 14, 16, False, 3, 0),
    Token("film", 15, 17, 21, False, 4, 0),
    Token("[SEP]", SEP, special=True),
    source=SOURCE,
)


def test_tokens_are_marked_by_characters() -> None:
    def at(*spans: Any) -> list[int]:
        return [int(i) for i in marked(FILM, spans).nonzero()[0]]

    assert at() == []
    assert at((0, 3)) == [1]
    assert at((0, 5)) == [1]  # " a" shares only white space
    assert at((0, 6)) == [1, 2]
    assert at((13, 14)) == [4]
    assert at((12, 16), (17, 18)) == [4, 5, 6]
    assert at((3, 5)) == []
    pair = named(Token("a", 5, 0, 1, False, 0, 0), Token("b", 6, 0, 1, False, 0, 1), source=("a", "b c"))
    assert marked(pair, [(0, 1)]).tolist() == [True, False]
    assert marked(pair, [(0, 1, 1)]).tolist() == [False, True]
    assert marked(pair, [(2, 3, 1)]).tolist() == [False, False]


def test_refusals_of_rationales() -> None:
    for bad in [(3, 3), (-1, 2), (0, 22), (0, 1, 1)]:
        with pytest.raises(InputError, match=r"lies outside its text; there are 1 texts, of 21 characters"):
            marked(FILM, [bad])
    with pytest.raises(InputError, match=r"character offsets.*model\.batch"):
        marked(text(), [(0, 1)])
    with pytest.raises(InputError, match="text by text; seen 2"):
        marked(FILM.rows_repeated(2), [(0, 1)])
    with pytest.raises(InputError, match=r"8 finite numbers.*\[7\]"):
        annotate(FILM, drawn(7), [(0, 1)])


def seen(scores: list[float], spans: list[Any]) -> Annotated:
    return annotate(FILM, np.array([50.0, *scores, 60.0]), spans)


def test_plausibility_by_hand() -> None:
    """Marked: not, go, od of six tokens; special tokens score highest and count for nothing."""
    spans = [(0, 3), (12, 16)]
    token_f1, iou_f1, auprc = (METRICS.get(name) for name in ("token_f1", "iou_f1", "auprc"))
    a = seen([6, 5, 1, 4, 3, 2], spans)  # not, a, go
    assert a.rationale.nonzero()[0].tolist() == [1, 4, 5]
    assert a.selected.nonzero()[0].tolist() == [1, 2, 4]
    close(token_f1(a), 2 / 3, 1e-12)
    # runs: people [1,2) [4,6), chosen [1,3) [4,5): both overlap by exactly one half
    close(iou_f1(a), 1.0, 1e-12)
    # precision at the ranks of not, go, od: 1/1, 2/3, 3/4
    close(auprc(a), (1 + 2 / 3 + 3 / 4) / 3, 1e-12)
    b = seen([1, 6, 5, 4, 3, 2], spans)  # a, very, go: one run [2,5), union with [4,6) is 4
    close(token_f1(b), 1 / 3, 1e-12)
    assert iou_f1(b) == 0.0
    close(auprc(b), (1 / 3 + 2 / 4 + 3 / 6) / 3, 1e-12)
    best = seen([6, 0, 0, 5, 4, 0], spans)
    assert (token_f1(best), iou_f1(best), auprc(best)) == (1.0, 1.0, 1.0)
    c = seen([6, 0, 1, 0, 5, 4], spans)  # not, od, film: [5,7) and [4,6) share one of three
    close(iou_f1(c), 2 * 1 / (2 + 2), 1e-12)


def test_texts_that_do_not_say_are_left_out() -> None:
    for spans in ([], [(0, 21)]):
        a = seen([6, 5, 1, 4, 3, 2], spans)
        assert all(math.isnan(METRICS.get(name)(a)) for name in ("token_f1", "iou_f1", "auprc"))


def test_controls_of_plausibility() -> None:
    assert list(CONTROLS) == ["random", "longest_words"]
    assert longest_words(FILM).tolist() == [0, 3, 2, 5, 5, 5, 4, 0]
    draws = random_scores(FILM)
    assert draws.shape == (8,)
    assert draws.tolist() == random_scores(FILM).tolist()
    assert draws.tolist() != random_scores(text(TOKENS[:6])).tolist()


def test_auprc_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.metrics", None)
    with pytest.raises(MissingExtra, match=r"auprc.*pellucid\[info\]"):
        METRICS.get("auprc")(seen([6, 5, 1, 4, 3, 2], [(0, 3)]))


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is", "good", "un", "##watch", "##able", "."]


@cache
def reader() -> pellucid.Model:
    """A tiny BERT with a WordPiece tokenizer that tells offsets."""
    raw = Tokenizer(models.WordPiece({p: i for i, p in enumerate(PIECES)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    return pellucid.load(
        tiny.build("bert", vocab_size=len(PIECES)), tf.PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    )


def test_from_texts_to_rationales() -> None:
    """With a real tokenizer, alone and in a pair, out of a padded batch."""
    model = reader()
    batch = model.batch(["The film is unwatchable.", "good film"])
    first, second = batch.rows([0]), batch.rows([1])
    assert [t.text for t, m in zip(first.tokens[0], marked(first, [(14, 17)]), strict=True) if m] == ["##watch"]
    assert marked(second, [(0, 4)]).tolist() == [False, True, False, False]
    assert longest_words(first).tolist() == [0, 3, 4, 2, 11, 11, 11, 1, 0]
    both = model.batch([("good film", "unwatchable film")])
    assert marked(both, [(0, 4), (12, 16, 1)]).nonzero()[0].tolist() == [1, 7]
    measured, _ = measure(model, second, {"x": longest_words(second)}, "mask")
    assert measured["x"].ordinary.tolist() == [False, True, True, False]


# --- stability ---


def test_near_duplicates_change_one_token_for_its_nearest() -> None:
    model, whole = opened("bert"), text()
    found = near_duplicates(model, whole, count=3, change=1.0, seed=1)
    assert found.batch is not None
    ids, table = whole.input_ids[0], hugging_face("bert").get_input_embeddings().weight.detach()
    p = model.logits(whole).softmax(-1)[0]
    allowed = [i for i in range(60) if i not in (0, 1, CLS, SEP)]
    assert len(found.batch) == len(found.places) == len(found.same) <= 3
    assert found.forwards == 1 + min(len(TOKENS), TRIED * 3)
    for row, place, same in zip(found.batch.input_ids, found.places, found.same, strict=True):
        assert (row != ids).nonzero()[:, 0].tolist() == [place]
        assert same.tolist() == [0 < i < 13 and i != place for i in range(14)]
        others = [i for i in allowed if i != int(ids[place])]
        near = [float(torch.cosine_similarity(table[i], table[ids[place]], dim=0)) for i in others]
        assert int(row[place]) == others[int(np.argmax(near))]
        assert int(model.logits(Batch(row[None])).argmax()) == int(p.argmax())
    again = near_duplicates(model, whole, count=3, change=1.0, seed=1)
    assert again.places == found.places
    assert near_duplicates(model, whole, count=3, change=1.0, seed=2).places != found.places


def test_near_duplicates_hardly_change_the_answer() -> None:
    model, whole = opened("bert"), text()
    p = model.logits(whole).softmax(-1)[0]
    all_ = near_duplicates(model, whole, 12, change=1.0)
    assert all_.batch is not None
    moved = (model.logits(all_.batch).softmax(-1) - p)[:, p.argmax()].abs()
    half = float(moved.median())
    strict = near_duplicates(model, whole, 12, change=half * 1.0001)
    assert strict.places == tuple(at for at, m in zip(all_.places, moved.tolist(), strict=True) if m <= half)
    assert 0 < len(strict.places) < len(all_.places)
    assert near_duplicates(model, whole, 2, change=half * 1.0001).places == strict.places[:2]
    none = near_duplicates(model, whole, 3, change=-1.0)
    assert (none.batch, none.places, none.same.shape) == (None, (), (0, 14))


def test_near_duplicates_of_a_named_text() -> None:
    model = reader()
    whole = model.batch("The film is unwatchable.")
    found = near_duplicates(model, whole, change=1.0)
    assert found.batch is not None
    for row, place, tokens in zip(found.batch.input_ids, found.places, found.batch.tokens or (), strict=True):
        assert [t.id for t in tokens] == row.tolist()
        assert tokens[place].text == PIECES[int(row[place])]
        assert tokens[place].start == whole.tokens[0][place].start
    with pytest.raises(InputError, match="gives no probabilities"):
        near_duplicates(opened("bert", num_labels=1), text())
    with pytest.raises(InputError, match="one text without padding"):
        near_duplicates(model, model.batch(["good film", "film"]))


def test_near_duplicate_tau_by_hand() -> None:
    same = np.array([False, True, True, False, True, False])
    pair = Pair(np.array([9.0, 3, 2, 0, 1, 9]), np.array([0.0, 3, 1, 7, 2, 5]), same)
    close(METRICS.get("near_duplicate_tau")(pair), 1 / 3, 1e-12)


# --- the registry ---


def test_what_metrics_say_of_themselves() -> None:
    assert np.allclose(SHARES, np.linspace(0, 1, 11))
    assert len(METRICS.names()) == 16
    down = {m.name for m in METRICS if m.arrow < 0}
    assert down == {
        "aopc_least",
        "sufficiency",
        "accuracy_masked",
        "decision_flip",
        "deletion_area",
        "polarity_violations",
    }
    for metric in METRICS:
        told = metric.about()
        assert told["meaning"].endswith(".")
        assert "arXiv" in told["source"]
        assert metric.label == f"{metric.name} {'↑' if metric.arrow > 0 else '↓'}"
        assert all(told[key] for key in ("name", "kind", "unit"))
    with pytest.raises(InputError, match=r"no metric 'aopcs'\. Did you mean 'aopc'\?"):
        METRICS.get("aopcs")


def test_unknown_ends_of_curves_are_no_answer() -> None:
    """Where a share was not measured, a decision is not made up."""
    m = measure(opened("bert"), text(labels=(1,)), {"a": drawn(14)}, "mask")[0]["a"]
    blind = replace(m, most=np.full_like(m.most, np.nan), least=np.full_like(m.least, np.nan))
    for name in ("decision_flip", "accuracy_masked", "accuracy_masked_least"):
        assert math.isfinite(METRICS.get(name)(m))
        assert math.isnan(METRICS.get(name)(blind))


def test_normalised_without_room_has_no_interval() -> None:
    """A resample in which the bound is not above the control says nothing."""
    found = normalised([0.3, 0.1], [0.0, 0.2], [0.5, 0.1])
    assert found.value is not None
    assert found.interval is None
    assert normalised([0.3], [0.1], [0.1]).value is None
