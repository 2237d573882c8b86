"""Review: may practice mode end? The evidence item by item, the exact change, its fingerprint. Read-only.

Signing comes with the accounts: until then the page says so, and has no button that leads nowhere.
"""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path
from zoneinfo import ZoneInfo

import streamlit as st

from selftune import deskwork, ui
from selftune.chart_kit import Colours, Say
from selftune.config import edit
from selftune.desk import Now
from selftune.domain import SettingsError
from selftune.markup import block, facts, safe
from selftune.picture import Picture
from selftune.readiness import Grade, Item, Pulse, Readiness, assess
from selftune.records import instant_ms
from selftune.revision_text import exact
from selftune.status import read_heartbeat
from selftune.track import Forecasts, Track

ui.require()

HERE = Path(__file__).parent
SHAPES = {Grade.PASS: "✓", Grade.LOOK: "!", Grade.FAIL: "✕", Grade.NONE: "○"}


def main() -> None:
    """The page, top to bottom."""
    now, glance = ui.now(), deskwork.glance()
    say = ui.words(now)
    p = glance.picture
    st.title(say("review.title"))
    if p is None:
        st.write(say("review.closed"))
        if glance.fault:
            st.html(block(f"<p>{safe(glance.fault)}</p>"))
        ui.settings_problems(now, say)
        return
    ui.settings_problems(now, say)
    left, right = st.columns([3, 2], gap="large")
    with left:
        ui.live(evidence, key="review_live")
    with right:
        asked(p, say)


# ------------------------------------------------------------------------------- evidence
def evidence() -> None:
    """The checklist, renewed in place."""
    now, p = ui.now(), deskwork.glance().picture
    if p is None:
        return
    say, colours = ui.words(now), ui.look(now).colours
    found = assess(p, pulse_of(now, p))
    st.html(block(f'<p class="lead"><b>{safe(summary(found, say))}</b></p>'))
    st.header(say("review.evidence_head"))
    for item in found.items:
        line(item, say, colours)
    if found.unknown:
        st.html(block(f"<p>{safe(say('review.unknown_bars', names=list(found.unknown)))}</p>"))
    st.header(say("review.track_head"))
    st.html(block(track_html(found.track, say)))


def pulse_of(now: Now, p: Picture) -> Pulse:
    """The loop's life by its heartbeat file."""
    beat = read_heartbeat(now.root) or {}
    started_ms, _ = instant_ms(beat.get("started"), ZoneInfo(p.settings.timezone))
    return Pulse(age_s=now.beat_age_s, started_ms=started_ms)


def summary(found: Readiness, say: Say) -> str:
    """One sentence before the list."""
    key = "ready" if found.ready else "fail" if found.count(Grade.FAIL) else "missing"
    counts = {g.value: found.count(g) for g in Grade}
    return say(f"review.summary_{key}", total=len(found.items), passed=counts["pass"], look=counts["look"],
               fail=counts["fail"], none=counts["none"])  # fmt: skip


def line(item: Item, say: Say, colours: Colours) -> None:
    """One item: grade as colour, shape and word; one number; a sentence; where to look."""
    ink = {
        Grade.PASS: colours.good,
        Grade.LOOK: colours.open,
        Grade.FAIL: colours.bad,
        Grade.NONE: colours.unsure,
    }
    shape = (
        f'<span class="mark" aria-hidden="true" style="color:{ink[item.grade]}">{SHAPES[item.grade]}</span>'
    )
    grade = f"{shape}<b>{safe(say(f'readiness.grade_{item.grade.value}'))}</b>"
    name = safe(say(f"readiness.{item.code}"))
    text = safe(say(f"readiness.{item.code}_{item.grade.value}", value=item.value, **item.params))
    with st.container(border=True, gap="xsmall", key=f"review_{item.code}"):
        st.html(block(f'<h3>{name}</h3><p>{grade} · <span class="big">{safe(figure(item, say))}</span></p>'
                      f"<p>{text}</p>"))  # fmt: skip
        target = HERE / f"{item.page}.py"
        if item.page and target.exists():
            st.page_link(str(target), label=say(f"nav.{item.page}"), icon=":material/arrow_forward:")


def figure(item: Item, say: Say) -> str:
    """The item's one number with its unit; while evidence is missing, how far it has come."""
    have, need = item.params.get("n", item.params.get("hours", item.value)), item.params.get("need")
    if item.grade is Grade.NONE and have is not None and need is not None:
        return say("readiness.progress", have=have, need=need)
    if item.value is None:
        return say("readiness.no_number")
    return say("readiness.figure", value=item.value, unit=item.unit)


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


# ------------------------------------------------------------------------------- what would be signed
def asked(p: Picture, say: Say) -> None:
    """The exact change, its fingerprint, the loan, and that signing is not here yet."""
    st.header(say("review.change_head"))
    if not p.settings.dry_run:
        st.write(say("review.already"))
    else:
        diff = flip(p)
        st.write(say("review.change"))
        if diff:
            st.code(diff, language=None, wrap_lines=True)
    st.header(say("review.print_head"))
    st.code(p.settings.digest, language=None, wrap_lines=True)
    st.write(say("review.print"))
    st.header(say("review.loan_head"))
    loan = p.settings.governance.loan
    st.html(
        block(
            facts(
                [
                    (say("review.loan_changes"), safe(say("review.loan_changes_text", n=loan.changes))),
                    (
                        say("review.loan_reach"),
                        safe(say("review.loan_reach_text", steps=exact(loan.displacement))),
                    ),
                    (say("review.loan_time"), safe(say("review.loan_time_text", hours=exact(loan.hours)))),
                ]
            ),
            f"<p>{safe(say('review.loan'))}</p>",
        )
    )
    st.header(say("review.sign_head"))
    st.info(say("review.sign"), icon=":material/draw:")


def flip(p: Picture) -> str:
    """The lines of the settings file that would change; '' when the file cannot be read as it is."""
    try:
        text = (p.snap.records.settings or b"").decode("utf-8")
        after = edit(text, {"strategy.dry_run": False})
    except (SettingsError, UnicodeDecodeError):
        return ""
    lines = unified_diff(
        text.splitlines(), after.splitlines(), "self_tuning.yaml", "self_tuning.yaml", lineterm="", n=0
    )
    return "\n".join(lines)


ui.guarded(main)()
