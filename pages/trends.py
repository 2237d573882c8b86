"""Δ trends: the metrics over time with every rule change on them, and what each change did.

Thin: the stretch, the events and their effects are trends.py's and past.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import streamlit as st

from selftune import report, ui
from selftune.chart_kit import ChartView, Outcome, Say, clock_text, span_text
from selftune.charts import Span, linked_panels, metric_chart
from selftune.desk import Now
from selftune.effect_charts import cumulative, forest
from selftune.event_text import about, deltas_html, head_html
from selftune.markup import as_typed, block, facts, note, safe
from selftune.past import Past, past
from selftune.picture import Picture
from selftune.timeline import Entry, entry_of
from selftune.trends import (
    CUSTOM,
    WINDOWS_S,
    Asked,
    asked,
    effect_rows,
    events_in,
    fixed_query,
    gains,
    marks,
    newest_end,
    stamp,
    tally,
    what,
)
from selftune.view import DataAge
from selftune.wording import plain

ui.require()

HISTORY = Path(__file__).parent / "history.py"
BUCKETS, BUCKETS_PHONE, BUCKETS_LIVE = 800, 400, 300
LISTED = 8


def main() -> None:
    """The page, top to bottom."""
    now = ui.now()
    say = ui.words(now)
    p = now.picture
    if p is None:
        st.title(say("overview.title_settings"))
        ui.settings_problems(now, say)
        return
    a = asked(st.query_params.to_dict(), p, newest_end(p))
    st.title(title(a, p, say))
    ui.settings_problems(now, say)
    controls(a, p, now, say)
    missing(a, p, say)
    if now.series.newest_ms is None:
        st.write(say("trends.no_data"))
        return
    ui.live(pictures, key="trends_live", every_s=None if a.live else 0)
    effects(a, p, now, say)


def request(now: Now) -> Asked | None:
    """What the address asks for at this moment."""
    p = now.picture
    return asked(st.query_params.to_dict(), p, newest_end(p)) if p else None


def title(a: Asked, p: Picture, say: Say) -> str:
    """One sentence: how many changes the stretch holds and how they ended."""
    count = tally(events_in(p, a.start_ms, a.end_ms, a.rule))
    return say("trends.title" if count["n"] else "trends.title_none", **count)


# ------------------------------------------------------------------------------- controls
def controls(a: Asked, p: Picture, now: Now, say: Say) -> None:
    """One row: window, rule, pace; then the link that opens the same picture tomorrow, and exports."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="trends_controls"):
        st.session_state["trends_w"] = a.window
        st.segmented_control(
            say("trends.window"), [*WINDOWS_S, CUSTOM], key="trends_w", on_change=choose_window,
            args=(a,), format_func=lambda w: say(f"trends.w_{w}"), required=True,
        )  # fmt: skip
        rules = ["", *sorted({*p.settings.rules, *(e.rule for e in p.snap.records.events)})]
        st.session_state["trends_rule"] = a.rule or ""
        st.selectbox(
            say("hist.filter_rule"), rules, key="trends_rule", on_change=choose_rule, width=150,
            format_func=lambda r: plain(r) or say("hist.filter_all"),
        )  # fmt: skip
        if a.live:
            with st.container(width=125):
                ui.refresh_control(say, in_url=True)
        with st.popover(say("trends.copy"), icon=":material/link:"):
            st.write(say("trends.copy_text"))
            st.code(link(a), language=None, wrap_lines=True)
        with st.popover(say("trends.export"), icon=":material/download:"):
            exports(a, p, now, say)
    if a.window == CUSTOM:
        custom(a, p, say)


def choose_window(a: Asked) -> None:
    """A window of the buttons moves with the data; 'custom' begins with what is on the screen."""
    w = st.session_state["trends_w"]
    if w == CUSTOM:
        st.query_params.update(fixed_query(a))
    else:
        for name in ("from", "to"):
            st.query_params.pop(name, None)
        st.query_params["w"] = w


def choose_rule() -> None:
    put("rule", st.session_state["trends_rule"] or None)


def put(name: str, value: str | None) -> None:
    """Writes one parameter of the address, or takes it out."""
    if value is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = value


