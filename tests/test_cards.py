"""The suggestions page's facts: one small story each, and the core's word on what may be done."""

from __future__ import annotations

from typing import Any

import pytest

from selftune.card_text import figure
from selftune.cards import CardState, board, card_by_id, score_points, standing_cards
from selftune.cards import Expected as Forecast
from selftune.cycle import plan_of
from selftune.decision_lines import line_of, reasons_of
from selftune.domain import Decision, Mode, Origin, Phase, Reason, Verdict
from selftune.picture import Picture
from selftune.whereabouts import watch_of
from tests.stage import GOOD, LIVE, OFF, Scene, Story, ms, settings_with

WHY = {
    "code": "why.off_target",
    "params": {"metric": "risk_band", "observed": 0.33, "limit": 0.30, "side": "max", "n": 450, "se": 0.0001},
}
WINDOW = {m: {"mean": x, "se": 0.001, "n": 450, "from": "", "to": ""} for m, x in OFF.items()}
EXPECTED = {
    "risk_band": {"mean": -0.012, "lo": -0.02, "hi": -0.004},
    "creative_band": {"mean": -0.006, "lo": -0.01, "hi": -0.002},
    "phase_diff": {"mean": -0.0001, "lo": -0.001, "hi": 0.001},
}


def suggest(story: Story, new: float = 0.33, **more: Any) -> str:
    proposal = {"rule": "risk_max", "old": story.life.values["risk_max"], "new": new, "reasons": [WHY],
                "expected": EXPECTED, "confidence": 0.8, **more}  # fmt: skip
    return story.say("cycle", "step", mode=Mode.DRY_RUN, proposals=[proposal], window=WINDOW, reasons=[WHY])


def seen(story: Story, now: float, **more: Any) -> Picture:
    return Scene(story, **more).picture(now)


def test_a_card_has_what_a_person_needs() -> None:
    story = Story().at(100)
    did = suggest(story)
    (card,) = standing_cards(seen(story, 110))
    assert (card.id, card.old, card.new, card.down, card.steps) == (did, 0.35, 0.33, True, pytest.approx(1))
    assert (card.metric, card.limit, card.at_most) == ("risk_band", 0.30, True)
    assert card.gap == pytest.approx(0.03)
    assert {e.metric: e.better for e in card.expected} == {
        "risk_band": True, "creative_band": False, "phase_diff": None
    }  # fmt: skip
    assert card.measured[0].metric == "risk_band" and card.measured[0].n == 450
    assert card.measured[0].lo == pytest.approx(0.33 - 1.96 * 0.001)
    assert card.until_ms == ms(100 + 600)
    assert card.can_apply and all(c.passed for c in card.checks)
    assert {"guard.stale", "guard.cooldown", "guard.step"} <= {c.code for c in card.checks}


def test_points_are_shares_of_the_score() -> None:
    """risk 0.33 -> 0.318 of target 0.30: attainment 0.90 -> 0.94, weight 1.0 of 3.0."""
    settings = settings_with()
    gain = (Forecast(metric="risk_band", mean=-0.012, lo=-0.02, hi=0.0, better=True),)
    assert score_points(settings, OFF, gain) == {"risk_band": pytest.approx(100 * 0.04 / 3)}
    met = (Forecast(metric="risk_band", mean=-0.012, lo=-0.02, hi=0.0, better=True),)
    assert score_points(settings, {**OFF, "risk_band": 0.2}, met) == {"risk_band": 0.0}
    assert score_points(settings, {**OFF, "risk_band": None}, met) == {}


def test_the_newest_suggestion_of_a_rule_stands_for_it() -> None:
    story = Story()
    story.at(100)
    suggest(story)
    story.at(130)
    second = suggest(story, 0.34)
    assert [c.id for c in standing_cards(seen(story, 140))] == [second]


@pytest.mark.parametrize(
    ("what", "state", "refusal"),
    [
        ("late", CardState.EXPIRED, "hand.suggestion_expired"),
        ("moved", CardState.EXPIRED, "hand.value_moved"),
        ("reject", CardState.REJECTED, "hand.suggestion_over"),
        ("snooze", CardState.SNOOZED, "hand.suggestion_over"),
        ("apply", CardState.APPLIED, "hand.suggestion_over"),
    ],
)
def test_what_became_of_it(what: str, state: CardState, refusal: str) -> None:
    story = Story().at(100)
    did = suggest(story)
    story.at(160)
    now = 900.0 if what == "late" else 200.0
    if what == "moved":
        story.foreign("risk_max", 0.36)
    elif what == "apply":
        story.say("manual", "apply", {"risk_max": 0.33}, of=did, actor="kim", why="worth a try")
    elif what in ("reject", "snooze"):
        story.say("manual", what, of=did, actor="kim", why="not now", for_s=600)
    p = seen(story, now)
    assert standing_cards(p) == ()
    card = card_by_id(p, did)
    assert card is not None
    assert (card.state, [r.code for r in card.refusals]) == (state, [refusal])
    assert not card.can_apply and card.until_ms is None
    if what in ("reject", "snooze", "apply"):
        assert card.by == "kim" and card.why in ("not now", "worth a try")


