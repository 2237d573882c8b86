"""What is plain ASGI around Streamlit: health, Host and Origin guard, who asks, headers, the language cookie.

Never imports Streamlit's widgets, never renders a page, never reads the tuned system's data. Each
middleware is a small callable that can be tested without a server.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from selftune.address import is_loopback
from selftune.config import parse
from selftune.domain import InputError, Role
from selftune.files import read_small
from selftune.settings import SETTINGS_FILE, Settings
from selftune.view import Visitor

USER_HEADER, ROLE_HEADER, PROOF_HEADER = "x-selftune-user", "x-selftune-role", "x-selftune-proof"
LANGUAGE_COOKIE = "selftune_language"
LANGUAGES = ("ko", "en")
SETTINGS_BYTES = 256 * 1024
_YEAR_S = 365 * 86_400

# Proves to the pages that a header was written by this process's middleware and not by a client.
# Made new at each start and never logged, stored or sent anywhere.
_PROOF = secrets.token_hex(32)

SECURITY_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # 'unsafe-eval' and 'unsafe-inline' are Streamlit's and Vega's; that nothing may be fetched from, sent
    # to or framed by another origin is what this line is for.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
}


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


# ------------------------------------------------------------------------------- who asks
@dataclass(frozen=True, kw_only=True)
class OpenDoor:
    """Identity without accounts: the role that `up --role` gave, for people at this machine only.

    `address` is what the server is bound to. Every doubt (another machine, a proxy in between, a
    foreign Host) makes the visitor a viewer where everybody may look, and nobody elsewhere.
    """

    role: Role = Role.VIEWER
    address: str | None = None
    public_view: bool | None = None  # None: on loopback only

    def visitor(self, headers: Headers, peer: str | None) -> Visitor | None:
        """Who this request is; None = nobody, and nothing is shown."""
        local_server = is_loopback(self.address)
        direct = not any(headers.get(h) for h in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
        at_this_machine = local_server and direct and is_loopback(peer)
        if at_this_machine and is_loopback(host_name(headers.get("host"))):
            return Visitor(name=self.role.value, role=self.role)
        if self.public_view or (self.public_view is None and local_server):
            return Visitor(name=Role.VIEWER.value, role=Role.VIEWER)
        return None


def door(environ: Mapping[str, str], *, address: str | None, root: Path) -> OpenDoor:
    """The door that `up --role` asked for; an unknown role opens as a viewer's."""
    asked = environ.get("SELFTUNE_ROLE", Role.VIEWER.value)
    role = Role(asked) if asked in set(Role) else Role.VIEWER
    settings = _settings(root)
    return OpenDoor(
        role=role, address=address, public_view=settings.governance.public_view if settings else None
    )


def allowed_hosts(root: Path) -> Callable[[], frozenset[str]]:
    """Names beside this machine's own under which the dashboard may be asked, from valid settings only.

    Read once, at the start: a name that is added later needs a restart, like the address itself.
    """
    settings = _settings(root)
    names = settings.governance.allowed_hosts if settings else ()
    known = frozenset(name.strip().lower().rstrip(".") for name in names)
    return lambda: known


def _settings(root: Path) -> Settings | None:
    raw = read_small(root / SETTINGS_FILE, SETTINGS_BYTES)
    try:
        return None if raw is None else parse(raw, file=SETTINGS_FILE)
    except InputError:
        return None  # fail closed: without valid settings no host and no view is allowed by them


Recognise = Callable[[Headers, str | None], Visitor | None]


class IdentityFeed:
    """Writes who asks into the request's headers, after removing whatever the client claimed."""

    def __init__(self, app: ASGIApp, recognise: Recognise) -> None:
        self.app, self.recognise = app, recognise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            peer = scope["client"][0] if scope.get("client") else None
            visitor = self.recognise(Headers(scope=scope), peer)
            scope = {**scope, "headers": _fed(scope["headers"], visitor)}
        await self.app(scope, receive, send)


def _fed(headers: Iterable[tuple[bytes, bytes]], visitor: Visitor | None) -> list[tuple[bytes, bytes]]:
    kept = [(k, v) for k, v in headers if not k.lower().replace(b"_", b"-").startswith(b"x-selftune-")]
    if visitor is None:
        return kept
    said = {USER_HEADER: visitor.name, ROLE_HEADER: visitor.role.value, PROOF_HEADER: _PROOF}
    return kept + [(k.encode(), v.encode("ascii", "replace")) for k, v in said.items()]


def visitor_in(headers: Mapping[str, str]) -> Visitor | None:
    """The visitor that *this process's* middleware wrote into the headers; None in every other case."""
    lower = {k.lower(): v for k, v in headers.items()}
    if not hmac.compare_digest(lower.get(PROOF_HEADER, "").encode(), _PROOF.encode()):
        return None
    try:
        return Visitor(name=lower[USER_HEADER], role=Role(lower[ROLE_HEADER]))
    except (KeyError, ValueError):
        return None


# ------------------------------------------------------------------------------- guard
class HostGuard:
    """Refuses a foreign Host (DNS rebinding), a foreign Origin, and a websocket without an Origin."""

    def __init__(self, app: ASGIApp, allowed: Callable[[], frozenset[str]]) -> None:
        self.app, self.allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._welcome(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = PlainTextResponse("This address is not allowed. 허용되지 않은 주소입니다.\n", 403)
            await refusal(scope, receive, send)

    def _welcome(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not (name in self.allowed() or is_loopback(name)):
            return False
        origin = headers.get("origin")
        if origin is None:
            return bool(scope["type"] == "http")
        return (
            urlsplit(origin).netloc.lower() == hosts[0].lower()
            or host_name(urlsplit(origin).netloc) in self.allowed()
        )


class SecurityHeaders:
    """Adds the headers above to every answer that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


# ------------------------------------------------------------------------------- routes
def routes(root: Path) -> list[BaseRoute]:
    """`/healthz` (the process answers), `/readyz` (its data root can be read), `/language/<code>`."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    async def readyz(_: Request) -> Response:
        ready = root.is_dir()
        body = {"status": "ready" if ready else "not_ready"}
        return JSONResponse(body, 200 if ready else 503, headers={"Cache-Control": "no-store"})

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/language/{code}", _choose_language),
    ]


async def _choose_language(request: Request) -> Response:
    code = request.path_params["code"]
    if code not in LANGUAGES:
        return PlainTextResponse("unknown language\n", 404)
    answer = RedirectResponse(safe_path(request.query_params.get("back")), 303)
    answer.set_cookie(
        LANGUAGE_COOKIE, code, max_age=_YEAR_S, httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


def safe_path(back: str | None) -> str:
    """`back` when it is a path on this site, else '/': a link of ours must not lead to another site."""
    plain = back and back.isprintable() and back.startswith("/") and "\\" not in back
    return back if plain and back and not back.startswith("//") else "/"


def middleware(door: OpenDoor, allowed: Callable[[], frozenset[str]]) -> list[Middleware]:
    """The stack of `app.py`, outermost first: answers get their headers even when the guard refuses."""
    return [
        Middleware(SecurityHeaders),
        Middleware(HostGuard, allowed=allowed),
        Middleware(IdentityFeed, recognise=door.visitor),
    ]


__all__ = ["HostGuard", "IdentityFeed", "OpenDoor", "SecurityHeaders", "middleware", "routes", "visitor_in"]
