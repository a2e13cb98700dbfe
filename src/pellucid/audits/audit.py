"""What an audit is: a frozen dataclass whose fields are its settings; a call measures and returns findings."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.finding import Findings
from pellucid.registry import Registry, choose
from pellucid.settings import describe, fits, hints_of
from pellucid.types import Batch

Tick = Callable[[int, int], None]
"""Called with (done, total) as the work goes on."""


def generator_of(seed: int, text: Batch) -> np.random.Generator:
    """Random numbers for one text (a batch of one row): the same wherever it stands among others."""
    ids = text.input_ids[0][text.keep[0]].cpu().numpy().astype(np.int64)
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(ids.tobytes()).digest()[:8], "little")])


ENOUGH = 10
"""Texts below which no audit grades: the grade is then TOO FEW TEXTS."""
TOO_FEW = "TOO FEW TEXTS"


@dataclass(frozen=True)
class Audit(ABC):
    """One question about a model, asked on a set of texts. Subclasses are frozen dataclasses and final.

    seed: of everything random: which rows are sampled, the controls.
    caution: when not to trust what it finds, in one or two sentences; the command line and the documentation show it.
    """

    seed: int = 0

    source: ClassVar[str]
    needs: ClassVar[Access] = Access.ENCODER
    caution: ClassVar[str] = ""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name under which the audit is registered."""

    @abstractmethod
    def __call__(self, model: Model, batch: Batch, tick: Tick) -> Findings:
        """The findings on `batch`, whose rows have tokens and fit the model. The model is left as found."""

    def params(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        return asdict(self)

    def with_fields(self, **values: Any) -> "Audit":
        """A copy with other settings; InputError for a field that does not exist."""
        names = [f.name for f in fields(self)]
        for key in values:
            if not names:
                raise InputError(f"The audit {self.name!r} has no settings; leave out {key!r}.")
            choose(f"setting of the audit {self.name!r}", key, names)
        self._check(values)
        return replace(self, **values)

    def _check(self, values: Mapping[str, Any]) -> None:
        """InputError for a setting that is not of its type, or a negative seed."""
        for key, value in values.items():
            hint = hints_of(self)[key]
            if not fits(hint, value) or (key == "seed" and value < 0):
                least = " of at least 0" if key == "seed" else ""
                raise InputError(f"The audit {self.name!r}: {key} is {describe(hint)}{least}; seen {value!r}.")


AUDITS: Registry[Audit] = Registry("audit")


def register(audit: Audit) -> None:
    """Make an audit available by name: to `pellucid.audit`, the command line and the docs."""
    AUDITS.add(audit.name, audit)
