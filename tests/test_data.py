"""Labelled texts: what is read is what was written, splits keep their classes, and what is unfit is refused."""

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import corpora
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data import read, spread
from pellucid.errors import InputError, MissingExtra

Rows = list[dict[str, Any]]


def labelled(*pairs: tuple[str, object]) -> Rows:
    return [{"text": text, "label": label} for text, label in pairs]


TWO = labelled(*[(f"text {i}", i % 2) for i in range(20)])


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_file_is_read_as_it_was_written(ending: str, tmp_path: Path) -> None:
    rows = corpora.planted(30)
    rows[3]["text"] = 'with, "quotes"\nand a break: é'
    corpus = read(corpora.write(tmp_path / f"all{ending}", rows))
    assert corpus.labels == ("bad", "good")
    seen = [(t, corpus.labels[c]) for s in (corpus.train, corpus.dev) for t, c in zip(s.texts, s.classes, strict=True)]
    assert Counter(seen) == Counter((row["text"], row["label"]) for row in rows)
    assert len(corpus.dev) == 3
    assert len(corpus.test) == 0


def test_the_hash_is_of_the_content_not_of_the_file(tmp_path: Path) -> None:
    rows = corpora.planted(30)
    a, b = (read(corpora.write(tmp_path / name, rows)) for name in ("a.csv", "b.parquet"))
    assert a.sha256 == b.sha256
    rows[7]["text"] += " more"
    assert read(corpora.write(tmp_path / "c.csv", rows)).sha256 != a.sha256


def test_every_cell_of_a_csv_is_a_text(tmp_path: Path) -> None:
    rows = labelled(*[(str(i), "ab"[i % 2]) for i in range(20)])
    assert set(read(corpora.write(tmp_path / "n.csv", rows)).train.texts) <= {str(i) for i in range(20)}


@pytest.mark.parametrize("name", ["dev", "validation", "valid", "val"])
def test_a_folder_s_files_are_its_splits(name: str, tmp_path: Path) -> None:
    parts = {"train": TWO, name: TWO[:4], "test": TWO[4:10]}
    for stem, rows in parts.items():
        corpora.write(tmp_path / f"{stem}.jsonl", rows)
    (tmp_path / "card.json").write_text("{}")
    corpus = read(tmp_path)
    assert [len(s) for s in (corpus.train, corpus.dev, corpus.test)] == [20, 4, 6]
    assert corpus.facts()["also_in_train"] == {"dev": 4, "test": 6}


def test_a_split_column_comes_before_the_name(tmp_path: Path) -> None:
    rows = [row | {"split": "test" if i < 5 else "train"} for i, row in enumerate(TWO)]
    corpus = read(corpora.write(tmp_path / "train.csv", rows))
    assert corpus.test.texts == tuple(row["text"] for row in TWO[:5])
    assert len(corpus.train) + len(corpus.dev) == 15


def test_dev_is_split_off_train_never_off_test(tmp_path: Path) -> None:
    corpora.write(tmp_path / "train.csv", TWO)
    corpora.write(tmp_path / "test.csv", labelled(*[(f"other {i}", i % 2) for i in range(20)]))
    corpus = read(tmp_path, dev=0.2)
    assert len(corpus.dev) == 4
    assert not {t for t in corpus.dev.texts if t.startswith("other")}
    assert len(corpus.test) == 20
    assert not set(corpus.dev.texts) & set(corpus.train.texts)


def test_a_test_split_only_when_asked(tmp_path: Path) -> None:
    path = corpora.write(tmp_path / "all.csv", TWO)
    corpus = read(path, dev=0.1, test=0.2)
    assert [len(s) for s in (corpus.train, corpus.dev, corpus.test)] == [14, 2, 4]
    assert read(path, seed=1).dev != read(path, seed=2).dev
    assert read(path, seed=1) == read(path, seed=1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_a_sample_keeps_every_class_s_share_and_nests(classes: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(classes)))
    rows = spread(classes, n, seed=3)
    assert len(set(rows)) == n
    for c, count in Counter(classes).items():
        assert abs(sum(classes[i] == c for i in rows) - n * count / len(classes)) < 2
    assert set(spread(classes, n - 1, seed=3)) <= set(rows)


def test_limits(tmp_path: Path) -> None:
    path = corpora.write(tmp_path / "all.csv", corpora.planted(300))
    corpus = read(path, dev=0.2, test=0.2, limit=30, dev_limit=9, test_limit=6)
    assert [len(s) for s in (corpus.train, corpus.dev, corpus.test)] == [30, 9, 6]
    assert Counter(corpus.train.classes) == {0: 20, 1: 10}
    assert read(path, limit=10**6).train == read(path).train


