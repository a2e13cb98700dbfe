"""Distil the bundled demo model: a two-layer BERT that judges film-review sentences.

The teacher folder holds a fine-tuned `BertForSequenceClassification` (label 0 negative, 1 positive); the data folder
holds `train.parquet`, `dev.parquet` and `test.parquet`, each with the columns `text` and `label`.

    python examples/train_demo_model.py --teacher TEACHER --data SST2 --out OUT --cache CACHE

1. Longer training texts also enter as altered copies, where neighbours in the teacher's embedding replace words.
   The teacher judges the original and the altered texts once; with `--cache` its outputs are kept for later runs.
2. The vocabulary is a part of the teacher's: single ASCII characters, then the pieces that the training texts use most.
   Each student embedding is therefore the projection of one teacher embedding (PCA, one to one).
3. The student learns the teacher's softened probabilities and its pooled vector, not the labels of the training texts.
   A fraction of the tokens is replaced by [MASK], so that a masked input is not foreign to the model.
4. The epoch with the best dev accuracy is kept. The test split is measured once, after that choice.

Written to `--out`: config.json, model.safetensors (float16), tokenizer.json, tokenizer_config.json. Measures: stdout.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertConfig
from transformers import BertForSequenceClassification as Bert

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, MASK = SPECIAL.index("[PAD]"), SPECIAL.index("[MASK]")
MAX_TOKENS = 128
Ids = list[list[int]]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result, apart from the teacher, the data and the machine's arithmetic."""

    seed: int = 0
    epochs: int = 8
    batch: int = 64
    lr: float = 1e-3
    embedding_lr: float = 0.1  # the embeddings' learning rate, as a fraction of lr
    warmup: float = 0.05  # fraction of all steps
    weight_decay: float = 0.01
    temperature: float = 2.0
    pooled: float = 1.0  # weight of the match with the teacher's pooled vector
    mask: float = 0.1  # probability that a token is replaced by [MASK]
    dropout: float = 0.1
    copies: int = 1  # altered copies of each training text of four words or more
    replace: float = 0.3  # probability that a word of an altered copy is replaced
    vocabulary: int = 8000
    threads: int = 1


def read_split(folder: Path, name: str) -> tuple[list[str], Tensor]:
    """The texts and labels of one parquet file of the data folder."""
    table = pq.read_table(folder / f"{name}.parquet", columns=["text", "label"]).to_pydict()
    return table["text"], torch.tensor(table["label"])


