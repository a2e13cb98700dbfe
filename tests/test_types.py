"""What goes in and what comes out: batches, targets, attributions, files, and what `explain` refuses, and how."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from test_properties import LIMIT, small

import pellucid
from pellucid import Attribution, Batch, Target, Token
from pellucid.errors import InputError
from pellucid.methods import DecompX
from pellucid.records import read_records, write_records, write_whole

LABELS = ("no", "maybe", "yes")
IDS = torch.tensor([[2, 6, 14, 3], [2, 8, 3, 0]])
KEEP = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def refused(call: Any, *parts: str) -> str:
    """The message of the InputError that `call` raises; it holds all `parts` and is one sentence or two."""
    with pytest.raises(InputError) as e:
        call()
    message = str(e.value)
    for part in parts:
        assert part in message
    assert "\n" not in message
    return message


# --- Batch ---


def test_batch_holds_tensors() -> None:
    """Ids long, mask bool, without a mask all real; lists and arrays are taken."""
    b = Batch(IDS.int(), KEEP.float(), labels=[0, "yes"])
    assert (b.input_ids.dtype, b.attention_mask.dtype) == (torch.int64, torch.bool)
    assert (len(b), b.lengths, b.labels) == (2, [4, 3], (0, "yes"))
    assert Batch([[1, 2]]).keep.all()
    assert Batch(np.array([[1, 2]])).input_ids.tolist() == [[1, 2]]


def test_batch_rows_and_repetition() -> None:
    """Rows lose the columns that only padding fills, and keep their labels."""
    b = Batch(IDS, KEEP, torch.zeros_like(IDS), labels=(0, 1))
    one = b.rows([1])
    assert one.input_ids.tolist() == [[2, 8, 3]]
    assert (one.labels, tuple(one.token_type_ids.shape)) == ((1,), (1, 3))
    assert b.rows([1, 0]).input_ids.tolist() == IDS[[1, 0]].tolist()
    assert b.rows_repeated(3).input_ids.shape == (6, 4)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"input_ids": torch.tensor([1, 2])}, ("input_ids", "[2]", "[batch, length]", "input_ids[None]")),
        ({"input_ids": torch.zeros(1, 2)}, ("input_ids", "torch.float32")),
        ({"input_ids": torch.zeros(0, 3).long()}, ("input_ids", "[0, 3]")),
        ({"input_ids": None}, ("input_ids",)),
        ({"input_ids": [[1, 2], [1]]}, ("input_ids",)),
        ({"attention_mask": KEEP[:, :3]}, ("attention_mask", "[2, 3]", "[2, 4]")),
        ({"token_type_ids": KEEP[:1]}, ("token_type_ids", "[1, 4]", "[2, 4]")),
        ({"attention_mask": KEEP * 2}, ("attention_mask", "0 (padding)", "1 (real token)")),
        ({"attention_mask": KEEP * torch.tensor([[1], [0]])}, ("row 1", "attention_mask", "no real token")),
        ({"labels": (1,)}, ("1 labels", "2 rows")),
        ({"tokens": ((),)}, ("1 tokens", "2 rows")),
        ({"texts": ("a", "b", "c")}, ("3 texts", "2 rows")),
    ],
)
def test_batch_says_what_is_wrong(fields: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(lambda: Batch(**{"input_ids": IDS, "attention_mask": KEEP, **fields}), "Batch", *parts)


@pytest.mark.parametrize(
    ("batch", "parts"),
    [
        (Batch(IDS + 100), ("114", "0 to 18")),
        (Batch(IDS - 3), ("-3", "0 to 18")),
        (Batch(IDS, KEEP, torch.full_like(IDS, 2)), ("token_type_ids", "2", "0 to 1")),
        (Batch(IDS, KEEP, torch.full_like(IDS, -1)), ("token_type_ids", "-1", "0 to 1")),
        (Batch(IDS, KEEP, tokens=((Token("a", 2),), (Token("b", 2),))), ("tokens", "row 0", "1", "4")),
        (Batch(torch.ones(1, LIMIT + 1).long()), (str(LIMIT + 1), str(LIMIT), "cut")),
    ],
)
def test_explain_says_what_is_wrong_with_a_batch(batch: Batch, parts: tuple[str, ...]) -> None:
    """Ids and types outside the model's tables would be an index error, or silently another row."""
    refused(lambda: pellucid.explain(small(), batch), *parts)


@pytest.mark.parametrize("method", [DecompX(), DecompX(bias="absdot")])
def test_padding_in_front_is_refused_or_right(method: DecompX) -> None:
    """The head reads the first row: a padded one would get a share that no real token shows."""
    ids, keep = IDS[1:].roll(1, 1), KEEP[1:].roll(1, 1)
    try:
        a = pellucid.explain(small(), Batch(ids, keep), method)[0]
    except InputError:
        return
    assert abs(a.gap) < 1e-9


