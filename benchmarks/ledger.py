"""T8: the ledger under eight writers, and one new line among 100,000.

    python benchmarks/ledger.py [--seconds 3] [--rounds 3] [--writers 8] [--lines 100000]

Everything is measured in one run on one disk; only the ratios count. `raw` is what the disk allows: one
process, one file held open, write + fdatasync and nothing else. Where an fsync is cheap (a virtual disk
with a cache) SQLite comes near that bound as well, and no durable ledger can be five times as fast.
Targets: eight writers >= 5 x SQLite (synchronous=FULL); one new event >= 1,000 x faster to read than
the whole file is to parse.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from filelock import FileLock

from selftune.book import DECISIONS, HISTORY, Batch, DecisionDraft
from selftune.files import append
from selftune.ledger import FileLedger
from selftune.locks import commit_lock

EVENT = {
    "ts": "2026-03-01T09:00:00.000+09:00",
    "actor": "selftune",
    "rule": "risk_max",
    "old": 0.35,
    "new": 0.33,
    "note": "cycle",
    "id": "01HX0000000000000000000000",
    "kind": "change",
    "decision": "01HX000000000000000",
}
LINE = json.dumps(EVENT).encode() + b"\n"


# ----------------------------------------------------------------------------- writers
def locked_append(root: Path) -> None:
    """What the commit does for one line: lock, tail, one write, fsync, read back."""
    with commit_lock(root, 60):
        append(root / HISTORY, [LINE], root=root)


def default_polling(root: Path) -> None:
    """The same under filelock as it comes (polls each 50 ms)."""
    with FileLock(root / "logs" / "default.lock"):
        append(root / HISTORY, [LINE], root=root)


class Sqlite:
    """One row a transaction, synchronous=FULL, the rollback journal that is SQLite's default."""

    def __init__(self) -> None:
        self.db: sqlite3.Connection | None = None

    def __call__(self, root: Path) -> None:
        if self.db is None:
            self.db = sqlite3.connect(root / "ledger.db", timeout=60, isolation_level=None)
            self.db.execute("pragma synchronous=full")
        self.db.execute("begin immediate")
        self.db.execute("insert into events values (?)", (LINE,))
        self.db.execute("commit")


class Raw:
    """The disk's own limit: write + fdatasync on a descriptor that stays open; no lock, no check."""

    def __init__(self) -> None:
        self.fd = -1

    def __call__(self, root: Path) -> None:
        if self.fd < 0:
            self.fd = os.open(root / HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self.fd, LINE)
        os.fdatasync(self.fd)


class WholeCommit:
    """A ledger's commit: lock, read what the others wrote, decision + fsync, read again."""

    def __init__(self) -> None:
        self.ledger: FileLedger | None = None

    def __call__(self, root: Path) -> None:
        if self.ledger is None:
            self.ledger = FileLedger(root, timezone="Asia/Seoul")
            self.ledger.store.wait_s = 60  # type: ignore[attr-defined]
        self.ledger.commit(Batch(decisions=(DecisionDraft(data={"kind": "suggest"}),)), None)


def writer(kind: str, root: str, begin: float, seconds: float, out: Any) -> None:
    work: Callable[[Path], None] = KINDS[kind]()
    while time.time() < begin:
        time.sleep(0.01)
    n, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        work(Path(root))
        n += 1
    out.put(n)


KINDS: dict[str, Callable[[], Callable[[Path], None]]] = {
    "append": lambda: locked_append,
    "default": lambda: default_polling,
    "sqlite": Sqlite,
    "commit": WholeCommit,
    "raw": Raw,
}


def a_root(folder: str, name: str) -> Path:
    root = Path(folder) / name
    for part in ("controls", "logs", "configs"):
        (root / part).mkdir(parents=True)
    return root


def per_second(kind: str, folder: str, name: str, writers: int, seconds: float) -> float:
    """Lines per second that `writers` processes bring to disk together."""
    root = a_root(folder, name)
    with sqlite3.connect(root / "ledger.db") as db:
        db.execute("create table events (line blob)")
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    begin = time.time() + 3
    children = [
        context.Process(target=writer, args=(kind, str(root), begin, seconds, out)) for _ in range(writers)
    ]
    for child in children:
        child.start()
    total = sum(out.get() for _ in children)
    for child in children:
        child.join()
    if kind in ("append", "commit"):
        lines = (root / (HISTORY if kind == "append" else DECISIONS)).read_bytes().splitlines()
        assert len(lines) == total and all(json.loads(x) for x in lines)
    return total / seconds


# ----------------------------------------------------------------------------- reading
def reading(folder: str, lines: int) -> tuple[float, float]:
    """(seconds to parse the whole history anew, seconds to read one new event of it)."""
    root = a_root(folder, "reading")
    with open(root / HISTORY, "wb") as file:
        for i in range(lines):
            file.write(json.dumps({**EVENT, "id": f"{i:026d}"}).encode() + b"\n")
    start = time.perf_counter()
    ledger = FileLedger(root, timezone="Asia/Seoul")
    assert len(ledger.read().events) == lines
    whole, ones = time.perf_counter() - start, []
    for i in range(200):
        with open(root / HISTORY, "ab") as file:
            file.write(json.dumps({**EVENT, "id": f"n{i:025d}"}).encode() + b"\n")
        start = time.perf_counter()
        found = ledger.read()
        ones.append(time.perf_counter() - start)
        assert len(found.events) == lines + i + 1
    return whole, median(ones)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seconds", type=float, default=3)
    ask.add_argument("--writers", type=int, default=8)
    ask.add_argument("--lines", type=int, default=100_000)
    ask.add_argument("--rounds", type=int, default=3)
    args = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for i in range(args.rounds):  # interleaved, so that a busy machine is equally unkind to all
            for kind in KINDS:
                rates[kind].append(
                    per_second(kind, folder, f"{kind}{i}", 1 if kind == "raw" else args.writers, args.seconds)
                )
        rate = {kind: median(found) for kind, found in rates.items()}
        whole, one = reading(folder, args.lines)
    print(f"{args.writers} writers, lines/s (median of {args.rounds}; all rounds)")
    for kind in KINDS:
        print(f"  {kind:8s} {rate[kind]:8.0f}   {[round(x) for x in rates[kind]]}")
    print(f"append / sqlite full       {rate['append'] / rate['sqlite']:6.1f}   target >= 5")
    print(f"raw / sqlite full          {rate['raw'] / rate['sqlite']:6.1f}   the most that this disk allows")
    print(f"append / default polling   {rate['append'] / rate['default']:6.1f}")
    print(f"commit / sqlite full       {rate['commit'] / rate['sqlite']:6.1f}")
    print(
        f"whole parse of {args.lines} lines {whole:.2f} s, one new line {one * 1e6:.0f} us: "
        f"{whole / one:.0f} x   target >= 1,000"
    )


if __name__ == "__main__":
    main()
