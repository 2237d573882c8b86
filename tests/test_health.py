"""What the stream's state is called: fresh, stale, gapped, frozen, ahead."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from selftune.config import pace_of
from selftune.domain import Target
from selftune.health import Health, cleaned, data_health, frozen_mask, scale_for
from selftune.series import Series
from tests.test_effects import make_settings

NOW = 1_800_000_000_000
TWO = {m: Target(metric=m, max=0.2, lo=0.0, hi=1.0) for m in ("risk_band", "phase_diff")}
SETTINGS = make_settings(targets=TWO)


def stream(seconds: float = 700, *, last_s: float = 0.0, seed: int = 1) -> Series:
    """Two moving metrics at 5 Hz, the newest sample `last_s` before NOW."""
    rng = np.random.default_rng(seed)
    n = round(seconds * 5)
    ts = NOW - round(last_s * 1000) - 200 * np.arange(n, dtype=np.int64)[::-1]
    return Series(ts_ms=ts, values={m: np.round(0.3 + 0.02 * rng.normal(size=n), 3) for m in TWO})


def having(series: Series, metric: str, values: NDArray[np.float64]) -> Series:
    return dataclasses.replace(series, values={**series.values, metric: values})


def health(series: Series, now_ms: int = NOW) -> Health:
    return data_health(series, SETTINGS, now_ms)


def test_a_good_stream_is_fresh_whole_and_moving() -> None:
    h = health(stream())
    assert (h.newest_ms, h.age_s, h.rate_hz) == (NOW, 0.0, 5.0)
    assert (h.stale, h.clock_ahead, h.enough, h.frozen, h.gaps) == (False, False, True, (), 0)
    assert max(h.missing.values()) == 0
    assert h.fresh == {"risk_band": 0.0, "phase_diff": 0.0}


@pytest.mark.parametrize(("age_s", "stale"), [(0.0, False), (5.0, False), (5.2, True), (10_000.0, True)])
def test_stale_is_older_than_max_age(age_s: float, stale: bool) -> None:
    h = health(stream(last_s=age_s))
    assert (h.age_s, h.stale) == (age_s, stale)


def test_without_samples_nothing_is_known() -> None:
    h = health(Series.empty(("risk_band",)))
    assert (h.newest_ms, h.age_s, h.rate_hz, h.stale, h.enough) == (None, None, None, True, False)
    assert h.missing["risk_band"] == 1.0
    assert h.fresh["risk_band"] is None


def test_a_few_rows_ahead_are_set_aside_most_of_them_are_a_fault() -> None:
    some = stream(last_s=-3.0)  # 3 s of the last 5 are within 2 s of now
    h = health(some)
    assert not h.clock_ahead
    assert not h.stale
    assert h.newest_ms is not None
    assert h.newest_ms <= NOW + 2000
    most = health(stream(last_s=-6.0))
    assert most.clock_ahead
    assert most.stale
    told = health(dataclasses.replace(stream(), ahead_share=0.6))  # the reader saw them and left them out
    assert told.clock_ahead


def test_gaps_and_missing_shares_stand_on_the_last_window() -> None:
    series = stream()
    age_s = (NOW - series.ts_ms) / 1000
    keep = ~((age_s > 30) & (age_s < 48)) & ~((age_s > 300) & (age_s < 400))
    cut = Series(ts_ms=series.ts_ms[keep], values={m: v[keep] for m, v in series.values.items()})
    h = health(cut)
    assert h.gaps == 1
    assert h.longest_gap_s == pytest.approx(18, abs=0.5)
    assert h.missing["risk_band"] == pytest.approx(0.2, abs=0.01)


def test_cells_out_of_range_or_not_a_number_are_missing_for_that_metric_alone() -> None:
    series = stream()
    y = series.values["risk_band"].copy()
    y[-100:-50], y[-50:-40] = 5.0, np.inf
    h = health(having(series, "risk_band", y))
    assert h.missing["risk_band"] == pytest.approx(60 / 450)
    assert h.missing["phase_diff"] == 0


def test_too_low_a_rate_for_min_samples() -> None:
    """At 1 Hz a window of 90 s holds 90, 120 x 1.2 are asked for."""
    series = stream()
    slow = Series(ts_ms=series.ts_ms[::5], values={m: v[::5] for m, v in series.values.items()})
    assert not health(slow).enough
    assert health(series).enough


# ----------------------------------------------------------------------------- frozen
def freeze(seconds: float, value: float | None = None, *, lead: bool = False) -> Series:
    """risk_band stands still for the last `seconds`, at a middling value unless given."""
    series = stream()
    y = series.values["risk_band"].copy()
    n = round(seconds * 5) + 1
    y[-n:] = np.median(y) if value is None else value
    out = having(series, "risk_band", y)
    if lead:  # the other metric stands still too
        other = series.values["phase_diff"].copy()
        other[-n:] = np.median(other)
        out = having(out, "phase_diff", other)
    return out


@pytest.mark.parametrize(("seconds", "frozen"), [(5, False), (9.8, False), (10.4, True), (60, True)])
def test_frozen_after_ten_seconds(seconds: float, frozen: bool) -> None:
    h = health(freeze(seconds))
    assert h.frozen == (("risk_band",) if frozen else ())
    if frozen:
        assert h.missing["risk_band"] == pytest.approx(seconds * 5 / 450, abs=2 / 450)
        fresh = h.fresh["risk_band"]
        assert fresh is not None
        assert fresh >= seconds - 0.3


def test_a_freeze_is_seen_wherever_it_begins_and_however_the_samples_lie() -> None:
    """A quick look at a few samples rules most of them out: it never rules out one that is there."""
    rng = np.random.default_rng(7)
    for _ in range(300):
        s = stream(60 + 30 * rng.random(), seed=int(rng.integers(1_000_000)))
        ts = s.ts_ms + rng.integers(-80, 80, len(s)).cumsum() * int(rng.integers(2))
        first, n = int(rng.integers(len(s) - 60)), int(rng.integers(40, 60))
        values = s.values["risk_band"].copy()
        values[first : first + n] = values[first]
        found = having(dataclasses.replace(s, ts_ms=np.sort(ts)), "risk_band", values)
        lasts = (found.ts_ms[first + n - 1] - found.ts_ms[first]) / 1000
        same = values[first - 1] == values[first] or values[min(first + n, len(s) - 1)] == values[first]
        ends = values[first] in (values.min(), values.max())
        if not same and not ends:
            assert frozen_mask(found, "risk_band", None).any() == (lasts > 10.0)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_at_an_end_of_its_range_a_metric_rests(end: float) -> None:
    assert health(freeze(60, end)).frozen == ()


def test_when_nothing_moves_nothing_is_frozen() -> None:
    """All still at once is the system at rest or the writer's doing: staleness decides, not this."""
    assert health(freeze(60, lead=True)).frozen == ()


