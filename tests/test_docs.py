"""What the documentation shows is run: its Python, its commands, its doctests, its links, its examples."""

import contextlib
import doctest
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pellucid
from pellucid import cli, study
from pellucid.train import read_config

ROOT = Path(__file__).resolve().parents[1]
SRC = Path(pellucid.__file__).parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
sys.path.insert(0, str(ROOT / "docs"))
generate = import_module("generate")
sessions = import_module("sessions")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    return [body for language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language.strip() in languages]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder but for the files that the pages speak of: reviews.csv, labelled.csv, the folder my-model."""
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").write_text("review,label\nA warm and funny film.,positive\nDull from start to end.,negative\n")
    words = ("warm", "funny", "moving", "clever", "dull", "loud", "flat", "silly")
    rows = [
        f"A {a} and {b} film.,{'positive' if i < 4 else 'negative'}" for i, a in enumerate(words) for b in words[:4]
    ]
    Path("labelled.csv").write_text("\n".join(["text,label", *rows, ""]))
    shutil.copytree(pellucid.DEMO, "my-model")
    for variable in [*cli._QUIET, "HF_HUB_OFFLINE"]:  # what the command line sets is undone
        monkeypatch.setenv(variable, os.environ.get(variable, "1" if "VERBOSITY" not in variable else "error"))


@pytest.mark.parametrize("page", [p for p in PAGES if p.is_file() and blocks(p, "python", "pycon")], ids=name)
def test_python_of_a_page(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks of a page in one namespace, from top to bottom; sessions give what they show."""
    space: dict[str, object] = {"__name__": "__main__"}
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(code, name(page), "exec"), space)
        elif language == "pycon":
            test = doctest.DocTestParser().get_doctest(code, {}, name(page), name(page), 0)
            test.globs = space  # not a copy: later blocks go on with what this one leaves
            runner = doctest.DocTestRunner(sessions.Checker(), optionflags=doctest.ELLIPSIS)
            assert runner.run(test, clear_globs=False).failed == 0, capsys.readouterr().out


COMMANDS = [
    pytest.param(lines, id=f"{name(page)}: {lines[0][:40]}")
    for page in PAGES
    if page.is_file()
    for block in blocks(page, "sh", "bash", "console", "shell")
    if (lines := [x for x in block.replace("\\\n", " ").splitlines() if x.startswith("pellucid ")])
]


@pytest.mark.parametrize("lines", COMMANDS)
def test_commands_of_a_page(lines: list[str]) -> None:
    """Every `pellucid ...` line of a block, one after the other, ends with status 0."""
    for line in lines:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.status(shlex.split(line, comments=True)[1:])
        assert code == 0, err.getvalue()
        wanted = re.search(r"--out (\S+)", line)
        assert wanted is None or Path(wanted.group(1)).exists()


TOML = [(name(page), block) for page in PAGES if page.is_file() for block in blocks(page, "toml")]


@pytest.mark.parametrize("block", [b for _, b in TOML], ids=[n for n, _ in TOML])
def test_settings_of_a_page(block: str) -> None:
    """Runs and studies that a page shows are ones."""
    Path("shown.toml").write_text(block)
    shown = study.read_study("shown.toml") if "[[models]]" in block else read_config("shown.toml")
    assert shown


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "studies").glob("*.toml")), ids=name)
def test_studies_can_be_read(file: Path) -> None:
    assert len(study.read_study(file).cells) > 5


