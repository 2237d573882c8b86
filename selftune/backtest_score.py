"""What followed: the record's quiet windows scored, and each candidate's choices held against them.

Answers "how good was that choice, and can the record tell at all?". A choice at values that were visited in
the same regime within some hours gets the score seen there; any other gets none. Pure and deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import hypot

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from selftune.backtest_result import (
    MOST_PROPOSALS,
    Curve,
    Interval,
    Outcome,
    Proposed,
    Stretch,
    Support,
    Tripped,
    support_of,
)
from selftune.backtest_story import Story, Wanted
from selftune.coarse import Coarse
from selftune.domain import RuleEvent
from selftune.gaps import QuietWindow
from selftune.health import pace_of
from selftune.objective import objective_score
from selftune.quiet import FULL_PACE, LOOK_BACK_S, quiet_windows
from selftune.series import Floats, Int64s, Series
from selftune.settings import Settings

NEAREST = 5  # windows at a place that speak for it
LEAST = 2  # fewer are no support
STRETCH_S = 3600.0  # of the worst stretch
LEAST_IN_STRETCH = 3
BUCKETS = 200
BATCHES = 20
GAP_WINDOWS = 10  # so many windows without data are a gap worth showing
MOST_STRETCHES = 200
Place = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The record's quiet windows, oldest first, scored under one candidate's targets.

    Shape: all [n]. `place` numbers the rule values (`places`), `regime` the stretches between jumps.
    """

    rules: tuple[str, ...]
    start_ms: Int64s
    end_ms: Int64s
    score: Floats
    place: Int64s
    regime: Int64s
    places: tuple[Place, ...]
    reach_ms: float
    decimals: int

    def __len__(self) -> int:
        return len(self.start_ms)

    @cached_property
    def _by_place(self) -> Mapping[tuple[int, int], Int64s]:
        keys = self.place * (int(self.regime.max(initial=0)) + 1) + self.regime
        found: dict[tuple[int, int], Int64s] = {}
        for key in np.unique(keys):
            at = np.flatnonzero(keys == key)
            found[int(self.place[at[0]]), int(self.regime[at[0]])] = at
        return found

    @cached_property
    def number_of(self) -> Mapping[Place, int]:
        return {p: i for i, p in enumerate(self.places)}

    def near(self, place: Place, i: int) -> Int64s:
        """Windows at that place, in window i's regime and reach: the nearest ones, maybe none."""
        number = self.number_of.get(place)
        at = None if number is None else self._by_place.get((number, int(self.regime[i])))
        if at is None:
            return np.empty(0, np.int64)
        far = np.abs(self.start_ms[at] - self.start_ms[i])
        order = np.argsort(far, kind="stable")[:NEAREST]
        return np.asarray(at[order[far[order] <= self.reach_ms]])

    def moved(self, i: int, w: Wanted) -> Place | None:
        """Where the wanted step leads from window i's values; None when the rule is elsewhere by now."""
        here = list(self.places[int(self.place[i])])
        k = self.rules.index(w.rule) if w.rule in self.rules else -1
        if k < 0 or abs(here[k] - round(w.old, self.decimals)) > 10.0**-self.decimals:
            return None
        here[k] = round(w.new, self.decimals)
        return tuple(here)


def all_quiet(
    bins: Coarse,
    events: Sequence[RuleEvent],
    regimes_ms: Sequence[int],
    settings: Settings,
    samples: Callable[[int, int], Series] | None = None,
) -> list[QuietWindow]:
    """The quiet windows of the whole record, oldest first, in pieces that a cycle would look back on.

    `samples`: those of [from, to); a root that lives faster than the 10 s bins has no windows without them.
    """
    none = Series.empty(settings.metrics)
    return [
        w
        for a, b in _pieces(bins)
        for w in quiet_windows(
            none if samples is None or pace_of(settings) >= FULL_PACE else samples(a, b),
            bins.between(a, b), _around(events, a, b, settings), settings, regimes_ms=regimes_ms,
        )
    ]  # fmt: skip


def seen_windows(
    bins: Coarse,
    events: Sequence[RuleEvent],
    regimes_ms: Sequence[int],
    settings: Settings,
    samples: Callable[[int, int], Series] | None = None,
) -> Seen:
    """The record's quiet windows, scored."""
    rules = tuple(settings.rules)
    numbers: dict[Place, int] = {}
    rows: list[tuple[int, int, float, int, int]] = []
    for w in all_quiet(bins, events, regimes_ms, settings, samples):
        score = objective_score(settings, {m: s.mean for m, s in w.stats.items()})
        if score is None:
            continue
        place = tuple(round(w.values[r], settings.resolution) for r in rules)
        rows.append((w.start_ms, w.end_ms, score, numbers.setdefault(place, len(numbers)), w.regime))
    start, end, scores, places, regimes = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return Seen(
        rules=rules, start_ms=np.array(start, np.int64), end_ms=np.array(end, np.int64),
        score=np.array(scores, float), place=np.array(places, np.int64), regime=np.array(regimes, np.int64),
        places=tuple(numbers), reach_ms=LOOK_BACK_S * pace_of(settings) * 1000, decimals=settings.resolution,
    )  # fmt: skip


