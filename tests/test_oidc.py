"""Sign-in by an OpenID provider: a real provider and a real dashboard, each a process of its own on loopback.

The client is an ordinary one with a cookie jar. Everything that a provider, a thief or a stranger may send is
tried; nobody comes in but who is proven, fresh, meant for us, and has an account.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from selftune.checkup import Level, checkup
from selftune.cli import main
from selftune.openid import FILE, SECRET_VARIABLE, Login, Provider, known_as, set_up
from tests.browser.conftest import data_root, free_port
from tests.conftest import CHECKOUT
from tests.pages.roots import change_settings
from tests.raw_socket import Raw

SECRET = "client-secret-5f1c"
CLIENT = "selftune-test"
US = Provider(
    server_metadata_url="https://id.example/x",
    client_id=CLIENT,
    redirect_uri="https://t.example/oauth2callback",
)
NOW = 1_800_000_000.0
CLAIMS = {"aud": CLIENT, "iat": NOW, "exp": NOW + 3600, "email": "kim@corp.example", "email_verified": True,
          "sub": "kim-1"}  # fmt: skip


# ----------------------------------------------------------------------------- what a token proves
@pytest.mark.parametrize(
    ("changed", "login"),
    [
        ({}, "kim@corp.example"),
        ({"aud": [CLIENT]}, "kim@corp.example"),
        ({"aud": "other"}, None),
        ({"aud": ["other", CLIENT]}, None),
        ({"aud": ["other"], "azp": CLIENT}, None),
        ({"aud": None}, None),
        ({"exp": NOW - 121}, None),
        ({"exp": "soon"}, None),
        ({"iat": NOW - 601}, None),
        ({"iat": NOW + 121}, None),
        ({"iat": None}, None),
        ({"iat": True}, None),
        ({"email_verified": False}, None),
        ({"email_verified": "true"}, None),
        ({"email_verified": None}, None),
        ({"email": ""}, None),
        ({"email": 7}, None),
        ({"email": "kim@corp.example\u202e"}, None),
        ({"email": "k" * 201}, None),
    ],
)
def test_what_a_checked_token_proves(changed: dict[str, Any], login: str | None) -> None:
    assert known_as({**CLAIMS, **changed}, US, NOW) == login


def test_a_subject_needs_no_mail() -> None:
    by_sub = Provider(
        server_metadata_url="https://i.example", client_id=CLIENT, redirect_uri="", login=Login.SUB
    )
    assert known_as({**CLAIMS, "email_verified": False}, by_sub, NOW) == "kim-1"


# ----------------------------------------------------------------------------- what is set up
GOOD = f'server_metadata_url = "https://id.example/x"\nclient_id = "{CLIENT}"\nredirect_uri = "https://t.example/oauth2callback"\n'


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (GOOD, []),
        (GOOD + 'login = "sub"\nclient_secret = "x"\n', []),
        (None, ["missing_file"]),
        ("client_id = ", ["oidc_toml"]),
        ("", ["missing_key"] * 3),
        (GOOD + 'cookie_secret = "x"\n', ["unknown_key"]),
        (GOOD + 'login = "name"\n', ["oidc_login"]),
        (GOOD + "client_secret = 7\n", ["oidc_text"]),
        (GOOD.replace("https://id", "http://id"), ["oidc_https"]),
        (GOOD.replace("https://t.example", "http://t.example"), ["oidc_https"]),
        (GOOD.replace("https://t.example", "http://127.0.0.1:8501"), []),
        (GOOD.replace("/oauth2callback", "/"), ["oidc_callback"]),
    ],
)
def test_the_file_is_read_strictly(text: str | None, codes: list[str], root: Path) -> None:
    if text is not None:
        (root / FILE).write_text(text, encoding="utf-8")
    found = set_up(root, {"SELFTUNE_OIDC_SECRET": SECRET})
    assert [p.code for p in found.problems] == codes and (found.provider is None) == bool(codes)
    assert SECRET not in repr(found) and SECRET not in str(found.problems)


def test_check_names_what_is_wrong_where_the_settings_ask_for_a_provider(root: Path) -> None:
    def found() -> list[tuple[str, Level]]:
        return [(f.item.code, f.level) for f in checkup(root).findings if f.file == FILE]

    assert found() == []
    change_settings(root, governance__identity="oidc")
    assert found() == [("missing_file", Level.FILE)] and checkup(root).exit_code == 3
    (root / FILE).write_text(GOOD, encoding="utf-8")
    (root / FILE).chmod(0o644)
    assert ("check.oidc_ok", Level.OK) in found()
    assert os.name != "posix" or ("check.users_open", Level.WARNING) in found()


def test_the_secret_may_stand_in_the_environment(root: Path) -> None:
    (root / FILE).write_text(GOOD, encoding="utf-8")
    provider = set_up(root, {"SELFTUNE_OIDC_SECRET": SECRET}).provider
    assert provider is not None and provider.auth()["client_secret"] == SECRET
    assert provider.auth()["cookie_secret"] != provider.auth()["cookie_secret"], "new at each start"


# ----------------------------------------------------------------------------- the processes
PEOPLE = (
    {"sub": "kim-1", "email": "kim@corp.example", "email_verified": True},
    {"sub": "lee-1", "email": "lee@corp.example", "email_verified": True},
    {"sub": "eve-1", "email": "kim@corp.example", "email_verified": False},
    {"sub": "who-1", "email": "<b>who</b>@corp.example", "email_verified": True},
    {"sub": "out-1", "email": "out@corp.example", "email_verified": True},
)


def until(answers: Callable[[], object]) -> None:
    for _ in range(600):
        try:
            answers()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("it does not answer")


@dataclass
class House:
    """A dashboard that knows people by a provider. `front`: what stands between it and the provider."""

    root: Path
    url: str
    log: Path
    front: Front


class Front(ThreadingHTTPServer):
    """The provider as the dashboard sees it: `change` may exchange what the token endpoint says."""

    daemon_threads = True

    def __init__(self, provider: str) -> None:
        super().__init__(("127.0.0.1", 0), _Front)
        self.provider = provider
        self.as_client: str | None = None  # asks for codes and tokens as this client instead
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Front(BaseHTTPRequestHandler):
    server: Front

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        front = self.server
        if front.broken:
            self.answer(500, b"{}")
        elif self.path == "/.well-known/openid-configuration":
            with urllib.request.urlopen(front.provider + self.path) as said:
                data = json.load(said)
            data |= {
                "token_endpoint": f"{front.url}/token",
                "authorization_endpoint": f"{front.url}/authorize",
            }
            self.answer(200, json.dumps(data).encode())
        elif self.path.startswith("/authorize?"):
            query = dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))
            if front.as_client:
                query["client_id"] = front.as_client
            self.send_response(302)
            self.send_header("Location", f"{front.provider}/oauth2/authorize?{urllib.parse.urlencode(query)}")
            self.end_headers()

    def do_POST(self) -> None:
        front = self.server
        sent = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        headers = {k: v for k, v in self.headers.items() if k.lower() in ("authorization", "content-type")}
        if front.as_client:
            sent |= {"client_id": front.as_client, "client_secret": "x"}
            headers.pop("Authorization", None)
            headers.pop("authorization", None)
        ask = urllib.request.Request(
            f"{front.provider}/oauth2/token", urllib.parse.urlencode(sent).encode(), headers
        )
        try:
            with urllib.request.urlopen(ask) as said:
                self.answer(said.status, said.read())
        except urllib.error.HTTPError as no:
            with no:
                self.answer(no.code, no.read())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def provider(folder: Path, *, max_age_s: int) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    argv = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "-p", str(port), "-e", str(max_age_s)]
    for person in PEOPLE:
        argv += ["--user-claims", json.dumps(person)]
    with (folder / f"provider{port}.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    until(lambda: urllib.request.urlopen(f"{url}/jwks", timeout=1).close())
    return process, url


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("oidc")
    root = data_root(folder / "root", 1)
    change_settings(root, governance__identity="oidc", governance__public_view=False)
    for name, role, login, more in (
        ("kim", "operator", "KIM@corp.example", []), ("ada", "admin", "ada@corp.example", []),
        ("out", "operator", "out@corp.example", ["disable"]),
    ):  # fmt: skip
        shell = ["--root", str(root), "users"]
        assert main([*shell, "add", name, "--role", role, "--no-password", "--login", login]) == 0
        if more:
            assert main([*shell, *more, name]) == 0
    first, address = provider(folder, max_age_s=3600)
    front = Front(address)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    (root / FILE).write_text(
        f'server_metadata_url = "{front.url}/.well-known/openid-configuration"\nclient_id = "{CLIENT}"\n'
        f'redirect_uri = "{url}/oauth2callback"\n',
        encoding="utf-8",
    )
    env = {**os.environ, "SELFTUNE_ROOT": str(root), SECRET_VARIABLE: SECRET, "PYTHONUTF8": "1"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)],
            cwd=CHECKOUT, env=env, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: urllib.request.urlopen(f"{url}/healthz", timeout=1).close())
        yield House(root=root, url=url, log=folder / "server.log", front=front)
    finally:
        for one in (process, first):
            one.terminate()
            one.wait(timeout=20)
        front.shutdown()
        front.server_close()


# ----------------------------------------------------------------------------- a client
@dataclass
class Person:
    """A browser without scripts: cookies, redirects, forms."""

    house: House
    jar: CookieJar = field(default_factory=CookieJar)

    def ask(self, url: str, form: dict[str, str] | None = None) -> tuple[int, str, str]:
        """(status, address at the end, body)."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        headers = {"Accept": "text/html", "Accept-Language": "en"}
        try:
            with opener.open(urllib.request.Request(url, data, headers)) as answer:
                return answer.status, answer.url, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.url, answer.read().decode("utf-8", "replace")

    def comes(self, sub: str, back: str = "/history?w=6h") -> tuple[int, str, str]:
        """The whole way through the provider as `sub`."""
        _, where, _ = self.ask(f"{self.house.url}/sign-in/start?back={urllib.parse.quote(back)}")
        assert "/oauth2/authorize?" in where, where
        return self.ask(where, {"sub": sub})

    @property
    def cookie(self) -> str:
        return "; ".join(f"{c.name}={c.value}" for c in self.jar)

    @property
    def names(self) -> set[str]:
        return {c.name for c in self.jar}


