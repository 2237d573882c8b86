"""One whole life of a data root, played by the real loop on a real disk, with every operation on tape.

The clocks and the tuned system are simulated, files and ledgers are not. `Tape` records every file
operation, so that a test can rebuild the disk as it was at any instant of the life (a kill), or as it
may have been (a power loss), start the loop anew there, and judge what stands in the files.

    python -m tests.life ROOT N     plays the life in ROOT and kills itself (SIGKILL) at operation N
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from selftune import hands, runtime
from selftune.acting import iso
from selftune.book import (
    DECISIONS,
    EFFECTS,
    HEARTBEAT,
    HISTORY,
    QUOTES,
    RISKS,
    SETTINGS,
    Records,
    orphans,
)
from selftune.config import parse
from selftune.domain import RuleEvent, Verdict
from selftune.files import Ops
from selftune.ledger import FileLedger
from selftune.loop import Loop
from selftune.picture import Picture
from selftune.plan import Act, Plan
from selftune.plants import PlantSpec, harmful, seed_plant
from selftune.rehearsal import FakeClock, PlantStream
from selftune.settings import METRICS_FILE, Settings
from selftune.simulate import Plant, Rows
from selftune.tuned import MetricsFile, RuleTail, newest
from tests.conftest import SHIPPED

T0 = 1_772_323_200_000  # 2026-03-01T09:00:00+09:00
PAST_S = 700.0  # of metrics before the loop starts: more than `history_s`
STEP_S = 5.0
FREE = "\ngovernance: { approvals_required: 0 }\n"
# the heuristic: its next step is known beforehand, so that a life surely holds a good and a harmful one
SIMPLE = SHIPPED.read_text(encoding="utf-8").replace("  # policy: adaptive ", "  policy: heuristic ", 1)
SETTINGS_TEXT = SIMPLE + FREE
LIVE_TEXT = SETTINGS_TEXT.replace("  dry_run: true", "  dry_run: false")
SEOUL = ZoneInfo("Asia/Seoul")
LEDGERS = (HISTORY, DECISIONS, RISKS, QUOTES, EFFECTS, "controls/approvals.jsonl")


def harmful_plant() -> PlantSpec:
    """A plant where lowering risk_max helps and raising creative_min does harm: a life has both."""
    return harmful(seed_plant(), rule="creative_min", metric="risk_band", per_step=0.06)


# ----------------------------------------------------------------------------- operations on tape
@dataclass(frozen=True)
class Entry:
    """One operation that changes the disk, or promises something about it."""

    kind: str  # create | write | rename | unlink | fsync | done
    path: str
    data: bytes = b""
    at_ms: int = 0
    op: int = 0  # how many operations had begun


class QuickOps(Ops):
    """The real file system without its waiting: no flush to the platters, no pauses."""

    def fsync(self, fd: int) -> None:
        os.fstat(fd)

    def sleep(self, seconds: float) -> None:
        pass


class Tape(QuickOps):
    """Counts every operation and writes down those that matter; `strike` may fail or kill at each."""

    def __init__(self, root: Path, now: Callable[[], int] = lambda: 0) -> None:
        self.root, self.now = root, now
        self.entries: list[Entry] = []
        self.count = 0
        self.names: list[str] = []  # of the operations, in order
        self._paths: dict[int, str] = {}

    def strike(self, name: str, path: str, data: bytes | None = None) -> bytes | None:
        """Called before each operation. May raise, or return fewer bytes to be written."""
        return data

    def note(self, kind: str, path: str, data: bytes = b"") -> None:
        self.entries.append(Entry(kind, path, data, self.now(), self.count))

    def _begin(self, name: str, path: str, data: bytes | None = None) -> bytes | None:
        try:
            return self.strike(name, path, data)
        finally:
            self.count += 1
            self.names.append(name)

    def _name(self, path: str) -> str:
        return os.path.relpath(os.path.realpath(path), os.path.realpath(self.root))

    def open(self, path: str, flags: int, mode: int) -> int:
        name = self._name(path)
        self._begin("open", name)
        new = bool(flags & os.O_CREAT) and not os.path.exists(path)
        fd = super().open(path, flags, mode)
        self._paths[fd] = name
        if new:
            self.note("create", name)
        return fd

    def read(self, fd: int, n: int) -> bytes:
        self._begin("read", self._paths[fd])
        return super().read(fd, n)

    def write(self, fd: int, data: bytes) -> int:
        path = self._paths[fd]
        taken = self._begin("write", path, data)
        assert taken is not None
        written = super().write(fd, taken) if taken else 0
        self.note("write", path, taken[:written])
        return written

    def seek(self, fd: int, offset: int, whence: int) -> int:
        self._begin("seek", self._paths[fd])
        return super().seek(fd, offset, whence)

    def fsync(self, fd: int) -> None:
        self._begin("fsync", self._paths[fd])
        self.note("fsync", self._paths[fd])

    def fstat(self, fd: int) -> os.stat_result:
        self._begin("fstat", self._paths[fd])
        return super().fstat(fd)

    def stat(self, path: str) -> os.stat_result:
        self._begin("stat", self._name(path))
        return super().stat(path)

    def close(self, fd: int) -> None:
        path = self._paths.pop(fd)
        try:
            self._begin("close", path)
        finally:
            super().close(fd)

    def replace(self, source: str, target: str) -> None:
        self._begin("replace", self._name(target))
        new = self._name(source)
        super().replace(source, target)
        self.note("rename", self._name(target), new.encode())

    def unlink(self, path: str) -> None:
        self._begin("unlink", self._name(path))
        super().unlink(path)
        self.note("unlink", self._name(path))


class Striker(Tape):
    """Fails at operation `at` (-1: never; None: at all) in the way `how`, if that can fail so."""

    def __init__(self, root: Path, at: int | None = -1, how: str = "") -> None:
        super().__init__(root)
        self.at, self.how, self.hits = at, how, 0

    def strike(self, name: str, path: str, data: bytes | None = None) -> bytes | None:
        if self.at is not None and self.count != self.at:
            return data
        if self.how == "short" and data is not None:
            self.hits += 1
            return data[: len(data) // 2]
        code, of = FAULTS.get(self.how, (0, ()))
        if name in of:
            self.hits += 1
            raise OSError(code, os.strerror(code))
        return data


def can_fail(how: str, name: str) -> bool:
    """Whether this operation can fail so."""
    return name == "write" if how == "short" else name in FAULTS[how][1]


WRITES = ("write", "fsync", "replace")
FAULTS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "eio": (errno.EIO, ("open", "read", "seek", "fstat", "stat", *WRITES)),
    "enospc": (errno.ENOSPC, ("open", *WRITES)),
    "efbig": (errno.EFBIG, ("write",)),
    "erofs": (errno.EROFS, ("open", *WRITES)),
    "emfile": (errno.EMFILE, ("open",)),
}
"""What an operation may fail with, and which operations can."""


class Killer(Tape):
    """Ends this process at operation `at`, as kill -9 does; a write is cut in the middle."""

    def __init__(self, root: Path, at: int) -> None:
        super().__init__(root)
        self.at = at

    def strike(self, name: str, path: str, data: bytes | None = None) -> bytes | None:
        if self.count == self.at:
            if data is not None:
                with open(self.root / path, "ab") as file:
                    file.write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return data


# ----------------------------------------------------------------------------- the stage
parse_once = cache(partial(parse, file=SETTINGS))


def quick_settings() -> None:
    """Parse each text once: parsing is pure, and a thousand restarts read the same file."""

    def parsed(text: bytes, *, file: str) -> Settings:
        return parse_once(text)

    runtime.parse = parsed  # type: ignore[assignment,attr-defined]


def settings_of(text: str) -> Settings:
    return parse(text.encode(), file=SETTINGS)


def lay_out(root: Path, text: str = SETTINGS_TEXT) -> Path:
    """The folders of a data root with these settings."""
    for folder in ("configs", "controls", "logs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / SETTINGS).write_text(text, encoding="utf-8")
    return root


class Stage:
    """A data root on disk, its loop, a plant that obeys its rule history, and two clocks."""

    def __init__(
        self,
        root: Path,
        *,
        text: str = SETTINGS_TEXT,
        spec: PlantSpec | None = None,
        seed: int = 1,
        ops: Ops | None = None,
        start_ms: int = T0,
        on_disk: bool = False,
    ) -> None:
        self.root = lay_out(root, text)
        self.begin_ms = start_ms
        self.fake = FakeClock(wall_ms=start_ms, steady_ms=start_ms)
        self.ops = ops if ops is not None else QuickOps()
        if isinstance(self.ops, Tape):
            self.ops.now = lambda: self.fake.wall_ms
        self.plant = Plant(seed, spec or harmful_plant(), start_ms=start_ms - round(PAST_S * 1000))
        # `on_disk`: the metrics go through the real file and its reader; else straight into memory
        self.metrics = MetricsFile(root / METRICS_FILE, self.plant.spec, SEOUL) if on_disk else None
        self.stream = None if on_disk else PlantStream(self.plant.spec.names)
        self.rows: list[Rows] = []
        self.rules = RuleTail(root / HISTORY, self.plant.spec.rules, SEOUL)
        self.values: dict[str, float] = {}
        self.flowing = True
        self.said: list[str] = []
        self.plans: list[Plan] = []
        self._plant_to(start_ms)
        self.loop = self.start()

    @property
    def now_s(self) -> float:
        """Steady seconds since the beginning."""
        return (self.fake.steady_ms - self.begin_ms) / 1000

    def start(self) -> Loop:
        """A loop on this root; the one before must be closed or dead."""
        self.loop = Loop(
            self.root, clock=self.fake.clock, stream=self.stream, say=self.said.append, ops=self.ops
        )
        return self.loop

    def _plant_to(self, now_ms: int) -> None:
        self.values |= newest(self.rules.read())
        n = self.plant.index_of(now_ms) - self.plant.state.index + 1
        if n > 0:
            rows = self.plant.run(self.values, n)
            self.rows.append(rows)
            if self.flowing and self.stream is not None:
                self.stream.take(rows)
            elif self.flowing and self.metrics is not None:
                self.metrics.append(rows)

    def pass_s(self, seconds: float) -> None:
        """The plant works on; nobody looks."""
        self.fake.pass_s(seconds)
        self._plant_to(self.fake.wall_ms)

    def tick(self) -> Plan | None:
        """One turn of the loop's own `run`: the tick, then the heartbeat."""
        plan = self.loop.tick()
        if plan is not None and plan.acts:
            self.plans.append(plan)
        if isinstance(self.ops, Tape) and plan is not None:
            self.ops.note("done", "tick")
        self.loop.beat()
        return plan

    def jump(self, seconds: float) -> None:
        """Somebody sets this machine's clock: the loop's and the tuned system's."""
        self.fake.wall_ms += round(seconds * 1000)
        self.plant.start_ms += round(seconds * 1000)

    def until(self, seconds: float, *, step_s: float = STEP_S) -> None:
        """Tick until this many seconds after the beginning."""
        while self.now_s < seconds:
            self.tick()
            self.pass_s(step_s)

    def write(self, name: str, data: bytes) -> None:
        """Another program appends to a file, whole and durable."""
        with open(self.root / name, "ab") as file:
            file.write(data)
        self._noted(name, data)

    def edit(self, text: str | bytes) -> None:
        """A person saves the settings."""
        data = text.encode() if isinstance(text, str) else text
        (self.root / SETTINGS).write_bytes(data)
        if isinstance(self.ops, Tape):
            self.ops.note("settings", SETTINGS, data)

    def _noted(self, name: str, data: bytes) -> None:
        if isinstance(self.ops, Tape):
            self.ops.note("write", name, data)
            self.ops.note("fsync", name)

    def foreign(self, rule: str, new: Any, *, actor: str = "someone") -> None:
        """Another program changes a rule."""
        ts = stamp(self.fake.wall_ms)
        line = {"ts": ts, "actor": actor, "rule": rule, "old": None, "new": new, "note": "from elsewhere"}
        self.write(HISTORY, json.dumps(line).encode() + b"\n")

    def hand(self, wanted: Callable[[Picture], tuple[Act, ...]]) -> None:
        """A person acts, in a process of its own."""
        hand_root = runtime.Root(self.root, clock=self.fake.clock, stream=self.stream, ops=self.ops)
        hand_root.hand(wanted, actor="kim")
        if isinstance(self.ops, Tape):
            self.ops.note("done", "hand")

    def records(self) -> Records:
        return records_of(self.root, self.fake)


