"""The state of the metric stream: is it fresh, whole, moving, and is its clock right?

Answers "may these data be believed now?" and marks frozen stretches as missing. Never judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from selftune.config import Settings
from selftune.config import pace_of as pace_of  # many look for it here
from selftune.domain import Target
from selftune.series import Floats, Int64s, Series

Bools = NDArray[np.bool_]

AHEAD_MS = 2000  # a row stamped further in the future than this is a clock fault, not jitter
FROZEN_S = 10.0
FROZEN_RUNS = 5.0  # times the longest usual run
USUAL = 0.95  # share of all runs that are "usual": one old freeze must not excuse the next
APART = 8  # samples between those that are compared first


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The grid that follows from the settings. Units: ms for `bin_ms`, seconds per default second for `pace`.

    A root whose window, washout and history are all shorter than the default (90, 20, 600 s) lives
    faster: every fixed duration is multiplied by `pace`. If only one of them is short, nothing
    shrinks, and a window under settle_s + 30 s stays too short to judge.
    """

    pace: float
    bin_ms: int

    def bins(self, seconds: float) -> int:
        """Whole bins in `seconds` (real seconds, not scaled ones)."""
        return round(seconds * 1000 / self.bin_ms)


def rate_of(ts_ms: Int64s) -> float | None:
    """Samples a second by the median distance, None with fewer than two samples."""
    if len(ts_ms) < 2:
        return None
    return 1000 / max(1.0, float(np.median(np.diff(ts_ms))))


def scale_for(settings: Settings, ts_ms: Int64s) -> Scale:
    """Bins of `pace` seconds, coarser when the stream is slower than one sample a bin."""
    pace = pace_of(settings)
    rate = rate_of(ts_ms) or settings.rate_hz
    return Scale(pace=pace, bin_ms=max(1, round(1000 * pace), round(1000 / rate)))


