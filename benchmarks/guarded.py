"""What does the guarded loop prove, and how often is it wrong? Confirmations, moves, limits on toy plants.

    python -m benchmarks.guarded --quick        # 4 seeds x 50 cycles, some minutes
    python -m benchmarks.guarded                # 20 seeds x 200 cycles

Three plants: the seed's; the same with so much noise that a step of lr is 1-2 standard errors of one
window's difference; and that one *flat*, where no rule does anything. Whatever is confirmed there is
false. On the others a confirmation is false if neither the true score nor half of any weighted
metric's `good` was gained on the anchor it replaced (`equal` and `anchor_unsafe` prove nothing and
are listed, not counted). `viol` is the share of time in which the true mean of
risk_band lies over `safety.hard`. A cycle is 180 s of plant time (the pace of steps).
The loop wakes every 5 s at the earliest; a real one wakes each second.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from selftune.config import edit
from selftune.judging import direction
from selftune.objective import objective_score, weighted
from selftune.plan import Plan
from selftune.plants import PlantSpec, oracle, seed_plant, still
from selftune.rehearsal import Rehearsal
from selftune.settings import Settings
from selftune.simulate import Plant

PROOFS = ("confirm/improved", "confirm/restore")
START_MS = 1_763_800_000_000
CYCLE_S = 180.0
WAKE_S = 5.0
NOISE_SD = 0.04
HARD = {"seed": 0.36, "seed, noisy": 0.42, "flat, noisy": 0.42}  # beyond what noise alone reaches
SHIPPED = Path(__file__).resolve().parent.parent / "selftune" / "shipped" / "self_tuning.yaml"


def noisy(spec: PlantSpec, sd: float) -> PlantSpec:
    """`spec` with that much noise on every metric."""
    return replace(spec, metrics=tuple(replace(m, noise_sd=sd) for m in spec.metrics))


PLANTS: Mapping[str, PlantSpec] = {
    "seed": seed_plant(),
    "seed, noisy": noisy(seed_plant(), NOISE_SD),
    "flat, noisy": noisy(still(seed_plant()), NOISE_SD),
}


@dataclass
class Tally:
    """What one run, or all runs of a plant, came to."""

    excursions: int = 0
    confirmed: Counter[str] = field(default_factory=Counter)  # how: improved, first look, restore, ...
    false: Counter[str] = field(default_factory=Counter)
    undone: Counter[str] = field(default_factory=Counter)  # cause of the way back
    moves: int = 0
    lost: float = 0.0  # score, times seconds
    over_s: float = 0.0
    seconds: float = 0.0
    runs: int = 0

    def add(self, other: Tally) -> None:
        self.excursions += other.excursions
        self.confirmed += other.confirmed
        self.false += other.false
        self.undone += other.undone
        self.moves += other.moves
        self.lost += other.lost
        self.over_s += other.over_s
        self.seconds += other.seconds
        self.runs += 1


class Watcher:
    """Follows one rehearsal with knowledge of the plant's true means."""

    def __init__(self, spec: PlantSpec, settings: Settings, best: float) -> None:
        self.spec, self.settings, self.best = spec, settings, best
        self.hard = settings.hard["risk_band"].max or 1.0
        self.tally = Tally()
        self.left_from: Mapping[str, float] = {}
        self.last_ms: int | None = None

    def score(self, values: Mapping[str, float]) -> float:
        found = objective_score(self.settings, self.spec.true_means(values))
        assert found is not None
        return found

    def __call__(self, r: Rehearsal, plan: Plan) -> None:
        t, life = self.tally, r.root.snapshot().life
        assert life is not None
        now = r.fake.steady_ms
        seconds = (now - self.last_ms) / 1000 if self.last_ms is not None else 0.0
        self.last_ms = now
        t.seconds += seconds
        t.lost += seconds * (self.best - self.score(life.values))
        t.over_s += seconds * (self.spec.true_means(life.values)["risk_band"] > self.hard)
        for act in plan.acts:
            if act.write and act.moves:
                t.moves += len(act.moves)
            if act.act == "confirm":
                self._ended(f"confirm/{act.data['basis']}", dict(act.data["anchor"]))
            elif act.act == "restore":
                self._ended("confirm/restore", dict(life.values))
            elif act.act == "return" and act.write and act.data.get("scope") == "excursion":
                t.undone[str(act.data["cause"])] += 1
            elif act.act == "look" and act.kind == "verdict" and act.data["result"] == "stay":
                t.undone["look"] += 1
            elif act.act == "step" and act.write and len(life.steps) == 1:
                t.excursions += 1
        if life.excursion is None and life.look is None:
            self.left_from = dict(life.values)

    def _ended(self, how: str, values: Mapping[str, float]) -> None:
        """A confirmation; false if what it confirms is truly no better than what it replaces."""
        self.tally.confirmed[how] += 1
        if how in PROOFS and not self._better(values):
            self.tally.false[how] += 1

    def _better(self, values: Mapping[str, float]) -> bool:
        """Whether the true score rose, or a weighted metric truly gained half of its `good` or more."""
        if self.score(values) > self.score(self.left_from) + 1e-9:
            return True
        before, after = self.spec.true_means(self.left_from), self.spec.true_means(values)
        return any(
            direction(self.settings.targets[m], before[m]) * (after[m] - before[m])
            >= self.settings.good[m] / 2
            for m in weighted(self.settings)
        )


