"""Windows, states of the data and what `measure` promises, on small made streams."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import stdtrit

from selftune.config import ExcursionBudget, Governance, Settings, pace_of
from selftune.domain import Confirm, DataState, Effect, MetricEffect, PolicyName, Reason, Target
from selftune.effects import (
    Measured,
    bin_means,
    infer_resolutions,
    measure,
    measured_ahead,
    window_stat,
    windows_for,
)
from selftune.health import scale_for
from selftune.series import Series

Floats = NDArray[np.float64]
T0 = 1_800_000_000_123  # not on a whole second


def make_settings(**changes: Any) -> Settings:
    whole: dict[str, Any] = {
        "targets": {"risk_band": Target(metric="risk_band", max=0.2)}, "rules": {}, "weights": {}, "good": {},
        "warn": {}, "phase_bad": None, "hard": {}, "dry_run": True, "max_concurrent_changes": 1,
        "policy": PolicyName.NONE, "auto_rollback": True, "confirm": Confirm.STANDARD,
        "excursion": ExcursionBudget(), "rollback_limit": 3, "proposal_ttl_s": 600.0, "resolution": 6,
        "observe_window_s": 90.0, "min_samples": 120, "cooldown_s": 120.0, "settle_s": 20.0,
        "history_s": 600.0, "timezone": "Asia/Seoul", "language": "ko", "rate_hz": 5.0, "max_age_s": 5.0,
        "metrics_source": "", "governance": Governance(), "retention_days": None, "digest": "",
    }  # fmt: skip
    return Settings(**{**whole, **changes})


SETTINGS = make_settings()


def stream(
    *,
    before: float = 600,
    after: float = 91,
    step: float = 0.0,
    seed: int = 1,
    rate: float = 5,
    **more: Floats,
) -> Series:
    """risk_band around .3 +- .01 with a step at T0, three decimals."""
    rng = np.random.default_rng(seed)
    n0, n1 = round(before * rate), round(after * rate)
    ts = T0 + np.round(np.arange(-n0, n1) * 1000 / rate).astype(np.int64)
    y = 0.3 + 0.01 * rng.normal(size=n0 + n1)
    y[n0:] += step
    return Series(ts_ms=ts, values={"risk_band": np.round(y, 3), **more})


def run(
    series: Series, settings: Settings = SETTINGS, *, others: tuple[int, ...] = (), now: float = 91
) -> Effect:
    now_ms = T0 + round(now * 1000)
    return measure(series, settings, event_ms=T0, keys=("k",), others_ms=others, now_ms=now_ms)


def risk(effect: Effect) -> MetricEffect:
    return effect.metrics["risk_band"]


def code(effect: Effect) -> str | None:
    reason = risk(effect).reason
    return reason.code if reason else None


def with_values(series: Series, values: Floats) -> Series:
    return dataclasses.replace(series, values={"risk_band": values})


# ----------------------------------------------------------------------------- windows
@pytest.mark.parametrize(
    ("others_s", "pre_s", "post_s"),
    [
        ((), 90, 90),
        ((-300,), 90, 90),
        ((-70,), 50, 90),  # its washout shortens the pre window
        ((-100,), 80, 90),
        ((-5,), 0, 90),
        ((60,), 90, 60),
        ((50,), 90, 50),  # settle + 30 s is just enough
        ((0.4, -0.9), 90, 90),  # the same second: one joint change
        ((-70, 60, 200), 50, 60),
    ],
)
def test_other_events_cut_the_windows(others_s: tuple[float, ...], pre_s: float, post_s: float) -> None:
    found = windows_for(T0, SETTINGS, others_ms=[T0 + round(s * 1000) for s in others_s])
    assert not isinstance(found, Reason)
    assert (found[0].length_s, found[1].length_s) == (pre_s, post_s)
    assert found[0].end_ms == found[1].start_ms == T0


@pytest.mark.parametrize("after_s", [1, 20, 49.9])
def test_a_change_too_soon_after_confounds(after_s: float) -> None:
    found = windows_for(T0, SETTINGS, others_ms=[T0 + round(after_s * 1000)])
    assert found == Reason("effect_confounded", {"after_s": after_s, "needed_s": 50.0})
    effect = run(stream(), others=(T0 + round(after_s * 1000),))
    assert risk(effect).state is DataState.CONFOUNDED
    assert risk(effect).delta is None
    assert effect.final


# ----------------------------------------------------------------------------- the plain case
def test_a_step_is_measured_with_all_its_numbers() -> None:
    effect = run(stream(step=0.05))
    m = risk(effect)
    assert effect.final
    assert effect.keys == ("k",)
    assert (effect.window.start_ms, effect.window.length_s) == (T0, 90)
    assert m.state is DataState.OK
    assert m.delta == pytest.approx(0.05, abs=0.005)
    assert m.d_raw == pytest.approx(0.05, abs=0.002)
    assert m.lo is not None
    assert m.hi is not None
    assert 0 < m.lo < 0.05 < m.hi
    assert (m.n_pre, m.n_post, m.history_s, m.missing_share) == (450, 450, 600, 0)
    assert m.odds is not None
    assert m.odds > 100
    assert m.post_s in (60, 90)
    assert m.nu is not None
    assert m.nu >= 2


def test_the_interval_is_the_t_interval_and_half_the_rounding() -> None:
    """Towards zero exactly; away from zero it also reaches what a slow response would mean."""
    whole = run(stream(step=0.05))
    exact = risk(measure(stream(step=0.05), SETTINGS, event_ms=T0, keys=(), others_ms=(),
                         now_ms=T0 + 91_000, resolution={"risk_band": 0.0}))  # fmt: skip
    assert exact.delta is not None
    assert exact.sigma is not None
    assert exact.nu is not None
    assert exact.lo is not None
    assert exact.hi is not None
    half = exact.sigma * stdtrit(exact.nu, 0.975)
    assert exact.delta - exact.lo == pytest.approx(half)
    assert half < exact.hi - exact.delta < half + 0.25 * exact.delta
    inferred = risk(whole).hi
    assert inferred is not None
    assert inferred - exact.hi == pytest.approx(0.0005)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_slow_response_is_inside_the_interval(sign: int) -> None:
    """Hardly any noise and a lag of 20 s: 90 s show nine tenths of the step, the interval all of it."""
    series = stream()
    t = np.maximum(0.0, (series.ts_ms - T0) / 1000)
    y = 0.3 + 0.0001 * np.random.default_rng(2).normal(size=len(t)) + sign * 0.1 * (1 - np.exp(-t / 20))
    m = risk(run(with_values(series, y)))
    assert m.delta is not None
    assert m.lo is not None
    assert m.hi is not None
    assert abs(m.delta) < 0.099
    assert m.lo < sign * 0.1 < m.hi
    assert m.hi - m.lo < 0.05


def test_drift_alone_is_no_effect_though_the_plain_difference_says_so() -> None:
    """The seed's thresholds call this good; a contrast that knows the past does not."""
    series = stream()
    t = (series.ts_ms - T0) / 1000
    drifting = with_values(series, np.round(series.values["risk_band"] - 0.0004 * t, 3))
    m = risk(run(drifting))
    assert m.d_raw is not None
    assert m.d_raw < -0.03  # as large as safety.good of risk_band many times over
    assert m.lo is not None
    assert m.hi is not None
    assert m.lo < 0 < m.hi


