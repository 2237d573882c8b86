"""The account file: read strictly, written back whole, changed on record, asked anew at every look."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from selftune import account_book, passwords
from selftune.account_book import AccountBook, change
from selftune.accounts import USERS_FILE, Account, Accounts, parse, proper, render
from selftune.domain import InputError, Refused, Role, StorageError, UnknownId
from selftune.files import Ops
from selftune.governing import People, face
from selftune.ledger import FileLedger

HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"
ENTRY = f"accounts:\n  kim:\n    role: operator\n    hash: '{HASH}'\n"


@pytest.fixture
def ledger(root: Path) -> FileLedger:
    return FileLedger(root, timezone="Asia/Seoul")


def kim(**how: object) -> Accounts:
    return Accounts(all=(Account(name="kim", role=Role.OPERATOR, hash=HASH, created="c", **how),))  # type: ignore[arg-type]


# ----------------------------------------------------------------------------- reading
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    proper
)


@given(st.lists(NAMES, unique_by=face, max_size=5), st.booleans(), st.sampled_from(Role))
def test_what_was_written_is_read_back(names: list[str], disabled: bool, role: Role) -> None:
    written = Accounts(all=tuple(Account(name=n, role=role, hash=HASH, disabled=disabled, version=k + 1,
                                         created="2026", previous=("x" * 3 + str(k),), logins=(f"{k}@a",))
                                 for k, n in enumerate(names)))  # fmt: skip
    assert parse(render(written)) == written


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "users_empty", 1),
        ("- kim\n", "users_empty", 1),
        ("people: {}\n", "unknown_key", 1),
        ("accounts: []\n", "not_a_section", 1),
        ("accounts:\n  kim: 3\n", "not_a_section", 2),
        ("accounts:\n  kim:\n    hash: null\n", "missing_key", 2),
        ("accounts:\n  kim:\n    role: boss\n", "unknown_choice", 3),
        ("accounts:\n  kim:\n    role: operator\n    hash: '$2b$12$x'\n", "users_hash", 4),
        ("accounts:\n  kim:\n    role: operator\n    disabled: 'false'\n", "not_boolean", 4),
        ("accounts:\n  kim:\n    role: operator\n    disabled: no\n", "not_boolean", 4),
        ("accounts:\n  kim:\n    role: operator\n    version: -1\n", "not_whole", 4),
        ("accounts:\n  kim:\n    role: operator\n    rolle: x\n", "unknown_key", 4),
        ("accounts:\n  kim:\n    role: operator\n    previous: [x, {a: b}]\n", "users_name", 4),
        ("accounts:\n  kim:\n    role: operator\n  KIM:\n    role: admin\n", "users_twice", 4),
        ("accounts:\n  kim:\n    role: operator\n    previous: [lee]\n  lee:\n    role: admin\n",
         "users_twice", 5),
        ("accounts:\n  kim:\n    role: operator\n  kim:\n    role: admin\n", "duplicate_key", 4),
        ('accounts:\n  "a\\u202eb":\n    role: admin\n', "users_name", 2),
        ("accounts: &a\n  kim: *a\n", "anchor", 1),
        ("accounts:\n\tkim: x\n", "tab_indent", 2),
    ],
)  # fmt: skip
def test_every_fault_names_file_line_and_what_it_is(text: str, code: str, line: int) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    first = next(p for p in caught.value.problems if p.code == code)
    assert (first.file, first.line) == (USERS_FILE, line)
    assert HASH not in str(caught.value) and "$2b$" not in str(caught.value)


def test_a_hash_is_never_part_of_what_is_printed() -> None:
    assert "argon2" not in repr(kim())


@pytest.mark.parametrize(
    ("name", "fine"),
    [("kim", True), ("김운영", True), ("a b", True), ("", False), (" kim", False), ("a\nb", False),
     ("a\u202eb", False), ("a\u200bb", False), ("x" * 65, False), ("\u3000", False)],
)  # fmt: skip
def test_names_hide_nothing(name: str, fine: bool) -> None:
    assert proper(name) is fine


def test_a_login_of_a_provider_goes_before_a_name() -> None:
    accounts = kim().put(Account(name="kim@example.org", role=Role.ADMIN)).put(
        Account(name="lee", role=Role.REVIEWER, logins=("Lee@Example.org",))
    )  # fmt: skip
    found = {login: accounts.known_as(login) for login in ("lee@example.org", "KIM", "nobody")}
    assert [a.name if a else None for a in found.values()] == ["lee", "kim", None]


# ----------------------------------------------------------------------------- the book
def test_a_look_sees_each_change_at_once_and_a_broken_file_is_not_none_yet(root: Path) -> None:
    book, path = AccountBook(root), root / USERS_FILE
    assert book.look().none_yet and not book.look().there
    path.write_text(ENTRY, encoding="utf-8")
    assert book.look().accounts == parse(ENTRY) and not book.look().none_yet
    path.write_text(ENTRY.replace("operator", "admin   "), encoding="utf-8")  # the same size, the same inode
    accounts = book.look().accounts
    assert accounts is not None and accounts.all[0].role is Role.ADMIN
    path.write_text("accounts: [", encoding="utf-8")
    assert book.look().accounts is None and book.look().problems and not book.look().none_yet
    path.unlink()
    path.mkdir()
    assert [p.code for p in book.look().problems] == ["unreadable_file"]


# ----------------------------------------------------------------------------- changes
def add(root: Path, ledger: FileLedger, name: str, role: Role = Role.OPERATOR) -> Accounts:
    return change(root, ledger, account_book.add(name, role, hash=HASH, created="c"), actor="root")


def test_every_change_is_on_record_and_the_file_is_closed_to_others(root: Path, ledger: FileLedger) -> None:
    add(root, ledger, "kim")
    for how in (account_book.password("KIM", HASH), account_book.role("kim", Role.REVIEWER),
                account_book.disable("kim"), account_book.enable("kim"), account_book.rename("kim", "lee"),
                account_book.logins("lee", ("lee@example.org",))):  # fmt: skip
        accounts = change(root, ledger, how, actor="root", os_="root")
    assert accounts == parse((root / USERS_FILE).read_text(encoding="utf-8"))
    (one,) = accounts.all
    assert (one.name, one.role, one.version, one.previous) == ("lee", Role.REVIEWER, 7, ("kim",))
    records = ledger.read()
    assert records.chain.ok and [g.data["act"] for g in records.governance] == [
        "add", "passwd", "role", "disable", "enable", "rename", "logins"]  # fmt: skip
    assert HASH not in json.dumps([dict(g.data) for g in records.governance])
    assert People(records.governance).same("kim", "LEE")
    if os.name == "posix":
        assert stat.S_IMODE((root / USERS_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("how", "error", "code"),
    [
        (account_book.add("KIM", Role.ADMIN, hash=None, created="c"), Refused, "users.taken"),
        (account_book.add("old", Role.ADMIN, hash=None, created="c"), Refused, "users.taken"),
        (
            account_book.add("new", Role.ADMIN, hash=None, created="c", logins=("kim",)),
            Refused,
            "users.taken",
        ),
        (account_book.add("a\u202e", Role.ADMIN, hash=None, created="c"), Refused, "users.bad_name"),
        (account_book.rename("kim", "lee"), Refused, "users.taken"),
        (account_book.rename("kim", "kim"), Refused, "users.same_name"),
        (account_book.role("kim", Role.OPERATOR), Refused, "users.same_role"),
        (account_book.enable("kim"), Refused, "users.enabled_already"),
        (account_book.logins("kim", ("lee",)), Refused, "users.taken"),
        (account_book.disable("nobody"), UnknownId, "users.unknown"),
    ],
)
def test_what_is_refused_changes_nothing(
    root: Path, ledger: FileLedger, how: account_book.Change, error: type[Exception], code: str
) -> None:
    add(root, ledger, "old")
    change(root, ledger, account_book.rename("old", "kim"), actor="root")
    add(root, ledger, "lee")
    before = (root / USERS_FILE).read_bytes(), ledger.read().chain.n
    with pytest.raises(error) as caught:
        change(root, ledger, how, actor="root")
    reasons = caught.value.reasons if isinstance(caught.value, Refused) else (caught.value.reason,)  # type: ignore[attr-defined]
    assert [r.code for r in reasons] == [code]
    assert ((root / USERS_FILE).read_bytes(), ledger.read().chain.n) == before


def test_a_name_that_was_given_back_and_taken_again_stays_with_its_person(
    root: Path, ledger: FileLedger
) -> None:
    add(root, ledger, "kim")
    change(root, ledger, account_book.rename("kim", "park"), actor="root")
    accounts = change(root, ledger, account_book.rename("park", "kim"), actor="root")
    assert accounts.all[0].names == ("kim", "park")


def test_a_broken_file_is_not_written_over(root: Path, ledger: FileLedger) -> None:
    (root / USERS_FILE).write_text("accounts: [", encoding="utf-8")
    with pytest.raises(InputError):
        add(root, ledger, "kim")
    assert (root / USERS_FILE).read_text(encoding="utf-8") == "accounts: ["


def test_a_full_disk_leaves_the_old_file(root: Path, ledger: FileLedger) -> None:
    class Full(Ops):
        def write(self, fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    add(root, ledger, "kim")
    before = (root / USERS_FILE).read_bytes()
    with pytest.raises(StorageError):
        change(root, ledger, account_book.disable("kim"), actor="root", ops=Full())
    assert (root / USERS_FILE).read_bytes() == before
    assert [p.name for p in (root / "configs").iterdir() if "tmp" in p.name] == []


@pytest.mark.skipif(os.name == "nt", reason="needs symlinks")
def test_a_link_out_of_the_root_is_not_followed(
    root: Path, ledger: FileLedger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "users.yaml"
    outside.write_text(ENTRY, encoding="utf-8")
    (root / USERS_FILE).symlink_to(outside)
    with pytest.raises(StorageError):
        add(root, ledger, "lee")
    assert outside.read_text(encoding="utf-8") == ENTRY


def test_who_is_locked_out_is_said() -> None:
    def said(accounts: Accounts, needed: int = 1) -> list[str]:
        return [r.code for r in account_book.cautions(accounts, needed)]

    both = kim().put(Account(name="lee", role=Role.REVIEWER))
    assert said(both) == []
    assert said(both, 2) == ["users.few_reviewers"]
    assert said(kim()) == ["users.few_reviewers"]
    assert said(Accounts(all=(Account(name="lee", role=Role.REVIEWER),))) == ["users.no_operator"]
    assert said(kim(disabled=True)) == ["users.nobody_left"]


# ----------------------------------------------------------------------------- passwords
@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same library with small parameters."""
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys.cache_clear()


