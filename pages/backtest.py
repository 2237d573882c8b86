"""Backtest: start one, watch it, read what it found, hold up to three beside each other.

Thin: what a run says is backtest_view.py's and backtest_text.py's; whoever may start one is asked by
backtest_desk.py at the write.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from functools import partial
from urllib.parse import urlencode, urlsplit

import streamlit as st

from selftune import backtest_desk, backtest_runs, deskwork, report, ui
from selftune.access import Action
from selftune.backtest_charts import GainRow, ScoreLine, gain_rows, score_curves
from selftune.backtest_request import (
    ALLOWED_BASELINES,
    DEFAULT_BASELINES,
    Axis,
    Baseline,
    Mode,
    Request,
    Sweep,
)
from selftune.backtest_result import Support
from selftune.backtest_runs import Run, State
from selftune.backtest_text import (
    axis_label,
    guards_html,
    headline,
    label,
    lead,
    notes_html,
    origin_html,
    outcomes_html,
    progress,
    sentences,
    state_html,
    steps_html,
    support,
    sweep_html,
    unknown_html,
)
from selftune.backtest_view import (
    CUSTOM,
    DRAFT,
    IN_FORCE,
    LETTERS,
    MOST_BESIDE,
    MOST_LISTED,
    PERIODS_S,
    Asked,
    asked,
    candidate,
    candidates,
    choices,
    command,
    differences,
    draft_text,
    grounds,
    lines,
    name_of,
    query_of,
    run_name,
    table,
    uneven,
    yardsticks,
)
from selftune.chart_kit import ChartView, Say
from selftune.chart_parts import Span
from selftune.desk import Now
from selftune.domain import Role
from selftune.drafting import values_of
from selftune.markup import block, safe
from selftune.picture import Picture
from selftune.revising import revisions

ui.require()

QUESTIONS = ("past", "compare", "worst", "support")
MOST_CANDIDATES, MOST_REVISIONS, MOST_AXES, MOST_VALUES = 3, 8, 2, 9
TARGETS_DESK = "targets_desk"  # the edit that is open on the Targets page
EVERY_S = 2
PICTURES = (("png", report.chart_png, "image/png"), ("svg", report.chart_svg, "image/svg+xml"))


def main() -> None:
    """The page, top to bottom."""
    now = ui.now()
    say = ui.words(now)
    a = asked(now.root, st.query_params.to_dict())
    if not a.named:
        start_page(now, say)
    elif a.run is None:
        unknown(a, say)
    else:
        one(a, a.run, now, say)


def zone(now: Now) -> str:
    return now.settings.timezone if now.settings else ui.ZONE


def go(run: str | None = None) -> None:
    """Shows this run (None: the list) from the next run of the page on."""
    for name in ("run", "vs"):
        st.query_params.pop(name, None)
    if run:
        st.query_params.update(query_of(run))


# ------------------------------------------------------------------------------- the list and the form
def start_page(now: Now, say: Say) -> None:
    """What can be tried, and what was."""
    st.title(say("backtest.title"))
    st.write(say("backtest.lead"))
    ui.settings_problems(now, say)
    p = now.picture
    if not deskwork.may(Action.BACKTEST):
        st.html(block(f"<p><b>{safe(say('backtest.ask_operator'))}</b></p>"))
    elif p is None or now.problems:
        st.info(say("backtest.no_settings"), icon=":material/build:")
    else:
        form(p, now, say)
    runs = backtest_runs.listing(now.root)
    st.header(say("backtest.list_head"))
    ui.live(listed, key="backtest_list", every_s=EVERY_S if any(not r.status.over for r in runs) else 0)
    if not runs:
        st.header(say("backtest.answers_head"))
        items = "".join(f"<li>{safe(say(f'backtest.answers_{q}'))}</li>" for q in QUESTIONS)
        st.html(block(f"<ul>{items}</ul>"))


def listed() -> None:
    """The newest runs, each with its state and the way to it."""
    now = ui.now()
    say = ui.words(now)
    runs = backtest_runs.listing(now.root)
    if not runs:
        st.write(say("backtest.list_none"))
    for r in runs[:MOST_LISTED]:
        with st.container(horizontal=True, vertical_alignment="center", key=f"bt_row_{r.id}"):
            name = safe(run_name(r, say, zone(now)))
            st.html(block(f"{state_html(r.status, say)} · {name}"), width="stretch")
            st.button(say("backtest.open"), key=f"bt_open_{r.id}", on_click=go, args=(r.id,))
    if len(runs) > MOST_LISTED:
        st.write(say("backtest.list_more", n=len(runs) - MOST_LISTED))


def form(p: Picture, now: Now, say: Say) -> None:
    """What shall be tried, on what, against what."""
    drafted = draft_text(st.session_state.get(TARGETS_DESK))
    saved = revisions(p.snap.records)[:MOST_REVISIONS]
    codes = choices(saved, drafted)
    with st.container(border=True, key="backtest_form"):
        st.html(block(f"<h2>{safe(say('backtest.form_head'))}</h2>"))
        mode, first_ms, last_ms = ground(p, say)
        many = sweep(p, say)
        with st.form(f"backtest_{mode.value}", enter_to_submit=False, border=False):
            picked = st.multiselect(
                say("backtest.field_candidates"), codes, default=[DRAFT if drafted else IN_FORCE],
                max_selections=MOST_CANDIDATES, format_func=lambda c: name_of(c, "candidate", say),
                key="bt_candidates",
            )  # fmt: skip
            against = st.multiselect(
                say("backtest.field_baselines"), [b for b in Baseline if b in ALLOWED_BASELINES[mode]],
                default=list(DEFAULT_BASELINES[mode]), key=f"bt_baselines_{mode.value}",
                format_func=lambda b: say(f"backtest.role_{b.value}"),
            )  # fmt: skip
            seed = st.number_input(
                say("backtest.field_seed"), min_value=0, max_value=2**31 - 1, value=0, step=1, width=200,
                help=say("backtest.field_seed_help"), key="bt_seed",
            )  # fmt: skip
            sent = st.form_submit_button(
                say("backtest.do_start"), type="primary", icon=":material/play_arrow:", key="bt_start"
            )
    if sent and not picked:
        st.warning(say("backtest.no_candidate"), icon=":material/rule:")
    elif sent:
        tried = tuple(candidate(c, drafted) for c in picked)
        start(
            Request(mode=mode, candidates=tried, baselines=tuple(against), from_ms=first_ms, to_ms=last_ms,
                    seed=int(seed), sweep=many),
            now, say,
        )  # fmt: skip


def ground(p: Picture, say: Say) -> tuple[Mode, int | None, int | None]:
    """On what, and over which period: chosen outside of the form, because the form follows it."""
    mode = st.segmented_control(
        say("backtest.field_mode"), grounds(p.settings), default=Mode.REPLAY, required=True, key="bt_mode",
        format_func=lambda m: say(f"backtest.mode_{m.value}"),
    ) or Mode.REPLAY  # fmt: skip
    st.write(say(f"backtest.mode_{mode.value}_what"))
    if mode is Mode.PLANT:
        return mode, None, None
    chosen = st.segmented_control(
        say("backtest.field_period"), [*PERIODS_S, CUSTOM], default="all", required=True, key="bt_period",
        format_func=lambda w: say(f"backtest.period_{w}"),
    )  # fmt: skip
    newest = p.newest_ms if p.newest_ms is not None else p.snap.now_ms
    if chosen != CUSTOM:
        seconds = PERIODS_S.get(chosen or "all")
        return mode, None if seconds is None else newest - seconds * 1000, None
    with st.container(horizontal=True, gap="small"):
        start = st.datetime_input(
            say("trends.from"), value=local(newest - 86_400_000, say.zone), key="bt_from", width=230
        )
        end = st.datetime_input(say("trends.to"), value=local(newest, say.zone), key="bt_to", width=230)
    return mode, instant(start, say.zone), instant(end, say.zone)


def sweep(p: Picture, say: Say) -> Sweep | None:
    """Many values at once of one or two settings of the first candidate; None unless asked for."""
    known = {k: v for k, v in values_of(p.settings).items() if v is not None and "direction" not in k}
    axes = []
    with st.expander(say("backtest.sweep_field"), icon=":material/grid_on:", key="bt_sweep"):
        st.write(say("backtest.sweep_field_what"))
        for i in range(MOST_AXES):
            with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
                path = st.selectbox(
                    say("backtest.sweep_setting", n=i + 1), ["", *known], key=f"bt_axis_{i}", width=300,
                    format_func=lambda k: axis_label(k, p.settings, say) if k else say("backtest.sweep_off"),
                )  # fmt: skip
                if not path:
                    continue
                lo, hi = sorted((0.5 * known[path], 1.5 * known[path]))
                low = st.number_input(
                    say("backtest.sweep_from"), value=lo, format="%g", width=150, key=f"bt_lo_{i}_{path}"
                )
                high = st.number_input(
                    say("backtest.sweep_to"), value=hi, format="%g", width=150, key=f"bt_hi_{i}_{path}"
                )
                n = st.number_input(
                    say("backtest.sweep_n"), 2, MOST_VALUES, 3, key=f"bt_n_{i}_{path}", width=120
                )
                axes.append(Axis(path=path, lo=float(low), hi=float(high), n=int(n)))
    return Sweep(axes=tuple(axes)) if axes else None


def local(ms: int, tz: tzinfo | None) -> datetime:
    """Wall time of the configured zone, as the field shows it."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(tz).replace(tzinfo=None, second=0, microsecond=0)


