"""Who is signed in: sessions in this process's memory, each named by a random id that is kept as a hash only.

Answers "whose is this cookie, and for how long?". Nothing is on disk: when the dashboard is started again,
everybody signs in again. Whether the account still allows it is asked of the account file, not remembered.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from selftune.accounts import Account
from selftune.governing import face

IDLE_S = 30 * 60.0
LONGEST_S = 12 * 3600.0
WARN_S = 120.0  # so long before its end a session says so on the page
MOST = 2_000  # sessions in all, and of one person; the ones that nobody used for longest go first
MOST_OF_ONE = 20


@dataclass(frozen=True, kw_only=True)
class Instant:
    """A moment by two clocks: one that never jumps, and the wall's, which counts while a machine sleeps."""

    steady_s: float
    wall_s: float

    def since(self, then: Instant) -> float:
        """Seconds between, by whichever clock says more: a clock set back makes no session longer."""
        return max(self.steady_s - then.steady_s, self.wall_s - then.wall_s)

    @staticmethod
    def now() -> Instant:
        return Instant(steady_s=time.monotonic(), wall_s=time.time())


@dataclass(frozen=True, kw_only=True)
class Session:
    """One sign-in. `key` is the hash of the cookie's id; `stamp` what the account looked like then."""

    key: str
    name: str
    stamp: str
    began: Instant
    seen: Instant

    def left_s(self, now: Instant, idle_s: float = IDLE_S, longest_s: float = LONGEST_S) -> float:
        """Until it ends by itself. Units: seconds; not above 0 = it is over."""
        return min(idle_s - now.since(self.seen), longest_s - now.since(self.began))

    def final(self, now: Instant, longest_s: float = LONGEST_S) -> bool:
        """True when using it would not keep it longer: its longest time is what ends it."""
        return longest_s - now.since(self.began) <= WARN_S


class Sessions:
    """Every session of this process; safe to use from any thread."""

    def __init__(
        self,
        *,
        clock: Callable[[], Instant] = Instant.now,
        idle_s: float = IDLE_S,
        longest_s: float = LONGEST_S,
    ) -> None:
        self.clock, self.idle_s, self.longest_s = clock, idle_s, longest_s
        self._lock = threading.Lock()
        self._all: dict[str, Session] = {}

    def open(self, account: Account) -> str:
        """A new session's id, for the cookie; it is kept nowhere else."""
        token, now = secrets.token_urlsafe(32), self.clock()
        made = Session(key=key_of(token), name=account.name, stamp=account.stamp, began=now, seen=now)
        with self._lock:
            self._forget(now)
            self._room(account.name)
            self._all[made.key] = made
        return token

    def find(self, key: str) -> Session | None:
        """The session that goes under this key and is not over."""
        with self._lock:
            found = self._all.get(key)
            if found is not None and found.left_s(self.clock(), self.idle_s, self.longest_s) <= 0:
                del self._all[key]
                return None
            return found

    def touch(self, key: str) -> None:
        """Its person did something: the idle time begins anew."""
        found = self.find(key)
        if found is None:
            return
        with self._lock:
            if key in self._all:
                self._all[key] = Session(
                    key=key, name=found.name, stamp=found.stamp, began=found.began, seen=self.clock()
                )

    def end(self, key: str) -> Session | None:
        """The session that is over now; None when there was none."""
        with self._lock:
            return self._all.pop(key, None)

    def left_s(self, session: Session) -> float:
        """Until it ends by itself. Units: seconds."""
        return session.left_s(self.clock(), self.idle_s, self.longest_s)

    def __len__(self) -> int:
        return len(self._all)

    def _forget(self, now: Instant) -> None:
        self._all = {k: s for k, s in self._all.items() if s.left_s(now, self.idle_s, self.longest_s) > 0}

    def _room(self, name: str) -> None:
        """Drops what was not used for longest, of this person and of all."""
        mine = [s for s in self._all.values() if face(s.name) == face(name)]
        for crowd, most in ((mine, MOST_OF_ONE), (list(self._all.values()), MOST)):
            for s in sorted(crowd, key=lambda s: s.seen.steady_s)[: max(0, len(crowd) - most + 1)]:
                self._all.pop(s.key, None)


def key_of(token: str) -> str:
    """The key under which an id is kept: a look into the memory or a log gives no cookie away."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
