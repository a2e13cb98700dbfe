"""Planted truth: BERTs whose weights are set by hand, so that what each word contributes is known in closed form.

Each case is a function f of which words of a text are present, absent meaning replaced by [MASK], whose vector carries
nothing but its place. The true contribution of a word is its Shapley value in f: the only share that is complete, fair
to equals and additive (Shapley 1953). All five f are sums of games in which a set of words wins something together, or
any of them alone; its members share that evenly.

How a BERT computes f. A number stands in a vector as a pair (a, -a), so that norms have nothing to centre. Before each
norm a bias adds a pair of +-BALLAST, large enough that the rest hardly changes the variance, and the norm's gain scales
the rest back and takes the ballast away: the norm is the identity up to a share of |x|^2 / BALLAST^2, about 1e-9. No
token owns the ballast. The pooler's tanh is read near 0, where it is the identity as closely. Attention over equal
scores gives means over the N = 12 positions of a text; the readout multiplies them by N. Logit 1 is f; logit 0 is 0.
ReLU units of a feed-forward make products of presences and saturation. Everything is float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.encoder.load import load
from pellucid.encoder.model import Model
from pellucid.registry import Registry

WORDS = 10
"""Words of a text; [CLS] and [SEP] stand around them. Of a longer or shorter text the logit is f times 12 / N."""
WEIGHTS = {
    "fine": 0.3,
    "good": 0.5,
    "great": 0.8,
    "superb": 1.0,
    "dull": -0.2,
    "weak": -0.4,
    "bad": -0.6,
    "awful": -0.9,
}
EVIDENCE = ("proven", "certain", "confirmed", "undisputed")
FILLERS = ("the", "a", "film", "plot", "was", "and")
NEGATION, MARKER, DISTRACTOR = "not", "but", "look"
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
VOCABULARY = (*SPECIAL, *WEIGHTS, *EVIDENCE, *FILLERS, NEGATION, MARKER, DISTRACTOR)

PLACES, HEADS, UNITS = 16, 2, 4
BALLAST, NEAR, SHARP = 1e5, 1e-5, 60.0
FLIP, GATE, AND = 1.5, 3.0, 1.25
"""FLIP: how much of the sum a negation takes away. GATE: more than any sum of WEIGHTS. AND: more than any of them."""
WEIGHT, KEY, ONE, SUM, SEEN, RESULT, LOAD, PLACE = range(8)
"""Features, each a pair of coordinates: a word's weight; whether it is a key word of its case; whether it is [CLS];
what attention brought of weights and of key words; the result; the ballast; and the first of PLACES positions."""
WIDTH = 2 * (PLACE + PLACES)
HEAD = WIDTH // HEADS


def _put(matrix: Tensor, row: int, feature: int, gain: float) -> None:
    """A row of `matrix` [*, WIDTH] reads a feature, evenly from both of its coordinates."""
    matrix[row, 2 * feature] += gain / 2
    matrix[row, 2 * feature + 1] -= gain / 2


def _pair(vector: Tensor, feature: int, value: float | Tensor) -> None:
    """A vector [..., WIDTH] gets a value in a feature."""
    vector[..., 2 * feature] += value
    vector[..., 2 * feature + 1] -= value


@dataclass(frozen=True, eq=False)
class Block:
    """One layer of the Hugging Face model, to be wired by hand."""

    hf: Any

    def carry(self, *ways: tuple[int, int, float]) -> None:
        """Head 0 brings features to features, times a gain: (from, to, gain) each."""
        for slot, (source, aim, gain) in enumerate(ways):
            _put(self.hf.attention.self.value.weight, slot, source, gain)
            _pair(self.hf.attention.output.dense.weight.T[slot], aim, 1.0)

    def look(self, head: int) -> None:
        """A head looks at key words alone, evenly at all where there is none."""
        own, row = self.hf.attention.self, head * HEAD + PLACES
        own.query.bias[row] = HEAD**0.5
        _put(own.key.weight, row, KEY, SHARP)

    def only_back(self, head: int) -> None:
        """The head's rows look at no position after their own."""
        own = self.hf.attention.self
        for i in range(PLACES):
            _put(own.query.weight, head * HEAD + i, PLACE + i, HEAD**0.5)
            for later in range(i + 1, PLACES):
                _put(own.key.weight, head * HEAD + i, PLACE + later, -3 * SHARP)

    def unit(self, i: int, reads: Sequence[tuple[int, float]], bias: float, gain: float, aim: int) -> None:
        """Feature `aim` gets gain * ReLU(bias + what is read): (feature, factor) each."""
        self.hf.intermediate.dense.bias[i] = bias
        for feature, factor in reads:
            _put(self.hf.intermediate.dense.weight, i, feature, factor)
        _pair(self.hf.output.dense.weight.T[i], aim, gain)


