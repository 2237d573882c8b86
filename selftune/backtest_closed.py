"""The closed loop of a backtest: the loop itself acts, the system answers, hours pass in seconds.

Answers "what would have become of the system?" with `cycle.plan_of` and the real commit, on a model of the
recorded system or on the built-in plant. Looks are far apart where little can come of them: an open change is
looked at three times a window, not each second, so that harm is seen later here than in the real loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Protocol

import numpy as np

from selftune.backtest_data import Recorded
from selftune.backtest_pool import Say
from selftune.backtest_replay import plain_ids, wait_ms
from selftune.backtest_response import Surface
from selftune.backtest_result import Proposed
from selftune.backtest_story import Story
from selftune.book import HISTORY
from selftune.coarse import Coarse
from selftune.cycle import plan_of
from selftune.guards import pace_s
from selftune.ledger import MemoryLedger
from selftune.picture import Picture
from selftune.plan import Plan
from selftune.quiet import tiles_of
from selftune.records import render, stamp
from selftune.rehearsal import PlantStream
from selftune.runtime import Clock, Root
from selftune.series import Floats, Int64s, Series
from selftune.settings import Settings
from selftune.simulate import Plant

LAG_S = 8.0  # the estimator's own τ0 (effects.md)
BACK = frozenset({"return", "look"})  # ways back, as the commit names them


class System(Protocol):
    """Whatever is tuned: it answers to rule values with samples."""

    def advance(self, values: Mapping[str, float], to_ms: int) -> Series:
        """The samples until `to_ms`, made under these values since the last call."""
        ...


class PlantSystem:
    """The built-in plant."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    def advance(self, values: Mapping[str, float], to_ms: int) -> Series:
        n = self.plant.index_of(to_ms) - self.plant.index_of(self.plant.next_ms)
        if n <= 0:
            return Series.empty(self.plant.spec.names)
        return self.plant.run(dict(values), n).series()


class Shifted:
    """The recorded metrics, moved by what other rule values would have changed: noise and drift stay real."""

    def __init__(self, record: Recorded, surface: Surface, settings: Settings) -> None:
        self._ts, self._surface, self._settings = record.samples.ts_ms, surface, settings
        self._names = record.samples.metrics
        self._base = record.samples.values - self._as_recorded(record)
        self._next = 0
        self._since_ms = record.from_ms
        self._goal = self._from = surface.at(values_at(record, settings, record.from_ms))

    def _as_recorded(self, record: Recorded) -> Floats:
        """The surface under the values that were in force, with its lag. Shape: (metrics, n)."""
        out = np.empty_like(record.samples.values)
        values = values_at(record, self._settings, record.from_ms)
        since, goal = record.from_ms, self._surface.at(values)
        start, a = goal, 0
        for e in [*record.within, None]:
            end = record.to_ms if e is None else e.ts_ms
            b = int(np.searchsorted(self._ts, end))
            out[:, a:b] = _lagged(self._ts[a:b], since, start, goal)
            a = b
            if e is not None and e.rule in values and e.new is not None:
                start = _lagged(np.array([end], np.int64), since, start, goal)[:, 0]
                values[e.rule] = e.new
                since, goal = end, self._surface.at(values)
        return out

    def advance(self, values: Mapping[str, float], to_ms: int) -> Series:
        goal = self._surface.at(values)
        a, b = self._next, int(np.searchsorted(self._ts, to_ms))
        if not np.array_equal(goal, self._goal):
            now = int(self._ts[a]) if a < len(self._ts) else to_ms
            self._from = _lagged(np.array([now], np.int64), self._since_ms, self._from, self._goal)[:, 0]
            self._since_ms, self._goal = now, goal
        self._next = b
        rows = self._base[:, a:b] + _lagged(self._ts[a:b], self._since_ms, self._from, self._goal)
        clipped = {m: self._clip(m, x) for m, x in zip(self._names, rows, strict=True)}
        return Series(ts_ms=self._ts[a:b], values=clipped)

    def _clip(self, metric: str, x: Floats) -> Floats:
        t = self._settings.targets[metric]
        low, high = -np.inf if t.lo is None else t.lo, np.inf if t.hi is None else t.hi
        return np.asarray(np.clip(x, low, high))


def _lagged(ts: Int64s, since_ms: int, start: Floats, goal: Floats) -> Floats:
    """From `start` towards `goal`, first order. Shape: (metrics, n)."""
    left = np.exp(-np.maximum(0, ts - since_ms) / (LAG_S * 1000))
    return np.asarray(goal[:, None] + (start - goal)[:, None] * left)


def values_at(record: Recorded, settings: Settings, ms: int) -> dict[str, float]:
    """The rule values in force at that instant of the record."""
    values = {r.name: r.init for r in settings.rules.values()}
    for e in record.events:
        if e.ts_ms > ms:
            break
        if e.rule in values and e.new is not None:
            values[e.rule] = e.new
    return values


