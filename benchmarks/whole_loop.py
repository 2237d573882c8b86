"""T10: memory and CPU share of the whole loop as a process, beside the demo's plant in real time.

    python benchmarks/whole_loop.py [--seconds 180]

The plant writes 5 Hz and an hour of history first; the loop is live in the demo root, so that it reads,
decides, writes, observes and sweeps evidence. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from selftune.book import DECISIONS, HEARTBEAT
from selftune.up import prepare_demo

CHECKOUT = Path(__file__).resolve().parent.parent
WARM_S = 30.0  # what a start costs is not what a loop costs
TARGET_MB, TARGET_SHARE = 120.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """Peak resident MB, % of one core after the start, CPU-s of the start, cycles, CPU-ms a cycle."""

    peak_mb: float
    share: float
    start_s: float
    cycles: int
    cycle_ms: float
    lines: int


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The most memory it ever held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def cycles_of(home: Path) -> int:
    return int(json.loads((home / HEARTBEAT).read_bytes())["cycle"])


def measure(seconds: float) -> Found:
    """Run plant and loop for so long and look at the loop."""
    with tempfile.TemporaryDirectory(prefix="selftune-bench-") as folder:
        home = prepare_demo(Path(folder), live=True)
        me = [sys.executable, "-m", "selftune", "--root", str(home)]
        quiet = {"cwd": CHECKOUT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        plant = subprocess.Popen([*me, "demo"], **quiet)  # type: ignore[call-overload]
        loop = subprocess.Popen([*me, "loop"], **quiet)  # type: ignore[call-overload]
        try:
            time.sleep(WARM_S)
            begun, first, at = cpu_s(loop.pid), cycles_of(home), time.monotonic()
            time.sleep(seconds)
            used, cycles = cpu_s(loop.pid) - begun, cycles_of(home) - first
            return Found(
                peak_mb=peak_mb(loop.pid),
                share=100 * used / (time.monotonic() - at),
                start_s=begun,
                cycles=cycles,
                cycle_ms=1000 * used / max(1, cycles),
                lines=(home / DECISIONS).read_bytes().count(b"\n"),
            )
        finally:
            for process in (loop, plant):
                process.terminate()
                process.wait(30)


def report(found: Found) -> None:
    """Rows as in `loop.py`."""
    for name, value, target in (
        ("T10 whole loop: peak resident MB", found.peak_mb, f"<= {TARGET_MB:.0f}"),
        ("T10 whole loop: % of one core", found.share, f"<= {TARGET_SHARE:.0f}"),
        (f"    CPU-ms a cycle, of {found.cycles}", found.cycle_ms, ""),
        (f"    CPU-s of the first {WARM_S:.0f} s", found.start_s, ""),
        ("    decisions written", float(found.lines), ""),
    ):
        print(f"{name:44}{value:14.2f}   {target}")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seconds", type=float, default=180)
    report(measure(ask.parse_args().seconds))


if __name__ == "__main__":
    main()
