"""A seeded toy plant at work: metrics that answer to the rules with lag, noise and mishaps.

Answers "what would such a system have measured?" for the demo, the benchmarks and the tests. The
noise does not depend on the rule values, so two runs with one seed differ only by what the rules did.
Never reads a clock or a file. What a plant is like stands in `plants.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from selftune.plants import MetricModel, PlantSpec, Values, seed_plant
from selftune.series import Floats, Int64s, Series

RuleChange = tuple[int, str, float]  # (instant in ms, rule, new value)

_BLOCK = 4096  # samples of noise drawn at once; a block is the same however it is asked for
_GONE = 40.0  # after so many time constants a lag is over to the last bit


# ----------------------------------------------------------------------------- what it measures
@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the plant wrote, and what lay beneath.

    Shape: `ts_ms` int64[n]; `values`, `means` metric -> float64[n] (NaN = empty cell or lost row);
    `copies` int8[n]: 0 a lost row, 1, or 2 a duplicate. `means` is lagged but free of disturbances.
    """

    ts_ms: Int64s
    values: Mapping[str, Floats]
    means: Mapping[str, Floats]
    copies: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.ts_ms)

    def series(self) -> Series:
        """The rows as a careful reader would hold them: lost ones left out, duplicates once."""
        kept = self.copies > 0
        return Series(ts_ms=self.ts_ms[kept], values={m: v[kept] for m, v in self.values.items()})

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """Several stretches as one."""
        first = parts[0]
        return Rows(
            ts_ms=np.concatenate([p.ts_ms for p in parts]),
            values={m: np.concatenate([p.values[m] for p in parts]) for m in first.values},
            means={m: np.concatenate([p.means[m] for p in parts]) for m in first.means},
            copies=np.concatenate([p.copies for p in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Disturbances of one block of samples, and the state that the next block goes on from."""

    number: int
    added: Mapping[str, Floats]
    missing: Mapping[str, NDArray[np.bool_]]
    copies: NDArray[np.int8]
    ends: Mapping[str, tuple[float, float]]


def _wander(rng: np.random.Generator, phi: float, start: float | None) -> Floats:
    """A block of AR(1) with unit variance that goes on from `start`, or begins anywhere."""
    steps = rng.standard_normal(_BLOCK + 1)
    before = steps[0] if start is None else start
    steps = steps[1:] * math.sqrt(1 - phi * phi)
    path = accumulate(steps.tolist(), lambda y, e: phi * y + e, initial=before)
    return np.fromiter(path, float, _BLOCK + 1)[1:]


def _gaps(rng: np.random.Generator, spec: PlantSpec) -> NDArray[np.bool_]:
    """Which rows of a block are lost; a gap ends with its block."""
    mean = max(1.0, spec.gap_s * spec.rate_hz)
    starts = np.flatnonzero(rng.random(_BLOCK) < spec.gap_share / mean)
    lengths = rng.geometric(1 / mean, len(starts))
    lost = np.zeros(_BLOCK, bool)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        lost[start : start + length] = True
    return lost


def _block(spec: PlantSpec, seed: int, number: int, before: _Block | None) -> _Block:
    """Block `number` of this seed; continuous with `before` if that is the block before it."""
    rng = np.random.default_rng([abs(seed), number])
    seconds = (np.arange(_BLOCK) + number * _BLOCK) / spec.rate_hz
    added, missing, ends = {}, {}, {}
    for place, m in enumerate(spec.metrics):
        noise0, drift0 = before.ends[m.name] if before else (None, None)
        noise = _wander(rng, math.exp(-1 / (m.noise_s * spec.rate_hz)), noise0)
        drift = _wander(rng, math.exp(-1 / (m.drift_s * spec.rate_hz)), drift0)
        ends[m.name] = (float(noise[-1]), float(drift[-1]))
        # each metric's ripple starts elsewhere in its wave, as separate sensors do
        ripple = np.sin(2 * math.pi * (m.ripple_hz * seconds + place / len(spec.metrics)))
        added[m.name] = m.noise_sd * noise + m.drift * np.tanh(drift / 1.5) + m.ripple * ripple
        missing[m.name] = rng.random(_BLOCK) < spec.missing_share
    twice = rng.random(_BLOCK) < spec.duplicate_share
    copies = np.where(_gaps(rng, spec), 0, np.where(twice, 2, 1)).astype(np.int8)
    return _Block(number=number, added=added, missing=missing, copies=copies, ends=ends)


@cache
def _decay(lag_s: float, rate_hz: float) -> Floats:
    """What is left of a distance after 0, 1, 2 … samples; its last entry is 0."""
    if lag_s == 0:
        return np.array([1.0, 0.0])
    left = np.exp(-np.arange(math.ceil(_GONE * lag_s * rate_hz) + 2) / (lag_s * rate_hz))
    left[-1] = 0.0
    return left


@dataclass(frozen=True, kw_only=True)
class PlantState:
    """Where a plant stands: samples made, and the move that its lags are in the middle of.

    Since sample `since` the metrics walk from `start` to `goal`, which `cause` (rule values, regime) set.
    """

    index: int
    since: int
    start: Values
    goal: Values
    cause: tuple[tuple[float, ...], int]


class Plant:
    """A plant that goes on from sample to sample; `state` is all it remembers but the noise's block.

    However the samples are asked for, one by one or a day at once, they are the same to the last bit.
    """

    def __init__(
        self,
        seed: int = 0,
        spec: PlantSpec | None = None,
        *,
        start_ms: int = 0,
        values: Values | None = None,
        index: int = 0,
    ) -> None:
        """A plant settled at `values` (default: the rules' first); `start_ms` is the instant of sample 0.

        `index` > 0 takes it up in the middle of its life, as after a restart.
        """
        self.seed, self.spec, self.start_ms = seed, spec or seed_plant(), start_ms
        cause = self._cause(values or {}, index)
        means = self._goal(cause)
        self.state = PlantState(index=index, since=index - 1, start=means, goal=means, cause=cause)
        self._noise: _Block | None = None

    @property
    def next_ms(self) -> int:
        """The instant of the next sample."""
        return self.at_ms(self.state.index)

    def at_ms(self, index: int) -> int:
        return self.start_ms + round(index * self.spec.period_ms)

    def index_of(self, ts_ms: int) -> int:
        """The first sample at or after this instant."""
        index = math.ceil((ts_ms - self.start_ms) / self.spec.period_ms)
        return index - 1 if self.at_ms(index - 1) >= ts_ms else index

    def step(self, values: Values, ts_ms: int | None = None) -> dict[str, float | None]:
        """The next row under these rule values; None = empty cell, all None = lost row.

        `ts_ms` later than the next sample: the time between passes unseen. Raises: ValueError if earlier.
        """
        if ts_ms is not None:
            self.skip_to(ts_ms)
        row = self.run(values, 1)
        cells = {m: float(v[0]) for m, v in row.values.items()}
        return {m: None if math.isnan(v) else v for m, v in cells.items()}

    def skip_to(self, ts_ms: int) -> None:
        """Let time pass unseen; the next sample is the first at or after `ts_ms`."""
        index = self.index_of(ts_ms)
        if index < self.state.index:
            raise ValueError("a plant cannot go back in time")
        self.state = replace(self.state, index=index)

    def run(self, values: Values, n: int, *, changes: Sequence[RuleChange] = ()) -> Rows:
        """The next `n` rows, beginning under `values`; each change counts from its instant on."""
        end = self.state.index + n
        held = dict(values)
        todo = sorted(changes, key=itemgetter(0))  # of one instant, the last word counts
        parts: list[Rows] = []
        while self.state.index < end or not parts:
            while todo and self.index_of(todo[0][0]) <= self.state.index:
                _, rule, new = todo.pop(0)
                held[rule] = new
            stop = min(end, self.index_of(todo[0][0])) if todo else end
            parts.append(self._stretch(held, self._before_switch(stop)))
        return Rows.joined(parts)

    def _before_switch(self, stop: int) -> int:
        """`stop`, or the first sample of another regime or block of noise if that comes earlier."""
        first = self.state.index
        switch = self.spec.next_switch(first)
        return min(stop, (first // _BLOCK + 1) * _BLOCK, stop if switch is None else switch)

    def _cause(self, values: Values, index: int) -> tuple[tuple[float, ...], int]:
        held = tuple(float(values.get(r.name, r.init)) for r in self.spec.rules)
        return held, self.spec.regime_at(index)

    def _goal(self, cause: tuple[tuple[float, ...], int]) -> dict[str, float]:
        held, regime = cause
        return self.spec.true_means({r.name: x for r, x in zip(self.spec.rules, held, strict=True)}, regime)

    def _lagged(self, m: MetricModel, index: Int64s) -> Floats:
        """The lagged mean at these samples."""
        s, left = self.state, _decay(m.lag_s, self.spec.rate_hz)
        age = np.clip(index - s.since, 0, len(left) - 1)
        return s.goal[m.name] + (s.start[m.name] - s.goal[m.name]) * left[age]

    def _stretch(self, values: Values, stop: int) -> Rows:
        """Rows up to `stop`: one set of rule values, one regime, one block of noise."""
        first = self.state.index
        cause = self._cause(values, first)
        if cause != self.state.cause:
            last = np.array([first - 1])
            here = {m.name: float(self._lagged(m, last)[0]) for m in self.spec.metrics}
            self.state = PlantState(
                index=first, since=first - 1, start=here, goal=self._goal(cause), cause=cause
            )
        index = np.arange(first, stop)
        block = self._disturbances(first // _BLOCK)
        cut = slice(first - block.number * _BLOCK, stop - block.number * _BLOCK)
        lost = block.copies[cut] == 0
        values_, means = {}, {}
        for m in self.spec.metrics:
            means[m.name] = self._lagged(m, index)
            seen = np.clip(means[m.name] + block.added[m.name][cut], m.lo, m.hi)
            seen = seen if m.decimals is None else np.round(seen, m.decimals)
            values_[m.name] = np.where(lost | block.missing[m.name][cut], np.nan, seen)
        self.state = replace(self.state, index=stop)
        ts = self.start_ms + np.rint(index * self.spec.period_ms).astype(np.int64)
        return Rows(ts_ms=ts, values=values_, means=means, copies=block.copies[cut])

    def _disturbances(self, number: int) -> _Block:
        """The block of noise with this number, continuous with the one held if that is its neighbour."""
        held = self._noise
        if held is None or held.number != number:
            before = held if held and held.number == number - 1 else None
            self._noise = held = _block(self.spec, self.seed, number, before)
        return held
