"""What was seen at those values: prediction, chance of the hard limit, safe home, jumps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from selftune.domain import WindowStat
from selftune.judging import QuietWindow
from selftune.seen import Seen
from tests.stage import HARD, LIVE, OFF, settings_with

SETTINGS = settings_with({**LIVE, **HARD})
HERE = {"creative_min": 0.22, "risk_max": 0.33}
HOME = {"creative_min": 0.22, "risk_max": 0.35}


def window(
    i: int, values: Mapping[str, float] = HERE, *, regime: int = 0, se: float = 0.002, **means: float
) -> QuietWindow:
    stats = {
        m: WindowStat(mean=means.get(m, x), se=se, n=450, start_ms=i * 90_000, end_ms=(i + 1) * 90_000)
        for m, x in OFF.items()
    }
    return QuietWindow(
        start_ms=i * 90_000, end_ms=(i + 1) * 90_000, values=values, regime=regime, stats=stats
    )


def seen(*windows: QuietWindow, regime: int = 0) -> Seen:
    return Seen(windows=windows, regime=regime, settings=SETTINGS)


def test_it_predicts_the_mean_of_the_latest_windows_at_those_values() -> None:
    found = seen(*(window(i, risk_band=0.30 if i < 5 else 0.34) for i in range(10))).predict(HERE)
    assert found is not None
    assert found["risk_band"][0] == pytest.approx(0.34)


def test_what_was_never_seen_is_not_predicted() -> None:
    assert seen(window(0)).predict(HOME) is None
    assert seen(window(0, regime=0), regime=1).predict(HERE) is None
    assert seen(window(0)).p_hard(HOME) is None


def test_drift_between_windows_widens_the_prediction() -> None:
    calm = seen(*(window(i) for i in range(8))).predict(HERE)
    restless = seen(*(window(i, risk_band=0.33 + 0.02 * (i % 2)) for i in range(8))).predict(HERE)
    assert calm is not None
    assert restless is not None
    assert restless["risk_band"][1] > 5 * calm["risk_band"][1]


@pytest.mark.parametrize(
    ("home", "here", "safe"),
    [
        (0.30, 0.30, True),  # far below the limit of .45
        (0.449, 0.30, False),  # about even chance at home, none here
        (0.47, 0.48, True),  # over the limit here as well, and by more
        (0.48, 0.47, True),  # both certain
        (0.30, 0.48, True),
    ],
)
def test_safe_home(home: float, here: float, safe: bool) -> None:
    model = seen(*(window(i, HOME, risk_band=home) for i in range(4)),
                 *(window(i + 4, HERE, risk_band=here) for i in range(4)))  # fmt: skip
    assert model.safe_home(HOME, HERE)[0] is safe


def test_a_home_that_was_never_seen_is_safe_and_without_limits_every_home_is() -> None:
    assert seen(window(0)).safe_home(HOME, HERE) == (True, None)
    free = Seen(windows=(window(0),), regime=0, settings=settings_with(LIVE))
    assert free.safe_home(HOME, HERE) == (True, 0.0)


# ----------------------------------------------------------------------------- jumps
def _run(n: int, jump: Mapping[int, float], seed: int = 0, sd: float = 0.002) -> tuple[QuietWindow, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        window(i, se=sd, **{m: x + rng.normal(0, sd) + jump.get(i, 0.0) for m, x in OFF.items()})
        for i in range(n)
    )


def test_two_of_the_last_three_windows_make_a_jump_one_does_not() -> None:
    assert seen(*_run(20, {19: 0.05})).jumped(HERE) is None
    found = seen(*_run(20, {18: 0.05, 19: 0.05})).jumped(HERE)
    assert found is not None
    assert found[0] == 18 * 90_000
    assert seen(*_run(20, {17: 0.05, 19: 0.05})).jumped(HERE) is not None


def test_a_short_past_says_nothing() -> None:
    assert seen(*_run(8, {6: 0.05, 7: 0.05})).jumped(HERE) is None
    assert seen(*_run(9, {7: 0.05, 8: 0.05})).jumped(HERE) is not None


def test_only_windows_at_unchanged_values_count() -> None:
    before, after = _run(17, {}), [window(i, HOME, risk_band=0.5, phase_diff=0.2) for i in (17, 18, 19)]
    assert seen(*before, *after).jumped(HOME) is None


def test_chance_is_rarely_taken_for_a_jump() -> None:
    false = sum(seen(*_run(30, {}, seed=s)).jumped(HERE) is not None for s in range(400))
    assert false <= 4


def test_a_new_regime_is_not_found_twice() -> None:
    run = [w if w.start_ms < 18 * 90_000 else QuietWindow(**{**w.__dict__, "regime": 1})
           for w in _run(20, {18: 0.05, 19: 0.05})]  # fmt: skip
    assert seen(*run, regime=1).jumped(HERE) is None


# ----------------------------------------------------------------------------- a fall of the score
def noisy(n: int, sd: float, fall_at: int = 10**9, slope: float = 0.0) -> Seen:
    """`n` windows whose risk is chance about its level, worse by .03 from `fall_at` on, or ever worse."""
    dice = np.random.default_rng(4)
    risk = 0.33 + sd * dice.standard_normal(n) + 0.03 * (np.arange(n) >= fall_at) + slope * np.arange(n)
    return seen(*(window(i, risk_band=float(x)) for i, x in enumerate(risk)))


def test_a_fall_of_the_score_is_seen_whether_at_once_or_by_and_by() -> None:
    assert noisy(40, 0.002, fall_at=36).fallen(0) > 0.02
    assert noisy(40, 0.002, slope=0.03 / 40).fallen(0) > 0.02


def test_chance_and_a_gain_are_no_fall() -> None:
    assert noisy(40, 0.02).fallen(0) == 0.0
    assert noisy(40, 0.002, slope=-0.02 / 40).fallen(0) == 0.0


def test_a_fall_before_the_time_asked_for_does_not_count() -> None:
    windows = noisy(40, 0.002, fall_at=12)
    assert windows.fallen(0) > 0.02
    assert windows.fallen(14 * 90_000) == 0.0
    assert windows.fallen(38 * 90_000) == 0.0
