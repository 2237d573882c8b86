"""The safety side of a cycle: what is open is watched, judged, confirmed, or put back.

Answers "what must be done about what has already been changed?", most urgent first. Each stage
returns the acts it wants, or nothing. Pure. Source: loop.md, house.md (life of one change).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import inf

from selftune.acts import (
    blind_reason,
    confirm,
    evaluation,
    go_home,
    harm_of,
    harmed_deltas,
    look_over,
    return_act,
)
from selftune.domain import (
    Effect,
    GuardCheck,
    Origin,
    Phase,
    Reason,
    Verdict,
    VerdictReport,
)
from selftune.guards import MIN_QUIET_S, small_step
from selftune.harm import early_harm
from selftune.judging import judge_step, proves
from selftune.lifecycle import WAY_BACK, Change, ChangeKind, Excursion
from selftune.picture import Picture
from selftune.plan import ACTOR, Act, PlannedMove
from selftune.policy_state import SEED_LEVER

EMERGENCY_APART_S = 30.0  # loop.md: emergency moves lie at least this far apart
BREACH_WINDOW_S = 20.0  # the mean that breaks a hard limit: a way back needs as long to show
NO_QUIET_WARN_S = 3600.0  # loop.md: after an hour without quiet time, one warning
FIGHT_S = 3600.0  # a foreign value outside the bounds is brought back once an hour, not fought over


# ------------------------------------------------------------------------------- stages
def abandoned(p: Picture) -> tuple[Act, ...]:
    """A decision whose event never reached the history is never applied late."""
    return tuple(
        Act(
            kind="cycle",
            act="abandon",
            reasons=(Reason("abandon.not_written", {"n": len(keys)}),),
            data={"abandoned": list(keys), "of": decision},
        )
        for decision, keys in p.life.orphans.items()
    )


def loan_end(p: Picture) -> tuple[Act, ...]:
    """A loan that is over is recorded as over; what is open goes home first, its last permitted act.

    Where nothing of ours is unproven only the record is written. The same path finds a return that
    is owed since an earlier end (a kill in between, a stop by hand with the loop dead).
    """
    if p.mode.live or p.mode.suspended:
        return ()
    acts: list[Act] = []
    why = p.mode.ended or p.mode.reason
    exc, look = p.life.excursion, p.life.look
    if exc is not None:
        acts += go_home(p, exc, "loan_end", (why,), write=True, warn=False)
    elif look is not None:
        acts.append(look_over(look, "stay", (why,), cause="loan_end"))
    if p.mode.ended is not None:
        disarm = {
            "kind": "disarm",
            "by": "selftune",
            "role": "loop",
            "reason": why.code,
            "params": dict(why.params),
        }
        acts.append(
            Act(kind="mode", act="disarm", reasons=(why,), governance=(disarm,), data={"to": "dry_run"})
        )
    return tuple(acts)


def reobserve(p: Picture) -> tuple[Act, ...]:
    """After a jump back of the stream's clock, what is open is observed again from the new epoch on."""
    epoch_at, start = p.snap.epoch_at_ms, p.snap.series.epoch_start_ms
    if epoch_at is None or start is None:
        return ()
    return tuple(
        Act(
            kind="verdict",
            act="reobserve",
            reasons=(Reason("reobserve.clock_back", {"epoch": p.snap.series.epoch}),),
            data={"change": c.id, "from_ms": start},
        )
        for c in p.open
        if c.at_ms < epoch_at and (c.reobserved_at_ms is None or c.reobserved_at_ms < epoch_at)
    )


def superseded(p: Picture) -> tuple[Act, ...]:
    """A change that ended before its verdict: moved again, or itself the step home. Said once."""
    last = {rule: e.key for rule, e in p.life.last_event.items()}

    def why(c: Change) -> Reason:
        home = all(last.get(m.rule) == m.key for m in c.moves)  # nobody moved them after this
        params = {"rule": c.rules[0], "phase": c.ended.value if c.ended else None}
        return Reason("supersede.home" if home else "supersede.other_event", params)

    return tuple(
        Act(kind="verdict", act="supersede", reasons=(why(c),), data={"change": c.id, "keys": list(c.keys)})
        for c in p.life.changes
        if c.ended in (Phase.SUPERSEDED, Phase.ROLLED_BACK)
        and not c.recorded
        and c.verdict is None
        and c.kind not in WAY_BACK | {ChangeKind.FOREIGN}
        and p.snap.clock_ms - c.at_ms < 24 * 3600 * 1000
    )