def records(house: House, kind: str) -> list[dict[str, Any]]:
    text = (house.root / "controls" / "approvals.jsonl").read_text(encoding="utf-8")
    return [g for g in map(json.loads, text.splitlines()) if g["kind"] == kind]


def seen_by(house: House, cookie: str) -> str:
    """What the server delivers over the websocket to this cookie; '' = it opens no socket."""
    with Raw(house.url, cookie=cookie) as raw:
        return raw.run("help").text


def turned_away(house: House, person: Person) -> bool:
    return "selftune_session" not in person.names and seen_by(house, person.cookie) == ""


# ----------------------------------------------------------------------------- in and out
def test_in_by_the_provider_with_the_role_of_the_account_and_out_again(house: House) -> None:
    kim = Person(house)
    status, where, body = kim.ask(f"{house.url}/history?w=6h")
    assert "/sign-in?back=/history%3Fw%3D6h" in where and "Sign in with your organisation" in body
    assert 'name="password"' not in body and kim.ask(f"{house.url}/sign-in", {"name": "kim"})[0] == 405
    before = len(records(house, "signin"))
    status, where, _ = kim.comes("kim-1")
    assert (status, where) == (200, f"{house.url}/history?w=6h"), "the link is kept"
    assert "kim" in seen_by(house, kim.cookie)
    assert kim.names >= {"selftune_session"} and not [n for n in kim.names if n.startswith("_streamlit_user")]
    (record,) = records(house, "signin")[before:]
    assert (record["by"], record["role"], record["how"]) == ("kim", "operator", "oidc")
    held = kim.cookie
    kim.ask(f"{house.url}/sign-out", {})
    assert seen_by(house, held) == "", "a copy of the cookie is worth nothing after sign-out"
    assert records(house, "signout")[-1]["by"] == "kim"