def shuffled_batches(ids: Ids, size: int, generator: torch.Generator) -> Ids:
    """Index lists of `size` texts, in random order; texts are sorted by length in windows of fifty batches."""
    order, batches = torch.randperm(len(ids), generator=generator), []
    for window in torch.split(order, 50 * size):
        chunk = sorted(window.tolist(), key=lambda index: len(ids[index]))
        batches += [chunk[start : start + size] for start in range(0, len(chunk), size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def pad(ids: Ids, chosen: list[int]) -> tuple[Tensor, Tensor]:
    """Token ids and keep mask (1 = real token) of the chosen texts."""
    rows = [torch.tensor(ids[index]) for index in chosen]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return tokens, (tokens != PAD).long()


def encode(tokenizer: Tokenizer, texts: list[str]) -> Ids:
    """Token ids with [CLS] and [SEP]."""
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def teacher_targets(model: Bert, tokenizer: Tokenizer, texts: list[str], kept: Path | None) -> tuple[Tensor, Tensor]:
    """The teacher's logits and pooled vectors (float16), read from the file `kept` if it exists, else written there."""
    if kept is not None and kept.exists():
        logits, pooled = torch.load(kept)
        return logits, pooled
    ids = encode(tokenizer, texts)
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    logits, pooled = torch.empty(len(ids), 2), torch.empty(len(ids), model.config.hidden_size, dtype=torch.float16)
    with torch.inference_mode(), tqdm(total=len(ids), desc="teacher", unit="text", file=sys.stderr) as bar:
        for chosen in (order[start : start + 128] for start in range(0, len(order), 128)):
            tokens, keep = pad(ids, chosen)
            vector = model.bert(input_ids=tokens, attention_mask=keep).pooler_output
            logits[chosen], pooled[chosen] = model.classifier(vector), vector.half()
            bar.update(len(chosen))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save((logits, pooled), kept.with_suffix(".part"))
        os.replace(kept.with_suffix(".part"), kept)
    return logits, pooled


def altered(texts: list[str], teacher: Bert, tokenizer: Tokenizer, recipe: Recipe) -> list[str]:
    """Copies of the texts; some words become one of their ten nearest neighbours (cosine) in the teacher's embedding.

    Source: data augmentation of TinyBERT (Jiao et al. 2020, arXiv 1909.10351), with one embedding for all words.
    """
    known = tokenizer.get_vocab()
    names = sorted(word for word in known if word.isascii() and word.isalpha() and len(word) > 2)
    rows = F.normalize(teacher.bert.embeddings.word_embeddings.weight.detach()[[known[name] for name in names]], dim=-1)
    near = torch.cat([(part @ rows.T).topk(11).indices[:, 1:] for part in torch.split(rows, 512)]).tolist()
    choices = {word: [names[index] for index in indices] for word, indices in zip(names, near, strict=True)}
    random = np.random.default_rng(recipe.seed)

    def alter(text: str) -> str:
        words = text.split()
        pairs = zip(words, random.random(len(words)) < recipe.replace, strict=True)
        return " ".join(random.choice(choices[word]) if hit and word in choices else word for word, hit in pairs)

    return [alter(text) for _ in range(recipe.copies) for text in texts if len(text.split()) >= 4]


def choose_pieces(tokenizer: Tokenizer, texts: list[str], size: int) -> list[str]:
    """`size` pieces of the teacher's: special tokens, single ASCII characters, then the most used in the texts."""
    counts: Counter[str] = Counter()
    for encoding in tokenizer.encode_batch(texts):
        counts.update(encoding.tokens)
    known = tokenizer.get_vocab()
    single = [piece for char in map(chr, range(33, 127)) for piece in (char, f"##{char}") if piece in known]
    ranked = sorted(known, key=lambda piece: (-counts[piece], known[piece]))
    rest = (piece for piece in ranked if not piece.startswith("[unused"))
    pieces = list(dict.fromkeys([*SPECIAL, *single, *rest]))[:size]
    return [*SPECIAL, *sorted(pieces[len(SPECIAL) :], key=known.__getitem__)]


def smaller_tokenizer(teacher: Tokenizer, pieces: list[str]) -> Tokenizer:
    """The teacher's tokenizer restricted to `pieces`, numbered in their order."""
    data = json.loads(teacher.to_str())
    data["model"]["vocab"] = {piece: index for index, piece in enumerate(pieces)}
    for token in data["added_tokens"]:
        token["id"] = pieces.index(token["content"])
    for name, token in data["post_processor"]["special_tokens"].items():
        token["ids"] = [pieces.index(name)]
    return Tokenizer.from_str(json.dumps(data))


def start_student(teacher: Bert, teacher_ids: list[int], recipe: Recipe) -> Bert:
    """A random student whose embeddings are the teacher's, projected on their leading principal components."""
    config = BertConfig(
        vocab_size=len(teacher_ids), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512,
        max_position_embeddings=MAX_TOKENS, pad_token_id=PAD, problem_type="single_label_classification",
        hidden_dropout_prob=recipe.dropout, attention_probs_dropout_prob=recipe.dropout,
        id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1},
    )  # fmt: skip
    student = Bert(config)
    source, target = teacher.bert.embeddings, student.bert.embeddings
    words = source.word_embeddings.weight.detach()[teacher_ids]
    basis = torch.linalg.svd(words - words.mean(0), full_matrices=False).Vh[: config.hidden_size].T
    projected = (words - words.mean(0)) @ basis
    # The layer norm behind the embeddings removes the common scale; 0.05 keeps Adam's first steps small beside them.
    scale = 0.05 / projected.std()
    with torch.no_grad():
        target.word_embeddings.weight.copy_(projected * scale)
        target.position_embeddings.weight.copy_(source.position_embeddings.weight[:MAX_TOKENS] @ basis * scale)
        target.token_type_embeddings.weight.copy_(source.token_type_embeddings.weight @ basis * scale)
    return student


@torch.inference_mode()
def count_right(model: Bert, ids: Ids, labels: Tensor) -> int:
    """Number of texts whose larger logit is the label's."""
    tokens, keep = pad(ids, list(range(len(ids))))
    return int((model.eval()(input_ids=tokens, attention_mask=keep).logits.argmax(-1) == labels).sum())


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion."""
    z = 1.959964
    centre = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return centre - half, centre + half


def train(student: Bert, ids: Ids, goal: tuple[Tensor, Tensor], dev: tuple[Ids, Tensor], recipe: Recipe) -> list[float]:
    """Train in place, keep the weights of the best dev epoch; returns the dev accuracy of every epoch."""
    generator = torch.Generator().manual_seed(recipe.seed)
    bridge = nn.Linear(student.config.hidden_size, goal[1].shape[1])
    words = student.bert.embeddings.word_embeddings.weight
    rest = [p for p in [*student.parameters(), *bridge.parameters()] if p is not words]
    adam = torch.optim.AdamW([{"params": [words]}, {"params": rest}], lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(len(ids) / recipe.batch) + 1
    rates = [recipe.lr * recipe.embedding_lr, recipe.lr]
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rates, steps, pct_start=recipe.warmup, cycle_momentum=False)
    history: list[float] = []
    best: dict[str, Tensor] = {}
    for epoch in range(recipe.epochs):
        student.train()
        batches = shuffled_batches(ids, recipe.batch, generator)
        for chosen in tqdm(batches, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="batch", file=sys.stderr):
            tokens, keep = pad(ids, chosen)
            hide = (torch.rand(tokens.shape, generator=generator) < recipe.mask) & (tokens >= len(SPECIAL))
            vector = student.bert(input_ids=tokens.masked_fill(hide, MASK), attention_mask=keep).pooler_output
            logits = student.classifier(student.dropout(vector))
            taught, learned = (F.log_softmax(z / recipe.temperature, -1) for z in (goal[0][chosen], logits))
            # Hinton et al. 2015, arXiv 1503.02531: T squared keeps the gradient's size when T changes.
            loss = recipe.temperature**2 * F.kl_div(learned, taught, log_target=True, reduction="batchmean")
            loss = loss + recipe.pooled * F.mse_loss(bridge(vector), goal[1][chosen].float())
            adam.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_([words, *rest], 1.0)
            adam.step()
            schedule.step()
        history.append(count_right(student, *dev) / len(dev[0]))
        tqdm.write(f"epoch {epoch + 1}: dev accuracy {history[-1]:.4f} (n={len(dev[0])})", file=sys.stderr)
        if history[-1] == max(history):
            best = {name: value.clone() for name, value in student.state_dict().items()}
    student.load_state_dict(best)
    return history


def save(student: Bert, tokenizer: Tokenizer, out: Path) -> None:
    """The four files of the model, each written under a temporary name, then renamed: no reader meets half a file."""
    out.mkdir(parents=True, exist_ok=True)
    config = student.config.to_dict() | {"architectures": ["BertForSequenceClassification"], "dtype": "float16"}
    names = {f"{piece[1:-1].lower()}_token": piece for piece in SPECIAL}
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": MAX_TOKENS} | names
    pieces = json.loads(tokenizer.to_str()) | {"truncation": None, "padding": None}
    for name, content in {"config": config, "tokenizer_config": settings, "tokenizer": pieces}.items():
        text = json.dumps(content, indent=None if name == "tokenizer" else 2, ensure_ascii=False)
        (out / f"{name}.json.part").write_text(text + "\n", encoding="utf-8")
        os.replace(out / f"{name}.json.part", out / f"{name}.json")
    weights = {name: value.half().contiguous() for name, value in student.state_dict().items()}
    save_file(weights, out / "model.safetensors.part", metadata={"format": "pt"})
    os.replace(out / "model.safetensors.part", out / "model.safetensors")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line: folders, and one option for each field of `Recipe`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the fine-tuned BERT classifier")
    parser.add_argument("--data", type=Path, required=True, help="folder with train, dev and test .parquet")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model into")
    parser.add_argument("--cache", type=Path, help="folder that keeps the teacher's outputs between runs")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value}")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Distil, measure, save; the metrics also go to standard output."""
    options = parse(argv)
    recipe = Recipe(**{name: getattr(options, name) for name in asdict(Recipe())})
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    started = time.monotonic()
    splits = {name: read_split(options.data, name) for name in ("train", "dev", "test")}
    teacher = Bert.from_pretrained(options.teacher, dtype=torch.float32).eval()
    teacher_tokenizer = Tokenizer.from_file(str(options.teacher / "tokenizer.json"))
    teacher_tokenizer.enable_truncation(MAX_TOKENS)
    texts = splits["train"][0]
    every = texts + altered(texts, teacher, teacher_tokenizer, recipe)
    seen = (options.teacher / "model.safetensors").read_bytes() + "\n".join(every).encode()
    kept = options.cache and options.cache / f"teacher-{hashlib.sha256(seen).hexdigest()[:16]}.pt"
    targets = teacher_targets(teacher, teacher_tokenizer, every, kept)
    seconds = {"teacher": round(time.monotonic() - started)}
    pieces = choose_pieces(teacher_tokenizer, texts, recipe.vocabulary)
    tokenizer = smaller_tokenizer(teacher_tokenizer, pieces)
    known = teacher_tokenizer.get_vocab()
    student = start_student(teacher, [known[piece] for piece in pieces], recipe)
    ids = {name: encode(tokenizer, splits[name][0]) for name in ("dev", "test")}
    history = train(student, encode(tokenizer, every), targets, (ids["dev"], splits["dev"][1]), recipe)

    student.half().float()  # what is measured is what is saved
    seconds["total"] = round(time.monotonic() - started)
    metrics: dict[str, object] = {"recipe": asdict(recipe), "dev_by_epoch": history, "seconds": seconds}
    for name in ("dev", "test"):
        labels, n = splits[name][1], len(ids[name])
        right = count_right(student, ids[name], labels)
        control = float((labels == splits["train"][1].mode().values).float().mean())
        measure = {"accuracy": right / n, "right": right, "n": n, "interval_95": wilson(right, n)}
        metrics[name] = measure | {"majority_class": control}
    save(student, tokenizer, options.out)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
