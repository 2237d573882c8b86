"""Suggestions: what is proposed and why, apply or turn it down, what is watched, where we stand.

Thin: what may be done is the core's to say (cards.py asks it), what was done is the office's to write.
"""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path
from zoneinfo import ZoneInfo

import streamlit as st

from selftune import deskwork, hands, proposed, report, suggesting, ui
from selftune.access import Action
from selftune.card_text import (
    answers,
    card_head,
    ended,
    figure,
    lead,
    line_html,
    moves_text,
    stepper,
    where_html,
)
from selftune.cards import (
    Board,
    CardState,
    Quiet,
    RollbackCard,
    SuggestionCard,
    board,
    card_by_id,
    rollback_cards,
)
from selftune.chart_kit import Say
from selftune.decision_lines import DecisionLine, line_of
from selftune.desk import Now
from selftune.domain import Origin
from selftune.effect_charts import receipt, ruler
from selftune.markup import arrow, block, bullets, facts, hhmm, passed, safe
from selftune.picture import Picture
from selftune.whereabouts import Where

ui.require()

HISTORY = Path(__file__).parent / "history.py"
SNOOZE_S = (1800, 7200, 8 * 3600, 24 * 3600)
SEEN = "suggestions_seen"


def main() -> None:
    """The page, top to bottom."""
    now, glance = ui.now(), deskwork.glance()
    say = ui.words(now)
    if glance.picture is None or glance.plan is None:
        st.title(say("sugg.title_closed"))
        if glance.fault:
            st.html(block(f"<p>{safe(glance.fault)}</p>"))
        ui.settings_problems(now, say)
        return
    p = glance.picture
    b = board(p, glance.plan)
    st.session_state[SEEN] = signature(b, p)
    st.title(headline(b, say, p.settings.timezone))
    ui.settings_problems(now, say)
    ui.live(live_part, key="suggestions_live")
    linked(p, b, now, say)
    for back in b.rollbacks:  # what harms now comes before what might help
        rollback(back, p, say)
    for card in b.cards:
        suggestion(card, p, now, say)
    if b.quiet is not None:
        nothing(b.quiet, p, say)
    stand(b.where, say)
    decisions(b.recent, now, p, say)
    dialog(p, say)


def signature(b: Board, p: Picture) -> tuple[object, ...]:
    """What must change for the page to be drawn anew: not the clock, but what can be done."""
    cards = tuple((c.id, c.state, tuple(r.code for r in c.refusals)) for c in b.cards)
    quiet = (b.quiet.kind, tuple(r.code for r in b.quiet.reasons)) if b.quiet else None
    last = b.recent[0].id if b.recent else None
    return (
        cards,
        tuple((r.id, bool(r.refusals)) for r in b.rollbacks),
        quiet,
        last,
        len(p.snap.records.events),
        p.mode.mode,
    )


def headline(b: Board, say: Say, zone: str) -> str:
    """One sentence that says whether anything is asked of the reader."""
    waiting = len(b.cards) + len(b.rollbacks)
    if waiting:
        return say("sugg.title_waiting", n=waiting)
    if b.watches:
        return say("sugg.title_watching")
    kind = b.quiet.kind if b.quiet else "held"
    until = hhmm(b.quiet.until_ms, zone) if b.quiet and b.quiet.until_ms else ""
    return say(f"sugg.title_{kind}", until=until)


def live_part() -> None:
    """What changes by itself: the countdown of what is watched. Draws the page anew when more changed."""
    glance = deskwork.glance()
    if glance.picture is None or glance.plan is None:
        return
    p, say = glance.picture, ui.words(ui.now())
    b = board(p, glance.plan)
    for w in b.watches:
        with st.container(border=True, key=f"watch_{w.change}"):
            head = say("sugg.watch_head", what=moves_text(w), who=w.actor)
            st.html(
                block(
                    f"<h2>{safe(head)}</h2>", stepper(w, p.settings.timezone, say, ui.look(ui.now()).colours)
                )
            )
    if signature(b, p) != st.session_state.get(SEEN) and deskwork.asked() is None:
        st.rerun(scope="app")


