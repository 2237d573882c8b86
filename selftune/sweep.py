"""The evidence sweep: rows, quotes and warnings of rule events that nobody has written yet.

Answers "is the evidence of every event on record?" and writes what is missing, once, when final. The
loop calls it after each commit and now and then; the command `effects` calls it by hand. Never decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from selftune.book import Batch, Records
from selftune.catalogue import load
from selftune.domain import Decision, Effect, JsonDict, Reason, RuleEvent, Verdict, VerdictReport
from selftune.effect_record import recorded
from selftune.effects import history_s_of, measure
from selftune.evidence import effect_row, quote, warning
from selftune.judging import judge_step
from selftune.lifecycle import Change
from selftune.picture import Picture
from selftune.plan import Snapshot
from selftune.runtime import Root
from selftune.samples import SampleStream, read_around
from selftune.series import Series
from selftune.source import Unavailable
from selftune.watch import named_metric

RECENT_MS = 24 * 3600 * 1000  # contract.md: without --all, events of the last day before the newest sample
DEADLINE_WINDOWS = 3  # effects.md, stale: at t + 3R an event that could not be measured is final
AFTER_SLACK_S = 5.0  # read a little beyond the window: a sample behind its end proves that it is whole
CHUNK = 200  # events a commit, so that a long catch-up is on disk piece by piece


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What one sweep did. `waiting`: event keys whose window is still open. `skipped`: count by reason.

    `no_data`: there is not one sample to measure with. `unknown_header`: rows cannot be appended.
    """

    looked_at: int = 0
    rows: int = 0
    quotes: int = 0
    warnings: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    unknown_header: bool = False
    no_data: bool = False

    def as_json(self) -> JsonDict:
        """The summary that `effects` prints."""
        return {
            "events": self.looked_at,
            "written": {"rows": self.rows, "quotes": self.quotes, "warnings": self.warnings},
            "verdicts": dict(self.verdicts),
            "waiting": list(self.waiting),
            "skipped": dict(self.skipped),
            "unknown_header": self.unknown_header,
            "no_data": self.no_data,
        }


@dataclass
class _Memory:
    """What a root's earlier sweeps settled, so that one without news costs next to nothing."""

    settled: set[str] = field(default_factory=set)
    rows: set[tuple[int, str]] = field(default_factory=set)
    rows_read: int = 0


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """One event with its final verdict; `effect` None: nothing could be measured."""

    event: RuleEvent
    effect: Effect | None
    report: VerdictReport


_MEMORY: WeakKeyDictionary[Root, _Memory] = WeakKeyDictionary()


def sweep(root: Root, *, everything: bool = False) -> SweepReport:
    """Write what is missing and say what was done.

    `everything`: all events, not just those of the last day. Raises: SettingsError, LockHeld,
    StorageError.
    """
    snap = root.snapshot()
    newest = snap.series.newest_ms
    if newest is None:
        return SweepReport(no_data=True, unknown_header=not snap.records.effects_known)
    return _Sweep(root, snap, newest, everything, _MEMORY.setdefault(root, _Memory())).run()


