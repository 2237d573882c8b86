"""Is harm happening right now? Early harm of a step, the watch on probation (hard limits: limits.py).

Looked at every second from the samples alone, without memory: the same samples give the same answer.
May only ever lead back (a rollback, a return, an emergency), never forward. Source: loop.md, Harm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from selftune.config import Limit, Settings
from selftune.domain import Reason, WindowStat
from selftune.health import rate_of, scale_for
from selftune.judging import SCORE_GOOD, QuietWindow, gap_contrast
from selftune.limits import hard_breach, hard_inside_s
from selftune.noise import Noise, bins_between, fit_noise
from selftune.objective import Shift, score_odds, shortfall, weighted
from selftune.series import Floats, Series

__all__ = ["HarmCheck", "early_harm", "hard_breach", "hard_inside_s", "probation_harm"]

# Durations below are seconds at the default pace; a root that lives faster shortens them (health.Scale).
FALSE_ABORTS = 0.01  # loop.md, Early harm: false aborts a change, in all
EARLY_SHARE = 0.7  # of them: the watch before the verdict,
PROBATION_SHARE = 0.3  # and the watch after it
LOOK_S = 5.0  # one look each 5 s: whole periods of a 0.2 Hz ripple, and few looks to pay for
LOOKS = 6.0  # independent looks that 14 overlapping ones are worth (benchmarks/harm.py)
PRE_S, PRE_LEAST_S = 90.0, 20.0  # the level before; longer averages noise, but takes in more drift
POST_MOST_S = 80.0  # later harm must not be diluted by a long calm before it
VALID = 0.7  # of the bins of a window
DRIFT_GOODS = 1.25  # loop.md: drift up to .01 a window, in units of risk_band's good (.008)
DRIFT_FACTOR = 2.0  # how many times that drift is allowed for beside the noise (benchmarks/harm.py)
KICK_GOODS = 5.0  # loop.md, Early harm: inside [0, settle) beyond 5 x good
KICK_SD = 4.0  # and beyond 4 sd of 5 s means
KICK_TAIL = 3.2e-5  # P(beyond 4 sd), for a scale that is itself estimated

PRESENT_LEAST_S = 60.0  # on probation a shorter stretch is not compared with the anchor
P_PROBATION = 0.98  # loop.md, Early harm: on probation, score, P >= .98
LOOKS_PER_WINDOW = 3.0  # independent looks that sliding over one window's length is worth

RATE_SAMPLES = 600  # newest samples that say how many to expect


@dataclass(frozen=True, kw_only=True)
class HarmCheck:
    """Whether harm is proven, and why. `reasons` is empty only where nothing was tested or found.

    `deltas`: harmed metric -> how far it moved (for the verification of the rollback).
    """

    harmed: bool
    reasons: tuple[Reason, ...] = ()
    deltas: Mapping[str, float] = field(default_factory=dict)


# ----------------------------------------------------------------------------- early harm of a step
def early_harm(
    series: Series,
    settings: Settings,
    *,
    event_ms: int,
    now_ms: int,
    others_ms: Sequence[int] = (),
    share: float = EARLY_SHARE,
) -> HarmCheck:
    """Whether the change at `event_ms` does harm already; at most `share` of 1 % false a change.

    Per guarded metric: the mean since half the settle time against the level before the event, with
    the noise that an autoregression of the quiet past predicts for that very contrast, and an
    allowance for drift; family-wise over the metrics and over all looks. A metric that stays inside
    its target is not harmed. Inside the settle time only a kick beyond max(hard limit, 5 x good,
    4 sd) counts. `others_ms`: instants of all other rule events. Source: loop.md, Early harm.
    """
    grid = _Grid.of(series, settings, event_ms, now_ms, others_ms)
    if grid is None:
        return HarmCheck(harmed=False)
    tail = FALSE_ABORTS * share / (LOOKS * max(1, len(settings.guarded)))
    found = [h for m in settings.guarded if (h := _metric_harm(series, settings, grid, m, tail)) is not None]
    found.sort(key=lambda h: -h[0])
    return HarmCheck(
        harmed=bool(found),
        reasons=tuple(r for _, r, _ in found),
        deltas={str(r.params["metric"]): delta for _, r, delta in found},
    )


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """The event in bins: bin 0 begins with it. All counts are in bins of `bin_ms`."""

    event_ms: int
    bin_ms: int
    min_count: int
    history: int
    settle: int
    look: int
    pre: int
    pre_least: int
    post_most: int
    window: int
    elapsed: int  # whole bins since the event
    breaks: tuple[tuple[int, int], ...]  # bins of the past that other events and their washout touch

    @staticmethod
    def of(
        series: Series, settings: Settings, event_ms: int, now_ms: int, others_ms: Sequence[int]
    ) -> _Grid | None:
        """The grid, or None where a later event mixes in, or too little time has passed."""
        scale = scale_for(settings, series.ts_ms[-RATE_SAMPLES:])
        bin_ms, joint_ms = scale.bin_ms, round(1000 * scale.pace)
        others = [o for o in others_ms if abs(o - event_ms) >= joint_ms]
        if any(event_ms < o < now_ms for o in others):
            return None
        wash_ms = round(settings.settle_s * 1000)
        rate = rate_of(series.ts_ms[-RATE_SAMPLES:]) or settings.rate_hz
        grid = _Grid(
            event_ms=event_ms, bin_ms=bin_ms, min_count=max(1, math.floor(0.6 * rate * bin_ms / 1000)),
            history=scale.bins(settings.history_s), settle=scale.bins(settings.settle_s),
            look=max(1, scale.bins(LOOK_S * scale.pace)), pre=max(2, scale.bins(PRE_S * scale.pace)),
            pre_least=max(2, scale.bins(PRE_LEAST_S * scale.pace)),
            post_most=max(2, scale.bins(POST_MOST_S * scale.pace)),
            window=max(1, scale.bins(settings.observe_window_s)),
            elapsed=max(0, (now_ms - event_ms) // bin_ms),
            breaks=tuple(((o - event_ms) // bin_ms, -((event_ms - o - wash_ms) // bin_ms))
                         for o in others if o <= event_ms),
        )  # fmt: skip
        return grid if grid.elapsed >= grid.look else None

    def span(self) -> tuple[int, int] | None:
        """First and last bin (exclusive) of the newest look after the settle time; None before it."""
        start = self.settle // 2
        first = max(self.settle, start + self.look)
        if self.elapsed < first:
            return None
        end = first + (self.elapsed - first) // self.look * self.look
        length = min(self.post_most, (end - start) // self.look * self.look)
        return end - length, end


@dataclass(frozen=True, kw_only=True)
class _Chance:
    """How far the compared means may lie apart without any effect: noise, drift seen, drift allowed for."""

    sd: float
    drifted: float
    allowed: float

    @staticmethod
    def of(
        settings: Settings, grid: _Grid, metric: str, noise: Noise, pre: int, span: tuple[int, int]
    ) -> _Chance:
        a, b = span
        lag = (a + b + pre) / 2
        pace = DRIFT_FACTOR * DRIFT_GOODS * settings.good[metric] / grid.window
        sd = noise.contrast_sd(pre, a + 1, b - a, lag)  # a + 1: bin -1, just before the event, guards
        return _Chance(sd=sd, drifted=noise.slope * lag, allowed=pace * lag)

    def beyond(self, sign: float, sds: float) -> float:
        """The move in direction `sign` that chance passes no more often than `sds` standard deviations say.

        Noise and unseen drift are rarely at their worst together, so they add up in squares; drift
        that was seen adds in full, and only where it makes the metric worse.
        """
        return math.hypot(sds * self.sd, self.allowed) + max(0.0, sign * self.drifted)


_Harm = tuple[float, Reason, float]  # how many times over its threshold, why, how far it moved


def _metric_harm(series: Series, settings: Settings, grid: _Grid, metric: str, tail: float) -> _Harm | None:
    """The worst side on which this metric is harmed now, None if on none."""
    if metric not in series.values:
        return None
    past = bins_between(series, metric, grid.event_ms, grid.bin_ms, -grid.history, -1, grid.min_count)
    noise = fit_noise(past, [(a + grid.history, b + grid.history) for a, b in grid.breaks])
    before = _before(past, grid)
    if noise is None or before is None:
        return None
    span = grid.span()
    if span is None:
        return _kick(series, settings, grid, metric, noise, before)
    post = _mean(series, grid, metric, *span)
    if post is None:
        return None
    level, pre = before
    b = span[1]
    chance = _Chance.of(settings, grid, metric, noise, pre, span)
    found = []
    for sign, margin in _sides(settings, metric, level):
        moved = sign * (post - level)
        limit = max(chance.beyond(sign, float(stdtrit(noise.nu, 1.0 - tail))), margin + settings.good[metric])
        if moved > limit:
            found.append(_harm("early_harm", metric, sign, moved, limit, grid, b))
    return max(found, default=None, key=lambda h: h[0])


def _kick(
    series: Series, settings: Settings, grid: _Grid, metric: str, noise: Noise, before: tuple[float, int]
) -> _Harm | None:
    """Harm inside the settle time: the mean of the last 5 s beyond max(hard limit, 5 x good, 4 sd)."""
    a, b = grid.elapsed - grid.look, grid.elapsed
    post = _mean(series, grid, metric, a, b)
    if post is None:
        return None
    level, pre = before
    chance = _Chance.of(settings, grid, metric, noise, pre, (a, b))
    sds = max(KICK_SD, float(stdtrit(noise.nu, 1.0 - KICK_TAIL)))
    good = settings.good[metric]
    hard = settings.hard.get(metric, Limit())
    found = []
    for sign, margin in _sides(settings, metric, level):
        edge = hard.max if sign > 0 else hard.min
        to_hard = sign * (edge - level) if edge is not None else 0.0
        limit = max(to_hard, KICK_GOODS * good, chance.beyond(sign, sds), margin + good)
        moved = sign * (post - level)
        if moved > limit:
            found.append(_harm("early_kick", metric, sign, moved, limit, grid, b))
    return max(found, default=None, key=lambda h: h[0])


def _sides(settings: Settings, metric: str, level: float) -> list[tuple[float, float]]:
    """(bad sign, how far the level lies inside the target on that side) for each limit of the target."""
    target = settings.targets[metric]
    out = []
    if target.max is not None:
        out.append((1.0, max(0.0, target.max - level)))
    if target.min is not None:
        out.append((-1.0, max(0.0, level - target.min)))
    return out


def _harm(code: str, metric: str, sign: float, moved: float, limit: float, grid: _Grid, end: int) -> _Harm:
    params = {"metric": metric, "observed": sign * moved, "limit": sign * limit, "unit": "value",
              "n": end, "after_s": end * grid.bin_ms / 1000}  # fmt: skip
    return moved / limit, Reason(code, params), sign * moved


def _before(past: Floats, grid: _Grid) -> tuple[float, int] | None:
    """Level before the event, and over how many bins: the quiet ones since the last other event."""
    since = max((b for _, b in grid.breaks), default=-grid.history)
    pre = min(grid.pre, -1 - max(since, -grid.history))
    if pre < grid.pre_least:
        return None
    values = past[len(past) - pre :]
    ok = np.isfinite(values)
    return (float(np.mean(values[ok])), pre) if ok.sum() >= max(2, VALID * pre) else None


def _mean(series: Series, grid: _Grid, metric: str, first: int, last: int) -> float | None:
    values = bins_between(series, metric, grid.event_ms, grid.bin_ms, first, last, grid.min_count)
    ok = np.isfinite(values)
    return float(np.mean(values[ok])) if ok.sum() >= VALID * (last - first) else None


# ----------------------------------------------------------------------------- on probation
def probation_harm(
    series: Series,
    settings: Settings,
    *,
    anchor: Sequence[QuietWindow],
    since_ms: int,
    now_ms: int,
    quiet: Sequence[QuietWindow] = (),
    share: float = PROBATION_SHARE,
) -> HarmCheck:
    """Whether what is on probation since `since_ms` does harm to the score against the anchor.

    `anchor`: quiet windows at the anchor's values, oldest first; `quiet`: all quiet windows, which
    calibrate the drift over the gap where there are enough of them; otherwise drift at the allowed
    pace is taken for possible. Needs P(score loss) >= .98, and as much more as looking every second
    for the excursion's whole time costs. Source: loop.md, Early harm (on probation).
    """
    if not anchor:
        return HarmCheck(harmed=False)
    present = _present(series, settings, anchor[-1], since_ms, now_ms)
    if present is None:
        return HarmCheck(harmed=False)
    contrast = gap_contrast(anchor=anchor[-1], present=present, quiet=quiet, settings=settings)
    base, shift = (
        (contrast.base, contrast.shift)
        if contrast.undecided is None
        else _allowing_drift(anchor, present, settings)
    )
    odds = score_odds(settings, base, shift)
    looks = LOOKS_PER_WINDOW * max(1.0, settings.excursion.max_s / settings.observe_window_s)
    need = max(P_PROBATION, 1.0 - FALSE_ABORTS * share / looks)
    if odds is None or odds.p_loss < need or -odds.mean < SCORE_GOOD:
        return HarmCheck(harmed=False)
    n = min(present.stats[m].n for m in weighted(settings))
    reason = Reason("probation_harm", {"observed": odds.mean, "limit": -SCORE_GOOD, "unit": "score", "n": n,
                                       "p": odds.p_loss, "p_limit": need})  # fmt: skip
    deltas = {m: d for m, (d, _, _) in shift.items() if _moved_out(settings, m, base.get(m), d)}
    return HarmCheck(harmed=True, reasons=(reason,), deltas=deltas)


def _moved_out(settings: Settings, metric: str, level: float | None, delta: float) -> bool:
    """True if the metric lies further outside its target than before."""
    target = settings.targets[metric]
    return level is not None and shortfall(target, level + delta) > shortfall(target, level)


def _present(
    series: Series, settings: Settings, anchor: QuietWindow, since_ms: int, now_ms: int
) -> QuietWindow | None:
    """The last window since the step has settled, with errors from its own noise; None if too short."""
    scale = scale_for(settings, series.ts_ms[-RATE_SAMPLES:])
    first = max(since_ms + round(settings.settle_s * 1000), now_ms - round(settings.history_s * 1000))
    bins = (now_ms - first) // scale.bin_ms
    width = min(bins, scale.bins(settings.observe_window_s))
    if width < max(2, scale.bins(PRESENT_LEAST_S * scale.pace)):
        return None
    rate = rate_of(series.ts_ms[-RATE_SAMPLES:]) or settings.rate_hz
    min_count = max(1, math.floor(0.6 * rate * scale.bin_ms / 1000))
    stats: dict[str, WindowStat] = {}
    start_ms = now_ms - width * scale.bin_ms
    for m in settings.metrics:
        x = bins_between(series, m, now_ms, scale.bin_ms, -bins, 0, min_count)
        noise = fit_noise(x, ())
        last = x[len(x) - width :]
        ok = np.isfinite(last)
        enough = noise is not None and ok.sum() >= VALID * width
        stats[m] = WindowStat(
            mean=float(np.mean(last[ok])) if enough else None,
            se=noise.mean_sd(width) if noise is not None and enough else None,
            n=int(ok.sum()), start_ms=start_ms, end_ms=now_ms,
        )  # fmt: skip
    return QuietWindow(
        start_ms=start_ms, end_ms=now_ms, values=anchor.values, regime=anchor.regime, stats=stats
    )


def _allowing_drift(
    anchor: Sequence[QuietWindow], present: QuietWindow, settings: Settings
) -> tuple[dict[str, float | None], dict[str, Shift]]:
    """Anchor means and shifts whose scale takes drift at the allowed pace over the gap for possible."""
    newest = anchor[-1]
    windows = (present.start_ms - newest.start_ms) / (1000 * settings.observe_window_s)
    base: dict[str, float | None] = {}
    shift: dict[str, Shift] = {}
    for m in settings.metrics:
        a, b = newest.stats.get(m), present.stats[m]
        if a is None or a.mean is None or b.mean is None:
            continue
        pace = max(DRIFT_GOODS * settings.good[m], _seen_pace(anchor, m))
        sigma = math.sqrt((a.se or 0.0) ** 2 + (b.se or 0.0) ** 2 + (pace * max(1.0, windows)) ** 2)
        base[m], shift[m] = a.mean, (b.mean - a.mean, sigma, math.inf)
    return base, shift


def _seen_pace(anchor: Sequence[QuietWindow], metric: str) -> float:
    """The rms change from one anchor window to the next, 0 with fewer than two."""
    means = [s.mean for w in anchor if (s := w.stats.get(metric)) is not None and s.mean is not None]
    return float(np.sqrt(np.mean(np.square(np.diff(means))))) if len(means) > 1 else 0.0
