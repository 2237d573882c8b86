"""Pictures of every page (language, theme, width), of the states of overview and backtest: `make shots`.

Serves data roots of its own on loopback, so that what is shown does not depend on this machine's: the
demo with its loop for the pages, and small roots for the states (empty, stale, broken settings, …).
`python -m tests.browser.shots overview trends` takes only these pages; `backtests` a backtest's states, and
`fault`, `try`, `reviews` the stories of shot_stories.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from selftune.demo import demo_root, run_demo
from tests.browser.conftest import CHROMIUM_ARGS, data_root, free_port, serve
from tests.browser.shot_stories import STORIES
from tests.browser.test_smoke import PATHS, PHONE, SIZES
from tests.conftest import CHECKOUT
from tests.pages.past_runs import every_state

BACKTEST_LOOKS = (
    ("ko", "light", "wide"),
    ("en", "dark", "wide"),
    ("ko", "dark", "phone"),
    ("en", "light", "phone"),
)
WARM_UP_S = 100.0  # the demo's first watched change by then has its verdict, or a suggestion stands
LONGEST_PX = 4000


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """The address of the demo with plant, loop and dashboard."""
    port = free_port()
    command = ["--root", str(folder), "up", "--demo", "--role", "operator", "--port", str(port)]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "selftune", *command], cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/healthz", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        time.sleep(WARM_UP_S)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def state(folder: Path, name: str) -> Iterator[str]:
    """The address of a small root in one state, without a loop."""
    root = data_root(folder / name, 14)
    metrics, settings = root / "logs" / "metrics.csv", root / "configs" / "self_tuning.yaml"
    if name == "empty":
        metrics.unlink()
    if name == "stale":
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        until = (datetime.now(UTC) - timedelta(minutes=4)).isoformat()
        keep = [
            x
            for x in lines[1:]
            if datetime.fromisoformat(x.split(",")[0]).astimezone(UTC).isoformat() < until
        ]
        metrics.write_text(lines[0] + "".join(keep), encoding="utf-8")
    if name == "settings":
        text = settings.read_text(encoding="utf-8").replace("targets:", "tragets:")
        settings.write_text(text, encoding="utf-8")
    if name == "chain":
        line = '{"v":1,"ts":"2026-01-01T00:00:00+09:00","kind":"stop","by":"x","prev":"' + "f" * 64 + '"}\n'
        (root / "controls" / "approvals.jsonl").write_text(line, encoding="utf-8")
    process, url = serve(root, folder / f"{name}.log")
    try:
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


BACKTESTS = ("done", "compare", "draft", "unsupported", "running", "failed", "interrupted")


def backtests(browser: Browser, folder: Path, out: Path, say: Callable[[str], None]) -> None:
    """A backtest in every state that a reader may meet: on a wide screen, and on a phone."""
    run_demo(folder, fast=True, seconds=2 * 3600, seed=3)
    runs = every_state(demo_root(folder))
    with runs.held:
        process, url = serve(runs.root, folder / "backtests.log")
        try:
            for name, (language, scheme, size) in product(BACKTESTS, BACKTEST_LOOKS):
                file = out / f"backtest_{name}_{language}_{scheme}_{size}.png"
                query = f"run={runs.ids.get(name, runs.ids['done'])}"
                if name == "compare":
                    query += f"&vs={runs.ids['draft']},{runs.ids['better']}"
                take(browser, f"{url}/backtest?{query}", file, language=language, scheme=scheme, size=size)
            say("backtests")
        finally:
            process.terminate()
            process.wait(timeout=20)


def take(
    browser: Browser,
    url: str,
    file: Path,
    *,
    language: str,
    scheme: str,
    size: str,
    before: Callable[[Page], None] | None = None,
) -> None:
    """One picture of one page, as long as the page is; `before` does what a person does there first."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        locale="ko-KR" if language == "ko" else "en-US",
        user_agent=PHONE if size == "phone" else None,
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("h1", timeout=60_000)
    if before is not None:
        before(page)
    page.wait_for_timeout(3000)
    for _ in range(2):  # charts that come into view make the page longer once more
        whole = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": width, "height": min(LONGEST_PX, max(height, whole))})
        page.wait_for_timeout(1000)
    page.screenshot(path=file)
    context.close()


def pages(browser: Browser, url: str, out: Path, wanted: list[str], say: Callable[[str], None]) -> None:
    """Every page in both languages, themes and widths."""
    for name in wanted:
        for language, scheme, size in product(("ko", "en"), ("light", "dark"), SIZES):
            file = out / f"{name}_{language}_{scheme}_{size}.png"
            take(browser, url + PATHS[name], file, language=language, scheme=scheme, size=size)
        say(name)


def main(arguments: list[str]) -> int:
    """0 when every picture was taken."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print(
            "no Chromium on this machine: on Debian 'apt-get install chromium fonts-noto-cjk'",
            file=sys.stderr,
        )
        return 1
    out = CHECKOUT / "shots"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        try:
            for what in ("empty", "stale", "settings", "chain") if not arguments else ():
                with state(folder, what) as url:
                    for language, size in (("ko", "wide"), ("en", "phone")):
                        file = out / f"state_{what}_{language}_{size}.png"
                        take(browser, url, file, language=language, scheme="light", size=size)
                print(what)
            if not arguments or "backtests" in arguments:
                backtests(browser, folder / "backtests", out, print)
            for story, made in STORIES.items():
                if not arguments or story in arguments:
                    made(browser, folder / story, out, take)
                    print(story)
            wanted = [x for x in arguments if x in PATHS] if arguments else list(PATHS)
            if wanted:
                with demo(folder) as url:
                    pages(browser, url, out, wanted, print)
        finally:
            browser.close()
    print(f"pictures in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
