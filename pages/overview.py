"""Overview: is it healthy, is it on target, does it need me, how do I stop it.

Thin; the judgements are view.py's and needs.py's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from selftune import ui
from selftune.card_text import where_html
from selftune.chart_kit import ChartView, Look, Say, clock_text, number
from selftune.charts import Span, metric_chart, score_chart, spark
from selftune.desk import Now
from selftune.downsample import downsample
from selftune.event_text import warning_text
from selftune.markup import as_typed, block, safe
from selftune.needs import Need, doing, needs, score_line
from selftune.past import past
from selftune.picture import Picture
from selftune.trends import events_in, marks
from selftune.view import CARD_WINDOW_S, DataAge, MetricCard, Standing, metric_card, worst
from selftune.whereabouts import where

ui.require()

HERE = Path(__file__).parent
WINDOW_MS = 6 * 3600 * 1000
SPARK_MS = 5 * 60 * 1000
DAY_MS = 86_400_000
# Old figures lose their colour and get a dashed frame; their contrast stays.
STALE = """<style>.st-key-figures_old [data-testid=stVerticalBlock]{filter:grayscale(1)}
.st-key-figures_old{border:2px dashed currentColor;border-radius:.6rem;padding:.6rem}</style>"""
FACES = {
    Standing.MET: ("green", ":material/check_circle:"),
    Standing.MISSED: ("orange", ":material/error:"),
    Standing.UNKNOWN: ("gray", ":material/help:"),
}


def cards_of(now: Now) -> list[MetricCard]:
    """A card a metric, the same for the headline and the row of cards."""
    return [metric_card(now.series, m, t) for m, t in now.settings.targets.items()] if now.settings else []


def figures() -> None:
    """The part that is never older than a few seconds: headline, what needs you, the cards."""
    now = ui.now()
    say = ui.words(now)
    cards = cards_of(now)
    st.title(as_typed(headline(now, cards, say)))
    if now.settings and now.banner.data is DataAge.OLD:
        when = clock_text(now.series.newest_ms or 0, now.settings.timezone)
        st.warning(say("banner.stale", when=when), icon=":material/sensors_off:")
    ui.settings_problems(now, say)
    if now.settings and now.series.newest_ms is None:
        empty(now, say)
        return
    if now.settings:
        waiting(needs(now.picture, now.banner), say)
        old = now.banner.data is DataAge.OLD
        if old:
            st.html(STALE)
        with st.container(key="figures_old" if old else "figures"):
            metric_cards(now, cards, say)


def headline(now: Now, cards: list[MetricCard], say: Say) -> str:
    """One sentence that answers before anything else is read."""
    if now.settings is None or now.picture is None or now.plan is None:
        return say("overview.title_settings")
    age = now.banner.data
    if age is DataAge.NONE:
        return say("overview.title_none")
    if age is DataAge.OLD:
        return say("overview.title_stale")
    off = sum(c.standing is Standing.MISSED for c in cards)
    unknown = sum(c.standing is Standing.UNKNOWN for c in cards)
    first = say("overview.title_some" if off else "overview.title_all", off=off, total=len(cards))
    if unknown:
        first = say("overview.title_unknown", n=unknown, total=len(cards)) if not off else first
    at_work = doing(now.picture, now.plan, now.banner)
    return say("overview.join", first=first, second=say(f"doing.{at_work.kind}", **at_work.params))


def waiting(found: tuple[Need, ...], say: Say) -> None:
    """What waits for a person, each with the way to settle it."""
    with st.container(border=True, key="needs", gap="xsmall"):
        if not found:
            st.html(block(f"<h2>{safe(say('need.title_none'))}</h2>"))
            return
        st.html(block(f"<h2>{safe(say('need.title', n=len(found)))}</h2>"))
        for i, need in enumerate(found):
            one(need, i, say)


def one(need: Need, i: int, say: Say) -> None:
    """One line: mark, sentence, and the link or the command."""
    params = dict(need.params)
    if "note" in params:
        params["note"] = warning_text(str(params["note"]), say)
    mark = "▲" if need.urgent else "●"
    word = say("need.urgent" if need.urgent else "need.calm")
    why = f" {say.why(need.reason)}" if need.reason else ""
    text = safe(say(f"need.{need.kind}", **params) + why)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"need_{i}"):
        st.html(block(f'<span class="mark" aria-hidden="true">{mark}</span><b>{safe(word)}</b> {text}'))
        if need.page:
            st.page_link(
                str(HERE / f"{need.page}.py"), label=say(f"need.to_{need.page}"),
                icon=":material/arrow_forward:", query_params=dict(need.query), width="content",
            )  # fmt: skip
        if need.command:
            st.code(need.command, language=None, width="content")


def empty(now: Now, say: Say) -> None:
    """What is missing, where it is looked for, and how to look around meanwhile."""
    status = now.stream.status.value if now.stream else "missing"
    with st.container(border=True):
        st.markdown(f"**{say(f'overview.empty_stream.{status}')}**")
        st.write(say("overview.empty_path"))
        st.code(str(now.root / "logs" / "metrics.csv"), language=None)
        st.write(say("overview.empty_demo"))
        st.code("python -m selftune up --demo", language=None)


def metric_cards(now: Now, cards: list[MetricCard], say: Say) -> None:
    """A card a metric: value, distance to target in words, its last minutes."""
    look = ui.look(now)
    for column, card in zip(st.columns(len(cards)), cards, strict=True):
        with column, st.container(border=True, gap="xsmall", height="stretch"):
            st.metric(as_typed(say.metric(card.metric)), number(card.value), help=mean_of(say))
            colour, icon = FACES[card.standing]
            with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
                st.badge(standing(card, say), icon=icon, color=colour)  # type: ignore[arg-type]
                if card.limit is not None:
                    side = "card.at_most" if card.at_most else "card.at_least"
                    st.markdown(f":small[{say(side, limit=number(card.limit))}]", width="content")
            view = ui.prepared(now, ("spark", card), partial(little, now, card, look, say), table=False)
            ui.chart(view, say, key=f"spark_{card.metric}", sentence=False, table=False)


def mean_of(say: Say) -> str:
    """Which stretch the figure on a card stands for."""
    return say("card.mean", seconds=CARD_WINDOW_S)


def standing(card: MetricCard, say: Say) -> str:
    """'on target', '0.018 too high', 'no value'."""
    if card.standing is Standing.MISSED:
        key = "card.standing_missed_high" if card.at_most else "card.standing_missed_low"
        return say(key, gap=gap_text(card.gap or 0.0))
    return say(f"card.standing_{card.standing.value}")


def gap_text(gap: float) -> str:
    """How far off; a gap that rounds to nothing is still a gap."""
    return number(gap) if gap >= 0.0005 else "< 0.001"


def little(now: Now, card: MetricCard, look: Look, say: Say) -> ChartView:
    """The line on a card."""
    end = now.series.newest_ms or now.now_ms
    buckets = downsample(now.series, (card.metric,), end - SPARK_MS, end + 1, 60)
    met = None if card.standing is Standing.UNKNOWN else card.standing is Standing.MET
    return spark(buckets, card.metric, met=met, look=look, say=say)


# ------------------------------------------------------------------------------- the charts
def charts() -> None:
    """The part that renews itself at the reader's pace: the worst metric, the score, where we stand."""
    now = ui.now()
    say = ui.words(now)
    p = now.picture
    if p is None or now.series.newest_ms is None:
        return
    main_chart(now, p, say)
    left, right = st.columns(2)
    with left, st.container(key="score_box"):
        score(now, p, say)
    with right, st.container(border=True, key="where"):
        st.html(block(f"<h2>{safe(say('overview.where'))}</h2>", where_html(where(p), say)))