def test_an_applied_one_is_followed_to_its_verdict() -> None:
    story = Story().at(100)
    did = suggest(story)
    story.at(200)
    change = story.say("manual", "apply", {"risk_max": 0.33}, of=did, actor="kim")
    stages = []
    for now in (205, 230, 300):
        card = card_by_id(seen(story, now), did)
        assert card is not None and card.watch is not None
        stages.append((card.watch.stage, round(card.watch.left_s)))
    assert stages == [("settling", 85), ("watching", 60), ("judging", 0)]
    story.at(300).verdict(change, "IMPROVED", reasons=[{"code": "score_gain", "params": {"observed": 0.02}}])
    card = card_by_id(seen(story, 310), did)
    assert card is not None and card.watch is not None
    assert (card.watch.stage, card.watch.verdict, card.watch.phase) == (
        "done", Verdict.IMPROVED, Phase.CONFIRMED
    )  # fmt: skip
    assert [r.code for r in card.watch.reasons] == ["score_gain"]
    assert card.watch.origin is Origin.PERSON and card.watch.due_ms == ms(290)


@pytest.mark.parametrize(
    ("changes", "gap", "code"),
    [
        ({"governance.manual_apply": False}, 0.0, "hand.manual_apply_off"),
        ({}, 30.0, "guard.stale"),
    ],
)
def test_what_forbids_it_is_said_by_the_core(changes: dict[str, Any], gap: float, code: str) -> None:
    story = Story(settings_with(changes)).at(100)
    suggest(story)
    gaps = [(130 - gap, 130.0)] if gap else []
    (card,) = standing_cards(seen(story, 130, gaps=gaps))
    assert code in {r.code for r in card.refusals} and not card.can_apply


def test_stopped_by_a_person() -> None:
    story = Story().at(100)
    suggest(story)
    story.govern("stop")
    (card,) = standing_cards(seen(story, 130))
    assert [r.code for r in card.refusals] == ["guard.stopped"]


def test_unknown_and_odd_ids_give_no_card() -> None:
    story = Story().at(100)
    hold = story.say("cycle", "hold", reasons=[{"code": "guard.pace", "params": {}}])
    p = seen(story, 110)
    assert card_by_id(p, "nowhere") is None and card_by_id(p, hold) is None


# ----------------------------------------------------------------------------- rollbacks
def worsened(story: Story) -> tuple[str, str]:
    event = story.at(100).foreign("risk_max", 0.37, actor="park")
    story.at(200).verdict(event, "WORSENED", reasons=[WHY])
    did = story.say(
        "cycle", "propose_rollback", mode=Mode.DRY_RUN, cause="worsened", reverts=[event], events=[event],
        reasons=[WHY], would=[{"rule": "risk_max", "old": 0.37, "new": 0.35, "kind": "rollback"}],
    )  # fmt: skip
    return event, did


def test_a_proposed_rollback_stands_until_the_rule_moves() -> None:
    story = Story()
    event, did = worsened(story)
    (card,) = board(p := seen(story, 210), plan_of(p)).rollbacks
    assert (card.id, card.event, card.actor, card.origin) == (did, event, "park", Origin.FOREIGN)
    assert [(m.rule, m.old, m.new) for m in card.moves] == [("risk_max", 0.37, 0.35)]
    story.at(250).foreign("risk_max", 0.36)
    p = seen(story, 260)
    assert board(p, plan_of(p)).rollbacks == ()


def test_a_rollback_that_was_carried_out_is_no_longer_proposed() -> None:
    story = Story()
    event, _ = worsened(story)
    story.at(250).say("manual", "rollback", {"risk_max": 0.35}, reverts=[event])
    p = seen(story, 260)
    assert board(p, plan_of(p)).rollbacks == ()


