"""The real loop on the tuning plants at 5 Hz: what its guard costs, what it proves, how often it is wrong.

    python -m benchmarks.tuning --guarded [--plants shipped "flat, noisy"] [--seeds 2] [--cycles 100]

The same responses as in tuning_plants.py, sampled five times a second with lag and noise, under
`Rehearsal`: the loop's own decide and commit on a fake clock. A cycle is 180 s, the pace of its steps.
A confirmation is false if neither the true score nor half of any weighted metric's `good` was gained on the
anchor it replaced (`kept`, `equal` and `anchor_unsafe` prove nothing and are listed, not counted); where no
rule does anything all are false. The loop wakes every 5 s at the earliest; a real one wakes each second.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.tuning_plants import MEMORY_S, PLANTS, Floats, Maker, TuningPlant, flat
from selftune.config import edit
from selftune.judging import direction
from selftune.objective import weighted
from selftune.plan import Plan
from selftune.plants import MetricModel, PlantSpec, Regime, Surface
from selftune.rehearsal import Rehearsal
from selftune.simulate import Plant

CYCLE_S, WAKE_S, DRIFT_S = 180.0, 5.0, 1800.0
START_MS = 1_763_800_000_000
NOISY = 3.0  # times the noise: a step is then 1-2 standard errors of one window's difference
FAR = 0.3  # of the target's scale: hard limits of the noisy plants lie beyond what noise alone reaches
PROOFS = ("confirm/improved", "confirm/restore")


def _noisier(maker: Maker) -> Maker:
    def made(dice: np.random.Generator) -> TuningPlant:
        plant = maker(dice)
        far = {f"safety.hard.{m}.max": limit.max + FAR * plant.settings.targets[m].scale
               for m, limit in plant.settings.hard.items() if limit.max is not None}  # fmt: skip
        noise = {m: NOISY * sd for m, sd in plant.noise.items()}
        return replace(plant, text=edit(plant.text, far), noise=noise)

    return made


GUARDED: Mapping[str, Maker] = {
    **PLANTS,
    "shipped, noisy": _noisier(PLANTS["shipped"]),
    "flat": flat,
    "flat, noisy": _noisier(flat),
}
USUAL = ("shipped", "shipped, noisy", "interior", "hard limit", "jump", "flat, noisy")


@dataclass(frozen=True, kw_only=True)
class Sampled(PlantSpec):
    """A tuning plant as selftune/simulate.py runs it: regime i is the one that begins at `regimes[i]`."""

    plant: TuningPlant

    def true_means(self, values: Mapping[str, float], regime: int = 0) -> dict[str, float]:
        held = {r.name: values.get(r.name, r.init) for r in self.rules}
        row = self.plant.table(self.plant.point(held), self.plant.regimes[regime])[0]
        return {m: float(v) for m, v in zip(self.plant.settings.metrics, row, strict=True)}


def sampled(plant: TuningPlant) -> Sampled:
    """`plant` at 5 Hz; its cycles are the loop's."""
    metrics = tuple(
        MetricModel(
            name=m, surface=Surface(base=0.0), lag_s=plant.lag_s, noise_sd=plant.noise[m], noise_s=MEMORY_S,
            drift=plant.wander * plant.noise[m], drift_s=DRIFT_S, lo=-1e12, hi=1e12, decimals=None,
        )
        for m in plant.settings.metrics
    )  # fmt: skip
    return Sampled(
        rules=tuple(plant.settings.rules.values()), metrics=metrics, plant=plant,
        regimes=(Regime(),) * len(plant.regimes),
        schedule=tuple((c * CYCLE_S, i) for i, c in enumerate(plant.regimes)),
    )  # fmt: skip