def hard_limit(p: Picture) -> tuple[Act, ...]:
    """A broken hard limit outranks everything: what is open goes back, else one emergency move."""
    if not p.breaches:
        return ()
    reasons = tuple(c.reason for c in p.breaches)
    exc = p.life.excursion
    if _just_went_back(p):
        return ()
    theirs = next((c for c in reversed(p.open) if c.origin is not Origin.LOOP), None)
    if theirs is not None and theirs.at_ms >= _last_step_at_ms(p):
        # what came last is the likeliest cause, whoever did it, and goes first
        home = {m.rule: p.settings.rules[m.rule].clip(m.old) for m in theirs.moves}
        act = return_act(p, "hard_limit", reasons, home=home, undoes=(theirs.id,), scope="step")
        if act.moves:  # else what they wrote changed nothing, and cannot be what broke the limit
            return (act,)
    if exc is not None:
        last = p.life.change(exc.steps[-1])
        home, undoes = _safer_home(p, exc, last)
        harm = harm_of(last, home.get(last.rules[-1], p.life.anchor[last.rules[-1]])) if last else None
        scope = "excursion" if undoes == exc.steps else "step"
        return (return_act(p, "hard_limit", reasons, home=home, undoes=undoes, scope=scope, harm=harm),)
    return _emergency(p, reasons)


def _last_step_at_ms(p: Picture) -> float:
    """When the newest unproven step of ours was made; -inf without any."""
    exc = p.life.excursion
    last = p.life.change(exc.steps[-1]) if exc is not None else None
    return last.at_ms if last is not None else -inf


def _just_went_back(p: Picture) -> bool:
    """A way back or an emergency move needs the mean's length and the settle time to show."""
    wait = (p.settings.settle_s + BREACH_WINDOW_S * p.pace) * 1000
    return any(
        c.kind in WAY_BACK | {ChangeKind.EMERGENCY, ChangeKind.ROLLBACK} and p.snap.clock_ms - c.at_ms < wait
        for c in p.life.changes[-5:]
    )


def _safer_home(p: Picture, exc: Excursion, last: Change | None) -> tuple[dict[str, float], tuple[str, ...]]:
    """The safer of the values before the last step and the anchor, with the steps that this undoes."""
    anchor = {r: a for r, (a, _) in exc.displaced.items()}
    if last is None or len(exc.steps) == 1 or not _in_force(p, last):
        return anchor, exc.steps
    before = {m.rule: m.old for m in last.moves}
    p_anchor = p.seen.p_hard({**p.life.values, **anchor})
    p_before = p.seen.p_hard({**p.life.values, **before})
    if p_before is not None and p_anchor is not None and p_before < p_anchor:
        return before, (last.id,)
    return anchor, exc.steps


def _in_force(p: Picture, step: Change) -> bool:
    """True while every value that this step of the excursion set is still there, and still ours."""
    exc = p.life.excursion
    ours = exc.displaced if exc is not None else {}
    return step.ended is None and all(m.rule in ours and p.life.values[m.rule] == m.new for m in step.moves)


def _emergency(p: Picture, reasons: tuple[Reason, ...]) -> tuple[Act, ...]:
    """One rule, at most lr, inside bounds, at least 30 s apart; a `crit` where no move is left."""
    last = p.life.last_emergency_at_ms
    if last is not None and p.snap.clock_ms - last < EMERGENCY_APART_S * p.pace * 1000:
        return ()
    move = _best_escape(p, p.breaches[0])
    if move is None:
        if any(c.signal.get("emergency") for c in p.crits):
            return ()
        crit = {
            "severity": "crit",
            "rule": None,
            "signal": {"emergency": True, **reasons[0].params},
            "note": reasons[0].code,
        }
        return (
            Act(
                kind="cycle",
                act="emergency",
                reasons=(*reasons, Reason("emergency.no_move")),
                warnings=(crit,),
            ),
        )
    return (
        Act(
            kind="cycle",
            act="emergency",
            reasons=reasons,
            moves=(move,),
            write=p.mode.live,
            data={"cause": "hard_limit"},
        ),
    )


