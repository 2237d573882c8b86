"""What the flows share: a quick living root, a reader of the dashboard, and what the files say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from selftune.config import edit
from selftune.demo import demo_root, run_demo
from selftune.plants import quickened, seed_plant
from tests.browser.conftest import serve
from tests.conftest import CHECKOUT, SHIPPED
from tests.life import lay_out

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

T = TypeVar("T")
WITHIN_S = 60.0  # a deadline for a busy machine, not a promise
HISTORY = "controls/rules_history.jsonl"
DECISIONS = "logs/tuning_decisions.jsonl"
APPROVALS = "controls/approvals.jsonl"
SETTINGS = "configs/self_tuning.yaml"
HEARTBEAT = "logs/loop_status.json"

# A root that lives six times as fast as the shipped one: a verdict comes 15 s after a change.
QUICK: dict[str | tuple[str, ...], float | bool | int | str | None] = {
    "observe_window_s": 15, "settle_s": 3, "history_s": 90, "cooldown_s": 15, "min_samples": 90,
    "metrics.rate_hz": 10,
}  # fmt: skip
PAST_S = 120.0  # of metrics before anything starts: more than `history_s`
# Streamlit looks for its server below the page's own path first and is told "not here" by a 404.
LOOKING_AROUND = re.compile(r"/[a-z]+/_stcore/(health|host-config)$")


# ----------------------------------------------------------------------------- what runs
@contextmanager
def living(folder: Path) -> Iterator[Path]:
    """A quick root of the demo whose plant writes as long as the block lasts; no rule was ever moved."""
    home = lay_out(demo_root(folder), edit(SHIPPED.read_text(encoding="utf-8"), QUICK))
    (home / HISTORY).touch()  # otherwise the demo invents a past
    spec = replace(quickened(seed_plant(), 6), rate_hz=10.0)
    run_demo(folder, fast=True, seconds=PAST_S, spec=spec)
    stop = threading.Event()
    plant = threading.Thread(target=run_demo, args=(folder,), kwargs={"spec": spec, "stop": stop})
    plant.start()
    try:
        yield home
    finally:
        stop.set()
        plant.join(WITHIN_S)


@contextmanager
def served(root: Path, log: Path, role: str = "operator") -> Iterator[str]:
    """The address of a dashboard on `root` for this role."""
    process, url = serve(root, log, role)
    try:
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def looping(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real loop on `root`, after its first heartbeat; dead at the end, however it ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "selftune", "--root", str(root), "loop"],
        cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: beat(root).get("pid") == process.pid, "the loop beats")
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=20)


# ----------------------------------------------------------------------------- what the files say
def lines(root: Path, name: str) -> list[dict[str, Any]]:
    """The whole records of one ledger."""
    path = root / name
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def beat(root: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((root / HEARTBEAT).read_bytes()))
    except FileNotFoundError:
        return {}


def until(what: Callable[[], T], why: str) -> T:
    """What `what` gives as soon as it is true."""
    deadline = time.monotonic() + WITHIN_S
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {why}"
        time.sleep(0.05)
    return found


# ----------------------------------------------------------------------------- who has an account
PASSWORD = "맑은 아침 산책 7"


def users(root: Path, *words: str, typed: str = "") -> None:
    """`selftune users …` as a person types it."""
    subprocess.run(
        [sys.executable, "-m", "selftune", "--root", str(root), "users", *words],
        cwd=CHECKOUT, input=typed.encode(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def account(root: Path, name: str, role: str) -> None:
    """An account with the password of these tests."""
    users(root, "add", name, "--role", role, "--password-stdin", typed=f"{PASSWORD}\n")


def enter(page: Page, name: str, password: str = PASSWORD) -> None:
    """Fills in the sign-in form that is open, and sends it."""
    page.locator("#name").fill(name)
    page.locator("#password").fill(password)
    page.get_by_role("button").click()


# ----------------------------------------------------------------------------- who reads
@dataclass
class Reader:
    """One person with one tab. `noise`: errors, and requests that leave the own origin."""

    page: Page
    url: str
    noise: list[str] = field(default_factory=list)

    def open(self, path: str) -> Locator:
        """The page's title, once it is there."""
        self.page.goto(self.url + path)
        self.title.wait_for()
        return self.title

    def sign_in(self, name: str, password: str = PASSWORD) -> None:
        """Signs in through the form and lands on the first page, named in the sidebar."""
        self.page.goto(f"{self.url}/sign-in")
        enter(self.page, name, password)
        self.key("whoami").get_by_text(name, exact=True).wait_for()

    def key(self, key: str) -> Locator:
        """What Streamlit drew under this key: one thing, though a moment may show it in its old place too."""
        return self.page.locator(f".st-key-{re.sub(r'[^A-Za-z0-9_-]', '-', key)}").first

    @property
    def title(self) -> Locator:
        """The page's heading; for a moment the one before it may stand behind it."""
        return self.page.locator("h1").first

    def keys(self, start: str) -> Locator:
        """Everything whose key begins so."""
        return self.page.locator(f"[class*='st-key-{start}']")

    def press(self, key: str) -> None:
        """The button under this key, once it is there and open."""
        self.key(key).get_by_role("button").click()

    def because(self, form: str, reason: str) -> None:
        """The mandatory reason, and the button under it."""
        self.key(f"{form}_why").locator("textarea").fill(reason)
        self.press(f"{form}_send")


@contextmanager
def reader(browser: Browser, url: str, **more: Any) -> Iterator[Reader]:
    """A new person at the dashboard; whatever was noisy meanwhile fails the test. `more`: of the context."""
    context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1400, "height": 900}, **more})
    context.set_default_timeout(WITHIN_S * 1000)
    found = Reader(page=context.new_page(), url=url)
    _listen(found)
    try:
        yield found
    finally:
        context.close()
    assert found.noise == [], "\n".join(found.noise)


def _listen(r: Reader) -> None:
    ours = (r.url, r.url.replace("http", "ws", 1), "data:", "blob:")
    r.page.on("pageerror", lambda error: r.noise.append(str(error)))
    for kind in ("request", "websocket"):
        r.page.on(kind, lambda x: None if x.url.startswith(ours) else r.noise.append(x.url))

    def console(message: Any) -> None:
        where = str(message.location.get("url", ""))
        if message.type == "error" and not LOOKING_AROUND.search(where):
            r.noise.append(f"{message.text} {where}")

    r.page.on("console", console)
