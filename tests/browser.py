"""A real browser for tests of pages: headless Chromium from this machine, driven by Playwright, nothing downloaded.

    from browser import chromium, page_at, screenshot      # `chromium` is a fixture; importing it registers it

    def test_page(chromium):
        with page_at(chromium, url, viewport=PHONE) as page:     # url may be "file:///..."
            ...
            screenshot(page, "report-phone")
        assert not page.complaints

Where Playwright or Chromium is missing, whatever asks for `chromium` is skipped with the reason.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

DESKTOP, PHONE = (1280, 900), (390, 844)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARTEFACTS = Path(__file__).resolve().parents[1] / "browser-artefacts"
"""Screenshots of the latest run; git ignores the folder."""


def program() -> str | None:
    """Where Chromium is on this machine."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One running headless Chromium for a module; each test opens pages of its own in it. (Not for the session:
    Playwright keeps an event loop running in this thread meanwhile, which other modules must not meet.)"""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    path = program()
    if path is None:
        pytest.skip(f"needs a Chromium on this machine, called one of {', '.join(NAMES)}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def page_at(
    browser: Any,
    url: str,
    viewport: tuple[int, int] = DESKTOP,
    dark: bool = False,
    touch: bool | None = None,
    allowed: tuple[str, ...] = ("127.0.0.1", "localhost", ""),
) -> Iterator[Any]:
    """A page that has loaded `url`, in a context of its own: no cookies, no cache.

    page.complaints: errors of the console, uncaught exceptions, failed answers and requests to hosts that are not
    `allowed` (which are stopped), as sentences. touch: None makes viewports narrower than 600 pixels a touch screen.
    """
    width, height = viewport
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        has_touch=width < 600 if touch is None else touch,
    )
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda m: m.type == "error" and page.complaints.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: page.complaints.append(f"exception: {e}"))
    page.on("response", lambda r: r.status >= 400 and page.complaints.append(f"status {r.status}: {r.url}"))

    def checked(route: Any) -> None:
        host = urlsplit(route.request.url).hostname or ""
        if host in allowed:
            route.continue_()
        else:
            page.complaints.append(f"asks another host: {route.request.url}")
            route.abort()

    page.route("**/*", checked)
    page.set_default_timeout(60_000)  # a busy machine is no failure
    try:
        page.goto(url)
        yield page
    finally:
        context.close()


def screenshot(page: Any, name: str, whole: bool = True) -> Path:
    """A picture of the page, `whole` or what is in view, as browser-artefacts/NAME.png."""
    ARTEFACTS.mkdir(exist_ok=True)
    path = ARTEFACTS / f"{name}.png"
    page.screenshot(path=path, full_page=whole)
    return path


def sideways(page: Any) -> int:
    """By how many pixels the page is wider than its window: 0 unless one must scroll sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
