"""Harm while it happens: early harm, probation, hard limits, and the noise that they are weighed against."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.config import Limit, Settings, parse
from selftune.domain import WindowStat
from selftune.harm import early_harm, hard_breach, hard_inside_s, probation_harm
from selftune.judging import QuietWindow
from selftune.noise import Noise, fit_noise
from selftune.series import Floats, Series
from tests.conftest import SHIPPED

SETTINGS = parse(SHIPPED.read_bytes())
HARD = replace(SETTINGS, hard={"risk_band": Limit(max=0.42)})
LEVEL = {"phase_diff": 0.06, "creative_band": 0.23, "risk_band": 0.31, "entropy_rate": 0.29}
T = 1_763_800_000_000
RATE = 5
BEFORE_S = 600


def ar(rng: np.random.Generator, n: int, sd: float, tau_s: float) -> Floats:
    """AR(1) noise at 5 Hz."""
    phi = math.exp(-1 / (RATE * tau_s))
    x, out, shock = rng.standard_normal() * sd, np.empty(n), sd * math.sqrt(1 - phi * phi)
    for i, e in enumerate(rng.standard_normal(n)):
        x = phi * x + shock * e
        out[i] = x
    return out


def stream(
    *, step: float = 0.0, metric: str = "risk_band", at_s: float = 0.0, sd: float = 0.01, tau_s: float = 1.0,
    drift: float = 0.0, seed: int = 1, after_s: int = 90, levels: dict[str, float] | None = None,
) -> Series:  # fmt: skip
    """All metrics from 600 s before T; `step` at `at_s` behind a lag of 5 s; `drift` a 90 s window."""
    rng = np.random.default_rng(seed)
    n = (BEFORE_S + after_s) * RATE
    t = np.arange(n) / RATE - BEFORE_S
    values = {m: v + ar(rng, n, sd, tau_s) + drift * t / 90 for m, v in (LEVEL | (levels or {})).items()}
    values[metric] = values[metric] + step * (1 - np.exp(-np.maximum(0.0, t - at_s) / 5))
    return Series(
        ts_ms=T + np.round(t * 1000).astype(np.int64), values={m: np.round(v, 3) for m, v in values.items()}
    )


def first_abort(series: Series, settings: Settings = SETTINGS, others_ms: tuple[int, ...] = ()) -> int | None:
    """The first second after T at which the watch aborts, None if it never does."""
    for s in [*range(5, 20), *range(20, 90, 5)]:
        now = T + s * 1000
        seen = series.between(0, now)
        if early_harm(seen, settings, event_ms=T, now_ms=now, others_ms=others_ms).harmed:
            return s
    return None


# ----------------------------------------------------------------------------- early harm
@pytest.mark.slow
@pytest.mark.parametrize(("sd", "tau_s", "reach_s"), [(0.01, 1.0, 15), (0.02, 2.0, 22), (0.03, 2.0, 40)])
def test_harm_is_seen_as_early_as_the_method_promises(sd: float, tau_s: float, reach_s: int) -> None:
    found = [first_abort(stream(step=0.05, sd=sd, tau_s=tau_s, seed=s)) for s in range(15)]
    assert np.median([f if f is not None else math.inf for f in found]) <= reach_s


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sd", "tau_s", "drift"), [(0.01, 1.0, 0.0), (0.02, 2.0, 0.01), (0.01, 10.0, 0.0), (0.003, 1.0, 0.01)]
)
def test_without_harm_it_does_not_abort(sd: float, tau_s: float, drift: float) -> None:
    # at 1 % a change two or more of twelve have odds of 1 in 150; the benchmark counts thousands
    found = [first_abort(stream(sd=sd, tau_s=tau_s, drift=drift, seed=s)) for s in range(12)]
    assert sum(f is not None for f in found) <= 1


def test_it_says_what_was_harmed_how_far_and_since_when() -> None:
    series = stream(step=0.08)
    check = early_harm(series, SETTINGS, event_ms=T, now_ms=T + 60_000)
    assert check.harmed
    reason = check.reasons[0]
    assert (reason.code, reason.params["metric"], reason.params["after_s"]) == (
        "early_harm",
        "risk_band",
        60.0,
    )
    assert reason.params["observed"] > reason.params["limit"] > 0
    assert check.deltas["risk_band"] == pytest.approx(0.08, abs=0.02)


def test_an_improvement_is_no_harm_on_either_kind_of_target() -> None:
    assert first_abort(stream(step=-0.2)) is None
    assert first_abort(stream(step=0.1, metric="creative_band")) is None
    assert first_abort(stream(step=-0.1, metric="creative_band")) is not None


def test_a_metric_well_inside_its_target_is_not_harmed() -> None:
    inside = {"risk_band": 0.15}
    assert first_abort(stream(step=0.08, levels=inside)) is None
    assert first_abort(stream(step=0.25, levels=inside)) is not None


def test_inside_the_settle_time_only_a_kick_counts() -> None:
    assert first_abort(stream(step=0.03, sd=0.002)) == 20  # below 5 x good until the settle time is over
    kicked = first_abort(stream(step=0.15, sd=0.002))
    assert kicked is not None and kicked < 12
    check = early_harm(stream(step=0.15, sd=0.002), SETTINGS, event_ms=T, now_ms=T + 12_000)
    assert [r.code for r in check.reasons] == ["early_kick"]


def test_a_hard_limit_raises_the_bar_inside_the_settle_time() -> None:
    assert first_abort(stream(step=0.08, sd=0.002), HARD) == 20
    over = first_abort(stream(step=0.2, sd=0.002), HARD)
    assert over is not None and over < 20


def test_the_same_samples_give_the_same_answer() -> None:
    series = stream(step=0.05)
    assert len({first_abort(series) for _ in range(3)}) == 1


def test_a_change_by_another_in_the_window_ends_the_watch() -> None:
    series = stream(step=0.2)
    assert early_harm(series, SETTINGS, event_ms=T, now_ms=T + 60_000, others_ms=[T + 30_000]).harmed is False
    assert early_harm(series, SETTINGS, event_ms=T, now_ms=T + 60_000, others_ms=[T + 400]).harmed is True


def test_earlier_events_do_not_count_as_noise() -> None:
    step_before = stream(step=0.15, at_s=-180)
    assert first_abort(step_before, others_ms=(T - 180_000,)) is None
    both = stream(step=0.15, at_s=-180)
    more = replace(both, values={**both.values, "risk_band": both.values["risk_band"] + np.where(
        both.ts_ms >= T, 0.08, 0.0)})  # fmt: skip
    assert first_abort(more, others_ms=(T - 180_000,)) is not None


@pytest.mark.parametrize("cut_s", [30, 50])
def test_too_little_quiet_past_is_no_ground_for_an_abort(cut_s: int) -> None:
    series = stream(step=0.1).between(T - cut_s * 1000, T + 90_000)
    assert first_abort(series) is None


def test_missing_samples_are_no_harm() -> None:
    series = stream()
    risk = series.values["risk_band"].copy()
    risk[series.ts_ms > T + 15_000] = np.nan
    assert first_abort(replace(series, values={**series.values, "risk_band": risk})) is None
    gone = {m: v for m, v in series.values.items() if m != "risk_band"}
    assert first_abort(replace(series, values=gone)) is None
    assert first_abort(Series.empty(tuple(LEVEL))) is None


def test_a_metric_in_other_units_is_treated_alike() -> None:
    series = stream(step=0.05)
    scaled = replace(series, values={m: v * 1000 for m, v in series.values.items()})
    targets = {
        m: replace(t, max=t.max and t.max * 1000, min=t.min and t.min * 1000, scale=t.scale * 1000)
        for m, t in SETTINGS.targets.items()
    }
    large = replace(SETTINGS, targets=targets, good={m: g * 1000 for m, g in SETTINGS.good.items()}, warn={})
    assert first_abort(scaled, large) == first_abort(series)


def test_a_root_that_lives_in_seconds_does_not_break_it() -> None:
    fast = replace(HARD, observe_window_s=1.0, settle_s=0.2, history_s=4.0, rate_hz=50.0)
    n = 250
    ts = T - 4000 + np.arange(n, dtype=np.int64) * 20
    rng = np.random.default_rng(1)
    calm = {m: v + 0.01 * rng.standard_normal(n) for m, v in LEVEL.items()}
    hurt = {**calm, "risk_band": calm["risk_band"] + np.where(ts >= T, 0.2, 0.0)}
    assert not early_harm(Series(ts_ms=ts, values=calm), fast, event_ms=T, now_ms=T + 900).harmed
    assert early_harm(Series(ts_ms=ts, values=hurt), fast, event_ms=T, now_ms=T + 900).harmed
    assert [c.passed for c in hard_breach(Series(ts_ms=ts, values=hurt), fast, T + 900)] == [False]


# ----------------------------------------------------------------------------- probation
def quiet_window(start_s: float, **levels: float) -> QuietWindow:
    start = T + round(start_s * 1000)
    stats = {m: WindowStat(mean=v, se=0.001, n=450, start_ms=start, end_ms=start + 90_000)
             for m, v in (LEVEL | levels).items()}  # fmt: skip
    return QuietWindow(start_ms=start, end_ms=start + 90_000, values={}, regime=0, stats=stats)


ANCHOR = [quiet_window(-90)]


def watched(series: Series, anchor: list[QuietWindow], now_s: int) -> bool:
    now = T + now_s * 1000
    return probation_harm(series.between(0, now), SETTINGS, anchor=anchor, since_ms=T, now_ms=now).harmed


def test_a_large_loss_against_the_anchor_is_harm() -> None:
    series = stream(step=0.2, sd=0.005, after_s=300)
    assert watched(series, ANCHOR, 120)
    check = probation_harm(series, SETTINGS, anchor=ANCHOR, since_ms=T, now_ms=T + 120_000)
    assert check.reasons[0].code == "probation_harm" and check.deltas["risk_band"] > 0.1
    assert all(SETTINGS.targets[m].down_is_good == (d > 0) for m, d in check.deltas.items())


def test_a_gain_or_nothing_is_none() -> None:
    assert not watched(stream(step=-0.2, sd=0.005, after_s=300), ANCHOR, 120)
    assert not any(watched(stream(sd=0.01, after_s=300, seed=s), ANCHOR, 200) for s in range(5))


@pytest.mark.parametrize("now_s", [120, 400, 900])
def test_drift_at_the_allowed_pace_is_not_held_against_the_change(now_s: int) -> None:
    assert not watched(stream(drift=0.01, sd=0.005, after_s=1000), ANCHOR, now_s)


def test_without_anchor_or_data_nothing_is_proven() -> None:
    series = stream(step=0.2, after_s=300)
    assert not watched(series, [], 120)
    assert not watched(series, ANCHOR, 40)  # too short a stretch since the settle time
    assert not watched(Series.empty(tuple(LEVEL)), ANCHOR, 120)


# ----------------------------------------------------------------------------- hard limits
def flat(risk: Floats, *, rate: int = RATE) -> Series:
    """A stream that ends at T, with risk_band as given."""
    n = len(risk)
    return Series(ts_ms=T - (n - np.arange(n, dtype=np.int64)) * (1000 // rate), values={"risk_band": risk})


@pytest.mark.parametrize(("level", "passed"), [(0.4199, True), (0.42, True), (0.4201, False)])
def test_the_mean_of_twenty_seconds_breaks_the_limit(level: float, passed: bool) -> None:
    checks = hard_breach(flat(np.full(200, level)), HARD, T)
    assert [(c.code, c.passed, c.params["metric"], c.params["side"]) for c in checks] == [
        ("hard_limit", passed, "risk_band", "max")
    ]


def test_single_samples_beyond_do_not() -> None:
    noisy = np.where(np.arange(200) % 3 == 0, 0.6, 0.3)
    assert [c.passed for c in hard_breach(flat(noisy), HARD, T)] == [True]


@pytest.mark.parametrize(("valid", "judged"), [(70, True), (69, False)])
def test_less_than_70_percent_is_neither_breach_nor_pass(valid: int, judged: bool) -> None:
    risk = np.full(200, 0.5)
    risk[-100 : -100 + (100 - valid)] = np.nan
    assert bool(hard_breach(flat(risk), HARD, T)) is judged


def test_a_stopped_stream_is_not_judged() -> None:
    assert hard_breach(flat(np.full(200, 0.5)), HARD, T + 30_000) == ()


def test_a_slow_stream_does_not_switch_the_limit_off() -> None:
    assert [c.passed for c in hard_breach(flat(np.full(60, 0.5), rate=1), HARD, T)] == [False]


def test_a_lower_limit_and_the_worst_first() -> None:
    both = replace(SETTINGS, hard={"risk_band": Limit(max=0.42, min=0.1), "gone": Limit(max=1.0)})
    checks = hard_breach(flat(np.full(200, 0.05)), both, T)
    assert [(c.passed, c.params["side"]) for c in checks] == [(False, "min"), (True, "max")]


def test_how_long_the_limits_have_been_kept() -> None:
    risk = np.full(1000 * RATE, 0.3)
    assert hard_inside_s(flat(risk), HARD, T) > 970
    risk[-400 * RATE : -380 * RATE] = 0.6
    assert hard_inside_s(flat(risk), HARD, T) == pytest.approx(
        380 - 12, abs=3
    )  # means hold it a little longer
    risk[-10 * RATE :] = 0.9
    assert hard_inside_s(flat(risk), HARD, T) == 0.0
    assert hard_inside_s(flat(risk), SETTINGS, T) == math.inf
    assert hard_inside_s(Series.empty(("risk_band",)), HARD, T) == 0.0


def test_a_gap_counts_as_not_inside() -> None:
    risk = np.full(1000 * RATE, 0.3)
    risk[-100 * RATE : -60 * RATE] = np.nan
    assert hard_inside_s(flat(risk), HARD, T) == pytest.approx(60 - 14, abs=2)


# ----------------------------------------------------------------------------- noise
def test_the_sd_of_a_contrast_is_the_sum_over_all_pairs() -> None:
    noise = fit_noise(ar(np.random.default_rng(2), 600, 1.0, 4.0), ())
    assert noise is not None
    pre, gap, post = 7, 3, 12
    w = np.concatenate((np.full(pre, -1 / pre), np.zeros(gap), np.full(post, 1 / post)))
    lags = np.abs(np.subtract.outer(np.arange(len(w)), np.arange(len(w))))
    expected = math.sqrt(w @ noise.cov[lags] @ w)
    assert noise.contrast_sd(pre, gap, post, 0.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("tau", [0.5, 2.0, 10.0])
def test_the_predicted_sd_is_the_true_one(tau: float) -> None:
    """Against the known sd of a mean of AR(1) noise; phi is e^(-1/tau) a bin."""
    phi, n = math.exp(-1 / tau), 30
    true = math.sqrt(sum(phi ** abs(i - j) for i in range(n) for j in range(n))) / n
    rng = np.random.default_rng(4)
    found = [fit_noise(ar(rng, 600, 1.0, tau / RATE), ()) for _ in range(40)]
    assert np.median([f.mean_sd(n) for f in found if f is not None]) == pytest.approx(true, rel=0.12)


def test_drift_is_found_and_taken_out() -> None:
    rng = np.random.default_rng(5)
    still = rng.standard_normal(600)
    noise = fit_noise(still + 0.02 * np.arange(600), ())
    assert isinstance(noise, Noise)
    assert noise.slope == pytest.approx(0.02, abs=4 * math.sqrt(noise.slope_var))
    assert math.sqrt(noise.cov[0]) == pytest.approx(1.0, rel=0.15)


def test_levels_between_events_are_not_noise() -> None:
    x = np.random.default_rng(6).standard_normal(600) + np.where(np.arange(600) < 300, 0.0, 50.0)
    noise = fit_noise(x, [(290, 320)])
    assert noise is not None and math.sqrt(noise.cov[0]) == pytest.approx(1.0, rel=0.15)


def test_a_frozen_metric_has_no_noise_and_breaks_nothing() -> None:
    with np.errstate(all="raise"):
        for n in (60, 75, 120, 600):
            noise = fit_noise(np.full(n, 0.333), ())
            assert noise is not None and noise.contrast_sd(45, 5, 45, 50.0) < 1e-9


@given(
    x=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), max_size=150),
    breaks=st.lists(st.tuples(st.integers(-50, 200), st.integers(-50, 200)), max_size=3),
)
def test_no_past_makes_it_raise(x: list[float], breaks: list[tuple[int, int]]) -> None:
    noise = fit_noise(np.array(x), breaks)
    if noise is not None:
        sd = noise.contrast_sd(30, 5, 20, 30.0)
        assert sd >= 0 and math.isfinite(sd) and noise.nu >= 2
