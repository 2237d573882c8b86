"""The end of a loan is recorded, shown and told: on both records, on every page, where the loop runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from selftune import catalogue
from selftune.checkup import checkup
from selftune.desk import Desk
from selftune.domain import Mode, Reason
from selftune.loop import Loop
from selftune.needs import needs
from selftune.view import BannerView, DataAge, LoanView, LoopState
from tests.test_reviewing import ask, lines, new_crit, seen, sign, watch

CODE = "loan.crit"


@pytest.fixture
def over(root: Path) -> tuple[Path, list[str]]:
    """A root whose loan a critical warning has ended under a loop, and what the loop said in its terminal."""
    watch(root)
    ask(root)
    sign(root)
    new_crit(root)
    said: list[str] = []
    loop = Loop(root, say=said.append)
    loop.tick()
    loop.close()
    return root, said


def test_it_is_on_both_records_with_who_when_and_why(over: tuple[Path, list[str]]) -> None:
    root, _ = over
    record = lines(root)[-1]
    assert (record["kind"], record["by"], record["role"]) == ("disarm", "selftune", "loop")
    assert record["reason"] == CODE and record["ts"]
    text = (root / "logs" / "tuning_decisions.jsonl").read_text(encoding="utf-8")
    (decision,) = [d for d in map(json.loads, text.splitlines()) if d.get("act") == "disarm"]
    assert decision["reasons"][0]["code"] == CODE and not seen(root).mode.live
    assert checkup(root).exit_code == 0


def test_it_is_told_where_the_loop_runs_in_words(over: tuple[Path, list[str]]) -> None:
    _, said = over
    assert len(said) == 1 and "연습 모드" in said[0] and "loan." not in said[0]


def test_it_stands_among_what_needs_somebody_and_in_the_banner(over: tuple[Path, list[str]]) -> None:
    now = Desk(over[0]).now()
    assert now.banner.loan is not None and now.banner.loan.why is not None
    assert now.banner.loan.why.code == CODE
    (need,) = [n for n in needs(now.picture, now.banner) if n.kind == "loan_over"]
    assert need.page == "review" and need.reason == now.banner.loan.why


def script() -> None:
    import streamlit as st

    from selftune import ui as here
    from tests.test_loan_end import view as seen_now

    here.tell_end(seen_now(st.session_state.get("ends")), here.words())


def view(ended_ms: int | None) -> BannerView:
    """The banner while a loan runs, and after its end."""
    why = Reason("loan.expired", {}) if ended_ms is not None else None
    loan = LoanView(changes_left=None if why else 3, until_ms=1, ended_ms=ended_ms, why=why)
    return BannerView(
        loop=LoopState.ALIVE, loop_age_s=1.0, mode=Mode.DRY_RUN if why else Mode.LIVE, data=DataAge.FRESH,
        data_age_s=1.0, loan=loan,
    )  # fmt: skip


def test_a_page_that_is_open_pops_up_once() -> None:
    at = AppTest.from_function(script, default_timeout=30).run()
    popped = [len(at.toast)]
    for ms in (5, 5, 9):
        at.session_state["ends"] = ms
        at.run()
        popped.append(len(at.toast))
    assert popped == [0, 1, 0, 1] and not at.exception
    assert catalogue.load()["ko"]["banner.loan_toast"].split("{")[0].strip() in at.toast[0].value


def test_a_page_that_is_opened_later_does_not() -> None:
    at = AppTest.from_function(script, default_timeout=30)
    at.session_state["ends"] = 5
    assert len(at.run().toast) == 0
