"""A review, written: by the right people, once, byte for byte, and never live by half whatever dies when."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftune import governing, reviewing
from selftune.book import APPROVALS, SETTINGS, Batch
from selftune.checkup import Level, checkup
from selftune.config import edit, parse
from selftune.domain import Reason, Refused, Role, StorageError, UnknownId
from selftune.files import Ops
from selftune.governing import State
from selftune.ledger import FileLedger
from selftune.picture import Picture
from selftune.plan import Act
from selftune.reviewing import Terms
from selftune.revising import Conflict, Fate, revisions
from selftune.runtime import Root
from selftune.standing import evidence, evidence_file, requests, standing
from tests.conftest import CHECKOUT

TERMS = Terms(changes=3, displacement=2.0, hours=5.0)
LOOSER = {"rules.risk_max.max": 0.45}


@pytest.fixture
def asked(root: Path) -> Path:
    """A root on which kim has asked for a review."""
    watch(root)
    ask(root)
    return root


def watch(root: Path) -> None:
    """The loop has looked once: a decision of its own is on record."""
    hold = Act(kind="cycle", act="hold", reasons=(Reason("hold.targets_met"),))
    Root(root).hand(lambda _: (hold,), actor="selftune")


def ask(root: Path, **more: Any) -> str:
    wish = {"actor": "kim", "role": Role.OPERATOR, "why": "calm weeks", **more}
    return reviewing.request(
        Root(root), more.pop("terms", TERMS), **{k: v for k, v in wish.items() if k != "terms"}
    ).id


def sign(root: Path, by: str = "lee", which: str | None = None, **more: Any) -> reviewing.Signed:
    wish = {"actor": by, "role": Role.REVIEWER, "comment": "read", **more}
    opened = wish.pop("opened", None) or Root(root)
    return reviewing.approve(opened, which or newest(root), **wish)


def newest(root: Path) -> str:
    return requests(Picture(Root(root).snapshot()))[-1].id


def seen(root: Path) -> Picture:
    return Picture(Root(root).snapshot())


def at(root: Path) -> tuple[State, list[str]]:
    """Where the newest request stands, and what moved."""
    p = seen(root)
    now = standing(root, p, requests(p)[-1])
    return now.state, [m.code for m in now.moved]


def lines(root: Path) -> list[dict[str, Any]]:
    path = root / APPROVALS
    return [json.loads(x) for x in path.read_bytes().splitlines()] if path.exists() else []


def kinds(root: Path) -> list[str]:
    return [g["kind"] for g in lines(root)]


def change(root: Path, **keys: Any) -> None:
    path = root / SETTINGS
    text = edit(path.read_text(encoding="utf-8"), {k.replace("__", "."): v for k, v in keys.items()})
    path.write_text(text, encoding="utf-8")


def stop(root: Path) -> None:
    record = {"kind": "stop", "by": "olga", "role": "operator"}
    FileLedger(root, timezone="UTC").commit(Batch(governance=(record,)), None)


def codes(no: pytest.ExceptionInfo[Refused]) -> list[str]:
    return [r.code for r in no.value.reasons]


# ----------------------------------------------------------------------------- the way it should go
def test_asked_signed_and_live_with_one_scalar_changed(asked: Path) -> None:
    before = (asked / SETTINGS).read_bytes()
    assert not seen(asked).mode.live
    done = sign(asked)
    after = (asked / SETTINGS).read_bytes()
    assert done.done and after == before.replace(b"dry_run: true", b"dry_run: false") != before
    assert kinds(asked) == ["request", "approve", "arm"]
    p = seen(asked)
    assert p.mode.live and p.mode.loan is not None and p.snap.records.chain.ok
    assert (p.mode.loan.changes, p.mode.loan.displacement, p.mode.loan.base) == (3, 2.0, dict(p.life.values))
    assert at(asked)[0] is State.USED
    assert max(len(x) for x in (asked / APPROVALS).read_bytes().splitlines()) < 4096


@pytest.mark.parametrize(("bom", "newline"), [("", "\r\n"), ("\ufeff", "\n")])
def test_line_ends_and_a_bom_stay(root: Path, bom: str, newline: str) -> None:
    text = bom + (root / SETTINGS).read_text(encoding="utf-8").replace("\n", newline)
    (root / SETTINGS).write_bytes(text.encode())
    watch(root)
    ask(root)
    sign(root)
    assert (root / SETTINGS).read_bytes() == text.replace("dry_run: true", "dry_run: false").encode()


def test_two_signatures_are_two_people(root: Path) -> None:
    change(root, governance__approvals_required=2)
    watch(root)
    ask(root)
    assert sign(root, "lee").left == 1 and not seen(root).mode.live
    with pytest.raises(Refused) as no:
        sign(root, " LEE")
    assert codes(no) == ["sign.twice"]
    assert sign(root, "park").done and seen(root).mode.live
    arm = lines(root)[-1]
    assert len(arm["approvals"]) == 1 and arm["by"] == "park"


def test_a_loan_that_ended_is_asked_for_anew_without_touching_the_file(asked: Path) -> None:
    sign(asked)
    Root(asked).hand(lambda p: reviewing.end_loan(p, actor="olga", role="operator", reason="x"), actor="olga")
    assert seen(asked).mode.reason.code == "mode.disarmed"
    before = (asked / SETTINGS).read_bytes()
    ask(asked)
    sign(asked)
    assert seen(asked).mode.live and (asked / SETTINGS).read_bytes() == before


def test_the_evidence_lies_beside_the_record_under_its_digest(asked: Path) -> None:
    record = lines(asked)[0]
    found = evidence(asked, record["evidence"])
    assert found is not None and found["settings"] == record["settings"]
    assert {i["code"]: i["grade"] for i in found["items"]} == record["grades"]
    assert found["loan"] == record["loan"] and "dry_run: false" in found["diff"]
    assert evidence(asked, "../../configs/self_tuning") is None


# ----------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("role", [Role.VIEWER, Role.REVIEWER, Role.ADMIN])
def test_only_operators_ask(root: Path, role: Role) -> None:
    watch(root)
    with pytest.raises(Refused):
        ask(root, role=role)
    assert kinds(root) == []


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
def test_only_reviewers_decide(asked: Path, role: Role) -> None:
    for act in (sign, lambda r, **k: reviewing.refuse(Root(r), newest(r), actor="lee", why="x", **k)):
        with pytest.raises(Refused):
            act(asked, role=role)
    assert kinds(asked) == ["request"]


@pytest.mark.parametrize(
    ("prepare", "more", "code"),
    [
        (lambda r: None, {"why": " "}, "ask.no_reason"),
        (lambda r: None, {"actor": " "}, "ask.no_reason"),
        (lambda r: None, {"terms": Terms(changes=0, displacement=2, hours=5)}, "ask.terms"),
        (lambda r: None, {"terms": Terms(changes=3, displacement=0, hours=5)}, "ask.terms"),
        (lambda r: None, {"terms": Terms(changes=3, displacement=2, hours=1e9)}, "ask.terms"),
        (lambda r: None, {"terms": Terms(changes=3, displacement=float("nan"), hours=5)}, "ask.terms"),
        (lambda r: change(r, governance__approvals_required=0), {}, "ask.not_needed"),
        (lambda r: (ask(r), sign(r)), {}, "ask.live"),
        (stop, {}, "mode.stopped"),
    ],
)
def test_what_cannot_be_asked_for(
    root: Path, prepare: Callable[[Path], Any], more: dict[str, Any], code: str
) -> None:
    watch(root)
    prepare(root)
    n = len(lines(root))
    with pytest.raises(Refused) as no:
        ask(root, **more)
    assert codes(no) == [code] and len(lines(root)) == n


def test_a_root_that_nobody_watched_is_blocked(root: Path) -> None:
    with pytest.raises(Refused) as no:
        ask(root)
    assert codes(no) == ["ask.blocked"] and no.value.reasons[0].params["items"] == ["days"]


def test_a_site_may_let_missing_evidence_block(root: Path) -> None:
    change(root, governance__readiness__missing_blocks=1)
    watch(root)
    with pytest.raises(Refused) as no:
        ask(root)
    assert codes(no) == ["ask.blocked"] and "placebo" in no.value.reasons[0].params["items"]


def test_an_unknown_request_a_second_use_and_one_that_was_sent_back(asked: Path) -> None:
    with pytest.raises(UnknownId):
        sign(asked, which="01NOBODY")
    first = newest(asked)
    with pytest.raises(Refused) as no:
        reviewing.refuse(Root(asked), first, actor="lee", role=Role.REVIEWER, why=" ")
    assert codes(no) == ["sign.refusal_reason"]
    reviewing.refuse(Root(asked), first, actor="lee", role=Role.REVIEWER, why="try the drill first")
    with pytest.raises(Refused) as no:
        sign(asked, "park")
    assert codes(no) == ["sign.refused"] and not seen(asked).mode.live
    ask(asked)
    sign(asked, "park")
    with pytest.raises(Refused) as no:
        sign(asked, "jung")
    assert codes(no) == ["sign.used"]


# ----------------------------------------------------------------------------- void
def rule_event(root: Path) -> None:
    line = {"ts": "2026-01-01T00:00:00+09:00", "actor": "batch", "rule": "risk_max", "old": 0.35, "new": 0.33}
    with (root / "controls/rules_history.jsonl").open("a") as f:
        f.write(json.dumps(line) + "\n")


def new_crit(root: Path) -> None:
    FileLedger(root, timezone="UTC").commit(
        Batch(warnings=({"severity": "crit", "rule": None, "signal": {}, "note": "hot"},)), None
    )


def evidence_of(root: Path) -> Path:
    file = evidence_file(root, lines(root)[0]["evidence"])
    assert file is not None
    return file


def evidence_edited(root: Path) -> None:
    file = evidence_of(root)
    file.write_bytes(file.read_bytes().replace(b'"none"', b'"pass"'))


def worse_grade(root: Path) -> None:
    FileLedger(root, timezone="UTC").commit(
        Batch(warnings=({"severity": "warn", "rule": None, "signal": {}, "note": "warm"},)), None
    )


@pytest.mark.parametrize(
    ("move", "code"),
    [
        (lambda r: change(r, cooldown_s=200), "void.settings"),
        (rule_event, "void.event"),
        (new_crit, "void.crit"),
        (worse_grade, "void.grade"),
        (evidence_edited, "void.evidence"),
        (lambda r: evidence_of(r).unlink(), "void.evidence"),
    ],
)
def test_whatever_moves_between_two_signatures_voids_and_is_named(
    root: Path, move: Callable[[Path], Any], code: str
) -> None:
    change(root, governance__approvals_required=2)
    watch(root)
    ask(root)
    sign(root, "lee")
    base = (root / SETTINGS).read_bytes()
    move(root)
    changed = (root / SETTINGS).read_bytes()
    with pytest.raises(Refused) as no:
        sign(root, "park")
    assert codes(no)[0] == "sign.void" and code in codes(no)
    assert not seen(root).mode.live and (root / SETTINGS).read_bytes() == changed
    assert kinds(root) == ["request", "approve", "void"]
    (root / SETTINGS).write_bytes(base)  # put back as it was: what is void stays void
    with pytest.raises(Refused):
        sign(root, "park")
    assert at(root)[0] is State.VOID and "arm" not in kinds(root)


def test_a_comment_in_the_file_voids_nothing(asked: Path) -> None:
    path = asked / SETTINGS
    path.write_bytes(path.read_bytes() + b"# a note\n")
    sign(asked)
    assert seen(asked).mode.live and path.read_bytes().endswith(b"# a note\n")


def test_a_broken_chain_takes_no_signature_and_is_dry_run(asked: Path) -> None:
    path = asked / APPROVALS
    sign(asked)
    path.write_bytes(path.read_bytes().replace(b'"changes": 3', b'"changes": 9', 1))
    assert seen(asked).mode.reason.code == "mode.chain_broken"
    found = [f for f in checkup(asked).findings if f.file == APPROVALS and f.level is Level.FILE]
    assert found and found[0].item.params["line"] == 2
    n = len(lines(asked))
    for act in (ask, sign):
        with pytest.raises(Refused):
            act(asked)
    assert len(lines(asked)) == n


def test_check_names_what_was_tampered_with(asked: Path) -> None:
    assert checkup(asked).exit_code == 0
    evidence_edited(asked)
    found = [f for f in checkup(asked).findings if f.item.code == "check.evidence_changed"]
    assert [f.item.params["id"] for f in found] == [newest(asked)] and checkup(asked).exit_code == 3
    evidence_of(asked).unlink()
    gone = [f for f in checkup(asked).findings if f.item.code == "check.evidence_gone"]
    assert gone and checkup(asked).exit_code == 0
    arm = {
        "kind": "arm",
        "by": "lee",
        "role": "reviewer",
        "request": newest(asked),
        "settings": "x",
        "loan": {},
    }
    FileLedger(asked, timezone="UTC").commit(Batch(governance=(arm,)), None)
    (unsigned,) = [f for f in checkup(asked).findings if f.item.code == "check.arm_unsigned"]
    assert unsigned.item.params["line"] == 2 and not seen(asked).mode.live


# ----------------------------------------------------------------------------- races
RACER = """
import sys, time
from pathlib import Path
from selftune import reviewing
from selftune.domain import Refused, Role
from selftune.runtime import Root
path, who, which, start = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
root = Root(path)
root.snapshot()
time.sleep(max(0.0, start - time.time()))
try:
    reviewing.approve(root, which, actor=who, role=Role.REVIEWER, comment="read")
    print("signed")
