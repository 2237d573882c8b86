"""What the records say: the fold of decisions and rule events into one picture, `Life`.

Answers "which change is where in its life, what is proven, what is barred, paused, owed?".
Pure; the same records give the same picture whichever file was read first, because our decisions
name the last rule event they had seen (`after`). Durations are counted on the steady clock (`at_ms`).
The nouns are in `lives`, what one record means in `fold_events` and `fold_decisions`. Source: loop.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import pairwise

from selftune.book import continues
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
    "Folding",
    "Life",
    "Look",
    "Pause",
    "Suggestion",
    "channel",
    "fold",
]


def fold(decisions: Sequence[Decision], events: Sequence[RuleEvent], settings: Settings) -> Life:
    """The picture that the records give under `settings`.

    Independent of the clock, so that it may be kept as long as no record is added; what time ends
    (bars, pauses, rests) is asked with the clock, see `Life.bars_at` and its neighbours.
    """
    return Folding().life(decisions, events, settings)


class Folding:
    """The fold, carried on: records that only follow those folded before cost no more than themselves."""

    def __init__(self) -> None:
        self._told: _Told | None = None

    def life(
        self, decisions: Sequence[Decision], events: Sequence[RuleEvent], settings: Settings
    ) -> Life:  # fmt: skip
        """What `fold` gives for these records."""
        told = self._told
        if told is None or not told.goes_on(decisions, events, settings):
            told = self._told = _Told(settings)
        told.add(decisions, events)
        return told.life()


class _Told:
    """A story as far as it is folded, with what must be known to tell whether a later entry only follows."""

    def __init__(self, settings: Settings) -> None:
        self._fold = Fold(settings=settings)
        self._fold.values = {r.name: r.init for r in settings.rules.values()}
        self._fold.anchor = dict(self._fold.values)
        self._settings = settings
        self._decisions: Sequence[Decision] = ()
        self._events: Sequence[RuleEvent] = ()
        self._index: dict[str, int] = {}  # place of each event in the history
        self._by_id: dict[str, Decision] = {}
        self._seen_at: list[int] = []
        self._floor = -1.0  # decisions keep their own file's order, whatever their stamps say
        self._awaited: set[str] = set()  # named by an entry, but not there: once it comes, all is told anew
        self._timed_ms: int | None = None  # newest decision that was placed by its time alone
        self._orphans: dict[str, tuple[str, ...]] = {}
        self._gone: set[str] = set()

    def goes_on(
        self, decisions: Sequence[Decision], events: Sequence[RuleEvent], settings: Settings
    ) -> bool:  # fmt: skip
        """Whether these are the records of last time and others that stand behind all of them."""
        if settings is not self._settings or not (
            continues(self._decisions, decisions) and continues(self._events, events)
        ):
            return False
        late, told = events[len(self._events) :], decisions[len(self._decisions) :]
        if any(e.key in self._awaited or e.key in self._index for e in late):
            return False
        if any(d.id in self._awaited or d.id in self._by_id for d in told):
            return False
        if late and self._timed_ms is not None:
            at = [*self._seen_at, *(e.at_ms for e in late)]
            if late[0].at_ms <= self._timed_ms or any(b < a for a, b in pairwise(at)):
                return False
        known = {e.key: i for i, e in enumerate(late, len(self._events))}
        return not told or self._place(told[0], known) >= len(self._events) - 1

    def _place(self, d: Decision, late: Mapping[str, int]) -> float:
        """The last event that it had seen; a key that nobody knows is none."""
        if "after" in d.data:
            after = d.data["after"]
            found = late.get(after, self._index.get(after, -1)) if isinstance(after, str) else -1
        else:
            found = bisect_right(self._seen_at, d.at_ms) - 1
        return max(self._floor, float(found))

    def add(self, decisions: Sequence[Decision], events: Sequence[RuleEvent]) -> None:
        """Fold what is new: events in file order, each decision after the last event it had seen."""
        first, n = len(self._events), len(self._decisions)
        late, told = events[first:], decisions[n:]
        self._decisions, self._events = decisions, events
        self._index.update((e.key, i) for i, e in enumerate(late, first))
        self._seen_at += [e.at_ms for e in late]
        self._by_id.update((d.id, d) for d in told)
        self._note(late, told)
        placed: list[tuple[float, int, RuleEvent | Decision]] = []
        placed += [(float(i), 0, e) for i, e in enumerate(late, first)]
        for j, d in enumerate(told, n):
            self._floor = self._place(d, {})
            placed.append((self._floor + 0.5, j, d))
        placed.sort(key=lambda p: (p[0], p[1]))
        for _, _, entry in placed:
            if isinstance(entry, RuleEvent):
                self._fold.event(entry, self._by_id.get(entry.decision) if entry.decision else None)
            else:
                self._fold.decision(entry)

    def _note(self, late: Sequence[RuleEvent], told: Sequence[Decision]) -> None:
        there = self._index
        self._fold.lost |= {d.id for d in told if d.applied and there.keys().isdisjoint(d.applied)}
        self._awaited |= {e.decision for e in late if e.decision and e.decision not in self._by_id}
        for d in told:
            after = d.data.get("after")
            self._awaited |= {k for k in d.applied if k not in there}
            if isinstance(after, str) and after not in there:
                self._awaited.add(after)
            if "after" not in d.data:
                self._timed_ms = d.at_ms if self._timed_ms is None else max(self._timed_ms, d.at_ms)
            self._gone.update(d.abandoned)
            self._orphans[d.id] = d.applied
        left = {i: tuple(k for k in ks if k not in there and k not in self._gone)
                for i, ks in self._orphans.items()}  # fmt: skip
        self._orphans = {i: ks for i, ks in left.items() if ks}

    def life(self) -> Life:
        """The picture as of now. What settings alone say of it is done to a copy, not to the story."""
        f = copy(self._fold)
        f.anchor = {name: r.clip(f.anchor[name]) for name, r in self._settings.rules.items()}
        f.changes, f.open = dict(f.changes), dict(f.open)
        f._shrink(Phase.KEPT)  # an anchor that a bound moved onto the present values proves nothing of them
        return Life(
            values=dict(f.values),
            anchor=f.anchor,
            last_event=dict(f.last_event),
            last_any=f.last_any,
            changes=tuple(f.changes.values()),
            open=tuple(f.open.values()),
            excursion=f.excursion,
            look=f.look,
            bars=tuple(f.bars.values()),
            pauses=dict(f.pauses),
            rests=dict(f.rests),
            regime=f.regime,
            regime_from_ms=f.regime_from_ms,
            fruitless=f.fruitless,
            fruitless_at_ms=f.fruitless_at_ms,
            last_hard_at_ms=f.last_hard_at_ms,
            last_emergency_at_ms=f.last_emergency_at_ms,
            last_confirm_ts_ms=f.last_confirm_ts_ms,
            suggestions=tuple(f.suggestions.values()),
            spent=frozenset(f.spent),
            last_said=dict(f.last_said),
            orphans=self._orphans,
        )
