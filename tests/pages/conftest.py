"""Pages under test look at the files anew each time: what a test writes is seen by its next look."""

from __future__ import annotations

import pytest

from selftune import office


@pytest.fixture(autouse=True)
def _every_look_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office, "SHARE_S", 0.0)
    monkeypatch.setattr("selftune.view.SLOT_S", 0.0)
    monkeypatch.setattr("selftune.pace.BUSY", 1e9)  # a process that runs tests is busy without any reader