@dataclass
class Tally:
    """What one run, or all runs of a plant, came to."""

    excursions: int = 0
    confirmed: Counter[str] = field(default_factory=Counter)  # how: improved, restore, equal, ...
    false: Counter[str] = field(default_factory=Counter)
    undone: Counter[str] = field(default_factory=Counter)  # cause of the way back
    moves: int = 0
    lost: float = 0.0  # score, times seconds
    over_s: float = 0.0
    seconds: float = 0.0
    runs: int = 0
    bad: int = 0  # runs with any time over a hard limit
    cpu_s: float = 0.0

    def add(self, other: Tally) -> None:
        for counts in ("confirmed", "false", "undone"):
            getattr(self, counts).update(getattr(other, counts))
        for number in ("excursions", "moves", "lost", "over_s", "seconds", "cpu_s"):
            setattr(self, number, getattr(self, number) + getattr(other, number))
        self.runs += 1
        self.bad += other.over_s > 0


class Watcher:
    """Follows one rehearsal with knowledge of the plant's true means."""

    def __init__(self, plant: TuningPlant, best: Mapping[int, Floats]) -> None:
        self.plant, self.best, self.settings = plant, best, plant.settings
        self.tally = Tally()
        self.left_from: Mapping[str, float] = {}
        self.last_ms: int | None = None
        self.first_ms: int | None = None

    def cycle(self, now_ms: int) -> int:
        """The cycle at which the regime in force began: within it the means stand still."""
        assert self.first_ms is not None
        return self.plant.regime(int((now_ms - self.first_ms) / 1000 / CYCLE_S))

    def __call__(self, r: Rehearsal, plan: Plan) -> None:
        t, life, now = self.tally, r.root.snapshot().life, r.fake.steady_ms
        assert life is not None
        self.first_ms = now if self.first_ms is None else self.first_ms
        cycle = self.cycle(now)
        self._account(life.values, now, cycle)
        for act in plan.acts:
            if act.write and act.moves:
                t.moves += len(act.moves)
            if act.act == "confirm":
                self._ended(f"confirm/{act.data['basis']}", dict(act.data["anchor"]), cycle)
            elif act.act == "restore":
                self._ended(
                    f"confirm/{'restore' if act.data['proven'] else 'kept'}", dict(life.values), cycle
                )
            elif act.act == "return" and act.write and act.data.get("scope") == "excursion":
                t.undone[str(act.data["cause"])] += 1
            elif act.act == "look" and act.kind == "verdict" and act.data["result"] == "stay":
                t.undone["look"] += 1
            elif act.act == "step" and act.write and len(life.steps) == 1:
                t.excursions += 1
        if life.excursion is None and life.look is None:
            self.left_from = dict(life.values)

    def _account(self, values: Mapping[str, float], now: int, cycle: int) -> None:
        seconds = (now - self.last_ms) / 1000 if self.last_ms is not None else 0.0
        self.last_ms = now
        here = self.plant.table(self.plant.point(values), cycle)
        top = self.plant.table(self.best[cycle][None, :], cycle)
        self.tally.seconds += seconds
        self.tally.lost += seconds * float(self.plant.score(top)[0] - self.plant.score(here)[0])
        self.tally.over_s += seconds * float(self.plant.over(here)[0])

    def _ended(self, how: str, values: Mapping[str, float], cycle: int) -> None:
        """A confirmation; false if what it confirms is truly no better than what it replaces."""
        self.tally.confirmed[how] += 1
        if how in PROOFS and not self._better(values, cycle):
            self.tally.false[how] += 1

    def _better(self, values: Mapping[str, float], cycle: int) -> bool:
        """Whether the true score rose, or a weighted metric truly gained half of its `good` or more."""
        s = self.settings
        rows = self.plant.table(
            np.vstack([self.plant.point(self.left_from), self.plant.point(values)]), cycle
        )
        scores = self.plant.score(rows)
        if scores[1] > scores[0] + 1e-9:
            return True
        before, after = (dict(zip(s.metrics, row, strict=True)) for row in rows)
        return any(
            direction(s.targets[m], float(before[m])) * (after[m] - before[m]) >= s.good[m] / 2
            for m in weighted(s)
        )


