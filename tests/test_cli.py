"""The command line: what it reads, writes, says and returns. Most tests call `status` in this process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import pellucid
from pellucid import cli, inputs
from pellucid.methods import catalog

RECORD = {
    "tokens", "scores", "unallocated", "explained", "gap", "target", "label", "prediction", "probability", "method",
    "params", "origin",
}  # fmt: skip
FILM, DULL = "the film is great", "dull plot, bad acting"
LIMIT = 24
DEMO = Path(pellucid.__file__).parent / "demo"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a two-layer BERT with random weights, labels negative and positive, that reads 24 tokens."""
    words = ["the", "a", "film", "is", "was", "great", "good", "bad", "dull", "not", "very", "plot", "acting", "it"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, "##ly", "##s", ",", ".", '"']
    raw = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=LIMIT, **names)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=LIMIT,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
        for p in model.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=0.3)
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test in a folder of its own; what the command line sets in the environment is undone."""
    monkeypatch.chdir(tmp_path)
    for name in [*cli._QUIET, "HF_HUB_OFFLINE"]:
        monkeypatch.setenv(name, "1" if "VERBOSITY" not in name else "error")


@dataclass(frozen=True)
class Done:
    """What a call left: exit status, standard output, standard error."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call(tiny: str, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run one command in this process; `explain` gets the tiny model unless the call names one."""

    def run(*args: str) -> Done:
        if args[0] == "explain" and "--model" not in args:
            args = ("explain", "--model", tiny, *args[1:])
        capsys.readouterr()
        code = cli.status(args)
        return Done(code, *capsys.readouterr())

    return run


def process(*args: str, stdin: str | None = None, **env: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "pellucid", *args],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DEMO.parents[1]), **env},
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def write(name: str, content: str | bytes | pa.Table) -> str:
    if isinstance(content, pa.Table):
        pq.write_table(content, name)
    else:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def check_record(record: dict[str, object]) -> None:
    assert set(record) >= RECORD
    scores, gap = record["scores"], record["gap"]
    assert isinstance(scores, list)
    assert isinstance(gap, float)
    assert len(scores) == len(record["tokens"])  # type: ignore[arg-type]
    rest = record["explained"] - record["unallocated"] - sum(scores)  # type: ignore[operator]
    assert rest == pytest.approx(gap, abs=1e-9)
    assert abs(gap) < 1e-4


# In processes of their own


def test_help_and_version_go_to_standard_output() -> None:
    done = process("--help")
    assert (done.code, done.err) == (0, "")
    assert all(name in done.out for name in ("demo", "explain", "methods", "families"))
    done = process("--version")
    assert (done.code, done.out, done.err) == (0, f"pellucid {pellucid.__version__}\n", "")


def test_json_is_one_document_and_standard_error_is_clean(tiny: str) -> None:
    done = process("explain", FILM, "--model", tiny, "--format", "json", PYTHONIOENCODING="latin-1")
    assert (done.code, done.err) == (0, "")
    check_record(json.loads(done.out))


def test_standard_input_is_read_by_line_and_nothing_is_drawn_without_a_terminal(tiny: str) -> None:
    done = process("explain", "--model", tiny, "--input", "-", "--format", "json", stdin=f"{FILM}\n\n∞ {DULL}\r\n")
    assert done.code == 0
    assert done.err == "Passed over 1 blank line of standard input.\n"
    assert [r["text"] for r in json.loads(done.out)] == [FILM, f"∞ {DULL}"]


def test_a_refusal_is_one_line_and_status_2(tiny: str) -> None:
    done = process("explain", FILM, "--model", tiny, "--method", "decomp", "--out", "x.html")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "Did you mean 'decompx'?" in done.err
    assert not list(Path().iterdir())


def test_a_reader_that_leaves_gets_no_traceback(tiny: str) -> None:
    write("many.txt", f"{FILM}\n" * 200)
    args = [sys.executable, "-m", "pellucid", "explain", "--model", tiny, "--input", "many.txt"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DEMO.parents[1])}
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.read(10)
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


