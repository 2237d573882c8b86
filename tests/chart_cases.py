"""Every chart in every state of its data: what the chart tests and the picture tool draw."""

from __future__ import annotations

from collections.abc import Iterator
from zoneinfo import ZoneInfo

import numpy as np

from selftune import catalogue
from selftune.backtest_charts import GainRow, ScoreLine, gain_rows, score_curves
from selftune.backtest_result import Curve, Interval
from selftune.chart_kit import ChartView, Layout, Look, Outcome, Say, Theme
from selftune.charts import (
    EventMark,
    RuleTrace,
    Span,
    linked_panels,
    metric_chart,
    rule_traces,
    score_chart,
    spark,
)
from selftune.domain import Rule, Target
from selftune.downsample import downsample
from selftune.effect_charts import EffectRow, RuleGain, cumulative, forest, receipt, ruler
from selftune.series import Series

T0 = 1_795_300_000_000
METRICS = ("phase_diff", "creative_band", "risk_band", "latency_ms")
TARGETS = {
    "phase_diff": Target(metric="phase_diff", max=0.05),
    "creative_band": Target(metric="creative_band", min=0.24),
    "risk_band": Target(metric="risk_band", min=0.1, max=0.30),
}
RULES = (
    Rule(name="risk_max", init=0.35, min=0.2, max=0.4, lr=0.02),
    Rule(name="creative_min", init=0.22, min=0.18, max=0.35, lr=0.02),
)
STATES = ("empty", "one", "nan", "full")
SAMPLES = {"empty": 0, "one": 1, "nan": 100, "full": 400}


def say_in(language: str) -> Say:
    return Say(language, catalogue.load(), ZoneInfo("Asia/Seoul"))


def looks() -> list[Look]:
    return [
        Look(layout=layout, language=language, theme=theme)
        for layout in Layout
        for language in catalogue.LANGUAGES
        for theme in Theme
    ]


def series(state: str) -> Series:
    n = SAMPLES[state]
    u = np.arange(n) / 5
    wave = 0.3 + 0.02 * np.sin(u / 40) + 0.01 * np.sin(u * 3)
    if state == "nan":
        wave = np.full(n, np.nan)
    return Series(ts_ms=T0 + 200 * np.arange(n), values={m: wave + k / 50 for k, m in enumerate(METRICS)})


def span(state: str) -> Span:
    end = T0 + 200 * max(1, SAMPLES[state])
    return Span(start_ms=T0, end_ms=end + 60_000, blind_ms=end if state == "full" else None)


def events(state: str) -> list[EventMark]:
    if state == "empty":
        return []
    few = list(Outcome)[: 1 if state == "one" else None]
    gap = SAMPLES[state] * 40
    return [
        EventMark(
            id=f"e{k}", t_ms=T0 + k * gap + 100, rule="risk_max", what="risk_max 0.31 → 0.29", outcome=o
        )
        for k, o in enumerate(few)
    ]


def effects(state: str) -> list[EffectRow]:
    middle = None if state == "nan" else -0.012
    rows = [
        EffectRow(
            event="14:02 risk_max 0.31 → 0.29",
            metric=m,
            delta=middle,
            lo=None if middle is None else middle - 0.006,
            hi=None if middle is None else middle + 0.006,
            good=0.008,
            down_is_good=m != "creative_band",
            outcome=o,
            odds=None if middle is None else 40.0,
            n=450 if k else 120,
            n_needed=300,
        )
        for k, (m, o) in enumerate(zip(METRICS, Outcome, strict=False))
    ]
    return {"empty": [], "one": rows[:1]}.get(state, rows)


def backtests(state: str, look: Look, say: Say) -> Iterator[tuple[str, ChartView]]:
    """The charts of a backtest; a name that somebody typed is odd on purpose."""
    n = {"empty": 0, "one": 1}.get(state, 40)
    known = [None if state == "nan" or k % 7 == 3 else 0.8 + k / 400 for k in range(n)]
    low = [None if v is None else v - 0.01 for v in known]
    curve = Curve(
        ts_ms=tuple(T0 + k * 60_000 for k in range(n)), mean=tuple(known), lo=tuple(low), hi=tuple(known)
    )
    names = () if state == "empty" else ('지금 "설정" \\ [0]', "doing nothing")
    window = Span(start_ms=T0, end_ms=T0 + 60_000 * max(1, n))
    unknown = [(T0 + 300_000, T0 + 600_000), (T0 - 10, T0 + 10)] if state in ("full", "nan") else []
    rows = [ScoreLine(name=name, place=k, curve=curve) for k, name in enumerate(names)]
    yield "scores", score_curves(rows, unknown, window, look=look, say=say)
    gain = None if state == "nan" else Interval(mean=0.02, lo=-0.01, hi=0.05)
    gains = [GainRow(name=name, place=k, gain=gain) for k, name in enumerate(names)]
    yield "gains", gain_rows(gains, look=look, say=say)


def charts(state: str, look: Look, say: Say) -> Iterator[tuple[str, ChartView]]:
    """(name, chart) of every builder in one state of the data."""
    window = span(state)
    metrics = () if state == "empty" else METRICS
    buckets = downsample(series(state), metrics, window.start_ms, window.end_ms, 400 if look.narrow else 800)
    marks = events(state)
    n = {"empty": 0, "one": 1}.get(state, 6)
    values = [float("nan") if state == "nan" else 0.35 - k / 100 for k in range(n)]
    times = [T0 + k * 60_000 for k in range(n)]
    yield "panels", linked_panels(buckets, TARGETS, marks, window, look=look, say=say, strip="risk_band")
    yield (
        "metric",
        metric_chart(buckets, "risk_band", TARGETS["risk_band"], marks, window, look=look, say=say),
    )
    yield "bare", metric_chart(buckets, "latency_ms", None, [], window, look=look, say=say)
    score = [None if state == "nan" else v * 2 for v in values]
    yield "score", score_chart(times, score, window, look=look, say=say)
    yield (
        "spark",
        spark(buckets, "risk_band", met={"one": True, "full": False}.get(state), look=look, say=say),
    )
    rules = {"empty": (), "one": RULES[:1]}.get(state, RULES)
    yield (
        "traces",
        rule_traces(
            [RuleTrace(rule=r, t_ms=times, values=values) for r in rules], window, look=look, say=say
        ),
    )
    yield "forest", forest(effects(state), look=look, say=say)
    gains = [RuleGain(rule=r.name, t_ms=times, points=values) for r in rules]
    yield "cumulative", cumulative(gains, window, look=look, say=say)
    now = float("nan") if state == "nan" else 0.31
    yield "ruler", ruler(RULES[0], now, None if state == "one" else 0.29, look=look, say=say)
    points = {"empty": {}, "one": {"risk_band": 2.0}}.get(
        state,
        {"risk_band": 3.2, "creative_band": -0.9, "phase_diff": float("nan") if state == "nan" else 0.4},
    )
    yield "receipt", receipt(points, look=look, say=say)
    yield from backtests(state, look, say)
