"""The simulated system as a user meets it: its folder, its rows, its answer to a rule, its manners."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

from selftune import catalogue, wording
from selftune.demo import SHIPPED_SETTINGS, demo_root, is_demo, run_demo
from selftune.domain import LockHeld, Refused, StorageError
from selftune.plants import PlantSpec, quickened, seed_plant
from selftune.tuned import RuleTail

CHECKOUT = Path(__file__).resolve().parent.parent
NOW = 1_790_000_000_050
HEADER = ["ts", "phase_diff", "entropy_rate", "creative_band", "risk_band"]


class Clocks:
    """A wall clock and a steady clock that only sleeping moves; `at` runs something at an instant."""

    def __init__(self, now_ms: int = NOW) -> None:
        self.wall, self.steady, self.todo = now_ms, 1000.0, list[tuple[float, object]]()

    def now_ms(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.steady += seconds
        self.wall += round(seconds * 1000)
        for due, act in [x for x in self.todo if x[0] <= self.steady]:
            self.todo.remove((due, act))
            act()  # type: ignore[operator]

    def at(self, second: float, act: object) -> None:
        self.todo.append((1000.0 + second, act))

    @property
    def given(self) -> dict[str, object]:
        return {"now_ms": self.now_ms, "monotonic": self.monotonic, "sleep": self.sleep}


def rows(root: Path) -> list[dict[str, str]]:
    with (demo_root(root) / "logs/metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stamps(root: Path) -> list[int]:
    return [round(datetime.fromisoformat(r["ts"]).timestamp() * 1000) for r in rows(root)]


def mean(part: list[dict[str, str]], metric: str) -> float:
    return float(np.mean([float(r[metric]) for r in part if r[metric]]))


def write_event(root: Path, rule: str, new: object, **more: object) -> None:
    path = demo_root(root) / "controls/rules_history.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"ts": "2026-09-21T00:00:00+09:00", "actor": "kim", "rule": rule, "new": new, **more})
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def calm() -> PlantSpec:
    """The seed's plant that loses no row and writes none twice."""
    return PlantSpec(rules=seed_plant().rules, metrics=seed_plant().metrics)


# ------------------------------------------------------------------ in real time
def test_it_writes_the_familys_file_at_5_hz(tmp_path: Path) -> None:
    report = run_demo(tmp_path, seconds=20, spec=calm(), **Clocks().given)
    written = rows(tmp_path)
    assert list(written[0]) == HEADER
    assert report.rows == len(written) == 100
    assert set(np.diff(stamps(tmp_path))) == {200}
    assert NOW <= stamps(tmp_path)[0] < NOW + 200
    assert report.last_ms == stamps(tmp_path)[-1]
    assert all(len(r["risk_band"].split(".")[1]) == 3 and r["ts"].endswith("+09:00") for r in written)
    assert mean(written, "risk_band") == pytest.approx(0.33, abs=0.02)


def test_it_lives_in_a_root_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/metrics.csv").write_text("ts,theirs\n", encoding="utf-8")
    run_demo(tmp_path, seconds=1, **Clocks().given)
    home = tmp_path / "logs/demo"
    assert demo_root(tmp_path) == home == demo_root(home)
    assert is_demo(home)
    assert not is_demo(tmp_path)
    assert (tmp_path / "logs/metrics.csv").read_text(encoding="utf-8") == "ts,theirs\n"
    assert (home / "configs/self_tuning.yaml").read_bytes() == SHIPPED_SETTINGS.read_bytes()
    assert json.loads((home / "logs/demo.json").read_text(encoding="utf-8"))["made_by"] == "selftune demo"


def test_it_answers_to_a_line_in_the_history_with_lag(tmp_path: Path) -> None:
    clocks = Clocks()
    clocks.at(60, lambda: write_event(tmp_path, "risk_max", 0.20))
    run_demo(tmp_path, seconds=180, spec=calm(), **clocks.given)
    written = rows(tmp_path)
    before, at_once, later = written[:300], written[301:304], written[500:]
    assert mean(before, "risk_band") == pytest.approx(0.33, abs=0.015)
    assert mean(at_once, "risk_band") > 0.26
    assert mean(later, "risk_band") == pytest.approx(0.33 - 0.7 * 0.15, abs=0.015)


def test_it_goes_on_after_a_restart_with_what_is_in_force(tmp_path: Path) -> None:
    clocks = Clocks()
    run_demo(tmp_path, seconds=10, spec=calm(), **clocks.given)
    write_event(tmp_path, "risk_max", 0.20)
    clocks.sleep(30.0)
    run_demo(tmp_path, seconds=10, spec=calm(), **clocks.given)
    written, at = rows(tmp_path), stamps(tmp_path)
    assert len(written) == 100
    assert sum(r["ts"] == "ts" for r in written) == 0
    assert sorted(np.diff(at))[-2:] == [200, at[50] - at[49]]
    assert 29_000 < at[50] - at[49] < 31_000
    assert mean(written[50:], "risk_band") == pytest.approx(0.225, abs=0.015)


