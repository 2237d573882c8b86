"""Pieces that the charts are made of: axes, bands, targets, event markers, hatching; and their columns.

Answers "how is one layer drawn, and which columns does it read?". The charts themselves are charts.py's
and effect_charts.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from selftune.chart_kit import (
    OUTCOME_SHAPES,
    TIME_FORMAT,
    Columns,
    JsonDict,
    Look,
    Outcome,
    Say,
    base_config,
    clock_text,
    number,
    outcome_colours,
    wall_times,
)
from selftune.domain import Target
from selftune.downsample import Buckets

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


# ------------------------------------------------------------------------------- pieces
def nothing_spec(look: Look) -> JsonDict:
    """A specification that draws nothing, for a chart without a single panel."""
    return finish(alt.Chart(alt.NamedData("nothing")).mark_point().properties(height=20), look)


def finish(chart: Any, look: Look) -> JsonDict:
    spec: JsonDict = chart.to_dict()
    spec["config"] = base_config(look)
    # Said here and not in `config`: where it is missing Streamlit adds 20 px of its own below.
    spec["padding"] = {"left": 2, "right": 6, "top": 4, "bottom": 2}
    return spec


def zero_ticks(rows: Any, y: alt.Y, ink: str) -> Any:
    """The line at zero in pieces, one a row: it never runs through the words above them."""
    return rows.mark_tick(orient="vertical", size=20, thickness=1.5, yOffset=9, color=ink).encode(
        x=alt.XDatum(0), y=y
    )


def time_axis(scale: alt.Scale | None = None, *, labels: bool = True) -> alt.X:
    axis = alt.Axis(title=None, format=TIME_FORMAT, labels=labels, ticks=labels)
    if scale is None:
        return alt.X("t:T", axis=axis, title=None)
    return alt.X("t:T", axis=axis, title=None, scale=scale)


def value_axis(format_: str = ",~r", *, inside: bool = False) -> alt.Axis:
    """A y axis; `inside` writes its figures on the picture, so that stacked panels fit any width.

    Of stacked panels Streamlit sets the width of the plot alone: what stands beside it would stick out.
    """
    if inside:
        return alt.Axis(title=None, format=format_, minExtent=0, maxExtent=0, labelAlign="left",
                        labelBaseline="bottom", labelPadding=-4)  # fmt: skip
    return alt.Axis(title=None, format=format_, minExtent=_AXIS_WIDTH, maxExtent=_AXIS_WIDTH)


def _panel_scale(room: bool) -> alt.Scale:
    # Room for the words on a target that lies at the edge of the picture; of nothing it makes NaN.
    return alt.Scale(zero=False, padding=12, nice=False) if room else alt.Scale(zero=False)


def has_room(buckets: Buckets, metric: str, target: Target | None) -> bool:
    """True when the panel of this metric has any value or line to draw."""
    values = buckets.mean.get(metric)
    return bool(limits_of(target)) or (values is not None and bool(np.isfinite(values).any()))


def spread_band(look: Look, i: int, x: alt.X, *, room: bool, inside: bool = False) -> Any:
    c = look.colours
    axis, scale = value_axis(inside=inside), _panel_scale(room)
    return (
        alt.Chart(alt.NamedData("buckets"))
        .mark_area(color=c.band, opacity=c.band_opacity, clip=True)
        .encode(x=x, y=alt.Y(f"l{i}:Q", title=None, scale=scale, axis=axis), y2=f"h{i}:Q")
    )


def mean_line(look: Look, i: int, x: alt.X, *, room: bool, inside: bool = False) -> Any:
    y = alt.Y(f"v{i}:Q", title=None, scale=_panel_scale(room), axis=value_axis(inside=inside))
    line = alt.Chart(alt.NamedData("buckets")).mark_line(
        color=look.colours.line, strokeWidth=1.5, clip=True, invalid="break-paths-show-domains"
    )
    return line.encode(x=x, y=y)


def goal_layers(look: Look, i: int, *, right: bool = False) -> list[Any]:
    """The target as a dashed line with its limit written on it; a halo keeps it readable on the band."""
    at, align = (alt.value("width"), "right") if right else (alt.value(0), "left")
    c = look.colours
    goals = alt.Chart(alt.NamedData("goals")).transform_filter(f"datum.panel === {i}").encode(y="v:Q")
    text = goals.encode(x=at, text="label:N")
    place: JsonDict = {
        "align": align,
        "baseline": "bottom",
        "dx": -3 if right else 3,
        "dy": -2,
        "fontSize": 11,
    }
    return [
        goals.mark_rule(color=c.text, strokeDash=[6, 4], strokeWidth=1.2),
        text.mark_text(color=c.ground, stroke=c.ground, strokeWidth=3, opacity=0.8, **place),
        text.mark_text(color=c.text, **place),
    ]


def event_rules(x: alt.X) -> Any:
    # The ink comes with the data: a second colour scale without a legend would take the markers' legend away.
    return (
        alt.Chart(alt.NamedData("events"))
        .mark_rule(strokeWidth=1.3, opacity=0.75, clip=True)
        .encode(x=x, color=alt.Color("ink:N", scale=None))
    )


def event_markers(look: Look, words: tuple[str, ...], x: alt.X, *, pick: bool = False) -> Any:
    """Markers at the panel's top edge: colour and shape and (in the legend) word."""
    codes = [o.value for o in Outcome]
    stroke, fill = outcome_colours(look.colours)
    labels = ",".join(f'"{code}":{quoted(word)}' for code, word in zip(codes, words, strict=False))
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


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def span_layer(x: alt.X) -> Any:
    """Two unseen points at the window's ends, so that an empty stretch keeps its place on the axis."""
    return alt.Chart(alt.NamedData("window")).mark_point(opacity=0, clip=True).encode(x=x)


