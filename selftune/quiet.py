"""Where the stream was left alone: quiet stretches between rule events, and windows inside them.

Answers "what was seen at these rule values, without anybody touching them?". Pure.
Source: effects.md (states), loop.md (pace and data, drift over the gap).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil, inf, isfinite, isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftune.coarse import Coarse
from selftune.config import Settings, pace_of
from selftune.domain import RuleEvent, WindowStat
from selftune.judging import QuietWindow
from selftune.series import Floats, Int64s, Series

BATCH_S = 10.0  # batch means of 10 s (effects.md), also the coarse history's bin
MIN_STRETCH_S = 90.0  # loop.md: event-free history counts in stretches of at least this
MIN_SHARE = 0.7  # of the batches of a window must be there
LOOK_BACK_S = 6 * 3600.0  # older windows are drift; a cycle's work must not grow with the day
BRIEF_SHARE = 2 / 3  # of a window: at least so long is one that a change cut short
FULL_PACE = 0.99  # below this the root lives faster than the coarse bins; the samples serve instead


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Windows of equal length. Shape: start_ms (n,); mean, se (n, metrics), NaN where too few bins are there.

    `count` (n, metrics): samples.
    """

    start_ms: Int64s
    length_ms: int
    mean: Floats
    se: Floats
    count: Int64s

    def end_ms(self, i: int) -> int:
        return int(self.start_ms[i]) + self.length_ms

    def stats(self, i: int, metrics: Sequence[str]) -> dict[str, WindowStat]:
        """The `i`th of them as values."""
        a, b = int(self.start_ms[i]), self.end_ms(i)
        each = zip(metrics, self.mean[i].tolist(), self.se[i].tolist(), self.count[i].tolist(), strict=True)
        return {
            m: WindowStat(
                mean=None if isnan(mean) else mean, se=None if isnan(mean) else se, n=n, start_ms=a, end_ms=b
            )
            for m, mean, se, n in each
        }


