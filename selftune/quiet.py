"""Where the stream was left alone: quiet stretches between rule events, and windows inside them.

Answers "what was seen at these rule values, without anybody touching them?". Pure.
Source: effects.md (states), loop.md (pace and data, drift over the gap).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from selftune.coarse import Coarse
from selftune.config import Settings, pace_of
from selftune.domain import RuleEvent, WindowStat
from selftune.judging import QuietWindow
from selftune.series import Int64s, Series

BATCH_S = 10.0  # batch means of 10 s (effects.md), also the coarse history's bin
MIN_STRETCH_S = 90.0  # loop.md: event-free history counts in stretches of at least this
MIN_SHARE = 0.7  # of the batches of a window must be there
LOOK_BACK_S = 6 * 3600.0  # older windows are drift; a cycle's work must not grow with the day
FULL_PACE = 0.99  # below this the root lives faster than the coarse bins; the samples serve instead


def stretches(events_ms: Sequence[int], settle_s: float, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """Stretches of [start, end) that no event and no washout after one touches, oldest first."""
    wash = round(settle_s * 1000)
    found: list[tuple[int, int]] = []
    at = start_ms
    for t in sorted(events_ms):
        if t + wash <= at:
            continue
        if t >= end_ms:
            break
        if t > at:
            found.append((at, t))
        at = max(at, t + wash)
    if end_ms > at:
        found.append((at, end_ms))
    return found


def quiet_history_s(series: Series, events_ms: Sequence[int], settings: Settings, now_ms: int) -> float:
    """Seconds of event- and washout-free samples within `history_s` before now, long stretches only."""
    if not len(series):
        return 0.0
    start = max(now_ms - round(settings.history_s * 1000), int(series.ts_ms[0]))
    end = min(now_ms, int(series.ts_ms[-1]))
    least = MIN_STRETCH_S * pace_of(settings) * 1000
    return sum(b - a for a, b in stretches(events_ms, settings.settle_s, start, end) if b - a >= least) / 1000


def quiet_windows(
    series: Series,
    coarse: Coarse,
    events: Sequence[RuleEvent],
    settings: Settings,
    *,
    regimes_ms: Sequence[int] = (),
    marks_ms: Sequence[int] = (),
) -> tuple[QuietWindow, ...]:
    """Adjacent windows of `observe_window_s` inside the quiet stretches, oldest first, with their values.

    `marks_ms`: instants that no window may span (confirmations: the anchor's baseline begins there).
    The standard errors are those of batch means (10 s batches), so that autocorrelation is inside.
    """
    grid = _grid(series, coarse, settings)
    if not len(grid):
        return ()
    bin_ms = grid.bin_ms
    k = max(2, round(settings.observe_window_s * 1000 / bin_ms))
    end_ms = int(grid.start_ms[-1]) + bin_ms
    quiet = stretches([e.ts_ms for e in events], settings.settle_s, int(grid.start_ms[0]), end_ms)
    starts, begins = _starts(_cut(quiet, marks_ms), bin_ms, k)
    if not starts:
        return ()
    means, errors, counts = _tiles(grid, settings.metrics, np.array(starts, np.int64), k)
    timeline, values = _Timeline(events, settings), {}
    windows: list[QuietWindow] = []
    for i, start in enumerate(starts):
        end = start + k * bin_ms
        stats = {
            m: WindowStat(mean=means[m][i], se=errors[m][i], n=counts[m][i], start_ms=start, end_ms=end)
            for m in settings.metrics
        }
        if all(s.mean is None for s in stats.values()):
            continue
        if begins[i] not in values:
            values[begins[i]] = timeline.at(begins[i])
        windows.append(
            QuietWindow(
                start_ms=start, end_ms=end, values=values[begins[i]], stats=stats,
                regime=sum(1 for r in regimes_ms if r <= start),
            )
        )  # fmt: skip
    return tuple(windows)


def _starts(quiet: Sequence[tuple[int, int]], bin_ms: int, k: int) -> tuple[list[int], list[int]]:
    """(start of every window of `k` bins, where its stretch begins), oldest first."""
    starts: list[int] = []
    begins: list[int] = []
    for a, b in quiet:
        first = -(-a // bin_ms) * bin_ms
        n = max(0, (b - first) // (k * bin_ms))
        starts += range(first, first + n * k * bin_ms, k * bin_ms)
        begins += [a] * n
    return starts, begins


def _cut(quiet: Sequence[tuple[int, int]], marks_ms: Sequence[int]) -> list[tuple[int, int]]:
    """The stretches, cut at every mark inside them."""
    found = []
    for a, b in quiet:
        for mark in sorted(m for m in marks_ms if a < m < b):
            found.append((a, mark))
            a = mark
        found.append((a, b))
    return found


def _grid(series: Series, coarse: Coarse, settings: Settings) -> Coarse:
    """The coarse history; where the root lives faster than it, means of the samples on a finer grid."""
    pace = pace_of(settings)
    if pace >= FULL_PACE:
        if not len(coarse):
            return coarse
        end_ms = int(coarse.start_ms[-1]) + coarse.bin_ms
        return coarse.between(end_ms - round(LOOK_BACK_S * 1000), end_ms)
    bin_ms = max(1, round(BATCH_S * pace * 1000))
    if not len(series):
        return Coarse.empty(settings.metrics)
    index = series.ts_ms // bin_ms
    starts, inverse = np.unique(index, return_inverse=True)
    count, mean = {}, {}
    for m in settings.metrics:
        values = series.values.get(m)
        valid = np.isfinite(values) if values is not None else np.zeros(len(series), bool)
        n = np.bincount(inverse[valid], minlength=len(starts)).astype(np.int64)
        total = (
            np.bincount(inverse[valid], weights=values[valid], minlength=len(starts))
            if values is not None
            else np.zeros(len(starts))
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            mean[m] = np.where(n > 0, total / n, np.nan)
        count[m] = n
    return Coarse(start_ms=starts * bin_ms, count=count, mean=mean, bin_ms=bin_ms)


def _tiles(
    grid: Coarse, metrics: Sequence[str], starts: Int64s, k: int
) -> tuple[Mapping[str, list[float | None]], Mapping[str, list[float | None]], Mapping[str, list[int]]]:
    """Mean, standard error and sample count of the windows of `k` bins that begin at `starts`."""
    origin = int(grid.start_ms[0])
    slot = (grid.start_ms - origin) // grid.bin_ms
    at = ((starts - origin) // grid.bin_ms)[:, None] + np.arange(k)
    size_of_all = max(int(slot[-1]), int(at[-1, -1])) + 1
    means, errors, counts = {}, {}, {}
    for m in metrics:
        x = np.full(size_of_all, np.nan)
        c = np.zeros(size_of_all)
        if m in grid.mean:
            x[slot] = grid.mean[m]
            c[slot] = grid.count[m]
        tiles = x[at]
        there = np.isfinite(tiles)
        enough = there.sum(axis=1) >= max(2, MIN_SHARE * k)
        size = np.maximum(there.sum(axis=1), 2)
        total = np.where(there, tiles, 0.0).sum(axis=1)
        mean = total / size
        spread = np.where(there, (tiles - mean[:, None]) ** 2, 0.0).sum(axis=1) / (size - 1)
        means[m] = [x if ok else None for x, ok in zip(mean.tolist(), enough.tolist(), strict=True)]
        error = np.sqrt(spread / size).tolist()
        errors[m] = [x if ok else None for x, ok in zip(error, enough.tolist(), strict=True)]
        counts[m] = c[at].sum(axis=1).astype(np.int64).tolist()
    return means, errors, counts


class _Timeline:
    """Which rule values were in force at an instant of the metrics' time."""

    def __init__(self, events: Sequence[RuleEvent], settings: Settings) -> None:
        self._init = {r.name: r.init for r in settings.rules.values()}
        named = [e for e in events if e.rule in self._init and e.new is not None]
        self._events = sorted(named, key=lambda e: e.ts_ms)
        self._i = 0
        self._values = dict(self._init)

    def at(self, ms: int) -> dict[str, float]:
        """The values in force at `ms`; asked in rising order."""
        while self._i < len(self._events) and self._events[self._i].ts_ms <= ms:
            e = self._events[self._i]
            assert e.new is not None
            self._values[e.rule] = e.new
            self._i += 1
        return dict(self._values)
