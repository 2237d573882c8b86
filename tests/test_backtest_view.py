"""What a backtest is said to have found, and what its page is asked for: plain facts, no guess."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from selftune import catalogue, report
from selftune.backtest_request import Candidate, Mode, Request, Source
from selftune.backtest_result import Interval, Outcome, Result, Stretch, Support
from selftune.backtest_runs import Run, State, Status
from selftune.backtest_text import headline, support, trial_html
from selftune.backtest_view import (
    Line,
    Verdict,
    asked,
    candidate,
    choices,
    command,
    differences,
    draft_text,
    grounds,
    lines,
    name_of,
    query_of,
    table,
    trial,
    verdict,
    yardsticks,
)
from selftune.chart_kit import LIGHT, Say
from selftune.config import edit, parse
from selftune.domain import PolicyName
from selftune.drafting import Work
from tests.conftest import CHECKOUT, SHIPPED

T0 = 1_795_300_000_000
TEXT = SHIPPED.read_text(encoding="utf-8")
HOSTILE = "<script>alert(1)</script> =1+1"


def say_in(language: str) -> Say:
    return Say(language, catalogue.load(), ZoneInfo("Asia/Seoul"))


def one(**more: object) -> Outcome:
    known = {
        "name": "in_force", "role": "candidate", "policy": "heuristic", "config": "c", "changes": 3,
        "score": Interval(mean=0.8, lo=0.79, hi=0.81), "gain": Interval(mean=0.02, lo=0.01, hi=0.03),
        "support_share": 0.9, "support": Support.OK,
    }  # fmt: skip
    return Outcome(**{**known, **more})  # type: ignore[arg-type]


def run_of(*outcomes: Outcome, run_id: str = "A" * 26, text: str = TEXT, **more: object) -> Run:
    known = {
        "mode": "replay", "data_sha256": "d", "config": "c", "version": "0", "seed": 0, "from_ms": T0,
        "to_ms": T0 + 3_600_000, "rows": 10, "events": 1,
    }  # fmt: skip
    result = Result(**{**known, **more}, outcomes=outcomes or (one(),))  # type: ignore[arg-type]
    request = Request(candidates=(Candidate(name="in_force", text=text),))
    return Run(id=run_id, request=request, status=Status(state=State.DONE), result=result)


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (one(), Verdict.BETTER),
        (one(gain=Interval(mean=-0.02, lo=-0.03, hi=-0.01)), Verdict.WORSE),
        (one(gain=Interval(mean=0.02, lo=-0.01, hi=0.03)), Verdict.EVEN),
        (one(changes=0, gain=Interval(mean=0.0, lo=0.0, hi=0.0)), Verdict.STILL),
        (one(support=Support.NONE, score=None, gain=None, changes=0), Verdict.UNKNOWN),
        (one(gain=None), Verdict.UNKNOWN),
    ],
)
def test_the_verdict_never_says_more_than_the_interval(outcome: Outcome, found: Verdict) -> None:
    assert verdict(outcome) is found
    for language in catalogue.LANGUAGES:
        text = headline(outcome, say_in(language))
        assert "{" not in text and "(code" not in text and "코드" not in text


def test_without_support_there_is_no_figure_anywhere() -> None:
    silent = one(support=Support.NONE, score=None, gain=None, support_share=0.04)
    for language, words in (
        ("ko", "기록에 그런 값이 있던 적이 없어 답할 수 없습니다"),
        ("en", "never held such values"),
    ):
        say = say_in(language)
        assert words in support(silent, "replay", say)
        assert support(silent, "simulate", say) != support(silent, "replay", say)
        assert support(silent, "plant", say) == ""
        assert not any(c.isdigit() for c in headline(silent, say))
    figures = table([Line(letter="", run="r", mode="replay", outcome=silent)], say_in("en"), "Asia/Seoul")
    assert figures["Score"] == [None] and figures["Over doing nothing"] == [None]


def test_a_part_that_can_be_answered_is_said_in_the_first_sentence() -> None:
    partly = one(support=Support.PARTIAL, support_share=0.32)
    assert "답할 수 있는 32%에서는" in headline(partly, say_in("ko"))
    assert headline(partly, say_in("en")).startswith("In the 32% that can be answered: the present settings")
    assert headline(one(), say_in("en")).startswith("The present settings would have done better")


# ----------------------------------------------------------------------------- the address
@pytest.mark.parametrize("odd", ["../..", "x" * 400, "<script>", "01JNOWHERE", "0" * 26])
def test_odd_ids_are_unknown_and_never_a_path(odd: str, tmp_path: Path) -> None:
    a = asked(tmp_path, {"run": odd, "vs": f"{odd},{odd},b,c"})
    assert a.run is None and a.named and a.unknown[0] == odd and a.beside == ()
    assert asked(tmp_path, {}).named is False


def test_the_address_says_what_is_beside() -> None:
    assert query_of("a") == {"run": "a"} and query_of("a", ["b", "c"]) == {"run": "a", "vs": "b,c"}


# ----------------------------------------------------------------------------- candidates
def test_candidates_come_from_codes() -> None:
    drafted = edit(TEXT, {"targets.risk_band.max": 0.27})
    codes = choices((), drafted)
    assert codes == ["in_force", "draft", "policy:adaptive", "policy:heuristic"]
    assert candidate("draft", drafted).source is Source.DRAFT
    assert candidate("policy:adaptive", None).policy is PolicyName.ADAPTIVE
    assert candidate("rev:" + "0" * 26, None).revision == "0" * 26
    assert choices((), None)[:1] == ["in_force"] and "draft" not in choices((), None)
    assert [c.name for c in trial(drafted).candidates] == ["draft", "in_force"]


def test_the_simulated_system_is_offered_only_to_settings_of_its_own_names() -> None:
    assert grounds(parse(SHIPPED.read_bytes())) == list(Mode)
    other = CHECKOUT / "examples" / "live_service" / "configs" / "self_tuning.yaml"
    assert Mode.PLANT not in grounds(parse(other.read_bytes()))


def test_the_open_draft_is_what_would_be_saved() -> None:
    work = Work(base=TEXT.encode(), changes={"targets.risk_band.max": 0.27})
    text = draft_text(work)
    assert text is not None and "0.27" in text
    for none in (None, 7, Work(base=TEXT.encode()), Work(base=b"\xff", changes={"cooldown_s": 1.0}),
                 Work(base=TEXT.encode(), changes={"cooldown_s": -1.0})):  # fmt: skip
        assert draft_text(none) is None


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
def test_our_names_are_said_and_typed_names_stay(language: str) -> None:
    say = say_in(language)
    ours = ("in_force", "draft", "policy:adaptive", "adaptive", "none", "rev:01JDKZ00000000000000000000")
    for name, role in (*((n, "candidate") for n in ours), ("none", "none"), ("oracle", "oracle")):
        assert name_of(name, role, say) not in (name, "")
    for typed in (HOSTILE, "policy:magic", "rev:1", "other.yaml"):
        assert name_of(typed, "candidate", say) == typed


# ----------------------------------------------------------------------------- beside each other
def test_of_several_runs_the_baselines_come_once() -> None:
    first = run_of(one(), one(name="none", role="none"))
    second = run_of(one(name=HOSTILE), one(name="none", role="none"), run_id="B" * 26)
    assert [(x.letter, x.outcome.name) for x in lines([first, second])] == [
        ("A", "in_force"), ("A", "none"), ("B", HOSTILE)
    ]  # fmt: skip
    assert [x.letter for x in lines([first])] == ["", ""]


def test_why_scores_may_not_be_compared() -> None:
    here = run_of()
    assert differences([here, run_of()]) == ()
    assert differences([here, run_of(mode="plant")]) == ("mode",)
    assert differences([here, run_of(to_ms=T0 + 1)]) == ("period",)
    assert differences([here, run_of(data_sha256="e")]) == ("data",)
    other = edit(TEXT, {"targets.risk_band.max": 0.27})
    assert differences([here, run_of(text=other)]) == ("yardstick",)
    assert len(set(yardsticks([here, run_of(text=edit(TEXT, {"cooldown_s": 200}))]))) == 1


def test_the_table_leaves_as_a_safe_csv() -> None:
    worst = Stretch(from_ms=T0, to_ms=T0 + 600_000, score=0.7, against=-0.03)
    rows = lines([run_of(one(name="=HYPERLINK(1)", worst=worst))])
    text = report.table_csv(table(rows, say_in("ko"), "Asia/Seoul")).decode("utf-8-sig")
    assert "'=HYPERLINK(1)" in text and "-3.0" in text and "80.0" in text


def test_the_command_gives_the_same_again_or_is_none() -> None:
    line = command(run_of(seed=7))
    assert line is not None and "--mode replay" in line and "--seed 7" in line
    drafted = Request(candidates=(Candidate(name="draft", source=Source.DRAFT, text=TEXT),), mode=Mode.REPLAY)
    assert command(replace(run_of(), request=drafted)) is None


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
def test_the_trial_says_both_and_shows_typed_names_as_text(language: str) -> None:
    result = run_of(one(name=HOSTILE), one(), one(name="none", role="none")).result
    assert result is not None
    html = trial_html(result, say_in(language), "Asia/Seoul", LIGHT)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert html.count("<li>") == 2
