"""`pellucid bench` and `pellucid metrics`."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import pellucid
from pellucid import cli
from pellucid.cli.bench import listed
from pellucid.errors import InputError
from pellucid.inputs import Item, spans_of
from pellucid.settings import seconds_of

FILMS = ["A warm and funny film.", "Dull from start to end.", "It is not bad at all.", "Great acting, thin plot."]
pytestmark = pytest.mark.skipif(not (pellucid.DEMO / "config.json").exists(), reason="the demo model is not there")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    path = tmp_path / "films.txt"
    path.write_text("\n".join(FILMS))
    return path


def run(*arguments: object) -> int:
    return cli.status(["bench", *map(str, arguments)])


def test_the_contract(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The call and the files that other programs rely on."""
    out = tmp_path / "table"
    asked = ("--methods", "decompx,random,leave_one_out", "--metrics", "aopc,sufficiency:delete", "--seed", 3)
    assert run("-m", pellucid.DEMO, "-i", films, *asked, "--limit", 3, "--budget", "5m", "--out", out) == 0
    told = capsys.readouterr()
    assert "aopc ↑" in told.out
    assert "Wrote" in told.err
    table = json.loads((out / "table.json").read_text())
    assert set(table) == {"decompx", "random", "leave_one_out"}
    for row in table.values():
        assert set(row) == {"aopc:mask", "sufficiency:delete"}
        assert all({"mean", "low", "high", "n"} <= set(cell) and cell["n"] == 3 for cell in row.values())
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert len(rows) == 3 * 3 * 2
    assert sorted({row["text"] for row in rows}) == [0, 1, 2]
    told_run = json.loads((out / "run.json").read_text())
    assert told_run["seed"] == 3
    assert told_run["data"]["texts"] == 3
    assert told_run["forwards"] > 3 * 20
    assert not told_run["out_of_time"]
    assert {"call", "versions", "model", "seconds"} <= set(told_run)
    assert run("-m", pellucid.DEMO, "-i", films, *asked, "--limit", 3, "--out", out, "--resume") == 0
    assert json.loads((out / "run.json").read_text())["taken_over"] == 3
    assert json.loads((out / "table.json").read_text()) == table


def test_interrupted_runs_say_how_to_go_on(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("-i", films, "--methods", "attention", "--metrics", "aopc", "--out", tmp_path / "t")
    assert run(*asked) == 0

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pellucid.bench.compare", stop)
    assert run(*asked) == 1
    assert f"is in {tmp_path / 't'}; the same command with --resume goes on." in capsys.readouterr().err


def test_json_is_all_that_is_printed(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-i", films, "--methods", "attention", "--metrics", "aopc", "--format", "json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"attention", "random"}
    assert run("-i", films, "--methods", "attention", "--metrics", "aopc", "--format", "markdown") == 0
    assert capsys.readouterr().out.startswith("| method | aopc:mask ↑ |")


def test_rationales_and_labels_from_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "films.jsonl"
    rows: list[dict[str, Any]] = [
        {"text": FILMS[0], "label": "positive", "marked": [[2, 6], [11, 16]]},
        {"text": FILMS[1], "label": 0, "marked": [1, 0, 0, 0, 0]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    more = ("--label-column", "label", "--rationale-column", "marked", "--metrics", "token_f1,accuracy_masked")
    assert run("-i", path, "--methods", "decompx", *more, "--format", "json") == 0
    table = json.loads(capsys.readouterr().out)
    assert set(table) == {"decompx", "random", "longest_words"}
    assert table["decompx"]["token_f1"]["n"] == 2
    path.write_text(json.dumps(rows[0] | {"marked": [1, 0]}))
    assert run("-i", path, *more) == 2
    assert f"Line 1 of {path} has the rationale '[1, 0]'" in capsys.readouterr().err


def test_what_people_marked() -> None:
    assert spans_of(Item("a bc d", "", None, "[[0, 1]]")) == [(0, 1)]
    assert spans_of(Item("a bc d", "", None, [0, 1, 1])) == [(2, 4), (5, 6)]
    assert spans_of(Item(("a", "b"), "", None, [[0, 1, 1]])) == [(0, 1, 1)]
    assert spans_of(Item("a", "", None, [])) == []
    for wrong in ("no", None, [[1]], [0, 2, 1], [0.5, 1, 1], {"a": 1}):
        with pytest.raises(InputError, match="neither"):
            spans_of(Item("a bc d", "Line 1", None, wrong))


def test_times_and_lists() -> None:
    assert [seconds_of(t) for t in ("90", "90s", "5m", "1.5h")] == [90, 90, 300, 5400]
    for wrong in ("", "5 minutes", "-3", "0m", "m"):
        with pytest.raises(InputError, match=r"\(--budget\) is a time such as"):
            seconds_of(wrong)
    assert listed("a, b(c=1,d=2),e") == ["a", "b(c=1,d=2)", "e"]
    assert listed(None) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "decompy", FILMS[0]], "There is no method 'decompy'"),
        (["--metrics", "aocp", FILMS[0]], "There is no metric 'aocp'"),
        (["--metrics", "aopc:erase", FILMS[0]], "There is no operator 'erase'"),
        (["--operators", "", FILMS[0]], "at least one metric and one operator"),
        (["--budget", "soon", FILMS[0]], "(--budget) is a time such as"),
        (["--resume", FILMS[0]], "--resume takes over what --out DIR holds"),
        (["--format", "xml", FILMS[0]], "There is no format 'xml'"),
        ([], "There is nothing to compare methods on"),
        ([" ".join(["word"] * 200)], "reads at most 128"),
    ],
)
def test_refusals_are_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not told.out


