"""What is being watched and where the system stands, with the time that is left.

Answers "how long until the verdict, and what happens at the end?" from the picture. Decides nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selftune.decision_lines import reasons_of
from selftune.domain import Decision, Origin, Phase, Reason, Verdict
from selftune.guards import most_steps
from selftune.lifecycle import Change
from selftune.picture import Picture


@dataclass(frozen=True, kw_only=True)
class Watch:
    """One change under observation, or after it. Instants on the wall clock, `left_s` >= 0.

    `stage`: settling | watching | judging (window over, verdict awaited) | done.
    """

    change: str
    actor: str
    origin: Origin
    moves: tuple[tuple[str, float, float | None], ...]
    at_ms: int
    settled_ms: int
    due_ms: int
    stage: str
    phase: Phase
    left_s: float
    verdict: Verdict | None
    reasons: tuple[Reason, ...]
    event: str


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where the system stands: proven values, unproven steps, what is left of the budget.

    `set_by_others`: rules whose reference is what a person or a program set, and nothing has proven yet.
    """

    values: Mapping[str, float]
    proven: Mapping[str, float]
    steps: int
    max_steps: int
    left_s: float | None
    looking: bool
    set_by_others: tuple[str, ...] = ()

    @property
    def home(self) -> bool:
        return self.steps == 0 and not self.looking


def wall(p: Picture, at_ms: float) -> int:
    """An instant of the steady clock on the wall clock."""
    return round(p.snap.now_ms + at_ms - p.snap.clock_ms)


def watches(p: Picture) -> tuple[Watch, ...]:
    """Every change that waits for its first verdict, newest first."""
    return tuple(watch_of(p, c) for c in reversed(p.open))


def watch_of(p: Picture, c: Change) -> Watch:
    """How far the observation of one change has come."""
    s = p.settings
    at_ms, clock = wall(p, c.at_ms), p.snap.clock_ms
    settled, due = c.at_ms + s.settle_s * 1000, c.at_ms + s.observe_window_s * 1000
    if not c.is_open:
        stage, left = "done", 0.0
    elif clock < settled:
        stage, left = "settling", (due - clock) / 1000
    else:
        stage, left = ("watching", (due - clock) / 1000) if clock < due else ("judging", 0.0)
    record = evaluation_of(p, c.id)
    return Watch(
        change=c.id,
        actor=c.actor,
        origin=c.origin,
        moves=tuple((m.rule, m.old, m.new) for m in c.moves),
        at_ms=at_ms,
        settled_ms=wall(p, settled),
        due_ms=wall(p, due),
        stage=stage,
        phase=c.phase(s, clock),
        left_s=max(0.0, left),
        verdict=c.verdict,
        reasons=reasons_of(record.data.get("reasons")) if record else (),
        event=c.keys[0],
    )


def evaluation_of(p: Picture, change_id: str) -> Decision | None:
    """The record of a change's first verdict."""
    return next(
        (
            d
            for d in reversed(p.snap.records.decisions)
            if d.kind == "verdict" and d.act == "evaluate" and d.data.get("change") == change_id
        ),
        None,
    )


def where(p: Picture) -> Where:
    """Proven values, unproven steps and what is left of their budget."""
    exc, budget = p.life.excursion, p.settings.excursion
    age_s = (p.snap.clock_ms - exc.start_at_ms) / 1000 if exc else 0.0
    return Where(
        values=p.life.values,
        proven=p.life.anchor,
        steps=len(exc.steps) if exc else 0,
        max_steps=most_steps(p.settings, p.life, p.fallen),
        left_s=max(0.0, budget.max_s - age_s) if exc else None,
        looking=p.life.look is not None,
        set_by_others=tuple(r for r in p.settings.rules if _set_by_others(p, r)),
    )


def _set_by_others(p: Picture, rule: str) -> bool:
    last = p.life.last_event.get(rule)
    change = p.life.change_of(last.key) if last is not None else None
    return change is not None and change.origin is not Origin.LOOP and change.ended is not Phase.CONFIRMED
