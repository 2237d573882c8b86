"""Charts of what changes did: forest of Δ, effect summed per rule, ruler of bounds, trade-off receipt.

Metrics have different units, so Δ is drawn in units of "an improvement that counts" (settings `good`)
and to the right always means better; the words beside it carry the metric's own numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np

from selftune.chart_kit import (
    CATEGORY_DASHES,
    CATEGORY_SHAPES,
    OUTCOME_SHAPES,
    ChartView,
    JsonDict,
    Look,
    Outcome,
    Say,
    clock_text,
    number,
    outcome_colours,
    span_text,
    wall_times,
)
from selftune.chart_parts import Span, finish, quoted, span_layer, time_axis, window_columns, zero_ticks
from selftune.domain import Rule

ROW_HEIGHT = 38
_SIGNED = "datum.value > 0 ? '+' + datum.label : datum.label"


@dataclass(frozen=True, kw_only=True)
class EffectRow:
    """One event's effect on one metric. Units: `delta`, `lo`, `hi`, `good` the metric's own; `good` > 0.

    `n` < `n_needed` means too few samples: the row is drawn hollow, without a verdict in its colour.
    """

    event: str  # heading of the event, the same for all its metrics
    metric: str
    delta: float | None
    lo: float | None
    hi: float | None
    good: float
    down_is_good: bool
    outcome: Outcome
    odds: float | None = None
    n: int = 0
    n_needed: int = 0


@dataclass(frozen=True, kw_only=True)
class RuleGain:
    """The summed effect of one rule's changes. Units: `points` = score in percent points, per event."""

    rule: str
    t_ms: Sequence[int]
    points: Sequence[float]


def forest(rows: Sequence[EffectRow], *, look: Look, say: Say) -> ChartView:
    """Interval and centre of each Δ; right of the line is better, the shaded side is "counts"."""
    data: dict[str, list[Any]] = {k: [] for k in ("row", "x", "lo", "hi", "outcome", "ink", "text")}
    heads: dict[str, list[Any]] = {"row": [], "text": []}
    line = 0
    for before, r in zip([None, *rows], rows, strict=False):
        if before is None or before.event != r.event:
            heads["row"].append(line)
            heads["text"].append(r.event)
            line += 1
        for name, value in _forest_line(r, look, say).items():
            data[name].append(value)
        data["row"].append(line)
        line += 1
    words = tuple(say(f"chart.outcome_{o.value}") for o in Outcome)
    return ChartView(
        spec=_forest_spec(look, words, say("chart.forest_axis"), say("chart.forest_good")),
        datasets={
            "rows": data,
            "heads": heads,
            "frame": {"x": [-1.2, 1.6] if rows else []},
            "good": _at("good", 1.0, rows),
        },
        alt=say("chart.forest_alt", n=len(rows)),
        sentence=say("chart.forest_sentence"),
        table={
            say("chart.change"): [r.event for r in rows],
            say("chart.metric"): [say.metric(r.metric) for r in rows],
            "Δ": [number(r.delta, sign=True) for r in rows],
            say("chart.interval"): [f"{number(r.lo, sign=True)} ~ {number(r.hi, sign=True)}" for r in rows],
            say("chart.odds"): [_odds(r.odds, say) for r in rows],
            say("chart.outcome"): [say(f"chart.outcome_{_shown(r).value}") for r in rows],
        },
    )


def _shown(r: EffectRow) -> Outcome:
    """No data is never proof: too few samples show as undecided, whatever was recorded."""
    return r.outcome if r.n >= r.n_needed else Outcome.INCONCLUSIVE


