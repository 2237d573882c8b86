"""How each metric answers to the rules: one Gaussian process a metric, learned from quiet windows.

Answers "what mean, how sure, at these rule values?" for many values at once. Knows nothing of targets or
steps; pure. Rule values arrive scaled to [0, 1], metrics in units in which a target's scale is `UNIT`, so
that milliseconds and shares are alike; how strongly a metric answers is learned on top (`AMPLITUDES`).
Source: policy.md (model, outliers and jumps); Rasmussen & Williams, Gaussian Processes, chapters 2 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNIT = 0.25  # a target's scale in the model's units: the constants below were found for such metrics
AXIS, JOINT, SLOPE = 0.015, 0.012, 0.05  # sd of what one rule does, of all together, of slopes a full range
LENGTH = 0.45  # of the rules' range over which a response bends
MEMORY, ACROSS = 250.0, 0.5  # cycles after which the past is worth 1/e; what another segment is worth
LEVEL, LEVEL_ACROSS = 0.3, 0.3  # sd of the level of a segment, and what segments share of it
WANDER, WANDER_CYCLES = 0.003, 12.0  # slow drift
FLOOR = 0.0015  # no window mean is known better than this
AMPLITUDES = (1.0, 2.0, 4.0, 8.0)  # times AXIS, JOINT and SLOPE; not less: a rule not yet tried may answer
STRENGTHS = (*AMPLITUDES, 16.0)  # what a stated expectation allows for
STATED_WIDER = (
    1.25  # a step is taken where it looks best, which flatters: found on benchmarks/tuning_plants.py
)
WANDERS = (1.0, 2.0, 4.0)  # times WANDER
DOUBT = 0.9  # sd of the prior of both, in natural logs: few windows change little
LAGS = (0.5, 1.2, 2.5)  # cycles: how slowly a system may answer, beside at once
LAG_LEAST, LAG_DOUBT = 5, 1.5  # windows before that is asked; log odds against each further lag
WINDOW, WASHOUT = 0.75, 0.17  # cycles: length of a window, of the settling before it
OUTLIER_Z, JUMP_CAP = 3.2, 6.0
JUMP_P, JUMP_HITS, JUMP_OF, JUMP_REST = 0.001, 2, 3, 6
JUMP_DOUBT = 5.0  # log odds against a jump at a given window


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What was seen. Shape: x (n, d) in [0, 1]; t (n,) in cycles; segment (n,); y, sd (n, metrics).

    `here` (d,): the present point, from which responses are counted.
    """

    here: Floats
    x: Floats
    t: Floats
    segment: Ints
    y: Floats
    sd: Floats


@dataclass(frozen=True)
class Shapes:
    """Covariances that all metrics share, before their own amplitudes: response, level, slow drift."""

    response: Floats
    level: Floats
    wander: Floats

    def of(self, amplitude: float, wander: float) -> Floats:
        """The covariance of one metric."""
        return amplitude**2 * self.response + self.level + wander**2 * self.wander


@dataclass(frozen=True)
class Fit:
    """One metric's process, factored: what a prediction needs."""

    slopes: Floats
    base: float
    amplitude: float
    wander: float
    inverse: Floats  # of the covariance of the windows
    weights: Floats
    residual_z: Floats  # one-step-ahead, in the order of the windows
    evidence: float  # log marginal likelihood and prior of amplitude and wander


