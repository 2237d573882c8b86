"""Where the seed's own code falls short (contract.md, last section): one test each that it would fail.

The seed's behaviour is told in each test's first line. Most run the real loop on a plant in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from selftune.book import EFFECTS
from selftune.cli import main
from selftune.config import edit, parse
from selftune.domain import Decision, Proposal, Verdict, WindowStat
from selftune.objective import objective_score
from selftune.plants import seed_plant
from selftune.policy import propose
from selftune.policy_state import Evidence, PolicyState
from selftune.records import stamp
from selftune.rehearsal import Rehearsal
from selftune.runtime import Root
from selftune.samples import SampleStream
from selftune.simulate import Plant

START_MS = 1_763_800_000_000
LIVE = {"strategy.dry_run": False, "governance.approvals_required": 0}
ALL_MET = {"targets.phase_diff.max": 0.5, "targets.creative_band.min": 0.01, "targets.risk_band.max": 0.9,
           "targets.entropy_rate.max": 0.9}  # fmt: skip


def shipped() -> str:
    path = Path(__file__).resolve().parent.parent / "selftune" / "shipped" / "self_tuning.yaml"
    return path.read_text(encoding="utf-8")


def rehearsal(changes: Mapping[str, Any] | None = None, *, rate_hz: float = 5.0) -> Rehearsal:
    """The real loop on the seed's plant, live, in memory."""
    spec = replace(seed_plant(), rate_hz=rate_hz)
    text = edit(shipped(), {**LIVE, **(changes or {})})
    return Rehearsal(Plant(0, spec, start_ms=START_MS), text.encode(), start_ms=START_MS)


def decisions(r: Rehearsal) -> list[Decision]:
    return list(r.ledger.read().decisions)


def ours(r: Rehearsal, rule: str | None = None) -> list[tuple[int, str, float, float]]:
    """(instant, rule, old, new) of the loop's own steps."""
    return [
        (e.ts_ms, e.rule, float(e.old or 0), float(e.new or 0))
        for e in r.ledger.read().events
        if e.actor == "selftune" and (rule is None or e.rule == rule)
    ]


def codes(r: Rehearsal) -> set[str]:
    return {str(g.get("code")) for d in decisions(r) for g in d.data.get("guards") or ()}


HEADER = (
    "rule_ts,actor,rule,old,new,pre_s,post_s,d_phase,d_entropy,d_creative,d_risk,opts_iqr,opts_ema,ema_alpha"
)


def bad_row(r: Rehearsal, *, d_entropy: float = 0.0) -> None:
    """Another program's Δ row that says: phase and risk got worse."""
    ts = stamp(r.fake.wall_ms, r.root.zone)
    row = f"{ts},tracker,risk_max,0.37,0.35,60,60,0.02,{d_entropy},-0.02,0.02,,,"
    r.ledger.put(EFFECTS, f"{HEADER}\n{row}\n".encode())


# ----------------------------------------------------------------------------- evidence
@pytest.mark.slow
def test_one_stale_bad_row_does_not_walk_a_rule_to_its_bound() -> None:
    """Seed: the last row justifies a step in every cycle; risk_max goes from 0.35 to 0.20 in eight."""
    r = rehearsal(ALL_MET)
    bad_row(r)
    r.run(1500)
    assert ours(r) == []  # nothing is off target: an old Δ alone moves nothing
    assert r.values()["risk_max"] == 0.35


@pytest.mark.slow
def test_a_delta_is_spent_once() -> None:
    """Seed: nothing remembers that a Δ has been acted on."""
    r = rehearsal()
    bad_row(r)
    r.run(900)
    used = [d.data["evidence"] for d in decisions(r) if d.applied and d.data.get("evidence")]
    assert len(used) == len(set(used))
    assert len(ours(r)) >= 1


def test_it_starts_without_a_first_row() -> None:
    """Seed: without a row in rules_effects.csv there is never a proposal."""
    r = rehearsal()
    r.run(420)
    assert r.ledger.read().effects_header is None
    ((_, rule, old, new), *_) = ours(r)
    assert (rule, old, new) in (("risk_max", 0.35, 0.33), ("creative_min", 0.22, 0.24))


# ----------------------------------------------------------------------------- settings without effect
@pytest.mark.slow
def test_cooldown_s_keeps_a_rule_still() -> None:
    """Seed: cooldown_s only sets the sleep of one process; a restart steps again at once."""
    r = rehearsal({"cooldown_s": 600})
    r.run(1400)
    for rule in ("risk_max", "creative_min"):
        at = [ts for ts, *_ in ours(r, rule)]
        assert all(b - a >= 600_000 for a, b in pairwise(at))
    assert "guard.cooldown" in codes(r) or len(ours(r)) >= 2


def test_min_samples_holds_a_thin_stream() -> None:
    """Seed: min_samples is never read."""
    r = rehearsal(rate_hz=1.0)
    r.run(420)
    assert ours(r) == []
    assert codes(r) & {"guard.rate_too_low", "guard.samples"}


def test_safety_warn_holds_new_changes_back() -> None:
    """Seed: only the undocumented phase_bad is read, entropy_rate never."""
    r = rehearsal()
    r.run(250)
    bad_row(r, d_entropy=0.05)
    r.run(200)
    assert ours(r) == []
    assert "guard.warn" in codes(r)


