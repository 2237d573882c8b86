"""Who may do what: one table, asked of the core, of the shell, of the docs. No cell is left out."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from selftune import access, backtest_desk, catalogue, hands, reviewing, revising
from selftune.access import Action
from selftune.backtest_request import Request
from selftune.cli import main
from selftune.domain import Refused, Role, SelftuneError
from selftune.office import Office
from selftune.picture import Picture
from selftune.plan import Act
from selftune.reviewing import Terms
from selftune.runtime import Root
from selftune.standing import requests
from selftune.wording import sentence
from tests.conftest import CHECKOUT, SHIPPED
from tests.raw_socket import tree
from tests.test_raw_socket import PASSWORD, account, furnished

EVERYBODY = frozenset(Role)
# dashboard.md, identity; written down once more on purpose
TABLE: dict[Action, frozenset[Role]] = {
    Action.VIEW: EVERYBODY,
    Action.EXPORT: EVERYBODY,
    **{
        a: frozenset({Role.OPERATOR})
        for a in (
            Action.APPLY, Action.REJECT, Action.SNOOZE, Action.ROLLBACK, Action.STOP, Action.RESUME,
            Action.RELEASE, Action.EDIT, Action.PROPOSE_LOOSER, Action.BACKTEST, Action.REQUEST_REVIEW,
        )
    },
    Action.SIGN: frozenset({Role.REVIEWER}),
    Action.ACCOUNTS: frozenset({Role.ADMIN}),
}  # fmt: skip
CELLS = list(product(Action, Role))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with accounts, a suggestion, a change to undo, and a request of kim's that waits."""
    root = tmp_path_factory.mktemp("roles") / "root"
    for name in ("configs", "controls", "logs"):
        (root / name).mkdir(parents=True)
    shutil.copyfile(SHIPPED, root / "configs" / "self_tuning.yaml")
    furnished(root)
    for role in Role:
        account(root, f"{role.value}1", role.value)
    reviewing.request(Root(root), Terms(changes=3, displacement=2.0, hours=5.0), actor="kim",
                      role=Role.OPERATOR, why="calm weeks")  # fmt: skip
    return root


@pytest.fixture
def house(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "root"))


# ----------------------------------------------------------------------------- the table itself
@pytest.mark.parametrize(("action", "role"), CELLS)
def test_each_cell(action: Action, role: Role) -> None:
    assert access.may(role, action) is (role in TABLE[action])


def test_the_docs_show_the_same_table() -> None:
    text = (CHECKOUT / "docs" / "operating.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*?\(`(\w+)`\) \|(.*)\|$", text, flags=re.M)
    heads = re.findall(r"^\| \| (viewer .*?) \|$", text, flags=re.M)[0].split(" | ")
    shown = {
        (Action(name), Role(head))
        for name, cells in rows
        for head, cell in zip(heads, cells.split("|"), strict=True)
        if cell.strip() == "yes"
    }
    assert {Action(name) for name, _ in rows} == set(Action) and set(heads) == set(Role)
    assert shown == {(a, r) for a, able in TABLE.items() for r in able}


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
@pytest.mark.parametrize(("action", "role"), [c for c in CELLS if c[1] not in TABLE[c[0]]])
def test_a_refusal_names_who_may_in_the_readers_language(action: Action, role: Role, language: str) -> None:
    words = catalogue.load()
    with pytest.raises(Refused) as no:
        access.require(role, action)
    said = sentence(no.value.reasons[0], language, words)
    for r in (role, *TABLE[action]):
        assert words[language][f"role.{r.value}"] in said
    assert language == "en" or not re.search("[a-z]{4}", said)


# ----------------------------------------------------------------------------- the core
def office(wanted: Callable[[Picture], tuple[Act, ...]], action: Action) -> Callable[[Path, Role], object]:
    return lambda root, role: Office(root).act(action, wanted, actor="somebody", role=role)


def newest(p: Picture) -> str:
    return next(d.id for d in reversed(p.snap.records.decisions) if d.kind == "suggest")


WHO: dict[str, Any] = {"actor": "somebody", "reason": "because"}


def settings_of(root: Path) -> bytes:
    return (root / "configs" / "self_tuning.yaml").read_bytes()


def waiting(root: Path) -> str:
    return requests(Picture(Root(root).snapshot()))[-1].id


