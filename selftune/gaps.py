"""Present windows against the anchor's: how far they lie apart, and how far chance takes windows apart.

Answers "what changed over this gap?" from window means of the quiet time. Never judges.
Source: loop.md, Drift over the gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from selftune.config import Settings
from selftune.domain import Reason, WindowStat
from selftune.objective import Shift, weighted
from selftune.series import Floats

Base = Mapping[str, float | None]

MIN_PAIRS = 20  # loop.md, Drift over the gap
GAP_SLACK = 0.20
NU_LEAST = 2.0  # effects.md, step 7


@dataclass(frozen=True, kw_only=True)
class QuietWindow:
    """Window means while nothing was touched: rule values in force, regime, per-metric statistics."""

    start_ms: int
    end_ms: int
    values: Mapping[str, float]
    regime: int
    stats: Mapping[str, WindowStat]


@dataclass(frozen=True, kw_only=True)
class GapContrast:
    """Present means minus anchor means, with the scale that chance has over the same gap.

    `shift[m]` = (delta, sigma, nu), only for metrics with enough pairs; `base` = anchor means; `apart[m]`
    = the plain difference, whatever pairs there are.
    `undecided` says why it cannot be judged, None if it can. Units: the metrics' own; `gap_s` seconds.
    """

    base: Base
    shift: Mapping[str, Shift]
    pairs: Mapping[str, int]
    gap_s: float
    undecided: Reason | None = None
    apart: Mapping[str, float] = field(default_factory=dict)


def gap_contrast(
    *, anchor: QuietWindow, present: QuietWindow, quiet: Sequence[QuietWindow], settings: Settings
) -> GapContrast:
    """Present minus anchor, with its scale from all quiet pairs as far apart (± 20 %).

    Pairs have equal rule values and regime; their squares are taken about zero, so that drift over
    the gap is inside the scale. Fewer than 20 pairs for a weighted metric, or windows of two
    regimes: `undecided`. Source: loop.md, Drift over the gap; effects.md, step 7 (degrees of freedom).
    """
    gap_ms = present.start_ms - anchor.start_ms
    base = {m: s.mean for m, s in anchor.stats.items()}
    pairs = _pairs(quiet, gap_ms)
    shift: dict[str, Shift] = {}
    counts: dict[str, int] = {}
    apart: dict[str, float] = {}
    for m in settings.metrics:
        d = _differences(pairs, m)
        counts[m] = len(d)
        a, b = anchor.stats.get(m), present.stats.get(m)
        if a is None or b is None or a.mean is None or b.mean is None:
            continue
        apart[m] = b.mean - a.mean
        if len(d) < MIN_PAIRS:
            continue
        own = (a.se or 0.0) ** 2 + (b.se or 0.0) ** 2
        sigma = math.sqrt(max(float(np.mean(np.square(d))), own))
        shift[m] = (apart[m], sigma, _effective(d))
    return GapContrast(
        base=base, shift=shift, pairs=counts, gap_s=gap_ms / 1000, apart=apart,
        undecided=_why_undecided(anchor, present, base, shift, counts, settings),
    )  # fmt: skip


def _pairs(quiet: Sequence[QuietWindow], gap_ms: int) -> list[tuple[QuietWindow, QuietWindow]]:
    """(earlier, later) pairs whose starts lie `gap_ms` ± 20 % apart, at equal values and regime."""
    if gap_ms <= 0:
        return []
    windows = sorted(quiet, key=lambda w: w.start_ms)
    starts = np.array([w.start_ms for w in windows], np.int64)
    out = []
    for i, w in enumerate(windows):
        j0 = int(np.searchsorted(starts, w.start_ms + (1 - GAP_SLACK) * gap_ms, side="left"))
        j1 = int(np.searchsorted(starts, w.start_ms + (1 + GAP_SLACK) * gap_ms, side="right"))
        out += [(w, v) for v in windows[max(j0, i + 1) : j1]
                if v.regime == w.regime and v.start_ms >= w.end_ms and v.values == w.values]  # fmt: skip
    return out


def _differences(pairs: Sequence[tuple[QuietWindow, QuietWindow]], metric: str) -> Floats:
    out = []
    for a, b in pairs:
        x, y = a.stats.get(metric), b.stats.get(metric)
        if x is not None and y is not None and x.mean is not None and y.mean is not None:
            out.append(y.mean - x.mean)
    return np.asarray(out, float)


def _effective(d: Floats) -> float:
    """Degrees of freedom of mean(d²) for correlated d in time order."""
    n, power = len(d), float(np.sum(np.square(d)))
    if power <= 0.0:
        return float(n)
    rho = np.array([float(np.dot(d[:-k], d[k:])) / power for k in range(1, n // 2)])
    return max(NU_LEAST, n / (1.0 + 2.0 * float(np.sum(rho**2))))


def _why_undecided(
    anchor: QuietWindow,
    present: QuietWindow,
    base: Base,
    shift: Mapping[str, Shift],
    counts: Mapping[str, int],
    settings: Settings,
) -> Reason | None:
    if anchor.regime != present.regime:
        return Reason("regime_between", {"observed": present.regime, "limit": anchor.regime, "unit": "regime",
                                         "n": 0})  # fmt: skip
    lacking = [m for m in weighted(settings) if m not in shift or base.get(m) is None]
    if not lacking:
        return None
    worst = min(lacking, key=lambda m: counts.get(m, 0))
    n = counts.get(worst, 0)
    code = "too_few_pairs" if n < MIN_PAIRS else "window_mean_missing"
    return Reason(code, {"metric": worst, "observed": n, "limit": MIN_PAIRS, "unit": "pairs", "n": n})