def test_a_new_sign_in_gets_a_new_session_and_ends_the_old_one(house: House) -> None:
    kim = Person(house)
    kim.comes("kim-1")
    first = kim.cookie
    kim.comes("kim-1")
    assert first != kim.cookie and seen_by(house, first) == "" and seen_by(house, kim.cookie)


def test_a_role_taken_away_counts_at_once(house: House) -> None:
    kim = Person(house)
    kim.comes("kim-1")
    assert seen_by(house, kim.cookie)
    try:
        main(["--root", str(house.root), "users", "disable", "kim"])
        assert seen_by(house, kim.cookie) == ""
    finally:
        main(["--root", str(house.root), "users", "enable", "kim"])


# ----------------------------------------------------------------------------- turned away
@pytest.mark.parametrize(
    ("sub", "said"),
    [
        ("lee-1", "lee@corp.example"),
        ("who-1", "&lt;b&gt;who&lt;/b&gt;@corp.example"),
        ("out-1", "out@corp.example"),
    ],
)
def test_who_has_no_account_is_told_whom_to_ask(sub: str, said: str, house: House) -> None:
    person, before = Person(house), len(records(house, "signin_failed"))
    status, _, body = person.comes(sub)
    assert status == 403 and said in body and "ask ada" in body
    assert turned_away(house, person)
    (record,) = records(house, "signin_failed")[before:]
    assert record["how"] == "oidc" and record["known"] is (sub == "out-1")


