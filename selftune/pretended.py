"""Verdicts on changes that nobody made, as far back as the metrics file reaches: tally (b) of the record.

Answers "how often does the judge see something where nothing happened?". Reads the file, never writes; a
verdict once given is kept, since neither the samples nor the events behind it change any more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

from selftune.domain import Verdict
from selftune.effects import history_s_of
from selftune.picture import Picture
from selftune.samples import read_around
from selftune.source import Unavailable
from selftune.track import END_MS, Placebo, moments, pretend, tally

AT_ONCE = 36  # moments read together: about six hours where a suggestion stands
MOST = 600  # moments looked at: four days of a suggestion that stands
SPARE = 1.2  # more verdicts than the bar asks for add cost and little else

Key = tuple[int, tuple[int, ...]]


def pretended(path: Path, p: Picture, need: float) -> Placebo:
    """The newest verdicts on pretended changes, at least `need` of them if the file holds as many."""
    known: dict[Key, Verdict | None] = p.snap.memo.get("pretended", (p.settings,), dict)
    events = sorted(e.ts_ms for e in p.snap.records.events)
    found: list[Verdict] = []
    at = moments(p)[:MOST]
    for group in (at[i : i + AT_ONCE] for i in range(0, len(at), AT_ONCE)):
        keys = {ts: _key(p, ts, events) for ts in group}
        for ts, verdict in _judged(path, p, [ts for ts in group if keys[ts] not in known]):
            known[keys[ts]] = verdict
        found += [v for ts in group if (v := known.get(keys[ts])) is not None]
        if len(found) >= ceil(need * SPARE):
            break
    if len(known) > 2 * MOST:  # a process that goes on for weeks
        known.clear()
    return tally(found)


def _key(p: Picture, ts_ms: int, events: Sequence[int]) -> Key:
    """The moment with the rule events that have a part in its measurement."""
    a = bisect_left(events, ts_ms - round((history_s_of(p.settings) + p.settings.settle_s) * 1000))
    b = bisect_left(events, ts_ms + round(p.settings.observe_window_s * 1000))
    return ts_ms, tuple(events[a:b])


def _judged(path: Path, p: Picture, wanted: Sequence[int]) -> Iterator[tuple[int, Verdict | None]]:
    """Each moment with its verdict from the file; nothing where the file cannot be read."""
    s = p.settings
    if not wanted:
        return
    try:
        for ts, samples in read_around(
            path / s.metrics_source,
            wanted,
            before_s=history_s_of(s),
            after_s=s.observe_window_s + END_MS / 1000,
            metrics=s.metrics,
            ranges={m: (t.lo, t.hi) for m, t in s.targets.items()},
            timezone=s.timezone,
        ):
            yield ts, pretend(p, ts, samples)
    except Unavailable:
        return
