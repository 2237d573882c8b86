"""A data root, opened: settings, ledgers and stream as one `Snapshot`, and one commit.

Answers "what is true now?" for loop, command line and dashboard alike, and writes what a plan wants.
Never decides. Clocks are handed in, so that a test may drive them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

from selftune import catalogue
from selftune.acting import batch_of, deltas_json
from selftune.book import SETTINGS, Batch, Committed, Records
from selftune.coarse import Coarse
from selftune.config import parse
from selftune.cycle import last_deltas, make_plan, plan_of
from selftune.domain import Problem, Reason, SettingsError, StaleSnapshot
from selftune.files import OS, Ops, is_there, read_small
from selftune.ledger import FileLedger, Ledger, must_be_readable
from selftune.lifecycle import Folding, Life
from selftune.picture import Picture
from selftune.plan import ACTOR, Act, Memo, Plan, Snapshot
from selftune.samples import SampleStream
from selftune.series import Series
from selftune.settings import Settings
from selftune.wording import sentence

SETTINGS_READ = 1 << 20
TRIES = 5  # whoever commits second reads again; more than this is somebody writing without pause


@dataclass(frozen=True)
class Clock:
    """Wall and steady time in ms. The steady axis starts at the wall's value and never jumps."""

    wall: Callable[[], int]
    steady: Callable[[], int]

    @staticmethod
    def real() -> Clock:
        """This machine's clocks."""
        start = time.time_ns() // 1_000_000
        base = time.monotonic_ns() // 1_000_000
        return Clock(
            wall=lambda: time.time_ns() // 1_000_000,
            steady=lambda: start + time.monotonic_ns() // 1_000_000 - base,
        )


def data_root(given: str | os.PathLike[str] | None = None) -> Path:
    """The data root: `--root`, else SELFTUNE_ROOT, else the checkout if it holds settings, else here.

    Never raises: `~nobody`, a link to itself or a vanished folder is a root in which nothing is found.
    """
    named = given or os.environ.get("SELFTUNE_ROOT")
    if named:
        return _real(os.path.expanduser(named))
    checkout = Path(__file__).resolve().parent.parent
    return checkout if os.path.isfile(checkout / SETTINGS) else _real(".")


def _real(path: str) -> Path:
    try:
        return Path(os.path.realpath(path))
    except OSError:  # the current folder is gone
        return Path(path)


def _settings_text(root: Path, ops: Ops) -> bytes | None:
    """The settings file, also one too large to be in force: the words then say so, not that it is missing."""
    return read_small(root / SETTINGS, SETTINGS_READ, ops=ops)


