"""The promises under faults that no other test file holds, and: every promise names tests that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from selftune import hands
from selftune.book import HEARTBEAT, HISTORY, SETTINGS
from selftune.cli import main
from selftune.files import clean_temps
from selftune.plan import Act
from selftune.settings import METRICS_FILE
from tests.life import LIVE_TEXT, Stage, lay_out, quick_settings
from tests.stage import HARD, LIVE, Scene, Story, acts, moved, settings_with, the

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "docs" / "promises.md"
NAMED = re.compile(r"`(\w+)::(\w+)`")


def test_every_promise_stands_on_tests_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    promised = [f"F{i}" for i in range(1, 20)]
    rows = {m[1]: m[2] for m in re.finditer(r"^\| (F\d+) \|(.*)$", text, flags=re.M)}
    assert list(rows) == promised
    where = {p.stem: p for p in (CHECKOUT / "tests").rglob("test_*.py")}
    for promise, row in rows.items():
        assert NAMED.search(row), f"no test stands behind {promise}"
    for file, name in NAMED.findall(text):
        assert f"def {name}(" in where[file].read_text(encoding="utf-8"), f"{file}::{name} is not there"


# ----------------------------------------------------------------------------- F5 read-only
LOOK = """
import sys
from streamlit.testing.v1 import AppTest
at = AppTest.from_file(sys.argv[1], default_timeout=60)
at.query_params["lang"] = "en"
at.run()
for page in ("overview", "trends", "suggestions", "targets", "history", "review"):
    at.switch_page(f"../pages/{page}.py").run()
    assert not at.exception and len(at.title) == 1, (page, at.exception)
print("read")
"""


def read_only(root: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """The command with `root` mounted read-only, in a mount namespace of its own."""
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(root), *command],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=180,
        env={**os.environ, "SELFTUNE_ROOT": str(root), "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip


@pytest.mark.slow
def test_the_pages_and_check_read_a_root_mounted_read_only(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or read_only(tmp_path, ["true"]).returncode:
        pytest.skip("no mount namespaces here (Linux with unshare only)")
    stage = Stage(lay_out(tmp_path / "root", LIVE_TEXT), text=LIVE_TEXT, on_disk=True)
    stage.until(60)
    stage.loop.close()
    seen = read_only(stage.root, [sys.executable, "-c", LOOK, str(CHECKOUT / "selftune/frame.py")])
    assert seen.returncode == 0 and "read" in seen.stdout, seen.stderr[-2000:]
    checked = read_only(stage.root, [sys.executable, "-m", "selftune", "--lang", "en", "check"])
    assert checked.returncode == 0 and "Traceback" not in checked.stderr, checked.stderr


# ----------------------------------------------------------------------------- F7 a hand meets a commit
HOLD = """
import sys
from pathlib import Path
from selftune.locks import commit_lock
with commit_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["ko", "en"])
def test_a_hand_that_finds_the_commit_lock_taken_names_the_holder_and_ends_with_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lang: str
) -> None:
    root = lay_out(tmp_path, LIVE_TEXT)
    event = {"ts": "2026-03-01T09:00:00+09:00", "actor": "x", "rule": "risk_max", "old": 0.35, "new": 0.33}
    (root / HISTORY).write_text(json.dumps(event) + "\n")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], cwd=CHECKOUT, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        before = (root / HISTORY).read_bytes()
        code = main(["--root", str(root), "--lang", lang, "rollback", "--reason", "x"])
        said = capsys.readouterr().err
        assert code == 5 and str(holder.pid) in said and "Traceback" not in said
        assert (root / HISTORY).read_bytes() == before
    finally:
        holder.communicate("\n")
    assert main(["--root", str(root), "--lang", lang, "rollback", "--reason", "x"]) == 0


# ----------------------------------------------------------------------------- F10, F12 memory
def peak_mb(code: str, *argv: str) -> float:
    """Peak resident memory of a fresh Python that runs `code`."""
    # VmHWM is this image's own; what getrusage tells would hold the memory of whoever started it
    peak = "next(x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM'))"
    wrapped = f"{code}\nprint({peak})"
    done = subprocess.run(
        [sys.executable, "-c", wrapped, *argv], cwd=CHECKOUT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1]) / 1024


