"""The models that one can train: their definitions, that padding and batch mates are nothing to them, and their access.

Oracles are written text by text and word by word, in numpy, scipy or torch's own packed recurrent networks.
"""

import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments

import pellucid
from pellucid import METHODS, Access, Batch, zoo
from pellucid.audits.erasure.places import place
from pellucid.audits.identifiability.alternatives import Seen
from pellucid.encoder.readout import readout
from pellucid.errors import AccessError, InputError, UnsupportedModel
from pellucid.methods import DecompX
from pellucid.zoo.encoders import encoder_of
from pellucid.zoo.layout import Sentences
from pellucid.zoo.pooling import Normaliser, sparsemax

FINE = 1e-9
ENCODERS = ["identity", "embed", "cnn", "bilstm", "bigru", "transformer", "pretrained"]
SCORERS = ["additive", "deep", "scaled_dot", "linear"]
NORMALISERS = ["softmax", "gumbel", "sparsemax", "uniform"]
INNER = {
    "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
    "vocab_size": 60, "max_position_embeddings": 40,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "vocab_size": 60, "num_labels": 3, "embedding_size": 12, "hidden_size": 8, "sentence_end_ids": [5, 6],
    "max_sentence_tokens": 4,
}  # fmt: skip
LENGTHS = (13, 6, 1)
ENDS = (5, 6)


def build(dtype: torch.dtype = torch.float64, seed: int = 0, **fields: Any) -> Any:
    """A small attention classifier in evaluation mode, its weights far from their first values."""
    if fields.get("encoder") == "pretrained":
        fields["pretrained"] = INNER
    torch.manual_seed(seed)
    hf = AutoModelForSequenceClassification.from_config(zoo.AttentionClassifierConfig(**{**SMALL, **fields}))
    with torch.no_grad():
        for p in hf.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return hf.to(dtype).eval()