# --- Target ---


@pytest.mark.parametrize(
    ("spec", "choices"),
    [
        (None, (None, None)),
        (2, (2, 2)),
        (np.int64(1), (1, 1)),
        ("maybe", (1, 1)),
        ((0, 2), ((0, 2), (0, 2))),
        (("yes", 0), ((2, 0), (2, 0))),
        ([None, "yes"], (None, 2)),
        ([(0, 1), 2], ((0, 1), 2)),
        ("gold", (2, 0)),
    ],
)
def test_target_is_read(spec: Any, choices: Any) -> None:
    """Index, name, contrast, one per text, and the true class."""
    target = Target.parse(spec, LABELS, Batch(IDS, KEEP, labels=("yes", 0)))
    assert (target.choices, target.all_classes) == (choices, False)


def test_target_all_and_its_names() -> None:
    """ "all" asks for every class; a label may be called "all" or "gold" and is then that label."""
    batch = Batch(IDS, KEEP)
    assert Target.parse("all", LABELS, batch).all_classes
    assert Target.parse("all", ("some", "all"), batch).choices == (1, 1)
    assert Target.parse("gold", ("gold", "tin"), batch).choices == (0, 0)
    assert Target.parse((0, 2), LABELS, batch).name(0) == "no - yes"
    assert Target.parse(None, LABELS, batch).resolve(torch.eye(3)[1:]).choices == (1, 2)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (3, ("Class 3", "3 classes", "0 to 2", "no, maybe, yes")),
        (-1, ("Class -1", "0 to 2")),
        ("yess", ("'yess'", "Did you mean 'yes'?", "no, maybe, yes")),
        ("YES", ("'YES'", "no, maybe, yes")),
        ("", ("''", "no, maybe, yes")),
        (True, ("True", "class index")),
        (1.0, ("1.0", "class index")),
        ((0, 1, 2), ("(0, 1, 2)", "(a, b)")),
        ((0, "nope"), ("'nope'",)),
        ([1], ("1 targets", "2 texts")),
        ([0, 7], ("Class 7",)),
        ("gold", ("no labels", "labels=", "--label-column")),
        (np.array([0, 1]), ("class index",)),
    ],
)
def test_target_is_refused(spec: Any, parts: tuple[str, ...]) -> None:
    refused(lambda: Target.parse(spec, LABELS, Batch(IDS, KEEP)), *parts)


def test_two_classes_of_one_name() -> None:
    """Such a name picks no class, and neither hides the other's scores."""
    model = replace(small(), labels=("no", "no", "yes"))
    refused(lambda: pellucid.explain(model, "films", target="no"), "'no'", "0", "1")
    assert pellucid.explain(model, "films", target="yes").target == 2
    assert pellucid.explain(model, "films", target="all").to_dataframe().shape[1] == 6 + 3


def test_gold_out_of_range() -> None:
    """Data sets mark a missing label by -1."""
    refused(lambda: pellucid.explain(small(), Batch(IDS, KEEP, labels=(0, -1)), target="gold"), "Class -1", "0 to 2")


# --- Attribution ---


@pytest.fixture
def one() -> Attribution:
    return pellucid.explain(small(), "Unwatchable films, good")


def test_words(one: Attribution) -> None:
    """Pieces of a word are summed and shown as the text has them; [CLS] and [SEP] stay."""
    w = one.words()
    assert [t.text for t in w.tokens] == ["[CLS]", "Unwatchable", "films", ",", "good", "[SEP]"]
    np.testing.assert_allclose(w.scores, [np.sum(p) for p in np.split(one.scores, [1, 4, 6, 7, 8])], rtol=0, atol=1e-15)
    assert (w.tokens[1].start, w.tokens[1].end) == (0, 11)
    assert w.words().tokens == w.tokens


def test_words_of_a_pair() -> None:
    """Words with the same number in the two texts stay apart."""
    a = pellucid.explain(small(), ("Films", "films unwatchable"))
    w = a.words()
    assert [(t.text, t.sequence) for t in w.tokens if not t.special] == [("Films", 0), ("films", 1), ("unwatchable", 1)]
    assert len([t for t in w.tokens if t.special]) == 3
    assert w.scores.sum() == pytest.approx(a.scores.sum(), abs=1e-12)
    side_by_side = (Token("a", 5, 0, 1, word=0, sequence=0), Token("b", 6, 0, 1, word=0, sequence=1))
    assert len(replace(a, tokens=side_by_side, scores=a.scores[:2], text=("a", "b")).words()) == 2


def test_words_without_the_text(one: Attribution) -> None:
    """A word is not called by its first piece."""
    assert "un" not in [t.text for t in replace(one, text=None).words().tokens]


