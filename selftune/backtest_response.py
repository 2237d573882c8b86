"""What the record says of how the metrics answer to the rules, and how unsure that is.

Answers `drawn(...)`: one surface that the changes on record allow; many draws span what is not known. A plain
Bayesian regression (slopes, bends, products) on the steps between quiet windows, so that slow drift cancels:
on purpose another model than the policies' own. Pure; chance is handed in.
Source: policy.md (backtest), Bishop, Pattern Recognition, chapter 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from selftune.domain import Rule
from selftune.gaps import QuietWindow
from selftune.health import pace_of
from selftune.series import Floats
from selftune.settings import Settings

NEAR_S = 900.0  # windows further apart than this are no step: what lies between is drift
PER_SIDE = 3  # windows of each side that a step is measured by
SLOPES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # sd of a slope over the full range, in the target's scale
BEND = 0.5  # sd of a bend or product beside that of a slope
LEAST_NOISE = 1e-3  # of the target's scale
PLACEBOS = 10


@dataclass(frozen=True)
class Surface:
    """One way in which the metrics may answer. `weights`: (metrics, features)."""

    rules: tuple[Rule, ...]
    centre: Floats
    weights: Floats

    def many(self, x: Floats) -> Floats:
        """The answer at each row of scaled values, against the centre. Shape: (n, metrics)."""
        return np.asarray(features(x - self.centre) @ self.weights.T)

    def at(self, values: Mapping[str, float]) -> Floats:
        """The answer at these rule values. Shape: (metrics,)."""
        return np.asarray(self.many(scaled(self.rules, values)[None, :])[0])


@dataclass(frozen=True)
class Response:
    """The posterior of all surfaces. `steps`: how many changes it was learned from."""

    rules: tuple[Rule, ...]
    centre: Floats
    means: Floats  # (metrics, features)
    roots: Floats  # (metrics, features, features): a root of each covariance
    steps: int

    def drawn(self, normal: Floats | None = None) -> Surface:
        """The surface of these standard normals (metrics, features); None: the mean of all."""
        shift = 0.0 if normal is None else np.einsum("mij,mj->mi", self.roots, normal)
        return Surface(self.rules, self.centre, self.means + shift)


def scaled(rules: Sequence[Rule], values: Mapping[str, float]) -> Floats:
    """Rule values as shares of their range."""
    return np.array([(values[r.name] - r.min) / (r.max - r.min) if r.max > r.min else 0.0 for r in rules])


def features(z: Floats) -> Floats:
    """Slopes, bends and products of each row. Shape: (n, features)."""
    pairs = [z[:, i] * z[:, j] for i, j in combinations(range(z.shape[1]), 2)]
    return np.column_stack([z, z**2, *pairs])


def learned(windows: Sequence[QuietWindow], settings: Settings) -> Response | None:
    """The response that these windows teach; None where nothing ever moved and was seen before and after."""
    rules = tuple(settings.rules.values())
    near_ms = NEAR_S * pace_of(settings) * 1000
    runs = _runs(windows, near_ms)
    steps = [(a, b) for a, b in pairwise(runs) if _adjacent(a, b, near_ms)]
    if not steps:
        return None
    places = np.array([scaled(rules, run[0].values) for run in runs])
    centre = places.mean(axis=0)
    before = features(np.array([scaled(rules, a[0].values) for a, _ in steps]) - centre)
    after = features(np.array([scaled(rules, b[0].values) for _, b in steps]) - centre)
    means, roots = [], []
    for m in settings.metrics:
        scale = settings.targets[m].scale
        delta = np.array([_mean(b[:PER_SIDE], m) - _mean(a[-PER_SIDE:], m) for a, b in steps])
        sizes = np.array([1 / min(len(a), PER_SIDE) + 1 / min(len(b), PER_SIDE) for a, b in steps])
        ok = np.isfinite(delta)
        noise = _noise(runs, m, LEAST_NOISE * scale) * np.sqrt(sizes * PER_SIDE / 2)
        mean, root = _posterior((after - before)[ok], delta[ok], noise[ok], scale, len(rules))
        means.append(mean)
        roots.append(root)
    return Response(rules, centre, np.array(means), np.array(roots), len(steps))


def _runs(windows: Sequence[QuietWindow], near_ms: float) -> list[list[QuietWindow]]:
    """Windows in a row at the same values in one regime."""
    runs: list[list[QuietWindow]] = []
    for w in windows:
        last = runs[-1][-1] if runs else None
        same = last is not None and last.values == w.values and last.regime == w.regime
        if same and last is not None and w.start_ms - last.end_ms <= near_ms:
            runs[-1].append(w)
        else:
            runs.append([w])
    return runs


def _adjacent(a: Sequence[QuietWindow], b: Sequence[QuietWindow], near_ms: float) -> bool:
    moved = a[-1].values != b[0].values and a[-1].regime == b[0].regime
    return moved and b[0].start_ms - a[-1].end_ms <= near_ms


def _mean(windows: Sequence[QuietWindow], metric: str) -> float:
    known = [s.mean for w in windows if (s := w.stats[metric]).mean is not None]
    return float(np.mean(known)) if known else np.nan


def _noise(runs: Sequence[Sequence[QuietWindow]], metric: str, least: float) -> float:
    """RMS of pretended steps inside the runs, between means of `PER_SIDE` windows; drift is inside."""
    whole = [
        _mean(r[i + PER_SIDE : i + 2 * PER_SIDE], metric) - _mean(r[i : i + PER_SIDE], metric)
        for r in runs
        for i in range(0, len(r) - 2 * PER_SIDE + 1, PER_SIDE)
    ]
    if len(whole) >= PLACEBOS:
        return max(least, float(np.sqrt(np.nanmean(np.square(whole)))))
    single = [
        _mean(r[i + 1 : i + 2], metric) - _mean(r[i : i + 1], metric) for r in runs for i in range(len(r) - 1)
    ]
    errors = [s.se for r in runs for w in r if (s := w.stats[metric]).se is not None]
    if len(single) >= 3:
        return max(least, float(np.sqrt(np.nanmean(np.square(single)))))  # wider than need be: few are known
    return max(least, 2.0 * float(np.median(errors))) if errors else max(least, 0.0)


def _posterior(phi: Floats, delta: Floats, noise: Floats, scale: float, rules: int) -> tuple[Floats, Floats]:
    """(mean, root of the covariance) under the width of slopes that the data speak for."""
    best: tuple[float, Floats, Floats] | None = None
    shape = np.r_[np.ones(rules), np.full(phi.shape[1] - rules, BEND)]
    for width in SLOPES:
        prior = (width * scale * shape) ** 2
        white = phi / noise[:, None]
        target = delta / noise
        precision = white.T @ white + np.diag(1 / prior)
        root = np.linalg.cholesky(precision)
        mean = np.linalg.solve(precision, white.T @ target)
        fit = float(target @ target - mean @ (white.T @ target))
        evidence = -0.5 * fit - float(np.log(np.diag(root)).sum()) - 0.5 * float(np.log(prior).sum())
        if best is None or evidence > best[0]:
            best = (evidence, np.asarray(mean, float), np.asarray(np.linalg.inv(root).T, float))
    assert best is not None
    return best[1], best[2]
