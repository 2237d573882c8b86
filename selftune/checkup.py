"""Every file of a data root examined: settings, metrics, ledgers, the chain, what lies about.

Answers "is all of this whole, and if not, where and how is it mended?". Reads each file from its first
line to its last; `repair` mends only what has a single possible meaning, with a copy beside it.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from enum import StrEnum
from pathlib import Path

from selftune import account_book, config, openid
from selftune.accounts import USERS_FILE
from selftune.book import APPROVALS, DECISIONS, EFFECTS, HISTORY, QUOTES, RISKS, SETTINGS, Chain
from selftune.domain import Governance, Identity, Problem, Reason, StorageError
from selftune.effectrows import is_known
from selftune.files import Tail, inside, is_there, mend, opened, read_small, replace
from selftune.gather import FILES, Gather, Moment
from selftune.governing import backed, fold
from selftune.health import rate_of
from selftune.ledger import unreadable, zone_of
from selftune.locks import commit_lock
from selftune.parts import lost_or_changed
from selftune.records import MAX_LINE
from selftune.samples import UNUSABLE, SampleStream, StreamState, StreamStatus
from selftune.settings import Settings
from selftune.standing import REVIEWS, evidence, evidence_file
from selftune.status import DEFAULT_ZONE, read_heartbeat

BACKUP = "logs/backup"
SETTINGS_BYTES = 4 << 20  # enough to say how much too large a settings file is
LINES_NAMED = 5  # line numbers shown of each kind of reject
TEMP_AGE_S = 60.0
_HARMLESS = {"torn": 1}  # a writer at work leaves one unfinished line


class Level(StrEnum):
    """How bad: fine, worth knowing, doubtful, settings that cannot be used, a file that cannot be used."""

    OK = "ok"
    ABSENT = "absent"
    WARNING = "warning"
    SETTINGS = "settings"
    FILE = "file"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing about one file; `item` is said by the catalogue."""

    level: Level
    file: str
    item: Reason | Problem


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """All findings, in the order of the files."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """2 for the settings, else 3 for any file that cannot be used, else 0."""
        levels = {f.level for f in self.findings}
        return 2 if Level.SETTINGS in levels else 3 if Level.FILE in levels else 0

    def of(self, *levels: Level) -> tuple[Finding, ...]:
        """Findings of these levels."""
        return tuple(f for f in self.findings if f.level in levels)


def checkup(path: Path) -> Checkup:
    """Everything that can be said about the root at `path`. Never raises for what files may hold."""
    settings, found = _settings(path)
    now_ms = time.time_ns() // 1_000_000
    rate: float | None = None
    if settings is not None:
        found += _provider(path, settings)
        rate, said = _metrics(path, settings, now_ms)
        found += [_advised(p) for p in config.advice(settings, rate)]
        found += said
    found += _ledgers(path, zone_of(settings.timezone if settings else DEFAULT_ZONE), now_ms)
    found += _accounts(path)
    found += _lying_about(path)
    return Checkup(findings=tuple(found))


# ----------------------------------------------------------------------------- settings
def _settings(path: Path) -> tuple[Settings | None, list[Finding]]:
    where = path / SETTINGS
    if not is_there(where):
        return None, [_bad(Problem(code="missing_file", file=SETTINGS))]
    raw = read_small(where, SETTINGS_BYTES)
    if raw is None:
        return None, [_bad(Problem(code="unreadable_file", file=SETTINGS))]
    settings, problems = config.check(raw, SETTINGS)
    if settings is None:
        return None, [_bad(p) for p in problems]
    return settings, [Finding(level=Level.OK, file=SETTINGS, item=Reason("check.settings_ok"))]


def _bad(p: Problem) -> Finding:
    return Finding(level=Level.SETTINGS, file=SETTINGS, item=p)


def _advised(p: Problem) -> Finding:
    return Finding(level=Level.WARNING, file=SETTINGS, item=p)


def _provider(path: Path, s: Settings) -> list[Finding]:
    """Sign-in by a provider, where the settings ask for it."""
    if s.governance.identity is not Identity.OIDC:
        return []
    found = openid.set_up(path, os.environ)
    if not found.problems:
        return [Finding(level=Level.OK, file=openid.FILE, item=Reason("check.oidc_ok"))]
    return [Finding(level=Level.FILE, file=openid.FILE, item=p) for p in found.problems]


# ----------------------------------------------------------------------------- metrics
def _metrics(path: Path, s: Settings, now_ms: int) -> tuple[float | None, list[Finding]]:
    """(observed samples a second, findings) of the newest part of the stream."""
    name = s.metrics_source
    stream = SampleStream(
        path / name,
        metrics=s.metrics,
        ranges={m: (t.lo, t.hi) for m, t in s.targets.items()},
        timezone=s.timezone,
    )
    series = stream.poll(now_ms)
    state = stream.state
    found = [_stream(name, state, s)]
    if state.metrics_missing and state.status is StreamStatus.OK:
        found.append(
            _warn(
                name, Reason("stream.metrics_missing", {"file": name, "metrics": list(state.metrics_missing)})
            )
        )
    for reason, n in sorted(state.rejects.items()):
        if n > _HARMLESS.get(reason, 0):
            found.append(_warn(name, Reason(f"reject.{reason}", {"n": n})))
    for metric, n in sorted(state.outside.items()):
        if n:
            found.append(_warn(name, Reason("check.outside", {"metric": metric, "n": n})))
    return rate_of(series.ts_ms), found


def _stream(name: str, state: StreamState, s: Settings) -> Finding:
    params = {
        "file": name, "detail": state.detail, "metrics": list(s.metrics), "columns": list(state.columns)
    }  # fmt: skip
    if state.status is StreamStatus.OK:
        return Finding(level=Level.OK, file=name, item=Reason("check.metrics_ok", {"n": state.rows}))
    bad = state.status in UNUSABLE
    level = Level.FILE if bad else Level.ABSENT
    return Finding(level=level, file=name, item=Reason(f"stream.{state.status.value}", params))


def _warn(file: str, item: Reason | Problem) -> Finding:
    return Finding(level=Level.WARNING, file=file, item=item)


# ----------------------------------------------------------------------------- ledgers
@dataclass
class _Told:
    """What a whole reading of one ledger met: rejects by reason with their first lines."""

    lines: int = 0
    rejects: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    unfinished: bool = False
    problem: str | None = None


def _ledgers(path: Path, zone: tzinfo, now_ms: int) -> list[Finding]:
    gather = Gather(zone)
    gather.note_head(read_heartbeat(path).get("approvals_head"))
    moment = Moment(wall_ms=now_ms, steady_ms=now_ms)
    found: list[Finding] = []
    for name in FILES:
        if not is_there(path / name):
            found.append(Finding(level=Level.ABSENT, file=name, item=Reason("check.absent")))
            continue
        found += _judged(name, _read(path, name, gather, moment), gather)
    found += _parts(path)
    chain = gather.chain()
    if not chain.ok:
        found.append(_broken(chain))
    return [*found, *_reviews(path, gather.sheets[APPROVALS].items)]


def _parts(path: Path) -> Iterator[Finding]:
    """Parts of the decisions that are gone or are not as they were put aside."""
    for what, file in lost_or_changed(path / DECISIONS):
        level = Level.FILE if what == "changed" else Level.WARNING
        yield Finding(level=level, file=f"logs/{file}", item=Reason(f"check.part_{what}"))


def _reviews(path: Path, governance: Sequence[Governance]) -> Iterator[Finding]:
    """Armings without the signatures they need, and evidence that is not what was signed."""
    signed = backed(governance, 1)
    for g in governance:
        if g.kind == "arm" and g.id not in signed:
            yield _warn(APPROVALS, Reason("check.arm_unsigned", {"line": g.n}))
    for r in fold(governance):
        if not r.evidence or evidence(path, r.evidence) is not None:
            continue
        file = evidence_file(path, r.evidence)
        there = file is None or is_there(file)
        level = Level.FILE if there else Level.WARNING
        code = "check.evidence_changed" if there else "check.evidence_gone"
        yield Finding(level=level, file=REVIEWS, item=Reason(code, {"id": r.id}))


def _read(path: Path, name: str, gather: Gather, moment: Moment) -> _Told:
    """The whole file through the same reader as the loop's, line by line so that rejects have a place."""
    tail, told, sheet = Tail(path / name, max_line=MAX_LINE), _Told(), gather.sheets[name]
    while True:
        news = tail.news()
        for line in news.lines:
            told.lines += 1
            before = dict(sheet.rejects)
            gather.take(name, [line], moment)
            for reason, n in sheet.rejects.items():
                if n != before.get(reason, 0):
                    told.counts[str(reason)] = n
                    told.rejects.setdefault(str(reason), []).append(told.lines)
        if not news.more:
            break
    told.unfinished, told.problem = news.unfinished, news.problem
    sheet.problem = news.problem
    return told


