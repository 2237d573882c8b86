"""Which mode is in force, and why: dry run, or live on a loan.

Answers "may the loop itself write rule events now?" from the settings and the governance record.
Pure. Source: contract.md (rules of acting), house.md (two keys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from selftune.config import Settings
from selftune.domain import Governance, Mode, Reason
from selftune.governing import backed
from selftune.lifecycle import ChangeKind, Life


@dataclass(frozen=True, kw_only=True)
class Loan:
    """A running or ended arming: what was lent and what is left of it."""

    id: str
    at_ms: int
    since_ms: int  # the arming, or the newest resumption of it: what happened before was known then
    until_ms: int | None
    changes: int | None
    changes_left: int | None
    displacement: float | None  # steps of lr a rule may move from its value at arming
    base: Mapping[str, float] = field(default_factory=dict)
    crits_seen: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class ModeState:
    """The effective mode with its reason. `suspended`: dry only until the settings are whole again.

    `ended`: why a loan that was running has just ended and is not yet recorded as ended (None
    otherwise); the loop records it as `disarm`.
    """

    mode: Mode
    reason: Reason
    loan: Loan | None = None
    stopped: bool = False
    suspended: bool = False
    ended: Reason | None = None

    @property
    def live(self) -> bool:
        return self.mode is Mode.LIVE


def effective_mode(
    settings: Settings,
    governance: Sequence[Governance],
    life: Life,
    *,
    settings_valid: bool,
    chain_ok: bool,
    now_ms: int,
    crit: Reason | None = None,
    breach: Reason | None = None,
) -> ModeState:
    """The mode in force. Live only with both keys, an intact chain and valid settings.

    `crit`, `breach`: an open critical warning or a hard limit that was broken and is over; they end
    a running loan.
    """
    arming, ended_by, since_ms = _last_switch(governance, settings.governance.approvals_required)
    stopped = ended_by is not None and ended_by.kind == "stop"
    loan = _loan(arming, since_ms, settings, life) if arming is not None else None

    def dry(code: str, *, suspended: bool = False, ended: Reason | None = None, **params: Any) -> ModeState:
        return ModeState(
            mode=Mode.DRY_RUN,
            reason=Reason(code, params),
            loan=loan,
            stopped=stopped,
            suspended=suspended,
            ended=ended,
        )

    if not settings_valid:
        return dry("mode.settings_invalid", suspended=True)
    if stopped:
        return dry("mode.stopped", by=ended_by.by if ended_by else None)
    if settings.dry_run:
        return dry("mode.dry_run")  # it locks; a loan underneath is not spent by the flip
    if not chain_ok:
        return dry("mode.chain_broken")
    if ended_by is not None:
        return dry("mode.disarmed", by=ended_by.by, why=ended_by.data.get("reason"))
    free = settings.governance.approvals_required == 0
    if loan is None and not free:
        return dry("mode.not_armed")
    why = crit or (breach if loan is not None else None)
    if loan is not None and why is None:
        why = _loan_end(arming, loan, settings, life, now_ms)
    if why is not None:
        return dry("mode.loan_ended", ended=why, why=why.code)
    return ModeState(mode=Mode.LIVE, reason=Reason("mode.live_loan" if loan else "mode.live_free"), loan=loan)


def _last_switch(
    governance: Sequence[Governance], required: int
) -> tuple[Governance | None, Governance | None, int]:
    """The arming in question, what ended it (None while it runs), and since when (steady) it runs.

    `resume` lifts a stop or disarm. An arming without the signatures it needs is none, and lifts nothing.
    """
    signed = backed(governance, required)
    arming: Governance | None = None
    ended: Governance | None = None
    since_ms = 0
    for g in governance:
        if g.kind == "arm" and g.id in signed:
            arming, ended, since_ms = g, None, g.at_ms
        elif g.kind == "resume":
            ended, since_ms = None, g.at_ms
        elif g.kind in ("disarm", "stop"):
            ended = g
    return arming, ended, since_ms


def _loan(arming: Governance, since_ms: int, settings: Settings, life: Life) -> Loan:
    terms = arming.data.get("loan")
    terms = terms if isinstance(terms, Mapping) else {}
    changes = terms.get("changes")
    spent = sum(1 for c in life.changes if c.kind is ChangeKind.STEP and c.at_ms >= arming.at_ms)
    base = arming.data.get("values")
    return Loan(
        id=arming.id,
        at_ms=arming.at_ms,
        since_ms=since_ms,
        until_ms=_instant_ms(terms.get("until")),
        changes=changes if isinstance(changes, int) else None,
        changes_left=max(0, changes - spent) if isinstance(changes, int) else None,
        displacement=float(terms["displacement"])
        if isinstance(terms.get("displacement"), int | float)
        else None,
        base={r: float(v) for r, v in base.items()} if isinstance(base, Mapping) else {},
        crits_seen=frozenset(str(c) for c in arming.data.get("crits") or ()),
    )


def _loan_end(
    arming: Governance | None, loan: Loan, settings: Settings, life: Life, now_ms: int
) -> Reason | None:
    """Why the loan is over by its own terms; None while it runs."""
    if arming is not None and arming.data.get("settings") != settings.digest:
        return Reason("loan.edit")
    if loan.until_ms is None or now_ms >= loan.until_ms:
        return Reason("loan.expired", {"until_ms": loan.until_ms})
    if loan.changes_left == 0 and life.excursion is None and life.look is None:
        return Reason("loan.changes_spent", {"observed": loan.changes, "limit": loan.changes})
    return None


def _instant_ms(text: object) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
