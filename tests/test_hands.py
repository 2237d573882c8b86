"""What a person does: apply, reject, snooze, roll back, stop, resume, release; and when it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from selftune import hands
from selftune.domain import Reason, Refused, UnknownId
from selftune.picture import Picture
from selftune.plan import Act
from tests.stage import GOOD, HARD, LIVE, OFF, Scene, Story, codes, moved, settings_with

WHO = {"actor": "kim", "reason": "I want it"}
ROLE = {**WHO, "role": "operator"}


@pytest.fixture
def stage() -> Scene:
    story = Story(settings_with())
    story.at(-10).suggest("risk_max", 0.33, evidence="e9")
    return Scene(story)


def one(acts: tuple[Act, ...]) -> Act:
    (act,) = acts
    return act


def refusal(do: Callable[[], Any]) -> list[str]:
    with pytest.raises(Refused) as refused:
        do()
    return [r.code for r in refused.value.reasons]


# ----------------------------------------------------------------------------- apply
def test_a_suggestion_is_applied_with_who_why_and_its_evidence(stage: Scene) -> None:
    act = one(hands.apply(stage.picture(0), "d1", **WHO))
    assert (act.kind, act.act, act.write) == ("manual", "apply", True)
    assert moved(act) == {"risk_max": (0.35, 0.33)}
    assert (act.moves[0].kind, act.moves[0].note) == ("manual", "I want it")
    assert (act.data["of"], act.data["evidence"], act.data["actor"]) == ("d1", "e9", "kim")


def test_the_record_that_renewed_a_suggestion_names_it_too(stage: Scene) -> None:
    again = stage.story.at(590).suggest("risk_max", 0.33, stands="d1")
    assert one(hands.apply(stage.picture(600), again, **WHO)).data["of"] == "d1"


@pytest.mark.parametrize(
    ("decision", "rule", "code"),
    [("d99", None, "hand.unknown_decision"), ("d1", "creative_min", "hand.rule_not_in_decision")],
)
def test_what_is_not_there_cannot_be_applied(
    stage: Scene, decision: str, rule: str | None, code: str
) -> None:
    with pytest.raises(UnknownId) as unknown:
        hands.apply(stage.picture(0), decision, rule=rule, **WHO)
    assert unknown.value.reason.code == code


def test_a_decision_without_a_proposal_cannot_be_applied(stage: Scene) -> None:
    hold = stage.story.at(-5).say("cycle", "hold")
    with pytest.raises(UnknownId) as unknown:
        hands.apply(stage.picture(0), hold, **WHO)
    assert unknown.value.reason.code == "hand.no_proposal"


def _moved(s: Scene) -> float:
    s.story.at(-5).foreign("risk_max", 0.34)
    return 0.0


def _rejected(s: Scene) -> float:
    s.story.at(-5).say("manual", "reject", of="d1")
    return 0.0


def _stale(s: Scene) -> float:
    s.gaps = [(-6.0, 9e9)]
    return 0.0


def _stopped(s: Scene) -> float:
    s.story.at(-5).govern("stop")
    return 0.0


def _open(s: Scene) -> float:
    s.story.at(-5).foreign("creative_min", 0.24)
    return 0.0


def _crit(s: Scene) -> float:
    s.story.at(-5).crit()
    return 0.0


def _paused(s: Scene) -> float:
    for i in range(3):
        s.story.at(-1000.0 * (i + 1)).harmed("risk_max", 0.33)
    s.story.at(-10).suggest("risk_max", 0.33)
    return 0.0


def _cooling(s: Scene) -> float:
    s.story.decisions.clear()
    s.story.verdict(s.story.at(-119).foreign("risk_max", 0.36), "NEUTRAL")
    s.story.at(-10).suggest("risk_max", 0.34)
    return 0.0


REFUSALS: dict[Callable[[Scene], float], str] = {
    _moved: "hand.value_moved",
    _rejected: "hand.suggestion_over",
    (lambda s: 590.0): "hand.suggestion_expired",
    _stale: "guard.stale",
    _stopped: "guard.stopped",
    _open: "guard.concurrency",
    _crit: "guard.crit",
    _cooling: "guard.cooldown",
}


@pytest.mark.parametrize("spoil", REFUSALS)
def test_a_persons_apply_passes_the_same_guards(stage: Scene, spoil: Callable[[Scene], float]) -> None:
    now = spoil(stage)
    wanted = stage.story.life.suggestions[-1].id
    assert REFUSALS[spoil] in refusal(lambda: hands.apply(stage.picture(now), wanted, **WHO))


def test_a_paused_rule_cannot_be_applied_before_it_is_released() -> None:
    stage = Scene(Story(settings_with()))
    _paused(stage)
    wanted = stage.story.life.suggestions[-1].id
    assert "guard.paused" in refusal(lambda: hands.apply(stage.picture(0), wanted, **WHO))
    stage.story.at(-5).say("manual", "release", rule="risk_max")
    hands.apply(stage.picture(0), wanted, **WHO)


def test_the_loops_own_pace_does_not_bind_a_person(stage: Scene) -> None:
    stage.story.verdict(stage.story.at(-130).foreign("creative_min", 0.24), "NEUTRAL")
    assert one(hands.apply(stage.picture(0), "d1", **WHO)).write


def test_edited_settings_let_old_suggestions_fall(stage: Scene) -> None:
    stage.story.settings = settings_with(cooldown_s=130)
    assert refusal(lambda: hands.apply(stage.picture(0), "d1", **WHO)) == ["hand.suggestion_expired"]


# ----------------------------------------------------------------------------- reject, snooze, release
def test_reject_and_snooze(stage: Scene) -> None:
    assert one(hands.reject(stage.picture(0), "d1", **WHO)).data["of"] == "d1"
    assert one(hands.snooze(stage.picture(0), "d1", for_s=60.0, **WHO)).data["for_s"] == 60.0
    _rejected(stage)
    assert refusal(lambda: hands.reject(stage.picture(0), "d1", **WHO)) == ["hand.suggestion_over"]


def test_release_only_what_is_paused_or_resting(stage: Scene) -> None:
    assert refusal(lambda: hands.release(stage.picture(0), "risk_max", **WHO)) == ["hand.not_paused"]
    with pytest.raises(UnknownId):
        hands.release(stage.picture(0), "nobody_knows", **WHO)
    _paused(stage)
    assert one(hands.release(stage.picture(0), "risk_max", **WHO)).data["rule"] == "risk_max"


# ----------------------------------------------------------------------------- rollback
def test_the_newest_event_by_anybody_that_is_no_way_back(stage: Scene) -> None:
    story = stage.story
    story.at(-300).foreign("creative_min", 0.24)
    story.at(-200).foreign("risk_max", 0.34)
    back = one(hands.rollback(stage.picture(0), **WHO))
    assert moved(back) == {"risk_max": (0.34, 0.35)}
    assert back.moves[0].reverts == "e2"
    story.at(-100).say("manual", "rollback", {"risk_max": 0.35}, reverts=["e2"])
    assert moved(one(hands.rollback(stage.picture(0), **WHO))) == {"creative_min": (0.24, 0.22)}


def test_a_named_event_or_a_rule(stage: Scene) -> None:
    story = stage.story
    story.at(-300).foreign("creative_min", 0.24)
    story.at(-200).foreign("risk_max", 0.34)
    p = stage.picture(0)
    assert moved(one(hands.rollback(p, event="e1", **WHO))) == {"creative_min": (0.24, 0.22)}
    assert moved(one(hands.rollback(p, rule="creative_min", **WHO))) == {"creative_min": (0.24, 0.22)}


def test_a_joint_change_is_undone_as_one(stage: Scene) -> None:
    stage.story.at(-300).joint(risk_max=0.33, creative_min=0.24)
    back = one(hands.rollback(stage.picture(0), **WHO))
    assert moved(back) == {"risk_max": (0.33, 0.35), "creative_min": (0.24, 0.22)}


def test_it_needs_no_data_and_no_mode(stage: Scene) -> None:
    """The seed's rollback writes null; ours writes the value before, also blind, stopped and in dry run."""
    stage.story.at(-300).foreign("risk_max", 0.34, old=None)
    stage.story.govern("stop")
    stage.gaps = [(-2000.0, 9e9)]
    back = one(hands.rollback(stage.picture(0), **WHO))
    assert moved(back) == {"risk_max": (0.34, 0.35)}
    assert back.write


