"""The metrics file as bytes: opened so that nothing can hang, read by offset, recognised again.

Answers "is this still the file I read, and what stands at this offset?". Never parses, never writes.
The file is opened for each look and closed again: a held handle would keep a Windows writer from
rotating it. Only regular files; a folder, FIFO or device is a named state.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

MARK_BYTES = 256
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class StreamStatus(StrEnum):
    """Whether the metrics file can be read, and if not why (`stream.<value>` in the catalogue)."""

    OK = "ok"
    EMPTY = "empty"
    MISSING = "missing"
    NOT_REGULAR = "not_regular"
    UNREADABLE = "unreadable"
    NO_HEADER = "no_header"
    UNKNOWN_COLUMNS = "unknown_columns"  # a header, but none of the metrics that the settings name


UNUSABLE = frozenset(
    {StreamStatus.NOT_REGULAR, StreamStatus.UNREADABLE, StreamStatus.NO_HEADER, StreamStatus.UNKNOWN_COLUMNS}
)
"""The file is there and gives no samples until a person does something."""


class Unavailable(Exception):
    """The file cannot be read now; `status` says why."""

    def __init__(self, status: StreamStatus, detail: str = "") -> None:
        self.status, self.detail = status, detail
        super().__init__(f"{status} {detail}")


class Source:
    """One open look at the file; `size` is that of the moment of opening."""

    def __init__(self, fd: int, found: os.stat_result) -> None:
        self._fd = fd
        self.identity = (found.st_dev, found.st_ino)
        self.size = found.st_size
        self.bytes_read = 0

    def read_at(self, offset: int, n: int) -> bytes:
        """Up to n bytes from `offset`; fewer only at the end of the file."""
        os.lseek(self._fd, offset, os.SEEK_SET)
        parts = []
        while n > 0 and (part := os.read(self._fd, n)):
            parts.append(part)
            n -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.bytes_read += len(data)
        return data


@contextmanager
def opened(path: str | Path) -> Iterator[Source]:
    """The file at `path`, open for reading. Raises: Unavailable, also for a failed read inside."""
    try:
        fd = _open(path)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise Unavailable(StreamStatus.NOT_REGULAR)
            yield Source(fd, found)
        finally:
            os.close(fd)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Unavailable(StreamStatus.MISSING, error.strerror or "") from error
    except OSError as error:
        raise Unavailable(StreamStatus.UNREADABLE, error.strerror or "") from error


def _open(path: str | Path) -> int:
    try:
        # Looked at before opening: opening a FIFO would wake its writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Unavailable(StreamStatus.NOT_REGULAR)
        return os.open(path, _FLAGS)
    except ValueError as error:  # a NUL in the path
        raise Unavailable(StreamStatus.UNREADABLE, str(error)) from error


@dataclass(frozen=True)
class Place:
    """Where reading stopped: which file, at which byte, and the bytes just before.

    The bytes *before* the offset tell a file that was truncated and has grown again past it; its
    first bytes would not, as the header is the same.
    """

    identity: tuple[int, int]
    offset: int
    mark: bytes

    def read_new(self, source: Source, limit: int) -> bytes | None:
        """Up to `limit` bytes behind this place; None if this is no longer the file that was read."""
        if self.identity != source.identity or source.size < self.offset:
            return None
        data = source.read_at(self.offset - len(self.mark), len(self.mark) + limit)
        return data[len(self.mark) :] if data.startswith(self.mark) else None

    def after(self, new: bytes) -> Place:
        """The place behind `new`, which was read here."""
        return Place(self.identity, self.offset + len(new), (self.mark + new)[-MARK_BYTES:])


def place_at(source: Source, offset: int) -> Place:
    """The place at `offset` of this file, nothing behind it read."""
    back = min(offset, MARK_BYTES)
    return Place(source.identity, offset, source.read_at(offset - back, back) if back else b"")


class LineCutter:
    """Cuts bytes into whole lines, keeps the unfinished rest, drops a line longer than `max_line`."""

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self.rest = b""
        self.skipping = False  # inside a line that is too long
        self.too_long = 0

    def feed(self, new: bytes) -> bytes:
        """The lines that are whole now, with their newlines; b"" if none is."""
        if self.skipping:
            at = new.find(b"\n")
            if at < 0:
                return b""
            new, self.skipping = new[at + 1 :], False
        data = self.rest + new
        cut = data.rfind(b"\n") + 1
        self.rest = data[cut:]
        if len(self.rest) > self._max:
            self.rest, self.skipping = b"", True
            self.too_long += 1
        return data[:cut]

    def clear(self) -> bool:
        """Forget the rest; True if there was one."""
        had = bool(self.rest)
        self.rest, self.skipping = b"", False
        return had
