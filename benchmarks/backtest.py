"""The backtest's speed: a long record under one policy (T9), and how a sweep gains from more processes.

    python -m benchmarks.backtest [--quick]

Figures of one run on one machine. A record is made by the built-in plant: its rows in the family's CSV, and
rule changes every 400 s or so. Source: scale.md T9.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from selftune import backtest_runs as runs
from selftune.backtest_job import work
from selftune.backtest_request import Candidate, Request
from selftune.domain import PolicyName
from selftune.plants import seed_plant
from selftune.simulate import Plant
from selftune.tuned import MetricsFile, iso

SHIPPED = Path(__file__).resolve().parent.parent / "configs" / "self_tuning.yaml"
START_MS = 1_790_000_000_000
ZONE = ZoneInfo("Asia/Seoul")
BLOCK = 200_000


def make_record(root: Path, rows: int, changes: int, *, seed: int = 5) -> None:
    """A data root with so many rows and changes."""
    for folder in ("configs", "controls", "logs"):
        (root / folder).mkdir(parents=True)
    shutil.copy(SHIPPED, root / "configs" / "self_tuning.yaml")
    spec, rng = seed_plant(), np.random.default_rng(seed)
    span_ms = round(rows * spec.period_ms)
    gaps = rng.uniform(0.75, 1.25, changes)
    times = START_MS + 600_000 + np.cumsum(gaps / gaps.sum() * (span_ms - 900_000)).astype(np.int64)
    values, moves, lines = dict(spec.init), [], []
    for t in times.tolist():
        rule = spec.rules[int(rng.integers(len(spec.rules)))]
        step = rule.lr * int(rng.choice([-1, 1]))
        old = values[rule.name]
        new = round(rule.clip(old + step), 6)
        new = round(rule.clip(old - step), 6) if new == old else new
        values[rule.name] = new
        moves.append((t, rule.name, new))
        event = {"ts": iso(t, ZONE), "actor": "bench", "rule": rule.name, "old": old, "new": new, "note": ""}
        lines.append(json.dumps(event) + "\n")
    (root / "controls" / "rules_history.jsonl").write_text("".join(lines), encoding="utf-8")
    plant, file = Plant(seed, spec, start_ms=START_MS), MetricsFile(root / "logs/metrics.csv", spec, ZONE)
    held, at = dict(spec.init), 0
    for first in range(0, rows, BLOCK):
        n = min(BLOCK, rows - first)
        end_ms = plant.at_ms(first + n)
        now = [m for m in moves[at:] if m[0] < end_ms]
        file.append(plant.run(held, n, changes=now))
        at += len(now)
        held.update({rule: new for _, rule, new in now})


def replay_time(root: Path, policy: PolicyName) -> tuple[float, int]:
    """(seconds, looks) of one replay of the whole record under one policy, reading included."""
    request = Request(candidates=(Candidate(name="one", policy=policy),), baselines=())
    run_id = runs.prepare(root, request)
    start = time.perf_counter()
    result = work(root, run_id)
    took = time.perf_counter() - start
    assert result is not None, runs.read(root, run_id)
    return took, result.outcomes[0].looks


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--quick", action="store_true")
    quick = args.parse_args().quick
    rows, changes = (1_000_000, 500) if quick else (10_000_000, 5_000)
    top = Path(tempfile.mkdtemp(prefix="backtest-"))
    try:
        root = top / "root"
        start = time.perf_counter()
        make_record(root, rows, changes)
        took, size = time.perf_counter() - start, (root / "logs/metrics.csv").stat().st_size
        print(f"a record of {rows:,} rows ({size / 1e6:.0f} MB), {changes:,} changes: {took:.0f} s")
        for policy in (PolicyName.HEURISTIC, PolicyName.ADAPTIVE):
            took, looks = replay_time(root, policy)
            print(
                f"replay, {policy.value:>9}: {took:6.1f} s, {looks:,} looks (to reach at the full size: 60 s)"
            )
    finally:
        shutil.rmtree(top)


if __name__ == "__main__":
    main()
