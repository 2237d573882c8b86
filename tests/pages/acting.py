"""What the tests of the acting pages share: a root in one state, a visitor of one role, a page opened."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from selftune import catalogue, ui
from selftune.domain import Role
from selftune.view import Visitor
from tests.conftest import CHECKOUT

SEOUL = timezone(timedelta(hours=9))
STATES = ("no_data", "full", "stale", "bad_settings", "no_settings")
HEADER = "ts,phase_diff,entropy_rate,creative_band,risk_band\n"


def prepare(root: Path, state: str) -> None:
    """The data root in one state."""
    if state in ("full", "stale"):
        end = datetime.now(UTC) - timedelta(minutes=20 if state == "stale" else 0)
        times = (end - timedelta(seconds=0.2 * k) for k in range(2400, -1, -1))
        rows = [f"{t.astimezone(SEOUL).isoformat()},0.068,0.262,0.234,0.285\n" for t in times]
        (root / "logs" / "metrics.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    path = root / "configs" / "self_tuning.yaml"
    if state == "no_settings":
        path.unlink()
    if state == "bad_settings":
        path.write_text(path.read_text(encoding="utf-8").replace("targets:", "tragets:"), encoding="utf-8")


def visit(monkeypatch: pytest.MonkeyPatch, role: Role, name: str = "kim") -> None:
    """The visitor of all runs from now on."""
    st.cache_resource.clear()
    monkeypatch.setattr(ui, "current_identity", lambda: Visitor(name=name, role=role))


def opened(page: str, root: Path, monkeypatch: pytest.MonkeyPatch, language: str) -> AppTest:
    """The page through the frame, as a browser would open it."""
    monkeypatch.setenv("SELFTUNE_ROOT", str(root))
    at = AppTest.from_file(CHECKOUT / "selftune" / "frame.py", default_timeout=60)
    at.query_params["lang"] = language
    at.run()
    return at.switch_page(f"../pages/{page}.py").run()


def words_on(at: AppTest) -> str:
    """Every text of the page."""
    kinds = ("title", "header", "subheader", "markdown", "text", "code", "warning", "info", "metric", "error")
    parts = [str(getattr(e, "label", "") or "") + str(e.value) for k in kinds for e in at.get(k)]
    fields = [str(e.label) for k in ("number_input", "selectbox", "button") for e in at.get(k)]
    return "\n".join([*parts, *fields, *(str(h.proto.body) for h in at.get("html"))])


def said_well(at: AppTest, language: str) -> str:
    """The page's words, after the checks that hold for every page: no fault, one heading, no raw key."""
    assert not at.exception
    assert len(at.title) == 1
    text = re.sub(r"<style>.*?</style>", "", words_on(at), flags=re.S)
    assert catalogue.load()[language]["frame.fault_title"] not in text, text  # a fault stays inside its part
    heads = "targets|draft|review|readiness|track|backtest|revision|revise|nav|desk|problem"
    raw = rf"\b(?:{heads})\.[a-z]+_?[a-z_]*\b"
    assert not re.findall(raw, text.replace("targets.risk_band", "").replace("readiness.luck", "")), text
    assert "{" not in text and "(code " not in text and "(코드 " not in text, text
    assert bool(re.search("[가-힣]", at.title[0].value)) is (language == "ko")
    return text