class Model:
    """Every metric's response. Build it with `learn`."""

    def __init__(self, windows: Windows, fits: Sequence[Fit]) -> None:
        self.windows, self.fits = windows, tuple(fits)

    @cached_property
    def now(self) -> tuple[float, int]:
        """The time of the next cycle and the present segment."""
        return float(self.windows.t[-1]) + 1.0, int(self.windows.segment[-1])

    @property
    def segment_age(self) -> float:
        """Cycles since the present segment began."""
        t, g = self.now
        return t - float(self.windows.t[self.windows.segment == g][0])

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """(mean, sd) of every metric at each row of `x`. Shape: (points, metrics)."""
        w, (t, g) = self.windows, self.now
        n = len(x)
        cross = shapes(x, np.full(n, t), np.full(n, g), w.x, w.t, w.segment, w.here)
        own = spread_at(x, w.here)
        means, sds = [], []
        for f in self.fits:
            k = cross.of(f.amplitude, f.wander)
            known = np.sum((k @ f.inverse) * k, axis=1)
            prior = f.amplitude**2 * own + LEVEL**2 + (f.wander * WANDER) ** 2
            means.append(f.base + (x - w.x[0]) @ f.slopes + k @ f.weights)
            sds.append(np.sqrt(np.maximum(prior - known, 1e-12)))
        return np.stack(means, axis=1), np.stack(sds, axis=1)

    def step(self, there: Floats) -> tuple[Floats, Floats]:
        """(mean, sd) of the change of every metric from the present point to another. Shape: (metrics,).

        How strongly a metric may answer is not known for sure: the strengths are averaged by their evidence.
        """
        w, (t, g) = self.windows, self.now
        both, x = _covariances(w), there[None, :]
        cross = shapes(x, np.full(1, t), np.full(1, g), w.x, w.t, w.segment, w.here).response[0]
        own = float(spread_at(x, w.here)[0])
        found = [self._change(k, both, there, cross, own) for k in range(len(self.fits))]
        return np.array([f[0] for f in found]), np.array([f[1] for f in found])

    def _change(
        self, k: int, both: Shapes, there: Floats, cross: Floats, own: float
    ) -> tuple[float, float]:  # fmt: skip
        """(mean, sd) of one metric's change over all strengths. Levels cancel: responses count from here."""
        w, f = self.windows, self.fits[k]
        rest = w.y[:, k] - w.y[0, k] - (w.x - w.x[0]) @ f.slopes
        evidence, mean, var = [], [], []
        for amplitude in STRENGTHS:
            total, cov, _ = _tried(w, both, k, f.slopes, amplitude, f.wander)
            known = np.linalg.solve(cov, np.stack([rest, amplitude**2 * cross], axis=1))
            evidence.append(total)
            mean.append(float((there - w.here) @ f.slopes + amplitude**2 * cross @ known[:, 0]))
            var.append(max(float(amplitude**2 * (own - cross @ known[:, 1])), 1e-12))
        share = np.exp(np.array(evidence) - max(evidence))
        share /= share.sum()
        middle = float(share @ mean)
        return middle, STATED_WIDER * float(np.sqrt(share @ (np.array(var) + np.square(mean)) - middle**2))


def learn(windows: Windows, slopes: Floats) -> Model:
    """The model after these windows, oldest first: lag allowed for, outliers softened, jumps found.

    `slopes`: prior slope of each metric over each rule's full range, model units. Shape: (metrics, d).
    """
    model = _fit(windows, slopes)
    windows, model = _settled(windows, model, slopes)
    calm = _despiked(windows, model)
    if calm is not windows:
        windows, model = calm, _fit(calm, slopes)
    windows, model = _segmented(windows, model, slopes)
    if np.all(np.abs(_z(model)) <= OUTLIER_Z):
        return model
    softened = np.maximum(1.0, np.abs(_z(model)) / OUTLIER_Z)
    return _fit(replace(windows, sd=windows.sd * softened), slopes)


def _settled(w: Windows, model: Model, slopes: Floats) -> tuple[Windows, Model]:
    """The windows at the values that the system had come to, if it is seen to be slow."""
    if len(w.x) < LAG_LEAST or not np.any(np.diff(w.x, axis=0)):
        return w, model
    tried = [(sum(f.evidence for f in model.fits), w)]
    for i, lag in enumerate(LAGS):
        slow = replace(w, x=lagged(w, lag))
        both = _covariances(slow)
        total = sum(
            _tried(slow, both, k, slopes[k], f.amplitude, f.wander)[0] for k, f in enumerate(model.fits)
        )
        tried.append((total - LAG_DOUBT * (i + 1), slow))
    best = max(tried, key=lambda t: t[0])[1]
    return (w, model) if best is w else (best, _fit(best, slopes))


