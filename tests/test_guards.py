"""Every reason to say no: each guard on the spot where it turns, with its number, limit and until when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune import guards
from selftune.domain import GuardCheck, Proposal, Reason, RiskWarning, Rule
from selftune.guards import Situation, small_step
from selftune.health import Health
from selftune.mode import Loan, effective_mode
from selftune.settings import Settings
from tests.stage import LIVE, Story, ms, settings_with

NOW = 5000.0
SETTINGS = settings_with(LIVE)
HEALTH = Health(
    newest_ms=ms(NOW), age_s=0.0, rate_hz=5.0, gaps=0, longest_gap_s=0.2,
    missing=dict.fromkeys(SETTINGS.metrics, 0.0), stale=False, enough=True,
)  # fmt: skip


def situation(story: Story | None = None, now: float = NOW, **more: Any) -> Situation:
    """All is well at `now`, but for what the story tells and `more` changes."""
    told = story or Story(SETTINGS)
    life = told.life
    mode = effective_mode(
        told.settings, told.governance, life, settings_valid=True, chain_ok=True, now_ms=ms(now)
    )
    base = Situation(
        settings=told.settings, life=life, mode=mode, health=HEALTH, now_ms=ms(now) + 7, clock_ms=ms(now),
        quiet_s=600.0, span_s=1800.0, hard_inside_s=inf, open=life.open,
        windows_n=dict.fromkeys(SETTINGS.metrics, 450), window_s=90.0,
    )  # fmt: skip
    return replace(base, **more)


def test_with_nothing_wrong_every_guard_passes() -> None:
    assert [c.code for c in guards.check_loop(situation()) if not c.passed] == []
    for rule in SETTINGS.rules:
        assert all(c.passed for c in guards.check_rule(situation(), rule))


# ----------------------------------------------------------------------------- where each one turns
Guard = Callable[[Situation], GuardCheck]
CRIT = RiskWarning(ts_ms=0, at_ms=0, severity="crit", rule=None, note="fire")
TURNS: list[tuple[Guard, dict[str, Any], dict[str, Any], object]] = [
    (guards.settings_valid, {}, {"settings_problem": Reason("settings.invalid")}, "settings.invalid"),
    (guards.lease, {"lease_ok": True}, {"lease_ok": False}, "lost"),
    (guards.fresh, {"health": replace(HEALTH, age_s=5.0)}, {"health": replace(HEALTH, age_s=5.1)}, 5.1),
    (guards.fresh, {}, {"health": replace(HEALTH, age_s=None)}, None),
    (guards.clock_right, {}, {"health": replace(HEALTH, clock_ahead=True)}, "ahead"),
    (
        guards.moving,
        {"health": replace(HEALTH, frozen=("entropy_rate",))},  # it has no weight
        {"health": replace(HEALTH, frozen=("risk_band",))},
        "risk_band",
    ),
    (guards.rate, {}, {"health": replace(HEALTH, enough=False, rate_hz=3.9)}, 351.0),
    (guards.samples, {"windows_n": {"risk_band": 210}}, {"windows_n": {"risk_band": 209}}, 209),
    (
        guards.samples,  # a window that is still short needs its share only
        {"windows_n": {"risk_band": 70}, "window_s": 30.0},
        {"windows_n": {"risk_band": 69}, "window_s": 30.0},
        69,
    ),
    (guards.samples, {"windows_n": {"entropy_rate": 0}}, {"windows_n": {"phase_diff": 0}}, 0),
    (
        guards.gaps,
        {"health": replace(HEALTH, missing={"risk_band": 0.3, "entropy_rate": 0.9})},
        {"health": replace(HEALTH, missing={"risk_band": 0.31})},
        0.31,
    ),
    (guards.enough_history, {"span_s": 300.0}, {"span_s": 299.0}, 299.0),
    (guards.fresh_baseline, {"baseline": True}, {"baseline": False}, "not yet"),
    (guards.quiet_time, {"quiet_s": 110.0}, {"quiet_s": 109.0}, 109.0),
    (guards.no_crit, {}, {"crits": (CRIT,)}, 1),
]


@pytest.mark.parametrize(("guard", "good", "bad", "observed"), TURNS)
def test_each_guard_turns_where_it_should(
    guard: Guard, good: dict[str, Any], bad: dict[str, Any], observed: object
) -> None:
    assert guard(situation(**good)).passed
    check = guard(situation(**bad))
    assert not check.passed
    assert check.observed == observed
    assert check.code.startswith("guard.")
    assert check.limit is not None
    assert check.reason.params["observed"] == observed


def test_observe_only_is_a_guard() -> None:
    assert not guards.policy_wants(situation(Story(settings_with(strategy__policy="none")))).passed


def test_stop_holds() -> None:
    story = Story(SETTINGS)
    story.at(10).govern("stop")
    assert not guards.not_stopped(situation(story)).passed


# ----------------------------------------------------------------------------- pace, looks, cooldown
@pytest.mark.parametrize(
    ("window", "settle", "pace"), [(90, 20, 180), (90, 120, 210), (1, 0.2, 2), (60, 60, 120)]
)
def test_the_pace_follows_from_the_settings(window: float, settle: float, pace: float) -> None:
    found = settings_with(observe_window_s=window, settle_s=settle)
    assert guards.pace_s(found) == pace


def test_between_two_steps_lies_the_pace_whatever_the_rule() -> None:
    story = Story(SETTINGS)
    story.verdict(story.at(1000).step("risk_max", 0.33), "NEUTRAL")
    check = guards.paced(situation(story, 1179.9))
    assert (check.passed, check.observed, check.limit) == (False, 179.9, 180)
    assert check.until_ms == ms(1180) + 7, "on the wall clock"
    assert guards.paced(situation(story, 1180)).passed


def test_others_events_do_not_set_our_pace() -> None:
    story = Story(SETTINGS)
    story.at(1000).foreign("risk_max", 0.33)
    assert guards.paced(situation(story, 1010)).passed


def test_a_way_back_starts_the_pace_anew() -> None:
    story = Story(SETTINGS)
    story.at(1000).harmed("risk_max", 0.33)
    assert not guards.paced(situation(story, 1269)).passed
    assert guards.paced(situation(story, 1270)).passed


def test_nothing_new_while_a_change_is_open_or_a_look_under_way() -> None:
    story = Story(SETTINGS)
    change = story.at(1000).step("risk_max", 0.33)
    check = guards.concurrency(situation(story, 1010))
    assert (check.passed, check.observed, check.until_ms) == (False, 1, ms(1090) + 7)
    story.at(1090).verdict(change, "NEUTRAL")
    assert guards.concurrency(situation(story, 1091)).passed
    story.at(2000).look({"risk_max": 0.35})
    check = guards.no_look(situation(story, 2010))
    assert (check.passed, check.observed) == (False, "looking")


@pytest.mark.parametrize("who", ["ours", "foreign", "rollback", "null"])
def test_cooldown_counts_everybodys_events_of_the_rule(who: str) -> None:
    story = Story(SETTINGS).at(1000)
    if who == "ours":
        story.step("risk_max", 0.33)
    elif who == "foreign":
        story.foreign("risk_max", 0.33)
    elif who == "null":
        story.foreign("risk_max", None)
    else:
        story.say("manual", "rollback", {"risk_max": 0.33})
    check = guards.cooldown(situation(story, 1119.9), "risk_max")
    assert (check.passed, check.observed, check.limit) == (False, 119.9, 120)
    assert check.until_ms == ms(1120) + 7
    assert guards.cooldown(situation(story, 1120), "risk_max").passed
    assert guards.cooldown(situation(story, 1010), "creative_min").passed


# ----------------------------------------------------------------------------- back-off
def _fruitless(n: int, settings: Settings = SETTINGS) -> Story:
    story = Story(settings)
    for i in range(n):
        story.verdict(story.at(i * 1000.0).step("risk_max", 0.33), "NEUTRAL")
        story.at(i * 1000.0 + 300).back("budget", {"risk_max": 0.35})
    return story


@pytest.mark.parametrize(("n", "pace"), [(0, 180), (1, 180), (2, 360), (3, 720), (4, 1440), (9, 21600)])
def test_the_interval_doubles_with_each_fruitless_excursion_up_to_six_hours(n: int, pace: float) -> None:
    story = _fruitless(n)
    assert guards.paced(situation(story, story.now + 1)).limit == pace


@pytest.mark.parametrize(
    ("rules", "n", "pace"), [(1, 2, 360), (4, 3, 180), (4, 4, 360), (4, 5, 720), (8, 7, 180)]
)
def test_each_rule_may_be_tried_in_vain_before_the_interval_grows(rules: int, n: int, pace: float) -> None:
    one = SETTINGS.rules["risk_max"]
    more = {f"rule_{i}": replace(one, name=f"rule_{i}") for i in range(1, rules)}
    story = _fruitless(n, replace(SETTINGS, rules={"risk_max": one, **more}))
    assert guards.paced(situation(story, story.now + 1)).limit == pace


def test_any_number_of_excursions_in_vain_is_a_number() -> None:
    endless = replace(_fruitless(2).life, fruitless=10_000)
    assert guards.paced(replace(situation(_fruitless(2), 1301), life=endless)).limit == 6 * 3600


@pytest.mark.parametrize(("fallen", "pace"), [(0.01, 720), (0.02, 180), (0.0, 720)])
def test_a_fall_of_the_score_ends_the_back_off(fallen: float, pace: float) -> None:
    story = _fruitless(3)
    assert guards.paced(situation(story, story.now + 1, fallen=fallen)).limit == pace


@pytest.mark.parametrize(("n", "most"), [(0, 6), (1, 3), (2, 1), (9, 1)])
def test_an_excursion_after_others_without_gain_has_fewer_steps(n: int, most: int) -> None:
    story = _fruitless(n)
    assert guards.excursion_steps(situation(story)).limit == most
    assert guards.excursion_steps(situation(story, fallen=0.02)).limit == 6


def test_a_regime_ends_the_back_off() -> None:
    story = _fruitless(5)
    story.at(6000).say("verdict", "regime", from_ms=ms(5900))
    assert guards.paced(situation(story, 6001)).limit == 180


# ----------------------------------------------------------------------------- the excursion's budget
def test_the_budget_of_steps() -> None:
    story = Story(settings_with(LIVE, strategy__excursion__max_steps=2))
    story.verdict(story.at(0).step("risk_max", 0.33), "NEUTRAL")
    assert guards.excursion_steps(situation(story)).passed
    story.verdict(story.at(300).step("risk_max", 0.31), "NEUTRAL")
    check = guards.excursion_steps(situation(story))
    assert (check.passed, check.observed, check.limit) == (False, 2, 2)


def test_no_step_so_late_that_the_hour_would_end_before_its_verdict() -> None:
    story = Story(SETTINGS)
    story.verdict(story.at(0).step("risk_max", 0.33), "NEUTRAL")
    assert guards.excursion_time(situation(story, 3600 - 111)).passed
    assert not guards.excursion_time(situation(story, 3600 - 110)).passed


# ----------------------------------------------------------------------------- pause, rest, bounds
def test_paused_and_resting_rules() -> None:
    story = Story(SETTINGS)
    for i in range(3):
        back = story.at(i * 1000.0).harmed("risk_max", 0.33)
    at = story.now
    check = guards.not_paused(situation(story, at + 3599), "risk_max")
    assert (check.passed, check.observed, check.limit) == (False, 3, 3)
    assert check.until_ms == ms(at + 3600) + 7
    assert guards.not_paused(situation(story, at + 3600), "risk_max").passed
    assert guards.not_paused(situation(story, at + 1), "creative_min").passed
    story.at(at + 100).say("verdict", "verified", change=back, result="not_ours")
    assert not guards.not_resting(situation(story, at + 1899), "risk_max").passed
    assert guards.not_resting(situation(story, at + 1900), "risk_max").passed


def test_a_pause_until_released_has_no_until() -> None:
    story = Story(SETTINGS)
    for i in range(5):
        story.at(i * 1000.0).harmed("risk_max", 0.33)
    assert guards.not_paused(situation(story), "risk_max").until_ms is None


@pytest.mark.parametrize(("value", "passed"), [(0.40, True), (0.20, True), (0.41, False), (0.19, False)])
def test_no_step_from_outside_the_bounds(value: float, passed: bool) -> None:
    story = Story(SETTINGS)
    story.at(0).foreign("risk_max", value)
    assert guards.in_bounds(situation(story), "risk_max").passed is passed


# ----------------------------------------------------------------------------- warning Δ and hard rest
def test_a_warning_holds_for_three_cooldowns() -> None:
    warn = (Reason("warn.joint_rise", {"metric": "entropy_rate", "observed": 0.04, "limit": 0.03}), ms(1000))
    check = guards.no_warning(situation(now=1359, warn=warn))
    assert (check.passed, check.observed, check.limit) == (False, 0.04, 0.03)
    assert check.until_ms == ms(1360) + 7
    assert guards.no_warning(situation(now=1360, warn=warn)).passed


def test_no_exploration_until_ten_minutes_inside_the_hard_limit() -> None:
    story = Story(SETTINGS)
    assert guards.hard_rest(situation(story, hard_inside_s=1.0)).passed, "never was a breach"
    story.verdict(story.at(100).step("risk_max", 0.37), "NEUTRAL")
    story.at(300).back("hard_limit", {"risk_max": 0.35})
    assert not guards.hard_rest(situation(story, hard_inside_s=599.0)).passed
    assert guards.hard_rest(situation(story, hard_inside_s=600.0)).passed


# ----------------------------------------------------------------------------- the loan
def test_a_loans_changes_and_room() -> None:
    story = Story(settings_with({"strategy.dry_run": False}))
    story.at(0).arm(changes=1, displacement=2.0)
    s = situation(story)
    assert guards.loan_changes(s).passed
    room = guards.loan_room(s)
    assert room["risk_max"] == pytest.approx((0.31, 0.39))
    assert room["creative_min"] == pytest.approx((0.18, 0.26)), "a bound is nearer than the loan"
    story.verdict(story.at(10).step("risk_max", 0.33), "NEUTRAL")
    assert not guards.loan_changes(situation(story)).passed


def test_without_a_loan_the_bounds_are_the_room() -> None:
    assert guards.loan_room(situation())["risk_max"] == (0.20, 0.40)
    assert isinstance(Loan, type)


# ----------------------------------------------------------------------------- one step
def _proposal(old: float, new: float) -> Proposal:
    return Proposal(rule="risk_max", old=old, new=new, reasons=(Reason("why.test"),))


@pytest.mark.parametrize(
    ("old", "new", "passed"),
    [(0.35, 0.33, True), (0.35, 0.37, True), (0.35, 0.3299, False), (0.35, 0.41, False), (0.34, 0.33, False)],
)
def test_a_policy_that_steps_out_of_line_is_not_obeyed(old: float, new: float, passed: bool) -> None:
    assert guards.check_step(situation(), _proposal(old, new)).passed is passed


@given(
    old=st.floats(-2, 2),
    step=st.floats(-3, 3),
    lr=st.sampled_from([0.02, 0.0123456789, 1e-6, 0.5]),
    resolution=st.integers(2, 9),
    low=st.floats(-1, 0),
    width=st.floats(0.1, 2),
)
def test_a_small_step_is_small_whatever_rounding_does(
    old: float, step: float, lr: float, resolution: int, low: float, width: float
) -> None:
    rule = Rule(name="r", init=low, min=low, max=low + width, lr=lr)
    new = small_step(rule, old, step, resolution)
    assert abs(new - old) <= lr * (1 + 1e-9) or new == old
    if rule.min <= old <= rule.max:
        assert rule.min <= new <= rule.max
    elif (rule.clip(old) - old) * step > 0:
        assert abs(rule.clip(new) - new) <= abs(rule.clip(old) - old), "nearer, never further"


def test_a_step_too_small_to_multiply_does_not_go_the_other_way() -> None:
    rule = Rule(name="r", init=0.0, min=0.0, max=1.0, lr=0.02)
    assert small_step(rule, -1.59375, 5e-324, 3) == -1.59375


def test_a_small_step_of_an_odd_value_is_not_longer_than_lr() -> None:
    rule = Rule(name="r", init=0.3, min=0.0, max=1.0, lr=0.02)
    assert small_step(rule, 0.3333337, 0.02, 6) == 0.353333
    assert small_step(rule, 0.35, -0.02, 6) == 0.33, "0.35 - 0.02 is 0.33"


def test_the_last_step_to_a_bound_is_the_bound_itself() -> None:
    rule = Rule(name="r", init=0.1, min=0.0, max=0.1234567, lr=0.02)
    assert small_step(rule, 0.13, -0.0065433, 6) == 0.1234567
