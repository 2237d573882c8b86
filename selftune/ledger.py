"""The append-only files as one ledger: read what is new, commit one batch under the lock.

Answers "what do the files say?" and "write this if nothing moved". Never decides anything.
The rationale is on disk before the rule moves: decisions, then events, then evidence.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, tzinfo
from pathlib import Path
from threading import RLock
from typing import Protocol
from zoneinfo import ZoneInfo

from ulid import ULID

from selftune import effectrows, records
from selftune.book import (
    APPROVALS,
    DECISIONS,
    EFFECTS,
    HISTORY,
    QUOTES,
    RISKS,
    VERSIONED,
    Batch,
    Chain,
    Committed,
    DecisionDraft,
    EffectRow,
    EventDraft,
    Missing,
    Orphan,
    Records,
    Version,
    missing_evidence,
    open_crits,
    orphans,
)
from selftune.domain import FileUnreadable, JsonDict, Problem, StaleSnapshot
from selftune.files import OS, Ops
from selftune.gather import FILES, Gather, Moment
from selftune.stores import DiskStore, MemoryStore, Store

__all__ = [
    "Batch",
    "Chain",
    "Committed",
    "DecisionDraft",
    "EffectRow",
    "EventDraft",
    "FileLedger",
    "Ledger",
    "MemoryLedger",
    "Missing",
    "Orphan",
    "Records",
    "Version",
    "missing_evidence",
    "must_be_readable",
    "open_crits",
    "orphans",
    "steady_clock",
    "unreadable",
    "wall_ms",
]

Clock = Callable[[], int]


class Ledger(Protocol):
    """Read and commit; the same behaviour on disk and in memory."""

    @property
    def steady(self) -> Clock: ...

    def read(self) -> Records:
        """Everything known now; only what is new is read. Never raises for what files may hold."""
        ...

    def commit(
        self, batch: Batch, expect: Version | None, *, then: Callable[[], None] | None = None
    ) -> Committed:
        """Write `batch` if the files still are at `expect` (None: wherever they are).

        An empty batch writes nothing, takes no lock and compares nothing. `then` runs under the same lock
        once the lines are on disk: for a write that the lines announce (an edit of the settings).
        Raises: StaleSnapshot, LockHeld, StorageError (then read again: some lines may be there).
        """
        ...


def must_be_readable(found: Records) -> None:
    """Raises: FileUnreadable when a file that says what is in force is there and cannot be read."""
    blind = {f: why for f, why in found.problems.items() if f in VERSIONED}
    if blind:
        raise FileUnreadable(*(unreadable(f, why) for f, why in sorted(blind.items())))


def unreadable(file: str, why: str) -> Problem:
    """The problem of a file that is there and cannot be read; `why` is what its reader met."""
    kind = "file_not_regular" if why == "not_regular" else "file_unreadable"
    return Problem(code=kind, file=file, params={"detail": why})


def wall_ms() -> int:
    """Milliseconds UTC of the wall clock."""
    return time.time_ns() // 1_000_000


def steady_clock(clock: Clock = wall_ms) -> Clock:
    """A clock that starts at the wall clock's time and then only advances, whatever the wall clock does."""
    ahead = clock() * 1_000_000 - time.monotonic_ns()
    return lambda: (time.monotonic_ns() + ahead) // 1_000_000


def mint_ulid(ms: int) -> str:
    """A new ULID of that instant."""
    return str(ULID.from_timestamp(min(max(ms, 0), 2**48 - 1) / 1000))


