"""Erasure: every level against Hugging Face's own forward with attention changed inside, numbers worked out by hand,
and models whose right grade is known.
"""

from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import planted
import pytest
import tiny
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

import pellucid
from pellucid import Batch
from pellucid.audits.erasure.adversary import adversarial, averaged, evened, permuted
from pellucid.audits.erasure.effects import (
    Effects,
    Judge,
    Path,
    effects,
    greedy,
    masks,
    orderings,
    paths,
    predicted_drops,
    share_of_best,
    single,
    units_of,
)
from pellucid.audits.erasure.places import LastRow, Level, place
from pellucid.encoder.readout import Readout, readout
from pellucid.errors import AccessError, InputError
from pellucid.finding import Findings
from pellucid.types import Token

FINE = 1e-10
Change = Callable[[int, Tensor], Tensor]


def text(model: pellucid.Model, n: int = 7, seed: int = 2) -> Batch:
    """One text of random ids, its first token special."""
    ids = tiny.batch(model, (n,), seed).input_ids
    first, *rest = ids[0].tolist()
    tokens = (Token("[CLS]", first, special=True), *(Token(f"w{t}", t, word=i) for i, t in enumerate(rest)))
    return Batch(ids, tokens=(tokens,))


class Patched:
    """The oracle: Hugging Face's model with its attention weights changed inside by `change(layer, weights)`."""

    def __init__(self, hf: nn.Module, change: Change) -> None:
        owners = [m for m in hf.modules() if type(m).__name__.endswith(("SelfAttention", "ModernBertAttention"))]
        order = {id(m): i for i, m in enumerate(owners)}

        def attend(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **rest: Any) -> Any:
            s = q @ k.transpose(2, 3) * rest.get("scaling", q.shape[-1] ** -0.5)
            s = s if mask is None else s + mask
            a = change(order[id(module)], s.softmax(-1))
            return (a @ v).transpose(1, 2).contiguous(), a

        AttentionInterface.register("patched", attend)
        AttentionMaskInterface.register("patched", eager_mask)
        self.hf, self.old = hf, hf.config._attn_implementation

    def logits(self, ids: Tensor) -> Tensor:
        self.hf.set_attn_implementation("patched")
        try:
            with torch.no_grad():
                return self.hf(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        finally:
            self.hf.set_attn_implementation(self.old)


def brute(
    model: pellucid.Model, batch: Batch, gone: list[int], level: Level, layer: int, head: int | None, renormalise: bool
) -> Tensor:
    """One variant by a whole pass of Hugging Face's model."""
    last = len(model.net.layers) - 1
    pooled = model.net.head.pool == "mean"

    def change(at: int, a: Tensor) -> Tensor:
        if not {"cls_last": at == last, "layer": at == layer, "token": True, "cls_all": True}[level]:
            return a
        other = a.clone()
        other[..., gone] = 0.0
        if renormalise:
            other = (other / other.sum(-1, keepdim=True)).nan_to_num()  # a row that keeps nothing holds nothing
        out = a.clone()
        rows = slice(0, 1) if level in ("cls_last", "cls_all") and not pooled else slice(None)
        heads = slice(None) if head is None else slice(head, head + 1)
        out[:, heads, rows] = other[:, heads, rows]
        return out

    return Patched(model.hf, change).logits(batch.input_ids)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("head", [None, 2])
@pytest.mark.parametrize("level", ["cls_last", "layer", "token", "cls_all"])
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_every_level_against_a_whole_pass(family: str, level: Level, head: int | None, renormalise: bool) -> None:
    model = tiny.opened(family)
    batch = text(model)
    at = place(model, batch, level, 1 if level == "layer" else None, head, renormalise)
    sets = [[], [1], [5], [2, 3], [1, 2, 3, 4, 5, 6]]
    kept = torch.ones(len(sets), 7, dtype=torch.bool)
    for row, gone in zip(kept, sets, strict=True):
        row[gone] = False
    expected = torch.stack([brute(model, batch, gone, level, 1, head, renormalise) for gone in sets])
    torch.testing.assert_close(at.without(kept), expected, rtol=0, atol=1e-7 if "modern" in family else FINE)
    torch.testing.assert_close(at.logits, expected[0], rtol=0, atol=1e-7 if "modern" in family else FINE)
    assert (expected[1:] - expected[0]).abs().max() > 1e-5


@pytest.mark.parametrize("level", ["cls_last", "layer", "token", "cls_all"])
def test_float32_within_1e_6(level: Level) -> None:
    single_, double = tiny.opened("bert", torch.float32), tiny.opened("bert")
    kept = ~torch.eye(7, dtype=torch.bool)
    kept[:, 0] = True
    layer = 1 if level == "layer" else None
    got = place(single_, text(double), level, layer).without(kept)
    expected = place(double, text(double), level, layer).without(kept)
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_mean_pooling_reads_all_rows() -> None:
    model = tiny.opened("modernbert_mean")
    batch = text(model)
    at = place(model, batch, "cls_last")
    kept = torch.ones(1, 7, dtype=torch.bool)
    kept[0, 4] = False
    expected = brute(model, batch, [4], "layer", len(model.net.layers) - 1, None, True)
    torch.testing.assert_close(at.without(kept)[0], expected, rtol=0, atol=1e-7)
    with pytest.raises(InputError, match="reads the mean of all rows"):
        readout(model, batch)


def test_deletion_is_a_mask_with_positions_kept() -> None:
    model = tiny.opened("bert")
    batch = text(model)
    kept = torch.ones(1, 7, dtype=torch.bool)
    kept[0, 3] = False
    mask = torch.tensor([[1, 1, 1, 0, 1, 1, 1]])
    with torch.no_grad():
        expected = model.hf(input_ids=batch.input_ids, attention_mask=mask).logits[0]
        left = [0, 1, 2, 4, 5, 6]
        short = model.hf(input_ids=batch.input_ids[:, left], position_ids=torch.tensor([left])).logits[0]
    got = place(model, batch, "token").without(kept)[0]
    torch.testing.assert_close(got, expected, rtol=0, atol=FINE)
    torch.testing.assert_close(got, short, rtol=0, atol=FINE)


@pytest.mark.parametrize("level", ["cls_last", "layer", "token", "cls_all"])
def test_slopes_are_derivatives_by_attention(level: Level) -> None:
    """Finite differences: one weight of one row changed by a little, through Hugging Face's forward."""
    model = tiny.opened("bert")
    batch = text(model)
    at = place(model, batch, level, 1 if level == "layer" else None)
    judge = Judge(at.logits, model.problem)
    a, g = at.slopes(judge.goal)
    torch.testing.assert_close(a.mean(0), at.alpha, rtol=0, atol=1e-12)
    layers, last = len(model.net.layers), len(model.net.layers) - 1
    slots = []  # (layer, head, row) in the order of the rows of `a`
    for i in {"cls_last": [last], "layer": [1], "token": range(layers), "cls_all": range(layers)}[level]:
        rows = range(1) if level in ("cls_last", "cls_all") or i == last else range(7)
        slots += [(i, h, r) for h in range(4) for r in rows]
    assert len(slots) == len(a)
    for s in (0, len(slots) // 2, len(slots) - 1):
        i, h, r = slots[s]
        ends = []
        for step in (1e-5, -1e-5):

            def change(layer: int, w: Tensor, i: int = i, h: int = h, r: int = r, step: float = step) -> Tensor:
                w = w.clone()
                if layer == i:
                    w[:, h, r, 3] += step
                return w

            ends.append(judge.goal(Patched(model.hf, change).logits(batch.input_ids)[None]).item())
        assert g[s, 3].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_the_centred_drop_is_the_first_order_of_erasing() -> None:
    """Erase a small share of a unit and scale: the derivative at no erasing is the predicted drop for small weights."""
    model = tiny.opened("bert")
    batch = text(model)
    at = place(model, batch, "cls_last")
    assert isinstance(at, LastRow)
    judge = Judge(at.logits, model.problem)
    units = [[1], [2, 3], [4], [5, 6]]
    drops = predicted_drops(at, units, judge)
    for u, some in enumerate(units):
        a, h = at.read.alpha, 1e-6
        m = a[:, some].sum(-1, keepdim=True)
        whole = a.clone()
        whole[:, some] = 0
        target = whole / whole.sum(-1, keepdim=True)  # where erasing leads
        moved = judge.goal(at.read.from_weights((a + h * (target - a))[None]))
        fall = float(judge.goal(at.logits[None]) - moved) / h
        assert drops["centred"][u] == pytest.approx(fall, rel=1e-4, abs=1e-8)
        assert (m > 0).all()


# --- numbers by hand ---


def by_hand(alpha: list[float], values: list[float]) -> LastRow:
    """One head of width 1; logits (0, 10 c) for context c."""
    a = torch.tensor([alpha], dtype=torch.float64)
    v = torch.tensor(values, dtype=torch.float64)[None, :, None]

    def finish(mixed: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(mixed), 10 * mixed], -1)

    whole = torch.einsum("hn,hne->he", a, v)
    return LastRow(Readout(a, v, finish, finish(whole.flatten()[None])[0]))


def test_effects_by_hand() -> None:
    """Weights .2 (kept) .5 .3, values -1 1 0: c = .3; without unit 1 -.4, without unit 2 3/7, without both -1."""
    at = by_hand([0.2, 0.5, 0.3], [-1.0, 1.0, 0.0])
    judge = Judge(at.logits, "single_label")
    e = effects(at, [[1], [2]], judge)

    def p(c: float) -> np.ndarray:
        x = np.exp([0, 10 * c])
        return x / x.sum()

    def js(a: np.ndarray, b: np.ndarray) -> float:
        m = (a + b) / 2
        return float((a * np.log(a / m)).sum() + (b * np.log(b / m)).sum()) / 2

    np.testing.assert_allclose(e.effect, [js(p(0.3), p(-0.4)), js(p(0.3), p(3 / 7))], atol=1e-12)
    np.testing.assert_allclose(e.support, [p(0.3)[1] - p(-0.4)[1], p(0.3)[1] - p(3 / 7)[1]], atol=1e-12)
    assert e.flips.tolist() == [True, False]
    assert (e.everything, e.everything_flips) == (pytest.approx(js(p(0.3), p(-1.0))), True)
    np.testing.assert_allclose(e.alpha, [0.5, 0.3])
    s = single(e, np.random.default_rng(0))
    assert s["delta_alpha"] == pytest.approx(0.2)
    assert s["delta_js"] == pytest.approx(e.effect[0] - e.effect[1])
    assert (s["hit"], s["chance_hit"], s["rank"], s["regret"]) == (1.0, 0.5, 0.0, 0.0)
    assert (s["top_flips"], s["other_flips"], s["tau"]) == (1.0, 0.0, pytest.approx(1.0))
    assert (s["against"], s["random_against"]) == (0.0, 0.5)


def test_ties_are_shared() -> None:
    np.testing.assert_allclose(share_of_best(np.array([0.4, 0.1, 0.4])), [0.5, 0, 0.5])
    e = effects(by_hand([0.0, 0.4, 0.4, 0.2], [0.0, 1.0, -1.0, 1.0]), units := [[1], [2], [3]], _judge(units))
    s = single(e, np.random.default_rng(0))
    assert s["delta_alpha"] == pytest.approx(0.4 - (0.2 + 0.4 / 2 + 0.4 / 2) / 2)


def _judge(units: object) -> Judge:
    return Judge(by_hand([0.0, 0.4, 0.4, 0.2], [0.0, 1.0, -1.0, 1.0]).logits, "single_label")


def test_saturated_attention_and_nothing_left() -> None:
    """All weight on one unit: without it a head holds nothing, which is the zero vector; the others do nothing."""
    at = by_hand([0.0, 1.0, 0.0], [3.0, 1.0, 5.0])
    e = effects(at, [[0], [1], [2]], Judge(at.logits, "single_label"))
    assert np.isfinite(e.effect).all()
    np.testing.assert_allclose(e.effect[[0, 2]], 0, atol=1e-12)
    y = at.without(torch.tensor([[True, False, True], [False, False, False]]))
    np.testing.assert_allclose(y, [[0, 0], [0, 0]])
    near = by_hand([1e-9, 1 - 2e-9, 1e-9], [3.0, 1.0, 5.0])
    np.testing.assert_allclose(near.without(torch.tensor([[True, False, True]])), [[0, 40]], rtol=1e-6)


def test_paths_by_hand() -> None:
    """Values 1 1 1 and -1 that stays: gone one by one, c = .4, .25, 0 (a tie: class 0), -1."""
    at = by_hand([0.3, 0.3, 0.2, 0.2], [-1.0, 1.0, 1.0, 1.0])
    judge, units = Judge(at.logits, "single_label"), [[1], [2], [3]]
    forwards, back = paths(at, units, [np.array([0, 1, 2]), np.array([2, 1, 0])], judge)
    c = [[(0.4 - 0.3) / 0.7, (0.2 - 0.3) / 0.5, -1.0], [(0.5 - 0.3) / 0.8, (0.3 - 0.3) / 0.6, -1.0]]
    for path, expected in zip((forwards, back), c, strict=True):
        np.testing.assert_allclose(path.held, 1 / (1 + np.exp(-10 * np.array(expected))), atol=1e-12)
        assert path.area == pytest.approx(path.held.mean())
    assert (forwards.first, forwards.fraction, forwards.reverts) == (2, 2 / 3, False)
    assert greedy(at, units, judge).first == 2
    never = Path(np.arange(3), np.array([0.9, 0.8, 0.9]), np.array([False] * 3))
    assert (never.first, never.fraction, never.reverts) == (None, 1.0, False)
    comes_back = Path(np.arange(3), np.array([0.9, 0.4, 0.9]), np.array([False, True, False]))
    assert (comes_back.first, comes_back.reverts) == (2, True)


def test_greedy_is_never_later_than_the_effect_order_in_a_bag_of_words() -> None:
    model, batch = planted.trustworthy(3, 6)
    for i in range(6):
        at = place(model, batch.rows([i]), "cls_last")
        judge, units = Judge(at.logits, "single_label"), [[j] for j in range(1, 12)]
        e = effects(at, units, judge)
        named = orderings(e, predicted_drops(at, units, judge), 3, np.random.default_rng(0))
        walked = paths(at, units, [o for _, o in named], judge)
        best = greedy(at, units, judge).fraction
        assert all(best <= w.fraction for w in walked)


def test_units_are_words() -> None:
    t = [
        Token("[CLS]", 1, special=True),
        Token("un", 2, word=0),
        Token("##real", 3, word=0),
        Token("!", 4, word=1),
        Token("[SEP]", 5, special=True),
        Token("no", 6, word=0, sequence=1),
    ]
    assert units_of(t) == [[1, 2], [3], [5]]
    assert units_of(t, words=False) == [[1], [2], [3], [5]]
    assert units_of(t, specials="erase") == [[0], [1, 2], [3], [4], [5]]
    assert masks([[1, 2], [3]], [[0], [0, 1], []], 4).int().tolist() == [[1, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_labels_that_are_not_exclusive() -> None:
    judge = Judge(torch.tensor([1.0, -2.0]), "multi_label")
    assert judge.flips(torch.tensor([[1.0, -2.0], [-1.0, -2.0], [3.0, 0.5]])).tolist() == [False, True, True]
    sides = 1 / (1 + np.exp([-1.0, -2.0]))
    np.testing.assert_allclose(judge.held(torch.tensor([[1.0, -2.0]])), sides.mean())
    assert judge.effect(torch.tensor([[1.0, -2.0]]))[0] == 0
    assert judge.goal(torch.tensor([[1.0, -2.0]])).item() == pytest.approx(np.log(sides).mean())


# --- properties ---


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7))
def test_erasing_nothing_changes_nothing_and_order_in_the_batch_neither(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    at = by_hand(rng.dirichlet(np.ones(n)).tolist(), rng.normal(size=n).tolist())
    kept = torch.from_numpy(rng.random((5, n)) < 0.7)
    kept[0] = True
    y = at.without(kept)
    torch.testing.assert_close(y[0], at.logits, rtol=0, atol=1e-12)
    for i in range(5):
        torch.testing.assert_close(at.without(kept[i : i + 1])[0], y[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", ["cls_last", "layer", "token", "cls_all"])
def test_effects_do_not_depend_on_padding_or_batch_mates(level: Level) -> None:
    model = tiny.opened("bert")
    alone = text(model)
    assert alone.tokens is not None
    other = text(model, 11, seed=5)
    assert other.tokens is not None
    ids = torch.nn.functional.pad(alone.input_ids, (0, 4))
    both = Batch(torch.cat([other.input_ids, ids]), torch.arange(11) < torch.tensor([[11], [7]]),
                 tokens=(other.tokens[0], alone.tokens[0]))  # fmt: skip
    one = pellucid.audit(model, alone, "erasure", level=level, layer=1 if level == "layer" else None, draws=2)
    two = pellucid.audit(model, both, "erasure", level=level, layer=1 if level == "layer" else None, draws=2)
    a = [u for u in one.tables["units"] if u["text"] == 0]
    b = [u for u in two.tables["units"] if u["text"] == 1]
    for x, y in zip(a, b, strict=True):
        assert x["attention"] == pytest.approx(y["attention"], abs=FINE)
        assert x["effect"] == pytest.approx(y["effect"], abs=FINE)


# --- the adversary ---


def test_even_mean_and_permuted_attention_by_hand() -> None:
    at = by_hand([0.2, 0.5, 0.3], [-1.0, 1.0, 0.0])
    judge = Judge(at.logits, "single_label")
    np.testing.assert_allclose(evened(at, [1, 2]), [0, 10 * (-0.2 + 0.4)], atol=1e-12)
    np.testing.assert_allclose(averaged(at, np.array([[1.0, 1.0, 2.0, 9.0]])), [0, 0], atol=1e-12)
    moved = permuted(at, [1, 2], judge, 40, np.random.default_rng(0))
    swapped = judge.effect(torch.tensor([[0.0, 10 * (-0.2 + 0.3)]]))[0]
    assert set(np.round(moved, 12)) == {0.0, round(float(swapped), 12)}


def test_an_adversary_where_attention_is_free_and_where_it_is_not() -> None:
    """Equal values: any attention will do, up to ln 2. Values that all count: little can move."""
    free = by_hand([0.4, 0.3, 0.1, 0.1, 0.1], [0.5] * 5)
    judge = Judge(free.logits, "single_label")
    far = adversarial(free, range(5), judge, (0.01, 0.05), 3, 200, 0)
    assert all(0.4 < x <= np.log(2) for x in far)
    tight = by_hand([0.9, 0.1], [1.0, -1.0])
    near = adversarial(tight, range(2), Judge(tight.logits, "single_label"), (0.001, 0.05), 3, 200, 0)
    assert near[0] <= near[1] < 0.3
    kept = by_hand([0.4, 0.3, 0.1, 0.1, 0.1], [0.5] * 5)
    assert adversarial(kept, [], Judge(kept.logits, "single_label"), (0.05,), 2, 5, 0)[0] == pytest.approx(0, abs=1e-9)


# --- grades of models whose right grade is known ---


def ask(model: pellucid.Model, batch: Batch, **given_: Any) -> Findings:
    return pellucid.audit(model, batch, "erasure", **{"adversaries": 0, "permutations": 5, "draws": 10, **given_})


def test_attention_that_is_the_contribution_is_trusted() -> None:
    found = ask(*planted.trustworthy(0))
    assert found.named("trust").grade == "TRUST", found.named("trust").reading
    assert found.named("hit_rate").value > found.named("hit_rate").null + 0.3
    assert found.named("delta_js").grade == "AS CLAIMED"
    assert found.named("fraction_to_flip", "attention").value < found.named("fraction_to_flip", "random").value


def test_equal_values_have_no_leverage() -> None:
    found = ask(*planted.powerless(0))
    assert found.named("trust").grade == "NO LEVERAGE"
    assert found.named("leverage").value == pytest.approx(0, abs=1e-12)
    assert all(f.grade not in ("TRUST", "NOISY") for f in found)


def test_attention_unrelated_to_contributions_is_not_better_than_random() -> None:
    """Twenty repetitions of the null at 5 %: at most three verdicts in attention's favour."""
    grades = [
        ask(*planted.unrelated(seed, 24), greedy=False, permutations=0, draws=5).named("trust").grade
        for seed in range(20)
    ]
    assert set(grades) <= {"TRUST", "NOISY", "NOT BETTER THAN RANDOM"}, grades
    assert sum(g != "NOT BETTER THAN RANDOM" for g in grades) <= 3, grades


def deceptive(seed: int) -> tuple[pellucid.Model, Batch]:
    """Trained to tell texts apart by two marked words while its attention, penalised on them, looks elsewhere (Pruthi
    et al. 2020): loss - log(1 - attention on the marked words)."""
    torch.manual_seed(seed)
    config = tf.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=40,
        max_position_embeddings=32, num_labels=2, pad_token_id=0, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    hf = tf.BertForSequenceClassification._from_config(config, attn_implementation="eager")
    g = torch.Generator().manual_seed(seed)

    def sample(count: int) -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.randint(10, 40, (count, 11), generator=g)
        ids[:, 0] = 1
        y = torch.randint(2, (count,), generator=g)
        where = torch.stack([1 + torch.randperm(10, generator=g)[:2] for _ in range(count)])
        ids.scatter_(1, where, (2 + 2 * y)[:, None] + torch.randint(2, (count, 2), generator=g))
        return ids, y, where

    optimiser = torch.optim.Adam(hf.parameters(), 3e-3)
    for _ in range(250):
        ids, y, where = sample(64)
        out = hf(input_ids=ids, output_attentions=True)
        mass = sum(a[:, :, 0].mean(1).gather(1, where).sum(1) for a in out.attentions[-1:])
        loss = nn.functional.cross_entropy(out.logits, y) - torch.log(1 - mass.clamp(max=1 - 1e-6)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    ids, y, _ = sample(40)
    with torch.no_grad():
        assert (hf.eval()(input_ids=ids).logits.argmax(-1) == y).float().mean() > 0.9, "it has not learnt the task"
    return pellucid.load(hf), planted.batch([row[1:].tolist() for row in ids])


def test_attention_trained_to_deceive_is_not_trusted() -> None:
    model, batch = deceptive(0)
    for level in ("cls_last", "token"):
        found = ask(model, batch, level=level)
        assert found.named("trust").grade != "TRUST", found.named("trust").reading


# --- the audit ---


def test_every_number_has_its_control_and_tables_hold_the_rows() -> None:
    model, batch = planted.trustworthy(1, 12)
    found = ask(model, batch, adversaries=2, paper_mode=True)
    for f in found:
        assert f.null is not None, f.name
        assert f.control
        assert f.unit
    assert len(found.tables["texts"]) == 12
    assert len(found.tables["units"]) == 12 * 11
    assert len(found.tables["paths"]) == 12 * (10 + 5 + 1)
    assert {f.where for f in found if f.name == "fraction_to_flip"} >= {"random", "attention", "effect", "greedy"}
    assert found.named("paper_negative_share").n == 12
    assert set(found.figures()) == {"delta", "flips", "two_by_two", "sentence"}
    again = ask(model, batch, adversaries=2, paper_mode=True)
    assert [f.to_dict() for f in again] == [f.to_dict() for f in found]


def test_short_texts_are_left_out_and_counted() -> None:
    model, _ = planted.trustworthy(1, 3)
    found = ask(model, planted.batch([[3], [3, 4], [3, 4, 5, 6, 7, 8]]))
    limits = " ".join(found.named("trust").limits)
    assert "1 of 3 texts have fewer than two units" in limits
    assert "leave out 1 texts of fewer than 5" in limits
    assert found.named("trust").grade == "TOO FEW TEXTS"
    none = ask(model, planted.batch([[3], [4]]))
    assert {f.grade for f in none} == {"TOO FEW TEXTS"}


def test_checkpoints_are_the_null_of_an_adversary(tmp_path: Any) -> None:
    model, batch = planted.trustworthy(1, 4)
    other, _ = planted.unrelated(0, 4)
    other.hf.save_pretrained(tmp_path / "a")
    found = ask(model, batch, adversaries=4, checkpoints=(str(tmp_path / "a"),))
    assert found.named("other_checkpoints").value > 0.01


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"level": "layer"}, "level='layer' needs layer; seen layer=None"),
        ({"level": "token", "layer": 0}, "level='token' takes no layer; seen layer=0"),
        ({"level": "layer", "layer": 3}, "no layer=3.*layers 0 to 0"),
        ({"head": 1}, "no head=1.*heads 0 to 0"),
        ({"level": "row"}, "level is one of .*; seen 'row'"),
        ({"draws": 0}, "draws=0"),
    ],
)
def test_wrong_settings_are_refused(given_: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model, batch = planted.powerless(0, 2)
    with pytest.raises(InputError, match=message):
        ask(model, batch, **given_)


def test_models_that_decide_nothing_or_show_too_little() -> None:
    hf = tiny.build("bert", num_labels=1)
    model = pellucid.load(hf)
    with pytest.raises(InputError, match="regression"):
        ask(model, text(model))
    lower = pellucid.load(tiny.build("bert"), access="gradients")
    with pytest.raises(AccessError, match="erasure"):
        ask(lower, text(lower))


@pytest.mark.parametrize("family", ["bert", "modernbert", "modernbert_mean"])
def test_the_map_of_heads_is_the_level_of_one_layer_and_head(family: str) -> None:
    model = tiny.opened(family)
    batch = text(model)
    found = pellucid.audit(model, batch, "erasure_heads")
    for row in found.tables["effects"]:
        at = place(model, batch, "layer", row["layer"], row["head"])
        e = effects(at, [[i] for i in range(1, 7)], Judge(at.logits, model.problem))
        assert row["largest_effect"] == pytest.approx(e.effect.max(), abs=FINE)
        assert row["everything_js"] == pytest.approx(e.everything, abs=FINE)
        assert row["hit"] == pytest.approx(float(e.top @ (share_of_best(e.effect) > 0)))


def test_heads_that_matter_are_marked() -> None:
    model, batch = planted.trustworthy(2, 20)
    found = pellucid.audit(model, batch, "erasure_heads")
    (head,) = found.tables["heads"]
    assert head["hit_rate"] > head["chance"] + 0.3
    assert head["q"] < 0.05
    assert found[0].grade == "ALL HEADS"
    idle = pellucid.audit(*planted.powerless(0, 12), "erasure_heads")
    assert idle[0].grade == "NONE"


def test_effects_are_frozen_records() -> None:
    e = effects(by_hand([0.2, 0.5, 0.3], [-1.0, 1.0, 0.0]), [[1], [2]], _judge(None))
    assert isinstance(e, Effects)
    with pytest.raises(AttributeError):
        e.alpha = None  # type: ignore[misc]
