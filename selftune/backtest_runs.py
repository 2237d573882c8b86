"""Backtests as jobs: start one, look at it, cancel it. Each is a process of its own with its files on disk.

Answers "which backtests are there, how far are they, what did they find?" for page, command line and review.
Closing the page, or a restart of the dashboard, loses nothing. Computes nothing (`backtest.py` does).

For whoever builds a page on it:

- `start(root, Request(...)) -> run id`. Settings are checked and kept with the request at once: an invalid
  draft raises SettingsError (its problems name line and mend), an unknown revision UnknownId, nonsense
  InputError. `backtest_request.of_json` turns JSON into a Request.
- `read(root, run_id) -> Run | None` (None: no such run; any text may be asked for). `Run.status.state` is
  queued | running | done | failed | cancelled | interrupted; `share` 0..1; `eta_s` None until known;
  `error` a Reason for the catalogue (failed only). `Run.result` (`backtest_result.Result`) only when done.
- `listing(root)`: all runs, newest first, with `result` None: `read` the one that is shown.
- `cancel(root, run_id)`: asks it to leave; the state follows within a second or two.
- Names: a candidate's `name` is shown as typed; `Outcome.role` says which baseline an outcome is.

Files: `logs/backtests/<run id>/{request,status,result}.json`, `lock` (held by the living worker: the kernel
gives it back when the process dies, so a run without holder that has no end is `interrupted`), `cancel`.
No text from outside becomes part of a path unless it is a ULID.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from selftune import files
from selftune.backtest_pool import WORKERS
from selftune.backtest_request import Candidate, Mode, Request, Source, is_id, of_json
from selftune.backtest_result import Outcome, Result
from selftune.book import SETTINGS
from selftune.config import parse
from selftune.domain import InputError, JsonDict, Problem, Reason, SettingsError, StorageError, UnknownId
from selftune.ledger import FileLedger, mint_ulid, wall_ms
from selftune.locks import holder_now
from selftune.records import number, render
from selftune.revising import revisions, text_of
from selftune.settings import Settings

BACKTESTS = "logs/backtests"
REQUEST, STATUS, RESULT, LOCK, CANCEL = "request.json", "status.json", "result.json", "lock", "cancel"
DATA = "data"  # the record, laid down for the workers; gone at the end
LIMIT = 16 << 20
SETTINGS_LIMIT = 256 * 1024
KEPT = 100  # finished runs; older ones are removed when a new one starts
QUEUED_S = 60.0  # a process that has not taken its lock by then never will
CHECKOUT = Path(__file__).resolve().parent.parent

_started: dict[str, subprocess.Popen[bytes]] = {}  # ours: so that an early death is seen, and no zombie left


class State(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


OVER = frozenset({State.DONE, State.FAILED, State.CANCELLED, State.INTERRUPTED})


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a run is. `share` of the work done, `eta_s` what is left of it (None: not known yet)."""

    state: State
    share: float = 0.0
    eta_s: float | None = None
    started_ms: int = 0
    ended_ms: int | None = None
    pid: int | None = None
    error: Reason | None = None
    cancelling: bool = False

    @property
    def over(self) -> bool:
        return self.state in OVER

    def as_json(self) -> JsonDict:
        return {
            "v": 1, "state": self.state.value, "share": round(self.share, 4), "eta_s": self.eta_s,
            "started_ms": self.started_ms, "ended_ms": self.ended_ms, "pid": self.pid,
            "error": None if self.error is None else self.error.as_json(),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """One backtest: what was asked, how far it is, what it found (None unless done, or not read)."""

    id: str
    request: Request
    status: Status
    result: Result | None = None


# ----------------------------------------------------------------------------- asking for one
def start(root: Path, request: Request) -> str:
    """The id of a new run, whose process is on its way.

    Raises: InputError, SettingsError, UnknownId (what is asked cannot be run), StorageError.
    """
    run_id = prepare(root, request)
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "DETACHED_PROCESS", 0)
    try:
        _started[run_id] = subprocess.Popen(
            [sys.executable, "-m", "selftune.backtest_job", str(root), run_id],
            env={**os.environ, **WORKERS, "PYTHONUTF8": "1"},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name != "nt",
            creationflags=flags,
        )
    except OSError as error:
        why = Reason("backtest.not_started", {"detail": error.strerror or str(error)})
        write_status(
            root, run_id, Status(state=State.FAILED, started_ms=wall_ms(), ended_ms=wall_ms(), error=why)
        )
    return run_id


