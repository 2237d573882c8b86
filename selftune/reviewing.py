"""A review, written down: a request with its evidence, signatures, a refusal, and what the last one switches.

Answers "is it on record, and if it was the last signature, is it carried out?". Decides nothing that
governing.py does not say; asks everything again under the lock. Order (promises, rule 1): evidence, records,
then the file: live needs both, so a kill between them leaves dry run, and the next act undoes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

from selftune import access, governing
from selftune.access import Action
from selftune.acting import iso
from selftune.acts import go_home
from selftune.book import SETTINGS, Batch
from selftune.domain import (
    JsonDict,
    Mode,
    Reason,
    Refused,
    Role,
    SelftuneError,
    SettingsError,
    StaleSnapshot,
    UnknownId,
)
from selftune.drafting import Changes, Draft, draft
from selftune.files import OS, Ops, inside, replace
from selftune.governing import Request, State, What
from selftune.ledger import must_be_readable
from selftune.picture import Picture, crit_key
from selftune.plan import Act
from selftune.readiness import Readiness
from selftune.records import render, sha256, strip_end
from selftune.revising import Conflict, _keep, _record, _swap
from selftune.revising import sha256 as sha_of
from selftune.runtime import TRIES, Root
from selftune.standing import (
    REVIEWS,
    Standing,
    changes_of,
    checklist,
    flip_of,
    requests,
    standing,
    unfinished,
    void_record,
)

LONGEST_TEXT = 500
MOST_CHANGES, MOST_HOURS = 1000, 31 * 24.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The loan asked for: changes, steps of lr that a rule may move from its value at arming, hours."""

    changes: int
    displacement: float
    hours: float


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a signature did. `left`: how many more are needed; `done`: it was carried out."""

    id: str
    request: Request
    left: int
    done: bool


# ----------------------------------------------------------------------------- asking
def request(
    root: Root, terms: Terms, *, actor: str, role: Role, why: str, os: str = "", ops: Ops = OS
) -> Request:
    """The request on record, with its evidence beside it.

    Raises: Refused, LockHeld, StorageError, SettingsError, StaleSnapshot after several tries.
    """
    access.require(role, Action.REQUEST_REVIEW)
    _said(actor, why, "ask.no_reason")
    settle(root)

    def once(p: Picture) -> Request:
        _may_ask(p, terms)
        found = checklist(root.path, p)
        strict = _strict(found, p)
        if blocked := governing.blocking(found.grades, strict=strict):
            raise Refused(Reason("ask.blocked", {"items": blocked}))
        record = _asked(root, p, terms, found, ops)
        record |= {"by": actor, "role": role.value, "reason": why.strip()[:LONGEST_TEXT], **_os(os)}
        return _new(root, p, record)

    return _tried(root, once)


def _may_ask(p: Picture, t: Terms) -> None:
    s = p.settings
    if s.governance.approvals_required == 0:
        raise Refused(Reason("ask.not_needed"))
    if p.mode.live:
        raise Refused(Reason("ask.live"))
    if p.mode.stopped or p.mode.reason.code in ("mode.settings_invalid", "mode.chain_broken"):
        raise Refused(p.mode.reason)
    if not p.snap.records.chain.ok:
        raise Refused(Reason("mode.chain_broken"))
    if not (
        0 < t.changes <= MOST_CHANGES and 0 < t.displacement <= MOST_CHANGES and 0 < t.hours <= MOST_HOURS
    ):
        limits = {"changes": MOST_CHANGES, "hours": MOST_HOURS}
        raise Refused(Reason("ask.terms", limits))


def _asked(root: Root, p: Picture, t: Terms, found: Readiness, ops: Ops) -> JsonDict:
    """The request's record without who and why; its evidence is on disk."""
    records, zone = p.snap.records, root.zone
    until = iso(p.snap.now_ms + round(t.hours * 3_600_000), zone)
    loan = {"changes": t.changes, "displacement": t.displacement, "until": until}
    after, diff = flip_of(records.settings or b"")
    crits = [crit_key(c) for c in p.crits]
    seen = {
        "v": 1, "made": iso(p.snap.now_ms, zone), "settings": p.settings.digest, "config": p.snap.config_sha,
        "items": [{**asdict(i), "grade": i.grade.value} for i in found.items], "track": asdict(found.track),
        "values": dict(p.life.values), "anchor": dict(p.life.anchor), "score": p.score, "loan": loan,
        "diff": diff, "crits": crits, "approvals_head": records.approvals_head,
    }  # fmt: skip
    data = render(seen)
    digest = sha256(strip_end(data))
    file = root.path / REVIEWS / f"{digest}.json"
    inside(root.path, file)
    replace(file, data, durable=True, mode=0o600, ops=ops)
    return {
        "kind": "request", "what": What.ARMING.value, "settings": p.settings.digest, "evidence": digest,
        "grades": found.grades, "loan": loan, "crits": crits, "events": len(records.events),
        "warnings": len(records.warnings), "before": sha_of(records.settings or b""), "after": sha_of(after),
    }  # fmt: skip


