"""The parts of examples/live_service: the service, its adapter, the load, and how the story judges.

The story itself is `make example` (about 18 minutes); here each part does its job once, on loopback.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.live_service import checks
from examples.live_service.adapter import Rules
from examples.live_service.report import Promise, Report
from examples.live_service.stage import (
    DECISIONS,
    HISTORY,
    MARK,
    METRICS,
    Missed,
    Side,
    clear,
    fetched,
    part,
    running,
    until,
)
from selftune.status import look
from tests.conftest import CHECKOUT

WITHIN_S = 60.0
ADAPTER_LINES = 150  # all that a system needs to be tuned


@pytest.fixture
def side(tmp_path: Path) -> Side:
    found = Side("one", tmp_path / "root")
    found.lay_out()
    return found


@pytest.fixture
def served(side: Side, tmp_path: Path) -> Iterator[Side]:
    """The service with its adapter, under a small load."""
    with (
        running(part("service", "--port", side.port), tmp_path / "service.log"),
        running(part("adapter", "--root", side.root, "--port", side.port), tmp_path / "adapter.log"),
    ):
        until(lambda: fetched(f"http://127.0.0.1:{side.port}/stats"), WITHIN_S, "the service answers")
        with running(part("load", "--ports", side.port, "--rate", "40"), tmp_path / "load.log"):
            yield side


def limits(side: Side) -> dict[str, float]:
    found = fetched(f"http://127.0.0.1:{side.port}/stats")
    return dict(json.loads(found)["limits"]) if found else {}


def rows(side: Side) -> list[list[str]]:
    path = side.root / METRICS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [line.split(",") for line in text.splitlines()]


# ----------------------------------------------------------------------------- service and adapter
def test_the_adapter_measures_and_obeys(served: Side) -> None:
    whole = until(
        lambda: [r for r in rows(served)[1:] if len(r) == 5 and all(r)], WITHIN_S, "a row with every figure"
    )
    assert rows(served)[0] == ["ts", "p95_ms", "refused_share", "cpu_share", "age_s"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{3}[+-]\d\d:\d\d", whole[0][0])

    assert limits(served)["cache_ttl_s"] == 0.4
    served.write_rule("cache_ttl_s", 2.2, actor="somebody", note="")
    until(lambda: limits(served).get("cache_ttl_s") == 2.2, WITHIN_S, "the service obeys")
    assert limits(served)["queue_limit"] == 6, "what nobody moved stays"

    seen = look(served.root).status["metrics"]
    empty_at_first = {"no_number", "value"}  # a figure with nothing behind it yet
    assert seen["rate_hz"] > 1 and set(seen["rejects"]) <= empty_at_first | {"torn"}
    code, last = checks.check_says(served)
    assert code == 0, last


def test_half_a_line_waits_for_its_end_and_nonsense_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rules_history.jsonl"
    rules = Rules(path)
    assert rules.news() == {}
    path.write_text('{"rule": "workers", "new": 3}\n{"rule": "queue_limit", "ne')
    assert rules.news() == {"workers": 3.0}
    with path.open("a") as f:
        f.write('w": 9}\n{"rule": "cache_ttl_s", "new": null}\nnonsense\n{"rule": "unknown", "new": 1}\n')
    assert rules.news() == {"queue_limit": 9.0}
    assert rules.news() == {}


def test_the_adapter_stays_small() -> None:
    text = (CHECKOUT / "examples" / "live_service" / "adapter.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= ADAPTER_LINES
    assert not re.search(r"^\s*(?:import|from) selftune", text, re.MULTILINE)


def test_the_load_asks_every_service_the_same(served: Side, tmp_path: Path) -> None:
    other = Side("other", tmp_path / "other")
    with running(part("service", "--port", other.port), tmp_path / "other.log"):
        until(lambda: fetched(f"http://127.0.0.1:{other.port}/stats"), WITHIN_S, "the other answers")
        said = subprocess.run(
            part("load", "--ports", served.port, other.port, "--rate", 50, "--seconds", 2, "--shift-at", 1),
            capture_output=True, text=True, check=True, timeout=WITHIN_S,
        ).stdout  # fmt: skip
    sent = [int(n) for n in re.findall(r"(\d+) sent", said)]
    answered = [int(n) for n in re.findall(r"(\d+) answered", said)]
    assert len(sent) == 2 and sent[0] == sent[1] > 0 and all(answered)


# ----------------------------------------------------------------------------- how the story judges
def test_a_gain_is_told_from_chance() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.05, (2, 40))
    same = checks.compared(0.7 + noise[0], 0.7 + noise[1])
    assert same.lo < 0 < same.hi
    more = checks.compared(0.8 + noise[0], 0.7 + noise[1])
    assert 0 < more.lo < more.gain < more.hi and more.ratio_lo > 1
    assert more == checks.compared(0.8 + noise[0], 0.7 + noise[1])
    few = checks.compared(np.full(3, 0.9), np.full(3, 0.1))
    assert not few.lo > 0, "three windows prove nothing"


EVENT = {"id": "e1", "ts": "2026-02-01T09:00:00+09:00", "actor": "selftune", "rule": "cache_ttl_s",
         "old": 0.4, "new": 1.0, "decision": "d1"}  # fmt: skip
STEP = {"id": "d1", "kind": "cycle", "act": "step", "applied": ["e1"]}
VERDICT = {"id": "d2", "kind": "verdict", "act": "evaluate", "change": "d1"}


@pytest.mark.parametrize(
    ("events", "decisions", "says"),
    [
        ([EVENT], [STEP, VERDICT], []),
        ([EVENT, {"rule": "x", "new": 1}], [STEP, VERDICT], []),
        ([], [STEP, {"id": "d3", "abandoned": ["e1"]}], []),
        ([EVENT, EVENT], [STEP], ["event e1 twice"]),
        ([EVENT], [STEP, STEP], ["decision d1 twice", "event e1 without its decision"]),
        ([EVENT], [], ["event e1 without its decision", "event e1 names no decision"]),
        ([], [STEP], ["decision intended e1, which is nowhere"]),
        ([EVENT], [STEP, VERDICT, {**VERDICT, "id": "d3"}], ["change d1 judged twice"]),
    ],
)
def test_what_is_lost_or_doubled_is_named(
    side: Side, events: list[dict[str, Any]], decisions: list[dict[str, Any]], says: list[str]
) -> None:
    for name, records in ((HISTORY, events), (DECISIONS, decisions)):
        (side.root / name).write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    assert set(says) <= set(checks.faults(side)) and bool(says) is bool(checks.faults(side))


def test_the_report_names_what_was_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(tmp_path)
    report.add(Promise(chapter="One", text="it rains", kept=True, seen="3 mm", at_s=1))
    assert json.loads((tmp_path / "report.json").read_text())["kept"] is True
    report.add(Promise(chapter="Two", text="it stops", kept=False, seen="5 | 6 mm", at_s=2))
    text = (tmp_path / "report.md").read_text()
    assert "1 of 2 broken" in text and "**broken**" in text and "5 \\| 6 mm" in text
    assert json.loads((tmp_path / "report.json").read_text())["kept"] is False
    assert "BROKEN  it stops" in capsys.readouterr().out


def test_a_folder_that_the_example_did_not_make_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(Missed, match="did not make"):
        clear(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"
    clear(tmp_path / "new")
    (tmp_path / "new" / "old.log").write_text("x")
    clear(tmp_path / "new")
    assert [p.name for p in (tmp_path / "new").iterdir()] == [MARK]