class StoreLedger:
    """A ledger over a store; `FileLedger` and `MemoryLedger` only choose the store and the clocks."""

    def __init__(
        self, store: Store, *, zone: tzinfo, clock: Clock, steady: Clock, mint: Callable[[int], str]
    ) -> None:
        self.store, self.zone, self.clock, self.steady, self.mint = store, zone, clock, steady, mint
        self._gather = Gather(zone)
        self._before_ms: int | None = None  # steady instant of the last reading
        self._mutex = RLock()  # the dashboard's sessions share one ledger

    # ------------------------------------------------------------------------- reading
    def read(self) -> Records:
        """Everything known now; only what is new is read. Never raises for what files may hold."""
        with self._mutex:
            return self._refresh()

    def _refresh(self) -> Records:
        moment = Moment(wall_ms=self.clock(), steady_ms=self.steady(), floor_ms=self._before_ms)
        self._read_heartbeat()
        for name in FILES:
            self._read_file(name, moment)
        self._before_ms = moment.steady_ms
        settings = self.store.settings()
        return self._gather.records(self._version(settings), moment, settings)

    def _read_file(self, name: str, moment: Moment) -> None:
        again = False
        while True:
            news = self.store.news(name)
            if news.restarted:
                self._gather.restart(name)
                again = True
            self._gather.take(name, news.lines, moment, known=not again)
            if not news.more:
                break
        sheet = self._gather.sheets[name]
        sheet.unfinished, sheet.problem = news.unfinished, news.problem

    def _read_heartbeat(self) -> None:
        beat = self.store.heartbeat()
        said = records.parse_line(beat) if beat else None
        if isinstance(said, dict):
            self._gather.note_head(said.get("approvals_head"))

    def _version(self, settings: bytes | None) -> Version:
        return Version(
            files=tuple((name, *self.store.place(name)) for name in VERSIONED),
            settings=None if settings is None else hashlib.sha256(settings).hexdigest(),
        )

    # ------------------------------------------------------------------------- writing
    def commit(
        self, batch: Batch, expect: Version | None, *, then: Callable[[], None] | None = None
    ) -> Committed:
        """Write `batch` if the files still are at `expect` (None: wherever they are).

        Raises: StaleSnapshot, LockHeld, StorageError (then read again: some lines may be there).
        """
        with self._mutex:
            if batch.empty:
                return Committed(records=self._refresh())
            with self.store.lock():
                done = self._write(batch, self._checked(expect))
                if then is not None:
                    then()
                return done

    def _checked(self, expect: Version | None) -> Records:
        """The records under the lock. A half line is ended first: what it says may change everything."""
        now = self._refresh()
        for name in now.unfinished:
            self.store.mend(name)
        if now.unfinished:
            now = self._refresh()
        must_be_readable(now)
        if expect is not None and now.version != expect:
            raise StaleSnapshot(", ".join(_moved(expect, now.version)))
        return now

    def _write(self, batch: Batch, before: Records) -> Committed:
        ms = self.clock()
        ts = records.stamp(ms, self.zone)
        governed: tuple[str, ...] = ()
        if batch.governance_first:
            governed = self._govern(batch.governance, ts, ms)
        lines, keys = self._decide(batch.decisions, ts, ms)
        if not batch.governance_first:
            governed = self._govern(batch.governance, ts, ms)
        skipped = self._testify(batch, before, ts)
        return Committed(
            records=self._refresh(),
            decisions=tuple(str(line["id"]) for line in lines),
            events=keys,
            governance=governed,
            lines=lines,
            skipped=skipped,
        )

    def _decide(
        self, drafts: tuple[DecisionDraft, ...], ts: str, ms: int
    ) -> tuple[tuple[JsonDict, ...], tuple[tuple[str, ...], ...]]:
        """Write ahead: all decisions reach the disk before the first event does."""
        chain = self._gather.chain()
        head = chain.head if chain.ok else None  # a broken chain's head must not become the truth
        lines: list[JsonDict] = []
        events: list[list[JsonDict]] = []
        aside = self.store.rotate() if drafts else None
        head_lines = [_rotated_line(aside, self.mint(ms), ts, head)] if aside is not None else []
        for draft in drafts:
            decision_id = self.mint(ms)
            events.append([_event_line(e, self.mint(ms), decision_id, ts) for e in draft.events])
            lines.append(_decision_line(draft, decision_id, ts, events[-1], head))
        self._append(DECISIONS, [*head_lines, *lines])
        self._append(HISTORY, [e for group in events for e in group])
        return tuple(lines), tuple(tuple(str(e["id"]) for e in group) for group in events)

    def _govern(self, drafts: tuple[JsonDict, ...], ts: str, ms: int) -> tuple[str, ...]:
        prev, lines = self._gather.chain().sha256, []
        for draft in drafts:
            line = {"v": 1, "ts": ts, "id": self.mint(ms), **draft, "prev": prev}
            lines.append(line)
            prev = records.sha256(records.strip_end(records.render(line)))
        self._append(APPROVALS, lines)
        if lines:
            self._refresh()  # decisions after it carry the new head
        return tuple(str(line["id"]) for line in lines)

    def _testify(self, batch: Batch, before: Records, ts: str) -> tuple[str, ...]:
        """Evidence that nobody has written yet; returns what was left out."""
        quoted = {q.effect for q in before.quotes if q.effect}
        warned = {w.effect for w in before.warnings if w.effect and w.resolves is None}
        quotes, late_quotes = _unseen(batch.quotes, quoted, "quote")
        warnings, late_warnings = _unseen(batch.warnings, warned, "warning")
        self._append(RISKS, [{"ts": ts, **w} for w in warnings])
        self._append(QUOTES, [{"ts": ts, **q} for q in quotes])
        return (*late_warnings, *late_quotes, *self._append_rows(batch, before))

    def _append_rows(self, batch: Batch, before: Records) -> tuple[str, ...]:
        if not batch.effect_rows:
            return ()
        header, start = before.effects_header, b""
        torn = not before.effects_known and effectrows.our_header_line().startswith(self._gather.header_line)
        if header is None or torn:
            header = effectrows.our_header(effectrows.shorts_of(batch.effect_rows))
            start = effectrows.render_header(header)
        elif not before.effects_known:
            return ("unknown_header",)
        end = self._gather.header_end if not start else "\n"
        taken, lines, skipped = {r.key for r in before.effect_rows}, [], []
        for row in batch.effect_rows:
            key = (records.instant_ms(row["rule_ts"], self.zone)[0] or 0, str(row["rule"]))
            if key in taken:
                skipped.append(f"row:{row['rule_ts']}:{row['rule']}")
                continue
            taken.add(key)
            lines.append(effectrows.render_row(header, row, end))
        if lines:
            self.store.append(EFFECTS, [start, *lines])
        return tuple(skipped)

    def _append(self, name: str, lines: list[JsonDict]) -> None:
        if lines:
            self.store.append(name, [records.render(line) for line in lines])


