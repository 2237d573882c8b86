"""Kill at every operation of one whole life, and every disk that a power loss may leave (F1, F2, F3).

The life is played once with all file operations on tape. The disk changes only at a few hundred of
them; each of these disks, and each with its last write cut short, is rebuilt and restarted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from selftune.book import DECISIONS, HEARTBEAT, HISTORY, SETTINGS
from selftune.files import clean_temps
from selftune.plants import harmful, seed_plant
from selftune.rehearsal import FakeClock
from tests.life import (
    LEDGERS,
    LIVE_TEXT,
    SETTINGS_TEXT,
    Disk,
    Entry,
    Film,
    Judge,
    Stage,
    Tape,
    prefixes,
    quick_settings,
    records_of,
    settings_of,
    whole_life,
)

CHECKOUT = Path(__file__).resolve().parent.parent
PARTS = 4  # of the long test, so that each ends in minutes


@dataclass(frozen=True)
class Recording:
    """The life: its tape, its film, and what its root says at the end."""

    tape: Tape
    film: Film
    stage: Stage

    def prefixes(self, text: str = SETTINGS_TEXT) -> Iterator[tuple[int, Entry, Disk]]:
        return prefixes(self.tape, {SETTINGS: text.encode()})


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    quick_settings()
    root = tmp_path_factory.mktemp("life")
    tape = Tape(root)
    stage = whole_life(Stage(root, ops=tape))
    assert not stage.said, stage.said
    return Recording(tape, Film(stage), stage)


def test_the_life_has_everything_that_may_be_killed(life: Recording) -> None:
    found = life.stage.records()
    acts = {(d.kind, d.act) for d in found.decisions}
    assert acts >= {
        ("cycle", "step"), ("manual", "apply"), ("verdict", "evaluate"), ("verdict", "confirm"),
        ("cycle", "return"), ("verdict", "verified"), ("manual", "rollback"), ("mode", "stop"),
        ("mode", "resume"), ("cycle", "propose_rollback"), ("verdict", "supersede"),
    }  # fmt: skip
    assert {e.kind for e in found.events} == {"manual", "change", "rollback", None}
    assert found.quotes and found.warnings and found.effect_rows and found.governance


def test_the_tape_tells_the_disk_as_it_is(life: Recording) -> None:
    """What every test here stands on: replaying all operations gives the very files."""
    *_, (_, _, disk) = life.prefixes()  # exhausted, it has played the last operation too
    there = {
        str(p.relative_to(life.stage.root)): p.read_bytes()
        for folder in ("configs", "controls", "logs")
        for p in (life.stage.root / folder).iterdir()
        if not p.name.endswith(".lock")
    }
    assert disk.files == there


# ----------------------------------------------------------------------------- kill -9
def cuts(data: bytes, *, all_of_them: bool) -> list[int]:
    """Where a write is cut: behind the first byte, in the middle, before the line end, and at line ends."""
    if all_of_them:
        return list(range(1, len(data)))
    ends = [i + 1 for i, b in enumerate(data[:-1]) if b == 10]
    return sorted({1, len(data) // 2, len(data) - 1, *ends} - {0, len(data)})


def states(
    life: Recording, *, every: int | None = None, text: str = SETTINGS_TEXT
) -> Iterator[tuple[str, Entry, Disk, bool]]:
    """(name, operation, disk, torn) of every distinct disk that a kill may leave; `every` byte if given."""
    seen = set()
    for _, entry, disk in life.prefixes(text):
        name = f"operation {entry.op} ({entry.kind} {entry.path})"
        if disk.truth not in seen:
            seen.add(disk.truth)
            yield f"before {name}", entry, disk, False
        if entry.kind == "write" and entry.path in LEDGERS:
            at = range(1, len(entry.data), every) if every else cuts(entry.data, all_of_them=False)
            for k in at:
                torn = disk.copy()
                torn.play(Entry("write", entry.path, entry.data[:k]))
                yield f"{k} of {len(entry.data)} bytes into {name}", entry, torn, True


def test_any_kill_in_a_whole_life_leaves_a_root_that_one_restart_makes_sound(
    life: Recording, tmp_path: Path
) -> None:
    judge = Judge(tmp_path, life.film)
    n = 0
    for what, entry, disk, torn in states(life):
        judge.restart(disk.files, entry.at_ms, to_the_end=not torn, torn=torn, what=what)
        n += 1
    assert life.tape.count > 5000 and n > 150


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
def test_any_kill_at_any_seventh_byte(life: Recording, tmp_path: Path, part: int) -> None:
    judge = Judge(tmp_path, life.film)
    for what, entry, disk, torn in islice(states(life, every=7), part, None, PARTS):
        judge.restart(disk.files, entry.at_ms, to_the_end=True, torn=torn, what=what)


LEARNING_TEXT = LIVE_TEXT.replace("  policy: heuristic ", "  policy: adaptive ")


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A shorter life under the default policy, whose steps nobody knows beforehand."""
    quick_settings()
    root = tmp_path_factory.mktemp("learning")
    tape = Tape(root)
    stage = Stage(root, text=LEARNING_TEXT, ops=tape)
    stage.until(500)
    stage.foreign("creative_min", 0.21)
    stage.until(700)
    stage.loop.close()
    assert LEARNING_TEXT != LIVE_TEXT and sum(e.kind == "change" for e in stage.records().events) >= 2
    return Recording(tape, Film(stage), stage)


