"""Metric samples in memory: sorted columns of one epoch, cut by half-open windows.

Answers "which samples lie in this window?". Never reads a file; `samples.py` makes these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Samples of one epoch (a stretch of the stream without a jump back of its clock).

    Shape: `ts_ms` int64[n], strictly increasing; each of `values` float64[n], NaN = missing.
    `epoch` counts the jumps back (> 5 s) seen before; `epoch_start_ms` is the epoch's first instant.
    `rejects`: skipped rows and cells by reason, for people. `resolution`: last written decimal.
    """

    ts_ms: Int64s
    values: Mapping[str, Floats]
    epoch: int = 0
    epoch_start_ms: int | None = None
    rejects: Mapping[str, int] = field(default_factory=dict)
    ahead_share: float = 0.0  # share of the last 5 s of rows stamped > 2 s in the future

    def __len__(self) -> int:
        return len(self.ts_ms)

    @property
    def newest_ms(self) -> int | None:
        """Instant of the newest sample, None without one."""
        return int(self.ts_ms[-1]) if len(self.ts_ms) else None

    def between(self, start_ms: int, end_ms: int) -> Series:
        """The samples with start_ms <= ts < end_ms; views, no copies."""
        a, b = np.searchsorted(self.ts_ms, (start_ms, end_ms), side="left")
        return Series(
            ts_ms=self.ts_ms[a:b],
            values={m: v[a:b] for m, v in self.values.items()},
            epoch=self.epoch,
            epoch_start_ms=self.epoch_start_ms,
            rejects=self.rejects,
            ahead_share=self.ahead_share,
        )

    @staticmethod
    def empty(metrics: tuple[str, ...] = ()) -> Series:
        """A series without samples."""
        return Series(ts_ms=np.empty(0, np.int64), values={m: np.empty(0) for m in metrics})


def one_second_bins(series: Series, metric: str, t0_ms: int, first: int, last: int, min_count: int) -> Floats:
    """Means of 1 s bins k = first..last-1 around t0: samples with k <= (ts - t0)/1 s < k+1.

    Shape: float64[last - first]; NaN where a bin has fewer than `min_count` valid samples.
    """
    part = series.between(t0_ms + first * 1000, t0_ms + last * 1000)
    values = part.values.get(metric)
    if values is None:
        return np.full(last - first, np.nan)
    ok = np.isfinite(values)
    k = (part.ts_ms[ok] - t0_ms) // 1000 - first
    count = np.bincount(k, minlength=last - first)
    total = np.bincount(k, weights=values[ok], minlength=last - first)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= max(1, min_count), total / count, np.nan)
