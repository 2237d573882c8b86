"""The tie of a child of `up` to its supervisor: when that is killed, its children leave as well.

Answers nothing; ends this process by SIGTERM once its parent is gone. Without `SELFTUNE_PARENT` in the
environment, and on Windows (a process keeps its parent's number there), it does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT = "SELFTUNE_PARENT"  # the pid of the supervisor
LOOK_S = 1.0


def tie() -> bool:
    """Whether this process now leaves when its supervisor does."""
    said = os.environ.pop(PARENT, "")  # ours alone: what we start may outlive us
    if os.name == "nt" or not said.isdecimal():
        return False
    threading.Thread(target=_watch, args=(int(said),), name="lifeline", daemon=True).start()
    return True


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)  # a tick under way is finished: the loop leaves on this signal
