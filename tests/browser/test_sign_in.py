"""Signing in and out in a real browser: wrong, right, the deep link kept, every tab out, disabled at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import expect

from tests.browser.conftest import data_root, free_port
from tests.browser.flow_kit import WITHIN_S, account, enter, lines, served, until, users
from tests.conftest import CHECKOUT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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


def test_wrong_then_right_and_the_link_is_kept(tmp_path: Path, browser: Browser) -> None:
    root = data_root(tmp_path / "root")
    with (root / "configs" / "self_tuning.yaml").open("a", encoding="utf-8") as file:
        file.write("\ngovernance: {public_view: false}\n")
    account(root, "김운영", "operator")
    with served(root, tmp_path / "log") as url, person(browser) as page:
        page.goto(f"{url}/history?w=6h")
        expect(page).to_have_url(re.compile(r"/sign-in\?back=/history%3Fw%3D6h$"))
        # what a browser says about its address is believed of a listed proxy only
        page.set_extra_http_headers({"x-forwarded-for": "10.9.9.9"})
        enter(page, "김운영", "틀린 비밀번호 1")
        expect(page.get_by_role("alert")).to_contain_text("맞지 않습니다")
        page.set_extra_http_headers({})
        enter(page, "김운영")
        expect(page).to_have_url(f"{url}/history?w=6h")
        expect(page.locator(".st-key-whoami").first).to_contain_text("김운영 · 운영자")
        second = page.context.new_page()
        second.goto(url)
        expect(second.locator(".st-key-whoami").first).to_contain_text("김운영")
        page.locator(".st-key-whoami").get_by_role("button", name="로그아웃").click()
        expect(page).to_have_url(re.compile("/sign-in"))
        expect(second).to_have_url(re.compile("/sign-in"))
        said = lines(root, "controls/approvals.jsonl")
        assert [g["kind"] for g in said] == ["account", "signin_failed", "signin", "signout"]
        assert {g["address"] for g in said[1:3]} == {"127.0.0.1"}


@pytest.mark.parametrize("width", [1400, 390])
def test_a_disabled_person_is_out_within_seconds(tmp_path: Path, browser: Browser, width: int) -> None:
    root = data_root(tmp_path / "root")
    account(root, "kim", "operator")
    account(root, "lee", "operator")
    screen = {"width": width, "height": 900}
    with served(root, tmp_path / "log", "operator") as url, person(browser, viewport=screen) as page:
        page.goto(url)
        expect(page.locator(".st-key-banner").first).to_contain_text("운영자에게 부탁")
        assert page.locator(".st-key-banner").get_by_role("button").count() == 0
        page.goto(f"{url}/sign-in")
        enter(page, "KIM")
        expect(page.locator(".st-key-banner").get_by_role("button")).to_be_visible()
        if width > 1000:
            expect(page.locator(".st-key-whoami").first).to_contain_text("kim · 운영자")
        users(root, "disable", "kim")
        expect(page).to_have_url(re.compile("/sign-in"))


AXE = CHECKOUT / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard with one account."""
    folder = tmp_path_factory.mktemp("known")
    root = data_root(folder / "root")
    account(root, "김운영", "operator")
    with served(root, folder / "log") as url:
        yield url


