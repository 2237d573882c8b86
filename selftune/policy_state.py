"""What a policy may know when it chooses the next step, and what it may not propose.

Answers "is this step of this rule allowed now, and what value would it give?" for every policy alike.
Pure. Source: policy.md, contract.md (rules of acting).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selftune.config import Settings
from selftune.domain import GuardCheck, Reason, Rule, Verdict, WindowStat
from selftune.gaps import QuietWindow
from selftune.guards import small_step
from selftune.lifecycle import Bar

SEED_LEVER = {"risk_band": "risk_max", "phase_diff": "creative_min", "creative_band": "creative_min"}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The newest measured Δ: of which event, how large, and whether a change has already used it.

    `deltas` by metric (None: not measured). `age_s` counts from the end of its observation window.
    """

    key: str
    rule: str
    ts_ms: int
    age_s: float
    deltas: Mapping[str, float | None]
    verdict: Verdict | None = None
    spent: bool = False


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one earlier change of one rule did: the change of the rule and of each metric."""

    rule: str
    step: float
    deltas: Mapping[str, float | None]
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class PolicyState:
    """All that a policy may know. `blocked`: rules that no step may move now, and why.

    `quiet`: windows of the past in which nothing was touched, oldest first; a change may have cut some short.
    `broke`: whether a hard limit was broken within the time that is remembered.
    `room` is how far (in the rule's unit) a loan lets a rule go from its value at arming.
    """

    settings: Settings
    values: Mapping[str, float]
    anchor: Mapping[str, float]
    windows: Mapping[str, WindowStat]
    evidence: Evidence | None
    blocked: Mapping[str, GuardCheck] = field(default_factory=dict)
    bars: Sequence[Bar] = ()
    room: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    lessons: Sequence[Lesson] = ()
    quiet: Sequence[QuietWindow] = ()
    broke: bool = False

    def new_value(self, rule: Rule, step: float) -> float:
        """The value after `step`, rounded to the resolution and clipped to bounds and loan."""
        lo, hi = self.room.get(rule.name, (rule.min, rule.max))
        old = self.values[rule.name]
        return small_step(rule, old, min(hi, max(lo, old + step)) - old, self.settings.resolution)

    def refusal(self, rule: Rule, step: float) -> Reason | None:
        """Why this step of this rule may not be proposed now; None when it may."""
        if rule.name in self.blocked:
            return self.blocked[rule.name].reason
        old, new = self.values[rule.name], self.new_value(rule, step)
        if new == old or (new > old) != (step > 0):
            limit = rule.max if step > 0 else rule.min
            return Reason("guard.at_bound", {"rule": rule.name, "observed": old, "limit": limit})
        sign = 1 if new > old else -1
        for bar in self.bars:
            if bar.rule == rule.name and bar.sign == sign and (new - bar.beyond) * sign > 0:
                return Reason("guard.barred", {"rule": rule.name, "limit": bar.beyond, "observed": new})
        return None
