"""The real loop on the tuning plants at 5 Hz: what its guard costs, what it proves, how often it is wrong.

    python -m benchmarks.tuning --guarded [--plants shipped "flat, noisy"] [--seeds 2] [--cycles 100]
    python -m benchmarks.tuning --guarded --plants all flat --seeds 2 --runs guarded.jsonl  # go on later
    python -m benchmarks.tuning --guarded --seeds 0 --runs guarded.jsonl                    # only add up

The same responses as in tuning_plants.py, sampled five times a second with lag and noise, under
`Rehearsal`: the loop's own decide and commit on a fake clock. A cycle is 180 s, the pace of its steps.
A confirmation is false if neither the true score nor half of any weighted metric's `good` was gained on the
anchor it replaced (`kept`, `equal` and `anchor_unsafe` prove nothing and are listed, not counted); where no
rule does anything all are false. The loop wakes every 5 s at the earliest; a real one wakes each second.
An excursion that ended was in vain if, in truth, where it got to was no better by that measure than where it
began: the promise is that of these at most 5 % are confirmed.
`--plants all`: the named plants of tuning_plants.py. The pool is over them alone: regret guarded / free, both
summed over the same plants and seeds, with a 95 % bootstrap over these pairs. `--runs`: one JSON line a run,
added as it ends; runs that are there are not run again (so a new file after a change of the code).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaincinv

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
RESAMPLES = 4000


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
    vain: int = 0  # ended excursions that truly gained nothing
    vain_proved: int = 0  # of them confirmed
    moves: int = 0
    lost: float = 0.0  # score, times seconds
    waited: float = 0.0  # of it while the first history grew beyond one cycle (the free policy waits one)
    over_s: float = 0.0
    seconds: float = 0.0
    runs: int = 0
    bad: int = 0  # runs with any time over a hard limit
    cpu_s: float = 0.0

    def add(self, other: Tally) -> None:
        for counts in ("confirmed", "false", "undone"):
            getattr(self, counts).update(getattr(other, counts))
        for number in (
            "excursions",
            "vain",
            "vain_proved",
            "moves",
            "lost",
            "waited",
            "over_s",
            "seconds",
            "cpu_s",
        ):
            setattr(self, number, getattr(self, number) + getattr(other, number))
        self.runs += 1
        self.bad += other.over_s > 0


class Watcher:
    """Follows one rehearsal with knowledge of the plant's true means."""

    def __init__(self, plant: TuningPlant, best: Mapping[int, Floats]) -> None:
        self.plant, self.best, self.settings = plant, best, plant.settings
        self.tally = Tally()
        self.left_from: Mapping[str, float] = {}
        self.got_to: Mapping[str, float] | None = None  # the values of the excursion that is under way
        self.last_ms: int | None = None
        self.first_ms: int | None = None
        self.waiting = False

    def cycle(self, now_ms: int) -> int:
        """The cycle at which the regime in force began: within it the means stand still."""
        assert self.first_ms is not None
        return self.plant.regime(int((now_ms - self.first_ms) / 1000 / CYCLE_S))

    def __call__(self, r: Rehearsal, plan: Plan) -> None:
        t, life, now = self.tally, r.root.snapshot().life, r.fake.steady_ms
        assert life is not None
        self.first_ms = now if self.first_ms is None else self.first_ms
        cycle = self.cycle(now)
        lost = t.lost
        self._account(life.values, now, cycle)
        t.waited += (t.lost - lost) * self.waiting
        self.waiting = now - self.first_ms >= CYCLE_S * 1000 and any(
            c.code == "guard.history" and not c.passed for c in plan.checks
        )
        proofs = self._proofs()
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
            self._over(proofs, cycle)
            self.left_from = dict(life.values)
        elif life.look is None:
            self.got_to = dict(life.values)

    def _proofs(self) -> int:
        return sum(self.tally.confirmed[how] for how in PROOFS)

    def _over(self, proofs: int, cycle: int) -> None:
        """Nothing is under way any more: was what ended in vain, was it confirmed all the same?"""
        if self.got_to is not None and not self._better(self.got_to, cycle):
            self.tally.vain += 1
            self.tally.vain_proved += self._proofs() > proofs
        self.got_to = None

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


