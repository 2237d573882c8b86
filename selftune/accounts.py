"""Who may sign in: the accounts of `configs/users.yaml` as values, read strictly and written back.

Answers "is this text a list of accounts, and who is meant by this name?". Pure: no file, no clock, no
password is checked here. Names are compared as reviews compare them (governing.face), so that `Kim`,
`KIM` and `ｋｉｍ` are one person, and a name that somebody had before stays theirs.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from selftune.domain import InputError, Problem, Role
from selftune.governing import face
from selftune.settings_fields import is_null, nearest
from selftune.settings_yaml import List, Map, Node, Pair, Path, Scalar, Unreadable, decode, dotted, read

USERS_FILE = "configs/users.yaml"  # under the data root
MOST = 200  # accounts; a longer file would be beyond what our YAML reader takes
LONGEST_NAME = 64
KEYS = ("role", "hash", "version", "disabled", "created", "previous", "logins")
_HEAD = (
    "# Who may sign in. Written by `python -m selftune users`; passwords are kept as argon2id hashes only.\n"
    "# 로그인할 수 있는 사람들. `python -m selftune users`로 고쳐 주세요.\n"
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """One person. `version` grows with every change that ends their sessions.

    `hash`: argon2id, None where no password was set (recognised by a proxy or a provider only).
    `previous`: names they had before; `logins`: names under which a proxy or provider knows them.
    """

    name: str
    role: Role
    hash: str | None = field(default=None, repr=False)
    version: int = 1
    disabled: bool = False
    created: str = ""
    previous: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that is theirs, the present one first."""
        return (self.name, *self.previous, *self.logins)

    @property
    def stamp(self) -> str:
        """What a session was opened for: it ends when this is no longer the account's."""
        return f"{self.created}/{self.version}"


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """All accounts, in the order of the file."""

    all: tuple[Account, ...] = ()

    def named(self, name: str) -> Account | None:
        """The account of this name, disabled or not."""
        return next((a for a in self.all if face(a.name) == face(name)), None)

    def known_as(self, login: str) -> Account | None:
        """The account that a proxy or a provider means by `login`: its own list first, then its name."""
        found = [a for a in self.all if face(login) in {face(x) for x in a.logins}]
        return found[0] if found else self.named(login)

    def owner(self, name: str) -> Account | None:
        """Whose name this is or ever was: nobody else may take it."""
        return next((a for a in self.all if face(name) in {face(n) for n in a.names}), None)

    def able(self, *roles: Role) -> tuple[Account, ...]:
        """Accounts that are not disabled and have one of these roles (any role without them)."""
        return tuple(a for a in self.all if not a.disabled and (not roles or a.role in roles))

    def without(self, account: Account) -> tuple[Account, ...]:
        """The others."""
        return tuple(a for a in self.all if a.name != account.name)

    def put(self, account: Account, *, instead_of: Account | None = None) -> Accounts:
        """With `account` in the place of the one it stands for, or at the end."""
        old = (instead_of or account).name
        if not any(a.name == old for a in self.all):
            return Accounts(all=(*self.all, account))
        return Accounts(all=tuple(account if a.name == old else a for a in self.all))


def proper(name: str) -> bool:
    """True for what may be a name: 1 to 64 visible characters, nothing that hides or turns text around."""
    return (
        0 < len(name) <= LONGEST_NAME
        and name == name.strip()
        and name.isprintable()
        and not any(unicodedata.category(c) in ("Cf", "Co", "Cn", "Cs", "Zl", "Zp") for c in name)
        and face(name) != ""
    )


# ----------------------------------------------------------------------------- reading
def parse(raw: bytes | str) -> Accounts:
    """The accounts that the file states. Raises: InputError with every problem: file, line, mend."""
    try:
        text = decode(raw, USERS_FILE)
        root, problems = read(text, USERS_FILE)
    except Unreadable as unreadable:
        raise InputError(*(_ours(p) for p in unreadable.problems)) from None
    walk = _Walk([_ours(p) for p in problems])
    found = tuple(walk.accounts(root))
    if walk.problems:
        raise InputError(*sorted(walk.problems, key=lambda p: p.line or 0))
    return Accounts(all=found)


def _ours(p: Problem) -> Problem:
    """A problem of the YAML in the words of this file."""
    if p.code in ("empty_file", "not_a_mapping"):
        return Problem(code="users_empty", file=USERS_FILE, line=p.line)
    return p


