"""All that a service needs to be tuned: follow the rule history, write metrics.csv at 5 Hz.

    python examples/live_service/adapter.py --root logs/example --port 8701

Rules that are the service's limits are set over HTTP as soon as their line is whole; the last valid value of
each is in force, also after a restart. Metrics are those of the last two seconds: p95_ms (95 % of answers
came within), refused_share, cpu_share (of one core), age_s (mean age of an answer). A figure without a
request behind it stays empty: missing, never zero. It knows the two files' formats, nothing of the tuner.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
import urllib.request
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

HEADER = "ts,p95_ms,refused_share,cpu_share,age_s\n"
PERIOD_S, SPAN_S = 0.2, 2.0
RULES = ("cache_ttl_s", "queue_limit", "workers")


class Rules:
    """The rule history from where we stopped reading; half a line waits for its end."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def news(self) -> dict[str, float]:
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return {}
        self.offset += len(whole) + len(newline)
        found = {}
        for line in whole.splitlines():
            try:
                event = json.loads(line)
                value = event["new"]
                if event["rule"] in RULES and type(value) in (int, float) and math.isfinite(value):
                    found[event["rule"]] = float(value)
            except (ValueError, TypeError, KeyError):
                continue  # a line that says nothing to us
        return found


class Service:
    """The service over HTTP, and its last two seconds."""

    def __init__(self, port: int) -> None:
        self.url, self.last = f"http://127.0.0.1:{port}", deque[tuple[float, dict[str, Any]]]()

    def call(self, path: str, body: dict[str, float] | None = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        ask = urllib.request.Request(self.url + path, data=data, method="PUT" if data else "GET")
        with urllib.request.urlopen(ask, timeout=2) as reply:
            said: dict[str, Any] = json.load(reply)
            return said

    def row(self) -> list[float | None]:
        """p95_ms, refused_share, cpu_share, age_s of the last `SPAN_S`; None where nothing was asked."""
        now = time.monotonic()
        self.last.append((now, self.call("/stats")))
        while self.last[0][0] < now - SPAN_S:
            self.last.popleft()
        said = [s for _, s in self.last]
        latencies = sorted(x for s in said for x in s["latencies_ms"])
        ages = [x for s in said for x in s["ages_s"]]
        asked = len(latencies) + sum(s["refused"] for s in said)
        span_s = now - self.last[0][0]
        return [
            latencies[math.ceil(0.95 * len(latencies)) - 1] if latencies else None,
            sum(s["refused"] for s in said) / asked if asked else None,
            (said[-1]["cpu_s"] - said[0]["cpu_s"]) / span_s if span_s > SPAN_S / 2 else None,
            sum(ages) / len(ages) if ages else None,
        ]


def follow(root: Path, port: int) -> None:
    rules, service = Rules(root / "controls/rules_history.jsonl"), Service(port)
    out = root / "logs/metrics.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, float] = {}
    with open(out, "a", encoding="utf-8", newline="\n") as file:
        if file.tell() == 0:
            file.write(HEADER)
        due = time.monotonic()
        while True:
            try:
                wanted |= rules.news()
                if wanted:
                    service.call("/limits", wanted)
                    wanted = {}
                cells = ["" if x is None else f"{x:.4f}" for x in service.row()]
                now = datetime.now().astimezone().isoformat(timespec="milliseconds")
                file.write(",".join([now, *cells]) + "\n")
                file.flush()
            except OSError:  # the service does not answer: no row, and what it should be told waits
                time.sleep(PERIOD_S)
            due = max(due + PERIOD_S, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", type=Path, required=True)
    ask.add_argument("--port", type=int, default=8701)
    args = ask.parse_args()
    follow(args.root, args.port)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
