"""`status`: exactly the contract's object in every state, and a screen that says the same in words."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from selftune.cli_status import screen, table, width
from selftune.cli_words import Voice
from selftune.records import stamp
from selftune.runtime import Root
from selftune.status import heartbeat, look, of_root
from tests.test_seed_failures import rehearsal

KEYS = {
    "mode", "armed", "stopped", "score", "attainment", "values", "anchor", "open", "excursion", "guards",
    "heartbeat", "metrics", "files", "demo",
}  # fmt: skip


def said(root: Path, lang: str = "en") -> str:
    return "\n".join(screen(look(root), Voice(lang=lang)))


@pytest.mark.parametrize("settings", ["whole", "broken", "missing"])
def test_the_object_has_the_contracts_keys_whatever_the_settings(root: Path, settings: str) -> None:
    if settings == "broken":
        (root / "configs" / "self_tuning.yaml").write_text("targets: [")
    if settings == "missing":
        (root / "configs" / "self_tuning.yaml").unlink()
    status = look(root).status
    assert set(status) == KEYS
    assert set(status["heartbeat"]) == {"state", "age_s"}
    assert set(status["metrics"]) == {"age_s", "rate_hz", "rejects"}
    json.dumps(status, allow_nan=False)
    if settings != "whole":
        assert status["mode"] == "dry_run"
        assert [g["code"] for g in status["guards"]] == ["guard.settings"]
        assert "settings file" in said(root)


def test_values_are_the_last_valid_ones_and_the_anchor_is_clipped(root: Path) -> None:
    (root / "controls" / "rules_history.jsonl").write_text(
        '{"ts": "2025-10-05T10:00:00+09:00", "actor": "kim", "rule": "risk_max", "new": 0.9}\n'
        '{"ts": "2025-10-05T10:00:01+09:00", "actor": "kim", "rule": "risk_max", "new": null}\n'
    )
    status = look(root).status
    assert status["values"] == {"creative_min": 0.22, "risk_max": 0.9}
    assert status["anchor"]["risk_max"] == 0.4
    assert "guard.out_of_bounds" in [g["code"] for g in status["guards"]]


@pytest.mark.parametrize(
    ("age_s", "state"), [(0.5, "alive"), (3.0, "late"), (60.0, "stopped"), (-60.0, "stopped")]
)
def test_the_pulse(root: Path, age_s: float, state: str) -> None:
    now = time.time_ns() // 1_000_000
    beat = {"ts": stamp(now - round(age_s * 1000), Root(root).zone)}
    (root / "logs" / "loop_status.json").write_text(json.dumps(beat))
    assert heartbeat(root, now)["state"] == state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ts": 5}', "\0"])
def test_a_heartbeat_that_says_nothing_is_none(root: Path, text: str) -> None:
    (root / "logs" / "loop_status.json").write_text(text)
    assert look(root).status["heartbeat"] == {"state": "none", "age_s": None}


def test_an_open_change_is_shown_with_its_countdown() -> None:
    r = rehearsal({"strategy.policy": "heuristic"})  # whose first step is known beforehand
    r.run(330)
    seen = of_root(r.root)
    (change,) = seen.status["open"]
    assert change["rules"][0]["rule"] == "risk_max"
    assert 0 < change["verdict_in_s"] < 90
    assert seen.status["excursion"]["steps"] == 1
    assert seen.status["mode"] == "live"
    text = "\n".join(screen(seen, Voice(lang="en")))
    assert "risk_max 0.35 → 0.33 (selftune)" in text
    assert "verdict in" in text
    assert "1 step from the reference 0.35" in text


@pytest.mark.parametrize(("lang", "why"), [("en", "nothing to change"), ("ko", "목표")])
def test_where_no_guard_holds_the_screen_says_why_the_policy_keeps_still(lang: str, why: str) -> None:
    wide = {"targets.phase_diff.max": 0.5, "targets.risk_band.max": 0.9, "targets.creative_band.min": 0.01}
    r = rehearsal(wide)
    r.run(600)
    assert r.ledger.read().decisions[-1].data["reasons"][0]["code"] == "hold.targets_met"
    lines = screen(of_root(r.root), Voice(lang=lang))
    assert why in lines[-1] and lines[-1].startswith("  · ")


def test_a_loan_is_shown_only_while_it_runs(root: Path) -> None:
    assert look(root).status["armed"] is None


def test_columns_line_up_with_hangul(root: Path) -> None:
    lines = table([("위상 차이", "1"), ("risk", "22")])
    assert width("위상 차이") == 9
    assert width(lines[0][: lines[0].index("1")]) == width(lines[1][: lines[1].index("22")])


def test_the_screen_shows_no_control_characters(root: Path) -> None:
    event: dict[str, Any] = {
        "ts": stamp(time.time_ns() // 1_000_000, Root(root).zone),
        "actor": "k\x1b[31m",
        "rule": "risk_max",
        "new": 0.3,
    }
    (root / "controls" / "rules_history.jsonl").write_text(json.dumps(event) + "\n")
    assert "\x1b" not in said(root)
    assert "k\\x1b" in said(root)


def test_a_file_that_cannot_be_read_is_told_in_both_forms(root: Path) -> None:
    (root / "controls" / "rules_history.jsonl").mkdir()
    (root / "logs" / "metrics.csv").mkdir()
    files = look(root).status["files"]
    assert files["controls/rules_history.jsonl"]["problem"] == "not_regular"
    assert files["logs/metrics.csv"]["problem"] == "not_regular"
    assert "controls/rules_history.jsonl: This is a folder" in said(root)
    assert "logs/metrics.csv is a folder" in said(root)
    assert "온전하지 않습니다" in said(root, "ko")


def test_settings_that_are_there_and_cannot_be_read_are_not_called_missing(root: Path) -> None:
    yaml = root / "configs" / "self_tuning.yaml"
    yaml.unlink()
    assert [p.code for p in look(root).problems] == ["missing_file"]
    yaml.mkdir()
    assert [p.code for p in look(root).problems] == ["unreadable_file"]