def main_chart(now: Now, p: Picture, say: Say) -> None:
    """The metric that is furthest off, with events, target, and what is missing hatched."""
    card, newest = worst(cards_of(now)), now.series.newest_ms
    if newest is None:
        return
    metric = card.metric if card else p.settings.metrics[0]
    oldest = min([int(x[0]) for x in (now.series.ts_ms, now.coarse.start_ms) if len(x)], default=newest)
    known = min(WINDOW_MS, max(10 * 60_000, newest - oldest))
    stale = now.banner.data is DataAge.OLD
    # A picture that stopped long ago keeps its own stretch, with a hatched one after it.
    end = min(now.now_ms, newest + known // 4) if stale else newest + 1
    span = Span(start_ms=end - known, end_ms=end, blind_ms=newest if stale else None)
    st.header(as_typed(say("overview.chart", metric=say.metric(metric), span_s=about(known / 1000))))
    look = ui.look(now)
    found = past(ui.shared(), now, (metric,), span.start_ms, newest + 1, 300)
    events = marks(events_in(p, span.start_ms, span.end_ms, None))
    view = ui.prepared(
        now, ("overview", metric, span),
        lambda: metric_chart(
            found.buckets, metric, p.settings.targets.get(metric), events, span, look=look, say=say
        ),
    )  # fmt: skip
    ui.chart(view, say, key="overview_chart")
    if found.means:
        st.write(say("chart.of_means"))
    if now.stream is not None and not now.stream.older_done:
        st.write(say("chart.still_reading"))


def about(seconds: float) -> int:
    """A length that reads well: an hour and a minute is an hour."""
    step = 600 if seconds >= 3600 else 60
    return round(seconds / step) * step


def score(now: Now, p: Picture, say: Say) -> None:
    """The objective score now, and its line over the last day or as much of it as there is."""
    line = ui.shared().kept(
        ("score", p.settings.digest, len(now.coarse), int(now.coarse.start_ms[-1]) if len(now.coarse) else 0),
        lambda: score_line(now.coarse, p.settings),
    )
    st.metric(
        say("overview.score"),
        "–" if p.score is None else f"{100 * p.score:.0f} %",
        help=say("help.term_score_text"),
    )
    if len(line.t_ms) < 2:
        st.write(say("overview.score_none"))
        return
    end = line.t_ms[-1]
    span = Span(start_ms=max(line.t_ms[0], end - DAY_MS), end_ms=end)
    view = ui.prepared(
        now, ("score", span), lambda: score_chart(line.t_ms, line.score, span, look=ui.look(now), say=say)
    )
    ui.chart(view, say, key="overview_score")
    if line.covers_s < 0.95 * DAY_MS / 1000:
        st.write(say("overview.score_covers", covers_s=round(line.covers_s)))


def files() -> None:
    """What lies in the data root, and what was skipped while reading."""
    now = ui.now()
    say = ui.words(now)
    with st.expander(say("overview.files"), icon=":material/folder_open:", key="overview_files"):
        if not now.problems:
            st.markdown(f":material/check_circle: {say('frame.settings_ok')}")
        facts = ui.shared().files()
        st.dataframe(
            {
                say("overview.file_name"): [f.path for f in facts],
                say("overview.file_purpose"): [say(f"overview.file_{f.purpose}") for f in facts],
                say("overview.file_state"): [
                    say("overview.file_here", size=size_text(f.size), age=round(f.age_s or 0))
                    if f.exists
                    else say("overview.file_missing")
                    for f in facts
                ],
            },
            width="stretch",
            hide_index=True,
        )
        skipped = now.stream.rejects if now.stream else {}
        total = sum(skipped.values())
        st.write(say("overview.skipped", n=total) if total else say("overview.skipped_none"))
        for reason, n in sorted(skipped.items()):
            st.text(f"• {say(f'reject.{reason}', n=n)}")


def size_text(size: int | None) -> str:
    """'12.3 KB'."""
    value = float(size or 0)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


ui.live(figures, key="overview_live", every_s=ui.FIGURES_S, longest_s=ui.FIGURES_LONGEST_S)
ui.live(charts, key="overview_charts")
ui.guarded(files)()
