"""The picture of a data root as plain JSON: for `status --json`, for the short screen, for the dashboard.

Answers "what is going on here?" from the files alone, whether or not a loop lives and whatever state the
files are in. Never writes, never raises for what a file may hold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from selftune import records
from selftune.acting import guard_json, iso
from selftune.book import APPROVALS, DECISIONS, EFFECTS, HEARTBEAT, HISTORY, QUOTES, RISKS, SETTINGS, Records
from selftune.demo import is_demo
from selftune.domain import Governance, GuardCheck, JsonDict, Mode, Problem, Reason, SettingsError
from selftune.files import read_small
from selftune.guards import check_rule, most_steps
from selftune.ledger import FileLedger, unreadable
from selftune.lifecycle import Change, Life
from selftune.mode import ModeState
from selftune.picture import Picture
from selftune.plan import Snapshot
from selftune.ranges import last_ts
from selftune.runtime import Clock, Root
from selftune.samples import UNUSABLE, SampleStream
from selftune.settings import METRICS_FILE, Settings

ALIVE_S, LATE_S = 2.0, 5.0  # contract.md: a heartbeat this young is alive, late; older is stopped
HEARTBEAT_BYTES = 64 * 1024
DEFAULT_ZONE = "Asia/Seoul"  # of stamps without offset while no settings say otherwise
LEDGERS = (HISTORY, EFFECTS, DECISIONS, APPROVALS, QUOTES, RISKS)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A data root as it is now. `snap` is None while no valid settings were ever seen (`problems` say why).

    `status` is the contract's object; the rest is for screens that say more than JSON promises.
    `blind`: files that are there and cannot be used, so that the picture lacks what they say.
    """

    status: JsonDict
    records: Records
    settings: Settings | None
    zone: tzinfo
    mode: Reason
    problems: tuple[Problem, ...] = ()
    blind: tuple[Problem | Reason, ...] = ()
    snap: Snapshot | None = None


def look(path: Path, *, clock: Clock | None = None, root: Root | None = None) -> Seen:
    """The root at `path` now. `root`: an opened one to look through (the dashboard keeps one)."""
    clock = clock or Clock.real()
    try:
        root = root or Root(path, clock=clock)
        return of_root(root)
    except SettingsError as error:
        return _without_settings(path, clock, error)


def of_root(root: Root) -> Seen:
    """The same of an opened root. Raises: SettingsError while its settings were never valid."""
    snap = root.snapshot()
    p = Picture(snap)
    error = root.settings_book.error if snap.settings_problem is not None else None
    return Seen(
        status=_status(root, p),
        records=snap.records,
        settings=snap.settings,
        zone=root.zone,
        mode=p.mode.reason,
        problems=tuple(error.problems) if isinstance(error, SettingsError) else (),
        blind=(*_blind_stream(root, snap.settings), *_blind_ledgers(snap.records)),
        snap=snap,
    )


def _blind_ledgers(found: Records) -> tuple[Problem, ...]:
    return tuple(unreadable(file, why) for file, why in sorted(found.problems.items()))


def _blind_stream(root: Root, s: Settings) -> tuple[Reason, ...]:
    """Why the metrics file cannot be read; () while it can, or is not there yet."""
    stream = root.stream
    if not isinstance(stream, SampleStream) or stream.state.status not in UNUSABLE:
        return ()
    state = stream.state
    params = {
        "file": s.metrics_source, "detail": state.detail, "metrics": list(s.metrics), "columns": state.columns
    }  # fmt: skip
    return (Reason(f"stream.{state.status.value}", params),)


# ----------------------------------------------------------------------------- with settings
def _status(root: Root, p: Picture) -> JsonDict:
    snap, zone = p.snap, root.zone
    return {
        "mode": p.mode.mode.value,
        "armed": _armed(p.mode, zone),
        "stopped": p.mode.stopped,
        "score": p.score,
        "attainment": dict(p.attainment),
        "values": dict(p.life.values),
        "anchor": dict(p.life.anchor),
        "open": [_open(c, p, zone) for c in p.open],
        "excursion": _excursion(p.life, p, zone),
        "guards": [guard_json(g, zone) for g in holding(p)],
        "heartbeat": heartbeat(root.path, snap.now_ms, zone),
        "metrics": {
            "age_s": p.health.age_s,
            "rate_hz": p.health.rate_hz,
            "rejects": dict(snap.series.rejects),
        },
        "files": _files(root, snap),
        "demo": is_demo(root.path),
    }


def _files(root: Root, snap: Snapshot) -> JsonDict:
    name = snap.settings.metrics_source
    said = files(root.path, snap.now_ms, snap.records, name)
    if blind := _blind_stream(root, snap.settings):
        said[name]["problem"] = blind[0].code.removeprefix("stream.")
    return said


def holding(p: Picture) -> tuple[GuardCheck, ...]:
    """Every guard that holds now: of the loop as a whole, then of each rule, then broken hard limits."""
    loop = [c for c in p.checks if not c.passed]
    rules = [c for r in p.settings.rules for c in check_rule(p.situation, r) if not c.passed]
    return (*p.breaches, *loop, *rules)


def _armed(mode: ModeState, zone: tzinfo) -> JsonDict | None:
    """The loan that is in force; None without one."""
    if not mode.live or mode.loan is None:
        return None
    until = mode.loan.until_ms
    return {
        "until": iso(until, zone) if until is not None else None,
        "changes_left": mode.loan.changes_left,
    }


