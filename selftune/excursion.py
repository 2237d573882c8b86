"""The unproven steps since the anchor, judged together: looks, budget, reversal look, way back verified.

Answers "is where we are better than where we came from?" once no single change is open. Pure.
Source: loop.md (judging, harm, regimes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from selftune.acts import (
    HARM_CAUSES,
    back_moves,
    blind_reason,
    confirm,
    go_home,
    harm_of,
    look_over,
)
from selftune.domain import Effect, Reason, Verdict, VerdictReport
from selftune.effect_record import effect_json, recorded
from selftune.guards import most_steps, pace_s
from selftune.harm import early_harm, probation_harm
from selftune.judging import (
    MAX_LOOKS,
    P_EQUAL,
    GapContrast,
    equal_within,
    gap_contrast,
    judge_excursion,
    judge_look,
    judge_steps,
    targets_met,
    verify_rollback,
)
from selftune.lifecycle import Change, ChangeKind, Excursion, Look
from selftune.objective import objective_score
from selftune.picture import Picture
from selftune.plan import Act
from selftune.seen import JUMP_SUM, LATEST

IDLE_CYCLES = 6  # loop.md: no proposal for 6 cycles ends an excursion
VERIFY_WITHIN = 10  # windows after a way back in which it can still be verified


# ------------------------------------------------------------------------------- reversal look
def reversal_look(p: Picture) -> tuple[Act, ...]:
    """A look under way: restored if the left values are no worse, else the return has happened."""
    look = p.life.look
    if look is None:
        return ()
    change = p.life.change(look.change)
    if change is None:
        return (look_over(look, "stay", (Reason("look.lost"),), cause="lost"),)
    if look.disturbed:
        return (look_over(look, "stay", (Reason("look.disturbed"),), cause="disturbed"),)
    if p.snap.epoch_at_ms is not None and p.snap.epoch_at_ms > look.at_ms:
        return (look_over(look, "stay", (Reason("look.clock_back"),), cause="clock_back"),)
    if p.blind_too_long:
        return (look_over(look, "stay", (blind_reason(p),), cause="blind"),)
    if p.health.stale:
        return ()
    due_ms = change.ts_ms + round(p.settings.observe_window_s * 1000)
    if not p.reached(due_ms):
        return _look_harm(p, look, change)
    effect = p.effect_of(change)
    if not effect.final and p.snap.clock_ms - look.at_ms < 2 * p.settings.observe_window_s * 1000:
        return ()
    verdict = judge_look(effect, p.settings)
    if verdict.restore:
        return _restore(p, look, verdict.reasons, effect, proven=verdict.proven)
    return (look_over(look, "stay", verdict.reasons, effect),)


def _look_harm(p: Picture, look: Look, change: Change) -> tuple[Act, ...]:
    """Early harm at the anchor ends the look early in favour of the values that were left."""
    found = early_harm(
        p.snap.series,
        p.settings,
        event_ms=change.ts_ms,
        now_ms=p.snap.now_ms,
        others_ms=[e.ts_ms for e in p.snap.records.events if e.key not in change.keys],
    )
    return _restore(p, look, found.reasons, None, proven=True) if found.harmed else ()


def _restore(
    p: Picture, look: Look, reasons: tuple[Reason, ...], effect: Effect | None, *, proven: bool
) -> tuple[Act, ...]:
    """The values that were left come back as the anchor; `proven`: they are better, not just no worse."""
    moves = back_moves(p.life, look.left, look.left, kind="restore")
    if not p.mode.live:
        return (look_over(look, "stay", (p.mode.reason, *reasons), effect, cause="loan_end"),)
    data = {"cause": "look", "proven": proven}
    return (
        look_over(look, "restore", reasons, effect, proven=proven),
        Act(kind="cycle", act="restore", reasons=reasons, moves=moves, write=True, data=data),
    )


# ------------------------------------------------------------------------------- verified rollback
def verified(p: Picture) -> tuple[Act, ...]:
    """After a rollback for harm: did going back undo the harm? If not, it was not ours."""
    due = round(p.settings.observe_window_s * 1000)
    for change in p.life.changes[-20:]:
        if change.kind is not ChangeKind.RETURN or change.verified is not None:
            continue
        if change.cause not in HARM_CAUSES or p.health.stale or not p.reached(change.ts_ms + due):
            continue
        if p.snap.clock_ms - change.at_ms > VERIFY_WITHIN * due:
            continue
        harmed = _harmed_deltas(p, change)
        effect = p.effect_of(change)
        result = verify_rollback(effect, harmed, p.settings) if harmed else None
        name = result.result.value if result else "undecided"
        reasons = result.reasons if result else (Reason("verified.no_numbers"),)
        warning = (
            ({"severity": "warn", "rule": change.rules[0], "signal": {}, "note": "verified.not_ours"},)
            if name == "not_ours"
            else ()
        )
        return (
            Act(
                kind="verdict",
                act="verified",
                reasons=reasons,
                data={"change": change.id, "result": name, "effect": effect_json(effect)},
                warnings=warning,
            ),
        )
    return ()


def _harmed_deltas(p: Picture, change: Change) -> dict[str, float]:
    d = p.decision(change.decision)
    harm = d.data.get("harm") if d is not None else None
    deltas = harm.get("deltas") if isinstance(harm, Mapping) else None
    return {str(m): float(x) for m, x in deltas.items()} if isinstance(deltas, Mapping) else {}


# ------------------------------------------------------------------------------- excursion
def judged(p: Picture) -> tuple[Act, ...]:
    """All unproven steps against the anchor: harm, looks, and what happens when the budget ends."""
    exc = p.life.excursion
    if exc is None or p.life.look is not None or any(c.kind is ChangeKind.STEP for c in p.open):
        return ()
    if p.blind_too_long:
        why = blind_reason(p)
        return go_home(p, exc, "blind", (why,), warn=False)
    if p.open:
        return _overdue(p, exc)
    if p.health.stale:
        return ()
    if exc.contrast_ok and (harmed := _probation(p, exc)):
        return harmed
    if exc.contrast_ok and (looked := _look_at(p, exc)):
        return looked
    return _budget_end(p, exc)


def _probation(p: Picture, exc: Excursion) -> tuple[Act, ...]:
    """The watch goes on after the verdict, against the anchor's windows."""
    found = probation_harm(
        p.snap.series,
        p.settings,
        anchor=p.seen.at(_home(p, exc))[-LATEST:],
        since_ms=max(exc.last_ts_ms, p.life.last_any.ts_ms if p.life.last_any is not None else 0),
        now_ms=p.snap.now_ms,
        quiet=p.quiet,
    )
    if not found.harmed:
        return ()
    last = p.life.change(exc.steps[-1])
    harm = harm_of(last, p.life.anchor[last.rules[-1]], found.deltas) if last else None
    return go_home(p, exc, "probation_harm", found.reasons, harm=harm)


