"""Simulate and plant: many lives of each candidate in a closed loop, and one figure with a band from them.

Answers "which would have done best, how sure is that?". Simulate draws responses that the record allows and
lives through its last hours under each; plant lives on the built-in plant under several seeds. What was drawn
is the same for every candidate, so that differences are not chance. Deterministic in the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from selftune.backtest_closed import (
    Lived,
    PlantSystem,
    Shifted,
    System,
    held,
    lived,
    tile_means,
    tiles,
    values_at,
)
from selftune.backtest_data import Handle, Recorded
from selftune.backtest_entries import Entry, reading
from selftune.backtest_pool import Say, share_of, spread
from selftune.backtest_request import Baseline, Request
from selftune.backtest_response import Response, Surface, learned, scaled
from selftune.backtest_result import (
    MOST_PROPOSALS,
    Curve,
    Interval,
    Outcome,
    Stretch,
    Support,
    support_of,
)
from selftune.backtest_score import (
    BUCKETS,
    STRETCH_S,
    Who,
    all_quiet,
    tripped,
)
from selftune.domain import InputError, PolicyName, Problem
from selftune.objective import weighted
from selftune.plants import oracle, seed_plant
from selftune.series import Floats, Int64s
from selftune.settings import Settings
from selftune.simulate import Plant

DRAWS = 16  # responses drawn from what the record allows; the first is their mean
PLANT_SEEDS = 4
LONGEST_S = 12 * 3600.0  # of the record, its last part
PLANT_S = 6 * 3600.0
PLANT_MS = 1_767_225_600_000  # the plant's time begins with 2026 UTC: it must begin somewhere
RESAMPLES = 400
BLOCK = 6  # tiles resampled together: neighbours are alike
GRID = 15
CLOUD = 300
OVER_HARD = 0.02  # share of tiles beyond a hard limit that bars a place from being the best


# ----------------------------------------------------------------------------- one life
@dataclass(frozen=True, kw_only=True)
class Life:
    """One life to be lived: a candidate (None: nobody acts) under draw number `draw`."""

    draw: int
    entry: Entry | None
    settings: Settings
    seed: int
    from_ms: int
    to_ms: int
    data: Handle | None = None  # None: on the plant

    def system(self) -> tuple[System, dict[str, float]]:
        """What is tuned, and the rule values that it begins at."""
        if self.data is None:
            start = {r.name: r.init for r in self.settings.rules.values()}
            seed = self.seed * 1000 + self.draw
            return PlantSystem(Plant(seed, seed_plant(), start_ms=self.from_ms, values=start)), start
        record = part_of(self.data.get(), self.from_ms, self.to_ms)
        surface = drawn(self.data, self.settings, self.seed, self.draw)
        return Shifted(record, surface, self.settings), values_at(record, self.settings, self.from_ms)


def live(life: Life, say: Say) -> Lived:
    """What became of the system in that life."""
    system, start = life.system()
    span = {"start": start, "from_ms": life.from_ms, "to_ms": life.to_ms}
    if life.entry is None:
        return held(system, life.settings, **span)  # type: ignore[arg-type]
    return lived(system, life.entry.raw, life.entry.settings, say=say, **span)  # type: ignore[arg-type]


def part_of(record: Recorded, from_ms: int, to_ms: int) -> Recorded:
    """The record of that stretch."""
    return replace(record, samples=record.samples.cut(from_ms, to_ms), from_ms=from_ms, to_ms=to_ms)


def drawn(data: Handle, settings: Settings, seed: int, draw: int) -> Surface:
    """Response number `draw` of those that the record allows; 0 is their mean."""
    response = learned_of(data, settings)
    assert response is not None, "asked before"
    if draw == 0:
        return response.drawn()
    chance = np.random.default_rng([seed, draw])
    return response.drawn(chance.standard_normal(response.means.shape))


_kept: dict[tuple[object, str], Response | None] = {}


def learned_of(data: Handle, settings: Settings) -> Response | None:
    """What the whole record teaches; kept in each process, for the lives of one run."""
    key = (data.folder or id(data.record), settings.digest)
    if key not in _kept:
        record = data.get()
        windows = all_quiet(record.bins, record.events, record.regimes_ms, settings)
        _kept.clear()
        _kept[key] = learned(windows, settings)
    return _kept[key]


# ----------------------------------------------------------------------------- all of them
@dataclass(frozen=True, kw_only=True)
class Lives:
    """What one candidate came to. Shape: `score` (draws, tiles), NaN = no data; `known` likewise."""

    score: Floats
    known: Floats
    first: Lived | None = None
    changes: float = 0.0
    rollbacks: float = 0.0


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
            else _best(base, draws)
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
        known=np.stack([_known(x.values, settings, base) for x in done]),
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


# ----------------------------------------------------------------------------- the best that was possible
def _best(base: Life, draws: int) -> Lives:
    """Under each draw the one place, of those that the record can speak of, that would have scored best."""
    rows = [_best_of(replace(base, draw=k)) for k in range(draws)]
    return Lives(score=np.stack(rows), known=np.ones((draws, len(rows[0]))))


def _best_of(life: Life) -> Floats:
    s = life.settings
    starts = tiles(s, life.from_ms, life.to_ms)
    if life.data is None:
        spec = seed_plant()
        best, _ = oracle(spec, lambda means: float(scores(s, np.array([[means[m] for m in s.metrics]]))[0]))
        system = PlantSystem(Plant(life.seed * 1000 + life.draw, spec, start_ms=life.from_ms, values=best))
        done = held(system, s, start=best, from_ms=life.from_ms, to_ms=life.to_ms)
        return scores(s, done.means)
    record = life.data.get()
    surface = drawn(life.data, s, life.seed, life.draw)
    track = [values_at(record, s, int(t)) for t in starts]
    was = surface.many(np.array([scaled(surface.rules, v) for v in track]))
    calm = tile_means(record.bins, s, starts) - was
    best_score: Floats | None = None
    for x in _places(s, _box(life)):
        means = calm + surface.many(x[None, :])
        got = scores(s, means)
        if _over(s, means) > OVER_HARD:
            continue
        if best_score is None or np.nanmean(got) > np.nanmean(best_score):
            best_score = got
    return scores(s, calm + was) if best_score is None else best_score


def _places(settings: Settings, box: tuple[Floats, Floats]) -> Floats:
    """Scaled places to try inside the box: a grid in one or two rules, else a cloud that fills it evenly."""
    lo, hi = box
    d = len(lo)
    if d <= 2:
        unit = np.array(list(product(np.linspace(0, 1, GRID), repeat=d)))
    else:
        unit = np.random.default_rng(0).random((CLOUD, d))
    return np.asarray(lo + unit * (hi - lo))


def _over(settings: Settings, means: Floats) -> float:
    """Share of tiles in which a hard limit is broken."""
    broken = np.zeros(len(means), bool)
    for m, limit in settings.hard.items():
        if m in settings.metrics:
            x = means[:, settings.metrics.index(m)]
            broken |= x > (np.inf if limit.max is None else limit.max)
            broken |= x < (-np.inf if limit.min is None else limit.min)
    return float(broken.mean()) if len(broken) else 0.0


def _box(life: Life) -> tuple[Floats, Floats]:
    """What the record can speak of: around the values visited as far again as they reach, at least two steps.

    A rule that never moved has no room at all: nothing is known of it.
    """
    assert life.data is not None
    record, s = life.data.get(), life.settings
    here = values_at(record, s, record.from_ms)
    seen = [dict(here)]
    for e in record.within:
        if e.rule in here and e.new is not None:
            here[e.rule] = e.new
            seen.append(dict(here))
    rules = tuple(s.rules.values())
    places = np.array([scaled(rules, v) for v in seen])
    low, high = places.min(axis=0), places.max(axis=0)
    step = np.array([r.lr / (r.max - r.min) if r.max > r.min else 0.0 for r in rules])
    room = np.where(high > low, np.maximum(high - low, 2 * step), 0.0)
    return np.minimum(low, np.maximum(0.0, low - room)), np.maximum(high, np.minimum(1.0, high + room))


def _known(values: Floats, settings: Settings, base: Life) -> Floats:
    """1 where the values lie in what the record can speak of. Shape: (tiles,)."""
    if base.data is None:
        return np.ones(len(values))
    lo, hi = _box(replace(base, settings=settings))
    rules = tuple(settings.rules.values())
    x = np.array([scaled(rules, dict(zip(settings.rules, v, strict=True))) for v in values])
    inside = (x >= lo - 1e-9) & (x <= hi + 1e-9)
    return inside.all(axis=1).astype(float) if len(x) else np.ones(0)


# ----------------------------------------------------------------------------- figures
def scores(settings: Settings, means: Floats, names: Sequence[str] = ()) -> Floats:
    """The objective score of each row of metric means; NaN where a weighted metric has none.

    `names`: the columns of `means`, by default the metrics of the settings.
    """
    names = names or settings.metrics
    total = sum(settings.weights[m] for m in weighted(settings))
    out = np.zeros(len(means))
    for m in weighted(settings):
        t, x = settings.targets[m], means[:, names.index(m)]
        over = np.maximum(0.0, x - t.max) if t.max is not None else 0.0
        under = np.maximum(0.0, t.min - x) if t.min is not None else 0.0
        out += settings.weights[m] / total * np.maximum(0.0, 1.0 - np.maximum(over, under) / t.scale)
        out[~np.isfinite(x)] = np.nan
    return out


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
        worst=_worst(starts, mine.score, gain) if told else None,
        curve=_curve(starts, mine.score),
        proposals=tuple(first.steps[:MOST_PROPOSALS]) if first is not None else (),
        guards=tripped(first.story) if first is not None else (),
        unsupported=_outside(starts, mine.known),
    )  # fmt: skip


def band(x: Floats, seed: int) -> Interval | None:
    """Mean over draws and tiles; 95 % by resampling draws, and blocks of tiles within them."""
    if not np.isfinite(x).any():
        return None
    n = x.shape[1]
    blocks = max(1, -(-n // BLOCK))
    chance = np.random.default_rng([seed, n])
    padded = np.full((x.shape[0], blocks * BLOCK), np.nan)
    padded[:, :n] = x
    shaped = padded.reshape(x.shape[0], blocks, BLOCK)
    sums, counts = np.nansum(shaped, axis=2), np.isfinite(shaped).sum(axis=2)
    draw = chance.integers(0, x.shape[0], RESAMPLES)
    pick = chance.integers(0, blocks, (RESAMPLES, blocks))
    total = np.take_along_axis(sums[draw], pick, axis=1).sum(axis=1)
    count = np.take_along_axis(counts[draw], pick, axis=1).sum(axis=1)
    means = total[count > 0] / count[count > 0]
    lo, hi = np.quantile(means, [0.025, 0.975])
    return Interval(mean=float(np.nanmean(x)), lo=float(lo), hi=float(hi))


def _worst(starts: Int64s, score: Floats, gain: Floats) -> Stretch | None:
    """The stretch of an hour that lost most against doing nothing, on the mean of all draws."""
    if not len(starts):
        return None
    width = int(starts[1] - starts[0]) if len(starts) > 1 else 90_000
    span = int(starts[-1]) + width - int(starts[0])
    number = (starts - starts[0]) // max(1.0, min(STRETCH_S * 1000, span / 4))
    found = []
    for k in np.unique(number):
        at = np.flatnonzero(number == k)
        if np.isfinite(gain[:, at]).any():
            against, mean = float(np.nanmean(gain[:, at])), float(np.nanmean(score[:, at]))
            found.append((round(against, 9), mean, int(starts[at[0]]), int(starts[at[-1]]) + width))
    if not found:
        return None
    against, mean, a, b = min(found)
    return Stretch(from_ms=a, to_ms=b, score=mean, against=against)


def _curve(starts: Int64s, score: Floats) -> Curve:
    """The score over time: mean of the draws, and the band that 95 % of them lie in."""
    if not len(starts):
        return Curve()
    parts = np.array_split(np.arange(len(starts)), min(BUCKETS, len(starts)))
    rows: list[tuple[float | None, float | None, float | None]] = []
    for at in parts:
        each = np.array([np.nanmean(s) if np.isfinite(s).any() else np.nan for s in score[:, at]])
        each = each[np.isfinite(each)]
        if not len(each):
            rows.append((None, None, None))
            continue
        lo, hi = np.quantile(each, [0.025, 0.975])
        rows.append((float(each.mean()), float(lo), float(hi)))
    mean, lo_, hi_ = zip(*rows, strict=True)
    return Curve(ts_ms=tuple(int(starts[at[len(at) // 2]]) for at in parts), mean=mean, lo=lo_, hi=hi_)


def _outside(starts: Int64s, known: Floats) -> tuple[Stretch, ...]:
    """Stretches in which most draws lived where the record cannot speak."""
    if not len(starts) or not known.size:
        return ()
    width = int(starts[1] - starts[0]) if len(starts) > 1 else 90_000
    found: list[Stretch] = []
    for i in np.flatnonzero(known.mean(axis=0) < 0.5).tolist():
        a, b = int(starts[i]), int(starts[i]) + width
        if found and found[-1].to_ms == a:
            found[-1] = Stretch(from_ms=found[-1].from_ms, to_ms=b)
        else:
            found.append(Stretch(from_ms=a, to_ms=b))
    return tuple(found)
