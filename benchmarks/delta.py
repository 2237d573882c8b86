"""How good is Δ? Four estimators on synthetic, mock and real series, with and without an effect.

    python -m benchmarks.delta --quick            # a few minutes
    python -m benchmarks.delta --seed 9001        # the table of docs/method.md

Every event gets four copies of its series: no effect, +1, +2 and -1 noise-sd, the step arriving
with a lag drawn from 5-20 s. *Noise-sd* is the standard deviation of the 1 s means of the 600 s
before the event about their straight line. Reported per estimator: false alarms (no effect, 95 %
interval without 0), coverage of the true step, power, median interval width, bias, CPU per event,
and what the one-look rule would do. The seed used while developing was 1; the tables use others.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import stdtr, stdtrit

from selftune.config import ExcursionBudget, Governance, Settings
from selftune.domain import Confirm, DataState, PolicyName, Target
from selftune.effects import measure
from selftune.series import Series

Floats = NDArray[np.float64]

RATE_HZ, H, R, W = 5, 600, 90, 20
STEPS = {"none": 0.0, "plus1": 1.0, "plus2": 2.0, "minus1": -1.0}
LAGS_S = (5.0, 20.0)
GOOD_SD = 0.5
HOST = Path(__file__).parent / "out" / "host.csv"


def settings() -> Settings:
    """The defaults, with the four copies of one series as metrics."""
    return Settings(
        targets={name: Target(metric=name, max=0.0) for name in STEPS},
        rules={},
        weights={},
        good={},
        warn={},
        phase_bad=None,
        hard={},
        dry_run=True,
        max_concurrent_changes=1,
        policy=PolicyName.NONE,
        auto_rollback=True,
        confirm=Confirm.STANDARD,
        excursion=ExcursionBudget(),
        rollback_limit=3,
        proposal_ttl_s=600,
        resolution=6,
        observe_window_s=R,
        min_samples=120,
        cooldown_s=120,
        settle_s=W,
        history_s=H,
        timezone="UTC",
        language="en",
        rate_hz=RATE_HZ,
        max_age_s=5,
        metrics_source="",
        governance=Governance(),
        retention_days=None,
        digest="",
    )


# ----------------------------------------------------------------------------- series
@dataclass(frozen=True)
class Event:
    """H + R seconds at 5 Hz (fewer before the event where a record is young); bin 0 starts at t = 0."""

    group: str
    values: Floats
    before: int  # samples before the event
    decimals: int | None = None
    low: float | None = None
    high: float | None = None


def ar1(rng: np.random.Generator, phi: float, n: int) -> Floats:
    """A stationary AR(1) of sd 1."""
    noise = rng.normal(size=n) * np.sqrt(1 - phi * phi)
    noise[0] = rng.normal()
    return np.asarray(lfilter([1.0], [1.0, -phi], noise))


def synthetic(rng: np.random.Generator, count: int) -> Iterator[Event]:
    """AR(1), phi .5-.99 on samples (fast) or on seconds (slow), + 0.2 Hz sine + drift, half of each."""
    n = (H + R) * RATE_HZ
    t = np.arange(n) / RATE_HZ
    for i in range(count):
        phi = 1 - np.exp(rng.uniform(np.log(0.01), np.log(0.5)))
        slow = i % 2 == 1
        y = ar1(rng, phi ** (1 / RATE_HZ) if slow else phi, n)
        if rng.random() < 0.5:
            y += rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * (0.2 * t + rng.random()))
        if rng.random() < 0.5:
            y += rng.uniform(-2, 2) * t / H
        yield Event("AR(1) per second" if slow else "AR(1) per sample", y, H * RATE_HZ)


def mock(rng: np.random.Generator, count: int) -> Iterator[Event]:
    """The family's mock, cut 200-1,200 s after its start; young records have less history."""
    for i in range(count):
        start = rng.uniform(200, 1200)
        before = int(min(start, H) * RATE_HZ)
        t = start + np.arange(-before, R * RATE_HZ) / RATE_HZ
        shapes: tuple[tuple[Floats, float], ...] = (
            (0.5 * (1 + np.sin(0.4 * np.pi * t)) * np.exp(-t / 120), 0.02),
            (0.2 + 0.15 * np.exp(-t / 90), 0.01),
            (0.2 + 0.1 * (1 - np.exp(-t / 180)), 0.01),
            (0.4 * np.exp(-t / 150), 0.01),
        )
        level, noise = shapes[i % 4]
        y = np.clip(level + rng.uniform(-noise, noise, len(t)), 0, 1)
        yield Event("mock", y, before, decimals=3, low=0.0, high=1.0)