def ids(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random ids and their mask, padded on the right."""
    n = max(lengths)
    made = torch.randint(3, 30, (len(lengths), n), generator=torch.Generator().manual_seed(seed))
    keep = torch.arange(n) < torch.tensor(lengths)[:, None]
    return made * keep, keep


def run(hf: Any, x: Tensor, keep: Tensor) -> Any:
    with torch.no_grad():
        return hf(x, keep.long(), output_attentions=True, output_hidden_states=True)


@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_cell(encoder: str, hierarchical: bool) -> None:
    """Weights on the simplex, nothing on padding, logits of one text whatever stands beside it, finite gradients."""
    x, keep = ids()
    for scorer, normaliser in product(SCORERS, NORMALISERS):
        hf = build(encoder=encoder, scorer=scorer, normaliser=normaliser, hierarchical=hierarchical)
        seen = run(hf, x, keep)
        alpha, states = seen.attentions[-1][:, 0, 0].numpy(), seen.hidden_states[-1].numpy()
        np.testing.assert_allclose(alpha.sum(-1), 1, atol=1e-12)
        assert (alpha >= 0).all()
        assert (seen.attentions[0][:, 0, 0][~keep] == 0).all()
        w, b = hf.classifier.weight.detach().numpy(), hf.classifier.bias.detach().numpy()
        ours = np.array(
            [sum(a * (w @ h) for a, h in zip(*text, strict=True)) + b for text in zip(alpha, states, strict=True)]
        )
        np.testing.assert_allclose(seen.logits, ours, atol=1e-12)
        for i, n in enumerate(LENGTHS):
            np.testing.assert_allclose(
                run(hf, x[i : i + 1, :n], keep[i : i + 1, :n]).logits[0], seen.logits[i], atol=1e-12
            )
        for training in (False, True):
            hf.train(training)
            hf.zero_grad()
            hf(x, keep.long(), labels=torch.tensor([0, 1, 2])).loss.backward()
            grads = {k: p.grad for k, p in hf.named_parameters() if p.grad is not None}
            assert all(bool(g.isfinite().all()) for g in grads.values())
            assert bool(grads["classifier.weight"].any())


@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_padding_may_stand_anywhere(encoder: str, hierarchical: bool) -> None:
    hf = build(encoder=encoder, hierarchical=hierarchical, dtype=torch.float32)
    x, keep = ids()
    expected = run(hf, x, keep)
    n, more = x.shape[1], 3
    moved, there = torch.zeros(3, n + more, dtype=torch.long), torch.zeros(3, n + more, dtype=torch.bool)
    for i, length in enumerate(LENGTHS):
        at = torch.randperm(n + more, generator=torch.Generator().manual_seed(i))[:length].sort().values
        moved[i, at], there[i, at] = x[i, :length], True
    moved[~there] = 7
    found = run(hf, moved, there)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        found.attentions[0][:, 0, 0][there], expected.attentions[0][:, 0, 0][keep], rtol=0, atol=1e-6
    )
    assert torch.equal(found.sources[there], expected.sources[keep])
    assert (found.sources[~there] == -1).all()


def test_states_of_each_encoder_against_an_oracle() -> None:
    """tanh(W e + b), convolutions by hand, torch's packed bidirectional networks."""
    torch.manual_seed(3)
    config = zoo.AttentionClassifierConfig(**SMALL)
    _, keep = ids((7, 4, 1))
    x = torch.randn(3, 7, 12, dtype=torch.float64)
    made = {kind: encoder_of(kind, 12, config).double() for kind in ("identity", "embed", "cnn", "bilstm", "bigru")}
    with torch.no_grad():
        found = {kind: encoder(x, keep) for kind, encoder in made.items()}
    assert torch.equal(found["identity"][keep], x[keep])
    dense: Any = made["embed"].dense
    e = np.tanh(x[keep].numpy() @ dense.weight.detach().numpy().T + dense.bias.detach().numpy())
    np.testing.assert_allclose(found["embed"][keep], e, atol=1e-12)
    for i, n in enumerate((7, 4, 1)):
        np.testing.assert_allclose(found["cnn"][i, :n], _convolved(made["cnn"], x[i, :n].numpy()), atol=1e-12)
    for kind, network in (("bilstm", nn.LSTM), ("bigru", nn.GRU)):
        whole = network(12, 4, batch_first=True, bidirectional=True).double()
        with torch.no_grad():
            for name, p in made[kind].named_parameters():
                direction, weight = name.split(".")
                getattr(whole, weight + ("_reverse" if direction == "back" else "")).copy_(p)
            packed = pack_padded_sequence(x, torch.tensor([7, 4, 1]), batch_first=True)
            expected = pad_packed_sequence(whole(packed)[0], batch_first=True)[0]
        torch.testing.assert_close(found[kind], expected, rtol=0, atol=1e-12)


def _convolved(encoder: Any, x: np.ndarray) -> np.ndarray:
    out = []
    for conv in encoder.convolutions:
        w, b = conv.weight.detach().numpy(), conv.bias.detach().numpy()
        half, n = w.shape[2] // 2, len(x)
        rows = [
            b + sum(w[:, :, j] @ x[t + j - half] for j in range(w.shape[2]) if 0 <= t + j - half < n) for t in range(n)
        ]
        out.append(np.maximum(np.array(rows), 0))
    return np.concatenate(out, 1)


def test_deep_of_two_layers_with_tanh_is_additive() -> None:
    x, keep = ids()
    additive = build(scorer="additive", scorer_size=5)
    deep = build(scorer="deep", scorer_size=5, deep_layers=2, deep_activation="tanh")
    deep.load_state_dict(additive.state_dict())
    torch.testing.assert_close(
        run(deep, x, keep).attentions[0], run(additive, x, keep).attentions[0], rtol=0, atol=1e-12
    )
    three = build(scorer="deep", scorer_size=5, deep_layers=3, deep_activation="tanh")
    assert sum(isinstance(m, nn.Linear) for m in three.word_pool.scorer.layers) == 2


@pytest.mark.parametrize(("fields", "oracle"), [
    ({"scorer": "additive"}, lambda p, h: p["query"] @ np.tanh(p["layers.0.w"] @ h + p["layers.0.b"])),
    ({"scorer": "deep", "deep_layers": 3}, lambda p, h: p["query"] @ _relu(p, 2, _relu(p, 0, h))),
    ({"scorer": "scaled_dot"}, lambda p, h: p["query"] @ h / np.sqrt(8)),
    ({"scorer": "scaled_dot", "key_projection": True, "scorer_size": 3},
     lambda p, h: p["query"] @ (p["layers.w"] @ h) / np.sqrt(3)),
    ({"scorer": "linear"}, lambda p, h: p["query"] @ h),
])  # fmt: skip
@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_scores_against_their_formulas(fields: dict[str, Any], oracle: Any, tau: float) -> None:
    hf = build(**fields, tau=tau)
    p = {
        name.replace("weight", "w").replace("bias", "b").removesuffix(".w") if "query" in name
        else name.replace("weight", "w").replace("bias", "b"): v.detach().numpy()
        for name, v in hf.word_pool.scorer.named_parameters()
    }  # fmt: skip
    x, keep = ids()
    seen = run(hf, x, keep)
    for i, n in enumerate(LENGTHS):
        s = np.array([oracle(p, h)[0] for h in seen.hidden_states[-1][i, :n].numpy()]) / tau
        np.testing.assert_allclose(seen.attentions[0][i, 0, 0, :n], np.exp(s) / np.exp(s).sum(), atol=1e-12)


def _relu(p: dict[str, np.ndarray], i: int, h: np.ndarray) -> np.ndarray:
    return np.maximum(p[f"layers.{i}.w"] @ h + p[f"layers.{i}.b"], 0)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=9), st.integers(0, 4))