def test_samples_far_away_change_nothing() -> None:
    near, far = run(stream()), run(stream(before=600, after=400), now=400)
    assert risk(near).delta == risk(far).delta


# ----------------------------------------------------------------------------- states
def test_constant_is_zero_and_says_so() -> None:
    series = stream()
    m = risk(run(with_values(series, np.full(len(series), 0.3))))
    assert (m.state, m.delta, m.lo, m.hi, m.d_raw) == (DataState.CONSTANT, 0.0, 0.0, 0.0, 0.0)
    assert m.reason == Reason("effect_constant", {"value": 0.3})


@pytest.mark.parametrize(
    ("history_s", "state", "expected"),
    [
        (60, DataState.INSUFFICIENT, "effect_short_history"),
        (109, DataState.INSUFFICIENT, "effect_short_history"),
        (120, DataState.OK, None),
        (200, DataState.OK, None),
    ],
)
def test_short_history(history_s: float, state: DataState, expected: str | None) -> None:
    effect = run(stream(before=history_s))
    assert risk(effect).state is state
    assert code(effect) == expected
    assert risk(effect).history_s <= history_s
    assert (risk(effect).delta is None) is (state is not DataState.OK)


def test_history_counts_only_quiet_stretches_of_90_s() -> None:
    """Events 150, 260 and 500 s before: quiet are 600-500, (480-260), (240-150: 90 s), 130-0."""
    others = tuple(T0 - s * 1000 for s in (150, 260, 500))
    assert risk(run(stream(), others=others)).history_s == 100 + 220 + 90 + 130
    assert risk(run(stream(), others=(T0 - 155_000, T0 - 260_000))).history_s == 340 + 135


