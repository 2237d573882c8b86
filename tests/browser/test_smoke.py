"""Each page in a real browser: it opens, it is quiet, it fetches nothing from elsewhere, it fits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import Browser, Page

from benchmarks.dashboard import Pulse
from tests.browser.conftest import SEOUL, data_root, serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIZES = {"wide": (1400, 900), "phone": (390, 844)}
PHONE = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36"
PATHS = {
    "overview": "/", "trends": "/trends", "suggestions": "/suggestions", "targets": "/targets",
    "backtest": "/backtest", "history": "/history", "review": "/review", "help": "/help",
}  # fmt: skip
# Streamlit looks for its server below the page's own path first and is told "not here" by a 404.
LOOKING_AROUND = re.compile(r"/[a-z]+/_stcore/(health|host-config)$")


@dataclass
class Noise:
    """What a page did that a quiet one would not."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def listen(page: Page, origin: str) -> Noise:
    noise = Noise()
    ours = (origin, origin.replace("http", "ws", 1), "data:", "blob:")
    page.on("pageerror", lambda error: noise.errors.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(ours) else noise.foreign.append(r.url))
    page.on("websocket", lambda w: None if w.url.startswith(ours) else noise.foreign.append(w.url))

    def console(message: object) -> None:
        where = str(getattr(message, "location", {}).get("url", ""))
        if getattr(message, "type", "") == "error" and not LOOKING_AROUND.search(where):
            noise.errors.append(f"{getattr(message, 'text', '')} {where}")

    page.on("console", console)
    return noise


@pytest.mark.parametrize(
    ("name", "language", "scheme", "size"),
    # every page in every size; languages and themes take turns, the first page has them all
    [*product(("overview",), ("ko", "en"), ("light", "dark"), SIZES)]
    + [
        (name, language, scheme, size)
        for name in list(PATHS)[1:]
        for language, scheme, size in (("ko", "light", "wide"), ("en", "dark", "phone"))
    ],
)
def test_page_in_a_browser(
    name: str, language: str, scheme: str, size: str, server: str, browser: Browser
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        locale="ko-KR" if language == "ko" else "en-US",
        timezone_id="America/New_York",
        user_agent=PHONE if size == "phone" else None,
    )
    page = context.new_page()
    noise = listen(page, server)
    page.goto(server + PATHS[name])
    page.wait_for_selector("h1", timeout=60_000)
    if name == "overview":
        page.wait_for_selector(
            "[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas", timeout=60_000
        )
    page.wait_for_timeout(800)
    sizes = page.evaluate(
        "() => (m => [m.scrollWidth, m.clientWidth])(document.querySelector('[data-testid=stMain]'))"
    )
    title = page.locator("h1").first.inner_text()
    ground = page.evaluate("() => getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    context.close()  # an open page would go on renewing itself beside the next test
    assert noise.errors == [] and noise.foreign == []
    assert sizes[0] <= sizes[1], "the page scrolls sideways"
    assert bool(re.search("[가-힣]", title)) is (language == "ko")
    assert (sum(int(c) for c in re.findall(r"\d+", ground)[:3]) < 380) is (scheme == "dark")


def test_times_are_those_of_the_settings_not_of_the_browser(server: str, browser: Browser) -> None:
    """In New York the axis still shows the hours of Seoul."""
    hours = []
    for zone in ("America/New_York", "Asia/Seoul"):
        page = browser.new_context(timezone_id=zone, viewport={"width": 1400, "height": 900}).new_page()
        page.goto(server)
        page.wait_for_selector("[data-testid=stVegaLiteChart] svg text", timeout=60_000)
        page.wait_for_timeout(500)
        texts = page.locator("[data-testid=stVegaLiteChart] svg text").all_text_contents()
        page.context.close()
        hours.append({t[:2] for t in texts if re.fullmatch(r"\d\d:\d\d", t)})
    now = datetime.now(UTC).astimezone(SEOUL)
    seoul = {(now - timedelta(minutes=m)).strftime("%H") for m in (0, 30)}
    assert hours[0] and hours[0] <= seoul and hours[1] <= seoul


def test_language_link_is_remembered(server: str, browser: Browser) -> None:
    page = browser.new_context(locale="ko-KR", viewport={"width": 1400, "height": 900}).new_page()
    page.goto(f"{server}/help")
    page.get_by_role("link", name="English").click()
    page.wait_for_selector("h1:has-text('How selftune works')", timeout=60_000)
    assert page.url == f"{server}/help"
    page.goto(server)
    page.wait_for_selector("h1", timeout=60_000)
    title = page.locator("h1").first.inner_text()
    page.context.close()
    assert not re.search("[가-힣]", title)


def test_a_tick_changes_the_chart_in_place(tmp_path: Path, browser: Browser) -> None:
    """The drawn picture survives renewals: no blank frame, and zoom and table stay.

    On a server of its own, whose pace no other test's reader lengthens. A chart may be drawn anew when what
    it shows changes in kind (hatching where a busy machine left values out, a mark that comes or goes):
    three renewals in a row have to leave it in place, not every one.
    """
    root = data_root(tmp_path / "root")
    with Pulse(root):  # before the server: no gap while it starts
        process, url = serve(root, tmp_path / "server.log")
        try:
            assert _in_place(url, browser, renewals=3, tries=4)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _in_place(url: str, browser: Browser, renewals: int, tries: int) -> bool:
    """Whether the first chart was the same element through `renewals` changes of its picture in a row."""
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.goto(url)
    drawn = ".st-key-overview_chart_box [data-testid=stVegaLiteChart] svg"
    page.wait_for_selector(drawn, timeout=60_000)

    def renewed() -> bool:
        """Whether the marked element is still there after the next change."""
        before = page.locator(drawn).inner_html()
        page.wait_for_function(
            "([drawn, before]) => document.querySelector(drawn)?.innerHTML !== before",
            arg=[drawn, before], timeout=60_000,
        )  # fmt: skip
        page.wait_for_timeout(500)
        return page.evaluate(f"() => document.querySelector('{drawn}')?.dataset.mine") == "yes"

    def in_a_row() -> bool:
        page.evaluate(f"() => {{ document.querySelector('{drawn}').dataset.mine = 'yes' }}")
        return all(renewed() for _ in range(renewals))

    stayed = any(in_a_row() for _ in range(tries))
    page.context.close()
    return stayed
