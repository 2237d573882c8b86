"""Bytes of the metrics file -> rows: the tolerant parser, and what it skips, by reason.

Answers "which rows and cells of these whole lines can be used?". Pure: no file, no clock; order,
duplicates and epochs are `intake.py`'s. Two paths give the same rows: line by line, which knows
every oddity, and a columnar one for blocks of plain lines (many times faster), which hands a block
back to the first at the slightest doubt.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

import numpy as np
from numpy.typing import NDArray

from selftune.series import Floats, Int64s

MAX_LINE = 1 << 20
# Every key of `rejects`; the catalogue has `reject.<name>` for each.
REASONS = (
    "torn",
    "nul",
    "not_utf8",
    "cells",
    "ts",
    "no_number",
    "too_long",
    "no_header",  # rows, by the parser
    "stray",
    "ahead",
    "duplicate_ts",
    "overflow",  # rows, by the intake
    "value",
    "range",  # cells
    "naive_ts",
    "out_of_order",  # used all the same
)

Range = tuple[float | None, float | None]

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - both ends of a difference are naive
_MS = timedelta(milliseconds=1)
_TS = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):([0-5]\d|60)(?:[.,](\d+))?\s?"
    r"([Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?|)",
    re.ASCII,
)
_BLOCK_LINES = 4096
_PLAIN_MOST = 4096  # characters of a line that is read beside others; longer ones are looked at alone
_DECIMAL_MOST = 16  # characters: 15 digits and a point
_TENS = np.array([float(10**k) for k in range(_DECIMAL_MOST)])
_FAST_FROM_LINES = 48  # below this numpy's fixed costs exceed what they save
_CACHE_ENTRIES = 4096


@dataclass(frozen=True, kw_only=True)
class Header:
    """The columns' names in the file's order, and where `ts` stands."""

    names: tuple[str, ...]
    ts: int

    def columns(self, metrics: Sequence[str]) -> tuple[int, ...]:
        """The column of each metric, -1 for one that the file does not have."""
        return tuple(self.names.index(m) if m in self.names else -1 for m in metrics)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Usable rows in the file's order. Shape: ts_ms int64[n]; values float64[metrics, n], NaN = missing.

    `header` is the one in force after the last line; `rejects` and `outside` (values out of their
    range, by metric) count what these lines cost.
    """

    ts_ms: Int64s
    values: Floats
    header: Header | None
    rejects: Counter[str] = field(default_factory=Counter)
    outside: Counter[str] = field(default_factory=Counter)


def parse_header(cells: Sequence[str]) -> Header | None:
    """The header that these cells are, None without a cell `ts`."""
    names = tuple(c.replace("\ufeff", "").strip().strip('"').strip() for c in cells)
    return Header(names=names, ts=names.index("ts")) if "ts" in names else None


def split_cells(text: str) -> list[str]:
    """The cells of one line; quotes are honoured where there are any."""
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text]))
    except (csv.Error, StopIteration):
        return []


def number(cell: str) -> float:
    """The finite number in a cell, NaN for anything else (Python's own `1_000` included)."""
    try:
        x = float(cell)
    except ValueError:
        return math.nan
    return x if math.isfinite(x) and "_" not in cell and cell.isascii() else math.nan


class Instants:
    """ISO 8601 text -> int ms UTC; a minute's prefix is worked out once and remembered."""

    def __init__(self, tz: tzinfo) -> None:
        self._tz = tz
        self._minutes: dict[tuple[str, str], int | None] = {}

    def minute(self, prefix: str, offset: str) -> int | None:
        """Start of the minute `YYYY-MM-DD?HH:MM` at `offset` ("" = the file's own zone), None if no such."""
        key = (prefix, offset)
        if key not in self._minutes:
            if len(self._minutes) >= _CACHE_ENTRIES:
                self._minutes.clear()
            self._minutes[key] = self._work_out(prefix, offset)
        return self._minutes[key]

    def parse(self, cell: str) -> tuple[int, bool] | None:
        """(instant, was naive), None if the cell is no ISO 8601 date and time. Fractions are cut to ms."""
        found = _TS.fullmatch(cell.strip())
        if not found:
            return None
        day, clock, second, fraction, offset = found.groups()
        base = self.minute(f"{day}T{clock}", offset)
        if base is None:
            return None
        ms = int((fraction + "00")[:3]) if fraction else 0
        return base + int(second) * 1000 + ms, not offset

    def _work_out(self, prefix: str, offset: str) -> int | None:
        try:
            day, clock = (prefix[:4], prefix[5:7], prefix[8:10]), (prefix[11:13], prefix[14:16])
            local = datetime(*map(int, day), *map(int, clock))  # type: ignore[arg-type] # noqa: DTZ001
            shift = _offset(offset) if offset else self._tz.utcoffset(local)
        except (ValueError, OverflowError):
            return None
        return (local - _EPOCH - (shift or timedelta())) // _MS


