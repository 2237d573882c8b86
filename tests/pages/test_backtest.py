"""The page of the backtest before there is one: it says so, shows no figure, and leads on."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftune.catalogue import LANGUAGES
from selftune.domain import Role
from tests.pages.acting import STATES, opened, prepare, said_well, visit


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("state", STATES)
def test_it_says_that_it_comes_later(
    state: str, language: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(monkeypatch, Role.VIEWER)
    prepare(root, state)
    at = opened("backtest", root, monkeypatch, language)
    said_well(at, language)
    assert len(at.info) == 1 and not at.metric and not at.get("vega_lite_chart")
    assert len(at.get("page_link")) >= 3