# ----------------------------------------------------------------------------- a life in it
@dataclass
class Lived:
    """What became of the system. Shape: `means` (tiles, metrics), NaN = no data; `values` (tiles, rules)."""

    metrics: tuple[str, ...]
    start_ms: Int64s
    means: Floats
    values: Floats
    steps: list[Proposed] = field(default_factory=list)
    story: Story = field(default_factory=Story)


def lived(
    system: System,
    raw: bytes,
    settings: Settings,
    *,
    start: Mapping[str, float],
    from_ms: int,
    to_ms: int,
    say: Say,
) -> Lived:
    """The loop on this system from one instant to the other, beginning at these rule values."""
    now = [from_ms]
    clock = Clock(wall=lambda: now[0], steady=lambda: now[0])
    ledger = MemoryLedger(
        timezone="UTC", clock=clock.wall, steady=clock.steady, settings=raw, mint=plain_ids()
    )
    for rule, value in start.items():
        if rule in settings.rules and value != settings.rules[rule].init:
            long_ago = stamp(from_ms - 86_400_000, UTC)
            ledger.put(HISTORY, render({"ts": long_ago, "actor": "record", "rule": rule, "new": value}))
    stream = PlantStream(settings.metrics)
    root = Root(Path("."), clock=clock, ledger=ledger, stream=stream)
    story, steps, track = Story(), list[Proposed](), [(from_ms, dict(start))]
    values = dict(start)
    while now[0] < to_ms:
        snap = root.snapshot()
        p = Picture(snap)
        plan = plan_of(p)
        done = root.commit(plan, snap, seen=p)
        _note(story, steps, p, plan)
        if done is not None and any(done.events):
            values.update(_moved(plan))
            track.append((now[0], dict(values)))
        resting = _resting_s(p)
        now[0] = min(to_ms, now[0] + min(round(resting * 1000), wait_ms(p, None, resting=resting)))
        stream.add(system.advance(values, now[0]))
        say((now[0] - from_ms) / (to_ms - from_ms))
    starts = tiles(settings, from_ms, to_ms)
    return Lived(
        metrics=settings.metrics, start_ms=starts, means=tile_means(stream.coarse, settings, starts),
        values=_values_in(track, settings, starts), steps=steps, story=story,
    )  # fmt: skip


def _resting_s(p: Picture) -> float:
    """Longest wait: a third of a window with a change open, a window with one unproven, else the pace."""
    window = p.settings.observe_window_s
    if p.open:
        return window / 3
    return window if p.life.excursion or p.life.look or p.breaches else pace_s(p.settings)


def held(
    system: System, settings: Settings, *, start: Mapping[str, float], from_ms: int, to_ms: int
) -> Lived:
    """The same with nobody at the rules."""
    stream = PlantStream(settings.metrics)
    stream.add(system.advance(start, to_ms))
    starts = tiles(settings, from_ms, to_ms)
    return Lived(
        metrics=settings.metrics, start_ms=starts, means=tile_means(stream.coarse, settings, starts),
        values=_values_in([(from_ms, dict(start))], settings, starts),
    )  # fmt: skip


def _moved(plan: Plan) -> dict[str, float]:
    return {m.rule: m.new for a in plan.acts if a.write for m in a.moves}


def _note(story: Story, steps: list[Proposed], p: Picture, plan: Plan) -> None:
    story.looks += 1
    for why in plan.holds:
        rule = why.params.get("rule")
        story.held(why.code, rule if isinstance(rule, str) else None, why.params)
    for a in plan.acts:
        story.rollbacks += a.act in BACK and a.write and bool(a.moves)
        if a.act == "step" and a.write:
            steps += [
                Proposed(
                    ts_ms=p.snap.now_ms, rule=x.rule, old=x.old, new=x.new, reason=x.reasons[0], followed=True
                )
                for x in a.proposals
            ]


# ----------------------------------------------------------------------------- tiles
def tiles(settings: Settings, from_ms: int, to_ms: int) -> Int64s:
    """Starts of the windows that are scored: one after the other, on whole 10 s, the same for everybody."""
    step = max(10_000, round(settings.observe_window_s * 1000) // 10_000 * 10_000)
    first = -(-from_ms // 10_000) * 10_000
    return np.arange(first, to_ms - step - 10_000, step, dtype=np.int64)


def tile_means(bins: Coarse, settings: Settings, starts: Int64s) -> Floats:
    """Mean of each metric in each tile, NaN below 70 % of its bins. Shape: (tiles, metrics)."""
    if not len(starts) or not len(bins):
        return np.full((len(starts), len(settings.metrics)), np.nan)
    k = max(1, int(starts[1] - starts[0]) // bins.bin_ms) if len(starts) > 1 else 9
    return tiles_of(bins, settings.metrics, starts, k, least=1).mean


def _values_in(track: list[tuple[int, dict[str, float]]], settings: Settings, starts: Int64s) -> Floats:
    """The rule values in force when each tile began. Shape: (tiles, rules)."""
    times = np.array([t for t, _ in track], np.int64)
    rows = np.array([[v[r] for r in settings.rules] for _, v in track], float)
    return np.asarray(rows[np.maximum(0, np.searchsorted(times, starts, side="right") - 1)])