# ------------------------------------------------------------------------------- one suggestion
def suggestion(card: SuggestionCard, p: Picture, now: Now, say: Say) -> None:
    """One card: headline, one sentence of why, what to do, then the evidence."""
    look = ui.look(now)
    with st.container(border=True, key=f"card_{card.id}"):
        state = "" if card.state is CardState.STANDING else ended(card, say)
        st.html(
            block(
                f"<h2>{safe(card_head(card, say))}</h2>",
                f'<p class="lead">{safe(lead(card, say))}</p>',
                state,
            )
        )
        if card.state is CardState.STANDING:
            actions(card, p, say)
            view = ruler(card.rule, card.old, card.new, look=look, say=say)
            ui.chart(view, say, key=f"ruler_{card.id}", table=False)
        elif card.watch is not None:
            if card.watch.stage == "done":  # while it is watched, the living stepper stands on top
                st.html(block(stepper(card.watch, p.settings.timezone, say, look.colours)))
            st.page_link(
                str(HISTORY), label=say("sugg.in_history"), icon=":material/history:",
                query_params={"e": card.watch.event},
            )  # fmt: skip
        st.html(block(facts(answers(card, p.settings, say))))
        if card.points:
            st.html(block(f"<h3>{escape(say('sugg.receipt'))}</h3>"))
            ui.chart(receipt(card.points, look=look, say=say), say, key=f"receipt_{card.id}")
        if card.checks:
            guards(card, now, say)
        st.download_button(
            say("report.button"), data=partial(report.decision_html, p, card.id), mime="text/html",
            file_name=report.file_name(p, card.id), icon=":material/description:", type="tertiary",
            on_click="ignore", key=f"report_{card.id}",
        )  # fmt: skip


def guards(card: SuggestionCard, now: Now, say: Say) -> None:
    """Every guard with pass or fail; open when one holds."""
    failing = sum(not c.passed for c in card.checks)
    title = say("sugg.guards_fail", n=failing) if failing else say("sugg.guards_pass", n=len(card.checks))
    colours = ui.look(now).colours
    with st.expander(title, icon=":material/verified_user:", expanded=bool(failing), key=f"guards_{card.id}"):
        rows = "".join(
            f"<li>{passed(c.passed, say, colours)} · {safe(say('check.' + c.code.removeprefix('guard.')))}"
            f"{'' if c.passed else '<br>' + safe(say.why(c))}</li>"
            for c in card.checks
        )
        st.html(block(f'<ul class="plain">{rows}</ul>'))


def actions(card: SuggestionCard, p: Picture, say: Say) -> None:
    """Apply, reject, snooze; where one is closed, the words say why and until when."""
    allowed = deskwork.may(Action.APPLY)
    with st.container(horizontal=True, gap="small", key=f"actions_{card.id}"):
        for what, icon, open_ in (
            ("apply", ":material/play_arrow:", card.can_apply),
            ("reject", ":material/block:", True),
            ("snooze", ":material/snooze:", True),
        ):
            if st.button(
                say(f"sugg.do_{what}"), icon=icon, key=f"{what}_{card.id}", disabled=not (allowed and open_),
                type="primary" if what == "apply" else "secondary",
            ):  # fmt: skip
                deskwork.ask(what, card.id)
    if not allowed:
        st.html(block(f"<p>{safe(say('sugg.ask_operator'))}</p>"))
    elif card.refusals:
        lines = [safe(say.why(r)) for r in card.refusals]
        st.html(block(f"<p><b>{safe(say('sugg.cannot_now'))}</b></p>", bullets(lines)))
    elif card.until_ms:
        st.html(block(f"<p>{safe(say('sugg.stands_until', until_ms=card.until_ms))}</p>"))


# ------------------------------------------------------------------------------- watching
def stand(where: Where, say: Say) -> None:
    """Proven values, steps away from them, what happens at the end."""
    with st.container(border=True, key="where"):
        st.html(block(f"<h2>{escape(say('sugg.where'))}</h2>", where_html(where, say)))


