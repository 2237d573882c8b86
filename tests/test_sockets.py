"""An open page ends with its session: closed within a look, both ways; and what counts as an act."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg

from selftune import sockets, whoami
from selftune.sockets import ENDED, WatchedSocket, is_act
from tests.test_web import run

LOOK_S = 0.005


def message(*, auto: bool = False, kind: str = "rerun") -> bytes:
    """A message of the browser as Streamlit's own front end writes it."""
    sent = BackMsg()
    if kind == "rerun":
        sent.rerun_script.is_auto_rerun = auto
        sent.rerun_script.query_string = "w=6h"
    else:
        sent.app_heartbeat = True
    return bytes(sent.SerializeToString())


def test_a_look_a_second_and_a_question_every_three_keep_the_promise_of_five() -> None:
    """Promises S12: a disabled person's socket is closed, and then their page leaves, within 5 s."""
    asks = re.search(r"\},(\d+)\)\}\s*</script>", whoami._SCRIPT)
    assert asks and sockets.LOOK_S + int(asks[1]) / 1000 <= 5


def test_what_a_page_renews_by_itself_is_no_act() -> None:
    assert is_act(message())
    assert not is_act(message(auto=True))
    assert not is_act(message(kind="heartbeat"))
    assert not is_act(b"") and not is_act(b"\xff\xff\xff")


class Wire:
    """Both ends of a websocket."""

    def __init__(self) -> None:
        self.to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.to_browser: list[dict[str, Any]] = []
        self.app_saw: list[dict[str, Any]] = []
        self.acts = 0
        self.still = True

    async def receive(self) -> dict[str, Any]:
        return await self.to_app.get()

    async def send(self, message: Any) -> None:
        self.to_browser.append(dict(message))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            self.app_saw.append(got := await receive())
            if got["type"] == "websocket.disconnect":
                await send({"type": "websocket.send", "bytes": b"a late answer"})
                return
            await send({"type": "websocket.send", "bytes": b"answer"})

    def acted(self) -> None:
        self.acts += 1

    def browser_says(self, data: bytes) -> None:
        self.to_app.put_nowait({"type": "websocket.receive", "bytes": data})

    def watched(self) -> WatchedSocket:
        return WatchedSocket(lambda: self.still, self.acted, look_s=LOOK_S)


def test_the_first_message_opens_the_page_and_the_next_by_a_person_is_an_act() -> None:
    async def go() -> None:
        wire = Wire()
        for data in (message(), message(auto=True), message(), message(kind="heartbeat")):
            wire.browser_says(data)
        wire.to_app.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await wire.watched().serve(wire.app, {}, wire.receive, wire.send)
        assert wire.acts == 1 and len(wire.app_saw) == 5
        assert [m["type"] for m in wire.to_browser] == ["websocket.send"] * 5

    run(go())


def test_when_it_is_over_the_browser_and_the_page_both_learn_it_and_nothing_more_is_sent() -> None:
    async def go() -> None:
        wire = Wire()
        served = asyncio.create_task(wire.watched().serve(wire.app, {}, wire.receive, wire.send))
        wire.browser_says(message())
        while not wire.to_browser:
            await asyncio.sleep(0)
        wire.still = False
        await asyncio.wait_for(served, 5)
        assert wire.app_saw[-1] == {"type": "websocket.disconnect", "code": ENDED}
        assert wire.to_browser[-1] == {"type": "websocket.close", "code": ENDED}
        assert [m["type"] for m in wire.to_browser].count("websocket.send") == 1

    run(go())


def test_a_flood_of_messages_does_not_keep_it_open() -> None:
    async def go() -> None:
        wire = Wire()
        for _ in range(10):
            wire.browser_says(message())
        wire.still = False
        served = asyncio.create_task(wire.watched().serve(wire.app, {}, wire.receive, wire.send))
        while not served.done():
            wire.browser_says(message())
            await asyncio.sleep(0)
        assert wire.to_browser[-1]["type"] == "websocket.close"

    run(go())


def test_when_nobody_can_tell_whether_it_is_still_so_the_page_is_closed() -> None:
    async def go() -> None:
        wire = Wire()

        def unknown() -> bool:
            raise OSError("the disk is gone")

        served = WatchedSocket(unknown, wire.acted, look_s=LOOK_S).serve(
            wire.app, {}, wire.receive, wire.send
        )
        await asyncio.wait_for(served, 5)
        assert wire.to_browser == [{"type": "websocket.close", "code": ENDED}]

    run(go())


def test_a_browser_that_reads_nothing_is_let_go_and_one_that_reads_slowly_is_not() -> None:
    async def go(reads: bool, code: int) -> None:
        wire, seen = Wire(), []

        async def stuck(message: Any) -> None:
            if message["type"] == "websocket.send":
                await (asyncio.sleep(0.001) if reads else asyncio.Event().wait())
            wire.to_browser.append(dict(message))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            """Sends on a task of its own, as Streamlit does."""

            async def sender() -> None:
                for _ in range(100):
                    await send({"type": "websocket.send", "bytes": b"answer"})
                wire.to_app.put_nowait({"type": "websocket.disconnect", "code": 1001})

            sending = asyncio.create_task(sender())
            seen.append(await receive())
            sending.cancel()

        watched = WatchedSocket(lambda: True, wire.acted, look_s=LOOK_S, deaf_s=0.05 if not reads else 5.0)
        await asyncio.wait_for(watched.serve(app, {}, wire.receive, stuck), 5)
        assert [m["code"] for m in seen] == [code]

    run(go(reads=False, code=ENDED))
    run(go(reads=True, code=1001))
