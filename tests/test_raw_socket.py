"""What somebody without a browser can cause over the websocket: nothing that their role may not.

A real server, and a client that lies: without sign-in, with a forged or an ended session, with wrong Origin
and Host, with the very messages by which an operator and a reviewer act. Judged by every byte below the root.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from selftune import reviewing
from selftune.cli import main
from selftune.domain import Role
from selftune.reviewing import Terms
from selftune.runtime import Root
from selftune.sockets import is_ours
from tests.browser.conftest import serve
from tests.conftest import SHIPPED
from tests.pages.roots import change_settings, suggest, write_event, write_metrics
from tests.raw_socket import Answer, Raw, tree
from tests.test_reviewing import watch

DEPTH = 3
PEOPLE = {"olga": ("suggestions", "targets", "history", "review", ""), "rita": ("review",)}
PASSWORD = "맑은 아침 산책 7"
PAGES = ("", "overview", "trends", "suggestions", "targets", "backtest", "history", "review", "help")
# words that stand only in the data of the root, never in the program
SECRETS = ("risk_max", "creative_min", "secret-note-7", "olga", "0.329")


@dataclass(frozen=True)
class Said:
    """One message of a person: a page with some widgets pressed. `by`: whose."""

    page: str
    query: str
    widgets: tuple[WidgetState, ...]
    by: str = ""


def furnished(root: Path) -> Path:
    """A root on which there is something to do for everybody."""
    write_metrics(root)
    change_settings(root, metrics__max_age_s=36_000, governance__public_view=False)
    write_event(root, "creative_min", 0.22, 0.24, minutes_ago=8, actor="olga", note="secret-note-7")
    watch(root)
    suggest(root)
    return root


def account(root: Path, name: str, role: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{PASSWORD}\n".encode()), encoding="utf-8"))
        argv = ["--root", str(root), "users", "add", name, "--role", role, "--password-stdin"]
        assert main(argv) == 0


class Stay(urllib.request.HTTPRedirectHandler):
    """Keeps the answer that redirects, with its cookies."""

    def redirect_request(self, *_: object) -> None:
        return None


def signed_in(url: str, name: str) -> str:
    """The cookie of somebody who signs in with the form, as a browser does."""
    opener = urllib.request.build_opener(Stay)
    with opener.open(f"{url}/sign-in") as page:
        form, body = page.headers["set-cookie"].split(";")[0], page.read().decode()
    token = re.findall(r'name="token" value="([^"]+)"', body)[0]
    sent = urllib.parse.urlencode({"token": token, "name": name, "password": PASSWORD, "back": "/"})
    ask = urllib.request.Request(f"{url}/sign-in", sent.encode(), {"Cookie": form})
    try:
        opener.open(ask)
    except urllib.error.HTTPError as answer:
        with answer:
            return str(answer.headers["set-cookie"]).split(";")[0]
    raise AssertionError("nobody was signed in")


def people(root: Path) -> None:
    """One account a role; everybody has the same password, which is asked of the real file."""
    for name, role in (("olga", "operator"), ("rita", "reviewer"), ("vera", "viewer"), ("ada", "admin")):
        account(root, name, role)


@contextmanager
def serving(root: Path, log: Path) -> Iterator[str]:
    process, url = serve(root, log, "viewer")
    try:
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def pressed_everywhere(raw: Raw, pages: Iterable[str]) -> Iterator[Said]:
    """Every button of these pages pressed, what opens by it too, with all fields filled.

    What stands on every page (Stop) is pressed on the first page alone.
    """
    for page in pages:
        seen = raw.run(page)
        known = {k for k in seen.widgets if page and "banner_" in k}
        yield from deeper(raw, page, seen, known, DEPTH)


def deeper(raw: Raw, page: str, seen: Answer, known: set[str], depth: int, query: str = "") -> Iterator[Said]:
    """Presses what is not known yet, and then what each press has opened."""
    fresh = [w for w in seen.of("Button") if w.id not in known]
    known |= {w.id for w in fresh}
    for button in fresh:
        said = Said(page, query, (*filled(seen), button.pressed()))
        yield said
        then = raw.run(page, query, said.widgets)
        if depth:
            yield from deeper(raw, page, then, known, depth - 1, then.query or query)


def filled(seen: Answer) -> Iterable[WidgetState]:
    return [w.pressed() for w in seen.of("Checkbox", "TextArea", "TextInput")]


@dataclass(frozen=True)
class Stage:
    """The attacked server, and what people said elsewhere on a copy of the same root."""

    root: Path
    url: str
    said: tuple[Said, ...]
    done: frozenset[str]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("raw")
    root = folder / "root"
    root.mkdir()
    for name in ("configs", "controls", "logs"):
        (root / name).mkdir()
    shutil.copyfile(SHIPPED, root / "configs" / "self_tuning.yaml")
    furnished(root)
    people(root)
    terms, by = Terms(changes=3, displacement=2.0, hours=5.0), {"actor": "kim", "role": Role.OPERATOR}
    reviewing.request(Root(root), terms, why="calm weeks", **by)
    base = (root / "configs" / "self_tuning.yaml").read_bytes()
    reviewing.propose(Root(root), base, {"rules.risk_max.max": 0.45}, why="more room", **by)
    copy = Path(shutil.copytree(root, folder / "copy"))
    said: list[Said] = []
    before = kinds(copy)
    with serving(copy, folder / "copy.log") as url:
        for name, pages in PEOPLE.items():
            with Raw(url, cookie=signed_in(url, name)) as raw:
                said += [replace(s, by=name) for s in pressed_everywhere(raw, pages)]
    done = frozenset(kinds(copy) - before)
    with serving(root, folder / "root.log") as url:
        yield Stage(root=root, url=url, said=tuple(said), done=done)


def kinds(root: Path) -> Counter[str]:
    """What is on record, in a word a record: of decisions the act, of governance the kind."""
    found: Counter[str] = Counter()
    for name in ("logs/tuning_decisions.jsonl", "controls/approvals.jsonl"):
        for line in (root / name).read_text(encoding="utf-8").splitlines():
            data = json.loads(line)
            found[str(data.get("act") or data["kind"])] += 1
    return found


def test_the_messages_do_something_when_the_right_people_send_them(stage: Stage) -> None:
    assert stage.done >= {"approve", "apply", "rollback", "stop"}


# ----------------------------------------------------------------------------- who may not
def nobody(url: str) -> str:
    return ""


def forged(url: str) -> str:
    """A session of the right form that was never given, beside a cookie that claims a role."""
    return f"selftune_session={'A' * 43}; selftune_role=admin; selftune_demo_role=operator; _streamlit_user=x"


def ended(url: str) -> str:
    """The cookie of somebody who has signed out since."""
    cookie = signed_in(url, "olga")
    ask = urllib.request.Request(f"{url}/sign-out", b"", {"Cookie": cookie}, method="POST")
    with pytest.raises(urllib.error.HTTPError) as gone:
        urllib.request.build_opener(Stay).open(ask)
    gone.value.close()
    return cookie


CLAIMS = {"X-Selftune-User": "olga", "X-Selftune-Role": "admin", "X_Selftune_Role": "admin",
          "X-Forwarded-User": "olga", "X-Forwarded-For": "127.0.0.1", "Remote-User": "olga"}  # fmt: skip
OUTSIDE = ("controls/approvals.jsonl",)  # a sign-in of the test's own is on record there


@pytest.mark.parametrize("who", [nobody, forged, ended])
@pytest.mark.parametrize("origin", ["own", None, "http://evil.example", "null"])
def test_without_sign_in_nothing_is_delivered_and_nothing_is_changed(
    who: Callable[[str], str], origin: str | None, stage: Stage
) -> None:
    cookie = who(stage.url)
    before = tree(stage.root)
    for host in (None, "evil.example"):
        with Raw(stage.url, cookie=cookie, origin=origin, host=host, headers=CLAIMS) as raw:
            assert raw.refused, "a socket of nobody is not even opened"
            assert not raw.run("suggestions").messages
    assert tree(stage.root) == before


PATHS = ("/", "/history", "/review?req=x", "/media/x.csv", "/_stcore/metrics", "/_stcore/script-health-check",
         "/component/x/y", "/app/static/x", "/_stcore/upload_file/a/b", "/session-state", "/auth/logout",
         "/..%2f..%2fetc/passwd", "/_stcore/stream", "/configs/users.yaml", "/sign-in")  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_without_sign_in_no_address_tells_or_takes_anything(method: str, stage: Stage) -> None:
    before = tree(stage.root)
    for path in PATHS:
        status, body = asked(stage.url + path, method, {"Accept": "*/*", **CLAIMS})
        free = (path == "/sign-in" and method == "GET") or (path == "/auth/logout" and method == "GET")
        assert status >= 400 or free, (path, status, body[:200])
        assert not [s for s in SECRETS if s in body], path
    assert tree(stage.root) == before


def asked(url: str, method: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and body of an answer, as it comes."""
    ask = urllib.request.Request(url, method=method, headers=dict(headers))
    if method in ("POST", "PUT", "PATCH"):
        ask.data = b"x" * 100
    try:
        with urllib.request.build_opener(Stay).open(ask) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("name", "others"), [("vera", PEOPLE), ("ada", PEOPLE), ("rita", {"olga"}), ("olga", {"rita"})]
)
def test_who_sends_the_messages_of_another_role_changes_nothing(
    name: str, others: Iterable[str], stage: Stage
) -> None:
    cookie = signed_in(stage.url, name)
    before = tree(stage.root)
    with Raw(stage.url, cookie=cookie) as raw:
        for said in (s for s in stage.said if s.by in others):
            answer = raw.run(said.page, said.query, said.widgets)
            assert not raw.lost and len(answer.text) > 1000, "the page is shown all the same"
    assert tree(stage.root) == before


