"""The unproven steps judged together: looks, budget, reversal look, way back verified, regimes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.stage import (
    GOOD,
    HARD,
    LIVE,
    OFF,
    Levels,
    Scene,
    Story,
    acts,
    codes,
    moved,
    ms,
    settings_with,
    the,
)

BETTER = {"risk_band": 0.316}
WORSE = {"risk_band": 0.338}


def probation(
    levels: Mapping[str, float] | None = None, *, at: float = 0.0, start: float = -9000.0, **changes: Any
) -> Scene:
    """One step on probation since `at`, with a long quiet past; the metrics are at `levels` since."""
    story = Story(settings_with({**LIVE, **changes}))
    change = story.at(at).step("risk_max", 0.33)
    story.at(at + 91).verdict(change, "NEUTRAL")
    return Scene(story, levels=[(start, OFF), (at + 2, levels or {})], start=start)


# ----------------------------------------------------------------------------- looks at the whole
def test_a_look_waits_for_the_first_window_free_of_the_washout() -> None:
    stage = probation(BETTER)
    assert ("verdict", "excursion") not in acts(stage.plan(100))
    assert ("verdict", "excursion") in acts(stage.plan(116))


def test_a_proven_excursion_is_confirmed_and_the_anchor_moves() -> None:
    plan = probation(BETTER).plan(121)
    assert acts(plan) == [("verdict", "excursion"), ("verdict", "confirm")]
    look = the(plan, "excursion")
    assert (look.data["verdict"], look.data["look"]) == ("IMPROVED", 1)
    assert look.data["p_gain"] >= 0.98
    assert the(plan, "confirm").data["anchor"]["risk_max"] == 0.33


def test_a_proven_loss_takes_the_whole_excursion_home_and_counts_once_for_the_last_rule() -> None:
    stage = probation(WORSE)
    stage.noise = dict.fromkeys(OFF, 0.009)  # too much for the watch on probation
    story = stage.story
    last = story.at(300).step("creative_min", 0.24)
    story.verdict(last, "NEUTRAL")
    plan = stage.plan(420)
    assert acts(plan) == [("verdict", "excursion"), ("cycle", "return")]
    back = the(plan, "return")
    assert moved(back) == {"risk_max": (0.33, 0.35), "creative_min": (0.24, 0.22)}
    assert (back.data["cause"], back.data["scope"]) == ("worsened", "excursion")
    assert (back.data["harm"]["rule"], back.data["harm"]["sign"], back.data["harm"]["anchor"]) == (
        "creative_min", 1, 0.22,
    )  # fmt: skip


def test_undecided_looks_follow_at_twice_four_and_eight_windows_and_are_four_in_all() -> None:
    stage = probation()
    story = stage.story
    when = []
    for now in (*range(95, 400, 5), *range(700, 730, 5), 1000):
        plan = stage.plan(now)
        if ("verdict", "excursion") in acts(plan):
            when.append(now)
            look = the(plan, "excursion")
            assert look.data["verdict"] == "NEUTRAL"
            story.at(now).looked(verdict="NEUTRAL", spent=look.data["spent"])
    assert len(when) == 4
    assert when == [120, 180, 360, 720], "the first as soon as a window without washout is whole"


def test_a_new_step_cancels_pending_looks_and_spends_none() -> None:
    stage = probation()
    story = stage.story
    story.at(120).looked(verdict="NEUTRAL")
    story.verdict(story.at(200).step("creative_min", 0.24), "NEUTRAL")
    assert ("verdict", "excursion") not in acts(stage.plan(295)), "the second look at 180 s is no more"
    look = the(stage.plan(321), "excursion")
    assert look.data["look"] == 2


def test_with_all_looks_spent_nothing_is_proven_by_looking() -> None:
    stage = probation(BETTER)
    for at in (120, 180, 360, 720):
        stage.story.at(at).looked(verdict="NEUTRAL")
    assert "confirm" not in [a for _, a in acts(stage.plan(1000))]


def test_after_a_confirmation_the_anchors_windows_are_measured_afresh() -> None:
    """The window that proved the step is the luckiest of all: it must not be the next baseline."""
    story = Story(settings_with(LIVE))
    story.verdict(story.at(0).step("risk_max", 0.33), "IMPROVED")
    story.at(121).confirm()
    stage = Scene(story, start=-9000)
    p = stage.picture(205)
    assert not p.baseline
    assert "guard.baseline" in [c.code for c in p.checks if not c.passed]
    assert stage.picture(231).baseline
    assert all(w.end_ms <= ms(121) or w.start_ms >= ms(121) for w in p.quiet)


def test_a_confirmation_from_before_a_jump_back_of_the_clock_does_not_wait_for_its_time_to_return() -> None:
    story = Story(settings_with(LIVE))
    story.verdict(story.at(-900).step("risk_max", 0.33), "IMPROVED")
    story.at(3600).confirm()
    assert Scene(story).picture(200).baseline


def test_with_confirm_reversal_a_proof_by_looking_confirms_nothing() -> None:
    plan = probation(BETTER, **{"strategy.confirm": "reversal"}).plan(121)
    assert acts(plan) == [("verdict", "excursion")]


# ----------------------------------------------------------------------------- the steps' own effects, summed
def told(delta: float, sigma: float = 0.002, **more: Any) -> dict[str, Any]:
    """A verdict's effect on record: `risk_band` by `delta`, the rest untouched."""
    still = {"state": "ok", "delta": 0.0, "sigma": 0.0002, "nu": 30.0, "n_post": 350}
    metrics = {m: {**still, "pre_mean": x} for m, x in OFF.items()}
    metrics["risk_band"] |= {"delta": delta, "sigma": sigma}
    return {"event_ms": 1, "end_ms": 2, "settle_s": 20.0, "final": True, "metrics": metrics, **more}


