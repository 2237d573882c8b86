"""The frame: closed without identity, language by the agreed order, and no other way in."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from selftune import catalogue, ui
from selftune.domain import Mode, Role
from selftune.view import BannerView, DataAge, LoopState, Visitor
from tests.conftest import CHECKOUT

FRAME = CHECKOUT / "selftune" / "frame.py"
PAGES = sorted((CHECKOUT / "pages").glob("*.py"))


def figures(at: AppTest) -> int:
    return len(at.metric) + len(at.dataframe) + len(at.table) + len(at.get("vega_lite_chart"))


@pytest.mark.parametrize("script", [FRAME, *PAGES], ids=lambda p: p.name)
def test_run_directly_it_is_closed_and_shows_no_data(
    script: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFTUNE_ROOT", str(root))
    at = AppTest.from_file(script, default_timeout=30).run()
    assert not at.exception
    assert at.title[0].value == "지금은 닫혀 있습니다"
    assert figures(at) == 0 and not at.sidebar.children


@pytest.mark.parametrize("way", ["role", "environment", "session", "query"])
def test_nothing_but_the_middleware_opens_it(way: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTUNE_ROOT", str(root))
    at = AppTest.from_file(FRAME, default_timeout=30)
    if way in ("role", "environment"):
        monkeypatch.setenv("SELFTUNE_ROLE", "admin")
    if way == "session":
        for key in ("visitor", "identity", "role", "user"):
            at.session_state[key] = "admin"
    if way == "query":
        at.query_params["role"] = "admin"
    assert at.run().title[0].value == "지금은 닫혀 있습니다"


def test_launcher_is_a_literal_st_app() -> None:
    """`streamlit run` reads the file's text to find the app; an alias would start another server."""
    tree = ast.parse((CHECKOUT / "app.py").read_text(encoding="utf-8"))
    last = tree.body[-1]
    assert isinstance(last, ast.Assign) and ast.unparse(last.targets[0]) == "app"
    assert ast.unparse(last.value.func) == "st.App"  # type: ignore[attr-defined]


def shown(lang: str | None = None, session: str | None = None, *, at: AppTest) -> str:
    if lang:
        at.query_params["lang"] = lang
    if session:
        at.session_state["language"] = session
    return at.run().title[0].value


@pytest.mark.parametrize(
    ("lang", "session", "title"),
    [
        (None, None, "지금은 닫혀 있습니다"),
        ("en", None, "Closed for now"),
        ("en", "ko", "Closed for now"),
        (None, "en", "Closed for now"),
        ("xx", None, "지금은 닫혀 있습니다"),
    ],
)
def test_language_order(lang: str | None, session: str | None, title: str) -> None:
    assert shown(lang, session, at=AppTest.from_file(FRAME, default_timeout=30)) == title


def banner_of(view: BannerView, language: str) -> list[str]:
    def script(view, language):  # type: ignore[no-untyped-def]  # runs as a file of its own
        from selftune import ui as here
        from tests.chart_cases import say_in

        here.banner(view, say_in(language))

    at = AppTest.from_function(script, kwargs={"view": view, "language": language}, default_timeout=30).run()
    assert not at.exception
    return [m.value for m in at.markdown]


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
@pytest.mark.parametrize("loop", list(LoopState))
@pytest.mark.parametrize("data", list(DataAge))
def test_banner_says_every_state_in_words(loop: LoopState, data: DataAge, language: str) -> None:
    view = BannerView(
        loop=loop, loop_age_s=None if loop is LoopState.NONE else 3.2, mode=Mode.DRY_RUN, data=data,
        data_age_s=None if data is DataAge.NONE else 61.0,
    )  # fmt: skip
    text = " ".join(banner_of(view, language))
    assert "code " not in text and "코드 " not in text and "{" not in text
    assert ("연습 모드" if language == "ko" else "Practice") in text


def test_banner_tells_practice_from_live() -> None:
    both = [
        BannerView(loop=LoopState.ALIVE, loop_age_s=1, mode=m, data=DataAge.FRESH, data_age_s=0) for m in Mode
    ]
    practice, live = (" ".join(banner_of(v, "en")) for v in both)
    assert "Practice" in practice and "Live" not in practice
    assert "Live" in live and "Practice" not in live


def test_a_fault_becomes_words_and_an_id() -> None:
    def script() -> None:
        from selftune import ui as here

        def broken() -> None:
            raise RuntimeError("secret path /etc/x")

        here.guarded(broken)()

    at = AppTest.from_function(script, default_timeout=30).run()
    assert not at.exception
    everything = " ".join(
        [m.value for m in at.markdown] + [c.value for c in at.code] + [s.value for s in at.subheader]
    )
    assert "보여 드리지 못했습니다" in everything and "secret" not in everything
    assert len(at.code[0].value) == 8


def test_require_refuses_a_role_that_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def script() -> None:
        import streamlit as st

        from selftune import ui as here
        from selftune.domain import Role

        here.require(Role.OPERATOR)
        st.write("inside")

    for role, inside in ((Role.VIEWER, False), (Role.OPERATOR, True)):
        visitor = Visitor(name="kim", role=role)
        monkeypatch.setattr(ui, "current_identity", lambda visitor=visitor: visitor)
        at = AppTest.from_function(script, default_timeout=30).run()
        assert (at.markdown[-1].value == "inside") is inside
