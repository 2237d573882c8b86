"""Signing in and out in a real browser: wrong, right, the deep link kept, every tab out, disabled at once."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import expect

from tests.browser.conftest import data_root
from tests.browser.flow_kit import WITHIN_S, lines, served
from tests.conftest import CHECKOUT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PASSWORD = "맑은 아침 산책 7"


def users(root: Path, *words: str, typed: str = "") -> None:
    """`selftune users …` as a person types it."""
    subprocess.run(
        [sys.executable, "-m", "selftune", "--root", str(root), "users", *words],
        cwd=CHECKOUT, input=typed.encode(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def account(root: Path, name: str, role: str) -> None:
    users(root, "add", name, "--role", role, "--password-stdin", typed=f"{PASSWORD}\n")


def enter(page: Page, name: str, password: str = PASSWORD) -> None:
    """Fills in the form that is open and sends it."""
    page.locator("#name").fill(name)
    page.locator("#password").fill(password)
    page.get_by_role("button").click()


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    expect.set_options(timeout=WITHIN_S * 1000)
    yield
    expect.set_options(timeout=5_000)


@contextmanager
def person(browser: Browser, **how: object) -> Iterator[Page]:
    context = browser.new_context(**{"locale": "ko-KR", "viewport": {"width": 1400, "height": 900}, **how})  # type: ignore[arg-type]
    context.set_default_timeout(WITHIN_S * 1000)
    try:
        yield context.new_page()
    finally:
        context.close()


def whoami(page: Page) -> object:
    return page.locator(".st-key-whoami")


def test_wrong_then_right_and_the_link_is_kept(tmp_path: Path, browser: Browser) -> None:
    root = data_root(tmp_path / "root")
    with (root / "configs" / "self_tuning.yaml").open("a", encoding="utf-8") as file:
        file.write("\ngovernance: {public_view: false}\n")
    account(root, "김운영", "operator")
    with served(root, tmp_path / "log") as url, person(browser) as page:
        page.goto(f"{url}/history?w=6h")
        expect(page).to_have_url(re.compile(r"/sign-in\?back=/history%3Fw%3D6h$"))
        enter(page, "김운영", "틀린 비밀번호 1")
        expect(page.get_by_role("alert")).to_contain_text("맞지 않습니다")
        enter(page, "김운영")
        expect(page).to_have_url(f"{url}/history?w=6h")
        expect(page.locator(".st-key-whoami")).to_contain_text("김운영 · 운영자")
        second = page.context.new_page()
        second.goto(url)
        expect(second.locator(".st-key-whoami")).to_contain_text("김운영")
        page.locator(".st-key-whoami").get_by_role("button", name="로그아웃").click()
        expect(page).to_have_url(re.compile("/sign-in"))
        expect(second).to_have_url(re.compile("/sign-in"))
        kinds = [g["kind"] for g in lines(root, "controls/approvals.jsonl")]
        assert kinds == ["account", "signin_failed", "signin", "signout"]


def test_a_disabled_person_is_out_within_seconds(tmp_path: Path, browser: Browser) -> None:
    root = data_root(tmp_path / "root")
    account(root, "kim", "operator")
    account(root, "lee", "operator")
    with served(root, tmp_path / "log", "operator") as url, person(browser) as page:
        page.goto(url)
        expect(page.locator(".st-key-whoami")).to_contain_text("로그인")
        assert page.locator(".st-key-banner").get_by_role("button").count() == 0
        page.locator(".st-key-whoami").get_by_role("link", name="로그인").click()
        enter(page, "KIM")
        expect(page.locator(".st-key-whoami")).to_contain_text("kim · 운영자")
        expect(page.locator(".st-key-banner").get_by_role("button")).to_be_visible()
        users(root, "disable", "kim")
        expect(page).to_have_url(re.compile("/sign-in"), timeout=5_000)
