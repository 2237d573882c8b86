"""Lines of the ledger files, in any portions, gathered into records.

Answers "what do all lines so far say?". Pure: lines and instants come in, `Records` come out; the same
for a file on disk and for one in memory. Nothing here raises for what a line may hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from selftune import effectrows, records
from selftune.book import (
    APPROVALS,
    DECISIONS,
    EFFECTS,
    HISTORY,
    QUOTES,
    RISKS,
    ZERO_HASH,
    Chain,
    Records,
    Version,
    View,
)
from selftune.domain import JsonDict
from selftune.records import Reject

FILES = (HISTORY, RISKS, QUOTES, EFFECTS, DECISIONS, APPROVALS)
"""Order of reading. History before decisions: each event read has its decision. Approvals last: any
head recorded elsewhere is then in the file, unless somebody cut it."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The instant of one reading on both clocks; `floor_ms`: the steady instant of the reading before."""

    wall_ms: int
    steady_ms: int
    floor_ms: int | None = None

    def at(self, ts_ms: int) -> int:
        """`ts_ms` on the steady clock: never later than now, never before the reading that lacked it."""
        at = self.steady_ms - max(0, self.wall_ms - ts_ms)
        return at if self.floor_ms is None else min(self.steady_ms, max(self.floor_ms, at))


@dataclass
class Sheet:
    """What one file said so far. `at` outlives a re-reading: a record keeps the instant it was seen."""

    items: list[Any] = field(default_factory=list)
    rejects: Counter[str] = field(default_factory=Counter)
    digests: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    at: dict[str, int] = field(default_factory=dict)
    lines: int = 0
    last_ts_ms: int = 0
    reread: int = 0
    unfinished: bool = False
    problem: str | None = None

    def again(self) -> Sheet:
        """An empty sheet for the file that took this one's place."""
        return Sheet(at=self.at, reread=self.reread + 1)