def walked(
    *effects: dict[str, Any], start: float = -400.0, real: float = 1.0, looked: bool = False, **changes: Any
) -> Scene:
    """Steps of `risk_max`, 185 s apart, each judged by such an effect; too short a past to compare windows.

    `real`: the share of those effects that the samples really show; `looked`: a look could be judged before
    the last step.
    """
    most = {"strategy.excursion.max_steps": len(effects)}
    story = Story(settings_with({**LIVE, **most, "rules.risk_max.lr": 0.01, **changes}))
    level, levels = OFF["risk_band"], []
    for i, effect in enumerate(effects):
        step = story.at(185.0 * i).step("risk_max", round(0.35 - 0.01 * (i + 1), 2))
        level += real * effect["metrics"]["risk_band"]["delta"] if effect else 0.0
        levels.append((185.0 * i + 2, {"risk_band": level}))
        story.at(185.0 * i + 91).verdict(step, "NEUTRAL", effect=effect)
        if looked and i == len(effects) - 2:
            story.at(185.0 * i + 130).looked(verdict="NEUTRAL", spent=True)
    return Scene(story, levels=levels, start=start, noise=dict.fromkeys(OFF, 0.004))


def after(steps: int, seconds: float = 121.0) -> float:
    return 185.0 * (steps - 1) + seconds


def confirmed(stage: Scene, *times: float) -> bool:
    return any(a.act == "confirm" for now in times for a in stage.plan(now).acts)


def test_where_windows_cannot_be_compared_a_full_excursion_is_proven_by_its_steps() -> None:
    stage = walked(*[told(-0.004)] * 6)
    assert not confirmed(stage, after(6, 95)), "its last window is not whole"
    plan = stage.plan(after(6))
    assert acts(plan) == [("verdict", "excursion"), ("verdict", "confirm")]
    look, confirm = the(plan, "excursion"), the(plan, "confirm")
    assert (look.data["verdict"], look.data["spent"]) == ("IMPROVED", False)
    assert codes(look.reasons) == ["score_gain", "excursion.added_up"]
    assert look.reasons[1].params["observed"] == 6
    assert look.data["score_gain"] == pytest.approx(0.0267, abs=0.002)
    assert confirm.data["basis"] == "improved"
    assert confirm.data["anchor"]["risk_max"] == 0.29


