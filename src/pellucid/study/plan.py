"""What a study file asks for: cells, each with its whole configuration."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.audits import AUDITS, Audit
from pellucid.errors import InputError
from pellucid.registry import choose
from pellucid.train import Config, config_of
from pellucid.train.settings import LARGEST_SEED, TABLES, DataSettings, ModelSettings, read_toml, section, table_of

CONTROL = "tfidf"
OF_CELL = "cell:"
"""training.init_from = "cell:MODEL" takes weights over from that model's cell of the same data and seed."""
TEXTS = 100  # of an audit whose entry does not say


@dataclass(frozen=True)
class AuditOf:
    """An audit of the models of a study (`models`: of these alone), on `texts` texts of test, or of dev without one."""

    label: str
    audit: Audit
    texts: int
    models: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What is asked, JSON-ready; `label` is what its rows are called, no part of it."""
        told = {"audit": self.audit.name, "texts": self.texts, "settings": self.audit.params()}
        made: dict[str, Any] = json.loads(json.dumps(told))
        return made


@dataclass(frozen=True)
class Cell:
    """One model on one data set from one seed; or, where `model` is CONTROL, logistic regression on TF-IDF."""

    study: str
    data: str
    model: str
    seed: int
    config: Config
    audits: tuple[AuditOf, ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.data}-{self.model}-{self.seed}"

    @property
    def after(self) -> str | None:
        """The name of the cell that this one begins from, and so comes after."""
        begin = self.config.training.init_from or ""
        return f"{self.data}-{begin.removeprefix(OF_CELL)}-{self.seed}" if begin.startswith(OF_CELL) else None


@dataclass(frozen=True)
class Study:
    """A name, and cells in the order in which they are measured."""

    name: str
    cells: tuple[Cell, ...]


def read_study(path: str | Path) -> Study:
    """A study from its TOML file, all of it checked.

    name; seeds = [0, 1]; control = true for TF-IDF on every data set; [defaults.training], [defaults.tokenizer] and so
    on; [[data]] with a `name` and data settings; [[models]] with a `name` and model settings; both may hold tables
    ([data.training], [models.tokenizer]) that take precedence over the defaults, and the model's over the data's;
    training.init_from = "cell:MODEL" begins from that model's cell of the same data and seed;
    [[audits]] with a `name`, `texts` (TEXTS), a table `settings`, `models` if not all, and a `label` if the same audit
    is asked twice.
    """
    told = read_toml(path)
    for key in told:
        choose("entry of a study", key, ["name", "seeds", "control", "defaults", "data", "models", "audits"])
    name, seeds, controlled = told.get("name", Path(path).stem), told.get("seeds", [0]), told.get("control", False)
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and 0 <= s <= LARGEST_SEED for s in seeds):
        raise InputError(f"seeds is a list of whole numbers from 0 to {LARGEST_SEED}, such as [0, 1]; seen {seeds!r}.")
    if not isinstance(name, str) or not isinstance(controlled, bool):
        raise InputError(f"name is a text and control is true or false; seen {name!r} and {controlled!r}.")
    data, models = _named(told, "data"), _named(told, "models")
    audits = _audits(told, list(models))
    cells: list[Cell] = []
    for on, d in data.items():
        made = [
            Cell(name, on, of, 0, _config(told, d, m), tuple(a for a in audits if of in (a.models or models)))
            for of, m in models.items()
        ]
        if controlled:
            cells.append(Cell(name, on, CONTROL, 0, _control(told, d)))
        cells += [replace(c, seed=s, config=c.config.with_seed(s)) for s in dict.fromkeys(seeds) for c in made]
    _check_names(cells)
    return Study(name, tuple(cells))


def _named(told: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The entries of a kind by name, without it; there is at least one."""
    found: dict[str, dict[str, Any]] = {}
    for entry in _entries(told, kind):
        name = entry.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            raise InputError(f"Each [[{kind}]] has a name of letters, digits, . _ and -; seen {name!r}.")
        if name in found or (kind == "models" and name == CONTROL):
            raise InputError(f"The name {name!r} of [[{kind}]] is taken; choose another.")
        found[name] = {k: v for k, v in entry.items() if k != "name"}
    if not found:
        raise InputError(f"The study has no {kind}; add a [[{kind}]] entry with a name.")
    return found


def _entries(told: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = told.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise InputError(f"{kind} is given as [[{kind}]] entries, one for each; seen {entries!r}.")
    return entries


def _config(told: Mapping[str, Any], data: Mapping[str, Any], model: Mapping[str, Any]) -> Config:
    """The settings of a cell: defaults, then the data's tables, then the model's."""
    return config_of(_merged(told, {"data": data, "model": model}))


def _control(told: Mapping[str, Any], data: Mapping[str, Any]) -> Config:
    return Config(section(DataSettings, "data", _merged(told, {"data": data})["data"]), ModelSettings(CONTROL))


def _merged(told: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    defaults = told.get("defaults", {})
    for name in table_of({"defaults": defaults}, "defaults"):
        choose("table of defaults", name, list(TABLES))
    tables = {name: dict(table_of(defaults, name)) for name in TABLES}
    for own, entry in entries.items():
        others = [name for name in TABLES if name != own]
        tables[own] |= {k: v for k, v in entry.items() if k not in others}
        for name in others:
            tables[name] |= table_of(entry, name)
    return tables


def _audits(told: Mapping[str, Any], models: list[str]) -> list[AuditOf]:
    found: dict[str, AuditOf] = {}
    for entry in _entries(told, "audits"):
        for key in entry:
            choose("entry of [[audits]]", key, ["name", "label", "texts", "settings", "models"])
        name, texts, only = str(entry.get("name")), entry.get("texts", TEXTS), entry.get("models", [])
        label, settings = str(entry.get("label", name)), entry.get("settings", {})
        if type(texts) is not int or texts < 1 or not isinstance(settings, dict) or not isinstance(only, list):
            raise InputError(
                f"The audit {label!r} takes texts (a number from 1), settings (a table) and models (a list of names); "
                f"seen texts={texts!r}, settings={settings!r}, models={only!r}."
            )
        if label in found:
            raise InputError(f"The audit {label!r} is asked twice; give one of the two another label.")
        for model in only:
            choose("model of this study", str(model), models)
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        found[label] = AuditOf(label, AUDITS.get(name).with_fields(**given), texts, tuple(only))
    return list(found.values())


def _check_names(cells: Sequence[Cell]) -> None:
    seen: set[str] = set()
    for cell in cells:
        if cell.after is not None:
            begins = str(cell.config.training.init_from).removeprefix(OF_CELL)
            alone = [c.model for c in cells if c.after is None and (c.data, c.seed) == (cell.data, cell.seed)]
            choose("model to begin from that begins from none itself", begins, [m for m in alone if m != CONTROL])
    for cell in cells:
        if cell.name in seen:
            raise InputError(f"Two cells would be called {cell.name!r}; rename a data set or a model.")
        seen.add(cell.name)
