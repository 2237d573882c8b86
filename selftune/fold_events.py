"""What one rule event means: whose move it is, which changes it ends, what is displaced from the anchor.

Half of the fold (the other half: `fold_decisions`); it holds the working state of both. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from selftune.config import Settings
from selftune.domain import Decision, Phase, RuleEvent
from selftune.lives import (
    OURS,
    WAY_BACK,
    Bar,
    Change,
    ChangeKind,
    Excursion,
    Look,
    Move,
    Pause,
    Suggestion,
)

_ENDS = {  # how a later event of the same rule ends a change that is still open or on probation
    **dict.fromkeys(WAY_BACK, Phase.ROLLED_BACK),
    ChangeKind.ROLLBACK: Phase.ROLLED_BACK,
    ChangeKind.EMERGENCY: Phase.ROLLED_BACK,
}


_KIND_OF_ACT = {
    "step": ChangeKind.STEP,
    "emergency": ChangeKind.EMERGENCY,
    "bound": ChangeKind.BOUND,
    "return": ChangeKind.RETURN,
    "look": ChangeKind.LOOK,
    "restore": ChangeKind.RESTORE,
    "apply": ChangeKind.APPLY,
    "rollback": ChangeKind.ROLLBACK,
}


@dataclass
class EventFold:
    """The fold's working state, and what a rule event does to it; lives only inside `fold`."""

    settings: Settings
    values: dict[str, float] = field(default_factory=dict)
    anchor: dict[str, float] = field(default_factory=dict)
    last_event: dict[str, RuleEvent] = field(default_factory=dict)
    last_any: RuleEvent | None = None
    changes: dict[str, Change] = field(default_factory=dict)
    open: dict[str, Change] = field(default_factory=dict)
    mover: dict[str, str] = field(default_factory=dict)  # rule -> the change that set its value
    lost: frozenset[str] = frozenset()  # decisions of which no intended event reached the history
    excursion: Excursion | None = None
    look: Look | None = None
    looked: tuple[str, ...] = ()  # the steps that the newest end of a look ended
    harms: dict[str, list[int]] = field(default_factory=dict)
    pauses: dict[str, Pause] = field(default_factory=dict)
    bars: dict[tuple[str, int], Bar] = field(default_factory=dict)
    # decision -> rule, sign, at, the bar that stood before
    harm_of: dict[str, tuple[str, int, int, Bar | None]] = field(default_factory=dict)
    rests: dict[str, int] = field(default_factory=dict)
    regime: int = 0
    regime_from_ms: int | None = None
    fruitless: int = 0
    fruitless_at_ms: int = 0
    last_hard_at_ms: int | None = None
    last_emergency_at_ms: int | None = None
    last_confirm_ts_ms: int | None = None
    suggestions: dict[str, Suggestion] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    last_said: dict[str, Decision] = field(default_factory=dict)

    # -- rule events ---------------------------------------------------------------------------
    def event(self, e: RuleEvent, decision: Decision | None) -> None:
        self.last_any = e
        if e.rule not in self.settings.rules:
            return  # a rule the settings do not name: shown, never acted on
        self.last_event[e.rule] = e
        if e.new is None:
            return  # no number: the value in force stays whose it was; the cooldown counts the line
        kind = _kind(e, decision)
        before = self.values[e.rule]
        self.values[e.rule] = e.new
        change = self._change(e, kind, before, decision)
        self.mover[e.rule] = change.id
        self._supersede(change, e)
        if kind is ChangeKind.STEP:
            self._extend(change)
        elif kind is ChangeKind.LOOK:
            self._look(change, e, before)
        elif kind is ChangeKind.RESTORE:
            self.anchor[e.rule] = e.new  # what is restored is no worse than the anchor that it replaces
        elif kind is ChangeKind.RETURN and (self.excursion is None or e.rule not in self.excursion.displaced):
            self.anchor[e.rule] = e.new  # another's value went back: the proof is where it was before
        elif kind is ChangeKind.EMERGENCY:
            self.last_emergency_at_ms = e.at_ms
        if kind not in OURS:
            self._rebase(e.rule)
        self._shrink(None if kind is ChangeKind.LOOK else _ENDS.get(kind, Phase.SUPERSEDED))

    def _look(self, change: Change, e: RuleEvent, before: float) -> None:
        known = self.look if self.look is not None and self.look.change == change.id else None
        steps = known.steps if known else (self.excursion.steps if self.excursion else ())
        left = {**(known.left if known else {}), e.rule: before}
        self.look = Look(change=change.id, left=left, steps=steps, at_ms=e.at_ms, ts_ms=e.ts_ms)

    def _change(self, e: RuleEvent, kind: ChangeKind, before: float, decision: Decision | None) -> Change:
        change_id = decision.id if decision is not None and kind is not ChangeKind.FOREIGN else e.key
        if kind is ChangeKind.FOREIGN:  # several rules in one second are one joint change
            last = next(reversed(self.changes.values()), None)
            if (
                last is not None
                and last.kind is ChangeKind.FOREIGN
                and last.actor == e.actor
                and abs(e.ts_ms - last.ts_ms) < 1000
                and e.rule not in last.rules
            ):
                change_id = last.id
        move = Move(rule=e.rule, old=before, new=e.new, key=e.key)
        known = self.changes.get(change_id)
        if known is not None:
            change = replace(known, moves=(*known.moves, move))
        else:
            change = Change(
                id=change_id,
                kind=kind,
                moves=(move,),
                ts_ms=e.ts_ms,
                at_ms=e.at_ms,
                actor=e.actor,
                window_from_ms=e.ts_ms,
                decision=decision.id if decision is not None and change_id == decision.id else None,
                cause=text_or_none(decision.data.get("cause")) if decision is not None else None,
            )
        self._put(change)
        return change

    def _put(self, change: Change) -> None:
        self.changes[change.id] = change
        if change.is_open:
            self.open[change.id] = change
        else:
            self.open.pop(change.id, None)

    def _supersede(self, change: Change, e: RuleEvent) -> None:
        """Another event of the same rule ends the observation of an open change before its verdict."""
        ended = _ENDS.get(change.kind, Phase.SUPERSEDED)
        for other in list(self.open.values()):
            if other.id != change.id and e.rule in other.rules:
                self._put(replace(other, ended=ended))

    def _end_steps(self, steps: Iterable[str], ended: Phase) -> tuple[str, ...]:
        """Those of them that had not ended before."""
        alive = tuple(s for s in steps if (c := self.changes.get(s)) is not None and c.ended is None)
        for step in alive:
            self._put(replace(self.changes[step], ended=ended))
        return alive

    def _extend(self, change: Change) -> None:
        exc = self.excursion
        if exc is not None and exc.steps and exc.steps[-1] == change.id:
            return  # the second rule of one commit
        if exc is None:
            exc = Excursion(
                steps=(),
                start_at_ms=change.at_ms,
                start_ts_ms=change.ts_ms,
                last_at_ms=change.at_ms,
                last_ts_ms=change.ts_ms,
                displaced={},
            )
        self.excursion = replace(
            exc,
            steps=(*exc.steps, change.id),
            last_at_ms=change.at_ms,
            last_ts_ms=change.ts_ms,
            looks_since_last=0,
        )

    def _rebase(self, rule: str) -> None:
        """A value set by another, or by an emergency, is where that rule's proof starts again."""
        self.anchor[rule] = self.settings.rules[rule].clip(self.values[rule])
        if self.excursion is not None:
            self.excursion = replace(self.excursion, contrast_ok=False)
        if self.look is not None:
            self.look = replace(self.look, disturbed=True)

    def _shrink(self, ended: Phase | None) -> None:
        """Recompute what is displaced; an excursion with nothing displaced is over, its steps `ended`."""
        if self.excursion is None:
            return
        displaced = {
            r: (self.anchor[r], v)
            for r, v in self.values.items()
            if v != self.anchor[r] and (c := self._last_change(r)) is not None and c.kind in OURS
        }
        if not displaced and ended is not None:
            self._end_steps(self.excursion.steps, ended)
        self.excursion = replace(self.excursion, displaced=displaced) if displaced else None

    def _last_change(self, rule: str) -> Change | None:
        return self.changes.get(self.mover.get(rule, ""))


def _kind(e: RuleEvent, decision: Decision | None) -> ChangeKind:
    if decision is None or e.key not in decision.applied:
        return ChangeKind.FOREIGN
    if decision.kind == "cycle" and decision.act is None:
        return ChangeKind.STEP
    return _KIND_OF_ACT.get(decision.act or "", ChangeKind.FOREIGN)


def text_or_none(x: object) -> str | None:
    return x if isinstance(x, str) else None