def test_a_value_before_that_the_bounds_no_longer_allow_is_clipped(stage: Scene) -> None:
    stage.story.at(-400).foreign("risk_max", 0.6)
    stage.story.at(-300).foreign("risk_max", 0.3)
    assert moved(one(hands.rollback(stage.picture(0), **WHO))) == {"risk_max": (0.3, 0.40)}


@pytest.mark.parametrize("which", [{"event": "e77"}, {"rule": "nobody_knows"}, {}, {"rule": "creative_min"}])
def test_nothing_to_revert_is_said(stage: Scene, which: dict[str, str]) -> None:
    with pytest.raises(UnknownId):
        hands.rollback(stage.picture(0), **which, **WHO)


def test_a_rollback_that_never_arrived_has_reverted_nothing(stage: Scene) -> None:
    stage.story.at(-300).foreign("risk_max", 0.34)
    stage.story.at(-200).say("manual", "rollback", {"risk_max": 0.35}, lost=True, reverts=["e1"])
    assert moved(one(hands.rollback(stage.picture(0), **WHO))) == {"risk_max": (0.34, 0.35)}


# ----------------------------------------------------------------------------- stop and resume
def test_stop_takes_what_is_unproven_home_in_the_same_commit() -> None:
    story = Story(settings_with(LIVE))
    step = story.at(0).step("risk_max", 0.33)
    stop, back = hands.stop(Scene(story).picture(20), **ROLE)
    assert [g["kind"] for g in stop.governance] == ["stop"]
    assert moved(back) == {"risk_max": (0.33, 0.35)}
    assert (back.write, back.data["cause"], back.data["undoes"]) == (True, "loan_end", [step])


