"""The two locks of a data root: the loop's lease for life, the commit lock for one commit.

Answers "may I write now, and if not, who holds it?". The kernel's lock is the truth and is gone when
its holder dies; the text in the file only names the holder. A lock file is never removed.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from selftune.domain import LockHeld, StorageError

LOOP_LOCK = "logs/loop.lock"
COMMIT_LOCK = "logs/commit.lock"
POLL_S = 0.005  # filelock's 50 ms would leave the lock idle; at 1 ms eight waiters take the holder's core
_TEXT_AT = 1  # Windows bars others from the locked byte 0; the text after it stays readable


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who wrote last into a lock file: to be shown, never to be trusted."""

    pid: int | None = None
    host: str | None = None
    since: str | None = None


def holder(path: Path) -> Holder:
    """The holder that a lock file names; empty fields where it says nothing usable."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(_TEXT_AT)
            said = json.loads(file.read(1024))
        return Holder(pid=int(said["pid"]), host=str(said["host"]), since=str(said["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder()


def _write_holder(fd: int) -> None:
    said = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"\n" + json.dumps(said).encode().ljust(250) + b"\n")
    except OSError:
        return  # a full disk must not keep anybody from stopping the loop: the lock is held even so


def _lock(path: Path) -> FileLock:
    # No fallback to existence locks: they outlive a killed holder.
    return FileLock(
        path,
        poll_interval=POLL_S,
        thread_local=False,
        preserve_lock_file=True,
        on_acquired=_write_holder,
        fallback_to_soft=False,
    )


def _acquire(path: Path, wait_s: float) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        who = holder(path)
        raise LockHeld(path.name, pid=who.pid, host=who.host, since=who.since) from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be locked: {error.strerror or error}") from error
    return lock


@contextmanager
def commit_lock(root: Path, wait_s: float = 2.0) -> Iterator[None]:
    """The right to append to the ledgers of `root`, for one commit.

    Raises: LockHeld after `wait_s`, StorageError.
    """
    lock = _acquire(root / COMMIT_LOCK, wait_s)
    try:
        yield
    finally:
        lock.release()


class LoopLease:
    """The right to be the loop of `root`, from construction until `release` or death.

    Raises: LockHeld when another loop lives, StorageError.
    """

    def __init__(self, root: Path) -> None:
        # A look by `loop_holder` holds the lock for a moment: that is no other loop.
        self._lock = _acquire(root / LOOP_LOCK, 0.2)

    @property
    def held(self) -> bool:
        """True while the lock is ours and its file is still the one that the next loop would lock."""
        if not self._lock.is_locked:
            return False
        try:
            there, mine = os.stat(self._lock.lock_file), os.fstat(self._lock._context.lock_file_fd or -1)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def release(self) -> None:
        """Give the lease back; a second call does nothing."""
        if self._lock.is_locked:
            self._lock.release()

    def __enter__(self) -> LoopLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def held_for_life(path: Path) -> Iterator[None]:
    """The lock of one job's own file, given back at the end, or by the kernel when the process dies.

    Raises: LockHeld, StorageError.
    """
    lock = _acquire(path, 0.2)
    try:
        yield
    finally:
        lock.release()


def loop_holder(root: Path) -> Holder | None:
    """Who holds the loop's lease now; None when nobody does, or when it cannot be told (read-only disk)."""
    return holder_now(root / LOOP_LOCK)


def holder_now(path: Path) -> Holder | None:
    """Who holds this lock now; None when nobody does, or when it cannot be told (read-only disk)."""
    if not path.exists():
        return None
    lock = FileLock(path, thread_local=False, preserve_lock_file=True, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return holder(path)
    except OSError:
        return None
    lock.release()
    return None
