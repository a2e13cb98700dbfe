"""The audit "words": planted contributions come out, tables against sums by hand, and noise does not stand out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

import pellucid
from pellucid import Access, Batch
from pellucid.audits.audit import TOO_FEW
from pellucid.audits.contributions import Contributions, contributions
from pellucid.audits.words import NONE, STAND_OUT, Side, held_by, ranked
from pellucid.bench.planted_models import CASES, WEIGHTS
from pellucid.errors import AccessError, InputError
from pellucid.finding import Findings
from pellucid.methods import METHODS
from pellucid.types import Token

FILMS = [
    "A warm and funny film!", "Dull from start to end.", "The film is not BAD at all.", "Great acting, thin plot.",
    "Warm and great.", "A dull film, a bad plot.", "Funny, warm, great: a film!", "The plot is thin; the end is bad.",
    "Bad acting and a dull end.", "A great film from the start.", "A funny plot.", "Not a warm end.",
]  # fmt: skip


def rows(found: Findings, label: str) -> dict[str, dict[str, float]]:
    return {r["word"]: r for r in found.tables["words"] if r["class"] == label}


# --- known answers ---


def test_planted_weights_come_out() -> None:
    """f = sum of weights is logit 1 minus logit 0, so that a word of weight w pushes class 1 by w / 2."""
    case = CASES.get("additive")
    texts = case.texts(60)
    found = pellucid.audit(case.model(), [" ".join(t) for t in texts], "words", top=4)
    yes, no = rows(found, "yes"), rows(found, "no")
    for word, weight in WEIGHTS.items():
        holding = [t for t in texts if word in t]
        expected = np.mean([sum(WEIGHTS.get(w, 0.0) for w in t) / len(t) for t in holding]) / 2
        assert yes[word]["mean"] == pytest.approx(weight / 2, abs=1e-6)
        assert no[word]["mean"] == pytest.approx(-weight / 2, abs=1e-6)
        assert (yes[word]["low"], yes[word]["high"]) == pytest.approx((weight / 2, weight / 2), abs=1e-6)
        assert yes[word]["null"] == pytest.approx(expected, abs=1e-6)
        assert (yes[word]["n"], yes[word]["count"]) == (len(holding), sum(t.count(word) for t in texts))
    up, down = found.named("top_word", "yes"), found.named("top_word", "no")
    assert [f.grade for f in (up, down)] == [STAND_OUT] * 2
    assert up.value == pytest.approx(0.5, abs=1e-6)
    assert up.n == yes["superb"]["n"]
    order = [up.reading.index(w) for w in ("superb", "great", "good", "fine")]
    assert order == sorted(order)
    assert down.reading.index("awful") < down.reading.index("bad") < down.reading.index("weak")
    assert "superb" not in down.reading


def pieces(count: int = 24) -> tuple[pellucid.Model, Batch]:
    """Random texts of a random model, whose words 5, 7 and 9 have two tokens."""
    g, ids, tokens = torch.Generator().manual_seed(4), torch.zeros(count, 12, dtype=torch.long), []
    ids[:, 0] = 2
    for i in range(count):
        row, place = [Token("[CLS]", 2, special=True)], 1
        for j, word in enumerate((5 + torch.randint(8, (8,), generator=g)).tolist()):
            parts = [word, word + 30] if word in (5, 7, 9) else [word]
            for part in parts[: 12 - place]:
                ids[i, place] = part
                row.append(Token(f"{'##' if part > 30 else ''}w{part}", part, word=j))
                place += 1
        tokens.append(tuple(row))
    return tiny.opened("bert"), Batch(ids, ids > 0, tokens=tuple(tokens))


def test_the_table_is_what_explanations_say() -> None:
    """Against `explain`, its own summing to words, sums by hand and scipy's t test."""
    model, batch = pieces()
    found = pellucid.audit(model, batch, "words", minimum=4)
    by_word: dict[str, list[np.ndarray]] = {}
    control: dict[str, list[np.ndarray]] = {}
    counts: dict[str, int] = {}
    for a in pellucid.explain(model, batch, target="all"):
        w = a.words()
        s = (w.scores - w.scores.mean(1)[:, None])[1:]  # without [CLS]
        names = [t.text for t in w.tokens[1:]]
        for name in set(names):
            mine = [k for k, other in enumerate(names) if other == name]
            by_word.setdefault(name, []).append(s[mine].mean(0))
            control.setdefault(name, []).append(s.mean(0))
            counts[name] = counts.get(name, 0) + len(mine)
    kept = [name for name in by_word if len(by_word[name]) >= 4]
    assert any(name.count("w") == 2 for name in kept), "words of two tokens"
    assert "w5w35" in kept
    for c, label in enumerate(model.labels):
        table = rows(found, label)
        assert set(table) == set(kept)
        p = {k: stats.ttest_1samp(np.array(by_word[k]) - np.array(control[k]), 0).pvalue[c] for k in kept}
        q = dict(zip(kept, stats.false_discovery_control([p[k] for k in kept]), strict=True))
        for k in kept:
            row = table[k]
            assert row["mean"] == pytest.approx(np.mean(by_word[k], 0)[c], rel=1e-9)
            assert row["null"] == pytest.approx(np.mean(control[k], 0)[c], rel=1e-9)
            assert (row["n"], row["count"]) == (len(by_word[k]), counts[k])
            assert (row["p"], row["q"]) == pytest.approx((p[k], q[k]), rel=1e-6)
            assert row["low"] < row["mean"] < row["high"]
        best = max(kept, key=lambda k: (q[k] <= 0.05 and table[k]["low"] > 0 and table[k]["mean"] > table[k]["null"],
                                        table[k]["low"]))  # fmt: skip
        assert found.named("top_word", label).value == table[best]["mean"]
        assert [r["low"] for r in table.values()] == sorted((r["low"] for r in table.values()), reverse=True)
    assert found[0].counts["words left out"] == len(by_word) - len(kept)