class SettingsBook:
    """The settings in force: the last valid ones, and why the file on disk is not in force."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._sha: str | None = None
        self._settings: Settings | None = None
        self.problem: Reason | None = None
        self.error: SettingsError | None = None

    def take(self, text: bytes | None, sha: str | None) -> Settings:
        """Settings for these bytes. Raises: SettingsError while no valid settings were ever seen."""
        if sha != self._sha or self._settings is None:
            self._sha = sha
            try:
                if text is None:
                    raise SettingsError(Problem(code=self._why_none(), file=SETTINGS))
                self._settings = parse(text, file=SETTINGS)
                self.problem = self.error = None
            except SettingsError as e:
                self.error = e
                first = e.problems[0]
                self.problem = Reason(
                    "settings.invalid",
                    {
                        "problem": first.code,
                        "file": first.file,
                        "line": first.line,
                        "key": first.key,
                        **first.params,
                    },
                )
        if self._settings is None:
            assert self.error is not None
            raise self.error
        return self._settings

    def _why_none(self) -> str:
        there = self._path is not None and is_there(self._path)
        return "unreadable_file" if there else "missing_file"


class Stream(Protocol):
    """Where the samples come from: the metrics file, or a plant in a rehearsal."""

    def poll(self, now_ms: int) -> Series:
        """The samples of the last half hour, read up to now."""
        ...

    @property
    def coarse(self) -> Coarse:
        """10 s means of the last day."""
        ...


class Root:
    """One data root. `snapshot()` reads what is new, `commit()` writes what a plan wants.

    `ledger` and `stream` take the place of the files in a rehearsal or a backtest.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        ledger: Ledger | None = None,
        stream: Stream | None = None,
        ops: Ops = OS,
    ) -> None:
        self.path = path
        self.clock = clock or Clock.real()
        self.settings_book = SettingsBook(path / SETTINGS if ledger is None else None)
        self._language = catalogue.LANGUAGES[0]
        text = _settings_text(path, ops) if ledger is None else ledger.read().settings
        first = self.settings_book.take(text, hashlib.sha256(text).hexdigest() if text is not None else None)
        self._zone_name = first.timezone
        self.ledger: Ledger = ledger or FileLedger(
            path, timezone=first.timezone, clock=self.clock.wall, steady=self.clock.steady, ops=ops
        )
        self.lease_ok = True
        self._given = stream
        self._stream: Stream | None = stream
        self._stream_of: tuple[object, ...] = ()
        self._life: tuple[object, Life] | None = None
        self._folding = Folding()
        self._memo = Memo()
        self._started_at_ms = self.clock.steady()
        self._ok_at_ms: int | None = None
        self._epoch: int | None = None
        self._epoch_at_ms: int | None = None

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self._zone_name)

    @property
    def stream(self) -> Stream | None:
        """The metric stream's reader, once a snapshot was made."""
        return self._stream

    def snapshot(self) -> Snapshot:
        """Everything known now."""
        records = self.ledger.read()
        settings = self.settings_book.take(records.settings, records.version.settings)
        self._language = settings.language
        self._zone_name = settings.timezone
        now_ms, clock_ms = self.clock.wall(), self.clock.steady()
        stream = self._stream_for(settings)
        series = stream.poll(now_ms)
        self._note_data(series.newest_ms, series.ahead_share, settings, now_ms, clock_ms)
        self._note_epoch(series.epoch, clock_ms)
        return Snapshot(
            now_ms=now_ms,
            clock_ms=clock_ms,
            settings=settings,
            config_sha=records.version.settings or "",
            records=records,
            series=series,
            coarse=stream.coarse,
            ok_at_ms=self._ok_at_ms,
            epoch_at_ms=self._epoch_at_ms,
            settings_problem=self.settings_book.problem,
            lease_ok=self.lease_ok,
            life=self._fold(records, settings),
            memo=self._memo,
        )

    def _stream_for(self, settings: Settings) -> Stream:
        if self._given is not None:
            return self._given
        wanted = (
            settings.metrics_source,
            settings.metrics,
            tuple((t.lo, t.hi) for t in settings.targets.values()),
            settings.timezone,
        )
        if self._stream is None or wanted != self._stream_of:
            self._stream = SampleStream(
                self.path / settings.metrics_source,
                metrics=settings.metrics,
                ranges={m: (t.lo, t.hi) for m, t in settings.targets.items()},
                timezone=settings.timezone,
            )
            self._stream_of = wanted
        return self._stream

    def _note_data(
        self, newest: int | None, ahead: float, settings: Settings, now_ms: int, clock_ms: int
    ) -> None:
        """When the data were last good, on the steady clock; at a start, what the data's age says."""
        age_ms = max(0, now_ms - newest) if newest is not None else None
        if age_ms is not None and age_ms <= settings.max_age_s * 1000 and ahead <= 0.5:
            self._ok_at_ms = clock_ms - age_ms
        elif self._ok_at_ms is None:
            self._ok_at_ms = self._started_at_ms if age_ms is None else self._started_at_ms - age_ms

    def _note_epoch(self, epoch: int, clock_ms: int) -> None:
        if self._epoch is not None and epoch != self._epoch:
            self._epoch_at_ms = clock_ms
        self._epoch = epoch

    def _fold(self, records: Records, settings: Settings) -> Life:
        """The fold, kept as long as neither the records nor the settings move."""
        key = (records.version, settings.digest)
        if self._life is None or self._life[0] != key:
            self._life = (key, self._folding.life(records.decisions, records.events, settings))
        return self._life[1]

    # ------------------------------------------------------------------------ writing
    def commit(
        self, plan: Plan, snap: Snapshot, *, actor: str = ACTOR, seen: Picture | None = None
    ) -> Committed | None:
        """Write the plan's acts if nothing moved since `snap`. An empty plan writes nothing (None).

        `seen`: the picture of `snap`, where the caller has it.
        Raises: StaleSnapshot, LockHeld, StorageError.
        """
        if not plan.acts:
            return None
        deltas = deltas_json(last_deltas(seen or Picture(snap)), self.zone)
        batch = batch_of(plan, self.zone, actor=actor, deltas=deltas, tell=self._tell(snap.settings.language))
        return self.write(batch, snap)

    def told(self, reason: Reason) -> str:
        """The reason as a sentence in the configured language."""
        return self._tell(self._language)(reason)

    def _tell(self, language: str) -> Callable[[Reason], str]:
        """Reasons in the configured language, for the notes that other programs' readers see."""
        return lambda reason: sentence(reason, language, catalogue.load(), zone=self.zone)

    def write(self, batch: Batch, snap: Snapshot) -> Committed:
        """One commit of `batch`, expecting the files as `snap` saw them."""
        return self.ledger.commit(batch, expect=snap.records.version)

    def tick(self) -> tuple[Plan, Committed | None]:
        """Read, decide, commit; read again when somebody else was first."""
        for _ in range(TRIES - 1):
            try:
                return self._try()
            except StaleSnapshot:
                continue
        return self._try()

    def _try(self) -> tuple[Plan, Committed | None]:
        p = Picture(self.snapshot())
        plan = plan_of(p)
        return plan, self.commit(plan, p.snap, seen=p)

    def hand(self, wanted: Callable[[Picture], tuple[Act, ...]], *, actor: str) -> tuple[Plan, Committed]:
        """A person's acts through the same commit; guards are asked again on each reading.

        Raises: Refused, UnknownId, LockHeld, FileUnreadable, StorageError, StaleSnapshot after several tries.
        """
        for attempt in range(TRIES):
            snap = self.snapshot()
            must_be_readable(snap.records)  # else "nothing to take back" would be said of what we cannot see
            p = Picture(snap)
            plan = make_plan(p, wanted(p))
            try:
                done = self.commit(plan, snap, actor=actor)
            except StaleSnapshot:
                if attempt == TRIES - 1:
                    raise
                continue
            assert done is not None
            return plan, done
        raise AssertionError("unreachable")
