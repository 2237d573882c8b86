"""Charts over time: linked panels, one metric, the score, a spark, rule values inside their bounds.

Each builder returns a `ChartView`: a specification that is built once per look and shared, and the
named datasets that change. Building costs a hundred times what sending data costs, so nothing that
moves with the data (a domain, a target, a title with a number) may enter a specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np

from selftune.chart_kit import (
    ChartView,
    JsonDict,
    Look,
    Say,
    clock_text,
    number,
    span_text,
    wall_times,
)
from selftune.chart_parts import (
    EventMark,
    Span,
    blind_layer,
    blind_words,
    bucket_columns,
    bucket_table,
    event_columns,
    event_markers,
    event_rules,
    event_words,
    finish,
    goal_layers,
    has_room,
    limits_of,
    mean_line,
    newest_of,
    nothing_spec,
    span_columns,
    span_layer,
    spread_band,
    time_axis,
    value_axis,
    window_columns,
)
from selftune.domain import Rule, Target
from selftune.downsample import Buckets

PANEL_HEIGHT = 96
STRIP_HEIGHT = 36
FIGURES_PX = 40
CLOSE = 0.16  # of a chart's height: a line so near above a dot runs through the number over it


@dataclass(frozen=True, kw_only=True)
class RuleTrace:
    """The values of one rule over time; each holds until the next. Shape: both of length n."""

    rule: Rule
    t_ms: Sequence[int]
    values: Sequence[float]


# ------------------------------------------------------------------------------- linked panels
def linked_panels(
    buckets: Buckets,
    targets: Mapping[str, Target],
    events: Sequence[EventMark],
    span: Span,
    *,
    look: Look,
    say: Say,
    strip: str | None = None,
) -> ChartView:
    """A thin panel a metric over one time axis, and below a strip to drag the visible part in.

    A click on an event selects its `id` (parameter `pick`); dragging the strip stays in the browser.
    """
    metrics = tuple(buckets.mean)
    names = tuple(say.metric(m) for m in metrics)
    strip_at = metrics.index(strip) if strip in metrics else 0
    marked = any(span.start_ms <= e.t_ms < span.end_ms for e in events)
    room = tuple(has_room(buckets, m, targets.get(m)) for m in metrics)
    spec = _panels_spec(
        look, names, strip_at, event_words(say) if marked else (), say("chart.strip_title"), room
    )
    rows = [(i, limit, text) for i, m in enumerate(metrics) for limit, text in limits_of(targets.get(m))]
    goals = {"panel": [r[0] for r in rows], "v": [r[1] for r in rows], "label": [r[2] for r in rows]}
    where = span_text(span.start_ms, span.end_ms, look.zone)
    return ChartView(
        spec=spec,
        datasets={
            "buckets": bucket_columns(buckets, metrics, look.zone),
            "goals": goals,
            "events": event_columns(events, span, look, say),
            **span_columns(span, look.zone),
        },
        alt=say("chart.panels_alt", metrics=", ".join(names), span=where, events=len(events)),
        sentence=say("chart.panels_sentence", span=where, buckets=len(buckets), samples=buckets.samples)
        + blind_words(span, say),
        table=bucket_table(buckets, metrics, look.zone, say),
        selections=("pick",) if marked else (),
    )


@lru_cache(maxsize=128)
def _panels_spec(
    look: Look,
    names: tuple[str, ...],
    strip_at: int,
    words: tuple[str, ...],
    strip_title: str,
    room: tuple[bool, ...],
) -> JsonDict:
    brush = alt.selection_interval(name="brush", encodings=["x"])
    room_for_figures: list[Any] = [
        FIGURES_PX,
        {"expr": "width"},
    ]  # the figures of the y axis stand on the picture
    visible = alt.Scale(domain=brush, range=room_for_figures)
    last = len(names) - 1
    panels = [
        _panel(look, i, name, words, visible, top=i == 0, bottom=i == last, room=room[i])
        for i, name in enumerate(names)
    ]
    x = time_axis(alt.Scale(range=room_for_figures))
    line = (
        alt.Chart(alt.NamedData("buckets"))
        .mark_line(color=look.colours.muted, strokeWidth=1)
        .encode(x=x, y=alt.Y(f"v{strip_at}:Q", axis=None, scale=alt.Scale(zero=False)))
    )
    strip = alt.layer(span_layer(x), line.add_params(brush)).properties(
        height=STRIP_HEIGHT, title=alt.TitleParams(strip_title, fontSize=12, fontWeight="normal")
    )
    spec = finish(alt.vconcat(*panels, strip, spacing=10), look)
    return {**spec, "padding": {"left": 0, "right": 0, "top": 4, "bottom": 2}}


def _panel(
    look: Look,
    i: int,
    name: str,
    words: tuple[str, ...],
    visible: alt.Scale,
    *,
    top: bool,
    bottom: bool,
    room: bool,
) -> Any:
    x = time_axis(visible, labels=bottom)
    layers: list[Any] = [
        span_layer(x),
        spread_band(look, i, x, room=room, inside=True),
        blind_layer(look, x),
        *goal_layers(look, i, right=True),
        mean_line(look, i, x, room=room, inside=True),
    ]
    if words:
        layers.append(event_rules(x))
    if top and words:
        layers.append(event_markers(look, words, x, pick=True))
    return alt.layer(*layers).properties(height=PANEL_HEIGHT, title=name)


# ------------------------------------------------------------------------------- one metric
def metric_chart(
    buckets: Buckets,
    metric: str,
    target: Target | None,
    events: Sequence[EventMark],
    span: Span,
    *,
    look: Look,
    say: Say,
) -> ChartView:
    """One metric with its target, the events, and its newest value as a dot."""
    name = say.metric(metric)
    marked = any(span.start_ms <= e.t_ms < span.end_ms for e in events)
    spec = _metric_spec(
        look,
        event_words(say) if marked else (),
        (say("chart.mean"), say("chart.low"), say("chart.high")),
        has_room(buckets, metric, target),
    )
    where = span_text(span.start_ms, span.end_ms, look.zone)
    newest = newest_of(buckets, metric)
    goal = " · ".join(text for _, text in limits_of(target)) or say("chart.no_target")
    return ChartView(
        spec=spec,
        datasets={
            "buckets": bucket_columns(buckets, (metric,), look.zone),
            "goals": {
                "panel": [0] * len(limits_of(target)),
                "v": [v for v, _ in limits_of(target)],
                "label": [t for _, t in limits_of(target)],
            },
            "events": event_columns(events, span, look, say),
            "newest": {
                "t": wall_times([newest[0]] if newest else [], look.zone),
                "v": [newest[1]] if newest else [],
                **_newest_label(buckets, metric, target, newest[1] if newest else None),
            },
            **span_columns(span, look.zone),
        },
        alt=say(
            "chart.metric_alt",
            metric=name,
            span=where,
            value=number(newest[1] if newest else None),
            goal=goal,
        ),
        sentence=say("chart.metric_sentence", span=where, goal=goal) + blind_words(span, say),
        table=bucket_table(buckets, (metric,), look.zone, say),
    )


def _newest_label(
    buckets: Buckets, metric: str, target: Target | None, value: float | None
) -> dict[str, list[str]]:
    """The newest value as text above its dot, or below it where a target's line runs close above."""
    if value is None:
        return {"above": [], "below": []}
    limits = [v for v, _ in limits_of(target)]
    seen = np.array([*buckets.lo.get(metric, ()), *buckets.hi.get(metric, ()), *limits, value], np.float64)
    room = CLOSE * float(np.nanmax(seen) - np.nanmin(seen))
    below = any(0 <= v - value < room for v in limits)
    text = number(value)
    return {"above": ["" if below else text], "below": [text if below else ""]}


