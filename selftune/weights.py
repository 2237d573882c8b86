"""How a contrast weighs the bins around an event: step response, least squares, autoregression.

Answers "which weighted sum of bins is the step's coefficient?", by ordinary or generalised least
squares, and fits the metric's own memory (Burg). Knows nothing of events, placebos or settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from selftune.series import Floats

Bools = NDArray[np.bool_]
Kind = Literal["o0", "o1", "g", "i"]

MAX_AR = 12
MAX_FILL = 5  # bins of a gap that are bridged by a line, in the history only


# ----------------------------------------------------------------------------- stretches of bins
def fill_short(x: Floats, longest: int = MAX_FILL) -> Floats:
    """`x` with inner NaN runs of at most `longest` bridged by a straight line."""
    missing = np.isnan(x)
    if not missing.any() or missing.all():
        return x
    out = x.copy()
    for a, b in runs(missing):
        if a > 0 and b < len(x) and b - a <= longest:
            out[a:b] = np.interp(np.arange(a, b), (a - 1, b), (x[a - 1], x[b]))
    return out


def runs(mask: Bools) -> list[tuple[int, int]]:
    """Half-open index pairs of the stretches where `mask` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def detrended(x: Floats) -> Floats:
    t = np.arange(len(x)) - (len(x) - 1) / 2
    return np.asarray(x - x.mean() - t * (t.dot(x) / t.dot(t)))


# ----------------------------------------------------------------------------- memory
def burg(parts: Sequence[Floats], max_order: int = MAX_AR) -> Floats:
    """AR polynomial (1, -phi_1, ...) by Burg's recursion over all parts, order by AICc.

    Source: Burg 1975 (several segments: the sums run over all of them); Hurvich & Tsai 1989.
    """
    n = sum(len(p) for p in parts)
    a = best = np.ones(1)
    power = sum(float(p @ p) for p in parts) / max(1, n)
    if power <= 0:
        return best
    forward, backward = [p[1:] for p in parts], [p[:-1] for p in parts]
    lowest = n * np.log(power) + 2 * n / max(1, n - 2)
    for order in range(1, min(max_order, n // 10) + 1):
        across = within = 0.0
        for f, b in zip(forward, backward, strict=True):
            across += float(f.dot(b))
            within += float(f.dot(f)) + float(b.dot(b))
        if within <= 0:
            break
        k = -2 * across / within
        longer = np.zeros(order + 1)
        longer[:order] = a
        a = longer + k * longer[::-1]
        power *= 1 - k * k
        if power <= 0:
            break
        parameters = order + 1
        score = n * np.log(power) + 2 * parameters * n / (n - parameters - 1)
        if score < lowest:
            lowest, best = score, a
        pairs = [(f[1:] + k * b[1:], b[:-1] + k * f[:-1]) for f, b in zip(forward, backward, strict=True)]
        forward, backward = [f for f, _ in pairs], [b for _, b in pairs]
    return best


# ----------------------------------------------------------------------------- weights
@lru_cache(maxsize=256)
def step_response(pre: int, post: int, tau: float) -> Floats:
    """u = 1 - exp(-t/tau) at the centres of bins 0..post-1, after `pre` zeros; not to be written to."""
    t = np.arange(post) + 0.5
    out = np.concatenate((np.zeros(pre), 1 - np.exp(-t / tau)))
    out.setflags(write=False)
    return out


def _coefficient_row(column: Floats, others: Floats) -> Floats | None:
    """The least-squares operator's row that yields the coefficient of `column` beside `others`."""
    if others.shape[1]:
        q, r = np.linalg.qr(others)
        size = np.abs(np.diag(r))
        if size.min() <= 1e-10 * size.max():
            return None
        column_left = column - q @ (q.T @ column)
    else:
        column_left = column
    norm = float(column_left @ column)
    return column_left / norm if norm > 1e-12 * float(column @ column) else None


def ols_weights(pre: int, post: int, tau: float, kind: Kind, live: Bools) -> Floats | None:
    """Weights w of D = sum w_k b_k by ordinary least squares on the live bins, 0 elsewhere.

    Shape: `live` and the result have pre + post bins, the event between them.
    """
    t = np.arange(-pre, post) + 0.5
    nuisance = [np.ones(pre + post)] if kind == "o0" else [np.ones(pre + post), t / max(pre, post)]
    row = _coefficient_row(step_response(pre, post, tau)[live], np.column_stack(nuisance)[live])
    if row is None:
        return None
    w = np.zeros(pre + post)
    w[live] = row
    return w


def gls_weights(pre: int, post: int, tau: float, poly: Floats, live: Bools, *, level: bool) -> Floats | None:
    """Weights by generalised least squares under the AR polynomial; every dead bin has a dummy.

    `level`: whether a constant stands beside the step (not on first differences, where it is gone).
    """
    q = len(poly) - 1
    alive = np.flatnonzero(live)
    first, last = int(alive[0]), int(alive[-1]) + 1  # dead ends need no dummies: leave them out
    n = last - first
    if n <= q + 2:
        return None
    whiten = np.zeros((n - q, n))
    sliding_window_view(whiten.ravel(), q + 1, writeable=True)[:: n + 1][: n - q] = poly[::-1]
    dead = np.flatnonzero(~live[first:last])
    columns = [whiten[:, dead]]
    if level:
        columns.append(whiten.sum(axis=1, keepdims=True))
    step = whiten @ step_response(pre, post, tau)[first:last]
    others = np.column_stack(columns)
    norms = np.sqrt((others * others).sum(axis=0))
    if norms.size and norms.min() <= 0:
        return None
    row = _coefficient_row(step, others / norms)
    if row is None:
        return None
    w = np.zeros(pre + post)
    w[first:last] = row @ whiten
    w[~live] = 0.0
    return w