def test_sparsemax_is_the_projection_on_the_simplex(scores: list[float], padding: int) -> None:
    """The root of sum(max(z - t, 0)) = 1."""
    z = np.array(scores)
    t = brentq(lambda t: np.maximum(z - t, 0).sum() - 1, z.min() - 2, z.max())
    row = torch.tensor([scores + [99.0] * padding], dtype=torch.float64)
    keep = torch.arange(row.shape[1])[None] < len(scores)
    found = sparsemax(row, keep)[0].numpy()
    np.testing.assert_allclose(found[: len(scores)], np.maximum(z - t, 0), atol=1e-8)
    assert (found[len(scores) :] == 0).all()
    np.testing.assert_allclose(found.sum(), 1, atol=1e-12)


@pytest.mark.parametrize(("value", "dtype"), [(1030, torch.bfloat16), (5000, torch.float16), (1e8, torch.float32)])
def test_sparsemax_of_large_scores_leaves_padding_alone(value: float, dtype: torch.dtype) -> None:
    keep = torch.tensor([[True, False, False], [True, True, False]])
    found = sparsemax(torch.full((2, 3), value, dtype=dtype), keep)
    assert found.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]


def test_frequencies_of_hard_gumbel_are_the_softmax() -> None:
    """200,000 draws: within 4 standard errors of softmax(s), whatever the tau."""
    config = zoo.AttentionClassifierConfig(**SMALL, normaliser="gumbel", gumbel_hard=True, tau=0.3)
    normalise = Normaliser(config).train()
    normalise.generator = torch.Generator().manual_seed(0)
    s, keep = torch.tensor([[1.0, -0.5, 0.2, 3.0]], dtype=torch.float64), torch.tensor([[True, True, True, False]])
    draws = 200_000
    alpha = normalise(s.expand(draws, -1), keep.expand(draws, -1))
    assert set(alpha.round(decimals=9).unique().tolist()) == {0.0, 1.0}
    expected = s[0, :3].softmax(-1)
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((alpha.mean(0)[:3] - expected).abs() < 4 * error).all()
    assert (alpha[:, 3] == 0).all()


def test_what_gumbel_attention_does_in_evaluation() -> None:
    """ "mean": softmax(s / tau). "expect": near the mean of many draws, the same at every call and beside longer texts.
    "sample": another at each call, the same from a generator with the same seed."""
    fields = {**SMALL, "normaliser": "gumbel", "tau": 0.5}
    s = torch.tensor([[1.0, -0.5, 0.2]], dtype=torch.float64)
    keep = torch.ones(1, 3, dtype=torch.bool)

    def normaliser(**more: Any) -> Normaliser:
        return Normaliser(zoo.AttentionClassifierConfig(**fields, **more)).eval()

    torch.testing.assert_close(normaliser(gumbel_eval="mean")(s, keep), (s / 0.5).softmax(-1))
    expect = normaliser(gumbel_eval="expect", gumbel_draws=4000)
    found = expect(s, keep)
    assert torch.equal(found, expect(s, keep))
    longer, there = torch.cat([s, s], 1), torch.tensor([[True] * 3 + [False] * 3])
    torch.testing.assert_close(expect(longer, there)[:, :3], found)
    sample = normaliser(gumbel_eval="sample")
    sample.generator = torch.Generator().manual_seed(5)
    draws = torch.cat([sample(s, keep) for _ in range(4000)])
    assert (draws.std(0) > 0.05).all()
    assert ((draws.mean(0) - found[0]).abs() < 5 * draws.std(0) * (2 / 4000) ** 0.5).all()
    assert (found - (s / 0.5).softmax(-1)).abs().max() > 0.02  # not the softmax of the mean
    hard = normaliser(gumbel_eval="expect", gumbel_hard=True)
    torch.testing.assert_close(hard(s, keep), s.softmax(-1))
    sharp = Normaliser(
        zoo.AttentionClassifierConfig(**{**fields, "tau": 1e-3}, gumbel_eval="expect", gumbel_draws=20_000)
    )
    torch.testing.assert_close(sharp.eval()(s, keep), s.softmax(-1), rtol=0, atol=0.02)
    sample.generator.manual_seed(5)
    torch.testing.assert_close(sample(s, keep)[0], draws[0])


