"""Open pages: a websocket lives only as long as its visitor is who they were when it was opened.

Answers "is somebody still signed in?" for every open socket once a second, and closes it when not: after
sign-out, expiry, or a change of the account; and when nobody reads what is sent. What a person does (not
what a page renews by itself) keeps their session alive. Plain ASGI.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg

log = logging.getLogger("selftune.sockets")

LOOK_S = 1.0
DEAF_S = 20.0  # nothing more fits on the way to a browser for so long: nobody reads there
ENDED = 4401  # of the codes that are free for applications; like HTTP's 401


# What a page of ours asks for. Streamlit takes more from anybody: to drop the caches of all sessions, to make
# room for uploads, to tell the version history of the program.
ASKED_FOR = frozenset({"rerun_script", "stop_script", "app_heartbeat", "backend_operation_request"})


def is_act(data: bytes) -> bool:
    """True for a message by which a person did something; false for a page that renews itself."""
    message = BackMsg()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return False
    return message.WhichOneof("type") == "rerun_script" and not message.rerun_script.is_auto_rerun


def is_ours(data: bytes) -> bool:
    """True for what a page of ours may ask for, and for noise, which Streamlit answers by closing."""
    message = BackMsg()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return True
    return message.WhichOneof("type") in ASKED_FOR


class WatchedSocket:
    """Serves one websocket until `still()` says no, or nobody reads; calls `acted()` when the person acts.

    The first message of a socket opens the page and is no act: a browser that reconnects by itself must
    not keep anybody signed in.
    """

    def __init__(
        self,
        still: Callable[[], bool],
        acted: Callable[[], None],
        look_s: float = LOOK_S,
        deaf_s: float = DEAF_S,
    ) -> None:
        self.still, self.acted, self.look_s, self.deaf_s = still, acted, look_s, deaf_s
        self._sending_since: float | None = None
        self._over = asyncio.Event()
        self._messages = 0

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """`app` with a socket that ends by itself."""

        async def mine() -> Message:
            message = await self._next(receive)
            while message["type"] == "websocket.receive" and not is_ours(message.get("bytes") or b"\0"):
                message = await self._next(receive)
            if message["type"] == "websocket.receive" and message.get("bytes"):
                self._messages += 1
                if self._messages > 1 and is_act(message["bytes"]):
                    self.acted()
            return message

        async def out(message: Message) -> None:
            if self._over.is_set():
                return
            self._sending_since = time.monotonic()
            try:
                await send(message)
            finally:
                self._sending_since = None

        watch = asyncio.create_task(self._watch(send))
        try:
            await app(scope, mine, out)
        finally:
            watch.cancel()

    async def _watch(self, send: Send) -> None:
        try:
            while self.still() and not self._deaf():
                await asyncio.sleep(self.look_s)
        except Exception:  # who cannot be asked about is nobody: a page without a watch would stay for ever
            log.exception("who looks could not be asked; the page is closed")
        self._over.set()
        await send({"type": "websocket.close", "code": ENDED})

    def _deaf(self) -> bool:
        since = self._sending_since
        return since is not None and time.monotonic() - since > self.deaf_s

    async def _next(self, receive: Receive) -> Message:
        """The next message; a disconnect as soon as it is over."""
        if self._over.is_set():
            return {"type": "websocket.disconnect", "code": ENDED}
        message, over = asyncio.ensure_future(receive()), asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({message, over}, return_when=asyncio.FIRST_COMPLETED)
            if self._over.is_set():
                return {"type": "websocket.disconnect", "code": ENDED}
            return message.result()
        finally:
            over.cancel()
            if not message.done():
                message.cancel()
