"""Other ways to choose the next step, under our limits: one rule a cycle, at most lr, inside the bounds.

Each peer sees the same noisy windows as our policies and answers with one move or none. What it climbs is the
objective score, less `HARD_PENALTY` while a window's mean is past a hard limit, so that none is blind to it.
Each was tuned by hand on seeds 901 and 902 of tuning_plants.py. Rule values are scaled to [0, 1].
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftune.domain import WindowStat
from selftune.objective import objective_score
from selftune.policy_state import SEED_LEVER
from selftune.settings import Settings

Floats = NDArray[np.float64]
Move = tuple[int, float]  # which rule, its new value
HARD_PENALTY = 0.5
NEAR = 1e-6


@dataclass(frozen=True)
class Task:
    """What a peer knows from the start. Shape: x, lr (rules,), in shares of each rule's range."""

    settings: Settings
    x: Floats
    lr: Floats
    direction: tuple[int, ...]
    dice: np.random.Generator
    cycles: int

    @property
    def d(self) -> int:
        return len(self.lr)


def seen_score(settings: Settings, windows: Mapping[str, WindowStat]) -> float:
    """What the peers climb."""
    score = objective_score(settings, {m: w.mean for m, w in windows.items()}) or 0.0
    for m, limit in settings.hard.items():
        mean = windows[m].mean
        past = (limit.max is not None and mean is not None and mean > limit.max) or (
            limit.min is not None and mean is not None and mean < limit.min
        )
        score -= HARD_PENALTY * past
    return score


class Peer:
    """`next` gets the values in force, the score of the window under them, and that window."""

    def __init__(self, task: Task) -> None:
        self.task, self.t = task, -1

    def next(self, x: Floats, score: float, windows: Mapping[str, WindowStat]) -> Move | None:
        self.t += 1
        return self.choose(x, score)

    def choose(self, x: Floats, score: float) -> Move | None:
        return None

    def step(self, x: Floats, i: int, way: float) -> Move | None:
        """A step of lr, cut at the bounds; None where nothing is left."""
        new = float(np.clip(x[i] + way * self.task.lr[i], 0, 1))
        return None if abs(new - x[i]) < NEAR else (i, new)

    def walk(self, x: Floats, goal: Floats) -> Move | None:
        """One step towards `goal`, in the rule that is furthest from it."""
        gap = (goal - x) / self.task.lr
        i = int(np.argmax(np.abs(gap)))
        if abs(gap[i]) < NEAR:
            return None
        return i, float(goal[i]) if abs(gap[i]) <= 1 else float(x[i] + np.sign(gap[i]) * self.task.lr[i])


class RandomWalk(Peer):
    """One random rule, one random way."""

    def choose(self, x: Floats, score: float) -> Move | None:
        return self.step(x, int(self.task.dice.integers(self.task.d)), float(self.task.dice.choice([-1, 1])))


# ----------------------------------------------------------------------------- the seed
class SeedHeuristic(Peer):
    """The seed as it stands: the first metric whose last Δ is not `good` moves its rule one way, for ever.

    It looks at no target and does not notice a bound: an event that changes nothing is a null event. On
    metrics that are not the seed's, the rules serve the metrics in turn. Its first Δ is given: bad.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        s = task.settings
        names = list(s.rules)
        order = [m for m in ("risk_band", "phase_diff", "creative_band") if m in s.targets]
        order += [m for m in s.targets if m not in order and s.weights.get(m, 0) > 0]
        self.levers = [
            (m, names.index(SEED_LEVER[m]) if SEED_LEVER.get(m) in names else k % len(names))
            for k, m in enumerate(order)
        ]
        self.before: Mapping[str, float] = {}
        self.deltas: Mapping[str, float] = {m: math.nan for m, _ in self.levers}
        self.moved = False

    def next(self, x: Floats, score: float, windows: Mapping[str, WindowStat]) -> Move | None:
        means = {m: w.mean or 0.0 for m, w in windows.items()}
        if self.moved:
            self.deltas = {m: means[m] - self.before[m] for m, _ in self.levers}
        self.before, found = means, super().next(x, score, windows)
        self.moved = found is not None
        return found

    def choose(self, x: Floats, score: float) -> Move | None:
        s = self.task.settings
        for m, i in self.levers:
            gain = -self.deltas[m] if s.targets[m].down_is_good else self.deltas[m]
            if not gain >= s.good[m]:
                way = self.task.direction[i] or 1
                size = 0.5 if m == "creative_band" else 1.0
                return i, float(np.clip(x[i] + way * size * self.task.lr[i], 0, 1))
        return None


class SeedRollback(SeedHeuristic):
    """The seed's steps, each undone if the next window scores lower; then it rests for a cycle."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.open: tuple[int, float, float] | None = None  # rule, value before, score before
        self.rest = 0

    def choose(self, x: Floats, score: float) -> Move | None:
        if self.open is not None:
            i, old, before = self.open
            self.open = None
            if score < before:
                self.rest = 1
                return i, old
        if self.rest:
            self.rest -= 1
            return None
        move = super().choose(x, score)
        if move is None or abs(move[1] - x[move[0]]) < NEAR:
            return None
        self.open = (move[0], float(x[move[0]]), score)
        return move