def test_intervals_are_about_those_of_normal_means() -> None:
    """For many values the expanded percentile interval is the t interval."""
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, (40, 1))
    texts = [Contributions(("a", "b"), np.array([v, [0.0]]), 0.0, 0.0, 1.0) for v in x]
    found = ranked([h for h in held_by(texts) if h.word == "a"], 0)
    low, high = stats.t.interval(0.95, 39, x.mean(), stats.sem(x[:, 0]))
    width = high - low
    assert found.low[0, 0] == pytest.approx(low, abs=0.08 * width)
    assert found.high[0, 0] == pytest.approx(high, abs=0.08 * width)
    assert found.null[0, 0] == pytest.approx(x.mean() / 2)
    assert found.null_high[0, 0] == pytest.approx(high / 2, abs=0.04 * width)


def drawn(seed: int, texts: int = 40, planted: float = 0.0) -> list[Contributions]:
    """Texts of 12 of 60 words, all contributions noise; word 0 has `planted` more."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(texts):
        words = rng.choice(60, 12, replace=False)
        s = rng.normal(size=(12, 1)) + planted * (words == 0)[:, None]
        out.append(Contributions(tuple(f"w{w}" for w in words), s, 0.0, 0.0, 1.0))
    return out


def test_noise_does_not_stand_out() -> None:
    side, alarms = Side(0, 1, "c"), 0
    for seed in range(40):
        found = ranked([h for h in held_by(drawn(seed)) if h.n >= 3], seed)
        alarms += bool(side.stands_out(found).any())
    assert alarms <= 5, "false discoveries, one-sided: 2.5 % are expected"
    found = ranked([h for h in held_by(drawn(0, 80, planted=3.0)) if h.n >= 3], 0)
    assert [found.held[w].word for w in np.flatnonzero(side.stands_out(found))] == ["w0"]


def test_a_steady_word_comes_before_a_noisy_one() -> None:
    rng = np.random.default_rng(1)
    texts = [
        Contributions(("steady", "x"), np.array([[0.8 + 0.1 * rng.normal()], [0.0]]), 0.0, 0.0, 1.0) for _ in range(20)
    ]
    texts += [Contributions(("noisy", "x"), np.array([[v], [0.0]]), 0.0, 0.0, 1.0) for v in (0.1, 1.0, 3.0)]
    found = ranked(held_by(texts), 0)
    means = {h.word: m for h, m in zip(found.held, found.mean[:, 0], strict=True)}
    assert means["noisy"] > means["steady"]
    assert found.held[Side(0, 1, "c").order(found)[0]].word == "steady"
    down = ranked(held_by([replace(t, scores=-t.scores) for t in texts]), 0)
    assert down.held[Side(0, -1, "c").order(down)[0]].word == "steady"


# --- kinds of heads, methods, units ---


def test_two_classes_cost_as_one() -> None:
    model = pellucid.load(tiny.build("bert", num_labels=2))
    batch = model.named(tiny.batch(model, (9, 4)))
    found = contributions(model, batch, METHODS.get("decompx"), "words", lambda done, total: None)
    for a, text in zip(pellucid.explain(model, batch, target="all"), found, strict=True):
        np.testing.assert_allclose(text.scores, a.scores - a.scores.mean(1)[:, None], rtol=1e-9, atol=1e-12)
        assert text.gap < 1e-9
    assert found[0].passes == 2


@pytest.mark.parametrize(("labels", "problem"), [(1, None), (3, "multi_label_classification"), (1, "regression")])
def test_logits_that_do_not_compete_stand_for_themselves(labels: int, problem: str | None) -> None:
    model = pellucid.load(tiny.build("bert", num_labels=labels, problem_type=problem))
    batch = pieces()[1]
    found = pellucid.audit(model, batch, "words")
    a = pellucid.explain(model, batch, target="all")
    expected = np.mean([s.scores[[t.text == "w6" for t in s.tokens]].mean(0) for s in a
                        if any(t.text == "w6" for t in s.tokens)], 0)  # fmt: skip
    for c, label in enumerate(model.labels):
        assert rows(found, label)["w6"]["mean"] == pytest.approx(expected[c], rel=1e-9)
    wheres = [f.where for f in found]
    assert wheres == ([f"{model.labels[0]} up", f"{model.labels[0]} down"] if labels == 1 else list(model.labels))
    if labels == 1:
        for f, sign in zip(found, (1, -1), strict=True):
            near = {r["word"]: r["low"] if sign > 0 else -r["high"] for r in found.tables["words"]}
            sure = [r for r in found.tables["words"]
                    if r["q"] <= 0.05 and near[r["word"]] > 0 and sign * (r["mean"] - r["null"]) > 0]  # fmt: skip
            assert f.grade == (STAND_OUT if sure else NONE)
            assert f.counts["words that stand out"] == len(sure)
            assert f.value == max(sure or found.tables["words"], key=lambda r: near[r["word"]])["mean"]


def test_methods_that_ask_for_less() -> None:
    model, batch = pieces()
    blind = replace(model, access=Access.GRADIENTS, net=None, family="unknown")
    with pytest.raises(AccessError, match="'words' needs READOUT"):
        pellucid.audit(blind, batch, "words")
    found = pellucid.audit(blind, batch, "words", method="integrated_gradients")
    assert found.tables["words"]
    assert any("do not add up to the logits" in said for said in found[0].limits)
    outputs = replace(blind, access=Access.OUTPUTS)
    with pytest.raises(InputError, match=r"sums scores.*'leave_one_out_delete'.*units=\"tokens\""):
        pellucid.audit(outputs, batch, "words", method="leave_one_out_delete")
    tokens = pellucid.audit(outputs, batch, "words", method="leave_one_out_delete", units="tokens")
    assert "##w35" in rows(tokens, model.labels[0])


REFUSED = {
    "no sign": ({"method": "attention"}, "speaks for and against"),
    "no method": ({"method": "decompy"}, "decompx"),
    "minimum": ({"minimum": 1}, "minimum=1"),
    "top": ({"top": 0}, "top=0"),
    "units": ({"units": "letters"}, "units"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    given, words = REFUSED[case]
    with pytest.raises(InputError, match=words):
        pellucid.audit(*pieces(4), "words", **given)


def test_words_of_a_real_tokenizer(demo: pellucid.Model, tmp_path: Path) -> None:
    found = pellucid.audit(demo, FILMS, "words", top=3)
    table = rows(found, demo.labels[0])
    assert table["warm"]["n"] == 4, "Warm and warm are one word"
    assert table["bad"]["n"] == 4
    assert (table["the"]["n"], table["the"]["count"]) == (3, 4)
    assert {".", ","} <= set(table)
    assert not {"[CLS]", "[cls]"} & set(table)
    assert all(r["n"] >= 3 for r in table.values())
    without = pellucid.audit(demo, FILMS, "words", punctuation=False)
    assert not {".", ",", "!"} & set(rows(without, demo.labels[0]))
    assert without.tables["words"][0]["null"] != found.tables["words"][0]["null"]
    assert {p.name for p in found.save(tmp_path)} >= {"words.json", "words_words.parquet", "words_class_1.svg"}
    again = pellucid.audit(demo, FILMS, "words", top=3)
    assert found.tables == again.tables
    assert [f.to_dict() for f in found] == [f.to_dict() for f in again]
    assert found.tables != pellucid.audit(demo, FILMS, "words", seed=1).tables


def test_few_texts_no_words_and_no_tokenizer() -> None:
    model, batch = pieces()
    few = pellucid.audit(model, batch.rows(range(6)), "words")
    assert {f.grade for f in few} == {TOO_FEW}
    assert few[0].value is not None
    none = pellucid.audit(model, batch.rows([0, 1]), "words")
    assert {(f.value, f.grade, f.n) for f in none} == {(None, TOO_FEW, 0)}
    assert not none.figures()
    ids = pellucid.audit(model, Batch(batch.input_ids, batch.keep), "words")
    assert "No tokenizer tells the words of these texts, so tokens were counted." in ids[0].limits
    assert "[6]" in rows(ids, model.labels[0])


def test_a_word_that_carries_nothing_is_not_named() -> None:
    case = CASES.get("distractor")
    found = pellucid.audit(case.model(), [" ".join(t) for t in case.texts(40)], "words")
    assert all(abs(rows(found, label)["look"]["mean"]) < 1e-6 for label in ("yes", "no"))
    assert not any(" look " in f.reading for f in found)
