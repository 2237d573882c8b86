"""Signing in and out: the password asked, the back-off kept, the session opened, all of it on record.

Answers "may this person come in, and if not, why and until when?". Knows nothing of HTTP. A record that
cannot be written keeps nobody out: with a full disk people must still be able to look.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from selftune.account_book import AccountBook, sign_in_with
from selftune.accounts import Account
from selftune.backoff import Backoff
from selftune.domain import JsonDict, Problem, SelftuneError
from selftune.passwords import LONGEST
from selftune.sessions import Session, Sessions

log = logging.getLogger("selftune.reception")

Note = Callable[[JsonDict], object]
RECORDS, PER_S = 20, 600.0  # failures on record within ten minutes; the others are counted, not written


class Outcome(StrEnum):
    """How a try ended (`signin.<value>` in the catalogue)."""

    IN = "in"
    WRONG = "wrong"
    WAIT = "wait"
    NOBODY = "nobody"  # no account exists yet
    BROKEN = "broken"  # the account file cannot be read


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`token` only when in; `wait_s` until the next try may be made."""

    outcome: Outcome
    token: str = ""
    wait_s: float = 0.0
    problems: tuple[Problem, ...] = ()


class Reception:
    """The one door desk of a process; safe to use from any thread."""

    def __init__(
        self,
        book: AccountBook,
        sessions: Sessions,
        backoff: Backoff,
        note: Note,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.book, self.sessions, self.backoff, self.note, self.clock = book, sessions, backoff, note, clock
        self._lock = threading.Lock()
        self._written: list[float] = []
        self._unwritten = 0

    # ------------------------------------------------------------------------ in
    def come_in(self, name: str, password: str, address: str) -> Answer:
        """A session, or why not. Takes as long for a name that nobody has."""
        name = name.strip()[:LONGEST]
        wait_s = self.backoff.wait_s(name, address)
        if wait_s > 0:
            return Answer(outcome=Outcome.WAIT, wait_s=wait_s)
        book = self.book.look()
        if book.accounts is None:
            return Answer(outcome=Outcome.BROKEN, problems=book.problems)
        if book.none_yet:
            return Answer(outcome=Outcome.NOBODY)
        account = sign_in_with(book.accounts, name, password)
        if account is None:
            return self._refused(book.accounts.named(name), name, address)
        self.backoff.passed(name, address)
        return Answer(outcome=Outcome.IN, token=self.welcome(account, how="password", address=address))

    def welcome(self, account: Account, *, how: str, address: str) -> str:
        """The id of a new session of somebody whose identity was proven by `how`; on record."""
        token = self.sessions.open(account)
        self._say({"kind": "signin", "by": account.name, "role": account.role.value, "how": how,
                   "address": address})  # fmt: skip
        return token

    def turned_away(self, login: str, *, how: str, address: str) -> None:
        """Somebody whose identity was proven by `how` and who has no place here; on record, so that they
        can be given one."""
        accounts = self.book.look().accounts
        known = accounts.known_as(login) if accounts else None
        if self._may_write():
            self._say({"kind": "signin_failed", "by": known.name if known else "", "role": "", "how": how,
                       "login": login, "known": known is not None, "address": address})  # fmt: skip

    def _refused(self, known: Account | None, name: str, address: str) -> Answer:
        wait_s = self.backoff.failed(name, address)
        if self._may_write():
            # What was typed as an unknown name may be a password: it goes nowhere.
            record: JsonDict = {
                "kind": "signin_failed", "by": known.name if known else "", "role": "",
                "known": known is not None, "address": address, "wait_s": round(wait_s),
            }  # fmt: skip
            if known is not None and known.disabled:
                record["disabled"] = True
            if self._unwritten:
                record["unwritten"], self._unwritten = self._unwritten, 0
            self._say(record)
        return Answer(outcome=Outcome.WAIT if wait_s > 0 else Outcome.WRONG, wait_s=wait_s)

    def _may_write(self) -> bool:
        now = self.clock()
        with self._lock:
            self._written = [t for t in self._written if now - t < PER_S]
            if len(self._written) >= RECORDS:
                self._unwritten += 1
                return False
            self._written.append(now)
            return True

    # ------------------------------------------------------------------------ who, and out
    def account_of(self, session: Session) -> Account | None:
        """The account, if it still is what this session was opened for; else the session ends."""
        accounts = self.book.look().accounts
        account = accounts.named(session.name) if accounts else None
        if account is None or account.disabled or account.stamp != session.stamp:
            self.sessions.end(session.key)
            return None
        return account

    def leave(self, key: str) -> None:
        """Signs out: every tab of this session is out."""
        session = self.sessions.end(key)
        if session is not None:
            accounts = self.book.look().accounts
            account = accounts.named(session.name) if accounts else None
            self._say({"kind": "signout", "by": session.name, "role": account.role.value if account else ""})

    def _say(self, record: JsonDict) -> None:
        try:
            self.note(record)
        except (SelftuneError, OSError) as error:
            log.warning("a %s could not be put on record: %s", record["kind"], error)
