"""Flow, gradients of attention, sampled gradients, DeepLIFT, surrogates and the greedy control against implementations
that share no code with ours: Captum, scikit-learn, linear programmes, plain loops over the Hugging Face model."""

from collections.abc import Callable, Iterator
from itertools import combinations, permutations, product
from math import comb, factorial
from types import SimpleNamespace
from typing import Any

import captum.attr as ca
import jaxtyping
import numpy as np
import pytest
import test_zoo
import tiny
import torch
import torch.nn.functional as F
from captum._utils.models.linear_model import SkLearnRidge
from scipy.optimize import linprog
from scipy.stats import chisquare
from sklearn.linear_model import Ridge
from test_oracles import IDS, MASK, PADDED, PLACES, ids_of, pair
from torch import Tensor, nn

import pellucid
from pellucid import Batch
from pellucid.encoder.activations import ACTIVATIONS
from pellucid.encoder.forward import Embedding, Head, Linear, Net, Norm
from pellucid.encoder.model import Model
from pellucid.errors import InputError
from pellucid.methods import (
    AttentionXGradient,
    DeepLift,
    Flow,
    GradientShap,
    Greedy,
    KernelShap,
    LeaveOneOut,
    Lime,
    Occlusion,
    SampledShapley,
    SmoothGrad,
)
from pellucid.methods.deeplift import logarithmic_mean, multipliers, secant
from pellucid.methods.greedy import confidence
from pellucid.methods.relevance import RESOLUTION, max_flows
from pellucid.methods.sampling import Noise
from pellucid.methods.surrogate import constrained, drawn, lime_samples, orders, shapley_samples

__all__ = ["pair"]  # a fixture

CLASSES = range(3)
FIRST = 7
"""IDS begins with it, and it is the only special token here."""


def close(ours: Any, theirs: Any, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=atol)


@pytest.fixture(scope="module")
def bert() -> tuple[Any, Model]:
    """A Hugging Face model and ours, with a mask token and one special one."""
    hf = tiny.build("bert")
    return hf, pellucid.load(hf, pieces(hf))


def pieces(hf: Any) -> Any:
    return SimpleNamespace(
        mask_token_id=MASK,
        pad_token_id=hf.config.pad_token_id,
        unk_token_id=None,
        all_special_ids=[FIRST],
        convert_ids_to_tokens=lambda ids: [f"[{i}]" for i in ids],
    )


def text(m: int) -> Batch:
    """The special token and m ordinary ones."""
    return Batch(IDS[:, : m + 1])


def every(model: Model, method: Any, batch: Batch) -> pellucid.Attribution:
    return pellucid.explain(model, batch, method, target="all")[0]


def value_of(hf: Any, batch: Batch, operator: str = "mask") -> Callable[[Any], np.ndarray]:
    """Logits of the Hugging Face model as a function of which ordinary tokens are there, one copy at a time."""

    @torch.no_grad()
    def value(present: Any) -> np.ndarray:
        ids = batch.input_ids[0].tolist()
        new = {"mask": MASK, "pad": hf.config.pad_token_id, "delete": None}[operator]
        row = [ids[0], *(i if there else new for i, there in zip(ids[1:], present, strict=True))]
        return hf(torch.tensor([[i for i in row if i is not None]])).logits[0].numpy()

    return value


def behind(hf: Any) -> Callable[[Tensor], Tensor]:
    """The Hugging Face model as a function of the ordinary ids, for Captum."""
    return lambda ids: hf(torch.cat([torch.full_like(ids[:, :1], FIRST), ids], 1)).logits


# --- flow ---


def least_cut(layers: list[np.ndarray], read: np.ndarray, sink: int) -> float:
    """The least capacity of all cuts of a layered graph between its source and an input token, by trying each."""
    n, top = layers[0].shape[1], len(layers)
    sizes = [n] + [len(layer) for layer in layers]
    nodes = [(i, j) for i, size in enumerate(sizes) for j in range(size)]
    free = [node for node in nodes if node != (0, sink)]
    best = np.inf
    for sides in product((False, True), repeat=len(free)):
        here = dict(zip(free, sides, strict=True)) | {(0, sink): False}
        cut = sum(read[j] for j in range(sizes[top]) if not here[top, j])
        for i, layer in enumerate(layers):
            cut += sum(layer[a, b] for a, b in np.ndindex(*layer.shape) if here[i + 1, a] and not here[i, b])
        best = min(best, float(cut))
    return best


def test_flow_is_the_least_cut_of_all() -> None:
    draw = np.random.default_rng(0)
    for rows in (1, 3):
        layers = [draw.dirichlet(np.ones(3), size=k) for k in (3, 3, rows)]
        read = np.full(rows, 1 / rows)
        expected = [least_cut(layers, read, token) for token in range(3)]
        close(max_flows(layers, read), expected, 30 / RESOLUTION)
        assert min(expected) < 0.9  # the source alone does not decide


