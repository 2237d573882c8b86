"""The newest samples in memory: sorted columns that grow at the end and are trimmed at the front.

Answers "the samples so far, as a value". What was handed out is never changed afterwards: appends
write only into cells that no view covers yet; anything else makes new arrays (copy on write).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from selftune.series import Floats, Int64s

MAX_ROWS = 500_000  # 30 min at 277 Hz; beyond it the oldest go, so that memory stays bounded
_FIRST_CAPACITY = 1024
_T = TypeVar("_T", bound=np.generic)


class Ring:
    """Samples sorted by ts, one row a ts (of equal ones the last written stays)."""

    def __init__(self, metrics: int, max_rows: int = MAX_ROWS) -> None:
        self._metrics = metrics
        self._max_rows = max_rows
        self.clear()

    def clear(self) -> None:
        """Forget all samples (views handed out keep theirs)."""
        self._allocate(_FIRST_CAPACITY)
        self._a = self._b = 0

    def __len__(self) -> int:
        return self._b - self._a

    @property
    def ts_ms(self) -> Int64s:
        """Sorted instants, int64[n]; read-only view."""
        return _frozen(self._ts[self._a : self._b])

    @property
    def values(self) -> Floats:
        """Values, float64[metrics, n]; read-only view."""
        return _frozen(self._values[:, self._a : self._b])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._ts.nbytes + self._seq.nbytes + self._values.nbytes

    def insert(self, ts_ms: Int64s, seq: Int64s, values: Floats) -> int:
        """Add rows (`seq` = their order in the file); returns how many gave way to one of equal ts."""
        if not len(ts_ms):
            return 0
        in_order = len(ts_ms) == 1 or bool((ts_ms[1:] > ts_ms[:-1]).all())
        if in_order and (not len(self) or ts_ms[0] > self._ts[self._b - 1]):
            self._append(ts_ms, seq, values)
            return 0
        return self._merge(ts_ms, seq, values)

    def drop_from(self, seq: int) -> int:
        """Remove the rows written at `seq` or later; returns how many."""
        keep = self._seq[self._a : self._b] < seq
        gone = int(len(keep) - keep.sum())
        if gone:
            self._replace(
                self._a,
                self._ts[self._a : self._b][keep],
                self._seq[self._a : self._b][keep],
                self._values[:, self._a : self._b][:, keep],
            )
        return gone

    def trim(self, oldest_ms: int) -> int:
        """Forget rows before `oldest_ms`; returns how many *more* went because the ring is full."""
        self._a += int(np.searchsorted(self._ts[self._a : self._b], oldest_ms))
        over = max(0, len(self) - self._max_rows)
        self._a += over
        return over

    # -------------------------------------------------------------- storage
    def _allocate(self, capacity: int) -> None:
        self._ts = np.empty(capacity, np.int64)
        self._seq = np.empty(capacity, np.int64)
        self._values = np.empty((self._metrics, capacity))

    def _append(self, ts_ms: Int64s, seq: Int64s, values: Floats) -> None:
        n = len(ts_ms)
        if self._b + n > len(self._ts):
            self._move(len(self) + n)
        self._ts[self._b : self._b + n] = ts_ms
        self._seq[self._b : self._b + n] = seq
        self._values[:, self._b : self._b + n] = values
        self._b += n

    def _move(self, wanted: int) -> None:
        """Live rows into new arrays with room for as many again."""
        live = slice(self._a, self._b)
        ts, seq, values = self._ts[live], self._seq[live], self._values[:, live]
        n = len(ts)
        self._allocate(max(_FIRST_CAPACITY, wanted * 3 // 2))
        self._ts[:n], self._seq[:n], self._values[:, :n] = ts, seq, values
        self._a, self._b = 0, n

    def _merge(self, ts_ms: Int64s, seq: Int64s, values: Floats) -> int:
        at = self._a + int(np.searchsorted(self._ts[self._a : self._b], ts_ms.min()))
        ts = np.concatenate([self._ts[at : self._b], ts_ms])
        order_in_file = np.concatenate([self._seq[at : self._b], seq])
        both = np.concatenate([self._values[:, at : self._b], values], axis=1)
        order = np.lexsort((order_in_file, ts))
        order = order[np.r_[ts[order][1:] != ts[order][:-1], True]]
        self._replace(at, ts[order], order_in_file[order], both[:, order])
        return len(ts) - len(order)

    def _replace(self, at: int, ts_ms: Int64s, seq: Int64s, values: Floats) -> None:
        """Rows from position `at` on become these, in new arrays: the old ones may have been handed out."""
        self._b = at
        self._move(len(self) + len(ts_ms))
        self._append(ts_ms, seq, values)


def _frozen(view: NDArray[_T]) -> NDArray[_T]:
    view.flags.writeable = False
    return view
