"""How good a state is: attainment per target, the objective score, and the odds of a score gain.

Pure arithmetic on means; never looks at samples, a clock or randomness. A metric without data has
no attainment, and a score that lacks a weighted metric is None: missing is never zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, stdtr, stdtrit

from selftune.config import Settings
from selftune.domain import Target

Floats = NDArray[np.float64]
Shift = tuple[float, float, float]  # (delta, sigma, nu): the truth is delta + sigma * t_nu

# Below 1 the mean of a t does not exist, far above it is the normal law: keep nu where both compute.
NU_MIN, NU_MAX = 1.05, 1e5
EXACT = 1e-12  # of the target's scale: a sigma below it is none
FAR = 1e7  # so many scales from the edge, what crosses it is nothing
# Lattice points for the metrics that are not integrated exactly; error of P about 1e-4 (test_objective).
LATTICE_POINTS = 512


@dataclass(frozen=True, kw_only=True)
class ScoreGain:
    """The distribution of (score after - score before).

    `p_above[i]` = P(gain > at[i]); `p_gain` = P(gain > 0), `p_loss` = P(gain < 0). The two need not
    add up to 1: where every target stays met the gain is exactly 0. Units: score, 0..1.
    """

    mean: float
    p_gain: float
    p_loss: float
    at: tuple[float, ...]
    p_above: tuple[float, ...]


def shortfall(target: Target, value: float) -> float:
    """How far `value` lies outside the target, 0 where it is met. Units: the metric's own."""
    over = value - target.max if target.max is not None else 0.0
    under = target.min - value if target.min is not None else 0.0
    return max(0.0, over, under)


def attainment(target: Target, value: float | None) -> float | None:
    """1 where the target is met, falling to 0 at a shortfall of `scale`; None without a value.

    Source: contract.md, Settings, Objective.
    """
    if value is None or not math.isfinite(value):
        return None
    return max(0.0, 1.0 - shortfall(target, value) / target.scale)


def weighted(settings: Settings) -> tuple[str, ...]:
    """The metrics that make the score, in the order of `targets`."""
    return tuple(m for m in settings.targets if settings.weights.get(m, 0.0) > 0.0)


def objective_score(settings: Settings, means: Mapping[str, float | None]) -> float | None:
    """The weighted mean of the attainments, 0..1; None if a weighted metric lacks data."""
    total, score = 0.0, 0.0
    for m in weighted(settings):
        s = attainment(settings.targets[m], means.get(m))
        if s is None:
            return None
        total += settings.weights[m]
        score += settings.weights[m] * s
    return score / total if total > 0 else None


def score_odds(
    settings: Settings,
    base: Mapping[str, float | None],
    shift: Mapping[str, Shift],
    *,
    at: Sequence[float] = (0.0,),
) -> ScoreGain | None:
    """The score gain when each metric moves from its `base` mean by delta + sigma * t_nu.

    None if a weighted metric lacks a base or a shift. Metrics are taken as independent. The mean is
    exact; the probabilities are exact in the metric that matters most and a fixed lattice in the
    others, so the same input gives the same output and a small change of input a small change of P.
    Units: score. Source: loop.md, Judging.
    """
    parts = _parts(settings, base, shift)
    if parts is None:
        return None
    mean = sum(p.weight * (p.mean() - p.now) for p in parts)
    thresholds = tuple(float(a) for a in at)
    above, p_loss = _tails(parts, (0.0, *thresholds))
    return ScoreGain(mean=mean, p_gain=above[0], p_loss=p_loss, at=thresholds, p_above=tuple(above[1:]))


def t_below(x: float, delta: float, sigma: float, nu: float) -> float:
    """P(delta + sigma * t_nu < x); a step at `delta` when sigma is 0."""
    if sigma <= 0.0:
        return 1.0 if delta < x else 0.0
    return float(stdtr(_clip_nu(nu), (x - delta) / sigma))


def t_above(x: float, delta: float, sigma: float, nu: float) -> float:
    """P(delta + sigma * t_nu > x); a step at `delta` when sigma is 0."""
    return t_below(-x, -delta, sigma, nu)


