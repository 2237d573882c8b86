"""Where ledger lines live: on disk, or in memory. Two verbs, `news` and `append`, under one lock.

Answers "what was appended since?" and "append this". Knows nothing of records.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from selftune import files
from selftune.book import APPROVALS, HEARTBEAT, SETTINGS
from selftune.files import OS, News, Ops, Tail
from selftune.gather import FILES
from selftune.locks import commit_lock
from selftune.records import MAX_LINE

SETTINGS_LIMIT = 256 * 1024
_HEARTBEAT_LIMIT = 64 * 1024
_WAIT_S = 2.0


class Store(Protocol):
    """The files of one data root, by their names in `book`."""

    def lock(self) -> AbstractContextManager[None]:
        """The right to append, for one commit. Raises: LockHeld."""
        ...

    def news(self, name: str) -> News:
        """What stands in `name` that was not there at the last call."""
        ...

    def place(self, name: str) -> tuple[str, int]:
        """(identity of the file last read, bytes read so far)."""
        ...

    def mend(self, name: str) -> bool:
        """Whether `name` ended in half a line, which now is ended. Raises: StorageError."""
        ...

    def append(self, name: str, lines: list[bytes]) -> None:
        """Nothing; the lines are on disk. Raises: StorageError."""
        ...

    def settings(self) -> bytes | None: ...

    def heartbeat(self) -> bytes | None: ...


class DiskStore:
    """The files under `root`."""

    def __init__(self, root: Path, *, ops: Ops = OS, wait_s: float = _WAIT_S) -> None:
        self.root, self.ops, self.wait_s = root, ops, wait_s
        self._tails = {
            name: Tail(root / name, max_line=MAX_LINE, whole_guard=name == APPROVALS, ops=ops)
            for name in FILES
        }

    def lock(self) -> AbstractContextManager[None]:
        return commit_lock(self.root, self.wait_s)

    def news(self, name: str) -> News:
        return self._tails[name].news()

    def place(self, name: str) -> tuple[str, int]:
        return self._tails[name].identity, self._tails[name].offset

    def mend(self, name: str) -> bool:
        return files.mend(self.root / name, root=self.root, ops=self.ops)

    def append(self, name: str, lines: list[bytes]) -> None:
        mode = 0o600 if name == APPROVALS else 0o644
        files.append(self.root / name, lines, root=self.root, mode=mode, ops=self.ops)

    def settings(self) -> bytes | None:
        return files.read_small(self.root / SETTINGS, SETTINGS_LIMIT, ops=self.ops)

    def heartbeat(self) -> bytes | None:
        return files.read_small(self.root / HEARTBEAT, _HEARTBEAT_LIMIT, ops=self.ops)


class MemoryStore:
    """The same in memory; `put` writes as a foreign program would, in pieces or not."""

    def __init__(self, settings: bytes | None = None) -> None:
        self.data: dict[str, bytearray] = {}
        self.settings_bytes = settings
        self._read: dict[str, int] = {}

    def put(self, name: str, data: bytes) -> None:
        self.data.setdefault(name, bytearray()).extend(data)

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    def news(self, name: str) -> News:
        data, start = self.data.get(name, bytearray()), self._read.get(name, 0)
        end = data.rfind(b"\n") + 1
        if end <= start:
            return News(unfinished=len(data) > end)
        self._read[name] = end
        return News(lines=list(bytes(data[start:end - 1]).split(b"\n")), unfinished=len(data) > end)

    def place(self, name: str) -> tuple[str, int]:
        return ("memory" if name in self.data else ""), self._read.get(name, 0)

    def mend(self, name: str) -> bool:
        data = self.data.get(name, b"")
        torn = len(data) > 0 and not data.endswith(b"\n")
        if torn:
            self.put(name, b"\n")
        return torn

    def append(self, name: str, lines: list[bytes]) -> None:
        self.mend(name)
        self.put(name, b"".join(lines))

    def settings(self) -> bytes | None:
        return self.settings_bytes

    def heartbeat(self) -> bytes | None:
        return None
