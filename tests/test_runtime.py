"""A data root on disk: one snapshot of settings, ledgers and stream, and one commit that loses no race."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selftune import hands
from selftune.book import DECISIONS, HISTORY
from selftune.domain import SettingsError, StaleSnapshot
from selftune.picture import Picture
from selftune.plan import Act
from selftune.rehearsal import FakeClock
from selftune.runtime import Root, data_root
from tests.stage import LIVE, OFF, T0, Levels, acts, iso, made, ms, settings_text

START = 1000.0  # seconds after T0: now


def write_metrics(root: Path, levels: Levels, end: float, start: float = 0.0, seed: int = 1) -> None:
    """Append rows as the tuned system would."""
    file = root / "logs" / "metrics.csv"
    series = made(levels, end, start=start, seed=seed)
    lines = [] if file.exists() else ["ts," + ",".join(series.values)]
    for i, t in enumerate(series.ts_ms):
        lines.append(
            iso((int(t) - T0) / 1000) + "," + ",".join(f"{v[i]:.3f}" for v in series.values.values())
        )
    with file.open("a", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall_ms=ms(START), steady_ms=ms(START))


@pytest.fixture
def live(root: Path) -> Path:
    """A live root whose system is off target, with enough history."""
    (root / "configs" / "self_tuning.yaml").write_text(settings_text(**LIVE), encoding="utf-8")
    write_metrics(root, [(0.0, OFF)], START)
    return root


def lines(root: Path, name: str) -> list[dict[str, object]]:
    file = root / name
    return [json.loads(x) for x in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


# ----------------------------------------------------------------------------- reading
def test_one_snapshot_has_everything(live: Path, clock: FakeClock) -> None:
    snap = Root(live, clock=clock.clock).snapshot()
    assert snap.settings.dry_run is False
    assert len(snap.series) == 5000
    assert snap.config_sha == snap.records.version.settings
    assert snap.ok_at_ms == pytest.approx(ms(START), abs=250)
    assert (snap.settings_problem, snap.epoch_at_ms) == (None, None)


def test_without_settings_there_is_no_root(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(SettingsError):
        Root(tmp_path, clock=clock.clock)


def test_while_the_file_is_broken_the_last_valid_settings_stay_and_nothing_is_written_live(
    live: Path, clock: FakeClock
) -> None:
    root = Root(live, clock=clock.clock)
    assert root.snapshot().settings_problem is None
    file = live / "configs" / "self_tuning.yaml"
    whole = file.read_text(encoding="utf-8")
    file.write_text("targets: [", encoding="utf-8")
    snap = root.snapshot()
    assert snap.settings_problem is not None
    assert snap.settings.cooldown_s == 120
    assert not Picture(snap).mode.live
    root.tick()
    assert not lines(live, HISTORY)
    file.write_text(whole, encoding="utf-8")
    assert root.snapshot().settings_problem is None
    assert Picture(root.snapshot()).mode.live


def test_data_that_were_old_at_the_start_have_been_bad_since_they_ended(live: Path) -> None:
    late = FakeClock(wall_ms=ms(START + 400), steady_ms=ms(START + 400))
    p = Picture(Root(live, clock=late.clock).snapshot())
    assert p.blind_s == pytest.approx(400, abs=1)


def test_a_stream_that_jumps_back_begins_an_epoch_once(live: Path, clock: FakeClock) -> None:
    root = Root(live, clock=clock.clock)
    root.snapshot()
    clock.pass_s(1)
    write_metrics(live, [(0.0, OFF)], START - 500 + 5, start=START - 500)
    clock.wall_ms = ms(START - 494)
    assert root.snapshot().epoch_at_ms == clock.steady_ms
    seen_at = clock.steady_ms
    clock.pass_s(1)
    assert root.snapshot().epoch_at_ms == seen_at


def test_the_fold_is_kept_until_a_record_or_a_setting_moves(live: Path, clock: FakeClock) -> None:
    root = Root(live, clock=clock.clock)
    first = root.snapshot().life
    assert root.snapshot().life is first
    root.tick()
    assert root.snapshot().life is not first
    second = root.snapshot().life
    (live / "configs" / "self_tuning.yaml").write_text(settings_text(**LIVE, cooldown_s=150), "utf-8")
    assert root.snapshot().life is not second


# ----------------------------------------------------------------------------- writing
def test_a_tick_writes_the_decision_and_the_event_that_names_it(live: Path, clock: FakeClock) -> None:
    plan, done = Root(live, clock=clock.clock).tick()
    assert acts(plan) == [("cycle", "step")]
    assert done is not None
    (decision,), (event,) = lines(live, DECISIONS), lines(live, HISTORY)
    assert event["decision"] == decision["id"]
    assert decision["applied"] == [event["id"]]
    assert event["kind"] == "change"
    (x,) = decision["proposals"]
    assert (event["rule"], event["old"], event["new"]) == (x["rule"], x["old"], x["new"])
    assert decision["mode"] == "live"
    assert decision["after"] is None


def test_an_empty_plan_writes_nothing(live: Path, clock: FakeClock) -> None:
    write = live / "configs" / "self_tuning.yaml"
    write.write_text(settings_text(**LIVE, targets__risk_band__max=0.9, targets__phase_diff__max=0.9,
                                   targets__creative_band__min=0.0001), "utf-8")  # fmt: skip
    root = Root(live, clock=clock.clock)
    assert acts(root.tick()[0]) == [("cycle", "hold")]
    before = (live / DECISIONS).read_bytes()
    plan, done = root.tick()
    assert (plan.acts, done) == ((), None)
    assert (live / DECISIONS).read_bytes() == before


def test_whoever_commits_second_reads_again(live: Path, clock: FakeClock) -> None:
    one, two = Root(live, clock=clock.clock), Root(live, clock=clock.clock)
    snap = one.snapshot()
    from_one, _ = one.tick(), two.snapshot()
    assert acts(from_one[0]) == [("cycle", "step")]
    with pytest.raises(StaleSnapshot):
        one.commit(from_one[0], snap)
    assert len(lines(live, HISTORY)) == 1


def test_two_loops_by_accident_make_one_step(live: Path, clock: FakeClock) -> None:
    one, two = Root(live, clock=clock.clock), Root(live, clock=clock.clock)
    one.snapshot(), two.snapshot()
    for _ in range(3):
        one.tick()
        two.tick()
    assert len(lines(live, HISTORY)) == 1


def test_a_hand_that_lost_the_race_asks_its_guards_again(live: Path, clock: FakeClock) -> None:
    root, other = Root(live, clock=clock.clock), Root(live, clock=clock.clock)
    asked = 0

    def wanted(p: Picture) -> tuple[Act, ...]:
        nonlocal asked
        asked += 1
        if asked == 1:
            other.tick()  # the loop was faster
        return hands.stop(p, actor="kim", role="operator", reason="now")

    plan, _ = root.hand(wanted, actor="kim")
    assert asked == 2
    assert [a for _, a in acts(plan)] == ["stop", "return"], "it saw the step that had just been made"
    assert lines(live, HISTORY)[-1]["actor"] == "kim"


def test_a_restart_sees_the_same_life(live: Path, clock: FakeClock) -> None:
    root = Root(live, clock=clock.clock)
    root.tick()
    clock.pass_s(91)
    write_metrics(live, [(0.0, {**OFF, "risk_band": 0.31})], START + 91, start=START)
    root.tick()
    mine = root.snapshot().life
    again = Root(live, clock=clock.clock).snapshot().life
    assert mine is not None
    assert again is not None
    assert (again.values, again.anchor) == (mine.values, mine.anchor)
    assert [(c.id, c.verdict, c.ended) for c in again.changes] == [
        (c.id, c.verdict, c.ended) for c in mine.changes
    ]
    assert mine.changes[0].verdict == "IMPROVED"


def test_a_kill_between_decision_and_event_is_abandoned_at_the_next_start(
    live: Path, clock: FakeClock
) -> None:
    Root(live, clock=clock.clock).tick()
    (live / HISTORY).unlink()  # the decision reached the disk, the event did not
    clock.pass_s(5)
    write_metrics(live, [(0.0, OFF)], START + 5, start=START)
    root = Root(live, clock=clock.clock)
    plan, _ = root.tick()
    assert acts(plan) == [("cycle", "abandon")]
    assert lines(live, DECISIONS)[-1]["abandoned"] == lines(live, DECISIONS)[0]["applied"]
    plan, _ = root.tick()
    assert acts(plan) == [("cycle", "step")], "decided anew, never applied late"
    assert len(lines(live, HISTORY)) == 1


def test_a_root_that_lives_in_seconds(root: Path) -> None:
    """All paces follow from the settings: a whole step and its verdict within a few seconds."""
    fast = {"observe_window_s": 1, "settle_s": 0.2, "history_s": 4, "cooldown_s": 2, "min_samples": 3}
    (root / "configs" / "self_tuning.yaml").write_text(settings_text(**LIVE, **fast), encoding="utf-8")
    clock = FakeClock(wall_ms=ms(START), steady_ms=ms(START))
    write_metrics(root, [(0.0, OFF)], START, start=START - 30)
    loop, level = Root(root, clock=clock.clock), {**OFF}
    seen: list[tuple[str, str | None]] = []
    for i in range(60):
        plan, _ = loop.tick()
        seen += acts(plan)
        at = START + (i + 1) * 0.2
        if ("cycle", "step") in acts(plan):
            level = {**level, "risk_band": level["risk_band"] - 0.02}
        clock.pass_s(0.2)
        write_metrics(root, [(0.0, level)], at, start=at - 0.2, seed=i)
    assert ("cycle", "step") in seen
    assert ("verdict", "evaluate") in seen


# ----------------------------------------------------------------------------- which root
def test_the_root_is_named_by_option_then_environment_then_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFTUNE_ROOT", str(tmp_path / "env"))
    assert data_root(tmp_path / "option") == tmp_path / "option"
    assert data_root() == tmp_path / "env"
    monkeypatch.delenv("SELFTUNE_ROOT")
    assert (data_root() / "configs" / "self_tuning.yaml").is_file()
