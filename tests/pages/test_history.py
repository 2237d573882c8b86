"""History in every state, role and language; a rollback that is pressed there is really written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from selftune import catalogue, hands
from selftune.access import Action
from selftune.domain import Role, Verdict
from selftune.office import Office
from selftune.timeline import PAGE
from tests.pages.reader import be, button, html_on, opened, sound, words_on
from tests.pages.roots import NASTY, harm, judge, suggest, write_event, write_metrics

STATES = ("no_data", "events", "bad_settings", "judged", "rolled_back", "paused", "broken", "many", "odd")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    be(monkeypatch, Role.OPERATOR)
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def some_events(root: Path) -> None:
    write_event(root, "risk_max", 0.35, 0.33, minutes_ago=90, actor="park", note="first")
    write_event(root, "creative_min", 0.22, 0.24, minutes_ago=60, actor="lee", note=NASTY)
    write_event(root, "risk_max", 0.33, 0.31, minutes_ago=30, actor="park")


def prepare(root: Path, state: str) -> None:
    """The root in one state."""
    if state == "bad_settings":
        path = root / "configs" / "self_tuning.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("targets:", "tragets:"), encoding="utf-8")
    if state in ("no_data", "bad_settings"):
        return
    write_metrics(root, minutes=12)
    if state in ("judged", "rolled_back"):
        decision = suggest(root)
        Office(root).act(
            Action.APPLY, lambda p: hands.apply(p, decision, actor="lee", reason="try"), actor="lee",
            role=Role.OPERATOR,
        )  # fmt: skip
        judge(root, Verdict.NEUTRAL if state == "judged" else Verdict.WORSENED)
        if state == "rolled_back":
            Office(root).act(
                Action.ROLLBACK, lambda p: hands.rollback(p, actor="lee", reason="worse"), actor="lee",
                role=Role.OPERATOR,
            )  # fmt: skip
        return
    some_events(root)
    if state == "paused":
        harm(root, "risk_max", 3)
    if state == "broken":
        line = json.dumps(
            {"v": 1, "ts": "2026-01-01T00:00:00+09:00", "kind": "stop", "by": "x", "prev": "f" * 64}
        )
        (root / "controls" / "approvals.jsonl").write_text(line + "\n", encoding="utf-8")
    if state == "many":
        for i in range(PAGE + 3):
            write_event(root, "creative_min", 0.24, 0.24 + i / 1000, minutes_ago=25 - i / 10, actor="bot")
    if state == "odd":
        with (root / "controls" / "rules_history.jsonl").open("a", encoding="utf-8") as f:
            f.write(
                'not json\n{"ts":"2026-01-01T00:00:00+09:00","actor":"x","rule":"risk_max","new":"a<b>"}\n'
            )
        write_event(root, "someone_elses", None, 7.0, minutes_ago=1, actor="**bold**")


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize("state", STATES)
def test_every_state_reads_well(
    state: str, role: Role, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(root, state)
    be(monkeypatch, role)
    found = keys(root)
    at = opened("history", root, monkeypatch, language, **({"e": found[-1]} if found else {}))
    sound(at, language)


def keys(root: Path) -> list[str]:
    p = Office(root).glance().picture
    return [e.key for e in p.snap.records.events] if p is not None else []


def lines(root: Path) -> list[dict[str, object]]:
    text = (root / "controls" / "rules_history.jsonl").read_text(encoding="utf-8")
    return [json.loads(x) for x in text.splitlines()]


def test_each_event_shows_who_what_and_how_it_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "rolled_back")
    at = opened("history", root, monkeypatch)
    assert at.title[0].value == "What was changed so far: 2"
    html = html_on(at)
    assert "0.35 → 0.33" in html and "0.33 → 0.35" in html
    assert "<b>rolled back</b>" in html and "<b>a rollback</b>" in html and "lee (a person)" in html


def test_the_link_opens_one_event(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "judged")
    at = opened("history", root, monkeypatch, e=keys(root)[0])
    html = html_on(at)
    assert "<b>undecided</b>" in html and "−0.012 (better)" in html and "−0.020 ~ −0.004" in html
    assert "by chance" in html.lower() or "1 in 40" in html
    assert "The values at that time" in html


@pytest.mark.parametrize("wanted", ["x-nowhere", "<b>", "y" * 400])
def test_an_unknown_link_is_said(wanted: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "events")
    at = opened("history", root, monkeypatch, e=wanted)
    sound(at, "en")
    assert "not on record" in at.info[0].value


def test_roll_back_one_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "events")
    last = keys(root)[-1]
    at = opened("history", root, monkeypatch, e=last)
    button(at, "rollback_one").click()
    at.run()
    assert "0.31 → 0.33" in html_on(at)
    button(at, "form_back_").click()  # without a reason nothing happens
    at.run()
    assert len(lines(root)) == 3
    at.text_area[0].input("back, please")
    button(at, "form_back_").click()
    at.run()
    assert not at.exception
    written = lines(root)[-1]
    assert (written["kind"], written["rule"], written["old"], written["new"], written["reverts"]) == (
        "rollback", "risk_max", 0.31, 0.33, last
    )  # fmt: skip
    assert (written["actor"], written["note"]) == ("kim", "back, please")
    assert "It was rolled back" in words_on(at)


def test_roll_back_to_a_moment_writes_every_rule(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "events")
    first = keys(root)[0]
    at = opened("history", root, monkeypatch, e=first)
    button(at, "rollback_to").click()
    at.run()
    html = html_on(at)
    assert "Changes it undoes" in html and "0.31 → 0.33" in html and "0.24 → 0.22" in html
    at.text_area[0].input("it was calm then")
    button(at, "form_to_").click()
    at.run()
    new = lines(root)[3:]
    assert {(x["rule"], x["new"]) for x in new} == {("risk_max", 0.33), ("creative_min", 0.22)}
    assert len({x["decision"] for x in new}) == 1


def test_without_data_and_loop_a_rollback_still_works(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_events(root)
    at = opened("history", root, monkeypatch, e=keys(root)[-1])
    button(at, "rollback_one").click()
    at.run()
    at.text_area[0].input("blind but safe")
    button(at, "form_back_").click()
    at.run()
    assert lines(root)[-1]["kind"] == "rollback"


def test_viewers_see_it_and_are_told_whom_to_ask(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "paused")
    be(monkeypatch, Role.VIEWER)
    at = opened("history", root, monkeypatch, e=keys(root)[-1])
    for key in ("rollback_one", "rollback_to", "release_risk_max"):
        assert button(at, key).disabled
    assert "ask an operator" in words_on(at)


def test_a_paused_rule_is_released_with_a_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "paused")
    at = opened("history", root, monkeypatch)
    assert "risk_max did harm 3 times in a row and is paused" in words_on(at)
    button(at, "release_").click()
    at.run()
    at.text_area[0].input("the sensor was broken")
    button(at, "form_release_").click()
    at.run()
    assert "is paused" not in words_on(at) and "The rule was released" in words_on(at)


def test_what_was_rolled_back_is_not_rolled_back_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "rolled_back")
    for key, words in zip(keys(root), ("was rolled back already", "itself is not rolled back"), strict=True):
        at = opened("history", root, monkeypatch, e=key)
        assert button(at, "rollback_one").disabled and words in words_on(at)
    assert button(at, "rollback_to").disabled and "are in force now" in words_on(at)


def test_filters_live_in_the_address(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "events")
    at = opened("history", root, monkeypatch, rule="creative_min")
    assert "0.22 → 0.24" in html_on(at) and "0.35 → 0.33" not in html_on(at)
    at.selectbox(key="hist_rule").select("risk_max")
    at.run()
    assert at.query_params["rule"] in ("risk_max", ["risk_max"])
    assert "0.35 → 0.33" in html_on(at) and "0.22 → 0.24" not in html_on(at)
    at.selectbox(key="hist_actor").select("lee")
    at.run()
    assert "No change fits what you chose" in words_on(at)


def test_a_long_history_is_paged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "many")
    at = opened("history", root, monkeypatch)
    rows = [b for b in at.button if str(b.key).startswith("more_")]
    assert len(rows) == PAGE and button(at, "hist_newer").disabled
    button(at, "hist_older").click()
    at.run()
    rows = [b for b in at.button if str(b.key).startswith("more_")]
    assert len(rows) == 6 and at.query_params["p"] in ("1", ["1"])


@pytest.mark.parametrize("page", ["-1", "x", "99999999999", "999", "١"])
def test_an_odd_page_number_opens_something(page: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "events")
    sound(opened("history", root, monkeypatch, p=page), "en")


def test_a_broken_chain_and_skipped_lines_are_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "broken")
    with (root / "controls" / "rules_history.jsonl").open("a", encoding="utf-8") as f:
        f.write("not json\n")
    text = words_on(opened("history", root, monkeypatch))
    assert "The records are not intact" in text and "Line 1 of the approvals" in text
    assert "controls/rules_history.jsonl" in text and "python -m selftune check" in text


def test_what_people_typed_stays_text(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes, actors and values of others: never HTML, never markdown, no steering character."""
    prepare(root, "odd")
    for key in keys(root):
        at = opened("history", root, monkeypatch, e=key)
        html = html_on(at)
        assert "<script" not in html and "\u202e" not in html and "\x1b" not in html
        assert "a<b>" not in html and "**bold**" in html
        shown = "\n".join(str(m.value) for m in [*at.markdown, *at.info]) + "".join(
            b.label for b in at.button
        )
        assert "bold" not in shown and "evil" not in shown and "굵게" not in shown
    assert "&lt;script&gt;" in html