def custom(a: Asked, p: Picture, say: Say) -> None:
    """From and to, in the configured zone."""
    zone = say.zone
    with (
        st.form("trends_custom", enter_to_submit=False, border=False),
        st.container(horizontal=True, gap="small", vertical_alignment="bottom"),
    ):
        start = st.datetime_input(
            say("trends.from"), value=local(a.start_ms, zone), key="trends_from", width=230
        )
        end = st.datetime_input(say("trends.to"), value=local(a.end_ms, zone), key="trends_to", width=230)
        sent = st.form_submit_button(say("trends.show"))
    if sent and start is not None and end is not None:
        first, last = (round(x.replace(tzinfo=zone).timestamp() * 1000) for x in (start, end))
        if first >= last:
            st.warning(say("trends.backwards"), icon=":material/swap_horiz:")
            return
        st.query_params.update({"w": CUSTOM, "from": stamp(first), "to": stamp(last)})
        st.rerun()


def local(ms: int, zone: tzinfo | None) -> datetime:
    """Wall time of the configured zone, as the field shows it."""
    return (
        datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).replace(tzinfo=None, second=0, microsecond=0)
    )


def link(a: Asked) -> str:
    """The address of exactly this picture, with absolute times."""
    parts = urlsplit(st.context.url or "http://localhost/trends")
    return f"{parts.scheme}://{parts.netloc}/trends?{urlencode(fixed_query(a))}"


def exports(a: Asked, p: Picture, now: Now, say: Say) -> None:
    """The picture and its figures as files; made only when asked for."""
    for kind, mime in (("png", "image/png"), ("svg", "image/svg+xml")):
        make = report.chart_png if kind == "png" else report.chart_svg
        st.download_button(
            say(f"report.{kind}"), data=partial(drawn, make, a, now, say), mime=mime, type="tertiary",
            file_name=f"selftune-trends.{kind}", icon=":material/image:", on_click="ignore",
            key=f"trends_{kind}",
        )  # fmt: skip
    st.download_button(
        say("report.csv"), data=partial(figures_csv, a, now, say), mime="text/csv", type="tertiary",
        file_name="selftune-trends.csv", icon=":material/table:", on_click="ignore", key="trends_csv",
    )  # fmt: skip


def drawn(make: Callable[[ChartView], bytes], a: Asked, now: Now, say: Say) -> bytes:
    return make(panels(a, now, say)[0])


def figures_csv(a: Asked, now: Now, say: Say) -> bytes:
    return report.table_csv(panels(a, now, say)[0].table)


def missing(a: Asked, p: Picture, say: Say) -> None:
    """What the address names and does not exist, said by name."""
    for name, value in a.unknown.items():
        st.info(as_typed(say(f"trends.unknown_{name}", value=value[:80])), icon=":material/link_off:")
    if a.cut:
        st.info(say("trends.cut"), icon=":material/content_cut:")


# ------------------------------------------------------------------------------- the pictures
def pictures() -> None:
    """The linked panels (or, on a phone, a chart a metric) and the event that was picked."""
    now = ui.now()
    say = ui.words(now)
    a, p = request(now), now.picture
    if a is None or p is None:
        return
    look = ui.look(now)
    if look.narrow:
        picked = phone(a, p, now, say)
    else:
        view, found = panels(a, now, say)
        picked = ui.chart(view, say, key="trends_panels")
        if found.means:
            st.write(say("chart.of_means"))
    if a.live and now.stream is not None and not now.stream.older_done:
        st.write(say("chart.still_reading"))
    known = st.session_state.get("trends_picked")
    if picked and picked[0] != known:  # a click; the same selection comes again with each renewal
        st.session_state["trends_picked"] = picked[0]
        st.query_params["e"] = picked[0]
    elif not picked:
        st.session_state.pop("trends_picked", None)
    listed(a, p, say)
    opened(p, now, say)


def panels(a: Asked, now: Now, say: Say) -> tuple[ChartView, Past]:
    """The linked panels of the stretch."""
    p = now.picture
    assert p is not None
    s = p.settings
    found = past(ui.shared(), now, s.metrics, a.start_ms, a.end_ms, BUCKETS_LIVE if a.live else BUCKETS)
    shown = span(a, now)
    view = ui.prepared(
        now, ("panels", a.start_ms, a.end_ms, a.live, a.rule, shown),
        lambda: linked_panels(
            found.buckets, s.targets, marks(events_in(p, a.start_ms, a.end_ms, a.rule)), shown,
            look=ui.look(now), say=say,
        ),
    )  # fmt: skip
    return view, found