@pytest.mark.skipif(not (DEMO / "config.json").exists(), reason="the demo model is not there")
def test_demo_needs_no_network_and_writes_pages_and_a_run_record() -> None:
    nowhere = {"HF_HOME": "cache", "HTTPS_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": ""}
    done = process("demo", "--out", "a/b", **nowhere)
    assert (done.code, done.err) == (0, "")
    assert {p.name for p in Path("a/b").iterdir()} >= {"demo.html", "run.json", "report.html", "verdict.json"}
    assert json.loads(Path("a/b/verdict.json").read_text(encoding="utf-8"))["sentence"] in done.out
    assert Path("a/b/demo.html").read_text(encoding="utf-8").count("<article") == 20
    run = json.loads(Path("a/b/run.json").read_text(encoding="utf-8"))
    assert run["call"][1:] == ["demo", "--out", "a/b"]
    assert run["forwards"] == run["data"]["texts"] == 20
    assert {"versions", "model", "data", "seed", "seconds", "forwards"} <= set(run)
    assert all(word in done.out for word in ("Sentence 5 of 20", str(Path("a/b/demo.html")), "pellucid explain"))


# In this process: what is read


FILES = {
    "a.txt": f"{FILM}\n\n  \n{DULL}\n",
    "crlf.txt": f"{FILM}\r\n{DULL}\r\n",
    "bom.csv": f'\ufefftext,label\r\n"{FILM}",1\r\n\r\n"{DULL}",0\r\n',
    "sentence.csv": f'id,sentence\n7,{FILM}\n8,"{DULL}"\n',
    "a.tsv": f"label\ttext\n1\t{FILM}\n0\t{DULL}\n",
    "a.jsonl": f'{{"text": "{FILM}", "x": [1]}}\n\n{{"x": 2, "text": "{DULL}"}}\n',
    "a.parquet": pa.table({"text": pa.array([FILM, DULL]).dictionary_encode(), "x": [b"\xff", b""]}),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_texts(name: str, call: Call) -> None:
    done = call("explain", "--input", write(name, FILES[name]), "--format", "json")
    assert done.code == 0, done.err
    records = json.loads(done.out)
    assert [r["text"] for r in records] == [FILM, DULL]
    for record in records:
        check_record(record)


def test_lines_are_those_of_the_file(call: Call) -> None:
    write("a.csv", 'text,n\n"good\nfilm",1\n\nbad,2\n')
    found = inputs.from_file("a.csv", inputs.Columns(), None, print)
    assert [(i.text, i.where) for i in found] == [("good\nfilm", "Line 2 of a.csv"), ("bad", "Line 5 of a.csv")]
    write("a.txt", "good\u2028film\x0c\n\nbad\n")
    assert [i.where for i in inputs.from_file("a.txt", inputs.Columns(), None, print)] == [
        "Line 1 of a.txt",
        "Line 3 of a.txt",
    ]


def test_tsv_with_stray_quotes_is_read_as_it_stands() -> None:
    said: list[str] = []
    write("glue.tsv", 'text\tlabel\nthe "great" film\t1\n"bad plot\t0\n')
    found = inputs.from_file("glue.tsv", inputs.Columns(), None, said.append)
    assert [i.text for i in found] == ['the "great" film', '"bad plot']
    assert len(said) == 1
    write("quoted.tsv", 'text\tlabel\n"the ""great"" film"\t1\n')
    assert [i.text for i in inputs.from_file("quoted.tsv", inputs.Columns(), None, print)] == ['the "great" film']


def test_pairs_words_and_limit(call: Call) -> None:
    table = pa.table({"premise": [FILM, DULL], "hypothesis": ["it is good", "badly"], "label": [1, 0]})
    columns = ("--text-column", "premise", "--pair-column", "hypothesis")
    done = call("explain", "--input", write("p.parquet", table), *columns, "--format", "json", "--limit", "1")
    assert [r["text"] for r in json.loads(done.out)] == [[FILM, "it is good"]]
    done = call("explain", "--input", "p.parquet", *columns, "--format", "json", "--words")
    assert json.loads(done.out)[1]["tokens"][-2:] == ["badly", "[SEP]"]
    check_record(json.loads(done.out)[1])


def test_targets(call: Call) -> None:
    def scores(*args: str) -> np.ndarray:
        done = call("explain", *args, "--format", "json")
        assert done.code == 0, done.err
        return np.concatenate([r["scores"] for r in json.loads(done.out)])

    negative, positive = scores(FILM, DULL, "--target", "all").T
    first = np.arange(len(positive)) < len(f"[CLS] {FILM} [SEP]".split())
    gold = np.where(first, positive, negative)
    assert np.abs(positive).max() > 0.01
    for asked, expected in {"positive": positive, "0": negative, "positive, 0": positive - negative}.items():
        np.testing.assert_allclose(scores(FILM, DULL, "--target", asked), expected, atol=1e-5)
    for cells in (("1", "0"), ("positive", "negative"), (1.0, 0), (1, 0)):
        rows = [{"text": text, "y": cell} for text, cell in zip((FILM, DULL), cells, strict=True)]
        write("gold.jsonl", "\n".join(map(json.dumps, rows)))
        found = scores("--input", "gold.jsonl", "--target", "gold", "--label-column", "y")
        np.testing.assert_allclose(found, gold, atol=1e-5)


def test_target_words() -> None:
    labels, items = ["a,b", "c", "non-toxic", "all"], [inputs.Item("x", "The text", 1.0)]
    expected = {
        None: None, "predicted": None, "a,b": "a,b", "all": "all", "a,b,c": ("a,b", "c"), "c,a,b": ("c", "a,b"),
        "non-toxic,1": ("non-toxic", 1), "3": 3, "gold": [1],
    }  # fmt: skip
    assert {asked: inputs.target_of(asked, labels, items) for asked in expected} == expected


def test_every_parameter_of_every_method_can_be_given_as_text() -> None:
    for method in pellucid.METHODS:
        given = [f"{f.name}={getattr(method, f.name)}" for f in fields(method)]  # type: ignore[arg-type]
        assert catalog.method_with(method.name, given) == method
    assert catalog.method_with("attention", ["head=1"]).head == 1  # type: ignore[attr-defined]
    assert catalog.method_with("rollout", ["residual=1"]).residual == 1.0  # type: ignore[attr-defined]
    assert catalog.method_with("decompx", ["ffn=false"]).ffn is False  # type: ignore[attr-defined]


# What is written


def test_text_names_each_place(call: Call) -> None:
    done = call("explain", "--input", write("a.txt", f"\n{FILM}\n{DULL}\n"))
    assert done.code == 0
    assert "Line 2 of a.txt" in done.out
    assert "Line 3 of a.txt" in done.out
    assert "great(" in done.out


def test_json_of_one_text_is_a_record_and_of_a_file_a_list(call: Call) -> None:
    assert isinstance(json.loads(call("explain", FILM, "--format", "json").out), dict)
    write("one.txt", FILM)
    assert isinstance(json.loads(call("explain", "--input", "one.txt", "--format", "json").out), list)
    assert call("explain", FILM, "--out", "one.json").code == 0
    assert isinstance(json.loads(Path("one.json").read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.json", "deep/er/x.parquet"])
def test_records_are_read_back(name: str, call: Call) -> None:
    done = call("explain", FILM, DULL, "--target", "all", "--out", name)
    assert (done.code, done.out) == (0, "")
    assert f"Wrote 2 explanations to {name}" in done.err
    direct = json.loads(call("explain", FILM, DULL, "--target", "all", "--format", "json").out)
    found = pellucid.read_records(name)
    assert [a.to_dict()["scores"] for a in found] == [r["scores"] for r in direct]
    assert [p.name for p in Path(name).parent.iterdir()] == [Path(name).name]


def test_the_ending_of_out_decides_unless_format_does(call: Call) -> None:
    assert call("explain", FILM, "--out", "x.html").code == 0
    assert Path("x.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert call("explain", FILM, "--out", "x").code == 0
    assert Path("x").read_text(encoding="utf-8").startswith("prediction ")
    assert call("explain", FILM, "--out", "x.svg", "--format", "json").code == 0
    check_record(json.loads(Path("x.svg").read_text(encoding="utf-8")))
    assert call("explain", FILM, "--format", "html").out.startswith("<!DOCTYPE html>")


def test_long_texts(call: Call) -> None:
    write("long.txt", f"{FILM}\n\n" + "good " * 60)
    done = call("explain", "--input", "long.txt", "--out", "x.json")
    assert done.code == 2
    assert "Line 3 of long.txt has 62 tokens" in done.err
    for how, tokens in (("truncate", LIMIT), ("window", 62)):
        done = call("explain", "--input", "long.txt", "--long", how, "--format", "json")
        assert len(json.loads(done.out)[1]["tokens"]) == tokens


def test_chunks_change_nothing_and_late_refusals_name_the_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write("many.txt", "".join(f"{'very ' * i}{FILM}\n" for i in range(5)))
    whole = json.loads(call("explain", "--input", "many.txt", "--format", "json").out)
    monkeypatch.setattr(cli, "CHUNK", 2)
    parts = json.loads(call("explain", "--input", "many.txt", "--format", "json").out)
    assert [r["text"] for r in parts] == [r["text"] for r in whole]
    assert [r["scores"] for r in parts] == [pytest.approx(r["scores"], abs=1e-5) for r in whole]
    good, long = {"text": "good", "b": "bad"}, {"text": "good " * 20, "b": "bad " * 20}
    write("pairs.jsonl", "\n".join(json.dumps(r) for r in (good, good, good, long)))
    done = call("explain", "--input", "pairs.jsonl", "--pair-column", "b", "--long", "window", "--out", "x.json")
    assert done.code == 2
    assert done.err.startswith("pellucid: Line 4 of pairs.jsonl cannot be cut into windows: the shorter text")
    assert not Path("x.json").exists()


# What is refused


BAD_FILES: dict[str, tuple[str, str | bytes | pa.Table, str]] = {
    "empty file": ("e.txt", "", "e.txt is empty"),
    "blank file": ("e.txt", "\n \n", "e.txt is empty"),
    "binary text": ("b.txt", b"\x89PNG\r\n\xff", "b.txt is not UTF-8 text (byte 0x89 in line 1)"),
    "latin-1": ("b.csv", "text\ncaf\xe9".encode("latin-1"), "(byte 0xe9 in line 2)"),
    "utf-16": ("b.csv", "text\ngood".encode("utf-16"), "UTF-16"),
    "binary jsonl": ("b.jsonl", b"\x00\x01", "binary"),
    "binary parquet": ("b.parquet", b"\x89PNG", "not a Parquet file"),
    "empty parquet": ("b.parquet", b"", "not a Parquet file"),
    "no column": ("c.csv", "review,label\ngood,1\n", "its columns are 'review', 'label'"),
    "two columns": ("c.csv", "text,text\na,b\n", "2 columns called 'text'"),
    "no rows": ("c.csv", "text,label\n", "no rows"),
    "too many cells": ("c.csv", "text,label\ngood,1\nbad, very bad,0\n", "Line 3 of c.csv has 3 cells"),
    "too few cells": ("c.csv", "label,text\n1\n", "Line 2 of c.csv has 1 cells"),
    "open quote": ("c.csv", 'text,label\n"good,1\nbad,0\n', "begins in line 2 of c.csv"),
    "empty cell": ("c.csv", "text,label\ngood,1\n ,0\n", "Line 3 of c.csv holds nothing"),
    "not an object": ("c.jsonl", '{"text": "a"}\n["x"]\n', "Line 2 of c.jsonl is a JSON list"),
    "not JSON": ("c.jsonl", '{"text": "a"}\n\n{"text": "b"\n', "Line 3 of c.jsonl is not JSON"),
    "deep JSON": ("c.jsonl", "[" * 100_000, "Line 1 of c.jsonl is not JSON"),
    "number": ("c.jsonl", '{"text": 5}', "Line 1 of c.jsonl has 5 (int) as 'text'"),
    "null": ("c.jsonl", '{"text": null}', "Line 1 of c.jsonl has no text"),
    "missing key": ("c.jsonl", '{"text": "a"}\n{"txt": "a"}', "Line 2 of c.jsonl has no 'text'; it has 'txt'"),
    "surrogate": ("c.jsonl", '{"text": "\\ud800"}', "Line 1 of c.jsonl is not valid Unicode"),
    "null in parquet": ("c.parquet", pa.table({"sentence": ["a", None]}), "Row 2 of c.parquet has no text"),
    "bytes in parquet": ("c.parquet", pa.table({"text": [b"a"]}), "Row 1 of c.parquet has b'a' (bytes)"),
    "no tokens": ("c.txt", "good\n\u200b\n", "Line 2 of c.txt ('\\u200b') holds no tokens"),
    "other ending": ("c.json", "[]", "'.json' of c.json"),
    "no such file": ("", "", "There is no file none.txt"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_by_place(case: str, call: Call) -> None:
    name, content, expected = BAD_FILES[case]
    if name:
        write(name, content)
    before = sorted(Path().iterdir())
    done = call("explain", "--input", name or "none.txt", "--out", "new/out.parquet")
    assert (done.code, done.out) == (2, "")
    assert expected in done.err
    assert done.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


BAD_CALLS = {
    "explain": "nothing to explain",
    "explain good --input a.csv": "Both TEXT and --input",
    "explain --input .": "is a folder",
    "explain --input -": "Standard input is empty",
    "explain good --model ./none": "There is no folder './none'",
    "explain good --model .": "no config.json",
    "explain good --method atention": "Did you mean 'attention'?",
    "explain good --format jsn": "Did you mean 'json'?",
    "explain good --long cut": "refuse, truncate, window",
    "explain good --param bias": "name=value",
    "explain good --param bais=drop": "Did you mean 'bias'?",
    "explain good --param bias=absdt": "token, drop, absdot",
    "explain good --method rollout --param residual=x": "a number, by default 0.5",
    "explain good --method attention --param layer=1.5": "a whole number, by default -1",
    "explain good --method attention --param layer=9": "layers 0 to 1",
    "explain good --target postive": "Did you mean 'positive'?",
    "explain good --target 2": "0 to 1: negative, positive",
    "explain good --target positive,negativ": "Did you mean 'negative'?",
    "explain good --target gold": "--label-column",
    "explain --input a.csv --label-column y": "--target gold",
    "explain --input a.csv --label-column y --target gold": "Line 3 of a.csv has the label '-1'",
    "explain --input a.csv --text-column review": "no column 'review'",
    "explain --input a.csv --pair-column review": "no column 'review'",
    "explain --input a.txt --text-column x": "--text-column needs a file with columns",
    "explain good --limit 1": "--limit",
    "explain --input a.csv --limit 0": "--limit",
    "explain good --words --method leave_one_out": "cannot be summed",
    "explain good --out .": "is a folder",
    "explain good --out a.csv/x.html": "is a file, not a folder",
    "explain good --out x.svg": "does not tell what to write",
    "explain good --device gpu": "cpu, cuda, cuda:1 or mps",
    "explain good --device cuda:99": "torch sees",
    "explain good --frobnicate": "See `pellucid explain --help`.",
    "explian good": "No such command 'explian'.",
    "demo --out a.csv": "is a file, not a folder",
    "methods decomp": "Did you mean 'decompx'?",
    "families --format html": "text, json",
}


@pytest.mark.parametrize("line", BAD_CALLS)
def test_bad_calls_are_one_sentence(line: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.csv", "text,y\ngood,1\nbad,-1\n")
    write("a.txt", "good\n")
    monkeypatch.setattr(sys, "stdin", open(os.devnull, encoding="utf-8"))  # noqa: SIM115
    done = call(*line.split())
    assert (done.code, done.out) == (2, "")
    assert BAD_CALLS[line] in done.err
    assert done.err.startswith("pellucid: ")
    assert done.err.count("\n") == 1
    assert {p.name for p in Path().iterdir()} == {"a.csv", "a.txt"}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`explain` raises what the test puts into `.error`."""
    box = SimpleNamespace(error=RuntimeError("first line\nsecond line"))

    def fail(*args: object, **kwargs: object) -> None:
        raise box.error

    monkeypatch.setattr("pellucid.run.explain", fail)
    return box


def test_the_unexpected_is_status_1(call: Call, broken: SimpleNamespace) -> None:
    done = call("explain", FILM, "--out", "x.json")
    assert (done.code, done.out) == (1, "")
    assert done.err == "pellucid: unexpected RuntimeError: first line. Repeat with --traceback to see where.\n"
    assert not list(Path().iterdir())
    assert "Traceback" in call("explain", FILM, "--traceback").err
    broken.error = KeyboardInterrupt()
    done = call("explain", FILM)
    assert (done.code, done.err.strip()) == (1, "pellucid: interrupted.")


def test_after_two_dashes_everything_is_text(call: Call) -> None:
    done = call("explain", "--format", "json", "--", "--traceback")
    assert json.loads(done.out)["text"] == "--traceback"


def test_a_text_that_names_a_file_is_pointed_out(call: Call) -> None:
    assert "use --input good.txt" in call("explain", write("good.txt", "good")).err


@pytest.mark.skipif(not (DEMO / "config.json").exists(), reason="the demo model is not there")
def test_without_model_the_bundled_one_is_used_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.status(["explain", "A gripping film.", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    check_record(json.loads(out))
    assert "bundled demo model" in err


# Lists


def test_methods_and_families(call: Call) -> None:
    entries = json.loads(call("methods", "--format", "json").out)
    assert [e["name"] for e in entries] == pellucid.METHODS.names()
    assert (entries[0]["complete"], entries[0]["params"]["bias"]) == (True, "token")
    shown = call("methods").out
    assert all(name in shown for name in pellucid.METHODS.names())
    for name in pellucid.METHODS.names():
        done = call("methods", name)
        assert (done.code, done.out.startswith(f"{name}: ")) == (0, True)
    assert [e["name"] for e in json.loads(call("families", "--format", "json").out)] == pellucid.FAMILIES.names()
    assert "modernbert" in call("families").out


def test_guarantees_told_without_a_model_hold_for_one(tiny: str) -> None:
    model = pellucid.load(tiny)
    for method in pellucid.METHODS:
        told = catalog.about(method)
        for name, value in vars(method.guarantees(model)).items():
            assert told[name] in (None, value), (method.name, name)
