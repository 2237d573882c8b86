"""The words of one rule event: its line, its outcome, its Δ, the values then, what a rollback would write.

HTML that is safe to show: text of people and programs stays text. No Streamlit; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from selftune.card_text import figure
from selftune.chart_kit import Colours, Say, clock_text, number
from selftune.markup import arrow, bullets, facts, mark, safe
from selftune.settings import Settings
from selftune.timeline import Entry, MetricDelta, Preview


def head_html(e: Entry, zone: str, say: Say, colours: Colours) -> str:
    """Heading of one event: what moved, how it ended, when and by whom."""
    when = escape(clock_text(e.ts_ms, zone))
    return (
        f"<h2>{safe(e.rule)} {change_text(e)}</h2>"
        f"<p>{mark(e.mark, say, colours)} · {when} · {safe(who(e, say))}</p>"
    )


def row_html(e: Entry, zone: str, say: Say, colours: Colours) -> str:
    """One line of the timeline: when and how it ended, what moved, and why in a sentence."""
    when = f'<span class="num">{escape(clock_text(e.ts_ms, zone))}</span>'
    first = next((r for r in e.reasons if r.code != "why.by_hand"), None)
    why = safe(say.why(first)) if first is not None else safe(e.note, 140)
    return (
        f"<div>{when} · {mark(e.mark, say, colours)}</div>"
        f"<div><b>{safe(e.rule)}</b> {change_text(e)} · {safe(who(e, say))}</div>"
        + (f'<div class="soft">{why}</div>' if why else "")
    )


def preview_html(view: Preview, settings: Settings, say: Say) -> str:
    """The exact new values, which changes they undo, and what a rollback is."""
    moves = "".join(f"<li>{safe(m.rule)} {arrow(figure(m.old), figure(m.new))}</li>" for m in view.moves)
    undone = [
        f"<li>{escape(clock_text(e.ts_ms, settings.timezone))} · {safe(e.rule)} {change_text(e)} · "
        f"{safe(e.actor)}</li>"
        for e in view.undone
    ]
    if view.undone_n > len(view.undone):
        undone.append(f"<li>{escape(say('hist.and_more', n=view.undone_n - len(view.undone)))}</li>")
    text = say("hist.rollback_text", rest_s=settings.cooldown_s, watch_s=settings.observe_window_s)
    return (
        facts(
            [
                (say("hist.will_write"), f'<ul class="plain">{moves}</ul>'),
                (say("hist.undoes"), f"<ul>{''.join(undone)}</ul>" if undone else ""),
            ]
        )
        + f"<p>{safe(text)}</p>"
    )


def change_text(e: Entry) -> str:
    """'0.35 → 0.33'; what is no number is shown as it stands."""
    new = figure(e.new) if e.new is not None else f"({e.raw_new})" if e.raw_new is not None else "–"
    return arrow(figure(e.old), safe_text(new))


def safe_text(text: str) -> str:
    """Cut for one line; `arrow` escapes it."""
    return text if len(text) <= 40 else text[:39] + "…"


def who(e: Entry, say: Say) -> str:
    """The actor as typed, with what kind of actor it is."""
    return f"{e.actor} ({say('origin.' + e.origin.value)})"


def about(e: Entry, say: Say) -> list[tuple[str, str]]:
    """Reasons, quotes and warnings of an event."""
    found = [(say("hist.why"), bullets([safe(say.why(r)) for r in e.reasons]))]
    found.append((say("hist.quotes"), bullets([f"“{safe(q.quote)}”" for q in e.quotes])))
    warned = [f"{safe(say('severity.' + w.severity))}: {safe(warning_text(w.note, say))}" for w in e.warnings]
    found.append((say("hist.warnings"), bullets(warned)))
    if not e.known:
        found.append((say("hist.rule"), safe(say("hist.not_ours"))))
    elif e.outside:
        found.append((say("hist.rule"), safe(say("hist.outside"))))
    return found


def warning_text(text: str, say: Say) -> str:
    """A warning's note: our own are reason codes, others' are text as typed."""
    known = any(prefix + text in say.catalogue[say.language] for prefix in ("", "reason."))
    return say(text) if known and "{" not in say.catalogue[say.language].get(text, "{") else text


def deltas_html(deltas: tuple[MetricDelta, ...], say: Say) -> str:
    """Δ per metric with its interval and the odds of chance."""
    if not deltas:
        return ""
    heads = "".join(f"<th>{escape(say(f'hist.{c}'))}</th>" for c in ("metric", "delta", "interval", "odds"))
    rows = "".join(
        f"<tr><td>{safe(say.metric(d.metric))}</td><td class='num'>{number(d.delta, sign=True)}"
        f"{side(d, say)}</td><td class='num'>{interval(d)}</td><td>{odds(d, say)}</td></tr>"
        for d in deltas
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def side(d: MetricDelta, say: Say) -> str:
    word = "same" if d.better is None else "better" if d.better else "worse"
    return "" if d.delta is None else f" ({escape(say(f'hist.{word}'))})"


def interval(d: MetricDelta) -> str:
    return "–" if d.lo is None or d.hi is None else f"{number(d.lo, sign=True)} ~ {number(d.hi, sign=True)}"


def odds(d: MetricDelta, say: Say) -> str:
    return "–" if d.odds is None else escape(say("chart.by_chance", odds=round(d.odds)))


def then_html(then: Mapping[str, float], now: Mapping[str, float], say: Say) -> str:
    """Every rule's value right after the event, beside today's."""
    heads = "".join(f"<th>{escape(say(f'hist.{c}'))}</th>" for c in ("rule", "then", "now"))
    rows = "".join(
        f'<tr><td>{safe(r)}</td><td class="num">{figure(v)}</td>'
        f'<td class="num">{"<b>" if now[r] != v else ""}{figure(now[r])}'
        f"{'</b>' if now[r] != v else ''}</td></tr>"
        for r, v in then.items()
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h3>{escape(say("hist.state_then"))}</h3><div class="scroll">{table}</div>'