@pytest.mark.parametrize(
    "effects", [[told(-0.004)] + [told(0.0)] * 5, [told(0.001)] * 6, [told(-0.004, 0.01)] * 6]
)
def test_steps_that_do_not_add_up_to_a_gain_are_looked_at_as_before(effects: list[dict[str, Any]]) -> None:
    plan = walked(*effects).plan(after(6))
    assert acts(plan) == [("verdict", "excursion")]
    assert codes(the(plan, "excursion").reasons) == ["too_few_pairs"]


@pytest.mark.parametrize(
    ("real", "proven"), [(1.0, True), (0.6, True), (0.3, False), (0.0, False), (-0.5, False)]
)
def test_a_gain_that_has_faded_since_is_none(real: float, proven: bool) -> None:
    assert confirmed(walked(*[told(-0.004)] * 6, real=real), after(6)) is proven


def test_windows_that_can_be_compared_are_not_overruled() -> None:
    """A long quiet past shows that nothing was gained over the way, whatever its steps seemed to do."""
    stage = walked(*[told(-0.005)] * 6, start=-9000.0, real=0.5)
    stage.noise = dict.fromkeys(OFF, 0.06)
    plan = stage.plan(after(6))
    assert the(plan, "excursion").data["verdict"] == "NEUTRAL"
    assert not confirmed(stage, after(6), after(6, 250), after(6, 6 * 180 + 200))
    earlier = walked(*[told(-0.004)] * 6, looked=True)
    assert not confirmed(earlier, after(6), after(6, 6 * 180 + 200)), "nor is a look that was spent before"


def test_while_more_steps_may_follow_nothing_is_summed() -> None:
    stage = walked(*[told(-0.005)] * 5, **{"strategy.excursion.max_steps": 6})
    assert acts(stage.plan(after(5))) == [("verdict", "excursion")]
    assert codes(the(stage.plan(after(5)), "excursion").reasons) == ["too_few_pairs"]


def idle(stage: Scene, steps: int) -> float:
    """The excursion has been looked at in vain until its ideas are spent: then."""
    for at in (121, 181, 361, 721):
        stage.story.at(after(steps, at)).looked(verdict="INCONCLUSIVE", spent=False)
    return after(steps, 6 * 180)


def test_when_there_is_nothing_more_to_try_the_sum_saves_the_way_home() -> None:
    stage = walked(*[told(-0.005)] * 5, **{"strategy.excursion.max_steps": 6})
    plan = stage.plan(idle(stage, 5))
    assert acts(plan) == [("verdict", "excursion"), ("verdict", "confirm")]
    assert codes(the(plan, "confirm").reasons) == ["score_gain", "excursion.added_up", "excursion.idle"]


def test_it_is_asked_once() -> None:
    stage = walked(*[told(-0.005)] * 6)
    stage.story.at(after(6)).looked(verdict="INCONCLUSIVE", spent=False)
    assert not confirmed(stage, after(6, 185), after(6, 365))
    assert not confirmed(stage, idle(stage, 6))


def test_one_step_alone_had_its_verdict() -> None:
    assert not confirmed(walked(told(-0.03, 0.0001)), after(1))


@pytest.mark.parametrize("what", ["foreign", "regime", "reversal", "unread", "unfinished"])
def test_nothing_is_summed_over_what_broke_the_comparison(what: str) -> None:
    last = told(-0.004, final=False) if what == "unfinished" else told(-0.004)
    effects = [told(-0.004)] * 5 + ([{}] if what == "unread" else [last])
    more = {"strategy.confirm": "reversal"} if what == "reversal" else {}
    stage = walked(*effects, **more)
    story = stage.story.at(after(6, 100))
    if what == "foreign":
        story.foreign("creative_min", 0.24)
    elif what == "regime":
        story.say("verdict", "regime", from_ms=ms(after(6, 50)))
    assert not confirmed(stage, after(6), after(6, 250), after(6, 1000))


@pytest.mark.parametrize("what", ["reversal", "plain"])
def test_with_confirm_reversal_an_idle_excursion_goes_home_to_look(what: str) -> None:
    more = {"strategy.confirm": "reversal"} if what == "reversal" else {}
    stage = walked(*[told(-0.005)] * 5, **{"strategy.excursion.max_steps": 6, **more})
    assert confirmed(stage, idle(stage, 5)) is (what == "plain")