def _look_at(p: Picture, exc: Excursion) -> tuple[Act, ...]:
    """A judgement of the whole excursion at R, 2R, 4R, 8R after its last step, at most four."""
    if exc.looks >= MAX_LOOKS or exc.looks_since_last >= MAX_LOOKS:
        return ()
    after_s = p.settings.observe_window_s * 2**exc.looks_since_last
    if not p.reached(exc.last_ts_ms + after_s * 1000):
        return ()
    contrast = _contrast(p, exc)
    late = p.reached(exc.last_ts_ms + (after_s + p.settings.observe_window_s + p.settings.settle_s) * 1000)
    if contrast is None and not late:
        return ()  # the first window free of the step's washout is not whole yet
    if contrast is None:
        return (_looked(exc, Verdict.INCONCLUSIVE, (Reason("excursion.no_windows"),), spent=False),)
    report = judge_excursion(contrast, p.settings, exc.looks)
    if _full(p, exc) and exc.looks_since_last == 0:
        report = _added_up(p, exc, contrast) or report
    looked = _looked(
        exc,
        report.verdict,
        report.reasons,
        p_gain=report.p_gain,
        score_gain=report.score_gain,
        spent=contrast.undecided is None,
    )
    if report.verdict is Verdict.IMPROVED and p.settings.confirm.value == "standard":
        return looked, confirm(p, "improved", report.reasons)
    if report.verdict is Verdict.WORSENED:
        last = p.life.change(exc.steps[-1])
        harm = harm_of(last, p.life.anchor[last.rules[-1]]) if last else None
        return looked, *go_home(p, exc, "worsened", report.reasons, harm=harm)
    return (looked,)


