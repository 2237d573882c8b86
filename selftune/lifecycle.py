"""What the records say: the fold of decisions and rule events into one picture, `Life`.

Answers "which change is where in its life, what is proven, what is barred, paused, owed?".
Pure; the same records give the same picture whichever file was read first, because our decisions
name the last rule event they had seen (`after`). Durations are counted on the steady clock (`at_ms`).
Source: loop.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import Any

from selftune.config import Settings
from selftune.domain import Decision, Origin, Phase, RuleEvent, Verdict, verdict_of

HARM_MEMORY_S = 24 * 3600.0  # loop.md: consecutive proven harm of one rule within 24 h
PAUSES_S = (3600.0, 6 * 3600.0, inf)  # then until a person releases it
BAR_S = 30 * 60.0  # doubling ...
BAR_MAX_S = 24 * 3600.0  # ... up to a day
LAPSE_WINDOWS = 4  # 3 R of blind time and one window: after that others' changes are history
REST_S = 30 * 60.0  # a rule whose harm was "not ours" rests
# ways back that say nothing about gain
NOT_FRUITLESS = frozenset({"blind", "loan_end", "regime", "look", "disturbed", "clock_back", "lost"})


class ChangeKind(StrEnum):
    """Why a rule moved. Only STEP adds to an excursion; PERSON's and FOREIGN moves re-base the anchor."""

    STEP = "step"
    EMERGENCY = "emergency"
    BOUND = "bound"
    RETURN = "return"
    LOOK = "look"
    RESTORE = "restore"
    APPLY = "apply"
    ROLLBACK = "rollback"
    FOREIGN = "foreign"


WAY_BACK = frozenset({ChangeKind.RETURN, ChangeKind.LOOK, ChangeKind.RESTORE})
OURS = frozenset({ChangeKind.STEP, *WAY_BACK})
_ENDS = {  # how a later event of the same rule ends a change that is still open or on probation
    **dict.fromkeys(WAY_BACK, Phase.ROLLED_BACK),
    ChangeKind.ROLLBACK: Phase.ROLLED_BACK,
    ChangeKind.EMERGENCY: Phase.ROLLED_BACK,
}


