"""The words of a backtest: the verdict, what each candidate did, where nobody can know, as HTML safe to show.

Used by the Backtest page and by "try before save" alike, so that both say the same. No Streamlit.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from selftune.backtest_result import Interval, Outcome, Proposed, Result, Stretch, Support, Tripped
from selftune.backtest_runs import Run, State, Status
from selftune.backtest_view import CANDIDATE, Line, Verdict, candidates, name_of, period, verdict
from selftune.card_text import figure
from selftune.chart_kit import Colours, Say, clock_text, number, span_text
from selftune.domain import Reason
from selftune.drafting import row_of, values_of
from selftune.markup import arrow, bullets, facts, safe
from selftune.revision_text import label as label_of
from selftune.settings import Settings

NO_FIGURE = "–"
SHOWN_STEPS, SHOWN_STRETCHES, SHOWN_GUARDS, SHOWN_VARIANTS = 12, 8, 8, 20
VERDICT_SHAPES = {
    Verdict.BETTER: "●", Verdict.WORSE: "▼", Verdict.EVEN: "○", Verdict.STILL: "–", Verdict.UNKNOWN: "▨",
}  # fmt: skip
STATE_SHAPES = {
    State.QUEUED: "△", State.RUNNING: "▶", State.DONE: "✓", State.FAILED: "✕", State.CANCELLED: "–",
    State.INTERRUPTED: "◌",
}  # fmt: skip
SUPPORT_SHAPES = {Support.OK: "●", Support.PARTIAL: "◐", Support.NONE: "▨"}


# ------------------------------------------------------------------------------- the first sentence
def headline(o: Outcome, say: Say) -> str:
    """What the run says of one candidate, in one sentence."""
    found = verdict(o)
    gain = number(100 * o.gain.mean, 1, sign=True) if o.gain is not None else None
    share = o.support_share if o.support is Support.PARTIAL else None
    return first_up(
        say(f"backtest.v_{found.value}", name=name_of(o.name, o.role, say), gain=gain, share=share)
    )


def first_up(text: str) -> str:
    """The sentence with a capital letter at its beginning, where the language has such."""
    return text[:1].upper() + text[1:]


def support(o: Outcome, mode: str, say: Say) -> str:
    """How much of its choices the record or the model can tell, and what that means; HTML."""
    if mode == "plant":
        return ""  # the simulated system answers everything
    model = "model_" if mode == "simulate" else ""
    shape = f'<span class="mark" aria-hidden="true">{SUPPORT_SHAPES[o.support]}</span>'
    return shape + safe(say(f"backtest.support_{model}{o.support.value}", share=o.support_share))


def lead(result: Result, say: Say, zone: str) -> str:
    """What was tried on what, in plain words."""
    return say(f"backtest.lead_{result.mode}", span=period(result, zone), seed=result.seed)


def mark(found: Verdict, colours: Colours) -> str:
    """The verdict's shape in its colour; the word is the sentence beside it."""
    ink = {Verdict.BETTER: colours.good, Verdict.WORSE: colours.bad}.get(found, colours.unsure)
    return f'<span class="mark" aria-hidden="true" style="color:{ink}">{VERDICT_SHAPES[found]}</span>'


def sentences(result: Result, say: Say, colours: Colours) -> str:
    """The verdict of every candidate after the first, each in its sentence."""
    rows = "".join(
        f"<li>{mark(verdict(o), colours)}{safe(headline(o, say))}</li>" for o in candidates(result)[1:]
    )
    return f'<ul class="plain">{rows}</ul>' if rows else ""


# ------------------------------------------------------------------------------- all of them
def points(x: Interval | None, *, sign: bool = False) -> str:
    """'88.1 (87.4 ~ 88.9)' in score points; '–' where the record cannot tell."""
    if x is None:
        return NO_FIGURE
    lo, hi = (number(100 * v, 1, sign=sign) for v in (x.lo, x.hi))
    return f'<b class="num">{number(100 * x.mean, 1, sign=sign)}</b> <span class="num">({lo} ~ {hi})</span>'


