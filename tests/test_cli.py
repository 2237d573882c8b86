"""Every command in every state of a data root: exit code, result on stdout, words on stderr, no traceback."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from selftune.catalogue import LANGUAGES, load
from selftune.cli import main
from selftune.config import edit
from selftune.demo import run_demo
from selftune.locks import LoopLease
from selftune.wording import PREFIXES, slots

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "selftune"
HANGUL = re.compile("[가-힣]")

Run = Callable[..., "Result"]


class Result:
    """What one command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in out + err
        assert "풀어 쓴 설명이 없습니다" not in out + err, err
        assert "no plain explanation" not in out + err, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command in this process."""

    def go(root: Path, *argv: str) -> Result:
        capsys.readouterr()
        code = main(["--root", str(root), *argv])
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return go


@pytest.fixture(scope="module")
def demo_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half an hour of the demo's system, made once; tests take copies."""
    home = tmp_path_factory.mktemp("made")
    run_demo(home, fast=True, seconds=1800, seed=3)
    return home / "logs" / "demo"


@pytest.fixture
def demo(demo_made: Path, tmp_path: Path) -> Path:
    """A copy of the demo's root whose record ended a moment ago."""
    root = tmp_path / "demo"
    shutil.copytree(demo_made, root)
    return fresh(root)


def fresh(root: Path) -> Path:
    """Shift the stamps of a recorded root so that its last row is now."""
    import time
    from datetime import datetime, timedelta

    lines = (root / "logs" / "metrics.csv").read_text().splitlines()
    last = datetime.fromisoformat(lines[-1].split(",")[0])
    by = timedelta(seconds=round((time.time() - last.timestamp()) * 5) / 5)

    def shift(stamp: str) -> str:
        return (datetime.fromisoformat(stamp) + by).isoformat(timespec="milliseconds")

    moved = [lines[0]]
    for line in lines[1:]:
        ts, _, rest = line.partition(",")
        moved.append(f"{shift(ts)},{rest}" if ts != "ts" else line)
    (root / "logs" / "metrics.csv").write_text("\n".join(moved) + "\n")
    history = root / "controls" / "rules_history.jsonl"
    events = [json.loads(x) for x in history.read_text().splitlines()]
    history.write_text("".join(json.dumps({**e, "ts": shift(e["ts"])}) + "\n" for e in events))
    return root


def settings(root: Path, text: str) -> None:
    (root / "configs" / "self_tuning.yaml").write_text(text, encoding="utf-8")


BROKEN = "targets:\n  risk_band: { max: }\nlanguage: en\n"


@pytest.fixture
def seedlike(root: Path) -> Path:
    """The family's old files: events without old or id, the seed's decisions, an older effects header."""
    (root / "controls" / "rules_history.jsonl").write_text(
        '{"ts": "2025-10-05T10:00:00+09:00", "actor": "Lumen", "rule": "risk_max", "new": 0.33}\n'
        '{"ts": "2025-10-05T10:05:00+09:00", "actor": "kim", "rule": "risk_max", "new": null}\n'
        '{"ts": "2025-10-05T10:09:00+09:00", "actor": "kim", "rule": "creative_min", "new": 0.24}\n'
    )
    (root / "logs" / "rules_effects.csv").write_text(
        "rule_ts,actor,rule,old,new,pre_s,post_s,pre_phase,post_phase,d_phase,d_entropy,d_creative,d_risk\n"
        "2025-10-05T10:00:00+09:00,Lumen,risk_max,,0.33,60,60,0.1,0.11,0.01,0.0,-0.001,0.004\n"
    )
    (root / "logs" / "tuning_decisions.jsonl").write_text(
        '{"ts": "2025-10-05T10:00:00+09:00", "kind": "cycle", "deltas": null, "proposals": '
        '[{"rule": "risk_max", "step": -0.02}], "applied": [{"ts": "2025-10-05T10:00:00+09:00", "actor": '
        '"Lumen", "rule": "risk_max", "new": 0.33, "note": "self_tuning_cycle"}]}\n'
    )
    return root


