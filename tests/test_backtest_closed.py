"""Simulate, plant and sweeps: the planted truth is found again, the same seed gives the same lives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selftune import backtest_simulate
from selftune.backtest import run
from selftune.backtest_closed import Shifted, values_at
from selftune.backtest_data import Handle, read_record
from selftune.backtest_figures import scores
from selftune.backtest_pool import pool
from selftune.backtest_request import Axis, Candidate, Method, Mode, Request, Source, Sweep
from selftune.backtest_response import Response, learned, scaled
from selftune.backtest_result import Interval, Result, Support, SweepPoint
from selftune.backtest_score import all_quiet
from selftune.backtest_sweep import points, ranked, swept
from selftune.config import edit, parse
from selftune.domain import InputError
from selftune.objective import objective_score
from selftune.plants import seed_plant
from tests.test_backtest import SHIPPED, asked, make

MOVES = tuple(
    (900 + 350 * i, rule, a, b)
    for i, (rule, a, b) in enumerate(
        [
            ("risk_max", 0.35, 0.33), ("creative_min", 0.22, 0.23), ("risk_max", 0.33, 0.31),
            ("creative_min", 0.23, 0.24), ("risk_max", 0.31, 0.29), ("creative_min", 0.24, 0.23),
            ("risk_max", 0.29, 0.31), ("creative_min", 0.23, 0.22), ("risk_max", 0.31, 0.33),
            ("risk_max", 0.33, 0.35), ("risk_max", 0.35, 0.33), ("creative_min", 0.22, 0.23),
        ]
    )
)  # fmt: skip
TEXT = SHIPPED.read_text(encoding="utf-8")
HEURISTIC = edit(TEXT, {"strategy.policy": "heuristic"})
WRONG = edit(HEURISTIC, {"strategy.direction.risk_max": 1})


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An hour and a half in which both rules went one way and back again."""
    return make(tmp_path_factory.mktemp("walked") / "root", moves=MOVES, hours=1.5)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest_simulate, "DRAWS", 2)
    monkeypatch.setattr(backtest_simulate, "PLANT_SEEDS", 2)
    monkeypatch.setattr(backtest_simulate, "PLANT_S", 1500.0)
    monkeypatch.setattr(backtest_simulate, "LONGEST_S", 3000.0)


def response_of(root: Path) -> tuple[Response, tuple[str, ...]]:
    settings = parse(TEXT)
    record = read_record(root, settings)
    found = learned(all_quiet(record.bins, record.events, (), settings), settings)
    assert found is not None
    return found, settings.metrics


def test_the_planted_slope_is_learned_with_its_doubt(walked: Path) -> None:
    """What one step of risk_max does to risk_band: the draws cover the truth, and are not all alike."""
    response, metrics = response_of(walked)
    spec, k = seed_plant(), metrics.index("risk_band")
    at = [scaled(response.rules, {**spec.init, "risk_max": v}) for v in (0.35, 0.31)]
    truth = np.diff([spec.true_means({**spec.init, "risk_max": v})["risk_band"] for v in (0.35, 0.31)])[0]
    chance = np.random.default_rng(1)
    surfaces = [response.drawn(chance.standard_normal(response.means.shape)) for _ in range(200)]
    found = np.array([np.diff(s.many(np.array(at))[:, k])[0] for s in surfaces])
    assert abs(found.mean() - truth) < 3 * found.std() + 0.002
    assert 0 < found.std() < abs(truth)


def test_where_nothing_moved_nothing_is_learned(tmp_path: Path) -> None:
    still = make(tmp_path / "still", moves=())
    with pytest.raises(InputError) as caught:
        run(still, asked(still, mode=Mode.SIMULATE))
    assert [p.code for p in caught.value.problems] == ["backtest_nothing_learned"]


def test_a_life_at_the_recorded_values_is_the_record(walked: Path) -> None:
    """Under the very values that were in force the model changes nothing, to the last digits."""
    settings = parse(TEXT)
    record = read_record(walked, settings)
    response, _ = response_of(walked)
    system = Shifted(record, response.drawn(), settings)
    parts = []
    for e in [*record.within, None]:
        end = record.to_ms if e is None else e.ts_ms
        parts.append(system.advance(values_at(record, settings, end - 1), end))
    for m, recorded in zip(record.samples.metrics, record.samples.values, strict=True):
        lived = np.concatenate([p.values[m] for p in parts])
        assert np.allclose(lived, recorded, atol=2e-3, equal_nan=True)


