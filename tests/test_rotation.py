"""A decision log that has grown too long goes on in a new file, and nothing of it is forgotten (F17)."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest

from selftune.book import DECISIONS, Batch, DecisionDraft, EventDraft
from selftune.checkup import Level, checkup
from selftune.domain import StaleSnapshot
from selftune.ledger import FileLedger
from selftune.parts import parts_of
from selftune.stores import DiskStore
from tests.life import LIVE_TEXT, QuickOps, lay_out


def small_ledger(root: Path, limit: int = 4000) -> FileLedger:
    ledger = FileLedger(root, timezone="Asia/Seoul")
    ledger.store = DiskStore(root, rotate_bytes=limit)
    return ledger


def write(ledger: FileLedger, n: int) -> list[str]:
    ids: list[str] = []
    for i in range(n):
        event = EventDraft(rule="risk_max", old=0.35, new=0.3 + i / 1000, kind="change", actor="selftune")
        draft = DecisionDraft(data={"kind": "cycle", "act": "step", "note": "x" * 200}, events=(event,))
        ids += ledger.commit(Batch(decisions=(draft,)), expect=ledger.read().version).decisions
    return ids


def test_every_decision_is_read_in_order_over_all_parts(tmp_path: Path) -> None:
    ids = write(small_ledger(tmp_path), 40)
    assert len(parts_of(tmp_path / DECISIONS)) >= 3
    read = [d.id for d in FileLedger(tmp_path, timezone="Asia/Seoul").read().decisions if d.act == "step"]
    assert read == ids


def test_a_new_file_names_the_part_before_it(tmp_path: Path) -> None:
    write(small_ledger(tmp_path), 40)
    parts = parts_of(tmp_path / DECISIONS)
    files = [*parts[1:], tmp_path / DECISIONS]
    for part, following in zip(parts, files, strict=True):
        first = json.loads(following.read_bytes().split(b"\n")[0])
        assert first["act"] == "rotated"
        assert first["previous"]["file"] == part.name
        assert first["previous"]["sha256"] == hashlib.sha256(part.read_bytes()).hexdigest()


def test_a_reader_in_another_process_follows_a_rotation(tmp_path: Path) -> None:
    writer, reader = small_ledger(tmp_path), FileLedger(tmp_path, timezone="Asia/Seoul")
    seen: list[str] = []
    ids: list[str] = []
    for _ in range(12):
        ids += write(writer, 3)
        seen = [d.id for d in reader.read().decisions if d.act == "step"]
        assert seen == ids
    assert parts_of(tmp_path / DECISIONS)


def test_the_rule_history_is_never_put_aside(tmp_path: Path) -> None:
    write(small_ledger(tmp_path, limit=500), 20)
    lines = (tmp_path / "controls/rules_history.jsonl").read_bytes().splitlines()
    assert len(lines) == 20
    assert [p.name for p in (tmp_path / "controls").iterdir()] == ["rules_history.jsonl"]


class Died(Exception):
    """The process is gone."""


class Dying(QuickOps):
    """Dies at the `at`th operation; a write is cut in the middle."""

    def __init__(self, at: int) -> None:
        self.at, self.n = at, 0

    def _step(self) -> None:
        self.n += 1
        if self.n == self.at:
            raise Died

    def open(self, path: str, flags: int, mode: int) -> int:
        self._step()
        return super().open(path, flags, mode)

    def write(self, fd: int, data: bytes) -> int:
        try:
            self._step()
        except Died:
            super().write(fd, data[: len(data) // 2])
            raise
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._step()
        super().fsync(fd)

    def replace(self, source: str, target: str) -> None:
        self._step()
        super().replace(source, target)


def test_a_kill_anywhere_in_a_rotation_loses_no_decision_and_no_link(tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        root = lay_out(tmp_path / str(at), LIVE_TEXT)
        ids = write(small_ledger(root), 2)
        dying = Dying(at)
        ledger = FileLedger(root, timezone="Asia/Seoul")
        ledger.read()
        ledger.store = DiskStore(root, ops=dying, rotate_bytes=500)
        try:
            ids += write(ledger, 1)
        except Died:
            ids += after_the_restart(root)
        else:
            break
        read = [d.id for d in FileLedger(root, timezone="Asia/Seoul").read().decisions if d.act == "step"]
        assert read[:2] == ids[:2] and ids[2] in read, f"killed at operation {at}"
        linked(root)
        bad = [f.item.code for f in checkup(root).of(Level.FILE)]
        assert not bad, f"killed at operation {at}: {bad}"
    assert at > 10 and parts_of(root / DECISIONS)


def after_the_restart(root: Path) -> list[str]:
    """One more decision; a half line that the kill left is ended first, which is news to the writer."""
    try:
        return write(small_ledger(root), 1)
    except StaleSnapshot:
        return write(small_ledger(root), 1)


def linked(root: Path) -> None:
    """Every part is named by the file after it."""
    files = [*parts_of(root / DECISIONS), root / DECISIONS]
    for part, following in pairwise(files):
        said = [json.loads(x) for x in following.read_bytes().splitlines() if x.endswith(b"}")]
        assert any(r.get("act") == "rotated" and r["previous"]["file"] == part.name for r in said)


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_check_names_a_part_that_is_lost_or_edited(root: Path, how: str) -> None:
    write(small_ledger(root), 40)
    assert checkup(root).exit_code == 0
    part = parts_of(root / DECISIONS)[1]
    if how == "gone":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes().replace(b"x" * 200, b"y" * 200))
    (found,) = [f for f in checkup(root).findings if f.item.code.startswith("check.part_")]
    assert (found.file, found.item.code) == (f"logs/{part.name}", f"check.part_{how}")
    assert checkup(root).exit_code == (0 if how == "gone" else 3)
