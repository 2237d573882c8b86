"""`check`: one finding a fault, with file, line and mend; `--repair` mends only what has a single meaning."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from selftune.checkup import Level, checkup, repair
from selftune.cli import main
from tests.test_cli import SEED_YAML

HISTORY = "controls/rules_history.jsonl"
YAML = "configs/self_tuning.yaml"


def levels(root: Path) -> dict[str, str]:
    """code -> level of everything that is not fine."""
    return {
        f.item.code: f.level.value for f in checkup(root).findings if f.level not in (Level.OK, Level.ABSENT)
    }


def test_a_whole_root_is_0_with_the_advice_as_a_warning(root: Path) -> None:
    assert checkup(root).exit_code == 0
    assert levels(root) == {"cooldown_short": "warning"}


def test_the_seeds_own_yaml_gives_one_clear_message(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / YAML).write_text(SEED_YAML, encoding="utf-8")
    assert main(["--root", str(root), "check", "--lang", "en"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    line = 1 + SEED_YAML.splitlines().index("    creative_band:{ min: +0.008 }")
    assert f"line {line}" in err
    assert "`creative_band: { min: +0.008 }`" in err


def test_repair_mends_the_seeds_yaml_with_a_copy_and_ends_as_check_would(root: Path) -> None:
    (root / YAML).write_text(SEED_YAML, encoding="utf-8")
    assert main(["--root", str(root), "check", "--repair"]) == 0
    assert (root / YAML).read_text() == SEED_YAML.replace("creative_band:{", "creative_band: {")
    (copy,) = (root / "logs" / "backup").iterdir()
    assert copy.read_text() == SEED_YAML
    assert repair(root) == ()


def test_repair_leaves_what_may_mean_several_things(root: Path) -> None:
    text = "targets:\n  risk_band: { max: }\n"
    (root / YAML).write_text(text)
    assert main(["--root", str(root), "check", "--repair"]) == 2
    assert (root / YAML).read_text() == text
    assert not (root / "logs" / "backup").exists()


def test_a_torn_tail_is_ended_by_repair_and_nothing_is_cut(root: Path) -> None:
    whole = '{"ts": "2025-10-05T10:00:00+09:00", "rule": "risk_max", "new": 0.33}\n'
    (root / HISTORY).write_text(whole + '{"ts": "2025')
    assert levels(root)["check.unfinished"] == "warning"
    assert main(["--root", str(root), "check", "--repair"]) == 0
    assert (root / HISTORY).read_text() == whole + '{"ts": "2025\n'
    assert levels(root)["check.rejects"] == "warning"


def test_rejects_are_counted_by_reason_and_line(root: Path) -> None:
    (root / HISTORY).write_bytes(b'{"rule": "risk_max"}\nnonsense\n{"a": 1}\n\0\nmore nonsense\n[]\n')
    found = {
        f.item.params["reason"]: f.item.params["lines"]
        for f in checkup(root).findings
        if f.item.code == "check.rejects"
    }
    assert found == {"bad_ts": "1, 3", "not_json": "2, 5", "no_rule": "3", "nul": "4", "not_object": "6"}


def test_a_file_without_one_usable_line_is_unusable(root: Path) -> None:
    (root / HISTORY).write_text("who,what\n1,2\n")
    assert levels(root)["check.nothing_usable"] == "file"
    assert checkup(root).exit_code == 3


@pytest.mark.parametrize(
    ("text", "code", "exit_code"),
    [
        ("a,b\n1,2\n", "stream.no_header", 3),
        ("ts,other\n2025-10-05T10:00:00+09:00,1\n", "stream.unknown_columns", 3),
        ("ts,risk_band\n2025-10-05T10:00:00+09:00,0.3\n", "stream.metrics_missing", 0),
        ("ts,phase_diff,entropy_rate,creative_band,risk_band\nnonsense\n", "reject.cells", 0),
    ],
)
def test_the_metrics_file(root: Path, text: str, code: str, exit_code: int) -> None:
    (root / "logs" / "metrics.csv").write_text(text)
    assert code in levels(root)
    assert checkup(root).exit_code == exit_code


def test_a_slow_stream_is_told_with_the_observed_rate(root: Path) -> None:
    rows = [f"2025-10-05T10:{i // 60:02d}:{i % 60:02d}+09:00,0.1,0.2,0.2,0.3\n" for i in range(300)]
    head = "ts,phase_diff,entropy_rate,creative_band,risk_band\n"
    (root / "logs" / "metrics.csv").write_text(head + "".join(rows))
    assert levels(root)["samples_scarce"] == "warning"


def test_an_edited_approval_is_told_with_its_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("stop", "resume", "stop"):
        assert main(["--root", str(root), command, "--actor", "kim"]) == 0
    path = root / "controls" / "approvals.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0].replace("kim", "lee") + "".join(lines[1:]))
    assert checkup(root).exit_code == 3
    assert main(["--root", str(root), "check", "--lang", "en"]) == 3
    assert "approvals.jsonl: Line 2 does not follow" in capsys.readouterr().err
    path.write_text("".join(lines[:1]))  # cut: the decisions remember the head
    assert levels(root)["check.chain_head"] == "file"


@pytest.mark.skipif(os.name != "posix", reason="no modes there")
def test_users_that_others_may_read_are_told(root: Path) -> None:
    users = root / "configs" / "users.yaml"
    users.write_text("users: []\n")
    users.chmod(0o644)
    assert levels(root)["check.users_open"] == "warning"
    users.chmod(0o600)
    assert "check.users_open" not in levels(root)


def test_old_temporary_files_are_told(root: Path) -> None:
    temp = root / "configs" / ".self_tuning.yaml.1-abcd.selftune-tmp"
    temp.write_text("x")
    assert "check.temps" not in levels(root)  # a living writer's
    os.utime(temp, (1, 1))
    assert levels(root)["check.temps"] == "warning"


def test_a_root_without_settings_is_2(tmp_path: Path) -> None:
    assert checkup(tmp_path / "none").exit_code == 2


def test_the_report_is_plain_about_numbers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / HISTORY).write_text(json.dumps({"ts": "2025-10-05T10:00:00+09:00", "rule": "x", "new": 1}) + "\n")
    assert main(["--root", str(root), "check", "--lang", "ko"]) == 0
    assert "controls/rules_history.jsonl: 1건을 읽었습니다." in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
@pytest.mark.parametrize(
    "command", [["check"], ["check", "--repair"], ["effects"], ["rollback"], ["suggest"]]
)
def test_a_pipe_for_a_ledger_is_3_in_words_and_nobody_waits_for_it(
    root: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    os.mkfifo(root / HISTORY)
    assert main(["--root", str(root), *command, "--lang", "en"]) == 3
    err = capsys.readouterr().err
    assert f"{HISTORY}: This is a folder, pipe or device" in err
    assert "not_regular" not in err
