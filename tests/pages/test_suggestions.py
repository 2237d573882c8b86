"""Suggestions in every state, role and language; and what is pressed there is really written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from selftune import catalogue, hands
from selftune.access import Action
from selftune.domain import Role, Verdict
from selftune.office import Office
from selftune.runtime import Root
from tests.pages.reader import be, button, html_on, opened, sound, words_on
from tests.pages.roots import (
    MET,
    NASTY,
    change_settings,
    judge,
    propose_rollback,
    suggest,
    write_event,
    write_metrics,
)

STATES = (
    "no_data", "met", "idea", "standing", "stale", "bad_settings", "stopped", "manual_off", "watched",
    "improved", "worsened", "rollback", "cooldown", "burning",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    be(monkeypatch, Role.OPERATOR)
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def apply(root: Path, decision: str, why: str = "worth a try") -> None:
    Office(root).act(
        Action.APPLY,
        lambda p: hands.apply(p, decision, actor="lee", reason=why),
        actor="lee",
        role=Role.OPERATOR,
    )


def prepare(root: Path, state: str) -> str | None:
    """The root in one state; the id of its suggestion, if it has one."""
    if state == "bad_settings":
        path = root / "configs" / "self_tuning.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("targets:", "tragets:"), encoding="utf-8")
        return None
    if state == "no_data":
        return None
    if state == "manual_off":
        change_settings(root, governance__manual_apply=False)
    if state == "cooldown":
        write_event(root, "risk_max", 0.35, 0.34, minutes_ago=1)
    if state == "burning":
        change_settings(root, safety__hard__risk_band__max=0.31)
        write_metrics(root)
        tick(root)
        return None
    write_metrics(root, level=MET if state == "met" else (0.068, 0.262, 0.234, 0.329))
    if state in ("met", "idea", "cooldown"):
        return None
    decision = suggest(root)
    if state == "stale":
        write_metrics(root, ago_s=120)
    if state == "stopped":
        Office(root).act(
            Action.STOP, lambda p: hands.stop(p, actor="lee", role="operator", reason="r"), actor="lee",
            role=Role.OPERATOR,
        )  # fmt: skip
    if state in ("watched", "improved", "worsened", "rollback"):
        apply(root, decision)
        if state == "rollback":
            propose_rollback(root)
        elif state != "watched":
            judge(root, Verdict.IMPROVED if state == "improved" else Verdict.WORSENED)
    return decision


def tick(root: Path) -> list[dict[str, object]]:
    """One cycle of the real loop; the decisions on record afterwards."""
    Root(root).tick()
    return decisions(root)


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize("state", STATES)
def test_every_state_reads_well(
    state: str, role: Role, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = prepare(root, state)
    be(monkeypatch, role)
    sound(
        opened("suggestions", root, monkeypatch, language, **({"d": decision} if decision else {})), language
    )


TITLES = {
    "no_data": "No values yet, so nothing can be suggested",
    "met": "Nothing to change: every target is met",
    "idea": "There is an idea for the next step, not yet on record",
    "standing": "Waiting for a decision: 1",
    "stale": "Waiting for a decision: 1",
    "bad_settings": "Please mend the settings first",
    "watched": "A change is being watched",
    "rollback": "Waiting for a decision: 1",
}


@pytest.mark.parametrize(("state", "title"), TITLES.items())
def test_the_title_says_what_is_asked(
    state: str, title: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(root, state)
    assert opened("suggestions", root, monkeypatch).title[0].value == title


def test_a_card_answers_every_question(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "standing")
    text = words_on(opened("suggestions", root, monkeypatch))
    assert "Lower risk_max from 0.35 to 0.33" in text
    assert "Risk band is 0.029 above its target (at most 0.3)" in text
    for question in ("Why?", "Expected", "Risk", "Evidence", "If applied", "To undo"):
        assert f"<dt>{question}</dt>" in text, question
    assert "All 13 safety checks passed" in text


def test_viewers_see_it_and_are_told_whom_to_ask(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "standing")
    be(monkeypatch, Role.VIEWER)
    at = opened("suggestions", root, monkeypatch)
    for what in ("apply_", "reject_", "snooze_"):
        assert button(at, what).disabled
    assert "ask an operator" in words_on(at)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("stale", "Nothing moves on data older than 5 s"),
        ("manual_off", "governance.manual_apply"),
        ("stopped", "Somebody stopped the tuning"),
    ],
)
def test_a_closed_apply_says_why(state: str, words: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, state)
    at = opened("suggestions", root, monkeypatch)
    assert button(at, "apply_").disabled and not button(at, "reject_").disabled
    assert words in words_on(at)


def events(root: Path) -> list[dict[str, object]]:
    path = root / "controls" / "rules_history.jsonl"
    return [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def decisions(root: Path) -> list[dict[str, object]]:
    path = root / "logs" / "tuning_decisions.jsonl"
    return [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines()]


def test_apply_through_the_page_moves_the_rule(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = prepare(root, "standing")
    at = opened("suggestions", root, monkeypatch)
    button(at, "apply_").click()
    at.run()
    text = words_on(at)
    assert "The loop is in practice mode, but applying changes the rule for real" in text
    assert "settling" in text and "0.35 → 0.33" in text
    button(at, "form_apply_").click()  # without a reason
    at.run()
    assert events(root) == [] and "give a reason" in at.warning[0].value
    at.text_area[0].input(NASTY)
    button(at, "form_apply_").click()
    at.run()
    assert not at.exception
    (event,) = events(root)
    assert (event["rule"], event["old"], event["new"], event["actor"]) == ("risk_max", 0.35, 0.33, "kim")
    last = decisions(root)[-1]
    assert (last["kind"], last["act"], last["of"], last["why"]) == (
        "manual",
        "apply",
        decision,
        NASTY.strip(),
    )
    assert at.title[0].value == "A change is being watched"
    text = words_on(at)
    assert "risk_max is now 0.33" in text and "left" in text
    assert at.query_params["d"] in (decision, [decision])


@pytest.mark.parametrize("act", ["reject", "snooze"])
def test_turning_down_is_recorded(act: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = prepare(root, "standing")
    at = opened("suggestions", root, monkeypatch)
    button(at, f"{act}_").click()
    at.run()
    at.text_area[0].input("not before the release")
    button(at, f"form_{act}_").click()
    at.run()
    last = decisions(root)[-1]
    assert (last["act"], last["of"], last["actor"], last["why"]) == (
        act, decision, "kim", "not before the release"
    )  # fmt: skip
    assert events(root) == []
    if act == "snooze":
        assert last["for_s"] == 7200


def test_the_role_is_asked_again_at_the_write(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lost the role while the dialog was open is refused, in words."""
    prepare(root, "standing")
    at = opened("suggestions", root, monkeypatch)
    button(at, "apply_").click()
    at.run()
    at.text_area[0].input("still me?")
    be(monkeypatch, Role.VIEWER)
    button(at, "form_apply_").click()
    at.run()
    assert events(root) == []
    assert "Nothing was changed" in words_on(at) and "may not do this" in words_on(at)


