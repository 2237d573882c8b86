"""Many sessions share one look at the files, and what was prepared from it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from selftune import catalogue, hands, ui
from selftune.access import Action
from selftune.chart_kit import ChartView, Look, Say
from selftune.charts import Span, score_chart
from selftune.desk import Desk
from selftune.domain import Refused, Role
from selftune.ledger import FileLedger
from selftune.office import Office
from selftune.picture import Picture
from selftune.plan import Act


@pytest.mark.parametrize(("sessions", "shared"), [(1, False), (20, True)])
def test_where_many_look_a_look_is_shared_for_longer(root: Path, sessions: int, shared: bool) -> None:
    office = Office(root)
    for i in range(sessions):
        office.pace.every_s(f"s{i}", "banner", 2.0)
    office.pace.every_s("s0", "charts", 5.0)  # the same one twice is one
    assert office.pace.sessions == sessions
    first = office.glance().slot
    time.sleep(0.5)
    assert (office.glance().slot == first) is shared


def test_a_chart_is_prepared_once_a_look_and_again_for_the_next(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, made, look = Desk(root), [], Look()
    monkeypatch.setattr(ui, "shared", lambda: desk)
    monkeypatch.setattr(ui, "look", lambda now: look)

    def make() -> ChartView:
        made.append(1)
        return score_chart([0, 1000], [0.1, 0.2], Span(start_ms=0, end_ms=1000), look=look,
                           say=Say("ko", catalogue.load()))  # fmt: skip

    now = desk.now()
    first = ui.prepared(now, "score", make)
    assert ui.prepared(now, "score", make) is first and len(made) == 1
    assert first.packed is not None and first.packed.keys() == first.datasets.keys()
    ui.prepared(now, "another", make)
    look = Look(language="en")  # another reader's language is another picture
    ui.prepared(now, "score", make)
    time.sleep(0.5)
    ui.prepared(desk.now(), "score", make)
    assert len(made) == 4


@pytest.mark.parametrize("settings", [None, b"targets: ["])
def test_who_came_is_on_record_also_without_valid_settings(root: Path, settings: bytes | None) -> None:
    if settings is not None:
        (root / "configs" / "self_tuning.yaml").write_bytes(settings)
    office = Office(root)
    for _ in range(2):
        office.note({"kind": "signin", "by": "kim", "role": "operator"})
    read = FileLedger(root, timezone="Asia/Seoul").read()
    assert read.chain.ok and [g.kind for g in read.governance] == ["signin", "signin"]


def test_a_role_that_is_gone_when_it_is_asked_in_the_core_changes_nothing(root: Path) -> None:
    """Asked twice, first before waiting for the lock; the second answer counts."""
    office, roles = Office(root), [Role.OPERATOR, Role.VIEWER]

    def stop(p: Picture) -> tuple[Act, ...]:
        return hands.stop(p, actor="kim", role="operator", reason="")

    with pytest.raises(Refused) as caught:
        office.act(Action.STOP, stop, actor="kim", role=lambda: roles.pop(0))
    assert caught.value.reasons[0].code == "access.denied" and roles == []
    assert not (root / "controls" / "approvals.jsonl").exists()
