"""Make the pages that the registries can tell: one per method and audit, their lists, the metrics and the families.

    python docs/generate.py            # write what has changed; examples are run on the bundled demo model
    python docs/generate.py --check    # only say what is stale, without running an example; status 1 if anything is
    python docs/generate.py --site D   # say which pages of a built site ask another host; status 1 if any does

The pages are committed. A test compares them with the registries, and runs every example again.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pellucid

sys.path.insert(0, str(Path(__file__).parent))
import pages as told  # beside this file, like sessions
from sessions import Session, nearly, of_audit, of_method, played, questions, silent

DOCS = Path(__file__).parent
NAV = re.compile(r"(?P<before>^ *# generated: (?P<kind>\w+)\n)(?P<lines>.*?)(?P<after>^ *# end\n)", re.M | re.S)

Player = Callable[[Sequence[str]], Session]


def pages(play: Player) -> dict[Path, str]:
    """Every generated page; `play` runs an example, or leaves its output out."""
    seen = told.measured((DOCS / "studies" / "comparison.md").read_text(encoding="utf-8"))
    made = {
        DOCS / "methods" / "index.md": told.methods_index(list(pellucid.METHODS)),
        DOCS / "audits" / "index.md": told.audits_index(list(pellucid.AUDITS)),
        DOCS / "reference" / "methods.md": told.methods_reference(pellucid.METHODS),
        DOCS / "reference" / "metrics.md": told.metrics_page(),
        DOCS / "reference" / "families.md": told.families_page(pellucid.FAMILIES),
    }
    for m in pellucid.METHODS:
        made[DOCS / "methods" / f"{m.name}.md"] = told.method_page(m, seen.get(m.name, ""), play(of_method(m)))
    for a in pellucid.AUDITS:
        made[DOCS / "audits" / f"{a.name}.md"] = told.audit_page(a, play(of_audit(a)))
    return made


def nav(config: str) -> str:
    """mkdocs.yml with the lists of methods, audits and decision records brought up to date."""
    entries: Mapping[str, list[str]] = {
        "methods": [f"{n}: methods/{n}.md" for n in pellucid.METHODS.names()],
        "audits": [f"{n}: audits/{n}.md" for n in pellucid.AUDITS.names()],
        "decisions": [f"decisions/{p.name}" for p in sorted((DOCS / "decisions").glob("*.md"))],
    }

    def lines(found: re.Match[str]) -> str:
        space = re.match(" *", found["before"])
        indent = space[0] if space else ""
        return found["before"] + "".join(f"{indent}- {e}\n" for e in entries[found["kind"]]) + found["after"]

    return NAV.sub(lines, config)


def stale() -> list[str]:
    """What does not agree with the registries, the output of examples apart, which the tests run."""
    config = DOCS.parent / "mkdocs.yml"
    found = ["mkdocs.yml"] if nav(config.read_text(encoding="utf-8")) != config.read_text(encoding="utf-8") else []
    made = pages(silent)
    for page, text in made.items():
        there = page.read_text(encoding="utf-8") if page.is_file() else ""
        if questions(there) != questions(text):
            found.append(str(page.relative_to(DOCS.parent)))
    for folder in ("methods", "audits"):
        found += [f"docs/{folder}/{p.name} (of nothing)" for p in (DOCS / folder).glob("*.md") if p not in made]
    return found + [f"no picture of {n}" for n in pellucid.METHODS.names() if not _picture(n).is_file()]


def _picture(name: str) -> Path:
    return DOCS / "methods" / "pictures" / f"{name}.svg"


def write() -> None:
    """Write every page that differs by more than the last digits of its examples, and the pictures that are missing."""
    config = DOCS.parent / "mkdocs.yml"
    config.write_text(nav(config.read_text(encoding="utf-8")), encoding="utf-8")
    for page, text in pages(played).items():
        if not page.is_file() or not nearly(page.read_text(encoding="utf-8"), text):
            page.parent.mkdir(exist_ok=True)
            page.write_text(text, encoding="utf-8")
            print(page.relative_to(DOCS.parent))
            if page.parent.name == "methods" and page.stem in pellucid.METHODS:
                _picture(page.stem).unlink(missing_ok=True)
    for method in pellucid.METHODS:
        if not _picture(method.name).is_file():
            _picture(method.name).parent.mkdir(exist_ok=True)
            space: dict[str, object] = {}
            with_output = played([line for line in of_method(method) if not line.startswith("for ")], space)
            a = space["a"]
            assert with_output.text
            assert isinstance(a, pellucid.Attribution)
            a.to_svg(_picture(method.name))


class Asked(HTMLParser):
    """The addresses that a page makes a browser load: scripts, styles, fonts, pictures; not links to click."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        loads = tag == "link" and not set(given.get("rel", "").split()) & {
            "canonical",
            "next",
            "prev",
            "edit",
            "author",
        }
        self.found += [given.get("src", ""), given.get("srcset", ""), given.get("href", "") if loads else ""]


def outside(site: Path) -> list[str]:
    """Pages and styles of a built site that ask another host, each with the address."""
    found = []
    for page in sorted(site.rglob("*.html")):
        asked = Asked()
        asked.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(site)}: {a}" for a in asked.found if re.match(r"(https?:)?//", a)]
    for style in sorted(site.rglob("*.css")):
        asks = re.findall(r"(?:url\(|@import )\s*[\"']?((?:https?:)?//[^\"')]+)", style.read_text(encoding="utf-8"))
        found += [f"{style.relative_to(site)}: {a}" for a in asks]
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--site"]:
        wrong = outside(Path(sys.argv[2]))
    elif sys.argv[1:] == ["--check"]:
        wrong = stale()
    else:
        write()
        wrong = stale()
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))
