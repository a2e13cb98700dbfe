"""What a person is shown: every text is escaped, zero is white, scales are symmetric, and the sum is stated."""

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from pellucid import render
from pellucid.attribution import Attribution
from pellucid.render import marks
from pellucid.types import Token

HOSTILE = '<script>alert("x")</script> & שלום مرحبا 😀👩‍👩‍👧 \x00\x1b[31m\x9b \u202eevil \ud800 \ufffe\r\nend'


def attribution(text: Any = "A good film", scores: Any = None, classes: int = 0, **more: Any) -> Attribution:
    """[CLS], one token per word of the text (or pair), [SEP]; scores 0, 1, -1, 2, -2, ... tenths unless given."""
    tokens = [Token("[CLS]", 0, special=True)]
    for s, one in enumerate((text,) if isinstance(text, str) else text):
        tokens += [Token(m.group(), 1, *m.span(), word=k, sequence=s) for k, m in enumerate(re.finditer(r"\S+", one))]
    tokens.append(Token("[SEP]", 2, special=True))
    n = len(tokens)
    if scores is None:
        scores = np.array([(i + 1) // 2 * (-1) ** (i + 1) / 10 for i in range(n)])
        scores = np.stack([scores * (c + 1) for c in range(classes)], 1) if classes else scores
    scores = np.asarray(scores, dtype=np.float64)
    unallocated = np.full(classes, 0.25) if classes else 0.25
    made = Attribution(
        tuple(tokens), scores, unallocated, unallocated + scores.sum(0), "all" if classes else 1,
        "all" if classes else "Positive", "Positive", 0.9873, "decompx", {"bias": "token"}, complete=True, text=text,
        labels=tuple(f"class {c}" for c in range(classes)) or ("Negative", "Positive"),
    )  # fmt: skip
    return replace(made, **more)


def terminal(a: Attribution, width: int = 100) -> str:
    out = io.StringIO()
    render.show(a, out, width)
    return out.getvalue()


class _Reader(HTMLParser):
    """What a browser would see: the tags, all text, the text of the coloured paragraphs, and every title."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.spans: list[dict[str, str | None]] = []
        self.text, self.coloured, self._in = "", "", False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "p":
            self._in = "pre-wrap" in str(dict(attrs).get("style")) or dict(attrs).get("class") == "text"
        if tag == "span" and self._in:
            self.spans.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self._in = self._in and tag != "p"

    def handle_data(self, data: str) -> None:
        self.text += data
        self.coloured += data if self._in else ""


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def backgrounds(a: Attribution) -> list[str]:
    found = (re.search(r"background:(#\w+)", str(s["style"])) for s in _Reader(render.html_fragment(a)).spans)
    return [m.group(1) for m in found if m]


def test_zero_is_white_and_the_scale_is_symmetric() -> None:
    a = attribution(scores=[0.0, 1.0, -1.0, 0.5, -0.5])
    assert backgrounds(a) == ["#ffffff", "#d6604d", "#4393c3", *backgrounds(a)[3:]]
    twice = attribution(scores=[0.0, 2.0, -0.5, 1.0, -1.0])  # the same colour is the same share on both sides
    assert backgrounds(twice)[3:] == backgrounds(a)[3:]
    assert "-1.000" in render.html_fragment(a)
    assert "+1.000 logit" in render.html_fragment(a)


@pytest.mark.parametrize("make", [render.html_fragment, render.svg, lambda a: render.html_page([a]), terminal])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nothing_to_colour_is_all_white(make: Any, value: float) -> None:
    a = attribution(scores=[value] * 5)
    assert set(backgrounds(a)) == {"#ffffff"}
    assert "All scores are 0." in make(a) or make is terminal


def test_nan_among_numbers_is_white_and_named() -> None:
    a = attribution(scores=[0.0, np.nan, 1.0, -1.0, np.inf])
    assert backgrounds(a)[1] == "#ffffff"
    assert backgrounds(a)[2] == "#d6604d"
    assert "A(nan)" in terminal(a)
    assert "nan" in render.html_page([a])
    ET.fromstring(render.svg(a))


def test_unsigned_scores_have_one_hue_and_no_sign() -> None:
    a = attribution(scores=[0.0, 0.25, 0.5, 0.75, 1.0], signed=False, unit="attention", complete=False)
    colours = backgrounds(a)
    assert colours[0] == "#ffffff"
    assert colours[-1] == "#41ab5d"
    assert all(int(c[3:5], 16) >= max(int(c[1:3], 16), int(c[5:7], 16)) for c in colours)  # green leads throughout
    fragment = render.html_fragment(a)
    assert "film  0.750 (attention)" in fragment
    assert "+0.750" not in fragment
    assert "The scores (attention) do not add up to the logit." in fragment


@pytest.mark.parametrize(
    ("ink", "faint", "ramps"),
    [(marks.INK, marks.DIM, marks.LIGHT), ("#eeeeee", "#b0b0b0", marks.DARK)],
)
def test_text_can_be_read_on_every_colour(ink: str, faint: str, ramps: dict[str, tuple[str, ...]]) -> None:
    for stops in ramps.values():
        for share in np.linspace(0, 1, 101):
            assert contrast(marks.colour_of(share, stops), ink) >= 4.5
            assert share >= 0.42 or contrast(marks.colour_of(share, stops), faint) >= 4.5


def test_the_sum_is_stated() -> None:
    a = attribution(scores=[0.0, 2.0, 0.1, 0.001, 0.0], unallocated=0.312, explained=2.413 + 1e-7)
    line = "explained +2.413 = tokens +2.101 + unallocated (owned by no token) +0.312, gap 1e-7"
    assert line in terminal(a, 120).replace("\n", " ")
    for made in (render.html_fragment(a), render.html_page([a]), render.svg(a)):
        assert line in re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", made))
    hidden = attribution(unallocated=None)
    assert hidden.gap is None
    assert "gap" not in terminal(hidden)
    assert "explained" in terminal(hidden)


def test_scores_that_do_not_add_up_are_said_not_to() -> None:
    a = attribution(scores=[0.0, 1.0, 0.0, 0.0, 0.0], unallocated=0.0, explained=1.5, complete=False)
    said = " ".join(terminal(a).split())
    assert "The scores do not add up to the logit: explained +1.500, tokens +1.000" in said
    assert "+0.500 is in no score." in said
    assert terminal(attribution(complete=False, unallocated=None, explained=None)).rstrip().endswith("to the logit.")
    pair = attribution(complete=False, target=(0, 1), label="Negative - Positive")
    assert "do not add up to the difference of the two logits" in terminal(pair)
    assert "do not add up to the logits" in terminal(attribution(classes=3, complete=False))


@pytest.mark.parametrize(
    ("x", "scale", "shown"),
    [
        (1.0, 1, "+1.000"),
        (-0.0001, 1, "0.000"),
        (0.0, 0, "0.000"),
        (0.01234, 0.05, "+0.01234"),
        (2e-5, 3e-5, "+2.00e-05"),
    ],
)
def test_numbers_are_round(x: float, scale: float, shown: str) -> None:
    assert marks.number_text(x, scale) == shown


def test_probabilities_are_not_rounded_to_certainty() -> None:
    assert "(probability > 0.999)" in terminal(attribution(probability=0.99999))
    assert "probability" not in terminal(attribution(probability=None))


def test_hostile_text_stays_text() -> None:
    a = attribution(
        HOSTILE, prediction='<b>"&', label="<i>", method="<m>", unit="<u>", params={"<k>": '"<v>"'},
        origin={"<script>": "<img src=x>", "truncated": "<s>"},
    )  # fmt: skip
    for made in (render.html_fragment(a), render.html_page([a, a], title="<script>", lead="<style>")):
        read = _Reader(made)
        assert not {"script", "img", "m", "k", "u", "s"} & set(read.tags)
        assert read.tags.count("style") <= 1
        assert '<script>alert("x")</script>' in read.coloured
        assert "😀👩‍👩‍👧" in read.coloured
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", made)
        made.encode("utf-8")
    picture = ET.fromstring(render.svg(a).encode("utf-8"))
    assert '<script>alert("x")</script>' in "".join(
        t.text or "" for t in picture.iter("{http://www.w3.org/2000/svg}text")
    )
    out = terminal(a)
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert '<script>alert("x")</script>' in out


def test_text_keeps_its_spacing_and_order() -> None:
    text = "  Two  words,\nthen\tthree … "
    read = _Reader(render.html_fragment(attribution(text)))
    assert read.coloured.removeprefix("[CLS] ").removesuffix(" [SEP]") == text.rstrip()
    pair = _Reader(render.html_fragment(attribution(("One two.", "Three."))))
    assert pair.coloured.split() == ["[CLS]", "One", "two.", "Three.", "[SEP]"]
    assert "\n" in pair.coloured


def test_tokens_without_offsets_and_tokens_that_share_characters() -> None:
    bare = (Token("[CLS]", 0, special=True), Token("un", 1), Token("##seen", 2), Token("[9]", 9))
    a = replace(attribution("three word text", np.arange(5.0)), scores=np.arange(4.0), tokens=bare, text=None)
    assert _Reader(render.html_fragment(a)).coloured.strip() == "[CLS] un ##seen [9]"
    bytes_of_emoji = (Token("ðŁ", 1, 0, 1), Token("ĺĢ", 2, 0, 1), Token("Ġok", 3, 1, 4), Token("odd", 4, 90, 95))
    b = replace(a, tokens=bytes_of_emoji, text="😀 ok")
    assert _Reader(render.html_fragment(b)).coloured.strip() == "😀· ok odd"
    ET.fromstring(render.svg(b))


def test_unread_text_is_shown_as_such() -> None:
    a = attribution("read this " + "and not this " * 40, scores=[0.0, 1.0], origin={"truncated": "2 of 122"})
    a = attribution(a.text, scores=[0.0, 1.0, 0.5], tokens=a.tokens[:3], origin={"truncated": "2 of 122", "windows": 3})
    fragment = render.html_fragment(a)
    assert "Truncated: 2 of 122; windows: 3." in fragment
    assert 'title="not read by the model"' in fragment
    assert "more characters" in fragment
    assert len(fragment) < 4000
    assert "Truncated: 2 of 122; windows: 3." in terminal(a)


def test_all_classes() -> None:
    a = attribution(classes=3)
    out = terminal(a)
    assert all(name in out for name in ("class 0", "class 2", "sum", "unallocated", "explained", "for every class"))
    row = next(line for line in out.splitlines() if line.startswith("A "))
    assert row.split() == ["A", "+0.100", "+0.200", "+0.300"]
    read = _Reader(render.html_fragment(a))
    assert read.coloured.count("A good film") == 3
    assert len(read.spans) == 15
    assert len(ET.fromstring(render.svg(a)).findall(".//{http://www.w3.org/2000/svg}g")) > 15
    narrow = terminal(attribution(classes=9), 50)
    assert all(f"class {c}" in narrow for c in range(9))
    assert max(map(len, narrow.splitlines())) <= 50


def test_classes_that_are_not_drawn_are_counted() -> None:
    a = attribution("One two", classes=20)
    assert "8 of 20 classes are drawn" in render.html_fragment(a)
    assert "8 of 20" in render.svg(a)
    assert "class 19" in render.html_fragment(a)


def test_plain_terminal_reads_without_colour() -> None:
    out = terminal(attribution())
    assert "\x1b" not in out
    assert "[CLS](0.000) A(+0.100) good(-0.100) film(+0.200) [SEP](-0.200)" in out
    assert "Positive (probability 0.987) | target Positive | method decompx | unit logit" in out


def test_a_terminal_gets_colours_unless_it_declines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = terminal(attribution(scores=[0.0, 1.0, -1.0, 0.5, 0.0]))
    assert "48;2;255;255;255" in out
    assert "48;2;214;96;77" in out
    assert "48;2;67;147;195" in out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "48;2" not in terminal(attribution())
    assert "A(+0.100)" in terminal(attribution())


def test_a_terminal_without_unicode_is_not_a_crash() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    render.show(attribution("A café 😀"), file, 80)
    assert b"caf?(" in raw.getvalue()
    assert b"#" in raw.getvalue()


def test_a_page_is_small_closed_and_the_same_every_time() -> None:
    a = attribution(" ".join(f"word{i}" for i in range(126)), origin={"model": "m", "weights": "ab" * 32})
    page = render.html_page([a])
    assert len(a) == 128
    assert len(page.encode()) < 25_000
    assert page == render.html_page([a])
    assert render.svg(a) == render.svg(a)
    assert render.html_fragment(a) == render.html_fragment(a)
    assert "default-src 'none'" in page
    assert "//" not in page
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert page.startswith("<!DOCTYPE html>")
    assert 'charset="utf-8"' in page
    assert "prefers-color-scheme:dark" in page


def test_a_page_of_several_shares_its_style_and_its_origins() -> None:
    made = {"model": "bert", "versions": {"torch": "2.9"}, "parity": 1.25e-7}
    items = [attribution(origin={**made, "seconds": k / 10}) for k in range(3)]
    page = render.html_page([*items, attribution(method="gradient", origin=made)], lead="A lead.")
    assert page.count("<style>") == 1
    assert page.count("how this was made") == 2
    assert page.count("made as text 1") == 2
    assert "1.25e-07" in page
    assert "torch 2.9" in page
    assert "seconds 0.2" in page
    assert "A lead." in page
    each = len(render.html_page(items * 20)) - len(render.html_page(items * 19))
    assert each / 3 < 2500
    assert "There is nothing to show." in render.html_page([])


def test_the_picture_wraps_inside_its_width_and_turns_with_the_script() -> None:
    svg = "{http://www.w3.org/2000/svg}"
    latin = ET.fromstring(render.svg(attribution("x" * 300 + " and more words " * 20)))
    boxes = [r for g in latin.iter(f"{svg}g") for r in g.findall(f"{svg}rect") if r.get("rx")]
    assert all(float(r.get("x", 0)) + float(r.get("width", 0)) <= 720 for r in boxes)
    assert len({r.get("y") for r in boxes}) > 4
    hebrew = ET.fromstring(render.svg(attribution("שלום עולם טוב")))
    assert [(t.text or "").split()[0] for t in hebrew.iter(f"{svg}title")][1] == "[CLS]"
    at = [float(r.get("x", 0)) for r in hebrew.iter(f"{svg}rect") if r.get("rx")]
    assert at == sorted(at, reverse=True)
    assert " dir=rtl" in render.html_fragment(attribution("שלום עולם טוב"))


def test_words_render_too() -> None:
    a = attribution("unbelievable film", scores=[0.0, 1.0, 2.0, 4.0, 0.0], additive=True, tokens=(
        Token("[CLS]", 0, special=True), Token("un", 1, 0, 2, word=0, sequence=0),
        Token("##believable", 2, 2, 12, word=0, sequence=0), Token("film", 3, 13, 17, word=1, sequence=0),
        Token("[SEP]", 4, special=True),
    ))  # fmt: skip
    assert "unbelievable(+3.000) film(+4.000)" in terminal(a.words())
