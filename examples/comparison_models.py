"""Classifiers for studies that compare models: fine-tuned BERTs of other tasks, and students of other architectures.

    python examples/comparison_models.py --data DATA --teacher TEACHER --out OUT [--only hatexplain sst2_roberta]

TEACHER holds a `BertForSequenceClassification` of SST-2 sentences with its tokenizer; DATA a folder per data set, with
train.parquet and, where there are such splits, dev.parquet and test.parquet (columns `text` and `label`).

1. Fine-tuned (`hatexplain`, `ag_news`, `imdb`, `cola`): the teacher goes on with part of another data set. Embeddings
   keep their values, and attention is not dropped out; both are for speed. Cut short, it goes on from the last epoch.
2. Students (`sst2_distilbert`, `sst2_roberta`, `sst2_modernbert`) learn the teacher's logits of SST-2 phrases by mean
   squared error, and no labels. The first two begin with the teacher's embeddings, four of its six blocks and its
   classifier; ModernBERT with its word embeddings and new blocks. Word embeddings keep their values.

A model stands in OUT/NAME as soon as it is finished, with measures.json: accuracy beside the most frequent class, and
beside TF-IDF with logistic regression (1) or the teacher (2). Finished folders are skipped. One thread, half an hour.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification as Auto
from transformers import AutoTokenizer, DistilBertConfig, ModernBertConfig, PretrainedConfig, RobertaConfig
from transformers.utils import logging

import pellucid
from pellucid.data import read
from pellucid.records import write_whole
from pellucid.train import config_of, control, train
from pellucid.train.fit import Order
from pellucid.train.scores import scores
from pellucid.train.tokens import Padded, Row, encode

TUNED, STUDENTS, POOL = 16, 32, 20_000  # texts per step, twice; phrases that the teacher judges
KEPT = (0, 1, 3, 5)  # the teacher's blocks that a student takes over
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Tuned:
    """A data set that the teacher goes on with. data: what pellucid.train is told about it, but for its place."""

    epochs: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Student:
    """An architecture that learns the teacher's logits of the first `texts` phrases of the pool."""

    make: Callable[[PretrainedConfig, Weights], tuple[PretrainedConfig, Weights]]
    texts: int
    epochs: int
    learning_rate: float


def shared(c: PretrainedConfig) -> dict[str, Any]:
    """What the configuration of every student takes over from the teacher's."""
    names = {"id2label": c.id2label, "label2id": c.label2id, "problem_type": "single_label_classification"}
    return names | {"vocab_size": c.vocab_size, "pad_token_id": c.pad_token_id, "num_hidden_layers": len(KEPT)}


def renamed(teacher: Weights, names: dict[str, str]) -> Weights:
    """The teacher's weights, of its blocks those of KEPT, with every key of `names` replaced, in their order."""
    blocks, found = {f".layer.{old}.": f".layer.{new}." for new, old in enumerate(KEPT)}, {}
    for name, w in teacher.items():
        block = next((b for b in blocks if b in name), "")
        if block or ".layer." not in name:
            for old, new in [(block, blocks.get(block, "")), *names.items()]:
                name = name.replace(old, new)
            found[name] = w.clone()
    return found


def distilbert(c: PretrainedConfig, teacher: Weights) -> tuple[PretrainedConfig, Weights]:
    """It has no token types, so that row 0 is added to every position; its classifier has ReLU for tanh."""
    sizes = {"dim": c.hidden_size, "hidden_dim": c.intermediate_size, "n_heads": c.num_attention_heads}
    drop = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
    config = DistilBertConfig(**shared(c), **sizes, **drop, max_position_embeddings=c.max_position_embeddings)
    names = {"bert.encoder": "distilbert.transformer", "bert.embeddings": "distilbert.embeddings"}
    names |= {f"self.{name}": f"{name[0]}_lin" for name in ("query", "key", "value")}
    names |= {"attention.output.dense": "attention.out_lin", "attention.output.LayerNorm": "sa_layer_norm"}
    names |= {"intermediate.dense": "ffn.lin1", "output.dense": "ffn.lin2", "output.LayerNorm": "output_layer_norm"}
    found, at = renamed(teacher, names | {"bert.pooler.dense": "pre_classifier"}), "distilbert.embeddings"
    found[f"{at}.position_embeddings.weight"] += found.pop(f"{at}.token_type_embeddings.weight")[0]
    return config, found