def _additive(blocks: list[Block]) -> None:
    blocks[0].carry((WEIGHT, RESULT, 1.0))


def _gated(blocks: list[Block]) -> None:
    """(1 - FLIP) s + FLIP g with g = ReLU(s - GATE n) - ReLU(-s - GATE n) = s without a negation, 0 with one."""
    blocks[0].carry((WEIGHT, SUM, 1.0), (KEY, SEEN, 1.0), (WEIGHT, RESULT, 1 - FLIP))
    blocks[0].unit(0, [(SUM, 1.0), (SEEN, -GATE)], 0.0, FLIP, RESULT)
    blocks[0].unit(1, [(SUM, -1.0), (SEEN, -GATE)], 0.0, -FLIP, RESULT)


def _ordered(blocks: list[Block]) -> None:
    """Each row learns whether the marker came before it, h, and keeps ReLU(w - AND (1 - h)) - ReLU(-w - AND (1 - h));
    the second block sums these up."""
    blocks[0].look(0)
    blocks[0].only_back(0)
    blocks[0].carry((KEY, SEEN, 1.0))
    for i, sign in enumerate((1.0, -1.0)):
        blocks[0].unit(i, [(WEIGHT, sign), (SEEN, AND)], -AND, sign, SUM)
    blocks[1].carry((SUM, RESULT, 1.0))


def _redundant(blocks: list[Block]) -> None:
    """Of a pieces of evidence min(1, a) = a - ReLU(a - 1), where the 1 is what [CLS] says."""
    blocks[0].carry((WEIGHT, RESULT, 1.0), (KEY, RESULT, 1.0), (KEY, SEEN, 1.0), (ONE, SUM, 1.0))
    blocks[0].unit(0, [(SEEN, 1.0), (SUM, -1.0)], 0.0, -1.0, RESULT)


def _distracted(blocks: list[Block]) -> None:
    blocks[0].carry((WEIGHT, RESULT, 1.0))
    blocks[0].look(1)


Text = tuple[str, ...]
Draw = Callable[[np.random.Generator], Text]


def _some(rng: np.random.Generator, *parts: tuple[Sequence[str], int]) -> Text:
    """So many different words of each list, in a random order."""
    words = [str(w) for some, count in parts for w in rng.choice(some, count, replace=False)]
    return tuple(str(w) for w in rng.permutation(words))


def _weighing(count: int, *more: tuple[Sequence[str], int]) -> Draw:
    """Texts of `count` words with a weight, other words, and fillers for the rest."""
    rest = WORDS - count - sum(n for _, n in more)
    return lambda rng: _some(rng, (tuple(WEIGHTS), count), *more, (FILLERS, rest))


def _marked(rng: np.random.Generator) -> Text:
    """The marker at place 3 to 6, words with a weight on both sides."""
    while True:
        words = list(_some(rng, (tuple(WEIGHTS), 6), (FILLERS, WORDS - 7)))
        at = int(rng.integers(3, 7))
        if set(words[:at]) & set(WEIGHTS) and set(words[at:]) & set(WEIGHTS):
            return (*words[:at], MARKER, *words[at:])


def _believed(rng: np.random.Generator) -> Text:
    """Two to four pieces of evidence and two words with a weight."""
    return _weighing(2, (EVIDENCE, int(rng.integers(2, 5))))(rng)


def weights(words: Text) -> Float[np.ndarray, "n"]:
    """Each word's weight, 0 for most."""
    return np.array([WEIGHTS.get(w, 0.0) for w in words])


def _is(words: Text, *asked: str) -> Bool[np.ndarray, "n"]:
    return np.array([w in asked for w in words])


def _after(words: Text) -> Float[np.ndarray, "n"]:
    """The weights of words after the marker, 0 before it."""
    return weights(words) * (np.arange(len(words)) > words.index(MARKER))


@dataclass(frozen=True)
class Case:
    """A question with a known answer.

    asks: what is planted, one line. key: words that mean something special here. worth(words, present [k, n]) is f [k]
    for k sets of present words; truth(words) its Shapley values [n].
    """

    name: str
    asks: str
    key: tuple[str, ...]
    layers: int
    wire: Callable[[list[Block]], None]
    draw: Draw
    worth: Callable[[Text, Bool[np.ndarray, "k n"]], Float[np.ndarray, "k"]]
    truth: Callable[[Text], Float[np.ndarray, "n"]]

    def model(self) -> Model:
        """The model, opened; a new one at each call. Cost: some hundredths of a second."""
        return load(*_built(self))

    def texts(self, count: int, seed: int = 0) -> list[Text]:
        """Texts of WORDS words each, the same for the same seed; more of them begin with the same ones."""
        return [self.draw(np.random.default_rng([seed, i])) for i in range(count)]