# ----------------------------------------------------------------------------- frozen
@dataclass(frozen=True, kw_only=True)
class Runs:
    """Stretches of equal valid values. Shape: index pairs into the valid samples, last one included."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    seconds: Floats
    value: Floats


def runs_of(ts_ms: Int64s, values: Floats) -> Runs:
    """Stretches of equal values; a stretch lasts from its first to its last sample."""
    first = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1)).astype(np.int64)
    last = np.concatenate((first[1:] - 1, [len(values) - 1])).astype(np.int64)
    return Runs(first=first, last=last, seconds=(ts_ms[last] - ts_ms[first]) / 1000, value=values[first])


def frozen_mask(series: Series, metric: str, target: Target | None, pace: float = 1.0) -> Bools:
    """Samples of `metric` inside a freeze (its first sample is still good). Shape: bool[len(series)].

    Frozen: no new value for longer than max(10 s, 5 x the longest usual run) while another metric
    moves, and not at an end of the range, declared or seen (a metric at its floor is constant).
    """
    mask = np.zeros(len(series), bool)
    values = series.values[metric]
    ok = np.isfinite(values)
    valid = np.flatnonzero(ok)
    ts_ms = series.ts_ms
    if len(valid) < len(ok):
        ts_ms, values = ts_ms[valid], values[valid]
    if len(valid) < 3 or not _may_rest(ts_ms, values, FROZEN_S * pace):
        return mask
    found = runs_of(ts_ms, values)
    if len(found.first) == 1:
        return mask  # constant throughout is a state of its own
    if found.seconds.max() <= FROZEN_S * pace:
        return mask
    usual = float(np.quantile(found.seconds, USUAL, method="lower"))
    ends = {float(found.value.min()), float(found.value.max())}
    ends |= {e for e in (target.lo, target.hi) if e is not None} if target else set()
    long = np.flatnonzero(found.seconds > max(FROZEN_S * pace, FROZEN_RUNS * usual))
    for i in long:
        a, b = valid[found.first[i]], valid[found.last[i]]
        if float(found.value[i]) not in ends and _others_move(series, metric, int(a), int(b)):
            mask[a + 1 : b + 1] = True
    return mask


def plain_rows(part: Series, metrics: Sequence[str], settings: Settings) -> Floats | None:
    """The metrics' samples where every one is there, in its range and none may be frozen, else None.

    Then `cleaned` and `frozen_mask` would leave them as they are: one look says it for all. Shape:
    (metrics, samples).
    """
    if not len(part) or not metrics or any(m not in part.values for m in metrics):
        return None
    rows = np.stack([part.values[m] for m in metrics])
    least, most = rows.min(axis=1).tolist(), rows.max(axis=1).tolist()
    for m, a, b in zip(metrics, least, most, strict=True):
        t = settings.targets.get(m)
        low, high = (t.lo, t.hi) if t is not None else (None, None)
        if not (isfinite(a) and isfinite(b)):  # one NaN makes both NaN
            return None
        if (low is not None and a < low) or (high is not None and b > high):
            return None
    return None if _may_rest(part.ts_ms, rows, FROZEN_S * pace_of(settings)) else rows


def _may_rest(ts_ms: Int64s, values: Floats, seconds: float) -> bool:
    """False only where no stretch of equal values is longer: one of every few samples says so already.

    Where these are at most a fifth of `seconds` apart, a longer stretch has five of them in a row.
    Shape: `values` (samples,) or (metrics, samples); then one that may rest is enough.
    """
    ts, some = ts_ms[::APART], values[..., ::APART]
    if (
        not len(ts)
        or 5 * max(int(ts_ms[-1] - ts[-1]), int((ts[1:] - ts[:-1]).max(initial=0))) > seconds * 1000
    ):
        return True
    same = some[..., 1:] == some[..., :-1]
    return bool((same[..., 3:] & same[..., 2:-1] & same[..., 1:-2] & same[..., :-3]).any())


def _others_move(series: Series, metric: str, first: int, last: int) -> bool:
    """True when any other metric shows two different valid values in `first..last`."""
    for name, values in series.values.items():
        if name == metric:
            continue
        part = values[first : last + 1]
        part = part[np.isfinite(part)]
        if len(part) and part.min() != part.max():
            return True
    return False


def cleaned(values: Floats, target: Target | None) -> Floats:
    """`values` with infinities and what lies outside the declared range as NaN."""
    bad = ~np.isfinite(values)
    if target is not None and target.lo is not None:
        bad |= values < target.lo
    if target is not None and target.hi is not None:
        bad |= values > target.hi
    return np.where(bad, np.nan, values) if bad.any() else values


# ----------------------------------------------------------------------------- the stream now
@dataclass(frozen=True, kw_only=True)
class Health:
    """The metric stream at one instant. `age_s`, `rate_hz`, `newest_ms` are None without samples.

    The counts stand on the last window of `observe_window_s`: `gaps` between samples longer than
    5 periods (at least 1 s), `longest_gap_s`, `missing[m]`: share of the expected samples of m that
    is absent or invalid. `frozen`: metrics frozen now. `clock_ahead`: most of the last 5 s of rows
    are stamped > 2 s in the future. `stale`: older than `max_age_s`, or none, or `clock_ahead`.
    `enough`: rate x R >= 1.2 x min_samples. `fresh[m]`: seconds since m's last valid, unfrozen value.
    """

    newest_ms: int | None
    age_s: float | None
    rate_hz: float | None
    gaps: int
    longest_gap_s: float
    missing: Mapping[str, float] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    clock_ahead: bool = False
    stale: bool = True
    enough: bool = False
    fresh: Mapping[str, float | None] = field(default_factory=dict)


def data_health(series: Series, settings: Settings, now_ms: int) -> Health:
    """The state of the stream at `now_ms`; rows more than 2 s ahead of it are set aside."""
    clock_ahead = series.ahead_share > 0.5 or _mostly_ahead(series.ts_ms, now_ms)
    until_ms = now_ms + AHEAD_MS + 1
    history = series.between(now_ms - round(settings.history_s * 1000) + 1, until_ms)
    recent = history.between(now_ms - round(settings.observe_window_s * 1000) + 1, until_ms)
    past = series.between(-(2**62), until_ms)
    newest = past.newest_ms
    age_s = None if newest is None else max(0.0, (now_ms - newest) / 1000)
    rate = rate_of(recent.ts_ms)
    longest_gap, gaps = _gaps(recent.ts_ms, rate or settings.rate_hz, pace_of(settings))
    masks = _masks(history, settings)
    stale = age_s is None or age_s > settings.max_age_s or clock_ahead
    observed = _count_rate(recent, settings)
    return Health(
        newest_ms=newest,
        age_s=age_s,
        rate_hz=rate,
        gaps=gaps,
        longest_gap_s=longest_gap,
        missing={m: _missing_share(recent, m, masks, settings, rate) for m in settings.metrics},
        frozen=tuple(m for m, mask in (masks or {}).items() if len(mask) and mask[-1]),
        clock_ahead=clock_ahead,
        stale=stale,
        enough=observed * settings.observe_window_s >= 1.2 * settings.min_samples,
        fresh={m: _fresh_s(history, m, masks, settings, now_ms) for m in settings.metrics},
    )


def _mostly_ahead(ts_ms: Int64s, now_ms: int) -> bool:
    """True when most rows of the last 5 s of the file are stamped > 2 s in the future."""
    if not len(ts_ms):
        return False
    last = ts_ms[np.searchsorted(ts_ms, ts_ms[-1] - 5000, side="right") :]
    return bool((last > now_ms + AHEAD_MS).mean() > 0.5)


def _gaps(ts_ms: Int64s, rate: float, pace: float) -> tuple[float, int]:
    """Longest distance between samples in seconds, and how many are gaps."""
    if len(ts_ms) < 2:
        return 0.0, 0
    steps = np.diff(ts_ms) / 1000
    return float(steps.max()), int((steps > max(5 / rate, pace)).sum())


def _count_rate(recent: Series, settings: Settings) -> float:
    """Samples a second, counted over what the window has seen of the stream (a short start is fine)."""
    if len(recent) < 2:
        return 0.0
    seen_s = (int(recent.ts_ms[-1]) - int(recent.ts_ms[0])) / 1000
    return (len(recent) - 1) / max(seen_s, 1e-3)


def _masks(history: Series, settings: Settings) -> dict[str, Bools] | None:
    """Which samples of each metric are frozen; None where every sample of all of them counts."""
    if plain_rows(history, tuple(history.values), settings) is not None:
        return None
    pace, none = pace_of(settings), np.zeros(len(history), bool)
    moving = _moving(history, pace)
    return {
        m: none if m in moving else frozen_mask(history, m, settings.targets.get(m), pace)
        for m in history.values
    }


def _moving(history: Series, pace: float) -> set[str]:
    """Metrics that have every sample and certainly no freeze: one look at all of them together."""
    whole = [m for m, values in history.values.items() if np.isfinite(values).all()]
    if not whole or not len(history):
        return set()
    rows = np.stack([history.values[m] for m in whole])
    return set() if _may_rest(history.ts_ms, rows, FROZEN_S * pace) else set(whole)


def _valid(part: Series, metric: str, masks: Mapping[str, Bools] | None, settings: Settings) -> Bools:
    """Which of the newest samples of `metric` count; the mask may reach further back than `part`."""
    n = len(part)
    if masks is None:
        return np.ones(n, bool)
    values = cleaned(part.values[metric], settings.targets.get(metric))
    return np.asarray(np.isfinite(values) & ~masks[metric][len(masks[metric]) - n :])


def _missing_share(
    recent: Series, metric: str, masks: Mapping[str, Bools] | None, settings: Settings, rate: float | None
) -> float:
    if metric not in recent.values:
        return 1.0
    expected = max(1.0, min(rate or settings.rate_hz, settings.rate_hz) * settings.observe_window_s)
    return float(min(1.0, max(0.0, 1 - _valid(recent, metric, masks, settings).sum() / expected)))


def _fresh_s(
    history: Series, metric: str, masks: Mapping[str, Bools] | None, settings: Settings, now_ms: int
) -> float | None:
    if metric not in history.values:
        return None
    if masks is None:
        return max(0.0, (now_ms - int(history.ts_ms[-1])) / 1000)
    good = np.flatnonzero(_valid(history, metric, masks, settings))
    return max(0.0, (now_ms - int(history.ts_ms[good[-1]])) / 1000) if len(good) else None
