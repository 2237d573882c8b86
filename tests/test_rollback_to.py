"""Roll back to a point in time: exactly the values of then, one commit, and which changes it undoes."""

from __future__ import annotations

import pytest

from selftune import hands
from selftune.domain import UnknownId
from selftune.picture import Picture
from tests.stage import Scene, Story, moved, settings_with


def picture(story: Story, now: float = 2000) -> Picture:
    return Scene(story).picture(now)


def test_every_rule_goes_back_in_one_commit() -> None:
    story = Story()
    here = story.at(100).foreign("risk_max", 0.33)
    a = story.at(400).foreign("creative_min", 0.24)
    b = story.at(700).foreign("risk_max", 0.31)
    c = story.at(1000).foreign("risk_max", 0.29)
    (act,) = hands.rollback_to(picture(story), here, actor="kim", reason="it was calmer then")
    assert moved(act) == {"risk_max": (0.29, 0.33), "creative_min": (0.24, 0.22)}
    assert {m.rule: m.reverts for m in act.moves} == {"risk_max": c, "creative_min": a}
    assert act.data["reverts"] == [a, b, c]
    assert act.write and act.act == "rollback" and act.data["why"] == "it was calmer then"
    assert {m.kind for m in act.moves} == {"rollback"} and {m.note for m in act.moves} == {
        "it was calmer then"
    }


def test_a_rule_that_is_where_it_was_is_left_alone() -> None:
    story = Story()
    here = story.at(100).foreign("risk_max", 0.33)
    story.at(400).foreign("creative_min", 0.24)
    story.at(700).foreign("creative_min", 0.22)
    b = story.at(900).foreign("risk_max", 0.31)
    (act,) = hands.rollback_to(picture(story), here, actor="kim", reason="r")
    assert moved(act) == {"risk_max": (0.31, 0.33)} and act.data["reverts"] == [b]


def test_a_value_outside_todays_bounds_goes_to_the_nearest_bound() -> None:
    story = Story()
    here = story.at(100).foreign("risk_max", 0.90)
    story.at(700).foreign("risk_max", 0.31)
    (act,) = hands.rollback_to(picture(story), here, actor="kim", reason="r")
    assert moved(act) == {"risk_max": (0.31, 0.40)}


def test_a_line_without_a_number_changed_nothing() -> None:
    story = Story()
    story.at(100).foreign("risk_max", 0.33)
    here = story.at(400).foreign("risk_max", None)
    story.at(700).foreign("risk_max", 0.31)
    assert hands.values_after(picture(story), here) == {"risk_max": 0.33, "creative_min": 0.22}


@pytest.mark.parametrize("key", ["e1", "nowhere"])
def test_nothing_to_do_and_unknown_are_told_apart(key: str) -> None:
    story = Story(settings_with())
    story.at(100).foreign("risk_max", 0.33)
    with pytest.raises(UnknownId) as found:
        hands.rollback_to(picture(story), key, actor="kim", reason="r")
    assert found.value.reason.code == ("hand.nothing_to_revert" if key == "e1" else "hand.unknown_event")
