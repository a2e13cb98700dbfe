"""The loop, by transformers' Trainer, whose checkpoints hold the state of all random numbers but the texts' order."""

import json
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from pellucid.errors import InputError
from pellucid.train.settings import TrainingSettings
from pellucid.train.tokens import Encoded, Padded

Say = Callable[[str], None]
STATE = "trainer_state.json"
GROUP = 50  # batches whose texts are sorted by length together


class Order(Sampler[int]):
    """The order of the training texts in an epoch: random, told by seed and epoch alone; texts of like length meet."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, by_length: bool) -> None:
        self.lengths, self.batch, self.seed, self.by_length, self.epoch = np.asarray(lengths), batch, seed, by_length, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self))
        if self.by_length:
            size = GROUP * self.batch
            groups = [order[i : i + size] for i in range(0, len(order), size)]
            order = np.concatenate([g[np.argsort(-self.lengths[g], kind="stable")] for g in groups])
            whole = len(order) // self.batch * self.batch
            batches = rng.permutation(order[:whole].reshape(-1, self.batch))
            order = np.concatenate([batches.ravel(), order[whole:]])
        return iter(order.tolist())


class Loop(Trainer):  # type: ignore[misc]
    """Trainer with our order of texts, and with one sentence for a full disk."""

    def __init__(
        self, model: nn.Module, args: TrainingArguments, rows: dict[str, Encoded], pad: int, settings: TrainingSettings
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=Padded(pad),
            train_dataset=rows["train"].rows,
            eval_dataset=rows["dev"].rows,
            compute_metrics=lambda p: {"accuracy": float((p.predictions == p.label_ids).mean())},
        )
        self.remove_callback(PrinterCallback)
        self.settings = settings
        batch = args.train_batch_size * args.world_size
        self.order = Order(rows["train"].lengths, batch, settings.seed, settings.group_by_length)

    @property
    def place(self) -> str:
        """The device, and the precision where it is not full."""
        return f"{self.args.device.type}{', bfloat16' * self.args.bf16}"

    def classes(self, split: Encoded) -> tuple[Any, Any]:
        """The class that is told for each row, and the true one."""
        found = self.predict(split.rows)
        return found.predictions, found.label_ids

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, the class that is told and the true one: of all that a model may return, no more is kept."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            out = model(**inputs)
        return out.loss.detach().mean(), out.logits.argmax(-1), inputs["labels"]

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return self.order

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as e:  # torch and safetensors wrap the system's error
            shutil.rmtree(folder, ignore_errors=True)
            raise InputError(not_written(folder.parent, e)) from e


def not_written(folder: Path, e: Exception) -> str:
    """The sentence for a disk that is full or broken."""
    said = e.strerror if isinstance(e, OSError) and e.strerror else (str(e).strip().splitlines() or [""])[0]
    return (
        f"{folder} cannot be written: {said}. Make room and repeat the same call, which goes on from the last epoch "
        "that was saved."
    )


class Report(TrainerCallback):  # type: ignore[misc]
    """Early stopping, a line per epoch, a bar."""

    def __init__(self, loop: Loop, say: Say, bar: bool) -> None:
        self.loop, self.settings, self.say, self.show_bar = loop, loop.settings, say, bar
        self.bar: Any = None
        self.begun = time.perf_counter()

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin the bar."""
        if self.show_bar and state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=None, leave=False)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell the order which epoch it is."""
        self.begun, self.loop.order.epoch = time.perf_counter(), round(state.epoch or 0)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the seconds, say the line, stop early."""
        state.log_history[-1]["seconds"] = time.perf_counter() - self.begun
        done = records(state)
        last = done[-1]
        if not np.isfinite(last["train_loss"]):
            raise InputError(
                f"The training loss of epoch {len(done)} is {last['train_loss']}; lower training.learning_rate "
                f"({self.settings.learning_rate:g}) or training.grad_norm ({self.settings.grad_norm:g})."
            )
        if state.is_world_process_zero:
            line = (
                f"Epoch {len(done)} of {self.settings.epochs}: train loss {last['train_loss']:.4f}, dev accuracy "
                f"{last['dev_accuracy']:.4f}, {last['seconds']:.1f} s."
            )
            if self.bar is not None:
                self.bar.clear()
            self.say(line)
        control.should_training_stop |= finished(done, self.settings)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def records(state: TrainerState) -> list[dict[str, float]]:
    """A record per epoch from the Trainer's log."""
    losses = [log["loss"] for log in state.log_history if "loss" in log]
    logs = [log for log in state.log_history if "eval_accuracy" in log]
    return [
        {
            "epoch": i,
            "train_loss": loss,
            "dev_loss": log["eval_loss"],
            "dev_accuracy": log["eval_accuracy"],
            "seconds": log["seconds"],
        }
        for i, (loss, log) in enumerate(zip(losses, logs, strict=True), 1)
    ]


def best_of(done: Sequence[dict[str, float]]) -> int:
    """The epoch of the highest dev accuracy, the first of equals, counted from 1."""
    return 1 + int(np.argmax([one["dev_accuracy"] for one in done]))


def finished(done: Sequence[dict[str, float]], settings: TrainingSettings) -> bool:
    """Whether all epochs are done, or `patience` of them were no better."""
    return len(done) >= settings.epochs or 0 < settings.patience <= len(done) - (best_of(done) if done else 0)


def fit(loop: Loop, say: Say, bar: bool) -> tuple[list[dict[str, float]], int]:
    """Train to the end, from the last whole checkpoint if there is one, and put the best weights into the model.

    Returns a record per epoch, and the best one's number. Raises: InputError if the loss is not finite any more, or a
    checkpoint cannot be written.
    """
    folder = Path(loop.args.output_dir)
    last = last_checkpoint(folder)
    if last is not None:
        loop.state = TrainerState.load_from_json(str(last / STATE))
    if not finished(records(loop.state), loop.settings):
        report = Report(loop, say, bar)
        loop.add_callback(report)
        try:
            loop.train(resume_from_checkpoint=None if last is None else str(last))
        finally:
            report.close()
            loop.remove_callback(report)
    done = records(loop.state)
    load_model(loop.model, folder / f"checkpoint-{loop.state.best_global_step}" / "model.safetensors")
    loop.model.to(loop.args.device).eval()
    return done, best_of(done)


def arguments(settings: TrainingSettings, folder: Path, texts: int) -> TrainingArguments:
    """Our settings in Trainer's words, the same in transformers 4 and 5."""
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if settings.precision == "bfloat16" and not half:
        raise InputError('training.precision = "bfloat16" needs a CUDA device that has it; use "auto" or "float32".')
    args = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="linear" if settings.schedule == "linear" else "constant_with_warmup",
        max_grad_norm=settings.grad_norm,
        seed=settings.seed,
        bf16=half and settings.precision != "float32",
        optim="adamw_torch_fused",
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # which waits for the device at each step; the epoch's loss is looked at
        save_total_limit=2,  # the last and the best
        metric_for_best_model="accuracy",
        greater_is_better=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
    )
    steps = -(-texts // (args.train_batch_size * args.world_size)) * settings.epochs
    args.warmup_steps = round(settings.warmup * steps)
    return args


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written whole: its state, which comes last, can be read."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(found, key=lambda p: -int(p.name.removeprefix("checkpoint-"))):
        try:
            json.loads((path / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return path
    return None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Trainer sets the random numbers of the whole process, and transformers talks; the caller notices neither."""
    plain, arrays = random.getstate(), np.random.get_state()
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Trainer and its kin, about nothing that a person could change
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