def _offset(text: str) -> timedelta:
    if text in "Zz":
        return timedelta()
    digits = text[1:].replace(":", "").ljust(4, "0")
    shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]))
    return -shift if text[0] == "-" else shift


class RowParser:
    """Parses whole lines into `Rows` for the given metrics, ranges and zone of naive stamps."""

    def __init__(self, metrics: Sequence[str], ranges: Mapping[str, Range], tz: tzinfo) -> None:
        self.metrics = tuple(metrics)
        self._instants = Instants(tz)
        self._low = np.array([_or(ranges.get(m, (None, None))[0], -math.inf) for m in self.metrics])
        self._high = np.array([_or(ranges.get(m, (None, None))[1], math.inf) for m in self.metrics])

    def parse(self, body: bytes, header: Header | None) -> Rows:
        """The rows of `body`, which must end with a newline; `header` is in force before its first line."""
        work = _Work(header, self.metrics)
        if body.count(b"\n") < _FAST_FROM_LINES:
            self._lines(body, work)
        else:
            self._blocks(body, work)
        return self._finish(work)

    def header_in(self, head: bytes) -> Header | None:
        """The first header among the whole lines of `head`."""
        for line in head.split(b"\n")[:-1]:
            if b"ts" in line and len(line) <= MAX_LINE:
                found = parse_header(split_cells(line.decode("utf-8", "replace").rstrip("\r")))
                if found:
                    return found
        return None

    def first_instants(self, body: bytes, header: Header, n: int) -> list[int]:
        """The first `n` instants in `body` (whole lines), whatever else is right or wrong in their rows."""
        found: list[int] = []
        for line in body.split(b"\n")[:-1]:
            cells = split_cells(line.decode("utf-8", "replace")) if len(line) <= MAX_LINE else []
            stamp = self._instants.parse(cells[header.ts]) if header.ts < len(cells) else None
            if stamp:
                found.append(stamp[0])
            if len(found) == n:
                break
        return found

    # -------------------------------------------------------------- line by line
    def _lines(self, body: bytes, work: _Work) -> None:
        ts: list[int] = []
        values: list[list[float]] = []
        for line in body.split(b"\n")[:-1]:
            row = self._line(line, work)
            if row is not None:
                ts.append(row[0])
                values.append(row[1])
        if ts:
            work.add(np.array(ts, np.int64), np.array(values, np.float64).reshape(len(ts), -1).T)

    def _line(self, line: bytes, work: _Work) -> tuple[int, list[float]] | None:
        text = _text(line, work.rejects)
        if text is None:
            return None
        cells = split_cells(text)
        header = work.header
        stamp = self._instants.parse(cells[header.ts]) if header and header.ts < len(cells) else None
        # A row whose stamp reads is data even if some other cell says "ts".
        if stamp is None and "ts" in text and (again := parse_header(cells)):
            work.use(again)
            return None
        if header is None:
            work.rejects["no_header"] += 1
            return None
        if stamp is None or len(cells) != len(header.names):
            work.rejects["ts" if len(cells) == len(header.names) else "cells"] += 1
            return None
        numbers = [number(cells[c]) if c >= 0 else math.nan for c in work.columns]
        if all(map(math.isnan, numbers)):
            work.rejects["no_number"] += 1
            return None
        work.rejects["value"] += sum(map(math.isnan, numbers)) - work.columns.count(-1)
        work.rejects["naive_ts"] += stamp[1]
        return stamp[0], numbers

    # -------------------------------------------------------------- block by block
    def _blocks(self, body: bytes, work: _Work) -> None:
        ends = np.flatnonzero(np.frombuffer(body, np.uint8) == 10) + 1
        start = 0
        for last in range(_BLOCK_LINES - 1, len(ends) + _BLOCK_LINES - 1, _BLOCK_LINES):
            end = int(ends[min(last, len(ends) - 1)])
            block = body[start:end]
            if not self._columnar(block, work):
                self._lines(block, work)
            start = end

    def _columnar(self, block: bytes, work: _Work) -> bool:
        """Adds the rows of a block of plain lines; False (and nothing added) if any line is not plain."""
        header = work.header
        if header is None or len(header.names) < 2 or not block.isascii():
            return False
        if any(odd in block for odd in (b"\0", b'"', b"_")):
            return False
        raw = np.frombuffer(block, np.uint8)
        cells = _even(raw, len(header.names)) or _uneven(raw, len(header.names))
        if cells is None:
            return False
        stamps = self._stamps(cells[header.ts])
        if stamps is None:
            return False
        ts, naive = stamps
        flat: list[str] | None = None
        values = np.full((len(self.metrics), len(ts)), np.nan)
        for row, column in zip(values, work.columns, strict=True):
            if column < 0:
                continue
            plain = _decimals(cells[column])
            if plain is None:
                flat = flat or block.decode("ascii").replace("\n", ",").split(",")
                row[:] = _numbers(flat[column : -1 : len(header.names)])
            else:
                row[:] = plain
        finite = np.isfinite(values)
        if finite.all():
            work.rejects["naive_ts"] += int(naive.sum())
            work.add(ts, values)
            return True
        values[~finite] = np.nan
        keep = ~np.isnan(values).all(axis=0)
        work.rejects["no_number"] += int(len(ts) - keep.sum())
        work.rejects["naive_ts"] += int(naive[keep].sum())
        work.rejects["value"] += int(np.isnan(values[:, keep]).sum()) - work.columns.count(-1) * int(
            keep.sum()
        )
        work.add(ts[keep], values[:, keep])
        return True

    def _stamps(self, cells: _Cells) -> tuple[Int64s, NDArray[np.bool_]] | None:
        ts, naive = np.empty(cells.n, np.int64), np.zeros(cells.n, np.bool_)
        for w, rows in cells.widths():
            found = self._same_width(cells.text(w, rows)) if 19 <= w <= 64 else None
            if found is None:
                return None
            ts[rows], naive[rows] = found
        return ts, naive

    def _same_width(self, text: NDArray[np.uint8]) -> tuple[Int64s, bool] | None:
        """(instants, naive) of stamps that differ in digits alone, None if they do not."""
        sample = text[0].tobytes().decode("ascii")
        found = _TS.fullmatch(sample)
        if not found:
            return None
        fixed = [16, *([19] if found[4] else []), *range(found.start(5), len(sample))]
        if any((text[:, i] != text[0, i]).any() for i in fixed):
            return None
        digits = text[:, 17 : 19 + (1 + len(found[4]) if found[4] else 0)] - np.uint8(48)
        digits[:, 2:3] = 0  # the point
        if digits.max() > 9:
            return None
        if sample[len(sample) - len(found[5]) - 1].isspace():
            return None  # a space before the offset: let the regular expression judge each
        if (digits[:, 0] * np.uint8(10) + digits[:, 1] > 60).any():
            return None
        head = np.ascontiguousarray(text[:, :16]).view(np.uint64)
        new = np.flatnonzero(np.r_[True, (head[1:] != head[:-1]).any(axis=1)])
        if (text[new][:, [4, 7, 10, 13]] != text[0, [4, 7, 10, 13]]).any():
            return None
        bases = [self._minute(text[i, :16].tobytes(), found[5]) for i in new]
        if None in bases:
            return None
        base = np.repeat(np.array(bases, np.int64), np.diff(np.r_[new, len(text)]))
        places = np.zeros(max(6, digits.shape[1]))
        places[[0, 1, 3, 4, 5]] = 10_000, 1000, 100, 10, 1
        return base + (digits @ places[: digits.shape[1]]).astype(np.int64), not found[5]

    def _minute(self, prefix: bytes, offset: str) -> int | None:
        text = prefix.decode("ascii")
        digits = text[:4] + text[5:7] + text[8:10] + text[11:13] + text[14:16]
        return self._instants.minute(f"{text[:10]}T{text[11:]}", offset) if digits.isdigit() else None

    # -------------------------------------------------------------- ranges
    def _finish(self, work: _Work) -> Rows:
        ts, values = work.joined()
        with np.errstate(invalid="ignore"):
            outside = (values < self._low[:, None]) | (values > self._high[:, None])
        if outside.any():
            values[outside] = np.nan
            for metric, n in zip(self.metrics, outside.sum(axis=1), strict=True):
                work.outside[metric] += int(n)
            work.rejects["range"] += int(outside.sum())
        return Rows(ts_ms=ts, values=values, header=work.header, rejects=+work.rejects, outside=+work.outside)


