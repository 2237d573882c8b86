"""The record that a backtest stands on: every sample of the period, the rule events, the regimes found.

Answers "what is known of these days?" from the files of a data root, whole and sorted, with a digest of
just what was used. Never decides; writes only copies for its own workers.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from selftune.backtest_pool import Say, quiet, spread
from selftune.coarse import Coarse, bins_of
from selftune.domain import Decision, InputError, Problem, RuleEvent
from selftune.intake import Intake
from selftune.ledger import FileLedger
from selftune.ranges import HEAD_BYTES, open_history
from selftune.records import number
from selftune.ring import Ring
from selftune.rows import MAX_LINE, Header, RowParser, Rows
from selftune.series import Floats, Int64s, Series
from selftune.settings import Settings
from selftune.source import Source, Unavailable, opened

CHUNK = 16 << 20
ALL_BYTES = 64 << 20  # below this a file is read whole, above it only the bytes of the period
FOREVER_MS = 1 << 60
TAIL = 1000


@dataclass(frozen=True, kw_only=True)
class Samples:
    """All samples. Shape: ts_ms int64[n], strictly increasing; values float64[metrics, n], NaN = missing."""

    metrics: tuple[str, ...]
    ts_ms: Int64s
    values: Floats
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ts_ms)

    def cut(self, from_ms: int | None, to_ms: int | None) -> Samples:
        """The samples with from <= ts < to; views."""
        a = 0 if from_ms is None else int(np.searchsorted(self.ts_ms, from_ms))
        b = len(self) if to_ms is None else int(np.searchsorted(self.ts_ms, to_ms))
        return replace(self, ts_ms=self.ts_ms[a:b], values=self.values[:, a:b])

    def series(self, start_ms: int, end_ms: int) -> Series:
        """The samples with start <= ts < end as a Series; views."""
        a, b = np.searchsorted(self.ts_ms, (start_ms, end_ms))
        rows = self.values[:, a:b]
        return Series(ts_ms=self.ts_ms[a:b], values=dict(zip(self.metrics, rows, strict=True)))

    def coarse(self) -> Coarse:
        """10 s means of all samples."""
        starts, counts, sums = bins_of(self.ts_ms, self.values)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(counts > 0, sums / counts, np.nan)
        return Coarse(
            start_ms=starts, count=dict(zip(self.metrics, counts, strict=True)),
            mean=dict(zip(self.metrics, means, strict=True)),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One record: samples of the period, events up to its end, when regimes began (as recorded)."""

    samples: Samples
    events: tuple[RuleEvent, ...]
    regimes_ms: tuple[int, ...]
    from_ms: int
    to_ms: int

    @cached_property
    def bins(self) -> Coarse:
        return self.samples.coarse()

    @property
    def within(self) -> tuple[RuleEvent, ...]:
        """The rule events inside the period."""
        return tuple(e for e in self.events if self.from_ms <= e.ts_ms < self.to_ms)

    def digest(self) -> str:
        """SHA-256 of the samples and events used."""
        found = hashlib.sha256(",".join(self.samples.metrics).encode())
        for column in (np.ascontiguousarray(self.samples.ts_ms, "<i8"), *self.samples.values):
            found.update(np.ascontiguousarray(column).data)
        for e in self.events:
            found.update(f"{e.ts_ms},{e.rule},{e.old!r},{e.new!r}\n".encode())
        return found.hexdigest()

    # ------------------------------------------------------------------------ for workers
    def put(self, folder: Path) -> None:
        """Lay the record down for workers, who share its pages instead of copying it."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "ts.npy", self.samples.ts_ms)
        np.save(folder / "values.npy", self.samples.values)
        empty = replace(self.samples, ts_ms=self.samples.ts_ms[:0], values=self.samples.values[:, :0])
        rest = (replace(self, samples=empty), self.bins)
        (folder / "rest.pickle").write_bytes(pickle.dumps(rest, pickle.HIGHEST_PROTOCOL))


@dataclass(frozen=True, kw_only=True)
class Handle:
    """A record for a task: itself, or where it was laid down."""

    record: Recorded | None = None
    folder: str | None = None

    def get(self) -> Recorded:
        if self.record is not None:
            return self.record
        assert self.folder is not None
        return _laid_down(self.folder)


@lru_cache(maxsize=2)
def _laid_down(folder: str) -> Recorded:
    at = Path(folder)
    record, bins = pickle.loads((at / "rest.pickle").read_bytes())  # ours: written by this job's own process
    samples = replace(
        record.samples,
        # plain arrays over the mapped pages: each view and sum of a memmap makes a memmap again, slowly
        ts_ms=np.asarray(np.load(at / "ts.npy", mmap_mode="r")),
        values=np.asarray(np.load(at / "values.npy", mmap_mode="r")),
    )
    found: Recorded = replace(record, samples=samples)
    found.__dict__["bins"] = bins
    return found


# ----------------------------------------------------------------------------- from a data root
def read_record(
    root: Path,
    settings: Settings,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    executor: Executor | None = None,
    say: Say = quiet,
) -> Recorded:
    """The record of that period. Raises: InputError with a sentence for what is missing or too little."""
    samples = read_samples(root, settings, from_ms=from_ms, to_ms=to_ms, executor=executor, say=say)
    named = settings.metrics_source
    part = samples.cut(from_ms, to_ms)
    if not len(part):
        _nothing(samples, settings)
    start, end = int(part.ts_ms[0]), int(part.ts_ms[-1]) + 1
    least_s = settings.history_s / 2 + settings.observe_window_s
    if end - start < least_s * 1000:
        raise InputError(_problem("backtest_too_short", named, observed=(end - start) / 1000, limit=least_s))
    records = FileLedger(root, timezone=settings.timezone).read()
    return Recorded(
        samples=part, from_ms=start, to_ms=end,
        events=tuple(sorted((e for e in records.events if e.ts_ms < end), key=lambda e: e.ts_ms)),
        regimes_ms=tuple(_regime_ms(d) for d in records.decisions if _is_regime(d) and d.ts_ms < end),
    )  # fmt: skip


def _is_regime(d: Decision) -> bool:
    return d.kind == "verdict" and d.act == "regime"


def _regime_ms(d: Decision) -> int:
    said = number(d.data.get("from_ms"))
    return d.ts_ms if said is None else int(said)


def _nothing(samples: Samples, settings: Settings) -> None:
    """Raises: InputError that says why there is not one usable row."""
    named, known = settings.metrics_source, set(samples.columns) & set(settings.metrics)
    if len(samples):
        span = {"from_ms": int(samples.ts_ms[0]), "to_ms": int(samples.ts_ms[-1])}
        raise InputError(_problem("backtest_outside", named, **span))
    if samples.columns and not known:
        found = ", ".join(c for c in samples.columns if c != "ts")
        raise InputError(
            _problem("backtest_other_metrics", named, wanted=", ".join(settings.metrics), found=found)
        )
    raise InputError(_problem("backtest_no_rows", named))


def _problem(code: str, file: str, **params: object) -> Problem:
    return Problem(code=code, file=file, params=params)


# ----------------------------------------------------------------------------- the metrics file
def read_samples(
    root: Path,
    settings: Settings,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    executor: Executor | None = None,
    say: Say = quiet,
) -> Samples:
    """The usable rows of the metrics file, sorted; of a large file only about the period asked for.

    Raises: InputError when it cannot be read.
    """
    path, named = root / settings.metrics_source, settings.metrics_source
    try:
        with opened(path) as source:
            header = _parser(settings).header_in(source.read_at(0, HEAD_BYTES))
            if header is None:
                raise InputError(_problem("backtest_no_header" if source.size else "backtest_no_rows", named))
            whole = (from_ms is None and to_ms is None) or source.size <= ALL_BYTES
            if whole:
                return _whole(path, source, settings, header, executor, say)
        return _part(path, settings, from_ms, to_ms)
    except Unavailable as gone:
        raise InputError(_problem("backtest_no_metrics", named, detail=gone.detail or None)) from gone


def _parser(settings: Settings) -> RowParser:
    ranges = {m: (t.lo, t.hi) for m, t in settings.targets.items()}
    return RowParser(settings.metrics, ranges, ZoneInfo(settings.timezone))


def _part(path: Path, settings: Settings, from_ms: int | None, to_ms: int | None) -> Samples:
    """The period alone, found by the file's sparse index."""
    ranges = {m: (t.lo, t.hi) for m, t in settings.targets.items()}
    with open_history(path, metrics=settings.metrics, ranges=ranges, timezone=settings.timezone) as history:
        columns = history.header.names if history.header else ()
        series = history.between(from_ms or -FOREVER_MS, to_ms or FOREVER_MS)
        if not len(series):  # to say what there is
            series = history.between(-FOREVER_MS, FOREVER_MS)
    return Samples(
        metrics=settings.metrics, ts_ms=series.ts_ms, columns=columns,
        values=np.stack([series.values[m] for m in settings.metrics]),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Bytes [start, end) of the metrics file, to be parsed under `header`."""

    path: str
    start: int
    end: int
    settings: Settings
    header: Header


def _whole(
    path: Path, source: Source, settings: Settings, header: Header, executor: Executor | None, say: Say
) -> Samples:
    edges = range(0, source.size, CHUNK)
    pieces = [
        _Piece(path=str(path), start=a, end=min(a + CHUNK, source.size), settings=settings, header=header)
        for a in edges
    ]
    parts: list[Rows] = []
    under: Header | None = header
    for piece, rows in zip(pieces, spread(_parsed, pieces, executor, say), strict=True):
        if under is not None and under != header:  # a header in mid-file holds for what follows
            rows = _parsed(replace(piece, header=under), quiet)
        parts.append(rows)
        under = rows.header
    ts, values = _in_order(parts, len(settings.metrics))
    return Samples(metrics=settings.metrics, ts_ms=ts, values=values, columns=header.names)


def _parsed(piece: _Piece, say: Say) -> Rows:
    """The rows of the lines that begin in this piece."""
    with opened(piece.path) as source:
        body = source.read_at(piece.start, piece.end - piece.start)
        if piece.start and source.read_at(piece.start - 1, 1) != b"\n":
            body = body[body.find(b"\n") + 1 :] if b"\n" in body else b""
        if body and not body.endswith(b"\n"):
            rest = source.read_at(piece.end, MAX_LINE + 1)
            body = body + rest[: rest.find(b"\n") + 1] if b"\n" in rest else body[: body.rfind(b"\n") + 1]
    say(1.0)
    return _parser(piece.settings).parse(body, piece.header)


def _in_order(parts: Sequence[Rows], metrics: int) -> tuple[Int64s, Floats]:
    """The rows sorted, strays out, clock set right: at once where the file is plain, else row by row."""
    ts = raw = np.concatenate([p.ts_ms for p in parts]) if parts else np.empty(0, np.int64)
    each = [p.values for p in parts] or [np.empty((metrics, 0))]
    plain = len(ts) > 0 and bool((ts[1:] >= ts[:-1]).all())
    if plain and not (last := np.append(ts[1:] > ts[:-1], True)).all():  # the last written of equal instants
        ends = np.cumsum([len(p.ts_ms) for p in parts[:-1]])
        values, ts, at = np.empty((metrics, int(np.count_nonzero(last)))), ts[last], 0
        for part, keep in zip(each, np.split(last, ends), strict=True):
            n = int(np.count_nonzero(keep))
            np.compress(keep, part, axis=1, out=values[:, at : at + n])
            at += n
    else:
        values = np.concatenate(each, axis=1)
    if plain:
        end = raw[-TAIL:]  # a stray stamp may stand there: to believe it, rows are counted, those twice too
        tail, _ = _admitted(end, np.zeros((metrics, len(end))), metrics)
        n = int(np.searchsorted(ts, tail[-1], side="right")) if len(tail) else 0
        return ts[:n], values[:, :n]
    return _admitted(ts, values, metrics)


def _admitted(ts: Int64s, values: Floats, metrics: int) -> tuple[Int64s, Floats]:
    epochs: list[tuple[Int64s, Floats]] = []

    def keep(ring: Ring) -> None:
        epochs.append((ring.ts_ms, ring.values))

    intake = Intake(metrics, on_epoch_end=keep)
    intake.feed(ts, values, FOREVER_MS)
    settled = intake.settled_ms
    last_ts, last_values = intake.ring.ts_ms, intake.ring.values
    n = len(last_ts) if settled is None else int(np.searchsorted(last_ts, settled, side="right"))
    epochs.append((last_ts[:n], last_values[:, :n]))
    return joined(epochs, metrics)


def joined(epochs: Sequence[tuple[Int64s, Floats]], metrics: int) -> tuple[Int64s, Floats]:
    """The epochs as one run of time: where the clock was set back, what was written later holds."""
    kept: list[tuple[Int64s, Floats]] = []
    end: int | None = None
    for ts, values in reversed(epochs):
        n = len(ts) if end is None else int(np.searchsorted(ts, end))
        if n:
            kept.append((ts[:n], values[:, :n]))
            end = int(ts[0])
    if not kept:
        return np.empty(0, np.int64), np.empty((metrics, 0))
    kept.reverse()
    return np.concatenate([t for t, _ in kept]), np.concatenate([v for _, v in kept], axis=1)


__all__ = ["Handle", "Recorded", "Samples", "joined", "read_record", "read_samples"]
