"""What a person does: apply, reject, snooze, roll back, stop, resume, release.

Each function returns the acts of one commit, or refuses with a reason and, where time frees it, until
when. Pure; the same guards as the loop's. Works while the loop is dead. Source: contract.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selftune import guards
from selftune.acts import go_home
from selftune.domain import (
    Decision,
    GuardCheck,
    JsonDict,
    Phase,
    Proposal,
    Reason,
    Refused,
    RuleEvent,
    UnknownId,
)
from selftune.lifecycle import Change, Suggestion
from selftune.picture import Picture, crit_key
from selftune.plan import Act, PlannedMove

PROPOSED_BACK = ("propose_rollback", "return", "emergency")  # what proposed.py carries out
# The loop's experiments need pace, quiet and budgets; a person's one act needs these.
HAND_GUARDS: tuple[Callable[[guards.Situation], GuardCheck], ...] = (
    guards.settings_valid,
    guards.not_stopped,
    guards.clock_right,
    guards.fresh,
    guards.no_crit,
    guards.concurrency,
    guards.no_look,
    guards.hard_rest,
)


def _who(actor: str, reason: str, **more: Any) -> JsonDict:
    return {"actor": actor, "why": reason, **more}


def find_suggestion(p: Picture, decision_id: str, rule: str | None = None) -> Suggestion:
    """The suggestion on record under this id, or under the id of a record that renewed it."""
    of = [s for s in p.life.suggestions if decision_id in (s.id, s.decision)]
    found = next((s for s in of if rule in (None, s.rule)), of[0] if of else None)
    if found is None:
        renewal = next((d for d in p.snap.records.decisions if d.id == decision_id), None)
        stands = renewal.data.get("stands") if renewal is not None else None
        found = next((s for s in p.life.suggestions if s.id == stands), None)
        if found is None:
            code = "hand.no_proposal" if renewal is not None else "hand.unknown_decision"
            raise UnknownId(code, id=decision_id)
    return found


def hand_checks(p: Picture, rule: str) -> tuple[GuardCheck, ...]:
    """Every guard that a person's change of this rule must pass now."""
    s = p.situation
    return (*(g(s) for g in HAND_GUARDS), *guards.check_rule(s, rule))


def apply(
    p: Picture, decision_id: str, *, rule: str | None = None, actor: str, reason: str
) -> tuple[Act, ...]:
    """Put one suggestion into force, by hand; real in dry run too.

    Raises: UnknownId if there is no such suggestion; Refused if it no longer stands or a guard holds.
    """
    s = find_suggestion(p, decision_id, rule)
    if rule is not None and s.rule != rule:
        raise UnknownId("hand.rule_not_in_decision", id=decision_id, rule=rule)
    if not p.settings.governance.manual_apply:
        raise Refused(Reason("hand.manual_apply_off"))
    if s.ended is not None:
        raise Refused(Reason("hand.suggestion_over", {"id": s.id, "phase": s.ended.value}))
    if p.life.values.get(s.rule) != s.old:
        raise Refused(
            Reason(
                "hand.value_moved", {"rule": s.rule, "observed": p.life.values.get(s.rule), "limit": s.old}
            )
        )
    if not s.stands(p.settings, p.life.values, p.snap.clock_ms, p.settings.digest):
        raise Refused(
            Reason("hand.suggestion_expired", {"id": s.id, "limit": p.settings.proposal_ttl_s, "unit": "s"})
        )
    failing = [c for c in hand_checks(p, s.rule) if not c.passed]
    proposal = Proposal(rule=s.rule, old=s.old, new=s.new, reasons=(Reason("why.by_hand", {"actor": actor}),))
    step = guards.check_step(p.situation, proposal)
    if not step.passed:
        failing.append(step)
    if failing:
        raise Refused(*(c.reason for c in failing))
    move = PlannedMove(rule=s.rule, old=s.old, new=s.new, kind="manual", note=reason)
    data = _who(actor, reason, of=s.id, rule=s.rule, evidence=s.evidence)
    return (
        Act(
            kind="manual",
            act="apply",
            reasons=proposal.reasons,
            moves=(move,),
            write=True,
            proposals=(proposal,),
            data=data,
        ),
    )


def reject(p: Picture, decision_id: str, *, actor: str, reason: str) -> tuple[Act, ...]:
    """A suggestion, or a move that the loop proposes, is turned down; new evidence may bring it again."""
    back = _proposed_back(p, decision_id)
    if back is not None:
        why = (Reason("why.by_hand", {"actor": actor}),)
        return (Act(kind="manual", act="reject", reasons=why, data=_who(actor, reason, of=back.id)),)
    s = _still_open(p, decision_id)
    return (
        Act(
            kind="manual",
            act="reject",
            reasons=(Reason("why.by_hand", {"actor": actor}),),
            data=_who(actor, reason, of=s.id, rule=s.rule),
        ),
    )


