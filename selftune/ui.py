"""Streamlit glue: who looks, in which language and theme, the shared reader, and the shared widgets.

Pages ask here and stay thin. Nothing in here decides about rules, settings or approvals.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from html import escape
from pathlib import Path
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import streamlit as st
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.scriptrunner_utils.script_run_context import ThreadState, get_script_run_ctx

from selftune import catalogue, runtime, web
from selftune.chart_kit import ChartView, Columns, Layout, Look, Say, Theme
from selftune.desk import Desk, Now
from selftune.domain import Mode, Role
from selftune.markup import as_typed, cell
from selftune.pace import LONGEST_S
from selftune.view import BannerView, DataAge, LoopState, Visitor
from selftune.wording import plain

log = logging.getLogger("selftune.ui")

FAVICON = Path(__file__).parent / "static" / "favicon.png"
ZONE = "Asia/Seoul"  # until valid settings say otherwise
REFRESH_S = (0, 5, 15, 60)
BANNER_S = 2  # the banner is never older, whatever pace the reader chose for the rest
BANNER_LONGEST_S = 8  # also on a busy server: that the loop is dead shows within 15 s
FIGURES_S = 5
FIGURES_LONGEST_S = 15
BRIGHT = (
    ".stApp [data-testid=stBaseButton-primary]",
    ".stApp [data-testid=stBaseButton-primaryFormSubmit]",
    ".stApp [data-tag] *",
)
CODES = frozenset({"id"})  # columns that are compared, never shown


# ------------------------------------------------------------------------------- who looks
def current_identity() -> Visitor | None:
    """Who looks at this page, as this process's middleware wrote it; None in every other case.

    Without the middleware (a page or the frame run directly) there is no proof, so it is None.
    """
    try:
        return web.visitor_in(st.context.headers.to_dict())
    except Exception:  # outside a server there is no request to ask
        log.debug("no request to take an identity from", exc_info=True)
        return None


def require(*roles: Role) -> Visitor:
    """The visitor, if they may see this page; otherwise a closed page, and nothing after it runs.

    Without `roles` everybody whom the server knows may look.
    """
    visitor = current_identity()
    if visitor is None:
        closed_page()
        st.stop()
    if roles and visitor.role not in roles:
        say = words()
        st.title(say("frame.denied_title"))
        st.write(say("frame.denied_body", role=say(f"role.{roles[0].value}")))
        st.stop()
    return visitor


def closed_page() -> None:
    """What a visitor without identity sees: how to come in, and no figure at all."""
    say = words()
    st.title(say("frame.closed_title"))
    st.write(say("frame.closed_body"))
    st.code("python -m selftune up", language=None)
    st.write(say("frame.closed_no_data"))


# ------------------------------------------------------------------------------- language and look
def language() -> str:
    """'ko' or 'en': from the URL, then this session, the cookie, the browser, then Korean."""
    asked = st.query_params.get("lang")
    if asked in catalogue.LANGUAGES:
        st.session_state["language"] = asked
        return str(asked)
    try:
        cookie, browser = st.context.cookies.to_dict().get(web.LANGUAGE_COOKIE), st.context.locale
    except Exception:  # outside a server there is no request
        cookie = browser = None
    for said in (st.session_state.get("language"), cookie, (browser or "")[:2].lower()):
        if said in catalogue.LANGUAGES:
            return str(said)
    return "ko"


def words(now: Now | None = None) -> Say:
    """The catalogue in the reader's language; instants in the configured zone."""
    return _say(language(), now.settings.timezone if now and now.settings else ZONE)


@lru_cache(maxsize=16)
def _say(lang: str, zone: str) -> Say:
    return Say(lang, catalogue.load(), ZoneInfo(zone))


def look(now: Now) -> Look:
    """How charts are drawn for this reader: theme and language, and narrow on a phone."""
    agent = st.context.headers.get("User-Agent", "")
    return Look(
        layout=Layout.NARROW if "Mobi" in agent else Layout.WIDE,
        language=language(),
        theme=Theme.DARK if st.context.theme.type == "dark" else Theme.LIGHT,
        zone=now.settings.timezone if now.settings else ZONE,
    )


def ink() -> None:
    """Korean words stay whole at a line's end; dark words on the bright buttons of the dark theme; on a phone
    the first screen is for the title and what it says, not for the air around the banner.

    Streamlit breaks Hangul anywhere, and writes white on any colour.
    """
    text = ":is(.stApp,[role=dialog]) :is(h1,h2,h3,p,li,label,button)"
    rules = text + "{word-break:keep-all;overflow-wrap:anywhere}"
    rules += (
        "@media(max-width:640px){.stMainBlockContainer{padding-top:3.5rem}.st-key-banner{gap:.1rem .5rem}}"
    )
    if st.context.theme.type == "dark":
        rules += f"{','.join(BRIGHT)}{{color:#12161B}}"
    st.html(f"<style>{rules}</style>")