def test_another_rules_gain_confirms_no_loss() -> None:
    """An edit of the bounds took one rule's steps out of the excursion: the rest is not what they led to."""
    stage = walked(*[told(-0.005)] * 5)
    stage.story.at(after(5, 185)).step("creative_min", 0.23)
    stage.story.at(after(5, 276)).verdict("d11", "NEUTRAL", effect=told(0.001))
    tight = {"rules.risk_max.max": 0.30, "rules.risk_max.init": 0.30, "strategy.excursion.max_steps": 6}
    stage.story.settings = settings_with({**LIVE, "rules.risk_max.lr": 0.01, **tight})
    exc = stage.story.life.excursion
    assert exc is not None and set(exc.displaced) == {"creative_min"}
    assert not confirmed(stage, after(6, 125), after(6, 6 * 180 + 10))


def test_a_step_that_is_a_persons_to_take_back_is_not_confirmed_with_the_others() -> None:
    stage = walked(
        *[told(-0.006)] * 5, **{"strategy.excursion.max_steps": 6, "strategy.auto_rollback": False}
    )
    story = stage.story
    bad = story.at(after(6, 0)).step("risk_max", 0.29)
    story.at(after(6, 91)).verdict(bad, "WORSENED", effect=told(0.001))
    (back,) = stage.plan(after(6, 95)).acts
    assert (back.act, back.write) == ("return", False)
    would = [{"rule": m.rule, "old": m.old, "new": m.new} for m in back.moves]
    data = {k: back.data[k] for k in ("cause", "scope", "undoes")}
    story.at(after(6, 95)).say("cycle", "return", would=would, **data)
    assert ("verdict", "excursion") in acts(stage.plan(after(6))), "it is looked at"
    assert not confirmed(stage, after(6), after(6, 250))


@pytest.mark.parametrize("home", [0.30, 0.295])
def test_steps_with_something_else_between_are_not_summed(home: float) -> None:
    stage = walked(*[told(-0.005)] * 5, **{"strategy.excursion.max_steps": 7})
    story = stage.story
    bad = story.at(after(5, 185)).step("risk_max", 0.29)
    story.at(after(5, 220)).verdict(bad, "WORSENED", effect=told(0.05))
    back = story.back("early_harm", {"risk_max": home}, [bad], scope="step")
    story.at(after(5, 311)).say("verdict", "verified", change=back, result="undecided")
    last = story.at(after(7)).step("risk_max", 0.29)
    story.at(after(7, 212)).verdict(last, "NEUTRAL", effect=told(-0.005))
    assert confirmed(stage, after(8, 121), after(8, 130)) is (home == 0.30)


def test_a_step_that_was_taken_back_is_not_summed() -> None:
    for gain, home, proven in ((-0.005, 0.22, True), (-0.005, 0.225, False), (-0.001, 0.22, False)):
        stage = walked(*[told(gain)] * 5, **{"strategy.excursion.max_steps": 6})
        bad = stage.story.at(after(5, 185)).step("creative_min", 0.24)
        stage.story.at(after(5, 220)).verdict(bad, "WORSENED", effect=told(0.05))
        back = stage.story.back("early_harm", {"creative_min": home}, [bad], scope="step")
        stage.story.at(after(5, 311)).say("verdict", "verified", change=back, result="undecided")
        found = [
            a for now in range(340, 420, 5) for a in stage.plan(after(5, now)).acts if a.act == "confirm"
        ]
        assert bool(found) is proven
        if proven:
            assert found[0].reasons[1].params["observed"] == 5


# ----------------------------------------------------------------------------- the budget's end
def _spent(stage: Scene, looks: int = 4) -> Scene:
    for _ in range(looks):
        stage.story.at(stage.story.now + 1).looked(verdict="NEUTRAL")
    return stage


def test_at_the_end_of_its_hour_an_undecided_excursion_is_looked_at_from_home() -> None:
    stage = _spent(probation())
    assert acts(stage.plan(1000)) != [("cycle", "look")]
    plan = stage.plan(3601)
    look = the(plan, "look")
    assert look.write
    assert moved(look) == {"risk_max": (0.33, 0.35)}
    assert look.moves[0].look
    assert look.moves[0].kind == "rollback"
    assert codes(look.reasons) == ["excursion.time"]


