"""Every reason to say no to a new step, one small function each.

Answers "may the loop explore now, may this rule move?" as `GuardCheck`s with the observed number,
the limit, the unit and, where time frees it, until when. Pure. None of these ever bars a rollback,
a return or an emergency. Source: contract.md (rules of acting), loop.md (pace, limits).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import copysign, inf

from selftune.config import Settings, pace_of
from selftune.domain import GuardCheck, PolicyName, Proposal, Reason, RiskWarning, Rule, RuleEvent
from selftune.health import Health
from selftune.lifecycle import Change, ChangeKind, Life
from selftune.mode import ModeState

MIN_QUIET_S = 110.0  # effects.md: less event-free history is insufficient_data (at the default pace)
HARD_REST_S = 600.0  # loop.md: no exploration until 10 min inside the hard limit
BACKOFF_MAX_S = 6 * 3600.0
SCORE_FALL = 0.02  # a fall of the score by this much ends the back-off


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What the guards look at, besides the proposal itself. Instants: `now_ms` wall, `clock_ms` steady.

    `quiet_s`: event-free history within `history_s`, in stretches long enough to compare; `span_s`:
    how far back the samples reach; `hard_inside_s`: how long every hard limit has been kept (inf
    without limits); `warn`: the warning Δ that holds changes back, with its instant on the clock;
    `fallen`: by how much the score lies below what it was after the last excursion without gain.
    """

    settings: Settings
    life: Life
    mode: ModeState
    health: Health
    now_ms: int
    clock_ms: int
    quiet_s: float
    span_s: float
    hard_inside_s: float
    crits: Sequence[RiskWarning] = ()
    warn: tuple[Reason, int] | None = None
    settings_problem: Reason | None = None
    lease_ok: bool = True
    open: Sequence[Change] = ()
    baseline: bool = True
    fallen: float = 0.0
    windows_n: Mapping[str, int] = field(default_factory=dict)
    window_s: float = 0.0

    def wall(self, at_ms: float) -> int | None:
        """An instant of the steady clock as wall time, None for never."""
        return None if at_ms == inf else int(self.now_ms + (at_ms - self.clock_ms))


def pace_s(settings: Settings) -> float:
    """Seconds between two steps of ours, whatever the rule: max(settle + R, 2 R)."""
    return max(settings.settle_s + settings.observe_window_s, 2 * settings.observe_window_s)


def _check(
    code: str,
    passed: bool,
    observed: float | str | None,
    limit: float | str | None,
    unit: str,
    *,
    rule: str | None = None,
    until_ms: int | None = None,
    **params: object,
) -> GuardCheck:
    return GuardCheck(
        code=f"guard.{code}",
        passed=passed,
        observed=observed,
        limit=limit,
        unit=unit,
        rule=rule,
        until_ms=None if passed else until_ms,
        params=params,
    )


# ------------------------------------------------------------------------------ the whole loop
def settings_valid(s: Situation) -> GuardCheck:
    p = s.settings_problem
    return _check(
        "settings", p is None, p.code if p else "valid", "valid", "", **(dict(p.params) if p else {})
    )


def not_stopped(s: Situation) -> GuardCheck:
    return _check("stopped", not s.mode.stopped, "stopped" if s.mode.stopped else "running", "running", "")


def lease(s: Situation) -> GuardCheck:
    return _check("lease", s.lease_ok, "held" if s.lease_ok else "lost", "held", "")


def policy_wants(s: Situation) -> GuardCheck:
    p = s.settings.policy
    return _check("policy", p is not PolicyName.NONE, p.value, "not none", "")


def fresh(s: Situation) -> GuardCheck:
    """A change away from the anchor needs data not older than `max_age_s`."""
    age = s.health.age_s
    ok = age is not None and not (age > s.settings.max_age_s)
    return _check("stale", ok, age, s.settings.max_age_s, "s")


