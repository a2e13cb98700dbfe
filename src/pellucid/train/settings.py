"""What a training run is told: four tables of settings, from TOML, Python or the command line, each checked by name."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_origin

from pellucid.data import Corpus, read
from pellucid.errors import InputError
from pellucid.registry import choose
from pellucid.settings import describe, fits, hints_of

Section = TypeVar("Section", bound="DataSettings | TokenizerSettings | TrainingSettings")


@dataclass(frozen=True)
class DataSettings:
    """Where the texts come from; see `pellucid.data.read`. max_tokens: cut longer texts there, and count them."""

    source: str
    text: str | None = None
    pair: str | None = None
    label: str | None = None
    split: str | None = None
    names: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    drop_empty: bool = False
    dev: float = 0.1
    test: float = 0.0
    limit: int | None = None
    dev_limit: int | None = None
    test_limit: int | None = None
    seed: int = 0
    max_tokens: int | None = None

    def read(self) -> Corpus:
        """The data set; InputError for what cannot be used."""
        return read(**{k: v for k, v in vars(self).items() if k != "max_tokens"})


@dataclass(frozen=True)
class TokenizerSettings:
    """How texts become tokens.

    kind: "words" (between spaces and punctuation), "wordpiece", or "from", the tokenizer of the folder or hub name
      `name`. None: "from" the base model if there is one, else "words". vocab_size, min_count (of a token in the
      training texts) and lowercase are of the first two. cls: put [CLS] first; None: unless the model is "attention".
    """

    kind: Literal["words", "wordpiece", "from"] | None = None
    name: str | None = None
    vocab_size: int = 20_000
    min_count: int = 2
    lowercase: bool = True
    cls: bool | None = None


@dataclass(frozen=True)
class ModelSettings:
    """What is trained.

    type: "attention" or "identifiable" of the zoo, or any Hugging Face model type. base: folder or hub name of a
    pretrained model to go on from; with type="attention" and encoder="pretrained", of its encoder. fields: values of
    the type's configuration.
    """

    type: str | None = None
    base: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSettings:
    """How it is trained: AdamW, with gradients cut to `grad_norm` (0: not at all).

    epochs: at most; patience: epochs without a better dev accuracy after which to stop (0: never). batch_size: texts
    per step and device. warmup: share of all steps over which the learning rate rises; then it falls to 0 (schedule
    "linear") or stays ("constant"). precision: "auto" is bfloat16 on a CUDA device that has it, else float32.
    group_by_length: put texts of like length into one batch. freeze: parameters whose names begin so keep their values.
    init_from: folder of a model whose weights of the same names and shapes are taken over. threads: of PyTorch on the
    CPU; None leaves that as it is.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: float = 0.0
    schedule: Literal["linear", "constant"] = "linear"
    grad_norm: float = 1.0
    patience: int = 3
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    group_by_length: bool = True
    freeze: tuple[str, ...] = ()
    init_from: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Config:
    """All that a training run is told. Equal configurations and data give equal models, on the same machine."""

    data: DataSettings
    model: ModelSettings
    tokenizer: TokenizerSettings = TokenizerSettings()
    training: TrainingSettings = TrainingSettings()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The tables, JSON-ready, without `threads`, which is about the machine."""
        made: dict[str, dict[str, Any]] = json.loads(json.dumps(asdict(self)))
        del made["training"]["threads"]
        told = made["model"].pop("fields")
        return made | {"model": {**made["model"], **told}}

    def with_seed(self, seed: int) -> "Config":
        """The same, trained from another seed."""
        return replace(self, training=replace(self.training, seed=seed))


LARGEST_SEED = 2**32 - 1
TABLES = ("data", "tokenizer", "model", "training")


def read_config(path: str | Path | None = None, given: Sequence[str] = (), seed: int | None = None) -> Config:
    """A configuration from a TOML file and from settings like "training.epochs=3", which take precedence."""
    tables: dict[str, Any] = {} if path is None else read_toml(path)
    for text in given:
        key, equals, value = text.partition("=")
        table, dot, name = key.strip().partition(".")
        if not equals or not dot:
            raise InputError(f"--set takes table.key=value, such as training.epochs=3; seen {text!r}.")
        choose("table", table, list(TABLES))
        tables[table] = {**table_of(tables, table), name: _value_of(value.strip())}
    if seed is not None:
        tables["training"] = {**table_of(tables, "training"), "seed": seed}
    return config_of(tables)


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as it stands; InputError with the place of a mistake."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read as TOML: {(str(e).splitlines() or [''])[0]}") from e


def config_of(tables: Mapping[str, Any]) -> Config:
    """A configuration from tables; InputError for an unknown table or key, with the nearest, and for a wrong value."""
    for name in tables:
        choose("table", name, list(TABLES))
    if "source" not in table_of(tables, "data"):
        raise InputError("No data was named: set data.source to a file, a folder or a data set of the hub.")
    model = dict(table_of(tables, "model"))
    kind, base = model.pop("type", None), model.pop("base", None)
    for name, value in {"type": kind, "base": base}.items():
        if not isinstance(value, (str, NoneType)):
            raise InputError(f"model.{name} is a text; seen {value!r}.")
    if kind is None and base is None:
        raise InputError(
            'No model was named: set model.type, such as "attention", or model.base to a pretrained model.'
        )
    made = Config(
        section(DataSettings, "data", table_of(tables, "data")),
        ModelSettings(kind, base, model),
        section(TokenizerSettings, "tokenizer", table_of(tables, "tokenizer")),
        section(TrainingSettings, "training", table_of(tables, "training")),
    )
    _check(made)
    return made


def section(kind: type[Section], name: str, given: Mapping[str, Any]) -> Section:
    """One table of settings, each of the type of its field."""
    required: dict[str, Any] = {f.name: "" for f in fields(kind) if f.default is MISSING}
    default = kind(**required)
    hints, values = hints_of(default), {}
    for key, value in given.items():
        choose(f"setting of {name}", key, list(hints))
        if get_origin(hints[key]) is tuple:
            value = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
            value = tuple(value) if isinstance(value, list) else value
        if isinstance(value, int) and not isinstance(value, bool) and hints[key] is float:
            value = float(value)
        if not fits(hints[key], value) or (isinstance(value, tuple) and not all(isinstance(v, str) for v in value)):
            raise InputError(f"{name}.{key} is {describe(hints[key])}; seen {value!r}.")
        values[key] = value
    return replace(default, **values)


def _check(config: Config) -> None:
    """InputError for a number outside its range, or settings that contradict each other."""
    t, k, d, m = config.training, config.tokenizer, config.data, config.model
    least = {
        "training": {"epochs": 1, "batch_size": 1, "patience": 0, "seed": 0, "weight_decay": 0, "grad_norm": 0}
        | ({} if t.threads is None else {"threads": 1}),
        "tokenizer": {"vocab_size": 5, "min_count": 1},
        "data": {"seed": 0} | ({} if d.max_tokens is None else {"max_tokens": 1}),
    }
    for name, bounds in least.items():
        for key, bound in bounds.items():
            if (seen := getattr(getattr(config, name), key)) < bound:
                raise InputError(f"{name}.{key} must be at least {bound}; seen {seen}.")
    for name, seed in {"training": t.seed, "data": d.seed}.items():
        if seed > LARGEST_SEED:
            raise InputError(f"{name}.seed must be at most {LARGEST_SEED}; seen {seed}.")
    if not 0 < t.learning_rate < float("inf") or not 0 <= t.warmup <= 1:
        raise InputError(
            f"training.learning_rate must be a finite number above 0 and training.warmup from 0 to 1; "
            f"seen {t.learning_rate} and {t.warmup}."
        )
    if m.type and m.base and (m.type, m.fields.get("encoder")) != ("attention", "pretrained"):
        raise InputError(
            'model.base goes together with type="attention" and encoder="pretrained" alone; leave model.type or it out.'
        )
    if m.fields.get("encoder") == "pretrained" and m.base is None and "pretrained" not in m.fields:
        raise InputError('encoder="pretrained" goes on from a model: set model.base to its folder or hub name.')
    if m.base is not None and k.kind not in (None, "from"):
        raise InputError(
            f"tokenizer.kind = {k.kind!r} would give {m.base} other tokens than it has learned; leave it out."
        )
    if k.kind == "from" and k.name is None and m.base is None:
        raise InputError(
            'tokenizer.kind = "from" takes a tokenizer over: set tokenizer.name to its folder or hub name.'
        )
    if k.name is not None and k.kind != "from":
        raise InputError('tokenizer.name is of tokenizer.kind = "from" alone; set that too, or leave the name out.')


def table_of(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One of the tables; InputError if it is something else."""
    found = tables.get(name, {})
    if not isinstance(found, Mapping):
        raise InputError(f"[{name}] is a table of settings; seen {found!r}.")
    return found


def _value_of(text: str) -> Any:
    """A value as TOML writes it; what is none, such as a bare word or a path, is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def difference(before: Any, now: dict[str, dict[str, Any]]) -> str | None:
    """The first setting that is not the same, in words."""
    for table, settings in now.items():
        told = before.get(table, {})
        for key in {**told, **settings}:
            if told.get(key) != settings.get(key):
                return f"{table}.{key} = {told.get(key)!r}, not {settings.get(key)!r}"
    return None
