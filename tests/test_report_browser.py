"""The report in a real browser: it loads, methods switch, numbers show, hostile text stays text, it fits a phone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, chromium, page_at, screenshot, sideways
from test_report import METHODS, TEXTS, Read, answers, cases, drawn, hostile, page, verdict

from pellucid.report import html_page

__all__ = ["chromium"]


@cache
def pair() -> str:
    turned = replace(
        cases()[2], attributions={m: replace(a, prediction="other") for m, a in cases()[2].attributions.items()}
    )
    second = verdict(cases=(*cases()[:2], turned), about={"model": "elsewhere/demo"}, answers=answers()[:2])
    return html_page([verdict(findings=drawn()), second])


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> dict[str, str]:
    """Pages by name, as files."""
    folder = tmp_path_factory.mktemp("report")
    made = {"one": page(), "pair": pair(), "hostile": html_page([hostile()])}
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: Path(folder / f"{name}.html").as_uri() for name in made}


@pytest.fixture
def one(chromium: Any, urls: dict[str, str]) -> Iterator[Any]:
    """The page of one model on a desktop, without complaints at the end."""
    with page_at(chromium, urls["one"]) as opened:
        yield opened
        assert not opened.complaints


def shown(opened: Any) -> Any:
    return opened.locator(".case:visible")


def test_it_loads_and_shows_one_text_at_a_time(one: Any) -> None:
    assert shown(one).count() == 1
    assert one.locator("#which option").count() == len(TEXTS)
    assert one.locator("#count").inner_text() == "1 of 4"
    assert "NOT AN EXPLANATION" in one.locator("header").inner_text()
    screenshot(one, "report-desktop")


def test_what_the_script_paints_is_what_stands_there_without_it(one: Any) -> None:
    static = [a["title"] for t, a in Read(page()).tags if t == "span" and a.get("title", "x")[-1:].isdigit()]
    painted: list[str] = []
    for _ in TEXTS:
        painted += shown(one).locator(".text span").evaluate_all("all => all.map(e => e.title)")
        if one.locator("#next").is_enabled():
            one.locator("#next").click()
    assert painted == static


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_switched_and_stays_for_the_next_text(one: Any, method: str) -> None:
    one.locator(f'input[value="{method}"]').check()
    for k in range(2):
        a = cases()[k].attributions[method]
        titles = shown(one).locator(".text span").evaluate_all("all => all.map(e => Number(e.title))")
        assert titles == pytest.approx(a.scores.tolist(), abs=5e-4)
        levels = " ".join(shown(one).locator(".text span").evaluate_all("all => all.map(e => e.className)"))
        assert ("u12" in levels) == (not a.signed)
        assert ("add up" in shown(one).locator(".sum").inner_text()) == (not a.complete)
        one.locator("#next").click()
    screenshot(one, f"report-{method}")


def test_pointing_focus_and_keys_tell_the_number(one: Any) -> None:
    one.locator('input[value="decompx"]').check()
    word = shown(one).locator(".text span", has_text="funny")
    word.hover()
    score = cases()[0].attributions["decompx"].scores[5]
    assert f"“funny”  {score:+.3f} logit" in one.locator("#readout").inner_text()
    first = shown(one).locator(".text span").first
    first.focus()
    one.keyboard.press("ArrowRight")
    assert "“The”" in one.locator("#readout").inner_text()
    one.keyboard.press("End")
    assert "“[SEP]”" in one.locator("#readout").inner_text()
    assert shown(one).locator(".text span[tabindex='0']").count() == 1
    one.locator("#next").focus()
    one.keyboard.press("ArrowRight")
    assert one.locator("#count").inner_text() == "2 of 4"
    one.keyboard.press("ArrowLeft")
    assert one.locator("#count").inner_text() == "1 of 4"


def test_attention_beside_its_alternatives(one: Any) -> None:
    assert shown(one).locator(".strip").count() == 1
    one.locator("#which").select_option(index=3)
    assert shown(one).locator(".strip b").all_inner_texts() == [
        "attention",
        "effective attention",
        "most even",
        "witness",
    ]
    shown(one).locator(".strip").nth(3).locator("span.tokens span").nth(5).hover()
    told = one.locator("#readout").inner_text()
    assert "witness" in told
    assert "could lie anywhere from" in told
    shown(one).screenshot(path=screenshot(one, "report-attention", whole=False))


def test_texts_are_filtered_and_ordered(one: Any) -> None:
    one.locator("#filter").select_option("wrong")
    assert one.locator("#count").inner_text() == "1 of 1"
    assert "WRONG" in shown(one).inner_text()
    one.locator("#filter").select_option("")
    one.locator("#order").select_option("least")
    sure = one.locator("#which option").evaluate_all(
        "all => all.map(e => Number(document.querySelectorAll('.case')[e.value].dataset.sure))"
    )
    assert sure == sorted(sure)


def test_every_stop_of_the_keyboard_can_be_seen(one: Any) -> None:
    seen = set()
    for _ in range(60):
        one.keyboard.press("Tab")
        told = one.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            "return [e.tagName + '#' + e.id, s.outlineStyle !== 'none' || s.boxShadow !== 'none'] }"
        )
        seen.add(told[0])
        assert told[1] or told[0].startswith("BODY"), told
    assert {"BUTTON#next", "SELECT#which", "SELECT#filter"} <= seen
    assert any(name.startswith("SUMMARY") for name in seen)


@pytest.mark.parametrize(
    ("name", "look"),
    [("one", "phone"), ("one", "dark"), ("pair", "phone"), ("hostile", "phone"), ("hostile", "narrow")],
)
def test_no_page_scrolls_sideways(chromium: Any, urls: dict[str, str], name: str, look: str) -> None:
    size = {"phone": PHONE, "dark": DESKTOP, "narrow": (320, 640)}[look]
    with page_at(chromium, urls[name], size, dark=look == "dark") as opened:
        for each in opened.locator("details").all():
            each.evaluate("e => { e.open = true }")
        assert sideways(opened) == 0
        screenshot(opened, f"report-{name}-{look}")
        if look == "phone":
            opened.locator(".case:visible .text span").nth(1).tap()
            assert opened.locator("#readout").is_visible()
        assert not opened.complaints


CONTRASTS = """() => {
  const numbers = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const light = (c) => c.slice(0, 3).map((x) => linear(x / 255)).reduce(
    (sum, x, k) => sum + x * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const c = numbers(getComputedStyle(at).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *:not(script):not(svg):not(svg *):not(:disabled)")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility()) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.tagName + "." + e.className + ": " + e.textContent.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_as_painted_has_a_contrast_of_4_5(chromium: Any, urls: dict[str, str], dark: bool) -> None:
    with page_at(chromium, urls["pair"], dark=dark) as opened:
        for each in opened.locator("details").all():
            each.evaluate("e => { e.open = true }")
        found = opened.evaluate(CONTRASTS)
    assert len(found) > 500
    assert found[0][0] >= 4.5, found[:5]


def test_hostile_text_runs_nothing(chromium: Any, urls: dict[str, str]) -> None:
    with page_at(chromium, urls["hostile"]) as opened:
        for method in opened.locator("input[name=method]").all():
            method.check()
        for k in range(4):
            opened.locator("#which").select_option(index=k)
        assert opened.evaluate("window.hacked") is None
        assert opened.locator("img").count() == 0
        assert (
            "<script>" in opened.locator("h1 + *").inner_text() or "<script>" in opened.locator("header").inner_text()
        )
        assert not opened.complaints


def test_two_models_on_the_same_text(chromium: Any, urls: dict[str, str]) -> None:
    with page_at(chromium, urls["pair"]) as opened:
        assert shown(opened).locator(".panel").count() == 2
        assert "disagree" in shown(opened).inner_text()
        opened.locator("#filter").select_option("differ")
        assert opened.locator("#count").inner_text() == "1 of 1"
        opened.locator('input[value="attention"]').check()
        assert opened.locator(".case:visible .unit").all_inner_texts()[0].endswith("by attention")
        assert not opened.complaints


def test_on_paper_and_without_a_script_every_text_is_there(chromium: Any, urls: dict[str, str]) -> None:
    with page_at(chromium, urls["one"]) as opened:
        opened.emulate_media(media="print")
        assert shown(opened).count() == len(TEXTS)
        assert not opened.locator("#browse").is_visible()
        screenshot(opened, "report-print")
    context = chromium.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(urls["one"])
    assert bare.locator(".case:visible").count() == len(TEXTS)
    assert not bare.locator("#browse").is_visible()
    context.close()
