"""The report: order, escaping, size, the same bytes, contrast, what is left out, two models; terminal and picture."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import pellucid
from pellucid.attribution import Attribution
from pellucid.audits.identifiability.alternatives import alternatives
from pellucid.finding import Finding, Findings, Picture
from pellucid.render.charts import curves
from pellucid.render.marks import DARK, LEVELS, LIGHT, colour_of
from pellucid.report import html_page, picture, show
from pellucid.report.figures import inline
from pellucid.report.fitting import LIMIT
from pellucid.types import Token
from pellucid.verdict.verdict import Answer, Case, Sampled, Verdict

LONG = (
    "The story is slow to begin, the music is loud and most of the jokes are old, but the two leads are so warm and so "
    "quick with each other that by the end of this long and rather silly evening nobody in the room seems to mind."
)
TEXTS = ("The ending is not funny.", "A warm, funny story.", "The plot drags and the jokes fall flat.", LONG)
METHODS = ("decompx", "gradient_x_input", "attention")
HOSTILE = (
    '<script>window.hacked = 1</script> "><img src=x onerror="window.hacked = 2"> </script> <!-- ',
    "שלום עולם, סרט טוב מאוד \u202e evil \u2066",
    "😀👩‍👩‍👧 $x$ & &amp; {{7*7}} `${1}` \u2028 \x1b[31m red \x9b",
    "nul \x00 and half \ud800 a character",
)


@cache
def model() -> Any:
    return pellucid.load(pellucid.DEMO)


@cache
def audited() -> dict[str, Findings]:
    return {name: pellucid.audit(model(), list(TEXTS[:3]), name) for name in ("identifiability", "erasure_heads")}


def finding(audit: str, name: str, value: float | None, **more: Any) -> Finding:
    interval = None if value is None else (value - 0.05, value + 0.05)
    given = {"interval": interval, "null": 0.19, "n": 20, "grade": "MEASURED", "reading": f"{name} was measured."}
    given |= {"control": "random scores", "null_interval": (0.15, 0.23), "limits": (f"A limit of {audit}.",), **more}
    return Finding(audit, name, value, **given)


def others() -> dict[str, Findings]:
    """Findings of the parts that are not asked of the model here."""
    compared = [
        finding("comparison", "aopc", x, unit="AOPC, in probability", where=m)
        for m, x in (("attention", 0.31), ("decompx", 0.54), ("random", 0.19))
    ]
    rows = [
        {"word": w, "class": c, "mean": x, "low": x - 0.3, "high": x + 0.3, "null": 0.01, "n": 6, "count": 7}
        | {"p": 0.001, "q": q}
        for c in ("negative", "positive")
        for w, x, q in (("funny", 1.8, 0.001), ("warm", 0.8, 0.3))
    ]
    words = [finding("words", "top_word", 1.8, where="positive", unit="logit")]
    calibrated = [finding("calibration", "accuracy", 0.9, unit="share of texts"), finding("calibration", "ece", None)]
    reliability = Picture(
        curves, {"model": ([0.0, 1.0], [0.1, 0.9], None, None)}, "confidence", "share right", "Reliability"
    )
    return {
        "comparison": Findings([*compared, finding("comparison", "attention_behind", 0.23)], "comparison"),
        "words": Findings(words, "words", {"words": rows}),
        "calibration": Findings(calibrated, "calibration", pictures={"reliability": reliability}),
    }


def answers() -> tuple[Answer, ...]:
    unique, behind = (
        audited()["identifiability"].named("interval_width"),
        others()["comparison"].named("attention_behind"),
    )
    return (
        Answer("unique", "May the weights be unique?", "NOT UNIQUE", ("UNIQUE", "NEARLY UNIQUE", "NOT UNIQUE"),
               "The largest weight could lie elsewhere.", (unique,), tuple(audited()["identifiability"][:3]),
               "Shorter texts."),
        Answer("drives", "Does attention drive the decision?", "NOISY", ("TRUST", "NOISY", "NO LEVERAGE"),
               "More than random, less than gradients.", (behind,)),
        Answer("points", "Does it point where the decision can be read?", "TOO FEW TEXTS", ("GOES", "GOES ELSEWHERE"),
               "There are too few texts.", change="100 texts."),
    )  # fmt: skip


@cache
def cases() -> tuple[Case, ...]:
    made = {m: pellucid.explain(model(), list(TEXTS), method=m) for m in METHODS}
    out = []
    for i, text in enumerate(TEXTS):
        by = {m: found[i] for m, found in made.items()}
        first = by["decompx"]
        gold = next(x for x in model().labels if x != first.prediction) if i == 1 else first.prediction
        seen = alternatives(model(), text, layer=-1, head=0, rows=(0,))
        out.append(Case(i, by, 0.8 + i / 100, gold, seen))
    return tuple(out)


def drawn() -> dict[str, Findings]:
    return {**audited(), **others()}


def undrawn() -> dict[str, Findings]:
    """Without pictures, which take most of the time."""
    return {name: Findings(found, found.audit, found.tables) for name, found in drawn().items()}


def verdict(**more: Any) -> Verdict:
    about = {"model": "somewhere/demo", "weights": "61f6", "texts": len(TEXTS), "data": "da75", "seed": 0}
    about |= {"versions": {"pellucid": "0", "torch": "2"}, "parity": 1.4e-7, "place": "layer 2 of 2", "unheard": [1, 2]}
    given: dict[str, Any] = {
        "grade": "NOT AN EXPLANATION",
        "sentence": "Attention here is no faithful explanation; show decompx instead.",
        "instead": "decompx",
        "answers": answers(),
        "findings": undrawn(),
        "cases": cases(),
        "limits": ("This checkpoint alone.", "This checkpoint alone.", "These texts."),
        "sample": (Sampled("erasure", 4, 4), Sampled("information", 2, 4, "the time was up")),
        "about": about,
    }
    return Verdict(**given | more)


def hostile() -> Verdict:
    """Every string that a user, a model or an audit could bring."""
    bad = HOSTILE[0]
    found = [finding(bad, bad, 0.3, unit=bad, where=bad, control=bad, grade=bad, reading=bad, limits=(bad,))]
    found = [replace(f, counts={bad: 3}) for f in found]
    words = [
        {"word": t, "class": bad, "mean": 1.0, "low": 0.5, "high": 1.5, "null": 0.0, "n": 3, "q": 0.01} for t in HOSTILE
    ]
    made = {m: pellucid.explain(model(), [t.replace("\ud800", "") for t in HOSTILE], method=m) for m in METHODS}
    own = []
    for i in range(len(HOSTILE)):
        by = {f"{bad}{m}": replace(a[i], prediction=bad, label=bad, unit=bad, method=bad) for m, a in made.items()}
        own.append(Case(i, by, 0.5, HOSTILE[1], None))
    half = Token(HOSTILE[3], 7, special=False)
    odd = replace(next(iter(own[3].attributions.values())), tokens=(half,), scores=np.array([np.nan]), text=None)
    odd_picture = Picture(
        curves, {t: ([0.0, 1.0], [0.0, 1.0], None, None) for t in HOSTILE}, bad, HOSTILE[1], HOSTILE[2]
    )
    return verdict(
        grade=bad, sentence=bad, instead=bad, cases=(*own[:3], Case(3, {bad: odd})), limits=HOSTILE,
        answers=(Answer(bad, bad, bad, (bad, "B"), bad, tuple(found), tuple(found), bad),),
        sample=(Sampled(bad, 1, 2, bad),), about={"model": bad, bad: {bad: HOSTILE[1]}, "place": bad, "texts": bad},
        findings={
            bad: Findings(found, bad),
            "words": Findings(found, "words", {"words": words}, {bad: odd_picture}),
            "calibration": Findings(found, "calibration", pictures={bad: odd_picture}),
            "comparison": Findings(found, "comparison"),
        },
    )  # fmt: skip


class Read(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self.inside = "", [], ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = tag
            self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif not self.inside:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]

    @property
    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.tags if a.get("id")]  # type: ignore[misc]


@cache
def page() -> str:
    return html_page(
        [verdict(findings=drawn())], ["pellucid", "audit", "--input", "my reviews.csv"], {"all numbers": "verdict.json"}
    )


def test_the_page_opens_with_the_verdict_and_keeps_its_order() -> None:
    text = " ".join(Read(page()).text.split())
    parts = (
        "NOT AN EXPLANATION", "Attention here is no faithful explanation", "Show instead: decompx", "Three questions",
        "May the weights be unique?", "What would change it: Shorter texts.", "Text by text", "Which method finds",
        "Words that push negative", "Confidence and errors", "Reliability", "Every number, with its control",
        "What this does not say", "How to make this again", "pellucid audit --input 'my reviews.csv'",
    )  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.index("demo") < text.index("Three questions")


def test_headings_landmarks_and_names_are_there() -> None:
    read = Read(page())
    levels = [int(t[1]) for t, _ in read.tags if re.fullmatch(r"h\d", t)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert read.named("html")[0]["lang"] == "en"
    assert len(read.ids) == len(set(read.ids))
    targets = [a["href"][1:] for a in read.named("a") if (a.get("href") or "").startswith("#")]  # type: ignore[index]
    assert "main" in targets
    assert set(targets) <= set(read.ids)
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in read.named("svg"))
    assert all(a.get("aria-label") for t, a in read.tags if a.get("role") == "region")


def test_the_page_asks_no_one_and_its_script_is_the_one_that_the_policy_allows() -> None:
    read = Read(page())
    policy = read.named("meta")[1]["content"] or ""
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    data, script = read.scripts
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    json.loads(data)
    assert not {"link", "iframe", "object", "base", "form", "embed"} & {t for t, _ in read.tags}
    assert not re.search(r"https?:|@import|url\((?!#)", page())
    assert not [a for _, a in read.tags if any(k.startswith("on") for k in a)]
    assert all((a.get("href") or "#")[0] == "#" or a["href"] == "verdict.json" for a in read.named("a"))


def test_links_lead_nowhere_but_to_pages() -> None:
    made = html_page([verdict(cases=())], links={"x": "javascript:alert(1)", "<b>": "https://example.org/?a=1&b=2"})
    hrefs = [a.get("href") for a in Read(made).named("a")]
    assert "https://example.org/?a=1&b=2" in hrefs
    assert not any("javascript" in (h or "") for h in hrefs)


@pytest.mark.parametrize("count", [1, 2])
def test_hostile_text_stays_text(count: int) -> None:
    made = html_page([hostile()] * count, [HOSTILE[0], HOSTILE[1], "\x00"], {HOSTILE[0]: "a.html"})
    read = Read(made)
    assert Counter(t for t, _ in read.tags)["script"] == 2
    assert not {"img", "b>", "style>"} & {t for t, _ in read.tags}
    assert not [a for _, a in read.tags if any(k.startswith("on") for k in a)]
    assert "<script>window.hacked = 1</script>" in read.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", made)
    data = json.loads(read.scripts[0])
    assert not set("<>&") & set(read.scripts[0])
    assert len(data) == 4
    assert {a.get("dir") for _, a in read.tags if a.get("class") == "text"} == {"ltr", "rtl"}
    made.encode("utf-8")


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_input_gives_the_same_bytes(count: int) -> None:
    found = drawn() if count == 1 else undrawn()
    assert html_page([verdict(findings=found)] * count) == html_page([verdict(findings=found)] * count)
    assert not re.search(r"\b20\d\d-\d\d-\d\d|seconds", page())


def many(n: int, tokens: int) -> tuple[Case, ...]:
    """Texts of that many tokens, with three methods each."""
    text = " ".join(f"word{k}" for k in range(tokens))
    starts = [m.start() for m in re.finditer(r"\S+", text)]
    pieces = tuple(Token(f"word{k}", k, at, at + len(f"word{k}"), word=k) for k, at in enumerate(starts))
    made = replace(cases()[0].first, tokens=pieces, text=text, scores=np.linspace(-1.0, 2.0, tokens))
    return tuple(Case(i, dict.fromkeys(METHODS, made)) for i in range(n))


@pytest.mark.parametrize(("n", "tokens"), [(60, 25), (300, 40), (30, 512), (1, 8_000)])
def test_a_page_stays_below_its_limit_and_says_what_it_leaves_out(n: int, tokens: int) -> None:
    made = html_page([verdict(cases=many(n, tokens), findings=drawn() if n == 30 else undrawn())])
    assert len(made.encode()) < LIMIT
    there = Read(made).text.count("Strongest:")
    assert (f"{n - there} of {n} texts" in made) == (there < n)
    assert there == n if n == 60 else there < n
    assert made.count("<figcaption>") == (4 if n == 30 else 0)


def test_two_large_models_stay_below_the_limit() -> None:
    made = html_page([verdict(cases=many(60, 40)), verdict(cases=many(60, 40), about={"model": "b"})])
    assert len(made.encode()) < LIMIT
    assert "texts are left out here" in made


def test_every_text_is_there_without_a_script() -> None:
    read = Read(page())
    text = " ".join(read.text.split())
    for words in ("not funny", "A warm, funny story.", "nobody in the room"):
        assert words in text
    assert text.count("Strongest:") == len(TEXTS)
    assert text.count("WRONG") == 1
    assert "calibrated 0.810" in text
    titles = [a["title"] for t, a in read.tags if t == "span" and re.fullmatch(r"[+-]?\d\.\d+", a.get("title") or "")]
    assert len(titles) == sum(len(c.first) for c in cases())


def test_the_data_holds_the_numbers_that_are_printed() -> None:
    data = json.loads(Read(page()).scripts[0])
    assert len(data) == len(TEXTS)
    for (one,), case in zip(data, cases(), strict=True):
        assert list(one["m"]) == list(METHODS)
        for name, (scores, digits, signed, unit, label, _, scale) in one["m"].items():
            a = case.attributions[name]
            assert np.allclose(np.array(scores) / 10**digits, a.scores, atol=5e-4)
            assert (bool(signed), unit, label) == (a.signed, a.unit, a.label)
            assert scale == pytest.approx(np.abs(a.scores).max(), rel=1e-3)


def test_attention_that_is_unique_and_attention_that_is_not() -> None:
    text = " ".join(Read(page()).text.split())
    assert text.count("No other attention gives this output") == 3
    assert "the witness moves" in text
    assert "could lie in" in text
    data = json.loads(Read(page()).scripts[0])
    assert [list(one["a"]["r"]) for (one,) in data[:3]] == [["raw"]] * 3
    free = data[3][0]["a"]
    assert list(free["r"]) == ["raw", "effective", "max_entropy", "witness"]
    assert all(lo <= x <= hi for lo, x, hi in zip(free["lo"], free["r"]["raw"], free["hi"], strict=True))


def test_figures_do_not_share_ids_or_styles() -> None:
    made = html_page([verdict(findings=drawn()), verdict(findings=drawn(), about={"model": "other"})])
    read = Read(made)
    assert made.count("<figure>") == 2 * 4
    assert len(read.ids) == len(set(read.ids))
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', made[made.index("<figure>") :])
    assert set(used) <= set(read.ids)
    assert made.count("<style") == 1
    assert "metadata" not in made
    for svg in re.findall(r"<figure>(<svg.*?</svg>)<figcaption>", made, re.DOTALL):
        ET.fromstring(svg)


def test_a_picture_from_a_file_brings_only_what_draws() -> None:
    made = inline(
        b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="a()"><script>a()</script><g onclick="a()">'
        b'<path d="M 0 0 L 1.234 5" id="x"/><use href="https://example.org/#x"/><use href="#x"/><foreignObject/></g>'
        b"<style>*{color:red}</style><text>a &lt;b&gt;</text></svg>",
        "f", 'a "label"',
    )  # fmt: skip
    assert not re.search("script|on(load|click)|example|foreign|<style", made)
    assert '<path d="M0 0L1.2 5" id="f0"/><use/><use href="#f0"/><text>a &lt;b&gt;</text>' in made
    ET.fromstring(made)


def test_two_models_stand_side_by_side() -> None:
    moved = tuple(
        replace(a, deciding=tuple(replace(f, value=0.9, interval=(0.85, 0.95)) for f in a.deciding)) for a in answers()
    )
    turned = tuple(
        replace(c, attributions={m: replace(a, prediction="other") for m, a in c.attributions.items()})
        if c.index == 2 else c
        for c in cases()
    )  # fmt: skip
    second = verdict(answers=moved, cases=turned[1:], about={"model": "elsewhere/demo"}, grade="WITH CARE")
    read = Read(html_page([verdict(), second]))
    text = " ".join(read.text.split())
    assert "somewhere/demo" in text
    assert "elsewhere/demo" in text
    assert text.count("the intervals do not overlap") == 2
    assert [m.group() for m in re.finditer(r"Text \d", text)] == ["Text 3", "Text 1", "Text 2", "Text 4"]
    assert "Text 3; the models disagree" in text
    assert [len(one) for one in json.loads(read.scripts[0])] == [2, 1, 2, 2]
    assert max(text.index("NOT AN EXPLANATION"), text.index("WITH CARE")) < text.index("side by side")
    same = " ".join(Read(html_page([verdict(), verdict()])).text.split())
    assert "somewhere/demo (first)" in same
    with pytest.raises(ValueError, match="3 were given"):
        html_page([verdict()] * 3)


def test_little_is_enough() -> None:
    made = html_page([Verdict("UNDECIDED", "Too little was measured.", "", (), {})])
    assert "UNDECIDED" in made
    assert "No text is shown." in made
    assert "audit_all" in made
    bare = verdict(findings={"words": Findings([], "words"), "calibration": Findings([], "calibration")}, cases=())
    assert "Words for" not in html_page([bare])


def contrast(a: str, b: str) -> float:
    """By WCAG 2."""

    def light(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def palettes() -> list[dict[str, str]]:
    """The colours of style.css by name: light, and dark."""
    style = resources.files("pellucid.report").joinpath("style.css").read_text(encoding="utf-8")
    found = [dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", block)) for block in re.findall(r":root\{[^}]*\}", style)]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_a_contrast_of_4_5(dark: bool) -> None:
    c = palettes()[dark]
    pairs = [(c[ink], c[paper]) for ink in ("ink", "dim", "link") for paper in ("paper", "page")]
    pairs += [(c[tone], c[f"{tone}-bg"]) for tone in ("good", "care", "bad", "open")]
    ramps = DARK if dark else LIGHT
    pairs += [(c["ink"], colour_of(k / LEVELS, stops)) for stops in ramps.values() for k in range(LEVELS + 1)]
    assert min(contrast(*p) for p in pairs) >= 4.5
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    # what is drawn, and the ring of the focus
    assert min(contrast(c["mark"], c[paper]) for paper in ("paper", "page")) >= 3


def terminal(v: Verdict, width: int | None) -> str:
    out = io.StringIO()
    show(v, out, width)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_terminal_tells_it_within_its_width(width: int) -> None:
    out = terminal(verdict(), width)
    assert max(map(len, out.splitlines())) <= width
    flat = " ".join(out.split())
    for said in (
        "NOT AN EXPLANATION", "Attention here is no faithful explanation", "What would change it: Shorter texts.",
        "These texts.", "information: 2 of 4 texts (the time was up)", "0.230",
    ):  # fmt: skip
        assert said in flat or width == 40
    assert out.count("This checkpoint alone.") == 1
    assert "\x1b" not in terminal(hostile(), width)


def test_the_picture_is_valid_and_says_the_same() -> None:
    for v in (verdict(), hostile(), verdict(answers=())):
        root = ET.fromstring(picture(v).encode())
        assert root.get("width") == "760"
        assert picture(v) == picture(v)
    text = "".join(ET.fromstring(picture(verdict())).itertext())
    assert "NOT AN EXPLANATION" in text
    assert "TOO FEW TEXTS" in text
    assert "May the weights be unique?" in text


def test_an_attribution_of_all_classes_shows_the_predicted_one() -> None:
    a = pellucid.explain(model(), TEXTS[0], target="all")
    assert isinstance(a, Attribution)
    made = html_page([verdict(cases=(Case(0, {"decompx": a}),))])
    ((one,),) = json.loads(Read(made).scripts[0])
    assert np.allclose(np.array(one["m"]["decompx"][0]) / 1000, a.scores[:, a.labels.index(a.prediction)], atol=5e-4)


def test_methods_over_other_tokens_are_refused() -> None:
    first, other = cases()[0].first, cases()[2].first
    mixed: Sequence[Case] = (Case(0, {"decompx": first, "attention": other}),)
    with pytest.raises(ValueError, match="attention has"):
        html_page([verdict(cases=tuple(mixed))])
