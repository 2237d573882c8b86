"""The governance record, folded: who may sign, what voids, and never an arming without its signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.domain import Governance, Reason, RiskWarning, RuleEvent
from selftune.governing import (
    REVIEW_MS,
    Facts,
    People,
    Request,
    State,
    What,
    against,
    backed,
    blocking,
    current,
    fold,
    moved,
    state,
)
from selftune.mode import effective_mode
from tests.stage import T0, Story, iso, ms, settings_with

LOAN = {"changes": 3, "displacement": 2.0, "until": iso(5 * 3600)}
SETTINGS = settings_with({"strategy.dry_run": False})
DIGEST, EVIDENCE = SETTINGS.digest, "e" * 64
GRADES = {"days": "none", "warnings": "pass", "gaps": "look"}


class Book:
    """A governance record by hand; every line a second after the one before."""

    def __init__(self) -> None:
        self.lines: list[Governance] = []

    def add(self, kind: str, by: str, role: str = "reviewer", **data: Any) -> str:
        n = len(self.lines) + 1
        self.lines.append(
            Governance(id=f"g{n}", ts_ms=ms(n), at_ms=ms(n), kind=kind, by=by, role=role, n=n,
                       data={"kind": kind, **data})
        )  # fmt: skip
        return f"g{n}"

    def ask(self, by: str = "kim", **more: Any) -> str:
        data = {
            "what": "arming",
            "settings": DIGEST,
            "evidence": EVIDENCE,
            "loan": LOAN,
            "grades": GRADES,
            **more,
        }
        return self.add("request", by, "operator", **data)

    def sign(self, request: str, by: str = "lee", role: str = "reviewer", **more: Any) -> str:
        said = {"request": request, "settings": DIGEST, "evidence": EVIDENCE, **more}
        return self.add("approve", by, role, **said)

    def arm(self, request: str, **more: Any) -> str:
        return self.add(
            "arm", "lee", request=request, **{"settings": DIGEST, "loan": LOAN, "values": {}, **more}
        )

    @property
    def asked(self) -> Request:
        found = current(fold(self.lines))
        assert found is not None
        return found


def facts(**more: Any) -> Facts:
    return Facts(**{"now_ms": ms(60), "clock_ms": ms(60), "settings": DIGEST, "grades": GRADES, **more})


def event(rule: str = "risk_max", actor: str = "batch") -> RuleEvent:
    return RuleEvent(key="e1", ts_ms=T0, at_ms=T0, actor=actor, rule=rule, old=0.35, new=0.33)


def crit(severity: str = "crit") -> RiskWarning:
    return RiskWarning(ts_ms=T0, at_ms=T0, severity=severity, rule=None, note="hot")


# ----------------------------------------------------------------------------- who may sign
@pytest.mark.parametrize(
    ("by", "os", "may"),
    [
        ("lee", "", True),
        ("kim", "", False),
        ("KIM", "", False),
        (" Kim\u3000", "", False),
        ("ｋｉｍ", "", False),  # full width
        ("park", "kim", False),  # whoever asked, under another name in their own shell
        ("root", "root", False),  # the name that is the OS account of the request's shell
        ("lee", "root", True),  # one OS account that two people share
    ],
)
def test_whoever_asked_never_signs(by: str, os: str, may: bool) -> None:
    b = Book()
    r = b.ask(os="root")
    why = against(b.asked, by, os=os, comment="read", grades=GRADES, people=People())
    assert [x.code for x in why] == ([] if may else ["sign.own"])
    b.sign(r, by, os=os)
    assert len(b.asked.signatures) == may


def test_a_renamed_account_is_the_same_person() -> None:
    b = Book()
    r = b.ask("kim")
    b.add("account", "boss", "admin", old="kim", new="jung")
    b.sign(r, "Jung")
    assert b.asked.signatures == ()
    b.sign(r, "lee")
    b.add("account", "boss", "admin", old="lee", new="choi")
    b.sign(r, "choi")
    assert [s.by for s in b.asked.signatures] == ["lee"]


def test_nobody_signs_twice_and_only_reviewers_count() -> None:
    b = Book()
    r = b.ask()
    for by, role in (
        ("lee", "reviewer"),
        ("LEE", "reviewer"),
        ("max", "admin"),
        ("olga", "operator"),
        ("", "reviewer"),
    ):
        b.sign(r, by, role)
    assert [s.by for s in b.asked.signatures] == ["lee"]
    twice = against(b.asked, "Lee", comment="x", grades=GRADES, people=People())
    assert [x.code for x in twice] == ["sign.twice"]


@pytest.mark.parametrize("wrong", [{"settings": "other"}, {"evidence": "f" * 64}, {"request": "g9"}])
def test_a_signature_to_something_else_is_none(wrong: dict[str, str]) -> None:
    b = Book()
    r = b.ask()
    b.add("approve", "lee", **{"request": r, "settings": DIGEST, "evidence": EVIDENCE, **wrong})
    assert b.asked.signatures == ()


@pytest.mark.parametrize(
    ("grades", "comment", "strict", "codes"),
    [
        ({"a": "pass"}, "", False, []),
        ({"a": "look"}, "", False, ["sign.comment_needed"]),
        ({"a": "none"}, " ", False, ["sign.comment_needed"]),
        ({"a": "none"}, "read", False, []),
        ({"a": "none"}, "read", True, ["sign.blocked"]),
        ({"a": "fail"}, "read", False, ["sign.blocked"]),
        ({"a": "surprising"}, "read", False, ["sign.blocked"]),
    ],
)
def test_a_failed_item_blocks_and_a_doubtful_one_needs_a_comment(
    grades: dict[str, str], comment: str, strict: bool, codes: list[str]
) -> None:
    b = Book()
    b.ask()
    why = against(b.asked, "lee", comment=comment, grades=grades, strict=strict, people=People())
    assert [x.code for x in why] == codes and bool(blocking(grades, strict=strict)) == (
        "sign.blocked" in codes
    )


# ----------------------------------------------------------------------------- what voids
@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ({}, []),
        ({"settings": "other"}, ["void.settings"]),
        ({"settings": None}, ["void.settings_invalid"]),
        ({"chain_ok": False}, ["void.chain"]),
        ({"evidence_ok": False}, ["void.evidence"]),
        ({"events": [event()]}, ["void.event"]),
        ({"warnings": [crit()]}, ["void.crit"]),
        ({"warnings": [crit("warn")]}, []),
        ({"grades": {**GRADES, "warnings": "look"}}, ["void.grade"]),
        ({"grades": {**GRADES, "gaps": "none"}}, ["void.grade"]),
        ({"grades": {**GRADES, "gaps": "pass", "days": "look"}}, []),
        (
            {"grades": {**GRADES, "new": "fail"}},
            [],
        ),  # an item that was not on the list blocks, it voids nothing
        ({"now_ms": ms(1) + REVIEW_MS}, ["void.expired", "void.loan_over"]),
        ({"clock_ms": ms(1) + REVIEW_MS}, ["void.expired"]),  # the wall clock was set back
        ({"now_ms": ms(-120)}, ["void.expired"]),
        ({"now_ms": ms(5 * 3600)}, ["void.loan_over"]),
        (
            {"events": [event()], "settings": "x", "warnings": [crit()]},
            ["void.settings", "void.event", "void.crit"],
        ),
    ],
)
def test_what_moved_is_named(more: dict[str, Any], codes: list[str]) -> None:
    b = Book()
    b.ask()
    f = facts(**more)
    assert [m.code for m in moved(b.asked, f)] == codes
    assert state(b.asked, f, 1) is (State.VOID if codes else State.OPEN)


def test_what_was_known_at_the_request_voids_nothing_and_lines_that_vanish_do() -> None:
    b = Book()
    b.ask(events=1, warnings=1)
    known = facts(events=[event()], warnings=[crit()])
    assert moved(b.asked, known) == ()
    assert [m.code for m in moved(b.asked, replace(known, events=[]))] == ["void.history"]


def test_a_void_on_record_stays_void_when_all_is_as_before() -> None:
    b = Book()
    r = b.ask()
    b.add(
        "void",
        "selftune",
        "system",
        request=r,
        moved=[{"code": "void.crit", "params": {"note": "x", "rule": None}}],
    )
    b.sign(r)
    assert state(b.asked, facts(), 1) is State.VOID and b.asked.signatures == ()


def test_a_stop_a_newer_request_and_an_edit_end_a_request() -> None:
    for end, code in (
        (lambda b: b.add("stop", "olga", "operator"), "void.stopped"),
        (lambda b: b.add("edit", "olga", "operator", digest_after="other"), "void.settings"),
        (lambda b: b.ask("jung"), "void.replaced"),
    ):
        b = Book()
        first = b.ask()
        end(b)  # type: ignore[no-untyped-call]
        b.sign(first)
        found = next(r for r in fold(b.lines) if r.id == first)
        assert [m.code for m in found.moved] == [code] and not found.signatures


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([{"key": "cooldown_s", "old": 180, "new": 200}], "cooldown_s 180 → 200"),
        ([{"key": "auto_rollback", "old": True, "new": False}], "auto_rollback true → false"),
        ([{"key": "timezone", "old": None, "new": "UTC"}], "timezone – → UTC"),
        ([{"key": k, "old": 1, "new": 2} for k in "abcd"], "a 1 → 2, b 1 → 2, c 1 → 2, …"),
        (None, None),
        (["wild", {"old": 1}], None),
    ],
)
def test_an_edit_that_ends_a_request_is_named(changes: object, told: str | None) -> None:
    b = Book()
    b.ask()
    b.add("edit", "olga", "operator", digest_after="other", changes=changes)
    assert b.asked.moved == (Reason("void.settings", {"by": "olga", "changes": told}),)


def test_a_refusal_ends_it_and_the_requester_cannot_refuse() -> None:
    b = Book()
    r = b.ask()
    b.add("refuse", "KIM", request=r)
    b.add("refuse", "olga", "operator", request=r)
    assert state(b.asked, facts(), 1) is State.OPEN
    b.add("refuse", "lee", request=r)
    b.sign(r, "park")
    assert state(b.asked, facts(), 1) is State.REFUSED and not b.asked.signatures


def test_a_late_signature_is_none() -> None:
    b = Book()
    r = b.ask()
    b.sign(r)
    b.lines[-1] = replace(b.lines[-1], ts_ms=ms(1) + REVIEW_MS)
    assert not b.asked.signatures


def test_settings_that_need_a_reviewer_need_one_even_where_live_mode_needs_none() -> None:
    b = Book()
    b.add("request", "kim", "operator", what="edit", settings=DIGEST)
    (r,) = fold(b.lines)
    assert r.what is What.EDIT and state(r, facts(), 0) is State.OPEN


@pytest.mark.parametrize(
    "broken",
    [{"what": "money"}, {"settings": 3}, {"loan": None}, {"loan": "all"}, {"grades": [1]}, {"crits": 7}],
)
def test_nonsense_in_the_record_breaks_nothing(broken: dict[str, Any]) -> None:
    b = Book()
    r = b.ask(**broken)
    b.sign(r)
    b.arm(r)
    fold(b.lines)
    backed(b.lines, 1)


# ----------------------------------------------------------------------------- never live without signatures
def live(lines: Sequence[Governance], required: int) -> bool:
    s = replace(SETTINGS, governance=replace(SETTINGS.governance, approvals_required=required))
    found = effective_mode(
        replace(s, digest=DIGEST),
        lines,
        Story(SETTINGS).life,
        settings_valid=True,
        chain_ok=True,
        now_ms=ms(100),
    )
    return found.live


def test_live_needs_every_signature_to_these_terms() -> None:
    b = Book()
    r = b.ask()
    b.sign(r)
    b.arm(r)
    assert live(b.lines, 1) and not live(b.lines, 2)
    assert not live(b.lines[1:], 1) and not live([*b.lines[:1], b.lines[2]], 1)
    for wrong in ({"loan": {**LOAN, "changes": 99}}, {"settings": "other"}, {"request": "g7"}):
        other = Book()
        other.ask()
        other.sign("g1")
        other.arm("g1", **wrong) if "request" not in wrong else other.arm("g7")
        assert not live(other.lines, 1)


def test_a_request_is_used_once() -> None:
    b = Book()
    r = b.ask()
    b.sign(r)
    b.arm(r)
    b.add("stop", "olga", "operator")
    b.arm(r)
    assert not live(b.lines, 1), "the second arming of one request lifts no stop"


NAMES = st.sampled_from(["kim", "KIM", "lee", "Lee ", "park", "jung"])
MOVES = st.one_of(
    st.tuples(st.just("ask"), NAMES),
    st.tuples(
        st.just("sign"),
        NAMES,
        st.integers(0, 3),
        st.sampled_from(["reviewer", "reviewer", "operator", "admin"]),
    ),
    st.tuples(st.just("arm"), NAMES, st.integers(0, 3)),
    st.tuples(st.sampled_from(["stop", "disarm", "resume", "edit"]), NAMES),
    st.tuples(st.just("refuse"), NAMES, st.integers(0, 3)),
    st.tuples(st.just("rename"), NAMES, NAMES),
)


GOOD = [("ask", "kim"), *(("sign", who, 0, "reviewer") for who in ("lee", "park", "jung")), ("arm", "lee", 0)]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """A review as it should be, with something left out, something put in, two things swapped."""
    moves = list(GOOD)
    for i in draw(st.lists(st.integers(0, 4), max_size=1)):
        del moves[i]
    for i, move in draw(st.lists(st.tuples(st.integers(0, 9), MOVES), max_size=4)):
        moves.insert(i, move)
    for i in draw(st.lists(st.integers(1, 4), max_size=1)):
        moves[i - 1], moves[i % len(moves)] = moves[i % len(moves)], moves[i - 1]
    return moves


@given(histories(), st.integers(1, 3))
def test_in_any_order_live_means_enough_people_signed_who_did_not_ask(
    moves: list[tuple[Any, ...]], required: int
) -> None:
    b, asked = Book(), []
    for move in moves:
        kind, by = move[0], move[1]
        target = asked[move[2] % len(asked)] if kind in ("sign", "arm", "refuse") and asked else "g99"
        if kind == "ask":
            asked.append(b.ask(by))
        elif kind == "sign":
            b.sign(target, by, move[3])
        elif kind == "arm":
            b.arm(target)
        elif kind == "refuse":
            b.add("refuse", by, request=target)
        elif kind == "rename":
            b.add("account", "boss", "admin", old=by, new=move[2])
        else:
            b.add(kind, by, "operator", digest_after="other")
    if live(b.lines, required):
        switch = [g for g in b.lines if g.kind in ("arm", "stop", "disarm", "resume")]
        arms = [g for g in switch if g.kind == "arm" and g.id in backed(b.lines, required)]
        r = next(r for r in b.lines if r.id == arms[-1].data["request"])
        before = b.lines[: b.lines.index(arms[-1])]
        signers = {
            g.by.strip().casefold() for g in before
            if g.kind == "approve" and g.role == "reviewer" and g.data["request"] == r.id
        } - {r.by.strip().casefold()}  # fmt: skip
        assert len(signers) >= required
        own = {r.by.strip().casefold()}
        renamed = [
            {g.data[k].strip().casefold() for k in ("old", "new")} for g in b.lines if g.kind == "account"
        ]
        for pair in renamed * len(renamed):
            own |= pair if own & pair else set()
        refusals = [g for g in before if g.kind == "refuse" and g.data["request"] == r.id]
        assert all(g.by.strip().casefold() in own for g in refusals)
        assert not any(g.kind == "edit" for g in before[before.index(r) :])
        assert b.lines[-1].kind not in ("stop", "disarm")
