"""What the suggestions page shows: suggestions, proposed rollbacks, what is watched, where we stand.

Answers "what is proposed, may it be applied now, what is going on?" as plain facts from the shared
picture. It asks the core (hands, guards, objective) and decides nothing itself. No Streamlit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from selftune import hands, proposed
from selftune.decision_lines import DecisionLine, keys_of, number_of, objects, reasons_of, recent
from selftune.domain import (
    Decision,
    GuardCheck,
    Origin,
    Phase,
    Proposal,
    Reason,
    Refused,
    Rule,
    UnknownId,
)
from selftune.guards import check_step
from selftune.lifecycle import Suggestion
from selftune.objective import attainment, weighted
from selftune.picture import Picture
from selftune.plan import Plan, PlannedMove
from selftune.settings import Settings
from selftune.whereabouts import Watch, Where, evaluation_of, wall, watch_of, watches, where

LOOK_BACK = 400  # decisions searched for a proposed rollback that still stands


class CardState(StrEnum):
    """What became of a suggestion (`sugg.state_<value>` in the catalogue)."""

    STANDING = "standing"
    APPLIED = "applied"
    REJECTED = "rejected"
    SNOOZED = "snoozed"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What earlier changes lead one to expect of one metric; `better` None = too small to matter."""

    metric: str
    mean: float
    lo: float
    hi: float
    better: bool | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric in the window that the suggestion stands on; `lo`, `hi` = 95 % range of the mean."""

    metric: str
    mean: float
    lo: float | None
    hi: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class SuggestionCard:
    """One suggestion with everything a person needs to decide on it.

    `refusals`: why it cannot be applied at this moment, as the core says it; empty = it can.
    `points`: score points (percent) each metric would give or cost, empty without a forecast.
    `gap`: how far `metric` is off `limit`, always >= 0.
    """

    id: str
    rule: Rule
    old: float
    new: float
    state: CardState
    at_ms: int
    until_ms: int | None
    reasons: tuple[Reason, ...]
    metric: str | None
    limit: float | None
    at_most: bool
    gap: float | None
    expected: tuple[Expected, ...]
    confidence: float | None
    measured: tuple[Measured, ...]
    odds: float | None
    points: Mapping[str, float]
    checks: tuple[GuardCheck, ...]
    refusals: tuple[Reason, ...]
    watch: Watch | None = None
    why: str = ""  # what the person wrote who ended it
    by: str = ""

    @property
    def can_apply(self) -> bool:
        return self.state is CardState.STANDING and not self.refusals

    @property
    def down(self) -> bool:
        return self.new < self.old

    @property
    def steps(self) -> float:
        """The move in units of the rule's largest step."""
        return abs(self.new - self.old) / self.rule.lr if self.rule.lr else 0.0


