"""What each role finds on the pages: live buttons for what it may do, text with whom to ask for the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from selftune import access, catalogue, deskwork, reviewing, ui
from selftune.access import Action
from selftune.domain import Role
from selftune.reviewing import Terms
from selftune.runtime import Root
from selftune.view import Visitor
from tests.conftest import SHIPPED
from tests.pages.reader import be, opened, words_on
from tests.raw_socket import tree
from tests.test_raw_socket import furnished

# the beginning of a button's key -> what pressing it is
BUTTONS = {
    "banner_stop": Action.STOP, "banner_resume": Action.RESUME, "apply_": Action.APPLY,
    "reject_": Action.REJECT, "snooze_": Action.SNOOZE, "rollback_": Action.ROLLBACK,
    "do_rollback_": Action.ROLLBACK, "release_": Action.RELEASE, "FormSubmitter:targets_": Action.EDIT,
    "bt_start": Action.BACKTEST, "review_approve": Action.SIGN, "review_refuse": Action.SIGN,
    "review_ask": Action.REQUEST_REVIEW, "do_suggest": Action.APPLY,
}  # fmt: skip
PAGES = ("suggestions", "targets", "history", "review", "backtest")
MUST = {
    Role.OPERATOR: {Action.STOP, Action.APPLY, Action.REJECT, Action.SNOOZE, Action.EDIT, Action.BACKTEST},
    Role.REVIEWER: {Action.SIGN},
    Role.VIEWER: set(),
    Role.ADMIN: set(),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("roles") / "root"
    for name in ("configs", "controls", "logs"):
        (root / name).mkdir(parents=True)
    shutil.copyfile(SHIPPED, root / "configs" / "self_tuning.yaml")
    furnished(root)
    terms = Terms(changes=3, displacement=2.0, hours=5.0)
    reviewing.request(Root(root), terms, actor="kim", role=Role.OPERATOR, why="x")
    return root


def live(at: AppTest) -> set[Action]:
    """What the open buttons of the page do."""
    keys = [str(b.key) for b in at.button if not b.disabled]
    return {action for start, action in BUTTONS.items() for k in keys if k.startswith(start)}


@pytest.mark.parametrize("role", Role)
def test_no_button_looks_live_to_who_may_not_press_it(
    role: Role, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, role, "somebody")
    before, found = tree(house), set()
    for page in PAGES:
        at = opened(page, house, monkeypatch, "ko")
        assert not at.exception
        found |= live(at)
        if page in ("suggestions", "history") and role is not Role.OPERATOR:
            assert catalogue.load()["ko"]["role.operator"] in words_on(at), "whom to ask"
    assert all(access.may(role, a) for a in found), found
    assert found >= MUST[role]
    assert tree(house) == before


def script() -> None:
    """A page that asks the desk for everything, whatever it shows."""
    import streamlit as here

    from selftune import deskwork as desk
    from selftune import ui as glue
    from selftune.access import Action as Acts

    for action in Acts:
        with here.container(key=f"of_{action}"):
            done = desk.told(glue.words(), lambda who, a=action: desk.office().through(
                a, lambda root: f"{who.name} did it", role=who.role
            ))  # fmt: skip
            here.text(f"{action}: {done or 'no'}")


@pytest.mark.parametrize("role", [*Role, None])
def test_the_pages_door_asks_the_role_at_the_act(
    role: Role | None, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFTUNE_ROOT", str(house))
    who = None if role is None else Visitor(name="somebody", role=role)
    monkeypatch.setattr(ui, "current_identity", lambda: who)
    monkeypatch.setattr(deskwork, "refuse", lambda lines: st.text(" ".join(lines)))
    at = AppTest.from_function(script, default_timeout=60).run()
    assert not at.exception
    words, said = catalogue.load()["ko"], [t.value for t in at.text]
    for action in Action:
        k = next(k for k, line in enumerate(said) if line.startswith(f"{action}: "))
        may = role is not None and access.may(role, action)
        assert said[k] == f"{action}: {'somebody did it' if may else 'no'}"
        if role is not None and not may:
            able = [words[f"role.{r.value}"] for r in Role if access.may(r, action)]
            assert able and all(x in said[k - 1] for x in able), (action, said[k - 1])