class _Sweep:
    """One sweep over one snapshot."""

    def __init__(self, root: Root, snap: Snapshot, newest: int, everything: bool, memory: _Memory) -> None:
        self.root, self.snap, self.newest, self.memory = root, snap, newest, memory
        self.everything = everything
        self.settings = snap.settings
        self.picture = Picture(snap)
        self.window_ms = round(self.settings.observe_window_s * 1000)
        self.others: Sequence[RuleEvent] = tuple(snap.records.events)
        self.verdicts = _verdicts(snap.records)
        self.skipped: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.wrote: Counter[str] = Counter()
        self.waiting: list[str] = []

    def run(self) -> SweepReport:
        """Everything that is due, measured, judged and written."""
        missing = self._missing()
        chunk: list[_Judged] = []
        for judged in self._judge(missing):
            chunk.append(judged)
            if len(chunk) >= CHUNK:
                self._write(chunk)
                chunk = []
        self._write(chunk)
        return SweepReport(
            looked_at=len(missing),
            rows=self.wrote["rows"],
            quotes=self.wrote["quotes"],
            warnings=self.wrote["warnings"],
            verdicts=dict(self.found),
            waiting=tuple(self.waiting),
            skipped=dict(self.skipped),
            unknown_header=not self.snap.records.effects_known,
        )

    # ------------------------------------------------------------------------ what is missing
    def _missing(self) -> list[RuleEvent]:
        """Events that no earlier sweep settled and whose evidence may be incomplete."""
        self._remember_rows()
        since = -(2**62) if self.everything else self.newest - RECENT_MS
        found = []
        for e in self.others:
            if e.ts_ms < since or e.key in self.memory.settled:
                continue
            # Our row is written after its quote and warning, so with it nothing is missing. Where the
            # family's tracker wrote the row, sentence and warning are still ours to write.
            if (e.ts_ms, e.rule) in self.memory.rows:
                self.memory.settled.add(e.key)
            else:
                found.append(e)
        return found

    def _remember_rows(self) -> None:
        rows, m = self.snap.records.effect_rows, self.memory
        if len(rows) < m.rows_read:  # the file was replaced
            m.rows, m.rows_read, m.settled = set(), 0, set()
        for row in rows[m.rows_read :]:
            if row.verdict is not None:
                m.rows.add(row.key)
        m.rows_read = len(rows)

    # ------------------------------------------------------------------------ measured and judged
    def _judge(self, missing: Sequence[RuleEvent]) -> Iterator[_Judged]:
        """Each event that is final, with its verdict; a recorded one first, the rest in one pass."""
        todo: dict[int, list[tuple[RuleEvent, Change | None]]] = {}
        for e in missing:
            if e.key in self.verdicts:
                yield self._done(e, *recorded(self.verdicts[e.key]))
                continue
            change = self.picture.life.change_of(e.key)
            start = change.window_from_ms if change is not None else e.ts_ms
            if self.newest < start + self.window_ms and not self._past_deadline(start):
                self.waiting.append(e.key)
                continue
            todo.setdefault(start, []).append((e, change))
        for start, series in self._samples(sorted(todo)):
            for e, change in todo.pop(start, ()):
                judged = self._measured(e, change, start, series)
                if judged is not None:
                    yield judged

    def _past_deadline(self, start: int) -> bool:
        return self.snap.now_ms >= start + DEADLINE_WINDOWS * self.window_ms

    def _measured(self, e: RuleEvent, change: Change | None, start: int, series: Series) -> _Judged | None:
        if e.new is None:  # no number was written: nothing moved, so nothing can have had an effect
            why = Reason("sweep.no_value", {"rule": e.rule, "found": e.raw_new})
            return self._done(e, None, VerdictReport(verdict=Verdict.INCONCLUSIVE, reasons=(why,)))
        keys = change.keys if change is not None else (e.key,)
        effect = measure(
            series,
            self.settings,
            event_ms=start,
            keys=keys,
            others_ms=tuple(o.ts_ms for o in self.others if o.key not in keys),
            now_ms=self.snap.now_ms,
        )
        named = named_metric(self.picture, change) if change is not None else None
        report = judge_step(effect, self.settings, named=named)
        if effect.final:
            return self._done(e, effect, report)
        if not self._past_deadline(start):
            self.waiting.append(e.key)
            return None
        if not len(series):  # the samples of that time are gone: nothing was seen, nothing is claimed
            self.skipped["no_samples"] += 1
            self.memory.settled.add(e.key)
            return None
        return self._done(e, None, VerdictReport(verdict=Verdict.INCONCLUSIVE, reasons=report.reasons))

    def _done(self, e: RuleEvent, effect: Effect | None, report: VerdictReport) -> _Judged:
        self.found[report.verdict.value] += 1
        return _Judged(event=e, effect=effect, report=report)

    def _samples(self, instants: Sequence[int]) -> Iterator[tuple[int, Series]]:
        """The samples around each instant: from memory where they reach, else one pass over the file."""
        before_ms = round(history_s_of(self.settings) * 1000)
        series, stream = self.snap.series, self.root.stream
        oldest = int(series.ts_ms[0])
        on_disk = isinstance(stream, SampleStream)
        far = [t for t in instants if on_disk and t - before_ms < oldest]
        if far:
            yield from self._from_file(far, before_ms / 1000)
        for t in instants:
            if t not in far:
                yield t, series

    def _from_file(self, instants: Sequence[int], before_s: float) -> Iterator[tuple[int, Series]]:
        s = self.settings
        try:
            yield from read_around(
                self.root.path / s.metrics_source,
                instants,
                before_s=before_s,
                after_s=s.observe_window_s + AFTER_SLACK_S,
                metrics=s.metrics,
                ranges={m: (t.lo, t.hi) for m, t in s.targets.items()},
                timezone=s.timezone,
            )
        except Unavailable:
            self.skipped["unreadable"] += len(instants)

    # ------------------------------------------------------------------------ written
    def _write(self, chunk: Sequence[_Judged]) -> None:
        if not chunk:
            return
        words, settings = load(), self.settings
        quotes, warnings, rows = [], [], []
        for j in sorted(chunk, key=lambda j: j.event.ts_ms):  # readers take the last row for the newest
            rows.append(effect_row(j.event, j.effect, j.report, self.root.zone))
            if j.effect is None:
                continue
            if j.report.verdict is Verdict.IMPROVED:
                found = quote(j.event, j.effect, j.report, settings, words)
                quotes += [found] if found is not None else []
            risk = warning(j.event, j.effect, j.report, settings, words)
            warnings += [risk] if risk is not None else []
        batch = Batch(quotes=tuple(quotes), warnings=tuple(warnings), effect_rows=tuple(rows))
        self._count(self.root.ledger.commit(batch, expect=None).skipped, batch)
        self.memory.settled.update(j.event.key for j in chunk)

    def _count(self, skipped: Sequence[str], batch: Batch) -> None:
        late = Counter(s.split(":", 1)[0] for s in skipped)
        if late.pop("unknown_header", 0):
            late["row"] += len(batch.effect_rows)
        self.wrote["rows"] += len(batch.effect_rows) - late["row"]
        self.wrote["quotes"] += len(batch.quotes) - late["quote"]
        self.wrote["warnings"] += len(batch.warnings) - late["warning"]


# ----------------------------------------------------------------------------- verdicts on record
def _verdicts(records: Records) -> dict[str, Decision]:
    """Event key -> the decision that judged it."""
    return {
        str(key): d
        for d in records.decisions
        if d.kind == "verdict" and d.act == "evaluate"
        for key in d.data.get("keys") or ()
    }


__all__ = ["SweepReport", "sweep"]
