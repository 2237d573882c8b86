"""No state from which the loop never acts again while data are good (loop.md, last line).

Each case drives a live loop on a plant that is off target into one state, lets go, does what a person
must do where one is needed, and waits for the next step of ours within a bounded time.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from selftune import guards, hands
from selftune.plants import PlantSpec, Regime, seed_plant, still
from selftune.simulate import Plant, Rows
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


@pytest.mark.parametrize("policy", ["adaptive", "heuristic"])
@pytest.mark.parametrize("state", STATES)
def test_from_every_state_it_goes_on_by_itself(state: str, policy: str) -> None:
    w = World(FLAT, seed=3, **{"strategy.policy": policy})
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
    acts_again(w, 6000)  # the look under way may be the fifth without gain


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


# ----------------------------------------------------------------------------- every guard lets go again
def holding(w: World) -> set[str]:
    """Codes of the guards that hold now, those of any rule included."""
    s = w.picture.situation
    checks = [*guards.check_loop(s), *(c for r in s.settings.rules for c in guards.check_rule(s, r))]
    return {c.code for c in checks if not c.passed}


def setting(old: str, new: str) -> Callable[[World], None]:
    def change(w: World) -> None:
        assert old in w.text
        w.settle(w.text.replace(old, new))

    return change


def settled(w: World) -> None:
    w.settle(None)


def bent(bend: Callable[[Rows], Rows] | None) -> Callable[[World], None]:
    def change(w: World) -> None:
        if bend is not None:
            w.run(400, least_s=WAKE_S)
        w.bend = bend

    return change


def ahead(rows: Rows) -> Rows:
    return replace(rows, ts_ms=rows.ts_ms + 60_000)


def thinned(rows: Rows) -> Rows:
    keep = rows.ts_ms // 200 % 5 == 0  # 1 Hz
    return Rows(ts_ms=rows.ts_ms[keep], values={m: v[keep] for m, v in rows.values.items()},
                means={m: v[keep] for m, v in rows.means.items()}, copies=rows.copies[keep])  # fmt: skip


def stuck(rows: Rows) -> Rows:
    return replace(rows, values={**rows.values, "risk_band": np.full(len(rows.ts_ms), 0.333)})


def patchy(rows: Rows) -> Rows:
    risk = np.where(rows.ts_ms // 200 % 5 < 3, np.nan, rows.values["risk_band"])
    return replace(rows, values={**rows.values, "risk_band": risk})


def not_ours(w: World) -> None:
    """A step went back for harm that stayed: it was not ours, its rule rests."""
    on_probation(w)
    life = w.picture.life
    rule = life.steps[-1].rules[0]
    now, home = life.values[rule], life.anchor[rule]
    w.note({"kind": "cycle", "act": "return", "mode": "live", "cause": "worsened", "scope": "excursion",
            "undoes": [c.id for c in life.steps], "applied": ["back"],
            "harm": {"rule": rule, "sign": 1 if now > home else -1, "anchor": home}})  # fmt: skip
    back = w.decisions()[-1].id
    w.write_line(actor="selftune", rule=rule, old=now, new=home, id="back", kind="rollback", decision=back)
    w.note({"kind": "verdict", "act": "verified", "mode": "live", "change": back, "result": "not_ours"})


def someone(w: World) -> None:
    w.run(60, least_s=WAKE_S)
    w.others("risk_max", 0.34)


def someone_harmful(w: World) -> None:
    w.run(400, least_s=WAKE_S)
    w.others("creative_min", 0.24)
    w.plant = _shifted(w, "entropy_rate", 0.06)


def busy(w: World) -> None:
    for i in range(14):
        w.others("creative_min", 0.22 + 0.01 * (i % 2))
        w.run(45, least_s=WAKE_S)


def confirmed(w: World) -> None:
    """What is on probation is proven: its values are the anchor, to be measured afresh."""
    on_probation(w)
    life = w.picture.life
    w.note({"kind": "verdict", "act": "confirm", "mode": "live", "basis": "improved",
            "anchor": dict(life.values), "steps": [c.id for c in life.steps]})  # fmt: skip


def over_the_limit(w: World) -> None:
    w.run(400, least_s=WAKE_S)
    w.plant = _shifted(w, "risk_band", 0.06)
    until(w, lambda w: any(d.act == "emergency" for d in w.decisions()), 400)
    w.plant = _shifted(w, "risk_band", 0.0)
    until(w, lambda w: not w.picture.breaches, 120)


def resumed(w: World) -> None:
    if w.picture.crits:
        until(w, lambda w: w.picture.mode.reason.code == "mode.disarmed", 60)
        resume(w)


def nothing(w: World) -> None:
    """Time alone ends it."""


@dataclass(frozen=True)
class Hold:
    """How a guard comes to hold, what must happen for it to let go, and in which settings."""

    enter: Callable[[World], None]
    leave: Callable[[World], None] = nothing
    settings: dict[str, Any] = field(default_factory=dict)
    within_s: float = 2400.0


def lease(held: bool) -> Callable[[World], None]:
    def change(w: World) -> None:
        w.root.lease_ok = held

    return change


HARD = {"safety.hard.risk_band.max": 0.36}
HOLDS: dict[str, Hold] = {
    "settings": Hold(lambda w: w.settle("targets: ["), settled),
    "stopped": Hold(stop, resume),
    "lease": Hold(lease(False), lease(True)),
    "policy": Hold(setting("dry_run: false", "dry_run: false\n  policy: none"), settled),
    "stale": Hold(lambda w: setattr(w, "writing", False), lambda w: setattr(w, "writing", True)),
    "clock_ahead": Hold(bent(ahead), bent(None)),
    "frozen": Hold(bent(stuck), bent(None)),
    "rate_too_low": Hold(bent(thinned), bent(None)),
    "samples": Hold(bent(patchy), bent(None)),
    "gaps": Hold(bent(patchy), bent(None)),
    "concurrency": Hold(open_step),
    "look": Hold(looking),
    "pace": Hold(on_probation),
    "history": Hold(nothing),
    "baseline": Hold(confirmed, within_s=4000),
    "no_quiet_time": Hold(busy),
    "warn": Hold(someone_harmful),
    "crit": Hold(lambda w: w.crit(), resumed),
    "hard_rest": Hold(over_the_limit, resumed, HARD),
    "excursion_steps": Hold(on_probation, settings={"strategy.excursion.max_steps": 1}, within_s=4000),
    "excursion_time": Hold(on_probation, settings={"strategy.excursion.max_s": 300}, within_s=4000),
    "loan_changes": Hold(open_step, lambda w: w.arm(), {"governance.approvals_required": 1}),
    "cooldown": Hold(someone),
    "paused": Hold(lambda w: harmed(w, 3)),
    "resting": Hold(not_ours),
    "out_of_bounds": Hold(lambda w: w.others("risk_max", 0.45)),
}


def test_the_list_has_every_guard() -> None:
    there = set(re.findall(r'_check\(\s*"(\w+)"', inspect.getsource(guards)))
    assert set(HOLDS) == there - {"step"}, "`step` judges a proposal, it is no state"


@pytest.mark.parametrize("guard", HOLDS)
def test_what_holds_the_loop_lets_go_again(guard: str) -> None:
    hold = HOLDS[guard]
    w = World(FLAT, seed=3, **hold.settings)
    if guard == "loan_changes":
        w.arm(changes=1)
    hold.enter(w)
    until(w, lambda w: f"guard.{guard}" in holding(w), 900)
    hold.leave(w)
    acts_again(w, hold.within_s)


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