def test_a_password_fits_however_the_keyboard_composed_it(quick: None) -> None:
    kept = passwords.hashed("비밀번호 하나 둘")
    assert passwords.fits("비밀번호 하나 둘", kept) and kept.startswith("$argon2id$")
    assert passwords.fits("\u1107\u1175\u1106\u1175\u11af\u1107\u1165\u11ab\u1112\u1169 하나 둘", kept)
    assert not passwords.fits("비밀번호 하나 셋", kept)
    assert not passwords.fits("", kept) and not passwords.fits("x", "no hash")


def test_an_unknown_name_costs_a_whole_comparison(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    right = passwords._HASHER.verify

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:
            compared.append(str(hash))
            return bool(right(hash, password))

    kept = passwords.hashed("old parameters")
    monkeypatch.setattr(passwords, "_HASHER", Counting(time_cost=1, memory_cost=8, parallelism=1))
    accounts = Accounts(all=(Account(name="kim", role=Role.OPERATOR, hash=kept),
                             Account(name="lee", role=Role.OPERATOR)))  # fmt: skip
    for name in ("kim", "lee", "nobody"):
        assert account_book.sign_in_with(accounts, name, "wrong") is None
    assert len(compared) == 3
    found = account_book.sign_in_with(accounts, "Kim", "old parameters")
    assert found is not None and found.name == "kim"


def test_the_right_password_of_a_disabled_person_opens_nothing(quick: None) -> None:
    kept = passwords.hashed("right right")
    off = Accounts(all=(Account(name="kim", role=Role.OPERATOR, hash=kept, disabled=True),))
    assert account_book.sign_in_with(off, "kim", "right right") is None


@pytest.mark.parametrize(
    ("typed", "code"),
    [("short", "users.password_short"), ("x" * 300, "users.password_long"),
     ("Kim Operator", "users.password_plain"), ("aaaaaaaaaaaaaaa", "users.password_plain")],
)  # fmt: skip
def test_what_may_not_be_a_password(typed: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        passwords.acceptable(typed, "kim operator")
    assert caught.value.reasons[0].code == code
    passwords.acceptable("맑은 아침 산책 7", "kim")
