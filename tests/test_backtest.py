"""The backtest on the record: no look ahead, same inputs same bytes, honest where nobody can know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from selftune import backtest_replay, standing
from selftune import backtest_runs as runs
from selftune.backtest import run
from selftune.backtest_data import Handle, Recorded, read_record, read_samples
from selftune.backtest_entries import entries
from selftune.backtest_pool import pool, quiet
from selftune.backtest_replay import Leg, Walk, replay_all, walked
from selftune.backtest_request import Candidate, Request
from selftune.backtest_result import Result, Support
from selftune.backtest_story import Story
from selftune.book import DECISIONS
from selftune.cli import main
from selftune.config import edit, parse
from selftune.domain import InputError, PolicyName
from selftune.effects import Measured
from selftune.objective import objective_score
from selftune.picture import Picture
from selftune.plants import seed_plant
from selftune.runtime import Root
from selftune.simulate import Plant
from selftune.tuned import MetricsFile, iso

ZONE = ZoneInfo("Asia/Seoul")
START = 1_790_000_000_000
SHIPPED = Path(__file__).resolve().parent.parent / "configs" / "self_tuning.yaml"
MOVES = ((900, "risk_max", 0.35, 0.33), (2400, "risk_max", 0.33, 0.35), (3300, "creative_min", 0.22, 0.23),
         (4800, "creative_min", 0.23, 0.22))  # fmt: skip
HOURS = 1.6


def make(
    root: Path, *, moves: tuple[tuple[int, str, float, float], ...] = MOVES, hours: float = HOURS
) -> Path:
    """A data root whose system is the plant, with these rule changes (second, rule, old, new)."""
    for folder in ("configs", "controls", "logs"):
        (root / folder).mkdir(parents=True)
    text = edit(SHIPPED.read_text(encoding="utf-8"), {"strategy.policy": "heuristic"})  # whole steps of lr
    (root / "configs" / "self_tuning.yaml").write_text(text, encoding="utf-8")
    changes = [(START + s * 1000, rule, new) for s, rule, _, new in moves]
    rows = Plant(3, seed_plant(), start_ms=START).run({}, round(hours * 18_000), changes=changes)
    MetricsFile(root / "logs" / "metrics.csv", seed_plant(), ZONE).append(rows)
    lines = [
        json.dumps({"ts": iso(START + s * 1000, ZONE), "actor": "kim", "rule": r, "old": a, "new": b}) + "\n"
        for s, r, a, b in moves
    ]
    (root / "controls" / "rules_history.jsonl").write_text("".join(lines), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("record") / "root")


@pytest.fixture
def root(recorded: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(recorded, tmp_path / "root", ignore=shutil.ignore_patterns("backtests")))


def asked(root: Path, **more: object) -> Request:
    """A request whose candidates carry their text."""
    request = Request(**more)  # type: ignore[arg-type]
    return replace(request, candidates=tuple(runs.resolved(root, request.candidates)))


def told(story: Story) -> bytes:
    return (
        json.dumps([[w.ts_ms, w.rule, w.old, w.new] for w in story.wanted]).encode()
        + str(sorted((k, n) for k, n in story.holds.items() if k[1])).encode()
    )


# ----------------------------------------------------------------------------- no look ahead
@pytest.mark.parametrize("policy", [PolicyName.HEURISTIC, PolicyName.ADAPTIVE])
def test_what_comes_later_changes_no_earlier_choice(recorded: Path, policy: PolicyName) -> None:
    """The future is made another one; up to that instant every choice is the same to the byte."""
    request = asked(recorded, candidates=(Candidate(name="c", policy=policy),))
    one = entries(request)[0]
    record = read_record(recorded, one.settings)
    cut = START + 3_000_000
    samples, later = record.samples, record.samples.ts_ms > cut
    values = samples.values.copy()
    values[:, later] = 1 - values[:, later]
    known = tuple(e for e in record.events if e.ts_ms <= cut)
    other = replace(record, samples=replace(samples, values=values), events=known)

    def walk(r: object) -> Story:
        leg = Leg(data=Handle(record=r), raw=one.raw, watch_ms=START, from_ms=START, to_ms=record.to_ms)  # type: ignore[arg-type]
        return walked(leg, quiet)

    def upto(s: Story) -> list[object]:
        return [w for w in s.wanted if w.ts_ms <= cut]

    a, b = walk(record), walk(other)
    assert upto(a) == upto(b)
    assert len(upto(a)) > 5
    assert told(a) != told(b), "the future is another one, or this test shows nothing"


@pytest.mark.parametrize("cut", [985_000, 1_001_000, 2_530_000, None])
def test_changes_measured_together_decide_as_if_each_waited_its_turn(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, cut: int | None
) -> None:
    """All that is written, to the byte; also where the rows after a while are others, or there are none."""
    one = entries(asked(recorded, candidates=(Candidate(name="c", policy=PolicyName.HEURISTIC),)))[0]
    record = read_record(recorded, one.settings)
    end = record.to_ms if cut is None else START + cut

    def written(r: Recorded) -> bytes:
        walk = Walk(r, one.raw, start_ms=START)
        while walk.now_ms < end:
            walk.look()
            walk.now_ms += 31_000
        return bytes(walk.ledger._memory.data[DECISIONS])

    used: list[bool] = []
    answer = Measured.of
    monkeypatch.setattr(
        Measured, "of", lambda self, frame: (used.append((got := answer(self, frame)) is not None), got)[1]
    )
    together = written(record)
    assert all(used) and len(used) == sum(START + s * 1000 + 91_000 <= end for s, *_ in MOVES)
    with monkeypatch.context() as patch:
        patch.setattr(backtest_replay, "measured_ahead", lambda *_: Measured())
        alone = written(record)
    assert together == alone
    assert alone.count(b'"evaluate"') == sum(START + s * 1000 + 91_000 <= end for s, *_ in MOVES)
    if cut is not None:
        values = record.samples.values.copy()
        values[:, record.samples.ts_ms > end] = 0.5
        assert written(replace(record, samples=replace(record.samples, values=values))) == alone


# ----------------------------------------------------------------------------- the same bytes
def test_the_same_inputs_give_the_same_bytes(
    recorded: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = []
    for place in (recorded, root):
        assert main(["--root", str(place), "backtest", "--json", "--seed", "3"]) == 0
        out.append(capsys.readouterr().out)
    assert out[0] == out[1]
    said = json.loads(out[0])
    assert set(said) == {"reproduce", "period", "candidates"}
    assert set(said["reproduce"]) == {"data_sha256", "config", "version", "seed"}
    assert set(said["candidates"][0]) == {
        "name", "policy", "score", "support", "changes", "rollbacks", "worst_window"
    }  # fmt: skip
    assert [c["name"] for c in said["candidates"]] == ["in_force", "none", "heuristic"]


def test_the_digest_is_of_the_data_that_were_used(recorded: Path, root: Path) -> None:
    """Another value inside the period is another digest; one outside is not."""
    period = {"from_ms": START + 600_000, "to_ms": START + 3_600_000}
    before = run(recorded, asked(recorded, **period)).data_sha256
    path = root / "logs" / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:10], *lines[11:]]))
    assert run(root, asked(root, **period)).data_sha256 == before
    path.write_text("".join([*lines[:9000], *lines[9001:]]))
    assert run(root, asked(root, **period)).data_sha256 != before


def test_many_workers_find_what_one_finds(recorded: Path, tmp_path: Path) -> None:
    """Through files and processes, or here and now: one result."""
    found = entries(asked(recorded))
    record = read_record(recorded, found[0].settings)
    here = replay_all(Handle(record=record), found, None, quiet)
    record.put(tmp_path / "data")
    with pool(2) as executor:
        there = replay_all(Handle(folder=str(tmp_path / "data")), found, executor, quiet)
    assert [o.as_json() for o in here] == [o.as_json() for o in there]


def test_a_result_survives_its_json(recorded: Path) -> None:
    result = run(recorded, asked(recorded))
    assert Result.of(json.loads(json.dumps(result.as_json()))).as_json() == result.as_json()


# ----------------------------------------------------------------------------- what can be known
def test_values_that_were_visited_have_support_and_others_have_none(recorded: Path) -> None:
    """risk_max was at .33 and .35; a system that never moved can tell nothing of other values."""
    found = run(recorded, asked(recorded))
    mine = found.outcomes[0]
    assert mine.support is not Support.NONE
    assert mine.score is not None
    followed = [p for p in mine.proposals if p.followed]
    assert any(p.rule == "risk_max" and p.old == 0.35 and p.new == 0.33 for p in followed)
    assert all(p.gain is not None for p in followed)


def test_a_record_without_changes_gives_no_score_to_whoever_would_change(tmp_path: Path) -> None:
    still = make(tmp_path / "still", moves=())
    found = run(still, asked(still))
    mine, nothing = found.outcomes[0], found.outcomes[1]
    assert mine.changes > 0
    assert (mine.score, mine.support, mine.worst) == (None, Support.NONE, None)
    assert nothing.score is not None
    assert nothing.support is Support.OK
    assert [n.code for n in found.notes] == ["backtest.note_no_events"]


def test_a_root_that_lives_faster_than_ten_seconds_has_answers_too(tmp_path: Path) -> None:
    """With windows of 15 s the 10 s bins show nothing; the record's samples do (examples/live_service)."""
    fast = make(tmp_path / "fast")
    quick = {
        "observe_window_s": 15, "settle_s": 3, "history_s": 90, "cooldown_s": 15, "min_samples": 60,
    }  # fmt: skip
    file = fast / "configs" / "self_tuning.yaml"
    file.write_text(edit(file.read_text(encoding="utf-8"), quick), encoding="utf-8")
    found = run(fast, asked(fast))
    nothing = found.outcomes[1]
    assert nothing.support is Support.OK and nothing.score is not None
    assert found.outcomes[0].support_share > 0


