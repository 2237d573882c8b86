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
Key = tuple[int, float, float]  # a metric, its amplitude, its wander

UNIT = 0.25  # a target's scale in the model's units: the constants below were found for such metrics
AXIS, JOINT, SLOPE = 0.015, 0.012, 0.05  # sd of what one rule does, of all together, of slopes a full range
LENGTH = 0.45  # of the rules' range over which a response bends
MEMORY, ACROSS = 250.0, 0.5  # cycles after which the past is worth 1/e; what another segment is worth
LEVEL, LEVEL_ACROSS = 0.3, 0.3  # sd of the level of a segment, and what segments share of it
WANDER, WANDER_CYCLES = 0.003, 12.0  # slow drift
FLOOR = 0.0015  # no window mean is known better than this
AMPLITUDES = (1.0, 2.0, 4.0, 8.0)  # times AXIS, JOINT and SLOPE; not less: a rule not yet tried may answer
STRENGTHS = (*AMPLITUDES, 16.0)  # what a stated expectation allows for
UNLIKELY = 60.0  # log odds against a strength from which it is left out of the average
STATED_WIDER = (
    1.25  # a step is taken where it looks best, which flatters: found on benchmarks/tuning_plants.py
)
WANDERS = (1.0, 2.0, 4.0)  # times WANDER
DOUBT = 0.9  # sd of the prior of both, in natural logs: few windows change little
LAGS = (0.5, 1.2, 2.5)  # cycles: how slowly a system may answer, beside at once
LAG_LEAST, LAG_DOUBT = 5, 1.5  # windows before that is asked; log odds against each further lag
WASHOUT = 0.17  # cycles of settling before a window
OUTLIER_Z, JUMP_CAP = 3.2, 6.0
JUMP_P, JUMP_HITS, JUMP_OF, JUMP_REST = 0.001, 2, 3, 6
JUMP_DOUBT = 5.0  # log odds against a jump at a given window


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What was seen. Shape: x (n, d) in [0, 1]; t, span (n,) in cycles; segment (n,); y, sd (n, metrics).

    `here` (d,): the present point, from which responses are counted. `t`: the middle of each, `span` long.
    """

    here: Floats
    x: Floats
    t: Floats
    span: Floats
    segment: Ints
    y: Floats
    sd: Floats


@dataclass(frozen=True)
class Shapes:
    """Covariances that all metrics share, before their own amplitudes: response, level, slow drift.

    `fade`, `across`: what age and other segments leave of a response; it is made of both.
    """

    response: Floats
    level: Floats
    wander: Floats
    fade: Floats
    across: Floats

    def of(self, amplitude: float, wander: float) -> Floats:
        """The covariance of one metric."""
        return amplitude**2 * self.response + self.level + wander**2 * self.wander


class Trials:
    """The same windows under many amplitudes: each is worked out once, whoever asks."""

    def __init__(self, windows: Windows, slopes: Floats, both: Shapes | None = None) -> None:
        w = self.windows = windows
        self.both = both if both is not None else _covariances(w)
        gone = [w.y[:, k] - w.y[0, k] - (w.x - w.x[0]) @ s for k, s in enumerate(slopes)]
        self.rest, self.slopes = gone, slopes  # what the prior slopes leave, of each metric
        self._noise = [w.sd[:, k] ** 2 + FLOOR**2 for k in range(len(gone))]
        self._steady: dict[float, Floats] = {}
        self._wander: dict[float, Floats] = {}
        self._known: dict[tuple[int, float, float], tuple[float, Floats]] = {}

    def covariance(self, k: int, amplitude: float, wander: float) -> Floats:
        """The covariance of one metric's windows."""
        n = len(self.windows.x)
        cov = np.empty((n, n))
        self._fill(cov, k, amplitude, wander)
        return cov

    def _fill(self, out: Floats, k: int, amplitude: float, wander: float) -> None:
        """Write the covariance of one metric's windows into the first rows and columns of `out`."""
        n = len(self.windows.x)
        if amplitude not in self._steady:
            self._steady[amplitude] = amplitude**2 * self.both.response + self.both.level
        if wander not in self._wander:
            self._wander[wander] = wander**2 * self.both.wander
        np.add(self._steady[amplitude], self._wander[wander], out=out[:n, :n])
        out.reshape(-1)[: n * (len(out) + 1) : len(out) + 1] += self._noise[k]  # the diagonal

    def at(self, k: int, amplitude: float, wander: float) -> tuple[float, Floats]:
        """(log evidence, one-step-ahead z) of one metric under these amplitudes."""
        key = k, amplitude, wander
        if key not in self._known:
            self.work_out([key])
        return self._known[key]

    def work_out(self, keys: Sequence[Key]) -> None:
        """Answer `at` for many (metric, amplitude, wander) in one go."""
        new = [key for key in keys if key not in self._known]
        if not new:
            return
        n = len(self.windows.x)
        bordered = np.empty((len(new), n + 1, n + 1))
        for key, cov in zip(new, bordered, strict=True):
            self._border(cov, key, [self.rest[key[0]]])
        factor = np.linalg.cholesky(bordered)
        logs = np.log(np.diagonal(factor, axis1=1, axis2=2)[:, :n]).sum(axis=1)
        for (k, amplitude, wander), rows, log in zip(new, factor, logs, strict=True):
            z: Floats = rows[n, :n].copy()
            doubt = (np.log(amplitude) ** 2 + np.log(wander) ** 2) / (2 * DOUBT**2)
            self._known[k, amplitude, wander] = float(-0.5 * z @ z - log - doubt), z

    def solved(self, keys: Sequence[Key], cross: Sequence[Floats]) -> list[Floats]:
        """For each key the rest and its `cross`, both solved for the covariance's factor. Shape: (2, n)."""
        n = len(self.windows.x)
        bordered = np.empty((len(keys), n + 2, n + 2))
        for key, cov, other in zip(keys, bordered, cross, strict=True):
            self._border(cov, key, [self.rest[key[0]], other])
        return [rows[n:, :n] for rows in np.linalg.cholesky(bordered)]

    def _border(self, out: Floats, key: Key, rows: Sequence[Floats]) -> None:
        """A covariance with a border: the last rows of its factor are `rows`, solved for the factor."""
        n = len(self.windows.x)
        self._fill(out, *key)
        out[n:, n:] = 0.0
        for i, row in enumerate(rows, n):
            out[i, :n] = out[:n, i] = row
            out[i, i] = 1.0 + len(rows) * (row @ row) / FLOOR**2  # large enough, whatever they have in common

    def again(self, windows: Windows) -> Trials:
        """Those of the same windows with other errors, or at other values."""
        w, both = windows, self.both
        if w.x is not self.windows.x:
            both = replace(both, response=_raw_response(w.x, w.x, w.here) * both.fade * both.across)
        return Trials(w, self.slopes, both)

    def evidence(self, k: int, amplitude: float, wander: float) -> float:
        """How well the amplitudes explain the windows, beside how likely they are."""
        return self.at(k, amplitude, wander)[0]


