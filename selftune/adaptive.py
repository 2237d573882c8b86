"""The adaptive policy: learns what each rule does to each metric, and takes the small step that pays.

Answers `adaptive(state)`: one small step (or several, if allowed) towards the values with the best expected
score, or a hold with the number that says why. Stays where a gain is not worth a change, and away from
values at which a hard limit may break. Pure and deterministic: no clock, no randomness.
Source: policy.md (candidates, value, act, step, emergency).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import isfinite, nan

import numpy as np
from scipy.special import ndtr, roots_hermitenorm

from selftune.domain import Hold, Proposal, Reason, Rule, WindowStat
from selftune.gaps import QuietWindow
from selftune.limits import hard_window_s
from selftune.objective import attainment, objective_score, weighted
from selftune.policy_state import SEED_LEVER, PolicyState
from selftune.response_model import UNIT, Floats, Model, Windows, learn

KEPT = 90  # windows, where what was long at rest counts as few: older ones have faded
FRESH, BLOCK = 12, 6  # the newest windows stand alone, older ones at equal values in blocks
CYCLE_OF_WINDOW = 4 / 3  # the model's cycle is 120 s at a window of 90 s
PRIOR_SLOPE = 0.03  # a full range in the configured direction; weak on purpose: data overrule it
OPTIMISM, OPTIMISM_START, OPTIMISM_CYCLES = 0.6, 0.4, 25.0
FALL_FREE, FALL = 0.02, 0.05  # score below its best: what is no news, what makes all worth trying again
STEP_COST, ACT_GAIN = 0.0015, 0.003
P_HARD, P_EMERGENCY = 0.02, 0.25
LESS_RISK = 2 / 3  # of what staying risks: so much a step must take away where more than P_HARD is left
FIRST_DOUBT = 2.0  # times the sd of what a rule does that was never moved, where a hard limit may break
HARD_MARGIN = 0.01  # of the target's scale, or of the limit's size
GRID, NEAR, WIDE = 15, 0.15, 192
NODES, MASSES = roots_hermitenorm(7)
MASSES = MASSES / MASSES.sum()
Z95 = 1.959963984540054
UNTRIED = 0.02  # score that the first step of a rule is worth: what it does is not known yet
SURE = 0.8  # P(gain) from which a step is said to help; below it explores
PROBE_BELOW = 0.98  # score: above it nothing new is tried for its own sake
NO_ERROR = 0.05  # of the target's scale: the error of a mean whose error was not measured
PARTS = 20  # of lr, in which the length of a step is said
SIZES = (
    1.0,
    0.5,
    0.25,
)  # of a step: smaller where a hard limit is near; less than lr/4 is not worth an event
PASSING = frozenset({"guard.cooldown"})  # over soon: what such a rule could reach still counts


def adaptive(state: PolicyState) -> tuple[Proposal, ...] | Hold:
    """The step that the learned responses speak for, or why none."""
    missing = [m for m in weighted(state.settings) if _mean(state, m) is None]
    if missing:
        return Hold(reasons=tuple(_no_data(state, m) for m in missing))
    seen = observed(state)
    if not seen:
        return Hold(reasons=tuple(_no_data(state, m) for m in weighted(state.settings)))
    return Choice(state, seen).decide()


def observed(state: PolicyState) -> tuple[QuietWindow, ...]:
    """The last windows that teach something, oldest first; the present one if nothing overlaps it."""
    modelled = _metrics(state)
    whole = _latest(state.quiet, modelled)
    now = _present(state, modelled)
    if now is not None and (not whole or now.start_ms >= whole[-1].end_ms):
        whole.append(now)
    return tuple(condensed(whole)[-KEPT:])


def _latest(quiet: Sequence[QuietWindow], modelled: Sequence[str]) -> list[QuietWindow]:
    """The newest windows that teach something, oldest first: enough of them, from where a rest began."""
    found: list[QuietWindow] = []
    left, run = KEPT, 0
    for w in reversed(quiet):
        if not all(_teaches(w.stats.get(m)) for m in modelled):
            continue
        if found and (w.regime != found[-1].regime or w.values != found[-1].values):
            left -= run // BLOCK + run % BLOCK  # at least so many are left of it when condensed
            run = 0
            if left <= 0:
                break
        found.append(w)
        run += 1
    return found[::-1]


def condensed(windows: Sequence[QuietWindow]) -> list[QuietWindow]:
    """The same windows with long rests made short, so that how the rules came there is not forgotten."""
    old, fresh = list(windows[:-FRESH]), list(windows[-FRESH:])
    out: list[QuietWindow] = []
    run: list[QuietWindow] = []
    for w in old:
        if run and (w.regime != run[-1].regime or w.values != run[-1].values):
            out, run = out + run, []
        run.append(w)
        if len(run) == BLOCK:
            out.append(_block(run))
            run = []
    return out + run + fresh


def _block(run: Sequence[QuietWindow]) -> QuietWindow:
    """Windows at equal values as one, from the first to the last."""
    stats = {}
    for m in run[0].stats:
        each = [w.stats[m] for w in run if m in w.stats and w.stats[m].mean is not None]
        known = [s.se for s in each if s.se is not None]
        stats[m] = WindowStat(
            mean=sum(s.mean for s in each if s.mean is not None) / len(each) if each else None,
            se=sum(x**2 for x in known) ** 0.5 / len(known) if known else None,
            n=sum(s.n for s in each), start_ms=run[0].start_ms, end_ms=run[-1].end_ms,
        )  # fmt: skip
    return QuietWindow(
        start_ms=run[0].start_ms,
        end_ms=run[-1].end_ms,
        values=run[0].values,
        regime=run[0].regime,
        stats=stats,
    )


def _teaches(stat: WindowStat | None) -> bool:
    return stat is not None and stat.mean is not None


def _se(stat: WindowStat) -> float:
    return stat.se if stat.se is not None and isfinite(stat.se) else nan


def _present(state: PolicyState, modelled: Sequence[str]) -> QuietWindow | None:
    stats = {m: state.windows[m] for m in modelled if m in state.windows}
    if len(stats) < len(modelled) or not all(_teaches(s) for s in stats.values()):
        return None
    if any(s.n < state.settings.min_samples for s in stats.values()):
        return None
    first = next(iter(stats.values()))
    regime = state.quiet[-1].regime if state.quiet else 0
    return QuietWindow(
        start_ms=first.start_ms, end_ms=first.end_ms, values=state.values, regime=regime, stats=stats
    )


def _metrics(state: PolicyState) -> tuple[str, ...]:
    """What is modelled: metrics of the score, and those with a hard limit."""
    s = state.settings
    return (*weighted(s), *(m for m in s.hard if m in s.targets and m not in weighted(s)))


@dataclass(frozen=True)
class Choice:
    """One decision: the model of what was seen, the candidates, their worth."""

    state: PolicyState
    seen: Sequence[QuietWindow]

    # ---------------------------------------------------------------------------- units
    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(r for r in self.state.settings.rules.values() if r.max > r.min)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        return _metrics(self.state)

    @cached_property
    def unit(self) -> Floats:
        """Metric units of one model unit."""
        targets = self.state.settings.targets
        return np.array([targets[m].scale / UNIT for m in self.metrics])

    def scaled(self, values: dict[str, float]) -> Floats:
        return np.array([(values[r.name] - r.min) / (r.max - r.min) for r in self.rules])

    @cached_property
    def here(self) -> Floats:
        return self.scaled(dict(self.state.values))

    @cached_property
    def lr(self) -> Floats:
        return np.array([r.lr / (r.max - r.min) for r in self.rules])

    # ---------------------------------------------------------------------------- model
    @cached_property
    def model(self) -> Model:
        cycle_ms = self.state.settings.observe_window_s * CYCLE_OF_WINDOW * 1000
        start = self.seen[0].start_ms
        windows = Windows(
            here=self.here,
            x=self.seen_x,
            t=np.array([((w.start_ms + w.end_ms) / 2 - start) / cycle_ms for w in self.seen]),
            span=np.array([(w.end_ms - w.start_ms) / cycle_ms for w in self.seen]),
            segment=np.cumsum(np.diff([w.regime for w in self.seen], prepend=self.seen[0].regime) != 0),
            y=self.means / self.unit,
            sd=self.errors / self.unit,
        )  # fmt: skip
        return learn(windows, self.prior_slopes)

    @cached_property
    def means(self) -> Floats:
        """Shape: (windows, metrics)."""
        return np.array([[w.stats[m].mean for m in self.metrics] for w in self.seen], dtype=float)

    @cached_property
    def errors(self) -> Floats:
        """Standard error of each mean; one that was not measured is as large as the largest that was.

        Where none was, twentieths of the target's scale stand in. Shape: (windows, metrics).
        """
        se = np.array([[_se(w.stats[m]) for m in self.metrics] for w in self.seen])
        for k in range(se.shape[1]):
            known = np.isfinite(se[:, k])
            se[~known, k] = se[known, k].max() if known.any() else NO_ERROR * UNIT * self.unit[k]
        return np.asarray(np.maximum(se, 0.5 * np.median(se, axis=0)))  # nine batches may agree by luck

    @cached_property
    def swing(self) -> Floats:
        """How far the short mean that breaks a hard limit swings about what is learned: sd, in model units.

        0 until one was broken: a margin that nothing asked for only costs. Where chance takes a short mean
        past the limit now and then is no place to rest, for the guard acts on each. From the errors of the
        window means, which hold the noise of their batches. Shape: (metrics,).
        """
        if not self.state.broke:
            return np.zeros(len(self.metrics))
        errors = np.array([[_se(w.stats[m]) for m in self.metrics] for w in self.seen])
        length_s = np.array([(w.end_ms - w.start_ms) / 1000 for w in self.seen])
        short = errors**2 * (length_s / hard_window_s(self.state.settings))[:, None]
        usual = [float(np.median(x[np.isfinite(x)])) if np.isfinite(x).any() else 0.0 for x in short.T]
        return np.asarray(np.sqrt(usual) / self.unit)

    @cached_property
    def trust(self) -> Floats:
        """The `weight` of each rule beside the largest: how much its stated direction counts."""
        weights = np.array([max(0.0, r.weight) for r in self.rules])
        return np.asarray(weights / weights.max() if weights.any() else np.ones(len(weights)))

    @cached_property
    def seen_x(self) -> Floats:
        """Scaled rule values of each window. Shape: (windows, rules)."""
        known: dict[int, Floats] = {}  # windows of one rest share their values
        for w in self.seen:
            if id(w.values) not in known:
                known[id(w.values)] = self.scaled({**self.state.values, **w.values})
        return np.array([known[id(w.values)] for w in self.seen])

    @cached_property
    def prior_slopes(self) -> Floats:
        """What `direction` says: up (or down) makes the metrics of that rule better."""
        slopes = np.zeros((len(self.metrics), len(self.rules)))
        for k, m in enumerate(self.metrics):
            target = self.state.settings.targets[m]
            better = -1.0 if target.down_is_good else 1.0
            mine = [i for i, r in enumerate(self.rules) if r.name == SEED_LEVER.get(m)]
            levers = mine or [i for i, r in enumerate(self.rules) if r.direction]
            for i in levers:
                slopes[k, i] = better * self.rules[i].direction * self.trust[i] * PRIOR_SLOPE
                slopes[k, i] /= np.sqrt(len(levers))
        return slopes

    # ---------------------------------------------------------------------------- worth
    def score(self, x: Floats) -> tuple[Floats, Floats]:
        """(expected score, its sd) at each row of `x`."""
        return self._score(*self.model.predict(x))

    def _score(self, mean: Floats, sd: Floats) -> tuple[Floats, Floats]:
        s = self.state.settings
        total = sum(s.weights[m] for m in weighted(s))
        e, var = np.zeros(len(mean)), np.zeros(len(mean))
        for k, m in enumerate(self.metrics[: len(weighted(s))]):
            at = (mean[:, k, None] + sd[:, k, None] * NODES) * self.unit[k]
            got = _attained(s.targets[m].max, s.targets[m].min, s.targets[m].scale, at)
            share = s.weights[m] / total
            first = got @ MASSES
            e += share * first
            var += share**2 * np.maximum((got**2) @ MASSES - first**2, 0.0)
        return e, np.sqrt(var)

    def p_hard(self, x: Floats) -> Floats:
        """The chance, at each row of `x`, that some hard limit is broken (a margin before it)."""
        return self._p_hard(*self.model.predict(x)) if self.state.settings.hard else np.zeros(len(x))

    def _p_hard(self, mean: Floats, sd: Floats) -> Floats:
        s = self.state.settings
        worst = np.zeros(len(mean))
        for m, limit in s.hard.items():
            if m not in self.metrics:
                continue
            k = self.metrics.index(m)
            margin, unit = HARD_MARGIN * s.targets[m].scale, self.unit[k]
            wide = np.hypot(sd[:, k], self.swing[k])
            if limit.max is not None:
                worst = np.maximum(worst, ndtr((mean[:, k] - (limit.max - margin) / unit) / wide))
            if limit.min is not None:
                worst = np.maximum(worst, ndtr(((limit.min + margin) / unit - mean[:, k]) / wide))
        return worst

    @cached_property
    def optimism(self) -> float:
        young = float(np.exp(-self.model.segment_age / OPTIMISM_CYCLES))
        return OPTIMISM + OPTIMISM_START * max(young, min(1.0, self.fallen / FALL))

    @cached_property
    def fallen(self) -> float:
        """How far the score lies below its best of this segment, beyond what chance and a try explain."""
        known = self._scores[self.model.windows.segment == self.model.now[1]]
        if len(known) < 3:
            return 0.0
        runs = np.convolve(known, np.ones(3) / 3, mode="valid")
        e, _ = self.score(self.here[None, :])
        return max(0.0, float(runs.max() - e[0]) - FALL_FREE)

    @cached_property
    def _scores(self) -> Floats:
        """The score of what was seen in each window."""
        s, total = self.state.settings, 0.0
        score = np.zeros(len(self.seen))
        for m, mean in zip(weighted(s), self.means.T, strict=False):
            target = s.targets[m]
            score += s.weights[m] * _attained(target.max, target.min, target.scale, mean)
            total += s.weights[m]
        return score / total

    def worth(self, x: Floats) -> Floats:
        """Optimistic score less the cost of the way there; -inf where a hard limit may break."""
        at = self.model.predict(x)
        e, sd = self._score(*at)
        steps = np.ceil(np.abs(x - self.here) / self.lr - 1e-6).sum(axis=1)
        value = np.minimum(1.0, e + self.optimism * sd) - STEP_COST * steps
        return np.where((self._p_hard(*at) <= self.bearable) | (steps == 0), value, -np.inf)

    @cached_property
    def bearable(self) -> float:
        """The chance of breaking a hard limit that a place may have: little, or clearly less than staying.

        Else it would stay, for good, where staying is a risk and no single step leaves all of it behind.
        """
        return max(P_HARD, LESS_RISK * float(self.p_hard(self.here[None, :])[0]))

    # ---------------------------------------------------------------------------- where to
    @cached_property
    def limits(self) -> tuple[Floats, Floats]:
        """Lowest and highest value of each rule that bounds, loan, bars and blocks leave."""
        lo, hi = [], []
        for i, r in enumerate(self.rules):
            a, b = self.state.room.get(r.name, (r.min, r.max))
            if r.name in self.state.blocked and self.state.blocked[r.name].code not in PASSING:
                a = b = self.state.values[r.name]
            for bar in self.state.bars:
                if bar.rule == r.name:
                    a, b = (a, min(b, bar.beyond)) if bar.sign > 0 else (max(a, bar.beyond), b)
            span, here = r.max - r.min, float(self.here[i])
            lo.append(min(here, max(0.0, (a - r.min) / span)))
            hi.append(max(here, min(1.0, (b - r.min) / span)))
        return np.array(lo), np.array(hi)

    @cached_property
    def candidates(self) -> Floats:
        d = len(self.rules)
        near = [self.here]
        for i, size in product(range(d), [way * size for way in (-1.0, 1.0) for size in SIZES]):
            x = self.here.copy()
            x[i] += size * self.lr[i]
            near.append(x)
        lo, hi = self.limits
        if d <= 2:
            side = np.linspace(0, 1, GRID if d == 2 else 4 * GRID)
            far = np.array(list(product(*[side] * d)))
        else:
            best = self._best_seen
            cloud = spread(WIDE, d)
            far = np.concatenate(
                [cloud, self.here + (2 * cloud - 1) * NEAR, best + (2 * cloud - 1) * NEAR,
                 self._scans(self.here), self._scans(best)]
            )  # fmt: skip
        return np.asarray(np.clip(np.concatenate([np.array(near), far]), lo, hi))

    @cached_property
    def _best_seen(self) -> Floats:
        x = self.seen_x
        return np.asarray(x[int(np.argmax(self.worth(x)))])

    def _scans(self, origin: Floats) -> Floats:
        out = []
        for i in range(len(self.rules)):
            for v in np.linspace(0, 1, 9):
                x = origin.copy()
                x[i] = v
                out.append(x)
        return np.array(out)

    # ---------------------------------------------------------------------------- decide
    def decide(self) -> tuple[Proposal, ...] | Hold:
        """A step towards the best candidate if it is worth one; away from a hard limit first of all."""
        if not self.rules:
            return Hold(reasons=(Reason("hold.no_lever", {}),))
        risk = float(self.p_hard(self.here[None, :])[0])
        if risk > P_EMERGENCY:
            return self._away(risk)
        worth = self.worth(self.candidates)
        best = int(np.argmax(worth))
        gain = float(worth[best] - worth[0])
        if gain < ACT_GAIN:
            return self._probe() or self._stay(gain)
        return self._towards(self.candidates[best])

    def _probe(self) -> tuple[Proposal, ...] | None:
        """A first step of a rule that has not been moved in living memory, while a target is missed."""
        e, _ = self.score(self.here[None, :])
        if e[0] >= PROBE_BELOW:
            return None
        for i in np.argsort(-self.trust, kind="stable"):
            r = self.rules[i]
            if not self._untried(i):
                continue
            first = r.direction or (1 if self.here[i] < 0.5 else -1)
            for size, way in product(SIZES, (first, -first)):
                if self._allowed(i, way * size * r.lr):
                    new = self.state.new_value(r, way * size * r.lr)
                    mean, sd = self.model.predict(self._after([(i, new)])[None, :])
                    if self._p_hard(mean, FIRST_DOUBT * sd)[0] <= P_HARD:
                        return (self._proposal(i, new),)
        return None

    def _untried(self, i: int) -> bool:
        """Whether this rule has not moved in any window that is remembered."""
        return bool(np.ptp(np.append(self.seen_x[:, i], self.here[i])) < 1e-9)

    def _stay(self, gain: float) -> Hold:
        now = objective_score(self.state.settings, {m: _mean(self.state, m) for m in self.metrics})
        met = now is not None and now >= 1.0 - 1e-9
        if met:
            return Hold(
                reasons=(Reason("hold.targets_met", {"metrics": list(weighted(self.state.settings))}),)
            )
        return Hold(reasons=(_too_small(gain), *self._blocks))

    @property
    def _blocks(self) -> tuple[Reason, ...]:
        return tuple(self.state.blocked[r.name].reason for r in self.rules if r.name in self.state.blocked)

    def _allowed(self, i: int, step: float) -> bool:
        """Whether this step of this rule may be proposed, and is large enough to be worth an event."""
        rule = self.rules[i]
        if self.state.refusal(rule, step) is not None:
            return False
        moved = abs(self.state.new_value(rule, step) - self.state.values[rule.name])
        return moved >= SIZES[-1] * rule.lr * (1 - 1e-6)

    def _steps(self, target: Floats) -> list[tuple[int, float]]:
        """(rule, new value) of every allowed single step towards `target`, whole ones first."""
        out = []
        for size, (i, r) in product(SIZES, enumerate(self.rules)):
            far = (target[i] - self.here[i]) * (r.max - r.min)
            step = self._plain(i, size * float(np.clip(far, -r.lr, r.lr)), end=bool(abs(far) <= r.lr))
            if self._allowed(i, step):
                out.append((i, self.state.new_value(r, step)))
        return out

    def _plain(self, i: int, step: float, *, end: bool) -> float:
        """`step` in whole twentieths of lr, never longer: 0.33 → 0.314286 is no number to sign.

        A step that ends where the rule may go no further keeps its length.
        """
        lo, hi = self.limits
        there = float(self.here[i]) + step / (self.rules[i].max - self.rules[i].min)
        if end and min(abs(there - lo[i]), abs(there - hi[i])) < 1e-9:
            return step
        part = self.rules[i].lr / PARTS
        return float(np.trunc(step / part + np.sign(step) * 1e-6)) * part

    def _after(self, moves: Sequence[tuple[int, float]]) -> Floats:
        x = self.here.copy()
        for i, new in moves:
            x[i] = (new - self.rules[i].min) / (self.rules[i].max - self.rules[i].min)
        return x

    def _towards(self, target: Floats) -> tuple[Proposal, ...] | Hold:
        steps = self._steps(target)
        if not steps:
            return Hold(reasons=self._refusals(target))
        points = np.array([self._after([s]) for s in steps])
        mean, each = self.model.predict(points)
        e, sd = self._score(mean, each)
        news = np.array([UNTRIED * self.trust[i] if self._untried(i) else 0.0 for i, _ in steps])
        safe = self._p_hard(mean, each * self._doubt(steps)) <= self.bearable
        largest = {i: k for k, (i, _) in reversed(list(enumerate(steps))) if safe[k]}
        worth = e + self.optimism * sd + news
        order = sorted(largest.values(), key=lambda k: -float(worth[k]))
        if not order:
            hold = Hold(reasons=(Reason("hold.hard_near", {"limit": P_HARD, "unit": "chance"}),))
            return self._room(steps) or hold
        chosen = [steps[order[0]]]
        for k in order[1 : self.state.settings.max_concurrent_changes]:
            joint = self._after([*chosen, steps[k]])[None, :]
            if self.worth(joint)[0] > self.worth(self._after(chosen)[None, :])[0]:
                chosen.append(steps[k])
        return tuple(self._proposal(i, new) for i, new in chosen)

    def _doubt(self, steps: Sequence[tuple[int, float]]) -> Floats:
        """Times the sd of what each step does: more for a rule that was never moved. Shape: (steps, 1)."""
        return np.array([[FIRST_DOUBT if self._untried(i) else 1.0] for i, _ in steps])

    def _room(self, wanted: Sequence[tuple[int, float]]) -> tuple[Proposal, ...] | None:
        """A step of a known rule after which a wanted first step of an untried one is safe; None without.

        Next to a hard limit what is not known yet is too bold, and waiting teaches nothing about it.
        """
        firsts = [s for s in wanted if self._untried(s[0])]
        known = [s for s in self._any_steps() if not self._untried(s[0])]
        both = [(a, b) for a, b in product(known, firsts) if a[0] != b[0]]
        if not both:
            return None
        ways, ends = (np.array([self._after(m) for m in ms]) for ms in ([[a] for a, _ in both], both))
        mean, sd = self.model.predict(ends)
        safe = (self._p_hard(mean, FIRST_DOUBT * sd) <= P_HARD) & (self.p_hard(ways) <= P_HARD)
        if not safe.any():
            return None
        e, _ = self.score(ways)
        (i, new), (first, _) = both[int(np.argmax(np.where(safe, e, -np.inf)))]
        return (self._proposal(i, new, first=Reason("why.room", {"rule": self.rules[first].name})),)

    def _any_steps(self) -> list[tuple[int, float]]:
        """(rule, new value) of every allowed single step, whichever way."""
        return [
            s
            for i in range(len(self.rules))
            for side in (0.0, 1.0)
            for s in self._steps(np.where(np.arange(len(self.rules)) == i, side, self.here))
        ]

    def _refusals(self, target: Floats) -> tuple[Reason, ...]:
        found = [
            why
            for i, r in enumerate(self.rules)
            if abs(target[i] - self.here[i]) > 1e-9
            and (why := self.state.refusal(r, float(np.sign(target[i] - self.here[i])) * r.lr)) is not None
        ]
        return tuple(found) or (_too_small(0.0),)

    def _away(self, risk: float) -> tuple[Proposal, ...] | Hold:
        """The single step out of the risk that costs least, else the one that leaves least of it.

        Staying if that is safest.
        """
        home = self.scaled({**self.state.values, **self.state.anchor})
        steps = [*self._steps(home), *self._any_steps()]
        if steps:
            points = np.array([self._after([s]) for s in steps])
            risks, (e, _) = self.p_hard(points), self.score(points)
            out = np.where(risks <= P_HARD, 1.0 + e, -risks)
            i, new = steps[int(np.argmax(out))]
            if float(risks.min()) < risk:
                why = Reason("why.hard_near", {"observed": risk, "limit": P_EMERGENCY, "unit": "chance"})
                return (self._proposal(i, new, first=why),)
        return Hold(
            reasons=(Reason("hold.hard_near", {"observed": risk, "limit": P_HARD, "unit": "chance"}),)
        )

    # ---------------------------------------------------------------------------- in words
    def _proposal(self, i: int, new: float, first: Reason | None = None) -> Proposal:
        rule = self.rules[i]
        old = self.state.values[rule.name]
        mean, sd = self.model.step(self._after([(i, new)]))
        mean, sd = mean * self.unit, sd * self.unit
        helped = self._helps(mean)
        reasons = [*([first] if first is not None else []), self._off(self._wanting(mean))]
        n = sum(1 for lesson in self.state.lessons if lesson.rule == rule.name and lesson.step)
        k = self.metrics.index(helped)
        believed = {
            "rule": rule.name, "step": new - old, "metric": helped, "observed": float(mean[k]),
            "half": float(Z95 * sd[k]), "n": n,
        }  # fmt: skip
        reasons.append(Reason("why.believes" if n else "why.expects", believed))
        e, score_sd = self._gain(mean, sd)
        sure = float(ndtr(e / max(score_sd, 1e-12)))
        reasons.append(
            Reason(
                "why.gain" if sure >= SURE else "why.explores",
                {"observed": _points(e), "half": _points(Z95 * score_sd), "unit": "points", "p": sure},
            )
        )
        expected = {
            m: (float(mean[j]), float(mean[j] - Z95 * sd[j]), float(mean[j] + Z95 * sd[j]))
            for j, m in enumerate(self.metrics)
        }
        return Proposal(
            rule=rule.name, old=old, new=new, reasons=tuple(reasons), expected=expected, confidence=sure
        )

    def _gained(self, m: str, mean: Floats) -> float:
        """What this expected change gives the score through one metric."""
        s, now = self.state.settings, _mean(self.state, m) or 0.0
        after = attainment(s.targets[m], now + float(mean[self.metrics.index(m)])) or 0.0
        return s.weights[m] * (after - (attainment(s.targets[m], now) or 0.0))

    def _helps(self, mean: Floats) -> str:
        """The metric of the score that this step is expected to help most."""
        return max(weighted(self.state.settings), key=lambda m: self._gained(m, mean))

    def _wanting(self, mean: Floats) -> str:
        """The metric off target for which this step is made; else the one that it helps most."""
        s = self.state.settings
        missed = {m: 1.0 - (attainment(s.targets[m], _mean(self.state, m)) or 0.0) for m in weighted(s)}
        off = [m for m in missed if missed[m] > 0]
        if not off:
            return self._helps(mean)
        best = max(off, key=lambda m: self._gained(m, mean))
        return best if self._gained(best, mean) > 0 else max(off, key=lambda m: s.weights[m] * missed[m])

    def _off(self, metric: str) -> Reason:
        target, stat = self.state.settings.targets[metric], self.state.windows[metric]
        mean = stat.mean if stat.mean is not None else 0.0
        over = target.max is not None and mean > target.max
        under = target.min is not None and mean < target.min
        limit = target.max if over or (target.max is not None and not under) else target.min
        code = "why.off_target" if over or under else "why.near_target"
        return Reason(
            code,
            {
                "metric": metric, "observed": mean, "limit": limit,
                "side": "max" if limit == target.max else "min", "n": stat.n, "se": stat.se,
            },
        )  # fmt: skip

    def _gain(self, mean: Floats, sd: Floats) -> tuple[float, float]:
        """Expected score gain of a step from the present means, and its sd."""
        s = self.state.settings
        total = sum(s.weights[m] for m in weighted(s))
        e = var = 0.0
        for k, m in enumerate(weighted(s)):
            now, target = _mean(self.state, m) or 0.0, s.targets[m]
            at = now + mean[k] + sd[k] * NODES
            got = _attained(target.max, target.min, target.scale, at) - (attainment(target, now) or 0.0)
            first = float(got @ MASSES)
            e += s.weights[m] / total * first
            var += (s.weights[m] / total) ** 2 * max(float(got**2 @ MASSES) - first**2, 0.0)
        return e, float(np.sqrt(var))


def _attained(high: float | None, low: float | None, scale: float, at: Floats) -> Floats:
    """The attainment of a target at many values."""
    over = np.maximum(0.0, at - high) if high is not None else np.zeros_like(at)
    under = np.maximum(0.0, low - at) if low is not None else np.zeros_like(at)
    return np.asarray(np.maximum(0.0, 1.0 - np.maximum(over, under) / scale))


def spread(n: int, d: int) -> Floats:
    """`n` points evenly spread in the unit cube: a Kronecker sequence. Source: M. Roberts' R_d."""
    root = 1.5
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (d + 1))
    steps = root ** -np.arange(1, d + 1)
    return np.asarray(np.mod(0.5 + np.arange(n)[:, None] * steps, 1.0))


def _points(score: float) -> float:
    return round(100 * score, 2)


def _too_small(gain: float) -> Reason:
    params = {"observed": _points(max(0.0, gain)), "limit": _points(ACT_GAIN), "unit": "points"}
    return Reason("hold.gain_small", params)


def _mean(state: PolicyState, metric: str) -> float | None:
    stat = state.windows.get(metric)
    return stat.mean if stat is not None else None


def _no_data(state: PolicyState, metric: str) -> Reason:
    stat = state.windows.get(metric)
    n, least = (stat.n if stat else 0), state.settings.min_samples
    return Reason("hold.no_data", {"metric": metric, "observed": n, "limit": least, "unit": "samples"})