def test_words_are_refused() -> None:
    """Norms do not add up, and ids without a tokenizer tell no words; the way out is not what was just refused."""
    absdot = pellucid.explain(small(), "films", DecompX(bias="absdot"))
    message = refused(absdot.words, "decompx")
    assert message.count("decompx") == 1 or "bias=" in message
    refused(pellucid.explain(small(), Batch(IDS, KEEP))[0].words, "no tokenizer")
    refused(pellucid.explain(small(), "films", "leave_one_out").words, "leave_one_out")


def test_to_dict_has_the_contracts_keys(one: Attribution) -> None:
    record = one.to_dict()
    contract = "tokens scores unallocated explained gap target label prediction probability method params origin"
    assert set(contract.split()) <= set(record)
    assert record["tokens"] == ["[CLS]", "un", "##watch", "##able", "film", "##s", ",", "good", "[SEP]"]
    assert record["scores"] == one.scores.tolist()
    assert record["params"]["bias"] == "token"
    assert {"model", "family", "weights", "parity", "dtype", "versions", "forwards", "backwards"} <= set(
        record["origin"]
    )
    assert record["label"] == record["prediction"] == LABELS[record["target"]]


def test_to_dataframe(one: Attribution) -> None:
    """One row per token; offsets are whole numbers, missing for special tokens; one column per class for "all"."""
    frame = one.to_dataframe()
    assert frame["token"].tolist()[:2] == ["[CLS]", "un"]
    assert frame["score"].tolist() == one.scores.tolist()
    assert frame["special"].tolist() == [True, *[False] * 7, True]
    assert str(frame["start"].iloc[1]) == "0"
    every = pellucid.explain(small(), "films", target="all").to_dataframe()
    assert [c for c in every if c.startswith("score")] == ["score:no", "score:maybe", "score:yes"]


def test_gap(one: Attribution) -> None:
    """explained - unallocated - sum, per class for "all", None where nothing is explained."""
    assert one.gap == one.explained - one.unallocated - one.scores.sum()
    every = pellucid.explain(small(), "films", target="all")
    assert np.array_equal(every.gap, every.explained - every.unallocated - every.scores.sum(0))
    bare = pellucid.explain(small(), "films", DecompX(head=False))
    assert (bare.gap, bare.explained, bare.unallocated) == (None, None, None)
    assert Attribution.from_dict(bare.to_dict()).gap is None


@pytest.mark.parametrize("garbage", [None, 3, "text", [], [1], {}, {"label": 1}])
def test_from_dict_of_garbage(garbage: Any) -> None:
    refused(lambda: Attribution.from_dict(garbage), "not a saved attribution")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": [1.0]},
        {"scores": None},
        {"scores": [["x"]]},
        {"tokens": ["a"]},
        {"spans": [[1, 2]]},
        {"labels": None},
        {"unallocated": "much"},
        {"explained": [1.0, 2.0]},
        {"origin": 3},
        {"params": "x"},
        {"text": 5},
    ],
)
def test_from_dict_of_a_broken_record(one: Attribution, wrong: dict[str, Any]) -> None:
    """A record whose parts do not fit together is refused when it is read, not when it is shown."""
    refused(lambda: Attribution.from_dict({**one.to_dict(), **wrong}), "not a saved attribution")


# --- files ---


