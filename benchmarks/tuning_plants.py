"""Systems to be tuned, as a tuner sees them: one mean and standard error a metric and window of 120 s.

Answers "what would this system measure at these rule values, and what would be best?" for
benchmarks/tuning.py. Never chooses a step.

A plant of your own is a function `(dice) -> TuningPlant`, named in a module that is given to the benchmark:
`python -m benchmarks.tuning --plants-from my_plants`, where my_plants.py holds
`PLANTS = {"mine": lambda dice: TuningPlant(text=YAML, means=f, noise={"latency": 2.0})}`. In it
`text` is a settings file; `means(values, cycle)` gives the noise-free mean of every metric of `targets` at
these rule values ({name: number or array} -> {metric: number or array}; if it cannot take arrays it is
called point by point); `noise` is the sd of one sample of each metric (5 a second, memory 1 s).
`regimes` are the cycles at which the response changes: the oracle is sought anew at each. `lag_s`, `wander`
and `spikes` are disturbances. `dice` is a numpy Generator of the seed: use it, and each seed is another
member of a family; leave it, and only the noise differs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from selftune.config import Settings, parse
from selftune.domain import Target, WindowStat
from selftune.objective import weighted
from selftune.plants import PlantSpec, seed_plant

Floats = NDArray[np.float64]
Dice = np.random.Generator
Values = Mapping[str, Any]  # rule -> number or array

CYCLE_S, SETTLE_S, BATCH_S, BATCHES = 120.0, 20.0, 10.0, 9
MEMORY_S, SAMPLES = 1.0, 450
WANDER_CYCLES = 15.0  # memory of the slow wander
SPREAD, LOCAL, LOCAL_ROUNDS = 6000, 200, 14  # the oracle's search
SHIPPED = Path(__file__).resolve().parent.parent / "selftune" / "shipped" / "self_tuning.yaml"


@dataclass(frozen=True, kw_only=True)
class TuningPlant:
    """One system. Units: metrics and rules in their own; `wander` in shares of the sample noise.

    `lag_s`: time constant with which a metric follows. `spikes`: share of windows with one bad batch.
    """

    text: str
    means: Callable[[Values, int], Mapping[str, Any]]
    noise: Mapping[str, float]
    lag_s: float = 6.0
    wander: float = 0.2
    spikes: float = 0.0
    regimes: Sequence[int] = (0,)

    @cached_property
    def settings(self) -> Settings:
        return parse(self.text)

    def table(self, x: Floats, cycle: int) -> Floats:
        """Noise-free means at rows of rule values in the order of the rules. Shape: (points, metrics)."""
        names, metrics = list(self.settings.rules), self.settings.metrics
        try:
            got = self.means({r: x[:, i] for i, r in enumerate(names)}, cycle)
            return np.stack([np.broadcast_to(np.asarray(got[m], float), len(x)) for m in metrics], axis=1)
        except (TypeError, ValueError):  # plain Python: one point after the other
            rows = [self.means(dict(zip(names, map(float, p), strict=True)), cycle) for p in x]
            return np.array([[float(row[m]) for m in metrics] for row in rows])

    def point(self, values: Mapping[str, float]) -> Floats:
        return np.array([[values[r] for r in self.settings.rules]], float)

    def score(self, table: Floats) -> Floats:
        """The objective score of each row of means."""
        s = self.settings
        total = sum(s.weights[m] for m in weighted(s))
        columns = {m: table[:, k] for k, m in enumerate(s.metrics)}
        return np.asarray(sum(s.weights[m] * attained(s.targets[m], columns[m]) for m in weighted(s)) / total)

    def over(self, table: Floats) -> NDArray[np.bool_]:
        """Where a hard limit is broken."""
        found = np.zeros(len(table), bool)
        for m, limit in self.settings.hard.items():
            at = table[:, self.settings.metrics.index(m)]
            found |= (at > limit.max) if limit.max is not None else False
            found |= (at < limit.min) if limit.min is not None else False
        return found

    # ------------------------------------------------------------------------- what would be best
    def regime(self, cycle: int) -> int:
        """The cycle at which the regime in force began."""
        return self.regimes[max(0, bisect_right(list(self.regimes), cycle) - 1)]

    def best(self, cycle: int) -> Floats:
        """The best fixed feasible rule values of the regime that begins at `cycle`. Shape: (rules,).

        Spread over the whole range, then around the five best with a width that shrinks. Raises: ValueError.
        """
        rules = list(self.settings.rules.values())
        lo, span = np.array([r.min for r in rules]), np.array([r.max - r.min for r in rules])
        dice = np.random.default_rng(12)

        def worth(u: Floats) -> Floats:
            table = self.table(lo + u * span, cycle)
            return np.where(self.over(table), -np.inf, self.score(table))

        start = (np.array([r.init for r in rules]) - lo) / span
        u = np.vstack([start, spread(SPREAD, len(rules))])
        values = worth(u)
        if np.max(values) == -np.inf:
            raise ValueError("no rule values are feasible")
        tops = u[np.argsort(-values)[:5]]
        found = [self._climb(top, worth, dice) for top in tops]
        return np.asarray(lo + max(found, key=lambda f: f[1])[0] * span)

    def _climb(self, at: Floats, worth: Callable[[Floats], Floats], dice: Dice) -> tuple[Floats, float]:
        width, top = 0.15, float(worth(at[None, :])[0])
        for _ in range(LOCAL_ROUNDS):
            near = np.clip(at + width * dice.standard_normal((LOCAL, len(at))), 0, 1)
            values = worth(near)
            if values.max() > top:
                at, top = near[int(np.argmax(values))], float(values.max())
            width *= 0.7
        return at, top


def attained(target: Target, at: Floats) -> Floats:
    """objective.attainment, for arrays (test_tuning_bench.py compares them)."""
    over = at - target.max if target.max is not None else np.full_like(at, -np.inf)
    under = target.min - at if target.min is not None else np.full_like(at, -np.inf)
    return np.asarray(np.clip(1.0 - np.maximum(0.0, np.maximum(over, under)) / target.scale, 0.0, 1.0))


def spread(n: int, d: int) -> Floats:
    """`n` points evenly spread in the unit cube. Source: M. Roberts' R_d sequence."""
    root = 1.5
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (d + 1))
    return np.asarray(np.mod(0.5 + np.arange(n)[:, None] * root ** -np.arange(1, d + 1), 1.0))


