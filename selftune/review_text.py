"""How a review is said: the checklist, the request, what moved, signatures, a running loan. HTML pieces.

The same pieces serve the page, its print view and the report. What people wrote is shown as typed; no
Streamlit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from selftune.chart_kit import LIGHT, Colours, Say
from selftune.domain import Governance, Reason
from selftune.drafting import row_of
from selftune.governing import GRADES, Request, State, What, rank
from selftune.markup import facts, note, safe
from selftune.mode import Loan
from selftune.picture import Picture
from selftune.readiness import Grade, Item, Readiness
from selftune.revision_text import exact, rows_html
from selftune.standing import Standing
from selftune.track import Forecasts, Track

SHAPES = {Grade.PASS: "✓", Grade.LOOK: "!", Grade.FAIL: "✕", Grade.NONE: "○"}
STATES = {State.OPEN: "●", State.SIGNED: "!", State.REFUSED: "↩", State.VOID: "✕", State.USED: "✓"}
_INKS: Mapping[Grade, Callable[[Colours], str]] = {
    Grade.PASS: lambda c: c.good,
    Grade.LOOK: lambda c: c.open,
    Grade.FAIL: lambda c: c.bad,
    Grade.NONE: lambda c: c.unsure,
}
ITEMS_STYLE = """<style>.sx .item{border:1px solid color-mix(in srgb,currentColor 25%,transparent);
border-radius:.5rem;padding:.5rem .8rem;margin:.4rem 0;break-inside:avoid}
.sx .item.fail,.sx .moved{border:2px solid currentColor}
.sx .moved{border-radius:.5rem;padding:.6rem .9rem;margin:.3rem 0}</style>"""


# ----------------------------------------------------------------------------- the checklist
def summary(found: Readiness, say: Say) -> str:
    """One sentence before the list."""
    key = "ready" if found.ready else "fail" if found.count(Grade.FAIL) else "missing"
    counts = {g.value: found.count(g) for g in Grade}
    return say(f"review.summary_{key}", total=len(found.items), passed=counts["pass"], look=counts["look"],
               fail=counts["fail"], none=counts["none"])  # fmt: skip


def item_html(item: Item, say: Say, colours: Colours, then: str | None = None) -> str:
    """One item: grade as colour, shape and word; one number; a sentence; its grade at the request."""
    ink = _INKS[item.grade](colours)
    mark = f'<span class="mark" aria-hidden="true" style="color:{ink}">{SHAPES[item.grade]}</span>'
    grade = f"{mark}<b>{safe(say(f'readiness.grade_{item.grade.value}'))}</b>"
    text = safe(say(f"readiness.{item.code}_{item.grade.value}", value=item.value, **item.params))
    was = ""
    if then in GRADES and then != item.grade.value:
        arrow = "▼" if rank(item.grade.value) > rank(then) else "▲"
        was = f" · {arrow} {safe(say('review.grade_then', grade=then))}"
    how = (
        f"<p>{safe(say('review.drill_how'))}</p>"
        if item.code == "drill" and item.grade is not Grade.PASS
        else ""
    )
    return (
        f"<h3>{safe(say(f'readiness.{item.code}'))}</h3>"
        f'<p>{grade} · <span class="big">{safe(figure(item, say))}</span>{was}</p><p>{text}</p>{how}'
    )


def figure(item: Item, say: Say) -> str:
    """The item's one number with its unit; while evidence is missing, how far it has come."""
    have, need = item.params.get("n", item.value), item.params.get("need")
    counts = item.grade is Grade.NONE or (item.grade is Grade.FAIL and item.code == "days")
    if item.grade is Grade.NONE and item.params.get("for_s") is not None:
        return say("readiness.progress_time", have_s=item.params["for_s"], need_s=item.params["need_s"])
    if counts and have is not None and need is not None:
        return say("readiness.progress", have=have, need=need)
    if item.value is None:
        return say("readiness.no_number")
    return say("readiness.figure", value=item.value, unit=item.unit)


def items_html(found: Readiness, say: Say, colours: Colours = LIGHT, then: Request | None = None) -> str:
    """The whole list, for paper."""
    grades = then.grades if then is not None else {}
    cells = "".join(
        f'<div class="item {i.grade.value}">{item_html(i, say, colours, grades.get(i.code))}</div>'
        for i in found.items
    )
    return ITEMS_STYLE + cells


def track_html(t: Track, say: Say) -> str:
    """The four tallies side by side, never added up, and how many can tell nothing."""
    still, pretend, none = t.stillness, t.placebo, say("track.none_yet")
    answers = {
        "stillness": still.n and say("track.stillness_text", n=still.n, covered=still.covered),
        "placebo": pretend.n
        and say("track.placebo_text", n=pretend.n, improved=pretend.improved, worsened=pretend.worsened),
        "effects": forecasts(t.effects, say),
        "past": forecasts(t.past, say),
        "untestable": t.suggestions and say("track.untestable_text", n=t.untestable, total=t.suggestions),
    }
    rows = [(say(f"track.{name}"), str(text or none)) for name, text in answers.items()]
    return f"<p>{safe(say('track.lead'))}</p>" + facts((q, safe(a)) for q, a in rows)


