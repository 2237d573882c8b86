"""History out of the metrics file by time: only the bytes of the wanted windows are parsed.

Answers "which samples lie between these instants, however long ago?" and "when is the newest?".
A sparse index (the first good stamp every 256 KiB, at most 4,096 looks) finds the bytes; where it
runs backwards the clock was set back, and each stretch is searched on its own, the latest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from selftune.domain import Window
from selftune.intake import BACK_MS, Intake
from selftune.ring import Ring
from selftune.rows import MAX_LINE, Header, Range, RowParser
from selftune.series import Int64s, Series
from selftune.source import LineCutter, Source, Unavailable, opened

HEAD_BYTES = 1 << 16
_PROBE_BYTES = 1 << 12
_STRIDE = 1 << 18
_HAYSTACK = 1 << 14  # below this reading is cheaper than searching
_MAX_PROBES = 4096
_CHUNK = 1 << 22
_MARGIN_MS = 2 * BACK_MS
_FOREVER_MS = 1 << 60
_CLUSTER_MS = 6 * 3600_000  # windows of at most 6 h are read together: bounded memory
_CLUSTER_GAP_MS = 60_000
_HEADER_SEARCH_BYTES = 1 << 24
_BEFORE_NAME = (b"", b"\n", b",", b'"', b" ", b"\xbf")  # the last byte of a byte order mark
_AFTER_NAME = (b"\r", b"\n", b",", b'"', b" ")


def instant_at(source: Source, parser: RowParser, header: Header, offset: int) -> int | None:
    """Median instant of the first three stamped rows behind `offset`, None if none is near.

    The median, because one stray stamp must not send a search the wrong way.
    """
    ts: list[int] = []
    for span in (_PROBE_BYTES, HEAD_BYTES, 2 * MAX_LINE):
        data = source.read_at(offset, span)
        whole = data[data.find(b"\n") + 1 if offset else 0 : data.rfind(b"\n") + 1]
        ts = parser.first_instants(whole, header, 3)
        if len(ts) == 3 or len(data) < span:
            break
    return sorted(ts)[len(ts) // 2] if ts else None


def last_header(parser: RowParser, block: bytes) -> tuple[int, Header] | None:
    """The last header line in `block`: where it starts, and what it says."""
    at = block.rfind(b"ts")
    while at >= 0:
        # Rows hold no cell `ts`, so the letters find a header; text cells with such words are passed over.
        if block[max(0, at - 1) : at] in _BEFORE_NAME and block[at + 2 : at + 3] in _AFTER_NAME:
            begin, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at) + 1
            found = parser.header_in(block[begin:end]) if end else None
            if found:
                return begin, found
        at = block.rfind(b"ts", 0, at)
    return None


def header_before(source: Source, parser: RowParser, offset: int) -> Header | None:
    """The header in force at `offset`: the nearest one before it, within 16 MiB."""
    low = max(0, offset - _HEADER_SEARCH_BYTES)
    while offset > low:
        start = max(low, offset - (1 << 20))
        found = last_header(parser, source.read_at(start, offset - start))
        if found:
            return found[1]
        offset = start if start == low else start + 4096  # a header may straddle two blocks
    return None


@dataclass(frozen=True)
class _Stretch:
    """Part of the file whose clock runs forwards: probes' offsets and instants; ends at byte `end`."""

    offsets: Int64s
    instants: Int64s
    end: int


