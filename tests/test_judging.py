"""The rules of loop.md, Judging, one by one and at their borders; effects are made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftune.config import Limit, parse
from selftune.domain import (
    DataState,
    Effect,
    MetricEffect,
    Target,
    Verdict,
    VerdictReport,
    Window,
    WindowStat,
)
from selftune.judging import (
    GapContrast,
    QuietWindow,
    Undone,
    equal_within,
    gap_contrast,
    judge_excursion,
    judge_look,
    judge_step,
    judge_steps,
    proves,
    targets_met,
    verify_rollback,
    warn_breach,
)
from tests.conftest import SHIPPED

SETTINGS = parse(SHIPPED.read_bytes())
LEVEL = {"phase_diff": 0.06, "creative_band": 0.23, "risk_band": 0.33, "entropy_rate": 0.2}
T = 1_763_800_000_000
NU = 30.0
RANK = {Verdict.WORSENED: 0, Verdict.INCONCLUSIVE: 1, Verdict.NEUTRAL: 2, Verdict.IMPROVED: 3}


def metric(name: str, delta: float = 0.0, sigma: float = 0.001, **more: object) -> MetricEffect:
    whole = {"metric": name, "state": DataState.OK, "delta": delta, "sigma": sigma, "nu": NU,
             "pre_mean": LEVEL.get(name, 0.5), "n_post": 350, "history_s": 600.0}  # fmt: skip
    return MetricEffect(**{**whole, **more})  # type: ignore[arg-type]


def effect(*changed: MetricEffect, final: bool = True) -> Effect:
    metrics = {m: metric(m, 0.0, 0.0) for m in LEVEL} | {e.metric: e for e in changed}
    return Effect(keys=("e1",), event_ms=T, window=Window(start_ms=T, end_ms=T + 90_000), settle_s=20.0,
                  metrics=metrics, final=final)  # fmt: skip


def codes(report: object) -> list[str]:
    return [r.code for r in report.reasons]  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------- steps
def test_a_proven_gain_of_the_score_is_an_improvement() -> None:
    report = judge_step(effect(metric("risk_band", -0.02, 0.002)), SETTINGS)
    assert report.verdict is Verdict.IMPROVED
    reason = report.reasons[0]
    assert reason.code == "score_gain"
    assert reason.params["observed"] == pytest.approx(0.02 / 0.3 / 3, abs=1e-4)
    assert {"limit", "unit", "n", "p", "p_limit"} <= reason.params.keys()
    assert reason.params["n"] == 350


@pytest.mark.parametrize(("delta", "verdict"), [(-0.0055, Verdict.IMPROVED), (-0.0053, Verdict.NEUTRAL)])
def test_the_gain_must_reach_six_thousandths(delta: float, verdict: Verdict) -> None:
    # risk_band weighs a third and has a scale of .3: .0054 of it is .006 of the score
    assert judge_step(effect(metric("risk_band", delta, 0.0)), SETTINGS).verdict is verdict


def test_the_gain_must_be_certain_to_95_percent() -> None:
    one = replace(SETTINGS, weights={"risk_band": 1.0})
    t95 = 1.6973  # t_30 at 95 %
    for sigma, verdict in ((0.02 / (t95 + 0.01), Verdict.IMPROVED), (0.02 / (t95 - 0.01), Verdict.NEUTRAL)):
        assert judge_step(effect(metric("risk_band", -0.02, sigma)), one).verdict is verdict


def test_the_named_metric_may_confirm_by_itself() -> None:
    one = replace(SETTINGS, weights={"risk_band": 1.0, "phase_diff": 20.0})
    seen = effect(metric("risk_band", -0.012, 0.003), metric("phase_diff", -0.0001, 0.004))
    assert judge_step(seen, one).verdict is Verdict.NEUTRAL
    report = judge_step(seen, one, named="risk_band")
    assert report.verdict is Verdict.IMPROVED and "metric_gain" in codes(report)
    # below its good of .008 it does not, however certain
    small = effect(metric("risk_band", -0.0079, 0.0001), metric("phase_diff", -0.0001, 0.004))
    assert judge_step(small, one, named="risk_band").verdict is Verdict.NEUTRAL
    # nor where a loss of the score is more likely than not
    loss = effect(metric("risk_band", -0.012, 0.003), metric("phase_diff", 0.001, 0.004))
    assert judge_step(loss, one, named="risk_band").verdict is Verdict.NEUTRAL


def test_a_proven_loss_of_the_score_is_worse() -> None:
    report = judge_step(effect(metric("risk_band", 0.006, 0.001)), SETTINGS)
    assert report.verdict is Verdict.WORSENED
    assert codes(report) == ["score_loss"]


def test_a_guarded_metric_beyond_its_good_is_worse_even_where_the_score_gains() -> None:
    report = judge_step(
        effect(metric("phase_diff", -0.02, 0.001), metric("risk_band", 0.02, 0.001)), SETTINGS
    )
    assert report.score_gain is not None and report.score_gain > 0.006
    assert report.verdict is Verdict.WORSENED
    assert report.reasons[0].code == "metric_loss" and report.reasons[0].params["metric"] == "risk_band"
    assert report.reasons[0].params["limit"] == pytest.approx(0.008)


def test_a_little_loss_beside_a_gain_is_paid_through_the_score() -> None:
    report = judge_step(
        effect(metric("phase_diff", -0.01, 0.001), metric("risk_band", 0.006, 0.001)), SETTINGS
    )
    assert report.verdict is Verdict.IMPROVED


def test_the_worst_guarded_metric_comes_first() -> None:
    report = judge_step(
        effect(metric("risk_band", 0.02, 0.0045), metric("creative_band", -0.05, 0.001)), SETTINGS
    )
    named = [r.params["metric"] for r in report.reasons if r.code == "metric_loss"]
    assert named == ["creative_band", "risk_band"]


def test_a_metric_well_inside_its_target_is_not_harmed() -> None:
    inside = judge_step(effect(metric("risk_band", 0.05, 0.002, pre_mean=0.20)), SETTINGS)
    assert inside.verdict is Verdict.NEUTRAL
    past = judge_step(effect(metric("risk_band", 0.12, 0.002, pre_mean=0.20)), SETTINGS)
    assert past.verdict is Verdict.WORSENED


def test_a_gain_smaller_than_good_is_neutral_never_worse() -> None:
    report = judge_step(effect(metric("risk_band", -0.004, 0.001)), SETTINGS)
    assert report.verdict is Verdict.NEUTRAL and "gain_below_good" in codes(report)


def test_wide_intervals_are_neutral_and_say_that_nothing_is_proven() -> None:
    report = judge_step(effect(metric("risk_band", -0.03, 0.05)), SETTINGS)
    assert report.verdict is Verdict.NEUTRAL and codes(report) == ["not_proven"]


def test_nothing_to_gain_is_neutral() -> None:
    met = effect(metric("risk_band", pre_mean=0.1), metric("phase_diff", pre_mean=0.01),
                 metric("creative_band", pre_mean=0.5))  # fmt: skip
    constant = [MetricEffect(metric=m, state=DataState.CONSTANT, pre_mean=LEVEL[m]) for m in LEVEL]
    assert judge_step(met, SETTINGS).verdict is Verdict.NEUTRAL
    assert codes(judge_step(effect(*constant), SETTINGS)) == ["no_effect_seen"]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (DataState.INSUFFICIENT, "too_few_samples"),
        (DataState.STALE, "data_stale"),
        (DataState.CONFOUNDED, "data_confounded"),
    ],
)
@pytest.mark.parametrize("lost", ["phase_diff", "creative_band", "risk_band"])
def test_no_data_is_never_proof(state: DataState, code: str, lost: str) -> None:
    gains = {"phase_diff": -0.02, "creative_band": 0.05, "risk_band": -0.05}
    good = [metric(m, d) for m, d in gains.items() if m != lost]
    report = judge_step(effect(*good, MetricEffect(metric=lost, state=state, n_post=12)), SETTINGS)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.score_gain is None
    assert (report.reasons[0].code, report.reasons[0].params["metric"]) == (code, lost)
    assert report.reasons[0].params["n"] == 12


def test_harm_that_is_seen_outranks_data_that_are_missing() -> None:
    lost = MetricEffect(metric="phase_diff", state=DataState.INSUFFICIENT)
    assert judge_step(effect(lost, metric("risk_band", 0.1)), SETTINGS).verdict is Verdict.WORSENED


def test_an_open_window_is_not_judged() -> None:
    report = judge_step(effect(metric("risk_band", -0.1), final=False), SETTINGS)
    assert report.verdict is Verdict.INCONCLUSIVE and codes(report) == ["window_open"]


def test_a_short_history_asks_for_99_percent() -> None:
    one = replace(SETTINGS, weights={"risk_band": 1.0})
    two_sigma = 0.02 / 2.0  # certain to 97 %
    assert judge_step(effect(metric("risk_band", -0.02, two_sigma)), one).verdict is Verdict.IMPROVED
    short = judge_step(effect(metric("risk_band", -0.02, two_sigma, history_s=299.0)), one)
    assert short.verdict is Verdict.NEUTRAL and "short_history_strict" in codes(short)
    sure = judge_step(effect(metric("risk_band", -0.03, two_sigma, history_s=299.0)), one)
    assert sure.verdict is Verdict.IMPROVED


def test_past_a_hard_limit_nothing_is_confirmed() -> None:
    hard = replace(SETTINGS, hard={"risk_band": Limit(max=0.29)})
    assert judge_step(effect(metric("risk_band", -0.03)), hard).verdict is Verdict.NEUTRAL
    assert judge_step(effect(metric("risk_band", -0.05)), hard).verdict is Verdict.IMPROVED


# ----------------------------------------------------------------------------- warnings
@pytest.mark.parametrize(("delta", "warned"), [(0.04, True), (0.031, False), (0.029, False), (-0.04, False)])
def test_a_warning_needs_to_be_beyond_its_limit_for_sure(delta: float, warned: bool) -> None:
    seen = effect(metric("entropy_rate", delta, 0.005, pre_mean=0.1))
    assert bool(warn_breach(seen, SETTINGS)) is warned
    assert (judge_step(seen, SETTINGS).verdict is Verdict.WORSENED) is warned


def test_with_phase_bad_both_must_be_beyond() -> None:
    joint = replace(SETTINGS, phase_bad=0.01)
    entropy = metric("entropy_rate", 0.04, 0.001, pre_mean=0.1)
    assert not warn_breach(effect(entropy), joint)
    both = warn_breach(effect(entropy, metric("phase_diff", 0.02, 0.001)), joint)
    assert [r.code for r in both] == ["warn_joint_rise"]
    assert not warn_breach(effect(metric("phase_diff", 0.02, 0.001)), joint)


def test_a_foreign_row_without_a_scale_warns_as_it_stands() -> None:
    row = MetricEffect(metric="entropy_rate", state=DataState.OK, delta=0.05)
    assert warn_breach(effect(row), SETTINGS)
    assert judge_step(effect(row), SETTINGS).verdict is Verdict.NEUTRAL  # but it is no measurement


# ----------------------------------------------------------------------------- laws
@given(
    delta=st.floats(-0.1, 0.1), more=st.floats(0, 0.1), sigma=st.floats(0, 0.05),
    other=st.floats(-0.02, 0.02),
    named=st.sampled_from([None, "risk_band", "phase_diff"]),
)  # fmt: skip
def test_a_larger_gain_never_makes_it_worse(
    delta: float, more: float, sigma: float, other: float, named: str | None
) -> None:
    def verdict(d: float) -> Verdict:
        seen = effect(metric("risk_band", d, sigma), metric("phase_diff", other, 0.004))
        return judge_step(seen, SETTINGS, named=named).verdict

    assert RANK[verdict(delta - more)] >= RANK[verdict(delta)]


@given(level=st.floats(0.1, 0.5), delta=st.floats(-0.1, 0.1), sigma=st.floats(1e-4, 0.05))
def test_min_and_max_targets_are_judged_alike(level: float, delta: float, sigma: float) -> None:
    base = {"weights": {"m": 1.0}, "good": {"m": 0.008}, "warn": {}, "hard": {}}
    down = replace(SETTINGS, targets={"m": Target(metric="m", max=0.3, scale=0.3)}, **base)
    up = replace(SETTINGS, targets={"m": Target(metric="m", min=-0.3, scale=0.3)}, **base)
    a = judge_step(effect(metric("m", delta, sigma, pre_mean=level)), down, named="m")
    b = judge_step(effect(metric("m", -delta, sigma, pre_mean=-level)), up, named="m")
    assert a.verdict is b.verdict and codes(a) == codes(b)


numbers = st.one_of(st.none(), st.floats())


@given(delta=numbers, sigma=numbers, nu=numbers, pre=numbers, state=st.sampled_from(DataState))
def test_no_number_makes_it_raise(
    delta: float | None, sigma: float | None, nu: float | None, pre: float | None, state: DataState
) -> None:
    odd = MetricEffect(metric="risk_band", state=state, delta=delta, sigma=sigma, nu=nu, pre_mean=pre)
    seen = effect(odd)
    assert judge_step(seen, SETTINGS, named="risk_band").reasons
    assert judge_look(seen, SETTINGS).reasons
    assert verify_rollback(seen, {"risk_band": 0.05}, SETTINGS).reasons
    equal_within(seen, SETTINGS)
    warn_breach(seen, SETTINGS)


# ----------------------------------------------------------------------------- excursions
def window(start_s: float, level: float, *, regime: int = 0, value: float = 0.35) -> QuietWindow:
    start = T + round(start_s * 1000)
    stats = {m: WindowStat(mean=v + level, se=0.001, n=450, start_ms=start, end_ms=start + 90_000)
             for m, v in LEVEL.items()}  # fmt: skip
    return QuietWindow(
        start_ms=start, end_ms=start + 90_000, values={"risk_max": value}, regime=regime, stats=stats
    )


def quiet(n: int, sd: float = 0.004, seed: int = 1) -> list[QuietWindow]:
    rng = np.random.default_rng(seed)
    return [window(90 * i, sd * rng.standard_normal()) for i in range(n)]


def contrast(quiet_windows: list[QuietWindow], **present: object) -> GapContrast:
    return gap_contrast(anchor=window(5000, 0.0), present=window(5360, 0.0, **present), quiet=quiet_windows,
                        settings=SETTINGS)  # type: ignore[arg-type]  # fmt: skip


def test_the_gap_is_calibrated_on_pairs_as_far_apart() -> None:
    found = contrast(quiet(60))
    assert found.undecided is None and found.gap_s == 360
    assert set(found.pairs.values()) == {56}  # i and i + 4 of 60; 3 and 5 are 25 % off
    delta, sigma, nu = found.shift["risk_band"]
    assert delta == pytest.approx(0.0) and sigma == pytest.approx(0.004 * math.sqrt(2), rel=0.3)
    assert 2 <= nu <= 56


def test_squares_are_about_zero_so_that_drift_is_inside() -> None:
    drifting = [window(90 * i, 0.01 * i) for i in range(60)]
    assert contrast(drifting).shift["risk_band"][1] == pytest.approx(0.04, rel=1e-6)


def test_fewer_than_twenty_pairs_stay_undecided() -> None:
    assert contrast(quiet(24)).undecided is None  # 20 pairs
    few = contrast(quiet(23))
    assert few.undecided is not None and few.undecided.params["observed"] == 19
    report = judge_excursion(few, SETTINGS)
    assert report.verdict is Verdict.INCONCLUSIVE and codes(report) == ["too_few_pairs"]


def test_pairs_need_equal_values_and_regime() -> None:
    half = quiet(60)
    moved = [replace(w, values={"risk_max": 0.33}) if i % 8 < 4 else w for i, w in enumerate(half)]
    assert set(contrast(moved).pairs.values()) == {0}
    changed = [replace(w, regime=1) if i % 8 < 4 else w for i, w in enumerate(half)]
    assert set(contrast(changed).pairs.values()) == {0}
    assert codes(judge_excursion(contrast(half, regime=1), SETTINGS)) == ["regime_between"]


def gap(delta: float, sigma: float) -> GapContrast:
    still = (0.0, 0.0, math.inf)
    shift = {**dict.fromkeys(LEVEL, still), "risk_band": (delta, sigma, math.inf)}
    return GapContrast(base=LEVEL, shift=shift, pairs=dict.fromkeys(LEVEL, 40), gap_s=900)


@pytest.mark.parametrize(
    ("delta", "sigmas", "verdict"),
    [
        (-0.028, 2.37, Verdict.IMPROVED),  # 99.1 %
        (-0.028, 2.28, Verdict.NEUTRAL),  # 98.9 %
        (0.007, 1.80, Verdict.WORSENED),  # 96.4 %
        (0.007, 1.70, Verdict.NEUTRAL),  # 95.5 %
    ],
)
def test_an_excursion_needs_more_certainty_than_a_step(delta: float, sigmas: float, verdict: Verdict) -> None:
    assert judge_excursion(gap(delta, abs(delta) / sigmas), SETTINGS).verdict is verdict


def test_after_four_looks_nothing_more_is_proven() -> None:
    assert judge_excursion(gap(-0.05, 0.001), SETTINGS, 3).verdict is Verdict.IMPROVED
    assert codes(judge_excursion(gap(-0.05, 0.001), SETTINGS, 4)) == ["looks_spent"]


# ----------------------------------------------------------------------------- steps summed
def verdict_of(report: VerdictReport | None) -> Verdict | None:
    return report.verdict if report is not None else None


def seen(*changed: MetricEffect, final: bool = True) -> Effect:
    """An effect of which the other metrics are known very well, but not exactly."""
    names = {e.metric for e in changed}
    return effect(*changed, *(metric(m, 0.0, 1e-7) for m in LEVEL if m not in names), final=final)


def walk(*deltas: float, sigma: float = 0.002) -> list[Effect]:
    return [seen(metric("risk_band", d, sigma)) for d in deltas]


def test_gains_that_prove_nothing_alone_prove_it_together() -> None:
    steps = walk(*[-0.004] * 6)
    assert not any(proves(judge_step(e, SETTINGS)) for e in steps)
    report = judge_steps(steps, SETTINGS)
    assert report is not None and report.verdict is Verdict.IMPROVED
    assert report.score_gain == pytest.approx(
        6 * 0.004 / 0.3 / 3, rel=0.05
    )  # a third of the weight, a scale of .3
    assert report.p_gain is not None and report.p_gain >= report.reasons[0].params["p_limit"] == 0.998


@pytest.mark.parametrize(
    ("sigmas", "verdict"),  # of the sum, as a normal deviate: 99.83 and 99.77 %
    [(2.93, Verdict.IMPROVED), (2.83, Verdict.NEUTRAL)],
)
def test_a_sum_needs_998_in_a_thousand(sigmas: float, verdict: Verdict) -> None:
    one = replace(SETTINGS, weights={"risk_band": 1.0})
    sigma = 0.012 / sigmas / math.sqrt(2 * 0.9 + 4 * 0.1)  # two of them, a tenth alike
    far = [seen(metric("risk_band", -0.006, sigma, nu=math.inf))] * 2
    assert verdict_of(judge_steps(far, one)) is verdict


@given(st.lists(st.tuples(st.floats(-0.02, 0.02), st.floats(1e-4, 0.01), st.floats(2, 200)), min_size=1))
def test_a_sum_of_steps_is_as_unsure_as_all_of_them(parts: list[tuple[float, float, float]]) -> None:
    effects = [seen(metric("risk_band", d, s, nu=nu)) for d, s, nu in parts]
    one = replace(SETTINGS, weights={"risk_band": 1.0}, warn={}, hard={}, good=dict.fromkeys(LEVEL, 9.0))
    whole = judge_steps(effects, one)
    total = sum(s * s for _, s, _ in parts)
    nu = total**2 / sum(s**4 / nu for _, s, nu in parts)
    sigma = math.sqrt(0.9 * total + 0.1 * sum(s for _, s, _ in parts) ** 2)
    same = judge_steps([seen(metric("risk_band", sum(d for d, _, _ in parts), sigma, nu=nu))], one)
    assert whole is not None and same is not None
    assert whole.p_gain == pytest.approx(same.p_gain, abs=1e-9)


def test_a_sum_that_passed_a_limit_or_lost_elsewhere_proves_nothing() -> None:
    gain = [metric("risk_band", -0.012, 0.002)] * 6
    assert verdict_of(judge_steps([seen(g) for g in gain], SETTINGS)) is Verdict.IMPROVED
    near = replace(SETTINGS, hard={"entropy_rate": Limit(max=0.22)})
    rising = [seen(g, metric("entropy_rate", 0.004, 0.001)) for g in gain]
    assert verdict_of(judge_steps(rising, near)) is not Verdict.IMPROVED
    losing = [seen(g, metric("creative_band", -0.006, 0.0005)) for g in gain]
    assert verdict_of(judge_steps(losing, SETTINGS)) is Verdict.WORSENED


@pytest.mark.parametrize(
    "broken",
    [
        seen(metric("risk_band", -0.012, 0.002), final=False),
        seen(metric("risk_band", state=DataState.CONFOUNDED, delta=None, sigma=None)),
        seen(metric("phase_diff", state=DataState.INSUFFICIENT, delta=None, sigma=None)),
        seen(metric("entropy_rate", state=DataState.INSUFFICIENT, delta=None, sigma=None)),  # has a limit
        seen(metric("risk_band", -0.012, nu=None)),
        seen(metric("risk_band", -0.012, nu=0.0)),
        seen(metric("risk_band", -0.012, 0.0)),
    ],
)
def test_what_was_not_measured_in_one_step_is_not_summed(broken: Effect) -> None:
    good = walk(*[-0.012] * 5, sigma=0.001)
    assert judge_steps([*good, broken], SETTINGS) is None
    assert judge_steps([broken, *good], SETTINGS) is None
    assert judge_steps([], SETTINGS) is None


# ----------------------------------------------------------------------------- looks, equality, rollbacks
@pytest.mark.parametrize(("sigmas", "restore"), [(0.80, False), (0.90, True)])  # 78.8 and 81.6 %
def test_restored_if_the_left_values_were_better_at_80_percent(sigmas: float, restore: bool) -> None:
    back = effect(*(metric(m, 0.0, 0.0) for m in LEVEL), metric("risk_band", 0.02, 0.02 / sigmas, nu=1e5))
    report = judge_look(back, SETTINGS)
    assert report.restore is restore and report.p == pytest.approx(
        0.5 * (1 + math.erf(sigmas / 2**0.5)), abs=1e-3
    )


@pytest.mark.parametrize(
    ("sigmas", "code"), [(0.90, "look_keep"), (2.28, "look_keep"), (2.37, "look_restore")]
)  # 81.6, 98.9 and 99.1 %
def test_restored_as_no_worse_or_as_proven_better(sigmas: float, code: str) -> None:
    back = effect(*(metric(m, 0.0, 0.0) for m in LEVEL), metric("risk_band", 0.03, 0.03 / sigmas, nu=1e5))
    report = judge_look(back, SETTINGS)
    assert (report.restore, report.proven) == (True, code == "look_restore")
    assert [r.code for r in report.reasons] == [code]


@pytest.mark.parametrize(("hard_max", "back_again"), [(0.25, True), (0.19, False)])
def test_what_was_left_beyond_a_hard_limit_does_not_come_back_however_well_it_did(
    hard_max: float, back_again: bool
) -> None:
    settings = replace(SETTINGS, hard={"entropy_rate": Limit(max=hard_max)})
    still = [metric(m, 0.0, 0.0) for m in LEVEL]
    back = effect(*still, metric("risk_band", 0.05, 0.005), metric("entropy_rate", -0.001, 0.002))
    report = judge_look(back, settings)
    assert report.p is not None and report.p > 0.99
    assert (report.restore, report.proven) == (back_again, back_again)
    assert (
        [r.code for r in report.reasons] == ["look_restore"]
        if back_again
        else ["past_hard_limit", "look_stay"]
    )


def test_a_gain_too_small_to_matter_is_no_proof() -> None:
    back = effect(*(metric(m, 0.0, 0.0) for m in LEVEL), metric("risk_band", 0.002, 1e-5, nu=1e5))
    report = judge_look(back, SETTINGS)
    assert report.restore and not report.proven


@pytest.mark.parametrize(("sigmas", "proof"), [(1.8, False), (2.5, False), (2.65, True)])  # 96, 99.4, 99.6 %
def test_an_improvement_is_proven_only_at_the_bar_of_all_its_chances(sigmas: float, proof: bool) -> None:
    """IMPROVED at 95 % is good news; the anchor moves at 99 %, shared by score and named metric."""
    seen = effect(*(metric(m, 0.0, 0.0) for m in LEVEL), metric("risk_band", -0.03, 0.03 / sigmas, nu=1e5))
    report = judge_step(seen, SETTINGS, named="risk_band")
    assert report.verdict is Verdict.IMPROVED
    assert proves(report) is proof


def test_without_data_the_return_stands() -> None:
    lost = effect(MetricEffect(metric="risk_band", state=DataState.STALE), metric("phase_diff", 0.05))
    assert not judge_look(lost, SETTINGS).restore
    assert not judge_look(effect(metric("risk_band", 0.05), final=False), SETTINGS).restore


@pytest.mark.parametrize(
    ("delta", "sigma", "equal"),
    [
        (0.0, 0.005, True),
        (0.005, 0.0001, True),
        (0.0058, 0.0001, False),
        (-0.0058, 0.0001, False),
        (0.0, 0.05, False),
    ],
)
def test_equal_is_small_and_not_likely_worse(delta: float, sigma: float, equal: bool) -> None:
    assert equal_within(gap(delta, sigma), SETTINGS) is equal


def test_the_equality_of_a_return_is_seen_from_the_other_side() -> None:
    exact = [metric(m, 0.0, 0.0) for m in LEVEL]
    assert equal_within(effect(*exact), SETTINGS)
    assert not equal_within(effect(*exact, metric("risk_band", -0.05, 0.001)), SETTINGS)
    assert not equal_within(effect(*exact, final=False), SETTINGS)


@pytest.mark.parametrize(
    ("undone", "sigma", "result"),
    [
        (-0.05, 0.005, Undone.VERIFIED),
        (0.0, 0.005, Undone.NOT_OURS),
        (-0.02, 0.005, Undone.UNDECIDED),
        (-0.015, 0.005, Undone.NOT_OURS),
        (0.0, 0.05, Undone.UNDECIDED),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_rollback_that_undoes_less_than_half_was_not_ours(
    undone: float, sigma: float, result: Undone, sign: int
) -> None:
    name = "risk_band" if sign > 0 else "creative_band"
    report = verify_rollback(effect(metric(name, sign * undone, sigma)), {name: sign * 0.05}, SETTINGS)
    assert report.result is result
    assert report.result == result.value  # it reads as a word in the record


def test_only_what_was_harmed_must_come_back() -> None:
    back = effect(metric("risk_band", 0.0, 0.003), metric("phase_diff", 0.01, 0.001))
    moved = {"risk_band": 0.05, "phase_diff": -0.02, "creative_band": -0.001}
    report = verify_rollback(back, moved, SETTINGS)
    assert report.result is Undone.NOT_OURS
    assert [r.params["metric"] for r in report.reasons] == ["risk_band"]


def test_without_numbers_a_rollback_is_undecided() -> None:
    assert verify_rollback(effect(), {}, SETTINGS).result is Undone.UNDECIDED
    stale = effect(MetricEffect(metric="risk_band", state=DataState.STALE))
    assert verify_rollback(stale, {"risk_band": 0.05}, SETTINGS).result is Undone.UNDECIDED


def test_targets_met_is_a_joint_probability() -> None:
    def stats(risk: float | None, se: float = 0.01) -> dict[str, WindowStat]:
        means = {"phase_diff": 0.01, "creative_band": 0.4, "risk_band": risk}
        return {m: WindowStat(mean=v, se=se, n=450, start_ms=T, end_ms=T + 90_000) for m, v in means.items()}

    assert targets_met(stats(0.30), SETTINGS) == pytest.approx(0.5, abs=1e-3)
    assert targets_met(stats(0.25), SETTINGS) > 0.99
    assert targets_met(stats(None), SETTINGS) == 0.0
    assert targets_met(stats(0.30, 0.0), SETTINGS) == 1.0
    assert targets_met({}, SETTINGS) == 0.0


def test_the_tables_count_on_the_shipped_settings() -> None:
    assert SETTINGS.weights == {"phase_diff": 1.2, "risk_band": 1.0, "creative_band": 0.8}
    assert SETTINGS.good["risk_band"] == 0.008 and SETTINGS.targets["risk_band"].scale == 0.3