def stamp(ms: int) -> str:
    """ISO 8601 in the root's zone."""
    return iso(ms, SEOUL)


def records_of(root: Path, fake: FakeClock) -> Records:
    """What stands in the files, read by a reader of its own."""
    clock = fake.clock
    ledger = FileLedger(root, timezone="Asia/Seoul", clock=clock.wall, steady=clock.steady, ops=QuickOps())
    return ledger.read()


def whole_life(stage: Stage) -> Stage:
    """Suggest, apply by hand, judge; live: step, stop and return, resume, step, confirm, harm, return,
    verify; another's change, judged, rolled back by hand; evidence of it all."""
    why = {"actor": "kim", "reason": "because"}
    stage.until(10)
    suggestion = stage.records().decisions[-1].id
    stage.hand(lambda p: hands.apply(p, suggestion, **why))
    stage.until(105)
    stage.edit(LIVE_TEXT)
    stage.until(200)
    stage.hand(lambda p: hands.stop(p, role="operator", **why))
    stage.until(215)
    stage.hand(lambda p: hands.resume(p, role="operator", **why))
    stage.until(760)
    stage.foreign("creative_min", 0.21)
    stage.until(860)
    stage.hand(lambda p: hands.rollback(p, rule="creative_min", **why))
    stage.until(960)
    stage.loop.close()
    return stage