def roberta(c: PretrainedConfig, teacher: Weights) -> tuple[PretrainedConfig, Weights]:
    """Its positions begin behind the padding id; of the token types row 0 is left."""
    drop = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "layer_norm_eps": c.layer_norm_eps}
    sizes = {name: getattr(c, name) for name in ("hidden_size", "intermediate_size", "num_attention_heads")}
    first = c.pad_token_id + 1
    sizes |= {"max_position_embeddings": c.max_position_embeddings + first, "type_vocab_size": 1}
    config = RobertaConfig(**shared(c), **sizes, **drop, bos_token_id=None, eos_token_id=None)
    found = renamed(teacher, {"classifier.": "classifier.out_proj.", "bert.pooler": "classifier", "bert.": "roberta."})
    at, types = "roberta.embeddings.position_embeddings.weight", "roberta.embeddings.token_type_embeddings.weight"
    return config, found | {at: F.pad(found[at], (0, 0, first, 0)), types: found[types][:1]}


def modernbert(c: PretrainedConfig, teacher: Weights) -> tuple[PretrainedConfig, Weights]:
    """Every second block looks at the whole text, the others at windows; the mean of all rows is judged."""
    sizes = {name: getattr(c, name) for name in ("hidden_size", "max_position_embeddings")}
    sizes |= {name: getattr(c, name) // 2 for name in ("intermediate_size", "num_attention_heads")}
    look = {"global_attn_every_n_layers": 2, "local_attention": 128, "classifier_pooling": "mean"}
    none = {f"{name}_token_id": None for name in ("bos", "eos", "cls", "sep")}  # its own vocabulary's, if left out
    words = {"model.embeddings.tok_embeddings.weight": teacher["bert.embeddings.word_embeddings.weight"]}
    return ModernBertConfig(**shared(c), **sizes, **look, **none), words


NEWS, FILMS = ("World", "Sports", "Business", "Sci/Tech"), ("negative", "positive")
MODELS: dict[str, Tuned | Student] = {  # by priority, should time run out
    "hatexplain": Tuned(2, {"names": ("normal", "offensive", "hatespeech"), "max_tokens": 64, "limit": 7000}),
    "sst2_distilbert": Student(distilbert, 8000, 1, 1e-4),
    "sst2_modernbert": Student(modernbert, POOL, 2, 6e-4),
    "ag_news": Tuned(2, {"names": NEWS, "max_tokens": 64, "limit": 2000, "dev_limit": 500, "test_limit": 1000}),
    "sst2_roberta": Student(roberta, 8000, 1, 1e-4),
    "imdb": Tuned(1, {"names": FILMS, "max_tokens": 128, "limit": 1500, "dev_limit": 400, "test_limit": 1000}),
    "cola": Tuned(2, {"names": ("unacceptable", "acceptable"), "max_tokens": 64, "limit": 5000}),  # at its null
}


def tuned(what: Tuned, source: Path, teacher: Path, folder: Path) -> dict[str, Any]:
    """Fine-tune into `folder` by Pellucid's own training; the measures."""
    fixed: dict[str, Any] = {"batch_size": TUNED, "learning_rate": 7e-5, "warmup": 0.06, "weight_decay": 0.01}
    training = fixed | {"epochs": what.epochs, "freeze": ("bert.embeddings",), "threads": 1}
    model = {"base": str(teacher), "attention_probs_dropout_prob": 0.0}
    config = config_of({"data": {"source": str(source)} | what.data, "model": model, "training": training})
    card = train(config, folder, say)
    texts = card.data["texts"]["train"]
    told = {"texts": texts, "steps": len(card.epochs) * -(-texts // TUNED), "seconds": card.seconds}
    return told | {"scores": card.scores, "tfidf": control(config.data.read())}


def judged(source: Path, teacher: Path, out: Path) -> tuple[Any, dict[str, list[Row]], dict[str, Tensor]]:
    """Tokenizer, rows and the teacher's logits [rows, 2] of POOL phrases of four or more words, dev and test; kept."""
    tokenizer, corpus = AutoTokenizer.from_pretrained(teacher), read(source)
    long = [i for i, text in enumerate(corpus.train.texts) if len(str(text).split()) >= 4]
    splits = corpus.splits | {"train": corpus.train.take(np.random.default_rng(0).permutation(long)[:POOL].tolist())}
    rows = {name: encode(tokenizer, split, name, None, None, False).rows for name, split in splits.items()}
    kept, sizes = out / "teacher.pt", {name: len(x) for name, x in rows.items()}
    if not kept.exists() or {name: len(x) for name, x in torch.load(kept).items()} != sizes:
        model, start = Auto.from_pretrained(teacher, dtype=torch.float32), time.perf_counter()
        torch.save({name: logits_of(model, x, tokenizer.pad_token_id) for name, x in rows.items()}, f"{kept}.part")
        os.replace(f"{kept}.part", kept)
        say(f"the teacher judged {sizes} texts in {time.perf_counter() - start:.0f} s")
    return tokenizer, rows, torch.load(kept)


def logits_of(model: Any, rows: list[Row], pad: int) -> Tensor:
    """Logits [rows, c]."""
    parts = (Padded(pad)(rows[i : i + 64]) for i in range(0, len(rows), 64))
    with torch.no_grad():
        return torch.cat([model.eval()(part["input_ids"], part["attention_mask"]).logits for part in parts])


def student(what: Student, source: Path, teacher: Path, folder: Path) -> dict[str, Any]:
    """Train a student into `folder`; the measures."""
    tokenizer, rows, logits = judged(source, teacher, folder.parent)
    original = Auto.from_pretrained(teacher, dtype=torch.float32)
    config, weights = what.make(original.config, original.state_dict())
    torch.manual_seed(0)
    model = Auto.from_config(config)
    model.load_state_dict(model.state_dict() | weights)  # names that it does not know are refused
    say(f"{folder.name[1:]}: {len(weights)} of {len(model.state_dict())} tensors begin as the teacher's")
    model.get_input_embeddings().requires_grad_(False)
    some = np.random.default_rng(0).permutation(len(logits["train"]))[: what.texts].tolist()
    told = distil(model, what, [rows["train"][i] | {"labels": logits["train"][i]} for i in some], tokenizer)
    told |= {"scores": [], "teacher": [], "agreement": {}}
    model.save_pretrained(folder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # token types are not read
    tokenizer.save_pretrained(folder)
    gold = {name: [int(row["labels"]) for row in x] for name, x in rows.items()}
    usual = int(np.bincount(gold["train"]).argmax())
    for split in ("dev", "test"):
        own, theirs = logits_of(model, rows[split], tokenizer.pad_token_id).argmax(-1), logits[split].argmax(-1)
        for key, classes in {"scores": own, "teacher": theirs}.items():
            told[key] += scores(split, gold[split], classes.tolist(), config.num_labels, usual)
        told["agreement"][split] = float((own == theirs).float().mean())
    return told


def distil(model: Any, what: Student, rows: list[Row], tokenizer: Any) -> dict[str, Any]:
    """Fit the model's logits to those that stand as labels; texts, steps and seconds."""
    order = Order([len(row["input_ids"]) for row in rows], STUDENTS, seed=0, by_length=True)
    steps = what.epochs * -(-len(rows) // STUDENTS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=what.learning_rate, weight_decay=0.01, fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(i / steps / 0.06 + 0.01, 1 - i / steps))
    errors, start = [], time.perf_counter()
    model.train()
    for order.epoch in range(what.epochs):
        chosen = list(order)
        for i in range(0, len(rows), STUDENTS):
            batch = Padded(tokenizer.pad_token_id)([rows[j] for j in chosen[i : i + STUDENTS]])
            loss = F.mse_loss(model(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"])
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
            errors.append(loss.item())
            if len(errors) % 50 == 0:
                say(f"step {len(errors)} of {steps}, squared error {np.mean(errors[-50:]):.3f}")
    return {"texts": len(rows), "steps": len(errors), "seconds": time.perf_counter() - start}


def say(line: str) -> None:
    """A line with the time."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def make(name: str, data: Path, teacher: Path, out: Path) -> None:
    """One model: train it, open it with Pellucid, write its measures, put it in its place."""
    what, folder = MODELS[name], out / f".{name}"
    at = data / (name if isinstance(what, Tuned) else "sst2")
    told = tuned(what, at, teacher, folder) if isinstance(what, Tuned) else student(what, at, teacher, folder)
    parity = pellucid.load(str(folder)).parity
    write_whole(folder / "measures.json", json.dumps({"parity": parity} | told, indent=2, default=asdict).encode())
    os.replace(folder, out / name)
    say(f"{name} is there, parity {parity:.1e}; " + "; ".join(str(one) for one in told["scores"]))


def main() -> None:
    """Read the options and make the models that are not there."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets' folders")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a BERT that judges SST-2 sentences")
    parser.add_argument("--out", type=Path, required=True, help="folder for the models of this teacher")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS), help="some of the models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    options.out.mkdir(parents=True, exist_ok=True)
    todo = [n for n in MODELS if n in options.only and not (options.out / n / "measures.json").exists()]
    say(f"to make: {', '.join(todo) or 'nothing, all are there'}")
    for name in todo:
        make(name, options.data, options.teacher, options.out)


if __name__ == "__main__":
    main()
