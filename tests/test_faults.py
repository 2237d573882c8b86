"""The disk fails at every single operation of a tick: nothing half applied, words, and it goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from selftune.book import DECISIONS, EFFECTS, HEARTBEAT, HISTORY, SETTINGS
from selftune.loop import FAULTS_HELD, SWEEP_AGAIN_S, Loop
from selftune.rehearsal import FakeClock
from selftune.runtime import Root
from selftune.status import look
from tests.life import (
    FAULTS,
    LIVE_TEXT,
    SETTINGS_TEXT,
    Film,
    FilmStream,
    Judge,
    QuickOps,
    Stage,
    Striker,
    Tape,
    can_fail,
    lay_out,
    prefixes,
    quick_settings,
    rebuild,
    whole_life,
)

CHECKOUT = Path(__file__).resolve().parent.parent
HOWS = ("short", *FAULTS)
MOVING = ("step", "early_harm")
OTHERS = ("loan_end", "supersede", "confirm", "verified", "propose_rollback")


class Moment:
    """An instant of the life: the disk and the clock just before one of its ticks."""

    def __init__(self, film: Film, files: Mapping[str, bytes], at_ms: int, act: str) -> None:
        self.film, self.files, self.at_ms, self.act = film, files, at_ms, act

    def start(self, root: Path, ops: Striker) -> tuple[Loop, FakeClock, list[str]]:
        """A loop that has ticked once, just before; the next tick is the one."""
        rebuild(root, self.files)
        fake = FakeClock(wall_ms=self.at_ms - 1000, steady_ms=self.at_ms - 1000)
        said: list[str] = []
        loop = Loop(root, clock=fake.clock, stream=FilmStream(self.film, fake), say=said.append, ops=ops)
        assert loop.tick() is not None
        loop.beat()
        fake.pass_s(1)
        return loop, fake, said


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Moment]:
    """The ticks that step, that judge harm and return (with a warning and an effect row), and the others.

    By act, a return by its cause.
    """
    quick_settings()
    root = tmp_path_factory.mktemp("life")
    tape = Tape(root)
    stage = whole_life(Stage(root, ops=tape))
    film = Film(stage)
    wanted: dict[int, str] = {}
    for d in stage.records().decisions:
        name = str(d.data.get("cause") if d.act == "return" else d.act)
        if name in OTHERS or (d.applied and name in MOVING):
            wanted[d.ts_ms] = name
    found: dict[str, Moment] = {}
    for _, e, disk in prefixes(tape, {SETTINGS: SETTINGS_TEXT.encode()}):
        act = wanted.get(e.at_ms)
        if act and act not in found and e.kind == "write" and e.path == DECISIONS:
            found[act] = Moment(film, dict(disk.files), e.at_ms, act)
    assert set(found) == {*MOVING, *OTHERS}
    return found


@pytest.mark.parametrize("act", [*MOVING, *(pytest.param(a, marks=pytest.mark.slow) for a in OTHERS)])
@pytest.mark.parametrize("how", HOWS)
def test_a_fault_at_any_operation_of_a_tick_is_words_and_the_next_tick_works(
    moments: dict[str, Moment], tmp_path: Path, how: str, act: str
) -> None:
    moment, judge = moments[act], Judge(tmp_path, moments[act].film)
    counting = Striker(tmp_path)
    loop, _, _ = moment.start(tmp_path, counting)
    first = counting.count
    loop.tick()
    loop.beat()
    last, lines = counting.count, (tmp_path / HISTORY).read_bytes().count(b"\n")
    loop.close()
    moves = act in (*MOVING, "loan_end")
    assert last - first > (40 if moves else 20)
    assert (lines > moment.files[HISTORY].count(b"\n")) is moves
    hits = 0
    for at in (i for i in range(first, last) if can_fail(how, counting.names[i])):
        ops = Striker(tmp_path, at, how)
        loop, fake, said = moment.start(tmp_path, ops)
        try:
            loop.tick()
            loop.beat()
            if not ops.hits:
                continue
            hits += 1
            what = f"{how} at operation {at - first}"
            assert all("Traceback" not in s for s in said), said
            for wait in (1, SWEEP_AGAIN_S):
                fake.pass_s(wait)
                assert loop.tick() is not None, f"{what}: {said}"
                loop.beat()
            assert loop.pulse.faults == 0 and loop.pulse.fault is None, f"{what}: {loop.pulse}"
        finally:
            loop.close()
        assert json.loads((tmp_path / HEARTBEAT).read_bytes())["state"] == "stopped"
        judge.look(moment.files, fake, to_the_end=False, torn=how in ("short", "eio"), what=what)
        if act == "early_harm":  # whatever failed, the harmful step is gone
            assert (tmp_path / HISTORY).read_bytes().count(b'"rollback"') >= 2, what
    assert hits >= (5 if moves and how not in ("short", "efbig") else 1)


def test_a_disk_that_stays_full_holds_backs_off_and_comes_back_by_itself(
    moments: dict[str, Moment], tmp_path: Path
) -> None:
    ops = Striker(tmp_path)
    loop, fake, said = moments["step"].start(tmp_path, ops)
    before = (tmp_path / HISTORY).read_bytes()
    ops.at, ops.how = None, "enospc"
    waits = []
    for n in range(1, FAULTS_HELD + 3):
        assert loop.tick() is None and loop.pulse.faults == n
        loop.beat()
        waits.append((loop.pulse.next_due_ms - fake.steady_ms) / 1000)
        fake.pass_s(1)
    assert loop.pulse.state == "faulted" and "ENOSPC" in str(loop.pulse.fault)
    assert waits == sorted(waits) and waits[0] < 2 and 45 <= waits[-1] <= 75
    assert (tmp_path / HISTORY).read_bytes() == before
    ops.at = -1
    assert loop.tick() is not None
    loop.beat()
    beat = json.loads((tmp_path / HEARTBEAT).read_bytes())
    assert beat["faults"] == 0 and beat["fault"] is None and beat["state"] != "faulted"
    assert any("recovered" in s for s in said)
    loop.close()


def test_a_history_that_is_no_file_holds_the_loop_until_it_is_one(
    moments: dict[str, Moment], tmp_path: Path
) -> None:
    loop, fake, _ = moments["step"].start(tmp_path, Striker(tmp_path))
    (tmp_path / HISTORY).rename(tmp_path / "away")
    (tmp_path / HISTORY).mkdir()
    decided = (tmp_path / DECISIONS).read_bytes()
    for _ in range(4):
        assert loop.tick() is None and "rules_history" in str(loop.pulse.fault)
        loop.beat()
        fake.pass_s(1)
    assert (tmp_path / DECISIONS).read_bytes() == decided, "nothing is decided on half a picture"
    (tmp_path / HISTORY).rmdir()
    (tmp_path / "away").rename(tmp_path / HISTORY)
    assert loop.tick() is not None and loop.pulse.fault is None
    loop.close()


def test_a_broken_evidence_file_costs_evidence_and_never_a_look_at_what_is_open(tmp_path: Path) -> None:
    quick_settings()
    stage = Stage(tmp_path, text=LIVE_TEXT)
    (tmp_path / EFFECTS).mkdir()
    stage.until(280, step_s=1.0)
    back = [d for d in stage.records().decisions if d.act == "return"]
    begun = [e for e in stage.records().events if e.kind == "change"]
    assert len(back) == 1 and (back[0].ts_ms - begun[-1].ts_ms) / 1000 < 40, "harm is seen as soon as ever"
    said = json.loads((tmp_path / HEARTBEAT).read_bytes())
    assert said["faults"] == 0 and "rules_effects.csv" in said["fault"] and said["state"] != "faulted"
    assert len(stage.said) == 1 and "rules_effects.csv" in stage.said[0]
    (tmp_path / EFFECTS).rmdir()
    stage.until(300)
    assert len(stage.records().effect_rows) >= 1
    assert json.loads((tmp_path / HEARTBEAT).read_bytes())["fault"] is None
    stage.loop.close()


@pytest.mark.parametrize("how", ["erofs", "eio"])
def test_reading_goes_on_where_nothing_can_be_written(
    moments: dict[str, Moment], tmp_path: Path, how: str
) -> None:
    ops = Striker(tmp_path)
    loop, fake, said = moments["step"].start(tmp_path, ops)
    ops.at, ops.how = None, how
    code, of = FAULTS[how]
    assert loop.tick() is None and loop.pulse.fault
    assert os.strerror(code) in loop.pulse.fault or "cannot be read" in loop.pulse.fault
    loop.beat()
    reader = Root(tmp_path, clock=fake.clock, stream=FilmStream(moments["step"].film, fake), ops=QuickOps())
    assert reader.snapshot().records.events and of and said
    loop.close()


def read_only(root: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """The command with `root` mounted read-only, in a mount namespace of its own."""
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && shift 0 && exec "$@"'
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(root), *command],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_a_root_mounted_read_only_is_read_and_said(moments: dict[str, Moment], tmp_path: Path) -> None:
    if shutil.which("unshare") is None or read_only(tmp_path, ["true"]).returncode:
        pytest.skip("no mount namespaces here (Linux with unshare only)")
    root = rebuild(tmp_path / "root", moments["step"].files)
    me = [sys.executable, "-m", "selftune", "--root", str(root), "--lang", "en"]
    shown = read_only(root, [*me, "status", "--json"])
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["values"]["risk_max"] == 0.33
    act = read_only(root, [*me, "rollback", "--reason", "try"])
    assert act.returncode in (1, 5) and act.stderr.strip() and "Traceback" not in act.stderr
    one = read_only(root, [*me, "loop", "--once"])
    assert one.returncode == 1 and "Traceback" not in one.stderr and "ead-only" in one.stderr


@pytest.mark.skipif(os.name == "nt", reason="no file size limits there")
def test_a_file_size_limit_is_words(moments: dict[str, Moment], tmp_path: Path) -> None:
    """A real limit on a real process: the history keeps its lines, exit 1, words."""
    root = rebuild(tmp_path / "root", moments["step"].files)
    before = {n: (root / n).read_bytes() for n in (HISTORY, DECISIONS)}
    limit = max(len(b) for b in before.values()) + 100
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"sys.argv = ['selftune', '--root', {str(root)!r}, '--lang', 'en', 'rollback', '--reason', 'x'];"
        "sys.dont_write_bytecode = True; from selftune.cli import main; raise SystemExit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "EFBIG" in done.stderr or "only" in done.stderr
    assert "Traceback" not in done.stderr
    assert (root / HISTORY).read_bytes() == before[HISTORY], "the decision did not fit, so no rule moved"
    assert (root / DECISIONS).read_bytes().startswith(before[DECISIONS])
    free = subprocess.run(
        [sys.executable, "-m", "selftune", "--root", str(root), "rollback", "--reason", "x"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert free.returncode == 0, free.stderr
    assert len((root / HISTORY).read_bytes().splitlines()) == len(before[HISTORY].splitlines()) + 1


def test_status_of_a_root_with_nothing_in_it_answers(tmp_path: Path) -> None:
    assert look(lay_out(tmp_path, LIVE_TEXT)).status["heartbeat"]["state"] == "none"