def _open(c: Change, p: Picture, zone: tzinfo) -> JsonDict:
    due_ms = c.window_from_ms + round(p.settings.observe_window_s * 1000)
    return {
        "id": c.id,
        "kind": c.kind.value,
        "origin": c.origin.value,
        "actor": c.actor,
        "ts": iso(c.ts_ms, zone),
        "rules": [{"rule": m.rule, "old": m.old, "new": m.new, "event": m.key} for m in c.moves],
        "phase": c.phase(p.settings, p.snap.clock_ms).value,
        "verdict_due": iso(due_ms, zone),
        "verdict_in_s": round(max(0.0, (due_ms - (p.newest_ms or p.snap.now_ms)) / 1000), 1),
    }


def _excursion(life: Life, p: Picture, zone: tzinfo) -> JsonDict | None:
    exc = life.excursion
    if exc is None:
        return None
    return {
        "steps": len(exc.steps),
        "max_steps": most_steps(p.settings, life, p.fallen),
        "since": iso(exc.start_ts_ms, zone),
        "age_s": round((p.snap.clock_ms - exc.start_at_ms) / 1000, 1),
        "max_s": p.settings.excursion.max_s,
        "looks": exc.looks,
        "displaced": {r: {"anchor": a, "value": v} for r, (a, v) in exc.displaced.items()},
    }


# ----------------------------------------------------------------------------- without settings
def _without_settings(path: Path, clock: Clock, error: SettingsError) -> Seen:
    """What can be said when the settings were never valid: the files, the pulse, the age of the data."""
    ledger = FileLedger(path, timezone=DEFAULT_ZONE, clock=clock.wall, steady=clock.steady)
    found, now, zone = ledger.read(), clock.wall(), ledger.zone
    newest = last_ts(path / METRICS_FILE, timezone=DEFAULT_ZONE)
    first = error.problems[0]
    guard = GuardCheck(
        code="guard.settings",
        passed=False,
        observed="settings.invalid",
        limit="valid",
        unit="",
        params={"problem": first.code, "file": first.file, "line": first.line, "key": first.key},
    )
    status: JsonDict = {
        "mode": Mode.DRY_RUN.value,
        "armed": None,
        "stopped": stopped_by(found.governance) is not None,
        "score": None,
        "attainment": {},
        "values": {},
        "anchor": {},
        "open": [],
        "excursion": None,
        "guards": [guard_json(guard, zone)],
        "heartbeat": heartbeat(path, now, zone),
        "metrics": {
            "age_s": max(0.0, (now - newest) / 1000) if newest is not None else None,
            "rate_hz": None,
            "rejects": {},
        },
        "files": files(path, now, found, METRICS_FILE),
        "demo": is_demo(path),
    }
    return Seen(
        status=status,
        records=found,
        settings=None,
        zone=zone,
        mode=Reason("mode.settings_invalid"),
        problems=tuple(error.problems),
        blind=_blind_ledgers(found),
    )


def stopped_by(governance: Sequence[Governance]) -> Governance | None:
    """The Stop that holds; None when there is none or it was lifted."""
    last = next((g for g in reversed(governance) if g.kind in ("arm", "resume", "disarm", "stop")), None)
    return last if last is not None and last.kind == "stop" else None


# ----------------------------------------------------------------------------- pulse and files
def heartbeat(path: Path, now_ms: int, zone: tzinfo = UTC) -> JsonDict:
    """`{state: alive|late|stopped|none, age_s}` of the loop, by the stamp in its heartbeat."""
    said = read_heartbeat(path)
    ts_ms, _ = records.instant_ms(said.get("ts"), zone) if said else (None, False)
    if ts_ms is None:
        return {"state": "none", "age_s": None}
    age_s = (now_ms - ts_ms) / 1000
    return {"state": _pulse(age_s), "age_s": round(age_s, 3)}


def _pulse(age_s: float) -> str:
    if age_s < -ALIVE_S or age_s > LATE_S:  # a heartbeat from the future proves nothing
        return "stopped"
    return "alive" if age_s <= ALIVE_S else "late"


def read_heartbeat(path: Path) -> Mapping[str, Any]:
    """The heartbeat record, {} without a usable one."""
    found = records.parse_line(read_small(path / HEARTBEAT, HEARTBEAT_BYTES) or b"null")
    return found if isinstance(found, dict) else {}


def files(path: Path, now_ms: int, found: Records, metrics: str) -> JsonDict:
    """Each file of the contract: `{size, age_s, rejects, problem}`; size None: it is not there."""
    return {name: _file(path, name, now_ms, found) for name in (SETTINGS, metrics, *LEDGERS, HEARTBEAT)}


def _file(path: Path, name: str, now_ms: int, found: Records) -> JsonDict:
    size, age_s = None, None
    try:
        stat = os.stat(path / name)
        size, age_s = stat.st_size, round(max(0.0, now_ms / 1000 - stat.st_mtime), 1)
    except OSError:
        pass  # not there, or not for us: both are said by the empty size
    return {
        "size": size,
        "age_s": age_s,
        "rejects": dict(found.rejects.get(name, {})),
        "problem": found.problems.get(name),
    }


__all__ = ["Seen", "files", "heartbeat", "holding", "look", "of_root", "read_heartbeat", "stopped_by"]
