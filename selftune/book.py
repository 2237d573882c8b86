"""What the ledger files say, as values: `Records`, the `Version` they were read at, and a `Batch` to write.

Answers "what is known?" and "what shall be written?" for pure code. Never a file, a clock or randomness;
`ledger.py` reads and writes these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar, overload

from selftune.domain import Decision, Governance, JsonDict, Quote, RiskWarning, RuleEvent

HISTORY = "controls/rules_history.jsonl"
QUOTES = "controls/quotes_bank.jsonl"
RISKS = "controls/risk_ledger.jsonl"
APPROVALS = "controls/approvals.jsonl"
DECISIONS = "logs/tuning_decisions.jsonl"
EFFECTS = "logs/rules_effects.csv"
SETTINGS = "configs/self_tuning.yaml"
HEARTBEAT = "logs/loop_status.json"

VERSIONED = (HISTORY, QUOTES, RISKS, APPROVALS, DECISIONS)
"""The files whose growth makes a snapshot stale (house.md: control files and decisions)."""

ZERO_HASH = "0" * 64

T = TypeVar("T")


class View(Sequence[T], Generic[T]):
    """The first `n` items of a list that only ever grows: an immutable snapshot without a copy."""

    __slots__ = ("_items", "_n")

    def __init__(self, items: list[T], n: int | None = None) -> None:
        self._items = items
        self._n = len(items) if n is None else n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            a, b, step = index.indices(self._n)
            return self._items[a:b:step] if step > 0 else [self._items[i] for i in range(a, b, step)]
        if not -self._n <= index < self._n:
            raise IndexError(index)
        return self._items[index if index >= 0 else index + self._n]

    def __iter__(self) -> Iterator[T]:
        return islice(self._items, self._n)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    def __repr__(self) -> str:
        return f"View({list(self)!r})"

    def begins(self, later: Sequence[T]) -> bool:
        """Whether `later` is a view of the same list, at least as long."""
        return isinstance(later, View) and later._items is self._items and len(later) >= self._n


def continues(earlier: Sequence[T], later: Sequence[T]) -> bool:
    """Whether `later` is surely `earlier` and what was added since; told without looking at the items."""
    return isinstance(earlier, View) and earlier.begins(later)


@dataclass(frozen=True, kw_only=True)
class Version:
    """Where each versioned file stood: (name, identity, bytes read), and the settings' SHA-256 or None."""

    files: tuple[tuple[str, str, int], ...]
    settings: str | None


@dataclass(frozen=True, kw_only=True)
class Chain:
    """State of the governance hash chain: `n` lines, `sha256` of the last; why and where it is broken.

    `reason`: None when intact, else `prev` (a line does not follow its predecessor), `head` (a head
    recorded elsewhere is no longer in the file: cut or rewritten) with the line number in `line`, or
    `unreadable`.
    """

    n: int = 0
    sha256: str = ZERO_HASH
    reason: str | None = None
    line: int | None = None

    @property
    def ok(self) -> bool:
        return self.reason is None

    @property
    def head(self) -> JsonDict:
        """The `approvals_head` that decisions and heartbeats carry."""
        return {"n": self.n, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class EffectRow:
    """One row of `rules_effects.csv`. `d`: short metric name -> delta, None where the cell is empty.

    `cells` are all cells as text, by column. Key of a row: (`ts_ms`, `rule`).
    """

    ts_ms: int
    rule: str
    d: Mapping[str, float | None]
    event_id: str | None = None
    verdict: str | None = None
    cells: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str]:
        return self.ts_ms, self.rule


@dataclass(frozen=True, kw_only=True)
class Records:
    """Everything the ledger files said at one reading; sequences are in file order.

    `rejects[file][reason]` counts lines set aside; `reread` counts whole re-readings (rotated,
    truncated, rewritten); `problems[file]` says why a file that is there could not be read;
    `unfinished` names files whose last line has no line end yet (not read).
    `now_ms` (wall) and `now_at_ms` (steady) are the instant of the reading. `settings`: the bytes
    whose SHA-256 is in `version`, None when unreadable. `effects_header`: None without a file;
    `effects_known` is False when rows must not be appended.
    """

    version: Version
    events: Sequence[RuleEvent] = ()
    decisions: Sequence[Decision] = ()
    governance: Sequence[Governance] = ()
    warnings: Sequence[RiskWarning] = ()
    quotes: Sequence[Quote] = ()
    effect_rows: Sequence[EffectRow] = ()
    chain: Chain = field(default_factory=Chain)
    rejects: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reread: Mapping[str, int] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()
    settings: bytes | None = None
    effects_header: tuple[str, ...] | None = None
    effects_known: bool = True
    now_ms: int = 0
    now_at_ms: int = 0

    @property
    def approvals_head(self) -> JsonDict:
        """`{n, sha256}` of the governance file as read."""
        return self.chain.head