def test_stop_works_whatever_is_wrong(stage: Scene) -> None:
    stage.gaps = [(-2000.0, 9e9)]
    stage.story.crit()
    p = stage.picture(0, settings_problem=Reason("settings.invalid"))
    assert one(hands.stop(p, **ROLE)).act == "stop"


def test_stop_does_not_go_home_where_home_is_not_safe() -> None:
    story = Story(settings_with({**LIVE, **HARD}))
    story.verdict(story.at(0).step("risk_max", 0.33), "NEUTRAL")
    stage = Scene(story, levels=[(-1800, {**OFF, "risk_band": 0.48}), (2, {"risk_band": 0.28})])
    _, then = hands.stop(stage.picture(300), **ROLE)
    assert (then.act, then.data["basis"]) == ("confirm", "anchor_unsafe")


def test_resume_lifts_a_stop_and_acknowledges_open_crits() -> None:
    story = Story(settings_with(LIVE))
    story.at(0).crit(effect="e5")
    story.at(10).govern("stop")
    act = one(hands.resume(Scene(story).picture(20), **ROLE))
    (line,) = act.governance
    assert (line["kind"], line["acknowledges"]) == ("resume", ["e5"])
    story.at(30).govern("resume", acknowledges=["e5"])
    assert Scene(story).picture(40).mode.live


@pytest.mark.parametrize("settings", [{}, LIVE])
def test_nothing_to_resume_is_refused(settings: dict[str, Any]) -> None:
    p: Picture = Scene(Story(settings_with(settings)), levels=[(-1800, GOOD)]).picture(0)
    assert refusal(lambda: hands.resume(p, **ROLE)) == ["hand.nothing_to_resume"]


def test_a_refusal_says_until_when(stage: Scene) -> None:
    _cooling(stage)
    with pytest.raises(Refused) as refused:
        hands.apply(stage.picture(0), stage.story.life.suggestions[-1].id, **WHO)
    assert "guard.cooldown" in codes(refused.value.reasons)
    assert all(r.params["until_ms"] for r in refused.value.reasons if r.code == "guard.cooldown")