def test_flow_by_hand() -> None:
    """Two tokens and layers: to token 1 leads .3 * 1 through itself and .7 through token 0, which lets .2 pass."""
    low, high = np.array([[0.8, 0.2], [0.0, 1.0]]), np.array([[0.7, 0.3]])
    close(max_flows([low, high], np.ones(1)), [0.7, 0.5], 3 / RESOLUTION)


def by_linear_programme(maps: list[np.ndarray], read: np.ndarray, sink: int) -> float:
    """The largest flow: variables are edges, conserved at every node but the source's and the sink."""
    n = maps[0].shape[1]
    edges = [((len(maps), j), None, r) for j, r in enumerate(read)]
    edges += [((i, b), (i + 1, a), m[a, b]) for i, m in enumerate(maps) for a, b in np.ndindex(*m.shape)]
    nodes = [(i, j) for i in range(len(maps) + 1) for j in range(n)]
    balance = np.array(
        [[(to == node) - (tail == node) for to, tail, _ in edges] for node in nodes if node != (0, sink)]
    )
    found = linprog(
        -np.array([float(to == (0, sink)) for to, _, _ in edges]),
        A_eq=balance,
        b_eq=np.zeros(len(balance)),
        bounds=[(0, c) for _, _, c in edges],
    )
    return -float(found.fun)


@pytest.mark.parametrize("family", ["bert", "modernbert_mean"])
def test_flow_through_a_model(family: str) -> None:
    """From Hugging Face's attentions, with padding and another text beside it."""
    hf = tiny.build(family, attention="eager")
    ids = IDS[:, :5]
    with torch.no_grad():
        maps = [
            0.3 * np.eye(5) + 0.7 * a[0].mean(0).double().numpy() for a in hf(ids, output_attentions=True).attentions
        ]
    read = np.full(5, 0.2) if family.endswith("mean") else np.eye(5)[0]
    expected = [by_linear_programme(maps, read, token) for token in range(5)]
    both = Batch(F.pad(IDS.repeat(2, 1), (0, 2)), torch.tensor([[1] * 11 + [0] * 2, [1] * 5 + [0] * 8]))
    both.input_ids[~both.keep] = hf.config.pad_token_id
    a = pellucid.explain(pellucid.load(hf), both, Flow(residual=0.3))[1]
    close(a.scores, expected, 1e-6)  # of the linear programme, and of ModernBERT's softmax in float32


# --- gradients of attention ---


@pytest.mark.parametrize("family", ["bert", "deberta_v3", "modernbert_mean"])
def test_attention_and_its_gradient(family: str) -> None:
    """Attention times gradient, and the matrices of generic attention, from Hugging Face's graph."""
    hf = tiny.build(family, attention="eager")
    atol = 1e-6 if family.endswith("mean") else 1e-9  # ModernBERT's softmax is in float32
    model, eye, n = pellucid.load(hf), torch.eye(11).double(), 11
    seen = hf(IDS, output_attentions=True)
    read = eye.mean(0) if family.endswith("mean") else eye[0]
    times, generic = [], []
    for c in CLASSES:
        grads = torch.autograd.grad(seen.logits[0, c], seen.attentions, retain_graph=True)
        times.append((seen.attentions[-1] * grads[-1])[0].mean(0).sum(0).detach())
        r = eye
        for alpha, g in zip(seen.attentions, grads, strict=True):
            r = r + (g * alpha)[0].clamp(min=0).mean(0).detach().double() @ r
        generic.append(read @ r)
    close(every(model, "attention_x_gradient", Batch(IDS)).scores, torch.stack(times, -1), atol)
    close(every(model, "generic_attention", Batch(IDS)).scores, torch.stack(generic, -1), atol)
    assert n == len(read)


@pytest.mark.parametrize("fields", [test_zoo.FLAT, test_zoo.DEEP])
def test_attention_and_gradient_decompose_a_readout(fields: dict[str, Any]) -> None:
    """Behind the attention that pools there is only a linear layer: the scores are the logits without its bias."""
    model = test_zoo.opened(**fields)
    for a in pellucid.explain(model, test_zoo.texts(model), AttentionXGradient(), target="all"):
        close(a.scores.sum(0), a.explained - model.hf.classifier.bias.detach().numpy())
        assert np.ptp(a.scores) > 0.01


# --- sampled gradients ---


class Fixed:
    """In place of Captum's random numbers: ours, for the unpadded text of PADDED."""

    def __init__(self, x: Tensor, ids: Tensor, size: float, seed: int, samples: int, uniform: bool) -> None:
        noise = Noise(Batch(ids, PADDED), x, size, seed)
        self.shares = noise.uniform(samples)[:, 0].numpy() if uniform else None
        self.noise = noise.normal(samples)[:, 0]


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fixed], None]:
    def use(numbers: Fixed) -> None:
        monkeypatch.setattr(torch, "normal", lambda *_, **__: numbers.noise)
        monkeypatch.setattr(np.random, "uniform", lambda *_, **__: numbers.shares)

    return use


