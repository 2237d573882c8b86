"""The heuristic: the seed's idea on honest evidence. What it proposes, on what, and when it says no."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.domain import GuardCheck, Hold, Proposal, Verdict, WindowStat
from selftune.lifecycle import Bar
from selftune.policy import propose
from selftune.policy_state import Evidence, Lesson, PolicyState
from tests.stage import GOOD, settings_with

SIMPLE = {"strategy.policy": "heuristic"}
SETTINGS = settings_with(SIMPLE)
AT_TARGET = {"phase_diff": 0.04, "creative_band": 0.25, "risk_band": 0.28, "entropy_rate": 0.26}


def window(mean: float | None, se: float = 0.001, n: int = 450) -> WindowStat:
    return WindowStat(mean=mean, se=se, n=n, start_ms=0, end_ms=90_000)


def state(means: dict[str, float | None] | None = None, **more: Any) -> PolicyState:
    base = PolicyState(
        settings=SETTINGS, values={"creative_min": 0.22, "risk_max": 0.35},
        anchor={"creative_min": 0.22, "risk_max": 0.35},
        windows={m: window(x) for m, x in {**AT_TARGET, **(means or {})}.items()},
        evidence=None,
    )  # fmt: skip
    return replace(base, **more)


def evidence(verdict: Verdict | None = Verdict.IMPROVED, *, spent: bool = False, age_s: float = 0.0,
             **deltas: float | None) -> Evidence:  # fmt: skip
    return Evidence(
        key="e1", rule="risk_max", ts_ms=0, age_s=age_s, verdict=verdict, spent=spent,
        deltas={**dict.fromkeys(SETTINGS.metrics, 0.0), **deltas},
    )  # fmt: skip


def moves(idea: tuple[Proposal, ...] | Hold) -> list[tuple[str, float]]:
    assert not isinstance(idea, Hold), idea
    return [(p.rule, p.new) for p in idea]


def holds(idea: tuple[Proposal, ...] | Hold) -> list[str]:
    assert isinstance(idea, Hold), idea
    return [r.code for r in idea.reasons]


# ----------------------------------------------------------------------------- which metric, which step
@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"risk_band": 0.33}, ("risk_max", 0.33)),
        ({"phase_diff": 0.07}, ("creative_min", 0.24)),
        ({"creative_band": 0.22}, ("creative_min", 0.23)),  # half a step
        ({"risk_band": 0.33, "phase_diff": 0.07, "creative_band": 0.22}, ("risk_max", 0.33)),
        ({"phase_diff": 0.07, "creative_band": 0.22}, ("creative_min", 0.24)),
    ],
)
def test_the_first_metric_off_target_gets_one_step(
    means: dict[str, float | None], expected: tuple[str, float]
) -> None:
    assert moves(propose(state(means))) == [expected]


def test_nothing_is_moved_when_all_targets_are_met() -> None:
    """The seed walks on for ever; on a system that is already good that costs 39 % of the score."""
    assert holds(propose(state())) == ["hold.targets_met"]


def test_a_miss_smaller_than_its_own_noise_is_no_reason() -> None:
    assert holds(propose(state({"risk_band": 0.3009}))) == ["hold.targets_met"]
    noisy = state(windows={**state().windows, "risk_band": window(0.31, se=0.011)})
    assert holds(propose(noisy)) == ["hold.targets_met"]


@pytest.mark.parametrize("lost", ["phase_diff", "creative_band", "risk_band"])
def test_no_data_on_a_weighted_metric_proposes_nothing(lost: str) -> None:
    assert holds(propose(state({"risk_band": 0.33, lost: None}))) == ["hold.no_data"]


def test_a_metric_without_weight_may_be_missing() -> None:
    assert moves(propose(state({"risk_band": 0.33, "entropy_rate": None}))) == [("risk_max", 0.33)]


def test_observe_only() -> None:
    assert holds(propose(state(settings=settings_with(strategy__policy="none")))) == ["hold.policy_none"]


def test_a_rule_without_direction_is_not_guessed_at() -> None:
    undirected = settings_with(SIMPLE, strategy__direction__risk_max=0)
    assert moves(propose(state({"risk_band": 0.33}, settings=undirected))) == [("creative_min", 0.24)]


# ----------------------------------------------------------------------------- evidence
@pytest.mark.parametrize(
    ("ev", "expected"),
    [
        (evidence(risk_band=0.01), ("risk_max", 0.33)),  # measured, not improving
        (evidence(Verdict.WORSENED, risk_band=0.01), ("risk_max", 0.33)),
        (evidence(Verdict.NEUTRAL, risk_band=0.0), "hold.evidence_unclear"),
        (evidence(Verdict.NEUTRAL, risk_band=0.0, age_s=179.0), "hold.evidence_unclear"),
        (evidence(Verdict.NEUTRAL, risk_band=0.0, age_s=180.0), ("risk_max", 0.33)),
        (evidence(Verdict.INCONCLUSIVE, age_s=180.0), ("risk_max", 0.33)),
        (evidence(risk_band=0.01, spent=True), "hold.evidence_spent"),
        (evidence(risk_band=0.01, spent=True, age_s=180.0), ("risk_max", 0.33)),
        (evidence(None, risk_band=0.01), ("risk_max", 0.33)),  # the family's tracker has no verdicts
        (evidence(None, **dict.fromkeys(SETTINGS.metrics)), "hold.evidence_unclear"),
    ],
)
def test_on_which_evidence_a_step_is_made(ev: Evidence, expected: tuple[str, float] | str) -> None:
    idea = propose(state({"risk_band": 0.33}, evidence=ev))
    if isinstance(expected, str):
        assert holds(idea) == [expected]
    else:
        assert moves(idea) == [expected]


def test_one_bad_row_does_not_walk_the_rule_to_its_bound() -> None:
    """The seed acts on the last Δ row for ever: eight cycles take risk_max from 0.35 to 0.20."""
    bad = evidence(None, risk_band=0.02, phase_diff=0.02)
    assert moves(propose(state({"risk_band": 0.33}, evidence=bad))) == [("risk_max", 0.33)]
    after = replace(bad, spent=True)
    for _ in range(8):
        assert holds(propose(state({"risk_band": 0.33}, evidence=after))) == ["hold.evidence_spent"]


def test_a_metric_that_is_already_improving_is_left_alone_for_another() -> None:
    off = {"risk_band": 0.33, "phase_diff": 0.07}
    ev = evidence(risk_band=-0.008)
    assert moves(propose(state(off, evidence=ev))) == [("creative_min", 0.24)]
    assert moves(propose(state({"risk_band": 0.33}, evidence=ev))) == [("risk_max", 0.33)], "if it is alone"


# ----------------------------------------------------------------------------- inside what is allowed
BLOCK = GuardCheck(code="guard.cooldown", passed=False, observed=1, limit=120, unit="s", rule="risk_max")


def test_a_blocked_rule_gives_its_guard_as_the_reason() -> None:
    idea = propose(state({"risk_band": 0.33}, blocked={"risk_max": BLOCK}))
    assert holds(idea) == ["guard.cooldown"]


def test_when_one_lever_is_blocked_the_next_metric_is_served() -> None:
    off = {"risk_band": 0.33, "creative_band": 0.22}
    assert moves(propose(state(off, blocked={"risk_max": BLOCK}))) == [("creative_min", 0.23)]


@pytest.mark.parametrize(
    ("sign", "beyond", "held"),
    [(-1, 0.35, True), (-1, 0.34, True), (-1, 0.33, False), (-1, 0.31, False), (1, 0.30, False)],
)
def test_a_bar_closes_its_half_line_only(sign: int, beyond: float, held: bool) -> None:
    bar = Bar(rule="risk_max", sign=sign, beyond=beyond, until_at_ms=1, times=1)
    idea = propose(state({"risk_band": 0.33}, bars=(bar,)))
    assert isinstance(idea, Hold) is held


def test_at_the_bound_it_says_so() -> None:
    """The seed writes the same value again and again: about 160 null events in 200 cycles."""
    at = {"creative_min": 0.22, "risk_max": 0.20}
    assert holds(propose(state({"risk_band": 0.33}, values=at))) == ["guard.at_bound"]
    near = {"creative_min": 0.22, "risk_max": 0.21}
    assert moves(propose(state({"risk_band": 0.33}, values=near))) == [("risk_max", 0.20)]


def test_a_loans_room_is_kept() -> None:
    room = {"risk_max": (0.34, 0.40)}
    assert moves(propose(state({"risk_band": 0.33}, room=room))) == [("risk_max", 0.34)]
    spent = {"risk_max": (0.35, 0.40)}
    assert holds(propose(state({"risk_band": 0.33}, room=spent))) == ["guard.at_bound"]


def test_a_value_far_outside_the_loans_room_is_approached_in_small_steps() -> None:
    up = settings_with(SIMPLE, strategy__direction__risk_max=1)
    at = {"creative_min": 0.22, "risk_max": 0.25}
    room = {"risk_max": (0.31, 0.39)}
    assert moves(propose(state({"risk_band": 0.33}, settings=up, values=at, room=room))) == [
        ("risk_max", 0.27)
    ]


def test_up_to_k_rules_in_one_commit() -> None:
    both = settings_with(SIMPLE, strategy__max_concurrent_changes=2)
    off = {"risk_band": 0.33, "phase_diff": 0.07}
    assert moves(propose(state(off, settings=both))) == [("risk_max", 0.33), ("creative_min", 0.24)]
    assert moves(propose(state(off))) == [("risk_max", 0.33)]
    same = {"phase_diff": 0.07, "creative_band": 0.22}
    assert moves(propose(state(same, settings=both))) == [("creative_min", 0.24)], "a rule moves once"


# ----------------------------------------------------------------------------- what it says
def test_every_proposal_says_why_with_numbers() -> None:
    (p,) = propose(state({"risk_band": 0.33}, evidence=evidence(risk_band=0.01)))  # type: ignore[misc]
    first, second = p.reasons[0], p.reasons[1]
    assert (first.code, first.params["metric"], first.params["observed"]) == (
        "why.off_target",
        "risk_band",
        0.33,
    )
    assert (first.params["limit"], first.params["n"]) == (0.30, 450)
    assert (second.code, second.params["event"]) == ("why.not_improving", "e1")


def test_lessons_become_an_expectation_and_a_confidence() -> None:
    def lesson(delta: float, verdict: Verdict) -> Lesson:
        return Lesson(rule="risk_max", step=-0.02, deltas={"risk_band": delta}, verdict=verdict)

    lessons = (
        lesson(-0.02, Verdict.IMPROVED),
        lesson(-0.01, Verdict.IMPROVED),
        lesson(-0.03, Verdict.WORSENED),
    )
    (p,) = propose(state({"risk_band": 0.33}, lessons=lessons))  # type: ignore[misc]
    mean, lo, hi = p.expected["risk_band"]
    assert mean == pytest.approx(-0.02)
    assert lo < mean < hi
    assert p.confidence == pytest.approx(3 / 5)
    assert "why.lessons" in [r.code for r in p.reasons]


def test_without_lessons_no_confidence_is_claimed() -> None:
    (p,) = propose(state({"risk_band": 0.33}))  # type: ignore[misc]
    assert (p.expected, p.confidence) == ({}, None)


LEVELS = st.floats(0.0, 0.6) | st.none()


@given(
    means=st.fixed_dictionaries(dict.fromkeys(GOOD, LEVELS)),
    values=st.fixed_dictionaries({"creative_min": st.floats(0.1, 0.5), "risk_max": st.floats(0.1, 0.5)}),
    k=st.integers(1, 3),
    ev=st.none()
    | st.builds(lambda d, s: evidence(None, risk_band=d, spent=s), st.floats(-1, 1), st.booleans()),
)
def test_whatever_it_sees_it_proposes_small_steps_of_different_rules_or_says_why_not(
    means: dict[str, float | None], values: dict[str, float], k: int, ev: Evidence | None
) -> None:
    settings = SETTINGS_K[k]
    idea = propose(state(means, settings=settings, values=values, evidence=ev))
    if isinstance(idea, Hold):
        assert idea.reasons
        return
    assert 0 < len(idea) <= k
    assert len({p.rule for p in idea}) == len(idea)
    for p in idea:
        rule = settings.rules[p.rule]
        assert p.new != p.old == values[p.rule]
        assert abs(p.step) <= rule.lr * (1 + 1e-9)
        assert p.reasons


SETTINGS_K = {k: settings_with(SIMPLE, strategy__max_concurrent_changes=k) for k in (1, 2, 3)}