READ = """
import json, sys
from pathlib import Path
from selftune.ledger import FileLedger
from selftune.runtime import Root
root = Root(Path(sys.argv[1]))
snap = root.snapshot()
assert [e.rule for e in snap.records.events] == ["risk_max", "creative_min"], snap.records.events
rejects = snap.records.rejects["controls/rules_history.jsonl"]
assert rejects == {"too_long": 1, "too_deep": 2}, rejects
assert len(snap.series) >= 20, "what stands after the line is read"
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_a_line_of_100_mb_and_json_100_000_deep_cost_little_and_hide_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, text=LIVE_TEXT, on_disk=True)
    stage.loop.close()
    event = {"ts": "2026-03-01T09:00:00+09:00", "actor": "x", "old": 0.3, "new": 0.3}
    with open(tmp_path / HISTORY, "wb") as file:
        file.write(json.dumps({**event, "rule": "risk_max"}).encode() + b"\n")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n")
        file.write(b"[" * 100_000 + b"\n")
        file.write(json.dumps({**event, "rule": "creative_min"}).encode() + b"\n")
    rows = (tmp_path / METRICS_FILE).read_bytes()
    with open(tmp_path / METRICS_FILE, "ab") as file:
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + b"".join(rows.splitlines(keepends=True)[-20:]))
    assert peak_mb(READ, str(tmp_path)) <= 700


BOMBS = """
import sys
from selftune.config import check
for text in ("[" * 100_000, "{a: " * 60_000, "- " * 100_000, "\\n".join(f"k{i}: 1" for i in range(30_000)),
             "\\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 99)),
             "a: &a [*a]", "a: !!python/object/apply:os.system [touch /]"):
    settings, problems = check(text.encode(), "bomb.yaml")
    assert settings is None and problems, text[:30]
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_bombs_in_the_settings_cost_no_memory() -> None:
    assert peak_mb(BOMBS) <= 200


# ----------------------------------------------------------------------------- F11 a first start
@pytest.mark.parametrize("lang", ["ko", "en"])
def test_a_first_start_with_bad_settings_ends_with_2_and_file_line_and_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lang: str
) -> None:
    text = LIVE_TEXT.replace("cooldown_s:", "cooldown_z:")
    root = lay_out(tmp_path, text)
    line = 1 + next(i for i, x in enumerate(text.splitlines()) if x.startswith("cooldown_z"))
    assert main(["--root", str(root), "--lang", lang, "loop"]) == 2
    said = capsys.readouterr().err
    assert SETTINGS in said and str(line) in said and "cooldown_s" in said and "Traceback" not in said
    assert not (root / HEARTBEAT).exists() and not (root / HISTORY).exists()
    assert clean_temps(root / "logs", older_than_s=0) == 0


# ----------------------------------------------------------------------------- F14 seven seconds
@pytest.mark.parametrize("age_s", [1.0, 4.0, 6.0, 8.0, 30.0])
def test_no_step_comes_more_than_seven_seconds_after_the_data_stopped(tmp_path: Path, age_s: float) -> None:
    """Everything else is ready for a step; the loop wakes so long after the last row."""
    quick_settings()
    stage = Stage(tmp_path, text=LIVE_TEXT, on_disk=True)
    stage.flowing = False
    stage.pass_s(age_s)
    stage.until(120, step_s=1.0)
    stage.loop.close()
    found = [(e.ts_ms - stage.begin_ms) / 1000 for e in stage.records().events if e.kind == "change"]
    assert found == ([age_s] if age_s <= 4 else []), "and what was open at the stop is another test's"


# ----------------------------------------------------------------------------- F16 the way back is free
def held() -> Story:
    """Both rules paused until released, and the exploration interval at its longest."""
    story = Story(settings_with({**LIVE, **HARD}))
    for i, rule in enumerate(("risk_max", "creative_min") * 5):
        old = story.settings.rules[rule].init
        story.at(-9000.0 + 400 * i).harmed(rule, old - 0.02 if rule == "risk_max" else old + 0.02)
    for _ in range(5):
        story.say("verdict", "look", result="stay", score=0.7)
    assert all(story.life.pause_of(r, 10**15) for r in story.settings.rules)
    return story


def test_a_pause_never_bars_an_emergency() -> None:
    plan = Scene(held(), levels=[(2, {"risk_band": 0.50})]).plan(40)
    act = the(plan, "emergency")
    assert act.write and moved(act) == {"risk_max": (0.35, 0.33)}


BACK: dict[str, Callable[[Scene], tuple[Act, ...]]] = {
    "rollback": lambda s: hands.rollback(s.picture(60), actor="kim", reason="x"),
    "stop": lambda s: hands.stop(s.picture(60), actor="kim", role="operator", reason="x"),
}


@pytest.mark.parametrize("how", BACK)
def test_a_pause_never_bars_a_persons_way_back(how: str) -> None:
    story = held()
    story.at(0).step("risk_max", 0.33)
    found = [a for a in BACK[how](Scene(story)) if a.moves]
    assert [moved(a) for a in found] == [{"risk_max": (0.33, 0.35)}] and found[0].write


@pytest.mark.parametrize(("level", "now"), [(0.36, 91), (0.40, 50), (0.50, 40)])
def test_a_pause_never_bars_the_loops_way_back(level: float, now: float) -> None:
    story = held()
    story.at(0).step("risk_max", 0.33)
    plan = Scene(story, levels=[(2, {"risk_band": level})]).plan(now)
    back = the(plan, "return")
    assert back.write and moved(back) == {"risk_max": (0.33, 0.35)}
    assert ("cycle", "step") not in acts(plan)
