"""Who asked for what, who signed it, and does it still stand: the governance record, folded.

Answers "what is the state of each request, what has moved since, who may sign, and is this arming backed by
signatures?". Pure; `reviewing.py` writes. Source: promises.md (S5, S6), house.md (two keys, loan).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from enum import StrEnum
from typing import Any

from selftune.domain import Governance, Reason, RiskWarning, Role, RuleEvent
from selftune.records import instant_ms

REVIEW_MS = 24 * 3600 * 1000  # promises S6: a request waits a day for its signatures
NAMED = 3  # changed settings that a void request names
AHEAD_MS = (
    60_000  # a request stamped later than this after now: the clock was set back, its age proves nothing
)
GRADES = ("pass", "look", "none", "fail")  # readiness.Grade from best to worst


class What(StrEnum):
    """What a request asks for: practice mode off, or settings that an operator may not save alone."""

    ARMING = "arming"
    EDIT = "edit"


class State(StrEnum):
    """Where a request stands (`review.state_<value>`). Computed, never stored."""

    OPEN = "open"
    SIGNED = "signed"  # every signature is there, but what was signed is not carried out yet
    REFUSED = "refused"
    VOID = "void"
    USED = "used"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One valid approval of one request."""

    id: str
    by: str
    ts_ms: int
    comment: str = ""
    os: str = ""  # the OS account, where it was given in a shell


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request with all that happened to it, as the chain alone tells.

    `events`, `warnings`: how many lines these files had when it was made; `grades`: item -> grade then.
    `moved`: why it is void by the chain alone; `used`: the record that carried it out.
    """

    id: str
    what: What
    by: str
    role: str
    ts_ms: int
    at_ms: int
    n: int
    settings: str
    reason: str = ""
    os: str = ""
    evidence: str = ""
    grades: Mapping[str, str] = field(default_factory=dict)
    crits: frozenset[str] = frozenset()
    events: int = 0
    warnings: int = 0
    loan: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()
    refused: Governance | None = None
    moved: tuple[Reason, ...] = ()
    used: str | None = None

    @property
    def until_ms(self) -> int:
        """When it ends by itself if it is not signed."""
        return self.ts_ms + REVIEW_MS

    @property
    def loan_until_ms(self) -> int | None:
        """When the loan that is asked for would end."""
        return instant_ms(self.loan.get("until"), UTC)[0]

    @property
    def over(self) -> bool:
        """True when the chain alone says that nothing more can happen to it."""
        return bool(self.refused or self.moved or self.used)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a request is held against now. `grades` None: they were not looked at; `clock_ms` is steady."""

    now_ms: int
    clock_ms: int
    settings: str | None  # digest in force; None while the file is not valid
    chain_ok: bool = True
    events: Sequence[RuleEvent] = ()
    warnings: Sequence[RiskWarning] = ()
    grades: Mapping[str, str] | None = None
    evidence_ok: bool = True