@dataclass(frozen=True, kw_only=True)
class Move:
    """One rule's part of a change; `old` is the value in force before, `key` the event."""

    rule: str
    old: float
    new: float | None
    key: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change's whole life so far. `window_from_ms`: where its observation begins, metrics' time."""

    id: str
    kind: ChangeKind
    moves: tuple[Move, ...]
    ts_ms: int
    at_ms: int
    actor: str
    window_from_ms: int
    decision: str | None = None
    verdict: Verdict | None = None
    verdict_at_ms: int | None = None
    ended: Phase | None = None
    verified: str | None = None
    reobserved_at_ms: int | None = None
    recorded: bool = False
    undone: bool = False
    cause: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(m.key for m in self.moves)

    @property
    def rules(self) -> tuple[str, ...]:
        return tuple(m.rule for m in self.moves)

    @property
    def origin(self) -> Origin:
        if self.kind is ChangeKind.FOREIGN:
            return Origin.FOREIGN
        return Origin.PERSON if self.kind in (ChangeKind.APPLY, ChangeKind.ROLLBACK) else Origin.LOOP

    @property
    def is_open(self) -> bool:
        """Open until its first verdict; the ways back are watched, but are not open changes."""
        return self.verdict is None and self.ended is None and self.kind not in WAY_BACK

    def phase(self, settings: Settings, clock_ms: int) -> Phase:
        """Where the change is now: what the records ended, else what the clock says."""
        if self.ended is not None:
            return self.ended
        if self.verdict is not None:
            return Phase.ON_PROBATION
        settled = clock_ms >= self.at_ms + settings.settle_s * 1000
        return Phase.OBSERVING if settled else Phase.APPLIED


@dataclass(frozen=True, kw_only=True)
class Excursion:
    """All unproven steps of ours since the anchor, judged together.

    `steps` are change ids in order; `start_*`/`last_*` the first and last of them; `looks` the
    judgements spent; `contrast_ok` False once a foreign event or a regime broke the comparison.
    """

    steps: tuple[str, ...]
    start_at_ms: int
    start_ts_ms: int
    last_at_ms: int
    last_ts_ms: int
    displaced: Mapping[str, tuple[float, float]]  # rule -> (anchor, present value)
    looks: int = 0
    looks_since_last: int = 0
    reversal_used: bool = False
    contrast_ok: bool = True


@dataclass(frozen=True, kw_only=True)
class Look:
    """A reversal look under way: the return's change id and the values that were left."""

    change: str
    left: Mapping[str, float]
    steps: tuple[str, ...]
    at_ms: int
    ts_ms: int
    disturbed: bool = False


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A half-line that is closed for a while: `rule` must not go beyond `beyond` in direction `sign`."""

    rule: str
    sign: int
    beyond: float
    until_at_ms: float
    times: int


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A rule paused for exploration after consecutive proven harm; `until_at_ms` inf = until released."""

    rule: str
    until_at_ms: float
    harms: int


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A proposal on record that was not applied by its own decision."""

    id: str
    decision: str
    kind: str
    rule: str
    old: float
    new: float
    at_ms: int
    config: str | None
    evidence: str | None
    ended: Phase | None = None
    snoozed_until_at_ms: float = 0
    renewed: int = 0

    @property
    def sign(self) -> int:
        return 1 if self.new > self.old else -1

    def stands(
        self, settings: Settings, values: Mapping[str, float], clock_ms: int, digest: str | None = None
    ) -> bool:
        """True while it may still be acted on: in time, the rule unmoved, the settings unchanged."""
        return (
            self.ended is None
            and clock_ms < self.at_ms + settings.proposal_ttl_s * 1000
            and values.get(self.rule) == self.old
            and (digest is None or self.config is None or self.config == digest)
        )


@dataclass(frozen=True, kw_only=True)
class Life:
    """The whole picture at one instant; everything here is derived from records."""

    values: Mapping[str, float]
    anchor: Mapping[str, float]
    last_event: Mapping[str, RuleEvent]
    last_any: RuleEvent | None
    changes: tuple[Change, ...]
    open: tuple[Change, ...]
    excursion: Excursion | None
    look: Look | None
    bars: tuple[Bar, ...]
    pauses: Mapping[str, Pause]
    rests: Mapping[str, int]
    regime: int
    regime_from_ms: int | None
    fruitless: int
    fruitless_at_ms: int
    fruitless_score: float | None
    last_hard_at_ms: int | None
    last_emergency_at_ms: int | None
    last_confirm_ts_ms: int | None
    suggestions: tuple[Suggestion, ...]
    spent: frozenset[str]
    last_said: Mapping[str, Decision]
    orphans: Mapping[str, tuple[str, ...]]

    def change(self, change_id: str) -> Change | None:
        return next((c for c in reversed(self.changes) if c.id == change_id), None)

    def change_of(self, key: str) -> Change | None:
        """The change that a rule event belongs to."""
        return next((c for c in reversed(self.changes) if key in c.keys), None)

    def open_at(self, clock_ms: int, settings: Settings) -> tuple[Change, ...]:
        """Open changes that are still to be judged: ours until they are, others' until 4 R have passed.

        What others did long before we looked is history; the effects file gets its row, nothing waits.
        """
        lapse_ms = LAPSE_WINDOWS * settings.observe_window_s * 1000
        return tuple(c for c in self.open if c.origin is Origin.LOOP or clock_ms - c.at_ms < lapse_ms)

    def bars_at(self, clock_ms: int) -> tuple[Bar, ...]:
        """Bars still closed."""
        return tuple(b for b in self.bars if b.until_at_ms > clock_ms)

    def pause_of(self, rule: str, clock_ms: int) -> Pause | None:
        """The rule's pause if it still holds."""
        pause = self.pauses.get(rule)
        return pause if pause is not None and pause.until_at_ms > clock_ms else None

    def rest_until(self, rule: str, clock_ms: int) -> int | None:
        """Until when the rule rests, None if it does not."""
        until = self.rests.get(rule)
        return until if until is not None and until > clock_ms else None

    @property
    def steps(self) -> tuple[Change, ...]:
        """Our unproven steps, oldest first."""
        ids = set(self.excursion.steps) if self.excursion else set()
        return tuple(c for c in self.changes if c.id in ids)


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
class _Fold:
    """The fold's working state; lives only inside `fold`."""

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
    fruitless_score: float | None = None
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
            self.anchor[e.rule] = e.new  # what is restored has won its look: it is proven
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
                cause=_text(decision.data.get("cause")) if decision is not None else None,
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

    def _end_steps(self, steps: Iterable[str], ended: Phase) -> None:
        for step in steps:
            c = self.changes.get(step)
            if c is not None and c.ended is None:
                self._put(replace(c, ended=ended))

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

    # -- decisions ------------------------------------------------------------------------------
    def decision(self, d: Decision) -> None:
        if d.id in self.lost:
            return  # nothing of it came true; it is listed as an orphan until it is abandoned
        if d.kind in ("suggest", "cycle"):
            self._cycle(d)
        elif d.kind == "verdict":
            self._verdict(d)
        elif d.kind == "manual":
            self._manual(d)
        if isinstance(d.data.get("harm"), Mapping):
            self._harm(d, d.data["harm"])

    def _cycle(self, d: Decision) -> None:
        if d.kind == "cycle":
            self.last_said[channel(d.act, d.data.get("cause"))] = d
        if d.applied:
            self._spend(d)
        else:
            self._suggest(d)
        if d.act == "return" and d.applied:
            self._returned(d)
        if d.act == "look":
            self.excursion = replace(self.excursion, reversal_used=True) if self.excursion else None
        if d.data.get("cause") == "hard_limit" or d.act == "emergency":
            self.last_hard_at_ms = d.at_ms

    def _returned(self, d: Decision) -> None:
        """A return that was written: the steps it undoes are over, an excursion without gain is counted."""
        undoes = d.data.get("undoes")
        if isinstance(undoes, list):
            self._end_steps((str(u) for u in undoes), Phase.ROLLED_BACK)
        if d.data.get("scope") == "excursion" and d.data.get("cause") not in NOT_FRUITLESS:
            self._fruitless(d)

    def _fruitless(self, d: Decision) -> None:
        self.fruitless += 1
        self.fruitless_at_ms = d.at_ms
        score = d.data.get("score")
        self.fruitless_score = float(score) if isinstance(score, int | float) else None

    def _spend(self, d: Decision) -> None:
        if isinstance(d.data.get("evidence"), str):
            self.spent.add(d.data["evidence"])

    def _suggest(self, d: Decision) -> None:
        if d.act not in (None, "step", "suggest", "renew"):
            return
        for n, p in enumerate(d.data.get("proposals") or ()):
            if not (isinstance(p, Mapping) and _finite(p.get("old")) and _finite(p.get("new"))):
                continue
            stands = d.data.get("stands")
            known = self.suggestions.get(stands) if isinstance(stands, str) else None
            if known is not None:
                self.suggestions[known.id] = replace(known, at_ms=d.at_ms, renewed=known.renewed + 1)
                continue
            own = d.id if n == 0 else f"{d.id}:{p.get('rule')}"  # one decision may propose several rules
            self.suggestions[own] = Suggestion(
                id=own,
                decision=d.id,
                kind=d.kind,
                rule=str(p.get("rule")),
                old=float(p["old"]),
                new=float(p["new"]),
                at_ms=d.at_ms,
                config=_text(d.data.get("digest")),
                evidence=_text(d.data.get("evidence")),
            )

    def _verdict(self, d: Decision) -> None:
        change = self.changes.get(str(d.data.get("change"))) if d.data.get("change") else None
        if d.act == "evaluate" and change is not None:
            verdict = verdict_of(d.data.get("verdict"))
            ended = change.ended
            if change.kind not in OURS and verdict is Verdict.IMPROVED:
                ended = Phase.CONFIRMED
            self._put(replace(change, verdict=verdict, verdict_at_ms=d.at_ms, ended=ended, recorded=True))
        elif d.act == "supersede" and change is not None:
            self._put(replace(change, ended=change.ended or Phase.SUPERSEDED, recorded=True))
        elif d.act == "reobserve" and change is not None:
            start = int(d.data.get("from_ms") or change.window_from_ms)
            self._put(replace(change, window_from_ms=start, reobserved_at_ms=d.at_ms))
        elif d.act == "excursion" and self.excursion is not None:
            spent = d.data.get("spent", True)  # without enough quiet pairs nothing was tested
            self.excursion = replace(
                self.excursion,
                looks=self.excursion.looks + (1 if spent else 0),
                looks_since_last=self.excursion.looks_since_last + 1,
            )
        elif d.act == "confirm":
            self._confirm(d)
        elif d.act == "look":
            self._look_over(d)
        elif d.act == "verified" and change is not None:
            self._verified(change, d)
        elif d.act == "regime":
            self._regime(d)

    def _look_over(self, d: Decision) -> None:
        restored = d.data.get("result") == "restore"
        if self.look is not None:
            self._end_steps(self.look.steps, Phase.CONFIRMED if restored else Phase.ROLLED_BACK)
            if restored:
                self._clear_harm(self.look.left)
        self.look = None
        if restored:
            self.fruitless = 0
        elif d.data.get("cause") not in NOT_FRUITLESS:
            self._fruitless(d)

    def _clear_harm(self, rules: Iterable[str]) -> None:
        """A confirmation ends the row of consecutive harms of its rules."""
        for rule in rules:
            self.harms.pop(rule, None)
            self.pauses.pop(rule, None)

    def _confirm(self, d: Decision) -> None:
        anchor = d.data.get("anchor")
        if isinstance(anchor, Mapping):
            for rule, value in anchor.items():
                if rule in self.anchor and _finite(value):
                    self.anchor[rule] = self.settings.rules[rule].clip(float(value))
        if d.data.get("basis") == "improved":
            self.fruitless = 0
            self._clear_harm(self.excursion.displaced if self.excursion else ())
        self.last_confirm_ts_ms = d.ts_ms
        self._shrink(Phase.CONFIRMED)

    def _verified(self, change: Change, d: Decision) -> None:
        result = str(d.data.get("result"))
        self._put(replace(change, verified=result))
        if result != "not_ours":
            return
        harm = self.harm_of.get(change.decision or "")
        if harm is not None:
            rule, sign, at, before = harm
            self.harms[rule] = [h for h in self.harms.get(rule, []) if h != at]
            self.pauses.pop(rule, None)
            self.bars.pop((rule, sign), None)
            if before is not None:
                self.bars[rule, sign] = before
            self.rests[rule] = int(d.at_ms + REST_S * 1000)

    def _regime(self, d: Decision) -> None:
        self.regime += 1
        self.regime_from_ms = int(d.data.get("from_ms") or d.ts_ms)
        self.harms.clear()
        self.pauses = {r: p for r, p in self.pauses.items() if p.until_at_ms == inf}
        self.bars.clear()
        self.fruitless = 0
        if self.excursion is not None:
            self.excursion = replace(self.excursion, contrast_ok=False)
        if self.look is not None:
            self.look = replace(self.look, disturbed=True)

    def _harm(self, d: Decision, harm: Mapping[str, Any]) -> None:
        rule, sign = str(harm.get("rule")), int(harm.get("sign") or 0)
        if rule not in self.settings.rules or sign == 0:
            return
        recent = [h for h in self.harms.get(rule, []) if d.at_ms - h <= HARM_MEMORY_S * 1000]
        recent.append(d.at_ms)
        self.harms[rule] = recent
        self.harm_of[d.id] = (rule, sign, d.at_ms, self.bars.get((rule, sign)))
        over = len(recent) - self.settings.rollback_limit
        if over >= 0:
            until = d.at_ms + PAUSES_S[min(over, len(PAUSES_S) - 1)] * 1000
            self.pauses[rule] = Pause(rule=rule, until_at_ms=until, harms=len(recent))
        times = self.bars[rule, sign].times + 1 if (rule, sign) in self.bars else 1
        length_s = min(BAR_MAX_S, BAR_S * 2.0 ** (times - 1))
        beyond = float(harm["anchor"]) if _finite(harm.get("anchor")) else self.anchor[rule]
        self.bars[rule, sign] = Bar(
            rule=rule, sign=sign, beyond=beyond, until_at_ms=d.at_ms + length_s * 1000, times=times
        )

    def _manual(self, d: Decision) -> None:
        of = d.data.get("of")
        known = self.suggestions.get(of) if isinstance(of, str) else None
        if d.act == "release":
            rule = str(d.data.get("rule"))
            self.pauses.pop(rule, None)
            self.harms.pop(rule, None)
            self.rests.pop(rule, None)
            for sign in (-1, 1):  # who frees a rule frees it whole: a bar may last longer than its pause
                self.bars.pop((rule, sign), None)
        elif d.act == "apply" and d.applied:
            self._spend(d)
            if known is not None:
                self.suggestions[known.id] = replace(known, ended=Phase.APPLIED)
        elif known is not None and d.act == "reject":
            self.suggestions[known.id] = replace(known, ended=Phase.REJECTED)
        elif known is not None and d.act == "expire":
            self.suggestions[known.id] = replace(known, ended=Phase.EXPIRED)
        elif known is not None and d.act == "snooze":
            until = d.at_ms + float(d.data.get("for_s") or 0) * 1000
            self.suggestions[known.id] = replace(known, ended=Phase.REJECTED, snoozed_until_at_ms=until)


