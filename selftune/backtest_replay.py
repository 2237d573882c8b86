"""Replay: one candidate walks through the record on a fake clock and says what it would have proposed.

Answers "what did it want, look by look?". Runs `cycle.plan_of` and the real commit, into memory. The values
in force are the record's. At each instant the candidate is handed the rows and events before it, no more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC
from itertools import pairwise
from pathlib import Path

from selftune.backtest_data import Handle, Recorded
from selftune.backtest_entries import Entry
from selftune.backtest_pool import Say, spread
from selftune.backtest_result import Outcome
from selftune.backtest_score import choices, outcome, seen_windows
from selftune.backtest_story import Story, Wanted
from selftune.book import HISTORY
from selftune.coarse import BIN_MS, LATE_MS, Coarse
from selftune.cycle import plan_of
from selftune.domain import RuleEvent
from selftune.effects import history_s_of, measured_ahead
from selftune.guards import pace_s
from selftune.health import pace_of
from selftune.ledger import MemoryLedger
from selftune.picture import Picture
from selftune.plan import Plan, Snapshot
from selftune.quiet import LOOK_BACK_S
from selftune.records import render, sha256, stamp
from selftune.rehearsal import COARSE_S, KEEP_S
from selftune.runtime import Clock, Root
from selftune.series import Series
from selftune.settings import Settings

REST_S = 5.0  # never more often than the loop itself looks when nothing is open
SPAN_S, SPAN_EVENTS = 16 * 3600.0, 120  # a stretch walked in one go has at least so much of both
WATCH_S, WATCH_EVENTS = 1800.0, 6  # before it begins: so far back changes are judged, to have their lessons
LONG_RESTS = 4  # of the longest wait, where guards say until when
AT_ONCE = 6  # changes measured together: more of them leave the processor's cache
AFTER_MS = 1000  # a window is looked at once a sample behind its end proves it whole


class Film:
    """The record as a stream of samples that ends at the present instant, and never knows what follows."""

    def __init__(self, record: Recorded) -> None:
        self._samples, self._bins = record.samples, record.bins
        self._now = record.from_ms

    def poll(self, now_ms: int) -> Series:
        self._now = now_ms
        return self._samples.series(now_ms - round(KEEP_S * 1000), now_ms + 1)

    @property
    def coarse(self) -> Coarse:
        """The bins that were closed by now, of the last day."""
        until = (self._now - LATE_MS) // BIN_MS * BIN_MS
        return self._bins.between(until - round(COARSE_S * 1000), until)


class Walk:
    """One candidate on its way through the record."""

    def __init__(self, record: Recorded, raw: bytes, *, start_ms: int) -> None:
        self.now_ms = start_ms
        self._record = record
        clock = Clock(wall=lambda: self.now_ms, steady=lambda: self.now_ms)
        self.ledger = MemoryLedger(
            timezone="UTC", clock=clock.wall, steady=clock.steady, settings=raw, mint=plain_ids()
        )
        self.root = Root(Path("."), clock=clock, ledger=self.ledger, stream=Film(record))
        back = round(LOOK_BACK_S * pace_of(self.root.settings_book.take(raw, sha256(raw))) * 1000)
        self._events = known_from(record.events, start_ms - back)
        self._next = self._measured = 0

    def look(self) -> tuple[Picture, Plan]:
        """One cycle at the present instant; what it writes goes into memory."""
        while self._next < len(self._events) and self._events[self._next].ts_ms <= self.now_ms:
            self.ledger.put(HISTORY, _line(self._events[self._next]))
            self._next += 1
        snap = self.root.snapshot()
        self._measure(snap)
        p = Picture(snap)
        plan = plan_of(p)
        self.root.commit(plan, snap, seen=p)
        return p, plan

    def _measure(self, snap: Snapshot) -> None:
        """When a window is over, it and the next ones are measured together: the same numbers for less work.

        Whoever asks is answered from what its own rows and events would give, or measures for itself.
        """
        s, events = snap.settings, self._events
        window_ms = round(s.observe_window_s * 1000)
        back_ms = round((history_s_of(s) + s.settle_s) * 1000) + window_ms
        while self._measured < len(events) and events[self._measured].ts_ms < self.now_ms - 2 * window_ms:
            self._measured += 1  # nobody asks any more
        at = self._measured
        if at == len(events) or events[at].ts_ms > self.now_ms - window_ms:
            return
        now = events[at : at + AT_ONCE]
        self._measured += len(now)
        first_ms, end_ms = now[0].ts_ms - back_ms, now[-1].ts_ms + window_ms
        times = [e.ts_ms for e in events]
        near = events[bisect_left(times, first_ms) : bisect_right(times, end_ms)]
        others = {e.ts_ms: [o.ts_ms for o in near if o.key != e.key] for e in now}
        film = self._record.samples.series(first_ms, end_ms + AFTER_MS)
        snap.memo.keep("measured", measured_ahead(film, s, others))

    @property
    def next_event_ms(self) -> int | None:
        """When the record goes on: a wake-up call for the walk, never shown to the candidate."""
        return self._events[self._next].ts_ms if self._next < len(self._events) else None


def plain_ids() -> Callable[[int], str]:
    """Ids that are the same in every run: what a candidate does must not depend on chance."""
    count = 0

    def mint(ms: int) -> str:
        nonlocal count
        count += 1
        return f"B{ms:013d}{count:012d}"

    return mint


def known_from(events: Sequence[RuleEvent], start_ms: int) -> list[RuleEvent]:
    """Of each rule the last event before the start (its value), then all since."""
    first = bisect_left(events, start_ms, key=lambda e: e.ts_ms)
    before = {e.rule: e for e in events[:first] if e.new is not None}
    return [*sorted(before.values(), key=lambda e: e.ts_ms), *events[first:]]


def _line(e: RuleEvent) -> bytes:
    """The event as another's: who made it is no matter, what it did is measured and judged like any."""
    data: dict[str, object] = {"ts": stamp(e.ts_ms, UTC), "actor": "record", "rule": e.rule, "new": e.new}
    if e.old is not None:
        data["old"] = e.old
    return render(data)


