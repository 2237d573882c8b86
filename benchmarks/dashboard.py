"""What the dashboard costs: server time a tick, first paint, page weight, and many sessions at once.

Real server processes on loopback, real websocket clients (each opens the page as a browser does, and lets
each live part renew at the pace the server told it; some never read what they are sent), a real Chromium
for the first paint. Beside it, where it is installed, the dashboard of optuna for first paint and weight,
measured in turns with ours. `--quick`: fewer sessions, shorter. `--sessions 1 20`: only those readers.
Prints a table, then one JSON object.

Three sides of a tick. `sessions_<n>`: what a client waits for, from its question to the end of the run, and
`server_ms_a_tick`, what the server process spent (user and system time of all it did, over the ticks of that
time; the client is a process of its own and not in it). `in_process`: our own work alone, without Streamlit.
The server slows its readers down when it is busy (pace.py): `paces_s` says to what.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from tests.browser.conftest import CHROMIUM_ARGS, SEOUL, data_root, free_port, serve  # noqa: E402
from tests.pages.roots import write_event  # noqa: E402

SESSIONS = (1, 20, 50, 100)
QUICK_SESSIONS = (1, 5)
DEAF = 5  # one in so many more opens the page and never reads an answer
RAMP_S = 0.25  # readers come so far apart: people do not open a page in the same instant
TRIALS = 1000  # of the study that optuna's dashboard shows
TARGETS: tuple[tuple[str, str, float], ...] = (
    ("tick_whole_p50_ms", "live tick, one session, question to answer (ms)", 30),
    ("tick_server_ms", "live tick, one session, server process (ms)", 30),
    ("start_to_health_s", "server start to health (s)", 2),
    ("p95_20_ms", "tick p95 with 20 sessions (ms)", 1000),
    ("p95_100_ms", "tick p95 with 100 sessions (ms)", 3000),
    ("mb_a_session", "memory a session (MB)", 0.3),
    ("cold_ratio", "first paint cold, times optuna-dashboard's", 1.0),
    ("warm_ratio", "first paint warm, times optuna-dashboard's", 1.3),
)


def percentile(values: list[float], share: float) -> float | None:
    """The value below which `share` of them lie."""
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 1) if values else None


# ------------------------------------------------------------------------------- ticks in process
def tick_ms(root: Path, n: int) -> dict[str, Any]:
    """Server time of our own work in a tick, without the network and without Streamlit. Units: ms."""
    os.environ["SELFTUNE_ROOT"] = str(root)
    return parts_ms(root, n)


def parts_ms(root: Path, n: int) -> dict[str, Any]:
    """The work inside a tick: the shared look at the files and its plan, the panels' data as they go out."""
    from selftune import catalogue, ui
    from selftune.chart_kit import Look, Say
    from selftune.charts import Span, linked_panels
    from selftune.desk import Desk
    from selftune.past import past
    from selftune.trends import events_in, marks

    desk, say = Desk(root), Say("ko", catalogue.load())
    look_ms, panel_ms = [], []
    for _ in range(n):
        desk.office._shared = None  # each look is a fresh one
        start = time.perf_counter()
        now = desk.now()
        assert now.plan is not None
        look_ms.append(1000 * (time.perf_counter() - start))
        p = now.picture
        assert p is not None and now.series.newest_ms is not None
        desk._kept.clear()
        start = time.perf_counter()
        end = now.series.newest_ms + 1
        found = past(desk, now, p.settings.metrics, end - 3_600_000, end, 300)
        view = linked_panels(
            found.buckets, p.settings.targets, marks(events_in(p, end - 3_600_000, end, None)),
            Span(start_ms=end - 3_600_000, end_ms=end), look=Look(), say=say,
        )  # fmt: skip
        for columns in view.datasets.values():
            ui.wire(columns)
        panel_ms.append(1000 * (time.perf_counter() - start))
    return {
        "tick_look_p50_ms": round(statistics.median(look_ms), 1),
        "tick_panels_p50_ms": round(statistics.median(panel_ms), 1),
    }


