"""The loop on a real root with simulated time: heartbeat, faults, settings and streams that break, growth."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.loop import T0 as FIRST_ROW_MS
from benchmarks.loop import make
from selftune.book import DECISIONS, HEARTBEAT, HISTORY, SETTINGS
from selftune.config import parse
from selftune.domain import JsonDict, LockHeld, SettingsError
from selftune.loop import Loop
from selftune.plan import Plan
from selftune.rehearsal import FakeClock
from selftune.runtime import Root
from selftune.samples import SampleStream
from selftune.settings import METRICS_FILE
from tests.life import LIVE_TEXT, SETTINGS_TEXT, QuickOps, Stage, lay_out, quick_settings, stamp

CHECKOUT = Path(__file__).resolve().parent.parent
R = 90.0


def lines(root: Path, name: str) -> list[JsonDict]:
    path = root / name
    return [json.loads(x) for x in path.read_bytes().splitlines()] if path.exists() else []


def beat(root: Path) -> JsonDict:
    return dict(json.loads((root / HEARTBEAT).read_bytes()))


def failing(plan: Plan | None) -> set[str]:
    assert plan is not None
    return {c.code for c in plan.checks if not c.passed}


# ----------------------------------------------------------------------------- heartbeat and faults
def test_the_heartbeat_says_who_lives_in_which_state_and_when_it_looks_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.tick()
    said = beat(tmp_path)
    assert set(said) >= {
        "v", "ts", "pid", "host", "started", "period_s", "cycle", "mode", "state", "config",
        "approvals_head", "next_due", "faults",
    }  # fmt: skip
    assert (said["v"], said["pid"], said["period_s"], said["cycle"]) == (1, os.getpid(), 1.0, 1)
    assert said["mode"] == "dry_run" and said["faults"] == 0 and said["state"] in ("running", "holding")
    assert said["config"] == hashlib.sha256(SETTINGS_TEXT.encode()).hexdigest()
    assert said["ts"] <= said["next_due"] and said["started"] <= said["ts"]
    stage.loop.close()
    assert beat(tmp_path)["state"] == "stopped"


def test_run_ticks_when_due_beats_each_time_and_ends_when_told(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    waits: list[float] = []

    class Hurry:
        """Stands for `threading.Event`: lets simulated time pass instead of waiting."""

        def is_set(self) -> bool:
            return len(waits) >= 60

        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            stage.pass_s(seconds)
            return self.is_set()

    stage.loop.stopping = Hurry()  # type: ignore[assignment]
    stage.loop.run()
    assert all(0 < w <= 1.0 for w in waits)
    assert 5 <= stage.loop.pulse.cycle < 60, "it looks when due, it beats each second"
    assert beat(tmp_path)["state"] == "stopped"
    Loop(tmp_path).close()  # the lease is free again


def test_a_second_loop_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with pytest.raises(LockHeld) as refused:
        Loop(tmp_path)
    assert refused.value.pid == os.getpid() and refused.value.host and refused.value.since
    assert refused.value.exit_code == 5
    assert stage.tick() is not None
    stage.loop.close()


def test_a_failed_start_gives_the_lease_back(tmp_path: Path) -> None:
    lay_out(tmp_path, "targets: {")
    with pytest.raises(SettingsError):
        Loop(tmp_path)
    lay_out(tmp_path)
    Loop(tmp_path).close()


@pytest.mark.parametrize(("next_due_s", "most_s"), [(1.0, 5.0), (5.0, 75.0)])
def test_what_is_watched_is_looked_at_again_soon_however_often_we_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_due_s: float, most_s: float
) -> None:
    stage = Stage(tmp_path)
    plan = stage.tick()
    assert plan is not None
    stage.loop._well(replace(plan, next_due_s=next_due_s))
    waits = []
    for _ in range(8):
        stage.loop._fault(RuntimeError("a fault of ours"))
        waits.append((stage.loop.pulse.next_due_ms - stage.fake.steady_ms) / 1000)
    assert most_s / 2 < max(waits) <= most_s
    stage.loop.close()


def test_a_fault_is_recorded_once_said_each_time_and_over_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    healthy = stage.loop.root.tick

    def broken() -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(stage.loop.root, "tick", broken)
    for n in (1, 2, 3):
        assert stage.tick() is None
        assert beat(tmp_path)["faults"] == n and "a fault of ours" in beat(tmp_path)["fault"]
    assert len(stage.said) == 3
    monkeypatch.setattr(stage.loop.root, "tick", healthy)
    assert stage.tick() is not None and beat(tmp_path)["fault"] is None
    assert [d["act"] for d in lines(tmp_path, DECISIONS)].count("fault") == 1
    stage.loop.close()


def test_a_lease_whose_file_was_taken_away_moves_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, text=LIVE_TEXT)
    (tmp_path / "logs/loop.lock").unlink()
    assert "guard.lease" in failing(stage.tick())
    assert lines(tmp_path, HISTORY) == []
    stage.loop.close()


# ----------------------------------------------------------------------------- settings (F11, F13)
STRATEGY = "  dry_run: false"
BAD_SETTINGS: dict[str, bytes | None] = {
    "half-written": LIVE_TEXT.encode()[: len(LIVE_TEXT) // 2],
    "empty": b"",
    "garbage": bytes(range(256)) * 20,
    "nul": b"\0" * 4000,
    "deleted": None,
    "dry_run twice": LIVE_TEXT.replace(STRATEGY, STRATEGY + "\n" + STRATEGY).encode(),
    "dry_run text": LIVE_TEXT.replace(STRATEGY, "  dry_run: 'false'").encode(),
    "dry_run zero": LIVE_TEXT.replace(STRATEGY, "  dry_run: 0").encode(),
    "dry_run null": LIVE_TEXT.replace(STRATEGY, "  dry_run: null").encode(),
    "an unknown key": LIVE_TEXT.replace("cooldown_s:", "cooldown_z:").encode(),
    "too large": (LIVE_TEXT + "# x\n" * 100_000).encode(),
}


@pytest.mark.parametrize("how", BAD_SETTINGS)
def test_settings_that_break_while_the_loop_is_live_stop_every_write_until_they_are_whole(
    tmp_path: Path, how: str
) -> None:
    quick_settings()
    stage = Stage(tmp_path, text=LIVE_TEXT)
    stage.until(100)
    before = (tmp_path / HISTORY).read_bytes()
    assert before and beat(tmp_path)["mode"] == "live"
    bad = BAD_SETTINGS[how]
    if bad is None:
        (tmp_path / SETTINGS).unlink()
    else:
        stage.edit(bad)
    plan = stage.tick()
    assert plan is not None and plan.effective.value == "dry_run" and beat(tmp_path)["mode"] == "dry_run"
    assert "guard.settings" in failing(plan)
    stage.until(300)  # the next step would have been due at 185 s
    assert (tmp_path / HISTORY).read_bytes() == before and not stage.said
    changes = [d for d in lines(tmp_path, DECISIONS) if d["act"] == "changed"]
    assert [d["to"] for d in changes][-1:] == ["dry_run"] and "settings" in json.dumps(changes[-1])
    assert (
        (tmp_path / SETTINGS).read_bytes() == bad if bad is not None else not (tmp_path / SETTINGS).exists()
    )
    stage.edit(LIVE_TEXT)
    stage.until(320)
    assert beat(tmp_path)["mode"] == "live" and len(lines(tmp_path, HISTORY)) == 2, "and it goes on"
    stage.loop.close()


def test_without_dry_run_in_the_settings_it_is_dry(tmp_path: Path) -> None:
    stage = Stage(tmp_path, text=LIVE_TEXT.replace(STRATEGY, ""))
    stage.until(20)
    assert beat(tmp_path)["mode"] == "dry_run" and lines(tmp_path, HISTORY) == []
    stage.loop.close()


def test_an_edit_in_mid_observation_is_judged_under_one_set_of_settings(tmp_path: Path) -> None:
    """Each verdict names one file's digest, and its window is that file's."""
    quick_settings()
    edited = LIVE_TEXT.replace("observe_window_s: 90", "observe_window_s: 60").replace(
        "min_samples: 300", "min_samples: 200"
    )
    stage = Stage(tmp_path, text=LIVE_TEXT)
    stage.until(230)  # the second step is open since 185 s
    stage.edit(edited)
    stage.until(500)
    verdicts = [d for d in lines(tmp_path, DECISIONS) if d["act"] == "evaluate" and d["effect"]]
    windows = {hashlib.sha256(t.encode()).hexdigest(): r for t, r in ((LIVE_TEXT, 90), (edited, 60))}
    digests = {hashlib.sha256(t.encode()).hexdigest(): parse(t.encode()).digest for t in (LIVE_TEXT, edited)}
    assert len({d["config"] for d in verdicts}) == 2
    for d in verdicts:
        length = (d["effect"]["end_ms"] - d["effect"]["event_ms"]) / 1000
        assert length == windows[d["config"]] and d["digest"] == digests[d["config"]]
    stage.loop.close()


# ----------------------------------------------------------------------------- streams (F14)
@dataclass(frozen=True)
class Break:
    """What happens to the metrics file; `blind`: no usable row reaches the loop meanwhile."""

    begin: Callable[[Stage], None]
    each: Callable[[Stage, float], None] = lambda stage, seconds: None
    end: Callable[[Stage], None] = lambda stage: None
    blind: bool = True


def dry_up(stage: Stage) -> None:
    stage.flowing = False


def written(cells: str, *, apart_s: float = 0.2) -> Callable[[Stage, float], None]:
    """Appends such rows as the time passes; `{x}` is a digit that changes."""

    def write(stage: Stage, seconds: float) -> None:
        ages = [i * apart_s for i in range(round(seconds / apart_s))]
        rows = [
            cells.format(ts=stamp(round(stage.fake.wall_ms - 1000 * a)), x=round(a * 5) % 10) for a in ages
        ]
        with open(stage.root / METRICS_FILE, "ab") as file:
            file.write("".join(r + "\n" for r in reversed(rows)).encode())

    return write


def aside(make_it: Callable[[Path], object]) -> Break:
    def begin(stage: Stage) -> None:
        dry_up(stage)
        path = stage.root / METRICS_FILE
        path.rename(path.with_suffix(".away"))
        make_it(path)

    def end(stage: Stage) -> None:
        path = stage.root / METRICS_FILE
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        path.with_suffix(".away").rename(path)

    return Break(begin, end=end)


def rotated(stage: Stage) -> None:
    path = stage.root / METRICS_FILE
    path.rename(path.with_suffix(".1"))


def truncated(stage: Stage) -> None:
    os.truncate(stage.root / METRICS_FILE, 0)


BREAKS = {
    "stops": Break(dry_up),
    "nan": Break(dry_up, written("{ts},nan,nan,nan,nan")),
    "empty cells": Break(dry_up, written("{ts},,,,")),
    "text": Break(dry_up, written("the sensor is being serviced")),
    "text in cells": Break(dry_up, written("{ts},low,low,low,low")),
    "a folder": aside(lambda path: path.mkdir()),
    "a FIFO": aside(lambda path: os.mkfifo(path)),
    "a device": aside(lambda path: path.symlink_to("/dev/zero")),
    "rotated": Break(rotated, blind=False),
    "truncated": Break(truncated, blind=False),
    "one row a second": Break(
        dry_up, written("{ts},0.07{x},0.26{x},0.22{x},0.33{x}", apart_s=1.0), blind=False
    ),
}
BROKEN_S, MENDED_S = 200.0, 520.0


@pytest.mark.skipif(os.name == "nt", reason="no FIFOs or device files there")
@pytest.mark.parametrize("name", BREAKS)
def test_whatever_happens_to_the_metrics_nothing_moves_on_and_what_is_open_goes_home(
    tmp_path: Path, name: str
) -> None:
    quick_settings()
    stage, broken = Stage(tmp_path, text=LIVE_TEXT, on_disk=True), BREAKS[name]
    stage.until(BROKEN_S)
    assert len(lines(tmp_path, HISTORY)) == 2, "a step is open"
    broken.begin(stage)
    while stage.now_s < MENDED_S:
        stage.tick()
        stage.pass_s(4.0)
        broken.each(stage, 4.0)
    if name == "one row a second":
        assert "guard.rate_too_low" in failing(stage.tick())
    events = lines(tmp_path, HISTORY)
    late = [e for e in events[2:] if e["kind"] == "change"]
    if broken.blind or name == "one row a second":
        assert not late, "no change away from the anchor after the data stopped"
    if broken.blind:
        assert "guard.stale" in failing(stage.tick())
        back = [d for d in lines(tmp_path, DECISIONS) if d["act"] == "return"]
        assert [d["cause"] for d in back] == ["blind"] and events[2]["kind"] == "rollback"
        assert events[2]["new"] == events[1]["old"]
        stopped_ms = stage.begin_ms + BROKEN_S * 1000
        waited = (stage_ms(events[2]["ts"]) - stopped_ms) / 1000
        assert 3 * R - 6 <= waited <= 3 * R + 8, f"home after {waited} s of blind time"
    broken.end(stage)
    stage.flowing = True
    mended = stage.now_s
    while stage.now_s < mended + 8:
        stage.pass_s(1.0)
        plan = stage.tick()
    assert "guard.stale" not in failing(plan), "good data are believed within 8 s"
    assert not stage.said, stage.said
    stage.loop.close()


def stage_ms(ts: str) -> float:
    return datetime.fromisoformat(ts).timestamp() * 1000


# ----------------------------------------------------------------------------- growth (F17)
@pytest.mark.parametrize("mode", ["dry run", "live, all held", "no metrics"])
def test_while_nothing_changes_the_record_hardly_grows(tmp_path: Path, mode: str) -> None:
    """Far below the promised line a cycle: a hold is written when its reasons change."""
    quick_settings()
    text = SETTINGS_TEXT if mode == "dry run" else LIVE_TEXT.replace("policy: heuristic", "policy: none")
    stage = Stage(tmp_path, text=text)
    if mode == "no metrics":
        stage.flowing = False
    cycles = 0
    while stage.now_s < 1800:
        stage.tick()
        cycles += 1
        stage.pass_s(5.0)
    written_lines = len(lines(tmp_path, DECISIONS))
    assert written_lines <= cycles / 6, f"{written_lines} lines in {cycles} cycles"
    assert lines(tmp_path, HISTORY) == []
    stage.loop.close()


# ----------------------------------------------------------------------------- starting (F18)
@pytest.mark.parametrize("module", ["selftune.loop", "selftune.up"])
def test_what_a_loop_imports_is_light(module: str) -> None:
    heavy = ("pandas", "scipy.stats", "scipy.optimize", "streamlit", "pyarrow", "altair", "matplotlib")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads as Linux does")
def test_linear_algebra_has_one_thread_in_our_processes() -> None:
    code = (
        "import selftune.__main__, numpy as np; a = np.eye(600); a @ a; np.linalg.inv(a);"
        "print(next(x.split()[1] for x in open('/proc/self/status') if x.startswith('Threads')))"
    )
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "1"


def test_a_start_reads_as_much_of_a_long_file_as_of_a_short_one(tmp_path: Path) -> None:
    read: dict[int, int] = {}
    for rows in (50_000, 500_000):
        root = lay_out(tmp_path / str(rows), LIVE_TEXT)
        make(root / METRICS_FILE, rows)
        now = FIRST_ROW_MS + rows * 200
        root_of = Root(root, clock=FakeClock(wall_ms=now, steady_ms=now).clock, ops=QuickOps())
        snap = root_of.snapshot()
        assert snap.series.newest_ms == now - 200 and len(snap.series) >= 5 * 1700
        assert isinstance(root_of.stream, SampleStream)
        read[rows] = root_of.stream.state.bytes_read
    assert read[500_000] <= 1.1 * read[50_000] and read[500_000] < 3 << 20
