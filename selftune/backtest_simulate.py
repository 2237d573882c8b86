"""Simulate and plant: many lives of each candidate in a closed loop, and one figure with a band from them.

Answers "which would have done best, how sure is that?". Simulate draws responses that the record allows and
lives through its last hours under each; plant lives on the built-in plant under several seeds. What was drawn
is the same for every candidate, so that differences are not chance. Deterministic in the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from selftune.backtest_best import best, known
from selftune.backtest_closed import Lived, tile_means, tiles
from selftune.backtest_data import Handle
from selftune.backtest_entries import Entry, reading
from selftune.backtest_figures import band, curve, outside, scores, worst
from selftune.backtest_life import Life, Lives, learned_of, live
from selftune.backtest_pool import Say, share_of, spread
from selftune.backtest_request import Baseline, Request
from selftune.backtest_result import MOST_PROPOSALS, Outcome, Support, support_of
from selftune.backtest_score import Who, tripped
from selftune.domain import InputError, PolicyName, Problem
from selftune.plants import seed_plant
from selftune.settings import Settings

DRAWS = 16  # responses drawn from what the record allows; the first is their mean
PLANT_SEEDS = 4
LONGEST_S = 12 * 3600.0  # of the record, its last part
PLANT_S = 6 * 3600.0
PLANT_MS = 1_767_225_600_000  # the plant's time begins with 2026 UTC: it must begin somewhere


def simulated(
    data: Handle,
    found: Sequence[Entry],
    request: Request,
    executor: Executor | None,
    say: Say,
    draws: int = DRAWS,
) -> list[Outcome]:
    """Every candidate and baseline in the model. Raises: InputError where the record teaches nothing."""
    record, first = data.get(), reading(found)
    if learned_of(data, first) is None:
        raise InputError(Problem(code="backtest_nothing_learned", file=first.metrics_source))
    begin = max(record.from_ms, record.to_ms - round(LONGEST_S * 1000))
    base = Life(
        draw=0, entry=None, settings=first, seed=request.seed, from_ms=begin, to_ms=record.to_ms, data=data
    )
    return _all(base, found, request, draws, executor, say)


def planted(
    found: Sequence[Entry], request: Request, executor: Executor | None, say: Say, draws: int = PLANT_SEEDS
) -> list[Outcome]:
    """Every candidate and baseline on the built-in plant. Raises: InputError for other names."""
    spec, s = seed_plant(), reading(found)
    if set(s.metrics) - set(spec.names) or set(s.rules) - set(spec.init):
        params = {"metrics": ", ".join(spec.names), "rules": ", ".join(spec.init)}
        raise InputError(Problem(code="backtest_other_plant", file="", params=params))
    from_ms, to_ms = plant_period(request)
    base = Life(draw=0, entry=None, settings=s, seed=request.seed, from_ms=from_ms, to_ms=to_ms)
    return _all(base, found, request, draws, executor, say)


def plant_period(request: Request) -> tuple[int, int]:
    """The plant's hours: as long as the period asked for, at most `LONGEST_S`."""
    if request.from_ms is None or request.to_ms is None:
        return PLANT_MS, PLANT_MS + round(PLANT_S * 1000)
    return request.from_ms, min(request.to_ms, request.from_ms + round(LONGEST_S * 1000))


def plant_digest() -> str:
    """What stands for the data of a run on the plant."""
    return hashlib.sha256(repr(seed_plant()).encode()).hexdigest()


def _all(
    base: Life, found: Sequence[Entry], request: Request, draws: int, executor: Executor | None, say: Say
) -> list[Outcome]:
    lives = [replace(base, draw=k, entry=e) for e in found if _acts(e) for k in range(draws)]
    still = [replace(base, draw=k) for k in range(draws)]
    done = spread(live, [*still, *lives], executor, share_of(say, 0.0, 0.95))
    nobody, rest = done[:draws], iter(done[draws:])
    own = {k: [next(rest) for _ in range(draws)] for k, e in enumerate(found) if _acts(e)}
    outcomes = []
    for k, e in enumerate(found):
        mine = own.get(k, nobody)
        quiet_lives = _lives(nobody, e.settings, base)
        outcomes.append(_outcome(e.who, _lives(mine, e.settings, base), quiet_lives, nobody[0], request))
    for b in request.against:
        extra = (
            _recorded(base, draws)
            if b is Baseline.RECORD
            else best(base, draws)
            if b is Baseline.ORACLE
            else None
        )
        if extra is not None:
            who = Who(name=b.value, role=b.value, policy=b.value, config=found[0].who.config)
            calm = _lives(nobody, found[0].settings, base)
            outcomes.append(_outcome(who, extra, calm, nobody[0], request))
    say(1.0)
    return outcomes


def _acts(e: Entry) -> bool:
    return e.settings.policy is not PolicyName.NONE


def _lives(done: Sequence[Lived], settings: Settings, base: Life) -> Lives:
    return Lives(
        score=np.stack([scores(settings, x.means, x.metrics) for x in done]),
        known=np.stack([known(x.values, settings, base) for x in done]),
        first=done[0],
        changes=float(np.mean([len(x.steps) for x in done])),
        rollbacks=float(np.mean([x.story.rollbacks for x in done])),
    )


def _recorded(base: Life, draws: int) -> Lives:
    """What really happened: the record's own metrics, the same under every draw."""
    assert base.data is not None, "not offered on the plant"
    record = base.data.get()
    starts = tiles(base.settings, base.from_ms, base.to_ms)
    score = scores(base.settings, tile_means(record.bins, base.settings, starts))
    moves = sum(base.from_ms <= e.ts_ms < base.to_ms for e in record.within)
    return Lives(score=np.tile(score, (draws, 1)), known=np.ones((draws, len(score))), changes=float(moves))


def _outcome(who: Who, mine: Lives, still: Lives, calm: Lived, request: Request) -> Outcome:
    share = float(mine.known.mean()) if mine.known.size else 0.0
    support = support_of(share) if np.isfinite(mine.score).any() else Support.NONE
    told = support is not Support.NONE
    first = mine.first
    starts = calm.start_ms
    gain = mine.score - still.score
    return Outcome(
        name=who.name, role=who.role, policy=who.policy, config=who.config,
        score=band(mine.score, request.seed) if told else None,
        gain=band(gain, request.seed) if told and who.role != "none" else None,
        support_share=share, support=support, changes=round(mine.changes), rollbacks=round(mine.rollbacks),
        looks=first.story.looks if first is not None else 0,
        worst=worst(starts, mine.score, gain) if told else None,
        curve=curve(starts, mine.score),
        proposals=tuple(first.steps[:MOST_PROPOSALS]) if first is not None else (),
        guards=tripped(first.story) if first is not None else (),
        unsupported=outside(starts, mine.known),
    )  # fmt: skip
