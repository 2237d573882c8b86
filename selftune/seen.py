"""What was seen at those rule values: the simplest model of the system, until one is learned.

Answers `predict(values)`: mean and standard deviation of each metric there, from quiet windows at
the same values in the same regime; None where nothing was seen. Pure. Any later model keeps this face.
Source: loop.md («the model»), issue 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

import numpy as np
from scipy.special import ndtr

from selftune.config import Settings
from selftune.judging import QuietWindow
from selftune.objective import objective_score

LATEST = 5  # windows of one place that speak for it: older ones are drift
SAFE_SHARE = 0.05  # loop.md: P(hard limit) at home at most 5 %, or what it is here
JUMP_SUM = 18.0  # policy.md: sum of min(|z|, 6)^2 over the metrics ...
JUMP_CAP = 6.0
JUMP_HITS = 2  # ... in two of the last three windows
JUMP_WINDOWS = 3
FIRST, LAST, FALL_SDS = 5, 3, 3.0  # windows that are compared for a fall of the score; of their spread
JUMP_REST = 6  # windows since the last regime


@dataclass(frozen=True)
class Seen:
    """Quiet windows as a model. `regime` is the present one; windows of others do not count."""

    windows: Sequence[QuietWindow]
    regime: int
    settings: Settings

    @cached_property
    def _here(self) -> tuple[QuietWindow, ...]:
        return tuple(w for w in self.windows if w.regime == self.regime)

    def at(self, values: Mapping[str, float]) -> tuple[QuietWindow, ...]:
        """Windows of this regime at these values, oldest first."""
        return tuple(w for w in self._here if _same(w.values, values))

    @cached_property
    def drift_sd(self) -> Mapping[str, float]:
        """Per metric, how far adjacent windows at equal values lie apart: RMS difference over sqrt 2."""
        sums: dict[str, list[float]] = {}
        for a, b in zip(self._here, self._here[1:], strict=False):
            if not _same(a.values, b.values):
                continue
            for m in self.settings.metrics:
                x, y = a.stats[m].mean, b.stats[m].mean
                if x is not None and y is not None:
                    sums.setdefault(m, []).append((y - x) ** 2 / 2)
        return {m: sqrt(sum(v) / len(v)) for m, v in sums.items() if len(v) >= 3}

    def predict(self, values: Mapping[str, float]) -> dict[str, tuple[float, float]] | None:
        """Mean and sd of each metric at `values`, from the latest windows there; None if never seen."""
        there = self.at(values)[-LATEST:]
        found = {}
        for m in self.settings.metrics:
            stats = [w.stats[m] for w in there if w.stats[m].mean is not None]
            if not stats:
                continue
            means = [s.mean for s in stats if s.mean is not None]
            mean = sum(means) / len(means)
            noise = max((s.se or 0.0) for s in stats)
            found[m] = (mean, sqrt(noise**2 + self.drift_sd.get(m, noise) ** 2))
        return found or None

    def p_hard(self, values: Mapping[str, float]) -> float | None:
        """Chance that some hard limit is broken at `values`; None if unknown there."""
        if not self.settings.hard:
            return 0.0
        seen = self.predict(values)
        if seen is None:
            return None
        worst = 0.0
        for m, limit in self.settings.hard.items():
            if m not in seen:
                continue
            mean, sd = seen[m]
            sd = max(sd, 1e-12)
            if limit.max is not None:
                worst = max(worst, float(ndtr((mean - limit.max) / sd)))
            if limit.min is not None:
                worst = max(worst, float(ndtr((limit.min - mean) / sd)))
        return worst

    def safe_home(self, home: Mapping[str, float], here: Mapping[str, float]) -> tuple[bool, float | None]:
        """Whether going home is safe: P(hard) there at most 5 %, or at most what it is here.

        A home that was never seen in this regime is judged safe: nothing speaks against it.
        """
        p_home = self.p_hard(home)
        if p_home is None or p_home <= SAFE_SHARE:
            return True, p_home
        p_here = self.p_hard(here)
        return p_here is not None and p_home <= p_here, p_home

    def fallen(self, since_ms: float, until_ms: float = inf) -> float:
        """How far the score of the last windows of a time lies below that of the first ones.

        0 where chance and drift may be all there is: less than three times the spread about the trend.
        """
        during = [w for w in self._here if since_ms <= w.start_ms and w.end_ms <= until_ms]
        means = [{m: s.mean for m, s in w.stats.items()} for w in during]
        scores = [x for w in means if (x := objective_score(self.settings, w)) is not None]
        if len(scores) < FIRST + LAST:
            return 0.0
        t = np.arange(len(scores))
        off = np.array(scores) - np.polyval(np.polyfit(t, scores, 1), t)
        sd = sqrt(float(off @ off) / (len(scores) - 2))
        fall = sum(scores[:FIRST]) / FIRST - sum(scores[-LAST:]) / LAST
        return fall if fall > FALL_SDS * sd else 0.0

    def jumped(self, values: Mapping[str, float]) -> tuple[int, float] | None:
        """Start and size of a jump of the response at unchanged values, None without one.

        Each of the last three windows is compared with what the windows before them at the same
        values lead one to expect; only windows whose predecessor had the same values count.
        """
        run = self._run(values)
        if len(run) < JUMP_REST + JUMP_WINDOWS:
            return None
        recent, past = run[-JUMP_WINDOWS:], run[:-JUMP_WINDOWS][-4 * LATEST :]
        sums = [self._surprise(w, past) for w in recent]
        hits = [i for i, s in enumerate(sums) if s > JUMP_SUM]
        if len(hits) < JUMP_HITS:
            return None
        return recent[hits[0]].start_ms, max(sums)

    def _run(self, values: Mapping[str, float]) -> list[QuietWindow]:
        """The newest unbroken run of windows of this regime at these values."""
        run: list[QuietWindow] = []
        for w in reversed(self._here):
            if not _same(w.values, values):
                break
            run.append(w)
        return run[::-1]

    def _surprise(self, window: QuietWindow, past: Sequence[QuietWindow]) -> float:
        total = 0.0
        for m in self.settings.metrics:
            x = window.stats[m].mean
            xs = [mean for w in past if (mean := w.stats[m].mean) is not None]
            if x is None or len(xs) < JUMP_REST:
                continue
            level = sorted(xs)[len(xs) // 2]
            # spread about the level, drift inside; never below the window's own error
            spread = sqrt(
                sum((y - level) ** 2 for y in xs) / (len(xs) - 1) + (window.stats[m].se or 0.0) ** 2
            )
            total += min(abs(x - level) / max(spread, 1e-12), JUMP_CAP) ** 2
        return total


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return all(abs(a[k] - b[k]) < 1e-9 for k in a if k in b)
