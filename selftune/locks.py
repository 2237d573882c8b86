"""The two locks of a data root: the loop's lease for life, the commit lock for one commit.

Answers "may I write now, and if not, who holds it?". The kernel's lock is the truth and is gone when
its holder dies; the text in the file only names the holder. A lock file is never removed.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

from selftune.domain import LockHeld, StorageError

LOOP_LOCK = "logs/loop.lock"
COMMIT_LOCK = "logs/commit.lock"
USERS_LOCK = "logs/users.lock"
POLL_S = 0.005  # filelock's 50 ms would leave the lock idle; at 1 ms eight waiters take the holder's core
# A link in the lock's place is refused, a pipe does not block; O_CLOEXEC is Python's own default.
_FLAGS = (
    os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)  # fmt: skip
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


@dataclass
class _Held:
    """A lock that is ours until `release`: the descriptor that carries it, and where its file was."""

    path: Path
    fd: int

    @property
    def in_place(self) -> bool:
        """True while the locked file is still the one that the next comer would lock."""
        try:
            there, mine = os.stat(self.path), os.fstat(self.fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            try:
                unlock_descriptor(
                    fd
                )  # a child forked meanwhile has the descriptor too: closing is not enough
            finally:
                os.close(fd)


def _try(path: Path) -> _Held | None:
    """The lock if nobody has it now. Raises: OSError."""
    held = _Held(path, os.open(path, _FLAGS, 0o666))
    try:
        if lock_descriptor(held.fd, blocking=False):
            if held.in_place:  # else somebody removed the file between our opening and our locking
                return held
            held.release()
            return None
    except BaseException:
        os.close(held.fd)
        raise
    os.close(held.fd)
    return None


def _acquire(path: Path, wait_s: float) -> _Held:
    """Raises: LockHeld after `wait_s`, StorageError."""
    end = time.monotonic() + wait_s
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        while (held := _try(path)) is None:
            left = end - time.monotonic()
            if left <= 0:
                who = holder(path)
                raise LockHeld(path.name, pid=who.pid, host=who.host, since=who.since)
            time.sleep(min(POLL_S, left))
    except OSError as error:
        raise StorageError(f"{path}: cannot be locked: {error.strerror or error}") from error
    _write_holder(held.fd)
    return held


@contextmanager
def commit_lock(root: Path, wait_s: float = 2.0) -> Iterator[None]:
    """The right to append to the ledgers of `root`, for one commit.

    Raises: LockHeld after `wait_s`, StorageError.
    """
    held = _acquire(root / COMMIT_LOCK, wait_s)
    try:
        yield
    finally:
        held.release()


@contextmanager
def users_lock(root: Path, wait_s: float = 2.0) -> Iterator[None]:
    """The right to change the accounts of `root`. Raises: LockHeld after `wait_s`, StorageError."""
    lock = _acquire(root / USERS_LOCK, wait_s)
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
        return self._lock.fd >= 0 and self._lock.in_place

    def release(self) -> None:
        """Give the lease back; a second call does nothing."""
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
    try:
        held = _try(path)
    except OSError:
        return None
    if held is None:
        return holder(path)
    held.release()
    return None
