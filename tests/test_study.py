"""Studies: every cell once, each row in one table, and nothing lost when something fails or ends early."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import corpora
import killing
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pellucid import cli
from pellucid.audits import AUDITS, Audit
from pellucid.encoder.model import Access, Model
from pellucid.errors import InputError
from pellucid.finding import Finding, Findings
from pellucid.study import Outcome, read_study, study
from pellucid.study import cell as cells
from pellucid.train import Card

HEAD = """
name = "small"
seeds = [0, 1]
control = true
[defaults.tokenizer]
min_count = 1
[defaults.training]
epochs = 2
learning_rate = 0.02
"""
DATA = """
[[data]]
name = "films"
source = "{source}"
test = 0.2
"""
MODELS = """
[[models]]
name = "plain"
type = "attention"
encoder = "identity"
embedding_size = 8
[[models]]
name = "bert"
type = "bert"
hidden_size = 8
num_hidden_layers = 1
num_attention_heads = 1
intermediate_size = 8
[models.training]
epochs = 1
"""
SMALL = MODELS[: MODELS.index('[[models]]\nname = "bert"')]
AUDIT = """
[[audits]]
name = "mixing"
label = "{label}"
texts = 5
settings = {{ probes = 2 }}
models = ["bert"]
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.write(tmp_path_factory.mktemp("texts") / "films.csv", corpora.planted(90))


def written(folder: Path, source: Path, *parts: str) -> Path:
    path = folder / "study.toml"
    path.write_text("".join(parts).replace("{source}", str(source)))
    return path


@pytest.fixture(scope="module")
def done(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Outcome, list[str]]:
    """A study of five cells: its file, its folder, what came of it, what was said."""
    folder = tmp_path_factory.mktemp("study")
    file = written(folder, source, HEAD, DATA, MODELS, AUDIT.format(label="mixed"))
    lines: list[str] = []
    return file, folder / "out", study(read_study(file), folder / "out", progress=lines.append), lines


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(out / "results.parquet").to_pylist()
    return found


def test_every_cell_is_measured(done: tuple[Path, Path, Outcome, list[str]]) -> None:
    _, out, outcome, lines = done
    assert (outcome.measured, outcome.taken_over, outcome.failures) == (5, 0, {})
    table = rows(out)
    order = ["films-tfidf-0", "films-plain-0", "films-bert-0", "films-plain-1", "films-bert-1"]
    assert list(dict.fromkeys(f"{r['data']}-{r['model']}-{r['seed']}" for r in table)) == order
    assert table == [r for name in order for r in pq.read_table(out / "cells" / name / "rows.parquet").to_pylist()]
    assert [line.split("]")[0] for line in lines if line.startswith("[")] == [f"[{i}/5" for i in range(1, 6)]
    assert "left." in lines[-1]
    assert not (out / "failures.json").exists()


def test_rows_are_what_card_and_audit_say(done: tuple[Path, Path, Outcome, list[str]]) -> None:
    _, out, _, _ = done
    card = Card.load(out / "cells" / "films-bert-1")
    mine = [r for r in rows(out) if (r["model"], r["seed"]) == ("bert", 1)]
    told = {(r["quantity"], r["split"]): r for r in mine if r["audit"] is None}
    for score in card.scores:
        row = told[score.name, score.split]
        assert (row["value"], row["low"], row["high"]) == (score.value, *score.interval)
        assert (row["null"], row["n"]) == (score.null, score.n)
    assert told["epochs", None]["value"] == 1
    assert told["parameters", None]["value"] == card.parameters["all"]
    assert card.config["training"]["seed"] == 1
    found = json.loads(next((out / "cells" / "films-bert-1" / "audits").rglob("mixing.json")).read_text())
    audited = [r for r in mine if r["audit"] == "mixed"]
    assert [(r["quantity"], r["where"], r["value"], r["grade"]) for r in audited] == [
        (f["name"], f["where"], f["value"], f["grade"]) for f in found["findings"]
    ]
    assert found["origin"]["texts"] == 5
    assert not [r for r in rows(out) if r["model"] == "plain" and r["audit"]]