def _event_line(draft: EventDraft, key: str, decision_id: str, ts: str) -> JsonDict:
    line: JsonDict = {
        "ts": ts,
        "actor": draft.actor,
        "rule": draft.rule,
        "old": draft.old,
        "new": draft.new,
        "note": draft.note,
        "id": key,
        "kind": draft.kind,
        "decision": decision_id,
    }
    if draft.reverts is not None:
        line["reverts"] = draft.reverts
    if draft.look:
        line["look"] = True
    return line


def _decision_line(
    draft: DecisionDraft, decision_id: str, ts: str, events: list[JsonDict], head: JsonDict | None
) -> JsonDict:
    line: JsonDict = {
        "v": 1,
        "ts": ts,
        "id": decision_id,
        **draft.data,
        "applied": [e["id"] for e in events],
        "approvals_head": head,
    }
    if events:  # the values too: a restart can then say what was meant
        line["intended"] = [{k: e[k] for k in ("id", "rule", "old", "new", "kind")} for e in events]
    return line


def _rotated_line(aside: JsonDict, decision_id: str, ts: str, head: JsonDict | None) -> JsonDict:
    """The first line of a new file: it names the part before it, so that a lost one shows."""
    return {
        "v": 1,
        "ts": ts,
        "id": decision_id,
        "kind": "mode",
        "act": "rotated",
        "previous": aside,
        "applied": [],
        "approvals_head": head,
    }


def _unseen(drafts: tuple[JsonDict, ...], seen: set[str], what: str) -> tuple[list[JsonDict], list[str]]:
    """(drafts whose effect is not in `seen`, names of the others); a `resolves` record always passes."""
    fresh: list[JsonDict] = []
    late: list[str] = []
    for draft in drafts:
        effect = draft.get("effect")
        if effect and "resolves" not in draft:
            if effect in seen:
                late.append(f"{what}:{effect}")
                continue
            seen.add(effect)
        fresh.append(draft)
    return fresh, late


def _moved(expect: Version, now: Version) -> list[str]:
    names = [b[0] for a, b in zip(expect.files, now.files, strict=False) if a != b]
    return names + (["settings"] if expect.settings != now.settings else [])


class FileLedger(StoreLedger):
    """The ledger of one data root on disk.

    `timezone`: IANA name, for stamps without offset and for ours. `clock`: wall ms; `steady`: ms of a
    clock that started at the wall clock's time and only advances.
    """

    def __init__(
        self,
        root: Path,
        *,
        timezone: str,
        clock: Clock = wall_ms,
        steady: Clock | None = None,
        ops: Ops = OS,
        mint: Callable[[int], str] = mint_ulid,
    ) -> None:
        super().__init__(
            DiskStore(root, ops=ops),
            zone=zone_of(timezone),
            clock=clock,
            steady=steady or steady_clock(clock),
            mint=mint,
        )
        self.root = root


class MemoryLedger(StoreLedger):
    """The same ledger in memory, for backtests and tests; `put` writes as a foreign program would."""

    def __init__(
        self,
        *,
        timezone: str,
        clock: Clock,
        steady: Clock | None = None,
        settings: bytes | None = None,
        mint: Callable[[int], str] = mint_ulid,
    ) -> None:
        self._memory = MemoryStore(settings)
        super().__init__(self._memory, zone=zone_of(timezone), clock=clock, steady=steady or clock, mint=mint)

    def put(self, name: str, data: bytes) -> None:
        """Append bytes to the file `name` (names in `book`)."""
        self._memory.put(name, data)


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name; UTC needs no zone database. Raises: ZoneInfoNotFoundError."""
    return UTC if name == "UTC" else ZoneInfo(name)
