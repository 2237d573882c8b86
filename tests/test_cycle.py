"""One snapshot in, one plan out: the rungs, what is news, and that deciding twice is deciding once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from selftune import hands
from selftune.acting import batch_of, deltas_json
from selftune.cycle import decide, last_deltas, standing
from selftune.domain import Mode, Reason, Refused
from selftune.picture import Picture
from selftune.plan import Plan
from tests.stage import GOOD, HARD, LIVE, OFF, Scene, Story, acts, codes, made, moved, ms, settings_with, the

SEOUL = ZoneInfo("Asia/Seoul")


def fresh(levels: dict[str, float] | None = None, **changes: Any) -> Scene:
    return Scene(Story(settings_with({**LIVE, **changes})), levels=[(-1800, levels or OFF)])


# ----------------------------------------------------------------------------- rungs x actions
RUNGS: dict[str, dict[str, Any]] = {
    "observe": {"strategy.policy": "none"},
    "suggest": {},
    "live": LIVE,
}
HARMED = {"risk_band": 0.345}


@pytest.mark.parametrize(
    ("rung", "proposes", "writes"),
    [("observe", False, False), ("suggest", True, False), ("live", True, True)],
)
def test_exploring_on_every_rung(rung: str, proposes: bool, writes: bool) -> None:
    plan = Scene(Story(settings_with(RUNGS[rung]))).plan(0)
    found = [a for a in plan.acts if a.act == "step"]
    assert bool(found) is proposes
    assert bool(found and found[0].write) is writes


@pytest.mark.parametrize(("rung", "writes"), [("observe", False), ("suggest", False), ("live", True)])
@pytest.mark.parametrize("what", ["worsened", "early_harm", "hard_limit", "blind", "emergency"])
def test_ways_back_on_every_rung(rung: str, writes: bool, what: str) -> None:
    """In dry run the loop writes no rule event, not even a rollback; live it always does."""
    story = Story(settings_with({**RUNGS[rung], **(HARD if what in ("hard_limit", "emergency") else {})}))
    stage = Scene(story)
    if what != "emergency":
        story.at(0).foreign("risk_max", 0.33) if rung != "live" else story.at(0).step("risk_max", 0.33)
    worse = {"worsened": 0.345, "early_harm": 0.40, "hard_limit": 0.50, "emergency": 0.50, "blind": 0.33}
    stage.levels = [(2, {"risk_band": worse[what]})]
    now = {"worsened": 91.0, "early_harm": 50.0, "hard_limit": 40.0, "emergency": 40.0, "blind": 301.0}[what]
    if what == "blind":
        stage.gaps = [(30, 9999)]
    plan = stage.plan(now)
    assert any(a.write and a.moves for a in plan.acts) is writes
    if not writes:
        assert all(not a.write for a in plan.acts)


@pytest.mark.parametrize("rung", ["suggest", "live"])
@pytest.mark.parametrize("allowed", [True, False])
def test_applying_by_hand_is_real_on_both_rungs_if_it_is_allowed(rung: str, allowed: bool) -> None:
    story = Story(settings_with({**RUNGS[rung], "governance.manual_apply": allowed}))
    story.at(-10).suggest("risk_max", 0.33)
    p = Scene(story).picture(0)
    if allowed:
        (act,) = hands.apply(p, "d1", actor="kim", reason="tried it")
        assert act.write
        assert moved(act) == {"risk_max": (0.35, 0.33)}
    else:
        with pytest.raises(Refused):
            hands.apply(p, "d1", actor="kim", reason="tried it")


def test_a_hand_applied_change_in_dry_run_is_watched_and_judged() -> None:
    story = Story(settings_with())
    story.at(-10).suggest("risk_max", 0.33)
    story.at(0).say("manual", "apply", {"risk_max": 0.33}, of="d1", mode=Mode.DRY_RUN)
    plan = Scene(story, levels=[(2, {"risk_band": 0.31})]).plan(91)
    assert the(plan, "evaluate").data["verdict"] == "IMPROVED"
    assert the(plan, "evaluate").data["origin"] == "person"


# ----------------------------------------------------------------------------- what is news
def test_a_hold_is_written_when_its_reasons_change_not_its_numbers() -> None:
    stage = fresh(GOOD)
    plan = stage.plan(0)
    assert acts(plan) == [("cycle", "hold")]
    assert codes(the(plan, "hold").reasons) == ["hold.targets_met"]
    stage.story.at(0).say("cycle", "hold", reasons=[{"code": "hold.targets_met"}], guards=[])
    for now in (5, 300, 86_400):
        assert acts(stage.plan(now)) == []
    stage.gaps = [(100, 9999)]
    assert codes(the(stage.plan(200), "hold").reasons)[0] == "guard.stale"


def test_a_hold_does_not_flutter() -> None:
    stage = fresh(GOOD)
    stage.story.at(0).say("cycle", "hold", reasons=[{"code": "guard.stale"}],
                          guards=[{"code": "guard.stale", "rule": None}])  # fmt: skip
    assert acts(stage.plan(29)) == []
    assert acts(stage.plan(31)) == [("cycle", "hold")]


def test_a_hold_carries_number_limit_and_until_when() -> None:
    stage = fresh()
    stage.story.at(-50).foreign("risk_max", 0.34)
    stage.story.verdict("e1", "IMPROVED", deltas={"d_risk": 0.01})
    stage.story.settings = settings_with(
        LIVE, strategy__policy="heuristic", strategy__direction__creative_min=0
    )
    hold = the(stage.plan(0), "hold")
    (check,) = [r for r in hold.reasons if r.code == "guard.cooldown"]
    assert check.params["observed"] == 50.0
    assert check.params["limit"] == 120
    assert check.params["until_ms"] == ms(70)


def test_at_most_one_act_a_cycle_while_nothing_is_open() -> None:
    stage = fresh()
    assert len(stage.plan(0).acts) == 1


LEARNS_OR_NOT = pytest.mark.parametrize("policy", ["adaptive", "heuristic"])


def advised(policy: str) -> tuple[Scene, str, float]:
    """A scene in dry run, and the rule and value that this policy would suggest in it."""
    stage = Scene(Story(settings_with(strategy__policy=policy)))
    ((rule, (_, new)),) = moved(the(stage.plan(0), "step")).items()
    return stage, rule, new


@LEARNS_OR_NOT
def test_a_suggestion_stands_and_is_renewed_by_one_record_a_ttl(policy: str) -> None:
    stage, rule, new = advised(policy)
    first = stage.story.at(0).suggest(rule, new)
    for now in (5, 300, 599):
        assert acts(stage.plan(now)) == [], "nothing new"
        assert standing(stage.picture(now)) is not None
    plan = stage.plan(600)
    assert the(plan, "step").data["stands"] == first
    stage.story.at(600).suggest(rule, new, stands=first)
    assert len(stage.story.life.suggestions) == 1
    assert acts(stage.plan(1000)) == []


@LEARNS_OR_NOT
def test_another_suggestion_is_news_at_once(policy: str) -> None:
    stage, rule, new = advised(policy)
    other = {"risk_max": ("creative_min", 0.24), "creative_min": ("risk_max", 0.33)}
    stage.story.at(0).suggest(*other[rule])
    assert moved(the(stage.plan(5), "step"))[rule][1] == new


@LEARNS_OR_NOT
def test_a_rejected_suggestion_does_not_come_back_before_its_time(policy: str) -> None:
    stage, rule, new = advised(policy)
    first = stage.story.at(0).suggest(rule, new)
    stage.story.at(10).say("manual", "reject", of=first)
    assert acts(stage.plan(20)) == []
    again = the(stage.plan(601), "step")
    assert "stands" not in again.data, "a new one, not the rejected one"


@LEARNS_OR_NOT
def test_a_snoozed_rule_is_left_alone_for_so_long(policy: str) -> None:
    stage, rule, new = advised(policy)
    first = stage.story.at(0).suggest(rule, new)
    stage.story.at(10).say("manual", "snooze", of=first, for_s=3600.0)
    assert rule not in moved(the(stage.plan(700), "step"))
    assert rule in moved(the(stage.plan(3611), "step"))


def test_where_every_rule_rests_the_hold_says_so() -> None:
    stage = Scene(Story(settings_with(strategy__policy="heuristic", strategy__direction__creative_min=0)))
    first = stage.story.at(0).suggest("risk_max", 0.33)
    stage.story.at(10).say("manual", "snooze", of=first, for_s=3600.0)
    assert codes(the(stage.plan(700), "hold").reasons) == ["guard.snoozed"]


def test_a_rule_whose_rollback_waits_for_a_person_is_left_alone() -> None:
    """Otherwise the loop would take the one click away, and undo a person's decision step by step."""
    changes = {"strategy__policy": "heuristic", "strategy__direction__creative_min": 0}
    stage = Scene(Story(settings_with(**changes, strategy__proposal_ttl_s=1800)))
    event = stage.story.at(-500).foreign("risk_max", 0.37)
    stage.story.at(-400).verdict(event, "WORSENED")
    asked = stage.story.at(-400).say("cycle", "propose_rollback", reverts=[event])
    assert codes(the(stage.plan(0), "hold").reasons) == ["guard.back_waits"]
    assert "risk_max" in moved(the(stage.plan(1401), "step")), "it does not wait for ever"
    stage.story.at(10).say("manual", "reject", of=asked)
    assert "risk_max" in moved(the(stage.plan(20), "step"))