# ----------------------------------------------------------------------------- what it measures
class Windows:
    """One plant at work: a window after the other. The noise does not depend on the rule values."""

    def __init__(self, plant: TuningPlant, dice: Dice) -> None:
        self.plant, self.dice, self.cycle = plant, dice, 0
        s = plant.settings
        self.sd = np.array([plant.noise[m] for m in s.metrics])
        self.level = plant.table(plant.point({n: r.init for n, r in s.rules.items()}), 0)[0]
        self.drift = plant.wander * self.sd * dice.standard_normal(len(self.sd))
        ends = SETTLE_S + BATCH_S * np.arange(BATCHES + 1)
        lag = max(plant.lag_s, 1e-9)
        decay = np.exp(-ends / lag)
        self.left = (decay[:-1] - decay[1:]) * lag / BATCH_S  # of the way still to go, mean of each batch
        self.left_at_end = float(np.exp(-CYCLE_S / lag))

    def next(self, values: Mapping[str, float]) -> dict[str, WindowStat]:
        """The window of this cycle under these values."""
        k, goal = len(self.sd), self.plant.table(self.plant.point(values), self.cycle)[0]
        phi = np.exp(-1 / WANDER_CYCLES)
        kick = self.dice.standard_normal(k)
        self.drift = phi * self.drift + np.sqrt(1 - phi**2) * self.plant.wander * self.sd * kick
        batches = goal + np.outer(self.left, self.level - goal) + self.drift
        batch_sd = self.sd * np.sqrt(2 * MEMORY_S / BATCH_S)
        batches += batch_sd * self.dice.standard_normal((BATCHES, k))
        spike = self.dice.random(k) < self.plant.spikes
        batches[int(self.dice.integers(BATCHES))] += spike * 8 * self.sd
        self.level = goal + (self.level - goal) * self.left_at_end
        start = round((self.cycle * CYCLE_S + SETTLE_S) * 1000)
        self.cycle += 1
        mean, se = batches.mean(axis=0), batches.std(axis=0, ddof=1) / np.sqrt(BATCHES)
        end = start + round(BATCH_S * BATCHES * 1000)
        return {
            m: WindowStat(mean=float(mean[i]), se=float(se[i]), n=SAMPLES, start_ms=start, end_ms=end)
            for i, m in enumerate(self.plant.settings.metrics)
        }