# ------------------------------------------------------------------------------- sessions
@dataclass
class Crowd:
    """What the readers of one run saw. `ticks` and `opened`: ms; `paces`: seconds, as the server last told.

    `server_s`: what the server process spent over the time of the ticks, in seconds of a core.
    """

    ticks: list[float] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    paces: dict[tuple[int, str], float] = field(default_factory=dict)
    lost: int = 0
    server_s: float | None = None


async def one_session(
    url: str, until: asyncio.Event, crowd: Crowd, me: int, late: float, *, page: str
) -> None:
    """One reader: opens the page over a websocket and lets its live parts renew until told to leave.

    A tick is the time from asking the server to run a live part to the end of that run. A pace that the
    server changes meanwhile is taken up, as a browser takes it up.
    """
    import websockets

    await asyncio.sleep(late)
    try:
        async with websockets.connect(
            url.replace("http", "ws", 1) + "/_stcore/stream", origin=websockets.Origin(url), max_size=None,
            subprotocols=[websockets.Subprotocol("streamlit")],
        ) as ws:  # fmt: skip
            start = time.perf_counter()
            await ws.send(rerun(page=page))
            parts = {m.fragment_id: m.interval for m in await answers(ws)}
            crowd.opened.append(1000 * (time.perf_counter() - start))
            crowd.paces |= {(me, part): every for part, every in parts.items()}
            due = {part: time.monotonic() + every for part, every in parts.items()}
            while due and not until.is_set():
                part = min(due, key=lambda x: due[x])
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(until.wait(), max(0.001, due[part] - time.monotonic()))
                if until.is_set():
                    break
                start = time.perf_counter()
                await ws.send(rerun(part=part, page=page))
                for told in await answers(ws):
                    parts[told.fragment_id] = crowd.paces[me, told.fragment_id] = told.interval
                crowd.ticks.append(1000 * (time.perf_counter() - start))
                due[part] = max(due[part] + parts[part], time.monotonic())
    except (OSError, TimeoutError, websockets.WebSocketException):
        crowd.lost += 1


async def deaf_session(url: str, until: asyncio.Event, late: float) -> None:
    """A reader that opens the page, goes on asking, and never reads: what it is sent piles up somewhere."""
    await asyncio.sleep(late)
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /_stcore/stream HTTP/1.1\r\nHost: {address.netloc}\r\nOrigin: {url}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: streamlit\r\n\r\n".encode()
    )
    try:
        while not until.is_set():
            writer.write(masked(rerun(page="")))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), 5)
    except OSError:
        pass  # the server may well throw such a reader out
    finally:
        writer.transport.abort()


def masked(payload: bytes) -> bytes:
    """One binary websocket frame from a client (mask of zeros). Source: RFC 6455, 5.2."""
    assert len(payload) < 65536
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x82" + size + bytes(4) + payload


def rerun(*, page: str, part: str = "") -> bytes:
    """The question that a browser asks: run this page, or only this live part of it."""
    from streamlit.proto.BackMsg_pb2 import BackMsg

    ask = BackMsg()
    ask.rerun_script.page_name = page
    ask.rerun_script.query_string = ""
    if part:
        ask.rerun_script.fragment_id = part
        ask.rerun_script.is_auto_rerun = True
    return bytes(ask.SerializeToString())


async def answers(ws: Any) -> list[Any]:
    """Reads to the end of a run; gives the live parts that it names."""
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    found = []
    while True:
        message = ForwardMsg()
        message.ParseFromString(await asyncio.wait_for(ws.recv(), 60))
        kind = message.WhichOneof("type")
        if kind == "auto_rerun":
            found.append(message.auto_rerun)
        if kind == "script_finished":
            return found