@dataclass(frozen=True, kw_only=True)
class GuardedRun:
    """What one run came to, and the regret without the loop's guard in as many cycles."""

    plant: str
    policy: str
    seed: int
    cycles: int
    free: float
    tally: Tally

    @property
    def regret(self) -> float:
        return self.tally.lost / max(1.0, self.tally.seconds)

    @property
    def started(self) -> float:
        """The regret without what the wait for the first history cost beyond one cycle."""
        return (self.tally.lost - self.tally.waited) / max(1.0, self.tally.seconds)

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.plant, self.policy, self.seed, self.cycles


# ----------------------------------------------------------------------------- runs that are kept
def as_line(one: GuardedRun) -> str:
    return json.dumps({**asdict(one), "tally": vars(one.tally)})  # asdict would count a Counter's pairs


def kept_runs(path: Path | None) -> list[GuardedRun]:
    """The runs of a file of JSON lines; the newest of each kind; a line that a kill cut short is left out."""
    found: dict[tuple[str, str, int, int], GuardedRun] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path and path.exists() else ():
        try:
            one = json.loads(text)
        except ValueError:
            continue
        t: dict[str, Any] = one.pop("tally")
        counts = {k: Counter(t.pop(k)) for k in ("confirmed", "false", "undone")}
        run = GuardedRun(**one, tally=Tally(**counts, **t))
        found[run.key] = run
    return list(found.values())


def keep(path: Path | None, one: GuardedRun) -> None:
    """One more line, on a line of its own even if the last one was cut short."""
    if path is None:
        return
    with path.open("a+b") as f:
        f.seek(max(0, f.seek(0, 2) - 1))
        torn = f.read(1) not in (b"", b"\n")
        f.write(b"\n" * torn + as_line(one).encode() + b"\n")