def slide(group: str, values: Floats, rng: np.random.Generator, every_s: int, limit: int) -> Iterator[Event]:
    """Events along one real record, about `every_s` apart, where its last 600 s move at all."""
    length, step = (H + R) * RATE_HZ, every_s * RATE_HZ
    start = int(rng.integers(0, step))
    places = np.arange(start, len(values) - length + 1, step)
    if len(places) > limit:
        places = np.sort(rng.choice(places, limit, replace=False))
    for a in places:
        part = values[a : a + length]
        bins = part[: H * RATE_HZ].reshape(-1, RATE_HZ).mean(axis=1)
        if len(np.unique(bins)) >= 20:
            yield Event(group, part, H * RATE_HZ)


def host(rng: np.random.Generator, limit: int) -> Iterator[Event]:
    """Counters of a real host at 5 Hz, recorded by benchmarks/record_host.py; none without the file."""
    if not HOST.exists():
        return
    lines = HOST.read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    rows = [line.split(",") for line in lines[1:]]
    table = np.array([r for r in rows if len(r) == len(names)], dtype=float)
    ts = np.arange(table[0, 0], table[-1, 0], 1000 / RATE_HZ)
    # the grid: the next row that was written
    at = np.clip(np.searchsorted(table[:, 0], ts), 0, len(table) - 1)
    for i in range(1, len(names)):
        yield from slide("host counters", table[at, i], rng, 300, limit)


def packaged(rng: np.random.Generator, limit: int) -> Iterator[Event]:
    """Real series carried by packages: one observation a second (short ones stretched by lines)."""
    found: list[tuple[str, Floats]] = []
    from statsmodels.datasets import co2, elnino, macrodata, nile, sunspots

    found.append(("co2", co2.load_pandas().data["co2"].interpolate().to_numpy(float)))
    found.append(("elnino", elnino.load_pandas().data.iloc[:, 1:].to_numpy(float).ravel()))
    found.append(("sunspots", sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(float)))
    found.append(("nile", nile.load_pandas().data["volume"].to_numpy(float)))
    found += [(c, macrodata.load_pandas().data[c].to_numpy(float)) for c in ("unemp", "infl", "tbilrate")]
    try:
        from vega_datasets import local_data as vega
    except ImportError:
        pass
    else:
        found.append(("sf temperatures", vega.sf_temps()["temp"].to_numpy(float)))
        found.append(("seattle temperatures", vega.seattle_temps()["temp"].to_numpy(float)))
        weather = vega.seattle_weather()
        found += [(c, weather[c].to_numpy(float)) for c in ("temp_max", "temp_min", "wind", "precipitation")]
    for _, series in found:
        stretch = max(1, int(np.ceil(1500 / len(series))))
        seconds = np.interp(np.arange(len(series) * stretch) / stretch, np.arange(len(series)), series)
        # within a second the sensor repeats itself: nothing is invented between observations
        yield from slide("packaged records", np.repeat(seconds, RATE_HZ), rng, 100, limit)


# ----------------------------------------------------------------------------- copies with steps
def noise_sd(event: Event) -> float:
    """Sd of the history's 1 s means about their line."""
    whole = event.before // RATE_HZ
    bins = event.values[event.before - whole * RATE_HZ : event.before].reshape(-1, RATE_HZ).mean(axis=1)
    t = np.arange(whole)
    line = np.polynomial.polynomial.polyval(t, np.polynomial.polynomial.polyfit(t, bins, 1))
    return float(np.std(bins - line))


def clip(event: Event, values: Floats) -> Floats:
    """`values` as far as the metric's range lets them."""
    if event.low is None and event.high is None:
        return values
    return np.asarray(np.clip(values, event.low, event.high))


def copies(event: Event, sd: float, lag_s: float) -> dict[str, Floats]:
    """The event's samples with each of the steps, written as the record writes (clipped, rounded)."""
    t = np.maximum(0.0, (np.arange(len(event.values)) - event.before + 0.5) / RATE_HZ)
    shape = 1 - np.exp(-t / lag_s)
    moved = {name: clip(event, event.values + size * sd * shape) for name, size in STEPS.items()}
    if event.decimals is None:
        return moved
    return {name: np.round(y, event.decimals) for name, y in moved.items()}


def truths(event: Event, sd: float) -> dict[str, float]:
    """What each step is worth once arrived, on average after the washout: a clipped one is less."""
    late = event.values[event.before + W * RATE_HZ :]
    return {name: float((clip(event, late + size * sd) - late).mean()) for name, size in STEPS.items()}


# ----------------------------------------------------------------------------- estimators
@dataclass(frozen=True)
class Answer:
    """Estimate, scale, degrees of freedom and 95 % interval."""

    delta: float
    sigma: float
    nu: float
    lo: float
    hi: float

    def above(self, limit: float) -> float:
        """P(true Δ > limit)."""
        if self.sigma <= 0:
            return float(self.delta > limit)
        return float(stdtr(self.nu, (self.delta - limit) / self.sigma))