@dataclass(frozen=True, kw_only=True)
class RollbackCard:
    """A way back, or an emergency move, that the loop proposes and leaves to a person.

    `event`: what would be undone, None for an emergency (then nobody's change is the matter, and `actor`
    is ''). `refusals`: why it cannot be carried out now; empty = it can.
    """

    id: str
    event: str | None
    actor: str
    origin: Origin
    at_ms: int
    cause: str
    moves: tuple[PlannedMove, ...]
    reasons: tuple[Reason, ...]
    refusals: tuple[Reason, ...] = ()

    @property
    def urgent(self) -> bool:
        return self.event is None


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Why there is no suggestion. `kind`: met, until, idea, no_data, stopped or held."""

    kind: str
    reasons: tuple[Reason, ...] = ()
    until_ms: int | None = None
    ideas: tuple[Proposal, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Board:
    """The whole page at one instant."""

    cards: tuple[SuggestionCard, ...]
    rollbacks: tuple[RollbackCard, ...]
    watches: tuple[Watch, ...]
    where: Where
    quiet: Quiet | None
    recent: tuple[DecisionLine, ...] = field(default=())


# ------------------------------------------------------------------------------- the page
def board(p: Picture, plan: Plan) -> Board:
    """Everything the suggestions page shows now."""
    cards = standing_cards(p)
    return Board(
        cards=cards,
        rollbacks=rollback_cards(p),
        watches=watches(p),
        where=where(p),
        quiet=None if cards else quiet(p, plan),
        recent=recent(p),
    )


# ------------------------------------------------------------------------------- suggestions
def standing_cards(p: Picture) -> tuple[SuggestionCard, ...]:
    """Suggestions that may still be acted on: the newest of each rule, newest first."""
    newest: dict[str, Suggestion] = {}
    for s in p.life.suggestions:
        if s.stands(p.settings, p.life.values, p.snap.clock_ms, p.settings.digest):
            newest[s.rule] = s
    found = (card_of(p, s) for s in sorted(newest.values(), key=lambda s: -s.at_ms))
    return tuple(c for c in found if c is not None)


def card_by_id(p: Picture, decision_id: str) -> SuggestionCard | None:
    """The card behind a link, whatever became of it; None for an unknown id or one without a proposal."""
    try:
        return card_of(p, hands.find_suggestion(p, decision_id))
    except UnknownId:
        return None


def card_of(p: Picture, s: Suggestion) -> SuggestionCard | None:
    """The card of one suggestion; None when its rule is no longer in the settings."""
    rule = p.settings.rules.get(s.rule)
    record = p.decision(s.id)
    if rule is None or record is None:
        return None
    proposal = _proposal_of(record, s.rule)
    reasons = reasons_of(proposal.get("reasons")) or reasons_of(record.data.get("reasons"))
    metric, limit, at_most, gap = _off(reasons, p.settings)
    ended_by = _ended_by(p, s)
    standing = s.stands(p.settings, p.life.values, p.snap.clock_ms, p.settings.digest)
    return SuggestionCard(
        id=s.id,
        rule=rule,
        old=s.old,
        new=s.new,
        state=_state(s, standing),
        at_ms=record.ts_ms,
        until_ms=wall(p, s.at_ms + p.settings.proposal_ttl_s * 1000) if standing else None,
        reasons=reasons,
        metric=metric,
        limit=limit,
        at_most=at_most,
        gap=gap,
        expected=_expected(proposal, p.settings),
        confidence=number_of(proposal.get("confidence")),
        measured=_measured(record, metric, p.settings),
        odds=_odds(p, s, metric),
        points=score_points(p.settings, _means(record), _expected(proposal, p.settings)),
        checks=hand_checks(p, s) if standing else (),
        refusals=refusals(p, s.id),
        watch=_watch_of_suggestion(p, s),
        why=str(ended_by.data.get("why") or "") if ended_by else "",
        by=str(ended_by.data.get("actor") or "") if ended_by else "",
    )


def hand_checks(p: Picture, s: Suggestion) -> tuple[GuardCheck, ...]:
    """The guards that a person's act must pass, and the last look at the step itself."""
    proposal = Proposal(rule=s.rule, old=s.old, new=s.new, reasons=(Reason("why.by_hand"),))
    return (*hands.hand_checks(p, s.rule), check_step(p.situation, proposal))


def refusals(p: Picture, decision_id: str) -> tuple[Reason, ...]:
    """Why the core would refuse to apply it now; empty when it would not."""
    try:
        hands.apply(p, decision_id, actor="", reason="")
    except Refused as no:
        return no.reasons
    except UnknownId as no:
        return (no.reason,)
    return ()


def score_points(
    settings: Settings, means: Mapping[str, float | None], expected: tuple[Expected, ...]
) -> dict[str, float]:
    """Percent points of the score that each weighted metric gives or costs if the forecast comes true."""
    by_metric = {e.metric: e for e in expected}
    total = sum(settings.weights[m] for m in weighted(settings))
    points = {}
    for m in weighted(settings):
        mean = means.get(m)
        if mean is None or m not in by_metric or total <= 0:
            continue
        now = attainment(settings.targets[m], mean)
        then = attainment(settings.targets[m], mean + by_metric[m].mean)
        if now is not None and then is not None:
            points[m] = 100 * settings.weights[m] / total * (then - now)
    return points


