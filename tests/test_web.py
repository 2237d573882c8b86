"""The ASGI layer: who may ask, who is believed, what every answer carries. No server, no Streamlit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from selftune import web
from selftune.domain import Role
from selftune.view import Visitor

HERE = "127.0.0.1"


def run(work: Coroutine[Any, Any, None]) -> None:
    """In a thread of its own: a browser test before this one may have left a loop running here."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


async def _echo(request: Request) -> JSONResponse:
    """The headers as a page would see them, and whom it would believe in."""
    visitor = web.visitor_in(dict(request.headers))
    said = {"role": visitor.role if visitor else None, "name": visitor.name if visitor else None}
    return JSONResponse({**said, "seen": sorted(request.headers)})


async def _socket(socket: WebSocket) -> None:
    visitor = web.visitor_in(dict(socket.headers))
    await socket.accept()
    await socket.send_text(visitor.role if visitor else "nobody")
    await socket.close()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back. `text`: the body, or a websocket's first message; `status` 0: refused socket."""

    status: int
    headers: Headers
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True, kw_only=True)
class Client:
    """Speaks ASGI to the real stack as uvicorn would: a peer address, a Host, raw headers."""

    app: ASGIApp
    peer: str = HERE

    def get(self, target: str, **headers: str) -> Answer:
        return self.ask("http", "GET", target, headers)

    def post(self, target: str, body: bytes = b"", **headers: str) -> Answer:
        return self.ask("http", "POST", target, headers, body)

    def socket(self, headers: Mapping[str, str]) -> Answer:
        return self.ask("websocket", "", "/ws", headers)

    def ask(
        self, kind: str, method: str, target: str, headers: Mapping[str, str], sent_body: bytes = b""
    ) -> Answer:
        path, _, query = target.partition("?")
        said = {"host": f"{HERE}:8501", **headers}
        scope = {
            "type": kind, "method": method, "scheme": "http" if kind == "http" else "ws", "path": path,
            "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "http_version": "1.1",
            "headers": [(k.lower().encode(), v.encode()) for k, v in said.items()],
            "client": (self.peer, 50000), "server": (HERE, 8501), "subprotocols": [],
            "asgi": {"version": "3.0"},
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request" if kind == "http" else "websocket.connect", "body": sent_body}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        run(self.app(scope, receive, send))  # type: ignore[arg-type]
        first = sent[0]
        body = b"".join(m.get("body", b"") for m in sent).decode()
        text = body or next((m["text"] for m in sent if m.get("text")), "")
        return Answer(status=first.get("status", 0), headers=Headers(raw=first.get("headers", [])), text=text)


def client(
    root: Path, *, door: web.Door | None = None, peer: str = HERE, hosts: tuple[str, ...] = (),
    peers: tuple[str, ...] = (), base: str = "",
) -> Client:  # fmt: skip
    """The real stack before a page that says whom it sees."""
    known = frozenset(hosts)
    door = door or web.OpenDoor(role=Role.OPERATOR, address=HERE)
    app = Starlette(
        routes=[
            *web.routes(root, door, base), Route(f"{base}/echo", _echo, methods=["GET", "POST"]),
            WebSocketRoute("/ws", _socket),
        ],
        middleware=web.middleware(door, lambda: known, peers=peers, base=base),
    )  # fmt: skip
    return Client(app=app, peer=peer)


def door(root: Path, environ: Mapping[str, str]) -> web.Door:
    """The door that the settings of `root` ask for; what is put on record is forgotten."""
    return web.door(environ, address=HERE, root=root, note=lambda record: None)


def test_health_needs_no_sign_in(root: Path) -> None:
    nobody = web.OpenDoor(address="0.0.0.0", public_view=False)
    assert client(root, door=nobody).get("/healthz").json() == {"status": "ok"}


def test_ready_only_with_a_data_root(root: Path, tmp_path: Path) -> None:
    assert client(root).get("/readyz").status == 200
    assert client(tmp_path / "gone").get("/readyz").status == 503


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "user@127.0.0.1", "", "127.0.0.1:port"]
)
def test_foreign_host_is_refused(root: Path, host: str) -> None:
    assert client(root).get("/echo", host=host).status == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8501", "localhost", "[::1]:9", "Tuning.Example.org", "tuning.example.org."]
)
def test_known_hosts_are_welcome(root: Path, host: str) -> None:
    answer = client(root, hosts=("tuning.example.org",)).get("/echo", host=host)
    assert answer.status == 200


def test_foreign_origin_is_refused(root: Path) -> None:
    c = client(root)
    assert c.post("/echo", origin="http://evil.example").status == 403
    assert c.post("/echo", origin="null").status == 403
    assert c.post("/echo", origin="http://127.0.0.1:9999").status == 403
    assert c.post("/echo", origin="http://[").status == 403
    assert c.post("/echo", origin="http://127.0.0.1:8501").status == 200


