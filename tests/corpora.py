"""Labelled texts in which a planted word tells the class, as files."""

import csv
import json
import random
from pathlib import Path

FILLERS = ("the", "a", "film", "plot", "scene", "it", "was", "and", "of", "music", "story", "actor", "ending", "quite")


def planted(n: int, seed: int = 0) -> list[dict[str, str]]:
    """n rows, one in three "good"."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        words = rng.choices(FILLERS, k=rng.randint(3, 12))
        label = "good" if i % 3 == 0 else "bad"
        words.insert(rng.randrange(len(words)), label)
        rows.append({"text": " ".join(words) + ".", "label": label})
    return rows


def write(path: Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> Path:
    """Rows as .csv, .jsonl or .parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as f:
            writer = csv.DictWriter(f, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path