def _best_escape(p: Picture, breach: GuardCheck) -> PlannedMove | None:
    """The single move of at most lr that what was learned, or the stated direction, says helps most."""
    metric = str(breach.params.get("metric"))
    target = p.settings.targets.get(metric)
    down = breach.params.get("side") != "min"
    best: tuple[float, PlannedMove] | None = None
    for rule in p.settings.rules.values():
        slope = _slope(p, rule.name, metric)
        if slope is None:
            mine = SEED_LEVER.get(metric, rule.name) == rule.name and target is not None
            slope = -float(rule.direction) * (1 if down else -1) * 1e-9 if mine else 0.0
        if slope == 0:
            continue
        step = -rule.lr if (slope > 0) == down else rule.lr
        new = small_step(rule, p.life.values[rule.name], step, p.settings.resolution)
        gain = abs(slope * (new - p.life.values[rule.name]))
        if new != p.life.values[rule.name] and (best is None or gain > best[0]):
            best = (gain, PlannedMove(rule=rule.name, old=p.life.values[rule.name], new=new, kind="change"))
    return best[1] if best else None


def _slope(p: Picture, rule: str, metric: str) -> float | None:
    """Mean change of the metric per unit of the rule over what was measured; None without lessons."""
    found = [
        x / e.step for e in p.lessons if e.rule == rule and e.step and (x := e.deltas.get(metric)) is not None
    ]
    return sum(found) / len(found) if found else None


def open_changes(p: Picture) -> tuple[Act, ...]:
    """Each open change: early harm, its verdict when due, its end when the loop has gone blind."""
    acts: list[Act] = []
    for change in p.open:
        acts += _watch(p, change)
    return tuple(acts)


def _watch(p: Picture, change: Change) -> tuple[Act, ...]:
    due_ms = change.window_from_ms + round(p.settings.observe_window_s * 1000)
    if p.blind_too_long:
        return _blind(p, change)
    if p.health.stale:
        return ()
    if not p.reached(due_ms) or not _lived_through(p, change):
        return _early(p, change)
    effect = p.effect_of(change)
    if not effect.final and p.snap.clock_ms - change.at_ms < 2 * p.settings.observe_window_s * 1000:
        return ()
    return _evaluated(p, change, effect)


def _lived_through(p: Picture, change: Change) -> bool:
    """Whether the window has passed in real seconds too: a wall clock set forward ends no observation."""
    since = max(change.at_ms, change.reobserved_at_ms or change.at_ms)
    slack_s = 2 / max(p.health.rate_hz or 1.0, 0.1)  # as for the samples, which come in steps
    return (p.snap.clock_ms - since) / 1000 >= p.settings.observe_window_s - slack_s


def _early(p: Picture, change: Change) -> tuple[Act, ...]:
    """Harm seen before the verdict: only ours is put back at once; others' waits for its verdict."""
    if change.kind is not ChangeKind.STEP:
        return ()
    found = early_harm(
        p.snap.series,
        p.settings,
        event_ms=change.window_from_ms,
        now_ms=p.snap.now_ms,
        others_ms=[e.ts_ms for e in p.snap.records.events if e.key not in change.keys],
    )
    if not found.harmed:
        return ()
    report = VerdictReport(verdict=Verdict.WORSENED, reasons=found.reasons)
    return (
        evaluation(p, change, None, report),
        _step_back(p, change, "early_harm", found.reasons, found.deltas),
    )


def _step_back(
    p: Picture, change: Change, cause: str, reasons: tuple[Reason, ...], deltas: Mapping[str, float]
) -> Act:
    home = {m.rule: m.old for m in change.moves}
    exc = p.life.excursion
    scope = "excursion" if exc is None or exc.steps == (change.id,) else "step"
    harm = harm_of(change, change.moves[-1].old, deltas)
    return return_act(p, cause, reasons, home=home, undoes=(change.id,), scope=scope, harm=harm)


def _blind(p: Picture, change: Change) -> tuple[Act, ...]:
    """No good data for 3 R: the change is inconclusive; ours goes home with its excursion."""
    why = blind_reason(p)
    report = VerdictReport(verdict=Verdict.INCONCLUSIVE, reasons=(why,))
    acts = [evaluation(p, change, None, report)]
    exc = p.life.excursion
    if exc is not None and change.kind is ChangeKind.STEP:
        acts += go_home(p, exc, "blind", (why,), warn=False)
    return tuple(acts)


def _evaluated(p: Picture, change: Change, effect: Effect) -> tuple[Act, ...]:
    report = judge_step(effect, p.settings, named=named_metric(p, change))
    acts = [evaluation(p, change, effect, report)]
    exc = p.life.excursion
    if report.verdict is Verdict.WORSENED:
        if change.kind is ChangeKind.STEP:
            acts.append(_step_back(p, change, "worsened", report.reasons, harmed_deltas(report, effect, p)))
        elif change.origin is not Origin.LOOP:
            acts.append(_propose_rollback(p, change, report))
    elif (
        proves(report)
        and exc is not None
        and exc.steps == (change.id,)
        and exc.contrast_ok
        and p.settings.confirm.value == "standard"
    ):
        acts.append(confirm(p, "improved", report.reasons, change=change.id))
    return tuple(acts)


