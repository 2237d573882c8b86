"""A world for the loop: a plant, people, other programs, bad luck; and what must hold whatever happens.

`World` is a rehearsal whose clock may jump and whose loop may stall; `Chaos` draws what happens from
a seed; `Watchdog` checks the promises of loop.md and F15–F17 after every tick.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selftune import hands
from selftune.book import DECISIONS, HISTORY, RISKS
from selftune.coarse import CoarseBook
from selftune.domain import Decision, Refused, RuleEvent, UnknownId
from selftune.lifecycle import ChangeKind
from selftune.picture import Picture
from selftune.plan import Act, Plan
from selftune.plants import PlantSpec, seed_plant
from selftune.rehearsal import Rehearsal
from selftune.series import Series
from selftune.settings import Settings
from selftune.simulate import Plant, Rows
from tests.stage import LIVE, T0, iso, settings_text, sign

EXEMPT = ("rollback", "restore")  # a way back may be longer than lr


class World(Rehearsal):
    """A rehearsal on the steady clock: the wall may jump, the metrics are stamped by the wall."""

    def __init__(self, spec: PlantSpec | None = None, seed: int = 0, **changes: Any) -> None:
        self.text = settings_text(**{**LIVE, **changes})
        self.bend: Callable[[Rows], Rows] | None = None  # what the way from the plant to us does to its rows
        super().__init__(Plant(seed, spec or seed_plant(), start_ms=T0), self.text.encode(), start_ms=T0)

    @property
    def now(self) -> float:
        """Seconds (steady) since the beginning."""
        return (self.fake.steady_ms - T0) / 1000

    def pass_s(self, seconds: float) -> None:
        self.fake.pass_s(seconds)
        n = self.plant.index_of(self.fake.steady_ms) - self.plant.index_of(self.plant.next_ms) + 1
        if n <= 0:
            return
        rows = self.plant.run(self.values(), n)
        if self.writing:
            ahead = self.fake.wall_ms - self.fake.steady_ms
            stamped = Rows(ts_ms=rows.ts_ms + ahead, values=rows.values, means=rows.means, copies=rows.copies)
            self._take(self.bend(stamped) if self.bend is not None else stamped)

    def _take(self, rows: Rows) -> None:
        """A jump back of the stamps by more than 5 s begins a new epoch; a smaller one is left out."""
        old, new = self.stream.series, rows.series()
        if not len(new):
            return
        newest = old.newest_ms
        if newest is not None and int(new.ts_ms[0]) < newest - 5000:
            self.stream.series = Series.empty(self.stream.metrics)
            self.stream._book = CoarseBook(self.stream.metrics, 86_400_000)
            newest = None
            self._epoch = getattr(self, "_epoch", 0) + 1
            self._epoch_start = int(new.ts_ms[0])
        keep = rows.ts_ms > (newest if newest is not None else -1)
        self.stream.take(
            Rows(ts_ms=rows.ts_ms[keep], values={m: v[keep] for m, v in rows.values.items()},
                 means={m: v[keep] for m, v in rows.means.items()}, copies=rows.copies[keep])
        )  # fmt: skip
        if getattr(self, "_epoch", 0):
            s = self.stream.series
            self.stream.series = Series(ts_ms=s.ts_ms, values=s.values, epoch=self._epoch,
                                        epoch_start_ms=self._epoch_start)  # fmt: skip

    # ---- what may happen
    def write_line(self, **line: Any) -> None:
        """Another program's line in the history."""
        stamp = iso((self.fake.wall_ms - T0) / 1000)
        self.ledger.put(HISTORY, (json.dumps({"ts": stamp, "note": "", **line}) + "\n").encode())

    def others(self, rule: str, new: Any, actor: str = "someone") -> None:
        self.write_line(actor=actor, rule=rule, new=new)

    def crit(self, effect: str = "fire", resolves: str | None = None) -> None:
        """Somebody's critical warning, or the record that closes it."""
        stamp = iso((self.fake.wall_ms - T0) / 1000)
        said = {"severity": "crit", "signal": {}, "note": "test", "effect": effect}
        line = {"ts": stamp, **(said if resolves is None else {"severity": "info", "resolves": resolves})}
        self.ledger.put(RISKS, (json.dumps(line) + "\n").encode())

    def note(self, record: dict[str, Any]) -> None:
        """A decision line as a loop before us would have left it, as of now."""
        events = self.ledger.read().events
        self._notes = getattr(self, "_notes", 0) + 1
        stamp = iso((self.fake.wall_ms - T0) / 1000)
        line = {"v": 1, "ts": stamp, "id": f"note-{self._notes}", "applied": [],
                "after": events[-1].key if events else None, "reasons": [{"code": "test", "params": {}}],
                **record}  # fmt: skip
        self.ledger.put(DECISIONS, (json.dumps(line) + "\n").encode())

    def arm(self, *, changes: int = 50, displacement: float = 50.0, hours: float = 24.0) -> None:
        """A loan, signed."""
        s = self.picture.settings
        until = iso((self.fake.wall_ms - T0) / 1000 + hours * 3600)
        loan = {"changes": changes, "displacement": displacement, "until": until}
        sign(self.ledger, s.digest, loan, self.picture.life.values)

    def settle(self, text: str | None) -> None:
        """Another settings file; None brings the first one back."""
        self.ledger._memory.settings_bytes = (text or self.text).encode()

    def hand(self, wanted: Callable[[Picture], tuple[Act, ...]], actor: str = "kim") -> bool:
        """A person's act; False if it was refused."""
        try:
            self.root.hand(wanted, actor=actor)
        except (Refused, UnknownId):
            return False
        return True

    # ---- what can be asked
    @property
    def picture(self) -> Picture:
        return Picture(self.root.snapshot())

    def decisions(self, kind: str | None = None, act: str | None = None) -> list[Decision]:
        found = self.ledger.read().decisions
        return [d for d in found if (kind is None or d.kind == kind) and (act is None or d.act == act)]

    def steps_since(self, seconds: float) -> list[Decision]:
        """Steps of ours that were written after this instant."""
        return [d for d in self.decisions("cycle", "step") if d.applied and d.at_ms > T0 + seconds * 1000]