# ----------------------------------------------------------------------------- suggest
def test_suggest_prints_and_records_one_proposal_with_its_sentence(run: Run, demo: Path) -> None:
    done = run(demo, "suggest", "--lang", "en")
    assert done.code == 0
    decision = done.json
    (proposal,) = decision["proposals"]
    assert decision["kind"] == "suggest"
    assert decision["applied"] == []
    assert done.err.count("\n") == 1
    way = "lower" if proposal["new"] < proposal["old"] else "raise"
    assert f"{way} {proposal['rule']} from {proposal['old']:g} to {proposal['new']:g}" in done.err
    assert "Risk band" in done.err or "Phase difference" in done.err, "which target is missed"
    on_record = (demo / "logs" / "tuning_decisions.jsonl").read_text().splitlines()
    assert [json.loads(x)["id"] for x in on_record] == [decision["id"]]


@pytest.mark.parametrize("policy", ["heuristic", "adaptive"])
def test_suggest_again_gives_the_proposal_that_stands(run: Run, demo: Path, policy: str) -> None:
    # `fresh` moves the record under the windows' grid: the policy that learns sees slightly other means
    path = demo / "configs" / "self_tuning.yaml"
    path.write_text(edit(path.read_text(encoding="utf-8"), {"strategy.policy": policy}), encoding="utf-8")
    first = run(demo, "suggest").json
    again = run(fresh(demo), "suggest", "--lang", "en")
    assert again.json["stands"] == first["id"]
    assert again.json["proposals"][0]["new"] == first["proposals"][0]["new"]
    assert "still stands" in again.err
    third = run(fresh(demo), "suggest")
    assert third.json["stands"] == first["id"]


def test_suggest_writes_no_rule_event_even_with_dry_run_off(run: Run, demo: Path) -> None:
    path = demo / "configs" / "self_tuning.yaml"
    text = path.read_text(encoding="utf-8").replace("dry_run: true", "dry_run: false")
    settings(demo, text + "\ngovernance:\n  approvals_required: 0\n")
    before = (demo / "controls" / "rules_history.jsonl").read_bytes()
    done = run(demo, "suggest")
    assert done.json["mode"] == "live"
    assert done.json["proposals"]
    assert (demo / "controls" / "rules_history.jsonl").read_bytes() == before


def test_suggest_on_a_record_that_ended_long_ago_holds_and_says_why(
    run: Run, demo_made: Path, tmp_path: Path
) -> None:
    root = tmp_path / "old"
    shutil.copytree(demo_made, root)
    text = (root / "logs" / "metrics.csv").read_text().replace("2026-", "2024-").replace("2027-", "2025-")
    (root / "logs" / "metrics.csv").write_text(text)
    done = run(root, "suggest")
    assert done.code == 0  # a hold is done
    assert done.json["guards"][0]["code"] == "guard.stale"
    assert done.json["proposals"] == []
    assert HANGUL.search(done.err)


@pytest.mark.parametrize(
    "metrics", [None, "", "ts,phase_diff,entropy_rate,creative_band,risk_band\n", "ts,other\n"]
)
def test_suggest_without_a_usable_row_is_recorded_and_ends_with_3(
    run: Run, root: Path, metrics: str | None
) -> None:
    if metrics is not None:
        (root / "logs" / "metrics.csv").write_text(metrics)
    done = run(root, "suggest")
    assert done.code == 3
    assert done.json["proposals"] == []
    assert done.json["score"] is None
    assert (root / "logs" / "tuning_decisions.jsonl").read_text().count("\n") == 1


def test_what_paces_the_loop_is_a_note_on_a_suggestion(run: Run, demo: Path) -> None:
    assert run(demo, "stop", "--reason", "look").code == 0
    done = run(fresh(demo), "suggest")
    assert done.json["proposals"]
    assert [n["code"] for n in done.json["notes"]] == ["guard.stopped"]


# ----------------------------------------------------------------------------- every state
STATES = ("empty", "no_files", "broken", "seed_yaml", "seedlike", "stale", "unknown_header", "readonly")


