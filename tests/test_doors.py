"""Signing in as a browser does it, without one: forms, cookies, redirects, proxies, who is believed when."""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from argon2 import PasswordHasher
from starlette.datastructures import Headers

from selftune import doors, passwords, sign_in, web
from selftune.account_book import AccountBook
from selftune.accounts import USERS_FILE, Account, Accounts, parse, render
from selftune.backoff import TRIES, Backoff
from selftune.domain import Role
from selftune.doors import SESSION_COOKIE
from selftune.reception import Reception
from selftune.sessions import IDLE_S, Instant, Sessions
from selftune.sign_in_page import Notice
from selftune.view import Way
from tests.test_web import HERE, Answer, Client, client
from tests.test_web import door as door_of

PASSWORD = "맑은 아침 산책 7"
HTML = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same argon2 with small parameters."""
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    passwords._nobodys.cache_clear()


def put(root: Path, *accounts: Account) -> None:
    (root / USERS_FILE).write_text(render(Accounts(all=accounts)), encoding="utf-8")


def kim(**how: Any) -> Account:
    return Account(
        **{"name": "김운영", "role": Role.OPERATOR, "hash": passwords.hashed(PASSWORD), "created": "c", **how}
    )


@dataclass
class Browser:
    """One browser: it keeps cookies, and follows nothing by itself."""

    to: Client
    cookies: dict[str, str]

    def _said(self, answer: Answer) -> Answer:
        for line in answer.headers.getlist("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return answer

    def _cookie(self) -> dict[str, str]:
        return {"cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}

    def get(self, target: str, **headers: str) -> Answer:
        return self._said(self.to.get(target, **HTML, **self._cookie(), **headers))

    def post(self, target: str, fields: dict[str, str], **headers: str) -> Answer:
        origin = {"origin": f"http://{HERE}:8501"}
        return self._said(
            self.to.post(target, urlencode(fields).encode(), **{**origin, **self._cookie(), **headers})
        )

    def enter(self, name: str, password: str, *, back: str = "/history?w=6h", **headers: str) -> Answer:
        """Opens the form and sends it filled in."""
        form = self.get(f"/sign-in?{urlencode({'back': back})}").text
        token = re.search(r'name="token" value="([0-9a-f]+)"', form)
        there = re.search(r'name="back" value="([^"]*)"', form)
        assert token and there, form
        fields = {"token": token[1], "back": there[1], "name": name, "password": password}
        return self.post("/sign-in", fields, **headers)

    def role(self) -> str | None:
        answer = self.to.get("/echo", **self._cookie())
        return None if answer.status == 401 else str(answer.json()["role"])

    def socket(self) -> str:
        return self.to.socket({"origin": f"http://{HERE}:8501", **self._cookie()}).text


@dataclass
class Clock:
    s: float = 1_800_000_000.0

    def now(self) -> Instant:
        return Instant(steady_s=self.s, wall_s=self.s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return []


def local(root: Path, clock: Clock, said: list[dict[str, Any]], **before: Any) -> doors.LocalDoor:
    """The door of `identity: local` with clocks of the test; closed to the public unless told otherwise."""
    desk = Reception(AccountBook(root), Sessions(clock=clock.now), Backoff(None, clock=lambda: clock.s),
                     said.append, clock=lambda: clock.s)  # fmt: skip
    return doors.LocalDoor(
        before=doors.OpenDoor(**{"address": HERE, "public_view": False, **before}), desk=desk
    )


@pytest.fixture
def browser(root: Path, clock: Clock, said: list[dict[str, Any]]) -> Browser:
    put(root, kim())
    return Browser(to=client(root, door=local(root, clock, said)), cookies={})


# ----------------------------------------------------------------------------- who gets how far
def test_a_person_is_led_to_the_form_and_a_program_is_told_401(browser: Browser) -> None:
    answer = browser.get("/history?w=6h&e=x%2Fy")
    assert answer.status == 303
    assert answer.headers["location"] == "/sign-in?back=/history%3Fw%3D6h%26e%3Dx%252Fy"
    for method, headers in (("GET", {}), ("GET", {"accept": "*/*"}), ("POST", HTML)):
        refused = browser.to.ask("http", method, "/echo", headers)
        assert refused.status == 401 and "location" not in refused.headers
    assert browser.socket() == "" and browser.role() is None


@pytest.mark.parametrize(
    ("path", "free"),
    [("/healthz", True), ("/readyz", True), ("/sign-in", True), ("/language/en", True), ("/session", True),
     ("/sign-in/icon.png", True), ("/_stcore/health", True), ("/static/js/a.js", True),
     ("/favicon.png", True),
     ("/_stcore/upload_file/x", False), ("/media/abc.csv", False), ("/_stcore/metrics", False), ("/", False),
     ("/sign-in/../media/x", False), ("/component/x", False), ("/app/static/x", False),
     ("/STATIC/x", False), ("/healthz/x", False)],
)  # fmt: skip
def test_what_nobody_in_particular_may_ask_for(path: str, free: bool) -> None:
    assert sign_in.is_free(path) is free
    assert sign_in.is_free(f"/tuning{path}", "/tuning") is free


def test_the_whole_way_in_and_out(browser: Browser, said: list[dict[str, Any]]) -> None:
    answer = browser.enter("김운영", PASSWORD)
    assert (answer.status, answer.headers["location"]) == (303, "/history?w=6h")
    assert browser.role() == "operator" and browser.socket() == "operator"
    assert browser.to.get("/session", **browser._cookie()).json() == {"signed_in": True, "left_s": 1800}
    assert "김운영" in browser.get("/sign-in").text
    answer = browser.post("/sign-out", {})
    assert (answer.status, answer.headers["location"]) == (303, "/sign-in?why=out")
    assert browser.role() is None and browser.cookies["selftune_session"] == ""
    assert [r["kind"] for r in said] == ["signin", "signout"] and said[0]["address"] == HERE


def test_the_cookie_is_for_the_server_alone(browser: Browser) -> None:
    def cookie(answer: Answer) -> str:
        return next(c for c in answer.headers.getlist("set-cookie") if c.startswith("selftune_session="))

    plain = cookie(browser.enter("김운영", PASSWORD))
    assert "HttpOnly" in plain and "SameSite=lax" in plain and "Path=/" in plain and "Secure" not in plain
    assert re.fullmatch(r"selftune_session=[A-Za-z0-9_-]{43};.*", plain)  # an id and nothing else
    liar = Browser(to=browser.to, cookies={})  # no listed proxy: what it says about TLS counts for nothing
    assert "Secure" not in cookie(liar.enter("김운영", PASSWORD, **{"x-forwarded-proto": "https"}))


def test_behind_tls_the_cookie_is_secure(root: Path, clock: Clock, said: list[dict[str, Any]]) -> None:
    put(root, kim())
    browser = Browser(to=client(root, door=local(root, clock, said), peers=("127.0.0.1/32",)), cookies={})
    proxied = {"x-forwarded-proto": "https", "x-forwarded-for": "10.0.0.9"}
    answer = browser.enter("김운영", PASSWORD, **proxied)
    assert all("Secure" in c for c in answer.headers.getlist("set-cookie") if "session" in c)
    assert said[0]["address"] == "10.0.0.9"


def test_each_sign_in_gets_a_new_id_and_ends_the_one_before(browser: Browser) -> None:
    browser.cookies["selftune_session"] = "chosen-by-somebody-else"
    browser.enter("김운영", PASSWORD)
    first = browser.cookies["selftune_session"]
    assert first != "chosen-by-somebody-else"
    old = Browser(to=browser.to, cookies={"selftune_session": first})
    form = Browser(to=browser.to, cookies={})
    form.get("/sign-in")
    token = re.search(r'name="token" value="([0-9a-f]+)"', form.get("/sign-in").text)
    assert token
    form.cookies["selftune_session"] = first
    form.post("/sign-in", {"token": token[1], "name": "김운영", "password": PASSWORD})
    assert form.role() == "operator" and form.cookies["selftune_session"] != first and old.role() is None


def test_signing_out_ends_every_tab_of_this_browser_and_no_other(browser: Browser) -> None:
    other = Browser(to=browser.to, cookies={})
    browser.enter("김운영", PASSWORD)
    other.enter("김운영", PASSWORD)
    tab = Browser(to=browser.to, cookies=dict(browser.cookies))
    browser.post("/sign-out", {})
    assert tab.role() is None and tab.socket() == "" and other.role() == "operator"


# ----------------------------------------------------------------------------- the form
def test_a_form_that_this_server_did_not_give_to_this_browser_is_shown_again(browser: Browser) -> None:
    stolen = Browser(to=browser.to, cookies={})
    token = re.search(r'name="token" value="([0-9a-f]+)"', stolen.get("/sign-in").text)
    assert token
    fields = {"name": "김운영", "password": PASSWORD, "back": "/"}
    for sent, cookies in (
        (fields, {}),
        ({**fields, "token": token[1]}, {}),
        ({**fields, "token": token[1]}, {"selftune_form": "another"}),
        ({**fields, "token": ""}, {"selftune_form": ""}),
    ):
        answer = Browser(to=browser.to, cookies=dict(cookies)).post("/sign-in", sent)
        assert answer.status == 400 and "오래되었습니다" in answer.text and PASSWORD not in answer.text
        assert not any(c.startswith("selftune_session=") for c in answer.headers.getlist("set-cookie"))


def test_a_foreign_site_cannot_send_the_form(browser: Browser) -> None:
    assert browser.post("/sign-in", {}, origin="https://evil.example").status == 403
    assert browser.post("/sign-out", {}, origin="https://evil.example").status == 403


@pytest.mark.parametrize("body", [b"x" * 9000, b"\xff\xfe=\x80", b"&".join([b"a=b"] * 50)])
def test_what_is_no_form_is_refused_in_words(browser: Browser, body: bytes) -> None:
    assert browser.to.post("/sign-in", body).status == 400


def test_what_was_typed_comes_back_as_text(browser: Browser) -> None:
    answer = browser.enter('"><script>alert(1)</script>\u202e', "wrong", back='/x"><script>alert(2)</script>')
    assert answer.status == 401 and "<script" not in answer.text and "\u202e" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example/", "/\\evil.example", "x", ""])
def test_no_link_leads_away(browser: Browser, back: str) -> None:
    assert browser.enter("김운영", PASSWORD, back=back).headers["location"] == "/"


@pytest.mark.parametrize("why", [n.value for n in Notice])
def test_an_address_makes_the_form_name_nobody(why: str, root: Path, browser: Browser) -> None:
    """Who manages accounts is told to whom the provider proved, not to whoever asks for that sentence."""
    put(root, kim(), kim(name="박관리", role=Role.ADMIN))
    page = browser.get(f"/sign-in?why={why}").text
    assert "박관리" not in page
    assert ("notice" in page.partition("</style>")[2]) is (why in ("out", "ended"))


OTHERS = ('prefs={"a":"b c"}', "a b=1", "names[0]=x", "stray", f"{SESSION_COOKIE}x=1")


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("before", [True, False])
def test_the_cookies_of_other_programs_of_this_host_keep_nobody_out(
    other: str, before: bool, browser: Browser
) -> None:
    browser.enter("김운영", PASSWORD)
    mine = f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"
    said = f"{other}; {mine}" if before else f"{mine};{other}"
    assert browser.to.get("/echo", cookie=said).json()["role"] == "operator"


def test_of_two_cookies_of_one_name_the_nearest_counts(browser: Browser) -> None:
    """Browsers send the one of the longer path first; one of a wider path may be old, or somebody else's."""
    browser.enter("김운영", PASSWORD)
    said = f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}; {SESSION_COOKIE}=another"
    assert browser.to.get("/echo", cookie=said).json()["role"] == "operator"


