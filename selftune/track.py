"""The track record of suggestions: four tallies that are never mixed, and how many can tell nothing.

Answers "were the forecasts right, as far as that can be observed at all?". Only what the records and
the samples at hand can show is counted. Pure. Source: loop.md (track record of suggestions).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, hypot, pi, sqrt

from scipy.special import ndtr

from selftune.domain import DataState, Decision, Verdict
from selftune.effects import measure
from selftune.judging import QuietWindow, judge_step
from selftune.lifecycle import WAY_BACK, Change, Suggestion
from selftune.picture import Picture, deltas_of
from selftune.policy import _expected
from selftune.policy_state import Lesson
from selftune.records import number
from selftune.seen import Seen
from selftune.series import Series

QUIET_S = 300.0  # loop.md (c): seconds without any other event before the change
PAST = 60  # quiet windows that a forecast of stillness looks back on
LEAST_PAST = 6
END_MS = 1_000  # a window's last sample may come so late
Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Stillness:
    """(a) `covered` of `n` window means lay in the 95 % range foretold without a change."""

    n: int = 0
    covered: int = 0

    @property
    def share(self) -> float | None:
        return self.covered / self.n if self.n else None


@dataclass(frozen=True, kw_only=True)
class Placebo:
    """(b) Verdicts on `n` pretended events, where nothing was changed."""

    n: int = 0
    improved: int = 0
    worsened: int = 0

    def shares(self) -> tuple[float, float] | None:
        """(called better, called worse), 0..1; None of nothing."""
        return (self.improved / self.n, self.worsened / self.n) if self.n else None


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """(c) or (d): forecasts of `n` changes that did happen, over `cells` measured metrics.

    `sign`: cells where the direction was right. `crps`, `crps_none`: mean distance of the forecast, and of
    "no effect", from what was measured, in units of what counts as good; smaller is better.
    """

    n: int = 0
    cells: int = 0
    covered: int = 0
    sign: int = 0
    crps: float | None = None
    crps_none: float | None = None

    @property
    def share(self) -> float | None:
        return self.covered / self.cells if self.cells else None


@dataclass(frozen=True, kw_only=True)
class Track:
    """The four tallies; `suggestions` were made, of `untestable` nobody can say what they would have done."""

    suggestions: int
    untestable: int
    stillness: Stillness
    placebo: Placebo
    effects: Forecasts
    past: Forecasts


def track(p: Picture, placebo: Placebo | None = None) -> Track:
    """The track record as far as records and samples show it now; kept while neither moves.

    `placebo`: tally (b) over the whole metrics file (pretended.py); without it the samples in memory count.
    """
    snap = p.snap
    found = snap.memo.get(
        "track", (snap.coarse, p.life, snap.settings), lambda: _track(p)
    )  # the samples of the last seconds add nothing: a window must be closed to count
    if placebo is None:
        placebo = tally(pretend(p, ts, snap.series) for ts in moments(p))
    return replace(found, placebo=placebo)


def _track(p: Picture) -> Track:
    c, d = _forecasts(p)
    return Track(
        suggestions=len(p.life.suggestions),
        untestable=max(0, len(p.life.suggestions) - c.n),
        stillness=_stillness(p),
        placebo=Placebo(),
        effects=c,
        past=d,
    )


# ----------------------------------------------------------------------------- (a) stillness
def _said_ms(p: Picture) -> list[int]:
    """When something was suggested, or found anew to be still the thing to do, metrics' time.

    A suggestion that stands is renewed on fresh windows once per `proposal_ttl_s`: each time is one more
    forecast. The fold's own reading of a decision decides what a suggestion is.
    """
    made = {s.decision for s in p.life.suggestions}
    known = made | {s.id for s in p.life.suggestions}
    return sorted(d.ts_ms for d in p.snap.records.decisions if d.id in made or d.data.get("stands") in known)


def _stillness(p: Picture) -> Stillness:
    windows = p.quiet
    starts = [w.start_ms for w in windows]
    reach_ms = round(p.settings.observe_window_s * 1000)
    asked: set[int] = set()  # one window is asked once, however many suggestions came before it
    for ts in _said_ms(p):
        i = bisect_left(starts, ts)
        if i < len(windows) and starts[i] - ts < reach_ms:
            asked.add(i)
    inside = [x for i in sorted(asked) for x in _foretold(windows, i, p)]
    return Stillness(n=len(inside), covered=sum(inside))


def _foretold(windows: Sequence[QuietWindow], i: int, p: Picture) -> Iterator[bool]:
    """For each metric of window i: did its mean lie in the range foretold by the windows before it?"""
    w = windows[i]
    past = tuple(v for v in windows[max(0, i - PAST) : i] if v.regime == w.regime and v.values == w.values)
    if len(past) < LEAST_PAST:
        return
    known = Seen(windows=past, regime=w.regime, settings=p.settings).predict(w.values) or {}
    for m, (mean, sd) in known.items():
        seen = w.stats[m].mean
        if seen is not None:
            yield abs(seen - mean) <= Z95 * max(sd, 1e-12)


# ----------------------------------------------------------------------------- (b) placebo
def moments(p: Picture) -> list[int]:
    """Instants at which a change may be pretended, newest first: something was suggested, nobody touched
    anything near, and the window after it is over. Their windows do not overlap."""
    window_ms = round(p.settings.observe_window_s * 1000)
    events = sorted(e.ts_ms for e in p.snap.records.events)
    last = (p.newest_ms or 0) - window_ms - END_MS
    found: list[int] = []
    for ts in reversed(_said_ms(p)):
        i = bisect_right(events, ts - window_ms)
        near = i < len(events) and events[i] < ts + 2 * window_ms
        if ts <= last and not near and (not found or found[-1] - ts >= window_ms):
            found.append(ts)
    return found


def pretend(p: Picture, ts_ms: int, samples: Series) -> Verdict | None:
    """What the judge says of a change at `ts_ms` that nobody made; None where the samples cannot carry it."""
    others = tuple(e.ts_ms for e in p.snap.records.events)
    effect = measure(
        samples, p.settings, event_ms=ts_ms, keys=("placebo",), others_ms=others, now_ms=p.snap.now_ms
    )
    whole = all(e.state in (DataState.OK, DataState.CONSTANT) for e in effect.metrics.values())
    return judge_step(effect, p.settings).verdict if effect.final and whole else None


def tally(verdicts: Iterable[Verdict | None]) -> Placebo:
    """The verdicts counted; those that could not be given do not count."""
    found = [v for v in verdicts if v is not None]
    return Placebo(
        n=len(found), improved=found.count(Verdict.IMPROVED), worsened=found.count(Verdict.WORSENED)
    )


# ----------------------------------------------------------------------------- (c) effects, (d) past changes
@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One metric of one change, in units of what counts as good: forecast, its error, measured, its error."""

    mean: float
    se: float
    delta: float
    sigma: float

    @property
    def sd(self) -> float:
        return max(hypot(self.se, self.sigma), 1e-9)

    @property
    def covered(self) -> bool:
        return abs(self.delta - self.mean) <= Z95 * self.sd


