"""The only functions that write files: append whole lines to shared files, replace our own files.

Answers "is it on disk?": a return means yes, an exception means that nothing counts as done.
Never truncates or renames a shared file. Every system call goes through an `Ops`, so that a test
can fail or kill at each of them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from selftune.domain import StorageError

_POLL_S = 0.005
_POLLS = 40  # 200 ms: how long a foreign writer may take between two parts of one line
_BASE_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_TEMP_SUFFIX = ".selftune-tmp"


class Ops:
    """The system calls that files need, one method each; tests replace them to inject faults."""

    def open(self, path: str, flags: int, mode: int) -> int:
        return os.open(path, flags, mode)

    def read(self, fd: int, n: int) -> bytes:
        return os.read(fd, n)

    def write(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def seek(self, fd: int, offset: int, whence: int) -> int:
        return os.lseek(fd, offset, whence)

    def fsync(self, fd: int) -> None:
        # A growing file's size is metadata that fdatasync does write; timestamps are not needed.
        getattr(os, "fdatasync", os.fsync)(fd)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def close(self, fd: int) -> None:
        os.close(fd)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdirs(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


OS = Ops()


# ----------------------------------------------------------------------------- opening
def inside(root: Path, path: Path) -> Path:
    """The real path of `path`, links followed. Raises: StorageError when it leads out of `root`."""
    real, home = os.path.realpath(path), os.path.realpath(root)
    if not real.startswith(os.path.join(home, "")):
        raise StorageError(f"{path} leads out of {root}; it is not written")
    return Path(real)


@contextmanager
def opened(path: Path, flags: int, *, mode: int = 0o644, ops: Ops = OS) -> Iterator[int]:
    """A descriptor of a regular file, closed at the end; a FIFO, device or folder is refused at once.

    Raises: FileNotFoundError, StorageError (not a regular file), OSError.
    """
    fd = ops.open(str(path), flags | _BASE_FLAGS, mode)
    try:
        if not stat.S_ISREG(ops.fstat(fd).st_mode):
            raise StorageError(f"{path} is not a regular file")
        yield fd
    finally:
        ops.close(fd)


@contextmanager
def _in_words(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {what}: {error.strerror or error} [{_name(error)}]") from error


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "?")


def _read_exactly(fd: int, start: int, n: int, ops: Ops) -> bytes:
    ops.seek(fd, start, os.SEEK_SET)
    parts: list[bytes] = []
    while n > 0 and (part := ops.read(fd, n)):
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


# ----------------------------------------------------------------------------- append
def append(path: Path, lines: list[bytes], *, root: Path, mode: int = 0o644, ops: Ops = OS) -> None:
    """Nothing; on return every line is on disk, whole, in order, read back. The caller holds the lock.

    Each line carries its line end. A torn tail that somebody left gets a line end first.
    Raises: StorageError; then some of the lines may stand in the file, never half of one unended.
    """
    data = b"".join(lines)
    if not data:
        return
    with _in_words(path, "append"):
        real = inside(root, path)
        try:
            with opened(real, os.O_RDWR | os.O_APPEND, ops=ops) as fd:
                return _append_whole(fd, data, path, ops)
        except FileNotFoundError:
            _make_folder(real.parent, ops)
        with opened(real, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode=mode, ops=ops) as fd:
            _append_whole(fd, data, path, ops)
        _sync_folder(real.parent, ops)


def mend(path: Path, *, root: Path, ops: Ops = OS) -> bool:
    """Whether the file ended in half a line, which now has a line end (so that readers see it)."""
    try:
        with _in_words(path, "mend"):
            size = ops.stat(str(path)).st_size
            if size == 0:
                return False
            with opened(inside(root, path), os.O_RDWR | os.O_APPEND, ops=ops) as fd:
                return _mend_tail(fd, ops)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise


def _ends_whole(fd: int, ops: Ops) -> tuple[bool, int]:
    size = ops.fstat(fd).st_size
    return size == 0 or _read_exactly(fd, size - 1, 1, ops) == b"\n", size


def _mend_tail(fd: int, ops: Ops) -> bool:
    """Waits while a foreign writer finishes its line; then ends it. True if a line end was written."""
    quiet, size_before = 0, -1
    for _ in range(5 * _POLLS):  # whoever keeps growing a line for a second is no writer of lines
        whole, size = _ends_whole(fd, ops)
        if whole:
            return False
        quiet = quiet + 1 if size == size_before else 0  # it grows: give it the time again
        if quiet >= _POLLS:
            break
        size_before = size
        ops.sleep(_POLL_S)
    if ops.write(fd, b"\n") != 1:
        raise OSError(errno.ENOSPC, "no room to end a half line")
    return True


def _append_whole(fd: int, data: bytes, path: Path, ops: Ops) -> None:
    """Nothing; `data` stands in the file as whole lines. Raises: OSError, StorageError."""
    for _ in range(3):
        _mend_tail(fd, ops)
        if _append_once(fd, data, path, ops):
            return
    raise StorageError(f"{path}: other writers keep leaving half lines; nothing counts as done")


def _append_once(fd: int, data: bytes, path: Path, ops: Ops) -> bool:
    """True when `data` stands in the file as whole lines; False when a foreign half line got before it."""
    written = ops.write(fd, data)  # ONE write: with O_APPEND nobody's bytes come between ours
    end = ops.seek(fd, 0, os.SEEK_CUR)
    if written != len(data):
        if written > 0 and not data[:written].endswith(b"\n"):
            ops.write(fd, b"\n")  # so that the next writer's line is not lost behind our fragment
        raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes were taken")
    ops.fsync(fd)
    start = end - len(data)
    found = _read_exactly(fd, max(0, start - 1), end - max(0, start - 1), ops)
    if not found.endswith(data):
        raise StorageError(f"{path}: read back something else than was written")
    return start == 0 or found[:1] == b"\n"


# ----------------------------------------------------------------------------- replace
def replace(path: Path, data: bytes, *, durable: bool, mode: int = 0o644, ops: Ops = OS) -> None:
    """Nothing; readers see either the old or the new content, never a mixture.

    `durable`: on return the new content survives a power loss (not for the heartbeat).
    Raises: StorageError; then the old content stands.
    """
    temp = _temp_of(path)
    with _in_words(path, "replace"):
        _make_folder(path.parent, ops)
        try:
            _write_temp(temp, data, durable=durable, mode=mode, ops=ops)
            _swap(str(temp), str(path), ops)
        except OSError:
            _forget(temp, ops)
            raise
        if durable:
            _sync_folder(path.parent, ops)


def replace_known(path: Path, base: bytes, data: bytes, *, limit: int, ops: Ops = OS) -> bytes | None:
    """`data`, now durably in place of `base`; else what was found instead, and that stands.

    An editor takes no lock. So the bytes are compared in the instant before the swap, and the old file
    is kept by a second name until the new one is on disk: whoever was writing into it meanwhile gets
    it back. What an editor renames into place within that instant alone would be lost.
    None: nothing was found, or nothing that can be read within `limit` bytes.
    Raises: StorageError; then what was there stands, or the error tells its second name.
    """
    temp, old = _temp_of(path), _temp_of(path)
    with _in_words(path, "replace"):
        try:
            found = _put_for(path, base, data, temp, old, limit, ops)
        except OSError:
            _forget(temp, ops)
            _forget(old, ops)
            raise
        _forget(temp, ops)
        _forget(old, ops)
    return found


def _put_for(
    path: Path, base: bytes, data: bytes, temp: Path, old: Path, limit: int, ops: Ops
) -> bytes | None:
    if (found := read_small(path, limit, ops=ops)) != base:
        return found
    mode = stat.S_IMODE(ops.stat(str(path)).st_mode)
    _write_temp(temp, data, durable=True, mode=mode, ops=ops)
    kept = _second_name(path, old, ops)
    if (found := read_small(path, limit, ops=ops)) != base:
        return found
    _swap(str(temp), str(path), ops)
    try:
        _sync_folder(path.parent, ops)
        if not (kept and is_there(old)) or (found := read_small(old, limit, ops=ops)) == base:
            return data
        _swap(str(old), str(path), ops)
        _sync_folder(path.parent, ops)
    except OSError:
        _give_back(path, old, ops)
        raise
    return found


def _give_back(path: Path, old: Path, ops: Ops) -> None:
    """What stood at `path` before; its second name may be the only one left, and is not lost."""
    try:
        if is_there(old):
            _swap(str(old), str(path), ops)
    except OSError as error:
        raise StorageError(
            f"{path}: replace: {error.strerror}; what was there before is {old.name}"
        ) from error


def _temp_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMP_SUFFIX}")


def _second_name(path: Path, name: Path, ops: Ops) -> bool:
    try:
        ops.link(str(path), str(name))
    except OSError:
        return False  # not every file system has them; then the comparison before the swap is all
    return True


def put_aside(path: Path, part: Path, *, root: Path, ops: Ops = OS) -> None:
    """Nothing; `path` now is `part`, durably. Raises: StorageError when it cannot be, or `part` is there."""
    with _in_words(path, "rotate"):
        if part.exists():
            raise OSError(errno.EEXIST, "is there already", str(part))
        ops.replace(str(inside(root, path)), str(part))
        _sync_folder(path.parent, ops)


def _write_temp(temp: Path, data: bytes, *, durable: bool, mode: int, ops: Ops) -> None:
    with opened(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=mode, ops=ops) as fd:
        done = 0
        while done < len(data):
            taken = ops.write(fd, data[done:])
            if taken <= 0:
                raise OSError(errno.ENOSPC, "no room")
            done += taken
        if durable:
            ops.fsync(fd)


def _swap(source: str, target: str, ops: Ops) -> None:
    for attempt in range(20):
        try:
            return ops.replace(source, target)
        except PermissionError:  # Windows, while a reader has the target open
            if os.name != "nt" or attempt == 19:
                raise
            ops.sleep(0.01)


def _forget(temp: Path, ops: Ops) -> None:
    try:
        ops.unlink(str(temp))
    except OSError:
        return  # `clean_temps` takes it at the next start


def _make_folder(folder: Path, ops: Ops) -> None:
    """A new folder's own name must survive a power loss as well, or the file in it is lost with it."""
    if folder.exists():
        return
    ops.mkdirs(str(folder))
    _sync_folder(folder.parent, ops)


