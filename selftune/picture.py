"""One snapshot, seen: the fold, the mode, the data's health, the present windows, the evidence.

Answers what the stages of `cycle.decide` ask, each computed once and only when asked. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from selftune.book import open_crits
from selftune.config import Settings, pace_of
from selftune.domain import (
    Decision,
    Effect,
    GuardCheck,
    Origin,
    Reason,
    RiskWarning,
    Verdict,
    WindowStat,
    long_name,
    short_name,
    verdict_of,
)
from selftune.effects import Measured, measure, window_stats
from selftune.guards import Situation, check_loop
from selftune.harm import hard_breach, hard_inside_s
from selftune.health import AHEAD_MS, Health, data_health
from selftune.judging import QuietWindow
from selftune.lifecycle import WAY_BACK, Change, Life, fold
from selftune.lives import Move
from selftune.mode import ModeState, effective_mode
from selftune.objective import attainment, objective_score
from selftune.plan import Snapshot
from selftune.policy_state import Evidence, Lesson
from selftune.quiet import FULL_PACE, LOOK_BACK_S, Quiet, brief_windows, quiet_history_s, quiet_of
from selftune.seen import Seen

BLIND_WINDOWS = 3  # loop.md: an open change waits 3 R of blind time
LESSONS = 50


@dataclass(frozen=True)
class Picture:
    """Everything that follows from one snapshot. Instants as in `Snapshot`."""

    snap: Snapshot

    @property
    def settings(self) -> Settings:
        return self.snap.settings

    @cached_property
    def life(self) -> Life:
        if self.snap.life is not None:
            return self.snap.life
        return fold(self.snap.records.decisions, self.snap.records.events, self.settings)

    @cached_property
    def open(self) -> tuple[Change, ...]:
        """Changes that wait for their first verdict; another's is judged once its effect row is there."""
        waiting = self.life.open_at(self.snap.clock_ms, self.settings)
        if all(c.origin is Origin.LOOP for c in waiting):
            return waiting
        rows = {row.key for row in self.snap.records.effect_rows}
        stamps = {e.key: (e.ts_ms, e.rule) for e in self.snap.records.events}
        return tuple(
            c for c in waiting if c.origin is Origin.LOOP or not all(stamps.get(k) in rows for k in c.keys)
        )

    @cached_property
    def health(self) -> Health:
        return data_health(self.snap.series, self.settings, self.snap.now_ms)

    @cached_property
    def pace(self) -> float:
        """Seconds of this root for one default second (health.py)."""
        return pace_of(self.settings)

    @property
    def newest_ms(self) -> int | None:
        return self.snap.series.newest_ms

    def reached(self, metric_ms: float) -> bool:
        """True when the samples reach this instant of the metrics' time."""
        newest = self.newest_ms
        return newest is not None and newest >= metric_ms - 2 * 1000 / max(self.health.rate_hz or 1.0, 0.1)

    @cached_property
    def blind_s(self) -> float:
        """How long the data have not been good, on the steady clock; 0 while they are."""
        if not self.health.stale:
            return 0.0
        return inf if self.snap.ok_at_ms is None else (self.snap.clock_ms - self.snap.ok_at_ms) / 1000

    @property
    def blind_too_long(self) -> bool:
        return self.blind_s >= BLIND_WINDOWS * self.settings.observe_window_s

    # ------------------------------------------------------------------------ limits and mode
    @cached_property
    def breaches(self) -> tuple[GuardCheck, ...]:
        """Hard limits that the last 20 s broke."""
        return tuple(
            c for c in hard_breach(self.snap.series, self.settings, self.snap.now_ms) if not c.passed
        )

    @cached_property
    def hard_inside_s(self) -> float:
        return hard_inside_s(self.snap.series, self.settings, self.snap.now_ms)

    @cached_property
    def crits(self) -> tuple[RiskWarning, ...]:
        """Critical warnings that nothing resolved and no person acknowledged."""
        known = {str(k) for g in self.snap.records.governance for k in g.data.get("acknowledges") or ()}
        return tuple(c for c in open_crits(self.snap.records) if crit_key(c) not in known)

    @cached_property
    def mode(self) -> ModeState:
        crits = [c for c in self.crits if not self._ours_and_outside(c)]
        mode = self._mode(None, None)
        seen = mode.loan.crits_seen if mode.loan else frozenset()
        new = [c for c in crits if crit_key(c) not in seen]
        crit = Reason("loan.crit", {"note": new[0].note, "rule": new[0].rule}) if new else None
        hard_at = self.life.last_hard_at_ms
        broke = hard_at is not None and mode.loan is not None and hard_at >= mode.loan.since_ms
        breach = Reason("loan.breach", {}) if broke and not self.breaches else None
        return self._mode(crit, breach) if crit or breach else mode

    def _mode(self, crit: Reason | None, breach: Reason | None) -> ModeState:
        return effective_mode(
            self.settings,
            self.snap.records.governance,
            self.life,
            settings_valid=self.snap.settings_problem is None,
            chain_ok=self.snap.records.chain.ok,
            now_ms=self.snap.now_ms,
            crit=crit,
            breach=breach,
        )

    def _unseen(self) -> tuple[RiskWarning, ...]:
        """Open critical warnings that no approver saw when arming."""
        seen = self.mode.loan.crits_seen if self.mode.loan else frozenset()
        return tuple(c for c in self.crits if crit_key(c) not in seen)

    def _ours_and_outside(self, crit: RiskWarning) -> bool:
        """Our own emergency's crit does not disarm before the metric is back inside its limit."""
        return bool(crit.signal.get("emergency")) and bool(self.breaches)

    # ------------------------------------------------------------------------ the present
    @cached_property
    def shown(self) -> Mapping[str, WindowStat]:
        """The last `observe_window_s` of samples per metric: what people are shown and what is scored."""
        end = (self.newest_ms or self.snap.now_ms) + 1  # without a sample: an empty window that ends now
        start = end - round(self.settings.observe_window_s * 1000)
        return window_stats(self.snap.series, self.settings, start, end)

    @cached_property
    def windows(self) -> Mapping[str, WindowStat]:
        """The same without the washout of the last event: what a policy may stand on."""
        end = (self.newest_ms or self.snap.now_ms) + 1  # without a sample: an empty window that ends now
        start = end - round(self.settings.observe_window_s * 1000)
        last = self.life.last_any
        washed = last.ts_ms + round(self.settings.settle_s * 1000) if last is not None else start
        if last is None or washed <= start or last.ts_ms >= end:
            return self.shown
        start = min(end, washed)
        return window_stats(self.snap.series, self.settings, start, end)

    @property
    def means(self) -> dict[str, float | None]:
        return {m: w.mean for m, w in self.shown.items()}

    @cached_property
    def score(self) -> float | None:
        return objective_score(self.settings, self.means)

    @cached_property
    def attainment(self) -> dict[str, float | None]:
        return {m: attainment(t, self.means[m]) for m, t in self.settings.targets.items()}

    # ------------------------------------------------------------------------ windows of the past
    @cached_property
    def regimes_ms(self) -> tuple[int, ...]:
        """When each new regime began, metrics' time."""
        return tuple(
            int(d.data.get("from_ms") or d.ts_ms)
            for d in self.snap.records.decisions
            if d.kind == "verdict" and d.act == "regime"
        )

    @cached_property
    def confirms_ms(self) -> tuple[int, ...]:
        """When the anchor moved: its baseline is measured afresh after each."""
        return tuple(
            d.ts_ms for d in self.snap.records.decisions if d.kind == "verdict" and d.act == "confirm"
        )

    @cached_property
    def baseline(self) -> bool:
        """True when the present anchor was seen in a quiet window after it was confirmed."""
        confirmed, last = self.life.last_confirm_ts_ms, self.life.last_any
        if confirmed is None or (last is not None and last.ts_ms > confirmed):
            return True
        if self.newest_ms is not None and confirmed > self.newest_ms + AHEAD_MS:
            return True  # stamped before the clock jumped back: no window can ever follow it
        return any(w.start_ms >= confirmed for w in self.seen.at(self.life.values))

    @cached_property
    def quiet(self) -> tuple[QuietWindow, ...]:
        """Quiet windows of the past, made anew only when a bin was closed or a record was added."""
        snap = self.snap
        fast = self.pace < FULL_PACE  # then the samples themselves are the grid
        inputs = (snap.series if fast else snap.coarse, self.life, snap.settings)
        known = snap.memo.last("quiet")
        found = snap.memo.get(
            "quiet",
            inputs,
            lambda: quiet_of(
                snap.series,
                snap.coarse,
                snap.records.events,
                self.settings,
                regimes_ms=self.regimes_ms,
                marks_ms=self.confirms_ms,
                known=known if isinstance(known, Quiet) else None,
            ),
        )
        return found.windows

    @cached_property
    def taught(self) -> tuple[QuietWindow, ...]:
        """What the policy learns from: the quiet windows, and those that a change cut short, oldest first.

        A step that is sent home early leaves no whole window: without these it would be tried again.
        """
        snap = self.snap
        brief = snap.memo.get(
            "brief",
            (snap.series if self.pace < FULL_PACE else snap.coarse, self.life, snap.settings),
            lambda: brief_windows(
                snap.series, snap.coarse, snap.records.events, self.settings, regimes_ms=self.regimes_ms
            ),
        )
        return tuple(sorted((*self.quiet, *brief), key=lambda w: w.start_ms)) if brief else self.quiet

    @property
    def broke(self) -> bool:
        """Whether a hard limit was broken within the time whose windows are remembered."""
        last = self.life.last_hard_at_ms
        return last is not None and self.snap.clock_ms - last < LOOK_BACK_S * 1000

    @cached_property
    def seen(self) -> Seen:
        """What was seen at which rule values; stands in for the model until there is one."""
        return Seen(windows=self.quiet, regime=self.life.regime, settings=self.settings)

    def effect_of(self, change: Change) -> Effect:
        """The Δ of one change, measured now."""
        mine = set(change.keys)
        others = tuple(e.ts_ms for e in self.snap.records.events if e.key not in mine)
        known = self.snap.memo.last("measured")  # a replay has measured many events at once
        return measure(
            self.snap.series,
            self.settings,
            event_ms=change.window_from_ms,
            keys=change.keys,
            others_ms=others,
            now_ms=self.snap.now_ms,
            known=known if isinstance(known, Measured) else None,
        )

    # ------------------------------------------------------------------------ evidence
    @cached_property
    def judged(self) -> tuple[tuple[Change, Decision], ...]:
        """Changes with their first verdict's record, oldest first."""
        changes = {c.id: c for c in self.life.changes}
        return tuple(
            (change, d)
            for d in self.snap.records.decisions
            if d.kind == "verdict"
            and d.act == "evaluate"
            and (change := changes.get(str(d.data.get("change")))) is not None
        )

    @cached_property
    def evidence(self) -> Evidence | None:
        """The newest Δ of a change (not of a way back), ours or the family tracker's."""
        found = [self._from_verdict(c, d) for c, d in self.judged[-1:]]
        known = {(e.ts_ms, e.rule): e for e in self.snap.records.events}
        for row in reversed(self.snap.records.effect_rows):
            event = known.get(row.key)
            change = self.life.change_of(event.key) if event else None
            if change is not None and change.kind in WAY_BACK:
                continue
            at_ms = event.at_ms if event else min(row.ts_ms, self.snap.clock_ms)
            key = event.key if event else f"row-{row.ts_ms}-{row.rule}"
            verdict = Verdict(row.verdict) if row.verdict and row.verdict in Verdict.__members__ else None
            found.append(
                Evidence(
                    key=key,
                    rule=row.rule,
                    ts_ms=row.ts_ms,
                    age_s=self._age_s(at_ms),
                    deltas={long_name(m): x for m, x in row.d.items()},
                    verdict=verdict,
                    spent=key in self.life.spent,
                )
            )
            break
        return max(found, key=lambda e: e.ts_ms, default=None)

    def _from_verdict(self, change: Change, d: Decision) -> Evidence:
        return Evidence(
            key=change.keys[0],
            rule=change.rules[0],
            ts_ms=change.ts_ms,
            age_s=self._age_s(change.at_ms),
            deltas=deltas_of(d.data, self.settings),
            verdict=Verdict(d.data["verdict"]) if d.data.get("verdict") in Verdict.__members__ else None,
            spent=any(k in self.life.spent for k in change.keys),
        )

    def _age_s(self, event_at_ms: int) -> float:
        """Seconds since the end of the event's observation window."""
        return max(0.0, (self.snap.clock_ms - event_at_ms) / 1000 - self.settings.observe_window_s)

    @cached_property
    def lessons(self) -> tuple[Lesson, ...]:
        """What earlier single-rule changes did, newest last."""
        kept = self.snap.memo.last("lessons")
        before = {id(basis[0]): (basis, lesson) for basis, lesson in kept} if isinstance(kept, list) else {}
        found: list[_Taught] = []
        for c, d in self.judged[-LESSONS:]:
            if len(c.moves) == 1:
                old, basis = before.get(id(d)), (d, c.moves[0], self.settings)
                same = old is not None and all(a is b for a, b in zip(old[0], basis, strict=True))
                found.append(old if old is not None and same else (basis, _lesson(*basis)))
        self.snap.memo.keep("lessons", found)
        return tuple(lesson for _, lesson in found)

    @cached_property
    def warn_hold(self) -> tuple[Reason, int] | None:
        """The warning Δ that holds changes back: the newest Δ, if it breached `safety.warn`."""
        ev = self.evidence
        if ev is None:
            return None
        reason = warn_delta(ev.deltas, self.settings)
        if reason is None:
            return None
        at_ms = self.snap.clock_ms - int((ev.age_s + self.settings.observe_window_s) * 1000)
        return reason, at_ms

    # ------------------------------------------------------------------------ guards
    @cached_property
    def fallen(self) -> float:
        """How far the score fell after the last excursion without gain, before any new one began."""
        if not self.life.fruitless:
            return 0.0
        exc = self.life.excursion
        since = self.snap.now_ms - (self.snap.clock_ms - self.life.fruitless_at_ms)
        return self.seen.fallen(since, exc.start_ts_ms if exc is not None else inf)

    @cached_property
    def situation(self) -> Situation:
        newest = self.newest_ms
        first = int(self.snap.series.ts_ms[0]) if len(self.snap.series) else None
        return Situation(
            settings=self.settings,
            life=self.life,
            mode=self.mode,
            health=self.health,
            now_ms=self.snap.now_ms,
            clock_ms=self.snap.clock_ms,
            open=self.open,
            baseline=self.baseline,
            quiet_s=quiet_history_s(
                self.snap.series,
                [e.ts_ms for e in self.snap.records.events],
                self.settings,
                newest or self.snap.now_ms,
            ),
            span_s=(newest - first) / 1000 if newest is not None and first is not None else 0.0,
            hard_inside_s=self.hard_inside_s,
            fallen=self.fallen,
            crits=self._unseen(),
            warn=self.warn_hold,
            settings_problem=self.snap.settings_problem,
            lease_ok=self.snap.lease_ok,
            windows_n={m: w.n for m, w in self.windows.items()},
            window_s=max(((w.end_ms - w.start_ms) / 1000 for w in self.windows.values()), default=0.0),
        )

    @cached_property
    def checks(self) -> tuple[GuardCheck, ...]:
        """Every guard of the loop as a whole."""
        return check_loop(self.situation)

    def decision(self, decision_id: str | None) -> Decision | None:
        """The record of one decision."""
        return next((d for d in reversed(self.snap.records.decisions) if d.id == decision_id), None)

    @property
    def after(self) -> str | None:
        """Key of the last rule event known: where this decision stands in the story."""
        events = self.snap.records.events
        return events[-1].key if len(events) else None