@pytest.mark.parametrize("at", PLACES)
def test_smoothgrad_is_captums(pair: tuple[Any, Model], at: Any, fixed: Any) -> None:
    """NoiseTunnel over signed saliency with our noise, times the input: sums and norms."""
    hf, model = pair
    with PLACES[at](hf) as (x, f):
        fixed(Fixed(x, ids_of(hf), 0.7, 5, 6, uniform=False))
        tunnel = ca.NoiseTunnel(ca.Saliency(f))
        theirs = [x * tunnel.attribute(x, nt_samples=6, stdevs=1.0, target=c, abs=False) for c in CLASSES]
    parts = torch.stack(theirs, -1)[0, :8].detach()
    for reduce, expected in (("signed", parts.sum(1)), ("norm", parts.norm(dim=1))):
        a = every(model, SmoothGrad(6, 0.7, reduce, at, 5), Batch(ids_of(hf), PADDED))
        close(a.scores, expected)


@pytest.mark.parametrize("baseline", ["zero", "mask"])
@pytest.mark.parametrize("at", PLACES)
def test_gradient_shap_is_captums(pair: tuple[Any, Model], at: Any, baseline: Any, fixed: Any) -> None:
    """The same noise and the same places on the path."""
    hf, model = pair
    with PLACES[at](hf) as (x, f):
        zero = torch.zeros_like(x)
        if baseline == "mask":
            masked = Batch(ids_of(hf).masked_fill(PADDED == 1, MASK), PADDED)
            zero = model.word_embeddings(masked.input_ids) if at == "word" else model.embed(masked)
        fixed(Fixed(x, ids_of(hf), 0.7, 5, 6, uniform=True))
        shap = ca.GradientShap(f)
        theirs = [shap.attribute(x, zero, n_samples=6, stdevs=1.0, target=c)[0, :8].sum(-1) for c in CLASSES]
        start = f(zero)[0].detach()
    a = every(model, GradientShap(baseline, 6, 0.7, at, 5), Batch(ids_of(hf), PADDED))
    close(a.scores, torch.stack(theirs, -1).detach())
    close(a.unallocated, start)


def test_noise_is_as_large_as_it_says() -> None:
    """In standard deviations of each text's vectors, 0 at padding, the same however it is asked for."""
    x = (
        torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0)).double()
        * torch.tensor([2.0, 5.0])[:, None, None]
    )
    batch = Batch(IDS[:, :9].repeat(2, 1), torch.tensor([[1] * 9, [1] * 4 + [0] * 5]))
    drawn_at_once = Noise(batch, x, 0.5, 3).normal(40)
    one_by_one = Noise(batch, x, 0.5, 3)
    assert torch.equal(torch.cat([one_by_one.normal(1) for _ in range(40)]), drawn_at_once)
    assert not drawn_at_once[:, 1, 4:].any()
    for i, n in enumerate((9, 4)):
        size = drawn_at_once[:, i, :n].std() / x[i, :n].std()
        assert abs(float(size) - 0.5) < 0.01
    own = np.random.default_rng([3, *IDS[0, :9].tolist()]).normal(size=(40, 9, 64))
    close(drawn_at_once[:, 0], own * 0.5 * x[0].numpy().std(), 1e-12)
    assert not torch.equal(Noise(batch, x, 0.5, 4).normal(40), drawn_at_once)


def test_without_noise_the_mean_is_the_gradient(pair: tuple[Any, Model]) -> None:
    batch = Batch(ids_of(pair[0]), PADDED)
    close(every(pair[1], SmoothGrad(3, 0.0), batch).scores, every(pair[1], "gradient_x_input", batch).scores)
    many, exact = GradientShap("mask", 600, 0.0), every(pair[1], "integrated_gradients_mask", batch).scores
    off = np.abs(every(pair[1], many, batch).scores - exact).max()
    assert 1e-6 < off < 0.2 * np.abs(exact).max()  # random points


# --- DeepLIFT ---


class Perceptron(nn.Module):
    """One hidden layer, for Captum."""

    def __init__(self, one: Linear, act: nn.Module, two: Linear) -> None:
        super().__init__()
        self.one, self.act, self.two = nn.Linear(6, 9), act, nn.Linear(9, 3)
        with torch.no_grad():
            for layer, given in ((self.one, one), (self.two, two)):
                layer.weight.copy_(given.w)
                layer.bias.copy_(given.b)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.act(self.one(x)))


