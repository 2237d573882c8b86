"""Charts of a backtest: the score over time with the stretches nobody can know, and scores with intervals.

Scores are drawn in points (percent). Where the record has no support there is hatching, never a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np

from selftune.backtest_result import Curve, Interval
from selftune.chart_kit import (
    CATEGORY_DASHES,
    CATEGORY_SHAPES,
    ChartView,
    JsonDict,
    Look,
    Say,
    clock_text,
    number,
    span_text,
    wall_times,
)
from selftune.chart_parts import Span, blind_layer, finish, span_layer, time_axis, window_columns, zero_ticks

MOST_CURVES = 5
ROW_HEIGHT = 44
BREAK = 4  # so many usual distances between two known points are a gap
Places = tuple[tuple[str, int], ...]  # names, each with its place


@dataclass(frozen=True, kw_only=True)
class ScoreLine:
    """One candidate's or baseline's score over time, under the name that a reader sees.

    `place`: its number among all that are compared; the same one looks alike in every chart.
    """

    name: str
    place: int
    curve: Curve


@dataclass(frozen=True, kw_only=True)
class GainRow:
    """What one candidate gains over doing nothing, at the same moments; None = the record cannot tell.

    `place`: as in `ScoreLine`.
    """

    name: str
    place: int
    gain: Interval | None


# ------------------------------------------------------------------------------- over time
def score_curves(
    rows: Sequence[ScoreLine], unknown: Sequence[tuple[int, int]], span: Span, *, look: Look, say: Say
) -> ChartView:
    """The scores over time; the first with its band. `unknown`: stretches (ms) drawn hatched."""
    rows = rows[:MOST_CURVES]
    data: dict[str, list[Any]] = {k: [] for k in ("ms", "v", "lo", "hi", "name")}
    for row in rows:
        for ms, v, lo, hi in _drawn(row.curve):
            for key, x in (("ms", ms), ("v", _points(v)), ("lo", _points(lo)), ("hi", _points(hi))):
                data[key].append(x)
            data["name"].append(row.name)
    where = span_text(span.start_ms, span.end_ms, look.zone)
    first = rows[0].name if rows else None
    names = ", ".join(r.name for r in rows) or "–"
    return ChartView(
        spec=_curves_spec(look, _places(rows), say("backtest.chart_score")),
        datasets={
            "curves": {"t": wall_times(data["ms"], look.zone), **{k: data[k] for k in ("v", "name")}},
            "band": _band(data, first, look),
            **window_columns(span, look.zone),
            **_hatched(unknown, span, look),
        },
        alt=say("backtest.chart_curves_alt", span=where, names=names, n=len(unknown)),
        sentence=say("backtest.chart_curves", span=where)
        + (" " + say("backtest.chart_hatched") if unknown else ""),
        table={
            say("chart.time"): [clock_text(ms, look.zone) for ms in data["ms"]],
            say("backtest.col_name"): data["name"],
            say("backtest.col_score"): [number(v, 1) for v in data["v"]],
        },
    )


def _drawn(curve: Curve) -> Iterator[tuple[int, float | None, float | None, float | None]]:
    """The known points, with one empty point wherever the line must break."""
    at = [k for k, v in enumerate(curve.mean) if v is not None]
    ts = [curve.ts_ms[k] for k in at]
    usual = float(np.median(np.diff(ts))) if len(ts) > 1 else 0.0
    for before, k in zip([None, *at], at, strict=False):
        if before is not None and curve.ts_ms[k] - curve.ts_ms[before] > BREAK * usual:
            yield (curve.ts_ms[before] + curve.ts_ms[k]) // 2, None, None, None
        yield curve.ts_ms[k], curve.mean[k], _at(curve.lo, k), _at(curve.hi, k)


def _at(values: Sequence[float | None], k: int) -> float | None:
    return values[k] if k < len(values) else None


def _points(x: float | None) -> float | None:
    return None if x is None else 100 * x


def _band(data: dict[str, list[Any]], first: str | None, look: Look) -> dict[str, Any]:
    at = [i for i, name in enumerate(data["name"]) if name == first]
    picked = {k: [data[k][i] for i in at] for k in ("ms", "lo", "hi")}
    return {"t": wall_times(picked["ms"], look.zone), "lo": picked["lo"], "hi": picked["hi"]}


def _hatched(unknown: Sequence[tuple[int, int]], span: Span, look: Look) -> dict[str, Any]:
    """The stretches inside the window; without any, one of no width: Vega complains of an empty dataset."""
    inside = [(max(a, span.start_ms), min(b, span.end_ms)) for a, b in unknown]
    inside = [(a, b) for a, b in inside if a < b] or [(span.end_ms, span.end_ms)]
    starts, ends = [a for a, _ in inside], [b for _, b in inside]
    return {"blind": {"t": wall_times(starts, look.zone), "t2": wall_times(ends, look.zone)}}


@lru_cache(maxsize=64)
def _curves_spec(look: Look, names: Places, title: str) -> JsonDict:
    c = look.colours
    x = time_axis()
    y = alt.Y("v:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(minExtent=44))
    band = (
        alt.Chart(alt.NamedData("band"))
        .mark_area(color=c.band, opacity=c.band_opacity, invalid="break-paths-show-domains")
        .encode(x=x, y=alt.Y("lo:Q", title=title, scale=alt.Scale(zero=False)), y2="hi:Q")
    )
    line = (
        alt.Chart(alt.NamedData("curves"))
        .mark_line(strokeWidth=2, invalid="break-paths-show-domains")
        .encode(
            x=x,
            y=y,
            stroke=_named(names, c.categories, "stroke"),
            strokeDash=_named(names, CATEGORY_DASHES, "dash"),
        )
    )
    chart = alt.layer(span_layer(x), blind_layer(look, x), band, line)
    return finish(chart.properties(height=180 if look.narrow else 230), look)


def _places(rows: Sequence[ScoreLine] | Sequence[GainRow]) -> Places:
    return tuple((r.name, r.place) for r in rows)


def _named(names: Places, values: Sequence[Any], what: str, *, legend: Any = alt.Undefined) -> Any:
    """A channel of the names, each with the colour, dash or shape of its place."""
    picked = [values[i % len(values)] for _, i in names] or list(values[:1])
    kind = {"colour": alt.Color, "stroke": alt.Stroke, "dash": alt.StrokeDash, "shape": alt.Shape}[what]
    shown = alt.Legend(title=None) if legend is alt.Undefined else legend
    return kind("name:N", legend=shown, scale=alt.Scale(domain=[n for n, _ in names], range=picked))


# ------------------------------------------------------------------------------- with intervals
def gain_rows(rows: Sequence[GainRow], *, look: Look, say: Say) -> ChartView:
    """Each gain over doing nothing as a point with its 95 % interval; right of the line is better."""
    figures = [_gain_figure(r, say) for r in rows]
    known = [r for r in rows if r.gain is not None]
    best = max(known, key=lambda r: r.gain.mean if r.gain else 0.0).name if known else "–"
    return ChartView(
        spec=_rows_spec(look, _places(rows), say("backtest.chart_gain")),
        datasets={
            "rows": {
                "row": [*range(len(rows))],
                "name": [r.name for r in rows],
                **{k: [_points(getattr(r.gain, k, None)) for r in rows] for k in ("mean", "lo", "hi")},
                "text": [f"{r.name} · {text}" for r, text in zip(rows, figures, strict=True)],
            },
        },
        alt=say("backtest.chart_rows_alt", best=best, n=len(rows)),
        sentence=say("backtest.chart_rows"),
        table={
            say("backtest.col_name"): [r.name for r in rows],
            say("backtest.col_gain"): figures,
        },
    )


def _gain_figure(r: GainRow, say: Say) -> str:
    """'+6.1 (+3.3 ~ +9.0)', or that nobody can know."""
    if r.gain is None:
        return say("backtest.no_answer")
    mean, lo, hi = (number(100 * v, 1, sign=True) for v in (r.gain.mean, r.gain.lo, r.gain.hi))
    return f"{mean} ({lo} ~ {hi})"


@lru_cache(maxsize=64)
def _rows_spec(look: Look, names: Places, title: str) -> JsonDict:
    c = look.colours
    rows = alt.Chart(alt.NamedData("rows"))
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0))
    axis = alt.Axis(grid=True, tickCount=5, labelExpr="datum.value > 0 ? '+' + datum.label : datum.label")
    x = alt.X("mean:Q", title=title, scale=alt.Scale(padding=14), axis=axis)
    ink = _named(names, c.categories, "colour", legend=None)
    shape = _named(names, CATEGORY_SHAPES, "shape", legend=None)
    words = rows.encode(x=alt.value(2), y=y, text="text:N")
    chart = alt.layer(
        zero_ticks(rows, y, c.text),
        rows.mark_rule(strokeWidth=3, yOffset=10).encode(
            x=alt.X("lo:Q", title=title), x2="hi:Q", y=y, color=ink
        ),
        rows.mark_point(size=110, filled=True, opacity=1, yOffset=10).encode(
            x=x, y=y, color=ink, shape=shape
        ),
        words.mark_text(align="left", dy=-9, color=c.ground, stroke=c.ground, strokeWidth=4),
        words.mark_text(align="left", dy=-9, color=c.text),
    )
    return finish(chart.properties(height={"step": ROW_HEIGHT}), look)


__all__ = ["GainRow", "ScoreLine", "gain_rows", "score_curves"]