@dataclass(frozen=True)
class Fit:
    """One metric's process: what a prediction needs, worked out when one is asked for."""

    trials: Trials
    metric: int
    amplitude: float
    wander: float
    residual_z: Floats  # one-step-ahead, in the order of the windows
    evidence: float  # log marginal likelihood and prior of amplitude and wander

    @property
    def slopes(self) -> Floats:
        return np.asarray(self.trials.slopes[self.metric])

    @property
    def base(self) -> float:
        return float(self.trials.windows.y[0, self.metric])

    @cached_property
    def inverse(self) -> Floats:
        """Of the covariance of the windows."""
        return np.asarray(np.linalg.inv(self.trials.covariance(self.metric, self.amplitude, self.wander)))

    @cached_property
    def weights(self) -> Floats:
        return np.asarray(self.inverse @ self.trials.rest[self.metric])


class Model:
    """Every metric's response. Build it with `learn`."""

    def __init__(self, trials: Trials) -> None:
        self.trials, self.windows = trials, trials.windows
        self.fits = _fits(trials)

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
        cross = shapes(x, np.full(1, t), np.full(1, g), w.x, w.t, w.segment, w.here)
        own = spread_at(x, w.here)
        means, sds = [], []
        for f in self.fits:
            k = cross.of(f.amplitude, f.wander)
            known = np.vecdot(k @ f.inverse, k)
            prior = f.amplitude**2 * own + LEVEL**2 + (f.wander * WANDER) ** 2
            means.append(f.base + (x - w.x[0]) @ f.slopes + k @ f.weights)
            sds.append(np.sqrt(np.maximum(prior - known, 1e-12)))
        return np.stack(means, axis=1), np.stack(sds, axis=1)

    def step(self, there: Floats) -> tuple[Floats, Floats]:
        """(mean, sd) of the change of every metric from the present point to another. Shape: (metrics,).

        How strongly a metric may answer is not known for sure: the strengths are averaged by their evidence.
        """
        w, (t, g) = self.windows, self.now
        x = there[None, :]
        cross = shapes(x, np.full(1, t), np.full(1, g), w.x, w.t, w.segment, w.here).response[0]
        own = float(spread_at(x, w.here)[0])
        keys = [(k, a, f.wander) for k, f in enumerate(self.fits) for a in STRENGTHS]
        self.trials.work_out(keys)
        best = [max(self.trials.evidence(k, a, f.wander) for a in STRENGTHS) for k, f in enumerate(self.fits)]
        # what is e^60 times less likely changes no digit of the average
        keys = [key for key in keys if self.trials.evidence(*key) > best[key[0]] - UNLIKELY]
        solved = list(zip(keys, self.trials.solved(keys, [a**2 * cross for _, a, _ in keys]), strict=True))
        found = [self._change(k, there, own, [s for s in solved if s[0][0] == k]) for k in range(len(best))]
        return np.array([f[0] for f in found]), np.array([f[1] for f in found])

    def _change(
        self, k: int, there: Floats, own: float, solved: Sequence[tuple[Key, Floats]]
    ) -> tuple[float, float]:
        """(mean, sd) of one metric's change over all strengths. Levels cancel: responses count from here."""
        evidence, mean, var = [], [], []
        for key, (rest, cross) in solved:
            evidence.append(self.trials.evidence(*key))
            mean.append(float((there - self.windows.here) @ self.fits[k].slopes + cross @ rest))
            var.append(max(float(key[1] ** 2 * own - cross @ cross), 1e-12))
        share = np.exp(np.array(evidence) - max(evidence))
        share /= share.sum()
        middle = float(share @ mean)
        return middle, STATED_WIDER * float(np.sqrt(share @ (np.array(var) + np.square(mean)) - middle**2))


