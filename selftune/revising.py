"""An edit of the settings, saved: compare-and-swap on the bytes that were shown, a record, a copy for later.

Answers "is it saved?": a return means that record, copies and file are on disk. Never overwrites what
somebody else wrote meanwhile. Order (promises, rule 1): copies, governance record, then the file; a record
whose file never came is seen as such (`Fate.LOST`), and nothing is ever applied late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from selftune import access
from selftune.access import Action
from selftune.book import SETTINGS, Batch, Records
from selftune.config import Settings, parse
from selftune.domain import (
    Governance,
    JsonDict,
    Reason,
    Refused,
    Role,
    SelftuneError,
    SettingsError,
    StaleSnapshot,
)
from selftune.drafting import Changes, Draft, Value, draft
from selftune.files import OS, Ops, inside, read_small, replace, replace_known
from selftune.ledger import FileLedger
from selftune.runtime import TRIES, Root

REVISIONS = "logs/revisions"
LIMIT = 256 * 1024
LONGEST_REASON = 2000


class Conflict(SelftuneError):
    """The file is not the one that was shown (`base`) but `theirs` (None: gone); it was left alone."""

    def __init__(self, base: bytes, theirs: bytes | None) -> None:
        self.base, self.theirs = base, theirs
        super().__init__("the settings were changed by somebody else meanwhile")


class Fate(StrEnum):
    """What became of a recorded edit (`revision.<value>` in the catalogue)."""

    IN_FORCE = "in_force"
    REPLACED = "replaced"
    LOST = "lost"  # recorded, but the file never took it: a kill or a full disk between the two


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One recorded edit. `before`, `after`: SHA-256 of the file's bytes; `changed`: (path, old, new)."""

    id: str
    ts_ms: int
    by: str
    role: str
    why: str
    before: str
    after: str
    changed: tuple[tuple[str, Value, Value], ...]
    fate: Fate
    restores: str | None = None


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What was written: the record's id and the SHA-256 of the file's bytes now."""

    id: str
    sha: str
    draft: Draft


def sha256(data: bytes) -> str:
    """SHA-256 hex of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


# ----------------------------------------------------------------------------- saving
def save(
    root: Root, base: bytes, changes: Changes, *, actor: str, role: Role, why: str,
    restores: str | None = None, ops: Ops = OS,
) -> Saved:  # fmt: skip
    """The edit on disk, if the file still holds the bytes `base` that were shown, and the role may.

    Raises: Refused (role, no reason, nothing to change, a reviewer's signature is missing), SettingsError
    (the result is not valid), Conflict, LockHeld, StorageError, StaleSnapshot after several tries.
    """
    access.require(role, Action.EDIT)
    if not why.strip():
        raise Refused(Reason("revise.no_reason"))
    parse(base)  # also what is no UTF-8 is told as a problem of the file
    plan = draft(base.decode("utf-8"), changes)
    _allowed(plan)
    assert plan.after is not None and plan.settings is not None  # or _allowed had raised
    after = plan.after.encode("utf-8")
    record = _record(plan, base, after, actor=actor, role=role, why=why.strip()[:LONGEST_REASON])
    if restores is not None:
        record["restores"] = restores
    path = inside(root.path, root.path / SETTINGS)
    for attempt in range(TRIES):
        known = root.ledger.read()
        if known.settings != base:
            raise Conflict(base, known.settings)
        _keep(root.path, base, ops)
        _keep(root.path, after, ops)
        try:
            done = root.ledger.commit(
                Batch(governance=(record,)), known.version, then=lambda: _swap(path, base, after, ops)
            )
        except StaleSnapshot:
            if attempt == TRIES - 1:
                raise
            continue
        return Saved(id=done.governance[0], sha=sha256(after), draft=plan)
    raise AssertionError("unreachable")


def _allowed(plan: Draft) -> None:
    if plan.problems:
        raise SettingsError(*plan.problems)
    if not plan.rows:
        raise Refused(Reason("revise.nothing"))
    if plan.unsigned:
        raise Refused(*(Reason("revise.needs_reviewer", {"key": r.path}) for r in plan.unsigned))


def _record(plan: Draft, base: bytes, after: bytes, *, actor: str, role: Role, why: str) -> JsonDict:
    assert plan.settings is not None
    return {
        "kind": "edit",
        "by": actor,
        "role": role.value,
        "reason": why,
        "before": sha256(base),
        "after": sha256(after),
        "digest_before": plan.old.digest,
        "digest_after": plan.settings.digest,
        "changes": [{"key": r.path, "old": r.old, "new": r.new} for r in plan.rows],
    }


def _swap(path: Path, base: bytes, after: bytes, ops: Ops) -> None:
    """The new file in place of the old one, which an editor, who takes no lock, may have changed by now."""
    found = replace_known(path, base, after, limit=LIMIT, ops=ops)
    if found != after:
        raise Conflict(base, found)


# ----------------------------------------------------------------------------- copies
def _copy_of(root: Path, sha: str) -> Path:
    return root / REVISIONS / f"{sha}.yaml"


def _keep(root: Path, text: bytes, ops: Ops) -> None:
    """A copy of these bytes under their own digest; one that is there and whole stays."""
    path = _copy_of(root, sha256(text))
    if read_small(path, LIMIT, ops=ops) != text:
        inside(root, path)
        replace(path, text, durable=True, ops=ops)


def text_of(root: Path, sha: str) -> bytes | None:
    """The copy of that digest; None when it is gone, or is not what the record says."""
    if len(sha) != 64 or not all(c in "0123456789abcdef" for c in sha):
        return None  # no file name comes from anything but a digest
    text = read_small(_copy_of(root, sha), LIMIT)
    return text if text is not None and sha256(text) == sha else None


# ----------------------------------------------------------------------------- what was saved
def revisions(records: Records) -> tuple[Revision, ...]:
    """Every recorded edit, newest first, with what became of it."""
    edits = [g for g in records.governance if g.kind == "edit" and isinstance(g.data.get("after"), str)]
    now = records.version.settings
    return tuple(_revision(g, edits[i + 1 :], now) for i, g in enumerate(edits))[::-1]


def _revision(g: Governance, later: Sequence[Governance], now: str | None) -> Revision:
    before, after = str(g.data.get("before")), str(g.data.get("after"))
    changes = g.data.get("changes")
    return Revision(
        id=g.id, ts_ms=g.ts_ms, by=g.by, role=g.role, why=str(g.data.get("reason") or ""),
        before=before, after=after, fate=_fate(before, after, later, now),
        changed=tuple(
            (str(c.get("key")), c.get("old"), c.get("new"))
            for c in (changes if isinstance(changes, list) else ())
            if isinstance(c, dict)
        ),
        restores=g.data.get("restores") if isinstance(g.data.get("restores"), str) else None,
    )  # fmt: skip


def _fate(before: str, after: str, later: Sequence[Governance], now: str | None) -> Fate:
    """What the next record, or else the file, started from tells whether this edit ever reached the file."""
    if not later and after == now:
        return Fate.IN_FORCE
    came_next = str(later[0].data.get("before")) if later else now
    return Fate.LOST if came_next == before else Fate.REPLACED


def last_good(root: Path) -> tuple[Settings, str] | None:
    """The settings that were saved last and can still be read, and when (ISO text); None without any."""
    records = FileLedger(root, timezone="UTC").read()
    for g in reversed(records.governance):
        text = text_of(root, str(g.data.get("after"))) if g.kind == "edit" else None
        if text is None:
            continue
        try:
            return parse(text), str(g.data.get("ts"))
        except SettingsError:
            continue
    return None