def clock_right(s: Situation) -> GuardCheck:
    return _check(
        "clock_ahead", not s.health.clock_ahead, "ahead" if s.health.clock_ahead else "right", "right", ""
    )


def moving(s: Situation) -> GuardCheck:
    """A weighted metric that is frozen proves nothing."""
    frozen = [m for m in s.health.frozen if s.settings.weights.get(m, 0) > 0]
    return _check("frozen", not frozen, ", ".join(frozen) or "moving", "moving", "", metrics=frozen)


def rate(s: Situation) -> GuardCheck:
    """The observed rate must be able to bring 1.2 x min_samples into one window."""
    seen = (s.health.rate_hz or 0.0) * s.settings.observe_window_s
    need = 1.2 * s.settings.min_samples
    ok = s.health.rate_hz is None or seen >= need
    return _check("rate_too_low", ok, round(seen, 1), round(need, 1), "samples", rate_hz=s.health.rate_hz)


def samples(s: Situation) -> GuardCheck:
    """Every weighted metric needs its share of valid samples in the present window, short as it may be."""
    need = 0.7 * s.settings.min_samples * min(1.0, s.window_s / s.settings.observe_window_s)
    low = {m: n for m, n in s.windows_n.items() if s.settings.weights.get(m, 0) > 0 and n < need}
    worst = min(low, key=lambda m: low[m]) if low else None
    seen = min(s.windows_n.values(), default=0)
    return _check(
        "samples", worst is None, low[worst] if worst else seen, round(need), "samples", metric=worst
    )


def gaps(s: Situation) -> GuardCheck:
    """A window with a third of a weighted metric missing is not a picture of now."""
    worst = max(
        ((m, x) for m, x in s.health.missing.items() if s.settings.weights.get(m, 0) > 0),
        key=lambda mx: mx[1],
        default=(None, 0.0),
    )
    return _check("gaps", worst[1] <= 0.3, round(worst[1], 3), 0.3, "share", metric=worst[0])


def concurrency(s: Situation) -> GuardCheck:
    n = len(s.open)
    until = max((c.at_ms + s.settings.observe_window_s * 1000 for c in s.open), default=0)
    due = (
        s.wall(until) if until > s.clock_ms else None
    )  # overdue: nobody has judged it yet, nobody knows when
    return _check("concurrency", n == 0, n, s.settings.max_concurrent_changes, "changes", until_ms=due)


def no_look(s: Situation) -> GuardCheck:
    look = s.life.look
    until = look.at_ms + (s.settings.settle_s + s.settings.observe_window_s) * 1000 if look else 0
    return _check("look", look is None, "looking" if look else "none", "none", "", until_ms=s.wall(until))


def paced(s: Situation) -> GuardCheck:
    """Between two steps of ours lies the pace; a way back starts it as well."""
    mine = [c.at_ms for c in s.life.changes[-50:] if c.kind not in (ChangeKind.FOREIGN,)]
    last = max(mine, default=None)
    need = _backed_off(s)
    age = (s.clock_ms - last) / 1000 if last is not None else inf
    until = last + need * 1000 if last is not None else 0
    return _check(
        "pace", age >= need, None if age == inf else round(age, 1), need, "s", until_ms=s.wall(until)
    )


def _backed_off(s: Situation) -> float:
    """The pace, doubled for each excursion that came back without gain, once there was one for each rule."""
    base = pace_s(s.settings)
    n = s.life.fruitless - max(2, len(s.settings.rules)) + 1
    if n < 1 or s.fallen >= SCORE_FALL:
        return base
    return float(min(BACKOFF_MAX_S, base * 2.0 ** min(n, 20)))


def enough_history(s: Situation) -> GuardCheck:
    """Before the first step: half of `history_s` must have been seen."""
    need = s.settings.history_s / 2
    return _check(
        "history",
        s.span_s >= need,
        round(s.span_s, 1),
        need,
        "s",
        until_ms=int(s.now_ms + (need - s.span_s) * 1000),
    )


