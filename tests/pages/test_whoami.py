"""Who looks, in the sidebar, and a session's end in the banner: real sessions, a clock of the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from selftune import ui, whoami
from selftune.account_book import AccountBook
from selftune.accounts import USERS_FILE, Account, Accounts, render
from selftune.backoff import Backoff
from selftune.catalogue import LANGUAGES
from selftune.domain import Role
from selftune.doors import LocalDoor, OpenDoor
from selftune.reception import Reception
from selftune.sessions import IDLE_S, WARN_S, Instant, Sessions, key_of
from selftune.sessions import LONGEST_S as DAY_S
from selftune.view import Visitor, Way
from tests.pages.reader import opened, words_on

KIM = Account(name="<b>김</b>", role=Role.OPERATOR, created="c")


class Time:
    s = 0.0

    def now(self) -> Instant:
        return Instant(steady_s=self.s, wall_s=self.s)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def door(root: Path, time: Time, monkeypatch: pytest.MonkeyPatch) -> LocalDoor:
    """The door that the middleware would name."""
    (root / USERS_FILE).write_text(render(Accounts(all=(KIM,))), encoding="utf-8")
    desk = Reception(AccountBook(root), Sessions(clock=time.now), Backoff(None), lambda record: None)
    found = LocalDoor(before=OpenDoor(address="127.0.0.1"), desk=desk)
    monkeypatch.setattr(whoami, "_door", lambda: found)
    return found


def sign_in(door: LocalDoor, monkeypatch: pytest.MonkeyPatch) -> str:
    key = key_of(door.desk.sessions.open(KIM))
    visitor = Visitor(name=KIM.name, role=KIM.role, way=Way.ACCOUNT, key=key)
    monkeypatch.setattr(ui, "current_identity", lambda: door.again(visitor))
    return key


def page(root: Path, monkeypatch: pytest.MonkeyPatch, language: str = "en") -> AppTest:
    return opened("help", root, monkeypatch, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_name_stands_as_typed_with_its_role_and_the_way_out(
    root: Path, door: LocalDoor, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    sign_in(door, monkeypatch)
    text = words_on(page(root, monkeypatch, language))
    assert "&lt;b&gt;김&lt;/b&gt;" in text and "<b>김</b>" not in text
    assert ("로그아웃" if language == "ko" else "Sign out") in text and 'action="/sign-out"' in text
    assert "session_ends" not in text and ("자동으로" if language == "ko" else "signed out in") not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_two_minutes_before_the_end_the_page_says_so_and_pressing_anything_helps(
    root: Path, door: LocalDoor, time: Time, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    key = sign_in(door, monkeypatch)
    time.s = IDLE_S - WARN_S + 1
    at = page(root, monkeypatch, language)
    assert ("1분 59초" if language == "ko" else "1 min 59 s") in words_on(at)
    assert [b.key for b in at.button if b.key == "session_stay"] == ["session_stay"]
    door.desk.sessions.touch(key)  # what the socket does for any act
    assert not [b for b in at.run().button if b.key == "session_stay"]


def test_after_twelve_hours_nothing_puts_it_off(
    root: Path, door: LocalDoor, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = sign_in(door, monkeypatch)
    while time.s < DAY_S - 60:
        time.s = min(DAY_S - 60, time.s + 600)
        door.desk.sessions.touch(key)
    at = page(root, monkeypatch)
    assert "Twelve hours" in words_on(at) and not [b for b in at.button if b.key == "session_stay"]


def test_when_it_is_over_the_page_is_closed(
    root: Path, door: LocalDoor, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(door, monkeypatch)
    time.s = IDLE_S
    monkeypatch.setenv("SELFTUNE_ROOT", str(root))
    at = AppTest.from_file(Path(ui.__file__).parent / "frame.py", default_timeout=60).run()
    assert "닫혀" in at.title[0].value and not at.sidebar.markdown


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_an_account_it_says_how_to_come_in(
    root: Path, door: LocalDoor, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setattr(ui, "current_identity", lambda: Visitor(name="viewer", role=Role.VIEWER))
    assert 'href="/sign-in?back=' in words_on(page(root, monkeypatch, language))
    (root / USERS_FILE).unlink()
    text = words_on(page(root, monkeypatch, language))
    assert "python -m selftune users add" in text and "/sign-in" not in text


def test_the_role_is_asked_in_the_core_at_the_write(
    root: Path, door: LocalDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the click and the commit the person was disabled: nothing is written."""
    sign_in(door, monkeypatch)
    at = page(root, monkeypatch)
    at.button(key="banner_stop_tuning").click().run()
    asked: list[int] = []
    real = ui.current_identity

    def then_disabled() -> Visitor | None:
        asked.append(1)
        if len(asked) == 1:
            return real()
        off = replace(KIM, disabled=True, version=2)
        (root / USERS_FILE).write_text(render(Accounts(all=(off,))), encoding="utf-8")
        return real()

    monkeypatch.setattr(ui, "current_identity", then_disabled)
    assert not (root / "controls" / "approvals.jsonl").exists()

    def script() -> None:
        from selftune import deskwork as here
        from selftune import hands, ui
        from selftune.access import Action

        done = here.act(
            Action.STOP, lambda p, who: hands.stop(p, actor=who, role="operator", reason=""), ui.words()
        )
        assert not done

    at = AppTest.from_function(script, default_timeout=30).run()
    assert not at.exception and len(asked) >= 2
    assert "sign in again" in words_on(at) or "다시 로그인" in words_on(at)
    assert not (root / "controls" / "approvals.jsonl").exists()