@dataclass
class Watchdog:
    """Looks at every tick; any broken promise fails the test with the story's instant in it."""

    world: World
    exact_time: bool = True  # False where the loop stalls: then the hour may be over before it wakes
    seen_events: int = 0
    seen_decisions: int = 0
    values: dict[str, float] = field(default_factory=dict)
    last_at: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    worst_lines_a_tick: int = 0

    def __call__(self, _: Rehearsal, plan: Plan) -> None:
        records = self.world.ledger.read()
        settings = self.world.root.settings_book.take(records.settings, records.version.settings)
        self._decisions(records.decisions[self.seen_decisions :], settings)
        self._events(records.events[self.seen_events :], settings)
        self.worst_lines_a_tick = max(self.worst_lines_a_tick, len(records.decisions) - self.seen_decisions)
        self.seen_events, self.seen_decisions = len(records.events), len(records.decisions)
        self._budget(settings)

    def fail(self, what: str) -> None:
        raise AssertionError(f"at {self.world.now:.0f} s: {what}")

    def _decisions(self, new: list[Decision], settings: Settings) -> None:
        for d in new:
            self.counts[f"{d.kind}/{d.act}"] += 1
            if d.kind != "note" and not d.data.get("reasons"):
                self.fail(f"a decision without a reason: {d.kind}/{d.act}")
            if d.mode == "dry_run" and d.kind == "cycle" and d.applied and d.data.get("cause") != "loan_end":
                self.fail(f"a rule event of the loop in dry run: {d.act} {d.data.get('cause')}")

    def _events(self, new: list[RuleEvent], settings: Settings) -> None:
        by_id = {d.id: d for d in self.world.ledger.read().decisions}
        for e in new:
            if e.rule not in settings.rules:
                continue
            rule, before = settings.rules[e.rule], self.values.get(e.rule, settings.rules[e.rule].init)
            if e.decision is not None:
                d = by_id[e.decision]
                assert e.new is not None
                if e.old != before:
                    self.fail(f"{e.rule}: old {e.old} is not what was in force, {before}")
                if e.new == e.old:
                    self.fail(f"{e.rule}: an event that changes nothing")
                if not rule.min <= e.new <= rule.max and d.act not in ("bound", "emergency"):
                    self.fail(f"{e.rule}: {e.new} is out of bounds ({d.act})")
                if abs(e.new - before) > rule.lr * (1 + 1e-6) and e.kind not in EXEMPT:
                    self.fail(f"{e.rule}: {before} -> {e.new} is more than {rule.lr} ({d.act})")
                age_s = (e.at_ms - self.last_at.get(e.rule, -(10**15))) / 1000
                if d.act in ("step", "apply", "bound") and age_s < settings.cooldown_s - 1e-6:
                    self.fail(f"{e.rule}: again after {age_s} s ({d.act})")
            if e.new is not None:
                self.values[e.rule] = e.new
            self.last_at[e.rule] = e.at_ms

    def _budget(self, settings: Settings) -> None:
        life = self.world.picture.life
        ours = [c for c in life.open if c.kind is ChangeKind.STEP]
        if len(ours) > 1:
            self.fail(f"{len(ours)} steps of ours are open")
        if any(len(c.rules) > settings.max_concurrent_changes for c in ours):
            self.fail("more rules in one change than allowed")
        exc = life.excursion
        if exc is None:
            return
        if len(exc.steps) > settings.excursion.max_steps:
            self.fail(f"{len(exc.steps)} steps from the anchor")
        age_s = (self.world.fake.steady_ms - exc.start_at_ms) / 1000
        slack = 4 * settings.observe_window_s  # blind time and a tick
        if self.exact_time and age_s > settings.excursion.max_s + slack:
            self.fail(f"{age_s} s away from the anchor")
        for rule, (anchor, value) in exc.displaced.items():
            far = settings.excursion.max_steps * settings.rules[rule].lr * (1 + 1e-6)
            if abs(value - anchor) > far:
                self.fail(f"{rule}: {value} is more than {far} from {anchor}")