@pytest.fixture(params=STATES)
def state(
    request: pytest.FixtureRequest, root: Path, tmp_path: Path, demo_made: Path
) -> Iterator[tuple[str, Path]]:
    name: str = request.param
    if name == "no_files":
        root = tmp_path / "nothing" / "here"
    elif name == "broken":
        settings(root, BROKEN)
    elif name == "seed_yaml":
        settings(root, seed_yaml())
    elif name == "seedlike":
        root = request.getfixturevalue("seedlike")
    elif name in ("stale", "unknown_header", "readonly"):
        root = tmp_path / name
        shutil.copytree(demo_made, root)
    if name == "unknown_header":
        (root / "logs" / "rules_effects.csv").write_text("a,b,c\n1,2,3\n")
    if name == "readonly":
        if os.name != "posix" or os.geteuid() == 0:
            shutil.rmtree(root / "controls")  # root may write anywhere: a file where the folder belongs
            (root / "controls").write_text("not a folder")
            shutil.rmtree(root / "logs" / "backup", ignore_errors=True)
        else:
            for folder in (root, *[p for p in root.rglob("*") if p.is_dir()]):
                folder.chmod(0o555)
    yield name, root
    if name == "readonly":
        for folder in (root, *[p for p in root.rglob("*") if p.is_dir()]):
            folder.chmod(0o755)


SETTINGS_FIRST = {"no_files": 2, "broken": 2, "seed_yaml": 2}
EXPECTED: dict[tuple[str, ...], dict[str, int]] = {
    ("status",): {},
    ("status", "--json"): {},
    ("suggest",): {**SETTINGS_FIRST, "empty": 3, "seedlike": 3},
    ("effects",): {**SETTINGS_FIRST, "empty": 3, "seedlike": 3},
    ("check",): {**SETTINGS_FIRST, "unknown_header": 3},
    ("apply", "nope"): {**SETTINGS_FIRST, **dict.fromkeys(STATES[4:], 3), "empty": 3},
    ("reject", "nope"): {**SETTINGS_FIRST, **dict.fromkeys(STATES[4:], 3), "empty": 3},
    ("rollback",): {**SETTINGS_FIRST, "empty": 3},
    ("release", "risk_max"): {**SETTINGS_FIRST, **dict.fromkeys(STATES[4:], 4), "empty": 4},
    ("resume",): {**SETTINGS_FIRST, **dict.fromkeys(STATES[4:], 4), "empty": 4},
    ("stop", "--actor", "kim"): {"no_files": 3},
}


@pytest.mark.parametrize("command", EXPECTED, ids=" ".join)
def test_every_command_in_every_state(run: Run, state: tuple[str, Path], command: tuple[str, ...]) -> None:
    lang = LANGUAGES[(STATES.index(state[0]) + list(EXPECTED).index(command)) % 2]
    name, root = state
    done = run(root, *command, "--lang", lang)
    words = done.out if command[0] in ("status", "check") else done.err
    if name == "readonly":
        if command[0] == "status":
            assert done.code == 0
        else:
            assert done.code in (0, 1, 3, 4)
    else:
        assert done.code == EXPECTED[command].get(name, 0), done.err
    if command != ("status", "--json"):
        assert words.strip() or done.err.strip()
        assert bool(HANGUL.search(words + done.err)) == (lang == "ko")


def test_a_disk_that_takes_nothing_is_said_in_words(run: Run, demo: Path) -> None:
    lock = demo / "logs" / "commit.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    done = run(demo, "suggest")
    assert done.code == 1
    assert "쓰지 못해" in done.err


# ----------------------------------------------------------------------------- by hand
def last_event(root: Path) -> dict[str, Any]:
    lines = (root / "controls" / "rules_history.jsonl").read_text().splitlines()
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def test_apply_moves_the_rule_in_dry_run_too_and_only_once(run: Run, demo: Path) -> None:
    offered = run(demo, "suggest").json
    done = run(fresh(demo), "apply", offered["id"], "--actor", "kim", "--reason", "try it")
    assert done.code == 0
    event = last_event(demo)
    wanted = offered["proposals"][0]
    assert (event["actor"], event["rule"], event["new"]) == ("kim", wanted["rule"], wanted["new"])
    assert done.json["act"] == "apply"
    assert done.json["applied"] == [event["id"]]
    again = run(demo, "apply", offered["id"])
    assert again.code == 4
    assert last_event(demo) == event


