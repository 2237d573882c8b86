"""The sweep: one row an event, one sentence for a gain, one warning for a loss; once, and when final."""

from __future__ import annotations

import csv
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from selftune.book import EFFECTS, HISTORY, QUOTES, RISKS
from selftune.demo import run_demo
from selftune.domain import Verdict
from selftune.records import stamp
from selftune.runtime import Clock, Root
from selftune.sweep import sweep
from tests.test_seed_failures import rehearsal


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with its three events, the first of them older than what a reader keeps in memory."""
    home = tmp_path_factory.mktemp("made")
    run_demo(home, fast=True, seconds=2400, seed=3)
    return home / "logs" / "demo"


@pytest.fixture
def demo(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "demo")
    return tmp_path / "demo"


def rows(root: Path) -> list[dict[str, str]]:
    with open(root / EFFECTS, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def lines(root: Path, name: str) -> list[dict[str, Any]]:
    path = root / name
    return [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def later(seconds: float) -> Clock:
    """This machine's clock, some seconds ahead."""
    ahead = round(seconds * 1000)
    now = lambda: time.time_ns() // 1_000_000 + ahead  # noqa: E731
    return Clock(wall=now, steady=now)


def test_every_event_has_one_row_in_order_however_often_it_is_swept(demo: Path) -> None:
    first = sweep(Root(demo))
    assert (first.rows, first.waiting) == (3, ())
    found = rows(demo)
    assert [r["rule_ts"] for r in found] == sorted(r["rule_ts"] for r in found)
    before = {n: (demo / n).read_bytes() for n in (EFFECTS, QUOTES, RISKS) if (demo / n).exists()}
    root = Root(demo)
    for _ in range(2):
        again = sweep(root)
        assert (again.looked_at, again.rows, again.quotes, again.warnings) == (0, 0, 0, 0)
    assert {n: (demo / n).read_bytes() for n in before} == before


def test_gains_are_quoted_and_losses_warned_of_once_with_the_rows_numbers(demo: Path) -> None:
    sweep(Root(demo))
    by_key = {r["event_id"]: r for r in rows(demo)}
    gains = {k for k, r in by_key.items() if r["verdict"] == Verdict.IMPROVED}
    losses = {k for k, r in by_key.items() if r["verdict"] == Verdict.WORSENED}
    assert gains
    assert {q["effect"] for q in lines(demo, QUOTES)} == gains
    assert {w["effect"] for w in lines(demo, RISKS)} >= losses
    for q in lines(demo, QUOTES):
        assert q["delta"]["risk"] == float(by_key[q["effect"]]["d_risk"])
        assert 0 <= q["confidence"] <= 1


def test_an_open_window_is_left_for_later(demo: Path) -> None:
    now = time.time_ns() // 1_000_000
    root = Root(demo)
    event = {"ts": stamp(now - 1000, root.zone), "actor": "kim", "rule": "risk_max", "old": 0.33, "new": 0.31}
    with open(demo / HISTORY, "a", encoding="utf-8") as f:
        f.write(json.dumps(event) + "\n")
    report = sweep(Root(demo))
    assert len(report.waiting) == 1
    assert len(rows(demo)) == 3


def test_what_could_not_be_measured_is_inconclusive_at_the_deadline_with_empty_numbers(demo: Path) -> None:
    now = time.time_ns() // 1_000_000
    event = {"ts": stamp(now - 1000, Root(demo).zone), "actor": "kim", "rule": "risk_max", "new": 0.31}
    with open(demo / HISTORY, "a", encoding="utf-8") as f:
        f.write(json.dumps(event) + "\n")
    assert len(sweep(Root(demo, clock=later(260))).waiting) == 1  # t + 3R is not over
    assert sweep(Root(demo, clock=later(280))).rows == 1
    last = rows(demo)[-1]
    assert last["verdict"] == Verdict.INCONCLUSIVE
    assert [last[c] for c in ("d_phase", "d_entropy", "d_creative", "d_risk")] == [""] * 4


def test_a_row_of_the_familys_tracker_counts_and_its_header_stays(demo: Path) -> None:
    event = lines(demo, HISTORY)[0]
    header = (
        "rule_ts,actor,rule,old,new,pre_s,post_s,pre_phase,post_phase,d_phase,d_entropy,d_creative,d_risk"
    )
    (demo / EFFECTS).write_text(f"{header}\n{event['ts']},demo,{event['rule']},,,60,60,,,0,0,0,0\n")
    sweep(Root(demo))
    text = (demo / EFFECTS).read_text().splitlines()
    assert text[0] == header
    assert len(text) == 1 + 3
    assert text[1].endswith(",0,0,0,0")
    assert all(len(line.split(",")) == 13 for line in text)


def test_an_unknown_header_gets_no_rows_but_words_are_still_written(demo: Path) -> None:
    (demo / EFFECTS).write_text("when,what\n1,2\n")
    report = sweep(Root(demo))
    assert report.unknown_header
    assert report.rows == 0
    assert report.quotes + report.warnings > 0
    assert (demo / EFFECTS).read_text() == "when,what\n1,2\n"


def test_without_one_sample_nothing_is_claimed(demo: Path) -> None:
    (demo / "logs" / "metrics.csv").unlink()
    assert sweep(Root(demo), everything=True).no_data
    assert not (demo / EFFECTS).exists()


def test_events_of_a_time_whose_samples_are_gone_are_told_not_judged(demo: Path) -> None:
    old = '{"ts": "2020-01-01T00:00:00+09:00", "actor": "kim", "rule": "risk_max", "old": 0.3, "new": 0.31}\n'
    path = demo / HISTORY
    path.write_text(old + path.read_text())
    assert sweep(Root(demo)).looked_at == 3  # older than a day: only with --all
    report = sweep(Root(demo), everything=True)
    assert dict(report.skipped) == {"no_samples": 1}
    assert len(rows(demo)) == 3


@pytest.mark.slow
def test_the_loops_own_verdict_is_what_the_row_says() -> None:
    r = rehearsal()
    r.run(800)
    judged = {key: d for d in r.ledger.read().decisions if d.act == "evaluate" for key in d.data["keys"]}
    assert judged
    sweep(r.root)
    found = {row.event_id: row for row in r.ledger.read().effect_rows}
    assert set(judged) <= set(found)
    for key, d in judged.items():
        assert found[key].verdict == d.data["verdict"]
        delta = d.data["effect"]["metrics"]["risk_band"]["delta"]
        assert found[key].d["risk"] == pytest.approx(delta, abs=1e-6)
    assert sweep(r.root).looked_at == len(r.ledger.read().events) - len(judged)  # only what is still open