def learn(windows: Windows, slopes: Floats) -> Model:
    """The model after these windows, oldest first: lag allowed for, outliers softened, jumps found.

    `slopes`: prior slope of each metric over each rule's full range, model units. Shape: (metrics, d).
    """
    model = _despiked(_settled(Model(Trials(windows, slopes))))
    model = _segmented(model)
    z = np.abs(_z(model))
    if np.all(z <= OUTLIER_Z):
        return model
    w = model.windows
    return Model(model.trials.again(replace(w, sd=w.sd * np.maximum(1.0, z / OUTLIER_Z))))


def _settled(model: Model) -> Model:
    """The model of the values that the system had come to, if it is seen to be slow."""
    w = model.windows
    if len(w.x) < LAG_LEAST or not np.any(np.diff(w.x, axis=0)):
        return model
    best, most = None, sum(f.evidence for f in model.fits)
    for i, lag in enumerate(LAGS):
        trials = model.trials.again(replace(w, x=lagged(w, lag)))
        trials.work_out([(k, f.amplitude, f.wander) for k, f in enumerate(model.fits)])
        total = sum(trials.evidence(k, f.amplitude, f.wander) for k, f in enumerate(model.fits))
        if total - LAG_DOUBT * (i + 1) > most:
            best, most = trials, total - LAG_DOUBT * (i + 1)
    return model if best is None else Model(best)


def lagged(w: Windows, lag: float) -> Floats:
    """The mean values that a system with this lag (cycles) had come to in each window. Shape: (n, d).

    A change is taken to have come where the washout before the first window at new values begins.
    """
    start, span = w.t[1:] - w.span[1:] / 2, w.span[1:]
    last = w.t[:-1] + w.span[:-1] / 2
    changed = np.any(w.x[1:] != w.x[:-1], axis=1)
    moved = np.where(changed, np.maximum(last, start - WASHOUT), last)
    kept = np.exp(-(moved - last) / lag).tolist()  # of the way that was left at the last window's end
    left = (lag / span * (np.exp(-(start - moved) / lag) - np.exp(-(start - moved + span) / lag))).tolist()
    over = np.exp(-(start + span - moved) / lag).tolist()
    out = w.x.copy()
    for j, values in enumerate(w.x.T.tolist()):  # one number follows from the one before: plain floats
        at, column = values[0], values[:1]
        for before, x, a, b, c in zip(values, values[1:], kept, left, over, strict=False):
            at = before + (at - before) * a
            column.append(x + (at - x) * b)
            at = x + (at - x) * c
        out[:, j] = column
    return out


def _covariances(w: Windows) -> Shapes:
    return shapes(w.x, w.t, w.segment, w.x, w.t, w.segment, w.here)