def propose(
    root: Root,
    base: bytes,
    changes: Changes,
    *,
    actor: str,
    role: Role,
    why: str,
    os: str = "",
    ops: Ops = OS,
) -> Request:
    """A request for settings that an operator may not save alone (looser bounds, hard limits), on record.

    Raises: Refused, SettingsError (the result is not valid), Conflict, LockHeld, StorageError, StaleSnapshot.
    """
    access.require(role, Action.PROPOSE_LOOSER)
    _said(actor, why, "revise.no_reason")
    settle(root)
    plan = _valid(draft(base.decode("utf-8"), changes))
    after = (plan.after or "").encode("utf-8")

    def once(p: Picture) -> Request:
        if p.snap.records.settings != base:
            raise Conflict(base, p.snap.records.settings)
        if not p.snap.records.chain.ok:
            raise Refused(Reason("mode.chain_broken"))
        _keep(root.path, base, ops)
        record = _record(plan, base, after, actor=actor, role=role, why=why.strip()[:LONGEST_TEXT])
        record |= {"kind": "request", "what": What.EDIT.value, "settings": plan.old.digest, **_os(os)}
        return _new(root, p, record)

    return _tried(root, once)


def _valid(plan: Draft) -> Draft:
    if plan.problems:
        raise SettingsError(*plan.problems)
    if not plan.rows:
        raise Refused(Reason("revise.nothing"))
    return plan


def _new(root: Root, p: Picture, record: JsonDict) -> Request:
    done = root.ledger.commit(Batch(governance=(record,)), p.snap.records.version)
    made = next((r for r in governing.fold(done.records.governance) if r.id == done.governance[0]), None)
    assert made is not None  # it was written by the line above
    return made


# ----------------------------------------------------------------------------- signing
def approve(
    root: Root, request_id: str, *, actor: str, role: Role, comment: str = "", os: str = "", ops: Ops = OS
) -> Signed:
    """The signature on record; the last one carries out what was asked for, in the same commit.

    Raises: Refused (with every reason), UnknownId, Conflict, LockHeld, StorageError, StaleSnapshot.
    """
    access.require(role, Action.SIGN)
    _said(actor, actor, "sign.nobody")
    settle(root)

    def once(p: Picture) -> Signed:
        now = _open(root, p, request_id)
        strict = _strict(now.found, p)
        why = governing.against(now.request, actor, os=os, comment=comment, grades=now.grades, strict=strict,
                                people=now.people)  # fmt: skip
        if why:
            raise Refused(*why)
        record = _signature(now.request, actor, role, os) | {"kind": "approve"}
        if comment.strip():
            record["comment"] = comment.strip()[:LONGEST_TEXT]
        left = now.needed - len(now.request.signatures) - 1
        lines, then = _carried(root, p, now.request, record, ops) if left <= 0 else ((), None)
        done = _committed(root, p, (record, *lines), then)
        return Signed(id=done, request=now.request, left=max(0, left), done=left <= 0)

    return _tried(root, once)


def refuse(root: Root, request_id: str, *, actor: str, role: Role, why: str, os: str = "") -> Request:
    """The refusal on record, with its reason: the request is over.

    Raises: Refused, UnknownId, LockHeld, StorageError, StaleSnapshot.
    """
    access.require(role, Action.SIGN)
    _said(actor, why, "sign.refusal_reason")
    settle(root)

    def once(p: Picture) -> Request:
        now = _open(root, p, request_id)
        if now.people.own(now.request, actor, os):
            raise Refused(Reason("sign.own"))
        record = _signature(now.request, actor, role, os)
        record |= {"kind": "refuse", "reason": why.strip()[:LONGEST_TEXT]}
        root.ledger.commit(Batch(governance=(record,)), p.snap.records.version)
        return now.request

    return _tried(root, once)


def _open(root: Root, p: Picture, request_id: str) -> Standing:
    """The request, if it waits for signatures. What voids it is put on record, so that it stays void.

    Raises: UnknownId, Refused.
    """
    r = next((r for r in requests(p) if r.id == request_id), None)
    if r is None:
        raise UnknownId("sign.unknown", id=request_id)
    now = standing(root.path, p, r)
    if now.state is State.OPEN:
        return now
    if now.state is State.USED:
        by = r.signatures[-1] if r.signatures else None
        raise Refused(Reason("sign.used", {"by": by.by if by else None, "at_ms": by.ts_ms if by else None}))
    if now.state is State.REFUSED and r.refused is not None:
        raise Refused(Reason("sign.refused", {"by": r.refused.by, "at_ms": r.refused.ts_ms}))
    why = now.moved or (Reason("void.unfinished"),)
    if not r.moved and p.snap.records.chain.ok:
        root.ledger.commit(Batch(governance=(void_record(r, why),)), p.snap.records.version)
    raise Refused(Reason("sign.void"), *why)


