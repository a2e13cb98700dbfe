"""Integrated and sequential DecompX against a frozen BERT and a removal search written here, in float64."""

import math
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

import pellucid
from pellucid import Batch
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods import Greedy, IntegratedDecompX, SequentialDecompX
from pellucid.methods.sequential import log_odds, sizes

FIRST, MASK, PAD = 7, 3, 0
IDS = torch.tensor([[FIRST, 11, 23, 8, 40, 31, 17]])
CLASSES = range(3)


def pieces() -> Any:
    return SimpleNamespace(
        mask_token_id=MASK,
        pad_token_id=PAD,
        unk_token_id=None,
        all_special_ids=[FIRST],
        convert_ids_to_tokens=lambda ids: [f"[{i}]" for i in ids],
    )


@pytest.fixture(scope="module")
def bert() -> tuple[Any, Model]:
    hf = tiny.build("bert")
    return hf, pellucid.load(hf, pieces())


@torch.no_grad()
def embedded(hf: Any, ids: Tensor) -> Tensor:
    """The first block's input [n, d]."""
    return hf.bert.embeddings(ids)[0]


class Frozen:
    """BERT by hand, one text [n, d] at a time: run at a point, it keeps its coefficients; `move` then sends a
    difference [n, d] through the affine map that they make, without biases, forwards."""

    def __init__(self, hf: Any, at: Tensor) -> None:
        self.hf, self.kept, self.keeping = hf, [], True
        with torch.no_grad():
            self.logits = self._run(at)
        self.keeping = False

    @torch.no_grad()
    def move(self, way: Tensor) -> Tensor:
        self.turn = iter(self.kept)
        return self._run(way)

    def _coefficient(self, value: Any) -> Tensor:
        if self.keeping:
            self.kept.append(value())
            return self.kept[-1]
        return next(self.turn)

    def _linear(self, p: Any, x: Tensor) -> Tensor:
        return x @ p.weight.T + (p.bias if self.keeping else 0)

    def _norm(self, p: Any, x: Tensor) -> Tensor:
        c = x - x.mean(-1, keepdim=True)
        s = self._coefficient(lambda: 1 / torch.sqrt((c * c).mean(-1, keepdim=True) + p.eps))
        return c * s * p.weight + (p.bias if self.keeping else 0)

    def _run(self, x: Tensor) -> Tensor:
        hf, heads = self.hf, self.hf.config.num_attention_heads
        for layer in hf.bert.encoder.layer:
            own, mixed = layer.attention.self, []
            value = self._linear(own.value, x)
            e = value.shape[-1] // heads
            for h in range(heads):
                part = slice(h * e, (h + 1) * e)

                def attention(x: Tensor = x, own: Any = own, part: slice = part, e: int = e) -> Tensor:
                    q, k = self._linear(own.query, x)[:, part], self._linear(own.key, x)[:, part]
                    return torch.exp(torch.log_softmax(q @ k.T / math.sqrt(e), -1))

                mixed.append(self._coefficient(attention) @ value[:, part])
            out = layer.attention.output
            x = self._norm(out.LayerNorm, self._linear(out.dense, torch.cat(mixed, -1)) + x)
            u = self._linear(layer.intermediate.dense, x)
            u = u * self._coefficient(lambda u=u: 0.5 * (1 + torch.erf(u / math.sqrt(2))))
            x = self._norm(layer.output.LayerNorm, self._linear(layer.output.dense, u) + x)
        y = self._linear(hf.bert.pooler.dense, x[:1])
        y = y * self._coefficient(lambda: torch.tanh(y) / y)
        return self._linear(hf.classifier, y)[0]


def parts_by_hand(hf: Any, x: Tensor, base: Tensor, points: int) -> np.ndarray:
    """[n, c]: each token's own difference, sent alone through the network frozen at the middles."""
    total = np.zeros((len(x), 3))
    for i in range(points):
        net = Frozen(hf, base + (i + 0.5) / points * (x - base))
        for k in range(len(x)):
            way = torch.zeros_like(x)
            way[k] = (x - base)[k]
            total[k] += net.move(way).numpy() / points
    return total


