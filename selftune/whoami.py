"""Who looks, in the sidebar: name and role, the way in and out, the demo's roles; and a session's end, said.

Nothing in here decides who anybody is: doors.py does, at every ask.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import streamlit as st

from selftune import sign_in, ui, web
from selftune.chart_kit import Say
from selftune.domain import Role
from selftune.doors import Door, LocalDoor
from selftune.markup import as_typed, block, safe
from selftune.sessions import WARN_S
from selftune.sign_in_page import BY_MAIL, COMMAND
from selftune.view import Visitor, Way

_LINK = (
    "display:inline-block;padding:.3rem .6rem;border-radius:.4rem;border:1px solid currentColor;"
    "color:inherit;background:transparent;font:inherit;text-decoration:none;cursor:pointer"
)
_CHOSEN = ';font-weight:700;border-width:2px" aria-current="true'
# Asks whether the page still is somebody's, and goes to the sign-in page when it is not. Asking keeps nobody
# signed in. One timer a page, whatever Streamlit draws again.
_SCRIPT = """<script>
if(!window.selftuneSession){window.selftuneSession=setInterval(async()=>{try{
const r=await fetch("%(base)s/session",{cache:"no-store"});if(!r.ok)return;
if(!(await r.json()).signed_in){clearInterval(window.selftuneSession);
location.assign("%(base)s/sign-in?why=ended&back="+encodeURIComponent(location.pathname+location.search))}
}catch(e){}},3000)}
</script>"""


def card(visitor: Visitor, say: Say) -> None:
    """Name and role, and what one can do about it."""
    guest = visitor.role is Role.VIEWER
    you = say("side.guest") if guest else say(f"role.{visitor.role}")  # without an account there is no name
    door = _door()
    with st.container(key="whoami", gap="xsmall"):
        if visitor.way is Way.ACCOUNT:
            st.html(block(_named(visitor, say) + _sign_out(say)))
            st.html(_SCRIPT % {"base": base()}, unsafe_allow_javascript=True)
        elif visitor.signed_in:
            st.html(block(_named(visitor, say)))
        else:
            st.markdown(f":material/person: {as_typed(you)}")
            _unnamed(visitor, door, say)


def _named(visitor: Visitor, say: Say) -> str:
    return f"<p><b>{safe(visitor.name)}</b> · {safe(say(f'role.{visitor.role}'))}</p>"


def _sign_out(say: Say) -> str:
    button = f'<button style="{_LINK}">{safe(say("side.sign_out"))}</button>'
    return f'<form method="post" action="{safe(base())}/sign-out">{button}</form>'


def _unnamed(visitor: Visitor, door: Door | None, say: Say) -> None:
    """For somebody without an account: the way in, the demo's roles, or how the first account is made."""
    if visitor.way is Way.DEMO:
        st.html(block(_roles(visitor, say)))
    if not isinstance(door, LocalDoor):
        return
    if not door.desk.book.look().none_yet:
        link = f"{base()}/sign-in?back={quote(here(), safe='/')}"
        st.html(f'<a href="{safe(link)}" target="_self" style="{_LINK}">{safe(say("side.sign_in"))}</a>')
    elif visitor.way is not Way.DEMO:
        st.write(say("side.role_of_up" if visitor.role is not Role.VIEWER else "side.no_accounts"))
        name = "이름" if say.language == "ko" else "NAME"
        command = COMMAND.format(name=name) + (BY_MAIL if door.provider is not None else "")
        st.code(command, language=None, wrap_lines=True)


def _roles(visitor: Visitor, say: Say) -> str:
    """The demo's role switcher: plain links, marked as the demo's."""
    back = quote(here(), safe="")
    links = " ".join(
        f'<a href="{base()}/demo-role/{role.value}?back={back}" target="_self" style="{_LINK}'
        f'{_CHOSEN if role is visitor.role else ""}">{safe(say(f"role.{role}"))}</a>'
        for role in Role
    )
    return (
        f'<nav aria-label="{safe(say("side.demo_role"))}"><p>{safe(say("side.demo_role"))}</p>'
        f'<div style="display:flex;flex-wrap:wrap;gap:.4rem">{links}</div></nav>'
    )


def ending(say: Say) -> None:
    """Two minutes before the end: until when, and what to do about it. Pressing anything is an act."""
    visitor, door = ui.current_identity(), _door()
    left = sign_in.left_s(door, visitor) if visitor is not None and door is not None else None
    if left is None or left[0] > WARN_S:
        return
    key = "banner.session_final" if left[1] else "banner.session_ends"
    with st.container(horizontal=True, vertical_alignment="center", key="session_ending"):
        st.html(block(f'<p role="status">⏳ {safe(say(key, left_s=max(0.0, round(left[0]))))}</p>'))
        if not left[1] and st.button(say("banner.session_stay"), key="session_stay"):
            st.rerun(scope="fragment")


def _door() -> Door | None:
    try:
        return web.door_in(st.context.headers.to_dict())
    except Exception:  # outside a server there is no request to ask
        return None


def base() -> str:
    """The path below which the dashboard is served; '' at the root."""
    path = st.get_option("server.baseUrlPath").strip("/")
    return f"/{path}" if path else ""


def here() -> str:
    """Path and query of the page that is open."""
    parts = urlsplit(st.context.url or "/")
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