def test_labels_have_a_stable_order(tmp_path: Path) -> None:
    rows = labelled(*[(f"t{i}", (10, 9, 2)[i % 3]) for i in range(30)])
    corpus = read(corpora.write(tmp_path / "n.csv", rows))
    assert corpus.labels == ("2", "9", "10")
    first = corpus.train.texts[0]
    assert corpus.labels[corpus.train.classes[0]] == str((10, 9, 2)[int(first[1:]) % 3])
    named = read(corpora.write(tmp_path / "z.jsonl", TWO), names=("no", "yes"))
    assert named.labels == ("no", "yes")
    yes = [row | {"label": bool(row["label"])} for row in TWO]
    assert read(corpora.write(tmp_path / "b.jsonl", yes)).labels == ("false", "true")


def test_pairs(tmp_path: Path) -> None:
    rows = [row | {"other": f"other {i}"} for i, row in enumerate(TWO)]
    corpus = read(corpora.write(tmp_path / "p.csv", rows), pair="other")
    assert set(corpus.train.texts) <= {(f"text {i}", f"other {i}") for i in range(20)}


REFUSED: dict[str, tuple[str, Rows, dict[str, Any], str]] = {
    "one class": ("x.csv", labelled(*[(f"t{i}", "a") for i in range(9)]), {}, "all have the label 'a'"),
    "no text": ("x.jsonl", [*TWO, *labelled(("", 1), (" ", 0))], {}, r"2 rows of .* have no 'text' \(row 21 first\)"),
    "null text": ("x.jsonl", [*TWO, {"text": None, "label": 1}], {}, r"A row of .* has no 'text' \(row 21 first\)"),
    "numbers": ("x.jsonl", labelled(*[(i, i % 2) for i in range(9)]), {}, "holds int64, not texts"),
    "no label": ("x.jsonl", [*TWO, {"text": "t", "label": None}], {}, "Row 21 of .* has no label"),
    "half a label": ("x.jsonl", labelled(*[(f"t{i}", i / 2) for i in range(9)]), {}, "has 0.5 as its 'label'"),
    "new in dev": (
        "x.csv",
        [*[row | {"split": "train"} for row in TWO], {"text": "t", "label": 7, "split": "dev"}],
        {},
        "label '7' is in dev of .* not in train",
    ),
    "split": ("x.csv", [row | {"split": "fold1"} for row in TWO], {}, "'fold1' as a 'split'"),
    "no train": ("x.csv", [row | {"split": "dev"} for row in TWO], {}, "no train split .* it holds dev"),
    "column": ("x.csv", TWO, {"label": "gold"}, "no column 'gold'; its columns are 'text', 'label'"),
    "names": ("x.csv", TWO, {"names": ("one",)}, "1 names were given for classes 0 to 0"),
    "too many names": ("x.csv", TWO, {"names": ("a", "b", "c")}, "No training text of .* has the label 'c'"),
    "share": ("x.csv", TWO, {"dev": 1.5}, "must lie between 0 and 1"),
    "no dev": ("x.csv", TWO, {"dev": 0.0}, "no dev texts"),
    "limit": ("x.csv", TWO, {"limit": 0}, "at least 1"),
    "rare": ("x.csv", [*TWO, *labelled(("t", 5))], {"limit": 4}, "No training text of .* has the label '5'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused(case: str, tmp_path: Path) -> None:
    name, rows, options, said = REFUSED[case]
    with pytest.raises(InputError, match=said) as e:
        read(corpora.write(tmp_path / name, rows), **options)
    assert "\n" not in str(e.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or folder"):
        read(tmp_path / "missing.csv")
    with pytest.raises(InputError, match=r"holds no \.csv"):
        read(tmp_path)
    (tmp_path / "a.parquet").write_text("nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(InputError, match="holds no rows"):
        read(tmp_path / "a.csv")
    corpora.write(tmp_path / "two" / "train.csv", TWO)
    corpora.write(tmp_path / "two" / "train.jsonl", TWO)
    with pytest.raises(InputError, match="2 files for train"):
        read(tmp_path / "two")
    corpora.write(tmp_path / "odd" / "train.csv", TWO)
    corpora.write(tmp_path / "odd" / "extra.csv", TWO)
    with pytest.raises(InputError, match="is called 'extra'"):
        read(tmp_path / "odd")
    assert len(read(tmp_path / "odd", skip=["extra"]).train) == 18


def test_rows_without_text_are_left_out_when_asked_and_counted(tmp_path: Path) -> None:
    path = corpora.write(tmp_path / "x.jsonl", [*TWO, *labelled((" ", 1), ("", 0))])
    corpus = read(path, drop_empty=True)
    assert corpus.dropped == corpus.facts()["dropped"] == 2
    assert len(corpus.train) + len(corpus.dev) == 20


def hub(monkeypatch: pytest.MonkeyPatch, **splits: Rows) -> None:
    """A data set library that knows one data set, with class names beside the numbers."""
    told = b'{"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}'

    def load_dataset(name: str, configuration: str | None) -> dict[str, Any]:
        if (name, configuration) != ("known", "plain"):
            raise FileNotFoundError(f"no {name}")
        tables = {k: pa.Table.from_pylist(v).replace_schema_metadata({b"huggingface": told}) for k, v in splits.items()}
        return {k: SimpleNamespace(with_format=lambda kind, t=t: {"arrow": [t]}[kind]) for k, t in tables.items()}

    class Whole(list):  # type: ignore[type-arg]
        def __getitem__(self, key: Any) -> Any:
            return list.__getitem__(self, 0)

    def loaded(name: str, configuration: str | None) -> dict[str, Any]:
        found = load_dataset(name, configuration)
        return {k: SimpleNamespace(with_format=lambda kind, v=v: Whole(v.with_format(kind))) for k, v in found.items()}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=loaded))


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = [row | {"label": -1} for row in TWO]
    hub(monkeypatch, train=TWO, validation=TWO[:4], test=blind, unsupervised=blind)
    with pytest.raises(InputError, match="could not be read from the Hugging Face hub: no unknown"):
        read("unknown")
    with pytest.raises(InputError, match="'unsupervised', but splits are"):
        read("known:plain")
    with pytest.raises(InputError, match="2 names were given"):
        read("known:plain", skip=["unsupervised"])
    corpus = read("known:plain", skip=["unsupervised", "test"])
    assert corpus.labels == ("no", "yes")
    assert list(corpus.splits) == ["train", "dev"]


def test_the_hub_needs_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'pellucid\[train\]'"):
        read("some/dataset")


def test_a_split_that_is_skipped_is_not_looked_at(tmp_path: Path) -> None:
    """As in GLUE, whose test files have no labels."""
    corpora.write(tmp_path / "train.csv", labelled(*[(f"a {i}", i % 2) for i in range(20)]))
    (tmp_path / "test.tsv").write_text("text\n")
    assert len(read(tmp_path, skip=("test",)).test) == 0
    with pytest.raises(InputError, match="no column 'label'"):
        read(tmp_path)


def test_a_column_called_split_that_is_none(tmp_path: Path) -> None:
    rows = [{"text": f"a {i}", "label": i % 2, "split": "odd"} for i in range(20)]
    path = corpora.write(tmp_path / "x.csv", rows)
    with pytest.raises(InputError, match=r'data\.split \(""'):
        read(path)
    assert len(read(path, split="").train) == 18


def test_tabs_categories_and_labels_with_spaces(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [f"text {i}\t{'good' if i % 2 else 'bad'}" for i in range(20)]
    (tmp_path / "x.tsv").write_text("\n".join(["text\tlabel", *lines, ""]))
    assert read(tmp_path / "x.tsv").labels == ("bad", "good")
    kinds = pa.array([f"t{i}" for i in range(20)]).dictionary_encode()
    pq.write_table(pa.table({"text": kinds, "label": [i % 2 for i in range(20)]}), tmp_path / "x.parquet")
    assert len(read(tmp_path / "x.parquet").train) == 18
    corpora.write(tmp_path / "x.csv", labelled(("a", "good"), ("b", "good "), ("c", "bad")))
    with pytest.raises(InputError, match="differ in spaces alone, such as 'good'"):
        read(tmp_path / "x.csv")


@pytest.mark.parametrize(("content", "said"), [
    (b"text;label\na;1,2\nb;2\n", "parted by ';'"), ("text,label\nd\xe9j\xe0,1\n".encode("latin-1"), "not UTF-8"),
    ("text,label\na,1\n".encode("utf-16"), "UTF-16"), (b"text,label\na,1\nb\n", "as many cells as the header"),
])  # fmt: skip
def test_files_that_no_parser_takes(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read(tmp_path / "x.csv")


def test_a_wrong_column_of_labels_does_not_flood_the_page(tmp_path: Path) -> None:
    rows = labelled(*[(f"text number {i} " + "x" * 100, f"label {i} " + "y" * 100) for i in range(300)])
    with pytest.raises(InputError) as refused:
        read(corpora.write(tmp_path / "x.csv", rows))
    assert len(str(refused.value)) < 700