def test_when_all_steps_and_looks_are_spent_too() -> None:
    stage = _spent(probation(strategy__excursion__max_steps=1))
    assert codes(the(stage.plan(200), "look").reasons) == ["excursion.steps"]


def test_six_cycles_without_a_proposal_end_it_too() -> None:
    stage = _spent(probation())
    assert acts(stage.plan(6 * 180 - 2)) != [("cycle", "look")]
    plan = stage.plan(6 * 180)
    assert "excursion.idle" in [c for a in plan.acts for c in codes(a.reasons)]


def test_with_confirm_reversal_the_steps_alone_end_it() -> None:
    stage = probation(strategy__excursion__max_steps=1, **{"strategy.confirm": "reversal"})
    stage.story.at(120).looked(verdict="NEUTRAL")
    assert codes(the(stage.plan(125), "look").reasons) == ["excursion.steps"]


def test_equal_to_the_anchor_with_every_target_met_stays_without_a_look() -> None:
    story = Story(settings_with(LIVE))
    story.verdict(story.at(0).step("risk_max", 0.33), "NEUTRAL")
    for at in (1, 2, 3, 4):
        story.at(at).looked(verdict="NEUTRAL")
    stage = Scene(story, levels=[(-9000, GOOD)], start=-9000)
    plan = stage.plan(6 * 180)
    assert acts(plan) == [("verdict", "confirm")]
    assert the(plan, "confirm").data["basis"] == "equal"


def test_one_reversal_look_an_excursion_then_home() -> None:
    stage = _spent(probation())
    stage.story.at(1081).say("cycle", "look", {"creative_min": 0.22}, cause="look")  # of another rule
    exc = stage.story.life.excursion
    assert exc is not None
    assert exc.reversal_used


def test_others_who_write_without_pause_do_not_keep_it_alive_beyond_its_hour() -> None:
    stage = probation()
    story = stage.story
    for i in range(10, 125):
        story.at(i * 30.0).foreign("creative_min", 0.22 + 0.01 * (i % 2))
    now = 3600.0 + 5
    story.events[:] = [e for e in story.events if e.ts_ms <= ms(now)]
    assert story.life.open, "somebody's change is always open"
    back = the(stage.plan(now), "return")
    assert back.data["cause"] == "budget"
    assert moved(back) == {"risk_max": (0.33, 0.35)}, "only rules whose last event is ours"


def test_an_anchor_that_is_not_safe_is_not_gone_to() -> None:
    stage = _spent(probation({"risk_band": 0.30}, **HARD))
    stage.levels = [(-9000, {**OFF, "risk_band": 0.47}), (2, {"risk_band": 0.30})]
    plan = stage.plan(3601)
    assert acts(plan) == [("verdict", "confirm")]
    assert the(plan, "confirm").data["basis"] == "anchor_unsafe"


def test_blind_on_probation_goes_home_uncounted() -> None:
    stage = probation()
    stage.gaps = [(200, 9999)]
    assert acts(stage.plan(465))[0] != ("cycle", "return")
    back = the(stage.plan(475), "return")
    assert (back.data["cause"], back.data["scope"]) == ("blind", "excursion")
    assert "harm" not in back.data


def test_harm_on_probation_takes_the_excursion_home() -> None:
    stage = _spent(probation())
    stage.levels.append((102, {"risk_band": 0.38}))  # slower than the first verdict
    causes = set()
    for now in range(110, 260, 10):
        causes |= {a.data.get("cause") for a in stage.plan(now).acts if a.act == "return"}
    assert causes == {"probation_harm"}


def test_what_a_step_that_was_taken_back_did_is_not_held_against_the_rest() -> None:
    stage = probation()
    story = stage.story
    bad = story.at(400).step("creative_min", 0.24)
    story.at(450).verdict(bad, "WORSENED")
    story.back("early_harm", {"creative_min": 0.22}, [bad], scope="step")
    stage.levels += [(402, {"risk_band": 0.45}), (452, {"risk_band": 0.33})]
    for now in range(455, 620, 5):
        assert "return" not in [a for _, a in acts(stage.plan(now))], now


