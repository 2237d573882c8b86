"""What people do on the dashboard from beginning to end, with a real server, loop and plant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import expect

from selftune.config import parse
from selftune.settings import Settings
from tests.browser.conftest import data_root
from tests.browser.flow_kit import (
    APPROVALS,
    DECISIONS,
    HISTORY,
    SETTINGS,
    WITHIN_S,
    Reader,
    lines,
    living,
    looping,
    reader,
    served,
    until,
)
from tests.pages.roots import change_settings, suggest, write_event

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WITHIN_MS = WITHIN_S * 1000
UNKNOWN = "01UNKNOWN00000000000000000"
HI = "rules.creative_min.max"


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    """What is expected may take as long as a busy machine needs."""
    expect.set_options(timeout=WITHIN_MS)
    yield
    expect.set_options(timeout=5_000)


@dataclass(frozen=True)
class Desk:
    """A root and the dashboard on it."""

    root: Path
    url: str

    @property
    def settings(self) -> Settings:
        return parse((self.root / SETTINGS).read_bytes())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An operator's dashboard on a root with a past, where nothing runs; each test leaves it usable."""
    folder = tmp_path_factory.mktemp("desk")
    root = data_root(folder / "root")
    write_event(root, "risk_max", 0.35, 0.33, minutes_ago=8)
    with served(root, folder / "server.log") as url:
        yield Desk(root, url)


@pytest.fixture
def operator(desk: Desk, browser: Browser) -> Iterator[Reader]:
    with reader(browser, desk.url) as someone:
        yield someone


# ------------------------------------------------------------------------------- apply, watch, verdict
def test_a_suggestion_is_followed_to_its_event_and_to_its_verdict(tmp_path: Path, browser: Browser) -> None:
    with (
        living(tmp_path) as root,
        served(root, tmp_path / "server.log") as url,
        looping(root),
        reader(browser, url) as me,
    ):
        me.open("/suggestions")
        apply = me.keys("apply_").get_by_role("button")
        apply.click()  # waits for the loop to suggest something
        assert lines(root, HISTORY) == []
        form = me.keys("form_apply_")
        form.locator("textarea").fill("the figures speak for it")
        form.get_by_role("button", name="Apply now").click()

        (event,) = until(lambda: lines(root, HISTORY), "the change is in the history")
        manual = next(d for d in lines(root, DECISIONS) if d["kind"] == "manual")
        assert manual["applied"] == [event["id"]] and manual["why"] == "the figures speak for it"
        watch = me.key(f"watch_{manual['id']}")
        expect(watch).to_contain_text("Watching")
        expect(watch).to_contain_text(re.compile(r"\d+ s left"))
        expect(me.page).to_have_url(re.compile(r"[?&]d=" + manual["of"]))

        card = me.key(f"card_{manual['of']}")
        expect(card).to_contain_text(re.compile("improved|no real change|worsened|undecided"))
        expect(watch).to_have_count(0)
        (verdict,) = [d for d in lines(root, DECISIONS) if d.get("act") == "evaluate"]
        assert verdict["change"] == manual["id"]

        card.get_by_role("link").click()
        expect(me.page).to_have_url(re.compile(r"/history\?(.*&)?e=" + event["id"]))
        expect(me.key("chosen")).to_contain_text("the figures speak for it")


# ------------------------------------------------------------------------------- a bound, with a conflict
def ask_for(me: Reader, value: str) -> None:
    """Types a new upper bound and asks for the preview."""
    box = me.keys("targets_").locator(f".st-key-targets_0_{HI.replace('.', '-')} input")
    box.fill(value)
    box.press("Tab")
    me.page.get_by_role("button", name="Preview").click()
    expect(me.title).to_have_text("One more look before saving?")


def test_a_bound_that_somebody_else_moved_is_never_overwritten(desk: Desk, operator: Reader) -> None:
    me, path = operator, desk.root / SETTINGS
    me.open("/targets")
    ask_for(me, "0.33")
    change_settings(desk.root, **{HI: 0.34})
    theirs = path.read_bytes()
    me.because("targets_why_0", "tighter")

    expect(me.title).to_have_text("Somebody else changed the settings meanwhile")
    heads = me.page.locator("table th[scope=col]")
    expect(heads).to_have_text(["Setting", "When opened", "File now", "Yours"])
    expect(me.page.locator("table td.num")).to_have_text(["0.35", "0.34", "0.33"])
    assert path.read_bytes() == theirs

    me.press("targets_discard")
    expect(me.title).to_have_text("Targets and bounds")
    ask_for(me, "0.33")
    me.because("targets_why_0", "tighter")
    expect(me.page.get_by_role("status").filter(has_text="The settings are saved.")).to_be_visible()
    before, after = theirs.decode().splitlines(), path.read_text(encoding="utf-8").splitlines()
    changed = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [("max: 0.34", "max: 0.33")]
    assert desk.settings.rules["creative_min"].max == 0.33
    (saved,) = [g for g in lines(desk.root, APPROVALS) if g["kind"] == "edit"]
    assert saved["by"] == "operator"