def prepare(root: Path, request: Request) -> str:
    """The id of a new run that is on disk, settings included, and waits for a worker. Raises: as `start`."""
    whole = replace(of_json(request.as_json()), candidates=tuple(resolved(root, request.candidates)))
    run_id = mint_ulid(wall_ms())
    files.replace(_file(root, run_id, REQUEST), render(whole.as_json()), durable=False)
    write_status(root, run_id, Status(state=State.QUEUED, started_ms=wall_ms()))
    _forget_old(root)
    return run_id


def resolved(root: Path, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with the text of their settings, checked. Raises: SettingsError, UnknownId."""
    found = []
    for c in candidates:
        text = c.text if c.text is not None else _text_for(root, c)
        parse(text.encode("utf-8"), file=SETTINGS if c.source is Source.IN_FORCE else c.name)
        found.append(replace(c, text=text))
    return found


def _text_for(root: Path, c: Candidate) -> str:
    if c.source is Source.REVISION:
        raw = _saved(root, c.revision or "")
    else:
        raw = files.read_small(root / SETTINGS, SETTINGS_LIMIT)
    if raw is None and c.source is Source.REVISION:
        raise UnknownId("backtest.no_revision", id=c.revision)
    if raw is None:
        raise SettingsError(Problem(code="missing_file", file=SETTINGS))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(Problem(code="not_utf8", file=SETTINGS)) from error


def _saved(root: Path, revision: str) -> bytes | None:
    """The text of that revision: what the file was after the edit."""
    known = revisions(FileLedger(root, timezone="UTC").read())
    found = next((r for r in known if r.id == revision), None)
    return None if found is None else text_of(root, found.after)


# ----------------------------------------------------------------------------- looking
def read(root: Path, run_id: str) -> Run | None:
    """The run with its result; None when there is none of that id."""
    run = _look(root, run_id)
    if run is None or run.status.state is not State.DONE:
        return run
    data = _json(_file(root, run_id, RESULT))
    try:
        return replace(run, result=Result.of(data))
    except (ValueError, KeyError, TypeError, AttributeError):
        lost = replace(run.status, state=State.FAILED, error=Reason("backtest.result_unreadable"))
        return replace(run, status=lost)


def listing(root: Path) -> tuple[Run, ...]:
    """Every run, newest first, without results."""
    try:
        names = sorted(os.listdir(root / BACKTESTS), reverse=True)
    except OSError:
        return ()
    return tuple(run for name in names if (run := _look(root, name)) is not None)


def newest_of(root: Path, digest: str) -> Run | None:
    """The newest finished replay or simulation that tried the settings of this digest as they stand."""
    for run in listing(root):
        tried = run.status.state is State.DONE and run.request.mode is not Mode.PLANT
        if tried and any(_is_of(c, digest) for c in run.request.candidates):
            return read(root, run.id)
    return None


def of_settings(o: Outcome, settings: Settings) -> bool:
    """Whether this outcome is of those very settings, their own policy included."""
    return o.role == "candidate" and o.config == settings.digest and o.policy == settings.policy.value


@lru_cache(maxsize=4 * KEPT)
def _is_of(c: Candidate, digest: str) -> bool:
    try:
        settings = parse(c.text or "")
    except SettingsError:
        return False
    return settings.digest == digest and c.policy in (None, settings.policy)


def cancel(root: Path, run_id: str) -> bool:
    """Whether the run was asked to leave; False when it is over or unknown. Raises: StorageError."""
    run = _look(root, run_id)
    if run is None or run.status.over:
        return False
    files.replace(_file(root, run_id, CANCEL), b"", durable=False)
    return True


def _look(root: Path, run_id: str) -> Run | None:
    if not is_id(run_id):
        return None
    try:
        request = of_json(_json(_file(root, run_id, REQUEST)))
    except InputError:
        return None
    status = _status(_json(_file(root, run_id, STATUS)))
    return Run(id=run_id, request=request, status=_alive(root, run_id, status))


def _alive(root: Path, run_id: str, said: Status) -> Status:
    """What the worker said last, or that it is gone without having said an end."""
    child = _started.get(run_id)
    dead = child is not None and child.poll() is not None
    if said.over:
        if dead:
            _started.pop(run_id, None)
        return said
    asked = _file(root, run_id, CANCEL).exists()
    if holder_now(_file(root, run_id, LOCK)) is not None:
        return replace(said, cancelling=asked)
    again = _status(_json(_file(root, run_id, STATUS)))  # it may have ended between the two looks
    if again.over:
        return again
    late = wall_ms() - said.started_ms > QUEUED_S * 1000
    if said.state is State.QUEUED and not dead and not late:
        return replace(said, cancelling=asked)
    return replace(said, state=State.CANCELLED if asked else State.INTERRUPTED, eta_s=None)


def _status(data: Any) -> Status:
    """The status of its JSON; a file that is gone or torn says `queued` long ago, so: interrupted."""
    table = data if isinstance(data, dict) else {}
    why = table.get("error")
    try:
        state = State(str(table.get("state")))
    except ValueError:
        state = State.QUEUED
    return Status(
        state=state, share=min(1.0, max(0.0, number(table.get("share")) or 0.0)),
        eta_s=number(table.get("eta_s")), started_ms=int(number(table.get("started_ms")) or 0),
        ended_ms=None if (end := number(table.get("ended_ms"))) is None else int(end),
        pid=None if (pid := number(table.get("pid"))) is None else int(pid),
        error=Reason(str(why["code"]), dict(why.get("params") or {}))
        if isinstance(why, dict) and why.get("code") else None,
    )  # fmt: skip


# ----------------------------------------------------------------------------- for the worker
class Cancelled(Exception):
    """Somebody asked this run to leave."""


class Progress:
    """Says how far the run is, at most every `EVERY_S`; raises Cancelled when it shall leave."""

    EVERY_S = 0.5

    def __init__(self, root: Path, run_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._id, self._clock = root, run_id, clock
        self._began, self._said = clock(), -1e9
        self._started_ms = wall_ms()

    def __call__(self, share: float) -> None:
        """Nothing; `share` of the work is done. Raises: Cancelled."""
        now = self._clock()
        if now - self._said < self.EVERY_S:
            return
        self._said = now
        self.leave_if_asked()
        took = now - self._began
        eta = round(took * (1 - share) / share, 1) if share > 0.01 and took > 1.0 else None
        self.say(State.RUNNING, share=share, eta_s=eta)

    def leave_if_asked(self) -> None:
        """Raises: Cancelled."""
        if _file(self._root, self._id, CANCEL).exists():
            raise Cancelled

    def say(
        self, state: State, *, share: float, eta_s: float | None = None, error: Reason | None = None
    ) -> None:
        """Write the status."""
        over = state in OVER
        write_status(
            self._root, self._id,
            Status(state=state, share=share, eta_s=eta_s, started_ms=self._started_ms, pid=os.getpid(),
                   ended_ms=wall_ms() if over else None, error=error),
        )  # fmt: skip


def request_of(root: Path, run_id: str) -> Request:
    """What that run shall do. Raises: InputError."""
    return of_json(_json(_file(root, run_id, REQUEST)))


def lock_of(root: Path, run_id: str) -> Path:
    return _file(root, run_id, LOCK)


def write_status(root: Path, run_id: str, status: Status) -> None:
    files.replace(_file(root, run_id, STATUS), render(status.as_json()), durable=status.over)


def write_result(root: Path, run_id: str, result: Result) -> None:
    files.replace(_file(root, run_id, RESULT), render(result.as_json()), durable=True)


# ----------------------------------------------------------------------------- files
def _file(root: Path, run_id: str, name: str) -> Path:
    """A file of that run. Raises: ValueError for what is no run id: no path comes from anything else."""
    if not is_id(run_id):
        raise ValueError("not a run id")
    return root / BACKTESTS / run_id / name


def _json(path: Path) -> Any:
    raw = files.read_small(path, LIMIT)
    try:
        return None if raw is None else json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _forget_old(root: Path) -> None:
    """Remove the oldest finished runs beyond `KEPT`, and what a killed one had laid down for its workers."""
    over = [r.id for r in listing(root) if r.status.over]
    gone = [root / BACKTESTS / run_id for run_id in over[KEPT:]]
    left = [path for run_id in over[:KEPT] if (path := _file(root, run_id, DATA)).is_dir()]
    for folder in (*gone, *left):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # another start, or the run's own worker, was quicker
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror or error}") from error