def _looked(exc: Excursion, verdict: Verdict, reasons: tuple[Reason, ...], **data: Any) -> Act:
    return Act(
        kind="verdict",
        act="excursion",
        reasons=reasons,
        data={"verdict": verdict.value, "look": exc.looks + 1, "steps": list(exc.steps), **data},
    )


def _home(p: Picture, exc: Excursion) -> dict[str, float]:
    """All rule values as they would be at the anchor."""
    return {**p.life.values, **{r: a for r, (a, _) in exc.displaced.items()}}


def _contrast(p: Picture, exc: Excursion) -> GapContrast | None:
    """Present windows minus the anchor's, calibrated on quiet pairs as far apart."""
    home = _home(p, exc)
    since = max((m for m in p.confirms_ms if m <= exc.start_ts_ms), default=0)
    anchor = [w for w in p.seen.at(home) if since <= w.start_ms and w.end_ms <= exc.start_ts_ms]
    present = [w for w in p.seen.at(p.life.values) if w.start_ms >= exc.last_ts_ms]
    if not anchor or not present:
        return None
    return gap_contrast(anchor=anchor[-1], present=present[-1], quiet=p.quiet, settings=p.settings)


def _added_up(p: Picture, exc: Excursion, contrast: GapContrast) -> VerdictReport | None:
    """What the steps come to by their own effects, if that is a proven gain; None where it is not.

    Stands in where too few quiet windows tell how far chance takes the stream over the whole way, and no
    look could. Asked once an excursion, when no step follows: one more chance to err and no more.
    """
    blind = contrast.undecided is not None and contrast.undecided.code == "too_few_pairs"
    alive = [c for s in exc.steps if (c := p.life.change(s)) is not None and c.ended is None]
    if not blind or exc.looks or p.settings.confirm.value != "standard" or len(alive) < 2:
        return None
    if any(c.verdict is Verdict.WORSENED for c in alive) or not _explain(p, alive):
        return None
    judged = {c.id: d for c, d in p.judged}
    effects = [recorded(judged[c.id])[0] for c in alive if c.id in judged]
    known = [e for e in effects if e is not None]
    report = judge_steps(known, p.settings) if len(known) == len(alive) else None
    if report is None or report.verdict is not Verdict.IMPROVED or not _still_there(p, contrast, report):
        return None
    each = Reason("excursion.added_up", {"observed": len(alive), "limit": 2, "unit": "steps"})
    return replace(report, reasons=(*report.reasons, each))


def _explain(p: Picture, alive: Sequence[Change]) -> bool:
    """Whether these steps, and nothing else, lead from the anchor to the present values."""
    values = dict(p.life.anchor)
    for m in (m for c in alive for m in c.moves):
        if values.get(m.rule) != m.old or m.new is None:
            return False
        values[m.rule] = m.new
    return values == dict(p.life.values)


def _still_there(p: Picture, contrast: GapContrast, report: VerdictReport) -> bool:
    """Whether the present window shows at least half of the gain: what fades behind a step is no gain."""
    here = {m: (contrast.base.get(m) or 0.0) + d for m, d in contrast.apart.items()}
    before, now = objective_score(p.settings, contrast.base), objective_score(p.settings, here)
    return before is not None and now is not None and now - before >= (report.score_gain or 0.0) / 2


