"""A changing load: the same requests at the same moments for one or several services.

    python examples/live_service/load.py --ports 8701 8702 --rate 60 --shift-at 600 --shift-rate 90

Open loop: visitors come in bursts (Poisson, about `BURST` requests each) whether or not the last were
answered. Popular shops are asked for more often (Zipf). At `--shift-at` seconds the rate changes and nearly
everybody asks for the same few shops: a cache then helps more, and its answers are older for the same
lifetime. Ends after `--seconds`, or on a signal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import time
from itertools import accumulate

SHOPS, BURST, CONNECTIONS = 400, 5.0, 64
BEFORE, AFTER = 1.1, 2.0  # exponents of the popularity before and after the shift


def popularity(exponent: float) -> list[float]:
    return list(accumulate((i + 1) ** -exponent for i in range(SHOPS)))


class Target:
    """Connections to one service that are kept open and used again."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.room = asyncio.Semaphore(CONNECTIONS)
        self.sent = self.answered = self.refused = 0

    async def ask(self, shop: int) -> None:
        self.sent += 1
        async with self.room:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                reader, writer = self.idle.pop() if self.idle else await self._open()
                writer.write(f"GET /sales/{shop} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
                self.idle.append((reader, writer))
                self.answered += " 200 " in head
                self.refused += " 503 " in head

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


async def run(args: argparse.Namespace) -> None:
    dice, targets, tasks = random.Random(args.seed), [Target(p) for p in args.ports], set()
    shares, begin, at = {e: popularity(e) for e in (BEFORE, AFTER)}, time.monotonic(), 0.0
    while at < args.seconds:
        late = args.shift_at is not None and at >= args.shift_at
        rate, share = (args.shift_rate, shares[AFTER]) if late else (args.rate, shares[BEFORE])
        at += dice.expovariate(rate / BURST)
        burst = [
            dice.choices(range(SHOPS), cum_weights=share)[0]
            for _ in range(round(dice.expovariate(1 / BURST)))
        ]
        await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
        for shop in burst:
            for target in targets:
                task = asyncio.create_task(target.ask(shop))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for t in targets:
        print(f"{t.port}: {t.sent} sent, {t.answered} answered, {t.refused} refused")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--ports", type=int, nargs="+", default=[8701])
    ask.add_argument("--rate", type=float, default=60.0, help="requests a second")
    ask.add_argument("--shift-at", type=float, default=None, help="seconds after the start")
    ask.add_argument("--shift-rate", type=float, default=90.0)
    ask.add_argument("--seconds", type=float, default=float("inf"))
    ask.add_argument("--seed", type=int, default=1)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(ask.parse_args()))


if __name__ == "__main__":
    main()