def _fits(trials: Trials) -> tuple[Fit, ...]:
    """Every metric's best amplitudes; what can be asked of all of them at once is."""
    metrics = range(len(trials.rest))
    trials.work_out([(k, 1.0, v) for k in metrics for v in WANDERS])
    wanders = [max(WANDERS, key=lambda v: trials.evidence(k, 1.0, v)) for k in metrics]
    trials.work_out([(k, a, wanders[k]) for k in metrics for a in AMPLITUDES])
    amplitudes = [max(AMPLITUDES, key=lambda a: trials.evidence(k, a, wanders[k])) for k in metrics]
    again = [k for k in metrics if amplitudes[k] > 1.0 and wanders[k] > 1.0]
    trials.work_out([(k, amplitudes[k], v) for k in again for v in WANDERS])
    for k in again:
        wanders[k] = max(WANDERS, key=lambda v: trials.evidence(k, amplitudes[k], v))
    found = []
    for k, amplitude, wander in zip(metrics, amplitudes, wanders, strict=True):
        total, z = trials.at(k, amplitude, wander)
        found.append(Fit(trials, k, amplitude, wander, z, total))
    return tuple(found)


def _despiked(model: Model) -> Model:
    """The model with less trust in windows that stand out and are taken back by the next one."""
    z, w = _calm_z(model), model.windows
    lone = np.zeros_like(z, dtype=bool)
    lone[:-1] = (np.abs(z[:-1]) > OUTLIER_Z) & (z[1:] * z[:-1] < 0) & (np.abs(z[1:]) > 1)
    if not lone.any():
        return model
    return Model(model.trials.again(replace(w, sd=np.where(lone, w.sd * np.abs(z), w.sd))))


def _segmented(model: Model) -> Model:
    """A new segment where surprises at unchanged values say that the response jumped, if evidence agrees."""
    passed = 0
    while (start := _jumped(model, passed)) is not None:
        passed, w = start + 1, model.windows
        cut = replace(w, segment=w.segment + (np.arange(len(w.x)) >= start))
        found = Model(Trials(cut, model.trials.slopes))
        if sum(f.evidence for f in found.fits) > sum(f.evidence for f in model.fits) + JUMP_DOUBT:
            model = found
    return model


def _jumped(model: Model, passed: int) -> int | None:
    """The first window from `passed` on where the response may have jumped: surprised the same way twice.

    Drift counts as no larger than it usually is: a jump would else explain itself away.
    """
    w = model.windows
    still = np.r_[False, np.all(np.abs(np.diff(w.x, axis=0)) < 1e-9, axis=1)]
    z = np.clip(_calm_z(model), -JUMP_CAP, JUMP_CAP)
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


def _calm_z(model: Model) -> Floats:
    """One-step-ahead surprises under the least drift. Shape: (windows, metrics)."""
    if all(f.wander == WANDERS[0] for f in model.fits):
        return _z(model)
    return np.stack(
        [model.trials.at(k, f.amplitude, WANDERS[0])[1] for k, f in enumerate(model.fits)], axis=1
    )


def _z(model: Model) -> Floats:
    return np.stack([f.residual_z for f in model.fits], axis=1)


def shapes(x: Floats, t: Floats, g: Ints, x2: Floats, t2: Floats, g2: Ints, here: Floats) -> Shapes:
    """The covariances of the points (x, t, g) with the points (x2, t2, g2). Shape: (n, n2).

    A response is counted from the present point: what fades with age is how other values differ from it, and
    a metric that fell while the rules moved is put down to the move, not to the time that it took.
    """
    age, apart = np.abs(t[:, None] - t2[None, :]), np.abs(g[:, None] - g2[None, :])
    same = apart == 0
    fade, across = np.exp(-age / MEMORY), (ACROSS ** np.arange(apart.max() + 1.0))[apart]
    return Shapes(
        _raw_response(x, x2, here) * fade * across,
        LEVEL**2 * np.where(same, 1.0, LEVEL_ACROSS),
        np.where(same, WANDER**2 * np.exp(-age / WANDER_CYCLES), 0.0),
        fade,
        across,
    )


def _raw_response(x: Floats, x2: Floats, here: Floats) -> Floats:
    """Covariance of the responses at two sets of values, whatever their age.

    Windows at equal values in a row are worked out once.
    """
    moved = np.any(x2[1:] != x2[:-1], axis=1)
    if 2 * np.count_nonzero(moved) >= len(x2):
        return _response_at(x, x2, here)
    run = np.concatenate(([0], np.cumsum(moved)))
    first = x2[np.concatenate(([True], moved))]
    if x is x2:
        return np.asarray(_response_at(first, first, here)[run[:, None], run])
    return np.asarray(_response_at(x, first, here).take(run, axis=1))


def _response_at(x: Floats, x2: Floats, here: Floats) -> Floats:
    centre = here[None, :]
    return np.asarray(
        _raw(x, x2) - _raw(x, centre) - _raw(centre, x2) + _raw(centre, centre)
        + SLOPE**2 * (x - here) @ (x2 - here).T
    )  # fmt: skip


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