def test_unknown_and_wrong_look_alike(browser: Browser) -> None:
    def shape(answer: Answer, name: str) -> tuple[int, str]:
        return answer.status, re.sub(r'value="[^"]*"', "", answer.text.replace(name, ""))

    known = shape(browser.enter("김운영", "wrong"), "김운영")
    assert known == shape(browser.enter("nobody here", "wrong"), "nobody here")


def test_waiting_is_said_with_its_length_and_helps(browser: Browser, clock: Clock) -> None:
    for _ in range(TRIES - 1):
        assert browser.enter("김운영", "wrong").status == 401
    answer = browser.enter("김운영", "wrong")
    assert answer.status == 429 and answer.headers["retry-after"] == "31" and "30초" in answer.text
    assert browser.enter("김운영", PASSWORD).status == 429
    elsewhere = Browser(to=replace(browser.to, peer="10.0.0.8"), cookies={})
    assert elsewhere.enter("김운영", PASSWORD).status == 303
    clock.s += 31
    assert browser.enter("김운영", PASSWORD).status == 303


def test_a_flood_waits_two_at_a_time_and_the_rest_is_told(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, most, lock = 0, 0, threading.Lock()
    right = Reception.come_in

    def counted(self: Reception, name: str, password: str, address: str) -> Any:
        nonlocal together, most
        with lock:
            together, most = together + 1, max(most, together + 1)
        try:
            return right(self, name, password, address)
        finally:
            with lock:
                together -= 1

    monkeypatch.setattr(Reception, "come_in", counted)
    monkeypatch.setattr(sign_in, "QUEUE", 6)
    token = re.search(r'name="token" value="([0-9a-f]+)"', browser.get("/sign-in").text)
    assert token

    async def flood() -> list[int]:
        """Through the one app of a server, on one loop."""
        body = urlencode({"token": token[1], "name": "x", "password": "y"}).encode()
        return await asyncio.gather(*(asked(browser, f"10.0.0.{k}", body) for k in range(12)))

    with ThreadPoolExecutor(1) as pool:
        statuses = pool.submit(asyncio.run, flood()).result()
    assert sorted(set(statuses)) == [401, 503] and statuses.count(401) >= 6 and most <= sign_in.AT_ONCE


async def asked(browser: Browser, peer: str, body: bytes) -> int:
    """The status of one POST of the form."""
    headers = {"host": f"{HERE}:8501", **browser._cookie()}
    scope = {
        "type": "http", "method": "POST", "scheme": "http", "path": "/sign-in", "raw_path": b"/sign-in",
        "query_string": b"", "root_path": "", "http_version": "1.1", "client": (peer, 1),
        "server": (HERE, 8501), "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "asgi": {"version": "3.0"},
    }  # fmt: skip
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await browser.to.app(scope, receive, send)  # type: ignore[arg-type]
    return statuses[0]


@pytest.mark.parametrize(
    ("headers", "query", "words"),
    [({}, "", "비밀번호"), ({"accept-language": "en-US"}, "", "Password"), ({}, "?lang=en", "Password"),
     ({"accept-language": "en", "cookie": "selftune_language=ko"}, "", "비밀번호"),
     ({"accept-language": "fr"}, "", "비밀번호")],
)  # fmt: skip
def test_the_form_speaks_the_readers_language(
    browser: Browser, headers: dict[str, str], query: str, words: str
) -> None:
    assert words in browser.to.get(f"/sign-in{query}", **headers).text


# ----------------------------------------------------------------------------- ends
def test_half_an_hour_without_an_act_is_the_end_and_looking_at_the_clock_is_no_act(
    browser: Browser, clock: Clock
) -> None:
    browser.enter("김운영", PASSWORD)
    clock.s += IDLE_S - 1
    assert browser.to.get("/session", **browser._cookie()).json() == {"signed_in": True, "left_s": 1}
    assert browser.socket() == "operator"  # a browser that connects again by itself
    clock.s += 1
    assert browser.role() is None and browser.socket() == ""


def test_opening_a_page_is_an_act(browser: Browser, clock: Clock) -> None:
    browser.enter("김운영", PASSWORD)
    for _ in range(3):
        clock.s += IDLE_S - 1
        assert browser.get("/echo").status == 200


@pytest.mark.parametrize(
    "how", [{"disabled": True}, {"version": 2}, {"role": Role.REVIEWER, "version": 2}, {"name": "other"}]
)
def test_what_is_done_to_an_account_holds_at_once(root: Path, browser: Browser, how: dict[str, Any]) -> None:
    browser.enter("김운영", PASSWORD)
    put(root, kim(**how))
    assert browser.role() is None and browser.socket() == "" and browser.get("/echo").status == 303


def test_a_broken_account_file_says_so_and_lets_nobody_be_anybody(root: Path, browser: Browser) -> None:
    browser.enter("김운영", PASSWORD)
    (root / USERS_FILE).write_text("accounts:\n  kim: [\n", encoding="utf-8")
    assert browser.role() is None
    page = browser.get("/sign-in").text
    assert 'role="alert"' in page and "configs/users.yaml" in page and "argon2" not in page
    open_ = client(root, door=door_of(root, {"SELFTUNE_ROLE": "operator"}))
    assert open_.get("/echo").json()["role"] == "viewer"  # --role is no way around it


# ----------------------------------------------------------------------------- before the first account
def test_before_the_first_account_everybody_at_this_machine_may_look_and_nobody_more(root: Path) -> None:
    here = client(root, door=door_of(root, {}))
    assert here.get("/echo").json()["role"] == "viewer"
    assert "users add" in here.get("/sign-in").text and 'type="password"' not in here.get("/sign-in").text
    away = doors.door({}, address="0.0.0.0", root=root, note=lambda r: None)
    closed = client(root, door=away, peer="10.0.0.7")
    assert closed.get("/", **HTML).headers["location"] == "/sign-in?back=/"
    assert "users add" in closed.get("/sign-in").text


def test_the_first_account_ends_what_role_gave_also_on_a_page_that_is_open(root: Path) -> None:
    door = door_of(root, {"SELFTUNE_ROLE": "operator"})
    here = client(root, door=door)
    assert here.get("/echo").json()["role"] == "operator"
    was = door.visitor(Headers({"host": HERE}), HERE)
    assert was is not None and was.role is Role.OPERATOR and door.again(was) == was
    put(root, kim())
    assert here.get("/echo").json()["role"] == "viewer"
    now = door.again(was)
    assert now is not None and now.role is Role.VIEWER


def demo(root: Path) -> None:
    (root / "logs" / "demo.json").write_text('{"made_by": "selftune demo"}', encoding="utf-8")


def test_the_demo_lets_everybody_at_this_machine_choose_a_role_until_there_are_accounts(root: Path) -> None:
    demo(root)
    browser = Browser(to=client(root, door=door_of(root, {})), cookies={})
    assert browser.role() == "viewer"
    assert browser.get("/demo-role/reviewer?back=/review").headers["location"] == "/review"
    assert browser.role() == "reviewer"
    assert browser.get("/demo-role/boss").status == 404
    away = Browser(to=replace(browser.to, peer="10.0.0.7"), cookies=dict(browser.cookies))
    assert away.role() == "viewer"
    put(root, kim())
    assert browser.role() == "viewer"


def test_no_role_is_chosen_outside_the_demo(root: Path) -> None:
    browser = Browser(to=client(root, door=door_of(root, {})), cookies={"selftune_demo_role": "operator"})
    assert browser.role() == "viewer" and browser.get("/demo-role/operator").status == 404


# ----------------------------------------------------------------------------- modes
def settings(root: Path, governance: str) -> None:
    with (root / "configs" / "self_tuning.yaml").open("a", encoding="utf-8") as file:
        file.write(f"\ngovernance: {{{governance}}}\n")


def proxied(root: Path, peer: str = "10.0.0.5", address: str = "0.0.0.0") -> Client:
    door = doors.door({"SELFTUNE_ROLE": "operator"}, address=address, root=root, note=lambda r: None)
    return client(root, door=door, peer=peer, peers=doors.governance(root).proxy.peers)


PROXY = "identity: proxy, public_view: false, proxy: {peers: [10.0.0.5]}"


def test_a_listed_proxy_names_the_person_and_the_account_file_the_role(root: Path) -> None:
    settings(root, PROXY)
    lee = kim(name="lee", role=Role.REVIEWER, logins=("lee@example.org",))
    put(root, lee, kim(name="off", disabled=True), kim())
    c = proxied(root)
    for said, role in (("lee@example.org", "reviewer"), ("LEE", "reviewer"), ("김운영", "operator"),
                       ("박손님", None), ("off", None)):  # fmt: skip
        answer = c.get("/echo", **{"x-forwarded-user": said})
        assert (None if answer.status == 401 else answer.json()["role"]) == role, said
    assert c.get("/echo").status == 401
    assert c.socket({"origin": f"http://{HERE}:8501", "x-forwarded-user": "lee"}).text == "reviewer"


def test_nobody_else_is_believed_and_two_names_are_none(root: Path) -> None:
    settings(root, PROXY)
    put(root, kim(name="lee"))
    named = {"x-forwarded-user": "lee"}
    assert proxied(root, peer="10.0.0.6").get("/echo", **named).status == 401
    assert proxied(root, peer="127.0.0.1").get("/echo", **named).status == 401
    door = doors.proxy_login(("10.0.0.5/32",), "X-Forwarded-User")
    twice = Headers(raw=[(b"x-forwarded-user", b"lee"), (b"x-forwarded-user", b"kim")])
    assert door(twice, "10.0.0.5") is None
    assert door(Headers({"x-forwarded-user": "lee"}), "10.0.0.5") == "lee"
    assert door(Headers({"x-forwarded-user": "\x00"}), "10.0.0.5") is None
    # what a client says about addresses makes it no proxy
    liar = {**named, "x-forwarded-for": "10.0.0.5"}
    assert proxied(root, peer="10.0.0.6").get("/echo", **liar).status == 401


def test_behind_a_proxy_there_is_no_form_and_a_closed_page_says_so(root: Path) -> None:
    settings(root, PROXY)
    answer = proxied(root).get("/", **HTML)
    assert answer.status == 403 and "팀에서 쓰는 주소" in answer.text
    assert proxied(root).get("/sign-in").status == 404


def test_a_role_that_changes_behind_the_proxy_is_seen_by_the_open_page(root: Path) -> None:
    settings(root, PROXY)
    put(root, kim(name="lee", role=Role.REVIEWER))
    door = doors.door({}, address="0.0.0.0", root=root, note=lambda r: None)
    was = door.visitor(Headers({"x-forwarded-user": "lee"}), "10.0.0.5")
    assert was is not None and (was.way, was.role) == (Way.PROXY, Role.REVIEWER) and door.again(was) == was
    put(root, kim(name="lee", role=Role.VIEWER))
    now = door.again(was)
    assert now is not None and now.role is Role.VIEWER


def test_open_is_for_this_machine_and_has_no_form(root: Path) -> None:
    settings(root, "identity: open")
    put(root, kim())
    c = client(root, door=door_of(root, {}))
    assert c.get("/echo").json()["role"] == "viewer" and c.get("/sign-in").status == 404
    away = doors.door({}, address="0.0.0.0", root=root, note=lambda r: None)
    assert client(root, door=away, peer="10.0.0.7").get("/echo").status == 401


@pytest.mark.parametrize(
    ("said", "status"), [("", 401), ("public_view: true, ", 200), ("public_view: false, ", 401)]
)
def test_who_comes_through_a_proxy_on_this_machine_looks_only_where_it_is_said(
    said: str, status: int, root: Path
) -> None:
    name = "tuning.example.org"
    settings(root, f"{said}allowed_hosts: [{name}], proxy: {{peers: [{HERE}]}}")
    put(root, kim())
    c = client(root, door=door_of(root, {}), hosts=(name,), peers=(HERE,))
    assert c.get("/echo", host=name, **{"x-forwarded-for": "10.0.0.7"}).status == status


def test_where_accounts_exist_no_role_is_given_by_up_whoever_is_recognised(root: Path) -> None:
    settings(root, "identity: open")
    as_operator = {"SELFTUNE_ROLE": "operator"}
    assert client(root, door=door_of(root, as_operator)).get("/echo").json()["role"] == "operator"
    put(root, kim())
    assert client(root, door=door_of(root, as_operator)).get("/echo").json()["role"] == "viewer"


def test_without_valid_settings_only_a_password_makes_somebody(root: Path) -> None:
    (root / "configs" / "self_tuning.yaml").write_text("governance: {identity: open", encoding="utf-8")
    put(root, kim())
    browser = Browser(to=client(root, door=door_of(root, {"SELFTUNE_ROLE": "operator"})), cookies={})
    assert browser.role() == "viewer"
    browser.enter("김운영", PASSWORD)
    assert browser.role() == "operator"


# ----------------------------------------------------------------------------- the twelve ways to ask
ORIGINS = {"own": f"http://{HERE}:8501", "foreign": "http://evil.example", "none": None}
HOSTS = {"own": f"{HERE}:8501", "foreign": "evil.example"}


@pytest.mark.parametrize("signed_in", [True, False])
@pytest.mark.parametrize("origin", list(ORIGINS))
@pytest.mark.parametrize("host", list(HOSTS))
def test_the_twelve_header_combinations(browser: Browser, signed_in: bool, origin: str, host: str) -> None:
    """Only our own page of somebody who is signed in gets a websocket; a program may read with the cookie."""
    if signed_in:
        browser.enter("김운영", PASSWORD)
    said = {"host": HOSTS[host], **browser._cookie()}
    if (from_ := ORIGINS[origin]) is not None:
        said["origin"] = from_
    assert (browser.to.socket(said).text == "operator") is (signed_in and host == origin == "own")
    status = browser.to.get("/echo", **said).status
    expected = 403 if "foreign" in (host, origin) else 200 if signed_in else 401
    assert status == expected


def test_below_a_path_everything_stays_below_it(root: Path, clock: Clock, said: list[dict[str, Any]]) -> None:
    put(root, kim())
    browser = Browser(to=client(root, door=local(root, clock, said), base="/tuning"), cookies={})
    assert browser.get("/tuning/history").headers["location"] == "/tuning/sign-in?back=/tuning/history"
    form = browser.get("/tuning/sign-in?back=/tuning/history").text
    token = re.search(r'name="token" value="([0-9a-f]+)"', form)
    assert token and 'action="/tuning/sign-in"' in form and "/tuning/language/en" in form
    fields = {"token": token[1], "back": "/history", "name": "김운영", "password": PASSWORD}
    answer = browser.post("/tuning/sign-in", fields)
    assert answer.headers["location"] == "/tuning/"  # a path outside is not ours
    assert any("Path=/tuning" in c for c in answer.headers.getlist("set-cookie") if "session" in c)
    assert browser.to.get("/healthz").status == 200 == browser.to.get("/tuning/healthz").status


def test_the_file_of_these_tests_is_what_the_product_reads(root: Path) -> None:
    put(root, kim())
    assert parse((root / USERS_FILE).read_bytes()).all[0].name == "김운영"


def test_a_proof_that_this_process_did_not_make_names_no_door() -> None:
    forged = {
        web.PROOF_HEADER: "0" * 64,
        web.USER_HEADER: "x",
        web.ROLE_HEADER: "admin",
        web.WAY_HEADER: "open",
    }
    assert web.door_in(forged) is None and web.visitor_in(forged) is None
