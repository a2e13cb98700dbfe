"""One-layer BERTs whose attention and values are set by hand, so that what erasing does is known.

A token's vector holds its value and its attention score, each beside its negative, so that LayerNorm changes nothing.
Every query is the same, so that weights are softmax(score); the classifier reads the sign of the mean value: class 1
above zero.
"""

import torch
import transformers as tf
from torch import Tensor

import pellucid
from pellucid import Batch
from pellucid.types import Token

D, CLS = 16, 1


def model(values: Tensor, scores: Tensor, constant: bool = False) -> pellucid.Model:
    """[CLS] (id 1) has the first value and score, token 2 the second, ...; constant: all values equal."""
    count = len(values)
    config = tf.BertConfig(
        hidden_size=D,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        vocab_size=count + 1,
        max_position_embeddings=64,
        num_labels=2,
        pad_token_id=0,
        hidden_act="relu",
    )
    torch.manual_seed(0)
    hf = tf.BertForSequenceClassification._from_config(config, attn_implementation="sdpa").double().eval()
    x = torch.zeros(count + 1, D, dtype=torch.float64)
    x[1:, 0], x[1:, 1] = values, -values
    x[1:, 2], x[1:, 3] = scores, -scores
    left = D - 2 * (x[:, 0] ** 2 + x[:, 2] ** 2)
    assert (left > 0).all(), "values and scores are too large for the width"
    x[:, 4], x[:, 5] = (left / 2).sqrt(), -(left / 2).sqrt()
    with torch.no_grad():
        for p in hf.parameters():
            p.zero_()
        e, layer = hf.bert.embeddings, hf.bert.encoder.layer[0]
        e.word_embeddings.weight.copy_(x)
        own = layer.attention.self
        own.query.bias[0] = D**0.5  # undoes the scale
        own.key.weight[0, 2] = 1.0
        if constant:
            own.value.bias[6], own.value.bias[7] = 0.3, -0.3
        else:
            own.value.weight[6, 0], own.value.weight[7, 1] = 1.0, 1.0
        layer.attention.output.dense.weight.copy_(torch.eye(D))
        hf.bert.pooler.dense.weight[0, 6], hf.bert.pooler.dense.weight[0, 7] = 2.0, -2.0
        hf.classifier.weight[1, 0] = 4.0
        for norm in (e.LayerNorm, layer.attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1.0)
    return pellucid.load(hf)


def batch(ids: list[list[int]]) -> Batch:
    """Texts of token ids behind a special [CLS]; each token is a word of its own."""
    n = max(map(len, ids)) + 1
    rows = torch.zeros(len(ids), n, dtype=torch.long)
    tokens = []
    for i, some in enumerate(ids):
        rows[i, : len(some) + 1] = torch.tensor([CLS, *some])
        words = tuple(Token(f"w{t}", t, word=j) for j, t in enumerate(some))
        tokens.append((Token("[CLS]", CLS, special=True), *words))
    return Batch(rows, rows > 0, tokens=tuple(tokens))


def trustworthy(seed: int, texts: int = 30) -> tuple[pellucid.Model, Batch]:
    """A bag of words: each word's contribution is its attention times one, [CLS] holds the other side. Some words have
    neither."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.cat([torch.tensor([2.2]), torch.linspace(-1.0, 2.0, 12), torch.full((4,), -2.2)]).double()
    values = torch.cat([torch.tensor([-0.6]), torch.full((12,), 0.6), torch.zeros(4)]).double()
    ids = [(2 + torch.randperm(16, generator=g)[:11]).tolist() for _ in range(texts)]
    return model(values, scores), batch(ids)


def unrelated(seed: int, texts: int = 30) -> tuple[pellucid.Model, Batch]:
    """Attention is almost even, its small differences unrelated to values of both signs: its order is a random one.

    No word comes twice: with few words their order might agree with their values by chance, in all texts at once.
    """
    g, count = torch.Generator().manual_seed(seed), 12 * texts
    scores = torch.cat([torch.tensor([0.5]), 0.02 * torch.randn(count, generator=g)]).double()
    values = torch.cat([torch.tensor([-0.6]), 0.25 + 0.7 * torch.randn(count, generator=g).clamp(-2, 2)]).double()
    return model(values, scores), batch((2 + torch.arange(count)).view(texts, 12).tolist())


def powerless(seed: int, texts: int = 12) -> tuple[pellucid.Model, Batch]:
    """The same value everywhere: attention cannot matter."""
    g = torch.Generator().manual_seed(seed)
    ids = [(2 + torch.randint(8, (7,), generator=g)).tolist() for _ in range(texts)]
    return model(torch.zeros(9).double(), torch.linspace(-1, 1, 9).double(), constant=True), batch(ids)
