"""What an audit finds: a number with its interval, its control, a grade and a sentence; and a list of these."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Interval = tuple[float, float]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One measured quantity of an audit.

    value: the number, in `unit`; None where nothing could be measured. interval: 95 %, over texts (None for one text).
    null, null_interval: the same quantity for the control that `control` describes, on the same inputs.
    n: texts; `counts` says what else was counted (rows, linear programs). where: the part of the data, such as
    "33 to 64 tokens"; "" for all of it. grade: a word in capitals, from the audit's own rules. reading: one sentence.
    limits: what the number does not say.
    """

    audit: str
    name: str
    value: float | None
    interval: Interval | None
    null: float | None
    n: int
    grade: str
    reading: str
    limits: tuple[str, ...] = ()
    unit: str = ""
    where: str = ""
    control: str = ""
    null_interval: Interval | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.grade}: {self.name}{place} {with_interval(self.value, self.interval)}; " + (
            f"control {with_interval(self.null, self.null_interval)}; n = {self.n} texts. {self.reading}"
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record; numbers that are not finite become None."""
        record = asdict(self)
        for key in ("value", "null"):
            record[key] = _finite(record[key])
        for key in ("interval", "null_interval"):
            record[key] = None if record[key] is None else [_finite(x) for x in record[key]]
        return record | {"limits": list(self.limits), "counts": dict(self.counts)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Finding":
        """Read what `to_dict` wrote; InputError if fields are missing."""
        try:
            made = dict(record)
            for key in ("interval", "null_interval"):
                made[key] = None if made[key] is None else tuple(made[key])
            return cls(**made | {"limits": tuple(made["limits"])})
        except (KeyError, TypeError) as e:
            raise InputError(f"This is not a saved finding: {type(e).__name__} {e}.") from e


class Findings(list[Finding]):
    """The findings of one audit, with the rows they came from.

    tables: tidy rows by table name, one row per measured thing. figures: pictures by name, drawn when first asked for.
    params: the audit's fields. origin: model, weights hash, parity, versions, texts, seconds.
    """

    def __init__(
        self,
        found: Iterable[Finding],
        audit: str,
        tables: Mapping[str, Rows] | None = None,
        pictures: Mapping[str, "Picture"] | None = None,
        params: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(found)
        self.audit = audit
        self.tables: Mapping[str, Rows] = tables or {}
        self.pictures: Mapping[str, Picture] = pictures or {}
        self.params = dict(params or {})
        self.origin = dict(origin or {})

    def named(self, name: str, where: str = "") -> Finding:
        """The finding of that name (and part of the data); InputError that lists what there is."""
        for f in self:
            if (f.name, f.where) == (name, where):
                return f
        there = ", ".join(sorted({f"{f.name}{f' ({f.where})' if f.where else ''}" for f in self}))
        raise InputError(f"There is no finding {name!r} ({where or 'all texts'}); there are: {there}.")

    def __repr__(self) -> str:
        return f"Findings({self.audit!r}, {len(self)} findings)"

    def figures(self) -> dict[str, "Figure"]:
        """The audit's pictures as matplotlib figures, by name."""
        return {name: draw() for name, draw in self.pictures.items()}

    def show(self) -> None:
        """Print a compact table."""
        from pellucid.render.findings import show

        show(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but tables and pictures, JSON-ready."""
        return {
            "audit": self.audit,
            "params": self.params,
            "findings": [f.to_dict() for f in self],
            "origin": self.origin,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write findings.json, one Parquet file per table and one SVG per picture into `folder`; the files written."""
        from pellucid.records import write_findings

        return write_findings(self, Path(folder))


class Picture:
    """A figure that is drawn when it is asked for, from data that is at hand: draw(*args)."""

    def __init__(self, draw: Any, *args: Any, **options: Any) -> None:
        self.draw, self.args, self.options = draw, args, options

    def __call__(self) -> "Figure":
        made: Figure = self.draw(*self.args, **self.options)
        return made


def with_interval(value: float | None, interval: Interval | None) -> str:
    """ "0.42 (0.40 to 0.44)", or "not measured"."""
    if value is None or not math.isfinite(value):
        return "not measured"
    return number(value) + ("" if interval is None else f" ({number(interval[0])} to {number(interval[1])})")


def number(x: float) -> str:
    """Three significant digits; a power of ten only where a person would write one."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    return f"{x:.1e}" if abs(x) < 5e-4 else f"{x:.3f}" if abs(x) < 10 else f"{x:.3g}" if abs(x) < 1e5 else f"{x:.1e}"


def _finite(x: float | None) -> float | None:
    return None if x is None or not math.isfinite(x) else float(x)
