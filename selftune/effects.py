"""What a rule change did: windows around an event -> per metric Δ, interval, scale, state of the data.

Answers "how much did each metric move because of this event, and how sure is that?"
(docs/method.md). Never judges (judging.py does), never reads a file or a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from selftune.config import Settings, pace_of
from selftune.contrast import Bins, Contrast, contrasts
from selftune.domain import DataState, Effect, MetricEffect, Reason, Target, Window, WindowStat
from selftune.health import (
    AHEAD_MS,
    Health,
    Scale,
    cleaned,
    data_health,
    frozen_mask,
    plain_rows,
    rate_of,
    scale_for,
)
from selftune.series import Floats, Int64s, Series
from selftune.weights import fill_short, runs

__all__ = [
    "Health",
    "Measured",
    "data_health",
    "measure",
    "measured_ahead",
    "window_stat",
    "window_stats",
    "windows_for",
]

ESTIMATOR = "placebo-contrast/1"
MIN_AFTER_S = 30.0  # of post window behind the washout
MIN_HISTORY_S = 110.0
HISTORY_WINDOWS = 4.0  # history reaches at least this many windows back: long ones need placebos too
MIN_STRETCH_S = 90.0  # a shorter quiet stretch does not count as history
SAME_EVENT_S = 1.0  # rules changed within it are one joint change
BATCH_S = 10.0
VALID_BIN = 0.6  # of the expected samples


# ----------------------------------------------------------------------------- windows
def windows_for(
    event_ms: int, settings: Settings, *, others_ms: Sequence[int]
) -> tuple[Window, Window] | Reason:
    """The pre window and the post window [t, t + R) of an event, or why there are none.

    `others_ms`: instants of all other rule events. One within the same second belongs to the same
    joint change; a later one ends the post window early (less than settle + 30 s: confounded); an
    earlier one, with its washout, shortens the pre window (maybe to nothing).
    """
    pace = pace_of(settings)
    others = _foreign(event_ms, others_ms, pace)
    end_ms = event_ms + round(settings.observe_window_s * 1000)
    later = min((o for o in others if o > event_ms), default=end_ms)
    needed_s = settings.settle_s + MIN_AFTER_S * pace
    if later < end_ms and later - event_ms < needed_s * 1000:
        return Reason("effect_confounded", {"after_s": (later - event_ms) / 1000, "needed_s": needed_s})
    washout_ms = round(settings.settle_s * 1000)
    quiet_from = max((o + washout_ms for o in others if o < event_ms), default=-(2**62))
    start_ms = min(event_ms, max(event_ms - round(settings.observe_window_s * 1000), quiet_from))
    return Window(start_ms=start_ms, end_ms=event_ms), Window(start_ms=event_ms, end_ms=min(end_ms, later))


def _foreign(event_ms: int, others_ms: Sequence[int], pace: float) -> list[int]:
    """The other events that are not part of the same joint change."""
    return [o for o in others_ms if abs(o - event_ms) >= SAME_EVENT_S * pace * 1000]


def history_s_of(settings: Settings) -> float:
    """Seconds before an event that the measurement may use."""
    return max(settings.history_s, HISTORY_WINDOWS * settings.observe_window_s)


# ----------------------------------------------------------------------------- measuring
@dataclass(frozen=True, kw_only=True)
class _Frame:
    """All that the metrics of one event share. `hist` and `n_post` count bins before and after it."""

    event_ms: int
    settings: Settings
    scale: Scale
    part: Series
    pre: Window
    post: Window
    hist: int
    n_post: int
    quiet: NDArray[np.bool_]
    pre_limit: int
    min_count: int
    min_samples: int
    final: bool
    bin_of: Int64s  # the bin of each sample

    def same_as(self, other: _Frame) -> bool:
        """Whether both stand on the same memory, cut alike: then whatever is measured is the same."""
        return (
            self.settings is other.settings
            and (self.pre, self.post, self.final) == (other.pre, other.post, other.final)
            and (self.hist, self.n_post, self.pre_limit) == (other.hist, other.n_post, other.pre_limit)
            and _same_view(self.part.ts_ms, other.part.ts_ms)
            and self.part.values.keys() == other.part.values.keys()
            and all(_same_view(v, other.part.values[m]) for m, v in self.part.values.items())
            and bool((self.quiet == other.quiet).all())
        )


def _same_view(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and a.strides == b.strides and a.ctypes.data == b.ctypes.data


def measure(
    series: Series,
    settings: Settings,
    *,
    event_ms: int,
    keys: tuple[str, ...],
    others_ms: Sequence[int],
    now_ms: int,
    resolution: Mapping[str, float] | None = None,
    known: Measured | None = None,
) -> Effect:
    """What the event did to every metric of the settings; never raises for what data may do.

    `others_ms`: instants of all other rule events, before and after. `series` may reach further
    than needed. `resolution[m]`: the file's last written decimal (0.001); inferred when absent.
    Not `final` while the data do not reach the window's end: the numbers are then those so far.
    `known`: what was measured ahead; used where it stands on the very same samples.
    """
    frame = _asked(series, settings, event_ms, keys, others_ms, now_ms)
    if isinstance(frame, Effect):
        return frame
    metrics = known.of(frame) if known is not None and resolution is None else None
    if metrics is None:
        (metrics,) = _metrics([frame], resolution or {})
    return _effect(keys, settings, frame.post, metrics, final=frame.final)


class Measured:
    """Effects that were measured before anybody asks for them: a replay's, many events at once."""

    def __init__(self, frames: Sequence[_Frame] = ()) -> None:
        self._of = {f.event_ms: (f, m) for f, m in zip(frames, _metrics(frames, {}), strict=True)}

    def of(self, frame: _Frame) -> Mapping[str, MetricEffect] | None:
        """The metrics' effects, if they were measured on the very samples and windows of `frame`."""
        found = self._of.get(frame.event_ms)
        return found[1] if found is not None and found[0].same_as(frame) else None


