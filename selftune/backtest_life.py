"""One life of a backtest's candidate: on a response that the record allows, or on the built-in plant.

Answers "what became of the system in that life?". Which response is drawn follows from seed and number
alone, so that every candidate lives through the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from selftune.backtest_closed import Lived, PlantSystem, Shifted, System, held, lived, values_at
from selftune.backtest_data import Handle, Recorded
from selftune.backtest_entries import Entry
from selftune.backtest_pool import Say
from selftune.backtest_response import Response, Surface, learned
from selftune.backtest_score import all_quiet
from selftune.plants import seed_plant
from selftune.series import Floats
from selftune.settings import Settings
from selftune.simulate import Plant


@dataclass(frozen=True, kw_only=True)
class Life:
    """One life to be lived: a candidate (None: nobody acts) under draw number `draw`."""

    draw: int
    entry: Entry | None
    settings: Settings
    seed: int
    from_ms: int
    to_ms: int
    data: Handle | None = None  # None: on the plant

    def system(self) -> tuple[System, dict[str, float]]:
        """What is tuned, and the rule values that it begins at."""
        if self.data is None:
            start = {r.name: r.init for r in self.settings.rules.values()}
            seed = self.seed * 1000 + self.draw
            return PlantSystem(Plant(seed, seed_plant(), start_ms=self.from_ms, values=start)), start
        record = part_of(self.data.get(), self.from_ms, self.to_ms)
        surface = drawn(self.data, self.settings, self.seed, self.draw)
        return Shifted(record, surface, self.settings), values_at(record, self.settings, self.from_ms)


def live(life: Life, say: Say) -> Lived:
    """What became of the system in that life."""
    system, start = life.system()
    span = {"start": start, "from_ms": life.from_ms, "to_ms": life.to_ms}
    if life.entry is None:
        return held(system, life.settings, **span)  # type: ignore[arg-type]
    return lived(system, life.entry.raw, life.entry.settings, say=say, **span)  # type: ignore[arg-type]


def part_of(record: Recorded, from_ms: int, to_ms: int) -> Recorded:
    """The record of that stretch."""
    return replace(record, samples=record.samples.cut(from_ms, to_ms), from_ms=from_ms, to_ms=to_ms)


def drawn(data: Handle, settings: Settings, seed: int, draw: int) -> Surface:
    """Response number `draw` of those that the record allows; 0 is their mean."""
    response = learned_of(data, settings)
    assert response is not None, "asked before"
    if draw == 0:
        return response.drawn()
    chance = np.random.default_rng([seed, draw])
    return response.drawn(chance.standard_normal(response.means.shape))


_kept: dict[tuple[object, str], Response | None] = {}


def learned_of(data: Handle, settings: Settings) -> Response | None:
    """What the whole record teaches; kept in each process, for the lives of one run."""
    key = (data.folder or id(data.record), settings.digest)
    if key not in _kept:
        record = data.get()
        windows = all_quiet(record.bins, record.events, record.regimes_ms, settings, record.samples.series)
        _kept.clear()
        _kept[key] = learned(windows, settings)
    return _kept[key]


@dataclass(frozen=True, kw_only=True)
class Lives:
    """What one candidate came to. Shape: `score` (draws, tiles), NaN = no data; `known` likewise."""

    score: Floats
    known: Floats
    first: Lived | None = None
    changes: float = 0.0
    rollbacks: float = 0.0