def instant(wall: datetime | None, tz: tzinfo | None) -> int | None:
    return None if wall is None else round(wall.replace(tzinfo=tz).timestamp() * 1000)


def start(request: Request, now: Now, say: Say) -> None:
    """A new run, if the visitor's role of this very moment may start one; then its page."""
    run = deskwork.told(say, lambda who: backtest_desk.ask(now.root, request, role=who.role))
    if run is not None:
        go(run)
        deskwork.done(say("backtest.started"))


# ------------------------------------------------------------------------------- one run
def unknown(a: Asked, say: Say) -> None:
    """The address names a run that is not here."""
    st.title(say("backtest.title_unknown"))
    with st.container(key="backtest_unknown"):
        st.info(say("backtest.unknown_id"), icon=":material/link_off:")
        st.code(a.unknown[0][:120], language=None)
        back(say)


def back(say: Say) -> None:
    st.button(say("backtest.back"), icon=":material/arrow_back:", type="tertiary", key="bt_back", on_click=go)


def one(a: Asked, run: Run, now: Now, say: Say) -> None:
    """One run in whatever state it is; a finished one with its figures."""
    state = run.status.state
    if run.result is not None:
        found(a, run, now, say)
        return
    st.title(say(f"backtest.title_{state.value}"))
    st.html(block(f"<p>{safe(run_name(run, say, zone(now)))}</p>"))
    if not run.status.over:
        ui.live(partial(moving, run.id, state), key="backtest_live", every_s=EVERY_S)
        st.write(say("backtest.close_safely"))
        cancel_button(run, now, say)
    else:
        ended(run, state, now, say)
    back(say)


