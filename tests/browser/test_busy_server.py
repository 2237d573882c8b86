"""A browser takes a new pace up while the page is open, and the page says that it renews more slowly."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
from playwright.sync_api import Browser, WebSocket, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.browser.conftest import data_root, serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WITHIN_MS = 90_000
LEARN = "import selftune.pace as pace; pace.BUSY = 1e-9; pace.WINDOW_S = 2.0"  # one reader is too many for it


def test_an_open_page_slows_down_says_so_and_goes_on_renewing(tmp_path: Path, browser: Browser) -> None:
    process, url = serve(data_root(tmp_path / "root", 2), tmp_path / "log", first=LEARN)
    told: dict[str, list[float]] = defaultdict(list)
    asked: dict[str, int] = defaultdict(int)  # by part: since it was last told a new pace

    def heard(frame: str | bytes) -> None:
        message = ForwardMsg()
        message.ParseFromString(frame if isinstance(frame, bytes) else frame.encode())
        if message.WhichOneof("type") == "auto_rerun":
            told[message.auto_rerun.fragment_id].append(message.auto_rerun.interval)
            asked[message.auto_rerun.fragment_id] = 0

    def said(frame: str | bytes) -> None:
        message = BackMsg()
        message.ParseFromString(frame if isinstance(frame, bytes) else frame.encode())
        if message.rerun_script.is_auto_rerun:
            asked[message.rerun_script.fragment_id] += 1

    def opened(socket: WebSocket) -> None:
        socket.on("framereceived", heard)
        socket.on("framesent", said)

    try:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.on("websocket", opened)
        page.goto(url)
        expect(page.get_by_text("Server busy · refreshed every")).to_be_visible(timeout=WITHIN_MS)
        for _ in range(WITHIN_MS // 500):
            slowed = [p for p, paces in told.items() if len(paces) > 1 and paces[-1] > paces[0]]
            if any(asked[part] >= 2 for part in slowed):
                break
            page.wait_for_timeout(500)
        assert any(asked[part] >= 2 for part in slowed), (told, asked)
        expect(page.get_by_text("Stop tuning")).to_be_visible()
        context.close()
    finally:
        process.terminate()
        process.wait(timeout=20)
