"""One contract for the ledger on disk and in memory; on disk also every fault at every operation."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from selftune import effectrows
from selftune.book import APPROVALS, DECISIONS, EFFECTS, HEARTBEAT, HISTORY, QUOTES, RISKS, SETTINGS
from selftune.domain import JsonDict, StaleSnapshot, StorageError
from selftune.files import Ops
from selftune.ledger import (
    Batch,
    Committed,
    DecisionDraft,
    EventDraft,
    FileLedger,
    MemoryLedger,
    missing_evidence,
    orphans,
)

T0 = 1_772_323_200_000  # 2026-03-01T09:00:00+09:00
OURS = (HISTORY, DECISIONS, APPROVALS, RISKS, QUOTES, EFFECTS)


@dataclass
class Clocks:
    """A wall clock and a steady clock that a test moves by hand."""

    wall: int = T0
    steady: int = T0

    def pass_(self, seconds: float) -> None:
        self.wall += round(seconds * 1000)
        self.steady += round(seconds * 1000)


@dataclass
class Bench:
    """A ledger under test, with the hand of a foreign program."""

    ledger: FileLedger | MemoryLedger
    put: Callable[[str, bytes], None]
    clocks: Clocks
    raw: Callable[[str], bytes]


@pytest.fixture(params=["file", "memory"])
def bench(request: pytest.FixtureRequest, root: Path) -> Bench:
    clocks = Clocks()

    def of_file(name: str, data: bytes) -> None:
        with open(root / name, "ab") as file:
            file.write(data)

    def wall() -> int:
        return clocks.wall

    def steady() -> int:
        return clocks.steady

    if request.param == "file":
        return Bench(
            FileLedger(root, timezone="Asia/Seoul", clock=wall, steady=steady),
            of_file,
            clocks,
            lambda name: (root / name).read_bytes(),
        )
    memory = MemoryLedger(timezone="Asia/Seoul", clock=wall, steady=steady, settings=b"a: 1\n")
    return Bench(memory, memory.put, clocks, lambda name: bytes(memory.store.data[name]))


def a_move(rule: str = "risk_max", old: float | None = 0.35, new: float = 0.33, **over: Any) -> EventDraft:
    return EventDraft(rule=rule, old=old, new=new, kind=over.pop("kind", "change"), actor="selftune", **over)


def a_change(*moves: EventDraft, **data: Any) -> DecisionDraft:
    return DecisionDraft(data={"kind": "cycle", "mode": "live", **data}, events=moves or (a_move(),))


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def foreign(seconds: float = 0, new: float = 0.31, **over: Any) -> bytes:
    ts = f"2026-03-01T09:00:{seconds:06.3f}+09:00"
    return line(**{"ts": ts, "actor": "person", "rule": "risk_max", "new": new, "note": "", **over})


# ----------------------------------------------------------------------------- commit
def test_a_change_is_written_as_the_contract_says(bench: Bench) -> None:
    before = bench.ledger.read()
    done = bench.ledger.commit(Batch(decisions=(a_change(a_move(note="why")),)), before.version)
    decision = json.loads(bench.raw(DECISIONS))
    event = json.loads(bench.raw(HISTORY))
    assert list(event) == ["ts", "actor", "rule", "old", "new", "note", "id", "kind", "decision"]
    assert (event["ts"], event["old"], event["new"]) == ("2026-03-01T09:00:00.000+09:00", 0.35, 0.33)
    assert decision["v"] == 1 and decision["id"] == event["decision"] == done.decisions[0]
    assert decision["applied"] == [event["id"]] == list(done.events[0])
    assert decision["intended"] == [
        {"id": event["id"], "rule": "risk_max", "old": 0.35, "new": 0.33, "kind": "change"}
    ]
    assert decision["approvals_head"] == {"n": 0, "sha256": "0" * 64}
    assert [e.key for e in done.records.events] == [event["id"]]
    assert done.records.events[0].decision == done.records.decisions[0].id
    assert not orphans(done.records)


def test_a_rollback_of_two_rules_is_one_decision_with_two_lines(bench: Bench) -> None:
    draft = a_change(
        a_move(kind="rollback", reverts="A", look=True),
        a_move("creative_min", 0.24, 0.22, kind="rollback", reverts="B"),
        reverts=["A", "B"],
    )
    done = bench.ledger.commit(Batch(decisions=(draft,)), None)
    events = done.records.events
    assert [(e.rule, e.reverts, e.look, e.kind) for e in events] == [
        ("risk_max", "A", True, "rollback"),
        ("creative_min", "B", False, "rollback"),
    ]
    assert {e.decision for e in events} == {done.decisions[0]}
    assert done.records.decisions[0].applied == tuple(e.key for e in events)


def test_an_empty_batch_writes_nothing_and_never_is_stale(bench: Bench) -> None:
    old = bench.ledger.read().version
    bench.put(HISTORY, foreign())
    done = bench.ledger.commit(Batch(), old)
    assert len(done.records.events) == 1 and len(done.records.decisions) == 0


@pytest.mark.parametrize("name", [HISTORY, DECISIONS, RISKS, QUOTES, APPROVALS])
def test_whatever_moved_since_the_reading_makes_the_commit_stale(bench: Bench, name: str) -> None:
    before = bench.ledger.read()
    bench.put(name, line(ts="2026-03-01T09:00:00+09:00", kind="x", rule="r", prev="0" * 64))
    with pytest.raises(StaleSnapshot, match=name):
        bench.ledger.commit(Batch(decisions=(a_change(),)), before.version)
    after = bench.ledger.read()
    assert not any(e.decision for e in after.events) and after.version != before.version
    bench.ledger.commit(Batch(decisions=(a_change(),)), after.version)


def test_metrics_and_effect_rows_make_nothing_stale(bench: Bench) -> None:
    before = bench.ledger.read()
    bench.put(EFFECTS, effectrows.render_header(effectrows.FAMILY))
    bench.ledger.commit(Batch(decisions=(a_change(),)), before.version)


def test_a_half_line_is_ended_before_we_decide_on_what_it_says(bench: Bench) -> None:
    bench.put(HISTORY, foreign(1, 0.35) + foreign(2, 0.30).rstrip(b"\n"))
    before = bench.ledger.read()
    assert before.events[-1].new == 0.35 and before.unfinished == (HISTORY,)
    with pytest.raises(StaleSnapshot):
        bench.ledger.commit(Batch(decisions=(a_change(),)), before.version)
    after = bench.ledger.read()
    assert after.events[-1].new == 0.30 and after.unfinished == ()


def test_our_lines_never_stand_behind_a_torn_one(bench: Bench) -> None:
    for name in (HISTORY, DECISIONS, RISKS, QUOTES):
        bench.put(name, b'{"ts": "2026-03-01T09:0')
    done = bench.ledger.commit(everything(), None)
    assert len(done.records.events) == 1 == len(done.records.decisions) == len(done.records.quotes)
    assert all(done.records.rejects[n] == {"not_json": 1} for n in (HISTORY, DECISIONS, RISKS, QUOTES))


def test_reserved_names_and_kindless_decisions_are_refused() -> None:
    for data in ({"kind": "cycle", "applied": []}, {"kind": "cycle", "ts": "x"}, {"mode": "live"}):
        with pytest.raises(ValueError):
            DecisionDraft(data=data)


def test_ids_are_unique_across_many_commits_in_one_millisecond(bench: Bench) -> None:
    for _ in range(30):
        bench.ledger.commit(Batch(decisions=(a_change(),) * 3), None)
    found = bench.ledger.read()
    ids = [d.id for d in found.decisions] + [e.key for e in found.events]
    assert len(ids) == len(set(ids)) == 180 and not found.rejects


def test_a_snapshot_does_not_grow_with_the_ledger(bench: Bench) -> None:
    before = bench.ledger.read()
    bench.ledger.commit(Batch(decisions=(a_change(),)), before.version)
    assert len(before.events) == 0 and list(before.decisions) == []
    after = bench.ledger.read()
    assert len(after.events) == 1 and after.events[-1] == after.events[0] and after.events[5:] == []
    with pytest.raises(IndexError):
        after.events[1]


# ----------------------------------------------------------------------------- evidence
def everything(effect: str = "K", rule_ts: str = "2026-03-01T09:00:00+09:00") -> Batch:
    return Batch(
        decisions=(a_change(),),
        governance=({"kind": "arm", "by": "kim", "role": "reviewer"},),
        warnings=({"severity": "warn", "rule": "risk_max", "signal": {}, "note": "n", "effect": effect},),
        quotes=(
            {
                "by": "selftune",
                "rule": "risk_max",
                "delta": {"risk": -0.02},
                "confidence": 0.9,
                "quote": "q",
                "effect": effect,
            },
        ),
        effect_rows=({"rule_ts": rule_ts, "rule": "risk_max", "d_risk": -0.02, "verdict": "IMPROVED"},),
    )


def test_evidence_is_written_once_however_often_it_is_computed(bench: Bench) -> None:
    assert bench.ledger.commit(everything(), None).skipped == ()
    # the same instant in another spelling is the same row
    again = bench.ledger.commit(everything(rule_ts="2026-03-01T00:00:00Z"), None)
    assert again.skipped == ("warning:K", "quote:K", "row:2026-03-01T00:00:00Z:risk_max")
    found = bench.ledger.read()
    assert (len(found.quotes), len(found.warnings), len(found.effect_rows)) == (1, 1, 1)


def test_evidence_twice_in_one_batch_is_written_once(bench: Bench) -> None:
    one = everything()
    bench.ledger.commit(
        Batch(quotes=one.quotes * 2, warnings=one.warnings * 2, effect_rows=one.effect_rows * 2), None
    )
    found = bench.ledger.read()
    assert (len(found.quotes), len(found.warnings), len(found.effect_rows)) == (1, 1, 1)


def test_a_row_by_anybody_counts_as_the_event_s_row(bench: Bench) -> None:
    bench.put(
        EFFECTS,
        effectrows.render_header(effectrows.FAMILY)
        + b"2026-03-01T09:00:00+09:00,tracker,risk_max,0.35,0.33,30,30,0,0,0,-0.01,,,\n",
    )
    assert bench.ledger.commit(everything(), None).skipped == ("row:2026-03-01T09:00:00+09:00:risk_max",)


def test_a_record_that_resolves_is_always_written(bench: Bench) -> None:
    bench.ledger.commit(everything(), None)
    resolve: JsonDict = {"severity": "info", "rule": "risk_max", "note": "", "effect": "K", "resolves": "K"}
    assert bench.ledger.commit(Batch(warnings=(resolve,)), None).skipped == ()


def test_what_evidence_is_missing_can_be_asked(bench: Bench) -> None:
    bench.put(HISTORY, foreign(0) + foreign(5))
    first, second = bench.ledger.read().events
    after = bench.ledger.commit(everything(first.key), None).records
    found = missing_evidence(after, [first, second])
    assert [(m.row, m.quote, m.warning) for m in found] == [(False, False, False), (True, True, True)]


def test_we_create_the_effects_file_with_our_header(bench: Bench) -> None:
    bench.ledger.commit(everything(), None)
    assert bench.raw(EFFECTS).split(b"\n")[0].decode() == effectrows.our_header_line()


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_existing_effects_file_keeps_its_header_and_line_ends(bench: Bench, end: bytes) -> None:
    start = b"rule,rule_ts,d_risk" + end + b"risk_max,2026-02-01T09:00:00+09:00,-0.01" + end
    bench.put(EFFECTS, start)
    bench.ledger.commit(everything(), None)
    assert bench.raw(EFFECTS) == start + b"risk_max,2026-03-01T09:00:00+09:00,-0.02" + end


def test_an_unknown_effects_header_gets_no_rows(bench: Bench) -> None:
    bench.put(EFFECTS, b"when,what\n")
    assert bench.ledger.commit(everything(), None).skipped == ("unknown_header",)
    assert bench.raw(EFFECTS) == b"when,what\n"


def test_a_header_of_ours_that_was_torn_is_written_again(bench: Bench) -> None:
    bench.put(EFFECTS, effectrows.our_header_line().encode()[:40])
    bench.ledger.commit(everything(), None)
    found = bench.ledger.read()
    assert found.effects_known and len(found.effect_rows) == 1


# ----------------------------------------------------------------------------- governance
def test_governance_is_chained_and_its_head_is_in_the_decisions(bench: Bench) -> None:
    edits: tuple[JsonDict, ...] = ({"kind": "edit", "by": "a", "role": "admin"},) * 2
    first = bench.ledger.commit(Batch(governance=edits), None)
    assert first.records.chain.ok and first.records.chain.n == 2
    one_batch = Batch(decisions=(a_change(),), governance=edits, governance_first=True)
    done = bench.ledger.commit(one_batch, first.version)
    assert done.lines[0]["approvals_head"]["n"] == 4
    assert [g.n for g in done.records.governance] == [1, 2, 3, 4]
    assert [g.id for g in done.records.governance][2:] == list(done.governance)
    late = bench.ledger.commit(Batch(decisions=(a_change(),), governance=edits), done.version)
    assert late.lines[0]["approvals_head"]["n"] == 4 and late.records.chain.n == 6


def test_a_torn_governance_line_is_set_aside_and_the_chain_goes_on(bench: Bench) -> None:
    edit: JsonDict = {"kind": "edit", "by": "a", "role": "admin"}
    bench.ledger.commit(Batch(governance=(edit,)), None)
    bench.put(APPROVALS, b'{"v": 1, "ts": "2026')
    done = bench.ledger.commit(Batch(governance=(edit,)), None)
    assert done.records.chain.ok and done.records.chain.n == 3 and len(done.records.governance) == 2


def test_a_broken_chain_s_head_is_not_written_as_the_truth(bench: Bench) -> None:
    bench.put(APPROVALS, line(kind="arm", by="me", role="admin", prev="f" * 64))
    done = bench.ledger.commit(Batch(decisions=(a_change(),)), None)
    assert done.records.chain.reason == "prev" and done.lines[0]["approvals_head"] is None


# ----------------------------------------------------------------------------- two clocks
def test_records_there_at_the_first_reading_have_their_wall_age(bench: Bench) -> None:
    bench.put(HISTORY, foreign(0) + foreign(50, ts="2026-03-01T10:00:00+09:00"))
    bench.clocks.pass_(30)
    bench.clocks.steady += 7_000  # the axes need not agree
    old, future = bench.ledger.read().events
    assert old.at_ms == bench.clocks.steady - 30_000
    assert future.at_ms == bench.clocks.steady, "a stamp in the future counts as now"


def test_a_record_that_arrives_while_we_live_is_no_older_than_the_reading_before(bench: Bench) -> None:
    bench.ledger.read()
    seen = bench.clocks.steady
    bench.clocks.pass_(10)
    bench.put(HISTORY, foreign(0, ts="2026-02-28T09:00:00+09:00") + foreign(6))
    backdated, honest = bench.ledger.read().events
    assert backdated.at_ms == seen and honest.at_ms == seen + 6_000


def test_a_jump_of_the_wall_clock_does_not_age_our_event(bench: Bench) -> None:
    bench.ledger.commit(Batch(decisions=(a_change(),)), bench.ledger.read().version)
    bench.clocks.wall += 86_400_000
    bench.clocks.pass_(5)
    event = bench.ledger.read().events[0]
    assert bench.clocks.steady - event.at_ms == 5_000
    bench.clocks.wall -= 2 * 86_400_000
    done = bench.ledger.commit(Batch(decisions=(a_change(),)), None)
    assert done.records.events[1].at_ms == bench.clocks.steady
    assert done.records.events[0].at_ms == event.at_ms


# ----------------------------------------------------------------------------- files that change
@pytest.fixture
def disk(root: Path) -> FileLedger:
    return FileLedger(root, timezone="Asia/Seoul")


def test_a_rotated_truncated_or_rewritten_file_is_read_again(root: Path, disk: FileLedger) -> None:
    history = root / HISTORY
    history.write_bytes(foreign(1) + foreign(2) + foreign(3))
    first = disk.read()
    history.unlink()
    history.write_bytes(foreign(4) + foreign(1))
    found = disk.read()
    assert [e.ts_ms % 60_000 for e in found.events] == [4_000, 1_000] and found.reread == {HISTORY: 1}
    assert found.events[1].at_ms == first.events[0].at_ms, "a known record keeps the instant it was seen"
    history.write_bytes(foreign(5))
    assert [e.ts_ms % 60_000 for e in disk.read().events] == [5_000]
    with open(history, "r+b") as file:  # same length, same inode, other bytes
        file.write(foreign(6))
    os.utime(history, ns=(1, 1))
    assert [e.ts_ms % 60_000 for e in disk.read().events] == [6_000]
    history.unlink()
    assert len(disk.read().events) == 0
    assert len(first.events) == 3, "older snapshots stay what they were"


def test_an_edit_in_the_middle_of_a_living_governance_file_shows(root: Path, disk: FileLedger) -> None:
    for _ in range(20):
        disk.commit(Batch(governance=({"kind": "edit", "by": "alice", "role": "admin"},)), None)
    assert disk.read().chain.ok
    whole = (root / APPROVALS).read_bytes()
    (root / APPROVALS).write_bytes(whole.replace(b"alice", b"carol", 1))
    assert disk.read().chain.reason == "prev"
    (root / APPROVALS).write_bytes(whole)
    assert disk.read().chain.ok


@pytest.mark.parametrize("lines_left", [0, 1, 4])
def test_a_cut_governance_tail_shows_at_once_and_after_a_restart(
    root: Path, disk: FileLedger, lines_left: int
) -> None:
    edit = Batch(decisions=(a_change(),), governance=({"kind": "edit"},), governance_first=True)
    for _ in range(5):
        disk.commit(edit, None)
    whole = (root / APPROVALS).read_bytes().splitlines(keepends=True)
    (root / APPROVALS).write_bytes(b"".join(whole[:lines_left]))
    assert disk.read().chain.reason == "head"
    assert FileLedger(root, timezone="UTC").read().chain.reason == "head"


def test_a_head_in_the_heartbeat_counts(root: Path) -> None:
    (root / HEARTBEAT).write_text(json.dumps({"approvals_head": {"n": 2, "sha256": "a" * 64}}))
    assert FileLedger(root, timezone="UTC").read().chain.reason == "head"
    (root / HEARTBEAT).write_text('{"approvals_head": [[[')
    assert FileLedger(root, timezone="UTC").read().chain.ok


def test_the_settings_bytes_are_those_of_the_version(root: Path, disk: FileLedger) -> None:
    before = disk.read()
    assert before.settings == (root / SETTINGS).read_bytes()
    with open(root / SETTINGS, "ab") as file:
        file.write(b"# edited\n")
    with pytest.raises(StaleSnapshot, match="settings"):
        disk.commit(Batch(decisions=(a_change(),)), before.version)


def test_a_huge_line_costs_no_memory_and_hides_nothing(root: Path, disk: FileLedger) -> None:
    with open(root / HISTORY, "wb") as file:
        file.write(foreign(1) + b'{"note": "')
        for _ in range(40):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + foreign(2))
    tracemalloc.start()
    found = disk.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [e.ts_ms % 60_000 for e in found.events] == [1_000, 2_000]
    assert found.rejects == {HISTORY: {"too_long": 1}} and peak < 20_000_000
    with open(root / HISTORY, "ab") as file:
        file.write(foreign(3))
    assert len(disk.read().events) == 3


def test_more_than_one_budget_of_lines_is_read_whole(root: Path, disk: FileLedger) -> None:
    one = foreign(1, note="n" * 4000)
    (root / HISTORY).write_bytes(one * 5000)  # 20 MB
    assert len(disk.read().events) == 5000


@pytest.mark.skipif(os.name == "nt", reason="no FIFOs or device files there")
@pytest.mark.parametrize("what", ["fifo", "folder", "device", "outside"])
def test_what_is_no_file_of_the_root_is_not_written(
    root: Path, disk: FileLedger, what: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "history.jsonl"
    outside.write_bytes(foreign(1))
    if what == "fifo":
        os.mkfifo(root / HISTORY)
    elif what == "folder":
        (root / HISTORY).mkdir()
    else:
        (root / HISTORY).symlink_to("/dev/zero" if what == "device" else outside)
    found = disk.read()
    assert len(found.events) == (1 if what == "outside" else 0)
    with pytest.raises(StorageError):
        disk.commit(Batch(decisions=(a_change(),)), None)
    assert outside.read_bytes() == foreign(1)


@pytest.mark.skipif(os.name == "nt", reason="file modes mean nothing there")
def test_the_governance_file_is_for_its_owner_only(root: Path, disk: FileLedger) -> None:
    disk.commit(everything(), None)
    assert stat.S_IMODE((root / APPROVALS).stat().st_mode) == 0o600


def test_several_threads_may_share_one_ledger(root: Path, disk: FileLedger) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def work(_: int) -> Committed:
        return disk.commit(Batch(decisions=(a_change(),)), None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))
    assert len(disk.read().events) == 40 and not orphans(disk.read())


# ----------------------------------------------------------------------------- faults
class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it and go on."""