# ----------------------------------------------------------------------------- to be written
@dataclass(frozen=True, kw_only=True)
class EventDraft:
    """A rule event to be: values are written as given."""

    rule: str
    old: float | None
    new: float
    kind: str  # change | rollback | restore | manual
    actor: str
    note: str = ""
    reverts: str | None = None
    look: bool = False


RESERVED = frozenset({"v", "ts", "id", "applied", "intended"})


@dataclass(frozen=True, kw_only=True)
class DecisionDraft:
    """A decision line to be, and the events it intends; the commit fills what `RESERVED` names.

    It also fills `approvals_head`, over what `data` says: only under the lock is the head known.
    """

    data: JsonDict
    events: tuple[EventDraft, ...] = ()

    def __post_init__(self) -> None:
        if clash := RESERVED & self.data.keys():
            raise ValueError(f"the commit fills {sorted(clash)}")
        if "kind" not in self.data:
            raise ValueError("a decision needs a kind")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one commit writes, in this order: decisions, events, governance, warnings, quotes, rows.

    `governance_first` puts governance before the decisions. `governance`: `{kind, by, role, …}`
    without v, ts, id, prev. `warnings`: `{severity, rule, signal, note, effect?, resolves?}`,
    `quotes`: `{by, rule, delta, confidence, quote, effect?}`, both without ts.
    `effect_rows`: canonical column -> value (evidence.effect_row); dropped where a row exists.
    """

    decisions: tuple[DecisionDraft, ...] = ()
    governance: tuple[JsonDict, ...] = ()
    governance_first: bool = False
    warnings: tuple[JsonDict, ...] = ()
    quotes: tuple[JsonDict, ...] = ()
    effect_rows: tuple[Mapping[str, Any], ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.decisions or self.governance or self.warnings or self.quotes or self.effect_rows)


@dataclass(frozen=True, kw_only=True)
class Committed:
    """What a commit wrote. `events[i]` are the keys of decision i; `records` is the state after it.

    `skipped`: evidence that somebody had written already, or that the effects file cannot take.
    """

    records: Records
    decisions: tuple[str, ...] = ()
    events: tuple[tuple[str, ...], ...] = ()
    governance: tuple[str, ...] = ()
    lines: tuple[JsonDict, ...] = ()  # the decision lines as written
    skipped: tuple[str, ...] = ()

    @property
    def version(self) -> Version:
        return self.records.version


# ----------------------------------------------------------------------------- questions
@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A decision that intended events which are neither in the history nor recorded as abandoned."""

    decision: Decision
    keys: tuple[str, ...]


def orphans(records: Records) -> tuple[Orphan, ...]:
    """Intended events that never arrived, by decision, oldest first (a kill between the two writes)."""
    there = {e.key for e in records.events}
    given_up = {k for d in records.decisions for k in d.abandoned}
    found = []
    for decision in records.decisions:
        lost = tuple(k for k in decision.applied if k not in there and k not in given_up)
        if lost:
            found.append(Orphan(decision=decision, keys=lost))
    return tuple(found)


def open_crits(records: Records) -> tuple[RiskWarning, ...]:
    """`crit` warnings that no later record resolves, oldest first."""
    still: list[RiskWarning] = []
    for warning in records.warnings:
        if warning.resolves is not None:
            still = [w for w in still if not _resolves(warning.resolves, w)]
        elif warning.severity == "crit":
            still.append(warning)
    return tuple(still)


def _resolves(resolves: Any, warning: RiskWarning) -> bool:
    if isinstance(resolves, str):
        return resolves == warning.effect
    return bool(resolves == {"ts_ms": warning.ts_ms, "rule": warning.rule})


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Which evidence of one event nobody has written yet."""

    key: str
    row: bool
    quote: bool
    warning: bool


def missing_evidence(records: Records, events: Sequence[RuleEvent]) -> tuple[Missing, ...]:
    """For each of `events`, whether its effect row, quote and warning are still to be written."""
    rows = {r.key for r in records.effect_rows}
    quoted = {q.effect for q in records.quotes}
    warned = {w.effect for w in records.warnings if w.resolves is None}
    return tuple(
        Missing(
            key=e.key,
            row=(e.ts_ms, e.rule) not in rows,
            quote=e.key not in quoted,
            warning=e.key not in warned,
        )
        for e in events
    )