def worst(s: Stretch | None, say: Say, zone: str) -> str:
    """The worst stretch: when, and what it lost against doing nothing."""
    if s is None:
        return NO_FIGURE
    when = safe(span_text(s.from_ms, s.to_ms, zone))
    if s.against is None:
        return when
    return (
        f'<span class="num">{number(100 * s.against, 1, sign=True)}</span> <span class="soft">{when}</span>'
    )


def answers(x: Line, say: Say, zone: str) -> list[tuple[str, str]]:
    """One candidate's figures as questions and answers, for a narrow screen; those without an answer go."""
    cells = _cells(x, x.outcome, say, zone)
    return [(say(f"backtest.col_{key}"), cell) for key, cell in cells if cell != NO_FIGURE]


def _cells(x: Line, o: Outcome, say: Say, zone: str) -> list[tuple[str, str]]:
    none = o.role == "none"
    moved = say(
        "backtest.moved_replay" if x.mode == "replay" else "backtest.moved", n=o.changes, back=o.rollbacks
    )
    told = safe(say(f"backtest.told_{o.support.value}", share=o.support_share))
    share = f'<span aria-hidden="true">{SUPPORT_SHAPES[o.support]}</span> {told}'
    return [
        ("gain", "" if none else points(o.gain, sign=True)),
        ("score", points(o.score)),
        ("worst", "" if none else worst(o.worst, say, zone)),
        ("moved", "" if none else safe(moved)),
        ("told", share),
    ]


def outcomes_html(found: Sequence[Line], say: Say, zone: str, *, narrow: bool) -> str:
    """Every candidate and baseline beside each other; one under the other on a phone."""
    if narrow:
        rows = "".join(f"<li><h3>{_title(x, say)}</h3>{facts(answers(x, say, zone))}</li>" for x in found)
        return f'<ul class="plain lines">{rows}</ul>'
    keys = ("gain", "score", "worst", "moved", "told")
    heads = "".join(f'<th scope="col">{escape(say(f"backtest.col_{k}"))}</th>' for k in ("name", *keys))
    rows = "".join(
        f'<tr><th scope="row">{_title(x, say)}</th>'
        + "".join(f"<td>{cell or NO_FIGURE}</td>" for _, cell in _cells(x, x.outcome, say, zone))
        + "</tr>"
        for x in found
    )
    head = f"<thead><tr>{heads}</tr></thead>"
    return f'<div class="scroll" tabindex="0"><table>{head}<tbody>{rows}</tbody></table></div>'


def label(x: Line, say: Say) -> str:
    """The name as charts show it: with the run's letter where there are several."""
    name = name_of(x.outcome.name, x.outcome.role, say)
    name = name if name == x.outcome.name else first_up(name)  # what somebody typed stays as it is
    return f"{x.letter} · {name}" if x.letter else name


def _title(x: Line, say: Say) -> str:
    own = x.outcome.role == CANDIDATE
    return safe(label(x, say)) if own else f'<span class="soft">{safe(label(x, say))}</span>'


# ------------------------------------------------------------------------------- where nobody can know
def unknown_html(o: Outcome, say: Say, zone: str) -> str:
    """The stretches in which the record cannot tell, by name; the longest list is cut and says so."""
    stretches = o.unsupported
    if not stretches:
        key = "backtest.unknown_all" if o.score is None else "backtest.unknown_none"
        return f"<p>{safe(say(key))}</p>"
    shown = sorted(
        sorted(stretches, key=lambda s: s.from_ms - s.to_ms)[:SHOWN_STRETCHES], key=lambda s: s.from_ms
    )
    rows = [
        f'<span aria-hidden="true">▨</span> {safe(span_text(s.from_ms, s.to_ms, zone))}'
        f' <span class="soft">{safe(say("backtest.unknown_for", for_s=(s.to_ms - s.from_ms) / 1000))}</span>'
        for s in shown
    ]
    more = len(stretches) - len(shown)
    tail = f"<p>{safe(say('backtest.unknown_more', n=more))}</p>" if more else ""
    items = "".join(f"<li>{r}</li>" for r in rows)
    return f'<p>{safe(say("backtest.unknown_why"))}</p><ul class="plain">{items}</ul>{tail}'