def _state(s: Suggestion, standing: bool) -> CardState:
    if s.ended is Phase.APPLIED:
        return CardState.APPLIED
    if s.ended is Phase.REJECTED:
        return CardState.SNOOZED if s.snoozed_until_at_ms else CardState.REJECTED
    return CardState.STANDING if standing else CardState.EXPIRED


def _ended_by(p: Picture, s: Suggestion) -> Decision | None:
    """The person's record that ended a suggestion."""
    by_hand = (d for d in reversed(p.snap.records.decisions) if d.kind == "manual")
    return next((d for d in by_hand if d.data.get("of") == s.id), None)


def _proposal_of(record: Decision, rule: str) -> Mapping[str, Any]:
    found = (x for x in objects(record.data.get("proposals")) if x.get("rule") == rule)
    return next(found, {})


def _off(
    reasons: tuple[Reason, ...], settings: Settings
) -> tuple[str | None, float | None, bool, float | None]:
    """(metric, its limit, whether that is a maximum, how far off) from the reason that names it."""
    for r in reasons:
        if r.code == "why.off_target" and str(r.params.get("metric")) in settings.targets:
            observed, limit = number_of(r.params.get("observed")), number_of(r.params.get("limit"))
            gap = abs(observed - limit) if observed is not None and limit is not None else None
            return str(r.params["metric"]), limit, r.params.get("side") != "min", gap
    return None, None, True, None


def _expected(proposal: Mapping[str, Any], settings: Settings) -> tuple[Expected, ...]:
    found = []
    given = proposal.get("expected")
    for metric, x in given.items() if isinstance(given, Mapping) else ():
        target = settings.targets.get(str(metric))
        mean, lo, hi = (number_of(x.get(k)) if isinstance(x, Mapping) else None for k in ("mean", "lo", "hi"))
        if target is None or mean is None or lo is None or hi is None:
            continue
        matters = abs(mean) >= settings.good[str(metric)] / 2
        better = (mean < 0) is target.down_is_good if matters else None
        found.append(Expected(metric=str(metric), mean=mean, lo=lo, hi=hi, better=better))
    return tuple(found)


def _means(record: Decision) -> dict[str, float | None]:
    windows = record.data.get("window")
    if not isinstance(windows, Mapping):
        return {}
    return {str(m): number_of(w.get("mean")) for m, w in windows.items() if isinstance(w, Mapping)}


def _measured(record: Decision, metric: str | None, settings: Settings) -> tuple[Measured, ...]:
    """The windows of the record, the metric in question first."""
    windows = record.data.get("window")
    found = []
    for m in sorted(settings.targets, key=lambda m: m != metric):
        w = windows.get(m) if isinstance(windows, Mapping) else None
        mean = number_of(w.get("mean")) if isinstance(w, Mapping) else None
        if not isinstance(w, Mapping) or mean is None:
            continue
        se, n = number_of(w.get("se")), w.get("n")
        half = 1.96 * se if se is not None else None
        found.append(
            Measured(
                metric=m, mean=mean, n=n if isinstance(n, int) else 0,
                lo=mean - half if half is not None else None, hi=mean + half if half is not None else None,
            )
        )  # fmt: skip
    return tuple(found)


def _odds(p: Picture, s: Suggestion, metric: str | None) -> float | None:
    """By chance about 1 in so many is as large: of the Δ that the suggestion stands on."""
    change = p.life.change_of(s.evidence) if s.evidence else None
    record = evaluation_of(p, change.id) if change else None
    effect = record.data.get("effect") if record else None
    metrics = effect.get("metrics") if isinstance(effect, Mapping) else None
    found = metrics.get(metric) if isinstance(metrics, Mapping) else None
    return number_of(found.get("odds")) if isinstance(found, Mapping) else None


