"""Stop and Resume from any page, and what the first screen says needs a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from selftune import catalogue, hands
from selftune.access import Action
from selftune.domain import Role
from selftune.office import Office
from tests.pages.reader import be, button, opened, sound, words_on
from tests.pages.roots import NASTY, harm, propose_rollback, suggest, write_event, write_metrics

EVERY_PAGE = ("overview", "trends", "suggestions", "history", "help")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    be(monkeypatch, Role.OPERATOR)
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def press(at: AppTest, what: str, why: str = "") -> AppTest:
    """The button in the banner, then the confirmation."""
    button(at, f"banner_{what}").click()
    at.run()
    if why:
        at.text_input(key=f"why_{what}").input(why)
    button(at, f"send_{what}").click()
    return at.run()


def kinds(root: Path) -> list[str]:
    text = (root / "controls" / "approvals.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["kind"] for line in text.splitlines()]


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_stop_from_every_page_with_the_loop_dead(
    page: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_metrics(root, minutes=2)
    at = press(opened(page, root, monkeypatch), "stop_tuning")
    sound(at, "en")
    assert kinds(root) == ["stop"]
    assert "kim stopped the tuning on" in words_on(at)
    assert "kim stopped the tuning on" in words_on(opened("help", root, monkeypatch))


def test_resume_and_its_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = press(opened("overview", root, monkeypatch), "stop_tuning", NASTY)
    assert "**굵게**" in words_on(at) and "<script>" not in words_on(at)
    at = press(at, "resume_tuning", "fine again")
    assert kinds(root) == ["stop", "resume"]
    assert "stopped the tuning on" not in words_on(at)


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.REVIEWER, Role.ADMIN])
def test_others_are_told_whom_to_ask(
    role: Role, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, role)
    at = opened("overview", root, monkeypatch, language)
    assert not [b for b in at.button if str(b.key).startswith("banner_")]
    assert ("운영자에게 부탁" if language == "ko" else "ask an operator") in words_on(at)


def test_the_role_is_asked_again_at_the_write(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was an operator when the dialog opened, and is none now, stops nothing."""
    at = opened("overview", root, monkeypatch)
    button(at, "banner_stop_tuning").click()
    at.run()
    be(monkeypatch, Role.VIEWER)
    button(at, "send_stop_tuning").click()
    at.run()
    assert not (root / "controls" / "approvals.jsonl").exists()


# ------------------------------------------------------------------------------- what needs you
@pytest.mark.parametrize("language", catalogue.LANGUAGES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize("what", ["nothing", "suggestion", "rollback", "paused", "crit", "chain"])
def test_what_needs_you(
    what: str, role: Role, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, role)
    write_metrics(root, minutes=12)
    if what == "suggestion":
        suggest(root)
    if what == "rollback":
        write_event(root, "risk_max", 0.35, 0.33, minutes_ago=5, actor="park")
        propose_rollback(root)
    if what == "paused":
        harm(root, "risk_max", 3)
    if what == "crit":
        line = {"ts": "2026-01-01T00:00:00+09:00", "severity": "crit", "rule": "risk_max", "note": NASTY}
        text = json.dumps(line, ensure_ascii=False) + "\n"
        (root / "controls" / "risk_ledger.jsonl").write_text(text, encoding="utf-8")
    if what == "chain":
        line = {"v": 1, "ts": "2026-01-01T00:00:00+09:00", "kind": "stop", "by": "x", "prev": "f" * 64}
        (root / "controls" / "approvals.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    at = opened("overview", root, monkeypatch, language)
    sound(at, language)
    said = {
        "nothing": ("루프가 이어지고 있지 않아", "The loop is not running"),
        "suggestion": ("옮기자는 제안", "A suggestion stands until"),
        "rollback": ("되돌리자는 제안", "A rollback of the change"),
        "paused": ("쉬고 있습니다", "is resting"),
        "crit": ("풀리지 않은 위급 경고", "Open critical warning"),
        "chain": ("사슬이 끊겨", "chain of approvals is broken"),
    }[what]
    text = words_on(at)
    assert said[language == "en"] in text
    assert "<script>" not in text


def test_a_watched_change_is_in_the_headline(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metrics(root, minutes=12)
    decision = suggest(root)
    Office(root).act(
        Action.APPLY, lambda p: hands.apply(p, decision, actor="lee", reason="try"), actor="lee",
        role=Role.OPERATOR,
    )  # fmt: skip
    (root / "logs" / "loop_status.json").write_text('{"v": 1, "state": "running"}', encoding="utf-8")
    title = opened("overview", root, monkeypatch).title[0].value
    assert "the loop is watching a change" in title and "of 1 min 30 s left" in title, title
