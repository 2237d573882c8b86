"""May practice mode be switched off? A checklist: each item one grade, one number, and where it comes from.

Answers "is there evidence?", item by item; never "yes" for lack of data. Pure; the thresholds are
`BARS`, and `governance.readiness` in the settings may set each of them by its name. Source: dashboard.md
(review), loop.md (track record).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from scipy.special import bdtrc

from selftune.coarse import Coarse
from selftune.config import Settings
from selftune.judging import P_IMPROVED, P_WORSENED
from selftune.lifecycle import Change, ChangeKind
from selftune.picture import Picture
from selftune.track import Forecasts, Placebo, Stillness, Track, track

DAY_MS = 86_400_000

BARS: Mapping[str, float] = {
    "days_watched": 7,  # days with a decision of the loop
    "stillness_n": 100,  # forecasts of "nothing changes" that were checked
    "stillness_low": 0.90,  # share of them that must lie in their 95 % range, at least ...
    "stillness_high": 0.98,  # ... and at most
    "placebo_n": 100,  # pretended events judged
    "placebo_share": 0.06,  # of them called improved, at most; twice as many called worsened (WORSE_SHARE)
    "effects_n": 10,  # changes whose effect was foretold: suggested ones and past ones together
    "effects_share": 0.80,  # of the forecasts that must hold
    "warning_days": 7,  # days back in which a warning is still worth a look
    "drill_days": 30,  # days back in which a way back must have been verified
    "uptime_hours": 24,  # hours without a restart of the loop
    "gap_hours": 6,  # hours of data needed to speak of gaps
    "gap_pass": 0.01,  # share of missing 10 s stretches that passes ...
    "gap_look": 0.05,  # ... and that is worth a look; more fails
    "backtest_worst": -0.05,  # score that the worst stretch of the backtest may lose ...
    "backtest_days": 14,  # ... and after so many days it is only worth a look
    "missing_blocks": 0,  # 1: an item without enough evidence blocks a signature as a failed one does
}

# The judge calls a change better at .95 and worse at .90, so that a sound one errs twice as often that way:
# docs/decisions/0008.
WORSE_SHARE = round((1 - P_WORSENED) / (1 - P_IMPROVED), 6)
BY_CHANCE = 0.05  # odds below which a count above its limit is no accident


class Grade(StrEnum):
    """`readiness.grade_<value>` in the catalogue. NONE: not enough evidence, which is never a pass."""

    PASS = "pass"
    LOOK = "look"
    FAIL = "fail"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One line of the checklist. Its sentence is `readiness.<code>_<grade>`, filled from `params`.

    `value` is its one number in `unit`, None without any; `page` where the evidence can be seen.
    """

    code: str
    grade: Grade
    value: float | None = None
    unit: str = ""
    page: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """What is known of the loop's life: age of its heartbeat, and since when it runs (both by the server)."""

    age_s: float | None = None
    started_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The newest backtest of these very settings: what its worst stretch lost or won against doing nothing.

    `worst` is a difference of scores (-1..1), None where the data could not support any; `run` its id.
    """

    worst: float | None
    ended_ms: int
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """The checklist. `unknown`: names under governance.readiness that no item knows."""

    items: tuple[Item, ...]
    track: Track
    unknown: tuple[str, ...] = ()

    def count(self, grade: Grade) -> int:
        return sum(i.grade is grade for i in self.items)

    @property
    def grades(self) -> dict[str, str]:
        """Item -> grade, as a request records it."""
        return {i.code: i.grade.value for i in self.items}

    @property
    def ready(self) -> bool:
        """True when every item passed."""
        return all(i.grade is Grade.PASS for i in self.items)


def bars(settings: Settings) -> dict[str, float]:
    """The thresholds in force: the defaults, with what `governance.readiness` says."""
    own = settings.governance.readiness
    return {name: float(own.get(name, default)) for name, default in BARS.items()}


def assess(
    p: Picture, pulse: Pulse, tested: Tried | None = None, pretended: Placebo | None = None
) -> Readiness:
    """The checklist as of this picture. `pretended`: see `track`."""
    bar, record = bars(p.settings), track(p, pretended)
    items = (
        days_watched(p, bar),
        stillness(record.stillness, bar),
        placebo(record.placebo, bar),
        effects(record, bar),
        warnings(p, bar),
        drill(p, bar),
        backtest(tested, p.snap.now_ms, bar),
        uptime(p, pulse, bar),
        gaps(p.snap.coarse, p.settings.metrics, bar),
        whole(p),
    )
    unknown = tuple(n for n in p.settings.governance.readiness if n not in BARS)
    return Readiness(items=items, track=record, unknown=unknown)


# ----------------------------------------------------------------------------- the items
def days_watched(p: Picture, bar: Mapping[str, float]) -> Item:
    """Days, counted back from now, on which the loop recorded a decision: a silent day counts for nothing."""
    days = {
        (p.snap.now_ms - d.ts_ms) // DAY_MS
        for d in p.snap.records.decisions
        if d.kind in ("cycle", "verdict") and d.ts_ms <= p.snap.now_ms
    }
    n, need = len(days), bar["days_watched"]
    grade = Grade.PASS if n >= need else Grade.NONE if n else Grade.FAIL
    return Item(code="days", grade=grade, value=n, unit="days", page="history", params={"need": need})


def stillness(t: Stillness, bar: Mapping[str, float]) -> Item:
    """(a) The 95 % ranges for "nothing changes" must hold about as often as they say."""
    share = t.share
    params = {
        "n": t.n,
        "need": bar["stillness_n"],
        "low": bar["stillness_low"],
        "high": bar["stillness_high"],
    }
    if share is None or t.n < bar["stillness_n"]:
        grade = Grade.NONE
    else:
        grade = Grade.PASS if bar["stillness_low"] <= share <= bar["stillness_high"] else Grade.FAIL
    return Item(code="stillness", grade=grade, value=share, unit="share", page="trends", params=params)


def placebo(t: Placebo, bar: Mapping[str, float]) -> Item:
    """(b) Where nothing was changed, the judge must rarely see an improvement or a harm.

    Its number is the share that is nearer its limit. Above the limit, but no more than chance does to a
    judge that errs just so often, is worth a look; more fails.
    """
    limits = (bar["placebo_share"], min(1.0, bar["placebo_share"] * WORSE_SHARE))
    shares = t.shares() or (0.0, 0.0)
    near = max((0, 1), key=lambda k: shares[k] / limits[k] if limits[k] else shares[k] and np.inf)
    if not t.n or t.n < bar["placebo_n"]:
        grade = Grade.NONE
    else:
        both = tuple(zip((t.improved, t.worsened), limits, strict=True))
        inside = all(k <= limit * t.n + 1e-9 for k, limit in both)
        chance = all(k == 0 or bdtrc(k - 1, t.n, limit) >= BY_CHANCE for k, limit in both)
        grade = Grade.PASS if inside else Grade.LOOK if chance else Grade.FAIL
    params = {
        "n": t.n, "need": bar["placebo_n"], "improved": t.improved, "worsened": t.worsened,
        "limit": limits[0], "limit_worse": limits[1],
    }  # fmt: skip
    value = shares[near] if t.n else None
    return Item(code="placebo", grade=grade, value=value, unit="share", page="trends", params=params)


def effects(t: Track, bar: Mapping[str, float]) -> Item:
    """(c) and (d): enough forecasts of real changes, most of them right, and better than "no effect"."""
    n = t.effects.n + t.past.n
    both = [f for f in (t.effects, t.past) if f.cells]
    share = min((f.share or 0.0 for f in both), default=None)
    params = {
        "n": n, "c": t.effects.n, "d": t.past.n, "need": bar["effects_n"], "limit": bar["effects_share"],
        "untestable": t.untestable, "suggestions": t.suggestions,
    }  # fmt: skip
    if n < bar["effects_n"] or share is None:
        grade = Grade.NONE
    else:
        better = all(_better(f) for f in both)
        grade = Grade.PASS if share >= bar["effects_share"] and better else Grade.FAIL
    return Item(code="effects", grade=grade, value=share, unit="share", page="history", params=params)


def _better(f: Forecasts) -> bool:
    return f.crps is not None and f.crps_none is not None and f.crps < f.crps_none


def warnings(p: Picture, bar: Mapping[str, float]) -> Item:
    """Open critical warnings fail; others of the last days are worth a look; none is a pass once watched."""
    since = p.snap.now_ms - bar["warning_days"] * DAY_MS
    crits = len(p.crits)
    recent = sum(
        w.severity == "warn" and w.resolves is None and w.ts_ms >= since for w in p.snap.records.warnings
    )
    watched = any(d.kind in ("cycle", "verdict") for d in p.snap.records.decisions)
    params = {"days": bar["warning_days"], "crits": crits, "warns": recent}
    if crits:
        return Item(code="warnings", grade=Grade.FAIL, value=crits, page="history", params=params)
    grade = Grade.LOOK if recent else Grade.PASS if watched else Grade.NONE
    return Item(code="warnings", grade=grade, value=recent, page="history", params=params)


def drill(p: Picture, bar: Mapping[str, float]) -> Item:
    """A way back on record whose outcome was measured: the harm was gone (undecided counts, loop.md), or
    after a rollback by hand the windows around it were compared."""
    since = p.snap.now_ms - bar["drill_days"] * DAY_MS
    back = [
        c for c in p.life.changes
        if c.kind in (ChangeKind.RETURN, ChangeKind.ROLLBACK) and c.ts_ms >= since
    ]  # fmt: skip
    good = sum(c.verified in ("verified", "undecided") or _measured(p, c) for c in back)
    grade = Grade.PASS if good else Grade.LOOK if back else Grade.NONE
    params = {"days": bar["drill_days"], "n": len(back)}
    return Item(code="drill", grade=grade, value=good, unit="times", page="history", params=params)


def _measured(p: Picture, c: Change) -> bool:
    """A rollback by hand that took its value back, and after which somebody measured every move of it."""
    if c.kind is not ChangeKind.ROLLBACK:
        return False
    rows = {r.key for r in p.snap.records.effect_rows if any(x is not None for x in r.d.values())}
    stamps = {e.key: (e.ts_ms, e.rule) for e in p.snap.records.events}
    return bool(c.keys) and all(stamps.get(k) in rows for k in c.keys)


def backtest(t: Tried | None, now_ms: int, bar: Mapping[str, float]) -> Item:
    """What the worst stretch of the newest backtest of these settings would have cost, if there is one."""
    if t is None or t.worst is None:
        return Item(code="backtest", grade=Grade.NONE, page="backtest", params={"ran": t is not None})
    days = max(0.0, (now_ms - t.ended_ms) / DAY_MS)
    fresh = days <= bar["backtest_days"]
    good = t.worst >= bar["backtest_worst"]
    grade = Grade.FAIL if not good else Grade.PASS if fresh else Grade.LOOK
    params = {"limit": bar["backtest_worst"], "days": round(days, 1), "run": t.run, "ran": True}
    return Item(code="backtest", grade=grade, value=t.worst, unit="score", page="backtest", params=params)


def uptime(p: Picture, pulse: Pulse, bar: Mapping[str, float]) -> Item:
    """Time since the loop was started, if it is alive; earlier runs leave no record that could be added."""
    need_s = bar["uptime_hours"] * 3600
    params = {"need_s": need_s, "age_s": pulse.age_s}
    if pulse.age_s is None or pulse.started_ms is None:
        return Item(code="uptime", grade=Grade.NONE, page="overview", params={**params, "for_s": None})
    for_s = max(0.0, (p.snap.now_ms - pulse.started_ms) / 1000)
    dead = not -2.0 <= pulse.age_s <= 5.0
    grade = Grade.FAIL if dead else Grade.PASS if for_s >= need_s else Grade.NONE
    return Item(code="uptime", grade=grade, value=for_s, unit="s", page="overview",
                params={**params, "for_s": for_s})  # fmt: skip


def gaps(coarse: Coarse, metrics: Sequence[str], bar: Mapping[str, float]) -> Item:
    """Share of 10 s stretches without a value of some metric, over the history at hand (a day at most)."""
    if len(coarse) == 0:
        return Item(code="gaps", grade=Grade.NONE, unit="share", page="trends",
                    params={"for_s": 0.0, "need_s": bar["gap_hours"] * 3600, "longest_s": None})  # fmt: skip
    span = int(coarse.start_ms[-1] - coarse.start_ms[0]) + coarse.bin_ms
    whole = np.ones(len(coarse), bool)
    for m in metrics:
        whole &= coarse.count[m] > 0 if m in coarse.count else False
    total = span // coarse.bin_ms
    share = (total - int(whole.sum())) / total
    there = coarse.start_ms[whole]
    longest = max(0, int(np.diff(there).max()) - coarse.bin_ms) / 1000 if len(there) > 1 else None
    for_s, need_s = span / 1000, bar["gap_hours"] * 3600
    if for_s < need_s:
        grade = Grade.NONE
    else:
        grade = (
            Grade.PASS if share <= bar["gap_pass"] else Grade.LOOK if share <= bar["gap_look"] else Grade.FAIL
        )
    params = {"for_s": for_s, "need_s": need_s, "longest_s": longest}
    return Item(code="gaps", grade=grade, value=share, unit="share", page="trends", params=params)


def whole(p: Picture) -> Item:
    """The governance chain is intact and the settings file is in force; an empty chain proves nothing."""
    chain = p.snap.records.chain
    broken = not chain.ok or p.snap.settings_problem is not None
    grade = Grade.FAIL if broken else Grade.PASS if chain.n else Grade.NONE
    return Item(code="whole", grade=grade, value=chain.n, unit="lines", page="targets", params={"n": chain.n})