class _Work:
    """What one call of `parse` gathers."""

    def __init__(self, header: Header | None, metrics: Sequence[str]) -> None:
        self._metrics = metrics
        self.rejects: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()
        self._ts: list[Int64s] = []
        self._values: list[Floats] = []
        self.header = header
        self.columns = header.columns(metrics) if header else (-1,) * len(metrics)

    def use(self, header: Header) -> None:
        self.header = header
        self.columns = header.columns(self._metrics)

    def add(self, ts: Int64s, values: Floats) -> None:
        self._ts.append(ts)
        self._values.append(values)

    def joined(self) -> tuple[Int64s, Floats]:
        if len(self._ts) == 1:
            return self._ts[0], self._values[0]
        if not self._ts:
            return np.empty(0, np.int64), np.empty((len(self._metrics), 0))
        return np.concatenate(self._ts), np.concatenate(self._values, axis=1)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _text(line: bytes, rejects: Counter[str]) -> str | None:
    """The line as text without its carriage return; None (and counted) if it cannot be one, or is blank."""
    if len(line) > MAX_LINE:
        rejects["too_long"] += 1
    elif b"\0" in line:
        rejects["nul"] += 1
    else:
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError:
            rejects["not_utf8"] += 1
        else:
            return text if text.strip() else None
    return None