@pytest.mark.parametrize(
    ("headers", "welcome"),
    [
        ({"origin": "http://127.0.0.1:8501"}, True),
        ({}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://127.0.0.1:8501", "host": "evil.example"}, False),
        ({"origin": "http://evil.example", "host": "evil.example"}, False),
    ],
)
def test_websocket_needs_our_origin_and_host(root: Path, headers: dict[str, str], welcome: bool) -> None:
    answer = client(root).socket(headers)
    assert answer.text == ("operator" if welcome else "")


OWN, EVIL = "http://127.0.0.1:8501", "http://evil.example"
# Host × Origin × X-Forwarded-For -> what a page's GET, a form's POST and a websocket get: the role that the
# server knows them by, or "" where they are turned away
HEADERS: tuple[tuple[str, str | None, str | None, tuple[str, str, str]], ...] = (
    ("127.0.0.1:8501", None, None, ("operator", "operator", "")),
    ("127.0.0.1:8501", OWN, None, ("operator", "operator", "operator")),
    ("127.0.0.1:8501", EVIL, None, ("", "", "")),
    ("127.0.0.1:8501", None, "127.0.0.1", ("viewer", "viewer", "")),
    ("127.0.0.1:8501", OWN, "127.0.0.1", ("viewer", "viewer", "viewer")),
    ("127.0.0.1:8501", EVIL, "127.0.0.1", ("", "", "")),
    ("evil.example", None, None, ("", "", "")),
    ("evil.example", OWN, None, ("", "", "")),
    ("evil.example", EVIL, None, ("", "", "")),
    ("evil.example", None, "127.0.0.1", ("", "", "")),
    ("evil.example", OWN, "127.0.0.1", ("", "", "")),
    ("evil.example", EVIL, "127.0.0.1", ("", "", "")),
)


@pytest.mark.parametrize(("host", "origin", "forwarded", "expected"), HEADERS)
def test_the_twelve_header_combinations(
    host: str, origin: str | None, forwarded: str | None, expected: tuple[str, str, str], root: Path
) -> None:
    said = {"host": host, "origin": origin, "x-forwarded-for": forwarded}
    headers = {k: v for k, v in said.items() if v is not None}
    c = client(root)
    got = []
    for method in ("GET", "POST"):
        answer = c.ask("http", method, "/echo", headers)
        assert answer.status in (200, 403)
        got.append(answer.json()["role"] if answer.status == 200 else "")
    got.append(c.socket(headers).text)
    assert tuple(got) == expected


def test_two_origins_or_two_hosts_are_none(root: Path) -> None:
    stack = web.HostGuard(_echo_app, lambda: frozenset())
    for name, values in (("origin", (OWN, EVIL)), ("host", ("127.0.0.1:8501", "evil.example"))):
        headers = [(b"host", b"127.0.0.1:8501")] if name != "host" else []
        headers += [(name.encode(), v.encode()) for v in values]
        seen: list[str] = []

        async def send(message: Any, seen: list[str] = seen) -> None:
            seen.append(str(message.get("status", message["type"])))

        run(stack({"type": "http", "headers": headers, "method": "GET", "path": "/"}, _nothing, send))
        assert seen[0] == "403", name


async def _echo_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _nothing() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_no_file_is_taken_from_anybody(method: str, root: Path) -> None:
    for path in ("/_stcore/upload_file/s/f", "/tuning/_stcore/upload_file/s/f"):
        assert client(root).ask("http", method, path, {}).status == 403


# ------------------------------------------------------------------------------- identity
def role_seen(c: Client, **headers: str) -> str | None:
    answer = c.get("/echo", **headers)
    if answer.status == 401:
        return None
    role = answer.json()["role"]
    return None if role is None else str(role)


def test_role_of_up_counts_at_this_machine_only(root: Path) -> None:
    operator = web.OpenDoor(role=Role.OPERATOR, address=HERE)
    assert role_seen(client(root, door=operator)) == "operator"
    assert role_seen(client(root, door=operator, peer="10.0.0.7")) == "viewer"
    for header in ("x-forwarded-for", "forwarded", "x-real-ip", "via"):
        assert role_seen(client(root, door=operator), **{header: "10.0.0.7"}) == "viewer", header
    named = client(root, door=operator, hosts=("tuning.example.org",))
    assert role_seen(named, host="tuning.example.org") == "viewer"
    # a proxy on this machine that says nothing of itself and asks for us by our own address
    behind = {"origin": "https://tuning.example.org"}
    assert role_seen(named, **behind) == named.socket(behind).text == "viewer"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.5", "", None])
def test_bound_beyond_loopback_nobody_is_anybody(root: Path, address: str | None) -> None:
    assert role_seen(client(root, door=web.OpenDoor(role=Role.ADMIN, address=address))) is None
    shown = web.OpenDoor(role=Role.ADMIN, address=address, public_view=True)
    assert role_seen(client(root, door=shown)) == "viewer"


def test_public_view_can_be_closed_to_proxied_visitors(root: Path) -> None:
    closed = web.OpenDoor(role=Role.OPERATOR, address=HERE, public_view=False)
    assert role_seen(client(root, door=closed, peer="10.0.0.7")) is None


def test_headers_of_the_client_are_removed(root: Path) -> None:
    nobody = web.OpenDoor(address="0.0.0.0")
    forged = {
        web.USER_HEADER: "eve",
        web.ROLE_HEADER: "admin",
        web.PROOF_HEADER: "0" * 64,
        "X_Selftune_Role": "admin",
    }
    assert client(root, door=nobody).get("/echo", **forged).status == 401
    shown = web.OpenDoor(address="0.0.0.0", public_view=True)
    answer = client(root, door=shown).get("/echo", **forged).json()
    assert (answer["role"], answer["name"]) == ("viewer", "viewer")


def test_without_the_middleware_nobody_is_believed() -> None:
    assert web.visitor_in({}) is None
    assert web.visitor_in({web.USER_HEADER: "eve", web.ROLE_HEADER: "admin"}) is None
    assert web.visitor_in({web.USER_HEADER: "eve", web.ROLE_HEADER: "admin", web.PROOF_HEADER: ""}) is None


def test_an_unknown_role_opens_as_a_viewer(root: Path) -> None:
    for asked, role in ((None, "viewer"), ("root", "viewer"), ("operator", "operator")):
        environ = {} if asked is None else {"SELFTUNE_ROLE": asked}
        assert role_seen(client(root, door=door(root, environ))) == role, asked


@pytest.mark.parametrize("asked", ["reviewer", "admin"])
def test_a_signature_needs_a_name_so_that_up_gives_no_reviewers_role(root: Path, asked: str) -> None:
    assert role_seen(client(root, door=door(root, {"SELFTUNE_ROLE": asked}))) == "viewer"


def test_allowed_hosts_come_from_valid_settings_only(root: Path) -> None:
    path = root / "configs" / "self_tuning.yaml"
    text = path.read_text(encoding="utf-8")
    assert web.allowed_hosts(root)() == frozenset()
    path.write_text("targets: {phase_diff: {max: 0.05}}\nstrategy: {objective_weights: {phase_diff: 1.0}}\n"
                    "rules: {a: {init: 0.2, min: 0.1, max: 0.3, lr: 0.02}}\n"
                    "governance: {allowed_hosts: [Tuning.Example.org]}\n", encoding="utf-8")  # fmt: skip
    assert web.allowed_hosts(root)() == {"tuning.example.org"}
    path.write_text(text + "\ngovernance: [\n", encoding="utf-8")
    assert web.allowed_hosts(root)() == frozenset()


# ------------------------------------------------------------------------------- answers
def test_every_answer_carries_the_headers_also_a_refusal(root: Path) -> None:
    for answer in (client(root).get("/echo"), client(root).get("/echo", host="evil.example")):
        for name, value in web.SECURITY_HEADERS.items():
            assert answer.headers[name] == value
    assert "frame-ancestors 'none'" in web.SECURITY_HEADERS["Content-Security-Policy"]


def test_language_link_sets_a_cookie_that_scripts_cannot_read(root: Path) -> None:
    answer = client(root).get("/language/en?back=/help%3Fx%3D1")
    assert answer.status == 303 and answer.headers["location"] == "/help?x=1"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("selftune_language=en;") and "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert client(root).get("/language/xx").status == 404


def test_the_overviews_own_name_leads_to_it(root: Path) -> None:
    """Streamlit serves its first page as `/` alone; of its name it says, in English, "page not found"."""
    answer = client(root).get("/overview?w=6h")
    assert (answer.status, answer.headers["location"]) == (307, "/?w=6h")


@pytest.mark.parametrize(
    "back",
    [None, "", "help", "//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nX: y", "\t/"],
)
def test_language_link_never_leads_to_another_site(back: str | None) -> None:
    assert web.safe_path(back) == "/"


def test_other_kinds_of_scope_pass_untouched() -> None:
    """Lifespan has no headers: a guard that looked at it would stop the server from starting."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> dict[str, Any]:
        return {}

    stack: Any = web.SecurityHeaders(
        web.HostGuard(web.IdentityFeed(app, web.OpenDoor()), lambda: frozenset())
    )
    run(stack({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]


def test_names_in_a_host_header() -> None:
    assert web.host_name("[::1]:8501") == "::1"
    assert web.host_name("LOCALHOST.") == "localhost"
    assert web.host_name("a/b") is None
    door = web.OpenDoor(role=Role.OPERATOR, address="::1")
    assert door.visitor(Headers({"host": "[::1]:8501"}), "::1") == Visitor(
        name="operator", role=Role.OPERATOR
    )
