"""The record that a backtest stands on: every sample of the period, the rule events, the regimes found.

Answers "what is known of these days?" from the files of a data root, whole and sorted, with a digest of
just what was used. Never writes, never decides.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from selftune.coarse import BIN_MS, Coarse, bins_of
from selftune.domain import Decision, InputError, Problem, RuleEvent
from selftune.intake import Intake
from selftune.ledger import FileLedger
from selftune.ranges import HEAD_BYTES
from selftune.ring import Ring
from selftune.rows import MAX_LINE, RowParser
from selftune.series import Floats, Int64s, Series
from selftune.settings import Settings
from selftune.source import LineCutter, Unavailable, opened

CHUNK = 4 << 20
FOREVER_MS = 1 << 60
Progress = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """All samples. Shape: ts_ms int64[n], strictly increasing; values float64[metrics, n], NaN = missing."""

    metrics: tuple[str, ...]
    ts_ms: Int64s
    values: Floats
    columns: tuple[str, ...] = ()
    rejects: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ts_ms)

    def cut(self, from_ms: int | None, to_ms: int | None) -> Samples:
        """The samples with from <= ts < to; views."""
        a = 0 if from_ms is None else int(np.searchsorted(self.ts_ms, from_ms))
        b = len(self) if to_ms is None else int(np.searchsorted(self.ts_ms, to_ms))
        return Samples(
            metrics=self.metrics, ts_ms=self.ts_ms[a:b], values=self.values[:, a:b],
            columns=self.columns, rejects=self.rejects,
        )  # fmt: skip

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
    decisions: tuple[Decision, ...]
    from_ms: int
    to_ms: int

    @property
    def regimes_ms(self) -> tuple[int, ...]:
        """When each new regime began, by the verdicts on record."""
        return tuple(
            int(d.data.get("from_ms") or d.ts_ms)
            for d in self.decisions
            if d.kind == "verdict" and d.act == "regime"
        )

    @property
    def within(self) -> tuple[RuleEvent, ...]:
        """The rule events inside the period."""
        return tuple(e for e in self.events if self.from_ms <= e.ts_ms < self.to_ms)

    def digest(self) -> str:
        """SHA-256 of the samples and events used."""
        found = hashlib.sha256()
        found.update(",".join(self.samples.metrics).encode())
        found.update(np.ascontiguousarray(self.samples.ts_ms, "<i8").tobytes())
        for row in self.samples.values:
            found.update(np.ascontiguousarray(row, "<f8").tobytes())
        for e in self.events:
            found.update(f"{e.ts_ms},{e.rule},{e.old!r},{e.new!r}\n".encode())
        return found.hexdigest()


def read_record(
    root: Path, settings: Settings, *, from_ms: int | None, to_ms: int | None, say: Progress = lambda _: None
) -> Recorded:
    """The record of that period. Raises: InputError with a sentence for what is missing or too little."""
    samples = read_samples(root, settings, say)
    named = settings.metrics_source
    if not len(samples):
        known = set(samples.columns) & set(settings.metrics)
        code = "backtest_no_rows" if known or not samples.columns else "backtest_other_metrics"
        raise InputError(_problem(code, named, wanted=", ".join(settings.metrics),
                                  found=", ".join(c for c in samples.columns if c != "ts")))  # fmt: skip
    part = samples.cut(from_ms, to_ms)
    if not len(part):
        raise InputError(_problem("backtest_outside", named, from_ms=int(samples.ts_ms[0]),
                                  to_ms=int(samples.ts_ms[-1])))  # fmt: skip
    start, end = int(part.ts_ms[0]), int(part.ts_ms[-1]) + 1
    least_s = settings.history_s / 2 + settings.observe_window_s
    if end - start < least_s * 1000:
        raise InputError(_problem("backtest_too_short", named, observed=(end - start) / 1000, limit=least_s))
    records = FileLedger(root, timezone=settings.timezone).read()
    events = sorted((e for e in records.events if e.ts_ms < end), key=lambda e: e.ts_ms)
    return Recorded(
        samples=part, events=tuple(events), from_ms=start, to_ms=end,
        decisions=tuple(d for d in records.decisions if d.ts_ms < end),
    )  # fmt: skip


def _problem(code: str, file: str, **params: object) -> Problem:
    return Problem(code=code, file=file, params=params)


# ----------------------------------------------------------------------------- the metrics file
def read_samples(root: Path, settings: Settings, say: Progress = lambda _: None) -> Samples:
    """Every usable row of the metrics file, sorted. Raises: InputError when it cannot be read."""
    path = root / settings.metrics_source
    ranges = {m: (t.lo, t.hi) for m, t in settings.targets.items()}
    parser = RowParser(settings.metrics, ranges, ZoneInfo(settings.timezone))
    epochs: list[tuple[Int64s, Floats]] = []

    def keep(ring: Ring) -> None:
        epochs.append((ring.ts_ms, ring.values))

    intake, cutter, rejects = (
        Intake(len(settings.metrics), on_epoch_end=keep),
        LineCutter(MAX_LINE),
        Counter[str](),
    )
    try:
        with opened(path) as source:
            header = parser.header_in(source.read_at(0, HEAD_BYTES))
            columns = header.names if header else ()
            if header is None and source.size:
                raise InputError(_problem("backtest_no_header", settings.metrics_source))
            for offset in range(0, source.size, CHUNK):
                rows = parser.parse(cutter.feed(source.read_at(offset, CHUNK)), header)
                header = rows.header
                rejects.update(rows.rejects)
                intake.feed(rows.ts_ms, rows.values, FOREVER_MS)
                say(min(1.0, (offset + CHUNK) / source.size))
    except Unavailable as gone:
        raise InputError(
            _problem("backtest_no_metrics", settings.metrics_source, detail=gone.detail)
        ) from gone
    keep(intake.ring)
    ts, values = joined(epochs, len(settings.metrics))
    return Samples(
        metrics=settings.metrics, ts_ms=ts, values=values, columns=columns,
        rejects=dict(rejects + intake.rejects),
    )  # fmt: skip


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
    if len(kept) == 1:
        return kept[0]
    kept.reverse()
    return np.concatenate([t for t, _ in kept]), np.concatenate([v for _, v in kept], axis=1)


__all__ = ["BIN_MS", "Progress", "Recorded", "Samples", "read_record", "read_samples"]