def _forest_line(r: EffectRow, look: Look, say: Say) -> JsonDict:
    sign = (-1.0 if r.down_is_good else 1.0) / r.good
    ends = sorted(v * sign for v in (r.lo, r.hi) if v is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    x = None if r.delta is None else r.delta * sign
    shown = _shown(r)
    ink = dict(zip(Outcome, outcome_colours(look.colours)[0], strict=True))[shown]
    text = _forest_text(r, look, say)
    return {"x": x, "lo": low, "hi": high, "outcome": shown.value, "ink": ink, "text": text}


def _forest_text(r: EffectRow, look: Look, say: Say) -> str:
    name = say.metric(r.metric)
    if r.n < r.n_needed:
        return f"{name} · {say('chart.too_few', n=r.n, needed=r.n_needed)}"
    if r.delta is None:
        return f"{name} · {say('chart.no_delta')}"
    body = f"{name} · Δ {number(r.delta, sign=True)} ({number(r.lo, sign=True)} ~ {number(r.hi, sign=True)})"
    # A phone has no room for the odds; they stay in the table.
    return body if look.narrow or r.odds is None else f"{body} · {_odds(r.odds, say)}"


def _at(name: str, value: float, rows: Sequence[Any]) -> Mapping[str, Sequence[float]]:
    """A dataset of one place on an axis; empty when the chart is, so that nothing draws nothing."""
    return {name: [value] if rows else []}


def _odds(odds: float | None, say: Say) -> str:
    return "" if odds is None else say("chart.by_chance", odds=number(odds, 0))


@lru_cache(maxsize=32)
def _forest_spec(look: Look, words: tuple[str, ...], axis: str, good: str) -> JsonDict:
    c = look.colours
    codes = [o.value for o in Outcome]
    stroke, fill = outcome_colours(c)
    rows = alt.Chart(alt.NamedData("rows"))
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0))
    x_axis = alt.Axis(title=axis, grid=False, format=",~r", tickCount=5)
    colour = alt.Color("ink:N", scale=None)
    labels = ",".join(f'"{k}":{quoted(w)}' for k, w in zip(codes, words, strict=True))
    legend = alt.Legend(title=None, labelExpr=f"({{{labels}}})[datum.label]", symbolSize=90)
    shaded = (
        alt.Chart(alt.NamedData("good"))
        .mark_rect(color=c.shade, opacity=c.shade_opacity)
        .encode(x=alt.X("good:Q"), x2=alt.value("width"))
    )
    name = (
        alt.Chart(alt.NamedData("good"))
        .mark_text(align="left", dx=5, dy=-8, color=c.muted, fontSize=11)
        .encode(x="good:Q", y=alt.value(0), text=alt.value(good))
    )
    chart = alt.layer(
        alt.Chart(alt.NamedData("frame")).mark_point(opacity=0).encode(x=alt.X("x:Q", axis=x_axis)),
        shaded,
        name,
        zero_ticks(rows, y, c.muted),
        rows.mark_rule(strokeWidth=2.5, yOffset=9).encode(x="lo:Q", x2="hi:Q", y=y, color=colour),
        rows.mark_point(size=110, strokeWidth=2.2, opacity=1, yOffset=9).encode(
            x="x:Q",
            y=y,
            stroke=alt.Stroke("outcome:N", scale=alt.Scale(domain=codes, range=stroke), legend=legend),
            fill=alt.Fill("outcome:N", scale=alt.Scale(domain=codes, range=fill), legend=legend),
            shape=alt.Shape(
                "outcome:N",
                legend=legend,
                scale=alt.Scale(domain=codes, range=[OUTCOME_SHAPES[o] for o in Outcome]),
            ),
        ),
        rows.mark_text(align="left", dy=-8, color=c.text).encode(x=alt.value(2), y=y, text="text:N"),
        alt.Chart(alt.NamedData("heads"))
        .mark_text(align="left", dy=8, color=c.text, fontWeight=600)
        .encode(x=alt.value(2), y=y, text="text:N"),
    )
    return finish(chart.properties(height={"step": ROW_HEIGHT}), look)


def cumulative(gains: Sequence[RuleGain], span: Span, *, look: Look, say: Say) -> ChartView:
    """What the changes of each rule have added to the score so far, as steps from zero."""
    data: dict[str, list[Any]] = {"ms": [], "v": [], "rule": [], "event": []}
    for gain in gains:
        if not gain.t_ms:
            continue
        sums = [0.0, *np.cumsum(gain.points).tolist()]
        data["ms"] += [span.start_ms, *gain.t_ms, span.end_ms]
        data["v"] += [*sums, sums[-1]]
        data["rule"] += [gain.rule] * (len(sums) + 1)
        data["event"] += [False, *[True] * len(gain.t_ms), False]
    where = span_text(span.start_ms, span.end_ms, look.zone)
    totals = ", ".join(f"{g.rule} {number(sum(g.points), 1, sign=True)}" for g in gains) or "–"
    return ChartView(
        spec=_cumulative_spec(look, tuple(g.rule for g in gains), say("chart.points")),
        datasets={
            "sums": {"t": wall_times(data["ms"], look.zone), **{k: data[k] for k in ("v", "rule", "event")}},
            "zero": _at("zero", 0.0, data["v"]),
            **window_columns(span, look.zone),
        },
        alt=say("chart.cumulative_alt", span=where, totals=totals),
        sentence=say("chart.cumulative_sentence"),
        table={
            say("chart.time"): [clock_text(int(t), look.zone) for g in gains for t in g.t_ms],
            say("chart.rule"): [g.rule for g in gains for _ in g.t_ms],
            say("chart.points"): [number(p, 2, sign=True) for g in gains for p in g.points],
        },
    )


