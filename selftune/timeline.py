"""What the history page shows: every rule event with its outcome, the values then, what a rollback would do.

Answers "what happened, how did it end, can it be taken back?" from the shared picture. It asks the core
(hands) and decides nothing itself. No Streamlit. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from selftune import hands
from selftune.book import Chain, EffectRow
from selftune.decision_lines import keys_of, number_of, reasons_of
from selftune.domain import (
    Decision,
    Origin,
    Phase,
    Quote,
    Reason,
    Refused,
    RiskWarning,
    RuleEvent,
    UnknownId,
    Verdict,
    long_name,
)
from selftune.lifecycle import OURS, WAY_BACK, Change, ChangeKind
from selftune.picture import Picture
from selftune.plan import Act, PlannedMove

PAGE = 20
T = TypeVar("T", Quote, RiskWarning)


class Mark(StrEnum):
    """How an event's life shows: each has a colour, a shape and a word (`mark.<value>`)."""

    CONFIRMED = "confirmed"
    KEPT = "kept"  # no worse, not proven better
    ROLLED_BACK = "rolled_back"
    WORSENED = "worsened"
    INCONCLUSIVE = "inconclusive"
    SUPERSEDED = "superseded"
    OPEN = "open"
    BACK = "back"  # the event is itself a way back
    UNJUDGED = "unjudged"


