"""What the pages read: one reader a process for all sessions, never a file read whole at a tick.

Answers "what is known about this data root now?" as one frozen picture. Never writes, never decides;
a broken file becomes a `Problem` in the picture, not an exception.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftune.coarse import Coarse
from selftune.config import parse
from selftune.demo import is_demo
from selftune.domain import InputError, Problem
from selftune.files import read_small
from selftune.samples import SampleStream, StreamState
from selftune.series import Series
from selftune.settings import METRICS_FILE, SETTINGS_FILE, Settings
from selftune.view import BannerView, FileFact, data_age, heartbeat_facts, loop_state

SETTINGS_BYTES = 256 * 1024
HEARTBEAT_BYTES = 64 * 1024
_SHARE_S = 0.4  # sessions that ask within this time share one look at the files

FILES: tuple[tuple[str, str], ...] = (
    (SETTINGS_FILE, "settings"),
    (METRICS_FILE, "metrics"),
    ("controls/rules_history.jsonl", "history"),
    ("logs/rules_effects.csv", "effects"),
    ("logs/tuning_decisions.jsonl", "decisions"),
    ("logs/loop_status.json", "heartbeat"),
    ("controls/quotes_bank.jsonl", "quotes"),
    ("controls/risk_ledger.jsonl", "risks"),
    ("controls/approvals.jsonl", "approvals"),
)


@dataclass(frozen=True, kw_only=True)
class Now:
    """The data root as of `now_ms` (wall clock of this machine).

    `settings`: the valid ones, or the last valid ones this process saw (`problems` is then not
    empty), or None when none were ever valid. `stream` is None as long as there are no settings.
    """

    now_ms: int
    root: Path
    settings: Settings | None
    problems: tuple[Problem, ...]
    series: Series
    coarse: Coarse
    stream: StreamState | None
    beat: Mapping[str, Any] | None
    beat_age_s: float | None
    demo: bool

    @property
    def data_age_s(self) -> float | None:
        """Age of the newest sample, None without one; never negative for a row a moment ahead."""
        newest = self.series.newest_ms
        return None if newest is None else max(0.0, (self.now_ms - newest) / 1000)

    @property
    def banner(self) -> BannerView:
        mode, holding = heartbeat_facts(self.beat)
        limit = self.settings.max_age_s if self.settings else 5.0
        return BannerView(
            loop=loop_state(self.beat_age_s), loop_age_s=self.beat_age_s, mode=mode, holding=holding,
            data=data_age(self.data_age_s, limit), data_age_s=self.data_age_s, demo=self.demo,
            problems=self.problems,
        )  # fmt: skip


class Desk:
    """Reads one data root for every session of the process; `now` may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._shared: tuple[float, Now] | None = None
        self._raw: bytes | None = None
        self._settings: Settings | None = None
        self._problems: tuple[Problem, ...] = ()
        self._stream: SampleStream | None = None
        self._stream_of: tuple[Any, ...] = ()

    def now(self) -> Now:
        """The present picture; looks made within a moment of each other share one."""
        with self._lock:
            if self._shared is None or time.monotonic() - self._shared[0] > _SHARE_S:
                picture = self._look()
                self._shared = (time.monotonic(), picture)
            return self._shared[1]

    def files(self) -> tuple[FileFact, ...]:
        """Each file of the contract: there or not, how large, how old."""
        return tuple(self._fact(path, purpose) for path, purpose in FILES)

    def _look(self) -> Now:
        now_ms = time.time_ns() // 1_000_000
        self._read_settings()
        stream = self._follow()
        series = stream.poll(now_ms) if stream else Series.empty()
        beat, age_s = self._heartbeat(now_ms)
        return Now(
            now_ms=now_ms, root=self.root, settings=self._settings, problems=self._problems, series=series,
            coarse=stream.coarse if stream else Coarse.empty(), stream=stream.state if stream else None,
            beat=beat, beat_age_s=age_s, demo=is_demo(self.root),
        )  # fmt: skip

    def _read_settings(self) -> None:
        """Parses again only when the bytes differ; an unreadable file keeps the last valid settings."""
        try:
            raw = read_small(self.root / SETTINGS_FILE, SETTINGS_BYTES)
        except (InputError, OSError):
            raw = None
        if raw is None:
            self._raw = None
            self._problems = (Problem(code="settings_missing", file=SETTINGS_FILE),)
            return
        if raw == self._raw:
            return
        self._raw = raw
        try:
            self._settings = parse(raw, file=SETTINGS_FILE)
            self._problems = ()
        except InputError as error:
            self._problems = error.problems

    def _follow(self) -> SampleStream | None:
        """The stream for the settings in force; a new one when metrics, ranges or the zone changed."""
        s = self._settings
        if s is None:
            return None
        ranges = {m: (t.lo, t.hi) for m, t in s.targets.items()}
        key = (s.metrics, tuple(ranges.items()), s.timezone)
        if self._stream is None or key != self._stream_of:
            path = self.root / METRICS_FILE
            self._stream = SampleStream(path, metrics=s.metrics, ranges=ranges, timezone=s.timezone)
            self._stream_of = key
        return self._stream

    def _heartbeat(self, now_ms: int) -> tuple[Mapping[str, Any] | None, float | None]:
        """(record, age). The age is by this machine's clock and the file's own time of change."""
        path = self.root / "logs" / "loop_status.json"
        try:
            raw = read_small(path, HEARTBEAT_BYTES)
            changed_ms = path.stat().st_mtime_ns // 1_000_000
            beat = json.loads(raw) if raw else None
        except (InputError, OSError, ValueError, RecursionError):
            return None, None
        if not isinstance(beat, dict):
            return None, None
        return beat, (now_ms - changed_ms) / 1000

    def _fact(self, path: str, purpose: str) -> FileFact:
        try:
            found = os.stat(self.root / path)
        except OSError:
            return FileFact(path=path, purpose=purpose, size=None, age_s=None)
        return FileFact(
            path=path, purpose=purpose, size=found.st_size, age_s=max(0.0, time.time() - found.st_mtime)
        )
