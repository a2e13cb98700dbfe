"""Findings: what is written is read back, numbers are told as they are, tables are readable; intervals over texts."""

import io
import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.cells import cell_len

from pellucid import Finding, Findings, records
from pellucid.errors import InputError
from pellucid.finding import Picture, number, with_interval
from pellucid.render.findings import show
from pellucid.stats import over_texts

ONE = Finding("counting", "even_ids", 0.42, (0.4, 0.44), 0.5, 20, "NO MORE THAN CHANCE", "Tokens count evenly.")
HOSTILE = 'evil\x1b[31m\x9b\u202e <b>[bold]"& \ud800\nnext'


def findings(names: int = 1, parts: int = 1, **more: Any) -> Findings:
    """`names` findings on each of `parts` parts of the data, each with numbers of its own."""
    found = [
        replace(
            ONE, name=f"finding_number_{n}", unit="share of rows", where=f"layer {p - 1}, linear map" if p else "",
            value=(100 * n + p) / 1000, interval=((100 * n + p) / 1000 - 0.05, (100 * n + p) / 1000 + 0.05),
            null=(100 * n + p) / 1000 + 0.5, null_interval=(0.5, 0.9), control="ids in a random order",
            reading=f"Reading {n} of part {p}.", limits=("These texts alone.", f"Limit {n}."), counts={"rows": 431},
        )
        for n in range(names)
        for p in range(parts)
    ]  # fmt: skip
    found = [replace(f, **more) for f in found]
    origin = {"texts": 20, "tokens": 431, "model": "my-model"}
    return Findings(found, "counting", params={"seed": 0, "maps": ("none", "linear")}, origin=origin)


def shown(found: Findings, width: int | None = 80) -> str:
    out = io.StringIO()
    show(found, out, width)
    return out.getvalue()


# One finding


numbers = st.floats(allow_nan=True, allow_infinity=True)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
intervals = st.none() | st.tuples(numbers, numbers)
made = st.builds(
    Finding, words, words, st.none() | numbers, intervals, st.none() | numbers, st.integers(0, 10**6), words, words,
    st.lists(words, max_size=3).map(tuple), words, words, words, intervals, st.dictionaries(words, st.integers()),
)  # fmt: skip


def finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None


@given(made)
def test_a_finding_is_read_back_from_json_with_all_that_json_can_hold(f: Finding) -> None:
    back = Finding.from_dict(json.loads(json.dumps(f.to_dict(), allow_nan=False)))
    for key in ("value", "null"):
        assert getattr(back, key) == finite(getattr(f, key))
    for key in ("interval", "null_interval"):
        ends = getattr(f, key)
        proper = ends is not None and not any(map(math.isnan, ends)) and ends[0] < math.inf and ends[1] > -math.inf
        assert getattr(back, key) == (ends if proper else None)
    rest = {"value": None, "null": None, "interval": None, "null_interval": None}
    assert replace(back, **rest) == replace(f, **rest)
    assert Finding.from_dict(back.to_dict()) == back
    assert f.grade in str(f)
    assert f.reading in str(back)


def test_numbers_of_numpy_become_numbers_of_json() -> None:
    f = replace(
        ONE, value=np.float32(0.5), interval=(np.float64(0), np.float64(1)), n=np.int64(3), counts={"rows": np.int64(7)}
    )
    record = json.loads(json.dumps(f.to_dict()))
    assert (record["value"], record["interval"], record["n"], record["counts"]) == (0.5, [0, 1], 3, {"rows": 7})


@pytest.mark.parametrize(
    "record", [{}, {"interval": None}, [], "x", ONE.to_dict() | {"interval": [1]}, ONE.to_dict() | {"new": 1}]
)
def test_what_is_no_finding_is_refused(record: Any) -> None:
    with pytest.raises(InputError, match="not a saved finding"):
        Finding.from_dict(record)


