"""A sweep: many variants of one candidate's settings, each tried like any candidate.

Answers "which of these settings would have done best?". Variants are tasks for any executor; a variant whose
settings would not be valid is a point with its reason, not an end of the sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from selftune.backtest_data import Handle
from selftune.backtest_entries import Entry, entry
from selftune.backtest_pool import Say, spread
from selftune.backtest_replay import replay_all
from selftune.backtest_request import Candidate, Method, Mode, Request, Sweep
from selftune.backtest_result import Outcome, Support, SweepPoint
from selftune.backtest_simulate import planted, simulated
from selftune.config import edit
from selftune.domain import Reason, SettingsError

RANK = {Support.OK: 0, Support.PARTIAL: 1, Support.NONE: 2}
DRAWS = 4  # lives of one variant: many variants tell more than many lives of each


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One point of the sweep: what is set, in which text, and on what it is tried."""

    values: Mapping[str, float]
    candidate: Candidate
    request: Request
    data: Handle | None


def swept(
    request: Request, data: Handle | None, executor: Executor | None, say: Say
) -> tuple[SweepPoint, ...]:
    """Every variant, best first: those judged as a whole, then those judged in part, then the others."""
    if request.sweep is None:
        return ()
    alone = replace(request, baselines=(), sweep=None)
    tasks = [
        Variant(values=v, candidate=request.candidates[0], request=alone, data=data)
        for v in points(request.sweep, request.seed)
    ]
    return tuple(sorted(spread(tried, tasks, executor, say), key=ranked))


def ranked(p: SweepPoint) -> tuple[float, ...]:
    """Best first, but a score of a part of the windows is no match for one of all of them."""
    score = -2.0 if p.score is None else p.score.mean
    return (RANK[p.support], -score, float(p.changes), *p.values.values())


def points(sweep: Sweep, seed: int) -> list[dict[str, float]]:
    """What each variant sets: every combination of a grid, or points that fill the box evenly (Sobol)."""
    names = [a.path for a in sweep.axes]
    if sweep.method is Method.GRID:
        axes = [np.linspace(a.lo, a.hi, a.n).tolist() for a in sweep.axes]
        rows: Sequence[Sequence[float]] = list(product(*axes))
    else:
        from scipy.stats import qmc  # heavy: only here, never in the loop

        unit = qmc.Sobol(len(names), seed=seed).random_base2(max(0, (sweep.points - 1).bit_length()))
        lo, hi = [a.lo for a in sweep.axes], [a.hi for a in sweep.axes]
        rows = (np.array(lo) + unit[: sweep.points] * (np.array(hi) - np.array(lo))).tolist()
    return [{n: round(float(x), 9) for n, x in zip(names, row, strict=True)} for row in rows]


def tried(v: Variant, say: Say) -> SweepPoint:
    """How that variant did, or why it cannot be."""
    none = SweepPoint(values=v.values, score=None, support=Support.NONE, changes=0, rollbacks=0, worst=None)
    try:
        one = _entry(v)
    except SettingsError as error:
        p = error.problems[0]
        return replace(none, problem=Reason(f"problem.{p.code}", {"key": p.key, **p.params}))
    o = _outcome(one, v, say)
    return SweepPoint(
        values=v.values, score=o.score, support=o.support, changes=o.changes, rollbacks=o.rollbacks,
        worst=None if o.worst is None else o.worst.against,
    )  # fmt: skip


def _entry(v: Variant) -> Entry:
    """The variant's settings. Raises: SettingsError."""
    changes: dict[str | tuple[str, ...], float | bool | int | str | None] = {
        path: int(x) if x == int(x) else x for path, x in v.values.items()
    }
    text = edit(v.candidate.text or "", changes)
    return entry(replace(v.candidate, text=text), "candidate", live=v.request.mode is not Mode.REPLAY)


def _outcome(one: Entry, v: Variant, say: Say) -> Outcome:
    if v.request.mode is Mode.PLANT:
        return planted([one], v.request, None, say, draws=2)[0]
    assert v.data is not None
    if v.request.mode is Mode.SIMULATE:
        return simulated(v.data, [one], v.request, None, say, draws=DRAWS)[0]
    return replay_all(v.data, [one], None, say)[0]


__all__ = ["Variant", "points", "ranked", "swept", "tried"]