# ----------------------------------------------------------------------------- making plants
At = Callable[[Floats, int], Mapping[str, Any]]  # u (..., rules) in [0, 1], cycle -> means
SEED_RULES = {"creative_min": (0.18, 0.35, 0.02), "risk_max": (0.20, 0.40, 0.02)}
SEED_TARGETS = {
    "phase_diff": {"max": 0.05, "scale": 0.1},
    "creative_band": {"min": 0.24},
    "risk_band": {"max": 0.30},
}
SEED_NOISE = {"phase_diff": 0.010, "creative_band": 0.014, "risk_band": 0.015}
SEED_WEIGHTS = {"phase_diff": 1.2, "creative_band": 0.8, "risk_band": 1.0}


def made(
    rules: Mapping[str, tuple[float, float, float]],
    start: Sequence[float] | Floats,
    direction: Sequence[int] | Floats,
    targets: Mapping[str, Mapping[str, float]],
    at: At,
    noise: Mapping[str, float],
    *,
    weights: Mapping[str, float] | None = None,
    hard: Mapping[str, Mapping[str, float]] | None = None,
    **more: Any,
) -> TuningPlant:
    """A plant whose response is written in rule values scaled to [0, 1]; rules: (min, max, lr)."""
    places = list(rules.items())
    doc: dict[str, Any] = {
        "targets": {m: dict(t) for m, t in targets.items()},
        "rules": {
            n: {"init": round(lo + float(u) * (hi - lo), 6), "min": lo, "max": hi, "lr": lr}
            for (n, (lo, hi, lr)), u in zip(places, start, strict=True)
        },
        "strategy": {
            "objective_weights": dict(weights) if weights else dict.fromkeys(targets, 1.0),
            "direction": {n: int(s) for (n, _), s in zip(places, direction, strict=True)},
            "dry_run": False,
        },
        "governance": {"approvals_required": 0},
    }
    if hard:
        doc["safety"] = {"hard": {m: dict(h) for m, h in hard.items()}}

    def means(values: Values, cycle: int) -> Mapping[str, Any]:
        u = [(np.asarray(values[n], float) - lo) / (hi - lo) for n, (lo, hi, _) in places]
        return at(np.stack(u, axis=-1), cycle)

    return TuningPlant(text=yaml.safe_dump(doc, sort_keys=False), means=means, noise=noise, **more)


def plain_rules(d: int, steps: int = 10) -> dict[str, tuple[float, float, float]]:
    """`d` rules of different ranges, each `steps` small steps wide."""
    return {f"rule_{i + 1}": (0.1 * i, 0.1 * i + 0.2 + 0.1 * i, (0.2 + 0.1 * i) / steps) for i in range(d)}


def away(dice: Dice, c: Floats, far: float) -> Floats:
    """A start `far` from `c` in every rule, inside the range, mostly on the roomier side."""
    side = np.where(c > 0.5, -1.0, 1.0) * np.where(dice.random(len(c)) < 0.85, 1.0, -1.0)
    return np.asarray(np.clip(c + side * far, 0.04, 0.96))


def towards(c: Floats, start: Floats) -> Floats:
    return np.where(c > start, 1, -1)


