"""The toy plant: the same for its seed however asked, true to its description, reachable targets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftune.domain import Rule
from selftune.plants import (
    MetricModel,
    PlantSpec,
    Regime,
    Surface,
    harmful,
    in_units,
    oracle,
    quickened,
    seed_plant,
    shifting,
    still,
)
from selftune.simulate import Plant, Rows, RuleChange

SEED_PLANT = seed_plant()
TARGETS = {
    "phase_diff": ("max", 0.05, 1.2),
    "entropy_rate": ("max", 0.28, 0.0),
    "creative_band": ("min", 0.24, 0.8),
    "risk_band": ("max", 0.30, 1.0),
}
PROVEN = {"creative_min": 0.26, "risk_max": 0.29}


def met(means: dict[str, float]) -> list[str]:
    """The seed's targets that these means meet."""
    return [m for m, (kind, x, _) in TARGETS.items() if (means[m] <= x if kind == "max" else means[m] >= x)]


def score(means: dict[str, float]) -> float:
    """The seed's objective score, written out here so that the oracle is checked against the contract."""
    total = 0.0
    for m, (kind, x, weight) in TARGETS.items():
        short = max(0.0, means[m] - x if kind == "max" else x - means[m])
        total += weight * max(0.0, 1 - short / x)
    return total / 3.0


def quiet(spec: PlantSpec) -> PlantSpec:
    """The spec without any disturbance or rounding: what is left is response and lag."""
    metrics = tuple(replace(m, noise_sd=0, ripple=0, drift=0, decimals=None) for m in spec.metrics)
    return replace(spec, metrics=metrics, gap_share=0, duplicate_share=0)


def same(a: Rows, b: Rows) -> bool:
    return (
        np.array_equal(a.ts_ms, b.ts_ms)
        and np.array_equal(a.copies, b.copies)
        and all(np.array_equal(a.values[m], b.values[m], equal_nan=True) for m in a.values)
        and all(np.array_equal(a.means[m], b.means[m]) for m in a.means)
    )


# ------------------------------------------------------------------ the same however it is asked for
def test_steps_and_runs_agree_to_the_last_bit() -> None:
    """Over a block of noise, rule changes between and on samples, two regimes, gaps and empty cells."""
    spec = replace(shifting(SEED_PLANT, every_s=333.3), gap_share=0.01, missing_share=0.01)
    changes: list[RuleChange] = [(100_000, "risk_max", 0.31), (500_100, "creative_min", 0.27)]
    rows = Plant(3, spec).run({}, 5000, changes=changes)
    plant, held = Plant(3, spec), {}
    for i in range(5000):
        held |= {rule: new for at, rule, new in changes if plant.next_ms >= at}
        row = plant.step(held)
        for m, value in row.items():
            expected = rows.values[m][i]
            assert (value is None and math.isnan(expected)) or value == expected, (i, m)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), st.integers(0, 2**40))
def test_a_run_may_be_cut_anywhere(pieces: list[int], seed: int) -> None:
    spec = shifting(SEED_PLANT, every_s=700)
    changes: list[RuleChange] = [(90_000, "risk_max", 0.33), (400_000, "risk_max", 0.31)]
    whole = Plant(seed, spec, start_ms=-777).run({}, sum(pieces), changes=changes)
    plant, held, parts = Plant(seed, spec, start_ms=-777), {}, []
    for n in pieces:
        parts.append(plant.run(held, n, changes=changes))
        held = {rule: new for at, rule, new in changes if at < plant.next_ms}
    assert same(whole, Rows.joined(parts))


def test_a_seed_is_a_plant() -> None:
    first, again, other = (Plant(seed).run({}, 2000) for seed in (1, 1, 2))
    assert same(first, again)
    assert not np.array_equal(first.values["risk_band"], other.values["risk_band"])


def test_noise_does_not_depend_on_the_rules() -> None:
    """Two runs with one seed differ by what the rules did and by nothing else."""
    spec = replace(SEED_PLANT, metrics=tuple(replace(m, decimals=None) for m in SEED_PLANT.metrics))
    a, b = Plant(5, spec).run({}, 6000), Plant(5, spec).run({"risk_max": 0.33}, 6000)
    gap = b.values["risk_band"] - a.values["risk_band"]
    lagged = b.means["risk_band"] - a.means["risk_band"]
    assert np.nanmax(np.abs(gap - lagged)) < 1e-12
    assert gap[-1] == pytest.approx(-0.014, abs=1e-9)


