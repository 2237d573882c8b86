"""The backtest: `cycle.plan_of` itself on a fake clock, against the record (later: a model, a plant).

Answers "what would this policy, under these settings, have proposed, when, and what followed where the
record can tell?". Never a second copy of the logic, never a look ahead: at each instant the candidate is
handed the rows and events before it and nothing else. Deterministic: no clock, no id, no core count in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from selftune import __version__
from selftune.backtest_data import BIN_MS, Recorded, read_record
from selftune.backtest_request import Baseline, Candidate, Mode, Request
from selftune.backtest_result import Outcome, Result
from selftune.backtest_score import Ledger, choices, outcome, seen_windows
from selftune.backtest_story import Story, Wanted
from selftune.book import HISTORY
from selftune.coarse import LATE_MS, Coarse
from selftune.config import edit, parse
from selftune.cycle import plan_of
from selftune.domain import PolicyName, RuleEvent
from selftune.guards import pace_s
from selftune.ledger import MemoryLedger
from selftune.picture import Picture
from selftune.plan import Plan
from selftune.records import render, stamp
from selftune.rehearsal import COARSE_S, KEEP_S
from selftune.runtime import Clock, Root
from selftune.series import Series
from selftune.settings import Settings

REST_S = 5.0  # never more often than the loop itself looks when nothing is open


def variant(text: str, *, policy: PolicyName | None, live: bool = False) -> tuple[bytes, Settings]:
    """The settings' bytes as a backtest runs them, and what they mean. Raises: SettingsError.

    `live`: the loop itself acts (on a plant or a model); else it proposes only.
    """
    changes: dict[str | tuple[str, ...], float | bool | int | str | None] = {"strategy.dry_run": not live}
    if live:
        changes["governance.approvals_required"] = 0
    if policy is not None:
        changes["strategy.policy"] = policy.value
    raw = edit(text, changes).encode("utf-8")
    return raw, parse(raw)


# ----------------------------------------------------------------------------- the past as a stream
class Film:
    """The record as a stream of samples that ends at the present instant, and never knows what follows."""

    def __init__(self, record: Recorded, bins: Coarse) -> None:
        self._samples, self._bins = record.samples, bins
        self._now = record.from_ms

    def poll(self, now_ms: int) -> Series:
        self._now = now_ms
        return self._samples.series(now_ms - round(KEEP_S * 1000), now_ms + 1)

    @property
    def coarse(self) -> Coarse:
        """The bins that were closed by now, of the last day."""
        until = (self._now - LATE_MS) // BIN_MS * BIN_MS
        return self._bins.between(until - round(COARSE_S * 1000), until)


class Replay:
    """One candidate walks through the record. The values in force are the record's; it only proposes."""

    def __init__(self, record: Recorded, bins: Coarse, raw: bytes, *, start_ms: int) -> None:
        self.now_ms = start_ms
        clock = Clock(wall=lambda: self.now_ms, steady=lambda: self.now_ms)
        self.ledger = MemoryLedger(
            timezone="UTC", clock=clock.wall, steady=clock.steady, settings=raw, mint=_ids()
        )
        self.root = Root(Path("."), clock=clock, ledger=self.ledger, stream=Film(record, bins))
        self._events = list(_known(record.events, start_ms))
        self._next = 0

    def look(self) -> tuple[Picture, Plan]:
        """One cycle at the present instant; what it writes goes into memory."""
        while self._next < len(self._events) and self._events[self._next].ts_ms <= self.now_ms:
            self.ledger.put(HISTORY, _line(self._events[self._next]))
            self._next += 1
        snap = self.root.snapshot()
        p = Picture(snap)
        plan = plan_of(p)
        self.root.commit(plan, snap)
        return p, plan

    @property
    def next_event_ms(self) -> int | None:
        return self._events[self._next].ts_ms if self._next < len(self._events) else None


def _known(events: tuple[RuleEvent, ...], start_ms: int) -> Iterator[RuleEvent]:
    """Of each rule the last event before the start (its value), then all since."""
    before = {e.rule: e for e in events if e.ts_ms < start_ms and e.new is not None}
    yield from sorted(before.values(), key=lambda e: e.ts_ms)
    yield from (e for e in events if e.ts_ms >= start_ms)


def _line(e: RuleEvent) -> bytes:
    """The event as another's: who made it is no matter, what it did is measured and judged like any."""
    data: dict[str, object] = {"ts": _utc(e.ts_ms), "actor": "record", "rule": e.rule, "new": e.new}
    if e.old is not None:
        data["old"] = e.old
    return render(data)


def _utc(ms: int) -> str:
    return stamp(ms, UTC)


def _ids() -> Callable[[int], str]:
    """Ids that are the same in every run: what a candidate does must not depend on chance."""
    count = 0

    def mint(ms: int) -> str:
        nonlocal count
        count += 1
        return f"B{ms:013d}{count:012d}"

    return mint


