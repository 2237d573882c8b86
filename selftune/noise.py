"""How noisy a metric is: an autoregression of its quiet past, and what it says about means.

Answers "how far apart may two window means lie by chance?" for noise of unknown correlation, ripple
included. A straight drift is taken out and reported. Never looks at what came after an event.
Source: J. P. Burg's recursion; order by AICc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selftune.series import Floats, Series

ORDER_MOST = 8
LAGS = 1024  # autocovariances kept; twice as many points for the transform
STRETCH_LEAST = 30  # bins; a shorter quiet stretch says nothing about correlation
BINS_LEAST = 60  # bins in all, below which no noise is known
FILL_MOST = 5  # bins of a gap that is bridged by a line
NU_LEAST = 2.0
# Levels and drift taken out of short stretches hide slow noise: the relative loss of slow variance, in
# memories a stretch (for an AR(1) about 4–6 (1 + phi)/(1 - phi)/n). Source: M. G. Kendall, 1954.
SHORT_BIAS = 4.0


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Autocovariance by lag in bins, drift per bin, degrees of freedom of the variance.

    `slope_var`: variance of the drift per bin. Shape: `cov` float64[LAGS]. Units: metric, metric/bin.
    """

    cov: Floats
    slope: float
    slope_var: float
    nu: float

    def contrast_sd(self, pre: int, gap: int, post: int, lag: float) -> float:
        """Sd by chance of mean(post bins) - mean(pre bins), `gap` bins between, drift taken out.

        `lag`: distance of the two windows' middles, over which an error of the drift counts.
        """
        var = self._own(pre) + self._own(post) - 2.0 * self._cross(pre, gap, post)
        return math.sqrt(max(0.0, var) + self.slope_var * lag * lag)

    def mean_sd(self, n: int) -> float:
        """Sd by chance of the mean of n adjacent bins."""
        return math.sqrt(max(0.0, self._own(n)))

    def _own(self, n: int) -> float:
        k = np.arange(1, min(n, len(self.cov)))
        return float((n * self.cov[0] + 2.0 * np.dot(n - k, self.cov[k])) / n**2)

    def _cross(self, pre: int, gap: int, post: int) -> float:
        """Mean covariance between a bin of the one and a bin of the other window."""
        k = np.arange(gap + 1, gap + pre + post)
        pairs = np.minimum(np.minimum(k - gap, pre + post + gap - k), min(pre, post))
        return float(np.dot(pairs, self.cov[np.minimum(k, len(self.cov) - 1)]) / (pre * post))


def fit_noise(x: Floats, breaks: Sequence[tuple[int, int]]) -> Noise | None:
    """The noise of evenly binned x (NaN = missing), in stretches outside `breaks`; None if too short.

    Each stretch has a level of its own, all have one drift in common. Units: bins.
    """
    parts = _stretches(x, breaks)
    n = sum(len(p) for p in parts)
    if n < BINS_LEAST:
        return None
    times = [np.arange(len(p)) - (len(p) - 1) / 2 for p in parts]
    power = float(sum(np.dot(t, t) for t in times))
    centred = [p - p.mean() for p in parts]
    slope = float(sum(np.dot(t, c) for t, c in zip(times, centred, strict=True))) / power
    rest = [c - slope * t for t, c in zip(times, centred, strict=True)]
    coef, var = _burg(rest)
    cov = _autocovariance(coef, var) * n / max(1, n - len(parts) - 1)
    if cov[0] <= 0.0:
        return Noise(cov=cov, slope=slope, slope_var=0.0, nu=float(n))
    rho = cov[1 : n // 2] / cov[0]
    nu = max(NU_LEAST, n / (1.0 + 2.0 * float(np.dot(rho, rho))))
    total = max(0.0, float(cov[0] + 2.0 * np.sum(cov[1:])))  # the variance that slow averages see
    memory = total / float(cov[0])  # bins over which the noise remembers
    lost = 1.0 + SHORT_BIAS * min(memory * len(parts) / n, 1.0)
    return Noise(cov=cov * lost, slope=slope, slope_var=total * lost / power, nu=nu)


def bins_between(
    series: Series, metric: str, t0_ms: int, bin_ms: int, first: int, last: int, min_count: int
) -> Floats:
    """Means of the bins k = first..last-1 around t0, bin k holding k <= (ts - t0)/bin < k + 1.

    Shape: float64[last - first]; NaN where a bin has fewer than `min_count` valid samples.
    """
    part = series.between(t0_ms + first * bin_ms, t0_ms + last * bin_ms)
    values = part.values.get(metric)
    if values is None:
        return np.full(max(0, last - first), np.nan)
    ok = np.isfinite(values)
    k = (part.ts_ms[ok] - t0_ms) // bin_ms - first
    count = np.bincount(k, minlength=last - first)
    total = np.bincount(k, weights=values[ok], minlength=last - first)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= max(1, min_count), total / count, np.nan)


def _stretches(x: Floats, breaks: Sequence[tuple[int, int]]) -> list[Floats]:
    """Whole stretches of x outside the breaks: small gaps bridged, longer ones cut, short ones left out."""
    quiet = np.ones(len(x), bool)
    for a, b in breaks:
        quiet[max(0, a) : max(0, b)] = False
    ok = np.isfinite(x) & quiet
    edges = np.flatnonzero(np.diff(np.concatenate(([False], ok, [False]))))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    joined: list[tuple[int, int]] = []
    for a, b in runs:
        if joined and a - joined[-1][1] <= FILL_MOST and bool(quiet[joined[-1][1] : a].all()):
            joined[-1] = (joined[-1][0], b)
        else:
            joined.append((a, b))
    out = []
    for a, b in joined:
        if b - a >= STRETCH_LEAST:
            there = np.flatnonzero(ok[a:b])
            out.append(np.interp(np.arange(b - a), there, x[a:b][there]))
    return out


def _burg(parts: Sequence[Floats]) -> tuple[Floats, float]:
    """AR coefficients and innovation variance, pooled over stretches; order by AICc."""
    forward, backward = [p[1:] for p in parts], [p[:-1] for p in parts]
    n = sum(len(p) for p in parts)
    var = sum(float(np.dot(p, p)) for p in parts) / n
    coef: Floats = np.zeros(0)
    best, chosen = math.inf, (coef, var)
    for order in range(ORDER_MOST + 1):
        if var <= 0.0:
            return coef, 0.0
        score = n * math.log(var) + 2.0 * (order + 1) * n / (n - order - 2)
        if score < best:
            best, chosen = score, (coef, var)
        power = sum(float(np.dot(f, f) + np.dot(b, b)) for f, b in zip(forward, backward, strict=True))
        if order == ORDER_MOST or power <= 0.0:
            break
        k = 2.0 * sum(float(np.dot(f, b)) for f, b in zip(forward, backward, strict=True)) / power
        coef = np.concatenate((coef - k * coef[::-1], [k]))
        var *= 1.0 - k * k
        forward, backward = (
            [(f - k * b)[1:] for f, b in zip(forward, backward, strict=True)],
            [(b - k * f)[:-1] for f, b in zip(forward, backward, strict=True)],
        )
    return chosen


def _autocovariance(coef: Floats, var: float) -> Floats:
    """Autocovariances of the autoregression, by the transform of its spectrum; without innovations none."""
    if var <= 0.0:
        return np.zeros(LAGS)
    response = np.fft.rfft(np.concatenate(([1.0], -coef)), 2 * LAGS)
    return np.asarray(np.fft.irfft(var / np.abs(response) ** 2)[:LAGS])
