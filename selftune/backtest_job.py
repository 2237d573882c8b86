"""The worker of one backtest: `python -m selftune.backtest_job ROOT RUN_ID`, a process of its own.

Answers to the files of its run alone: takes its lock, says how far it is, leaves result and end on disk.
Whatever happens, the run has an end in words; a kill leaves the lock free, and readers say `interrupted`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from selftune.backtest import run
from selftune.backtest_pool import KIND, Say, quiet
from selftune.backtest_result import Result
from selftune.backtest_runs import DATA, Cancelled, Progress, State, lock_of, request_of, write_result
from selftune.domain import InputError, LockHeld, Reason, SelftuneError, UnknownId
from selftune.locks import held_for_life


def work(root: Path, run_id: str) -> Result | None:
    """The result, on disk as well; None when it was cancelled or failed, which then is on disk.

    Raises: LockHeld when another process works on this run.
    """
    try:
        return carry_out(root, run_id)
    except LockHeld:
        raise
    except (Cancelled, SelftuneError):
        return None  # its end is on disk, in words
    except Exception:  # the one catch of this process: nobody watches its output
        return None


def carry_out(root: Path, run_id: str, also: Say = quiet) -> Result:
    """The result, on disk as well; whatever happens, the run's end is. `also` hears how far it is.

    Raises: what `backtest.run` does, Cancelled, LockHeld.
    """
    with held_for_life(lock_of(root, run_id)):
        progress, folder = Progress(root, run_id), lock_of(root, run_id).parent / DATA

        def say(share: float) -> None:
            progress(share)
            also(share)

        try:
            say(0.0)
            result = run(root, request_of(root, run_id), say, folder=folder)
            progress.leave_if_asked()  # in its last moments too, or its owner would get what was called off
            write_result(root, run_id, result)
        except BaseException as error:
            state, why = _end(error)
            progress.say(state, share=0.0, error=why)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        progress.say(State.DONE, share=1.0)
        also(1.0)
        return result


def _end(error: BaseException) -> tuple[State, Reason | None]:
    """How a run ends that has no result, and why."""
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return State.CANCELLED, None
    if isinstance(error, SelftuneError):
        return State.FAILED, reason_of(error)
    return State.FAILED, Reason("backtest.fault", {"detail": f"{type(error).__name__}: {error}"[:300]})


def reason_of(error: SelftuneError) -> Reason:
    """Why it could not be done, for the catalogue: a problem keeps its own sentence (`problem.<code>`)."""
    if isinstance(error, InputError) and error.problems:
        p = error.problems[0]
        return Reason(f"problem.{p.code}", {"file": p.file, "line": p.line, "key": p.key, **p.params})
    if isinstance(error, UnknownId):
        return error.reason
    return Reason("backtest.fault", {"detail": str(error)[:300]})


def main(argv: Sequence[str]) -> int:
    """0 when there is a result. Never a traceback: the status file says why not."""
    root, run_id = Path(argv[0]), argv[1]
    if hasattr(os, "nice"):
        os.nice(KIND)
    try:
        return 0 if work(root, run_id) is not None else 1
    except LockHeld:
        return 5


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
