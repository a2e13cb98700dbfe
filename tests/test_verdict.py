"""`audit_all` on real models: what it measures, what it leaves out, what it writes; and `pellucid audit` around it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
import torch

import pellucid
from pellucid import Access, cli
from pellucid.errors import InputError
from pellucid.finding import Findings
from pellucid.verdict import Verdict, audit_all, whole
from pellucid.verdict.budget import PARTS
from pellucid.verdict.rules import NO_ACCESS, NOT_MEASURED, QUESTIONS, TOO_FEW

pytestmark = pytest.mark.skipif(not (pellucid.DEMO / "config.json").exists(), reason="the demo model is not there")
TEXTS = [
    line for line in (pellucid.DEMO / "sentences.txt").read_text(encoding="utf-8").splitlines() if line
] if (pellucid.DEMO / "sentences.txt").exists() else []  # fmt: skip
GOLD = ["positive", "negative"] * 6
SOME = TEXTS[:12]
FEW = ("decompx", "gradient_x_input", "attention")
FAST = ("erasure", "comparison", "identifiability", "words", "calibration", "texts")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line sets is undone."""
    for name in [*cli._QUIET, "HF_HUB_OFFLINE"]:
        monkeypatch.setenv(name, "1" if "VERBOSITY" not in name else "error")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the parts that take longest."""
    only(monkeypatch, *FAST)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """These parts alone."""
    monkeypatch.setattr(whole, "PARTS", tuple(p for p in PARTS if p.name in names))


@pytest.fixture(scope="module")
def verdict() -> Verdict:
    """Of twelve sentences with labels, half of them wrong; a model of its own, so that nothing is shared."""
    return audit_all(pellucid.load(pellucid.DEMO), SOME, None, GOLD, methods=FEW)


def test_every_question_is_answered_with_its_numbers(verdict: Verdict) -> None:
    assert [a.question for a in verdict.answers] == [q.key for q in QUESTIONS]
    assert all(a.measured for a in verdict.answers)
    for a in verdict.answers:
        first = a.deciding[0]
        assert first.value is not None
        assert first.interval is not None
        assert first.null is not None
        assert first.n == 12
        assert a.reading
        assert "nan" not in a.reading
        assert a.grade in a.grades
    assert verdict.sentence.endswith(f"show {verdict.instead} instead.")
    assert verdict.instead in FEW
    assert "layer 2" in verdict.sentence
    assert "these 12 texts" in verdict.sentence
    assert {s.part: s.texts for s in verdict.sample} == {p.name: 12 for p in PARTS}


def test_the_numbers_are_those_of_the_audits_and_of_bench(verdict: Verdict, demo: pellucid.Model) -> None:
    """The verdict measures nothing of its own."""
    alone = pellucid.audit(demo, SOME, "identifiability").named("unique_given_head_output")
    assert verdict.answer("unique").deciding[0].value == pytest.approx(alone.value)
    table = pellucid.compare(demo, SOME, FEW, ["aopc"], "mask")
    found = {f.where: f.value for f in verdict.findings["comparison"] if f.name == "aopc"}
    assert found == pytest.approx({m: c.mean for m, c in table.cells["aopc:mask"].items()}, abs=1e-6)
    best = max(("decompx", "gradient_x_input"), key=lambda m: found[m] or 0.0)
    behind = verdict.findings["comparison"].named("attention_behind").value
    assert behind == pytest.approx(found[best] - found["attention"], abs=1e-6)


def test_texts_to_look_at(verdict: Verdict) -> None:
    assert len(verdict.cases) == 12
    assert [c.index for c in verdict.cases] == sorted(c.index for c in verdict.cases)
    for case in verdict.cases:
        assert case.first.method == verdict.instead
        assert set(case.attributions) == set(FEW)
        assert case.gold == GOLD[case.index]
        assert case.wrong is (case.first.prediction != case.gold)
        assert case.first.text == SOME[case.index]
        assert case.attention is not None
        assert case.attention.layer == 1
        assert case.calibrated is None, "seven errors are too few to fit a temperature to"


def test_tables_count_texts_as_they_were_given(demo: pellucid.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that looks at some of the texts says which."""
    only(monkeypatch, "erasure")
    plan = whole.planned
    monkeypatch.setattr(whole, "planned", lambda *given: [replace(p, texts=12) for p in plan(*given)])
    found = audit_all(demo, TEXTS, None)
    assert next(s for s in found.sample if s.part == "erasure").texts == 12
    words: dict[int, str] = {}
    for unit in found.findings["erasure"].tables["units"]:
        words[unit["text"]] = words.get(unit["text"], "") + unit["word"]
    assert len(words) == 12
    assert max(words) > 11, "not the first ones"
    for i, mine in words.items():
        assert mine.lower() == "".join(TEXTS[i].lower().split())