@pytest.mark.slow
def test_any_kill_under_the_policy_that_learns_leaves_such_a_root(
    learning: Recording, tmp_path: Path
) -> None:
    judge, n = Judge(tmp_path, learning.film, settings_of(LEARNING_TEXT)), 0
    for what, entry, disk, torn in states(learning, text=LEARNING_TEXT):
        judge.restart(disk.files, entry.at_ms, to_the_end=not torn, torn=torn, what=what)
        n += 1
    assert n > 60


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
def test_any_kill_at_any_seventh_byte_under_the_policy_that_learns(
    learning: Recording, tmp_path: Path, part: int
) -> None:
    judge = Judge(tmp_path, learning.film, settings_of(LEARNING_TEXT))
    for what, entry, disk, torn in islice(states(learning, every=7, text=LEARNING_TEXT), part, None, PARTS):
        judge.restart(disk.files, entry.at_ms, to_the_end=True, torn=torn, what=what)


def test_a_return_that_a_kill_swallowed_is_made_after_the_restart(tmp_path: Path) -> None:
    """The verdict is on record, the way back is not: it is owed, however mild the harm."""
    quick_settings()
    mild = harmful(seed_plant(), rule="creative_min", metric="risk_band", per_step=0.03)
    tape = Tape(tmp_path / "life")
    stage = Stage(tmp_path / "life", text=LIVE_TEXT, spec=mild, ops=tape)
    stage.until(300)
    returned = next(d for d in stage.records().decisions if d.act == "return")
    assert returned.data["cause"] == "worsened"
    judge = Judge(tmp_path / "again", Film(stage))
    for _, e, disk in prefixes(tape, {SETTINGS: LIVE_TEXT.encode()}):
        if e.kind == "write" and e.path == HISTORY and returned.id.encode() in e.data:
            judge.restart(disk.files, e.at_ms, to_the_end=True, torn=False, what="the return was not written")


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
@pytest.mark.parametrize("share", [0.03, 0.11, 0.23, 0.42])
def test_a_process_that_is_killed_for_real_leaves_such_a_root(
    life: Recording, tmp_path: Path, share: float
) -> None:
    writes = [e.op for e in life.tape.entries if e.kind == "write" and e.path in LEDGERS]
    at = writes[round(share * len(writes))] - 1
    killed = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-m", "tests.life", str(killed), str(at)], cwd=CHECKOUT, timeout=120
    )
    assert done.returncode == -9
    files = {
        f"{folder}/{p.name}": p.read_bytes()
        for folder in ("configs", "controls", "logs")
        for p in (killed / folder).iterdir()
        if not p.name.endswith(".lock")
    }
    now = next(e.at_ms for e in life.tape.entries if e.op > at)
    what = f"SIGKILL in operation {at}"
    Judge(tmp_path / "again", life.film).restart(files, now, to_the_end=True, torn=True, what=what)


def test_what_a_killed_loop_leaves_beside_its_heartbeat_is_gone_at_the_next_start(
    life: Recording, tmp_path: Path
) -> None:
    entry, disk = next((e, d.copy()) for _, e, d in life.prefixes() if e.kind == "rename")
    left = [n for n in disk.files if "selftune-tmp" in n]
    Judge(tmp_path, life.film).restart(disk.files, entry.at_ms, to_the_end=False, torn=False, what="temp")
    assert left and not any((tmp_path / n).exists() for n in left)
    assert clean_temps(tmp_path / "logs", older_than_s=0) == 0


