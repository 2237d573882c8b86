"""How acts are built: a return, a confirmation, a verdict, with everything their records must carry.

Answers "what does this act look like on record?". Decides nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from selftune.domain import Effect, JsonDict, Reason, VerdictReport, short_name
from selftune.effect_record import effect_json
from selftune.judging import direction, warn_breach
from selftune.lifecycle import Change, Excursion, Life, Look
from selftune.picture import BLIND_WINDOWS, Picture
from selftune.plan import Act, PlannedMove

JUDGED_HARM = frozenset({"worsened", "early_harm", "probation_harm"})
HARM_CAUSES = JUDGED_HARM | {"hard_limit"}


def back_moves(
    life: Life, home: Mapping[str, float], rules: Iterable[str], *, kind: str = "rollback", look: bool = False
) -> tuple[PlannedMove, ...]:
    """One move for each of `rules` whose value is not home; each names the event it undoes."""
    return tuple(
        PlannedMove(
            rule=r,
            old=life.values[r],
            new=home[r],
            kind=kind,
            reverts=life.last_event[r].key if r in life.last_event else None,
            look=look,
        )
        for r in rules
        if life.values[r] != home[r]
    )


def return_act(
    p: Picture,
    cause: str,
    reasons: tuple[Reason, ...],
    *,
    home: Mapping[str, float],
    undoes: Iterable[str],
    scope: str,
    harm: JsonDict | None = None,
    write: bool | None = None,
    warn: bool = True,
    act: str = "return",
) -> Act:
    """Put rules back `home`, or propose it where the loop may not write.

    `scope`: `step` (to the values before it) or `excursion` (to the anchor). A hard limit at home
    keeps the present values instead (safe home). `auto_rollback: false` leaves judged harm to a person;
    a hard limit, a budget's end and blindness are no matter of judgement.
    """
    moves = back_moves(p.life, home, home, look=act == "look")
    by_itself = p.mode.live and (p.settings.auto_rollback or cause not in JUDGED_HARM)
    writes = by_itself if write is None else write
    data: dict[str, Any] = {
        "cause": cause,
        "scope": scope,
        "undoes": list(undoes),
        "reverts": [m.reverts for m in moves if m.reverts],
        "home": dict(home),
    }
    if harm is not None and writes:
        data["harm"] = harm
    warnings = (_warning(cause, reasons, moves),) if warn and cause in HARM_CAUSES else ()
    return Act(
        kind="cycle", act=act, reasons=reasons, moves=moves, write=writes, data=data, warnings=warnings
    )


def _warning(cause: str, reasons: tuple[Reason, ...], moves: tuple[PlannedMove, ...]) -> JsonDict:
    return {
        "severity": "warn",
        "rule": moves[0].rule if moves else None,
        "signal": {"cause": cause, **reasons[0].params},
        "note": reasons[0].code,
        "effect": moves[0].reverts if moves else None,
    }


def go_home(
    p: Picture, exc: Excursion, cause: str, reasons: tuple[Reason, ...], *, look: bool = False, **kw: Any
) -> tuple[Act, ...]:
    """The excursion back to the anchor in one commit; if home is not safe, the present values are proven
    enough: they become the anchor (`anchor_unsafe`)."""
    home = {r: anchor for r, (anchor, _) in exc.displaced.items()}
    safe, p_home = p.seen.safe_home({**p.life.values, **home}, p.life.values)
    if not safe:
        return (
            confirm(p, "anchor_unsafe", (Reason("confirm.anchor_unsafe", {"observed": p_home}), *reasons)),
        )
    return (
        return_act(
            p,
            "look" if look else cause,
            reasons,
            home=home,
            undoes=() if look else exc.steps,
            scope="excursion",
            act="look" if look else "return",
            **kw,
        ),
    )


def confirm(p: Picture, basis: str, reasons: tuple[Reason, ...], **data: Any) -> Act:
    """The present values of the excursion's rules become the anchor."""
    exc = p.life.excursion
    anchor = {r: v for r, (_, v) in exc.displaced.items()} if exc else {}
    return Act(
        kind="verdict",
        act="confirm",
        reasons=reasons,
        data={
            "basis": basis,
            "anchor": {**p.life.anchor, **anchor},
            "steps": list(exc.steps) if exc else [],
            **data,
        },
    )


def harm_of(change: Change, beyond: float, deltas: Mapping[str, float] | None = None) -> JsonDict:
    """What the fold needs to bar and to pause: rule, sign, where the barred half-line begins.

    `deltas`: the harmed metrics and how far they moved, for the verification of the way back.
    """
    move = change.moves[-1]
    sign = -1 if move.new is not None and move.new < move.old else 1
    return {"rule": move.rule, "sign": sign, "anchor": beyond, "deltas": dict(deltas or {})}


def harmed_deltas(report: VerdictReport, effect: Effect, p: Picture) -> dict[str, float]:
    """Which metrics the verdict says were harmed, and how far they moved.

    A loss of the score names no metric: then all that moved the bad way by what counts as good.
    """
    named = {str(r.params["metric"]) for r in report.reasons if r.code == "metric_loss"}
    found = {}
    for m, e in effect.metrics.items():
        if e.delta is None or m not in p.settings.targets:
            continue
        bad = -direction(p.settings.targets[m], e.pre_mean) * e.delta
        if m in named or (not named and bad >= p.settings.good[m]):
            found[m] = e.delta
    return found


def blind_reason(p: Picture) -> Reason:
    """For how long the data have not been good, against what an open change may wait."""
    return Reason(
        "blind",
        {
            "observed": round(min(p.blind_s, 1e9), 1),
            "limit": BLIND_WINDOWS * p.settings.observe_window_s,
            "unit": "s",
        },
    )


def evaluation(p: Picture, change: Change, effect: Effect | None, report: VerdictReport) -> Act:
    """The first verdict of a change, with the whole effect: whatever the CSV can hold and more."""
    warn = warn_breach(effect, p.settings) if effect is not None else ()
    return Act(
        kind="verdict",
        act="evaluate",
        reasons=report.reasons,
        data={
            "change": change.id,
            "keys": list(change.keys),
            "rules": list(change.rules),
            "origin": change.origin.value,
            "verdict": report.verdict.value,
            "score_gain": report.score_gain,
            "p_gain": report.p_gain,
            "p_loss": report.p_loss,
            "warn": [r.as_json() for r in warn],
            "deltas": deltas_json(change, effect),
            "effect": effect_json(effect),
        },
    )


def look_over(
    look: Look, result: str, reasons: tuple[Reason, ...], effect: Effect | None = None, *,
    cause: str | None = None, proven: bool = False,
) -> Act:  # fmt: skip
    """The end of a reversal look. `cause`: why it could not be judged, None if it was.

    `proven`: what is restored is proven better, not just no worse.
    """
    return Act(
        kind="verdict",
        act="look",
        reasons=reasons,
        data={
            "change": look.change,
            "result": result,
            "proven": proven,
            "cause": cause,
            "left": dict(look.left),
            "steps": list(look.steps),
            "effect": effect_json(effect),
        },
    )


def deltas_json(change: Change, effect: Effect | None) -> JsonDict | None:
    """The seed's `deltas` object, with `d_<m>` for any other metric, `rule`, `ts_ms` and `event_id`."""
    if effect is None:
        return None
    found: JsonDict = {f"d_{short_name(m)}": e.delta for m, e in effect.metrics.items()}
    return {**found, "rule": change.rules[0], "ts_ms": change.ts_ms, "event_id": change.keys[0]}
