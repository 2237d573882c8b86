"""The 5 Hz stream of metrics: follows the file, keeps the last half hour and a coarse day.

Answers "what are the samples now?" in time and memory that do not depend on the file's length.
Never writes, never waits, never raises for what a file may hold; `state` says what it met.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from selftune.coarse import Coarse, CoarseBook
from selftune.intake import BACK_MS, Intake
from selftune.ranges import (
    HEAD_BYTES,
    header_before,
    instant_at,
    iter_ranges,
    last_header,
    last_ts,
    newest_in,
    open_history,
    read_around,
    read_range,
)
from selftune.rows import MAX_LINE, Header, Range, RowParser
from selftune.series import Series
from selftune.source import UNUSABLE, LineCutter, Place, Source, StreamStatus, Unavailable, opened, place_at

__all__ = [
    "UNUSABLE",
    "SampleStream",
    "StreamState",
    "StreamStatus",
    "Unavailable",
    "iter_ranges",
    "last_ts",
    "open_history",
    "read_around",
    "read_range",
]

POLL_BYTES = 8 << 20  # at most this much is parsed in one poll
FAR_BYTES = 4 * POLL_BYTES  # further behind than this: skip to the last `keep_s`
OLDER_BYTES = 256 << 10  # of the past for the coarse history, a poll


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """What the stream has met since the process began.

    `rejects`: rows and cells by reason (rows.py `REASONS`); `torn` counts the unfinished last line
    too. `outside`: values out of their range, by metric. `set_aside`: rows > 2 s in the future that
    wait. `metrics_missing`: named by the settings, no such column. `held_bytes`: memory of samples.
    `skipped_bytes` were never parsed: too far behind. `older_done`: the coarse history is complete.
    """

    status: StreamStatus
    detail: str = ""
    rejects: Mapping[str, int] = field(default_factory=dict)
    outside: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    set_aside: int = 0
    bytes_read: int = 0
    skipped_bytes: int = 0
    held_bytes: int = 0
    columns: tuple[str, ...] = ()
    metrics_missing: tuple[str, ...] = ()
    older_done: bool = False


class SampleStream:
    """Follows one metrics file. One thread; `poll` as often as wanted."""

    def __init__(
        self,
        path: str | Path,
        *,
        metrics: Sequence[str],
        ranges: Mapping[str, Range],
        timezone: str,
        keep_s: float = 1800,
        coarse_keep_s: float = 86400,
    ) -> None:
        self._path = path
        self._metrics = tuple(metrics)
        self._keep_ms = round(keep_s * 1000)
        self._parser = RowParser(self._metrics, ranges, ZoneInfo(timezone))
        self._intake = Intake(len(self._metrics))
        self._book = CoarseBook(self._metrics, round(coarse_keep_s * 1000))
        self._cutter = LineCutter(MAX_LINE)
        self._header: Header | None = None
        self._place: Place | None = None
        self._older: _Older | None = None
        self._epoch_of_book = 0
        self._whole = True  # the epoch's first sample is known, not just the first that was read
        self._rejects: Counter[str] = Counter()
        self._outside: Counter[str] = Counter()
        self._status = StreamStatus.MISSING
        self._detail = ""
        self._bytes_read = self._skipped = 0
        self._now = 0

    # -------------------------------------------------------------- what is known
    @property
    def coarse(self) -> Coarse:
        """10 s means of the present epoch, as far back as they have been read."""
        return self._book.coarse

    @property
    def series(self) -> Series:
        """The samples as of the last poll; a value that later polls do not change."""
        ring = self._intake.ring
        return Series(
            ts_ms=ring.ts_ms,
            values=dict(zip(self._metrics, ring.values, strict=True)),
            epoch=self._intake.epoch,
            epoch_start_ms=self._intake.epoch_start_ms,
            rejects=self._all_rejects(),
            ahead_share=self._intake.ahead_share(self._now),
        )

    @property
    def state(self) -> StreamState:
        """What has been met so far."""
        names = self._header.names if self._header else ()
        return StreamState(
            status=self._status,
            detail=self._detail,
            rejects=self._all_rejects(),
            outside=dict(self._outside),
            rows=self._intake.admitted,
            set_aside=self._intake.set_aside,
            bytes_read=self._bytes_read,
            skipped_bytes=self._skipped,
            held_bytes=self._intake.ring.nbytes + len(self._cutter.rest),
            columns=names,
            metrics_missing=tuple(m for m in self._metrics if names and m not in names),
            older_done=self._older is None,
        )

    def _all_rejects(self) -> dict[str, int]:
        both = self._rejects + self._intake.rejects
        both["torn"] += bool(self._cutter.rest)
        both["too_long"] += self._cutter.too_long
        return dict(+both)

    # -------------------------------------------------------------- one look
    def poll(self, now_ms: int) -> Series:
        """The samples after reading what is new. Units: `now_ms` int ms UTC of the wall clock."""
        self._now = now_ms
        self._intake.release(now_ms)
        try:
            with opened(self._path) as source:
                try:
                    self._read(source, now_ms)
                finally:
                    self._bytes_read += source.bytes_read
            self._status, self._detail = self._judge(), ""
        except Unavailable as gone:
            self._status, self._detail = gone.status, gone.detail
        self._settle()
        return self.series

    def _read(self, source: Source, now_ms: int) -> None:
        if self._place is None:
            self._begin(source, now_ms)
            return
        self._skip_if_far(source, now_ms)
        new = self._place.read_new(source, min(max(0, source.size - self._place.offset), POLL_BYTES))
        if new is None or (new and not self._place.offset):
            self._begin(source, now_ms)
            return
        self._take(new, now_ms)
        self._read_older(source, now_ms)

    def _take(self, new: bytes, now_ms: int) -> None:
        assert self._place is not None
        self._place = self._place.after(new)
        body = self._cutter.feed(new)
        if not body:
            return
        rows = self._parser.parse(body, self._header)
        self._header = rows.header
        self._rejects.update(rows.rejects)
        self._outside.update(rows.outside)
        self._intake.feed(rows.ts_ms, rows.values, now_ms)

    def _judge(self) -> StreamStatus:
        if self._place is not None and not self._place.offset:
            return StreamStatus.EMPTY
        if self._header is None:
            return StreamStatus.NO_HEADER
        known = any(c >= 0 for c in self._header.columns(self._metrics))
        return StreamStatus.OK if known or not self._metrics else StreamStatus.UNKNOWN_COLUMNS

    def _settle(self) -> None:
        """Close coarse bins, then forget what is older than `keep_s`."""
        intake = self._intake
        if intake.epoch != self._epoch_of_book:
            self._new_book(whole=True)
        settled = intake.settled_ms
        if settled is not None:
            ring = intake.ring
            self._book.forward(ring.ts_ms, ring.values, settled, whole=self._whole)
            self._rejects["overflow"] += ring.trim(settled - self._keep_ms)

    def _new_book(self, *, whole: bool) -> None:
        self._book.clear()
        self._epoch_of_book = self._intake.epoch
        self._whole = whole
        if whole:
            self._older = None

    # -------------------------------------------------------------- another file, or the first
    def _begin(self, source: Source, now_ms: int) -> None:
        """Start on a file: go on with the samples if it continues them, else from near its end."""
        self._rejects["torn"] += self._cutter.clear()
        self._older = None
        self._place = Place(source.identity, 0, b"")
        head = source.read_at(0, min(source.size, HEAD_BYTES))
        if b"\n" not in head and source.size <= MAX_LINE:
            return  # its first line is not whole yet
        found = self._parser.header_in(head)
        known = found or self._header  # a file cut to nothing under a running writer has none of its own
        first = instant_at(source, self._parser, known, 0) if known else None
        newest = self._intake.newest_ms
        # Rows that stand before the file's own header have no names: it is met where it stands.
        at_start = None if found else self._header
        if newest is not None and first is not None and first >= newest - BACK_MS:
            self._header = at_start
            self._take_from(source, 0, now_ms)
        else:
            self._begin_cold(source, now_ms, known, at_start)

    def _begin_cold(
        self,
        source: Source,
        now_ms: int,
        header: Header | None,
        at_start: Header | None,
        *,
        sure: bool = False,
    ) -> None:
        """Start afresh near the end of the file, under `header` (at its very start: `at_start`).

        `sure`: the header is the nearest one, not just the file's first.
        """
        intake, old_newest = self._intake, self._intake.newest_ms
        intake.restart(new_epoch=False)
        epoch = intake.epoch
        start = self._cold_start(source, header, now_ms)
        self._header = header if start else at_start
        self._take_from(source, start, now_ms)
        if start and not sure and not len(intake.ring) and not intake.set_aside:
            other = header_before(source, self._parser, start)
            if other and other != header:
                self._begin_cold(source, now_ms, other, at_start, sure=True)
                return
        jumped = intake.epoch != epoch
        if old_newest is not None and (intake.newest_ms is None or intake.newest_ms < old_newest - BACK_MS):
            intake.epoch += 1
        self._new_book(whole=jumped or not start)
        if start and header and not jumped:
            self._older = _Older(end=start, header=header)

    def _take_from(self, source: Source, start: int, now_ms: int) -> None:
        self._place = place_at(source, start)
        self._cutter.clear()
        new = self._place.read_new(source, min(source.size - start, POLL_BYTES))
        if new is not None:
            self._take(new, now_ms)

    def _cold_start(self, source: Source, header: Header | None, now_ms: int) -> int:
        """Start of a line from which the last `keep_s` can be read; flat in the file's length."""
        if source.size <= HEAD_BYTES or header is None:
            return max(0, _line_start(source, source.size - POLL_BYTES))
        newest = newest_in(source, self._parser, header, now_ms)
        span = HEAD_BYTES
        while newest is not None and span < min(source.size, POLL_BYTES):
            first = instant_at(source, self._parser, header, source.size - span)
            if first is not None and first <= newest - self._keep_ms:
                break
            span *= 2
        return _line_start(source, source.size - min(span, POLL_BYTES))

    def _skip_if_far(self, source: Source, now_ms: int) -> None:
        assert self._place is not None
        if source.size - self._place.offset <= FAR_BYTES or self._place.identity != source.identity:
            return
        if self._place.read_new(source, 0) is None:
            return  # another file: `_begin` finds its own place
        start = self._cold_start(source, self._header, now_ms)
        self._skipped += max(0, start - self._place.offset)
        self._rejects["torn"] += self._cutter.clear()
        self._place = place_at(source, start)

    # -------------------------------------------------------------- the past, little by little
    def _read_older(self, source: Source, now_ms: int) -> None:
        """Up to 256 KiB of older bytes for the coarse history."""
        older, oldest = self._older, self._book.oldest_wanted_ms
        if older is None or not self._book.ready or oldest is None:
            return
        begin = _line_start(source, older.end - OLDER_BYTES)
        if begin >= older.end:  # inside a line that is longer than a helping
            self._older = _Older(end=older.end - OLDER_BYTES, header=older.header)
            return
        body = source.read_at(begin, older.end - begin)
        before = older.header
        if found := last_header(self._parser, body):
            at, header = found
            if header != older.header:
                # What lies behind was read under the wrong header. The past is given up: a file whose
                # columns changed within the day is rare.
                self._begin_cold(source, now_ms, header, None, sure=True)
                self._older = None
                return
            begin, body = begin + at, body[at:]
            before = header_before(source, self._parser, begin) or header
        rows = self._parser.parse(body, older.header)
        past = Intake(len(self._metrics))
        past.feed(rows.ts_ms, rows.values, now_ms)
        self._join_older(past, _Older(end=begin, header=before), oldest)

    def _join_older(self, past: Intake, further: _Older, oldest: int) -> None:
        known = self._book.carried_from_ms
        ts, values = past.ring.ts_ms, past.ring.values
        late = int((ts > known + BACK_MS).sum()) if known is not None else 0
        jump = late >= 3
        if not jump and len(ts) > late:
            self._book.older(ts[: len(ts) - late], values[:, : len(ts) - late])
            self._intake.lower_start(int(ts[0]))
        if jump or past.epoch or not further.end or (len(ts) and int(ts[0]) < oldest):
            self._book.finish()
            self._older = None
        else:
            self._older = further


@dataclass(frozen=True, kw_only=True)
class _Older:
    """Bytes before `end` are not read yet; `header` holds for those just before it."""

    end: int
    header: Header


def _line_start(source: Source, offset: int) -> int:
    """Start of the first line at or after `offset`; 0 at or before the file's beginning."""
    if offset <= 0:
        return 0
    at = offset - 1
    while at < source.size:
        block = source.read_at(at, 1 << 12)
        newline = block.find(b"\n")
        if newline >= 0:
            return at + newline + 1
        at += max(1, len(block))
    return source.size
