"""Targets and bounds: every state, role and language; a save that really moves just the scalar; conflicts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from selftune.book import Batch
from selftune.catalogue import LANGUAGES
from selftune.config import edit, parse
from selftune.domain import Role
from selftune.ledger import FileLedger
from selftune.picture import Picture
from selftune.revising import save
from selftune.runtime import Root
from tests.pages.acting import STATES, opened, prepare, said_well, visit, words_on
from tests.stage import sign

SETTINGS = "configs/self_tuning.yaml"
APPROVALS = "controls/approvals.jsonl"
HOSTILE = "<script>alert(1)</script> **bold** [x](http://e.example) :red[y] \u202egnp"


def text_of(root: Path) -> str:
    return (root / SETTINGS).read_bytes().decode("utf-8")


def field(at: AppTest, path: str) -> object:
    return next(x for x in (*at.number_input, *at.selectbox) if str(x.key).endswith(path))


def press(at: AppTest, label: str) -> AppTest:
    """Presses the button of this label and runs the page."""
    next(b for b in at.button if b.label == label).click()
    return at.run()


def changed(at: AppTest, **values: float) -> AppTest:
    """The form with these values, previewed; `__` stands for a dot."""
    for path, value in values.items():
        field(at, path.replace("__", ".")).set_value(value)  # type: ignore[attr-defined]
    return press(at, "Preview")


def saved(at: AppTest, why: str = "calmer nights") -> AppTest:
    next(t for t in at.text_area if "why" in str(t.key)).set_value(why)
    return press(at, "Save")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_page(role: Role, state: str, language: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, role)
    prepare(root, state)
    at = opened("targets", root, monkeypatch, language)
    said_well(at, language)
    editing = role is Role.OPERATOR and not state.endswith("_settings")
    assert bool(at.number_input) is editing


@pytest.mark.parametrize("role", [Role.VIEWER, Role.REVIEWER, Role.ADMIN])
def test_who_may_not_save_sees_text_and_nothing_that_looks_live(
    role: Role, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Root(root), text_of(root).encode(), {"cooldown_s": 200}, actor="kim", role=Role.OPERATOR, why="x")
    visit(monkeypatch, role)
    at = opened("targets", root, monkeypatch, "en")
    assert not at.number_input and not at.text_area
    assert not [b.label for b in at.button if "tuning" not in b.label]
    text = words_on(at)
    assert "ask an operator" in text and "0.05" in text and "0.2 ~ 0.4" in text and "200" in text


def test_a_save_moves_just_the_scalar_and_is_on_record(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    prepare(root, "full")
    before = text_of(root)
    at = changed(opened("targets", root, monkeypatch, "en"), targets__risk_band__max=0.28)
    assert at.title[0].value == "One more look before saving?"
    shown = words_on(at)
    assert "0.3 → 0.28" in shown and "stricter" in shown and "100% → 0%" in shown
    assert text_of(root) == before  # looking writes nothing
    at = saved(at, HOSTILE)
    assert text_of(root) == before.replace("risk_band: { max: 0.30 }", "risk_band: { max: 0.28 }") != before
    record = json.loads((root / APPROVALS).read_text(encoding="utf-8"))
    assert (record["kind"], record["by"], record["reason"]) == ("edit", "kim", HOSTILE)
    assert at.title[0].value == "Targets and bounds"
    assert field(at, "targets.risk_band.max").value == 0.28  # type: ignore[attr-defined]
    text = said_well(at, "en")
    assert "&lt;script&gt;" in text and "<script>" not in text and "\u202e" not in text


def test_a_reason_is_mandatory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    before = text_of(root)
    at = saved(changed(opened("targets", root, monkeypatch, "en"), cooldown_s=200.0), "   ")
    assert text_of(root) == before and at.warning and not (root / APPROVALS).exists()


def test_nothing_changed_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    at = press(opened("targets", root, monkeypatch, "en"), "Preview")
    assert at.title[0].value == "Targets and bounds" and "Nothing was changed" in at.warning[-1].value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rules__risk_max__max": 0.3}, "outside"),
        ({"targets__phase_diff__max": -1.0, "cooldown_s": -3.0}, "cannot be saved"),
    ],
)
def test_what_may_not_be_saved_has_no_save(
    change: dict[str, float], words: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.OPERATOR)
    before = text_of(root)
    at = changed(opened("targets", root, monkeypatch, "en"), **change)
    assert words in said_well(at, "en")
    assert not at.text_area and "Save" not in [b.label for b in at.button]
    at = press(at, "Back to the form")
    path, value = next(iter(change.items()))
    assert field(at, path.replace("__", ".")).value == value  # type: ignore[attr-defined]
    assert text_of(root) == before


@pytest.mark.parametrize(
    "change",
    [{"rules__risk_max__max": 0.5}, {"rules__risk_max__lr": 0.04}, {"safety__hard__risk_band__max": 0.45}],
)
def test_what_takes_a_signature_is_asked_of_the_reviewers(
    change: dict[str, float], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.OPERATOR)
    before = text_of(root)
    at = changed(opened("targets", root, monkeypatch, "en"), **change, cooldown_s=150.0)
    assert "signature" in said_well(at, "en") and "Save" not in [b.label for b in at.button]
    press(at, "Ask the reviewers")
    assert at.warning and text_of(root) == before and not (root / APPROVALS).exists()
    at.text_area[0].set_value("a wider road")
    press(at, "Ask the reviewers")
    (asked,) = (json.loads(x) for x in (root / APPROVALS).read_text(encoding="utf-8").splitlines())
    assert (asked["kind"], asked["what"], asked["by"], asked["reason"]) == (
        "request", "edit", "kim", "a wider road"
    )  # fmt: skip
    assert {c["key"] for c in asked["changes"]} == {next(iter(change)).replace("__", "."), "cooldown_s"}
    assert text_of(root) == before  # nothing is in force before a signature
    assert at.query_params["req"] in (asked["id"], [asked["id"]])
    assert "a wider road" in said_well(at, "en") and "The reviewers were asked" in words_on(at)


def test_a_conflict_shows_three_sides_and_never_overwrites(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.OPERATOR)
    at = changed(opened("targets", root, monkeypatch, "en"), targets__risk_band__max=0.27)
    theirs = edit(text_of(root), {"targets.risk_band.max": 0.28, "cooldown_s": 180})
    (root / SETTINGS).write_text(theirs, encoding="utf-8")
    at = saved(at)
    assert text_of(root) == theirs and not (root / APPROVALS).exists()
    text = said_well(at, "en")
    assert at.title[0].value.startswith("Somebody else")
    assert all(x in text for x in ("0.3<", "0.28<", "0.27<", "changed in two ways", "180<"))
    at = saved(press(at, "Put my changes on top of the file as it is now"))
    now = parse(text_of(root))
    assert now.targets["risk_band"].max == 0.27 and now.cooldown_s == 180


def test_going_back_to_an_older_state_is_the_same_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    first = text_of(root)
    save(Root(root), first.encode(), {"cooldown_s": 200}, actor="kim", role=Role.OPERATOR, why="x")
    (root / SETTINGS).write_text(text_of(root) + "# mine\n", encoding="utf-8")
    at = opened("targets", root, monkeypatch, "en")
    newer, older = (b for b in at.button if b.label == "Preview going back to this")
    newer.click()
    assert "Nothing differs" in words_on(at.run())  # only a comment was added since
    older = next(b for b in reversed(at.button) if b.label == older.label)
    older.click()
    at.run()
    assert "200 → 120" in said_well(at, "en") and text_of(root).endswith("# mine\n")
    saved(at)
    assert text_of(root) == first + "# mine\n"
    last = json.loads((root / APPROVALS).read_text(encoding="utf-8").splitlines()[-1])
    assert last["restores"] and last["changes"] == [{"key": "cooldown_s", "old": 200.0, "new": 120.0}]


def test_a_broken_file_locks_the_form_and_shows_the_last_good_settings(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.OPERATOR)
    save(Root(root), text_of(root).encode(), {"cooldown_s": 234}, actor="kim", role=Role.OPERATOR, why="x")
    prepare(root, "bad_settings")
    at = opened("targets", root, monkeypatch, "en")
    text = said_well(at, "en")
    assert not at.number_input and "tragets" in text and "234" in text and "last valid settings" in text


def test_a_role_that_was_taken_away_meanwhile_saves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.OPERATOR)
    before = text_of(root)
    at = changed(opened("targets", root, monkeypatch, "en"), cooldown_s=200.0)
    visit(monkeypatch, Role.VIEWER)
    saved(at)
    assert text_of(root) == before and not (root / APPROVALS).exists()


def armed(root: Path) -> None:
    """The root live on a loan, as the review will write it."""
    text = edit(text_of(root), {"strategy.dry_run": False})
    (root / SETTINGS).write_text(text, encoding="utf-8")
    until = (datetime.now(UTC) + timedelta(hours=5)).isoformat()
    loan = {"changes": 5, "displacement": 6, "until": until}
    sign(FileLedger(root, timezone="UTC"), parse(text).digest, loan, {})


def test_in_live_mode_the_preview_says_that_saving_disarms_and_it_does(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.OPERATOR)
    prepare(root, "full")
    armed(root)
    assert Picture(Root(root).snapshot()).mode.live
    at = changed(opened("targets", root, monkeypatch, "en"), cooldown_s=200.0)
    assert any("ends that approval" in w.value for w in at.warning)
    saved(at)
    assert not Picture(Root(root).snapshot()).mode.live


def test_odd_records_of_others_do_not_break_the_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    odd = [
        {"key": 'a."b', "old": 1, "new": "<i>x</i>"}, {"key": "rules.gone.max", "old": 0.1, "new": 0.2},
        {"key": None}, "text", {"key": "targets.risk_band.max", "old": True, "new": [1]},
    ]  # fmt: skip
    record = {"kind": "edit", "by": HOSTILE, "role": "operator", "after": "../../x", "changes": odd}
    FileLedger(root, timezone="UTC").commit(
        Batch(governance=(record, {**record, "changes": 7, "reason": 3})), None
    )
    text = said_well(opened("targets", root, monkeypatch, "en"), "en")
    assert "<script>" not in text and "<i>x" not in text
