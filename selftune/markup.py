"""Small pieces of HTML for the pages and the report: text as typed, marks, steppers, rulers of facts.

Whatever a person or a program wrote goes through `safe` and is never read as markup. No Streamlit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from selftune.chart_kit import Colours, Say, clock_text
from selftune.timeline import Mark
from selftune.wording import plain

NOTE_LONGEST = 2000
# where markdown, a formula, a colour or an icon would begin
_MARKS = re.compile(r"[\\`*_\[\]<>|~${}]|:(?=[A-Za-z])|&(?=[#A-Za-z])|\A[#+=-]|(?:(?<=\A\d)|(?<=\A\d\d))[.)]")
_JOINER = "\u2060"  # shows nothing; an address with it inside is no link
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)

STYLE = """<style>
h1,h2,h3,.sx{word-break:keep-all;overflow-wrap:anywhere}
.sx{line-height:1.55}
.sx h2{font-size:1.35rem;margin:.2rem 0 .35rem;padding:0;line-height:1.35}
.sx h3{font-size:1.05rem;margin:.1rem 0 .2rem;padding:0}
.sx p{margin:.15rem 0 .5rem}
.sx .lead{font-size:1.05rem}
.sx .soft{opacity:.82}
.sx dl.facts{display:grid;gap:.35rem 1.1rem;grid-template-columns:minmax(5.5rem,max-content) 1fr;
margin:.2rem 0 .4rem;padding:0}
.sx .facts dt{font-weight:700;white-space:nowrap;margin:0;padding:0}
.sx .facts dd{margin:0;padding:0;min-width:0}
.sx ul{margin:0;padding-left:1.1rem}
.sx li{margin:0}
.sx .steps{display:flex;flex-wrap:wrap;gap:.5rem;list-style:none;margin:.3rem 0;padding:0}
.sx .steps>li{flex:1 1 9rem;border:1px solid color-mix(in srgb,currentColor 25%,transparent);
border-radius:.6rem;padding:.5rem .7rem;min-width:0}
.sx .steps>li.now{border-width:2px;border-color:currentColor}
.sx .steps>li.todo{opacity:.72}
.sx .steps>li>b:first-child{display:block}
.sx .steps li ul{list-style:none;padding:0}
.sx .mark{font-weight:700;margin-right:.3rem}
.sx .big{font-variant-numeric:tabular-nums;font-weight:700;white-space:nowrap}
.sx .num{font-variant-numeric:tabular-nums;white-space:nowrap}
.sx .note{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid
color-mix(in srgb,currentColor 30%,transparent);padding:.1rem 0 .1rem .7rem;margin:.2rem 0 .5rem}
.sx ul.plain{list-style:none;margin:.1rem 0;padding:0}
.sx ul.plain>li{padding:.28rem 0}
.sx .facts ul.plain>li{padding:0}
.sx .facts ul.plain{padding:0}
.sx ul.lines>li{border-top:1px solid color-mix(in srgb,currentColor 15%,transparent);padding:.6rem 0}
.sx ul.lines>li:first-child{border-top:0}
.sx table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;overflow-wrap:normal}
.sx th,.sx td:first-child{min-width:4.5rem}
.sx th,.sx td{text-align:left;padding:.3rem .8rem .3rem 0;vertical-align:top;
border-bottom:1px solid color-mix(in srgb,currentColor 15%,transparent)}
.sx .scroll{overflow-x:auto}
.sx a{color:inherit}
.sx code{overflow-wrap:anywhere}
@media (max-width:640px){.sx dl.facts{grid-template-columns:1fr;gap:.1rem}.sx .facts dd{margin:0 0 .5rem}}
</style>"""

SHAPES = {
    Mark.CONFIRMED: "●",
    Mark.KEPT: "◐",
    Mark.ROLLED_BACK: "✕",
    Mark.WORSENED: "▼",
    Mark.INCONCLUSIVE: "○",
    Mark.SUPERSEDED: "◌",
    Mark.OPEN: "△",
    Mark.BACK: "↩",
    Mark.UNJUDGED: "–",
}


def safe(text: object, longest: int = NOTE_LONGEST) -> str:
    """`text` as typed, for HTML: no tag, no steering character, no link lives on; long ones are cut."""
    return escape(plain(str(text), longest))


def as_typed(text: object, longest: int = NOTE_LONGEST) -> str:
    """`text` as typed, for a title, label or message of Streamlit's, which are read as markdown."""
    apart = _ADDRESS.sub(_JOINER, plain(str(text), longest))
    return _MARKS.sub(lambda found: "\\" + found.group(), apart)


def cell(text: str) -> str:
    """`text` as typed for a table that Streamlit lets people save as CSV: no spreadsheet runs it."""
    shown = plain(text, NOTE_LONGEST)
    return _JOINER + shown if shown.lstrip().startswith(("=", "+", "-", "@")) else shown


def note(text: str) -> str:
    """A note as typed, its line breaks kept; '' for an empty one."""
    lines = text[:NOTE_LONGEST].replace("\r\n", "\n").split("\n")
    return f'<div class="note">{chr(10).join(safe(x) for x in lines)}</div>' if text.strip() else ""


def block(*parts: str) -> str:
    """Parts under the pages' own style."""
    return f'{STYLE}<div class="sx">{"".join(parts)}</div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of questions and answers; answers are HTML, empty ones are left out."""
    rows = "".join(f"<dt>{escape(q)}</dt><dd>{a}</dd>" for q, a in pairs if a)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def bullets(lines: Sequence[str]) -> str:
    """HTML lines: one as it is, several as a list."""
    if len(lines) <= 1:
        return "".join(lines)
    return f"<ul>{''.join(f'<li>{x}</li>' for x in lines)}</ul>"


def mark(m: Mark, say: Say, colours: Colours, word: str | None = None) -> str:
    """Colour, shape and word of an outcome; the colour is on the shape only, so that the word is readable."""
    ink = {
        Mark.CONFIRMED: colours.good,
        Mark.ROLLED_BACK: colours.bad,
        Mark.WORSENED: colours.bad,
        Mark.OPEN: colours.open,
    }.get(m, colours.unsure)
    shape = f'<span class="mark" aria-hidden="true" style="color:{ink}">{SHAPES[m]}</span>'
    return f"{shape}<b>{escape(word or say(f'mark.{m.value}'))}</b>"


def passed(ok: bool, say: Say, colours: Colours) -> str:
    """✓ passed or ✕ holds, as shape, colour and word."""
    ink, shape = (colours.good, "✓") if ok else (colours.bad, "✕")
    word = escape(say("sugg.pass" if ok else "sugg.fail"))
    return f'<span class="mark" aria-hidden="true" style="color:{ink}">{shape}</span><b>{word}</b>'


def steps(items: Sequence[tuple[str, str, str]]) -> str:
    """A stepper: (state, heading, text) a step; state is done, now or todo."""
    shape = {"done": "✓", "now": "▶", "todo": "·"}
    cells = "".join(
        f'<li class="{state}"{" aria-current=step" if state == "now" else ""}>'
        f'<b><span class="mark" aria-hidden="true">{shape[state]}</span>{escape(head)}</b>{text}</li>'
        for state, head, text in items
    )
    return f'<ol class="steps">{cells}</ol>'


def arrow(old: str, new: str) -> str:
    """'0.33 → 0.31', kept on one line."""
    return f'<span class="big">{escape(old)} → {escape(new)}</span>'


def hhmm(ms: int, zone: str) -> str:
    """'14:32:05' in the configured zone."""
    return clock_text(ms, zone, day=False)
