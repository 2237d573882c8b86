"""The HTML of the sign-in page: both languages, light and dark, narrow and wide. No script, no request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from html import escape
from typing import Any
from urllib.parse import quote

from selftune import catalogue
from selftune.domain import Problem, Role
from selftune.openid import SetUp
from selftune.view import Visitor
from selftune.wording import plain, render, sentence

COMMAND = "python -m selftune users add {name} --role operator"
BY_MAIL = " --no-password --login kim@example.org"
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
}


class Notice(StrEnum):
    """What the page has to say before anything else (`signin.notice_<value>`)."""

    WRONG = "wrong"
    WAIT = "wait"
    NOBODY = "nobody"
    BROKEN = "broken"
    AGAIN = "again"
    BUSY = "busy"  # too many are signing in at this moment
    OUT = "out"
    ENDED = "ended"
    PROVIDER = "provider"  # the provider's answer was none, or proves nobody
    UNKNOWN = "unknown"  # proven by the provider, but without an account here
    SETUP = "setup"  # the provider is not set up


QUIET = (Notice.OUT, Notice.ENDED)  # said, but not as an error

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--card:#f3f5f7;--text:#1b2026;--line:#8f9aa5;--main:#005f99;
--on:#fff;--bad:#9c2b00}
@media (prefers-color-scheme:dark){:root{--bg:#12161b;--card:#1b2129;--text:#e8ecf0;--line:#6f7d8b;
--main:#6cc1f2;--on:#0b1a24;--bad:#ffb59a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);min-height:100vh;display:grid;place-items:center;
font:16px/1.6 'Pretendard','Noto Sans KR','Noto Sans CJK KR','Malgun Gothic','Apple SD Gothic Neo',sans-serif;
word-break:keep-all;overflow-wrap:anywhere;padding:1rem}
main{width:100%;max-width:26rem;background:var(--card);border:1px solid var(--line);border-radius:.8rem;
padding:1.6rem 1.5rem}
h1{font-size:1.4rem;line-height:1.3;margin:0 0 .6rem}
p{margin:.4rem 0 .8rem}
label{display:block;font-weight:600;margin:.9rem 0 .25rem}
input{width:100%;font:inherit;color:inherit;background:var(--bg);border:1px solid var(--line);
border-radius:.5rem;padding:.6rem .7rem}
button,.go{display:block;width:100%;font:inherit;font-weight:700;text-align:center;text-decoration:none;
border:0;border-radius:.5rem;padding:.7rem;margin-top:1.2rem;background:var(--main);color:var(--on);cursor:pointer}
.second{background:transparent;color:inherit;border:1px solid var(--line)}
input:focus-visible,button:focus-visible,a:focus-visible{outline:3px solid var(--main);outline-offset:2px}
.notice{border:2px solid currentColor;border-radius:.5rem;padding:.5rem .8rem;margin:.4rem 0 1rem}
.bad{color:var(--bad)}
pre{background:var(--bg);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .7rem;margin:.4rem 0;
white-space:pre-wrap}
a{color:var(--main)}
nav{display:flex;gap:1rem;margin-top:1.4rem;padding-top:.9rem;border-top:1px solid var(--line)}
nav a[aria-current]{font-weight:700;color:inherit;text-decoration:none}
.more{font-size:.95rem}
"""


def page(
    lang: str, *, base: str, back: str, token: str, notice: Notice | None, name: str = "",
    wait_s: float = 0.0, problems: Sequence[Problem] = (), visitor: Visitor | None = None,
    may_look: bool = False, provider: SetUp | None = None, ask: Sequence[str] = (),
) -> str:  # fmt: skip
    """The whole page. `visitor`: who is signed in already; `may_look`: everybody may look without it."""
    say = _Say(lang)
    if visitor is not None:
        title, body = say("signin.title_in"), _signed_in(say, base, back, visitor)
    else:
        title = say("signin.title")
        if provider is not None and provider.provider is None and notice is not Notice.BROKEN:
            notice, problems = Notice.SETUP, provider.problems
        body = _first(say, mail=provider is not None)
        if notice is not Notice.NOBODY:
            body = (
                _form(say, base, back, token, name)
                if provider is None
                else _provider(say, base, back, provider)
            )
        if may_look and notice is not Notice.BROKEN:
            body += f'<p class="more"><a href="{escape(back)}">{say("signin.look")}</a></p>'
    said = _notice(say, notice, wait_s, problems, login=name, ask=ask)
    icon = f'<link rel="icon" type="image/png" href="{escape(base)}/sign-in/icon.png">'
    return _document(say, title, said + body + _languages(say, base, back), icon)


