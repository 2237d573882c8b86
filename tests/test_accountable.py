"""Every act leaves who, when and why; what is changed afterwards is seen; nobody signs for themselves."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftune import cli_hands
from selftune.book import APPROVALS, DECISIONS, HISTORY, Batch
from selftune.checkup import Level, checkup
from selftune.cli import main
from selftune.domain import Refused
from selftune.ledger import FileLedger
from selftune.records import render, sha256, strip_end
from tests.conftest import CHECKOUT
from tests.pages.roots import change_settings, suggest, write_event, write_metrics
from tests.test_raw_socket import PASSWORD, account
from tests.test_reviewing import ask, codes, kinds, lines, newest, seen, sign, watch


def shell(root: Path, *argv: str, typed: str = PASSWORD) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{typed}\n".encode()), encoding="utf-8"))
        return main(["--root", str(root), *argv])


def signs(root: Path, name: str) -> int:
    return shell(root, "review", "approve", "--actor", name, "--comment", "read", "--password-stdin")


# ----------------------------------------------------------------------------- own requests (S5)
@pytest.fixture
def staffed(root: Path) -> Path:
    """kim asks as an operator; lee may sign."""
    watch(root)
    account(root, "kim", "operator")
    account(root, "lee", "reviewer")
    argv = ("review", "request", "--actor", "kim", "--reason", "calm weeks", "--password-stdin")
    assert shell(root, *argv) == 0
    return root


@pytest.mark.parametrize(
    ("rename", "name"),
    [
        (None, "kim"),
        (None, "KIM"),
        (None, "ｋｉｍ"),
        (None, " Kim "),
        ("minjun", "minjun"),
        ("minjun", "Minjun"),
    ],
)
def test_who_asked_signs_nothing_whatever_they_are_called_and_whatever_they_become(
    rename: str | None, name: str, staffed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if rename:
        assert shell(staffed, "users", "rename", "kim", rename) == 0
    assert shell(staffed, "users", "role", rename or "kim", "reviewer") == 0
    before = (staffed / APPROVALS).read_bytes()
    capsys.readouterr()
    assert signs(staffed, name) == 4
    with pytest.raises(Refused) as no:  # and by the core itself, as from a second browser
        sign(staffed, name.strip())
    assert codes(no) == ["sign.own"]
    assert (staffed / APPROVALS).read_bytes() == before and not seen(staffed).mode.live


def test_nobody_takes_the_old_name_of_who_asked(staffed: Path) -> None:
    assert shell(staffed, "users", "rename", "kim", "minjun") == 0
    before = (staffed / "configs" / "users.yaml").read_bytes()
    argv = ("users", "add", "KIM", "--role", "reviewer", "--password-stdin")
    assert shell(staffed, *argv) != 0 and (staffed / "configs" / "users.yaml").read_bytes() == before
    assert signs(staffed, "lee") == 0 and seen(staffed).mode.live


# ----------------------------------------------------------------------------- used once (S6)
def test_an_arming_that_is_written_again_lends_nothing(root: Path) -> None:
    """Somebody with a shell appends the old lines anew, with the right `prev`: the request is used."""
    watch(root)
    ask(root)
    sign(root)
    stop_it(root)
    old = [g for g in lines(root) if g["kind"] in ("approve", "arm")]
    for g in old:
        again = {k: v for k, v in g.items() if k not in ("prev", "ts", "id", "v")}
        FileLedger(root, timezone="UTC").commit(Batch(governance=(again,)), None)
        assert seen(root).snap.records.chain.ok and not seen(root).mode.live
    byte_for_byte(root, old[-1])
    assert not seen(root).mode.live
    with pytest.raises(Refused) as no:
        sign(root, "park")
    assert codes(no) == ["sign.used"]


def stop_it(root: Path) -> None:
    assert shell(root, "stop", "--actor", "olga", "--reason", "enough") == 0


def byte_for_byte(root: Path, line: dict[str, Any]) -> None:
    """The very record again, chained anew: same id, same stamp."""
    path = root / APPROVALS
    last = path.read_bytes().splitlines()[-1]
    with path.open("ab") as f:
        f.write(render({**line, "prev": sha256(strip_end(last))}))


# ----------------------------------------------------------------------------- races
RACER = """
import sys, time
from pathlib import Path
from selftune import reviewing, revising
from selftune.config import edit
from selftune.domain import Refused, Role, SelftuneError
from selftune.runtime import Root
path, what, which, start = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
root, base = Root(path), (path / "configs/self_tuning.yaml").read_bytes()
root.snapshot()
time.sleep(max(0.0, start - time.time()))
try:
    if what == "approve":
        reviewing.approve(root, which, actor="lee", role=Role.REVIEWER, comment="read")
    elif what == "refuse":
        reviewing.refuse(root, which, actor="park", role=Role.REVIEWER, why="not yet")
    elif what == "save":
        revising.save(root, base, {"cooldown_s": 240}, actor="olga", role=Role.OPERATOR, why="calmer")
    else:
        text = edit(base.decode(), {"cooldown_s": 240})
        (path / "configs/self_tuning.yaml").write_text(text)
    print("done")