def language_links(say: Say) -> None:
    """Both languages as plain links: a cookie is set on the way, so that the next visit remembers."""
    base = "/" + st.get_option("server.baseUrlPath").strip("/")
    parts = urlsplit(st.context.url or "/")
    query = "&".join(p for p in parts.query.split("&") if p and not p.startswith("lang="))
    back = quote((parts.path or "/") + (f"?{query}" if query else ""), safe="/")
    links = [
        f'<a href="{base.rstrip("/")}/language/{code}?back={back}" target="_self" lang="{code}"'
        f"{' aria-current=true' if code == say.language else ''}"
        f' style="padding:.3rem .6rem;border-radius:.4rem;color:inherit;border:1px solid currentColor;'
        f'{"font-weight:700;" if code == say.language else "text-decoration:none;opacity:.85;"}">{name}</a>'
        for code, name in (("ko", "한국어"), ("en", "English"))
    ]
    st.html(f'<nav aria-label="{say("side.language")}" style="display:flex;gap:.5rem">{"".join(links)}</nav>')


# ------------------------------------------------------------------------------- reading
@st.cache_resource(show_spinner=False)
def desk(root: str) -> Desk:
    """The one reader of this process for `root`."""
    return Desk(Path(root))


def now() -> Now:
    """What is known about the data root at this moment."""
    return shared().now()


def reader() -> str:
    """A name of this session that says nothing about the person."""
    return str(st.session_state.setdefault("reader", secrets.token_hex(8)))


def shared() -> Desk:
    """The one reader of this process for the data root in use."""
    named = os.environ.get("SELFTUNE_ROOT", "")
    return desk(_real(named) if os.path.isabs(named) else str(runtime.data_root()))


@lru_cache(maxsize=16)
def _real(named: str) -> str:
    """The data root, its links followed once and not several times at each tick."""
    return str(runtime.data_root(named))


@lru_cache(maxsize=1)
def settle() -> None:
    """After the first page: what is loaded by now stays, so that no garbage collection looks at it again."""
    gc.freeze()


# ------------------------------------------------------------------------------- live parts
def live(
    draw: Callable[[], None], *, key: str, every_s: float | None = None, longest_s: float = LONGEST_S
) -> None:
    """Draws a part that renews itself; a fault stays inside it.

    `every_s`: its own pace (0: never); None = the pace that the reader chose. When the server is busy both
    are longer, up to `longest_s` (pace.py), and shorter again afterwards, also on pages that are open.
    """
    chosen = refresh_s() if every_s is None else every_s
    pace, who = shared().office.pace, reader()

    def part() -> None:
        moved = pace.drawn(who, key, chosen, longest_s)
        if moved is not None:
            _retime(moved)
        guarded(draw)()

    st.fragment(part, run_every=pace.every_s(who, key, chosen, longest_s) or None, key=key)()


def _retime(every_s: float) -> None:
    """Tells the browser a new pace for the live part that is being drawn.

    Streamlit says a part's pace only when the whole page runs; its browser side takes the message at any
    time, and puts the new pace in the place of the old one.
    """
    run, part = get_script_run_ctx(suppress_warning=True), ThreadState.get().fragment_id
    if run is None or part is None:
        return
    message = ForwardMsg()
    message.auto_rerun.interval = every_s
    message.auto_rerun.fragment_id = part
    run.enqueue(message)


def slower_s() -> float | None:
    """The pace of this reader's page, where the server is too busy for the one they chose. Units: seconds."""
    chosen = refresh_s()
    pace = shared().office.pace.paced_s(reader(), chosen)
    return pace if pace > chosen else None


def refresh_s() -> int:
    """The pace that this reader chose: from the URL, then this session. Units: seconds, 0 = never."""
    asked = st.query_params.get("r")
    if "refresh_s" not in st.session_state:
        codes = {str(s): s for s in REFRESH_S}
        st.session_state["refresh_s"] = codes.get(asked or "", REFRESH_S[1])
    return int(st.session_state["refresh_s"])


