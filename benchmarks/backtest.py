"""The backtest's speed and worth: a long record under one policy (T9), more processes, the planted ranking.

    python -m benchmarks.backtest [--quick]

Figures of one run on one machine. A record is made by the built-in plant: its rows in the family's CSV, and
rule changes every 400 s or so. The ranking: on records of a plant, and of its mirror image, three candidates
(steps in the right direction, in the wrong one, none) are simulated; which is best on the plant itself is
known, and must be ranked first. Source: scale.md T9, issue 5.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from selftune import backtest_runs as runs
from selftune.backtest_closed import PlantSystem, lived
from selftune.backtest_data import Handle, read_record
from selftune.backtest_entries import entries
from selftune.backtest_job import work
from selftune.backtest_pool import pool
from selftune.backtest_request import Axis, Candidate, Mode, Request, Source, Sweep
from selftune.backtest_simulate import scores
from selftune.backtest_sweep import swept
from selftune.config import edit, parse
from selftune.domain import PolicyName
from selftune.plants import MetricModel, PlantSpec, seed_plant
from selftune.simulate import Plant
from selftune.tuned import MetricsFile, iso

SHIPPED = Path(__file__).resolve().parent.parent / "configs" / "self_tuning.yaml"
START_MS = 1_790_000_000_000
ZONE = ZoneInfo("Asia/Seoul")
BLOCK = 200_000


def make_record(root: Path, rows: int, changes: int, *, seed: int = 5, spec: PlantSpec | None = None) -> None:
    """A data root with so many rows and changes, of random steps that stay near the rules' first values."""
    for folder in ("configs", "controls", "logs"):
        (root / folder).mkdir(parents=True)
    shutil.copy(SHIPPED, root / "configs" / "self_tuning.yaml")
    spec, rng = spec or seed_plant(), np.random.default_rng(seed)
    span_ms = round(rows * spec.period_ms)
    gaps = rng.uniform(0.75, 1.25, changes)
    times = START_MS + 600_000 + np.cumsum(gaps / gaps.sum() * (span_ms - 900_000)).astype(np.int64)
    moves, lines = walk(spec, times.tolist(), rng)
    (root / "controls" / "rules_history.jsonl").write_text("".join(lines), encoding="utf-8")
    plant, file = Plant(seed, spec, start_ms=START_MS), MetricsFile(root / "logs/metrics.csv", spec, ZONE)
    held, at = dict(spec.init), 0
    for first in range(0, rows, BLOCK):
        n = min(BLOCK, rows - first)
        end_ms = plant.at_ms(first + n)
        now = [m for m in moves[at : at + BLOCK] if m[0] < end_ms]
        file.append(plant.run(held, n, changes=now))
        at += len(now)
        held.update({rule: new for _, rule, new in now})


def walk(
    spec: PlantSpec, times: list[int], rng: np.random.Generator
) -> tuple[list[tuple[int, str, float]], list[str]]:
    """Random steps, as changes of the plant and as lines of the history."""
    values, moves, lines = dict(spec.init), [], []
    for t in times:
        rule = spec.rules[int(rng.integers(len(spec.rules)))]
        old = values[rule.name]
        away = round((old - rule.init) / rule.lr)
        step = rule.lr * (-np.sign(away) if abs(away) >= 2 else int(rng.choice([-1, 1])))
        new = round(rule.clip(old + step), 6)
        values[rule.name] = new
        moves.append((t, rule.name, new))
        event = {"ts": iso(t, ZONE), "actor": "bench", "rule": rule.name, "old": old, "new": new, "note": ""}
        lines.append(json.dumps(event) + "\n")
    return moves, lines


def replay_time(root: Path, policy: PolicyName) -> tuple[float, float, int]:
    """(seconds, CPU seconds of all processes, looks) of one replay under one policy, reading included."""
    request = Request(candidates=(Candidate(name="one", policy=policy),), baselines=())
    run_id = runs.prepare(root, request)
    start, cpu = time.perf_counter(), _cpu_s()
    result = work(root, run_id)
    took = time.perf_counter() - start
    assert result is not None, runs.read(root, run_id)
    return took, _cpu_s() - cpu, result.outcomes[0].looks