# ----------------------------------------------------------------------------- climbing
class HillClimbing(Peer):
    """Coordinate steps, kept while the score rises; measured again while chance could explain the difference.

    Starts in the configured directions. When every way has been tried in vain it rests, longer each time,
    until the score falls. `LOOKS`: windows at most for a step. `REST`: cycles at most of a rest.
    """

    LOOKS, SURE, REST, FALL = 1, 1.0, 2, 3.0  # looking once has less regret than averaging (.028, .035)
    KEPT = 6  # windows over which home is averaged

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.ways = [(i, s * (task.direction[i] or 1)) for s in (1, -1) for i in range(task.d)]
        self.k = self.failed = self.rest = self.rest_next = 0
        self.home: list[float] = []
        self.trial: list[float] = []
        self.back: Move | None = None
        self.var, self.var_n = 0.02**2, 4.0  # of one window's score

    def choose(self, x: Floats, score: float) -> Move | None:
        return self._judge(x, score) if self.back is not None else self._at_home(x, score)

    def _at_home(self, x: Floats, score: float) -> Move | None:
        if self.home:
            gap = score - float(np.mean(self.home))
            sd = math.sqrt(self.var)
            if gap < -self.FALL * sd:  # the world has changed
                self.home, self.failed, self.rest, self.rest_next = [], 0, 0, 0
            else:
                n = len(self.home)
                self.var = (self.var * self.var_n + gap**2 * n / (n + 1)) / (self.var_n + 1)
                self.var_n = min(30.0, self.var_n + 1)
        self.home = [*self.home, score][-self.KEPT :]
        if self.rest:
            self.rest -= 1
            return None
        return self._try(x)

    def _try(self, x: Floats) -> Move | None:
        for _ in self.ways:
            i, way = self.ways[self.k]
            move = self.step(x, i, way)
            if move is not None:
                self.back, self.trial = (i, float(x[i])), []
                return move
            self._next_way()
        return None

    def _next_way(self) -> None:
        self.k = (self.k + 1) % len(self.ways)
        self.failed += 1
        if self.failed >= len(self.ways):
            self.failed = 0
            self.rest = self.rest_next
            self.rest_next = min(self.REST, 2 * self.rest_next + 2)

    def _judge(self, x: Floats, score: float) -> Move | None:
        self.trial.append(score)
        gap = float(np.mean(self.trial) - np.mean(self.home))
        chance = math.sqrt(self.var * (1 / len(self.trial) + 1 / len(self.home)))
        if abs(gap) < self.SURE * chance and len(self.trial) < self.LOOKS:
            return None
        assert self.back is not None
        back, self.back = self.back, None
        if gap > 0:
            self.home, self.failed, self.rest_next = self.trial, 0, 0
            return self._try(x)
        self._next_way()
        return back


class CalmClimbing(HillClimbing):
    """The same with averaging and longer rests: fewer moves, somewhat more regret."""

    LOOKS, REST = 3, 16


class Spsa(Peer):
    """Simultaneous perturbation (Spall's gains): two points half a step to either side, then a step along."""

    GAIN = 0.7

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.centre, self.n = task.x.copy(), 0
        self.goals: list[Floats] = []
        self.scores: list[float] = []
        self._perturb()

    def _perturb(self) -> None:
        self.delta = self.task.dice.choice([-1.0, 1.0], self.task.d)
        half = 0.5 * self.task.lr / (self.n + 1) ** 0.101
        self.goals = [np.clip(self.centre + s * half * self.delta, 0, 1) for s in (1, -1)]
        self.scores = []

    def choose(self, x: Floats, score: float) -> Move | None:
        if np.max(np.abs(x - self.goals[len(self.scores)])) < NEAR:
            self.scores.append(score)
            if len(self.scores) == 2:
                slope = (self.scores[0] - self.scores[1]) * self.delta  # score a step
                gain = self.GAIN * 10**0.602 / (self.n + 10) ** 0.602
                move = np.clip(gain * slope / 0.03, -1, 1) * self.task.lr
                self.centre = np.clip(self.centre + move, 0, 1)
                self.n += 1
                self._perturb()
        return self.walk(x, self.goals[len(self.scores)])


