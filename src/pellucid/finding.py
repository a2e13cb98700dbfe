"""What an audit finds: a number with its interval, its control, a grade and a sentence; and a list of these."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
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
            f"control {with_interval(self.null, self.null_interval)}; n = {self.n} text{'s' * (self.n != 1)}. "
            f"{self.reading}"
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record: numbers that are not finite become None, and so does the open end of an interval."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "value": _finite(self.value),
            "interval": _ends(self.interval),
            "null": _finite(self.null),
            "null_interval": _ends(self.null_interval),
            "n": int(self.n),
            "limits": list(self.limits),
            "counts": {key: int(count) for key, count in self.counts.items()},
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Finding":
        """Read what `to_dict` wrote; InputError if it is something else."""
        try:
            made = dict(record)
            for key in ("interval", "null_interval"):
                made[key] = _interval(made[key])
            return cls(**made | {"limits": tuple(made["limits"])})
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(f"This is not a saved finding: {type(e).__name__} {e}.") from e


class Findings(list[Finding]):
    """The findings of one audit, with the rows they came from.

    tables: tidy rows by table name, one row per measured thing. figures: pictures by name, drawn when first asked for.
    files: what else was made, by file name, such as a fitted probe.
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
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        super().__init__(found)
        self.audit = audit
        self.tables: Mapping[str, Rows] = tables or {}
        self.pictures: Mapping[str, Picture] = pictures or {}
        self.files: Mapping[str, bytes] = files or {}
        self.params = dict(params or {})
        self.origin = dict(origin or {})

    def named(self, name: str, where: str = "") -> Finding:
        """The finding of that name (and part of the data); InputError that lists what there is."""
        for f in self:
            if (f.name, f.where) == (name, where):
                return f
        there = ", ".join(sorted({f"{f.name}{f' ({f.where})' if f.where else ''}" for f in self})) or "none"
        raise InputError(f"There is no finding {name!r} ({where or 'all texts'}); there are: {there}.")

    def __repr__(self) -> str:
        return f"Findings({self.audit!r}, {len(self)} findings)"

    def figures(self) -> dict[str, "Figure"]:
        """The audit's pictures as matplotlib figures, by name; without those read from a file, which are drawn."""
        return {name: draw() for name, draw in self.pictures.items() if draw.draw is not None}

    def svg(self, name: str) -> bytes:
        """One of the audit's pictures as SVG: the same bytes for the same findings."""
        from pellucid.records import figure_svg

        picture = self.pictures[name]
        if picture.drawn is None:
            picture.drawn = figure_svg(picture())
        return picture.drawn

    def show(self) -> None:
        """Print a compact table."""
        from pellucid.render.findings import show

        show(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the tables and pictures, of which it tells the names, JSON-ready."""
        return {
            "audit": self.audit,
            "params": self.params,
            "tables": list(self.tables),
            "pictures": list(self.pictures),
            "findings": [f.to_dict() for f in self],
            "origin": self.origin,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Findings":
        """Read what `to_dict` wrote, which has no tables and pictures; InputError if it is something else."""
        try:
            found = [Finding.from_dict(one) for one in record["findings"]]
            return cls(found, record["audit"], params=record["params"], origin=record["origin"])
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(f"These are not saved findings: {type(e).__name__} {e}.") from e

    def save(self, folder: str | Path) -> list[Path]:
        """Write <audit>.json, a Parquet file per table, an SVG per picture and `files` into `folder`; their paths."""
        from pellucid.records import write_findings

        return write_findings(self, Path(folder))


class Picture:
    """A figure that is drawn when it is asked for, from data that is at hand: draw(*args). drawn: as SVG, once it was
    drawn as such; of a picture that was read from a file this is all there is."""

    drawn: bytes | None = None

    def __init__(self, draw: Any, *args: Any, **options: Any) -> None:
        self.draw, self.args, self.options = draw, args, options

    @classmethod
    def of(cls, svg: bytes) -> "Picture":
        """A picture that was drawn before."""
        made = cls(None)
        made.drawn = svg
        return made

    def __call__(self) -> "Figure":
        made: Figure = self.draw(*self.args, **self.options)
        return made


def with_interval(value: float | None, interval: Interval | None) -> str:
    """ "0.420 (0.400 to 0.440)", all to the same decimal place, or "not measured"."""
    if value is None or not math.isfinite(value):
        return "not measured"
    if interval is None:
        return number(value)
    size = max(abs(x) for x in (value, *interval) if math.isfinite(x))
    low, high = (number(x, size) for x in interval)
    return f"{number(value, size)} ({low} to {high})"


def number(x: float, size: float | None = None) -> str:
    """x with about the three digits that numbers of `size` (by default its own) need; a power of ten only where a
    person would write one."""
    size = abs(x) if size is None else size
    if not math.isfinite(x):
        return f"{x:g}"
    if size < 5e-4 or size >= 1e5:
        return f"{x:.1e}" if x else "0"
    shown = f"{x:.{5 if size < 0.01 else 3 if size < 10 else 1 if size < 100 else 0}f}"
    return shown if float(shown) else shown.removeprefix("-")


def _finite(x: float | None) -> float | None:
    return None if x is None or not math.isfinite(x) else float(x)


def _ends(interval: Interval | None) -> list[float | None] | None:
    """For JSON: None is an open end. An interval that is not one (NaN, or ends that no number lies between) is None."""
    if interval is None or not (interval[0] < math.inf and interval[1] > -math.inf):
        return None
    return [_finite(x) for x in interval]


def _interval(ends: Sequence[float | None] | None) -> Interval | None:
    if ends is None:
        return None
    low, high = ends
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)
