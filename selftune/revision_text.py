"""How settings and their edits are said: labels, exact numbers, what a change means, strips, three sides.

HTML pieces for the pages of targets and review; text that people wrote is shown as typed. No Streamlit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from html import escape

from selftune.chart_kit import Colours, Say, clock_text
from selftune.drafting import Row, Sides, Topic, Value, row_of
from selftune.markup import note, safe
from selftune.reach import Reach
from selftune.revising import Fate, Revision
from selftune.settings import Settings

DIRECTIONS: Mapping[int, str] = {1: "targets.up", 0: "targets.unknown", -1: "targets.down"}
FATE_MARKS = {Fate.IN_FORCE: "●", Fate.REPLACED: "○", Fate.LOST: "✕"}
METRIC_TOPICS = (Topic.TARGET, Topic.GOOD, Topic.WARN, Topic.METRIC_WEIGHT, Topic.HARD)
REACH_STYLE = """<style>.sx .reach li{display:grid;gap:.2rem .8rem;align-items:center;
grid-template-columns:minmax(6rem,12rem) 6.5rem 1fr}
@media (max-width:640px){.sx .reach li{grid-template-columns:1fr auto}
.sx .reach li>:last-child{grid-column:1/-1}}
</style>"""
SIDED = (Topic.TARGET, Topic.BOUND, Topic.HARD)


def exact(value: Value) -> str:
    """The number as it stands in the file, with no digit rounded away; '–' for none."""
    if value is None:
        return "–"
    return format(Decimal(repr(value)), "f").removesuffix(".0").replace("-", "−")


def label(row: Row, say: Say) -> str:
    """What a setting is called, with its metric or rule."""
    if row.topic is Topic.TIMING:
        return say(f"targets.timing_{row.path}")
    key = f"draft.label_{row.topic.value}" + (f"_{row.side}" if row.topic in SIDED else "")
    return say(key, **({"metric": row.subject} if row.topic in METRIC_TOPICS else {"rule": row.subject}))


def shown(row: Row, value: Value, say: Say) -> str:
    """A value of this setting in the reader's words: a direction as a word, a change with its sign."""
    if row.topic is Topic.DIRECTION and value is not None and value in DIRECTIONS:
        return say(DIRECTIONS[int(value)])
    text = exact(value)
    signed = row.topic in (Topic.GOOD, Topic.WARN) and value is not None and value > 0
    return f"+{text}" if signed else text


def meaning(row: Row, say: Say) -> str:
    """One sentence: what the change means."""
    if row.topic is Topic.TIMING:
        return say(f"draft.means_timing_{row.path}")
    return say(f"draft.means_{row.topic.value}_{row.sense.value}")


def rows_html(
    rows: Sequence[Row], say: Say, values: Mapping[str, float], new: Settings | None, extra: Mapping[str, str]
) -> str:
    """The differences: now and new, in steps, what it means; `extra` holds more HTML by path."""
    items = []
    for r in rows:
        steps = f' <span class="num">({escape(say("draft.steps", steps=r.steps))})</span>' if r.steps else ""
        sign = f" <b>· ● {escape(say('draft.signature'))}</b>" if r.needs_signature else ""
        items.append(
            f"<li><b>{safe(label(r, say))}</b>{sign}<br>"
            f'<span class="big">{safe(shown(r, r.old, say))} → {safe(shown(r, r.new, say))}</span>{steps}'
            f"<br>{safe(meaning(r, say))}{outside(r, say, values, new)}{extra.get(r.path, '')}</li>"
        )
    return f'<ul class="plain lines">{"".join(items)}</ul>'


def outside(row: Row, say: Say, values: Mapping[str, float], new: Settings | None) -> str:
    """A sentence when the rule's present value lies outside its new bounds."""
    rule = new.rules.get(row.subject) if new is not None and row.topic is Topic.BOUND else None
    value = values.get(row.subject)
    if rule is None or value is None or rule.min <= value <= rule.max:
        return ""
    return f"<br>▲ {safe(say('draft.means_bound_outside', value=value))}"


def sides_html(sides: Iterable[Sides], settings: Settings, say: Say) -> str:
    """The three sides of a conflict as a table; what both changed differently is marked by a word."""
    heads = "".join(
        f'<th scope="col" style="white-space:nowrap">{escape(say(f"targets.side_{k}"))}</th>'
        for k in ("what", "base", "theirs", "yours")
    )
    body = []
    for s in sides:
        row = row_of(s.path, s.yours, s.base, settings)
        name = safe(label(row, say)) if row else safe(s.path)
        clash = f"<br><b>▲ {escape(say('targets.clash'))}</b>" if s.clash else ""
        cells = "".join(
            f'<td class="num">{safe(shown(row, v, say) if row else exact(v))}</td>'
            for v in (s.base, s.theirs, s.yours)
        )
        body.append(f'<tr><th scope="row">{name}{clash}</th>{cells}</tr>')
    return _scroll(f"<thead><tr>{heads}</tr></thead>", body)


def _scroll(head: str, body: Sequence[str]) -> str:
    """A table that scrolls inside itself on a narrow screen, with the keyboard as well."""
    return f'<div class="scroll" tabindex="0"><table>{head}<tbody>{"".join(body)}</tbody></table></div>'


