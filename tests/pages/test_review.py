"""The review page: a question, the evidence with its grades, the exact change; ask, sign, send back, void."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from selftune import reviewing
from selftune.book import APPROVALS
from selftune.catalogue import LANGUAGES
from selftune.config import edit, parse
from selftune.domain import Reason, Role
from selftune.governing import Request
from selftune.picture import Picture
from selftune.plan import Act
from selftune.review_report import review_html
from selftune.reviewing import Terms
from selftune.runtime import Root
from selftune.standing import checklist, requests, standing
from tests.pages.acting import STATES, opened, prepare, said_well, visit, words_on
from tests.pages.roots import change_settings, record, write_event, write_metrics

SETTINGS = "configs/self_tuning.yaml"
NASTY = "<script>alert(1)</script> **굵게** ![x](http://evil.example/a.png) \u202eabc"
TERMS = Terms(changes=3, displacement=2.0, hours=5.0)


def ready(root: Path, *, signatures: int = 1) -> None:
    """A root that may ask: fresh data, and a loop that has recorded a decision."""
    write_metrics(root, minutes=3)
    change_settings(root, governance__approvals_required=signatures)
    record(root, Act(kind="cycle", act="hold", reasons=(Reason("hold.targets_met"),)))


def request(root: Path, *, by: str = "kim", why: str = "밤에도 지켜보고 싶습니다") -> Request:
    return reviewing.request(Root(root), TERMS, actor=by, role=Role.OPERATOR, why=why)


def kinds(root: Path) -> list[str]:
    path = root / APPROVALS
    return [json.loads(x)["kind"] for x in path.read_bytes().splitlines()] if path.exists() else []


def keys(at: AppTest) -> set[str]:
    """Keys of every button that is open to be pressed, but for the banner's."""
    return {str(b.key) for b in at.button if not b.disabled and not str(b.key).startswith("banner_")}


def press(at: AppTest, key: str) -> AppTest:
    (found,) = [b for b in at.button if b.key == key]
    return found.click().run()


# ------------------------------------------------------------------------------- every state is said
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("state", STATES)
def test_page(state: str, language: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.VIEWER)
    prepare(root, state)
    at = opened("review", root, monkeypatch, language)
    said_well(at, language)
    assert at.title[0].value.endswith("?")


# the buttons do not depend on the language
@pytest.mark.parametrize(("role", "language"), [*((r, "en") for r in Role), (Role.REVIEWER, "ko")])
@pytest.mark.parametrize("life", ["open", "refused", "void", "live", "ended"])
def test_every_life_of_a_request_is_said_to_every_role(
    life: str, role: Role, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(root)
    r = request(root)
    if life == "refused":
        reviewing.refuse(
            Root(root), r.id, actor="lee", role=Role.REVIEWER, why="되돌리기를 먼저 해 봐 주세요"
        )
    if life == "void":
        write_event(root, "risk_max", 0.35, 0.33, minutes_ago=0, actor="batch")
    if life in ("live", "ended"):
        reviewing.approve(Root(root), r.id, actor="lee", role=Role.REVIEWER, comment="읽었습니다")
    if life == "ended":
        Root(root).hand(
            lambda p: reviewing.end_loan(p, actor="kim", role="operator", reason="점검"), actor="kim"
        )
    buttons = {
        ("open", Role.REVIEWER): {"review_approve", "review_refuse"},
        ("refused", Role.OPERATOR): {"review_ask_send"},
        ("void", Role.OPERATOR): {"review_ask_send"},
        ("live", Role.OPERATOR): {"review_end"},
        ("ended", Role.OPERATOR): {"review_ask_send"},
    }
    visit(monkeypatch, role, "somebody")
    at = opened("review", root, monkeypatch, language)
    text = said_well(at, language)
    assert keys(at) == buttons.get((life, role), set())
    assert r.id in text
    facts = {"refused": "되돌리기를 먼저", "void": "batch", "live": "lee", "ended": "점검", "open": "kim"}
    assert facts[life] in text


def test_without_evidence_nothing_is_green(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.REVIEWER)
    text = words_on(opened("review", root, monkeypatch, "en"))
    assert "not enough evidence" in text and "<b>pass</b>" not in text
    assert "Please do not turn it off now." in text


def test_the_exact_line_and_the_fingerprint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.VIEWER)
    prepare(root, "full")
    codes = [c.value for c in opened("review", root, monkeypatch, "en").code]
    changed = [x for x in codes[0].splitlines() if re.match(r"[-+] ", x)]
    assert changed == ["-  dry_run: true", "+  dry_run: false"]
    assert codes[1] == parse((root / SETTINGS).read_bytes()).digest