def trade(dice: Dice, c: Floats, start: Floats, *, floor: float = 0.045) -> At:
    """Three metrics that meet their targets near `c`: phase bends about it, risk and creativity pull apart.

    `floor`: phase at its best; above 0.05 its target cannot be met.
    """
    d = len(c)
    bend = dice.uniform(0.4, 0.8, d) / d
    way = towards(c, start) / np.sqrt(d)
    risky, creative = dice.uniform(0.10, 0.22, d) * way, dice.uniform(0.06, 0.14, d) * way
    risky[1::2] *= -0.3  # what helps creativity costs a little risk
    creative[::2] *= -0.3

    def at(u: Floats, cycle: int) -> Mapping[str, Any]:
        v = u - c
        return {
            "phase_diff": floor + v**2 @ bend,
            "creative_band": 0.244 + v @ creative - 0.04 * v**2 @ bend,
            "risk_band": 0.296 - v @ risky + 0.1 * v**2 @ bend,
        }

    return at


def seed_like(dice: Dice, c: Floats, start: Floats, at: At, **more: Any) -> TuningPlant:
    """The seed's names and targets around a response of one, two or more rules; a hard limit on risk."""
    d = len(c)
    above = float(at(np.asarray(start, float), 0)["risk_band"]) + dice.uniform(0.02, 0.04)
    more.setdefault("hard", {"risk_band": {"max": round(max(0.36, above), 4)}})
    rules = SEED_RULES if d == 2 else plain_rules(d)
    direction = more.pop("direction", towards(c, start))
    factor = dice.uniform(0.6, 1.3)
    noise = {m: sd * factor for m, sd in SEED_NOISE.items()}
    return made(rules, start, direction, SEED_TARGETS, at, noise, weights=SEED_WEIGHTS, **more)


# ----------------------------------------------------------------------------- the plants
def of_spec(text: str, spec: PlantSpec) -> TuningPlant:
    """A plant of selftune/plants.py (its first regime), a window at a time."""

    def means(values: Values, cycle: int) -> Mapping[str, Any]:
        return {m.name: np.clip(m.surface.at(values, spec.init), m.lo, m.hi) for m in spec.metrics}

    return TuningPlant(text=text, means=means, noise={m.name: m.noise_sd for m in spec.metrics})


def shipped(dice: Dice) -> TuningPlant:
    """The plant of the demo under the settings that selftune ships."""
    text = SHIPPED.read_text(encoding="utf-8").replace("dry_run: true", "dry_run: false")
    text = text.replace("# governance:", "governance:", 1).replace(
        "#   approvals_required: 1", "  approvals_required: 0", 1
    )
    return of_spec(text, seed_plant())


def interior(dice: Dice, d: int = 2, far: float = 0.4, **more: Any) -> TuningPlant:
    """Smooth, with an optimum inside the range."""
    c = dice.uniform(0.3, 0.7, d)
    start = away(dice, c, far)
    return seed_like(dice, c, start, trade(dice, c, start, floor=dice.uniform(0.04, 0.065)), **more)


def interaction(dice: Dice) -> TuningPlant:
    """A narrow valley across both rules: neither rule alone can go far."""
    c = dice.uniform(0.4, 0.6, 2)
    side = float(dice.choice([-1.0, 1.0]))
    start = np.clip(c + 0.38 * np.array([side, side]), 0.04, 0.96)
    steep, flat = dice.uniform(0.9, 1.3), dice.uniform(0.12, 0.2)

    def at(u: Floats, cycle: int) -> Mapping[str, Any]:
        along, across = (u - c).sum(axis=-1) / np.sqrt(2), (u[..., 0] - c[0] - u[..., 1] + c[1]) / np.sqrt(2)
        return {
            "phase_diff": 0.04 + flat * along**2 + steep * across**2,
            "creative_band": 0.245 - 0.08 * side * along,
            "risk_band": 0.29 + 0.06 * side * along,
        }

    return seed_like(dice, c, start, at)


