"""The sign-in page and its routes, outside Streamlit: name and password in, a cookie out.

Answers the browser; who may come in is reception.py's. No script runs on these pages, nothing is fetched, and
no answer says whether a name is known.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from selftune import oidc, openid, sign_in_page
from selftune.domain import Role
from selftune.doors import DEMO_COOKIE, SESSION_COOKIE, Door, LocalDoor, OpenDoor, cookie
from selftune.reception import Answer, Outcome, Reception
from selftune.sessions import LONGEST_S
from selftune.sign_in_page import Notice
from selftune.view import Visitor, Way

LANGUAGE_COOKIE, FORM_COOKIE, BACK_COOKIE = "selftune_language", "selftune_form", "selftune_back"
ICON = Path(__file__).parent / "static" / "favicon.png"
BACK_S = 15 * 60  # for somebody to sign in at the provider and come back
LANGUAGES = ("ko", "en")
BODY_BYTES = 8 * 1024
AT_ONCE, QUEUE = 2, 100  # passwords compared at one time; how many may wait for it
_SECRET = secrets.token_bytes(32)  # signs the forms of this process
# What anybody may ask for: Streamlit's own code, health, and the way in. No data of the root.
_FREE = (
    "/healthz",
    "/readyz",
    "/sign-in",
    "/sign-in/start",
    "/sign-in/icon.png",
    "/sign-out",
    "/session",
    "/favicon.png",
    "/favicon.ico",
)
_FREE_BELOW = (
    "/language/",
    "/static/",
    "/_stcore/health",
    "/_stcore/host-config",
    "/auth/",
    "/oauth2callback",
)

_STATUS = {Outcome.WRONG: 401, Outcome.WAIT: 429, Outcome.NOBODY: 403, Outcome.BROKEN: 503}


# ------------------------------------------------------------------------------- who gets how far
def is_free(path: str, base: str = "") -> bool:
    """True for what may be asked by nobody in particular."""
    inner = path[len(base) :] if base and path.startswith(f"{base}/") else path
    return path in ("/healthz", "/readyz") or inner in _FREE or inner.startswith(_FREE_BELOW)


def refusal(door: Door, scope: Scope, base: str) -> Response:
    """What nobody gets instead: the way in for a person at a browser, a plain 401 for everything else."""
    headers = Headers(scope=scope)
    if scope["method"] not in ("GET", "HEAD") or "text/html" not in headers.get("accept", ""):
        return PlainTextResponse("Please sign in. 로그인해 주세요.\n", 401, headers=_no_store())
    if door.reception is None:
        page = sign_in_page.closed(_language(headers, {}))
        return HTMLResponse(page, 403, headers=sign_in_page.HEADERS)
    query = scope.get("query_string", b"").decode("latin-1")
    back = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse(f"{base}/sign-in?back={quote(back, safe='/')}", 303, headers=_no_store())


def touch(door: Door, visitor: Visitor) -> None:
    """This person did something: their session's idle time begins anew."""
    if door.reception is not None and visitor.way is Way.ACCOUNT:
        door.reception.sessions.touch(visitor.key)


def left_s(door: Door, visitor: Visitor) -> tuple[float, bool] | None:
    """(seconds until this person is signed out, whether nothing puts that off); None without a session."""
    if door.reception is None or visitor.way is not Way.ACCOUNT:
        return None
    sessions = door.reception.sessions
    session = sessions.find(visitor.key)
    if session is None:
        return 0.0, True
    return sessions.left_s(session), session.final(sessions.clock(), sessions.longest_s)


def safe_path(back: str | None) -> str:
    """`back` when it is a path on this site, else '/': a link of ours must not lead to another site."""
    plain = back and back.isprintable() and back.startswith("/") and "\\" not in back
    return back if plain and back and not back.startswith("//") else "/"


def _no_store() -> dict[str, str]:
    return {"Cache-Control": "no-store"}


# ------------------------------------------------------------------------------- the routes
def routes(door: Door, base: str) -> list[BaseRoute]:
    """`/sign-in`, `/sign-out`, `/session` (is it still so?), and the demo's `/demo-role/<role>`."""
    pages = Pages(door, base)
    found: list[BaseRoute] = [Route(f"{base}/session", pages.session)]
    if door.reception is not None:
        found += [
            Route(f"{base}/sign-in", pages.form, methods=["GET"]),
            Route(f"{base}/sign-in/icon.png", pages.icon),
            Route(f"{base}/sign-out", pages.leave, methods=["POST"]),
            Route(f"{base}/sign-in/start", pages.start, methods=["GET"])
            if pages.provider is not None
            else Route(f"{base}/sign-in", pages.enter, methods=["POST"]),
        ]
    before = door.before if isinstance(door, LocalDoor) else door
    if isinstance(before, OpenDoor) and before.demo:
        found.append(Route(f"{base}/demo-role/{{role}}", pages.demo_role))
    return found


