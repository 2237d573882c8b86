"""Where ledger lines live: on disk, or in memory. Two verbs, `news` and `append`, under one lock.

Answers "what was appended since?" and "append this". Knows nothing of records.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from selftune import files
from selftune.book import APPROVALS, DECISIONS, HEARTBEAT, SETTINGS
from selftune.domain import JsonDict
from selftune.files import OS, News, Ops, Tail
from selftune.gather import FILES
from selftune.locks import commit_lock
from selftune.parts import described, named_by, parts_of
from selftune.records import MAX_LINE

SETTINGS_LIMIT = 256 * 1024
_HEARTBEAT_LIMIT = 64 * 1024
_WAIT_S = 2.0
ROTATE_BYTES = 50 * 1024 * 1024  # promises F17; only the decisions, which nobody else writes


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

    def rotate(self) -> JsonDict | None:
        """What was put aside if the decisions had grown too long: `{file, bytes, sha256}`, else None."""
        ...

    def settings(self) -> bytes | None: ...

    def heartbeat(self) -> bytes | None: ...


class PartedTail:
    """A tail over the parts that rotation put aside, oldest first, and then the living file.

    A part that appears (a rotation, here or in another process) makes it read all from the first.
    """

    def __init__(self, path: Path, *, ops: Ops) -> None:
        self.path, self.ops = path, ops
        self._live = Tail(path, max_line=MAX_LINE, ops=ops)
        self._known: tuple[Path, ...] = ()
        self._waiting: list[Tail] = []
        self._restarted = False

    @property
    def identity(self) -> str:
        return self._live.identity

    @property
    def offset(self) -> int:
        return self._live.offset

    def news(self) -> News:
        """What was appended since the last call, the parts first."""
        found = parts_of(self.path)
        if found != self._known:
            self._restarted = self._live.identity != "" or bool(self._known)
            self._known = found
            self._waiting = [Tail(p, max_line=MAX_LINE, ops=self.ops) for p in found]
            self._live = Tail(self.path, max_line=MAX_LINE, ops=self.ops)
        restarted, self._restarted = self._restarted, False
        if self._waiting:
            part = self._waiting[0].news()
            if not part.more:
                self._waiting.pop(0)
            return News(lines=part.lines, restarted=restarted, more=True, problem=part.problem)
        news = self._live.news()
        if news.restarted and self._known:  # somebody put another file in its place: all from the first
            self._known = ()
            return News(restarted=True, more=True)
        return News(
            lines=news.lines,
            restarted=restarted or news.restarted,
            unfinished=news.unfinished,
            more=news.more,
            problem=news.problem,
        )


class DiskStore:
    """The files under `root`. `rotate_bytes`: from this size on the decisions go on in a new file."""

    def __init__(
        self, root: Path, *, ops: Ops = OS, wait_s: float = _WAIT_S, rotate_bytes: int = ROTATE_BYTES
    ) -> None:
        self.root, self.ops, self.wait_s, self.rotate_bytes = root, ops, wait_s, rotate_bytes
        self._tails: dict[str, Tail | PartedTail] = {
            name: Tail(root / name, max_line=MAX_LINE, whole_guard=name == APPROVALS, ops=ops)
            for name in FILES
            if name != DECISIONS
        }
        self._tails[DECISIONS] = PartedTail(root / DECISIONS, ops=ops)
        self._named = ""  # the part that the living file is known to name

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

    def rotate(self) -> JsonDict | None:
        """Put the decisions aside once they are too long; the caller holds the commit lock."""
        path, parts = self.root / DECISIONS, parts_of(self.root / DECISIONS)
        if self._tails[DECISIONS].offset < self.rotate_bytes:
            return self._unnamed(path, parts)
        part = path.with_name(f"{path.stem}.{len(parts) + 1:04d}{path.suffix}")
        aside = {**described(path), "file": part.name}
        files.put_aside(path, part, root=self.root, ops=self.ops)
        return aside

    def _unnamed(self, path: Path, parts: tuple[Path, ...]) -> JsonDict | None:
        """The newest part if a kill came between putting it aside and the line that names it."""
        if not parts or parts[-1].name == self._named:
            return None
        said = named_by(path)
        if said is None:
            return described(parts[-1])
        self._named = str(said.get("file"))
        return None

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
        return News(lines=list(bytes(data[start : end - 1]).split(b"\n")), unfinished=len(data) > end)

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

    def rotate(self) -> JsonDict | None:
        return None

    def settings(self) -> bytes | None:
        return self.settings_bytes

    def heartbeat(self) -> bytes | None:
        return None
