"""The unattended loop: wake, read, decide, commit, sleep until the next look is due.

One per data root (lease), a heartbeat each second, signals end it after the tick. What it does is
`cycle.decide`; this file only keeps it going, and holds still where something is wrong with us.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from selftune.acting import iso
from selftune.book import HEARTBEAT, Batch, DecisionDraft
from selftune.domain import JsonDict, LockHeld, Reason, SelftuneError, StaleSnapshot
from selftune.files import OS, Ops, clean_temps, replace
from selftune.locks import LoopLease
from selftune.plan import Plan
from selftune.runtime import Clock, Root, Stream
from selftune.sweep import sweep

PERIOD_S = 1.0  # of the heartbeat
SWEEP_S = 30.0  # evidence that a kill left unwritten is looked for this often
SWEEP_AGAIN_S = 5.0  # after a sweep that failed
FAULTS_HELD = 5  # this many faults in a row: state `faulted`, one try a minute
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
BACKOFF_OPEN_S = 4.0  # at most, while something is being watched: its harm does not wait for our faults
JITTER = 0.25  # so that many loops of one broken disk do not knock at once


@dataclass
class Pulse:
    """What the heartbeat says. `faults` counts those in a row, `fault` is the last one in words."""

    started: str
    cycle: int = 0
    state: str = "running"
    mode: str = "dry_run"
    config: str = ""
    head: JsonDict = field(default_factory=dict)
    next_due_ms: int = 0
    faults: int = 0
    fault: str | None = None


class Loop:
    """The loop of one root. `stop` ends it after the present tick."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock | None = None,
        stream: Stream | None = None,
        say: Callable[[str], None] | None = None,
        ops: Ops = OS,
    ) -> None:
        self.path, self.ops = path, ops
        self.lease = LoopLease(path)
        try:
            _clean(path)
            self.root = Root(path, clock=clock, stream=stream, ops=ops)
        except BaseException:
            self.lease.release()
            raise
        self.stopping = threading.Event()
        self.say = say or (lambda _: None)
        self.pulse = Pulse(started=iso(self.root.clock.wall(), self.root.zone))
        self._sweep_due_ms: int | None = None
        self._unswept: str | None = None  # why the last sweep failed
        self._watching = False  # the last good plan wanted the next look within a period

    # ------------------------------------------------------------------------ one tick
    def tick(self) -> Plan | None:
        """One cycle; None when it failed. A fault is recorded and backed off, never a crash."""
        self.pulse.cycle += 1
        try:
            self.root.lease_ok = self.lease.held
            plan, done = self.root.tick()
        except (StaleSnapshot, LockHeld) as e:  # somebody else is writing: the next tick reads again
            self.pulse.state, self.pulse.fault = "holding", str(e)
            self._due_in(PERIOD_S)
            return None
        except Exception as e:  # the loop's one catch: whatever it is, hold still and say so
            self._fault(e)
            return None
        self._well(plan)
        if done is not None:
            self._tell_ends(plan)
        self._evidence(force=done is not None)
        return plan

    def _evidence(self, *, force: bool) -> None:
        """What a broken evidence file may cost is evidence, never a look at what is open."""
        now = self.root.clock.steady()
        if not force and self._sweep_due_ms is not None and now < self._sweep_due_ms:
            return
        self._sweep_due_ms = now + round(SWEEP_S * 1000)
        try:
            sweep(self.root)
        except (StaleSnapshot, LockHeld):
            self._sweep_due_ms = now + round(SWEEP_AGAIN_S * 1000)
            return
        except Exception as e:
            self._sweep_due_ms = now + round(SWEEP_AGAIN_S * 1000)
            if self._unswept is None:
                self.say(_words(e))
            self._unswept = self.pulse.fault = _words(e)
            return
        self._unswept = self.pulse.fault = None

    def _tell_ends(self, plan: Plan) -> None:
        """A loan that has just ended is told where the loop runs, in words, beside record and pages."""
        for act in plan.acts:
            if act.kind == "mode" and act.act == "disarm":
                self.say(f"{self.root.told(Reason('mode.loan_ended'))} {self.root.told(act.reasons[0])}")

    def _well(self, plan: Plan) -> None:
        if self.pulse.faults:
            self.say(f"recovered after {self.pulse.faults} faults")
        self.pulse.faults, self.pulse.fault = 0, self._unswept
        self.pulse.state = "holding" if plan.holds else "running"
        self.pulse.mode = plan.effective.value
        self.pulse.config = plan.config_sha
        self.pulse.head = plan.approvals_head
        self._watching = plan.next_due_s <= PERIOD_S
        self._due_in(plan.next_due_s)

    def _fault(self, e: Exception) -> None:
        self.pulse.faults += 1
        self.pulse.fault = _words(e)
        self.pulse.state = "faulted" if self.pulse.faults >= FAULTS_HELD else "holding"
        wait = BACKOFF_S[min(self.pulse.faults, len(BACKOFF_S)) - 1]
        if self._watching:
            wait = min(wait, BACKOFF_OPEN_S)
        self._due_in(wait * (1 + random.uniform(-JITTER, JITTER)))
        self.say(self.pulse.fault)
        if self.pulse.faults == 1:
            self._record_fault()

    def _record_fault(self) -> None:
        """The first fault of a row goes on record if the disk lets it; the heartbeat says it anyway."""
        data: JsonDict = {
            "kind": "mode",
            "act": "fault",
            "reasons": [{"code": "loop.fault", "params": {"error": self.pulse.fault}}],
        }
        try:
            self.root.ledger.commit(Batch(decisions=(DecisionDraft(data=data),)), expect=None)
        except (SelftuneError, OSError):
            return  # the disk that failed the tick fails this as well; the heartbeat carries it

    def _due_in(self, seconds: float) -> None:
        self.pulse.next_due_ms = self.root.clock.steady() + round(seconds * 1000)

    # ------------------------------------------------------------------------ heartbeat
    def beat(self) -> None:
        """Replace the heartbeat. It proves life, not truth: no fsync, and a full disk does not end us."""
        zone, now = self.root.zone, self.root.clock.wall()
        due_in = self.pulse.next_due_ms - self.root.clock.steady()
        p = self.pulse
        data = {
            "v": 1,
            "ts": iso(now, zone),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": p.started,
            "period_s": PERIOD_S,
            "cycle": p.cycle,
            "mode": p.mode,
            "state": p.state,
            "config": p.config,
            "approvals_head": p.head,
            "next_due": iso(now + due_in, zone),
            "faults": p.faults,
            "fault": p.fault,
        }
        try:
            body = json.dumps(data, ensure_ascii=False).encode()
            replace(self.path / HEARTBEAT, body, durable=False, ops=self.ops)
        except (SelftuneError, OSError) as e:
            p.fault = str(e)

    # ------------------------------------------------------------------------ life
    def run(self) -> None:
        """Until `stopping`: a tick when due, a heartbeat each second."""
        try:
            while not self.stopping.is_set():
                if self.root.clock.steady() >= self.pulse.next_due_ms:
                    self.tick()
                self.beat()
                left_s = (self.pulse.next_due_ms - self.root.clock.steady()) / 1000
                self.stopping.wait(max(0.01, min(PERIOD_S, left_s)))
        finally:
            self.close()

    def once(self) -> Plan | None:
        """One tick, one heartbeat."""
        try:
            return self.tick()
        finally:
            self.close()

    def close(self) -> None:
        """Say that we stopped, and give the lease back."""
        self.pulse.state = "stopped"
        self.beat()
        self.lease.release()


