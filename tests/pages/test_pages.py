"""Every page in every state and both languages, through the frame, with the identity given in process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from selftune import catalogue, ui
from selftune.domain import Role
from selftune.view import Visitor
from tests.conftest import CHECKOUT

FRAME = CHECKOUT / "selftune" / "frame.py"
PAGES = {
    "overview": "../pages/overview.py",
    "trends": "../pages/trends.py",
    "help": "../pages/help.py",
}
SEOUL = timezone(timedelta(hours=9))
STATES = ("no_data", "full", "stale", "bad_settings", "no_settings", "bad_rows")
HEADER = "ts,phase_diff,entropy_rate,creative_band,risk_band\n"


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ui, "current_identity", lambda: Visitor(name="kim", role=Role.OPERATOR))
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def prepare(root: Path, state: str) -> None:
    """The data root in one state."""
    if state in ("full", "stale", "bad_rows"):
        end = datetime.now(UTC) - timedelta(minutes=20 if state == "stale" else 0)
        times = (end - timedelta(seconds=0.2 * k) for k in range(900, -1, -1))
        rows = [f"{t.astimezone(SEOUL).isoformat()},0.068,0.262,0.234,0.319\n" for t in times]
        if state == "bad_rows":
            rows[10:12] = ["not a row\n", "2026-01-01T00:00:00+09:00,x,y,z,w\n"]
        (root / "logs" / "metrics.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    if state == "no_settings":
        (root / "configs" / "self_tuning.yaml").unlink()
    if state == "bad_settings":
        path = root / "configs" / "self_tuning.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("targets:", "tragets:"), encoding="utf-8")


def opened(page: str, root: Path, monkeypatch: pytest.MonkeyPatch, language: str) -> AppTest:
    monkeypatch.setenv("SELFTUNE_ROOT", str(root))
    at = AppTest.from_file(FRAME, default_timeout=60)
    at.query_params["lang"] = language
    at.run()
    return at if page == "overview" else at.switch_page(PAGES[page]).run()


def words_on(at: AppTest) -> str:
    kinds = ("title", "header", "subheader", "markdown", "text", "code", "warning", "info", "metric", "error")
    parts = [str(getattr(e, "label", "") or "") + str(e.value) for k in kinds for e in at.get(k)]
    return "\n".join([*parts, *(str(h.proto.body) for h in at.get("html"))])


@pytest.mark.parametrize("language", catalogue.LANGUAGES)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, state: str, language: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception, one first heading, no raw key, no unfilled slot, the reader's own language."""
    prepare(root, state)
    at = opened(page, root, monkeypatch, language)
    assert not at.exception
    assert len(at.title) == 1
    text = words_on(at)
    assert not re.search(
        r"\b(overview|help|banner|frame|card|chart|problem|reject|trends|need|doing)\.[a-z_]+\b", text
    ), text
    assert "{" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S) and "(code " not in text
    assert "(코드 " not in text
    hangul = len(re.findall("[가-힣]", at.title[0].value))
    assert (hangul > 0) is (language == "ko")


def test_no_data_says_where_and_how_to_start_the_demo(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened("overview", root, monkeypatch, "en")
    codes = [c.value for c in at.code]
    assert str(root / "logs" / "metrics.csv") in codes and "python -m selftune up --demo" in codes
    assert not at.metric


def test_full_shows_each_metric_against_its_target(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "full")
    at = opened("overview", root, monkeypatch, "en")
    assert at.title[0].value == "3 of 4 metrics are off target; the loop is not running"
    assert {m.label: m.value for m in at.metric if m.label != "Score"} == {
        "Phase difference": "0.068", "Creative band": "0.234", "Risk band": "0.319", "Entropy rate": "0.262"
    }  # fmt: skip
    text = words_on(at)
    assert "0.018 too high" in text and "0.006 too low" in text and "on target" in text


def test_old_data_never_look_fresh(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "stale")
    at = opened("overview", root, monkeypatch, "en")
    assert at.title[0].value == "Values have stopped arriving"
    assert "No new values since" in at.warning[0].value
    assert "Hatching" in words_on(at)


def test_invalid_settings_name_the_line_and_the_mend(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "bad_settings")
    at = opened("overview", root, monkeypatch, "en")
    text = words_on(at)
    assert "tragets" in text and "targets" in text and "self_tuning.yaml" in text
    assert "python -m selftune check" in text and not at.metric


def test_settings_that_break_later_keep_the_last_valid_ones(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(root, "full")
    at = opened("overview", root, monkeypatch, "en")
    prepare(root, "bad_settings")
    monkeypatch.setattr("selftune.office.SHARE_S", -1.0)
    at.run()
    text = words_on(at)
    assert len(at.metric) == 5  # four metrics and the score
    assert "last valid settings" in text and "tragets" in text


def test_skipped_rows_are_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, "bad_rows")
    text = words_on(opened("overview", root, monkeypatch, "en"))
    assert re.search(r"\d+ lines and cells skipped", text)


def test_help_works_with_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = opened("help", tmp_path / "nowhere", monkeypatch, "ko")
    assert not at.exception
    assert "작은 걸음 6번" in at.info[0].value


def test_what_others_look_for_half_loaded_is_loaded_before_anything_is_drawn() -> None:
    """Altair asks whether pandas is there while another session's thread may still be loading it."""
    run = (
        "import sys; from streamlit.testing.v1 import AppTest;"
        f"AppTest.from_file({str(FRAME)!r}, default_timeout=60).run();"  # closed: it draws no figure at all
        "sys.exit(0 if 'pandas' in sys.modules else 1)"
    )
    assert subprocess.run([sys.executable, "-c", run], cwd=CHECKOUT, timeout=120).returncode == 0
