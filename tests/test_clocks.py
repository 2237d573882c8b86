"""The wall clock jumps, creeps and changes its zone; the loop lives on steady seconds (F6)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from selftune.book import DECISIONS, HEARTBEAT, HISTORY
from selftune.domain import JsonDict
from tests.life import LEDGERS, LIVE_TEXT, T0, Stage, lay_out, quick_settings

CHECKOUT = Path(__file__).resolve().parent.parent
SHIM = Path(__file__).resolve().parent / "shim" / "clock.c"
HOUR, DAY = 3600.0, 86400.0
JUMP_AT_S = 200.0  # in the middle of the second step's observation
END_S = 640.0


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def in_zone(name: str) -> str:
    return LIVE_TEXT.replace("# timezone: Asia/Seoul", f"timezone: {name}")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where a story begins, and what happens to the clock in it."""

    name: str
    start_ms: int = T0
    text: str = LIVE_TEXT
    jump_s: Callable[[Stage], float] = lambda stage: 0.0
    creep: float = 0.0  # seconds a second
    then: str | None = None  # settings saved at the jump


def to(text: str) -> Callable[[Stage], float]:
    return lambda stage: (at(text) - stage.fake.wall_ms) / 1000


NEW_YORK = in_zone("America/New_York")
CASES = (
    Case(name="an hour on", jump_s=lambda s: HOUR),
    Case(name="an hour back", jump_s=lambda s: -HOUR),
    Case(name="a day on", jump_s=lambda s: DAY),
    Case(name="a day back", jump_s=lambda s: -DAY),
    Case(name="three seconds back", jump_s=lambda s: -3.0),
    Case(name="a minute on", jump_s=lambda s: 60.0),
    Case(name="to 1970", jump_s=to("1970-01-01T00:00:00+00:00")),
    Case(name="to 2038", jump_s=to("2038-01-19T03:14:00+00:00")),
    Case(name="creeping back", creep=-0.001),
    Case(name="creeping on", creep=0.001),
    Case(name="into summer time", start_ms=at("2026-03-08T01:56:30-05:00"), text=NEW_YORK),
    Case(name="out of summer time", start_ms=at("2026-11-01T01:56:30-04:00"), text=NEW_YORK),
    Case(name="leap day", start_ms=at("2028-02-28T23:56:30+09:00")),
    Case(name="new year", start_ms=at("2026-12-31T23:56:30+09:00")),
    Case(name="another zone", then=NEW_YORK),
)


@dataclass
class Seen:
    """When, in steady seconds, each line appeared."""

    events: list[tuple[float, JsonDict]]
    decisions: list[tuple[float, JsonDict]]


def told(stage: Stage, case: Case) -> Seen:
    """The story, second by second as far as it matters."""
    seen = Seen([], [])
    jumped = False
    while stage.now_s < END_S:
        if not jumped and stage.now_s >= JUMP_AT_S:
            jumped = True
            stage.jump(case.jump_s(stage))
            if case.then is not None:
                stage.edit(case.then)
        assert stage.tick() is not None, f"at {stage.now_s} s: {stage.said}"
        assert stage.loop.pulse.next_due_ms - stage.fake.steady_ms <= 5000
        note(stage, HISTORY, seen.events)
        note(stage, DECISIONS, seen.decisions)
        if case.creep:
            stage.jump(case.creep * 5.0)
        stage.pass_s(5.0)
    stage.loop.close()
    return seen


def note(stage: Stage, name: str, seen: list[tuple[float, JsonDict]]) -> None:
    path = stage.root / name
    lines = path.read_bytes().splitlines() if path.exists() else []
    seen += [(stage.now_s, json.loads(x)) for x in lines[len(seen) :]]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name.replace(" ", "-"))