class History:
    """Reads windows of the past out of an open source; made by `open_history`."""

    def __init__(self, source: Source, parser: RowParser) -> None:
        self._source = source
        self._parser = parser
        self._header = parser.header_in(source.read_at(0, HEAD_BYTES))
        self._stretches = self._index() if self._header else []

    @property
    def header(self) -> Header | None:
        """The file's header, None if its first 64 KiB hold none (then no row can be read)."""
        return self._header

    def between(self, start_ms: int, end_ms: int) -> Series:
        """The samples with start_ms <= ts < end_ms, of the latest epoch that has any."""
        for epoch in range(len(self._stretches) - 1, -1, -1):
            found = self._read(self._stretches[epoch], start_ms, end_ms)
            if len(found):
                return found
        return Series.empty(self._parser.metrics)

    # -------------------------------------------------------------- finding the bytes
    def _index(self) -> list[_Stretch]:
        assert self._header is not None
        stride = max(_STRIDE, -(-self._source.size // _MAX_PROBES))
        looks = [
            (o, instant_at(self._source, self._parser, self._header, o))
            for o in range(0, self._source.size, stride)
        ]
        probes = [(o, ts) for o, ts in looks if ts is not None]
        breaks = [i + 1 for i, (a, b) in enumerate(pairwise(probes)) if b[1] < a[1] - BACK_MS]
        edges = [0, *breaks, len(probes)]
        return [self._stretch(probes, a, b) for a, b in pairwise(edges) if b > a]

    def _stretch(self, probes: Sequence[tuple[int, int]], a: int, b: int) -> _Stretch:
        part = np.array(probes[a:b], np.int64)
        # The clock went back somewhere between two probes: that block belongs to both sides.
        begin = probes[a - 1][0] if a else 0
        part = np.vstack([[begin, -_FOREVER_MS], part])
        return _Stretch(
            part[:, 0],
            np.maximum.accumulate(part[:, 1]),
            probes[b][0] if b < len(probes) else self._source.size,
        )

    def _read(self, stretch: _Stretch, start_ms: int, end_ms: int) -> Series:
        first, last = start_ms - _MARGIN_MS, end_ms + _MARGIN_MS
        low = int(np.searchsorted(stretch.instants, first, side="left")) - 1
        high = int(np.searchsorted(stretch.instants, last, side="right"))
        edges = [*stretch.offsets.tolist(), stretch.end]
        # The first block and the last may hold a jump of the clock: they are read whole.
        begin, end = edges[max(0, low)], edges[high]
        if low > 0:
            begin = self._narrow(begin, edges[low + 1], first)[0]
        if 1 < high < len(edges) - 1:
            end = self._narrow(max(begin, edges[high - 1]), end, last)[1]
        return self._parse(begin, end, start_ms, end_ms)

    def _narrow(self, low: int, high: int, instant_ms: int) -> tuple[int, int]:
        """Offsets low and high brought closer, rows at low before the instant and at high not."""
        assert self._header is not None
        while high - low > _HAYSTACK:
            middle = (low + high) // 2
            found = instant_at(self._source, self._parser, self._header, middle)
            if found is None:
                break
            low, high = (middle, high) if found < instant_ms else (low, middle)
        return low, high

    # -------------------------------------------------------------- reading them
    def _parse(self, begin: int, end: int, start_ms: int, end_ms: int) -> Series:
        """Samples in the window of the last epoch, among those in bytes [begin, end), that has any."""
        epochs: list[Series] = []

        def keep(ring: Ring) -> None:
            epochs.append(_series(ring, self._parser.metrics, intake).between(start_ms, end_ms))

        intake = Intake(len(self._parser.metrics), on_epoch_end=keep)
        cutter = LineCutter(MAX_LINE)
        cutter.skipping = begin > 0  # the first line is cut
        header = self._header
        for offset in range(begin, end, _CHUNK):
            body = cutter.feed(self._source.read_at(offset, min(_CHUNK, end - offset)))
            rows = self._parser.parse(body, header)
            if not len(rows.ts_ms) and rows.rejects["cells"]:  # another header came in between
                header = header_before(self._source, self._parser, offset) or header
                rows = self._parser.parse(body, header)
            header = rows.header
            intake.feed(rows.ts_ms, rows.values, _FOREVER_MS)
            intake.rejects.update(rows.rejects)
        keep(intake.ring)
        return next((s for s in reversed(epochs) if len(s)), epochs[-1])


def _series(ring: Ring, metrics: Sequence[str], intake: Intake) -> Series:
    return Series(
        ts_ms=ring.ts_ms,
        values=dict(zip(metrics, ring.values, strict=True)),
        epoch=intake.epoch,
        epoch_start_ms=intake.epoch_start_ms,
        rejects=dict(+intake.rejects),
    )


@contextmanager
def open_history(
    path: str | Path, *, metrics: Sequence[str], ranges: Mapping[str, Range], timezone: str
) -> Iterator[History]:
    """The metrics file, indexed. Raises: Unavailable when it cannot be read."""
    parser = RowParser(metrics, ranges, ZoneInfo(timezone))
    with opened(path) as source:
        yield History(source, parser)


def read_range(
    path: str | Path,
    start_ms: int,
    end_ms: int,
    *,
    metrics: Sequence[str],
    ranges: Mapping[str, Range],
    timezone: str,
) -> Series:
    """The samples with start_ms <= ts < end_ms, empty if the file holds none or cannot be read."""
    try:
        with open_history(path, metrics=metrics, ranges=ranges, timezone=timezone) as history:
            return history.between(start_ms, end_ms)
    except Unavailable:
        return Series.empty(tuple(metrics))


def iter_ranges(
    path: str | Path,
    windows: Iterable[Window],
    *,
    metrics: Sequence[str],
    ranges: Mapping[str, Range],
    timezone: str,
) -> Iterator[tuple[Window, Series]]:
    """Each window with its samples, by start, in one forward pass: near ones share one read.

    Raises: Unavailable when the file cannot be read.
    """
    with open_history(path, metrics=metrics, ranges=ranges, timezone=timezone) as history:
        for cluster in clusters(windows):
            end = max(w.end_ms for w in cluster)
            samples = history.between(cluster[0].start_ms, end)
            for window in cluster:
                yield window, samples.between(window.start_ms, window.end_ms)


def read_around(
    path: str | Path,
    instants: Iterable[int],
    *,
    before_s: float,
    after_s: float,
    metrics: Sequence[str],
    ranges: Mapping[str, Range],
    timezone: str,
) -> Iterator[tuple[int, Series]]:
    """Each instant with its samples of [instant - before_s, instant + after_s), by instant.

    Raises: Unavailable when the file cannot be read.
    """
    before, after = round(before_s * 1000), round(after_s * 1000)
    windows = [Window(start_ms=t - before, end_ms=t + after) for t in sorted(instants)]
    for window, samples in iter_ranges(path, windows, metrics=metrics, ranges=ranges, timezone=timezone):
        yield window.start_ms + before, samples


def clusters(windows: Iterable[Window]) -> Iterator[list[Window]]:
    """Windows by start, in groups that are less than a minute apart and at most 6 h long in all."""
    group: list[Window] = []
    end = 0
    for window in sorted(windows, key=lambda w: (w.start_ms, w.end_ms)):
        far = window.start_ms > end + _CLUSTER_GAP_MS
        if group and (far or max(end, window.end_ms) > group[0].start_ms + _CLUSTER_MS):
            yield group
            group = []
        end = max(end, window.end_ms) if group else window.end_ms
        group.append(window)
    if group:
        yield group


def last_ts(path: str | Path, *, timezone: str) -> int | None:
    """Instant of the newest sample at the file's end (strays apart), None without one."""
    try:
        with opened(path) as source:
            parser = RowParser((), {}, ZoneInfo(timezone))
            header = parser.header_in(source.read_at(0, HEAD_BYTES))
            return newest_in(source, parser, header) if header else None
    except Unavailable:
        return None


def newest_in(source: Source, parser: RowParser, header: Header, now_ms: int = _FOREVER_MS) -> int | None:
    """Newest instant near the end of the file that is not in the future, strays apart."""
    for span in (_PROBE_BYTES * 4, 2 * MAX_LINE):
        offset = max(0, source.size - span)
        data = source.read_at(offset, source.size - offset)
        whole = data[data.find(b"\n") + 1 if offset else 0 : data.rfind(b"\n") + 1]
        ts = np.array(parser.first_instants(whole, header, span), np.int64)
        intake = Intake(0)
        intake.feed(ts, np.empty((0, len(ts))), now_ms)
        if intake.newest_ms is not None or not offset:
            return intake.newest_ms
    return None