@lru_cache(maxsize=32)
def _cumulative_spec(look: Look, rules: tuple[str, ...], title: str) -> JsonDict:
    c = look.colours
    names = list(rules)
    n = max(1, len(names))

    def cycle(values: Sequence[Any]) -> list[Any]:
        return [values[i % len(values)] for i in range(n)]

    legend = alt.Legend(title=None)
    base = alt.Chart(alt.NamedData("sums")).encode(
        y=alt.Y("v:Q", title=title, axis=alt.Axis(labelExpr=_SIGNED, minExtent=44)),
        stroke=alt.Stroke("rule:N", legend=legend, scale=alt.Scale(domain=names, range=cycle(c.categories))),
    )
    dash = alt.StrokeDash(
        "rule:N", legend=legend, scale=alt.Scale(domain=names, range=cycle(CATEGORY_DASHES))
    )
    shape = alt.Shape("rule:N", legend=legend, scale=alt.Scale(domain=names, range=cycle(CATEGORY_SHAPES)))
    x = time_axis()
    base = base.encode(x=x)
    chart = alt.layer(
        span_layer(x),
        alt.Chart(alt.NamedData("zero")).mark_rule(color=c.muted).encode(y="zero:Q"),
        base.mark_line(strokeWidth=2, interpolate="step-after").encode(strokeDash=dash),
        base.transform_filter("datum.event")
        .mark_point(size=60, strokeWidth=1.8, opacity=1)
        .encode(shape=shape),
    )
    return finish(chart.properties(height=180), look)


def ruler(rule: Rule, now: float, new: float | None, *, look: Look, say: Say) -> ChartView:
    """The rule's bounds as a ruler: where it stands (hollow) and where it would go (filled)."""
    target = now if new is None else new
    steps = "" if new is None else f"{abs(new - now) / rule.lr:.2g}"
    words: dict[str, Any] = {
        "rule": rule.name,
        "lo": number(rule.min),
        "hi": number(rule.max),
        "now": number(now),
        "new": number(new),
        "steps": steps,
    }
    # Two labels at nearly one place would print over each other: each leans away from the other.
    up = target >= now
    return ChartView(
        spec=_ruler_spec(look, up, new is not None),
        datasets={
            "bounds": {
                "lo": [rule.min],
                "hi": [rule.max],
                "lo_text": [number(rule.min)],
                "hi_text": [number(rule.max)],
            },
            "move": {
                "now": [now],
                "new": [target],
                "now_text": [f"{say('chart.now')} {number(now)}"],
                "new_text": [f"{say('chart.new')} {number(target)}"],
            },
        },
        alt=say("chart.ruler_alt" if new is not None else "chart.ruler_still_alt", **words),
        sentence=say("chart.ruler_sentence" if new is not None else "chart.ruler_still_alt", **words),
        table={
            say("chart.rule"): [rule.name],
            say("chart.bounds"): [f"{number(rule.min)} ~ {number(rule.max)}"],
            say("chart.now"): [number(now)],
            say("chart.new"): [number(new)],
        },
    )