def test_few_samples_and_few_bins() -> None:
    series = stream()
    y = series.values["risk_band"].copy()
    thin = y.copy()
    thin[(np.arange(len(y)) % 5 != 0) & (series.ts_ms >= T0)] = np.nan
    assert code(run(with_values(series, thin))) == "effect_few_samples"
    hole = y.copy()
    hole[(series.ts_ms >= T0 + 45_000) & (series.ts_ms < T0 + 90_000)] = np.nan
    effect = run(with_values(series, hole))
    assert code(effect) == "effect_few_bins"
    assert risk(effect).n_post == 225
    assert risk(effect).state is DataState.INSUFFICIENT


def test_a_second_with_less_than_three_of_five_samples_is_missing() -> None:
    """Two samples of each second leave 180 of 450: enough samples, not one whole second."""
    series = stream()
    y = series.values["risk_band"].copy()
    y[(np.arange(len(y)) % 5 > 1) & (series.ts_ms >= T0)] = np.nan
    assert code(run(with_values(series, y))) == "effect_few_bins"
    y = series.values["risk_band"].copy()
    y[(np.arange(len(y)) % 5 > 2) & (series.ts_ms >= T0)] = np.nan
    assert risk(run(with_values(series, y))).state is DataState.OK


def test_min_samples_shrinks_with_the_window() -> None:
    """400 of 450 are asked for; a window of 60 s has 300 and needs 267."""
    strict = make_settings(min_samples=400)
    assert risk(run(stream(), strict, others=(T0 + 60_000,))).state is DataState.OK
    stricter = make_settings(min_samples=451)
    assert code(run(stream(), stricter, others=(T0 + 60_000,))) == "effect_few_samples"


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 7.0, -3.0])
def test_junk_is_missing_never_zero(junk: float) -> None:
    ranged = make_settings(targets={"risk_band": Target(metric="risk_band", max=0.2, lo=0.0, hi=1.0)})
    series = stream(step=0.05)
    y = series.values["risk_band"].copy()
    y[::17] = junk
    m = risk(run(with_values(series, y), ranged))
    assert m.state is DataState.OK
    assert m.delta == pytest.approx(0.05, abs=0.006)
    assert m.n_post == 450 - len([i for i in range(3000, 3450) if i % 17 == 0])


def test_a_metric_without_a_column_has_no_numbers() -> None:
    two = make_settings(targets={m: Target(metric=m, max=0.2) for m in ("risk_band", "absent")})
    effect = run(stream(), two)
    assert effect.metrics["absent"].state is DataState.INSUFFICIENT
    assert risk(effect).state is DataState.OK


def test_too_many_gaps_leave_no_candidate() -> None:
    series = stream()
    y = series.values["risk_band"].copy()
    age = (T0 - series.ts_ms) / 1000
    y[(age > 0) & (age <= 25)] = np.nan  # nothing just before the event: every pre part misses > 30 % ...
    y[(age > 40) & (age <= 60)] = np.nan
    assert code(run(with_values(series, y))) == "effect_no_candidate"


def test_frozen_after_the_event_is_missing_not_a_verdict() -> None:
    rng = np.random.default_rng(3)
    series = stream(step=0.0, phase_diff=rng.normal(size=691 * 5))
    y = series.values["risk_band"].copy()
    y[series.ts_ms >= T0] = 0.3
    frozen = dataclasses.replace(series, values={**series.values, "risk_band": y})
    assert code(run(frozen)) == "effect_few_samples"