def test_cooldown_and_observation_hold_in_real_seconds_whatever_the_wall_clock_does(
    tmp_path: Path, case: Case
) -> None:
    quick_settings()
    stage = Stage(tmp_path, text=case.text, start_ms=case.start_ms, on_disk=True)
    seen = told(stage, case)
    assert not stage.said
    last: dict[object, float] = {}
    for s, e in seen.events:
        if e["kind"] == "change":
            assert s - last.get(e["rule"], -1e9) >= 120, f"{e['rule']} again after {s - last[e['rule']]} s"
        last[e["rule"]] = s
    begun = {str(e["id"]): s for s, e in seen.events}
    verdicts = {k: (s, d) for s, d in seen.decisions if d.get("act") == "evaluate" for k in d["keys"]}
    for key, s in begun.items():
        if key in verdicts:
            judged, d = verdicts[key]
            early = any(r["code"] == "early_harm" for r in d["reasons"])
            assert early or judged - s >= 89, f"judged after {judged - s} real seconds"
    steps = [str(e["id"]) for s, e in seen.events if e["kind"] == "change" and s < 300]
    assert len(steps) >= 2 and all(k in verdicts for k in steps), "what was open at the jump was judged"
    assert any(s > JUMP_AT_S + 90 for s, _ in seen.decisions), "it went on"
    every_stamp_has_an_offset(tmp_path)


def every_stamp_has_an_offset(root: Path) -> None:
    stamps = [json.loads((root / HEARTBEAT).read_bytes())[k] for k in ("ts", "started", "next_due")]
    for name in LEDGERS:
        if name.endswith(".jsonl") and (root / name).exists():
            stamps += [json.loads(x)["ts"] for x in (root / name).read_bytes().splitlines()]
    rows = (root / "logs/rules_effects.csv").read_text().splitlines()[1:]
    stamps += [r.split(",")[0] for r in rows]
    assert len(stamps) > 10 and rows
    for ts in stamps:
        assert datetime.fromisoformat(ts).utcoffset() is not None, ts


# ----------------------------------------------------------------------------- a real process
@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that shifts the wall clock of one process, and leaves the steady clock true."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc")
    library = tmp_path_factory.mktemp("shim") / "clock.so"
    built = subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return library


@dataclass
class Shifted:
    """A loop process whose wall clock the test sets."""

    root: Path
    offset: Path
    process: subprocess.Popen[bytes]

    def set(self, seconds: float) -> None:
        temp = self.offset.with_suffix(".new")
        temp.write_text(f"{seconds:.0f}\n")
        temp.replace(self.offset)

    def beat(self) -> JsonDict:
        return dict(json.loads((self.root / HEARTBEAT).read_bytes()))

    def wait(self, what: Callable[[JsonDict], bool], within_s: float) -> JsonDict:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if (self.root / HEARTBEAT).exists() and what(beat := self.beat()):
                return beat
            time.sleep(0.05)
        raise AssertionError(f"not within {within_s} s: {self.beat()}")


@pytest.fixture
def shifted(shim: Path, tmp_path: Path) -> Iterator[Shifted]:
    root, offset = lay_out(tmp_path / "root", LIVE_TEXT), tmp_path / "offset"
    offset.write_text("0\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "selftune", "--root", str(root), "loop"],
        cwd=CHECKOUT,
        env={**os.environ, "LD_PRELOAD": str(shim), "SELFTUNE_TEST_OFFSET": str(offset)},
    )
    try:
        yield Shifted(root, offset, process)
    finally:
        process.terminate()
        assert process.wait(15) == 0


def shown_s(beat: JsonDict) -> float:
    return datetime.fromisoformat(str(beat["ts"])).timestamp()


@pytest.mark.slow
def test_a_real_loop_beats_on_through_jumps_of_its_wall_clock(shifted: Shifted) -> None:
    shifted.wait(lambda b: True, 30)
    for offset in (
        HOUR,
        -HOUR,
        DAY,
        -DAY,
        at("2038-01-19T03:14:00+00:00") / 1000 - time.time(),
        5 - time.time(),
    ):
        before = shifted.beat()
        shifted.set(offset)

        def moved(b: JsonDict, offset: float = offset) -> bool:
            return abs(shown_s(b) - (time.time() + offset)) < 3

        beat = shifted.wait(moved, 10)
        assert int(str(beat["cycle"])) >= int(str(before["cycle"])) and beat["faults"] == 0
        again = shifted.wait(lambda b, n=beat["cycle"]: int(str(b["cycle"])) > int(str(n)), 20)  # type: ignore[misc]
        assert moved(again) and datetime.fromisoformat(str(again["ts"])).utcoffset() is not None
    assert datetime.fromtimestamp(shown_s(shifted.beat()), UTC).year == 1970
