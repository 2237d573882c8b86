"""The simulated plant as a running system: writes metrics.csv, reads the rule history, nothing else.

Answers "what would I see with a system attached?". It lives in a data root of its own,
`ROOT/logs/demo/`, and never writes into one whose metrics.csv it did not make. It learns of a rule
change as any tuned system does: from the line in `controls/rules_history.jsonl`.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from operator import itemgetter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from filelock import FileLock, Timeout

from selftune.config import check
from selftune.domain import LockHeld, Reason, Refused, StorageError
from selftune.files import append, read_small, replace
from selftune.plants import PlantSpec, seed_plant, shifting
from selftune.simulate import Plant
from selftune.tuned import MetricsFile, RuleTail, iso, newest

SHIPPED_SETTINGS = Path(__file__).parent / "shipped" / "self_tuning.yaml"
MADE_BY = "selftune demo"
FAST_S = 3600.0  # plant time that --fast writes unless told
_CATCH_UP_S = 60.0  # a longer standstill leaves a gap, as it would in a real system
_SETTINGS_LIMIT = 256 * 1024
_WRITTEN = (
    "configs/self_tuning.yaml",
    "controls/rules_history.jsonl",
    "logs/metrics.csv",
    "logs/demo.json",
    "logs/demo.lock",
)
_JUMP_S = 2.0  # a wall clock this far from the steady one was set by somebody

# What `--fast` lets happen when there is no history yet: (share of the time, rule, new value). A step that
# helped, one that did not, and its undoing: off target at the end, so that there is something to suggest.
_STORY = (
    (0.25, "risk_max", 0.33),
    (0.50, "creative_min", 0.20),
    (0.70, "creative_min", 0.22),
)


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What one run of the demo wrote: rows (lost ones not counted), where, and up to which instant."""

    root: Path
    rows: int
    last_ms: int | None


def demo_root(root: Path) -> Path:
    """The demo's data root under `root`; `root` itself if it is one already."""
    return root if is_demo(root) else root / "logs" / "demo"


def is_demo(root: Path) -> bool:
    """True when the demo made this data root."""
    return _marker(root).get("made_by") == MADE_BY


def demo_plant() -> PlantSpec:
    """The plant that the demo runs: the seed's, whose optimum moves every three hours and comes back."""
    return shifting(seed_plant())