def test_stale_and_open_windows_have_no_verdict_yet() -> None:
    half = stream(after=40)
    effect = run(half, now=41)
    assert (risk(effect).state, effect.final) == (DataState.INSUFFICIENT, False)
    assert code(effect) == "effect_window_open"
    effect = run(half, now=60)
    assert (risk(effect).state, effect.final, code(effect)) == (DataState.STALE, False, "effect_stale")
    early = run(stream(after=70), now=70)
    assert (risk(early).state, early.final) == (DataState.OK, False)
    assert code(run(Series.empty(("risk_band",)), now=10)) == "effect_no_data"


def test_a_complete_window_is_judged_however_old_it_is() -> None:
    """What was measured stays measured: `effects --all` looks at days that are over."""
    effect = run(stream(after=90), now=86_400)
    assert effect.final
    assert risk(effect).state is DataState.OK


def test_rows_from_the_future_are_set_aside() -> None:
    ahead = stream(after=95)
    effect = run(ahead, now=60)
    assert not effect.final
    assert risk(effect).n_post == 62 * 5 + 1
    assert code(run(dataclasses.replace(ahead, ahead_share=0.8), now=60)) == "effect_clock_ahead"
    assert code(run(ahead, now=-700)) == "effect_clock_ahead"


def test_duplicated_instants_do_no_harm() -> None:
    series = stream(step=0.05)
    doubled = Series(ts_ms=np.repeat(series.ts_ms, 2),
                     values={"risk_band": np.repeat(series.values["risk_band"], 2)})  # fmt: skip
    assert risk(run(doubled)).delta == pytest.approx(risk(run(series)).delta)


# ----------------------------------------------------------------------------- other paces
def test_a_root_that_lives_in_seconds() -> None:
    """R 1 s, W .2 s, H 4 s: every duration is a 90th, bins are 11 ms when the stream is that fast."""
    fast = make_settings(observe_window_s=1.0, settle_s=0.2, history_s=4.0, min_samples=30, rate_hz=200)
    assert pace_of(fast) == pytest.approx(1 / 90)
    series = stream(before=4, after=1.2, rate=200, step=0.05)
    assert scale_for(fast, series.ts_ms).bin_ms == 11
    m = risk(run(series, fast, now=1.2))
    assert m.state is DataState.OK
    assert m.delta == pytest.approx(0.05, abs=0.02)
    slow = stream(before=4, after=1.2, rate=5, step=0.05)
    few = risk(run(slow, dataclasses.replace(fast, min_samples=1, rate_hz=5), now=1.2))
    assert few.state is DataState.INSUFFICIENT  # 5 samples prove nothing, at any pace


@pytest.mark.parametrize(("window_s", "settle_s"), [(45, 20), (30, 20), (30, 5)])
def test_a_short_window_in_a_normal_root_cannot_be_judged(window_s: float, settle_s: float) -> None:
    """R < settle_s + 30 s can only be inconclusive, as the contract says."""
    short = make_settings(observe_window_s=float(window_s), settle_s=float(settle_s), min_samples=10)
    effect = run(stream(), short)
    assert effect.final
    assert code(effect) == "effect_window_too_short"


@pytest.mark.parametrize("window_s", [300, 840])
def test_long_windows_look_back_further_and_see_more(window_s: float) -> None:
    long = make_settings(observe_window_s=float(window_s))
    m = risk(run(stream(before=4 * 840, after=window_s + 1), long, now=window_s + 1))
    ordinary = risk(run(stream(before=4 * 840)))
    assert m.state is DataState.OK
    assert m.sigma is not None
    assert ordinary.sigma is not None
    assert m.sigma < ordinary.sigma


def test_a_slower_stream_gets_coarser_bins() -> None:
    slow = make_settings(rate_hz=0.5, min_samples=30)
    series = stream(rate=0.5, step=0.05)
    assert scale_for(slow, series.ts_ms).bin_ms == 2000
    m = risk(run(series, slow, now=92))
    assert m.state is DataState.OK
    assert m.delta == pytest.approx(0.05, abs=0.02)


