"""What is learned of a response, and how sure it is: slopes, bends, jumps, lag, outliers, forgetting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.response_model import (
    LENGTH,
    Floats,
    Windows,
    lagged,
    learn,
    shapes,
    spread_at,
)

SD = 0.002


def windows(
    x: Floats, y: Floats, *, noise: float = SD, seed: int = 1, segment: list[int] | None = None
) -> Windows:
    """Windows at these values with these true means, one a cycle; the last values are the present ones."""
    dice = np.random.default_rng(seed)
    y = y if y.ndim == 2 else y[:, None]
    return Windows(
        here=x[-1], x=x, t=np.arange(len(x), dtype=float), span=np.full(len(x), 0.75),
        segment=np.array(segment if segment is not None else [0] * len(x)),
        y=y + noise * dice.standard_normal(y.shape), sd=np.full(y.shape, noise),
    )  # fmt: skip


def flat(d: int = 1, metrics: int = 1) -> Floats:
    """No prior slope."""
    return np.zeros((metrics, d))


def stairs(n: int, *, from_: float = 0.2, step: float = 0.1, stay: int = 2) -> Floats:
    """One rule that goes up a stair; `stay` windows on each."""
    return np.repeat(from_ + step * np.arange(n), stay)[:, None]


# ----------------------------------------------------------------------------- what it learns
@pytest.mark.parametrize("slope", [-0.2, -0.05, 0.05, 0.2])
@pytest.mark.parametrize("prior", [-0.03, 0.0, 0.03])
def test_data_overrule_a_prior_slope_of_either_sign(slope: float, prior: float) -> None:
    x = stairs(4)
    model = learn(windows(x, 0.3 + slope * x[:, 0]), np.array([[prior]]))
    mean, sd = model.step(np.array([0.7]))
    assert np.sign(mean[0]) == np.sign(slope)
    assert abs(mean[0] - 0.2 * slope) < 3 * sd[0]


def test_before_anything_was_moved_the_prior_speaks_and_knows_little() -> None:
    x = np.full((3, 1), 0.5)
    mean, sd = learn(windows(x, np.full(3, 0.3)), np.array([[0.03]])).step(np.array([0.6]))
    assert mean[0] == pytest.approx(0.003)
    assert sd[0] > 0.005


def test_a_bend_is_followed() -> None:
    x = stairs(8, from_=0.1)
    y = 0.3 + 0.3 * (x[:, 0] - 0.5) ** 2
    model = learn(windows(x, y), flat())
    mean, _ = model.predict(np.array([[0.4], [0.6], [0.8]]))
    assert mean[:, 0] == pytest.approx([0.303, 0.303, 0.327], abs=0.006)


def test_the_farther_the_less_sure() -> None:
    x = stairs(3)
    model = learn(windows(x, 0.3 + 0 * x[:, 0]), flat())
    _, sd = model.predict(np.array([[0.4], [0.5], [0.6], [0.8], [1.0]]))
    assert np.all(np.diff(sd[:, 0]) > 0)


def test_more_windows_make_it_surer() -> None:
    x = stairs(4)
    few = learn(windows(x, 0.3 + 0.1 * x[:, 0]), flat()).step(np.array([0.45]))[1][0]
    twice = np.concatenate([x, x[::-1], x])
    more = learn(windows(twice, 0.3 + 0.1 * twice[:, 0]), flat()).step(np.array([0.45]))[1][0]
    assert more < few


def test_a_fall_while_walking_is_put_down_to_the_walk() -> None:
    """Past the best values each step costs a little; what lies behind must stay known as better."""
    way = np.concatenate([stairs(12, from_=0.1, step=0.05, stay=1), np.full((6, 1), 0.7)])
    y = 0.30 - 0.4 * (way[:, 0] - 0.4) ** 2
    model = learn(windows(way, y), flat())
    mean, _ = model.predict(np.array([[0.4], [0.7]]))
    assert mean[0, 0] - mean[1, 0] == pytest.approx(0.036, abs=0.01)


def test_intervals_cover_what_they_promise() -> None:
    """The change of one more step, on systems drawn at random: 95 % intervals cover 90 % or more."""
    inside, dice = 0, np.random.default_rng(7)
    for seed in range(120):
        slope, bend = dice.normal(0, 0.08), dice.normal(0, 0.1)
        x = stairs(int(dice.integers(2, 6)), from_=0.3)
        model = learn(windows(x, 0.3 + slope * x[:, 0] + bend * x[:, 0] ** 2, seed=seed), flat())
        at = float(x[-1, 0])
        mean, sd = model.step(np.array([at + 0.1]))
        truth = 0.1 * slope + bend * ((at + 0.1) ** 2 - at**2)
        inside += abs(truth - mean[0]) <= 1.96 * sd[0]
    assert inside >= 0.9 * 120


def test_two_rules_are_told_apart() -> None:
    x = np.array([[0.3, 0.3]] * 2 + [[0.4, 0.3]] * 2 + [[0.4, 0.4]] * 2 + [[0.5, 0.4]] * 2 + [[0.5, 0.5]] * 2)
    model = learn(windows(x, 0.3 - 0.1 * x[:, 0] + 0.05 * x[:, 1]), flat(2))
    assert model.step(np.array([0.6, 0.5]))[0][0] == pytest.approx(-0.01, abs=0.004)
    assert model.step(np.array([0.5, 0.6]))[0][0] == pytest.approx(0.005, abs=0.004)


def test_a_metric_learns_nothing_from_another() -> None:
    x = stairs(4)
    y = np.stack([0.3 + 0.2 * x[:, 0], np.full(len(x), 0.1)], axis=1)
    mean, _ = learn(windows(x, y), flat(1, 2)).step(np.array([0.6]))
    assert mean[0] > 0.01
    assert abs(mean[1]) < 0.004


# ----------------------------------------------------------------------------- when the world changes
def test_a_jump_at_unchanged_values_begins_a_segment() -> None:
    x = np.full((20, 1), 0.5)
    y = np.where(np.arange(20) < 14, 0.30, 0.36)
    model = learn(windows(x, y), flat())
    assert list(model.windows.segment) == [0] * 14 + [1] * 6
    assert model.segment_age == pytest.approx(6.0)
    assert model.predict(np.array([[0.5]]))[0][0, 0] == pytest.approx(0.36, abs=0.003)


@pytest.mark.parametrize("what", ["quiet", "one bad window", "a move", "slow drift"])
def test_what_is_no_jump(what: str) -> None:
    x, y = np.full((24, 1), 0.5), np.full(24, 0.30)
    if what == "one bad window":
        y[15] += 0.05
    if what == "a move":
        x[15:], y[15:] = 0.6, 0.34
    if what == "slow drift":
        y += 0.0005 * np.arange(24)
    assert set(learn(windows(x, y), flat()).windows.segment) == {0}


def test_one_bad_window_hardly_moves_the_model() -> None:
    x = stairs(5, stay=3)
    y = 0.3 + 0.1 * x[:, 0]
    clean = learn(windows(x, y), flat()).step(np.array([0.7]))[0][0]
    y = y.copy()
    y[7] += 0.1
    assert learn(windows(x, y), flat()).step(np.array([0.7]))[0][0] == pytest.approx(clean, abs=0.008)


def test_what_is_known_of_the_shape_outlives_a_jump_in_part() -> None:
    x = np.concatenate([stairs(5), np.full((8, 1), 0.6)])
    y = 0.3 + 0.15 * x[:, 0]
    segment = [0] * 10 + [1] * 8
    y[10:] += 0.1
    jumped, knew = windows(x, y, segment=segment), windows(x[10:], y[10:])
    mean, sd = learn(jumped, flat()).step(np.array([0.7]))
    blank_mean, blank_sd = learn(knew, flat()).step(np.array([0.7]))
    assert blank_mean[0] < mean[0] < 0.015
    assert sd[0] < blank_sd[0]


# ----------------------------------------------------------------------------- slow systems
def test_a_slow_system_was_between_its_values() -> None:
    x = np.concatenate([np.full((3, 1), 0.2), np.full((5, 1), 0.4)])
    w = windows(x, x[:, 0])
    at = lagged(w, 1.2)[:, 0]
    assert list(at[:3]) == [pytest.approx(0.2)] * 3
    assert 0.2 < at[3] < at[4] < at[7] < 0.4
    assert np.all(np.diff(at) >= -1e-12)
    assert lagged(w, 0.01)[:, 0] == pytest.approx(x[:, 0], abs=1e-3)


def test_windows_told_as_one_had_come_as_far_as_their_mean() -> None:
    x = np.concatenate([np.full((3, 1), 0.2), np.full((6, 1), 0.4)])
    w = replace(windows(x, x[:, 0]), span=np.full(9, 1.0), t=np.arange(9) + 0.5)  # without a pause
    one = replace(w, x=x[[0, 1, 2, 3]], t=np.array([0.5, 1.5, 2.5, 6.0]), span=np.array([1.0, 1.0, 1.0, 6.0]))
    assert lagged(one, 1.2)[3, 0] == pytest.approx(lagged(w, 1.2)[3:, 0].mean())


def test_a_lag_is_found_where_there_is_one() -> None:
    x = stairs(8, stay=2)
    w = windows(x, np.zeros(len(x)))
    slow = replace(w, y=0.3 + 0.3 * lagged(w, 1.2) + SD * np.random.default_rng(3).standard_normal(w.y.shape))
    quick = replace(w, y=0.3 + 0.3 * x + SD * np.random.default_rng(3).standard_normal(w.y.shape))
    assert np.max(np.abs(learn(slow, flat()).windows.x - x)) > 0.02
    assert np.array_equal(learn(quick, flat()).windows.x, x)


# ----------------------------------------------------------------------------- the covariance itself
POINTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2)), min_size=1, max_size=8)


@given(points=POINTS, here=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_every_covariance_is_one(points: list[tuple[float, float, int]], here: tuple[float, float]) -> None:
    x, at = np.array([p[:2] for p in points]), np.array(here)
    t, g = np.arange(len(x), dtype=float), np.sort(np.array([p[2] for p in points]))
    both = shapes(x, t, g, x, t, g, at)
    cov = both.of(2.0, 1.0)
    assert cov == pytest.approx(cov.T)
    assert np.linalg.eigvalsh(cov).min() > -1e-9
    assert np.diag(both.response) == pytest.approx(spread_at(x, at), abs=1e-12)


def test_from_here_the_response_to_staying_is_certain() -> None:
    here = np.array([0.3, 0.7])
    assert spread_at(here[None, :], here)[0] == pytest.approx(0.0, abs=1e-15)
    assert spread_at(np.array([[0.3 + LENGTH, 0.7]]), here)[0] > 0.0