def measured_ahead(series: Series, settings: Settings, others_of: Mapping[int, Sequence[int]]) -> Measured:
    """The effects of many events, by their instants; `others_of`: those of all other rule events of each.

    `series` reaches past their windows. An event that has no final effect is left to whoever asks for it.
    """
    now_ms = series.newest_ms or 0
    asked = [_asked(series, settings, t, (), others, now_ms) for t, others in others_of.items()]
    return Measured([f for f in asked if not isinstance(f, Effect) and f.final])


def _asked(
    series: Series,
    settings: Settings,
    event_ms: int,
    keys: tuple[str, ...],
    others_ms: Sequence[int],
    now_ms: int,
) -> Effect | _Frame:
    """What is to be measured, or the effect where that cannot be."""
    windows = windows_for(event_ms, settings, others_ms=others_ms)
    from_ms = event_ms - round(history_s_of(settings) * 1000)
    if isinstance(windows, Reason):
        post = Window(start_ms=event_ms, end_ms=event_ms + round(windows.params["after_s"] * 1000))
        part = _seen(series, from_ms, post.end_ms, now_ms)
        nothing = _none(settings, part, post, DataState.CONFOUNDED, windows)
        return _effect(keys, settings, post, nothing, final=True)

    pre, post = windows
    part = _seen(series, from_ms, post.end_ms, now_ms)
    final = _reaches(series, post.end_ms, now_ms, part)
    if not final and (stale := _stale(series, settings, now_ms)) is not None:
        nothing = _none(settings, part, post, DataState.STALE, stale)
        return _effect(keys, settings, post, nothing, final=False)
    frame = _frame(part, settings, pre, post, others_ms, final=final)
    if (short := _too_short(frame, final=final)) is not None:
        nothing = _none(settings, part, post, DataState.INSUFFICIENT, short)
        return _effect(keys, settings, post, nothing, final=final)
    return frame


def _effect(
    keys: tuple[str, ...],
    settings: Settings,
    post: Window,
    metrics: Mapping[str, MetricEffect],
    *,
    final: bool,
) -> Effect:
    return Effect(
        keys=keys,
        event_ms=post.start_ms,
        window=post,
        settle_s=settings.settle_s,
        metrics=metrics,
        final=final,
        estimator=ESTIMATOR,
    )


def _seen(series: Series, start_ms: int, end_ms: int, now_ms: int) -> Series:
    """The samples of the window that are not stamped in the future."""
    return series.between(start_ms, max(start_ms, min(end_ms, now_ms + AHEAD_MS + 1)))


