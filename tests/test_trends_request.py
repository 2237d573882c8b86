"""The request in the address of the trends page, the score's line, and the past in buckets."""

from __future__ import annotations

import numpy as np
import pytest

from selftune.coarse import Coarse
from selftune.downsample import downsample, of_coarse
from selftune.needs import score_line
from selftune.trends import LONGEST_S, asked, fixed_query, instant, stamp
from tests.stage import T0, Scene, Story, settings_with

P = Scene(Story()).picture(1.0)
END = T0 + 1000


def test_the_default_is_an_hour_that_moves() -> None:
    a = asked({}, P, END)
    assert (a.window, a.live, a.end_ms - a.start_ms, dict(a.unknown)) == ("1h", True, 3_600_000, {})


@pytest.mark.parametrize("bad", ["", "now", "2026-01-01T00:00:00", "0001-01-01T00:00:00Z", "x" * 5000])
def test_only_whole_instants_count(bad: str) -> None:
    assert instant(bad) is None


def test_a_fixed_stretch_is_the_same_again() -> None:
    a = asked({"from": stamp(T0), "to": stamp(T0 + 60_000), "rule": "risk_max"}, P, END)
    assert not a.live and a.rule == "risk_max"
    assert asked(fixed_query(a), P, END + 99_999).start_ms == a.start_ms


def test_a_long_stretch_is_cut_and_says_so() -> None:
    a = asked({"from": "2020-01-01T00:00:00Z", "to": stamp(T0)}, P, END)
    assert a.cut and a.end_ms - a.start_ms == LONGEST_S * 1000


def test_a_backward_stretch_shows_the_default() -> None:
    assert asked({"from": stamp(T0), "to": stamp(T0 - 5000), "w": "custom"}, P, END).live


def coarse(values: list[float], count: list[int]) -> Coarse:
    n = len(values)
    same = {m: np.array(values) for m in settings_with().targets}
    return Coarse(
        start_ms=T0 + 10_000 * np.arange(n), count={m: np.array(count) for m in same}, mean=same
    )  # fmt: skip


def test_score_line_weighs_bins_by_their_samples() -> None:
    s = settings_with()
    line = score_line(coarse([0.0, 1.0], [30, 10]), s, step_ms=20_000)
    alone = score_line(coarse([0.25, 0.25], [20, 20]), s, step_ms=20_000)
    assert line.score == pytest.approx(alone.score) and len(line.score) == 1


def test_score_line_of_minutes_has_more_than_a_few_points() -> None:
    line = score_line(coarse([0.5] * 60, [50] * 60), settings_with())
    assert len(line.t_ms) == 60, "ten minutes, bin by bin"


def test_score_line_of_nothing() -> None:
    assert score_line(Coarse.empty(), settings_with()).covers_s == 0
    assert score_line(coarse([float("nan")], [0]), settings_with()).score == [None]


def test_means_become_buckets_with_their_spread() -> None:
    c = coarse([0.1, 0.3] * 50, [50] * 100)
    b = downsample(of_coarse(c, ("risk_band",)), ("risk_band",), T0, T0 + 1_000_000, 10)
    assert b.lo["risk_band"].min() == pytest.approx(0.1) and b.hi["risk_band"].max() == pytest.approx(0.3)
