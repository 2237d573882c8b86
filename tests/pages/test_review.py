"""The review page: a question, the evidence with its grades, the exact change; nothing to press."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from selftune.catalogue import LANGUAGES
from selftune.config import edit, parse
from selftune.domain import Role
from tests.pages.acting import STATES, opened, prepare, said_well, visit, words_on

SETTINGS = "configs/self_tuning.yaml"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("state", STATES)
def test_page(state: str, language: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.VIEWER)
    prepare(root, state)
    at = opened("review", root, monkeypatch, language)
    said_well(at, language)
    assert at.title[0].value.endswith("?")


@pytest.mark.parametrize("role", list(Role))
def test_nobody_has_a_button_that_leads_nowhere(
    role: Role, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, role)
    prepare(root, "full")
    at = opened("review", root, monkeypatch, "en")
    assert {b.label for b in at.button} <= {"Stop tuning…", "Resume tuning…"}
    assert "come with the accounts" in at.info[0].value


def test_without_evidence_nothing_is_green(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.REVIEWER)
    text = words_on(opened("review", root, monkeypatch, "en"))
    assert "not enough evidence" in text and "<b>pass</b>" not in text
    assert text.startswith("Turn practice mode off?") or "Not yet." in text


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