# ----------------------------------------------------------------------------- one metric's part
@dataclass(frozen=True, kw_only=True)
class _Part:
    """One weighted metric: its share of the score, its attainment now, its level afterwards."""

    target: Target
    weight: float  # w_k / sum of w
    now: float
    level: float  # base + delta
    sigma: float
    nu: float

    def attain(self, values: Floats) -> Floats:
        over = values - self.target.max if self.target.max is not None else np.zeros_like(values)
        under = self.target.min - values if self.target.min is not None else np.zeros_like(values)
        gap = np.maximum(0.0, np.maximum(over, under))
        with np.errstate(over="ignore"):  # absurdly far out is simply all lost
            return np.asarray(np.maximum(0.0, 1.0 - gap / self.target.scale))

    def mean(self) -> float:
        """E[attainment], exact: the shortfall is a difference of hinges, and a t has closed hinges."""
        if self.sigma <= 0.0:
            return float(self.attain(np.array([self.level]))[0])
        lost = 0.0
        if self.target.max is not None:
            lost += self._ramp(self.level - self.target.max)
        if self.target.min is not None:
            lost += self._ramp(self.target.min - self.level)
        return max(0.0, 1.0 - lost)

    def _ramp(self, past: float) -> float:
        """E[clip(X / scale, 0, 1)] for X = past + sigma * t_nu."""
        scale = self.target.scale
        return (self._hinge(past) - self._hinge(past - scale)) / scale

    def _hinge(self, past: float) -> float:
        """E[max(0, past + sigma * t_nu)]."""
        if abs(past) > FAR * self.sigma:
            return max(0.0, past)
        return self.sigma * _t_hinge(-past / self.sigma, self.nu)

    def draws(self, u: Floats) -> Floats:
        """The weighted gain of this metric at the quantiles u of its law."""
        if self.sigma <= 0.0:
            values = np.full_like(u, self.level)
        else:
            values = np.asarray(self.level + self.sigma * stdtrit(self.nu, u))
        return self.weight * (self.attain(values) - self.now)

    def p_beyond(self, rest: Floats) -> tuple[Floats, Floats]:
        """P(own gain > rest) and P(own gain < rest), elementwise and exact."""
        if self.sigma <= 0.0:
            own = self.draws(np.zeros(1))[0]
            return (own > rest).astype(float), (own < rest).astype(float)
        need = self.now + rest / self.weight  # the attainment that gives exactly `rest`
        inside = self._p_inside((1.0 - need) * self.target.scale)
        more = np.where(need >= 1.0, 0.0, np.where(need < 0.0, 1.0, inside))
        less = np.where(need > 1.0, 1.0, np.where(need <= 0.0, 0.0, 1.0 - inside))
        return more, less

    def _p_inside(self, slack: Floats) -> Floats:
        """P(shortfall < slack) for slack >= 0."""
        top: Floats = np.ones_like(slack)
        bottom: Floats = np.zeros_like(slack)
        if self.target.max is not None:
            top = np.asarray(stdtr(self.nu, (self.target.max + slack - self.level) / self.sigma))
        if self.target.min is not None:
            bottom = np.asarray(stdtr(self.nu, (self.target.min - slack - self.level) / self.sigma))
        return np.asarray(np.clip(top - bottom, 0.0, 1.0))


def _parts(
    settings: Settings, base: Mapping[str, float | None], shift: Mapping[str, Shift]
) -> list[_Part] | None:
    names = weighted(settings)
    total = sum(settings.weights[m] for m in names)
    out = []
    for m in names:
        now = attainment(settings.targets[m], base.get(m))
        if now is None or m not in shift or not all(math.isfinite(x) for x in shift[m][:2]):
            return None
        delta, sigma, nu = shift[m]
        level = float(base[m] or 0.0) + delta
        out.append(
            _Part(
                target=settings.targets[m],
                weight=settings.weights[m] / total,
                now=now,
                level=level,
                sigma=sigma if sigma > EXACT * settings.targets[m].scale else 0.0,
                nu=_clip_nu(nu),
            )
        )
    return out or None


def _tails(parts: list[_Part], at: tuple[float, ...]) -> tuple[list[float], float]:
    """P(gain > a) for each a, and P(gain < 0): the widest metric exact, the others on a lattice."""
    widest = max(parts, key=lambda p: p.weight * p.sigma / p.target.scale)
    rest = [p for p in parts if p is not widest]
    points = _lattice(sum(p.sigma > 0.0 for p in rest))
    others: Floats = np.zeros(points.shape[0])
    column = 0
    for p in rest:
        others += p.draws(points[:, column] if p.sigma > 0.0 else np.zeros(len(points)))
        column += p.sigma > 0.0
    beyond = {a: widest.p_beyond(a - others) for a in {0.0, *at}}
    return [float(np.mean(beyond[a][0])) for a in at], float(np.mean(beyond[0.0][1]))


@lru_cache(maxsize=8)
def _lattice(dims: int) -> Floats:
    """Evenly spread points in the open unit cube (Kronecker sequence of the generalised golden ratio).

    Shape: (points, dims); one point when there is nothing to spread over. Source: M. Roberts' R_d.
    """
    if dims == 0:
        return np.zeros((1, 0))
    root = 1.5
    for _ in range(40):
        root = (1.0 + root) ** (1.0 / (dims + 1))
    steps = np.array([root ** -(i + 1) for i in range(dims)])
    n = np.arange(LATTICE_POINTS)[:, None] + 0.5
    points = n / LATTICE_POINTS
    if dims > 1:
        points = np.concatenate([points, np.mod(0.5 + n * steps[: dims - 1], 1.0)], axis=1)
        points = np.clip(points, 1e-9, 1.0 - 1e-9)
    points.setflags(write=False)
    return np.asarray(points)


def _t_hinge(a: float, nu: float) -> float:
    """E[max(0, t_nu - a)], nu > 1."""
    log_pdf = (
        gammaln((nu + 1) / 2)
        - gammaln(nu / 2)
        - 0.5 * math.log(nu * math.pi)
        - (nu + 1) / 2 * math.log1p(a * a / nu)
    )
    return float((nu + a * a) / (nu - 1) * math.exp(log_pdf) - a * stdtr(nu, -a))


def _clip_nu(nu: float) -> float:
    return min(NU_MAX, max(NU_MIN, nu)) if math.isfinite(nu) else NU_MAX