@lru_cache(maxsize=64)
def _metric_spec(look: Look, words: tuple[str, ...], hover: tuple[str, str, str], room: bool) -> JsonDict:
    x, c = time_axis(), look.colours
    newest = alt.Chart(alt.NamedData("newest")).encode(x=x, y="v:Q")
    probe = (
        alt.Chart(alt.NamedData("buckets"))
        .mark_rule(opacity=0, strokeWidth=4)
        .encode(
            x=x,
            tooltip=[
                alt.Tooltip("t:T", format="%m-%d %H:%M:%S", title=" "),
                *(alt.Tooltip(f"{k}0:Q", format=".3f", title=t) for k, t in zip("vlh", hover, strict=True)),
            ],
        )
    )
    chart = alt.layer(
        span_layer(x),
        spread_band(look, 0, x, room=room),
        blind_layer(look, x),
        *goal_layers(look, 0),
        mean_line(look, 0, x, room=room),
        probe,
        *([event_rules(x), event_markers(look, words, x)] if words else []),
        newest.mark_point(filled=True, size=60, color=look.colours.line, opacity=1),
        *(
            newest.mark_text(dy=dy, align="right", fontWeight=600, **ink).encode(text=f"{side}:N")
            for side, dy in (("above", -11), ("below", 13))
            for ink in (
                {"color": c.ground, "stroke": c.ground, "strokeWidth": 4, "opacity": 0.85},
                {"color": c.text},
            )
        ),
    )
    return finish(chart.properties(height=170 if look.narrow else 220), look)