def closed(lang: str) -> str:
    """For somebody whom the server does not know, where nobody signs in here: no figure at all."""
    say = _Say(lang)
    body = f"<p>{say('signin.closed')}</p><p>{say('frame.closed_no_data')}</p>"
    return _document(say, say("frame.closed_title"), body)


class _Say:
    """The catalogue in one language; everything comes back escaped."""

    def __init__(self, lang: str) -> None:
        self.lang = lang

    def command(self, *, mail: bool) -> str:
        """The one command that makes the first account; `mail`: of somebody whom a provider recognises."""
        command = COMMAND.format(name="이름" if self.lang == "ko" else "NAME")
        return command + (BY_MAIL if mail else "")

    def __call__(self, key: str, **params: Any) -> str:
        return escape(render(key, params, self.lang, catalogue.load()))


def _form(say: _Say, base: str, back: str, token: str, name: str) -> str:
    focus = ("", " autofocus") if name else (" autofocus", "")
    return (
        f'<form method="post" action="{escape(base)}/sign-in">'
        f'<input type="hidden" name="token" value="{escape(token)}">'
        f'<input type="hidden" name="back" value="{escape(back)}">'
        f'<label for="name">{say("signin.name")}</label>'
        f'<input id="name" name="name" value="{escape(plain(name, 64))}" autocomplete="username" required '
        f'maxlength="200" autocapitalize="none" spellcheck="false"{focus[0]}>'
        f'<label for="password">{say("signin.password")}</label>'
        f'<input id="password" name="password" type="password" autocomplete="current-password" required '
        f'maxlength="200"{focus[1]}>'
        f"<button>{say('signin.enter')}</button></form>"
        f'<p class="more">{say("signin.forgotten")}</p>'
    )


def _provider(say: _Say, base: str, back: str, provider: SetUp) -> str:
    if provider.provider is None:
        return ""
    link = f"{base}/sign-in/start?back={quote(back, safe='/')}"
    return (
        f"<p>{say('signin.provider_what')}</p>"
        f'<a class="go" href="{escape(link)}">{say("signin.provider")}</a>'
        f'<p class="more">{say("signin.provider_help")}</p>'
    )


def _first(say: _Say, *, mail: bool) -> str:
    command = f"<pre><code>{escape(say.command(mail=mail))}</code></pre>"
    return f"<p>{say('signin.first')}</p>{command}<p>{say('signin.first_then')}</p>"


def _signed_in(say: _Say, base: str, back: str, visitor: Visitor) -> str:
    role = say(f"role.{Role(visitor.role).value}")
    return (
        f"<p><b>{escape(plain(visitor.name, 64))}</b> · {role}</p>"
        f'<a class="go" href="{escape(back)}">{say("signin.go_on")}</a>'
        f'<form method="post" action="{escape(base)}/sign-out">'
        f'<button class="second">{say("signin.leave")}</button></form>'
        f'<p class="more">{say("signin.leave_what")}</p>'
    )


def _notice(
    say: _Say, notice: Notice | None, wait_s: float, problems: Sequence[Problem], *, login: str = "",
    ask: Sequence[str] = (),
) -> str:  # fmt: skip
    if notice is None or notice is Notice.NOBODY:  # the page itself says so
        return ""
    text = say(f"signin.notice_{notice.value}", wait_s=wait_s, login=login, who=", ".join(ask) or None)
    if notice is Notice.SETUP and problems:
        text += " " + escape(sentence(problems[0], say.lang, catalogue.load()))
    if notice is Notice.BROKEN and problems:
        where = problems[0]
        text += " " + say("signin.broken_where", file=where.file, line=where.line)
    kind, role = ("notice", "status") if notice in QUIET else ("notice bad", "alert")
    return f'<p class="{kind}" role="{role}">{text}</p>'


def _languages(say: _Say, base: str, back: str) -> str:
    here = quote(f"{base}/sign-in?back={quote(back, safe='/')}", safe="/")
    links = [
        f'<a href="{escape(base)}/language/{code}?back={here}" lang="{code}"'
        f"{' aria-current=true' if code == say.lang else ''}>{name}</a>"
        for code, name in (("ko", "한국어"), ("en", "English"))
    ]
    return f'<nav aria-label="{say("side.language")}">{"".join(links)}</nav>'


def _document(say: _Say, title: str, body: str, head: str = "") -> str:
    return (
        f'<!doctype html><html lang="{say.lang}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="robots" content="noindex">{head}<title>{title}</title><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}</main></body></html>"
    )
