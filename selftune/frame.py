"""The Streamlit main script: who looks, the language, the banner, the navigation; then the page itself.

It fails closed: without an identity from the middleware there is a closed page and no data.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # `streamlit run selftune/frame.py` puts only this folder there
    sys.path.insert(0, str(HERE.parent))

import streamlit as st  # noqa: E402

from selftune import ui  # noqa: E402
from selftune.chart_kit import Say  # noqa: E402
from selftune.view import Visitor  # noqa: E402

PAGES = HERE.parent / "pages"


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
                    PAGES / "suggestions.py", title=say("nav.suggestions"), icon=":material/lightbulb:",
                    url_path="suggestions",
                ),
            ],
            say("nav.work"): [
                st.Page(
                    PAGES / "history.py", title=say("nav.history"), icon=":material/history:",
                    url_path="history",
                ),
            ],
            say("nav.guide"): [
                st.Page(
                    PAGES / "help.py", title=say("nav.help"), icon=":material/help:", url_path="help"
                ),
            ],
        }
    )  # fmt: skip


def sidebar(visitor: Visitor, say: Say) -> None:
    """Language, pace of renewal, and who the server takes this visitor for."""
    with st.sidebar:
        ui.language_links(say)
        st.selectbox(
            say("side.refresh"),
            ui.REFRESH_S,
            index=1,
            key="refresh_s",
            format_func=lambda s: say("side.every", n=s) if s else say("side.off"),
        )
        st.markdown(
            f":material/person: {say('side.you', name=visitor.name, role=say(f'role.{visitor.role}'))}"
        )


def banner() -> None:
    """The banner of every page, from the newest picture."""
    picture = ui.now()
    ui.banner(picture.banner, ui.words(picture))


def main() -> None:
    """One run of the script for one session."""
    st.set_page_config(
        page_title="selftune", page_icon=str(ui.FAVICON), layout="wide", initial_sidebar_state="auto"
    )
    visitor = ui.current_identity()
    if visitor is None:
        ui.closed_page()
        return
    say = ui.words()
    page = navigation(say)
    sidebar(visitor, say)
    ui.live(banner, key="banner_live")
    ui.guarded(page.run)()


main()