def test_settings_that_say_false_already_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.VIEWER)
    path = root / SETTINGS
    path.write_text(edit(path.read_text(encoding="utf-8"), {"strategy.dry_run": False}), encoding="utf-8")
    assert "dry_run is false already" in words_on(opened("review", root, monkeypatch, "en"))


def test_unknown_bars_are_shown_as_typed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.VIEWER)
    path = root / SETTINGS
    text = edit(path.read_text(encoding="utf-8"), {("governance", "readiness", "<b>luck</b>"): 1})
    path.write_text(text, encoding="utf-8")
    shown = words_on(opened("review", root, monkeypatch, "en"))
    assert "&lt;b&gt;luck&lt;/b&gt;" in shown and "<b>luck</b>" not in shown


def test_what_people_wrote_is_shown_as_typed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(root)
    r = request(root, by="<i>kim</i>", why=NASTY)
    reviewing.refuse(Root(root), r.id, actor="lee", role=Role.REVIEWER, why=NASTY)
    visit(monkeypatch, Role.VIEWER)
    at = opened("review", root, monkeypatch, "en")
    shown = words_on(at)
    assert "&lt;script&gt;alert(1)" in shown and "<script>" not in shown and "<i>kim" not in shown
    assert "\u202e" not in shown
    assert not any(NASTY[:10] in str(m.value) for m in at.markdown), "as markdown it would run"
    p = Picture(Root(root).snapshot())
    report = review_html(p, checklist(root, p), standing(root, p, requests(p)[0])).decode()
    assert "<script" not in report and "http://evil" not in re.findall(r'(?:src|href)="([^"]*)', report)


