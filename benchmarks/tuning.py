"""Which policy tunes best, and at what risk? Ours, the seed's and peers on the same systems and windows.

    python -m benchmarks.tuning                          # 20 seeds x 200 cycles, all plants and policies
    python -m benchmarks.tuning --quick                  # 2 seeds x 60 cycles, the cheap policies: a minute
    python -m benchmarks.tuning --policies adaptive "hill climbing" --plants jump lag --seeds 8
    python -m benchmarks.tuning --held-out               # random systems, a new one with each seed
    python -m benchmarks.tuning --guarded                # inside the real loop at 5 Hz (tuning_guarded.py)
    python -m benchmarks.tuning --plants-from my_plants  # your own (see benchmarks/tuning_plants.py)

A cycle is a window of 120 s; every policy may move one rule a cycle by at most lr, inside its bounds.
regret: mean over cycles of (score of the best fixed feasible values of the regime - score of the values in
force), on noise-free settled means. viol: share of cycles past a hard limit; bad: share of runs with any such
cycle; own viol, own bad: beyond the walking oracle's in the same run. moves: changes applied; null: events
that change nothing. t95: first cycle from which 4 of 5 cycles reach 95 % of the oracle (the run's length if
never), the median. ms: CPU time of the policy a cycle.
"expected holds": share of the 95 % intervals of expected effects that hold what the step truly did.
Intervals are 95 % bootstraps over seeds. "walking oracle" knows the plant and only has to walk: the floor.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.tuning_peers import PEERS, Floats, Peer, Task, seen_score
from benchmarks.tuning_plants import CYCLE_S, PLANTS, Maker, TuningPlant, Windows
from selftune.domain import Hold, PolicyName, Proposal, Verdict, WindowStat
from selftune.gaps import QuietWindow
from selftune.objective import score_odds
from selftune.policy import POLICIES, propose
from selftune.policy_state import Evidence, Lesson, PolicyState

OURS = tuple(str(p) for p in POLICIES if p is not PolicyName.NONE)
FLOOR = "walking oracle"
NAMES = (*OURS, *PEERS, FLOOR)
CHEAP = tuple(n for n in NAMES if n not in ("GP (sklearn)", "Optuna TPE", "CMA-ES"))
CLIMBER = "hill climbing"
REACHED, OF_NEXT, NEEDED = 0.95, 5, 4
LOOK_BACK = 180  # windows: six hours
NU = 8.0  # nine batches
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one policy came to on one plant under one seed."""

    plant: str
    policy: str
    seed: int
    regret: float
    viol: float
    moves: int
    null: int
    t95: int
    cpu_ms: float
    claims: int = 0  # expected effects that were stated, one a metric and step
    covered: int = 0  # whose 95 % interval holds the true change of the settled mean


# ----------------------------------------------------------------------------- who plays
class Ours:
    """One of our policies, with the state that the loop would give it (free: no pauses, no excursion)."""

    def __init__(self, plant: TuningPlant, policy: PolicyName) -> None:
        self.settings = replace(plant.settings, policy=policy)
        self.anchor = {n: r.init for n, r in self.settings.rules.items()}
        self.quiet: list[QuietWindow] = []
        self.lessons: list[Lesson] = []
        self.evidence: Evidence | None = None
        self.moved: tuple[str, float] | None = None
        self.said: tuple[Proposal, ...] | Hold | None = None

    def next(
        self, values: Mapping[str, float], windows: Mapping[str, WindowStat]
    ) -> tuple[str, float] | None:
        self._learn(values, windows)
        state = PolicyState(
            settings=self.settings, values=dict(values), anchor=dict(self.anchor), windows=windows,
            evidence=self.evidence, lessons=tuple(self.lessons[-LOOK_BACK:]),
            quiet=tuple(self.quiet[-LOOK_BACK:]),
        )  # fmt: skip
        found = self.said = propose(state)
        first = next(iter(windows.values()))
        self.quiet.append(
            QuietWindow(
                start_ms=first.start_ms, end_ms=first.end_ms, values=dict(values), regime=0, stats=windows
            )
        )
        if isinstance(found, Hold):
            return None
        self.moved = (found[0].rule, found[0].step)
        if self.evidence is not None:
            self.evidence = replace(self.evidence, spent=True)
        return found[0].rule, found[0].new

    def _learn(self, values: Mapping[str, float], windows: Mapping[str, WindowStat]) -> None:
        """The Δ around our last step, as plain window differences, and what the judge would say of it."""
        if self.evidence is not None:
            self.evidence = replace(self.evidence, age_s=self.evidence.age_s + CYCLE_S)
        if self.moved is None:
            return
        before, (rule, step), self.moved = self.quiet[-1].stats, self.moved, None
        deltas = {m: (w.mean or 0.0) - (before[m].mean or 0.0) for m, w in windows.items()}
        verdict = self._verdict(before, windows)
        if verdict is Verdict.IMPROVED:
            self.anchor = dict(values)
        self.lessons.append(Lesson(rule=rule, step=step, deltas=deltas, verdict=verdict))
        self.evidence = Evidence(
            key=f"e{len(self.lessons)}", rule=rule, ts_ms=next(iter(windows.values())).start_ms, age_s=0.0,
            deltas=deltas, verdict=verdict,
        )  # fmt: skip

    def _verdict(self, before: Mapping[str, WindowStat], after: Mapping[str, WindowStat]) -> Verdict:
        base = {m: w.mean for m, w in before.items()}
        shift = {
            m: ((w.mean or 0.0) - (before[m].mean or 0.0), float(np.hypot(w.se or 0, before[m].se or 0)), NU)
            for m, w in after.items()
        }
        odds = score_odds(self.settings, base, shift)
        if odds is None:
            return Verdict.INCONCLUSIVE
        if odds.p_gain >= 0.95 and odds.mean >= 0.006:
            return Verdict.IMPROVED
        return Verdict.WORSENED if odds.p_loss >= 0.90 else Verdict.NEUTRAL