except Refused as no:
    print(no.reasons[0].code)
"""


@pytest.mark.slow
def test_of_two_approvers_in_two_processes_one_wins_and_the_other_is_told(asked: Path) -> None:
    import time

    which, start = newest(asked), str(time.time() + 3)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(asked), who, which, start], cwd=CHECKOUT,
                         stdout=subprocess.PIPE, text=True)
        for who in ("lee", "park")
    ]  # fmt: skip
    said = sorted(r.communicate(timeout=60)[0].strip() for r in racers)
    assert said == ["sign.used", "signed"]
    assert kinds(asked) == ["request", "approve", "arm"] and seen(asked).mode.live


class Meddler(Ops):
    """Does something once, right after the last signature is on disk."""

    def __init__(self, root: Path, meddle: Callable[[], None]) -> None:
        self.root, self.meddle, self.done = root, meddle, False

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        if not self.done and "arm" in kinds(self.root):
            self.done = True
            self.meddle()


def test_an_editor_that_saves_between_record_and_switch_wins_and_it_stays_practice(asked: Path) -> None:
    theirs = edit((asked / SETTINGS).read_text(encoding="utf-8"), {"cooldown_s": 300}).encode()
    ops = Meddler(asked, lambda: (asked / SETTINGS).write_bytes(theirs) and None)
    with pytest.raises(Conflict):
        sign(asked, opened=Root(asked, ops=ops), ops=ops)
    assert (asked / SETTINGS).read_bytes() == theirs and not seen(asked).mode.live
    assert at(asked)[0] is State.USED, "the signature is spent"


class Full(Ops):
    """The disk takes records, but no new settings file."""

    def replace(self, source: str, target: str) -> None:
        if target.endswith("self_tuning.yaml"):
            raise OSError(28, "no room")
        super().replace(source, target)


def test_a_switch_that_cannot_be_written_takes_the_arming_back(asked: Path) -> None:
    ops = Full()
    with pytest.raises(StorageError):
        sign(asked, opened=Root(asked, ops=ops), ops=ops)
    assert kinds(asked) == ["request", "approve", "arm", "disarm"]
    assert lines(asked)[-1]["reason"] == "loan.not_switched" and not seen(asked).mode.live


# ----------------------------------------------------------------------------- killed at every operation
class Killed(BaseException):
    """As a kill: nothing after it runs."""


class Killer(Ops):
    """Dies before its n-th operation that changes the disk."""

    def __init__(self, at: int) -> None:
        self.at, self.n = at, 0

    def _step(self) -> None:
        self.n += 1
        if self.n > self.at:
            raise Killed

    def write(self, fd: int, data: bytes) -> int:
        self._step()
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._step()
        super().fsync(fd)

    def replace(self, source: str, target: str) -> None:
        self._step()
        super().replace(source, target)

    def unlink(self, path: str) -> None:
        self._step()
        super().unlink(path)


class Torn(Killer):
    """Dies in the middle of its n-th write."""

    def write(self, fd: int, data: bytes) -> int:
        if self.n + 1 > self.at:
            Ops.write(self, fd, data[: len(data) // 2])
        return super().write(fd, data)


@pytest.mark.parametrize("death", [Killer, Torn])
def test_killed_anywhere_in_the_last_signature_it_is_practice_or_whole(
    asked: Path, tmp_path: Path, death: type[Killer]
) -> None:
    safe = tmp_path / "before"
    shutil.copytree(asked, safe, ignore=shutil.ignore_patterns("before", "try*"))
    states = set()
    for at_op in range(60):
        root = tmp_path / f"try{at_op}"
        shutil.copytree(safe, root)
        ops = death(at_op)
        try:
            sign(root, opened=Root(root, ops=ops), ops=ops)
            died = False
        except Killed:
            died = True
        p = seen(root)
        flipped = not parse((root / SETTINGS).read_bytes()).dry_run
        assert p.mode.live == (flipped and "arm" in kinds_of(p)), at_op
        assert p.snap.records.chain.ok and (not flipped or p.mode.live), (
            "the switch never moves before its record"
        )
        states.add((died, p.mode.live))
        if not p.mode.live:
            settled(root)
        if not died:
            break
    assert {(True, False), (False, True)} <= states, states


def kinds_of(p: Picture) -> list[str]:
    return [g.kind for g in p.snap.records.governance]


def settled(root: Path) -> None:
    """After a kill the next act tidies up, and the review can be had anew."""
    p = seen(root)
    if governing.backed(p.snap.records.governance, 1):
        assert at(root)[0] is State.USED
    ask(root, why="again")
    assert reviewing.settle(Root(root)) is None, "the request has settled what was left"
    sign(root, "park")
    assert seen(root).mode.live


# ----------------------------------------------------------------------------- settings that need a signature
def propose(root: Path, changes: dict[str, Any] | None = None, **more: Any) -> str:
    wish = {"actor": "kim", "role": Role.OPERATOR, "why": "more room", **more}
    return reviewing.propose(Root(root), (root / SETTINGS).read_bytes(), changes or LOOSER, **wish).id


def test_looser_bounds_are_saved_by_a_reviewers_signature(root: Path) -> None:
    before = (root / SETTINGS).read_bytes()
    propose(root, {**LOOSER, "safety.hard.risk_band.max": 0.5})
    assert (root / SETTINGS).read_bytes() == before
    with pytest.raises(Refused) as no:
        sign(root, "Kim")
    assert codes(no) == ["sign.own"]
    assert sign(root, comment="").done
    saved = parse((root / SETTINGS).read_bytes())
    assert (saved.rules["risk_max"].max, saved.hard["risk_band"].max, saved.dry_run) == (0.45, 0.5, True)
    (revision,) = revisions(seen(root).snap.records)
    assert (revision.by, revision.fate) == ("kim", Fate.IN_FORCE) and lines(root)[-1]["signed_by"] == "lee"
    assert at(root)[0] is State.USED


def test_a_proposal_is_void_when_the_settings_moved_and_nothing_is_overwritten(root: Path) -> None:
    propose(root)
    change(root, cooldown_s=300)
    theirs = (root / SETTINGS).read_bytes()
    with pytest.raises(Refused) as no:
        sign(root)
    assert codes(no) == ["sign.void", "void.settings"] and (root / SETTINGS).read_bytes() == theirs


def test_a_proposal_ends_a_running_review_when_it_is_saved_but_not_before(asked: Path) -> None:
    arming = newest(asked)
    edit_id = propose(asked)
    assert standing(asked, seen(asked), requests(seen(asked))[0]).state is State.OPEN
    sign(asked, which=edit_id)
    with pytest.raises(Refused) as no:
        sign(asked, "park", which=arming)
    assert "void.settings" in codes(no) and not seen(asked).mode.live


def test_saving_a_proposal_ends_a_loan(asked: Path) -> None:
    sign(asked)
    propose(asked)
    sign(asked, "park")
    assert not seen(asked).mode.live


@pytest.mark.parametrize("role", [Role.VIEWER, Role.REVIEWER, Role.ADMIN])
def test_only_operators_propose(root: Path, role: Role) -> None:
    with pytest.raises(Refused):
        propose(root, role=role)
    assert kinds(root) == []


def test_a_proposal_on_an_old_file_is_a_conflict(root: Path) -> None:
    base = (root / SETTINGS).read_bytes()
    change(root, cooldown_s=300)
    with pytest.raises(Conflict):
        reviewing.propose(Root(root), base, LOOSER, actor="kim", role=Role.OPERATOR, why="x")
    assert kinds(root) == []