# ----------------------------------------------------------------------------- who is who
def face(name: str) -> str:
    """A name as it is compared: case, width and blanks at its ends make no other person."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


class People:
    """Names that belong to one person: an account that was renamed is the same one under both."""

    def __init__(self, governance: Iterable[Governance] = ()) -> None:
        self._first: dict[str, str] = {}
        for g in governance:
            if g.kind == "account":
                self.learn(g)

    def learn(self, g: Governance) -> None:
        """A record of a renaming joins two names, also when the old one was given to somebody new later."""
        old = next(
            (v for k in ("old", "from", "was", "renamed_from") if isinstance(v := g.data.get(k), str)), ""
        )
        new = next((v for k in ("new", "to", "name", "account") if isinstance(v := g.data.get(k), str)), "")
        if old and new:
            a, b = self.of(old), self.of(new)
            self._first = {n: a if one == b else one for n, one in self._first.items()} | {b: a}

    def of(self, name: str) -> str:
        """The one name by which this person is compared."""
        return self._first.get(face(name), face(name))

    def same(self, a: str, b: str) -> bool:
        """True for two names of one person; nobody ('') is not the same as anybody."""
        return bool(face(a)) and bool(face(b)) and self.of(a) == self.of(b)

    def own(self, request: Request | Signature, by: str, os: str = "") -> bool:
        """True when `by` (in a shell of the OS account `os`) is who made this request or signature.

        Two names typed under one OS account are two names; a name that is the other's OS account is not.
        """
        return self.same(by, request.by) or self.same(os, request.by) or self.same(by, request.os)


# ----------------------------------------------------------------------------- the fold
def fold(governance: Sequence[Governance]) -> tuple[Request, ...]:
    """Every request in the order of the chain, with its signatures and what ended it."""
    found: dict[str, Request] = {}
    people = People()
    for g in governance:
        if g.kind == "request":
            asked = _request(g)
            if asked is not None and asked.id not in found:
                _replaced(found, asked)
                found[asked.id] = asked
        elif g.kind in ("approve", "refuse", "void", "arm", "edit"):
            named = str(g.data.get("request"))
            if named in found:
                found[named] = _next(found[named], g, people)
            if g.kind == "edit":
                _edited(found, g)
        elif g.kind == "stop":
            _end(found, What.ARMING, Reason("void.stopped", {"by": g.by}))
        elif g.kind == "account":
            people.learn(g)
    return tuple(found.values())


def _request(g: Governance) -> Request | None:
    what = g.data.get("what", What.ARMING.value)
    digest, loan = g.data.get("settings"), g.data.get("loan")
    if what not in set(What) or not isinstance(digest, str) or not g.by.strip():
        return None
    if what == What.ARMING and not isinstance(loan, Mapping):
        return None
    grades = g.data.get("grades")
    return Request(
        id=g.id, what=What(what), by=g.by, role=g.role, ts_ms=g.ts_ms, at_ms=g.at_ms, n=g.n, settings=digest,
        reason=str(g.data.get("reason") or ""), os=str(g.data.get("os") or ""),
        evidence=str(g.data.get("evidence") or ""),
        grades={str(k): str(v) for k, v in grades.items()} if isinstance(grades, Mapping) else {},
        crits=frozenset(str(c) for c in _list(g.data.get("crits"))),
        events=_count(g.data.get("events")), warnings=_count(g.data.get("warnings")),
        loan=loan if isinstance(loan, Mapping) else {}, data=g.data,
    )  # fmt: skip


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _replaced(found: dict[str, Request], asked: Request) -> None:
    """Of arming only the newest request stands, so that nobody signs one while another is talked about."""
    if asked.what is What.ARMING:
        _end(found, What.ARMING, Reason("void.replaced", {"by": asked.by}))


def _end(found: dict[str, Request], what: What, why: Reason) -> None:
    for r in tuple(found.values()):
        if r.what is what and not r.over:
            found[r.id] = replace(r, moved=(why,))


def _edited(found: dict[str, Request], g: Governance) -> None:
    """An edit on record that leads to other settings ends every request that was made for those before."""
    after = g.data.get("digest_after")
    for r in tuple(found.values()):
        if not r.over and isinstance(after, str) and after != r.settings:
            found[r.id] = replace(r, moved=(Reason("void.settings", {"by": g.by, "changes": _changes(g)}),))


def _changes(g: Governance) -> str | None:
    """'cooldown_s 180 → 200, …' of the first settings that an edit changed; None where it does not say."""
    told = [c for c in _list(g.data.get("changes")) if isinstance(c, Mapping) and c.get("key")]
    shown = [f"{c['key']} {_plain(c.get('old'))} → {_plain(c.get('new'))}" for c in told[:NAMED]]
    return ", ".join([*shown, *["…"][: len(told) > NAMED]]) or None


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"  # as the settings file has it
    return "–" if value is None else str(value)


def _next(r: Request, g: Governance, people: People) -> Request:
    """The request after one more record that names it; what is too late or not valid changes nothing."""
    if r.over:
        return r
    if g.kind == "approve":
        return replace(r, signatures=(*r.signatures, signature_of(g))) if _valid(r, g, people) else r
    if g.kind == "refuse":
        return replace(r, refused=g) if g.role == Role.REVIEWER and not _own(r, g, people) else r
    if g.kind == "void":
        why = tuple(Reason(str(m["code"]), dict(m.get("params") or {})) for m in _list(g.data.get("moved"))
                    if isinstance(m, Mapping) and m.get("code"))  # fmt: skip
        return replace(r, moved=why or (Reason("void.unknown"),))
    right = What.ARMING if g.kind == "arm" else What.EDIT
    return replace(r, used=g.id) if r.what is right and r.signatures else r


def _own(r: Request, g: Governance, people: People) -> bool:
    return people.own(r, g.by, str(g.data.get("os") or ""))


def _valid(r: Request, g: Governance, people: People) -> bool:
    """A reviewer's signature to exactly this, in time, by somebody who neither asked nor signed before."""
    os = str(g.data.get("os") or "")
    return (
        g.role == Role.REVIEWER
        and bool(g.by.strip())
        and g.data.get("settings") == r.settings
        and g.data.get("evidence", "") == r.evidence
        and g.ts_ms < r.until_ms
        and not _own(r, g, people)
        and not any(people.own(s, g.by, os) for s in r.signatures)
    )


def signature_of(g: Governance) -> Signature:
    """An approval's record as a signature."""
    return Signature(id=g.id, by=g.by, ts_ms=g.ts_ms, comment=str(g.data.get("comment") or ""),
                     os=str(g.data.get("os") or ""))  # fmt: skip