def forecasts(f: Forecasts, say: Say) -> str:
    """A tally of forecasts as a sentence."""
    if not f.cells:
        return say("track.none_yet")
    return say("track.forecasts_text", n=f.n, cells=f.cells, covered=f.covered, sign=f.sign, crps=f.crps,
               none=f.crps_none)  # fmt: skip


# ----------------------------------------------------------------------------- the request
def state_html(now: Standing, say: Say) -> str:
    """Where the request stands: a shape and a word, and how many have signed."""
    word = safe(say(f"review.state_{now.state.value}"))
    count = safe(say("review.signatures", n=len(now.request.signatures), need=now.needed))
    mark = f'<span class="mark" aria-hidden="true">{STATES[now.state]}</span>'
    return f'<p class="lead">{mark}<b>{word}</b> · {count}</p>'


def asked_html(now: Standing, say: Say) -> str:
    """Who asks for what, why, until when; and what came of it."""
    r = now.request
    who = safe(say("review.asked_by", who=r.by, role=r.role, at_ms=r.ts_ms))
    rows = [(say("review.asked_by_head"), who), (say("review.why_head"), note(r.reason))]
    if r.what is What.ARMING:
        rows.append((say("review.loan_asked_head"), loan_asked(r, say)))
    if now.state is State.OPEN:
        rows.append((say("review.ends_head"), safe(say("review.ends", until_ms=r.until_ms))))
    rows.append((say("review.number_head"), f"<code>{safe(r.id)}</code>"))
    back = ""
    if r.refused is not None:
        back = (
            f"<p><b>{safe(say('review.sent_back', who=r.refused.by, at_ms=r.refused.ts_ms))}</b></p>"
            f"{note(str(r.refused.data.get('reason') or ''))}<p>{safe(say('review.mend'))}</p>"
        )
    return back + facts(rows)


def loan_asked(r: Request, say: Say) -> str:
    """The three limits in one line."""
    changes, steps = r.loan.get("changes"), r.loan.get("displacement")
    parts = [
        say("review.loan_changes") + " " + say("review.loan_changes_text", n=changes),
        say("review.loan_reach_text", steps=exact(steps) if isinstance(steps, int | float) else "–"),
        say("review.loan_until", until_ms=r.loan_until_ms),
    ]
    return safe(" · ".join(parts))


def moved_html(moved: tuple[Reason, ...], say: Say) -> str:
    """The banner of a void request: every thing that moved, by name, and what to do."""
    if not moved:
        return ""
    rows = "".join(f"<li>{safe(say.why(m))}</li>" for m in moved)
    head = f"<h2>✕ {safe(say('review.void_head'))}</h2>"
    return (
        f'{ITEMS_STYLE}<div class="moved" role="alert">{head}<ul>{rows}</ul>'
        f"<p>{safe(say('review.void_next'))}</p></div>"
    )


def signatures_html(now: Standing, say: Say) -> str:
    """Everybody who signed, when, with what words."""
    if not now.request.signatures:
        return f"<p>{safe(say('review.no_signature'))}</p>"
    rows = []
    for s in now.request.signatures:
        shell = f" · {safe(say('review.signed_os', os=s.os))}" if s.os else ""
        who = safe(say("review.signed_line", who=s.by, at_ms=s.ts_ms))
        rows.append(f"<li>✓ <b>{who}</b>{shell}{note(s.comment)}</li>")
    return f'<ul class="plain lines">{"".join(rows)}</ul>'


def edit_html(p: Picture, r: Request, say: Say) -> str:
    """The settings that a proposal would change: now and new, what it means."""
    changed = r.data.get("changes")
    rows = [
        row
        for c in (changed if isinstance(changed, list) else ())
        if isinstance(c, dict)
        and (row := row_of(str(c.get("key")), c.get("new"), c.get("old"), p.settings)) is not None
    ]
    return rows_html(rows, say, p.life.values, None, {})


# ----------------------------------------------------------------------------- a loan
def loan_html(loan: Loan, say: Say) -> str:
    """What is left of the running loan."""
    rows = []
    if loan.changes is not None:
        left = safe(say("review.loan_left_text", left=loan.changes_left, of=loan.changes))
        rows.append((say("review.loan_left_changes"), left))
    if loan.displacement is not None:
        rows.append(
            (
                say("review.loan_reach_now"),
                safe(say("review.loan_reach_text", steps=exact(loan.displacement))),
            )
        )
    if loan.until_ms is not None:
        rows.append((say("review.loan_left_time"), safe(say("review.loan_until", until_ms=loan.until_ms))))
    return facts(rows)


def ended_html(g: Governance, say: Say) -> str:
    """How the last loan ended."""
    params = g.data.get("params")
    why = Reason(
        str(g.data.get("reason") or "mode.disarmed"), dict(params) if isinstance(params, dict) else {}
    )
    said = str(g.data.get("why") or "")
    when = safe(say("review.loan_over", at_ms=g.ts_ms))
    return f"<p>{when} {escape(plain_why(why, say))}</p>{note(said)}"


def plain_why(why: Reason, say: Say) -> str:
    """The reason of an ending as a sentence; what a person typed as a reason is shown as typed."""
    known = why.code in say.catalogue[say.language]
    return say.why(why) if known else say("banner.stopped_why", why=why.code)
