"""How often the live parts of all open pages renew themselves: as chosen, or longer when the server is busy.

Answers "how much of a core would the chosen paces cost?" from what this very process spent, so that it
holds on any machine. Never draws, never reads a file; clocks are handed in, so that a test may drive them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

BUSY = 0.5  # of one core: all live parts together may cost so much; the rest is for people who click
WINDOW_S = 5.0  # over so long it is measured
RUNGS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # times the chosen pace; steps, so that it does not tremble
EASY = 0.8  # back to a lower rung only when it would cost less than this share of BUSY
LONGEST_S = 60.0
JITTER = 0.1


@dataclass(frozen=True)
class _Part:
    chosen_s: float
    told_s: float
    seen: float


class Pace:
    """The paces of one process; safe to use from any thread.

    `clock`: seconds that never jump. `spent`: seconds of a core that this process has used so far.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, spent: Callable[[], float] = time.process_time
    ) -> None:
        self._clock, self._spent = clock, spent
        self._lock = threading.Lock()
        self._parts: dict[tuple[str, str], _Part] = {}
        self._start, self._spent_then, self._draws = clock(), spent(), 0
        self._demand = 0.0
        self._rung = RUNGS[0]
        self._sessions = 0

    @property
    def stretch(self) -> float:
        """How many times longer than chosen the paces are now."""
        return self._rung

    @property
    def sessions(self) -> int:
        """How many sessions renew something now."""
        return self._sessions

    def every_s(self, who: str, part: str, chosen_s: float, longest_s: float = LONGEST_S) -> float:
        """The pace for a part that session `who` opens. Units: seconds; 0 = never, as chosen."""
        if chosen_s <= 0:
            with self._lock:
                self._parts.pop((who, part), None)
            return 0.0
        with self._lock:
            told = self._pace(who, chosen_s, longest_s)
            self._parts[who, part] = _Part(chosen_s, told, self._clock())
            self._count()
            return told

    def drawn(self, who: str, part: str, chosen_s: float, longest_s: float = LONGEST_S) -> float | None:
        """Counts one drawing of a part; its new pace when that is no longer what it was told, else None."""
        if chosen_s <= 0:
            return None
        with self._lock:
            self._draws += 1
            self._measure()
            known = self._parts.get((who, part))
            told = self._pace(who, chosen_s, longest_s)
            self._parts[who, part] = _Part(chosen_s, told, self._clock())
            return None if known is not None and known.told_s == told else told

    def paced_s(self, who: str, chosen_s: float) -> float:
        """The pace that `who` would be told now for what they chose. Units: seconds."""
        with self._lock:
            return self._pace(who, chosen_s, LONGEST_S)

    # ------------------------------------------------------------------------ under the lock
    def _pace(self, who: str, chosen_s: float, longest_s: float) -> float:
        if self._rung == 1.0:
            return chosen_s
        longer = max(chosen_s, min(longest_s, chosen_s * self._rung))
        own = 1 - JITTER * (crc32(who.encode()) % 1000) / 1000  # so that they do not all ask together
        return max(chosen_s, longer * own)

    def _measure(self) -> None:
        """At the end of a window: what the chosen paces would cost, and the rung that keeps it below BUSY."""
        now = self._clock()
        wall = now - self._start
        if wall < WINDOW_S:
            return
        spent = self._spent()
        self._parts = {k: p for k, p in self._parts.items() if now - p.seen < 2 * p.told_s + WINDOW_S}
        self._count()
        wanted = sum(1 / p.chosen_s for p in self._parts.values())
        # What was drawn cost so much; what was chosen would have cost in proportion, never less.
        scale = max(1.0, wanted * wall / self._draws)
        self._demand = (self._demand + scale * (spent - self._spent_then) / wall) / 2
        self._start, self._spent_then, self._draws = now, spent, 0
        self._rung = self._fitting()

    def _fitting(self) -> float:
        up = _rung_for(self._demand / BUSY)
        return up if up >= self._rung else min(self._rung, _rung_for(self._demand / (BUSY * EASY)))

    def _count(self) -> None:
        self._sessions = len({who for who, _ in self._parts})


def _rung_for(times: float) -> float:
    """The lowest rung that is at least `times`."""
    return next((r for r in RUNGS if r >= times), RUNGS[-1])
