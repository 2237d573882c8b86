"""A decision log that has grown too long goes on in a new file, and nothing of it is forgotten (F17)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from selftune.book import DECISIONS, Batch, DecisionDraft, EventDraft
from selftune.ledger import FileLedger
from selftune.stores import DiskStore, parts_of


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
