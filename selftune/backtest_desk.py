"""Who may start and cancel a backtest, and how many may run at once: the door for pages.

Answers "may this person, now?" at the write itself. What a run is and does is `backtest_runs.py`'s.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from selftune import access, backtest_runs
from selftune.access import Action
from selftune.backtest_request import Request
from selftune.domain import Reason, Refused, Role, UnknownId

AT_ONCE = 2  # a machine that also runs the loop and the tuned system has no more to spare
_COUNTING = Lock()  # two clicks at once are one after the other: the second counts the first one's run


def ask(root: Path, request: Request, *, role: Role) -> str:
    """The id of the new run.

    Raises: Refused (role, too many at once), InputError, SettingsError, UnknownId, StorageError.
    """
    access.require(role, Action.BACKTEST)
    with _COUNTING:
        busy = sum(not r.status.over for r in backtest_runs.listing(root))
        if busy >= AT_ONCE:
            raise Refused(Reason("backtest.busy", {"observed": busy, "limit": AT_ONCE}))
        return backtest_runs.start(root, request)


def cancel(root: Path, run_id: str, *, role: Role) -> None:
    """Asks the run to leave. Raises: Refused (role), UnknownId (over, or no such run), StorageError."""
    access.require(role, Action.BACKTEST)
    if not backtest_runs.cancel(root, run_id):
        raise UnknownId("backtest.nothing_to_cancel")
