"""The backtest's speed and worth: a long record under one policy (T9), more processes, the planted ranking.

    python -m benchmarks.backtest [--quick] [--only t9 | sweep | ranking | simulate]

Figures of one run on one machine; each beside its target, as "ok" or "MISSED". CPU seconds are those of all
processes: on a machine with other work they say more than the wall clock. A record is made by the built-in
plant: its rows in the CSV of the family, and rule changes every 400 s or so. The ranking: on records of a
plant and of its mirror image, three candidates (steps in the right direction, in the wrong one, none) are
simulated; which is best on the plant itself is known, and must be ranked first. Source: scale.md T9, issue
5.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from scipy.special import betaincinv

from selftune import backtest_runs as runs
from selftune.backtest_closed import PlantSystem, lived
from selftune.backtest_data import Handle, read_record
from selftune.backtest_entries import entries
from selftune.backtest_figures import scores
from selftune.backtest_job import work
from selftune.backtest_pool import pool
from selftune.backtest_request import Axis, Candidate, Mode, Request, Source, Sweep
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
LONGEST_S = 60.0  # T9, scale.md


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


def verdict(ok: bool, target: str) -> str:
    """How a figure stands to its target."""
    return f"{'ok' if ok else 'MISSED'} (target: {target})"


def _ready(folder: str, n: int) -> None:
    """Back when `n` processes are here: what they cost to start is not what is measured."""
    (Path(folder) / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(os.listdir(folder)) < n and time.monotonic() < end:
        time.sleep(0.02)


def _used(folder: str, n: int) -> tuple[int, float]:
    """(process, CPU seconds it has used) of one of `n` workers, once all of them are here."""
    _ready(folder, n)
    return os.getpid(), time.process_time()


def sweep_gain(root: Path, variants: int, workers: int) -> tuple[float, float]:
    """How many times faster `workers` processes try so many variants than one does, and what that costs.

    Both divided by what is ideal: the speed-up by the wall clock over `workers`, and the CPU seconds of one
    process over those of all. The second leaves out what other programs take of the machine.
    """
    axis = Axis(path="cooldown_s", lo=200, hi=400, n=variants)
    base = tuple(runs.resolved(root, (Candidate(name="one", policy=PolicyName.HEURISTIC),)))
    request = Request(candidates=base, baselines=(), sweep=Sweep(axes=(axis,)))
    record = read_record(root, parse(SHIPPED.read_bytes()))
    folder = root / "logs" / "laid_down"
    record.put(folder)
    took, cpu = {}, {}
    for n in (1, workers):
        with pool(n) as executor:

            def used(phase: str, n: int = n, executor: Executor = executor) -> float:
                here = folder / f"{phase}-{n}"
                here.mkdir()
                return sum(dict(executor.map(_used, [str(here)] * n, [n] * n)).values())

            before, start = used("before"), time.perf_counter()
            swept(request, Handle(folder=str(folder)), executor, lambda _: None)
            took[n] = time.perf_counter() - start
            cpu[n] = used("after") - before
    shutil.rmtree(folder)
    return took[1] / took[workers] / workers, cpu[1] / cpu[workers]


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


def ranking(top: Path, seeds: int, hours: float) -> tuple[int, int, list[float]]:
    """(how often the planted best was ranked first, of how many records, seconds of each simulation)."""
    kinds = {"plant": seed_plant(), "mirror": mirrored(seed_plant())}
    best = {kind: true_best(spec) for kind, spec in kinds.items()}
    hits, took = 0, []
    for seed in range(seeds):
        kind = ("plant", "mirror")[seed % 2]
        root = top / f"rank-{seed}"
        make_record(root, round(hours * 18_000), round(hours * 9), seed=seed + 1, spec=kinds[kind])
        request = Request(mode=Mode.SIMULATE, candidates=candidates(), baselines=(), seed=seed)
        run_id = runs.prepare(root, request)
        start = time.perf_counter()
        result = work(root, run_id)
        took.append(time.perf_counter() - start)
        assert result is not None, runs.read(root, run_id)
        scored = {o.name: -1.0 if o.score is None else o.score.mean for o in result.outcomes}
        hits += max(scored, key=lambda n: scored[n]) == best[kind]
        print(f"    {kind:>6} {seed:2}: " + ", ".join(f"{n} {x:.3f}" for n, x in scored.items()), flush=True)
        shutil.rmtree(root)
    return hits, seeds, took


def share_of(hits: int, n: int) -> str:
    """The share with its exact 95 % interval. Source: Clopper & Pearson 1934."""
    lo = float(betaincinv(hits, n - hits + 1, 0.025)) if hits else 0.0
    hi = float(betaincinv(hits + 1, n - hits, 0.975)) if hits < n else 1.0
    return f"{hits} of {n} ({100 * hits / n:.0f} %, 95 % interval {100 * lo:.0f} to {100 * hi:.0f} %)"


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--quick", action="store_true", help="a tenth of everything")
    args.add_argument("--only", choices=("t9", "sweep", "simulate", "ranking"))
    args.add_argument("--policy", choices=("heuristic", "adaptive"), help="t9 with this policy alone")
    given = args.parse_args()
    quick, only = given.quick, given.only
    top = Path(tempfile.mkdtemp(prefix="backtest-"))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    try:
        if only in (None, "t9"):
            rows, changes = (1_000_000, 500) if quick else (10_000_000, 5_000)
            chosen = (PolicyName.HEURISTIC, PolicyName.ADAPTIVE)
            replays(top / "long", rows, changes, tuple(p for p in chosen if given.policy in (None, p.value)))
        if only in (None, "sweep"):
            sweeps(top / "day", quick)
        if only in (None, "simulate"):
            simulates(top / "hour")
        if only in (None, "ranking"):
            hits, n, took = ranking(top, 4 if quick else 20, 2.0)
            said = verdict(hits >= 0.9 * n, "90 %")
            print(
                f"ranking: the planted best first in {share_of(hits, n)}: {said}; {max(took):.0f} s at most"
            )
    finally:
        shutil.rmtree(top)


def replays(root: Path, rows: int, changes: int, policies: tuple[PolicyName, ...]) -> None:
    """T9: one policy on a long record."""
    start = time.perf_counter()
    make_record(root, rows, changes)
    took, size = time.perf_counter() - start, (root / "logs/metrics.csv").stat().st_size
    print(
        f"a record of {rows:,} rows ({size / 1e6:.0f} MB), {changes:,} changes: made in {took:.0f} s",
        flush=True,
    )
    most = LONGEST_S * rows / 10_000_000
    for policy in policies:
        took, cpu, looks = replay_time(root, policy)
        said = verdict(took <= most, f"{most:.0f} s on two cores")
        print(f"T9, {policy.value:>9}: {took:.1f} s ({cpu:.0f} CPU-s), {looks:,} looks: {said}", flush=True)


def sweeps(root: Path, quick: bool) -> None:
    """The speed-up of a sweep."""
    make_record(root, 108_000 if quick else 216_000, 54 if quick else 108)
    workers = os.cpu_count() or 1
    gain, cpu = sweep_gain(root, 2 * workers if quick else 4 * workers, workers)
    each = f"{gain:.2f} a process by the wall clock, {cpu:.2f} by CPU seconds"
    print(f"sweep: {workers} processes, speed-up {each}: {verdict(gain >= 0.8, '0.8')}", flush=True)


def simulates(root: Path) -> None:
    """One hour of record, simulated under three candidates."""
    make_record(root, 18_000, 9)
    run_id = runs.prepare(root, Request(mode=Mode.SIMULATE, candidates=candidates(), baselines=()))
    start, cpu = time.perf_counter(), _cpu_s()
    assert work(root, run_id) is not None, runs.read(root, run_id)
    took, cpu = time.perf_counter() - start, _cpu_s() - cpu
    print(f"simulate: an hour, 3 candidates: {took:.1f} s ({cpu:.0f} CPU-s): {verdict(took <= 30, '30 s')}")


if __name__ == "__main__":
    main()
