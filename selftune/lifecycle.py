"""What the records say: the fold of decisions and rule events into one picture, `Life`.

Answers "which change is where in its life, what is proven, what is barred, paused, owed?".
Pure; the same records give the same picture whichever file was read first, because our decisions
name the last rule event they had seen (`after`). Durations are counted on the steady clock (`at_ms`).
The nouns are in `lives`, what one record means in `fold_events` and `fold_decisions`. Source: loop.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from selftune.config import Settings
from selftune.domain import Decision, Phase, RuleEvent
from selftune.fold_decisions import BAR_MAX_S, Fold, channel
from selftune.lives import (
    OURS,
    WAY_BACK,
    Bar,
    Change,
    ChangeKind,
    Excursion,
    Life,
    Look,
    Pause,
    Suggestion,
)

__all__ = [
    "BAR_MAX_S",
    "OURS",
    "WAY_BACK",
    "Bar",
    "Change",
    "ChangeKind",
    "Excursion",
    "Life",
    "Look",
    "Pause",
    "Suggestion",
    "channel",
    "fold",
    "orphans",
]


def fold(decisions: Sequence[Decision], events: Sequence[RuleEvent], settings: Settings) -> Life:
    """The picture that the records give under `settings`.

    Independent of the clock, so that it may be kept as long as no record is added; what time ends
    (bars, pauses, rests) is asked with the clock, see `Life.bars_at` and its neighbours.
    """
    f = Fold(settings=settings)
    f.values = {r.name: r.init for r in settings.rules.values()}
    f.anchor = dict(f.values)
    by_id = {d.id: d for d in decisions}
    there = {e.key for e in events}
    f.lost = frozenset(d.id for d in decisions if d.applied and there.isdisjoint(d.applied))
    for entry in _merged(decisions, events):
        if isinstance(entry, RuleEvent):
            f.event(entry, by_id.get(entry.decision) if entry.decision else None)
        else:
            f.decision(entry)
    for rule in settings.rules.values():  # settings that move a bound clip the anchor
        f.anchor[rule.name] = rule.clip(f.anchor[rule.name])
    f._shrink(Phase.KEPT)  # an anchor that a bound moved onto the present values proves nothing of them
    return Life(
        values=f.values,
        anchor=f.anchor,
        last_event=f.last_event,
        last_any=f.last_any,
        changes=tuple(f.changes.values()),
        open=tuple(f.open.values()),
        excursion=f.excursion,
        look=f.look,
        bars=tuple(f.bars.values()),
        pauses=f.pauses,
        rests=f.rests,
        regime=f.regime,
        regime_from_ms=f.regime_from_ms,
        fruitless=f.fruitless,
        fruitless_at_ms=f.fruitless_at_ms,
        fruitless_score=f.fruitless_score,
        last_hard_at_ms=f.last_hard_at_ms,
        last_emergency_at_ms=f.last_emergency_at_ms,
        last_confirm_ts_ms=f.last_confirm_ts_ms,
        suggestions=tuple(f.suggestions.values()),
        spent=frozenset(f.spent),
        last_said=f.last_said,
        orphans=orphans(decisions, events),
    )


def orphans(decisions: Iterable[Decision], events: Iterable[RuleEvent]) -> dict[str, tuple[str, ...]]:
    """Decision id -> intended event keys that never reached the history and are not yet abandoned."""
    there = {e.key for e in events}
    listed = tuple(decisions)
    gone = {k for d in listed for k in d.abandoned}
    return {
        d.id: missing
        for d in listed
        if (missing := tuple(k for k in d.applied if k not in there and k not in gone))
    }


def _merged(decisions: Sequence[Decision], events: Sequence[RuleEvent]) -> list[RuleEvent | Decision]:
    """Both files as one story: events in file order, each decision after the last event it had seen."""
    index = {e.key: i for i, e in enumerate(events)}
    seen_at = [e.at_ms for e in events]
    placed: list[tuple[float, int, RuleEvent | Decision]] = [(float(i), 0, e) for i, e in enumerate(events)]
    floor = -1.0  # decisions keep their own file's order, whatever their stamps say
    for j, d in enumerate(decisions):
        if "after" in d.data:
            after = d.data["after"]
            at = float(index.get(after, -1)) if isinstance(after, str) else -1.0
        else:
            at = float(bisect_right(seen_at, d.at_ms) - 1)
        floor = max(floor, at)
        placed.append((floor + 0.5, j, d))
    placed.sort(key=lambda p: (p[0], p[1]))
    return [p[2] for p in placed]