except Refused as no:
    print(no.reasons[0].code)
except SelftuneError as other:
    print(type(other).__name__)
"""


def raced(root: Path, *whats: str) -> list[str]:
    """What each of these said, started at one instant in processes of their own."""
    start = str(time.time() + 4)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(root), what, newest(root), start], cwd=CHECKOUT,
                         stdout=subprocess.PIPE, text=True)
        for what in whats
    ]  # fmt: skip
    return [r.communicate(timeout=120)[0].strip() for r in racers]


def test_of_a_signature_and_a_refusal_at_once_one_counts_and_the_other_is_told(root: Path) -> None:
    watch(root)
    ask(root)
    approve, refuse = raced(root, "approve", "refuse")
    assert sorted([approve == "done", refuse == "done"]) == [False, True], (approve, refuse)
    if approve == "done":
        assert refuse == "sign.used" and kinds(root) == ["request", "approve", "arm"] and seen(root).mode.live
    else:
        assert approve == "sign.refused" and kinds(root) == ["request", "refuse"] and not seen(root).mode.live


@pytest.mark.parametrize("rival", ["save", "editor"])
def test_a_signature_against_an_edit_never_lends_what_was_not_read(rival: str, root: Path) -> None:
    """Whoever is first: live mode stands on exactly the settings that were signed, or there is none."""
    watch(root)
    ask(root)
    signed_for = lines(root)[0]["settings"]
    approve, edit = raced(root, "approve", rival)
    p = seen(root)
    assert p.snap.records.chain.ok
    if p.mode.live:
        assert p.settings.digest == signed_for and p.settings.cooldown_s != 240
        assert approve == "done" and edit != "done"
    else:
        assert p.settings.dry_run or p.settings.digest != signed_for
    assert approve in ("done", "sign.void", "Conflict", "StaleSnapshot"), approve
    assert edit in ("done", "Conflict", "StaleSnapshot"), edit
    if edit == "done":
        assert p.settings.cooldown_s == 240, "nothing is written over"


# ----------------------------------------------------------------------------- on record
@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root on which everything was done once that people do."""
    from tests.conftest import SHIPPED

    root = tmp_path_factory.mktemp("lived") / "root"
    for name in ("configs", "controls", "logs"):
        (root / name).mkdir(parents=True)
    shutil.copyfile(SHIPPED, root / "configs" / "self_tuning.yaml")
    write_metrics(root)
    change_settings(root, metrics__max_age_s=36_000)
    watch(root)
    account(root, "kim", "operator")
    account(root, "lee", "reviewer")
    write_event(root, "creative_min", 0.22, 0.24, minutes_ago=20, actor="someone", note="by hand")
    first, second = suggest(root), None
    why = ("--actor", "kim", "--reason", "because")
    assert shell(root, "reject", first, *why) == 0
    second = suggest(root)
    assert shell(root, "apply", second, *why) == 0
    assert shell(root, "rollback", *why) == 0
    asked = ("review", "request", "--actor", "kim", "--reason", "because", "--password-stdin")
    assert shell(root, *asked) == 0
    assert shell(root, "review", "refuse", "--actor", "lee", "--reason", "because", "--password-stdin") == 0
    assert shell(root, *asked) == 0
    assert signs(root, "lee") == 0
    assert shell(root, "stop", *why) == 0
    assert shell(root, "resume", *why) == 0
    assert shell(root, "users", "disable", "kim", "--actor", "ada") == 0
    return root