def test_a_finding_in_one_line() -> None:
    assert str(ONE) == (
        "NO MORE THAN CHANCE: even_ids 0.420 (0.400 to 0.440); control 0.500; n = 20 texts. Tokens count evenly."
    )
    alone = replace(ONE, value=None, interval=None, null=math.nan, n=1, where="33 to 64 tokens")
    assert "even_ids (33 to 64 tokens) not measured; control not measured; n = 1 text." in str(alone)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.0, "0"), (-0.0, "0"), (0.42, "0.420"), (-1.23456, "-1.235"), (12.345, "12.3"), (999.7, "1000"),
        (12345.6, "12346"), (123456.0, "1.2e+05"), (0.001234, "0.00123"), (0.000049, "4.9e-05"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_numbers_have_about_three_digits(x: float, expected: str) -> None:
    assert number(x) == expected


def test_an_interval_has_the_decimals_of_its_largest_number() -> None:
    assert with_interval(0.0002, (-0.02, 0.02)) == "0.000 (-0.020 to 0.020)"
    assert with_interval(-0.0001, (-0.02, 0.02)) == "0.000 (-0.020 to 0.020)"
    assert with_interval(12.0, (0.5, 130.0)) == "12 (0 to 130)"
    assert with_interval(2.0, (-math.inf, 3.0)) == "2.000 (-inf to 3.000)"
    assert with_interval(0.0, (0.0, 0.0)) == "0 (0 to 0)"
    assert with_interval(0.42, None) == "0.420"
    assert with_interval(math.nan, (0.0, 1.0)) == "not measured"


@given(st.floats(-1e4, 1e4).filter(lambda x: abs(x) >= 5e-4))
def test_a_number_is_rounded_by_less_than_one_in_a_hundred(x: float) -> None:
    assert abs(float(number(x)) - x) <= 0.01 * abs(x)


# The findings of an audit


def test_findings_by_name() -> None:
    found = findings(2, 2)
    assert found.named("finding_number_1").value == 0.1
    assert found.named("finding_number_1", "layer 0, linear map").value == 0.101
    with pytest.raises(
        InputError, match=r"no finding 'x' \(all texts\); there are: finding_number_0, finding_number_0 \("
    ):
        found.named("x")
    with pytest.raises(InputError, match=r"'finding_number_0' \(layer 9\)"):
        found.named("finding_number_0", "layer 9")
    with pytest.raises(InputError, match="there are: none"):
        Findings([], "counting").named("x")


def drawn(height: float) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().bar(["<a> & b"], [height])
    return figure


def saved(folder: Path) -> tuple[Findings, list[Path]]:
    found = findings(2, 3)
    found.tables = {
        "rows": [{"text": 0, "token": HOSTILE[:4], "x": math.nan}, {"text": 1, "token": "ß", "x": 1, "late": True}],
        "empty": [],
    }
    found.pictures = {"heights": Picture(drawn, 1.0)}
    return found, found.save(folder)


def test_everything_is_written_and_read_back(tmp_path: Path) -> None:
    found, files = saved(tmp_path / "new" / "folder")
    names = {"counting.json", "counting_rows.parquet", "counting_empty.parquet", "counting_heights.svg"}
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == {p.name for p in files} == names
    back = records.read_findings(tmp_path / "new" / "folder" / "counting.json")
    assert (list(back), back.audit, back.params) == (list(found), "counting", {"seed": 0, "maps": ["none", "linear"]})
    assert back.origin == found.origin
    rows = pq.read_table(files[[p.name for p in files].index("counting_rows.parquet")]).to_pylist()
    assert [r["token"] for r in rows] == ["evil", "ß"]
    assert math.isnan(rows[0]["x"])
    assert (rows[1]["x"], rows[0]["late"], rows[1]["late"]) == (1.0, None, True)
    assert "&lt;a&gt;" in (tmp_path / "new" / "folder" / "counting_heights.svg").read_text(encoding="utf-8")


def test_the_same_findings_are_the_same_bytes(tmp_path: Path) -> None:
    _, a = saved(tmp_path / "a")
    _, b = saved(tmp_path / "b")
    assert [p.read_bytes() for p in a] == [p.read_bytes() for p in b]


def test_where_the_json_is_everything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed while it writes must not look like a finished one."""
    whole, left = records.write_whole, itertools.count()

    def killed(path: Path, data: bytes) -> None:
        if next(left) == 2:
            raise KeyboardInterrupt
        whole(path, data)

    monkeypatch.setattr(records, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert not (tmp_path / "counting.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [("{}", "not saved findings"), ("[]", "not saved findings"), ("{", "does not hold saved findings"),
     ('{"findings": [{}], "audit": "a", "params": {}, "origin": {}}', "not a saved finding"),
     ("\xff", "saved findings")],
)  # fmt: skip
def test_other_files_are_refused_by_name(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=f"x.json .*{said}"):
        records.read_findings(tmp_path / "x.json")
    with pytest.raises(InputError, match="There is no file"):
        records.read_findings(tmp_path / "none.json")


# In the terminal


def expected(f: Finding) -> list[str]:
    """Every number of a finding as it is told."""
    assert f.value is not None and f.interval is not None and f.null is not None  # noqa: PT018
    return [f"{x:.3f}" for x in (f.value, *f.interval, f.null)]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize(("names", "parts"), [(1, 1), (4, 1), (1, 25), (3, 2), (5, 3), (3, 25), (9, 7)])
def test_every_number_is_whole_at_every_width(names: int, parts: int, width: int) -> None:
    found = findings(names, parts)
    out = shown(found, width)
    assert max(map(cell_len, out.splitlines())) <= width
    assert "\x1b" not in out
    assert "…" not in out
    for f in found:
        for text in expected(f):
            assert text in out
    assert out.count("NO") >= len(found)
    assert all(out.count(f"Limit {n}.") == 1 for n in range(names))
    assert out.count("These texts alone.") == 1
    assert out.count("ids in a random order") == 1
    assert all(f"Reading {n} of part 0." in out for n in range(names))
    assert "of part 1" not in out
    assert out.count("20 texts, 431 rows") == names
    assert "(share" in out
    lines = len(out.splitlines())
    assert lines < 12 + 5 * len(found) + 4 * names, "longer than a paragraph for each finding"


def test_the_header_tells_what_was_audited_and_how() -> None:
    found = findings()
    head = "counting | model my-model | 20 texts | 431 tokens | seed=0 maps=none,linear"
    assert shown(found).splitlines()[0] == head
    back = Findings.from_dict(json.loads(json.dumps(found.to_dict())))
    assert shown(back) == shown(found)
    found.origin["texts"] = 1
    assert "| 1 text |" in shown(found)


def test_names_by_parts() -> None:
    out = shown(findings(4, 2), 100)
    head = next(line for line in out.splitlines() if "all texts" in line)
    assert "layer 0, linear map" in head
    row = next(line for line in out.splitlines() if line.startswith("finding_number_3"))
    assert row.rstrip().split("  ")[-1] == "0.301 (0.251 to 0.351)"
    assert "0.300 (0.250 to 0.350)" in row


def test_parts_by_names() -> None:
    out = shown(findings(3, 8), 120)
    head = next(line for line in out.splitlines() if "finding_number_0" in line)
    assert "finding_number_2" in head
    row = next(line for line in out.splitlines() if line.startswith("layer 6"))
    assert re.findall(r"0.\d+ \(.*?\)", row) == [
        "0.007 (-0.043 to 0.057)", "0.107 (0.057 to 0.157)", "0.207 (0.157 to 0.257)",
    ]  # fmt: skip


def test_a_line_for_each_finding_under_its_name() -> None:
    lines = [line.rstrip() for line in shown(findings(2, 25), 120).splitlines()]
    assert lines[2].split("  ")[-1] == "grade"
    assert lines[3] == "finding_number_0 (share of rows)"
    assert lines[4].startswith("  all texts ")
    assert lines[3 + 26] == "finding_number_1 (share of rows)"
    for k, line in enumerate(lines[5:29]):
        assert line.split() == [
            "layer", f"{k},", "linear", "map", f"{(k + 1) / 1000:.3f}", f"{(k + 1) / 1000 - 0.05:.3f}", "to",
            f"{(k + 1) / 1000 + 0.05:.3f}", f"{(k + 1) / 1000 + 0.5:.3f}", "(0.500", "to", "0.900)", "20",
            "NO", "MORE", "THAN", "CHANCE",
        ]  # fmt: skip


def test_what_was_not_measured_is_said() -> None:
    bare = findings(1, 1, value=None, interval=None, null=None, null_interval=None, control="", limits=(), counts={})
    out = shown(bare)
    assert "not measured" in out
    assert "none" in out
    assert "Control:" not in out
    assert "does not say" not in out
    ragged = findings(3, 2)
    ragged.remove(ragged.named("finding_number_1"))
    out = shown(ragged, 120)
    assert "finding_number_1 (layer 0, linear map): NO MORE" in out
    assert "Reading 1 of part 1." in out
    assert "There are no findings." in shown(Findings([], "counting"))


def test_without_a_finding_on_all_texts_the_first_and_the_last_part_are_read() -> None:
    found = findings(2, 5)
    found[:] = [f for f in found if f.where]
    out = shown(found)
    assert re.findall(r"Reading . of part .", out) == [f"Reading {n} of part {p}" for n in (0, 1) for p in (1, 4)]
    assert "finding_number_1 (layer 3, linear map): NO MORE THAN CHANCE" in out


def test_long_grades_wrap_by_words_in_80_columns() -> None:
    lines = shown(findings(3, 6, grade="MOSTLY UNIDENTIFIABLE")).splitlines()
    row = next(k for k, line in enumerate(lines) if line.startswith("  layer 2"))
    assert lines[row].endswith(" MOSTLY        ")
    assert lines[row + 1].split() == ["linear", "map", "(0.500", "to", "0.900)", "UNIDENTIFIABLE"]


def test_controls_that_differ_stand_with_their_findings() -> None:
    found = findings(2)
    found[1] = replace(found[1], control="other weights.")
    out = shown(found)
    assert "Control: ids in a random order. Counted" in out
    assert "Control: other weights. Counted" in out


def test_hostile_words_stay_words() -> None:
    bad = dict.fromkeys(("name", "unit", "where", "grade", "reading", "control"), HOSTILE)
    for found in (findings(1, 1, **bad), findings(2, 2), Findings([replace(ONE, **bad)], HOSTILE)):
        found[0] = replace(found[0], **bad, limits=(HOSTILE,))
        found.origin["model"] = HOSTILE
        for width in (60, 120):
            out = shown(found, width)
            assert not any(c in out for c in "\x1b\x9b\u202e\ud800")
            assert "[bold]" in out
            out.encode("utf-8")
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    show(findings(1, 1, name="café 😀"), file, 80)
    assert b"caf? ?" in raw.getvalue()


short = st.text(max_size=12)
told = st.builds(
    Finding, short, short, st.none() | numbers, intervals, st.none() | numbers, st.integers(0, 10**6), short, short,
    st.lists(short, max_size=2).map(tuple), short, short, short, intervals, st.dictionaries(short, st.integers()),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(told, max_size=5), st.integers(24, 200))
def test_anything_can_be_shown_at_any_width(found: list[Finding], width: int) -> None:
    out = shown(Findings(found, "counting"), width)
    assert max(map(cell_len, out.splitlines())) <= width
    assert all(number(f.value) in out for f in found if finite(f.value) and f.interval is None)


def test_a_pipe_gets_200_columns_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    findings(4).show()
    out = capsys.readouterr().out
    assert "\x1b" not in out
    row = next(line for line in out.splitlines() if line.startswith("finding_number_3 (share of rows)"))
    assert row.rstrip().endswith("NO MORE THAN CHANCE")
    assert shown(findings(4), None) == out
    assert not [line for line in shown(findings(3, 25), None).splitlines()[80:] if line.endswith(" ")]


def test_a_terminal_gets_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[1m" in shown(findings(2))


# Intervals over texts


def test_a_constant_has_an_interval_without_width() -> None:
    found = over_texts([[2.5, 2.5], [2.5], [2.5, 2.5, 2.5]])
    assert (found.value, found.interval, found.n, found.samples) == (2.5, (2.5, 2.5), 3, 6)


# 0.025 ** (1 / n) to ten digits, by hand: exp(ln(0.025) / n), ln(0.025) = -3.688879454
EXACT = {2: 0.1581138830, 10: 0.6915028922, 20: 0.8315665290, 100: 0.9637833074}


@pytest.mark.parametrize("n", EXACT)
def test_agreement_has_the_exact_binomial_interval(n: int) -> None:
    assert EXACT[n] == pytest.approx(math.exp(-3.688879454114 / n), abs=1e-9)
    found = over_texts([[1.0] * (1 + i % 3) for i in range(n)], share=True)
    assert (found.value, found.n) == (1.0, n)
    assert found.interval == pytest.approx((EXACT[n], 1.0), abs=1e-9)
    none = over_texts([[0.0]] * n, share=True)
    assert none.interval == pytest.approx((0.0, 1 - EXACT[n]), abs=1e-9)


def test_one_text_has_no_interval_and_none_no_value() -> None:
    one = over_texts([[1.0, 2.0, 6.0]])
    assert (one.value, one.interval, one.n, one.samples) == (3.0, None, 1, 3)
    assert over_texts([[], [math.nan]]).value is None
    found = over_texts([[1.0, math.nan], [], [3.0, math.inf], [math.nan]])
    assert (found.value, found.n, found.samples) == (2.0, 2, 2)


def test_two_texts_are_resampled_whole() -> None:
    """Of texts with 1 row of 0 and 3 rows of 1, resamples have means 0, 3/4 and 1, with chances 1/4, 1/2, 1/4."""
    found = over_texts([[0.0], [1.0, 1.0, 1.0]])
    assert (found.value, found.interval) == (0.75, (0.0, 1.0))
    middle = over_texts([[0.0], [1.0, 1.0, 1.0]], statistic=np.median)
    assert (middle.value, middle.interval) == (1.0, (0.0, 1.0))


def test_the_interval_of_many_single_rows_is_the_normal_one() -> None:
    x = np.random.default_rng(3).normal(5, 2, 400)
    found = over_texts([[v] for v in x])
    assert found.interval is not None
    half = 1.959964 * x.std() / 20
    assert found.interval == pytest.approx((x.mean() - half, x.mean() + half), abs=0.03)
    both = [over_texts([[v] for v in x], f).interval for f in (np.mean, lambda a: float(np.mean(a)))]
    assert both[0] == pytest.approx(both[1], abs=0.03)


def test_coverage_where_rows_of_a_text_are_alike() -> None:
    """200 data sets of 30 texts with 8 rows each that share an offset; the true mean is 0. Rows taken for independent
    would cover it half of the time."""
    rng, covered, naive = np.random.default_rng(11), 0, 0
    for k in range(200):
        x = rng.normal(size=(30, 1)) + 0.5 * rng.normal(size=(30, 8))
        found = over_texts(list(x), seed=k, resamples=400)
        assert found.interval is not None
        covered += found.interval[0] <= 0 <= found.interval[1]
        naive += abs(x.mean()) <= 1.96 * x.std() / math.sqrt(x.size)
    assert 0.89 <= covered / 200 <= 0.99
    assert naive / 200 < 0.7


rows = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), max_size=5)


@settings(deadline=None, max_examples=30)
@given(st.lists(rows, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(samples: list[list[float]], chance: Any) -> None:
    mixed = [chance.sample(s, len(s)) for s in samples]
    a, b = (over_texts(s, resamples=50) for s in (samples, mixed))
    assert (a.n, a.samples) == (b.n, b.samples)
    assert a.value == (b.value if b.value is None else pytest.approx(b.value, abs=1e-9))
    assert (a.interval is None) == (b.interval is None)
    if a.interval is not None:
        assert a.interval == pytest.approx(b.interval, abs=1e-9)
        assert a.interval[0] <= a.interval[1]


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    x = [[v] for v in np.random.default_rng(0).normal(size=15)]
    assert over_texts(x, seed=4) == over_texts(x, seed=4)
    assert over_texts(x, seed=4).interval != over_texts(x, seed=5).interval
