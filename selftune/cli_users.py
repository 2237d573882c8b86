"""Accounts from a shell: add, list, passwd, role, disable, enable, rename, logins.

Answers "who may sign in, and as what?" through account_book.py; every change is on record. A password comes
from a prompt or from standard input, never from the arguments, where every process could read it.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from selftune import account_book, passwords
from selftune.account_book import Change
from selftune.accounts import USERS_FILE, Account, Accounts
from selftune.cli_hands import FOLDERS, account
from selftune.cli_words import Voice
from selftune.config import check
from selftune.domain import Identity, InputError, JsonDict, Problem, Reason, Refused, Role, UnknownId
from selftune.files import read_small
from selftune.ledger import FileLedger
from selftune.settings import SETTINGS_FILE, Settings

WHATS = ("add", "list", "passwd", "role", "disable", "enable", "rename", "logins")
USAGE = 2
SETTINGS_BYTES = 256 * 1024


class Misused(Exception):
    """The command as typed cannot be carried out: the catalogue's key and its parameters."""

    def __init__(self, key: str, **params: Any) -> None:
        self.key, self.params = key, params
        super().__init__(key)


def arguments(add: Callable[..., Any], run: Callable[..., int], voice: Voice) -> None:
    """Register the command."""
    sub = add("users", run)
    roles = [r.value for r in Role]
    sub.add_argument("what", choices=WHATS, help=voice.text("cli.help.users_what"))
    sub.add_argument("name", nargs="?", metavar="NAME", help=voice.text("cli.help.users_name"))
    sub.add_argument("value", nargs="*", metavar="VALUE", help=voice.text("cli.help.users_value"))
    sub.add_argument("--role", choices=roles, help=voice.text("cli.help.users_role"))
    sub.add_argument("--login", action="append", default=[], metavar="LOGIN",
                     help=voice.text("cli.help.users_login"))  # fmt: skip
    password_argument(sub, voice)
    sub.add_argument("--no-password", action="store_true", help=voice.text("cli.help.no_password"))
    sub.add_argument("--json", action="store_true", help=voice.text("cli.help.json"))
    sub.add_argument("--actor", default=account(), metavar="WHO", help=voice.text("cli.help.actor"))


def password_argument(sub: argparse.ArgumentParser, voice: Voice) -> None:
    """`--password-stdin`, for scripts."""
    sub.add_argument("--password-stdin", action="store_true", help=voice.text("cli.help.password_stdin"))


def run(path: Path, voice: Voice, a: argparse.Namespace) -> int:
    """One act; what is true now goes to stdout, what it means to stderr."""
    try:
        return _list(path, voice, a) if a.what == "list" else _change(path, voice, a)
    except Misused as wrong:
        voice.say(wrong.key, **wrong.params)
        return USAGE


# ----------------------------------------------------------------------------- list
def _list(path: Path, voice: Voice, a: argparse.Namespace) -> int:
    accounts = existing(path)
    if a.json:
        voice.json([as_json(x) for x in accounts.all])
        return 0
    for x in accounts.all:
        voice.out(_line(x, voice))
    if not accounts.all:
        voice.say("cli.users.none")
    return 0


def existing(path: Path) -> Accounts:
    """The accounts of this root. Raises: InputError for a file that cannot be read."""
    book = account_book.read(path / USERS_FILE)
    if book.accounts is None:
        raise InputError(*book.problems)
    return book.accounts


def as_json(a: Account) -> JsonDict:
    """One account for a program; the hash stays where it is."""
    return {
        "name": a.name, "role": a.role.value, "disabled": a.disabled, "password": a.hash is not None,
        "created": a.created, "previous": list(a.previous), "logins": list(a.logins),
    }  # fmt: skip


def _line(a: Account, voice: Voice) -> str:
    state = "off" if a.disabled else "on" if a.hash is not None else "no_password"
    return voice.text(
        "cli.users.line", name=a.name, role=a.role.value, state=voice.text(f"cli.users.state_{state}"),
        previous=", ".join(a.previous) or None, logins=", ".join(a.logins) or None,
    )  # fmt: skip


# ----------------------------------------------------------------------------- changes
def _change(path: Path, voice: Voice, a: argparse.Namespace) -> int:
    if not a.name:
        raise Misused("cli.users.needs_name")
    if not any((path / folder).is_dir() for folder in FOLDERS):
        # a mistyped --root must not be told that somebody can sign in now
        raise InputError(Problem(code="not_a_root", file=str(path)))
    before = existing(path)  # a broken file is said before anybody is asked for a password
    wanted = _wanted(a, before, voice)
    accounts = account_book.change(path, ledger_of(path, voice), wanted, actor=a.actor, os_=account())
    now = accounts.named(a.value[0] if a.what == "rename" else a.name)
    assert now is not None
    voice.json(as_json(now))
    settings = _settings(path)
    by_password = settings is None or settings.governance.identity in (Identity.LOCAL, Identity.OPEN)
    shut = by_password and now.hash is None
    key = {"add": "added_shut" if shut else "added", "enable": "enable_shut" if shut else "enable"}.get(
        a.what
    )
    voice.say(f"cli.users.{key or a.what}", name=now.name, role=now.role.value, old=a.name, new=now.name)
    able = Accounts(all=tuple(x for x in accounts.all if x.hash is not None or not by_password))
    for why in account_book.cautions(able, settings.governance.approvals_required if settings else 1):
        voice.tell(f"  · {voice.sentence(why)}")
    return 0


