"""Worlds drawn from seeds: whatever happens, the promises of loop.md and F15-F17 hold, and life goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selftune.domain import RuleEvent
from selftune.plants import PlantSpec, Regime, harmful, seed_plant, shifting, still
from tests.stage import T0
from tests.worlds import Chaos, Watchdog, World, both

HARD: dict[str, Any] = {"safety.hard.risk_band.max": 0.42}
STRICT: dict[str, Any] = {"strategy.excursion.max_steps": 1, "strategy.confirm": "reversal"}


def noisy(spec: PlantSpec, sd: float) -> PlantSpec:
    return replace(spec, metrics=tuple(replace(m, noise_sd=sd) for m in spec.metrics))


WORLDS: dict[str, tuple[PlantSpec, dict[str, Any]]] = {
    "seed": (seed_plant(), HARD),
    "noise": (noisy(seed_plant(), 0.04), HARD),
    "harm": (harmful(seed_plant(), rule="creative_min", metric="risk_band", per_step=0.04), HARD),
    "gaps": (replace(seed_plant(), gap_share=0.05, gap_s=8.0, missing_share=0.05), {}),
    "flat, two at once": (still(seed_plant()), {"strategy.max_concurrent_changes": 2}),
    "strict": (still(seed_plant()), STRICT),
}


# ----------------------------------------------------------------------------- calm worlds
@pytest.mark.parametrize("name", WORLDS)
def test_a_while_alone(name: str) -> None:
    spec, changes = WORLDS[name]
    w = World(spec, seed=5, **changes)
    dog = Watchdog(w)
    w.run(2700, each=dog, least_s=5)
    assert dog.counts["cycle/step"] > 0
    assert dog.worst_lines_a_tick <= 3


def test_a_while_in_dry_run_writes_no_rule_event() -> None:
    w = World(seed=5, **{"strategy.dry_run": True, **HARD})
    dog = Watchdog(w)
    w.run(1800, each=dog, least_s=5)
    assert dog.counts["cycle/step"] > 0, "it suggests"
    assert not w.ledger.read().events
    assert dog.counts.total() < 60


def test_where_all_targets_are_met_nothing_moves() -> None:
    offset = {"phase_diff": -0.04, "risk_band": -0.06, "creative_band": 0.05}
    w = World(replace(seed_plant(), regimes=(Regime(offset=offset),)), seed=5)
    dog = Watchdog(w)
    w.run(1800, each=dog, least_s=5)
    assert not w.ledger.read().events
    assert dog.counts.total() < 20


@pytest.mark.slow
def test_two_hours_live_with_changing_regimes() -> None:
    w = World(shifting(seed_plant(), every_s=1800.0), seed=5, **HARD)
    dog = Watchdog(w)
    w.run(7200, each=dog, least_s=5)
    assert len(w.steps_since(0)) >= 3
    assert dog.counts.total() < 400


# ----------------------------------------------------------------------------- worlds in chaos
@pytest.mark.parametrize("seed", range(21, 25))
def test_chaos_breaks_no_promise_and_afterwards_life_goes_on(seed: int) -> None:
    name = list(WORLDS)[seed % len(WORLDS)]
    spec, changes = WORLDS[name]
    w = World(spec, seed=seed, **changes)
    dog, chaos = Watchdog(w, exact_time=False), Chaos(w, seed, mean_s=100.0)
    w.run(2700, each=both(chaos, dog), least_s=5)
    chaos.calm()
    since = w.now
    w.run(2400, each=dog, least_s=5)
    done = [d for d in w.decisions() if d.at_ms > T0 + since * 1000 and d.kind != "note"]
    settled = "hold.targets_met" in {r["code"] for d in done for r in d.data["reasons"]}
    assert w.steps_since(since) or settled, chaos.log


# ----------------------------------------------------------------------------- the watchdog bites
def _event(w: World, act: str = "step", kind: str = "change", **more: Any) -> None:
    """A rule event as a faulty loop would write it."""
    key = f"bad-{len(w.ledger.read().events)}"
    w.note({"kind": "cycle", "act": act, "mode": "live", "applied": [key], **more.pop("decision", {})})
    decision = w.ledger.read().decisions[-1].id
    w.write_line(**{"actor": "selftune", "rule": "risk_max", "old": 0.35, "new": 0.33, "id": key,
                    "kind": kind, "decision": decision, **more})  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"new": 0.30}, "more than"),
        ({"new": 0.42}, "out of bounds"),
        ({"new": 0.35}, "changes nothing"),
        ({"old": 0.34}, "not what was in force"),
        ({"decision": {"reasons": []}}, "without a reason"),
        ({"decision": {"mode": "dry_run"}}, "in dry run"),
    ],
)
def test_the_watchdog_sees_each_fault(fault: dict[str, Any], says: str) -> None:
    w = World(seed=5)
    dog = Watchdog(w)
    plan, _ = w.root.tick()
    dog(w, plan)
    _event(w, **fault)
    with pytest.raises(AssertionError, match=says):
        dog(w, plan)


def test_the_watchdog_sees_a_cooldown_that_was_not_kept_and_an_excursion_too_long() -> None:
    w = World(seed=5)
    dog = Watchdog(w)
    plan, _ = w.root.tick()
    _event(w)
    dog(w, plan)
    w.pass_s(60)
    _event(w, old=0.33, new=0.31)
    with pytest.raises(AssertionError, match="again after"):
        dog(w, plan)
    w.pass_s(4000)
    dog = Watchdog(w, seen_events=2, seen_decisions=len(w.ledger.read().decisions))
    with pytest.raises(AssertionError, match="away from the anchor"):
        dog(w, plan)


def test_the_worlds_are_the_same_for_the_same_seed() -> None:
    def story() -> list[RuleEvent]:
        w = World(seed=7)
        w.run(900, each=Chaos(w, 7, mean_s=60.0), least_s=5)
        return [replace(e, key="", id=None, decision=None, reverts=None) for e in w.ledger.read().events]

    assert story() == story()
