"""The decision: `decide(Snapshot) -> Plan`, pure and the only one.

Loop, command line, dashboard and backtest call this and differ in clock, source and sink. What was
already changed comes first (watch.py), then, if every guard agrees, one small step (policy.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from selftune import excursion, hands, watch
from selftune.decision_lines import keys_of
from selftune.domain import GuardCheck, Hold, Proposal, Reason
from selftune.guards import check_rule, check_step, loan_room, pace_s
from selftune.lifecycle import Suggestion, channel
from selftune.picture import Picture, deltas_of
from selftune.plan import Act, Plan, PlannedMove, Snapshot, proposal_json
from selftune.policy import VERSIONS, propose
from selftune.policy_state import PolicyState

TICK_S = 1.0  # while anything is open the loop looks each second
ALWAYS_NEWS = frozenset({"abandon", "propose_rollback"})  # made once for one orphan, for one verdict
ONCE_A_DAY_MS = 24 * 3600 * 1000
REST_S = 5.0  # else at most this far apart


def decide(snap: Snapshot) -> Plan:
    """What this cycle wants. The same snapshot gives the same plan."""
    return plan_of(Picture(snap))


def mode_changed(p: Picture) -> tuple[Act, ...]:
    """The effective mode is put on record when it is another than the last record's."""
    last = next((d for d in reversed(p.snap.records.decisions) if "mode" in d.data), None)
    if last is None or last.mode is p.mode.mode or p.mode.ended is not None:
        return ()
    return (Act(kind="mode", act="changed", reasons=(p.mode.reason,), data={"to": p.mode.mode.value}),)


STAGES: tuple[Callable[[Picture], tuple[Act, ...]], ...] = (
    watch.abandoned,
    watch.loan_end,
    mode_changed,
    watch.reobserve,
    watch.hard_limit,
    excursion.reversal_look,
    watch.open_changes,
    watch.owed,
    watch.superseded,
    excursion.verified,
    excursion.judged,
    excursion.regime,
    watch.foreign_bounds,
    watch.no_quiet,
)


def plan_of(p: Picture) -> Plan:
    """The plan of one picture: the first stage that has something new to do, else exploration."""
    for stage in STAGES:
        acts = tuple(a for a in stage(p) if is_news(p, a))
        if acts:
            return make_plan(p, acts)
    acts, holds = explore(p)
    return make_plan(p, tuple(a for a in acts if is_news(p, a)), holds=holds)


def explore(p: Picture) -> tuple[tuple[Act, ...], tuple[Reason, ...]]:
    """One small step or the reasons why not; in dry run the same, written as a suggestion."""
    failing = tuple(c for c in p.checks if not c.passed)
    if failing:
        return (hold(failing, ()),), tuple(c.reason for c in failing)
    idea = ideas(p)
    if isinstance(idea, Hold):
        return (hold((), idea.reasons),), idea.reasons
    refused = tuple(c for x in idea if not (c := check_step(p.situation, x)).passed)
    if refused:  # a policy that steps out of line is not obeyed, and its fault is on record
        return (hold(refused, ()),), tuple(c.reason for c in refused)
    return (step(p, idea),), ()


def ideas(p: Picture, only: str | None = None) -> tuple[Proposal, ...] | Hold:
    """What the policy would do in this picture, with each rule's own guards applied; or with one rule."""
    return propose(policy_state(p, only))


def policy_state(p: Picture, only: str | None = None) -> PolicyState:
    """What the policy is told of this picture; `only`: the one rule that it may move."""
    blocked: dict[str, GuardCheck] = {}
    for rule in p.settings.rules:
        failing = [c for c in check_rule(p.situation, rule) if not c.passed]
        if failing:
            blocked[rule] = failing[0]
    for s in p.life.suggestions:
        if s.snoozed_until_at_ms > p.snap.clock_ms and s.rule not in blocked:
            blocked[s.rule] = GuardCheck(
                code="guard.snoozed", passed=False, observed="snoozed", limit="free", unit="", rule=s.rule,
                until_ms=p.situation.wall(s.snoozed_until_at_ms),
            )  # fmt: skip
    for waits in back_waits(p):
        blocked.setdefault(str(waits.rule), waits)
    others = [r for r in p.settings.rules if only not in (None, r)]
    still = {r: (p.life.values[r], p.life.values[r]) for r in others}
    return PolicyState(
        settings=p.settings,
        values=p.life.values,
        anchor=p.life.anchor,
        windows=p.windows,
        evidence=p.evidence,
        blocked=blocked,
        bars=p.life.bars_at(p.snap.clock_ms),
        room={**loan_room(p.situation), **still},
        lessons=p.lessons,
        quiet=p.taught,
        broke=p.broke,
    )


def back_waits(p: Picture) -> tuple[GuardCheck, ...]:
    """Rules whose rollback was proposed and waits for a person, for as long as a proposal stands.

    A step of ours on such a rule would take the one click away, and undo a person's decision by and by.
    """
    ttl_ms, over = p.settings.proposal_ttl_s * 1000, hands.turned_down(p)
    last = {e.key: rule for rule, e in p.life.last_event.items()}
    found = []
    for d in reversed(p.snap.records.decisions):
        if d.at_ms <= p.snap.clock_ms - ttl_ms:
            break
        if d.act == "propose_rollback" and d.id not in over:
            until_ms = p.situation.wall(d.at_ms + ttl_ms)
            found += [
                GuardCheck(code="guard.back_waits", passed=False, observed="proposed", limit="decided",
                           unit="", rule=last[key], until_ms=until_ms)
                for key in keys_of(d.data.get("reverts")) if key in last
            ]  # fmt: skip
    return tuple(found)