@dataclass(frozen=True, slots=True)
class _Stretch:
    """One quiet stretch: where it ends, the values in force, each place for a window (None: too few bins)."""

    end_ms: int
    values: Mapping[str, float]
    places: tuple[QuietWindow | None, ...]


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Quiet windows, oldest first, and what they were made of: stretches, by their begin, and the rest."""

    windows: tuple[QuietWindow, ...] = ()
    of: Mapping[int, _Stretch] = field(default_factory=dict)
    grid: Coarse | None = None
    settings: Settings | None = None
    events: Sequence[RuleEvent] = ()
    began: Sequence[int] = ()

    def same_until(self, grid: Coarse) -> float:
        """Up to which instant `grid` is what the windows here were made of; -inf: nowhere. Units: ms."""
        old = self.grid
        if old is None or old.bin_ms != grid.bin_ms:
            return -inf
        first = int(np.searchsorted(old.start_ms, grid.start_ms[0]))
        n = len(old) - first
        if n <= 0 or not np.array_equal(old.start_ms[first:], grid.start_ms[:n]):
            return -inf
        for before, now in ((old.mean, grid.mean), (old.count, grid.count)):
            if before.keys() != now.keys():
                return -inf
            if not all(_same_bits(x[first:], now[m][:n]) for m, x in before.items()):
                return -inf
        return int(old.start_ms[-1]) + old.bin_ms


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.dtype == b.dtype and np.array_equal(a.view(np.int64), b.view(np.int64))


def tiles_of(grid: Coarse, metrics: Sequence[str], starts: Int64s, k: int, *, least: int = 2) -> Tiles:
    """The windows of `k` bins that begin at `starts` (rising), those with 70 % (at least `least`) of them."""
    origin = min(int(grid.start_ms[0]), int(starts[0]))
    slot = (grid.start_ms - origin) // grid.bin_ms
    at = ((starts - origin) // grid.bin_ms)[:, None] + np.arange(k)
    size_of_all = max(int(slot[-1]), int(at[-1, -1])) + 1
    known = [j for j, m in enumerate(metrics) if m in grid.mean]
    x, c = np.full((len(known), size_of_all), np.nan), np.zeros((len(known), size_of_all))
    for row, j in enumerate(known):
        x[row, slot], c[row, slot] = grid.mean[metrics[j]], grid.count[metrics[j]]
    tiles = x.take(at, axis=1)
    there = np.isfinite(tiles)
    n = there.sum(axis=2)
    enough = n >= max(least, MIN_SHARE * k)
    size = np.maximum(n, 1)
    mean = np.where(there, tiles, 0.0).sum(axis=2) / size
    spread = np.where(there, (tiles - mean[:, :, None]) ** 2, 0.0).sum(axis=2) / np.maximum(size - 1, 1)
    shape = (len(starts), len(metrics))
    means, errors, counts = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.int64)
    means[:, known] = np.where(enough, mean, np.nan).T
    errors[:, known] = np.where(enough, np.sqrt(spread / size), np.nan).T
    counts[:, known] = c.take(at, axis=1).sum(axis=2).T
    return Tiles(start_ms=starts, length_ms=k * grid.bin_ms, mean=means, se=errors, count=counts)


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
    """What `quiet_of` finds, without a thought for later."""
    return quiet_of(series, coarse, events, settings, regimes_ms=regimes_ms, marks_ms=marks_ms).windows


def quiet_of(
    series: Series,
    coarse: Coarse,
    events: Sequence[RuleEvent],
    settings: Settings,
    *,
    regimes_ms: Sequence[int] = (),
    marks_ms: Sequence[int] = (),
    known: Quiet | None = None,
) -> Quiet:
    """Adjacent windows of `observe_window_s` inside the quiet stretches, oldest first, with their values.

    `marks_ms`: instants that no window may span (confirmations: the anchor's baseline begins there).
    The standard errors are those of batch means (10 s batches), so that autocorrelation is inside.
    `known`: an earlier answer, whose windows are taken over where they have not changed.
    """
    grid = _grid(series, coarse, settings)
    if not len(grid):
        return Quiet()
    bin_ms = grid.bin_ms
    k = max(2, round(settings.observe_window_s * 1000 / bin_ms))
    length_ms, end_ms = k * bin_ms, int(grid.start_ms[-1]) + bin_ms
    timeline, began = _Timeline(events, settings), sorted(regimes_ms)
    if known is None or known.settings is not settings or known.began != began:
        known = Quiet()
    same_until, told_until = known.same_until(grid), timeline.same_until(known.events)
    found: dict[int, _Stretch] = {}
    lacking: list[tuple[int, range]] = []
    quiet = stretches([e.ts_ms for e in events], settings.settle_s, int(grid.start_ms[0]), end_ms)
    for a, b in _cut(quiet, marks_ms):
        old = known.of.get(a)
        if old is not None and old.end_ms == b <= same_until and a < told_until:
            found[a] = old
            continue
        first, values = -(-a // bin_ms) * bin_ms, timeline.at(a)
        kept: tuple[QuietWindow | None, ...] = ()
        if old is not None and old.values == values and first < (same := min(b, same_until)):
            kept = old.places[: int(same - first) // length_ms]  # it has grown, or was cut short
        found[a] = _Stretch(b, values, kept)
        lacking.append((a, range(first + len(kept) * length_ms, b - length_ms + 1, length_ms)))
    made = iter(
        _made(grid, settings.metrics, [(s, found[a].values) for a, new in lacking for s in new], k, began)
    )
    for a, new in lacking:
        found[a] = replace(found[a], places=(*found[a].places, *islice(made, len(new))))
    return Quiet(
        windows=tuple(w for s in found.values() for w in s.places if w is not None),
        of=found, grid=grid, settings=settings, events=timeline.events, began=began,
    )  # fmt: skip


def _made(
    grid: Coarse,
    metrics: Sequence[str],
    places: Sequence[tuple[int, Mapping[str, float]]],
    k: int,
    began: Sequence[int],
) -> list[QuietWindow | None]:
    """The window of `k` bins at each place (its start, the values in force), None with too few bins."""
    if not places:
        return []
    starts = [start for start, _ in places]
    near = grid.between(starts[0], starts[-1] + k * grid.bin_ms)
    tiles = tiles_of(near if len(near) else grid, metrics, np.array(starts, np.int64), k)
    enough = [any(map(isfinite, row)) for row in tiles.mean.tolist()]
    return [
        QuietWindow(
            start_ms=start, end_ms=tiles.end_ms(i), values=values, stats=tiles.stats(i, metrics),
            regime=bisect_right(began, start),
        ) if enough[i] else None
        for i, (start, values) in enumerate(places)
    ]  # fmt: skip


def brief_windows(
    series: Series,
    coarse: Coarse,
    events: Sequence[RuleEvent],
    settings: Settings,
    *,
    regimes_ms: Sequence[int] = (),
) -> tuple[QuietWindow, ...]:
    """One window for each time between two changes that is too short for a whole one, oldest first.

    At least two thirds of `observe_window_s` after the washout. For the policy's model alone, which weighs
    each mean by its error (that of fewer batches): what judges is calibrated on windows of equal length.
    """
    bin_ms = _bin_ms(settings)
    k = max(2, round(settings.observe_window_s * 1000 / bin_ms))
    least = max(2, ceil(BRIEF_SHARE * k))
    wash = round(settings.settle_s * 1000)
    times = np.unique(np.array([e.ts_ms for e in events], np.int64))
    begins = times[:-1] + wash
    starts = -(-begins // bin_ms) * bin_ms
    sizes = (times[1:] - starts) // bin_ms
    short = (sizes >= least) & (sizes < k)
    if not short.any() or not len(grid := _grid(series, coarse, settings)):
        return ()
    first, end = int(grid.start_ms[0]), int(grid.start_ms[-1]) + bin_ms
    short &= (starts >= first) & (starts + sizes * bin_ms <= end)
    found: list[tuple[int, int, dict[str, WindowStat]]] = []
    for n in np.unique(sizes[short]).tolist():
        at = np.flatnonzero(short & (sizes == n))
        tiles = tiles_of(grid, settings.metrics, starts[at], n)
        for i in np.flatnonzero(np.isfinite(tiles.mean).any(axis=1)).tolist():
            found.append((int(starts[at[i]]), int(begins[at[i]]), tiles.stats(i, settings.metrics)))
    timeline, regimes = _Timeline(events, settings), sorted(regimes_ms)
    return tuple(
        QuietWindow(
            start_ms=start, end_ms=next(iter(stats.values())).end_ms, values=timeline.at(begin), stats=stats,
            regime=bisect_right(regimes, start),
        )
        for start, begin, stats in sorted(found, key=lambda f: f[0])
    )  # fmt: skip


def _cut(quiet: Sequence[tuple[int, int]], marks_ms: Sequence[int]) -> list[tuple[int, int]]:
    """The stretches, cut at every mark inside them."""
    found, marks = [], sorted(marks_ms)
    for a, b in quiet:
        for mark in marks[bisect_right(marks, a) : bisect_left(marks, b)]:
            found.append((a, mark))
            a = mark
        found.append((a, b))
    return found


def _grid(series: Series, coarse: Coarse, settings: Settings) -> Coarse:
    """The coarse history; where the root lives faster than it, means of the samples on a finer grid."""
    if pace_of(settings) >= FULL_PACE:
        if not len(coarse):
            return coarse
        end_ms = int(coarse.start_ms[-1]) + coarse.bin_ms
        return coarse.between(end_ms - round(LOOK_BACK_S * 1000), end_ms)
    bin_ms = _bin_ms(settings)
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


def _bin_ms(settings: Settings) -> int:
    """The bins' length, known without a look at the data. Units: ms."""
    pace = pace_of(settings)
    return max(1, round(BATCH_S * (1.0 if pace >= FULL_PACE else pace) * 1000))


class _Timeline:
    """Which rule values were in force at an instant of the metrics' time."""

    def __init__(self, events: Sequence[RuleEvent], settings: Settings) -> None:
        self._init = {r.name: r.init for r in settings.rules.values()}
        named = [e for e in events if e.rule in self._init and e.new is not None]
        self.events = sorted(named, key=lambda e: e.ts_ms)
        self._i = 0
        self._values = dict(self._init)

    def same_until(self, earlier: Sequence[RuleEvent]) -> float:
        """Up to which instant these values are those after `earlier` events; -inf: nowhere. Units: ms."""
        if self.events[: len(earlier)] != earlier:
            return -inf
        return self.events[len(earlier)].ts_ms if len(self.events) > len(earlier) else inf

    def at(self, ms: int) -> dict[str, float]:
        """The values in force at `ms`; asked in rising order."""
        while self._i < len(self.events) and self.events[self._i].ts_ms <= ms:
            e = self.events[self._i]
            assert e.new is not None
            self._values[e.rule] = e.new
            self._i += 1
        return dict(self._values)
