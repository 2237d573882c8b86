"""The two files of a tuned system: it reads its rules from one and writes its metrics to the other.

What any real system has to do to be tuned, and no more: follow `controls/rules_history.jsonl`, append to
`logs/metrics.csv`. The demo's plant uses it. Never decides, never writes a rule.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo
from pathlib import Path

from selftune.domain import Rule
from selftune.files import Tail
from selftune.plants import PlantSpec
from selftune.simulate import Rows, RuleChange
from selftune.source import Unavailable, opened

_MAX_LINE = 1 << 16


class RuleTail:
    """The rule history as a tuned system reads it: only what is new, only what makes sense.

    A value makes sense when it is a finite number at most one whole range outside the rule's bounds.
    A stamp without an offset is read in `zone`.
    """

    def __init__(self, path: Path, rules: Sequence[Rule], zone: tzinfo) -> None:
        self.path, self.zone = path, zone
        self._spans = {r.name: (2 * r.min - r.max, 2 * r.max - r.min) for r in rules}
        self._tail = Tail(path, max_line=_MAX_LINE)

    def read(self) -> list[RuleChange]:
        """The changes that are new since the last call, in the file's order; all at first."""
        found: list[RuleChange] = []
        more = True
        while more:
            news = self._tail.news()
            found += filter(None, (self._change(line) for line in news.lines if line))
            more = news.more
        return found

    def _change(self, line: bytes) -> RuleChange | None:
        try:
            event = json.loads(line)
            rule, new = event["rule"], event["new"]
            lo, hi = self._spans[rule]
            if type(new) not in (int, float) or not lo <= new <= hi:
                return None
            return instant(event.get("ts"), self.zone), rule, float(new)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None  # a foreign line that says nothing about our rules


def newest(changes: Sequence[RuleChange]) -> dict[str, float]:
    """The last value of each rule, in the file's order: the history's last word is in force."""
    return {rule: new for _, rule, new in changes}


def instant(ts: object, zone: tzinfo) -> int:
    """Milliseconds of an ISO 8601 stamp; 0, long ago, for anything else."""
    try:
        at = datetime.fromisoformat(str(ts))
        return round((at if at.tzinfo else at.replace(tzinfo=zone)).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return 0


class MetricsFile:
    """The metrics file that the demo appends to: one write a call, whole lines, a header when new."""

    def __init__(self, path: Path, spec: PlantSpec, zone: tzinfo) -> None:
        self.path, self.zone, self.rows = path, zone, 0
        self._header = ("ts," + ",".join(spec.names) + "\n").encode()
        self._decimals = {m.name: m.decimals for m in spec.metrics}
        self._mend = b"\n" if self._tail()[-1:] not in (b"", b"\n") else b""

    def append(self, rows: Rows) -> None:
        """Write the rows that were not lost, duplicates twice."""
        text = "".join(self._lines(rows)).encode()
        new = not self.path.exists() or self.path.stat().st_size == 0
        # a line torn by an earlier crash is ended first, so that it spoils only itself
        data = (self._header if new else self._mend) + text
        if text:
            append(self.path, data)
            self._mend = b""
            self.rows += text.count(b"\n")

    def last_ms(self) -> int | None:
        """The instant of the last row, None without one."""
        for line in reversed(self._tail().splitlines()):
            if at := instant(line.split(b",")[0].decode(errors="replace"), self.zone):
                return at
        return None

    def _tail(self) -> bytes:
        try:
            with opened(self.path) as source:
                return source.read_at(max(0, source.size - 4096), 4096)
        except Unavailable:
            return b""

    def _lines(self, rows: Rows) -> Iterator[str]:
        columns = [[self._cell(m, x) for x in rows.values[m].tolist()] for m in self._decimals]
        cells = zip(rows.ts_ms.tolist(), rows.copies.tolist(), *columns, strict=True)
        for ts, copies, *values in cells:
            if copies:
                yield (f"{iso(ts, self.zone)},{','.join(values)}\n") * copies

    def _cell(self, metric: str, value: float) -> str:
        if math.isnan(value):
            return ""
        decimals = self._decimals[metric]
        return repr(value) if decimals is None else f"{value:.{decimals}f}"


def iso(ts_ms: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, zone).isoformat(timespec="milliseconds")


def append(path: Path, data: bytes) -> None:
    """Append with one write. Raises: OSError, also for a short write."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(f"short write to {path}")
    finally:
        os.close(fd)
