"""The battery: what every policy must stand, whatever it is. A new policy joins by being in `POLICIES`.

Whole walks on small systems of 1 to 8 rules and 1 to 12 metrics, and single decisions on states that
hypothesis makes up. The systems are made as those of benchmarks/tuning_plants.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.tuning import Ours
from benchmarks.tuning_plants import PLANTS, TuningPlant, Windows, made, plain_rules
from selftune.catalogue import LANGUAGES, load
from selftune.domain import GuardCheck, Hold, PolicyName, Proposal, Reason, WindowStat
from selftune.gaps import QuietWindow
from selftune.lifecycle import Bar
from selftune.policy import POLICIES, VERSIONS, propose
from selftune.policy_state import PolicyState
from selftune.settings import Settings
from selftune.wording import render

NAMES = [p for p in POLICIES if p is not PolicyName.NONE]  # `none` proposes nothing: one test of its own
EVERY = pytest.mark.parametrize("policy", NAMES)
Idea = tuple[Proposal, ...] | Hold


# ----------------------------------------------------------------------------- systems
def bowl(
    d: int, k: int, *, start: float = 0.2, best: float = 0.6, direction: int = 1, unit: float = 1.0,
    noise: float = 0.004, rules_unit: float = 1.0, scale: bool = True, **more: Any,
) -> TuningPlant:  # fmt: skip
    """`k` metrics that fall towards `best` in every rule and rise again behind it; 0.2 is good enough."""
    rules = {n: (lo * rules_unit, hi * rules_unit, lr * rules_unit)
             for n, (lo, hi, lr) in plain_rules(d).items()}  # fmt: skip
    names = [f"m{i + 1}" for i in range(k)]
    share = np.array([[1.0 + 0.5 * ((i + j) % 2) for j in range(d)] for i in range(k)]) / d

    def at(u: NDArray[np.float64], cycle: int) -> Mapping[str, Any]:
        worse = (u - best) ** 2 @ share.T
        return {n: unit * (0.18 + 0.4 * worse[..., i]) for i, n in enumerate(names)}

    targets: dict[str, dict[str, float]] = {n: {"max": 0.2 * unit} for n in names}
    if scale:
        targets = {n: {**t, "scale": 0.3 * unit} for n, t in targets.items()}
    return made(rules, [start] * d, [direction] * d, targets, at, dict.fromkeys(names, noise * unit), **more)


@dataclass(frozen=True)
class Step:
    """One cycle of a walk: the values before, what was proposed, the true score before."""

    values: Mapping[str, float]
    idea: Idea
    score: float


def walk(plant: TuningPlant, policy: PolicyName, cycles: int = 25, seed: int = 1) -> list[Step]:
    """A policy let loose on a system, as the benchmark does it; what it said each time is kept."""
    player = Ours(plant, policy)
    windows, steps = Windows(plant, np.random.default_rng(seed)), []
    values = {n: r.init for n, r in plant.settings.rules.items()}
    for cycle in range(cycles):
        score = float(plant.score(plant.table(plant.point(values), cycle))[0])
        move = player.next(values, windows.next(values))
        assert player.said is not None
        steps.append(Step(dict(values), player.said, score))
        if move is not None:
            values = {**values, move[0]: move[1]}
    return steps


def sound(idea: Idea, values: Mapping[str, float], settings: Settings) -> None:
    """A hold with reasons, or small steps inside the bounds that change something, each with its reasons."""
    reasons = idea.reasons if isinstance(idea, Hold) else [r for p in idea for r in p.reasons]
    assert reasons
    for reason, lang in ((r, lang) for r in reasons for lang in LANGUAGES):
        text = render(reason.code, reason.params, lang, load(), zone=None)
        assert reason.code not in text and "{" not in text and "nan" not in text.lower(), text
    if isinstance(idea, Hold):
        return
    assert 0 < len(idea) <= settings.max_concurrent_changes
    assert len({p.rule for p in idea}) == len(idea)
    for p in idea:
        rule = settings.rules[p.rule]
        assert p.old == values[p.rule] != p.new
        assert abs(p.step) <= rule.lr * (1 + 1e-9)
        assert rule.min <= p.new <= rule.max
        assert p.reasons
        assert p.confidence is None or 0.0 <= p.confidence <= 1.0
        assert all(lo <= mean <= hi for mean, lo, hi in p.expected.values())


# ----------------------------------------------------------------------------- whole walks
@EVERY
@pytest.mark.parametrize(("d", "k"), [(1, 1), (2, 3), (2, 12), (4, 4), (8, 2)])
def test_every_step_of_a_walk_is_sound_and_the_same_again(policy: PolicyName, d: int, k: int) -> None:
    plant = bowl(d, k)
    first, again = walk(plant, policy), walk(plant, policy)
    for step in first:
        sound(step.idea, step.values, plant.settings)
    assert [s.idea for s in first] == [s.idea for s in again]
    assert any(not isinstance(s.idea, Hold) for s in first), "off target, it does something"


@EVERY
def test_it_ends_better_than_it_began(policy: PolicyName) -> None:
    for d, k in ((1, 1), (2, 3), (4, 2)):
        steps = walk(bowl(d, k, best=0.9), policy, 40)
        assert steps[-1].score > steps[0].score + 0.1


@EVERY
def test_it_keeps_still_where_all_targets_are_met(policy: PolicyName) -> None:
    steps = walk(bowl(2, 3, start=0.6), policy, 30)
    assert all(isinstance(s.idea, Hold) for s in steps)
    assert {r.code for s in steps for r in s.idea.reasons} <= {"hold.targets_met"}  # type: ignore[union-attr]


@EVERY
@pytest.mark.parametrize("d", [1, 2, 4])
def test_a_wrong_direction_does_not_lead_it_astray(policy: PolicyName, d: int) -> None:
    """Alone it must find out; what cannot is stopped by the bars that the judge sets after a harm."""
    plant = bowl(d, 2, direction=-1)
    steps = guarded_walk(plant, policy, 40)
    assert steps[-1].score >= steps[0].score - 0.02
    if policy is PolicyName.ADAPTIVE:
        assert walk(plant, policy, 40)[-1].score > steps[0].score + 0.15


def test_boxed_in_next_to_a_hard_limit_it_makes_room_for_the_rule_that_it_does_not_know() -> None:
    """A first step brings the limit near; what the other rule does is unknown, and waiting does not tell."""
    plant, rooms = PLANTS["saturation"](np.random.default_rng([4, 1])), 0
    for seed in (1, 2, 3):
        steps = walk(plant, PolicyName.ADAPTIVE, 20, seed)
        said = [r.code for s in steps for r in _reasons(s.idea)]
        rooms += said.count("why.room")
        assert "hold.hard_near" not in said
        assert steps[-1].score > steps[0].score + 0.15
        for s in steps:
            sound(s.idea, s.values, plant.settings)
    assert rooms > 0


def _reasons(idea: Idea) -> list[Reason]:
    return list(idea.reasons) if isinstance(idea, Hold) else [r for p in idea for r in p.reasons]


def guarded_walk(plant: TuningPlant, policy: PolicyName, cycles: int) -> list[Step]:
    """The same under a judge that knows the truth: a step that does harm goes back, its way is barred."""
    settings = replace(plant.settings, policy=policy)
    windows, steps = Windows(plant, np.random.default_rng(1)), []
    values = {n: r.init for n, r in settings.rules.items()}
    bars: list[Bar] = []
    quiet: list[QuietWindow] = []
    for cycle in range(cycles):
        seen = windows.next(values)
        score = float(plant.score(plant.table(plant.point(values), cycle))[0])
        idea = propose(state_of(settings, values, seen, bars=tuple(bars), quiet=tuple(quiet)))
        quiet.append(quiet_window(values, seen))
        steps.append(Step(dict(values), idea, score))
        for p in idea if not isinstance(idea, Hold) else ():
            after = {**values, p.rule: p.new}
            if float(plant.score(plant.table(plant.point(after), cycle))[0]) < score - 1e-9:
                bars.append(
                    Bar(rule=p.rule, sign=1 if p.step > 0 else -1, beyond=p.old, until_at_ms=1e15, times=1)
                )
            else:
                values = after
    return steps


@EVERY
def test_more_data_do_no_harm(policy: PolicyName) -> None:
    """A third of the noise is nine times the samples."""

    def end(noise: float) -> float:
        return float(
            np.mean(
                [
                    s.score
                    for seed in (1, 2, 3)
                    for s in walk(bowl(2, 2, best=1.0, noise=noise), policy, 40, seed)
                ]
            )
        )

    assert end(0.01) >= end(0.03) - 0.01


UNITS = {"milliseconds": (1000.0, 1.0), "percent": (100.0, 10.0), "requests a second": (4000.0, 250.0)}


@EVERY
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("scale", [True, False])
def test_units_do_not_matter(policy: PolicyName, units: str, scale: bool) -> None:
    """The same system in other units is tuned by the same steps, without a setting for it."""
    unit, rules_unit = UNITS[units]
    plain = walk(bowl(2, 2, scale=scale), policy)
    other = walk(bowl(2, 2, scale=scale, unit=unit, rules_unit=rules_unit), policy)
    for a, b in zip(plain, other, strict=True):
        assert list(b.values.values()) == pytest.approx([rules_unit * v for v in a.values.values()], rel=1e-4)


@EVERY
def test_missing_data_are_no_reason_to_move(policy: PolicyName) -> None:
    plant = bowl(2, 3)
    seen = Windows(plant, np.random.default_rng(1)).next({n: r.init for n, r in plant.settings.rules.items()})
    for lost in ([], ["m1"], ["m3"], ["m1", "m2", "m3"]):
        gone: dict[str, WindowStat] = {**seen, **{m: replace(seen[m], mean=None, se=None, n=0) for m in lost}}
        idea = propose(state_of(replace(plant.settings, policy=policy), None, gone))
        assert isinstance(idea, Hold) is bool(lost)
        if isinstance(idea, Hold):
            assert {r.code for r in idea.reasons} == {"hold.no_data"}
            assert {r.params["metric"] for r in idea.reasons} == set(lost)


def test_observing_proposes_nothing() -> None:
    steps = walk(bowl(2, 2), PolicyName.NONE, 5)
    assert [r.code for s in steps for r in s.idea.reasons] == ["hold.policy_none"] * 5  # type: ignore[union-attr]


def test_every_policy_has_a_version() -> None:
    assert set(VERSIONS) == set(POLICIES) == set(PolicyName)


# ----------------------------------------------------------------------------- single decisions
def state_of(
    settings: Settings, values: Mapping[str, float] | None, seen: Mapping[str, WindowStat], **more: Any
) -> PolicyState:
    at = dict(values) if values is not None else {n: r.init for n, r in settings.rules.items()}
    return PolicyState(settings=settings, values=at, anchor=at, windows=seen, evidence=None, **more)


def quiet_window(values: Mapping[str, float], seen: Mapping[str, WindowStat]) -> QuietWindow:
    first = next(iter(seen.values()))
    return QuietWindow(
        start_ms=first.start_ms, end_ms=first.end_ms, values=dict(values), regime=0, stats=dict(seen)
    )


@cache
def settings_of(d: int, k: int, together: int, hard: bool) -> Settings:
    plant = bowl(d, k, hard={"m1": {"max": 0.5}} if hard else None)
    return replace(plant.settings, max_concurrent_changes=together)


SHARES = st.floats(-0.2, 1.2)  # of a rule's range: others may leave a value outside its bounds
MEANS = st.none() | st.floats(0.0, 1.0)


@st.composite
def states(draw: st.DrawFn, name: PolicyName) -> PolicyState:
    """Any state a loop could be in: gaps in the data, a past of few windows, blocks, bars, a loan's room."""
    d, k = draw(st.sampled_from([1, 2, 3, 8])), draw(st.sampled_from([1, 2, 12]))
    s = replace(settings_of(d, k, draw(st.integers(1, 3)), draw(st.booleans())), policy=name)
    rules = list(s.rules.values())

    def values() -> dict[str, float]:
        return {r.name: round(r.min + draw(SHARES) * (r.max - r.min), 6) for r in rules}

    def window(i: int) -> dict[str, WindowStat]:
        at = i * 180_000
        return {
            m: WindowStat(mean=draw(MEANS), se=draw(st.none() | st.floats(0, 0.05)), n=450, start_ms=at,
                          end_ms=at + 90_000)
            for m in s.metrics
        }  # fmt: skip

    past = tuple(quiet_window(values(), window(i)) for i in range(draw(st.integers(0, 4))))
    chosen = st.sampled_from([r.name for r in rules])
    blocked = {
        name: GuardCheck(code="guard.cooldown", passed=False, observed=5.0, limit=120, unit="s", rule=name)
        for name in draw(st.sets(chosen, max_size=2))
    }
    bars = tuple(
        Bar(
            rule=name,
            sign=draw(st.sampled_from([-1, 1])),
            beyond=s.rules[name].init,
            until_at_ms=1e15,
            times=1,
        )
        for name in draw(st.sets(chosen, max_size=2))
    )
    room = {
        name: (s.rules[name].init - s.rules[name].lr, s.rules[name].init + s.rules[name].lr)
        for name in draw(st.sets(chosen, max_size=2))
    }
    return state_of(s, values(), window(5), quiet=past, blocked=blocked, bars=bars, room=room)