# ----------------------------------------------------------------------------- one stretch of it
@dataclass(frozen=True, kw_only=True)
class Leg:
    """One stretch [from, to) of the record for one candidate; from `watch_ms` on it judges changes."""

    data: Handle
    raw: bytes
    watch_ms: int
    from_ms: int
    to_ms: int


def legs(data: Handle, raw: bytes, settings: Settings) -> list[Leg]:
    """The record in stretches that follow from the record alone, not from how many work at them.

    A cycle looks back six hours; what lies further back weighs on a candidate only as rule values.
    """
    record, pace = data.get(), pace_of(settings)
    times = [e.ts_ms for e in record.events]
    edges = [record.from_ms]
    while edges[-1] < record.to_ms:
        at = bisect_left(times, edges[-1]) + SPAN_EVENTS
        busy = times[at] if at < len(times) else record.to_ms
        edges.append(min(record.to_ms, max(busy, edges[-1] + round(SPAN_S * pace * 1000))))
    return [
        Leg(data=data, raw=raw, watch_ms=_watch_from(record, times, a, pace), from_ms=a, to_ms=b)
        for a, b in pairwise(edges)
    ]


def _watch_from(record: Recorded, times: Sequence[int], start_ms: int, pace: float) -> int:
    at = bisect_left(times, start_ms) - WATCH_EVENTS
    few = times[at] if at >= 0 else record.from_ms
    return max(record.from_ms, min(few, start_ms - round(WATCH_S * pace * 1000)))


def walked(leg: Leg, say: Say) -> Story:
    """What the candidate wanted, look by look, in this stretch."""
    record, story = leg.data.get(), Story()
    walk = Walk(record, leg.raw, start_ms=leg.watch_ms)
    while walk.now_ms < leg.to_ms:
        p, plan = walk.look()
        warming = walk.now_ms < leg.from_ms
        if not warming:
            note(story, p, plan)
        wait = wait_ms(p, walk.next_event_ms, resting=None if warming else pace_s(p.settings))
        after = walk.now_ms + wait
        walk.now_ms = leg.from_ms if warming and after > leg.from_ms else after
        say((walk.now_ms - leg.watch_ms) / max(1, leg.to_ms - leg.watch_ms))
    return story


def note(story: Story, p: Picture, plan: Plan) -> None:
    """Put one look into the story."""
    now, story.looks = p.snap.now_ms, story.looks + 1
    steps = [x for a in plan.acts if a.act == "step" for x in a.proposals]
    story.rollbacks += sum(a.act == "propose_rollback" for a in plan.acts)
    for why in plan.holds:
        rule = why.params.get("rule")
        story.held(why.code, rule if isinstance(rule, str) else None, why.params)
    for x in steps:
        story.want(Wanted(ts_ms=now, rule=x.rule, old=x.old, new=x.new, reason=x.reasons[0], fresh=True))
    if not steps and plan.holds:
        story.want(Wanted(ts_ms=now))


def wait_ms(p: Picture, next_event_ms: int | None, *, resting: float | None) -> int:
    """How long nothing can come of a look: until a window ends or the guards let go, else `resting` s."""
    now, settings = p.snap.clock_ms, p.settings
    window = round(settings.observe_window_s * 1000)
    wake = 2**60 if resting is None else _free_ms(p, resting)
    if next_event_ms is not None and next_event_ms < wake:
        wake = next_event_ms + window + AFTER_MS  # until it is judged nothing else can be said
    for change in p.open:
        end = change.at_ms + window + AFTER_MS
        wake = min(wake, end if end > now else now + window // 3)
    return max(round(REST_S * p.pace * 1000), wake - now)


def _free_ms(p: Picture, resting: float) -> int:
    """When the last of the guards that hold now lets go; where one names no time: after `resting`."""
    now, rest = p.snap.clock_ms, round(resting * 1000)
    held = [c.until_ms for c in p.checks if not c.passed]
    known = [t for t in held if t is not None]
    if not known or len(known) < len(held):
        return now + rest
    return now + min(LONG_RESTS * rest, max(known) - p.snap.now_ms + AFTER_MS)


def told(stories: Sequence[Story]) -> Story:
    """The stretches as one story; a proposal that went on over a border is one."""
    whole = Story()
    for s in stories:
        whole.add(s)
    return whole


# ----------------------------------------------------------------------------- all of them
def replay_all(data: Handle, found: list[Entry], executor: Executor | None, say: Say) -> list[Outcome]:
    """The outcome of each, in their order."""
    per = [legs(data, e.raw, e.settings) for e in found]
    stories = iter(spread(walked, [leg for group in per for leg in group], executor, say))
    record, outcomes = data.get(), []
    for e, group in zip(found, per, strict=True):
        story = told([next(stories) for _ in group])
        seen = seen_windows(record.bins, record.events, record.regimes_ms, e.settings, record.samples.series)
        outcomes.append(outcome(e.who, seen, story, choices(seen, ())))
    return outcomes