class Pages:
    """The routes of one door below `base`."""

    def __init__(self, door: Door, base: str) -> None:
        self.door, self.base = door, base
        self.path = base or "/"
        self.provider = door.provider if isinstance(door, LocalDoor) else None
        self._pool, self._waiting = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sign-in"), 0

    @property
    def desk(self) -> Reception:
        assert self.door.reception is not None  # these routes exist only where it does
        return self.door.reception

    async def form(self, request: Request) -> Response:
        """The form; for somebody who is signed in, who they are and the way out."""
        query = request.query_params
        book = self.desk.book.look()
        # what else the page can say is said only to whom it happened, never because an address asks for it
        notice = Notice(query["why"]) if query.get("why") in sign_in_page.QUIET else None
        if book.accounts is None:
            notice = Notice.BROKEN
        elif book.none_yet:
            notice = Notice.NOBODY
        return self._page(request, back=query.get("back"), notice=notice)

    async def enter(self, request: Request) -> Response:
        """Signs in, with a new session whatever the browser had before."""
        sent = await _sent(request)
        if sent is None:
            return self._page(request, back=None, notice=Notice.AGAIN, status=400)
        back = sent.get("back")
        if not _token_fits(request.cookies.get(FORM_COOKIE), sent.get("token")):
            return self._page(request, back=back, notice=Notice.AGAIN, status=400, name=sent.get("name", ""))
        if self._waiting >= QUEUE:
            return self._page(request, back=back, notice=Notice.BUSY, status=503, name=sent.get("name", ""))
        name, address = sent.get("name", ""), request.client.host if request.client else ""
        answer = await self._compared(name, sent.get("password", ""), address)
        if answer.outcome is not Outcome.IN:
            return self._page(request, back=back, notice=Notice(answer.outcome.value), name=name,
                              answer=answer, status=_STATUS[answer.outcome])  # fmt: skip
        await run_in_threadpool(self._end, request)
        return self._welcomed(request, answer.token, back)

    async def _compared(self, name: str, password: str, address: str) -> Answer:
        """Two at a time: a comparison takes 64 MiB, and a flood of them must not take the machine."""
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self.desk.come_in, name, password, address)
        finally:
            self._waiting -= 1

    # --------------------------------------------------------------------------- by a provider
    async def start(self, request: Request) -> Response:
        """Sends a person on to the provider, and remembers where they were."""
        if self.provider is None or self.provider.provider is None:
            return RedirectResponse(f"{self.base}/sign-in", 303, headers=_no_store())
        response = RedirectResponse(oidc.start(self.base), 303, headers=_no_store())
        response.set_cookie(
            BACK_COOKIE, self._inside(request.query_params.get("back")), max_age=BACK_S, path=self.path,
            httponly=True, samesite="lax", secure=request.url.scheme == "https",
        )  # fmt: skip
        return response

    async def answered(self, request: Request, claims: Mapping[str, Any] | None) -> Response:
        """What follows the provider's answer: in, or why not. Who may come in says the account file."""
        provider = self.provider.provider if self.provider is not None else None
        login = openid.known_as(claims, provider) if claims is not None and provider is not None else None
        back = request.cookies.get(BACK_COOKIE)
        if login is None:
            return self._page(request, back=back, notice=Notice.PROVIDER, status=403)
        accounts, address = self.desk.book.look().accounts, request.client.host if request.client else ""
        account = accounts.known_as(login) if accounts is not None else None
        if account is None or account.disabled:
            await run_in_threadpool(self.desk.turned_away, login, how="oidc", address=address)
            return self._page(request, back=back, notice=Notice.UNKNOWN, status=403, name=login)
        await run_in_threadpool(self._end, request)
        token = await run_in_threadpool(self.desk.welcome, account, how="oidc", address=address)
        response = self._welcomed(request, token, back)
        response.delete_cookie(BACK_COOKIE, path=self.path, httponly=True, samesite="lax")
        return response

    def _welcomed(self, request: Request, token: str, back: str | None) -> Response:
        """On to where they were, with the session in a cookie that no script can read."""
        response = RedirectResponse(self._inside(back), 303, headers=_no_store())
        response.set_cookie(
            SESSION_COOKIE, token, max_age=round(LONGEST_S), path=self.path, httponly=True,
            samesite="lax", secure=request.url.scheme == "https",
        )  # fmt: skip
        return response

    async def leave(self, request: Request) -> Response:
        """Signs out: every tab of this session."""
        await run_in_threadpool(self._end, request)
        response = RedirectResponse(f"{self.base}/sign-in?why=out", 303, headers=_no_store())
        response.delete_cookie(SESSION_COOKIE, path=self.path, httponly=True, samesite="lax")
        return response

    async def icon(self, request: Request) -> Response:
        """The mark in the browser's tab."""
        return FileResponse(ICON, headers={"Cache-Control": "max-age=86400"})

    async def session(self, request: Request) -> Response:
        """Whether the page that asks is still somebody's, and for how long. Asking keeps nobody signed in."""
        visitor = self._visitor(request)
        left = left_s(self.door, visitor) if visitor is not None else None
        said = {
            "signed_in": visitor is not None and visitor.signed_in,
            "left_s": round(left[0]) if left else None,
        }
        return JSONResponse(said, headers=_no_store())

    async def demo_role(self, request: Request) -> Response:
        """The demo's role switcher: a cookie, of use only at this machine and on the demo's root."""
        role = request.path_params["role"]
        if role not in set(Role):
            return PlainTextResponse("unknown role\n", 404)
        response = RedirectResponse(self._inside(request.query_params.get("back")), 303, headers=_no_store())
        response.set_cookie(DEMO_COOKIE, role, path=self.path, httponly=True, samesite="lax")
        return response

    # ---------------------------------------------------------------------------
    def _visitor(self, request: Request) -> Visitor | None:
        peer = request.scope.get("selftune.peer") or (request.client.host if request.client else None)
        return self.door.visitor(request.headers, peer)

    def _end(self, request: Request) -> None:
        """The session that this browser had, if any, is over."""
        visitor = self._visitor(request)
        if visitor is not None and visitor.way is Way.ACCOUNT:
            self.desk.leave(visitor.key)

    def _inside(self, back: str | None) -> str:
        path = safe_path(back)
        return path if path.startswith(f"{self.base}/") else f"{self.base}/"

    def _whom_to_ask(self) -> tuple[str, ...]:
        """Who manages accounts: told only to somebody whose identity was proven."""
        accounts = self.desk.book.look().accounts
        return tuple(a.name for a in accounts.able(Role.ADMIN)) if accounts else ()

    def _page(
        self, request: Request, *, back: str | None, notice: Notice | None, status: int = 200,
        name: str = "", answer: Answer | None = None,
    ) -> Response:  # fmt: skip
        lang = _language(request.headers, request.query_params)
        visitor, before = (
            self._visitor(request),
            self.door.before if isinstance(self.door, LocalDoor) else None,
        )
        seed = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)
        page = sign_in_page.page(
            lang, base=self.base, back=self._inside(back), token=_token(seed), notice=notice, name=name,
            wait_s=answer.wait_s if answer else 0.0, problems=self.desk.book.look().problems,
            visitor=visitor if visitor is not None and visitor.signed_in else None,
            may_look=before is not None and before.public() is not None, provider=self.provider,
            ask=self._whom_to_ask() if notice is Notice.UNKNOWN else (),
        )  # fmt: skip
        headers = dict(sign_in_page.HEADERS)
        if answer is not None and answer.wait_s > 0:
            headers["Retry-After"] = str(round(answer.wait_s) + 1)
        response = HTMLResponse(page, status, headers=headers)
        response.set_cookie(
            FORM_COOKIE, seed, path=self.path, httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response


# ------------------------------------------------------------------------------- what was sent
async def _sent(request: Request) -> Mapping[str, str] | None:
    """The fields of the form; None for a body that is too long or none of ours."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            return None
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        return None
    return dict(pairs)


def _token(seed: str) -> str:
    return hmac.digest(_SECRET, seed.encode("utf-8", "replace"), "sha256").hex()


def _token_fits(seed: str | None, token: str | None) -> bool:
    """True when the form that was sent is one that this process gave to this browser."""
    return bool(seed and token) and hmac.compare_digest(_token(seed or "").encode(), (token or "").encode())


def _language(headers: Headers, query: Mapping[str, str]) -> str:
    """'ko' or 'en': from the address, the cookie, the browser, then Korean."""
    accepted = headers.get("accept-language") or ""
    for said in (query.get("lang"), cookie(headers, LANGUAGE_COOKIE), accepted[:2].lower()):
        if said in LANGUAGES:
            return said
    return LANGUAGES[0]
