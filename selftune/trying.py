"""Try before save: the draft of the Targets page on the recorded past, beside today's settings.

Streamlit glue: starts the backtest of a draft, shows how far it is and what it found, in place. Decides
nothing; who may start one is asked at the write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import streamlit as st

from selftune import backtest_desk, backtest_runs, deskwork, ui
from selftune.backtest_request import Mode
from selftune.backtest_text import progress, trial_html
from selftune.backtest_view import trial
from selftune.chart_kit import Say
from selftune.desk import Now
from selftune.house import PAGES
from selftune.markup import block, safe

PAGE = PAGES / "backtest.py"
EVERY_S = 2
WATCHED = "trying_watched"


def panel(text: str, run_id: str, now: Now, say: Say, *, started: Callable[[str], None]) -> None:
    """One button; then the trial of `run_id` ('' before any). `started` gets the id of a new one."""
    with st.container(border=True, key="targets_try"):
        st.html(block(f"<h2>{safe(say('targets.try_head'))}</h2><p>{safe(say('targets.try_what'))}</p>"))
        run = backtest_runs.read(now.root, run_id) if run_id else None
        if run is not None:
            ui.live(partial(watched, run_id), key="try_live", every_s=0 if run.status.over else EVERY_S)
            st.page_link(
                str(PAGE), label=say("targets.try_open"), icon=":material/science:",
                query_params={"run": run.id},
            )  # fmt: skip
            if not run.status.over:
                return
        request = trial(text)
        key = "targets.try_button" if run is None else "targets.try_again"
        with st.container(horizontal=True):
            again = st.button(say(key), icon=":material/science:", key="targets_try_start")
            wanted = request if again else None
            # where the record cannot tell, what it teaches may: the way on that a reader asks for next
            if unanswered(run) and st.button(
                say("targets.try_model"), icon=":material/model_training:", key="targets_try_model"
            ):
                wanted = replace(request, mode=Mode.SIMULATE)
        if wanted is not None:
            found = deskwork.told(say, lambda who: backtest_desk.ask(now.root, wanted, role=who.role))
            if found is not None:
                started(found)


def unanswered(run: backtest_runs.Run | None) -> bool:
    """True when the record had no answer for the draft, so that a learned model is worth asking."""
    result = run.result if run is not None else None
    return result is not None and result.mode == Mode.REPLAY and result.outcomes[0].score is None


def watched(run_id: str) -> None:
    """How far it is, then what it found; the whole page is drawn once more when it ends."""
    now = ui.now()
    say = ui.words(now)
    run = backtest_runs.read(now.root, run_id)
    if run is None:
        return
    if not run.status.over:
        st.session_state[WATCHED] = run_id
        st.progress(min(1.0, run.status.share), text=progress(run.status, say))
        return
    if st.session_state.pop(WATCHED, None) == run_id:
        st.rerun(scope="app")
    if run.result is None:
        why = say.why(run.status.error) if run.status.error is not None else ""
        text = say(f"backtest.title_{run.status.state.value}")
        st.html(block(f'<p role="alert"><b>{safe(text)}</b> {safe(why)}</p>'))
        return
    zone = now.settings.timezone if now.settings else ui.ZONE
    st.html(block(trial_html(run.result, say, zone, ui.look(now).colours)))
