"""Stop and Resume on every page: the button in the banner, the dialog that asks once, the act.

Nothing in here decides: hands.py says what stopping is, the office asks the role and commits.
"""

from __future__ import annotations

import streamlit as st

from selftune import deskwork, hands, ui
from selftune.access import Action
from selftune.chart_kit import Say
from selftune.desk import Now
from selftune.markup import block, safe

STOP, RESUME = "stop_tuning", "resume_tuning"
WHY_LONGEST = 500


def button(now: Now, say: Say) -> None:
    """Stop (or Resume) for an operator; for everybody else whom to ask.

    A loan that ended before its time can be stopped as well as taken up again: both buttons.
    """
    stopped = now.banner.stopped is not None
    what = RESUME if stopped else STOP
    if not stopped and now.banner.loan is not None and now.banner.loan.resumable:
        _one(RESUME, now, say)
    _one(what, now, say)


def _one(what: str, now: Now, say: Say) -> None:
    on = what == RESUME
    if not deskwork.may(Action.RESUME if on else Action.STOP):
        whom = say("banner.ask_resume" if on else "banner.ask_stop")
        st.html(block(f"<span>{safe(whom)}</span>"), width="content")
        return
    icon = ":material/play_circle:" if on else ":material/front_hand:"
    if st.button(say(f"banner.do_{what}"), icon=icon, key=f"banner_{what}"):
        deskwork.ask(what, "")
        st.rerun(scope="app")


def dialog(say: Say) -> None:
    """The dialog that was asked for, if it is one of these two."""
    open_ = deskwork.asked()
    if open_ is None or open_[0] not in (STOP, RESUME):
        return
    what = open_[0]

    @st.dialog(say(f"banner.ask_{what}"), on_dismiss=deskwork.answered)
    def shown() -> None:
        st.write(say(f"banner.what_{what}"))
        with st.form(f"form_{what}", enter_to_submit=False, border=False):
            reason = st.text_input(say("banner.why_optional"), max_chars=WHY_LONGEST, key=f"why_{what}")
            sent = st.form_submit_button(say(f"banner.confirm_{what}"), type="primary", key=f"send_{what}")
        if sent and _carry_out(what, reason.strip(), say):
            deskwork.done(say(f"banner.done_{what}"))

    shown()


def _carry_out(what: str, reason: str, say: Say) -> bool:
    visitor = ui.current_identity()
    role = visitor.role.value if visitor else ""
    if what == STOP:
        return deskwork.act(
            Action.STOP, lambda p, who: hands.stop(p, actor=who, role=role, reason=reason), say
        )
    return deskwork.act(
        Action.RESUME, lambda p, who: hands.resume(p, actor=who, role=role, reason=reason), say
    )
