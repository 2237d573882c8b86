"""`selftune up`: dashboard and loop (and the plant of the demo) under one small supervisor.

Answers "what runs, and what when one of them dies?". A dead child is started again with back-off and
jitter; Ctrl-C or SIGTERM ends all of them. Decides nothing about tuning.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selftune import account_book, lifeline
from selftune.accounts import USERS_FILE
from selftune.address import is_loopback
from selftune.config import check, edit
from selftune.demo import demo_root, is_demo, run_demo
from selftune.domain import Reason, Role
from selftune.files import read_small, replace
from selftune.house import APP, HOUSE
from selftune.loop import leave_on_signals
from selftune.settings import METRICS_FILE, SETTINGS_FILE

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)  # promises F18
JITTER = 0.25
STEADY_S = 60.0  # a child that lived so long starts with a clean slate
POLL_S = 0.2
SETTINGS_BYTES = 256 * 1024
LEAVE_S = 8.0  # for a child to end by itself before it is killed


@dataclass
class Child:
    """One supervised process. `fails` counts quick deaths in a row."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    fails: int = 0
    due_s: float = 0.0

    def start(self, now_s: float) -> None:
        """Start it in a group of its own, so that Ctrl-C reaches only the supervisor."""
        self.started_s = now_s
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        self.process = subprocess.Popen(
            list(self.argv),
            env={**os.environ, **self.env, "PYTHONUTF8": "1", lifeline.PARENT: str(os.getpid())},
            cwd=HOUSE,
            start_new_session=os.name != "nt",
            creationflags=flags,
        )

    def died(self, now_s: float) -> int | None:
        """Its exit code when it has just ended; then it is due again after the back-off."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        self.wait(now_s)
        return code

    def wait(self, now_s: float) -> None:
        """It failed just now: due again after the back-off."""
        self.fails = 1 if now_s - self.started_s >= STEADY_S else self.fails + 1
        wait = BACKOFF_S[min(self.fails, len(BACKOFF_S)) - 1]
        self.due_s = now_s + wait * (1 + random.uniform(-JITTER, JITTER))

    def end(self) -> None:
        """Ask it to leave."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM if os.name != "nt" else signal.SIGBREAK)  # type: ignore[attr-defined,unused-ignore]


def children(
    root: Path, *, host: str, port: int, role: Role, plant_of: Path | None, lang: str | None = None
) -> list[Child]:
    """What runs for `root`; `plant_of`: the root whose demo plant writes the metrics. `lang`: as asked."""
    me = [sys.executable, "-m", "selftune", *(["--lang", lang] if lang else [])]
    env = {"SELFTUNE_ROOT": str(root), "SELFTUNE_ROLE": role.value}
    page = [
        sys.executable, "-m", "streamlit", "run", str(APP),
        "--server.address", host, "--server.port", str(port), "--server.headless", "true",
    ]  # fmt: skip
    found = [Child("dashboard", page, env), Child("loop", [*me, "--root", str(root), "loop"])]
    if plant_of is not None:
        found.insert(0, Child("plant", [*me, "--root", str(plant_of), "demo"]))
    return found


def supervise(
    procs: Sequence[Child], stopping: threading.Event, *, say: Callable[[str], None] = print
) -> None:
    """Keep the children alive until `stopping`; then end them all and wait for them."""
    try:
        while not stopping.is_set():
            now = time.monotonic()
            for child in procs:
                code = child.died(now)
                if code is not None:
                    say(f"{child.name}: ended with {code}; again in {max(0.0, child.due_s - now):.0f} s")
                if child.process is None and now >= child.due_s:
                    try:
                        child.start(now)
                    except OSError as e:  # no memory, no process left: the others live on
                        child.wait(now)
                        say(f"{child.name}: {e.strerror or e}; again in {child.due_s - now:.0f} s")
            stopping.wait(POLL_S)
    finally:
        _end(procs)


def _end(procs: Sequence[Child]) -> None:
    for child in procs:
        child.end()
    deadline = time.monotonic() + LEAVE_S
    for child in procs:
        if child.process is None:
            continue
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def go_live(root: Path) -> None:
    """The demo's own switch: live without a review, in the demo root only."""
    path = root / SETTINGS_FILE
    text = edit(
        path.read_bytes().decode("utf-8"), {"strategy.dry_run": False, "governance.approvals_required": 0}
    )
    replace(path, text.encode("utf-8"), durable=True)


def prepare_demo(root: Path, *, live: bool) -> Path:
    """The demo's data root, with an hour of history the first time and live if asked."""
    home = demo_root(root)
    if not (home / METRICS_FILE).exists():
        run_demo(root, fast=True)
    if live:
        go_live(home)
    return home


def notices(root: Path, *, host: str, role: Role, demo: bool = False) -> tuple[Reason, ...]:
    """What whoever starts it should know about who can come in, and as whom."""
    home = demo_root(root) if demo or not (root / METRICS_FILE).exists() else root
    found = []
    book = account_book.read(home / USERS_FILE)
    if role is not Role.VIEWER and not book.none_yet:
        found.append(Reason("up.role_ignored"))
    elif role in (Role.REVIEWER, Role.ADMIN) and not (home != root or is_demo(home)):
        found.append(Reason("up.role_capped", {"role": role.value}))
    if not is_loopback(host):
        if not os.environ.get("STREAMLIT_SERVER_SSL_CERT_FILE"):
            found.append(Reason("up.no_tls", {"host": host}))
        settings, _ = check(read_small(home / SETTINGS_FILE, SETTINGS_BYTES) or b"", SETTINGS_FILE)
        if settings is None or not settings.governance.allowed_hosts:
            found.append(Reason("up.no_hosts", {"file": SETTINGS_FILE}))
    return tuple(found)


def run_up(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    role: Role = Role.VIEWER,
    demo: bool = False,
    live: bool = False,
    lang: str | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Serve the dashboard and run the loop until Ctrl-C or SIGTERM. Returns 0.

    With no metrics file, or `demo`, on the simulated plant in the demo root. Raises: Refused when the
    demo root holds metrics that the demo did not make.
    """
    plant_of: Path | None = None
    if demo or not ((root / METRICS_FILE).exists() or is_demo(root)):
        plant_of, root = root, prepare_demo(root, live=live)
    if role is not Role.VIEWER and not is_loopback(host):
        role = Role.VIEWER  # the role of `up` is an act of whoever sits at this machine
    stopping = threading.Event()

    leave_on_signals(stopping)
    say(f"http://{host}:{port}")
    found = children(root, host=host, port=port, role=role, plant_of=plant_of, lang=lang)
    supervise(found, stopping, say=say)
    return 0
