"""What the loop proposes and may not write itself: ways back, emergency moves; carried out by a person.

Answers "does it still stand, and what exactly would it write?". The moves are those on record; the core is
asked again before anything is written. Pure. Source: contract.md (rules of acting), loop.md (harm).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from selftune import guards, hands, watch
from selftune.decision_lines import keys_of, number_of, objects
from selftune.domain import Decision, GuardCheck, Reason, Refused, UnknownId
from selftune.picture import Picture
from selftune.plan import Act, PlannedMove

EMERGENCY = "emergency"
# An emergency leads away from harm and asks for no pace, no quiet and no free place.
EMERGENCY_GUARDS: tuple[Callable[[guards.Situation], GuardCheck], ...] = (
    guards.settings_valid,
    guards.not_stopped,
    guards.clock_right,
    guards.fresh,
)


def is_proposal(d: Decision) -> bool:
    """True for a way back or an emergency move that was proposed and not written."""
    return d.act in hands.PROPOSED_BACK and not d.applied


def names_one(p: Picture, decision_id: str) -> bool:
    """True when this id is that of such a proposal."""
    return any(d.id == decision_id and is_proposal(d) for d in p.snap.records.decisions)


def carry_out(p: Picture, decision_id: str, *, actor: str, reason: str) -> tuple[Act, ...]:
    """The very moves that this decision proposed, written by a person.

    Raises: UnknownId if it proposes none; Refused if it was turned down, a value has moved since, or an
    emergency is over or may not be acted on now.
    """
    d = next((x for x in p.snap.records.decisions if x.id == decision_id), None)
    if d is None:
        raise UnknownId("hand.unknown_decision", id=decision_id)
    if not is_proposal(d):
        raise UnknownId("hand.no_proposal", id=decision_id)
    if d.id in hands.turned_down(p):
        raise Refused(Reason("hand.suggestion_over", {"id": d.id, "phase": "REJECTED"}))
    return emergency(p, d, actor, reason) if d.act == EMERGENCY else back(p, d, actor, reason)


def back(p: Picture, d: Decision, actor: str, reason: str) -> tuple[Act, ...]:
    """A proposed way back; needs no data and no loop, as every rollback."""
    would, keys = objects(d.data.get("would")), keys_of(d.data.get("reverts"))
    if not would and keys:  # a record of an older form names the event only
        return hands.rollback(p, event=keys[-1], actor=actor, reason=reason)
    moves = tuple(m for x in would if (m := _move_back(p, x, reason)) is not None)
    if not moves:  # somebody did it already, or it names nothing
        raise UnknownId("hand.nothing_to_revert", id=d.id)
    data = {
        "actor": actor, "why": reason, "of": d.id, "cause": "by_hand",
        "undoes": keys_of(d.data.get("undoes")), "reverts": [m.reverts for m in moves if m.reverts],
    }  # fmt: skip
    why = (Reason("why.by_hand", {"actor": actor}),)
    return (Act(kind="manual", act="rollback", reasons=why, moves=moves, write=True, data=data),)


def _move_back(p: Picture, x: Mapping[str, object], note: str) -> PlannedMove | None:
    """One move of the record as it would be written now; None when the value is there already."""
    rule = p.settings.rules.get(str(x.get("rule")))
    old, new = number_of(x.get("old")), number_of(x.get("new"))
    if rule is None or old is None or new is None:
        raise UnknownId("hand.unknown_rule", rule=str(x.get("rule")))
    now, home = p.life.values[rule.name], rule.clip(new)
    if now == home:
        return None
    if now != old:
        raise Refused(Reason("hand.value_moved", {"rule": rule.name, "observed": now, "limit": old}))
    last = p.life.last_event.get(rule.name)
    return PlannedMove(
        rule=rule.name, old=now, new=home, kind="rollback", reverts=last.key if last else None, note=note
    )


def emergency(p: Picture, d: Decision, actor: str, reason: str) -> tuple[Act, ...]:
    """The emergency move, if the core still wants just this one and the data can be trusted."""
    if not p.settings.governance.manual_apply:
        raise Refused(Reason("hand.manual_apply_off"))
    failing = [c.reason for g in EMERGENCY_GUARDS if not (c := g(p.situation)).passed]
    if failing:
        raise Refused(*failing)
    act = wanted(p)
    if act is None or not _same(d, act):
        raise Refused(Reason("hand.emergency_over", {"id": d.id}))
    moves = tuple(
        PlannedMove(rule=m.rule, old=m.old, new=m.new, kind="manual", note=reason) for m in act.moves
    )
    why = (Reason("why.by_hand", {"actor": actor}), *act.reasons)
    data = {"actor": actor, "why": reason, "of": d.id, "cause": "hard_limit"}
    return (Act(kind="manual", act=EMERGENCY, reasons=why, moves=moves, write=True, data=data),)


def wanted(p: Picture) -> Act | None:
    """The emergency move that the core would make at this moment; None when it would make none."""
    return next((a for a in watch.hard_limit(p) if a.act == EMERGENCY and a.moves), None)


def _same(d: Decision, act: Act) -> bool:
    said = {
        (str(x.get("rule")), number_of(x.get("old")), number_of(x.get("new")))
        for x in objects(d.data.get("would"))
    }
    return said == {(m.rule, m.old, m.new) for m in act.moves}


def moves_back(p: Picture, d: Decision) -> tuple[PlannedMove, ...]:
    """The moves that this proposed way back would write now; empty when there is nothing to take back."""
    try:
        return back(p, d, "", "")[0].moves
    except (UnknownId, Refused):
        return ()


def refusals(p: Picture, decision_id: str) -> tuple[Reason, ...]:
    """Why it cannot be carried out at this moment; empty when it can."""
    try:
        carry_out(p, decision_id, actor="", reason="")
    except Refused as no:
        return no.reasons
    except UnknownId as no:
        return (no.reason,)
    return ()
