"""Where the stream was left alone: stretches, windows inside them, and the values in force there."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.adaptive import adaptive
from selftune.cycle import policy_state
from selftune.policy_state import PolicyState
from selftune.quiet import Quiet, brief_windows, quiet_history_s, quiet_of, quiet_windows, stretches
from tests.stage import GOOD, LIVE, OFF, Scene, Story, made, ms, settings_with

SETTINGS = settings_with(LIVE)


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([], [(0, 1000)]),
        ([500], [(0, 500), (520, 1000)]),
        ([500, 510], [(0, 500), (530, 1000)]),  # washouts that overlap
        ([510, 500], [(0, 500), (530, 1000)]),  # in any order
        ([-10], [(10, 1000)]),  # a washout that reaches in
        ([-30], [(0, 1000)]),
        ([990], [(0, 990)]),
        ([1000, 2000], [(0, 1000)]),
        ([0], [(20, 1000)]),
        (list(range(0, 1000, 15)), []),
    ],
)
def test_stretches(events: list[int], found: list[tuple[int, int]]) -> None:
    seconds = [e * 1000 for e in events]
    assert stretches(seconds, 20.0, 0, 1_000_000) == [(a * 1000, b * 1000) for a, b in found]


@given(st.lists(st.integers(-50, 1050), max_size=20), st.integers(0, 40))
def test_no_stretch_touches_an_event_or_its_washout(events: list[int], settle: int) -> None:
    found = stretches(events, settle / 1000, 0, 1000)
    assert all(0 <= a < b <= 1000 for a, b in found)
    assert all(b <= c for (_, b), (c, _) in pairwise(found))
    for e in events:
        assert all(b <= e or a >= e + settle for a, b in found)
    covered = {t for a, b in found for t in range(a, b)}
    assert covered == {t for t in range(1000) if all(not e <= t < max(e + settle, e) for e in events)}


@pytest.mark.parametrize(
    ("events", "seconds"),
    [([], 600.0), ([-300.0], 580.0), ([-80.0], 520.0), ([-300.0, -215.0], 495.0), ([-700.0], 600.0)],
)
def test_quiet_history_counts_long_stretches_of_the_last_ten_minutes(
    events: list[float], seconds: float
) -> None:
    series = made([(-1800, OFF)], 0.0, start=-1800)
    found = quiet_history_s(series, [ms(e) for e in events], SETTINGS, ms(0))
    assert found == pytest.approx(seconds, abs=1)


def test_nothing_seen_is_no_quiet_history() -> None:
    assert quiet_history_s(made([], 0.0), [], SETTINGS, ms(0)) == 0.0


def test_windows_lie_inside_the_quiet_and_know_the_values_in_force() -> None:
    story = Story(SETTINGS)
    story.at(-900).foreign("risk_max", 0.33)
    story.at(-500).foreign("risk_max", 0.31)
    stage = Scene(story, levels=[(-1800, OFF), (-900, {"risk_band": 0.31}), (-500, {"risk_band": 0.29})])
    windows = stage.picture(0).quiet
    for w in windows:
        assert w.end_ms - w.start_ms == 90_000
        for e in story.events:
            assert w.end_ms <= e.ts_ms or w.start_ms >= e.ts_ms + 20_000
    by_value = {w.values["risk_max"]: w.stats["risk_band"].mean for w in windows}
    assert by_value == {
        0.35: pytest.approx(0.33, abs=0.001),
        0.33: pytest.approx(0.31, abs=0.001),
        0.31: pytest.approx(0.29, abs=0.001),
    }
    assert [sum(w.values["risk_max"] == v for w in windows) for v in (0.35, 0.33, 0.31)] == [10, 4, 5]


def test_no_window_spans_a_confirmation() -> None:
    stage = Scene(Story(SETTINGS))
    snap = stage.snapshot(0)
    free = quiet_windows(snap.series, snap.coarse, [], SETTINGS)
    mark = free[3].start_ms + 40_000
    cut = quiet_windows(snap.series, snap.coarse, [], SETTINGS, marks_ms=(mark,))
    assert any(w.start_ms < mark < w.end_ms for w in free)
    assert not any(w.start_ms < mark < w.end_ms for w in cut)


def test_a_window_with_a_third_missing_is_none() -> None:
    stage = Scene(Story(SETTINGS), gaps=[(-1790.0, -1755.0)])
    assert min(w.start_ms for w in stage.picture(0).quiet) == ms(-1710)
    stage.gaps = [(-1790.0, -1765.0)]
    assert min(w.start_ms for w in stage.picture(0).quiet) == ms(-1800)


def test_the_error_of_a_window_is_that_of_its_batches() -> None:
    found = []
    for seed in range(12):
        stage = Scene(Story(SETTINGS), noise=dict.fromkeys(OFF, 0.03), seed=seed)
        found += [w.stats["risk_band"].se or 0.0 for w in stage.picture(0).quiet]
    expected = 0.03 / (450**0.5)  # white noise
    assert sum(found) / len(found) == pytest.approx(expected, rel=0.1)


def test_a_fast_root_has_windows_too() -> None:
    fast = settings_with(LIVE, observe_window_s=1, settle_s=0.2, history_s=4, cooldown_s=2, min_samples=3)
    series = made([(0, OFF)], 20.0, start=0.0, hz=50.0)
    stage = Scene(Story(fast))
    windows = quiet_windows(series, stage.snapshot(0).coarse, [], fast)
    assert 15 <= len(windows) <= 20
    assert all(w.stats["risk_band"].mean == pytest.approx(0.33, abs=0.005) for w in windows)


def test_regimes_are_counted_where_a_window_begins() -> None:
    snap = Scene(Story(SETTINGS)).snapshot(0)
    windows = quiet_windows(snap.series, snap.coarse, [], SETTINGS, regimes_ms=(ms(-1000), ms(-500)))
    assert {w.regime for w in windows} == {0, 1, 2}
    assert all(w.regime == (w.start_ms >= ms(-1000)) + (w.start_ms >= ms(-500)) for w in windows)


def test_windows_taken_over_from_the_look_before_are_those_found_anew() -> None:
    story = Story(SETTINGS)
    story.at(-900).foreign("risk_max", 0.33)
    snap = Scene(story, noise=dict.fromkeys(OFF, 0.03)).snapshot(0)
    known, taken = Quiet(), 0
    for until, events, regimes in (
        (-600, story.events, ()),
        (-400, story.events, ()),  # time passed
        (-400, [], ()),  # an event is gone: other values, other stretches
        (-100, story.events, (ms(-500),)),  # a regime began
    ):
        part = snap.coarse.between(ms(-1800), ms(until))
        again = quiet_of(snap.series, part, events, SETTINGS, regimes_ms=regimes, known=known)
        fresh = quiet_of(snap.series, part, events, SETTINGS, regimes_ms=regimes)
        assert again.windows == fresh.windows
        taken += sum(any(w is k for k in known.windows) for w in again.windows)
        known = again
    assert taken > 10


def sent_home(after: float) -> Scene:
    """A step that did harm and was taken back `after` seconds, 40 minutes ago: its bar is over."""
    story = Story(SETTINGS)
    story.at(-2400).harmed("risk_max", 0.33, after=after)
    off, worse = {**GOOD, "risk_band": 0.33}, {"risk_band": 0.37}
    return Scene(story, levels=[(-9000, off), (-2399, worse), (-2399 + after, off)], start=-9000)


def test_the_policy_learns_from_a_time_that_was_cut_short_and_nothing_else_does() -> None:
    p = sent_home(90).picture(0)
    (brief,) = [w for w in p.taught if w not in p.quiet]
    assert (brief.start_ms, brief.end_ms) == (ms(-2380), ms(-2310))
    assert brief.values["risk_max"] == 0.33
    assert brief.stats["risk_band"].mean == pytest.approx(0.37, abs=0.002)
    assert brief.stats["risk_band"].n == 350
    assert policy_state(p).quiet == p.taught == tuple(sorted(p.taught, key=lambda w: w.start_ms))
    whole = quiet_windows(
        p.snap.series, p.snap.coarse, p.snap.records.events, SETTINGS,
        regimes_ms=p.regimes_ms, marks_ms=p.confirms_ms,
    )  # fmt: skip
    assert p.quiet == p.seen.windows == whole
    assert all(w.end_ms - w.start_ms == 90_000 for w in whole)
    assert p.seen.at(brief.values) == ()


@pytest.mark.parametrize(("after", "found"), [(75, 0), (80, 60), (95, 70), (109, 80), (110, 0), (250, 0)])
def test_a_time_cut_short_counts_from_two_thirds_of_a_window_up_to_a_whole_one(
    after: float, found: int
) -> None:
    p = sent_home(after).picture(0)
    brief = brief_windows(p.snap.series, p.snap.coarse, p.snap.records.events, SETTINGS)
    assert [(w.end_ms - w.start_ms) // 1000 for w in brief] == [found] * (found > 0)
    assert len(p.taught) == len(p.quiet) + len(brief)
    if not found:
        assert p.taught is p.quiet


def test_an_open_end_and_missing_samples_are_no_window() -> None:
    stage = sent_home(90)
    p = stage.picture(-2320)
    assert brief_windows(p.snap.series, p.snap.coarse, stage.story.events[:1], SETTINGS) == ()
    stage.gaps = [(-2370.0, -2340.0)]
    p = stage.picture(0)
    assert p.taught is p.quiet
    assert brief_windows(p.snap.series, p.snap.coarse, [], SETTINGS) == ()


def test_a_harmful_step_that_was_sent_home_early_is_not_tried_again_when_its_bar_is_over() -> None:
    def proposed(state: PolicyState) -> list[tuple[str, float]]:
        idea = adaptive(state)
        return [(x.rule, x.new) for x in idea] if isinstance(idea, tuple) else []

    p = sent_home(90).picture(0)
    state = policy_state(p)
    assert not state.bars
    assert not state.blocked
    assert proposed(replace(state, quiet=p.quiet)) == [("risk_max", 0.33)], "else this would show nothing"
    assert proposed(state) == [("risk_max", 0.37)]
