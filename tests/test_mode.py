"""Dry run or live: both keys, what ends a loan, and what brings it back."""

from __future__ import annotations

import pytest

from selftune.domain import Mode, Reason
from selftune.mode import ModeState, effective_mode
from tests.stage import Story, ms, settings_with

HOUR = 3600.0
UNLOCKED = {"strategy.dry_run": False}


def mode(story: Story, now: float, **more: object) -> ModeState:
    given = {"settings_valid": True, "chain_ok": True, **more}
    return effective_mode(story.settings, story.governance, story.life, now_ms=ms(now), **given)  # type: ignore[arg-type]


@pytest.fixture
def story() -> Story:
    return Story(settings_with(UNLOCKED))


# ----------------------------------------------------------------------------- two keys
@pytest.mark.parametrize(
    ("changes", "armed", "live", "code"),
    [
        ({}, False, False, "mode.dry_run"),
        ({}, True, False, "mode.dry_run"),
        (UNLOCKED, False, False, "mode.not_armed"),
        (UNLOCKED, True, True, "mode.live_loan"),
        ({**UNLOCKED, "governance.approvals_required": 0}, False, True, "mode.live_free"),
        ({"governance.approvals_required": 0}, False, False, "mode.dry_run"),
        ({**UNLOCKED, "governance.approvals_required": 2}, False, False, "mode.not_armed"),
    ],
)
def test_two_keys(changes: dict[str, object], armed: bool, live: bool, code: str) -> None:
    story = Story(settings_with(changes))
    if armed:
        story.at(0).arm()
    found = mode(story, 10)
    assert (found.live, found.reason.code, found.ended) == (live, code, None)


def test_arming_before_the_flip_is_not_spent_by_dry_run() -> None:
    """An arming counts for the settings without `dry_run`: approve first, flip later."""
    locked, unlocked = settings_with(), settings_with(UNLOCKED)
    assert locked.digest == unlocked.digest
    story = Story(locked)
    story.at(0).arm()
    assert mode(story, 10).ended is None
    story.settings = unlocked
    assert mode(story, 20).live


# ----------------------------------------------------------------------------- what ends a loan
def test_a_loan_ends_at_its_date(story: Story) -> None:
    story.at(0).arm(hours=1)
    assert mode(story, HOUR - 1).live
    found = mode(story, HOUR)
    assert not found.live
    assert found.ended is not None
    assert found.ended.code == "loan.expired"


def test_a_loan_without_a_date_is_no_loan(story: Story) -> None:
    story.at(0).arm()
    story.governance[-1].data["loan"].pop("until")
    assert not mode(story, 10).live


def test_a_loan_ends_when_its_changes_are_spent_and_nothing_is_unproven(story: Story) -> None:
    story.at(0).arm(changes=2)
    for i, (rule, new) in enumerate([("risk_max", 0.33), ("creative_min", 0.24)]):
        story.verdict(story.at(200.0 * (i + 1)).step(rule, new), "NEUTRAL")
    found = mode(story, 500)
    assert found.live, "what is unproven is still to be judged"
    assert found.loan is not None
    assert found.loan.changes_left == 0
    story.at(600).confirm()
    found = mode(story, 601)
    assert found.ended is not None
    assert found.ended.code == "loan.changes_spent"


def test_only_steps_of_ours_since_the_arming_spend_the_loan(story: Story) -> None:
    story.verdict(story.at(0).step("risk_max", 0.33), "NEUTRAL")
    story.at(50).confirm()
    story.at(100).arm(changes=3)
    story.at(200).foreign("creative_min", 0.30)
    story.at(400).harmed("risk_max", 0.31)
    found = mode(story, 500)
    assert found.loan is not None
    assert found.loan.changes_left == 2, "a way back costs nothing, a foreign event neither"


def test_an_edit_of_the_settings_ends_a_loan(story: Story) -> None:
    story.at(0).arm()
    story.settings = settings_with(UNLOCKED, cooldown_s=150)
    found = mode(story, 10)
    assert found.ended == Reason("loan.edit")


@pytest.mark.parametrize("why", ["crit", "breach"])
def test_a_crit_or_a_breach_ends_a_loan(story: Story, why: str) -> None:
    story.at(0).arm()
    found = mode(story, 10, **{why: Reason(f"loan.{why}")})
    assert found.ended == Reason(f"loan.{why}")
    assert found.reason.code == "mode.loan_ended"


@pytest.mark.parametrize("kind", ["stop", "disarm"])
def test_stop_and_disarm_last_until_resumed_or_armed_anew(story: Story, kind: str) -> None:
    story.at(0).arm()
    story.at(10).govern(kind)
    found = mode(story, 20)
    assert (found.live, found.stopped, found.ended) == (False, kind == "stop", None)
    story.at(30).govern("resume")
    assert mode(story, 40).live
    story.at(50).govern(kind)
    story.at(60).arm()
    assert mode(story, 70).live


def test_resume_does_not_bring_back_a_loan_that_is_over(story: Story) -> None:
    story.at(0).arm(hours=1)
    story.at(HOUR).govern("disarm")
    story.at(HOUR + 10).govern("resume")
    found = mode(story, HOUR + 20)
    assert found.ended is not None
    assert found.ended.code == "loan.expired"


def test_a_resumed_loan_runs_since_the_resumption(story: Story) -> None:
    story.at(0).arm()
    story.at(100).govern("stop")
    story.at(200).govern("resume")
    loan = mode(story, 210).loan
    assert loan is not None
    assert (loan.at_ms, loan.since_ms) == (ms(0), ms(200))


def test_stop_and_disarm_hold_without_any_approval_needed() -> None:
    story = Story(settings_with({**UNLOCKED, "governance.approvals_required": 0}))
    story.at(0).govern("stop")
    assert mode(story, 10).stopped
    story.at(20).govern("resume")
    assert mode(story, 30).live


@pytest.mark.parametrize(
    ("broken", "suspended", "code"),
    [
        ({"settings_valid": False}, True, "mode.settings_invalid"),
        ({"chain_ok": False}, False, "mode.chain_broken"),
    ],
)
def test_broken_settings_or_chain_are_dry_run(
    story: Story, broken: dict[str, bool], suspended: bool, code: str
) -> None:
    story.at(0).arm()
    found = mode(story, 10, **broken)
    assert (found.mode, found.suspended, found.reason.code) == (Mode.DRY_RUN, suspended, code)
    assert found.ended is None, "valid settings again: the loan goes on"