# ----------------------------------------------------------------------------- tables
def share_interval(k: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of which `k` of `n` were seen. Source: Clopper and Pearson."""
    lo = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    return lo, float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0


def ratio_interval(ours: Sequence[float], free: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap over the pairs of the ratio of two sums."""
    a, b = np.array(ours), np.array(free)
    rows = np.random.default_rng(7).integers(len(a), size=(RESAMPLES, len(a)))
    draws = a[rows].sum(axis=1) / np.maximum(b[rows].sum(axis=1), 1e-12)
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def ratio(ours: Sequence[float], free: Sequence[float]) -> str:
    """The ratio of the sums with its interval, as text."""
    lo, hi = ratio_interval(ours, free)
    return f"{sum(ours) / max(sum(free), 1e-12):.2f} ({lo:.2f}-{hi:.2f})"


def added(runs: Iterable[GuardedRun]) -> Tally:
    total = Tally()
    for one in runs:
        total.add(one.tally)
    return total


def line(name: str, runs: Sequence[GuardedRun]) -> str:
    """One plant's row, and what lies behind it."""
    t, free = added(runs), float(np.mean([r.free for r in runs]))
    regret = t.lost / max(1.0, t.seconds)
    over = f"{regret / free:7.2f}" if free > 1e-6 else "      -"
    judged = sum(t.confirmed.values()) + sum(t.undone.values())
    proved = ", ".join(f"{k} {n} ({t.false[k]} false)" for k, n in sorted(t.confirmed.items()))
    ended = ", ".join(f"{k} {n}" for k, n in sorted(t.undone.items()))
    most = max(r.tally.moves for r in runs)
    return (
        f"{name:16s}{t.runs:4d} {regret:8.4f}{over} {t.over_s / max(1.0, t.seconds):8.5f} {t.bad:4d}"
        f" {t.moves / t.runs:7.1f} {most:5d} {t.excursions:6d} {judged:6d} {sum(t.confirmed.values()):9d}"
        f" {sum(t.false.values()):6d} {t.vain_proved:4d} of {t.vain:<4d} {t.cpu_s / t.runs:7.1f}"
        f"\n    confirmed: {proved or '-'}\n    went back: {ended or '-'}"
    )


HEAD = (
    f"{'plant':16s}runs   regret / free     viol  bad   moves  most excur.  ended confirmed  false"
    "  of those in vain  CPU s"
)


def pool(runs: Sequence[GuardedRun]) -> str:
    """The promises of loop.md over all runs: regret beside the free policy's, moves, viol, false confirms."""
    named = [r for r in runs if r.plant in PLANTS]
    out = []
    if named:
        ours, free, t = [r.regret for r in named], [r.free for r in named], added(named)
        moves = [r.tally.moves for r in named]
        at = max(named, key=lambda r: r.tally.moves)
        plants = len({r.plant for r in named})
        out = [
            f"{plants} named plants, {len(named)} runs: regret {np.mean(ours):.4f} guarded,"
            f" {np.mean(free):.4f} free, ratio {ratio(ours, free)}; half of the runs are below"
            f" {np.median([a / b if b > 0.0 else 1.0 for a, b in zip(ours, free, strict=True)]):.2f}",
            f"without the wait for the first history: ratio {ratio([r.started for r in named], free)}",
            f"moves: mean {np.mean(moves):.1f}, worst {at.tally.moves} ({at.plant}, seed {at.seed});"
            f" viol {t.over_s / max(1.0, t.seconds):.6f}, bad runs {t.bad}",
        ]
    for what, some in (
        ("all plants", runs),
        ("no rule does anything", [r for r in runs if "flat" in r.plant]),
    ):
        t = added(some)
        if t.vain:
            lo, hi = share_interval(t.vain_proved, t.vain)
            out.append(
                f"confirmed of the excursions that gained nothing, {what}: {t.vain_proved} of {t.vain},"
                f" {t.vain_proved / t.vain:.1%} ({lo:.1%}-{hi:.1%})"
            )
    return "\n".join(out)


# ----------------------------------------------------------------------------- from the command line
def _job(job: tuple[str, str, int, int]) -> GuardedRun:
    from benchmarks.tuning import run as free_run

    plant, policy, seed, cycles = job
    tally = run(GUARDED[plant], policy, seed, cycles)
    free = free_run(plant, GUARDED[plant], policy, seed, cycles).regret
    return GuardedRun(plant=plant, policy=policy, seed=seed, cycles=cycles, free=free, tally=tally)


def _done(jobs: Sequence[tuple[str, str, int, int]], workers: int) -> Iterator[GuardedRun]:
    """The runs as they end."""
    if workers == 1:
        yield from map(_job, jobs)
        return
    with ProcessPoolExecutor(workers) as crew:
        for one in as_completed([crew.submit(_job, j) for j in jobs]):
            yield one.result()


def show_guarded(args: argparse.Namespace) -> None:
    """The table of the guarded loop; `/ free` is its regret beside the free policy's in as many cycles."""
    seeds, cycles = (1, 30) if args.quick else (args.seeds, args.cycles)
    names = [n for given in args.plants or USUAL for n in (PLANTS if given == "all" else [given])]
    unknown = set(names) - set(GUARDED)
    if unknown:
        raise SystemExit(f"no plant named {', '.join(sorted(unknown))}; there are: {', '.join(GUARDED)}")
    policy = (args.policies or ["adaptive"])[0]
    runs = [r for r in kept_runs(args.runs) if (r.policy, r.cycles) == (policy, cycles)]
    there = {r.key for r in runs}
    wanted = [(n, policy, seed, cycles) for seed in range(args.first, args.first + seeds) for n in names]
    jobs = [j for j in dict.fromkeys(wanted) if j not in there]
    print(f"{policy}, {cycles} cycles: {len(runs)} runs at hand, {len(jobs)} to go", flush=True)
    for one in _done(jobs, args.workers):
        keep(args.runs, one)
        runs.append(one)
        print(f"  {one.plant}, seed {one.seed}: {one.regret:.4f}, free {one.free:.4f}", flush=True)
    print(HEAD)
    for name in [n for n in GUARDED if any(r.plant == n for r in runs)]:
        print(line(name, [r for r in runs if r.plant == name]))
    print(pool(runs))