def times(out: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.parent != out}


def test_what_is_done_is_taken_over_and_more_is_added(
    done: tuple[Path, Path, Outcome, list[str]], source: Path, tmp_path: Path
) -> None:
    file, out, _, _ = done
    before, table = times(out), rows(out)
    again = study(read_study(file), out)
    assert (again.measured, again.taken_over) == (0, 5)
    assert times(out) == before
    assert rows(out) == table
    more = written(tmp_path, source, HEAD.replace("[0, 1]", "[0]"), DATA, MODELS, AUDIT.format(label="again"), AUDIT)
    more.write_text(more.read_text().replace("{label}", "other").replace("{{ probes = 2 }}", "{ probes = 3 }"))
    added = study(read_study(more), out)
    assert (added.measured, added.taken_over) == (1, 2)
    changed = {path.split("cells/")[1].split("/")[0] for path, t in times(out).items() if before.get(path) != t}
    assert changed == {"films-bert-0"}
    assert (
        before[str(out / "cells/films-bert-0/model.safetensors")]
        == times(out)[str(out / "cells/films-bert-0/model.safetensors")]
    )
    assert {r["audit"] for r in rows(out)} == {None, "again", "other"}


def test_other_settings_are_refused_before_anything_is_measured(
    done: tuple[Path, Path, Outcome, list[str]], source: Path, tmp_path: Path
) -> None:
    _, out, _, _ = done
    before = times(out)
    other = written(tmp_path, source, HEAD.replace("0.02", "0.03"), DATA, MODELS)
    with pytest.raises(
        InputError, match=r"cell 'films-plain-0' .* begun with training\.learning_rate = 0\.02, not 0\.03"
    ):
        study(read_study(other), out)
    texts = corpora.write(tmp_path / "films.csv", corpora.planted(60))
    same_place = written(tmp_path, texts, HEAD, DATA, MODELS)
    with pytest.raises(InputError, match="'films-tfidf-0'"):
        study(read_study(same_place), out)
    assert times(out) == before


class Failing(Audit):
    """Fails on every model."""

    source = "here"
    needs = Access.OUTPUTS

    @property
    def name(self) -> str:
        return "failing"

    def __call__(self, model: Model, batch: Any, tick: Any) -> Findings:
        raise ZeroDivisionError("by zero")


class Counting(Failing):
    """Says 1."""

    @property
    def name(self) -> str:
        return "counting"

    def __call__(self, model: Model, batch: Any, tick: Any) -> Findings:
        one = Finding("counting", "one", 1.0, None, 0.5, len(batch), "MEASURED", "It is one.")
        return Findings([one], "counting")


@pytest.fixture
def stubs() -> Iterator[None]:
    before = dict(AUDITS._things)
    AUDITS.add("failing", Failing())
    AUDITS.add("counting", Counting())
    yield
    AUDITS._things.clear()
    AUDITS._things.update(before)