def test_the_same_evidence_is_spent_once() -> None:
    stage = fresh()
    story = stage.story
    story.at(-400).foreign("creative_min", 0.23)
    story.verdict("e1", "IMPROVED", deltas={"d_risk": 0.01})
    plan = stage.plan(0)
    assert the(plan, "step").data["evidence"] == "e1"
    story.at(0).step("risk_max", 0.33, evidence="e1")
    assert story.life.spent == {"e1"}


def test_a_mode_change_is_on_record_once() -> None:
    stage = fresh(GOOD)
    stage.story.at(-10).say("cycle", "hold", mode=Mode.DRY_RUN)
    plan = stage.plan(0)
    assert acts(plan) == [("mode", "changed")]
    assert the(plan, "changed").data["to"] == "live"
    stage.story.at(0).say("mode", "changed", mode=Mode.LIVE)
    assert acts(stage.plan(31)) == [("cycle", "hold")]


# ----------------------------------------------------------------------------- joint changes
def test_k_rules_in_one_commit_under_one_change() -> None:
    stage = fresh({**OFF, "phase_diff": 0.07}, **{"strategy.max_concurrent_changes": 2})
    step = the(stage.plan(0), "step")
    assert moved(step) == {"risk_max": (0.35, 0.33), "creative_min": (0.22, 0.24)}
    stage.story.at(0).joint(risk_max=0.33, creative_min=0.24)
    assert "guard.concurrency" in codes(the(stage.plan(5), "hold").reasons), "nothing more while it is open"
    plan = stage.plan(91)
    assert [a for a in acts(plan) if a[1] == "evaluate"] == [("verdict", "evaluate")], "one joint verdict"