@EVERY
@hypothesis_settings(max_examples=60)
@given(data=st.data())
def test_whatever_it_sees_it_stays_within_what_is_allowed(policy: PolicyName, data: st.DataObject) -> None:
    state = data.draw(states(policy))
    idea = propose(state)
    assert propose(state) == idea
    outside = [
        n for n, r in state.settings.rules.items() if not r.min <= state.values[n] <= r.max
    ]  # what others left outside is the loop's to bring back; a policy only must not make it worse
    if isinstance(idea, Hold):
        sound(idea, state.values, state.settings)
        return
    inside = tuple(p for p in idea if p.rule not in outside)
    if inside:
        sound(inside, state.values, state.settings)
    for p in idea:
        assert p.rule not in state.blocked
        rule, sign = state.settings.rules[p.rule], 1 if p.step > 0 else -1
        assert abs(p.step) <= rule.lr * (1 + 1e-9)
        for bar in state.bars:
            past_bar = bar.rule == p.rule and bar.sign == sign and (p.new - bar.beyond) * sign > 0
            assert not past_bar
        lo, hi = state.room.get(p.rule, (rule.min, rule.max))
        nearer = abs(p.new - np.clip(p.new, lo, hi)) <= abs(p.old - np.clip(p.old, lo, hi)) + 1e-9
        assert nearer, "the loan's room is not left"


@EVERY
def test_a_rule_without_room_is_no_lever(policy: PolicyName) -> None:
    s = replace(settings_of(1, 1, 1, False), policy=policy)
    seen = {"m1": WindowStat(mean=0.4, se=0.001, n=450, start_ms=0, end_ms=90_000)}
    at = s.rules["rule_1"].init
    idea = propose(state_of(s, None, seen, room={"rule_1": (at, at)}))
    assert isinstance(idea, Hold)
    sound(idea, {"rule_1": at}, s)
