"""What a record can speak of, and the best place inside it: the oracle that candidates are held against.

Answers "how far could a change have gone, and what would the best values have scored?". Pure.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from selftune.backtest_closed import PlantSystem, held, tile_means, tiles, values_at
from selftune.backtest_figures import scores
from selftune.backtest_life import Life, Lives, drawn
from selftune.backtest_response import scaled
from selftune.plants import oracle, seed_plant
from selftune.series import Floats
from selftune.settings import Settings
from selftune.simulate import Plant

GRID = 15
CLOUD = 300
OVER_HARD = 0.02  # share of tiles beyond a hard limit that bars a place from being the best


def best(base: Life, draws: int) -> Lives:
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


def known(values: Floats, settings: Settings, base: Life) -> Floats:
    """1 where the values lie in what the record can speak of. Shape: (tiles,)."""
    if base.data is None:
        return np.ones(len(values))
    lo, hi = _box(replace(base, settings=settings))
    rules = tuple(settings.rules.values())
    x = np.array([scaled(rules, dict(zip(settings.rules, v, strict=True))) for v in values])
    inside = (x >= lo - 1e-9) & (x <= hi + 1e-9)
    return inside.all(axis=1).astype(float) if len(x) else np.ones(0)