# ----------------------------------------------------------------------------- the strict cycle
def test_strict_cycle_of_one_step() -> None:
    stage = fresh(**{"strategy.excursion.max_steps": 1})
    stage.story.verdict(stage.story.at(0).step("risk_max", 0.33), "NEUTRAL")
    stage.story.at(120).looked(verdict="NEUTRAL")
    hold = the(stage.plan(170), "hold")
    assert "guard.excursion_steps" in codes(hold.reasons)


# ----------------------------------------------------------------------------- when to look again
@pytest.mark.parametrize(
    ("tell", "due"),
    [
        (lambda s: None, 5.0),
        (lambda s: s.at(-5).step("risk_max", 0.33), 1.0),
        (lambda s: s.verdict(s.at(-500).step("risk_max", 0.33), "NEUTRAL"), 1.0),
        (
            lambda s: (s.verdict(s.at(-500).step("risk_max", 0.33), "NEUTRAL"), s.look({"risk_max": 0.35})),
            1.0,
        ),
    ],
)
def test_each_second_while_anything_is_open_else_within_five(tell: Any, due: float) -> None:
    stage = fresh(GOOD)
    tell(stage.story)
    stage.story.at(-1).say("cycle", "hold", reasons=[{"code": "hold.targets_met"}], guards=[])
    assert stage.plan(0).next_due_s == due