_Rows = slice | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Cells:
    """One column of a block: where the cells stand, or, where all lines are alike, their characters."""

    n: int
    raw: NDArray[np.uint8]  # of the whole block, or of this column: (lines, width)
    starts: Int64s | None = None
    ends: Int64s | None = None

    def widths(self) -> Iterator[tuple[int, _Rows]]:
        """(width, which lines have a cell of it), narrow cells first."""
        if self.starts is None or self.ends is None:
            yield self.raw.shape[1], slice(None)
            return
        width = self.ends - self.starts
        for w in np.flatnonzero(np.bincount(width)).tolist():
            yield w, np.flatnonzero(width == w)

    def text(self, width: int, rows: _Rows) -> NDArray[np.uint8]:
        """The characters of these cells of one width. Shape: (lines, width)."""
        if self.starts is None:
            return self.raw
        found: NDArray[np.uint8] = self.raw[self.starts[rows, None] + np.arange(width)]
        return found


def _even(raw: NDArray[np.uint8], width: int) -> list[_Cells] | None:
    """The columns of a block whose lines have their commas at the same places, else None."""
    length = int(np.argmax(raw == 10)) + 1
    n, rest = divmod(len(raw), length)
    if rest or length > _PLAIN_MOST:
        return None
    text = raw.reshape(n, length)
    commas = np.flatnonzero(text[0] == 44)
    marks = np.append(commas, length - 1)
    if len(commas) != width - 1 or (text[:, marks] != text[0, marks]).any():
        return None
    if np.count_nonzero(raw == 44) != n * (width - 1) or np.count_nonzero(raw == 10) != n:
        return None
    returns = text[:, -2] == 13 if length > 1 else np.zeros(n, np.bool_)
    if returns.any() and not returns.all():
        return None
    ends = np.append(commas, length - 1 - int(returns[0]))
    begins = np.append(0, commas + 1)
    return [_Cells(n, text[:, a:b]) for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]


def _uneven(raw: NDArray[np.uint8], width: int) -> list[_Cells] | None:
    """The columns of a block; None unless each line has `width` short cells."""
    ends = np.flatnonzero(raw == 10)
    commas = np.flatnonzero(raw == 44)
    if len(commas) != len(ends) * (width - 1):
        return None
    grid = commas.reshape(len(ends), width - 1)
    begins = np.r_[0, ends[:-1] + 1]
    if (grid[:, 0] < begins).any() or (grid[:, -1] > ends).any() or (ends - begins).max() > _PLAIN_MOST:
        return None
    last = ends - ((raw[ends - 1] == 13) & (ends > begins))
    starts, stops = np.column_stack([begins, grid + 1]), np.column_stack([grid, last])
    return [_Cells(len(ends), raw, starts[:, i], stops[:, i]) for i in range(width)]


def _decimals(cells: _Cells) -> Floats | None:
    """One column's numbers, to the last bit those of `float`; None unless all are like `0.285` or `-12.5`.

    Exact: whole numbers below 2**53 over a power of ten up to 22 are rounded once, by the division.
    Source: W. D. Clinger, How to read floating point numbers accurately, 1990.
    """
    out = np.empty(cells.n)
    for w, rows in cells.widths():
        if not 3 <= w <= _DECIMAL_MOST:
            return None
        text = cells.text(w, rows)
        minus = text[:, 0] == ord("-")
        if minus.any():
            text = text.copy()
            text[minus, 0] = ord("0")
        point = text[0].tobytes().find(b".")
        if not 0 < point < w - 1 or (text[:, point] != ord(".")).any():
            return None
        digits = text - np.uint8(ord("0"))
        digits[:, point] = 0
        if digits.max() > 9 or (minus.any() and point < 2):
            return None
        whole = digits @ np.insert(_TENS[w - 2 :: -1], point, 0.0)
        out[rows] = np.where(minus, -1.0, 1.0) * (whole / _TENS[w - 1 - point])
    return out


def _numbers(cells: list[str]) -> list[float]:
    try:
        return list(map(float, cells))
    except ValueError:
        return list(map(number, cells))
