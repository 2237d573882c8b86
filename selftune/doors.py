"""Who asks: one way of recognising people at a time, chosen by `governance.identity`.

Answers "who is this request?" (`visitor`) and, at every act and every second of an open page, "is that still
so?" (`again`). Every doubt makes a viewer where everybody may look, and nobody elsewhere. The mode is read
once, at the start: a half-saved settings file opens no door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from selftune import openid
from selftune.account_book import AccountBook
from selftune.address import is_loopback, listed
from selftune.backoff import FILE as BACKOFF_FILE
from selftune.backoff import Backoff
from selftune.config import parse
from selftune.demo import is_demo
from selftune.domain import Identity, InputError, Role
from selftune.files import read_small
from selftune.openid import SetUp
from selftune.reception import Note, Reception
from selftune.sessions import Sessions, key_of
from selftune.settings import SETTINGS_FILE, Governance, Settings
from selftune.view import Visitor, Way

SESSION_COOKIE, DEMO_COOKIE = "selftune_session", "selftune_demo_role"
SETTINGS_BYTES = 256 * 1024
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Door(Protocol):
    """One way of recognising people."""

    @property
    def reception(self) -> Reception | None:
        """Where people sign in with a password; None where they do not."""
        ...

    def visitor(self, headers: Headers, peer: str | None) -> Visitor | None:
        """Who this request is; None = nobody, and nothing is shown. `peer`: who speaks to this server."""
        ...

    def again(self, visitor: Visitor) -> Visitor | None:
        """The same person as they are at this moment: another role, or None when they are out."""
        ...


def host_name(authority: str | None) -> str | None:
    """The lower-case name in a Host header ('[::1]:8501' -> '::1'); None when it is not one plain name."""
    if not authority:
        return None
    try:
        parts = urlsplit(f"//{authority}")
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return None
    if parts.username or parts.password or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname.lower().rstrip(".") if parts.hostname else None


def authority_of(origin: str) -> str | None:
    """The lower-case name and port in an Origin header; None when it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # as 'http://[': an address that begins and never ends
        return None


def cookie(headers: Headers, name: str) -> str:
    """The value of a cookie of ours; '' without one.

    Other programs of this host may have left what Python's own reader gives up at, or one of the same name
    for a wider path: browsers send the nearest first.
    """
    pairs = (part.partition("=") for part in headers.get("cookie", "").split(";"))
    return next((value.strip().strip('"') for key, _, value in pairs if key.strip() == name), "")


# ------------------------------------------------------------------------------- without accounts
@dataclass(frozen=True, kw_only=True)
class OpenDoor:
    """Identity without accounts: the role that `up --role` gave, for people at this machine only.

    `address` is what the server is bound to. Every doubt (another machine, a proxy in between, a
    foreign Host or Origin) makes the visitor a viewer where everybody may look, and nobody elsewhere.
    A proxy may say nothing of itself and ask for us as `localhost`: the Origin is then what tells.
    `demo`: of the demo's root, where everybody at this machine may choose a role.
    """

    role: Role = Role.VIEWER
    address: str | None = None
    public_view: bool | None = None  # None: on loopback only
    demo: bool = False

    @property
    def reception(self) -> None:
        return None

    def visitor(self, headers: Headers, peer: str | None) -> Visitor | None:
        """Who this request is; None = nobody, and nothing is shown."""
        direct = not any(headers.get(h) for h in FORWARDED)
        at_this_machine = is_loopback(self.address) and direct and is_loopback(peer)
        named = [headers.get("host"), *map(authority_of, headers.getlist("origin"))]
        if at_this_machine and all(is_loopback(host_name(n)) for n in named):
            chosen = cookie(headers, DEMO_COOKIE) if self.demo else ""
            role = Role(chosen) if chosen in set(Role) else self.role
            return Visitor(name=role.value, role=role, way=Way.DEMO if self.demo else Way.OPEN)
        return self.public()

    def public(self) -> Visitor | None:
        """Whoever is not known: a viewer where everybody may look."""
        everybody = is_loopback(self.address) if self.public_view is None else self.public_view
        return Visitor(name=Role.VIEWER.value, role=Role.VIEWER) if everybody else None

    def again(self, visitor: Visitor) -> Visitor | None:
        return visitor


# ------------------------------------------------------------------------------- with accounts
@dataclass(frozen=True, kw_only=True)
class LocalDoor:
    """People who sign in here. `before` says who is who until the first account exists.

    `provider` None: with a password; else by an OpenID provider, as it is set up.
    """

    before: OpenDoor
    desk: Reception
    provider: SetUp | None = None

    @property
    def reception(self) -> Reception:
        return self.desk

    def visitor(self, headers: Headers, peer: str | None) -> Visitor | None:
        token = cookie(headers, SESSION_COOKIE)
        known = self._of_session(key_of(token)) if token else None
        if known is not None:
            return known
        return self.before.visitor(headers, peer) if self._none_yet() else self.before.public()

    def again(self, visitor: Visitor) -> Visitor | None:
        if visitor.way is Way.ACCOUNT:
            return self._of_session(visitor.key)
        if self._none_yet():
            return visitor
        return self.before.public()  # the first account ends what `--role` gave

    def _none_yet(self) -> bool:
        return self.desk.book.look().none_yet

    def _of_session(self, key: str) -> Visitor | None:
        session = self.desk.sessions.find(key)
        account = self.desk.account_of(session) if session is not None else None
        if account is None:
            return None
        return Visitor(name=account.name, role=account.role, way=Way.ACCOUNT, key=key)


