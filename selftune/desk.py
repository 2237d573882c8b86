"""What the pages read: one reader a process for all sessions, never a file read whole at a tick.

Answers "what is known about this data root now?" as one frozen picture, made from the office's glance.
Never writes, never decides; a broken file becomes a `Problem` in the picture, not an exception.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from selftune.coarse import Coarse
from selftune.demo import is_demo
from selftune.domain import Mode, Problem, Reason
from selftune.files import read_small
from selftune.office import Glance, Office
from selftune.picture import Picture
from selftune.plan import Plan
from selftune.records import parse_line
from selftune.samples import StreamState
from selftune.series import Series
from selftune.settings import METRICS_FILE, SETTINGS_FILE, Settings
from selftune.standing import last_switch
from selftune.status import stopped_by
from selftune.view import BannerView, FileFact, LoanView, Stopped, data_age, loop_state

HEARTBEAT_FILE = "logs/loop_status.json"
HEARTBEAT_BYTES = 64 * 1024
KEPT = 64  # prepared results that sessions share; a few windows, languages and rules at a time
T = TypeVar("T")

FILES: tuple[tuple[str, str], ...] = (
    (SETTINGS_FILE, "settings"),
    (METRICS_FILE, "metrics"),
    ("controls/rules_history.jsonl", "history"),
    ("logs/rules_effects.csv", "effects"),
    ("logs/tuning_decisions.jsonl", "decisions"),
    (HEARTBEAT_FILE, "heartbeat"),
    ("controls/quotes_bank.jsonl", "quotes"),
    ("controls/risk_ledger.jsonl", "risks"),
    ("controls/approvals.jsonl", "approvals"),
)


@dataclass(frozen=True, kw_only=True)
class Now:
    """The data root as of `now_ms` (wall clock of this machine), as one glance of the office found it.

    `beat_age_s`: age of the heartbeat file by this machine's clock, None without one. `holding`: the
    loop's own word that it waits.
    """

    now_ms: int
    root: Path
    glance: Glance
    beat_age_s: float | None
    holding: bool
    demo: bool

    @property
    def picture(self) -> Picture | None:
        """The shared picture, None while there were never valid settings (or there is no disk)."""
        return self.glance.picture

    @property
    def plan(self) -> Plan | None:
        return self.glance.plan

    @property
    def stream(self) -> StreamState | None:
        return self.glance.stream

    @property
    def settings(self) -> Settings | None:
        """The valid ones, else the last valid ones seen (`problems` is then not empty), else None."""
        return self.picture.settings if self.picture else None

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.glance.problems

    @property
    def series(self) -> Series:
        return self.picture.snap.series if self.picture else Series.empty()

    @property
    def coarse(self) -> Coarse:
        return self.picture.snap.coarse if self.picture else Coarse.empty()

    @property
    def data_age_s(self) -> float | None:
        """Age of the newest sample, None without one; never negative for a row a moment ahead."""
        newest = self.series.newest_ms
        return None if newest is None else max(0.0, (self.now_ms - newest) / 1000)

    @cached_property
    def banner(self) -> BannerView:
        """The mode by mode.py, the pulse by this machine's clock, Stop by the governance record."""
        p = self.picture
        limit = self.settings.max_age_s if self.settings else 5.0
        return BannerView(
            loop=loop_state(self.beat_age_s), loop_age_s=self.beat_age_s, holding=self.holding,
            mode=p.mode.mode if p else Mode.DRY_RUN, data=data_age(self.data_age_s, limit),
            data_age_s=self.data_age_s, demo=self.demo, stopped=_stopped(p), loan=_loan(p),
            chain_broken=p is not None and not p.snap.records.chain.ok,
            settings_broken=bool(self.problems), fault=self.glance.fault,
        )  # fmt: skip


def _stopped(p: Picture | None) -> Stopped | None:
    found = stopped_by(p.snap.records.governance) if p else None
    if found is None:
        return None
    return Stopped(by=found.by, at_ms=found.ts_ms, reason=str(found.data.get("reason") or ""))


def _loan(p: Picture | None) -> LoanView | None:
    """The loan that runs, or how the last one ended as long as nothing came after it."""
    if p is None:
        return None
    loan, last = p.mode.loan, last_switch(p.snap.records.governance)
    if p.mode.live and loan is not None:
        return LoanView(changes_left=loan.changes_left, until_ms=loan.until_ms)
    if last is None or last.kind != "disarm" or p.mode.live:
        return None
    params = last.data.get("params")
    why = Reason(str(last.data.get("reason") or "mode.disarmed"), params if isinstance(params, dict) else {})
    left = loan is not None and (loan.until_ms or 0) > p.snap.now_ms and loan.changes_left != 0
    until_ms = loan.until_ms if loan is not None and left else None
    same = p.mode.reason.code == "mode.disarmed" and _lent_for(p) == p.settings.digest
    return LoanView(ended_ms=last.ts_ms, why=why, until_ms=until_ms, resumable=left and same)


def _lent_for(p: Picture) -> str | None:
    """The settings that the last loan was lent for."""
    arms = (g for g in reversed(p.snap.records.governance) if g.kind == "arm")
    found = next(arms, None)
    return str(found.data.get("settings")) if found is not None else None


class Desk:
    """What one process knows of one data root, for every session; safe to use from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.office = Office(root)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, object] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}

    def now(self) -> Now:
        """The present picture; the office shares one look among all that ask within a moment."""
        glance = self.office.glance()
        now_ms = time.time_ns() // 1_000_000
        age_s, holding = self._heartbeat(now_ms)
        return Now(
            now_ms=now_ms, root=self.root, glance=glance, beat_age_s=age_s, holding=holding,
            demo=is_demo(self.root),
        )  # fmt: skip

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, or what it gave for the same key a moment ago: sessions share prepared results.

        The key must name everything that the result depends on.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast("T", self._kept[key])
            making = self._making.setdefault(key, threading.Lock())
        with making:  # one session makes it, the others that want the same wait; nobody else does
            with self._lock:
                if key in self._kept:
                    return cast("T", self._kept[key])
            made = make()
            with self._lock:
                self._kept[key] = made
                self._making.pop(key, None)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return made

    def files(self) -> tuple[FileFact, ...]:
        """Each file of the contract: there or not, how large, how old."""
        return tuple(self._fact(path, purpose) for path, purpose in FILES)

    def _heartbeat(self, now_ms: int) -> tuple[float | None, bool]:
        """(age, holding). The age is by this machine's clock and the file's own time of change."""
        path = self.root / HEARTBEAT_FILE
        try:
            changed_ms = path.stat().st_mtime_ns // 1_000_000
            beat = parse_line(read_small(path, HEARTBEAT_BYTES) or b"null")
        except OSError:
            return None, False
        if not isinstance(beat, dict):
            return None, False
        return (now_ms - changed_ms) / 1000, beat.get("state") == "holding"

    def _fact(self, path: str, purpose: str) -> FileFact:
        try:
            found = os.stat(self.root / path)
        except OSError:
            return FileFact(path=path, purpose=purpose, size=None, age_s=None)
        return FileFact(
            path=path, purpose=purpose, size=found.st_size, age_s=max(0.0, time.time() - found.st_mtime)
        )