def test_a_rejected_suggestion_cannot_be_applied(run: Run, demo: Path) -> None:
    offered = run(demo, "suggest").json
    assert run(demo, "reject", offered["id"], "--reason", "no").code == 0
    refused = run(fresh(demo), "apply", offered["id"], "--lang", "en")
    assert refused.code == 4
    assert "rejected" in refused.err


def test_a_refusal_says_when_it_will_be_possible(run: Run, demo: Path) -> None:
    first = run(demo, "suggest").json
    assert run(demo, "apply", first["id"]).code == 0
    second = run(demo, "rollback")  # the rule has just moved again, so its cooldown runs
    assert second.code == 0
    offered = json.dumps({**first, "id": "again", "ts": first["ts"]})
    with open(demo / "logs" / "tuning_decisions.jsonl", "a", encoding="utf-8") as f:
        f.write(offered + "\n")
    refused = run(demo, "apply", "again", "--lang", "en")
    assert refused.code == 4
    assert re.search(r"\d\d:\d\d:\d\d", refused.err)


def test_rollback_without_argument_undoes_the_newest_change_and_ends_with_3(run: Run, demo: Path) -> None:
    values = []
    for _ in range(3):
        assert run(demo, "rollback", "--actor", "lee").code == 0
        values.append((last_event(demo)["rule"], last_event(demo)["new"]))
    assert values == [("creative_min", 0.2), ("creative_min", 0.22), ("risk_max", 0.35)]
    assert last_event(demo)["kind"] == "rollback"
    assert run(demo, "rollback").code == 3


def test_rollback_of_an_event_without_old_goes_to_the_value_before_or_init(run: Run, seedlike: Path) -> None:
    assert run(seedlike, "rollback", "--rule", "creative_min").code == 0
    assert last_event(seedlike)["new"] == 0.22  # init: the family's event said no `old`
    assert run(seedlike, "rollback", "--rule", "risk_max").code == 0
    assert last_event(seedlike)["new"] == 0.35


def test_stop_works_with_settings_that_were_never_valid(run: Run, root: Path) -> None:
    settings(root, BROKEN)
    done = run(root, "stop", "--actor", "kim", "--reason", "now")
    assert done.code == 0
    record = json.loads((root / "controls" / "approvals.jsonl").read_text())
    assert (record["kind"], record["by"], record["prev"]) == ("stop", "kim", "0" * 64)
    assert run(root, "status", "--json").json["stopped"] is True
    assert run(root, "stop").code == 0  # already
    assert (root / "controls" / "approvals.jsonl").read_text().count("\n") == 1


def test_stop_and_resume(run: Run, root: Path) -> None:
    assert run(root, "stop", "--reason", "x").code == 0
    assert run(root, "status", "--json").json["stopped"] is True
    assert run(root, "resume", "--reason", "y").code == 0
    assert run(root, "status", "--json").json["stopped"] is False
    assert run(root, "resume").code == 4
    assert run(root, "check").code == 0  # the chain of the two records holds


# ----------------------------------------------------------------------------- usage
@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["sugest"], "suggest"),
        (["apply"], "DECISION"),
        (["status", "--nope"], "--nope"),
        (["demo", "--seconds", "soon"], "soon"),
        (["rollback", "--event", "a", "--rule", "b"], "--rule"),
        (["status", "--lang", "fr"], "ko"),
        (["backtest", "--policy", "best"], "best"),
        (["backtest", "--from", "yesterday"], "yesterday"),
        (["backtest", "--mode", "guess"], "replay"),
    ],
)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_bad_usage_is_told_in_the_language_with_exit_2(
    run: Run, root: Path, argv: list[str], word: str, lang: str
) -> None:
    done = run(root, "--lang", lang, *argv)
    assert done.code == 2
    assert word in done.err
    if "fr" not in argv:
        assert bool(HANGUL.search(done.err)) == (lang == "ko")


def test_the_language_is_the_settings_unless_told_even_with_a_slip_elsewhere(run: Run, root: Path) -> None:
    settings(root, BROKEN)
    assert not HANGUL.search(run(root, "suggest").err)
    assert HANGUL.search(run(root, "suggest", "--lang", "ko").err)


