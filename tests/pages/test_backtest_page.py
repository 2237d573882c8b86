"""The Backtest page in every state, role and language; what is pressed really starts or is cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from selftune import backtest_runs
from selftune.backtest_request import DEFAULT_BASELINES, Mode, Request
from selftune.backtest_runs import State
from selftune.catalogue import LANGUAGES
from selftune.demo import demo_root, run_demo
from selftune.domain import Role
from selftune.ledger import mint_ulid
from tests.pages.acting import STATES, opened, prepare, said_well, visit, words_on
from tests.pages.past_runs import Runs, every_state
from tests.pages.reader import html_on

RUN_STATES = (
    "done", "draft", "unsupported", "better", "worse", "sweep", "failed", "cancelled", "interrupted",
    "queued", "running",
)  # fmt: skip
NO_ANSWER = {"ko": "기록에 그런 값이 있던 적이 없어 답할 수 없습니다", "en": "never held such values"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """An hour of the demo's plant with a run in every state."""
    top = tmp_path_factory.mktemp("past")
    run_demo(top, fast=True, seconds=3600, seed=3)
    found = every_state(demo_root(top))
    with found.held:
        yield found


def shown(
    runs: Runs, name: str, monkeypatch: pytest.MonkeyPatch, language: str = "en", vs: str = ""
) -> AppTest:
    """The page of that run, as its link opens it."""
    monkeypatch.setenv("SELFTUNE_ROOT", str(runs.root))
    at = opened("backtest", runs.root, monkeypatch, language)
    at.query_params["run"] = runs.ids.get(name, name)
    if vs:
        at.query_params["vs"] = vs
    return at.run()


def button(at: AppTest, key: str) -> object:
    return next(b for b in at.button if str(b.key) == key)


def has(at: AppTest, key: str) -> bool:
    return any(str(b.key).startswith(key) for b in at.button)


# ----------------------------------------------------------------------------- every state
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_the_first_page(
    role: Role, state: str, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, role)
    prepare(root, state)
    at = opened("backtest", root, monkeypatch, language)
    said_well(at, language)
    may = role is Role.OPERATOR and state not in ("bad_settings", "no_settings")
    assert has(at, "bt_start") is may
    assert not at.metric and not at.get("vega_lite_chart")  # nothing was run: no figure


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize("state", RUN_STATES)
def test_a_run_in_every_state(
    state: str, role: Role, language: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, role)
    at = shown(runs, state, monkeypatch, language)
    text = said_well(at, language)
    over = state not in ("queued", "running")
    operator = role is Role.OPERATOR
    assert has(at, "bt_cancel") is (operator and not over)
    assert has(at, "bt_again") is (operator and over)
    figures = state in ("done", "draft", "unsupported", "better", "worse", "sweep")
    assert bool(at.get("vega_lite_chart")) is figures
    if state == "unsupported":
        assert NO_ANSWER[language] in text


TITLES = {
    "better": "The present settings would have done better than leaving things alone (score +2.0 points)",
    "worse": "The present settings would have done worse than leaving things alone (score −2.0 points)",
    "unsupported": "The present settings: this record alone cannot tell",
    "failed": "This backtest could not be finished",
    "cancelled": "This backtest was cancelled",
    "interrupted": "This backtest was interrupted",
    "running": "Running over the recorded past",
}


@pytest.mark.parametrize(("state", "title"), TITLES.items())
def test_the_title_is_the_verdict(
    state: str, title: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.VIEWER)
    assert shown(runs, state, monkeypatch).title[0].value == title


def test_a_failure_says_its_reason_and_a_run_how_far_it_is(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.VIEWER)
    assert "holds no usable row" in words_on(shown(runs, "failed", monkeypatch))
    at = shown(runs, "running", monkeypatch)
    progress = at.get("progress")[0].proto
    assert progress.value == 42 and "42% done" in progress.text and "1 min 15 s" in progress.text


@pytest.mark.parametrize("odd", ["01JNOWHERE", "<script>alert(1)</script>", "../../etc", "x" * 500])
def test_an_unknown_run_is_said(odd: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.VIEWER)
    at = shown(runs, odd, monkeypatch)
    said_well(at, "en")
    assert at.title[0].value == "There is no such backtest" and "<script" not in html_on(at)


def test_three_beside_each_other(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.VIEWER)
    others = f"{runs.ids['draft']},{runs.ids['unsupported']},{mint_ulid(1)}"
    at = shown(runs, "done", monkeypatch, vs=others)
    text = said_well(at, "en")
    assert "Backtests beside each other: 3" in text and "measured differently" in text
    html = html_on(at)
    assert all(f"{letter} · " in html for letter in "ABC")
    at = shown(runs, "done", monkeypatch, vs=mint_ulid(1))
    assert "beside it was not found" in " ".join(str(i.value) for i in at.info)


def test_what_gives_the_same_again_is_on_the_page(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.VIEWER)
    run = backtest_runs.read(runs.root, runs.ids["done"])
    assert run is not None and run.result is not None
    html = html_on(shown(runs, "done", monkeypatch))
    assert run.result.data_sha256 in html and run.result.config in html


