"""Backtest: says plainly that it comes later, what it will answer, and what can be used meanwhile."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from selftune import ui
from selftune.markup import block, safe

ui.require()

HERE = Path(__file__).parent
QUESTIONS = ("past", "compare", "worst", "support")
MEANWHILE = ("overview", "trends", "history", "review")


def main() -> None:
    """No figure stands here before the engine is there: an invented one would be believed."""
    say = ui.words(ui.now())
    st.title(say("backtest.title"))
    st.info(say("backtest.later"), icon=":material/event_upcoming:")
    st.header(say("backtest.answers_head"))
    st.html(
        block("<ul>" + "".join(f"<li>{safe(say(f'backtest.answers_{q}'))}</li>" for q in QUESTIONS) + "</ul>")
    )
    st.header(say("backtest.meanwhile_head"))
    for name in MEANWHILE:
        page = HERE / f"{name}.py"
        if page.exists():
            with st.container(border=True, gap="xsmall"):
                st.page_link(str(page), label=say(f"nav.{name}"), icon=":material/arrow_forward:")
                st.write(say(f"backtest.use_{name}"))


ui.guarded(main)()