def saturating(dice: Dice) -> TuningPlant:
    """Effects that fade out along each rule, up to a hard limit."""
    k = dice.uniform(3, 6, 2)

    def at(u: Floats, cycle: int) -> Mapping[str, Any]:
        soft = 1 - np.exp(-k * u)
        return {
            "phase_diff": 0.13 - 0.09 * soft[..., 1] + 0.04 * u[..., 1] ** 2,
            "creative_band": 0.15 + 0.12 * soft[..., 0],
            "risk_band": 0.23 + 0.16 * soft[..., 0] - 0.06 * soft[..., 1],
        }

    start = np.array([0.08, 0.1])
    return seed_like(
        dice,
        np.ones(2),
        start,
        at,
        direction=[1, 1],
        hard={"risk_band": {"max": float(dice.uniform(0.34, 0.37))}},
    )


def wrong_direction(dice: Dice) -> TuningPlant:
    """The settings have every sign wrong."""
    c = dice.uniform(0.3, 0.7, 2)
    start = np.clip(c + np.where(c > 0.5, -1, 1) * 0.3, 0.1, 0.9)
    return seed_like(dice, c, start, trade(dice, c, start), direction=-towards(c, start))


def lagging(dice: Dice) -> TuningPlant:
    """It takes more than a cycle to answer."""
    return interior(dice, lag_s=float(dice.uniform(120, 200)))


def drifting(dice: Dice) -> TuningPlant:
    """The optimum wanders off, slowly."""
    c = dice.uniform(0.25, 0.4, 2)
    start = away(dice, c, 0.3)
    at, pace = trade(dice, c, start), dice.uniform(0.8, 1.2, 2) * 0.35 / 200
    return seed_like(
        dice, c, start, lambda u, cycle: at(u - pace * min(cycle, 200), cycle), regimes=range(0, 200, 5)
    )


def jumping(dice: Dice, d: int = 2) -> TuningPlant:
    """The response jumps twice: the optimum is elsewhere, and levels are others."""
    c = dice.uniform(0.25, 0.4, d)
    start = away(dice, c, 0.3)
    at, first, second = trade(dice, c, start), int(dice.integers(60, 90)), int(dice.integers(125, 150))
    moved = [np.zeros(d), dice.uniform(0.25, 0.4, d), dice.uniform(0.0, 0.2, d)]

    def jumped(u: Floats, cycle: int) -> Mapping[str, Any]:
        g = (cycle >= first) + (cycle >= second)
        got = dict(at(u - moved[g], cycle))
        return {**got, "risk_band": got["risk_band"] - 0.01 * g}

    return seed_like(dice, c, start, jumped, regimes=(0, first, second))


def hard_near(dice: Dice) -> TuningPlant:
    """The score rises right up to a hard limit."""
    top = dice.uniform(0.35, 0.37)

    def at(u: Floats, cycle: int) -> Mapping[str, Any]:
        return {
            "speed": 0.15 + 0.35 * u[..., 0] + 0.2 * u[..., 1],
            "risk_band": 0.20 + 0.16 * u[..., 0] ** 2 + 0.12 * u[..., 1] + 0.06 * u[..., 0] * u[..., 1],
        }

    return made(
        plain_rules(2), [0.2, 0.15], [1, 1],
        {"speed": {"min": 0.55}, "risk_band": {"max": 0.345, "scale": 0.3}}, at,
        {"speed": 0.015, "risk_band": float(dice.uniform(0.006, 0.014))},
        weights={"speed": 1.0, "risk_band": 0.3}, hard={"risk_band": {"max": float(top)}},
    )  # fmt: skip


def starts_good(dice: Dice) -> TuningPlant:
    """Nothing to gain; a step of two in most directions costs."""
    c = dice.uniform(0.4, 0.6, 2)
    start = np.clip(c + dice.uniform(-0.1, 0.1, 2), 0, 1)
    return seed_like(dice, c, start, trade(dice, c, np.array([0.9, 0.1])), direction=[1, -1])