def masked(ids: Tensor) -> Tensor:
    return torch.where(ids == FIRST, ids, MASK)


def close(ours: Any, theirs: Any, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=atol)


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("baseline", ["mask", "zero"])
def test_integrated_decompx_is_a_frozen_network_by_hand(bert: tuple[Any, Model], points: int, baseline: Any) -> None:
    hf, model = bert
    x = embedded(hf, IDS)
    base = embedded(hf, masked(IDS)) if baseline == "mask" else torch.zeros_like(x)
    a = pellucid.explain(model, Batch(IDS), IntegratedDecompX(baseline, points), "all")[0]
    close(Frozen(hf, x).logits, hf(IDS).logits[0].detach(), 1e-7)  # the oracle is the model
    close(a.scores, parts_by_hand(hf, x, base, points))
    close(a.unallocated, Frozen(hf, base).logits)
    assert (a.complete, a.signed, a.additive) == (False, True, True)
    assert (a.origin["forwards"], a.origin["backwards"]) == (points + 2, 3 * points)


def test_the_gap_is_what_the_coefficients_change(bert: tuple[Any, Model]) -> None:
    """At one point z the sum is F(x, a(z)) - F(base, a(z)); so the gap is what a(x) and a(base) add to both ends."""
    hf, model = bert
    x, base = embedded(hf, IDS), embedded(hf, masked(IDS))
    middle = Frozen(hf, (x + base) / 2)
    ends = [middle.logits + middle.move(z - (x + base) / 2) for z in (x, base)]
    a = pellucid.explain(model, Batch(IDS), IntegratedDecompX(points=1), "all")[0]
    close(a.gap, (Frozen(hf, x).logits - ends[0]) - (Frozen(hf, base).logits - ends[1]))
    assert np.abs(a.gap).max() > 1e-3


def test_a_text_that_is_its_own_baseline(bert: tuple[Any, Model]) -> None:
    a = pellucid.explain(bert[1], Batch(torch.tensor([[FIRST, MASK, MASK]])), IntegratedDecompX(), "all")[0]
    assert not a.scores.any()
    close(a.gap, 0, 1e-12)


def removed_by_hand(hf: Any, operator: str, column: int, steps: list[int]) -> list[int]:
    """Ranks by a plain loop: decompose what is left, take the strongest away, again."""
    new = {"mask": MASK, "pad": PAD, "delete": None}[operator]
    logits, left, gone = hf(IDS).logits[0].detach(), list(range(1, IDS.shape[1])), []
    weights = -np.exp(logits.numpy())
    weights[column] = 0
    weights = weights / -weights.sum()
    weights[column] = 1
    for size in steps:
        row = [(i, new if i in gone else int(t)) for i, t in enumerate(IDS[0])]
        row = [(i, t) for i, t in row if t is not None]
        stand = PAD if operator == "pad" else MASK
        x = embedded(hf, torch.tensor([[t for _, t in row]]))
        base = embedded(hf, torch.tensor([[stand if i in left else t for i, t in row]]))
        scores = dict(zip([i for i, _ in row], parts_by_hand(hf, x, base, 1) @ weights, strict=True))
        strongest = sorted(left, key=lambda i: -scores[i])[:size]
        gone, left = gone + strongest, [i for i in left if i not in strongest]
    return [0, *(len(gone) - gone.index(i) for i in range(1, IDS.shape[1]))]


