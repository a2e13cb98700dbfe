"""Timing in turns, peak memory, and random models of real shapes."""

import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

import torch
from transformers import BertConfig, BertForSequenceClassification

import pellucid
from pellucid import Batch, Model

SHAPES = {
    "bert-base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 12},
    "minilm": {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "num_hidden_layers": 6},
}


def random_model(shape: str, layers: int | None = None, device: str = "cpu") -> Model:
    """A BERT of that shape with random weights, SDPA attention."""
    fields = dict(SHAPES[shape])
    if layers is not None:
        fields["num_hidden_layers"] = layers
    torch.manual_seed(0)
    hf = BertForSequenceClassification._from_config(BertConfig(**fields), attn_implementation="sdpa")
    return pellucid.load(hf.eval().to(device))


def random_batch(model: Model, texts: int, n: int) -> Batch:
    """Random ids, no padding."""
    ids = torch.randint(1000, 30_000, (texts, n), generator=torch.Generator().manual_seed(n))
    return Batch(ids).to(model.device)


def in_turns(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call over `repeats` rounds A B C A B C ..., after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> dict[str, float]:
    """Median, least and largest ratio over rounds of `name` to `base`, and the median seconds of each."""
    ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "rounds": len(ratios),
        "seconds": statistics.median(seconds[name]),
        "base_seconds": statistics.median(seconds[base]),
    }


class Peak(AbstractContextManager["Peak"]):
    """Largest growth of resident memory while inside, in bytes, sampled every 2 ms (Linux); CUDA's own count there."""

    growth = 0

    def __enter__(self) -> "Peak":
        gc.collect()
        with suppress(OSError, AttributeError):  # give back what earlier calls freed, or growth would hide in it
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        self._stop = threading.Event()
        self._base = self._now()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _now(self) -> int:
        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.growth = max(self.growth, self._now() - self._base)

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.growth = max(self.growth, self._now() - self._base)
