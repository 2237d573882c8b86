"""The backtest: candidates and baselines through `cycle.plan_of` itself, on a fake clock; one result.

Answers "how would these settings and policies have done?" on the record, on a model learned from it, or on
the built-in plant. Never a second copy of the decision. Deterministic: same files, same request, same result,
however many processes work at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selftune import __version__
from selftune.backtest_data import Handle, Recorded, read_record
from selftune.backtest_pool import Say, pool, quiet, share_of, spread
from selftune.backtest_replay import legs, told, walked
from selftune.backtest_request import Baseline, Candidate, Request
from selftune.backtest_result import Outcome, Result
from selftune.backtest_score import Ledger, choices, outcome, seen_windows
from selftune.config import edit, parse
from selftune.domain import PolicyName, Reason
from selftune.settings import METRICS_FILE, Settings

POLICY_OF = {Baseline.NONE: PolicyName.NONE, Baseline.HEURISTIC: PolicyName.HEURISTIC}
READING = 0.2  # of the work
POOL_BYTES = 32 << 20  # a metrics file of this size is worth the second that other processes take to start


def run(root: Path, request: Request, say: Say = quiet, *, folder: Path | None = None) -> Result:
    """The answer to the request, whose candidates carry their text. Raises: InputError, SettingsError.

    `folder`: where the data may be laid down for other processes; without it all is done in this one.
    """
    with crew(root, request, folder) as executor:
        return replayed(root, request, say, executor, folder)


@contextmanager
def crew(root: Path, request: Request, folder: Path | None) -> Iterator[Executor | None]:
    """A process pool where the work is worth one."""
    try:
        size = (root / METRICS_FILE).stat().st_size
    except OSError:
        size = 0
    if folder is None or (size < POOL_BYTES and request.sweep is None):
        yield None
    else:
        with pool() as executor:
            yield executor


# ----------------------------------------------------------------------------- who runs
@dataclass(frozen=True, kw_only=True)
class Entry:
    """One candidate or baseline, ready to run. `given`: its settings as they stand; `settings`: as run."""

    who: Ledger
    raw: bytes
    settings: Settings


def entries(request: Request, *, live: bool = False) -> list[Entry]:
    """The candidates, then those baselines that are policies, under the first candidate's settings."""
    first = request.candidates[0]
    found = [entry(c, "candidate", live=live) for c in request.candidates]
    for b in request.against:
        if b in POLICY_OF:
            one = Candidate(name=b.value, policy=POLICY_OF[b], text=first.text)
            found.append(entry(one, b.value, live=live))
    return found


def entry(c: Candidate, role: str, *, live: bool = False) -> Entry:
    """The candidate with its settings as they are run. Raises: SettingsError."""
    assert c.text is not None, "prepare() gave it one"
    raw, settings = variant(c.text, policy=c.policy, live=live)
    who = Ledger(name=c.name, role=role, policy=settings.policy.value, config=parse(c.text).digest)
    return Entry(who=who, raw=raw, settings=settings)


def variant(text: str, *, policy: PolicyName | None, live: bool = False) -> tuple[bytes, Settings]:
    """The settings' bytes as a backtest runs them, and what they mean. Raises: SettingsError.

    `live`: the loop itself acts (on a plant or a model); else it proposes only.
    """
    changes: dict[str | tuple[str, ...], float | bool | int | str | None] = {"strategy.dry_run": not live}
    if live:
        changes["governance.approvals_required"] = 0
    if policy is not None:
        changes["strategy.policy"] = policy.value
    raw = edit(text, changes).encode("utf-8")
    return raw, parse(raw)


# ----------------------------------------------------------------------------- replay
def replayed(
    root: Path, request: Request, say: Say, executor: Executor | None, folder: Path | None
) -> Result:
    """Every candidate on the record."""
    found = entries(request)
    record = read_record(
        root, found[0].settings, from_ms=request.from_ms, to_ms=request.to_ms, executor=executor,
        say=share_of(say, 0.0, READING),
    )  # fmt: skip
    data = handle(record, executor, folder)
    outcomes = replay_all(data, found, executor, share_of(say, READING, 1 - READING))
    return result_of(request, record, found[0].who.config, outcomes, notes(record, request))


def handle(record: Recorded, executor: Executor | None, folder: Path | None) -> Handle:
    """The record as tasks get it."""
    if executor is None or folder is None:
        return Handle(record=record)
    record.put(folder)
    return Handle(folder=str(folder))


def replay_all(data: Handle, found: list[Entry], executor: Executor | None, say: Say) -> list[Outcome]:
    """The outcome of each, in their order."""
    per = [legs(data, e.raw, e.settings) for e in found]
    stories = iter(spread(walked, [leg for group in per for leg in group], executor, say))
    record, outcomes = data.get(), []
    for e, group in zip(found, per, strict=True):
        story = told([next(stories) for _ in group])
        seen = seen_windows(record.bins, record.events, record.regimes_ms, e.settings)
        outcomes.append(outcome(e.who, seen, story, choices(seen, ())))
    return outcomes


def notes(record: Recorded, request: Request) -> tuple[Reason, ...]:
    """What a reader of the result should know of the data."""
    found = []
    if not record.within:
        found.append(Reason("backtest.note_no_events", {}))
    return tuple(found)


def result_of(
    request: Request, record: Recorded, config: str, outcomes: list[Outcome], said: tuple[Reason, ...]
) -> Result:
    return Result(
        mode=request.mode.value, data_sha256=record.digest(), config=config, version=__version__,
        seed=request.seed, from_ms=record.from_ms, to_ms=record.to_ms, rows=len(record.samples),
        events=len(record.within), outcomes=tuple(outcomes), notes=said,
    )  # fmt: skip