def _judged(name: str, told: _Told, gather: Gather) -> Iterator[Finding]:
    if told.problem is not None:
        yield Finding(level=Level.FILE, file=name, item=unreadable(name, told.problem))
        return
    kept = len(gather.sheets[name].items)
    if name == EFFECTS and gather.header is not None and not is_known(gather.header):
        yield Finding(level=Level.FILE, file=name, item=Reason("check.unknown_header"))
        return
    if told.counts and not kept and told.lines:
        yield Finding(level=Level.FILE, file=name, item=Reason("check.nothing_usable", {"n": told.lines}))
    else:
        yield Finding(level=Level.OK, file=name, item=Reason("check.ledger_ok", {"n": kept}))
    for reason, n in sorted(told.counts.items()):
        lines = told.rejects[reason]
        shown = ", ".join(str(i) for i in lines[:LINES_NAMED]) + (" …" if len(lines) > LINES_NAMED else "")
        yield _warn(name, Reason("check.rejects", {"reason": reason, "n": n, "lines": shown}))
    if told.unfinished:
        yield _warn(name, Reason("check.unfinished"))


def _accounts(path: Path) -> Iterator[Finding]:
    """The account file, where there is one; a broken one means that nobody can sign in."""
    where = path / USERS_FILE
    if not is_there(where):
        return
    book = account_book.read(where)
    for problem in book.problems:
        yield Finding(level=Level.FILE, file=USERS_FILE, item=problem)
    if book.accounts is not None:
        n = {"n": len(book.accounts.all), "able": len(book.accounts.able())}
        yield Finding(level=Level.OK, file=USERS_FILE, item=Reason("check.users_ok", n))
    yield from _open_to_others(path, USERS_FILE)