# ------------------------------------------------------------------------------- what it did, what held it
def steps_html(o: Outcome, mode: str, say: Say, zone: str, colours: Colours) -> str:
    """The steps it would have proposed, with the reason and what followed where the record can tell."""
    if not o.proposals:
        return f"<p>{safe(say('backtest.steps_none'))}</p>"
    rows = "".join(f"<li>{_step(x, mode, say, zone, colours)}</li>" for x in o.proposals[:SHOWN_STEPS])
    more = o.changes - min(len(o.proposals), SHOWN_STEPS)
    tail = f"<p>{safe(say('backtest.steps_more', n=more))}</p>" if more > 0 else ""
    return f'<ul class="plain lines">{rows}</ul>{tail}'


def _step(x: Proposed, mode: str, say: Say, zone: str, colours: Colours) -> str:
    head = f"{safe(clock_text(x.ts_ms, zone))} · <b>{safe(x.rule)}</b> {arrow(figure(x.old), figure(x.new))}"
    if x.gain is not None:
        good = x.gain.lo > 0
        found = Verdict.BETTER if good else Verdict.WORSE if x.gain.hi < 0 else Verdict.EVEN
        after = f"{mark(found, colours)}{safe(say('backtest.followed'))} {points(x.gain, sign=True)}"
    elif mode == "replay":
        after = f'<span aria-hidden="true">▨</span> {safe(say("backtest.not_followed"))}'
    else:
        after = ""
    return f"{head}<br>{safe(say.why(x.reason))}" + (f"<br>{after}" if after else "")


def guards_html(o: Outcome, say: Say) -> str:
    """What kept it still, most often first: the share as bar and figure, and one example's sentence."""
    if not o.guards:
        return f"<p>{safe(say('backtest.guards_none'))}</p>"
    rows = []
    for g in o.guards[:SHOWN_GUARDS]:
        width = max(1, round(100 * g.share))
        bar = (
            '<span aria-hidden="true" style="display:block;height:.4rem;border-radius:.2rem;opacity:.55;'
            f'background:currentColor;width:{width}%;max-width:100%"></span>'
        )
        text = say("backtest.guard", n=g.n, share=g.share, rule=g.rule)
        rows.append(f"<li><b>{safe(text)}</b> {safe(why(g, say))}{bar}</li>")
    return f'<ul class="plain">{"".join(rows)}</ul>'


def why(g: Tripped, say: Say) -> str:
    """The guard's own sentence, with the numbers of one example."""
    return say.why(Reason(g.code, dict(g.example)))


# ------------------------------------------------------------------------------- many variants
def axis_label(path: str, settings: Settings | None, say: Say) -> str:
    """What a setting that a sweep varies is called; its path where these settings do not know it."""
    known = values_of(settings) if settings is not None else {}
    row = row_of(path, known.get(path), known.get(path), settings) if settings and path in known else None
    return label_of(row, say) if row is not None else path


