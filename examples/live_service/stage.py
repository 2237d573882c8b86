"""What runs on the stage: the services under one load, their adapters, and selftune beside one of them.

Answers "what was started, where does it write, and how is it ended?". Every process is a real one on
loopback with a port of its own; all of them end with the `with` block, whatever happened.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
SETTINGS = "configs/self_tuning.yaml"
HISTORY, APPROVALS = "controls/rules_history.jsonl", "controls/approvals.jsonl"
DECISIONS, HEARTBEAT = "logs/tuning_decisions.jsonl", "logs/loop_status.json"
METRICS, EFFECTS = "logs/metrics.csv", "logs/rules_effects.csv"
MARK = "example.json"  # stands in a folder that this example made, and may therefore clear away
ZONE = ZoneInfo("Asia/Seoul")
POLL_S = 0.2
LEAVE_S = 15.0

T = TypeVar("T")


class Missed(Exception):
    """What was promised did not happen in time."""


def until(what: Callable[[], T | None], within_s: float, why: str) -> T:
    """What `what` gives as soon as it is true. Raises: Missed after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        if time.monotonic() > deadline:
            raise Missed(f"not within {within_s:.0f} s: {why}")
        time.sleep(POLL_S)
    return found


def seconds(stamp: str) -> float:
    """An ISO stamp as wall seconds."""
    return datetime.fromisoformat(stamp).timestamp()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def fetched(url: str) -> bytes | None:
    """What stands at this address of our own machine; None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bytes(reply.read())
    except OSError:
        return None


# ----------------------------------------------------------------------------- one service and its root
@dataclass
class Side:
    """One service with a data root of its own. `values` come from its own rule history."""

    name: str
    root: Path
    port: int = field(default_factory=free_port)

    def lay_out(self) -> None:
        """An empty root with the example's settings."""
        for folder in ("configs", "controls", "logs"):
            (self.root / folder).mkdir(parents=True)
        shutil.copyfile(HERE / SETTINGS, self.root / SETTINGS)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole records of one ledger."""
        path = self.root / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def beat(self) -> dict[str, Any]:
        """The loop's last word; empty before its first."""
        try:
            return dict(json.loads((self.root / HEARTBEAT).read_bytes()))
        except FileNotFoundError:
            return {}

    def value(self, rule: str) -> float | None:
        """The newest value in the rule history; None while nobody moved the rule."""
        return next((e["new"] for e in reversed(self.lines(HISTORY)) if e["rule"] == rule), None)

    def write_rule(self, rule: str, new: float, *, actor: str, note: str) -> float:
        """A rule change by somebody who knows nothing of selftune: one line, no `old`, no `id`. When (s)."""
        now = datetime.now(ZONE)
        event = {"ts": now.isoformat(), "actor": actor, "rule": rule, "new": new, "note": note}
        with open(self.root / HISTORY, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
        return now.timestamp()


# ----------------------------------------------------------------------------- processes
@contextmanager
def running(argv: Sequence[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """One process of ours, asked to leave at the end and killed if it does not."""
    with open(log, "ab") as out:
        process = subprocess.Popen(
            list(argv), cwd=CHECKOUT, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUTF8": "1", **env}, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def part(name: str, *args: object) -> list[str]:
    """The command line of one program of this example."""
    return [sys.executable, str(HERE / f"{name}.py"), *map(str, args)]


def selftune(*args: object) -> list[str]:
    return [sys.executable, "-m", "selftune", *map(str, args)]


class Stage:
    """The example's folder, its services, and the clock of the load. Times are seconds since its start."""

    def __init__(self, folder: Path, *, rate: float, shift_at: float, shift_rate: float) -> None:
        self.folder, self.rate, self.shift_at, self.shift_rate = folder, rate, shift_at, shift_rate
        self.tuned = Side("tuned", folder / "tuned")
        self.untouched = Side("untouched", folder / "untouched")
        self.left = Side("left_where_it_stood", folder / "left_where_it_stood")
        self.started = time.time()
        self._ends = ExitStack()

    def __enter__(self) -> Stage:
        clear(self.folder)
        for side in (self.tuned, self.untouched):
            self.serve(side)
        ports = (self.tuned.port, self.untouched.port, self.left.port)  # the third answers only later
        self.start(
            part("load", "--ports", *ports, "--rate", self.rate, "--shift-at", self.shift_at,
                 "--shift-rate", self.shift_rate), "load",
        )  # fmt: skip
        self.started = time.time()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def start(self, argv: Sequence[str], name: str, **env: str) -> subprocess.Popen[bytes]:
        """One more process that lives as long as the stage."""
        return self._ends.enter_context(running(argv, self.folder / f"{name}.log", **env))

    def serve(self, side: Side) -> None:
        """A service on `side`'s port, with its adapter, once it answers."""
        side.lay_out()
        self.start(part("service", "--port", side.port), f"service_{side.name}")
        until(lambda: fetched(f"http://127.0.0.1:{side.port}/stats"), 60, f"{side.name} answers")
        self.start(part("adapter", "--root", side.root, "--port", side.port), f"adapter_{side.name}")

    def leave_a_copy(self) -> None:
        """A third service with the values that the tuned one has now, and that nobody will move again."""
        self.serve(self.left)
        source = self.tuned.root / HISTORY
        if source.exists():
            shutil.copyfile(source, self.left.root / HISTORY)

    @property
    def now_s(self) -> float:
        return time.time() - self.started

    def wait_for(self, at_s: float) -> None:
        """Until this moment of the load."""
        while (left := at_s - self.now_s) > 0:
            time.sleep(min(left, 1.0))


def clear(folder: Path) -> None:
    """The folder, empty and marked as ours. Raises: Missed when it holds what we did not make."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise Missed(f"{folder} holds files that this example did not make; give it another --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).write_text('{"made_by": "examples/live_service/story.py"}\n', encoding="utf-8")
