"""The architecture's rules that a program can check: floors, who may import transformers, sizes, names.

From the design (architecture, section 2): a file imports only from its own floor or a lower one.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pellucid

SRC = Path(pellucid.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
FLOORS = {
    "types": 0, "attribution": 0, "render": 0, "errors": 0, "registry": 0, "settings": 0, "stats": 0, "records": 0,
    "finding": 0, "_version": 0,
    "encoder": 1, "families": 1,
    "methods": 2, "audits": 2, "metrics": 2, "zoo": 2,
    "data": 3, "train": 3, "study": 3, "bench": 3, "run": 3,
    "verdict": 4, "report": 4,
    "app": 5, "cli": 5, "inputs": 5, "outputs": 5, "__main__": 5,
    "demo": 5,
}  # fmt: skip
"""First part of a module's name below `pellucid` -> floor. A new entry needs a decision record in docs/decisions."""

TRANSFORMERS = ("encoder.load", "zoo", "train")
"""Only these import transformers as they like."""
LAZILY = {
    "run.origin": "its version is part of every attribution's origin",
    "bench.planted_models": "a BERT whose weights are set by hand is a Hugging Face model, for load to open",
}
"""These may import it inside a function, for the reason given."""

LONGER: dict[str, str] = {}
"""Modules over 400 lines, with the reason."""
NO_HOME = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "shared"}


def module(path: Path) -> str:
    """src/pellucid/encoder/load.py -> encoder.load; the package itself is ""."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(p): p for p in FILES}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module of a file, also inside functions and for types only, and whether at the top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the module in full"
            assert node.module is not None
            for alias in node.names:  # `from pellucid import errors` imports a module, or a name of one
                whole = f"{node.module}.{alias.name}"
                known = whole.removeprefix("pellucid.") in MODULES
                yield (whole if known else node.module), id(node) in top


def floor(name: str) -> int:
    first = name.split(".")[0]
    assert first in FLOORS, f"pellucid.{name} has no floor; see docs/decisions before adding one"
    return FLOORS[first]


@pytest.mark.parametrize("name", [m for m in MODULES if m])
def test_a_file_imports_from_its_floor_or_lower(name: str) -> None:
    """So one can read the house from the ground up. The package itself stands above all floors."""
    for imported, _ in imports(MODULES[name]):
        if imported == "pellucid":
            assert floor(name) == 5, f"{name} imports the package itself"
        elif imported.startswith("pellucid."):
            below = imported.removeprefix("pellucid.")
            assert floor(below) <= floor(name), f"floor {floor(name)}: {name} imports {below} from floor {floor(below)}"


@pytest.mark.parametrize("name", MODULES)
def test_who_imports_transformers(name: str) -> None:
    """Its code changes at every release; what depends on it stays in few files."""
    if name.startswith(TRANSFORMERS):
        return
    for imported, top in imports(MODULES[name]):
        if imported.split(".")[0] == "transformers":
            assert name in LAZILY, f"{name} imports {imported}"
            assert not top, f"{name} may import {imported} only inside a function: {LAZILY[name]}"


@pytest.mark.parametrize("name", MODULES)
def test_files_are_short(name: str) -> None:
    """Up to 400 lines."""
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= 400 or name in LONGER, f"{name} has {lines} lines"


def test_every_exception_is_still_one() -> None:
    """An exception that is no longer needed is taken off the list."""
    assert all(len(MODULES[name].read_text(encoding="utf-8").splitlines()) > 400 for name in LONGER)
    for name in LAZILY:
        assert any(i.split(".")[0] == "transformers" for i, _ in imports(MODULES[name])), f"{name} no longer needs it"


def test_no_file_is_a_drawer() -> None:
    """A name says what a file is about."""
    assert not [m for m in MODULES if m.split(".")[-1] in NO_HOME]


def test_functions_are_short() -> None:
    """Up to about 40 lines, docstring apart."""
    long = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1
                if lines > 45:
                    long.append(f"{name}.{node.name}: {lines}")
    assert not long