# ----------------------------------------------------------------------------- how often a target was met
def strip(found: Reach, metric: str, say: Say, colours: Colours) -> str:
    """The share over time as a row of cells, with the share in words for who cannot see it."""
    if found.share is None:
        return f'<span class="soft">{escape(say("targets.reach_none"))}</span>'
    cells = "".join(
        f'<i style="flex:1;background:{colours.good};opacity:{0.12 + 0.88 * c:.2f}"></i>'
        if c is not None
        else '<i style="flex:1"></i>'
        for c in found.cells
    )
    alt = safe(say("targets.reach_alt", metric=metric, share=found.share))
    return (
        f'<div role="img" aria-label="{alt}" style="display:flex;height:14px;border-radius:3px;'
        f'overflow:hidden;border:1px solid {colours.grid}">{cells}</div>'
    )


def reaches_html(found: Mapping[str, Reach], say: Say, colours: Colours) -> str:
    """One line a metric: its name, its share, its strip."""
    lines = "".join(
        f"<li><b>{safe(say.metric(m))}</b>"
        f'<span class="num">{safe(say("targets.reach", share=r.share)) if r.share is not None else ""}</span>'
        f"{strip(r, m, say, colours)}</li>"
        for m, r in found.items()
    )
    return f'{REACH_STYLE}<ul class="plain reach">{lines}</ul>'


def reach_change(old: Reach, new: Reach, say: Say) -> str:
    """How the share would have been with another target; '' without enough history."""
    if old.share is None or new.share is None:
        return ""
    said = say("targets.reach_change", span_s=new.span_s, old=old.share, new=new.share)
    return f"<br><b>{safe(said)}</b>"


# ----------------------------------------------------------------------------- settings and revisions as text
def settings_html(s: Settings, say: Say) -> str:
    """All that the page edits, as plain tables, for who may not edit."""
    metrics = [
        (
            say.metric(m),
            " · ".join(
                say(f"card.at_{'most' if side == 'max' else 'least'}", limit=exact(v))
                for side, v in (("max", t.max), ("min", t.min))
                if v is not None
            ),
            ("−" if t.down_is_good else "+") + exact(s.good[m]),
            warn_text(s, m),
            exact(s.weights.get(m, 0.0)),
        )
        for m, t in s.targets.items()
    ]
    rules = [
        (n, f"{exact(r.min)} ~ {exact(r.max)}", exact(r.lr), say(DIRECTIONS[r.direction]), exact(r.weight))
        for n, r in s.rules.items()
    ]
    heads = ("draft.metric", "draft.target", "draft.good", "draft.warn", "targets.field_weight")
    fields = ("lr", "direction", "rule_weight")
    rule_heads = ("draft.rule", "draft.bounds", *(f"targets.field_{k}" for k in fields))
    timings = [
        (say(f"targets.timing_{k}"), exact(getattr(s, k)))
        for k in ("observe_window_s", "settle_s", "min_samples", "cooldown_s", "history_s")
    ]
    return (
        f"<h2>{escape(say('targets.metrics_head'))}</h2>{table(heads, metrics, say)}"
        f"<h2>{escape(say('targets.rules_head'))}</h2>{table(rule_heads, rules, say)}"
        f"<h2>{escape(say('targets.timings_head'))}</h2>{table((), timings, say)}"
    )


def warn_text(s: Settings, metric: str) -> str:
    """The changes that warn: '+0.03'; '–' for none."""
    warn = s.warn.get(metric)
    both = (warn.min, warn.max) if warn else ()
    return " · ".join(f"+{exact(v)}" if v > 0 else exact(v) for v in both if v is not None) or "–"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], say: Say) -> str:
    """A table of texts; the first cell of a row is its heading."""
    top = "".join(f'<th scope="col">{escape(say(h))}</th>' for h in heads)
    body = [
        f'<tr><th scope="row">{safe(r[0])}</th>{"".join(f"<td>{safe(c)}</td>" for c in r[1:])}</tr>'
        for r in rows
    ]
    return _scroll(f"<thead><tr>{top}</tr></thead>" if heads else "", body)


def hard_html(s: Settings, say: Say) -> str:
    """The hard limits in words."""
    lines = [
        safe(say(f"targets.hard_{side}", metric=m, limit=exact(v)))
        for m, limit in s.hard.items()
        for side, v in (("max", limit.max), ("min", limit.min))
        if v is not None
    ]
    body = (
        "".join(f"<li>{x}</li>" for x in lines) if lines else f"<li>{escape(say('targets.hard_none'))}</li>"
    )
    return f"<ul>{body}</ul><p>{escape(say('targets.hard_how'))}</p>"


def revision_html(r: Revision, settings: Settings, say: Say, zone: str) -> str:
    """One saved edit: when, who, why, what, and what became of it."""
    who = say("targets.by", when=clock_text(r.ts_ms, zone), name=r.by, role=r.role)
    fate = f"{FATE_MARKS[r.fate]} {say(f'revision.{r.fate.value}')}"
    changed = "".join(f"<li>{_changed(c, settings, say)}</li>" for c in r.changed)
    lost = f"<p>{escape(say('revision.lost_why'))}</p>" if r.fate is Fate.LOST else ""
    return f"<p><b>{safe(who)}</b> · {safe(fate)}</p>{note(r.why)}<ul>{changed}</ul>{lost}"


def _changed(change: tuple[str, Value, Value], settings: Settings, say: Say) -> str:
    path, old, new = change
    row = row_of(path, new, old, settings)
    if row is None:
        return f"{safe(path)}: {safe(old)} → {safe(new)}"
    values = f"{safe(shown(row, old, say))} → {safe(shown(row, new, say))}"
    return f'{safe(label(row, say))} <span class="big">{values}</span>'
