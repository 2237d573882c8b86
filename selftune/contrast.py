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
    """Quiet time before the event: filled bins (0 where missing), where they are bad, AR fits.

    Shape: `x` (metrics, bins); all metrics are bad at the same bins. The fits are one a metric.
    """

    x: Floats
    cum_missing: NDArray[np.int64]
    cum_loud: NDArray[np.int64]
    levels: list[Floats]  # AR polynomial of the levels
    steps: list[Floats]  # AR polynomial of the first differences, times (1 - B)
    means: dict[int, tuple[Floats, Floats]] = field(default_factory=dict)
    spreads: dict[tuple[int, int], Floats] = field(default_factory=dict)

    def _batch_means(self, width: int) -> tuple[Floats, Floats]:
        """Means of `width` bins from each bin on, and their squares."""
        if width not in self.means:
            means = _correlated(self.x, [np.full(width, 1 / width)] * len(self.x))
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


def _correlated(x: Floats, weights: Sequence[Floats]) -> Floats:
    """The weighted sum of each row of `x` at every place, by weights of its own."""
    return np.stack([np.correlate(row, w, "valid") for row, w in zip(x, weights, strict=True)])


# ----------------------------------------------------------------------------- history
def _history(bins: Bins, y: Floats, reference: Floats) -> _History:
    """`y`: the bins of all metrics, in which the same ones are missing."""
    x = y[:, : bins.hist - 1]
    if np.isnan(x[0]).any():
        x = np.stack([fill_short(row) for row in x])
    x = x - reference
    missing, loud = np.isnan(x[0]), ~bins.quiet[: bins.hist - 1]
    parts = [x[:, a:b] for a, b in runs(~missing & ~loud) if b - a >= bins.size(30)]
    moves = [np.diff(p) for p in parts]
    return _History(
        x=np.where(missing, 0.0, x),
        cum_missing=np.concatenate(([0], np.cumsum(missing))),
        cum_loud=np.concatenate(([0], np.cumsum(loud))),
        levels=burgs([detrended(p) for p in parts], len(x)),
        steps=[np.convolve(a, (1.0, -1.0)) for a in burgs([detrended(m) for m in moves], len(x))],
    )


# ----------------------------------------------------------------------------- weights
@lru_cache(maxsize=256)
def _whole_ols(pre: int, post: int, wash: int, tau: float, kind: Kind) -> Floats | None:
    live = np.ones(pre + post, bool)
    live[pre - 1 : pre + wash] = False
    return ols_weights(pre, post, tau, kind, live)