def rss_mb(pid: int) -> float | None:
    """Resident memory of a process, where the system tells it. Units: MB."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    line = next(x for x in text.splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def spent_s(pid: int) -> float | None:
    """User and system time of a process so far, where the system tells it. Units: seconds of a core."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    user, system = text.rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def crowd(url: str, n: int, seconds: float, *, pid: int, page: str = "", deaf: int = 0) -> Crowd:
    """`n` readers who come one after another, and `deaf` who never read; they all stay for `seconds`."""
    seen, until = Crowd(), asyncio.Event()
    readers = [one_session(url, until, seen, i, RAMP_S * i, page=page) for i in range(n)]
    others = [deaf_session(url, until, RAMP_S * i) for i in range(deaf)]
    tasks = [asyncio.create_task(x) for x in (*readers, *others)]
    await asyncio.sleep(RAMP_S * n)
    seen.ticks.clear()  # what was measured while the last were still opening the page is no tick alone
    before = spent_s(pid)
    await asyncio.sleep(seconds)
    after = spent_s(pid)
    seen.server_s = None if before is None or after is None else after - before
    until.set()
    await asyncio.wait(tasks, timeout=90)
    return seen


def ticks_of(seen: Crowd, seconds: float) -> dict[str, Any]:
    """What the readers of one run waited for, and what it cost the server."""
    spent, n = seen.server_s, len(seen.ticks)
    return {
        "ticks": n, "p50_ms": percentile(seen.ticks, 0.5), "p95_ms": percentile(seen.ticks, 0.95),
        "server_ms_a_tick": round(1000 * spent / n, 1) if spent is not None and n else None,
        "server_cores": round(spent / seconds, 2) if spent is not None else None,
        "paces_s": [round(f(seen.paces.values()), 1) for f in (min, max)] if seen.paces else None,
        "lost": seen.lost,
    }  # fmt: skip


