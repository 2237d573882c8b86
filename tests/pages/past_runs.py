"""Backtests on disk for the tests of pages: one that really ran, and one in each state it can be in."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from selftune import backtest, backtest_runs
from selftune.backtest_request import Axis, Candidate, Request, Source, Sweep
from selftune.backtest_result import Interval, Outcome, Result, Stretch, Support, SweepPoint
from selftune.backtest_runs import State, Status, lock_of, prepare, read, write_result, write_status
from selftune.config import edit
from selftune.domain import PolicyName, Reason
from selftune.ledger import wall_ms
from selftune.locks import held_for_life

MINUTE_MS = 60_000


@dataclass
class Runs:
    """A root with runs, by the name of their state. `held`: what makes a run look alive, while it is open."""

    root: Path
    ids: dict[str, str] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)


def really_ran(root: Path, request: Request) -> str:
    """A run with the engine's own result, worked out in this process."""
    run_id = prepare(root, request)
    write_result(root, run_id, backtest.run(root, backtest_runs.request_of(root, run_id)))
    ended(root, run_id, State.DONE)
    return run_id


def ended(root: Path, run_id: str, state: State, error: Reason | None = None) -> None:
    now = wall_ms()
    write_status(
        root, run_id, Status(state=state, share=1.0, started_ms=now - 5000, ended_ms=now, error=error)
    )


def drafted(root: Path, **changes: float) -> Candidate:
    """The settings in force with some keys changed (`__` for a dot), as a draft."""
    text = (root / "configs" / "self_tuning.yaml").read_text(encoding="utf-8")
    named = {k.replace("__", "."): v for k, v in changes.items()}
    return Candidate(name="draft", source=Source.DRAFT, text=edit(text, named))


def every_state(root: Path) -> Runs:
    """One run in every state. The root has metrics and valid settings."""
    found = Runs(root=root)
    both = (Candidate(name="in_force"), Candidate(name="policy:adaptive", policy=PolicyName.ADAPTIVE))
    found.ids["done"] = really_ran(root, Request(candidates=both))
    draft = drafted(root, targets__risk_band__max=0.27)
    found.ids["draft"] = really_ran(root, Request(candidates=(draft, Candidate(name="in_force"))))
    found.ids["unsupported"] = with_outcome(root, found.ids["done"], support=Support.NONE)
    found.ids["better"] = with_outcome(root, found.ids["done"], gain=0.02)
    found.ids["worse"] = with_outcome(root, found.ids["done"], gain=-0.02)
    found.ids["sweep"] = with_sweep(root, found.ids["done"])
    for state, error in (
        (State.FAILED, Reason("problem.backtest_no_rows", {})),
        (State.CANCELLED, None),
        (State.INTERRUPTED, None),
    ):
        found.ids[state.value] = prepare(root, Request())
        ended(root, found.ids[state.value], state, error)
    queued = found.ids["queued"] = prepare(root, Request())
    # a worker that never comes is told after a minute; this one stays on its way for the whole module
    write_status(root, queued, Status(state=State.QUEUED, started_ms=wall_ms() + 3_600_000))
    running = found.ids["running"] = prepare(root, Request())
    found.held.enter_context(held_for_life(lock_of(root, running)))
    write_status(root, running, Status(state=State.RUNNING, share=0.42, eta_s=75.0, started_ms=wall_ms()))
    return found


def with_outcome(root: Path, like: str, *, support: Support = Support.OK, gain: float = 0.0) -> str:
    """A run like that one, whose first candidate found just this."""
    run = read(root, like)
    assert run is not None and run.result is not None
    result = run.result
    first = (
        told(result.outcomes[0], result, gain)
        if support is Support.OK
        else silent(result.outcomes[0], result)
    )
    run_id = prepare(root, run.request)
    write_result(root, run_id, replace(result, outcomes=(first, *result.outcomes[1:])))
    ended(root, run_id, State.DONE)
    return run_id


def with_sweep(root: Path, like: str) -> str:
    """A run like that one that tried three values: one told, one that cannot be, one not valid."""
    run = read(root, like)
    assert run is not None and run.result is not None
    axis = Axis(path="rules.risk_max.lr", lo=0.01, hi=0.03, n=3)
    run_id = prepare(root, replace(run.request, sweep=Sweep(axes=(axis,))))
    none = SweepPoint(
        values={axis.path: 0.02}, score=None, support=Support.NONE, changes=2, rollbacks=0, worst=None
    )
    one = replace(
        none,
        values={axis.path: 0.01},
        score=Interval(mean=0.88, lo=0.86, hi=0.9),
        support=Support.OK,
        worst=-0.01,
    )
    bad = replace(none, values={axis.path: 0.03}, problem=Reason("problem.backtest_no_rows", {}))
    write_result(root, run_id, replace(run.result, sweep=(one, none, bad)))
    ended(root, run_id, State.DONE)
    return run_id


def told(o: Outcome, result: Result, gain: float) -> Outcome:
    worst = Stretch(from_ms=result.from_ms, to_ms=result.from_ms + 10 * MINUTE_MS, score=0.7, against=-0.031)
    return replace(
        o, support=Support.OK, support_share=0.93, changes=5, worst=worst, unsupported=(),
        score=Interval(mean=0.88, lo=0.87, hi=0.89), gain=Interval(mean=gain, lo=gain - 0.01, hi=gain + 0.01),
    )  # fmt: skip


def silent(o: Outcome, result: Result) -> Outcome:
    whole = Stretch(from_ms=result.from_ms, to_ms=result.to_ms)
    return replace(
        o, support=Support.NONE, support_share=0.04, score=None, gain=None, worst=None, unsupported=(whole,)
    )
