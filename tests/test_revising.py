"""Saving an edit: only the scalar moves, never over somebody else's change, whole after any kill."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from selftune.book import APPROVALS, SETTINGS
from selftune.config import edit, parse
from selftune.domain import Refused, Role, SettingsError, StorageError
from selftune.files import Ops
from selftune.ledger import FileLedger
from selftune.revising import Conflict, Fate, Saved, last_good, revisions, save, sha256, text_of
from selftune.runtime import Root

CHANGE = {"targets.risk_band.max": 0.28}


def bytes_of(root: Path) -> bytes:
    return (root / SETTINGS).read_bytes()


def saved(root: Path, changes: dict[str, float] | None = None, **more: object) -> Saved:
    wish = {"actor": "kim", "role": Role.OPERATOR, "why": "calmer nights", **more}
    return save(Root(root), bytes_of(root), changes or CHANGE, **wish)  # type: ignore[arg-type]


def records(root: Path) -> list[dict[str, object]]:
    path = root / APPROVALS
    return [json.loads(x) for x in path.read_bytes().splitlines()] if path.exists() else []


def test_only_the_scalar_changes_and_the_record_says_who_and_why(root: Path) -> None:
    before = bytes_of(root)
    done = saved(root)
    after = bytes_of(root)
    assert after == before.replace(b"risk_band: { max: 0.30 }", b"risk_band: { max: 0.28 }") != before
    (record,) = records(root)
    assert done.sha == sha256(after) == record["after"] and record["before"] == sha256(before)
    assert (record["kind"], record["by"], record["role"], record["reason"]) == (
        "edit", "kim", "operator", "calmer nights",
    )  # fmt: skip
    assert record["changes"] == [{"key": "targets.risk_band.max", "old": 0.3, "new": 0.28}]
    assert record["digest_before"] == parse(before).digest != record["digest_after"] == parse(after).digest
    assert FileLedger(root, timezone="UTC").read().chain.ok


@pytest.mark.parametrize(("bom", "newline"), [("", "\r\n"), ("\ufeff", "\n"), ("\ufeff", "\r\n")])
def test_line_ends_and_a_bom_stay(root: Path, bom: str, newline: str) -> None:
    text = bom + bytes_of(root).decode().replace("\n", newline)
    (root / SETTINGS).write_bytes(text.encode())
    saved(root)
    assert bytes_of(root) == text.replace("risk_band: { max: 0.30 }", "risk_band: { max: 0.28 }").encode()


def test_the_files_own_rights_stay(root: Path) -> None:
    (root / SETTINGS).chmod(0o640)
    saved(root)
    assert os.stat(root / SETTINGS).st_mode & 0o777 == 0o640


@pytest.mark.parametrize("role", [Role.VIEWER, Role.REVIEWER, Role.ADMIN])
def test_only_an_operator_saves(root: Path, role: Role) -> None:
    before = bytes_of(root)
    with pytest.raises(Refused):
        saved(root, role=role)
    assert bytes_of(root) == before and not records(root)


@pytest.mark.parametrize(
    ("changes", "why", "code"),
    [
        (CHANGE, "  ", "revise.no_reason"),
        ({"targets.risk_band.max": 0.3}, "x", "revise.nothing"),
        ({"rules.risk_max.max": 0.5}, "x", "revise.needs_reviewer"),
        ({"rules.risk_max.lr": 0.03}, "x", "revise.needs_reviewer"),
        ({"safety.hard.risk_band.max": 0.4}, "x", "revise.needs_reviewer"),
        ({**CHANGE, "rules.risk_max.min": 0.1}, "x", "revise.needs_reviewer"),
    ],
)
def test_refusals_write_nothing(root: Path, changes: dict[str, float], why: str, code: str) -> None:
    before = bytes_of(root)
    with pytest.raises(Refused) as no:
        saved(root, changes, why=why)
    assert no.value.reasons[0].code == code
    assert bytes_of(root) == before and not records(root)


def test_what_is_not_editable_or_not_valid_writes_nothing(root: Path) -> None:
    before = bytes_of(root)
    for changes in ({"strategy.dry_run": 0}, {"rules.risk_max.max": 0.3}, {"cooldown_s": -5}):
        with pytest.raises(SettingsError):
            saved(root, changes)
    assert bytes_of(root) == before and not records(root)


def test_a_change_by_somebody_else_is_never_overwritten(root: Path) -> None:
    base = bytes_of(root)
    theirs = edit(base.decode(), {"cooldown_s": 200}).encode()
    (root / SETTINGS).write_bytes(theirs)
    with pytest.raises(Conflict) as conflict:
        save(Root(root), base, CHANGE, actor="kim", role=Role.OPERATOR, why="x")
    assert (conflict.value.base, conflict.value.theirs) == (base, theirs)
    assert bytes_of(root) == theirs and not records(root)


def test_an_editor_that_saves_between_record_and_file_wins(root: Path) -> None:
    base, theirs = bytes_of(root), edit(bytes_of(root).decode(), {"cooldown_s": 200}).encode()

    class Editor(Ops):
        """Saves the settings by hand right after our record is on disk."""

        def fsync(self, fd: int) -> None:
            super().fsync(fd)
            if records(root) and bytes_of(root) == base:
                (root / SETTINGS).write_bytes(theirs)

    ops = Editor()
    with pytest.raises(Conflict):
        save(Root(root, ops=ops), base, CHANGE, actor="kim", role=Role.OPERATOR, why="x", ops=ops)
    assert bytes_of(root) == theirs
    (lost,) = revisions(FileLedger(root, timezone="UTC").read())
    assert lost.fate is not Fate.IN_FORCE


def test_of_two_at_once_one_wins_and_the_other_is_told(root: Path) -> None:
    base, start, said = bytes_of(root), threading.Barrier(4), []

    def one(value: float) -> None:
        mine = Root(root)
        start.wait()
        try:
            save(mine, base, {"targets.risk_band.max": value}, actor="kim", role=Role.OPERATOR, why="x")
            said.append(value)
        except Conflict:
            said.append("conflict")

    threads = [threading.Thread(target=one, args=(v,)) for v in (0.21, 0.22, 0.23, 0.24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    won = [v for v in said if v != "conflict"]
    assert len(said) == 4 and len(won) == 1
    assert parse(bytes_of(root)).targets["risk_band"].max == won[0] and len(records(root)) == 1


class Killed(BaseException):
    """The process ends here: nothing after it runs, not even the cleaning up of errors."""


class Faulty(Ops):
    """Fails or dies at the n-th call of those that reach the disk, once it is armed."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error, self.calls, self.armed = at, error, 0, False

    def _count(self) -> None:
        if not self.armed:
            return
        self.calls += 1
        if self.calls == self.at:
            raise self.error

    def open(self, path: str, flags: int, mode: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._count()
        return super().open(path, flags, mode)

    def write(self, fd: int, data: bytes) -> int:
        self._count()
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._count()
        super().fsync(fd)

    def replace(self, source: str, target: str) -> None:
        self._count()
        super().replace(source, target)


def attempt(root: Path, ops: Faulty) -> bool:
    """Whether the save said that it was done."""
    try:
        mine = Root(root, ops=ops)
        ops.armed = True
        save(mine, bytes_of(root), CHANGE, actor="kim", role=Role.OPERATOR, why="x", ops=ops)
    except (Killed, StorageError, OSError):
        return False
    return True


def fresh(root: Path, folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / SETTINGS).write_bytes(bytes_of(root))
    return folder


@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device")])
def test_whole_after_a_kill_or_a_full_disk_at_every_write(
    root: Path, tmp_path: Path, error: BaseException
) -> None:
    before = bytes_of(root)
    counter = Faulty(10**9, Killed())
    assert attempt(fresh(root, tmp_path / "all"), counter)
    after = bytes_of(tmp_path / "all")
    fates = set()
    for at in range(1, counter.calls + 1):
        here = fresh(root, tmp_path / f"{type(error).__name__}{at}")
        done = attempt(here, Faulty(at, error))
        now = bytes_of(here)
        assert now in (before, after)
        assert now == after or not done
        found = revisions(FileLedger(here, timezone="UTC").read())
        assert now == before or [r.fate for r in found] == [Fate.IN_FORCE]  # never a change without record
        if found and now == before:
            assert found[0].fate is Fate.LOST
        fates.update(r.fate for r in found)
        # the next attempt works with no hand, and what was lost stays marked as lost
        if now == before:
            assert attempt(here, Faulty(10**9, Killed())) and bytes_of(here) == after
            assert revisions(FileLedger(here, timezone="UTC").read())[0].fate is Fate.IN_FORCE
        assert FileLedger(here, timezone="UTC").read().chain.ok
    assert fates == ({Fate.IN_FORCE, Fate.LOST} if isinstance(error, Killed) else {Fate.LOST})


def test_a_link_out_of_the_root_is_not_written(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "self_tuning.yaml"
    outside.write_bytes(bytes_of(root))
    (root / SETTINGS).unlink()
    (root / SETTINGS).symlink_to(outside)
    with pytest.raises(StorageError):
        saved(root)
    assert outside.read_bytes() == bytes_of(root) and not records(root)


# ----------------------------------------------------------------------------- history
def test_revisions_newest_first_with_their_fate_and_their_text(root: Path) -> None:
    first = bytes_of(root)
    saved(root, {"targets.risk_band.max": 0.28}, why="<b>one</b>")
    second = bytes_of(root)
    saved(root, {"cooldown_s": 200}, why="two")
    found = revisions(FileLedger(root, timezone="UTC").read())
    assert [(r.why, r.fate) for r in found] == [("two", Fate.IN_FORCE), ("<b>one</b>", Fate.REPLACED)]
    assert found[1].changed == (("targets.risk_band.max", 0.3, 0.28),)
    assert text_of(root, found[1].before) == first and text_of(root, found[1].after) == second


def test_a_copy_that_was_changed_is_no_copy(root: Path) -> None:
    saved(root)
    sha = sha256(bytes_of(root))
    copy = root / "logs" / "revisions" / f"{sha}.yaml"
    copy.write_bytes(copy.read_bytes() + b"# more\n")
    assert text_of(root, sha) is None
    assert text_of(root, "../../configs/self_tuning") is None


def test_the_last_good_settings_are_found_while_the_file_is_broken(root: Path) -> None:
    assert last_good(root) is None
    saved(root)
    (root / SETTINGS).write_text("targets: [", encoding="utf-8")
    found = last_good(root)
    assert found is not None and found[0].targets["risk_band"].max == 0.28 and found[1]
