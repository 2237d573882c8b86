"""Which small step next, and why: the policies by name, and the seed's heuristic, made sound.

Answers `propose(state) -> Idea`. Never decides whether a step is allowed now (guards.py), never
touches a record. The policy that learns is in adaptive.py. Every policy sees the same `PolicyState` and
stays inside `PolicyState.refusal`.
Source: policy.md, contract.md (cold start, evidence), issue 2 (first policy).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from math import sqrt

from selftune.adaptive import adaptive
from selftune.config import Settings
from selftune.domain import Hold, PolicyName, Proposal, Reason, Rule, Target, Verdict
from selftune.policy_state import SEED_LEVER, Evidence, Lesson, PolicyState

SEED_PRIORITY = ("risk_band", "phase_diff", "creative_band")  # the seed: risk, then phase, then creative
HALF_STEP = frozenset({"creative_band"})  # the seed takes half a step for the last of the three

VERSIONS: Mapping[PolicyName, str] = {
    PolicyName.ADAPTIVE: "1",
    PolicyName.HEURISTIC: "1",
    PolicyName.NONE: "1",
}


Policy = Callable[[PolicyState], "tuple[Proposal, ...] | Hold"]


def propose(state: PolicyState) -> tuple[Proposal, ...] | Hold:
    """Up to `max_concurrent_changes` small steps of different rules, or a hold with its reasons."""
    return POLICIES[state.settings.policy](state)


def none(state: PolicyState) -> Hold:
    """Observe only."""
    return Hold(reasons=(Reason("hold.policy_none"),))


def heuristic(state: PolicyState) -> tuple[Proposal, ...] | Hold:
    """The seed's idea on honest evidence: the first metric that is off target gets one small step."""
    missing = [m for m in state.settings.metrics if _weighs(state, m) and _mean(state, m) is None]
    if missing:
        return Hold(reasons=tuple(_no_data(state, m) for m in missing))
    off = [m for m in _priority(state.settings) if _is_off(state, m)]
    if not off:
        return Hold(reasons=(Reason("hold.targets_met", {"metrics": list(state.settings.metrics)}),))
    basis = _basis(state)
    if isinstance(basis, Reason):
        return Hold(reasons=(basis,))
    wanting = [m for m in off if not _already_improving(state, m, basis)] or off
    proposals: list[Proposal] = []
    refusals: list[Reason] = []
    for metric in wanting:
        found = _step_for(state, metric, basis, taken={p.rule for p in proposals})
        if isinstance(found, Proposal):
            proposals.append(found)
        else:
            refusals.extend(r for r in found if r not in refusals)
    if proposals:
        return tuple(islice(proposals, state.settings.max_concurrent_changes))
    return Hold(reasons=tuple(refusals) or (Reason("hold.no_lever", {"metrics": off}),))


POLICIES: Mapping[PolicyName, Policy] = {
    PolicyName.ADAPTIVE: adaptive,
    PolicyName.HEURISTIC: heuristic,
    PolicyName.NONE: none,
}


# ------------------------------------------------------------------------------- what is wanted
def _priority(settings: Settings) -> list[str]:
    """Metrics in the seed's order, then the others by weight; metrics without weight last."""
    known = [m for m in SEED_PRIORITY if m in settings.targets]
    rest = [m for m in settings.targets if m not in known]
    return known + sorted(rest, key=lambda m: -settings.weights.get(m, 0.0))


def _weighs(state: PolicyState, metric: str) -> bool:
    return state.settings.weights.get(metric, 0.0) > 0


def _mean(state: PolicyState, metric: str) -> float | None:
    stat = state.windows.get(metric)
    return stat.mean if stat is not None else None


def _no_data(state: PolicyState, metric: str) -> Reason:
    stat = state.windows.get(metric)
    return Reason(
        "hold.no_data",
        {
            "metric": metric,
            "observed": stat.n if stat else 0,
            "limit": state.settings.min_samples,
            "unit": "samples",
        },
    )


def _is_off(state: PolicyState, metric: str) -> bool:
    """True when the present window misses the target by more than its standard error: noise is no reason."""
    stat, target = state.windows.get(metric), state.settings.targets[metric]
    if stat is None or stat.mean is None:
        return False
    margin = stat.se or 0.0
    past_max = target.max is not None and stat.mean - margin > target.max
    past_min = target.min is not None and stat.mean + margin < target.min
    return past_max or past_min