def _forecasts(p: Picture) -> tuple[Forecasts, Forecasts]:
    """(c) and (d). A change is in one of the two, never in both."""
    suggested: list[list[_Cell]] = []
    foretold: list[list[_Cell]] = []
    lessons: list[Lesson] = []
    for change, verdict in p.judged:
        if len(change.moves) != 1 or change.kind in WAY_BACK or change.moves[0].new is None:
            continue
        move = change.moves[0]
        step = (move.new if move.new is not None else move.old) - move.old
        said = _suggested(p, change, step) if _alone(p, change) else {}
        cells = _cells(said, verdict, p)
        (suggested if cells else foretold).append(
            cells or _cells(_past(lessons, move.rule, step), verdict, p)
        )
        lessons.append(
            Lesson(
                rule=move.rule, step=step, deltas=deltas_of(verdict.data, p.settings), verdict=Verdict.NEUTRAL
            )
        )
    return _tally(suggested), _tally(foretold)


def _alone(p: Picture, change: Change) -> bool:
    """True when nobody touched anything for 300 s before the change and in its window."""
    mine = set(change.keys)
    before, after = QUIET_S * p.pace * 1000, p.settings.observe_window_s * 1000
    return not any(
        -before < e.ts_ms - change.ts_ms < after for e in p.snap.records.events if e.key not in mine
    )


