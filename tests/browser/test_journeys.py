"""What people do: follow a shared link, narrow the picture, open an event, stop the tuning, lose the loop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import Browser, Page

from tests.browser.conftest import data_root, serve
from tests.browser.test_smoke import PATHS, listen
from tests.conftest import CHECKOUT
from tests.pages.roots import write_event

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = CHECKOUT / "node_modules" / "axe-core" / "axe.min.js"
# Streamlit's own: its icons, tables on a canvas, the parts of its widgets; its navigation is left out below
THEIRS = re.compile(r'data-testid="st(Icon|DataFrame|Metric|Expander)|canvas|baseweb|role="tooltip"')
PANELS = ".st-key-trends_panels_box [data-testid=stVegaLiteChart] svg"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """(root, address) of a root of its own, with events, that these tests may change."""
    folder = tmp_path_factory.mktemp("lived")
    root = data_root(folder / "root", 25)
    write_event(root, "risk_max", 0.35, 0.33, minutes_ago=18, actor="park", note="eighteen minutes ago")
    write_event(root, "creative_min", 0.22, 0.24, minutes_ago=9, actor="lee", note="nine minutes ago")
    process, url = serve(root, folder / "server.log")
    yield root, url
    process.terminate()
    process.wait(timeout=20)


def open_page(browser: Browser, url: str, **context: object) -> Page:
    settings = {"viewport": {"width": 1400, "height": 1000}, "locale": "en-US", **context}
    page = browser.new_context(**settings).new_page()  # type: ignore[arg-type]
    page.goto(url)
    page.wait_for_selector("h1", timeout=60_000)
    return page


def test_a_shared_link_opens_for_a_viewer(lived: tuple[Path, str], browser: Browser) -> None:
    """Through a proxy nobody is at this machine: a viewer, who sees the picture and no Stop."""
    end = datetime.now(UTC)
    span = "&".join(
        f"{k}={t.strftime('%Y-%m-%dT%H:%M:%SZ')}"
        for k, t in (("from", end - timedelta(minutes=20)), ("to", end - timedelta(minutes=5)))
    )
    link = f"{lived[1]}/trends?w=custom&{span}&rule=risk_max"
    page = open_page(browser, link, extra_http_headers={"X-Forwarded-For": "192.0.2.7"})
    noise = listen(page, lived[1])
    page.wait_for_selector(PANELS, timeout=60_000)
    assert "1 rule change:" in page.locator("h1").first.inner_text()
    banner = page.locator(".st-key-banner").inner_text()
    assert "ask an operator" in banner and "Stop tuning" not in banner
    page.context.close()
    assert noise.errors == [] and noise.foreign == []


def test_brush_the_strip_and_click_a_marker(lived: tuple[Path, str], browser: Browser) -> None:
    page = open_page(browser, f"{lived[1]}/trends?w=1h&r=0")
    page.wait_for_selector(PANELS, timeout=60_000)
    page.wait_for_timeout(1500)
    labels = f"{PANELS} .role-axis-label text"
    before = page.locator(labels).all_text_contents()
    box = page.locator(PANELS).bounding_box()
    assert box is not None
    y = box["y"] + box["height"] - 36
    page.mouse.move(box["x"] + box["width"] * 0.55, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.98, y, steps=12)
    page.mouse.up()
    page.wait_for_timeout(600)
    assert page.locator(labels).all_text_contents() != before, "the panels did not follow the strip"
    page.locator(f"{PANELS} .mark-symbol path[aria-label*='creative_min']").first.click(force=True)
    page.wait_for_selector(".st-key-trends_event >> text=nine minutes ago", timeout=30_000)
    assert "e=x-" in page.url
    page.context.close()


def test_the_loop_dies_and_the_banner_says_so(lived: tuple[Path, str], browser: Browser) -> None:
    root, url = lived
    env = {**os.environ, "PYTHONUTF8": "1"}
    loop = subprocess.Popen(
        [sys.executable, "-m", "selftune", "--root", str(root), "loop"],
        cwd=CHECKOUT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        page = open_page(browser, f"{url}/help")
        page.wait_for_selector(".st-key-banner >> text=heartbeat", timeout=60_000)
    finally:
        loop.kill()
        loop.wait(timeout=10)
    page.wait_for_selector(".st-key-banner >> text=Loop stopped", timeout=15_000)
    page.context.close()


def test_stop_tuning_is_one_click_and_a_confirmation(lived: tuple[Path, str], browser: Browser) -> None:
    page = open_page(browser, lived[1])
    page.get_by_role("button", name="Stop tuning").click()
    page.get_by_role("button", name="Stop now").click()
    page.wait_for_selector("text=operator stopped the tuning", timeout=15_000)
    for path in ("/help", "/trends"):
        page.goto(lived[1] + path)
        page.wait_for_selector("text=operator stopped the tuning", timeout=60_000)
    page.get_by_role("button", name="Resume").first.click()
    page.locator("[role=dialog]").get_by_role("button", name="Resume").click()
    page.wait_for_selector(".st-key-banner >> text=Stop tuning", timeout=15_000)
    page.context.close()


LOOKS = [
    *zip(PATHS, ("light", "dark") * len(PATHS), strict=False),
    ("suggestions", "dark"),
    ("targets", "dark"),
    ("backtest", "dark"),
]


def axe(page: Page) -> tuple[list[tuple[str, object, str]], int]:
    """(what axe-core finds in what is ours, charts without a name). The context must lift our policy."""
    page.wait_for_timeout(1500)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.wait_for_function("() => !document.querySelector('[data-stale=true]')")  # dimmed while it renews
    found = page.evaluate(
        "() => axe.run({include: [['[data-testid=stMain]'], ['[data-testid=stSidebar]']],"
        " exclude: [['[data-testid=stSidebarNav]'], ['svg.marks > g']]},"
        "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']})"
    )
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('svg.marks')]"
        ".filter(s => !s.getAttribute('aria-label') && !s.closest('[aria-label]')).length"
    )
    ours = [
        (v["id"], node["target"], node["failureSummary"][:300])
        for v in found["violations"]
        for node in v["nodes"]
        if not THEIRS.search(str(node["html"]))
    ]
    return ours, int(unnamed)


@pytest.mark.parametrize(("name", "scheme"), dict.fromkeys(LOOKS))
def test_axe_finds_nothing_of_ours(name: str, scheme: str, lived: tuple[Path, str], browser: Browser) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not there: `npm pack axe-core`, unpacked as node_modules/axe-core")
    # The policy that forbids foreign scripts forbids injected ones as well; this context lifts it.
    page = open_page(browser, lived[1] + PATHS[name], color_scheme=scheme, bypass_csp=True)
    found, unnamed = axe(page)
    page.context.close()
    assert unnamed == 0  # a picture is named as a whole and has its table; its parts are Vega's own
    assert found == []
