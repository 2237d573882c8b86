"""Figures of many lives: scores of tiles over draws, their mean with a band, the worst hour, the curve.

Chance comes from the seed alone. Shape throughout: (draws, tiles), NaN = no data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selftune.backtest_result import Curve, Interval, Stretch
from selftune.backtest_score import BUCKETS, STRETCH_S
from selftune.objective import weighted
from selftune.series import Floats, Int64s
from selftune.settings import Settings

RESAMPLES = 400
BLOCK = 6  # tiles resampled together: neighbours are alike


def scores(settings: Settings, means: Floats, names: Sequence[str] = ()) -> Floats:
    """The objective score of each row of metric means; NaN where a weighted metric has none.

    `names`: the columns of `means`, by default the metrics of the settings.
    """
    names = names or settings.metrics
    total = sum(settings.weights[m] for m in weighted(settings))
    out = np.zeros(len(means))
    for m in weighted(settings):
        t, x = settings.targets[m], means[:, names.index(m)]
        over = np.maximum(0.0, x - t.max) if t.max is not None else 0.0
        under = np.maximum(0.0, t.min - x) if t.min is not None else 0.0
        out += settings.weights[m] / total * np.maximum(0.0, 1.0 - np.maximum(over, under) / t.scale)
        out[~np.isfinite(x)] = np.nan
    return out


def band(x: Floats, seed: int) -> Interval | None:
    """Mean over draws and tiles; 95 % by resampling draws, and blocks of tiles within them."""
    if not np.isfinite(x).any():
        return None
    n = x.shape[1]
    blocks = max(1, -(-n // BLOCK))
    chance = np.random.default_rng([seed, n])
    padded = np.full((x.shape[0], blocks * BLOCK), np.nan)
    padded[:, :n] = x
    shaped = padded.reshape(x.shape[0], blocks, BLOCK)
    sums, counts = np.nansum(shaped, axis=2), np.isfinite(shaped).sum(axis=2)
    draw = chance.integers(0, x.shape[0], RESAMPLES)
    pick = chance.integers(0, blocks, (RESAMPLES, blocks))
    total = np.take_along_axis(sums[draw], pick, axis=1).sum(axis=1)
    count = np.take_along_axis(counts[draw], pick, axis=1).sum(axis=1)
    means = total[count > 0] / count[count > 0]
    lo, hi = np.quantile(means, [0.025, 0.975])
    return Interval(mean=float(np.nanmean(x)), lo=float(lo), hi=float(hi))


def worst(starts: Int64s, score: Floats, gain: Floats) -> Stretch | None:
    """The stretch of an hour that lost most against doing nothing, on the mean of all draws."""
    if not len(starts):
        return None
    width = int(starts[1] - starts[0]) if len(starts) > 1 else 90_000
    span = int(starts[-1]) + width - int(starts[0])
    number = (starts - starts[0]) // max(1.0, min(STRETCH_S * 1000, span / 4))
    found = []
    for k in np.unique(number):
        at = np.flatnonzero(number == k)
        if np.isfinite(gain[:, at]).any():
            against, mean = float(np.nanmean(gain[:, at])), float(np.nanmean(score[:, at]))
            found.append((round(against, 9), mean, int(starts[at[0]]), int(starts[at[-1]]) + width))
    if not found:
        return None
    against, mean, a, b = min(found)
    return Stretch(from_ms=a, to_ms=b, score=mean, against=against)


def curve(starts: Int64s, score: Floats) -> Curve:
    """The score over time: mean of the draws, and the band that 95 % of them lie in."""
    if not len(starts):
        return Curve()
    parts = np.array_split(np.arange(len(starts)), min(BUCKETS, len(starts)))
    rows: list[tuple[float | None, float | None, float | None]] = []
    for at in parts:
        each = np.array([np.nanmean(s) if np.isfinite(s).any() else np.nan for s in score[:, at]])
        each = each[np.isfinite(each)]
        if not len(each):
            rows.append((None, None, None))
            continue
        lo, hi = np.quantile(each, [0.025, 0.975])
        rows.append((float(each.mean()), float(lo), float(hi)))
    mean, lo_, hi_ = zip(*rows, strict=True)
    return Curve(ts_ms=tuple(int(starts[at[len(at) // 2]]) for at in parts), mean=mean, lo=lo_, hi=hi_)


def outside(starts: Int64s, known: Floats) -> tuple[Stretch, ...]:
    """Stretches in which most draws lived where the record cannot speak."""
    if not len(starts) or not known.size:
        return ()
    width = int(starts[1] - starts[0]) if len(starts) > 1 else 90_000
    found: list[Stretch] = []
    for i in np.flatnonzero(known.mean(axis=0) < 0.5).tolist():
        a, b = int(starts[i]), int(starts[i]) + width
        if found and found[-1].to_ms == a:
            found[-1] = Stretch(from_ms=found[-1].from_ms, to_ms=b)
        else:
            found.append(Stretch(from_ms=a, to_ms=b))
    return tuple(found)