# ----------------------------------------------------------------------------- acts
def test_start_and_cancel_through_the_page(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    before = {r.id for r in backtest_runs.listing(runs.root)}
    monkeypatch.setattr(backtest_runs, "start", backtest_runs.prepare)  # on disk, its worker not yet there
    runs.held.close()  # what ran until now has ended
    for r in backtest_runs.listing(runs.root):
        backtest_runs.cancel(runs.root, r.id)
    at = opened("backtest", runs.root, monkeypatch, "en")
    button(at, "bt_start").click()  # type: ignore[attr-defined]
    at.run()
    (new,) = {r.id for r in backtest_runs.listing(runs.root)} - before
    assert at.query_params["run"] in (new, [new])
    assert at.title[0].value == "The backtest is about to start"
    run = backtest_runs.read(runs.root, new)
    assert run is not None and [c.name for c in run.request.candidates] == ["in_force"]
    button(at, "bt_cancel").click()  # type: ignore[attr-defined]
    at.run()
    run = backtest_runs.read(runs.root, new)
    assert run is not None and run.status.cancelling
    assert "It was asked to stop" in html_on(at)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("mode", list(Mode))
def test_each_ground_is_offered_and_told(
    mode: Mode, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.OPERATOR)
    prepare(root, "full")
    monkeypatch.setattr(backtest_runs, "start", backtest_runs.prepare)
    at = opened("backtest", root, monkeypatch, language)
    next(g for g in at.button_group if g.key == "bt_mode").set_value(mode)
    at.run()
    said_well(at, language)
    assert any(g.key == "bt_period" for g in at.button_group) is (mode is not Mode.PLANT)
    button(at, "bt_start").click()  # type: ignore[attr-defined]
    at.run()
    said_well(at, language)
    (run,) = backtest_runs.listing(root)
    assert (run.request.mode, run.request.against) == (mode, DEFAULT_BASELINES[mode])


def test_many_values_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    prepare(root, "full")
    monkeypatch.setattr(backtest_runs, "start", backtest_runs.prepare)
    at = opened("backtest", root, monkeypatch, "en")
    next(x for x in at.selectbox if x.key == "bt_axis_0").set_value("rules.risk_max.lr")
    at.run()
    said_well(at, "en")
    next(x for x in at.number_input if str(x.key).startswith("bt_hi_0")).set_value(0.04)
    button(at, "bt_start").click()  # type: ignore[attr-defined]
    at.run()
    (run,) = backtest_runs.listing(root)
    assert run.request.sweep is not None
    (axis,) = run.request.sweep.axes
    assert (axis.path, axis.lo, axis.hi, axis.n) == ("rules.risk_max.lr", 0.01, 0.04, 3)


def test_a_sweep_tells_what_it_can_and_names_what_it_cannot(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.VIEWER)
    at = shown(runs, "sweep", monkeypatch)
    text = said_well(at, "en")
    assert "Variants tried: 3" in text and "no answer" in text and "holds no usable row" in text
    assert ">88</b>" in text and "luck" in text


def test_the_role_is_asked_at_the_write(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lost the role while the form was open is refused, in words."""
    visit(monkeypatch, Role.OPERATOR)
    prepare(root, "full")
    at = opened("backtest", root, monkeypatch, "en")
    st.session_state.clear()
    monkeypatch.setattr("selftune.deskwork.may", lambda action: True)  # a page that forgot to look
    visit(monkeypatch, Role.VIEWER)
    button(at, "bt_start").click()  # type: ignore[attr-defined]
    at.run()
    assert backtest_runs.listing(root) == ()
    assert "Nothing was changed" in words_on(at) and "may not do this" in words_on(at)


def test_only_two_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    prepare(root, "full")
    for _ in range(2):
        backtest_runs.prepare(root, Request())
    at = opened("backtest", root, monkeypatch, "en")
    button(at, "bt_start").click()  # type: ignore[attr-defined]
    at.run()
    assert len(backtest_runs.listing(root)) == 2 and "At most 2 run at once" in words_on(at)


# ----------------------------------------------------------------------------- try before save
def test_try_before_save_shows_the_answer_in_place(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(monkeypatch, Role.OPERATOR)
    at = opened("targets", runs.root, monkeypatch, "en")
    settings = (runs.root / "configs" / "self_tuning.yaml").read_bytes()
    next(f for f in at.number_input if str(f.key).endswith("targets.risk_band.max")).set_value(0.27)
    next(b for b in at.button if b.label == "Preview").click()
    at.run()
    said_well(at, "en")
    asked: list[Request] = []

    def ended(root: Path, request: Request) -> str:
        asked.append(request)
        return runs.ids["draft"]

    monkeypatch.setattr(backtest_runs, "start", ended)
    monkeypatch.setattr("selftune.backtest_desk.AT_ONCE", 99)
    button(at, "targets_try_start").click()  # type: ignore[attr-defined]
    at.run()
    (request,) = asked
    assert [c.name for c in request.candidates] == ["draft", "in_force"]
    assert "0.27" in (request.candidates[0].text or "")
    text = said_well(at, "en")
    assert "the open draft" in text.lower() and "the present settings" in text.lower()
    assert (runs.root / "configs" / "self_tuning.yaml").read_bytes() == settings  # tried, not saved


def test_a_run_of_the_page_is_a_real_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes of metrics: the worker itself starts, ends, and its answer opens by the same link."""
    visit(monkeypatch, Role.OPERATOR)
    prepare(root, "full")
    at = opened("backtest", root, monkeypatch, "en")
    button(at, "bt_start").click()  # type: ignore[attr-defined]
    at.run()
    (run,) = backtest_runs.listing(root)
    child = backtest_runs._started[run.id]
    child.wait(timeout=60)
    again = backtest_runs.read(root, run.id)
    assert again is not None and again.status.state in (State.DONE, State.FAILED)
    at.run()
    said_well(at, "en")
    assert at.title[0].value != "The backtest is about to start"
