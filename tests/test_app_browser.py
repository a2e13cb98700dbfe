"""The page in a real browser: headless Chromium, driven by Playwright; skipped, with the reason, where one is missing.

Screenshots are kept in browser-artefacts/.
"""

import inspect
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from browser import DESKTOP, PHONE, chromium, page_at, screenshot, sideways

import pellucid
from pellucid.app import Limits, server
from pellucid.app.lessons import LESSONS

gradio = pytest.importorskip("gradio", reason="needs the extra app: pip install gradio")
__all__ = ["chromium"]  # a fixture
HOSTILE = "<img src=x onerror=\"document.title='hurt'\"><script>document.title='hurt'</script> ${1+1} {{1}} fun"


@pytest.fixture(scope="module")
def url(demo: pellucid.Model, chromium: Any) -> Iterator[str]:
    """A page of two models: the same weights under two names, one of them hostile."""
    models = {"demo": demo, "<b>second</b>": demo}
    running = server.start(models, port=0, limits=Limits(tokens=100, queue=40), demo="demo")
    yield running.url
    running.close()


def at(chromium: Any, url: str, viewport: tuple[int, int] = DESKTOP, dark: bool = False) -> AbstractContextManager[Any]:
    return page_at(chromium, url, viewport, dark)


def shown(page: Any, tab: str = "tokens") -> Any:
    """The panel of a tab, once it has an answer."""
    panel = page.locator(f"#panel-{tab} .pell")
    panel.wait_for()
    return panel


def ask(page: Any, text: str) -> None:
    page.get_by_label("Your text").fill(text)
    page.get_by_role("button", name="Explain", exact=True).click()


def test_it_loads_without_a_word_on_the_console(chromium: Any, url: str) -> None:
    with at(chromium, url) as page:
        assert "negative" in shown(page).inner_text()
        page.wait_for_timeout(500)  # what a page asks for late, such as fonts
        assert page.title().startswith("Pellucid")
        assert page.evaluate("window.gradio_config.analytics_enabled") is False
        screenshot(page, "app-desktop")
    assert not page.complaints, page.complaints


def test_a_method_is_switched_and_a_word_tells_its_number(chromium: Any, url: str) -> None:
    with at(chromium, url) as page:
        panel = shown(page)
        word = panel.locator(".strip .t", has_text="not").first
        word.hover()
        told = page.evaluate("e => getComputedStyle(e, '::after').content", word.element_handle())
        assert "not  +2.733 logit" in told
        screenshot(page, "app-hover")
        page.locator("#methods input").click()
        page.get_by_role("option", name="attention", exact=True).click()
        panel.get_by_role("heading", name="attention").wait_for()
        assert panel.locator("h3").all_inner_texts() == ["decompx", "attention"]
        page.keyboard.press("Escape")
        page.locator("#methods").get_by_label("Remove decompx").or_(
            page.locator("#methods .token-remove").first
        ).first.click()
        panel.locator("h3", has_text="decompx").wait_for(state="detached")
        screenshot(page, "app-method")
    assert not page.complaints, page.complaints


def test_words_are_erased_by_mouse_and_by_keyboard(chromium: Any, url: str) -> None:
    with at(chromium, url) as page:
        shown(page)
        page.get_by_role("tab", name="Erase a word").click()
        panel = shown(page, "erase")
        panel.get_by_role("button", name="not").click()
        panel.get_by_text("changes its mind").wait_for()
        assert panel.get_by_role("button", name="not").get_attribute("aria-pressed") == "true"
        screenshot(page, "app-erase")
        assert page.evaluate("document.activeElement.dataset.at") == "4", "the keyboard stays where it was"
        page.keyboard.press("Enter")  # put back
        panel.get_by_text("Which words can you take away").wait_for()
        page.keyboard.press("Tab")
        page.keyboard.press("Space")  # "funny"
        panel.get_by_text("the model still says negative").wait_for()
        assert panel.get_by_role("button", name="funny").get_attribute("aria-pressed") == "true"
        ask(page, "A warm and funny story.")
        panel.get_by_text("Which words can you take away").wait_for()
        assert panel.locator("[aria-pressed=true]").count() == 0, "another text begins whole"
    assert not page.complaints, page.complaints