def _sentences(row: list[int], longest: int) -> list[list[int]]:
    """Positions by sentence, in plain loops."""
    out: list[list[int]] = [[]]
    for i, token in enumerate(row):
        ended = i > 0 and row[i - 1] in ENDS and token not in ENDS
        if i and (ended or len(out[-1]) == longest):
            out.append([])
        out[-1].append(i)
    return out


@given(st.lists(st.lists(st.integers(3, 9), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 5))
def test_where_sentences_end(rows: list[list[int]], longest: int) -> None:
    n = max(map(len, rows))
    x = torch.tensor([row + [5] * (n - len(row)) for row in rows])
    keep = torch.tensor([[i < len(row) for i in range(n)] for row in rows])
    found = Sentences.of(x, keep, ENDS, longest)
    for i, row in enumerate(rows):
        for s, some in enumerate(_sentences(row, longest)):
            assert found.index[i, some].tolist() == [s] * len(some)
            assert found.place[i, some].tolist() == list(range(len(some)))
    values = torch.arange(x.numel(), dtype=torch.float64).reshape(*x.shape, 1) + 1
    split = found.split(values)
    assert len(split) == sum(len(_sentences(row, longest)) for row in rows)
    torch.testing.assert_close(found.joined(split), values * keep[..., None])
    by_text = found.by_text(split[:, 0])
    firsts = [[values[i, some[0]].item() for some in _sentences(row, longest)] for i, row in enumerate(rows)]
    assert [[v for v in text[:, 0].tolist() if v] for text in by_text] == firsts


@pytest.mark.parametrize("encoder", ["identity", "cnn", "bigru"])
def test_a_hierarchical_model_reads_sentence_by_sentence(encoder: str) -> None:
    """Each sentence encoded and pooled alone, then their vectors: no word sees another sentence before that."""
    hf = build(encoder=encoder, hierarchical=True)
    x, keep = ids((13, 9, 2), seed=4)
    seen = run(hf, x, keep)
    for i, n in enumerate((13, 9, 2)):
        vectors, weights = [], []
        for some in _sentences(x[i, :n].tolist(), 4):
            with torch.no_grad():
                real = torch.ones(1, len(some), dtype=torch.bool)
                context, alpha = hf.word_pool(hf.words(hf.embeddings(x[i : i + 1, some]), real), real)
            vectors.append(context)
            weights.append(alpha[0])
        with torch.no_grad():
            real = torch.ones(1, len(vectors), dtype=torch.bool)
            states = hf.sentences(torch.stack(vectors, 1), real)
            context, beta = hf.sentence_pool(states, real)
        torch.testing.assert_close(seen.logits[i], hf.classifier(context)[0].detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(seen.attentions[0][i, 0, 0, :n], torch.cat(weights), rtol=0, atol=1e-12)
        torch.testing.assert_close(seen.attentions[1][i, 0, 0, : len(vectors)], beta[0], rtol=0, atol=1e-12)


# the identifiable encoder


def identifiable(seed: int = 0, **fields: Any) -> Any:
    """One in float64 and evaluation mode, its weights far from their first values."""
    torch.manual_seed(seed)
    config = zoo.IdentifiableEncoderConfig(**{"vocab_size": 60, "num_labels": 3, "hidden_size": 12, **fields})
    hf = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for p in hf.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return hf.double().eval()


def _by_hand(hf: Any, row: np.ndarray) -> np.ndarray:
    """Logits of one text in numpy, head by head."""
    c, w = hf.config, {k: v.detach().numpy() for k, v in hf.named_parameters()}

    def line(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + c.layer_norm_eps)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.weight"][row]
    if c.positions == "learnt":
        x = x + w["positions.weight"][: len(row)]
    elif c.positions == "sinusoidal":
        for t, j in product(range(len(row)), range(c.hidden_size)):
            angle = t / 10_000 ** (2 * (j // 2) / c.hidden_size)
            x[t, j] += np.sin(angle) if j % 2 == 0 else np.cos(angle)
    x = norm("embedding_norm", x)
    for i in range(c.num_hidden_layers):
        q, k, v = (line(f"blocks.{i}.{name}", x) for name in ("query", "key", "value"))
        heads = []
        for h in range(c.num_attention_heads):
            dk, dv = slice(h * c.key_size, (h + 1) * c.key_size), slice(h * c.value_size, (h + 1) * c.value_size)
            a = np.exp(q[:, dk] @ k[:, dk].T / np.sqrt(c.key_size))
            heads.append(a / a.sum(-1, keepdims=True) @ v[:, dv])
        together = sum(heads) if c.combine == "add" else np.concatenate(heads, -1)
        x = norm(f"blocks.{i}.attention_norm", x + line(f"blocks.{i}.output", together))
        x = norm(f"blocks.{i}.output_norm", x + line(f"blocks.{i}.down", np.maximum(line(f"blocks.{i}.up", x), 0)))
    return line("classifier", x[0] if c.pool == "first" else x.mean(0))


@pytest.mark.parametrize("fields", [
    {}, {"combine": "add"}, {"combine": "add", "value_size": 5, "positions": "learnt", "pool": "mean"},
    {"value_size": 9, "positions": "none", "num_hidden_layers": 2, "key_size": 2},
])  # fmt: skip
def test_the_identifiable_encoder_by_hand(fields: dict[str, Any]) -> None:
    """Heads truly added or concatenated, d_k^-0.5, no attention to padding, batch mates without effect."""
    hf = identifiable(**fields)
    x, keep = ids()
    with torch.no_grad():
        found = hf(x, keep.long()).logits
    for i, n in enumerate(LENGTHS):
        np.testing.assert_allclose(found[i], _by_hand(hf, x[i, :n].numpy()), atol=1e-10)


@pytest.mark.parametrize(("n", "value_size"), [(4, 6), (6, 6), (15, 6), (10, 12)])
def test_rank_of_a_heads_values(n: int, value_size: int) -> None:
    model = pellucid.load(identifiable(combine="add", value_size=value_size))
    seen = Seen.of(model, tiny.batch(model, (n,)))
    for v in seen.v[0].numpy():
        assert np.linalg.matrix_rank(v) == min(n, value_size)


def test_added_heads_are_identifiable_one_by_one_and_not_together() -> None:
    """d_v = d = 12 and four heads, 10 tokens: each head's rows are unique, the layer's output leaves them open."""
    model = pellucid.load(identifiable(combine="add"))
    batch = model.named(tiny.batch(model, (10,) * 12))
    found = {f.name: f for f in pellucid.audit(model, batch, "identifiability", rows=1) if not f.where}
    assert found["unique_given_head_output"].value == 1
    assert found["unique_given_layer_output"].value == 0
    assert "layer's output" in found["unique_given_layer_output"].reading
    short = model.named(tiny.batch(model, (3,) * 12))
    assert {f.value for f in pellucid.audit(model, short, "identifiability", rows=1) if "unique_given_l" in f.name} == {
        1.0
    }


# as Hugging Face models, and opened by pellucid.load

CONFIGS = list(zoo.ZOO.values())


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_of_sizes_alone(config: Any, tmp_path: Path) -> None:
    """Builds, is known to the Auto classes, is saved and opened with the same logits, explained and audited."""
    made = config(vocab_size=60, num_labels=3)
    assert made.model_type.startswith("pellucid_")
    hf = AutoModelForSequenceClassification.from_config(made).eval()
    hf.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is config
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    x, keep = ids()
    with torch.no_grad():
        assert torch.equal(again(x, keep.long()).logits, hf(x, keep.long()).logits)
    model = pellucid.load(tmp_path)
    assert model.family == made.model_type
    assert model.parity is not None
    assert model.parity < 1e-5
    batch = model.named(tiny.batch(model, (9, 6)))
    assert abs(pellucid.explain(model, batch)[0].gap) < 1e-5
    assert len(pellucid.audit(model, batch, "erasure", adversaries=0)) > 5


def test_a_saved_model_opens_where_the_zoo_was_never_imported(tmp_path: Path) -> None:
    build(torch.float32, hierarchical=True).save_pretrained(tmp_path)
    code = f"import pellucid; print(pellucid.load({str(tmp_path)!r}).access.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "READOUT", done.stderr[-2000:]


@pytest.mark.parametrize(("family", "dtype"), [
    ("bert", torch.float32), ("bert", torch.float16), ("distilbert", torch.float32), ("roberta", torch.bfloat16),
])  # fmt: skip
def test_an_encoder_is_taken_over_with_its_weights(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """In float32 whatever it was saved in; token types reach those that read them; the table of words can grow."""
    inner = tiny.build(family, dtype).base_model
    inner.save_pretrained(tmp_path / "inner")
    inner = inner.float()
    hf = zoo.AttentionClassifierForSequenceClassification.from_encoder(str(tmp_path / "inner"), num_labels=2).eval()
    assert {p.dtype for p in hf.parameters()} == {torch.float32}
    x, keep = ids()
    x = torch.where(keep, x, hf.config.pad_token_id or 0)
    with torch.no_grad():
        expected = inner(x, attention_mask=keep.long()).last_hidden_state
        found = hf(x, keep.long(), torch.zeros_like(x), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found[keep], expected[keep], rtol=1e-4, atol=1e-5)
    hf.resize_token_embeddings(70)
    hf.save_pretrained(tmp_path / "whole")
    model = pellucid.load(tmp_path / "whole", dtype=torch.float64)
    assert (model.vocabulary, model.limit) == (70, pellucid.load(tiny.build(family)).limit)


@pytest.mark.parametrize("config", CONFIGS)
def test_trainer_trains_evaluates_and_predicts(config: Any, tmp_path: Path) -> None:
    """The loss comes first and by name; evaluation asks for nothing that cannot be gathered."""
    hf = AutoModelForSequenceClassification.from_config(config(vocab_size=60, num_labels=3))
    x, keep = ids()
    y = torch.tensor([0, 1, 2])
    told = hf(x, keep.long(), labels=y, output_attentions=True, output_hidden_states=True)
    assert told["loss"] is told.to_tuple()[0]
    assert [v.shape for v in hf(x, keep.long(), labels=y, return_dict=False)] == [(), (3, 3)]
    hf.config.output_attentions = True
    assert hf(x, keep.long()).attentions is not None
    rows = [
        {"input_ids": row, "attention_mask": mask.long(), "labels": one}
        for row, mask, one in zip(x, keep, y, strict=True)
    ]
    args = TrainingArguments(
        str(tmp_path), max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no"
    )
    trainer = Trainer(hf, args, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert trainer.predict(rows).predictions.shape == (3, 3)


FLAT = {"encoder": "bigru"}
DEEP = {"encoder": "bigru", "hierarchical": True}


def opened(dtype: torch.dtype = torch.float64, **fields: Any) -> pellucid.Model:
    return pellucid.load(build(dtype, **fields))


def texts(model: pellucid.Model, lengths: tuple[int, ...] = LENGTHS) -> Batch:
    x, keep = ids(lengths)
    return model.named(Batch(x, keep))


@pytest.mark.parametrize("fields", [FLAT, DEEP, {"encoder": "pretrained"}, {"encoder": "transformer"}])
def test_every_method_within_reach(fields: dict[str, Any]) -> None:
    """Scores of texts do not depend on their batch, complete methods add up, the model is left as found."""
    hf = build(**fields).train()
    model = pellucid.load(hf)
    assert (model.access, model.net) == (Access.READOUT, None)
    batch, before = texts(model), {k: v.clone() for k, v in hf.state_dict().items()}
    for name in METHODS.names():
        method = METHODS.get(name)
        if method.needs > Access.READOUT:
            with pytest.raises(AccessError, match=f"'{name}' needs ENCODER access.*gives READOUT"):
                pellucid.explain(model, batch, name)
            continue
        if getattr(method, "operator", getattr(method, "baseline", None)) == "mask":
            continue  # these need a tokenizer with a mask token
        asked = tiny.method(name, model)
        found = pellucid.explain(model, batch, asked, target="all")
        for i, a in enumerate(found):
            assert a.scores.shape == (LENGTHS[i], 3)
            assert not a.complete or np.abs(a.gap).max() < FINE
            if name != "random":
                alone = pellucid.explain(model, batch.rows([i]), asked, target="all")[0]
                np.testing.assert_allclose(a.scores, alone.scores, atol=FINE)
    assert hf.training
    assert all(m.training for m in hf.modules())
    assert all(torch.equal(v, before[k]) for k, v in hf.state_dict().items())


def test_the_decomposition_of_a_flat_readout_by_hand() -> None:
    model = opened(**FLAT)
    batch, hf = texts(model), model.hf
    seen = run(hf.eval(), batch.input_ids, batch.keep)
    w, b = hf.classifier.weight.detach().numpy(), hf.classifier.bias.detach().numpy()
    for i, a in enumerate(pellucid.explain(model, batch, target="all")):
        expected = [
            seen.attentions[0][i, 0, 0, t].item() * w @ seen.hidden_states[-1][i, t].numpy() for t in range(LENGTHS[i])
        ]
        np.testing.assert_allclose(a.scores, expected, atol=1e-12)
        np.testing.assert_allclose(a.unallocated, b, atol=1e-12)
        assert "states" in a.params["sources"]
    attention = pellucid.explain(model, batch, "attention")[0]
    np.testing.assert_allclose(attention.scores, seen.attentions[0][0, 0, 0, : LENGTHS[0]], atol=1e-12)
    dropped = pellucid.explain(model, batch, DecompX(bias="drop"), target="all")[0]
    assert not dropped.complete
    np.testing.assert_allclose(dropped.gap, b, atol=1e-12)
    with pytest.raises(InputError, match=r"bias='absdot'.*needs ENCODER access"):
        pellucid.explain(model, batch, DecompX(bias="absdot"))


def test_a_sentences_part_is_its_tokens_sum() -> None:
    model = opened(**DEEP)
    batch = texts(model)
    seen = run(model.hf.eval(), batch.input_ids, batch.keep)
    w = model.hf.classifier.weight.detach().numpy()
    found = pellucid.explain(model, batch, target="all")[0]
    weights = pellucid.explain(model, batch, "attention")[0].scores
    for s, some in enumerate(_sentences(batch.input_ids[0].tolist(), 4)):
        beta = seen.attentions[1][0, 0, 0, s].item()
        np.testing.assert_allclose(
            found.scores[some].sum(0), beta * w @ seen.hidden_states[-1][0, s].numpy(), atol=1e-12
        )
        assert np.ptp(found.scores[some], axis=0).max() < 1e-12
        assert "sentences" in found.params["sources"]
        np.testing.assert_allclose(weights[some], beta * seen.attentions[0][0, 0, 0, some], atol=1e-12)


def test_words_have_parts_of_their_own_where_a_sentence_is_their_sum() -> None:
    model = opened(encoder="bigru", hierarchical=True, sentence_encoder="identity")
    batch = texts(model)
    seen = run(model.hf.eval(), batch.input_ids, batch.keep)
    w = model.hf.classifier.weight.detach().numpy()
    found = pellucid.explain(model, batch, target="all")[0]
    for s, some in enumerate(_sentences(batch.input_ids[0].tolist(), 4)):
        for t in some:
            weight = seen.attentions[1][0, 0, 0, s].item() * seen.attentions[0][0, 0, 0, t].item()
            np.testing.assert_allclose(found.scores[t], weight * w @ seen.hidden_states[1][0, t].numpy(), atol=1e-12)
    assert np.abs(found.gap).max() < FINE
    assert found.params["sources"] == "states of words"


def test_checkpoints_that_attend_to_other_states(tmp_path: Path) -> None:
    build(torch.float32, **{**DEEP, "max_sentence_tokens": 2}).save_pretrained(tmp_path)
    model = opened(torch.float32, **DEEP)
    with pytest.raises(InputError, match="attends to other states"):
        pellucid.audit(model, texts(model, (13, 12)), "erasure", checkpoints=(str(tmp_path),), adversaries=0)


@pytest.mark.parametrize("fields", [FLAT, DEEP])
@pytest.mark.parametrize("renormalise", [True, False])
def test_erasing_at_the_readout_is_erasing_in_the_model(fields: dict[str, Any], renormalise: bool) -> None:
    """Against the model's own forward with the weights of its last attention changed inside."""
    model = opened(**fields)
    batch = texts(model).rows([0])
    at = place(model, batch, "cls_last", renormalise=renormalise)
    n = len(at.alpha)
    assert n == (len(_sentences(batch.input_ids[0].tolist(), 4)) if fields is DEEP else LENGTHS[0])
    pool = model.hf.sentence_pool if fields is DEEP else model.hf.word_pool
    kept = torch.rand(6, n, generator=torch.Generator().manual_seed(0)) > 0.4
    for row, logits in zip(kept, at.without(kept), strict=True):

        def change(module: nn.Module, args: Any, alpha: Tensor, row: Tensor = row) -> Tensor:
            left = alpha * row
            return left / left.sum() if renormalise else left

        handle = pool.normaliser.register_forward_hook(change)
        with torch.no_grad():
            expected = model.hf(batch.input_ids).logits[0]
        handle.remove()
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)


def test_the_audits_of_a_hierarchical_model_are_about_sentences() -> None:
    model = opened(torch.float32, **DEEP, num_labels=2)
    batch = texts(model, (30, 24, 18, 21, 27, 33, 12, 40, 22, 19, 25, 31))
    found = pellucid.audit(model, batch, "erasure", adversaries=1, draws=3)
    sentences = [len(_sentences(batch.input_ids[i, :n].tolist(), 4)) for i, n in enumerate(batch.lengths)]
    assert [t["units"] for t in found.tables["texts"]] == sentences
    assert len(found.tables["units"][0]["word"].split()) == len(_sentences(batch.input_ids[0].tolist(), 4)[0])
    assert "sentence" in " ".join(found[0].limits)
    wide = pellucid.audit(model, batch, "identifiability", rows=1)
    values = {f.name: f for f in wide if not f.where}
    expected = np.mean([s <= 9 for s in sentences])  # states are 8 wide: unique up to 9 of them
    assert values["unique_given_head_output"].value == pytest.approx(expected)
    assert values["logits_moved"].value < 1e-9 < values["logits_moved"].null
    with pytest.raises(AccessError, match="mixing"):
        pellucid.audit(model, batch, "mixing")


# what is refused


@pytest.mark.parametrize(("fields", "said"), [
    ({"encoder": "lstm"}, "no encoder='lstm'.*'bilstm'"), ({"scorer": "dot"}, "no scorer='dot'"),
    ({"normaliser": "entmax"}, "no normaliser='entmax'"), ({"tau": 0}, "from 0.001 to 1000 as tau"),
    ({"hidden_size": 9}, "hidden_size=9 cannot be shared by the 2 parts"),
    ({"encoder": "cnn", "kernels": [2, 3]}, "odd"),
    ({"encoder": "pretrained"}, "from_encoder"), ({"deep_layers": 1}, "at least 2 as deep_layers"),
    ({"tau": float("nan")}, "as tau"), ({"dropout": 2}, "from 0 to 0.99 as dropout"),
    ({"scorer_size": 0}, "at least 1 as scorer_size"),
    ({"vocab_size": 3.5}, "as vocab_size; seen 3.5"), ({"pad_token_id": 60}, "ids 0 to 59; pad_token_id=60"),
    ({"gumbel_hard": "yes"}, "gumbel_hard"),
    ({"hierarchical": True, "sentence_encoder": "pretrained"}, "cannot be 'pretrained'"),
    ({"gumbel_eval": "max"}, "no gumbel_eval='max'"),
])  # fmt: skip
def test_a_configuration_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        zoo.AttentionClassifierConfig(**{**SMALL, **fields})


@pytest.mark.parametrize(("fields", "said"), [
    ({"combine": "sum"}, "no combine='sum'.*'add'"), ({"positions": "rotary"}, "no positions"),
    ({"value_size": 0}, "at least 1 as value_size"), ({"hidden_size": 7}, "even hidden_size"),
])  # fmt: skip
def test_an_identifiable_configuration_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        zoo.IdentifiableEncoderConfig(**fields)


def test_calls_that_cannot_be_answered() -> None:
    x, keep = ids()
    hf = build(hierarchical=True)
    with pytest.raises(InputError, match="where sentences end"):
        hf(inputs_embeds=torch.zeros(1, 3, 12, dtype=torch.float64))
    nothing = keep.clone()
    nothing[1] = False
    with pytest.raises(InputError, match="no token that is not masked"):
        hf(x, nothing.long())
    short = identifiable(positions="learnt", max_position_embeddings=8)
    with pytest.raises(InputError, match="8 positions; a text of 13"):
        short(x, keep.long())
    for mask in ([0, 1, 1, 1], [1, 0, 1, 1]):
        with pytest.raises(InputError, match="stand behind"):
            short(x[:, :4], torch.tensor([mask] * 3))
    with pytest.raises(InputError, match="input_ids or inputs_embeds"):
        short()
    with pytest.raises(InputError, match="8 positions; a text of 13"):
        build(encoder="transformer", max_position_embeddings=8)(x, keep.long())
    with pytest.raises(InputError, match="No encoder could be read"):
        zoo.AttentionClassifierForSequenceClassification.from_encoder("./nowhere")
    model = opened(**FLAT)
    with pytest.raises(AccessError, match="level='token' needs ENCODER access"):
        place(model, texts(model).rows([0]), "token")
    with pytest.raises(InputError, match=r"one head.*head=1"):
        place(model, texts(model).rows([0]), "cls_last", head=1)


def test_attention_that_is_drawn_anew_at_every_call_is_refused() -> None:
    hf = build(normaliser="gumbel", gumbel_eval="sample")
    with pytest.raises(UnsupportedModel, match=r"gumbel_eval='sample'.*access=\"gradients\""):
        pellucid.load(hf)
    model = pellucid.load(build(normaliser="gumbel", gumbel_eval="expect"))
    assert replace(model).access == Access.READOUT
    assert readout(model, texts(model).rows([0])).alpha.sum() == pytest.approx(1)
