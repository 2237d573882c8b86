"""One data root for every session of a server process: one reader, one lock, one way to act.

Answers "what is the picture now?" for all pages at once, and carries out what a person asks, after
asking what the role may do. Never decides about rules; a broken file is in the picture, not raised.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from selftune import access
from selftune.access import Action
from selftune.book import Batch, Committed
from selftune.cycle import plan_of
from selftune.domain import JsonDict, Problem, Role, SettingsError, StorageError
from selftune.ledger import FileLedger, Ledger
from selftune.pace import Pace
from selftune.picture import Picture
from selftune.plan import Act, Plan
from selftune.runtime import Root
from selftune.samples import SampleStream, StreamState
from selftune.status import DEFAULT_ZONE
from selftune.view import share_s

T = TypeVar("T")
SHARE_S = 0.4  # sessions that ask within this time share one look at the files


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What was found at one look. `picture` is None while there were never valid settings, or no disk.

    `problems`: what is wrong with the settings file on disk (the picture then stands on the last
    valid ones). `slot`: the number of the look; what is prepared from a look may be shared by all that
    have the same number.
    """

    picture: Picture | None
    planned: Callable[[Picture], Plan]
    problems: tuple[Problem, ...] = ()
    fault: str | None = None
    stream: StreamState | None = None
    slot: int = 0

    @cached_property
    def plan(self) -> Plan | None:
        """What the loop would want now, made when it is first asked for; nothing of it is written."""
        return self.planned(self.picture) if self.picture is not None else None


class Office:
    """The shared reader and the only door to a commit for pages; safe to use from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._root: Root | None = None
        self._shared: tuple[float, Glance] | None = None
        self._slot = 0
        self.pace = Pace()

    def glance(self) -> Glance:
        """The present picture; looks made within a moment of each other share one."""
        with self._lock:
            shared = share_s(SHARE_S, self.pace.sessions)
            if self._shared is None or time.monotonic() - self._shared[0] > shared:
                self._slot += 1
                self._shared = (time.monotonic(), replace(self._look(), slot=self._slot))
            return self._shared[1]

    def _look(self) -> Glance:
        try:
            root = self._open()
            picture = Picture(root.snapshot())
            error = root.settings_book.error
            return Glance(
                picture=picture,
                planned=self._plan,
                problems=error.problems if error else (),
                stream=root.stream.state if isinstance(root.stream, SampleStream) else None,
            )
        except SettingsError as e:
            return Glance(picture=None, planned=self._plan, problems=e.problems)
        except (StorageError, OSError) as e:
            return Glance(picture=None, planned=self._plan, fault=str(e))

    def _plan(self, picture: Picture) -> Plan:
        with self._lock:  # what is remembered between looks is the root's
            return plan_of(picture)

    def _open(self) -> Root:
        if self._root is None:
            self._root = Root(self.path)
        return self._root

    def act(
        self,
        action: Action,
        wanted: Callable[[Picture], tuple[Act, ...]],
        *,
        actor: str,
        role: Role | Callable[[], Role],
    ) -> tuple[Plan, Committed]:
        """What a person asked for, if their role may: guards and commit as everywhere.

        `role` as a function is asked under the lock, on every reading: whoever was disabled while waiting
        for it may nothing any more.
        Raises: Refused, UnknownId, LockHeld, StorageError, StaleSnapshot, SettingsError.
        """

        def allowed(p: Picture) -> tuple[Act, ...]:
            access.require(_now(role), action)
            return wanted(p)

        with self._lock:
            access.require(_now(role), action)
            self._shared = None
            return self._open().hand(allowed, actor=actor)

    def through(self, action: Action, work: Callable[[Root], T], *, role: Role | Callable[[], Role]) -> T:
        """What `work` gives with the shared root, if the role may: for a write that is no plan.

        Raises: Refused, and whatever `work` raises.
        """
        with self._lock:
            access.require(_now(role), action)
            self._shared = None
            try:
                return work(self._open())
            finally:
                self._shared = None

    def note(self, record: JsonDict) -> None:
        """Puts a governance record on the chain that is no act on the rules: who came and who went.

        Works without valid settings. Raises: LockHeld, FileUnreadable, StorageError.
        """
        with self._lock:
            self._shared = None
            try:
                ledger: Ledger = self._open().ledger
            except SettingsError:
                ledger = FileLedger(self.path, timezone=DEFAULT_ZONE)
            ledger.commit(Batch(governance=(record,)), None)


def _now(role: Role | Callable[[], Role]) -> Role:
    return role if isinstance(role, Role) else role()
