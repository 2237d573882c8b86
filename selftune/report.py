"""What leaves the dashboard: the timeline as CSV, a chart as PNG or SVG, one decision as one HTML file.

A report holds everything inside (both languages, drawings as inline SVG, print style) and asks nobody for
anything. Text of people is escaped, and a cell that a spreadsheet would run is defused. No Streamlit.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from zoneinfo import ZoneInfo

import vl_convert as vlc

from selftune import __version__, catalogue
from selftune.acting import iso
from selftune.card_text import answers, card_head, ended, figure, lead, line_html, stepper
from selftune.cards import CardState, SuggestionCard, card_by_id
from selftune.chart_kit import LIGHT, ChartView, Look, Outcome, Say, clock_text
from selftune.charts import EventMark, Span, metric_chart
from selftune.decision_lines import line_of
from selftune.domain import UnknownId
from selftune.downsample import downsample
from selftune.effect_charts import receipt, ruler
from selftune.event_text import about, deltas_html, head_html
from selftune.markup import STYLE, facts, safe
from selftune.picture import Picture
from selftune.timeline import Entry, Mark, entry_of, timeline
from selftune.wording import plain

CSV_COLUMNS = (
    "ts", "rule", "old", "new", "actor", "origin", "kind", "outcome", "verdict", "note", "quote", "event",
    "decision",
)  # fmt: skip
BEFORE_MS, AFTER_MS = 15 * 60_000, 10 * 60_000
TITLE_HEIGHT = 44  # a single view counts its title and its axis into its height
_RUNS = ("=", "+", "-", "@", "\t", "\r")

# a browser that opens the report may fetch nothing at all
ALONE = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
PAGE_STYLE = """<style>
:root{color-scheme:light}
body{font-family:'Pretendard','Noto Sans KR','Noto Sans CJK KR','Malgun Gothic','Apple SD Gothic Neo',
sans-serif;color:#1B2026;background:#fff;max-width:46rem;margin:2rem auto;padding:0 1rem;line-height:1.55}
h1{font-size:1.5rem}section{border-top:2px solid #D5DBE1;padding-top:1rem;margin-top:1.5rem}
figure{margin:.6rem 0}figure svg{max-width:100%;height:auto}figcaption{font-size:.9rem;color:#57606A}
footer{margin-top:2rem;font-size:.85rem;color:#57606A}
@media print{body{margin:0;max-width:none}section{break-inside:avoid}figure{break-inside:avoid}}
@page{margin:16mm}
</style>"""


# ------------------------------------------------------------------------------- CSV
def timeline_csv(p: Picture, *, rule: str | None = None, actor: str | None = None) -> bytes:
    """Every event that passes the filters, newest first, as CSV that a spreadsheet opens as it is.

    UTF-8 with BOM; a text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    zone = ZoneInfo(p.settings.timezone)
    for e in timeline(p, rule=rule, actor=actor, limit=len(p.snap.records.events)).entries:
        writer.writerow([defused(x) for x in _cells(e, zone)])
    return out.getvalue().encode("utf-8-sig")


def _cells(e: Entry, zone: ZoneInfo) -> Iterable[str | float | None]:
    return (
        iso(e.ts_ms, zone), e.rule, e.old, e.new if e.new is not None else e.raw_new, e.actor, e.origin.value,
        e.kind.value if e.kind else None, e.mark.value, e.verdict.value if e.verdict else None, e.note,
        " | ".join(q.quote for q in e.quotes), e.key, e.decision,
    )  # fmt: skip


def table_csv(table: Mapping[str, Sequence[object]]) -> bytes:
    """The table view of a chart as CSV, in the same form as `timeline_csv`."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([defused(h) for h in table])
    for row in zip(*table.values(), strict=True):
        writer.writerow([defused(x) if isinstance(x, str) else x for x in row])
    return out.getvalue().encode("utf-8-sig")


def defused(cell: str | float | None) -> str | float:
    """The cell, where a text that a spreadsheet would run begins with an apostrophe."""
    if not isinstance(cell, str):
        return "" if cell is None else cell
    text = cell.replace("\0", "")
    return "'" + text if text.lstrip().startswith(_RUNS) or text.startswith(_RUNS) else text


# ------------------------------------------------------------------------------- pictures
def chart_svg(view: ChartView) -> bytes:
    """The chart as SVG with its words inside; Korean is drawn with the fonts of this machine."""
    return str(vlc.vegalite_to_svg(view.self_contained(), allowed_base_urls=[])).encode()


def chart_png(view: ChartView, *, scale: float = 2.0) -> bytes:
    """The chart as PNG on white."""
    spec = view.self_contained()
    config = {**spec.get("config", {}), "background": "#FFFFFF"}
    return bytes(vlc.vegalite_to_png({**spec, "config": config}, scale=scale, allowed_base_urls=[]))


def panels(view: ChartView) -> list[ChartView]:
    """The panels of a stacked chart as charts of their own: only a single view fits any width of a page."""
    stacked = view.spec.get("vconcat")
    if not stacked:
        return [view]
    frame = {k: v for k, v in view.spec.items() if k != "vconcat"}
    return [replace(view, spec={**frame, **one, "height": one["height"] + TITLE_HEIGHT}) for one in stacked]


# ------------------------------------------------------------------------------- one decision
def file_name(p: Picture, decision_id: str) -> str:
    """A name for the report's file that every system takes."""
    ident = re.sub(r"[^A-Za-z0-9_-]", "", decision_id)[:40] or "decision"
    record = p.decision(decision_id)
    day = clock_text(record.ts_ms, p.settings.timezone)[:5] if record else "00-00"
    return f"selftune-{day}-{ident}.html"


def decision_html(p: Picture, decision_id: str) -> bytes:
    """One decision as one HTML file, Korean first, then English. Raises: UnknownId."""
    record = p.decision(decision_id)
    if record is None:
        raise UnknownId("hand.unknown_decision", id=decision_id)
    words, zone = catalogue.load(), ZoneInfo(p.settings.timezone)
    sections = [_section(p, decision_id, Say(language, words, zone)) for language in catalogue.LANGUAGES]
    ko, en = (Say(language, words, zone)("report.title") for language in catalogue.LANGUAGES)
    made = iso(p.snap.now_ms, zone)
    foot = f"selftune {__version__} · {escape(made)} · {safe(decision_id)}"
    return (
        f'<!doctype html><html lang="ko"><head><meta charset="utf-8">{ALONE}'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(ko)} · {safe(decision_id)}</title>{PAGE_STYLE}{STYLE}</head><body>"
        f'<h1>{escape(ko)} / <span lang="en">{escape(en)}</span></h1>{"".join(sections)}'
        f"<footer>{foot}</footer></body></html>"
    ).encode()


def _section(p: Picture, decision_id: str, say: Say) -> str:
    card = card_by_id(p, decision_id)
    body = _card(p, card, say) if card is not None else _line(p, decision_id, say)
    return f'<section lang="{say.language}">{body}</section>'


def _line(p: Picture, decision_id: str, say: Say) -> str:
    """A decision that is no suggestion: its line, what it changed and did, and the suggestion behind it."""
    record = p.decision(decision_id)
    assert record is not None
    zone = p.settings.timezone
    parts = [line_html(line_of(record), zone, say, LIGHT)]
    for e in (entry_of(p, key) for key in record.applied):
        if e is not None:
            parts += [head_html(e, zone, say, LIGHT), facts(about(e, say)), deltas_html(e.deltas, say)]
    of = record.data.get("of")
    card = card_by_id(p, of) if isinstance(of, str) else None
    head = f'<div class="sx">{"".join(parts)}</div>'
    if card is not None:
        return head + _card(p, card, say)
    return head + _context(p, record.ts_ms, say)


def _card(p: Picture, card: SuggestionCard, say: Say) -> str:
    look = Look(language=say.language, zone=p.settings.timezone)
    state = f"<p><b>{safe(say(f'sugg.state_{card.state.value}'))}</b></p>"
    if card.state is not CardState.STANDING:
        state = ended(card, say)
    watched = stepper(card.watch, p.settings.timezone, say, LIGHT) if card.watch else ""
    answered = facts(answers(replace(card, state=CardState.STANDING), p.settings, say))
    drawings = [ruler(card.rule, card.old, card.new, look=look, say=say)]
    if card.points:
        drawings.append(receipt(card.points, look=look, say=say))
    when = facts([(say("report.when"), escape(iso(card.at_ms, ZoneInfo(p.settings.timezone))))])
    return (
        f'<div class="sx"><h2>{safe(card_head(card, say))}</h2><p class="lead">{safe(lead(card, say))}</p>'
        f"{state}{when}{watched}{answered}</div>"
        + "".join(_figure(v) for v in drawings)
        + _context(p, card.at_ms, say, card.metric)
    )


def _figure(view: ChartView) -> str:
    caption = f"<figcaption>{safe(view.sentence)}</figcaption>"
    return f'<figure aria-label="{safe(view.alt)}">{_inline(view)}{caption}</figure>'


def _inline(view: ChartView) -> str:
    svg = chart_svg(view).decode()
    return svg[svg.index("<svg") :]


def _context(p: Picture, at_ms: int, say: Say, metric: str | None = None) -> str:
    """The metric around the decision, where its samples are still held; and the score that was recorded."""
    name = metric or next(iter(p.settings.targets))
    start, end = at_ms - BEFORE_MS, min(at_ms + AFTER_MS, (p.newest_ms or at_ms) + 1)
    buckets = downsample(p.snap.series, (name,), start, end, 300)
    if not len(buckets) or end <= start:
        return f"<p>{safe(say('report.no_samples'))}</p>"
    look = Look(language=say.language, zone=p.settings.timezone)
    events = [
        EventMark(id=e.key, t_ms=e.ts_ms, rule=plain(e.rule), outcome=_outcome(e),
                  what=f"{figure(e.old)} → {figure(e.new)}")
        for e in timeline(p, limit=200).entries
    ]  # fmt: skip
    view = metric_chart(buckets, name, p.settings.targets[name], events, Span(start_ms=start, end_ms=end),
                        look=look, say=say)  # fmt: skip
    return _figure(view)


def _outcome(e: Entry) -> Outcome:
    """The chart's outcome of a mark: charts know fewer."""
    return _OUTCOMES.get(e.mark, Outcome.INCONCLUSIVE)


_OUTCOMES = {
    Mark.CONFIRMED: Outcome.CONFIRMED,
    Mark.ROLLED_BACK: Outcome.ROLLED_BACK,
    Mark.WORSENED: Outcome.ROLLED_BACK,
    Mark.OPEN: Outcome.OPEN,
    Mark.BACK: Outcome.BACK,
}

__all__ = ["chart_png", "chart_svg", "decision_html", "defused", "file_name", "timeline_csv"]
