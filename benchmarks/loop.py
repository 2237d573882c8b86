"""What does one cycle cost, and does it care how long the history is? (scale.md T1, T2, T3, T8, T10)

    python benchmarks/loop.py --quick     # 1e5 and 1e6 rows, two minutes
    python benchmarks/loop.py             # and 1e7 (600 MB in a temporary folder), six minutes

A *cycle* here is the stream's part of the loop: five new rows are read, and two 90 s windows of four
metrics are averaged for a pending event. The same numbers are then made as the seed makes them, by
reading the whole file (csv.DictReader), and with pandas.read_csv. Ratios are of one run; the files
are in the page cache for everybody. CPU times are printed, so that a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the child is this file, not a module
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as selftune.threads does

import numpy as np
from numpy.typing import NDArray

from benchmarks import ledger, whole_loop
from selftune.samples import SampleStream, last_ts, read_around, read_range
from selftune.series import Series

METRICS = ("phase_diff", "entropy_rate", "creative_band", "risk_band")
SETTINGS: dict[str, Any] = {"metrics": METRICS, "ranges": {"risk_band": (0.0, 1.0)}, "timezone": "Asia/Seoul"}
HEADER = ("ts," + ",".join(METRICS) + "\n").encode()
T0 = 1_760_000_000_000
STEP_MS = 200
WINDOW_MS = 90_000


# ----------------------------------------------------------------------------- files
def rows_between(first: int, last: int) -> bytes:
    """Rows number first..last-1 of the endless test stream; each depends on its number alone."""
    n = np.arange(first, last, dtype=np.int64)
    local = (T0 + n * STEP_MS + 9 * 3600_000).astype("datetime64[ms]")
    stamps = np.datetime_as_string(local, unit="ms").astype("S23").view(np.uint8).reshape(len(n), 23)
    cells = [_cell(n * k % 1000) for k in (7, 11, 13, 17)]
    offset = np.broadcast_to(np.frombuffer(b"+09:00", np.uint8), (len(n), 6))
    end = np.full((len(n), 1), ord("\n"), np.uint8)
    return np.hstack([stamps, offset, *cells, end]).tobytes()


def _cell(thousandths: NDArray[np.int64]) -> NDArray[np.uint8]:
    digits = np.stack([thousandths // 100, thousandths // 10 % 10, thousandths % 10], axis=1) + ord("0")
    lead = np.broadcast_to(np.frombuffer(b",0.", np.uint8), (len(digits), 3))
    return np.hstack([lead, digits.astype(np.uint8)])


def make(path: Path, rows: int) -> None:
    with path.open("wb") as file:
        file.write(HEADER)
        for a in range(0, rows, 500_000):
            file.write(rows_between(a, min(rows, a + 500_000)))


# ----------------------------------------------------------------------------- one decision's numbers
def deltas(series: Series, event_ms: int) -> list[float]:
    """Post mean - pre mean of every metric: what the seed's cycle makes of its file."""
    pre = series.between(event_ms - WINDOW_MS, event_ms)
    post = series.between(event_ms, event_ms + WINDOW_MS)
    return [float(np.nanmean(post.values[m]) - np.nanmean(pre.values[m])) for m in METRICS]


def deltas_dictreader(path: Path, event_ms: int) -> list[float]:
    """The same, with the standard library over the whole file, as the seed does."""
    sides: list[list[list[float]]] = [[[] for _ in METRICS] for _ in "ab"]
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            ms = datetime.fromisoformat(line["ts"]).timestamp() * 1000 - event_ms
            if -WINDOW_MS <= ms < WINDOW_MS:
                for values, m in zip(sides[ms >= 0], METRICS, strict=True):
                    values.append(float(line[m]))
    return [statistics.fmean(b) - statistics.fmean(a) for a, b in zip(*sides, strict=True)]


def deltas_pandas(path: Path, event_ms: int) -> list[float]:
    import pandas as pd

    table = pd.read_csv(path)
    ms = (
        pd.to_datetime(table["ts"], utc=True) - pd.Timestamp(event_ms, unit="ms", tz="UTC")
    ).dt.total_seconds() * 1e3
    pre, post = table[(ms >= -WINDOW_MS) & (ms < 0)], table[(ms >= 0) & (ms < WINDOW_MS)]
    return [float(post[m].mean() - pre[m].mean()) for m in METRICS]