def _reaches(series: Series, end_ms: int, now_ms: int, part: Series) -> bool:
    """True when a sample stands at the window's end, or within two periods before it and now is past it."""
    newest = series.between(part.ts_ms[0] if len(part) else end_ms, now_ms + AHEAD_MS + 1).newest_ms
    if newest is None:
        return False
    period_ms = 1000 / (rate_of(part.ts_ms[-200:]) or 1.0)
    return newest >= end_ms or (now_ms >= end_ms and newest >= end_ms - 2 * period_ms)


def _stale(series: Series, settings: Settings, now_ms: int) -> Reason | None:
    """Why no verdict may stand on the data as they are now; None when they are fresh."""
    if series.ahead_share > 0.5:
        return Reason("effect_clock_ahead", {"share": series.ahead_share})
    if series.newest_ms is None:
        return Reason("effect_no_data", {})
    newest = series.between(int(series.ts_ms[0]), now_ms + AHEAD_MS + 1).newest_ms
    if newest is None:
        return Reason("effect_clock_ahead", {"share": 1.0})
    age_s = (now_ms - newest) / 1000
    if age_s <= settings.max_age_s:
        return None
    return Reason("effect_stale", {"age_s": age_s, "limit_s": settings.max_age_s})


def _frame(
    part: Series, settings: Settings, pre: Window, post: Window, others_ms: Sequence[int], *, final: bool
) -> _Frame:
    scale = scale_for(settings, part.ts_ms)
    t = post.start_ms
    end_ms = post.end_ms if final or not len(part) else min(post.end_ms, int(part.ts_ms[-1]))
    hist, n_post = scale.bins(history_s_of(settings)), max(0, (end_ms - t) // scale.bin_ms)
    rate = min(settings.rate_hz, rate_of(part.ts_ms) or settings.rate_hz)
    share = post.length_s / settings.observe_window_s
    return _Frame(
        event_ms=t,
        settings=settings,
        scale=scale,
        part=part,
        pre=pre,
        post=post,
        hist=hist,
        n_post=n_post,
        quiet=_quiet(_foreign(t, others_ms, scale.pace), t, hist, n_post, scale, settings.settle_s),
        pre_limit=_pre_limit(_foreign(t, others_ms, scale.pace), t, scale, settings.settle_s, hist),
        min_count=max(1, int(np.ceil(VALID_BIN * rate * scale.bin_ms / 1000 - 1e-9))),
        min_samples=int(np.ceil(settings.min_samples * share - 1e-9)),
        final=final,
        bin_of=(part.ts_ms - t) // scale.bin_ms + hist,
    )


def _quiet(
    others: Sequence[int], t: int, hist: int, post: int, scale: Scale, settle_s: float
) -> NDArray[np.bool_]:
    """Bins that no other event before t, nor its washout, touches."""
    quiet = np.ones(hist + post, bool)
    for o in others:
        if o < t:
            first = (o - t) // scale.bin_ms + hist
            end = hist - (t - o - round(settle_s * 1000)) // scale.bin_ms
            quiet[max(0, first) : max(0, min(hist, end))] = False
    return quiet


def _pre_limit(others: Sequence[int], t: int, scale: Scale, settle_s: float, hist: int) -> int:
    """How many bins back the pre part may reach: to the end of the last event's washout."""
    newest = max((o for o in others if o < t), default=None)
    if newest is None:
        return hist
    return max(0, min(hist, (t - newest - round(settle_s * 1000)) // scale.bin_ms))


def _too_short(frame: _Frame, *, final: bool) -> Reason | None:
    """Why the window itself, whatever stands in it, cannot carry a judgement."""
    needed_s = frame.settings.settle_s + MIN_AFTER_S * frame.scale.pace
    if frame.n_post >= frame.scale.bins(needed_s):
        return None
    seen_s = frame.n_post * frame.scale.bin_ms / 1000
    code = "effect_window_too_short" if final else "effect_window_open"
    return Reason(code, {"seen_s": seen_s, "needed_s": needed_s})


# ----------------------------------------------------------------------------- the metrics
def _metrics(frames: Sequence[_Frame], resolution: Mapping[str, float]) -> list[dict[str, MetricEffect]]:
    """Every metric's effect of each event. Those that have one to measure are measured together."""
    found: list[dict[str, MetricEffect]] = []
    ready: list[tuple[int, str, MetricEffect, Bins, float]] = []
    for i, frame in enumerate(frames):
        plain = {m: x for group in _groups(frame) for m, x in _prepared(frame, group)}
        found.append({m: x if isinstance(x, MetricEffect) else x[0] for m, x in plain.items()})
        ready += ((i, m, *x) for m, x in plain.items() if not isinstance(x, MetricEffect))
    best = contrasts([bins for *_, bins, _ in ready])
    for (i, m, base, _, grain), contrast in zip(ready, best, strict=True):
        if contrast is None:
            reason = Reason("effect_no_candidate", {"history_s": base.history_s})
            found[i][m] = replace(base, reason=reason)
        else:
            found[i][m] = _reported(base, contrast, resolution.get(m, grain), frames[i].scale)
    return found


@dataclass(frozen=True, slots=True)
class _Group:
    """Metrics of which the same samples are valid. Shape: `rows` (metrics, samples), all else (samples,)."""

    metrics: tuple[str, ...]
    ts_ms: Int64s
    bin_of: Int64s
    rows: Floats


def _groups(frame: _Frame) -> list[_Group]:
    """The metrics' valid samples: neither absent nor out of range, not finite or frozen."""
    part, s = frame.part, frame.settings
    if (rows := plain_rows(part, s.metrics, s)) is not None:
        return [_Group(s.metrics, part.ts_ms, frame.bin_of, rows)]
    found = []
    for m in s.metrics:
        values = _believed(part, m, s.targets.get(m), pace_of(s))
        ok = np.isfinite(values)
        found.append(_Group((m,), part.ts_ms[ok], frame.bin_of[ok], values[None, ok]))
    return found


def _prepared(
    frame: _Frame, group: _Group
) -> Iterator[tuple[str, MetricEffect | tuple[MetricEffect, Bins, float]]]:
    """Each metric's effect where there is nothing to measure; else what is known, its bins, its decimals."""
    y = _means_of(group.bin_of, group.rows, frame.hist + frame.n_post, frame.min_count)
    wash = frame.scale.bins(frame.settings.settle_s)
    known = _plain(frame, group, y[0])
    reason = _too_little(frame, known[0], y[0], wash)
    still = group.rows.min(axis=1, initial=np.inf) == group.rows.max(axis=1, initial=-np.inf)
    grains = infer_resolutions(group.rows) if reason is None else []
    for i, (m, mine) in enumerate(zip(group.metrics, known, strict=True)):
        if reason is not None:
            yield m, replace(mine, reason=reason)
        elif still[i]:
            why = Reason("effect_constant", {"value": float(group.rows[i, 0])})
            yield m, replace(mine, state=DataState.CONSTANT, delta=0.0, lo=0.0, hi=0.0, d_raw=0.0, reason=why)
        else:
            yield m, (mine, _bins(frame, y[i], wash), grains[i])


def _bins(frame: _Frame, y: Floats, wash: int) -> Bins:
    return Bins(
        y=y,
        quiet=frame.quiet,
        hist=frame.hist,
        post=frame.n_post,
        wash=wash,
        pre_limit=frame.pre_limit,
        scale=frame.scale.pace * 1000 / frame.scale.bin_ms,
    )


def _reported(base: MetricEffect, best: Contrast, grain: float, scale: Scale) -> MetricEffect:
    """The effect with its numbers; a scale of 0 would make a decision of rounding noise."""
    t975 = float(stdtrit(best.nu, 0.975))
    sigma = max(best.sigma, grain / 2 / t975, 1e-300)
    lo, hi = best.interval(grain / 2)
    bin_s = scale.bin_ms / 1000
    return replace(
        base,
        state=DataState.OK,
        delta=best.delta,
        lo=lo,
        hi=hi,
        sigma=sigma,
        nu=best.nu,
        n_eff=best.n_eff,
        odds=best.odds(),
        candidate=best.candidate.name,
        pre_s=best.pre * bin_s,
        post_s=best.post * bin_s,
    )


def _believed(part: Series, metric: str, target: Target | None, pace: float) -> Floats:
    if metric not in part.values:
        return np.full(len(part), np.nan)
    values = cleaned(part.values[metric], target)
    frozen = frozen_mask(part, metric, target, pace)
    return np.where(frozen, np.nan, values) if frozen.any() else values


def bin_means(
    ts_ms: Int64s,
    values: Floats,
    t0_ms: int,
    bin_ms: int,
    before: int,
    after: int,
    min_count: int,
) -> Floats:
    """Means of the bins k = -before..after-1 of `bin_ms` around t0, NaN below `min_count` valid samples.

    Shape: float64[before + after].
    """
    ok = np.isfinite(values)
    k = (ts_ms[ok] - t0_ms) // bin_ms + before
    return np.asarray(_means_of(k, values[None, ok], before + after, min_count)[0])


def _means_of(k: Int64s, rows: Floats, n: int, min_count: int) -> Floats:
    """The mean of each of `n` bins of each row; `k`: the bin of each column, in rising order."""
    a, b = np.searchsorted(k, (0, n))
    k, kept = k[a:b], rows[:, a:b]
    if a == b:
        return np.full((len(rows), n), np.nan)
    # summed from a level of its own: a constant bins to itself exactly, whatever the count
    reference = kept[:, :1]
    count = np.bincount(k, minlength=n)
    cell = (k + n * np.arange(len(rows))[:, None]).ravel()
    total = np.bincount(cell, weights=(kept - reference).ravel(), minlength=n * len(rows)).reshape(-1, n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= max(1, min_count), total / count + reference, np.nan)


def infer_resolutions(rows: Floats) -> list[float]:
    """The last written decimal of each row's values (0.001 for three), 0 when they are not decimal at all."""
    some = rows[:, :: max(1, rows.shape[1] // 400)]
    found, left = np.zeros(len(rows)), np.arange(len(rows))
    for decimals in range(10):
        scaled = some[left] * 10.0**decimals
        fits = (np.abs(scaled - np.rint(scaled)) <= 1e-6 + 1e-15 * np.abs(scaled)).all(axis=1)
        found[left[fits]] = 10.0**-decimals
        left = left[~fits]
        if not len(left):
            break
    return list(map(float, found))


def _plain(frame: _Frame, group: _Group, y: Floats) -> list[MetricEffect]:
    """What is there before and after, and the plain difference of the means (never judged on)."""
    history_s, missing_share = _history_s(y, frame), _missing_share(y, frame)
    settled_ms = frame.post.start_ms + round(frame.settings.settle_s * 1000)
    edges = (frame.pre.start_ms, frame.pre.end_ms, frame.post.start_ms, settled_ms, frame.post.end_ms)
    a, b, c, settled, d = np.searchsorted(group.ts_ms, edges).tolist()
    both = zip(_means(group.rows[:, a:b]), _means(group.rows[:, settled:d]), strict=True)
    return [
        MetricEffect(
            metric=m,
            state=DataState.INSUFFICIENT,
            n_pre=b - a,
            n_post=d - c,
            pre_mean=pre,
            post_mean=post,
            d_raw=None if pre is None or post is None else post - pre,
            history_s=history_s,
            missing_share=missing_share,
        )
        for m, (pre, post) in zip(group.metrics, both, strict=True)
    ]


def _means(rows: Floats) -> list[float | None]:
    """The mean of each row, counted from its first value so that a constant stays itself; None of nothing."""
    if not rows.shape[1]:
        return [None] * len(rows)
    first = rows[:, :1]
    found: list[float | None] = (first[:, 0] + (rows - first).mean(axis=1)).tolist()
    return found


def _history_s(y: Floats, frame: _Frame) -> float:
    """Event- and washout-free seconds with data, in stretches of at least 90 s."""
    calm = np.isfinite(fill_short(y[: frame.hist])) & frame.quiet[: frame.hist]
    bin_s = frame.scale.bin_ms / 1000
    shortest = MIN_STRETCH_S * frame.scale.pace
    return sum((b - a) * bin_s for a, b in runs(calm) if (b - a) * bin_s >= shortest)


def _missing_share(y: Floats, frame: _Frame) -> float:
    """Share of missing bins in the span of a plain comparison: R before the event to R after it."""
    span = y[max(0, frame.hist - frame.scale.bins(frame.pre.length_s)) :]
    return float(np.isnan(span).mean()) if len(span) else 1.0


def _too_little(frame: _Frame, base: MetricEffect, y: Floats, wash: int) -> Reason | None:
    pace = frame.scale.pace
    if base.n_post < frame.min_samples:
        return Reason("effect_few_samples", {"n": base.n_post, "needed": frame.min_samples})
    valid_s = float(np.isfinite(y[frame.hist + wash :]).sum()) * frame.scale.bin_ms / 1000
    # the bins are whole: half a bin of slack keeps a scaled grid from failing on its own rounding
    if valid_s < MIN_AFTER_S * pace - frame.scale.bin_ms / 2000:
        return Reason("effect_few_bins", {"seen_s": valid_s, "needed_s": MIN_AFTER_S * pace})
    if base.history_s < MIN_HISTORY_S * pace:
        return Reason("effect_short_history", {"history_s": base.history_s, "needed_s": MIN_HISTORY_S * pace})
    return None


def _none(
    settings: Settings, part: Series, post: Window, state: DataState, reason: Reason
) -> dict[str, MetricEffect]:
    """Every metric without numbers, and the one reason why."""
    after = part.between(post.start_ms, post.end_ms)
    empty = np.empty(0)
    return {
        m: MetricEffect(
            metric=m,
            state=state,
            reason=reason,
            n_post=int(np.isfinite(cleaned(after.values.get(m, empty), settings.targets.get(m))).sum()),
        )
        for m in settings.metrics
    }


# ----------------------------------------------------------------------------- one window
def window_stat(series: Series, metric: str, start_ms: int, end_ms: int, settings: Settings) -> WindowStat:
    """Mean of the metric over [start, end) with its standard error by batch means.

    The window is cut into batches of 10 s (90 s: 9 of them, at least 4 whatever the length); the
    spread of their means over sqrt(batches) is honest about what correlates for less than a batch,
    and too small for slower drift. None without `min_samples` in proportion to the length; the
    error also needs 2/3 of the batches (at least 3) with data.
    """
    return window_stats(series, settings, start_ms, end_ms, (metric,))[metric]


def window_stats(
    series: Series, settings: Settings, start_ms: int, end_ms: int, metrics: Sequence[str] | None = None
) -> dict[str, WindowStat]:
    """`window_stat` of each metric (default: those of the settings) over the same window."""
    part = series.between(start_ms, end_ms)
    length_s = max(0, end_ms - start_ms) / 1000
    batches = max(4, round(length_s / (BATCH_S * pace_of(settings))))
    batch = (part.ts_ms - start_ms) * batches // max(1, end_ms - start_ms)
    names = settings.metrics if metrics is None else tuple(metrics)
    least = settings.min_samples * min(1.0, length_s / settings.observe_window_s)
    rows = plain_rows(part, names, settings)
    if rows is None:
        each = (_believed(part, m, settings.targets.get(m), pace_of(settings)) for m in names)
        found = [_batch_means(values, batch, batches, least) for values in each]
    else:
        found = _all_batch_means(rows, batch, batches, least)
    return {
        m: WindowStat(mean=mean, se=se, n=n, start_ms=start_ms, end_ms=end_ms)
        for m, (mean, se, n) in zip(names, found, strict=True)
    }


Means = tuple[float | None, float | None, int]


def _batch_means(values: Floats, batch: Int64s, batches: int, least: float) -> Means:
    """(mean, its standard error, valid samples) of one metric; `batch`: which one each sample is in."""
    ok = np.isfinite(values)
    return _all_batch_means(values[None, ok], batch[ok], batches, least)[0]


def _all_batch_means(rows: Floats, batch: Int64s, batches: int, least: float) -> list[Means]:
    """(mean, its standard error, valid samples) of each row; with fewer than `least` only the last."""
    m, n = rows.shape
    if n == 0 or n < least:
        return [(None, None, n)] * m
    first = rows[:, :1]
    mean = first[:, 0] + (rows - first).mean(axis=1)
    count = np.bincount(batch, minlength=batches)
    cell = (batch + batches * np.arange(m)[:, None]).ravel()
    total = np.bincount(cell, weights=(rows - mean[:, None]).ravel(), minlength=m * batches)
    filled = count > 0
    k = np.count_nonzero(filled)
    if k < max(3, batches * 2 / 3):
        return [(x, None, n) for x in mean.tolist()]
    means = total.reshape(m, batches).compress(filled, axis=1) / count[filled]
    se = means.std(axis=1, ddof=1) / np.sqrt(k)
    return [(x, e, n) for x, e in zip(mean.tolist(), se.tolist(), strict=True)]
