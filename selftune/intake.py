"""Rows in the file's order -> samples of one epoch: order, strays, jumps of the clock, rows ahead.

Answers "which of these rows are samples now?". Pure; the present instant is handed in.

- A row up to 5 s older than the newest is put in its place; of equal instants the last written stays.
- Older by more: a jump back, but one odd row is not a clock. The row is held; two more in a row
  (3 `_CONFIRM` in all, each within 5 s of that run) begin a new epoch, a normal row makes them `stray`.
- A leap ahead (> 5 s) is believed at once, as after a gap. If the stream falls back to where it was
  within 2 rows, those rows were the stray ones, and the epoch goes on.
- A row > 2 s in the future is set aside until its time comes, or, as `ahead`, until 3 rows in
  sequence are > 5 s behind it: then the file itself says that it was wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from selftune.ring import Ring
from selftune.series import Floats, Int64s

AHEAD_MS = 2_000
BACK_MS = 5_000
_CONFIRM = 3
_MAX_PENDING = 20_000
_SHARE_MS = 5_000  # ahead_share looks at the rows of the last 5 s


@dataclass(frozen=True)
class _Row:
    ts: int
    seq: int
    values: Floats


@dataclass
class _Leap:
    """A leap ahead that less than `_CONFIRM` rows have borne out; `base` = the newest before it."""

    base: int | None
    seq: int
    count: int


class Intake:
    """Admits rows into a `Ring` that holds the present epoch."""

    def __init__(self, metrics: int, on_epoch_end: Callable[[Ring], None] | None = None) -> None:
        self.ring = Ring(metrics)
        self._on_epoch_end = on_epoch_end  # sees the samples of an epoch before they go
        self.epoch = 0
        self.epoch_start_ms: int | None = None
        self.newest_ms: int | None = None
        self.rejects: Counter[str] = Counter()
        self.admitted = 0
        self._seq = 0
        self._leap: _Leap | None = None
        self._held: list[_Row] = []
        self._pending: list[_Row] = []
        self._behind = 0  # rows in sequence that contradict the pending ones
        self._ready: list[_Row] = []
        self._received: list[tuple[int, int, int]] = []  # (now, rows, of which ahead)

    # -------------------------------------------------------------- what is known
    @property
    def settled_ms(self) -> int | None:
        """The newest instant that no later row can turn into a stray; trim and close bins by this."""
        return self._leap.base if self._leap else self.newest_ms

    @property
    def set_aside(self) -> int:
        """Rows waiting for their time."""
        return len(self._pending)

    def ahead_share(self, now_ms: int) -> float:
        """Share of rows > 2 s in the future among those received in the last 5 s; 0 without rows."""
        # The reader's clock may have stepped back: what was received "later" says nothing either.
        self._received = [r for r in self._received if now_ms - _SHARE_MS < r[0] <= now_ms]
        rows = sum(n for _, n, _ in self._received)
        return sum(a for _, _, a in self._received) / rows if rows else 0.0

    # -------------------------------------------------------------- taking rows in
    def feed(self, ts_ms: Int64s, values: Floats, now_ms: int) -> None:
        """Take in rows in the file's order; those whose time has come since go first."""
        self.release(now_ms)
        n = len(ts_ms)
        if not n:
            return
        seq = np.arange(self._seq, self._seq + n)
        self._seq += n
        self._note_ahead(ts_ms, now_ms)
        if not self._plain(ts_ms, seq, values, now_ms):
            for i in range(n):
                self._one(_Row(int(ts_ms[i]), int(seq[i]), values[:, i]), now_ms)
            self._flush()

    def release(self, now_ms: int) -> None:
        """Admit the rows set aside whose time has come."""
        due = [r for r in self._pending if r.ts <= now_ms + AHEAD_MS]
        if due:
            self._pending = [r for r in self._pending if r.ts > now_ms + AHEAD_MS]
            for row in due:
                self._admit(row)
            self._flush()

    def restart(self, *, new_epoch: bool) -> None:
        """Forget the samples (another file stands in the place of the one that was read)."""
        self._drop_held()
        self._pending, self._behind = [], 0
        self._new_epoch()
        self.epoch -= not new_epoch

    def lower_start(self, ts_ms: int) -> None:
        """The present epoch is known to reach back to `ts_ms`."""
        if self.epoch_start_ms is not None:
            self.epoch_start_ms = min(self.epoch_start_ms, ts_ms)

    def _note_ahead(self, ts_ms: Int64s, now_ms: int) -> None:
        # A first poll brings half an hour at once: only its last 5 s, by its own clock, say how it is now.
        recent = ts_ms[ts_ms > ts_ms[-1] - _SHARE_MS]
        self._received.append((now_ms, len(recent), int((recent > now_ms + AHEAD_MS).sum())))

    def _plain(self, ts_ms: Int64s, seq: Int64s, values: Floats, now_ms: int) -> bool:
        """Admits a batch without jumps at once; False (nothing done) if rows need a look each."""
        if self._held or self._pending or ts_ms.max() > now_ms + AHEAD_MS:
            return False
        known = int(ts_ms[0]) if self.newest_ms is None else self.newest_ms
        highest = np.maximum.accumulate(np.r_[known, ts_ms])
        before = highest[:-1]
        if (before - ts_ms > BACK_MS).any():
            return False
        self.rejects["out_of_order"] += int((ts_ms < before).sum())
        leaps = [int(i) for i in np.flatnonzero(ts_ms - before > BACK_MS)]
        self._follow_leaps([0, *leaps] if self.newest_ms is None else leaps, before, seq)
        self.newest_ms = int(highest[-1])
        self._insert(ts_ms, seq, values)
        return True

    def _follow_leaps(self, leaps: list[int], before: Int64s, seq: Int64s) -> None:
        at = -self._leap.count if self._leap else -_CONFIRM
        for i in leaps:
            if i >= at + _CONFIRM:
                at = i
                first = i == 0 and self.newest_ms is None
                self._leap = _Leap(base=None if first else int(before[i]), seq=int(seq[i]), count=0)
        if self._leap:
            self._leap.count = len(seq) - at
            if self._leap.count >= _CONFIRM:
                self._leap = None

    # -------------------------------------------------------------- row by row
    def _one(self, row: _Row, now_ms: int) -> None:
        if row.ts > now_ms + AHEAD_MS:
            self._pending.append(row)
            self._behind = 0
            if len(self._pending) > _MAX_PENDING:
                self.rejects["ahead"] += 1
                del self._pending[0]
            return
        if self._pending:
            self._contradict(row)
        self._admit(row)

    def _contradict(self, row: _Row) -> None:
        if row.ts >= max(r.ts for r in self._pending[-_CONFIRM:]) - BACK_MS:
            self._behind = 0
            return
        self._behind += 1
        if self._behind >= _CONFIRM:
            self.rejects["ahead"] += len(self._pending)
            self._pending = []
            self._behind = 0

    def _admit(self, row: _Row) -> None:
        if self.newest_ms is not None and row.ts < self.newest_ms - BACK_MS:
            self._hold(row)
            return
        self._drop_held()
        self._accept(row)

    def _accept(self, row: _Row) -> None:
        if self._leap:
            self._leap.count += 1
        elif self.newest_ms is None or row.ts > self.newest_ms + BACK_MS:
            self._leap = _Leap(base=self.newest_ms, seq=row.seq, count=1)
        if self._leap and self._leap.count >= _CONFIRM:
            self._leap = None
        if self.newest_ms is not None and row.ts < self.newest_ms:
            self.rejects["out_of_order"] += 1
        self.newest_ms = row.ts if self.newest_ms is None else max(self.newest_ms, row.ts)
        self._ready.append(row)

    def _hold(self, row: _Row) -> None:
        """A row far behind: one of three that make a jump, or a stray."""
        if self._held and row.ts < max(r.ts for r in self._held) - BACK_MS:
            self._drop_held()
        self._held.append(row)
        if len(self._held) < _CONFIRM:
            return
        run, self._held = self._held, []
        self._flush()
        if self._leap and (self._leap.base is None or run[0].ts >= self._leap.base - BACK_MS):
            self._undo_leap(self._leap)
        else:
            self._new_epoch()
        for r in run:
            self._admit(r)

    def _undo_leap(self, leap: _Leap) -> None:
        self.rejects["stray"] += self.ring.drop_from(leap.seq)
        self.newest_ms, self._leap = leap.base, None
        if leap.base is None:
            self.epoch_start_ms = None

    def _new_epoch(self) -> None:
        """The clock went back for good: forget the samples, count the epoch."""
        if self._on_epoch_end:
            self._on_epoch_end(self.ring)
        self.epoch += 1
        self.ring.clear()
        self._leap = None
        self.newest_ms = self.epoch_start_ms = None

    def _drop_held(self) -> None:
        self.rejects["stray"] += len(self._held)
        self._held = []

    def _flush(self) -> None:
        rows, self._ready = self._ready, []
        if rows:
            self._insert(
                np.array([r.ts for r in rows], np.int64),
                np.array([r.seq for r in rows], np.int64),
                np.stack([r.values for r in rows], axis=1),
            )

    def _insert(self, ts_ms: Int64s, seq: Int64s, values: Floats) -> None:
        first = int(ts_ms.min())
        self.epoch_start_ms = first if self.epoch_start_ms is None else min(first, self.epoch_start_ms)
        self.admitted += len(ts_ms)
        self.rejects["duplicate_ts"] += self.ring.insert(ts_ms, seq, values)