@dataclass(frozen=True, kw_only=True)
class MetricDelta:
    """Δ of one metric with its 95 % interval; None where it was not measured. `better` None = too small."""

    metric: str
    delta: float | None
    lo: float | None
    hi: float | None
    odds: float | None
    n: int
    better: bool | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One rule event as the timeline shows it. `known`: the settings name its rule."""

    key: str
    ts_ms: int
    actor: str
    origin: Origin
    rule: str
    old: float | None
    new: float | None
    raw_new: str | None
    kind: ChangeKind | None
    mark: Mark
    verdict: Verdict | None
    note: str
    decision: str | None
    known: bool
    outside: bool  # the value lies outside today's bounds
    reasons: tuple[Reason, ...] = ()
    quotes: tuple[Quote, ...] = ()
    warnings: tuple[RiskWarning, ...] = ()
    deltas: tuple[MetricDelta, ...] = ()
    revertible: bool = False


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One page of events, newest first, of `total` that pass the filters; and what there is to filter by."""

    entries: tuple[Entry, ...]
    total: int
    all: int
    rules: tuple[str, ...]
    actors: tuple[str, ...]
    offset: int


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What an act would write now, or why the core refuses it.

    `undone`: the newest of the `undone_n` events that it takes back.
    """

    moves: tuple[PlannedMove, ...] = ()
    undone: tuple[Entry, ...] = ()
    undone_n: int = 0
    refused: Reason | None = None


@dataclass(frozen=True, kw_only=True)
class Paused:
    """A rule that is not explored for now. `until_ms` wall clock, None = until a person releases it."""

    rule: str
    harms: int
    until_ms: int | None
    resting: bool


@dataclass(frozen=True, kw_only=True)
class Integrity:
    """Can the records be trusted? `rejects`: (file, reason, lines), only where there are any."""

    chain: Chain
    rejects: tuple[tuple[str, str, int], ...]
    problems: Mapping[str, str]
    reread: int

    @property
    def ok(self) -> bool:
        return self.chain.ok and not self.problems

    @property
    def lines(self) -> int:
        """Lines set aside, all files together."""
        return sum(n for _, _, n in self.rejects)


@dataclass(frozen=True)
class _Index:
    """Look-ups over the records, made once for one page."""

    change: Mapping[str, Change]  # event key -> its change
    evaluation: Mapping[str, Decision]  # change id -> first verdict
    ending: Mapping[str, Decision]  # change id -> what confirmed it, or took it back, together with others
    decision: Mapping[str, Decision]
    gone: frozenset[str]
    revertible: frozenset[str]
    open: frozenset[str]
    rows: Mapping[tuple[int, str], EffectRow]
    quotes: Mapping[str, list[Quote]]
    warnings: Mapping[str, list[RiskWarning]]


# ------------------------------------------------------------------------------- events
def timeline(
    p: Picture, *, rule: str | None = None, actor: str | None = None, offset: int = 0, limit: int = PAGE
) -> Timeline:
    """The newest events first; `rule` and `actor` narrow, `offset` and `limit` page."""
    events = p.snap.records.events
    chosen = [
        e
        for e in reversed(events)
        if (rule is None or e.rule == rule) and (actor is None or e.actor == actor)
    ]
    part = chosen[offset : offset + limit]
    return Timeline(
        entries=_entries(p, part),
        total=len(chosen),
        all=len(events),
        rules=tuple(sorted({e.rule for e in events} | set(p.settings.rules))),
        actors=tuple(sorted({e.actor for e in events})),
        offset=offset,
    )


def entry_of(p: Picture, key: str) -> Entry | None:
    """One event by its key; None when there is none."""
    found = next((e for e in p.snap.records.events if e.key == key), None)
    return _entry(p, found, _index(p)) if found is not None else None


def _entries(p: Picture, events: Sequence[RuleEvent]) -> tuple[Entry, ...]:
    index = _index(p) if events else None
    return tuple(_entry(p, e, index) for e in events if index is not None)


def _index(p: Picture) -> _Index:
    records = p.snap.records
    # a look takes back to compare; how it ended says whether the step is gone
    gone = {e.reverts for e in records.events if e.reverts and not e.look}
    for d in records.decisions:
        gone.update(_reverted(d) if d.act != "look" else ())
    return _Index(
        change={m.key: c for c in p.life.changes for m in c.moves},
        evaluation={
            str(d.data.get("change")): d
            for d in records.decisions
            if d.kind == "verdict" and d.act == "evaluate"
        },
        ending={i: d for d in records.decisions for i in _ended_by(d)},
        decision={d.id: d for d in records.decisions},
        gone=frozenset(gone),
        revertible=frozenset(e.key for e in hands.revertible(p)),
        open=frozenset(c.id for c in p.open),
        rows={r.key: r for r in records.effect_rows},
        quotes=_by_effect(records.quotes),
        warnings=_by_effect(records.warnings),
    )


def _ended_by(d: Decision) -> list[str]:
    """The changes that this decision ended: confirmed in one, or taken back in one."""
    if d.act == "return" and d.applied:
        return keys_of(d.data.get("undoes"))
    return keys_of(d.data.get("steps")) if d.kind == "verdict" and d.act in ("confirm", "look") else []


def _by_effect(records: Sequence[T]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for r in records:
        if r.effect is not None:
            found.setdefault(r.effect, []).append(r)
    return found


def _reverted(d: Decision) -> list[str]:
    return keys_of(d.data.get("reverts")) if d.applied else []


def _entry(p: Picture, e: RuleEvent, index: _Index) -> Entry:
    change, row = index.change.get(e.key), index.rows.get((e.ts_ms, e.rule))
    record = index.evaluation.get(change.id) if change else None
    decision = index.decision.get(e.decision or "")
    verdict = change.verdict if change else None
    if verdict is None and row is not None and row.verdict in Verdict.__members__:
        verdict = Verdict(str(row.verdict))
    rule = p.settings.rules.get(e.rule)
    mark = _mark(e, change, verdict, index)
    return Entry(
        key=e.key,
        ts_ms=e.ts_ms,
        actor=e.actor,
        origin=change.origin if change else Origin.FOREIGN,
        rule=e.rule,
        old=e.old if e.old is not None else _before(e, change),
        new=e.new,
        raw_new=e.raw_new,
        kind=change.kind if change else None,
        mark=mark,
        verdict=verdict,
        note=e.note,
        decision=e.decision,
        known=rule is not None,
        outside=rule is not None and e.new is not None and rule.clip(e.new) != e.new,
        reasons=_why(change, mark, record or decision, index),
        quotes=tuple(index.quotes.get(e.key, ())),
        warnings=tuple(index.warnings.get(e.key, ())),
        deltas=_deltas(p, record, row),
        revertible=e.key in index.revertible,
    )


def _before(e: RuleEvent, change: Change | None) -> float | None:
    """The value that was in force, of an event whose line does not say it."""
    moves = change.moves if change is not None else ()
    return next((m.old for m in moves if m.key == e.key), None)


def _why(change: Change | None, mark: Mark, judged: Decision | None, index: _Index) -> tuple[Reason, ...]:
    """Why it is marked so: by its own verdict, or by what ended the excursion that it was part of.

    "Confirmed, because it is too early to say" is what a reader would see otherwise.
    """
    end = index.ending.get(change.id) if change is not None else None
    if mark is Mark.KEPT and end is not None:
        unsafe = end.data.get("basis") == "anchor_unsafe"  # the way home was barred: nothing was compared
        return (*(() if unsafe else (Reason("ended.kept"),)), *reasons_of(end.data.get("reasons")))
    if mark is Mark.ROLLED_BACK and end is not None and _stays(end):
        end = None  # it went back all the same, later or because the restoring line was never written
    own = {Mark.CONFIRMED: Verdict.IMPROVED, Mark.ROLLED_BACK: Verdict.WORSENED}.get(mark)
    if own is None or end is None or change is None or own is change.verdict:
        return reasons_of(judged.data.get("reasons")) if judged else ()
    why = reasons_of(end.data.get("reasons"))
    if end.act == "look":
        return (Reason(f"ended.{end.data.get('result')}"), *(why if mark is Mark.ROLLED_BACK else ()))
    alone = len(_ended_by(end)) < 2
    return why if alone else (Reason(f"ended.{'returned' if end.act == 'return' else 'together'}"), *why)


def _stays(end: Decision) -> bool:
    """Whether this end of an excursion left, or was to leave, its values in force."""
    return end.act == "confirm" or (end.act == "look" and end.data.get("result") == "restore")


def _mark(e: RuleEvent, change: Change | None, verdict: Verdict | None, index: _Index) -> Mark:
    if change is None:
        return Mark.UNJUDGED
    if change.kind in WAY_BACK or change.kind is ChangeKind.ROLLBACK:
        return Mark.BACK
    if e.key in index.gone or change.ended is Phase.ROLLED_BACK:
        return Mark.ROLLED_BACK
    if change.ended is Phase.KEPT:
        return Mark.KEPT
    if change.ended is Phase.CONFIRMED or (verdict is Verdict.IMPROVED and change.kind not in OURS):
        return Mark.CONFIRMED
    if change.ended is Phase.SUPERSEDED and verdict is None:  # what others did long ago was never watched
        return Mark.SUPERSEDED if change.recorded or change.origin is Origin.LOOP else Mark.UNJUDGED
    if change.id in index.open:
        return Mark.OPEN
    if verdict is Verdict.WORSENED:
        return Mark.WORSENED
    return Mark.UNJUDGED if verdict is None else Mark.INCONCLUSIVE


def _deltas(p: Picture, record: Decision | None, row: EffectRow | None) -> tuple[MetricDelta, ...]:
    """Δ per metric: from our verdict's record, else from the effects file."""
    effect = record.data.get("effect") if record else None
    metrics = effect.get("metrics") if isinstance(effect, Mapping) else None
    given: dict[str, Mapping[str, Any]] = {}
    if isinstance(metrics, Mapping):
        given = {str(m): x for m, x in metrics.items() if isinstance(x, Mapping)}
    elif row is not None:
        given = {long_name(m): {"delta": x, **_interval(row, m)} for m, x in row.d.items()}
    return tuple(_delta(p, m, given[m]) for m in p.settings.targets if m in given)