# ----------------------------------------------------------------------------- the reversal look
def looking(levels: Levels, **changes: Any) -> Scene:
    """A look begun at 600 after a step at 0; `levels` say what home is like."""
    story = Story(settings_with({**LIVE, **changes}))
    story.verdict(story.at(0).step("risk_max", 0.33), "NEUTRAL")
    story.at(600).look({"risk_max": 0.35})
    return Scene(story, levels=levels)


def test_what_was_left_is_restored_when_home_is_worse() -> None:
    stage = looking([(0, BETTER), (602, {"risk_band": 0.33})])
    assert acts(stage.plan(689)) == [("cycle", "hold")]
    plan = stage.plan(691)
    assert acts(plan) == [("verdict", "look"), ("cycle", "restore")]
    assert the(plan, "look").data["result"] == "restore"
    restore = the(plan, "restore")
    assert moved(restore) == {"risk_max": (0.35, 0.33)}
    assert restore.moves[0].kind == "restore"
    assert restore.write


@pytest.mark.parametrize("home", [{"risk_band": 0.33}, {"risk_band": 0.30}])
def test_what_was_left_stays_left_when_home_is_as_good(home: dict[str, float]) -> None:
    stage = looking([(0, {"risk_band": 0.33}), (602, home)])
    plan = stage.plan(691)
    assert acts(plan) == [("verdict", "look")]
    assert the(plan, "look").data["result"] == "stay"
    assert the(plan, "look").data["cause"] is None, "it was judged"


def test_early_harm_at_home_ends_the_look_early() -> None:
    stage = looking([(0, BETTER), (602, {"risk_band": 0.40})])
    plan = stage.plan(650)
    assert acts(plan) == [("verdict", "look"), ("cycle", "restore")]
    assert the(plan, "look").data["result"] == "restore"


@pytest.mark.parametrize("what", ["foreign", "regime", "clock", "blind"])
def test_a_look_that_was_disturbed_stays_home(what: str) -> None:
    stage = looking([(0, BETTER), (602, {"risk_band": 0.33})])
    more: dict[str, Any] = {}
    now, cause = 650.0, "disturbed"
    stage.story.at(640)
    if what == "foreign":
        stage.story.foreign("creative_min", 0.24)
    elif what == "regime":
        stage.story.say("verdict", "regime", from_ms=ms(630))
    elif what == "clock":
        more, cause = {"epoch_at_ms": ms(645)}, "clock_back"
    else:
        stage.gaps, now, cause = [(610, 9999)], 881.0, "blind"
    look = the(stage.plan(now, **more), "look")
    assert (look.data["result"], look.data["cause"]) == ("stay", cause)


def test_while_data_are_stale_a_look_waits() -> None:
    stage = looking([(0, BETTER), (602, {"risk_band": 0.33})])
    stage.gaps = [(610, 9999)]
    assert acts(stage.plan(700)) == [("cycle", "hold")]


def test_a_look_that_ends_after_the_loan_restores_nothing() -> None:
    story = Story(settings_with({"strategy.dry_run": False}))
    story.at(-10).arm(hours=24)
    story.verdict(story.at(0).step("risk_max", 0.33), "NEUTRAL")
    story.at(600).look({"risk_max": 0.35})
    story.at(650).govern("stop")
    stage = Scene(story, levels=[(0, BETTER), (602, {"risk_band": 0.33})])
    plan = stage.plan(691)
    assert "restore" not in [a for _, a in acts(plan)]


def test_a_look_whose_end_was_written_without_its_restore_is_over() -> None:
    stage = looking([(0, BETTER), (602, {"risk_band": 0.33})])
    told = stage.story.at(691)
    look = told.life.look
    assert look is not None
    told.say("verdict", "look", change=look.change, result="restore", left=dict(look.left))
    assert told.life.look is None
    assert told.life.excursion is None
    assert told.life.values["risk_max"] == 0.35 == told.life.anchor["risk_max"]


# ----------------------------------------------------------------------------- verified rollback
def rolled_back(levels: Levels, harm: float = 0.03) -> Scene:
    """A step at 0 that harmed risk_band by `harm`, taken back at 100."""
    story = Story(settings_with(LIVE))
    change = story.at(0).step("risk_max", 0.33)
    story.at(100).verdict(change, "WORSENED")
    data = {"rule": "risk_max", "sign": -1, "anchor": 0.35, "deltas": {"risk_band": harm}}
    story.back("worsened", {"risk_max": 0.35}, [change], harm=data)
    return Scene(story, levels=[(2, {"risk_band": 0.36}), *levels])


