"""`python -m benchmarks --out DIR [--only NAME] [--quick] [--device cuda] [--threads N]`."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import torch
import transformers
import typer
from rich.console import Console
from rich.table import Table

import pellucid
from benchmarks import batching, bfloat16, carried_vectors, erasure, identifiability, mixing, one_backward
from pellucid.records import dumps, write_whole

ALL = {
    m.__name__.split(".")[-1]: m
    for m in (one_backward, batching, bfloat16, carried_vectors, identifiability, mixing, erasure)
}


def main(
    out: Annotated[Path, typer.Option(help="Folder for one JSON file per benchmark.")] = Path("bench-out"),
    only: Annotated[str, typer.Option(help=f"One of {', '.join(ALL)}.")] = "",
    quick: Annotated[bool, typer.Option(help="Few sizes and repeats: minutes become seconds.")] = False,
    device: str = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of torch; 0 keeps its default.")] = 0,
) -> None:
    """Run the benchmarks, print ratios, write JSON."""
    if threads:
        torch.set_num_threads(threads)
    console = Console(width=160)
    for name in [only] if only else list(ALL):
        rows = ALL[name].run(quick, device)
        table = Table("shape", "n", "what", "ratio", "low", "high", "seconds", "peak MB", "tensors", "against")
        for r in rows:
            cells = [r.get("shape"), r.get("n"), r["what"]]
            cells += [f"{r[k]:.2f}" if k in r else "" for k in ("ratio", "low", "high", "seconds")]
            cells += [f"{r[k]:.1f}" if k in r else "" for k in ("peak_mb", "peak_tensors")]
            table.add_row(*[str(c) for c in cells], r["against"])
        console.print(f"[bold]{name}[/bold] ({torch.get_num_threads()} threads, {device})", table)
        document = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "pellucid": pellucid.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
            "device": device,
            "rows": rows,
        }
        write_whole(out / f"{name}.json", (json.dumps(json.loads(dumps(document)), indent=1) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