def _weights(
    bins: Bins, candidate: Candidate, pre: int, post: int, live: Bools, past: _History
) -> list[Floats | None]:
    """The weights of each metric."""
    tau = TAU_S * bins.scale
    if candidate.kind in ("o0", "o1"):
        whole = np.count_nonzero(live) == pre + post - 1 - bins.wash
        ordinary = (
            _whole_ols(pre, post, bins.wash, tau, candidate.kind)
            if whole
            else ols_weights(pre, post, tau, candidate.kind, live)
        )
        return [ordinary] * len(past.x)
    if candidate.kind == "g":
        return [gls_weights(pre, post, tau, a, live, level=True) for a in past.levels]
    return [gls_weights(pre, post, tau, a, live, level=False) for a in past.steps]


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
def effective_count(z: Floats, n: int) -> float:
    """n / (1 + 2 sum rho_m^2) over lags below n/2; dropped placebos stand as zeros in `z`."""
    power = float(z @ z)
    if power <= 0:
        return float(n)
    size = -(-(len(z) + n // 2) // 64) * 64  # room enough that no lag below n/2 wraps around
    spectrum = np.fft.rfft(z, size)
    rho = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[1 : max(1, n // 2)] / power
    return n / (1 + 2 * float(rho @ rho))


@dataclass(frozen=True, slots=True)
class _Place:
    """What candidates over the same `pre` and `post` bins share, whatever they fit.

    `keep`: usable placebo windows, `n` of them. `spread`: that of each, `spread_event` that at the event.
    Shape: `window` and `spread` (metrics, bins or places), `spread_event` and `spread_mean` (metrics,).
    """

    pre: int
    post: int
    live: Bools
    window: Floats
    keep: NDArray[np.int64]
    usable: Bools
    spread: Floats
    spread_event: Floats
    spread_mean: Floats

    @property
    def n(self) -> int:
        return len(self.keep)


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
    usable = _usable(past, pre, post, bins.wash)
    keep = np.flatnonzero(usable)
    if len(keep) < MIN_PLACEBOS:
        return None
    spread = past.spread(before, width, places) + past.spread(after, width, places)
    return _Place(
        pre=pre, post=post, live=live, window=window, keep=keep, usable=usable, spread=spread,
        spread_event=spread_pre + spread_post,
        spread_mean=np.add.reduce(spread.take(keep, axis=1), axis=1) / len(keep),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Tried:
    """A candidate with its scale; what its placebos are worth (`nu`) is asked only of the best ones."""

    candidate: Candidate
    place: _Place
    window: Floats
    weights: Floats
    z: Floats
    sigma: float

    def done(self, bins: Bins) -> Contrast:
        at, w = self.place, self.weights
        n_eff = effective_count(self.z, at.n)
        nu = max(2.0, n_eff)
        return Contrast(
            delta=float(w @ np.where(at.live, self.window, 0.0)),
            sigma=self.sigma,
            nu=nu,
            q=self.sigma * float(stdtrit(nu, 0.975)),
            placebos=at.n,
            n_eff=n_eff,
            candidate=self.candidate,
            pre=at.pre,
            post=at.post,
            arrived=float(w @ step_response(at.pre, at.post, max(TAU_S * bins.scale, bins.wash))),
        )


def _try(
    bins: Bins, candidates: Sequence[Candidate], at: _Place, past: _History
) -> list[list[_Tried | None]]:
    """Each candidate's contrast of each metric and its scale, None where its weights cannot be found."""
    found = [_weights(bins, c, at.pre, at.post, at.live, past) for c in candidates]
    none = np.zeros(at.pre + at.post)
    slid = np.stack([_correlated(past.x, [none if w is None else w for w in ws]) for ws in found])
    placebo = np.where(at.usable, slid, 0.0)
    g = np.vecdot(placebo, placebo) / at.n
    moves = g > 0
    # a history that never moves says nothing of chance: the window's own spread has to do
    believed = moves & (at.spread_mean > 0)
    f = np.where(believed, g / np.where(believed, at.spread_mean, 1.0), 1.0)
    own, pooled = PRIOR_DF * f, POOL_DF * g
    se = np.sqrt((own[..., None] * at.spread + pooled[..., None]) / (PRIOR_DF + POOL_DF))
    se_event = np.sqrt((own * at.spread_event + pooled) / (PRIOR_DF + POOL_DF))
    z = placebo / np.where(moves[..., None], se, 1.0)
    s_z = np.where(moves, _scale(z.take(at.keep, axis=2)), 1.0)
    sigma = KAPPA * s_z * se_event
    return [
        [
            None
            if w is None
            else _Tried(candidate=c, place=at, window=window, weights=w, z=row, sigma=float(s))
            for w, window, row, s in zip(ws, at.window, rows, scales, strict=True)
        ]
        for c, ws, rows, scales in zip(candidates, found, z, sigma, strict=True)
    ]


def _scale(z: Floats) -> Floats:
    """Root mean square about zero: of all placebos, the older or the newer half, whichever is largest."""
    n = z.shape[-1]
    half, powers = n // 2, np.cumsum(z * z, axis=-1)
    older, whole = powers[..., half - 1], powers[..., -1]
    return np.asarray(np.sqrt(np.maximum(np.maximum(whole / n, older / half), (whole - older) / (n - half))))


def _usable(past: _History, pre: int, post: int, wash: int) -> Bools:
    """Which placebo windows touch no other event's washout, and no missing run in either part."""
    span = pre + post
    loud = past.cum_loud[span:] - past.cum_loud[:-span]
    inside = past.cum_missing
    if not inside[-1]:
        return np.asarray(loud == 0)
    places = len(loud)
    before = inside[pre - 1 : pre - 1 + places] - inside[:places]
    after = inside[span : span + places] - inside[pre + wash : pre + wash + places]
    return np.asarray((loud == 0) & (before == 0) & (after == 0))


def contrast(bins: Bins, candidates: Sequence[Candidate] = CANDIDATES) -> Contrast | None:
    """The contrast of the candidate with the smallest 95 % half-width q; None when none is left."""
    return contrasts((bins,), candidates)[0]


def contrasts(of: Sequence[Bins], candidates: Sequence[Candidate] = CANDIDATES) -> list[Contrast | None]:
    """`contrast` of each: metrics of one event, whose bins differ in `y` alone.

    Those in which the same bins are missing are worked out together, number by number as if alone.
    """
    alike: dict[bytes, list[int]] = {}
    for i, bins in enumerate(of):
        alike.setdefault(np.isfinite(bins.y).tobytes(), []).append(i)
    found: list[Contrast | None] = [None] * len(of)
    for group in alike.values():
        y = np.stack([of[i].y for i in group])
        for i, best in zip(group, _together(of[group[0]], y, candidates), strict=True):
            found[i] = best
    return found


def _together(bins: Bins, y: Floats, candidates: Sequence[Candidate]) -> list[Contrast | None]:
    """The contrast of each row of `y`, in which the same bins are missing; all else is that of `bins`."""
    okay = np.isfinite(bins.y)
    past_ok = np.flatnonzero(okay[: bins.hist - 1])
    if not len(past_ok):
        return [None] * len(y)
    # counted from a level of its own, a constant is exactly 0 and a large offset costs no digits
    reference = y[:, past_ok[-1], None]
    past = _history(bins, y, reference)
    event = y - reference
    at = [(bins.size(c.pre * bins.stretch), round(c.share * bins.post)) for c in candidates]
    tried: list[dict[int, _Tried]] = [{} for _ in y]
    for where in dict.fromkeys(at):  # those over the same bins share their place, and are tried together
        if (place := _place(bins, *where, past, event, okay)) is None:
            continue
        here = [i for i, x in enumerate(at) if x == where]
        for i, row in zip(here, _try(bins, [candidates[i] for i in here], place, past), strict=True):
            for mine, t in zip(tried, row, strict=True):
                if t is not None:
                    mine[i] = t
    return [_narrowest([mine[i] for i in sorted(mine)], bins) for mine in tried]


def _narrowest(tried: Sequence[_Tried], bins: Bins) -> Contrast | None:
    """The contrast with the smallest q, the first of equals; asked in order of scale until none can be it."""
    best: tuple[float, int] | None = None
    found: Contrast | None = None
    for i in sorted(range(len(tried)), key=lambda i: tried[i].sigma):
        if best is not None and tried[i].sigma * LEAST_T > best[0]:
            break
        done = tried[i].done(bins)
        if best is None or (done.q, i) < best:
            best, found = (done.q, i), done
    return found