# ----------------------------------------------------------------------------- the film of a life
class Film:
    """The samples of a recorded life, as a stream for whoever is started in the middle of it."""

    def __init__(self, stage: Stage, beyond_s: float = 700.0) -> None:
        stage.pass_s(beyond_s)
        self.rows = Rows.joined(stage.rows)
        self.metrics = stage.plant.spec.names

    def at(self, fake: FakeClock) -> FilmStream:
        return FilmStream(self, fake)


class FilmStream(PlantStream):
    """The film up to the clock's present instant."""

    def __init__(self, film: Film, fake: FakeClock) -> None:
        super().__init__(film.metrics)
        self.film, self.fake, self.shown = film, fake, 0

    def poll(self, now_ms: int) -> Any:
        ts = self.film.rows.ts_ms
        upto = int(ts.searchsorted(self.fake.wall_ms, side="right"))
        if upto > self.shown:
            cut, r = slice(self.shown, upto), self.film.rows
            self.take(
                Rows(
                    ts_ms=r.ts_ms[cut],
                    values={m: v[cut] for m, v in r.values.items()},
                    means={m: v[cut] for m, v in r.means.items()},
                    copies=r.copies[cut],
                )
            )
            self.shown = upto
        return self.series


# ----------------------------------------------------------------------------- the disk, rebuilt
@dataclass
class Disk:
    """The files as a prefix of the tape leaves them. `durable`: what a power loss must leave."""

    files: dict[str, bytes] = field(default_factory=dict)
    durable: dict[str, bytes] = field(default_factory=dict)

    def play(self, e: Entry) -> None:
        if e.kind == "create":
            self.files[e.path] = b""
        elif e.kind == "write":
            self.files[e.path] = self.files.get(e.path, b"") + e.data
        elif e.kind == "settings":
            self.files[e.path] = self.durable[e.path] = e.data
        elif e.kind == "rename":
            self.files[e.path] = self.files.pop(e.data.decode())
        elif e.kind == "unlink":
            self.files.pop(e.path, None)
        elif e.kind == "fsync" and e.path in self.files:
            self.durable[e.path] = self.files[e.path]

    def copy(self) -> Disk:
        return Disk(dict(self.files), dict(self.durable))

    @property
    def truth(self) -> tuple[tuple[str, bytes], ...]:
        """What a restart depends on: everything but the heartbeat and temps."""
        return tuple(
            sorted((n, d) for n, d in self.files.items() if n != HEARTBEAT and "selftune-tmp" not in n)
        )


