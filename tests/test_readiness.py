"""The checklist: each item at its borders, no data never a pass, own thresholds, honest tallies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from selftune.book import EffectRow
from selftune.coarse import Coarse
from selftune.domain import Mode
from selftune.picture import Picture
from selftune.readiness import (
    BARS,
    DAY_MS,
    Grade,
    Item,
    Pulse,
    Readiness,
    Tried,
    assess,
    bars,
    effects,
    gaps,
    placebo,
    stillness,
)
from selftune.track import Forecasts, Placebo, Stillness, Track, crps, track
from tests.stage import GOOD, Levels, Scene, Story, ms, settings_with


def item(r: Readiness, code: str) -> Item:
    return next(i for i in r.items if i.code == code)


def assessed(story: Story, now: float = 600.0, pulse: Pulse | None = None) -> Readiness:
    return assess(Scene(story).picture(now), pulse or Pulse())


def test_no_data_is_never_a_pass() -> None:
    found = assessed(Story())
    assert not found.ready and [i.code for i in found.items if i.grade is Grade.PASS] == []
    assert item(found, "backtest").grade is Grade.NONE


def test_thresholds_come_from_the_settings_and_unknown_names_are_told() -> None:
    s = settings_with(governance__readiness__days_watched=2, governance__readiness__luck=1)
    assert bars(s)["days_watched"] == 2 and bars(s)["placebo_n"] == BARS["placebo_n"]
    assert assessed(Story(settings=s)).unknown == ("luck",)


@pytest.mark.parametrize(("days", "grade"), [(6, Grade.NONE), (7, Grade.PASS)])
def test_only_days_with_a_decision_count(days: int, grade: Grade) -> None:
    story = Story()
    for day in range(days, 0, -1):
        for twice in (0, 60):  # two on one day are one day
            story.at(-day * 86_400 + 30_000 + twice).say("cycle", "hold")
    found = item(assessed(story.at(0)), "days")
    assert (found.grade, found.value) == (grade, days)


def test_warnings() -> None:
    story = Story()
    assert item(assessed(story), "warnings").grade is Grade.NONE  # nobody watched
    story.at(-50).say("cycle", "hold")
    assert item(assessed(story), "warnings").grade is Grade.PASS
    story.at(-40).crit("x", effect="e9")
    assert item(assessed(story), "warnings").grade is Grade.FAIL
    story.at(-30).warn_resolved("e9")
    assert item(assessed(story), "warnings").grade is Grade.PASS


def test_an_ordinary_warning_of_these_days_is_worth_a_look() -> None:
    story = Story()
    story.at(-50).say("cycle", "hold")
    story.at(-40).crit("mild")
    story.warnings = [replace(w, severity="warn") for w in story.warnings]
    found = item(assessed(story), "warnings")
    assert (found.grade, found.value) == (Grade.LOOK, 1)
    old = [replace(w, ts_ms=w.ts_ms - 8 * DAY_MS) for w in story.warnings]
    story.warnings = old
    assert item(assessed(story), "warnings").grade is Grade.PASS


@pytest.mark.parametrize(
    ("result", "grade"),
    [("verified", Grade.PASS), ("undecided", Grade.PASS), ("not_ours", Grade.LOOK), (None, Grade.LOOK)],
)
def test_the_drill_is_a_way_back_that_was_verified(result: str | None, grade: Grade) -> None:
    story = Story()
    assert item(assessed(story), "drill").grade is Grade.NONE
    back = story.at(-3000).harmed("risk_max", 0.37)
    if result is not None:
        story.at(-2700).say("verdict", "verified", change=back, result=result)
    assert item(assessed(story.at(0)), "drill").grade is grade


@pytest.mark.parametrize(
    ("deltas", "grade"), [(None, Grade.LOOK), ({"risk": None}, Grade.LOOK), ({"risk": 0.01}, Grade.PASS)]
)
def test_a_rollback_by_hand_is_a_drill_once_what_followed_was_measured(
    deltas: dict[str, float | None] | None, grade: Grade
) -> None:
    story = Story()
    story.at(-3000).foreign("risk_max", 0.33)
    story.at(-2000).say("manual", "rollback", {"risk_max": 0.35}, actor="kim")
    snap = Scene(story.at(0)).snapshot(600.0)
    back = snap.records.events[-1]
    rows = () if deltas is None else (EffectRow(ts_ms=back.ts_ms, rule=back.rule, d=deltas),)
    found = assess(Picture(replace(snap, records=replace(snap.records, effect_rows=rows))), Pulse())
    assert item(found, "drill").grade is grade


@pytest.mark.parametrize(
    ("tested", "grade"),
    [
        (None, Grade.NONE),
        (Tried(worst=None, ended_ms=ms(0)), Grade.NONE),
        (Tried(worst=-0.05, ended_ms=ms(0)), Grade.PASS),
        (Tried(worst=-0.051, ended_ms=ms(0)), Grade.FAIL),
        (Tried(worst=0.1, ended_ms=ms(0) - 15 * DAY_MS), Grade.LOOK),
        (Tried(worst=-0.2, ended_ms=ms(0) - 15 * DAY_MS), Grade.FAIL),
    ],
)
def test_the_backtests_worst_stretch(tested: Tried | None, grade: Grade) -> None:
    assert item(assess(Scene(Story()).picture(600.0), Pulse(), tested), "backtest").grade is grade


def test_a_system_that_was_never_watched_blocks_unless_no_day_is_asked_for() -> None:
    assert item(assessed(Story()), "days").grade is Grade.FAIL
    none_asked = settings_with(governance__readiness__days_watched=0)
    assert item(assessed(Story(settings=none_asked)), "days").grade is Grade.PASS


@pytest.mark.parametrize(
    ("pulse", "grade"),
    [
        (Pulse(), Grade.NONE),
        (Pulse(age_s=1.0), Grade.NONE),
        (Pulse(age_s=1.0, started_ms=ms(600 - 3600)), Grade.NONE),
        (Pulse(age_s=1.0, started_ms=ms(600 - 25 * 3600)), Grade.PASS),
        (Pulse(age_s=30.0, started_ms=ms(600 - 25 * 3600)), Grade.FAIL),
        (Pulse(age_s=-9.0, started_ms=ms(600 - 25 * 3600)), Grade.FAIL),
    ],
)
def test_uptime(pulse: Pulse, grade: Grade) -> None:
    assert item(assessed(Story(), pulse=pulse), "uptime").grade is grade


def history(hours: float, missing: int = 0, empty: int = 0) -> Coarse:
    """10 s bins; the first `missing` after the start are absent, `empty` more hold no value of risk_band."""
    n = round(hours * 360)
    keep = np.ones(n, bool)
    keep[1 : 1 + missing] = False
    starts = (np.arange(n) * 10_000 + ms(0))[keep].astype(np.int64)
    count = {m: np.full(len(starts), 50, np.int64) for m in GOOD}
    count["risk_band"][-1 - empty : -1] = 0
    return Coarse(start_ms=starts, count=count, mean={m: np.full(len(starts), GOOD[m]) for m in GOOD})


@pytest.mark.parametrize(
    ("coarse", "grade", "share"),
    [
        (history(5.9), Grade.NONE, 0.0),
        (history(10), Grade.PASS, 0.0),
        (history(10, missing=36), Grade.PASS, 0.01),
        (history(10, missing=37), Grade.LOOK, 37 / 3600),
        (history(10, missing=100, empty=80), Grade.LOOK, 0.05),
        (history(10, missing=100, empty=81), Grade.FAIL, 181 / 3600),
        (Coarse.empty(tuple(GOOD)), Grade.NONE, None),
    ],
)
def test_gaps(coarse: Coarse, grade: Grade, share: float | None) -> None:
    found = gaps(coarse, tuple(GOOD), BARS)
    assert found.grade is grade and found.value == (None if share is None else pytest.approx(share))


def test_gaps_name_the_longest() -> None:
    assert gaps(history(10, missing=12), tuple(GOOD), BARS).params["longest_s"] == 120


def test_a_broken_chain_fails_and_an_empty_one_proves_nothing() -> None:
    story = Story()
    assert item(assessed(story), "whole").grade is Grade.NONE
    snap = Scene(story).snapshot(600.0)
    broken = replace(snap, records=story.records(chain_ok=False))
    assert item(assess(Picture(broken), Pulse()), "whole").grade is Grade.FAIL


# ----------------------------------------------------------------------------- the track record's grades
@pytest.mark.parametrize(
    ("t", "grade"),
    [
        (Stillness(), Grade.NONE),
        (Stillness(n=99, covered=94), Grade.NONE),
        (Stillness(n=100, covered=89), Grade.FAIL),
        (Stillness(n=100, covered=90), Grade.PASS),
        (Stillness(n=100, covered=98), Grade.PASS),
        (Stillness(n=100, covered=99), Grade.FAIL),
    ],
)
def test_stillness_grades(t: Stillness, grade: Grade) -> None:
    assert stillness(t, BARS).grade is grade


@pytest.mark.parametrize(
    ("t", "grade"),
    [
        (Placebo(), Grade.NONE),
        (Placebo(n=99), Grade.NONE),
        (Placebo(n=100, improved=6, worsened=12), Grade.PASS),
        # more than the limit, but a judge that errs just so often does it once in twenty times
        (Placebo(n=100, improved=7), Grade.LOOK),
        (Placebo(n=100, improved=10), Grade.LOOK),
        (Placebo(n=100, improved=11), Grade.FAIL),
        (Placebo(n=100, worsened=13), Grade.LOOK),
        (Placebo(n=100, worsened=19), Grade.FAIL),
    ],
)
def test_placebo_grades(t: Placebo, grade: Grade) -> None:
    assert placebo(t, BARS).grade is grade


def test_the_placebos_number_is_the_share_nearer_its_limit() -> None:
    assert placebo(Placebo(n=100, improved=4, worsened=5), BARS).value == 0.04
    assert placebo(Placebo(n=100, improved=4, worsened=9), BARS).value == 0.09
    none = settings_with(governance__readiness__placebo_share=0)
    assert placebo(Placebo(n=100, worsened=1), bars(none)).grade is Grade.FAIL


def tallies(c: Forecasts, d: Forecasts) -> Track:
    return Track(suggestions=40, untestable=30, stillness=Stillness(), placebo=Placebo(), effects=c, past=d)


GOOD_ONES = Forecasts(n=5, cells=10, covered=8, sign=9, crps=0.5, crps_none=0.9)


@pytest.mark.parametrize(
    ("c", "d", "grade"),
    [
        (Forecasts(), Forecasts(), Grade.NONE),
        (GOOD_ONES, Forecasts(n=4, cells=8, covered=8, crps=0.1, crps_none=0.9), Grade.NONE),
        (GOOD_ONES, GOOD_ONES, Grade.PASS),
        # one tally does not make up for the other
        (GOOD_ONES, Forecasts(n=5, cells=10, covered=7, crps=0.5, crps_none=0.9), Grade.FAIL),
        (GOOD_ONES, Forecasts(n=5, cells=10, covered=10, crps=0.9, crps_none=0.9), Grade.FAIL),
    ],
)
def test_effect_grades(c: Forecasts, d: Forecasts, grade: Grade) -> None:
    assert effects(tallies(c, d), BARS).grade is grade


# ----------------------------------------------------------------------------- the tallies themselves
def test_crps_of_a_normal_against_its_definition() -> None:
    x = np.linspace(-12, 12, 200_001)
    for mean, sd, seen in ((0.0, 1.0, 0.7), (0.5, 2.0, -1.0)):
        integral = np.trapezoid((ndtr((x - mean) / sd) - (x >= seen)) ** 2, x)
        assert crps(mean, sd, seen) == pytest.approx(float(integral), abs=2e-3)


def test_stillness_holds_on_a_steady_system_and_not_on_one_that_drifts_off() -> None:
    def share(levels: Levels) -> Stillness:
        story = Story()
        for k in range(12):
            story.at(600 + k * 270).suggest("risk_max", 0.33)
        return track(Scene(story, levels=levels, start=-1800).picture(4200)).stillness

    calm = share([])
    assert calm.n >= 36 and calm.share is not None and calm.share >= 0.85
    steps: Levels = [(600.0 + k * 180, {"risk_band": 0.33 + 0.03 * k}) for k in range(20)]
    off = share(steps)
    assert off.share is not None and off.share < calm.share


def test_placebo_judges_where_nothing_was_changed() -> None:
    story = Story()
    for k in range(4):
        story.at(200 + k * 200).suggest("risk_max", 0.33)
    found = track(Scene(story, start=-1200).picture(1000)).placebo
    assert found.n == 4 and found.improved + found.worsened <= 1
    story.at(770).foreign("risk_max", 0.30)  # too near to two of them
    assert track(Scene(story, start=-1200).picture(1000)).placebo.n == 2


def effect_of(**deltas: float) -> dict[str, object]:
    return {"metrics": {m: {"delta": d, "sigma": 0.004} for m, d in deltas.items()}}


def told(mean: float) -> list[dict[str, object]]:
    expected = {"risk_band": {"mean": mean, "lo": mean - 0.004, "hi": mean + 0.004}}
    return [{"rule": "risk_max", "old": 0.35, "new": 0.33, "reasons": [], "expected": expected}]


def applied(story: Story, late: float, seen: float) -> None:
    """A suggestion that foretold -0.01, somebody who makes the change `late` seconds later, its verdict."""
    story.say("cycle", "step", proposals=told(-0.01), mode=Mode.DRY_RUN)
    story.at(story.now + late).foreign("risk_max", 0.33)
    change = story.life.changes[-1]
    story.at(story.now + 90).verdict(
        change.id, "NEUTRAL", effect=effect_of(risk_band=seen), deltas={"d_risk": seen}
    )


@pytest.mark.parametrize(("late", "n"), [(60.0, 1), (700.0, 0)])
def test_an_effect_counts_only_if_somebody_made_the_change_in_time(late: float, n: int) -> None:
    story = Story().at(400)
    applied(story, late, -0.009)
    found = track(Scene(story).picture(story.now + 30))
    assert (found.effects.n, found.effects.cells) == (n, n)
    assert found.suggestions == 1 and found.untestable == 1 - n
    if n:
        assert found.effects.covered == found.effects.sign == 1
        assert found.effects.crps is not None and found.effects.crps_none is not None
        assert found.effects.crps < found.effects.crps_none


def test_a_change_in_another_direction_or_with_company_does_not_count() -> None:
    story = Story().at(400)
    story.at(300).foreign("creative_min", 0.24)
    story.at(400)
    applied(story, 60.0, -0.009)
    assert track(Scene(story).picture(story.now + 30)).effects.n == 0


def test_a_wrong_forecast_is_not_covered() -> None:
    story = Story().at(400)
    applied(story, 60.0, 0.03)
    found = track(Scene(story).picture(story.now + 30)).effects
    assert (found.cells, found.covered, found.sign) == (1, 0, 0)


def test_past_changes_are_foretold_from_those_before_them_only() -> None:
    story = Story()
    values = (0.33, 0.31, 0.29, 0.27)
    for k, value in enumerate(values):
        story.at(400.0 * (k + 1)).foreign("risk_max", value)
        change = story.life.changes[-1]
        seen = -0.010 - 0.001 * (k % 2)
        story.at(story.now + 90).verdict(
            change.id, "NEUTRAL", effect=effect_of(risk_band=seen), deltas={"d_risk": seen}
        )
    found = track(Scene(story).picture(story.now + 30))
    assert found.effects.n == 0
    assert (found.past.n, found.past.cells, found.past.covered) == (2, 2, 2)  # the first two had no past