@pytest.mark.parametrize(("name", "module"), [("tanh", nn.Tanh()), ("relu", nn.ReLU())])
def test_deeplift_of_a_perceptron_is_captums(name: str, module: nn.Module) -> None:
    """A network without layers reads its first vector through a hidden layer: there Captum's rules are complete."""
    torch.manual_seed(0)
    w, b, v, c = torch.randn(9, 6), torch.randn(9), torch.randn(3, 9), torch.randn(3)
    one, two = Linear(w.double(), b.double()), Linear(v.double(), c.double())
    empty = Norm(torch.ones(6).double(), None, 1e-5)
    net = Net(Embedding(w, None, None, None, empty), (), None, Head("first", one, ACTIVATIONS[name], None, two))
    x, base = torch.randn(2, 4, 1, 6).double()
    ours, logits, _ = multipliers(net, x, base, torch.ones(4, 1).bool(), lambda y: torch.eye(3).to(y).expand(4, 3, 3))
    model = Perceptron(one, module, two).double()
    close(logits, model(x[:, 0]).detach())
    for k in CLASSES:
        theirs = ca.DeepLift(model).attribute(x[:, 0], base[:, 0], target=k)
        close(ours[..., k][:, 0] * (x - base)[:, 0], theirs.detach())


def secants(f: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    return (f(a) - f(b)) / (a - b)


def test_deeplift_of_a_block_by_hand() -> None:
    """A BERT of one layer, written out as the linear map that takes one difference from the baseline to the next."""
    hf = tiny.build("bert", num_hidden_layers=1)
    model = pellucid.load(hf)
    w = {k.removeprefix("bert.encoder.layer.0."): v for k, v in hf.state_dict().items()}
    x, base = model.embed(Batch(IDS))[0], model.embed(Batch(IDS.flip(1)))[0]
    kept: dict[str, Tensor] = {}

    def lin(name: str, u: Tensor, bias: bool) -> Tensor:
        return u @ w[f"{name}.weight"].T + (w[f"{name}.bias"] if bias else 0)

    def heads(u: Tensor) -> Tensor:
        return u.reshape(11, 4, 8).transpose(0, 1)

    def network(u: Tensor, run: str) -> Tensor:
        """run: "1" and "0" keep what they compute; "d" takes a difference of inputs to one of outputs."""
        d = run == "d"

        def keep(name: str, value: Tensor) -> Tensor:
            kept[name + run] = value
            return value

        def two(name: str) -> tuple[Tensor, Tensor]:
            return kept[name + "1"], kept[name + "0"]

        def times(name: str, a: Tensor, b: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            if not d:
                return product(keep(name + "a", a), keep(name + "b", b))
            (a1, a0), (b1, b0) = two(name + "a"), two(name + "b")
            return product(a, (b1 + b0) / 2) + product((a1 + a0) / 2, b)

        def each(name: str, f: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
            return f(keep(name, a)) if not d else a * secants(f, *two(name))

        def softmax(a: Tensor) -> Tensor:
            if not d:
                return keep("alpha", a.softmax(-1))
            p, q = two("alpha")
            m = (p - q) / (p.log() - q.log())
            return m * (a - (m * a).sum(-1, keepdim=True) / m.sum(-1, keepdim=True))

        def norm(name: str, a: Tensor) -> Tensor:
            z = keep(name + "z", a - a.mean(-1, keepdim=True))
            gain, offset = w[f"{name}.weight"], w[f"{name}.bias"]
            if not d:
                v = keep(name + "v", (z * z).mean(-1, keepdim=True) + 1e-12)
                return z * v**-0.5 * gain + offset
            (z1, z0), (v1, v0) = two(name + "z"), two(name + "v")
            v = ((z1 + z0) * z).mean(-1, keepdim=True)
            return (z * v1**-0.5 + z0 * v * (v1**-0.5 - v0**-0.5) / (v1 - v0)) * gain

        q, k, v = (heads(lin(f"attention.self.{name}", u, not d)) for name in ("query", "key", "value"))
        alpha = softmax(times("qk", q, k, lambda a, b: a @ b.mT / 8**0.5))
        mixed = times("av", alpha, v, lambda a, b: a @ b).transpose(0, 1).reshape(11, 32)
        r = norm("attention.output.LayerNorm", lin("attention.output.dense", mixed, not d) + u)
        h = each("gelu", F.gelu, lin("intermediate.dense", r, not d))
        y = norm("output.LayerNorm", lin("output.dense", h, not d) + r)
        pooled = each("tanh", torch.tanh, lin("bert.pooler.dense", y[0], not d))
        return lin("classifier", pooled, not d)

    close(network(x, "1"), model.logits(Batch(IDS))[0])
    network(base, "0")
    linear: Tensor = torch.autograd.functional.jacobian(lambda u: network(u, "d"), x - base)
    expected = torch.einsum("cnd,nd->nc", linear, x - base)
    eye = torch.eye(3).double()
    found, logits, start = multipliers(
        model.require_net(), x[None], base[None], torch.ones(1, 11).bool(), lambda y: eye.expand(1, 3, 3)
    )
    close(torch.einsum("ndc,nd->nc", found[0], x - base), expected)
    close(expected.sum(0), (logits - start)[0])


def test_secants() -> None:
    """Quotients far apart, tangents where rounding would decide, quotients again across a kink."""
    f, tangent = ACTIVATIONS["gelu"].f, ACTIVATIONS["gelu"].tangent
    u0 = torch.linspace(-4, 4, 33).double()
    for way in (0.0, 1e-14, 1e-9, 1e-6, 1e-4, 0.1, 5.0):
        exact = (tangent(u0[:, None] + way * torch.linspace(0, 1, 2001).double())).mean(1)  # of the way between
        close(secant(f(torch.cat([u0 + way, u0])), torch.cat([u0 + way, u0]), tangent), exact, 1e-10 + 1e-3 * way)
    kink = torch.tensor([1e-7, -3e-7], dtype=torch.float64)
    close(secant(kink.relu(), kink, ACTIVATIONS["relu"].tangent), [0.25], 1e-15)
    logs = torch.tensor([[0.0, -3.0, -1.0, -900.0], [-2.0, -3.0, -800.0, -800.0]]).double()
    p, q = logs[:, 0].exp()
    close(logarithmic_mean(logs)[0], [(p - q) / 2, np.exp(-3), np.exp(-1) / 799, 0], 1e-15)


def test_deeplift_keeps_its_sum_on_a_real_model(demo: Model) -> None:
    """In float32, with trained weights, whose attention is sharp and far from the baseline's."""
    for baseline in ("zero", "mask"):
        a = pellucid.explain(demo, "A warm, funny and engaging film.", DeepLift(baseline), "all")
        assert np.abs(a.gap).max() < 1e-5 * np.abs(a.explained).max()
        assert np.abs(a.scores).max() < 100


# --- tokens away ---


@pytest.mark.parametrize("operator", ["mask", "delete", "pad"])
def test_occlusion_with_a_window_of_one_is_leave_one_out(bert: tuple[Any, Model], operator: Any) -> None:
    a = every(bert[1], Occlusion(1, operator), text(6))
    close(a.scores, every(bert[1], LeaveOneOut(operator), text(6)).scores)
    assert not a.scores[0].any()


@pytest.mark.parametrize("window", [2, 3, 10])
def test_occlusion(bert: tuple[Any, Model], window: int) -> None:
    """By plain loops over windows of the ordinary tokens, and by Captum, which computes windows in float32."""
    hf, model = bert
    value = value_of(hf, Batch(IDS))
    drops: list[list[np.ndarray]] = [[] for _ in range(10)]
    for start in range(10 - window + 1):
        inside = range(start, start + window)
        for i in inside:
            drops[i].append(value([True] * 10) - value([i not in inside for i in range(10)]))
    a = every(model, Occlusion(window), Batch(IDS))
    close(a.scores, [np.zeros(3), *(np.mean(d, 0) for d in drops)])
    assert a.origin["forwards"] == 1 + 1 + (11 - window)
    with torch.no_grad():
        theirs = [
            ca.Occlusion(behind(hf)).attribute(IDS[:, 1:], (window,), baselines=MASK, target=c)[0] for c in CLASSES
        ]
    close(a.scores[1:], torch.stack(theirs, -1), 1e-7)


def test_occlusion_of_a_text_shorter_than_the_window(bert: tuple[Any, Model]) -> None:
    """There is one window."""
    value = value_of(bert[0], text(4))
    drop = value([True] * 4) - value([False] * 4)
    close(every(bert[1], Occlusion(9), text(4)).scores, [np.zeros(3), *[drop] * 4])


@pytest.mark.parametrize("operator", ["mask", "delete", "pad"])
def test_lime_is_a_weighted_ridge(bert: tuple[Any, Model], operator: Any) -> None:
    """scikit-learn's, on our samples and values of the Hugging Face model."""
    model, batch, value = bert[1], text(6), value_of(bert[0], text(6), operator)
    z = lime_samples(6, 30, drawn(batch.input_ids[0], 4))
    distance = np.array([1 - row.sum() / np.sqrt(row.sum() * 6) if row.any() else 1.0 for row in z])
    ridge = Ridge(alpha=0.3).fit(z, [value(row) for row in z], np.exp(-(distance**2) / (2 * 0.4**2)))
    a = every(model, Lime(30, 0.4, 0.3, operator, 4), batch)
    close(a.scores, np.vstack([np.zeros(3), ridge.coef_.T]))
    close(a.unallocated, ridge.intercept_)


def test_lime_is_captums(bert: tuple[Any, Model]) -> None:
    """Captum rounds what it fits to float32."""
    hf, model = bert
    z = torch.tensor(lime_samples(10, 40, drawn(IDS[0], 0)))

    def samples(*_: Any, **__: Any) -> Iterator[Tensor]:
        yield from z[:, None].long()

    def near(*given: Any, **_: Any) -> Tensor:
        share = given[2].double().mean()
        return torch.exp(-((1 - share.sqrt()) ** 2) / (2 * 0.25**2))

    def rows(sample: Tensor, ids: Tensor, **_: Any) -> Tensor:
        return torch.where(sample.bool(), ids, MASK)

    theirs = []
    for c in CLASSES:
        lime = ca.LimeBase(behind(hf), SkLearnRidge(alpha=1.0), near, samples, True, rows, None)
        theirs.append(lime.attribute(IDS[:, 1:], target=c, n_samples=40).flatten())
    close(every(model, Lime(samples=40), Batch(IDS)).scores[1:], torch.stack(theirs, -1).detach(), 1e-5)


def test_how_lime_draws() -> None:
    """The text first; then 1 to m tokens away, each number and each token as often as any other."""
    z = lime_samples(5, 20001, np.random.default_rng(0))
    assert z[0].all()
    counts = np.bincount((~z[1:]).sum(1), minlength=6)
    assert counts[0] == 0
    assert chisquare(counts[1:]).pvalue > 0.001
    assert chisquare((~z[1:]).sum(0)).pvalue > 0.001


def shapley(value: Callable[[Any], np.ndarray], m: int) -> np.ndarray:
    """By its definition: the mean change of the value over all orders of joining."""
    seen = {s: value([i in s for i in range(m)]) for k in range(m + 1) for s in combinations(range(m), k)}
    total = np.zeros((m, 3))
    for order in permutations(range(m)):
        for k, i in enumerate(order):
            total[i] += seen[tuple(sorted(order[: k + 1]))] - seen[tuple(sorted(order[:k]))]
    return total / factorial(m)


@pytest.mark.parametrize("operator", ["mask", "delete", "pad"])
def test_exact_shapley_values(bert: tuple[Any, Model], operator: Any) -> None:
    """Both methods, where a text is so short that all coalitions and orders fit in."""
    value = value_of(bert[0], text(4), operator)
    expected = np.vstack([np.zeros(3), shapley(value, 4)])
    for method in (KernelShap(14, operator), SampledShapley(24, operator)):
        a = every(bert[1], method, text(4))
        close(a.scores, expected)
        close(a.unallocated, value([False] * 4))
        assert a.origin["forwards"] == 1 + 16
    for m in (1, 2):
        for method in (KernelShap(7), SampledShapley(7)):
            close(every(bert[1], method, text(m)).scores[1:], shapley(value_of(bert[0], text(m)), m))


def test_sampled_kernel_shap_is_constrained_least_squares(bert: tuple[Any, Model]) -> None:
    """By the equations of Lagrange, on our coalitions; Captum, which weighs the constraint, comes near."""
    hf, model = bert
    value = value_of(hf, Batch(IDS))
    z, weights = shapley_samples(10, 60, drawn(IDS[0], 3))
    empty, full = value([False] * 10), value([True] * 10)
    y = np.array([value(row) for row in z]) - empty
    one = np.ones((10, 1))
    kkt = np.block([[2 * z.T.astype(float) @ z, one], [one.T, np.zeros((1, 1))]])
    expected = np.linalg.solve(kkt, np.vstack([2 * z.T @ y, full - empty]))[:10]
    a = every(model, KernelShap(60, seed=3), Batch(IDS))
    close(a.scores[1:], expected)
    assert np.abs(a.gap).max() < 1e-12
    assert (weights == 1).all()

    shap = ca.KernelShap(behind(hf))
    rows = np.vstack([np.ones((1, 10), bool), np.zeros((1, 10), bool), z])

    def samples(*_: Any, **__: Any) -> Iterator[Tensor]:
        yield from torch.tensor(rows)[:, None].long()

    shap.perturb_func = samples
    theirs = [shap.attribute(IDS[:, 1:], baselines=MASK, target=c, n_samples=62)[0] for c in CLASSES]
    close(a.scores[1:], torch.stack(theirs, -1).detach(), 1e-3)


def test_coalitions() -> None:
    """Drawn by the kernel, with complements; all of them, with its weights, where they are few."""
    z, _ = shapley_samples(16, 20000, np.random.default_rng(0))
    assert (z[::2] == ~z[1::2]).all()
    chance = np.array([1 / (s * (16 - s)) for s in range(1, 16)])
    assert chisquare(np.bincount(z[::2].sum(1), minlength=16)[1:], chance / chance.sum() * 10000).pvalue > 0.001
    assert chisquare(z[::2].sum(0)).pvalue > 0.001
    z, weights = shapley_samples(4, 14, np.random.default_rng(0))
    assert len({tuple(row) for row in z.tolist()}) == len(z) == 14
    close(weights, [3 / (comb(4, s) * s * (4 - s)) for s in z.sum(1).tolist()], 1e-15)
    assert shapley_samples(9, 7, np.random.default_rng(0))[0].shape == (7, 9)


def test_fewer_coalitions_than_tokens(bert: tuple[Any, Model]) -> None:
    """The sum holds, and what the coalitions do not tell apart has equal shares."""
    a = every(bert[1], KernelShap(samples=2), Batch(IDS))
    z = shapley_samples(10, 2, drawn(IDS[0], 0))[0]
    assert np.abs(a.gap).max() < 1e-12
    for side in (z[0], ~z[0]):
        close(np.ptp(a.scores[1:][side], axis=0), np.zeros(3))
    free = constrained(np.zeros((1, 3)), np.zeros((1, 2)), np.ones(1), np.array([3.0, -6.0]))
    close(free, [[1, -2]] * 3, 1e-12)


def test_sampled_shapley_is_captums(bert: tuple[Any, Model]) -> None:
    """With our orders."""
    hf, model = bert
    ours = orders(10, 4, drawn(IDS[0], 2))
    assert (ours[0] == ours[1][::-1]).all()
    assert not (ours[0] == ours[2]).all()

    theirs = []
    for c in CLASSES:
        sampling = ca.ShapleyValueSampling(behind(hf))
        sampling.permutation_generator = lambda *_: ours.tolist()
        with torch.no_grad():
            theirs.append(sampling.attribute(IDS[:, 1:], baselines=MASK, target=c, n_samples=4)[0])
    a = every(model, SampledShapley(4, seed=2), Batch(IDS))
    close(a.scores[1:], torch.stack(theirs, -1), 1e-6 if theirs[0].dtype == torch.float32 else 1e-9)
    assert np.abs(a.gap).max() < 1e-12


def test_orders() -> None:
    assert sorted(map(tuple, orders(3, 6, np.random.default_rng(0)).tolist())) == sorted(permutations(range(3)))
    some = orders(8, 4001, np.random.default_rng(0))
    assert some.shape == (4001, 8)
    assert chisquare(np.bincount(some[::2, 0])).pvalue > 0.001


@pytest.mark.parametrize("name", ["occlusion", "lime", "kernel_shap", "sampled_shapley", "greedy"])
def test_copies_one_by_one(bert: tuple[Any, Model], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in slabs, here of a single copy, gives what it gives together."""
    together = every(bert[1], name, text(7))
    monkeypatch.setattr("pellucid.methods.method.SLAB", 1)
    close(every(bert[1], name, text(7)).scores, together.scores, 1e-11)


@pytest.mark.parametrize("name", ["smoothgrad", "gradient_shap"])
def test_samples_one_by_one(bert: tuple[Any, Model], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    together = every(bert[1], name, text(7))
    monkeypatch.setattr("pellucid.methods.method.SLAB", 1)
    close(every(bert[1], name, text(7)).scores, together.scores, 1e-11)


@pytest.mark.parametrize("kind", [Lime, KernelShap, SampledShapley, SmoothGrad, GradientShap])
def test_the_seed_decides(bert: tuple[Any, Model], kind: Any) -> None:
    first, again, other = (every(bert[1], kind(seed=s), Batch(IDS)).scores for s in (0, 0, 1))
    assert (first == again).all()
    assert np.abs(first - other).max() > 1e-4


def test_two_kinds_of_tokens(bert: tuple[Any, Model]) -> None:
    """What is deleted takes its token type along."""
    types = torch.tensor([[0, 0, 1, 0, 1]])
    a = every(bert[1], Occlusion(2, "delete"), Batch(IDS[:, :5], None, types))
    with torch.no_grad():
        values = [
            bert[0](IDS[:, kept], token_type_ids=types[:, kept]).logits[0].numpy()
            for kept in ([0, 1, 2, 3, 4], [0, 3, 4], [0, 1, 4], [0, 1, 2])
        ]
    drops = values[0] - np.array(values[1:])
    close(a.scores[1:], [drops[0], drops[:2].mean(0), drops[1:].mean(0), drops[2]])


# --- greedy ---


def greedily(hf: Any, batch: Batch, column: int, step: int, operator: str = "mask") -> list[int]:
    """Ranks by plain loops over probabilities."""
    value, m = value_of(hf, batch, operator), batch.input_ids.shape[1] - 1

    def probability(away: set[int]) -> float:
        z = np.exp(value([i not in away for i in range(m)]))
        return float(z[column] / z.sum())

    gone: list[int] = []
    while len(gone) < m:
        rest = [i for i in range(m) if i not in gone]
        worst = sorted(rest, key=lambda i: probability({*gone, i})) if len(rest) > 1 else rest
        gone += worst[:step]
    return [m - gone.index(i) for i in range(m)]


@pytest.mark.parametrize("operator", ["mask", "delete", "pad"])
def test_greedy_is_a_plain_search(bert: tuple[Any, Model], operator: Any) -> None:
    a = every(bert[1], Greedy(operator=operator), text(6))
    for c in CLASSES:
        assert a.scores[:, c].tolist() == [0, *greedily(bert[0], text(6), c, 1, operator)]
    assert a.origin["forwards"] == 1 + 3 * (6 * 7 / 2 - 1)
    assert (a.unit, a.complete, a.signed) == ("rank", False, False)


def test_greedy_in_steps_of_a_tenth() -> None:
    """Beyond `single` tokens; 13 of them go by two."""
    hf = tiny.build("bert")
    model = pellucid.load(hf, pieces(hf))
    ids = torch.cat([IDS, IDS[:, 1:4] + 1], 1)
    a = pellucid.explain(model, Batch(ids), Greedy(single=12))[0]
    column = model.labels.index(a.prediction)
    assert a.scores.tolist() == [0, *greedily(hf, Batch(ids), column, 2)]
    assert sorted(a.scores) == list(range(14))
    assert pellucid.explain(model, Batch(ids), Greedy(single=13))[0].scores.tolist() == [
        0,
        *greedily(hf, Batch(ids), column, 1),
    ]


def test_greedy_ties_go_in_the_order_of_the_text() -> None:
    """A model that does not see where its words stand, and a text of one word."""
    config = {"encoder": "identity", "scorer": "linear"}
    hf = test_zoo.build(**config)
    model = pellucid.load(hf, pieces(hf))
    a = pellucid.explain(model, Batch(torch.tensor([[FIRST, 9, 9, 9, 9]])), "greedy")[0]
    assert a.scores.tolist() == [0, 4, 3, 2, 1]


def test_a_contrast_of_ranks(bert: tuple[Any, Model]) -> None:
    """By definition the difference of its two columns; the class asked for need not be the predicted one."""
    columns = every(bert[1], "greedy", text(6)).scores
    a, b = (pellucid.explain(bert[1], text(6), "greedy", t)[0].scores for t in ((0, 2), 1))
    close(a, columns[:, 0] - columns[:, 2])
    close(b, columns[:, 1])


def test_confidence_orders_as_probability_does(bert: tuple[Any, Model]) -> None:
    """And still where probabilities have run into 1."""
    logits = torch.tensor([[1.0, 2.0, 0.5], [40.0, 0.0, 1.0], [41.0, 0.0, 1.0], [90.0, 5.0, 1.0]]).double()
    found = confidence(bert[1], logits, 0)
    close(found.sigmoid(), logits.softmax(1)[:, 0], 1e-12)
    assert found.tolist() == sorted(found.tolist())


# --- refusals ---

REPLACING = [Occlusion(), Lime(), KernelShap(), SampledShapley(), Greedy(), GradientShap("mask"), DeepLift("mask")]


@pytest.mark.parametrize("method", REPLACING, ids=lambda m: m.name)
def test_without_a_mask_token(method: Any) -> None:
    model = tiny.opened("bert")
    with pytest.raises(InputError, match=f"(operator 'mask'|{method.name}) puts the mask token .* no tokenizer"):
        pellucid.explain(model, text(4), method)


@pytest.mark.parametrize("method", [Occlusion(9, "delete"), SampledShapley(2, "delete")], ids=lambda m: m.name)
def test_nothing_left_to_read(bert: tuple[Any, Model], method: Any) -> None:
    with pytest.raises(InputError, match=r"operator 'delete' would take all 3 tokens of a text away"):
        pellucid.explain(bert[1], Batch(IDS[:, 1:4]), method)
    assert pellucid.explain(bert[1], Batch(IDS[:, 1:4]), Greedy(operator="delete"))[0].scores.tolist()


@pytest.mark.parametrize("method", [m for m in REPLACING if m.name != "deeplift_mask"], ids=lambda m: m.name)
def test_a_text_of_special_tokens_alone(bert: tuple[Any, Model], method: Any) -> None:
    """Nobody can be away: all is unallocated, or there is nothing to rank."""
    a = pellucid.explain(bert[1], Batch(torch.tensor([[FIRST, FIRST]])), method)[0]
    if method.name != "gradient_shap_mask":
        assert not a.scores.any()
        assert not a.complete or abs(a.gap) < 1e-12


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Occlusion, {"window": 0}, "window=0"),
        (Occlusion, {"operator": "cut"}, "operator='cut'.*'delete'"),
        (Lime, {"samples": 1}, "from 2 on.*samples=1"),
        (Lime, {"width": 0.0}, "width=0.0"),
        (Lime, {"alpha": -1.0}, "alpha=-1.0"),
        (Lime, {"operator": "cut"}, "operator='cut'"),
        (KernelShap, {"samples": 0}, "samples=0"),
        (KernelShap, {"seed": -1}, "seed=-1"),
        (KernelShap, {"operator": "cut"}, "operator='cut'"),
        (SampledShapley, {"permutations": True}, "permutations=True"),
        (SampledShapley, {"operator": "cut"}, "operator='cut'"),
        (Greedy, {"single": -1}, "single=-1"),
        (Greedy, {"operator": "cut"}, "operator='cut'"),
        (SmoothGrad, {"noise": -0.1}, "noise=-0.1"),
        (SmoothGrad, {"reduce": "max"}, "reduce='max'.*'norm'"),
        (SmoothGrad, {"samples": 0}, "samples=0"),
        (GradientShap, {"baseline": "mean"}, "baseline='mean'.*'mask'"),
        (GradientShap, {"at": "layer"}, "at='layer'"),
        (DeepLift, {"baseline": "mean"}, "baseline='mean'"),
        (Flow, {"residual": 2.0}, "residual=2.0"),
    ],
)
def test_a_refusal_names_the_field(
    kind: Any, fields: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would refuse first
    with pytest.raises(InputError, match=words):
        kind(**fields)