def _sync_folder(folder: Path, ops: Ops) -> None:
    if os.name == "nt":  # a folder cannot be opened there; NTFS journals names itself
        return
    fd = ops.open(str(folder), os.O_RDONLY, 0)
    try:
        ops.fsync(fd)
    finally:
        ops.close(fd)


def clean_temps(folder: Path, *, of: str = "", older_than_s: float = 60.0) -> int:
    """How many temps of killed writers were removed; younger ones may belong to a living writer.

    `of`: only temps of the file with this name. A second name is as young as its making, not as its file.
    """
    removed = 0
    for temp in folder.glob(f".{of}*{_TEMP_SUFFIX}"):
        try:
            info = temp.stat()
            if time.time() - max(info.st_mtime, info.st_ctime) >= older_than_s:
                temp.unlink()
                removed += 1
        except OSError:
            continue  # another process cleaned it, or we may not
    return removed


# ----------------------------------------------------------------------------- read
def is_there(path: Path) -> bool:
    """False only when nothing of that name exists; what we may not even look at counts as there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_small(path: Path, limit: int, *, ops: Ops = OS) -> bytes | None:
    """The whole of a regular file of at most `limit` bytes; None when it is not there or not that."""
    try:
        with opened(path, os.O_RDONLY, ops=ops) as fd:
            data = _read_exactly(fd, 0, limit + 1, ops)
    except (OSError, StorageError):
        return None
    return data if len(data) <= limit else None


GUARD = 256
_CHUNK = 1 << 20
_BUDGET = 1 << 24


@dataclass(frozen=True, kw_only=True)
class News:
    """Lines that one reading found new, without LF; None where a line was too long to keep.

    `restarted`: the file is not the one read before, so these are all its lines from the first.
    `unfinished`: the file ends in half a line, which is not among them. `more`: call again, the rest
    of a large file was left for memory's sake.
    """

    lines: list[bytes | None] = field(default_factory=list)
    restarted: bool = False
    unfinished: bool = False
    more: bool = False
    problem: str | None = None  # the file is there and cannot be read: why


class Tail:
    """Reads a growing file piece by piece, remembering identity, offset and the bytes before it.

    `whole_guard` compares everything read so far instead of its last 256 bytes, so that an edit in
    the middle of a small file shows.
    """

    def __init__(self, path: Path, *, max_line: int, whole_guard: bool = False, ops: Ops = OS) -> None:
        self.path, self.max_line, self.whole_guard, self.ops = path, max_line, whole_guard, ops
        self._forget()

    def _forget(self) -> None:
        self.identity = ""
        self.offset = 0
        self._guard = b""
        self._seen: tuple[str, int, int, int] | None = None
        self._unfinished = False

    def news(self) -> News:
        """What was appended since the last call. Never raises for what a file may be."""
        try:
            info = self.ops.stat(str(self.path))
        except FileNotFoundError:
            gone = self.identity != ""
            self._forget()
            return News(restarted=gone)
        except OSError as error:
            return News(problem=_name(error))
        seen = (_identity(info), info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        if seen == self._seen:
            return News(unfinished=self._unfinished)
        return self._open_and_read()

    def _open_and_read(self) -> News:
        try:
            with opened(self.path, os.O_RDONLY, ops=self.ops) as fd:
                info = self.ops.fstat(fd)
                restarted = self.identity != "" and not self._same(fd, info)
                if restarted:
                    self._forget()
                lines, pending, more = self._read_lines(fd)
        except OSError as error:
            return News(problem=_name(error))
        except StorageError:
            return News(problem="not_regular")
        self.identity, self._unfinished = _identity(info), pending > 0
        # A file written while we read it looks changed at the next call, and is then read on.
        stamp = (self.identity, self.offset + pending, info.st_mtime_ns, info.st_ctime_ns)
        self._seen = None if more else stamp
        return News(lines=lines, restarted=restarted, unfinished=self._unfinished, more=more)

    def _same(self, fd: int, info: os.stat_result) -> bool:
        if _identity(info) != self.identity or info.st_size < self.offset:
            return False
        start = 0 if self.whole_guard else self.offset - len(self._guard)
        return self._fingerprint(_read_exactly(fd, start, self.offset - start, self.ops)) == self._guard

    def _fingerprint(self, data: bytes) -> bytes:
        return data if not self.whole_guard else _digest(data)

    def _read_lines(self, fd: int) -> tuple[list[bytes | None], int, bool]:
        """(whole lines after `offset`, bytes of the half line after them, whether more is left).

        Memory is bounded by `max_line` and the budget, whatever the file holds; `offset` moves only
        when all reads went well, so that a failed disk loses no line.
        """
        self.ops.seek(fd, self.offset, os.SEEK_SET)
        lines: list[bytes | None] = []
        rest, dropped, offset, budget, more = b"", 0, self.offset, _BUDGET, False
        while chunk := self.ops.read(fd, _CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                offset += len(line) + 1 + dropped
                lines.append(None if dropped + len(line) > self.max_line else line)
                dropped = 0
            if dropped + len(rest) > self.max_line:
                dropped, rest = dropped + len(rest), b""
            budget -= len(chunk)
            if budget <= 0 and lines:
                more = True
                break
        if lines or not self._guard:
            start = 0 if self.whole_guard else max(0, offset - GUARD)
            self._guard = self._fingerprint(_read_exactly(fd, start, offset - start, self.ops))
        self.offset = offset
        return lines, 0 if more else dropped + len(rest), more


def _identity(info: os.stat_result) -> str:
    return f"{info.st_dev:x}-{info.st_ino:x}"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
