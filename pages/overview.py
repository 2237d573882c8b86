"""Overview: is it healthy, is it on target, what is missing. Thin; the judgements are view.py's."""

from __future__ import annotations

import streamlit as st

from selftune import ui
from selftune.chart_kit import ChartView, Look, Say, clock_text, number
from selftune.charts import Span, metric_chart, spark
from selftune.desk import Now
from selftune.downsample import downsample
from selftune.view import CARD_WINDOW_S, DataAge, MetricCard, Standing, metric_card, worst

ui.require()

WINDOW_MS = 30 * 60 * 1000
SPARK_MS = 5 * 60 * 1000
FACES = {
    Standing.MET: ("green", ":material/check_circle:"),
    Standing.MISSED: ("orange", ":material/error:"),
    Standing.UNKNOWN: ("gray", ":material/help:"),
}


def main() -> None:
    """The whole page, drawn anew at each tick."""
    now = ui.now()
    say = ui.words(now)
    cards = [metric_card(now.series, m, t) for m, t in now.settings.targets.items()] if now.settings else []
    headline(now, cards, say)
    ui.settings_problems(now, say)
    if now.settings and now.series.newest_ms is None:
        empty(now, say)
    elif now.settings:
        metric_cards(now, cards, say)
        main_chart(now, cards, say)
    files(now, say)


def headline(now: Now, cards: list[MetricCard], say: Say) -> None:
    """One sentence that answers before anything else is read."""
    off = sum(c.standing is Standing.MISSED for c in cards)
    unknown = sum(c.standing is Standing.UNKNOWN for c in cards)
    age = now.banner.data
    if now.settings is None:
        st.title(say("overview.title_settings"))
    elif age is DataAge.NONE:
        st.title(say("overview.title_none"))
    elif age is DataAge.OLD:
        st.title(say("overview.title_stale"))
        when = clock_text(now.series.newest_ms or 0, now.settings.timezone)
        st.warning(say("banner.stale", when=when), icon=":material/sensors_off:")
    else:
        key = "overview.title_some" if off else "overview.title_all"
        st.title(say(key, off=off, total=len(cards)))
        if unknown:
            st.write(say("overview.unknown", n=unknown))
    if now.beat is None:
        st.write(say("overview.calm"))


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
    """A card a metric: value, distance to the target in words, its last minutes."""
    look = ui.look(now)
    for column, card in zip(st.columns(len(cards)), cards, strict=True):
        with column, st.container(border=True, gap="xsmall", height="stretch"):
            st.metric(say.metric(card.metric), number(card.value), help=mean_of(say))
            colour, icon = FACES[card.standing]
            with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
                st.badge(standing(card, say), icon=icon, color=colour)  # type: ignore[arg-type]
                if card.limit is not None:
                    side = "card.at_most" if card.at_most else "card.at_least"
                    st.markdown(f":small[{say(side, limit=number(card.limit))}]", width="content")
            ui.chart(
                little(now, card, look, say), say, key=f"spark_{card.metric}", sentence=False, table=False
            )


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


def main_chart(now: Now, cards: list[MetricCard], say: Say) -> None:
    """The metric that is furthest off, over the last half hour, with what is missing hatched."""
    card = worst(cards)
    newest = now.series.newest_ms
    if card is None or newest is None:
        return
    st.subheader(say("overview.chart", metric=say.metric(card.metric)))
    stale = now.banner.data is DataAge.OLD
    # A picture that stopped long ago keeps its own half hour, with a hatched stretch after it.
    end = min(now.now_ms, newest + WINDOW_MS // 4) if stale else newest + 1
    span = Span(start_ms=end - WINDOW_MS, end_ms=end, blind_ms=newest if stale else None)
    look = ui.look(now)
    buckets = downsample(now.series, (card.metric,), span.start_ms, newest + 1, 300)
    view = metric_chart(buckets, card.metric, card.target, [], span, look=look, say=say)
    ui.chart(view, say, key="overview_chart")


def files(now: Now, say: Say) -> None:
    """What lies in the data root, and what was skipped while reading."""
    with st.expander(say("overview.files"), icon=":material/folder_open:", key="overview_files"):
        if not now.problems:
            st.markdown(f":material/check_circle: {say('frame.settings_ok')}")
        facts = ui.desk(str(now.root)).files()
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


ui.live(main, key="overview_live")