def _pieces(bins: Coarse) -> list[tuple[int, int]]:
    if not len(bins):
        return []
    step = round(LOOK_BACK_S * 1000) // bins.bin_ms * bins.bin_ms
    first, last = int(bins.start_ms[0]), int(bins.start_ms[-1]) + bins.bin_ms
    return [(a, min(a + step, last)) for a in range(first, last, step)]


def _around(events: Sequence[RuleEvent], a: int, b: int, settings: Settings) -> list[RuleEvent]:
    """The events of [a - washout, b), and of each rule the last before."""
    since = a - round(settings.settle_s * 1000)
    lo = _first_at(events, since)
    hi = _first_at(events, b)
    before: dict[str, RuleEvent] = {}
    for e in events[:lo]:
        if e.new is not None:
            before[e.rule] = e
    return [*sorted(before.values(), key=lambda e: e.ts_ms), *events[lo:hi]]


def _first_at(events: Sequence[RuleEvent], ms: int) -> int:
    return int(np.searchsorted(np.array([e.ts_ms for e in events], np.int64), ms))


# ----------------------------------------------------------------------------- choices
@dataclass(frozen=True, kw_only=True)
class Choices:
    """One candidate's choice in each window: its score (NaN: no support), what it gains, how unsure.

    Shape: all [n]. `gain` is the score at the chosen values less that of the values kept, 0 where it kept
    them; `doubt` its standard error.
    """

    score: Floats
    gain: Floats
    doubt: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.isfinite(self.score)


def choices(seen: Seen, wanted: Sequence[Wanted]) -> Choices:
    """What the candidate wanted when each window began, and what the record says of it."""
    n = len(seen)
    gain, doubt = np.zeros(n), np.zeros(n)
    asked = np.array([w.ts_ms for w in wanted], np.int64)
    latest = np.searchsorted(asked, seen.start_ms, side="right") - 1
    for i in range(n):
        w = wanted[latest[i]] if latest[i] >= 0 else None
        place = seen.moved(i, w) if w is not None and w.rule is not None else None
        if place is not None:
            gain[i], doubt[i], _ = gain_at(seen, i, place)
    return Choices(score=seen.score + gain, gain=gain, doubt=doubt)


def gain_at(seen: Seen, i: int, place: Place) -> tuple[float, float, int]:
    """(score there less score here, its standard error, degrees of freedom) by the windows nearest to i.

    NaN where the record holds too few of either.
    """
    there, here = seen.near(place, i), seen.near(seen.places[int(seen.place[i])], i)
    if len(there) < LEAST or len(here) < LEAST:
        return np.nan, np.nan, 0
    a, b = seen.score[there], seen.score[here]
    nu = len(a) + len(b) - 2
    spread = (np.var(a) * len(a) + np.var(b) * len(b)) / nu
    return float(a.mean() - b.mean()), float(np.sqrt(spread * (1 / len(a) + 1 / len(b)))), nu


# ----------------------------------------------------------------------------- the outcome
@dataclass(frozen=True, kw_only=True)
class Who:
    """Who is judged: the name and role to show, and the settings' digest."""

    name: str
    role: str
    policy: str
    config: str


def outcome(who: Who, seen: Seen, story: Story, still: Choices) -> Outcome:
    """The outcome of one replay. `still`: the choices of doing nothing."""
    made = choices(seen, story.wanted)
    share = float(made.known.mean()) if len(seen) else 0.0
    support = support_of(share) if len(seen) else Support.NONE
    told = support is not Support.NONE
    fresh = [w for w in story.wanted if w.fresh]
    return Outcome(
        name=who.name, role=who.role, policy=who.policy, config=who.config,
        score=mean_of(made.score, made.doubt) if told else None,
        gain=mean_of(made.gain, made.doubt, least=-1.0) if told and who.role != "none" else None,
        support_share=share, support=support, changes=len(fresh), rollbacks=story.rollbacks,
        looks=story.looks, worst=worst(seen, made, still) if told else None,
        curve=curve(seen, made),
        proposals=tuple(_proposed(seen, w) for w in fresh[:MOST_PROPOSALS]),
        guards=tripped(story), unsupported=unsupported(seen, made),
    )  # fmt: skip


def _proposed(seen: Seen, w: Wanted) -> Proposed:
    """The proposal with what followed, judged in the first window after it."""
    assert w.rule is not None and w.reason is not None
    i = min(int(np.searchsorted(seen.start_ms, w.ts_ms)), len(seen) - 1)
    place = seen.moved(i, w) if i >= 0 else None
    gain, doubt, nu = gain_at(seen, i, place) if place is not None else (np.nan, np.nan, 0)
    followed = bool(np.isfinite(gain))
    return Proposed(
        ts_ms=w.ts_ms, rule=w.rule, old=w.old, new=w.new, reason=w.reason, followed=followed,
        gain=_around_mean(gain, doubt, nu) if followed else None,
    )  # fmt: skip