# ----------------------------------------------------------------------------- measuring
def cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


class Followed:
    """A stream and the file that grows under it."""

    def __init__(self, path: Path, rows: int, keep_s: float = 1800) -> None:
        self.path, self.rows = path, rows
        self.stream = SampleStream(path, keep_s=keep_s, **SETTINGS)

    @property
    def now(self) -> int:
        return T0 + self.rows * STEP_MS

    @property
    def event(self) -> int:
        return self.now - WINDOW_MS

    def append(self, n: int) -> int:
        new = rows_between(self.rows, self.rows + n)
        with self.path.open("ab") as file:
            file.write(new)
        self.rows += n
        return len(new)

    def cycle(self) -> list[float]:
        return deltas(self.stream.poll(self.now), self.event)


def stream_figures(path: Path, rows: int, cycles: int) -> dict[str, float]:
    """CPU-ms and bytes of cold start, cycles while the past is still being read, and cycles after."""
    watched = Followed(path, rows)
    found = {"cold_ms": cpu_ms(watched.cycle)}
    watched.append(5)
    found["catching_up_ms"] = cpu_ms(watched.cycle)
    while not watched.stream.state.older_done:
        watched.cycle()
    times, new, before = [], 0, watched.stream.state.bytes_read
    for _ in range(cycles):
        new += watched.append(5)
        times.append(cpu_ms(watched.cycle))
    found["cycle_ms"] = statistics.median(times)
    found["bytes"] = (watched.stream.state.bytes_read - before) / new
    # like for like: 450 lines after a restart against 450 new lines
    cold, warm = [], []
    for _ in range(15):
        short = Followed(path, watched.rows, keep_s=90)
        cold.append(cpu_ms(short.cycle))
        watched.append(450)
        warm.append(cpu_ms(watched.cycle))
    found["cold_450_ms"], found["warm_450_ms"] = statistics.median(cold), statistics.median(warm)
    began = time.perf_counter()
    SampleStream(path, **SETTINGS).poll(watched.now)
    found["start_s"] = time.perf_counter() - began
    middle = T0 + watched.rows // 2 * STEP_MS
    found["range_ms"] = cpu_ms(lambda: read_range(path, middle, middle + 180_000, **SETTINGS))
    events = [T0 + k * watched.rows // 201 * STEP_MS for k in range(1, 201)]
    found["around_ms"] = (
        cpu_ms(lambda: list(read_around(path, events, before_s=90, after_s=90, **SETTINGS))) / 200
    )
    assert last_ts(path, timezone="UTC") == watched.now - STEP_MS
    event = watched.event
    ours = watched.cycle()
    if watched.rows < 3_000_000:
        theirs: list[float] = []
        found["dictreader_ms"] = cpu_ms(lambda: theirs.extend(deltas_dictreader(path, event)))
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    theirs_pandas: list[float] = []
    found["pandas_ms"] = cpu_ms(lambda: theirs_pandas.extend(deltas_pandas(path, event)))
    np.testing.assert_allclose(ours, theirs_pandas, atol=1e-12)
    return found


def a_day(path: Path, polls: int) -> None:
    """Run in a process of its own: a day of 5 Hz in `polls` polls, then memory and CPU on stdout."""
    watched = Followed(path, 0)
    per_poll = 432_000 // polls
    for _ in range(polls):
        watched.append(per_poll)
        watched.stream.poll(watched.now)
    times = []
    for _ in range(300):
        watched.append(5)
        times.append(cpu_ms(watched.cycle))
    print(resident_mb(), sum(times) / len(times), len(watched.stream.coarse))


def resident_mb() -> float:
    """Resident memory of this process in MB; NaN where /proc does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


# ----------------------------------------------------------------------------- the table
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1e5 and 1e6 rows only")
    parser.add_argument("--day", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.day:
        a_day(Path(options.day), 1440)
        return
    sizes = (100_000, 1_000_000) if options.quick else (100_000, 1_000_000, 10_000_000)
    found: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="selftune-bench-") as folder:
        for rows in sizes:
            path = Path(folder) / "metrics.csv"
            make(path, rows)
            found[rows] = stream_figures(path, rows, 100)
            path.unlink()
        day = Path(folder) / "day.csv"
        day.write_bytes(HEADER)
        child = [sys.executable, __file__, "--day", str(day)]
        out = subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()
    report(found, *map(float, out))
    for name, value, target in ledger_rows(rounds=1 if options.quick else 3):
        print(f"{name:44}{value:14.2f}   {target}")
    whole_loop.report(whole_loop.measure(60.0 if options.quick else 180.0))


def ledger_rows(rounds: int) -> list[tuple[str, float, str]]:
    """T8, by the ledger's own benchmark; rounds are interleaved, so that a busy machine is equally unkind."""
    kinds = ("append", "sqlite", "commit")
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="selftune-bench-") as folder:
        for i in range(rounds):
            for kind in kinds:
                rates[kind].append(ledger.per_second(kind, folder, f"{kind}{i}", writers=8, seconds=3))
        whole, one = ledger.reading(folder, lines=100_000)
    rate = {kind: statistics.median(found) for kind, found in rates.items()}
    return [
        ("T8 8 writers, locked append / SQLite full", rate["append"] / rate["sqlite"], ">= 5"),
        ("T8 8 writers, whole commit / SQLite full", rate["commit"] / rate["sqlite"], ""),
        ("    locked appends a second", rate["append"], ""),
        ("T8 1e5 events read anew / one new event", whole / one, ">= 1000"),
    ]


