"""The supervisor: restarts back off, and one signal ends everything it started (F18)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from selftune import lifeline
from selftune.book import HEARTBEAT
from selftune.domain import Role
from selftune.up import BACKOFF_S, JITTER, STEADY_S, Child, children, go_live, notices, supervise
from tests.life import SETTINGS_TEXT, lay_out, settings_of

CHECKOUT = Path(__file__).resolve().parent.parent
ENDS = [sys.executable, "-S", "-E", "-c", "raise SystemExit(3)"]


def die(child: Child, now_s: float, *, lived_s: float) -> float:
    """Seconds until the child is due again, after it started at `now_s` and lived so long."""
    child.start(now_s)
    if child.process is not None:
        child.process.wait(60)
    codes = [child.died(now_s + lived_s) for _ in range(2)]
    assert codes == [3, None], "a death counts once"
    return child.due_s - (now_s + lived_s)


def test_a_child_that_dies_at_its_start_is_started_ever_more_seldom() -> None:
    child = Child("loop", ENDS)
    now, waits = 1000.0, []
    for _ in range(len(BACKOFF_S) + 2):
        waits.append(die(child, now, lived_s=0.5))
        now += 100
    for wait, plain in zip(waits, (*BACKOFF_S, BACKOFF_S[-1], BACKOFF_S[-1]), strict=True):
        assert plain * (1 - JITTER) <= wait <= plain * (1 + JITTER)
    assert BACKOFF_S[0] == 1.0 and BACKOFF_S[-1] == 60.0 and len({round(w, 6) for w in waits[-3:]}) == 3


def test_a_child_that_lived_well_begins_anew() -> None:
    child = Child("loop", ENDS)
    for i in range(5):
        die(child, 1000.0 + i, lived_s=0.5)
    assert die(child, 2000.0, lived_s=STEADY_S) <= BACKOFF_S[0] * (1 + JITTER)
    assert child.fails == 1


def test_the_children_of_a_root_and_of_a_demo(tmp_path: Path) -> None:
    found = children(tmp_path, host="127.0.0.1", port=8501, role=Role.VIEWER, plant_of=None)
    assert [c.name for c in found] == ["dashboard", "loop"]
    assert all(c.env["SELFTUNE_ROOT"] == str(tmp_path) for c in found[:1])
    asked = children(tmp_path, host="127.0.0.1", port=8501, role=Role.VIEWER, plant_of=None, lang="en")
    assert "--lang" not in found[1].argv and list(asked[1].argv)[3:5] == ["--lang", "en"]
    demo = children(tmp_path, host="127.0.0.1", port=8501, role=Role.VIEWER, plant_of=tmp_path)
    assert [c.name for c in demo] == ["plant", "dashboard", "loop"]


def test_a_dead_child_is_said_and_restarted_and_at_the_end_nobody_is_left() -> None:
    stopping, said = threading.Event(), []
    steady = Child("steady", [sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"])
    dying = Child("dying", ENDS)

    def say(text: str) -> None:
        said.append(text)
        stopping.set()

    supervise([steady, dying], stopping, say=say)
    assert said and said[0].startswith("dying: ended with 3; again in")
    assert steady.process is not None and steady.process.poll() is not None, "asked to leave, and left"


SUPERVISOR = """
import sys, threading
from selftune.up import Child, supervise
tied = "from selftune import lifeline; import time; print(lifeline.tie(), flush=True); time.sleep(600)"
supervise([Child("tied", [sys.executable, "-c", tied])], threading.Event())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_the_children_of_a_killed_supervisor_leave() -> None:
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR], cwd=CHECKOUT, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"True\n"
    (child,) = offspring(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not Path(f"/proc/{child}").exists(), 30, "the child leaves")


def test_without_a_supervisor_nothing_is_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lifeline.PARENT, raising=False)
    assert lifeline.tie() is False


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to be deaf to there")
def test_a_child_that_does_not_leave_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftune.up.LEAVE_S", 0.2)
    deaf = tmp_path / "deaf"
    code = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(deaf)!r}).touch(); time.sleep(600)"
    )
    child, stopping = Child("deaf", [sys.executable, "-S", "-E", "-c", code]), threading.Event()
    supervisor = threading.Thread(target=supervise, args=([child], stopping))
    supervisor.start()
    try:
        until(deaf.exists, 60, "the child is up")
    finally:
        stopping.set()
        supervisor.join(60)
    assert child.process is not None and child.process.returncode == -int(getattr(signal, "SIGKILL", 9))


