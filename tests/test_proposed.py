"""What the loop only proposes in practice mode: it stands, a person carries it out, and it is over."""

from __future__ import annotations

from typing import Any

import pytest

from selftune import hands, proposed
from selftune.cards import board, rollback_cards
from selftune.cycle import plan_of
from selftune.domain import Mode, Origin, Refused, UnknownId
from selftune.lifecycle import ChangeKind
from selftune.needs import needs
from selftune.picture import Picture
from selftune.view import BannerView, DataAge, LoopState
from tests.stage import HARD, LIVE, Levels, Scene, Story, codes, moved, settings_with, the

WHO = {"actor": "kim", "reason": "it burns"}
BURNING: Levels = [(0.0, {"risk_band": 0.50})]


def burning(story: Story | None = None) -> tuple[Story, str]:
    """A hard limit is broken with nothing open, and the loop in practice mode has proposed a step away."""
    story = story or Story(settings_with(HARD))
    plan = Scene(story, levels=BURNING).plan(30)
    act = the(plan, "emergency")
    assert not act.write
    would = [{"rule": m.rule, "old": m.old, "new": m.new, "kind": m.kind} for m in act.moves]
    reasons = [r.as_json() for r in act.reasons]
    did = story.at(30).say("cycle", "emergency", would=would, reasons=reasons, cause="hard_limit")
    return story, did


def seen(story: Story, now: float, **more: Any) -> Picture:
    return Scene(story, **{"levels": BURNING, **more}).picture(now)


def banner() -> BannerView:
    return BannerView(
        loop=LoopState.ALIVE, loop_age_s=0.5, mode=Mode.DRY_RUN, data=DataAge.FRESH, data_age_s=1
    )


# ----------------------------------------------------------------------------- emergencies
def test_an_emergency_in_practice_mode_is_a_card_that_can_be_carried_out() -> None:
    story, did = burning()
    p = seen(story, 40)
    (card,) = board(p, plan_of(p)).rollbacks
    assert (card.id, card.urgent, card.refusals) == (did, True, ())
    assert [(m.rule, m.old, m.new) for m in card.moves] == [("risk_max", 0.35, 0.33)]
    (act,) = proposed.carry_out(p, did, **WHO)
    assert (act.kind, act.act, act.write, moved(act)) == (
        "manual", "emergency", True, {"risk_max": (0.35, 0.33)}
    )  # fmt: skip
    assert (act.data["of"], act.data["why"], act.moves[0].note) == (did, "it burns", "it burns")
    found = [n for n in needs(p, banner()) if n.kind == "emergency"]
    assert [n.urgent for n in found] == [True] and found[0].page == "suggestions"


def test_what_was_carried_out_counts_as_an_emergency_and_is_not_taken_back_at_once() -> None:
    story, did = burning()
    story.at(40).say("manual", "emergency", {"risk_max": 0.33}, of=did, cause="hard_limit")
    p = seen(story, 45)
    assert p.life.changes[-1].kind is ChangeKind.EMERGENCY
    assert rollback_cards(p) == ()
    assert [a.act for a in plan_of(p).acts if a.moves] == []
    with pytest.raises(UnknownId):
        proposed.carry_out(p, story.decisions[-1].id, **WHO)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("stale", "guard.stale"),
        ("stopped", "guard.stopped"),
        ("manual_off", "hand.manual_apply_off"),
        ("other", "hand.emergency_over"),
    ],
)
def test_an_emergency_that_may_not_be_carried_out_says_why(state: str, code: str) -> None:
    off = {"governance.manual_apply": False} if state == "manual_off" else {}
    story, did = burning(Story(settings_with({**HARD, **off})))
    if state == "stopped":
        story.govern("stop")
    if state == "other":  # somebody moved the rule: the step on record starts elsewhere
        story.at(35).foreign("creative_min", 0.24)
        story.verdict(story.events[-1].key, "NEUTRAL")
        story.foreign("risk_max", 0.36)
    gaps = [(32.0, 60.0)] if state == "stale" else []
    with pytest.raises(Refused) as no:
        proposed.carry_out(seen(story, 60, gaps=gaps), did, **WHO)
    assert code in codes(no.value.reasons)