def test_the_gain_is_the_planted_one(tmp_path: Path) -> None:
    """One step of risk_max down lowers risk_band by a known amount; the replay finds its worth."""
    home = make(
        tmp_path / "gain", moves=((1800, "risk_max", 0.35, 0.33), (5400, "risk_max", 0.33, 0.35)), hours=2.5
    )
    settings = parse((home / "configs/self_tuning.yaml").read_bytes())
    spec = seed_plant()
    low = objective_score(settings, spec.true_means({**spec.init, "risk_max": 0.33}))
    high = objective_score(settings, spec.true_means(spec.init))
    assert low is not None
    assert high is not None
    steps = [
        p for p in run(home, asked(home)).outcomes[0].proposals if p.rule == "risk_max" and p.old == 0.35
    ]
    first = next(p for p in steps if p.followed)
    assert first.gain is not None
    assert first.gain.mean == pytest.approx(low - high, abs=0.05)


# ----------------------------------------------------------------------------- bad input
def spoilt(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "logs" / "metrics.csv"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return spoil


BAD: tuple[tuple[Callable[[Path], object], str], ...] = (
    (lambda r: (r / "logs/metrics.csv").unlink(), "backtest_no_metrics"),
    (lambda r: (r / "logs/metrics.csv").write_text(""), "backtest_no_rows"),
    (spoilt(lambda ls: ls[:1]), "backtest_no_rows"),
    (spoilt(lambda ls: ls[1:]), "backtest_no_header"),
    (spoilt(lambda ls: ["ts,a,b,c,d\n", *ls[1:]]), "backtest_other_metrics"),
    (spoilt(lambda ls: ls[:600]), "backtest_too_short"),
)


@pytest.mark.parametrize(("spoil", "code"), BAD, ids=[f"{c}-{i}" for i, (_, c) in enumerate(BAD)])
@pytest.mark.parametrize("lang", ["ko", "en"])
def test_bad_input_is_told_in_words_with_exit_3(
    root: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], code: str, lang: str
) -> None:
    spoil(root)
    with pytest.raises(InputError) as caught:
        run(root, asked(root))
    assert [p.code for p in caught.value.problems] == [code]
    assert main(["--root", str(root), "--lang", lang, "backtest", "--json"]) == 3
    done = capsys.readouterr()
    assert done.out == ""
    assert done.err.strip()
    assert code not in done.err


