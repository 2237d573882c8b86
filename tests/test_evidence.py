"""Evidence of a judged event: right numbers in the family's columns, one true sentence, one warning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from selftune import effectrows, evidence
from selftune.catalogue import load
from selftune.config import Settings, parse
from selftune.domain import (
    DataState,
    Effect,
    JsonDict,
    MetricEffect,
    Reason,
    RuleEvent,
    Verdict,
    VerdictReport,
    Window,
)
from selftune.wording import slots

SEOUL = ZoneInfo("Asia/Seoul")
WORDS = load()
T0 = 1_760_000_000_000


def an_event(**over: object) -> RuleEvent:
    fields: JsonDict = {
        "key": "01ABC",
        "ts_ms": T0,
        "at_ms": T0,
        "actor": "Lumen",
        "rule": "risk_max",
        "old": 0.35,
        "new": 0.33,
        **over,
    }
    return RuleEvent(**fields)


def measured(metric: str, delta: float, *, half: float = 0.013, odds: float = 40.0) -> MetricEffect:
    return MetricEffect(
        metric=metric,
        state=DataState.OK,
        delta=delta,
        lo=delta - half,
        hi=delta + half,
        sigma=half / 2,
        nu=20.0,
        odds=odds,
        pre_mean=0.3,
        post_mean=0.3 + delta,
        n_pre=300,
        n_post=350,
        pre_s=60.0,
        post_s=70.0,
    )


def an_effect(*metrics: MetricEffect) -> Effect:
    return Effect(
        keys=("01ABC",),
        event_ms=T0,
        window=Window(start_ms=T0, end_ms=T0 + 90_000),
        settle_s=20,
        metrics={m.metric: m for m in metrics},
        final=True,
        estimator="contrast",
    )


def a_report(verdict: Verdict = Verdict.IMPROVED, **over: float) -> VerdictReport:
    return VerdictReport(verdict=verdict, reasons=(Reason("verdict.score_gain", {}),), **over)


@pytest.fixture
def settings(root: Path) -> Settings:
    return parse((root / "configs" / "self_tuning.yaml").read_text(encoding="utf-8"))


def test_the_row_holds_the_family_s_columns_and_ours() -> None:
    row = evidence.effect_row(an_event(), an_effect(measured("risk_band", -0.021)), a_report(), SEOUL)
    header = effectrows.our_header()
    line = effectrows.render_row(header, row).decode().rstrip("\n")
    back = effectrows.parse_row(header, line, SEOUL)
    assert isinstance(back, effectrows.EffectRow)
    assert (back.ts_ms, back.rule, back.event_id, back.verdict) == (T0, "risk_max", "01ABC", "IMPROVED")
    assert back.d == {"phase": None, "entropy": None, "creative": None, "risk": -0.021}
    cells = back.cells
    assert [cells[c] for c in ("pre_s", "post_s", "n_pre", "n_post")] == ["60.0", "70.0", "300", "350"]
    assert (cells["lo_risk"], cells["hi_risk"], cells["opts_iqr"]) == ("-0.034", "-0.008", "")


def test_an_older_family_header_gets_means_in_its_own_columns() -> None:
    header = effectrows.parse_header("rule_ts,actor,rule,old,new,pre_s,post_s,pre_risk,post_risk,d_risk")
    row = evidence.effect_row(an_event(), an_effect(measured("risk_band", -0.02)), a_report(), SEOUL)
    assert effectrows.render_row(header, row).decode() == (
        "2025-10-09T17:53:20.000+09:00,Lumen,risk_max,0.35,0.33,60.0,70.0,0.3,0.28,-0.02\n"
    )


def test_a_row_without_an_effect_keeps_its_numbers_empty() -> None:
    row = evidence.effect_row(an_event(), None, a_report(Verdict.INCONCLUSIVE), SEOUL)
    back = effectrows.parse_row(
        effectrows.our_header(), effectrows.render_row(effectrows.our_header(), row).decode().strip(), SEOUL
    )
    assert isinstance(back, effectrows.EffectRow)
    assert back.verdict == "INCONCLUSIVE" and set(back.d.values()) == {None}


def test_the_korean_sentence_says_the_numbers(settings: Settings) -> None:
    found = evidence.quote(
        an_event(), an_effect(measured("risk_band", -0.021)), a_report(p_gain=0.97), settings, WORDS, "ko"
    )
    assert found is not None
    assert found["quote"] == (
        "risk_max를 0.35에서 0.33으로 내린 뒤 위험 밴드가 0.021 낮아졌습니다 "
        "(95 % 구간 -0.034 ~ -0.008). 우연이라면 약 40번에 1번 나올 크기입니다."
    )
    assert found["delta"] == {"phase": None, "entropy": None, "creative": None, "risk": -0.021}
    assert (found["confidence"], found["effect"], found["by"]) == (0.97, "01ABC", "selftune")


def test_the_english_sentence_says_the_same(settings: Settings) -> None:
    event = an_event(rule="creative_min", old=0.22, new=0.24)
    effect = an_effect(measured("creative_band", 0.02))
    found = evidence.quote(event, effect, a_report(), settings, WORDS, "en")
    assert found is not None
    assert found["quote"].startswith("After creative_min was raised from 0.22 to 0.24, ")
    assert " rose by 0.02 (95 % interval 0.007 to 0.033). By chance" in found["quote"]


def test_the_sentence_names_the_metric_that_moved_most_for_its_scale(settings: Settings) -> None:
    both = an_effect(measured("phase_diff", -0.02), measured("entropy_rate", 0.001))
    found = evidence.quote(an_event(), both, a_report(), settings, WORDS, "ko")
    assert found is not None and "위상" in found["quote"]
    assert found["delta"]["entropy"] == 0.001


@pytest.mark.parametrize(("old", "new"), [(None, 0.33), (None, None), (0.35, 0.33), (0.33, 0.35)])
@pytest.mark.parametrize("delta", [-0.02, 0.0, 0.02])
@pytest.mark.parametrize("lang", ["ko", "en"])
def test_every_kind_of_event_has_a_whole_sentence(
    settings: Settings, old: float | None, new: float | None, delta: float, lang: str
) -> None:
    found = evidence.quote(
        an_event(old=old, new=new), an_effect(measured("risk_band", delta)), a_report(), settings, WORDS, lang
    )
    assert found is not None
    assert "quote." not in found["quote"] and "{" not in found["quote"] and found["quote"].endswith(".")


def test_nothing_measured_is_no_quote(settings: Settings) -> None:
    blind = MetricEffect(metric="risk_band", state=DataState.INSUFFICIENT)
    assert evidence.quote(an_event(), an_effect(blind), a_report(), settings, WORDS) is None


def test_an_infinite_odds_is_left_out(settings: Settings) -> None:
    sure = replace(measured("risk_band", -0.02), odds=float("inf"))
    found = evidence.quote(an_event(), an_effect(sure), a_report(), settings, WORDS, "ko")
    assert found is not None and "우연" not in found["quote"] and 0 <= found["confidence"] <= 1


def test_worsened_warns_with_its_reason(settings: Settings) -> None:
    bad = a_report(Verdict.WORSENED, p_loss=0.99)
    found = evidence.warning(an_event(), an_effect(measured("risk_band", 0.05)), bad, settings, WORDS, "ko")
    assert found is not None
    assert (found["severity"], found["effect"], found["signal"]["cause"]) == ("warn", "01ABC", "worsened")
    assert found["signal"]["d_risk"] == 0.05 and "risk_max" in found["note"]


def test_a_companion_rise_warns_even_if_the_score_improved(settings: Settings) -> None:
    effect = an_effect(measured("risk_band", -0.02), measured("entropy_rate", 0.08))
    found = evidence.warning(an_event(), effect, a_report(), settings, WORDS, "ko")
    assert found is not None and found["signal"]["beyond"] == ["entropy_rate"]


def test_a_harmless_effect_warns_nobody(settings: Settings) -> None:
    effect = an_effect(measured("risk_band", -0.02), measured("entropy_rate", 0.001))
    assert evidence.warning(an_event(), effect, a_report(), settings, WORDS) is None


def test_both_languages_have_the_same_keys_and_slots() -> None:
    ours = {k: v for k, v in WORDS["ko"].items() if k.startswith("quote.")}
    assert ours and {k: slots(v) for k, v in ours.items()} == {
        k: slots(v) for k, v in WORDS["en"].items() if k.startswith("quote.")
    }


def test_the_sentence_of_an_improvement_names_a_metric_that_improved(settings: Settings) -> None:
    worse, better = measured("entropy_rate", 0.05), measured("risk_band", -0.012)
    said = evidence.quote(an_event(), an_effect(worse, better), a_report(), settings, WORDS, "en")
    assert said is not None
    assert "Risk band" in said["quote"]
    assert "0.012" in said["quote"]
