"""A root as the family's own programs leave it: the seed's layout and keys, nothing of ours.

Events without `id`, mostly without `old`, one with `"new": null`; either header of the effects; the seed's
decision lines; stamps in KST. Every command gives its answer and its exit code, every page shows it.
"""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from selftune.cli import main
from selftune.domain import Role
from tests.pages import acting, reader
from tests.pages.roots import SEOUL, write_metrics

GOLDEN = Path(__file__).parent / "golden" / "family"
END = datetime.fromisoformat("2026-02-01T09:35:00+09:00")  # where the golden record ends
STAMP = re.compile(r"2026-02-01T\d\d:\d\d:\d\d(?:\.\d+)?\+09:00")
HEADERS = {"new": "rules_effects.csv", "old": "rules_effects_old.csv"}
HISTORY, EFFECTS, DECISIONS = (
    "controls/rules_history.jsonl",
    "logs/rules_effects.csv",
    "logs/tuning_decisions.jsonl",
)


@pytest.fixture(params=HEADERS)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The golden root with either header, its clock set so that the record ended just now."""
    by = datetime.now(SEOUL) - END
    for file in GOLDEN.rglob("*.*"):
        name = file.name
        if name.startswith("rules_effects"):
            if name != HEADERS[request.param]:
                continue
            name = HEADERS["new"]
        target = tmp_path / file.parent.relative_to(GOLDEN) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(shifted(file.read_text(encoding="utf-8"), by), encoding="utf-8")
    write_metrics(tmp_path, minutes=40)
    return tmp_path


def shifted(text: str, by: timedelta) -> str:
    """The same text with every stamp moved by so much, still KST and as precise as it was."""

    def later(match: re.Match[str]) -> str:
        stamp = match.group()
        precise = "microseconds" if "." in stamp else "seconds"
        return (datetime.fromisoformat(stamp) + by).astimezone(SEOUL).isoformat(timespec=precise)

    return STAMP.sub(later, text)


class Said:
    """What one command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in out + err and "풀어 쓴 설명이 없습니다" not in out + err, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(family: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs one command on the family's root."""

    def go(*argv: str) -> Said:
        capsys.readouterr()
        code = main(["--root", str(family), *argv])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return go


def lines(root: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (root / name).read_text(encoding="utf-8").splitlines()]


def test_the_settings_are_the_seeds_own_text() -> None:
    text = (GOLDEN / "configs" / "self_tuning.yaml").read_text(encoding="utf-8")
    assert not {"settle_s", "governance", "timezone", "language", "hard", "policy"} & set(
        re.findall(r"^\s*(\w+):", text, re.MULTILINE)
    )


def test_looking_changes_no_file_of_the_family(run: Any, family: Path) -> None:
    before = {p: p.read_bytes() for p in family.rglob("*.*") if p.is_file()}
    said = run("check")
    assert said.code == 0, said.err
    assert run("status").code == 0
    found = run("status", "--json").json
    assert found["values"] == {"creative_min": 0.22, "risk_max": 0.31}
    assert found["mode"] == "dry_run" and found["stopped"] is False
    assert run("review", "list").code == 0
    assert {p: p.read_bytes() for p in before} == before


def test_effects_adds_the_missing_rows_under_the_header_that_stands(run: Any, family: Path) -> None:
    header, *old = (family / EFFECTS).read_text(encoding="utf-8").splitlines()
    assert run("effects", "--all").code == 0
    after = (family / EFFECTS).read_text(encoding="utf-8").splitlines()
    assert after[: 1 + len(old)] == [header, *old]
    new = after[1 + len(old) :]
    assert new and all(len(x.split(",")) == len(header.split(",")) for x in new)
    done = {(x.split(",")[0], x.split(",")[2]) for x in after[1:]}
    assert len(done) == len(after) - 1, "one row an event, whoever wrote it"
    assert run("effects", "--all").code == 0
    assert (family / EFFECTS).read_text(encoding="utf-8").splitlines() == after


def test_a_suggestion_is_made_applied_and_taken_back(run: Any, family: Path) -> None:
    first = run("suggest")
    assert first.code == 0 and first.json["proposals"] == []
    held = [g["code"] for g in first.json["guards"]]
    assert held == ["guard.concurrency"], "the family's newest change waits for its verdict like ours"
    assert run("effects").code == 0
    said = run("suggest")
    assert said.code == 0
    (proposal,) = said.json["proposals"]
    assert proposal["old"] == {"creative_min": 0.22, "risk_max": 0.31}[proposal["rule"]]
    assert run("apply", said.json["id"], "--reason", "좋아 보입니다").code == 0
    event = lines(family, HISTORY)[-1]
    assert (event["old"], event["new"]) == (proposal["old"], proposal["new"])
    assert run("rollback", "--reason", "다시 보겠습니다").code == 0
    back = lines(family, HISTORY)[-1]
    assert (back["old"], back["new"]) == (proposal["new"], proposal["old"])
    assert back["reverts"] == event["id"]


def test_a_familys_event_without_old_goes_back_to_the_value_before_it(run: Any, family: Path) -> None:
    before = lines(family, HISTORY)
    said = run("rollback", "--rule", "risk_max", "--reason", "위험이 올랐습니다")
    assert said.code == 0, said.err
    back = lines(family, HISTORY)[-1]
    assert (back["rule"], back["old"], back["new"]) == ("risk_max", 0.31, 0.33)
    assert back["reverts"].startswith("x-")
    assert lines(family, HISTORY)[:-1] == before


def test_reject_stop_resume_and_release_answer(run: Any, family: Path) -> None:
    assert run("effects").code == 0
    asked = run("suggest").json["id"]
    assert run("reject", asked, "--reason", "아직 아닙니다").code == 0
    assert run("stop", "--reason", "점검").code == 0
    assert run("status", "--json").json["stopped"] is True
    assert run("resume", "--reason", "점검 끝").code == 0
    assert run("release", "risk_max", "--reason", "쉬지 않는 규칙입니다").code == 4
    assert run("apply", "no-such-id").code == 3


def test_one_cycle_of_the_loop_in_practice_moves_no_rule(run: Any, family: Path) -> None:
    before = (family / HISTORY).read_bytes()
    seed_lines = (family / DECISIONS).read_bytes()
    assert run("loop", "--once").code == 0
    assert (family / HISTORY).read_bytes() == before
    assert (family / DECISIONS).read_bytes().startswith(seed_lines)
    assert run("check").code == 0


def test_the_demo_does_not_write_into_a_root_that_it_did_not_make(run: Any, family: Path) -> None:
    demo = family / "logs" / "demo"
    shutil.copytree(family / "logs", demo / "logs", ignore=shutil.ignore_patterns("demo"))
    before = (demo / "logs" / "metrics.csv").read_bytes()
    assert run("demo", "--fast", "--seconds", "60").code == 4
    assert (demo / "logs" / "metrics.csv").read_bytes() == before


def test_accounts_and_the_backtest_answer(run: Any, family: Path) -> None:
    assert run("users", "list").code == 0
    said = run("backtest", "--json")
    assert said.code == 0, said.err
    assert [c["name"] for c in said.json["candidates"]]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["ko", "en"])
@pytest.mark.parametrize(
    "page", ["overview", "trends", "suggestions", "targets", "backtest", "history", "review", "help"]
)
def test_every_page_shows_it(family: Path, monkeypatch: pytest.MonkeyPatch, page: str, language: str) -> None:
    acting.visit(monkeypatch, Role.OPERATOR)
    at = reader.opened(page, family, monkeypatch, language)
    reader.sound(at, language)
    if page == "history":
        assert "binoche" in reader.words_on(at)
