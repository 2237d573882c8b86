"""Passwords: argon2id hashes, made and compared; nothing else ever sees one.

A comparison takes the same time whether the name is known or not: an unknown name is compared with a hash
that no password fits.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from selftune.domain import Reason, Refused

SHORTEST, LONGEST = 10, 200
_HASHER = PasswordHasher()  # argon2id, 64 MiB, 3 passes: the library's default after RFC 9106


def hashed(password: str) -> str:
    """The hash to be kept."""
    return _HASHER.hash(_same(password))


def fits(password: str, kept: str | None) -> bool:
    """True when `kept` was made of this password. None takes as long and is never true."""
    try:
        return _HASHER.verify(kept or _nobodys(), _same(password)[:LONGEST]) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


def stale(kept: str) -> bool:
    """True when the hash was made with weaker parameters than today's."""
    try:
        return _HASHER.check_needs_rehash(kept)
    except InvalidHashError:
        return False


def acceptable(password: str, name: str) -> None:
    """Nothing, or why this may not be a password. Raises: Refused."""
    if len(password) < SHORTEST:
        raise Refused(Reason("users.password_short", {"limit": SHORTEST}))
    if len(password) > LONGEST:
        raise Refused(Reason("users.password_long", {"limit": LONGEST}))
    if password.casefold().strip() == name.casefold() or len(set(password)) < 4:
        raise Refused(Reason("users.password_plain"))


def _same(password: str) -> str:
    """One form of a text, however the keyboard composed it: 한글 typed on a Mac and on Windows are one."""
    return unicodedata.normalize("NFC", password)


@lru_cache(maxsize=1)
def _nobodys() -> str:
    """A hash whose password nobody knows, with today's parameters."""
    import secrets

    return _HASHER.hash(secrets.token_hex(32))