# ----------------------------------------------------------------------------- laws
@profile(max_examples=15, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([-1.0, 0.25, -8.0, 1024.0]),
    shift=st.sampled_from([0.0, 1.0, -64.0]),
    later=st.integers(-(10**12), 10**12),
)
def test_units_sign_and_time_do_not_matter(seed: int, scale: float, shift: float, later: int) -> None:
    """Another unit, sign, zero or start of time gives the same answer in the new unit."""
    rng = np.random.default_rng(seed)
    series = stream(seed=seed)
    walk = np.cumsum(rng.normal(size=len(series)))
    base = with_values(series, walk)
    moved = Series(ts_ms=series.ts_ms + later, values={"risk_band": walk * scale + shift})
    a = risk(measure(base, SETTINGS, event_ms=T0, keys=(), others_ms=(), now_ms=T0 + 91_000,
                     resolution={"risk_band": 0.0}))  # fmt: skip
    b = risk(measure(moved, SETTINGS, event_ms=T0 + later, keys=(), others_ms=(), now_ms=T0 + later + 91_000,
                     resolution={"risk_band": 0.0}))  # fmt: skip
    assert a.state is b.state is DataState.OK
    assert a.candidate == b.candidate
    assert a.delta is not None
    assert a.sigma is not None
    assert b.delta == pytest.approx(scale * a.delta, rel=1e-6, abs=1e-6 * abs(scale) * a.sigma)
    assert b.sigma == pytest.approx(abs(scale) * a.sigma, rel=1e-6)
    assert b.nu == pytest.approx(a.nu, rel=1e-6)