def test_a_mail_that_is_not_verified_is_nobody(house: House) -> None:
    eve = Person(house)
    status, _, body = eve.comes("eve-1")
    assert status == 403 and "not verified" in body and turned_away(house, eve)


def test_a_token_for_another_client_is_refused(house: House) -> None:
    """Signed by the right provider, right nonce, not expired: but given to another dashboard."""
    kim = Person(house)
    house.front.as_client = "another-client"
    try:
        status, _, _ = kim.comes("kim-1")
    finally:
        house.front.as_client = None
    assert status == 403 and turned_away(house, kim)


def test_an_expired_token_is_refused(house: House, tmp_path: Path) -> None:
    """The same provider, whose tokens are over before they are given."""
    process, url = provider(tmp_path, max_age_s=-600)
    kim, usual = Person(house), house.front.provider
    house.front.provider = url
    try:
        status, _, body = kim.comes("kim-1")
    finally:
        house.front.provider = usual
        process.terminate()
        process.wait(timeout=20)
    assert status == 403 and "not completed" in body and turned_away(house, kim)


def test_a_sign_in_that_was_refused_at_the_provider(house: House) -> None:
    kim = Person(house)
    _, where, _ = kim.ask(f"{house.url}/sign-in/start?back=/")
    status, _, body = kim.ask(where, {"action": "deny"})
    assert status == 403 and "cancelled" in body and turned_away(house, kim)


@pytest.mark.parametrize(
    "query", ["", "?code=x&state=y", "?error=access_denied&error_description=%0d%0aX:%20y"]
)
def test_an_answer_that_nobody_asked_for_opens_nothing(query: str, house: House) -> None:
    thief = Person(house)
    status, _, _ = thief.ask(f"{house.url}/oauth2callback{query}")
    assert status == 403 and turned_away(house, thief)


def test_a_provider_that_does_not_answer_is_said_in_words(house: House) -> None:
    house.front.broken = True
    try:
        status, _, body = Person(house).ask(f"{house.url}/sign-in/start?back=/")
    finally:
        house.front.broken = False
    assert status == 403 and "not completed" in body


def test_forged_cookies_are_nobody(house: House) -> None:
    from itsdangerous import URLSafeTimedSerializer

    user = json.dumps({**CLAIMS, "is_logged_in": True, "origin": house.url, "provider": "default"})
    for key in ("", "secret", SECRET, "0" * 64):
        forged = URLSafeTimedSerializer(key or "x", salt="_streamlit_user").dumps(user)
        for name in ("_streamlit_user", "selftune_session"):
            assert seen_by(house, f"{name}={forged}") == "", (key, name)


def test_nothing_secret_is_in_log_record_or_answer(house: House) -> None:
    kim = Person(house)
    kim.comes("kim-1")
    texts = [house.log.read_text(encoding="utf-8"), *(
        p.read_text(encoding="utf-8", errors="replace") for p in house.root.rglob("*") if p.is_file()
    )]  # fmt: skip
    held = [c.value or "" for c in kim.jar if c.name == "selftune_session"]
    for secret in (SECRET, *held):
        assert not [t for t in texts if secret and secret in t]
    assert not [t for t in texts if re.search(r"[?&]code=|eyJ[A-Za-z0-9_-]{16}", t)], "no code, no token"
    if Path("/proc/self/cmdline").exists():
        lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
        assert not [x for x in lines if SECRET.encode() in x]