def test_nor_by_all_of_them_at_once_keys_of_our_own_state_or_addresses(stage: Stage) -> None:
    cookie = signed_in(stage.url, "vera")
    every = {w.id: w for said in stage.said for w in said.widgets}
    ours = ("deskwork_asking", "deskwork_said", "visitor", "role", "identity", "language", "reader",
            "targets_work", "refresh_s")  # fmt: skip
    guessed = [WidgetState(id=k, string_value="admin") for k in ours]
    guessed += [WidgetState(id=f"$$ID-{'0' * 32}-{k}", trigger_value=True) for k in ours]
    before = tree(stage.root)
    with Raw(stage.url, cookie=cookie) as raw:
        for page in PAGES:
            for query in ("role=admin&user=olga&do=apply&confirm=1", "lang=../../etc&req=../x&e=../x"):
                raw.run(page, query, [*every.values(), *guessed])
        assert not raw.lost
    assert tree(stage.root) == before


def test_noise_and_foreign_kinds_of_message_change_nothing(stage: Stage) -> None:
    cookie = signed_in(stage.url, "vera")
    rng = random.Random(7)
    before = tree(stage.root)
    asks = [BackMsg(clear_cache=True), BackMsg(set_run_on_save=True), BackMsg(load_git_info=True),
            BackMsg(debug_shutdown_runtime=True), BackMsg(debug_disconnect_websocket=True),
            BackMsg(stop_script=True)]  # fmt: skip
    noise = [rng.randbytes(rng.choice((1, 7, 60, 700))) for _ in range(25)]
    whole = BackMsg()
    whole.rerun_script.widget_states.widgets.extend(w for said in stage.said for w in said.widgets)
    text = whole.SerializeToString()
    torn = [bytes(b ^ (rng.random() < 0.02) * rng.randrange(256) for b in text) for _ in range(10)]
    for data in (*(m.SerializeToString() for m in asks), *noise, *torn):
        with Raw(stage.url, cookie=cookie) as raw:
            raw.send(data)
            raw.run("review")  # whatever was said before, the server answers or has closed the socket
    with Raw(stage.url, cookie=cookie) as raw:
        assert "risk_max" in raw.run("suggestions").text, "the server still serves"
    assert tree(stage.root) == before


