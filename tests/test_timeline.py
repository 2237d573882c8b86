"""The history page's facts: how each event ended, what the values were then, what a rollback would write."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from selftune.book import Chain, EffectRow
from selftune.domain import Origin, Quote, Verdict
from selftune.picture import Picture
from selftune.timeline import (
    PAGE,
    Mark,
    entry_of,
    integrity,
    paused_rules,
    preview_rollback,
    preview_rollback_to,
    timeline,
    traces,
    values_at,
)
from tests.stage import LIVE, Scene, Story, ms, settings_with


@pytest.fixture
def story() -> Story:
    return Story(settings_with(LIVE))


def seen(story: Story, now: float = 3000, **records: Any) -> Picture:
    p = Scene(story).picture(now)
    return Picture(replace(p.snap, records=replace(p.snap.records, **records))) if records else p


def mark_of(story: Story, key: str, now: float = 3000) -> Mark:
    e = entry_of(seen(story, now), key)
    assert e is not None
    return e.mark


def key_of(story: Story) -> str:
    return story.events[-1].key


# ----------------------------------------------------------------------------- how it ended
def test_each_ending_has_its_mark(story: Story) -> None:
    step = story.at(100).step("risk_max", 0.33)
    event = key_of(story)
    assert mark_of(story, event, 120) is Mark.OPEN
    story.at(200).verdict(step, "NEUTRAL")
    assert mark_of(story, event) is Mark.INCONCLUSIVE
    story.at(300).confirm()
    assert mark_of(story, event) is Mark.CONFIRMED


def test_what_ended_the_excursion_is_the_reason_of_its_steps(story: Story) -> None:
    """ "Confirmed: too early to say" would contradict itself: its own verdict is not why it stays."""
    step = story.at(100).step("risk_max", 0.33)
    event = key_of(story)
    story.at(200).verdict(step, "NEUTRAL", reasons=[{"code": "not_proven", "params": {}}])
    assert codes_of(story, event) == ["not_proven"]
    story.at(300).say("verdict", "confirm", basis="improved", anchor={"risk_max": 0.33}, steps=[step],
                      reasons=[{"code": "score_gain", "params": {}}])  # fmt: skip
    assert codes_of(story, event) == ["score_gain"], "alone: its own confirmation says it"
    more = story.at(400).step("risk_max", 0.31)
    second = key_of(story)
    story.at(500).verdict(more, "NEUTRAL", reasons=[{"code": "not_proven", "params": {}}])
    story.at(600).say("verdict", "confirm", basis="improved", anchor={"risk_max": 0.31}, steps=[step, more],
                      reasons=[{"code": "score_gain", "params": {}}])  # fmt: skip
    assert codes_of(story, second) == ["ended.together", "score_gain"]


def test_a_step_that_went_back_with_others_says_so(story: Story) -> None:
    step = story.at(100).step("risk_max", 0.33)
    event = key_of(story)
    story.at(200).verdict(step, "NEUTRAL", reasons=[{"code": "not_proven", "params": {}}])
    story.at(300).back("budget", {"risk_max": 0.35}, reasons=[{"code": "excursion.time", "params": {}}])
    assert mark_of(story, event) is Mark.ROLLED_BACK
    assert codes_of(story, event) == ["excursion.time"]


def test_a_step_that_was_taken_back_to_compare_says_so(story: Story) -> None:
    step = story.at(100).step("risk_max", 0.33)
    event = key_of(story)
    story.at(200).verdict(step, "NEUTRAL", reasons=[{"code": "not_proven", "params": {}}])
    story.at(300).look({"risk_max": 0.35})
    story.at(400).say("verdict", "look", result="stay", steps=[step], change=story.decisions[-1].id,
                      reasons=[{"code": "look.disturbed", "params": {}}])  # fmt: skip
    assert codes_of(story, event) == ["ended.stay", "look.disturbed"]


def test_a_step_that_a_look_brought_back_is_confirmed_not_gone(story: Story) -> None:
    step = story.at(100).step("risk_max", 0.33)
    event = key_of(story)
    story.at(200).verdict(step, "NEUTRAL", reasons=[{"code": "not_proven", "params": {}}])
    story.at(300).look({"risk_max": 0.35})
    story.at(400).look_over("restore", steps=[step])
    assert mark_of(story, event) is Mark.CONFIRMED
    assert codes_of(story, event) == ["ended.restore"]


def codes_of(story: Story, key: str) -> list[str]:
    e = entry_of(seen(story), key)
    assert e is not None
    return [r.code for r in e.reasons]


def test_what_is_no_worse_is_kept_and_not_called_better(story: Story) -> None:
    story.at(100).step("risk_max", 0.33)
    event = key_of(story)
    story.at(3000).confirm("equal")
    assert mark_of(story, event) is Mark.KEPT
    assert codes_of(story, event)[0] == "ended.kept"


def test_what_stays_because_home_is_not_safe_is_not_called_as_good_as_before(story: Story) -> None:
    story.at(100).step("risk_max", 0.33)
    event = key_of(story)
    why = {"code": "confirm.anchor_unsafe", "params": {"observed": 0.2}}
    story.at(3000).say("verdict", "confirm", basis="anchor_unsafe", anchor={"risk_max": 0.33},
                       steps=["d1"], reasons=[why])  # fmt: skip
    assert mark_of(story, event) is Mark.KEPT
    assert codes_of(story, event) == ["confirm.anchor_unsafe"]


def test_a_restoring_line_that_was_never_written_proves_nothing(story: Story) -> None:
    step = story.at(100).step("risk_max", 0.33)
    event = key_of(story)
    story.verdict(step, "NEUTRAL", reasons=[{"code": "not_proven", "params": {}}])
    story.at(300).look({"risk_max": 0.35})
    story.at(390).say("verdict", "look", result="restore", left={"risk_max": 0.33}, steps=[step])
    story.say("cycle", "restore", {"risk_max": 0.33}, lost=True, cause="look")
    assert mark_of(story, event) is Mark.ROLLED_BACK
    assert codes_of(story, event) == ["not_proven"]


def test_harm_that_went_back(story: Story) -> None:
    story.at(100).harmed("risk_max", 0.33)
    assert mark_of(story, "e1") is Mark.ROLLED_BACK
    assert mark_of(story, "e2") is Mark.BACK


def test_what_a_person_did_and_nobody_took_back(story: Story) -> None:
    event = story.at(100).foreign("risk_max", 0.37, actor="park")
    story.at(200).verdict(event, "WORSENED", reasons=[{"code": "score_loss", "params": {}}])
    e = entry_of(seen(story), event)
    assert e is not None
    assert (e.mark, e.verdict, e.origin, e.actor) == (Mark.WORSENED, Verdict.WORSENED, Origin.FOREIGN, "park")
    assert [r.code for r in e.reasons] == ["score_loss"] and e.revertible


def test_long_ago_and_never_watched(story: Story) -> None:
    a = story.at(100).foreign("risk_max", 0.37)
    b = story.at(2000).foreign("risk_max", 0.36)
    assert mark_of(story, a) is Mark.UNJUDGED and mark_of(story, b) is Mark.UNJUDGED


def test_the_familys_own_row_speaks_where_we_did_not(story: Story) -> None:
    event = story.at(100).foreign("risk_max", 0.37)
    row = EffectRow(ts_ms=ms(100), rule="risk_max", d={"risk": 0.02, "phase": 0.0}, verdict="WORSENED")
    quote = Quote(ts_ms=ms(200), by="x", rule="risk_max", delta={}, confidence=0.8, quote="말", effect=event)
    e = entry_of(seen(story, effect_rows=(row,), quotes=(quote,)), event)
    assert e is not None
    assert e.mark is Mark.WORSENED and [q.quote for q in e.quotes] == ["말"]
    assert {d.metric: (d.delta, d.better) for d in e.deltas} == {
        "risk_band": (0.02, False), "phase_diff": (0.0, None)
    }  # fmt: skip


def test_a_measured_effect_shows_interval_and_odds(story: Story) -> None:
    step = story.at(100).step("risk_max", 0.33)
    metric = {"delta": -0.012, "lo": -0.02, "hi": -0.004, "odds": 40, "n_post": 350}
    story.at(200).verdict(step, "IMPROVED", effect={"metrics": {"risk_band": metric, "gone": metric}})
    e = entry_of(seen(story), "e1")
    assert e is not None
    (d,) = e.deltas
    assert (d.metric, d.delta, d.lo, d.hi, d.odds, d.n, d.better) == (
        "risk_band", -0.012, -0.02, -0.004, 40, 350, True
    )  # fmt: skip


def test_a_rule_that_the_settings_do_not_name_is_shown_only(story: Story) -> None:
    key = story.at(100).foreign("someone_elses", 3.0)
    e = entry_of(seen(story), key)
    assert e is not None and not e.known and not e.revertible and e.mark is Mark.UNJUDGED
    assert preview_rollback(seen(story), key).refused is not None


def test_a_value_outside_the_bounds_is_said(story: Story) -> None:
    key = story.at(100).foreign("risk_max", 0.9)
    e = entry_of(seen(story), key)
    assert e is not None and e.outside


def test_unknown_key(story: Story) -> None:
    p = seen(story)
    assert entry_of(p, "x") is None and values_at(p, "x") == {}


# ----------------------------------------------------------------------------- paging and filters
def test_newest_first_and_paged(story: Story) -> None:
    for i in range(PAGE + 5):
        story.at(10.0 * i).foreign("risk_max", 0.30 + i / 1000, actor="a" if i % 2 else "b")
    first, second = timeline(seen(story)), timeline(seen(story), offset=PAGE)
    assert (first.total, len(first.entries), len(second.entries)) == (PAGE + 5, PAGE, 5)
    assert first.entries[0].ts_ms > first.entries[-1].ts_ms > second.entries[0].ts_ms
    mine = timeline(seen(story), actor="a", limit=99)
    assert {e.actor for e in mine.entries} == {"a"} and mine.total == (PAGE + 5) // 2
    assert mine.actors == ("a", "b") and "creative_min" in mine.rules
    assert timeline(seen(story), rule="creative_min").total == 0


# ----------------------------------------------------------------------------- values then
def test_values_then_and_over_time(story: Story) -> None:
    a = story.at(100).foreign("risk_max", 0.33)
    story.at(200).foreign("creative_min", 0.24)
    story.at(300).foreign("risk_max", None)
    story.at(400).foreign("risk_max", 0.31)
    p = seen(story)
    assert values_at(p, a) == {"creative_min": 0.22, "risk_max": 0.33}
    found = traces(p, ms(150), ms(1000))
    assert found["risk_max"] == ([ms(150), ms(400)], [0.33, 0.31])
    assert found["creative_min"] == ([ms(150), ms(200)], [0.22, 0.24])


# ----------------------------------------------------------------------------- previews
def test_previews_are_what_the_core_would_write(story: Story) -> None:
    a = story.at(100).foreign("risk_max", 0.33)
    b = story.at(400).foreign("risk_max", 0.31)
    p = seen(story)
    one, to = preview_rollback(p, b), preview_rollback_to(p, a)
    assert [(m.rule, m.old, m.new) for m in one.moves] == [("risk_max", 0.31, 0.33)]
    assert [e.key for e in one.undone] == [b]
    assert [(m.old, m.new) for m in to.moves] == [(0.31, 0.33)] and [e.key for e in to.undone] == [b]
    refused = preview_rollback_to(p, b).refused
    assert refused is not None and refused.code == "hand.nothing_to_revert"


def test_of_many_undone_changes_the_newest_are_named_and_all_are_counted(story: Story) -> None:
    first = story.at(0).foreign("risk_max", 0.30)
    for i in range(1, PAGE + 4):
        story.at(10.0 * i).foreign("risk_max", 0.30 + i / 1000)
    to = preview_rollback_to(seen(story), first)
    assert (len(to.undone), to.undone_n) == (PAGE, PAGE + 3)
    assert to.undone[0].key == story.events[-1].key


# ----------------------------------------------------------------------------- pauses, integrity
def test_a_pause_and_a_rest_say_until_when(story: Story) -> None:
    now = 0.0
    for _ in range(3):
        now += 400
        story.at(now).harmed("risk_max", 0.33)
    (found,) = paused_rules(seen(story, now + 200))
    assert (found.rule, found.harms, found.resting) == ("risk_max", 3, False)
    assert found.until_ms == pytest.approx(ms(now + 90 + 3600), abs=1)
    for _ in range(2):
        now += 400
        story.at(now).harmed("risk_max", 0.33)
    p = seen(story, now + 200)
    assert p.life.pauses["risk_max"].until_at_ms == inf
    assert [x.until_ms for x in paused_rules(p)] == [None]


def test_integrity_counts_what_was_set_aside(story: Story) -> None:
    good = integrity(seen(story))
    assert good.ok and good.lines == 0
    p = seen(
        story,
        chain=Chain(n=3, reason="prev", line=2),
        rejects={"controls/rules_history.jsonl": {"nul": 2, "not_json": 0}, "a": {"cells": 1}},
    )
    bad = integrity(p)
    assert not bad.ok and bad.lines == 3
    assert bad.rejects == (("a", "cells", 1), ("controls/rules_history.jsonl", "nul", 2))


def test_a_row_without_a_verdict_of_ours_brings_its_own_interval() -> None:
    """The forest plot shows how sure the effects file is; a word or an empty cell is no number."""
    from selftune.book import EffectRow
    from selftune.timeline import _interval

    cells = {"lo_risk": "-0.03", "hi_risk": "-0.01", "n_post": "450", "lo_phase": "", "hi_phase": "nan"}
    row = EffectRow(ts_ms=0, rule="risk_max", d={"risk": -0.02, "phase": 0.1}, cells=cells)
    assert _interval(row, "risk") == {"lo": -0.03, "hi": -0.01, "n_post": 450}
    assert _interval(row, "phase") == {"lo": None, "hi": None, "n_post": 450}
    assert _interval(EffectRow(ts_ms=0, rule="r", d={}), "risk") == dict.fromkeys(("lo", "hi", "n_post"))
