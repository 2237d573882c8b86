"""A day in the life of the loop, three times: `make soak`."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from selftune import adaptive, lifecycle, quiet
from selftune.plants import seed_plant, shifting
from selftune.settings import METRICS_FILE
from tests.life import LIVE_TEXT, Stage
from tests.worlds import Chaos, Watchdog, World, both

DAY_S = 24 * 3600.0
GROWN_MB = 12.0  # of resident memory in 20 hours; all that a day writes is 30 MB
LINES_AN_HOUR = 120  # 20 steps at most, with verdicts and holds between


class Work:
    """How much the loop does a tick, in folds, window scans and windows learnt from: not in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ops = 0
        for module, name in ((lifecycle._Told, "add"), (quiet, "tiles_of")):
            real = getattr(module, name)

            def counted(*args, _real=real, **kwargs):  # type: ignore[no-untyped-def]
                self.ops += 1
                return _real(*args, **kwargs)

            monkeypatch.setattr(module, name, counted)
        learn = adaptive.learn

        def learning(windows, slopes):  # type: ignore[no-untyped-def]
            self.ops += len(windows.x)
            return learn(windows, slopes)

        monkeypatch.setattr(adaptive, "learn", learning)


@pytest.mark.soak
@pytest.mark.parametrize(("seed", "wake_s"), [(101, 5), (102, 10), (103, 20)])
def test_a_day_alone_with_changing_regimes(seed: int, wake_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On hosts of three speeds: the loop wakes no sooner than each `wake_s`."""
    work = Work(monkeypatch)
    w = World(shifting(seed_plant()), seed=seed, **{"safety.hard.risk_band.max": 0.42})
    dog = Watchdog(w)
    per_hour: list[tuple[int, int, int]] = []
    for _ in range(24):
        lines, ops, ticks = dog.counts.total(), work.ops, w.ticks
        w.run(DAY_S / 24, each=dog, least_s=wake_s)
        per_hour.append((dog.counts.total() - lines, work.ops - ops, w.ticks - ticks))
    assert max(lines for lines, _, _ in per_hour) <= LINES_AN_HOUR
    early = sum(ops for _, ops, _ in per_hour[1:7]) / sum(t for _, _, t in per_hour[1:7])
    late = sum(ops for _, ops, _ in per_hour[-6:]) / sum(t for _, _, t in per_hour[-6:])
    assert late <= 2 * early + 1, "the work of a tick does not grow with the record"


@pytest.mark.soak
def test_a_day_in_chaos() -> None:
    w = World(seed=104, **{"safety.hard.risk_band.max": 0.42})
    dog = Watchdog(w, exact_time=False)
    w.run(DAY_S, each=both(Chaos(w, 104), dog), least_s=5)
    assert dog.counts.total() <= 24 * LINES_AN_HOUR


def resident_mb() -> float:
    """Resident memory of this process after a collection. Units: MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read resident memory from")
@pytest.mark.parametrize("policy", ["heuristic", "adaptive"])
def test_a_day_on_a_real_disk_in_flat_memory(policy: str, tmp_path: Path) -> None:
    """The loop reads its files as they grow to a day's length, and keeps no more of them than at first."""
    text = LIVE_TEXT.replace("  policy: heuristic ", f"  policy: {policy} ")
    stage = Stage(tmp_path, text=text, spec=shifting(seed_plant()), on_disk=True)
    per_hour = []
    for hour in range(1, 25):
        stage.until(hour * 3600)
        stage.rows.clear()  # the stage's own film and diary
        stage.plans.clear()
        per_hour.append(resident_mb())
    stage.loop.close()
    assert not stage.said, stage.said
    assert (tmp_path / METRICS_FILE).stat().st_size > 15_000_000
    assert max(per_hour[12:]) - max(per_hour[:4]) <= GROWN_MB, per_hour