# ------------------------------------------------------------------------------- rollbacks and nothing
def rollback(card: RollbackCard, p: Picture, say: Say) -> None:
    """A way back or an emergency move that the loop proposes: why, the exact values, one button."""
    with st.container(border=True, key=f"rollback_{card.event or card.id}"):
        what = ", ".join(f"{m.rule} {figure(m.old)} → {figure(m.new)}" for m in card.moves)
        st.html(
            block(
                f"<h2>{safe(say('sugg.urgent_head' if card.urgent else 'sugg.back_head', what=what))}</h2>",
                f'<p class="lead">{safe(back_lead(card, p, say))}</p>',
                bullets([safe(say.why(r)) for r in card.reasons]),
            )
        )
        allowed = deskwork.may(Action.ROLLBACK)
        with st.container(horizontal=True, gap="small", key=f"actions_back_{card.id}"):
            if st.button(
                say("sugg.do_urgent" if card.urgent else "sugg.do_rollback"), type="primary",
                icon=":material/emergency:" if card.urgent else ":material/undo:",
                disabled=not allowed or bool(card.refusals), key=f"do_rollback_{card.id}",
            ):  # fmt: skip
                deskwork.ask("carry_out", card.id)
            if st.button(say("sugg.do_reject"), icon=":material/block:", disabled=not allowed,
                         key=f"reject_back_{card.id}"):  # fmt: skip
                deskwork.ask("reject", card.id)
        if not allowed:
            st.html(block(f"<p>{safe(say('sugg.ask_operator'))}</p>"))
        elif card.refusals:
            why = bullets([safe(say.why(r)) for r in card.refusals])
            st.html(block(f"<p><b>{safe(say('sugg.cannot_now'))}</b></p>", why))
        if card.event is not None:
            st.page_link(
                str(HISTORY), label=say("sugg.in_history"), icon=":material/history:",
                query_params={"e": card.event},
            )  # fmt: skip


def back_lead(card: RollbackCard, p: Picture, say: Say) -> str:
    """One sentence: what happened, and why it is left to a person."""
    if card.urgent:
        return say("sugg.urgent_lead")
    hard = "_hard" if card.cause == "hard_limit" else ""
    key = "sugg.back_lead_ours" if card.origin is Origin.LOOP else f"sugg.back_lead{hard}"
    return say(key, who=card.actor, at_ms=card.at_ms)


def nothing(q: Quiet, p: Picture, say: Say) -> None:
    """Why there is nothing to decide on, with every reason, and a way to ask now."""
    with st.container(border=True, key="quiet"):
        lines = [safe(say.why(r)) for r in q.reasons]
        ideas = [
            safe(say("sugg.head_down" if x.new < x.old else "sugg.head_up", rule=x.rule, old=figure(x.old),
                     new=figure(x.new)))
            for x in q.ideas
        ]  # fmt: skip
        lead_ = f"<p>{safe(say(f'sugg.quiet_{q.kind}'))}</p>"
        st.html(block(lead_, f"<p><b>{'<br>'.join(ideas)}</b></p>" if ideas else "", bullets(lines)))
        allowed = deskwork.may(Action.APPLY)
        wanted = (
            q.kind in ("idea", "held", "until")
            and allowed
            and st.button(say("sugg.do_suggest"), icon=":material/lightbulb:", key="do_suggest")
        )
        zone = ZoneInfo(p.settings.timezone)
        if wanted and deskwork.act(Action.APPLY, lambda q_, _: (suggesting.suggestion(q_, zone),), say):
            deskwork.done(say("sugg.done_suggest"))


def linked(p: Picture, b: Board, now: Now, say: Say) -> None:
    """What the address names (`?d=`), whatever became of it; an unknown one is said."""
    wanted = st.query_params.get("d")
    if not wanted or any(c.id == wanted for c in b.cards):
        return
    card = card_by_id(p, wanted)
    record = p.decision(wanted)
    with st.container(key="linked"):
        if card is not None and any(c.id == card.id for c in b.cards):
            return
        if card is not None:
            st.html(block(f"<h2>{escape(say('sugg.linked'))}</h2>"))
            suggestion(card, p, now, say)
        elif record is not None:
            entry = line_html(line_of(record), p.settings.timezone, say, ui.look(now).colours)
            st.html(block(f"<h2>{escape(say('sugg.linked_decision'))}</h2>", entry))
        else:
            st.info(say("sugg.unknown_id"), icon=":material/link_off:")
            st.code(wanted[:120], language=None)


# ------------------------------------------------------------------------------- recent decisions
def decisions(lines: tuple[DecisionLine, ...], now: Now, p: Picture, say: Say) -> None:
    """The newest decisions with their reasons."""
    st.header(say("sugg.recent"))
    if not lines:
        st.write(say("sugg.recent_none"))
        return
    zone, colours = p.settings.timezone, ui.look(now).colours
    rows = "".join(f"<li>{line_html(x, zone, say, colours, link=True)}</li>" for x in lines)
    st.html(block(f'<ul class="plain lines">{rows}</ul>'))