def refresh_control(say: Say, *, in_url: bool = False) -> None:
    """How often the parts of a page renew themselves."""
    refresh_s()

    def chosen() -> None:
        if in_url:
            st.query_params["r"] = str(st.session_state["refresh_s"])

    st.selectbox(
        say("side.refresh"), REFRESH_S, key="refresh_s", on_change=chosen,
        format_func=lambda s: say("side.every", n=s) if s else say("side.off"),
    )  # fmt: skip


def guarded(draw: Callable[[], None]) -> Callable[[], None]:
    """`draw`, where a fault of ours becomes words and an id instead of a traceback."""

    def safely() -> None:
        try:
            draw()
        except Exception:  # the one place where a page's fault is caught, told and logged
            fault()

    return safely


def fault() -> None:
    """Says that this part failed, since when, what still works, and an id to quote; logs the rest."""
    ident = secrets.token_hex(4)
    log.exception("page fault %s", ident)
    say = words()
    with st.container(border=True):
        st.subheader(say("frame.fault_title"))
        st.write(say("frame.fault_body", when=datetime.now(ZoneInfo(ZONE)).strftime("%H:%M:%S")))
        st.write(say("frame.fault_id"))
        st.code(ident, language=None)


# ------------------------------------------------------------------------------- banner
_LOOP_FACE = {
    LoopState.ALIVE: ("green", ":material/favorite:"),
    LoopState.LATE: ("orange", ":material/hourglass_top:"),
    LoopState.STOPPED: ("red", ":material/heart_broken:"),
    LoopState.NONE: ("gray", ":material/power_settings_new:"),
}
_DATA_FACE = {
    DataAge.FRESH: ("green", ":material/sensors:"),
    DataAge.OLD: ("red", ":material/sensors_off:"),
    DataAge.NONE: ("gray", ":material/sensors_off:"),
}


