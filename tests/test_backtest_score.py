"""What a backtest may say from few windows: never more than they tell."""

from __future__ import annotations

import numpy as np
import pytest

from selftune.backtest_score import Seen, Who, choices, gain_at, mean_of, outcome
from selftune.backtest_story import Story, Wanted
from selftune.domain import Reason

MINUTE_MS = 60_000


def seen(*scores: tuple[int, float]) -> Seen:
    """Windows a minute apart: (which of two places, score)."""
    n = len(scores)
    starts = np.arange(n, dtype=np.int64) * MINUTE_MS
    return Seen(
        rules=("a",), start_ms=starts, end_ms=starts + MINUTE_MS, score=np.array([s for _, s in scores]),
        place=np.array([p for p, _ in scores], np.int64), regime=np.zeros(n, np.int64),
        places=((0.5,), (0.6,)), reach_ms=1e9, decimals=3,
    )  # fmt: skip


def test_two_windows_a_side_have_two_degrees_of_freedom() -> None:
    """A proposal judged by few windows has the wide interval of few, not that of many."""
    few = seen((0, 0.70), (0, 0.72), (1, 0.78), (1, 0.80))
    gain, doubt, nu = gain_at(few, 0, (0.6,))
    assert (gain, nu) == (pytest.approx(0.08), 2)
    story = Story(looks=1)
    story.want(Wanted(ts_ms=0, rule="a", old=0.5, new=0.6, reason=Reason("why.expects"), fresh=True))
    who = Who(name="x", role="candidate", policy="adaptive", config="c")
    found = outcome(who, few, story, choices(few, ())).proposals[0].gain
    assert found is not None
    assert (found.hi - found.lo) / 2 == pytest.approx(4.303 * doubt, rel=1e-3)


@pytest.mark.parametrize(("least", "low"), [(0.0, 0.0), (-1.0, -1.0)])
def test_too_few_values_leave_everything_possible(least: float, low: float) -> None:
    found = mean_of(np.array([0.05, 0.06, np.nan]), least=least)
    assert found is not None
    assert (found.lo, found.hi) == (low, 1.0)
