"""What the trends page shows: which stretch is asked for, the events in it, what each of them did.

Answers "what did the rules' changes do to the metrics?" from the shared picture and the address of
the page. Parameters are whitelisted and typed; what is unknown is named. No Streamlit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from selftune.card_text import figure
from selftune.chart_kit import Outcome, clock_text
from selftune.chart_parts import EventMark
from selftune.decision_lines import number_of
from selftune.effect_charts import EffectRow, RuleGain
from selftune.picture import Picture
from selftune.settings import Settings
from selftune.timeline import Entry, Mark, timeline

WINDOWS_S = {"1h": 3600, "6h": 6 * 3600, "24h": 24 * 3600}
CUSTOM = "custom"
DEFAULT = "1h"
LONGEST_S = 7 * 86_400
MOST_EVENTS = 400  # read back in the history for one picture
FOREST_EVENTS = 6

OUTCOMES = {
    Mark.CONFIRMED: Outcome.CONFIRMED,
    Mark.ROLLED_BACK: Outcome.ROLLED_BACK,
    Mark.WORSENED: Outcome.ROLLED_BACK,
    Mark.OPEN: Outcome.OPEN,
    Mark.BACK: Outcome.BACK,
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the address asks for. `live`: the end moves with the data.

    `unknown`: parameters that name nothing that exists, by name; they are said, never guessed.
    """

    window: str
    start_ms: int
    end_ms: int
    live: bool
    rule: str | None = None
    event: str | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


def asked(query: Mapping[str, str], p: Picture, end_ms: int) -> Asked:
    """The typed request; `end_ms` is where a moving window ends."""
    unknown: dict[str, str] = {}
    window = query.get("w", DEFAULT)
    start, end = instant(query.get("from")), instant(query.get("to"))
    for name in ("from", "to"):
        if query.get(name) and instant(query.get(name)) is None:
            unknown[name] = query[name]
    if window not in (*WINDOWS_S, CUSTOM):
        unknown["w"], window = window, DEFAULT
    rules = {*p.settings.rules, *(e.rule for e in p.snap.records.events)}
    rule = query.get("rule") or None
    if rule is not None and rule not in rules:
        unknown["rule"], rule = rule, None
    event = query.get("e") or None
    fixed = start is not None and end is not None and start < end
    if not fixed:
        window = DEFAULT if window == CUSTOM else window
        return Asked(
            window=window, start_ms=end_ms - WINDOWS_S[window] * 1000, end_ms=end_ms, live=True, rule=rule,
            event=event, unknown=unknown,
        )  # fmt: skip
    assert start is not None and end is not None
    cut = end - start > LONGEST_S * 1000
    return Asked(
        window=CUSTOM, start_ms=max(start, end - LONGEST_S * 1000), end_ms=end, live=False, rule=rule,
        event=event, unknown=unknown, cut=cut,
    )  # fmt: skip


def instant(text: str | None) -> int | None:
    """An instant of the address ('2026-11-22T00:00:00Z') in ms; None for anything else."""
    if not text or len(text) > 40:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    if when.tzinfo is None or not 2000 <= when.year < 2200:
        return None
    return int(when.timestamp() * 1000)


def stamp(ms: int) -> str:
    """An instant as the address writes it."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fixed_query(a: Asked) -> dict[str, str]:
    """The parameters under which the same picture opens tomorrow."""
    found = {"w": CUSTOM, "from": stamp(a.start_ms), "to": stamp(a.end_ms + 999)}
    return found | ({"rule": a.rule} if a.rule else {}) | ({"e": a.event} if a.event else {})


# ------------------------------------------------------------------------------- events
def events_in(p: Picture, start_ms: int, end_ms: int, rule: str | None) -> tuple[Entry, ...]:
    """The events of the stretch, oldest first; of very many the newest."""
    newest = timeline(p, rule=rule, limit=MOST_EVENTS).entries
    return tuple(e for e in reversed(newest) if start_ms <= e.ts_ms < end_ms)


def what(e: Entry) -> str:
    """'risk_max 0.33 → 0.31'."""
    new = figure(e.new) if e.new is not None else (e.raw_new or "–")
    return f"{e.rule} {figure(e.old)} → {new}"


def marks(entries: Sequence[Entry]) -> tuple[EventMark, ...]:
    """The events as a chart marks them."""
    return tuple(
        EventMark(id=e.key, t_ms=e.ts_ms, rule=e.rule, what=what(e), outcome=outcome(e)) for e in entries
    )


def outcome(e: Entry) -> Outcome:
    """Its colour, shape and word; what nobody judged shows as undecided."""
    return OUTCOMES.get(e.mark, Outcome.INCONCLUSIVE)


# ------------------------------------------------------------------------------- effects
def effect_rows(entries: Sequence[Entry], settings: Settings) -> list[EffectRow]:
    """Δ per event and metric, the newest events first; ways back are not judged and left out."""
    judged = [e for e in reversed(entries) if e.deltas and e.mark is not Mark.BACK][:FOREST_EVENTS]
    return [
        EffectRow(
            event=f"{what(e)} · {clock_text(e.ts_ms, settings.timezone)[:-3]}", metric=d.metric,
            delta=d.delta, lo=d.lo, hi=d.hi, good=settings.good[d.metric],
            down_is_good=settings.targets[d.metric].down_is_good, outcome=outcome(e), odds=d.odds, n=d.n,
            # A row of the family's tracker has no count: what is unknown is not "too few".
            n_needed=settings.min_samples if d.n or d.delta is None else 0,
        )
        for e in judged
        for d in e.deltas
    ]  # fmt: skip


def gains(p: Picture, entries: Sequence[Entry]) -> list[RuleGain]:
    """What each verdict says its change added to the score, by rule. Units: percent points."""
    said: dict[str, float] = {}
    for d in p.snap.records.decisions:
        gain = number_of(d.data.get("score_gain"))
        if d.kind == "verdict" and d.act == "evaluate" and gain is not None:
            said[str(d.data.get("change"))] = 100 * gain
    found: dict[str, tuple[list[int], list[float]]] = {}
    for e in entries:
        change = p.life.change_of(e.key)
        if change is None or change.id not in said or change.keys[0] != e.key:
            continue
        times, points = found.setdefault(e.rule, ([], []))
        times.append(e.ts_ms)
        points.append(said[change.id])
    return [RuleGain(rule=r, t_ms=t, points=v) for r, (t, v) in sorted(found.items())]


def tally(entries: Sequence[Entry]) -> dict[str, int]:
    """How many events ended how, for the sentence on top."""
    count = {o: sum(outcome(e) is o for e in entries) for o in Outcome}
    return {
        "n": len(entries), "good": count[Outcome.CONFIRMED], "bad": count[Outcome.ROLLED_BACK],
        "open": count[Outcome.OPEN],
    }  # fmt: skip


def newest_end(p: Picture) -> int:
    """Where a moving window ends: at the newest sample, or now where there is none."""
    return p.newest_ms + 1 if p.newest_ms is not None else p.snap.now_ms
