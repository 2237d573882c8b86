"""The adaptive placebo-calibrated contrast: one metric's bins around an event -> Δ and its scale.

Answers "how much did the level move at t, and how large a Δ does chance produce here?" by sliding
the same contrast over the quiet time before the event (docs/method.md). Pure arithmetic on arrays:
knows nothing of settings, files, rules or states of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from selftune.series import Floats
from selftune.weights import (
    Bools,
    Kind,
    burgs,
    detrended,
    fill_short,
    gls_weights,
    ols_weights,
    runs,
    step_response,
)

TAU_S = 8.0  # assumed lag of the response inside the step column
PRIOR_DF = 8.0  # nu_b: how far the window's own spread is believed
POOL_DF = 6.0  # lambda: how far the pooled placebo spread is believed
KAPPA = 1.05  # the choice among candidates makes the smallest q a little too small
MIN_PLACEBOS = 20
MIN_SHARE = 0.7  # of valid bins, in the pre and in the post part
MIN_BATCHES = 3
LEAST_T = 1.95  # no 97.5 % quantile of t is smaller: that of the normal law is 1.96
ODDS_MOST = 1000.0  # beyond this the fitted tail speaks, not the stream's own past


@dataclass(frozen=True, slots=True)
class Candidate:
    """One contrast: `pre` and `share` x R seconds around the event, fitted as `kind` says.

    `pre` is meant for R = 90 s; beside a longer window it grows in proportion.
    """

    pre: int
    share: float
    kind: Kind

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.pre}/{self.share:g}R"


CANDIDATES = (
    Candidate(30, 0.67, "o0"),
    Candidate(30, 1.0, "o0"),
    Candidate(60, 1.0, "o0"),
    Candidate(90, 1.0, "o0"),
    Candidate(90, 1.0, "o1"),
    Candidate(60, 0.67, "o1"),
    Candidate(60, 1.0, "o1"),
    Candidate(60, 0.67, "g"),
    Candidate(90, 1.0, "g"),
    Candidate(60, 1.0, "i"),
)


@dataclass(frozen=True, slots=True)
class Bins:
    """Bins around one event. Shape: `y` float64[hist + post], NaN = missing; index `hist` is bin 0.

    `quiet` marks bins that no other rule event or its washout touches; `wash` bins after the event
    and the one before it get no weight; `pre_limit` bins back is as far as the pre part may reach;
    `scale` bins make one second of the default geometry.
    """

    y: Floats
    quiet: Bools
    hist: int
    post: int
    wash: int
    pre_limit: int
    scale: float = 1.0

    @property
    def stretch(self) -> float:
        """How much longer than 90 s the post window is, at least 1."""
        return max(1.0, self.post / (90 * self.scale))

    def size(self, seconds: float) -> int:
        """How many bins `seconds` of the default geometry make, at least one."""
        return max(1, round(seconds * self.scale))


@dataclass(frozen=True, slots=True)
class Contrast:
    """The chosen contrast: estimate, scale of its error and what it stands on. Units: the metric's.

    `arrived`: what the contrast makes of a step of 1 that is as slow as the washout allows.
    """

    delta: float
    sigma: float
    nu: float
    q: float
    placebos: int
    n_eff: float
    candidate: Candidate
    pre: int
    post: int
    arrived: float

    def interval(self, margin: float = 0.0) -> tuple[float, float]:
        """The 95 % interval, `margin` wider on both sides.

        Away from zero it also reaches what a slow response would mean (a part of it had not arrived
        when the window ended): this never makes a chance Δ significant, and keeps a slow one covered.
        """
        slow = self.delta / min(1.0, max(0.5, self.arrived))
        half = self.q + margin
        return min(self.delta, slow) - half, max(self.delta, slow) + half

    def odds(self) -> float:
        """N of "by chance about 1 in N is as large", at most what a few hundred placebos can tell."""
        if self.sigma <= 0:
            return ODDS_MOST if self.delta else 1.0
        p = 2 * float(stdtr(self.nu, -abs(self.delta) / self.sigma))
        return min(ODDS_MOST, 1 / max(p, 1 / ODDS_MOST))


@dataclass(frozen=True, slots=True)
class _History:
    """Quiet time before the events: filled bins (0 where missing), where they are bad, AR fits.

    Shape: `x` (rows, bins). `streams`: the rows of each event, which are bad at the same bins; `cum_missing`
    and `cum_loud` (streams, bins). The fits are one a row.
    """

    x: Floats
    streams: list[slice]
    cum_missing: NDArray[np.int64]
    cum_loud: NDArray[np.int64]
    levels: tuple[Floats, NDArray[np.int64]]  # AR polynomials of the levels, their orders
    steps: tuple[Floats, NDArray[np.int64]]  # AR polynomials of the first differences, times (1 - B)
    means: dict[int, tuple[Floats, Floats]] = field(default_factory=dict)
    spreads: dict[tuple[int, int], Floats] = field(default_factory=dict)

    def _batch_means(self, width: int) -> tuple[Floats, Floats]:
        """Means of `width` bins from each bin on, and their squares."""
        if width not in self.means:
            mean = np.full(width, 1 / width)
            means = np.stack([np.correlate(row, mean, "valid") for row in self.x])
            self.means[width] = means, means * means
        return self.means[width]

    def spread(self, part: slice, width: int, places: int) -> Floats:
        """Var(batch means)/n of one part, for the window at each of `places`; many candidates share it."""
        n = (part.stop - part.start) // width
        if (n, width) not in self.spreads:
            means, squares = self._batch_means(width)
            room = means.shape[1] - (n - 1) * width
            total, square = np.zeros((2, len(means), room))
            for s in range(0, n * width, width):  # a handful of long additions beats a table of windows
                total += means[:, s : s + room]
                square += squares[:, s : s + room]
            self.spreads[n, width] = np.maximum(0.0, square - total * total / n) / ((n - 1) * n)
        return self.spreads[n, width][:, part.start : part.start + places]


# ----------------------------------------------------------------------------- history
def _history(bins: Bins, y: Floats, reference: Floats, quiet: Bools, streams: list[slice]) -> _History:
    """`y`: the bins of all rows, in which those of a stream miss the same ones; `quiet`: of each stream."""
    x = y[:, : bins.hist - 1]
    if np.isnan(x).any():
        x = np.stack([fill_short(row) for row in x])
    x = x - reference
    missing, loud = np.isnan(x[[s.start for s in streams]]), ~quiet[:, : bins.hist - 1]
    levels, steps = [], []
    for mine, bad in zip(streams, missing | loud, strict=True):
        parts = [x[mine, a:b] for a, b in runs(~bad) if b - a >= bins.size(30)]
        levels.append([detrended(p) for p in parts])
        steps.append([detrended(np.diff(p)) for p in parts])
    many = [mine.stop - mine.start for mine in streams]
    polys, orders = burgs(levels + steps, many + many)
    k = len(x)
    moves = np.zeros((k, polys.shape[1] + 1))
    moves[:, :-1] = polys[k:]
    moves[:, 1:] -= polys[k:]
    return _History(
        x=np.where(np.isnan(x), 0.0, x),
        streams=streams,
        cum_missing=_sums(missing),
        cum_loud=_sums(loud),
        levels=(polys[:k], orders[:k]),
        steps=(moves, orders[k:] + 1),
    )


def _sums(mask: Bools) -> NDArray[np.int64]:
    """How many are true before each column, and in all."""
    return np.cumsum(np.pad(mask, ((0, 0), (1, 0))), axis=1, dtype=np.int64)


# ----------------------------------------------------------------------------- weights
@lru_cache(maxsize=256)
def _whole_ols(pre: int, post: int, wash: int, tau: float, kind: Kind) -> Floats | None:
    live = np.ones(pre + post, bool)
    live[pre - 1 : pre + wash] = False
    return ols_weights(pre, post, tau, kind, live)


def _weights(bins: Bins, candidate: Candidate, pre: int, post: int, live: Bools, past: _History) -> Floats:
    """The weights of each row, NaN where there are none."""
    tau = TAU_S * bins.scale
    if candidate.kind in ("o0", "o1"):
        whole = np.count_nonzero(live) == pre + post - 1 - bins.wash
        ordinary = (
            _whole_ols(pre, post, bins.wash, tau, candidate.kind)
            if whole
            else ols_weights(pre, post, tau, candidate.kind, live)
        )
        one = np.full(pre + post, np.nan) if ordinary is None else ordinary
        return np.broadcast_to(one, (len(past.x), pre + post))
    if candidate.kind == "g":
        return gls_weights(pre, post, tau, *past.levels, live, level=True)
    return gls_weights(pre, post, tau, *past.steps, live, level=False)


# ----------------------------------------------------------------------------- local spread
def _batches(pre: int, post: int, wash: int, width: int) -> tuple[slice, slice]:
    """The whole batches of the pre part (ending at bin -2) and of the post part (from W)."""
    n_pre, n_post = (pre - 1) // width, (post - wash) // width
    return slice(pre - 1 - n_pre * width, pre - 1), slice(pre + wash, pre + wash + n_post * width)


def _event_spread(window: Floats, live: Bools, part: slice, width: int) -> Floats | None:
    """Var/n of the batch means at the event, over batches with at least half of their bins alive."""
    values, alive = window[:, part].reshape(len(window), -1, width), live[part].reshape(-1, width)
    if alive.all():
        n, means = values.shape[1], np.add.reduce(values, axis=2) / width
    else:
        count = alive.sum(axis=1)
        enough = np.flatnonzero(count * 2 >= width)
        n = len(enough)
        means = np.where(alive, values, 0.0).sum(axis=2).take(enough, axis=1) / count[enough]
    if n < 2:
        return None
    centred = means - np.add.reduce(means, axis=1, keepdims=True) / n
    return np.asarray(np.vecdot(centred, centred) / ((n - 1) * n))


# ----------------------------------------------------------------------------- one candidate
def effective_counts(z: Floats, n: NDArray[np.int64]) -> Floats:
    """n / (1 + 2 sum rho_m^2) over lags m below n/2, of each row; dropped placebos stand as zeros in `z`.

    Each row must end in at least n/2 zeros, which keep lags from wrapping around.
    """
    power = np.vecdot(z, z)
    spectrum = np.fft.rfft(z)
    rho = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, z.shape[1])[:, 1 : z.shape[1] // 2]
    rho /= np.where(power > 0, power, 1.0)[:, None]
    near = np.where(np.arange(1, 1 + rho.shape[1]) < (n // 2)[:, None], rho, 0.0)
    return np.asarray(n / (1 + 2 * np.vecdot(near, near)))


@dataclass(frozen=True, slots=True)
class _Place:
    """What candidates over the same `pre` and `post` bins share, whatever they fit.

    `usable`: which windows of each row are placebos, `n` of them, half of them up to `middle`; a row with
    too few is not `able`. `spread`: that of each window, `spread_event` that at the event.
    Shape: `window`, `usable` and `spread` (rows, bins or places), all else (rows,).
    """

    pre: int
    post: int
    live: Bools
    window: Floats
    usable: Bools
    n: NDArray[np.int64]
    middle: NDArray[np.int64]
    able: Bools
    spread: Floats
    spread_event: Floats
    spread_mean: Floats


def _place(bins: Bins, pre: int, post: int, past: _History, event: Floats, okay: Bools) -> _Place | None:
    """The place of a contrast, None when the data do not carry one there."""
    n_pre, n_post, span = pre - 1, post - bins.wash, pre + post
    places = bins.hist - span  # windows of `span` bins within the hist-1 bins before the guard
    if n_post < 1 or n_pre < 1 or places < MIN_PLACEBOS:
        return None
    live = okay[bins.hist - pre : bins.hist + post].copy()
    live[pre - 1 : pre + bins.wash] = False
    live[: max(0, pre - bins.pre_limit)] = False
    if np.count_nonzero(live[:pre]) < MIN_SHARE * n_pre or np.count_nonzero(live[pre:]) < MIN_SHARE * n_post:
        return None
    width = bins.size(bins.stretch * (10 if min(pre, n_post) >= bins.size(60 * bins.stretch) else 5))
    if min(n_pre, n_post) < MIN_BATCHES * width:
        return None
    before, after = _batches(pre, post, bins.wash, width)
    window = event[:, bins.hist - pre : bins.hist + post]
    spread_pre = _event_spread(window, live, before, width)
    spread_post = _event_spread(window, live, after, width)
    if spread_pre is None or spread_post is None:
        return None
    found = _usable(past, pre, post, bins.wash)
    kept = [np.flatnonzero(row) for row in found]
    if max(map(len, kept)) < MIN_PLACEBOS:
        return None
    of = np.repeat(np.arange(len(kept)), [mine.stop - mine.start for mine in past.streams])
    usable, n = found[of], np.array([len(k) for k in kept])[of]
    spread = past.spread(before, width, places) + past.spread(after, width, places)
    total = np.add.reduce(np.where(usable, spread, 0.0), axis=1)
    return _Place(
        pre=pre, post=post, live=live, window=window, usable=usable, n=n, able=n >= MIN_PLACEBOS,
        middle=np.array([k[len(k) // 2 - 1] if len(k) > 1 else 0 for k in kept])[of],
        spread=spread, spread_event=spread_pre + spread_post, spread_mean=total / np.maximum(1, n),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Tried:
    """A candidate at its place. Shape: `weights` and `z` (rows, bins or places), `sigma` (rows,).

    `sigma` is its scale, infinite where it has none; `z` its placebos over theirs, 0 where dropped.
    """

    candidate: Candidate
    place: _Place
    weights: Floats
    z: Floats
    sigma: Floats

    def done(self, row: int, n_eff: float, q: float, bins: Bins) -> Contrast:
        """The contrast of that row."""
        at, w = self.place, self.weights[row]
        return Contrast(
            delta=float(w @ np.where(at.live, at.window[row], 0.0)),
            sigma=float(self.sigma[row]),
            nu=max(2.0, n_eff),
            q=q,
            placebos=int(at.n[row]),
            n_eff=n_eff,
            candidate=self.candidate,
            pre=at.pre,
            post=at.post,
            arrived=float(w @ step_response(at.pre, at.post, max(TAU_S * bins.scale, bins.wash))),
        )


def _try(bins: Bins, candidates: Sequence[Candidate], at: _Place, past: _History) -> list[_Tried]:
    """Each candidate's weights and its scale, for every row at once."""
    weights = np.empty((len(candidates), *at.window.shape))
    for mine, c in zip(weights, candidates, strict=True):
        mine[:] = _weights(bins, c, at.pre, at.post, at.live, past)
    found = np.isfinite(weights[..., 0]) & at.able
    slid = np.zeros((*found.shape, at.usable.shape[1]))
    for i, row in np.argwhere(found).tolist():
        slid[i, row] = np.correlate(past.x[row], weights[i, row], "valid")
    placebo = np.where(at.usable, slid, 0.0)
    g = np.vecdot(placebo, placebo) / np.maximum(1, at.n)
    moves = g > 0
    # a history that never moves says nothing of chance: the window's own spread has to do
    believed = moves & (at.spread_mean > 0)
    f = np.where(believed, g / np.where(believed, at.spread_mean, 1.0), 1.0)
    own, pooled = PRIOR_DF * f, POOL_DF * g
    se = np.sqrt((own[..., None] * at.spread + pooled[..., None]) / (PRIOR_DF + POOL_DF))
    se_event = np.sqrt((own * at.spread_event + pooled) / (PRIOR_DF + POOL_DF))
    z = placebo / np.where(moves[..., None], se, 1.0)
    s_z = np.where(moves, _scale(z, at), 1.0)
    sigma = np.where(found, KAPPA * s_z * se_event, np.inf)
    return [
        _Tried(candidate=c, place=at, weights=w, z=row, sigma=s)
        for c, w, row, s in zip(candidates, weights, z, sigma, strict=True)
    ]