def _interval(row: EffectRow, short: str) -> dict[str, float | None]:
    """The row's own interval and count, where the file has the columns; a word is no number."""
    return {
        "lo": _cell(row, f"lo_{short}"),
        "hi": _cell(row, f"hi_{short}"),
        "n_post": n if (n := _cell(row, "n_post")) is None else int(n),
    }


def _cell(row: EffectRow, column: str) -> float | None:
    try:
        return number_of(float(row.cells.get(column, "")))
    except ValueError:
        return None


def _delta(p: Picture, metric: str, x: Mapping[str, Any]) -> MetricDelta:
    delta, target = number_of(x.get("delta")), p.settings.targets[metric]
    matters = delta is not None and abs(delta) >= p.settings.good[metric] / 2
    n = x.get("n_post")
    return MetricDelta(
        metric=metric,
        delta=delta,
        lo=number_of(x.get("lo")),
        hi=number_of(x.get("hi")),
        odds=number_of(x.get("odds")),
        n=n if isinstance(n, int) else 0,
        better=(delta < 0) is target.down_is_good if matters and delta is not None else None,
    )


# ------------------------------------------------------------------------------- values then
def values_at(p: Picture, key: str) -> dict[str, float]:
    """Every rule's value right after the event; {} for an unknown one."""
    try:
        return hands.values_after(p, key)
    except UnknownId:
        return {}


