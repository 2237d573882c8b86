"""The append-only files as one ledger: read what is new, commit one batch under the lock.

Answers "what do the files say?" and "write this if nothing moved". Never decides anything.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from selftune.book import (
    Batch,
    Chain,
    Committed,
    DecisionDraft,
    EffectRow,
    EventDraft,
    Missing,
    Orphan,
    Records,
    Version,
    missing_evidence,
    open_crits,
    orphans,
)

__all__ = [
    "Batch", "Chain", "Committed", "DecisionDraft", "EffectRow", "EventDraft", "FileLedger", "Ledger",
    "MemoryLedger", "Missing", "Orphan", "Records", "Version", "missing_evidence", "open_crits", "orphans",
]


class Ledger(Protocol):
    """Read and commit; the same behaviour on disk and in memory."""

    def read(self) -> Records:
        """Everything known now; only what is new is read."""
        ...

    def commit(self, batch: Batch, expect: Version | None) -> Committed:
        """Write `batch` if the files still are at `expect` (None: wherever they are).

        Raises: StaleSnapshot, LockHeld, StorageError.
        """
        ...


class FileLedger:
    """The ledger of one data root on disk."""

    def __init__(
        self,
        root: Path,
        *,
        timezone: str,
        clock: Callable[[], int] | None = None,
        steady: Callable[[], int] | None = None,
    ) -> None:
        raise NotImplementedError

    def read(self) -> Records:
        raise NotImplementedError

    def commit(self, batch: Batch, expect: Version | None) -> Committed:
        raise NotImplementedError


class MemoryLedger:
    """The same ledger in memory, for backtests and tests."""

    def __init__(
        self,
        *,
        timezone: str,
        clock: Callable[[], int],
        steady: Callable[[], int] | None = None,
        settings: bytes | None = None,
    ) -> None:
        raise NotImplementedError

    def read(self) -> Records:
        raise NotImplementedError

    def commit(self, batch: Batch, expect: Version | None) -> Committed:
        raise NotImplementedError