def sessions(root: Path, log: Path, n: int, seconds: float) -> dict[str, Any]:
    """A server of its own, so that what the readers before left behind is not counted here."""
    process, url = serve(root, log)
    pid = process.pid
    try:
        asyncio.run(crowd(url, 1, 3, pid=pid))  # imports, caches, the first reading of the files
        before = rss_mb(pid)
        seen = asyncio.run(crowd(url, n, seconds, pid=pid))
        now = rss_mb(pid)
        found = {
            **ticks_of(seen, seconds),
            "opened_p50_ms": percentile(seen.opened, 0.5), "opened_p95_ms": percentile(seen.opened, 0.95),
            "rss_mb": round(now) if now else None,
            "mb_a_session": round((now - before) / n, 2) if now and before else None,
        }  # fmt: skip
        if n > 1:
            deaf = max(1, n // DEAF)
            beside = asyncio.run(crowd(url, n, seconds / 2, pid=pid, deaf=deaf))
            late = rss_mb(pid)
            found["beside_deaf"] = {
                "deaf": deaf,
                **ticks_of(beside, seconds / 2),
                "rss_mb": round(late) if late else None,
            }
        return found
    finally:
        process.terminate()
        process.wait(timeout=30)


# ------------------------------------------------------------------------------- first paint
def paint(url: str, ready: str, times: int) -> dict[str, Any]:
    """Milliseconds to the picture, cold (a new browser profile) and warm, and the bytes of a cold visit."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return {"skipped": "no Chromium on this machine"}
    cold, warm, weight = [], [], 0
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1400, "height": 900})
            page = context.new_page()
            sizes: list[int] = []
            page.on("requestfinished", lambda r, s=sizes: s.append(r.sizes()["responseBodySize"]))
            for took in (cold, warm):
                start = time.perf_counter()
                page.goto(url)
                page.wait_for_selector(ready, timeout=60_000)
                took.append(1000 * (time.perf_counter() - start))
                weight = weight or sum(sizes)
            context.close()
        browser.close()
    return {
        "cold_ms": round(statistics.median(cold)), "warm_ms": round(statistics.median(warm)),
        "cold_kb": round(weight / 1000),
    }  # fmt: skip


def optuna(folder: Path, times: int) -> dict[str, Any]:
    """The same first paint of optuna-dashboard on a study of its own; a reason where it is missing."""
    tool = shutil.which(
        "optuna-dashboard", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    )
    if tool is None:
        return {"skipped": "optuna-dashboard is not installed (pip install optuna optuna-dashboard)"}
    make = (
        "import optuna,sys; optuna.logging.disable_default_handler();"
        "s=optuna.create_study(storage=sys.argv[1],study_name='s');"
        "s.optimize(lambda t:(t.suggest_float('x',-1,1)-.3)**2,n_trials=int(sys.argv[2]))"
    )
    store = f"sqlite:///{folder}/study.db"
    subprocess.run([sys.executable, "-c", make, store, str(TRIALS)], check=True)
    port = free_port()
    process = subprocess.Popen(
        [tool, store, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        return paint(f"{url}/dashboard/studies/1", ".js-plotly-plot", times)
    finally:
        process.terminate()
        process.wait(timeout=10)


def figures(out: dict[str, Any]) -> dict[str, float | None]:
    """The figures that have a target, from all that was measured; None = not measured."""
    ours, theirs = out.get("overview", {}), out.get("optuna_dashboard", {})
    many = [out[k] for k in out if k.startswith("sessions_")]
    per = [x["mb_a_session"] for x in many if x["mb_a_session"] is not None]

    def ratio(what: str) -> float | None:
        return round(ours[what] / theirs[what], 2) if what in ours and what in theirs else None

    return {
        "tick_whole_p50_ms": out.get("sessions_1", {}).get("p50_ms"),
        "tick_server_ms": out.get("sessions_1", {}).get("server_ms_a_tick"),
        "start_to_health_s": out.get("start_to_health_s"),
        "p95_20_ms": out.get("sessions_20", {}).get("p95_ms"),
        "p95_100_ms": out.get("sessions_100", {}).get("p95_ms"),
        "mb_a_session": per[-1] if per else None,
        "cold_ratio": ratio("cold_ms"), "warm_ratio": ratio("warm_ms"),
    }  # fmt: skip


def table(found: dict[str, float | None]) -> list[str]:
    """One line a target: what was measured, what it should be, and whether it is."""
    lines = [f"{'':48} {'measured':>9} {'target':>7}"]
    for key, name, limit in TARGETS:
        value = found[key]
        said = "not measured" if value is None else "ok" if value <= limit else "MISSED"
        lines.append(f"{name:48} {'–' if value is None else f'{value:g}':>9} {limit:>7g}  {said}")
    return lines


def pages(root: Path, folder: Path, out: dict[str, Any], *, times: int) -> None:
    """Into `out`: the server's start, the first paint of two pages, and that of optuna's dashboard."""
    start = time.perf_counter()
    process, url = serve(root, folder / "server.log")
    out["start_to_health_s"] = round(time.perf_counter() - start, 2)
    try:
        out["overview"] = paint(url, "[data-testid=stVegaLiteChart] svg", times)
        out["trends"] = paint(f"{url}/trends", ".st-key-trends_panels_box svg", times)
    finally:
        process.terminate()
        process.wait(timeout=20)
    out["optuna_dashboard"] = optuna(folder, times)


def main() -> int:
    """Prints the figures beside their targets, then all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sessions, shorter")
    parser.add_argument("--sessions", type=int, nargs="+", metavar="N", help="only so many readers at once")
    given = parser.parse_args()
    quick, many = given.quick, given.sessions or (QUICK_SESSIONS if given.quick else SESSIONS)
    out: dict[str, Any] = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = data_root(folder / "root", 60)
        write_event(root, "risk_max", 0.35, 0.33, minutes_ago=40, actor="bench")
        write_event(root, "creative_min", 0.22, 0.24, minutes_ago=20, actor="bench")
        if not given.sessions:
            pages(root, folder, out, times=1 if quick else 5)
        with Pulse(root):
            for n in many:
                out[f"sessions_{n}"] = sessions(root, folder / f"{n}.log", n, 10 if quick else 40)
        out["in_process"] = tick_ms(root, 10 if quick else 30)
    for line in table(figures(out)):
        print(line)
    print(json.dumps(out, indent=1))
    return 0


class Pulse:
    """Five rows a second into the metrics file: what is looked at stays fresh, and each look finds news."""

    def __init__(self, root: Path) -> None:
        self.file = root / "logs" / "metrics.csv"
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _beat(self) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            while not self.over.wait(0.2):
                out.write(f"{datetime.now(SEOUL).isoformat()},0.070,0.260,0.240,0.320\n")
                out.flush()


if __name__ == "__main__":
    sys.exit(main())