def _signature(r: Request, actor: str, role: Role, os: str) -> JsonDict:
    said = {"by": actor, "role": role.value, "request": r.id, "settings": r.settings, "evidence": r.evidence}
    return {**said, **_os(os)}


def _os(os: str) -> JsonDict:
    return {"os": os} if os else {}


def _said(actor: str, text: str, code: str) -> None:
    if not text.strip() or not actor.strip():
        raise Refused(Reason(code))


def _strict(found: Readiness | None, p: Picture) -> bool:
    return found is not None and p.settings.governance.readiness.get("missing_blocks", 0) > 0


# ----------------------------------------------------------------------------- carrying out
Then = Callable[[], None]


def _carried(
    root: Root, p: Picture, r: Request, signature: JsonDict, ops: Ops
) -> tuple[tuple[JsonDict, ...], Then | None]:
    """What the last signature writes beside itself: the record, and the file's new bytes."""
    base = p.snap.records.settings or b""
    path = inside(root.path, root.path / SETTINGS)
    if r.what is What.ARMING:
        after, _ = flip_of(base)
        line = {
            "kind": "arm", **{k: signature[k] for k in ("by", "role", "request", "settings", "evidence")},
            "approvals": [s.id for s in r.signatures], "loan": dict(r.loan), "values": dict(p.life.values),
            "crits": [crit_key(c) for c in p.crits], "before": sha_of(base), "after": sha_of(after),
        }  # fmt: skip
    else:
        plan = _valid(draft(base.decode("utf-8"), changes_of(r)))
        after = (plan.after or "").encode("utf-8")
        if plan.settings is None or plan.settings.digest != r.data.get("digest_after"):
            raise Refused(Reason("sign.void"), Reason("void.settings", {"by": None}))
        line = _record(plan, base, after, actor=r.by, role=Role(r.role), why=r.reason)
        line |= {"request": r.id, "approvals": [s.id for s in r.signatures], "signed_by": signature["by"]}
        _keep(root.path, after, ops)
    _keep(root.path, base, ops)
    return (line,), (None if after == base else lambda: _swap(path, base, after, ops))


def _committed(root: Root, p: Picture, lines: tuple[JsonDict, ...], then: Then | None) -> str:
    """The id of the first line. Where the file did not follow the records, the arming is taken back."""
    try:
        return root.ledger.commit(Batch(governance=lines), p.snap.records.version, then=then).governance[0]
    except StaleSnapshot:
        raise
    except (SelftuneError, OSError):
        _try_to_settle(root)
        raise


def _try_to_settle(root: Root) -> None:
    try:
        settle(root)
    except (SelftuneError, OSError):
        return  # the disk is at fault: dry run holds all the same, and the next act settles it


def settle(root: Root) -> Reason | None:
    """What was left half done is undone: signatures without their arming, an arming without its switch.

    Returns what it found, None where all is whole. Raises: LockHeld, StorageError, SettingsError.
    """

    def once(p: Picture) -> Reason | None:
        left = unfinished(p)
        if left is None or not p.snap.records.chain.ok:
            return None
        why, record = left
        root.ledger.commit(Batch(governance=(record,)), p.snap.records.version)
        return why

    return _tried(root, once)


# ----------------------------------------------------------------------------- back to practice
def end_loan(p: Picture, *, actor: str, role: str, reason: str) -> tuple[Act, ...]:
    """Acts that give a running loan back before its end; what is unproven goes home in the same commit.

    Raises: Refused where no loan runs.
    """
    if not p.mode.live or p.mode.loan is None:
        raise Refused(Reason("hand.no_loan"))
    why = (Reason("loan.given_back", {"by": actor}),)
    record = {"kind": "disarm", "by": actor, "role": role, "reason": why[0].code, "why": reason,
              "params": dict(why[0].params)}  # fmt: skip
    data = {"actor": actor, "why": reason, "to": Mode.DRY_RUN.value}
    acts: list[Act] = [Act(kind="mode", act="disarm", reasons=why, governance=(record,), data=data)]
    if p.life.excursion is not None:
        acts += go_home(p, p.life.excursion, "loan_end", why, write=True, warn=False)
    return tuple(acts)


# ----------------------------------------------------------------------------- the way through the commit
def _tried(root: Root, once: Callable[[Picture], T]) -> T:
    """`once` on a fresh picture; again when somebody else was first."""
    for attempt in range(TRIES):
        snap = root.snapshot()
        must_be_readable(snap.records)
        try:
            return once(Picture(snap))
        except StaleSnapshot:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")