def _scale(z: Floats, at: _Place) -> Floats:
    """Root mean square about zero: of all placebos, the older or the newer half, whichever is largest."""
    n, half, powers = np.maximum(2, at.n), np.maximum(1, at.n // 2), np.cumsum(z * z, axis=-1)
    older, whole = powers[:, np.arange(len(n)), at.middle], powers[..., -1]
    return np.asarray(np.sqrt(np.maximum(np.maximum(whole / n, older / half), (whole - older) / (n - half))))


def _usable(past: _History, pre: int, post: int, wash: int) -> Bools:
    """Which placebo windows of each stream touch no other event's washout, nor miss a run in either part."""
    span = pre + post
    calm = np.asarray(past.cum_loud[:, span:] == past.cum_loud[:, :-span])
    inside = past.cum_missing
    if not inside[:, -1].any():
        return calm
    places = calm.shape[1]
    before = inside[:, pre - 1 : pre - 1 + places] - inside[:, :places]
    after = inside[:, span : span + places] - inside[:, pre + wash : pre + wash + places]
    return np.asarray(calm & (before == 0) & (after == 0))


def contrast(bins: Bins, candidates: Sequence[Candidate] = CANDIDATES) -> Contrast | None:
    """The contrast of the candidate with the smallest 95 % half-width q; None when none is left."""
    return contrasts((bins,), candidates)[0]


def contrasts(of: Sequence[Bins], candidates: Sequence[Candidate] = CANDIDATES) -> list[Contrast | None]:
    """`contrast` of each: metrics of one event or of many.

    Those of one shape that miss the same bins near the event are worked out together, number by number as
    if each were alone.
    """
    alike: dict[object, list[int]] = {}
    for i, b in enumerate(of):
        near = max((b.size(c.pre * b.stretch) for c in candidates), default=0)
        okay = np.isfinite(b.y)
        if okay[: b.hist - 1].any():
            last = okay[max(0, b.hist - near) :].tobytes()
            shape = (b.hist, b.post, b.wash, b.scale, min(b.pre_limit, near), last)
            alike.setdefault(shape, []).append(i)
    found: list[Contrast | None] = [None] * len(of)
    for group in alike.values():
        streams: dict[bytes, list[int]] = {}
        for i in group:
            streams.setdefault(of[i].quiet.tobytes() + np.isnan(of[i].y).tobytes(), []).append(i)
        rows = [i for stream in streams.values() for i in stream]
        best = _together([of[i] for i in rows], [len(s) for s in streams.values()], candidates)
        for i, one in zip(rows, best, strict=True):
            found[i] = one
    return found


def _together(
    of: Sequence[Bins], streams: Sequence[int], candidates: Sequence[Candidate]
) -> list[Contrast | None]:
    """The contrast of each; they differ in `y`, and between streams in what is loud or missing before."""
    bins, y = of[0], np.stack([b.y for b in of])
    okay = np.isfinite(bins.y)
    # counted from a level of its own, a constant is exactly 0 and a large offset costs no digits
    known = np.isfinite(y[:, : bins.hist - 1])
    newest = bins.hist - 2 - np.argmax(known[:, ::-1], axis=1)
    reference = y[np.arange(len(y)), newest, None]
    ends = np.cumsum(streams).tolist()
    mine = [slice(end - k, end) for end, k in zip(ends, streams, strict=True)]
    past = _history(bins, y, reference, np.stack([of[s.start].quiet for s in mine]), mine)
    event = y - reference
    at = [(bins.size(c.pre * bins.stretch), round(c.share * bins.post)) for c in candidates]
    tried: dict[int, _Tried] = {}
    for where in dict.fromkeys(at):  # those over the same bins share their place, and are tried together
        if (place := _place(bins, *where, past, event, okay)) is None:
            continue
        here = [i for i, x in enumerate(at) if x == where]
        tried |= zip(here, _try(bins, [candidates[i] for i in here], place, past), strict=True)
    return _narrowest([tried[i] for i in sorted(tried)], bins, len(y))


def _narrowest(tried: Sequence[_Tried], bins: Bins, rows: int) -> list[Contrast | None]:
    """The contrast of each row with the smallest q, the first of equals.

    What its placebos are worth is asked of the smallest scale first, then of those that may yet beat it.
    """
    if not tried:
        return [None] * rows
    sigma = np.stack([t.sigma for t in tried])
    n_eff, q = np.zeros(sigma.shape), np.full(sigma.shape, np.inf)
    size = -(-(bins.hist + bins.hist // 2) // 64) * 64  # a length that transforms are fast at
    least = np.argmin(sigma, axis=0)
    asked = np.zeros(sigma.shape, bool)
    asked[least, np.arange(rows)] = True
    for _ in range(2):
        at = np.nonzero(asked & np.isfinite(sigma) & np.isinf(q))
        z = np.zeros((len(at[0]), size))
        for line, i, row in zip(z, *(x.tolist() for x in at), strict=True):
            line[: tried[i].z.shape[1]] = tried[i].z[row]
        n_eff[at] = effective_counts(z, np.array([t.place.n for t in tried])[at])
        q[at] = sigma[at] * stdtrit(np.maximum(2.0, n_eff[at]), 0.975)
        asked = sigma * LEAST_T <= q[least, np.arange(rows)]
    best = np.argmin(q, axis=0).tolist()
    return [
        tried[i].done(row, float(n_eff[i, row]), float(q[i, row]), bins) if np.isfinite(q[i, row]) else None
        for row, i in enumerate(best)
    ]
