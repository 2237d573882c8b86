"""The way to an OpenID provider and back: the hidden parts of Streamlit's `st.login`, wrapped.

Its routes, its signed cookie, where its secrets come from. Streamlit and Authlib speak the protocol: state,
nonce, signature, issuer. Who somebody is in this house, and for how long, is ours: the provider's answer
opens a session like a password does, and Streamlit's own cookie (30 days, with the tokens in it) never
reaches the browser.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.auth_util import encode_provider_token
from streamlit.errors import StreamlitAuthError
from streamlit.web.server.starlette.starlette_server_config import TOKENS_COOKIE_NAME, USER_COOKIE_NAME
from streamlit.web.server.starlette.starlette_websocket import _get_signed_cookie_with_chunks

from selftune.openid import CALLBACK

log = logging.getLogger("selftune.oidc")

LOGIN = "/auth/login"


# ----------------------------------------------------------------------------- the way there
def start(base: str) -> str:
    """Where Streamlit sends a browser on to the provider, as `st.login` makes it; good for 2 minutes."""
    return f"{base}{LOGIN}?provider={encode_provider_token('default')}"


def _claims(cookies: Mapping[str, str]) -> Mapping[str, Any] | None:
    """What Streamlit wrote into its own signed cookie; None without a whole one."""
    try:
        raw = _get_signed_cookie_with_chunks(dict(cookies), USER_COOKIE_NAME)
        said = json.loads(raw) if raw else None
    except (ValueError, StreamlitAuthError):
        return None
    return said if isinstance(said, dict) and said.get("is_logged_in") is True else None


# ----------------------------------------------------------------------------- the way back
Answer = Callable[[Request, Mapping[str, Any] | None], Awaitable[Response]]


class ProviderAnswers:
    """Takes the provider's answer from Streamlit's hands: `answer(request, claims)` says what follows.

    `claims` is None where the sign-in failed. Streamlit's cookies of a signed-in user are dropped on the
    way, whatever comes of it; a failure of its login route becomes our own page.
    """

    def __init__(self, app: ASGIApp, answer: Answer, base: str = "") -> None:
        self.app, self.answer, self.base = app, answer, base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path not in (self.base + CALLBACK, self.base + LOGIN):
            await self.app(scope, receive, send)
            return
        sent: list[Message] = []

        async def keep(message: Message) -> None:
            sent.append(message)

        try:
            await self.app(scope, receive, keep)
        except Exception:  # a library's fault at a door that anybody may try: said in words
            log.exception("sign-in by the provider failed")
            sent.clear()
        first = sent[0] if sent else {"status": 500, "headers": []}
        if path == self.base + LOGIN and first["status"] in (302, 303):
            for message in sent:
                await send(message)
            return
        cookies = _set(first)
        claims = _claims(cookies) if path.endswith(CALLBACK) else None
        response = await self.answer(Request(scope, receive), claims)
        for header in _kept(first):
            response.raw_headers.append((b"set-cookie", header))
        await response(scope, receive, send)


def _set(first: Message) -> dict[str, str]:
    """The cookies that this answer sets."""
    found: dict[str, str] = {}
    for text in Headers(raw=first["headers"]).getlist("set-cookie"):
        try:
            found |= {name: morsel.value for name, morsel in SimpleCookie(text).items() if morsel.value}
        except CookieError:
            continue
    return found


def _kept(first: Message) -> list[bytes]:
    """Cookies that go on to the browser: all but those that name a signed-in user or hold tokens."""
    headers = Headers(raw=first["headers"]).getlist("set-cookie")
    return [h.encode("latin-1") for h in headers if not h.startswith((USER_COOKIE_NAME, TOKENS_COOKIE_NAME))]