def owed(p: Picture) -> tuple[Act, ...]:
    """A step that was judged harmful and is still in force: its way back was never written.

    A kill between verdict and return, settings that were broken at the time, or a loop that only proposes.
    """
    found = [c for c in p.life.steps if c.verdict is Verdict.WORSENED and _in_force(p, c)]
    if not found or p.open:
        return ()
    return (
        _step_back(p, found[-1], "worsened", (Reason("owed.worsened", {"rule": found[-1].rules[-1]}),), {}),
    )


def _propose_rollback(p: Picture, change: Change, report: VerdictReport) -> Act:
    """What a person or another program did is not undone by the loop: a warning and a proposal."""
    home = {m.rule: p.settings.rules[m.rule].clip(m.old) for m in change.moves}
    act = return_act(p, "worsened", report.reasons, home=home, undoes=(change.id,), scope="step", write=False)
    return Act(
        **{**act.__dict__, "act": "propose_rollback", "data": {**act.data, "events": list(change.keys)}}
    )


def named_metric(p: Picture, change: Change) -> str | None:
    """The metric that a change of ours was made for, from its own record."""
    d = p.decision(change.decision)
    for proposal in (d.data.get("proposals") or ()) if d is not None else ():
        for reason in proposal.get("reasons") or ():
            if reason.get("code") == "why.off_target":
                return str(reason["params"].get("metric"))
    return None


# ------------------------------------------------------------------------------- others' values
def no_quiet(p: Picture) -> tuple[Act, ...]:
    """Others have left no quiet time for an hour: one warning a day that names who."""
    last = p.life.last_any
    if p.health.stale or last is None or p.situation.quiet_s >= MIN_QUIET_S * p.pace:
        return ()
    since = p.snap.clock_ms - round(NO_QUIET_WARN_S * p.pace * 1000)
    recent = [e for e in p.snap.records.events[-2000:] if e.at_ms >= since]
    gaps = [b.at_ms - a.at_ms for a, b in pairwise(recent)]
    least_ms = (MIN_QUIET_S * p.pace + p.settings.settle_s) * 1000
    covered = len(recent) > 1 and recent[0].at_ms - since < least_ms
    if not covered or max(gaps) >= least_ms or last.actor == ACTOR:
        return ()
    why = Reason("quiet.none", {"actor": last.actor, "observed": len(recent), "limit": 0, "unit": "events"})
    warning = {"severity": "warn", "rule": last.rule, "signal": dict(why.params), "note": why.code}
    return (Act(kind="cycle", act="no_quiet", reasons=(why,), warnings=(warning,)),)


def foreign_bounds(p: Picture) -> tuple[Act, ...]:
    """A foreign value outside the bounds is brought to the nearest bound in steps of at most lr."""
    if p.open or not p.mode.live:
        return ()
    for rule in p.settings.rules.values():
        value = p.life.values[rule.name]
        if rule.min <= value <= rule.max:
            continue
        last = p.life.last_event.get(rule.name)
        if last is not None and p.snap.clock_ms - last.at_ms < p.settings.cooldown_s * 1000:
            continue
        if _fought(p, rule.name):
            continue
        new = small_step(rule, value, rule.clip(value) - value, p.settings.resolution)
        move = PlannedMove(rule=rule.name, old=value, new=new, kind="change")
        why = Reason("bound.foreign", {"rule": rule.name, "observed": value, "limit": rule.clip(value)})
        return (Act(kind="cycle", act="bound", reasons=(why,), moves=(move,), write=True),)
    return ()


def _fought(p: Picture, rule: str) -> bool:
    """True when somebody moved the rule again after we had brought it back within the last hour."""
    ours_at = [
        c.at_ms for c in p.life.changes if c.kind is ChangeKind.BOUND and rule in c.rules
        and p.snap.clock_ms - c.at_ms < FIGHT_S * 1000
    ]  # fmt: skip
    theirs_at = [c.at_ms for c in p.life.changes if c.kind is ChangeKind.FOREIGN and rule in c.rules]
    return bool(ours_at and theirs_at and max(theirs_at) > min(ours_at))
