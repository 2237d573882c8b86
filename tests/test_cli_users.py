"""Accounts from a shell: the contract's exit codes, no password in sight, two languages, all or nothing."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from selftune import cli_users, passwords
from selftune.accounts import USERS_FILE
from selftune.catalogue import LANGUAGES
from selftune.cli import main
from selftune.ledger import FileLedger
from selftune.settings import SETTINGS_FILE
from tests.pages.roots import change_settings
from tests.test_reviewing import seen, watch

Run = Callable[..., tuple[int, Any, str]]
PASSWORD = "맑은 아침 산책 7"


class Typed(io.StringIO):
    """Standard input that is a terminal or a pipe."""

    def __init__(self, text: str, *, terminal: bool) -> None:
        super().__init__(text)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """(exit code, stdout as JSON or text, stderr) of a command with `typed` on standard input."""
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys.cache_clear()

    def go(*argv: str, typed: str = "", lang: str = "en") -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "stdin", Typed(typed, terminal=False))
        capsys.readouterr()
        code = main(["--root", str(root), "--lang", lang, *argv])
        said = capsys.readouterr()
        assert "Traceback" not in said.err and not re.search(r"\((code|코드) ", said.err)
        for secret in (PASSWORD, "argon2id"):
            assert secret not in said.out and secret not in said.err
        try:
            return code, json.loads(said.out) if said.out.strip() else None, said.err
        except ValueError:
            return code, said.out, said.err

    return go


def add(run: Run, name: str, role: str, **how: str) -> tuple[int, Any, str]:
    return run("users", "add", name, "--role", role, "--password-stdin", typed=f"{PASSWORD}\n", **how)


def test_the_life_of_an_account(root: Path, run: Run) -> None:
    assert run("users", "list")[:2] == (0, None)
    code, made, err = add(run, "kim", "operator")
    assert code == 0 and made["role"] == "operator" and made["password"] and "1 reviewer" in err
    assert add(run, "이검토", "reviewer")[0] == 0
    assert run("users", "passwd", "KIM", "--password-stdin", typed="another one 9\n")[0] == 0
    assert run("users", "role", "kim", "admin")[1]["role"] == "admin"
    assert run("users", "disable", "kim")[1]["disabled"] is True
    assert run("users", "enable", "kim")[1]["disabled"] is False
    assert run("users", "rename", "kim", "박관리")[1]["previous"] == ["kim"]
    assert run("users", "logins", "박관리", "park@example.org")[1]["logins"] == ["park@example.org"]
    assert [a["name"] for a in run("users", "list", "--json")[1]] == ["박관리", "이검토"]
    code, text, _ = run("users", "list", lang="ko")
    assert code == 0 and "박관리 · 관리자 · 사용 중 · 예전 이름 kim" in text
    kinds = FileLedger(root, timezone="UTC").read().governance
    assert [g.data["act"] for g in kinds] == [
        "add", "add", "passwd", "role", "disable", "enable", "rename", "logins"]  # fmt: skip


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_no_has_its_code_and_its_words_and_changes_nothing(root: Path, run: Run, lang: str) -> None:
    add(run, "kim", "operator")
    before = (root / USERS_FILE).read_bytes()
    for argv, typed, code in (
        (("add", "KIM", "--role", "viewer", "--password-stdin"), PASSWORD, 4),
        (("add", "lee", "--role", "viewer", "--password-stdin"), "short", 4),
        (("add", "lee", "--role", "viewer", "--password-stdin"), "", 4),
        (("add", "lee", "--role", "boss"), "", 2),
        (("add", "lee", "--password-stdin"), PASSWORD, 2),
        (("add", "--role", "viewer"), "", 2),
        (("add", "lee", "--role", "viewer"), PASSWORD, 2),
        (("add", "a\u202eb", "--role", "viewer", "--password-stdin"), PASSWORD, 4),
        (("passwd", "nobody", "--password-stdin"), PASSWORD, 3),
        (("passwd", "kim"), PASSWORD, 2),
        (("role", "kim"), "", 2),
        (("role", "kim", "boss"), "", 2),
        (("role", "kim", "operator"), "", 4),
        (("rename", "kim", "a", "b"), "", 2),
        (("enable", "kim"), "", 4),
        (("disable", "nobody"), "", 3),
        (("frobnicate", "kim"), "", 2),
    ):
        got, out, err = run("users", *argv, typed=typed, lang=lang)
        assert got == code and out is None and err.strip(), argv
        assert bool(re.search("[가-힣]", err)) is (lang == "ko"), err
    assert (root / USERS_FILE).read_bytes() == before


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_password_that_is_no_text_is_said_in_words(root: Path, run: Run, lang: str) -> None:
    add = ("users", "add", "kim", "--role", "operator", "--password-stdin")
    code, said, told = run(*add, typed="pa\udcffss-word-12\n", lang=lang)
    assert (code, said) == (cli_users.USAGE, None) and "UTF-8" in told
    assert not (root / USERS_FILE).exists()


def test_a_mistyped_root_gets_no_account(run: Run, tmp_path: Path) -> None:
    """Else somebody believes that the dashboard asks for a password from now on."""
    nowhere = tmp_path / "nowhere"
    code, said, told = run(
        "--root", str(nowhere), "users", "add", "kim", "--role", "operator", "--no-password"
    )
    assert (code, said) == (3, None) and "--root" in told and not nowhere.exists()


def test_without_a_password_it_is_not_said_that_anybody_can_sign_in(root: Path, run: Run) -> None:
    add = ("users", "add", "kim", "--role", "operator", "--no-password")
    code, made, said = run(*add)
    assert code == 0 and made["password"] is False and "can sign in now" not in said
    assert "users passwd kim" in said and "nobody can sign in" in said
    file = root / SETTINGS_FILE
    text = file.read_text(encoding="utf-8")
    file.write_text(
        f"{text}\ngovernance: {{ identity: proxy, proxy: {{ peers: [127.0.0.1] }} }}\n", encoding="utf-8"
    )
    assert "can sign in now" in run("users", "add", "lee", *add[3:])[2]


def test_a_password_in_the_arguments_is_not_understood(run: Run) -> None:
    assert run("users", "add", "kim", "--role", "operator", "--password", "secret secret")[0] == 2


def test_a_broken_file_is_named_with_its_line_and_left_alone(root: Path, run: Run) -> None:
    text = "accounts:\n  kim:\n    role: boss\n"
    (root / USERS_FILE).write_text(text, encoding="utf-8")
    for argv in (("list",), ("disable", "kim")):
        code, _, err = run("users", *argv)
        assert code == 3 and "configs/users.yaml" in err and "3" in err and "boss" in err
    assert (root / USERS_FILE).read_text(encoding="utf-8") == text
    code, _, err = run("check")
    assert code == 3


def test_check_says_how_many_may_sign_in(root: Path, run: Run) -> None:
    add(run, "kim", "operator")
    add(run, "lee", "reviewer")
    run("users", "disable", "lee")
    code, out, err = run("check")
    assert code == 0 and "2 accounts, 1 of them" in f"{out}{err}"


def test_typed_twice_at_a_terminal(root: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [PASSWORD, "something else 8"]
    monkeypatch.setattr(cli_users.getpass, "getpass", lambda prompt: answers.pop(0))
    capable = Typed("", terminal=True)
    monkeypatch.setattr(cli_users.sys, "stdin", capable)
    assert main(["--root", str(root), "users", "add", "kim", "--role", "operator"]) == 2
    assert not (root / USERS_FILE).exists()
    answers[:] = [PASSWORD, PASSWORD]
    assert main(["--root", str(root), "users", "add", "kim", "--role", "operator"]) == 0


# ----------------------------------------------------------------------------- the review from a shell
def test_with_accounts_a_name_typed_after_actor_is_no_signature(root: Path, run: Run) -> None:
    watch(root)
    change_settings(root, governance__approvals_required=1)
    for name, role in (("kim", "operator"), ("lee", "reviewer"), ("park", "reviewer")):
        add(run, name, role)
    run("users", "disable", "park")

    def review(what: str, who: str, typed: str = PASSWORD) -> int:
        return run("review", what, "--actor", who, "--reason", "x", "--password-stdin", typed=f"{typed}\n")[0]

    assert review("request", "lee") == 4  # a reviewer asks for nothing
    assert review("request", "nobody") == 4
    assert review("request", "kim", "wrong wrong 1") == 4
    assert review("request", "kim") == 0
    assert review("approve", "kim") == 4 and review("approve", "park") == 4
    assert review("approve", "lee", "wrong wrong 1") == 4
    assert run("review", "approve", "--actor", "lee", "--comment", "x")[0] == 2  # nowhere to ask for it
    assert not seen(root).mode.live
    assert review("approve", "LEE") == 0
    assert seen(root).mode.live


def test_whoever_was_renamed_cannot_sign_what_they_asked_for(root: Path, run: Run) -> None:
    watch(root)
    add(run, "kim", "operator")
    add(run, "park", "operator")
    word = f"{PASSWORD}\n"
    assert run("review", "request", "--actor", "kim", "--reason", "x", "--password-stdin", typed=word)[0] == 0
    run("users", "rename", "kim", "lee")
    run("users", "role", "lee", "reviewer")
    code, _, err = run("review", "approve", "--actor", "lee", "--reason", "x", "--password-stdin", typed=word)
    assert code == 4 and "Whoever asked" in err and not seen(root).mode.live