def service(dice: Dice) -> TuningPlant:
    """A web service: milliseconds, requests a second, percent of errors; rules in items, workers, seconds."""
    c, slow = dice.uniform(0.35, 0.65, 3), dice.uniform(0.8, 1.2)
    start = np.array([0.1, 0.85, 0.2])

    def at(u: Floats, cycle: int) -> Mapping[str, Any]:
        batch, workers, timeout = (u[..., i] - c[i] for i in range(3))
        return {
            "p95_ms": 118 + slow * (190 * batch**2 + 160 * workers**2 + 40 * timeout - 60 * batch * workers),
            "requests_per_s": 1215 + 420 * batch - 520 * batch**2 - 380 * workers**2,
            "errors_percent": 0.95 + 2.0 * (timeout - 0.25) ** 2 - 0.12 + 1.6 * workers**2,
        }

    return made(
        {"batch_size": (8, 128, 12), "workers": (2, 34, 3), "timeout_s": (0.5, 5.0, 0.4)}, start, [1, -1, 1],
        {"p95_ms": {"max": 120, "scale": 60}, "requests_per_s": {"min": 1200, "scale": 600},
         "errors_percent": {"max": 1.0}}, at,
        {"p95_ms": 9.0, "requests_per_s": 45.0, "errors_percent": 0.12}, weights={"p95_ms": 2.0,
         "requests_per_s": 1.0, "errors_percent": 1.0}, hard={"errors_percent": {"max": 3.0}},
    )  # fmt: skip


