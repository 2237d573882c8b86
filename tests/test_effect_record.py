"""What a record holds of an effect is read back as it was decided; whatever else is there is no number."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.domain import DataState, Decision, Effect, MetricEffect, Mode, Reason, Verdict, Window
from selftune.effect_record import effect_json, recorded

NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
METRICS = st.builds(
    MetricEffect,
    metric=st.just("risk_band"),
    state=st.sampled_from(DataState),
    candidate=st.none() | st.text(max_size=8),
    history_s=st.floats(0, 1e6),
    missing_share=st.floats(0, 1),
    reason=st.none() | st.builds(Reason, st.just("effect_few_bins"), st.just({"seen_s": 10})),
    delta=NUMBERS, lo=NUMBERS, hi=NUMBERS, sigma=NUMBERS, nu=NUMBERS, odds=NUMBERS, d_raw=NUMBERS,
    pre_mean=NUMBERS, post_mean=NUMBERS, n_eff=NUMBERS, pre_s=NUMBERS, post_s=NUMBERS,
    n_pre=st.integers(0, 1000), n_post=st.integers(0, 1000),
)  # fmt: skip


def decision(**data: Any) -> Decision:
    return Decision(id="d1", ts_ms=1, at_ms=1, kind="verdict", act="evaluate", mode=Mode.LIVE, applied=(),
                    abandoned=(), data=json.loads(json.dumps(data)))  # fmt: skip


@given(METRICS, st.booleans())
def test_an_effect_comes_back_as_it_was_written(metric: MetricEffect, final: bool) -> None:
    effect = Effect(keys=("e1",), event_ms=1000, window=Window(start_ms=1000, end_ms=91_000), settle_s=20.0,
                    metrics={"risk_band": metric}, final=final, estimator="any/1")  # fmt: skip
    found, report = recorded(
        decision(effect=effect_json(effect), keys=["e1"], verdict="IMPROVED", p_gain=0.97)
    )
    assert found == effect
    assert (report.verdict, report.p_gain) == (Verdict.IMPROVED, 0.97)


HOSTILE: list[Any] = [None, "many", True, [], {}, 10**400, -(10**400)]


@pytest.mark.parametrize("wild", HOSTILE)
@pytest.mark.parametrize("field", ["delta", "sigma", "nu", "n_post", "history_s"])
def test_what_is_no_number_is_none_and_never_a_traceback(field: str, wild: Any) -> None:
    data = {"event_ms": 1, "end_ms": 2, "final": True, "metrics": {"risk_band": {"state": "ok", field: wild}}}
    effect, _ = recorded(decision(effect=data, score_gain=wild))
    assert effect is not None
    assert not getattr(effect.metrics["risk_band"], field)


@pytest.mark.parametrize("wild", HOSTILE)
@pytest.mark.parametrize(
    "field", ["effect", "event_ms", "end_ms", "settle_s", "metrics", "verdict", "reasons"]
)
def test_a_record_that_is_no_effect_has_none_or_an_empty_one(field: str, wild: Any) -> None:
    data: dict[str, Any] = {"event_ms": 1, "end_ms": 2, "final": True, "settle_s": 20.0, "metrics": {}}
    whole: dict[str, Any] = {"effect": data, "verdict": "IMPROVED", "reasons": []}
    (whole if field in whole else data)[field] = wild
    effect, report = recorded(decision(**whole))
    assert effect is None or not effect.metrics
    assert report.reasons