def fresh_baseline(s: Situation) -> GuardCheck:
    """A confirmed anchor is measured afresh before anything leaves it: the winning window flatters it."""
    return _check("baseline", s.baseline, "seen" if s.baseline else "not yet", "seen", "")


def quiet_time(s: Situation) -> GuardCheck:
    need = MIN_QUIET_S * pace_of(s.settings)
    who = s.life.last_any.actor if s.life.last_any is not None else None
    return _check("no_quiet_time", s.quiet_s >= need, round(s.quiet_s, 1), need, "s", actor=who)


def no_warning(s: Situation) -> GuardCheck:
    """A warning Δ holds new changes back until a later effect without it, or 3 x cooldown."""
    if s.warn is None:
        return _check("warn", True, "none", "none", "")
    reason, at_ms = s.warn
    until = at_ms + 3 * s.settings.cooldown_s * 1000
    return _check(
        "warn",
        s.clock_ms >= until,
        reason.params.get("observed"),
        reason.params.get("limit"),
        "",
        until_ms=s.wall(until),
        metric=reason.params.get("metric"),
    )


def no_crit(s: Situation) -> GuardCheck:
    first = s.crits[0] if s.crits else None
    return _check("crit", first is None, len(s.crits), 0, "warnings", note=first.note if first else None)


def hard_rest(s: Situation) -> GuardCheck:
    need = HARD_REST_S * pace_of(s.settings)
    ok = s.hard_inside_s >= need or s.life.last_hard_at_ms is None
    return _check(
        "hard_rest",
        ok,
        None if s.hard_inside_s == inf else round(s.hard_inside_s, 1),
        need,
        "s",
        until_ms=None if s.hard_inside_s == inf else s.wall(s.clock_ms + (need - s.hard_inside_s) * 1000),
    )


def excursion_steps(s: Situation) -> GuardCheck:
    n, most = len(s.life.excursion.steps) if s.life.excursion else 0, most_steps(s.settings, s.life, s.fallen)
    return _check("excursion_steps", n < most, n, most, "steps")


def most_steps(settings: Settings, life: Life, fallen: float) -> int:
    """Steps that an excursion may have: half as many after each one without gain, at least one."""
    vain = 0 if fallen >= SCORE_FALL else life.fruitless
    return max(1, settings.excursion.max_steps >> vain)


def excursion_time(s: Situation) -> GuardCheck:
    exc = s.life.excursion
    age = (s.clock_ms - exc.start_at_ms) / 1000 if exc else 0.0
    limit = s.settings.excursion.max_s
    room = limit - s.settings.settle_s - s.settings.observe_window_s  # a step must still get its verdict
    return _check("excursion_time", exc is None or age < room, round(age, 1), limit, "s")


def loan_changes(s: Situation) -> GuardCheck:
    left = s.mode.loan.changes_left if s.mode.loan else None
    return _check("loan_changes", left is None or left > 0, left, 1, "changes")


LOOP_GUARDS: tuple[Callable[[Situation], GuardCheck], ...] = (
    settings_valid,
    not_stopped,
    lease,
    policy_wants,
    clock_right,
    fresh,
    moving,
    rate,
    samples,
    gaps,
    no_crit,
    hard_rest,
    no_warning,
    concurrency,
    no_look,
    paced,
    enough_history,
    quiet_time,
    fresh_baseline,
    excursion_steps,
    excursion_time,
    loan_changes,
)


def check_loop(s: Situation) -> tuple[GuardCheck, ...]:
    """Every guard of the loop as a whole, in order of weight; those that fail hold it."""
    return tuple(guard(s) for guard in LOOP_GUARDS)


# ------------------------------------------------------------------------------ one rule
def cooldown(s: Situation, rule: str) -> GuardCheck:
    """`cooldown_s` counts from the rule's last event by anybody."""
    last = s.life.last_event.get(rule)
    return cooldown_of(s.settings, last, rule, s.clock_ms, s.wall)


