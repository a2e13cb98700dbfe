"""`pellucid audit` and `pellucid audits`: small audits of our own stand in for the registered ones."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

import pellucid
from pellucid import Access, Finding, Findings, cli, settings
from pellucid.audits import AUDITS, Audit, catalog
from pellucid.encoder import load
from pellucid.errors import InputError, MissingExtra, Unanswerable
from pellucid.finding import Picture
from pellucid.records import read_findings
from pellucid.stats import over_texts

FILMS = ["A warm and funny film.", "Dull from start to end.", "It is not bad at all.", "Great acting, thin plot."]
LIMIT = 128  # tokens that the bundled model reads
pytestmark = pytest.mark.skipif(not (pellucid.DEMO / "config.json").exists(), reason="the demo model is not there")


def drawn(height: float) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().bar(["even"], [height])
    return figure


@dataclass(frozen=True)
class Even(Audit):
    """How many token ids are even?

    maps: what is done to the ids first. share: of the tokens that are counted.
    """

    at: Literal["all", "first"] = "all"
    maps: tuple[Literal["none", "plus_one"], ...] = ("none",)
    share: float | None = None
    note: str = "5"

    source = "the integers"
    calls: ClassVar[list["Even"]] = []
    error: ClassVar[BaseException | None] = None
    name = "even"  # type: ignore[assignment]

    def __call__(self, model: Any, batch: Any, tick: Any) -> Findings:
        self.calls.append(self)
        if type(self).error is not None:
            raise type(self).error
        rows, found = [], []
        for k, row in enumerate(batch.tokens):
            tick(k + 1, len(batch))
            rows += [{"text": k, "token": t.text, "even": t.id % 2 == 0} for t in row]
        for which in self.maps:
            even = [[float(r["even"]) for r in rows if r["text"] == k] for k in range(len(batch))]
            e = over_texts(even, seed=self.seed)
            reading = f"{e.value:.0%} of the ids are even."
            found.append(Finding(self.name, f"even_{which}", e.value, e.interval, 0.5, e.n, "AS CHANCE", reading))
        return Findings(found, self.name, {"tokens": rows}, {"share": Picture(drawn, 1.0)})


@dataclass(frozen=True)
class Odd(Even):
    """How many are odd?"""

    needs = Access.GRADIENTS
    calls: ClassVar[list[Even]] = []
    error: ClassVar[BaseException | None] = None
    name = "odd"  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder of its own, no audits but ours, and the environment as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AUDITS, "_things", {"even": Even(), "odd": Odd()})
    for name in [*cli._QUIET, "HF_HUB_OFFLINE"]:
        monkeypatch.setenv(name, "1" if "VERBOSITY" not in name else "error")
    write()
    yield
    for kind in (Even, Odd):
        kind.calls.clear()
        kind.error = None


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*args: str) -> Done:
        capsys.readouterr()
        code = cli.status(args)
        return Done(code, *capsys.readouterr())

    return run


def write(texts: list[str] | None = None) -> None:
    Path("films.csv").write_text("id,review\n" + "".join(f'{i},"{t}"\n' for i, t in enumerate(texts or FILMS)))


DEMO = str(pellucid.DEMO)
AUDIT = ("audit", "--model", DEMO, "--input", "films.csv", "--text-column", "review")
ALL = (*AUDIT, "--only", "all")


def files(folder: str) -> set[str]:
    return {p.name for p in Path(folder).iterdir()}


def run_json(folder: str) -> dict[str, Any]:
    return dict(json.loads((Path(folder) / "run.json").read_text(encoding="utf-8")))


EVEN = {"even.json", "even_tokens.parquet", "even_share.svg", "run.json"}
ODD = {name.replace("even", "odd") for name in EVEN}


# What is measured and printed


def test_all_audits_one_after_the_other_as_tables(call: Call) -> None:
    done = call(*ALL)
    assert (done.code, done.err) == (0, "")
    first, second = done.out.split("\n\nodd | ")
    for out in (first, second):
        assert "4 texts" in out
        assert "95 % interval" in out
        assert "AS CHANCE" in out
        assert "of the ids are even. Counted: 4 texts." in out
    assert first.startswith("even | ")
    assert files(".") == {"films.csv"}


def test_json_is_the_list_that_python_gives(call: Call) -> None:
    done = call(*AUDIT, "--format", "json", "--only", "even", "--setting", "maps=none,plus_one", "--seed", "3")
    assert (done.code, done.err) == (0, "")
    (document,) = json.loads(done.out)
    model = pellucid.load(pellucid.DEMO)
    direct = pellucid.audit(model, FILMS, "even", seed=3, maps=("none", "plus_one")).to_dict()
    for record in (document, direct):
        record["origin"].pop("seconds")
    assert document == json.loads(json.dumps(direct))
    assert document["params"] == {"seed": 3, "at": "all", "maps": ["none", "plus_one"], "share": None, "note": "5"}
    assert [f["name"] for f in document["findings"]] == ["even_none", "even_plus_one"]
    assert document["findings"][0]["n"] == 4


def test_which_audits_texts_and_model(call: Call) -> None:
    done = call("audit", "Dull.", "Not dull.", "--only", "odd", "--only", "even", "--only", "odd", "--format", "json")
    assert done.code == 0
    assert [d["audit"] for d in json.loads(done.out)] == ["odd", "even"]
    assert [d["origin"]["texts"] for d in json.loads(done.out)] == [2, 2]
    assert done.err == "No --model was given, so this is the bundled demo model, a judge of film reviews.\n"
    done = call(*AUDIT, "--limit", "3", "--only", "even", "--format", "json", "--seed", "0")
    assert json.loads(done.out)[0]["origin"]["texts"] == 3
    pairs = call(*AUDIT, "--pair-column", "id", "--only", "even", "--format", "json")
    assert json.loads(pairs.out)[0]["origin"]["tokens"] > json.loads(done.out)[0]["origin"]["tokens"]
    Path("good.txt").write_text("good")
    assert "Auditing the words 'good.txt' themselves" in call("audit", "good.txt", "--only", "even").err


def test_texts_over_the_limit_are_cut_only_when_asked(call: Call) -> None:
    write([*FILMS, "good " * 300])
    done = call(*ALL, "--out", "found")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"pellucid: Line 6 of films.csv has 302 tokens; {DEMO!r} reads at most {LIMIT}. Add --max-tokens {LIMIT} to "
        "cut longer texts off there.\n"
    )
    assert not Path("found").exists()
    for asked, kept in ((64, 64), (LIMIT, LIMIT), (1000, LIMIT)):
        done = call(*AUDIT, "--max-tokens", str(asked), "--only", "even", "--format", "json")
        (document,) = json.loads(done.out)
        assert document["origin"]["truncated"] == {"texts": 1, "max_tokens": kept}
        assert document["findings"][0]["limits"] == [f"1 of 5 texts were cut to {kept} tokens."]
    done = call(*AUDIT, "--max-tokens", "6", "--only", "even")
    assert (done.code, done.out) == (2, "")
    assert "pellucid: Line 2 of films.csv cannot be cut to 6 tokens: its special tokens leave 4 of 6" in done.err


def test_late_refusals_name_the_line(call: Call) -> None:
    Even.error = InputError("Text 3 has nothing even.")
    done = call(*ALL)
    assert (done.code, done.out, done.err) == (2, "", "pellucid: Line 4 of films.csv has nothing even.\n")


def test_a_question_that_cannot_be_asked_here_stops_no_other(call: Call) -> None:
    Even.error = Unanswerable("There are too few texts.")
    done = call(*ALL, "--out", "found")
    assert (done.code, files("found")) == (0, ODD)
    assert done.err.startswith("The audit 'even' is left out: There are too few texts.\n")
    assert list(run_json("found")["audits"]) == ["odd"]
    named = call(*AUDIT, "--only", "even")
    assert (named.code, named.err) == (2, "pellucid: There are too few texts.\n")
    Odd.error = MissingExtra("It needs something.")
    assert (call(*ALL).code, call(*ALL).out) == (2, "")


# What is written


def test_files_of_every_audit_and_a_run_record(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pellucid", *ALL, "--out", "new/found", "--seed", "7"])
    done = call(*sys.argv[1:])
    assert done.code == 0
    assert "AS CHANCE" in done.out
    assert done.err.startswith("Wrote new/found in ")
    assert files("new/found") == EVEN | ODD
    saved = read_findings("new/found/even.json")
    assert saved.named("even_none").n == 4
    rows = pq.read_table("new/found/even_tokens.parquet").to_pylist()
    assert saved.named("even_none").value == pytest.approx(sum(r["even"] for r in rows) / len(rows))
    run = run_json("new/found")
    assert run["call"] == sys.argv
    assert (run["seed"], run["data"]["texts"], run["model"]["id"]) == (7, 4, DEMO)
    assert run["model"]["weights"] == saved.origin["weights"]
    assert {"pellucid", "torch", "transformers", "python"} == set(run["versions"])
    assert set(run["audits"]) == {"even", "odd"}
    assert run["audits"]["even"]["params"]["seed"] == 7
    assert run["audits"]["odd"]["data"] == saved.origin["data"]
    assert run["seconds"] >= run["audits"]["odd"]["seconds"]
    assert "forwards" in run


def test_json_and_files_together(call: Call) -> None:
    done = call(*ALL, "--out", "found", "--format", "json")
    assert [d["audit"] for d in json.loads(done.out)] == ["even", "odd"]
    assert json.loads(Path("found/odd.json").read_text()) == json.loads(done.out)[1]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(KeyboardInterrupt(), 1, "interrupted."), (RuntimeError("x\ny"), 1, "unexpected RuntimeError: x."),
     (InputError("The texts are odd."), 2, "The texts are odd.")],
)  # fmt: skip
def test_what_is_done_is_kept_and_taken_over(error: BaseException, code: int, said: str, call: Call) -> None:
    Odd.error = error
    done = call(*ALL, "--out", "found", "--format", "json")
    assert (done.code, done.out) == (code, "")
    assert done.err.strip().startswith(f"pellucid: {said}")
    assert files("found") == EVEN
    assert list(run_json("found")["audits"]) == ["even"]
    Odd.error = None
    Even.calls.clear()
    done = call(*ALL, "--out", "found", "--resume", "--format", "json")
    assert (done.code, Even.calls) == (0, [])
    assert done.err.startswith("Took even over from found/even.json.\nWrote found in ")
    assert [d["audit"] for d in json.loads(done.out)] == ["even", "odd"]
    assert json.loads(done.out)[0] == json.loads(Path("found/even.json").read_text())
    assert files("found") == EVEN | ODD
    taken = {name: a["taken_over"] for name, a in run_json("found")["audits"].items()}
    assert taken == {"even": True, "odd": False}
    table = call(*ALL, "--out", "found", "--resume")
    assert "even_none" in table.out
    assert table.err.count("Took ") == 2


def test_a_killed_process_loses_the_unfinished_audit_alone(call: Call) -> None:
    script = (
        "import os, signal, sys; import test_cli_audit as t\n"
        "from pellucid import cli; from pellucid.audits import AUDITS\n"
        "class Kill(t.Odd):\n"
        "    def __call__(self, *_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "AUDITS._things = {'even': t.Even(), 'odd': Kill()}\n"
        f"sys.exit(cli.status({[*ALL, '--out', 'found']!r}))"
    )
    here = Path(__file__).parent
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path(DEMO).parents[1]}{os.pathsep}{here}"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert done.stderr == b""
    assert b"even_none" in done.stdout
    assert files("found") == EVEN
    again = call(*ALL, "--out", "found", "--resume")
    assert again.code == 0
    assert "Took even over" in again.err
    assert files("found") == EVEN | ODD


def again(call: Call, *more: str) -> str:
    """What a second call with --resume says, which must not take anything over."""
    Even.calls.clear()
    done = call(*AUDIT, "--only", "even", "--out", "found", "--resume", *more)
    assert (done.code, len(Even.calls)) == (0, 1)
    return done.err


def test_what_was_measured_otherwise_is_measured_again(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(*AUDIT, "--only", "even", "--out", "found").code == 0
    other = "found/even.json was made with other {}, so even is measured again.\n"
    assert other.format("settings") in again(call, "--seed", "1")
    assert other.format("settings and texts") in again(call, "--limit", "3")
    write([*FILMS[:3], "Other."])
    assert other.format("texts") in again(call, "--limit", "4")
    (Path("found") / "even.json").write_text("{}")
    assert "found/even.json cannot be read. These are not saved findings" in again(call)
    monkeypatch.setattr("pellucid.verdict.store.__version__", "0.0.9")
    assert other.format("version of pellucid") in again(call)
    record = json.loads(Path("found/even.json").read_text())
    record["origin"]["weights"] = "0"
    record["origin"]["versions"]["pellucid"] = "0.0.9"
    Path("found/even.json").write_text(json.dumps(record))
    assert other.format("weights") in again(call)
    assert call(*AUDIT, "--only", "even", "--out", "empty", "--resume").err.startswith("Wrote")


# What is refused


BAD_CALLS = {
    "audit": "There is nothing to audit",
    "audit good --input films.csv": "Both TEXT and --input",
    "audit good --only evn": "There is no audit 'evn'. Did you mean 'even'?",
    "audit good --setting at=first": "--setting is about one audit",
    "audit good --only even --only odd --setting at=first": "--setting is about one audit",
    "audit good --only even --setting at": "--setting takes name=value; seen 'at'",
    "audit good --only even --setting att=all": "There is no setting of even 'att'. Did you mean 'at'?",
    "audit good --only even --setting at=last": "at=last does not fit even: at is all or first, by default 'all'",
    "audit good --only even --setting maps=none,plus": "maps is none or plus_one (several between commas)",
    "audit good --only even --setting share=x": "share is a number or none, by default None",
    "audit good --only even --setting seed=1.5": "seed is a whole number, by default 0",
    "audit good --only even --setting seed=1 --seed 1": "The seed was given twice",
    "audit good --seed -1": "--seed",
    "audit good --max-tokens 0": "--max-tokens",
    "audit good --limit 1": "--limit",
    "audit good --resume": "--resume takes over what --out DIR holds",
    "audit good --out films.csv": "is a file, not a folder",
    "audit good --format html": "Choose one of: text, json",
    "audit good --budget soon": "The budget (--budget) is a time such as",
    "audit good --only even --budget 5m": "leave out --budget",
    "audit good --only even --fail-on NOISY": "leave out --fail-on",
    "audit good --only even --model a --model b": "leave out a second --model",
    "audit good --model a --model b --model c": "seen 3 times --model",
    "audit good --fail-on NOISE": "There is no grade 'NOISE'. Did you mean 'NOISY'?",
    "audit good --label-column y": "The column options",
    "audit good --model ./none": "There is no folder './none'",
    "audit good --device gpu": "cpu, cuda, cuda:1 or mps",
    "audit --input none.txt": "There is no file none.txt",
    "audit --input films.csv": "no column 'text'",
    "audits evn": "Did you mean 'even'?",
    "audits --format html": "Choose one of: text, json",
}


@pytest.mark.parametrize("line", BAD_CALLS)
def test_bad_calls_are_one_sentence(line: str, call: Call) -> None:
    done = call(*line.split())
    assert (done.code, done.out) == (2, "")
    assert BAD_CALLS[line] in done.err
    assert done.err.startswith("pellucid: ")
    assert done.err.count("\n") == 1
    assert files(".") == {"films.csv"}
    assert not Even.calls


def test_a_model_that_shows_too_little_is_refused_before_anything_is_measured(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load.load

    def less(*args: Any, **kwargs: Any) -> pellucid.Model:
        return replace(whole(*args, **kwargs), access=Access.GRADIENTS, net=None, lost="It is an unknown kind.")

    monkeypatch.setattr(load, "load", less)
    done = call(*ALL)  # all audits, by default: those within reach, and a word about the others
    assert done.code == 0
    assert "GRADIENTS access, so these audits are left out: even. It is an unknown kind." in done.err
    done = call(*AUDIT, "--only", "even", "--only", "odd")
    assert (done.code, done.out) == (2, "")
    assert f"The audit 'even' needs ENCODER access, but {DEMO!r} gives GRADIENTS. It is an unknown kind." in done.err
    assert "Ask for what it allows: --only odd." in done.err
    assert call(*AUDIT, "--only", "odd").code == 0
    done = call(*AUDIT, "--only", "even")
    assert (done.code, done.out) == (2, "")
    assert "The audit 'even' needs ENCODER access" in done.err


# Lists


def test_audits_are_listed(call: Call) -> None:
    done = call("audits")
    assert (done.code, done.err) == (0, "")
    rows = [line.split(maxsplit=2) for line in done.out.splitlines()[1:3]]
    assert [[c.strip() for c in row] for row in rows] == [
        ["even", "ENCODER", "How many token ids are even?"],
        ["odd", "GRADIENTS", "How many are odd?"],
    ]
    entries = json.loads(call("audits", "--format", "json").out)
    assert entries[0] == json.loads(call("audits", "even", "--format", "json").out) == {
        "name": "even", "summary": "How many token ids are even?", "needs": "ENCODER", "source": "the integers",
        "caution": "", "settings": {"seed": 0, "at": "all", "maps": ["none"], "share": None, "note": "5"},
        "choices": {
            "seed": "a whole number", "at": "all or first", "maps": "none or plus_one (several between commas)",
            "share": "a number or none", "note": "a text",
        },
    }  # fmt: skip
    one = call("audits", "even").out
    assert one.startswith("even: How many token ids are even?")
    assert all(
        line in one for line in ("Needs ENCODER access.", "Source: the integers.", "  --setting maps=none: none or")
    )


def test_the_real_audits_are_listed_and_read_their_settings(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.undo()
    entries = json.loads(call("audits", "--format", "json").out)
    assert [e["name"] for e in entries] == pellucid.AUDITS.names()
    for audit in pellucid.AUDITS:
        given = [f"{key}={settings.shown(value)}" for key, value in settings.defaults_of(audit).items()]
        assert catalog.audit_with(audit.name, given) == audit
        assert call("audits", audit.name).out.startswith(f"{audit.name}: ")
        assert catalog.about(audit)["summary"]
        assert len(catalog.about(audit)["summary"]) < 100


@dataclass(frozen=True)
class Kinds:
    """One setting of every kind."""

    whole: int = 1
    number: float = 0.5
    either: int | None = None
    word: str = "a"
    yes: bool = False
    choice: Literal["x", 2, None] = "x"
    some: tuple[int, ...] = (1, 2)
    two: tuple[int, Literal["a", "b"]] = (1, "a")
    perhaps: tuple[float, ...] | None = None


WORDING = settings.Wording("thing", "setting", "--setting")
READ = {
    "whole=-3": -3, "number=2": 2.0, "number=1e-3": 0.001, "either=none": None, "either=4": 4, "word=5": "5",
    "word=": "", "word=a=b": "a=b", "word='c'": "c", "word=none": "none", "yes=TRUE": True, "choice=2": 2,
    "choice=none": None, "some=3": (3,), "some=3,4,5": (3, 4, 5), "some=()": (), "some=(7,)": (7,), "two=2,b": (2, "b"),
    "perhaps=1,2.5": (1.0, 2.5), "perhaps=none": None,
}  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_settings_are_read_as_their_type(text: str) -> None:
    found = getattr(settings.with_settings(Kinds(), "kinds", [text], WORDING), text.partition("=")[0])
    assert (found, type(found)) == (READ[text], type(READ[text]))


@pytest.mark.parametrize(
    "text",
    ["whole=1.5", "whole=true", "whole=", "number=nan", "number=1e999", f"number={'9' * 400}", "either=x", "yes=1",
     "choice=True", "choice=3", "some=1,x", "some=", "some=1,,2", "two=1", "two=1,c", "two=1,a,b", "perhaps=a",
     "whole=[" + "[" * 300],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_would(text: str) -> None:
    key = text.partition("=")[0]
    with pytest.raises(InputError, match=f"does not fit kinds: {key} is .*, by default "):
        settings.with_settings(Kinds(), "kinds", [text], WORDING)