class Thompson(Peer):
    """An arm for each rule and way, and one for staying; the reward is the change of the score."""

    KEEP, NOISE, PRIOR = 0.7, 0.02, 0.02

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.arms = [(i, w) for i in range(task.d) for w in (-1, 1)]
        self.total, self.n = np.zeros(len(self.arms)), np.zeros(len(self.arms))
        for k, (i, w) in enumerate(self.arms):  # the configured direction counts as one good try
            if w == task.direction[i]:
                self.total[k], self.n[k] = 0.01, 1.0
        self.last: tuple[int, float] | None = None

    def choose(self, x: Floats, score: float) -> Move | None:
        self.total, self.n = self.total * self.KEEP, self.n * self.KEEP
        if self.last is not None:
            self.total[self.last[0]] += score - self.last[1]
            self.n[self.last[0]] += 1
        precision = self.n / self.NOISE**2 + 1 / self.PRIOR**2
        mean = self.total / self.NOISE**2 / precision
        draws = mean + self.task.dice.standard_normal(len(mean)) / np.sqrt(precision)
        k = int(np.argmax(draws))
        self.last = None
        if draws[k] <= 0:  # to stay is the arm whose reward is known: none
            return None
        move = self.step(x, *self.arms[k])
        if move is None:
            self.total[k] -= 0.01  # at the bound there is nothing to win
            self.n[k] += 1
            return None
        self.last = (k, score)
        return move


# ----------------------------------------------------------------------------- optimisers that are walked
class Walker(Peer):
    """Walks to what an optimiser suggests and tells it every window on the way; then parks at the best.

    The best is where the mean of the score over the three nearest windows is highest: one window may be luck.
    """

    PARK = 80

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.xs: list[Floats] = []
        self.ys: list[float] = []
        self.goal: Floats | None = None

    def ask(self, x: Floats) -> Floats:
        raise NotImplementedError

    def tell(self, x: Floats, score: float, arrived: bool) -> None:
        """One window; `arrived`: at the point that was asked for."""

    def choose(self, x: Floats, score: float) -> Move | None:
        self.xs.append(x.copy())
        self.ys.append(score)
        if self.t == self.PARK:
            self.goal = self.best()
        if self.t < self.PARK:
            arrived = self.goal is not None and float(np.max(np.abs(x - self.goal))) < NEAR
            self.tell(x, score, arrived)
            if self.goal is None or arrived:
                self.goal = self.ask(x)
        assert self.goal is not None
        return self.walk(x, self.goal)

    def best(self) -> Floats:
        xs, ys = np.array(self.xs), np.array(self.ys)
        gaps = ((xs[:, None, :] - xs[None, :, :]) / self.task.lr) ** 2
        nearest = np.argsort(gaps.sum(axis=2), axis=1)[:, :3]
        return np.asarray(xs[int(np.argmax(ys[nearest].mean(axis=1)))])