_Taught = tuple[tuple[Decision, Move, Settings], Lesson]


def _lesson(d: Decision, move: Move, settings: Settings) -> Lesson:
    return Lesson(
        rule=move.rule,
        step=(move.new if move.new is not None else move.old) - move.old,
        deltas=deltas_of(d.data, settings),
        verdict=verdict_of(d.data.get("verdict")),
    )


def crit_key(crit: RiskWarning) -> str:
    """How an arming request names a critical warning that the approver saw."""
    return crit.effect or f"{crit.ts_ms}/{crit.rule}"


def deltas_of(data: Mapping[str, Any], settings: Settings) -> dict[str, float | None]:
    """A verdict record's deltas by metric (None: not measured)."""
    deltas = data.get("deltas")
    if not isinstance(deltas, Mapping):
        return dict.fromkeys(settings.metrics)
    found: dict[str, float | None] = {}
    for m in settings.metrics:
        x = deltas[f"d_{m}"] if f"d_{m}" in deltas else deltas.get(f"d_{short_name(m)}")
        found[m] = float(x) if isinstance(x, int | float) and not isinstance(x, bool) else None
    return found


def warn_delta(deltas: Mapping[str, float | None], settings: Settings) -> Reason | None:
    """The `safety.warn` limit that these deltas break, if any; with `phase_bad` both must be beyond."""
    if settings.phase_bad is not None:
        phase = deltas.get("phase_diff")
        if phase is None or phase < settings.phase_bad:
            return None
    for metric, limit in settings.warn.items():
        x = deltas.get(metric)
        if x is None:
            continue
        edge = limit.min if limit.min is not None else limit.max
        beyond = (limit.min is not None and x >= limit.min) or (limit.max is not None and x <= limit.max)
        if beyond:
            return Reason("warn.joint_rise", {"metric": metric, "observed": x, "limit": edge})
    return None