# ----------------------------------------------------------------------------- nothing to do
def test_all_met_is_said_as_such() -> None:
    story = Story()
    p = seen(story, 0, levels=[(-1800.0, GOOD)])
    q = board(p, plan_of(p)).quiet
    assert q is not None and q.kind == "met"


def test_an_idea_that_is_not_on_record_is_told_apart() -> None:
    p = seen(Story(settings_with(strategy__policy="heuristic")), 0)
    q = board(p, plan_of(p)).quiet
    assert q is not None and q.kind == "idea" and q.ideas[0].rule == "risk_max"


def test_what_time_alone_frees_says_until_when() -> None:
    story = Story().at(-60)
    story.foreign("risk_max", 0.34)
    p = seen(story, 0)
    q = board(p, plan_of(p)).quiet
    assert q is not None
    untils = [r.params.get("until_ms") for r in q.reasons]
    assert q.kind == ("until" if all(untils) else "held")
    if q.kind == "until":
        assert q.until_ms == max(int(u) for u in untils if u)


def test_no_samples_at_all() -> None:
    p = seen(Story(), 0, start=0.0)
    q = board(p, plan_of(p)).quiet
    assert q is not None and q.kind == "no_data"


def test_a_stop_is_named_first() -> None:
    story = Story()
    story.govern("stop")
    p = seen(story, 0)
    q = board(p, plan_of(p)).quiet
    assert q is not None and q.kind == "stopped"


# ----------------------------------------------------------------------------- where we stand
def test_steps_and_time_away_from_proven_values() -> None:
    story = Story(settings_with(LIVE))
    story.verdict(story.at(100).step("risk_max", 0.33), "NEUTRAL")
    change = story.at(400).step("creative_min", 0.24)
    p = seen(story, 410)
    b = board(p, plan_of(p))
    assert (b.where.steps, b.where.max_steps, b.where.left_s) == (2, 6, 3600 - 310)
    assert b.where.proven == {"creative_min": 0.22, "risk_max": 0.35} and not b.where.home
    assert [w.change for w in b.watches] == [change] and b.watches[0].stage == "settling"


def test_at_home_there_is_nothing_to_take_back() -> None:
    p = seen(Story(), 0)
    where = board(p, plan_of(p)).where
    assert where.home and where.left_s is None


def test_a_watch_that_is_over_has_no_time_left() -> None:
    story = Story(settings_with(LIVE))
    change = story.at(100).step("risk_max", 0.33)
    story.at(200).verdict(change, "NEUTRAL")
    p = seen(story, 5000)
    found = p.life.change(change)
    assert found is not None
    w = watch_of(p, found)
    assert (w.stage, w.left_s, w.phase) == ("done", 0.0, Phase.ON_PROBATION)


# ----------------------------------------------------------------------------- odd records
@pytest.mark.parametrize("odd", [None, 7, "text", [], [None, 3, "x"], {"a": 1}, [{"code": ""}, {"code": 3}]])
def test_odd_records_raise_nothing(odd: Any) -> None:
    data = dict.fromkeys(
        ("reasons", "proposals", "would", "reverts", "window", "actor", "why", "verdict"), odd
    )
    d = Decision(id="d", ts_ms=0, at_ms=0, kind="cycle", act=None, mode=Mode.LIVE, applied=(), abandoned=(),
                 data=data)  # fmt: skip
    line = line_of(d)
    assert line.reasons == () and line.moves == () and line.verdict is None
    story = Story().at(10)
    story.say("cycle", "propose_rollback", **data)
    story.say("cycle", "step", **{**data, "proposals": [{"rule": "risk_max", "old": 0.35, "new": 0.33,
                                                         "expected": odd, "reasons": odd}]})  # fmt: skip
    p = seen(story, 20)
    assert board(p, plan_of(p)).rollbacks == ()
    assert len(standing_cards(p)) == 1


def test_reasons_keep_their_numbers() -> None:
    assert reasons_of([{"code": "guard.pace", "params": {"limit": 180}}, {"code": "x"}]) == (
        Reason("guard.pace", {"limit": 180}), Reason("x", {})
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.33, "0.33"), (40.0, "40"), (120.0, "120"), (12.35, "12.35"), (1250.5, "1,250.5"), (-0.02, "−0.02"),
     (0.0, "0"), (None, "–"), (float("nan"), "–"), (0.000001, "0.000001")],
)  # fmt: skip
def test_a_rules_value_is_shown_in_full(value: float | None, shown: str) -> None:
    """A whole number keeps its zeros: a limit of 40 is not one of 4."""
    assert figure(value) == shown