def test_a_child_that_cannot_be_started_waits_and_the_others_live(tmp_path: Path) -> None:
    stopping, said = threading.Event(), list[str]()
    missing = Child("missing", [str(tmp_path / "no such program")])
    steady = Child("steady", [sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"])

    def say(text: str) -> None:
        said.append(text)
        if steady.process is not None:
            stopping.set()

    starter = threading.Timer(60, stopping.set)
    starter.start()
    supervise([steady, missing], stopping, say=say)
    starter.cancel()
    assert said and said[0].startswith("missing: ") and missing.fails == 1 and missing.process is None
    assert steady.process is not None and steady.process.poll() is not None


def test_live_for_the_demo_changes_two_settings_and_nothing_else(tmp_path: Path) -> None:
    root = lay_out(tmp_path, SETTINGS_TEXT.replace("\ngovernance: { approvals_required: 0 }\n", ""))
    go_live(root)
    found = settings_of((root / "configs/self_tuning.yaml").read_text(encoding="utf-8"))
    assert not found.dry_run and found.governance.approvals_required == 0
    assert found.rules == settings_of(SETTINGS_TEXT).rules


# ----------------------------------------------------------------------------- the real thing
def offspring(pid: int) -> set[int]:
    """Processes whose parent this is; empty where /proc does not tell."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.add(int(stat.parent.name))
    return found


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def until(what: Callable[[], bool], within_s: float, why: str) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {why}"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_one_command_runs_dashboard_loop_and_plant_and_ctrl_c_ends_them_all(tmp_path: Path) -> None:
    root = lay_out(tmp_path, SETTINGS_TEXT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "selftune", "--root", str(root), "up", "--demo", "--port", str(port)],
        cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    heartbeat = root / "logs/demo" / HEARTBEAT
    born: set[int] = set()
    try:
        until(lambda: heartbeat.exists() and answers(port), 120, "dashboard and loop")
        born = offspring(process.pid)
        assert len(born) == 3
        metrics = root / "logs/demo/logs/metrics.csv"
        size = metrics.stat().st_size
        until(lambda: metrics.stat().st_size > size, 30, "the plant writes")
        victim = json.loads(heartbeat.read_bytes())["pid"]
        assert victim in born
        os.kill(victim, signal.SIGKILL)
        until(lambda: json.loads(heartbeat.read_bytes())["pid"] != victim, 60, "the loop is started again")
        born |= offspring(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in said, said
    assert json.loads(heartbeat.read_bytes())["state"] == "stopped"
    assert not answers(port)
    assert not any(Path(f"/proc/{pid}").exists() for pid in born), "nobody is left"


def test_up_says_who_can_come_in_and_how_safely(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(**how: object) -> list[str]:
        asked = {"host": "127.0.0.1", "role": Role.VIEWER, **how}
        return [r.code for r in notices(root, **asked)]  # type: ignore[arg-type]

    (root / "logs" / "metrics.csv").write_text("ts\n", encoding="utf-8")
    monkeypatch.delenv("STREAMLIT_SERVER_SSL_CERT_FILE", raising=False)
    assert said() == [] and said(role=Role.OPERATOR) == []
    assert said(role=Role.REVIEWER) == ["up.role_capped"] and said(role=Role.REVIEWER, demo=True) == []
    assert said(host="0.0.0.0") == ["up.no_tls", "up.no_hosts"]
    monkeypatch.setenv("STREAMLIT_SERVER_SSL_CERT_FILE", "cert.pem")
    with (root / "configs" / "self_tuning.yaml").open("a", encoding="utf-8") as file:
        file.write("\ngovernance: {allowed_hosts: [tuning.example.org]}\n")
    assert said(host="0.0.0.0") == []
    (root / "configs" / "users.yaml").write_text("accounts: [", encoding="utf-8")
    assert said(role=Role.OPERATOR) == ["up.role_ignored"]


_PRINTED = """
from streamlit import config, net_util
from streamlit.web import bootstrap
asked = []
net_util.get_external_ip = lambda: asked.append(1)
config.get_config_options(options_from_flags={"server.address": "0.0.0.0", "server.headless": True})
bootstrap._print_url(False)
raise SystemExit(3 if asked else 0)
"""


def test_bound_to_every_address_it_asks_nobody_on_the_internet_for_ours() -> None:
    assert subprocess.run([sys.executable, "-c", _PRINTED], cwd=CHECKOUT, check=False).returncode == 0


_ASKED = """
import logging, sys
from streamlit import config, logger
from selftune import web
config.get_config_options()
logger.init_uvicorn_logs()
access = logging.getLogger("uvicorn.access")
access.handlers = []  # as uvicorn does at the start
if "ours" in sys.argv:
    web.log_no_addresses()
logger.update_formatter()  # as Streamlit does when its configuration file has changed
access.info("GET /oauth2callback?code=secret")
"""


@pytest.mark.parametrize(("how", "logged"), [("theirs", True), ("ours", False)])
def test_no_address_reaches_the_log_also_after_a_change_of_the_configuration(how: str, logged: bool) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _ASKED, how], cwd=CHECKOUT, check=True, capture_output=True, text=True
    )
    assert ("code=secret" in run.stderr) is logged
