"""The account file on disk: read again whenever it changes, changed under a lock, each change on record.

Answers "who has an account now?" at every ask, so that a disabled person is out at once, and carries out
what `selftune users` asks for. A broken file is a state with a name: then nobody can sign in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from selftune import files, passwords
from selftune.accounts import MOST, USERS_FILE, Account, Accounts, parse, proper, render
from selftune.book import Batch
from selftune.domain import InputError, JsonDict, Problem, Reason, Refused, Role, UnknownId
from selftune.files import OS, Ops, inside, read_small
from selftune.ledger import Ledger
from selftune.locks import users_lock

BYTES = 256 * 1024
SHELL = "shell"  # the role on record of whoever manages accounts: whoever has a shell here may


@dataclass(frozen=True, kw_only=True)
class Book:
    """The account file at one look. `accounts` None: it is there but broken, and `problems` say how."""

    there: bool
    accounts: Accounts | None
    problems: tuple[Problem, ...] = ()

    @property
    def none_yet(self) -> bool:
        """True while nobody has ever been given an account: a broken file is not that."""
        return self.accounts is not None and not self.accounts.all


class AccountBook:
    """The accounts of one data root, as they are now; safe to use from any thread."""

    def __init__(self, root: Path) -> None:
        self.path = root / USERS_FILE
        self._lock = threading.Lock()
        self._kept: tuple[tuple[int, ...] | None, Book] | None = None

    def look(self) -> Book:
        """The accounts now: one `stat`, and a reading only when the file is another one."""
        sign = self._sign()
        with self._lock:
            if self._kept is None or self._kept[0] != sign:
                self._kept = (sign, read(self.path))
            return self._kept[1]

    def _sign(self) -> tuple[int, ...] | None:
        try:
            s = os.stat(self.path)
        except OSError:
            return None
        return (s.st_ino, s.st_dev, s.st_size, s.st_mtime_ns, s.st_ctime_ns)


def read(path: Path) -> Book:
    """What the file says, read anew."""
    if not files.is_there(path):
        return Book(there=False, accounts=Accounts())
    raw = read_small(path, BYTES)
    if raw is None:
        return Book(there=True, accounts=None, problems=(Problem(code="unreadable_file", file=USERS_FILE),))
    try:
        return Book(there=True, accounts=parse(raw))
    except InputError as error:
        return Book(there=True, accounts=None, problems=error.problems)


# ----------------------------------------------------------------------------- changes
Change = Callable[[Accounts], tuple[Accounts, JsonDict]]


def change(
    root: Path, ledger: Ledger, wanted: Change, *, actor: str, os_: str = "", ops: Ops = OS
) -> Accounts:
    """The accounts after `wanted(accounts)`, which also says what goes on record.

    The record comes first: a kill between the two leaves a record of something that did not happen,
    never a change without one. Raises: InputError (broken file), Refused, UnknownId, LockHeld, StorageError.
    """
    path = root / USERS_FILE
    with users_lock(root):
        book = read(path)
        if book.accounts is None:
            raise InputError(*book.problems)
        after, said = wanted(book.accounts)
        text = render(after)
        if parse(text) != after:
            raise Refused(Reason("users.unwritable"))
        record = {"kind": "account", "by": actor, "role": SHELL, **said}
        if os_:
            record["os"] = os_
        real = inside(root, path)
        ledger.commit(
            Batch(governance=(record,)),
            None,
            then=lambda: files.replace(real, text.encode("utf-8"), durable=True, mode=0o600, ops=ops),
        )
        return after


def add(name: str, role: Role, *, hash: str | None, created: str, logins: tuple[str, ...] = ()) -> Change:
    """A new account. No name that anybody has or had before."""

    def made(accounts: Accounts) -> tuple[Accounts, JsonDict]:
        for wanted in (name, *logins):
            _free(accounts, wanted, None)
        if len(accounts.all) >= MOST:
            raise Refused(Reason("users.too_many", {"limit": MOST}))
        new = Account(name=name, role=role, hash=hash, created=created, logins=logins)
        return accounts.put(new), {"act": "add", "name": name, "role_after": role.value}

    return made


def password(name: str, hash: str) -> Change:
    """Another password: every session of this person ends."""

    def made(accounts: Accounts) -> tuple[Accounts, JsonDict]:
        old = _known(accounts, name)
        new = replace(old, hash=hash, version=old.version + 1)
        return accounts.put(new), {"act": "passwd", "name": old.name}

    return made


def role(name: str, wanted: Role) -> Change:
    """Another role: every session of this person ends."""

    def made(accounts: Accounts) -> tuple[Accounts, JsonDict]:
        old = _known(accounts, name)
        if old.role is wanted:
            raise Refused(Reason("users.same_role", {"name": old.name, "role": wanted.value}))
        new = replace(old, role=wanted, version=old.version + 1)
        said = {"act": "role", "name": old.name, "role_before": old.role.value, "role_after": wanted.value}
        return accounts.put(new), said

    return made


def disable(name: str) -> Change:
    """Out within seconds, and in no more; the account and its names stay."""
    return _able(name, disabled=True)


def enable(name: str) -> Change:
    """May sign in again."""
    return _able(name, disabled=False)


def _able(name: str, *, disabled: bool) -> Change:
    act = "disable" if disabled else "enable"

    def made(accounts: Accounts) -> tuple[Accounts, JsonDict]:
        old = _known(accounts, name)
        if old.disabled is disabled:
            raise Refused(Reason(f"users.{act}d_already", {"name": old.name}))
        new = replace(old, disabled=disabled, version=old.version + 1)
        return accounts.put(new), {"act": act, "name": old.name}

    return made


def rename(name: str, new: str) -> Change:
    """Another name for the same person. The old one stays theirs, so that nobody signs their own request."""

    def made(accounts: Accounts) -> tuple[Accounts, JsonDict]:
        old = _known(accounts, name)
        if new == old.name:
            raise Refused(Reason("users.same_name", {"name": new}))
        _free(accounts, new, old)
        before = tuple(dict.fromkeys((*old.previous, old.name)))
        account = replace(
            old, name=new, previous=tuple(n for n in before if n != new), version=old.version + 1
        )
        # `old` and `new` are the words by which reviews learn that two names are one person
        return accounts.put(account, instead_of=old), {"act": "rename", "old": old.name, "new": new}

    return made


def logins(name: str, wanted: tuple[str, ...]) -> Change:
    """The names under which a proxy or a provider knows this person."""

    def made(accounts: Accounts) -> tuple[Accounts, JsonDict]:
        old = _known(accounts, name)
        for login in wanted:
            _free(accounts, login, old)
        new = replace(old, logins=wanted, version=old.version + 1)
        return accounts.put(new), {"act": "logins", "name": old.name, "logins": list(wanted)}

    return made


def _known(accounts: Accounts, name: str) -> Account:
    found = accounts.named(name)
    if found is None:
        raise UnknownId("users.unknown", name=name)
    return found


def _free(accounts: Accounts, name: str, whose: Account | None) -> None:
    if not proper(name):
        raise Refused(Reason("users.bad_name", {"name": name}))
    owner = accounts.owner(name)
    if owner is not None and (whose is None or owner.name != whose.name):
        raise Refused(Reason("users.taken", {"name": name, "other": owner.name}))


# ----------------------------------------------------------------------------- what may lock people out
def cautions(accounts: Accounts, needed: int) -> tuple[Reason, ...]:
    """What these accounts cannot do any more, to be said after a change; `needed`: signatures of a review."""
    if not accounts.able():
        return (Reason("users.nobody_left"),)
    found = []
    if not accounts.able(Role.OPERATOR):
        found.append(Reason("users.no_operator"))
    reviewers = len(accounts.able(Role.REVIEWER))
    if reviewers < needed:
        found.append(Reason("users.few_reviewers", {"n": reviewers, "need": needed}))
    return tuple(found)


def sign_in_with(accounts: Accounts, name: str, typed: str) -> Account | None:
    """The account, if this is its password and it may be used. As long for a name that nobody has."""
    account = accounts.named(name)
    right = passwords.fits(typed, account.hash if account else None)
    return account if right and account is not None and not account.disabled else None
