"""Stored hostile text in a real browser: it stands as typed on every page, runs nothing, fetches nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import Browser, Page, Route

from selftune import report, review_report
from selftune.office import Office
from selftune.standing import checklist, requests, standing
from tests.browser.flow_kit import served
from tests.browser.test_smoke import PATHS, listen
from tests.hostile import RULE, RUNS_FILE, SITE, TEXT, hostile_root

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# whatever would run calls one of these
HOOKS = """
window.__ran = [];
for (const f of ["ran", "alert", "confirm", "prompt", "open", "eval_"])
  window[f] = (...a) => { window.__ran.push(f + " " + a.join()) };
document.addEventListener("securitypolicyviolation", e => window.__ran.push("csp " + e.blockedURI));
"""
# what would be there if markup or markdown of ours had been read as such
LIVES = """site => {
  const found = [...window.__ran];
  const words = ["굵게", "bold", "r", "m", "loud", "other", "id", "p", "l"];
  for (const e of document.querySelectorAll("b, strong, em, i, del, code, [style*=color]"))
    if (!e.children.length && words.includes(e.textContent)) found.push("mark " + e.outerHTML.slice(0, 200));
  for (const e of document.querySelectorAll("a[href]"))
    if (!e.href.startsWith(location.origin)) found.push("link " + e.outerHTML.slice(0, 200));
  for (const e of document.querySelectorAll("img, iframe, image, script, object, embed, link"))
    if (e.outerHTML.includes(site) || e.getAttribute("src") === "x") found.push(e.outerHTML.slice(0, 200));
  for (const e of document.querySelectorAll("[onerror], [onload], .katex"))
    found.push(e.outerHTML.slice(0, 200));
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode())
    if (/[\\u202a-\\u202e\\u2066-\\u2069\\u200b\\u001b\\u007f-\\u009f]/.test(walk.currentNode.data))
      found.push("steers " + JSON.stringify(walk.currentNode.data.slice(0, 200)));
  return found;
}"""
FAULT = re.compile("could not be shown|보여 드리지 못했습니다")
UNKNOWN = f"[l](http://{SITE}) `x` {TEXT}"[:300]
IDS = [quote(x, safe="") for x in ("<b>12</b>**id**", "<b>suggest</b>", UNKNOWN)]
LINKS = {
    "event": f"/history?e={IDS[0]}",
    "event in trends": f"/trends?e={IDS[0]}",
    "decision": f"/suggestions?d={IDS[1]}",
    "unknown ids": f"/trends?e={IDS[2]}&rule={IDS[2]}&w={IDS[2]}&from={IDS[2]}",
    "unknown decision": f"/suggestions?d={IDS[2]}",
    "unknown event": f"/history?e={IDS[2]}&rule={IDS[2]}&actor={IDS[2]}&p={IDS[2]}",
    "unknown request": f"/review?req={IDS[2]}",
    "filtered": f"/history?rule={quote(RULE, safe='')}",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_root(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def address(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(hostile, tmp_path_factory.mktemp("log") / "server.log") as url:
        yield url


@contextmanager
def hooked(browser: Browser, url: str) -> Iterator[Page]:
    """A page that notices whatever runs, and fails on any request to elsewhere."""
    context = browser.new_context(locale="en-US", viewport={"width": 1400, "height": 900})
    context.add_init_script(HOOKS)
    page = context.new_page()
    noise = listen(page, url)
    yield page
    context.close()
    assert noise.foreign == [] and noise.errors == []


def quiet(page: Page) -> None:
    """The page is drawn: its title is there and its script is at rest."""
    page.locator("h1").first.wait_for(timeout=60_000)
    page.locator("[data-test-script-state=notRunning]").first.wait_for(timeout=60_000)
    page.locator("[data-testid=stSkeleton]").first.wait_for(state="detached", timeout=60_000)


def opened(page: Page) -> str:
    """Everything folded away is opened; the page's text."""
    folded = page.locator("[data-testid=stMain] details:not([open]) > summary")
    while n := folded.count():
        folded.nth(n - 1).click(timeout=10_000)
    quiet(page)
    return page.locator("[data-testid=stMain]").inner_text()


def test_every_page_shows_it_as_typed(address: str, browser: Browser) -> None:
    with hooked(browser, address) as page:
        for k, (name, path) in enumerate(PATHS.items()):
            page.goto(f"{address}{path}?lang={'ko' if k % 2 else 'en'}")
            quiet(page)
            text = opened(page)
            assert page.evaluate(LIVES, SITE) == [], name
            if name not in ("backtest", "help"):  # the banner says who stopped the tuning
                assert "<b>bold</b> **굵게** [l](//evil.example/a)" in text, name
            wide = "(m => m.scrollWidth <= m.clientWidth)(document.querySelector('[data-testid=stMain]'))"
            assert page.evaluate(wide), f"{name} scrolls sideways"
            assert not FAULT.search(text), name


def test_every_link_with_a_hostile_id(hostile: Path, address: str, browser: Browser) -> None:
    run, failed = (hostile / RUNS_FILE).read_text(encoding="utf-8").split()
    runs = {"backtests": f"/backtest?run={run}&vs={failed},{IDS[2]}", "failed": f"/backtest?run={failed}",
            "unknown run": f"/backtest?run={IDS[2]}&vs=../../../configs"}  # fmt: skip
    with hooked(browser, address) as page:
        for name, path in {**LINKS, **runs}.items():
            page.goto(f"{address}{path}&lang=en")
            quiet(page)
            text = opened(page)
            assert page.evaluate(LIVES, SITE) == [], name
            assert not FAULT.search(text) and text.strip(), name


def test_the_reports_that_leave_the_dashboard(hostile: Path, address: str, browser: Browser) -> None:
    p = Office(hostile).glance().picture
    assert p is not None
    (asked, *_) = (r for r in requests(p) if r.refused)
    found = checklist(hostile, p)
    reports = [review_report.review_html(p, found, standing(hostile, p, asked, found))]
    newest = p.snap.records.decisions[-1].id
    reports += [report.decision_html(p, d) for d in ("<b>suggest</b>", newest)]
    with hooked(browser, address) as page:
        for k, data in enumerate(reports):
            page.route(f"**/report{k}", as_html(data))
            page.goto(f"{address}/report{k}")
            assert page.evaluate(LIVES, SITE) == [], k
            assert "evil.example" in page.inner_text("body"), k


def as_html(body: bytes) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=body, content_type="text/html; charset=utf-8")
