"""History & rollback: what was changed, by whom, how it ended; take one back, or go back to a moment.

Thin: outcomes and previews are timeline.py's, what was done is the office's to write.
"""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path

import streamlit as st

from selftune import deskwork, hands, report, ui
from selftune.access import Action
from selftune.chart_kit import Layout, Say
from selftune.charts import RuleTrace, Span, rule_traces
from selftune.desk import Now
from selftune.event_text import about, deltas_html, head_html, preview_html, row_html, then_html
from selftune.markup import block, bullets, facts, note, safe
from selftune.picture import Picture
from selftune.timeline import (
    PAGE,
    Entry,
    Mark,
    entry_of,
    integrity,
    paused_rules,
    preview_rollback,
    preview_rollback_to,
    timeline,
    traces,
    values_at,
)
from selftune.wording import plain

ui.require()

SUGGESTIONS = Path(__file__).parent / "suggestions.py"
SPANS_S = {"6h": 6 * 3600, "24h": 24 * 3600, "7d": 7 * 86400}
SEEN = "history_seen"
PICTURES = (("png", report.chart_png, "image/png"), ("svg", report.chart_svg, "image/svg+xml"))


def main() -> None:
    """The page, top to bottom."""
    now, glance = ui.now(), deskwork.glance()
    say = ui.words(now)
    p = glance.picture
    if p is None:
        st.title(say("hist.title_closed"))
        if glance.fault:
            st.html(block(f"<p>{safe(glance.fault)}</p>"))
        ui.settings_problems(now, say)
        return
    st.session_state[SEEN] = signature(p)
    n = len(p.snap.records.events)
    st.title(say("hist.title", n=n) if n else say("hist.title_none"))
    ui.settings_problems(now, say)
    trust(p, now, say)
    paused(p, say)
    chosen(p, now, say)
    parts = (values_over_time, events)
    # on a phone what can be acted on comes before the charts
    for part in reversed(parts) if ui.look(now).layout is Layout.NARROW else parts:
        part(p, now, say)
    ui.live(watch, key="history_live")
    dialog(p, say)


def signature(p: Picture) -> tuple[object, ...]:
    """What makes the page out of date: a new record, not the clock."""
    records = p.snap.records
    return (len(records.events), len(records.decisions), len(records.governance), records.chain.ok)


def watch() -> None:
    """Draws the page anew when a record was added, but never under an open dialog."""
    p = deskwork.glance().picture
    if p is not None and signature(p) != st.session_state.get(SEEN) and deskwork.asked() is None:
        st.rerun(scope="app")


# ------------------------------------------------------------------------------- trust and pauses
def trust(p: Picture, now: Now, say: Say) -> None:
    """The integrity badge: the chain of approvals, and every line that was set aside."""
    found = integrity(p)
    good = found.ok and not found.lines
    with st.container(horizontal=True, gap="small", key="integrity"):
        if found.ok:
            st.badge(say("hist.chain_ok", n=found.chain.n), icon=":material/verified:", color="green")
        else:
            st.badge(say("hist.chain_broken"), icon=":material/gpp_bad:", color="red")
        st.badge(
            say("hist.rejects", n=found.lines) if found.lines else say("hist.rejects_none"),
            icon=":material/rule:",
            color="orange" if found.lines else "green",
        )
    if good:
        return
    with st.expander(say("hist.trust_more"), expanded=not found.ok, key="integrity_more"):
        lines = []
        if not found.chain.ok:
            reason = f"hist.chain_{found.chain.reason}"
            lines.append(safe(say(reason, line=found.chain.line)))
        lines += [f"{safe(file)}: {safe(text)}" for file, text in found.problems.items()]
        lines += [f"{safe(file)}: {safe(say(f'reject.{why}', n=n))}" for file, why, n in found.rejects]
        st.html(block(bullets(lines)))
        st.code("python -m selftune check", language=None)


def paused(p: Picture, say: Say) -> None:
    """Rules that rest, why and until when, with the way to release them."""
    for rule in paused_rules(p):
        with st.container(border=True, key=f"paused_{rule.rule}"):
            key = "resting" if rule.resting else "paused"
            until = say("hist.until", until_ms=rule.until_ms) if rule.until_ms else say("hist.until_released")
            head = say(f"hist.{key}", rule=rule.rule, n=rule.harms)
            st.html(block(f"<h2>{safe(head)}</h2><p>{safe(until)}</p>"))
            allowed = deskwork.may(Action.RELEASE)
            if st.button(say("hist.do_release"), icon=":material/lock_open:", disabled=not allowed,
                         key=f"release_{rule.rule}"):  # fmt: skip
                deskwork.ask("release", rule.rule)
            if not allowed:
                st.html(block(f"<p>{safe(say('hist.ask_operator'))}</p>"))


