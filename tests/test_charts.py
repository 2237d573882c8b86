"""Charts: every specification is one that Vega draws, in every look and state; and what the data say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import altair as alt
import numpy as np
import pytest
import vl_convert as vlc

from selftune.backtest_charts import GainRow, ScoreLine, gain_rows, score_curves
from selftune.backtest_result import Curve, Interval
from selftune.chart_kit import Look, Outcome, clock_text, number, outcome_colours, wall_times
from selftune.chart_parts import value_axis
from selftune.charts import Span, linked_panels, metric_chart
from selftune.downsample import downsample
from selftune.effect_charts import forest, receipt
from selftune.series import Series
from tests.chart_cases import STATES, T0, TARGETS, charts, effects, events, looks, say_in, series, span


@pytest.mark.parametrize("look", looks(), ids=lambda k: f"{k.layout}-{k.language}-{k.theme}")
def test_every_chart_compiles(look: Look) -> None:
    """Vega-Lite itself compiles each specification: a wrong one is a silently blank chart in a browser."""
    say = say_in(look.language)
    seen: set[int] = set()  # specifications are shared by the states, and each is compiled once
    for state in STATES:
        for name, view in charts(state, look, say):
            if id(view.spec) not in seen:
                seen.add(id(view.spec))
                assert vlc.vegalite_to_vega(view.self_contained())["marks"], (name, state)
    assert len(seen) >= 12


@pytest.mark.parametrize(("state", "look"), list(zip(STATES, looks()[::2], strict=True)), ids=str)
def test_every_chart_is_drawn(state: str, look: Look) -> None:
    """Drawing raises on what compiling does not see: an expression, a shape, a gradient."""
    for name, view in charts(state, look, say_in(look.language)):
        svg = vlc.vegalite_to_svg(view.self_contained())
        assert svg.startswith("<svg"), name
        assert "NaN" not in svg and "undefined" not in svg, (name, state)


def test_every_chart_has_its_words() -> None:
    for look in looks():
        for state in STATES:
            for name, view in charts(state, look, say_in(look.language)):
                for text in (view.alt, view.sentence, *view.table):
                    assert text and "{" not in text and "(code " not in text and "(코드 " not in text, (
                        name,
                        text,
                    )
                lengths = {len(column) for column in view.table.values()}
                assert len(lengths) == 1, (name, state, lengths)


def test_specification_is_shared_and_only_data_change() -> None:
    look, say = Look(), say_in("ko")
    first = dict(charts("full", look, say))
    second = dict(charts("one", look, say))
    assert first["panels"].spec is second["panels"].spec
    for name, view in first.items():
        assert "datasets" not in view.spec, f"{name} carries data of its own"


def test_no_dataset_moves_that_the_specification_does_not_know() -> None:
    """In a browser the first renewal of such a dataset is an error; an empty one is never renewed."""
    for name, view in charts("full", looks()[0], say_in("en")):
        spec = json.dumps(view.spec)
        unknown = [
            d for d, c in view.datasets.items() if f'"name": "{d}"' not in spec and any(map(len, c.values()))
        ]
        assert unknown == [], name


def test_no_specification_asks_another_origin() -> None:
    for look in looks()[:2]:
        for _, view in charts("full", look, say_in(look.language)):
            text = json.dumps({k: v for k, v in view.spec.items() if k != "$schema"})
            assert "http" not in text


def test_a_verdict_has_colour_and_shape_and_word() -> None:
    view = metric_chart(
        downsample(series("full"), ("risk_band",), T0, T0 + 600_000), "risk_band", None, events("full"),
        span("full"), look=Look(), say=say_in("en"),
    )  # fmt: skip
    scales = {s["name"]: s for s in vlc.vegalite_to_vega(view.self_contained())["scales"]}
    assert scales["stroke"]["range"] == outcome_colours(Look().colours)[0]
    assert (
        len(set(scales["shape"]["range"])) == 4 and scales["fill"]["range"][2] != scales["stroke"]["range"][2]
    )
    svg = vlc.vegalite_to_svg(view.self_contained())
    assert all(word in svg for word in ("Confirmed", "Rolled back", "Undecided", "Being watched"))


def test_without_events_there_is_no_legend_of_events() -> None:
    for marks, there in (([], False), (events("full"), True)):
        view = metric_chart(
            downsample(series("full"), ("risk_band",), T0, T0 + 600_000), "risk_band", None, marks,
            span("full"), look=Look(), say=say_in("en"),
        )  # fmt: skip
        assert ("Rolled back" in vlc.vegalite_to_svg(view.self_contained())) is there


def test_event_outside_the_window_is_not_drawn() -> None:
    narrow = Span(start_ms=T0, end_ms=T0 + 1000)
    buckets = downsample(series("full"), ("risk_band",), T0, T0 + 1000)
    view = linked_panels(buckets, TARGETS, events("full"), narrow, look=Look(), say=say_in("ko"))
    assert view.datasets["events"]["id"] == ["e0"]


def test_the_strip_never_calls_the_server() -> None:
    """Only `pick` is a selection for the server; the brush stays in the browser."""
    view = dict(charts("full", Look(), say_in("ko")))["panels"]
    assert view.selections == ("pick",)
    assert {p["name"] for p in view.spec["params"]} == {"brush", "pick"}


def test_forest_puts_better_to_the_right_whatever_the_direction() -> None:
    down, up = effects("full")[0], effects("full")[1]
    rows = forest([down, up], look=Look(), say=say_in("ko")).datasets["rows"]
    assert rows["x"] == pytest.approx([1.5, -1.5])
    assert all(lo < x < hi for lo, x, hi in zip(rows["lo"], rows["x"], rows["hi"], strict=True))


def test_too_few_samples_are_never_drawn_as_confirmed() -> None:
    view = forest(effects("full")[:1], look=Look(), say=say_in("en"))
    assert view.datasets["rows"]["outcome"] == [Outcome.INCONCLUSIVE.value]
    assert "n = 120 < 300" in view.datasets["rows"]["text"][0]


def test_a_candidate_of_a_backtest_looks_alike_in_both_charts() -> None:
    """The chart of gains leaves "doing nothing" out: what comes after it must not take its colour."""
    look, say = looks()[0], say_in("en")
    gain, curve = (
        Interval(mean=0.02, lo=-0.01, hi=0.05),
        Curve(ts_ms=(T0,), mean=(0.8,), lo=(0.7,), hi=(0.9,)),
    )
    names = ("today", "nothing", "draft")
    lines = [ScoreLine(name=n, place=k, curve=curve) for k, n in enumerate(names)]
    gains = [GainRow(name=n, place=k, gain=gain) for k, n in enumerate(names) if n != "nothing"]
    drawn = [score_curves(lines, [], Span(start_ms=T0, end_ms=T0 + 60_000), look=look, say=say),
             gain_rows(gains, look=look, say=say)]  # fmt: skip
    scales = [dict(zip(s["domain"], s["range"], strict=True))
              for view in drawn for s in coloured(view.spec)]  # fmt: skip
    assert len(scales) >= 2 and len({s["draft"] for s in scales}) == 1
    assert all(s["draft"] != s["today"] for s in scales)


def coloured(spec: object) -> Iterator[dict[str, list[str]]]:
    """The scales of all colour channels of a specification."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            if key in ("color", "stroke") and isinstance(value, dict) and "domain" in value.get("scale", {}):
                yield value["scale"]
            yield from coloured(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from coloured(value)


def test_receipt_adds_up() -> None:
    view = receipt({"a": 3.2, "b": -0.9}, look=Look(), say=say_in("en"))
    assert view.datasets["rows"]["v"] == pytest.approx([3.2, -0.9, 2.3])
    assert view.datasets["rows"]["text"] == ["▲ +3.2", "▼ −0.9", "▲ +2.3"]


# ------------------------------------------------------------------------------- numbers and times
def test_wall_time_is_the_zone_of_the_settings() -> None:
    assert str(wall_times([0], "Asia/Seoul")[0]) == "1970-01-01T09:00:00.000"
    assert clock_text(T0, "Asia/Seoul") == str(wall_times([T0], "Asia/Seoul")[0])[5:19].replace("T", " ")


def test_wall_time_follows_the_clock_change_inside_the_window() -> None:
    hour = 3_600_000
    spring = 1_774_746_000_000  # 2026-03-29 01:00 UTC, when Berlin jumps from 02:00 to 03:00
    got = [str(t)[11:16] for t in wall_times([spring - hour, spring, spring + hour], "Europe/Berlin")]
    assert got == ["01:00", "03:00", "04:00"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (0.0684, "0.068"), (-0.008, "−0.008"), (-0.0001, "0.000"),
     (1234.5, "1,234"), (123.456, "123.5")],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


# ------------------------------------------------------------------------------- downsampling
def slow_buckets(s: Series, metric: str, width: int, n: int) -> list[tuple[float, float, float]]:
    out = []
    for k in range(n):
        part = s.between(int(s.ts_ms[0]) + k * width, int(s.ts_ms[0]) + (k + 1) * width).values[metric]
        part = part[np.isfinite(part)]
        out.append((part.mean(), part.min(), part.max()) if len(part) else (np.nan,) * 3)
    return out


def test_buckets_equal_the_plain_computation() -> None:
    rng = np.random.default_rng(5)
    ts = T0 + np.cumsum(rng.integers(150, 260, 5000))
    values = rng.standard_normal(5000)
    values[rng.random(5000) < 0.3] = np.nan
    s = Series(ts_ms=ts, values={"m": values})
    b = downsample(s, ("m",), int(ts[0]), int(ts[-1]) + 1, 100)
    slow = np.array(slow_buckets(s, "m", b.width_ms, 100))
    assert len(b) == 100
    for column, k in ((b.mean, 0), (b.lo, 1), (b.hi, 2)):
        np.testing.assert_allclose(column["m"], slow[:, k], rtol=1e-6, atol=1e-6)


def test_no_spike_is_lost() -> None:
    values = np.zeros(100_000)
    values[73_211] = 9.0
    s = Series(ts_ms=T0 + 200 * np.arange(100_000), values={"m": values})
    b = downsample(s, ("m",), T0, T0 + 20_000_000)
    assert len(b) <= 800 and b.hi["m"].max() == 9.0 and b.lo["m"].min() == 0.0


def test_a_gap_breaks_the_line_and_jitter_does_not() -> None:
    ts = T0 + 200 * np.arange(20_000) + np.random.default_rng(1).integers(-90, 90, 20_000)
    keep = (ts < T0 + 1_000_000) | (ts > T0 + 1_500_000)
    s = Series(ts_ms=ts[keep], values={"m": np.ones(int(keep.sum()))})
    b = downsample(s, ("m",), T0 - 1000, T0 + 4_000_000)
    broken = np.flatnonzero(np.isnan(b.mean["m"]))
    assert len(broken) == 1 and T0 + 1_000_000 <= b.t_ms[broken[0]] <= T0 + 1_500_000


def test_few_samples_stay_as_they_are() -> None:
    s = Series(ts_ms=np.array([T0, T0 + 200]), values={"m": np.array([1.0, 2.0])})
    b = downsample(s, ("m", "absent"), T0, T0 + 1000)
    assert b.t_ms.tolist() == [T0, T0 + 200] and b.mean["m"].tolist() == [1.0, 2.0]
    assert np.isnan(b.mean["absent"]).all()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0684, "0.068"),
        (9.8765, "9.877"),
        (25.0, "25"),
        (80.659, "80.7"),
        (-31.25, "−31.2"),
        (1204.4, "1,204"),
    ],
)
def test_a_figure_has_as_many_decimals_as_it_needs(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize("highest", [0.15, 31.0, 413.0, 2000.0])
def test_no_axis_speaks_in_exponents(highest: float) -> None:
    data = alt.Data(values=[{"y": 0}, {"y": highest}])
    y = alt.Y("y:Q", axis=value_axis())
    svg = vlc.vegalite_to_svg(alt.Chart(data).mark_point().encode(y=y).properties(height=100).to_dict())
    assert re.findall(r">[\d.,]+</text>", svg) and "e+" not in svg