def moving(run_id: str, drawn: State) -> None:
    """How far it is; draws the page anew as soon as it is in another state than the title says."""
    now = ui.now()
    say = ui.words(now)
    run = backtest_runs.read(now.root, run_id)
    if run is None or run.status.state is not drawn:
        st.rerun(scope="app")
    share = min(1.0, max(0.0, run.status.share))
    st.progress(share, text=progress(run.status, say))


def cancel_button(run: Run, now: Now, say: Say) -> None:
    if not deskwork.may(Action.BACKTEST):
        st.html(block(f"<p>{safe(say('backtest.ask_operator'))}</p>"))
        return
    pressed = st.button(
        say("backtest.do_cancel"), icon=":material/cancel:", key="bt_cancel", disabled=run.status.cancelling
    )
    if pressed and deskwork.told(say, lambda who: _cancelled(now, run, who.role)):
        deskwork.done(say("backtest.cancel_asked"))


def _cancelled(now: Now, run: Run, role: Role) -> bool:
    backtest_desk.cancel(now.root, run.id, role=role)
    return True


def ended(run: Run, state: State, now: Now, say: Say) -> None:
    """It is over and has no figures: why, and the same once more."""
    with st.container(border=True, key="backtest_ended"):
        text = f"<p>{safe(say(f'backtest.{state.value}_what'))}</p>"
        error = run.status.error
        st.html(block(text, f"<p><b>{safe(say.why(error))}</b></p>" if error is not None else ""))
    again(run, now, say)


