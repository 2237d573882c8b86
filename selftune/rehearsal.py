"""The real loop on a plant, a fake clock and ledgers in memory: hours of tuning in seconds.

Answers "what would the loop do on such a system?" with the same `decide` and the same commit as the
real one; only clock, source and sink differ. For tests, benchmarks and the backtest on a plant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selftune.book import Batch, DecisionDraft, EventDraft
from selftune.coarse import Coarse, CoarseBook
from selftune.ledger import MemoryLedger
from selftune.plan import Plan
from selftune.runtime import Clock, Root
from selftune.series import Series
from selftune.settings import Settings
from selftune.simulate import Plant, Rows

KEEP_S = 1800.0
COARSE_S = 86_400.0


@dataclass
class FakeClock:
    """Two hands that tests move: `wall_ms` may jump, `steady_ms` only goes forward."""

    wall_ms: int
    steady_ms: int

    def pass_s(self, seconds: float) -> None:
        """Real time passes."""
        self.wall_ms += round(seconds * 1000)
        self.steady_ms += round(seconds * 1000)

    @property
    def clock(self) -> Clock:
        return Clock(wall=lambda: self.wall_ms, steady=lambda: self.steady_ms)


class PlantStream:
    """Samples as the plant makes them; stands in for the metrics file."""

    def __init__(self, metrics: tuple[str, ...]) -> None:
        self.metrics = metrics
        self.series = Series.empty(metrics)
        self._book = CoarseBook(metrics, round(COARSE_S * 1000))

    def take(self, rows: Rows) -> None:
        """Add what the plant has written since."""
        self.add(rows.series())

    def add(self, new: Series) -> None:
        """Add samples that follow those at hand."""
        if not len(new):
            return
        ts = np.concatenate([self.series.ts_ms, new.ts_ms])
        values = {m: np.concatenate([self.series.values[m], new.values[m]]) for m in self.metrics}
        self._book.forward(
            ts, np.stack([values[m] for m in self.metrics]), int(ts[-1]), whole=len(self.series) == 0
        )
        start = int(np.searchsorted(ts, ts[-1] - round(KEEP_S * 1000)))
        self.series = Series(ts_ms=ts[start:], values={m: v[start:] for m, v in values.items()})

    def poll(self, now_ms: int) -> Series:
        return self.series

    @property
    def coarse(self) -> Coarse:
        return self._book.coarse


class Rehearsal:
    """One plant, one loop, one story. `plans` holds every plan that wrote something."""

    def __init__(self, plant: Plant, settings_text: bytes, *, start_ms: int) -> None:
        self.plant = plant
        self.fake = FakeClock(wall_ms=start_ms, steady_ms=start_ms)
        self.ledger = MemoryLedger(
            timezone="Asia/Seoul",
            clock=self.fake.clock.wall,
            steady=self.fake.clock.steady,
            settings=settings_text,
        )
        self.stream = PlantStream(tuple(m.name for m in plant.spec.metrics))
        self.root = Root(Path("."), clock=self.fake.clock, ledger=self.ledger, stream=self.stream)
        self.plans: list[Plan] = []
        self.ticks = 0
        self.writing = True

    @property
    def settings(self) -> Settings:
        return self.root.snapshot().settings

    def values(self) -> dict[str, float]:
        """The rule values in force, as the plant sees them."""
        found = dict(self.plant.spec.init)
        for e in self.ledger.read().events:
            if e.new is not None and e.rule in found:
                found[e.rule] = e.new
        return found

    def pass_s(self, seconds: float) -> None:
        """The plant works on, the loop sleeps."""
        self.fake.pass_s(seconds)
        n = self.plant.index_of(self.fake.wall_ms) - self.plant.index_of(self.plant.next_ms) + 1
        if n > 0:
            rows = self.plant.run(self.values(), n)
            if self.writing:
                self.stream.take(rows)

    def run(
        self,
        seconds: float,
        *,
        each: Callable[[Rehearsal, Plan], None] | None = None,
        least_s: float = 0.2,
    ) -> None:
        """The loop runs for so long, waking when its plans say, not before `least_s` (a slow host)."""
        end = self.fake.steady_ms + round(seconds * 1000)
        while self.fake.steady_ms < end:
            plan, _ = self.root.tick()
            self.ticks += 1
            if plan.acts:
                self.plans.append(plan)
            if each is not None:
                each(self, plan)
            left = (end - self.fake.steady_ms) / 1000
            self.pass_s(min(max(plan.next_due_s, least_s), left))

    def foreign(self, rule: str, new: float, *, old: float | None = None, actor: str = "someone") -> str:
        """Another program changes a rule; returns the event's key."""
        draft = DecisionDraft(
            data={"kind": "note"},
            events=(EventDraft(rule=rule, old=old, new=new, kind="change", actor=actor),),
        )
        return self.ledger.commit(Batch(decisions=(draft,)), expect=None).events[0][0]
