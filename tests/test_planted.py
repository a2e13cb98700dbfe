"""Planted truth: models built by hand so that each token's contribution is known in closed form.

The DistilBERT plant has one block and width 8. Word vectors x_k have mean 0 and variance 1, positions are 0, so the
embedding norm leaves them alone; that of [CLS], x_0, lives in the first half and the rest in the second. Queries and
keys are 0: attention is 1/n. Values and output projection are the identity. The head's ReLUs see +w.y and -w.y, whose
difference is w.y with slope 1 either way. So with s = std(x_0 + mean_j x_j), and no biases and no feed-forward,

    logit 1 = w.(x_0 + mean_j x_j) / s = sum_k t_k / (n s),    t_k = w.x_k,

because w is 0 where x_0 is not: an average of per-token scores. Logit 0 is minus logit 1.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

import pellucid
from pellucid import Batch
from pellucid.methods import Attention, DecompX, LeaveOneOut, Rollout

D, CLS, MASK = 8, 1, 2
W = np.array([0, 0, 0, 0, 0.7, -0.2, 0.4, 0.1])
IDS = [CLS, 5, 9, 5, 12, 20, 3]
RULES = ("token", "drop", "absdot", "abssim", "norm", "equal", "cls", "dot")


def words() -> np.ndarray:
    """Word vectors [vocabulary, D] of mean 0 and variance 1; that of [CLS] in the first half, [MASK] and padding 0."""
    x = np.zeros((30, D))
    x[:, 4:] = np.random.default_rng(0).normal(size=(30, 4))
    x[:, 4:] -= x[:, 4:].mean(1, keepdims=True)
    x[CLS] = [1, -1, 1, -1, 0, 0, 0, 0]
    x /= x.std(1, keepdims=True)
    x[[0, MASK]] = 0.0
    return x


X = words()
LOGITS = np.array([[-1, 1, *[0] * (D - 2)], [1, -1, *[0] * (D - 2)]])


def both_signs(w: np.ndarray) -> np.ndarray:
    """A head whose first two units read w.y and -w.y."""
    return np.stack([w, -w, *np.zeros((D - 2, D))])


def plant(**over: Any) -> pellucid.Model:
    """The model above, with the parameters in `over` set to other values: `ffn__lin1__weight` is ...ffn.lin1.weight."""
    config = DistilBertConfig(
        dim=D, n_layers=1, n_heads=2, hidden_dim=4, vocab_size=30, num_labels=2, activation="relu",
        max_position_embeddings=16,
    )  # fmt: skip
    values = {
        "word_embeddings.weight": X,
        "LayerNorm.weight": np.ones(D),
        "v_lin.weight": np.eye(D),
        "out_lin.weight": np.eye(D),
        "sa_layer_norm.weight": np.ones(D),
        "output_layer_norm.weight": np.ones(D),
        "pre_classifier.weight": both_signs(W),
        "classifier.weight": LOGITS,
        **{k.replace("__", "."): v for k, v in over.items()},
    }
    return pellucid.load(filled(DistilBertForSequenceClassification(config), values))


def filled(hf: nn.Module, values: dict[str, np.ndarray]) -> nn.Module:
    """The model with the parameters whose names end so set to these values and all others 0, in float64."""
    hf, unused = hf.double().eval(), set(values)
    with torch.no_grad():
        for name, p in hf.named_parameters():
            found = [k for k in values if f".{name}".endswith(f".{k}")]
            p.copy_(torch.as_tensor(values[found[0]] if found else 0.0).expand(p.shape))
            unused -= set(found)
    assert not unused, f"no such parameters: {unused}"
    return hf


def explained(model: pellucid.Model, method: Any = None, ids: list[int] = IDS, target: Any = 1) -> pellucid.Attribution:
    return pellucid.explain(model, Batch(torch.tensor([ids])), method or DecompX(), target)[0]


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def row(ids: list[int] = IDS) -> np.ndarray:
    """Parts [n, D] of row 0 after the attention: x_k / n, and x_0 whole."""
    parts = X[ids] / len(ids)
    parts[0] += X[ids[0]]
    return parts


@pytest.mark.parametrize("rule", RULES)
def test_an_average_of_token_scores(rule: Any) -> None:
    """score_k = t_k / (n s) under every rule, for there is no bias to share."""
    s = row().sum(0).std()
    a = explained(plant(), DecompX(bias=rule))
    close(a.scores, X[IDS] @ W / (len(IDS) * s))
    close([a.unallocated, a.gap, a.explained], [0, 0, a.scores.sum()])
    close(explained(plant(), DecompX(bias=rule), target=0).scores, -a.scores)


def test_one_token_that_matters() -> None:
    """With t_k = 0 but for one word, that word gets the whole logit, and leaving any word out changes what it must.

    Leaving out k: logit - logit with a 0 vector at k, where s is taken anew.
    """
    w = X[9] / 4
    other = X - np.outer(X @ X[9], X[9]) / (X[9] @ X[9])  # no other word has a share of x_9
    other /= np.maximum(other.std(1, keepdims=True), 1e-9)
    other[9] = X[9]
    model = plant(word_embeddings__weight=other, pre_classifier__weight=both_signs(w))

    def logit(ids: list[int]) -> float:
        x = other[ids]
        y = x[0] + x.mean(0)
        return float(w @ y / y.std())

    a = explained(model)
    close(a.scores, [logit(IDS) if i == 9 else 0.0 for i in IDS])
    close(a.explained, logit(IDS))
    assert logit(IDS) > 0.1
    tokenizer = SimpleNamespace(mask_token_id=MASK, all_special_ids=[CLS], convert_ids_to_tokens=lambda ids: ids)
    loo = explained(pellucid.load(model.hf, tokenizer), LeaveOneOut())
    masked = [[*IDS[:i], MASK, *IDS[i + 1 :]] for i in range(1, len(IDS))]
    close(loo.scores, [0.0, *[logit(IDS) - logit(m) for m in masked]])


def test_a_decision_of_the_bias_alone() -> None:
    """A last norm of gain 0 passes its offset b only: logit 1 = w.b, of which no token has a share.

    "equal" and "cls" deal it out as they say; rules by parts find all parts 0 and share it equally.
    """
    b = np.array([0, 0, 0, 0, 1.0, 2.0, 3.0, 4.0])
    model = plant(output_layer_norm__weight=np.zeros(D), output_layer_norm__bias=b)
    n = len(IDS)
    a = explained(model)
    close(a.scores, np.zeros(n))
    close([a.unallocated, a.explained], [W @ b, W @ b])
    close(explained(model, DecompX(bias="cls")).scores, [W @ b, *[0.0] * (n - 1)])
    for rule in ("equal", "absdot", "abssim", "norm"):
        close(explained(model, DecompX(bias=rule)).scores, np.full(n, W @ b / n))
    dropped = explained(model, DecompX(bias="drop"))
    close(dropped.scores, np.zeros(n))
    close([dropped.unallocated, dropped.gap], [0, W @ b])
    assert not dropped.complete


@pytest.mark.parametrize("rule", ["token", "equal", "cls", "absdot", "norm"])
def test_biases_of_the_attention(rule: Any) -> None:
    """The first block's value bias v travels with its token, 1/n each; the output bias o is shared by the rule.

    Row 0 is sum_k p_k + o with p_k = (x_k + v) / n (and x_0 whole), all centred; s is its std; "absdot" shares o by
    |p_k.o| before the centring, "norm" by |p_k|.
    """
    rng = np.random.default_rng(1)
    v, o = rng.normal(size=D), rng.normal(size=D)
    a = explained(plant(v_lin__bias=v, out_lin__bias=o), DecompX(bias=rule))
    n = len(IDS)
    parts = row() + v / n
    share = {
        "token": np.zeros(n),
        "equal": np.full(n, 1 / n),
        "cls": np.eye(n)[0],
        "absdot": np.abs(parts @ o) / np.abs(parts @ o).sum(),
        "norm": np.linalg.norm(parts, axis=1) / np.linalg.norm(parts, axis=1).sum(),
    }[rule]
    s = (parts.sum(0) + o).std()
    centred = W - W.mean()
    close(a.scores, (parts + np.outer(share, o)) @ centred / s)
    close(a.unallocated, o @ centred / s if rule == "token" else 0.0)


def test_a_feed_forward_that_amplifies() -> None:
    """The feed-forward adds a (w.y) w / |w|^2 through two ReLUs: score_k = (1 + a) w.y_k / s2 with it, and
    w.y_k / s2 without (ffn=False), which leaves the rest as the gap; s2 = std(y + a (w.y) w / |w|^2)."""
    gain, w = 1.5, W - W.mean()  # centred, so that the last norm leaves it alone
    up = np.stack([w, -w, np.zeros(D), np.zeros(D)])
    down = gain * np.stack([w, -w, np.zeros(D), np.zeros(D)], 1) / (w @ w)
    model = plant(ffn__lin1__weight=up, ffn__lin2__weight=down, pre_classifier__weight=both_signs(w))
    y = row() / row().sum(0).std()
    s2 = (y.sum(0) + gain * (w @ y.sum(0)) * w / (w @ w)).std()
    for rule in ("token", "absdot"):
        close(explained(model, DecompX(bias=rule)).scores, (1 + gain) * y @ w / s2)
        bare = explained(model, DecompX(bias=rule, ffn=False))
        close(bare.scores, y @ w / s2)
        close(bare.gap, gain * y.sum(0) @ w / s2)


def test_an_attended_token_need_not_matter() -> None:
    """Keys so large that every row attends to word 9 alone (probability 1), whose value w does not read.

    Attention gives it 1 and rollout 1/2 beside [CLS]'s 1/2; the logit is w.(x_0 + x_9) / s = 0, and its score 0.
    """
    x = X.copy()
    x[CLS] = [0, 2, -1, -1, 0, 0, 0, 0]
    x[9] = [-3, 1, 1, 1, 0, 0, 0, 0]
    x[[CLS, 9]] /= x[[CLS, 9]].std(1, keepdims=True)
    key, query = np.zeros((D, D)), np.zeros(D)
    key[[0, 4], 0] = -1e4  # the first row of each head reads the first coordinate, which only word 9 has
    query[[0, 4]] = 1.0
    model = plant(word_embeddings__weight=x, q_lin__bias=query, k_lin__weight=key)
    n, at = len(IDS), IDS.index(9)
    close(explained(model, Attention()).scores, np.eye(n)[at])
    close(explained(model, Rollout()).scores, (np.eye(n)[0] + np.eye(n)[at]) / 2)
    a = explained(model)
    close(a.scores, np.zeros(n))
    close(a.explained, 0.0)


@pytest.mark.parametrize("rule", RULES)
def test_mean_pooling(rule: Any) -> None:
    """A ModernBERT whose block adds nothing and whose head reads the mean: GELU(u) - GELU(-u) = u for u = w.mean_j x_j.

    The head's norm divides by S = std of (GELU(u), GELU(-u), 0, ...): score_k = w.x_k / (n S), over the real tokens of
    a padded text only.
    """
    config = ModernBertConfig(
        hidden_size=D, intermediate_size=4, num_hidden_layers=1, num_attention_heads=2, vocab_size=30, num_labels=2,
        classifier_pooling="mean", norm_eps=1e-12, pad_token_id=0, cls_token_id=CLS, bos_token_id=CLS, sep_token_id=3,
        eos_token_id=3,
    )  # fmt: skip
    values = {
        "tok_embeddings.weight": X,
        "norm.weight": np.ones(D),
        "mlp_norm.weight": np.ones(D),
        "final_norm.weight": np.ones(D),
        "head.dense.weight": both_signs(W),
        "classifier.weight": LOGITS,
    }
    model = pellucid.load(filled(ModernBertForSequenceClassification._from_config(config), values))
    batch = Batch(torch.tensor([IDS, [*IDS[:4], 0, 0, 0]]), torch.tensor([[1] * 7, [1] * 4 + [0] * 3]))
    both = pellucid.explain(model, batch, DecompX(bias=rule), target=1)
    for a, ids in zip(both, (IDS, IDS[:4]), strict=True):
        u = torch.tensor(X[ids].mean(0) @ W)
        gelu = torch.nn.functional.gelu
        spread = np.array([gelu(u), gelu(-u), *[0.0] * (D - 2)]).std()
        close(a.scores, X[ids] @ W / (len(ids) * spread))
        close([a.unallocated, a.gap], [0, 0])