def test_time_that_passes_unseen() -> None:
    plant = Plant(0, quiet(SEED_PLANT))
    plant.step({"risk_max": 0.31})
    row = plant.step({"risk_max": 0.31}, ts_ms=3_600_000)
    assert plant.next_ms == 3_600_200
    assert row["risk_band"] == pytest.approx(0.33 - 0.028)
    with pytest.raises(ValueError, match="back in time"):
        plant.step({}, ts_ms=0)


def test_a_plant_taken_up_again_is_settled_at_its_values() -> None:
    plant = Plant(0, quiet(SEED_PLANT), start_ms=1000, values={"risk_max": 0.31}, index=7777)
    assert plant.next_ms == 1000 + 7777 * 200
    assert plant.step({"risk_max": 0.31})["risk_band"] == pytest.approx(0.302)


@given(st.integers(-(10**6), 10**6), st.sampled_from([0.5, 3.0, 5.0, 7.0, 50.0]))
def test_samples_and_instants_are_inverse(index: int, rate: float) -> None:
    plant = Plant(0, replace(SEED_PLANT, rate_hz=rate), start_ms=1_700_000_000_123)
    assert plant.index_of(plant.at_ms(index)) == index
    assert plant.index_of(plant.at_ms(index) + 1) == index + 1


# ------------------------------------------------------------------ what it is like
def test_it_starts_off_target_where_the_seed_does() -> None:
    means = SEED_PLANT.true_means({})
    assert means == pytest.approx(
        {"phase_diff": 0.07, "entropy_rate": 0.26, "creative_band": 0.225, "risk_band": 0.33}
    )
    assert met(means) == ["entropy_rate"]


def test_five_steps_of_lr_meet_every_target() -> None:
    """From the first values, the best single step at a time, never one that costs score."""
    values, path = SEED_PLANT.init, []
    while len(met(SEED_PLANT.true_means(values))) < 4 and len(path) < 9:
        moves = [{**values, r.name: values[r.name] + s * r.lr} for r in SEED_PLANT.rules for s in (-1, 1)]
        best = max(moves, key=lambda v: score(SEED_PLANT.true_means(v)))
        assert score(SEED_PLANT.true_means(best)) > score(SEED_PLANT.true_means(values))
        values = best
        path.append(values)
    assert 4 <= len(path) <= 6
    assert values == pytest.approx(PROVEN)


@pytest.mark.parametrize("rule", [r.name for r in SEED_PLANT.rules])
def test_the_optimum_is_inside(rule: str) -> None:
    """Walking any rule to either bound from the good values costs score: the seed's one-way walk fails."""
    r = next(r for r in SEED_PLANT.rules if r.name == rule)
    for bound in (r.min, r.max):
        assert score(SEED_PLANT.true_means({**PROVEN, rule: bound})) < 0.9


def test_the_trade_off_is_there() -> None:
    less_risk, more_creative = ({"risk_max": 0.33}, {"creative_min": 0.24})
    before = SEED_PLANT.true_means({})
    a, b = SEED_PLANT.true_means(less_risk), SEED_PLANT.true_means(more_creative)
    assert a["risk_band"] < before["risk_band"] and a["creative_band"] < before["creative_band"]
    assert b["creative_band"] > before["creative_band"]
    assert b["risk_band"] > before["risk_band"] and b["entropy_rate"] > before["entropy_rate"]


@pytest.mark.parametrize("metric", SEED_PLANT.metrics, ids=lambda m: m.name)
def test_a_lag_of_tau_has_gone_63_percent_after_tau(metric: MetricModel) -> None:
    plant = Plant(0, quiet(SEED_PLANT))
    plant.run({}, 10)
    rows = plant.run({"risk_max": 0.31, "creative_min": 0.25}, 600)
    old = SEED_PLANT.true_means({})[metric.name]
    new = SEED_PLANT.true_means({"risk_max": 0.31, "creative_min": 0.25})[metric.name]
    gone = (rows.values[metric.name] - old) / (new - old)
    assert gone[round(metric.lag_s * 5) - 1] == pytest.approx(1 - math.exp(-1), abs=1e-9)
    assert gone[-1] == pytest.approx(1, abs=1e-3)
    assert 5 <= metric.lag_s <= 12


