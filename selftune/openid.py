"""An OpenID provider as this house knows it: how it is set up, and whom its checked tokens prove.

Answers "is `configs/oidc.toml` whole?" and "which name do these claims stand for?". Speaks no protocol and
opens no session: oidc.py does.
"""

from __future__ import annotations

import secrets as randomness
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selftune.address import is_loopback
from selftune.domain import Problem
from selftune.files import is_there, read_small
from selftune.settings_fields import nearest

FILE = "configs/oidc.toml"  # under the data root; 0600, never committed
SECRET_VARIABLE = "SELFTUNE_OIDC_SECRET"
CALLBACK = "/oauth2callback"
BYTES = 16 * 1024
FRESH_S = 600.0  # a token older than this was not made for this sign-in
SKEW_S = 120.0  # the provider's clock and ours
LONGEST = 200  # letters of a name
_KEYS = ("server_metadata_url", "client_id", "client_secret", "redirect_uri", "login")
_NEEDED = ("server_metadata_url", "client_id", "redirect_uri")


class Login(StrEnum):
    """Which claim names the person in `users.yaml`."""

    EMAIL = "email"  # only where the provider says that it is verified
    SUB = "sub"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An OpenID provider as this house knows it."""

    server_metadata_url: str
    client_id: str
    redirect_uri: str
    login: Login = Login.EMAIL
    client_secret: str = field(default="", repr=False)

    def auth(self) -> dict[str, Any]:
        """`[auth]` of Streamlit's secrets. The key is new at each start: only sign-ins under way use it."""
        return {
            "redirect_uri": self.redirect_uri,
            "cookie_secret": randomness.token_hex(32),
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "server_metadata_url": self.server_metadata_url,
        }


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """The provider, or what is wrong with the file that names it."""

    provider: Provider | None = None
    problems: tuple[Problem, ...] = ()


# ----------------------------------------------------------------------------- what is set up
def set_up(root: Path, environ: Mapping[str, str]) -> SetUp:
    """The provider of `configs/oidc.toml`; the secret may stand in the environment instead. Never raises."""
    raw = read_small(root / FILE, BYTES)
    if raw is None:
        return _bad("unreadable_file" if is_there(root / FILE) else "missing_file")
    if find_spec("authlib") is None or find_spec("httpx") is None:
        return _bad("oidc_library")
    try:
        said = tomllib.loads(raw.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return _bad("oidc_toml", detail=str(error)[:100])
    said.setdefault("client_secret", environ.get(SECRET_VARIABLE, ""))
    problems = tuple(_problems(said))
    return SetUp(problems=problems) if problems else SetUp(provider=_provider(said))


def _provider(said: Mapping[str, Any]) -> Provider:
    return Provider(**{**said, "login": Login(said.get("login", Login.EMAIL))})


def _bad(code: str, key: str | None = None, **params: Any) -> SetUp:
    return SetUp(problems=(Problem(code=code, file=FILE, key=key, params=params),))


def _problems(said: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong in the file, with the mend; no value of it is repeated: one may be the secret."""
    found = []

    def fail(code: str, key: str, **params: Any) -> None:
        found.append(Problem(code=code, file=FILE, key=key, params=params))

    for key in said:
        if key not in _KEYS:
            fail("unknown_key", key, found=key, nearest=nearest(key, _KEYS))
    for key in _NEEDED:
        if not isinstance(said.get(key), str) or not said[key].strip():
            fail("missing_key", key)
    if not isinstance(said.get("client_secret"), str):
        fail("oidc_text", "client_secret")
    if said.get("login", Login.EMAIL) not in set(Login):
        fail("oidc_login", "login", choices=", ".join(Login))
    for key in ("server_metadata_url", "redirect_uri"):
        if isinstance(said.get(key), str) and said[key].strip() and not _safe(said[key]):
            fail("oidc_https", key)
    back = said.get("redirect_uri")
    if isinstance(back, str) and back.strip() and not urlsplit(back).path.endswith(CALLBACK):
        fail("oidc_callback", "redirect_uri", path=CALLBACK)
    return found


def _safe(url: str) -> bool:
    """True for an https address, and for http on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    here = parts.scheme == "http" and is_loopback(parts.hostname)
    return bool(parts.hostname) and (parts.scheme == "https" or here)


# ----------------------------------------------------------------------------- whom a token proves
def known_as(claims: Mapping[str, Any], provider: Provider, now_s: float | None = None) -> str | None:
    """The name that these claims of a checked token prove; None where they prove none.

    On top of what Authlib checked: the token is for us, fresh, not expired, and an e-mail is verified.
    """
    now_s = time.time() if now_s is None else now_s
    audience = claims.get("aud")
    ours = audience == provider.client_id or (
        isinstance(audience, list) and provider.client_id in audience and len(audience) == 1
    )
    issued, expires = _number(claims.get("iat")), _number(claims.get("exp"))
    if not ours or issued is None or expires is None:
        return None
    if not now_s - FRESH_S <= issued <= now_s + SKEW_S or expires + SKEW_S < now_s:
        return None
    if provider.login is Login.EMAIL and claims.get("email_verified") is not True:
        return None
    name = claims.get(provider.login.value)
    whole = isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= LONGEST
    return str(name) if whole else None


def _number(x: object) -> float | None:
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) else None
