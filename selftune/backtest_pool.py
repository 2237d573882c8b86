"""Work spread over processes: any `concurrent.futures.Executor`, by default a process pool.

Answers "do these tasks, in any order, and give the results in theirs". A result never depends on how many
workers there are. Tasks are values; a cluster's executor may take the pool's place.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from selftune import lifeline

Task = TypeVar("Task")
Done = TypeVar("Done")
Say = Callable[[float], None]
POLL_S = 0.25  # how soon a cancel is seen
# linear algebra on many small matrices, for which a second thread costs more than it saves; arrays that come
# and go by the thousand a second: memory given back each time is fetched again, page by page
WORKERS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 27),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TOP_PAD_": str(1 << 25),
}
KIND = 10  # niceness of a worker: the loop and the dashboard come first


def quiet(share: float) -> None:
    """Says nothing."""


def share_of(say: Say, start: float, part: float) -> Say:
    """`say` for one part of the work, which begins at `start` of the whole."""
    return lambda x: say(start + part * min(1.0, x))


@contextmanager
def pool(workers: int | None = None) -> Iterator[Executor]:
    """A process pool of `workers` (default: one a core). At an error what has not begun is dropped.

    Spawned, not forked: a fork would keep the job's lock alive after the job. Its processes leave with it.
    """
    os.environ.update(WORKERS)
    found = ProcessPoolExecutor(
        max_workers=workers or os.cpu_count() or 1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_settle,
        initargs=(os.getpid(),),
    )
    try:
        yield found
    except BaseException:
        for process in list(found._processes.values()):
            process.terminate()
        found.shutdown(wait=False, cancel_futures=True)
        raise
    found.shutdown()


def _settle(parent: int) -> None:
    os.environ[lifeline.PARENT] = str(parent)
    lifeline.tie()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us, who then ends us
    # what a walk makes lives long and holds no cycles: looking for some at every 700 objects is a tenth of it
    gc.set_threshold(100_000, 50, 100)
    if hasattr(os, "nice"):
        os.nice(max(0, KIND - os.nice(0)))


def spread(
    work: Callable[[Task, Say], Done], tasks: Sequence[Task], executor: Executor | None, say: Say = quiet
) -> list[Done]:
    """The results in the order of `tasks`; here and now without an executor. `say` may raise to stop it."""
    if executor is None or len(tasks) <= 1:
        part = 1 / max(1, len(tasks))
        return [work(t, share_of(say, i * part, part)) for i, t in enumerate(tasks)]
    futures: list[Future[Done]] = [executor.submit(work, t, quiet) for t in tasks]
    left = set(futures)
    try:
        while left:
            _, left = wait(left, timeout=POLL_S, return_when=FIRST_COMPLETED)
            say(1 - len(left) / len(futures))
    except BaseException:
        for f in left:
            f.cancel()
        raise
    return [f.result() for f in futures]
