"""How often a target was met in what the coarse history holds: one share, and a strip over time.

Answers "with this limit, how much of the past would have counted as met?". Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selftune.coarse import Coarse
from selftune.domain import Target

CELLS = 48
LEAST_BINS = 30  # five minutes of 10 s means: less says nothing


@dataclass(frozen=True, kw_only=True)
class Reach:
    """`share` of the 10 s means that met the target; None with too few of them.

    `cells`: the same share along the period, oldest first; None where nothing was recorded.
    """

    share: float | None
    bins: int
    start_ms: int | None
    end_ms: int | None
    cells: tuple[float | None, ...] = ()

    @property
    def span_s(self) -> float:
        return 0.0 if self.start_ms is None or self.end_ms is None else (self.end_ms - self.start_ms) / 1000


def reach(coarse: Coarse, target: Target, *, cells: int = CELLS) -> Reach:
    """How often the 10 s means of the target's metric met it, in all of `coarse`."""
    means = coarse.mean.get(target.metric)
    if means is None or not len(coarse):
        return Reach(share=None, bins=0, start_ms=None, end_ms=None)
    start, end = int(coarse.start_ms[0]), int(coarse.start_ms[-1]) + coarse.bin_ms
    seen = np.isfinite(means)
    met = seen.copy()
    with np.errstate(invalid="ignore"):
        if target.max is not None:
            met &= means <= target.max
        if target.min is not None:
            met &= means >= target.min
    n = int(seen.sum())
    place = np.minimum((coarse.start_ms - start) * cells // (end - start), cells - 1)
    total = np.bincount(place[seen], minlength=cells)
    good = np.bincount(place[met], minlength=cells)
    strip = tuple(float(g / t) if t else None for g, t in zip(good, total, strict=True))
    share = float(met.sum() / n) if n >= LEAST_BINS else None
    return Reach(share=share, bins=n, start_ms=start, end_ms=end, cells=strip)
