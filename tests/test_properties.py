"""Properties that hold for every input: drawn by hypothesis, on a tiny BERT that reads 16 tokens."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import pellucid
from pellucid import Attribution, Batch, Token
from pellucid.errors import InputError
from pellucid.methods import METHODS, DecompX
from pellucid.methods.attention import recorded
from pellucid.records import read_records, write_records
from pellucid.registry import Registry
from pellucid.run.plan import plan

LIMIT = 16
PIECES = ["the", "film", "is", "good", "bad", "not", "un", "##watch", "##able", "##s", "dull", ",", ".", "plot"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "film", "films", "unwatchable", "good", "goods", "bad", "dull", ",", "plots", "not", "xylophone"]


@cache
def tokenizer() -> Any:
    """WordPiece over a few pieces, lower-cased, with BERT's special tokens."""
    raw = Tokenizer(models.WordPiece({p: i for i, p in enumerate([*SPECIAL, *PIECES])}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    return tf.PreTrainedTokenizerFast(tokenizer_object=raw, **names)


@cache
def small() -> pellucid.Model:
    """A two-layer BERT in float64 with labels no, maybe, yes and the tokenizer above."""
    hf = tiny.build(
        "bert",
        vocab_size=len(SPECIAL) + len(PIECES),
        num_hidden_layers=2,
        max_position_embeddings=LIMIT,
        id2label={0: "no", 1: "maybe", 2: "yes"},
        label2id={"no": 0, "maybe": 1, "yes": 2},
    )
    return pellucid.load(hf, tokenizer())


def examples(n: int) -> Any:
    """The same n draws in every run, however slow the machine."""
    return settings(max_examples=n, deadline=None, derandomize=True)


def close(ours: Any, theirs: Any, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def words_of(least: int, most: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(WORDS), min_size=least, max_size=most).map(" ".join)


TEXTS = words_of(1, 4)
LONG = words_of(18, 45)
ADDITIVE = ["decompx", "gradient_x_input", "integrated_gradients"]


# --- the target ---


@examples(3)
@given(TEXTS, st.integers(0, 2), st.integers(0, 2))
@pytest.mark.parametrize("method", METHODS.names())
def test_a_contrast_is_the_difference_of_two_columns(method: str, text: str, a: int, b: int) -> None:
    """Scores, share of nobody and explained logit; a class by itself is its own column."""
    asked = tiny.method(method, small())
    every = pellucid.explain(small(), text, asked, "all")
    both = pellucid.explain(small(), text, asked, (a, b))
    one = pellucid.explain(small(), text, asked, a)
    close(both.scores, every.scores[:, a] - every.scores[:, b])
    close(one.scores, every.scores[:, a])
    if every.explained is not None:
        close([both.explained, both.unallocated], [x[a] - x[b] for x in (every.explained, every.unallocated)])


# --- words ---


@examples(12)
@given(st.one_of(words_of(1, 6), st.tuples(words_of(1, 2), words_of(1, 2))))
@pytest.mark.parametrize("method", ADDITIVE)
def test_words_sum_their_tokens(method: str, text: Any) -> None:
    """The sum, the share of nobody and the explained logit stay; a word is its pieces, a special token itself."""
    a = pellucid.explain(small(), text, method, "all")
    w = a.words()
    close(w.scores.sum(0), a.scores.sum(0))
    close([w.explained, w.unallocated, w.gap], [a.explained, a.unallocated, a.gap])
    parts = [text] if isinstance(text, str) else list(text)
    shown = [word for part in parts for word in part.split()]
    assert [t.text for t in w.tokens if not t.special] == shown
    assert [t.text for t in w.tokens if t.special] == [t.text for t in a.tokens if t.special]
    for t, score in zip(w.tokens, w.scores, strict=True):
        if not t.special:
            pieces = [
                i for i, p in enumerate(a.tokens) if (p.sequence, p.word, p.special) == (t.sequence, t.word, False)
            ]
            close(score, a.scores[pieces].sum(0))


# --- batches ---


@examples(6)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.integers(1, 60))
@pytest.mark.parametrize("method", ["decompx", "integrated_gradients", "leave_one_out", "rollout", "random"])
def test_batch_mates_and_padding_change_nothing(method: str, texts: list[str], budget: int) -> None:
    """A list in any batching is its texts one by one, in their order."""
    together = pellucid.explain(small(), texts, method, batch_tokens=budget)
    for text, a in zip(texts, together, strict=True):
        alone = pellucid.explain(small(), text, method)
        assert a.text == text
        assert (a.tokens, a.target, a.prediction) == (alone.tokens, alone.target, alone.prediction)
        close(a.scores, alone.scores)
        close([a.explained, a.unallocated], [alone.explained, alone.unallocated])


# --- random architectures ---

HEADS = st.sampled_from([1, 2, 3])
ACTS = st.sampled_from(["gelu", "relu", "gelu_new", "silu"])


@cache
def drawn(kind: str, heads: int, width: int, depth: int, act: str, seed: int) -> Any:
    """A random Hugging Face model of this shape in float64."""
    if kind == "distilbert":
        act = act if act in ("gelu", "relu", "silu") else "gelu"
        over = {"dim": heads * width, "n_heads": heads, "n_layers": depth, "hidden_dim": width + 3, "activation": act}
    else:
        over = {"hidden_size": heads * width, "num_attention_heads": heads, "num_hidden_layers": depth}
        over |= {"intermediate_size": width + 3, "hidden_activation" if "modern" in kind else "hidden_act": act}
    if kind == "albert":
        over["num_hidden_groups"] = 1
    return tiny.build(kind, attention="eager" if kind == "electra" else None, seed=seed, **over)


SHAPES = st.tuples(
    st.sampled_from(["bert", "roberta", "distilbert", "albert", "electra", "modernbert", "modernbert_mean"]),
    HEADS, st.sampled_from([4, 6, 8]), st.integers(1, 3), ACTS, st.integers(0, 3),
)  # fmt: skip


@examples(25)
@given(SHAPES, st.integers(1, 12), st.sampled_from(["token", "absdot", "norm", "equal"]), st.booleans())
def test_every_architecture_is_complete(shape: Any, n: int, rule: Any, tangent: bool) -> None:
    """explained = unallocated + sum of scores, and explained is Hugging Face's logit."""
    hf = drawn(*shape)
    model = pellucid.load(hf)
    batch = tiny.batch(model, (n, 1))
    method = DecompX(bias=rule, slope="tangent" if tangent else "zero_origin")
    theirs = model.hf_logits(batch).detach()
    for a, logits in zip(pellucid.explain(model, batch, method, "all"), theirs, strict=True):
        assert a.complete
        close(a.gap, np.zeros(3))
        close(a.explained, logits, 1e-6)


@examples(15)
@given(SHAPES, st.integers(1, 12))
def test_attention_rows_sum_to_one(shape: Any, n: int) -> None:
    """In every layer and head, over the real tokens; so do the scores of attention and rollout."""
    model = pellucid.load(drawn(*shape))
    batch = tiny.batch(model, (n, 1))
    for alpha in recorded(model, batch)[1]:
        close(alpha.sum(-1), np.ones(alpha.shape[:-1]))
        for a, real in zip(alpha, batch.lengths, strict=True):  # rows of padding are read by nothing
            assert (a[:, :real, real:] == 0).all()
    for method in ("attention", "rollout"):
        for a in pellucid.explain(model, batch, method):
            close([a.scores.sum(), min(a.scores.min(), 0.0)], [1.0, 0.0])


@examples(6)
@given(st.floats(-5, 5).filter(lambda s: abs(s) > 0.1), st.sampled_from(["bert", "distilbert", "modernbert_mean"]))
def test_scaling_the_classifier_scales_the_scores(s: float, kind: str) -> None:
    """s times the last weights and biases: s times the scores, the share of nobody and the logit, class by class."""
    plain, scaled = tiny.opened(kind), tiny.build(kind)
    with torch.no_grad():
        for p in scaled.classifier.parameters():
            p.mul_(s)
    batch = tiny.batch(plain, (7,))
    for method in ("decompx", DecompX(bias="norm"), "gradient_x_input", "leave_one_out_delete", "integrated_gradients"):
        a, b = (pellucid.explain(m, batch, method, "all")[0] for m in (plain, pellucid.load(scaled)))
        close(b.scores, s * a.scores, 1e-8)
        close([b.explained, b.unallocated], [s * a.explained, s * a.unallocated], 1e-8)


# --- windows ---


def by_windows(text: Any, method: Any, target: Any) -> tuple[np.ndarray, list[Attribution], list[list[int]]]:
    """Stitched scores as the contract tells, the windows' own attributions, and the columns of each window."""
    planned = plan(small(), [text], "window")
    columns = [c.tolist() for c in planned.columns]
    ids, types = planned.whole.input_ids[0], planned.whole.token_type_ids
    own = [
        pellucid.explain(
            small(), Batch(ids[None, c], token_type_ids=None if types is None else types[:, c]), method, target
        )[0]
        for c in columns
    ]
    total = np.zeros((len(ids), *own[0].scores.shape[1:]))
    for c, a in zip(columns, own, strict=True):
        total[c] += a.scores
    return total / len(own), own, columns


@examples(6)
@given(st.one_of(LONG, st.tuples(words_of(1, 2), LONG), st.tuples(LONG, words_of(1, 2))))
@pytest.mark.parametrize("method", ["decompx", "gradient_x_input", "rollout"])
def test_windows_stitch(method: str, text: Any) -> None:
    """A score is the sum over the windows that hold the token divided by all windows; the rest are means."""
    stitched, own, columns = by_windows(text, method, "all")
    a = pellucid.explain(small(), text, method, "all", long="window")
    close(a.scores, stitched)
    close(a.explained, np.mean([o.explained for o in own], 0))
    close(a.unallocated, np.mean([o.unallocated for o in own], 0))
    close(a.gap, np.mean([o.gap for o in own], 0))
    assert a.origin["windows"] == len(own) > 1
    special = {i for i, t in enumerate(a.tokens) if t.special}
    assert set().union(*columns) == set(range(len(a.tokens)))
    for c in columns:
        assert len(c) == LIMIT
        assert special <= set(c)
    best = int(np.mean([o.explained for o in own], 0).argmax())
    predicted = pellucid.explain(small(), text, method, long="window")
    assert (predicted.target, predicted.prediction) == (best, small().labels[best])
    close(predicted.scores, stitched[:, best])


@examples(20)
@given(LONG)
def test_windows_overlap(text: str) -> None:
    """Neighbours share at least a quarter of a window's own tokens, and no window holds another."""
    columns = [[j for j in c.tolist() if j > 0] for c in plan(small(), [text], "window").columns]
    starts = [c[0] for c in columns]
    assert starts == sorted(set(starts))
    size = LIMIT - 2
    assert max(np.diff(starts)) <= size - size // 4


@examples(10)
@given(TEXTS)
def test_a_short_text_has_one_window(text: str) -> None:
    """Then "window" and "truncate" are the plain explanation."""
    plain = pellucid.explain(small(), text, target="all")
    for how in ("window", "truncate"):
        a = pellucid.explain(small(), text, target="all", long=how)
        assert np.array_equal(a.scores, plain.scores)
        assert not {"windows", "truncated"} & set(a.origin)


@examples(8)
@given(st.lists(st.one_of(TEXTS, LONG), min_size=1, max_size=4), st.integers(1, 100))
def test_windows_of_many_texts_do_not_mix(texts: list[str], budget: int) -> None:
    """Long and short texts together, in any batching, are those texts one by one."""
    together = pellucid.explain(small(), texts, target=(2, 0), long="window", batch_tokens=budget)
    for text, a in zip(texts, together, strict=True):
        alone = pellucid.explain(small(), text, target=(2, 0), long="window")
        assert a.tokens == alone.tokens
        close(a.scores, alone.scores)
        close([a.explained, a.gap], [alone.explained, alone.gap])


@examples(8)
@given(LONG)
def test_truncating_keeps_the_beginning(text: str) -> None:
    """The first tokens and [SEP], as if the text ended there; what was cut is in `origin`."""
    a = pellucid.explain(small(), text, target="all", long="truncate")
    ids = tokenizer()(text)["input_ids"]
    kept = [*ids[: LIMIT - 1], ids[-1]]
    assert [t.id for t in a.tokens] == kept
    assert a.origin["truncated"] == {"kept": LIMIT, "of": len(ids)}
    close(a.scores, pellucid.explain(small(), Batch(torch.tensor([kept])), target="all")[0].scores)


# --- names and files ---


@examples(40)
@given(st.lists(st.text("abcdefgh_", min_size=4, max_size=12), min_size=1, max_size=6, unique=True), st.data())
def test_a_near_miss_is_suggested(names: list[str], data: st.DataObject) -> None:
    """One letter too few still finds the name, the message lists all, and the exact name gives the thing."""
    things = Registry[int]("fruit")
    for i, name in enumerate(names):
        things.add(name, i)
    i = data.draw(st.integers(0, len(names) - 1))
    assert things.get(names[i]) == i
    asked = names[i][:-1]
    assume(asked not in names)
    with pytest.raises(InputError) as e:
        things.get(asked)
    assert "Did you mean" in str(e.value)
    assert all(name in str(e.value) for name in names)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PIECE = st.builds(
    Token, st.text(), st.integers(0, 10**6), st.none() | st.integers(0, 99), st.none() | st.integers(0, 99),
    st.booleans(), st.none() | st.integers(0, 99), st.sampled_from([None, 0, 1]),
)  # fmt: skip


@st.composite
def attributions(draw: st.DrawFn) -> Attribution:
    n, every = draw(st.integers(1, 5)), draw(st.booleans())
    shape = (n, 2) if every else (n,)
    scores = np.array(draw(st.lists(NUMBERS, min_size=n * (1 + every), max_size=n * (1 + every)))).reshape(shape)
    left = np.array(draw(st.lists(NUMBERS, min_size=2, max_size=2))) if every else draw(NUMBERS)
    return Attribution(
        tokens=tuple(draw(st.lists(PIECE, min_size=n, max_size=n))),
        scores=scores,
        unallocated=left if draw(st.booleans()) else None,
        explained=left,
        target="all" if every else draw(st.one_of(st.integers(0, 1), st.just((1, 0)))),
        label=draw(st.text()),
        prediction=draw(st.text()),
        probability=draw(st.none() | st.floats(0, 1)),
        method="decompx",
        params={"bias": draw(st.text()), "steps": draw(st.none() | st.integers(0, 9))},
        text=draw(st.none() | st.text() | st.tuples(st.text(), st.text())),
        labels=(draw(st.text()), draw(st.text())),
        origin={"model": draw(st.text())},
    )


def same(a: Attribution, b: Attribution) -> bool:
    """Equal in everything that was stored, numbers to the last bit."""
    numbers = all(
        (x is None) == (y is None) and (x is None or np.array_equal(x, y))
        for x, y in ((a.scores, b.scores), (a.unallocated, b.unallocated), (a.explained, b.explained))
    )
    fields = ("tokens", "target", "label", "prediction", "probability", "method", "params", "text", "labels", "origin")
    return numbers and all(getattr(a, f) == getattr(b, f) for f in fields)


@examples(60)
@given(items=st.lists(attributions(), min_size=1, max_size=3))
@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_files_give_back_what_was_written(suffix: str, items: list[Attribution], tmp_path_factory: Any) -> None:
    """Any text, emoji and control characters included, any finite number, single targets beside all classes."""
    path: Path = tmp_path_factory.mktemp("records") / f"a.{suffix}"
    write_records(items, path)
    back = read_records(path)
    assert len(back) == len(items)
    assert all(same(a, b) for a, b in zip(items, back, strict=True))
    assert Attribution.from_dict(items[0].to_dict()).to_dict() == items[0].to_dict()