def _cpu_s() -> float:
    """CPU seconds of this process and those that it waited for."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def _ready(folder: str, n: int) -> None:
    """Back when `n` processes are here: what they cost to start is not what is measured."""
    (Path(folder) / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(os.listdir(folder)) < n and time.monotonic() < end:
        time.sleep(0.02)


def sweep_gain(root: Path, variants: int, workers: int) -> float:
    """How many times faster `workers` processes try so many variants than one does, divided by `workers`."""
    axis = Axis(path="cooldown_s", lo=200, hi=400, n=variants)
    base = tuple(runs.resolved(root, (Candidate(name="one", policy=PolicyName.HEURISTIC),)))
    request = Request(candidates=base, baselines=(), sweep=Sweep(axes=(axis,)))
    record = read_record(root, parse(SHIPPED.read_bytes()))
    folder = root / "logs" / "laid_down"
    record.put(folder)
    took = {}
    for n in (1, workers):
        with pool(n) as executor:
            here = folder / f"up-{n}"
            here.mkdir()
            list(executor.map(_ready, [str(here)] * n, [n] * n))
            start = time.perf_counter()
            swept(request, Handle(folder=str(folder)), executor, lambda _: None)
            took[n] = time.perf_counter() - start
    shutil.rmtree(folder)
    return took[1] / took[workers] / workers


# ----------------------------------------------------------------------------- the planted ranking
def mirrored(spec: PlantSpec) -> PlantSpec:
    """The plant in which every rule works the other way round, about its first value."""
    init = spec.init

    def turned(m: MetricModel) -> MetricModel:
        bend = {r: (2 * init[r] - c, k) for r, (c, k) in m.surface.bend.items()}
        return replace(
            m, surface=replace(m.surface, slope={r: -x for r, x in m.surface.slope.items()}, bend=bend)
        )

    return replace(spec, metrics=tuple(map(turned, spec.metrics)))


def candidates() -> tuple[Candidate, ...]:
    """Steps in the shipped direction, in the other, none."""
    text = SHIPPED.read_text(encoding="utf-8")
    heuristic = edit(text, {"strategy.policy": "heuristic"})
    other = edit(heuristic, {"strategy.direction.risk_max": 1, "strategy.direction.creative_min": -1})
    return (
        Candidate(name="shipped", text=heuristic, source=Source.DRAFT),
        Candidate(name="other way", text=other, source=Source.DRAFT),
        Candidate(name="none", text=text, policy=PolicyName.NONE, source=Source.DRAFT),
    )


def true_best(spec: PlantSpec) -> str:
    """Which candidate does best on the plant itself, in the closed loop."""
    found = {}
    for e in entries(Request(candidates=candidates(), baselines=()), live=True):
        system = PlantSystem(Plant(99, spec, start_ms=START_MS))
        span = {"start": dict(spec.init), "from_ms": START_MS, "to_ms": START_MS + 4 * 3_600_000}
        done = lived(system, e.raw, e.settings, say=lambda _: None, **span)
        found[e.who.name] = float(np.nanmean(scores(e.settings, done.means, done.metrics)))
    print("    on the plant itself: " + ", ".join(f"{n} {x:.3f}" for n, x in found.items()))
    return max(found, key=lambda n: found[n])


def ranking(top: Path, seeds: int, hours: float) -> tuple[int, int]:
    """(how often the planted best was ranked first, of how many records)."""
    kinds = {"plant": seed_plant(), "mirror": mirrored(seed_plant())}
    best = {kind: true_best(spec) for kind, spec in kinds.items()}
    hits = 0
    for seed in range(seeds):
        kind = ("plant", "mirror")[seed % 2]
        root = top / f"rank-{seed}"
        make_record(root, round(hours * 18_000), round(hours * 9), seed=seed + 1, spec=kinds[kind])
        request = Request(mode=Mode.SIMULATE, candidates=candidates(), baselines=(), seed=seed)
        run_id = runs.prepare(root, request)
        result = work(root, run_id)
        assert result is not None, runs.read(root, run_id)
        scored = {o.name: -1.0 if o.score is None else o.score.mean for o in result.outcomes}
        hits += max(scored, key=lambda n: scored[n]) == best[kind]
        print(f"    {kind:>6} {seed:2}: " + ", ".join(f"{n} {x:.3f}" for n, x in scored.items()), flush=True)
        shutil.rmtree(root)
    return hits, seeds


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--quick", action="store_true")
    args.add_argument("--only", choices=("replay", "sweep", "ranking"))
    given = args.parse_args()
    quick, only = given.quick, given.only
    rows, changes = (1_000_000, 500) if quick else (10_000_000, 5_000)
    top = Path(tempfile.mkdtemp(prefix="backtest-"))
    try:
        if only in (None, "replay"):
            replays(top / "long", rows, changes)
        if only in (None, "sweep"):
            make_record(top / "day", 108_000 if quick else 432_000, 54 if quick else 216)
            workers = os.cpu_count() or 1
            gain = sweep_gain(top / "day", 2 * workers if quick else 4 * workers, workers)
            each = f"{gain:.2f} a process (to reach 0.8)"
            print(f"sweep: {workers} processes are {gain * workers:.2f} x one, {each}", flush=True)
        if only in (None, "ranking"):
            hits, n = ranking(top, 4 if quick else 20, 2.0 if quick else 4.0)
            print(f"ranking: the planted best first in {hits} of {n} records (to reach 90 %)")
    finally:
        shutil.rmtree(top)


def replays(root: Path, rows: int, changes: int) -> None:
    """T9: one policy on a long record."""
    start = time.perf_counter()
    make_record(root, rows, changes)
    took, size = time.perf_counter() - start, (root / "logs/metrics.csv").stat().st_size
    print(
        f"a record of {rows:,} rows ({size / 1e6:.0f} MB), {changes:,} changes: made in {took:.0f} s",
        flush=True,
    )
    for policy in (PolicyName.HEURISTIC, PolicyName.ADAPTIVE):
        took, cpu, looks = replay_time(root, policy)
        print(f"replay, {policy.value:>9}: {took:6.1f} s ({cpu:.0f} CPU-s), {looks:,} looks", end="; ")
        print("to reach at full size: 60 s", flush=True)


if __name__ == "__main__":
    main()