def policy_state(text: str, *, off: str, evidence: Evidence | None = None) -> PolicyState:
    s = parse(text)
    means = {"phase_diff": 0.01, "creative_band": 0.5, "risk_band": 0.1, "entropy_rate": 0.1}
    means |= {m: 0.5 for m in s.targets if m not in means}
    bad = {"phase_diff": 0.2, "creative_band": 0.1, "risk_band": 0.6}
    means[off] = bad.get(off, 2.0)
    windows = {
        m: WindowStat(mean=x, se=0.001, n=450, start_ms=0, end_ms=90_000)
        for m, x in means.items()
        if m in s.targets
    }
    values = {n: rule.init for n, rule in s.rules.items()}
    return PolicyState(settings=s, values=values, anchor=values, windows=windows, evidence=evidence)


def proposed(state: PolicyState) -> Proposal:
    found = propose(state)
    assert isinstance(found, tuple)
    return found[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_direction_says_which_way(sign: int) -> None:
    """Seed: risk_max always goes down and creative_min up, whatever `direction` says."""
    text = edit(shipped(), {"strategy.direction.risk_max": sign})
    assert proposed(policy_state(text, off="risk_band")).step * sign > 0


@pytest.mark.parametrize(("weight", "rule"), [(9.0, "creative_min"), (0.1, "risk_max")])
def test_weight_says_which_rule(weight: float, rule: str) -> None:
    """Seed: `weight` is never read."""
    text = edit(shipped(), {"rules.creative_min.weight": weight, "strategy.policy": "heuristic"})
    assert proposed(policy_state(text, off="entropy_rate")).rule == rule


def test_objective_weights_make_the_score() -> None:
    """Seed: there is no score."""
    means = {"phase_diff": 0.075, "creative_band": 0.24, "risk_band": 0.30, "entropy_rate": 0.28}
    light = objective_score(parse(shipped()), means)
    heavy = objective_score(parse(edit(shipped(), {"strategy.objective_weights.phase_diff": 12})), means)
    assert light == pytest.approx((1.2 * 0.5 + 1.0 + 0.8) / 3.0)
    assert heavy is not None
    assert light is not None
    assert heavy < light


# ----------------------------------------------------------------------------- the way back
def test_events_carry_old_and_a_rollback_writes_a_number(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed: its events have no `old`, so that its rollback writes null."""
    r = rehearsal()
    r.run(420)
    assert all(e.old is not None for e in r.ledger.read().events)

    history = root / "controls" / "rules_history.jsonl"
    history.write_text(
        '{"ts": "2025-10-05T10:00:00+09:00", "actor": "Lumen", "rule": "risk_max", "new": 0.31}\n'
    )
    assert main(["--root", str(root), "rollback"]) == 0
    last = json.loads(history.read_text().splitlines()[-1])
    assert (last["old"], last["new"]) == (0.31, 0.35)


# ----------------------------------------------------------------------------- files
def test_a_cycle_reads_only_what_is_new(root: Path) -> None:
    """Seed: every cycle reads every file from its first byte."""
    metrics = root / "logs" / "metrics.csv"
    head = "ts,phase_diff,entropy_rate,creative_band,risk_band\n"
    opened = Root(root)
    rows = [f"{stamp(START_MS + i * 200, opened.zone)},0.1,0.2,0.2,0.3\n" for i in range(20_000)]
    metrics.write_text(head + "".join(rows))
    opened.snapshot()
    stream = opened.stream
    assert isinstance(stream, SampleStream)
    for _ in range(40):  # the past is read on in small pieces, until it is known
        opened.snapshot()
    before = stream.state.bytes_read
    with open(metrics, "a", encoding="utf-8") as f:
        f.write(f"{stamp(START_MS + 20_001 * 200, opened.zone)},0.1,0.2,0.2,0.3\n")
    opened.snapshot()
    assert stream.state.bytes_read - before < 4096 < metrics.stat().st_size


def test_torn_lines_are_counted_and_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seed: `except: pass`."""
    (root / "controls" / "rules_history.jsonl").write_text(
        '{"ts": "2025-10-05T10:00:00+09:00", "rule": "risk_max", "new": 0.33}\n{"ts": "2025-10-0\n'
        '{"ts": "2025-10-05T10:02:00+09:00", "rule": "risk_max", "new": 0.31}\n'
    )
    assert main(["--root", str(root), "status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["values"]["risk_max"] == 0.31  # what follows the torn line is not lost
    assert status["files"]["controls/rules_history.jsonl"]["rejects"] == {"not_json": 1}
    assert main(["--root", str(root), "check", "--lang", "en"]) == 0
    assert (
        "controls/rules_history.jsonl: lines set aside or mended: 1 that are not JSON (line 2)"
        in capsys.readouterr().out
    )


def test_a_backtest_that_does_not_exist_does_not_pretend(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed: the backtest prints a sentence and ends with 0."""
    assert main(["--root", str(root), "backtest"]) in (2, 3)  # an empty root is too short to replay
    assert capsys.readouterr().out == ""


def test_a_verdict_needs_data() -> None:
    """Seed: a missing Δ is read as "not good", so that no data moves rules."""
    r = rehearsal()
    r.run(310)
    assert len(ours(r)) == 1
    r.writing = False  # the metrics stop just after the first step
    r.run(600)
    verdicts = [d.data.get("verdict") for d in decisions(r) if d.act == "evaluate"]
    assert verdicts == [Verdict.INCONCLUSIVE.value]
    assert r.values()["risk_max"] == 0.35  # blind: back to the values with evidence
    assert len(ours(r)) == 2