# ------------------------------------------------------------------------------- one event
def chosen(p: Picture, now: Now, say: Say) -> None:
    """The event that the address names (`?e=`): all that is known about it, and what can be done."""
    key = st.query_params.get("e")
    if not key:
        return
    e = entry_of(p, key)
    if e is None:
        with st.container(key="unknown_event"):
            st.info(say("hist.unknown_id"), icon=":material/link_off:")
            st.code(key[:120], language=None)
            st.button(
                say("hist.close"), icon=":material/close:", key="close_unknown", on_click=show, args=(None,)
            )
        return
    with st.container(border=True, key="chosen"):
        st.html(block(head_html(e, p.settings.timezone, say, ui.look(now).colours), note(e.note)))
        buttons(e, p, say)
        st.html(
            block(
                facts(about(e, say)),
                deltas_html(e.deltas, say),
                then_html(values_at(p, e.key), p.life.values, say),
            )
        )
        with st.container(horizontal=True, gap="small", vertical_alignment="center", key="chosen_more"):
            if e.decision and p.decision(e.decision) is not None:
                st.page_link(str(SUGGESTIONS), label=say("hist.decision"), icon=":material/lightbulb:",
                             query_params={"d": e.decision})  # fmt: skip
                st.download_button(
                    say("report.button"), data=partial(report.decision_html, p, e.decision), mime="text/html",
                    file_name=report.file_name(p, e.decision), icon=":material/description:",
                    type="tertiary", on_click="ignore", key="chosen_report",
                )  # fmt: skip
            st.button(say("hist.close"), icon=":material/close:", type="tertiary", key="close_event",
                      on_click=show, args=(None,))  # fmt: skip


def buttons(e: Entry, p: Picture, say: Say) -> None:
    """Roll back this one, or go back to the moment after it; closed ones say why."""
    allowed = deskwork.may(Action.ROLLBACK)
    one, to = preview_rollback(p, e.key), preview_rollback_to(p, e.key)
    can_one = e.revertible and one.refused is None
    with st.container(horizontal=True, gap="small", key="chosen_actions"):
        if st.button(say("hist.do_rollback"), icon=":material/undo:", disabled=not (allowed and can_one),
                     key="rollback_one"):  # fmt: skip
            deskwork.ask("rollback", e.key)
        if st.button(say("hist.do_rollback_to"), icon=":material/history:", key="rollback_to",
                     disabled=not (allowed and to.refused is None)):  # fmt: skip
            deskwork.ask("rollback_to", e.key)
    if not allowed:
        st.html(block(f"<p>{safe(say('hist.ask_operator'))}</p>"))
        return
    if to.refused is not None:
        st.html(block(f"<p>{safe(say('hist.already_here'))}</p>"))
    if not can_one:
        why = (
            "hist.already_back"
            if e.mark is Mark.ROLLED_BACK
            else "hist.is_back"
            if e.mark is Mark.BACK
            else ""
        )
        text = say(why) if why else say.why(one.refused) if one.refused else say("hist.not_revertible")
        st.html(block(f"<p>{safe(text)}</p>"))


# ------------------------------------------------------------------------------- values over time
def values_over_time(p: Picture, now: Now, say: Say) -> None:
    """The rules' values inside their bounds."""
    st.header(say("hist.values"))
    end = p.snap.now_ms
    first = min((e.ts_ms for e in p.snap.records.events), default=end - 3600_000)
    asked, young = st.query_params.get("w"), end - first < SPANS_S["6h"] * 1000
    usual = "all" if young else "24h"  # of a day most would be empty
    start = asked if asked in (*SPANS_S, "all") else usual
    span = st.segmented_control(
        say("hist.span"), [*SPANS_S, "all"], default=start, required=True, key="hist_span",
        format_func=lambda w: say(f"hist.span_{w}"), label_visibility="collapsed",
    )  # fmt: skip
    if span and span != (asked or usual):
        st.query_params["w"] = span
    begin = end - SPANS_S[span] * 1000 if span in SPANS_S else min(first, end - 600_000) - 60_000
    found = traces(p, begin, end)
    rows = [
        RuleTrace(rule=rule, t_ms=found[name][0], values=found[name][1])
        for name, rule in p.settings.rules.items()
    ]
    view = rule_traces(rows, Span(start_ms=begin, end_ms=end), look=ui.look(now), say=say)
    panels = report.panels(view)
    for i, panel in enumerate(panels):
        last = i == len(panels) - 1
        ui.chart(panel, say, key=f"hist_values_{i}", sentence=last, table=last)
    with st.container(horizontal=True, gap="small", key="hist_exports"):
        for kind, make, mime in PICTURES:
            st.download_button(
                say(f"report.{kind}"), data=partial(make, view), mime=mime, type="tertiary",
                on_click="ignore",
                file_name=f"selftune-rules.{kind}", icon=":material/download:", key=f"hist_{kind}",
            )  # fmt: skip