def replay(
    record: Recorded, raw: bytes, *, bins: Coarse | None = None, say: Callable[[float], None] = lambda _: None
) -> Story:
    """What the candidate wanted, look by look, over the whole record."""
    bins = record.samples.coarse() if bins is None else bins
    story = Story()
    walk = Replay(record, bins, raw, start_ms=record.from_ms)
    while walk.now_ms < record.to_ms:
        p, plan = walk.look()
        _note(story, p, plan)
        walk.now_ms += _wait_ms(p, plan)
        say(min(1.0, (walk.now_ms - record.from_ms) / max(1, record.to_ms - record.from_ms)))
    return story


def _note(story: Story, p: Picture, plan: Plan) -> None:
    story.looks += 1
    now = p.snap.now_ms
    steps = [x for a in plan.acts if a.act == "step" for x in a.proposals]
    story.rollbacks += sum(a.act == "propose_rollback" for a in plan.acts)
    for why in plan.holds:
        rule = why.params.get("rule")
        key = (why.code, rule if isinstance(rule, str) else None)
        story.holds[key] += 1
        story.examples.setdefault(key, why.params)
    for x in steps:
        before = story.wanted[-1] if story.wanted else None
        same = before is not None and (before.rule, before.old, before.new) == (x.rule, x.old, x.new)
        story.wanted.append(
            Wanted(ts_ms=now, rule=x.rule, old=x.old, new=x.new, reason=x.reasons[0], fresh=not same)
        )
    if not steps and plan.holds:
        story.wanted.append(Wanted(ts_ms=now))


def _wait_ms(p: Picture, plan: Plan) -> int:
    """How long nothing can come of a look: until a window ends or a guard lets go, at most one pace."""
    now, settings = p.snap.clock_ms, p.settings
    waits = [pace_s(settings) * 1000]
    for change in p.open:
        end = change.at_ms + settings.observe_window_s * 1000 + 1000
        waits.append(end - now if end > now else settings.observe_window_s * 1000 / 3)
    for check in p.checks:
        if not check.passed and check.until_ms is not None:
            waits.append(check.until_ms - p.snap.now_ms + 1)
    least = REST_S * p.pace * 1000
    return max(1, round(max(least, min(waits))))


# ----------------------------------------------------------------------------- the whole run
def run(root: Path, request: Request, say: Callable[[float], None] = lambda _: None) -> Result:
    """The answer to the request, whose candidates carry their text. Raises: InputError, SettingsError."""
    return _replayed(root, request, say)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One candidate or baseline, ready to run."""

    who: Ledger
    raw: bytes
    settings: Settings


def _share_of(say: Callable[[float], None], start: float, part: float) -> Callable[[float], None]:
    """`say` for one part of the work, which begins at `start` of the whole."""
    return lambda x: say(start + part * x)


def entries(request: Request) -> list[Entry]:
    """The candidates, then the baselines under the first candidate's settings."""
    found = [_entry(c, "candidate") for c in request.candidates]
    first = request.candidates[0]
    for b in request.against:
        policy = {Baseline.NONE: PolicyName.NONE, Baseline.HEURISTIC: PolicyName.HEURISTIC}.get(b)
        found.append(_entry(Candidate(name=b.value, policy=policy, text=first.text), b.value))
    return found


def _entry(c: Candidate, role: str) -> Entry:
    assert c.text is not None, "prepare() gave it one"
    given = parse(c.text)
    raw, settings = variant(c.text, policy=c.policy)
    who = Ledger(name=c.name, role=role, policy=settings.policy.value, config=given.digest)
    return Entry(who=who, raw=raw, settings=settings)


def _replayed(root: Path, request: Request, say: Callable[[float], None]) -> Result:
    found = entries(request)
    first = found[0].settings
    record = read_record(
        root, first, from_ms=request.from_ms, to_ms=request.to_ms, say=_share_of(say, 0.0, 0.2)
    )
    bins = record.samples.coarse()
    outcomes: list[Outcome] = []
    n = len(found)
    for k, e in enumerate(found):
        story = replay(record, e.raw, bins=bins, say=_share_of(say, 0.2 + 0.8 * k / n, 0.8 / n))
        seen = seen_windows(bins, record.events, record.regimes_ms, e.settings)
        outcomes.append(outcome(e.who, seen, story, choices(seen, ())))
    return Result(
        mode=Mode.REPLAY.value, data_sha256=record.digest(), config=found[0].who.config, version=__version__,
        seed=request.seed, from_ms=record.from_ms, to_ms=record.to_ms, rows=len(record.samples),
        events=len(record.within), outcomes=tuple(outcomes),
    )  # fmt: skip
