"""Two locks: held by one, named to the other, gone with their holder; their text is never believed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from selftune.domain import LockHeld, StorageError
from selftune.locks import COMMIT_LOCK, LOOP_LOCK, LoopLease, commit_lock, holder, loop_holder

CHECKOUT = Path(__file__).resolve().parent.parent
HOLD = """
import sys
from pathlib import Path
from selftune.locks import LoopLease, commit_lock
root = Path(sys.argv[2])
if sys.argv[1] == "loop":
    lease = LoopLease(root)
else:
    held = commit_lock(root)
    held.__enter__()
print("held", flush=True)
sys.stdin.readline()
"""


def hold(what: str, root: Path) -> subprocess.Popen[str]:
    """A process that holds a lock until it is ended."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, what, str(root)],
        cwd=CHECKOUT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def end(child: subprocess.Popen[str], how: signal.Signals | None = None) -> None:
    if how is not None:
        child.send_signal(how)
    child.communicate()


def test_a_second_loop_is_told_who_holds_the_lease(root: Path) -> None:
    child = hold("loop", root)
    try:
        with pytest.raises(LockHeld) as held:
            LoopLease(root)
        assert (held.value.pid, held.value.lock) == (child.pid, "loop.lock")
        assert held.value.host and held.value.since and held.value.exit_code == 5
        who = loop_holder(root)
        assert who is not None and who.pid == child.pid
    finally:
        end(child)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL there")
@pytest.mark.parametrize("what", ["loop", "commit"])
def test_a_killed_holder_holds_nothing(root: Path, what: str) -> None:
    end(hold(what, root), signal.SIGKILL)
    LoopLease(root).release()
    with commit_lock(root, 0):
        pass


def test_a_hand_that_waits_for_the_commit_lock_is_told_who_has_it(root: Path) -> None:
    child = hold("commit", root)
    try:
        with pytest.raises(LockHeld) as held, commit_lock(root, 0.05):
            pass
        assert (held.value.pid, held.value.lock) == (child.pid, "commit.lock")
    finally:
        end(child)
    with commit_lock(root, 0):
        pass


def test_threads_of_one_process_exclude_each_other_too(root: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(30):
            with commit_lock(root, 20):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert most == 1


def test_the_text_of_a_lock_file_is_not_the_lock(root: Path) -> None:
    for name in (LOOP_LOCK, COMMIT_LOCK):
        (root / name).write_text('\n{"pid": 1, "host": "elsewhere", "since": "2020-01-01T00:00:00Z"}')
    assert loop_holder(root) is None
    LoopLease(root).release()
    with commit_lock(root, 0):
        assert holder(root / COMMIT_LOCK).pid == os.getpid()


@pytest.mark.parametrize("text", [b"", b"garbage", b"\n[]", b"\n{}", b'\n{"pid": "x"}', b"\xff" * 40])
def test_a_garbled_lock_file_names_nobody_and_stops_nobody(root: Path, text: bytes) -> None:
    (root / LOOP_LOCK).write_bytes(text)
    assert holder(root / LOOP_LOCK).pid is None
    with LoopLease(root):
        assert holder(root / LOOP_LOCK).pid == os.getpid()


def test_lock_files_stay(root: Path) -> None:
    LoopLease(root).release()
    with commit_lock(root):
        pass
    assert (root / LOOP_LOCK).exists() and (root / COMMIT_LOCK).exists()


def test_a_lease_may_be_released_twice(root: Path) -> None:
    lease = LoopLease(root)
    lease.release()
    lease.release()
    assert loop_holder(root) is None


def test_a_folder_that_cannot_be_locked_says_so(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(StorageError), commit_lock(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
def test_a_lease_whose_file_was_removed_is_no_longer_held(root: Path) -> None:
    with LoopLease(root) as lease:
        assert lease.held
        (root / LOOP_LOCK).unlink()
        assert not lease.held, "the next loop would lock another file"
    assert not lease.held