class Gather:
    """Takes lines in, gives `Records` out. Not for two threads at once."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self.sheets = {name: Sheet() for name in FILES}
        self.hashes: list[str] = []
        self.header: tuple[str, ...] | None = None
        self.header_line = ""
        self.header_end = "\n"
        self._broken_at: int | None = None
        self._heads: set[tuple[int, str]] = set()

    # ------------------------------------------------------------------------- in
    def restart(self, name: str) -> None:
        """Forget what `name` said: another file stands in its place."""
        self.sheets[name] = self.sheets[name].again()
        if name == APPROVALS:
            self.hashes, self._broken_at = [], None
        if name == EFFECTS:
            self.header, self.header_line, self.header_end = None, "", "\n"

    def take(self, name: str, lines: Sequence[bytes | None], moment: Moment, known: bool = True) -> None:
        """Add lines (without LF; None: too long). `known` False: a re-reading, ages come from `ts`."""
        sheet = self.sheets[name]
        if not known:
            moment = Moment(wall_ms=moment.wall_ms, steady_ms=moment.steady_ms)
        for line in lines:
            sheet.lines += 1
            plain = None if line is None else line.removesuffix(b"\r")
            if name == APPROVALS:
                self.hashes.append(ZERO_HASH if plain is None else records.sha256(plain))
            if plain is None:
                sheet.rejects[Reject.TOO_LONG] += 1
            elif name == EFFECTS:
                self._take_row(sheet, plain, (line or b"").endswith(b"\r"))
            elif plain.strip():
                self._take_json(name, sheet, plain, moment)

    def note_head(self, head: Any) -> None:
        """Remember a recorded `approvals_head`: from now on the file must hold it."""
        if not isinstance(head, Mapping):
            return
        n, sha = head.get("n"), head.get("sha256")
        if isinstance(n, int) and not isinstance(n, bool) and n > 0 and isinstance(sha, str):
            self._heads.add((n, sha))

    def _take_json(self, name: str, sheet: Sheet, line: bytes, moment: Moment) -> None:
        if sheet.lines == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        data = records.parse_line(line)
        if isinstance(data, Reject):
            sheet.rejects[data] += 1
            return
        if name == APPROVALS:
            self._link(data)
        record = self._record(name, sheet, data, line, moment)
        if isinstance(record, Reject):
            sheet.rejects[record] += 1
        else:
            sheet.items.append(record)
            if name == DECISIONS:
                self.note_head(data.get("approvals_head"))

    def _record(self, name: str, sheet: Sheet, data: JsonDict, line: bytes, moment: Moment) -> Any:
        ts_ms = self._instant(sheet, data)
        key = self._key(sheet, data, line)
        at_ms = sheet.at.setdefault(key, moment.at(ts_ms))
        if name == HISTORY:
            return records.rule_event(data, key=key, ts_ms=ts_ms, at_ms=at_ms)
        if name == DECISIONS:
            return records.decision(data, key=key, ts_ms=ts_ms, at_ms=at_ms)
        if name == APPROVALS:
            return records.governance(data, key=key, ts_ms=ts_ms, at_ms=at_ms, n=len(self.hashes))
        if name == RISKS:
            return records.risk_warning(data, ts_ms=ts_ms, at_ms=at_ms, zone=self.zone)
        return records.quote(data, ts_ms=ts_ms)

    def _instant(self, sheet: Sheet, data: JsonDict) -> int:
        """The record's `ts`; without a usable one that of the line before, so that its value still counts."""
        ts_ms, naive = records.instant_ms(data.get("ts"), self.zone)
        if naive:
            sheet.rejects[Reject.NAIVE_TS] += 1
        if ts_ms is None:
            sheet.rejects[Reject.BAD_TS] += 1
            return sheet.last_ts_ms
        sheet.last_ts_ms = ts_ms
        return ts_ms

    def _key(self, sheet: Sheet, data: JsonDict, line: bytes) -> str:
        found = data.get("id")
        if isinstance(found, str) and found and found not in sheet.keys:
            sheet.keys.add(found)
            return found
        if isinstance(found, str) and found:  # a copied line: its value counts, its id is taken
            sheet.rejects[Reject.DUPLICATE_ID] += 1
        digest = records.sha256(line)
        sheet.digests[digest] += 1
        return records.foreign_key(digest, sheet.digests[digest])

    def _link(self, data: JsonDict) -> None:
        before = self.hashes[-2] if len(self.hashes) > 1 else ZERO_HASH
        if data.get("prev") != before and self._broken_at is None:
            self._broken_at = len(self.hashes)

    def _take_row(self, sheet: Sheet, line: bytes, crlf: bool) -> None:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            sheet.rejects[Reject.NOT_UTF8] += 1
            return
        if "\0" in text:
            sheet.rejects[Reject.NUL] += 1
        elif self.header is None or not effectrows.is_known(self.header):
            self._take_header(sheet, text, crlf)
        elif isinstance(row := effectrows.parse_row(self.header, text, self.zone), Reject):
            sheet.rejects[row] += 1
        elif row is not None:
            sheet.items.append(row)

    def _take_header(self, sheet: Sheet, text: str, crlf: bool) -> None:
        """The first known header counts; a torn one before it does not stop the file for ever."""
        if not text.strip():
            return
        header = effectrows.parse_header(text)
        if effectrows.is_known(header) or self.header is None:
            self.header, self.header_line, self.header_end = header, text, "\r\n" if crlf else "\n"
        if not effectrows.is_known(header):
            sheet.rejects[Reject.UNKNOWN_HEADER] += 1

    # ------------------------------------------------------------------------- out
    def chain(self) -> Chain:
        """The hash chain as read, checked against every head that was ever recorded."""
        n = len(self.hashes)
        last = self.hashes[-1] if self.hashes else ZERO_HASH
        if self.sheets[APPROVALS].problem is not None:
            return Chain(n=n, sha256=last, reason="unreadable")
        if self._broken_at is not None:
            return Chain(n=n, sha256=last, reason="prev", line=self._broken_at)
        for at, sha in self._heads:
            if at > n or self.hashes[at - 1] != sha:
                return Chain(n=n, sha256=last, reason="head", line=at)
        self._heads = {(n, last)} if n else set()  # it implies, by the chain, all the older ones
        return Chain(n=n, sha256=last)

    def records(self, version: Version, moment: Moment, settings: bytes | None) -> Records:
        """Everything gathered so far, as an immutable snapshot that costs nothing to take."""
        sheets = self.sheets
        return Records(
            version=version,
            chain=self.chain(),
            settings=settings,
            events=View(sheets[HISTORY].items),
            decisions=View(sheets[DECISIONS].items),
            governance=View(sheets[APPROVALS].items),
            warnings=View(sheets[RISKS].items),
            quotes=View(sheets[QUOTES].items),
            effect_rows=View(sheets[EFFECTS].items),
            rejects={f: dict(s.rejects) for f, s in sheets.items() if s.rejects},
            reread={f: s.reread for f, s in sheets.items() if s.reread},
            problems={f: s.problem for f, s in sheets.items() if s.problem},
            unfinished=tuple(f for f, s in sheets.items() if s.unfinished),
            effects_header=self.header,
            effects_known=self.header is None or effectrows.is_known(self.header),
            now_ms=moment.wall_ms,
            now_at_ms=moment.steady_ms,
        )
