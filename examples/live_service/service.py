"""A real HTTP service: sales figures out of an SQLite table, with a cache, a pool of workers and a queue.

    python examples/live_service/service.py --port 8701

`GET /sales/<shop>` scans the table for one shop (a few milliseconds of real work) unless an answer
younger than `cache_ttl_s` is at hand. At most `workers` scans run at once and `queue_limit` more may wait;
beyond that a request is refused (503). `PUT /limits` sets the three, `GET /stats` tells what happened since
the last call. It knows nothing of selftune.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SHOPS, ROWS = 400, 36_000
MOST_WORKERS = 8
LIMITS = {"cache_ttl_s": 0.4, "queue_limit": 6.0, "workers": 1.0}  # as the service comes out of its box


class Sales:
    """The table, with one connection a thread (SQLite's rule), and the scan that costs something."""

    def __init__(self) -> None:
        self._local = threading.local()

    def _db(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            dice = random.Random(1)
            self._local.db = sqlite3.connect(":memory:")
            self._local.db.execute("create table sales (shop int, day int, amount real)")
            rows = ((dice.randrange(SHOPS), dice.randrange(365), dice.random()) for _ in range(ROWS))
            self._local.db.executemany("insert into sales values (?, ?, ?)", rows)
        db: sqlite3.Connection = self._local.db
        return db

    def scan(self, shop: int) -> dict[str, float]:
        """Sum, largest and number of a shop's sales, weighted towards the end of the year."""
        total, most, n = self._db().execute(
            "select sum(amount * (1 + day / 365.0)), max(amount), count(*) from sales "
            "where shop = ? or (shop % 97 = ? % 97 and day % 7 = 3)", (shop, shop),
        ).fetchone()  # fmt: skip
        return {"total": total or 0.0, "most": most or 0.0, "n": n}


class Service:
    """The limits in force, the cache, and what was measured since the last look."""

    def __init__(self) -> None:
        self.limits = dict(LIMITS)
        self.sales, self.pool = Sales(), ThreadPoolExecutor(MOST_WORKERS)
        self.cache: dict[int, tuple[float, dict[str, float]]] = {}
        self.running = self.waiting = 0
        self.free = asyncio.Condition()
        self.latencies_ms: list[float] = []
        self.ages_s: list[float] = []
        self.refused = 0

    async def answer(self, request: Request) -> Response:
        start, shop = time.perf_counter(), int(request.path_params["shop"])
        kept = self.cache.get(shop)
        age_s = start - kept[0] if kept else None
        if kept is None or age_s is None or age_s > self.limits["cache_ttl_s"]:
            found = await self._fresh(shop)
            if found is None:
                self.refused += 1
                return JSONResponse({"error": "busy"}, status_code=503)
            age_s, kept = 0.0, (time.perf_counter(), found)
            self.cache[shop] = kept
        self.latencies_ms.append((time.perf_counter() - start) * 1000)
        self.ages_s.append(age_s)
        return JSONResponse(kept[1])

    async def _fresh(self, shop: int) -> dict[str, float] | None:
        """A scan of our own, or None when too many wait already."""
        if self.running >= self.limits["workers"] and self.waiting >= self.limits["queue_limit"]:
            return None
        async with self.free:
            self.waiting += 1
            await self.free.wait_for(lambda: self.running < self.limits["workers"])
            self.waiting -= 1
            self.running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, self.sales.scan, shop)
        finally:
            async with self.free:
                self.running -= 1
                self.free.notify_all()

    async def stats(self, request: Request) -> Response:
        said = {
            "latencies_ms": self.latencies_ms, "ages_s": self.ages_s, "refused": self.refused,
            "cpu_s": time.process_time(), "limits": self.limits,
        }  # fmt: skip
        self.latencies_ms, self.ages_s, self.refused = [], [], 0
        return JSONResponse(said)

    async def set_limits(self, request: Request) -> Response:
        wanted: Mapping[str, float] = await request.json()
        async with self.free:
            self.limits.update({k: max(0.0, float(v)) for k, v in wanted.items() if k in LIMITS})
            self.limits["workers"] = min(MOST_WORKERS, max(1.0, self.limits["workers"]))
            self.free.notify_all()
        return JSONResponse(self.limits)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--port", type=int, default=8701)
    port = ask.parse_args().port
    service = Service()
    app = Starlette(
        routes=[
            Route("/sales/{shop:int}", service.answer),
            Route("/stats", service.stats),
            Route("/limits", service.set_limits, methods=["PUT"]),
        ]
    )
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