def fold(decisions: Sequence[Decision], events: Sequence[RuleEvent], settings: Settings) -> Life:
    """The picture that the records give under `settings`.

    Independent of the clock, so that it may be kept as long as no record is added; what time ends
    (bars, pauses, rests) is asked with the clock, see `Life.bars_at` and its neighbours.
    """
    f = _Fold(settings=settings)
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
    f._shrink(Phase.CONFIRMED)
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


def channel(act: str | None, cause: object) -> str:
    """What a cycle's record talks about: exploring (a hold or a step), or one kind of way back."""
    return "explore" if act in (None, "hold", "step") else f"{act}/{cause}"


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
            at = float(index.get(d.data["after"], -1)) if d.data["after"] is not None else -1.0
        else:
            at = float(bisect_right(seen_at, d.at_ms) - 1)
        floor = max(floor, at)
        placed.append((floor + 0.5, j, d))
    placed.sort(key=lambda p: (p[0], p[1]))
    return [p[2] for p in placed]


def _kind(e: RuleEvent, decision: Decision | None) -> ChangeKind:
    if decision is None or e.key not in decision.applied:
        return ChangeKind.FOREIGN
    if decision.kind == "cycle" and decision.act is None:
        return ChangeKind.STEP
    return _KIND_OF_ACT.get(decision.act or "", ChangeKind.FOREIGN)


def _finite(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and -inf < x < inf


def _text(x: object) -> str | None:
    return x if isinstance(x, str) else None