def test_noise_ripple_and_drift_are_what_they_say() -> None:
    m = MetricModel(name="m", surface=Surface(base=0.5), lag_s=0, noise_sd=0.015, decimals=None)
    spec = PlantSpec(rules=SEED_PLANT.rules, metrics=(m,))
    x = Plant(11, spec).run({}, 100_000).values["m"] - 0.5
    assert np.std(x) == pytest.approx(0.015, rel=0.03)
    assert np.corrcoef(x[1:], x[:-1])[0, 1] == pytest.approx(math.exp(-0.2), abs=0.01)
    rippled = replace(spec, metrics=(replace(m, noise_sd=0, ripple=0.01),))
    power = np.abs(np.fft.rfft(Plant(0, rippled).run({}, 5000).values["m"] - 0.5))
    assert np.fft.rfftfreq(5000, 0.2)[np.argmax(power)] == pytest.approx(0.2)
    drifting = replace(spec, metrics=(replace(m, noise_sd=0, drift=0.02),))
    wander = Plant(4, drifting).run({}, 432_000).values["m"] - 0.5
    assert 0.01 < np.max(np.abs(wander)) <= 0.02
    assert np.max(np.abs(np.diff(wander))) < 0.001


def test_rows_are_lost_in_gaps_and_written_twice_as_often_as_said() -> None:
    spec = replace(SEED_PLANT, gap_share=0.02, gap_s=2.0, duplicate_share=0.03, missing_share=0.05)
    rows = Plant(6, spec).run({}, 200_000)
    lost = rows.copies == 0
    assert lost.mean() == pytest.approx(0.02, rel=0.15)
    assert (rows.copies == 2).mean() == pytest.approx(0.03, rel=0.1)
    assert np.isnan(rows.values["risk_band"][~lost]).mean() == pytest.approx(0.05, rel=0.1)
    assert np.isnan(rows.values["risk_band"][lost]).all()
    gaps = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(int), [0]]))))[::2]
    assert gaps.mean() == pytest.approx(10, rel=0.15)
    series = rows.series()
    assert len(series) == (~lost).sum() and np.all(np.diff(series.ts_ms) > 0)


def test_values_have_three_decimals_and_stay_in_range() -> None:
    low = replace(SEED_PLANT.metrics[0], surface=Surface(base=0.003), noise_sd=0.02)
    x = Plant(0, replace(SEED_PLANT, metrics=(low,))).run({}, 5000).values["phase_diff"]
    x = x[np.isfinite(x)]
    assert x.min() == 0.0
    assert np.array_equal(x, np.round(x, 3))


# ------------------------------------------------------------------ regimes and other plants
def test_a_regime_moves_the_optimum_and_comes_back() -> None:
    spec = shifting(SEED_PLANT, every_s=100)
    switches = [i for i in range(1, 2000) if spec.regime_at(i) != spec.regime_at(i - 1)]
    assert switches == [500, 1000, 1500]
    assert [spec.next_switch(i) for i in (0, 499, 500, 1000)] == [500, 500, 1000, 1500]
    best0, score0 = oracle(spec, score, regime=0)
    best1, score1 = oracle(spec, score, regime=1)
    assert score0 == pytest.approx(1.0)
    assert best1["risk_max"] > best0["risk_max"] + 0.02
    assert score(spec.true_means(PROVEN, 1)) < score1 - 0.03


def test_a_regimes_offset_moves_the_mean() -> None:
    spec = replace(
        quiet(SEED_PLANT), regimes=(Regime(), Regime(offset={"risk_band": 0.1})), schedule=((2, 1),)
    )
    x = Plant(0, spec).run({}, 1000).values["risk_band"]
    assert np.all(x[:10] == pytest.approx(0.33)) and x[10] > 0.33
    assert x[-1] == pytest.approx(0.43)


