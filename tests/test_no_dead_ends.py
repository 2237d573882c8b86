"""No state from which the loop never acts again while data are good (loop.md, last line).

Each case drives a live loop on a plant that is off target into one state, lets go, does what a person
must do where one is needed, and waits for the next step of ours within a bounded time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from selftune import hands
from selftune.plants import PlantSpec, Regime, seed_plant, still
from selftune.simulate import Plant
from tests.stage import T0
from tests.worlds import World

FLAT = still(seed_plant())  # always off target, nothing helps: there is always a reason to try
ENOUGH = 1200.0
WAKE_S = 5.0


def resume(w: World) -> None:
    assert w.hand(lambda p: hands.resume(p, actor="kim", role="operator", reason="test"))


def stop(w: World) -> None:
    assert w.hand(lambda p: hands.stop(p, actor="kim", role="operator", reason="test"))


def release(w: World) -> None:
    assert w.hand(lambda p: hands.release(p, "risk_max", actor="kim", reason="test"))


def until(w: World, true: Callable[[World], bool], within_s: float) -> None:
    """Let the loop run until something is so."""
    end = w.now + within_s
    while not true(w):
        assert w.now < end, f"not within {within_s} s; last: {[(d.kind, d.act) for d in w.decisions()[-4:]]}"
        w.run(WAKE_S, least_s=WAKE_S)


def acts_again(w: World, within_s: float = ENOUGH) -> None:
    """A step of ours that begins after now."""
    since = w.now
    until(w, lambda w: bool(w.steps_since(since)), within_s)


def harmed(w: World, times: int = 1, rule: str = "risk_max") -> None:
    """So many proven harms of the rule on record, the last one now."""
    for _ in range(times):
        value = w.picture.life.values[rule]
        w.note({"kind": "cycle", "act": "return", "mode": "live", "cause": "worsened", "scope": "step",
                "undoes": [], "harm": {"rule": rule, "sign": -1, "anchor": value, "deltas": {}}})  # fmt: skip
        w.run(WAKE_S, least_s=WAKE_S)


def open_step(w: World) -> None:
    until(w, lambda w: bool(w.picture.open), 900)


def on_probation(w: World) -> None:
    until(w, lambda w: w.picture.life.excursion is not None and not w.picture.open, 3000)


def looking(w: World) -> None:
    until(w, lambda w: w.picture.life.look is not None, 6000)


# ----------------------------------------------------------------------------- states of the loop itself
STATES: dict[str, Callable[[World], None]] = {
    "fresh": lambda w: None,
    "open": open_step,
    "on probation": on_probation,
    "looking": looking,
    "barred": lambda w: harmed(w, 1),
    "paused": lambda w: harmed(w, 3),
}


@pytest.mark.parametrize("state", STATES)
def test_from_every_state_it_goes_on_by_itself(state: str) -> None:
    w = World(FLAT, seed=3)
    STATES[state](w)
    acts_again(w, 2400 if state in ("looking",) else ENOUGH)


def test_a_rule_that_is_alone_and_paused_is_tried_again_after_its_hour() -> None:
    w = World(FLAT, seed=3, **{"strategy.policy": "heuristic", "strategy.direction.creative_min": 0})
    w.run(60, least_s=WAKE_S)
    harmed(w, 3)
    since = w.now
    w.run(3500, least_s=30.0)
    assert not w.steps_since(since)
    acts_again(w, 2 * 3600)  # the third bar lasts two hours


def test_a_rule_paused_for_good_is_tried_again_when_released() -> None:
    w = World(FLAT, seed=3, **{"strategy.direction.creative_min": 0})
    w.run(60, least_s=WAKE_S)
    harmed(w, 5)
    assert w.picture.life.pause_of("risk_max", w.fake.steady_ms + 10**9) is not None
    release(w)
    assert not w.picture.life.bars, "who frees a rule frees it whole"
    acts_again(w)


def test_backed_off_it_waits_longer_but_goes_on() -> None:
    w = World(FLAT, seed=3)
    w.run(400, least_s=WAKE_S)
    for _ in range(4):
        w.note({"kind": "verdict", "act": "look", "result": "stay", "mode": "live", "score": 0.7})
    until(w, lambda w: not w.picture.open, 200)
    assert w.picture.life.fruitless >= 4
    acts_again(w, 3000)


# ----------------------------------------------------------------------------- what a person must end
@pytest.mark.parametrize("state", ["fresh", "open", "on probation", "looking"])
def test_stopped_then_resumed(state: str) -> None:
    w = World(FLAT, seed=3)
    STATES[state](w)
    stop(w)
    since = w.now
    w.run(600, least_s=WAKE_S)
    assert not w.steps_since(since)
    assert w.picture.life.excursion is None, "what was open is home"
    resume(w)
    acts_again(w)


def test_a_crit_disarms_until_a_person_resumes() -> None:
    w = World(FLAT, seed=3)
    open_step(w)
    w.crit()
    w.run(30, least_s=WAKE_S)
    assert w.picture.mode.reason.code == "mode.disarmed"
    assert w.picture.life.excursion is None
    resume(w)
    acts_again(w)


def test_a_loan_that_ended_by_a_breach_goes_on_when_resumed() -> None:
    w = World(FLAT, seed=3, **{"governance.approvals_required": 1, "safety.hard.risk_band.max": 0.36})
    w.arm()
    open_step(w)
    w.plant = _shifted(w, "risk_band", 0.06)
    until(w, lambda w: any(d.data.get("cause") == "hard_limit" for d in w.decisions()), 200)
    w.plant = _shifted(w, "risk_band", 0.0)
    until(w, lambda w: w.picture.mode.reason.code == "mode.disarmed", 400)
    resume(w)
    acts_again(w)


def test_a_loan_that_is_spent_goes_on_with_a_new_one() -> None:
    w = World(FLAT, seed=3, **{"governance.approvals_required": 1})
    w.arm(changes=1)
    until(w, lambda w: w.picture.mode.reason.code == "mode.disarmed", 7200)
    w.arm()
    acts_again(w)


@pytest.mark.parametrize("problem", ["broken", "locked"])
def test_settings_that_were_broken_or_locked_for_a_while(problem: str) -> None:
    w = World(FLAT, seed=3)
    open_step(w)
    w.settle("targets: [" if problem == "broken" else w.text.replace("dry_run: false", "dry_run: true"))
    w.run(400, least_s=WAKE_S)
    w.settle(None)
    acts_again(w)


# ----------------------------------------------------------------------------- bad luck
@pytest.mark.parametrize("state", ["open", "on probation", "looking"])
@pytest.mark.parametrize("gap_s", [30, 600])
def test_blind_then_good(state: str, gap_s: float) -> None:
    w = World(FLAT, seed=3)
    STATES[state](w)
    w.writing = False
    w.run(gap_s, least_s=WAKE_S)
    w.writing = True
    acts_again(w, 2400)


@pytest.mark.parametrize("jump_s", [-3600, -30, 30, 3600])
def test_the_wall_clock_jumps(jump_s: int) -> None:
    w = World(FLAT, seed=3)
    open_step(w)
    w.fake.wall_ms += jump_s * 1000
    acts_again(w, 2400)


@pytest.mark.parametrize("state", ["open", "on probation", "looking"])
def test_the_loop_slept_for_two_hours(state: str) -> None:
    w = World(FLAT, seed=3)
    STATES[state](w)
    w.pass_s(7200)
    acts_again(w, 2400)


def test_an_orphan_after_a_kill() -> None:
    w = World(FLAT, seed=3)
    w.run(60, least_s=WAKE_S)
    w.note({"kind": "cycle", "act": "step", "mode": "live", "applied": ["never"],
            "proposals": []})  # fmt: skip
    acts_again(w)


def test_inside_the_hard_limit_again_it_rests_and_goes_on() -> None:
    w = World(FLAT, seed=3, **{"safety.hard.risk_band.max": 0.36})
    w.run(400, least_s=WAKE_S)
    w.plant = _shifted(w, "risk_band", 0.06)
    until(w, lambda w: any(d.act == "emergency" for d in w.decisions()), 400)
    w.plant = _shifted(w, "risk_band", 0.0)
    w.crit(resolves="none")
    until(w, lambda w: not w.picture.breaches, 120)
    if w.picture.crits:
        until(w, lambda w: w.picture.mode.reason.code == "mode.disarmed", 60)
        resume(w)
    acts_again(w, 2400)


# ----------------------------------------------------------------------------- others, regimes
def test_after_a_regime_change() -> None:
    offset = {"risk_band": 0.05, "phase_diff": 0.03}
    spec = _with_regime(FLAT, offset, at_s=2700)
    still = {f"strategy.direction.{rule}": 0 for rule in ("risk_max", "creative_min")}
    w = World(spec, seed=3, **{"strategy.policy": "heuristic", **still})
    w.run(3600, least_s=WAKE_S)
    assert w.decisions("verdict", "regime")
    w.settle(w.text.replace("risk_max: 0", "risk_max: -1"))
    acts_again(w)


def test_others_who_write_all_the_time_then_fall_quiet() -> None:
    w = World(FLAT, seed=3)
    open_step(w)
    for i in range(30):
        w.others("creative_min", 0.22 + 0.01 * (i % 2))
        w.run(45, least_s=WAKE_S)
    acts_again(w)


def test_others_who_put_a_rule_out_of_bounds() -> None:
    w = World(FLAT, seed=3)
    w.run(60, least_s=WAKE_S)
    w.others("risk_max", 0.45)
    until(w, lambda w: w.picture.life.values["risk_max"] <= 0.40, 900)
    acts_again(w)


def test_others_who_fight_for_a_value_out_of_bounds_do_not_stop_the_other_rule() -> None:
    w = World(FLAT, seed=3)
    w.run(60, least_s=WAKE_S)
    for _ in range(4):
        w.others("risk_max", 0.45)
        w.run(200, least_s=WAKE_S)
    acts_again(w)
    assert w.steps_since(0)[-1].data["proposals"][0]["rule"] == "creative_min"


@pytest.mark.parametrize("value", [None, "much"])
def test_others_lines_without_a_number(value: Any) -> None:
    w = World(FLAT, seed=3)
    open_step(w)
    w.others("risk_max", value)
    acts_again(w, 2400)


@pytest.mark.parametrize("which", ["approve", "reject"])
def test_a_suggestion_that_a_person_answered(which: str) -> None:
    w = World(FLAT, seed=3, **{"strategy.dry_run": True})
    until(w, lambda w: bool(w.picture.life.suggestions), 600)
    first = w.picture.life.suggestions[-1].id
    if which == "approve":
        assert w.hand(lambda p: hands.apply(p, first, actor="kim", reason="try"))
    else:
        assert w.hand(lambda p: hands.reject(p, first, actor="kim", reason="no"))
    until(w, lambda w: w.picture.life.suggestions[-1].id != first, 1800)


# ----------------------------------------------------------------------------- tools
def _shifted(w: World, metric: str, by: float) -> Any:
    """The plant goes on with one metric's mean moved."""
    base = FLAT
    spec = replace(
        base,
        metrics=tuple(
            replace(m, surface=replace(m.surface, base=m.surface.base + by)) if m.name == metric else m
            for m in base.metrics
        ),
    )
    return Plant(3, spec, start_ms=T0, index=w.plant.index_of(w.plant.next_ms))


def _with_regime(spec: PlantSpec, offset: dict[str, float], at_s: float) -> PlantSpec:
    return replace(
        spec, regimes=(spec.regimes[0], Regime(offset=offset)), schedule=((0.0, 0), (at_s, 1)), repeat_s=None
    )