Expected = Mapping[str, tuple[float, float]]


def _suggested(p: Picture, change: Change, step: float) -> Expected:
    """What the suggestion of the same rule and sign foretold, if one stood."""
    own = p.decision(change.decision)
    said = own if own is not None and own.data.get("proposals") else None
    if said is None:
        s = next((s for s in reversed(p.life.suggestions) if _answers(s, change, step, p)), None)
        said = p.decision(s.decision) if s is not None else None
    return {} if said is None else _recorded(said, change.moves[0].rule)


def _answers(s: Suggestion, change: Change, step: float, p: Picture) -> bool:
    late_ms = change.at_ms - s.at_ms
    in_time = 0 <= late_ms <= p.settings.proposal_ttl_s * 1000 * (1 + s.renewed)
    return s.rule == change.moves[0].rule and (s.sign > 0) == (step > 0) and in_time


def _recorded(d: Decision, rule: str) -> Expected:
    """The forecasts that a decision's proposal for `rule` carries: metric -> (mean, standard error)."""
    for proposal in d.data.get("proposals") or ():
        if isinstance(proposal, Mapping) and proposal.get("rule") == rule:
            expected = proposal.get("expected")
            return _means(expected) if isinstance(expected, Mapping) else {}
    return {}


def _means(expected: Mapping[str, object]) -> Expected:
    found = {}
    for m, x in expected.items():
        if isinstance(x, Mapping):
            mean, lo, hi = (number(x.get(k)) for k in ("mean", "lo", "hi"))
            if mean is not None and lo is not None and hi is not None:
                found[m] = (mean, (hi - lo) / (2 * Z95))
    return found


def _past(lessons: Sequence[Lesson], rule: str, step: float) -> Expected:
    """The policy's own forecast from the changes before this one."""
    return {
        m: (mean, (hi - lo) / (2 * Z95)) for m, (mean, lo, hi) in _expected(lessons, rule, step)[0].items()
    }


def _cells(expected: Expected, verdict: Decision, p: Picture) -> list[_Cell]:
    effect = verdict.data.get("effect")
    metrics = effect.get("metrics") if isinstance(effect, Mapping) else None
    found = []
    for m, (mean, se) in expected.items():
        told = metrics.get(m) if isinstance(metrics, Mapping) else None
        delta, sigma = (
            number(told.get(k)) if isinstance(told, Mapping) else None for k in ("delta", "sigma")
        )
        if delta is not None and m in p.settings.good:
            good = p.settings.good[m]
            found.append(
                _Cell(mean=mean / good, se=se / good, delta=delta / good, sigma=(sigma or 0.0) / good)
            )
    return found


def _tally(changes: Sequence[Sequence[_Cell]]) -> Forecasts:
    cells = [c for group in changes for c in group]
    if not cells:
        return Forecasts()
    return Forecasts(
        n=sum(bool(group) for group in changes),
        cells=len(cells),
        covered=sum(c.covered for c in cells),
        sign=sum((c.mean > 0) == (c.delta > 0) for c in cells),
        crps=sum(crps(c.mean, c.sd, c.delta) for c in cells) / len(cells),
        crps_none=sum(crps(0.0, max(c.sigma, 1e-9), c.delta) for c in cells) / len(cells),
    )


def crps(mean: float, sd: float, seen: float) -> float:
    """How far a normal forecast lies from what was seen; 0 is perfect. Units: those of `seen`.

    Source: Gneiting and Raftery (2007), continuous ranked probability score of a normal.
    """
    z = (seen - mean) / sd
    density = exp(-z * z / 2) / sqrt(2 * pi)
    return float(sd * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / sqrt(pi)))