LABELS = {
    "cycle_ms": "cycle, 5 new rows (CPU-ms)",
    "catching_up_ms": "cycle that also reads 256 KiB of the past",
    "cold_ms": "cold start, 30 min (CPU-ms)",
    "start_s": "cold start, wall s",
    "cold_450_ms": "restart with the last 450 lines",
    "warm_450_ms": "cycle with 450 new lines",
    "bytes": "bytes read / new bytes",
    "range_ms": "read_range of 3 min in the middle",
    "around_ms": "read_around, 200 events, each",
    "dictreader_ms": "csv.DictReader, whole file",
    "pandas_ms": "pandas.read_csv, whole file",
}


def report(found: dict[int, dict[str, float]], rss: float, day_ms: float, bins: float) -> None:
    sizes = list(found)
    print(f"{'':44}" + "".join(f"{rows:>14.0e}" for rows in sizes))
    for key, label in LABELS.items():
        print(f"{label:44}" + "".join(f"{found[r].get(key, float('nan')):14.3f}" for r in sizes))
    small, large = found[sizes[0]], found[sizes[-1]]
    million = found[1_000_000]
    print()
    for name, value, target in (
        (
            f"T1 cycle at {sizes[-1]:.0e} / at {sizes[0]:.0e} rows",
            large["cycle_ms"] / small["cycle_ms"],
            "<= 1.5",
        ),
        ("T1 bytes read / new bytes", max(f["bytes"] for f in found.values()), "<= 2"),
        ("T2 csv.DictReader / cycle at 1e6", million["dictreader_ms"] / million["cycle_ms"], ">= 1000"),
        ("T2 pandas.read_csv / cycle at 1e6", million["pandas_ms"] / million["cycle_ms"], ""),
        ("T3 restart / cycle, 450 lines each", large["cold_450_ms"] / large["warm_450_ms"], "<= 3"),
        (
            f"T3 restart at {sizes[-1]:.0e} / at {sizes[0]:.0e}",
            large["cold_450_ms"] / small["cold_450_ms"],
            "flat",
        ),
        ("T10 resident MB after a day (stream only)", rss, "<= 120"),
        ("T10 % of one core at one cycle a second", day_ms / 10, "<= 2"),
        ("    coarse bins held after a day", bins, "8640"),
    ):
        print(f"{name:44}{value:14.2f}   {target}")


if __name__ == "__main__":
    main()