def test_save_and_load(one: Attribution, tmp_path: Path) -> None:
    """By suffix; folders are made; several records are no single one."""
    for suffix in ("json", "jsonl", "parquet"):
        path = tmp_path / "new" / f"a.{suffix}"
        one.save(path)
        assert Attribution.load(path).to_dict() == one.to_dict()
    write_records([one, one], tmp_path / "two.json")
    refused(lambda: Attribution.load(tmp_path / "two.json"), "2 attributions", "read_records")
    assert len(read_records(tmp_path / "two.json")) == 2


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
@pytest.mark.parametrize("content", [b"null", b"3", b'{"a": 1}', b"[1", b"\xff\x00", b"PAR1"])
def test_load_of_garbage(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    refused(lambda: Attribution.load(path), "saved attribution")


def test_load_of_nothing(tmp_path: Path) -> None:
    refused(lambda: Attribution.load(tmp_path / "none.json"), "none.json")
    refused(lambda: Attribution.load(tmp_path), str(tmp_path))


def test_records_take_unusual_line_ends(one: Attribution, tmp_path: Path) -> None:
    """A line of JSON lines ends at a newline only; U+2028 and U+0085 are text."""
    odd = replace(one, text="a\u2028b\u0085c")
    write_records([odd, one], tmp_path / "a.jsonl")
    assert [a.text for a in read_records(tmp_path / "a.jsonl")] == [odd.text, one.text]


@pytest.mark.parametrize("fails", ["replace", "chmod", "fdopen"])
def test_a_failing_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """As in a folder one may not write to: the old file stays, and no temporary one beside it."""
    old = tmp_path / "a.json"
    old.write_text("old")

    def no(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, fails, no)
    refused(lambda: write_whole(old, b"new"), "a.json", "Permission denied")
    refused(lambda: write_whole(tmp_path / "b.json", b"new"), "b.json")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert old.read_text() == "old"


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.json", b"new")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(lambda: write_whole(tmp_path / "file" / "a.json", b""), "file/a.json", "Choose another place")
    refused(lambda: write_whole(tmp_path, b""), str(tmp_path))


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_numbers_that_json_cannot_hold(one: Attribution, tmp_path: Path, suffix: str) -> None:
    """NaN and infinity, as a broken model might give, are written as nothing or refused; never half."""
    broken = replace(one, scores=one.scores * np.nan)
    try:
        broken.save(tmp_path / f"a.{suffix}")
    except InputError:
        assert not list(tmp_path.iterdir())
    else:
        assert not np.isfinite(Attribution.load(tmp_path / f"a.{suffix}").scores).any()


# --- what explain refuses ---


@pytest.mark.parametrize(
    ("x", "parts"),
    [
        ([], ("no texts", "empty list")),
        (["films", None], ("Text 2 of 2", "None", "string")),
        (["films", 3], ("Text 2 of 2", "3")),
        ("", ("Text 1 of 1", "empty")),
        (" \n\t", ("Text 1 of 1", "empty")),
        (["films", ""], ("Text 2 of 2", "empty")),
        ("[CLS] [SEP]", ("Text 1 of 1", "special")),
        ("\u200b", ("Text 1 of 1",)),
        ("films \ud800", ("Text 1 of 1", "surrogate")),
        (["films", ("a", "b")], ("1 of 2", "pairs")),
        (("a", "b", "c"), ("pair of strings",)),
        (("films", None), ("pair of strings",)),
        ([["films", "good"]], ("list", "pair of strings")),
        (None, ("NoneType",)),
        (5, ("int",)),
        ({"text": "films"}, ("dict",)),
        (b"films", ("bytes",)),
        (pd.DataFrame({"film": ["good", "bad"]}), ("DataFrame",)),
        ("films " * 20, ("42 tokens", str(LIMIT), 'long="truncate"', 'long="window"')),
        (["films", "films " * 9, "films " * 20], ("Text 2", "20 tokens", "2 of 3")),
        (("films " * 9, "films " * 9), ("39 tokens",)),
    ],
)
def test_texts_that_are_refused(x: Any, parts: tuple[str, ...]) -> None:
    """Each message says which text, what was seen, and what to do."""
    refused(lambda: pellucid.explain(small(), x), *parts)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"method": "decompX"}, ("'decompX'", "Did you mean 'decompx'?", "rollout")),
        ({"method": "nothing like it"}, ("decompx", "rollout")),
        ({"method": DecompX}, ("instance",)),
        ({"method": None}, ("None",)),
        ({"target": "yess"}, ("Did you mean 'yes'?",)),
        ({"target": 9}, ("Class 9",)),
        ({"long": "windows"}, ("'windows'", "'refuse', 'truncate', 'window'")),
        ({"batch_tokens": 0}, ("batch_tokens", "0")),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(lambda: pellucid.explain(small(), "films", **options), *parts)


def test_pairs_whose_shorter_text_leaves_no_room() -> None:
    both = ("films " * 9, "films " * 9)
    for long in ("window", "truncate"):
        refused(lambda long=long: pellucid.explain(small(), both, long=long), "pair", "shorten")


def test_specials_that_leave_no_room() -> None:
    """A text that is no pair is not called one."""
    message = refused(lambda: pellucid.explain(small(), "[MASK] " * 8 + "films " * 20, long="window"), "Text 1")
    assert "pair" not in message


def test_texts_without_a_tokenizer() -> None:
    refused(lambda: pellucid.explain(tiny.opened("bert"), "films"), "no tokenizer", "tokenizer=", "pellucid.Batch")


def test_one_text_gives_one_and_a_list_gives_a_list() -> None:
    assert isinstance(pellucid.explain(small(), "films"), Attribution)
    assert isinstance(pellucid.explain(small(), ("films", "good")), Attribution)
    assert len(pellucid.explain(small(), ["films"])) == 1
    assert len(pellucid.explain(small(), Batch(IDS, KEEP))) == 2
    assert len(pellucid.explain(small(), np.array(["films", "good"]))) == 2


def test_without_a_tokenizer_tokens_are_ids() -> None:
    model = tiny.opened("bert")
    a = pellucid.explain(model, Batch(torch.tensor([[5, 17]])))[0]
    assert [t.text for t in a.tokens] == ["[5]", "[17]"]
