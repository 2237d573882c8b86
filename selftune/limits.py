"""Is a hard limit broken, and for how long have all of them been kept?

Answers from the samples alone; a breach outranks every waiting state. Source: loop.md, Hard limit.
"""

from __future__ import annotations

import math

import numpy as np

from selftune.config import Limit, Settings, pace_of
from selftune.domain import GuardCheck
from selftune.health import rate_of
from selftune.series import Series

HARD_WINDOW_S = 20.0  # loop.md, Hard limit: the mean of the last 20 s
HARD_VALID = 0.7  # of the expected samples
HARD_MIN_SAMPLES = 5  # a fast root must not act on a single sample
RATE_SAMPLES = 600  # newest samples that say how many to expect


def hard_breach(series: Series, settings: Settings, now_ms: int) -> tuple[GuardCheck, ...]:
    """One check per hard limit that can be judged: the mean of the last 20 s against it, worst first.

    A limit without 70 % valid samples in those 20 s has no check: no data is neither a breach nor a
    pass. `passed` is False where the mean lies beyond. Source: loop.md, Hard limit.
    """
    width_ms = _hard_window_ms(settings)
    part = series.between(now_ms - width_ms, now_ms)
    checks = []
    for m, limit in settings.hard.items():
        values = part.values.get(m, np.empty(0))
        valid = values[np.isfinite(values)]
        if len(valid) >= HARD_VALID * _rate(series, settings) * width_ms / 1000:
            checks += _hard_checks(m, limit, float(np.mean(valid)), len(valid))
    return tuple(sorted(checks, key=lambda c: c.passed))


def _hard_checks(metric: str, limit: Limit, mean: float, n: int) -> list[GuardCheck]:
    edges = (("max", limit.max, 1.0), ("min", limit.min, -1.0))
    return [
        GuardCheck(
            code="hard_limit", passed=sign * (mean - edge) <= _ulps(edge), observed=mean, limit=edge,
            unit="value",
            params={"metric": metric, "side": side, "n": n},
        )
        for side, edge, sign in edges
        if edge is not None
    ]  # fmt: skip


def hard_inside_s(series: Series, settings: Settings, now_ms: int) -> float:
    """For how long, up to now, every hard limit has been kept; inf without hard limits.

    Counts back to the end of the newest 20 s mean beyond a limit, or to where the samples begin or
    are too thin to say. Units: seconds. Source: loop.md, Hard limit (10 min inside).
    """
    if not settings.hard:
        return math.inf
    return min(_inside_s(series, settings, m, limit, now_ms) for m, limit in settings.hard.items())


def _inside_s(series: Series, settings: Settings, metric: str, limit: Limit, now_ms: int) -> float:
    width_ms = _hard_window_ms(settings)
    part = series.between(0, now_ms)
    values = part.values.get(metric, np.empty(0))
    ok = np.isfinite(values)
    ts, x = part.ts_ms[ok], values[ok]
    if not len(ts):
        return 0.0
    step_ms = max(1, width_ms // 20)
    ends = now_ms - step_ms * np.arange(max(0, (now_ms - int(ts[0])) // step_ms) + 1)
    hi, lo = np.searchsorted(ts, ends, side="left"), np.searchsorted(ts, ends - width_ms, side="left")
    total = np.concatenate(([0.0], np.cumsum(x)))
    count = hi - lo
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (total[hi] - total[lo]) / count
    thin = count < HARD_VALID * _rate(series, settings) * width_ms / 1000
    beyond = np.zeros(len(ends), bool)
    if limit.max is not None:
        beyond |= mean > limit.max + _ulps(limit.max)
    if limit.min is not None:
        beyond |= mean < limit.min - _ulps(limit.min)
    bad = np.flatnonzero(thin | beyond)
    if not len(bad):
        return float(now_ms - int(ts[0])) / 1000
    return float(now_ms - int(ends[bad[0]])) / 1000


def hard_window_s(settings: Settings) -> float:
    """How long the mean is that breaks a hard limit. Units: seconds of this root."""
    return max(HARD_WINDOW_S * pace_of(settings), HARD_MIN_SAMPLES / settings.rate_hz)


def _hard_window_ms(settings: Settings) -> int:
    return round(hard_window_s(settings) * 1000)


def _ulps(edge: float) -> float:
    """What summing may add to a mean that sits exactly on the limit."""
    return 1e-12 * max(1.0, abs(edge))


def _rate(series: Series, settings: Settings) -> float:
    """Samples a second to expect: a stream slower than stated must not switch the limits off."""
    return min(settings.rate_hz, rate_of(series.ts_ms[-RATE_SAMPLES:]) or settings.rate_hz)