def snooze(p: Picture, decision_id: str, *, for_s: float, actor: str, reason: str) -> tuple[Act, ...]:
    """A suggestion's rule is left alone for a while."""
    s = _still_open(p, decision_id)
    data = _who(actor, reason, of=s.id, rule=s.rule, for_s=for_s)
    return (Act(kind="manual", act="snooze", reasons=(Reason("why.by_hand", {"actor": actor}),), data=data),)


def _proposed_back(p: Picture, decision_id: str) -> Decision | None:
    """The decision of this id, if it proposes a way back or an emergency move that was not carried out.

    Raises: Refused if it was turned down already.
    """
    found = next((d for d in p.snap.records.decisions if d.id == decision_id), None)
    if found is None or found.applied or found.act not in PROPOSED_BACK:
        return None
    if decision_id in turned_down(p):
        raise Refused(Reason("hand.suggestion_over", {"id": decision_id, "phase": Phase.REJECTED.value}))
    return found


def turned_down(p: Picture) -> frozenset[str]:
    """Ids of what a person rejected."""
    return frozenset(
        str(d.data.get("of")) for d in p.snap.records.decisions if d.kind == "manual" and d.act == "reject"
    )


def _still_open(p: Picture, decision_id: str) -> Suggestion:
    s = find_suggestion(p, decision_id)
    if s.ended is not None:
        raise Refused(Reason("hand.suggestion_over", {"id": s.id, "phase": s.ended.value}))
    return s


def rollback(
    p: Picture, *, event: str | None = None, rule: str | None = None, actor: str, reason: str
) -> tuple[Act, ...]:
    """Undo one event: the named one, the rule's newest, or the newest of all; its whole joint change.

    Needs no data and no loop. Raises: UnknownId if there is nothing to revert.
    """
    target = _to_revert(p, event, rule)
    change = p.life.change_of(target.key)
    rules = change.rules if change is not None and event is None and rule is None else (target.rule,)
    moves = tuple(m for r in rules if (m := _undo(p, _event_of(p, change, r) or target, reason)) is not None)
    if not moves:
        raise UnknownId("hand.nothing_to_revert", id=target.key)
    data = _who(actor, reason, reverts=[m.reverts for m in moves], cause="by_hand")
    return (
        Act(
            kind="manual",
            act="rollback",
            reasons=(Reason("why.by_hand", {"actor": actor}),),
            moves=moves,
            write=True,
            data=data,
        ),
    )


def rollback_to(p: Picture, event: str, *, actor: str, reason: str) -> tuple[Act, ...]:
    """Back to the values in force right after `event`: all later changes undone, in one commit.

    Needs no data and no loop. A value that today's bounds no longer allow goes to the nearest bound.
    Raises: UnknownId for an unknown event, or if those values are in force already.
    """
    then = values_after(p, event)
    events = p.snap.records.events
    later = list(events[[e.key for e in events].index(event) + 1 :])
    home = {r: p.settings.rules[r].clip(v) for r, v in then.items()}
    moved = [r for r, v in home.items() if v != p.life.values[r]]
    undone = [e.key for e in later if e.rule in moved]
    if not moved:
        raise UnknownId("hand.nothing_to_revert", id=event)
    newest = {e.rule: e.key for e in later}
    moves = tuple(
        PlannedMove(
            rule=r, old=p.life.values[r], new=home[r], kind="rollback", reverts=newest.get(r), note=reason
        )
        for r in moved
    )  # fmt: skip
    data = _who(actor, reason, reverts=undone, cause="by_hand", to=event)
    why = (Reason("why.by_hand", {"actor": actor}),)
    return (Act(kind="manual", act="rollback", reasons=why, moves=moves, write=True, data=data),)


def values_after(p: Picture, event: str) -> dict[str, float]:
    """Every rule's value right after `event`. Raises: UnknownId."""
    values = {r.name: r.init for r in p.settings.rules.values()}
    for e in p.snap.records.events:
        if e.rule in values and e.new is not None:
            values[e.rule] = e.new
        if e.key == event:
            return values
    raise UnknownId("hand.unknown_event", id=event)


