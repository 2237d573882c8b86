"""Records the host's own counters at 5 Hz: real, drifting, bursty series for benchmarks/delta.py.

Reads only /proc (Linux). Writes one CSV into the ignored folder benchmarks/out/; the rows hold
rates and levels (a counter becomes its increase a second), never names, addresses or processes.

    python -m benchmarks.record_host --hours 3 --out benchmarks/out/host.csv
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

PERIOD_S = 0.2
CPU_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq")
VMSTAT_RATES = ("pgfault", "pgalloc_normal", "pgalloc_dma32", "pgpgin", "pgpgout", "numa_hit")
VMSTAT_LEVELS = ("nr_dirty", "nr_active_anon", "nr_inactive_file", "nr_slab_reclaimable")
MEMINFO = ("MemFree", "Cached", "Active", "AnonPages", "Slab", "PageTables", "Committed_AS")


def read_stat(text: str) -> dict[str, float]:
    """Counters of /proc/stat: CPU time by kind (ticks), interrupts, context switches, forks."""
    out: dict[str, float] = {}
    for line in text.splitlines():
        name, *cells = line.split()
        if name == "cpu":
            out |= {f"cpu_{f}": float(c) for f, c in zip(CPU_FIELDS, cells, strict=False)}
        elif name in ("intr", "softirq", "ctxt", "processes"):
            out[name] = float(cells[0])
    return out


def read_pairs(text: str, names: tuple[str, ...]) -> dict[str, float]:
    """The named numbers of a `name value` file (/proc/vmstat, /proc/meminfo)."""
    rows = [line.split() for line in text.splitlines()]
    found = {r[0].rstrip(":"): float(r[1]) for r in rows if len(r) > 1}
    return {n: found[n] for n in names if n in found}


def read_disks(text: str) -> dict[str, float]:
    """Counters summed over whole disks: reads, writes, sectors and busy milliseconds."""
    rows = [line.split() for line in text.splitlines()]
    rows = [r for r in rows if not r[2].startswith(("loop", "ram", "zram"))]
    columns = {
        "disk_reads": 3,
        "disk_sectors_read": 5,
        "disk_writes": 7,
        "disk_sectors_written": 9,
        "disk_busy": 12,
    }
    return {name: sum(float(r[i]) for r in rows) for name, i in columns.items()}


def read_net(text: str) -> dict[str, float]:
    """Counters summed over all interfaces: bytes and packets in both directions."""
    rows = [line.split(":")[1].split() for line in text.splitlines() if ":" in line]
    columns = {"net_rx_bytes": 0, "net_rx_packets": 1, "net_tx_bytes": 8, "net_tx_packets": 9}
    return {name: sum(float(r[i]) for r in rows) for name, i in columns.items()}


def read_counters() -> dict[str, float]:
    """All counters that only grow; the recorder writes their increase a second."""
    proc = Path("/proc")
    return (
        read_stat((proc / "stat").read_text())
        | read_pairs((proc / "vmstat").read_text(), VMSTAT_RATES)
        | read_disks((proc / "diskstats").read_text())
        | read_net((proc / "net/dev").read_text())
    )


def read_levels() -> dict[str, float]:
    """All values that go up and down: load, runnable tasks, memory by kind."""
    proc = Path("/proc")
    load = (proc / "loadavg").read_text().split()
    runnable = load[3].split("/")
    return (
        {"load1": float(load[0]), "load5": float(load[1])}
        | {"runnable": float(runnable[0]), "tasks": float(runnable[1])}
        | read_pairs((proc / "meminfo").read_text(), MEMINFO)
        | read_pairs((proc / "vmstat").read_text(), VMSTAT_LEVELS)
    )


def record(out: Path, seconds: float) -> None:
    """Appends a row every 0.2 s until `seconds` have passed; a late tick is skipped, not caught up."""
    out.parent.mkdir(parents=True, exist_ok=True)
    before, then = read_counters(), time.monotonic()
    names = [*before, *read_levels()]
    started = then
    with out.open("w", encoding="utf-8", buffering=1 << 16) as file:
        file.write(",".join(["ts_ms", *names]) + "\n")
        tick = 1
        while (now := time.monotonic()) - started < seconds:
            pause = started + tick * PERIOD_S - now
            tick += 1
            if pause <= 0:
                continue
            time.sleep(pause)
            counters, now = read_counters(), time.monotonic()
            rates = [(counters[n] - before[n]) / (now - then) for n in before]
            levels = read_levels()
            cells = [*rates, *(levels[n] for n in names[len(rates) :])]
            file.write(f"{time.time_ns() // 1_000_000}," + ",".join(f"{c:.6g}" for c in cells) + "\n")
            before, then = counters, now
            if tick % 50 == 0:
                file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "host.csv")
    args = parser.parse_args()
    record(args.out, args.hours * 3600)


if __name__ == "__main__":
    main()
