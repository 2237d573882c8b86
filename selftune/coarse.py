"""Coarse history of the metrics: 10 s means of one epoch, oldest first.

Answers "what did the last day look like?" for drift over gaps and for placebo windows. Pure:
`samples.py` hands in sorted samples, forwards as they come and backwards as older bytes are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from selftune.series import Floats, Int64s

BIN_MS = 10_000
LATE_MS = 5_000  # rows come at most this much out of order (intake.py)


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """Means of full 10 s bins `[start, start + 10 s)`, starts on multiples of 10 s UTC.

    Shape: `start_ms` int64[n], strictly increasing; a bin without any row is left out. Each of
    `count` int64[n]: valid samples; each of `mean` float64[n]: NaN where count is 0.
    """

    start_ms: Int64s
    count: Mapping[str, Int64s]
    mean: Mapping[str, Floats]
    bin_ms: int = BIN_MS

    def __len__(self) -> int:
        return len(self.start_ms)

    def between(self, start_ms: int, end_ms: int) -> Coarse:
        """The bins that lie wholly in [start_ms, end_ms); views, no copies."""
        a = int(np.searchsorted(self.start_ms, start_ms, side="left"))
        b = int(np.searchsorted(self.start_ms, end_ms - self.bin_ms, side="right"))
        return Coarse(
            start_ms=self.start_ms[a:b],
            count={m: n[a:b] for m, n in self.count.items()},
            mean={m: x[a:b] for m, x in self.mean.items()},
            bin_ms=self.bin_ms,
        )

    @staticmethod
    def empty(metrics: tuple[str, ...] = ()) -> Coarse:
        """A history without bins."""
        none = np.empty(0, np.int64)
        return Coarse(
            start_ms=none, count=dict.fromkeys(metrics, none), mean=dict.fromkeys(metrics, np.empty(0))
        )


Bins = tuple[Int64s, Int64s, Floats]  # starts [n], counts [metrics, n], sums [metrics, n]


def bins_of(ts_ms: Int64s, values: Floats) -> Bins:
    """Starts, counts and sums of the 10 s bins that hold at least one of these sorted samples."""
    if not len(ts_ms):
        return np.empty(0, np.int64), np.empty((len(values), 0), np.int64), np.empty((len(values), 0))
    bins = ts_ms // BIN_MS
    first = np.flatnonzero(np.append(True, bins[1:] != bins[:-1]))
    valid = np.isfinite(values)
    counts = np.add.reduceat(valid, first, axis=1, dtype=np.int64)
    sums = np.add.reduceat(values if valid.all() else np.where(valid, values, 0.0), first, axis=1)
    return bins[first] * BIN_MS, counts, sums


class CoarseBook:
    """Gathers the bins of the present epoch; `coarse` is a value that later calls do not touch.

    A bin is closed once the newest sample is 5 s past its end, so that late rows are in it. The
    oldest samples, whose bin may reach into bytes not read yet, wait in a carry for `older`.
    """

    def __init__(self, metrics: tuple[str, ...], keep_ms: int) -> None:
        self._metrics = metrics
        self._keep_ms = keep_ms
        self.clear()

    def clear(self) -> None:
        """Forget everything: a new epoch begins."""
        m = len(self._metrics)
        self._next: int | None = None  # start of the first bin that is not closed yet
        self._bins: Bins = (np.empty(0, np.int64), np.empty((m, 0), np.int64), np.empty((m, 0)))
        self._carry: tuple[Int64s, Floats] | None = None
        self._cached: Coarse | None = None

    def forward(self, ts_ms: Int64s, values: Floats, newest_ms: int, *, whole: bool) -> None:
        """Close the bins that end 5 s before `newest_ms`; the samples must reach back to the last call's.

        `whole`: the first sample is the epoch's first, there is nothing older to come.
        """
        if not len(ts_ms):
            return
        until = (newest_ms - LATE_MS) // BIN_MS * BIN_MS
        if self._next is None:
            self._next = _ceil(int(ts_ms[0]) + (0 if whole else 2 * LATE_MS))
            if until < self._next:
                self._next = None
                return
            if not whole:
                a = np.searchsorted(ts_ms, self._next)
                self._carry = (ts_ms[:a].copy(), values[:, :a].copy())
        if until <= self._next:
            return
        a, b = np.searchsorted(ts_ms, (self._next, until))
        self._next = until
        self._join(after=bins_of(ts_ms[a:b], values[:, a:b]))

    @property
    def ready(self) -> bool:
        """True when older samples may be handed in."""
        return self._carry is not None

    @property
    def carried_from_ms(self) -> int | None:
        """The oldest sample handed in so far, None when there is nothing to join older ones to."""
        return int(self._carry[0][0]) if self._carry is not None and len(self._carry[0]) else None

    def older(self, ts_ms: Int64s, values: Floats) -> None:
        """Add sorted samples read from just before those that are known."""
        if self._carry is None or not len(ts_ms):
            return
        ts, first = np.concatenate([ts_ms, self._carry[0]]), len(ts_ms)
        joined = np.concatenate([values, self._carry[1]], axis=1)
        order = np.lexsort((np.arange(len(ts)) >= first, ts))  # of one ts the later written comes last
        ts, joined = ts[order], joined[:, order]
        last = np.r_[ts[1:] != ts[:-1], True]
        self._carry = (ts[last], joined[:, last])
        self._close_carry(_ceil(int(ts[0]) + 2 * LATE_MS))

    def finish(self) -> None:
        """No older samples exist in this epoch: close what was carried."""
        if self._carry is not None and len(self._carry[0]):
            self._close_carry(_ceil(int(self._carry[0][0])))
        self._carry = None

    def _close_carry(self, start: int) -> None:
        assert self._carry is not None
        ts, values = self._carry
        a = np.searchsorted(ts, start)
        self._carry = (ts[:a].copy(), values[:, :a].copy())
        self._join(before=bins_of(ts[a:], values[:, a:]))

    def _join(self, *, before: Bins | None = None, after: Bins | None = None) -> None:
        parts = [p for p in (before, self._bins, after) if p is not None and len(p[0])]
        if not parts:
            return
        starts = np.concatenate([p[0] for p in parts])
        a = int(np.searchsorted(starts, starts[-1] - self._keep_ms, side="right"))
        self._bins = (
            starts[a:],
            np.concatenate([p[1] for p in parts], axis=1)[:, a:],
            np.concatenate([p[2] for p in parts], axis=1)[:, a:],
        )
        self._cached = None

    @property
    def oldest_wanted_ms(self) -> int | None:
        """Instant before which nothing is kept, None while there is no bin."""
        return int(self._bins[0][-1]) - self._keep_ms if len(self._bins[0]) else None

    @property
    def coarse(self) -> Coarse:
        """The closed bins so far."""
        if self._cached is None:
            starts, counts, sums = self._bins
            with np.errstate(invalid="ignore", divide="ignore"):
                means = np.where(counts > 0, sums / counts, np.nan)
            self._cached = Coarse(
                start_ms=starts,
                count=dict(zip(self._metrics, counts, strict=True)),
                mean=dict(zip(self._metrics, means, strict=True)),
            )
        return self._cached


def _ceil(ms: int) -> int:
    return -(-ms // BIN_MS) * BIN_MS