class Theirs:
    """A peer, in the units of the settings."""

    def __init__(self, plant: TuningPlant, name: str, dice: np.random.Generator, cycles: int) -> None:
        self.rules = list(plant.settings.rules.values())
        self.settings = plant.settings
        task = Task(
            settings=plant.settings, x=self.scaled({r.name: r.init for r in self.rules}),
            lr=np.array([r.lr / (r.max - r.min) for r in self.rules]),
            direction=tuple(r.direction for r in self.rules), dice=dice, cycles=cycles,
        )  # fmt: skip
        self.peer: Peer = PEERS[name](task)

    def scaled(self, values: Mapping[str, float]) -> Floats:
        return np.array([(values[r.name] - r.min) / (r.max - r.min) for r in self.rules])

    def next(
        self, values: Mapping[str, float], windows: Mapping[str, WindowStat]
    ) -> tuple[str, float] | None:
        move = self.peer.next(self.scaled(values), seen_score(self.settings, windows), windows)
        if move is None:
            return None
        rule = self.rules[move[0]]
        return rule.name, rule.clip(rule.min + move[1] * (rule.max - rule.min))


class WalkingOracle:
    """Knows the plant: steps along the feasible path that scores best, towards the best values."""

    def __init__(self, plant: TuningPlant, best: Mapping[int, Floats]) -> None:
        self.plant, self.best, self.cycle = plant, best, 0

    def next(
        self, values: Mapping[str, float], windows: Mapping[str, WindowStat]
    ) -> tuple[str, float] | None:
        self.cycle += 1
        goal = self.best[self.plant.regime(self.cycle)]
        steps = []
        for r, to in zip(self.plant.settings.rules.values(), goal, strict=True):
            if abs(to - values[r.name]) > 1e-3 * r.lr:
                steps.append((r.name, values[r.name] + float(np.clip(to - values[r.name], -r.lr, r.lr))))
        if not steps:
            return None
        table = self.plant.table(
            np.vstack([self.plant.point({**values, n: new}) for n, new in steps]), self.cycle
        )
        worth = self.plant.score(table) - 10.0 * self.plant.over(table)
        return steps[int(np.argmax(worth))]


# ----------------------------------------------------------------------------- one run
@lru_cache(maxsize=4)
def known(maker: Maker, seed: int, cycles: int) -> tuple[TuningPlant, Mapping[int, Floats]]:
    """The member of a family that belongs to a seed, and its best values by regime."""
    plant = maker(np.random.default_rng([seed, 1]))
    return plant, {c: plant.best(c) for c in plant.regimes if c <= cycles}


def run(plant_name: str, maker: Maker, policy: str, seed: int, cycles: int) -> Run:
    """One policy on one member of a family; equal seeds give equal plants and equal noise to every policy."""
    plant, best = known(maker, seed, cycles)
    windows = Windows(plant, np.random.default_rng([seed, 2]))
    player = _player(plant, policy, np.random.default_rng([seed, 3]), cycles, best)
    values = {n: r.init for n, r in plant.settings.rules.items()}
    scores, tops, over, moves, null, cpu = [], [], 0, 0, 0, 0.0
    claims = covered = 0
    for cycle in range(cycles):
        here = plant.table(plant.point(values), cycle)
        top = plant.table(best[plant.regime(cycle)][None, :], cycle)
        scores.append(float(plant.score(here)[0]))
        tops.append(float(plant.score(top)[0]))
        over += bool(plant.over(here)[0])
        seen = windows.next(values)
        began = time.process_time()
        move = player.next(values, seen)
        cpu += time.process_time() - began
        if move is not None:
            moves += move[1] != values[move[0]]
            null += move[1] == values[move[0]]
            before, values = values, _moved(plant, values, *move)
            held = promises(plant, player, before, values, cycle)
            claims, covered = claims + len(held), covered + sum(held)
    return Run(
        plant=plant_name, policy=policy, seed=seed, regret=float(np.mean(np.array(tops) - np.array(scores))),
        viol=over / cycles, moves=moves, null=null, t95=reached(scores, tops), cpu_ms=1000 * cpu / cycles,
        claims=claims, covered=covered,
    )  # fmt: skip