def revertible(p: Picture) -> tuple[RuleEvent, ...]:
    """Events that a rollback may undo, oldest first: no rollback or restore, not yet reverted."""
    there = {e.key for e in p.snap.records.events}
    gone = {e.reverts for e in p.snap.records.events if e.reverts}
    for d in p.snap.records.decisions:
        reverts = d.data.get("reverts")
        if isinstance(reverts, list) and not there.isdisjoint(d.applied):  # what was written came true
            gone.update(str(k) for k in reverts)
    return tuple(
        e
        for e in p.snap.records.events
        if e.kind not in ("rollback", "restore")
        and e.key not in gone
        and e.rule in p.settings.rules
        and e.new is not None
    )


def _to_revert(p: Picture, event: str | None, rule: str | None) -> RuleEvent:
    if event is not None:
        found = next((e for e in p.snap.records.events if e.key == event), None)
        if found is None:
            raise UnknownId("hand.unknown_event", id=event)
        if found.rule not in p.settings.rules:
            raise UnknownId("hand.unknown_rule", rule=found.rule)
        return found
    if rule is not None and rule not in p.settings.rules:
        raise UnknownId("hand.unknown_rule", rule=rule)
    can = [e for e in revertible(p) if rule is None or e.rule == rule]
    if not can:
        raise UnknownId("hand.nothing_to_revert", rule=rule)
    return can[-1]


def _event_of(p: Picture, change: Change | None, rule: str) -> RuleEvent | None:
    keys = {m.key for m in change.moves if m.rule == rule} if change else set()
    return next((e for e in p.snap.records.events if e.key in keys), None)


def _undo(p: Picture, e: RuleEvent, note: str) -> PlannedMove | None:
    """The move that restores what was before `e`; None when that is in force already."""
    rule = p.settings.rules[e.rule]
    before = e.old if e.old is not None else _value_before(p, e)
    new, now = rule.clip(before), p.life.values[e.rule]
    if new == now:
        return None
    return PlannedMove(rule=e.rule, old=now, new=new, kind="rollback", reverts=e.key, note=note)


def _value_before(p: Picture, e: RuleEvent) -> float:
    """The last valid value of the rule before `e`, else `init`."""
    value = p.settings.rules[e.rule].init
    for other in p.snap.records.events:
        if other.key == e.key:
            break
        if other.rule == e.rule and other.new is not None:
            value = other.new
    return value


def stop(p: Picture, *, actor: str, role: str, reason: str) -> tuple[Act, ...]:
    """Back to dry run and hold, at once; what is unproven goes home in the same commit."""
    governance = ({"kind": "stop", "by": actor, "role": role, "reason": reason},)
    why = (Reason("mode.stopped", {"by": actor}),)
    acts: list[Act] = [
        Act(
            kind="mode",
            act="stop",
            reasons=why,
            governance=governance,
            data=_who(actor, reason, to="dry_run"),
        )
    ]
    if p.life.excursion is not None:
        acts += go_home(p, p.life.excursion, "loan_end", why, write=True, warn=False)
    return tuple(acts)


def resume(p: Picture, *, actor: str, role: str, reason: str) -> tuple[Act, ...]:
    """Lift a stop or a disarm, and acknowledge the open critical warnings. Live only if the loan runs."""
    if p.mode.reason.code not in ("mode.stopped", "mode.disarmed", "mode.dry_run") or not _ended(p):
        raise Refused(Reason("hand.nothing_to_resume"))
    crits = [crit_key(c) for c in p.crits]
    governance = ({"kind": "resume", "by": actor, "role": role, "reason": reason, "acknowledges": crits},)
    why = (Reason("why.by_hand", {"actor": actor}),)
    return (Act(kind="mode", act="resume", reasons=why, governance=governance, data=_who(actor, reason)),)


def _ended(p: Picture) -> bool:
    last = next(
        (g for g in reversed(p.snap.records.governance) if g.kind in ("arm", "resume", "disarm", "stop")),
        None,
    )
    return last is not None and last.kind in ("disarm", "stop")


def release(p: Picture, rule: str, *, actor: str, reason: str) -> tuple[Act, ...]:
    """A paused rule may be explored again."""
    if rule not in p.settings.rules:
        raise UnknownId("hand.unknown_rule", rule=rule)
    if p.life.pause_of(rule, p.snap.clock_ms) is None and p.life.rest_until(rule, p.snap.clock_ms) is None:
        raise Refused(Reason("hand.not_paused", {"rule": rule}))
    why = (Reason("why.by_hand", {"actor": actor}),)
    return (Act(kind="manual", act="release", reasons=why, data=_who(actor, reason, rule=rule)),)