def test_data_that_stopped_under_an_open_dialog_refuse(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "standing")
    at = opened("suggestions", root, monkeypatch)
    button(at, "apply_").click()
    at.run()
    at.text_area[0].input("late")
    write_metrics(root, ago_s=120)
    button(at, "form_apply_").click()
    at.run()
    assert events(root) == [] and "Nothing was changed" in words_on(at)


def test_a_proposed_rollback_is_one_click_and_a_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "rollback")
    at = opened("suggestions", root, monkeypatch)
    assert "Proposed rollback: risk_max 0.33 → 0.35" in words_on(at)
    button(at, "do_rollback_").click()
    at.run()
    at.text_area[0].input("it got worse")
    button(at, "form_rollback_").click()
    at.run()
    last = events(root)[-1]
    assert (last["kind"], last["new"], last["note"]) == ("rollback", 0.35, "it got worse")
    assert "It was rolled back" in words_on(at)


def test_a_proposed_rollback_can_be_turned_down_and_is_gone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(root, "rollback")
    at, before = opened("suggestions", root, monkeypatch), len(events(root))
    button(at, "reject_back_").click()
    at.run()
    at.text_area[0].input("we want to see more")
    button(at, "form_reject_").click()
    at.run()
    assert len(events(root)) == before  # nothing was written to a rule
    assert "Suggestion rejected" in words_on(at)
    assert not [b for b in at.button if str(b.key).startswith(("do_rollback_", "reject_back_"))]