def run(maker: Maker, policy: str, seed: int, cycles: int) -> Tally:
    """One plant, one seed, so many cycles of the loop."""
    plant = maker(np.random.default_rng([seed, 1]))
    best = {c: plant.best(c) for c in plant.regimes if c <= cycles}
    text = edit(plant.text, {"strategy.policy": policy})
    r = Rehearsal(Plant(seed, sampled(plant), start_ms=START_MS), text.encode(), start_ms=START_MS)
    watcher, began = Watcher(plant, best), time.process_time()
    r.run(cycles * CYCLE_S, each=watcher, least_s=WAKE_S)
    watcher.tally.cpu_s = time.process_time() - began
    return watcher.tally


def line(name: str, t: Tally, free: float) -> str:
    """One plant's row, and what lies behind it; `free`: the regret without the loop's guard."""
    regret = t.lost / max(1.0, t.seconds)
    judged = sum(t.confirmed.values()) + sum(t.undone.values())
    wrong = sum(t.false.values())
    proved = ", ".join(f"{k} {n} ({t.false[k]} false)" for k, n in sorted(t.confirmed.items()))
    ended = ", ".join(f"{k} {n}" for k, n in sorted(t.undone.items()))
    return (
        f"{name:16s}{t.runs:4d} {regret:8.4f} {regret / max(free, 1e-9):6.2f}"
        f" {t.over_s / max(1.0, t.seconds):8.5f} {t.bad:4d} {t.moves / max(1, t.runs):7.1f}"
        f" {t.excursions:6d} {judged:6d}"
        f" {sum(t.confirmed.values()):9d} {wrong:6d} {wrong / max(1, judged):7.1%}"
        f" {t.cpu_s / max(1, t.runs):7.1f}\n    confirmed: {proved or '-'}\n    went back: {ended or '-'}"
    )


HEAD = (
    f"{'plant':16s}runs   regret / free     viol  bad   moves excur.  ended confirmed  false   share   CPU s"
)


# ----------------------------------------------------------------------------- from the command line
def _job(job: tuple[str, str, int, int]) -> Tally:
    plant, policy, seed, cycles = job
    return run(GUARDED[plant], policy, seed, cycles)


def show_guarded(args: argparse.Namespace) -> None:
    """The table of the guarded loop; `/ free` is its regret beside the free policy's in as many cycles."""
    from benchmarks.tuning import run as free_run

    seeds, cycles = (1, 30) if args.quick else (args.seeds, args.cycles)
    names = args.plants or USUAL
    unknown = set(names) - set(GUARDED)
    if unknown:
        raise SystemExit(f"no plant named {', '.join(sorted(unknown))}; there are: {', '.join(GUARDED)}")
    policy = (args.policies or ["adaptive"])[0]
    which = range(args.first, args.first + seeds)
    jobs = [(n, policy, seed, cycles) for n in names for seed in which]
    print(f"{policy}: {len(names)} plants x {seeds} seeds x {cycles} cycles\n{HEAD}", flush=True)
    kept: dict[str, object] = {}
    total, free_total = Tally(), 0.0
    with ProcessPoolExecutor(args.workers) as pool:
        tallies = pool.map(_job, jobs)
        for name in names:
            t = Tally()
            for _ in which:
                t.add(next(tallies))
            free = float(np.mean([free_run(name, GUARDED[name], policy, s, cycles).regret for s in which]))
            free_total += free * t.seconds
            total.add(t)
            total.runs += seeds - 1
            total.bad += t.bad - (t.over_s > 0)
            print(line(name, t, free), flush=True)
            kept[name] = {**vars(t), "free": free}  # asdict would count a Counter's pairs
    print(line("all", total, free_total / max(1.0, total.seconds)))
    if args.json:
        args.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
