"""What the dashboard costs: server time a tick, first paint, page weight, and many sessions at once.

Real server processes on loopback, real websocket clients (each opens the page as a browser does and
lets its live parts renew), a real Chromium for the first paint. Beside it, where it is installed, the
dashboard of optuna for first paint and weight. `--quick`: fewer sessions, shorter. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from tests.browser.conftest import CHROMIUM_ARGS, data_root, free_port, serve  # noqa: E402
from tests.pages.roots import write_event  # noqa: E402

SESSIONS = (1, 20, 50, 100)
QUICK_SESSIONS = (1, 20)


def percentile(values: list[float], share: float) -> float | None:
    """The value below which `share` of them lie."""
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 1) if values else None


# ------------------------------------------------------------------------------- ticks in process
def tick_ms(root: Path, n: int) -> dict[str, Any]:
    """Server time of one renewal of each live part, without the network. Units: ms."""
    from streamlit.testing.v1 import AppTest

    from selftune import ui
    from selftune.domain import Role
    from selftune.view import Visitor

    os.environ["SELFTUNE_ROOT"] = str(root)
    ui.current_identity = lambda: Visitor(name="bench", role=Role.OPERATOR)
    found: dict[str, Any] = {}
    for page in ("overview", "trends"):
        at = AppTest.from_file(HERE / "selftune" / "frame.py", default_timeout=60).run()
        if page != "overview":
            at = at.switch_page(f"../pages/{page}.py").run()
        took = []
        for _ in range(n):
            start = time.perf_counter()
            at.run()
            took.append(1000 * (time.perf_counter() - start))
        found[f"whole_{page}_ms"] = round(statistics.median(took), 1)
    found |= parts_ms(root, n)
    return found


def parts_ms(root: Path, n: int) -> dict[str, Any]:
    """The work inside a tick: the shared look at the files, the panels' data, the arrow tables."""
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
            ui.arrow(columns)
        panel_ms.append(1000 * (time.perf_counter() - start))
    return {
        "tick_look_p50_ms": round(statistics.median(look_ms), 1),
        "tick_panels_p50_ms": round(statistics.median(panel_ms), 1),
    }


# ------------------------------------------------------------------------------- sessions
async def one_session(url: str, seconds: float, ticks: list[float], late: float) -> None:
    """One reader: opens the page over a websocket and lets its live parts renew for `seconds`.

    A tick is the time from asking the server to run a live part to the end of that run.
    """
    import websockets
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    await asyncio.sleep(late)
    ws_url = url.replace("http", "ws", 1) + "/_stcore/stream"
    async with websockets.connect(ws_url, origin=url, max_size=None, subprotocols=["streamlit"]) as ws:
        ask = BackMsg()
        ask.rerun_script.query_string = ""
        await ws.send(ask.SerializeToString())
        fragments: list[str] = []
        finished = False
        while not finished:
            message = ForwardMsg()
            message.ParseFromString(await asyncio.wait_for(ws.recv(), 120))
            if message.WhichOneof("type") == "auto_rerun":
                fragments.append(message.auto_rerun.fragment_id)
            finished = message.WhichOneof("type") == "script_finished"
        end = time.monotonic() + seconds
        while time.monotonic() < end and fragments:
            for fragment in fragments:
                start = time.perf_counter()
                ask = BackMsg()
                ask.rerun_script.fragment_id = fragment
                ask.rerun_script.is_auto_rerun = True
                await ws.send(ask.SerializeToString())
                while True:
                    message = ForwardMsg()
                    message.ParseFromString(await asyncio.wait_for(ws.recv(), 120))
                    if message.WhichOneof("type") == "script_finished":
                        break
                ticks.append(1000 * (time.perf_counter() - start))
            await asyncio.sleep(5)


def rss_mb(pid: int) -> float | None:
    """Resident memory of a process, where the system tells it. Units: MB."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    line = next(x for x in text.splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def crowd(url: str, n: int, seconds: float) -> list[float]:
    """`n` readers who come one after another within five seconds."""
    ticks: list[float] = []
    await asyncio.gather(*(one_session(url, seconds, ticks, 5 * i / n) for i in range(n)))
    return ticks


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
        "s.optimize(lambda t:(t.suggest_float('x',-1,1)-.3)**2,n_trials=100)"
    )
    store = f"sqlite:///{folder}/study.db"
    subprocess.run([sys.executable, "-c", make, store], check=True)
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


def main() -> int:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sessions, shorter")
    quick = parser.parse_args().quick
    out: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = data_root(folder / "root", 60)
        write_event(root, "risk_max", 0.35, 0.33, minutes_ago=40, actor="bench")
        write_event(root, "creative_min", 0.22, 0.24, minutes_ago=20, actor="bench")
        start = time.perf_counter()
        process, url = serve(root, folder / "server.log")
        out["start_to_health_s"] = round(time.perf_counter() - start, 2)
        try:
            out["overview"] = paint(url, "[data-testid=stVegaLiteChart] svg", 1 if quick else 3)
            out["trends"] = paint(f"{url}/trends", ".st-key-trends_panels_box svg", 1 if quick else 3)
            before = rss_mb(process.pid)
            for n in QUICK_SESSIONS if quick else SESSIONS:
                ticks = asyncio.run(crowd(url, n, 12 if quick else 25))
                now = rss_mb(process.pid)
                out[f"sessions_{n}"] = {
                    "ticks": len(ticks), "p50_ms": percentile(ticks, 0.5), "p95_ms": percentile(ticks, 0.95),
                    "rss_mb": round(now) if now else None,
                    "mb_a_session": round((now - before) / n, 2) if now and before else None,
                }  # fmt: skip
        finally:
            process.terminate()
            process.wait(timeout=20)
        out["optuna_dashboard"] = optuna(folder, 1 if quick else 3)
        out["in_process"] = tick_ms(root, 10 if quick else 30)
    print(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
