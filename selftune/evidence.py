"""A judged effect as evidence for others: a CSV row, a sentence, a warning.

Answers "what do we tell the family about this event?". Pure; the ledger writes it, at most once an event.
"""

from __future__ import annotations

import math
from datetime import tzinfo
from typing import Any

from selftune.config import Settings
from selftune.domain import (
    DataState,
    Effect,
    JsonDict,
    MetricEffect,
    RuleEvent,
    Verdict,
    VerdictReport,
    long_name,
    short_name,
)
from selftune.judging import direction, warn_breach
from selftune.records import stamp
from selftune.wording import Catalogue, render, sentence, word

BY = "selftune"
FAMILY = ("phase", "entropy", "creative", "risk")
_KNOWN = (DataState.OK, DataState.CONSTANT)


# ----------------------------------------------------------------------------- the CSV row
def effect_row(event: RuleEvent, effect: Effect | None, report: VerdictReport, zone: tzinfo) -> JsonDict:
    """The row of one event by canonical column; without an effect its numbers stay empty.

    Units: `pre_s`, `post_s` in seconds; deltas in the metric's own unit.
    """
    row: JsonDict = {
        "rule_ts": stamp(event.ts_ms, zone),
        "actor": event.actor,
        "rule": event.rule,
        "old": event.old,
        "new": event.new,
        "event_id": event.key,
        "verdict": report.verdict.value,
        "reason": report.reasons[0].code,
    }
    if effect is None:
        return row
    for metric, found in effect.metrics.items():
        row |= _metric_cells(short_name(metric), found)
    lead = effect.metrics.get("risk_band") or next(iter(effect.metrics.values()), None)
    if lead is not None:
        row |= {"pre_s": lead.pre_s, "post_s": lead.post_s, "n_pre": lead.n_pre, "n_post": lead.n_post}
    return {**row, "estimator": effect.estimator}


def _metric_cells(short: str, found: MetricEffect) -> JsonDict:
    if found.state not in _KNOWN:
        return {f"d_{short}": None}
    return {
        f"d_{short}": _rounded(found.delta),
        f"lo_{short}": _rounded(found.lo),
        f"hi_{short}": _rounded(found.hi),
        f"pre_{short}": _rounded(found.pre_mean),
        f"post_{short}": _rounded(found.post_mean),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


# ----------------------------------------------------------------------------- the sentence
def quote(
    event: RuleEvent,
    effect: Effect,
    report: VerdictReport,
    settings: Settings,
    words: Catalogue,
    language: str | None = None,
) -> JsonDict | None:
    """The evidence sentence of one event without its ts; None when no metric could be measured.

    It names the metric that moved most, counted in improvements that matter (`settings.good`); of an
    improvement one that improved, or the sentence would praise what got worse.
    """
    telling = _most_telling(effect, settings, gained=report.verdict is Verdict.IMPROVED)
    if telling is None or telling.delta is None:
        return None
    lang = language or settings.language
    return {
        "by": BY,
        "rule": event.rule,
        "delta": deltas(effect),
        "confidence": confidence(report, telling),
        "quote": _sentence(event, telling, lang, words),
        "effect": event.key,
    }


def deltas(effect: Effect) -> dict[str, float | None]:
    """Delta by short name; the family's four always, None where unknown."""
    known = {m: e.delta if e.state in _KNOWN else None for m, e in effect.metrics.items()}
    return {**dict.fromkeys(FAMILY), **{short_name(m): _rounded(d) for m, d in known.items()}}


def confidence(report: VerdictReport, telling: MetricEffect) -> float:
    """0..1: how sure the verdict's own statement is; else one minus the placebo odds' chance."""
    if report.verdict is Verdict.IMPROVED and report.p_gain is not None:
        found = report.p_gain
    elif report.verdict is Verdict.WORSENED and report.p_loss is not None:
        found = report.p_loss
    elif telling.odds is not None and telling.odds >= 1:
        found = 1 - 1 / telling.odds
    else:
        found = 0.0
    return round(min(1.0, max(0.0, found)), 3)


def _most_telling(effect: Effect, settings: Settings, *, gained: bool) -> MetricEffect | None:
    known = [e for e in effect.metrics.values() if e.state in _KNOWN and e.delta is not None]
    if gained:
        known = [e for e in known if _gain(e, settings) > 0] or known
    return max(known, key=lambda e: abs(e.delta or 0.0) / settings.good.get(e.metric, 1.0), default=None)


def _gain(e: MetricEffect, settings: Settings) -> float:
    target = settings.targets.get(e.metric)
    return 0.0 if target is None or e.delta is None else direction(target, e.pre_mean) * e.delta


def _sentence(event: RuleEvent, telling: MetricEffect, lang: str, words: Catalogue) -> str:
    delta = telling.delta or 0.0
    params: dict[str, Any] = {
        "rule": event.rule,
        "old": event.old,
        "new": event.new,
        "metric": word("metric", long_name(telling.metric), lang, words),
        "size": abs(delta) if abs(delta) >= 1e-6 else 0.0,
        "lo": _rounded(telling.lo),
        "hi": _rounded(telling.hi),
        "odds": None if telling.odds is None or not math.isfinite(telling.odds) else round(telling.odds),
    }
    way = "same" if params["size"] == 0 else "fell" if delta < 0 else "rose"
    return render(f"quote.{_move(event)}.{way}", params, lang, words)


def _move(event: RuleEvent) -> str:
    if event.old is None or event.new is None or event.old == event.new:
        return "set" if event.new is not None else "touched"
    return "lowered" if event.new < event.old else "raised"


# ----------------------------------------------------------------------------- the warning
def warning(
    event: RuleEvent,
    effect: Effect,
    report: VerdictReport,
    settings: Settings,
    words: Catalogue,
    language: str | None = None,
) -> JsonDict | None:
    """The warning of one event without its ts; None unless it WORSENED or broke a `safety.warn` limit."""
    beyond = warn_breach(effect, settings)
    worsened = report.verdict is Verdict.WORSENED
    if not worsened and not beyond:
        return None
    lang = language or settings.language
    reason = report.reasons[0] if worsened else beyond[0]
    cause = "worsened" if worsened else "warn_limit"
    params = {"rule": event.rule, "why": sentence(reason, lang, words)}
    known = {f"d_{short}": d for short, d in deltas(effect).items() if d is not None}
    return {
        "severity": "warn",
        "rule": event.rule,
        "signal": {
            "cause": cause,
            "reason": reason.code,
            "beyond": [r.params["metric"] for r in beyond],
            **known,
        },
        "note": render(f"quote.warning.{cause}", params, lang, words),
        "effect": event.key,
    }