@pytest.mark.parametrize("operator", ["mask", "delete", "pad"])
def test_sequential_decompx_is_a_plain_loop(bert: tuple[Any, Model], operator: Any) -> None:
    a = pellucid.explain(bert[1], Batch(IDS), SequentialDecompX(4, 0, operator), "all")[0]
    for c in CLASSES:
        assert a.scores[:, c].tolist() == removed_by_hand(bert[0], operator, c, [1, 1, 1, 3])
    assert (a.origin["forwards"], a.origin["backwards"]) == (1 + 3 * 4, 3 * 4)
    assert (a.unit, a.complete, a.signed) == ("rank", False, False)


@pytest.mark.parametrize("operator", ["mask", "delete", "pad"])
def test_with_every_token_on_trial_it_is_greedy(bert: tuple[Any, Model], operator: Any) -> None:
    ours = pellucid.explain(bert[1], Batch(IDS), SequentialDecompX(6, 6, operator), "all")[0]
    theirs = pellucid.explain(bert[1], Batch(IDS), Greedy(operator=operator), "all")[0]
    assert ours.scores.tolist() == theirs.scores.tolist()


def test_trials_overrule_the_decomposition_among_the_strongest(bert: tuple[Any, Model]) -> None:
    """The first token to go is that without which the class loses most, of the 1 + spare strongest ones."""
    hf, model = bert
    for c in CLASSES:
        parts = (
            parts_by_hand(hf, embedded(hf, IDS), embedded(hf, masked(IDS)), 1)
            @ log_odds(model, hf(IDS).logits[0].detach(), c).numpy()
        )
        strongest = (np.argsort(-parts[1:])[:3] + 1).tolist()
        copies = torch.cat([IDS.clone() for _ in strongest])
        copies[range(3), strongest] = MASK
        p = hf(copies).logits.softmax(-1)[:, c]
        a = pellucid.explain(model, Batch(IDS), SequentialDecompX(5, 2), "all")[0]
        assert a.scores[:, c].argmax() == strongest[int(p.argmin())]


def test_sizes() -> None:
    for m in range(1, 200):
        for steps in (1, 2, 5, 9):
            found = sizes(m, steps)
            assert sum(found) == m
            assert min(found) > 0
            assert len(found) <= steps
    assert sizes(0, 5) == []
    assert (sizes(18, 5), sizes(128, 5), sizes(3, 5), sizes(7, 1)) == ([1, 1, 2, 5, 9], [1, 2, 8, 27, 90], [1] * 3, [7])


def test_log_odds(bert: tuple[Any, Model]) -> None:
    """Their derivative at the whole text, each class's own logit apart."""
    logits = torch.tensor([0.3, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    p = logits.softmax(0)
    (g,) = torch.autograd.grad(torch.log(p[1] / (1 - p[1])), logits)
    close(log_odds(bert[1], logits.detach(), 1), g)


@pytest.mark.parametrize("method", [IntegratedDecompX(), SequentialDecompX()], ids=lambda m: m.name)
def test_without_a_mask_token(method: Any) -> None:
    with pytest.raises(InputError, match=f"(operator 'mask'|{method.name}) puts the mask token .* no tokenizer"):
        pellucid.explain(tiny.opened("bert"), Batch(IDS), method)


@pytest.mark.parametrize("method", [IntegratedDecompX(), SequentialDecompX()], ids=lambda m: m.name)
def test_a_text_of_special_tokens_alone(bert: tuple[Any, Model], method: Any) -> None:
    a = pellucid.explain(bert[1], Batch(torch.tensor([[FIRST, FIRST]])), method, "all")[0]
    assert not a.scores.any()


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (IntegratedDecompX, {"points": 0}, "points=0"),
        (IntegratedDecompX, {"baseline": "mean"}, "baseline='mean'"),
        (SequentialDecompX, {"steps": 0}, "steps=0"),
        (SequentialDecompX, {"spare": -1}, "spare=-1"),
        (SequentialDecompX, {"operator": "swap"}, "operator='swap'"),
    ],
)
def test_a_refusal_names_the_field(
    kind: Any, fields: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=words):
        kind(**fields)