def promises(
    plant: TuningPlant, player: object, before: Mapping[str, float], after: Mapping[str, float], cycle: int
) -> list[bool]:
    """Whether each stated interval of an expected effect holds what the step truly does."""
    said = player.said if isinstance(player, Ours) else None
    if said is None or isinstance(said, Hold):
        return []
    a, b = (plant.table(plant.point(v), cycle)[0] for v in (before, after))
    names = plant.settings.metrics
    true = {m: float(b[names.index(m)] - a[names.index(m)]) for m in said[0].expected}
    return [lo <= true[m] <= hi for m, (_, lo, hi) in said[0].expected.items()]


def _player(
    plant: TuningPlant, policy: str, dice: np.random.Generator, cycles: int, best: Mapping[int, Floats]
) -> Ours | Theirs | WalkingOracle:
    if policy in OURS:
        return Ours(plant, PolicyName(policy))
    return WalkingOracle(plant, best) if policy == FLOOR else Theirs(plant, policy, dice, cycles)


def _moved(plant: TuningPlant, values: Mapping[str, float], rule: str, new: float) -> dict[str, float]:
    """The values after a move. Raises: ValueError if it breaks the limits that hold for all."""
    r, step = plant.settings.rules[rule], new - values[rule]
    if abs(step) > r.lr * (1 + 1e-6) or not r.min - 1e-9 <= new <= r.max + 1e-9:
        raise ValueError(
            f"{rule}: {values[rule]:g} -> {new:g} is no step of at most {r.lr:g} inside its bounds"
        )
    return {**values, rule: new}


def reached(scores: Sequence[float], tops: Sequence[float]) -> int:
    """The first cycle from which 4 of 5 cycles reach 95 % of the oracle."""
    good = np.array(scores) >= REACHED * np.array(tops)
    for c in range(len(good)):
        if good[c] and good[c : c + OF_NEXT].sum() >= min(NEEDED, len(good) - c):
            return c
    return len(good)


# ----------------------------------------------------------------------------- tables
def by_seed(runs: Sequence[Run], field: str) -> Floats:
    """The mean over plants of each seed, in the order of seeds."""
    seeds = sorted({r.seed for r in runs})
    return np.array([np.mean([getattr(r, field) for r in runs if r.seed == s]) for s in seeds])


def interval(per_seed: Floats, against: Floats | None = None) -> tuple[float, float]:
    """95 % bootstrap interval over seeds of the mean, or of the ratio of two means of the same seeds."""
    dice = np.random.default_rng(7)
    rows = dice.integers(len(per_seed), size=(RESAMPLES, len(per_seed)))
    draws = per_seed[rows].mean(axis=1)
    if against is not None:
        draws = draws / np.maximum(against[rows].mean(axis=1), 1e-12)
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def avoidable(rs: Sequence[Run], floor: Sequence[Run]) -> tuple[float, float]:
    """Share of cycles past a hard limit beyond the walking oracle's, and of runs where it has none.

    Some systems start next to their limit, drift or jump past it: what nobody could avoid is no fault.
    """
    best = {(r.plant, r.seed): r.viol for r in floor}
    more = [(r.viol, best[r.plant, r.seed]) for r in rs]
    return float(np.mean([max(0.0, v - b) for v, b in more])), float(
        np.mean([v > 0 and b == 0 for v, b in more])
    )