def score_chart(
    t_ms: Sequence[int], score: Sequence[float | None], span: Span, *, look: Look, say: Say
) -> ChartView:
    """The objective score over the last day, in percent. Units: `score` 0..1, None = not known."""
    percent = np.array([np.nan if s is None else 100 * s for s in score], np.float64)
    known = percent[np.isfinite(percent)]
    spec = _score_spec(look)
    where = span_text(span.start_ms, span.end_ms, look.zone)
    return ChartView(
        spec=spec,
        datasets={
            "score": {"t": wall_times(t_ms, look.zone), "v": percent},
            # At least ten points of height: a flat score must look flat, not like a mountain range.
            "reach": {"v": [max(0.0, known.mean() - 5), min(100.0, known.mean() + 5)] if len(known) else []},
            **span_columns(span, look.zone),
        },
        alt=say(
            "chart.score_alt",
            span=where,
            value=number(known[-1] if len(known) else None, 0),
            low=number(known.min() if len(known) else None, 0),
            high=number(known.max() if len(known) else None, 0),
        ),
        sentence=say("chart.score_sentence", span=where),
        table={
            say("chart.time"): [clock_text(int(t), look.zone) for t in t_ms],
            say("chart.score"): [number(v, 1) for v in percent],
        },
    )


@lru_cache(maxsize=16)
def _score_spec(look: Look) -> JsonDict:
    c = look.colours
    base = alt.Chart(alt.NamedData("score"))
    y = alt.Y("v:Q", title=None, scale=alt.Scale(zero=False), axis=value_axis("d"))
    reach = alt.Chart(alt.NamedData("reach")).mark_point(opacity=0).encode(y="v:Q")
    x = time_axis()
    chart = alt.layer(
        span_layer(x),
        reach,
        blind_layer(look, x),
        base.mark_line(color=c.line, strokeWidth=2).encode(x=x, y=y),
    )
    return finish(chart.properties(height=110), look)


def spark(buckets: Buckets, metric: str, *, met: bool | None, look: Look, say: Say) -> ChartView:
    """A line of a few pixels for a card: green on target, vermilion off target, blue unknown."""
    name = say.metric(metric)
    values = buckets.mean.get(metric, np.empty(0, np.float32))
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (None, None)
    words = {"metric": name, "low": number(low), "high": number(high)}
    return ChartView(
        spec=_spark_spec(look, met),
        datasets={"buckets": bucket_columns(buckets, (metric,), look.zone)},
        alt=say("chart.spark_alt", **words),
        sentence=say("chart.spark_sentence", **words),
        table=bucket_table(buckets, (metric,), look.zone, say),
    )


