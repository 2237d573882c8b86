"""The adaptive policy's own ways: which step it takes, when it stays, what it says and expects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from selftune.adaptive import (
    ACT_GAIN,
    BLOCK,
    FRESH,
    KEPT,
    P_EMERGENCY,
    P_HARD,
    SIZES,
    Choice,
    adaptive,
    condensed,
    observed,
    spread,
)
from selftune.config import parse
from selftune.domain import GuardCheck, Hold, PolicyName, Proposal, Verdict, WindowStat
from selftune.gaps import QuietWindow
from selftune.lifecycle import Bar
from selftune.policy_state import Lesson, PolicyState
from selftune.settings import Settings

TEXT = """
targets: {m: {max: 0.2, scale: 0.2}}
rules:
  a: {init: 0.5, min: 0, max: 1, lr: 0.1}
  b: {init: 0.5, min: 0, max: 1, lr: 0.1}
strategy: {objective_weights: {m: 1}, direction: {a: 1, b: 1}}
"""
CYCLE_MS = 120_000


def settings(**changes: Any) -> Settings:
    return replace(parse(TEXT), policy=PolicyName.ADAPTIVE, **changes)


def stat(mean: float | None, cycle: int, se: float | None = 0.001) -> WindowStat:
    at = cycle * CYCLE_MS
    return WindowStat(mean=mean, se=se, n=450, start_ms=at, end_ms=at + 90_000)


def past(*points: tuple[float, float, float], stay: int = 2) -> tuple[QuietWindow, ...]:
    """Quiet windows: (a, b, mean of m) in turn, `stay` of each."""
    found = []
    for i, (a, b, mean) in enumerate(p for p in points for _ in range(stay)):
        s = stat(mean, i)
        found.append(
            QuietWindow(
                start_ms=s.start_ms, end_ms=s.end_ms, values={"a": a, "b": b}, regime=0, stats={"m": s}
            )
        )
    return tuple(found)


def state(
    quiet: tuple[QuietWindow, ...] = (), mean: float | None = 0.3, at: Mapping[str, float] | None = None,
    s: Settings | None = None, **more: Any,
) -> PolicyState:  # fmt: skip
    values = dict(at or (quiet[-1].values if quiet else {"a": 0.5, "b": 0.5}))
    return PolicyState(
        settings=s or settings(), values=values, anchor=values, windows={"m": stat(mean, len(quiet) + 1)},
        evidence=None, quiet=quiet, **more,
    )  # fmt: skip


def step(idea: tuple[Proposal, ...] | Hold) -> tuple[str, float]:
    assert not isinstance(idea, Hold), idea
    return idea[0].rule, round(idea[0].step, 6)


def codes(idea: tuple[Proposal, ...] | Hold) -> list[str]:
    return [r.code for r in (idea.reasons if isinstance(idea, Hold) else idea[0].reasons)]


# ----------------------------------------------------------------------------- which step
def test_the_first_step_goes_the_stated_way() -> None:
    assert step(adaptive(state()))[1] == 0.1
    down = settings(rules={n: replace(r, direction=-1) for n, r in settings().rules.items()})
    assert step(adaptive(state(s=down)))[1] == -0.1


def test_the_weightier_rule_is_tried_first() -> None:
    for first in ("a", "b"):
        s = settings(rules={n: replace(r, weight=3.0 if n == first else 1.0)
                            for n, r in settings().rules.items()})  # fmt: skip
        assert step(adaptive(state(s=s)))[0] == first


def test_what_helped_is_gone_on_with_and_what_harmed_is_turned_round() -> None:
    helped = past((0.5, 0.5, 0.36), (0.6, 0.5, 0.33))
    assert step(adaptive(state(helped, 0.33))) == ("a", 0.1)
    harmed = past((0.5, 0.5, 0.30), (0.6, 0.5, 0.36))
    assert step(adaptive(state(harmed, 0.36))) == ("a", -0.1)


def test_it_stays_where_nothing_is_worth_a_change() -> None:
    """Almost there: what could still be won stands beside what a change is worth."""
    idea = adaptive(state(past((0.5, 0.5, 0.2008)), 0.2008))
    assert isinstance(idea, Hold)
    assert codes(idea) == ["hold.gain_small"]
    assert 0 <= idea.reasons[0].params["observed"] < idea.reasons[0].params["limit"] == 100 * ACT_GAIN


def test_a_score_that_has_fallen_makes_it_look_again() -> None:
    """Long at rest and slowly worse: more is worth trying than where it stayed as good as it was."""
    rest = past(*[(0.5, 0.5, 0.22)] * 30)
    fell = past(*[(0.5, 0.5, 0.22 + 0.002 * max(0, i - 5)) for i in range(30)])
    calm, woken = (
        Choice(state(rest, 0.22), observed(state(rest, 0.22))),
        Choice(state(fell, 0.268), observed(state(fell, 0.268))),
    )
    assert calm.fallen == 0.0
    assert woken.fallen > 0.05
    assert woken.optimism > calm.optimism


def test_several_rules_move_together_only_if_allowed() -> None:
    assert len(adaptive(state())) == 1  # type: ignore[arg-type]
    both = adaptive(state(s=settings(max_concurrent_changes=2)))
    assert sorted(p.rule for p in both) == ["a", "b"]  # type: ignore[union-attr]


# ----------------------------------------------------------------------------- hard limits
def limited(limit: float) -> Settings:
    text = TEXT + f"safety: {{hard: {{m: {{max: {limit}}}}}}}\n"
    return replace(parse(text), policy=PolicyName.ADAPTIVE)


def test_near_a_hard_limit_the_first_step_of_a_rule_is_smaller() -> None:
    far, near = step(adaptive(state(s=limited(0.6)))), step(adaptive(state(s=limited(0.315))))
    assert SIZES[-1] * 0.1 <= abs(near[1]) < abs(far[1]) == 0.1


def test_at_a_hard_limit_nothing_is_tried() -> None:
    tried = past((0.5, 0.5, 0.30), (0.55, 0.5, 0.33), (0.5, 0.5, 0.30), (0.5, 0.55, 0.33), (0.5, 0.5, 0.30))
    idea = adaptive(state(tried, 0.30, s=limited(0.31)))
    for p in idea if not isinstance(idea, Hold) else ():
        assert p.step < 0, "only away from it"


def test_near_a_hard_limit_it_may_take_the_step_that_makes_it_less_near() -> None:
    """Where no single step leaves all of the risk behind, one that takes a third of it beats staying."""
    seen = past((0.5, 0.5, 0.295), (0.6, 0.5, 0.298), (0.7, 0.5, 0.30), stay=3)
    seen = tuple(replace(w, stats={"m": replace(w.stats["m"], se=0.004)}) for w in seen)
    near = state(seen, 0.30, s=limited(0.304))
    choice = Choice(near, observed(near))
    assert P_HARD < choice.p_hard(choice.here[None, :])[0] < P_EMERGENCY
    assert step(choice.decide()) == ("a", -0.1)


def test_past_a_hard_limit_it_moves_away_first_of_all() -> None:
    tried = past((0.5, 0.5, 0.20), (0.6, 0.5, 0.25), (0.7, 0.5, 0.30))
    idea = adaptive(state(tried, 0.30, s=limited(0.29)))
    assert step(idea) == ("a", -0.1)
    assert codes(idea)[0] == "why.hard_near"


def test_after_a_breach_it_keeps_off_where_chance_takes_a_short_mean_past_the_limit() -> None:
    """Window means known to .01 swing by .021 over 20 s: the guard would act with the mean well inside."""
    quiet = tuple(
        replace(w, stats={"m": replace(w.stats["m"], se=0.01)})
        for w in past((0.5, 0.5, 0.30), (0.6, 0.5, 0.33), (0.7, 0.5, 0.36), stay=6)
    )
    at = {"a": 0.5, "b": 0.5}
    calm, broke = (Choice(state(quiet, 0.30, at, limited(0.40), broke=b), quiet) for b in (False, True))
    assert not calm.swing.any()
    assert float(broke.swing[0] * broke.unit[0]) == pytest.approx(0.01 * (90 / 20) ** 0.5)
    there = calm.scaled({"a": 0.7, "b": 0.5})[None, :]
    assert calm.p_hard(there)[0] < P_HARD < broke.p_hard(there)[0]
    here = broke.here[None, :]
    assert broke.p_hard(here)[0] < P_HARD, "further inside nothing is in its way"


def test_errors_that_were_not_measured_make_no_margin() -> None:
    quiet = tuple(
        replace(w, stats={"m": replace(w.stats["m"], se=None)}) for w in past((0.5, 0.5, 0.30), stay=3)
    )
    assert not Choice(state(quiet, 0.30, s=limited(0.40), broke=True), quiet).swing.any()


# ----------------------------------------------------------------------------- what is not allowed
def blocked(rule: str, code: str = "guard.paused") -> dict[str, GuardCheck]:
    return {rule: GuardCheck(code=code, passed=False, observed=1.0, limit=2.0, unit="s", rule=rule)}


def test_a_blocked_rule_leaves_the_other() -> None:
    assert step(adaptive(state(blocked=blocked("a")))) == ("b", 0.1)
    assert step(adaptive(state(blocked=blocked("b")))) == ("a", 0.1)


def test_a_bar_closes_one_way_only() -> None:
    helped = past((0.5, 0.5, 0.30), (0.6, 0.5, 0.36))
    bar = Bar(rule="a", sign=-1, beyond=0.6, until_at_ms=1e15, times=1)
    idea = adaptive(state(helped, 0.36, bars=(bar,)))
    assert isinstance(idea, Hold) or step(idea) != ("a", -0.1)


def test_the_loans_room_is_the_end_of_the_way() -> None:
    room = {"a": (0.45, 0.55), "b": (0.5, 0.5)}
    assert step(adaptive(state(room=room))) == ("a", 0.05)


# ----------------------------------------------------------------------------- what it says
def test_it_names_what_it_believes_with_numbers() -> None:
    helped = past((0.5, 0.5, 0.36), (0.6, 0.5, 0.33))
    lesson = Lesson(rule="a", step=0.1, deltas={"m": -0.03}, verdict=Verdict.IMPROVED)
    idea = adaptive(state(helped, 0.33, lessons=(lesson,)))
    assert not isinstance(idea, Hold)
    believes = next(r for r in idea[0].reasons if r.code == "why.believes")
    assert (believes.params["rule"], believes.params["metric"], believes.params["n"]) == ("a", "m", 1)
    mean, lo, hi = idea[0].expected["m"]
    assert believes.params["observed"] == pytest.approx(mean)
    assert lo < mean < hi and mean < 0
    assert idea[0].confidence is not None and idea[0].confidence > 0.8


def test_an_untried_rule_is_said_to_be_one_and_little_is_promised() -> None:
    idea = adaptive(state())
    assert not isinstance(idea, Hold)
    assert codes(idea)[:2] == ["why.off_target", "why.expects"]
    mean, lo, hi = idea[0].expected["m"]
    assert lo < 0 < hi and lo < mean < hi
    assert idea[0].confidence is not None and idea[0].confidence < 0.8


# ----------------------------------------------------------------------------- what it learns from
def test_a_window_without_a_mean_teaches_nothing_and_one_without_an_error_does() -> None:
    seen = past((0.5, 0.5, 0.30), (0.6, 0.5, 0.32))
    gone = replace(seen[1], stats={"m": replace(seen[1].stats["m"], mean=None)})
    blunt = replace(seen[2], stats={"m": replace(seen[2].stats["m"], se=None)})
    kept = observed(state((seen[0], gone, blunt, seen[3]), 0.32))
    assert [w.start_ms for w in kept[:3]] == [seen[0].start_ms, seen[2].start_ms, seen[3].start_ms]
    assert not isinstance(adaptive(state((seen[0], blunt, seen[3]), 0.32)), Hold)


def test_without_a_present_mean_it_holds() -> None:
    assert codes(adaptive(state(past((0.5, 0.5, 0.3)), None))) == ["hold.no_data"]


def test_a_long_rest_counts_as_few_windows_and_loses_nothing() -> None:
    way = past((0.5, 0.5, 0.30), (0.6, 0.5, 0.32)) + past((0.7, 0.5, 0.31), stay=40)
    short = condensed(way)
    rest = [w for w in short if w.values["a"] == 0.7]
    assert len(short) == 4 + (40 - FRESH) // BLOCK + (40 - FRESH) % BLOCK + FRESH
    assert sum(w.stats["m"].n for w in rest) == 40 * 450
    block = next(w for w in rest if w.stats["m"].n == BLOCK * 450)
    assert block.stats["m"].mean == pytest.approx(0.31)
    assert block.stats["m"].se == pytest.approx(0.001 / BLOCK**0.5)
    assert block.end_ms - block.start_ms == (BLOCK - 1) * CYCLE_MS + 90_000  # a slow answer is in all of it


def test_points_are_spread_over_the_whole_cube() -> None:
    for d in (1, 3, 8):
        x = spread(192, d)
        assert x.shape == (192, d)
        assert x.min() >= 0 and x.max() <= 1
        assert abs(x.mean() - 0.5) < 0.03


def test_only_the_newest_windows_are_gone_through_and_none_is_lost_by_it() -> None:
    """From where a rest began: how long rests are made short is the same as of all windows."""
    rng = np.random.default_rng(4)
    for _ in range(20):
        stays = rng.integers(1, 40, 40)
        points = [(float(p), 0.5, 0.3) for p in rng.random(40)]
        everything = tuple(
            replace(w, start_ms=i, end_ms=i + 1)
            for i, w in enumerate(w for p, n in zip(points, stays, strict=True) for w in past(p, stay=int(n)))
        )
        st = state(everything)
        now = observed(st)[-1]
        assert observed(st) == tuple(condensed([*everything, now])[-KEPT:])