def lagged(w: Windows, lag: float) -> Floats:
    """The mean values that a system with this lag (cycles) had come to in each window. Shape: (n, d).

    A change is taken to have come where the washout before the first window at new values begins.
    """
    out, at, last = w.x.copy(), w.x[0], w.t[0]
    for i in range(1, len(w.x)):
        start, span = w.t[i], WINDOW
        moved = max(last, start - WASHOUT) if np.any(w.x[i] != w.x[i - 1]) else last
        at = w.x[i - 1] + (at - w.x[i - 1]) * np.exp(-(moved - last) / lag)
        left = lag / span * (np.exp(-(start - moved) / lag) - np.exp(-(start - moved + span) / lag))
        out[i] = w.x[i] + (at - w.x[i]) * left
        at, last = w.x[i] + (at - w.x[i]) * np.exp(-(start + span - moved) / lag), start + span
    return out


def _fit(windows: Windows, slopes: Floats) -> Model:
    both = _covariances(windows)
    return Model(windows, [_fit_one(windows, both, k, slopes[k]) for k in range(windows.y.shape[1])])


def _covariances(w: Windows) -> Shapes:
    return shapes(w.x, w.t, w.segment, w.x, w.t, w.segment, w.here)


def _tried(
    w: Windows, both: Shapes, k: int, slopes: Floats, amplitude: float, wander: float
) -> tuple[float, Floats, Floats]:
    """(log evidence, covariance, one-step-ahead z) of one metric under these amplitudes."""
    rest = w.y[:, k] - w.y[0, k] - (w.x - w.x[0]) @ slopes
    n = len(rest)
    cov = both.of(amplitude, wander)
    cov[np.arange(n), np.arange(n)] += w.sd[:, k] ** 2 + FLOOR**2
    bordered = np.empty((n + 1, n + 1))  # its factor's last row is the factor of `cov` solved for `rest`
    bordered[:n, :n], bordered[n, :n], bordered[:n, n] = cov, rest, rest
    bordered[n, n] = 1.0 + rest @ rest / FLOOR**2
    factor = np.asarray(np.linalg.cholesky(bordered), dtype=float)
    z: Floats = factor[n, :n]
    doubt = (np.log(amplitude) ** 2 + np.log(wander) ** 2) / (2 * DOUBT**2)
    return float(-0.5 * z @ z - np.log(np.diag(factor)[:n]).sum() - doubt), cov, z


def _fit_one(w: Windows, both: Shapes, k: int, slopes: Floats) -> Fit:
    def evidence(amplitude: float, wander: float) -> float:
        return _tried(w, both, k, slopes, amplitude, wander)[0]

    wander = max(WANDERS, key=lambda v: evidence(1.0, v))
    amplitude = max(AMPLITUDES, key=lambda a: evidence(a, wander))
    if amplitude > 1.0 and wander > 1.0:
        wander = max(WANDERS, key=lambda v: evidence(amplitude, v))
    total, cov, z = _tried(w, both, k, slopes, amplitude, wander)
    inverse: Floats = np.asarray(np.linalg.inv(cov), dtype=float)
    weights = inverse @ (w.y[:, k] - w.y[0, k] - (w.x - w.x[0]) @ slopes)
    return Fit(slopes, float(w.y[0, k]), amplitude, wander, inverse, weights, z, total)


def _despiked(w: Windows, model: Model) -> Windows:
    """The windows with less trust in those that stand out and are taken back by the next one."""
    z = _calm_z(w, model)
    lone = np.zeros_like(z, dtype=bool)
    lone[:-1] = (np.abs(z[:-1]) > OUTLIER_Z) & (z[1:] * z[:-1] < 0) & (np.abs(z[1:]) > 1)
    return replace(w, sd=np.where(lone, w.sd * np.abs(z), w.sd)) if lone.any() else w


