"""Many samples -> few buckets for a chart: mean, lowest and highest value of each stretch of time.

Answers "what does this long series look like in 800 points?" without hiding a single spike: the
lowest and the highest sample of a bucket are kept beside its mean. Pure; never a file or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selftune.coarse import Coarse
from selftune.series import Floats, Int64s, Series

MAX_BUCKETS = 800
Float32s = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Metrics on one time grid. NaN = no valid sample of that metric in that bucket.

    Shape: `t_ms` int64[n] (middle of the bucket), each column float32[n]. A row of NaN stands for a
    stretch without any data, so that a line breaks there instead of bridging it.
    """

    t_ms: Int64s
    mean: Mapping[str, Float32s]
    lo: Mapping[str, Float32s]
    hi: Mapping[str, Float32s]
    width_ms: int
    samples: int

    def __len__(self) -> int:
        return len(self.t_ms)


def downsample(
    series: Series, metrics: Sequence[str], start_ms: int, end_ms: int, most: int = MAX_BUCKETS
) -> Buckets:
    """At most `most` buckets over the samples in [start_ms, end_ms).

    Few samples are passed through as they are (each is its own bucket); a bucket never expects fewer
    than two samples, so that jitter alone does not punch holes into the line.
    """
    part = series.between(start_ms, end_ms)
    if len(part) <= min(most, 2):
        return _as_they_are(part, metrics)
    step = max(1, int(np.median(np.diff(part.ts_ms))))
    first = int(part.ts_ms[0])
    span = int(part.ts_ms[-1]) + 1 - first
    count = min(most, max(1, span // (2 * step)))
    if count >= len(part):
        return _as_they_are(part, metrics)
    width = -(-span // count)
    edges = first + width * np.arange(count + 1, dtype=np.int64)
    columns = {m: _reduce(part.ts_ms, part.values.get(m), edges) for m in metrics}
    keep = _rows_to_keep([c[0] for c in columns.values()], count)
    return Buckets(
        t_ms=(edges[:-1] + width // 2)[keep],
        mean={m: c[0][keep] for m, c in columns.items()},
        lo={m: c[1][keep] for m, c in columns.items()},
        hi={m: c[2][keep] for m, c in columns.items()},
        width_ms=width,
        samples=len(part),
    )


def of_coarse(coarse: Coarse, metrics: Sequence[str]) -> Series:
    """The 10 s means as a series, each at the middle of its bin."""
    blank = np.full(len(coarse), np.nan)
    return Series(
        ts_ms=coarse.start_ms + coarse.bin_ms // 2, values={m: coarse.mean.get(m, blank) for m in metrics}
    )


def _as_they_are(part: Series, metrics: Sequence[str]) -> Buckets:
    columns = {m: part.values.get(m, np.full(len(part), np.nan)).astype(np.float32) for m in metrics}
    return Buckets(t_ms=part.ts_ms, mean=columns, lo=columns, hi=columns, width_ms=0, samples=len(part))


def _reduce(ts_ms: Int64s, values: Floats | None, edges: Int64s) -> tuple[Float32s, Float32s, Float32s]:
    """(mean, lowest, highest) of the finite samples in each [edge, next edge)."""
    n = len(edges) - 1
    blank = np.full(n, np.nan, np.float32)
    if values is None:
        return blank, blank, blank
    ok = np.isfinite(values)
    if not ok.all():
        ts_ms, values = ts_ms[ok], values[ok]
    cut = np.searchsorted(ts_ms, edges)
    size = np.diff(cut)
    full = size > 0
    if not full.any():
        return blank, blank, blank
    # reduceat gives nonsense for empty stretches, so only the non-empty ones are cut.
    starts = cut[:-1][full]
    inside = values[: cut[-1]]
    mean, lo, hi = blank.copy(), blank.copy(), blank.copy()
    mean[full] = np.add.reduceat(inside, starts) / size[full]
    lo[full] = np.minimum.reduceat(inside, starts)
    hi[full] = np.maximum.reduceat(inside, starts)
    return mean, lo, hi


def _rows_to_keep(means: Sequence[Float32s], count: int) -> NDArray[np.bool_]:
    """Rows with any value, and the first row of each stretch without one (the break in the line)."""
    if not means:
        return np.ones(count, np.bool_)
    some = np.any([np.isfinite(m) for m in means], axis=0)
    return np.asarray(some | np.concatenate(([False], some[:-1])), np.bool_)
