"""Whole files of our own: readers see the old or the new content, whatever fails in between."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selftune.domain import StorageError
from selftune.files import Ops, Tail, append, clean_temps, mend, read_small, replace, replace_known
from tests.test_ledger import FaultyOps, Killed


@pytest.mark.parametrize("durable", [True, False])
def test_a_replaced_file_holds_the_new_bytes_and_no_temp_stays(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "sub" / "status.json"
    replace(path, b"one", durable=durable)
    replace(path, b"two", durable=durable)
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["status.json"]


@pytest.mark.parametrize("how", ["kill", "kill_after", "torn", "eio", "enospc"])
def test_any_fault_while_replacing_leaves_old_or_new(tmp_path: Path, how: str) -> None:
    path = tmp_path / "settings.yaml"
    replace(path, b"x" * 5000, durable=True, ops=(counting := FaultyOps()))
    for at in range(counting.count):
        path.write_bytes(b"old")
        done = False
        try:
            replace(path, b"n" * 5000, durable=True, ops=FaultyOps(at=at, how=how))
            done = True
        except (Killed, StorageError):
            pass
        assert path.read_bytes() in ((b"n" * 5000,) if done else (b"old", b"n" * 5000))
        clean_temps(tmp_path, older_than_s=0)
        assert os.listdir(tmp_path) == ["settings.yaml"]


def test_a_disk_that_takes_a_little_at_a_time_gets_it_all(tmp_path: Path) -> None:
    class Slow(Ops):
        def write(self, fd: int, data: bytes) -> int:
            return super().write(fd, data[:7])

    replace(tmp_path / "a", b"0123456789" * 5, durable=True, ops=Slow())
    assert (tmp_path / "a").read_bytes() == b"0123456789" * 5


def test_young_temps_are_left_to_their_living_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    young, old, other = (tmp_path / n for n in (".a.1-x.selftune-tmp", ".b.2-x.selftune-tmp", ".editor.swp"))
    for path in (young, old, other):
        path.touch()
    later = time.time() + 100
    os.utime(young, (later - 10, later - 10))
    monkeypatch.setattr("selftune.files.time.time", lambda: later)
    assert clean_temps(tmp_path) == 1 and young.exists() and other.exists()


@pytest.mark.skipif(os.name == "nt", reason="file modes mean nothing there")
def test_modes_are_as_asked(tmp_path: Path) -> None:
    replace(tmp_path / "users.yaml", b"x", durable=True, mode=0o600)
    append(tmp_path / "approvals", [b"x\n"], root=tmp_path, mode=0o600)
    for name in ("users.yaml", "approvals"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


class Busy(Ops):
    """An editor that takes no lock does something right before or after we put our file in place."""

    def __init__(self, before: Callable[[], None] | None, after: Callable[[], None] | None) -> None:
        self.before, self.after = before, after

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        if self.before:
            self.before()

    def replace(self, source: str, target: str) -> None:
        super().replace(source, target)
        now, self.after = self.after, None
        if now:
            now()


def test_what_an_editor_writes_while_we_replace_is_never_lost(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"

    def put(ops: Ops, base: bytes = b"old") -> bytes | None:
        return replace_known(path, base, b"ours", limit=100, ops=ops)

    def theirs() -> None:
        path.write_bytes(b"theirs")

    for missing in (True, False):
        path.unlink(missing_ok=True)
        if not missing:
            theirs()
        assert put(Busy(None, None)) == (None if missing else b"theirs")
    path.write_bytes(b"old")
    path.chmod(0o640)
    assert put(Ops()) == b"ours" == path.read_bytes() and stat.S_IMODE(path.stat().st_mode) == 0o640
    path.write_bytes(b"old")
    assert put(Busy(theirs, None)) == b"theirs" == path.read_bytes(), "right before the swap"
    path.write_bytes(b"old")
    with path.open("r+b") as editor:  # opened before the swap, saved right after it

        def save() -> None:
            editor.write(b"theirs")
            editor.flush()

        assert put(Busy(None, save)) == b"theirs" == path.read_bytes()
        editor.write(b", and on")
    assert path.read_bytes() == b"theirs, and on", "their handle is the file itself"
    path.write_bytes(b"old")
    assert put(Busy(None, theirs)) == b"ours" and path.read_bytes() == b"theirs", "after ours: theirs stands"
    assert [f.name for f in tmp_path.iterdir()] == ["settings.yaml"]


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("failing", ["sync", "back", "both"])
def test_a_disk_that_fails_after_the_swap_leaves_what_was_there(
    failing: str, edited: bool, tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"old")

    class Failing(Ops):
        swaps = 0

        def replace(self, source: str, target: str) -> None:
            self.swaps += 1
            if self.swaps == 1 and edited:
                handle.write(b"theirs")
                handle.flush()
            if self.swaps > 1 and failing != "sync":
                raise OSError(28, "no room")
            super().replace(source, target)

        def fsync(self, fd: int) -> None:
            if self.swaps and failing != "back":
                raise OSError(5, "bad disk")
            super().fsync(fd)

    with path.open("r+b") as handle:
        if failing == "back" and not edited:  # then there is nothing to give back
            assert replace_known(path, b"old", b"ours", limit=100, ops=Failing()) == b"ours"
            return
        with pytest.raises(StorageError, match=r"no room|bad disk") as said:
            replace_known(path, b"old", b"ours", limit=100, ops=Failing())
    before = b"theirs" if edited else b"old"
    if failing == "sync":
        assert path.read_bytes() == before and [f.name for f in tmp_path.iterdir()] == ["settings.yaml"]
    else:
        (kept,) = (f for f in tmp_path.iterdir() if f != path)
        assert kept.read_bytes() == before and kept.name in str(said.value)


def test_a_second_name_is_not_swept_away_with_old_temps(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"old")
    os.utime(path, (1, 1))  # a file that nobody touched for long

    def sweep() -> None:
        assert clean_temps(tmp_path) == 0

    assert replace_known(path, b"old", b"ours", limit=100, ops=Busy(sweep, sweep)) == b"ours"


@pytest.mark.parametrize("failing", ["link", "replace"])
def test_what_cannot_be_put_in_place_leaves_the_old_file_and_no_temp(failing: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"old")
    ops = Ops()

    def no(source: str, target: str) -> None:
        raise OSError(28, "no room")

    setattr(ops, failing, no)
    if failing == "link":  # not every file system has second names
        assert replace_known(path, b"old", b"ours", limit=100, ops=ops) == b"ours"
    else:
        with pytest.raises(StorageError, match="no room"):
            replace_known(path, b"old", b"ours", limit=100, ops=ops)
        assert path.read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["settings.yaml"]


def test_a_foreign_half_line_that_appears_before_our_write_costs_us_no_line(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b"whole\n")

    class Rival(Ops):
        """Another program writes half a line between our look at the tail and our write."""

        done = False

        def write(self, fd: int, data: bytes) -> int:
            if not self.done:
                self.done = True
                with open(path, "ab") as file:
                    file.write(b"half")
            return super().write(fd, data)

        def sleep(self, seconds: float) -> None:
            pass

    append(path, [b"ours\n"], root=tmp_path, ops=Rival())
    assert path.read_bytes().splitlines()[-1] == b"ours"


def test_a_half_line_that_is_finished_in_time_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b"first ")

    class Meanwhile(Ops):
        def sleep(self, seconds: float) -> None:
            with open(path, "ab") as file:
                file.write(b"second\n")

    append(path, [b"ours\n"], root=tmp_path, ops=Meanwhile())
    assert path.read_bytes() == b"first second\nours\n"


def test_bytes_that_come_back_different_are_an_error(tmp_path: Path) -> None:
    class Lying(Ops):
        def write(self, fd: int, data: bytes) -> int:
            return super().write(fd, data.replace(b"o", b"0"))

    with pytest.raises(StorageError, match="read back"):
        append(tmp_path / "a", [b"ours\n"], root=tmp_path, ops=Lying())


def test_mending_touches_only_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert not mend(path, root=tmp_path) and not path.exists()
    path.touch()
    assert not mend(path, root=tmp_path) and path.read_bytes() == b""
    path.write_bytes(b"half")
    assert mend(path, root=tmp_path) and path.read_bytes() == b"half\n"
    assert not mend(path, root=tmp_path)


def test_a_failed_reading_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1\n")
    counting = FaultyOps()
    Tail(path, max_line=100, ops=counting).news()
    for at in range(counting.count):
        ops = FaultyOps(at=at, how="eio")
        tail = Tail(path, max_line=100, ops=ops)
        lines = [*tail.news().lines, *tail.news().lines]
        assert lines == [b"1"]
        with open(path, "ab") as file:
            file.write(b"2\n")
        ops.at, ops.count = at, 0
        lines = [*tail.news().lines, *tail.news().lines]
        assert lines == [b"2"]
        path.write_bytes(b"1\n")


def test_small_files_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert read_small(tmp_path / "a", 10) == b"x" * 10
    assert read_small(tmp_path / "a", 9) is None
    assert read_small(tmp_path / "missing", 10) is None and read_small(tmp_path, 10) is None
