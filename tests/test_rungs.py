"""Rung x action, every cell: written, only proposed, refused (contract.md, rules of acting).

The table is the promise. In dry run the loop itself writes no rule event, not even a rollback; its one
exception is the return that ends a loan. What a person does by hand is real on every rung.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from selftune import hands, proposed
from selftune.domain import Mode, Refused, UnknownId
from selftune.plan import Act, Plan
from tests.stage import GOOD, HARD, LIVE, OFF, Scene, Story, settings_with

RUNGS: dict[str, dict[str, Any]] = {
    "observe": {"strategy.policy": "none"},
    "suggest": {},
    "no hands": {"governance.manual_apply": False},
    "live": LIVE,
}
WHO = {"actor": "kim", "reason": "because"}
WORSE, TERRIBLE, BREACH = {"risk_band": 0.36}, {"risk_band": 0.40}, {"risk_band": 0.50}


# ----------------------------------------------------------------------------- what the loop does
def story(rung: str, **more: Any) -> Story:
    return Story(settings_with({**RUNGS[rung], **more}))


def moved_by(s: Story, rung: str) -> str:
    """A change of risk_max that may be watched on this rung: ours where ours is possible."""
    if rung == "live":
        return s.at(0).step("risk_max", 0.33)
    return s.at(0).foreign("risk_max", 0.33)


def after(levels: dict[str, float], now: float) -> Callable[[str], Plan]:
    def plan(rung: str) -> Plan:
        s = story(rung, **HARD)
        moved_by(s, rung)
        return Scene(s, levels=[(2, levels)]).plan(now)

    return plan


def explore(rung: str) -> Plan:
    return Scene(story(rung)).plan(0)


def blind(rung: str) -> Plan:
    s = story(rung)
    moved_by(s, rung)
    return Scene(s, gaps=[(30, 9999)]).plan(301)


def nothing_open_beyond_the_limit(rung: str) -> Plan:
    return Scene(story(rung, **HARD), levels=[(2, BREACH)]).plan(40)


def out_of_bounds(rung: str) -> Plan:
    s = story(rung)
    s.verdict(s.at(0).foreign("risk_max", 0.5), "NEUTRAL")
    return Scene(s, levels=[(0, GOOD)]).plan(200)


def spent(rung: str) -> Plan:
    """Every step of the excursion is made: time for the reversal look. Out of live mode it goes home."""
    s = story(rung, **{"strategy.excursion.max_steps": 1})
    s.verdict(s.at(0).say("cycle", "step", {"risk_max": 0.33}, mode=Mode.LIVE), "NEUTRAL")
    for at in (185, 365, 725, 1445):
        s.at(at).looked(verdict="NEUTRAL")
    return Scene(s, levels=[(-9000, OFF)], start=-9000).plan(1450)


def look_that_restores(rung: str) -> Plan:
    s = story(rung)
    s.verdict(s.at(0).say("cycle", "step", {"risk_max": 0.33}, mode=Mode.LIVE), "NEUTRAL")
    s.at(600).look({"risk_max": 0.35})
    return Scene(s, levels=[(0, {"risk_band": 0.316}), (602, {"risk_band": 0.33})]).plan(691)


LOOP: dict[str, tuple[Callable[[str], Plan], tuple[str, ...]]] = {
    "explore": (explore, ("step",)),
    "worsened": (after(WORSE, 91), ("return", "propose_rollback")),
    "early harm": (after(TERRIBLE, 50), ("return", "propose_rollback")),
    "hard limit": (after(BREACH, 40), ("return", "emergency")),
    "blind": (blind, ("return", "propose_rollback")),
    "emergency": (nothing_open_beyond_the_limit, ("emergency",)),
    "bound": (out_of_bounds, ("bound",)),
    "reversal look": (spent, ("look", "return")),
    "restore": (look_that_restores, ("restore",)),
}
DRY = ("observe", "suggest", "no hands")


def on(observe: str, suggest: str, live: str) -> dict[str, str]:
    """A row of the table; where only `apply` is forbidden the loop does as on `suggest`."""
    return {"observe": observe, "suggest": suggest, "no hands": suggest, "live": live}


LOOP_CELLS: dict[str, dict[str, str]] = {
    "explore": on("nothing", "proposes", "writes step"),
    "worsened": on("proposes", "proposes", "writes return"),
    "early harm": on("nothing", "nothing", "writes return"),  # of others: their verdict is awaited
    "hard limit": on("proposes", "proposes", "writes return"),
    "blind": on(
        "nothing", "nothing", "writes return"
    ),  # of others: inconclusive, nothing of theirs is undone
    "emergency": on("proposes", "proposes", "writes emergency"),
    "bound": on("nothing", "nothing", "writes bound"),
    "reversal look": on(*["writes return"] * 2, "writes look"),  # what is left of a loan goes home
    "restore": on("nothing", "nothing", "writes restore"),
}


def outcome(plan: Plan, acts: tuple[str, ...]) -> str:
    found = [a for a in plan.acts if a.act in acts]
    written = [str(a.act) for a in found if a.write and a.moves]
    return f"writes {written[0]}" if written else "proposes" if found else "nothing"


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("what", LOOP)
def test_the_loop_on_each_rung(rung: str, what: str) -> None:
    make, acts = LOOP[what]
    plan = make(rung)
    assert outcome(plan, acts) == LOOP_CELLS[what][rung]
    others = [a for a in plan.acts if a.act not in acts and a.write and a.moves]
    assert not others, "and nothing else is written"
    if rung in DRY:
        causes = {a.data.get("cause") for a in plan.acts if a.write}
        assert causes <= {"loan_end"}, "in dry run only the end of a loan writes"


# ----------------------------------------------------------------------------- what a person does
Hand = Callable[[Scene], tuple[Act, ...]]


def suggested(rung: str) -> Scene:
    s = story(rung)
    s.at(-10).suggest("risk_max", 0.33)
    return Scene(s)


def changed(rung: str) -> Scene:
    s = story(rung)
    s.verdict(s.at(-400).foreign("risk_max", 0.33), "NEUTRAL")
    return Scene(s)


def stopped(rung: str) -> Scene:
    s = story(rung)
    s.at(-10).govern("stop")
    return Scene(s)


def paused(rung: str) -> Scene:
    s = story(rung)
    for i in range(3):
        s.at(-1000.0 * (3 - i)).harmed("risk_max", 0.33)
    return Scene(s)


def rollback_proposed(rung: str) -> Scene:
    s = story(rung)
    s.verdict(s.at(-400).foreign("risk_max", 0.33), "WORSENED")
    would = [{"rule": "risk_max", "old": 0.33, "new": 0.35}]
    s.at(-300).say("cycle", "propose_rollback", cause="worsened", would=would, undoes=["e1"], reverts=["e1"])
    return Scene(s)


def last(s: Scene) -> str:
    return s.story.decisions[-1].id


HANDS: dict[str, tuple[Callable[[str], Scene], Hand]] = {
    "apply": (suggested, lambda s: hands.apply(s.picture(0), last(s), **WHO)),
    "reject": (suggested, lambda s: hands.reject(s.picture(0), last(s), **WHO)),
    "snooze": (suggested, lambda s: hands.snooze(s.picture(0), last(s), for_s=60, **WHO)),
    "carry out": (rollback_proposed, lambda s: proposed.carry_out(s.picture(0), last(s), **WHO)),
    "turn down": (rollback_proposed, lambda s: hands.reject(s.picture(0), last(s), **WHO)),
    "rollback": (changed, lambda s: hands.rollback(s.picture(0), **WHO)),
    "rollback, nothing there": (suggested, lambda s: hands.rollback(s.picture(0), **WHO)),
    "stop": (changed, lambda s: hands.stop(s.picture(0), role="operator", **WHO)),
    "resume": (stopped, lambda s: hands.resume(s.picture(0), role="operator", **WHO)),
    "resume, nothing ended": (changed, lambda s: hands.resume(s.picture(0), role="operator", **WHO)),
    "release": (paused, lambda s: hands.release(s.picture(0), "risk_max", **WHO)),
    "release, not paused": (changed, lambda s: hands.release(s.picture(0), "risk_max", **WHO)),
}
EVERYWHERE = {  # whatever the rung; `apply` alone can be switched off
    "apply": "moves", "reject": "record", "snooze": "record", "carry out": "moves", "turn down": "record",
    "rollback": "moves", "rollback, nothing there": "unknown", "stop": "governance", "resume": "governance",
    "resume, nothing ended": "refused", "release": "record", "release, not paused": "refused",
}  # fmt: skip


def done(hand: Hand, scene: Scene) -> str:
    try:
        acts = hand(scene)
    except UnknownId:
        return "unknown"
    except Refused:
        return "refused"
    if any(a.write and a.moves for a in acts):
        return "moves"
    return "governance" if any(a.governance for a in acts) else "record"


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("what", HANDS)
def test_a_person_on_each_rung(rung: str, what: str) -> None:
    make, hand = HANDS[what]
    expected = "refused" if (what, rung) == ("apply", "no hands") else EVERYWHERE[what]
    assert done(hand, make(rung)) == expected