def test_the_same_call_gives_the_same_bytes(
    demo: pellucid.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times are kept apart, in run.json."""
    only(monkeypatch, "comparison", "identifiability", "calibration", "texts")
    for name in ("a", "b"):
        found = audit_all(demo, SOME, None, GOLD, methods=("decompx", "attention"))
        paths = found.save(tmp_path / name, ["pellucid", "audit"])
    assert [p.name for p in paths][-4:] == ["findings.parquet", "report.html", "verdict.svg", "verdict.json"]
    for path in paths[-4:]:
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()
    assert "seconds" not in (tmp_path / "a" / "verdict.json").read_text()


def test_files(verdict: Verdict, tmp_path: Path) -> None:
    paths = verdict.save(tmp_path)
    assert all(p.is_file() for p in paths)
    record = json.loads((tmp_path / "verdict.json").read_text())
    assert record["sentence"] == verdict.sentence
    assert record["grades"] == verdict.grades == {q.key: verdict.grades[q.key] for q in QUESTIONS}
    assert len(record["findings"]) == sum(map(len, verdict.findings.values()))
    assert record["limits"]
    table = pq.read_table(tmp_path / "findings.parquet").to_pylist()
    assert len(table) == len(record["findings"])
    assert {r["decides"] for r in table} == {"", *verdict.grades}
    page = (tmp_path / "report.html").read_text()
    assert verdict.sentence in page.replace("&#x27;", "'")
    assert len(page) < 400_000


# A call that is stopped goes on where it was


def test_what_is_done_is_taken_over(
    fast: None, demo: pellucid.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = whole.audit, list[str]()

    def stops(model: Any, batch: Any, one: Any, **more: Any) -> Findings:
        calls.append(one.name)
        if one.name == "identifiability" and calls.count("identifiability") == 1:
            raise KeyboardInterrupt
        return real(model, batch, one, **more)

    monkeypatch.setattr(whole, "audit", stops)
    ask: dict[str, Any] = {"methods": ("decompx", "attention"), "out": tmp_path, "labels": GOLD}
    with pytest.raises(KeyboardInterrupt):
        audit_all(demo, SOME, None, **ask)
    told: list[str] = []
    found = audit_all(demo, SOME, None, **ask, resume=True, say=told.append)
    assert calls.count("erasure") == 1
    assert told[0] == f"Took erasure over from {tmp_path / 'erasure.json'}."
    assert told[1].startswith("Took the rows of the comparison over")
    assert len(told) == 2
    fresh = audit_all(demo, SOME, None, GOLD, methods=("decompx", "attention"))
    assert found.to_dict() == fresh.to_dict()
    assert found.to_html() == fresh.to_html(), "the pictures and tables of what was taken over are there"
    told.clear()
    audit_all(demo, SOME[:11], None, methods=("decompx", "attention"), out=tmp_path, resume=True, say=told.append)
    assert any("made with other texts, so erasure is measured again" in line for line in told)
    (tmp_path / "comparison" / "results.parquet").write_bytes(b"x")
    (tmp_path / "erasure_texts.parquet").unlink()
    told.clear()
    audit_all(demo, SOME[:11], None, methods=("decompx", "attention"), out=tmp_path, resume=True, say=told.append)
    assert any("So the comparison is made again" in line for line in told), "a broken file stops nothing"
    assert any("Tables of erasure are missing" in line for line in told)
    with pytest.raises(InputError, match="give out=FOLDER"):
        audit_all(demo, SOME, resume=True)


def test_files_of_an_earlier_call_do_not_stay(
    demo: pellucid.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A calibration beside a verdict that was given no labels would be read as its own."""
    only(monkeypatch, "calibration", "words")
    audit_all(demo, SOME, None, GOLD).save(tmp_path)
    (tmp_path / "mine.txt").write_text("not ours")
    assert (tmp_path / "calibration_predictions.parquet").exists()
    audit_all(demo, SOME, None).save(tmp_path)
    assert not list(tmp_path.glob("calibration*"))
    assert (tmp_path / "words.json").exists()
    assert (tmp_path / "mine.txt").exists()


# What cannot be measured is told


def test_too_few_texts(fast: None, demo: pellucid.Model) -> None:
    found = audit_all(demo, TEXTS[:3], None, methods=("decompx", "attention"))
    assert found.grade == "UNDECIDED"
    assert found.sentence.endswith(": at least 10 texts are needed.")
    assert found.instead == ""
    assert {found.grades[q] for q in ("unique", "drives", "method")} == {TOO_FEW}
    assert found.answer("drives").change == "At least 10 texts."
    one = audit_all(demo, TEXTS[0], None, methods=("decompx", "attention"))
    assert "this one text" in one.sentence
    assert one.to_html()


def test_without_time_nothing_breaks(demo: pellucid.Model) -> None:
    """A budget that nothing fits in: all is told, nothing is invented."""
    found = audit_all(demo, SOME, 0.01, methods=FEW)
    assert found.grade == "UNDECIDED"
    assert set(found.grades.values()) == {NOT_MEASURED}
    assert all(s.texts == 0 and s.why for s in found.sample)
    assert found.to_html()


def test_a_part_that_overruns_is_cut_short_and_says_so(
    fast: None, demo: pellucid.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps: the audit in hand is begun again with fewer texts, or left out; the rest is still done."""
    real, jumped = whole.time.perf_counter, [0.0]
    monkeypatch.setattr(whole.time, "perf_counter", lambda: real() + jumped[0])
    audit = whole.audit

    def slow(model: Any, batch: Any, one: Any, progress: Any, **more: Any) -> Findings:
        def tick(done: int, total: int) -> None:
            jumped[0] += 4.0 if one.name == "erasure" else 0.0
            progress(done, total)

        return audit(model, batch, one, progress=tick, **more)

    monkeypatch.setattr(whole, "audit", slow)
    found = audit_all(demo, TEXTS, 120.0, methods=("decompx", "attention"))
    cut = next(s for s in found.sample if s.part == "erasure")
    assert cut.texts < 20
    assert "slower than planned" in cut.why or "Too few texts" in cut.why
    assert found.findings["comparison"].named("aopc", "decompx").n >= 10


@pytest.fixture(scope="module")
def other_models() -> dict[str, pellucid.Model]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(pellucid.DEMO))
    size = {"vocab_size": len(tokenizer), "num_labels": 2, "max_position_embeddings": 128}
    made = {
        "bert": tiny.build("bert", torch.float32, **size),
        "regression": tiny.build("bert", torch.float32, **size | {"num_labels": 1}),
        "mean": tiny.build("modernbert_mean", torch.float32, **size),
        "one_logit": tiny.build(
            "bert", torch.float32, **size | {"num_labels": 1, "problem_type": "multi_label_classification"}
        ),
    }
    opened = {name: pellucid.load(hf, tokenizer) for name, hf in made.items()}
    bare = AutoTokenizer.from_pretrained(str(pellucid.DEMO))
    bare.mask_token = None
    return opened | {"no_mask": pellucid.load(made["bert"], bare)}


def test_models_that_show_less(fast: None, other_models: dict[str, pellucid.Model]) -> None:
    """Without access to attention its questions are not answered, and the reason is given; methods are compared."""
    bert = other_models["bert"]
    less = pellucid.Model(**{**vars(bert), "net": None, "access": Access.GRADIENTS, "lost": "It is unknown."})
    found = audit_all(less, SOME, None)
    assert {found.grades[q] for q in ("unique", "drives", "points", "stands")} == {NO_ACCESS}
    assert found.sentence.startswith("This model does not show its attention")
    assert found.about["place"] == "not visible"
    assert "needs READOUT access" in found.answer("drives").reading
    assert "gives GRADIENTS. It is unknown." in found.answer("drives").reading
    assert "comparison" in found.findings
    assert found.to_html()


def test_a_regression(fast: None, other_models: dict[str, pellucid.Model]) -> None:
    found = audit_all(other_models["regression"], SOME, None, [float(i) for i in range(12)])
    assert found.grades["method"] == NOT_MEASURED
    assert "regression" in found.answer("drives").reading
    assert found.grades["unique"] != NOT_MEASURED
    assert all(c.gold is None for c in found.cases)
    assert found.to_html()


def test_a_head_of_one_logit(fast: None, other_models: dict[str, pellucid.Model]) -> None:
    """Its one label is the prediction, whatever the truth: nothing is called wrong or right by names."""
    found = audit_all(other_models["one_logit"], SOME, None, [0, 1] * 6, methods=("decompx", "attention"))
    assert found.grades["drives"] not in (NOT_MEASURED, TOO_FEW)
    assert all(c.gold is None for c in found.cases)
    assert found.to_html()


def test_without_a_mask_token(fast: None, other_models: dict[str, pellucid.Model]) -> None:
    """Tokens are deleted, and methods that need the token are stood in for."""
    found = audit_all(other_models["no_mask"], SOME, None)
    names = {f.where for f in found.findings["comparison"] if f.name == "aopc"}
    assert "leave_one_out_delete" in names
    assert not names & {"leave_one_out", "deeplift_mask"}
    assert "AOPC (delete)" in found.findings["comparison"][0].limits[0]


def test_pairs_mean_pooling_and_duplicates(fast: None, other_models: dict[str, pellucid.Model]) -> None:
    pairs = [(a, b) for a, b in zip(SOME, SOME[::-1], strict=True)] + [(SOME[0], SOME[-1])]
    found = audit_all(other_models["mean"], pairs, None, methods=("decompx", "attention"))
    assert "mean" in found.about["place"]
    assert any("13 texts were given, of which 12 are unlike" in limit for limit in found.limits)
    assert found.to_html()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"budget": "soon"}, "is a time such as"),
        ({"labels": ["positive"]}, "labels"),
        ({"labels": ["good"] * 12}, "Text 1 has the label 'good'"),
        ({"labels": [None, *GOLD[1:]]}, "Text 1 has the label None"),
        ({"budget": -1}, "seen -1"),
        ({"methods": ["attention"]}, "at least one beside attention"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"methods": ["decomp"]}, "Did you mean 'decompx'"),
    ],
)
def test_refusals(ask: dict[str, Any], message: str, demo: pellucid.Model) -> None:
    with pytest.raises(InputError, match=message):
        audit_all(demo, SOME, **ask)


def test_the_model_is_left_as_it_was(other_models: dict[str, pellucid.Model], monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "comparison", "identifiability", "words", "texts")
    model = other_models["bert"]
    before = {k: v.clone() for k, v in model.hf.state_dict().items()}
    grads = [p.requires_grad for p in model.hf.parameters()]
    audit_all(model, SOME, None, methods=("decompx", "attention"))
    assert all(torch.equal(before[k], v) for k, v in model.hf.state_dict().items())
    assert grads == [p.requires_grad for p in model.hf.parameters()]
    assert all(p.grad is None for p in model.hf.parameters())
    assert not model.hf.training


# The command


def test_the_command(fast: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f'"{t}",{g}' for t, g in zip(SOME, GOLD, strict=True))
    Path("reviews.csv").write_text(f"review,label\n{rows}\n")
    ask = ["audit", "-m", str(pellucid.DEMO), "-i", "reviews.csv", "--text-column", "review", "--budget", "2m"]
    assert cli.status([*ask, "--label-column", "label", "--out", "found", "--fail-on", "NO LEVERAGE"]) == 0
    done = capsys.readouterr()
    assert "NOT AN EXPLANATION" in done.out
    assert "Wrote found" in done.err
    record = json.loads(Path("found/verdict.json").read_text())
    assert set(record) >= {"sentence", "grades", "findings", "limits"}
    run = json.loads(Path("found/run.json").read_text())
    assert run["seed"] == 0
    assert set(run["parts"]) == set(FAST)
    assert run["versions"]["pellucid"] == pellucid.__version__
    assert cli.status([*ask, "--format", "json", "--fail-on", "NOISY"]) == 1
    done = capsys.readouterr()
    assert json.loads(done.out)["grades"]["drives"] == record["grades"]["drives"]
    assert "failed on 'NOISY'" in done.err


def test_two_models_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "erasure", "texts")
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("\n".join(SOME))
    both = ["audit", "-m", str(pellucid.DEMO), "-m", str(pellucid.DEMO), "-i", "texts.txt", "--out", "found"]
    assert cli.status(both) == 0
    made = {str(p.relative_to("found")) for p in Path("found").rglob("*") if p.name in ("verdict.json", "report.html")}
    folders = ("", "model-1/", "model-2/")
    assert made == {f"{f}{name}" for f in folders for name in ("verdict.json", "report.html")}
    record = json.loads(Path("found/verdict.json").read_text())
    assert len(record["models"]) == 2
    assert all(a == b for a, b in record["grades"].values()), "the same model twice"
    assert capsys.readouterr().out.count("Does attention drive the decision?") >= 2
