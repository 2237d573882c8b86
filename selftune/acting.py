"""A plan as lines to be written: the only place where a decision's JSON is composed.

Answers "what goes on record for this plan?". Pure; `ledger.commit` mints ids and stamps and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from selftune.book import Batch, DecisionDraft, EventDraft
from selftune.domain import GuardCheck, JsonDict, Reason, short_name
from selftune.plan import ACTOR, Act, Plan, proposal_json


def iso(ms: int, zone: tzinfo) -> str:
    """An instant as ISO 8601 with the zone's offset."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).isoformat(timespec="milliseconds")


Tell = Callable[[Reason], str]  # a reason as a sentence in the configured language


def code_of(reason: Reason) -> str:
    """The bare code: how a reason is told where no catalogue is at hand."""
    return reason.code


def batch_of(
    plan: Plan, zone: tzinfo, *, actor: str = ACTOR, deltas: JsonDict | None = None, tell: Tell = code_of
) -> Batch:
    """Everything one commit of this plan writes. `deltas`: the evidence in use, for cycles.

    `tell` puts a reason into words for the notes of rule events and warnings, which people read.
    """
    drafts = tuple(draft_of(plan, act, zone, actor=actor, deltas=deltas, tell=tell) for act in plan.acts)
    governance = tuple(g for act in plan.acts for g in act.governance)
    return Batch(
        decisions=drafts,
        governance=governance,
        governance_first=bool(governance),
        warnings=tuple(
            {**w, "note": tell(Reason(w["note"], w["signal"]))} for act in plan.acts for w in act.warnings
        ),
    )


def draft_of(
    plan: Plan,
    act: Act,
    zone: tzinfo,
    *,
    actor: str = ACTOR,
    deltas: JsonDict | None = None,
    tell: Tell = code_of,
) -> DecisionDraft:
    """One act as a decision line with the events it intends (contract.md, decisions)."""
    moves = act.moves if act.write else ()
    note = tell(act.reasons[0]) if moves and act.reasons else str(act.act)
    events = tuple(
        EventDraft(
            rule=m.rule,
            old=m.old,
            new=m.new,
            kind=m.kind,
            actor=actor,
            note=m.note or note,
            reverts=m.reverts,
            look=m.look,
        )
        for m in moves
    )
    data: dict[str, Any] = {
        "kind": act.kind,
        "act": act.act,
        "mode": plan.effective.value,
        "deltas": deltas if act.kind in ("cycle", "suggest") else None,
        "proposals": [proposal_json(x) for x in act.proposals],
        "reasons": [r.as_json() for r in act.reasons],
        "guards": [guard_json(g, zone) for g in act.guards],
        "verdicts": _verdicts(act),
        "score": plan.score,
        "attainment": dict(plan.attainment),
        "window": {
            m: {
                "mean": w.mean,
                "se": w.se,
                "n": w.n,
                "from": iso(w.start_ms, zone),
                "to": iso(w.end_ms, zone),
            }
            for m, w in plan.windows.items()
        },
        "config": plan.config_sha,
        "digest": plan.digest,
        "policy": {"name": plan.policy[0], "version": plan.policy[1]},
        "approvals_head": plan.approvals_head,
        "after": plan.after,
        **act.data,
    }
    if act.moves and not act.write and act.act != "step":
        data["would"] = [{"rule": m.rule, "old": m.old, "new": m.new, "kind": m.kind} for m in act.moves]
    return DecisionDraft(data=_stamped(data, zone), events=events)


def _verdicts(act: Act) -> list[JsonDict]:
    if act.kind != "verdict" or "verdict" not in act.data:
        return []
    keys = act.data.get("keys") or act.data.get("steps") or ()
    return [
        {"event": k, "verdict": act.data["verdict"], "reasons": [r.as_json() for r in act.reasons]}
        for k in keys
    ]


def guard_json(g: GuardCheck, zone: tzinfo) -> JsonDict:
    """A guard that holds, as the contract's object."""
    return {
        "code": g.code,
        "rule": g.rule,
        "observed": g.observed,
        "limit": g.limit,
        "unit": g.unit,
        "until": iso(g.until_ms, zone) if g.until_ms is not None else None,
        "params": dict(g.params),
    }


def deltas_json(deltas: Mapping[str, Any] | None, zone: tzinfo) -> JsonDict | None:
    """The seed's `deltas`: short names for the four, the rule, the event's stamp and key."""
    if deltas is None:
        return None
    rest = {"rule", "ts_ms", "event_id"}
    found: JsonDict = {f"d_{short_name(m)}": x for m, x in deltas.items() if m not in rest}
    return {**found, "rule": deltas["rule"], "ts": iso(deltas["ts_ms"], zone), "event_id": deltas["event_id"]}


def _stamped(data: dict[str, Any], zone: tzinfo) -> JsonDict:
    """Instants inside an act's own data as text."""
    deltas = data.get("deltas")
    if isinstance(deltas, dict) and "ts_ms" in deltas:
        rest = {k: v for k, v in deltas.items() if k != "ts_ms"}
        data["deltas"] = {**rest, "ts": iso(deltas["ts_ms"], zone)}
    return data