def test_an_emergency_in_practice_mode_is_one_click_and_a_reason(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop may not move a rule in practice mode, however bad it is; an operator can, at once."""
    change_settings(root, safety__hard__risk_band__max=0.31)
    write_metrics(root)
    (proposal,) = (d for d in tick(root) if d["act"] == "emergency")
    at = opened("suggestions", root, monkeypatch)
    assert "Urgent: risk_max 0.35 → 0.33" in words_on(at) and events(root) == []
    button(at, "do_rollback_").click()
    at.run()
    assert "This changes the rule for real, now" in words_on(at)
    at.text_area[0].input("it burns")
    button(at, "form_rollback_").click()
    at.run()
    (event,) = events(root)
    assert (event["rule"], event["new"], event["actor"], event["note"]) == (
        "risk_max", 0.33, "kim", "it burns"
    )  # fmt: skip
    assert decisions(root)[-1]["of"] == proposal["id"]
    assert "One step was taken" in words_on(at)
    be(monkeypatch, Role.VIEWER)
    sound(opened("suggestions", root, monkeypatch), "en")


def test_asking_for_a_suggestion_records_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "idea")
    at = opened("suggestions", root, monkeypatch)
    button(at, "do_suggest").click()
    at.run()
    assert decisions(root)[-1]["kind"] == "suggest" and events(root) == []
    assert at.title[0].value == "Waiting for a decision: 1"


@pytest.mark.parametrize("state", ["improved", "worsened"])
def test_the_verdict_stands_on_the_linked_card(
    state: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = prepare(root, state)
    text = html_on(opened("suggestions", root, monkeypatch, d=str(decision)))
    assert "This suggestion was applied" in text and "worth a try" in text
    assert ("<b>improved</b>" if state == "improved" else "<b>worsened</b>") in text.lower()


@pytest.mark.parametrize("wanted", ["01JNOWHERE", "<script>alert(1)</script>", "x" * 500])
def test_an_unknown_link_is_said(wanted: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "standing")
    at = opened("suggestions", root, monkeypatch, d=wanted)
    sound(at, "en")
    assert "not on record" in at.info[0].value
    assert "<script" not in html_on(at)


def test_what_people_typed_stays_text(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason is never read as HTML, as markdown or as a steering character."""
    decision = prepare(root, "standing")
    apply(root, str(decision), NASTY)
    at = opened("suggestions", root, monkeypatch)
    html = html_on(at)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "<script" not in html
    assert "**굵게**" in html and "\\u202eabc" in html and "\\x1b[31m" in html
    assert "\u202e" not in html and "\x1b" not in html
    markdown = "\n".join(str(m.value) for m in at.markdown)
    assert "굵게" not in markdown and "evil" not in markdown


def test_where_we_stand_counts_steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "standing")
    text = html_on(opened("suggestions", root, monkeypatch))
    assert "Every rule is at its reference value" in text
    assert re.search(r"<td>risk_max</td><td class=\"num\">0\.35</td><td class=\"num\">0\.35</td>", text)