def tripped(story: Story) -> tuple[Tripped, ...]:
    """What kept it still, most often first."""
    rows = sorted(story.holds.items(), key=lambda kv: (-kv[1], kv[0][0], kv[0][1] or ""))
    return tuple(
        Tripped(code=code, rule=rule, n=n, share=n / max(1, story.looks), example=story.examples[code, rule])
        for (code, rule), n in rows
    )


# ----------------------------------------------------------------------------- figures
def mean_of(x: Floats, doubt: Floats | None = None, *, least: float = 0.0) -> Interval | None:
    """The mean of what is known with a 95 % interval from batch means: neighbours are alike.

    `doubt`: standard error of each value; taken as one error that all of them share. `least`: the lowest
    value that there can be (the highest is 1); too few values leave everything possible.
    """
    ok = np.isfinite(x)
    known = x[ok]
    if not len(known):
        return None
    batches = min(BATCHES, len(known) // 2)
    if batches < 2:
        return Interval(mean=float(known.mean()), lo=least, hi=1.0)
    means = np.array([part.mean() for part in np.array_split(known, batches)])
    se = float(means.std(ddof=1) / np.sqrt(batches))
    shared = float(doubt[ok].mean()) if doubt is not None else 0.0
    return _around_mean(float(known.mean()), hypot(se, shared), batches - 1)


def _around_mean(mean: float, se: float, nu: float) -> Interval:
    half = float(stdtrit(nu, 0.975)) * se
    return Interval(mean=mean, lo=mean - half, hi=mean + half)


def worst(seen: Seen, made: Choices, still: Choices) -> Stretch | None:
    """The stretch of an hour that lost most against doing nothing; of equal ones the lowest score."""
    if not len(seen):
        return None
    first, last = int(seen.start_ms[0]), int(seen.end_ms[-1])
    step = max(1.0, min(STRETCH_S * 1000, (last - first) / 4))
    number = ((seen.start_ms - first) // step).astype(np.int64)
    found = []
    for k in np.unique(number):
        at = number == k
        both = at & made.known & still.known
        if both.sum() >= min(LEAST_IN_STRETCH, at.sum()) and both.sum() * 2 >= at.sum():
            mean = float(made.score[both].mean())
            against = float((made.score[both] - still.score[both]).mean())
            span = np.flatnonzero(at)
            found.append((round(against, 9), mean, int(seen.start_ms[span[0]]), int(seen.end_ms[span[-1]])))
    if not found:
        return None
    against, mean, a, b = min(found)
    return Stretch(from_ms=a, to_ms=b, score=mean, against=against)


def curve(seen: Seen, made: Choices) -> Curve:
    """The score over time in at most `BUCKETS` buckets."""
    if not len(seen):
        return Curve()
    first, last = int(seen.start_ms[0]), int(seen.end_ms[-1])
    step = max(1, -(-(last - first) // BUCKETS))
    number = (seen.start_ms - first) // step
    ts: list[int] = []
    rows: list[tuple[float | None, float | None, float | None]] = []
    for k in range(int(number[-1]) + 1):
        a, b = np.searchsorted(number, (k, k + 1))
        x, d = made.score[a:b], made.doubt[a:b]
        ok = np.isfinite(x)
        ts.append(first + k * step + step // 2)
        if not ok.any():
            rows.append((None, None, None))
            continue
        m = float(x[ok].mean())
        half = 1.96 * hypot(float(x[ok].std()) / float(np.sqrt(ok.sum())), float(d[ok].mean()))
        rows.append((m, m - half, m + half))
    mean, lo, hi = zip(*rows, strict=True)
    return Curve(ts_ms=tuple(ts), mean=mean, lo=lo, hi=hi)


def unsupported(seen: Seen, made: Choices) -> tuple[Stretch, ...]:
    """Stretches in which nobody can know: choices at values never visited, and times without quiet data."""
    if not len(seen):
        return ()
    gap = GAP_WINDOWS * float(np.median(seen.end_ms - seen.start_ms))
    found: list[tuple[int, int]] = []

    def add(a: int, b: int) -> None:
        if found and a - found[-1][1] <= gap:
            found[-1] = (found[-1][0], max(b, found[-1][1]))
        else:
            found.append((a, b))

    for i in range(len(seen)):
        if i and seen.start_ms[i] - seen.end_ms[i - 1] > gap:
            add(int(seen.end_ms[i - 1]), int(seen.start_ms[i]))
        if not made.known[i]:
            add(int(seen.start_ms[i]), int(seen.end_ms[i]))
    long = sorted(found, key=lambda s: s[0] - s[1])[:MOST_STRETCHES]
    return tuple(Stretch(from_ms=a, to_ms=b) for a, b in sorted(long))


__all__ = ["Choices", "Seen", "Who", "choices", "outcome", "seen_windows"]
