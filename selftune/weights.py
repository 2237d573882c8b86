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
STEADY = 1e-4  # of a basis: its least share over its largest
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
    """AR polynomial (1, -phi_1, ...) by Burg's recursion over all parts, order by AICc."""
    polys, orders = burgs([[p[None, :] for p in parts]], [1], max_order)
    return polys[0, : orders[0] + 1]


def burgs(
    sets: Sequence[Sequence[Floats]], rows: Sequence[int], max_order: int = MAX_AR
) -> tuple[Floats, NDArray[np.int64]]:
    """`burg` of each row of each set of parts: (polynomials, 0 beyond their order; their orders).

    Shape: `rows[i]` is the number of rows of each part of `sets[i]`; polynomials (rows, max_order + 1).
    Each row is worked out number by number as if it were alone.
    Source: Burg 1975 (several segments: the sums run over all of them); Hurvich & Tsai 1989.
    """
    forward, backward, power, n, line, last = _laid(sets, rows)
    going = (power > 0) & (n > 0)  # whose recursion is not over
    power = power / np.maximum(1, n)
    best = np.zeros((len(n), max_order + 1))
    best[:, 0] = 1.0
    orders, a = np.zeros(len(n), np.int64), best.copy()
    lowest = n * np.log(np.where(going, power, 1.0)) + 2 * n / np.maximum(1, n - 2)
    for order in range(1, max_order + 1):
        within = np.vecdot(forward, forward) + np.vecdot(backward, backward)
        going &= (within > 0) & (order <= n // 10)
        if not going.any():
            break
        k = np.where(going, -2 * np.vecdot(forward, backward) / np.where(going, within, 1.0), 0.0)
        turn = k[:, None]
        a[:, : order + 1] += turn * a[:, order::-1]
        power = power * (1 - k * k)
        going &= power > 0
        parameters = order + 1
        penalty = 2 * parameters * n / np.maximum(1, n - parameters - 1)
        score = n * np.log(np.where(going, power, 1.0)) + penalty
        better = going & (score < lowest)
        lowest = np.where(better, score, lowest)
        orders[better], best[better] = order, a[better]
        ahead = forward + turn * backward
        backward += turn * forward
        forward[:, :-1] = ahead[:, 1:]
        forward[line, last - 1] = 0.0
        backward[line, last - order] = 0.0
    return best, orders


def _laid(
    sets: Sequence[Sequence[Floats]], rows: Sequence[int]
) -> tuple[Floats, Floats, Floats, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The parts of each row behind one another: (from bin 1 on, up to the last, power, bins, row, end).

    The last two say where parts end: what a step of the recursion brings over a border is set to nothing.
    """
    longest = max((sum(max(0, p.shape[1] - 1) for p in parts) for parts in sets), default=0)
    width = -(-longest // 32) * 32  # zeros up to there, so that a sum does not depend on the other rows
    forward, backward = np.zeros((2, sum(rows), width))
    power, n = np.zeros(sum(rows)), np.zeros(sum(rows), np.int64)
    line, last = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    top = 0
    for parts, k in zip(sets, rows, strict=True):
        mine, at = slice(top, top + k), 0
        for p in parts:
            power[mine] += np.vecdot(p, p)
            n[mine] += p.shape[1]
            if p.shape[1] > 1:
                end = at + p.shape[1] - 1
                forward[mine, at:end], backward[mine, at:end] = p[:, 1:], p[:, :-1]
                line.append(np.arange(top, top + k))
                last.append(np.full(k, end))
                at = end
        top += k
    return forward, backward, power, n, np.concatenate(line), np.concatenate(last)


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


def gls_weights(
    pre: int,
    post: int,
    tau: float,
    polys: Floats,
    orders: NDArray[np.int64],
    live: Bools,
    *,
    level: bool,
) -> Floats:
    """Weights by generalised least squares under each AR polynomial; every dead bin has a dummy.

    Shape: `polys` (rows, longest order + 1), 0 beyond each one's order; the result (rows, pre + post), where
    there are none all NaN. `level`: whether a constant stands beside the step (not on first differences,
    where it is gone).
    """
    alive = np.flatnonzero(live)
    first, last = int(alive[0]), int(alive[-1]) + 1  # dead ends need no dummies: leave them out
    n, longest = last - first, polys.shape[1] - 1
    column = step_response(pre, post, tau)[first:last]
    dead = np.flatnonzero(~live[first:last])
    a, m = (int(dead[0]), len(dead)) if len(dead) else (0, 0)
    found, plain = np.full((len(polys), pre + post), np.nan), np.zeros(len(polys), bool)
    if m and dead[-1] == a + m - 1 and longest <= a <= n - longest - m:
        kept, plain = _left_by_gap(polys, m)
        found[plain, first:last] = _gap_rows(column, polys, orders, a, kept, level=level)[plain]
    for i in np.flatnonzero(~plain).tolist():
        row = _holes_row(column, polys[i, : orders[i] + 1], dead, level=level)
        if row is not None:
            found[i, first:last] = row
    found[np.isfinite(found[:, first, None]) & ~live] = 0.0  # else NaN in every bin
    return found


def _holes_row(column: Floats, poly: Floats, dead: NDArray[np.int64], *, level: bool) -> Floats | None:
    """The weights where bins are missing here and there."""
    q, n = len(poly) - 1, len(column)
    if n <= q + 2:
        return None
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
    return None if row is None else np.asarray(row @ whiten)


def _gap_rows(
    column: Floats, polys: Floats, orders: NDArray[np.int64], a: int, kept: Floats, *, level: bool
) -> Floats:
    """The weights where only the bins from `a` on are missing; NaN where the step cannot be told apart.

    The same least squares: of what the dummies' whitened columns touch, only that is kept which is
    orthogonal to them all, then the level that they leave is taken out.
    """
    longest, n = polys.shape[1] - 1, len(column)
    whole = np.arange(n) >= orders[:, None]  # whitened bins that stand on bins of the window alone
    step = np.where(whole, _filtered(column, polys), 0.0)
    part = slice(a, a + kept.shape[1])
    row = step.copy()
    row[:, part] = _projected(kept, step[:, part])
    able = np.ones(len(polys), bool)
    if level:
        rest = whole.astype(float)
        rest[:, part] = _projected(kept, rest[:, part])
        power = np.vecdot(rest, rest)
        able = (polys.sum(axis=1) != 0) & (power > 1e-20 * n)
        row -= rest * (np.vecdot(rest, row) / np.where(able, power, 1.0))[:, None]
    norm = np.vecdot(row, step)
    able &= norm > 1e-12 * np.vecdot(step, step)
    row = np.where(able[:, None], row / np.where(able, norm, 1.0)[:, None], np.nan)
    found = row.copy()
    for j in range(1, longest + 1):
        found[:, : n - j] += polys[:, j, None] * row[:, j:]
    return found


def _filtered(column: Floats, polys: Floats) -> Floats:
    """The column whitened by each polynomial; the first bins stand on zeros before the window."""
    out = np.repeat(column[None, :], len(polys), axis=0)
    for j in range(1, polys.shape[1]):
        out[:, j:] += polys[:, j, None] * column[:-j]
    return out


def _left_by_gap(polys: Floats, m: int) -> tuple[Floats, Bools]:
    """(an orthonormal basis of all that is orthogonal to what `m` dummies in a row become, is it steady).

    Shape: (rows, m + order, order), (rows,). Such a series runs, from its last `order` bins, backwards
    through the autoregression; where that has almost no noise in it, the basis loses its digits.
    """
    longest = polys.shape[1] - 1
    basis = np.zeros((len(polys), m + longest, longest))
    basis[:, m:] = np.eye(longest)
    phi = -polys[:, None, 1:]
    for t in range(m - 1, -1, -1):
        basis[:, t] = (phi @ basis[:, t + 1 : t + 1 + longest])[:, 0]
    basis, rest = np.linalg.qr(basis)
    size = np.abs(np.diagonal(rest, axis1=1, axis2=2))
    return basis, size.min(axis=1, initial=1.0) > STEADY * size.max(axis=1, initial=0.0)


def _projected(basis: Floats, x: Floats) -> Floats:
    return np.asarray((basis @ (x[:, None, :] @ basis).transpose(0, 2, 1))[:, :, 0])