def test_an_emergency_is_over_when_the_level_is_kept_again() -> None:
    story, did = burning()
    p = seen(story, 120, levels=[*BURNING, (60.0, {"risk_band": 0.28})])
    assert rollback_cards(p) == ()
    with pytest.raises(Refused) as no:
        proposed.carry_out(p, did, **WHO)
    assert codes(no.value.reasons) == ["hand.emergency_over"]


def test_turned_down_it_is_silent_until_it_is_proposed_again() -> None:
    story, did = burning()
    (act,) = hands.reject(seen(story, 40), did, **WHO)
    story.at(40).say("manual", "reject", of=act.data["of"])
    p = seen(story, 50)
    assert rollback_cards(p) == ()
    with pytest.raises(Refused):
        proposed.carry_out(p, did, **WHO)


# ----------------------------------------------------------------------------- ways back
def away() -> tuple[Story, list[str]]:
    """Two steps of ours that went one way; the loop may not take them back by itself."""
    story = Story(settings_with({**LIVE, "strategy.auto_rollback": False}))
    first = story.at(0).step("risk_max", 0.33)
    story.at(90).verdict(first, "NEUTRAL")
    second = story.at(300).step("risk_max", 0.31)
    story.at(390).verdict(second, "NEUTRAL")
    return story, [first, second]


def test_a_proposed_return_goes_to_the_very_values_it_names() -> None:
    """Of two steps both are taken back: undoing the newest event alone would stop half way."""
    story, steps = away()
    last = story.events[-1].key
    would = [{"rule": "risk_max", "old": 0.31, "new": 0.35, "kind": "rollback"}]
    did = story.at(400).say(
        "cycle", "return", cause="probation_harm", undoes=steps, reverts=[last], would=would
    )
    p = seen(story, 410, levels=[])
    (card,) = rollback_cards(p)
    assert card.origin is Origin.LOOP
    assert [(m.rule, m.old, m.new) for m in card.moves] == [("risk_max", 0.31, 0.35)]
    (act,) = proposed.carry_out(p, did, **WHO)
    assert (act.kind, act.act, moved(act)) == ("manual", "rollback", {"risk_max": (0.31, 0.35)})
    assert (act.data["reverts"], act.data["undoes"]) == ([last], steps)


def test_a_return_whose_rule_moved_meanwhile_is_refused() -> None:
    story, steps = away()
    last = story.events[-1].key
    would = [{"rule": "risk_max", "old": 0.31, "new": 0.35, "kind": "rollback"}]
    did = story.at(400).say(
        "cycle", "return", cause="probation_harm", undoes=steps, reverts=[last], would=would
    )
    story.at(405).foreign("risk_max", 0.32)
    p = seen(story, 410, levels=[])
    assert rollback_cards(p) == ()
    with pytest.raises(Refused) as no:
        proposed.carry_out(p, did, **WHO)
    assert codes(no.value.reasons) == ["hand.value_moved"]


def test_a_return_that_somebody_made_already_moves_nothing() -> None:
    """Undoing its newest event instead would go half the way back out."""
    story, steps = away()
    would = [{"rule": "risk_max", "old": 0.31, "new": 0.35, "kind": "rollback"}]
    did = story.at(400).say(
        "cycle", "return", cause="probation_harm", undoes=steps, reverts=[story.events[-1].key], would=would
    )
    story.at(405).foreign("risk_max", 0.35)
    p = seen(story, 410, levels=[])
    assert rollback_cards(p) == ()
    with pytest.raises(UnknownId):
        proposed.carry_out(p, did, **WHO)


@pytest.mark.parametrize("said", [{}, {"reverts": "E1"}, {"reverts": [], "would": []}])
def test_a_return_that_names_nothing_takes_back_nothing(said: dict[str, Any]) -> None:
    """Not the newest change of all, which it never spoke of."""
    story, _ = away()
    did = story.at(400).say("cycle", "return", **{"reverts": [], **said})
    p = seen(story, 410, levels=[])
    assert rollback_cards(p) == ()
    with pytest.raises(UnknownId):
        proposed.carry_out(p, did, **WHO)


def test_ids_that_propose_nothing_are_unknown() -> None:
    story = Story().at(10)
    hold = story.say("cycle", "hold")
    p = seen(story, 20, levels=[])
    for wrong in ("nowhere", hold):
        with pytest.raises(UnknownId):
            proposed.carry_out(p, wrong, **WHO)