def test_the_right_direction_is_ranked_before_the_wrong_one(walked: Path) -> None:
    candidates = (
        Candidate(name="wrong", source=Source.DRAFT, text=WRONG),
        Candidate(name="right", source=Source.DRAFT, text=HEURISTIC),
    )
    found = run(walked, asked(walked, mode=Mode.SIMULATE, candidates=candidates, baselines=None))
    by_name = {o.name: o for o in found.outcomes}
    right, best = by_name["right"], by_name["oracle"]
    assert right.score is not None
    assert best.score is not None
    assert right.gain is not None
    assert right.gain.mean > 0
    wrong = by_name["wrong"]
    assert wrong.score is None or wrong.score.mean < right.score.mean
    assert best.score.mean >= right.score.mean - 0.01
    assert [o.role for o in found.outcomes] == [
        "candidate",
        "candidate",
        "none",
        "heuristic",
        "record",
        "oracle",
    ]
    assert Result.of(json.loads(json.dumps(found.as_json()))).as_json() == found.as_json()


@pytest.mark.parametrize("mode", [Mode.SIMULATE, Mode.PLANT])
def test_the_same_seed_gives_the_same_lives(walked: Path, mode: Mode) -> None:
    one = Candidate(name="h", source=Source.DRAFT, text=HEURISTIC)
    request = asked(walked, mode=mode, candidates=(one,), baselines=())
    here = run(walked, request)
    again = run(walked, request)
    assert here.as_json() == again.as_json()
    other = run(walked, replace(request, seed=9))
    assert other.as_json() != here.as_json()


def test_the_plant_knows_only_its_own_names(walked: Path) -> None:
    text = TEXT.replace("risk_band", "latency_ms")
    strange = Candidate(name="s", source=Source.DRAFT, text=text)
    with pytest.raises(InputError) as caught:
        run(walked, asked(walked, mode=Mode.PLANT, candidates=(strange,)))
    assert [p.code for p in caught.value.problems] == ["backtest_other_plant"]


def test_the_score_of_rows_is_the_objective_score() -> None:
    settings = parse(TEXT)
    rows = np.random.default_rng(2).random((40, len(settings.metrics)))
    rows[3, 0] = np.nan
    for row, score in zip(rows, scores(settings, rows), strict=True):
        one = objective_score(settings, dict(zip(settings.metrics, row.tolist(), strict=True)))
        assert (one is None and np.isnan(score)) or score == pytest.approx(one)


# ----------------------------------------------------------------------------- sweeps
def test_a_grid_has_every_combination_and_sobol_fills_the_box() -> None:
    axes = (Axis(path="a", lo=0, hi=1, n=3), Axis(path="b", lo=10, hi=20, n=2))
    assert len(points(Sweep(axes=axes), 0)) == 6
    found = points(Sweep(axes=axes, method=Method.SOBOL, points=13), 4)
    assert len(found) == 13
    assert found == points(Sweep(axes=axes, method=Method.SOBOL, points=13), 4)
    assert all(0 <= p["a"] <= 1 and 10 <= p["b"] <= 20 for p in found)


def test_a_score_of_a_part_is_no_match_for_one_of_the_whole() -> None:
    def point(support: Support, mean: float | None) -> SweepPoint:
        score = None if mean is None else Interval(mean=mean, lo=mean, hi=mean)
        return SweepPoint(values={}, score=score, support=support, changes=0, rollbacks=0, worst=None)

    found = [
        point(Support.NONE, None),
        point(Support.PARTIAL, 0.9),
        point(Support.OK, 0.7),
        point(Support.OK, 0.8),
    ]
    said = [(p.support, p.score and p.score.mean) for p in sorted(found, key=ranked)]
    assert said == [(Support.OK, 0.8), (Support.OK, 0.7), (Support.PARTIAL, 0.9), (Support.NONE, None)]


def test_a_sweep_is_sorted_and_says_which_variant_cannot_be(walked: Path) -> None:
    sweep = Sweep(axes=(Axis(path="rules.risk_max.lr", lo=-0.02, hi=0.02, n=3),))
    one = Candidate(name="h", source=Source.DRAFT, text=HEURISTIC)
    found = run(walked, asked(walked, candidates=(one,), sweep=sweep)).sweep
    assert len(found) == 3
    assert found[0].score is not None
    bad = [p for p in found if p.problem is not None]
    assert {p.values["rules.risk_max.lr"] for p in bad} == {-0.02, 0.0}
    assert all(p.support is Support.NONE for p in bad)


def test_a_sweep_over_processes_is_the_same_sweep(walked: Path, tmp_path: Path) -> None:
    sweep = Sweep(axes=(Axis(path="cooldown_s", lo=200, hi=400, n=3),))
    one = Candidate(name="h", source=Source.DRAFT, text=HEURISTIC)
    request: Request = asked(walked, candidates=(one,), sweep=sweep)
    record = read_record(walked, parse(HEURISTIC))
    record.put(tmp_path / "data")
    here = swept(request, Handle(record=record), None, lambda _: None)
    with pool(2) as executor:
        there = swept(request, Handle(folder=str(tmp_path / "data")), executor, lambda _: None)
    assert [p.as_json() for p in here] == [p.as_json() for p in there]
