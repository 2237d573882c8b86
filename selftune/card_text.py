"""The words of a card: headline, answers, stepper, one line of a decision, as HTML that is safe to show.

Used by the pages and the report alike, so that both say the same. No Streamlit; decides nothing.
"""

from __future__ import annotations

from html import escape
from math import isfinite
from urllib.parse import quote

from selftune.cards import CardState, SuggestionCard
from selftune.chart_kit import Colours, Say, number
from selftune.decision_lines import DecisionLine
from selftune.domain import Verdict
from selftune.markup import arrow, bullets, hhmm, mark, note, safe, steps
from selftune.settings import Settings
from selftune.timeline import Mark
from selftune.whereabouts import Watch, Where

VERDICT_MARK = {
    Verdict.IMPROVED: Mark.CONFIRMED,
    Verdict.WORSENED: Mark.WORSENED,
    Verdict.NEUTRAL: Mark.INCONCLUSIVE,
    Verdict.INCONCLUSIVE: Mark.INCONCLUSIVE,
}


def figure(value: float | None) -> str:
    """A rule's value in full, without trailing zeros: '0.33', '40', '1,250.5'."""
    if value is None or not isfinite(value):
        return "–"
    text = f"{value:,.6f}".rstrip("0").rstrip(".").replace("-", "−")
    return "0" if text == "−0" else text


def card_head(card: SuggestionCard, say: Say) -> str:
    """'Lower risk_max from 0.33 to 0.31'."""
    key = "sugg.head_down" if card.down else "sugg.head_up"
    return say(key, rule=card.rule.name, old=figure(card.old), new=figure(card.new))


def lead(card: SuggestionCard, say: Say) -> str:
    """Which target is off by how much, in one sentence."""
    if card.metric is None or card.gap is None:
        return say.why(card.reasons[0]) if card.reasons else ""
    key = "sugg.lead_high" if card.at_most else "sugg.lead_low"
    return say(key, metric=card.metric, limit=figure(card.limit), gap=number(card.gap))


def answers(card: SuggestionCard, settings: Settings, say: Say) -> list[tuple[str, str]]:
    """Why, what is expected, the risk, the evidence, what happens next, how it is undone."""
    found = [(say("sugg.why"), bullets([safe(say.why(r)) for r in card.reasons])),
             (say("sugg.expected"), bullets(expectation(card, say))),
             (say("sugg.risk"), bullets(risks(card, settings, say))),
             (say("sugg.evidence"), bullets(evidence(card, say)))]  # fmt: skip
    if card.state is CardState.STANDING:
        found.append(
            (
                say("sugg.next"),
                safe(say("sugg.next_text", settle_s=settings.settle_s, watch_s=settings.observe_window_s)),
            )
        )
        found.append(
            (say("sugg.undo"), safe(say("sugg.undo_text", rule=card.rule.name, old=figure(card.old))))
        )
    return found


def expectation(card: SuggestionCard, say: Say) -> list[str]:
    """The forecast per metric, in words and with its range; without one, that it will be measured."""
    if not card.expected:
        return [safe(say("sugg.no_forecast"))]
    lines = []
    for e in card.expected:
        side = "small" if e.better is None else "better" if e.better else "worse"
        lines.append(safe(say(f"sugg.expect_{side}", metric=e.metric, mean=number(e.mean, sign=True),
                              lo=number(e.lo, sign=True), hi=number(e.hi, sign=True))))  # fmt: skip
    return lines


def risks(card: SuggestionCard, settings: Settings, say: Say) -> list[str]:
    """What may go wrong, and what then happens."""
    lines = [safe(say("sugg.risk_worse", metric=e.metric)) for e in card.expected if e.better is False]
    if card.confidence is not None:
        lines.append(safe(say("sugg.risk_share", share=card.confidence)))
    rule = card.rule
    within = say("sugg.risk_small", lr=figure(rule.lr), lo=figure(rule.min), hi=figure(rule.max))
    lines.append(safe(within))
    lines += [safe(say("sugg.risk_warned", metric=m)) for m in settings.warn]
    return lines


def evidence(card: SuggestionCard, say: Say) -> list[str]:
    """How many samples, their mean with its range, and how likely chance alone would do it."""
    lines = []
    for m in card.measured[: 1 if card.metric else None]:
        lines.append(safe(say("sugg.measured", metric=m.metric, n=m.n, mean=m.mean, lo=m.lo, hi=m.hi)))
    if card.odds is not None:
        lines.append(safe(say("sugg.odds", odds=round(card.odds))))
    return lines


