"""The backtest: candidates and baselines through `cycle.plan_of` itself, on a fake clock; one result.

Answers "how would these settings and policies have done?" on the record, on a model learned from it, or on
the built-in plant. Never a second copy of the decision. Deterministic: same files, same request, same result,
however many processes work at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from selftune import __version__
from selftune.backtest_data import Handle, Recorded, read_record
from selftune.backtest_entries import entries, reading
from selftune.backtest_pool import Say, pool, quiet, share_of
from selftune.backtest_replay import replay_all
from selftune.backtest_request import Mode, Request
from selftune.backtest_result import Outcome, Result
from selftune.backtest_simulate import LONGEST_S, plant_digest, plant_period, planted, simulated
from selftune.backtest_sweep import swept
from selftune.domain import Reason
from selftune.settings import METRICS_FILE

READING = 0.2  # of the work
SWEEP_FROM = 0.3  # of the rest, where there is a sweep: its variants are most of it
POOL_BYTES = 32 << 20  # a metrics file of this size is worth the second that other processes take to start


def run(root: Path, request: Request, say: Say = quiet, *, folder: Path | None = None) -> Result:
    """The answer to the request, whose candidates carry their text. Raises: InputError, SettingsError.

    `folder`: where the data may be laid down for other processes; without it all is done in this one.
    """
    with crew(root, request, folder) as executor:
        return answered(root, request, say, executor, folder)


@contextmanager
def crew(root: Path, request: Request, folder: Path | None) -> Iterator[Executor | None]:
    """A process pool where the work is worth one."""
    closed = request.mode is not Mode.REPLAY
    try:
        size = (root / METRICS_FILE).stat().st_size
    except OSError:
        size = 0
    if folder is None or (size < POOL_BYTES and request.sweep is None and not closed):
        yield None
    else:
        with pool() as executor:
            yield executor


# ----------------------------------------------------------------------------- each mode
def answered(
    root: Path, request: Request, say: Say, executor: Executor | None, folder: Path | None
) -> Result:
    """Every candidate and baseline, where the mode says."""
    if request.mode is Mode.PLANT:
        return _on_plant(request, executor, say)
    closed = request.mode is Mode.SIMULATE
    found = entries(request, live=closed)
    record = read_record(
        root, reading(found), from_ms=request.from_ms, to_ms=request.to_ms, executor=executor,
        say=share_of(say, 0.0, READING),
    )  # fmt: skip
    data, whole = handle(record, executor, folder), share_of(say, READING, 1 - READING)
    here = share_of(whole, 0.0, SWEEP_FROM if request.sweep else 1.0)
    outcomes = (
        simulated(data, found, request, executor, here) if closed else replay_all(data, found, executor, here)
    )
    variants = swept(request, data, executor, share_of(whole, SWEEP_FROM, 1 - SWEEP_FROM))
    return replace(
        result_of(request, record, found[0].who.config, outcomes, notes(record, request)), sweep=variants
    )


def _on_plant(request: Request, executor: Executor | None, say: Say) -> Result:
    found = entries(request, live=True)
    from_ms, to_ms = plant_period(request)
    here = share_of(say, 0.0, SWEEP_FROM if request.sweep else 1.0)
    outcomes = planted(found, request, executor, here)
    variants = swept(request, None, executor, share_of(say, SWEEP_FROM, 1 - SWEEP_FROM))
    return Result(
        mode=request.mode.value, data_sha256=plant_digest(), config=found[0].who.config, version=__version__,
        seed=request.seed, from_ms=from_ms, to_ms=to_ms, rows=0, events=0, outcomes=tuple(outcomes),
        sweep=variants,
    )  # fmt: skip


def handle(record: Recorded, executor: Executor | None, folder: Path | None) -> Handle:
    """The record as tasks get it."""
    if executor is None or folder is None:
        return Handle(record=record)
    record.put(folder)
    return Handle(folder=str(folder))


def notes(record: Recorded, request: Request) -> tuple[Reason, ...]:
    """What a reader of the result should know of the data."""
    found = []
    if not record.within:
        found.append(Reason("backtest.note_no_events", {}))
    if request.mode is Mode.SIMULATE and record.to_ms - record.from_ms > LONGEST_S * 1000:
        found.append(Reason("backtest.note_last_part", {"seconds_s": LONGEST_S}))
    return tuple(found)


def result_of(
    request: Request, record: Recorded, config: str, outcomes: list[Outcome], said: tuple[Reason, ...]
) -> Result:
    return Result(
        mode=request.mode.value, data_sha256=record.digest(), config=config, version=__version__,
        seed=request.seed, from_ms=record.from_ms, to_ms=record.to_ms, rows=len(record.samples),
        events=len(record.within), outcomes=tuple(outcomes), notes=said,
    )  # fmt: skip
