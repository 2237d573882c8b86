"""The fold: records in, one picture out. Each rule of loop.md's life with its own small story."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.acts import harm_of
from selftune.book import View
from selftune.domain import Decision, Mode, Origin, Phase, RuleEvent, Verdict
from selftune.fold_decisions import Fold
from selftune.lifecycle import BAR_MAX_S, ChangeKind, Folding, fold
from tests.stage import Story, ms, settings_with

HOUR = 3600.0
SETTINGS = settings_with()


@pytest.fixture
def story() -> Story:
    return Story(SETTINGS)


# ----------------------------------------------------------------------------- values and anchor
def test_without_records_the_init_values_are_in_force_and_proven(story: Story) -> None:
    assert story.life.values == story.life.anchor == {"creative_min": 0.22, "risk_max": 0.35}
    assert story.life.excursion is None


def test_a_step_leaves_the_anchor_and_begins_an_excursion(story: Story) -> None:
    change = story.at(10).step("risk_max", 0.33)
    life = story.life
    assert life.values["risk_max"] == 0.33
    assert life.anchor["risk_max"] == 0.35
    assert life.excursion is not None
    assert life.excursion.steps == (change,)
    assert life.excursion.displaced == {"risk_max": (0.35, 0.33)}
    assert [c.id for c in life.open] == [change]


def test_settle_then_observing_then_on_probation(story: Story) -> None:
    change = story.at(10).step("risk_max", 0.33)
    settings = story.settings
    assert story.life.open[0].phase(settings, ms(15)) is Phase.APPLIED
    assert story.life.open[0].phase(settings, ms(30)) is Phase.OBSERVING
    story.at(100).verdict(change, "NEUTRAL")
    found = story.life.change(change)
    assert found is not None
    assert found.phase(settings, ms(100)) is Phase.ON_PROBATION
    assert not story.life.open


def test_a_confirmation_moves_the_anchor_and_ends_the_excursion(story: Story) -> None:
    first = story.at(10).step("risk_max", 0.33)
    story.at(100).verdict(first, "NEUTRAL")
    second = story.at(190).step("creative_min", 0.24)
    story.at(280).verdict(second, "NEUTRAL")
    story.at(290).confirm()
    assert story.life.anchor == story.life.values == {"creative_min": 0.24, "risk_max": 0.33}
    assert story.life.excursion is None
    assert {c.ended for c in story.life.changes} == {Phase.CONFIRMED}


def test_a_return_ends_the_excursion_and_leaves_the_anchor(story: Story) -> None:
    change = story.at(10).step("risk_max", 0.33)
    story.at(100).verdict(change, "NEUTRAL")
    story.at(200).back("budget", {"risk_max": 0.35})
    assert story.life.values == story.life.anchor == {"creative_min": 0.22, "risk_max": 0.35}
    assert story.life.excursion is None
    found = story.life.change(change)
    assert found is not None
    assert found.ended is Phase.ROLLED_BACK


def test_of_two_steps_of_one_rule_both_belong_to_the_excursion(story: Story) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(300).step("risk_max", 0.31)
    assert story.life.excursion is not None
    assert len(story.life.excursion.steps) == 2
    assert story.life.excursion.displaced == {"risk_max": (0.35, 0.31)}


def test_one_commit_of_two_rules_is_one_change_and_one_step_of_the_budget(story: Story) -> None:
    change = story.at(10).joint(risk_max=0.33, creative_min=0.24)
    assert story.life.excursion is not None
    assert story.life.excursion.steps == (change,)
    assert story.life.open[0].rules == ("risk_max", "creative_min")
    assert len(story.life.open) == 1


def test_stepping_back_to_the_anchor_by_a_step_ends_the_excursion(story: Story) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(300).step("risk_max", 0.35)
    assert story.life.excursion is None


def test_settings_that_move_a_bound_clip_the_anchor(story: Story) -> None:
    narrow = settings_with(rules__risk_max__max=0.34, rules__risk_max__init=0.33)
    story.at(10).foreign("risk_max", 0.35)
    assert fold(story.decisions, story.events, narrow).anchor["risk_max"] == 0.34


# ----------------------------------------------------------------------------- looks at the excursion
def test_looks_are_counted_over_the_excursion_and_since_the_last_step(story: Story) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(100).looked(verdict="INCONCLUSIVE")
    story.at(190).looked(verdict="INCONCLUSIVE")
    assert story.life.excursion is not None
    assert (story.life.excursion.looks, story.life.excursion.looks_since_last) == (2, 2)
    story.verdict(story.at(200).step("risk_max", 0.31), "NEUTRAL")
    assert story.life.excursion is not None
    assert (story.life.excursion.looks, story.life.excursion.looks_since_last) == (2, 0)


def test_a_look_without_anything_to_compare_spends_nothing_but_is_not_repeated(story: Story) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(200).looked(verdict="INCONCLUSIVE", spent=False)
    assert story.life.excursion is not None
    assert (story.life.excursion.looks, story.life.excursion.looks_since_last) == (0, 1)


def test_a_reversal_look_remembers_what_was_left(story: Story) -> None:
    step = story.at(10).step("risk_max", 0.33)
    story.verdict(step, "NEUTRAL")
    story.at(300).look({"risk_max": 0.35})
    look = story.life.look
    assert look is not None
    assert (dict(look.left), look.steps, look.disturbed) == ({"risk_max": 0.33}, (step,), False)
    assert story.life.excursion is None
    assert not story.life.open


def test_a_look_of_two_rules_remembers_both(story: Story) -> None:
    story.verdict(story.at(10).joint(risk_max=0.33, creative_min=0.24), "NEUTRAL")
    story.at(300).look({"risk_max": 0.35, "creative_min": 0.22})
    assert story.life.look is not None
    assert dict(story.life.look.left) == {"risk_max": 0.33, "creative_min": 0.24}


def test_a_restore_confirms_what_was_left(story: Story) -> None:
    step = story.at(10).step("risk_max", 0.33)
    story.verdict(step, "NEUTRAL")
    story.at(300).look({"risk_max": 0.35})
    story.at(390).look_over("restore")
    assert story.life.look is None
    assert story.life.anchor == story.life.values == {"creative_min": 0.22, "risk_max": 0.33}
    assert story.life.fruitless == 0
    found = story.life.change(step)
    assert found is not None
    assert found.ended is Phase.CONFIRMED


def test_what_is_restored_without_proof_is_kept_but_not_confirmed(story: Story) -> None:
    step = story.at(10).step("risk_max", 0.33)
    story.verdict(step, "NEUTRAL")
    story.at(300).look({"risk_max": 0.35})
    story.at(390).look_over("restore", proven=False)
    assert story.life.anchor == story.life.values == {"creative_min": 0.22, "risk_max": 0.33}
    found = story.life.change(step)
    assert found is not None
    assert found.ended is Phase.KEPT


def test_what_was_to_be_restored_and_never_was_is_not_confirmed(story: Story) -> None:
    """A kill between the verdict and the line: the values stay at the anchor, whatever the verdict was."""
    step = story.at(10).step("risk_max", 0.33)
    story.verdict(step, "NEUTRAL")
    story.at(300).look({"risk_max": 0.35})
    story.at(390).say("verdict", "look", result="restore", left={"risk_max": 0.33}, proven=True)
    story.say("cycle", "restore", {"risk_max": 0.33}, lost=True, cause="look")
    found = story.life.change(step)
    assert found is not None
    assert (story.life.values["risk_max"], found.ended) == (0.35, Phase.ROLLED_BACK)


def test_a_bound_that_moves_the_anchor_onto_the_present_value_confirms_nothing(story: Story) -> None:
    story.verdict(story.at(10).step("risk_max", 0.37), "NEUTRAL")
    story.at(300).look({"risk_max": 0.35})
    story.at(390).look_over("restore")
    step = story.at(600).step("risk_max", 0.35)
    story.verdict(step, "NEUTRAL")
    life = fold(story.decisions, story.events, settings_with(rules__risk_max__max=0.35))
    found = life.change(step)
    assert found is not None
    assert (life.anchor["risk_max"], found.ended) == (0.35, Phase.KEPT)


@pytest.mark.parametrize("basis", ["equal", "anchor_unsafe", "regime"])
def test_what_moves_the_anchor_without_being_better_is_kept_not_confirmed(story: Story, basis: str) -> None:
    step = story.at(10).step("risk_max", 0.33)
    story.at(3000).confirm(basis)
    found = story.life.change(step)
    assert found is not None
    assert (story.life.anchor["risk_max"], found.ended) == (0.33, Phase.KEPT)


def test_what_is_kept_without_proof_is_no_gain(story: Story) -> None:
    for i, (proven, fruitless) in enumerate(((False, 1), (False, 2), (True, 0))):
        home = 0.35 - 0.02 * i
        story.verdict(story.at(story.now + 300).step("risk_max", home - 0.02), "NEUTRAL")
        story.at(story.now + 300).look({"risk_max": home})
        story.at(story.now + 90).look_over("restore", proven=proven)
        assert story.life.fruitless == fruitless


@pytest.mark.parametrize(("basis", "fruitless"), [("equal", 1), ("anchor_unsafe", 0), ("regime", 0)])
def test_an_excursion_that_ends_as_good_as_before_is_without_gain(
    story: Story, basis: str, fruitless: int
) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(3000).confirm(basis)
    assert story.life.fruitless == fruitless


def test_a_look_that_stays_has_already_returned(story: Story) -> None:
    step = story.at(10).step("risk_max", 0.33)
    story.verdict(step, "NEUTRAL")
    story.at(300).look({"risk_max": 0.35})
    story.at(390).look_over("stay")
    assert story.life.look is None
    assert story.life.anchor == story.life.values == {"creative_min": 0.22, "risk_max": 0.35}
    assert story.life.fruitless == 1
    found = story.life.change(step)
    assert found is not None
    assert found.ended is Phase.ROLLED_BACK


@pytest.mark.parametrize("cause", ["disturbed", "clock_back", "blind", "loan_end"])
def test_a_look_that_could_not_be_judged_is_not_fruitless(story: Story, cause: str) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(300).look({"risk_max": 0.35})
    story.at(390).look_over("stay", cause=cause)
    assert story.life.fruitless == 0


@pytest.mark.parametrize("how", ["foreign", "regime"])
def test_a_foreign_event_or_a_regime_disturbs_a_look(story: Story, how: str) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(300).look({"risk_max": 0.35})
    story.at(320)
    if how == "foreign":
        story.foreign("creative_min", 0.30)
    else:
        story.say("verdict", "regime", from_ms=ms(310))
    assert story.life.look is not None
    assert story.life.look.disturbed


def test_one_reversal_look_an_excursion(story: Story) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(300).say("cycle", "look", {"risk_max": 0.35}, lost=True)
    assert story.life.excursion is not None
    assert not story.life.excursion.reversal_used, "a look that was never written is not used up"


# ----------------------------------------------------------------------------- others
def test_a_foreign_event_rebases_its_rule_and_leaves_ours(story: Story) -> None:
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    story.at(200).foreign("creative_min", 0.30)
    life = story.life
    assert life.anchor == {"creative_min": 0.30, "risk_max": 0.35}
    assert life.excursion is not None
    assert life.excursion.displaced == {"risk_max": (0.35, 0.33)}
    assert not life.excursion.contrast_ok, "the contrast must begin afresh"
    assert life.open[0].origin is Origin.FOREIGN


def test_a_foreign_event_on_our_rule_takes_it_out_of_the_excursion(story: Story) -> None:
    step = story.at(10).step("risk_max", 0.33)
    story.at(50).foreign("risk_max", 0.37)
    life = story.life
    assert life.anchor["risk_max"] == 0.37
    assert life.excursion is None
    found = life.change(step)
    assert found is not None
    assert found.ended is Phase.SUPERSEDED


def test_what_goes_back_from_another_s_value_is_proven_there_and_the_budget_counts_from_it(
    story: Story,
) -> None:
    """A day of chaos found it: the anchor stayed at the foreign value that had broken the hard limit."""
    story.at(10).foreign("risk_max", 0.48)
    story.at(40).say("cycle", "return", {"risk_max": 0.33}, cause="hard_limit", scope="step")
    assert story.life.anchor["risk_max"] == 0.33 and story.life.excursion is None
    story.at(2000).step("risk_max", 0.31)
    assert story.life.excursion is not None
    assert story.life.excursion.displaced == {"risk_max": (0.33, 0.31)}


def test_a_foreign_value_outside_the_bounds_clips_the_anchor(story: Story) -> None:
    story.at(10).foreign("risk_max", 0.9)
    assert story.life.values["risk_max"] == 0.9
    assert story.life.anchor["risk_max"] == 0.40


def test_a_foreign_event_without_a_number_changes_nothing_but_is_the_rules_last(story: Story) -> None:
    step = story.at(10).step("risk_max", 0.33)
    key = story.at(50).foreign("risk_max", None)
    life = story.life
    assert life.values["risk_max"] == 0.33
    assert life.anchor["risk_max"] == 0.35
    assert life.excursion is not None
    assert life.excursion.displaced == {"risk_max": (0.35, 0.33)}
    assert [c.id for c in life.open] == [step]
    assert life.last_event["risk_max"].key == key, "the cooldown counts it"


def test_an_event_of_an_unknown_rule_is_only_the_last_of_all(story: Story) -> None:
    key = story.at(10).foreign("nobody_knows", 3.0)
    assert story.life.last_any is not None
    assert story.life.last_any.key == key
    assert not story.life.changes


def test_foreign_events_of_one_second_and_actor_are_one_joint_change(story: Story) -> None:
    story.at(10).foreign("risk_max", 0.33)
    story.at(10.5).foreign("creative_min", 0.24)
    assert len(story.life.changes) == 1
    story.at(11.6).foreign("risk_max", 0.32)
    assert len(story.life.changes) == 2


def test_others_open_changes_lapse_and_ours_do_not(story: Story) -> None:
    story.at(10).foreign("creative_min", 0.24)
    ours = story.at(11).step("risk_max", 0.33)
    late = ms(11 + 4 * 90)
    assert [c.id for c in story.life.open_at(late, story.settings)] == [ours]


def test_a_line_that_only_claims_our_decision_is_foreign(story: Story) -> None:
    step = story.at(10).step("risk_max", 0.33)
    story.at(200).foreign("creative_min", 0.30, decision=step)
    assert story.life.changes[-1].kind is ChangeKind.FOREIGN


# ----------------------------------------------------------------------------- harm: bars and pauses
def test_harm_bars_the_half_line_beyond_the_value_before_for_half_an_hour(story: Story) -> None:
    story.at(10).harmed("risk_max", 0.33)
    (bar,) = story.life.bars
    assert (bar.rule, bar.sign, bar.beyond) == ("risk_max", -1, 0.35)
    assert bar.until_at_ms == ms(100 + 1800)
    assert story.life.bars_at(ms(100 + 1799))
    assert not story.life.bars_at(ms(100 + 1800))


def test_a_bar_doubles_each_time_up_to_a_day(story: Story) -> None:
    lengths = []
    for i in range(8):
        story.at(i * 26 * HOUR).harmed("risk_max", 0.33)
        (bar,) = story.life.bars
        lengths.append((bar.until_at_ms - ms(story.now)) / 1000)
    assert lengths[:4] == [1800, 3600, 7200, 14400]
    assert lengths[-1] == BAR_MAX_S == max(lengths)


def test_each_direction_has_a_bar_of_its_own(story: Story) -> None:
    story.at(10).harmed("risk_max", 0.33)
    story.at(400).harmed("risk_max", 0.37)
    assert {(b.sign, b.times) for b in story.life.bars} == {(-1, 1), (1, 1)}


def test_a_step_up_to_zero_is_up() -> None:
    story = Story(settings_with({"rules.risk_max.min": -0.2, "rules.risk_max.init": -0.02}))
    change = story.at(10).step("risk_max", 0.0)
    found = story.life.change(change)
    assert found is not None
    assert harm_of(found, -0.02)["sign"] == 1


@pytest.mark.parametrize(("harms", "pause_s"), [(2, None), (3, 3600.0), (4, 6 * 3600.0), (5, inf), (6, inf)])
def test_consecutive_harms_of_one_rule_pause_it(story: Story, harms: int, pause_s: float | None) -> None:
    for i in range(harms):
        story.at(i * 1000.0).harmed("risk_max", 0.33)
    pause = story.life.pause_of("risk_max", ms(story.now))
    assert (pause is None) == (pause_s is None)
    if pause is not None and pause_s is not None:
        assert (pause.until_at_ms - ms(story.now)) / 1000 == pause_s
        assert pause.harms == harms


def test_harms_of_different_rules_are_counted_apart(story: Story) -> None:
    for i in range(2):
        story.at(i * 1000.0).harmed("risk_max", 0.33)
        story.at(i * 1000.0 + 500).harmed("creative_min", 0.24)
    assert not story.life.pauses


def test_harm_older_than_a_day_is_forgotten(story: Story) -> None:
    for at in (0.0, 1000.0, 25 * HOUR):
        story.at(at).harmed("risk_max", 0.33)
    assert story.life.pause_of("risk_max", ms(story.now)) is None


@pytest.mark.parametrize("cure", ["confirm", "restore", "regime", "release"])
def test_what_ends_a_row_of_harms(story: Story, cure: str) -> None:
    for i in range(2):
        story.at(i * 1000.0).harmed("risk_max", 0.33)
    story.at(3000.0)
    if cure == "regime":
        story.say("verdict", "regime", from_ms=ms(2900))
    elif cure == "release":
        story.say("manual", "release", rule="risk_max")
    else:
        story.verdict(story.step("risk_max", 0.37), "NEUTRAL")
        if cure == "confirm":
            story.at(3100).confirm()
        else:
            story.at(3300).look({"risk_max": 0.35})
            story.at(3400).look_over("restore")
    story.at(6000).harmed("risk_max", story.life.values["risk_max"] - 0.02)
    assert story.life.pause_of("risk_max", ms(story.now)) is None


def test_an_equal_confirmation_does_not_clear_the_harms(story: Story) -> None:
    for i in range(2):
        story.at(i * 1000.0).harmed("risk_max", 0.33)
    story.verdict(story.at(3000.0).step("risk_max", 0.37), "NEUTRAL")
    story.at(3100).confirm("anchor_unsafe")
    story.at(6000).harmed("risk_max", 0.35)
    assert story.life.pause_of("risk_max", ms(story.now)) is not None


NOT_COUNTED = ["budget", "blind", "loan_end", "by_hand", "look"]


@pytest.mark.parametrize("cause", NOT_COUNTED)
def test_what_is_not_counted_as_harm(story: Story, cause: str) -> None:
    for i in range(4):
        story.at(i * 1000.0)
        story.verdict(story.step("risk_max", 0.33), "NEUTRAL")
        story.at(story.now + 200)
        if cause == "by_hand":
            story.say("manual", "rollback", {"risk_max": 0.35}, cause="by_hand")
        elif cause == "look":
            story.look({"risk_max": 0.35})
            story.at(story.now + 90).look_over("stay")
        else:
            story.back(cause, {"risk_max": 0.35})
    assert not story.life.pauses
    assert not story.life.bars


def test_a_pause_until_released_survives_a_regime_but_not_a_release(story: Story) -> None:
    for i in range(5):
        story.at(i * 1000.0).harmed("risk_max", 0.33)
    story.at(6000).say("verdict", "regime", from_ms=ms(5900))
    assert story.life.pause_of("risk_max", ms(6000)) is not None
    story.at(6100).say("manual", "release", rule="risk_max")
    assert story.life.pause_of("risk_max", ms(6100)) is None
    assert not story.life.bars


def test_a_regime_clears_bars_shorter_pauses_and_the_back_off(story: Story) -> None:
    for i in range(3):
        story.at(i * 1000.0).harmed("risk_max", 0.33)
    assert story.life.fruitless > 0
    story.at(3000).say("verdict", "regime", from_ms=ms(2900))
    life = story.life
    assert (life.bars, dict(life.pauses), life.fruitless, life.regime) == ((), {}, 0, 1)


def test_harm_that_was_not_ours_lifts_count_and_bar_and_the_rule_rests(story: Story) -> None:
    for i in range(2):
        story.at(i * 1000.0).harmed("risk_max", 0.33)
    back = story.at(2000.0).harmed("risk_max", 0.33)
    assert story.life.pause_of("risk_max", ms(story.now)) is not None
    story.at(2200).say("verdict", "verified", change=back, result="not_ours")
    life = story.life
    assert life.pause_of("risk_max", ms(2200)) is None
    assert life.rest_until("risk_max", ms(2200)) == ms(2200 + 1800)
    assert life.rest_until("risk_max", ms(2200 + 1800)) is None
    story.at(6000).harmed("risk_max", 0.33)
    assert story.life.pause_of("risk_max", ms(6000)) is not None, "two were ours, this is the third"


def test_the_bars_before_a_harm_that_was_not_ours_stand(story: Story) -> None:
    story.at(0).harmed("risk_max", 0.33)
    back = story.at(2500.0).harmed("risk_max", 0.33)
    story.at(2700).say("verdict", "verified", change=back, result="not_ours")
    assert not story.life.bars_at(ms(2700)), "the first had run out by itself"
    story.at(6000).harmed("risk_max", 0.33)
    (bar,) = story.life.bars
    assert bar.times == 2, "the one that was not ours does not double, the one before does"


@pytest.mark.parametrize("result", ["verified", "undecided"])
def test_undecided_counts_as_verified(story: Story, result: str) -> None:
    back = story.at(0).harmed("risk_max", 0.33)
    story.at(300).say("verdict", "verified", change=back, result=result)
    assert story.life.bars_at(ms(300))


# ----------------------------------------------------------------------------- fruitless excursions
def test_excursions_returned_without_gain_are_counted_until_a_gain(story: Story) -> None:
    for i in range(2):
        story.verdict(story.at(i * 1000.0).step("risk_max", 0.33), "NEUTRAL")
        story.at(story.now + 300).back("budget", {"risk_max": 0.35})
    assert story.life.fruitless == 2
    story.verdict(story.at(3000.0).step("risk_max", 0.33), "IMPROVED")
    story.at(3100).confirm()
    assert story.life.fruitless == 0


def test_a_step_taken_back_inside_a_living_excursion_is_not_a_fruitless_excursion(story: Story) -> None:
    story.verdict(story.at(0).step("creative_min", 0.24), "NEUTRAL")
    bad = story.at(300).step("risk_max", 0.33)
    story.at(390).verdict(bad, "WORSENED")
    story.back("worsened", {"risk_max": 0.35}, [bad], scope="step")
    assert story.life.fruitless == 0
    assert story.life.excursion is not None
    assert story.life.excursion.displaced == {"creative_min": (0.22, 0.24)}


# ----------------------------------------------------------------------------- what never arrived
def test_an_intended_event_that_never_arrived_is_an_orphan_until_abandoned(story: Story) -> None:
    lost = story.at(10).say("cycle", "step", {"risk_max": 0.33}, lost=True, evidence="e0")
    assert list(story.life.orphans) == [lost]
    assert story.life.values["risk_max"] == 0.35
    keys = list(story.life.orphans[lost])
    story.at(20).say("cycle", "abandon", abandoned=keys)
    assert not story.life.orphans


def test_a_decision_that_never_arrived_has_done_nothing(story: Story) -> None:
    story.at(10).say("cycle", "step", {"risk_max": 0.33}, lost=True, evidence="e0")
    assert "e0" not in story.life.spent
    step = story.at(20).step("risk_max", 0.33)
    story.at(110).verdict(step, "WORSENED")
    story.at(110)
    harm = {"rule": "risk_max", "sign": -1, "anchor": 0.35}
    story.say("cycle", "return", {"risk_max": 0.35}, lost=True, cause="worsened", scope="excursion",
              undoes=[step], harm=harm)  # fmt: skip
    life = story.life
    found = life.change(step)
    assert found is not None
    assert found.ended is None, "the step is still in force, so it is still to be undone"
    assert life.excursion is not None
    assert (life.bars, life.fruitless) == ((), 0)


@pytest.mark.parametrize("junk", ["x", [], {}, None, True, 1e400])
def test_a_record_with_junk_in_its_fields_breaks_nothing(story: Story, junk: Any) -> None:
    step = story.at(10).step("risk_max", 0.33)
    story.say("verdict", "reobserve", change=step, from_ms=junk)
    story.say("verdict", "regime", from_ms=junk)
    story.say("cycle", "hold", harm={"rule": "risk_max", "sign": junk, "anchor": junk})
    made = story.suggest("risk_max", 0.31)
    story.say("manual", "snooze", of=made, for_s=junk)
    story.say("cycle", None, mode=Mode.DRY_RUN, proposals=junk)
    story.decisions.append(replace(story.decisions[-1], id="odd", data={"after": junk}))
    assert story.life.values["risk_max"] == 0.33


# ----------------------------------------------------------------------------- suggestions
def test_a_suggestion_stands_until_its_time_the_value_or_the_settings_move(story: Story) -> None:
    story.at(0).suggest("risk_max", 0.33)
    (s,) = story.life.suggestions
    values, digest = dict(story.life.values), story.settings.digest
    assert s.stands(story.settings, values, ms(599), digest)
    assert not s.stands(story.settings, values, ms(600), digest)
    assert not s.stands(story.settings, {**values, "risk_max": 0.34}, ms(10), digest)
    assert not s.stands(story.settings, values, ms(10), "other settings")


def test_a_renewed_suggestion_is_the_same_one_with_more_time(story: Story) -> None:
    first = story.at(0).suggest("risk_max", 0.33)
    story.at(600).suggest("risk_max", 0.33, stands=first)
    (s,) = story.life.suggestions
    assert (s.id, s.renewed) == (first, 1)
    assert s.stands(story.settings, story.life.values, ms(1199))


@pytest.mark.parametrize(
    ("act", "ended"), [("reject", Phase.REJECTED), ("expire", Phase.EXPIRED), ("snooze", Phase.REJECTED)]
)
def test_what_a_person_says_ends_a_suggestion(story: Story, act: str, ended: Phase) -> None:
    first = story.at(0).suggest("risk_max", 0.33)
    story.at(10).say("manual", act, of=first, for_s=60)
    (s,) = story.life.suggestions
    assert s.ended is ended
    assert s.snoozed_until_at_ms == (ms(70) if act == "snooze" else 0)


def test_applying_by_hand_spends_the_evidence_and_is_a_persons_change(story: Story) -> None:
    first = story.at(0).suggest("risk_max", 0.33, evidence="e9")
    story.at(10).say("manual", "apply", {"risk_max": 0.33}, of=first, evidence="e9")
    life = story.life
    assert life.spent == {"e9"}
    assert life.suggestions[0].ended is Phase.APPLIED
    assert life.open[0].origin is Origin.PERSON
    assert life.anchor["risk_max"] == 0.33, "a person's value is where proof starts"


def test_only_what_was_applied_spends_evidence(story: Story) -> None:
    story.at(0).suggest("risk_max", 0.33, evidence="e9")
    assert not story.life.spent


# ----------------------------------------------------------------------------- one story, whoever reads first
def _long_story() -> Story:
    story = Story(SETTINGS)
    story.verdict(story.at(10).step("risk_max", 0.33), "IMPROVED")
    story.at(100).confirm()
    story.at(200).harmed("creative_min", 0.24)
    story.verdict(story.at(600).step("risk_max", 0.31), "NEUTRAL")
    story.at(800).foreign("creative_min", 0.26)
    story.verdict("e4", "NEUTRAL")
    story.at(1000).look({"risk_max": 0.33})
    story.at(1100).look_over("restore")
    story.verdict(story.at(1400).joint(risk_max=0.29, creative_min=0.28), "NEUTRAL")
    return story


LONG = _long_story()


def _shape(decisions: list[Decision], events: list[RuleEvent]) -> object:
    """What must not depend on when the lines were read."""
    life = fold(decisions, events, SETTINGS)
    return (
        dict(life.values), dict(life.anchor), [(c.id, c.kind, c.ended, c.verdict) for c in life.changes],
        life.excursion and (life.excursion.steps, life.excursion.displaced, life.excursion.contrast_ok),
        life.look, [(b.rule, b.sign, b.times) for b in life.bars], life.fruitless, life.spent,
    )  # fmt: skip


@given(st.data())
def test_the_fold_is_the_same_whenever_each_line_was_read(data: st.DataObject) -> None:
    """Reading instants (`at_ms`) of both files shuffled against each other: our `after` places decisions."""
    story = LONG
    n = len(story.decisions) + len(story.events)
    late = data.draw(st.lists(st.integers(0, 5_000), min_size=n, max_size=n))
    decisions = [replace(d, at_ms=d.at_ms + x) for d, x in zip(story.decisions, late, strict=False)]
    events = [
        replace(e, at_ms=e.at_ms + x) for e, x in zip(story.events, late[len(decisions) :], strict=True)
    ]
    assert _shape(decisions, events) == _shape(story.decisions, story.events)


@given(st.integers(0, 10**9))
def test_a_fold_carried_on_is_the_fold_told_anew(seed: int) -> None:
    """Lines come in any portions; some name what comes later, some say not what they had seen."""
    rng = Random(seed)
    decisions, events = list(LONG.decisions), list(LONG.events)
    for i in rng.sample(range(len(decisions)), rng.randint(0, 3)):
        seen = rng.choice(["", "nobody", events[0].key, events[-1].key])
        rest = {k: v for k, v in decisions[i].data.items() if k != "after"}
        decisions[i] = replace(decisions[i], data={**rest, **({"after": seen} if seen else {})})
    for j in rng.sample(range(len(events) - 2), rng.randint(0, 2)):
        lost = events.pop(j)
        if rng.random() < 0.7:
            events.append(replace(lost, at_ms=rng.choice([lost.at_ms, events[-1].at_ms])))
    folding, i, j = Folding(), 0, 0
    while i < len(decisions) or j < len(events):
        i, j = min(len(decisions), i + rng.randint(0, 3)), min(len(events), j + rng.randint(0, 3))
        carried = folding.life(View(decisions, i), View(events, j), LONG.settings)
        assert carried == fold(decisions[:i], events[:j], LONG.settings)


def test_what_only_follows_is_not_folded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    real = Fold.event
    monkeypatch.setattr(Fold, "event", lambda self, e, d: (told.append(e.key), real(self, e, d))[1])
    folding = Folding()
    place = {e.key: j for j, e in enumerate(LONG.events, 1)}
    j = 0
    for i, d in enumerate(LONG.decisions, 1):  # each with its events, as a commit leaves them
        j = max([j, *(place[k] for k in (*d.applied, d.data.get("after")) if k in place)])
        folding.life(View(LONG.decisions, i), View(LONG.events, j), LONG.settings)
    assert told == [e.key for e in LONG.events]


def test_a_restart_that_reads_everything_at_once_sees_the_same_story() -> None:
    story = _long_story()
    decisions = [replace(d, at_ms=ms(9000)) for d in story.decisions]
    events = [replace(e, at_ms=ms(9000)) for e in story.events]
    assert _shape(decisions, events) == _shape(story.decisions, story.events)


def test_every_prefix_of_the_story_folds() -> None:
    """No cut through the files (a crash between any two lines) raises or leaves a value unaccounted for."""
    story = _long_story()
    for i in range(len(story.decisions) + 1):
        for j in range(len(story.events) + 1):
            life = fold(story.decisions[:i], story.events[:j], story.settings)
            assert set(life.values) == set(life.anchor) == set(story.settings.rules)


def test_a_decision_without_after_is_placed_by_its_time(story: Story) -> None:
    step = story.at(10).step("risk_max", 0.33)
    d = story.decisions[-1]
    story.decisions[-1] = replace(d, data={k: v for k, v in d.data.items() if k != "after"})
    story.verdict(step, "NEUTRAL")
    assert story.life.change(step) is not None
    found = story.life.change(step)
    assert found is not None
    assert found.verdict is Verdict.NEUTRAL


def test_a_verdict_word_nobody_knows_proves_nothing() -> None:
    """A foreign or newer line must not end the picture in an exception."""
    from selftune.domain import Verdict, verdict_of

    assert [verdict_of(x) for x in ("SUPERB", None, 3, ["IMPROVED"], "IMPROVED")] == [
        *[Verdict.INCONCLUSIVE] * 4,
        Verdict.IMPROVED,
    ]