def records(root: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (root / name).read_text(encoding="utf-8").splitlines()]


def test_every_act_says_who_when_and_why(lived: Path) -> None:
    governance = records(lived, APPROVALS)
    found = [g["kind"] for g in governance]
    assert set(found) >= {"account", "request", "refuse", "approve", "arm", "stop", "resume"}
    for g in governance:
        assert g["ts"] and g["id"] and g["by"] and g["role"] and len(g["prev"]) == 64, g["kind"]
        if g["kind"] in ("request", "refuse", "stop", "resume"):
            assert g["by"] in ("kim", "lee") and g["reason"] == "because"
        if g["kind"] in ("request", "refuse", "approve", "stop", "resume", "account"):
            assert g["os"], f"{g['kind']}: in a shell a name proves nobody"
        if g["kind"] in ("approve", "arm", "refuse"):
            assert g["request"] and g["settings"]
    decisions = {d["act"]: d for d in records(lived, DECISIONS) if d.get("act")}
    for act in ("reject", "apply", "rollback", "stop", "resume"):
        d = decisions[act]
        assert d["actor"] == "kim" and d["why"] == "because" and d["ts"] and d["os"], act
    events = records(lived, HISTORY)[1:]
    assert [e["actor"] for e in events] == ["kim", "kim"] and all(e["decision"] and e["ts"] for e in events)
    assert checkup(lived).exit_code == 0


def whole(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def changed(k: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda x: [*x[:k], x[k].replace(b'"by"', b'"By"', 1), *x[k + 1 :]]


TAMPERINGS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    **{f"line {k + 1} changed": changed(k) for k in range(8)},
    "a line taken out": lambda x: [*x[:3], *x[4:]],
    "two lines swapped": lambda x: [*x[:2], x[3], x[2], *x[4:]],
    "a line twice": lambda x: [*x[:3], x[2], *x[3:]],
    "the last line cut": lambda x: x[:-1],
    "the last three cut": lambda x: x[:-3],
    "everything gone": lambda x: [],
    "a line put before": lambda x: [x[0].replace(b"kim", b"eve"), *x],
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_whatever_is_changed_afterwards_is_seen_by_line_and_means_practice(
    name: str, lived: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(lived, tmp_path / "root"))
    heads(root)
    path = root / APPROVALS
    path.write_bytes(b"".join(TAMPERINGS[name](whole(path))))
    assert not seen(root).mode.live and not seen(root).snap.records.chain.ok
    found = [f for f in checkup(root).findings if f.file == APPROVALS and f.level is Level.FILE]
    assert found and checkup(root).exit_code == 3
    capsys.readouterr()
    assert main(["--root", str(root), "--lang", "en", "check"]) == 3
    said = "".join(capsys.readouterr())
    if name.startswith("line "):
        k = int(name.split()[1])
        assert f"Line {k + 1} does not follow" in said or f"line {k}" in said.lower(), said
    with pytest.raises(Refused):
        ask(root)


def heads(root: Path) -> None:
    """One more decision: it carries the head of the chain, so that a cut tail shows."""
    watch(root)
    assert records(root, DECISIONS)[-1]["approvals_head"]["n"] == len(whole(root / APPROVALS))


def test_a_loan_that_was_changed_after_it_was_asked_for_is_void(root: Path) -> None:
    """The last line, and no decision after it yet: the evidence under its digest tells what was asked."""
    watch(root)
    ask(root)
    path = root / APPROVALS
    asked = json.loads(whole(path)[0])
    asked["loan"]["changes"] = 900
    path.write_bytes(render(asked))
    assert seen(root).snap.records.chain.ok, "a single line has no follower that tells"
    with pytest.raises(Refused) as no:
        sign(root)
    assert codes(no) == ["sign.void", "void.evidence"] and not seen(root).mode.live


@pytest.mark.skipif(sys.platform == "win32", reason="there the environment is all there is")
def test_the_account_on_record_is_the_systems_and_not_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else `LOGNAME=lee` makes a second person of whoever asked."""
    import pwd

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "lee")
    assert cli_hands.account() == pwd.getpwuid(os.getuid()).pw_name != "lee"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such list of accounts")
def test_an_account_that_the_system_has_no_name_for_is_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOGNAME", "lee")
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_123)
    assert cli_hands.account() == "lee"
