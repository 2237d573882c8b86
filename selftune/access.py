"""What each role may do. Asked in the core at every write, never in the browser only.

Pure. Source: dashboard.md (identity), contract.md (rungs). docs/operating.md shows the table.
"""

from __future__ import annotations

from enum import StrEnum

from selftune.domain import Reason, Refused, Role


class Action(StrEnum):
    """Everything a person can cause."""

    VIEW = "view"
    EXPORT = "export"
    APPLY = "apply"
    REJECT = "reject"
    SNOOZE = "snooze"
    ROLLBACK = "rollback"
    STOP = "stop"
    RESUME = "resume"
    RELEASE = "release"
    EDIT = "edit"  # targets, weights, windows, tighter bounds
    PROPOSE_LOOSER = "propose_looser"
    BACKTEST = "backtest"
    REQUEST_REVIEW = "request_review"
    SIGN = "sign"
    ACCOUNTS = "accounts"


_OPERATOR = frozenset(Action) - {Action.SIGN, Action.ACCOUNTS}
_MAY: dict[Role, frozenset[Action]] = {
    Role.VIEWER: frozenset({Action.VIEW, Action.EXPORT}),
    Role.OPERATOR: _OPERATOR,
    Role.REVIEWER: frozenset({Action.VIEW, Action.EXPORT, Action.SIGN}),
    Role.ADMIN: frozenset({Action.VIEW, Action.EXPORT, Action.ACCOUNTS}),
}


def may(role: Role, action: Action) -> bool:
    """True when this role may do this."""
    return action in _MAY[role]


def require(role: Role, action: Action) -> None:
    """Nothing, or the refusal that says who may. Raises: Refused."""
    if not may(role, action):
        able = [r.value for r in Role if may(r, action)]
        raise Refused(Reason("access.denied", {"role": role.value, "action": action.value, "roles": able}))