# ----------------------------------------------------------------------------- does it still stand?
def moved(r: Request, f: Facts) -> tuple[Reason, ...]:
    """What has moved since the request was made, in words to be; () while it stands.

    Only asked while signatures are missing: after the last one a loan's own ends apply.
    """
    if r.moved:
        return r.moved
    return (*_time(r, f), *_settings(r, f), *(_evidence(r, f) if r.what is What.ARMING else ()))


def _time(r: Request, f: Facts) -> Iterator[Reason]:
    aged = max(f.now_ms - r.ts_ms, f.clock_ms - r.at_ms)
    if aged >= REVIEW_MS or r.ts_ms - f.now_ms > AHEAD_MS:
        yield Reason("void.expired", {"until_ms": r.until_ms})
    until = r.loan_until_ms
    if r.what is What.ARMING and (until is None or until <= f.now_ms):
        yield Reason("void.loan_over", {"until_ms": until})


def _settings(r: Request, f: Facts) -> Iterator[Reason]:
    if not f.chain_ok:
        yield Reason("void.chain")
    if f.settings is None:
        yield Reason("void.settings_invalid")
    elif f.settings != r.settings:
        yield Reason("void.settings", {"by": None})


def _evidence(r: Request, f: Facts) -> Iterator[Reason]:
    if not f.evidence_ok:
        yield Reason("void.evidence")
    if len(f.events) > r.events:
        e = f.events[r.events]
        yield Reason("void.event", {"rule": e.rule, "by": e.actor or None, "n": len(f.events) - r.events})
    elif len(f.events) < r.events:
        yield Reason("void.history")  # lines that were there are gone
    new = [w for w in f.warnings[r.warnings :] if w.severity == "crit" and w.resolves is None]
    if new:
        yield Reason("void.crit", {"note": new[0].note, "rule": new[0].rule})
    for code, was in r.grades.items():
        now = (f.grades or {}).get(code, was)
        if rank(now) > rank(was):
            yield Reason("void.grade", {"item": code, "was": was, "now": now})


def rank(grade: str) -> int:
    """0 for the best grade; one that nobody knows is the worst."""
    return GRADES.index(grade) if grade in GRADES else len(GRADES)


def state(r: Request, f: Facts, required: int) -> State:
    """Where the request stands now."""
    if r.used is not None:
        return State.USED
    if r.refused is not None:
        return State.REFUSED
    if moved(r, f):
        return State.VOID
    return State.SIGNED if len(r.signatures) >= needed(r, required) else State.OPEN


def needed(r: Request, required: int) -> int:
    """How many people must sign: settings that need a reviewer need one even where live mode needs none."""
    return max(1, required)


def current(requests: Sequence[Request], what: What = What.ARMING) -> Request | None:
    """The newest request of this kind, whatever became of it."""
    return next((r for r in reversed(requests) if r.what is what), None)


# ----------------------------------------------------------------------------- who may sign
def against(
    r: Request, by: str, *, os: str = "", comment: str = "", grades: Mapping[str, str], strict: bool = False,
    people: People,
) -> tuple[Reason, ...]:  # fmt: skip
    """Every reason why `by` may not sign this request with this comment; () when they may.

    `grades`: those of this very moment. `strict`: missing evidence blocks as a failed item does.
    """
    found = []
    if people.own(r, by, os):
        found.append(Reason("sign.own"))
    for s in r.signatures:
        if people.own(s, by, os):
            found.append(Reason("sign.twice", {"at_ms": s.ts_ms}))
            break
    blocked = blocking(grades, strict=strict)
    if r.what is What.ARMING and blocked:
        found.append(Reason("sign.blocked", {"items": blocked}))
    elif r.what is What.ARMING and not comment.strip() and any(g != "pass" for g in grades.values()):
        found.append(Reason("sign.comment_needed", {"items": [c for c, g in grades.items() if g != "pass"]}))
    return tuple(found)


def blocking(grades: Mapping[str, str], *, strict: bool = False) -> list[str]:
    """The items that forbid to sign, whatever anybody writes."""
    worst = ("fail", "none") if strict else ("fail",)
    return [code for code, g in grades.items() if g in worst or g not in GRADES]


# ----------------------------------------------------------------------------- is an arming backed?
def backed(governance: Sequence[Governance], required: int) -> frozenset[str]:
    """Ids of the armings that rest on a request of their own with enough valid signatures to these terms."""
    arms = {g.id: g for g in governance if g.kind == "arm"}
    if not arms:
        return frozenset()
    return frozenset(
        r.used for r in fold(governance)
        if r.used in arms and _lent_by(arms[r.used]) == (r.settings, r.loan)
        and len(r.signatures) >= needed(r, required)
    )  # fmt: skip


def _lent_by(arm: Governance) -> tuple[Any, Any]:
    return arm.data.get("settings"), arm.data.get("loan")