# ------------------------------------------------------------------------------- on what evidence
def _basis(state: PolicyState) -> Evidence | Reason | None:
    """The evidence that may justify a step: an unspent Δ, or None for the present windows alone.

    A spent Δ justifies nothing more; once it is old the present windows speak again, so that a
    change whose Δ never came (superseded, blind) is no dead end.
    """
    ev = state.evidence
    if ev is None:
        return None
    unproven = ev.verdict in (Verdict.NEUTRAL, Verdict.INCONCLUSIVE) or not any(
        d is not None for d in ev.deltas.values()
    )
    if not ev.spent and not unproven:
        return ev
    wait_s = max(state.settings.cooldown_s, 2 * state.settings.observe_window_s)
    if ev.age_s >= wait_s:
        return None
    return Reason(
        "hold.evidence_spent" if ev.spent else "hold.evidence_unclear",
        {"event": ev.key, "rule": ev.rule, "observed": ev.age_s, "limit": wait_s, "unit": "s"},
    )


def _already_improving(state: PolicyState, metric: str, basis: Evidence | None) -> bool:
    """True when the Δ shows this metric getting better by at least what counts as good."""
    delta = basis.deltas.get(metric) if basis is not None else None
    if delta is None:
        return False
    gain = -delta if _wants_down(state.settings.targets[metric], _mean(state, metric)) else delta
    return gain >= state.settings.good[metric]


def _wants_down(target: Target, mean: float | None) -> bool:
    if target.max is not None and target.min is not None and mean is not None:
        return mean > target.max
    return target.down_is_good


# ------------------------------------------------------------------------------- which step
def _step_for(
    state: PolicyState, metric: str, basis: Evidence | None, taken: set[str]
) -> Proposal | tuple[Reason, ...]:
    """One step for this metric, or why no lever may move."""
    refusals: list[Reason] = []
    for rule in _levers(state.settings, metric):
        if rule.name in taken:
            continue
        size = rule.lr / 2 if metric in HALF_STEP and SEED_LEVER.get(metric) == rule.name else rule.lr
        step = rule.direction * size
        refusal = state.refusal(rule, step)
        if refusal is not None:
            refusals.append(refusal)
            continue
        return _proposal(state, rule, state.new_value(rule, step), metric, basis)
    return tuple(refusals)


def _levers(settings: Settings, metric: str) -> list[Rule]:
    """Rules that may serve this metric: the seed's own lever, else all with a direction, by weight."""
    movable = [r for r in settings.rules.values() if r.direction != 0]
    mine = [r for r in movable if r.name == SEED_LEVER.get(metric)]
    return mine or sorted(movable, key=lambda r: (-r.weight, r.name))


def _proposal(state: PolicyState, rule: Rule, new: float, metric: str, basis: Evidence | None) -> Proposal:
    target, mean = state.settings.targets[metric], _mean(state, metric)
    limit = target.max if _wants_down(target, mean) else target.min
    stat = state.windows[metric]
    why = Reason(
        "why.off_target",
        {
            "metric": metric,
            "observed": mean,
            "limit": limit,
            "side": "max" if limit == target.max else "min",
            "n": stat.n,
            "se": stat.se,
        },
    )
    reasons = [why]
    if basis is not None:
        delta = basis.deltas.get(metric)
        reasons.append(
            Reason(
                "why.not_improving" if delta is not None else "why.delta_missing",
                {
                    "metric": metric,
                    "observed": delta,
                    "limit": state.settings.good[metric],
                    "event": basis.key,
                    "rule": basis.rule,
                },
            )
        )
    else:
        reasons.append(Reason("why.present_window", {"metric": metric, "n": stat.n}))
    old = state.values[rule.name]
    expected, confidence, n = _expected(state.lessons, rule.name, new - old)
    if n:
        reasons.append(
            Reason(
                "why.lessons",
                {"rule": rule.name, "n": n, "metric": metric, "observed": expected.get(metric, (None,))[0]},
            )
        )
    return Proposal(
        rule=rule.name, old=old, new=new, reasons=tuple(reasons), expected=expected, confidence=confidence
    )


def _expected(
    lessons: Sequence[Lesson], rule: str, step: float
) -> tuple[dict[str, tuple[float, float, float]], float | None, int]:
    """What earlier changes of this rule lead one to expect of `step`: mean and 95 % range per metric."""
    own = [e for e in lessons if e.rule == rule and e.step != 0]
    per: dict[str, list[float]] = {}
    for e in own:
        for metric, delta in e.deltas.items():
            if delta is not None:
                per.setdefault(metric, []).append(delta / e.step * step)
    expected = {}
    for metric, xs in per.items():
        if len(xs) < 2:
            continue
        mean = sum(xs) / len(xs)
        half = 1.96 * sqrt(sum((x - mean) ** 2 for x in xs) / (len(xs) - 1) / len(xs))
        expected[metric] = (mean, mean - half, mean + half)
    same = [e for e in own if (e.step > 0) == (step > 0)]
    good = sum(e.verdict is Verdict.IMPROVED for e in same)
    bad = sum(e.verdict is Verdict.WORSENED for e in same)
    return expected, ((good + 1) / (good + bad + 2) if same else None), len(same)
