"""Verdicts on pretended changes: the whole metrics file counts, once each; harm that is there is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from selftune.picture import Picture
from selftune.plan import Memo
from selftune.pretended import pretended
from selftune.readiness import BARS, Grade, placebo
from selftune.settings import METRICS_FILE, Settings
from selftune.standing import checklist
from selftune.track import Placebo, moments, pretend, tally, track
from tests.stage import OFF, Levels, Scene, Story, iso, made, settings_with

EVERY_S = 600.0  # a suggestion that stands is renewed after its proposal_ttl_s
TIMES = 104
FIRST_S = -EVERY_S * TIMES


def settings() -> Settings:
    """As shipped, at one sample a second: a day of them is quick to write and to read."""
    return settings_with(metrics__rate_hz=1, min_samples=60)


def one_suggestion_that_stands() -> Story:
    story = Story(settings=settings())
    first = story.at(FIRST_S).suggest("risk_max", 0.33)
    for k in range(1, TIMES):
        story.at(FIRST_S + k * EVERY_S).suggest("risk_max", 0.33, stands=first)
    return story


def record(root: Path, levels: Sequence[tuple[float, Mapping[str, float]]] = ()) -> None:
    """The metrics file of the whole time."""
    start = FIRST_S - 1200
    series = made([(start, OFF), *levels], 0, start=start, hz=1.0, seed=3)
    rows = zip(series.ts_ms, *(series.values[m] for m in OFF), strict=True)
    zero = int(series.ts_ms[0])
    lines = [f"{iso(start + (int(t) - zero) / 1000)},{','.join(map(str, x))}\n" for t, *x in rows]
    path = root / METRICS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join([f"ts,{','.join(OFF)}\n", *lines]), encoding="utf-8")


def picture(story: Story, memo: Memo | None = None) -> Picture:
    """What is known half an hour of samples later; only they are in memory."""
    return Scene(story, start=-1800).picture(0, **({"memo": memo} if memo else {}))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quiet")
    record(root)
    return root


def test_a_day_of_one_standing_suggestion_is_enough_evidence(quiet: Path) -> None:
    p = picture(one_suggestion_that_stands())
    assert track(p).placebo.n <= 3  # what the samples in memory can carry
    found = pretended(quiet, p, BARS["placebo_n"])
    assert found.n >= BARS["placebo_n"]
    assert placebo(found, BARS).grade is Grade.PASS
    listed = next(i for i in checklist(quiet, p).items if i.code == "placebo")
    assert (listed.grade, listed.params["n"]) == (Grade.PASS, found.n)


def test_what_was_judged_is_not_read_again(quiet: Path, tmp_path: Path) -> None:
    story, memo = one_suggestion_that_stands(), Memo()
    p = picture(story, memo)
    first = pretended(quiet, p, 20)
    assert 20 <= first.n < 40  # no more is read than the bar asks for
    nowhere = tmp_path / "no file here"
    assert pretended(nowhere, p, 20) == first
    assert pretended(nowhere, picture(story), 20) == Placebo()


def test_an_event_that_turns_up_later_makes_its_neighbours_new(quiet: Path) -> None:
    story, memo = one_suggestion_that_stands(), Memo()
    before = pretended(quiet, picture(story, memo), TIMES)
    story.at(FIRST_S + 50 * EVERY_S + 60).foreign("risk_max", 0.33)
    story.at(0)
    p = picture(story, memo)
    after = pretended(quiet, p, TIMES)
    assert len(moments(p)) == TIMES - 1  # the one beside it is none any more
    assert before.n - 3 <= after.n < before.n


def test_a_judge_that_sees_what_nobody_did_fails(tmp_path: Path) -> None:
    jumps: Levels = [
        (FIRST_S + k * EVERY_S + half * 300, {"risk_band": OFF["risk_band"] + 0.04 * (1 - half)})
        for k in range(TIMES)
        for half in (0, 1)
    ]
    record(tmp_path, jumps)
    found = pretended(tmp_path, picture(one_suggestion_that_stands()), BARS["placebo_n"])
    assert found.n >= BARS["placebo_n"]
    assert placebo(found, BARS).grade is Grade.FAIL


def test_a_gap_in_the_data_counts_for_nothing(quiet: Path) -> None:
    p = picture(one_suggestion_that_stands())
    at = moments(p)[0]
    empty = p.snap.series.between(at - 60_000, at + 20_000)
    assert pretend(p, at, empty) is None and tally([None, None]) == Placebo()
