"""What the records say: scores side by side with an interval, and whether a root's ledgers are whole.

Answers "is the tuned service nearer to its targets?" and "was anything lost or doubled?" from the files
alone. The score is selftune's own objective, through the settings that both services started with.
"""

from __future__ import annotations

import csv
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from examples.live_service.stage import DECISIONS, HISTORY, METRICS, SETTINGS, Side, selftune
from selftune.config import parse
from selftune.objective import objective_score
from selftune.settings import Settings

WINDOW_S = 5.0  # one paired score
BLOCK = 4  # windows a block of the bootstrap: 20 s, longer than a burst or a neighbour's fit of work
DRAWS = 4000
Floats = NDArray[np.float64]


# ----------------------------------------------------------------------------- scores
def scores(side: Side, start: float, end: float) -> Floats:
    """The objective score of each window of [start, end) (wall seconds); NaN where data are missing."""
    settings = settings_of(side)
    n = int((end - start) // WINDOW_S)
    found: list[dict[str, list[float]]] = [{m: [] for m in settings.metrics} for _ in range(n)]
    for at, metric, x in _cells(side, settings):
        k = int((at - start) // WINDOW_S)
        if 0 <= k < n:
            found[k][metric].append(x)
    return np.array([_score(settings, window) for window in found])


def means(side: Side, start: float, end: float) -> dict[str, float]:
    """The mean of each metric over [start, end); metrics without data are left out."""
    found: dict[str, list[float]] = {}
    for at, metric, x in _cells(side, settings_of(side)) if (side.root / METRICS).exists() else ():
        if start <= at < end:
            found.setdefault(metric, []).append(x)
    return {m: sum(x) / len(x) for m, x in found.items()}


def settings_of(side: Side) -> Settings:
    return parse((side.root / SETTINGS).read_bytes())


def _cells(side: Side, settings: Settings) -> Iterator[tuple[float, str, float]]:
    """(wall seconds, metric, value) of every cell with a number."""
    with open(side.root / METRICS, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["ts"]).timestamp()
            yield from ((at, m, float(row[m])) for m in settings.metrics if row[m])


def _score(settings: Settings, found: dict[str, list[float]]) -> float:
    score = objective_score(settings, {m: sum(x) / len(x) if x else None for m, x in found.items()})
    return float("nan") if score is None else score


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Two services under the same load in the same windows. `lo`, `hi`: 95 % block bootstrap."""

    mine: float
    other: float
    gain: float
    lo: float
    hi: float
    ratio: float
    ratio_lo: float
    ratio_hi: float
    n: int

    def __str__(self) -> str:
        return (
            f"score {self.mine:.3f} against {self.other:.3f}, gain {self.gain:+.3f} "
            f"[{self.lo:+.3f}, {self.hi:+.3f}], ratio {self.ratio:.2f} "
            f"[{self.ratio_lo:.2f}, {self.ratio_hi:.2f}], {self.n} windows of {WINDOW_S:.0f} s"
        )


def beside(mine: Side, other: Side, start: float, end: float) -> Beside:
    """`mine` against `other` over [start, end), window by window."""
    a, b = scores(mine, start, end), scores(other, start, end)
    both = np.isfinite(a) & np.isfinite(b)
    return compared(a[both], b[both])


def compared(a: Floats, b: Floats) -> Beside:
    """Paired scores with the interval that blocks of neighbouring windows give. Same input, same result."""
    n = len(a)
    if n < 2 * BLOCK:
        nan = float("nan")
        return Beside(
            mine=nan, other=nan, gain=nan, lo=nan, hi=nan, ratio=nan, ratio_lo=nan, ratio_hi=nan, n=n
        )
    rng = np.random.default_rng(0)
    starts = rng.integers(0, n - BLOCK + 1, size=(DRAWS, -(-n // BLOCK)))
    picks = (starts[:, :, None] + np.arange(BLOCK)).reshape(DRAWS, -1)[:, :n]
    drawn_a, drawn_b = a[picks].mean(axis=1), b[picks].mean(axis=1)
    lo, hi = np.quantile(drawn_a - drawn_b, (0.025, 0.975))
    ratio_lo, ratio_hi = np.quantile(drawn_a / np.maximum(drawn_b, 1e-9), (0.025, 0.975))
    return Beside(
        mine=float(a.mean()), other=float(b.mean()), gain=float(a.mean() - b.mean()),
        lo=float(lo), hi=float(hi), ratio=float(a.mean() / max(b.mean(), 1e-9)),
        ratio_lo=float(ratio_lo), ratio_hi=float(ratio_hi), n=n,
    )  # fmt: skip


# ----------------------------------------------------------------------------- ledgers
def check_says(side: Side) -> tuple[int, str]:
    """Exit code of `selftune check`, and its last line."""
    run = subprocess.run(
        selftune("--root", side.root, "--lang", "en", "check"), capture_output=True, text=True
    )
    lines = (run.stdout + run.stderr).strip().splitlines()
    return run.returncode, lines[-1] if lines else ""


def faults(side: Side) -> list[str]:
    """What is lost, doubled or out of order in the ledgers of one root; empty when they are whole."""
    events, decisions = side.lines(HISTORY), side.lines(DECISIONS)
    ours = [e for e in events if "id" in e]
    ids = [e["id"] for e in ours]
    named = Counter(k for d in decisions for k in d.get("applied") or () if isinstance(k, str))
    known = {d["id"] for d in decisions}
    found = [f"event {k} twice" for k in _twice(ids)]
    found += [f"decision {k} twice" for k in _twice([d["id"] for d in decisions])]
    found += [f"event {k} without its decision" for k in ids if named[k] != 1]
    found += [f"event {e['id']} names no decision" for e in ours if e.get("decision") not in known]
    gone = {k for d in decisions for k in d.get("abandoned") or ()}
    found += [f"decision intended {k}, which is nowhere" for k in named if k not in set(ids) | gone]
    verdicts = [str(d.get("change")) for d in decisions if d.get("act") == "evaluate"]
    return found + [f"change {k} judged twice" for k in _twice(verdicts)]


def _twice(keys: Sequence[str]) -> list[str]:
    return [k for k, n in Counter(keys).items() if n > 1]