class _Walk:
    """Reads accounts out of the tree and notes what is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems

    def fail(self, code: str, node: Node, path: Path, **params: Any) -> None:
        shown = {k: v[:100] if isinstance(v, str) else v for k, v in params.items()}
        self.problems.append(
            Problem(code=code, file=USERS_FILE, line=node.line, key=dotted(path), params=shown)
        )

    def accounts(self, root: Map) -> Iterator[Account]:
        for pair in root.pairs:
            if pair.key.text != "accounts":
                near = nearest(pair.key.text, ("accounts",))
                self.fail("unknown_key", pair.key, (pair.key.text,), found=pair.key.text, nearest=near)
        node = root.get("accounts")
        if node is None:
            self.fail("missing_key", root, ("accounts",))
        elif not isinstance(node, Map):
            self.fail("not_a_section", node, ("accounts",))
        else:
            yield from self.each(node)

    def each(self, node: Map) -> Iterator[Account]:
        taken: dict[str, str] = {}
        for pair in node.pairs:
            path = ("accounts", pair.key.text)
            found = self.one(pair, path)
            if found is None:
                continue
            for name in found.names:
                if face(name) in taken and taken[face(name)] != found.name:
                    self.fail("users_twice", pair.key, path, found=name, other=taken[face(name)])
                taken[face(name)] = found.name
            yield found

    def one(self, pair: Pair, path: Path) -> Account | None:
        before = len(self.problems)
        if not proper(pair.key.text):
            self.fail("users_name", pair.key, path, found=pair.key.text, limit=LONGEST_NAME)
            return None
        if not isinstance(pair.value, Map):
            self.fail("not_a_section", pair.value, path)
            return None
        entries = {p.key.text: p.value for p in pair.value.pairs}
        for p in pair.value.pairs:
            if p.key.text not in KEYS:
                near = nearest(p.key.text, KEYS)
                self.fail("unknown_key", p.key, (*path, p.key.text), found=p.key.text, nearest=near)
        account = Account(
            name=pair.key.text,
            role=self.role(entries.get("role"), pair, path),
            hash=self.hash(entries.get("hash"), (*path, "hash")),
            version=self.version(entries.get("version"), (*path, "version")),
            disabled=self.flag(entries.get("disabled"), (*path, "disabled")),
            created=self.text(entries.get("created"), (*path, "created")) or "",
            previous=self.names(entries.get("previous"), (*path, "previous")),
            logins=self.names(entries.get("logins"), (*path, "logins")),
        )
        return account if len(self.problems) == before else None

    # -- single values
    def text(self, node: Node | None, path: Path) -> str | None:
        """The text of a value; None when it is absent or `null`."""
        if node is None or (isinstance(node, Scalar) and is_null(node.text, node.plain)):
            return None
        if not isinstance(node, Scalar):
            self.fail("not_a_scalar", node, path)
            return None
        return node.text

    def role(self, node: Node | None, pair: Pair, path: Path) -> Role:
        found = self.text(node, (*path, "role"))
        if found in set(Role):
            return Role(found)
        where, choices = node or pair.key, [r.value for r in Role]
        if found is None:
            self.fail("missing_key", where, (*path, "role"))
        else:
            self.fail("unknown_choice", where, (*path, "role"), found=found, choices=choices,
                      nearest=nearest(found, choices))  # fmt: skip
        return Role.VIEWER

    def hash(self, node: Node | None, path: Path) -> str | None:
        """Only argon2id; what stands there is never repeated in a message."""
        found = self.text(node, path)
        if found is not None and node is not None and not found.startswith("$argon2id$"):
            self.fail("users_hash", node, path)
        return found

    def version(self, node: Node | None, path: Path) -> int:
        found = self.text(node, path)
        if found is None:
            return 1
        if not (found.isascii() and found.isdigit() and 0 < len(found) <= 9) and node is not None:
            self.fail("not_whole", node, path, found=found)
            return 1
        return int(found)

    def flag(self, node: Node | None, path: Path) -> bool:
        found = self.text(node, path)
        if found not in (None, "true", "false") or (isinstance(node, Scalar) and found and not node.plain):
            assert node is not None
            self.fail("not_boolean", node, path, found=found, mend=None)
            return True  # in doubt nobody is let in
        return found == "true"

    def names(self, node: Node | None, path: Path) -> tuple[str, ...]:
        if node is None:
            return ()
        if not isinstance(node, List):
            self.fail("not_a_list", node, path)
            return ()
        found = []
        for item in node.items:
            if not isinstance(item, Scalar) or not 0 < len(item.text) <= 200 or not item.text.isprintable():
                self.fail("users_name", item, path, found=getattr(item, "text", "{}"), limit=200)
            else:
                found.append(item.text)
        return tuple(found)


# ----------------------------------------------------------------------------- writing
def render(accounts: Accounts) -> str:
    """The file's text; `parse(render(a)) == a`."""
    if not accounts.all:
        return _HEAD + "accounts: {}\n"
    return _HEAD + "accounts:\n" + "".join(_entry(a) for a in accounts.all)


def _entry(a: Account) -> str:
    lines = [
        f"  {_quoted(a.name)}:",
        f"    role: {a.role.value}",
        f"    hash: {_quoted(a.hash) if a.hash is not None else 'null'}",
        f"    version: {a.version}",
        f"    disabled: {'true' if a.disabled else 'false'}",
        f"    created: {_quoted(a.created)}",
    ]
    for key, names in (("previous", a.previous), ("logins", a.logins)):
        if names:
            lines.append(f"    {key}: [{', '.join(_quoted(n) for n in names)}]")
    return "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    """A JSON string is a YAML string."""
    return json.dumps(text, ensure_ascii=False)