def traces(p: Picture, start_ms: int, end_ms: int) -> dict[str, tuple[list[int], list[float]]]:
    """Rule -> (instants, values) inside the span, beginning with the value in force at its start."""
    found: dict[str, tuple[list[int], list[float]]] = {
        r.name: ([start_ms], [r.init]) for r in p.settings.rules.values()
    }
    for e in sorted(p.snap.records.events, key=lambda e: e.ts_ms):
        if e.rule not in found or e.new is None or e.ts_ms >= end_ms:
            continue
        instants, values = found[e.rule]
        if e.ts_ms <= start_ms:
            values[0] = e.new
        else:
            instants.append(e.ts_ms)
            values.append(e.new)
    return found


# ------------------------------------------------------------------------------- acts, seen beforehand
def preview_rollback(p: Picture, key: str) -> Preview:
    """What undoing this one event would write."""
    return _preview(p, lambda: hands.rollback(p, event=key, actor="", reason=""))


def preview_rollback_to(p: Picture, key: str) -> Preview:
    """What going back to the moment after this event would write."""
    return _preview(p, lambda: hands.rollback_to(p, key, actor="", reason=""))


def _preview(p: Picture, wanted: Callable[[], tuple[Act, ...]]) -> Preview:
    try:
        (act,) = wanted()
    except Refused as no:
        return Preview(refused=no.reasons[0])
    except UnknownId as no:
        return Preview(refused=no.reason)
    keys = set(keys_of(act.data.get("reverts")))
    undone = [e for e in reversed(p.snap.records.events) if e.key in keys]
    return Preview(moves=act.moves, undone=_entries(p, undone[:PAGE]), undone_n=len(undone))


def paused_rules(p: Picture) -> tuple[Paused, ...]:
    """Rules that rest after repeated harm, or because going back did not help."""
    found = []
    for rule in p.settings.rules:
        pause, rest = p.life.pause_of(rule, p.snap.clock_ms), p.life.rest_until(rule, p.snap.clock_ms)
        if pause is not None:
            until = p.situation.wall(pause.until_at_ms)
            found.append(Paused(rule=rule, harms=pause.harms, until_ms=until, resting=False))
        elif rest is not None:
            found.append(Paused(rule=rule, harms=0, until_ms=p.situation.wall(rest), resting=True))
    return tuple(found)


def integrity(p: Picture) -> Integrity:
    """The state of the governance chain and of every record that was set aside."""
    records = p.snap.records
    rejects: Sequence[tuple[str, str, int]] = [
        (file, str(reason), n)
        for file, by in sorted(records.rejects.items())
        for reason, n in by.items()
        if n
    ]
    return Integrity(
        chain=records.chain,
        rejects=tuple(rejects),
        problems=dict(records.problems),
        reread=sum(records.reread.values()),
    )
