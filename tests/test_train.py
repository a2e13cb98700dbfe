"""Training: it learns, tells the truth about it, can be broken off anywhere, and touches nothing it should not."""

import inspect
import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast, Trainer

import pellucid
from pellucid import cli
from pellucid.data import Split
from pellucid.errors import InputError, MissingExtra
from pellucid.train import Card, Config, config_of, control, fit, read_config, scores, train
from pellucid.train.fit import Order
from pellucid.train.tokens import Padded, encode, sentence_ends, tokenizer_for

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
BERT = {"type": "bert", "max_position_embeddings": 32, "hidden_dropout_prob": 0.2, **TINY}
FAST = {"epochs": 4, "batch_size": 16, "learning_rate": 0.02, "patience": 0}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 150 training, 60 dev and 60 test texts."""
    folder = tmp_path_factory.mktemp("texts")
    for i, (name, n) in enumerate({"train": 150, "dev": 60, "test": 60}.items()):
        corpora.write(folder / f"{name}.csv", corpora.planted(n, seed=i))
    return folder


def config(texts: Path, **tables: dict[str, Any]) -> Config:
    data = {"source": str(texts)} | tables.get("data", {})
    model = tables.get("model", BERT)
    rest = {"tokenizer": {"min_count": 1} | tables.get("tokenizer", {}), "training": FAST | tables.get("training", {})}
    return config_of({"data": data, "model": model, **rest})


@pytest.fixture(scope="module")
def trained(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run."""
    out = tmp_path_factory.mktemp("trained") / "model"
    train(config(texts), out)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_it_learns_and_opens_as_a_model(trained: Path) -> None:
    names = {p.name for p in trained.iterdir()}
    assert names >= {"card.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert all((trained / name).is_file() for name in names)
    model = pellucid.load(trained)
    assert model.labels == ("bad", "good")
    assert Card.load(trained).score("accuracy", "test").value > 0.9
    found = pellucid.explain(model, ["the story was good."], "decompx", "good")[0]
    assert max(zip(found.scores, (t.text for t in found.tokens), strict=True))[1] == "good"


def told_one_by_one(folder: Path, rows: list[dict[str, str]]) -> list[str]:
    """What the saved model says, by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = [model(**tokenizer(row["text"], return_tensors="pt")).logits[0] for row in rows]
    return [model.config.id2label[int(x.argmax())] for x in logits]


def test_the_card_tells_what_the_model_does(trained: Path) -> None:
    from sklearn.metrics import f1_score

    card = Card.load(trained)
    for seed, split in ((1, "dev"), (2, "test")):
        rows = corpora.planted(60, seed)
        gold, told = [row["label"] for row in rows], told_one_by_one(trained, rows)
        accuracy = card.score("accuracy", split)
        assert accuracy.value == pytest.approx(np.mean([a == b for a, b in zip(gold, told, strict=True)]))
        assert card.score("macro_f1", split).value == pytest.approx(f1_score(gold, told, average="macro"))
        assert (accuracy.n, accuracy.null) == (60, pytest.approx(40 / 60))
    assert card.best_epoch == 1 + int(np.argmax([e["dev_accuracy"] for e in card.epochs]))
    assert card.score("accuracy").value == card.epochs[card.best_epoch - 1]["dev_accuracy"]
    assert card.data["classes"]["train"] == {"bad": 100, "good": 50}
    assert card.parameters["all"] == card.parameters["trained"] == sum(w.numel() for w in weights(trained).values())
    with pytest.raises(InputError, match="no accuracy on train"):
        card.score("accuracy", "train")


def test_scores_against_formulas() -> None:
    gold, told = [0] * 70 + [1] * 30, [0] * 60 + [1] * 10 + [1] * 20 + [0] * 10
    accuracy, f1 = scores("dev", gold, told, classes=2, usual=0)
    p, n, z = 0.8, 100, 1.959963984540054
    middle, half = (
        (p + z * z / 2 / n) / (1 + z * z / n),
        z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n),
    )
    assert accuracy.interval == pytest.approx((middle - half, middle + half))
    assert f1.value == pytest.approx((120 / 140 + 40 / 60) / 2)
    assert f1.null == pytest.approx((140 / 170) / 2)
    assert f1.interval[0] < f1.value < f1.interval[1]
    a, b = np.array([gold, told])[:, np.random.default_rng(5).integers(0, n, (10_000, n))]
    drawn = np.mean([2 * ((a == c) & (b == c)).sum(1) / ((a == c).sum(1) + (b == c).sum(1)) for c in (0, 1)], axis=0)
    assert f1.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.01)


def test_the_same_again_and_another_seed(trained: Path, texts: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    train(config(texts, training={"threads": 1}), tmp_path / "again")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), torch.get_num_threads())
    assert same(trained, tmp_path / "again")
    train(config(texts, training={"seed": 1, "epochs": 1}), tmp_path / "other")
    assert not same(trained, tmp_path / "other")


def test_the_test_split_has_no_say(trained: Path, texts: Path, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_bytes((texts / f"{name}.csv").read_bytes())
    flipped = [row | {"label": {"good": "bad", "bad": "good"}[row["label"]]} for row in corpora.planted(60, 2)]
    corpora.write(tmp_path / "test.csv", flipped)
    card = train(config(tmp_path), tmp_path / "out")
    assert same(trained, tmp_path / "out")
    right = Card.load(trained).score("accuracy", "test").value
    assert card.score("accuracy", "test").value == pytest.approx(1 - right)


KILLED = """
import os, signal, sys
sys.path[:0] = ["src", "tests"]
from pathlib import Path
import torch
from pellucid.train import fit
from test_train import config, train
torch.set_num_threads(1)  # as in this process: sums in another order are other sums
def end(self, args, state, control, **_):
    if state.global_step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
fit.Report.on_step_end = end
train(config(Path(sys.argv[1])), sys.argv[2])
"""


def recorded(orders: list[list[int]], draw: Any) -> Any:
    def iterate(self: Order) -> Any:
        orders.append(list(draw(self)))
        return iter(orders[-1])

    return iterate


def test_a_killed_run_goes_on_to_the_same_weights(trained: Path, texts: Path, tmp_path: Path) -> None:
    """Ten steps an epoch; killed in the middle of the third. Dropout is on."""
    run = subprocess.run([sys.executable, "-c", KILLED, str(texts), str(tmp_path), "25"], cwd=Path(__file__).parents[1])
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "checkpoints" / "checkpoint-20").is_dir()
    assert not (tmp_path / "card.json").exists()
    lines: list[str] = []
    orders: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Order, "__iter__", recorded(orders, Order.__iter__))
        card = train(config(texts), tmp_path, lines.append)
    assert [line.split(":")[0] for line in lines[1:]] == ["Epoch 3 of 4", "Epoch 4 of 4"]
    assert len(orders) == 2
    assert orders[0] != orders[1]
    assert same(trained, tmp_path)
    assert [e["dev_loss"] for e in card.epochs] == [e["dev_loss"] for e in Card.load(trained).epochs]
    assert not (tmp_path / "checkpoints").exists()


class Ended(BaseException):
    """As if the process ended here."""


def broken_after(epoch: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The checkpoint of that epoch is begun, and not finished."""
    save = Trainer._save_optimizer_and_scheduler

    def failing(self: Any, folder: str) -> None:
        if round(self.state.epoch) == epoch:
            raise error
        save(self, folder)

    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", failing)


def ended_while_saving(epoch: int, asked: Config, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        broken_after(epoch, patch, Ended())
        with pytest.raises(Ended):
            train(asked, out)


def test_a_run_that_ends_while_saving_goes_on(trained: Path, texts: Path, tmp_path: Path) -> None:
    ended_while_saving(3, config(texts), tmp_path)
    begun = tmp_path / "checkpoints" / "checkpoint-30"
    assert (begun / "model.safetensors").exists()
    (begun / "trainer_state.json").write_text('{"epoch": 3.0, "log_')  # a state that was cut off while being written
    train(config(texts), tmp_path)
    assert same(trained, tmp_path)


def test_a_full_disk_is_one_sentence_and_costs_one_epoch(trained: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        broken_after(3, patch, OSError(28, "No space left on device"))
        with pytest.raises(InputError, match=r"cannot be written: No space left on device\. Make room"):
            train(config(texts), tmp_path)
    kept = {p.name for p in (tmp_path / "checkpoints").glob("checkpoint-*")}
    assert "checkpoint-20" in kept
    assert "checkpoint-30" not in kept
    with pytest.MonkeyPatch.context() as patch:
        full = OSError(28, "No space left on device")
        patch.setattr(PreTrainedTokenizerFast, "save_pretrained", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(InputError, match="No space left"):
            train(config(texts), tmp_path)
    lines: list[str] = []
    train(config(texts), tmp_path, lines.append)
    assert len(lines) == 1  # what was read; nothing was left to train
    assert same(trained, tmp_path)


def test_what_is_done_is_not_done_again(trained: Path, texts: Path) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    lines: list[str] = []
    assert train(config(texts), trained, lines.append) == Card.load(trained)
    assert lines == [f"{trained} holds this model, trained before."]
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_of_something_else_is_left_alone(trained: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trained with training\.epochs = 4, not 5"):
        train(config(texts, training={"epochs": 5}), trained)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="not trained here"):
        train(config(texts), tmp_path / "foreign")
    assert [p.name for p in (tmp_path / "foreign").iterdir()] == ["config.json"]
    ended_while_saving(1, config(texts), tmp_path / "begun")
    with pytest.raises(InputError, match=r"begun with model\.hidden_size = 16, not 8"):
        train(config(texts, model=BERT | {"hidden_size": 8}), tmp_path / "begun")
    path = corpora.write(tmp_path / "data" / "train.csv", corpora.planted(90, 9))
    ended_while_saving(1, config(path), tmp_path / "other")
    corpora.write(path, corpora.planted(90, 8))
    with pytest.raises(InputError, match="begun with other texts"):
        train(config(path), tmp_path / "other")


def test_early_stopping_keeps_the_best_also_when_it_ends_there(texts: Path, tmp_path: Path) -> None:
    """With a rate that changes nothing, the first epoch is the best, and `patience` more are enough."""
    asked = config(texts, training={"epochs": 9, "patience": 2, "learning_rate": 1e-12})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.train._finish", lambda *_: (_ for _ in ()).throw(Ended()))
        with pytest.raises(Ended):
            train(asked, tmp_path)
    lines: list[str] = []
    card = train(asked, tmp_path, lines.append)
    assert (card.best_epoch, len(card.epochs), len(lines)) == (1, 3, 1)


def test_a_loss_that_is_no_number_is_told(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training loss of epoch 1 is .*lower training\.learning_rate \(1e\+30\)"):
        train(config(texts, training={"learning_rate": 1e30, "grad_norm": 0.0}), tmp_path)


def test_frozen_weights_stay_and_others_are_taken_over(trained: Path, texts: Path, tmp_path: Path) -> None:
    more = {"init_from": str(trained), "freeze": ["bert.embeddings"], "epochs": 1}
    lines: list[str] = []
    card = train(config(texts, model=BERT | {"intermediate_size": 8}, training=more), tmp_path / "a", lines.append)
    before, after = weights(trained), weights(tmp_path / "a")
    assert torch.equal(
        before["bert.embeddings.word_embeddings.weight"], after["bert.embeddings.word_embeddings.weight"]
    )
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
    left = {
        "bert.encoder.layer.0.intermediate.dense.weight": [8, 16],
        "bert.encoder.layer.0.output.dense.weight": [16, 8],
    }
    assert card.taken_over is not None
    assert left.items() <= card.taken_over["left"].items()
    assert any("classifier.weight [2, 16]" in line and "taken over" in line for line in lines)
    frozen = sum(w.numel() for name, w in after.items() if name.startswith("bert.embeddings"))
    assert card.parameters["all"] - card.parameters["trained"] == frozen
    with pytest.raises(InputError, match="was trained with other tokens"):
        train(config(texts, tokenizer={"min_count": 120}, training=more), tmp_path / "b")
    with pytest.raises(InputError, match=r"begins with 'bert.embedings'. Did you mean"):
        train(config(texts, training={"freeze": ["bert.embedings"]}), tmp_path / "c")
    with pytest.raises(InputError, match="leaves no parameter"):
        train(config(texts, training={"freeze": ["bert", "classifier"]}), tmp_path / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_a_pretrained_model_goes_on(trained: Path, texts: Path, tmp_path: Path) -> None:
    asked = config(texts, model={"base": str(trained)}, tokenizer={}, training={"epochs": 1})
    assert asked.tokenizer.kind is None
    train(asked, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == AutoTokenizer.from_pretrained(trained).get_vocab()
    assert Card.load(tmp_path).epochs[0]["train_loss"] < Card.load(trained).epochs[0]["train_loss"]


def test_long_texts_are_refused_or_cut_and_counted(texts: Path, tmp_path: Path) -> None:
    short = BERT | {"max_position_embeddings": 8}
    with pytest.raises(InputError, match=r"of 150 train texts are longer than the 8 tokens .*set data\.max_tokens=8"):
        train(config(texts, model=short), tmp_path)
    with pytest.raises(InputError, match="max_tokens is 9, but the model reads at most 8"):
        train(config(texts, model=short, data={"max_tokens": 9}), tmp_path)
    assert not list(tmp_path.iterdir())
    lines: list[str] = []
    card = train(config(texts, model=short, data={"max_tokens": 8}, training={"epochs": 1}), tmp_path, lines.append)
    over = sum(len(row["text"].replace(".", " .").split()) + 1 > 8 for row in corpora.planted(150, 0))
    assert card.tokens["cut"]["train"] == over
    assert card.tokens["longest"]["train"] == 8
    assert lines[1] == f"{over} of 150 train texts are cut to 8 tokens."


@pytest.mark.parametrize("kind", ["words", "wordpiece"])
def test_tokenizers_are_of_the_training_texts_and_the_same_again(kind: str, texts: Path) -> None:
    asked = config(texts, tokenizer={"kind": kind})
    corpus = asked.data.read()
    corpus = replace(corpus, dev=Split(("unheard-of words",), (0,)))
    tokenizer = tokenizer_for(asked, corpus)
    assert tokenizer.get_vocab() == tokenizer_for(asked, corpus).get_vocab()
    assert tokenizer.convert_ids_to_tokens(tokenizer("Good film.")["input_ids"]) == ["[CLS]", "good", "film", "."]
    if kind == "words":
        dev = encode(tokenizer, corpus.dev, "dev", None, None, False)
        assert dev.unknown == pytest.approx(3 / 5)  # unheard - words; but not [CLS] and of


def test_first_tokens_and_pairs(texts: Path) -> None:
    asked = config(texts, model={"type": "attention", "hierarchical": True})
    corpus = asked.data.read()
    tokenizer = tokenizer_for(asked, corpus)
    assert tokenizer.tokenize("a film.", add_special_tokens=True) == ["a", "film", "."]
    assert tokenizer.convert_ids_to_tokens(sentence_ends(tokenizer)) == ["."]
    pairs = replace(corpus, train=Split(tuple((t, "good film") for t in corpus.train.texts), corpus.train.classes))
    both = tokenizer_for(config(texts), pairs)
    made = encode(both, Split((("a film", "good"),), (1,)), "dev", None, None, True).rows[0]
    assert both.convert_ids_to_tokens(made["input_ids"]) == ["[CLS]", "a", "film", "[SEP]", "good"]
    assert made["token_type_ids"].tolist() == [0, 0, 0, 0, 1]


def test_zoo_models_are_trained_too(texts: Path, tmp_path: Path) -> None:
    zoo = {"type": "attention", "encoder": "identity", "embedding_size": 16, "dropout": 0.0, "hierarchical": True}
    card = train(config(texts, model=zoo, training={"epochs": 8, "learning_rate": 0.05}), tmp_path)
    ends = json.loads((tmp_path / "config.json").read_text())["sentence_end_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path).convert_ids_to_tokens(ends) == ["."]
    assert card.score("accuracy", "test").value > 0.9
    assert pellucid.load(tmp_path).labels == ("bad", "good")


def test_batches_are_padded_behind() -> None:
    rows = [{"input_ids": torch.tensor(ids), "labels": torch.tensor(0)} for ids in ([5, 6, 7], [8])]
    batch = Padded(pad=9)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_the_order_is_told_by_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 99, 1003)
    order = Order(lengths, 10, seed=1, by_length=True)
    first = list(order)
    assert sorted(first) == list(range(1003))
    assert list(order) == first
    order.epoch = 1
    assert list(order) != first
    spans = [np.ptp(lengths[first[i : i + 10]]) for i in range(0, 1000, 10)]
    loose = list(Order(lengths, 10, seed=1, by_length=False))
    assert np.mean(spans) < 5 < np.mean([np.ptp(lengths[loose[i : i + 10]]) for i in range(0, 1000, 10)])
    heads = [np.mean(lengths[first[i : i + 10]]) for i in range(0, 1000, 10)]
    assert abs(np.corrcoef(heads, np.arange(100))[0, 1]) < 0.5  # long texts do not come first


def test_control_learns_what_words_tell(texts: Path, tmp_path: Path) -> None:
    found = {(s.name, s.split): s for s in control(config(texts).data.read())}
    assert found["accuracy", "test"].interval[0] > found["accuracy", "test"].null == pytest.approx(2 / 3)
    rng = random.Random(3)
    shuffled = [row | {"label": rng.choice(["good", "bad", "bad"])} for row in corpora.planted(300)]
    blind = control(config(corpora.write(tmp_path / "x.csv", shuffled), data={"test": 0.3}).data.read())
    accuracy = next(s for s in blind if (s.name, s.split) == ("accuracy", "test"))
    assert accuracy.interval[0] < accuracy.null + 0.05


# settings


def test_settings_from_a_file_and_from_the_call(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        '[data]\nsource = "x.csv"\n[model]\ntype = "attention"\n[training]\nepochs = 2\nfreeze = ["a", "b"]\n'
    )
    given = ["data.source=x.csv", "model.type=attention", "training.epochs=2", "training.freeze=a,b"]
    assert read_config(path) == read_config(None, given)
    assert read_config(path, ["training.epochs=3", "training.learning_rate=1"], seed=7).training == replace(
        read_config(path).training, epochs=3, learning_rate=1.0, seed=7
    )
    assert config_of(read_config(path).to_dict()) == read_config(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["trainin.epochs=1"], "no table 'trainin'. Did you mean 'training'"),
        (["training.epoch=1"], "Did you mean 'epochs'"),
        (["training.epochs=two"], "training.epochs is a whole number; seen 'two'"),
        (["training.epochs=0"], "at least 1; seen 0"),
        (["training.learning_rate=0.0"], "must be a finite number above 0"),
        (["training.precision=half"], "precision is one of auto, float32, bfloat16"),
        (["tokenizer.kind=from"], "set tokenizer.name"),
        (["tokenizer.name=x"], "tokenizer.name is of"),
        (["epochs=1"], "takes table.key=value"),
        (["model.type=3"], "model.type is a text"),
    ],
)
def test_settings_that_are_wrong(given: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_config(None, ["data.source=x.csv", "model.type=bert", *given])


def test_settings_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No data was named"):
        config_of({"model": {"type": "bert"}})
    with pytest.raises(InputError, match="No model was named"):
        config_of({"data": {"source": "x"}})
    (tmp_path / "bad.toml").write_text("epochs =")
    with pytest.raises(InputError, match="cannot be read as TOML"):
        read_config(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"type": "brt"}, "no model type 'brt'. Did you mean 'bert'"),
        ({"type": "bert", "hiden_size": 8}, "Did you mean 'hidden_size'"),
        ({"type": "bert", "vocab_size": 8}, "model.vocab_size follows from"),
        ({"type": "bert", "hidden_size": 9, "num_attention_heads": 2}, "cannot be made"),
        ({"type": "attention", "encoder": "lstm"}, "choose one of"),
        ({"type": "bert", "base": "x"}, "model.base goes together"),
        ({"base": "./nowhere"}, "There is no folder ./nowhere"),
        ({"type": "attention", "encoder": "pretrained"}, "set model.base"),
    ],
)
def test_models_that_cannot_be(model: dict[str, Any], said: str, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        train(config(texts, model=model), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bfloat16_needs_its_device(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="needs a CUDA device"):
        train(config(texts, training={"precision": "bfloat16"}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_training_needs_accelerate(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pellucid.train.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'pellucid\[train\]'"):
        train(config(texts), tmp_path)


def test_the_command(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"data.source={texts}", "model.type=attention", "model.encoder=identity", "training.epochs=1"]
    call = ["train", *[part for one in given for part in ("--set", one)], "--out", str(tmp_path / "m"), "--seed", "3"]
    assert cli.status(call) == 0
    said = capsys.readouterr()
    assert said.out.startswith("accuracy on dev ")
    assert "Epoch 1 of 1: train loss" in said.err
    run = json.loads((tmp_path / "m" / "run.json").read_text())
    assert (run["seed"], run["data"]) == (3, Card.load(tmp_path / "m").data["sha256"])
    assert cli.status(["train", "--out", str(tmp_path / "n")]) == 2
    assert "There is nothing to train" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()


def test_the_loop_is_still_trainer_s() -> None:
    """What is overridden exists in this version of transformers."""
    for name in ("_get_train_sampler", "_save_checkpoint", "prediction_step"):
        theirs = inspect.signature(getattr(Trainer, name)).parameters
        assert list(theirs) == list(inspect.signature(getattr(fit.Loop, name)).parameters)


def test_a_finished_run_looks_at_its_data_again(tmp_path: Path) -> None:
    """Other texts are refused; texts that are gone are said to be."""
    source = corpora.write(tmp_path / "films.csv", corpora.planted(60))
    asked, out, lines = config(source, training={"epochs": 1}), tmp_path / "model", list[str]()
    train(asked, out)
    train(asked, out, lines.append)
    assert lines == [f"{out} holds this model, trained before."]
    corpora.write(source, corpora.planted(60, seed=1))
    with pytest.raises(InputError, match="trained on other texts; choose another folder"):
        train(asked, out)
    source.unlink()
    train(asked, out, lines.append)
    assert "its data was not looked at again (There is no file" in lines[-1]


def test_what_a_person_would_not_expect_is_said(tmp_path: Path) -> None:
    rows = corpora.planted(40) * 2
    lines: list[str] = []
    asked = config(corpora.write(tmp_path / "films.csv", rows), tokenizer={"vocab_size": 6}, training={"epochs": 1})
    train(asked, tmp_path / "model", lines.append)
    assert lines[0].endswith("72 train, 8 dev texts; 2 classes: bad, good.")
    assert any("dev texts are in train too" in line for line in lines)
    assert any("of the train tokens are unknown" in line for line in lines)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").glob("*.*")}
    assert modes["model.safetensors"] == modes["config.json"]


def test_weights_keep_the_tokens_that_they_learned(trained: Path, texts: Path, tmp_path: Path) -> None:
    base = {"base": str(trained)}
    with pytest.raises(InputError, match="other tokens than it has learned"):
        config(texts, model=base, tokenizer={"kind": "words"})
    other = tmp_path / "other"
    train(config(corpora.write(tmp_path / "x.csv", corpora.planted(30, seed=9)), training={"epochs": 1}), other)
    asked = config(texts, model=base, tokenizer={"kind": "from", "name": str(other), "min_count": 1})
    with pytest.raises(InputError, match="has other tokens than"):
        train(asked, tmp_path / "model")
    with pytest.raises(InputError, match=r"max_tokens = 1 leaves no token of a text"):
        train(config(texts, data={"max_tokens": 1}), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_command_keeps_the_record_of_what_it_did(texts: Path, tmp_path: Path) -> None:
    line = ["train", "--out", str(tmp_path / "m"), "--set", f"data.source={texts}", "--set", "model.type=attention"]
    line += ["--set", "training.epochs=1", "--set", "model.embedding_size=8", "--set", "model.hidden_size=8"]
    assert cli.status(line) == 0
    before = (tmp_path / "m" / "run.json").read_bytes()
    assert cli.status(line) == 0
    assert (tmp_path / "m" / "run.json").read_bytes() == before