# ----------------------------------------------------------------------------- power loss
def test_the_order_on_disk_is_decision_then_event_then_heartbeat(life: Recording) -> None:
    """Each step is durable before the next begins, and before anything is reported done."""
    events = reported = 0
    for _, e, disk in life.prefixes():
        loose = [n for n in LEDGERS if disk.files.get(n, b"") != disk.durable.get(n, b"")]
        assert len(loose) <= 1, f"{loose} are at the mercy of the disk together, before {e}"
        if e.kind in ("write", "rename", "done") and e.path not in loose:
            assert not loose, f"{loose} not flushed before {e.kind} {e.path}"
        if e.kind == "done":
            reported += 1
        if e.kind == "write" and e.path == HISTORY:
            for line in e.data.splitlines():
                if decision := json.loads(line).get("decision"):
                    assert f'"id": "{decision}"'.encode() in disk.durable[DECISIONS] or (
                        f'"id":"{decision}"'.encode() in disk.durable[DECISIONS]
                    )
                    events += 1
    assert events == 7 and reported > 190


def test_a_new_file_s_name_is_flushed_before_it_counts(life: Recording) -> None:
    """A file that is whole on disk but has no name there is lost: its folder is flushed as well."""
    waiting: dict[str, str] = {}
    for e in life.tape.entries:
        if e.kind == "create" and e.path in LEDGERS:
            waiting[e.path] = str(Path(e.path).parent)
        elif e.kind == "fsync":
            waiting = {n: folder for n, folder in waiting.items() if folder != e.path}
        elif e.kind == "done" or (e.kind == "write" and e.path not in waiting):
            assert not waiting, f"{waiting} before {e.kind} {e.path}"


LOSSES: dict[str, Callable[[bytes], bytes]] = {
    "lost": lambda tail: b"",
    "torn": lambda tail: tail[: len(tail) // 2],
    "zeros": lambda tail: b"\0" * len(tail),
    "half zeros": lambda tail: tail[: len(tail) // 2] + b"\0" * (len(tail) - len(tail) // 2),
    "garbage": lambda tail: bytes((i * 37 + 11) % 256 for i in range(len(tail))),
}


@pytest.mark.parametrize("how", LOSSES)
def test_any_disk_that_a_power_loss_may_leave_restarts_clean(
    life: Recording, tmp_path: Path, how: str
) -> None:
    judge = Judge(tmp_path, life.film)
    seen, n = set(), 0
    for _, e, disk in life.prefixes():
        loose = [x for x in LEDGERS if disk.files.get(x, b"") != disk.durable.get(x, b"")]
        if not loose or disk.truth in seen:
            continue
        seen.add(disk.truth)
        after = disk.copy()
        for name in loose:
            kept = disk.durable.get(name, b"")
            after.files[name] = kept + LOSSES[how](disk.files[name][len(kept) :])
        what = f"power lost before operation {e.op}, {loose} {how}"
        judge.restart(after.files, e.at_ms, to_the_end=how == "lost", torn=how != "lost", what=what)
        n += 1
    assert n >= 40


def test_a_new_file_without_its_name_restarts_clean(life: Recording, tmp_path: Path) -> None:
    judge = Judge(tmp_path, life.film)
    for _, e, disk in life.prefixes():
        if e.kind == "fsync" and e.path in LEDGERS and e.path not in disk.durable:
            after = disk.copy()
            del after.files[e.path]
            judge.restart(after.files, e.at_ms, to_the_end=True, torn=False, what=f"{e.path} has no name")


@pytest.mark.parametrize("left", [b"", b"\0" * 300, b'{"v": 1, "approvals_he', b"\xff\xfe\xfd" * 90, None])
def test_any_heartbeat_restarts_clean(life: Recording, tmp_path: Path, left: bytes | None) -> None:
    """It is not flushed: a power loss may leave anything of it."""
    middle = life.tape.entries[len(life.tape.entries) // 2]
    disk = next(d.copy() for _, e, d in life.prefixes() if e is middle)
    disk.files.pop(HEARTBEAT)
    if left is not None:
        disk.files[HEARTBEAT] = left
    Judge(tmp_path, life.film).restart(
        disk.files, middle.at_ms, to_the_end=False, torn=False, what="heartbeat"
    )
    now = FakeClock(wall_ms=middle.at_ms, steady_ms=middle.at_ms)
    assert records_of(tmp_path, now).chain.ok