DEEDS: dict[Action, list[Callable[[Path, Role], object]]] = {
    Action.APPLY: [office(lambda p: hands.apply(p, newest(p), **WHO), Action.APPLY)],
    Action.REJECT: [office(lambda p: hands.reject(p, newest(p), **WHO), Action.REJECT)],
    Action.SNOOZE: [office(lambda p: hands.snooze(p, newest(p), for_s=600, **WHO), Action.SNOOZE)],
    Action.ROLLBACK: [office(lambda p: hands.rollback(p, **WHO), Action.ROLLBACK)],
    Action.STOP: [office(lambda p: hands.stop(p, role="x", **WHO), Action.STOP)],
    Action.RESUME: [office(lambda p: hands.resume(p, role="x", **WHO), Action.RESUME)],
    Action.RELEASE: [office(lambda p: hands.release(p, "risk_max", **WHO), Action.RELEASE)],
    Action.EDIT: [
        lambda root, role: revising.save(Root(root), settings_of(root), {"cooldown_s": 200}, actor="somebody",
                                         role=role, why="x"),
    ],
    Action.PROPOSE_LOOSER: [
        lambda root, role: reviewing.propose(Root(root), settings_of(root), {"rules.risk_max.max": 0.45},
                                             actor="somebody", role=role, why="x"),
    ],
    Action.BACKTEST: [
        lambda root, role: backtest_desk.cancel(root, "01NOBODY", role=role),
        lambda root, role: backtest_desk.ask(root, Request(from_ms=None, to_ms=None), role=role)
        if role is not Role.OPERATOR else None,  # starts a process: tests/test_backtest_runs.py
    ],
    Action.REQUEST_REVIEW: [
        lambda root, role: reviewing.request(Root(root), Terms(changes=1, displacement=1.0, hours=1.0),
                                             actor="somebody", role=role, why="x"),
    ],
    Action.SIGN: [
        lambda root, role: reviewing.approve(Root(root), waiting(root), actor="lee", role=role, comment="x"),
        lambda root, role: reviewing.refuse(Root(root), waiting(root), actor="park", role=role, why="x"),
    ],
}  # fmt: skip


def test_every_action_that_writes_has_a_deed() -> None:
    assert set(DEEDS) == set(Action) - {Action.VIEW, Action.EXPORT, Action.ACCOUNTS}  # accounts: the shell's


@pytest.mark.parametrize("action", DEEDS)
def test_the_core_refuses_by_role_and_not_a_byte_moves(action: Action, house: Path) -> None:
    before = tree(house)
    for role in Role:
        if role in TABLE[action]:
            continue
        for deed in DEEDS[action]:
            with pytest.raises(Refused) as no:
                deed(house, role)
            assert [r.code for r in no.value.reasons] == ["access.denied"], role
            assert no.value.reasons[0].params["roles"] == [r.value for r in TABLE[action]]
    assert tree(house) == before


@pytest.mark.parametrize("action", DEEDS)
def test_the_core_lets_those_who_may(action: Action, house: Path) -> None:
    """The role is no obstacle to them: what else holds is a guard's matter, and most of it is done here."""
    before, done = tree(house), 0
    for role in TABLE[action]:
        for deed in DEEDS[action]:
            try:
                deed(house, role)
                done += 1
            except SelftuneError as error:
                reasons = error.reasons if isinstance(error, Refused) else ()
                assert "access.denied" not in [r.code for r in reasons]
    if action not in (
        Action.RESUME,
        Action.RELEASE,
        Action.BACKTEST,
    ):  # nothing is stopped, paused or running
        assert done and tree(house) != before


# ----------------------------------------------------------------------------- the shell
def shell(root: Path, *argv: str, typed: str = PASSWORD) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{typed}\n".encode()), encoding="utf-8"))
        return main(["--root", str(root), "--lang", "ko", *argv])


REVIEWS = {
    ("review", "request", "--reason", "x", "--password-stdin"): Action.REQUEST_REVIEW,
    ("review", "approve", "--comment", "x", "--password-stdin"): Action.SIGN,
    ("review", "refuse", "--reason", "x", "--password-stdin"): Action.SIGN,
}


@pytest.mark.parametrize("argv", REVIEWS)
@pytest.mark.parametrize("role", Role)
def test_a_review_in_a_shell_takes_an_account_of_that_role(
    argv: tuple[str, ...], role: Role, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(house)
    able = role in TABLE[REVIEWS[argv]]
    code = shell(house, *argv, "--actor", f"{role.value}1")
    said = capsys.readouterr().err
    assert code == (0 if able else 4), said
    if not able:
        needed = catalogue.load()["ko"][f"role.{next(iter(TABLE[REVIEWS[argv]])).value}"]
        assert needed in said and tree(house) == before


@pytest.mark.parametrize("argv", REVIEWS)
def test_nor_without_the_password_or_as_nobody(argv: tuple[str, ...], house: Path) -> None:
    before = tree(house)
    able = next(iter(TABLE[REVIEWS[argv]])).value
    assert shell(house, *argv, "--actor", f"{able}1", typed="wrong word 9") == 4
    assert shell(house, *argv, "--actor", "stranger") == 4
    assert shell(house, *argv, "--actor", f"{able}2") == 4
    assert tree(house) == before
