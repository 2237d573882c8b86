"""Wrong passwords: how long a person at an address has to wait before the next try.

Answers "may this be tried now?". Counted per name and address, so that nobody can lock somebody else out from
another machine; and per address over all names, so that a list of names is no way around. On disk, so that a
restart forgives nothing; names and addresses only as salted hashes.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from selftune import files
from selftune.address import block_of
from selftune.domain import StorageError
from selftune.files import OS, Ops, read_small
from selftune.governing import face

FILE = "logs/sign_in.json"  # under the data root, 0600
TRIES, WITHIN_S = 5, 300.0
FIRST_S, LONGEST_S = 30.0, 900.0
TRIES_OF_ADDRESS = 50  # wrong passwords from one address over all names, within the same time
FORGIVEN_S = 1800.0  # after so long without a failure all is forgotten
MOST = 1_000
_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is held against one name at one address. Times are wall seconds; `waits`: how many so far."""

    failed: tuple[float, ...] = ()
    until: float = 0.0
    waits: int = 0

    def after_failure(self, now: float, tries: int) -> Entry:
        """With one more failure; from the `tries`-th within five minutes on each costs a longer wait."""
        recent = (*(t for t in self.failed if now - WITHIN_S < t <= now), now)[-tries:]
        if len(recent) < tries and self.waits == 0:
            return replace(self, failed=recent)
        wait = min(LONGEST_S, FIRST_S * 2**self.waits)
        return Entry(failed=recent, until=now + wait, waits=min(self.waits + 1, 30))

    def wait_s(self, now: float) -> float:
        """Still to wait; never longer than the longest, whatever the clock did meanwhile."""
        return min(LONGEST_S, max(0.0, self.until - now))

    def over(self, now: float) -> bool:
        last = max((self.until, *self.failed), default=0.0)
        return now - last > FORGIVEN_S or last - now > LONGEST_S + WITHIN_S


class Backoff:
    """What is held against whom; safe to use from any thread. `path` None: in memory only."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time, ops: Ops = OS) -> None:
        self.path, self.clock, self.ops = path, clock, ops
        self._lock = threading.Lock()
        self._salt, self._entries = _read(path, ops)

    def wait_s(self, name: str, address: str) -> float:
        """How long until the next try may be made. Units: seconds; 0 = now."""
        now = self.clock()
        with self._lock:
            return max(self._entries.get(k, Entry()).wait_s(now) for k in self._keys(name, address))

    def failed(self, name: str, address: str) -> float:
        """A wrong password; how long to wait from now on. Units: seconds."""
        now = self.clock()
        one, everybody = self._keys(name, address)
        with self._lock:
            for key, tries in ((one, TRIES), (everybody, TRIES_OF_ADDRESS)):
                self._entries[key] = self._entries.pop(key, Entry()).after_failure(now, tries)
            self._entries = {k: e for k, e in self._entries.items() if not e.over(now)}
            for key in list(self._entries)[: max(0, len(self._entries) - MOST)]:
                del self._entries[key]
            self._write()
            return max(self._entries.get(k, Entry()).wait_s(now) for k in (one, everybody))

    def passed(self, name: str, address: str) -> None:
        """The right password: nothing is held against this person at this address any more."""
        with self._lock:
            if self._entries.pop(self._keys(name, address)[0], None) is not None:
                self._write()

    def _keys(self, name: str, address: str) -> tuple[str, str]:
        block = block_of(address)
        return self._key(f"{face(name)}\n{block}"), self._key(f"\n{block}")

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self._salt}\n{text}".encode("utf-8", "replace")).hexdigest()[:32]

    def _write(self) -> None:
        if self.path is None:
            return
        held = {k: [list(e.failed[-TRIES:]), e.until, e.waits] for k, e in self._entries.items()}
        data = json.dumps({"v": 1, "salt": self._salt, "held": held}).encode()
        try:
            files.replace(self.path, data, durable=False, mode=0o600, ops=self.ops)
        except (StorageError, OSError):
            return  # a full disk: what is in memory holds as long as this process lives


def _read(path: Path | None, ops: Ops) -> tuple[str, dict[str, Entry]]:
    """(salt, entries) of the file; new ones where it cannot be read."""
    fresh = secrets.token_hex(16)
    raw = read_small(path, _BYTES, ops=ops) if path is not None else None
    if raw is None:
        return fresh, {}
    try:
        said = json.loads(raw)
        held = {
            str(k): Entry(failed=tuple(float(t) for t in failed), until=float(until), waits=int(waits))
            for k, (failed, until, waits) in said["held"].items()
        }
        return str(said["salt"]), held
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return fresh, {}
