"""Descriptions of toy plants: what their metrics do at which rule values, and which plants we keep.

Answers "how would such a system respond, and what would be best there?"; `simulate.py` lets one run.
Never draws a random number, reads a clock or a file.

Units: rule and metric values in their own units; times in seconds of plant time from the first sample.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from selftune.domain import Rule

Values = Mapping[str, float]


# ----------------------------------------------------------------------------- what a plant is
@dataclass(frozen=True, kw_only=True)
class Surface:
    """How the mean of a metric depends on the rules.

    base + Σ slope·(x−init) + Σ bend·((x−centre)² − (init−centre)²) + Σ cross·(xᵢ−initᵢ)(xⱼ−initⱼ),
    so that `base` is the mean at the rules' first values. Units: metric per rule (², for bend and cross).
    """

    base: float
    slope: Values = field(default_factory=dict)
    bend: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # rule -> (centre, coefficient)
    cross: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def rules(self) -> set[str]:
        return {*self.slope, *self.bend, *(r for pair in self.cross for r in pair)}

    def at(self, values: Values, init: Values) -> float:
        """The mean at these rule values."""
        total = self.base + sum(k * (values[r] - init[r]) for r, k in self.slope.items())
        for r, (centre, k) in self.bend.items():
            total += k * ((values[r] - centre) ** 2 - (init[r] - centre) ** 2)
        for (a, b), k in self.cross.items():
            total += k * (values[a] - init[a]) * (values[b] - init[b])
        return total


@dataclass(frozen=True, kw_only=True)
class MetricModel:
    """One metric: its surface, its lag, its disturbances and how it is written down.

    `noise_sd` is the standard deviation of an AR(1) noise with correlation time `noise_s`; `drift` the
    most that a slow wander (correlation time `drift_s`) can add; `ripple` the amplitude of a sine of
    `ripple_hz`. `decimals` None: unrounded.
    """

    name: str
    surface: Surface
    lag_s: float = 8.0
    noise_sd: float = 0.0
    noise_s: float = 1.0
    ripple: float = 0.0
    ripple_hz: float = 0.2
    drift: float = 0.0
    drift_s: float = 1800.0
    lo: float = 0.0
    hi: float = 1.0
    decimals: int | None = 3

    def __post_init__(self) -> None:
        if (
            min(self.noise_s, self.drift_s) <= 0
            or min(self.lag_s, self.noise_sd, self.drift, self.ripple) < 0
        ):
            raise ValueError(f"{self.name}: times must be positive, sizes not negative")
        if not self.lo < self.hi:
            raise ValueError(f"{self.name}: lo must be below hi")


@dataclass(frozen=True, kw_only=True)
class Regime:
    """One mood of the plant: the whole response moved by `shift` along the rules, means by `offset`."""

    shift: Values = field(default_factory=dict)
    offset: Values = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PlantSpec:
    """Everything about a plant but its seed.

    `schedule`: (from this second on, this regime), ascending, beginning with regime 0 if it does not
    begin at 0; repeated every `repeat_s` if given. Shares are per row or cell: `gap_share` of rows is
    lost, in gaps of `gap_s` on average; `duplicate_share` written twice; `missing_share` of cells empty.
    """

    rules: tuple[Rule, ...]
    metrics: tuple[MetricModel, ...]
    rate_hz: float = 5.0
    regimes: tuple[Regime, ...] = (Regime(),)
    schedule: tuple[tuple[float, int], ...] = ()
    repeat_s: float | None = None
    gap_share: float = 0.0
    gap_s: float = 1.0
    duplicate_share: float = 0.0
    missing_share: float = 0.0

    def __post_init__(self) -> None:
        known = set(self.init)
        if not self.rules or not self.metrics or self.rate_hz <= 0 or self.gap_s <= 0:
            raise ValueError("a plant needs rules, metrics, a rate and a gap length")
        for m in self.metrics:
            if unknown := m.surface.rules - known:
                raise ValueError(f"{m.name} depends on unknown rules: {sorted(unknown)}")
        if any(not 0 <= s < 1 for s in (self.gap_share, self.duplicate_share, self.missing_share)):
            raise ValueError("shares lie in [0, 1)")
        if any(not 0 <= r < len(self.regimes) for _, r in self.schedule):
            raise ValueError("the schedule names a regime that is not there")
        starts = [t for t, _ in self.schedule]
        if starts != sorted(starts) or (self.repeat_s and starts and starts[-1] >= self.repeat_s):
            raise ValueError("the schedule must ascend, within its repetition")

    @property
    def init(self) -> dict[str, float]:
        """The rules' first values."""
        return {r.name: r.init for r in self.rules}

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics, in order."""
        return tuple(m.name for m in self.metrics)

    @property
    def period_ms(self) -> float:
        return 1000.0 / self.rate_hz

    def regime_at(self, index: int) -> int:
        """The regime in force at this sample."""
        lap = self._switches(0)
        if self.repeat_s:
            index %= round(self.repeat_s * self.rate_hz)
        i = bisect_right([at for at, _ in lap], index)
        return lap[i - 1][1] if i else 0

    def next_switch(self, index: int) -> int | None:
        """The first sample after this one that may lie in another regime, None without one."""
        turn = round(self.repeat_s * self.rate_hz) if self.repeat_s else 0
        lap = index // turn * turn if turn else 0
        starts = [at for at, _ in self._switches(lap)] + ([lap + turn] if turn else [])
        return next((at for at in starts if at > index), None)

    def _switches(self, offset: int) -> list[tuple[int, int]]:
        """The schedule in samples, which are whole numbers and so cannot miss by a rounding."""
        return [(offset + round(t * self.rate_hz), regime) for t, regime in self.schedule]

    def true_means(self, values: Values, regime: int = 0) -> dict[str, float]:
        """Settled means without noise, drift or ripple, clipped to each metric's range."""
        mood = self.regimes[regime]
        at = {r.name: values.get(r.name, r.init) - mood.shift.get(r.name, 0.0) for r in self.rules}
        return {
            m.name: min(m.hi, max(m.lo, m.surface.at(at, self.init) + mood.offset.get(m.name, 0.0)))
            for m in self.metrics
        }