# ------------------------------------------------------------------------------- asking, signing
def test_an_operator_asks_and_the_request_is_on_record(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(root)
    visit(monkeypatch, Role.OPERATOR)
    at = opened("review", root, monkeypatch, "en")
    at.number_input(key="review_ask_changes").set_value(4)
    press(at, "review_ask_send")
    assert kinds(root) == [], "a request needs its reason"
    at.text_area(key="review_ask_why").set_value("calm weeks")
    press(at, "review_ask_send")
    (made,) = requests(Picture(Root(root).snapshot()))
    assert (made.by, made.reason, made.loan["changes"]) == ("kim", "calm weeks", 4)
    assert at.query_params["req"] in (made.id, [made.id])
    assert "to a reviewer" in words_on(at) and not keys(at)


def test_a_reviewer_reads_comments_and_signs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(root)
    r = request(root)
    visit(monkeypatch, Role.REVIEWER, "lee")
    at = opened("review", root, monkeypatch, "en")
    press(at, "review_approve")
    assert any("tick the box" in w.value for w in at.warning) and kinds(root) == ["request"]
    at.checkbox(key=f"review_read_{r.id}").check()
    press(at, "review_approve")
    assert "Some items did not pass" in words_on(at) and kinds(root) == ["request"]
    at.text_area(key=f"review_comment_{r.id}").set_value("days are few, the loan is small")
    press(at, "review_approve")
    assert kinds(root) == ["request", "approve", "arm"]
    assert at.title[0].value == "It is live now" and "days are few" in words_on(at)
    assert Picture(Root(root).snapshot()).mode.live


def test_the_requester_as_reviewer_gets_text_and_a_second_signer_is_awaited(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(root, signatures=2)
    r = request(root)
    visit(monkeypatch, Role.REVIEWER, "KIM")
    at = opened("review", root, monkeypatch, "en")
    assert not keys(at) and any("You made this request yourself" in i.value for i in at.info)
    reviewing.approve(Root(root), r.id, actor="lee", role=Role.REVIEWER, comment="fine")
    visit(monkeypatch, Role.REVIEWER, "Lee ")
    at = opened("review", root, monkeypatch, "en")
    assert not keys(at) and any("You have signed" in i.value for i in at.info)
    assert "1 of 2 signatures" in words_on(at) and not Picture(Root(root).snapshot()).mode.live


def test_what_became_void_while_it_was_read_is_not_signed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(root)
    r = request(root)
    visit(monkeypatch, Role.REVIEWER, "lee")
    at = opened("review", root, monkeypatch, "en")
    at.checkbox(key=f"review_read_{r.id}").check()
    at.text_area(key=f"review_comment_{r.id}").set_value("read")
    change_settings(root, cooldown_s=200)
    press(at, "review_approve")
    assert "arm" not in kinds(root)
    shown = words_on(at)
    assert "What has moved?" in shown and "fingerprint is no longer" in shown


def test_a_proposal_of_looser_bounds_is_signed_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(root)
    base = (root / SETTINGS).read_bytes()
    r = reviewing.propose(Root(root), base, {"rules.risk_max.max": 0.45}, actor="kim", role=Role.OPERATOR,
                          why="more room")  # fmt: skip
    visit(monkeypatch, Role.REVIEWER, "lee")
    at = opened("review", root, monkeypatch, "en")
    shown = said_well(at, "en")
    assert at.title[0].value == "Loosen these settings?" and "0.4 → 0.45" in shown and "more room" in shown
    at.checkbox(key=f"review_read_{r.id}").check()
    press(at, "review_approve")
    assert parse((root / SETTINGS).read_bytes()).rules["risk_max"].max == 0.45


# ------------------------------------------------------------------------------- paper, addresses
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_print_view_has_everything_and_no_control(
    language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(root)
    r = request(root)
    visit(monkeypatch, Role.REVIEWER, "lee")
    at = opened("review", root, monkeypatch, language)
    at.query_params["print"], at.query_params["req"] = "1", r.id
    at.run()
    text = said_well(at, language)
    assert not keys(at) and "dry_run: false" in text and r.id in text and r.evidence in text


def test_an_unknown_address_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(root)
    request(root)
    visit(monkeypatch, Role.VIEWER)
    at = opened("review", root, monkeypatch, "en")
    at.query_params["req"] = "01NOBODY"
    at.run()
    assert any("no request with this number" in i.value for i in at.info)


def test_the_report_stands_alone(root: Path) -> None:
    ready(root)
    r = request(root)
    p = Picture(Root(root).snapshot())
    text = review_html(p, checklist(root, p), standing(root, p, r)).decode()
    assert "dry_run: false" in text and r.evidence in text and p.settings.digest in text
    assert (
        not re.search(r'(?:src|href)="http', text)
        and 'lang="en"' in text
        and "{" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    )


# ------------------------------------------------------------------------------- on every page
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_loan_stands_in_the_banner_and_how_it_ended(
    language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(root)
    r = request(root)
    visit(monkeypatch, Role.REVIEWER, "lee")
    at = opened("overview", root, monkeypatch, language)
    assert ("review" in words_on(at)) or ("서명을 기다립니다" in words_on(at))
    reviewing.approve(Root(root), r.id, actor="lee", role=Role.REVIEWER, comment="read")
    visit(monkeypatch, Role.VIEWER)
    shown = words_on(opened("help", root, monkeypatch, language))
    assert ("남은 변경 3번" if language == "ko" else "3 changes left") in shown
    Root(root).hand(lambda p: reviewing.end_loan(p, actor="olga", role="operator", reason=""), actor="olga")
    visit(monkeypatch, Role.VIEWER)
    shown = words_on(opened("help", root, monkeypatch, language))
    assert "changes left" not in shown and "남은 변경" not in shown and "olga" in shown
    assert ("실제 적용이 끝나" if language == "ko" else "Live mode ended") in shown


def test_a_loan_that_ended_before_its_time_is_taken_up_again_from_any_page(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(root)
    r = request(root)
    reviewing.approve(Root(root), r.id, actor="lee", role=Role.REVIEWER, comment="read")
    visit(monkeypatch, Role.OPERATOR, "olga")
    assert "banner_resume_tuning" not in keys_of_all(opened("help", root, monkeypatch, "en"))
    Root(root).hand(lambda p: reviewing.end_loan(p, actor="kim", role="operator", reason=""), actor="kim")
    at = opened("help", root, monkeypatch, "en")
    assert {"banner_resume_tuning", "banner_stop_tuning"} <= keys_of_all(at)
    at.button(key="banner_resume_tuning").click().run()
    at.button(key="send_resume_tuning").click().run()
    assert Picture(Root(root).snapshot()).mode.live
    assert "banner_resume_tuning" not in keys_of_all(opened("help", root, monkeypatch, "en"))
    Root(root).hand(lambda p: reviewing.end_loan(p, actor="kim", role="operator", reason=""), actor="kim")
    change_settings(root, cooldown_s=33)  # other settings than those signed: nothing to take up
    assert "banner_resume_tuning" not in keys_of_all(opened("help", root, monkeypatch, "en"))


def keys_of_all(at: AppTest) -> set[str]:
    return {str(b.key) for b in at.button}
