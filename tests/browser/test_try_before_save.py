"""Try before save: a draft on the recorded past beside today's settings, and left unsaved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import expect

from selftune import backtest_desk, backtest_runs
from selftune.backtest_request import Mode, Source
from selftune.backtest_runs import State
from selftune.demo import demo_root, run_demo
from selftune.domain import Role
from tests.browser.flow_kit import APPROVALS, SETTINGS, WITHIN_S, Reader, lines, reader, served, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals")]

FIELD = "targets_0_targets.risk_band.max"


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    expect.set_options(timeout=WITHIN_S * 1000)
    yield
    expect.set_options(timeout=5_000)


def edited(me: Reader, value: str) -> None:
    """The target of the risk band set to `value` in the form, and its preview asked for."""
    me.open("/targets")
    box = me.key(FIELD).locator("input")
    box.fill(value)
    box.press("Tab")
    me.page.locator("[data-testid=stFormSubmitButton] button").click()


def test_a_draft_is_tried_beside_todays_settings_and_not_saved(tmp_path: Path, browser: Browser) -> None:
    run_demo(tmp_path, fast=True, seconds=2 * 3600, seed=3)
    root = demo_root(tmp_path)
    before, governed = (root / SETTINGS).read_bytes(), lines(root, APPROVALS)
    with served(root, tmp_path / "server.log") as url, reader(browser, url) as me:
        edited(me, "0.28")
        expect(me.title).to_have_text("One more look before saving?")
        box = me.key("targets_try")
        me.press("targets_try_start")
        (run,) = until(lambda: backtest_runs.listing(root), "the trial is on disk")
        expect(box.locator("li").filter(has_text="The open draft")).to_be_visible()
        expect(box.locator("li").filter(has_text="The present settings")).to_be_visible()
        found = backtest_runs.read(root, run.id)
        assert found is not None and found.status.state is State.DONE and found.result is not None
        assert [c.source for c in found.request.candidates][:2] == [Source.DRAFT, Source.IN_FORCE]
        assert "0.28" in (found.request.candidates[0].text or "")

        # that record holds no such values: a learned model is asked in the same place
        assert found.result.outcomes[0].score is None
        me.press("targets_try_model")
        (other,) = until(lambda: {r.id for r in backtest_runs.listing(root)} - {run.id}, "the model is asked")
        expect(box.get_by_role("progressbar")).to_be_visible()
        asked = backtest_runs.read(root, other)
        assert asked is not None and asked.request.mode is Mode.SIMULATE
        backtest_desk.cancel(root, other, role=Role.OPERATOR)  # it would take a minute

        # away without saving: nothing was written but the backtest, and the form shows what is in force
        me.press("targets_drop")
        expect(me.key("targets_1_targets.risk_band.max").or_(me.key(FIELD)).locator("input")).to_have_value(
            "0.3"
        )
    assert (root / SETTINGS).read_bytes() == before
    assert lines(root, APPROVALS) == governed
