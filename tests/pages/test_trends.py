"""The trends page in every state, role and language; the request in its address; the event it opens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import streamlit as st

from selftune import catalogue, hands
from selftune.access import Action
from selftune.domain import Role, Verdict
from selftune.office import Office
from tests.pages.reader import be, opened, sound, words_on
from tests.pages.roots import judge, suggest, write_event, write_metrics

STATES = ("no_data", "quiet", "events", "judged", "stale", "bad_settings")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    be(monkeypatch, Role.OPERATOR)
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def prepare(root: Path, state: str) -> None:
    """The root in one state."""
    if state == "bad_settings":
        path = root / "configs" / "self_tuning.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("targets:", "tragets:"), encoding="utf-8")
    if state in ("no_data", "bad_settings"):
        return
    write_metrics(root, minutes=12, ago_s=600 if state == "stale" else 0)
    if state in ("events", "stale"):
        write_event(root, "risk_max", 0.35, 0.33, minutes_ago=14, actor="park", note="first **bold**")
        write_event(root, "creative_min", 0.22, 0.24, minutes_ago=12, actor="lee")
    if state == "judged":
        decision = suggest(root)
        Office(root).act(
            Action.APPLY, lambda p: hands.apply(p, decision, actor="lee", reason="try"), actor="lee",
            role=Role.OPERATOR,
        )  # fmt: skip
        judge(root, Verdict.IMPROVED)


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
@pytest.mark.parametrize("state", STATES)
def test_every_state_reads_well(
    state: str, role: Role, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, role)
    prepare(root, state)
    sound(opened("trends", root, monkeypatch, language), language)


def key_of(root: Path, n: int = 0) -> str:
    p = Office(root).glance().picture
    assert p is not None
    return p.snap.records.events[n].key


def test_a_link_opens_the_event_with_its_words(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "judged")
    text = words_on(opened("trends", root, monkeypatch, e=key_of(root)))
    assert "try" in text and "Verdict" in text and "n = " in text


def test_a_note_stays_text(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "events")
    at = opened("trends", root, monkeypatch, e=key_of(root))
    assert any("first **bold**" in str(h.proto.body) for h in at.get("html"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"w": "9y"}, "no window “9y”"),
        ({"rule": "nobody"}, "no rule “nobody”"),
        ({"from": "yesterday", "to": "2026-01-01T00:00:00Z"}, "start “yesterday”"),
        ({"e": "x-unknown"}, "x-unknown"),
    ],
)
def test_what_is_unknown_has_a_named_state(
    query: dict[str, str], said: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(root, "events")
    at = opened("trends", root, monkeypatch, **query)
    sound(at, "en")
    assert said in words_on(at)


def test_copied_link_opens_the_same_stretch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link has absolute times, and the page that it opens writes the very same link."""
    prepare(root, "events")
    first = next(c.value for c in opened("trends", root, monkeypatch).code if "from=" in c.value)
    query = {k: v[0] for k, v in parse_qs(urlsplit(first).query).items()}
    assert set(query) == {"w", "from", "to"}
    again = opened("trends", root, monkeypatch, **query)
    assert next(c.value for c in again.code if "from=" in c.value).split("&to=")[0] == first.split("&to=")[0]


def test_a_rule_narrows_the_events(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "events")
    assert opened("trends", root, monkeypatch).title[0].value.startswith("2 rule changes")
    assert opened("trends", root, monkeypatch, rule="risk_max").title[0].value.startswith("1 rule change:")


def test_a_past_beyond_the_memory_comes_from_the_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days ago is neither in the ring nor in the day of means."""
    write_metrics(root, minutes=3, ago_s=2 * 86_400)
    path = root / "logs" / "metrics.csv"
    old = path.read_text(encoding="utf-8")
    write_metrics(root, minutes=3)
    path.write_text(old + path.read_text(encoding="utf-8").split("\n", 1)[1], encoding="utf-8")
    end = datetime.now(UTC) - timedelta(days=2)
    wanted = {
        "w": "custom", "from": (end - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "to": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    at = opened("trends", root, monkeypatch, **wanted)
    sound(at, "en")
    shown = [d.value for d in at.dataframe]
    assert shown and len(shown[0]) > 100