def test_a_period_outside_the_record_is_exit_3(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(root), "backtest", "--from", "2001-01-01", "--to", "2001-01-02"]) == 3
    assert "2026" in capsys.readouterr().err


def test_a_period_that_runs_backwards_is_bad_usage(root: Path) -> None:
    assert main(["--root", str(root), "backtest", "--from", "2001-01-02", "--to", "2001-01-01"]) == 2


def test_settings_that_are_not_valid_are_exit_2(root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("targets: 3\n")
    assert main(["--root", str(root), "backtest", "--settings", str(bad)]) == 2
    assert main(["--root", str(root), "backtest", "--settings", str(tmp_path / "none.yaml")]) == 2


def test_gaps_torn_rows_and_a_clock_set_back_do_no_harm(root: Path) -> None:
    path = root / "logs" / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    odd = ["garbage\n", "1,2\n", lines[500]]  # a row that was written twice
    path.write_text("".join([*lines[:4000], *odd, *lines[7000:20000], *lines[19900:], "2026-"]))
    found = run(root, asked(root))
    assert found.outcomes[0].looks > 5
    ts = read_samples(root, parse(SHIPPED.read_bytes())).ts_ms
    assert bool((np.diff(ts) > 0).all())


@pytest.mark.parametrize(
    "header",
    [
        "rule_ts,actor,rule,old,new,pre_s,post_s,d_phase,d_entropy,d_creative,d_risk,opts_iqr,opts_ema,ema_alpha",
        "rule_ts,actor,rule,old,new,pre_phase,post_phase,d_phase,pre_risk,post_risk,d_risk",
        "what,is,this",
    ],
)
def test_effects_of_any_header_change_nothing(root: Path, header: str) -> None:
    """What a change did is measured anew; whoever wrote the effects file, in whatever form."""
    before = run(root, asked(root))
    cells = ",".join(["2026-09-21T22:00:00+09:00", "kim", "risk_max"] + ["0.1"] * (header.count(",") - 2))
    (root / "logs" / "rules_effects.csv").write_text(f"{header}\n{cells}\n")
    assert run(root, asked(root)).as_json() == before.as_json()


def test_the_familys_history_without_old_values_is_enough(root: Path) -> None:
    path = root / "controls" / "rules_history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in x.items() if k != "old"}) + "\n" for x in lines))
    found = run(root, asked(root))
    assert found.events == len(MOVES)
    assert found.outcomes[0].score is not None


def test_a_header_in_mid_file_holds_for_what_follows(root: Path) -> None:
    """The columns change their order half way: the values stay with their names."""
    settings = parse(SHIPPED.read_bytes())
    before = read_samples(root, settings)
    path = root / "logs" / "metrics.csv"
    lines = path.read_text().splitlines()
    turned = [
        ",".join([c[0], *reversed(c[1:])]) for c in (line.split(",") for line in [lines[0], *lines[9000:]])
    ]
    path.write_text("\n".join([*lines[:9000], *turned]) + "\n")
    after = read_samples(root, settings)
    assert np.array_equal(before.ts_ms, after.ts_ms)
    assert np.array_equal(before.values, after.values, equal_nan=True)


def test_of_equal_instants_the_last_written_stays(recorded: Path, tmp_path: Path) -> None:
    """Rows written twice are the commonest fault of a writer: they have a path of their own."""
    root = tmp_path / "twice"
    shutil.copytree(recorded, root)
    settings = parse((root / "configs/self_tuning.yaml").read_bytes())
    before, file = read_samples(root, settings), root / "logs/metrics.csv"
    header, *lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    wrong = [f"{line.split(',')[0]},0.5,0.5,0.5,0.5\n" for line in lines[::100]]
    both = [x for i, line in enumerate(lines) for x in ([wrong[i // 100], line] if i % 100 == 0 else [line])]
    file.write_text("".join([header, *both]), encoding="utf-8")
    after = read_samples(root, settings)
    assert after.ts_ms.tolist() == before.ts_ms.tolist()
    assert after.values.tobytes() == before.values.tobytes()
    assert after.values.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ([100_000, 100_000, 100_000], 11),  # three rows ahead are a clock, also when they are one instant
        ([100_000, 100_250, 100_250], 12),
        ([100_000, 100_000], 10),  # two may be a stray, and are left out at the end
        ([2_250], 10),
    ],
)
def test_rows_written_twice_count_for_a_leap_at_the_end(root: Path, after: list[int], kept: int) -> None:
    stamps = [*range(0, 2_500, 250), *after]
    lines = [f"{iso(1_790_000_000_000 + ms, ZoneInfo('UTC'))},0.1,0.2,0.3,0.4\n" for ms in stamps]
    header = "ts,phase_diff,entropy_rate,creative_band,risk_band\n"
    (root / "logs/metrics.csv").write_text(header + "".join(lines), encoding="utf-8")
    assert len(read_samples(root, parse(SHIPPED.read_bytes()))) == kept


# ----------------------------------------------------------------------------- the review's question
def test_the_review_sees_the_newest_backtest_of_the_settings_in_force(root: Path) -> None:
    def tested() -> object:
        return standing.tested_of(root, Picture(Root(root).snapshot()))

    assert tested() is None
    assert main(["--root", str(root), "backtest", "--policy", "none"]) == 0
    assert tested() is None, "another policy is not what is in force"
    assert main(["--root", str(root), "backtest"]) == 0
    found = standing.tested_of(root, Picture(Root(root).snapshot()))
    assert found is not None
    assert found.worst is not None
    assert found.run == runs.listing(root)[0].id
    path = root / "configs" / "self_tuning.yaml"
    path.write_text(edit(path.read_text(), {"targets.risk_band.max": 0.31}))
    assert tested() is None, "other settings have not been tried"
