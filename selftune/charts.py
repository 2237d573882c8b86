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
    OUTCOME_SHAPES,
    TIME_FORMAT,
    ChartView,
    Columns,
    JsonDict,
    Look,
    Outcome,
    Say,
    base_config,
    clock_text,
    number,
    outcome_colours,
    span_text,
    wall_times,
)
from selftune.domain import Rule, Target
from selftune.downsample import Buckets

PANEL_HEIGHT = 96
STRIP_HEIGHT = 36
_AXIS_WIDTH = 44  # every y axis is equally wide, so that the panels' times stand under each other


@dataclass(frozen=True, kw_only=True)
class EventMark:
    """One rule event on a chart: where, what it did in a few words, how it ended."""

    id: str
    t_ms: int
    rule: str
    what: str
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Span:
    """The window of a chart, [start, end). `blind_ms`: from here to the end there are no data yet."""

    start_ms: int
    end_ms: int
    blind_ms: int | None = None


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
    spec = _panels_spec(look, names, strip_at, _event_words(say) if marked else (), say("chart.strip_title"))
    rows = [(i, limit, text) for i, m in enumerate(metrics) for limit, text in _limits(targets.get(m))]
    goals = {"panel": [r[0] for r in rows], "v": [r[1] for r in rows], "label": [r[2] for r in rows]}
    where = span_text(span.start_ms, span.end_ms, look.zone)
    return ChartView(
        spec=spec,
        datasets={
            "buckets": _bucket_columns(buckets, metrics, look.zone),
            "goals": goals,
            "events": _event_columns(events, span, look, say),
            **_span_columns(span, look.zone),
        },
        alt=say("chart.panels_alt", metrics=", ".join(names), span=where, events=len(events)),
        sentence=say("chart.panels_sentence", span=where, buckets=len(buckets), samples=buckets.samples)
        + _blind_words(span, say),
        table=_bucket_table(buckets, metrics, look.zone, say),
        selections=("pick",) if marked else (),
    )


@lru_cache(maxsize=128)
def _panels_spec(
    look: Look, names: tuple[str, ...], strip_at: int, words: tuple[str, ...], strip_title: str
) -> JsonDict:
    brush = alt.selection_interval(name="brush", encodings=["x"])
    visible = alt.Scale(domain=brush)
    last = len(names) - 1
    panels = [
        _panel(look, i, name, words, visible, top=i == 0, bottom=i == last) for i, name in enumerate(names)
    ]
    x = _x()
    line = (
        alt.Chart(alt.NamedData("buckets"))
        .mark_line(color=look.colours.muted, strokeWidth=1)
        .encode(x=x, y=alt.Y(f"v{strip_at}:Q", axis=None, scale=alt.Scale(zero=False)))
    )
    strip = alt.layer(_span_layer(x), line.add_params(brush)).properties(
        height=STRIP_HEIGHT, title=alt.TitleParams(strip_title, fontSize=12, fontWeight="normal")
    )
    return _finish(alt.vconcat(*panels, strip, spacing=10), look)


def _panel(
    look: Look, i: int, name: str, words: tuple[str, ...], visible: alt.Scale, *, top: bool, bottom: bool
) -> Any:
    x = _x(visible, labels=bottom)
    layers: list[Any] = [
        _span_layer(x),
        _band(look, i, x),
        _blind_layer(look, x),
        *_goal_layers(look, i),
        _mean(look, i, x),
    ]
    if words:
        layers.append(_event_rules(x))
    if top and words:
        layers.append(_event_markers(look, words, x, pick=True))
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
        look, _event_words(say) if marked else (), (say("chart.mean"), say("chart.low"), say("chart.high"))
    )
    where = span_text(span.start_ms, span.end_ms, look.zone)
    newest = _newest(buckets, metric)
    goal = " · ".join(text for _, text in _limits(target)) or say("chart.no_target")
    return ChartView(
        spec=spec,
        datasets={
            "buckets": _bucket_columns(buckets, (metric,), look.zone),
            "goals": {
                "panel": [0] * len(_limits(target)),
                "v": [v for v, _ in _limits(target)],
                "label": [t for _, t in _limits(target)],
            },
            "events": _event_columns(events, span, look, say),
            "newest": {
                "t": wall_times([newest[0]] if newest else [], look.zone),
                "v": [newest[1]] if newest else [],
                "label": [number(newest[1])] if newest else [],
            },
            **_span_columns(span, look.zone),
        },
        alt=say(
            "chart.metric_alt",
            metric=name,
            span=where,
            value=number(newest[1] if newest else None),
            goal=goal,
        ),
        sentence=say("chart.metric_sentence", span=where, goal=goal) + _blind_words(span, say),
        table=_bucket_table(buckets, (metric,), look.zone, say),
    )