def step(p: Picture, proposals: tuple[Proposal, ...]) -> Act:
    """The proposals as one decision; rule events only while live."""
    moves = tuple(PlannedMove(rule=x.rule, old=x.old, new=x.new, kind="change") for x in proposals)
    return Act(
        kind="cycle",
        act="step",
        reasons=proposals[0].reasons,
        moves=moves,
        write=p.mode.live,
        proposals=proposals,
        data={"evidence": p.evidence.key if p.evidence is not None and not p.evidence.spent else None},
    )


def hold(guards: tuple[GuardCheck, ...], reasons: tuple[Reason, ...]) -> Act:
    """Nothing is proposed, and why."""
    return Act(kind="cycle", act="hold", reasons=reasons or tuple(g.reason for g in guards), guards=guards)


def standing(p: Picture) -> Suggestion | None:
    """The newest suggestion that may still be acted on."""
    found = [
        s
        for s in p.life.suggestions
        if s.stands(p.settings, p.life.values, p.snap.clock_ms, p.settings.digest)
    ]
    return found[-1] if found else None


# ------------------------------------------------------------------------------ only what is new
def is_news(p: Picture, act: Act) -> bool:
    """Whether this act says something that the record does not say already.

    An act that writes rule events, and a verdict, always is. A hold is written when its set of
    (code, rule) changes; a suggestion or a proposed return while nothing like it stands.
    """
    if act.kind != "cycle" or act.act in ALWAYS_NEWS or (act.write and act.moves):
        return True
    last = p.life.last_said.get(channel(act.act, act.data.get("cause")))
    if last is None or last.applied:
        return True
    if _signature(last.data, last.act) != signature(act):
        flutter = act.act == last.act == "hold" and p.snap.clock_ms - last.at_ms < _calm_ms(p)
        return not flutter
    ttl_ms = ONCE_A_DAY_MS if act.act == "no_quiet" else p.settings.proposal_ttl_s * 1000
    renews = act.act not in ("hold", None)
    return renews and p.snap.clock_ms - last.at_ms >= ttl_ms


def _calm_ms(p: Picture) -> float:
    """A hold that follows a hold waits this long, so that a value on the edge does not fill the record."""
    return p.settings.observe_window_s * 1000 / 3


def signature(act: Act) -> tuple[Any, ...]:
    """What makes two decisions the same to a reader: the act, who holds it, which way it would move."""
    holds = frozenset((g.code, g.rule) for g in act.guards)
    whys = frozenset(r.code for r in act.reasons) if act.act == "hold" else frozenset()
    moves = frozenset((m.rule, m.new > m.old) for m in act.moves)
    return (act.act, holds, whys, moves, act.data.get("cause"))


def _signature(data: Mapping[str, Any], act: str | None) -> tuple[Any, ...]:
    holds = frozenset((g.get("code"), g.get("rule")) for g in _dicts(data.get("guards")))
    whys = (
        frozenset(str(r.get("code")) for r in _dicts(data.get("reasons"))) if act == "hold" else frozenset()
    )
    would = _dicts(data.get("would")) or _dicts(data.get("proposals"))
    moves = frozenset((str(x.get("rule")), float(x.get("new", 0)) > float(x.get("old", 0))) for x in would)
    return (act, holds, whys, moves, data.get("cause"))


def _dicts(x: object) -> list[Mapping[str, Any]]:
    return [i for i in x if isinstance(i, Mapping)] if isinstance(x, list | tuple) else []


# ------------------------------------------------------------------------------ the plan
def make_plan(p: Picture, acts: tuple[Act, ...], *, holds: tuple[Reason, ...] = ()) -> Plan:
    """The acts with the picture they were made from."""
    return Plan(
        acts=tuple(_standing(p, a) for a in acts),
        mode=p.mode,
        checks=p.checks,
        score=p.score,
        attainment=p.attainment,
        windows=p.shown,
        next_due_s=next_due_s(p, acts),
        config_sha=p.snap.config_sha,
        digest=p.settings.digest,
        policy=(p.settings.policy.value, VERSIONS.get(p.settings.policy, "0")),
        approvals_head=p.snap.records.approvals_head,
        after=p.after,
        holds=holds,
    )


def _standing(p: Picture, act: Act) -> Act:
    """A suggestion unchanged in rule and sign stands: its record renews the first one."""
    if act.act != "step" or act.write or len(act.proposals) != 1:
        return act
    x = act.proposals[0]
    for s in reversed(p.life.suggestions):
        if s.rule == x.rule and s.old == x.old and (s.new > s.old) == (x.new > x.old) and s.ended is None:
            return Act(**{**act.__dict__, "data": {**act.data, "stands": s.id}})
    return act


def next_due_s(p: Picture, acts: tuple[Act, ...]) -> float:
    """When to look again: each second while anything is open, else within 5 s (scaled for fast roots)."""
    busy = acts or p.open or p.life.excursion or p.life.look or p.breaches
    longest = REST_S * p.pace
    return TICK_S * p.pace if busy else min(longest, pace_s(p.settings))


def last_deltas(p: Picture) -> dict[str, Any] | None:
    """The seed's `deltas` object of the evidence in use, None without any."""
    ev = p.evidence
    if ev is None:
        return None
    newest = next((d for c, d in reversed(p.judged) if ev.key in c.keys), None)
    found = deltas_of(newest.data, p.settings) if newest is not None else dict(ev.deltas)
    return {
        **{m: found.get(m) for m in p.settings.metrics},
        "rule": ev.rule,
        "ts_ms": ev.ts_ms,
        "event_id": ev.key,
    }


__all__ = [
    "decide",
    "explore",
    "ideas",
    "is_news",
    "last_deltas",
    "make_plan",
    "plan_of",
    "proposal_json",
    "standing",
]
