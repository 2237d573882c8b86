"""Help: how it works, the promise, the terms, who may do what, how to stop it. Needs no data, no loop."""

from __future__ import annotations

import platform
from html import escape

import streamlit as st

import selftune
from selftune import ui
from selftune.chart_kit import Say

ui.require()

TERMS = ("metric", "target", "rule", "delta", "score", "anchor", "excursion")
ROLES = ("viewer", "operator", "reviewer", "admin")
# The same ink and shapes as on the charts; `currentColor` follows the reader's theme.
MARKS = {
    "confirmed": '<circle cx="9" cy="9" r="6" fill="#009E73" stroke="#009E73"/>',
    "rolled_back": '<path d="M4 4L14 14M4 14L14 4" stroke="#D55E00" stroke-width="2.5" fill="none"/>',
    "inconclusive": '<circle cx="9" cy="9" r="6" fill="none" stroke="#7F7F7F" stroke-width="2"/>',
    "open": '<path d="M9 3L15 14H3Z" fill="none" stroke="#3A8FCB" stroke-width="2"/>',
    "target": '<path d="M0 9H18" stroke="currentColor" stroke-width="2" stroke-dasharray="5 3"/>',
    "band": '<path d="M0 4H18V14H0Z" fill="#56B4E9" opacity=".4"/><path d="M0 9H18" stroke="#3A8FCB" stroke-width="2"/>',
    "blind": '<path d="M1 16L7 2M6 16L12 2M11 16L17 2" stroke="currentColor" stroke-width="1.5" opacity=".6"/>',
}
LOOP_STYLE = """<style>
.st-loop{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.6rem;align-items:stretch}
.st-loop li{flex:1 1 9.5rem;border:1px solid color-mix(in srgb,currentColor 25%,transparent);border-radius:.6rem;
padding:.7rem .8rem;position:relative}
.st-loop b{display:block;margin-bottom:.25rem}
.st-loop i{font-style:normal;font-weight:700;opacity:.75;margin-right:.35rem}
.st-again{margin:.6rem 0 0;text-align:center}
.st-marks{list-style:none;margin:0;padding:0;display:grid;gap:.45rem;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr))}
.st-marks li{display:flex;gap:.6rem;align-items:center}
.st-marks svg{flex:none}
</style>"""


def main() -> None:
    """The page, top to bottom."""
    now = ui.now()
    say = ui.words(now)
    s = now.settings
    settle, window, cooldown = (s.settle_s, s.observe_window_s, s.cooldown_s) if s else (20.0, 90.0, 120.0)
    steps, longest = (s.excursion.max_steps, s.excursion.max_s) if s else (6, 3600.0)
    st.title(say("help.title"))
    st.header(say("help.promise_head"))
    st.info(say("help.promise", steps=steps, hours=longest), icon=":material/handshake:")
    st.header(say("help.loop_head"))
    st.html(loop_picture(say))
    st.header(say("help.stop_head"))
    st.write(say("help.stop"))
    st.header(say("help.modes_head"))
    st.write(say("help.modes"))
    st.header(say("help.pace_head"))
    pace = max(settle + window, 2 * window)
    st.write(say("help.pace", pace=pace, cooldown=cooldown))
    st.header(say("help.colours_head"))
    st.write(say("help.colours"))
    st.html(marks(say))
    st.header(say("help.who_head"))
    st.table(
        {
            say("help.who_role"): [say(f"role.{r}") for r in ROLES],
            say("help.who_may"): [say(f"help.may_{r}") for r in ROLES],
        }
    )
    st.header(say("help.terms_head"))
    for term in TERMS:
        st.markdown(f"**{say(f'help.term_{term}')}**  \n{say(f'help.term_{term}_text')}")
    st.header(say("help.versions_head"))
    st.text(
        f"selftune {selftune.__version__} · Streamlit {st.__version__} · Python {platform.python_version()}"
    )


def loop_picture(say: Say) -> str:
    """The round as five boxes in an ordered list: a picture that a screen reader reads in order."""
    steps = "".join(
        f"<li><b><i>{n}</i>{escape(say(f'help.step{n}'))}</b>{escape(say(f'help.step{n}_text'))}</li>"
        for n in range(1, 6)
    )
    return (
        f'{LOOP_STYLE}<ol class="st-loop">{steps}</ol><p class="st-again">↻ {escape(say("help.again"))}</p>'
    )


def marks(say: Say) -> str:
    """The legend of all charts: shape, colour and word."""
    rows = "".join(
        f'<li><svg width="18" height="18" viewBox="0 0 18 18" aria-hidden="true">{shape}</svg>'
        f"<span>{word(name, say)}</span></li>"
        for name, shape in MARKS.items()
    )
    return f'{LOOP_STYLE}<ul class="st-marks">{rows}</ul>'


def word(name: str, say: Say) -> str:
    """A mark's word and meaning; marks without a word of their own have the meaning only."""
    meaning = escape(say(f"help.mark_{name}"))
    outcomes = ("confirmed", "rolled_back", "inconclusive", "open")
    return f"<b>{escape(say(f'chart.outcome_{name}'))}</b>: {meaning}" if name in outcomes else meaning


ui.guarded(main)()