@lru_cache(maxsize=64)
def _metric_spec(look: Look, words: tuple[str, ...], hover: tuple[str, str, str]) -> JsonDict:
    x = _x()
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
        _span_layer(x),
        _band(look, 0, x),
        _blind_layer(look, x),
        *_goal_layers(look, 0),
        _mean(look, 0, x),
        probe,
        *([_event_rules(x), _event_markers(look, words, x)] if words else []),
        newest.mark_point(filled=True, size=60, color=look.colours.line, opacity=1),
        newest.mark_text(dy=-11, align="right", fontWeight=600, color=look.colours.text).encode(
            text="label:N"
        ),
    )
    return _finish(chart.properties(height=170 if look.narrow else 220), look)


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
            **_span_columns(span, look.zone),
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
    y = alt.Y("v:Q", title=None, scale=alt.Scale(zero=False), axis=_y_axis("d"))
    reach = alt.Chart(alt.NamedData("reach")).mark_point(opacity=0).encode(y="v:Q")
    x = _x()
    chart = alt.layer(
        _span_layer(x),
        reach,
        _blind_layer(look, x),
        base.mark_line(color=c.line, strokeWidth=2).encode(x=x, y=y),
    )
    return _finish(chart.properties(height=110), look)


def spark(buckets: Buckets, metric: str, *, met: bool | None, look: Look, say: Say) -> ChartView:
    """A line of a few pixels for a card: green on target, vermilion off target, blue unknown."""
    name = say.metric(metric)
    values = buckets.mean.get(metric, np.empty(0, np.float32))
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (None, None)
    words = {"metric": name, "low": number(low), "high": number(high)}
    return ChartView(
        spec=_spark_spec(look, met),
        datasets={"buckets": _bucket_columns(buckets, (metric,), look.zone)},
        alt=say("chart.spark_alt", **words),
        sentence=say("chart.spark_sentence", **words),
        table=_bucket_table(buckets, (metric,), look.zone, say),
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
    return _finish(line.properties(height=44), look)


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
            **_span_columns(span, look.zone),
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
        y = alt.Y("v:Q", title=None, scale=alt.Scale(zero=False), axis=_y_axis())
        x = _x(labels=i == len(names) - 1)
        steps = alt.Chart(alt.NamedData("steps")).transform_filter(here).encode(x=x, y=y)
        layer = alt.layer(
            _span_layer(x),
            bounds.mark_rect(color=c.shade, opacity=c.shade_opacity).encode(y="lo:Q", y2="hi:Q"),
            bounds.mark_rule(color=c.muted, strokeDash=[4, 3]).encode(y="lo:Q"),
            bounds.mark_rule(color=c.muted, strokeDash=[4, 3]).encode(y="hi:Q"),
            steps.mark_line(color=c.line, strokeWidth=2, interpolate="step-after"),
        )
        panels.append(layer.properties(height=PANEL_HEIGHT, title=name))
    return _finish(alt.vconcat(*panels, spacing=10), look) if panels else nothing_spec(look)


# ------------------------------------------------------------------------------- pieces
def nothing_spec(look: Look) -> JsonDict:
    """A specification that draws nothing, for a chart without a single panel."""
    return _finish(alt.Chart(alt.NamedData("nothing")).mark_point().properties(height=20), look)


def _finish(chart: Any, look: Look) -> JsonDict:
    spec: JsonDict = chart.to_dict()
    spec["config"] = base_config(look)
    # Said here and not in `config`: where it is missing Streamlit adds 20 px of its own below.
    spec["padding"] = {"left": 2, "right": 6, "top": 4, "bottom": 2}
    return spec


def _x(scale: alt.Scale | None = None, *, labels: bool = True) -> alt.X:
    axis = alt.Axis(title=None, format=TIME_FORMAT, labels=labels, ticks=labels)
    if scale is None:
        return alt.X("t:T", axis=axis, title=None)
    return alt.X("t:T", axis=axis, title=None, scale=scale)


def _y_axis(format_: str = "~g") -> alt.Axis:
    return alt.Axis(title=None, format=format_, minExtent=_AXIS_WIDTH, maxExtent=_AXIS_WIDTH)


def _band(look: Look, i: int, x: alt.X) -> Any:
    c = look.colours
    return (
        alt.Chart(alt.NamedData("buckets"))
        .mark_area(color=c.band, opacity=c.band_opacity, clip=True)
        .encode(
            x=x, y=alt.Y(f"l{i}:Q", title=None, scale=alt.Scale(zero=False), axis=_y_axis()), y2=f"h{i}:Q"
        )
    )


def _mean(look: Look, i: int, x: alt.X) -> Any:
    y = alt.Y(f"v{i}:Q", title=None, scale=alt.Scale(zero=False), axis=_y_axis())
    line = alt.Chart(alt.NamedData("buckets")).mark_line(
        color=look.colours.line, strokeWidth=1.5, clip=True, invalid="break-paths-show-domains"
    )
    return line.encode(x=x, y=y)


def _goal_layers(look: Look, i: int) -> list[Any]:
    """The target as a dashed line with its limit written on it; a halo keeps it readable on the band."""
    c = look.colours
    goals = alt.Chart(alt.NamedData("goals")).transform_filter(f"datum.panel === {i}").encode(y="v:Q")
    text = goals.encode(x=alt.value(0), text="label:N")
    place: JsonDict = {"align": "left", "baseline": "bottom", "dx": 3, "dy": -2, "fontSize": 11}
    return [
        goals.mark_rule(color=c.text, strokeDash=[6, 4], strokeWidth=1.2),
        text.mark_text(color=c.ground, stroke=c.ground, strokeWidth=3, opacity=0.8, **place),
        text.mark_text(color=c.text, **place),
    ]


def _event_rules(x: alt.X) -> Any:
    # The ink comes with the data: a second colour scale without a legend would take the markers' legend away.
    return (
        alt.Chart(alt.NamedData("events"))
        .mark_rule(strokeWidth=1.3, opacity=0.75, clip=True)
        .encode(x=x, color=alt.Color("ink:N", scale=None))
    )


def _event_markers(look: Look, words: tuple[str, ...], x: alt.X, *, pick: bool = False) -> Any:
    """Markers at the panel's top edge: colour and shape and (in the legend) word."""
    codes = [o.value for o in Outcome]
    stroke, fill = outcome_colours(look.colours)
    labels = ",".join(f'"{code}":{_quoted(word)}' for code, word in zip(codes, words, strict=False))
    legend = alt.Legend(title=None, labelExpr=f"({{{labels}}})[datum.label]", symbolSize=90)
    markers = (
        alt.Chart(alt.NamedData("events"))
        .mark_point(size=110, strokeWidth=2.2, opacity=1, clip=False)
        .encode(
            x=x,
            y=alt.value(0),
            stroke=alt.Stroke("outcome:N", scale=alt.Scale(domain=codes, range=stroke), legend=legend),
            fill=alt.Fill("outcome:N", scale=alt.Scale(domain=codes, range=fill), legend=legend),
            shape=alt.Shape(
                "outcome:N",
                scale=alt.Scale(domain=codes, range=[OUTCOME_SHAPES[o] for o in Outcome]),
                legend=legend,
            ),
            tooltip=[
                alt.Tooltip("when:N", title=" "),
                alt.Tooltip("what:N", title=words[-2]),
                alt.Tooltip("word:N", title=words[-1]),
            ],
        )
    )
    if not pick:
        return markers
    return markers.add_params(alt.selection_point(name="pick", fields=["id"]))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _span_layer(x: alt.X) -> Any:
    """Two unseen points at the window's ends, so that an empty stretch keeps its place on the axis."""
    return alt.Chart(alt.NamedData("window")).mark_point(opacity=0, clip=True).encode(x=x)


def _blind_layer(look: Look, x: alt.X) -> Any:
    """The stretch without data, hatched: it must not look like a quiet stretch."""
    ink, clear = look.colours.muted, "transparent"
    stops = [
        {"offset": round((k + edge) / 24, 4), "color": ink if k % 2 else clear}
        for k in range(24)
        for edge in (0, 0.999)
    ]
    hatch = {"gradient": "linear", "x1": 0, "y1": 0, "x2": 1, "y2": 1, "stops": stops}
    return (
        alt.Chart(alt.NamedData("blind"))
        .mark_rect(color=hatch, opacity=0.28, clip=True)
        .encode(x=x, x2="t2:T")
    )


# ------------------------------------------------------------------------------- data
def _bucket_columns(buckets: Buckets, metrics: Sequence[str], zone: str) -> Columns:
    columns: dict[str, Any] = {"t": wall_times(buckets.t_ms, zone)}
    for i, m in enumerate(metrics):
        blank = np.full(len(buckets), np.nan, np.float32)
        columns[f"v{i}"] = buckets.mean.get(m, blank)
        columns[f"l{i}"] = buckets.lo.get(m, blank)
        columns[f"h{i}"] = buckets.hi.get(m, blank)
    return columns


def _bucket_table(
    buckets: Buckets, metrics: Sequence[str], zone: str, say: Say
) -> Mapping[str, Sequence[Any]]:
    table: dict[str, Sequence[Any]] = {
        say("chart.time"): [str(t).replace("T", " ")[:19] for t in wall_times(buckets.t_ms, zone)]
    }
    for m in metrics:
        name = say.metric(m)
        for word, column in (("mean", buckets.mean), ("low", buckets.lo), ("high", buckets.hi)):
            values = column.get(m, np.full(len(buckets), np.nan, np.float32))
            table[f"{name} · {say(f'chart.{word}')}"] = np.round(values.astype(np.float64), 4).tolist()
    return table


def _event_columns(events: Sequence[EventMark], span: Span, look: Look, say: Say) -> Columns:
    inside = [e for e in events if span.start_ms <= e.t_ms < span.end_ms]
    ink = dict(zip(Outcome, outcome_colours(look.colours)[0], strict=True))
    return {
        "t": wall_times([e.t_ms for e in inside], look.zone),
        "id": [e.id for e in inside],
        "rule": [e.rule for e in inside],
        "what": [e.what for e in inside],
        "outcome": [e.outcome.value for e in inside],
        "word": [say(f"chart.outcome_{e.outcome.value}") for e in inside],
        "ink": [ink[e.outcome] for e in inside],
        "when": [clock_text(e.t_ms, look.zone) for e in inside],
    }


def _event_words(say: Say) -> tuple[str, ...]:
    """The four outcomes' words, then the two headings of the tooltip."""
    return (*(say(f"chart.outcome_{o.value}") for o in Outcome), say("chart.change"), say("chart.outcome"))


def _blind_words(span: Span, say: Say) -> str:
    """One more sentence where the picture ends before the window does."""
    return "" if span.blind_ms is None else " " + say("chart.blind")


def _span_columns(span: Span, zone: str) -> dict[str, Columns]:
    blind = span.blind_ms is not None and span.blind_ms < span.end_ms
    start = span.blind_ms if blind and span.blind_ms is not None else span.end_ms
    return {
        "window": {"t": wall_times([span.start_ms, span.end_ms], zone)},
        "blind": {
            # Without a blind stretch its width is nothing; an empty dataset would make Vega complain.
            "t": wall_times([max(start, span.start_ms)], zone),
            "t2": wall_times([span.end_ms], zone),
        },
    }


def _limits(target: Target | None) -> list[tuple[float, str]]:
    """The dashed lines of a target with their labels, '≤ 0.05' and '≥ 0.24'."""
    if target is None:
        return []
    sides = ((target.max, "≤"), (target.min, "≥"))
    return [(v, f"{sign} {number(v)}") for v, sign in sides if v is not None]


def _newest(buckets: Buckets, metric: str) -> tuple[int, float] | None:
    values = buckets.mean.get(metric)
    if values is None:
        return None
    ok = np.flatnonzero(np.isfinite(values))
    return (int(buckets.t_ms[ok[-1]]), float(values[ok[-1]])) if len(ok) else None


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