def _answer(delta: float, se: float, nu: float) -> Answer:
    half = float(stdtrit(nu, 0.975)) * se
    return Answer(delta, se, nu, delta - half, delta + half)


Estimator = Callable[[dict[str, Floats], int], dict[str, Answer | None]]


def ours(data: dict[str, Floats], before: int) -> dict[str, Answer | None]:
    """selftune.effects.measure."""
    n = len(next(iter(data.values())))
    ts = ((np.arange(n) - before) * (1000 // RATE_HZ) + 10_000_000).astype(np.int64)
    effect = measure(
        Series(ts_ms=ts, values=data),
        SETTINGS,
        event_ms=10_000_000,
        keys=("e",),
        others_ms=(),
        now_ms=10_000_000 + R * 1000,
    )
    out: dict[str, Answer | None] = {}
    for name, m in effect.metrics.items():
        if m.state is DataState.CONSTANT:
            out[name] = Answer(0.0, 0.0, 2.0, 0.0, 0.0)
        elif m.delta is None or m.sigma is None or m.nu is None or m.lo is None or m.hi is None:
            out[name] = None
        else:
            out[name] = Answer(m.delta, m.sigma, m.nu, m.lo, m.hi)
    return out


def welch(data: dict[str, Floats], before: int) -> dict[str, Answer | None]:
    """Post mean - pre mean over 90 s, Welch's t on the samples: what the seed's Δ amounts to."""
    out: dict[str, Answer | None] = {}
    for name, y in data.items():
        a, b = y[before - R * RATE_HZ : before], y[before + W * RATE_HZ :]
        va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        if va + vb <= 0:
            out[name] = Answer(float(b.mean() - a.mean()), 0.0, 2.0, 0.0, 0.0)
            continue
        nu = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
        out[name] = _answer(float(b.mean() - a.mean()), float(np.sqrt(va + vb)), float(nu))
    return out


def _windows(y: Floats, before: int, pre_s: int) -> Floats:
    """1 s means from `pre_s` before to R after the event."""
    return np.asarray(y[before - pre_s * RATE_HZ :].reshape(-1, RATE_HZ).mean(axis=1))


def newey_west(data: dict[str, Floats], before: int) -> dict[str, Answer | None]:
    """Regression on constant and step with a HAC error (Bartlett, 4 (n/100)^(2/9) lags), washout left out."""
    import statsmodels.api as sm

    out: dict[str, Answer | None] = {}
    for name, y in data.items():
        bins = np.delete(_windows(y, before, R), np.s_[R : R + W])
        step = (np.arange(len(bins)) >= R).astype(float)
        lags = int(4 * (len(bins) / 100) ** (2 / 9))
        fit = sm.OLS(bins, sm.add_constant(step)).fit(cov_type="HAC", cov_kwds={"maxlags": lags})
        out[name] = _answer(float(fit.params[1]), float(fit.bse[1]), 1e6)
    return out


def unobserved(data: dict[str, Floats], before: int) -> dict[str, Answer | None]:
    """statsmodels UnobservedComponents: local level + step, washout missing, on all the history there is."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    out: dict[str, Answer | None] = {}
    pre = before // RATE_HZ
    for name, y in data.items():
        bins = _windows(y, before, pre).copy()
        bins[pre : pre + W] = np.nan
        step = (np.arange(len(bins)) >= pre).astype(float)
        scale = float(np.nanstd(bins)) or 1.0
        centre = float(np.nanmean(bins))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit = UnobservedComponents((bins - centre) / scale, "local level", exog=step).fit(
                    disp=False, maxiter=100, cov_type="oim"
                )
            delta, se = float(fit.params[-1]) * scale, float(fit.bse[-1]) * scale
            out[name] = _answer(delta, se, 1e6) if np.isfinite(se) and se > 0 else None
        except (np.linalg.LinAlgError, ValueError):
            out[name] = None
    return out


ESTIMATORS: dict[str, Estimator] = {
    "naive Δ (Welch)": welch,
    "Newey-West": newey_west,
    "UnobservedComponents": unobserved,
    "placebo contrast (ours)": ours,
}
SETTINGS = settings()


# ----------------------------------------------------------------------------- figures
@dataclass
class Tally:
    """Sums over events; a copy without an answer counts as no alarm, not covered, not seen."""

    events: int = 0
    answers: int = 0
    copies: int = 0
    cpu_s: float = 0.0
    alarms: int = 0
    covered: int = 0
    power1: int = 0
    power2: int = 0
    confirm0: int = 0
    confirm_minus: int = 0
    confirm1: int = 0
    confirm2: int = 0
    back1: int = 0
    back2: int = 0

    def __post_init__(self) -> None:
        self.widths: list[float] = []
        self.errors: list[float] = []

    def add(self, answers: dict[str, Answer | None], true: dict[str, float], sd: float, cpu_s: float) -> None:
        self.events += 1
        self.cpu_s += cpu_s
        for name, size in STEPS.items():
            self.copies += 1
            a = answers[name]
            if a is None:
                continue
            self.answers += 1
            seen = not a.lo <= 0 <= a.hi
            confirm = a.above(0) >= 0.95 and a.delta >= GOOD_SD * sd
            back = a.above(GOOD_SD * sd) <= 0.10 or 1 - a.above(0) >= 0.90
            if name == "none":
                self.alarms += seen
                self.confirm0 += confirm
                self.widths.append((a.hi - a.lo) / sd)
            else:
                self.covered += a.lo <= true[name] <= a.hi
                self.errors.append(np.sign(size) * (a.delta - true[name]) / sd)
            if name == "plus1":
                self.power1 += seen and a.delta > 0
                self.confirm1 += confirm
                self.back1 += back
            if name == "plus2":
                self.power2 += seen and a.delta > 0
                self.confirm2 += confirm
                self.back2 += back
            if name == "minus1":
                self.confirm_minus += confirm

    def row(self) -> list[str]:
        n = max(1, self.events)

        def share(k: int) -> str:
            return f"{100 * k / n:.1f}"

        return [
            str(self.events),
            f"{100 * self.answers / max(1, self.copies):.0f}",
            share(self.alarms),
            f"{100 * self.covered / (3 * n):.1f}",
            f"{share(self.power1)} / {share(self.power2)}",
            f"{np.median(self.widths) if self.widths else np.nan:.2f}",
            f"{np.median(self.errors) if self.errors else np.nan:+.2f}",
            f"{share(self.confirm0)} / {share(self.confirm_minus)}",
            f"{share(self.back1)} / {share(self.back2)}",
            f"{share(self.confirm1)} / {share(self.confirm2)}",
            f"{1000 * self.cpu_s / n:.1f}",
        ]


HEAD = [
    "series",
    "estimator",
    "events",
    "answered %",
    "false alarms %",
    "coverage %",
    "power at 1 / 2 sd %",
    "median width, sd",
    "median bias, sd",
    "false confirm at 0 / -1 sd %",
    "false return at +1 / +2 sd %",
    "confirmed at +1 / +2 sd %",
    "CPU ms / event",
]


def run(events: Iterator[Event], rng: np.random.Generator, names: list[str]) -> dict[tuple[str, str], Tally]:
    """Every estimator on every event. The result is keyed by (group, estimator)."""
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for event in events:
        lag_s = float(rng.uniform(*LAGS_S))
        sd = noise_sd(event)
        if not sd > 0:
            continue
        data, true = copies(event, sd, lag_s), truths(event, sd)
        for name in names:
            start = time.process_time()
            answers = ESTIMATORS[name](data, event.before)
            cpu = time.process_time() - start
            tallies[event.group, name].add(answers, true, sd, cpu)
            real = event.group in ("host counters", "packaged records")
            tallies["ALL REAL" if real else "ALL MADE", name].add(answers, true, sd, cpu)
    return tallies


def all_events(seed: int, per_group: int, groups: str) -> Iterator[Event]:
    """Held-out or development events, the same for the same seed and recording."""
    if groups in ("all", "made"):
        yield from synthetic(np.random.default_rng([seed, 1]), 2 * per_group)
        yield from mock(np.random.default_rng([seed, 2]), per_group)
    if groups in ("all", "real", "host"):
        yield from host(np.random.default_rng([seed, 3]), max(2, per_group // 12))
    if groups in ("all", "real", "packaged"):
        yield from packaged(np.random.default_rng([seed, 4]), max(2, per_group // 8))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=9001)
    parser.add_argument("--events", type=int, default=240, help="events a group of series")
    parser.add_argument("--quick", action="store_true", help="40 events a group")
    parser.add_argument("--groups", choices=("all", "made", "real", "host", "packaged"), default="all")
    parser.add_argument("--only-ours", action="store_true", help="leave the peers out")
    args = parser.parse_args()
    names = [n for n in ESTIMATORS if n.endswith("(ours)") or not args.only_ours]
    for name in names:  # imports and first calls are not an estimator's cost
        ESTIMATORS[name](copies(next(synthetic(np.random.default_rng(0), 1)), 1.0, 10.0), H * RATE_HZ)
    events = all_events(args.seed, 40 if args.quick else args.events, args.groups)
    tallies = run(events, np.random.default_rng([args.seed, 5]), names)
    print("| " + " | ".join(HEAD) + " |")
    print("|" + " --- |" * len(HEAD))
    for (group, name), tally in sorted(tallies.items(), key=lambda item: item[0][0]):
        print("| " + " | ".join([group, name, *tally.row()]) + " |")


if __name__ == "__main__":
    main()