@dataclass
class Chaos:
    """Things happen, one every `mean_s` on average; equal seeds give equal worlds."""

    world: World
    seed: int
    mean_s: float = 240.0
    kinds: tuple[str, ...] = (
        "foreign", "foreign", "outside", "null", "same", "unknown", "rollback", "apply", "stop", "resume",
        "release", "gap", "jump", "stall", "crit", "resolve", "broken", "mended", "suggestions",
    )  # fmt: skip
    log: list[str] = field(default_factory=list)
    next_s: float = 0.0
    gap_until: float = 0.0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.next_s = self.rng.exponential(self.mean_s)

    def __call__(self, _: Rehearsal, plan: Plan) -> None:
        now = self.world.now
        self.world.writing = now >= self.gap_until
        if now < self.next_s:
            return
        self.next_s = now + self.rng.exponential(self.mean_s)
        kind = str(self.rng.choice(list(self.kinds)))
        self.log.append(f"{now:.0f} {kind}")
        getattr(self, f"_{kind}")()

    def calm(self) -> None:
        """Everything that a person can put right is put right, and nothing happens any more."""
        self.next_s, self.gap_until = float("inf"), 0.0
        w = self.world
        w.writing = True
        w.settle(None)
        w.crit(resolves="fire")
        w.hand(lambda p: hands.resume(p, actor="kim", role="operator", reason="calm"))
        for rule in w.picture.settings.rules:
            w.hand(lambda p, r=rule: hands.release(p, r, actor="kim", reason="calm"))  # type: ignore[misc]

    def _rule(self) -> str:
        return str(self.rng.choice(["risk_max", "creative_min"]))

    def _foreign(self) -> None:
        self.world.others(self._rule(), round(float(self.rng.uniform(0.22, 0.34)), 3))

    def _outside(self) -> None:
        self.world.others(self._rule(), round(float(self.rng.uniform(0.1, 0.5)), 4))

    def _null(self) -> None:
        self.world.others(self._rule(), self.rng.choice([None, "much", "NaN"]))

    def _same(self) -> None:
        rule = self._rule()
        self.world.others(rule, self.world.picture.life.values[rule])

    def _unknown(self) -> None:
        self.world.others("nobody_knows", 1.0)

    def _rollback(self) -> None:
        self.world.hand(lambda p: hands.rollback(p, actor="kim", reason="chaos"))

    def _apply(self) -> None:
        found = self.world.picture.life.suggestions
        if found:
            self.world.hand(lambda p: hands.apply(p, found[-1].id, actor="kim", reason="chaos"))

    def _suggestions(self) -> None:
        """Dry run by an edit of the file, or back."""
        locked = self.world.picture.settings.dry_run
        self.world.settle(None if locked else self.world.text.replace("dry_run: false", "dry_run: true"))

    def _stop(self) -> None:
        self.world.hand(lambda p: hands.stop(p, actor="kim", role="operator", reason="chaos"))

    def _resume(self) -> None:
        self.world.hand(lambda p: hands.resume(p, actor="kim", role="operator", reason="chaos"))

    def _release(self) -> None:
        self.world.hand(lambda p: hands.release(p, self._rule(), actor="kim", reason="chaos"))

    def _gap(self) -> None:
        self.gap_until = self.world.now + float(self.rng.choice([2, 10, 100, 400]))
        self.world.writing = False

    def _jump(self) -> None:
        self.world.fake.wall_ms += int(self.rng.choice([-3600_000, -60_000, -4_000, 3_000, 60_000, 3600_000]))

    def _stall(self) -> None:
        self.world.pass_s(float(self.rng.choice([10, 60, 400, 2000])))

    def _crit(self) -> None:
        self.world.crit()

    def _resolve(self) -> None:
        self.world.crit(resolves="fire")
        self._resume()

    def _broken(self) -> None:
        self.world.settle("targets: [")

    def _mended(self) -> None:
        self.world.settle(None)


def both(*each: Callable[[Rehearsal, Plan], None]) -> Callable[[Rehearsal, Plan], None]:
    """One callback of several."""

    def call(r: Rehearsal, plan: Plan) -> None:
        for f in each:
            f(r, plan)

    return call