# ------------------------------------------------------------------------------- dialogs
def dialog(p: Picture, say: Say) -> None:
    """The dialog that was asked for, if any; it stays open over renewals."""
    open_ = deskwork.asked()
    if open_ is None:
        return
    what, subject = open_
    body = {"apply": ask_apply, "reject": ask_reject, "snooze": ask_snooze, "carry_out": ask_carry_out}.get(
        what
    )
    if body is None:
        return

    @st.dialog(say(f"sugg.dialog_{what}"), width="medium", on_dismiss=deskwork.answered)
    def shown() -> None:
        body(subject, p, say)

    shown()


def ask_apply(subject: str, p: Picture, say: Say) -> None:
    card = card_by_id(p, subject)
    if card is None:
        st.write(say("sugg.unknown_id"))
        return
    s, rule, old = p.settings, card.rule.name, figure(card.old)
    watched = say(
        "sugg.watched_text", metrics=list(s.guarded), settle_s=s.settle_s, watch_s=s.observe_window_s
    )
    st.html(
        block(
            f'<p class="lead">{safe(rule)} {arrow(old, figure(card.new))}</p>',
            "" if p.mode.live else f"<p><b>{safe(say('sugg.practice'))}</b></p>",
            facts(
                [
                    (say("sugg.watched"), safe(watched)),
                    (say("sugg.undo"), safe(say("sugg.undo_hand", rule=rule, old=old))),
                ]
            ),
        )
    )
    reason = deskwork.reason_form(say, key=f"form_apply_{subject}", button=say("sugg.confirm_apply"))
    if reason and deskwork.act(
        Action.APPLY,
        lambda q, who: hands.apply(q, subject, rule=card.rule.name, actor=who, reason=reason),
        say,
    ):
        st.query_params["d"] = card.id
        deskwork.done(say("sugg.done_apply", rule=card.rule.name, new=figure(card.new)))


def ask_reject(subject: str, p: Picture, say: Say) -> None:
    st.write(say("sugg.reject_text"))
    reason = deskwork.reason_form(say, key=f"form_reject_{subject}", button=say("sugg.confirm_reject"))
    if reason and deskwork.act(
        Action.REJECT, lambda q, who: hands.reject(q, subject, actor=who, reason=reason), say
    ):
        deskwork.done(say("sugg.done_reject"))


def ask_snooze(subject: str, p: Picture, say: Say) -> None:
    st.write(say("sugg.snooze_text"))
    for_s = st.segmented_control(
        say("sugg.snooze_for"), SNOOZE_S, default=SNOOZE_S[1], required=True, key=f"snooze_for_{subject}",
        format_func=lambda s: say("sugg.for", for_s=s),
    )  # fmt: skip
    reason = deskwork.reason_form(say, key=f"form_snooze_{subject}", button=say("sugg.confirm_snooze"))
    if reason and deskwork.act(
        Action.SNOOZE,
        lambda q, who: hands.snooze(q, subject, for_s=float(for_s or SNOOZE_S[0]), actor=who, reason=reason),
        say,
    ):
        deskwork.done(say("sugg.done_snooze"))


def ask_carry_out(subject: str, p: Picture, say: Say) -> None:
    card = next((c for c in rollback_cards(p) if c.id == subject), None)
    if card is None:
        st.write(say("sugg.back_gone"))
        return
    moves = "".join(f"<li>{safe(m.rule)} {arrow(figure(m.old), figure(m.new))}</li>" for m in card.moves)
    text = say("sugg.urgent_text" if card.urgent else "sugg.back_text")
    st.html(block(f'<ul class="plain">{moves}</ul>', f"<p>{safe(text)}</p>"))
    button = say("sugg.do_urgent_now" if card.urgent else "sugg.do_rollback_now")
    reason = deskwork.reason_form(say, key=f"form_rollback_{subject}", button=button)
    if reason and deskwork.act(
        Action.ROLLBACK, lambda q, who: proposed.carry_out(q, subject, actor=who, reason=reason), say
    ):
        deskwork.done(say("sugg.done_urgent" if card.urgent else "sugg.done_rollback"))


ui.guarded(main)()
