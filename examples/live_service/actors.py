"""The people of the story, each in a real browser of their own, and what they do on the pages.

Answers "did a person who only sees the pages get it done?". Pages are found by their widgets' keys, so that
the story reads the same in both languages. Needs Chromium and the package playwright.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, sync_playwright
from playwright.sync_api import Error as Failed

from examples.live_service.stage import Missed

ARGS = ("--no-sandbox", "--disable-quic", "--disable-background-networking", "--no-first-run")
WIDE, PHONE = (1400, 900), (390, 844)
PATIENCE_S = 60.0  # for one thing to appear; a busy machine needs it
LONGEST_PX = 4000  # of a picture

__all__ = ["Failed", "Person", "at_the_dashboard", "chromium"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """One real Chromium. Raises: Missed when there is none on this machine."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise Missed("no Chromium on this machine: on Debian 'apt-get install chromium fonts-noto-cjk'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Person:
    """One person with one tab on the dashboard at `url`."""

    page: Page
    url: str

    def open(self, path: str) -> None:
        """The page, once its title is there."""
        self.page.goto(self.url + path)
        self.page.locator("h1").first.wait_for()

    def key(self, key: str) -> Locator:
        """What stands under this widget key."""
        return self.page.locator(f".st-key-{re.sub(r'[^A-Za-z0-9_-]', '-', key)}")

    def starts(self, start: str) -> Locator:
        """The first thing whose key begins so."""
        return self.page.locator(f"[class*='st-key-{start}']").first

    def press(self, key: str) -> None:
        self.key(key).get_by_role("button").click()

    def fill(self, key: str, text: str) -> None:
        self.key(key).locator("input, textarea").fill(text)

    def wait_for_word(self) -> str:
        """The page's own sentence that something was done."""
        said = self.page.get_by_role("status").filter(has_text="✓").first
        said.wait_for()
        return said.inner_text()

    # ------------------------------------------------------------------------- what they do
    def sign_in(self, name: str, password: str) -> None:
        """Through the sign-in page, with an account of the tuned service's root."""
        self.page.goto(f"{self.url}/sign-in")
        self.page.locator("#name").fill(name)
        self.page.locator("#password").fill(password)
        self.page.locator("form button").first.click()
        self.page.wait_for_url(lambda url: "/sign-in" not in url)

    def request_review(self, why: str, *, changes: int, hours: float) -> str:
        """Asks for live mode on the review page; the request's id."""
        self.open("/review")
        self.fill("review_ask_changes", str(changes))
        self.fill("review_ask_hours", f"{hours:.3f}")
        self.fill("review_ask_why", why)
        self.press("review_ask_send")
        self.wait_for_word()
        self.page.wait_for_url(re.compile(r"[?&]req=[0-9A-Z]{26}"))
        return str(re.search(r"req=([0-9A-Z]{26})", self.page.url).group(1))  # type: ignore[union-attr]

    def sign_review(self, request: str, comment: str) -> str:
        """Reads the request and signs it; what the page says afterwards."""
        self.open(f"/review?req={request}")
        self.key(f"review_read_{request}").locator("label").click()
        self.fill(f"review_comment_{request}", comment)
        self.press("review_approve")
        return self.wait_for_word()

    def accept_rollback(self, why: str) -> str:
        """Takes back what the loop proposes to take back; what the page says afterwards."""
        self.open("/suggestions")
        self.starts("do_rollback_").get_by_role("button").click()
        form = self.page.locator("[class*='st-key-form_rollback_']")
        form.locator("textarea").fill(why)
        form.get_by_role("button").click()
        return self.wait_for_word()

    def resume(self, why: str) -> str:
        """Takes up a loan that ended before its time; what the page says afterwards."""
        self.open("/")
        self.press("banner_resume_tuning")
        self.fill("why_resume_tuning", why)
        self.press("send_resume_tuning")
        return self.wait_for_word()

    def picture(self, file: Path, *, settle_ms: int = 3000) -> None:
        """The whole page as it stands, charts drawn."""
        width = self.page.viewport_size["width"] if self.page.viewport_size else WIDE[0]
        self.page.wait_for_timeout(settle_ms)
        for _ in range(2):  # charts that come into view make the page longer once more
            tall = self.page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")
            self.page.set_viewport_size({"width": width, "height": max(WIDE[1], min(LONGEST_PX, int(tall)))})
            self.page.wait_for_timeout(800)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=file)


@contextmanager
def at_the_dashboard(
    browser: Browser, url: str, *, phone: bool = False, dark: bool = False
) -> Iterator[Person]:
    """Somebody new with a browser of their own, in Korean."""
    width, height = PHONE if phone else WIDE
    context = browser.new_context(
        viewport={"width": width, "height": height}, locale="ko-KR", timezone_id="Asia/Seoul",
        color_scheme="dark" if dark else "light",
    )  # fmt: skip
    context.set_default_timeout(PATIENCE_S * 1000)
    try:
        yield Person(page=context.new_page(), url=url)
    finally:
        context.close()
