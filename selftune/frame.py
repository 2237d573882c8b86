"""The Streamlit main script: who looks, the language, the banner, the navigation; then the page itself.

It fails closed: without an identity from the middleware there is a closed page and no data.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # `streamlit run selftune/frame.py` puts only this folder there
    sys.path.insert(0, str(HERE.parent))

# Loaded whole before anything is drawn: pyarrow loads it when it first needs it, and Altair, in the thread of
# another session, would find half of it.
import pandas  # noqa: E402, F401
import streamlit as st  # noqa: E402

from selftune import deskwork, switch, ui, whoami  # noqa: E402
from selftune.chart_kit import Say  # noqa: E402
from selftune.house import PAGES  # noqa: E402
from selftune.view import Visitor  # noqa: E402


def navigation(say: Say) -> st.Page:
    """The pages that exist, by section. A page that is hidden stays reachable by its link."""
    return st.navigation(
        {
            say("nav.now"): [
                st.Page(
                    PAGES / "overview.py", title=say("nav.overview"), icon=":material/dashboard:",
                    url_path="overview", default=True,
                ),
                st.Page(
                    PAGES / "trends.py", title=say("nav.trends"), icon=":material/timeline:",
                    url_path="trends",
                ),
                st.Page(
                    PAGES / "suggestions.py", title=say("nav.suggestions"), icon=":material/lightbulb:",
                    url_path="suggestions",
                ),
            ],
            say("nav.work"): [
                st.Page(
                    PAGES / "targets.py", title=say("nav.targets"), icon=":material/tune:",
                    url_path="targets",
                ),
                st.Page(
                    PAGES / "backtest.py", title=say("nav.backtest"), icon=":material/science:",
                    url_path="backtest",
                ),
                st.Page(
                    PAGES / "history.py", title=say("nav.history"), icon=":material/history:",
                    url_path="history",
                ),
                st.Page(
                    PAGES / "review.py", title=say("nav.review"), icon=":material/verified_user:",
                    url_path="review",
                ),
            ],
            say("nav.guide"): [
                st.Page(
                    PAGES / "help.py", title=say("nav.help"), icon=":material/help:", url_path="help"
                ),
            ],
        }
    )  # fmt: skip


def sidebar(visitor: Visitor, say: Say, *, pace: bool) -> None:
    """Language, pace of renewal (`pace`: unless the page has that control itself), and who looks."""
    with st.sidebar:
        ui.language_links(say)
        if pace:
            ui.refresh_control(say)
        whoami.card(visitor, say)


def banner() -> None:
    """The banner of every page, from the newest picture."""
    now = ui.now()
    say = ui.words(now)
    ui.banner(now.banner, say, switch=lambda: switch.button(now, say), slower_s=ui.slower_s())
    whoami.ending(say)


def main() -> None:
    """One run of the script for one session."""
    st.set_page_config(
        page_title="selftune", page_icon=str(ui.FAVICON), layout="wide", initial_sidebar_state="auto"
    )
    visitor = ui.current_identity()
    if visitor is None:
        ui.closed_page()
        return
    ui.ink()
    say = ui.words()
    page = navigation(say)
    sidebar(visitor, say, pace=page.url_path != "trends")
    ui.live(banner, key="banner_live", every_s=ui.BANNER_S, longest_s=ui.BANNER_LONGEST_S)
    deskwork.said()
    ui.guarded(page.run)()
    switch.dialog(say)
    ui.settle()


main()