def test_a_fast_root_looks_again_sooner() -> None:
    fast = settings_with(LIVE, observe_window_s=1, settle_s=0.2, history_s=4, cooldown_s=2, min_samples=3)
    assert Scene(Story(fast), levels=[(-1800, GOOD)]).plan(0).next_due_s < 1.0


# ----------------------------------------------------------------------------- deciding twice
def _bytes(plan: Plan, p: Picture) -> bytes:
    batch = batch_of(plan, SEOUL, deltas=deltas_json(last_deltas(p), SEOUL))
    found = [[d.data, [e.__dict__ for e in d.events]] for d in batch.decisions]
    return json.dumps([found, batch.governance, batch.warnings], sort_keys=True).encode()


def _stages() -> list[tuple[Scene, float]]:
    step = fresh({"risk_band": 0.345})
    step.story.at(0).step("risk_max", 0.33)
    probation = fresh({"risk_band": 0.31})
    probation.story.verdict(probation.story.at(0).step("risk_max", 0.33), "NEUTRAL")
    look = fresh()
    look.story.verdict(look.story.at(0).step("risk_max", 0.33), "NEUTRAL")
    look.story.at(600).look({"risk_max": 0.35})
    hard = fresh({"risk_band": 0.5}, **HARD)
    return [(fresh(), 0), (step, 91), (probation, 140), (look, 691), (hard, 30), (fresh(GOOD), 0)]


@pytest.mark.parametrize("i", range(len(_stages())))
def test_the_same_snapshot_gives_the_same_bytes(i: int) -> None:
    stage, now = _stages()[i]
    one, two = stage.snapshot(now), stage.snapshot(now)
    plan = decide(one)
    assert plan.acts
    assert _bytes(plan, Picture(one)) == _bytes(decide(two), Picture(two))
    assert _bytes(plan, Picture(one)) == _bytes(decide(one), Picture(one))


def test_a_plan_depends_on_nothing_but_the_snapshot_it_was_made_from() -> None:
    """The memo of the last snapshot may speed things up; it must not change a byte."""
    stage, now = _stages()[2]
    first, second = stage.snapshot(now - 20), stage.snapshot(now)
    decide(first)
    warm = replace(second, memo=first.memo)
    assert _bytes(decide(warm), Picture(warm)) == _bytes(decide(second), Picture(second))


@pytest.mark.parametrize("i", range(len(_stages())))
def test_every_decision_has_a_reason_and_the_contracts_keys(i: int) -> None:
    stage, now = _stages()[i]
    snap = stage.snapshot(now)
    batch = batch_of(decide(snap), SEOUL, deltas=None)
    for draft in batch.decisions:
        assert draft.data["reasons"], draft.data
        assert all(r["code"] for r in draft.data["reasons"])
        assert {
            "kind", "act", "mode", "deltas", "proposals", "guards", "score", "attainment", "window",
            "verdicts", "config", "policy", "approvals_head", "after",
        } <= draft.data.keys()  # fmt: skip
        json.dumps(draft.data)


# ----------------------------------------------------------------------------- nothing there
def test_without_a_single_sample_it_holds_and_says_so() -> None:
    stage = fresh()
    empty = replace(stage.snapshot(0), series=made([], 0.0, start=0.0), ok_at_ms=None)
    plan = decide(empty)
    assert acts(plan) == [("cycle", "hold")]
    assert "guard.stale" in codes(the(plan, "hold").reasons)
    assert plan.score is None


def test_broken_settings_hold_everything_new() -> None:
    stage = fresh()
    problem = Reason("settings.invalid", {"line": 3})
    hold = the(stage.plan(0, settings_problem=problem), "hold")
    assert "guard.settings" in codes(hold.reasons)
