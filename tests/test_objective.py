"""The score: attainments, the weighted mean, and the odds of a gain against simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.config import Settings, parse
from selftune.domain import Target
from selftune.objective import attainment, objective_score, score_odds, shortfall
from tests.conftest import SHIPPED

SETTINGS = parse(SHIPPED.read_bytes())
BASE = {"phase_diff": 0.06, "creative_band": 0.23, "risk_band": 0.33, "entropy_rate": 0.2}
MET = {"phase_diff": 0.03, "creative_band": 0.30, "risk_band": 0.20, "entropy_rate": 0.2}
NONE = (0.0, 0.0, math.inf)


def weigh(**weights: float) -> Settings:
    return replace(SETTINGS, weights=weights)


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        (Target(metric="m", max=0.3, scale=0.3), 0.3, 1.0),
        (Target(metric="m", max=0.3, scale=0.3), 0.1, 1.0),
        (Target(metric="m", max=0.3, scale=0.3), 0.45, 0.5),
        (Target(metric="m", max=0.3, scale=0.3), 0.6, 0.0),
        (Target(metric="m", max=0.3, scale=0.3), 9.0, 0.0),
        (Target(metric="m", min=0.24, scale=0.24), 0.12, 0.5),
        (Target(metric="m", min=0.24, scale=0.24), -1.0, 0.0),
        (Target(metric="m", min=1.0, max=2.0, scale=1.0), 1.5, 1.0),
        (Target(metric="m", min=1.0, max=2.0, scale=1.0), 0.75, 0.75),
        (Target(metric="m", min=1.0, max=2.0, scale=1.0), 2.25, 0.75),
        (Target(metric="ms", max=200.0, scale=100.0), 250.0, 0.5),
        (Target(metric="m", max=0.3, scale=0.3), None, None),
        (Target(metric="m", max=0.3, scale=0.3), math.nan, None),
    ],
)
def test_attainment_falls_from_one_to_zero_over_the_scale(
    target: Target, value: float | None, expected: float | None
) -> None:
    found = attainment(target, value)
    assert (found is None) == (expected is None)
    if expected is not None:
        assert found == pytest.approx(expected, abs=1e-12)


def test_the_score_is_the_weighted_mean() -> None:
    settings = weigh(phase_diff=1.2, risk_band=1.0, creative_band=0.8)
    means = {"phase_diff": 0.075, "risk_band": 0.30, "creative_band": 0.12}
    assert objective_score(settings, means) == pytest.approx((1.2 * 0.5 + 1.0 + 0.8 * 0.5) / 3)


@pytest.mark.parametrize("lost", ["phase_diff", "risk_band", "creative_band"])
def test_a_weighted_metric_without_data_leaves_no_score(lost: str) -> None:
    assert objective_score(SETTINGS, {**BASE, lost: None}) is None
    assert objective_score(SETTINGS, {m: v for m, v in BASE.items() if m != lost}) is None
    assert score_odds(SETTINGS, {**BASE, lost: None}, dict.fromkeys(BASE, NONE)) is None
    assert score_odds(SETTINGS, BASE, {m: NONE for m in BASE if m != lost}) is None


def test_an_unweighted_metric_may_be_missing() -> None:
    assert objective_score(SETTINGS, {**BASE, "entropy_rate": None}) == objective_score(SETTINGS, BASE)


@pytest.mark.parametrize("nu", [2.0, 5.0, math.inf])
def test_the_odds_agree_with_simulation(nu: float) -> None:
    shift = {
        "phase_diff": (-0.004, 0.006, nu),
        "risk_band": (-0.01, 0.012, nu),
        "creative_band": (-0.002, 0.01, nu),
    }
    at = (-0.01, 0.0, 0.006, 0.03)
    found = score_odds(SETTINGS, BASE, shift, at=at)
    assert found is not None
    rng = np.random.default_rng(3)
    n = 200_000
    draw = (lambda: rng.standard_normal(n)) if math.isinf(nu) else (lambda: rng.standard_t(nu, n))
    total = sum(SETTINGS.weights[m] for m in shift)
    gain = np.zeros(n)
    for m, (delta, sigma, _) in shift.items():
        t = SETTINGS.targets[m]
        x = BASE[m] + delta + sigma * draw()
        gap = np.maximum(0, x - t.max if t.max is not None else t.min - x)
        gain += SETTINGS.weights[m] / total * (np.maximum(0, 1 - gap / t.scale) - attainment(t, BASE[m]))
    assert found.mean == pytest.approx(gain.mean(), abs=5e-4)
    assert found.p_gain == pytest.approx(np.mean(gain > 0), abs=5e-3)
    assert found.p_loss == pytest.approx(np.mean(gain < 0), abs=5e-3)
    for a, p in zip(at, found.p_above, strict=True):
        assert p == pytest.approx(np.mean(gain > a), abs=5e-3)


def test_a_metric_well_inside_its_target_moves_nothing() -> None:
    still = score_odds(SETTINGS, MET, dict.fromkeys(MET, NONE))
    moved = score_odds(SETTINGS, MET, dict.fromkeys(MET, (0.005, 0.0005, 30.0)))
    assert still is not None and moved is not None
    assert still.mean == 0.0 and still.p_gain == 0.0 and still.p_loss == 0.0
    assert moved.mean == pytest.approx(0.0, abs=1e-12) and moved.p_loss < 1e-9


def test_an_exactly_known_move_is_certain() -> None:
    sure = score_odds(SETTINGS, BASE, {**dict.fromkeys(BASE, NONE), "risk_band": (-0.03, 0.0, math.inf)})
    assert sure is not None
    assert (sure.p_gain, sure.p_loss) == (1.0, 0.0)
    assert sure.mean == pytest.approx(0.1 / 3)


deltas = st.floats(-0.1, 0.1)
sigmas = st.one_of(st.just(0.0), st.just(5e-324), st.floats(0.0, 0.1))
nus = st.one_of(st.floats(2, 200), st.just(math.inf))


@given(delta=deltas, more=st.floats(0, 0.1), sigma=sigmas, nu=nus, other=deltas)
def test_less_risk_never_lowers_the_odds(
    delta: float, more: float, sigma: float, nu: float, other: float
) -> None:
    rest = {"phase_diff": (other, 0.01, 8.0), "creative_band": (0.0, 0.01, 8.0)}
    a = score_odds(SETTINGS, BASE, {**rest, "risk_band": (delta, sigma, nu)})
    b = score_odds(SETTINGS, BASE, {**rest, "risk_band": (delta - more, sigma, nu)})
    assert a is not None and b is not None
    # which metric is integrated exactly does not depend on delta, so even the lattice error is the same
    assert b.mean >= a.mean - 1e-12
    assert b.p_gain >= a.p_gain - 1e-12 and b.p_loss <= a.p_loss + 1e-12


@given(level=st.floats(0.1, 0.5), delta=deltas, sigma=sigmas, nu=nus)
def test_min_and_max_targets_are_mirror_images(level: float, delta: float, sigma: float, nu: float) -> None:
    down = replace(SETTINGS, targets={"m": Target(metric="m", max=0.3, scale=0.3)}, weights={"m": 1.0})
    up = replace(SETTINGS, targets={"m": Target(metric="m", min=-0.3, scale=0.3)}, weights={"m": 1.0})
    a = score_odds(down, {"m": level}, {"m": (delta, sigma, nu)})
    b = score_odds(up, {"m": -level}, {"m": (-delta, sigma, nu)})
    assert a is not None and b is not None
    assert a.mean == pytest.approx(b.mean, abs=1e-9)
    assert a.p_gain == pytest.approx(b.p_gain, abs=1e-9) and a.p_loss == pytest.approx(b.p_loss, abs=1e-9)


@given(sigma=st.floats(1e-4, 0.05), nu=nus, delta=deltas)
def test_a_small_change_of_input_is_a_small_change_of_odds(sigma: float, nu: float, delta: float) -> None:
    def odds(d: float) -> float:
        found = score_odds(SETTINGS, BASE, {m: (d if m == "risk_band" else 0.0, sigma, nu) for m in BASE})
        assert found is not None
        return found.p_gain

    assert abs(odds(delta) - odds(delta + 1e-3 * sigma)) < 5e-3


@given(value=st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_shortfall_is_never_negative(value: float) -> None:
    assert shortfall(Target(metric="m", min=0.0, max=1.0), value) >= 0.0
