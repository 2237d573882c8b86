"""What is plain ASGI around Streamlit: health, Host and Origin guard, who asks, headers, the language cookie.

Never imports Streamlit's widgets, never renders a page, never reads the tuned system's data. Each
middleware is a small callable that can be tested without a server.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import uvicorn.config
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from selftune import sign_in
from selftune.address import client_behind, is_loopback, listed
from selftune.domain import Role
from selftune.doors import Door, LocalDoor, OpenDoor, allowed_hosts, authority_of, door, host_name
from selftune.oidc import ProviderAnswers
from selftune.sign_in import LANGUAGE_COOKIE, LANGUAGES, safe_path
from selftune.sockets import WatchedSocket
from selftune.view import Visitor, Way

USER_HEADER, ROLE_HEADER, PROOF_HEADER = "x-selftune-user", "x-selftune-role", "x-selftune-proof"
WAY_HEADER, KEY_HEADER = "x-selftune-way", "x-selftune-key"
UPLOADS = "/_stcore/upload_file"
_YEAR_S = 365 * 86_400
PEER = "selftune.peer"  # in the scope: who speaks to this server, before a listed proxy's word is taken

# By the proof that a header was written by this process's middleware and not by a client: the door to ask.
# A proof is made new at each start and never logged, stored or sent anywhere.
_DOORS: dict[str, Door] = {}

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


# ------------------------------------------------------------------------------- who asks
class Forwarded:
    """Takes the word of a listed proxy for who asks and how; nobody else's."""

    def __init__(self, app: ASGIApp, peers: Sequence[str] = ()) -> None:
        self.app, self.peers = app, tuple(peers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers, client = Headers(scope=scope), scope.get("client") or (None, 0)
            peer = client[0]
            scope = {**scope, PEER: peer}
            if listed(peer, self.peers):
                asks = client_behind(peer, ",".join(headers.getlist("x-forwarded-for")), self.peers)
                scope["client"] = (asks, client[1])
                if headers.get("x-forwarded-proto", "").strip().lower() == "https":
                    scope["scheme"] = {"http": "https", "ws": "wss"}.get(scope["scheme"], scope["scheme"])
        await self.app(scope, receive, send)


def believe_listed_proxies_only() -> None:
    """Nothing; from now on uvicorn takes nobody's word for who asks: `Forwarded` does, of listed proxies.

    By default uvicorn believes X-Forwarded-For of everything on this machine, and hides the real peer from
    us. It decides so before our app is loaded and wraps it afterwards: in between only its wrapper is left
    to replace. tests/browser/test_sign_in.py holds it with the real server.
    """

    def unwrapped(app: ASGIApp, trusted_hosts: object = None) -> ASGIApp:
        return app

    setattr(uvicorn.config, "ProxyHeadersMiddleware", unwrapped)  # noqa: B010


def log_no_addresses() -> None:
    """Nothing; from now on no address that is asked for is logged: a provider's answer has its code there.

    Streamlit turns uvicorn's access log off at the start, and on again when its configuration file changes
    while it runs.
    """
    logging.getLogger("uvicorn.access").disabled = True


class IdentityFeed:
    """Writes who asks into the request's headers, after removing whatever the client claimed.

    Whoever is nobody gets no further than the sign-in page, what it needs, and the health check. An open
    websocket ends when its visitor is no longer who they were.
    """

    def __init__(self, app: ASGIApp, door: Door, base: str = "") -> None:
        self.app, self.door, self.base = app, door, base
        self._proof = secrets.token_hex(32)
        _DOORS[self._proof] = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        peer = scope.get(PEER) or (scope["client"][0] if scope.get("client") else None)
        visitor = self.door.visitor(headers, peer)
        scope = {**scope, "headers": self._fed(scope["headers"], visitor)}
        if scope["type"] == "websocket":
            await self._socket(visitor, scope, receive, send)
        elif visitor is None and not sign_in.is_free(scope["path"], self.base):
            await sign_in.refusal(self.door, scope, self.base)(scope, receive, send)
        else:
            if visitor is not None and _opens_page(scope, headers):
                sign_in.touch(self.door, visitor)
            await self.app(scope, receive, send)

    async def _socket(self, visitor: Visitor | None, scope: Scope, receive: Receive, send: Send) -> None:
        if visitor is None:
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
            return
        watched = WatchedSocket(
            lambda: self.door.again(visitor) == visitor, lambda: sign_in.touch(self.door, visitor)
        )
        await watched.serve(self.app, scope, receive, send)

    def _fed(
        self, headers: Iterable[tuple[bytes, bytes]], visitor: Visitor | None
    ) -> list[tuple[bytes, bytes]]:
        kept = [(k, v) for k, v in headers if not k.lower().replace(b"_", b"-").startswith(b"x-selftune-")]
        if visitor is None:
            return kept
        said = {USER_HEADER: visitor.name, ROLE_HEADER: visitor.role.value, WAY_HEADER: visitor.way.value,
                KEY_HEADER: visitor.key, PROOF_HEADER: self._proof}  # fmt: skip
        return kept + [(k.encode(), quote(v, safe="").encode()) for k, v in said.items()]


def _opens_page(scope: Scope, headers: Headers) -> bool:
    return bool(scope["method"] == "GET") and "text/html" in headers.get("accept", "")


def visitor_in(headers: Mapping[str, str]) -> Visitor | None:
    """The visitor whom *this process's* middleware wrote into the headers, as they are at this moment.

    None in every other case, and when they are no longer anybody: signed out, disabled, expired.
    """
    lower = {k.lower(): v for k, v in headers.items()}
    asked = _DOORS.get(lower.get(PROOF_HEADER, ""))
    if asked is None:
        return None
    try:
        said = Visitor(
            name=unquote(lower[USER_HEADER]), role=Role(lower[ROLE_HEADER]), way=Way(lower[WAY_HEADER]),
            key=unquote(lower.get(KEY_HEADER, "")),
        )  # fmt: skip
    except (KeyError, ValueError):
        return None
    return asked.again(said)


def door_in(headers: Mapping[str, str]) -> Door | None:
    """The door that wrote who asks into these headers."""
    lower = {k.lower(): v for k, v in headers.items()}
    return _DOORS.get(lower.get(PROOF_HEADER, ""))


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
        origins = headers.getlist("origin")
        if len(origins) != 1:
            return bool(scope["type"] == "http" and not origins)
        origin = authority_of(origins[0])
        return origin == hosts[0].lower() or host_name(origin) in self.allowed()


class NoUploads:
    """Closes Streamlit's door for files: no page takes one, and it would keep them for anybody in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and UPLOADS in scope["path"]:
            await PlainTextResponse("No files are taken here. 파일은 받지 않습니다.\n", 403)(
                scope, receive, send
            )
        else:
            await self.app(scope, receive, send)


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
def routes(root: Path, door: Door | None = None, base: str = "") -> list[BaseRoute]:
    """`/healthz` (the process answers), `/readyz` (its root can be read), language, `/overview`, sign-in.

    `base`: the path below which the dashboard is served, as `/tuning`; health answers without it as well.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    async def readyz(_: Request) -> Response:
        ready = root.is_dir()
        body = {"status": "ready" if ready else "not_ready"}
        return JSONResponse(body, 200 if ready else 503, headers={"Cache-Control": "no-store"})

    health: list[BaseRoute] = [Route("/healthz", healthz), Route("/readyz", readyz)]
    if base:
        health += [Route(f"{base}/healthz", healthz), Route(f"{base}/readyz", readyz)]

    async def first_page(request: Request) -> Response:
        """The overview's other name, which the sidebar shows: Streamlit knows it only as `/`."""
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{base}/{query}", 307)

    found: list[BaseRoute] = [
        *health,
        Route(f"{base}/language/{{code}}", _choose_language),
        Route(f"{base}/overview", first_page),
    ]
    return found + (sign_in.routes(door, base) if door is not None else [])


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


def middleware(
    door: Door, allowed: Callable[[], frozenset[str]], *, peers: Sequence[str] = (), base: str = ""
) -> list[Middleware]:
    """The stack of `app.py`, outermost first: answers get their headers even when the guard refuses."""
    return [
        Middleware(SecurityHeaders),
        Middleware(Forwarded, peers=peers),
        Middleware(HostGuard, allowed=allowed),
        Middleware(NoUploads),
        Middleware(IdentityFeed, door=door, base=base),
        *_provider_answers(door, base),
    ]


def _provider_answers(door: Door, base: str) -> list[Middleware]:
    if not isinstance(door, LocalDoor) or door.provider is None:
        return []
    return [Middleware(ProviderAnswers, answer=sign_in.Pages(door, base).answered, base=base)]


__all__ = [
    "LANGUAGE_COOKIE", "Door", "HostGuard", "IdentityFeed", "OpenDoor", "SecurityHeaders", "allowed_hosts",
    "door", "door_in", "host_name", "middleware", "routes", "safe_path", "visitor_in",
]  # fmt: skip