@dataclass(frozen=True, kw_only=True)
class VouchedDoor:
    """People whom somebody else recognises (a proxy); their roles stand in the account file.

    `login(headers, peer)`: under which name this request is vouched for, None = under none. Whoever has no
    account is a viewer where everybody may look. A disabled account is nobody at all.
    """

    before: OpenDoor
    book: AccountBook
    way: Way
    login: Callable[[Headers, str | None], str | None] = field(repr=False)

    @property
    def reception(self) -> None:
        return None

    def visitor(self, headers: Headers, peer: str | None) -> Visitor | None:
        login = self.login(headers, peer)
        return self.before.public() if login is None else self._known_as(login)

    def again(self, visitor: Visitor) -> Visitor | None:
        return self._known_as(visitor.key) if visitor.way is self.way else self.before.public()

    def _known_as(self, login: str) -> Visitor | None:
        accounts = self.book.look().accounts
        if accounts is None:
            return None  # who may do what cannot be read: nobody is anybody
        account = accounts.known_as(login)
        if account is None:
            return self.before.public()
        if account.disabled:
            return None
        return Visitor(name=account.name, role=account.role, way=self.way, key=login)


def proxy_login(peers: tuple[str, ...], header: str) -> Callable[[Headers, str | None], str | None]:
    """The name in `header`, from a listed peer only; twice, empty or unreadable is none."""

    def login(headers: Headers, peer: str | None) -> str | None:
        said = headers.getlist(header)
        if not listed(peer, peers) or len(said) != 1:
            return None
        try:
            name = said[0].encode("latin-1").decode("utf-8").strip()
        except (UnicodeDecodeError, UnicodeEncodeError):
            return None
        return name if name and name.isprintable() and len(name) <= 200 else None

    return login


# ------------------------------------------------------------------------------- which door
def door(environ: Mapping[str, str], *, address: str | None, root: Path, note: Note) -> Door:
    """The door that the settings ask for; without valid ones, sign-in with a password.

    `note` puts a governance record on the chain. `up --role` counts where no account exists: any role in
    the demo, at most an operator's elsewhere, because a signature needs a name.
    """
    g = governance(root)
    demo = is_demo(root)
    before = OpenDoor(role=_role(environ, demo=demo), address=address, public_view=_public(g), demo=demo)
    book = AccountBook(root)
    if g.identity is Identity.OPEN:
        return before if book.look().none_yet else replace(before, role=Role.VIEWER, demo=False)
    if g.identity is Identity.PROXY:
        login = proxy_login(g.proxy.peers, g.proxy.user_header)
        return VouchedDoor(before=before, book=book, way=Way.PROXY, login=login)
    provider = openid.set_up(root, environ) if g.identity is Identity.OIDC else None
    desk = Reception(book, Sessions(), Backoff(root / BACKOFF_FILE), note)
    return LocalDoor(before=before, desk=desk, provider=provider)


def _public(g: Governance) -> bool | None:
    """Whether everybody may look; None: at this machine only.

    Where it is not said and another name than this machine's is served, a proxy may bring people from
    anywhere to an address of loopback: then nobody.
    """
    if g.public_view is None and not all(is_loopback(name) for name in g.allowed_hosts):
        return False
    return g.public_view


def secrets(door: Door) -> dict[str, Any] | None:
    """What Streamlit must know to send people to the provider; None where nobody is sent."""
    found = door.provider if isinstance(door, LocalDoor) else None
    return {"auth": found.provider.auth()} if found and found.provider else None


def _role(environ: Mapping[str, str], *, demo: bool) -> Role:
    asked = environ.get("SELFTUNE_ROLE", Role.VIEWER.value)
    role = Role(asked) if asked in set(Role) else Role.VIEWER
    return role if demo or role is Role.OPERATOR else Role.VIEWER


def governance(root: Path) -> Governance:
    """What the settings say about people; the defaults where they are not valid (fail closed)."""
    settings = _settings(root)
    return settings.governance if settings else Governance()


def allowed_hosts(root: Path) -> Callable[[], frozenset[str]]:
    """Names beside this machine's own under which the dashboard may be asked, from valid settings only.

    Read once, at the start: a name that is added later needs a restart, like the address itself.
    """
    known = frozenset(name.strip().lower().rstrip(".") for name in governance(root).allowed_hosts)
    return lambda: known


def _settings(root: Path) -> Settings | None:
    raw = read_small(root / SETTINGS_FILE, SETTINGS_BYTES)
    try:
        return None if raw is None else parse(raw, file=SETTINGS_FILE)
    except InputError:
        return None  # without valid settings no host and no view is allowed by them