def many_metrics(dice: Dice, d: int = 3, n: int = 12) -> TuningPlant:
    """Twelve metrics, each answering to two of the rules."""
    c = dice.uniform(0.3, 0.7, d)
    start = away(dice, c, 0.35)
    pairs = [(k % d, (k // 2 + 1) % d) for k in range(n)]
    bend, tilt = dice.uniform(0.3, 0.7, n), dice.uniform(-0.03, 0.03, n)
    names = [f"metric_{k + 1}" for k in range(n)]

    def at(u: Floats, cycle: int) -> Mapping[str, Any]:
        v = u - c
        return {
            m: 0.22 + bend[k] * (v[..., i] ** 2 + 0.5 * v[..., j] ** 2) + tilt[k] * v[..., i]
            for k, (m, (i, j)) in enumerate(zip(names, pairs, strict=True))
        }

    return made(
        plain_rules(d), start, towards(c, start), {m: {"max": 0.23, "scale": 0.12} for m in names}, at,
        {m: float(dice.uniform(0.008, 0.02)) for m in names}, hard={"metric_1": {"max": 0.42}},
    )  # fmt: skip


def two_hills(dice: Dice) -> TuningPlant:
    """A small hill close by, the better one behind a dip; a band target, and a few windows with a spike."""
    c, near = dice.uniform(0.68, 0.78, 2), dice.uniform(0.25, 0.32, 2)

    def at(u: Floats, cycle: int) -> Mapping[str, Any]:
        high = np.exp(-((u - c) ** 2).sum(axis=-1) / (2 * 0.28**2))
        low = np.exp(-((u - near) ** 2).sum(axis=-1) / (2 * 0.16**2))
        return {"quality": 0.30 + 0.40 * high + 0.16 * low, "load": 0.5 + 0.25 * (u[..., 0] - u[..., 1])}

    return made(
        plain_rules(2), near + 0.1, [1, 1],
        {"quality": {"min": 0.68}, "load": {"min": 0.45, "max": 0.55}}, at,
        {"quality": 0.015, "load": 0.015}, weights={"quality": 2.0, "load": 1.0}, spikes=0.03,
    )  # fmt: skip


def flat(dice: Dice) -> TuningPlant:
    """No rule does anything: every step is in vain."""
    c = np.full(2, 0.5)
    at = {"phase_diff": 0.07, "creative_band": 0.225, "risk_band": 0.33}
    return seed_like(dice, c, c, lambda u, cycle: {m: x + 0 * u[..., 0] for m, x in at.items()})


Maker = Callable[[Dice], TuningPlant]
PLANTS: Mapping[str, Maker] = {
    "shipped": shipped,
    "interior": interior,
    "interaction": interaction,
    "saturation": saturating,
    "wrong direction": wrong_direction,
    "lag": lagging,
    "drift": drifting,
    "jump": jumping,
    "hard limit": hard_near,
    "starts good": starts_good,
    "service units": service,
    "12 metrics": many_metrics,
    "two hills": two_hills,
    "1 rule": lambda dice: interior(dice, 1, 0.45),
    "4 rules": lambda dice: interior(dice, 4, 0.33),
    "4 rules jump": lambda dice: jumping(dice, 4),
    "8 rules": lambda dice: many_metrics(dice, 8, 8),
}


# ----------------------------------------------------------------------------- systems not tuned on
def any_system(dice: Dice) -> TuningPlant:
    """A random system: 1 to 5 rules, 2 to 6 metrics in units from thousandths to thousands.

    Each metric is a sum of slopes, bends, a pair's interaction and a saturation; the targets are those that
    a good point keeps, most of them just so. A third have a hard limit, a fifth jump, a fifth drift.
    """
    d, k = int(dice.choice([1, 2, 2, 3, 4, 5])), int(dice.integers(2, 7))
    steps = dice.integers(7, 14, d)
    good, start = dice.uniform(0.25, 0.75, d), dice.uniform(0.05, 0.95, d)
    slope = dice.normal(0, 0.12, (k, d)) * (dice.random((k, d)) < 0.7)
    bend = dice.uniform(0.0, 0.6, (k, d)) * (dice.random((k, d)) < 0.6) / np.sqrt(d)
    cross = dice.normal(0, 0.3, k) * (dice.random(k) < 0.4)
    soft, rate = dice.normal(0, 0.1, k) * (dice.random(k) < 0.4), dice.uniform(2, 6, k)
    down, unit = dice.random(k) < 0.6, 10.0 ** dice.uniform(-2, 3.5, k)
    jump = int(dice.integers(60, 140)) if dice.random() < 0.2 else 10**9
    pace = dice.uniform(-0.3, 0.3, d) / 200 * (dice.random() < 0.2)
    shift = dice.uniform(-0.3, 0.3, d)

    def raw(u: Floats, cycle: int) -> Floats:
        v = u - good - shift * (cycle >= jump) - pace * min(cycle, 200)
        i, j = 0, d - 1
        loss = v**2 @ bend.T + cross * (v[..., i] * v[..., j])[..., None] * (d > 1)
        side = v @ slope.T + soft * (1 - np.exp(-rate * np.clip(v[..., :1] + 0.5, 0, 2)))
        return np.asarray(np.where(down, 0.3 + side + loss, 0.6 + side - loss))

    at_good = raw(good, 0)
    slack = dice.uniform(-0.01, 0.015, k)
    names = [f"metric_{m + 1}" for m in range(k)]
    limits = np.where(down, at_good + slack, at_good - slack)
    scale = dice.uniform(0.08, 0.3, k)
    targets = {
        n: {("max" if down[m] else "min"): float(limits[m] * unit[m]), "scale": float(scale[m] * unit[m])}
        for m, n in enumerate(names)
    }
    hard = {}
    if dice.random() < 0.35:
        worst = max(raw(start, 0)[0], limits[0]) if down[0] else min(raw(start, 0)[0], limits[0])
        room = dice.uniform(0.02, 0.05) * (1 if down[0] else -1)
        hard = {names[0]: {("max" if down[0] else "min"): float((worst + room) * unit[0])}}
    signs = np.where(good > start, 1, -1) * np.where(dice.random(d) < 0.75, 1, -1)
    spans = 10.0 ** dice.uniform(-1, 2, d)
    regimes = sorted({0, *([jump] if jump < 10**9 else []), *(range(0, 200, 5) if np.any(pace) else [])})
    return made(
        {f"rule_{i + 1}": (0.0, round(float(spans[i]), 4), round(float(spans[i]) / int(steps[i]), 5))
         for i in range(d)},
        start, signs, targets,
        lambda u, cycle: {n: raw(u, cycle)[..., m] * unit[m] for m, n in enumerate(names)},
        {n: float(dice.uniform(0.006, 0.02) * unit[m]) for m, n in enumerate(names)},
        weights={n: float(dice.choice([0.5, 1.0, 2.0])) for n in names}, hard=hard,
        lag_s=float(dice.choice([5.0, 10.0, 60.0])), regimes=regimes,
    )  # fmt: skip


HELD_OUT: Mapping[str, Maker] = {"any system": any_system}