def rebuild(root: Path, files: Mapping[str, bytes]) -> Path:
    """A data root with exactly these files (and the lock files of before)."""
    for folder in ("configs", "controls", "logs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for old in (root / folder).iterdir():
            name = f"{folder}/{old.name}"
            if not old.name.endswith(".lock") and name not in files:
                old.unlink()
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


# ----------------------------------------------------------------------------- judged
@dataclass
class Judge:
    """Restarts the loop on a rebuilt disk and holds what it finds against F1, F2 and F15."""

    scratch: Path
    film: Film
    settings: Settings = field(default_factory=lambda: settings_of(LIVE_TEXT))

    def restart(
        self, files: Mapping[str, bytes], at_ms: int, *, to_the_end: bool, torn: bool, what: str
    ) -> None:
        """Raises: AssertionError that names `what` when a promise is broken."""
        root = rebuild(self.scratch, files)
        fake = FakeClock(wall_ms=at_ms + 2000, steady_ms=at_ms + 2000)
        said: list[str] = []
        loop = Loop(root, clock=fake.clock, stream=self.film.at(fake), say=said.append, ops=QuickOps())
        try:
            for wait in (1, 1, 1, *((100, 100, 200) if to_the_end else ())):
                assert loop.tick() is not None, f"{what}: the tick after a restart failed: {said}"
                loop.beat()
                fake.pass_s(wait)
        finally:
            loop.close()
        assert not said, f"{what}: {said}"
        self.look(files, fake, to_the_end=to_the_end, torn=torn, what=what)

    def look(
        self, files: Mapping[str, bytes], fake: FakeClock, *, to_the_end: bool, torn: bool, what: str
    ) -> None:
        """Judge the files of the scratch root; `files` are those it began with."""
        root = self.scratch
        after = records_of(root, fake)
        try:
            self.f1(root, files, after, torn=torn)
            self.steps(after)
            self.harm_is_home(after)
            if to_the_end:
                self.f2(after, fake.wall_ms)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error

    def f1(self, root: Path, before: Mapping[str, bytes], after: Records, *, torn: bool) -> None:
        """Whole lines, unique ids, one decision an event, nothing left half done."""
        for name in LEDGERS:
            data = (root / name).read_bytes() if (root / name).exists() else b""
            assert data.startswith(before.get(name, b"")), f"{name} was rewritten"
            assert torn or data[-1:] in (b"", b"\n"), f"{name} ends in half a line"
        rejects = {n: c for n, c in after.rejects.items() if c}
        assert torn or not rejects, f"torn lines: {rejects}"
        assert all("duplicate_id" not in c for c in rejects.values()), rejects
        ids = [d.id for d in after.decisions] + [e.id for e in after.events if e.id]
        assert len(ids) == len(set(ids)), "an id twice"
        applied = Counter(k for d in after.decisions for k in d.applied)
        for e in after.events:
            if e.decision is not None:
                assert applied[e.key] == 1, f"event {e.key} has {applied[e.key]} decisions"
        assert orphans(after) == (), "an intended event is neither there nor abandoned"
        assert after.chain.ok

    def steps(self, after: Records) -> None:
        """F15: small steps from the value in force, inside the bounds, not within a cooldown."""
        values = {r.name: r.init for r in self.settings.rules.values()}
        last: dict[str, int] = {}
        for e in after.events:
            rule = self.settings.rules[e.rule]
            if e.kind in ("change", "manual", "rollback", "restore"):
                assert e.new is not None
                assert e.old == values[e.rule], f"{e.rule} moved from {e.old}, in force was {values[e.rule]}"
                assert e.new != e.old and rule.min <= e.new <= rule.max
            if e.kind in ("change", "manual"):
                assert e.new is not None and e.old is not None
                assert abs(e.new - e.old) <= rule.lr + 1e-9
                apart = e.ts_ms - last.get(e.rule, -(2**62))
                assert apart >= self.settings.cooldown_s * 1000, f"{e.rule} twice within {apart} ms"
            if e.new is not None:
                values[e.rule] = e.new
                last[e.rule] = e.ts_ms

    def harm_is_home(self, after: Records) -> None:
        """A step of ours that was judged WORSENED while live is not in force any more."""
        last = {e.rule: e for e in after.events}
        by_id = {d.id: d for d in after.decisions}
        for d in after.decisions:
            if d.kind == "verdict" and d.act == "evaluate" and d.data["verdict"] == Verdict.WORSENED:
                for key in d.data["keys"]:
                    e = next(e for e in after.events if e.key == key)
                    ours = e.decision is not None and by_id[e.decision].act == "step"
                    assert not (ours and last[e.rule].key == key), f"{key} WORSENED and still in force"

    def f2(self, after: Records, now_ms: int) -> None:
        """Exactly one row for every event whose window is over; at most one quote, one warning."""
        rows = Counter(r.key for r in after.effect_rows)
        for e in after.events:
            over = now_ms > e.ts_ms + 3 * self.settings.observe_window_s * 1000
            n = rows[e.ts_ms, e.rule]
            assert n == 1 if over else n <= 1, f"{n} rows for the event of {stamp(e.ts_ms)}"
            self.judged(e, after, over=over)
            assert sum(q.effect == e.key for q in after.quotes) <= 1
            assert sum(w.effect == e.key and w.resolves is None for w in after.warnings) <= 1

    def judged(self, e: RuleEvent, after: Records, *, over: bool) -> None:
        """F19: a change whose time is over has its verdict, or the rule was moved on before it."""
        if over and e.kind in ("change", "manual"):
            verdicts = {k for d in after.decisions if d.act == "evaluate" for k in d.data["keys"]}
            later = any(x.rule == e.rule and x.ts_ms > e.ts_ms for x in after.events)
            assert e.key in verdicts or later, f"the event of {stamp(e.ts_ms)} was never judged"


def prefixes(tape: Tape, start: Mapping[str, bytes]) -> Iterator[tuple[int, Entry, Disk]]:
    """(number of the entry, the entry about to happen, the disk before it) over the whole tape."""
    disk = Disk(dict(start), dict(start))
    for i, entry in enumerate(tape.entries):
        yield i, entry, disk
        disk.play(entry)


def main(root: str, at: str) -> None:
    """Play the life and die at operation `at`."""
    quick_settings()
    shutil.rmtree(root, ignore_errors=True)
    whole_life(Stage(Path(root), ops=Killer(Path(root), int(at))))


if __name__ == "__main__":
    main(*sys.argv[1:])
