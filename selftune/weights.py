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
    """Each row of `x` without its mean and slope."""
    t = np.arange(x.shape[-1]) - (x.shape[-1] - 1) / 2
    slope = np.vecdot(x, t) / t.dot(t)
    return np.asarray(x - x.mean(axis=-1, keepdims=True) - t * slope[..., None])


# ----------------------------------------------------------------------------- memory
def burg(parts: Sequence[Floats], max_order: int = MAX_AR) -> Floats:
    """AR polynomial (1, -phi_1, ...) by Burg's recursion over all parts, order by AICc.

    Source: Burg 1975 (several segments: the sums run over all of them); Hurvich & Tsai 1989.
    """
    return burgs([p[None, :] for p in parts], 1, max_order)[0]


def burgs(parts: Sequence[Floats], rows: int, max_order: int = MAX_AR) -> list[Floats]:
    """`burg` of each of the `rows`. Shape: every part (rows, its length)."""
    n = sum(p.shape[1] for p in parts)
    best = [np.ones(1) for _ in range(rows)]
    if not n:
        return best
    # the parts lie in a row; what a step brings over a border is set to nothing
    forward = np.concatenate([p[:, 1:] for p in parts], axis=1)
    backward = np.concatenate([p[:, :-1] for p in parts], axis=1)
    ends = np.cumsum([p.shape[1] - 1 for p in parts])
    power = sum((np.vecdot(p, p) for p in parts), np.zeros(rows)) / n
    going = power > 0  # whose recursion is not over
    a = np.ones((rows, 1))
    lowest = n * np.log(np.where(going, power, 1.0)) + 2 * n / max(1, n - 2)
    for order in range(1, min(max_order, n // 10) + 1):
        within = np.vecdot(forward, forward) + np.vecdot(backward, backward)
        going &= within > 0
        if not going.any():
            break
        k = -2 * np.vecdot(forward, backward) / np.where(going, within, 1.0)
        longer = np.zeros((rows, order + 1))
        longer[:, :order] = a
        a = longer + k[:, None] * longer[:, ::-1]
        power = power * (1 - k * k)
        going &= power > 0
        parameters = order + 1
        score = n * np.log(np.where(going, power, 1.0)) + 2 * parameters * n / (n - parameters - 1)
        for i in np.flatnonzero(going & (score < lowest)):
            lowest[i], best[i] = score[i], a[i]
        turn = k[:, None]
        ahead, behind = forward + turn * backward, backward + turn * forward
        forward[:, :-1], backward = ahead[:, 1:], behind
        forward[:, ends - 1] = 0.0
        backward[:, ends - order] = 0.0
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
    column = step_response(pre, post, tau)[first:last]
    dead = np.flatnonzero(~live[first:last])
    a, m = (int(dead[0]), len(dead)) if len(dead) else (0, 0)
    if m and dead[-1] == a + m - 1 and q <= a <= n - q - m:
        row = _gap_row(np.convolve(column, poly, "valid"), poly, a, m, level=level)
        spread = None if row is None else np.convolve(row, poly[::-1])
    else:
        spread = _holes_row(column, poly, dead, level=level)
    if spread is None:
        return None
    w = np.zeros(pre + post)
    w[first:last] = spread
    w[~live] = 0.0
    return w


def _holes_row(column: Floats, poly: Floats, dead: NDArray[np.int64], *, level: bool) -> Floats | None:
    """The weights where bins are missing here and there."""
    q, n = len(poly) - 1, len(column)
    whiten = np.zeros((n - q, n))
    sliding_window_view(whiten.ravel(), q + 1, writeable=True)[:: n + 1][: n - q] = poly[::-1]
    columns = [whiten[:, dead]]
    if level:
        columns.append(whiten.sum(axis=1, keepdims=True))
    others = np.column_stack(columns)
    norms = np.sqrt((others * others).sum(axis=0))
    if norms.size and norms.min() <= 0:
        return None
    row = _coefficient_row(whiten @ column, others / norms)
    return None if row is None else row @ whiten


def _gap_row(step: Floats, poly: Floats, a: int, m: int, *, level: bool) -> Floats | None:
    """The row of the whitened `step` where only bins a..a+m-1 are missing: what they touch is projected.

    The same least squares as `_coefficient_row`: dummies first, then the level that they leave.
    """
    basis = _gap_basis(poly.tobytes(), m)
    part = slice(a - len(poly) + 1, a + m)
    row = step.copy()
    row[part] -= basis @ (step[part] @ basis)
    if level:
        rest = np.ones(len(step))
        rest[part] -= basis @ basis.sum(axis=0)
        power = rest.dot(rest)
        if poly.sum() == 0 or power <= 1e-20 * len(step):
            return None
        row -= rest * (rest.dot(row) / power)
    norm = float(row.dot(step))
    return row / norm if norm > 1e-12 * float(step.dot(step)) else None


@lru_cache(maxsize=64)
def _gap_basis(poly: bytes, m: int) -> Floats:
    """An orthonormal basis of what `m` dummies in a row leave behind the AR polynomial's whitening."""
    a = np.frombuffer(poly)
    band = np.zeros((m + len(a) - 1, m))
    for j in range(m):
        band[j : j + len(a), j] = a
    return np.asarray(np.linalg.qr(band)[0])