def test_root_and_lang_may_stand_behind_the_command(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    assert main(["status", "--root", str(root), "--lang", "en"]) == 0
    assert "practice mode" in capsys.readouterr().out


def test_help_lists_only_commands_that_exist(run: Run, root: Path) -> None:
    done = run(root, "--help")
    assert done.code == 0
    assert "suggest" in done.out
    assert "backtest" in done.out
    assert run(root).code == 2  # no command: the help on stderr


def test_demo_is_refused_where_it_did_not_make_the_metrics(run: Run, root: Path) -> None:
    made = run(root, "demo", "--fast", "--seconds", "5")
    assert made.code == 0
    assert made.json["rows"] > 0
    other = root / "logs" / "demo" / "logs" / "demo.json"
    other.unlink()
    assert run(root, "demo", "--fast", "--seconds", "5").code == 4


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_second_loop_is_told_who_has_the_first(run: Run, root: Path, lang: str) -> None:
    with LoopLease(root):
        done = run(root, "loop", "--once", "--lang", lang)
    assert done.code == 5
    assert str(os.getpid()) in done.err


# ----------------------------------------------------------------------------- faults of ours
def test_a_fault_of_ours_is_words_on_the_screen_and_details_in_a_file(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("selftune.cli.look", broken)
    for _ in range(3):
        done = run(root, "status")
        assert done.code == 1
        assert "ZeroDivisionError" in done.err
    log = (root / "logs" / "selftune-faults.log").read_text()
    assert log.count("Traceback") == 3
    (root / "logs" / "selftune-faults.log").write_bytes(b"x" * 1_500_000)
    run(root, "status")
    assert (root / "logs" / "selftune-faults.log").stat().st_size <= 1_000_000


def test_ctrl_c_is_130_without_a_traceback(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("selftune.cli.look", interrupted)
    assert run(root, "status").code == 130


def subprocess_run(*argv: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "selftune", *argv],
        cwd=CHECKOUT,
        capture_output=True,
        timeout=60,
        env={**os.environ, **env},
        check=False,
    )


def test_from_a_shell_utf8_whatever_the_console_says(root: Path) -> None:
    done = subprocess_run("--root", str(root), "status", PYTHONIOENCODING="cp949", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0
    assert "연습 모드" in done.stdout.decode("utf-8")
    bad = subprocess_run("--root", str(root), "apply", "nope")
    assert bad.returncode == 3
    assert b"Traceback" not in bad.stderr


def test_a_reader_that_leaves_early_hears_no_complaint(root: Path) -> None:
    code = f"{sys.executable} -m selftune --root '{root}' status --json | head -c 1"
    if os.name == "nt":
        pytest.skip("no POSIX shell")
    done = subprocess.run(["sh", "-c", code], cwd=CHECKOUT, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""


# ----------------------------------------------------------------------------- words for every code
_MAKERS = {"Reason", "UnknownId", "dry", "_score_reason", "_metric_reason", "_warn_reason"}


def branches(node: ast.AST | None) -> Iterator[str]:
    """The texts that an expression may be: a constant, or either side of a condition."""
    if isinstance(node, ast.IfExp):
        yield from branches(node.body)
        yield from branches(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def keyword(call: ast.Call, name: str) -> ast.AST | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def codes_of(path: Path) -> Iterator[str]:
    """Reason codes that a module may utter, as far as they stand there as text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and "code" in [t.id for t in node.targets if isinstance(t, ast.Name)]:
            yield from branches(node.value)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        name, first = node.func.id, node.args[0] if node.args else None
        if name in _MAKERS:
            yield from branches(first)
        elif name == "_check" and path.stem == "guards":
            yield from (f"guard.{c}" for c in branches(first))
        elif name == "GuardCheck":
            yield from branches(keyword(node, "code"))
        elif name == "Problem":
            yield from (f"problem.{c}" for c in branches(keyword(node, "code")))


NOT_SAID = {"problem.words_unreadable", "problem.words_not_flat"}  # about the catalogue itself


def all_codes() -> list[tuple[str, str]]:
    found = {
        (c, p.name) for p in sorted(PACKAGE.glob("*.py")) for c in codes_of(p) if re.fullmatch(r"[a-z_.]+", c)
    }
    return sorted(x for x in found if x[0] not in NOT_SAID)


def test_the_scan_sees_the_codes() -> None:
    seen = {c for c, _ in all_codes()}
    assert {
        "guard.stale",
        "hold.targets_met",
        "mode.not_armed",
        "hand.value_moved",
        "blind",
        "metric_loss",
    } <= seen
    assert len(seen) > 120


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_code_has_a_sentence(lang: str) -> None:
    words = load()[lang]
    missing = [x for x in all_codes() if not any(p + x[0] in words for p in PREFIXES)]
    assert missing == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_our_words_have_the_same_slots_in_both_languages(lang: str) -> None:
    words = load()
    for key, text in words[lang].items():
        if key.startswith(("cli.", "check.", "guard.", "hold.", "why.", "mode.", "hand.", "reason.")):
            assert slots(text) == slots(words["en"][key]), key


def seed_yaml() -> str:
    """The seed's own settings, word for word, with the space that is missing in them."""
    return SEED_YAML


SEED_YAML = """\
# 목표 구간 및 안전 가드
targets:
  phase_diff: { max: 0.05 }         # 위상 잠금 목표(작을수록 좋음)
  creative_band: { min: 0.24 }      # 창의 밴드 하한
  risk_band: { max: 0.30 }          # 위험 밴드 상한
  entropy_rate: { max: 0.28 }

# 조정할 규칙과 경계
rules:
  creative_min:
    init: 0.22
    min: 0.18
    max: 0.35
    lr:  0.02           # step 크기(상승/하강)
    weight: 1.0         # 다목표 최적화 가중치
  risk_max:
    init: 0.35
    min: 0.20
    max: 0.40
    lr:  0.02
    weight: 1.2

# 관찰/쿨다운
observe_window_s: 90     # 조정 후 관찰 시간(Δ 산출 타임윈도우와 정렬)
min_samples: 300         # 5Hz 기준 최소 샘플 수
cooldown_s: 120          # 동일 규칙 재조정까지 쿨다운

# 안전 규칙
safety:
  # Δ 판정: 개선 기준 (post - pre)
  good:
    phase_diff:   { max: -0.005 }   # 음수(감소)면 개선
    risk_band:    { max: -0.008 }
    creative_band:{ min: +0.008 }
  warn:
    entropy_rate: { min: +0.03 }    # 동반 상승 시 경고

strategy:
  # 다목표 점수 = Σ w_k * s_k   (s_k: 목표 달성도)
  objective_weights:
    phase_diff: 1.2
    risk_band:  1.0
    creative_band: 0.8

  # 방향성: phase_diff↓, risk_band↓, creative_band↑
  direction:
    creative_min: +1    # 올리면 창의 상향을 유도(위험 상승 가능성 주의)
    risk_max:     -1    # 내리면 위험 억제(창의/위상에 영향)

  dry_run: true          # true면 제안만 기록, false면 실제 rules_history에 반영
  max_concurrent_changes: 1
"""


@pytest.mark.parametrize("seconds", ["-5", "0", "nan", "inf", "1e12", "soon"])
def test_a_demo_of_no_length_is_bad_usage(run: Run, tmp_path: Path, seconds: str) -> None:
    done = run(tmp_path, "demo", "--fast", "--seconds", seconds)
    assert done.code == 2
    assert "--seconds" in done.err
    assert not (tmp_path / "logs").exists()


def test_help_is_in_one_language(run: Run, root: Path) -> None:
    korean = run(root, "apply", "--help", "--lang", "ko").out
    assert not {"usage:", "positional arguments:", "options:"} & set(korean.splitlines())
    assert "쓰는 법:" in korean
    assert "인자:" in korean
    assert "options:" in run(root, "apply", "--help", "--lang", "en").out


def test_a_window_without_a_sample_ends_now_and_not_in_1970(run: Run, root: Path) -> None:
    window = run(root, "suggest").json["window"]
    assert all(w["n"] == 0 and not w["from"].startswith("1970") for w in window.values())


@pytest.mark.parametrize("command", ["status", "check", "suggest", "stop"])
def test_a_root_that_cannot_be_is_words(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for root in (Path("~no-such-user/x"), loop, tmp_path / "none"):
        done = run(root, command)
        assert done.code == {"status": 0, "stop": 3}.get(command, 2), done.err
    assert [p.name for p in tmp_path.iterdir()] == ["loop"]