def _wanted(a: argparse.Namespace, before: Accounts, voice: Voice) -> Change:
    if a.what == "add":
        return _added(a, before, voice)
    if a.what in ("role", "rename", "logins") and (not a.value or (a.what != "logins" and len(a.value) > 1)):
        raise Misused("cli.users.needs_value", what=a.what)
    if a.what == "role":
        choices = [r.value for r in Role]
        if a.value[0] not in choices:
            raise Misused("cli.usage.choice", found=a.value[0], name="ROLE", choices=", ".join(choices))
        return account_book.role(a.name, Role(a.value[0]))
    if a.what == "rename":
        return account_book.rename(a.name, a.value[0])
    if a.what == "logins":
        return account_book.logins(a.name, tuple(a.value))
    if a.what == "passwd":
        if before.named(a.name) is None:
            raise UnknownId("users.unknown", name=a.name)
        return account_book.password(a.name, _new_hash(a, voice))
    return {"disable": account_book.disable, "enable": account_book.enable}[a.what](a.name)


def _added(a: argparse.Namespace, before: Accounts, voice: Voice) -> Change:
    if a.role is None:
        raise Misused("cli.users.needs_role", choices=", ".join(r.value for r in Role))

    def made(hash: str | None) -> Change:
        created = datetime.now(voice.zone).isoformat(timespec="milliseconds")
        return account_book.add(a.name, Role(a.role), hash=hash, created=created, logins=tuple(a.login))

    made(None)(before)  # a name that is taken is said before a password is asked for
    return made(None if a.no_password else _new_hash(a, voice))


def _settings(path: Path) -> Settings | None:
    """The settings, as far as they can be read."""
    settings, _ = check(read_small(path / SETTINGS_FILE, SETTINGS_BYTES) or b"", SETTINGS_FILE)
    return settings


def ledger_of(path: Path, voice: Voice) -> FileLedger:
    """The ledger of this root; it needs no valid settings."""
    return FileLedger(path, timezone=str(voice.zone))


# ----------------------------------------------------------------------------- passwords
def _new_hash(a: argparse.Namespace, voice: Voice) -> str:
    """The hash of a new password, typed twice or read once. Raises: Refused, Misused."""
    typed = ask(voice, "cli.users.prompt_new", a.name, from_stdin=a.password_stdin)
    if not a.password_stdin and getpass.getpass(voice.text("cli.users.prompt_again")) != typed:
        raise Misused("cli.users.not_the_same")
    passwords.acceptable(typed, a.name)
    return passwords.hashed(typed)


def ask(voice: Voice, key: str, name: str, *, from_stdin: bool) -> str:
    """What was typed, or the first line of standard input.

    Raises: Misused without a terminal to ask at, or for bytes that are no text.
    """
    if from_stdin:
        try:
            line = sys.stdin.readline()
            line.encode("utf-8")
        except UnicodeError:
            raise Misused("cli.users.no_text") from None
        return line[:-1].removesuffix("\r") if line.endswith("\n") else line
    if not sys.stdin.isatty():
        raise Misused("cli.users.no_terminal")
    return getpass.getpass(voice.text(key, name=name))


def proven(path: Path, voice: Voice, a: argparse.Namespace, needs: Role) -> Role:
    """`needs`, if the actor may act in that role from this shell. Raises: Refused, InputError, Misused.

    Where accounts exist the actor must be one of them, with that role, and prove it by the password: a name
    typed after --actor is no signature.
    """
    accounts = existing(path)
    if not accounts.all:
        return needs
    found = accounts.named(a.actor)
    if found is None:
        raise Refused(Reason("users.not_known_here", {"name": a.actor}))
    if found.disabled:
        raise Refused(Reason("users.is_disabled", {"name": found.name}))
    if found.role is not needs:
        said = {"name": found.name, "role": found.role.value, "roles": [needs.value]}
        raise Refused(Reason("users.not_allowed", said))
    typed = ask(voice, "cli.users.prompt", found.name, from_stdin=a.password_stdin)
    if not passwords.fits(typed, found.hash):
        raise Refused(Reason("users.wrong_password", {"name": found.name}))
    return found.role