def line(rs: Sequence[Run], climbers: Sequence[Run], floor: Sequence[Run] = ()) -> str:
    regret = by_seed(rs, "regret")
    lo, hi = interval(regret)
    text = f"{regret.mean():.4f} ({lo:.4f}–{hi:.4f}) "
    if climbers:
        base = by_seed(climbers, "regret")
        a, b = interval(regret, base)
        text += f"{regret.mean() / max(base.mean(), 1e-12):5.2f} ({a:.2f}–{b:.2f}) "
    own = "{:7.4f} {:6.1%} ".format(*avoidable(rs, floor)) if floor else ""
    claims = sum(r.claims for r in rs)
    kept = f"{sum(r.covered for r in rs) / claims:6.1%} of {claims}" if claims else ""
    moves = by_seed(rs, "moves")
    m_lo, m_hi = interval(moves)
    return text + (
        f"{np.mean([r.viol for r in rs]):7.4f} {np.mean([r.viol > 0 for r in rs]):6.1%} {own}"
        f"{moves.mean():6.1f} ({m_lo:.0f}–{m_hi:.0f}) {np.mean([r.null for r in rs]):5.1f} "
        f"{np.median([r.t95 for r in rs]):5.0f} {np.mean([r.cpu_ms for r in rs]):6.2f} {kept}"
    )


def show(runs: Sequence[Run], *, per_plant: bool = True) -> None:
    plants = list(dict.fromkeys(r.plant for r in runs))
    policies = list(dict.fromkeys(r.policy for r in runs))
    head = "regret (95 %)            "
    if CLIMBER in policies:
        head += "/ climbing (95 %)   "
    own = "own viol   bad " if FLOOR in policies else ""
    head = f"{'':18s}{head}viol    bad    {own}moves (95 %)   null   t95     ms  expected holds"
    for plant in ["all", *plants] if per_plant and len(plants) > 1 else ["all"]:
        mine = [r for r in runs if plant in ("all", r.plant)]
        print(f"\n## {plant}\n{head}")
        rows = {p: [r for r in mine if r.policy == p] for p in policies}
        for p in sorted(rows, key=lambda p: float(np.mean([r.regret for r in rows[p]]))):
            print(f"{p:18s}{line(rows[p], rows.get(CLIMBER, []), rows.get(FLOOR, []))}")


def makers(args: argparse.Namespace) -> dict[str, Maker]:
    """The plants of this run, by name."""
    if args.plants_from:
        found: dict[str, Maker] = dict(importlib.import_module(args.plants_from).PLANTS)
    elif args.held_out:
        from benchmarks.tuning_plants import HELD_OUT

        found = dict(HELD_OUT)
    else:
        found = dict(PLANTS)
    unknown = set(args.plants or ()) - set(found)
    if unknown:
        raise SystemExit(f"no plant named {', '.join(sorted(unknown))}; there are: {', '.join(found)}")
    return {n: m for n, m in found.items() if not args.plants or n in args.plants}


def _job(job: tuple[str, str, int, int, str | None, bool]) -> Run:
    """One run, from names alone: makers do not travel between processes."""
    plant, policy, seed, cycles, plants_from, held_out = job
    args = argparse.Namespace(plants_from=plants_from, held_out=held_out, plants=[plant])
    return run(plant, makers(args)[plant], policy, seed, cycles)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--quick", action="store_true", help="2 seeds x 60 cycles, the cheap policies")
    ask.add_argument(
        "--seeds", type=int, default=20, help="with --guarded it costs a minute a seed and plant"
    )
    ask.add_argument("--first", type=int, default=1, help="the first seed; 901.. were used to tune the peers")
    ask.add_argument("--cycles", type=int, default=200)
    ask.add_argument("--plants", nargs="+")
    ask.add_argument("--plants-from", metavar="MODULE", help="a module with PLANTS of your own")
    ask.add_argument("--held-out", action="store_true", help="random systems instead of the named ones")
    ask.add_argument("--policies", nargs="+", choices=NAMES)
    ask.add_argument("--workers", type=int, default=2)
    ask.add_argument("--pooled", action="store_true", help="only the table over all plants")
    ask.add_argument("--json", type=Path, help="write every free run there")
    ask.add_argument("--guarded", action="store_true", help="inside the loop's excursion guard, at 5 Hz")
    ask.add_argument("--runs", type=Path, help="with --guarded: JSON lines, one a run, to add to and add up")
    args = ask.parse_args()
    if args.guarded:
        from benchmarks.tuning_guarded import show_guarded

        show_guarded(args)
        return
    seeds, cycles = (2, 60) if args.quick else (args.seeds, args.cycles)
    policies = args.policies or (CHEAP if args.quick else NAMES)
    plants = makers(args)
    jobs = [
        (plant, policy, seed, cycles, args.plants_from, args.held_out)
        for seed in range(args.first, args.first + seeds)
        for plant in plants
        for policy in policies
    ]
    if args.workers > 1:
        with ProcessPoolExecutor(args.workers) as pool:
            runs = list(pool.map(_job, jobs, chunksize=len(policies)))
    else:
        runs = [_job(job) for job in jobs]
    print(f"{len(plants)} plants x {seeds} seeds x {cycles} cycles")
    show(runs, per_plant=not args.pooled)
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in runs], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