def _open_to_others(path: Path, name: str) -> Iterator[Finding]:
    """A file with secrets that other accounts of this machine may read."""
    try:
        mode = stat.S_IMODE(os.lstat(path / name).st_mode)
    except OSError:
        return
    if os.name == "posix" and mode & 0o077:
        yield _warn(name, Reason("check.users_open", {"mode": f"{mode:04o}"}))


def _broken(chain: Chain) -> Finding:
    code = f"check.chain_{chain.reason or 'prev'}"
    return Finding(level=Level.FILE, file=APPROVALS, item=Reason(code, {"line": chain.line}))


# ----------------------------------------------------------------------------- what lies about
def _lying_about(path: Path) -> Iterator[Finding]:
    yield from _open_to_others(path, openid.FILE)
    for folder in ("configs", "controls", "logs"):
        old = [t for t in (path / folder).glob(".*.selftune-tmp") if _age_s(t) > TEMP_AGE_S]
        if old:
            yield _warn(folder, Reason("check.temps", {"n": len(old)}))


def _age_s(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return 0.0


# ----------------------------------------------------------------------------- mending
def repair(path: Path) -> tuple[Reason, ...]:
    """What was mended: the settings' slips with a single meaning, ledgers that end in half a line.

    Raises: StorageError, LockHeld; what was mended until then stays mended.
    """
    return (*_mend_settings(path), *_mend_tails(path))


def _mend_settings(path: Path) -> Iterator[Reason]:
    raw = read_small(path / SETTINGS, SETTINGS_BYTES)
    if raw is None:
        return
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return
    mended, problems = config.repair(text)
    if mended == text:
        return
    with commit_lock(path):
        real = inside(path, path / SETTINGS)
        copy = _backup(path, SETTINGS)
        replace(real, mended.encode("utf-8"), durable=True, mode=stat.S_IMODE(real.stat().st_mode))
    for p in problems:
        yield Reason("check.mended_settings", {"line": p.line, "copy": copy})


def _mend_tails(path: Path) -> Iterator[Reason]:
    for name in (HISTORY, RISKS, QUOTES, EFFECTS, DECISIONS, APPROVALS):
        if not _torn(path / name):
            continue
        with commit_lock(path):
            if not _torn(path / name):  # whoever was writing has finished
                continue
            copy = _backup(path, name)
            mend(path / name, root=path)
        yield Reason("check.mended_tail", {"file": name, "copy": copy})


def _torn(file: Path) -> bool:
    """True when the file does not end in a line end."""
    try:
        with opened(file, os.O_RDONLY) as fd:  # a pipe is refused, never waited for
            if os.fstat(fd).st_size == 0:
                return False
            os.lseek(fd, -1, os.SEEK_END)
            return os.read(fd, 1) != b"\n"
    except (OSError, StorageError):
        return False


def _backup(path: Path, name: str) -> str:
    """The copy's path within the root. Raises: StorageError."""
    base = f"{BACKUP}/{Path(name).name}.{time.strftime('%Y%m%dT%H%M%S')}"
    copy, n = base, 1
    while (path / copy).exists():
        n += 1
        copy = f"{base}-{n}"
    try:
        (path / BACKUP).mkdir(parents=True, exist_ok=True)
        shutil.copy2(inside(path, path / name), inside(path, path / copy))
    except OSError as error:
        raise StorageError(f"{copy}: {error.strerror or error}") from error
    return copy


__all__ = ["Checkup", "Finding", "Level", "checkup", "repair"]