def test_a_rollback_that_undid_the_harm_is_verified() -> None:
    stage = rolled_back([(102, {"risk_band": 0.33})])
    assert "verified" not in [a for _, a in acts(stage.plan(189))]
    act = the(stage.plan(191), "verified")
    assert act.data["result"] == "verified"
    assert not act.warnings


def test_harm_that_stays_after_the_rollback_was_not_ours() -> None:
    act = the(rolled_back([]).plan(191), "verified")
    assert act.data["result"] == "not_ours"
    assert [w["severity"] for w in act.warnings] == ["warn"]


def test_half_undone_is_undecided_and_said_once() -> None:
    stage = rolled_back([(102, {"risk_band": 0.345})])
    stage.noise = dict.fromkeys(OFF, 0.05)
    plan = stage.plan(191)
    assert the(plan, "verified").data["result"] == "undecided"
    back = next(c for c in stage.story.life.changes if c.kind == "return")
    stage.story.at(191).say("verdict", "verified", change=back.id, result="undecided")
    assert "verified" not in [a for _, a in acts(stage.plan(192))]


@pytest.mark.parametrize("cause", ["budget", "blind", "loan_end"])
def test_only_rollbacks_for_harm_are_verified(cause: str) -> None:
    story = Story(settings_with(LIVE))
    story.verdict(story.at(0).step("risk_max", 0.33), "NEUTRAL")
    story.at(100).back(cause, {"risk_max": 0.35})
    assert "verified" not in [a for _, a in acts(Scene(story).plan(191))]


# ----------------------------------------------------------------------------- regimes
def test_a_jump_at_unchanged_values_begins_a_regime() -> None:
    stage = Scene(Story(settings_with(LIVE)), start=-4000,
                  levels=[(-4000, GOOD), (0, {"risk_band": 0.35, "phase_diff": 0.06})])  # fmt: skip
    assert "regime" not in [a for _, a in acts(stage.plan(95))], "one window is no regime"
    act = the(stage.plan(285), "regime")
    assert act.data["from_ms"] == pytest.approx(ms(0), abs=90_000)
    stage.story.at(285).say("verdict", "regime", from_ms=act.data["from_ms"])
    assert "regime" not in [a for _, a in acts(stage.plan(290))], "it begins once"


def test_noise_is_no_regime() -> None:
    for seed in range(6):
        stage = Scene(Story(settings_with(LIVE)), start=-4000, levels=[(-4000, GOOD)], seed=seed)
        stage.noise = dict.fromkeys(OFF, 0.02)
        assert "regime" not in [a for _, a in acts(stage.plan(0))]


def test_our_own_step_is_no_regime() -> None:
    stage = probation({"risk_band": 0.25, "phase_diff": 0.03}, start=-4000)
    stage.story.at(120).looked(verdict="NEUTRAL")
    stage.story.at(180).looked(verdict="NEUTRAL")
    for now in (200, 290, 350):
        assert "regime" not in [a for _, a in acts(stage.plan(now))]


def test_a_new_regime_voids_the_contrast_and_brings_one_reversal_look() -> None:
    stage = probation(BETTER)
    stage.story.at(500).say("verdict", "regime", from_ms=ms(450))
    exc = stage.story.life.excursion
    assert exc is not None
    assert not exc.contrast_ok
    assert codes(the(stage.plan(505), "look").reasons) == ["excursion.regime"]


def test_windows_of_another_regime_do_not_speak_for_this_one() -> None:
    stage = Scene(Story(settings_with({**LIVE, **HARD})), start=-4000, levels=[(-4000, {"risk_band": 0.48})])
    assert (stage.picture(0).seen.p_hard({"creative_min": 0.22, "risk_max": 0.35}) or 0) > 0.9
    stage.story.at(0).say("verdict", "regime", from_ms=ms(-50))
    assert stage.picture(10).seen.p_hard({"creative_min": 0.22, "risk_max": 0.35}) is None