# ----------------------------------------------------------------------------- plants
def seed_plant() -> PlantSpec:
    """The seed's two rules and four metrics, off target at their first values.

    Three steps down of risk_max and two up of creative_min meet all four targets; further on, phase_diff
    rises again, entropy leaves its target, or the creative band pays for the risk.
    """
    return PlantSpec(
        rules=(
            Rule(name="creative_min", init=0.22, min=0.18, max=0.35, lr=0.02, direction=1),
            Rule(name="risk_max", init=0.35, min=0.20, max=0.40, lr=0.02, weight=1.2, direction=-1),
        ),
        metrics=(
            MetricModel(
                name="phase_diff",
                surface=Surface(base=0.07, bend={"risk_max": (0.29, 6.0), "creative_min": (0.27, 4.2)}),
                lag_s=6.0, noise_sd=0.010, noise_s=0.8, ripple=0.004, drift=0.003,
            ),
            MetricModel(
                name="entropy_rate",
                surface=Surface(base=0.26, slope={"creative_min": 0.2}),
                lag_s=12.0, noise_sd=0.012, noise_s=1.2, ripple=0.004, drift=0.004,
            ),
            MetricModel(
                name="creative_band",
                surface=Surface(base=0.225, slope={"creative_min": 0.65, "risk_max": 0.1}),
                lag_s=9.0, noise_sd=0.014, noise_s=1.0, ripple=0.005, drift=0.004,
            ),
            MetricModel(
                name="risk_band",
                surface=Surface(base=0.33, slope={"risk_max": 0.7, "creative_min": 0.125}),
                lag_s=5.0, noise_sd=0.015, noise_s=1.0, ripple=0.005, drift=0.004,
            ),
        ),
        gap_share=0.001,
        duplicate_share=0.0005,
    )  # fmt: skip


def shifting(spec: PlantSpec, *, every_s: float = 10800.0, share: float = 0.2) -> PlantSpec:
    """`spec` with two regimes in turn: in the second the optimum lies `share` of each range further up."""
    moved = Regime(shift={r.name: share * (r.max - r.min) for r in spec.rules})
    return replace(
        spec,
        regimes=(spec.regimes[0], moved),
        schedule=((0.0, 0), (every_s, 1)),
        repeat_s=2 * every_s,
    )