def test_make_targets_exist() -> None:
    """Every `make x` of a page is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        if page.is_file():
            asked = re.findall(r"\bmake ([a-z-]+)\b", "\n".join(blocks(page, "sh", "bash", "console", "shell")))
            assert set(asked) <= targets, name(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_of_a_page(page: Path) -> None:
    """Files that a page points at are there, and no placeholder is left in it."""
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(FENCE.sub("", text)):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), f"{name(page)} points at {target}"
    assert not re.findall(r"^[A-Z]+_[A-Z_]+$|TODO|FIXME|XXX", text, re.MULTILINE)


def _modules_with_doctests() -> list[str]:
    files = [p for p in SRC.rglob("*.py") if ">>>" in p.read_text(encoding="utf-8")]
    return [".".join(p.relative_to(SRC.parent).with_suffix("").parts).removesuffix(".__init__") for p in sorted(files)]


@pytest.mark.parametrize("module", _modules_with_doctests())
def test_doctests(module: str) -> None:
    """Examples in docstrings give what they say."""
    found = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """examples/explain_your_model.py runs on the demo model and writes what it says."""
    monkeypatch.setattr("sys.argv", ["explain_your_model.py"])
    runpy.run_path(str(ROOT / "examples" / "explain_your_model.py"), run_name="__main__")
    assert len(pellucid.read_records("explained.parquet")) == 3
    assert "gap of absdot" in capsys.readouterr().out


def test_every_example_compiles() -> None:
    """The others take too long to be run here."""
    for path in (ROOT / "examples").glob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_public_names_are_documented() -> None:
    """Every public class and function has a docstring of its own."""
    for public in pellucid.__all__:
        thing = getattr(pellucid, public)
        assert not callable(thing) or (thing.__doc__ or "").strip(), f"pellucid.{public} has no docstring"


# The site


def test_generated_pages_are_those_of_the_registries() -> None:
    """`make docs` makes them; a method, audit, metric or family that changed is told as it is."""
    assert not generate.stale(), "stale: run `make docs`, or python docs/generate.py"


def test_every_page_is_in_the_menu() -> None:
    """Once, but for pages that come with a picture or a study's file."""
    listed = re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    there = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(there)


def test_last_digits_may_differ_and_nothing_else() -> None:
    assert sessions.nearly("not +2.733  -0.36", "not  +2.732 -0.35")
    assert sessions.nearly("gap 7e-09", "gap 3e-08")
    assert not sessions.nearly("not +2.733", "not +2.703")
    assert not sessions.nearly("n = 20 of 1.00", "n = 21 of 1.00")
    assert not sessions.nearly("HIGH: 1.0", "LOW: 1.0")


def test_what_asks_another_host_is_found(tmp_path: Path) -> None:
    """What a browser would load by itself, not what one may click."""
    page = '<link rel="canonical" href="https://a.b/"><a href="https://a.b/">x</a><script src="x.js"></script>'
    (tmp_path / "fine.html").write_text(page)
    assert generate.outside(tmp_path) == []
    (tmp_path / "font.html").write_text('<link rel="stylesheet" href="https://fonts.x/css"><img src="//b.c/d.png">')
    (tmp_path / "style.css").write_text("@font-face { src: url(https://fonts.x/f.woff2) }")
    assert [line.partition(":")[0] for line in generate.outside(tmp_path)] == ["font.html", "font.html", "style.css"]


def _built(builder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The site as `builder` makes it, strictly, from a copy."""
    for part in ("docs", "src"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    calls = {"mkdocs": ["-m", "mkdocs", "build", "-q", "--strict"], "zensical": ["-m", "zensical", "build", "--strict"]}
    done = subprocess.run(
        [sys.executable, *calls[builder]], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "site"


@pytest.mark.parametrize("builder", ["mkdocs", "zensical"])
def test_the_site(builder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both builders make it without a warning, and no page of it asks another host."""
    pytest.importorskip("mkdocs" if builder == "mkdocs" else "zensical", reason="needs pip install 'pellucid[docs]'")
    pytest.importorskip("mkdocstrings", reason="needs pip install 'pellucid[docs]'")
    site = _built(builder, tmp_path, monkeypatch)
    assert generate.outside(site) == []
    methods = {p.stem for p in (site / "methods").glob("*.html")} - {"index"}
    assert methods == set(pellucid.METHODS.names())
    assert {p.stem for p in (site / "audits").glob("*.html")} - {"index"} == set(pellucid.AUDITS.names())
    assert "decompx" in (site / "reference" / "methods.html").read_text(encoding="utf-8")
