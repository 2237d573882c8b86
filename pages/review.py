"""Review: may practice mode end? Evidence, the exact change, the loan, who signed; ask, sign, send back.

Thin: who may and whether it still stands is the core's to say (governing.py), writing is reviewing.py's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from selftune import deskwork, governing, review_report, reviewing, ui
from selftune.access import Action
from selftune.chart_kit import Say, clock_text
from selftune.desk import Now
from selftune.domain import Role
from selftune.governing import Request, State, What
from selftune.markup import as_typed, block, safe
from selftune.picture import Picture
from selftune.readiness import Readiness
from selftune.review_text import (
    asked_html,
    edit_html,
    ended_html,
    item_html,
    loan_asked,
    loan_html,
    moved_html,
    signatures_html,
    state_html,
    summary,
    track_html,
)
from selftune.reviewing import Terms
from selftune.revision_text import exact
from selftune.standing import Standing, checklist, last_switch, requests, standing, unfinished
from selftune.view import DataAge

ui.require()

HERE = Path(__file__).parent
SEEN, END = "review_seen", "review_end_loan"
OTHERS = 12
PRINTED = """<style>@media print{[data-testid=stSidebar],[data-testid=stHeader],.st-key-banner,
.st-key-review_print_bar{display:none!important}}</style>"""


def main() -> None:
    """The page, top to bottom."""
    now, glance = ui.now(), deskwork.glance()
    say = ui.words(now)
    p = glance.picture
    if p is None:
        st.title(say("review.title"))
        st.write(say("review.closed"))
        if glance.fault:
            st.html(block(f"<p>{safe(glance.fault)}</p>"))
        ui.settings_problems(now, say)
        return
    found = checklist(now.root, p)
    wanted = st.query_params.get("req")
    chosen = pick(p, wanted)
    at = standing(now.root, p, chosen, found if chosen.what is What.ARMING else None) if chosen else None
    st.session_state[SEEN] = signature(p, at)
    st.title(title(p, at, say))
    if st.query_params.get("print"):
        printed(p, found, at, say)
        return
    ui.settings_problems(now, say)
    if wanted and (chosen is None or chosen.id != wanted):
        st.info(say("review.unknown"), icon=":material/link_off:")
    notices(now, p, at, say)
    if at is not None:
        asked(at, say)
    left, right = st.columns([3, 2], gap="large")
    with left:
        if at is None or at.request.what is What.ARMING:
            ui.live(partial(evidence, chosen.id if chosen else None), key="review_live")
        else:
            rows(p, at, say)
    with right:
        change(p, at, say)
        signed(at, say)
        decide(now, p, at, found, say)
        papers(p, found, at, say)
    others(p, now, at, say)
    ui.live(watch, key="review_watch")
    dialog(p, say)


def pick(p: Picture, wanted: str | None) -> Request | None:
    """The request of the address, else the one that waits, else the last one about practice mode."""
    found = requests(p)
    named = next((r for r in found if r.id == wanted), None)
    waiting = next((r for r in reversed(found) if not r.over), None)
    return named or waiting or governing.current(found)


def title(p: Picture, at: Standing | None, say: Say) -> str:
    """The question of this page as things stand."""
    if at is not None and at.request.what is What.EDIT:
        return say("review.title_edit")
    if p.mode.live:
        return say("review.title_live")
    return say("review.title_waiting" if at is not None and at.state is State.OPEN else "review.title")


def signature(p: Picture, at: Standing | None) -> tuple[object, ...]:
    """What makes the page out of date: a new record, or that the request stands no more."""
    moved = tuple(m.code for m in at.moved) if at is not None else ()
    return (p.snap.records.chain.n, at.state if at is not None else None, moved, p.mode.live)


def watch() -> None:
    """Draws the page anew when something happened to the request, but never under an open dialog."""
    now, p = ui.now(), deskwork.glance().picture
    if p is None or deskwork.asked() is not None:
        return
    chosen = pick(p, st.query_params.get("req"))
    at = standing(now.root, p, chosen) if chosen else None
    if signature(p, at) != st.session_state.get(SEEN):
        st.rerun(scope="app")


# ------------------------------------------------------------------------------- how things stand
def notices(now: Now, p: Picture, at: Standing | None, say: Say) -> None:
    """A loan that runs or has ended, what was left half done, and data that have stopped."""
    if now.banner.data is DataAge.OLD and (at is None or at.request.what is What.ARMING):
        when = clock_text(now.series.newest_ms or 0, p.settings.timezone)
        st.warning(say("review.stale", when=when), icon=":material/sensors_off:")
    if unfinished(p) is not None:
        st.warning(say("review.unfinished"), icon=":material/front_hand:")
    loan, last = p.mode.loan, last_switch(p.snap.records.governance)
    if p.mode.live and loan is not None:
        with st.container(border=True, key="review_loan"):
            st.html(block(f"<h2>{safe(say('review.loan_running'))}</h2>", loan_html(loan, say)))
            if deskwork.may(Action.STOP) and st.button(
                say("review.end_loan"), icon=":material/school:", key="review_end"
            ):
                deskwork.ask(END, "")
                st.rerun()
    elif last is not None and last.kind == "disarm":
        with st.container(border=True, key="review_loan_over"):
            st.html(block(f"<h2>{safe(say('review.loan_over_head'))}</h2>", ended_html(last, say)))


def asked(at: Standing, say: Say) -> None:
    """The request itself, and what moved if it is void."""
    with st.container(border=True, key="review_request"):
        st.html(block(state_html(at, say), moved_html(at.moved, say), asked_html(at, say)))


def dialog(p: Picture, say: Say) -> None:
    """Back to practice before the loan ends: asked once, with a reason."""
    open_ = deskwork.asked()
    if open_ is None or open_[0] != END:
        return

    @st.dialog(say("review.end_loan"), on_dismiss=deskwork.answered)
    def shown() -> None:
        st.write(say("review.end_loan_what"))
        why = deskwork.reason_form(say, key="review_end_form", button=say("review.end_loan_button"))
        visitor = ui.current_identity()
        role = visitor.role.value if visitor else ""
        if why is not None and deskwork.act(
            Action.STOP, lambda q, who: reviewing.end_loan(q, actor=who, role=role, reason=why), say
        ):
            deskwork.done(say("review.ended_loan"))

    shown()


# ------------------------------------------------------------------------------- left: the evidence
def evidence(request_id: str | None) -> None:
    """The checklist, renewed in place; beside each grade the one of the request, where it was another."""
    now, p = ui.now(), deskwork.glance().picture
    if p is None:
        return
    say, colours = ui.words(now), ui.look(now).colours
    found = checklist(now.root, p)
    r = next((r for r in requests(p) if r.id == request_id), None)
    st.header(say("review.evidence_head"))
    st.html(block(f'<p class="lead"><b>{safe(summary(found, say))}</b></p>'))
    for item in found.items:
        then = r.grades.get(item.code) if r is not None and not r.over else None
        with st.container(border=True, gap="xsmall", key=f"review_{item.code}"):
            st.html(block(item_html(item, say, colours, then)))
            target = HERE / f"{item.page}.py"
            if item.page and target.exists():
                st.page_link(str(target), label=say(f"nav.{item.page}"), icon=":material/arrow_forward:")
    if found.unknown:
        st.html(block(f"<p>{safe(say('review.unknown_bars', names=list(found.unknown)))}</p>"))
    st.header(say("review.track_head"))
    st.html(block(track_html(found.track, say)))


def rows(p: Picture, at: Standing, say: Say) -> None:
    """What a proposal of settings would change, in words."""
    st.header(say("review.change_head"))
    st.html(block(edit_html(p, at.request, say)))


# ------------------------------------------------------------------------------- right: what is signed
def change(p: Picture, at: Standing | None, say: Say) -> None:
    """The exact change, its fingerprint, and the loan."""
    arming = at is None or at.request.what is What.ARMING
    if arming:
        st.header(say("review.change_head"))
        diff = review_report.flip_text(p, at)
        used = at is not None and at.state is State.USED
        st.write(say("review.no_flip" if not diff else "review.changed" if used else "review.change"))
        if diff:
            st.code(diff, language=None, wrap_lines=True)
    st.header(say("review.print_head"))
    st.code(at.request.settings if at is not None else p.settings.digest, language=None, wrap_lines=True)
    st.write(say("review.print"))
    if at is not None and at.request.evidence:
        st.html(
            block(f"<h3>{safe(say('review.evidence_digest'))}</h3><code>{safe(at.request.evidence)}</code>")
        )
    if not arming:
        return
    st.header(say("review.loan_head"))
    text = loan_asked(at.request, say) if at is not None else offered(p, say)
    st.html(block(f"<p><b>{text}</b></p><p>{safe(say('review.loan'))}</p>"))


def offered(p: Picture, say: Say) -> str:
    """The loan that a request would begin with."""
    loan = p.settings.governance.loan
    parts = [
        say("review.loan_changes") + " " + say("review.loan_changes_text", n=loan.changes),
        say("review.loan_reach_text", steps=exact(loan.displacement)),
        say("review.loan_time_text", hours=exact(loan.hours)),
    ]
    return safe(" · ".join(parts))


def signed(at: Standing | None, say: Say) -> None:
    """Who has signed."""
    if at is None:
        return
    st.header(say("review.sign_head"))
    st.html(block(signatures_html(at, say)))


# ------------------------------------------------------------------------------- deciding
def decide(now: Now, p: Picture, at: Standing | None, found: Readiness, say: Say) -> None:
    """What this visitor can do about it; for whom there is nothing, whom to ask, as text."""
    visitor = ui.current_identity()
    if visitor is None:
        return
    waits = at is not None and at.state is State.OPEN
    stale = now.banner.data is DataAge.OLD
    if visitor.role is Role.ADMIN:
        st.info(say("review.admin_never"), icon=":material/badge:")
    elif at is not None and waits and deskwork.may(Action.SIGN):
        signing(p, at, visitor.name, say, stale=stale)
    elif waits:
        st.info(say("review.only_reviewer"), icon=":material/draw:")
    elif deskwork.may(Action.REQUEST_REVIEW):
        asking(p, at, found, say, stale=stale)
    elif not p.mode.live:
        st.info(say("review.only_operator"), icon=":material/how_to_reg:")


def signing(p: Picture, at: Standing, name: str, say: Say, *, stale: bool) -> None:
    """'I have read', a comment, sign or send back."""
    r, strict = at.request, p.settings.governance.readiness.get("missing_blocks", 0) > 0
    st.header(say("review.decide_head"))
    if at.people.own(r, name):
        st.info(say("review.your_own"), icon=":material/person_off:")
        return
    if any(at.people.own(s, name) for s in r.signatures):
        st.info(say("review.you_signed"), icon=":material/check:")
        return
    arming = r.what is What.ARMING
    blocked = governing.blocking(at.grades, strict=strict) if arming else []
    if blocked:
        st.warning(say("review.blocked_now", items=blocked), icon=":material/block:")
    left = at.needed - len(r.signatures) - 1
    last = "review.last_signature" if arming else "review.last_signature_edit"
    st.write(say("review.more_signatures", n=left) if left else say(last))
    with st.form(f"review_sign_{r.id}", enter_to_submit=False, border=True):
        read = st.checkbox(say("review.read" if arming else "review.read_edit"), key=f"review_read_{r.id}")
        label = say("review.comment" if arming else "review.comment_edit")
        comment = st.text_area(
            label, key=f"review_comment_{r.id}", max_chars=reviewing.LONGEST_TEXT, height=100
        )
        with st.container(horizontal=True):
            yes = st.form_submit_button(say("review.approve_button"), type="primary", key="review_approve",
                                        disabled=bool(blocked) or (arming and stale))  # fmt: skip
            no = st.form_submit_button(say("review.refuse_button"), key="review_refuse")
    if yes and not read:
        st.warning(say("review.must_read"), icon=":material/menu_book:")
    elif yes:
        approve(r, comment, say)
    elif no:
        refuse(r, comment, say)


def approve(r: Request, comment: str, say: Say) -> None:
    """The signature, with the identity and the role of this very moment."""
    done = deskwork.through(
        Action.SIGN,
        lambda root, who: reviewing.approve(root, r.id, actor=who.name, role=who.role, comment=comment),
        say,
    )
    if done is not None:
        st.query_params["req"] = r.id
        key = "more" if not done.done else "done" if r.what is What.ARMING else "edit"
        deskwork.done(say(f"review.approved_{key}", n=done.left))


def refuse(r: Request, why: str, say: Say) -> None:
    """Back to whoever asked, with the reason."""
    done = deskwork.through(
        Action.SIGN,
        lambda root, who: reviewing.refuse(root, r.id, actor=who.name, role=who.role, why=why),
        say,
    )
    if done is not None:
        st.query_params["req"] = r.id
        deskwork.done(say("review.refused_done"))


def asking(p: Picture, at: Standing | None, found: Readiness, say: Say, *, stale: bool) -> None:
    """The request: how much is to be lent, for how long, and why."""
    st.header(say("review.ask_head" if at is None else "review.ask_again"))
    if p.mode.live:
        st.write(say("ask.live"))
        return
    if p.settings.governance.approvals_required == 0:
        st.write(say("ask.not_needed"))
        return
    strict = p.settings.governance.readiness.get("missing_blocks", 0) > 0
    blocked = governing.blocking(found.grades, strict=strict)
    if blocked:
        st.warning(say("review.ask_blocked", items=blocked), icon=":material/block:")
    if p.mode.stopped:
        st.warning(as_typed(say.why(p.mode.reason)), icon=":material/front_hand:")
    st.write(say("review.ask_what"))
    loan = p.settings.governance.loan
    with st.form("review_ask", enter_to_submit=False, border=True):
        changes, steps, hours = st.columns(3, vertical_alignment="bottom")
        with changes:
            n = st.number_input(say("review.ask_changes"), 1, reviewing.MOST_CHANGES, loan.changes,
                                key="review_ask_changes")  # fmt: skip
        with steps:
            reach = st.number_input(say("review.ask_steps"), 0.5, float(reviewing.MOST_CHANGES),
                                    float(loan.displacement), step=1.0, format="%g",
                                    key="review_ask_steps")  # fmt: skip
        with hours:
            long = st.number_input(say("review.ask_hours"), 0.01, reviewing.MOST_HOURS, float(loan.hours),
                                   step=1.0, format="%g", key="review_ask_hours")  # fmt: skip
        why = st.text_area(
            say("review.ask_why"), key="review_ask_why", max_chars=reviewing.LONGEST_TEXT, height=100
        )
        sent = st.form_submit_button(say("review.ask_button"), type="primary", key="review_ask_send",
                                     disabled=bool(blocked) or stale or p.mode.stopped)  # fmt: skip
    if not sent:
        return
    terms = Terms(changes=int(n), displacement=float(reach), hours=float(long))
    made = deskwork.through(
        Action.REQUEST_REVIEW,
        lambda root, who: reviewing.request(root, terms, actor=who.name, role=who.role, why=why),
        say,
    )
    if made is not None:
        st.query_params["req"] = made.id
        deskwork.done(say("review.requested_done"))


# ------------------------------------------------------------------------------- paper, other requests
def papers(p: Picture, found: Readiness, at: Standing | None, say: Say) -> None:
    """The same as one file, and as a page for the printer."""
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.download_button(
            say("review.download"), data=partial(review_report.review_html, p, found, at), mime="text/html",
            file_name=review_report.file_name(p, at), icon=":material/description:", type="tertiary",
            on_click="ignore", key="review_report",
        )  # fmt: skip
        query = {"print": "1", **({"req": at.request.id} if at is not None else {})}
        st.page_link(str(HERE / "review.py"), label=say("review.print_view"), icon=":material/print:",
                     query_params=query, width="content")  # fmt: skip


def printed(p: Picture, found: Readiness, at: Standing | None, say: Say) -> None:
    """Everything that is signed, without a single control, for the printer."""
    st.html(PRINTED)
    with st.container(key="review_print_bar"):
        query = {"req": at.request.id} if at is not None else {}
        st.page_link(str(HERE / "review.py"), label=say("review.print_back"), icon=":material/arrow_back:",
                     query_params=query)  # fmt: skip
    st.html(block(review_report.body(p, found, at, say)))


def others(p: Picture, now: Now, at: Standing | None, say: Say) -> None:
    """Every other request, newest first, each with its address."""
    found = [r for r in reversed(requests(p)) if at is None or r.id != at.request.id][:OTHERS]
    if not found:
        return
    st.header(say("review.others_head"))
    for r in found:
        there = standing(now.root, p, r)
        with st.container(
            horizontal=True, vertical_alignment="center", gap="small", key=f"review_other_{r.id}"
        ):
            what = safe(say(f"review.other_{r.what.value}"))
            who = safe(say("review.asked_by", who=r.by, role=r.role, at_ms=r.ts_ms))
            state = safe(say(f"review.state_{there.state.value}"))
            st.html(block(f"<p><b>{what}</b> · {who} · {state}</p>"))
            st.page_link(str(HERE / "review.py"), label=say("review.open_link"), query_params={"req": r.id},
                         icon=":material/arrow_forward:", width="content")  # fmt: skip


ui.guarded(main)()
