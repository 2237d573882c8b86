"""States that only a story brings about, for `make shots`: a review's stages, a loan's end, a trial, a fault.

Each is a real one: made by the product's own functions on a root of its own, with its loop and its dashboard.
The one fault of a page is a broken function in the dashboard's process; what a reader is told is the page's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from selftune import reviewing
from selftune.demo import demo_root, run_demo
from selftune.domain import Role
from selftune.reviewing import Terms
from selftune.runtime import Root
from tests.browser.conftest import data_root, serve
from tests.browser.flow_kit import (
    APPROVALS,
    DECISIONS,
    account,
    beat,
    enter,
    lines,
    living,
    looping,
    served,
    until,
)
from tests.pages.roots import change_settings

Take = Callable[..., None]
LOOKS = (("ko", "light", "wide"), ("en", "dark", "wide"), ("ko", "dark", "phone"), ("en", "light", "phone"))
BROKEN = """
import selftune.past
def broken(*args, **kwargs):
    raise RuntimeError("broken for a picture")
selftune.past.past = broken
"""


def shots(page_of: Take, url: str, path: str, out: Path, name: str, **more: Any) -> None:
    """One state in both languages, wide and on a phone."""
    for language, scheme, size in LOOKS:
        file = out / f"{name}_{language}_{scheme}_{size}.png"
        page_of(url + path, file, language=language, scheme=scheme, size=size, **more)


def fault(browser: Browser, folder: Path, out: Path, take: Take) -> None:
    """A part of a page that fails: the rest of the page, the words, the id."""
    root = data_root(folder / "fault", 14)
    process, url = serve(root, folder / "fault.log", first=BROKEN)
    try:
        for page in ("", "trends"):
            shots(lambda *a, **k: take(browser, *a, **k), url, f"/{page}", out, f"fault_{page or 'overview'}")
    finally:
        process.terminate()
        process.wait(timeout=20)


def try_before_save(browser: Browser, folder: Path, out: Path, take: Take) -> None:
    """The preview of an edit, and what its trial found."""
    run_demo(folder, fast=True, seconds=2 * 3600, seed=3)

    def tried(page: Page) -> None:
        box = page.locator(".st-key-targets_0_targets-risk_band-max input")
        box.fill("0.28")
        box.press("Tab")
        page.locator("[data-testid=stFormSubmitButton] button").click()
        page.locator(".st-key-targets_try_start button").click()
        page.locator(".st-key-targets_try_model").wait_for(timeout=90_000)

    with served(demo_root(folder), folder / "try.log") as url:
        shots(lambda *a, **k: take(browser, *a, **k), url, "/targets", out, "targets_try", before=tried)


def reviews(browser: Browser, folder: Path, out: Path, take: Take) -> None:
    """Asked, as the reviewer sees it; sent back; void; live; and the pop-up when the loan ends."""

    def picture(*args: Any, **more: Any) -> None:
        take(browser, *args, **more)

    def as_reviewer(page: Page) -> None:
        where = page.url
        page.goto(re.sub(r"/review.*", "/sign-in", where))
        enter(page, "lee")
        page.locator(".st-key-whoami").wait_for()
        page.goto(where)
        page.locator(".st-key-review_approve").wait_for()

    with living(folder) as home, served(home, folder / "review.log", "viewer") as url, looping(home):
        for name, role in (("kim", "operator"), ("lee", "reviewer"), ("park", "reviewer")):
            account(home, name, role)
        until(lambda: lines(home, DECISIONS), "the loop has looked")
        root = Root(home)
        terms = Terms(changes=5, displacement=2.0, hours=24.0)
        say = {"actor": "kim", "role": Role.OPERATOR}
        first = reviewing.request(root, terms, why="일주일 동안 잔잔했습니다 · a calm week", **say)
        shots(picture, url, f"/review?req={first.id}", out, "review_asked")
        shots(picture, url, f"/review?req={first.id}", out, "review_reviewer", before=as_reviewer)
        why = "다섯 번은 많습니다. 두 번으로 줄여 주세요 · five are too many"
        reviewing.refuse(root, first.id, actor="lee", role=Role.REVIEWER, why=why)
        shots(picture, url, f"/review?req={first.id}", out, "review_sent_back")
        change_settings(home, governance__approvals_required=2)
        second = reviewing.request(root, terms, why="다시 · again", **say)
        reviewing.approve(root, second.id, actor="lee", role=Role.REVIEWER, comment="읽었습니다 · read")
        change_settings(home, cooldown_s=33)
        shots(picture, url, f"/review?req={second.id}", out, "review_void")
        change_settings(home, governance__approvals_required=1)
        loan_end(browser, root, home, url, out)


def loan_end(browser: Browser, root: Root, home: Path, url: str, out: Path) -> None:
    """Pages that are open while a loan of half a minute runs and ends: the badge, then the pop-up."""
    terms = Terms(changes=5, displacement=2.0, hours=40 / 3600)
    asked = reviewing.request(root, terms, actor="kim", role=Role.OPERATOR, why="짧게 · short")
    with opened(browser, url) as pages:
        reviewing.approve(
            root, asked.id, actor="lee", role=Role.REVIEWER, comment="짧으니 괜찮습니다 · short"
        )
        until(lambda: beat(home).get("mode") == "live", "the loop is live")
        for name, page in pages.items():
            page.get_by_text(re.compile("changes? left|번 남음|남은 변경")).first.wait_for(timeout=30_000)
            page.screenshot(path=out / f"loan_running_{name}.png")
        until(lambda: any(g["kind"] == "disarm" for g in lines(home, APPROVALS)), "the loan ends")
        for name, page in pages.items():
            page.locator("[data-testid=stToast]").first.wait_for(timeout=30_000)
            page.screenshot(path=out / f"loan_ended_{name}.png")


@contextmanager
def opened(browser: Browser, url: str) -> Iterator[dict[str, Page]]:
    """The overview in both languages, wide and on a phone, left open."""
    found = {}
    sizes = {"wide": (1400, 900), "phone": (390, 844)}
    contexts = []
    for language, size in product(("ko", "en"), sizes):
        width, height = sizes[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, locale="ko-KR" if language == "ko" else "en-US"
        )
        contexts.append(context)
        page = found[f"{language}_{size}"] = context.new_page()
        page.goto(url)
        page.locator("h1").wait_for(timeout=60_000)
    try:
        yield found
    finally:
        for context in contexts:
            context.close()


STORIES: dict[str, Callable[[Browser, Path, Path, Take], None]] = {
    "fault": fault,
    "try": try_before_save,
    "reviews": reviews,
}
