"""What the tests of pages share: a visitor, a page opened through the frame, and its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from selftune import ui
from selftune.domain import Role
from selftune.view import Visitor
from tests.conftest import CHECKOUT

FRAME = CHECKOUT / "selftune" / "frame.py"
KEY = re.compile(
    r"\b(?:sugg|hist|desk|check|did|report|mark|guard|hold|why|hand|reason|verdict|phase|banner|frame|chart"
    r"|trends|need|doing|overview)"
    r"\.[a-z_]+\b"
)


def be(monkeypatch: pytest.MonkeyPatch, role: Role, name: str = "kim") -> None:
    """The visitor whom the server knows."""
    monkeypatch.setattr(ui, "current_identity", lambda: Visitor(name=name, role=role))


def opened(
    page: str, root: Path, monkeypatch: pytest.MonkeyPatch, language: str = "en", **query: str
) -> AppTest:
    """The page as a reader finds it."""
    monkeypatch.setenv("SELFTUNE_ROOT", str(root))
    at = AppTest.from_file(FRAME, default_timeout=60)
    at.query_params["lang"] = language
    at.run()
    for name, value in query.items():
        at.query_params[name] = value
    return at.switch_page(f"../pages/{page}.py").run()


def html_on(at: AppTest) -> str:
    """All HTML of the page without its style."""
    found = "\n".join(str(h.proto.body) for h in at.get("html"))
    return re.sub(r"<style>.*?</style>", "", found, flags=re.S)


def words_on(at: AppTest) -> str:
    """All that a reader can read, but what people typed stays in."""
    kinds = ("title", "header", "subheader", "markdown", "text", "code", "warning", "info", "error")
    parts = [str(getattr(e, "label", "") or "") + str(e.value) for k in kinds for e in at.get(k)]
    parts += [b.label for b in at.button] + [e.label for e in at.get("expander")]
    return "\n".join([*parts, html_on(at)])


def sound(at: AppTest, language: str) -> None:
    """No exception, one title in the reader's language, no raw key, no unfilled slot, no fault box."""
    assert not at.exception
    assert len(at.title) == 1
    text = words_on(at)
    assert not KEY.search(re.sub(r"self_tuning\.yaml|safety\.hard|governance\.manual_apply", "", text)), (
        KEY.search(text)
    )
    assert "{" not in text and "(code " not in text and "(코드 " not in text
    assert bool(re.search("[가-힣]", at.title[0].value)) is (language == "ko")
    assert "page fault" not in text and "이 부분을 보여 드리지 못했습니다" not in text
    assert "This part could not be shown" not in text


def button(at: AppTest, key: str) -> object:
    """The button whose key begins so."""
    found = [b for b in at.button if str(b.key).startswith(key)]
    assert found, f"no button {key} among {[b.key for b in at.button]}"
    return found[0]
