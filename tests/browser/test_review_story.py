"""Three people and a living system: asked, sent back, mended, signed, live, the loan runs out; then void."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import expect

from tests.browser.flow_kit import (
    APPROVALS,
    HISTORY,
    PASSWORD,
    SETTINGS,
    WITHIN_S,
    Reader,
    account,
    beat,
    lines,
    living,
    looping,
    reader,
    served,
    until,
)
from tests.conftest import CHECKOUT
from tests.pages.roots import change_settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOURS = "0.025"  # 90 s: long enough for a change, short enough to be seen ending


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    expect.set_options(timeout=WITHIN_S * 1000)
    yield
    expect.set_options(timeout=5_000)


def in_time(what: Callable[[], Any], why: str) -> Any:
    """As `until`, for what the loan's own end decides."""
    deadline = time.monotonic() + 4 * WITHIN_S
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.2)
    return found


def kinds(root: Path) -> list[str]:
    return [g["kind"] for g in lines(root, APPROVALS) if g["kind"] not in ("account", "signin", "signout")]


def fill(me: Reader, key: str, text: str) -> None:
    me.key(key).locator("input, textarea").fill(text)


def ask(me: Reader, why: str, *, changes: str, hours: str) -> str:
    """The request through the form; its address."""
    me.open("/review")
    fill(me, "review_ask_changes", changes)
    fill(me, "review_ask_hours", hours)
    fill(me, "review_ask_why", why)
    me.press("review_ask_send")
    expect(me.page.get_by_role("status").filter(has_text="The review is requested.")).to_be_visible()
    expect(me.page).to_have_url(re.compile(r"[?&]req=[0-9A-Z]{26}"))
    return me.page.url.removeprefix(me.url)


def test_a_review_from_the_question_to_the_end_of_the_loan_and_one_that_becomes_void(
    tmp_path: Path, browser: Browser
) -> None:
    with (
        living(tmp_path) as root,
        served(root, tmp_path / "dashboard.log", "viewer") as url,
        looping(root),
        reader(browser, url) as kim,
        reader(browser, url) as lee,
        reader(browser, url) as guest,
    ):
        for name, role in (("kim", "operator"), ("lee", "reviewer"), ("park", "reviewer")):
            account(root, name, role)
        kim.sign_in("kim")
        lee.sign_in("lee")
        until(lambda: lines(root, "logs/tuning_decisions.jsonl"), "the loop has looked")
        before = (root / SETTINGS).read_bytes()

        # kim asks; lee reads and sends it back; guest has nothing to press
        first = ask(kim, "calm weeks", changes="50", hours="24")
        guest.open(first)
        expect(guest.key("review_request")).to_contain_text("calm weeks")
        assert guest.page.locator("[data-testid=stMain] form").count() == 0
        lee.open(first)
        expect(lee.title).to_contain_text("Turn practice mode off?")
        expect(lee.key("review_days")).to_contain_text("not enough evidence")
        form = lee.page.locator("[data-testid=stForm]")
        form.locator("textarea").fill("fifty changes are too many: ask for one")
        lee.press("review_refuse")
        expect(lee.key("review_request")).to_contain_text("Sent back")

        # kim sees why without doing anything, mends it, and lee signs
        expect(kim.key("review_request")).to_contain_text("fifty changes are too many")
        second = ask(kim, "one change only", changes="1", hours=HOURS)
        assert second != first
        lee.open(second)
        lee.press("review_approve")
        expect(lee.page.get_by_text("tick the box")).to_be_visible()
        lee.page.get_by_text("I have read the evidence").click()
        form.locator("textarea").fill("one change, watched; fine")
        assert not lines(root, HISTORY) and (root / SETTINGS).read_bytes() == before
        lee.press("review_approve")
        expect(lee.page.get_by_role("status").filter(has_text="live mode is on")).to_be_visible()
        assert (root / SETTINGS).read_bytes() == before.replace(b"dry_run: true", b"dry_run: false")
        assert kinds(root)[:5] == ["request", "refuse", "request", "approve", "arm"]

        # live: everybody sees what is left; the loop moves one rule
        expect(guest.key("banner")).to_contain_text(re.compile(r"[01] changes? left"))
        until(lambda: beat(root).get("mode") == "live", "the loop is live")
        (event, *_) = in_time(lambda: lines(root, HISTORY), "the loop makes its change")
        assert event["actor"] == "selftune" and event["kind"] == "change"

        # the loan runs out: practice again, by itself, said on every page
        end = in_time(
            lambda: next((g for g in lines(root, APPROVALS) if g["kind"] == "disarm"), None), "the loan ends"
        )
        assert end["by"] == "selftune" and end["reason"] in ("loan.expired", "loan.changes_spent")
        until(lambda: beat(root).get("mode") == "dry_run", "the loop is in practice")
        expect(guest.page.get_by_role("status").filter(has_text="Live mode ended on")).to_be_visible()
        expect(guest.key("banner")).to_contain_text("Practice")
        moved = len(lines(root, HISTORY))

        # the same with two signatures, and the settings are edited between them: void, and it says so
        change_settings(root, governance__approvals_required=2)
        third = ask(kim, "once more", changes="1", hours=HOURS)
        argv = [
            "approve",
            third.rpartition("=")[2],
            "--actor",
            "park",
            "--comment",
            "read",
            "--password-stdin",
        ]
        shell = subprocess.run(
            [sys.executable, "-m", "selftune", "--root", str(root), "review", *argv, "--password-stdin"],
            cwd=CHECKOUT, capture_output=True, check=False, input=f"{PASSWORD}\n".encode(),
        )  # fmt: skip
        assert shell.returncode == 0, shell.stderr
        lee.open(third)
        expect(lee.key("review_request")).to_contain_text("1 of 2 signatures")
        change_settings(root, cooldown_s=33)
        expect(lee.key("review_request").get_by_role("alert")).to_contain_text("fingerprint is no longer")
        expect(lee.page.locator("[data-testid=stForm]")).to_have_count(0)
        expect(kim.key("review_request").get_by_role("alert")).to_contain_text("The settings have changed")
        assert "arm" not in kinds(root)[kinds(root).index("disarm") :]
        assert beat(root)["mode"] == "dry_run" and len(lines(root, HISTORY)) == moved