# ------------------------------------------------------------------------------- rollbacks
def rollback_cards(p: Picture) -> tuple[RollbackCard, ...]:
    """What the loop proposed and nobody carried out or turned down; none once the rule moved again.

    Of several proposals for one event (or one emergency) the newest speaks: turned down, the older ones are
    silent too.
    """
    over, seen = hands.turned_down(p), set[str]()
    cards: list[RollbackCard] = []
    for d in reversed(p.snap.records.decisions[-LOOK_BACK:]):
        if not proposed.is_proposal(d):
            continue
        found = _emergency_card(p, d) if d.act == proposed.EMERGENCY else _back_card(p, d)
        subject = found.event or found.moves[0].rule if found is not None else ""
        if found is None or subject in seen:
            continue
        seen.add(subject)
        if d.id not in over:
            cards.append(found)
    return tuple(sorted(cards, key=lambda c: not c.urgent))


def _back_card(p: Picture, d: Decision) -> RollbackCard | None:
    keys = keys_of(d.data.get("reverts"))
    last = {e.key for e in p.life.last_event.values()}
    change = p.life.change_of(keys[-1]) if keys and last.issuperset(keys) else None
    if change is None:
        return None
    moves = proposed.moves_back(p, d)
    if not moves:
        return None
    return RollbackCard(
        id=d.id, event=keys[-1], actor=change.actor, origin=change.origin, at_ms=change.ts_ms, moves=moves,
        cause=str(d.data.get("cause") or ""), reasons=reasons_of(d.data.get("reasons")),
    )  # fmt: skip


def _emergency_card(p: Picture, d: Decision) -> RollbackCard | None:
    """While the limit is broken and the rule is where the proposal found it."""
    moves = _as_recorded(p, d)
    if not (moves and p.breaches):
        return None
    return RollbackCard(
        id=d.id, event=None, actor="", origin=Origin.LOOP, at_ms=d.ts_ms, moves=moves, cause="hard_limit",
        reasons=reasons_of(d.data.get("reasons")), refusals=proposed.refusals(p, d.id),
    )  # fmt: skip


def _as_recorded(p: Picture, d: Decision) -> tuple[PlannedMove, ...]:
    """The moves on record, if each rule still stands where they begin."""
    found = []
    for x in objects(d.data.get("would")):
        rule, old, new = str(x.get("rule")), number_of(x.get("old")), number_of(x.get("new"))
        if old is None or new is None or old == new or p.life.values.get(rule) != old:
            return ()
        found.append(PlannedMove(rule=rule, old=old, new=new, kind=str(x.get("kind") or "change")))
    return tuple(found)


def _watch_of_suggestion(p: Picture, s: Suggestion) -> Watch | None:
    record = _ended_by(p, s) if s.ended is Phase.APPLIED else None
    change = next((c for c in reversed(p.life.changes) if record and c.decision == record.id), None)
    return watch_of(p, change) if change is not None else None


# ------------------------------------------------------------------------------- nothing to do
def quiet(p: Picture, plan: Plan) -> Quiet:
    """Why nothing is suggested: what the plan of this very moment says."""
    ideas = tuple(x for a in plan.acts if a.act == "step" and not a.write for x in a.proposals)
    if ideas:
        return Quiet(kind="idea", ideas=ideas, reasons=ideas[0].reasons)
    reasons = plan.holds
    codes = {r.code for r in reasons}
    until = [int(u) for r in reasons if (u := number_of(r.params.get("until_ms"))) is not None]
    if "hold.targets_met" in codes:
        return Quiet(kind="met", reasons=reasons)
    if p.newest_ms is None:
        return Quiet(kind="no_data", reasons=reasons)
    if "guard.stopped" in codes:
        return Quiet(kind="stopped", reasons=reasons)
    if until and len(until) == len(reasons):  # time alone frees it
        return Quiet(kind="until", reasons=reasons, until_ms=max(until))
    return Quiet(kind="held", reasons=reasons)