def sweep_html(result: Result, settings: Settings | None, say: Say) -> str:
    """The variants of a sweep, best first; one that nobody can judge, or that is not valid, says so."""
    names = list(result.sweep[0].values) if result.sweep else []
    heads = [axis_label(n, settings, say) for n in names]
    heads += [say(f"backtest.col_{k}") for k in ("score", "worst", "moved")]
    rows = []
    for v in result.sweep[:SHOWN_VARIANTS]:
        cells = [figure(v.values[n]) for n in names]
        if v.problem is not None:
            rest = f'<td colspan="3">✕ {safe(say.why(v.problem))}</td>'
        elif v.score is None:
            rest = f'<td colspan="3">{SUPPORT_SHAPES[v.support]} {safe(say("backtest.no_answer"))}</td>'
        else:
            worst_ = "–" if v.worst is None else number(100 * v.worst, 1, sign=True)
            moved = say("backtest.moved_replay" if result.mode == "replay" else "backtest.moved",
                        n=v.changes, back=v.rollbacks)  # fmt: skip
            share = SUPPORT_SHAPES[v.support]
            rest = f"<td>{share} {points(v.score)}</td><td>{worst_}</td><td>{safe(moved)}</td>"
        rows.append("<tr>" + "".join(f'<td class="num">{safe(c)}</td>' for c in cells) + rest + "</tr>")
    head = "".join(f'<th scope="col">{safe(h)}</th>' for h in heads)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    more = len(result.sweep) - SHOWN_VARIANTS
    tail = f"<p>{safe(say('backtest.sweep_more', n=more))}</p>" if more > 0 else ""
    return f'<p>{safe(say("backtest.sweep_what"))}</p><div class="scroll" tabindex="0">{table}</div>{tail}'


# ------------------------------------------------------------------------------- state and origin
def state_html(status: Status, say: Say) -> str:
    """'▶ running 42 %': a run's state as shape and word."""
    shape = STATE_SHAPES[status.state]
    word = say("backtest.state_cancelling" if status.cancelling else f"backtest.state_{status.state.value}")
    share = f" {number(100 * status.share, 0)} %" if status.state is State.RUNNING else ""
    return f'<span class="mark" aria-hidden="true">{shape}</span><b>{escape(word)}</b>{share}'


def progress(status: Status, say: Say) -> str:
    """'42 %, about 3 min left'."""
    if status.cancelling:
        return say("backtest.cancelling")
    if status.state is State.QUEUED:
        return say("backtest.queued")
    return say("backtest.progress", share=status.share, eta_s=status.eta_s)


def origin_html(run: Run, command: str | None, say: Say) -> str:
    """What gives the same bytes again: data, settings, version, seed, and the command where there is one."""
    r = run.result
    if r is None:
        return ""
    pairs = [
        (say("backtest.origin_data"), f"<code>{safe(r.data_sha256)}</code>"),
        (say("backtest.origin_settings"), f"<code>{safe(r.config)}</code>"),
        (say("backtest.origin_version"), safe(f"selftune {r.version}")),
        (say("backtest.origin_seed"), safe(r.seed)),
        (say("backtest.origin_rows"), safe(say("backtest.rows", rows=r.rows, events=r.events))),
        (say("backtest.origin_command"), f"<code>{safe(command)}</code>" if command else ""),
    ]
    return f"<p>{safe(say('backtest.origin'))}</p>{facts(pairs)}"


def notes_html(result: Result, say: Say) -> str:
    """What a reader should know of the data."""
    return bullets([safe(say.why(n)) for n in result.notes])


# ------------------------------------------------------------------------------- try before save
def trial_html(result: Result, say: Say, zone: str, colours: Colours) -> str:
    """The draft's verdict, then that of the settings in force, and what neither can know."""
    tried = candidates(result)
    rows = "".join(f"<li>{mark(verdict(o), colours)}<b>{safe(headline(o, say))}</b></li>" for o in tried)
    draft = tried[0] if tried else result.outcomes[0]
    pairs = [
        (name_of(o.name, o.role, say), worst(o.worst, say, zone) if o.worst is not None else "")
        for o in tried
    ]
    return (
        f'<ul class="plain">{rows}</ul><p>{support(draft, result.mode, say)}</p>'
        + (f"<h3>{escape(say('backtest.col_worst'))}</h3>{facts(pairs)}" if any(c for _, c in pairs) else "")
        + f"<p>{safe(lead(result, say, zone))}</p>"
    )