@pytest.mark.parametrize("language", ["ko-KR", "en-US"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_on_a_phone_is_clean_and_fits(
    known: str, browser: Browser, language: str, scheme: str
) -> None:
    how = {"locale": language, "color_scheme": scheme, "viewport": {"width": 390, "height": 800}}
    with person(browser, bypass_csp=True, **how) as page:
        page.goto(f"{known}/sign-in")
        expect(page.get_by_role("heading", level=1)).to_contain_text("selftune")
        expect(page.locator("#name")).to_be_focused()
        clean(page)
        page.keyboard.type("김운영")
        page.keyboard.press("Tab")
        page.keyboard.type("wrong wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.locator("#name")).to_have_value("김운영")
        expect(page.locator("#password")).to_be_focused()
        clean(page)


def clean(page: Page) -> None:
    """Nothing runs out of the screen, and axe finds nothing."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if not AXE.is_file():
        pytest.skip("axe-core is not there: `npm pack axe-core`, unpacked as node_modules/axe-core")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice']})")
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []


def test_on_a_phone_the_sidebar_says_who_and_lets_out(known: str, browser: Browser) -> None:
    with person(browser, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True) as page:
        page.goto(f"{known}/sign-in?back=/help")
        enter(page, "김운영")
        page.get_by_test_id("stExpandSidebarButton").click()
        out = page.locator(".st-key-whoami").get_by_role("button", name="로그아웃")
        expect(out).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        out.click()
        expect(page.get_by_role("status")).to_contain_text("로그아웃했습니다")


def test_the_demo_lets_one_try_each_role(tmp_path: Path, browser: Browser) -> None:
    root = data_root(tmp_path / "root")
    (root / "logs" / "demo.json").write_text('{"made_by": "selftune demo"}', encoding="utf-8")
    with served(root, tmp_path / "log", "viewer") as url, person(browser, locale="en-US") as page:
        page.goto(f"{url}/review")
        switcher = page.get_by_role("navigation", name="Demo")
        expect(switcher).to_be_visible()
        for role, sees in (("operator", "Stop tuning"), ("reviewer", "ask an operator")):
            switcher.get_by_role("link", name=role).click()
            expect(switcher.locator("[aria-current]")).to_have_text(role)
            expect(page.locator(".st-key-banner").first).to_contain_text(sees)
            expect(page).to_have_url(re.compile("/review"))


def test_below_a_path_of_its_own(tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    root = data_root(tmp_path / "root")
    account(root, "김운영", "operator")
    monkeypatch.setenv("STREAMLIT_SERVER_BASE_URL_PATH", "tuning")
    with served(root, tmp_path / "log") as url, person(browser) as page:
        page.goto(f"{url}/tuning/sign-in?back=/tuning/help")
        page.get_by_role("link", name="English").click()
        expect(page.get_by_role("button")).to_have_text("Sign in")
        enter(page, "김운영")
        expect(page).to_have_url(f"{url}/tuning/help")
        expect(page.locator(".st-key-whoami").first).to_contain_text("operator")
        page.locator(".st-key-whoami").get_by_role("button").click()
        expect(page).to_have_url(f"{url}/tuning/sign-in?why=out")


# A real server whose sessions end soon: nothing else of it is different.
SHORT = """
import sys
from selftune.sessions import Sessions
Sessions.__init__.__kwdefaults__["idle_s"] = 25.0
from streamlit.web.cli import main
sys.argv = ["streamlit", "run", "app.py", "--server.port", sys.argv[1]]
main()
"""


@contextmanager
def short_sessions(root: Path, log: Path) -> Iterator[str]:
    port = free_port()
    env = {**os.environ, "SELFTUNE_ROOT": str(root), "PYTHONUTF8": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SHORT, str(port)], cwd=CHECKOUT, env=env, stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{url}/healthz"), "the dashboard answers")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def test_a_page_that_renews_itself_keeps_nobody_signed_in_and_a_person_does(
    tmp_path: Path, browser: Browser
) -> None:
    root = data_root(tmp_path / "root")
    account(root, "kim", "operator")
    with short_sessions(root, tmp_path / "log") as url, person(browser) as page:

        def left() -> int:
            return int(page.request.get(f"{url}/session").json()["left_s"] or 0)

        page.goto(f"{url}/sign-in?back=/help")
        enter(page, "kim")
        stay = page.get_by_role("button", name="계속 쓰기")
        for _ in range(3):  # longer in all than a session without an act
            until(lambda: 0 < left() <= 14, "time goes by while the page renews itself")
            stay.click()
            until(lambda: left() > 14, "pressing it is an act")
        expect(page).to_have_url(re.compile(r"/sign-in\?why=ended&back=%2Fhelp"))
        expect(page.get_by_role("status")).to_contain_text("로그인이 끝났습니다")