def _budget_end(p: Picture, exc: Excursion) -> tuple[Act, ...]:
    """When steps, time or ideas are spent: a gain that the steps prove stays, and what is equal; the rest is
    looked at from home."""
    why = _spent(p, exc)
    if why is None:
        return ()
    contrast = _contrast(p, exc) if exc.contrast_ok else None
    full = why.code == "excursion.steps"  # then its first look has asked
    if contrast is not None and not full and (report := _added_up(p, exc, contrast)) is not None:
        looked = _looked(exc, report.verdict, report.reasons, p_gain=report.p_gain,
                         score_gain=report.score_gain, spent=False)  # fmt: skip
        return looked, confirm(p, "improved", (*report.reasons, why))
    done = targets_met(p.windows, p.settings) >= P_EQUAL or why.code == "excursion.idle"
    if contrast is not None and done and equal_within(contrast, p.settings):
        return (confirm(p, "equal", (why, Reason("confirm.equal"))),)
    if exc.reversal_used:
        return go_home(p, exc, "budget", (why,), warn=False)
    return go_home(p, exc, "budget", (why,), look=True, warn=False)


def _overdue(p: Picture, exc: Excursion) -> tuple[Act, ...]:
    """Others who keep writing leave no window to look through; the hour ends all the same."""
    why = _too_old(p, exc)
    return go_home(p, exc, "budget", (why,), warn=False) if why is not None else ()


def _too_old(p: Picture, exc: Excursion) -> Reason | None:
    age_s, limit = (p.snap.clock_ms - exc.start_at_ms) / 1000, p.settings.excursion.max_s
    if age_s < limit:
        return None
    return Reason("excursion.time", {"observed": round(age_s), "limit": limit, "unit": "s"})


def _spent(p: Picture, exc: Excursion) -> Reason | None:
    """Why the excursion's budget is at its end; None while it runs."""
    since_s = (p.snap.clock_ms - exc.last_at_ms) / 1000
    if (old := _too_old(p, exc)) is not None:
        return old
    if not p.reached(exc.last_ts_ms + p.settings.observe_window_s * 1000):
        return None
    if not exc.contrast_ok and _regime_since(p, exc):
        return Reason("excursion.regime")
    most = most_steps(p.settings, p.life, p.fallen)
    looks_over = exc.looks >= MAX_LOOKS or exc.looks_since_last >= MAX_LOOKS or not exc.contrast_ok
    if _full(p, exc) and looks_over:
        return Reason("excursion.steps", {"observed": len(exc.steps), "limit": most, "unit": "steps"})
    if p.settings.confirm.value == "reversal" and _full(p, exc):
        return Reason("excursion.steps", {"observed": len(exc.steps), "limit": most, "unit": "steps"})
    if since_s >= IDLE_CYCLES * pace_s(p.settings):
        return Reason(
            "excursion.idle",
            {"observed": round(since_s), "limit": IDLE_CYCLES * pace_s(p.settings), "unit": "s"},
        )
    return None


def _full(p: Picture, exc: Excursion) -> bool:
    return len(exc.steps) >= most_steps(p.settings, p.life, p.fallen)


def _regime_since(p: Picture, exc: Excursion) -> bool:
    return p.life.regime_from_ms is not None and p.life.regime_from_ms >= exc.start_ts_ms


def regime(p: Picture) -> tuple[Act, ...]:
    """A jump of the response at unchanged values begins a new regime."""
    if p.health.stale or p.open or p.life.look is not None:
        return ()
    found = p.seen.jumped(p.life.values)
    if found is None:
        return ()
    start_ms, size = found
    return (
        Act(
            kind="verdict",
            act="regime",
            reasons=(Reason("regime.jump", {"observed": round(size, 1), "limit": JUMP_SUM, "unit": "z²"}),),
            data={"from_ms": start_ms},
        ),
    )
