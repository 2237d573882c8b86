"""Sessions that end, back-off that grows, and what goes on record. Every clock is the test's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from selftune import passwords
from selftune.account_book import AccountBook
from selftune.accounts import USERS_FILE, Account, Accounts, render
from selftune.address import client_behind
from selftune.backoff import FIRST_S, LONGEST_S, TRIES, TRIES_OF_ADDRESS, Backoff
from selftune.domain import LockHeld, Role
from selftune.reception import RECORDS, Outcome, Reception
from selftune.sessions import IDLE_S, MOST_OF_ONE, Instant, Sessions, key_of
from selftune.sessions import LONGEST_S as DAY_S

KIM = Account(name="kim", role=Role.OPERATOR, created="c")


@dataclass
class Time:
    """Two clocks that a test moves."""

    steady_s: float = 1000.0
    wall_s: float = 1_800_000_000.0

    def now(self) -> Instant:
        return Instant(steady_s=self.steady_s, wall_s=self.wall_s)

    def wall(self) -> float:
        return self.wall_s

    def go(self, seconds: float) -> None:
        self.steady_s += seconds
        self.wall_s += seconds


@pytest.fixture
def time() -> Time:
    return Time()


# ----------------------------------------------------------------------------- sessions
def test_a_session_ends_after_half_an_hour_without_an_act(time: Time) -> None:
    sessions = Sessions(clock=time.now)
    key = key_of(sessions.open(KIM))
    time.go(IDLE_S - 1)
    assert sessions.find(key) is not None
    sessions.touch(key)
    time.go(IDLE_S - 1)
    assert sessions.find(key) is not None
    time.go(1)
    assert sessions.find(key) is None and len(sessions) == 0


def test_a_session_ends_after_twelve_hours_whatever_is_done(time: Time) -> None:
    sessions = Sessions(clock=time.now)
    key = key_of(sessions.open(KIM))
    for _ in range(round(DAY_S / 600) - 1):
        time.go(600)
        sessions.touch(key)
        assert sessions.find(key) is not None
    time.go(600)
    assert sessions.find(key) is None


@pytest.mark.parametrize(("steady", "wall"), [(IDLE_S, -86_400.0), (1.0, IDLE_S)])
def test_no_clock_that_jumps_makes_a_session_longer(time: Time, steady: float, wall: float) -> None:
    sessions = Sessions(clock=time.now)
    key = key_of(sessions.open(KIM))
    time.steady_s += steady
    time.wall_s += wall
    assert sessions.find(key) is None


def test_each_sign_in_has_an_id_of_its_own_and_only_its_hash_is_kept(time: Time) -> None:
    sessions = Sessions(clock=time.now)
    tokens = {sessions.open(KIM) for _ in range(5)}
    assert len(tokens) == 5 and all(len(t) >= 43 for t in tokens)
    assert not any(t in repr(sessions.__dict__) for t in tokens)
    assert sessions.find(next(iter(tokens))) is None  # the cookie's id is no key


def test_one_person_cannot_fill_the_memory(time: Time) -> None:
    sessions = Sessions(clock=time.now)
    lee = key_of(sessions.open(replace(KIM, name="lee")))
    keys = []
    for _ in range(MOST_OF_ONE + 5):
        time.go(1)
        keys.append(key_of(sessions.open(KIM)))
    assert [sessions.find(k) is not None for k in keys] == [False] * 5 + [True] * MOST_OF_ONE
    assert sessions.find(lee) is not None


# ----------------------------------------------------------------------------- back-off
@pytest.mark.parametrize(
    ("forwarded", "asks"),
    [
        ("1.1.1.1, 9.9.9.9", "9.9.9.9"),
        ("9.9.9.9:50123", "9.9.9.9"),
        ("[2001:db8::1]:50123", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("9.9.9.9, 10.0.0.5", "9.9.9.9"),
        ("9.9.9.9, ::ffff:10.0.0.5", "9.9.9.9"),
        ("", "10.0.0.5"),
    ],
)
def test_who_asks_behind_a_listed_proxy(forwarded: str, asks: str) -> None:
    for peer in ("10.0.0.5", "::ffff:10.0.0.5"):  # as a server bound to `::` meets the same proxy
        found = client_behind(peer, forwarded, ["10.0.0.0/24"])
        assert found == (peer if asks == "10.0.0.5" else asks)


def test_a_server_for_both_kinds_of_address_counts_each_machine_for_itself() -> None:
    backoff = Backoff(None, clock=Time().wall)
    assert fail(backoff, TRIES, address="::ffff:10.0.0.1") == FIRST_S
    assert backoff.wait_s("kim", "10.0.0.1") == FIRST_S
    assert backoff.wait_s("kim", "::ffff:10.0.0.2") == 0


def fail(backoff: Backoff, n: int, name: str = "kim", address: str = "10.0.0.1") -> float:
    waits = [backoff.failed(name, address) for _ in range(n)]
    return waits[-1]


def test_the_fifth_failure_costs_a_wait_that_doubles_up_to_a_quarter_of_an_hour(time: Time) -> None:
    backoff = Backoff(None, clock=time.wall)
    assert fail(backoff, TRIES - 1) == 0 and backoff.wait_s("kim", "10.0.0.1") == 0
    waits = []
    for _ in range(8):
        waits.append(backoff.failed("KIM ", "10.0.0.1"))
        assert backoff.wait_s("kim", "10.0.0.1") == waits[-1]
        time.go(waits[-1])
        assert backoff.wait_s("kim", "10.0.0.1") == 0
    assert waits == [min(LONGEST_S, FIRST_S * 2**k) for k in range(8)]


def test_failures_that_lie_apart_cost_nothing(time: Time) -> None:
    backoff = Backoff(None, clock=time.wall)
    for _ in range(20):
        assert backoff.failed("kim", "10.0.0.1") == 0
        time.go(90)


def test_nobody_is_locked_out_from_elsewhere(time: Time) -> None:
    backoff = Backoff(None, clock=time.wall)
    assert fail(backoff, TRIES) > 0
    assert backoff.wait_s("kim", "10.0.0.2") == 0 and backoff.wait_s("lee", "10.0.0.1") == 0


def test_a_list_of_names_is_no_way_around(time: Time) -> None:
    backoff = Backoff(None, clock=time.wall)
    waits = [backoff.failed(f"name{k}", "10.0.0.1") for k in range(TRIES_OF_ADDRESS)]
    assert waits[:-1] == [0.0] * (TRIES_OF_ADDRESS - 1) and waits[-1] > 0
    assert backoff.wait_s("somebody else", "10.0.0.1") > 0


def test_a_subscriber_of_ipv6_is_one_address(time: Time) -> None:
    backoff = Backoff(None, clock=time.wall)
    for k in range(TRIES):
        backoff.failed("kim", f"2001:db8::{k:x}:1")
    assert backoff.wait_s("kim", "[2001:db8::99]") > 0 and backoff.wait_s("kim", "2001:db8:1::1") == 0


def test_a_restart_forgives_nothing_and_names_nobody(tmp_path: Path, time: Time) -> None:
    path = tmp_path / "logs" / "sign_in.json"
    fail(Backoff(path, clock=time.wall), TRIES)
    assert Backoff(path, clock=time.wall).wait_s("kim", "10.0.0.1") == FIRST_S
    assert b"kim" not in path.read_bytes() and b"10.0.0.1" not in path.read_bytes()
    time.wall_s -= 10 * 365 * 86_400  # a clock set back keeps nobody out for years
    assert Backoff(path, clock=time.wall).wait_s("kim", "10.0.0.1") <= LONGEST_S


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"held": {"a": 3}, "salt": "x"}', '{"held": [], "salt": 1}']
)
def test_a_broken_file_of_waits_is_begun_again(tmp_path: Path, time: Time, text: str) -> None:
    path = tmp_path / "sign_in.json"
    path.write_text(text, encoding="utf-8")
    assert fail(Backoff(path, clock=time.wall), TRIES) == FIRST_S


def test_the_right_password_wipes_the_slate(time: Time) -> None:
    backoff = Backoff(None, clock=time.wall)
    fail(backoff, TRIES - 1)
    backoff.passed("kim", "10.0.0.1")
    assert fail(backoff, TRIES - 1) == 0


# ----------------------------------------------------------------------------- the reception
@dataclass
class House:
    """A reception over a real account file; `said` is what went on record."""

    root: Path
    time: Time
    said: list[dict[str, Any]] = field(default_factory=list)
    accounts: Accounts = field(default_factory=Accounts)

    def __post_init__(self) -> None:
        self.desk = Reception(
            AccountBook(self.root), Sessions(clock=self.time.now), Backoff(None, clock=self.time.wall),
            self.said.append, clock=lambda: self.time.steady_s,
        )  # fmt: skip

    def put(self, *accounts: Account) -> None:
        self.accounts = Accounts(all=accounts)
        (self.root / USERS_FILE).write_text(render(self.accounts), encoding="utf-8")

    def kinds(self) -> list[str]:
        return [r["kind"] for r in self.said]


@pytest.fixture
def house(root: Path, time: Time, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys.cache_clear()
    found = House(root=root, time=time)
    found.put(replace(KIM, hash=passwords.hashed("right right")))
    return found


def test_in_and_out_are_on_record_without_password_or_cookie(house: House) -> None:
    answer = house.desk.come_in(" KIM ", "right right", "10.0.0.1")
    assert answer.outcome is Outcome.IN
    session = house.desk.sessions.find(key_of(answer.token))
    assert session is not None and house.desk.account_of(session) == house.accounts.all[0]
    house.desk.leave(session.key)
    assert house.desk.sessions.find(session.key) is None
    assert house.kinds() == ["signin", "signout"] and [r["by"] for r in house.said] == ["kim", "kim"]
    assert "right right" not in repr(house.said) and answer.token not in repr(house.said)
    house.desk.leave(session.key)  # twice is once
    assert len(house.said) == 2


@pytest.mark.parametrize(
    "how",
    [
        lambda a: replace(a, disabled=True),
        lambda a: replace(a, version=a.version + 1),
        lambda a: replace(a, created="another account of that name"),
        lambda a: replace(a, name="other"),
    ],
    ids=["disabled", "password or role changed", "made anew", "gone"],
)
def test_a_session_ends_with_what_it_was_opened_for(house: House, how: Any) -> None:
    key = key_of(house.desk.come_in("kim", "right right", "").token)
    session = house.desk.sessions.find(key)
    assert session is not None and house.desk.account_of(session) is not None
    house.put(how(house.accounts.all[0]))
    assert house.desk.account_of(session) is None and house.desk.sessions.find(key) is None


def test_a_broken_account_file_lets_nobody_in_and_nobody_stay(house: House) -> None:
    key = key_of(house.desk.come_in("kim", "right right", "").token)
    session = house.desk.sessions.find(key)
    (house.root / USERS_FILE).write_text("accounts: [", encoding="utf-8")
    answer = house.desk.come_in("kim", "right right", "")
    assert answer.outcome is Outcome.BROKEN and answer.problems and not answer.token
    assert session is not None and house.desk.account_of(session) is None


def test_before_the_first_account_there_is_nothing_to_guess(house: House) -> None:
    house.put()
    assert house.desk.come_in("kim", "right right", "").outcome is Outcome.NOBODY


def test_waiting_helps_and_the_right_password_does_not_shorten_it(house: House, time: Time) -> None:
    for _ in range(TRIES - 1):
        assert house.desk.come_in("kim", "wrong", "10.0.0.1").outcome is Outcome.WRONG
    answer = house.desk.come_in("kim", "wrong", "10.0.0.1")
    assert (answer.outcome, answer.wait_s) == (Outcome.WAIT, FIRST_S)
    assert house.desk.come_in("kim", "right right", "10.0.0.1").outcome is Outcome.WAIT
    assert house.desk.come_in("kim", "right right", "10.0.0.2").outcome is Outcome.IN
    time.go(FIRST_S)
    assert house.desk.come_in("kim", "right right", "10.0.0.1").outcome is Outcome.IN


def test_what_is_typed_as_a_name_goes_nowhere_unless_it_is_one(house: House) -> None:
    house.desk.come_in("my secret password", "kim", "10.0.0.1")
    house.desk.come_in("KIM", "wrong", "10.0.0.1")
    assert [(r["by"], r["known"]) for r in house.said] == [("", False), ("kim", True)]
    assert "my secret" not in repr(house.said)


def test_a_flood_of_failures_is_counted_and_not_written(house: House, time: Time) -> None:
    for k in range(RECORDS + 15):
        house.desk.come_in(f"name{k}", "wrong", f"10.0.{k}.1")
    assert len(house.said) == RECORDS
    time.go(601)
    house.desk.come_in("kim", "wrong", "10.0.0.1")
    assert house.said[-1]["unwritten"] == 15 and len(house.said) == RECORDS + 1


def test_a_record_that_cannot_be_written_keeps_nobody_out(house: House) -> None:
    def full(record: object) -> None:
        raise LockHeld("commit.lock", pid=1, host="h", since="s")

    house.desk.note = full
    assert house.desk.come_in("kim", "right right", "").outcome is Outcome.IN