def run_demo(
    root: Path,
    *,
    seconds: float | None = None,
    seed: int = 0,
    fast: bool = False,
    spec: PlantSpec | None = None,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] | None = None,
    stop: threading.Event | None = None,
    say: Callable[[Reason], object] = lambda reason: None,
) -> DemoReport:
    """What was written, after `seconds` of plant time (None: until stopped; fast: an hour).

    Real time: one row each period, stamped by the wall clock, until `seconds`, `stop`, SIGINT or SIGTERM.
    `fast`: at once, ending now; where there is no rule history yet it begins with a few events.
    Raises: Refused for files that it did not make; LockHeld; StorageError.
    """
    home = demo_root(root)
    _refuse_what_is_not_ours(root, home)
    spec = spec or demo_plant()
    try:
        for folder in ("configs", "controls", "logs"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        with _lease(home), _stopped_by_signals(stop or threading.Event()) as halt:
            _copy_settings(home)
            run = _Run(home, spec, seed, _zone(home), say)
            if fast:
                return run.at_once(now_ms(), FAST_S if seconds is None else seconds)
            return run.in_real_time(seconds, now_ms, monotonic, sleep or halt.wait, halt)
    except OSError as error:
        raise StorageError(f"{home}: {error.strerror or error}") from error


class _Run:
    """One run in one demo root: a plant, the history it obeys, the file it writes."""

    def __init__(
        self, home: Path, spec: PlantSpec, seed: int, zone: tzinfo, say: Callable[[Reason], object]
    ) -> None:
        self.home, self.spec, self.seed, self.zone, self.say = home, spec, seed, zone, say
        self.history = RuleTail(home / "controls" / "rules_history.jsonl", spec.rules, zone)
        self.metrics = MetricsFile(home / "logs" / "metrics.csv", spec, zone)

    def at_once(self, now: int, seconds: float) -> DemoReport:
        """`seconds` of plant time that end now, or what is missing of them."""
        first = now - round(seconds * 1000)
        if (last := self.metrics.last_ms()) is not None:
            first = max(first, last + 1)
        elif not self.history.path.exists():
            append(self.history.path, self._story(first, now), root=self.home)
        past = sorted(self.history.read(), key=itemgetter(0))
        held = {rule: new for at, rule, new in past if at < first}
        plant = self._plant(first, held)
        todo = max(0, plant.index_of(now) - plant.state.index)
        changes = [change for change in past if change[0] >= first]
        while todo:
            n = min(todo, 50_000)
            self.metrics.append(plant.run(held, n, changes=changes))
            held |= {rule: new for at, rule, new in changes if at < plant.next_ms}
            todo -= n
        return self._done()

    def in_real_time(
        self,
        seconds: float | None,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        sleep: Callable[[float], object],
        halt: threading.Event,
    ) -> DemoReport:
        """A row each period by the steady clock, until `seconds` are over or `halt` is set."""
        begin = monotonic()
        wall = now_ms() - begin * 1000  # added to the steady clock it gives the wall clock
        held = newest(self.history.read())
        plant = self._plant(now_ms(), held)
        self.say(Reason("demo_started", {"file": str(self.metrics.path)}))
        while not halt.is_set() and (seconds is None or monotonic() - begin < seconds):
            jump = now_ms() - (wall + monotonic() * 1000)
            if abs(jump) > _JUMP_S * 1000:  # its stamps follow the wall clock, as a real system's do
                wall += jump
                plant.start_ms += round(jump)
            now = wall + monotonic() * 1000
            due = plant.index_of(math.floor(now) + 1) - plant.state.index
            if due <= 0:
                sleep((plant.next_ms - now) / 1000)
                continue
            if due > _CATCH_UP_S * self.spec.rate_hz:
                plant.skip_to(math.floor(now))
                due = 1
            held |= newest(self.history.read())
            self.metrics.append(plant.run(held, due))
        return self._done()

    def _plant(self, first: int, values: Mapping[str, float]) -> Plant:
        """The plant of this root at the instant `first`, in the life that its marker began."""
        marker = _marker(self.home)
        period = round(self.spec.period_ms)
        started = marker.get("started_ms")
        if not isinstance(started, int) or started > first:
            started = -(-first // period) * period
        _write_marker(
            self.home, {**marker, "v": 1, "made_by": MADE_BY, "seed": self.seed, "started_ms": started}
        )
        index = Plant(self.seed, self.spec, start_ms=started).index_of(first)
        return Plant(self.seed, self.spec, start_ms=started, values=values, index=index)

    def _story(self, first: int, now: int) -> list[bytes]:
        """The lines of a short history between two instants, in the family's own form."""
        held, lines = self.spec.init, list[bytes]()
        for share, rule, new in _STORY:
            if rule in held:
                ts = iso(first + round(share * (now - first)), self.zone)
                event = {"ts": ts, "actor": "demo", "rule": rule, "old": held[rule], "new": new}
                event["note"] = "데모가 적어 둔 예시 / example from the demo"
                lines.append((json.dumps(event, ensure_ascii=False) + "\n").encode())
                held[rule] = new
        return lines

    def _done(self) -> DemoReport:
        self.say(Reason("demo_done", {"file": str(self.metrics.path), "rows": self.metrics.rows}))
        return DemoReport(root=self.home, rows=self.metrics.rows, last_ms=self.metrics.last_ms())


# ----------------------------------------------------------------------------- whose folder it is
def _marker(home: Path) -> dict[str, Any]:
    """What the demo noted about a data root; {} where it made none."""
    try:
        found = json.loads((home / "logs" / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_marker(home: Path, marker: Mapping[str, Any]) -> None:
    replace(home / "logs" / "demo.json", (json.dumps(marker, indent=2) + "\n").encode(), durable=False)


def _refuse_what_is_not_ours(root: Path, home: Path) -> None:
    """Raises: Refused for a file that leads out of the root, or a metrics.csv that somebody else made."""
    for name in _WRITTEN:
        if not Path(os.path.realpath(home / name)).is_relative_to(os.path.realpath(root)):
            raise Refused(Reason("demo_link", {"file": str(home / name)}))
    metrics = home / "logs" / "metrics.csv"
    if metrics.exists() and not is_demo(home):
        raise Refused(Reason("demo_not_ours", {"file": str(metrics)}))


def _copy_settings(home: Path) -> None:
    """The shipped settings, unless the demo root has some."""
    path = home / "configs" / "self_tuning.yaml"
    if not path.exists():
        path.write_bytes(SHIPPED_SETTINGS.read_bytes())


def _zone(home: Path) -> tzinfo:
    """The zone of the demo's settings; the default one where they are not whole: a plant needs no others."""
    text = read_small(home / "configs" / "self_tuning.yaml", _SETTINGS_LIMIT) or b""
    settings, _ = check(text, "self_tuning.yaml")
    return ZoneInfo(settings.timezone if settings else "Asia/Seoul")


@contextmanager
def _lease(home: Path) -> Iterator[None]:
    """One plant a folder. Raises: LockHeld."""
    lock = FileLock(home / "logs" / "demo.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        holder = _marker(home).get("writer", {})
        raise LockHeld(
            "demo.lock", pid=holder.get("pid"), host=holder.get("host"), since=holder.get("since")
        ) from None
    try:
        now = datetime.now(ZoneInfo("UTC")).isoformat(timespec="seconds")
        writer = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        _write_marker(home, {**_marker(home), "v": 1, "made_by": MADE_BY, "writer": writer})
        yield
    finally:
        lock.release()


@contextmanager
def _stopped_by_signals(halt: threading.Event) -> Iterator[threading.Event]:
    """`halt`, set by SIGINT and SIGTERM meanwhile; signals reach only the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield halt
        return
    before = {s: signal.signal(s, lambda *_: halt.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield halt
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