def test_a_metric_that_seldom_changes_is_not_frozen_between_changes() -> None:
    series = stream()
    rng = np.random.default_rng(2)
    blocks = np.round(rng.uniform(0.1, 0.9, len(series) // 40 + 1), 3)
    seldom = np.repeat(blocks, 40)[: len(series)].copy()  # a new value each 8 s
    seldom[-150:] = 0.5  # 30 s: under 5 x 8 s
    assert health(having(series, "risk_band", seldom)).frozen == ()
    seldom[-300:] = 0.5  # 60 s
    assert health(having(series, "risk_band", seldom)).frozen == ("risk_band",)


def test_one_old_freeze_does_not_excuse_the_next() -> None:
    series = freeze(30)
    y = series.values["risk_band"].copy()
    y[500:1000] = 0.311
    assert health(having(series, "risk_band", y)).frozen == ("risk_band",)


def test_the_first_sample_of_a_freeze_is_still_good() -> None:
    series = freeze(20)
    mask = frozen_mask(series, "risk_band", TWO["risk_band"])
    y = series.values["risk_band"]
    assert mask.sum() in (100, 101)
    first = int(np.flatnonzero(mask)[0])
    assert y[first - 1] == y[first]
    assert y[first - 2] != y[first]


# ----------------------------------------------------------------------------- parts
def test_cleaned_keeps_the_array_when_there_is_nothing_to_clean() -> None:
    y = np.array([0.0, 0.5, 1.0])
    assert cleaned(y, TWO["risk_band"]) is y
    assert np.isnan(cleaned(np.array([-0.1, 0.5, 1.1, np.inf]), TWO["risk_band"])).tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("window", "settle", "history", "pace"),
    [
        (90, 20, 600, 1),
        (300, 20, 600, 1),
        (45, 20, 600, 1),
        (30, 5, 600, 1),
        (9, 2, 60, 0.1),
        (1, 0.2, 4, 1 / 90),
    ],
)
def test_pace_shrinks_only_when_the_whole_root_does(
    window: float, settle: float, history: float, pace: float
) -> None:
    s = make_settings(observe_window_s=window, settle_s=settle, history_s=history)
    assert pace_of(s) == pytest.approx(pace)
    ts = np.arange(0, 10_000, 200, dtype=np.int64)
    assert scale_for(s, ts).bin_ms == max(200, round(1000 * pace))