def harmful(spec: PlantSpec, *, rule: str, metric: str, per_step: float) -> PlantSpec:
    """`spec` where a step of `lr` upward of `rule` adds `per_step` to `metric`, instead of what it did."""
    lr = next(r.lr for r in spec.rules if r.name == rule)

    def worse(m: MetricModel) -> MetricModel:
        surface = replace(m.surface, slope={**m.surface.slope, rule: per_step / lr})
        return replace(m, surface=surface) if m.name == metric else m

    return replace(spec, metrics=tuple(map(worse, spec.metrics)))


def still(spec: PlantSpec) -> PlantSpec:
    """`spec` where no rule does anything: what a judge must not see effects in."""
    return replace(
        spec, metrics=tuple(replace(m, surface=Surface(base=m.surface.base)) for m in spec.metrics)
    )


def quickened(spec: PlantSpec, factor: float) -> PlantSpec:
    """`spec` living `factor` times as fast, rate included: a test with windows of a second needs it."""

    def quick(m: MetricModel) -> MetricModel:
        return replace(
            m,
            lag_s=m.lag_s / factor,
            noise_s=m.noise_s / factor,
            drift_s=m.drift_s / factor,
            ripple_hz=m.ripple_hz * factor,
        )

    return replace(
        spec,
        metrics=tuple(map(quick, spec.metrics)),
        rate_hz=spec.rate_hz * factor,
        gap_s=spec.gap_s / factor,
        schedule=tuple((t / factor, r) for t, r in spec.schedule),
        repeat_s=spec.repeat_s / factor if spec.repeat_s else None,
    )


def in_units(spec: PlantSpec, metric: str, factor: float) -> PlantSpec:
    """`spec` with one metric written in another unit (`factor` = 1000 for ms instead of s)."""

    def scaled(m: MetricModel) -> MetricModel:
        s = m.surface
        surface = Surface(
            base=s.base * factor,
            slope={r: k * factor for r, k in s.slope.items()},
            bend={r: (c, k * factor) for r, (c, k) in s.bend.items()},
            cross={r: k * factor for r, k in s.cross.items()},
        )
        return replace(
            m, surface=surface, noise_sd=m.noise_sd * factor, ripple=m.ripple * factor,
            drift=m.drift * factor, lo=m.lo * factor, hi=m.hi * factor,
        )  # fmt: skip

    return replace(spec, metrics=tuple(scaled(m) if m.name == metric else m for m in spec.metrics))


# ----------------------------------------------------------------------------- what would be best
def oracle(
    spec: PlantSpec,
    score: Callable[[Mapping[str, float]], float],
    *,
    regime: int = 0,
    feasible: Callable[[Mapping[str, float]], bool] = lambda means: True,
    points: int = 2000,
) -> tuple[dict[str, float], float]:
    """The best fixed rule values of a regime and their score, on true means and inside the bounds.

    A grid of about `points`, then a search around its best that halves its step eight times.
    Raises: ValueError if no point of the grid is feasible.
    """
    names = [r.name for r in spec.rules]
    side = max(3, round(points ** (1 / len(names))))

    def worth(x: tuple[float, ...]) -> float:
        means = spec.true_means(dict(zip(names, x, strict=True)), regime)
        return score(means) if feasible(means) else -math.inf

    axes = [np.linspace(r.min, r.max, side).tolist() for r in spec.rules]
    best = max(product(*axes), key=worth)
    if worth(best) == -math.inf:
        raise ValueError("no rule values are feasible")
    widths = [(r.max - r.min) / (side - 1) for r in spec.rules]
    for _ in range(8):
        widths = [w / 2 for w in widths]
        around = product(
            *(
                [r.clip(x + k * w) for k in (0, -1, 1)]
                for r, x, w in zip(spec.rules, best, widths, strict=True)
            )
        )
        best = max(around, key=worth)
    return dict(zip(names, best, strict=True)), worth(best)
