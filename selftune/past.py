"""The metrics of any stretch of the past, in few buckets: from the ring, the 10 s means, or the file.

Answers "what did the metrics do from here to there?" for charts, bounded in time and memory. What a
long stretch costs to read is kept for all sessions of the process. Never writes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from selftune.coarse import BIN_MS, bins_of
from selftune.desk import Desk, Now
from selftune.downsample import MAX_BUCKETS, Buckets, downsample, of_coarse
from selftune.ranges import open_history
from selftune.series import Series
from selftune.settings import METRICS_FILE, Settings
from selftune.source import Unavailable

RING_MS = 29 * 60_000  # the ring holds half an hour; a little less is always whole
FINE_MS = 2 * 3600_000  # a stretch of the file up to this long is shown sample by sample
LONGEST_MS = 7 * 86_400_000
_PIECE_MS = 2 * 3600_000


@dataclass(frozen=True, kw_only=True)
class Past:
    """Buckets of [start, end). `means`: made of 10 s means, so that the band spans those, not samples."""

    buckets: Buckets
    start_ms: int
    end_ms: int
    means: bool


def past(
    desk: Desk, now: Now, metrics: tuple[str, ...], start_ms: int, end_ms: int, most: int = MAX_BUCKETS
) -> Past:
    """At most `most` buckets over [start, end), which is cut to its last seven days."""
    start_ms = max(start_ms, end_ms - LONGEST_MS)
    key: Hashable
    newest = now.series.newest_ms
    settings = now.settings
    if settings is None or newest is None:
        return Past(buckets=downsample(Series.empty(metrics), metrics, 0, 0), start_ms=start_ms,
                    end_ms=end_ms, means=False)  # fmt: skip
    if start_ms >= newest - RING_MS:
        key = ("ring", settings.digest, metrics, start_ms, end_ms, most, newest, len(now.series))
        found = desk.kept(key, lambda: downsample(now.series, metrics, start_ms, end_ms, most))
        return Past(buckets=found, start_ms=start_ms, end_ms=end_ms, means=False)
    coarse = now.coarse
    reaches = len(coarse) and start_ms >= int(coarse.start_ms[0]) - BIN_MS
    whole_file = now.stream is not None and now.stream.older_done
    day = newest - start_ms <= 86_400_000
    if reaches or (day and whole_file) or (day and end_ms >= newest - BIN_MS):
        last = int(coarse.start_ms[-1]) if len(coarse) else 0
        key = ("means", settings.digest, metrics, start_ms, end_ms, most, last, len(coarse))
        made = desk.kept(key, lambda: downsample(of_coarse(coarse, metrics), metrics, start_ms, end_ms, most))
        return Past(buckets=made, start_ms=start_ms, end_ms=end_ms, means=True)
    key = ("file", settings.digest, settings.timezone, metrics, start_ms, end_ms, most)
    return desk.kept(key, lambda: _from_file(now, settings, metrics, start_ms, end_ms, most))


def _from_file(
    now: Now, settings: Settings, metrics: tuple[str, ...], start_ms: int, end_ms: int, most: int
) -> Past:
    fine = end_ms - start_ms <= FINE_MS
    ranges = {m: (t.lo, t.hi) for m, t in settings.targets.items()}
    parts: list[Series] = []
    try:
        with open_history(
            now.root / METRICS_FILE, metrics=metrics, ranges=ranges, timezone=settings.timezone
        ) as history:
            for a in range(start_ms, end_ms, _PIECE_MS):
                piece = history.between(a, min(a + _PIECE_MS, end_ms))
                parts.append(piece if fine else _means(piece, metrics))
    except Unavailable:
        parts = []
    parts = [p for p in parts if len(p)]
    series = Series.empty(metrics)
    if parts:
        ts = np.concatenate([p.ts_ms for p in parts])
        values = {m: np.concatenate([p.values[m] for p in parts]) for m in metrics}
        ts, keep = np.unique(ts, return_index=True)
        series = Series(ts_ms=ts, values={m: v[keep] for m, v in values.items()})
    buckets = downsample(series, metrics, start_ms, end_ms, most)
    return Past(buckets=buckets, start_ms=start_ms, end_ms=end_ms, means=not fine)


def _means(piece: Series, metrics: tuple[str, ...]) -> Series:
    """10 s means in place of samples: a week of samples would not fit a small machine."""
    if not len(piece):
        return piece
    starts, counts, sums = bins_of(piece.ts_ms, np.stack([piece.values[m] for m in metrics]))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(counts > 0, sums / counts, np.nan)
    return Series(ts_ms=starts + BIN_MS // 2, values=dict(zip(metrics, means, strict=True)))