def test_hostile_text_is_text(chromium: Any, url: str) -> None:
    with at(chromium, url) as page:
        shown(page)
        page.get_by_role("tab", name="Compare").click()
        page.get_by_label("Second text").fill(HOSTILE)
        for tab, name in (
            ("compare", "Compare"),
            ("erase", "Erase"),
            ("attention", "Attention"),
            ("tokens", "Which words"),
        ):
            page.get_by_role("tab", name=name).click()
            ask(page, HOSTILE)
            panel = shown(page, tab)
            panel.get_by_text("onerror").first.wait_for()
            assert panel.locator("img,script").count() == 0
        assert HOSTILE.split()[0] in panel.inner_text()
        assert page.locator("#note .note").count() == 0, "a note about an example is not about this text"
        assert "${1+1} {{1}}" in panel.locator(".strip").first.inner_text()
        page.locator("#model input").click()
        page.get_by_role("option", name="<b>second</b>").click()
        page.wait_for_timeout(500)
        panel.get_by_text("onerror").first.wait_for()
        assert page.title().startswith("Pellucid")
        screenshot(page, "app-hostile")
        ask(page, "<script>" * 200)
        alert = panel.get_by_role("alert")
        alert.wait_for()
        assert "shorten it" in alert.inner_text()
        page.wait_for_timeout(300)
        assert page.evaluate("e => getComputedStyle(e).borderLeftColor", alert.element_handle()) == "rgb(178, 24, 43)"
        screenshot(page, "app-refusal")
    assert not page.complaints, page.complaints


def test_what_attention_could_have_been(chromium: Any, url: str) -> None:
    with at(chromium, url, dark=True) as page:
        shown(page)
        page.get_by_role("button", name="A long text").click()
        panel = shown(page, "others")
        panel.get_by_text("This attention is not unique").wait_for()
        assert panel.locator("h4").count() == 4
        screenshot(page, "app-others-dark")
        panel.get_by_role("button", name="warm").click()
        panel.locator("h3", has_text="from warm").wait_for()
        page.get_by_role("tab", name="Attention").click()
        shown(page, "attention").get_by_text("attends to these words").wait_for()
        dark = page.evaluate("getComputedStyle(document.querySelector('#panel-attention section')).backgroundColor")
        assert dark == "rgb(22, 24, 29)"
    assert not page.complaints, page.complaints


def test_a_phone_never_scrolls_sideways(chromium: Any, url: str) -> None:
    with at(chromium, url, PHONE) as page:
        shown(page)
        for i, lesson in enumerate(LESSONS):
            page.get_by_role("button", name=lesson.title).click()
            first = lesson.text.split()[1]
            word = shown(page, lesson.tab).locator(".strip .t", has_text=first).first
            word.wait_for()
            word.tap()
            assert sideways(page) == 0, lesson.title
            screenshot(page, f"app-phone-{i}")
        tabs = page.get_by_role("tab")
        if "overflow_behavior" in inspect.signature(gradio.Tabs).parameters:  # else the last ones are in a menu
            assert tabs.count() == 5
        for tab in tabs.all():
            tab.tap()
            page.wait_for_timeout(100)
            assert sideways(page) == 0
    assert not page.complaints, page.complaints


TWENTY = """
async (asked) => {
  const one = async (data) => {
    const start = await fetch('gradio_api/call/explain', {
      method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({data})});
    const {event_id} = await start.json();
    return (await fetch(`gradio_api/call/explain/${event_id}`)).text();
  };
  return Promise.all(asked.map(one));
}
"""


def answers(page: Any, asked: list[list[str]]) -> list[tuple[str, Any]]:
    """Event and data of questions that the browser asks all at once."""
    lines = [text.strip().splitlines() for text in page.evaluate(TWENTY, asked)]
    return [(a[-2].removeprefix("event: "), json.loads(a[-1].removeprefix("data: "))) for a in lines]


def test_twenty_at_once_get_their_own_answers(chromium: Any, url: str, demo: pellucid.Model) -> None:
    words = ("good", "dull", "funny", "warm", "loud")
    texts = [f"The {noun} is {word}." for noun in ("ending", "film", "story", "music") for word in words]
    methods = ("decompx", "gradient_x_input", "leave_one_out", "deeplift")
    names = ("demo", "<b>second</b>")
    asked = [[t, names[i % 2], methods[i % 4], "positive"] for i, t in enumerate(texts)]
    with at(chromium, url) as page:
        shown(page)
        found = answers(page, asked)
        assert shown(page).is_visible()
    assert [event for event, _ in found] == ["complete"] * 20
    for (text, _, method, _), (_, (record,)) in zip(asked, found, strict=True):
        want = pellucid.explain(demo, text, method, target=1)
        assert record["scores"] == want.scores.tolist()
        assert record["text"] == text


def test_one_too_many_is_told_at_once(chromium: Any, demo: pellucid.Model) -> None:
    running = server.start({"demo": demo}, port=0, limits=Limits(queue=2))
    try:
        with at(chromium, running.url) as page:
            shown(page)
            asked = [[f"{LESSONS[-1].text} {i}", "demo", "sampled_shapley", "positive"] for i in range(5)]
            found = answers(page, asked)
            said = [json.dumps(data) for event, data in found if event == "error"]
            assert 1 <= len(said) <= 3
            assert all("2 questions are waiting already" in s for s in said), said
            assert sum(event == "complete" for event, _ in found) == 5 - len(said)
    finally:
        running.close()