def again(run: Run, now: Now, say: Say) -> None:
    """The same request once more, the settings as they were then."""
    if deskwork.may(Action.BACKTEST) and st.button(
        say("backtest.again"), icon=":material/replay:", key="bt_again"
    ):
        start(run.request, now, say)


# ------------------------------------------------------------------------------- figures
def found(a: Asked, run: Run, now: Now, say: Say) -> None:
    """The verdict, the figures beside each other, the pictures, and what nobody can know."""
    result, look, tz = run.result, ui.look(now), zone(now)
    assert result is not None
    first = result.outcomes[0]
    st.title(headline(first, say))
    st.html(
        block(
            f'<p class="lead">{support(first, result.mode, say)}</p>',
            sentences(result, say, look.colours),
            f"<p>{safe(lead(result, say, tz))}</p>",
            notes_html(result, say),
        )
    )
    missing(a, say)
    compared(a, now, say)
    rows = lines(a.runs)
    st.header(say("backtest.table_head"))
    yard = "yardstick" if len(set(yardsticks([run]))) > 1 and len(a.runs) == 1 else ""
    st.html(
        block(
            outcomes_html(rows, say, tz, narrow=look.narrow),
            f"<p>{safe(say('backtest.unit'))}</p>",
            f"<p>▲ {safe(say('backtest.uneven'))}</p>" if uneven(rows) else "",
            f"<p>▲ {safe(say('backtest.yardstick'))}</p>" if yard else "",
        )
    )
    pictures(a, now, say)
    if result.sweep:
        st.header(say("backtest.sweep_head", n=len(result.sweep)))
        st.html(block(sweep_html(result, now.settings, say)))
    details(run, now, say)
    papers(a, run, now, say)
    again(run, now, say)
    back(say)


def missing(a: Asked, say: Say) -> None:
    """Runs to be shown beside it that are not here."""
    for name in a.unknown:
        st.info(say("backtest.unknown_vs"), icon=":material/link_off:")
        st.code(name[:120], language=None)


def compared(a: Asked, now: Now, say: Say) -> None:
    """Which other runs stand beside it, and why their figures may not be held against each other."""
    assert a.run is not None
    others = [r for r in backtest_runs.listing(now.root) if r.status.state is State.DONE and r.id != a.run.id]
    names = {r.id: run_name(r, say, zone(now)) for r in (*others, *a.beside)}
    if not names:
        return
    st.session_state["bt_beside"] = [r.id for r in a.beside]
    st.multiselect(
        say("backtest.compare"), list(names), max_selections=MOST_BESIDE, key="bt_beside",
        format_func=lambda r: names[r], on_change=beside, args=(a.run.id,), placeholder="",
    )  # fmt: skip
    if not a.beside:
        return
    done = [run_name(r, say, zone(now)) for r in a.runs if r.result is not None]
    letters = "".join(
        f"<li>{safe(say('backtest.compare_letter', letter=letter, name=name))}</li>"
        for letter, name in zip(LETTERS, done, strict=False)
    )
    why = "".join(f"<li>▲ {safe(say(f'backtest.differ_{d}'))}</li>" for d in differences(a.runs))
    st.html(
        block(
            f"<h2>{safe(say('backtest.compare_head', n=len(a.runs)))}</h2>",
            f'<ul class="plain">{letters}{why}</ul>',
        )
    )


def beside(run: str) -> None:
    """Writes the chosen runs into the address."""
    go(run)
    st.query_params.update(query_of(run, st.session_state["bt_beside"]))