def phone(a: Asked, p: Picture, now: Now, say: Say) -> list[str]:
    """A chart a metric, one under the other; events are opened from the list."""
    s, look = p.settings, ui.look(now)
    found = past(ui.shared(), now, s.metrics, a.start_ms, a.end_ms, BUCKETS_LIVE if a.live else BUCKETS_PHONE)
    on_it = marks(events_in(p, a.start_ms, a.end_ms, a.rule))
    for m in s.metrics:
        st.html(block(f"<h2>{safe(say.metric(m))}</h2>"))
        shown = span(a, now)
        draw = partial(metric_chart, found.buckets, m, s.targets.get(m), on_it, shown, look=look, say=say)
        view = ui.prepared(now, ("phone", m, a.start_ms, a.end_ms, a.live, a.rule, shown), draw)
        ui.chart(view, say, key=f"trends_{m}", sentence=m == s.metrics[-1])
    return []


def span(a: Asked, now: Now) -> Span:
    """The window; hatched where the data stopped before its end."""
    newest = now.series.newest_ms
    if a.live and now.banner.data is DataAge.OLD and newest is not None:
        width = a.end_ms - a.start_ms
        return Span(start_ms=a.start_ms, end_ms=min(now.now_ms, newest + width // 4), blind_ms=newest)
    return Span(start_ms=a.start_ms, end_ms=a.end_ms)


def listed(a: Asked, p: Picture, say: Say) -> None:
    """The newest events as buttons: the way to open one without a mouse."""
    events = events_in(p, a.start_ms, a.end_ms, a.rule)[-LISTED:]
    if not events:
        return
    with st.container(horizontal=True, gap="small", key="trends_events"):
        for e in reversed(events):
            label = f"{clock_text(e.ts_ms, p.settings.timezone, day=False)[:5]} · {what(e)}"
            chosen = st.query_params.get("e") == e.key
            st.button(
                as_typed(label), key=f"open_{e.key}", type="primary" if chosen else "secondary",
                on_click=put, args=("e", e.key),
            )  # fmt: skip


def opened(p: Picture, now: Now, say: Say) -> None:
    """The event that the address names: old → new, what it did, verdict, reason, quote, link."""
    key = st.query_params.get("e")
    if not key:
        return
    e = entry_of(p, key)
    with st.container(border=True, key="trends_event"):
        if e is None:
            st.html(block(f"<p>{safe(say('hist.unknown_id'))}</p>"))
            st.code(key[:120], language=None)
        else:
            event(e, p, now, say)
        st.button(say("hist.close"), icon=":material/close:", type="tertiary", key="trends_close",
                  on_click=put, args=("e", None))  # fmt: skip


def event(e: Entry, p: Picture, now: Now, say: Say) -> None:
    colours = ui.look(now).colours
    counts = [d.n for d in e.deltas if d.n]
    few = bool(counts) and min(counts) < p.settings.min_samples
    lines = [(say("trends.verdict"), safe(say(f"verdict.{e.verdict}")) if e.verdict else "")]
    if counts:
        key = "chart.too_few" if few else "trends.samples"
        text = say(key, n=min(counts), needed=p.settings.min_samples)
        lines.append((say("trends.count"), safe(text)))
    st.html(
        block(
            head_html(e, p.settings.timezone, say, colours),
            note(e.note),
            facts([*lines, *about(e, say)]),
            deltas_html(e.deltas, say),
        )
    )
    st.page_link(
        str(HISTORY), label=say("sugg.in_history"), icon=":material/history:", query_params={"e": e.key}
    )


# ------------------------------------------------------------------------------- effects
def effects(a: Asked, p: Picture, now: Now, say: Say) -> None:
    """What each change did (forest), and what the changes of each rule add up to."""
    entries = events_in(p, a.start_ms, a.end_ms, a.rule)
    look = ui.look(now)
    where = span_text(a.start_ms, a.end_ms, p.settings.timezone)
    st.header(say("trends.forest"))
    rows = effect_rows(entries, p.settings)
    if rows:
        ui.chart(forest(rows, look=look, say=say), say, key="trends_forest")
    else:
        st.write(say("trends.forest_none", span=where))
    st.header(say("trends.cumulative"))
    found = gains(p, entries)
    if found:
        view = cumulative(found, Span(start_ms=a.start_ms, end_ms=a.end_ms), look=look, say=say)
        ui.chart(view, say, key="trends_sums")
    else:
        key = "trends.cumulative_file" if rows else "trends.cumulative_none"
        st.write(say(key, span=where))
    if any(o is Outcome.OPEN for o in (m.outcome for m in marks(entries))):
        st.write(say("trends.open"))


ui.guarded(main)()