def test_it_catches_up_after_a_short_standstill_and_leaves_a_gap_after_a_long_one(tmp_path: Path) -> None:
    clocks = Clocks()
    clocks.at(5, lambda: clocks.sleep(8.0))
    clocks.at(20, lambda: clocks.sleep(300.0))
    run_demo(tmp_path, seconds=330, spec=calm(), **clocks.given)
    steps = np.diff(stamps(tmp_path))
    assert (steps != 200).sum() == 1
    assert 299_000 < steps.max() < 301_000


@pytest.mark.parametrize("jump_s", [3600, -3600, 5])
def test_its_stamps_follow_a_wall_clock_that_is_set(tmp_path: Path, jump_s: int) -> None:
    clocks = Clocks()
    clocks.at(10, lambda: setattr(clocks, "wall", clocks.wall + jump_s * 1000))
    run_demo(tmp_path, seconds=20, spec=calm(), **clocks.given)
    steps = np.diff(stamps(tmp_path)).tolist()
    odd = [s for s in steps if s != 200]
    assert len(odd) == 1
    assert odd[0] == pytest.approx(jump_s * 1000 + 200, abs=200)
    assert len(steps) >= 98


def test_it_starts_its_file_again_when_somebody_takes_it_away(tmp_path: Path) -> None:
    clocks = Clocks()
    clocks.at(5, lambda: (demo_root(tmp_path) / "logs/metrics.csv").unlink())
    run_demo(tmp_path, seconds=10, spec=calm(), **clocks.given)
    assert list(rows(tmp_path)[0]) == HEADER
    assert len(rows(tmp_path)) == pytest.approx(25, abs=1)


def test_a_row_torn_by_a_crash_spoils_only_itself(tmp_path: Path) -> None:
    clocks = Clocks()
    run_demo(tmp_path, seconds=2, spec=calm(), **clocks.given)
    path = demo_root(tmp_path) / "logs/metrics.csv"
    path.write_bytes(path.read_bytes()[:-9])
    run_demo(tmp_path, seconds=2, spec=calm(), **clocks.given)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 21
    assert [len(line.split(",")) for line in lines[11:]] == [5] * 10


def test_stop_ends_it_with_whole_rows(tmp_path: Path) -> None:
    clocks, stop = Clocks(), threading.Event()
    clocks.at(3, stop.set)
    report = run_demo(tmp_path, spec=calm(), stop=stop, **clocks.given)
    assert report.rows == len(rows(tmp_path)) == pytest.approx(15, abs=1)
    assert (demo_root(tmp_path) / "logs/metrics.csv").read_bytes().endswith(b"\n")


