"""The small judgements behind a page: pulse, age, standing against a target."""

from __future__ import annotations

import numpy as np
import pytest

from selftune.domain import Target
from selftune.series import Series
from selftune.view import (
    DataAge,
    LoopState,
    Standing,
    data_age,
    loop_state,
    metric_card,
    share_s,
    worst,
)

T0 = 1_795_300_000_000
AT_MOST = Target(metric="m", max=0.3, scale=0.3)


def series(*values: float) -> Series:
    return Series(ts_ms=T0 + 1000 * np.arange(len(values)), values={"m": np.array(values)})


@pytest.mark.parametrize(
    ("age_s", "state"),
    [(None, LoopState.NONE), (0, LoopState.ALIVE), (2, LoopState.ALIVE), (2.1, LoopState.LATE),
     (5, LoopState.LATE), (5.1, LoopState.STOPPED), (-1, LoopState.ALIVE), (-3600, LoopState.STOPPED)],
)  # fmt: skip
def test_pulse(age_s: float | None, state: LoopState) -> None:
    assert loop_state(age_s) is state


@pytest.mark.parametrize(("age_s", "state"), [(None, DataAge.NONE), (5, DataAge.FRESH), (5.1, DataAge.OLD)])
def test_age_of_data(age_s: float | None, state: DataAge) -> None:
    assert data_age(age_s, 5.0) is state


@pytest.mark.parametrize(
    ("target", "value", "standing", "gap", "at_most"),
    [
        (AT_MOST, 0.3, Standing.MET, 0.0, True),
        (AT_MOST, 0.35, Standing.MISSED, 0.05, True),
        (Target(metric="m", min=0.24), 0.2, Standing.MISSED, 0.04, False),
        (Target(metric="m", min=0.1, max=0.3), 0.05, Standing.MISSED, 0.05, False),
        (Target(metric="m", min=0.1, max=0.3), 0.2, Standing.MET, 0.0, True),
        (None, 0.2, Standing.UNKNOWN, None, True),
    ],
)
def test_standing(
    target: Target | None, value: float, standing: Standing, gap: float | None, at_most: bool
) -> None:
    card = metric_card(series(value), "m", target)
    assert card.standing is standing and card.at_most is at_most
    assert card.gap == (None if gap is None else pytest.approx(gap))


def test_a_card_is_the_mean_of_its_last_seconds_not_one_sample() -> None:
    card = metric_card(series(9.0, *[0.2] * 29, 0.5), "m", AT_MOST, window_s=30)
    assert card.samples == 30 and card.value == pytest.approx((29 * 0.2 + 0.5) / 30)


@pytest.mark.parametrize("values", [(), (np.nan, np.nan), (np.inf,)])
def test_no_finite_value_is_unknown_never_met(values: tuple[float, ...]) -> None:
    card = metric_card(series(*values), "m", AT_MOST)
    assert card.standing is Standing.UNKNOWN and card.value is None and card.limit == 0.3


def test_worst_is_measured_in_scales() -> None:
    near = metric_card(series(105.0), "m", Target(metric="ms", max=100.0, scale=100.0))
    far = metric_card(series(0.45), "m", AT_MOST)
    met = metric_card(series(0.1), "m", AT_MOST)
    assert worst([met, near, far]) is far
    assert worst([met]) is met and worst([metric_card(series(), "m", AT_MOST)]) is None


def test_the_more_look_the_longer_they_share_one_look_at_the_files() -> None:
    assert [share_s(0.4, n) for n in (0, 1, 4, 10, 20, 500)] == [0.4, 0.4, 0.4, 1.0, 2.0, 2.0]
