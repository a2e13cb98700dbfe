"""`pellucid demo`: the bundled model and sentences, explained and judged, without a network."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.explain import explained
from pellucid.cli.given import demo_folder, opened, say
from pellucid.outputs import check_place, print_table, print_texts, run_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pellucid.attribution import Attribution
    from pellucid.verdict import Verdict

SHOWN = (4, 5, 7)  # the sentences that are printed: two that differ in one word, and a negation


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")] = Path(
        "pellucid-demo"
    ),
) -> None:
    """Explain 20 sentences offline, and tell whether the model's attention may be shown as their explanation.

    The model is the bundled one, a small judge of film-review sentences. Writes a page of explanations, and a report.
    """
    start = time.perf_counter()
    check_place(out / "demo.html")
    from pellucid.inputs import Columns, from_file
    from pellucid.methods import METHODS
    from pellucid.records import write_whole
    from pellucid.render import html_page
    from pellucid.verdict import audit_all

    items = from_file(str(demo_folder() / "sentences.txt"), Columns(), None, say)
    labels = (demo_folder() / "labels.txt").read_text(encoding="utf-8").split()
    model = opened(None, None)
    found = explained(model, items, METHODS.get("decompx"), None, "refuse", None)
    lead = f"{len(found)} sentences, explained with decompx on the bundled demo model."
    write_whole(out / "demo.html", html_page(found, title="Pellucid demo", lead=lead).encode())
    shown = [i for i in SHOWN if i < len(found)]
    print_texts([f"Sentence {i + 1} of {len(found)}" for i in shown], [found[i] for i in shown])
    print("\nMay the attention be shown as the explanation?", flush=True)
    texts = [item.text for item in items]
    verdict = audit_all(model, texts, None, labels, progress=True)
    verdict.save(out, ["pellucid", "demo"])
    seconds = time.perf_counter() - start
    write_whole(out / "run.json", run_record(model, items, seconds, 0, _spent(found, verdict)).encode())
    print(f"{verdict.grade}: {verdict.sentence}\n")
    print_table(("question", "grade"), [(a.asked, a.grade) for a in verdict.answers])
    print(
        f"\nWrote {out / 'report.html'} (the verdict, its evidence, the sentences), {out / 'demo.html'} (explanations "
        f"alone)\nand {out / 'run.json'} in {seconds:.1f} s.\n"
        f"Next: open {out / 'report.html'} in a browser, or try\n"
        '  pellucid explain "The plot is thin, but the acting is superb."\n'
        "  pellucid audit --model FOLDER_OR_HUB_NAME --input reviews.csv --out findings\n"
        "  pellucid serve"
    )


def _spent(found: "Sequence[Attribution]", verdict: "Verdict") -> dict[str, Any]:
    """What run.json tells of the work: the method and its passes, and the parts of the verdict."""
    return {
        "method": {"name": found[0].method, "params": dict(found[0].params)},
        "forwards": sum(a.origin["forwards"] for a in found),
        "backwards": sum(a.origin["backwards"] for a in found),
        "grade": verdict.grade,
        "parts": {name: round(took, 3) for name, took in verdict.spent["parts"].items()},
    }