class OptunaTpe(Walker):
    """Optuna's tree-structured Parzen estimator; every window on the way is a trial of its own."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        self.optuna = optuna
        self.space: dict[str, Any] = {
            f"x{i}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(task.d)
        }
        seed = int(task.dice.integers(2**31))
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=5)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)

    def tell(self, x: Floats, score: float, arrived: bool) -> None:
        params = {f"x{i}": float(np.clip(v, 0, 1)) for i, v in enumerate(x)}
        self.study.add_trial(
            self.optuna.trial.create_trial(params=params, distributions=self.space, value=score)
        )

    def ask(self, x: Floats) -> Floats:
        trial = self.study.ask(self.space)
        goal = np.array([trial.params[f"x{i}"] for i in range(self.task.d)])
        self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)  # its windows count, not the wish
        return goal


class CmaEs(Walker):
    """CMA-ES (the sampler behind Optuna's), a small population about where it starts; parks at its mean."""

    PARK, SIGMA, POPULATION = 80, 0.2, 4

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        from cmaes import CMA

        warnings.simplefilter("ignore")
        bounds = np.array([[0.0, 1.0]] * task.d)
        self.es = CMA(
            mean=np.clip(task.x, 0.02, 0.98), sigma=self.SIGMA, bounds=bounds,
            seed=int(task.dice.integers(2**31)), population_size=self.POPULATION,
        ) if task.d > 1 else None  # fmt: skip
        self.mean, self.spread = float(task.x[0]), self.SIGMA  # one rule: a plain (mu, lambda) strategy
        self.told: list[tuple[Floats, float]] = []

    def ask(self, x: Floats) -> Floats:
        if self.es is not None:
            return np.asarray(self.es.ask())
        return np.clip([self.mean + self.spread * self.task.dice.standard_normal()], 0, 1)

    def tell(self, x: Floats, score: float, arrived: bool) -> None:
        if not arrived:
            return
        self.told.append((x.copy(), -score))
        if len(self.told) < self.POPULATION:
            return
        if self.es is not None:
            self.es.tell(self.told)
        else:
            best = sorted(self.told, key=lambda s: s[1])[: self.POPULATION // 2]
            self.mean = float(np.mean([b[0][0] for b in best]))
            self.spread = max(0.03, 1.25 * float(np.std([b[0][0] for b in best])))
        self.told = []

    def best(self) -> Floats:
        return super().best() if self.es is None else np.clip(self.es.mean, 0, 1)


class SafeGp(Peer):
    """scikit-learn's Gaussian process on the score, upper confidence bound, one step towards its best point.

    Hyperparameters are fitted anew now and then. Hard limits have a process of their own: where mean + 2 sd
    is past a limit it does not go. It stays where the bound promises less than `LEAST`.
    """

    KEPT, KAPPA, LEAST, FIT_AT = 80, 0.5, 0.01, frozenset({4, 8, 16, 32, 64, 100, 140})

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.xs: list[Floats] = []
        self.ys: list[list[float]] = []
        self.hard = list(task.settings.hard)
        self.kernels: list[Any] = []

    def next(self, x: Floats, score: float, windows: Mapping[str, WindowStat]) -> Move | None:
        plain = objective_score(self.task.settings, {m: w.mean for m, w in windows.items()}) or 0.0
        self.xs.append(x.copy())
        self.ys.append([plain, *(windows[m].mean or 0.0 for m in self.hard)])
        return super().next(x, score, windows)

    def choose(self, x: Floats, score: float) -> Move | None:
        if self.t < 2:  # it needs a few windows; the configured direction is as good as any
            return self.step(x, self.t % self.task.d, self.task.direction[self.t % self.task.d] or 1)
        d, dice = self.task.d, self.task.dice
        moves = [m for i in range(d) for w in (-1, -0.5, 0.5, 1) if (m := self.step(x, i, w)) is not None]
        near = np.array([np.where(np.arange(d) == i, new, x) for i, new in moves])
        far = np.vstack([dice.random((200, d)), np.clip(x + 0.15 * dice.standard_normal((60, d)), 0, 1)])
        points = np.vstack([x, near, far])
        bound, safe = self._bound(points)
        bound = np.where(safe, bound, -np.inf)
        best = int(np.argmax(bound))
        if safe[0] and bound[best] - bound[0] < self.LEAST:
            return None
        goal = points[best] if bound[best] > -np.inf else self.task.x
        towards = [k for k, (i, new) in enumerate(moves) if (new - x[i]) * (goal[i] - x[i]) > 0]
        if not towards:
            return None
        k = max(towards, key=lambda k: bound[1 + k])
        return moves[k] if bound[1 + k] > -np.inf or not safe[0] else None

    def _bound(self, points: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        warnings.simplefilter("ignore")
        xs, ys = np.array(self.xs[-self.KEPT :]), np.array(self.ys[-self.KEPT :])
        fit = self.t in self.FIT_AT or not self.kernels
        found = []
        for k in range(ys.shape[1]):
            if fit:
                start = ConstantKernel(1.0, (0.1, 20)) * Matern([0.4] * self.task.d, (0.15, 3), nu=2.5)
                kernel, optimizer = start + WhiteKernel(0.1, (1e-3, 1)), "fmin_l_bfgs_b"
            else:
                kernel, optimizer = self.kernels[k], None
            gp = GaussianProcessRegressor(kernel, optimizer=optimizer, normalize_y=True).fit(xs, ys[:, k])
            found.append((gp.kernel_, *gp.predict(points, return_std=True)))
        if fit:
            self.kernels = [kernel for kernel, _, _ in found]
        safe = np.ones(len(points), bool)
        for m, (_, mean, sd) in zip(self.hard, found[1:], strict=True):
            limit = self.task.settings.hard[m]
            safe &= (mean + 2 * sd <= limit.max) if limit.max is not None else True
            safe &= (mean - 2 * sd >= limit.min) if limit.min is not None else True
        return np.asarray(found[0][1] + self.KAPPA * found[0][2]), safe


PEERS: Mapping[str, Callable[[Task], Peer]] = {
    "do nothing": Peer,
    "random walk": RandomWalk,
    "seed": SeedHeuristic,
    "seed + rollback": SeedRollback,
    "hill climbing": HillClimbing,
    "calm climbing": CalmClimbing,
    "SPSA": Spsa,
    "Thompson": Thompson,
    "Optuna TPE": OptunaTpe,
    "CMA-ES": CmaEs,
    "GP (sklearn)": SafeGp,
}