@lru_cache(maxsize=32)
def _ruler_spec(look: Look, up: bool, moves: bool) -> JsonDict:
    c = look.colours
    bounds = alt.Chart(alt.NamedData("bounds"))
    move = alt.Chart(alt.NamedData("move"))
    y = alt.value(30)
    x_scale = alt.Scale(zero=False, nice=False, padding=22)
    lo = alt.X("lo:Q", axis=None, scale=x_scale)
    layers: list[alt.Chart] = [
        bounds.mark_rule(strokeWidth=10, strokeCap="round", color=c.grid).encode(x=lo, x2="hi:Q", y=y),
        bounds.mark_text(dy=20, color=c.muted).encode(x=lo, y=y, text="lo_text:N"),
        bounds.mark_text(dy=20, color=c.muted).encode(x="hi:Q", y=y, text="hi_text:N"),
        move.mark_point(
            size=130, filled=True, color=c.ground, stroke=c.text, strokeWidth=2, opacity=1
        ).encode(x="now:Q", y=y),
        move.mark_text(dy=-18, color=c.text, align="right" if up else "left", dx=4 if up else -4).encode(
            x="now:Q", y=y, text="now_text:N"
        ),
    ]
    if moves:
        layers[3:3] = [move.mark_rule(strokeWidth=4, color=c.open).encode(x="now:Q", x2="new:Q", y=y)]
        layers += [
            move.mark_point(
                size=190,
                filled=True,
                opacity=1,
                color=c.open,
                shape="triangle-right" if up else "triangle-left",
            ).encode(x="new:Q", y=y),
            move.mark_text(
                dy=-18, color=c.text, fontWeight=600, align="left" if up else "right", dx=6 if up else -6
            ).encode(x="new:Q", y=y, text="new_text:N"),
        ]
    return finish(alt.layer(*layers).properties(height=62), look)


def receipt(points: Mapping[str, float], *, look: Look, say: Say) -> ChartView:
    """What each metric gives (▲) or costs (▼) in score points, and the sum. Units: percent points."""
    names = [say.metric(m) for m in points]
    values = list(points.values())
    total = sum(values)
    rows = [*names, say("chart.total")] if points else []
    all_values = [*values, total] if points else []
    side = ["give" if v >= 0 else "cost" for v in all_values]
    texts = [f"{'▲' if v >= 0 else '▼'} {number(v, 1, sign=True)}" for v in all_values]
    return ChartView(
        spec=_receipt_spec(look, say("chart.points")),
        datasets={
            "rows": {
                "name": rows,
                "v": all_values,
                "side": side,
                "text": texts,
                "order": [*range(len(rows))],
                "sum": [i == len(rows) - 1 for i in range(len(rows))],
                "zero": [0.0] * len(rows),
            },
            "zero": _at("zero", 0.0, rows),
        },
        alt=say("chart.receipt_alt", parts=", ".join(f"{n} {t}" for n, t in zip(rows, texts, strict=True))),
        sentence=say("chart.receipt_sentence", total=number(total, 1, sign=True)),
        table={say("chart.metric"): rows, say("chart.points"): [number(v, 1, sign=True) for v in all_values]},
    )


@lru_cache(maxsize=16)
def _receipt_spec(look: Look, title: str) -> JsonDict:
    c = look.colours
    y = alt.Y(
        "name:N",
        title=None,
        sort=alt.SortField("order"),
        axis=alt.Axis(labelColor=c.text, labelLimit=150, domain=False, ticks=False),
    )
    base = alt.Chart(alt.NamedData("rows")).encode(y=y)
    x = alt.X(
        "v:Q",
        title=title,
        axis=alt.Axis(labelExpr=_SIGNED, grid=True, tickCount=5),
        scale=alt.Scale(padding=44),
    )
    colour = alt.Color("side:N", legend=None, scale=alt.Scale(domain=["give", "cost"], range=[c.good, c.bad]))
    give, cost = "datum.v >= 0", "datum.v < 0"
    chart = alt.layer(
        base.mark_bar(height=16, cornerRadius=2).encode(
            x=x, x2="zero:Q", color=colour, opacity=alt.condition("datum.sum", alt.value(1), alt.value(0.7))
        ),
        base.transform_filter(give).mark_text(align="left", dx=5, color=c.text).encode(x=x, text="text:N"),
        base.transform_filter(cost).mark_text(align="right", dx=-5, color=c.text).encode(x=x, text="text:N"),
        alt.Chart(alt.NamedData("zero")).mark_rule(color=c.muted).encode(x="zero:Q"),
    )
    return finish(chart.properties(height={"step": 26}), look)


__all__ = ["EffectRow", "RuleGain", "cumulative", "forest", "receipt", "ruler"]