def cooldown_of(
    settings: Settings, last: RuleEvent | None, rule: str, clock_ms: int, wall: Callable[[float], int | None]
) -> GuardCheck:
    """The cooldown of one rule against its last event; also used again under the commit lock."""
    age = inf if last is None else (clock_ms - last.at_ms) / 1000
    until = (last.at_ms if last else 0) + settings.cooldown_s * 1000
    return _check(
        "cooldown",
        age >= settings.cooldown_s,
        None if age == inf else round(age, 1),
        settings.cooldown_s,
        "s",
        rule=rule,
        until_ms=wall(until),
    )


def not_paused(s: Situation, rule: str) -> GuardCheck:
    pause = s.life.pause_of(rule, s.clock_ms)
    return _check(
        "paused",
        pause is None,
        pause.harms if pause else 0,
        s.settings.rollback_limit,
        "harms",
        rule=rule,
        until_ms=s.wall(pause.until_at_ms) if pause else None,
    )


def not_resting(s: Situation, rule: str) -> GuardCheck:
    until = s.life.rest_until(rule, s.clock_ms)
    return _check(
        "resting",
        until is None,
        "resting" if until else "free",
        "free",
        "",
        rule=rule,
        until_ms=s.wall(until) if until else None,
    )


def in_bounds(s: Situation, rule: str) -> GuardCheck:
    """A foreign value outside the bounds is brought back first; no step starts from there."""
    r, value = s.settings.rules[rule], s.life.values[rule]
    return _check("out_of_bounds", r.min <= value <= r.max, value, r.clip(value), "", rule=rule)


RULE_GUARDS: tuple[Callable[[Situation, str], GuardCheck], ...] = (
    in_bounds,
    not_paused,
    not_resting,
    cooldown,
)


def check_rule(s: Situation, rule: str) -> tuple[GuardCheck, ...]:
    """Every guard of one rule."""
    return tuple(guard(s, rule) for guard in RULE_GUARDS)


def loan_room(s: Situation) -> dict[str, tuple[float, float]]:
    """How far each rule may go: its bounds, narrowed by the loan's displacement from the value at arming."""
    room = {}
    for name, rule in s.settings.rules.items():
        lo, hi = rule.min, rule.max
        loan = s.mode.loan
        if s.mode.live and loan is not None and loan.displacement is not None:
            base = loan.base.get(name, s.life.values[name])
            lo, hi = max(lo, base - loan.displacement * rule.lr), min(hi, base + loan.displacement * rule.lr)
        room[name] = (lo, hi)
    return room


def small_step(rule: Rule, old: float, step: float, resolution: int) -> float:
    """The value after `step`, by at most lr whatever rounding does; at a bound, the bound itself.

    A value outside the bounds comes nearer, and does not jump.
    """
    lr, exact = rule.lr * (1 + 1e-9), old + min(rule.lr, max(-rule.lr, step))
    new = round(exact, resolution)
    if abs(new - old) > lr:
        new = round(new - copysign(10.0**-resolution, step), resolution)
    if abs(new - old) > lr or (new - old) * copysign(1.0, step) < 0:
        new = exact  # the resolution is coarser than the step
    inside = rule.clip(new)
    return inside if abs(inside - old) <= lr else new


def check_step(s: Situation, p: Proposal) -> GuardCheck:
    """The last look at one proposal: inside bounds, at most lr, really a move. Never trust a policy."""
    rule = s.settings.rules[p.rule]
    size = abs(p.new - p.old)
    tiny = 10.0 ** -(s.settings.resolution + 1)
    ok = rule.min <= p.new <= rule.max and 0 < size <= rule.lr + tiny and p.old == s.life.values[p.rule]
    return _check("step", ok, round(p.new - p.old, s.settings.resolution + 1), rule.lr, "", rule=p.rule)
