"""A real server on loopback with a data root of its own, and a real Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHECKOUT, SHIPPED

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM_ARGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--no-first-run"]
SEOUL = timezone(timedelta(hours=9))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def data_root(root: Path, minutes: float = 12) -> Path:
    """A root with shipped settings and metrics up to this moment (plus a little ahead of a slow start)."""
    for folder in ("configs", "controls", "logs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SHIPPED, root / "configs" / "self_tuning.yaml")
    now = datetime.now(UTC)
    rows = ["ts,phase_diff,entropy_rate,creative_band,risk_band\n"]
    for k in range(round(minutes * 300), -1, -1):
        t = (now - timedelta(seconds=0.2 * k)).astimezone(SEOUL).isoformat()
        wave = (k % 97) / 2000
        rows.append(f"{t},{0.05 + wave:.3f},{0.25 + wave / 4:.3f},{0.23 + wave / 2:.3f},{0.30 + wave:.3f}\n")
    (root / "logs" / "metrics.csv").write_text("".join(rows), encoding="utf-8")
    return root


def serve(
    root: Path, log: Path, role: str = "operator", first: str = ""
) -> tuple[subprocess.Popen[bytes], str]:
    """(process, address) of `streamlit run app.py` for this role once it answers; `first`: run before it."""
    port = free_port()
    env = {**os.environ, "SELFTUNE_ROOT": str(root), "SELFTUNE_ROLE": role, "PYTHONUTF8": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                sys.executable, "-c", f"{first}\nfrom streamlit.web.cli import main\nmain()",
                "run", "app.py", "--server.port", str(port),
            ],
            cwd=CHECKOUT, env=env, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=1):
                return process, url
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError(log.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium on this machine: on Debian 'apt-get install chromium fonts-noto-cjk'")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium for all tests; each test opens contexts of its own."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    process, url = serve(data_root(folder / "root"), folder / "server.log")
    yield url
    process.terminate()
    process.wait(timeout=20)