def ended(card: SuggestionCard, say: Say) -> str:
    """What became of a suggestion that no longer stands, who said so and why."""
    said = f"<p><b>{safe(say(f'sugg.state_{card.state.value}'))}</b>"
    return said + (f" · {safe(card.by)}" if card.by else "") + "</p>" + note(card.why)


def moves_text(w: Watch) -> str:
    return ", ".join(f"{rule} {figure(old)} → {figure(new)}" for rule, old, new in w.moves)


def stepper(w: Watch, zone: str, say: Say, colours: Colours) -> str:
    """applied → watching (what is left) → verdict."""
    left = escape(say("sugg.left", left_s=round(w.left_s)))
    until = escape(say("sugg.step_until", until=hhmm(w.due_ms, zone)))
    settling = escape(say("sugg.step_settling", until=hhmm(w.settled_ms, zone)))
    watch_text = {
        "settling": f"{settling}<br><b>{left}</b>",
        "watching": f"{until}<br><b>{left}</b>",
        "judging": escape(say("sugg.step_judging")),
        "done": escape(say("sugg.step_watched", until=hhmm(w.due_ms, zone))),
    }[w.stage]
    verdict = escape(say("sugg.step_later"))
    if w.verdict is not None:
        word = say(f"verdict.{w.verdict.value}")
        verdict = (
            mark(VERDICT_MARK[w.verdict], say, colours, word) + f"<br>{safe(say('phase.' + w.phase.value))}"
        )
        verdict += f"<br>{bullets([safe(say.why(r)) for r in w.reasons])}" if w.reasons else ""
    elif w.stage == "done":
        verdict = safe(say("phase." + w.phase.value))
    busy = w.stage in ("settling", "watching")
    return steps(
        [
            ("done", say("sugg.step_applied"), escape(hhmm(w.at_ms, zone))),
            ("now" if busy else "done", say("sugg.step_watching"), watch_text),
            (
                "todo" if busy else "now" if w.stage == "judging" else "done",
                say("sugg.step_verdict"),
                verdict,
            ),
        ]
    )


def line_html(x: DecisionLine, zone: str, say: Say, colours: Colours, *, link: bool = False) -> str:
    """One decision: when, what, why, and what it moved or would have moved; `link`: with its address."""
    when = f'<span class="num">{hhmm(x.ts_ms, zone)}</span>'
    if link:
        when = f'<a href="?d={quote(x.id, safe="")}" target="_self">{when}</a>'
    head = f"{when} <b>{safe(act_word(x, say))}</b>"
    if x.verdict is not None:
        head += " " + mark(VERDICT_MARK[x.verdict], say, colours, say(f"verdict.{x.verdict.value}"))
    if x.who:
        head += f" · {safe(x.who)}"
    for rule, old, new in x.moves:
        head += f" · {safe(rule)} {arrow(figure(old), figure(new))}"
    whys = bullets([safe(say.why(r)) for r in x.reasons if r.code != "why.by_hand"])
    return f"<div>{head}</div>{f'<div>{whys}</div>' if whys else ''}{note(x.why)}"


def act_word(x: DecisionLine, say: Say) -> str:
    """The word for what a decision did; for one we do not know its own code."""
    key = f"did.{x.kind}.{x.act}"
    if key not in say.catalogue[say.language]:
        return f"{x.kind} {x.act}"
    written = f"{key}.wrote"
    return say(written if x.wrote and written in say.catalogue[say.language] else key)


def where_html(w: Where, say: Say) -> str:
    """Proven values, steps away from them, and what happens at the end."""
    if w.looking:
        text = say("sugg.where_looking")
    elif w.steps:
        text = say("sugg.where_away", steps=w.steps, max_steps=w.max_steps, left_s=round(w.left_s or 0))
    else:
        text = say("sugg.where_home")
    rows = "".join(
        f'<tr><td>{safe(r)}</td><td class="num">{figure(w.proven.get(r))}</td>'
        f'<td class="num">{figure(v)}</td></tr>'
        for r, v in w.values.items()
    )
    head = "".join(f"<th>{escape(say(f'sugg.where_{c}'))}</th>" for c in ("rule", "proven", "present"))
    ending = f'<p class="soft">{safe(say("sugg.where_end"))}</p>' if w.steps else ""
    if w.set_by_others:
        ending += f'<p class="soft">{safe(say("sugg.where_hand", rules=list(w.set_by_others)))}</p>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<p>{safe(text)}</p><div class="scroll">{table}</div>{ending}'