def curves(a: Asked, now: Now, say: Say) -> ChartView | None:
    """The scores over time of all that can be told."""
    rows = [
        (k, x)
        for k, x in enumerate(lines(a.runs))
        if x.outcome.support is not Support.NONE and any(v is not None for v in x.outcome.curve.mean)
    ]
    if not rows or a.run is None or a.run.result is None:
        return None
    spans = [(r.result.from_ms, r.result.to_ms) for r in a.runs if r.result is not None]
    first = a.run.result.outcomes[0]
    return score_curves(
        [ScoreLine(name=label(x, say), place=k, curve=x.outcome.curve) for k, x in rows],
        [(s.from_ms, s.to_ms) for s in first.unsupported],
        Span(start_ms=min(s for s, _ in spans), end_ms=max(e for _, e in spans)),
        look=ui.look(now), say=say,
    )  # fmt: skip


def pictures(a: Asked, now: Now, say: Say) -> None:
    """Scores with their intervals; then the score over time with what nobody can know."""
    rows = [
        GainRow(name=label(x, say), place=k, gain=x.outcome.gain)
        for k, x in enumerate(lines(a.runs))
        if x.outcome.role != "none"
    ]
    if any(r.gain is not None for r in rows):
        ui.chart(gain_rows(rows, look=ui.look(now), say=say), say, key="backtest_rows")
    st.header(say("backtest.chart_head"))
    view = curves(a, now, say)
    if view is None:
        st.write(say("backtest.no_curve"))
    else:
        ui.chart(view, say, key="backtest_curves")


def details(run: Run, now: Now, say: Say) -> None:
    """Of one candidate: where there is no answer, what it would have done, what held it back."""
    result, tz = run.result, zone(now)
    assert result is not None
    tried = candidates(result)
    at = 0
    if len(tried) > 1:
        at = st.segmented_control(
            say("backtest.pick"), range(len(tried)), default=0, required=True, key=f"bt_pick_{run.id}",
            format_func=lambda i: name_of(tried[i].name, "candidate", say),
        ) or 0  # fmt: skip
    o = tried[at] if tried else result.outcomes[0]
    replay = result.mode == Mode.REPLAY.value
    st.header(say("backtest.unknown_head"))
    st.html(block(unknown_html(o, say, tz)))
    st.header(say("backtest.steps_head_replay" if replay else "backtest.steps_head"))
    st.html(block(steps_html(o, result.mode, say, tz, ui.look(now).colours)))
    st.header(say("backtest.guards_head"))
    st.html(block(f"<p>{safe(say('backtest.guards_what'))}</p>" if o.guards else "", guards_html(o, say)))


def papers(a: Asked, run: Run, now: Now, say: Say) -> None:
    """What gives the same again, the link, and the exports."""
    st.header(say("backtest.origin_head"))
    st.html(block(origin_html(run, command(run), say)))
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="backtest_papers"):
        with st.popover(say("trends.copy"), icon=":material/link:"):
            st.code(link(a), language=None, wrap_lines=True)
        st.download_button(
            say("report.csv"), data=partial(figures_csv, a, now, say), mime="text/csv", type="tertiary",
            file_name="selftune-backtest.csv", icon=":material/table:", on_click="ignore", key="bt_csv",
        )  # fmt: skip
        if curves(a, now, say) is None:
            return
        for kind, make, mime in PICTURES:
            st.download_button(
                say(f"report.{kind}"), data=partial(drawn, make, a, now, say), mime=mime, type="tertiary",
                file_name=f"selftune-backtest.{kind}", icon=":material/image:", on_click="ignore",
                key=f"bt_{kind}",
            )  # fmt: skip


def link(a: Asked) -> str:
    """The address of exactly this comparison."""
    parts = urlsplit(st.context.url or "http://localhost/backtest")
    assert a.run is not None
    return (
        f"{parts.scheme}://{parts.netloc}/backtest?{urlencode(query_of(a.run.id, [r.id for r in a.beside]))}"
    )


def figures_csv(a: Asked, now: Now, say: Say) -> bytes:
    return report.table_csv(table(lines(a.runs), say, zone(now)))


def drawn(make: Callable[[ChartView], bytes], a: Asked, now: Now, say: Say) -> bytes:
    view = curves(a, now, say)
    assert view is not None
    return make(view)


ui.guarded(main)()
