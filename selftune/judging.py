"""What the measured numbers mean: improved, worsened, neutral, inconclusive; restored, equal, not ours.

Turns effects and window contrasts into verdicts with reasons. One function scores for the policy and
for the judge: the objective score through the targets. Never measures, never reads samples or a clock.
Source: loop.md, Judging and Harm; effects.md, Judging.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from scipy.special import ndtr

from selftune.config import Limit, Settings
from selftune.domain import (
    DataState,
    Effect,
    MetricEffect,
    Reason,
    Target,
    Verdict,
    VerdictReport,
    WindowStat,
)
from selftune.gaps import Base, GapContrast, QuietWindow, gap_contrast
from selftune.objective import Shift, score_odds, shortfall, t_above, t_below, weighted

__all__ = [
    "GapContrast", "LookReport", "QuietWindow", "RollbackReport", "Undone", "direction", "equal_within",
    "gap_contrast", "judge_excursion", "judge_look", "judge_step", "judge_steps", "p_lost", "proves",
    "shift_of", "targets_met", "verify_rollback", "warn_breach",
]  # fmt: skip

P_IMPROVED = 0.95  # loop.md, Judging: IMPROVED, a step
P_WORSENED = 0.90  # loop.md, Judging: WORSENED, a step
P_SHORT_HISTORY = 0.99  # effects.md, insufficient_data: history of 110-300 s
SHORT_HISTORY_SHARE = 0.5  # 300 s of the default 600 s of history_s
SCORE_GOOD = 0.006  # loop.md, Judging: the score gain that counts
P_NAMED_NO_LOSS = 0.5  # loop.md, Judging: a named metric counts only with P(score gain < 0) below this
P_PAST_LIMIT = 0.5  # "no guarded metric past its limit": more likely past it than not
P_GAIN_SMALL = 0.10  # effects.md, table: P(gain >= good) this low is evidence that the gain is smaller

# What is called proven moves the anchor as such. A lone first step, four looks and the return are six chances
# of taking nothing for something, so each may err once in a hundred (docs/decisions/0004).
P_PROOF = 0.99

P_IMPROVED_EXCURSION = P_PROOF
P_WORSENED_EXCURSION = 0.96
MAX_LOOKS = 4

# Steps that seemed harmful are not among those summed, which flatters the rest, and a stream that drifts one
# way takes all steps along: so the bar is higher than P_PROOF, and errors count as alike (0004).
ALIKE = 0.1  # correlation of two steps' errors
P_SUMMED = 0.998

P_RESTORE = 0.80  # loop.md, Reversal look: no worse, as for `equal`; proven only from P_PROOF on
P_EQUAL = 0.80  # loop.md: at max_s with every target met (P >= .8)
P_NOT_OURS = 0.95  # loop.md, Verified rollback
UNDONE_SHARE = 0.5  # less than half of the harm undone

_USABLE = (DataState.OK, DataState.CONSTANT)
_NO_DATA = {
    DataState.INSUFFICIENT: "too_few_samples",
    DataState.STALE: "data_stale",
    DataState.CONFOUNDED: "data_confounded",
}


@dataclass(frozen=True, kw_only=True)
class LookReport:
    """What a reversal look says. `p` = P(score at the left values > score at the anchor).

    `restore`: the left values are no worse and come back; `proven`: they are better.
    """

    restore: bool
    equal: bool
    reasons: tuple[Reason, ...]
    p: float | None = None
    proven: bool = False


class Undone(StrEnum):
    """Did going back undo the harm?"""

    VERIFIED = "verified"
    NOT_OURS = "not_ours"
    UNDECIDED = "undecided"  # counts as verified


@dataclass(frozen=True, kw_only=True)
class RollbackReport:
    result: Undone
    reasons: tuple[Reason, ...]


# ----------------------------------------------------------------------------- a step
def judge_step(
    effect: Effect,
    settings: Settings,
    *,
    base: Base | None = None,
    named: str | None = None,
    p_improve: float = P_IMPROVED,
    p_worse: float = P_WORSENED,
) -> VerdictReport:
    """The verdict on one change from its effect; never better than INCONCLUSIVE without data.

    `base`: means before the change (default: the effect's own pre means). `named`: the metric that
    the change was made for; it may confirm by itself. With a history under half of `history_s` only
    P >= .99 confirms. Source: loop.md, Judging.
    """
    case = _case_of(effect, settings, base)
    missing = _lacking(case, effect)
    if not effect.final:
        reasons = missing or (Reason("window_open", _no_numbers()),)
        return VerdictReport(verdict=Verdict.INCONCLUSIVE, reasons=reasons)
    short = _short_history(effect, settings)
    return _judge(
        case, named=named, p_improve=max(p_improve, P_SHORT_HISTORY) if short else p_improve,
        p_worse=p_worse, missing=missing, notes=(short,) if short else (),
    )  # fmt: skip


def proves(report: VerdictReport) -> bool:
    """Whether an improvement is proven, so that it alone may move the anchor.

    By the score, or by the metric that the change was made for: two tests, which share the error of one.
    Source: docs/decisions/0004.
    """
    need = _family(P_PROOF, 2)
    gains = [r for r in report.reasons if r.code in ("score_gain", "metric_gain")]
    return report.verdict is Verdict.IMPROVED and any(float(r.params["p"]) >= need for r in gains)


def shift_of(e: MetricEffect) -> Shift | None:
    """(delta, sigma, nu) of a usable effect, None of any other; a constant metric moved by exactly 0."""
    if e.state is DataState.CONSTANT:
        return (0.0, 0.0, math.inf)
    if e.state is not DataState.OK or e.delta is None or e.sigma is None:
        return None
    if not (math.isfinite(e.delta) and math.isfinite(e.sigma) and e.sigma >= 0.0):
        return None
    return (e.delta, e.sigma, e.nu if e.nu is not None else math.inf)


def direction(target: Target, value: float | None) -> int:
    """+1 where up is an improvement from `value`, -1 where down is."""
    if value is not None and target.min is not None and value < target.min:
        return 1
    if value is not None and target.max is not None and value > target.max:
        return -1
    return -1 if target.down_is_good else 1


def targets_met(stats: Mapping[str, WindowStat], settings: Settings) -> float:
    """P(every weighted target is met) from window means and their errors; 0 where a mean is missing."""
    p = 1.0
    for m in weighted(settings):
        s, target = stats.get(m), settings.targets[m]
        if s is None or s.mean is None:
            return 0.0
        se = s.se or 0.0
        if se <= 0.0:
            p *= float(shortfall(target, s.mean) == 0.0)
            continue
        top = float(ndtr((target.max - s.mean) / se)) if target.max is not None else 1.0
        bottom = float(ndtr((target.min - s.mean) / se)) if target.min is not None else 0.0
        p *= max(0.0, top - bottom)
    return p


# ----------------------------------------------------------------------------- warnings
def warn_breach(effect: Effect, settings: Settings, *, p_least: float = P_WORSENED) -> tuple[Reason, ...]:
    """The `safety.warn` limits that the effect lies beyond at `p_least`, family-wise; worst first.

    With `phase_bad` the entropy limit counts only together with a phase beyond it. An effect that
    came without a scale (another program's row) is read as it stands. Source: contract.md, Settings.
    """
    shift = {m: s for m, e in effect.metrics.items() if (s := shift_of(e) or _as_written(e)) is not None}
    return _warnings(shift, {m: e.n_post for m, e in effect.metrics.items()}, settings, p_least)


def _as_written(e: MetricEffect) -> Shift | None:
    if e.state not in _USABLE or e.delta is None or not math.isfinite(e.delta):
        return None
    return (e.delta, 0.0, math.inf)


def _warnings(
    shift: Mapping[str, Shift], n: Mapping[str, int], settings: Settings, p_least: float
) -> tuple[Reason, ...]:
    conditions = _warn_odds(shift, settings)
    need = _family(p_least, len(conditions))
    found = [(p, _warn_reason(m, shift[m], p, need, n, settings)) for m, p in conditions.items() if p >= need]
    return tuple(r for _, r in sorted(found, key=lambda f: -f[0]))


def _warn_odds(shift: Mapping[str, Shift], settings: Settings) -> dict[str, float]:
    """P(beyond its warning limit) of each condition that can be judged; joint ones under `entropy_rate`."""
    odds = {m: _p_warn(limit, shift[m]) for m, limit in settings.warn.items() if m in shift}
    if settings.phase_bad is None:
        return odds
    p_phase = t_above(settings.phase_bad, *shift["phase_diff"]) if "phase_diff" in shift else None
    if "entropy_rate" not in settings.warn:
        return odds if p_phase is None else {**odds, "phase_diff": max(p_phase, odds.get("phase_diff", 0.0))}
    if "entropy_rate" in odds:  # both must be beyond: without a phase that is not shown
        odds["entropy_rate"] *= p_phase or 0.0
    return odds


def _p_warn(limit: Limit, shift: Shift) -> float:
    """P(delta at or beyond the limit): `min` warns from there up, `max` from there down."""
    up = 1.0 - t_below(limit.min, *shift) if limit.min is not None else None
    down = 1.0 - t_above(limit.max, *shift) if limit.max is not None else None
    if up is None or down is None:
        return up if up is not None else (down or 0.0)
    both_tails = (limit.min or 0.0) > (limit.max or 0.0)
    return min(1.0, up + down) if both_tails else max(0.0, up + down - 1.0)


def _warn_reason(
    m: str, shift: Shift, p: float, need: float, n: Mapping[str, int], settings: Settings
) -> Reason:
    joint = settings.phase_bad is not None and m == "entropy_rate" and m in settings.warn
    limit = settings.warn.get(m, Limit(min=settings.phase_bad))
    return Reason(
        "warn_joint_rise" if joint else "warn_limit",
        {"metric": m, "observed": shift[0], "limit": limit.min if limit.min is not None else limit.max,
         "unit": "value", "n": n.get(m, 0), "p": p, "p_limit": need},
    )  # fmt: skip


# ----------------------------------------------------------------------------- the one judge
@dataclass(frozen=True, kw_only=True)
class _Case:
    """What there is to judge: levels before, shifts, sample counts."""

    settings: Settings
    base: Base
    shift: Mapping[str, Shift]
    n: Mapping[str, int] = field(default_factory=dict)

    def has(self, m: str) -> bool:
        return m in self.shift and self.base.get(m) is not None

    def n_least(self) -> int:
        return min((self.n.get(m, 0) for m in weighted(self.settings)), default=0)


def _case_of(effect: Effect, settings: Settings, base: Base | None) -> _Case:
    """The case of an effect: its own pre means, unless `base` knows better."""
    levels = {m: e.pre_mean for m, e in effect.metrics.items()}
    return _Case(
        settings=settings,
        base={**levels, **{m: v for m, v in (base or {}).items() if v is not None}},
        shift={m: s for m, e in effect.metrics.items() if (s := shift_of(e)) is not None},
        n={m: e.n_post for m, e in effect.metrics.items()},
    )


def _judge(
    case: _Case,
    *,
    named: str | None,
    p_improve: float,
    p_worse: float,
    missing: tuple[Reason, ...] = (),
    notes: tuple[Reason, ...] = (),
) -> VerdictReport:
    """The rules of loop.md, worst first: harm outranks missing data, missing data outranks a gain."""
    odds = None if missing else score_odds(case.settings, case.base, case.shift, at=(SCORE_GOOD,))
    gain, p_gain, p_loss = (odds.mean, odds.p_gain, odds.p_loss) if odds else (None, None, None)

    def report(verdict: Verdict, *reasons: Reason) -> VerdictReport:
        return VerdictReport(verdict=verdict, reasons=reasons, score_gain=gain, p_gain=p_gain, p_loss=p_loss)

    losses = _losses(case, p_worse) + _warnings(case.shift, case.n, case.settings, p_worse)
    if odds and odds.p_loss >= p_worse:
        losses += (_score_reason("score_loss", case, odds.mean, 0.0, odds.p_loss, p_worse),)
    if losses:
        return report(Verdict.WORSENED, *losses)
    if odds is None:
        return report(Verdict.INCONCLUSIVE, *(missing or (Reason("no_targets", _no_numbers()),)))

    gains = _gains(case, odds.mean, odds.p_gain, odds.p_loss, named, p_improve)
    past = _past_limits(case)
    if gains and not past:
        return report(Verdict.IMPROVED, *gains, *notes)
    if gains:
        return report(Verdict.NEUTRAL, *past, *gains, *notes)
    if odds.p_gain == 0.0 and odds.p_loss == 0.0:
        seen = _score_reason("no_effect_seen", case, odds.mean, SCORE_GOOD, 0.0, p_improve)
        return report(Verdict.NEUTRAL, seen)
    small = odds.p_above[0] <= P_GAIN_SMALL
    why = (
        _score_reason("gain_below_good", case, odds.mean, SCORE_GOOD, odds.p_above[0], P_GAIN_SMALL)
        if small
        else _score_reason("not_proven", case, odds.mean, SCORE_GOOD, odds.p_gain, p_improve)
    )
    return report(Verdict.NEUTRAL, why, *notes)


def _gains(
    case: _Case, gain: float, p_gain: float, p_loss: float, named: str | None, p_improve: float
) -> tuple[Reason, ...]:
    """Why it is an improvement, if it is: by the score, or by the metric the change was made for."""
    out = []
    if p_gain >= p_improve and gain >= SCORE_GOOD:
        out.append(_score_reason("score_gain", case, gain, SCORE_GOOD, p_gain, p_improve))
    if named is not None and case.has(named) and named in case.settings.targets and p_loss < P_NAMED_NO_LOSS:
        sign = direction(case.settings.targets[named], case.base.get(named))
        delta, sigma, nu = case.shift[named]
        p, good = t_above(0.0, sign * delta, sigma, nu), case.settings.good[named]
        if p >= p_improve and sign * delta >= good:
            out.append(_metric_reason("metric_gain", case, named, delta, sign * good, p, p_improve))
    return tuple(out)


def _losses(case: _Case, p_worse: float) -> tuple[Reason, ...]:
    """Guarded metrics proven worse by more than their good, worst first.

    Only what lies outside the target is a loss: a metric well inside it is not harmed.
    """
    names = [m for m in case.settings.guarded if case.has(m)]
    need = _family(p_worse, len(names))
    found = []
    for m in names:
        p = p_lost(case.settings.targets[m], float(case.base[m] or 0.0), case.shift[m], case.settings.good[m])
        if p >= need:
            sign = direction(case.settings.targets[m], case.base.get(m))
            limit = -sign * case.settings.good[m]
            found.append((p, _metric_reason("metric_loss", case, m, case.shift[m][0], limit, p, need)))
    return tuple(r for _, r in sorted(found, key=lambda f: -f[0]))


def p_lost(target: Target, base: float, shift: Shift, good: float) -> float:
    """P(the shortfall grew by more than `good`) when `base` moves by delta + sigma * t_nu."""
    slack = shortfall(target, base) + good
    delta, sigma, nu = shift
    p = 0.0
    if target.max is not None:
        p += t_above(target.max + slack, base + delta, sigma, nu)
    if target.min is not None:
        p += t_below(target.min - slack, base + delta, sigma, nu)
    return min(1.0, p)


def _past_limits(case: _Case) -> tuple[Reason, ...]:
    """Hard and warning limits that are more likely passed than not: enough to withhold a confirmation."""
    out = []
    for m, limit in case.settings.hard.items():
        if not case.has(m):
            continue
        delta, sigma, nu = case.shift[m]
        level = float(case.base[m] or 0.0) + delta
        for edge, beyond in ((limit.max, t_above), (limit.min, t_below)):
            if edge is not None and (p := beyond(edge, level, sigma, nu)) >= P_PAST_LIMIT:
                out.append(_metric_reason("past_hard_limit", case, m, level, edge, p, P_PAST_LIMIT))
    return (*out, *_warnings(case.shift, case.n, case.settings, P_PAST_LIMIT))


def _family(p: float, members: int) -> float:
    """The P that each of `members` tests needs so that together they err no more often than 1 - p."""
    return 1.0 - (1.0 - p) / max(1, members)


def _score_reason(code: str, case: _Case, gain: float, limit: float, p: float, p_limit: float) -> Reason:
    return Reason(code, {"observed": gain, "limit": limit, "unit": "score", "n": case.n_least(), "p": p,
                         "p_limit": p_limit})  # fmt: skip


def _metric_reason(
    code: str, case: _Case, m: str, observed: float, limit: float, p: float, p_limit: float
) -> Reason:
    return Reason(code, {"metric": m, "observed": observed, "limit": limit, "unit": "value",
                         "n": case.n.get(m, 0), "p": p, "p_limit": p_limit})  # fmt: skip


def _no_numbers() -> dict[str, object]:
    return {"observed": None, "limit": None, "unit": "value", "n": 0}


def _lacking(case: _Case, effect: Effect) -> tuple[Reason, ...]:
    """Why each weighted metric that cannot be judged cannot."""
    return tuple(
        _missing(m, effect.metrics.get(m), case.settings) for m in weighted(case.settings) if not case.has(m)
    )


def _missing(m: str, e: MetricEffect | None, settings: Settings) -> Reason:
    """Why a weighted metric cannot be judged; the estimator's own reason goes with it."""
    n = e.n_post if e is not None else 0
    code = _NO_DATA.get(e.state, "too_few_samples") if e is not None else "too_few_samples"
    params: dict[str, object] = {
        "metric": m, "observed": n, "limit": settings.min_samples, "unit": "samples", "n": n
    }  # fmt: skip
    if e is not None and e.reason is not None:
        params = {**e.reason.params, **params, "why": e.reason.code}
    return Reason(code, params)


def _short_history(effect: Effect, settings: Settings) -> Reason | None:
    seconds = [e.history_s for m in weighted(settings)
               if (e := effect.metrics.get(m)) is not None and e.state is DataState.OK]  # fmt: skip
    limit = SHORT_HISTORY_SHARE * settings.history_s
    if not seconds or min(seconds) >= limit:
        return None
    return Reason("short_history_strict", {"observed": min(seconds), "limit": limit, "unit": "s",
                                           "n": len(seconds), "p_limit": P_SHORT_HISTORY})  # fmt: skip


# ----------------------------------------------------------------------------- an excursion
def judge_excursion(contrast: GapContrast, settings: Settings, looks_done: int = 0) -> VerdictReport:
    """The verdict on a whole excursion against its anchor, at the stricter odds of up to four looks.

    `looks_done`: looks already spent; with all four spent nothing more can be proven here.
    Source: loop.md, Judging, Excursion.
    """
    if looks_done >= MAX_LOOKS:
        spent = Reason(
            "looks_spent", {"observed": looks_done, "limit": MAX_LOOKS, "unit": "looks", "n": looks_done}
        )
        return VerdictReport(verdict=Verdict.INCONCLUSIVE, reasons=(spent,))
    if contrast.undecided is not None:
        return VerdictReport(verdict=Verdict.INCONCLUSIVE, reasons=(contrast.undecided,))
    case = _Case(settings=settings, base=contrast.base, shift=contrast.shift, n=contrast.pairs)
    return _judge(case, named=None, p_improve=P_IMPROVED_EXCURSION, p_worse=P_WORSENED_EXCURSION)


def judge_steps(effects: Sequence[Effect], settings: Settings) -> VerdictReport | None:
    """The verdict on an excursion from its steps' own effects, in order; None if they cannot be summed.

    Each was measured against the time just before it. Whatever is weighted, guarded or has a limit must have
    been measured in each of them or in none. Source: docs/decisions/0004; degrees of freedom: Welch 1947.
    """
    found = [{m: s for m, e in x.metrics.items() if (s := _sure_shift(e)) is not None} for x in effects]
    if not effects or not all(x.final for x in effects):
        return None
    everywhere = {m for m in found[0] if all(m in f for f in found)}
    watched = {*settings.guarded, *settings.warn, *settings.hard}
    if any(m in f for f in found for m in watched - everywhere):
        return None
    case = _Case(
        settings=settings,
        base={m: e.pre_mean for m, e in effects[0].metrics.items()},
        shift={m: _summed([f[m] for f in found]) for m in everywhere},
        n={m: min(x.metrics[m].n_post for x in effects) for m in everywhere},
    )
    if not all(case.has(m) for m in weighted(settings)):
        return None
    return _judge(case, named=None, p_improve=P_SUMMED, p_worse=P_WORSENED_EXCURSION)


def _sure_shift(e: MetricEffect) -> Shift | None:
    """The shift of an effect that says how sure it is; a record that does not is worth nothing in a proof."""
    if e.state is DataState.OK and not ((e.sigma or 0.0) > 0.0 and (e.nu or 0.0) > 0.0):
        return None
    return shift_of(e)


def _summed(parts: Sequence[Shift]) -> Shift:
    """The sum of shifts whose errors are a little alike."""
    sigmas = [sigma for _, sigma, _ in parts]
    apart, alike = math.hypot(*sigmas), sum(sigmas)
    shares = [(sigma / apart) ** 2 if apart > 0.0 else 0.0 for sigma in sigmas]
    spread = sum(share**2 / nu for share, (_, _, nu) in zip(shares, parts, strict=True))
    sigma = math.hypot(math.sqrt(1.0 - ALIKE) * apart, math.sqrt(ALIKE) * alike)
    return (sum(d for d, _, _ in parts), sigma, 1.0 / spread if spread > 0.0 else math.inf)


# ----------------------------------------------------------------------------- reversal look, equality
def judge_look(effect_at_return: Effect, settings: Settings, *, base: Base | None = None) -> LookReport:
    """Whether the values that were left are better than the anchor, from the Δ at the return to it.

    Restore iff P(score at the left values > score at the anchor) >= .80, they are no worse, and no guarded
    metric was past its limit there. Proven, so that they count as confirmed, from P_PROOF on; without usable
    data the return stands.
    Source: loop.md, Reversal look; docs/decisions/0004.
    """
    case = _case_of(effect_at_return, settings, base)
    odds = score_odds(settings, case.base, case.shift, at=(SCORE_GOOD,)) if effect_at_return.final else None
    if odds is None:
        reasons = _lacking(case, effect_at_return) or (Reason("window_open", _no_numbers()),)
        return LookReport(restore=False, equal=False, reasons=reasons)
    p, past = odds.p_loss, _past_limits(_left(case))  # the return loses: what was left is better
    restore = p >= P_RESTORE and not past
    proven = restore and p >= P_PROOF and -odds.mean >= SCORE_GOOD
    equal = _equal(odds.mean, odds.p_above[0], SCORE_GOOD)
    code = "look_restore" if proven else "look_keep" if restore else "look_equal" if equal else "look_stay"
    return LookReport(restore=restore, equal=equal, p=p, proven=proven,
                      reasons=(*past, _score_reason(code, case, -odds.mean, 0.0, p, P_RESTORE)))  # fmt: skip


def _left(case: _Case) -> _Case:
    """The case of a return, seen the other way: from the anchor to the values that were left."""
    base = {**case.base, **{m: case.base[m] + s[0] for m, s in case.shift.items() if case.has(m)}}  # type: ignore[operator]
    return replace(case, base=base, shift={m: (-d, s, nu) for m, (d, s, nu) in case.shift.items()})


def equal_within(evidence: GapContrast | Effect, settings: Settings, within: float = SCORE_GOOD) -> bool:
    """True if the present values do as well as the anchor: the score is the same within `within`.

    A contrast is present minus anchor; an effect is that of the return, anchor minus left values.
    The difference itself must be small, and a present that is worse by more than `within` unlikely
    (P <= .20). No data is never equal. Source: loop.md, end of an excursion.
    """
    if isinstance(evidence, Effect):
        case = _case_of(evidence, settings, None)
        odds = score_odds(settings, case.base, case.shift, at=(within,))
        return odds is not None and evidence.final and _equal(odds.mean, odds.p_above[0], within)
    if evidence.undecided is not None:
        return False
    odds = score_odds(settings, evidence.base, evidence.shift, at=(-within,))
    return odds is not None and _equal(odds.mean, 1.0 - odds.p_above[0], within)


def _equal(mean: float, p_worse_by_more: float, within: float) -> bool:
    return abs(mean) <= within and p_worse_by_more <= 1.0 - P_EQUAL


# ----------------------------------------------------------------------------- verified rollback
def verify_rollback(
    effect_of_rollback: Effect, harmed: Mapping[str, float], settings: Settings
) -> RollbackReport:
    """Whether going back undid the harm. `harmed`: metric -> its delta when it was harmed.

    Only metrics that moved the bad way count, and of them those that moved by their good or more, if
    any did. "Not ours" only if every one of them shows, at P >= .95, that less than half was undone;
    undecided counts as verified. Source: loop.md, Verified rollback.
    """
    harms = _harms(harmed, effect_of_rollback, settings)
    found = _case_of(effect_of_rollback, settings, None).shift
    shifts = {m: found[m] for m in harms if m in found}
    if not harms or len(shifts) < len(harms) or not effect_of_rollback.final:
        return RollbackReport(result=Undone.UNDECIDED, reasons=(Reason("undone_unknown", _no_numbers()),))
    odds = {m: _p_not_undone(harms[m], shifts[m]) for m in harms}
    if min(odds.values()) >= P_NOT_OURS:
        result, code = Undone.NOT_OURS, "not_undone"
    elif max(odds.values()) <= 1.0 - P_NOT_OURS:
        result, code = Undone.VERIFIED, "undone"
    else:
        result, code = Undone.UNDECIDED, "undone_undecided"
    worst = sorted(odds, key=lambda m: -odds[m])
    reasons = tuple(
        Reason(
            code,
            {"metric": m, "observed": shifts[m][0], "limit": -UNDONE_SHARE * harms[m], "unit": "value",
             "n": effect_of_rollback.metrics[m].n_post, "p": odds[m], "p_limit": P_NOT_OURS},
        )
        for m in worst
    )  # fmt: skip
    return RollbackReport(result=result, reasons=reasons)


def _harms(harmed: Mapping[str, float], effect: Effect, settings: Settings) -> dict[str, float]:
    """What of `harmed` is harm: moved the bad way, and far enough to matter where anything did."""
    bad: dict[str, float] = {}
    for m, d in harmed.items():
        e, target = effect.metrics.get(m), settings.targets.get(m)
        before = e.pre_mean if e is not None else None  # the way back starts at the harmed level
        if target is not None and math.isfinite(d) and d * direction(target, before) < 0.0:
            bad[m] = d
    large = {m: d for m, d in bad.items() if abs(d) >= settings.good[m]}
    return large or bad


def _p_not_undone(harm: float, shift: Shift) -> float:
    """P(the way back undid less than half of `harm`)."""
    sign = math.copysign(1.0, harm)
    delta, sigma, nu = shift
    return t_below(UNDONE_SHARE * abs(harm), -sign * delta, sigma, nu)