def test_the_oracle_keeps_to_what_is_feasible() -> None:
    best, worth = oracle(SEED_PLANT, score, feasible=lambda means: means["creative_band"] >= 0.29)
    assert SEED_PLANT.true_means(best)["creative_band"] >= 0.29
    assert worth < 1.0
    with pytest.raises(ValueError, match="feasible"):
        oracle(SEED_PLANT, score, feasible=lambda means: False)


def test_the_oracle_is_no_worse_than_a_fine_grid() -> None:
    spec = shifting(SEED_PLANT)
    fine = max(
        score(spec.true_means({"creative_min": c, "risk_max": r}, 1))
        for c in np.linspace(0.18, 0.35, 120).tolist()
        for r in np.linspace(0.20, 0.40, 120).tolist()
    )
    assert oracle(spec, score, regime=1)[1] >= fine - 1e-4


def test_a_harmful_step_raises_risk_clearly() -> None:
    spec = harmful(SEED_PLANT, rule="creative_min", metric="risk_band", per_step=0.05)
    worse = spec.true_means({"creative_min": 0.24})
    assert worse["risk_band"] - spec.true_means({})["risk_band"] == pytest.approx(0.05)
    assert worse["creative_band"] == SEED_PLANT.true_means({"creative_min": 0.24})["creative_band"]


def test_a_still_plant_answers_to_nothing() -> None:
    spec = still(SEED_PLANT)
    assert spec.true_means(PROVEN) == spec.true_means({})
    assert spec.metrics[3].noise_sd == SEED_PLANT.metrics[3].noise_sd


def test_a_quickened_plant_lives_the_same_life_in_less_time() -> None:
    fast = quickened(shifting(SEED_PLANT, every_s=100), 20)
    slow = Plant(1, shifting(SEED_PLANT, every_s=100)).run({}, 3000)
    quick = Plant(1, fast).run({}, 3000)
    assert quick.ts_ms[-1] - quick.ts_ms[0] == pytest.approx((slow.ts_ms[-1] - slow.ts_ms[0]) / 20)
    assert np.nanmax(np.abs(quick.values["risk_band"] - slow.values["risk_band"])) < 2e-3


def test_another_unit_is_the_same_plant() -> None:
    ms = in_units(SEED_PLANT, "phase_diff", 1000)
    assert ms.true_means(PROVEN)["phase_diff"] == pytest.approx(
        1000 * SEED_PLANT.true_means(PROVEN)["phase_diff"]
    )
    a, b = Plant(2, SEED_PLANT).run({}, 500), Plant(2, ms).run({}, 500)
    assert np.nanmax(np.abs(b.values["phase_diff"] / 1000 - a.values["phase_diff"])) <= 0.0005 + 1e-9


def test_any_rules_and_metrics() -> None:
    rules = tuple(Rule(name=f"knob_{i}", init=10.0 * i, min=-100, max=100, lr=1) for i in range(4))
    surface = Surface(base=120.0, slope={"knob_0": 2.0}, cross={("knob_1", "knob_2"): 0.1})
    spec = PlantSpec(
        rules=rules,
        metrics=(MetricModel(name="latency_ms", surface=surface, lag_s=0, hi=1e4, decimals=1),),
        rate_hz=1,
    )
    assert Plant(0, spec).step({"knob_0": 3, "knob_1": 20, "knob_2": 21}) == {"latency_ms": 127.0}
    best, lowest = oracle(spec, lambda means: -means["latency_ms"])
    assert lowest == 0.0 and best["knob_0"] == -100


@pytest.mark.parametrize(
    "wrong",
    [
        {"rules": ()},
        {"metrics": ()},
        {"rate_hz": 0},
        {"gap_share": 1.0},
        {"missing_share": -0.1},
        {"schedule": ((0, 1),)},
        {"schedule": ((5, 0), (1, 0))},
        {"schedule": ((50, 0),), "repeat_s": 20},
        {"metrics": (MetricModel(name="m", surface=Surface(base=0, slope={"nobody": 1.0})),)},
    ],
)
def test_a_description_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(SEED_PLANT, **wrong)


@pytest.mark.parametrize("wrong", [{"noise_s": 0.0}, {"lag_s": -1.0}, {"lo": 1.0}])
def test_a_metric_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        MetricModel(name="m", surface=Surface(base=0), **wrong)
