"""Reviews, looked at: each request in the present picture, its evidence, and what was left half done.

Answers "where does it stand, what moved, what would be signed?" for page, command line and signature alike.
Reads the evidence and the heartbeat, never writes. What it says follows from governing.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from selftune import governing
from selftune.backtest_runs import newest_of, of_settings
from selftune.book import SETTINGS
from selftune.config import edit
from selftune.domain import Governance, JsonDict, Reason
from selftune.files import read_small
from selftune.governing import Facts, People, Request, State, What
from selftune.picture import Picture
from selftune.pretended import pretended
from selftune.readiness import Pulse, Readiness, Tried, assess, bars
from selftune.records import instant_ms, parse_line, sha256, strip_end
from selftune.status import read_heartbeat

REVIEWS = "logs/reviews"
EVIDENCE_BYTES = 1 << 20
SYSTEM = "selftune"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One request as it stands now, with the checklist of this moment (None for an edit)."""

    request: Request
    state: State
    moved: tuple[Reason, ...]
    needed: int
    people: People
    found: Readiness | None = None

    @property
    def grades(self) -> Mapping[str, str]:
        return self.found.grades if self.found is not None else {}


def pulse_of(path: Path, p: Picture) -> Pulse:
    """The loop's life by its heartbeat file."""
    beat, zone = read_heartbeat(path), ZoneInfo(p.settings.timezone)
    ts_ms, _ = instant_ms(beat.get("ts"), zone)
    started_ms, _ = instant_ms(beat.get("started"), zone)
    return Pulse(age_s=None if ts_ms is None else (p.snap.now_ms - ts_ms) / 1000, started_ms=started_ms)


def tested_of(path: Path, p: Picture) -> Tried | None:
    """The newest finished backtest of the settings in force; None without one."""
    found = newest_of(path, p.settings.digest)
    if found is None or found.result is None:
        return None
    own = next((o for o in found.result.outcomes if of_settings(o, p.settings)), None)
    worst = None if own is None or own.worst is None else own.worst.against
    return Tried(worst=worst, ended_ms=found.status.ended_ms or found.status.started_ms, run=found.id)


def checklist(path: Path, p: Picture) -> Readiness:
    """The evidence as of this picture, the same for page, command line and signature."""
    placebo = pretended(path, p, bars(p.settings)["placebo_n"])
    return assess(p, pulse_of(path, p), tested_of(path, p), placebo)


def requests(p: Picture) -> tuple[Request, ...]:
    """Every request on record; kept while the record does not grow."""
    records = p.snap.records
    key = (records.chain.n, records.chain.sha256)
    known: dict[tuple[int, str], tuple[Request, ...]] = p.snap.memo.get("requests", (), dict)
    found = known.get(key)
    if found is None:  # sessions share the memo: what is given back is never looked up a second time
        found = governing.fold(records.governance)
        known.clear()
        known[key] = found
    return found


def standing(path: Path, p: Picture, r: Request, found: Readiness | None = None) -> Standing:
    """Where the request stands in this picture. `found`: the checklist, if it was made already."""
    arming = r.what is What.ARMING
    if arming and found is None and not r.over:
        found = checklist(path, p)
    whole = not arming or r.over or _told_the_same(evidence(path, r.evidence), r)
    facts = facts_of(p, found.grades if found is not None else None, evidence_ok=whole)
    need = p.settings.governance.approvals_required
    return Standing(
        request=r, state=governing.state(r, facts, need), needed=governing.needed(r, need),
        moved=() if r.used or r.refused else governing.moved(r, facts),
        people=People(p.snap.records.governance), found=found if arming else None,
    )  # fmt: skip


def _told_the_same(seen: JsonDict | None, r: Request) -> bool:
    """True when the snapshot is there and tells of the same loan and settings as the request."""
    return seen is not None and seen.get("loan") == dict(r.loan) and seen.get("settings") == r.settings


def waiting(p: Picture) -> tuple[Request, ...]:
    """Requests that wait for signatures, as far as the records alone can tell."""
    need = p.settings.governance.approvals_required
    facts = facts_of(p)
    return tuple(r for r in requests(p) if not r.over and governing.state(r, facts, need) is State.OPEN)


def facts_of(p: Picture, grades: Mapping[str, str] | None = None, *, evidence_ok: bool = True) -> Facts:
    """What a request is held against in this picture."""
    records = p.snap.records
    return Facts(
        now_ms=p.snap.now_ms, clock_ms=p.snap.clock_ms, chain_ok=records.chain.ok,
        settings=p.settings.digest if p.snap.settings_problem is None else None,
        events=records.events, warnings=records.warnings, grades=grades, evidence_ok=evidence_ok,
    )  # fmt: skip


def evidence(path: Path, digest: str) -> JsonDict | None:
    """The snapshot of that digest; None when it is gone, or is not what the request says."""
    file = evidence_file(path, digest)
    raw = read_small(file, EVIDENCE_BYTES) if file is not None else None
    if raw is None or sha256(strip_end(raw)) != digest:
        return None
    said = parse_line(strip_end(raw))
    return said if isinstance(said, dict) else None


def evidence_file(path: Path, digest: str) -> Path | None:
    """Where that snapshot lies; None for what is no digest: no file name comes from anything else."""
    real = len(digest) == 64 and all(c in "0123456789abcdef" for c in digest)
    return path / REVIEWS / f"{digest}.json" if real else None


def flip_of(text: bytes) -> tuple[bytes, str]:
    """(the file with the switch off, the lines that differ); the same bytes and '' where it is off already.

    Raises: SettingsError, UnicodeDecodeError for a file that cannot be edited.
    """
    before = text.decode("utf-8")
    after = edit(before, {"strategy.dry_run": False})
    return after.encode("utf-8"), diff_of(before, after)


def diff_of(before: str, after: str) -> str:
    """The lines that differ, as a unified diff without context."""
    name = Path(SETTINGS).name
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="", n=0)
    return "\n".join(lines)


def changes_of(r: Request) -> dict[str, Any]:
    """path -> new value of a request for settings."""
    rows = r.data.get("changes")
    return {
        str(c["key"]): c.get("new")
        for c in (rows if isinstance(rows, list) else ())
        if isinstance(c, dict) and "key" in c
    }


def unfinished(p: Picture) -> tuple[Reason, JsonDict] | None:
    """(what is half done, the record that undoes it): the mark that a kill leaves behind."""
    records = p.snap.records
    for r in requests(p):
        if not r.over and len(r.signatures) >= governing.needed(r, p.settings.governance.approvals_required):
            why = Reason("void.unfinished")
            return why, void_record(r, (why,))
    last = last_switch(records.governance)
    if last is None or last.kind != "arm" or not p.settings.dry_run:
        return None
    if last.data.get("before") == records.version.settings != last.data.get("after"):
        why = Reason("loan.not_switched")
        return why, {"kind": "disarm", "by": SYSTEM, "role": "system", "reason": why.code, "params": {}}
    return None


def last_switch(governance: Sequence[Governance]) -> Governance | None:
    """The newest record that switched the mode."""
    kinds = ("arm", "resume", "disarm", "stop")
    return next((g for g in reversed(governance) if g.kind in kinds), None)


def void_record(r: Request, why: tuple[Reason, ...]) -> JsonDict:
    """The line that keeps a void request void, with what moved."""
    return {
        "kind": "void",
        "by": SYSTEM,
        "role": "system",
        "request": r.id,
        "moved": [w.as_json() for w in why],
    }