def test_what_fails_is_told_and_stops_nothing_else(
    stubs: None, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = '[[models]]\nname = "broken"\ntype = "attention"\nencoder = "lstm"\n'
    audits = '[[audits]]\nname = "failing"\nmodels = ["plain"]\n[[audits]]\nname = "counting"\nmodels = ["plain"]\n'
    head = HEAD.replace("[0, 1]", "[0]").replace("control = true", "")
    file = written(tmp_path, source, head, DATA, broken, MODELS, audits)
    out = tmp_path / "out"
    assert cli.status(["study", str(file), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "2 of 3 cells failed" in said
    failures = json.loads((out / "failures.json").read_text())
    assert failures.keys() == {"films-broken-0", "films-plain-0"}
    assert "encoder='lstm'" in failures["films-broken-0"][0]
    assert failures["films-plain-0"][0].startswith("The audit 'failing' failed: Unexpected ZeroDivisionError: by zero")
    assert "raise ZeroDivisionError" in (out / "cells" / "films-plain-0" / "traceback.txt").read_text()
    assert {(r["model"], r["audit"]) for r in rows(out)} == {("plain", None), ("plain", "counting"), ("bert", None)}
    run = json.loads((out / "run.json").read_text())
    assert run["failures"] == failures
    monkeypatch.setattr(Failing, "__call__", Counting.__call__)
    assert cli.status(["study", str(file), "--out", str(out)]) == 1  # the other cell still fails
    assert json.loads((out / "failures.json").read_text()).keys() == {"films-broken-0"}


def test_a_study_that_was_broken_off_goes_on(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, source, HEAD.replace("[0, 1]", "[0]"), DATA, MODELS)
    train, calls = cells.train, []

    def second_ends(config: Any, folder: Path, *rest: Any, begin: Path | None) -> Card:
        calls.append(folder.name)
        if folder.name == "films-bert-0" and calls.count(folder.name) == 1:
            raise KeyboardInterrupt
        return train(config, folder, *rest, begin=begin)

    monkeypatch.setattr(cells, "train", second_ends)
    with pytest.raises(KeyboardInterrupt):
        study(read_study(file), tmp_path / "out")
    assert {r["model"] for r in rows(tmp_path / "out")} == {"tfidf", "plain"}
    outcome = study(read_study(file), tmp_path / "out")
    assert (outcome.measured, outcome.taken_over) == (1, 2)
    assert calls == ["films-plain-0", "films-bert-0", "films-bert-0"]
    assert {r["model"] for r in rows(tmp_path / "out")} == {"tfidf", "plain", "bert"}


def test_processes_find_the_same(done: tuple[Path, Path, Outcome, list[str]], source: Path, tmp_path: Path) -> None:
    head = HEAD.replace("[0, 1]", "[1]").replace("control = true", "")
    file = written(tmp_path, source, head, DATA, MODELS, AUDIT.format(label="mixed"))
    lines: list[str] = []
    outcome = study(read_study(file), tmp_path / "out", jobs=2, progress=lines.append)
    assert outcome.measured == 2
    assert len(lines) == 2

    for name in ("films-plain-1", "films-bert-1"):
        both = [pq.read_table(out / "cells" / name / "rows.parquet").to_pylist() for out in (tmp_path / "out", done[1])]
        mine, theirs = ([r for r in table if r["quantity"] != "seconds"] for table in both)
        assert mine == theirs


def test_the_command_lists_cells(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, source, HEAD, DATA, MODELS, AUDIT.format(label="mixed"))
    assert cli.status(["study", str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["films-tfidf-0", "films-plain-0", "films-bert-0 (mixed)", "films-plain-1", "films-bert-1 (mixed)"]
    assert not (tmp_path / "out").exists()


def test_settings_of_data_and_models_come_before_defaults(source: Path, tmp_path: Path) -> None:
    data = DATA + "max_tokens = 7\n[data.training]\nepochs = 5\nbatch_size = 8\n"
    asked = read_study(written(tmp_path, source, HEAD, "[defaults.data]\nlimit = 20\n", data, MODELS))
    training = {cell.model: cell.config.training for cell in asked.cells if cell.seed == 1}
    assert (training["plain"].epochs, training["plain"].batch_size, training["plain"].learning_rate) == (5, 8, 0.02)
    assert (training["bert"].epochs, training["bert"].batch_size, training["bert"].seed) == (1, 8, 1)
    assert all((cell.config.data.limit, cell.config.data.max_tokens) == (20, 7) for cell in asked.cells)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((HEAD, MODELS), "no data"),
        ((HEAD, DATA), "no models"),
        ((HEAD, DATA, DATA, MODELS), "'films' of .* is taken"),
        ((HEAD, DATA, MODELS.replace('"plain"', '"tfidf"')), "'tfidf' of .* is taken"),
        ((HEAD, DATA, MODELS.replace('"plain"', '"a/b"')), "seen 'a/b'"),
        ((HEAD.replace("[0, 1]", "3"), DATA, MODELS), "seeds is a list"),
        ((HEAD.replace("seeds", "seed"), DATA, MODELS), "Did you mean 'seeds'"),
        ((HEAD.replace("learning_rate", "lr"), DATA, MODELS), "setting of training 'lr'"),
        ((HEAD, DATA, MODELS, '[[audits]]\nname = "mixng"\n'), "Did you mean 'mixing'"),
        ((HEAD, DATA, MODELS, '[[audits]]\nname = "mixing"\nsettings = {prob = 1}\n'), "Did you mean 'probes'"),
        ((HEAD, DATA, MODELS, '[[audits]]\nname = "mixing"\ntexts = 0\n'), "texts .a number from 1"),
        ((HEAD, DATA, MODELS, '[[audits]]\nname = "mixing"\n' * 2), "asked twice"),
        ((HEAD, DATA, MODELS, '[[audits]]\nname = "mixing"\nmodels = ["bart"]\n'), "Did you mean 'bert'"),
    ],
)
def test_studies_that_are_wrong(parts: tuple[str, ...], said: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        read_study(written(tmp_path, source, *parts))


@pytest.mark.parametrize("parts", [
    ("defaults = 3\n", DATA, MODELS), (HEAD, DATA, '[[models]]\nname = "x"\ntype = "bert"\ntraining = 3\n'),
    (HEAD, DATA, '[[models]]\nname = "x"\ntype = "bert"\ntokenizer = "words"\n'),
])  # fmt: skip
def test_tables_that_are_none(parts: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a table of settings"):
        read_study(written(tmp_path, source, *parts))


def test_a_process_that_dies_costs_no_other_cell(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells of a dead process are tried once more; one that kills its process again has failed, alone."""
    deadly = SMALL + '[[models]]\nname = "deadly"\ntype = "attention"\nencoder = "identity"\nembedding_size = 8\n'
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setattr("pellucid.study._safely", killing.safely)
    asked = read_study(written(tmp_path, source, "seeds = [0]\n[defaults.training]\nepochs = 1\n", DATA, deadly))
    found = study(asked, tmp_path / "out", jobs=2)
    assert list(found.failures) == ["films-deadly-0"]
    assert "ended from outside, twice" in found.failures["films-deadly-0"][0]
    assert {row["model"] for row in rows(tmp_path / "out")} == {"plain"}


BEGUN = """
[[models]]
name = "begun"
type = "attention"
encoder = "identity"
embedding_size = 8
[models.training]
init_from = "cell:{begin}"
freeze = ["embeddings."]
"""


def test_a_cell_that_begins_from_another(source: Path, tmp_path: Path) -> None:
    """It comes last, has the other's frozen weights of the same seed, and is taken over like any cell."""
    path = written(tmp_path, source, HEAD.replace("control = true", ""), DATA, BEGUN.format(begin="plain"), SMALL)
    said: list[str] = []
    asked = read_study(path)
    outcome = study(asked, tmp_path / "out", progress=said.append)
    assert (outcome.measured, outcome.failures) == (4, {})
    ended = [line.split()[1] for line in said if line.startswith("[")]
    assert ended == ["films-plain-0", "films-plain-1", "films-begun-0", "films-begun-1"]
    tables = {
        name: load_file(tmp_path / "out" / "cells" / name / "model.safetensors")["embeddings.weight"] for name in ended
    }
    assert torch.equal(tables["films-plain-1"], tables["films-begun-1"])
    assert not torch.equal(tables["films-plain-0"], tables["films-begun-1"])
    assert study(asked, tmp_path / "out").measured == 0
    (tmp_path / "out").rename(tmp_path / "moved")
    more = written(tmp_path, source, HEAD.replace("control = true", ""), DATA, BEGUN.format(begin="plain"), SMALL,
                   '[[audits]]\nname = "erasure"\ntexts = 10\nmodels = ["begun"]\n')  # fmt: skip
    again = study(read_study(more), tmp_path / "moved")
    assert (again.measured, again.failures) == (2, {})
    assert "moved" not in (tmp_path / "moved" / "cells" / "films-begun-0" / "card.json").read_text()


@pytest.mark.parametrize("begin", ["plane", "begun", "tfidf"])
def test_a_cell_that_begins_from_none(begin: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"model to begin from .*'{begin}'"):
        read_study(written(tmp_path, source, HEAD, DATA, BEGUN.format(begin=begin), SMALL))