def test_metrics_are_listed_with_their_direction(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["metrics"]) == 0
    assert "sufficiency ↓" in capsys.readouterr().out
    assert cli.status(["metrics", "aopc"]) == 0
    assert "arXiv 2306.02873" in capsys.readouterr().out
    assert cli.status(["metrics", "--format", "json"]) == 0
    assert {"name", "kind", "arrow"} <= set(json.loads(capsys.readouterr().out)[0])
    assert cli.status(["metrics", "aocp"]) == 2


def test_planted_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No model, no texts: the truth is known; the files hold what the table says."""
    asked = ("--planted", "--methods", "decompx,attention", "--limit", 2)
    assert run(*asked, "--out", tmp_path) == 0
    told = capsys.readouterr()
    assert "(exact_shapley)" in told.out
    assert "gated: a negation turns" in told.out
    table = json.loads((tmp_path / "planted.json").read_text())
    assert table["decompx"]["additive"]["l1"]["mean"] == pytest.approx(0, abs=1e-6)
    assert table["exact_shapley"]["all cases"]["l1"]["mean"] == pytest.approx(0, abs=1e-6)
    assert table["attention"]["distractor"]["l1"]["mean"] > 0.5
    rows = pq.read_table(tmp_path / "planted.parquet").to_pylist()
    assert len(rows) == 5 * 2 * 4  # cases x texts x (two methods, two controls)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 0
    assert run(*asked, FILMS[0]) == 2
    assert "--planted brings its own models and texts; leave out TEXT." in capsys.readouterr().err
    assert run(*asked, "--format", "markdown") == 0
    assert capsys.readouterr().out.startswith("| method | additive |")


def test_sanity(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings with a control; against another model, here itself, every method is the same."""
    out = tmp_path / "sane"
    assert run("-i", films, "--methods", "attention", "--sanity", "--format", "json", "--out", out) == 0
    for found in json.loads(capsys.readouterr().out)["findings"]:
        assert (found["name"], found["grade"]) == ("attention", "TOO FEW TEXTS")
        assert found["control"] == "two random orders"
    assert {"run.json", "sanity_weights.json"} <= {p.name for p in out.iterdir()}
    assert run("-i", films, "--methods", "attention", "--against", pellucid.DEMO, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["value"] == pytest.approx(1)
