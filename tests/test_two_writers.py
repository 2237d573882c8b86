"""Real processes on one root: two loops, a hand, a foreign program, and signals (F1, F7, F8)."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from selftune import hands
from selftune.book import APPROVALS, DECISIONS, HEARTBEAT, HISTORY, QUOTES
from selftune.domain import JsonDict, LockHeld, Refused, StaleSnapshot
from selftune.ledger import FileLedger, orphans
from selftune.loop import Loop
from selftune.runtime import Root
from tests.life import LIVE_TEXT, lay_out

CHECKOUT = Path(__file__).resolve().parent.parent
WITHIN_S = 60.0  # a deadline for a busy machine, not a promise

Process = subprocess.Popen[str]


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Whatever a test started and did not end is ended."""
    started: list[Process] = []
    yield started
    for p in started:
        if p.poll() is None:
            p.kill()
        p.communicate()


def a_loop(root: Path, processes: list[Process]) -> Process:
    process = subprocess.Popen(
        [sys.executable, "-m", "selftune", "--root", str(root), "--lang", "en", "loop"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    processes.append(process)
    return process


def beat(root: Path) -> JsonDict:
    try:
        return dict(json.loads((root / HEARTBEAT).read_bytes()))
    except FileNotFoundError:
        return {}


def wait_for(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {why}"
        time.sleep(0.05)


def alive(root: Path, process: Process) -> None:
    def beats() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return beat(root).get("pid") == process.pid and beat(root)["state"] != "stopped"

    wait_for(beats, "a heartbeat")


def test_a_second_loop_leaves_with_5_and_names_the_first(tmp_path: Path, processes: list[Process]) -> None:
    root = lay_out(tmp_path, LIVE_TEXT)
    first = a_loop(root, processes)
    alive(root, first)
    second = a_loop(root, processes)
    _, said = second.communicate(timeout=WITHIN_S)
    assert second.returncode == 5
    assert (
        str(first.pid) in said
        and socket.gethostname() in said
        and "since" in said
        and "Traceback" not in said
    )
    since = json.loads((root / "logs/loop.lock").read_bytes()[1:].strip(b"\0 \n"))["since"]
    assert str(since)[:10] in said or str(since)[11:16] in said
    assert first.poll() is None and beat(root)["pid"] == first.pid


@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_ends_the_loop_after_its_tick_and_the_heartbeat_says_so(
    tmp_path: Path, processes: list[Process], how: str
) -> None:
    root = lay_out(tmp_path, LIVE_TEXT)
    found = signal.signal(getattr(signal, how), signal.default_int_handler)  # under nohup it is ignored, and
    process = a_loop(root, processes)  # what a process ignores its children ignore too
    signal.signal(getattr(signal, how), found)
    alive(root, process)
    process.send_signal(getattr(signal, how))
    _, said = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0 and "Traceback" not in said
    assert beat(root)["state"] == "stopped"
    assert all(x.endswith(b"}") for x in (root / DECISIONS).read_bytes().splitlines())
    Loop(root).close()  # the lease is free


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_after_kill_9_the_next_loop_takes_the_lease_at_once(tmp_path: Path, processes: list[Process]) -> None:
    root = lay_out(tmp_path, LIVE_TEXT)
    first = a_loop(root, processes)
    alive(root, first)
    first.kill()
    first.wait(WITHIN_S)
    assert beat(root)["state"] != "stopped", "it had no time to say so"
    second = a_loop(root, processes)
    alive(root, second)
    second.terminate()
    assert second.wait(WITHIN_S) == 0


# ----------------------------------------------------------------------------- all at once
HANDS, FOREIGN_LINES = 12, 150


def hand(root: str, go: Any, out: Any) -> None:
    """A person who stops and resumes, over and over; counts what was done and what was not taken."""
    go.wait(WITHIN_S)
    done: Counter[str] = Counter()
    for i in range(HANDS):
        act = hands.stop if i % 2 == 0 else hands.resume
        wanted = partial(act, actor="kim", role="operator", reason="a turn")
        try:
            Root(Path(root)).hand(wanted, actor="kim")
            done["done"] += 1
        except (StaleSnapshot, LockHeld, Refused) as error:
            done[type(error).__name__] += 1
    out.put(done)


def foreign_line(i: int) -> bytes:
    """A rule event as others write it: odd spacing, other keys, Korean text."""
    event = {"ts": "2026-03-01T09:00:00+09:00", "rule": "risk_max", "new": 0.3, "actor": "다른 이", "n": i}
    return json.dumps(event, ensure_ascii=False, separators=(" , ", " : ")).encode() + b"\n"


def foreign(root: str, go: Any, out: Any) -> None:
    """Another program: whole lines, no lock, into the history and the quotes."""
    go.wait(WITHIN_S)
    for i in range(FOREIGN_LINES):
        for name in (HISTORY, QUOTES):
            with open(Path(root) / name, "ab", buffering=0) as file:
                file.write(foreign_line(i))
        time.sleep(0.005)
    out.put(Counter(done=FOREIGN_LINES))


@pytest.mark.slow
def test_a_loop_two_hands_and_a_foreign_program_at_once_lose_and_mix_nothing(
    tmp_path: Path, processes: list[Process]
) -> None:
    root = lay_out(tmp_path, LIVE_TEXT)
    process = a_loop(root, processes)
    alive(root, process)
    context = multiprocessing.get_context("spawn")
    out, go = context.Queue(), context.Event()
    workers: list[BaseProcess] = [
        context.Process(target=hand, args=(str(root), go, out)),
        context.Process(target=hand, args=(str(root), go, out)),
        context.Process(target=foreign, args=(str(root), go, out)),
    ]
    for w in workers:
        w.start()
    go.set()
    try:
        results = [out.get(timeout=2 * WITHIN_S) for _ in workers]
    finally:
        for w in workers:
            w.join(WITHIN_S)
            if w.is_alive():
                w.terminate()
    process.terminate()
    _, said = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0 and "Traceback" not in said, said
    done = sum((r for r in results), Counter[str]())
    assert done["done"] >= FOREIGN_LINES + 6, f"the hands got through: {results}"
    for name in (HISTORY, QUOTES):
        found = (root / name).read_bytes().splitlines(keepends=True)
        theirs = [x for x in found if b" : " in x]
        assert theirs == [foreign_line(i) for i in range(FOREIGN_LINES)], "each once, in order, byte for byte"
    ids = []
    for name in (HISTORY, DECISIONS, APPROVALS, QUOTES):
        for x in (root / name).read_bytes().splitlines():
            record = json.loads(x)  # no line is mixed with another
            ids += [record["id"]] if "id" in record else []
    assert len(ids) == len(set(ids)) and len(ids) >= 12
    after = FileLedger(root, timezone="Asia/Seoul").read()
    assert not orphans(after) and after.chain.ok and not any(after.rejects.values())
    kinds = Counter(g.kind for g in after.governance)
    assert kinds["stop"] + kinds["resume"] == done["done"] - FOREIGN_LINES, (
        "what was said done is there, once"
    )