def _words(e: Exception) -> str:
    return str(e) if isinstance(e, SelftuneError) else f"{type(e).__name__}: {e}"


def leave_on_signals(stopping: threading.Event) -> None:
    """Set `stopping` on Ctrl-C, on the usual signals to end, and when the terminal is closed.

    A hang-up that the caller chose to ignore (nohup) stays ignored.
    """

    def leave(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for name in ("SIGTERM", "SIGINT", "SIGBREAK", "SIGHUP"):
        found = getattr(signal, name, None)
        if found is not None and not (name == "SIGHUP" and signal.getsignal(found) is signal.SIG_IGN):
            signal.signal(found, leave)


def _clean(path: Path) -> None:
    """Remove what killed writers left. The heartbeat's temps are a dead loop's: we hold the lease."""
    for folder in ("configs", "controls", "logs"):
        clean_temps(path / folder)
    clean_temps(path / "logs", of=Path(HEARTBEAT).name, older_than_s=0)


def run_loop(path: Path, *, once: bool = False, say: Callable[[str], None] | None = None) -> int:
    """Run the loop until a signal ends it; 0, or 1 where the one tick of `once` failed.

    Raises: LockHeld when another loop lives, SettingsError without valid settings.
    """
    loop = Loop(path, say=say)
    if once:
        return 0 if loop.once() is not None else 1

    leave_on_signals(loop.stopping)
    loop.run()
    return 0