def _segmented(w: Windows, model: Model, slopes: Floats) -> tuple[Windows, Model]:
    """A new segment where surprises at unchanged values say that the response jumped, if evidence agrees."""
    passed = 0
    while (start := _jumped(w, model, passed)) is not None:
        passed = start + 1
        cut = replace(w, segment=w.segment + (np.arange(len(w.x)) >= start))
        found = _fit(cut, slopes)
        if sum(f.evidence for f in found.fits) > sum(f.evidence for f in model.fits) + JUMP_DOUBT:
            w, model = cut, found
    return w, model


def _jumped(w: Windows, model: Model, passed: int) -> int | None:
    """The first window from `passed` on where the response may have jumped: surprised the same way twice.

    Drift counts as no larger than it usually is: a jump would else explain itself away.
    """
    still = np.r_[False, np.all(np.abs(np.diff(w.x, axis=0)) < 1e-9, axis=1)]
    z = np.clip(_calm_z(w, model), -JUMP_CAP, JUMP_CAP)
    high = still & (np.sum(z**2, axis=1) > chdtri(w.y.shape[1], JUMP_P))
    began = 0
    for i in range(len(high)):
        if i and w.segment[i] != w.segment[i - 1]:
            began = i
        if i < passed or not high[i] or i - began <= JUMP_REST:
            continue
        after = [j for j in range(i + 1, min(len(high), i + JUMP_OF)) if high[j] and z[j] @ z[i] > 0]
        if len(after) >= JUMP_HITS - 1:
            return i
    return None


def _calm_z(w: Windows, model: Model) -> Floats:
    """One-step-ahead surprises under the least drift. Shape: (windows, metrics)."""
    if all(f.wander == WANDERS[0] for f in model.fits):
        return _z(model)
    both = _covariances(w)
    return np.stack(
        [_tried(w, both, k, f.slopes, f.amplitude, WANDERS[0])[2] for k, f in enumerate(model.fits)], axis=1
    )


def _z(model: Model) -> Floats:
    return np.stack([f.residual_z for f in model.fits], axis=1)


def shapes(x: Floats, t: Floats, g: Ints, x2: Floats, t2: Floats, g2: Ints, here: Floats) -> Shapes:
    """The covariances of the points (x, t, g) with the points (x2, t2, g2). Shape: (n, n2).

    A response is counted from the present point: what fades with age is how other values differ from it, and
    a metric that fell while the rules moved is put down to the move, not to the time that it took.
    """
    centre = here[None, :]
    response = (
        _raw(x, x2) - _raw(x, centre) - _raw(centre, x2) + _raw(centre, centre)
        + SLOPE**2 * (x - here) @ (x2 - here).T
    )  # fmt: skip
    age, apart = np.abs(t[:, None] - t2[None, :]), np.abs(g[:, None] - g2[None, :])
    same = apart == 0
    return Shapes(
        response * np.exp(-age / MEMORY) * ACROSS**apart,
        LEVEL**2 * np.where(same, 1.0, LEVEL_ACROSS),
        np.where(same, WANDER**2 * np.exp(-age / WANDER_CYCLES), 0.0),
    )


def spread_at(x: Floats, here: Floats) -> Floats:
    """The prior variance of the response at each row of `x`, before its amplitude."""
    d = x.shape[1]
    still = AXIS**2 * d + JOINT**2
    return np.asarray(2 * (still - _raw(x, here[None, :])[:, 0]) + SLOPE**2 * ((x - here) ** 2).sum(axis=1))


def _raw(x: Floats, x2: Floats) -> Floats:
    """Covariance of the curved part of the response. Shape: (n, n2)."""
    d = x.shape[1]
    total, far = np.zeros((len(x), len(x2))), np.zeros((len(x), len(x2)))
    for i in range(d):
        gap2 = (x[:, i, None] - x2[None, :, i]) ** 2 / (-2 * LENGTH**2)
        total += np.exp(gap2)
        far += gap2
    return np.asarray(AXIS**2 * total + JOINT**2 * np.exp(far / max(1.0, d / 2)))