def blind_layer(look: Look, x: alt.X) -> Any:
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
def bucket_columns(buckets: Buckets, metrics: Sequence[str], zone: str) -> Columns:
    columns: dict[str, Any] = {"t": wall_times(buckets.t_ms, zone)}
    for i, m in enumerate(metrics):
        blank = np.full(len(buckets), np.nan, np.float32)
        columns[f"v{i}"] = buckets.mean.get(m, blank)
        columns[f"l{i}"] = buckets.lo.get(m, blank)
        columns[f"h{i}"] = buckets.hi.get(m, blank)
    return columns


def bucket_table(
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


def event_columns(events: Sequence[EventMark], span: Span, look: Look, say: Say) -> Columns:
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


def event_words(say: Say) -> tuple[str, ...]:
    """The outcomes' words, then the two headings of the tooltip."""
    return (*(say(f"chart.outcome_{o.value}") for o in Outcome), say("chart.change"), say("chart.outcome"))


def blind_words(span: Span, say: Say) -> str:
    """One more sentence where the picture ends before the window does."""
    return "" if span.blind_ms is None else " " + say("chart.blind")


def window_columns(span: Span, zone: str) -> dict[str, Columns]:
    """The data of `span_layer` alone: a browser knows no dataset that its specification never names."""
    return {"window": {"t": wall_times([span.start_ms, span.end_ms], zone)}}


def span_columns(span: Span, zone: str) -> dict[str, Columns]:
    """The data of `span_layer` and `blind_layer`."""
    blind = span.blind_ms is not None and span.blind_ms < span.end_ms
    start = span.blind_ms if blind and span.blind_ms is not None else span.end_ms
    return {
        **window_columns(span, zone),
        "blind": {
            # Without a blind stretch its width is nothing; an empty dataset would make Vega complain.
            "t": wall_times([max(start, span.start_ms)], zone),
            "t2": wall_times([span.end_ms], zone),
        },
    }


def limits_of(target: Target | None) -> list[tuple[float, str]]:
    """The dashed lines of a target with their labels, '≤ 0.05' and '≥ 0.24'."""
    if target is None:
        return []
    sides = ((target.max, "≤"), (target.min, "≥"))
    return [(v, f"{sign} {number(v)}") for v, sign in sides if v is not None]


def newest_of(buckets: Buckets, metric: str) -> tuple[int, float] | None:
    values = buckets.mean.get(metric)
    if values is None:
        return None
    ok = np.flatnonzero(np.isfinite(values))
    return (int(buckets.t_ms[ok[-1]]), float(values[ok[-1]])) if len(ok) else None