# ------------------------------------------------------------------------------- one back
def test_a_rollback_is_a_new_event_that_brings_the_old_value_back(desk: Desk, operator: Reader) -> None:
    me = operator
    write_event(desk.root, "creative_min", 0.22, 0.24, minutes_ago=4, actor="batch")
    before = lines(desk.root, HISTORY)
    me.open("/history")
    me.keys("row_").filter(has_text="creative_min").get_by_role("button").click()
    expect(me.key("chosen")).to_contain_text("batch")
    me.press("rollback_one")
    form = me.keys("form_back_")
    form.locator("textarea").fill("it was a mistake")
    form.get_by_role("button", name="Roll back now").click()
    expect(me.page.get_by_role("status").filter(has_text="It was rolled back.")).to_be_visible()

    *kept, back = lines(desk.root, HISTORY)
    assert kept == before
    assert (back["rule"], back["old"], back["new"]) == ("creative_min", 0.24, 0.22)
    expect(me.key("chosen")).to_contain_text("This change was rolled back already.")
    expect(me.key("rollback_one").get_by_role("button")).to_be_disabled()


# ------------------------------------------------------------------------------- stop and resume
def test_stop_from_one_page_is_said_on_another_and_lifted_from_a_third(desk: Desk, browser: Browser) -> None:
    with reader(browser, desk.url) as me, reader(browser, desk.url) as other:
        me.open("/help")
        other.open("/trends")
        me.press("banner_stop_tuning")
        me.key("why_stop_tuning").locator("input").fill("maintenance")
        me.press("send_stop_tuning")
        notice = other.page.get_by_role("status").filter(has_text="stopped the tuning on")
        expect(notice).to_contain_text("operator")
        expect(notice).to_contain_text("maintenance")
        stop = lines(desk.root, APPROVALS)[-1]
        assert (stop["kind"], stop["by"], stop["reason"]) == ("stop", "operator", "maintenance")

        other.open("/targets")
        other.press("banner_resume_tuning")
        other.press("send_resume_tuning")
        expect(me.page.get_by_role("status").filter(has_text="stopped the tuning on")).to_have_count(0)
        expect(me.key("banner_stop_tuning")).to_be_visible()
        assert lines(desk.root, APPROVALS)[-1]["kind"] == "resume"


# ------------------------------------------------------------------------------- only looking
def test_a_viewer_sees_everything_and_has_nothing_to_press(tmp_path: Path, browser: Browser) -> None:
    with living(tmp_path) as root:
        decision = suggest(root)
        write_event(root, "creative_min", 0.22, 0.23, minutes_ago=30, actor="batch")
        with served(root, tmp_path / "server.log", "viewer") as url, reader(browser, url) as me:
            # the very addresses that an operator would share
            me.open(f"/suggestions?d={decision}")
            expect(me.key(f"card_{decision}")).to_contain_text("risk_max")
            expect(me.key(f"card_{decision}")).to_contain_text("Viewers cannot decide.")
            for act in ("apply_", "reject_", "snooze_"):
                expect(me.keys(act).get_by_role("button")).to_be_disabled()
            me.open(f"/suggestions?d={UNKNOWN}")
            expect(me.key("linked")).to_contain_text("is not on record")
            expect(me.key("linked")).to_contain_text(UNKNOWN)

            me.open("/history")
            me.keys("row_").filter(has_text="creative_min").get_by_role("button").click()
            expect(me.key("chosen")).to_contain_text("batch")
            expect(me.key("rollback_one").get_by_role("button")).to_be_disabled()
            expect(me.key("rollback_to").get_by_role("button")).to_be_disabled()
            address = me.page.url.removeprefix(url)
            assert "e=" in address
            seen = me.key("chosen").inner_text()
            me.open(address)
            expect(me.key("chosen")).to_have_text(seen, use_inner_text=True)
            me.open(f"/history?e={UNKNOWN}")
            expect(me.key("unknown_event")).to_contain_text(UNKNOWN)

            me.open("/trends?w=6h")
            expect(me.key("trends_w").get_by_role("radio", checked=True)).to_have_text("6 h")
            me.open("/trends?w=banana")
            expect(me.page.get_by_text("There is no window “banana”")).to_be_visible()

            me.open("/targets")
            expect(me.page.get_by_text("You can look but not change anything here.")).to_be_visible()
            expect(me.page.locator("[data-testid=stMain] input")).to_have_count(0)
            for name in ("Preview", "Save"):
                expect(me.page.get_by_role("button", name=name)).to_have_count(0)
            for path in ("/", "/help"):
                me.open(path)
                expect(me.key("banner")).to_contain_text("please ask an operator")
                expect(me.keys("banner_")).to_have_count(0)
