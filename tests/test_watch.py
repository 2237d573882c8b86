"""What is open is watched: verdicts, harm, blindness, hard limits, loans that end, others' values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from selftune.book import Chain
from selftune.cycle import decide, policy_state
from selftune.domain import Mode, Reason
from selftune.plan import Snapshot
from selftune.quiet import LOOK_BACK_S
from tests.stage import GOOD, HARD, LIVE, OFF, Scene, Story, acts, codes, moved, ms, settings_with, the

BETTER = {"risk_band": 0.31}
WORSE = {"risk_band": 0.36}
SAME: dict[str, float] = {}


def scene(levels: Mapping[str, float] = SAME, *, at: float = 10.0, **changes: Any) -> tuple[Scene, str]:
    """A step of risk_max at `at`, after which the metrics go to `levels`."""
    story = Story(settings_with({**LIVE, **changes}))
    change = story.at(at).step("risk_max", 0.33)
    return Scene(story, levels=[(0.0, OFF), (at + 2, levels)]), change


# ----------------------------------------------------------------------------- the first verdict
def test_an_improvement_of_a_single_step_is_confirmed_at_once() -> None:
    stage, change = scene(BETTER)
    assert acts(stage.plan(99)) == [("cycle", "hold")]
    plan = stage.plan(101)
    assert acts(plan) == [("verdict", "evaluate"), ("verdict", "confirm")]
    assert the(plan, "evaluate").data["verdict"] == "IMPROVED"
    assert the(plan, "evaluate").data["change"] == change
    assert the(plan, "confirm").data["anchor"] == {"creative_min": 0.22, "risk_max": 0.33}
    assert the(plan, "confirm").data["basis"] == "improved"


def test_with_confirm_reversal_no_single_verdict_confirms() -> None:
    stage, _ = scene(BETTER, **{"strategy.confirm": "reversal"})
    assert acts(stage.plan(101)) == [("verdict", "evaluate")]


def test_no_effect_puts_a_step_on_probation() -> None:
    stage, _ = scene()
    plan = stage.plan(101)
    assert acts(plan) == [("verdict", "evaluate")]
    assert the(plan, "evaluate").data["verdict"] == "NEUTRAL"


def test_an_improved_step_of_a_longer_excursion_waits_for_the_whole() -> None:
    story = Story(settings_with(LIVE))
    story.verdict(story.at(10).step("creative_min", 0.24), "NEUTRAL")
    story.at(400).step("risk_max", 0.33)
    stage = Scene(story, levels=[(402, BETTER)])
    assert acts(stage.plan(491)) == [("verdict", "evaluate")]


def test_after_a_foreign_event_in_the_excursion_one_verdict_does_not_confirm_it() -> None:
    story = Story(settings_with(LIVE))
    story.at(10).step("risk_max", 0.33)
    story.at(80).foreign("creative_min", 0.24)
    stage = Scene(story, levels=[(12, BETTER)])
    assert "confirm" not in [a for _, a in acts(stage.plan(101))]


def test_a_harmful_step_goes_back_with_its_verdict_in_one_commit() -> None:
    stage, change = scene({"risk_band": 0.345})
    plan = stage.plan(101)
    assert acts(plan) == [("verdict", "evaluate"), ("cycle", "return")]
    back = the(plan, "return")
    assert moved(back) == {"risk_max": (0.33, 0.35)}
    assert back.write
    assert back.moves[0].kind == "rollback"
    assert back.moves[0].reverts == "e1"
    assert (back.data["cause"], back.data["undoes"]) == ("worsened", [change])
    assert back.data["harm"]["rule"] == "risk_max"
    assert back.data["harm"]["sign"] == -1
    assert back.data["harm"]["anchor"] == 0.35
    assert back.data["harm"]["deltas"]["risk_band"] == pytest.approx(0.015, abs=0.003)
    assert [w["severity"] for w in back.warnings] == ["warn"]
    assert back.warnings[0]["effect"] == "e1"


def test_of_a_longer_excursion_only_the_harmful_step_goes_back() -> None:
    story = Story(settings_with(LIVE))
    story.verdict(story.at(10).step("creative_min", 0.24), "NEUTRAL")
    bad = story.at(400).step("risk_max", 0.33)
    stage = Scene(story, levels=[(402, {"risk_band": 0.345})])
    back = the(stage.plan(491), "return")
    assert moved(back) == {"risk_max": (0.33, 0.35)}
    assert (back.data["scope"], back.data["undoes"]) == ("step", [bad])


def test_a_joint_change_goes_back_as_one() -> None:
    story = Story(settings_with(LIVE, strategy__max_concurrent_changes=2))
    story.at(10).joint(risk_max=0.33, creative_min=0.24)
    stage = Scene(story, levels=[(12, {"risk_band": 0.345})])
    plan = stage.plan(101)
    assert acts(plan) == [("verdict", "evaluate"), ("cycle", "return")], "one joint verdict, one rollback"
    assert moved(the(plan, "return")) == {"risk_max": (0.33, 0.35), "creative_min": (0.24, 0.22)}


def test_early_harm_goes_back_before_the_verdict_is_due() -> None:
    stage, _ = scene({"risk_band": 0.40})
    plan = stage.plan(60)
    assert acts(plan) == [("verdict", "evaluate"), ("cycle", "return")]
    assert the(plan, "return").data["cause"] == "early_harm"
    assert the(plan, "evaluate").data["verdict"] == "WORSENED"
    assert the(plan, "return").data["harm"]["deltas"]["risk_band"] > 0.04


def test_early_harm_by_others_waits_for_its_verdict() -> None:
    story = Story(settings_with(LIVE))
    story.at(10).foreign("risk_max", 0.37)
    stage = Scene(story, levels=[(12, {"risk_band": 0.40})])
    assert acts(stage.plan(60)) == [("cycle", "hold")]


# ----------------------------------------------------------------------------- who may undo what
@pytest.mark.parametrize("who", ["foreign", "apply", "rollback"])
def test_what_a_person_or_another_did_is_never_undone_but_warned_about(who: str) -> None:
    story = Story(settings_with(LIVE))
    story.at(10)
    if who == "foreign":
        story.foreign("risk_max", 0.37)
    else:
        story.say("manual", who, {"risk_max": 0.37})
    stage = Scene(story, levels=[(12, {"risk_band": 0.36})])
    plan = stage.plan(101)
    assert acts(plan) == [("verdict", "evaluate"), ("cycle", "propose_rollback")]
    idea = the(plan, "propose_rollback")
    assert not idea.write
    assert moved(idea) == {"risk_max": (0.37, 0.35)}
    assert [w["severity"] for w in idea.warnings] == ["warn"]
    assert "harm" not in idea.data


def test_two_harmful_changes_of_others_are_two_warnings() -> None:
    story = Story(settings_with(LIVE))
    story.verdict(story.at(10).foreign("risk_max", 0.37), "WORSENED")
    story.at(101).say("cycle", "propose_rollback", cause="worsened", would=[
        {"rule": "risk_max", "old": 0.37, "new": 0.35, "kind": "rollback"}])  # fmt: skip
    story.at(300).foreign("risk_max", 0.39)
    stage = Scene(story, levels=[(302, {"risk_band": 0.36})])
    assert acts(stage.plan(391)) == [("verdict", "evaluate"), ("cycle", "propose_rollback")]


def test_without_auto_rollback_a_harmful_step_is_a_proposal() -> None:
    stage, _ = scene({"risk_band": 0.345}, **{"strategy.auto_rollback": False})
    back = the(stage.plan(101), "return")
    assert not back.write
    assert moved(back) == {"risk_max": (0.33, 0.35)}
    assert "harm" not in back.data, "nothing was undone, so nothing is counted"


def test_without_auto_rollback_blindness_and_limits_still_lead_back() -> None:
    stage, _ = scene(**{"strategy.auto_rollback": False})
    stage.gaps = [(30, 9999)]
    assert the(stage.plan(301), "return").write
    stage, _ = scene({"risk_band": 0.50}, **{"strategy.auto_rollback": False, **HARD})
    assert the(stage.plan(60), "return").write


# ----------------------------------------------------------------------------- blind is not bad
def test_a_short_gap_changes_nothing() -> None:
    stage, _ = scene(BETTER)
    stage.gaps = [(50, 53)]
    assert acts(stage.plan(52)) == [("cycle", "hold")]
    assert acts(stage.plan(101)) == [("verdict", "evaluate"), ("verdict", "confirm")]


def test_stale_data_wait_three_windows_then_one_return_that_counts_nothing() -> None:
    stage, change = scene()
    stage.gaps = [(30, 9999)]
    for now in (40, 150, 299):
        assert [a for _, a in acts(stage.plan(now))] == ["hold"]
    plan = stage.plan(301)
    assert acts(plan) == [("verdict", "evaluate"), ("cycle", "return")]
    assert the(plan, "evaluate").data["verdict"] == "INCONCLUSIVE"
    back = the(plan, "return")
    assert (back.data["cause"], back.data["undoes"], back.data["scope"]) == ("blind", [change], "excursion")
    assert "harm" not in back.data
    assert not back.warnings


def test_a_foreign_change_without_data_ends_inconclusive_and_stays() -> None:
    story = Story(settings_with(LIVE))
    story.at(10).foreign("risk_max", 0.33)
    stage = Scene(story, gaps=[(30, 9999)])
    assert acts(stage.plan(301)) == [("verdict", "evaluate")]


def test_a_window_that_never_fills_is_inconclusive_after_two_windows() -> None:
    stage, _ = scene()
    stage.gaps = [(40, 98)]
    plan = stage.plan(101)
    assert the(plan, "evaluate").data["verdict"] == "INCONCLUSIVE"


# ----------------------------------------------------------------------------- the clock
def test_a_jump_back_of_the_clock_observes_what_is_open_again_once() -> None:
    stage, change = scene()
    epoch = {"epoch_at_ms": ms(50)}

    def plan(now: float) -> list[tuple[str, str | None]]:
        snap = stage.snapshot(now, **epoch)
        series = replace(snap.series, epoch=1, epoch_start_ms=ms(50))
        return acts(decide(replace(snap, series=series)))

    assert plan(51) == [("verdict", "reobserve")]
    stage.story.at(51).say("verdict", "reobserve", change=change, from_ms=ms(50))
    assert plan(52) == [("cycle", "hold")]
    assert plan(101) == [("cycle", "hold")], "the old window is no longer the one"
    assert plan(141) == [("verdict", "evaluate")]


# ----------------------------------------------------------------------------- hard limits
def test_a_broken_hard_limit_takes_back_what_is_open_at_once() -> None:
    stage, change = scene({"risk_band": 0.50}, **HARD)
    plan = stage.plan(40)
    assert acts(plan) == [("cycle", "return")]
    back = the(plan, "return")
    assert back.write
    assert moved(back) == {"risk_max": (0.33, 0.35)}
    assert (back.data["cause"], back.data["undoes"]) == ("hard_limit", [change])
    assert back.data["harm"]["rule"] == "risk_max"
    assert back.reasons[0].params["limit"] == 0.45


def test_single_samples_beyond_a_hard_limit_are_no_breach() -> None:
    stage, _ = scene({"risk_band": 0.42}, **HARD)
    stage.noise = {**stage.noise, "risk_band": 0.03}
    assert "hard_limit" not in [a.data.get("cause") for a in stage.plan(40).acts]


def test_a_hard_breach_puts_a_persons_change_back_too_when_live() -> None:
    for changes, writes in ((LIVE, True), ({}, False)):
        story = Story(settings_with({**changes, **HARD}))
        story.at(10).foreign("risk_max", 0.39)
        stage = Scene(story, levels=[(12, {"risk_band": 0.50})])
        back = the(stage.plan(40), "return")
        assert back.write is writes
        assert moved(back) == {"risk_max": (0.39, 0.35)}


def test_what_came_last_goes_back_first_whoever_did_it() -> None:
    """An unproven step of ours on probation must not take the blame for what somebody has just set."""
    story = Story(settings_with({**LIVE, **HARD}))
    ours = story.at(-300).step("creative_min", 0.24)
    story.at(-200).verdict(ours, "NEUTRAL")
    story.at(10).foreign("risk_max", 0.39)
    stage = Scene(story, levels=[(12, {"risk_band": 0.50})])
    assert moved(the(stage.plan(40), "return")) == {"risk_max": (0.39, 0.35)}

    story = Story(settings_with({**LIVE, **HARD}))
    story.at(10).foreign("risk_max", 0.37)
    story.at(20).step("creative_min", 0.24)
    stage = Scene(story, levels=[(22, {"risk_band": 0.50})])
    assert moved(the(stage.plan(50), "return")) == {"creative_min": (0.24, 0.22)}


def test_with_nothing_open_an_emergency_move_of_at_most_lr() -> None:
    story = Story(settings_with({**LIVE, **HARD}))
    stage = Scene(story, levels=[(0, {"risk_band": 0.50})])
    plan = stage.plan(30)
    assert acts(plan) == [("cycle", "emergency")]
    assert moved(the(plan, "emergency")) == {"risk_max": (0.35, 0.33)}
    assert the(plan, "emergency").write


def test_emergency_moves_lie_thirty_seconds_apart_and_need_no_cooldown() -> None:
    story = Story(settings_with({**LIVE, **HARD}))
    stage = Scene(story, levels=[(0, {"risk_band": 0.50})])
    story.at(30).say("cycle", "emergency", {"risk_max": 0.33}, cause="hard_limit")
    assert "emergency" not in [a for _, a in acts(stage.plan(59))]
    plan = stage.plan(71)
    assert moved(the(plan, "emergency")) == {"risk_max": (0.33, 0.31)}


def test_the_policy_knows_of_a_breach_for_as_long_as_windows_are_remembered() -> None:
    story = Story(settings_with({**LIVE, **HARD}))
    stage = Scene(story, levels=[(0, {"risk_band": 0.50})])
    assert not stage.picture(0).broke
    story.at(30).say("cycle", "emergency", {"risk_max": 0.33}, cause="hard_limit")
    assert policy_state(stage.picture(71)).broke
    assert not stage.picture(31 + LOOK_BACK_S).broke


def test_an_emergency_of_a_value_outside_the_bounds_moves_lr_too() -> None:
    story = Story(settings_with({**LIVE, **HARD}))
    story.verdict(story.at(-900).foreign("risk_max", 0.60), "NEUTRAL")
    stage = Scene(story, levels=[(0, {"risk_band": 0.50})])
    assert moved(the(stage.plan(30), "emergency")) == {"risk_max": (0.60, 0.58)}


def test_where_no_move_helps_a_crit_is_said_once() -> None:
    story = Story(settings_with({**LIVE, **HARD}))
    story.verdict(story.at(-900).foreign("risk_max", 0.20), "NEUTRAL")
    stage = Scene(story, levels=[(0, {"risk_band": 0.50})])
    plan = stage.plan(30)
    act = the(plan, "emergency")
    assert not act.moves
    assert [w["severity"] for w in act.warnings] == ["crit"]
    assert "emergency.no_move" in codes(act.reasons)
    story.at(30).say("cycle", "emergency", cause="hard_limit")
    story.crit(signal={"emergency": True})
    assert "emergency" not in [a for _, a in acts(stage.plan(80))]


def test_the_safer_of_the_anchor_and_the_value_before() -> None:
    """The anchor was seen over the limit, the value between was not: only the last step goes back."""
    story = Story(settings_with({**LIVE, **HARD}))
    first = story.at(0).step("risk_max", 0.33)
    story.at(90).verdict(first, "NEUTRAL")
    last = story.at(600).step("creative_min", 0.24)
    stage = Scene(story, levels=[(-1800, {"risk_band": 0.445}), (2, {"risk_band": 0.30}),
                                 (602, {"risk_band": 0.50})],
                  noise=dict.fromkeys(OFF, 0.02))  # fmt: skip
    back = the(stage.plan(640), "return")
    assert moved(back) == {"creative_min": (0.24, 0.22)}
    assert back.data["undoes"] == [last]


def test_a_breach_after_the_last_step_was_taken_back_goes_to_the_anchor() -> None:
    story = Story(settings_with({**LIVE, **HARD}))
    first = story.at(0).step("risk_max", 0.33)
    story.at(90).verdict(first, "NEUTRAL")
    bad = story.at(600).step("creative_min", 0.24)
    story.at(690).verdict(bad, "WORSENED")
    story.back("worsened", {"creative_min": 0.22}, [bad], scope="step")
    stage = Scene(story, levels=[(800, {"risk_band": 0.50})])
    assert moved(the(stage.plan(830), "return")) == {"risk_max": (0.33, 0.35)}


def test_in_dry_run_an_emergency_is_only_said() -> None:
    stage = Scene(Story(settings_with(HARD)), levels=[(0, {"risk_band": 0.50})])
    act = the(stage.plan(30), "emergency")
    assert not act.write


# ----------------------------------------------------------------------------- loans that end
ARMED = {"strategy.dry_run": False}


def _lent(**levels: float) -> tuple[Scene, str]:
    story = Story(settings_with(ARMED))
    story.at(0).arm(hours=1)
    change = story.at(3500).step("risk_max", 0.33)
    return Scene(story, levels=[(3502, levels)]), change


def test_a_loan_that_ends_takes_what_is_open_home_in_the_same_commit() -> None:
    stage, change = _lent()
    assert acts(stage.plan(3599)) == [("verdict", "evaluate")]
    plan = stage.plan(3600)
    assert acts(plan) == [("cycle", "return"), ("mode", "disarm")]
    back = the(plan, "return")
    assert back.write, "the last act the loan permits"
    assert back.data["cause"] == "loan_end"
    assert back.data["undoes"] == [change]
    assert "harm" not in back.data
    assert [g["kind"] for g in the(plan, "disarm").governance] == ["disarm"]
    assert the(plan, "disarm").governance[0]["reason"] == "loan.expired"


@pytest.mark.parametrize("how", ["crit", "edit", "stop", "chain", "locked"])
def test_every_end_of_a_loan_has_one_return(how: str) -> None:
    stage, _ = _lent()
    stage.story.at(3550)
    more: dict[str, Any] = {}
    if how == "crit":
        stage.story.crit()
    elif how == "edit":
        stage.story.settings = settings_with(ARMED, cooldown_s=150)
    elif how == "stop":
        stage.story.govern("stop")
    elif how == "locked":
        stage.story.settings = settings_with()
    if how == "chain":
        stage.edits = _broken_chain
    plan = stage.plan(3560, **more)
    back = the(plan, "return")
    assert back.write
    assert moved(back) == {"risk_max": (0.33, 0.35)}
    assert ("mode", "disarm") in acts(plan) or how in ("stop", "chain", "locked")
    stage.story.at(3560).back("loan_end", {"risk_max": 0.35})
    stage.story.govern("disarm")
    stage.story.say("mode", "disarm", mode=Mode.DRY_RUN)
    assert "return" not in [a for _, a in acts(stage.plan(3562))], "one, not two"


def _broken_chain(snap: Snapshot) -> Snapshot:
    return replace(snap, records=replace(snap.records, chain=Chain(reason="prev", line=1)))


def test_a_return_that_was_killed_is_owed_at_the_next_start() -> None:
    stage, change = _lent()
    stage.story.at(3600).say("cycle", "return", {"risk_max": 0.35}, lost=True, cause="loan_end",
                             scope="excursion", undoes=[change])  # fmt: skip
    stage.story.govern("disarm")
    assert acts(stage.plan(3700)) == [("cycle", "abandon")]
    keys = list(next(iter(stage.story.life.orphans.values())))
    stage.story.at(3700).say("cycle", "abandon", abandoned=keys)
    assert moved(the(stage.plan(3701), "return")) == {"risk_max": (0.33, 0.35)}


def test_a_loan_that_ends_with_nothing_open_only_says_so() -> None:
    story = Story(settings_with(ARMED))
    story.at(0).arm(hours=1)
    assert acts(Scene(story).plan(3600)) == [("mode", "disarm")]


def test_a_look_under_way_ends_with_the_loan_and_stays_home() -> None:
    stage, change = _lent()
    stage.story.verdict(change, "NEUTRAL")
    stage.story.at(3590).look({"risk_max": 0.35})
    plan = stage.plan(3600)
    assert acts(plan) == [("verdict", "look"), ("mode", "disarm")]
    assert the(plan, "look").data["result"] == "stay"


def test_an_anchor_that_is_not_safe_is_not_gone_to_when_a_loan_ends() -> None:
    story = Story(settings_with({**ARMED, **HARD}))
    story.at(0).arm(hours=1)
    story.verdict(story.at(3000).step("risk_max", 0.33), "NEUTRAL")
    stage = Scene(story, start=600, levels=[(600, {"risk_band": 0.47}), (3002, {"risk_band": 0.30})])
    plan = stage.plan(3600)
    assert acts(plan) == [("verdict", "confirm"), ("mode", "disarm")]
    assert the(plan, "confirm").data["basis"] == "anchor_unsafe"


def test_a_crit_that_the_approver_saw_does_not_disarm() -> None:
    story = Story(settings_with(ARMED))
    story.at(0).crit(effect="e77")
    story.at(10).arm(crits=["e77"])
    assert Scene(story).picture(20).mode.live
    story.at(30).crit(effect="e78")
    assert Scene(story).picture(40).mode.ended == Reason(
        "loan.crit", {"note": "something burns", "rule": None}
    )


def test_our_own_emergencys_crit_disarms_only_once_inside_again() -> None:
    story = Story(settings_with({**ARMED, **HARD}))
    story.at(0).arm()
    story.at(20).crit(signal={"emergency": True})
    stage = Scene(story, levels=[(0, {"risk_band": 0.50}), (60, OFF)])
    assert stage.picture(30).mode.live
    assert not stage.picture(100).mode.live


def test_a_breach_that_is_over_ends_the_loan_and_a_resumption_is_not_undone_by_it() -> None:
    story = Story(settings_with({**ARMED, **HARD}))
    story.at(0).arm()
    story.at(30).say("cycle", "emergency", {"risk_max": 0.33}, cause="hard_limit")
    stage = Scene(story, levels=[(20, {"risk_band": 0.50}), (40, OFF)])
    assert stage.picture(35).mode.live, "while it is broken the loop may still act"
    ended = stage.picture(80).mode.ended
    assert ended is not None
    assert ended.code == "loan.breach"
    story.at(80).govern("disarm")
    story.at(90).govern("resume")
    assert stage.picture(100).mode.live


# ----------------------------------------------------------------------------- owed
def test_a_harmful_step_whose_return_was_killed_goes_back_later() -> None:
    stage, change = scene({"risk_band": 0.345})
    stage.story.at(101).verdict(change, "WORSENED")
    plan = stage.plan(103)
    assert acts(plan) == [("cycle", "return")]
    back = the(plan, "return")
    assert moved(back) == {"risk_max": (0.33, 0.35)}
    assert back.data["harm"]["rule"] == "risk_max"
    assert codes(back.reasons) == ["owed.worsened"]


def test_what_was_only_proposed_while_the_settings_were_broken_happens_once_they_are_whole() -> None:
    stage, change = scene({"risk_band": 0.345})
    broken = {"settings_problem": Reason("settings.invalid")}
    assert acts(stage.plan(100, **broken)) == [("mode", "changed")]
    stage.story.at(100).say("mode", "changed", mode=Mode.DRY_RUN)
    plan = stage.plan(101, **broken)
    assert acts(plan) == [("verdict", "evaluate"), ("cycle", "return")]
    assert not the(plan, "return").write
    stage.story.at(101).verdict(change, "WORSENED", mode=Mode.DRY_RUN)
    stage.story.say("cycle", "return", cause="worsened",
                    would=[{"rule": "risk_max", "old": 0.33, "new": 0.35, "kind": "rollback"}])  # fmt: skip
    assert the(stage.plan(105), "return").write


# ----------------------------------------------------------------------------- records that close others
def test_an_intended_event_that_never_arrived_is_abandoned_never_applied_late() -> None:
    story = Story(settings_with(LIVE))
    lost = story.at(0).say("cycle", "step", {"risk_max": 0.33}, lost=True)
    plan = Scene(story).plan(5)
    act = the(plan, "abandon")
    assert act.data["of"] == lost
    assert act.data["abandoned"] == list(story.life.orphans[lost])
    assert not act.moves


def test_a_step_back_to_the_reference_says_so_and_not_that_somebody_moved_the_rule_again() -> None:
    """Nothing unproven is in force after it: there is nothing to judge."""
    story = Story(settings_with(LIVE))
    first = story.at(0).step("risk_max", 0.33)
    story.at(91).verdict(first, "NEUTRAL")
    home = story.at(200).step("risk_max", 0.35)
    said = the(Scene(story, start=-1800).plan(201), "supersede")
    assert (said.data["change"], codes(said.reasons)) == (home, ["supersede.home"])


def test_a_superseded_change_is_said_once() -> None:
    stage, change = scene()
    stage.story.at(50).foreign("risk_max", 0.36)
    plan = stage.plan(55)
    assert acts(plan) == [("verdict", "supersede")]
    stage.story.at(55).say("verdict", "supersede", change=change)
    assert acts(stage.plan(56)) == [("cycle", "hold")]


# ----------------------------------------------------------------------------- others' values out of bounds
def _outside(value: float, **changes: Any) -> Scene:
    story = Story(settings_with({**LIVE, **changes}))
    story.verdict(story.at(0).foreign("risk_max", value), "NEUTRAL")
    return Scene(story, levels=[(0, GOOD)])


@pytest.mark.parametrize(
    ("value", "new"), [(0.50, 0.48), (0.41, 0.40), (0.10, 0.12), (0.19, 0.20), (0.4000004, 0.40)]
)
def test_a_foreign_value_outside_the_bounds_comes_back_in_small_steps(value: float, new: float) -> None:
    act = the(_outside(value).plan(200), "bound")
    assert moved(act) == {"risk_max": (value, new)}
    assert act.write


def test_not_before_its_cooldown_and_not_in_dry_run() -> None:
    assert "bound" not in [a for _, a in acts(_outside(0.5).plan(119))]
    assert "bound" not in [a for _, a in acts(_outside(0.5, **{"strategy.dry_run": True}).plan(200))]


def test_it_is_not_fought_over() -> None:
    stage = _outside(0.5)
    story = stage.story
    bound = story.at(200).say("cycle", "bound", {"risk_max": 0.48})
    story.verdict(bound, "NEUTRAL")
    story.verdict(story.at(400).foreign("risk_max", 0.5), "NEUTRAL")
    assert "bound" not in [a for _, a in acts(stage.plan(600))]
    assert "bound" in [a for _, a in acts(stage.plan(3801))], "an hour later it is tried again"


def test_several_small_steps_are_no_fight() -> None:
    stage = _outside(0.5)
    story = stage.story
    for i, value in enumerate((0.48, 0.46)):
        bound = story.at(200.0 * (i + 1)).say("cycle", "bound", {"risk_max": value})
        story.verdict(bound, "NEUTRAL")
    assert moved(the(stage.plan(600), "bound")) == {"risk_max": (0.46, 0.44)}


# ----------------------------------------------------------------------------- no quiet time
def test_an_hour_without_quiet_time_is_one_warning_that_names_who() -> None:
    story = Story(settings_with(LIVE))
    for i in range(75):
        story.at(i * 60.0).foreign("creative_min", 0.22 + 0.01 * (i % 2), actor="restless")
    stage = Scene(story)
    now = 74 * 60.0 + 30
    act = the(stage.plan(now), "no_quiet")
    assert act.warnings[0]["signal"]["actor"] == "restless"
    story.at(now).say("cycle", "no_quiet")
    assert "no_quiet" not in [a for _, a in acts(stage.plan(now + 20))]