@dataclass
class FaultyOps(Ops):
    """Fails at the `at`-th operation in the way `how`; counts the operations."""

    at: int = -1
    how: str = ""
    count: int = 0
    hit: bool = field(default=False)

    def _due(self) -> bool:
        self.count += 1
        self.hit = self.hit or self.count - 1 == self.at
        return self.count - 1 == self.at

    def _around(self, name: str, *args: Any) -> Any:
        due = self._due()
        if due and self.how == "kill":
            raise Killed
        if due and self.how == "eio":
            raise OSError(errno.EIO, "Input/output error")
        if due and self.how == "enospc" and name in ("write", "fsync", "open"):
            raise OSError(errno.ENOSPC, "No space left on device")
        if due and self.how in ("short", "torn") and name == "write":
            fd, data = args
            taken = super().write(fd, data[: len(data) // 2])
            if self.how == "torn":
                raise Killed
            return taken
        found = getattr(super(), name)(*args)
        if due and self.how == "kill_after":
            raise Killed
        return found

    def open(self, path: str, flags: int, mode: int) -> int:
        return self._around("open", path, flags, mode)  # type: ignore[no-any-return]

    def read(self, fd: int, n: int) -> bytes:
        return self._around("read", fd, n)  # type: ignore[no-any-return]

    def write(self, fd: int, data: bytes) -> int:
        return self._around("write", fd, data)  # type: ignore[no-any-return]

    def seek(self, fd: int, offset: int, whence: int) -> int:
        return self._around("seek", fd, offset, whence)  # type: ignore[no-any-return]

    def fsync(self, fd: int) -> None:
        if self._due():  # without the disk's own time: here only the order and the failure count
            if self.how in ("eio", "enospc"):
                raise OSError(errno.EIO, "Input/output error")
            if self.how in ("kill", "kill_after"):
                raise Killed

    def fstat(self, fd: int) -> os.stat_result:
        return self._around("fstat", fd)  # type: ignore[no-any-return]

    def stat(self, path: str) -> os.stat_result:
        return self._around("stat", path)  # type: ignore[no-any-return]

    def sleep(self, seconds: float) -> None:
        pass


START = {
    HISTORY: foreign(1, 0.36),
    DECISIONS: line(ts="2026-02-01T09:00:00+09:00", kind="suggest"),
    EFFECTS: effectrows.render_header(effectrows.FAMILY),
}


def a_root(folder: Path) -> Path:
    for name in ("configs", "controls", "logs"):
        (folder / name).mkdir(parents=True)
    for name, data in START.items():
        (folder / name).write_bytes(data)
    return folder


def two_commits(root: Path, ops: Ops) -> Iterator[Committed]:
    ledger = FileLedger(root, timezone="Asia/Seoul", ops=ops)
    expect = ledger.read().version
    for effect in ("K1", "K2"):
        done = ledger.commit(everything(effect), expect)
        expect = done.version
        yield done


def abandon_what_is_lost(ledger: FileLedger) -> None:
    """What a restart does first. A torn tail that the commit ends makes the first reading stale."""
    for _ in range(2):
        before = ledger.read()
        drafts = tuple(
            DecisionDraft(data={"kind": "cycle", "abandoned": list(o.keys)}) for o in orphans(before)
        )
        try:
            ledger.commit(Batch(decisions=drafts), before.version)
            return
        except StaleSnapshot:
            continue
    pytest.fail("stale twice, with nobody else writing")


def sound_after_restart(root: Path, reported: list[Committed]) -> None:
    """Promises F1-F4, judged on the files alone after one restart."""
    ledger = FileLedger(root, timezone="Asia/Seoul", ops=FaultyOps())
    abandon_what_is_lost(ledger)
    after = ledger.commit(everything("K3"), None).records
    for name, data in START.items():
        assert (root / name).read_bytes().startswith(data), "nobody's line is rewritten"
    assert not orphans(after)
    ours = [e for e in after.events if e.decision]
    for event in ours:
        assert sum(event.key in d.applied for d in after.decisions) == 1
    for done in reported:  # what was reported done is there
        assert {k for keys in done.events for k in keys} <= {e.key for e in ours}
        assert set(done.decisions) <= {d.id for d in after.decisions}
    assert all("duplicate_id" not in r for r in after.rejects.values())
    for name in OURS:
        assert after.rejects.get(name, {}).keys() <= {"not_json", "cells", "bad_ts"}
        assert (root / name).read_bytes().endswith(b"\n")
    assert after.chain.ok
    for effect in ("K1", "K2", "K3"):
        assert sum(q.effect == effect for q in after.quotes) <= 1
        assert sum(w.effect == effect for w in after.warnings) <= 1
    assert len({r.key for r in after.effect_rows}) == len(after.effect_rows) == 1


@pytest.mark.parametrize("how", ["kill", "kill_after", "torn", "short", "eio", "enospc"])
def test_any_fault_at_any_operation_leaves_a_sound_root(tmp_path: Path, how: str) -> None:
    counting = FaultyOps()
    list(two_commits(a_root(tmp_path / "count"), counting))
    assert counting.count > 100
    writes_only = how in ("torn", "short", "enospc")
    for at in range(counting.count):
        ops = FaultyOps(at=at, how=how)
        root = a_root(tmp_path / f"{at}")
        reported: list[Committed] = []
        try:
            reported.extend(two_commits(root, ops))
        except Killed:
            assert how in ("kill", "kill_after", "torn")
        except StorageError:
            assert how in ("short", "eio", "enospc")
        except StaleSnapshot:  # a file that could not be read at first can be now
            assert how in ("eio", "enospc")
        assert ops.hit or writes_only
        sound_after_restart(root, reported)


@pytest.mark.parametrize("how", ["short", "eio", "enospc"])
def test_with_space_back_the_same_process_goes_on(tmp_path: Path, how: str) -> None:
    for at in range(60, 140, 3):
        root = a_root(tmp_path / f"{at}")
        ops = FaultyOps(at=at, how=how)
        ledger = FileLedger(root, timezone="Asia/Seoul", ops=ops)
        ledger.read()
        failed = False
        try:
            ledger.commit(everything("K1"), None)
        except StorageError:
            failed = True
        before = ledger.read()
        done = ledger.commit(Batch(decisions=(a_change(),)), before.version)
        assert len(done.records.events) == len(before.events) + 1
        assert failed or len(before.events) == 2


def test_a_failed_decision_moves_no_rule(tmp_path: Path) -> None:
    class NoDecision(Ops):
        def fsync(self, fd: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

    root = a_root(tmp_path / "r")
    ledger = FileLedger(root, timezone="Asia/Seoul", ops=NoDecision())
    with pytest.raises(StorageError, match="Input/output"):
        ledger.commit(Batch(decisions=(a_change(),)), None)
    assert (root / HISTORY).read_bytes() == START[HISTORY]


# ----------------------------------------------------------------------------- many writers
def _our_writer(root: str, n: int, out: Any) -> None:
    ledger = FileLedger(Path(root), timezone="Asia/Seoul")
    keys = []
    for _ in range(n):
        while True:
            try:
                keys.append(ledger.commit(Batch(decisions=(a_change(),)), ledger.read().version).events[0][0])
                break
            except StaleSnapshot:
                continue
    out.put(keys)


def _foreign_writer(root: str, name: str, n: int, parts: int) -> None:
    import time

    fd = os.open(Path(root) / HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for i in range(n):
        data = foreign(1, actor=name, note=str(i))
        cut = len(data) // 2 if parts == 2 else len(data)
        os.write(fd, data[:cut])
        if parts == 2:
            time.sleep(0.003)
            os.write(fd, data[cut:])
        time.sleep(0.002)
    os.close(fd)


def _run(targets: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=t, args=a) for t, a in targets]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0


def test_writers_with_and_without_the_lock_lose_nothing(root: Path) -> None:
    out = multiprocessing.get_context("spawn").Queue()
    (root / HISTORY).touch()
    _run(
        [
            *((_our_writer, (str(root), 60, out)) for _ in range(2)),
            *((_foreign_writer, (str(root), name, 100, 1)) for name in ("a", "b")),
        ]
    )
    keys = [k for _ in range(2) for k in out.get()]
    lines = (root / HISTORY).read_bytes().splitlines(keepends=True)
    for name in ("a", "b"):
        assert [x for x in lines if f'"{name}"'.encode() in x] == [
            foreign(1, actor=name, note=str(i)) for i in range(100)
        ]
    found = FileLedger(root, timezone="Asia/Seoul").read()
    assert sorted(keys) == sorted(e.key for e in found.events if e.decision)
    assert len(found.events) == 320 and not found.rejects and not orphans(found)


def test_a_foreign_writer_in_two_parts_never_tears_a_line_of_ours(root: Path) -> None:
    out = multiprocessing.get_context("spawn").Queue()
    (root / HISTORY).touch()
    _run([(_our_writer, (str(root), 60, out)), (_foreign_writer, (str(root), "slow", 60, 2))])
    keys = out.get()
    found = FileLedger(root, timezone="Asia/Seoul").read()
    assert sorted(e.key for e in found.events if e.decision) == sorted(keys)
    assert not orphans(found)