@profile(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    n=st.integers(0, 4000),
    seed=st.integers(0, 2**32),
    window=st.sampled_from([0.5, 1.0, 30.0, 90.0, 300.0]),
    settle=st.sampled_from([0.0, 0.2, 20.0]),
    history=st.sampled_from([0.0, 4.0, 600.0]),
    missing=st.floats(0, 1),
    others=st.lists(st.integers(-700_000, 200_000), max_size=6),
    now=st.integers(-1_000_000, 1_000_000),
    kind=st.sampled_from(["noise", "zero", "huge", "steps"]),
)
def test_nothing_that_data_do_raises(
    n: int, seed: int, window: float, settle: float, history: float, missing: float, others: list[int],
    now: int, kind: str,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    ts = T0 - 700_000 + np.cumsum(rng.integers(1, 400, n)).astype(np.int64)
    y = {"noise": rng.normal(size=n), "zero": np.zeros(n), "huge": 1e150 * rng.normal(size=n),
         "steps": np.repeat(rng.normal(size=n // 50 + 1), 50)[:n]}[kind]  # fmt: skip
    y[rng.random(n) < missing] = rng.choice([np.nan, np.inf])
    odd = make_settings(observe_window_s=window, settle_s=settle, history_s=history, min_samples=5)
    series = Series(ts_ms=ts, values={"risk_band": y})
    instants = [T0 + o for o in others]
    effect = measure(series, odd, event_ms=T0, keys=("k",), others_ms=instants, now_ms=T0 + now)
    m = risk(effect)
    numbers = (m.delta, m.lo, m.hi, m.sigma, m.nu, m.odds)
    if m.state is DataState.OK:
        assert all(x is not None and np.isfinite(x) for x in numbers)
    elif m.state is not DataState.CONSTANT:
        assert numbers == (None,) * 6
        assert m.reason is not None
    stat = window_stat(series, "risk_band", T0 - 90_000, T0, odd)
    assert stat.se is None or stat.se >= 0


# ----------------------------------------------------------------------------- small parts
# ----------------------------------------------------------------------------- many at once
class Counting(Measured):
    """Counts how often it had the answer."""

    def __init__(self, real: Measured) -> None:
        self.real, self.used = real, 0

    def of(self, frame: Any) -> Any:
        found = self.real.of(frame)
        self.used += found is not None
        return found


def test_what_is_measured_ahead_is_what_would_be_measured_then() -> None:
    """With holes, other metrics, an event that cuts a window, one too soon, one without history, one open."""
    film = stream(before=800, after=2500, seed=5)
    rng = np.random.default_rng(6)
    ragged = 5 + np.cumsum(rng.normal(size=len(film)))
    ragged[rng.random(len(film)) < 0.02] = np.nan
    film = Series(ts_ms=film.ts_ms, values={**film.values, "ragged": ragged, "still": np.ones(len(film))})
    film = Series(
        ts_ms=np.delete(film.ts_ms, slice(5000, 5040)),
        values={m: np.delete(v, slice(5000, 5040)) for m, v in film.values.items()},
    )
    targets = {m: Target(metric=m, max=0.2) for m in ("risk_band", "ragged", "still")}
    settings = make_settings(targets=targets, observe_window_s=90.0)
    times = [T0 + 1000 * s for s in (-780, 0, 400, 460, 800, 820, 1300, 1390, 1900, 2450)]
    others = {t: tuple(o for o in times if o != t) for t in times}
    known = Counting(measured_ahead(film, settings, others))
    for t in times:
        now_ms = t + 91_000
        seen = film.between(t - 1_000_000, now_ms + 1)
        then = tuple(o for o in others[t] if o <= now_ms)
        alone, ahead = (
            measure(seen, settings, event_ms=t, keys=("k",), others_ms=then, now_ms=now_ms, known=k)
            for k in (None, known)
        )
        assert alone == ahead
    assert known.used >= 6


@pytest.mark.parametrize("differs", ["nothing", "memory", "others", "settings", "end", "resolution"])
def test_what_was_measured_ahead_answers_for_the_very_same_alone(differs: str) -> None:
    film = stream(before=800, after=200)
    known = Counting(measured_ahead(film, SETTINGS, {T0: ()}))
    measure(
        with_values(film, film.values["risk_band"].copy()) if differs == "memory" else film,
        make_settings(observe_window_s=90.0) if differs == "settings" else SETTINGS,
        event_ms=T0,
        keys=("k",),
        others_ms=(T0 - 300_000,) if differs == "others" else (),
        now_ms=T0 + (80_000 if differs == "end" else 91_000),
        resolution={"risk_band": 0.01} if differs == "resolution" else None,
        known=known,
    )
    assert known.used == (differs == "nothing")


def test_bins_are_half_open_around_the_event() -> None:
    ts = np.array([-1001, -1000, -1, 0, 999, 1000], np.int64)
    y = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert bin_means(ts, y, 0, 1000, 2, 2, 1) == pytest.approx([1, 3, 12, 32])
    assert np.isnan(bin_means(ts, y, 0, 1000, 2, 2, 2)).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("values", "grain"),
    [([0.305, 0.3, 0.112], 0.001), ([1.0, 4.0], 1.0), ([0.25, 1234567.5], 0.01), ([np.pi, np.e], 0.0)],
)
def test_the_last_written_decimal_is_found(values: list[float], grain: float) -> None:
    rows = np.stack([np.array(values), np.zeros(len(values))])
    assert infer_resolutions(rows) == [pytest.approx(grain), 1.0]


def test_window_stat_is_the_mean_with_a_batch_error() -> None:
    series = stream()
    stat = window_stat(series, "risk_band", T0, T0 + 90_000, SETTINGS)
    y = series.between(T0, T0 + 90_000).values["risk_band"]
    batches = y.reshape(9, 50).mean(axis=1)
    assert stat.mean == pytest.approx(y.mean())
    assert stat.se == pytest.approx(batches.std(ddof=1) / 3)
    assert stat.n == 450


def test_window_stat_sees_autocorrelation_that_samples_hide() -> None:
    rng = np.random.default_rng(5)
    series = stream()
    slow = np.repeat(rng.normal(size=len(series) // 25 + 1), 25)[: len(series)]  # 5 s steps
    stat = window_stat(with_values(series, slow + 1e-9 * rng.normal(size=len(slow))), "risk_band",
                       T0, T0 + 90_000, SETTINGS)  # fmt: skip
    assert stat.se is not None
    assert stat.se > 2 * slow.std() / np.sqrt(450)


def test_window_stat_without_enough_data_is_none() -> None:
    series = stream()
    assert window_stat(series, "risk_band", T0 + 10**6, T0 + 2 * 10**6, SETTINGS).mean is None
    assert window_stat(series, "absent", T0, T0 + 90_000, SETTINGS).mean is None
    y = series.values["risk_band"].copy()
    y[series.ts_ms > T0 + 30_000] = np.nan
    clumped = window_stat(with_values(series, y), "risk_band", T0, T0 + 90_000, SETTINGS)
    assert clumped.mean is not None
    assert clumped.se is None  # 30 s of 90 cannot say how the mean of 90 varies
    assert clumped.n == 151