# ------------------------------------------------------------------------------- the list
def events(p: Picture, now: Now, say: Say) -> None:
    """Every rule event, newest first, by rule and actor."""
    st.header(say("hist.events"))
    whole = timeline(p, limit=0)
    rule, actor = st.query_params.get("rule"), st.query_params.get("actor")
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="hist_filters"):
        rule = pick("rule", whole.rules, rule, say)
        actor = pick("actor", whole.actors, actor, say)
        st.download_button(
            say("report.csv"), data=partial(report.timeline_csv, p, rule=rule, actor=actor), mime="text/csv",
            file_name="selftune-history.csv", icon=":material/download:", on_click="ignore", key="hist_csv",
        )  # fmt: skip
    offset = page_offset()
    found = timeline(p, rule=rule, actor=actor, offset=offset)
    if not found.entries:
        st.write(say("hist.none_here") if whole.all else say("hist.none"))
        return
    for e in found.entries:
        row(e, p, now, say)
    pager(found.total, offset, say)


def pick(name: str, options: tuple[str, ...], value: str | None, say: Say) -> str | None:
    """A filter that lives in the address; the options are codes, so that a link stays readable."""
    codes = ["", *options]
    choice = st.selectbox(
        say(f"hist.filter_{name}"), codes, index=codes.index(value) if value in codes else 0,
        key=f"hist_{name}", format_func=lambda c: plain(c) or say("hist.filter_all"), width=240,
    )  # fmt: skip
    if (choice or None) != value:
        put(name, choice or None)
        put("p", None)
    return choice or None


def put(name: str, value: str | None) -> None:
    """Writes one parameter of the address, or takes it out."""
    if value is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = value


def page_offset() -> int:
    asked = st.query_params.get("p", "")
    return min(int(asked), 10**6) * PAGE if asked.isascii() and asked.isdigit() and len(asked) < 8 else 0


def turn(page: int) -> None:
    put("p", str(page) if page else None)


def pager(total: int, offset: int, say: Say) -> None:
    """Newer, older, and where we are."""
    if total <= PAGE:
        return
    page, last = offset // PAGE, (total - 1) // PAGE
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="hist_pager"):
        st.button(say("hist.newer"), icon=":material/chevron_left:", disabled=page == 0, key="hist_newer",
                  on_click=turn, args=(page - 1,))  # fmt: skip
        st.html(
            block(f"<span>{escape(say('hist.page', page=page + 1, pages=last + 1))}</span>"), width="content"
        )
        st.button(say("hist.older"), icon=":material/chevron_right:", disabled=page >= last, key="hist_older",
                  on_click=turn, args=(page + 1,))  # fmt: skip


def show(key: str | None) -> None:
    """The event to look at closely, in the address."""
    put("e", key)


def row(e: Entry, p: Picture, now: Now, say: Say) -> None:
    """One event in a few words, and the way to all of it."""
    with st.container(
        horizontal=True, wrap=False, vertical_alignment="center", gap="small", key=f"row_{e.key}"
    ):
        st.html(block(row_html(e, p.settings.timezone, say, ui.look(now).colours)))
        st.button(say("hist.more"), key=f"more_{e.key}", on_click=show, args=(e.key,), width="content")


# ------------------------------------------------------------------------------- dialogs
def dialog(p: Picture, say: Say) -> None:
    """The dialog that was asked for, if any."""
    open_ = deskwork.asked()
    if open_ is None:
        return
    what, subject = open_
    body = {"rollback": ask_rollback, "rollback_to": ask_rollback_to, "release": ask_release}.get(what)
    if body is None:
        return

    @st.dialog(say(f"hist.dialog_{what}"), width="medium", on_dismiss=deskwork.answered)
    def shown() -> None:
        body(subject, p, say)

    shown()


def ask_rollback(subject: str, p: Picture, say: Say) -> None:
    view = preview_rollback(p, subject)
    if view.refused is not None:
        st.html(block(f"<p>{safe(say.why(view.refused))}</p>"))
        return
    st.html(block(preview_html(view, p.settings, say)))
    reason = deskwork.reason_form(say, key=f"form_back_{subject}", button=say("hist.confirm_rollback"))
    if reason and deskwork.act(
        Action.ROLLBACK, lambda q, actor: hands.rollback(q, event=subject, actor=actor, reason=reason), say
    ):
        deskwork.done(say("hist.done_rollback"))


def ask_rollback_to(subject: str, p: Picture, say: Say) -> None:
    view = preview_rollback_to(p, subject)
    if view.refused is not None:
        st.html(block(f"<p>{safe(say.why(view.refused))}</p>"))
        return
    st.html(block(preview_html(view, p.settings, say)))
    reason = deskwork.reason_form(say, key=f"form_to_{subject}", button=say("hist.confirm_rollback_to"))
    if reason and deskwork.act(
        Action.ROLLBACK, lambda q, actor: hands.rollback_to(q, subject, actor=actor, reason=reason), say
    ):
        deskwork.done(say("hist.done_rollback"))


def ask_release(subject: str, p: Picture, say: Say) -> None:
    st.write(say("hist.release_text"))
    reason = deskwork.reason_form(say, key=f"form_release_{subject}", button=say("hist.confirm_release"))
    if reason and deskwork.act(
        Action.RELEASE, lambda q, actor: hands.release(q, subject, actor=actor, reason=reason), say
    ):
        deskwork.done(say("hist.done_release"))


ui.guarded(main)()