CASES: Registry[Case] = Registry("planted case")


def _add(case: Case) -> None:
    CASES.add(case.name, case)


_add(
    Case(
        "additive",
        "each word adds its weight: f = sum of w_k; truth w_k",
        (),
        1,
        _additive,
        _weighing(6),
        worth=lambda words, present: present @ weights(words),
        truth=weights,
    )
)
_add(
    Case(
        "gated",
        "a negation turns the sum s of weights into -s / 2: f = s (1 - 1.5 [not]); truth w_k / 4, and -3/4 s for it",
        (NEGATION,),
        1,
        _gated,
        _weighing(5, ((NEGATION,), 1)),
        worth=lambda words, present: (present @ weights(words)) * (1 - FLIP * (present @ _is(words, NEGATION))),
        truth=lambda words: weights(words) * (1 - FLIP / 2) - _is(words, NEGATION) * (FLIP / 2 * weights(words).sum()),
    )
)
_add(
    Case(
        "order",
        "words count only after a marker: f = [but] (sum of w_k after it); truth w_k / 2, and half the sum for it",
        (MARKER,),
        2,
        _ordered,
        _marked,
        worth=lambda words, present: (present @ _after(words)) * (present @ _is(words, MARKER)),
        truth=lambda words: (_after(words) + _is(words, MARKER) * _after(words).sum()) / 2,
    )
)
_add(
    Case(
        "redundant",
        "each of r words is evidence enough: f = min(1, how many) + sum of w_k; truth 1 / r, and w_k for the others",
        EVIDENCE,
        1,
        _redundant,
        _believed,
        worth=lambda words, present: np.minimum(1, present @ _is(words, *EVIDENCE)) + present @ weights(words),
        truth=lambda words: _is(words, *EVIDENCE) / max(1, _is(words, *EVIDENCE).sum()) + weights(words),
    )
)
_add(
    Case(
        "distractor",
        "one head looks at a word that carries nothing, the other evenly at all: f = sum of w_k; truth w_k",
        (DISTRACTOR,),
        1,
        _distracted,
        _weighing(5, ((DISTRACTOR,), 1)),
        worth=lambda words, present: present @ weights(words),
        truth=weights,
    )
)


def _built(case: Case) -> tuple[Any, Any]:
    """The Hugging Face model of a case and its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=case.layers,
        num_attention_heads=HEADS,
        intermediate_size=UNITS,
        hidden_act="relu",
        max_position_embeddings=PLACES,
        type_vocab_size=1,
        pad_token_id=0,
        layer_norm_eps=1e-12,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
    hf = BertForSequenceClassification._from_config(config, attn_implementation="sdpa").double().eval()
    hf.config.name_or_path = f"planted/{case.name}"
    with torch.no_grad():
        for p in hf.parameters():
            p.zero_()
        _frame(hf, case)
        case.wire([Block(layer) for layer in hf.bert.encoder.layer])
    return hf, _tokenizer()


def _frame(hf: Any, case: Case) -> None:
    """What all cases share: words, positions, norms that do nothing, and a readout of RESULT."""
    e = hf.bert.embeddings
    for i, word in enumerate(VOCABULARY):
        _pair(e.word_embeddings.weight[i], WEIGHT, WEIGHTS.get(word, 0.0))
        _pair(e.word_embeddings.weight[i], KEY, float(word in case.key))
        _pair(e.word_embeddings.weight[i], ONE, float(word == "[CLS]"))
    for i in range(PLACES):
        _pair(e.position_embeddings.weight[i], PLACE + i, 1.0)
    norms, loads = [e.LayerNorm], [e.token_type_embeddings.weight[0]]
    for layer in hf.bert.encoder.layer:
        norms += [layer.attention.output.LayerNorm, layer.output.LayerNorm]
        loads += [layer.attention.output.dense.bias, layer.output.dense.bias]
    for norm, load_ in zip(norms, loads, strict=True):
        _pair(load_, LOAD, BALLAST)
        norm.weight.fill_(BALLAST * (2 / WIDTH) ** 0.5)
        norm.weight[2 * LOAD : 2 * LOAD + 2] = 0.0
    _put(hf.bert.pooler.dense.weight, 0, RESULT, NEAR * (WORDS + 2))
    hf.classifier.weight[1, 0] = 1 / NEAR


def _tokenizer() -> Any:
    """One token per word, words apart by spaces, [CLS] and [SEP] around them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.pre_tokenizer = WhitespaceSplit()
    ends = [(t, VOCABULARY.index(t)) for t in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair=None, special_tokens=ends)
    named = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=PLACES, **named)
