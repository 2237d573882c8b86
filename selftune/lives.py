"""The nouns of a change's life: what the records say about one change, one excursion, the whole picture.

Answers "where is it in its life, what holds for this rule now?". Pure and frozen; `lifecycle.fold` makes
them. Durations are counted on the steady clock (`at_ms`). Source: loop.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from selftune.config import Settings
from selftune.domain import Decision, Origin, Phase, RuleEvent, Verdict

LAPSE_WINDOWS = 4  # 3 R of blind time and one window: after that others' changes are history


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