@pytest.mark.skipif(os.name == "nt", reason="signals of this kind are not sent on Windows")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_real_one_cleanly(tmp_path: Path, how: signal.Signals) -> None:
    code = (
        "import sys; from pathlib import Path; from selftune.demo import run_demo;"
        "print(run_demo(Path(sys.argv[1]), say=lambda r: print(r.code, flush=True)).rows)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == "demo_started\n"
        path = demo_root(tmp_path) / "logs/metrics.csv"
        while not path.exists() and run.poll() is None:
            pass
        with pytest.raises(LockHeld) as held:
            run_demo(tmp_path, seconds=1)
        assert held.value.pid == run.pid
        run.send_signal(how)
        rest, _ = run.communicate(timeout=30)
    assert run.returncode == 0
    assert rest == f"demo_done\n{len(rows(tmp_path))}\n"


# ------------------------------------------------------------------ fast
def test_fast_writes_an_hour_that_ends_now(tmp_path: Path) -> None:
    report = run_demo(tmp_path, fast=True, now_ms=lambda: NOW)
    at = stamps(tmp_path)
    assert NOW - 1000 < at[-1] < NOW
    assert 3598_000 < at[-1] - at[0] <= 3600_000
    assert report.rows == len(at) == pytest.approx(18_000, rel=0.01)


def test_fast_begins_with_a_history_that_the_plant_answered_to(tmp_path: Path) -> None:
    run_demo(tmp_path, fast=True, seconds=3600, now_ms=lambda: NOW)
    lines = (demo_root(tmp_path) / "controls/rules_history.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert [(e["actor"], e["rule"], e["old"], e["new"]) for e in events] == [
        ("demo", "risk_max", 0.35, 0.33),
        ("demo", "creative_min", 0.22, 0.20),
        ("demo", "creative_min", 0.20, 0.22),
    ]
    written, at = rows(tmp_path), stamps(tmp_path)
    first, second, third = (datetime.fromisoformat(e["ts"]).timestamp() * 1000 for e in events)
    assert at[0] < first < second < third < at[-1]

    def between(a: float, b: float) -> list[dict[str, str]]:
        return [r for r, t in zip(written, at, strict=True) if a <= t < b]

    def delta(event: float, metric: str) -> float:
        post = mean(between(event + 60_000, event + 600_000), metric)
        return post - mean(between(event - 600_000, event), metric)

    assert delta(first, "risk_band") == pytest.approx(-0.014, abs=0.006)
    assert delta(second, "creative_band") == pytest.approx(-0.013, abs=0.006)
    assert delta(third, "creative_band") == pytest.approx(0.013, abs=0.006)
    end = {m: mean(between(third + 60_000, NOW), m) for m in HEADER[1:]}
    assert end["risk_band"] > 0.30, "something must be left to suggest"
    assert end["creative_band"] < 0.24


def test_fast_obeys_a_history_that_is_there_and_adds_none(tmp_path: Path) -> None:
    write_event(tmp_path, "risk_max", 0.21)
    before = (demo_root(tmp_path) / "controls/rules_history.jsonl").read_bytes()
    run_demo(tmp_path, fast=True, seconds=200, spec=calm(), now_ms=lambda: NOW)
    assert (demo_root(tmp_path) / "controls/rules_history.jsonl").read_bytes() == before
    assert mean(rows(tmp_path), "risk_band") == pytest.approx(0.33 - 0.7 * 0.14, abs=0.015)


def test_fast_then_real_time_is_one_file(tmp_path: Path) -> None:
    run_demo(tmp_path, fast=True, seconds=60, spec=calm(), now_ms=lambda: NOW)
    run_demo(tmp_path, seconds=10, spec=calm(), **Clocks().given)
    run_demo(tmp_path, fast=True, seconds=60, spec=calm(), now_ms=lambda: NOW + 20_000)
    steps = np.diff(stamps(tmp_path))
    assert steps.min() > 0
    assert steps.max() <= 400


def test_a_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_demo(tmp_path / place, fast=True, seconds=30, seed=seed, now_ms=lambda: NOW)
        found.append((demo_root(tmp_path / place) / "logs/metrics.csv").read_bytes())
    assert found[0] == found[1] != found[2]


def test_any_plant_will_do(tmp_path: Path) -> None:
    spec = quickened(calm(), 20)
    run_demo(tmp_path, seconds=2, spec=spec, **Clocks().given)
    assert set(np.diff(stamps(tmp_path))) == {10}


# ------------------------------------------------------------------ what it refuses
def test_it_leaves_a_file_alone_that_it_did_not_make(tmp_path: Path) -> None:
    path = tmp_path / "logs/demo/logs/metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text("ts,phase_diff\n", encoding="utf-8")
    with pytest.raises(Refused) as refused:
        run_demo(tmp_path, fast=True, seconds=1)
    assert refused.value.exit_code == 4
    assert [r.code for r in refused.value.reasons] == ["demo_not_ours"]
    assert path.read_text(encoding="utf-8") == "ts,phase_diff\n"
    assert not (tmp_path / "logs/demo/configs").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize(
    "link", ["logs/demo", "logs/demo/logs/metrics.csv", "logs/demo/configs/self_tuning.yaml"]
)
def test_it_writes_through_no_link_out_of_the_root(tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    path = tmp_path / "root" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    with pytest.raises(Refused) as refused:
        run_demo(tmp_path / "root", fast=True, seconds=1)
    assert [r.code for r in refused.value.reasons] == ["demo_link"]
    assert not outside.exists()


def test_a_disk_that_does_not_take_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be", encoding="utf-8")
    with pytest.raises(StorageError, match="demo"):
        run_demo(tmp_path, fast=True, seconds=1)


def test_settings_that_a_person_changed_stay(tmp_path: Path) -> None:
    path = tmp_path / "logs/demo/configs/self_tuning.yaml"
    path.parent.mkdir(parents=True)
    mine = SHIPPED_SETTINGS.read_text(encoding="utf-8") + "\ntimezone: UTC\n"
    path.write_text(mine, encoding="utf-8")
    run_demo(tmp_path, fast=True, seconds=1, now_ms=lambda: NOW)
    assert path.read_text(encoding="utf-8") == mine
    assert rows(tmp_path)[0]["ts"].endswith("+00:00")


def test_settings_that_are_not_whole_do_not_stop_the_plant(tmp_path: Path) -> None:
    path = tmp_path / "logs/demo/configs/self_tuning.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("targets: {", encoding="utf-8")
    assert run_demo(tmp_path, fast=True, seconds=1, now_ms=lambda: NOW).rows == 5
    assert rows(tmp_path)[0]["ts"].endswith("+09:00")


def test_the_shipped_settings_are_those_of_the_checkout() -> None:
    """One text in two places: `cp configs/self_tuning.yaml selftune/shipped/` after a change."""
    shipped = yaml.safe_load(SHIPPED_SETTINGS.read_text(encoding="utf-8"))
    assert set(shipped["targets"]) == set(HEADER[1:])
    assert {n: (r["init"], r["min"], r["max"], r["lr"]) for n, r in shipped["rules"].items()} == {
        r.name: (r.init, r.min, r.max, r.lr) for r in seed_plant().rules
    }
    committed = subprocess.run(
        ["git", "show", "HEAD:configs/self_tuning.yaml"], cwd=CHECKOUT, capture_output=True, check=False
    )
    if committed.returncode == 0:  # a person's own edits of the working file are none of our business
        assert committed.stdout.replace(b"\r\n", b"\n") == SHIPPED_SETTINGS.read_bytes().replace(
            b"\r\n", b"\n"
        )


# ------------------------------------------------------------------ reading the history
def tail(tmp_path: Path) -> tuple[Path, RuleTail]:
    from zoneinfo import ZoneInfo

    path = tmp_path / "rules_history.jsonl"
    return path, RuleTail(path, seed_plant().rules, ZoneInfo("Asia/Seoul"))


WILD = [
    b'{"rule": "risk_max", "new": null}',
    b'{"rule": "risk_max", "new": "0.31"}',
    b'{"rule": "risk_max", "new": true}',
    b'{"rule": "risk_max", "new": NaN}',
    b'{"rule": "risk_max", "new": 1e9}',
    b'{"rule": "risk_max", "new": 1' + b"0" * 400 + b"}",
    b'{"rule": "nobody", "new": 0.3}',
    b'{"rule": ["risk_max"], "new": 0.3}',
    b'{"rule": "risk_max"}',
    b"[1, 2]",
    b"7",
    b"",
    b"\xff\xfe\x00",
    b"[" * 30_000,
    b'{"rule": "risk_max", "new": 0.3',
    b'{"note": "' + b"x" * 2_000_000 + b'"}',
]


def test_lines_that_say_nothing_are_passed_over(tmp_path: Path) -> None:
    path, rules = tail(tmp_path)
    good = b'{"ts": "2026-09-21T00:00:00", "rule": "risk_max", "new": 0.31}\n'
    for line in WILD:
        with path.open("ab") as file:
            file.write(line + b"\n" + good)
        assert rules.read() == [(1_789_916_400_000, "risk_max", 0.31)], line[:40]
    assert rules.read() == []


def test_a_value_a_little_outside_the_bounds_is_obeyed(tmp_path: Path) -> None:
    """The plant is the tuned system: a foreign program may set what the loop never would."""
    path, rules = tail(tmp_path)
    path.write_bytes(b'{"ts": 5, "rule": "risk_max", "new": 0.45}\n')
    assert rules.read() == [(0, "risk_max", 0.45)]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path, rules = tail(tmp_path)
    assert rules.read() == []
    line = b'{"ts": "1970-01-01T00:00:01Z", "rule": "risk_max", "new": 0.3}\n'
    with path.open("ab") as file:
        file.write(line[:40])
    assert rules.read() == []
    with path.open("ab") as file:
        file.write(line[40:])
    assert rules.read() == [(1000, "risk_max", 0.3)]


def test_a_history_that_is_cut_or_replaced_is_read_again(tmp_path: Path) -> None:
    path, rules = tail(tmp_path)
    line = '{{"ts": "1970-01-01T00:00:01Z", "rule": "risk_max", "new": {}}}\n'
    path.write_text(line.format(0.3) * 3, encoding="utf-8")
    assert len(rules.read()) == 3
    path.write_text(line.format(0.32), encoding="utf-8")
    assert rules.read() == [(1000, "risk_max", 0.32)]
    path.unlink()
    assert rules.read() == []
    path.write_text(line.format(0.28), encoding="utf-8")
    assert rules.read() == [(1000, "risk_max", 0.28)]


# ------------------------------------------------------------------ what it says
@pytest.mark.parametrize("language", ["ko", "en"])
@pytest.mark.parametrize("code", ["demo_started", "demo_done", "demo_not_ours", "demo_link"])
def test_what_it_says_is_a_sentence_with_its_numbers(language: str, code: str) -> None:
    said = wording.render(code, {"file": "a/metrics.csv", "rows": 17}, language, catalogue.load())
    assert "a/metrics.csv" in said
    assert code not in said
    assert ("17" in said) == (code == "demo_done")
