"""A backtest from the button to its answer with its real worker, a second reader, and one cancelled."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import expect

from selftune import backtest_runs
from selftune.backtest_request import Request
from selftune.backtest_runs import State
from selftune.demo import demo_root, run_demo
from tests.browser.flow_kit import WITHIN_S, Reader, reader, served, until
from tests.browser.test_journeys import AXE, axe

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals")]

ANSWER = re.compile("leaving things alone|suggested no change|cannot tell")
ELSEWHERE = {"X-Forwarded-For": "192.0.2.7"}  # nobody at this machine: a viewer


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """(root, address) of a root with a day of the demo: some seconds of work on a fast machine too."""
    folder = tmp_path_factory.mktemp("past")
    run_demo(folder, fast=True, seconds=24 * 3600, seed=3)
    root = demo_root(folder)
    expect.set_options(timeout=WITHIN_S * 1000)
    with served(root, folder / "server.log") as url:
        yield root, url
    expect.set_options(timeout=5_000)


def started(me: Reader, root: Path) -> str:
    """The id of the run that this press started."""
    known = {r.id for r in backtest_runs.listing(root)}
    me.press("bt_start")
    (run,) = until(lambda: {r.id for r in backtest_runs.listing(root)} - known, "the run is on disk")
    return run


@contextmanager
def halted(root: Path, run: str) -> Iterator[None]:
    """The worker in the middle of its work, standing still for as long as the block lasts."""

    def at_work() -> int | None:
        found = backtest_runs.read(root, run)
        assert found is not None and not found.status.over, "the worker was quicker than the test"
        return found.status.pid if found.status.state is State.RUNNING and found.status.share > 0 else None

    pid = until(at_work, "the worker works")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_backtest_is_followed_to_its_answer_by_two_readers(
    past: tuple[Path, str], browser: Browser
) -> None:
    root, url = past
    with (
        reader(browser, url) as me,
        reader(browser, url, extra_http_headers=ELSEWHERE, viewport={"width": 390, "height": 844}) as other,
    ):
        me.open("/backtest")
        run = started(me, root)
        expect(me.page).to_have_url(re.compile(rf"/backtest\?(.*&)?run={run}"))
        with halted(root, run):
            expect(me.page.get_by_role("progressbar")).to_be_visible()
            expect(me.title).to_have_text("Running over the recorded past")
            title = other.open(f"/backtest?run={run}")
            expect(title).to_have_text("Running over the recorded past")
            expect(other.page.get_by_role("progressbar")).to_be_visible()
            expect(other.key("bt_cancel")).to_have_count(0)  # a viewer is told whom to ask
        for someone in (me, other):  # both pages turn into the answer by themselves
            expect(someone.title).to_have_text(ANSWER)
            expect(someone.key("backtest_curves_box").locator("svg.marks")).to_be_visible()
        wide = other.page.evaluate(
            "() => (m => m.scrollWidth - m.clientWidth)(document.querySelector('[data-testid=stMain]'))"
        )
        assert wide <= 0, "the page scrolls sideways on a phone"
        with me.page.expect_download() as got:
            me.press("bt_csv")
        assert "Over doing nothing" in got.value.path().read_text(encoding="utf-8-sig")


def test_a_backtest_is_cancelled_and_says_so(past: tuple[Path, str], browser: Browser) -> None:
    root, url = past
    with reader(browser, url) as me:
        me.open("/backtest")
        run = started(me, root)
        with halted(root, run):
            me.press("bt_cancel")
            expect(me.key("bt_cancel").get_by_role("button")).to_be_disabled()
        expect(me.title).to_have_text("This backtest was cancelled")
        found = backtest_runs.read(root, run)
        assert found is not None and found.status.state is State.CANCELLED
        me.press("bt_back")
        expect(me.key(f"bt_row_{run}")).to_contain_text("cancelled")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_of_ours_in_an_answer(
    scheme: str, past: tuple[Path, str], browser: Browser
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not there: `npm pack axe-core`, unpacked as node_modules/axe-core")
    root, url = past
    done = next((r for r in backtest_runs.listing(root) if r.status.state is State.DONE), None)
    run = done.id if done is not None else _run_here(root)
    with reader(browser, url, color_scheme=scheme, bypass_csp=True) as me:
        me.open(f"/backtest?run={run}")
        expect(me.key("backtest_curves_box").locator("svg.marks")).to_be_visible()
        found, unnamed = axe(me.page)
    assert unnamed == 0 and found == []


def _run_here(root: Path) -> str:
    """A finished run, for a test that runs alone."""
    run = backtest_runs.start(root, Request())
    until(lambda: (r := backtest_runs.read(root, run)) is not None and r.status.over, "the run is over")
    return run