@lru_cache(maxsize=32)
def _spark_spec(look: Look, met: bool | None) -> JsonDict:
    c = look.colours
    colour = c.line if met is None else c.good if met else c.bad
    line = (
        alt.Chart(alt.NamedData("buckets"))
        .mark_line(color=colour, strokeWidth=1.5)
        .encode(x=alt.X("t:T", axis=None), y=alt.Y("v0:Q", axis=None, scale=alt.Scale(zero=False)))
    )
    return finish(line.properties(height=44), look)


# ------------------------------------------------------------------------------- rules over time
def rule_traces(traces: Sequence[RuleTrace], span: Span, *, look: Look, say: Say) -> ChartView:
    """A panel a rule: its value as steps, its bounds as a shaded stretch."""
    names = tuple(t.rule.name for t in traces)
    steps: dict[str, list[Any]] = {"panel": [], "ms": [], "v": []}
    for i, trace in enumerate(traces):
        held = [*zip(trace.t_ms, trace.values, strict=True)]
        if held:
            held.append((span.end_ms, held[-1][1]))
        for t, v in held:
            steps["panel"].append(i)
            steps["ms"].append(max(t, span.start_ms))
            steps["v"].append(v)
    bounds = {
        "panel": [*range(len(traces))],
        "lo": [t.rule.min for t in traces],
        "hi": [t.rule.max for t in traces],
    }
    where = span_text(span.start_ms, span.end_ms, look.zone)
    return ChartView(
        spec=_traces_spec(look, names),
        datasets={
            "steps": {"panel": steps["panel"], "t": wall_times(steps["ms"], look.zone), "v": steps["v"]},
            "bounds": bounds,
            **window_columns(span, look.zone),
        },
        alt=say("chart.traces_alt", rules=", ".join(names) or "–", span=where),
        sentence=say("chart.traces_sentence", span=where),
        table={
            say("chart.time"): [clock_text(int(t), look.zone) for tr in traces for t in tr.t_ms],
            say("chart.rule"): [tr.rule.name for tr in traces for _ in tr.t_ms],
            say("chart.value"): [number(v) for tr in traces for v in tr.values],
        },
    )


@lru_cache(maxsize=32)
def _traces_spec(look: Look, names: tuple[str, ...]) -> JsonDict:
    c = look.colours
    panels = []
    for i, name in enumerate(names):
        here = f"datum.panel === {i}"
        bounds = alt.Chart(alt.NamedData("bounds")).transform_filter(here)
        y = alt.Y("v:Q", title=None, scale=alt.Scale(zero=False), axis=value_axis())
        x = time_axis(labels=i == len(names) - 1)
        steps = alt.Chart(alt.NamedData("steps")).transform_filter(here).encode(x=x, y=y)
        layer = alt.layer(
            span_layer(x),
            bounds.mark_rect(color=c.shade, opacity=c.shade_opacity).encode(y="lo:Q", y2="hi:Q"),
            bounds.mark_rule(color=c.muted, strokeDash=[4, 3]).encode(y="lo:Q"),
            bounds.mark_rule(color=c.muted, strokeDash=[4, 3]).encode(y="hi:Q"),
            steps.mark_line(color=c.line, strokeWidth=2, interpolate="step-after"),
        )
        panels.append(layer.properties(height=PANEL_HEIGHT, title=name))
    return finish(alt.vconcat(*panels, spacing=10), look) if panels else nothing_spec(look)


__all__ = [
    "EventMark",
    "RuleTrace",
    "Span",
    "linked_panels",
    "metric_chart",
    "rule_traces",
    "score_chart",
    "spark",
]