def banner(
    view: BannerView, say: Say, *, switch: Callable[[], None] | None = None, slower_s: float | None = None
) -> None:
    """[loop and its age][practice or live][age of the data][Stop tuning] as it stands on every page.

    `switch` draws what stops or resumes (or says whom to ask) at the end of the row. `slower_s`: how often
    the page renews, where that is not as chosen.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="banner"):
        if view.demo:
            st.badge(say("banner.demo"), icon=":material/science:", color="violet")
        loop = "holding" if view.holding and view.loop is LoopState.ALIVE else view.loop.value
        colour, icon = _LOOP_FACE[view.loop]
        st.badge(say(f"banner.loop_{loop}", age=_whole(view.loop_age_s)), icon=icon, color=colour)  # type: ignore[arg-type]
        live_mode = view.mode is Mode.LIVE
        st.badge(
            say(f"banner.mode_{view.mode.value}"),
            icon=":material/bolt:" if live_mode else ":material/school:",
            color="orange" if live_mode else "blue",
        )
        if live_mode and view.loan is not None:
            left, until = view.loan.changes_left, view.loan.until_ms
            said = say("banner.loan" if left is not None else "banner.loan_open", left=left, until_ms=until)
            st.badge(said, icon=":material/hourglass_bottom:", color="orange")
        colour, icon = _DATA_FACE[view.data]
        st.badge(say(f"banner.data_{view.data.value}", age=_whole(view.data_age_s)), icon=icon, color=colour)  # type: ignore[arg-type]
        if slower_s is not None:
            st.badge(say("banner.slower", every_s=_whole(slower_s)), icon=":material/speed:", color="gray")
        if switch is not None:
            switch()
    notices(view, say)
    tell_end(view, say)


def tell_end(view: BannerView, say: Say) -> None:
    """A loan that ended while this page was open pops up once; the notice above stays."""
    ended = view.loan.ended_ms if view.loan is not None else None
    known = st.session_state.get("loan_end_known", ended)
    st.session_state["loan_end_known"] = ended
    if ended is not None and ended != known and view.loan is not None and view.loan.why is not None:
        st.toast(as_typed(say("banner.loan_toast", why=say.why(view.loan.why))), icon=":material/school:")


def notices(view: BannerView, say: Say) -> None:
    """What every page must say: a Stop that holds, a broken chain, settings or disk that cannot be read."""
    lines = []
    if view.stopped:
        text = say("banner.stopped_by", who=view.stopped.by, at_ms=view.stopped.at_ms)
        why = say("banner.stopped_why", why=plain(view.stopped.reason, 300)) if view.stopped.reason else ""
        lines.append(("■", f"{text} {why}".strip()))
    if view.loan is not None and view.loan.ended_ms is not None and view.loan.why is not None:
        lines.append(("◀", f"{say('banner.loan_ended', at_ms=view.loan.ended_ms)} {say.why(view.loan.why)}"))
    if view.chain_broken:
        lines.append(("✕", say("banner.chain_broken")))
    if view.settings_broken:
        lines.append(("▲", say("banner.settings_broken")))
    if view.fault:
        lines.append(("!", say("banner.fault", error=plain(view.fault, 300))))
    if lines:
        rows = "".join(
            f'<p style="margin:.1rem 0"><b aria-hidden="true">{m}</b> {escape(t)}</p>' for m, t in lines
        )
        st.html(
            '<div role="status" style="border:2px solid;border-radius:.5rem;padding:.5rem .8rem">'
            f"{rows}</div>"
        )


def _whole(age_s: float | None) -> float:
    return 0.0 if age_s is None else float(max(0, round(age_s)))


def settings_problems(picture: Now, say: Say) -> None:
    """What is wrong in the settings, where, and how to mend it; nothing when they are valid."""
    if not picture.problems:
        return
    with st.container(border=True):
        st.markdown(f"**:material/error: {say('frame.settings_bad_title')}**")
        st.write(say("frame.settings_bad_last" if picture.settings else "frame.settings_bad_first"))
        for problem in picture.problems:
            st.text(f"• {say.why(problem)}")
        st.write(say("frame.settings_check"))
        st.code("python -m selftune check", language=None)


# ------------------------------------------------------------------------------- charts
def chart(view: ChartView, say: Say, *, key: str, sentence: bool = True, table: bool = True) -> list[str]:
    """Draws a chart in place, its sentence under it and its table; returns the picked event ids."""
    if view.empty:
        st.write(say("chart.nothing"))
        return []
    data = view.packed or {name: wire(c) for name, c in view.datasets.items()}
    spec = {**view.spec, "datasets": data}
    picked: list[str] = []
    with st.container(key=f"{key}_box", gap="xsmall"):
        if view.selections:
            state = st.vega_lite_chart(
                spec, width="stretch", theme=None, key=key, alt=view.alt,
                on_select="rerun", selection_mode=list(view.selections),
            )  # fmt: skip
            rows = state.get("selection", {}).get(view.selections[0], [])
            picked = [str(r["id"]) for r in rows if isinstance(r, dict) and "id" in r]
        else:
            st.vega_lite_chart(spec, width="stretch", theme=None, key=key, alt=view.alt)
        if sentence:
            st.write(view.sentence)
        if table:
            with st.expander(say("chart.as_table"), icon=":material/table_rows:", key=f"{key}_table"):
                rows = listing(view.table) if view.listing is None else view.listing
                st.dataframe(rows, width="stretch", height=240, hide_index=True)
    return picked


def prepared(now_: Now, key: Hashable, make: Callable[[], ChartView], *, table: bool = True) -> ChartView:
    """The chart `make()` of this look at the files, prepared once for all sessions that draw it alike.

    `key` names the chart and everything in it that is neither in the look nor in how it is drawn; `table`:
    whether its table is shown as well.
    """

    def packed() -> ChartView:
        view = make()
        packed = {name: wire(c) for name, c in view.datasets.items()}
        return replace(view, packed=packed, listing=listing(view.table) if table else None)

    return shared().kept(("drawn", key, now_.glance.slot, look(now_)), packed)


def arrow(columns: Columns) -> pa.Table:
    """Columns as an Arrow table; text stays text even when there is no row."""
    return pa.table({name: _column(name, values) for name, values in columns.items()})


def wire(columns: Columns) -> bytes:
    """Columns as they go to the browser: an Arrow stream, which Streamlit passes on as it is."""
    table, out = arrow(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return bytes(out.getvalue())


def listing(table: Columns) -> pa.Table | dict[str, Sequence[object]]:
    """A chart's table, ready for all who open it; as plain columns where one holds more than one kind."""
    typed = _typed(table)
    try:
        return pa.table({name: pa.array(values, from_pandas=True) for name, values in typed.items()})
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return typed


def _typed(table: Columns) -> dict[str, Sequence[object]]:
    """A table whose texts show as typed, steering characters included."""
    return {cell(h): [cell(x) if isinstance(x, str) else x for x in column] for h, column in table.items()}


def _column(name: str, values: object) -> pa.Array:
    if isinstance(values, np.ndarray):
        return pa.array(values, from_pandas=True)
    if values and name not in CODES:
        values = [plain(x) if isinstance(x, str) else x for x in values]  # type: ignore[attr-defined]
    return pa.array(list(values), from_pandas=True) if values else pa.array([], pa.string())  # type: ignore[call-overload]