def session_of(seen: Answer) -> str:
    found = [m.new_session.initialize.session_id for m in seen.messages if m.HasField("new_session")]
    return found[0]


def test_a_session_is_not_handed_to_somebody_else(stage: Stage) -> None:
    """Streamlit lets a client reconnect to a session by its id: the id of an operator's is no key."""
    before_in = signed_in(stage.url, "olga")
    with Raw(stage.url, cookie=before_in) as operator:
        seen = operator.run("suggestions")
        session = session_of(seen)
        opener = next(w for w in seen.of("Button") if "-apply_" in w.id or "reject_" in w.id)
        operator.run("suggestions", widgets=[opener.pressed()])
    cookie = signed_in(stage.url, "vera")
    before = tree(stage.root)
    with Raw(stage.url, cookie=cookie, session=session) as viewer:
        for said in stage.said:
            viewer.run(said.page, said.query, said.widgets)
    assert tree(stage.root) == before


def test_uploads_are_off_for_everybody(stage: Stage) -> None:
    """Rule 12 of the promises: no page takes a file, so no address does."""
    cookie = signed_in(stage.url, "olga")
    with Raw(stage.url, cookie=cookie) as raw:
        seen = raw.run("")
        session = session_of(seen)
        proof = xsrf(stage.url, cookie)
        for method in ("PUT", "POST", "DELETE", "OPTIONS"):
            status, _ = asked(f"{stage.url}/_stcore/upload_file/{session}/f", method, proof)
            assert status == 403, method


def xsrf(url: str, cookie: str) -> dict[str, str]:
    """What Streamlit wants to see beside a file: its token in a cookie and in a header."""
    ask = urllib.request.Request(f"{url}/_stcore/host-config", headers={"Cookie": cookie})
    health = urllib.request.Request(f"{url}/_stcore/health", headers={"Cookie": cookie})
    for one in (health, ask):
        with urllib.request.urlopen(one) as answer:
            for given in answer.headers.get_all("set-cookie") or []:
                name, _, token = given.split(";")[0].partition("=")
                if name == "_streamlit_xsrf":
                    return {"Cookie": f"{cookie}; {name}={token}", "X-Xsrftoken": token}
    raise AssertionError("no token was given")


def test_what_no_page_of_ours_asks_for_is_not_even_heard(stage: Stage) -> None:
    """A viewer could drop the caches of everybody, or be told the program's version history."""
    assert not is_ours(BackMsg(clear_cache=True).SerializeToString())
    assert not is_ours(BackMsg(load_git_info=True).SerializeToString())
    with Raw(stage.url, cookie=signed_in(stage.url, "vera")) as raw:
        raw.run("")
        raw.send(BackMsg(load_git_info=True).SerializeToString())
        raw.send(BackMsg(set_run_on_save=True).SerializeToString())
        told = raw.run("help").messages
    assert not [m for m in told if m.HasField("git_info_changed")]
    assert not [m for m in told if m.session_status_changed.run_on_save]
