"""How often the early-harm watch aborts by mistake, and how fast it sees real harm.

False aborts a change on synthetic metrics without effect (several noises, 0.2 Hz ripple, drift up to
.01 a window), and the median time from the event to the abort for +0.05 on risk_band, beside a plain
moving mean whose threshold is tuned to 1 % false aborts on the same noise in the same run.

    python benchmarks/harm.py [--quick] [--seed N]
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from scipy.signal import lfilter

from selftune.config import Settings, parse
from selftune.harm import early_harm
from selftune.series import Series

RATE, HISTORY, WINDOW, EVENT_MS = 5, 600, 90, 1_750_000_000_000
METRICS = {"phase_diff": 0.06, "creative_band": 0.23, "risk_band": 0.31, "entropy_rate": 0.29}
BAD = {"phase_diff": 1, "creative_band": -1, "risk_band": 1, "entropy_rate": 1}
STEP, LAG = 0.05, 5.0

# name, correlation (s), sd, drift a window, shape of the drift, ripple
QUIET = [
    ("white .01", 0.05, 0.01, 0.0, "line", 0.0),
    ("1 s .01", 1.0, 0.01, 0.0, "line", 0.0),
    ("1 s .01, drift .01", 1.0, 0.01, 0.01, "line", 0.0),
    ("2 s .02, drift .01", 2.0, 0.02, 0.01, "line", 0.0),
    ("2 s .03, ripple .05", 2.0, 0.03, 0.0, "line", 0.05),
    ("1 s .003, drift .01, ripple .02", 1.0, 0.003, 0.01, "line", 0.02),
    ("10 s .01", 10.0, 0.01, 0.0, "line", 0.0),
    ("10 s .02, drift .01", 10.0, 0.02, 0.01, "line", 0.0),
    ("30 s .01", 30.0, 0.01, 0.0, "line", 0.0),
    ("1 s .01, slow wave .01", 1.0, 0.01, 0.01, "wave", 0.0),
    ("1 s .01, random walk .005", 1.0, 0.01, 0.005, "walk", 0.0),
]
HARM = [("1 s .01", 1.0, 0.01, 15), ("2 s .02", 2.0, 0.02, 22), ("2 s .03", 2.0, 0.03, 40)]


def shipped() -> Settings:
    """The shipped settings."""
    path = Path(__file__).resolve().parent.parent / "configs" / "self_tuning.yaml"
    return parse(path.read_bytes())


def metric(
    rng: np.random.Generator,
    level: float,
    bad: int,
    tau: float,
    sd: float,
    drift: float,
    shape: str,
    ripple: float,
) -> np.ndarray:
    """One metric over history and window at 5 Hz, three decimals; drift runs in the bad direction."""
    n, warm = (HISTORY + WINDOW) * RATE, 50 * RATE
    phi = math.exp(-1 / (RATE * tau))
    x = lfilter([1], [1, -phi], rng.standard_normal(n + warm) * sd * math.sqrt(1 - phi**2))[warm:]
    t = (np.arange(n) + 0.5) / RATE - HISTORY
    slope = drift / WINDOW
    if shape == "line":
        x = x + bad * slope * t
    elif shape == "wave":  # period 15 min, steepest at `drift` a window
        x = x + slope * 900 / (2 * math.pi) * np.sin(2 * math.pi * t / 900 + rng.uniform(0, 2 * math.pi))
    else:
        x = x + np.cumsum(rng.standard_normal(n)) * drift / math.sqrt(WINDOW * RATE)
    x = x + ripple * np.sin(2 * math.pi * 0.2 * t + rng.uniform(0, 2 * math.pi))
    return np.round(level + x, 3)


def change(rng: np.random.Generator, case: tuple, step: float = 0.0) -> Series:
    """All four metrics around one event, with `step` of harm on risk_band behind a 5 s lag."""
    n = (HISTORY + WINDOW) * RATE
    ts = EVENT_MS - HISTORY * 1000 + np.arange(n, dtype=np.int64) * (1000 // RATE)
    values = {m: metric(rng, METRICS[m], BAD[m], *case[1:]) for m in METRICS}
    t = np.maximum(0.0, (ts - EVENT_MS) / 1000)
    values["risk_band"] = np.round(values["risk_band"] + step * (1 - np.exp(-t / LAG)), 3)
    return Series(ts_ms=ts, values=values)


def abort_s(series: Series, settings: Settings, looks: list[int]) -> float:
    """Seconds after the event at which the watch aborts, inf if it never does."""
    for s in looks:
        if early_harm(series.between(0, EVENT_MS + s * 1000), settings, event_ms=EVENT_MS,
                      now_ms=EVENT_MS + s * 1000, others_ms=[]).harmed:  # fmt: skip
            return float(s)
    return math.inf


def moving_mean(series: Series, seconds: int) -> np.ndarray:
    """Bad movement of the last `seconds` against the 30 s before the event; worst metric, each second."""
    worst = np.full(WINDOW + 1, -np.inf)
    for m, bad in BAD.items():
        x = series.values[m]
        total = np.concatenate(([0.0], np.cumsum(x)))
        ends = (HISTORY + np.arange(seconds, WINDOW + 1)) * RATE
        mean = (total[ends] - total[ends - seconds * RATE]) / (seconds * RATE)
        before = x[(HISTORY - 30) * RATE : HISTORY * RATE].mean()
        worst[seconds:] = np.maximum(worst[seconds:], bad * (mean - before))
    return worst


def plain_times(rng: np.random.Generator, case: tuple, n: int) -> list[float]:
    """Times of the plain moving mean: of four lengths the best, each tuned to 1 % on the same noise."""
    calm = [change(rng, case) for _ in range(4 * n)]
    harmed = [change(rng, case, STEP) for _ in range(n)]
    best: list[float] = []
    for seconds in (5, 10, 20, 30):
        limit = float(np.quantile([moving_mean(c, seconds).max() for c in calm], 0.99))
        times = []
        for h in harmed:
            over = np.flatnonzero(moving_mean(h, seconds) > limit)
            times.append(float(over[0]) if len(over) else math.inf)
        if not best or np.median(times) < np.median(best):
            best = times
    return best


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few changes: the numbers are rough")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    n_quiet, n_harm = (20, 15) if args.quick else (400, 150)
    settings, rng = shipped(), np.random.default_rng(args.seed)
    every = list(range(5, WINDOW))
    # the watch answers the same between two looks after the settle time, so only the looks are asked
    looks = list(range(5, 20)) + list(range(20, WINDOW, 5))

    print(f"false aborts, {n_quiet} changes a row, four guarded metrics each (limit: 1 % a change in all)")
    total = hits = 0
    for case in QUIET:
        k = sum(abort_s(change(rng, case), settings, looks) < math.inf for _ in range(n_quiet))
        total, hits = total + n_quiet, hits + k
        print(f"  {case[0]:34s} {100 * k / n_quiet:6.2f} %", flush=True)
    print(f"  {'all':34s} {100 * hits / total:6.2f} %  ({hits} of {total})")

    print(
        "seconds from the event to the abort, +0.05 on risk_band, plant lag 5 s (median; share seen in 90 s)"
    )
    print(f"  {'noise':12s} {'selftune':>14s} {'moving mean':>14s} {'to reach':>9s}")
    for name, tau, sd, reach in HARM:
        case = (name, tau, sd, 0.0, "line", 0.0)
        ours = [
            abort_s(change(rng, case, STEP), settings, every if sd == 0.01 else looks) for _ in range(n_harm)
        ]
        plain = plain_times(rng, case, n_harm)
        print(f"  {name:12s} {_shown(ours):>14s} {_shown(plain):>14s} {reach:7d} s", flush=True)
    return 0


def _shown(times: list[float]) -> str:
    return f"{np.median(times):.0f} s {100 * np.mean(np.isfinite(times)):3.0f} %"


if __name__ == "__main__":
    raise SystemExit(main())
