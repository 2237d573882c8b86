"""The benchmark of the guarded loop: runs that add up over several commands, and what they come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.tuning_guarded import (
    GUARDED,
    GuardedRun,
    Tally,
    keep,
    kept_runs,
    line,
    pool,
    ratio_interval,
    run,
    share_interval,
)


def one(plant: str, seed: int, *, regret: float, free: float, **more: float) -> GuardedRun:
    tally = Tally(lost=regret * 1000, seconds=1000.0, confirmed=Counter({"confirm/improved": 2}))
    tally = replace(tally, **more)
    return GuardedRun(plant=plant, policy="adaptive", seed=seed, cycles=200, free=free, tally=tally)


def test_runs_come_back_from_their_file_and_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    first, second = (
        one("interior", 1, regret=0.01, free=0.01),
        one("jump", 1, regret=0.02, free=0.01, moves=9),
    )
    keep(path, first)
    with path.open("a") as f:
        f.write('{"plant": "lag", "po')  # killed in the middle
    keep(path, second)
    assert kept_runs(path) == [first, second]
    assert kept_runs(tmp_path / "none") == kept_runs(None) == []


def test_the_pool_is_the_ratio_over_the_same_plants_and_seeds() -> None:
    runs = [
        one("interior", 1, regret=0.01, free=0.01, moves=10, vain=3),
        one("jump", 1, regret=0.03, free=0.01, moves=30, vain=1, vain_proved=1, waited=10.0),
        one("flat", 1, regret=0.0, free=0.0, moves=50, vain=6),
    ]
    text = pool(runs)
    assert "2 named plants, 2 runs" in text and "free, ratio 2.00" in text and "are below 2.00" in text
    assert "without the wait for the first history: ratio 1.50" in text
    assert "mean 20.0, worst 30 (jump, seed 1)" in text, "a system on which nothing can be gained is no plant"
    assert "all plants: 1 of 10" in text and "no rule does anything: 0 of 6" in text
    assert "2.00" not in line("flat", runs[2:])


def test_intervals_hold_what_they_say() -> None:
    lo, hi = share_interval(0, 60)
    assert lo == 0 and hi == pytest.approx(1 - 0.025 ** (1 / 60))
    lo, hi = share_interval(2, 49)
    assert (lo, hi) == (pytest.approx(0.005, abs=5e-4), pytest.approx(0.140, abs=5e-4))
    assert share_interval(5, 5)[1] == 1
    lo, hi = ratio_interval([0.01, 0.02, 0.03], [0.01, 0.02, 0.03])
    assert lo == hi == pytest.approx(1)


def test_where_no_rule_does_anything_every_excursion_is_in_vain() -> None:
    tally = run(GUARDED["flat"], "adaptive", seed=1, cycles=20)
    ended = sum(tally.undone.values()) + sum(tally.confirmed.values())
    assert tally.vain == ended > 0
    assert tally.vain_proved == sum(tally.false.values())
