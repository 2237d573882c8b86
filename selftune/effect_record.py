"""An effect and its verdict as a decision's record holds them: written, and read back as they were decided.

Answers "which numbers was this judged by?". Measures and decides nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftune.domain import (
    DataState,
    Decision,
    Effect,
    JsonDict,
    MetricEffect,
    Reason,
    Verdict,
    VerdictReport,
    Window,
)

LARGEST = 1.7976931348623157e308  # that a float can hold
EFFECT_FIELDS = (
    "delta", "lo", "hi", "sigma", "nu", "odds", "d_raw", "pre_mean", "post_mean", "n_pre", "n_post",
    "n_eff", "candidate", "pre_s", "post_s", "history_s", "missing_share",
)  # fmt: skip


def effect_json(effect: Effect | None) -> JsonDict | None:
    """The whole effect as plain JSON: per metric the interval, odds, counts and the plain difference."""
    if effect is None:
        return None
    return {
        "event_ms": effect.event_ms,
        "end_ms": effect.window.end_ms,
        "settle_s": effect.settle_s,
        "estimator": effect.estimator,
        "final": effect.final,
        "metrics": {
            m: {
                "state": e.state.value,
                **{k: getattr(e, k) for k in EFFECT_FIELDS},
                "reason": e.reason.as_json() if e.reason else None,
            }
            for m, e in effect.metrics.items()
        },
    }


def recorded(d: Decision) -> tuple[Effect | None, VerdictReport]:
    """The effect and the verdict as they were decided: the same numbers everywhere. No effect: None."""
    name = str(d.data.get("verdict"))
    reasons = tuple(r for x in _list(d.data.get("reasons")) if (r := _reason(x)) is not None)
    report = VerdictReport(
        verdict=Verdict(name) if name in Verdict.__members__ else Verdict.INCONCLUSIVE,
        reasons=reasons or (Reason("window_open"),),
        score_gain=_number(d.data.get("score_gain")),
        p_gain=_number(d.data.get("p_gain")),
        p_loss=_number(d.data.get("p_loss")),
    )
    return _effect(d.data.get("effect"), tuple(str(k) for k in _list(d.data.get("keys")))), report


def _effect(data: Any, keys: tuple[str, ...]) -> Effect | None:
    if not isinstance(data, Mapping) or not isinstance(data.get("metrics"), Mapping):
        return None
    start = int(_number(data.get("event_ms")) or 0)
    return Effect(
        keys=keys,
        event_ms=start,
        window=Window(start_ms=start, end_ms=int(_number(data.get("end_ms")) or start)),
        settle_s=_number(data.get("settle_s")) or 0.0,
        metrics={str(m): _metric(str(m), e) for m, e in data["metrics"].items() if isinstance(e, Mapping)},
        final=data.get("final") is True,
        estimator=str(data.get("estimator") or ""),
    )


def _metric(metric: str, data: Mapping[str, Any]) -> MetricEffect:
    state = str(data.get("state"))
    return MetricEffect(
        metric=metric,
        state=DataState(state) if state in {s.value for s in DataState} else DataState.INSUFFICIENT,
        candidate=data.get("candidate") if isinstance(data.get("candidate"), str) else None,
        history_s=_number(data.get("history_s")) or 0.0,
        missing_share=_number(data.get("missing_share")) or 0.0,
        reason=_reason(data.get("reason")),
        delta=_number(data.get("delta")),
        lo=_number(data.get("lo")),
        hi=_number(data.get("hi")),
        sigma=_number(data.get("sigma")),
        nu=_number(data.get("nu")),
        odds=_number(data.get("odds")),
        d_raw=_number(data.get("d_raw")),
        pre_mean=_number(data.get("pre_mean")),
        post_mean=_number(data.get("post_mean")),
        n_pre=int(_number(data.get("n_pre")) or 0),
        n_post=int(_number(data.get("n_post")) or 0),
        n_eff=_number(data.get("n_eff")),
        pre_s=_number(data.get("pre_s")),
        post_s=_number(data.get("post_s")),
    )


def _reason(data: Any) -> Reason | None:
    if not isinstance(data, Mapping) or not data.get("code"):
        return None
    params = data.get("params")
    return Reason(str(data["code"]), dict(params) if isinstance(params, Mapping) else {})


def _list(x: object) -> Sequence[Any]:
    return x if isinstance(x, list | tuple) else ()


def _number(x: object) -> float | None:
    """The number that a record holds; None for anything else, and for what no float can hold."""
    if not isinstance(x, int | float) or isinstance(x, bool):
        return None
    return float(x) if -LARGEST <= x <= LARGEST else None