def run(spec: PlantSpec, seed: int, cycles: int, hard: float) -> Tally:
    """One plant, one seed, so many cycles."""
    changes = {
        "strategy.dry_run": False, "governance.approvals_required": 0, "safety.hard.risk_band.max": hard,
    }  # fmt: skip
    text = edit(SHIPPED.read_text(encoding="utf-8"), changes)
    plant = Plant(seed, spec, start_ms=START_MS)
    r = Rehearsal(plant, text.encode(), start_ms=START_MS)
    settings = r.settings

    def score(means: Mapping[str, float]) -> float:
        return objective_score(settings, means) or 0.0

    def safe(means: Mapping[str, float]) -> bool:
        return means["risk_band"] <= hard

    watcher = Watcher(spec, settings, oracle(spec, score, feasible=safe)[1])
    r.run(cycles * CYCLE_S, each=watcher, least_s=WAKE_S)
    return watcher.tally


def report(name: str, t: Tally) -> str:
    """One plant's row and what lies behind it."""
    judged = sum(t.confirmed.values()) + sum(t.undone.values())
    wrong = sum(t.false.values())
    ended = ", ".join(f"{k} {n}" for k, n in sorted(t.undone.items()))
    proved = ", ".join(f"{k} {n} ({t.false[k]} false)" for k, n in sorted(t.confirmed.items()))
    return (
        f"{name:14s} {t.runs:4d} {t.excursions:6d} {judged:6d} {sum(t.confirmed.values()):9d} {wrong:6d}"
        f" {wrong / max(1, judged):7.1%} {t.moves / max(1, t.runs):7.1f} {t.lost / max(1.0, t.seconds):8.4f}"
        f" {t.over_s / max(1.0, t.seconds):8.5f}\n    confirmed: {proved or '-'}"
        f"\n    went back: {ended or '-'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="4 seeds x 50 cycles")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument(
        "--first", type=int, default=9001, help="the first seed (1.. were used while developing)"
    )
    parser.add_argument("--plant", choices=list(PLANTS), action="append")
    args = parser.parse_args()
    seeds, cycles = (4, 50) if args.quick else (args.seeds, args.cycles)
    print(f"{'plant':14s} runs excur.  ended confirmed  false   share   moves   regret     viol")
    for name in args.plant or PLANTS:
        began, total = time.process_time(), Tally()
        for seed in range(args.first, args.first + seeds):
            total.add(run(PLANTS[name], seed, cycles, HARD[name]))
        print(report(name, total), f"\n    CPU {time.process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
