"""Help: how it works, the promise, the terms, who may do what, how to stop it. Needs no data, no loop."""

from __future__ import annotations

import platform
from html import escape

import streamlit as st

import selftune
from selftune import ui
from selftune.chart_kit import Say

ui.require()

TERMS = ("metric", "target", "rule", "delta", "score", "anchor", "excursion", "backtest", "support")
ROLES = ("viewer", "operator", "reviewer", "admin")
# The same colours and shapes as on the charts, as characters that every reader's font has.
MARKS = {
    "confirmed": ("●", "#009E73"),
    "rolled_back": ("✕", "#D55E00"),
    "inconclusive": ("○", "#7F7F7F"),
    "open": ("△", "#3A8FCB"),
    "back": ("◀", "#7F7F7F"),
    "target": ("╌╌", "inherit"),
    "band": ("▆", "#56B4E9"),
    "blind": ("▨", "inherit"),
}
LOOP_STYLE = """<style>
.st-loop{display:flex;flex-wrap:wrap;gap:.6rem;align-items:stretch}
.st-loop>div{flex:1 1 9.5rem;border:1px solid color-mix(in srgb,currentColor 25%,transparent);
border-radius:.6rem;padding:.7rem .8rem}
.st-loop b{display:block;margin-bottom:.25rem}
.st-loop i{font-style:normal;font-weight:700;opacity:.75;margin-right:.35rem}
.st-again{margin:.6rem 0 0;text-align:center}
.st-marks{display:grid;gap:.45rem;grid-template-columns:repeat(auto-fit,minmax(min(19rem,100%),1fr))}
.st-marks>div{display:flex;gap:.6rem;align-items:baseline}
.st-marks em{flex:none;width:1.6rem;text-align:center;font-style:normal;font-weight:700}
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
        f'<div role="listitem"><b><i>{n}</i>{escape(say(f"help.step{n}"))}</b>'
        f"{escape(say(f'help.step{n}_text'))}</div>"
        for n in range(1, 6)
    )
    return (
        f'{LOOP_STYLE}<div role="list" class="st-loop">{steps}</div>'
        f'<p class="st-again">↻ {escape(say("help.again"))}</p>'
    )


def marks(say: Say) -> str:
    """The legend of all charts: shape, colour and word."""
    rows = "".join(
        f'<div role="listitem"><em aria-hidden="true" style="color:{colour}">{shape}</em>'
        f"<span>{word(name, say)}</span></div>"
        for name, (shape, colour) in MARKS.items()
    )
    return f'{LOOP_STYLE}<div role="list" class="st-marks">{rows}</div>'


def word(name: str, say: Say) -> str:
    """A mark's word and meaning; marks without a word of their own have the meaning only."""
    meaning = escape(say(f"help.mark_{name}"))
    outcomes = ("confirmed", "rolled_back", "inconclusive", "open", "back")
    return f"<b>{escape(say(f'chart.outcome_{name}'))}</b>: {meaning}" if name in outcomes else meaning


ui.guarded(main)()
